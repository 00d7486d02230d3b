/* SPDX-License-Identifier: BSD-3-Clause
 *
 * space.c - tests of lib/space.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "lib/space.h"
#include "lib/units.h"
#include "tests/random.h"

static struct space space;
static char owner[SPACE_MAX + 1];

/* What a test expects of one insert. */
static uint32_t
insert (uint32_t nslots, void *who)
{
  uint32_t first = 0;

  cr_assert_eq (space_insert (&space, nslots, who, &first), 0, "no gap of %u slots", nslots);
  return first;
}

static void
assert_owner (uint32_t slot, void *who, uint32_t expected_first)
{
  uint32_t first = 77;

  cr_assert_eq (space_lookup (&space, slot, &first), who, "slot %u", slot);
  cr_assert_eq (first, who ? expected_first : 77, "slot %u is in a range from %u on", slot, first);
}

/* The first range begins at 1, the next behind a guard; slot 0, guards and the rest are nobody's. */
Test (space, guards_lie_between)
{
  cr_assert_eq (insert (10, &owner[0]), 1);
  cr_assert_eq (insert (1, &owner[1]), 12);
  cr_assert_eq (insert (5, &owner[2]), 14);
  assert_owner (0, NULL, 0);
  assert_owner (1, &owner[0], 1);
  assert_owner (10, &owner[0], 1);
  assert_owner (11, NULL, 0);
  assert_owner (12, &owner[1], 12);
  assert_owner (13, NULL, 0);
  assert_owner (14, &owner[2], 14);
  assert_owner (18, &owner[2], 14);
  assert_owner (19, NULL, 0);
  assert_owner (UINT32_MAX, NULL, 0);
}

/* Just where it was asked for, in any order; a guard stays on both sides. */
Test (space, ranges_may_begin_where_they_are_to)
{
  cr_assert_eq (space_insert_at (&space, 100, 10, &owner[1]), 0);
  cr_assert_eq (space_insert_at (&space, 111, 5, &owner[2]), 0, "right behind the guard");
  cr_assert_eq (space_insert_at (&space, 1, 98, &owner[0]), 0, "right before it");
  cr_assert_eq (space_insert_at (&space, SLOT_MAX, 1, &owner[3]), 0, "the last slot");
  assert_owner (98, &owner[0], 1);
  assert_owner (99, NULL, 0);
  assert_owner (100, &owner[1], 100);
  assert_owner (110, NULL, 0);
  assert_owner (115, &owner[2], 111);
  assert_owner (SLOT_MAX, &owner[3], SLOT_MAX);
  cr_assert_eq (insert (4, &owner[4]), 117, "gaps between them are found");
}

Test (space, ranges_that_can_not_begin_there)
{
  const struct {
    uint32_t first, nslots;
    int ret;
  } refused[] = {
    { 0, 5, -EINVAL },   { 5, 0, -EINVAL },    { SLOT_MAX, 2, -EINVAL }, { 100, 10, -EEXIST },
    { 105, 1, -EEXIST }, { 90, 100, -EEXIST }, { 90, 10, -EEXIST }, /* no guard behind it */
    { 110, 5, -EEXIST },                                            /* nor before it */
  };

  cr_assert_eq (space_insert_at (&space, 100, 10, &owner[0]), 0);
  for (unsigned i = 0; i < sizeof refused / sizeof refused[0]; i++)
    cr_assert_eq (space_insert_at (&space, refused[i].first, refused[i].nslots, &owner[1]),
                  refused[i].ret, "number %u", i);
  cr_assert_eq (insert (98, &owner[1]), 1, "nothing has changed");
  for (uint32_t i = 2; i < SPACE_MAX; i++)
    insert (1, &owner[i]);
  cr_assert_eq (space_insert_at (&space, 10000, 1, &owner[1]), -EMFILE);
}

/* A range that was taken away is given again, if what comes fits with a guard at its end. */
Test (space, ranges_are_used_again)
{
  insert (10, &owner[0]);
  insert (20, &owner[1]);
  insert (10, &owner[2]);
  cr_assert_eq (space_remove (&space, 12), 0);
  assert_owner (12, NULL, 0);
  assert_owner (33, &owner[2], 33);
  cr_assert_eq (insert (21, &owner[3]), 44, "over the guard");
  cr_assert_eq (insert (20, &owner[4]), 12);
  assert_owner (31, &owner[4], 12);
  assert_owner (32, NULL, 0);
  cr_assert_eq (space_remove (&space, 1), 0);
  cr_assert_eq (insert (4, &owner[5]), 1);
  cr_assert_eq (insert (5, &owner[6]), 6);
}

