/* SPDX-License-Identifier: BSD-3-Clause
 *
 * jobs.c - add, remove, rebalance, scrub: what is asked, how far it is, how it ends, and how it is stopped.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

TestSuite (jobs, .init = setup, .fini = scratch_teardown, .timeout = 60);

#define OK(...) "{\"version\":1,\"ok\":true" __VA_ARGS__ "}"
#define BEGUN   OK (",\"job\":3")

/* A job of 400 M, as wait has it. */
#define JOB(kind, state, done, seconds, ...)                                               \
  OK (",\"job\":{\"id\":3,\"kind\":\"" kind "\",\"device\":\"/srv/b\",\"state\":\"" state  \
      "\",\"done\":" done ",\"total\":419430400,\"seconds\":" seconds ",\"unreadable\":0," \
      "\"unreadable_pages\":[],\"lost\":0" __VA_ARGS__ "}")

#define M100 "104857600"
#define M110 "115343360"
#define M200 "209715200"
#define M400 "419430400"

static const struct fake_reply at_once[] = {
  { "add", .text = BEGUN },
  { "remove", .text = BEGUN },
  { "rebalance", .text = BEGUN },
  { "scrub", .text = BEGUN },
  { "priority", .text = OK () },
  { "maxio", .text = OK () },
  { "cancel", .text = OK () },
  { "wait", .text = JOB ("add", "done", "0", "0.01") },
  { 0 },
};

Test (jobs, requests)
{
  fake_start (at_once);
  cr_assert_eq (chdir (scratch_path (".")), 0);
  fake_expect_request (ARGS ("add", "/srv/a"),
                       "\"verb\":\"add\",\"device\":\"/srv/a\",\"prio\":-1");
  fake_expect_request (
    ARGS ("add", "/srv/a,,b,size=64M,prio=10", "--force"),
    "\"verb\":\"add\",\"device\":\"/srv/a,b\",\"prio\":10,\"size\":67108864,\"force\":true");
  fake_expect_request (ARGS ("add", "--prio", "-1", "--size=4K", "/srv/a"),
                       "\"verb\":\"add\",\"device\":\"/srv/a\",\"prio\":-1,\"size\":4096");
  fake_expect_request (ARGS ("add", "/srv/a", "-p7"),
                       "\"verb\":\"add\",\"device\":\"/srv/a\",\"prio\":7");
  fake_expect_request (ARGS ("add", "/srv/a,maxio=4"),
                       "\"verb\":\"add\",\"device\":\"/srv/a\",\"prio\":-1,\"maxio\":4");
  fake_expect_request (ARGS ("remove", "/srv/a,b", "--rate", "100M"),
                       "\"verb\":\"remove\",\"device\":\"/srv/a,b\",\"rate\":104857600");
  fake_expect_request (ARGS ("remove", "-f", "/srv/\"\n"),
                       "\"verb\":\"remove\",\"device\":\"/srv/\\\"\\n\",\"force\":true");
  fake_expect_request (ARGS ("rebalance"), "\"verb\":\"rebalance\"");
  fake_expect_request (ARGS ("rebalance", "-r", "1G"),
                       "\"verb\":\"rebalance\",\"rate\":1073741824");
  fake_expect_request (ARGS ("scrub"), "\"verb\":\"scrub\"");
  fake_expect_request (ARGS ("scrub", "--rate=50M", "/srv/a,b"),
                       "\"verb\":\"scrub\",\"device\":\"/srv/a,b\",\"rate\":52428800");
  fake_expect_request (ARGS ("priority", "/srv/a", "-1"),
                       "\"verb\":\"priority\",\"prio\":-1,\"device\":\"/srv/a\"");
  fake_expect_request (ARGS ("maxio", "/srv/a", "0"),
                       "\"verb\":\"maxio\",\"maxio\":0,\"device\":\"/srv/a\"");
  fake_expect_request (ARGS ("cancel", "3"), "\"verb\":\"cancel\",\"job\":3");
  fake_expect_request (ARGS ("wait", "3"), "\"verb\":\"wait\",\"job\":3,\"seconds\":0.1");
}

/* The server's current folder is not ours. */
Test (jobs, relative_paths)
{
  char *cwd;

  fake_start (at_once);
  cr_assert_eq (chdir (scratch_path (".")), 0);
  cr_assert_not_null (cwd = getcwd (NULL, 0));
  fake_expect_request (ARGS ("remove", "a"), str ("\"verb\":\"remove\",\"device\":\"%s/a\"", cwd));
  fake_expect_request (ARGS ("add", "a,prio=1"),
                       str ("\"verb\":\"add\",\"device\":\"%s/a\",\"prio\":1", cwd));
}

