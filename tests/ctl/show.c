/* SPDX-License-Identifier: BSD-3-Clause
 *
 * show.c - drumctl status and map: what a person looks at.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/scratch.h"

#include "fake.h"
#include "run.h"

TestSuite (show, .init = fake_setup, .fini = scratch_teardown, .timeout = 60);

static char *
printed (const char *const *args)
{
  struct result r = run_drumctl (args);

  cr_assert_eq (r.status, 0, "%s", r.err);
  cr_assert_str_eq (r.err, "");
  return r.out;
}

Test (show, status)
{
  expect_golden ("status", printed (ARGS ("status")));
  cr_assert_str_eq (fake_requests (),
                    "{\"version\":1,\"verb\":\"status\",\"fragmentation\":true}\n");
}

Test (show, status_in_ascii)
{
  setenv ("LC_ALL", "C", 1);
  expect_golden ("status.ascii", printed (ARGS ("status")));
}

/* All that the server said, but for the envelope. */
Test (show, status_json)
{
  char *json = printed (ARGS ("status", "--json"));

  cr_assert_eq (strncmp (json, "{\n  \"server\": {", 15), 0, "%.40s", json);
  cr_assert_not_null (strstr (json, "\"fragmentation\": {"));
  cr_assert_not_null (strstr (json, "\"unreadable_pages\": ["));
  cr_assert_null (strstr (json, "\"ok\""));
}

Test (show, map)
{
  expect_golden ("map", printed (ARGS ("map")));
  cr_assert_str_eq (fake_requests (), "{\"version\":1,\"verb\":\"map\",\"cells\":64}\n");
}

Test (show, map_in_ascii)
{
  setenv ("LC_ALL", "C", 1);
  expect_golden ("map.ascii", printed (ARGS ("map", "--cells", "64")));
}

/* As many cells as there is room for, in rows that fit. */
static void
expect_map_on_terminal (unsigned columns, const char *cells)
{
  struct session s;

  session_start (&s, columns, 24, ARGS ("map"));
  cr_assert_eq (session_end (&s), 0);
  cr_assert_not_null (strstr (fake_requests (), str ("\"cells\":%s}", cells)), "%s",
                      fake_requests ());
}

Test (show, map_fits_the_terminal)
{
  expect_map_on_terminal (80, "78");
  expect_map_on_terminal (30, "28");
  expect_map_on_terminal (1, "1");
  expect_map_on_terminal (2000, "1024");
}

/* Colours are for terminals, and for who wants them. */
Test (show, map_colors)
{
  struct session s;

  session_start (&s, 80, 24, ARGS ("map"));
  session_expect (&s, "\033[38;5;");
  cr_assert_eq (session_end (&s), 0);
  setenv ("NO_COLOR", "1", 1);
  session_start (&s, 80, 24, ARGS ("map"));
  cr_assert_eq (session_end (&s), 0);
  cr_assert_null (strchr (s.seen, '\033'), "%s", s.seen);
  unsetenv ("NO_COLOR");
  setenv ("TERM", "dumb", 1);
  session_start (&s, 80, 24, ARGS ("map"));
  cr_assert_eq (session_end (&s), 0);
  cr_assert_null (strchr (s.seen, '\033'), "%s", s.seen);
}

Test (show, map_svg)
{
  char *svg = scratch_path ("map.svg");

  expect_golden ("map.svg", printed (ARGS ("map", "--svg", "-")));
  cr_assert_str_eq (fake_requests (), "{\"version\":1,\"verb\":\"map\",\"cells\":512}\n");
  cr_assert_str_eq (printed (ARGS ("map", "--svg", svg)), "");
  expect_golden ("map.svg", (char *) file_contents (svg, NULL));
}
