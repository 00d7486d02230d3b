/* SPDX-License-Identifier: BSD-3-Clause
 *
 * verbs.c - tests of lib/verbs.c: requests and replies as docs/control.md has them. verbs_report.c has those that tell what
 * there is.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/job.h"
#include "lib/session.h"
#include "tests/scratch.h"

#include "asking.h"
#include "files.h"
#include "logged.h"
#include "tests/unit/served.h"

TestSuite (verbs, .init = asking_setup, .fini = asking_teardown, .timeout = 60);

/* ---- what is refused ---- */

/* Refused, with nothing but an error, which has this in it. */
static void
assert_refused (const char *text, int error, const char *says)
{
  int ret = ask (text);

  cr_assert_eq (ret, error, "%s: %d: %s", text, ret, json_object_to_json_string (reply));
  assert_keys (reply, "error");
  cr_assert_not_null (strstr (get_text (reply, "error"), says), "%s: %s", text,
                      get_text (reply, "error"));
  cr_assert_eq (logged_count (""), 0, "it is the client's, not the log's: %s", logged_last ());
}

/* No verb, no such verb, and arguments that it does not have. */
Test (verbs, verbs_and_arguments_are_checked)
{
  static const char *const verbs[] = { "status",   "map",   "add",       "remove",
                                       "priority", "maxio", "rebalance", "scrub",
                                       "cancel",   "wait",  "shutdown" };

  assert_refused ("{}", -EINVAL, "verb: is not given");
  assert_refused ("{'verb': 7}", -EINVAL, "verb: is not given");
  assert_refused ("{'verb': null}", -EINVAL, "verb: is not given");
  assert_refused ("{'verb': ''}", -EINVAL, "there is no such verb");
  assert_refused ("{'verb': 'STATUS'}", -EINVAL, "STATUS: there is no such verb");
  assert_refused (str ("{'verb': '%0500d'}", 0), -EINVAL, "000: there is no such verb");
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    assert_refused (str ("{'verb': '%s', 'nonsense': 1}", verbs[i]), -EINVAL,
                    str ("nonsense: %s has no such argument", verbs[i]));
    assert_refused (str ("{'verb': '%s', '': 1}", verbs[i]), -EINVAL, "has no such argument");
  }
  assert_refused ("{'verb': 'status', 'cells': 5}", -EINVAL, "cells: status has no such argument");
  assert_refused ("{'verb': 'remove', 'device': '/a', 'prio': 1}", -EINVAL, "prio: remove has no");
  assert_refused ("{'verb': 'rebalance', 'device': '/a'}", -EINVAL, "device: rebalance has no");
  cr_assert_eq (ask ("{'version': 1, 'verb': 'status'}"), 0);
}

/* A device must be an absolute path. */
Test (verbs, devices_are_checked)
{
  static const char *const verbs[] = { "'add'", "'remove'", "'priority', 'prio': 1",
                                       "'maxio', 'maxio': 1", "'scrub'" };

  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    if (strcmp (verbs[i], "'scrub'") != 0) /* which is of all, then */
      assert_refused (str ("{'verb': %s}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': 5}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': null}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': ['/a']}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': ''}", verbs[i]), -EINVAL, "absolute path");
    assert_refused (str ("{'verb': %s, 'device': 'a'}", verbs[i]), -EINVAL,
                    "a: is not an absolute");
    assert_refused (str ("{'verb': %s, 'device': '/a\\u0000b'}", verbs[i]), -EINVAL,
                    "device: name one");
    assert_refused (str ("{'verb': %s, 'device': '/%05000d'}", verbs[i], 0), -EINVAL,
                    "less than 4096 bytes");
  }
  assert_refused ("{'verb': 'remove', 'device': '/nowhere'}", -ENOENT, "/nowhere: is no device");
  assert_refused ("{'verb': 'priority', 'device': '/nowhere', 'prio': 1}", -ENOENT, "/nowhere");
  assert_refused ("{'verb': 'maxio', 'device': '/nowhere', 'maxio': 1}", -ENOENT, "/nowhere");
  assert_refused ("{'verb': 'scrub', 'device': '/nowhere'}", -ENOENT, "/nowhere: is no device");
}

