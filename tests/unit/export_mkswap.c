/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_mkswap.c - tests of lib/export.c: an export that is made a swap area, by the server (export_format) or by mkswap
 * (reset_on_mkswap).
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/export.h"
#include "lib/pagemap.h"
#include "lib/pages.h"
#include "lib/swaphdr.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "behind.h"
#include "devices.h"
#include "faulty.h"
#include "logged.h"

enum { NPAGES = 100, LAST = NPAGES - 1 };

static struct drum *drum;
static struct export *export;
static char page[PAGE_BYTES];
static void (*while_clearing) (void); /* once */

int __real_pages_clear (struct pages *p, uint64_t first, uint64_t end);
int __wrap_pages_clear (struct pages *p, uint64_t first, uint64_t end);

int
__wrap_pages_clear (struct pages *p, uint64_t first, uint64_t end)
{
  void (*hook) (void) = while_clearing;

  while_clearing = NULL;
  if (hook)
    hook ();
  return __real_pages_clear (p, first, end);
}

static void
make (const char *name, uint64_t npages, bool reset)
{
  struct export_config config = {
    .name = name, .size_bytes = npages * PAGE_BYTES, .checksum = true, .reset_on_mkswap = reset
  };

  if (export)
    export_destroy (export);
  cr_assert_eq (export_create (drum, &config, &export), 0);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  drum = drum_make (16);
  drum_add_file (drum, "a", 0, 2 * NPAGES);
  make ("e", NPAGES, true);
}

