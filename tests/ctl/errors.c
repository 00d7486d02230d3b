/* SPDX-License-Identifier: BSD-3-Clause
 *
 * errors.c - what can go wrong between drumctl and its user, and between it and the server; each has a line of its own.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

TestSuite (errors, .init = setup, .fini = scratch_teardown, .timeout = 60);

/* One line, and the status. */
static void
expect_line (const char *const *args, int status, const char *line)
{
  struct result r = run_drumctl (args);

  cr_assert_eq (r.status, status, "%d: %s", r.status, r.err);
  cr_assert_str_eq (r.err, str ("drumctl: %s\n", line));
  cr_assert_str_eq (r.out, "");
}

Test (errors, no_server_named)
{
  expect_line (
    ARGS ("list"), 1,
    "no server named: give -s SOCKET, or set DRUM_CONTROL, to what it was started with as "
    "control=");
  setenv ("DRUM_CONTROL", "", 1);
  expect (ARGS ("list"), 1, "", "no server named");
}

Test (errors, no_socket)
{
  char *path = scratch_path ("none"), *file = scratch_path ("file");

  expect_line (
    ARGS ("-s", path, "list"), 1,
    str ("%s: there is no such socket; is the server running, with control=%s?", path, path));
  cr_assert_eq (shell ("echo >%s", file), 0);
  expect_line (ARGS ("list", "-s", file), 1,
               str ("%s: is not a socket; name the server's control=", file));
  expect (ARGS ("list", "--socket", str ("/%0120d", 1)), 1, "", "is longer than the 107 bytes");
}

static int
bind_socket (const char *path, int type)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, type, 0);

  strcpy (addr.sun_path, path);
  cr_assert_eq (bind (fd, (struct sockaddr *) &addr, sizeof addr), 0, "%m");
  return fd;
}

Test (errors, nobody_listens)
{
  char *path = scratch_path ("dead"), *other = scratch_path ("other");

  close (bind_socket (path, SOCK_STREAM));
  expect_line (ARGS ("-s", path, "list"), 1,
               str ("%s: nobody listens there any more; start the server again", path));
  bind_socket (other, SOCK_DGRAM);
  expect (ARGS ("-s", other, "list"), 1, "", "is another kind of socket");
}

/* Can nobody run it? In a home folder he often can't. */
static bool
may_run (uid_t uid)
{
  pid_t pid = fork ();
  int status;

  if (pid == 0)
    _exit (setuid (uid) == 0 && access (DRUMCTL, X_OK) == 0 ? 0 : 1);
  waitpid (pid, &status, 0);
  return status == 0;
}

Test (errors, no_permission)
{
  struct passwd *nobody = getpwnam ("nobody");
  char *path = scratch_path ("theirs");

  listen (bind_socket (path, SOCK_STREAM), 1);
  cr_assert_eq (chmod (path, 0), 0);
  if (geteuid () == 0) {
    if (!nobody || !may_run (nobody->pw_uid))
      cr_skip_test ("root may connect to everything, and nobody may not run drumctl");
    cr_assert_eq (chmod (scratch_path ("."), 0777), 0);
    cr_assert_eq (setuid (nobody->pw_uid), 0);
  }
  expect_line (ARGS ("-s", path, "list"), 1,
               str ("%s: no permission; be root, or the server's user", path));
}

