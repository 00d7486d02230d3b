/* SPDX-License-Identifier: BSD-3-Clause
 *
 * badinput.c - what a user may get wrong: one line that names it and the way out, status 1, nothing created or changed.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "dev.h"

enum { KIB = 1024, MIB = 1024 * KIB, MAX_PARAMS = 4, MAX_WORDS = 3 };

/* A folder with a bit of everything, the same for all: see make_files. */
static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("nbdkit's own plugins take other parameters");
}

TestSuite (badinput, .init = setup, .fini = dev_teardown, .timeout = 300);

static void
make_files (void)
{
  struct server srv;

  dev_allocated ("good", 4 * MIB);
  dev_sparse ("sparse", 4 * MIB);
  dev_allocated ("tiny", 2 * PAGE_BYTES + 4095);
  dev_allocated ("empty", 0);
  dev_allocated ("text", 4 * MIB);
  file_write (dev_path ("text"), MIB - 1, "x", 1);
  cr_assert_eq (symlink ("good", dev_path ("symlink")), 0);
  cr_assert_eq (symlink ("nowhere", dev_path ("dangling")), 0);
  cr_assert_eq (link (dev_path ("good"), dev_path ("hardlink")), 0);
  cr_assert_eq (mkdir (dev_path ("folder"), 0700), 0);
  cr_assert_eq (mkfifo (dev_path ("fifo"), 0600), 0);
  /* Ours already: its label must not change either. */
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("ours,size=1M")) });
  server_stop (&srv);
}

/* @ is the folder. Every word must be in the one line. */
struct row {
  const char *params[MAX_PARAMS];
  const char *words[MAX_WORDS];
};

static const char *
expand (const char *text)
{
  const char *at = text ? strchr (text, '@') : NULL;

  return at ? str ("%.*s%s%s", (int) (at - text), text, dev_path ("%s", at[1] == '/' ? "" : "."),
                   at + (at[1] == '/' ? 2 : 1))
            : text;
}

static void
expect_refused (const struct row *rows, unsigned nrows)
{
  make_files ();
  for (unsigned i = 0; i < nrows; i++) {
    const char *params[MAX_PARAMS + 1] = { NULL };
    char *line, *all = str ("%s", "");

    for (unsigned k = 0; k < MAX_PARAMS && rows[i].params[k]; k++) {
      params[k] = expand (rows[i].params[k]);
      all = str ("%s %s", all, rows[i].params[k]);
    }
    fprintf (stderr, "nbdkit drum%s\n", all);
    line = server_refuses (&(struct server_options){ .params = params });
    fprintf (stderr, "  %s", line);
    for (unsigned k = 0; k < MAX_WORDS && rows[i].words[k]; k++)
      cr_expect (strcasestr (line, expand (rows[i].words[k])),
                 "nbdkit drum%s: \"%s\" is not in: %s", all, rows[i].words[k], line);
  }
}

#define EXPECT_REFUSED(rows) expect_refused (rows, sizeof (rows) / sizeof (rows)[0])

/* Files and folders that can't be a device. */
Test (badinput, devices)
{
  static const struct row rows[] = {
    { { NULL }, { "device" } },
    { { "size=1M" }, { "device" } },
    { { "@/nosuch" }, { "@/nosuch", "size=" } },
    { { "@/nosuch/deeper,size=4M" }, { "@/nosuch/deeper" } },
    { { "@/good/deeper" }, { "@/good/deeper" } },
    { { "@/dangling" }, { "@/dangling" } },
    { { "@/dangling,size=4M" }, { "@/dangling" } },
    { { "@/tiny" }, { "@/tiny", "12288" } },
    { { "@/empty" }, { "@/empty", "12288" } },
    { { "@/new,size=8K" }, { "@/new", "12288" } },
    { { "@/new,size=12287" }, { "@/new", "12288" } },
    { { "@/folder" }, { "@/folder", "directory", "block device" } },
    { { "@/fifo" }, { "@/fifo", "block device" } },
    { { "/dev/zero" }, { "/dev/zero", "block device" } },
    { { "@/good,size=8M" }, { "@/good", "4194304", "size=" } },
    { { "@/ours,size=2M" }, { "@/ours", "size=" } },
    { { "device=" }, { "device" } },
    { { "device=,size=4M" }, { "device" } },
    { { "" }, { "device" } },
  };

  EXPECT_REFUSED (rows);
}

