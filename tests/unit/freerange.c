/* SPDX-License-Identifier: BSD-3-Clause
 *
 * freerange.c - tests of lib/freerange.c, with a drum_free that only writes down what it was given.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <inttypes.h>

#include "lib/freerange.h"
#include "tests/random.h"

enum { MAX_FREED = 4096 };

static struct drum *const drum = (struct drum *) &drum; /* never looked into */
static struct slot_run freed[MAX_FREED];
static struct room_account *const account = (struct room_account *) &account; /* nor this */
static unsigned nfreed, ncalls, nmoves, nshrinks;

void __wrap_drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns,
                       const struct drum_return *what);
void __wrap_drum_prefetch (struct drum *d, uint32_t slot);

void
__wrap_drum_prefetch (struct drum *d, uint32_t slot)
{
  cr_assert_eq (d, drum);
  (void) slot;
}

void
__wrap_drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns,
                  const struct drum_return *what)
{
  cr_assert_eq (d, drum);
  cr_assert (nruns > 0 && nruns <= DRUM_BATCH, "%u runs", nruns);
  cr_assert_leq (nfreed + nruns, MAX_FREED);
  for (unsigned i = 0; i < nruns; i++)
    freed[nfreed++] = runs[i];
  cr_assert_eq (what->account, account);
  nmoves += what->nmove;
  nshrinks += what->nshrink;
  ncalls++;
}

static void
assert_freed (unsigned i, uint32_t first, uint32_t n)
{
  cr_assert (freed[i].first == first && freed[i].n == n, "run %u: %u slots from %u", i, freed[i].n,
             freed[i].first);
}

/* Nothing gathered, nothing freed. */
Test (freerange, nothing_is_no_call)
{
  struct freerange fr;

  freerange_init (&fr, drum, account, 0);
  freerange_flush (&fr);
  cr_assert_eq (ncalls, 0);
}

/* Slots that follow one another, upwards or downwards, make one run; a gap begins another. */
Test (freerange, merges_up_and_down)
{
  static const uint32_t slots[] = { 10, 11, 12, 9, 8, 13, 20, 19, 18, 21, 30, 32, 31 };
  struct freerange fr;

  freerange_init (&fr, drum, account, 6);
  for (size_t i = 0; i < sizeof slots / sizeof slots[0]; i++)
    freerange_add (&fr, slots[i], i % 3 == 0);
  cr_assert_eq (ncalls, 0, "freed too early");
  freerange_flush (&fr);
  cr_assert_eq (ncalls, 1);
  cr_assert_eq (nmoves, 6);
  cr_assert_eq (nshrinks, 5);
  cr_assert_eq (nfreed, 4);
  assert_freed (0, 8, 6);
  assert_freed (1, 18, 4);
  assert_freed (2, 30, 1);
  assert_freed (3, 31, 2);
}

/* A flush begins anew: the next slot is no longer the neighbour of the last, and what comes with it is told once. */
Test (freerange, starts_anew_after_a_flush)
{
  struct freerange fr;

  freerange_init (&fr, drum, account, 1);
  freerange_add (&fr, 5, true);
  freerange_flush (&fr);
  freerange_add (&fr, 6, false);
  freerange_flush (&fr);
  freerange_flush (&fr);
  cr_assert_eq (ncalls, 2);
  cr_assert_eq (nmoves, 1);
  cr_assert_eq (nshrinks, 1);
  assert_freed (0, 5, 1);
  assert_freed (1, 6, 1);
}

/* No call takes more than DRUM_BATCH runs, and none less while there are more to come. */
Test (freerange, frees_in_batches)
{
  struct freerange fr;

  freerange_init (&fr, drum, account, DRUM_BATCH);
  for (uint32_t i = 0; i < 2 * DRUM_BATCH + 10; i++)
    freerange_add (&fr, 3 * i + 1, i % 2 == 0);
  cr_assert_eq (ncalls, 2);
  cr_assert_eq (nfreed, 2 * DRUM_BATCH);
  cr_assert_eq (nmoves, DRUM_BATCH, "told once, with the first");
  cr_assert_eq (nshrinks, DRUM_BATCH, "those that were freed");
  freerange_flush (&fr);
  cr_assert_eq (ncalls, 3);
  cr_assert_eq (nfreed, 2 * DRUM_BATCH + 10);
  cr_assert_eq (nmoves, DRUM_BATCH);
  cr_assert_eq (nshrinks, DRUM_BATCH + 5);
}

/* In any order, each slot that was added is freed once. */
Test (freerange, frees_each_slot_once)
{
  enum { N = 2000 };
  static uint32_t order[N];
  static unsigned count[N];
  unsigned nall = 0; /* whose pages have no other instead */
  struct rng rng = rng_for (1);
  struct freerange fr;

  for (uint32_t i = 0; i < N; i++)
    order[i] = i;
  for (unsigned i = 0; i < N; i++) { /* runs and single slots */
    unsigned k = (unsigned) rng_below (&rng, N);
    uint32_t slot = order[i];

    if (i % 16 < 8) {
      order[i] = order[k];
      order[k] = slot;
    }
  }
  freerange_init (&fr, drum, account, 0);
  for (unsigned i = 0, n; i < N; i += n) { /* by itself, or many at a time */
    n = (unsigned) rng_below (&rng, 100);
    if (n >= 50 || i + n > N) {
      n = 1;
      freerange_add (&fr, order[i], false);
    } else {
      freerange_add_all (&fr, order + i, n);
      nall += n;
    }
  }
  freerange_flush (&fr);
  cr_assert_eq (nshrinks, nall);
  for (unsigned i = 0; i < nfreed; i++)
    for (uint32_t k = 0; k < freed[i].n; k++)
      count[freed[i].first + k]++;
  for (unsigned i = 0; i < N; i++)
    cr_assert (count[i] == 1, "seed %" PRIu64 ": slot %u is freed %u times", random_seed (), i,
               count[i]);
}
