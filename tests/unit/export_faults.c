/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_faults.c - tests of lib/export.c on devices that fail, or give back other bytes than were written.
 *
 * Writes fail by a limit on the size of files, which the device's file exceeds; reads by cutting the file.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/export.h"
#include "lib/pagemap.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "files.h"
#include "logged.h"

enum { NPAGES = 100, NSLOTS = 150, DEVICE_BYTES = (NSLOTS + SWAPDEV_NRESERVED) * PAGE_BYTES };

static struct drum *drum;
static struct export *export;
static const char *path;
static char page[PAGE_BYTES];

static bool mixed_up; /* pages 2 and 3 have each other's entry */

struct pagemap_entry __real_pagemap_get (const struct pagemap *pm, uint64_t number);
struct pagemap_entry __wrap_pagemap_get (const struct pagemap *pm, uint64_t number);

struct pagemap_entry
__wrap_pagemap_get (const struct pagemap *pm, uint64_t number)
{
  return __real_pagemap_get (pm, mixed_up && (number == 2 || number == 3) ? number ^ 1 : number);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  drum = drum_make (16);
  drum_add_file (drum, "a", 0, NSLOTS);
  path = scratch_path ("a");
}

static void
teardown (void)
{
  export_destroy (export);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (export_faults, .init = setup, .fini = teardown, .timeout = 60);

static void
make_export (bool checksum)
{
  struct export_config config = { .name = "e",
                                  .size_bytes = NPAGES * PAGE_BYTES,
                                  .checksum = checksum };

  cr_assert_eq (export_create (drum, &config, &export), 0);
}

static int
write_stamps (unsigned first, unsigned n, uint32_t sequence)
{
  char *data = malloc (n * PAGE_BYTES);
  int ret;

  for (unsigned i = 0; i < n; i++)
    stamp_fill (data + i * PAGE_BYTES,
                (struct stamp){ .writer = 1, .sequence = sequence, .page = first + i });
  ret = export_write (export, data, n * PAGE_BYTES, first * PAGE_BYTES);
  free (data);
  return ret;
}

static void
assert_stamp (unsigned number, uint32_t sequence)
{
  struct stamp stamp;

  cr_assert_eq (export_read (export, page, PAGE_BYTES, number * PAGE_BYTES), 0, "page %u", number);
  cr_assert (stamp_read (page, &stamp), "page %u is mixed", number);
  cr_assert (stamp.page == number && stamp.sequence == sequence, "page %u has page %u, %u", number,
             (unsigned) stamp.page, stamp.sequence);
}

static void
assert_hole (unsigned number)
{
  static const char zeroes[PAGE_BYTES];

  cr_assert_eq (export_read (export, page, PAGE_BYTES, number * PAGE_BYTES), 0, "page %u", number);
  cr_assert_eq (memcmp (page, zeroes, sizeof page), 0, "page %u is not zero", number);
}

static void
assert_eio (unsigned number)
{
  cr_assert_eq (export_read (export, page, PAGE_BYTES, number * PAGE_BYTES), -EIO, "page %u",
                number);
}

/* Where on the device this version of a page stands. */
static uint64_t
find_stamp (unsigned number, uint32_t sequence)
{
  size_t len;
  unsigned char *data = file_contents (path, &len);
  uint64_t at;

  stamp_fill (page, (struct stamp){ .writer = 1, .sequence = sequence, .page = number });
  for (at = 0; at < len && memcmp (data + at, page, PAGE_BYTES) != 0; at += PAGE_BYTES)
    ;
  cr_assert_lt (at, len, "page %u is not on the device", number);
  free (data);
  return at;
}

/* From here on, what is written behind this place of the device fails. */
static void
limit_writes (uint64_t bytes)
{
  struct rlimit limit;

  signal (SIGXFSZ, SIG_IGN);
  getrlimit (RLIMIT_FSIZE, &limit);
  limit.rlim_cur = bytes;
  cr_assert_eq (setrlimit (RLIMIT_FSIZE, &limit), 0);
}

static void
unlimit_writes (void)
{
  struct rlimit limit;

  getrlimit (RLIMIT_FSIZE, &limit);
  limit.rlim_cur = limit.rlim_max;
  cr_assert_eq (setrlimit (RLIMIT_FSIZE, &limit), 0);
}

/* The device works again: slots that took no data are found to be well, and it is opened if it had failed. */
static void
heal (void)
{
  struct drum_device_info info;

  unlimit_writes ();
  drum_heal (drum);
  cr_assert (drum_find (drum, path, &info));
  if (info.state != DEVICE_OPEN)
    cr_assert_eq (drum_reopen_device (drum, place_of (path)), 0);
  drum_heal (drum);
  cr_assert (drum_find (drum, path, &info));
  cr_assert_eq (info.nsuspect, 0);
  drum_assert_adds_up (drum);
}

/* A rewrite that fails leaves each page as it was, and no slot is lost; when the device works again, so does it. */
Test (export_faults, a_failed_rewrite_leaves_the_pages)
{
  make_export (true);
  cr_assert_eq (write_stamps (0, 60, 1), 0);
  limit_writes ((60 + SWAPDEV_NRESERVED) * PAGE_BYTES);
  cr_assert_lt (write_stamps (0, 60, 2), 0);
  cr_assert_lt (write_stamps (7, 1, 2), 0);
  cr_assert_lt (export_write (export, "xyz", 3, 9 * PAGE_BYTES + 5), 0);
  cr_assert_eq (drum_nused_anywhere (drum), 60);
  heal ();
  for (unsigned i = 0; i < 60; i++)
    assert_stamp (i, 1);
  cr_assert_eq (drum_nused (drum), 60);
  cr_assert_eq (export_npages_used (export), 60);
  cr_assert (drum_check (drum));
  cr_assert_eq (write_stamps (0, 60, 3), 0);
  for (unsigned i = 0; i < 60; i++)
    assert_stamp (i, 3);
  cr_assert_eq (drum_nused (drum), 60);
}

/* The same when the write stops in its middle, and for pages that had no slot. */
Test (export_faults, half_a_write_leaves_the_pages)
{
  make_export (true);
  cr_assert_eq (write_stamps (0, 20, 1), 0);
  limit_writes ((30 + SWAPDEV_NRESERVED) * PAGE_BYTES + 1000);
  cr_assert_lt (write_stamps (10, 30, 2), 0);
  cr_assert_eq (drum_nused_anywhere (drum), 20);
  heal ();
  for (unsigned i = 0; i < 20; i++)
    assert_stamp (i, 1);
  for (unsigned i = 20; i < 40; i++)
    assert_hole (i);
  cr_assert_eq (drum_nused (drum), 20);
  cr_assert_eq (export_npages_used (export), 20);
}

/* A device that takes nothing does not make the client's write look like a full drum for ever. */
Test (export_faults, errors_of_a_device_are_reported)
{
  int ret;

  make_export (true);
  limit_writes (PAGE_BYTES);
  ret = write_stamps (0, 10, 1);
  cr_assert (ret == -ENOSPC || ret == -EFBIG, "%s", strerror (-ret));
  cr_assert_eq (drum_nused_anywhere (drum), 0);
  heal ();
  cr_assert_eq (logged_count ("is failing: File too large"), 1, "%s", logged_last ());
  cr_assert_eq (write_stamps (0, 10, 2), 0);
  assert_stamp (9, 2);
}

/* A read that finds the device cut fails for the pages that are gone, and for no others. */
Test (export_faults, a_cut_device_fails_its_own_pages)
{
  make_export (true);
  for (unsigned i = 0; i < 10; i++)
    cr_assert_eq (write_stamps (i, 1, 1), 0);
  cr_assert_eq (truncate (path, (off_t) find_stamp (6, 1) + 100), 0);
  for (unsigned i = 0; i < 6; i++)
    assert_stamp (i, 1);
  for (unsigned i = 6; i < 10; i++)
    assert_eio (i);
  cr_assert_eq (export_write (export, "x", 1, 7 * PAGE_BYTES), -EIO, "a part can't be changed");
  cr_assert_eq (export_zero (export, 1, 8 * PAGE_BYTES, false), -EIO);
  cr_assert_eq (drum_nused_anywhere (drum), 10);
  heal ();
  cr_assert_eq (write_stamps (7, 1, 2), 0);
  assert_stamp (7, 2);
  cr_assert_eq (export_trim (export, NPAGES * PAGE_BYTES, 0), 0);
  cr_assert_eq (drum_nused_anywhere (drum), 0);
  heal (); /* the slots of pages that could not be read */
  cr_assert_eq (drum_nused (drum), 0);
}

/* One wrong bit on the device is an error for exactly that page, not other bytes; a new write heals it. */
Test (export_faults, a_changed_bit_is_an_error)
{
  unsigned char byte;
  uint64_t at;

  make_export (true);
  cr_assert_eq (write_stamps (0, 10, 1), 0);
  at = find_stamp (4, 1) + 1234;
  file_read (path, at, &byte, 1);
  byte ^= 0x04;
  file_write (path, at, &byte, 1);
  logged_start ();
  for (unsigned i = 0; i < 10; i++)
    if (i == 4)
      assert_eio (i);
    else
      assert_stamp (i, 1);
  assert_logged_error ("page 4");
  cr_assert_eq (export_read (export, page, 10, 4 * PAGE_BYTES), -EIO, "also for a part of it");
  cr_assert_eq (write_stamps (4, 1, 2), 0);
  assert_stamp (4, 2);
}

/* Pages that changed places on the device are errors, though each was written by us; so is an older version. */
Test (export_faults, swapped_and_stale_pages_are_errors)
{
  char a[PAGE_BYTES], b[PAGE_BYTES];
  uint64_t at_a, at_b;

  make_export (true);
  cr_assert_eq (write_stamps (0, 10, 1), 0);
  at_a = find_stamp (2, 1);
  at_b = find_stamp (3, 1);
  file_read (path, at_a, a, sizeof a);
  file_read (path, at_b, b, sizeof b);
  file_write (path, at_a, b, sizeof b);
  file_write (path, at_b, a, sizeof a);
  assert_eio (2);
  assert_eio (3);
  assert_stamp (4, 1);
  cr_assert_eq (write_stamps (5, 1, 2), 0);
  stamp_fill (a, (struct stamp){ .writer = 1, .sequence = 1, .page = 5 });
  file_write (path, find_stamp (5, 2), a, sizeof a);
  assert_eio (5);
}

/* A page map that mixes up two pages, each with its slot and checksum, is found out: a checksum is bound to its page. */
Test (export_faults, mixed_up_map_entries_are_errors)
{
  make_export (true);
  cr_assert_eq (write_stamps (0, 10, 1), 0);
  mixed_up = true;
  assert_eio (2);
  assert_eio (3);
  assert_stamp (4, 1);
  mixed_up = false;
  assert_stamp (2, 1);
}

/* Without checksums, what the device gives back is what is read: that is the bargain. */
Test (export_faults, no_checksum_no_check)
{
  make_export (false);
  cr_assert_eq (write_stamps (0, 10, 1), 0);
  file_write (path, find_stamp (4, 1), "!", 1);
  cr_assert_eq (export_read (export, page, PAGE_BYTES, 4 * PAGE_BYTES), 0);
  cr_assert_eq (page[0], '!');
}