/* Numbers and switches have types and ranges; null is neither. */
Test (verbs, values_are_checked)
{
  static const struct {
    const char *verb, *key;
    const char *bad[8];
  } checked[] = {
    { "status", "fragmentation", { "1", "'yes'", "null", "{}" } },
    { "map", "cells", { "0", "1025", "-1", "5.0", "'5'", "null", "true" } },
    { "add", "prio", { "-2", "32768", "1.5", "'1'", "null", "4294967296" } },
    { "add", "size", { "-1", "0.5", "'1G'", "null", "[]" } },
    { "add", "maxio", { "-1", "65536", "1.5", "'1'", "null" } },
    { "add", "force", { "0", "'no'", "null" } },
    { "remove", "rate", { "0", "-1", "1e6", "'1M'", "null" } },
    { "remove", "force", { "1", "null" } },
    { "priority", "prio", { "-2", "32768", "null", "'high'" } },
    { "maxio", "maxio", { "-1", "65536", "null", "'4'" } },
    { "rebalance", "rate", { "0", "-5", "null", "false" } },
    { "scrub", "rate", { "0", "-5", "null", "1.5" } },
    { "cancel", "job", { "0", "-1", "'1'", "null", "1.0" } },
    { "wait", "job", { "0", "-1", "'1'", "null" } },
    { "wait", "seconds", { "-1", "-0.001", "3600.001", "3601", "'5'", "null", "true" } },
    { "shutdown", "seconds", { "-1", "3600.001", "'5'", "null", "true" } },
    { "shutdown", "force", { "1", "'yes'", "null" } },
  };

  for (size_t i = 0; i < sizeof checked / sizeof checked[0]; i++) {
    const char *verb = checked[i].verb, *key = checked[i].key;
    bool on_device =
      (strchr ("arp", verb[0]) || strcmp (verb, "maxio") == 0) && strcmp (verb, "rebalance") != 0;
    bool waits = strcmp (verb, "wait") == 0 && strcmp (key, "seconds") == 0;

    for (const char *const *bad = checked[i].bad; *bad; bad++)
      assert_refused (str ("{'verb': '%s', %s %s '%s': %s}", verb,
                           on_device ? str ("'device': '%s',", scratch_path ("b")) : "",
                           waits ? "'job': 1," : "", key, *bad),
                      -EINVAL, str ("%s: is ", key));
  }
  assert_refused (str ("{'verb': 'priority', 'device': '%s'}", scratch_path ("b")), -EINVAL,
                  "prio: is not given");
  assert_refused (str ("{'verb': 'maxio', 'device': '%s'}", scratch_path ("b")), -EINVAL,
                  "maxio: is not given");
  assert_refused ("{'verb': 'cancel'}", -EINVAL, "job: name one by its number");
  assert_refused ("{'verb': 'wait'}", -EINVAL, "job: name one by its number");
  assert_refused ("{'verb': 'cancel', 'job': 9}", -ENOENT, "job 9: there is none");
  assert_refused ("{'verb': 'wait', 'job': 9}", -ENOENT, "job 9: there is none");
  ask ("{'verb': 'status'}");
  get_array (reply, "jobs", 0);
}

/* ---- what is done ---- */

static void
assert_job (struct json_object *job, unsigned id, const char *kind, const char *name,
            const char *keys)
{
  assert_keys (job, keys);
  cr_assert_eq (get_uint (job, "id"), id);
  cr_assert_str_eq (get_text (job, "kind"), kind);
  if (name)
    cr_assert_str_eq (get_text (job, "device"), scratch_path (name));
  cr_assert_geq (get_double (job, "seconds"), 0);
}

/* The verbs that begin jobs, and how these are described; status has all of them, in order. */
Test (verbs, jobs)
{
  struct json_object *job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  cr_assert_eq (ask_for_job (str ("{'verb': 'add', 'device': '%s', 'size': %u}", scratch_path ("c"),
                                  (unsigned) bytes_of (50))),
                1);
  job = end_of (1);
  assert_job (job, 1, "add", "c",
              "id kind device state done total seconds unreadable unreadable_pages lost");
  cr_assert_str_eq (get_text (job, "state"), "done");

  cr_assert_eq (
    ask (str ("{'verb': 'priority', 'device': '%s', 'prio': 32767}", scratch_path ("c"))), 0);
  assert_keys (reply, "");
  cr_assert_eq (ask_for_job ("{'verb': 'rebalance', 'rate': 1000000000}"), 2);
  job = end_of (2);
  assert_job (job, 2, "rebalance", NULL,
              "id kind state done total rate seconds unreadable unreadable_pages lost");
  cr_assert_eq (get_uint (job, "rate"), 1000000000);
  cr_assert_eq (get_uint (job, "done"), 50 * PAGE_BYTES);
  cr_assert_eq (get_uint (job, "total"), 50 * PAGE_BYTES);

  cr_assert_eq (ask_for_job (str ("{'verb': 'remove', 'device': '%s'}", scratch_path ("a"))), 3);
  job = end_of (3);
  assert_job (job, 3, "remove", "a",
              "id kind device state done total seconds unreadable unreadable_pages lost");
  cr_assert_eq (get_uint (job, "done"), 40 * PAGE_BYTES);

  cr_assert_eq (ask_for_job ("{'verb': 'scrub'}"), 4);
  job = end_of (4);
  assert_job (job, 4, "scrub", NULL,
              "id kind state done total seconds unreadable unreadable_pages lost");
  cr_assert_eq (get_uint (job, "done"), 90 * PAGE_BYTES);
  cr_assert_eq (
    ask_for_job (str ("{'verb': 'scrub', 'device': '%s', 'rate': 1000000000}", scratch_path ("c"))),
    5);
  job = end_of (5);
  assert_job (job, 5, "scrub", "c",
              "id kind device state done total rate seconds unreadable unreadable_pages lost");
  cr_assert_eq (get_uint (job, "done"), 50 * PAGE_BYTES);
  cr_assert_eq (get_uint (job, "total"), 50 * PAGE_BYTES);

  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  get_array (reply, "jobs", 5);
  for (unsigned i = 0; i < 5; i++)
    cr_assert_eq (get_uint (at (get (reply, "jobs"), i), "id"), i + 1);
  get_array (reply, "devices", 2);
  assert_device ("c", 32767, "open", 50, 50, 0);
}

