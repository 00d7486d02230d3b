/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export.c - tests of lib/export.c: one behaviour each.
 *
 * export_model.c compares it with a shadow copy, export_threads.c has many clients at once, export_faults.c broken
 * devices.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "lib/export.h"
#include "lib/stats.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "logged.h"

static struct drum *drum;
static struct export *export;
static char page[PAGE_BYTES];

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  drum = drum_make (16);
}

static void
teardown (void)
{
  if (export)
    export_destroy (export);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (export, .init = setup, .fini = teardown, .timeout = 120);

static void
make_export (uint64_t npages)
{
  struct export_config config = { .name = "e",
                                  .size_bytes = npages * PAGE_BYTES,
                                  .checksum = true };

  cr_assert_eq (export_create (drum, &config, &export), 0);
}

static int
write_stamp (uint64_t number, uint32_t sequence)
{
  stamp_fill (page, (struct stamp){ .writer = 1, .sequence = sequence, .page = number });
  return export_write (export, page, PAGE_BYTES, number * PAGE_BYTES);
}

/* sequence 0: zeroes. */
static void
assert_stamp (uint64_t number, uint32_t sequence)
{
  struct stamp stamp;

  memset (page, 0xee, sizeof page);
  cr_assert_eq (export_read (export, page, PAGE_BYTES, number * PAGE_BYTES), 0, "page %u",
                (unsigned) number);
  cr_assert (stamp_read (page, &stamp), "page %u is mixed", (unsigned) number);
  if (sequence == 0)
    cr_assert (stamp_is_zero (&stamp), "page %u is not zero", (unsigned) number);
  else
    cr_assert (stamp.page == number && stamp.sequence == sequence, "page %u has page %u, %u",
               (unsigned) number, (unsigned) stamp.page, stamp.sequence);
}

/* Its size is a multiple of the page size, and not 0; it may be larger than the drum and costs nothing. */
Test (export, sizes)
{
  static const uint64_t bad[] = { 0, 1, 4095, 4097, 12345 };
  struct export_config config = { .name = "name", .checksum = true };

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    config.size_bytes = bad[i];
    cr_assert_eq (export_create (drum, &config, &export), -EINVAL);
  }
  cr_assert_null (export, "output changed on failure");
  config.size_bytes = UINT64_C (1) << 62;
  cr_assert_eq (export_create (drum, &config, &export), -ENOMEM);
  config.size_bytes = UINT64_C (1) << 40;
  cr_assert_eq (export_create (drum, &config, &export), 0);
  cr_assert_str_eq (export_name (export), "name");
  cr_assert_eq (export_size_bytes (export), UINT64_C (1) << 40);
  cr_assert_eq (export_npages_used (export), 0);
}

