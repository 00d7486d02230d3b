/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.c - drumctl exports and the verbs that change them: what is shown, what is asked, what is said.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

TestSuite (exports, .init = setup, .fini = scratch_teardown, .timeout = 60);

#define OK(...) "{\"version\":1,\"ok\":true" __VA_ARGS__ "}"

/* A job with 2 G to do, as wait has it. */
#define JOB(kind, state, done, ...)                                                 \
  OK (",\"job\":{\"id\":3,\"kind\":\"" kind "\",\"export\":\"\",\"state\":\"" state \
      "\",\"done\":" done ",\"total\":2147483648,\"seconds\":2,\"unreadable\":0,"   \
      "\"unreadable_pages\":[],\"lost\":0" __VA_ARGS__ "}")

#define G1 "1073741824"
#define G2 "2147483648"

static struct fake_reply replies[] = {
  { "status", .text = "" },
  { "export-add", .text = OK () },
  { "export-set", .text = OK () },
  { "export-fill", .text = OK (",\"reserve\":1610612736") },
  { "export-takeover", .text = OK (",\"sessions\":2") },
  { "export-remove", .text = OK (",\"job\":3") },
  { "export-resize", .text = OK (",\"job\":3") },
  { "export-move", .text = OK (",\"job\":3") },
  { "wait", .text = JOB ("export-remove", "running", G1), .once = true },
  { "wait", .text = JOB ("export-remove", "done", G2) },
  { 0 },
};

static void
start (void)
{
  replies[0].text = fake_canned ("status.json");
  fake_start (replies);
}

/* ---- the table ---- */

Test (exports, table)
{
  start ();
  expect_table ("exports", ARGS ("exports"));
  cr_assert_str_eq (fake_requests (), "{\"version\":1,\"verb\":\"status\"}\n");
}

/* For programs the default one has its true name, none, and times are seconds. */
Test (exports, table_ways)
{
  start ();
  expect_table ("exports.raw", ARGS ("exports", "--raw", "--noheadings"));
  expect_table ("exports.bytes", ARGS ("exports", "--bytes", "-o", "+BANDWIDTH,ZERO"));
  expect_table ("exports.json",
                ARGS ("exports", "-J", "-o", "NAME,SIZE,LIMIT,LAST-IO,EXCLUSIVE,TEMPLATE,WEIGHT"));
  expect_table ("exports.more", ARGS ("exports", "-o",
                                      "NAME,USE%,WEIGHT,IOPS,BANDWIDTH,EXCLUSIVE,TEMPLATE,ZERO,"
                                      "TRIMMED,ZEROED,READS,WRITES,TRIMS,ZEROES,ERRORS,RERRORS,"
                                      "WERRORS,INFLIGHT"));
}

Test (exports, by_name)
{
  start ();
  expect (ARGS ("exports", "-n", "-o", "NAME", "host-7", ""), 0, "host-7\n(default)\n", "");
  expect (ARGS ("exports", "-n", "-o", "NAME", "vm", "host-7"), 1, "host-7\n",
          "drumctl: vm: there is no such export\n");
  expect (ARGS ("exports", "vm"), 1, "", "drumctl: vm: there is no such export\n");
}

/* How long ago, in the largest unit that fits once. */
Test (exports, last_io)
{
  static const struct {
    const char *idle, *shown;
  } cases[] = {
    { "0", "0s" },    { "59.9", "59s" },  { "60", "1min" },  { "3599", "59min" },
    { "3600", "1h" }, { "86399", "23h" }, { "86400", "1d" }, { "8640000", "100d" },
  };
  char *status = fake_canned ("status.json"), *at = strstr (status, "\"idle\":0.25");

  start ();
  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    replies[0].text = str ("%.*s\"idle\":%s%s", (int) (at - status), status, cases[i].idle,
                           at + strlen ("\"idle\":0.25"));
    expect (ARGS ("exports", "", "-n", "-o", "LAST-IO"), 0, str ("%*s\n", 7, cases[i].shown), "");
  }
}

