/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagemap.c - tests of lib/pagemap.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/pagemap.h"
#include "lib/units.h"
#include "tests/random.h"

static const struct pagemap_entry none = { .slot = SLOT_NONE };

static struct pagemap *
make (uint64_t npages)
{
  struct pagemap *pm;

  cr_assert_eq (pagemap_create (npages, &pm), 0);
  return pm;
}

static void
assert_entry (const struct pagemap *pm, uint64_t page, uint32_t slot, uint32_t sum)
{
  struct pagemap_entry entry = pagemap_get (pm, page);

  cr_assert (entry.slot == slot && entry.sum == sum, "page %" PRIu64 ": slot %u, sum %u", page,
             entry.slot, entry.sum);
}

/* Pages of a new map have no slot, to the last. */
Test (pagemap, starts_empty)
{
  struct pagemap *pm = make (1000);

  for (uint64_t page = 0; page < 1000; page++)
    assert_entry (pm, page, SLOT_NONE, 0);
  cr_assert_eq (pagemap_next (pm, 0, 1000), 1000);
  pagemap_destroy (pm);
}

/* An entry comes back with all its bits, and its neighbours stay as they are. */
Test (pagemap, keeps_all_bits)
{
  struct pagemap *pm = make (1000);

  pagemap_set (pm, 999, (struct pagemap_entry){ .slot = SLOT_MAX, .sum = UINT32_MAX });
  pagemap_set (pm, 0, (struct pagemap_entry){ .slot = SLOT_LOST, .sum = 0 });
  pagemap_set (pm, 511, (struct pagemap_entry){ .slot = 1, .sum = 0x80000000 });
  assert_entry (pm, 999, SLOT_MAX, UINT32_MAX);
  assert_entry (pm, 998, SLOT_NONE, 0);
  assert_entry (pm, 0, SLOT_LOST, 0);
  assert_entry (pm, 1, SLOT_NONE, 0);
  assert_entry (pm, 511, 1, 0x80000000);
  assert_entry (pm, 512, SLOT_NONE, 0);
  pagemap_set (pm, 999, none);
  assert_entry (pm, 999, SLOT_NONE, 0);
  pagemap_destroy (pm);
}

/* Next goes from leaf to leaf that was ever set, over words of leaves that were not, and no further than end. */
Test (pagemap, next_passes_over_what_was_never_set)
{
  enum { NPAGES = PAGEMAP_LEAF * 64 * 5 };
  static const uint64_t set[] = { 5, PAGEMAP_LEAF * 63, PAGEMAP_LEAF * 64 + 1, NPAGES - 1 };
  struct pagemap *pm = make (NPAGES);

  for (size_t i = 0; i < sizeof set / sizeof set[0]; i++)
    pagemap_set (pm, set[i], (struct pagemap_entry){ .slot = 9 });
  cr_assert_eq (pagemap_next (pm, 0, NPAGES), 0, "may have an entry: its leaf has one");
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF - 1, NPAGES), PAGEMAP_LEAF - 1);
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF, NPAGES), PAGEMAP_LEAF * 63);
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF, PAGEMAP_LEAF * 63), PAGEMAP_LEAF * 63);
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF, 1000), 1000);
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF * 64, NPAGES), PAGEMAP_LEAF * 64);
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF * 65, NPAGES), NPAGES - PAGEMAP_LEAF);
  cr_assert_eq (pagemap_next (pm, NPAGES, NPAGES), NPAGES);
  cr_assert_eq (pagemap_next (pm, 10, 10), 10);
  pagemap_destroy (pm);
}

/* Clearing what has no entry touches nothing. */
Test (pagemap, clearing_a_hole_sets_no_leaf)
{
  struct pagemap *pm = make (10 * PAGEMAP_LEAF);

  for (uint64_t page = 0; page < 10 * PAGEMAP_LEAF; page++)
    pagemap_set (pm, page, none);
  cr_assert_eq (pagemap_next (pm, 0, 10 * PAGEMAP_LEAF), 10 * PAGEMAP_LEAF);
  pagemap_destroy (pm);
}