/* The options behind a device's name. */
Test (badinput, device_options)
{
  static const struct row rows[] = {
    { { "@/good,prio=-2" }, { "prio", "-2", "32767" } },
    { { "@/good,prio=32768" }, { "prio", "32768", "32767" } },
    { { "@/good,prio=x" }, { "prio", "x", "32767" } },
    { { "@/good,prio=" }, { "prio", "32767" } },
    { { "@/good,prio=1.5" }, { "prio", "32767" } },
    { { "@/good,prio=5x" }, { "prio", "32767" } },
    { { "@/good,prio=99999999999999999999" }, { "prio", "32767" } },
    { { "@/good,prio=4294967296" }, { "prio", "32767" } },
    { { "@/new,size=0" }, { "size" } },
    { { "@/new,size=garbage" }, { "size", "garbage" } },
    { { "@/new,size=" }, { "size" } },
    { { "@/new,size=-1" }, { "size" } },
    { { "@/new,size=16E" }, { "size" } },
    { { "@/new,size=99999999999999999999" }, { "size" } },
    { { "@/new,size=4Mx" }, { "size" } },
    { { "@/new,size=17T" }, { "@/new", "16T" } },
    { { "@/new,size=7E" }, { "@/new", "16T" } },
    { { "@/good,colour=red" }, { "colour", "maxio=N" } },
    { { "@/good,maxio=0" }, { "maxio", "65535" } },
    { { "@/good,maxio=65536" }, { "maxio", "65536", "65535" } },
    { { "@/good,maxio=many" }, { "maxio", "many" } },
    { { "@/good,maxio=1,maxio=1" }, { "maxio", "twice" } },
    { { "@/good,prio" }, { "prio" } },
  };

  EXPECT_REFUSED (rows);
}

/* The parameters. Those of days to come are unknown today. */
Test (badinput, parameters)
{
  static const struct row rows[] = {
    { { "@/good", "stripe=3000" }, { "stripe", "power of two", "4M" } },
    { { "@/good", "stripe=2K" }, { "stripe", "4K" } },
    { { "@/good", "stripe=8M" }, { "stripe", "4M" } },
    { { "@/good", "stripe=x" }, { "stripe" } },
    { { "@/good", "stripe=0" }, { "stripe" } },
    { { "@/good", "stripe=" }, { "stripe" } },
    { { "@/good", "stripe=-4096" }, { "stripe" } },
    { { "@/good", "stripe=12K" }, { "stripe", "power of two" } },
    { { "@/good", "size=0" }, { "size" } },
    { { "@/good", "size=x" }, { "size" } },
    { { "@/good", "size=" }, { "size" } },
    { { "@/good", "size=-1" }, { "size" } },
    { { "@/good", "size=16E" }, { "size" } },
    { { "@/good", "size=7E" }, { "size" } },
    { { "@/new,size=4M", "size=9223372036854775807" }, { "size" } },
    { { "@/good", "force=maybe" }, { "force" } },
    { { "@/good", "force=" }, { "force" } },
    { { "@/good", "checksum=maybe" }, { "checksum" } },
    { { "@/good", "control=" }, { "control", "empty" } },
    { { "@/good", "control=@/text" }, { "text", "no socket" } },
    { { "@/good", "control=@/folder" }, { "folder", "no socket" } },
    { { "@/good", "control=@/folder/none/ctl" }, { "folder/none/ctl" } },
    { { "@/good", "lock=maybe" }, { "lock", "maybe", "strict" } },
    { { "@/good", "lock=" }, { "lock", "strict" } },
    { { "@/good", "direct=maybe" }, { "direct", "maybe" } },
    { { "@/good", "direct=" }, { "direct" } },
    { { "@/good", "io=maybe" }, { "io", "maybe", "uring" } },
    { { "@/good", "io=" }, { "io", "auto" } },
    { { "@/good", "overcommit=maybe" }, { "overcommit", "maybe" } },
    { { "@/good", "readahead=5M" }, { "readahead", "5M", "4M" } },
    { { "@/good", "readahead=4095" }, { "readahead", "4096" } },
    { { "@/good", "readahead=" }, { "readahead" } },
    { { "@/good", "reset-on-mkswap=maybe" }, { "reset-on-mkswap", "maybe" } },
    { { "@/good", "nonsense=1" }, { "nonsense" } },
    { { "nonsense=1", "@/good" }, { "nonsense" } },
    { { "@/new,size=4M", "nonsense=1" }, { "nonsense" } },
  };

  EXPECT_REFUSED (rows);
}

