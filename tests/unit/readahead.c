/* SPDX-License-Identifier: BSD-3-Clause
 *
 * readahead.c - tests of lib/readahead.c, and of how export_read uses it: what the drum is asked for.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "lib/drum.h"
#include "lib/export.h"
#include "lib/pagemap.h"
#include "lib/readahead.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "behind.h"
#include "devices.h"
#include "faulty.h"
#include "logged.h"

enum { NPAGES = 64, MAX_RUNS = 16 };

static struct slot_run asked[MAX_RUNS];
static unsigned nasked;
static void (*while_asking) (void); /* once */

void __wrap_drum_readahead (struct drum *d, struct slot_run run);

void
__wrap_drum_readahead (struct drum *d, struct slot_run run)
{
  void (*hook) (void) = while_asking;

  (void) d;
  while_asking = NULL;
  if (hook)
    hook ();
  if (nasked < MAX_RUNS)
    asked[nasked++] = run;
}

TestSuite (readahead, .init = scratch_setup, .fini = scratch_teardown, .timeout = 60);

/* ---- by itself ---- */

static struct pagemap *map;

static void
set_slots (uint64_t page, uint32_t slot, unsigned n)
{
  for (unsigned i = 0; i < n; i++)
    pagemap_set (map, page + i, (struct pagemap_entry){ .slot = slot + i });
}

static void
around (uint64_t first, uint64_t end, uint32_t max)
{
  nasked = 0;
  readahead_around (NULL, map, first, end, NPAGES, max);
}

static void
assert_asked (unsigned i, uint32_t first, uint32_t n)
{
  cr_assert_gt (nasked, i);
  cr_assert (asked[i].first == first && asked[i].n == n, "%u from %u, not %u from %u", asked[i].n,
             asked[i].first, n, first);
}

static bool
was_asked (uint32_t slot)
{
  for (unsigned i = 0; i < nasked; i++)
    if (slot >= asked[i].first && slot - asked[i].first < asked[i].n)
      return true;
  return false;
}

/* Pages 10 to 29 lie in slots 110 to 129. */
static void
make_map (void)
{
  cr_assert_eq (pagemap_create (NPAGES, &map), 0);
  set_slots (10, 110, 20);
}

Test (readahead, as_far_as_slots_are_consecutive)
{
  make_map ();
  set_slots (30, 140, 5);
  set_slots (5, 200, 5);
  around (15, 17, 64);
  cr_assert_eq (nasked, 2);
  assert_asked (0, 110, 5);
  assert_asked (1, 117, 13);
}

Test (readahead, not_beyond_the_block)
{
  make_map ();
  around (20, 21, 6);
  assert_asked (0, 118, 2);
  assert_asked (1, 121, 3);
  around (18, 19, 6);
  cr_assert_eq (nasked, 1);
  assert_asked (0, 119, 5);
  around (23, 24, 6);
  cr_assert_eq (nasked, 1);
  assert_asked (0, 118, 5);
  around (18, 24, 6);
  cr_assert_eq (nasked, 0);
  around (20, 21, 1);
  cr_assert_eq (nasked, 0);
}

/* It does not begin in its last block. */
Test (readahead, more_than_a_block)
{
  make_map ();
  around (17, 19, 6);
  cr_assert_eq (nasked, 0);
  around (12, 28, 6);
  cr_assert_eq (nasked, 0);
}

Test (readahead, ends_of_the_map)
{
  cr_assert_eq (pagemap_create (NPAGES, &map), 0);
  set_slots (0, 50, 10);
  set_slots (NPAGES - 10, 80, 10);
  around (1, 2, 100);
  cr_assert_eq (nasked, 2);
  assert_asked (0, 50, 1);
  assert_asked (1, 52, 8);
  around (NPAGES - 2, NPAGES - 1, 100);
  cr_assert_eq (nasked, 2);
  assert_asked (0, 80, 8);
  assert_asked (1, 89, 1);
  around (0, NPAGES, 100);
  cr_assert_eq (nasked, 0);
  readahead_around (NULL, map, 0, 5, 8, 100);
  cr_assert_eq (nasked, 1);
  assert_asked (0, 55, 3);
}

/* Without a slot there is nothing beside it: neither holes, nor lost pages; and the last slot that there may be is beside no lost
 * page. */
Test (readahead, no_slots)
{
  make_map ();
  around (9, 10, 64);
  cr_assert_eq (nasked, 0);
  around (0, 1, 64);
  cr_assert_eq (nasked, 0);
  set_slots (39, SLOT_MAX, 2); /* the second is lost */
  for (uint64_t page = 39; page < 42; page++) {
    around (page, page + 1, 64);
    cr_assert_eq (nasked, 0);
  }
}