/* 0 pages are no map; more than the address space holds are no memory. */
Test (pagemap, sizes_that_cannot_be)
{
  struct pagemap *pm = NULL;

  cr_assert_eq (pagemap_create (0, &pm), -EINVAL);
  cr_assert_eq (pagemap_create (UINT64_C (1) << 50, &pm), -ENOMEM);
  cr_assert_eq (pagemap_create (UINT64_MAX >> PAGE_SHIFT, &pm), -ENOMEM);
  cr_assert_eq (pagemap_create (UINT64_MAX, &pm), -ENOMEM);
  cr_assert_null (pm, "output changed on failure");
}

/* 8 bytes a page and little more: 2 MiB for each GiB. */
Test (pagemap, bytes)
{
  uint64_t npages = UINT64_C (1) << 28;

  cr_assert_geq (pagemap_bytes (npages), 8 * npages);
  cr_assert_leq (pagemap_bytes (npages), 8 * npages + (64 << 10));
  cr_assert_geq (pagemap_bytes (1), 8);
}

static uint64_t
resident_bytes (void)
{
  FILE *f = fopen ("/proc/self/statm", "re");
  unsigned long total, resident;

  cr_assert_not_null (f);
  cr_assert_eq (fscanf (f, "%lu %lu", &total, &resident), 2);
  fclose (f);
  return (uint64_t) resident * (uint64_t) sysconf (_SC_PAGESIZE);
}

/* A map of 16 TiB takes no memory to make, to read all over, or to walk, and a few KiB for a few far pages. */
Test (pagemap, far_pages_cost_nothing)
{
  const uint64_t npages = UINT64_C (1) << 32;
  uint64_t before __attribute__ ((unused)) = resident_bytes (), page = 0;
  struct pagemap *pm = make (npages);
  unsigned nleaves = 0;

  for (uint64_t i = 0; i < npages; i += npages / 10000)
    assert_entry (pm, i, SLOT_NONE, 0);
  for (uint64_t i = 1; i <= 8; i++)
    pagemap_set (pm, i * (npages / 8) - 1, (struct pagemap_entry){ .slot = (uint32_t) i });
  while ((page = pagemap_next (pm, page, npages)) < npages) {
    nleaves++;
    page = (page / PAGEMAP_LEAF + 1) * PAGEMAP_LEAF;
  }
  cr_assert_eq (nleaves, 8);
  assert_entry (pm, npages - 1, 8, 0);
#ifndef __SANITIZE_THREAD__ /* it has shadows of what is touched */
  cr_assert_leq (resident_bytes () - before, 2 << 20);
#endif
  pagemap_destroy (pm);
}

/* Whatever is set, a map says the same as a plain array, and next never passes over an entry. */
Test (pagemap, agrees_with_a_model)
{
  enum { NPAGES = 200 * PAGEMAP_LEAF + 7 };
  static struct pagemap_entry model[NPAGES];
  struct pagemap *pm = make (NPAGES);
  struct rng rng = rng_for (1);

  for (unsigned step = 0; step < random_steps (100000); step++) {
    uint64_t page = rng_below (&rng, NPAGES), end = page + rng_below (&rng, NPAGES - page + 1), at;
    uint64_t bits = rng_next (&rng);

    if (step % 16 < 12)
      page = page / 4096 * 4096 + page % 64; /* many leaves stay untouched */
    if (step % 3 == 0) {
      model[page] = bits & 1 ? (struct pagemap_entry){ .slot = (uint32_t) (bits >> 32) | 1,
                                                       .sum = (uint32_t) bits }
                             : none;
      pagemap_set (pm, page, model[page]);
    }
    assert_entry (pm, page, model[page].slot, model[page].sum);
    if (step % 50 != 0)
      continue;
    end = end > page ? end : page;
    at = pagemap_next (pm, page, end);
    cr_assert (at >= page && at <= end, "seed %" PRIu64 " step %u", random_seed (), step);
    for (; page < at; page++)
      cr_assert (model[page].slot == SLOT_NONE, "seed %" PRIu64 " step %u: passed over %" PRIu64,
                 random_seed (), step, page);
    end = (page / PAGEMAP_LEAF + 1) * PAGEMAP_LEAF < end ? (page / PAGEMAP_LEAF + 1) * PAGEMAP_LEAF
                                                         : end;
    if (step % 100 == 0 && page < end) {
      uint32_t slot[PAGEMAP_LEAF];
      unsigned n = pagemap_take (pm, page, end, slot), k = 0;

      for (; page < end; model[page++] = none)
        if (pagemap_has_slot (model[page]))
          cr_assert_eq (slot[k++], model[page].slot);
      cr_assert_eq (n, k);
    }
  }
  for (uint64_t page = 0; page < NPAGES; page++)
    assert_entry (pm, page, model[page].slot, model[page].sum);
  pagemap_destroy (pm);
}