Test (jobs, done_at_once)
{
  fake_start (at_once);
  expect (ARGS ("add", "/srv/b"), 0, "/srv/b: added\n", "");
}

Test (jobs, no_wait)
{
  fake_start (at_once);
  expect (ARGS ("remove", "/srv/b", "--no-wait"), 0, "job 3\n", "");
  cr_assert_null (strstr (fake_requests (), "wait"));
}

Test (jobs, refused)
{
  static const struct fake_reply replies[] = {
    { "remove",
      .text =
        "{\"version\":1,\"ok\":false,\"error\":\"/srv/b: is not a device\",\"errno\":\"ENOENT\"}" },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("remove", "/srv/b"), 1, "", "drumctl: /srv/b: is not a device\n");
}

/* A line at the beginning, one for each 10 percent or 10 seconds, one at the end. */
Test (jobs, progress_in_lines)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = JOB ("remove", "running", "0", "0.1"), .once = true },
    { "wait", .text = JOB ("remove", "running", M100, "1"), .once = true },
    { "wait", .text = JOB ("remove", "running", M110, "2"), .once = true },
    { "wait", .text = JOB ("remove", "running", M110, "11"), .once = true },
    { "wait", .text = JOB ("remove", "running", M200, "12"), .once = true },
    { "wait", .text = JOB ("remove", "done", M400, "20") },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("remove", "/srv/b"), 0,
          "/srv/b: removing (job 3), 400M to move\n"
          "/srv/b: 25%, 100M of 400M, 100M/s, 0:03 left\n"
          "/srv/b: 28%, 110M of 400M, 10M/s, 0:29 left\n"
          "/srv/b: 50%, 200M of 400M, 16.6M/s, 0:12 left\n"
          "/srv/b: removed, 400M moved in 0:20, 20M/s\n",
          "");
}

Test (jobs, progress_on_a_terminal)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = JOB ("remove", "running", M200, "2"), .once = true },
    { "wait", .text = JOB ("remove", "running", M400, "4"), .once = true },
    { "wait", .text = JOB ("remove", "done", M400, "4") },
    { 0 },
  };
  struct session s;

  fake_start (replies);
  session_start (&s, 80, 24, ARGS ("remove", "/srv/b"));
  session_expect (
    &s, "\r/srv/b  [###############               ]  50%  200M of 400M  100M/s  0:02 left\033[K");
  session_expect (&s, "] 100%  400M of 400M  100M/s  0:00 left\033[K");
  session_expect (&s, "\r\033[K/srv/b: removed, 400M moved in 0:04, 100M/s\r\n");
  cr_assert_eq (session_end (&s), 0);
}

/* Narrow, and not known how much: no bar, and never a second line. */
Test (jobs, progress_on_a_small_terminal)
{
  static const struct fake_reply replies[] = {
    { "add", .text = BEGUN },
    { "remove", .text = BEGUN },
    { "wait",
      .text = OK (",\"job\":{\"id\":3,\"kind\":\"add\",\"device\":\"/srv/"
                  "b\",\"state\":\"running\",\"done\":0,"
                  "\"total\":0,\"seconds\":2,\"unreadable\":0,\"unreadable_pages\":[],\"lost\":0}"),
      .once = true },
    { "wait", .text = JOB ("add", "done", "0", "4"), .once = true },
    { "wait", .text = JOB ("remove", "running", M200, "2"), .once = true },
    { "wait", .text = JOB ("remove", "done", M400, "4") },
    { 0 },
  };
  struct session s;

  fake_start (replies);
  session_start (&s, 20, 24, ARGS ("add", "/srv/b"));
  session_expect (&s, "\r/srv/b: adding, 0:0\033[K");
  cr_assert_eq (session_end (&s), 0);
  session_start (&s, 40, 24, ARGS ("remove", "/srv/b"));
  session_expect (&s, "\r/srv/b   50%  200M of 400M  100M/s  0:0\033[K");
  cr_assert_eq (session_end (&s), 0);
}

/* More than there was at first: clients wrote meanwhile. */
Test (jobs, progress_beyond_its_total)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = JOB ("remove", "running", "0", "1"), .once = true },
    { "wait", .text = JOB ("remove", "running", "943718400", "2"), .once = true },
    { "wait", .text = JOB ("remove", "done", "943718400", "2") },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("remove", "/srv/b"), 0,
          "/srv/b: removing (job 3), 400M to move\n"
          "/srv/b: 100%, 900M of 400M, 450M/s, 0:00 left\n"
          "/srv/b: removed, 900M moved in 0:02, 450M/s\n",
          "");
}

