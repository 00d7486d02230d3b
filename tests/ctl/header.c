/* SPDX-License-Identifier: BSD-3-Clause
 *
 * header.c - swaparea.c: the header is mkswap's, and nothing is overwritten that is not swap. A file stands for the device.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl/swaparea.h"
#include "lib/log.h"
#include "lib/swaphdr.h"
#include "tests/scratch.h"

enum { FILE_BYTES = 1 << 20, UUID_AT = 1036, UUID_BYTES = 16 };

static char logged[4096];

static void
to_text (enum log_level level, const char *fmt, va_list args)
{
  (void) level;
  vsnprintf (logged, sizeof logged, fmt, args);
}

static void
set_up (void)
{
  scratch_setup ();
  log_set_sink (to_text);
}

TestSuite (header, .init = set_up, .fini = scratch_teardown, .timeout = 60);

static char *
device (const char *size)
{
  char *path = scratch_path ("device");

  cr_assert_eq (shell ("rm -f %s && truncate -s %s %s", path, size, path), 0);
  return path;
}

/* The file stays as it is. */
static void
refused (const char *path, bool make, int error, const char *why)
{
  size_t len, now;
  unsigned char *before = file_contents (path, &len), *after;

  cr_assert_eq (swaparea_prepare (path, make, false), error);
  cr_assert (strstr (logged, why), "no \"%s\" in: %s", why, logged);
  after = file_contents (path, &now);
  cr_assert (len == now && memcmp (before, after, len) == 0, "something was written");
}

Test (header, as_mkswap_makes_it)
{
  char *path = device ("1M");
  unsigned char *ours, *theirs;

  cr_assert_eq (swaparea_prepare (path, true, false), 0, "%s", logged);
  ours = file_contents (path, NULL);
  cr_assert_eq (shell ("cp %s %s.2 && chmod 600 %s.2 && PATH=$PATH:/sbin:/usr/sbin mkswap %s.2",
                       path, path, path, path),
                0);
  theirs = file_contents (str ("%s.2", path), NULL);
  cr_assert_neq (memcmp (ours + UUID_AT, theirs + UUID_AT, UUID_BYTES), 0, "a UUID is not random");
  memset (ours + UUID_AT, 0, UUID_BYTES);
  memset (theirs + UUID_AT, 0, UUID_BYTES);
  cr_assert_eq (memcmp (ours, theirs, FILE_BYTES), 0);
}

Test (header, none)
{
  refused (device ("1M"), false, -ENXIO, "has no swap header; --mkswap makes one");
}

Test (header, kept)
{
  char *path = device ("1M");
  unsigned char *before;

  cr_assert_eq (swaparea_prepare (path, true, false), 0);
  before = file_contents (path, NULL);
  cr_assert_eq (swaparea_prepare (path, false, false), 0);
  cr_assert_eq (swaparea_prepare (path, true, false), 0);
  cr_assert_eq (memcmp (before, file_contents (path, NULL), FILE_BYTES), 0);
}

/* As a server puts it on an export that it makes from a template: taken as it is, whether or not one is asked for. */
Test (header, made_by_the_server)
{
  struct swaphdr h = { .page_bytes = 4096, .last_page = swaphdr_last_page (FILE_BYTES / 4096) };
  unsigned char page[4096], *before;
  char *path = device ("1M");

  if (sysconf (_SC_PAGESIZE) != 4096)
    cr_skip_test ("the server's pages are not this machine's");
  swaphdr_uuid_for ("host-7", h.uuid);
  swaphdr_build (page, &h);
  file_write (path, 0, page, sizeof page);
  before = file_contents (path, NULL);
  cr_assert_eq (swaparea_prepare (path, false, false), 0, "%s", logged);
  cr_assert_eq (swaparea_prepare (path, true, false), 0, "%s", logged);
  cr_assert_eq (memcmp (before, file_contents (path, NULL), FILE_BYTES), 0);
}

Test (header, other_size)
{
  char *path = device ("1M");

  cr_assert_eq (swaparea_prepare (path, true, false), 0);
  cr_assert_eq (truncate (path, FILE_BYTES / 2), 0);
  refused (path, false, -ENXIO, "has a swap header for a larger device");
  cr_assert_eq (truncate (path, 2 * FILE_BYTES), 0);
  cr_assert_eq (swaparea_prepare (path, false, false), 0,
                "a device may be larger than its header says");
  cr_assert_eq (swaparea_prepare (path, true, false), 0);
  cr_assert_eq (file_contents (path, NULL)[1024 + 5], 1, "511 pages");
}

Test (header, foreign)
{
  char *path = device ("1M");

  cr_assert_eq (shell ("PATH=$PATH:/sbin:/usr/sbin mke2fs -q -F %s", path), 0);
  refused (path, false, -ENXIO, "has no swap header");
  refused (path, true, -EEXIST, "holds a signature of ext2");
  cr_assert_eq (swaparea_prepare (path, true, true), 0);
}

/* Another machine's memory. */
Test (header, hibernated)
{
  char *path = device ("1M");

  cr_assert_eq (swaparea_prepare (path, true, false), 0);
  file_write (path, 4086, "S1SUSPEND", 10);
  refused (path, false, -ENXIO, "has no swap header");
  refused (path, true, -EEXIST, "holds a signature of swsuspend");
}

Test (header, small)
{
  refused (device ("36K"), true, -ENOSPC, "too small");
  cr_assert_eq (swaparea_prepare (device ("40K"), true, false), 0);
}

Test (header, no_device)
{
  cr_assert_eq (swaparea_prepare (scratch_path ("none"), true, false), -ENOENT);
  cr_assert (strstr (logged, "can't be opened"), "%s", logged);
}