static int remaps_before_failure = -1; /* of one; none fails */

void *__real_mremap (void *mem, size_t from, size_t to, int flags, ...);
void *__wrap_mremap (void *mem, size_t from, size_t to, int flags, ...);

void *
__wrap_mremap (void *mem, size_t from, size_t to, int flags, ...)
{
  if (remaps_before_failure < 0 || remaps_before_failure-- > 0)
    return __real_mremap (mem, from, to, flags);
  errno = ENOMEM;
  return (void *) -1;
}

/* What is in the map stays where it grows and shrinks, and what is new is empty, whatever was there before. */
Test (pagemap, resized_like_a_model)
{
  enum { NPAGES = 70 * 64 * PAGEMAP_LEAF }; /* some pages of memory for the leaves alone */
  static struct pagemap_entry model[NPAGES];
  uint64_t npages = 1000;
  struct pagemap *pm = make (npages);
  struct rng rng = rng_for (2);

  for (unsigned step = 0; step < random_steps (100); step++) {
    uint64_t to = 1 + rng_below (&rng, step % 3 ? NPAGES : 5 * PAGEMAP_LEAF), page = 0, n;

    for (unsigned i = 0; i < 300; i++) {
      page = i % 2 ? rng_below (&rng, npages) : npages - 1 - rng_below (&rng, npages) % 1500;
      page = page < npages ? page : 0;
      model[page] =
        (struct pagemap_entry){ .slot = 1 + (uint32_t) rng_below (&rng, SLOT_MAX), .sum = step };
      pagemap_set (pm, page, model[page]);
    }
    for (page = to; page < npages; page++) {
      pagemap_set (pm, page, none);
      model[page] = none;
    }
    remaps_before_failure = (int) rng_below (&rng, 4);
    n = pagemap_resize (pm, to) == 0 ? to : npages;
    cr_assert (n == to || (to > npages && remaps_before_failure == -1),
               "seed %" PRIu64 " step %u: %" PRIu64 " to %" PRIu64, random_seed (), step, npages,
               to);
    remaps_before_failure = -1;
    npages = n;
    for (page = 0; page < npages; page++)
      if (step % 16 == 0 || pagemap_next (pm, page, npages) == page)
        assert_entry (pm, page, model[page].slot, model[page].sum);
      else
        cr_assert_eq (model[page].slot, SLOT_NONE, "passed over %" PRIu64, page);
  }
  pagemap_destroy (pm);
}