#define STATUS_OF_B(state)                                                                      \
  OK (",\"server\":{\"version\":\"1\",\"pid\":1,\"uptime\":1},\"drum\":{\"size\":0,\"used\":0," \
      "\"avail\":0,"                                                                            \
      "\"kept\":0,\"stripe\":1,\"io\":\"sync\",\"classes\":[]},\"buckets\":[],\"exports\":[],"  \
      "\"jobs\":[],"                                                                            \
      "\"devices\":["                                                                           \
      "{\"name\":\"/srv/b\",\"type\":\"file\",\"uuid\":\"\",\"prio\":1,\"state\":\"" state      \
      "\",\"size\":8192,\"used\":69632,\"avail\":0,\"bad\":0,\"suspect\":0,\"mismatches\":0,"   \
      "\"read\":" NONE ",\"write\":" NONE "}]")
#define NONE \
  "{\"requests\":0,\"bytes\":0,\"errors\":0,\"in_flight\":0,\"seconds\":0,\"histogram\":[0]}"

#define UNREADABLE                                                                                \
  OK (                                                                                            \
    ",\"job\":{\"id\":3,\"kind\":\"remove\",\"device\":\"/srv/"                                   \
    "b\",\"state\":\"failed\",\"done\":0,"                                                        \
    "\"total\":69632,\"seconds\":2,\"unreadable\":17,\"lost\":0,\"error\":\"/srv/b: not empty\"," \
    "\"warnings\":[\"/srv/b: is slow\"],\"unreadable_pages\":[{\"export\":\"\",\"page\":17},"     \
    "{\"export\":\"vm\",\"page\":3}]}")

/* What could not be read is listed, and where that leaves the device is said. */
Test (jobs, fails)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = UNREADABLE },
    { "status", .text = STATUS_OF_B ("closed") },
    { 0 },
  };

  fake_start (replies);
  expect (
    ARGS ("remove", "/srv/b"), 1, "",
    "drumctl: warning: /srv/b: is slow\n"
    "drumctl: warning: /srv/b: page 17 of export (default) could not be read\n"
    "drumctl: warning: /srv/b: page 3 of export vm could not be read\n"
    "drumctl: warning: /srv/b: 15 pages more could not be read\n"
    "drumctl: /srv/b: not empty\n"
    "drumctl: /srv/b: is closed now, with 68K on it; remove it again, with or without --force, "
    "or add it back\n");
}

static const struct fake_reply scrubbed[] = {
  { "scrub", .text = BEGUN },
  { "wait", .text = JOB ("scrub", "running", M200, "2"), .once = true },
  { "wait", .text = JOB ("scrub", "done", M400, "4") },
  { 0 },
};

/* What a scrub does is reading. */
Test (jobs, scrubs)
{
  fake_start (scrubbed);
  expect (ARGS ("scrub", "/srv/b"), 0,
          "/srv/b: scrubbing (job 3), 400M to read\n"
          "/srv/b: scrubbed, 400M read in 0:04, 100M/s\n",
          "");
}

/* Pages that can't be read are listed, and the status says that there are some; also for who waits for another's job. */
Test (jobs, scrub_finds)
{
  static const struct fake_reply replies[] = {
    { "scrub", .text = BEGUN },
    { "wait",
      .text =
        OK (",\"job\":{\"id\":3,\"kind\":\"scrub\",\"state\":\"done\",\"done\":8192,\"total\":8192,"
            "\"seconds\":0.5,\"unreadable\":1,\"lost\":0,\"warnings\":[\"the drum: 1 of 2 pages\"],"
            "\"unreadable_pages\":[{\"export\":\"\",\"page\":17}]}") },
    { 0 },
  };
  const char *err = "drumctl: warning: the drum: 1 of 2 pages\n"
                    "drumctl: warning: the drum: page 17 of export (default) could not be read\n";

  fake_start (replies);
  expect (ARGS ("scrub"), 1, "the drum: scrubbed, 8K read\n", err);
  expect (ARGS ("wait", "3"), 1, "the drum: scrubbed, 8K read\n", err);
}