/* A map that may come to take more than half of the memory is worth a warning. */
Test (export, warns_about_maps_larger_than_memory)
{
  struct export_config config = { .name = "big" };
  struct sysinfo info;

  cr_assert_eq (sysinfo (&info), 0);
  config.size_bytes =
    (uint64_t) info.totalram * info.mem_unit / 4 * 3 / 8 * PAGE_BYTES; /* 8 bytes a page */
  cr_assert_eq (export_create (drum, &config, &export), 0);
  cr_assert_eq (logged_count ("big"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
}

/* What was never written reads as zeroes, takes no slot, and is no data. */
Test (export, unwritten_pages_are_zero)
{
  drum_add_file (drum, "a", 0, 100);
  make_export (1000);
  assert_stamp (0, 0);
  assert_stamp (999, 0);
  cr_assert_eq (drum_nused (drum), 0);
}

/* A page of zeroes takes no slot, and gives back the one that the page had; so does the last byte that becomes zero. */
Test (export, zero_pages_take_no_slot)
{
  static const char zeroes[PAGE_BYTES];

  drum_add_file (drum, "a", 0, 100);
  make_export (1000);
  cr_assert_eq (export_write (export, zeroes, PAGE_BYTES, 5 * PAGE_BYTES), 0);
  cr_assert_eq (export_write (export, zeroes, 100, 7 * PAGE_BYTES + 5), 0);
  cr_assert_eq (drum_nused (drum), 0);
  cr_assert_eq (write_stamp (5, 1), 0);
  cr_assert_eq (drum_nused (drum), 1);
  cr_assert_eq (export_write (export, zeroes, PAGE_BYTES, 5 * PAGE_BYTES), 0);
  cr_assert_eq (drum_nused (drum), 0);
  assert_stamp (5, 0);
  cr_assert_eq (export_write (export, "x", 1, 5 * PAGE_BYTES + 77), 0);
  cr_assert_eq (drum_nused (drum), 1);
  cr_assert_eq (export_write (export, zeroes, 1, 5 * PAGE_BYTES + 77), 0);
  cr_assert_eq (drum_nused (drum), 0);
  cr_assert_eq (export_npages_used (export), 0);
}

/* A part of a page leaves the rest of it as it is, within one page and across two. */
Test (export, parts_of_pages_leave_the_rest)
{
  char expected[3 * PAGE_BYTES], got[sizeof expected];

  drum_add_file (drum, "a", 0, 100);
  make_export (3);
  memset (expected, 'a', sizeof expected);
  cr_assert_eq (export_write (export, expected, sizeof expected, 0), 0);
  for (unsigned i = 0; i < 4; i++) {
    static const uint32_t offset[] = { 100, 4000, 8191, 4095 }, length[] = { 7, 200, 1, 4098 };

    memset (expected + offset[i], 'b' + (int) i, length[i]);
    cr_assert_eq (export_write (export, expected + offset[i], length[i], offset[i]), 0);
    cr_assert_eq (export_read (export, got, sizeof got, 0), 0);
    cr_assert_eq (memcmp (got, expected, sizeof got), 0, "case %u", i);
    cr_assert_eq (export_read (export, got, length[i] + 2, offset[i] - 1), 0);
    cr_assert_eq (memcmp (got, expected + offset[i] - 1, length[i] + 2), 0, "case %u", i);
  }
}

/* A freed slot is never seen through another page: not in one that was not written, nor behind a short write. */
Test (export, freed_slots_are_not_seen_elsewhere)
{
  enum { NPAGES = 200 };

  drum_add_file (drum, "a", 0, 120);
  make_export (NPAGES);
  for (uint32_t round = 1; round <= 4; round++) {
    unsigned start = round % 2 * 100;

    for (unsigned i = 0; i < 100; i++)
      cr_assert_eq (write_stamp (start + i, round), 0);
    for (unsigned i = 0; i < NPAGES; i++)
      assert_stamp (i, i >= start && i < start + 100 ? round : 0);
    cr_assert_eq (export_trim (export, 100 * PAGE_BYTES, start * PAGE_BYTES), 0);
    cr_assert_eq (export_write (export, "x", 1, (100 - start) * PAGE_BYTES + 50), 0);
    cr_assert_eq (export_read (export, page, PAGE_BYTES, (100 - start) * PAGE_BYTES), 0);
    for (unsigned i = 0; i < PAGE_BYTES; i++)
      cr_assert (page[i] == (i == 50 ? 'x' : 0), "byte %u is of another page", i);
    cr_assert_eq (export_trim (export, NPAGES * PAGE_BYTES, 0), 0);
    cr_assert_eq (drum_nused (drum), 0);
  }
}

/* How many pages of the file are this stamp. */
static unsigned
count_on_device (const char *name, uint64_t number, uint32_t sequence)
{
  size_t len;
  unsigned char *data = file_contents (scratch_path (name), &len);
  unsigned n = 0;

  stamp_fill (page, (struct stamp){ .writer = 1, .sequence = sequence, .page = number });
  for (size_t at = 0; at < len; at += PAGE_BYTES)
    n += memcmp (data + at, page, PAGE_BYTES) == 0;
  free (data);
  return n;
}

/* Nothing is written in place: after a rewrite, whole or in part, the device has the old contents too. */
Test (export, rewrites_go_elsewhere)
{
  drum_add_file (drum, "a", 0, 100);
  make_export (10);
  cr_assert_eq (write_stamp (3, 1), 0);
  cr_assert_eq (write_stamp (3, 2), 0);
  cr_assert_eq (count_on_device ("a", 3, 1), 1, "overwritten in place");
  cr_assert_eq (count_on_device ("a", 3, 2), 1);
  assert_stamp (3, 2);
  cr_assert_eq (export_write (export, "xyz", 3, 3 * PAGE_BYTES + 9), 0);
  cr_assert_eq (count_on_device ("a", 3, 2), 1, "overwritten in place");
  cr_assert_eq (drum_nused (drum), 1);
}

/* A full drum takes no new page, but can be rewritten as a whole, more than once and in one request. */
Test (export, a_full_drum_can_be_rewritten)
{
  enum { NPAGES = 630 };
  char *all = malloc (NPAGES * PAGE_BYTES);

  drum_add_file (drum, "a", 0, 640); /* 10 kept back */
  make_export (1000);
  for (uint32_t round = 1; round <= 3; round++) {
    for (unsigned i = 0; i < NPAGES; i++)
      stamp_fill (all + i * PAGE_BYTES,
                  (struct stamp){ .writer = 1, .sequence = round, .page = i });
    cr_assert_eq (export_write (export, all, NPAGES * PAGE_BYTES, 0), 0);
    for (unsigned i = 0; i < NPAGES; i++)
      assert_stamp (i, round);
    cr_assert_eq (write_stamp (NPAGES, 1), -ENOSPC);
    assert_stamp (NPAGES, 0);
    cr_assert_eq (export_npages_used (export), NPAGES);
  }
  cr_assert_eq (export_trim (export, PAGE_BYTES, 0), 0);
  cr_assert_eq (write_stamp (NPAGES, 1), 0);
  free (all);
}

static atomic_int first_error;

static void *
rewrite_own_pages (void *arg)
{
  uint64_t first = (uintptr_t) arg * 100;
  char *data = malloc (100 * PAGE_BYTES);

  for (uint32_t round = 1; round <= 60; round++) {
    unsigned n = round % 3 == 0 ? 100 : 1 + round % 7;
    int ret;

    for (unsigned i = 0; i < n; i++)
      stamp_fill (data + i * PAGE_BYTES,
                  (struct stamp){ .writer = 1, .sequence = round, .page = first + i });
    ret = export_write (export, data, n * PAGE_BYTES, first * PAGE_BYTES);
    if (ret < 0)
      atomic_store (&first_error, ret);
  }
  free (data);
  return NULL;
}

/* Many clients can rewrite a full drum at once, with few slots kept back for all of them: none fails, all end. */
Test (export, a_full_drum_can_be_rewritten_by_many)
{
  enum { NTHREADS = 6, NPAGES = 100 * NTHREADS };
  pthread_t thread[NTHREADS];

  for (unsigned i = 0; i < NTHREADS; i++)
    drum_add_file (drum, str ("%u", i), (int) i % 2, 100);
  drum_add_file (drum, "kept", 0, 9); /* 609, of which 9 are kept back */
  make_export (NPAGES);
  for (unsigned i = 0; i < NPAGES; i++)
    cr_assert_eq (write_stamp (i, 1), 0);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, rewrite_own_pages, (void *) i), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (atomic_load (&first_error), 0, "%s", strerror (-atomic_load (&first_error)));
  for (unsigned i = 0; i < NPAGES; i++)
    assert_stamp (i, 60);
  cr_assert_eq (drum_nused (drum), NPAGES);
  cr_assert (drum_check (drum));
}

/* A trim gives back whole pages only; what it touches in part stays. */
Test (export, trim_keeps_parts_of_pages)
{
  drum_add_file (drum, "a", 0, 100);
  make_export (10);
  for (unsigned i = 0; i < 5; i++)
    cr_assert_eq (write_stamp (i, 1), 0);
  cr_assert_eq (export_trim (export, 3 * PAGE_BYTES, 1), 0);
  for (unsigned i = 0; i < 5; i++)
    assert_stamp (i, i == 1 || i == 2 ? 0 : 1);
  cr_assert_eq (export_trim (export, PAGE_BYTES - 1, 3 * PAGE_BYTES), 0);
  assert_stamp (3, 1);
  cr_assert_eq (export_npages_used (export), 3);
}

/* A fast zero does what needs no reading, and else changes nothing; the slow one does all. */
Test (export, fast_zero_never_reads)
{
  drum_add_file (drum, "a", 0, 100);
  make_export (10);
  for (unsigned i = 1; i < 4; i++)
    cr_assert_eq (write_stamp (i, 1), 0);
  cr_assert_eq (export_zero (export, 3 * PAGE_BYTES, PAGE_BYTES + 512, true), -EOPNOTSUPP);
  cr_assert_eq (export_zero (export, 2 * PAGE_BYTES + 512, PAGE_BYTES, true), -EOPNOTSUPP);
  for (unsigned i = 1; i < 4; i++)
    assert_stamp (i, 1);
  cr_assert_eq (export_zero (export, 3 * PAGE_BYTES, 512, true), -EOPNOTSUPP);
  cr_assert_eq (export_zero (export, 2 * PAGE_BYTES, 512, false), 0);
  assert_stamp (1, 0);
  cr_assert_eq (export_read (export, page, PAGE_BYTES, 2 * PAGE_BYTES), 0);
  for (unsigned i = 0; i < 512; i++)
    cr_assert_eq (page[i], 0);
  cr_assert_eq (page[512], 1, "more than asked for");
  cr_assert_eq (export_zero (export, 3 * PAGE_BYTES + 1024, 2 * PAGE_BYTES, true), 0,
                "into a hole");
  cr_assert_eq (drum_nused (drum), 0);
}

struct extents {
  uint64_t next;
  unsigned n, stop_at;
};

static int
count_extent (void *opaque, uint64_t offset, uint64_t length, bool data)
{
  struct extents *x = opaque;

  cr_assert_eq (offset, x->next, "a gap");
  cr_assert_gt (length, 0);
  cr_assert_eq (data, offset / PAGE_BYTES % 2 == 0);
  x->next = offset + length;
  return ++x->n == x->stop_at ? -77 : 0;
}

/* Extents come without gaps, no more than EXPORT_EXTENTS at once, one if one is asked for, and end when told. */
Test (export, extents_are_limited)
{
  struct extents x = { .n = 0 };

  drum_add_file (drum, "a", 0, 4000);
  make_export (5000);
  for (unsigned i = 0; i < 5000; i += 2)
    cr_assert_eq (write_stamp (i, 1), 0);
  cr_assert_eq (export_extents (export, 5000 * PAGE_BYTES, 0, false, count_extent, &x), 0);
  cr_assert_eq (x.n, EXPORT_EXTENTS);
  x = (struct extents){ .next = 3 * PAGE_BYTES };
  cr_assert_eq (export_extents (export, 1000 * PAGE_BYTES, 3 * PAGE_BYTES, true, count_extent, &x),
                0);
  cr_assert_eq (x.n, 1);
  x = (struct extents){ .stop_at = 5 };
  cr_assert_eq (export_extents (export, 1000 * PAGE_BYTES, 0, false, count_extent, &x), -77);
  cr_assert_eq (x.n, 5);
}

/* A trim of 4 TiB that hold three pages is a matter of a moment. */
Test (export, a_huge_trim_is_fast, .timeout = 10)
{
  drum_add_file (drum, "a", 0, 100);
  make_export (UINT64_C (1) << 30);
  cr_assert_eq (write_stamp (0, 1), 0);
  cr_assert_eq (write_stamp (UINT64_C (1) << 29, 1), 0);
  cr_assert_eq (write_stamp ((UINT64_C (1) << 30) - 1, 1), 0);
  cr_assert_eq (export_trim (export, UINT64_C (1) << 42, 0), 0);
  cr_assert_eq (drum_nused (drum), 0);
  cr_assert_eq (export_npages_used (export), 0);
}

/* Longer than the machine is up; a request, or a client, ends it. */
Test (export, idle_since_before_the_start)
{
  static const uint64_t month_ns = UINT64_C (30) * 24 * 3600 * 1000000000;
  struct export_config config = { .name = "x", .size_bytes = PAGE_BYTES, .idle_ns = month_ns };
  uint64_t now;

  cr_assert_eq (export_create (drum, &config, &export), 0);
  cr_assert_geq (export_idle_ns (export, now_ns ()), month_ns);
  export_count_client (export, 1);
  cr_assert_eq (export_idle_ns (export, now_ns ()), 0);
  now = now_ns ();
  export_count_client (export, -1);
  cr_assert_leq (export_idle_ns (export, now_ns ()), now_ns () - now);
}