/* One that knows nothing of all this. */
Test (exports, old_server)
{
#define NONE \
  "{\"requests\":0,\"bytes\":0,\"errors\":0,\"in_flight\":0,\"seconds\":0,\"histogram\":[0]}"
  static const struct fake_reply old[] = {
    { "status",
      .text =
        OK (",\"server\":{\"version\":\"1\",\"pid\":1,\"uptime\":1},\"drum\":{\"size\":0,\"used\":"
            "0,\"avail\":0,\"kept\":0,\"stripe\":1,\"io\":\"sync\",\"classes\":[]},\"buckets\":[],"
            "\"jobs\":[],"
            "\"devices\":[],\"exports\":[{\"name\":\"\",\"size\":8192,\"used\":4096,\"clients\":1,"
            "\"zero_pages\":0,\"read\":" NONE ",\"write\":" NONE ",\"trim\":" NONE ",\"zero\":" NONE
            "}]") },
    { .text = "{\"version\":1,\"ok\":false,\"error\":\"export-add: there is no such verb\","
              "\"errno\":\"EINVAL\"}" },
    { 0 },
  };
  char *metrics;

  fake_start (old);
  expect (ARGS ("exports", "-o", "NAME,USED,RESERVE,LIMIT,WEIGHT,LAST-IO,EXCLUSIVE", "-n"), 0,
          "(default)   4K      0B                    - no\n", "");
  cr_assert_not_null (
    strstr (RUN ("status").out, "\npromised   8K to 1 export; 4K written\npaged"));
  cr_assert_not_null (strstr (RUN ("watch", "-c", "1").out, "0B of 0B used; since"));
  metrics = RUN ("metrics").out;
  cr_assert_not_null (strstr (metrics, "\ndrum_export_reserve_bytes{export=\"\"} 0\n"));
  cr_assert_null (strstr (metrics, "\ndrum_export_idle_seconds{"));
  expect (ARGS ("export-add", "vm", "--size=1G"), 1, "",
          str ("drumctl: %s: the server does not know export-add; it is older than this drumctl\n",
               fake_socket ()));
}

/* Whether the sizes are promises. */
Test (exports, overcommit)
{
  const char *was = "\"overcommit\":true";
  char *at;

  start ();
  cr_assert_null (strstr (RUN ("status").out, "overcommit"));
  at = strstr (replies[0].text, was);
  replies[0].text = str ("%.*s\"overcommit\":false%s", (int) (at - replies[0].text),
                         replies[0].text, at + strlen (was));
  cr_assert_not_null (strstr (RUN ("status").out, "; 20G written; no overcommit\n"));
}

/* ---- what is asked ---- */

Test (exports, requests)
{
  start ();
  fake_expect_request (ARGS ("export-add", "vm", "--size=8G"),
                       "\"verb\":\"export-add\",\"export\":\"vm\",\"size\":8589934592");
  fake_expect_request (
    ARGS ("export-add", "--size", "4K", "--reserve=8K", "--limit=12K", "--weight=200", "--iops=5",
          "--bandwidth=1M", "--exclusive", "a \"b\""),
    "\"verb\":\"export-add\",\"export\":\"a \\\"b\\\"\",\"size\":4096,\"reserve\":8192,\"limit\":"
    "12288,\"weight\":200,\"iops\":5,\"bandwidth\":1048576,\"exclusive\":true");
  fake_expect_request (ARGS ("export-add", "", "--size=4K"),
                       "\"verb\":\"export-add\",\"export\":\"\",\"size\":4096");
  fake_expect_request (ARGS ("export-set", "vm", "--limit=0"),
                       "\"verb\":\"export-set\",\"export\":\"vm\",\"limit\":0");
  fake_expect_request (
    ARGS ("export-set", "vm", "--exclusive=no", "--reserve=0"),
    "\"verb\":\"export-set\",\"export\":\"vm\",\"reserve\":0,\"exclusive\":false");
  fake_expect_request (ARGS ("export-set", "", "--exclusive", "yes"),
                       "\"verb\":\"export-set\",\"export\":\"\",\"exclusive\":true");
  fake_expect_request (ARGS ("export-fill", "vm"), "\"verb\":\"export-fill\",\"export\":\"vm\"");
  fake_expect_request (
    ARGS ("export-fill", "vm", "--offset=0", "--length=1M"),
    "\"verb\":\"export-fill\",\"export\":\"vm\",\"offset\":0,\"length\":1048576");
  fake_expect_request (ARGS ("export-takeover", "vm"),
                       "\"verb\":\"export-takeover\",\"export\":\"vm\"");
  fake_expect_request (ARGS ("export-remove", "--no-wait", ""),
                       "\"verb\":\"export-remove\",\"export\":\"\"");
  fake_expect_request (ARGS ("export-resize", "--no-wait", "vm", "1G"),
                       "\"verb\":\"export-resize\",\"export\":\"vm\",\"size\":1073741824");
  fake_expect_request (ARGS ("export-move", "", "vm", "--no-wait"),
                       "\"verb\":\"export-move\",\"from\":\"\",\"to\":\"vm\"");
}