/* A table of usage errors: what is asked, and what is said. */
Test (errors, usage)
{
  static const struct {
    const char *args[6], *err;
  } wrong[] = {
    { { "frob" }, "drumctl: frob: there is no such verb; \"drumctl --help\" lists" },
    { { "--frob" }, "drumctl: unrecognized option '--frob'\nTry 'drumctl --help'" },
    { { "list", "--frob" }, "Try 'drumctl list --help' for more information." },
    { { "list", "x" }, "drumctl: list takes no operands\nTry 'drumctl list --help'" },
    { { "add" }, "drumctl: add takes DEVICE" },
    { { "add", "" }, "the path is empty" },
    { { "add", "x,prio=x" }, "drumctl: x: prio=: \"x\" is not a number from -1 to 32767" },
    { { "add", "x,foo" },
      "drumctl: x: \"foo\" is none of prio=N, size=SIZE and maxio=N; a comma in a path is" },
    { { "add", "x,size=1M", "--size", "1M" }, "drumctl: x,size=1M: say it once: size= or --size" },
    { { "add", "x,prio=1", "-p", "1" }, "drumctl: x,prio=1: say it once: prio= or --prio" },
    { { "add", "x", "--size", "0" }, "drumctl: --size: must be more than 0" },
    { { "add", "x", "--size", "1Q" }, "drumctl: --size: \"1Q\" is not a size: write digits" },
    { { "add", "x", "--prio" }, "drumctl: option '--prio' requires an argument" },
    { { "remove" }, "drumctl: remove takes PATH" },
    { { "remove", "" }, "drumctl: the path of a device is empty" },
    { { "remove", "a", "b" }, "drumctl: remove takes PATH" },
    { { "remove", "a", "--rate", "fast" }, "drumctl: --rate: \"fast\" is not a size" },
    { { "rebalance", "a" }, "drumctl: rebalance takes no operands" },
    { { "scrub", "a", "b" }, "drumctl: scrub takes [PATH]" },
    { { "scrub", "" }, "drumctl: the path of a device is empty" },
    { { "priority", "a" }, "drumctl: priority takes PATH PRIO" },
    { { "priority", "a", "-2" }, "drumctl: a: \"-2\" is not a number from -1 to 32767" },
    { { "maxio", "a" }, "drumctl: maxio takes PATH N" },
    { { "maxio", "a", "65536" }, "drumctl: a: \"65536\" is not a number from 0 to 65535" },
    { { "exports", "-o", "NAME,FOO" },
      "drumctl: FOO: there is no such column; there are NAME SIZE USED " },
    { { "export-add" }, "drumctl: export-add takes NAME\nTry 'drumctl export-add --help'" },
    { { "export-add", "vm" }, "drumctl: vm: of what size? --size 8G, say" },
    { { "export-add", "vm", "--size=0" }, "drumctl: --size: must be more than 0" },
    { { "export-add", "vm", "--size=1G", "--limit=x" }, "drumctl: --limit: \"x\" is not a size" },
    { { "export-add", "vm", "--weight=0" }, "--weight: \"0\" is not a number from 1 to 10000" },
    { { "export-add", "vm", "--iops=-1" }, "--iops: \"-1\" is not a number from 0 to " },
    { { "export-add", "vm", "--exclusive=no" }, "option '--exclusive' doesn't allow an argument" },
    { { "export-set", "vm" }, "drumctl: nothing to change; --limit 4G, say" },
    { { "export-set", "vm", "--exclusive=x" }, "--exclusive: \"x\" is neither yes nor no" },
    { { "export-set", "vm", "--size=1G" }, "drumctl: unrecognized option '--size=1G'" },
    { { "export-fill", "vm", "--length=0" }, "drumctl: --length: must be more than 0" },
    { { "export-resize", "vm" }, "drumctl: export-resize takes NAME SIZE" },
    { { "export-resize", "vm", "+-1G" }, "drumctl: SIZE: \"-1G\" is not a size" },
    { { "export-resize", "vm", "-0" }, "drumctl: SIZE: must be more than 0" },
    { { "export-move", "vm" }, "drumctl: export-move takes FROM TO" },
    { { "cancel", "x" }, "drumctl: job: \"x\" is not a number" },
    { { "wait", "0" }, "drumctl: job: \"0\" is not a number" },
    { { "map", "--cells", "1025" }, "drumctl: --cells: \"1025\" is not a number from 1 to 1024" },
    { { "watch", "--interval", "0" }, "drumctl: --interval: \"0\" is not a number of seconds" },
    { { "watch", "--count", "0" }, "drumctl: --count: \"0\" is not a number" },
    { { "-t", "nan", "list" }, "drumctl: --timeout: \"nan\" is not a number of seconds" },
  };

  setenv ("DRUM_CONTROL", "/nonexistent", 1);
  for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
    expect (wrong[i].args, 2, "", wrong[i].err);
  expect ((const char *const[]){ NULL }, 2, "", "Usage:\n drumctl [options] VERB ...\n");
}

Test (errors, help)
{
  static const char *const verbs[] = {
    "list",        "status",      "watch",           "map",          "metrics",    "add",
    "remove",      "rebalance",   "scrub",           "priority",     "maxio",      "jobs",
    "wait",        "cancel",      "exports",         "export-add",   "export-set", "export-resize",
    "export-move", "export-fill", "export-takeover", "export-remove"
  };
  char *all = RUN ("--help").out;

  for (unsigned i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    struct result r = RUN (verbs[i], "--help");

    cr_assert_eq (r.status, 0);
    cr_assert_str_eq (r.err, "");
    cr_assert_not_null (strstr (r.out, str ("Usage:\n drumctl %s [options]", verbs[i])), "%s",
                        r.out);
    cr_assert_not_null (strstr (all, str ("\n %s ", verbs[i])), "%s", all);
  }
  expect (ARGS ("--version"), 0, "drumctl (" PACKAGE_STRING ")\n", "");
}

/* The reply is this; drumctl list says that, and ends with 1. */
static void
expect_reply (const struct fake_reply *reply, const char *err)
{
  struct fake_reply replies[2] = { *reply };

  fake_start (replies);
  expect (ARGS ("-t", "0.5", "list"), 1, "", err);
}

#define TEST_REPLY(name, err, ...)                             \
  Test (errors, name)                                          \
  {                                                            \
    expect_reply (&(struct fake_reply){ __VA_ARGS__ }, (err)); \
  }