/* With force it is done all the same. */
Test (jobs, loses_pages)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait",
      .text = OK (",\"job\":{\"id\":3,\"kind\":\"remove\",\"device\":\"/srv/b\",\"state\":\"done\","
                  "\"done\":4096,\"total\":8192,\"seconds\":0.5,\"unreadable\":1,\"lost\":1,"
                  "\"unreadable_pages\":[{\"export\":\"\",\"page\":17}]}") },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("remove", "--force", "/srv/b"), 0, "/srv/b: removed, 4K moved\n",
          "drumctl: warning: /srv/b: page 17 of export (default) could not be read\n"
          "drumctl: warning: /srv/b: 1 of the pages that could not be read is lost\n");
}

/* Who reads what it says has gone: the job is waited for. */
Test (jobs, reader_goes)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = JOB ("remove", "running", M100, "1"), .once = true },
    { "wait", .text = JOB ("remove", "running", M200, "2"), .once = true, .delay_ms = 200 },
    { "wait", .text = JOB ("remove", "done", M400, "3"), .delay_ms = 100 },
    { 0 },
  };
  struct result r;

  fake_start (replies);
  r = run_shell ("{ $DRUMCTL remove /srv/b; echo $? >&2; } | head -n 1");
  cr_assert_str_eq (r.out, "/srv/b: removing (job 3), 400M to move\n");
  cr_assert_not_null (strstr (r.err, "drumctl: standard output: "), "%s", r.err);
  cr_assert_not_null (strstr (r.err, "\n1\n"), "%s", r.err);
}

/* The connection is lost while the job goes on. */
Test (jobs, server_goes)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = JOB ("remove", "running", M100, "1"), .once = true },
    { "wait", .text = "", .hangs_up = true },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("remove", "/srv/b"), 1, "/srv/b: removing (job 3), 400M to move\n",
          ": the server has hung up\n");
}

static const struct fake_reply until_cancelled[] = {
  { "add", .text = BEGUN },
  { "remove", .text = BEGUN },
  { "cancel", .text = OK () },
  { "status", .text = STATUS_OF_B ("open") },
  { "wait", .text = JOB ("remove", "running", M100, "5"), .once = true, .cancelled = true,
    .delay_ms = 50 },
  { "wait", .text = JOB ("remove", "cancelled", M110, "5"), .cancelled = true },
  { "wait", .text = JOB ("remove", "running", M100, "5"), .delay_ms = 50 },
  { 0 },
};

/* It ends only when the job has, and by the signal, so that a shell's loop ends too. */
static void
expect_cancel (int sig)
{
  struct session s;

  session_start (&s, 0, 0, ARGS ("remove", "/srv/b"));
  session_expect (&s, "/srv/b: removing (job 3), 400M to move\n");
  kill (s.pid, sig);
  session_expect (&s, "drumctl: /srv/b: the remove was cancelled, with 110M of 400M moved\n");
  session_expect (&s, "drumctl: /srv/b: is open now, with 68K on it\n");
  cr_assert_eq (session_end (&s), -sig);
  cr_assert_not_null (strstr (fake_requests (), "\"verb\":\"cancel\",\"job\":3"));
}

Test (jobs, interrupted)
{
  fake_start (until_cancelled);
  expect_cancel (SIGINT);
}

Test (jobs, terminated)
{
  fake_start (until_cancelled);
  expect_cancel (SIGTERM);
}

Test (jobs, interrupted_on_a_terminal)
{
  struct session s;

  fake_start (until_cancelled);
  session_start (&s, 80, 24, ARGS ("remove", "/srv/b"));
  session_expect (&s, "25%");
  cr_assert_eq (write (s.fd, "\003", 1), 1);
  session_expect (&s,
                  "\r\033[Kdrumctl: /srv/b: the remove was cancelled, with 110M of 400M moved\r\n");
  cr_assert_eq (session_end (&s), -SIGINT);
}

/* nohup: what is ignored stays so. */
Test (jobs, ignored_signals_stay_ignored)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "wait", .text = JOB ("remove", "running", M100, "1"), .once = true },
    { "wait", .text = JOB ("remove", "done", M400, "2"), .delay_ms = 300 },
    { 0 },
  };
  struct session s;

  fake_start (replies);
  signal (SIGINT, SIG_IGN);
  session_start (&s, 0, 0, ARGS ("remove", "/srv/b"));
  signal (SIGINT, SIG_DFL);
  session_expect (&s, "to move\n");
  kill (s.pid, SIGINT);
  session_expect (&s, "/srv/b: removed");
  cr_assert_eq (session_end (&s), 0);
}

