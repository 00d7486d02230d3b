/* SPDX-License-Identifier: BSD-3-Clause
 *
 * log.c - tests of lib/log.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "lib/log.h"

#include "logged.h"

/* A message reaches the sink, formatted by its own arguments, with its level. */
Test (log, goes_to_the_sink)
{
  logged_start ();
  log_error ("%s: %d of %" PRIu64, "thing", -5, UINT64_C (1) << 40);
  cr_assert_str_eq (logged_last (), "thing: -5 of 1099511627776");
  cr_assert (logged_last_level () == LEVEL_ERROR);
  log_warning ("two");
  cr_assert_str_eq (logged_last (), "two");
  cr_assert (logged_last_level () == LEVEL_WARNING);
  log_notice ("%s", "100%");
  cr_assert_str_eq (logged_last (), "100%");
  cr_assert (logged_last_level () == LEVEL_NOTICE);
  cr_assert_eq (logged_count (""), 3);
}

/* Without a sink, messages are lines on stderr. */
Test (log, goes_to_stderr_by_default, .init = cr_redirect_stderr)
{
  log_error ("a %d", 1);
  log_warning ("b");
  log_notice ("c");
  fflush (stderr);
  cr_assert_stderr_eq_str ("drum: error: a 1\ndrum: warning: b\ndrum: c\n");
}

/* A thread that says very much keeps what came first; all of it goes to the sink. */
Test (log, captures_so_much)
{
  enum { NLINES = 300, LINE = 101 };
  struct log_capture said;

  logged_start ();
  log_capture_begin (&said, false);
  for (unsigned i = 0; i < NLINES; i++)
    log_warning ("%0100u", i);
  log_error ("an error");
  log_capture_end ();
  cr_assert_eq (logged_count (""), NLINES + 1);
  cr_assert_str_eq (said.errors, "an error");
  cr_assert_eq (strspn (said.warnings, "0"), LINE - 1, "it is not the first");
  cr_assert_eq ((strlen (said.warnings) + 1) % LINE, 0, "a line is cut");
  cr_assert (strlen (said.warnings) > 16000 && strlen (said.warnings) < 17000);
  log_capture_free (&said);
}

/* Sizes look as swapon(8) prints them: one digit behind the point, and none where it would be 0. */
Test (log, formats_sizes)
{
  static const struct {
    uint64_t bytes;
    const char *text;
  } sizes[] = {
    { 0, "0B" },
    { 1, "1B" },
    { 1023, "1023B" },
    { 1024, "1K" },
    { 1025, "1K" },
    { 1536, "1.5K" },
    { 12288, "12K" },
    { (1 << 20) - 1, "1023.9K" },
    { 1 << 20, "1M" },
    { 268435456, "256M" },
    { UINT64_C (1610612736), "1.5G" },
    { UINT64_C (1) << 40, "1T" },
    { UINT64_C (17) << 40, "17T" },
    { UINT64_C (1) << 50, "1P" },
    { UINT64_C (1) << 60, "1E" },
    { UINT64_MAX, "15.9E" },
  };

  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    char buf[16];

    cr_assert_str_eq (format_bytes (sizes[i].bytes, buf), sizes[i].text, "%" PRIu64 " is %s",
                      sizes[i].bytes, buf);
  }
}