/* Only the first slot of a range removes it. */
Test (space, removes_by_the_first_slot)
{
  insert (10, &owner[0]);
  cr_assert_eq (space_remove (&space, 0), -ENOENT);
  cr_assert_eq (space_remove (&space, 2), -ENOENT);
  cr_assert_eq (space_remove (&space, 1), 0);
  cr_assert_eq (space_remove (&space, 1), -ENOENT);
}

/* The last slot is 2^32-2, and not one more. */
Test (space, ends_at_slot_max)
{
  uint32_t first = 77;

  cr_assert_eq (space_insert (&space, UINT32_MAX, &owner[0], &first), -EFBIG);
  cr_assert_eq (first, 77, "output changed on failure");
  cr_assert_eq (insert (SLOT_MAX, &owner[0]), 1);
  assert_owner (SLOT_MAX, &owner[0], 1);
  assert_owner (SLOT_LOST, NULL, 0);
  cr_assert_eq (space_insert (&space, 1, &owner[1], &first), -EFBIG);
  cr_assert_eq (space_remove (&space, 1), 0);
  insert (SLOT_MAX - 2, &owner[0]);
  cr_assert_eq (space_insert (&space, 2, &owner[1], &first), -EFBIG, "the guard is not counted");
  cr_assert_eq (insert (1, &owner[1]), SLOT_MAX);
}

/* SPACE_MAX ranges, and not one more. */
Test (space, has_room_for_space_max)
{
  uint32_t first = 77;

  for (unsigned i = 0; i < SPACE_MAX; i++)
    cr_assert_eq (insert (3, &owner[i]), 1 + 4 * i);
  cr_assert_eq (space_insert (&space, 3, &owner[SPACE_MAX], &first), -EMFILE);
  cr_assert_eq (first, 77, "output changed on failure");
  for (unsigned i = 0; i < SPACE_MAX; i++)
    assert_owner (3 + 4 * i, &owner[i], 1 + 4 * i);
}

/* The model: ranges in no order. */
struct model {
  struct rng rng;
  unsigned n;
  struct {
    uint64_t first, end;
    char *owner;
  } range[SPACE_MAX];
};

static bool
model_fits (const struct model *m, uint64_t first, uint64_t nslots)
{
  for (unsigned i = 0; i < m->n; i++)
    if (first < m->range[i].end + 1 && m->range[i].first < first + nslots + 1)
      return false;
  return first + nslots <= (uint64_t) SLOT_MAX + 1;
}

/* The lowest place: at the start, or right behind some range. 0 if there is none. */
static uint64_t
model_place (const struct model *m, uint64_t nslots)
{
  uint64_t best = model_fits (m, 1, nslots) ? 1 : 0;

  for (unsigned i = 0; i < m->n; i++) {
    uint64_t first = m->range[i].end + 1;
    if (model_fits (m, first, nslots) && (best == 0 || first < best))
      best = first;
  }
  return best;
}

static void
step_insert (struct model *m, unsigned step)
{
  uint32_t nslots = 1 + (uint32_t) (rng_next (&m->rng) >> (32 + rng_below (&m->rng, 32))) / 2;
  uint64_t place = model_place (m, nslots);
  int expected = m->n == SPACE_MAX ? -EMFILE : place ? 0 : -EFBIG;
  char *who = &owner[rng_below (&m->rng, SPACE_MAX)];
  uint32_t first = 0;
  int ret = space_insert (&space, nslots, who, &first);

  cr_assert (ret == expected && (ret < 0 || first == place),
             "seed %" PRIu64 " step %u: %u slots: %d, not %d, at %u, not %" PRIu64, random_seed (),
             step, nslots, ret, expected, first, place);
  if (ret < 0)
    return;
  m->range[m->n].first = first;
  m->range[m->n].end = (uint64_t) first + nslots;
  m->range[m->n++].owner = who;
}