/* Whatever the map: of the block those that lie beside what was read, and no other. */
Test (readahead, random_maps)
{
  struct rng rng = rng_for (1);

  cr_assert_eq (pagemap_create (NPAGES, &map), 0);
  for (unsigned step = 0, steps = random_steps (20000); step < steps; step++) {
    uint64_t page = rng_below (&rng, NPAGES), first = rng_below (&rng, NPAGES), low, high;
    uint64_t end = first + 1 + rng_below (&rng, (NPAGES - first) / 2 + 1);
    uint32_t npages = 1 + (uint32_t) rng_below (&rng, NPAGES), n = 0;

    set_slots (page, 1000 + (uint32_t) (rng_below (&rng, 4) * 100 + page),
               (unsigned) rng_below (&rng, NPAGES - page));
    around (first, end, npages);
    low = pagemap_get (map, first).slot;
    high = pagemap_get (map, end - 1).slot;
    for (unsigned i = 0; i < nasked; i++)
      n += asked[i].n;
    if (first / npages != (end - 1) / npages) {
      cr_assert_eq (n, 0);
      continue;
    }
    for (uint64_t i = first; i-- > 0 && i / npages == first / npages;) {
      if (!low || pagemap_get (map, i).slot != low - (first - i))
        break;
      cr_assert (was_asked ((uint32_t) (low - (first - i))));
      n--;
    }
    for (uint64_t i = end; i < NPAGES && i / npages == first / npages; i++) {
      if (!high || pagemap_get (map, i).slot != high + (i - end) + 1)
        break;
      cr_assert (was_asked ((uint32_t) (high + (i - end) + 1)));
      n--;
    }
    cr_assert_eq (n, 0, "%u more (step %u, DRUM_TEST_SEED=%" PRIu64 ")", n, step, random_seed ());
  }
}

/* ---- of an export ---- */

static struct drum *drum;
static struct export *export;
static uint32_t first_slot;
static char data[NPAGES * PAGE_BYTES];

static void
make_export (uint32_t readahead_bytes)
{
  struct export_config config = { .name = "e",
                                  .size_bytes = NPAGES * PAGE_BYTES,
                                  .checksum = true,
                                  .readahead_bytes = readahead_bytes };

  logged_start ();
  drum = drum_make (NPAGES);
  first_slot = drum_add_file (drum, "a", 0, 2 * NPAGES);
  cr_assert_eq (export_create (drum, &config, &export), 0);
  memset (data, 'x', sizeof data);
  cr_assert_eq (export_write (export, data, sizeof data, 0), 0);
  cr_assert_eq (export_entry (export, 0).slot, first_slot);
}

static void
end_export (void)
{
  export_destroy (export);
  drum_destroy (drum);
}

Test (readahead, beside_a_read)
{
  make_export (8 * PAGE_BYTES);
  cr_assert_eq (export_read (export, data, PAGE_BYTES, 20 * PAGE_BYTES), 0);
  cr_assert_eq (nasked, 2);
  assert_asked (0, first_slot + 16, 4);
  assert_asked (1, first_slot + 21, 3);
  nasked = 0;
  cr_assert_eq (export_read (export, data, 2 * PAGE_BYTES, 19 * PAGE_BYTES + 100), 0);
  assert_asked (0, first_slot + 16, 3);
  assert_asked (1, first_slot + 22, 2);
  nasked = 0;
  cr_assert_eq (export_read (export, data, PAGE_BYTES, (NPAGES - 1) * PAGE_BYTES), 0);
  cr_assert_eq (nasked, 1);
  end_export ();
}

Test (readahead, only_if_asked_for)
{
  make_export (0);
  cr_assert_eq (export_read (export, data, PAGE_BYTES, 20 * PAGE_BYTES), 0);
  cr_assert_eq (nasked, 0);
  end_export ();
}

/* Who fails to read has more to do than that. */
Test (readahead, not_when_the_read_fails)
{
  make_export (8 * PAGE_BYTES);
  faulty_add (&(struct faulty){ .calls = FAULTY_READ, .action = FAULTY_FAIL, .error = EIO });
  cr_assert_eq (export_read (export, data, PAGE_BYTES, 20 * PAGE_BYTES), -EIO);
  cr_assert_eq (nasked, 0);
  faulty_clear ();
  end_export ();
}

static bool waited;

static void
write_page (void)
{
  static char other[PAGE_BYTES] = "y";

  if (export_write (export, other, PAGE_BYTES, 20 * PAGE_BYTES) < 0)
    abort ();
}

static void
begin_behind (void)
{
  waited = behind_begin (write_page);
}

/* The page that was read stays meanwhile, and so does the device that it is on. */
Test (readahead, while_the_page_is_held)
{
  make_export (8 * PAGE_BYTES);
  while_asking = begin_behind;
  cr_assert_eq (export_read (export, data, PAGE_BYTES, 20 * PAGE_BYTES), 0);
  behind_end ();
  cr_assert (waited);
  end_export ();
}