/* Exports, and those to come; lib/parse.c's tests have the rest. */
Test (badinput, exports)
{
  static const struct row rows[] = {
    { { "@/good", "export=" }, { "export", "empty" } },
    { { "@/good", "export=,size=1M" }, { "export", "empty", "size=" } },
    { { "@/good", "export=x" }, { "export \"x\"", "size=" } },
    { { "@/new,size=4M", "export=x,size=5000" }, { "export \"x\"", "size=", "4096" } },
    { { "@/good", "export=x\ny,size=1M" }, { "export \"x\"", "control character" } },
    { { "@/good", "export=x,size=1M,reserve=2M" }, { "export \"x\"", "reserve=", "1048576" } },
    { { "@/good", "export=x,size=1M", "export=y,size=1M", "export=x,size=1M" },
      { "export \"x\"", "twice" } },
    { { "export=x,size=1M", "export=x,size=2M", "@/new,size=4M" }, { "export \"x\"", "twice" } },
    { { "@/good", "export=x,size=1M,max=3" }, { "export \"x\"", "max=3" } },
    { { "@/good", "template=*" }, { "template \"*\"", "write PATTERN,size=SIZE" } },
    { { "@/good", "template=,size=8M" }, { "the pattern is empty", "template=PATTERN" } },
    { { "@/good", "template=" }, { "empty", "template=PATTERN" } },
    { { "@/good", "template=x*,size=1M", "template=y*,size=1M", "template=x*,size=2M" },
      { "template \"x*\"", "twice", "pattern" } },
    { { "@/good", "template=*,size=1M,max=x" }, { "template \"*\"", "max=", "x" } },
    { { "@/good", "template=*,size=1M,expire=1y" }, { "template \"*\"", "expire=", "12h" } },
    { { "export=x,size=1M" }, { "device" } },
  };

  EXPECT_REFUSED (rows);
}

/* One file under two names. */
Test (badinput, twice)
{
  static const struct row rows[] = {
    { { "@/good", "@/good" }, { "@/good" } },
    { { "@/good", "@/sparse", "@/hardlink" }, { "@/good", "@/hardlink" } },
    { { "@/hardlink", "@/good" }, { "@/good", "@/hardlink" } },
    { { "@/good", "@/symlink" }, { "@/good", "@/symlink" } },
    { { "@/new,size=4M", "@/new,size=4M" }, { "@/new" } },
    { { "@/new,size=4M", "@/new" }, { "@/new" } },
  };

  EXPECT_REFUSED (rows);
}

/* More than 2^32 - 2 slots in all. */
Test (badinput, too_many_slots)
{
  static const struct row rows[] = {
    { { "@/n1,size=9T", "@/n2,size=9T" }, { "16T" } },
    { { "@/n1,size=16T" }, { "16T" } },
    { { "@/good", "@/n1,size=17592186036224" }, { "16T" } }, /* alone it would fit: 16T - 2 slots */
    { { "@/n1,size=15T", "@/n2,size=15T", "@/n3,size=15T", "@/n4,size=15T" }, { "16T" } },
  };

  EXPECT_REFUSED (rows);
}

/* One bad device leaves the others as they were, whichever comes first. */
Test (badinput, others_are_left_alone)
{
  static const struct row rows[] = {
    { { "@/new,size=4M", "@/nosuch" }, { "@/nosuch" } },
    { { "@/nosuch", "@/new,size=4M" }, { "@/nosuch" } },
    { { "@/sparse", "@/text" }, { "@/text", "force=yes" } },
    { { "@/ours", "@/text" }, { "@/text" } },
    { { "@/ours", "@/sparse", "@/new,size=4M", "@/tiny" }, { "@/tiny" } },
    { { "@/ours", "@/sparse", "@/new,size=4M", "@/tiny" }, { "@/tiny" } },
  };

  EXPECT_REFUSED (rows);
}

/* Enough room is asked for before any is taken: no file system here has 15 TiB free. */
Test (badinput, no_room)
{
  char *line;

  if (shell ("test $(df --output=avail -B1G '%s' | tail -n1) -lt 14000", dev_path (".")) != 0)
    cr_skip_test ("there is a lot of room");
  make_files ();
  line = server_refuses (&(struct server_options){
    .params = PARAMS (dev_path ("ours"), dev_path ("sparse"), dev_path ("new,size=15T")) });
  cr_assert (strstr (line, dev_path ("new")), "%s", line);
}

/* Someone's data is refused by what it is, and taken with force=yes. */
Test (badinput, foreign)
{
  static const struct row rows[] = {
    { { "@/ext4" }, { "@/ext4", "ext4", "force=yes" } },
    { { "@/ext4", "force=no" }, { "@/ext4", "force=yes" } },
    { { "@/swap" }, { "@/swap", "swap", "force=yes" } },
    { { "@/text" }, { "@/text", "force=yes" } },
    { { "@/ext4,size=8M" }, { "@/ext4", "force=yes" } },
  };
  struct server srv;
  struct nbd_handle *nbd;

  dev_allocated ("ext4", 8 * MIB);
  dev_allocated ("swap", 8 * MIB);
  cr_assert_eq (shell ("PATH=$PATH:/sbin:/usr/sbin; mkfs.ext4 -q -F '%s' && mkswap '%s'",
                       dev_path ("ext4"), dev_path ("swap")),
                0);
  EXPECT_REFUSED (rows);
  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("ext4"), dev_path ("swap"),
                                                            dev_path ("text"), "force=yes") });
  nbd = client_open (&srv);
  client_write_page (nbd, 1, 1, 1);
  client_expect_page (nbd, 1, 1, 1);
  client_close (nbd);
  server_stop (&srv);
}