static void
step_remove (struct model *m, unsigned step)
{
  unsigned i = (unsigned) rng_below (&m->rng, m->n);

  cr_assert (space_remove (&space, (uint32_t) m->range[i].first) == 0, "seed %" PRIu64 " step %u",
             random_seed (), step);
  m->range[i] = m->range[--m->n];
}

static void
check_lookup (struct model *m, uint64_t slot, unsigned step)
{
  uint32_t first = 0, expected_first = 0;
  char *expected = NULL;

  if (slot > UINT32_MAX)
    return;
  for (unsigned i = 0; i < m->n; i++)
    if (m->range[i].first <= slot && slot < m->range[i].end) {
      expected = m->range[i].owner;
      expected_first = (uint32_t) m->range[i].first;
    }
  cr_assert (space_lookup (&space, (uint32_t) slot, &first) == expected && first == expected_first,
             "seed %" PRIu64 " step %u: slot %" PRIu64, random_seed (), step, slot);
}

/* Whatever comes and goes, ranges lie where a naive search puts them, and lookups agree at all their edges. */
Test (space, agrees_with_a_model)
{
  struct model m = { .rng = rng_for (1) };

  for (unsigned step = 0; step < random_steps (4000); step++) {
    bool grows = step / 700 % 2 == 0;

    if (m.n == 0 || rng_below (&m.rng, 10) < (grows ? 8 : 3))
      step_insert (&m, step);
    else
      step_remove (&m, step);
    for (unsigned i = 0; i < m.n; i += 1 + m.n / 8) {
      check_lookup (&m, m.range[i].first - 1, step);
      check_lookup (&m, m.range[i].first, step);
      check_lookup (&m, m.range[i].end - 1, step);
      check_lookup (&m, m.range[i].end, step);
    }
    check_lookup (&m, rng_next (&m.rng) >> 32, step);
  }
}

enum { NSTABLE = 8, NCHANGING = 16 };

static uint32_t stable_first[NSTABLE];
static atomic_bool stop;
static atomic_uint nwrong, nlookups;

/* owner[0] to owner[7] stay all the time; the others' ranges are 10 slots each, of which owner[n] has the n-th. */
static void *
read_all_the_time (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  while (!atomic_load (&stop)) {
    unsigned i = (unsigned) rng_below (&rng, NSTABLE);
    uint32_t first = 0, slot = (uint32_t) rng_below (&rng, 400);
    char *who;

    if (space_lookup (&space, stable_first[i] + 5, &first) != &owner[i] || first != stable_first[i])
      atomic_fetch_add (&nwrong, 1);
    who = space_lookup (&space, slot, &first);
    if (who && (first > slot || slot >= first + 10 || first != 1 + 11 * (uint32_t) (who - owner)))
      atomic_fetch_add (&nwrong, 1);
    atomic_fetch_add (&nlookups, 1);
  }
  return NULL;
}

/* Readers that take no lock never miss a range that stays, nor see a range with another's owner, while ranges come and
 * go beside it. */
Test (space, readers_see_a_whole_array, .timeout = 120)
{
  pthread_t thread[3];
  struct rng rng = rng_for (77);
  bool there[SPACE_MAX];

  for (unsigned i = 0; i < NSTABLE + NCHANGING; i++) {
    uint32_t first = insert (10, &owner[i]); /* first fit: 1 + 11 * i */
    there[i] = true;
    if (i < NSTABLE)
      stable_first[i] = first;
  }
  for (uintptr_t i = 0; i < 3; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, read_all_the_time, (void *) (i + 1)), 0);
  while (atomic_load (&nlookups) < random_steps (200000)) {
    unsigned i = NSTABLE + (unsigned) rng_below (&rng, NCHANGING);

    if (there[i]) {
      cr_assert_eq (space_remove (&space, 1 + 11 * i), 0);
      there[i] = false;
      continue;
    }
    for (i = NSTABLE; there[i]; i++) /* the first gap is given first */
      ;
    cr_assert_eq (insert (10, &owner[i]), 1 + 11 * i);
    there[i] = true;
  }
  atomic_store (&stop, true);
  for (unsigned i = 0; i < 3; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (atomic_load (&nwrong), 0, "%u wrong lookups", atomic_load (&nwrong));
}