/* Sizes that can't be change nothing, and so does a lack of address space. */
Test (pagemap, resizes_that_fail)
{
  struct pagemap *pm = make (1000);

  pagemap_set (pm, 999, (struct pagemap_entry){ .slot = 7 });
  cr_assert_eq (pagemap_resize (pm, 0), -EINVAL);
  cr_assert_eq (pagemap_resize (pm, UINT64_C (1) << 50), -ENOMEM);
  cr_assert_eq (pagemap_resize (pm, UINT64_MAX), -ENOMEM);
  for (int n = 0; n < 2; n++) {
    remaps_before_failure = n;
    cr_assert_eq (pagemap_resize (pm, 100000000), -ENOMEM);
    assert_entry (pm, 999, 7, 0);
  }
  cr_assert_eq (pagemap_resize (pm, 100000000), 0);
  assert_entry (pm, 999, 7, 0);
  assert_entry (pm, 99999999, SLOT_NONE, 0);
  pagemap_destroy (pm);
}

/* Of a part that went, and came again, nothing is walked. */
Test (pagemap, new_leaves_were_never_set)
{
  enum { NPAGES = 100 * PAGEMAP_LEAF };
  struct pagemap *pm = make (NPAGES);

  for (uint64_t page = 0; page < NPAGES; page += PAGEMAP_LEAF)
    pagemap_set (pm, page, (struct pagemap_entry){ .slot = 7 });
  for (uint64_t page = 2 * PAGEMAP_LEAF; page < NPAGES; page += PAGEMAP_LEAF)
    pagemap_set (pm, page, none);
  cr_assert_eq (pagemap_resize (pm, PAGEMAP_LEAF + 1), 0);
  cr_assert_eq (pagemap_resize (pm, NPAGES), 0);
  cr_assert_eq (pagemap_next (pm, PAGEMAP_LEAF, NPAGES), PAGEMAP_LEAF);
  assert_entry (pm, PAGEMAP_LEAF, 7, 0);
  cr_assert_eq (pagemap_next (pm, 2 * PAGEMAP_LEAF, NPAGES), NPAGES);
  pagemap_destroy (pm);
}

/* A map that grows takes no memory for that, and one that shrinks gives its own back. */
Test (pagemap, resizes_cost_nothing)
{
  const uint64_t npages = UINT64_C (1) << 32;
  struct pagemap *pm = make (1000);
  uint64_t before __attribute__ ((unused)) = resident_bytes ();

  cr_assert_eq (pagemap_resize (pm, npages), 0);
  pagemap_set (pm, npages - 1, (struct pagemap_entry){ .slot = 7 });
  assert_entry (pm, npages - 1, 7, 0);
  pagemap_set (pm, npages - 1, none);
  for (uint64_t page = 0; page < 2000 * PAGEMAP_LEAF; page += PAGEMAP_LEAF) {
    pagemap_set (pm, page, (struct pagemap_entry){ .slot = 7 });
    pagemap_set (pm, page, none);
  }
  cr_assert_eq (pagemap_resize (pm, 1000), 0);
#ifndef __SANITIZE_THREAD__ /* it has shadows of what is touched */
  cr_assert_leq (resident_bytes (), before + (1 << 20));
#endif
  pagemap_destroy (pm);
}

static struct pagemap *shared;
static atomic_bool stop;
static atomic_uint nwrong;

static void *
set_all_the_time (void *arg)
{
  for (uint32_t i = 1; !atomic_load (&stop); i++)
    pagemap_set (shared, 600, (struct pagemap_entry){ .slot = i, .sum = ~i });
  return arg;
}

/* Slot and checksum of an entry are always of one version. */
Test (pagemap, entries_are_never_torn)
{
  pthread_t thread;
  uint32_t last = 0;

  shared = make (1000);
  cr_assert_eq (pthread_create (&thread, NULL, set_all_the_time, NULL), 0);
  for (unsigned i = 0; i < random_steps (200000); last < 2 ? 0 : i++) {
    struct pagemap_entry entry = pagemap_get (shared, 600);

    if (entry.slot && (entry.sum != ~entry.slot || entry.slot < last))
      atomic_fetch_add (&nwrong, 1);
    last = entry.slot;
  }
  atomic_store (&stop, true);
  pthread_join (thread, NULL);
  cr_assert_eq (atomic_load (&nwrong), 0);
  pagemap_destroy (shared);
}