static void
teardown (void)
{
  export_destroy (export);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (export_mkswap, .init = setup, .fini = teardown, .timeout = 120);

static void
write_stamp (uint64_t number)
{
  stamp_fill (page, (struct stamp){ .writer = 1, .sequence = 1, .page = number });
  cr_assert_eq (export_write (export, page, PAGE_BYTES, number * PAGE_BYTES), 0);
}

static void
write_contents (void)
{
  for (uint64_t i = 1; i < NPAGES; i++)
    write_stamp (i);
  cr_assert_geq (export_npages_used (export), NPAGES - 1);
}

static bool
has_stamp (uint64_t number)
{
  struct stamp stamp;

  cr_assert_eq (export_read (export, page, PAGE_BYTES, number * PAGE_BYTES), 0);
  cr_assert (stamp_read (page, &stamp));
  cr_assert (stamp_is_zero (&stamp) || stamp.page == number);
  return !stamp_is_zero (&stamp);
}

static void
assert_kept (void)
{
  for (uint64_t i = 1; i < NPAGES; i++)
    cr_assert (has_stamp (i), "page %u is gone", (unsigned) i);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* Page 0, and the others from first on, are all that is left. */
static void
assert_freed (uint64_t first)
{
  for (uint64_t i = 1; i < NPAGES; i++)
    cr_assert_eq (has_stamp (i), i >= first, "page %u", (unsigned) i);
  cr_assert_eq (export_npages_used (export), 1 + NPAGES - first);
  cr_assert_eq (drum_nused (drum), 1 + NPAGES - first);
  cr_assert_eq (logged_count ("\"e\": has a new swap header"), 1);
  cr_assert (logged_last_level () == LEVEL_NOTICE);
}

/* Make a header whose UUID is of this byte; 0: it has none. */
static void
fill_header (unsigned char who)
{
  struct swaphdr h = { .page_bytes = PAGE_BYTES, .last_page = NPAGES - 1 };

  memset (h.uuid, who, sizeof h.uuid);
  swaphdr_build (page, &h);
}

static void
write_part (size_t first, size_t end)
{
  cr_assert_eq (export_write (export, page + first, end - first, first), 0);
}

static void
mkswap (unsigned char who)
{
  fill_header (who);
  write_part (0, PAGE_BYTES);
}

/* mkswap over a swap area: what was swapped out to it is dead. */
Test (export_mkswap, another_header_frees)
{
  char got[PAGE_BYTES];

  mkswap (1);
  write_contents ();
  mkswap (2);
  cr_assert_eq (export_read (export, got, sizeof got, 0), 0);
  cr_assert_eq (memcmp (got, page, sizeof got), 0);
  assert_freed (NPAGES);
  write_contents ();
  logged_start ();
  mkswap (1);
  assert_freed (NPAGES);
}

Test (export_mkswap, the_same_header_frees_nothing)
{
  mkswap (1);
  write_contents ();
  mkswap (1);
  assert_kept ();
}

/* Nobody knows whose pages they are. */
Test (export_mkswap, the_first_header_frees_nothing)
{
  write_contents ();
  mkswap (1);
  assert_kept ();
}

/* The swap area has gone elsewhere, and what comes then is no part of it. */
Test (export_mkswap, header_that_passed_to_another_export)
{
  struct export_config config = { .name = "to",
                                  .size_bytes = NPAGES * PAGE_BYTES,
                                  .checksum = true };
  struct export *to;

  cr_assert_eq (export_create (drum, &config, &to), 0);
  mkswap (1);
  write_stamp (1);
  mkswap (1); /* which has been seen by now */
  cr_assert_eq (export_pass (export, to), 0, "%s", logged_last ());
  write_contents ();
  mkswap (2);
  assert_kept ();
  export_destroy (to);
}

Test (export_mkswap, without_a_uuid_nothing_is_freed)
{
  mkswap (1);
  write_contents ();
  mkswap (0);
  assert_kept ();
  mkswap (1);
  assert_kept ();
}

Test (export_mkswap, only_if_asked_for)
{
  make ("e", NPAGES, false);
  mkswap (1);
  write_contents ();
  mkswap (2);
  assert_kept ();
}

/* The kernel puts its signature there, and when it comes back the old one. */
Test (export_mkswap, hibernation_frees_nothing)
{
  mkswap (1);
  write_contents ();
  memcpy (page, "S1SUSPEND", 10);
  cr_assert_eq (export_write (export, page, 10, 4086), 0);
  assert_kept ();
  mkswap (1);
  assert_kept ();
}

/* mkswap wipes the old signature first, and the old header may be zeroed or trimmed before: it is remembered. */
Test (export_mkswap, header_that_was_wiped)
{
  static const char zeroes[PAGE_BYTES];
  unsigned char who = 1;

  for (unsigned how = 0; how < 5; how++, who++) {
    mkswap (who);
    write_contents ();
    logged_start ();
    switch (how) {
    case 0:
      cr_assert_eq (export_write (export, zeroes, 10, 4086), 0);
      break;
    case 1:
      cr_assert_eq (export_write (export, zeroes, sizeof zeroes, 0), 0);
      break;
    case 2:
      cr_assert_eq (export_trim (export, PAGE_BYTES, 0), 0);
      break;
    case 3:
      cr_assert_eq (export_zero (export, PAGE_BYTES, 0, false), 0);
      break;
    case 4:
      cr_assert_eq (export_zero (export, 10, 4086, false), 0);
      break;
    }
    assert_kept ();
    mkswap (who + 1);
    assert_freed (NPAGES);
  }
}

/* The server is another one, which knows no more than what page 0 says. */
static void
restart (void)
{
  struct pagemap_entry entry[NPAGES];

  for (uint64_t i = 0; i < NPAGES; i++)
    entry[i] = export_entry (export, i);
  make ("e", NPAGES, true);
  for (uint64_t i = 0; i < NPAGES; i++)
    export_restore (export, i, entry[i]);
}

Test (export_mkswap, header_of_before_a_restart)
{
  mkswap (1);
  write_contents ();
  restart ();
  mkswap (1);
  assert_kept ();
  restart ();
  mkswap (2);
  assert_freed (NPAGES);
}

/* Whatever changes page 0 first. */
Test (export_mkswap, header_that_was_wiped_after_a_restart)
{
  for (unsigned how = 0; how < 2; how++) {
    mkswap (1);
    write_contents ();
    restart ();
    logged_start ();
    if (how == 0)
      cr_assert_eq (export_trim (export, 2 * PAGE_BYTES, 0), 0);
    else
      cr_assert_eq (export_zero (export, 10, 4086, false), 0);
    cr_assert (has_stamp (LAST));
    mkswap (2);
    assert_freed (NPAGES);
  }
}

Test (export_mkswap, hibernation_over_a_restart)
{
  mkswap (1);
  write_contents ();
  memcpy (page, "S1SUSPEND", 10);
  cr_assert_eq (export_write (export, page, 10, 4086), 0);
  restart ();
  mkswap (1);
  assert_kept ();
  cr_assert_eq (export_write (export, "S1SUSPEND", 10, 4086), 0);
  restart ();
  mkswap (2);
  assert_freed (NPAGES);
}

/* A header that can't be read any more is none. */
Test (export_mkswap, unreadable_header)
{
  mkswap (1);
  write_contents ();
  restart ();
  faulty_add (
    &(struct faulty){ .calls = FAULTY_READ, .action = FAULTY_FAIL, .error = EIO, .count = 2 });
  mkswap (2);
  cr_assert_eq (faulty_nacted (), 2);
  faulty_clear ();
  logged_start ();
  assert_kept ();
  mkswap (3);
  assert_freed (NPAGES);
}

/* Clients that know no pages write it in parts, in any order: when the last one is there the rest is freed, and not before. */
Test (export_mkswap, header_in_parts)
{
  static const struct {
    size_t first, end;
  } part[] = { { 0, 1024 }, { 1024, 1536 }, { 1536, 4000 }, { 4000, 4096 } };
  static const char wiped[10];

  for (unsigned order = 0; order < 2; order++) {
    mkswap (1);
    write_contents ();
    logged_start ();
    cr_assert_eq (export_write (export, wiped, sizeof wiped, 4086), 0);
    for (unsigned i = 0; i < 4; i++) {
      unsigned at = order ? 3 - i : i;

      if (order == 0)
        assert_kept ();
      fill_header (2);
      write_part (part[at].first, part[at].end);
    }
    assert_freed (NPAGES);
  }
}

/* What comes with the header is new. */
Test (export_mkswap, pages_of_the_same_write)
{
  static char data[3 * PAGE_BYTES + 100];

  mkswap (1);
  write_contents ();
  for (uint64_t i = 1; i < 4; i++) {
    stamp_fill (page, (struct stamp){ .writer = 1, .sequence = 1, .page = i });
    memcpy (data + i * PAGE_BYTES, page, i < 3 ? PAGE_BYTES : 100);
  }
  fill_header (2);
  memcpy (data, page, PAGE_BYTES);
  cr_assert_eq (export_write (export, data, sizeof data, 0), 0);
  for (uint64_t i = 1; i < NPAGES; i++)
    cr_assert_eq (has_stamp (i), i < 4, "page %u", (unsigned) i);
}

static void
write_last_page (void)
{
  char data[PAGE_BYTES];

  stamp_fill (data, (struct stamp){ .writer = 1, .sequence = 1, .page = LAST });
  if (export_write (export, data, PAGE_BYTES, LAST * PAGE_BYTES) < 0)
    abort ();
}

static bool waited;

static void
begin_behind (void)
{
  waited = behind_begin (write_last_page);
}

/* What is written after the header stays, although its write has not been answered yet. */
Test (export_mkswap, write_while_the_rest_is_freed)
{
  mkswap (1);
  write_contents ();
  while_clearing = begin_behind;
  mkswap (2);
  behind_end ();
  cr_assert (waited);
  assert_freed (LAST);
}

/* Other pages do not look like headers. */
Test (export_mkswap, header_elsewhere)
{
  mkswap (1);
  write_contents ();
  fill_header (2);
  cr_assert_eq (export_write (export, page, PAGE_BYTES, PAGE_BYTES), 0);
  cr_assert_eq (logged_count (""), 0);
  cr_assert (has_stamp (2));
}

/* A host may swap on to an export that the server has formatted. */
Test (export_mkswap, format)
{
  struct swaphdr h;
  uuid_t uuid;

  make ("host-1", NPAGES, false);
  cr_assert_eq (export_format (export), 0);
  cr_assert_eq (export_npages_used (export), 1);
  cr_assert_eq (export_read (export, page, PAGE_BYTES, 0), 0);
  cr_assert (swaphdr_parse (page, PAGE_BYTES, &h));
  swaphdr_uuid_for ("host-1", uuid);
  cr_assert_eq (uuid_compare (h.uuid, uuid), 0);
  cr_assert_eq (h.page_bytes, PAGE_BYTES);
  cr_assert_eq (h.last_page, NPAGES - 1);
  cr_assert_not (h.suspended);
}

/* The header that the server has made is one. */
Test (export_mkswap, over_a_format)
{
  cr_assert_eq (export_format (export), 0);
  write_contents ();
  mkswap (1);
  assert_freed (NPAGES);
}

Test (export_mkswap, format_is_too_small)
{
  make ("e", SWAPHDR_MIN_PAGES - 1, false);
  cr_assert_eq (export_format (export), -EINVAL);
  cr_assert_eq (export_npages_used (export), 0);
  make ("e", SWAPHDR_MIN_PAGES, false);
  cr_assert_eq (export_format (export), 0);
}