TEST_REPLY (reply_none, ": the server has hung up\n", .text = "", .hangs_up = true)
TEST_REPLY (reply_cut, ": the server has hung up in the middle of a reply\n",
            .text = "{\"version\":1,\"ok\":", .hangs_up = true)
TEST_REPLY (reply_late, ": the server does not answer; --timeout has it wait longer\n",
            .text = FAKE_SILENCE)
TEST_REPLY (reply_no_json, ": the reply is no JSON; is this the control socket of a drum?\n",
            .text = "SSH-2.0-OpenSSH_9.2")
TEST_REPLY (reply_two, ": the reply is no JSON", .text = "{\"version\":1,\"ok\":true}{}")
TEST_REPLY (reply_no_object, ": the reply is no JSON", .text = "[1]")
TEST_REPLY (reply_deep, ": the reply is no JSON",
            .text = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[")
TEST_REPLY (reply_no_version, ": the reply makes no sense", .text = "{\"ok\":true}")
TEST_REPLY (reply_no_ok, ": the reply makes no sense", .text = "{\"version\":1}")
TEST_REPLY (reply_no_reason, ": the reply makes no sense", .text = "{\"version\":1,\"ok\":false}")
TEST_REPLY (reply_newer,
            ": the server speaks version 2 of the protocol, and this drumctl version 1; use",
            .text = "{\"version\":2,\"ok\":true}")
TEST_REPLY (
  reply_error, "drumctl: one\ndrumctl: two\\x1b[2J\n",
  .text = "{\"version\":1,\"ok\":false,\"error\":\"one\\ntwo\\u001b[2J\",\"errno\":\"EIO\"}")
TEST_REPLY (reply_empty, "makes no sense: \"server\" is not what it must be",
            .text = "{\"version\":1,\"ok\":true}")

/* Not all of the memory is filled with what has no end. */
Test (errors, reply_endless)
{
  enum { LENGTH = 65 << 20 };
  char *text = malloc (LENGTH + 1);

  memset (text, '[', LENGTH);
  text[LENGTH] = '\0';
  expect_reply (&(struct fake_reply){ .text = text },
                ": the reply has no end; is this the control");
}

/* A server that wants to hear nothing says why, and hangs up. */
TEST_REPLY (reply_refused, "drumctl: too many\n",
            .text = "{\"version\":1,\"ok\":false,\"error\":\"too many\"}\n", .greets = true)

/* A field of the canned status is not what it must be. */
static void
expect_field (const char *was, const char *is, const char *key)
{
  static struct fake_reply replies[2];
  char *status = fake_canned ("status.json"), *at = strstr (status, was);

  cr_assert_not_null (at, "%s", was);
  replies[0].text = str ("%.*s%s%s", (int) (at - status), status, is, at + strlen (was));
  fake_start (replies);
  expect (ARGS ("list"), 1, "", str ("makes no sense: \"%s\" is not what it must be", key));
}

#define TEST_FIELD(name, ...)   \
  Test (errors, name)           \
  {                             \
    expect_field (__VA_ARGS__); \
  }

TEST_FIELD (field_missing, "\"prio\":10,\"state\"", "\"state\"", "prio")
TEST_FIELD (field_negative, "\"pid\":4711", "\"pid\":-1", "pid")
TEST_FIELD (field_text, "\"pid\":4711", "\"pid\":\"4711\"", "pid")
TEST_FIELD (field_null, "\"name\":\"/dev/nvme0n1p3\"", "\"name\":null", "name")
TEST_FIELD (field_large, "\"prio\":10,\"state\"", "\"prio\":4294967296,\"state\"", "prio")
TEST_FIELD (field_infinite, "\"uptime\":93784.25", "\"uptime\":1e999", "uptime")
TEST_FIELD (field_array, "\"histogram\":[0,", "\"histogram\":[", "histogram")
TEST_FIELD (field_item, "\"histogram\":[0,", "\"histogram\":[\"0\",", "an array")
TEST_FIELD (field_order, "[1e-06,2e-06", "[2e-06,1e-06", "buckets")

/* What is new to this drumctl does not matter to it. */
Test (errors, field_added)
{
  static struct fake_reply replies[2];
  char *status = fake_canned ("status.json"), *before;

  replies[0].text = status;
  fake_start (replies);
  before = RUN ("list").out;
  replies[0].text = str ("{\"new\":[{}],%s", status + 1);
  expect (ARGS ("list"), 0, before, "");
}

Test (errors, warnings)
{
  static struct fake_reply replies[] = {
    { .text = "{\"version\":1,\"ok\":true,\"warnings\":[\"one\",\"two\\nthree\",4]}" }, { 0 }
  };

  fake_start (replies);
  expect (
    ARGS ("priority", "/srv/a", "3"), 0, "",
    "drumctl: warning: one\ndrumctl: warning: two\ndrumctl: warning: three\ndrumctl: warning: 4\n");
}