/* What begins behind the first MiB does not count as someone's data: a swap file may have been used for anything. */
Test (badinput, data_behind_the_first_mib)
{
  struct server srv;

  dev_allocated ("late", 4 * MIB);
  file_write (dev_path ("late"), MIB, "x", 1);
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("late")) });
  server_stop (&srv);
}

/* A device belongs to one server at a time: the second names the file and who has it, the first goes on. */
Test (badinput, held_by_another_server)
{
  struct server srv, again;
  struct nbd_handle *nbd;
  char *line;

  make_files ();
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("good")) });
  nbd = client_open (&srv);
  client_write_page (nbd, 1, 1, 1);
  line = server_refuses (
    &(struct server_options){ .params = PARAMS (dev_path ("new,size=4M"), dev_path ("hardlink")) });
  cr_assert (strstr (line, dev_path ("hardlink")) && strstr (line, dev_path ("good")), "%s", line);
  cr_assert (strstr (line, str ("%d", (int) srv.pid)), "%s", line);
  line =
    server_refuses (&(struct server_options){ .params = PARAMS (dev_path ("good"), "force=yes") });
  cr_assert (strstr (line, dev_path ("good")), "%s", line);
  client_expect_page (nbd, 1, 1, 1);
  client_close (nbd);
  server_stop (&srv);
  server_start (&again, &(struct server_options){ .params = PARAMS (dev_path ("good")) });
  server_stop (&again);
}

/* Can nobody load the plugin? In a home folder he often can't. */
static bool
readable_by (uid_t uid, const char *path)
{
  pid_t pid = fork ();
  int status;

  if (pid == 0)
    _exit (setuid (uid) == 0 && access (path, R_OK) == 0 ? 0 : 1);
  waitpid (pid, &status, 0);
  return status == 0;
}

/* Files that may not be read, written or created. */
Test (badinput, permissions)
{
  struct passwd *nobody = getpwnam ("nobody");
  uid_t uid = geteuid () == 0 && nobody ? nobody->pw_uid : 0;
  char *line;

  if (geteuid () == 0 && !readable_by (uid, server_plugin ()))
    cr_skip_test ("root may read everything, and nobody may not read the plugin");
  make_files ();
  cr_assert_eq (chmod (dev_path ("good"), 0), 0);
  line =
    server_refuses (&(struct server_options){ .uid = uid, .params = PARAMS (dev_path ("good")) });
  cr_assert (strstr (line, dev_path ("good")), "%s", line);
  cr_assert_eq (chmod (dev_path ("good"), 0444), 0);
  line =
    server_refuses (&(struct server_options){ .uid = uid, .params = PARAMS (dev_path ("good")) });
  cr_assert (strstr (line, dev_path ("good")), "%s", line);
  cr_assert_eq (chmod (dev_path ("."), 0555), 0);
  line = server_refuses (
    &(struct server_options){ .uid = uid, .params = PARAMS (dev_path ("new,size=4M")) });
  cr_assert (strstr (line, dev_path ("new")), "%s", line);
}

/* nbdkit itself can't start. Holes that were filled may stay so; nothing else is changed, and nothing created. */
static void
expect_no_start (const char *socket)
{
  struct server srv;
  char *before = dev_contents (), *after;

  cr_assert_not (server_launch (
    &srv, &(struct server_options){ .socket = socket,
                                    .params = PARAMS (dev_path ("new,size=4M"), dev_path ("sparse"),
                                                      dev_path ("ours"), dev_path ("good")) }));
  cr_assert (WIFEXITED (srv.status) && WEXITSTATUS (srv.status) == 1, "%s", server_stderr (&srv));
  after = dev_contents ();
  cr_assert_str_eq (after, before, "nbdkit says: %s", server_stderr (&srv));
}

/* The socket's folder is missing. */
Test (badinput, bind_fails)
{
  make_files ();
  expect_no_start (run_path ("nosuch/sock"));
}

/* Another server is there already; it goes on. */
Test (badinput, socket_is_taken)
{
  struct server srv;

  make_files ();
  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("text"), "force=yes") });
  expect_no_start (srv.socket);
  client_close (client_open (&srv));
  server_stop (&srv);
}