static uint64_t
maxio_of (const char *name)
{
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  return get_uint (device_of (name, "devices"), "maxio");
}

/* A device has no limit, or the one it came with, until it is changed, by any of its names. */
Test (verbs, maxio)
{
  const char *c = scratch_path ("c");

  cr_assert_eq (maxio_of ("a"), 0);
  assert_ends (
    ask_for_job (
      str ("{'verb': 'add', 'device': '%s', 'size': %u, 'maxio': 65535, 'prio': 1, 'force': false}",
           c, (unsigned) bytes_of (50))),
    "done");
  cr_assert_eq (maxio_of ("c"), 65535);
  cr_assert_eq (ask (str ("{'verb': 'maxio', 'device': '%s', 'maxio': 1}", scratch_path ("./c"))),
                0);
  assert_keys (reply, "");
  cr_assert_eq (maxio_of ("c"), 1);
  cr_assert_eq (maxio_of ("a"), 0);
  cr_assert_eq (ask (str ("{'verb': 'maxio', 'device': '%s', 'maxio': 0}", c)), 0);
  cr_assert_eq (maxio_of ("c"), 0);
}

/* The default priority is that of a start, and so are the checks, whose words are the job's. */
Test (verbs, added_with_defaults)
{
  const char *add = str ("{'verb': 'add', 'device': '%s'", file_make ("c", bytes_of (50)));
  struct json_object *job;

  file_write (scratch_path ("c"), 99, "data", 4);
  chmod (scratch_path ("c"), 0644);
  job = end_of (ask_for_job (str ("%s}", add)));
  assert_job (job, 1, "add", "c",
              "id kind device state done total seconds unreadable unreadable_pages lost error");
  cr_assert_str_eq (get_text (job, "state"), "failed");
  cr_assert_not_null (strstr (get_text (job, "error"), scratch_path ("c")));
  job = end_of (ask_for_job (str ("%s, 'force': true, 'size': 0}", add)));
  assert_job (job, 2, "add", "c",
              "id kind device state done total seconds unreadable unreadable_pages lost warnings");
  cr_assert_not_null (
    strstr (json_object_get_string (at (get_array (job, "warnings", 1), 0)), "permissions"));
  ask ("{'verb': 'status'}");
  assert_device ("c", -1, "open", 50, 0, 0);
}

/* What live.h refuses has its words and its errno. */
Test (verbs, refused_by_live)
{
  cr_assert_eq (stamped_write (&pages, 0, 380), 0);
  logged_start ();
  assert_refused (str ("{'verb': 'remove', 'device': '%s'}", scratch_path ("b")), -ENOSPC,
                  "add a device first");
  assert_refused (str ("{'verb': 'add', 'device': '%s'}", scratch_path ("b")), -EBUSY,
                  "is a device of this drum already");
}

/* ---- wait ---- */

