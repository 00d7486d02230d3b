/* SPDX-License-Identifier: BSD-3-Clause
 *
 * tables.c - drumctl list and jobs: columns, and util-linux's ways to print them.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

TestSuite (tables, .init = fake_setup, .fini = scratch_teardown, .timeout = 60);

Test (tables, list)
{
  expect_table ("list", ARGS ("list"));
  cr_assert_str_eq (fake_requests (), "{\"version\":1,\"verb\":\"status\"}\n");
}

/* A name has characters that the locale does not. */
Test (tables, list_in_ascii)
{
  setenv ("LC_ALL", "C", 1);
  expect_table ("list.ascii", ARGS ("list", "-o", "NAME,SIZE"));
}

Test (tables, list_ways)
{
  expect_table ("list.raw", ARGS ("list", "--raw", "--noheadings"));
  expect_table ("list.bytes", ARGS ("list", "--bytes"));
  expect_table ("list.json", ARGS ("list", "--json"));
  expect_table ("list.json.bytes", ARGS ("list", "-J", "-b", "-o", "NAME,SIZE,USE%,UUID"));
}

Test (tables, list_columns)
{
  expect_table ("list.columns", ARGS ("list", "-o", "prio,Name"));
  expect_table ("list.more",
                ARGS ("list", "--output",
                      "+UUID,USE%,READS,WRITES,SUSPECT,RERRORS,WERRORS,MISMATCHES,INFLIGHT"));
}

Test (tables, jobs)
{
  expect_table ("jobs", ARGS ("jobs"));
  expect_table ("jobs.json", ARGS ("jobs", "--json", "--bytes"));
  expect_table ("jobs.more", ARGS ("jobs", "-o", "ID,DONE%,LIMIT,UNREADABLE,LOST"));
}

/* On a terminal of 80 columns no line is longer; what has no room there goes to the next. */
Test (tables, jobs_fit_a_terminal)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("jobs"));
  cr_assert_eq (session_end (&s), 0);
  for (char *line = strtok (s.seen, "\r\n"); line; line = strtok (NULL, "\r\n"))
    cr_assert_leq (strlen (line), 80, "%s", line);
}

/* Told before the server is asked. */
Test (tables, unknown_column)
{
  expect (ARGS ("list", "-o", "NAME,FOO"), 2, "",
          "drumctl: FOO: there is no such column; there are NAME TYPE SIZE ");
  expect (ARGS ("list", "-o", ""), 2, "", "drumctl: : there is no such column");
  expect (ARGS ("jobs", "-o", "+UUID"), 2, "", "there are ID KIND DEVICE ");
  expect (ARGS ("list", "--json", "--raw"), 2, "", "drumctl: --json and --raw: choose one");
  cr_assert_str_eq (fake_requests (), "");
}