/* A server that never ends the job; the second signal is obeyed at once. */
Test (jobs, interrupted_twice)
{
  static const struct fake_reply replies[] = {
    { "remove", .text = BEGUN },
    { "cancel", .text = OK () },
    { "wait", .text = JOB ("remove", "running", M100, "5"), .once = true },
    { "wait", .text = FAKE_SILENCE },
    { 0 },
  };
  struct session s;

  fake_start (replies);
  session_start (&s, 0, 0, ARGS ("remove", "/srv/b"));
  session_expect (&s, "to move\n");
  kill (s.pid, SIGINT);
  while (!strstr (fake_requests (), "\"seconds\":1"))
    usleep (1000);
  usleep (100000); /* the first one has been seen */
  kill (s.pid, SIGINT);
  cr_assert_eq (session_end (&s), -SIGINT);
}

/* Who only looks on cancels nothing. */
Test (jobs, wait_is_left)
{
  struct session s;

  fake_start (until_cancelled);
  session_start (&s, 0, 0, ARGS ("wait", "3"));
  session_expect (&s, "to move\n");
  kill (s.pid, SIGINT);
  cr_assert_eq (session_end (&s), -SIGINT);
  cr_assert_null (strstr (fake_requests (), "cancel"));
}

/* Somebody else has cancelled it. */
Test (jobs, cancelled_elsewhere)
{
  static const struct fake_reply replies[] = {
    { "wait", .text = JOB ("rebalance", "cancelled", M110, "5") },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("wait", "3"), 1, "",
          "drumctl: /srv/b: the rebalance was cancelled, with 110M of 400M moved\n");
}

Test (jobs, cancelled_scrub)
{
  static const struct fake_reply replies[] = {
    { "wait", .text = JOB ("scrub", "cancelled", M110, "5") },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("wait", "3"), 1, "",
          "drumctl: /srv/b: the scrub was cancelled, with 110M of 400M read\n");
}

/* How long the server is asked to wait is less than how long we do. */
Test (jobs, short_timeout)
{
  fake_start (at_once);
  expect (ARGS ("--timeout", "0.1", "add", "/srv/b"), 0, "/srv/b: added\n", "");
  cr_assert_not_null (strstr (fake_requests (), "\"seconds\":0.05"), "%s", fake_requests ());
}

/* ---- shutdown ---- */

#define GONE OK (",\"pid\":2000000000") "\n" /* no pid is as high */

/* It is done when the server is gone. */
Test (jobs, shutdown)
{
  static const struct fake_reply replies[] = {
    { "shutdown", .text = GONE, .hangs_up = true },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("shutdown"), 0, "the drum: shut down\n", "");
  fake_expect_request (ARGS ("shutdown"), "\"verb\":\"shutdown\",\"seconds\":60.0");
  fake_expect_request (ARGS ("shutdown", "--force", "--timeout", "0.5"),
                       "\"verb\":\"shutdown\",\"seconds\":0.5,\"force\":true");
  fake_expect_request (ARGS ("-t", "1000000", "shutdown", "-f"),
                       "\"verb\":\"shutdown\",\"seconds\":3.6e+03,\"force\":true");
  expect (ARGS ("shutdown", "now"), 2, "", "drumctl: shutdown takes no operands");
}

/* The server gives up before we do, and its words are passed on. */
Test (jobs, shutdown_refused)
{
  static const struct fake_reply replies[] = {
    { "shutdown", .text = "{\"version\":1,\"ok\":false,\"error\":\"requests are still under way\"}",
      .delay_ms = 300 },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("shutdown", "--timeout", "0.01"), 1, "", "drumctl: requests are still under way\n");
}

/* One that goes without an answer has crashed. */
Test (jobs, shutdown_without_an_answer)
{
  static const struct fake_reply replies[] = {
    { "shutdown", .text = "", .hangs_up = true },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("shutdown"), 1, "", "the server has hung up\n");
}

/* One that somebody else asked for. */
Test (jobs, shutdown_elsewhere)
{
  static const struct fake_reply replies[] = {
    { "wait",
      .text = OK (",\"job\":{\"id\":3,\"kind\":\"shutdown\",\"state\":\"failed\",\"done\":0,"
                  "\"total\":0,\"seconds\":1,\"unreadable\":0,\"unreadable_pages\":[],\"lost\":0,"
                  "\"error\":\"no\"}") },
    { 0 },
  };

  fake_start (replies);
  expect (ARGS ("wait", "3"), 1, "", "drumctl: no\n");
}