/* The canned one has 64 G. */
static void
expect_size (const char *size, const char *asked)
{
  char *before = fake_requests ();

  expect (ARGS ("export-resize", "--no-wait", "", size), 0, "job 3\n", "");
  cr_assert_str_eq (fake_requests () + strlen (before),
                    str ("{\"version\":1,\"verb\":\"status\"}\n"
                         "{\"version\":1,\"verb\":\"export-resize\",\"export\":\"\",\"size\":%s}\n",
                         asked));
}

static void
expect_no_resize (const char *name, const char *size, const char *line)
{
  expect (ARGS ("export-resize", name, size), 1, "", str ("drumctl: %s\n", line));
  cr_assert_null (strstr (fake_requests (), "export-resize"));
}

Test (exports, resize_by)
{
  start ();
  expect_no_resize ("", "-64G", "(default): has 64G, and can't be made so much smaller");
  expect_no_resize ("", "-1P", "(default): has 64G, and can't be made so much smaller");
  expect_no_resize ("", "+8589934591G", "(default): has 64G, and can't be made so much larger");
  expect_no_resize ("vm", "+1G",
                    "vm: there is no such export; \"drumctl exports\" lists those that there are");
  expect_size ("+1G", "69793218560");
  expect_size ("-1G", "67645734912");
}

/* ---- what is said ---- */

Test (exports, fill)
{
  start ();
  expect (ARGS ("export-fill", ""), 0, "(default): the reserve is 1.5G now\n", "");
  replies[3].text = OK ();
  expect (ARGS ("export-fill", "vm"), 1, "", "makes no sense: \"reserve\" is not what it must be");
}

Test (exports, takeover)
{
  start ();
#define BACK                                                                                \
  "; if it is exclusive, their client gets it back after another has had it, or after one " \
  "more export-takeover\n"

  expect (ARGS ("export-takeover", "v\033m"), 0, "v\\x1bm: 2 connections are barred" BACK, "");
  replies[4].text = OK (",\"sessions\":1");
  expect (ARGS ("export-takeover", ""), 0, "(default): 1 connection is barred" BACK, "");
  replies[4].text = OK (",\"sessions\":0");
  expect (ARGS ("export-takeover", "vm"), 0,
          "vm: 0 connections are barred; any client may have it\n", "");
}

Test (exports, remove)
{
  start ();
  expect (ARGS ("export-remove", ""), 0,
          "(default): removing (job 3), 2G to free\n"
          "(default): removed, 2G freed in 0:02, 1G/s\n",
          "");
  expect (ARGS ("export-remove", "", "--no-wait"), 0, "job 3\n", "");
}

Test (exports, move)
{
  start ();
  replies[8].text = JOB ("export-move", "running", G1);
  replies[9].text = JOB ("export-move", "done", G2);
  expect (ARGS ("export-move", "", "vm"), 0,
          "(default): moving (job 3), 2G to pass on\n"
          "(default): moved, 2G passed on in 0:02, 1G/s\n",
          "");
}

Test (exports, resize)
{
  start ();
  replies[8].text = JOB ("export-resize", "running", G1);
  replies[9].text = JOB ("export-resize", "cancelled", G1);
  expect (ARGS ("export-resize", "", "4K"), 1, "(default): resizing (job 3), 2G to give up\n",
          "drumctl: (default): the export-resize was cancelled, with 1G of 2G given up\n");
  replies[9].text = JOB ("export-resize", "done", "12288");
  expect (ARGS ("export-resize", "", "4K"), 0, "(default): resized, 12K given up in 0:02, 6K/s\n",
          "");
}

/* The server could not read it. */
Test (exports, name_is_not_utf8)
{
  start ();
  expect (ARGS ("export-add", "c\xff", "--size=8M"), 1, "",
          "drumctl: c\\xff: is not UTF-8: write it in UTF-8\n");
  expect (ARGS ("export-move", "vm", "\xc3"), 1, "",
          "drumctl: \\xc3: is not UTF-8: write it in UTF-8\n");
  cr_assert_str_empty (fake_requests ());
}

Test (exports, refused)
{
  start ();
  replies[5].text = "{\"version\":1,\"ok\":false,\"error\":\"vm: has 2 clients\"}";
  expect (ARGS ("export-remove", "vm"), 1, "", "drumctl: vm: has 2 clients\n");
}