/* Not before it has ended, or the time is over: until then it says how long at most. */
Test (verbs, wait)
{
  unsigned job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  job = ask_for_job (str ("{'verb': 'remove', 'device': '%s', 'rate': 1}", scratch_path ("a")));
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u}", job)), -EAGAIN);
  assert_keys (reply, "");
  cr_assert_eq (wait_ms, 60000);
  cr_assert_eq (ask_since (59999, str ("{'verb': 'wait', 'job': %u}", job)), -EAGAIN);
  cr_assert_eq (wait_ms, 1);
  cr_assert_eq (ask_since (60000, str ("{'verb': 'wait', 'job': %u}", job)), 0);
  assert_job (get (reply, "job"), job, "remove", "a",
              "id kind device state done total rate seconds unreadable unreadable_pages lost");
  cr_assert_str_eq (get_text (get (reply, "job"), "state"), "running");
  cr_assert_eq (wait_ms, 77);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 1.5}", job)), -EAGAIN);
  cr_assert_eq (wait_ms, 1500);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 3600}", job)), -EAGAIN);
  cr_assert_eq (wait_ms, 3600000);
  cr_assert_eq (ask_since (3600001, str ("{'verb': 'wait', 'job': %u, 'seconds': 3600}", job)), 0);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 0}", job)), 0);
  cr_assert_eq (ask (str ("{'verb': 'cancel', 'job': %u}", job)), 0);
  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  cr_assert_eq (ask_since (5, str ("{'verb': 'wait', 'job': %u}", job)), 0);
  cr_assert_str_eq (get_text (get (reply, "job"), "state"), "cancelled");
  cr_assert_eq (wait_ms, 77);
}

/* ---- shutdown ---- */

/* As control.c asks: again and again, until there is an answer. */
static int
ask_until_answered (const char *text)
{
  int ret = ask (text);

  while (ret == -EAGAIN) {
    assert_keys (reply, "");
    sched_yield ();
    ret = ask_since (1, text);
  }
  return ret;
}

/* It is answered when all have ended; or with why not, when that takes too long. */
Test (verbs, shutdown)
{
  struct session_wish wish = { .export = served (&service),
                               .name = &(struct session_name){ .id = "" },
                               .peer = "" };
  struct session *session;

  cr_assert_eq (session_open (service.sessions, &wish, &session), 0);
  cr_assert_eq (session_begin (session), 0);
  cr_assert_eq (ask ("{'verb': 'shutdown'}"), -EAGAIN);
  cr_assert_eq (ask_since (59999, "{'verb': 'shutdown'}"), -EAGAIN);
  cr_assert_eq (ask ("{'verb': 'shutdown'}"), -EBUSY);
  cr_assert_str_eq (get_text (reply, "error"), "the server is being shut down already");
  cr_assert_eq (jobs_cancel (live_jobs (live), 1), 0);
  session_end (session);
  cr_assert_eq (jobs_wait (live_jobs (live), 1), 0);
  cr_assert_eq (ask_since (1, "{'verb': 'shutdown'}"), -ECANCELED);

  cr_assert_eq (session_begin (session), 0);
  cr_assert_eq (ask_until_answered ("{'verb': 'shutdown', 'seconds': 0.01}"), -ETIMEDOUT);
  assert_keys (reply, "error");
  cr_assert_not_null (strstr (get_text (reply, "error"), "still under way after 0.01 s"));
  session_end (session);
  cr_assert_eq (stamped_write (&pages, 0, 1), 0);
  logged_start ();
  assert_refused ("{'verb': 'shutdown', 'force': false}", -EBUSY, "holds 1 page");
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  cr_assert_str_eq (get_text (at (get_array (reply, "jobs", 2), 1), "kind"), "shutdown");
  cr_assert_eq (ask_until_answered ("{'verb': 'shutdown', 'force': true}"), 0);
  assert_keys (reply, "pid");
  cr_assert_eq (get_uint (reply, "pid"), getpid ());
  session_close (session);
}

/* ---- warnings ---- */

static bool warns;

int __real_live_set_priority (struct live *l, const char *path, int prio);
int __wrap_live_set_priority (struct live *l, const char *path, int prio);

int
__wrap_live_set_priority (struct live *l, const char *path, int prio)
{
  if (warns) {
    log_warning ("first");
    log_warning ("second");
  }
  return __real_live_set_priority (l, path, prio);
}

/* What is warned of while a verb is done is in its reply, line by line, and in the log; also of one that fails. */
Test (verbs, warnings_are_passed_on)
{
  struct json_object *warnings;

  warns = true;
  cr_assert_eq (ask (str ("{'verb': 'priority', 'device': '%s', 'prio': 1}", scratch_path ("a"))),
                0);
  assert_keys (reply, "warnings");
  warnings = get_array (reply, "warnings", 2);
  cr_assert_str_eq (json_object_get_string (at (warnings, 0)), "first");
  cr_assert_str_eq (json_object_get_string (at (warnings, 1)), "second");
  cr_assert_eq (logged_count (""), 2);
  cr_assert_eq (ask ("{'verb': 'priority', 'device': '/nowhere', 'prio': 1}"), -ENOENT);
  assert_keys (reply, "error warnings");
  log_error ("what comes after it is the log's again");
  cr_assert_eq (logged_count ("the log's again"), 1);
}
