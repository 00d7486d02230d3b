/* SPDX-License-Identifier: BSD-3-Clause
 *
 * placement.c - tests of lib/placement.c on bare blists: whose turn is it?
 *
 * drum.c has the same through a drum with devices, drum_model.c at random.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "lib/placement.h"

enum { STRIPE = 4, MAX_RUNS = 64 };

static struct placement p = { .stripe_slots = STRIPE };
static struct placement_device device[8];
static unsigned ndevices;
static struct slot_run runs[MAX_RUNS];
static unsigned nruns;

TestSuite (placement, .timeout = 60);

/* A device of n free slots; its range begins at 1000 times its number, from 1. */
static struct blist *
add (int prio, uint32_t n)
{
  size_t bytes = blist_bytes (n);
  void *mem = aligned_alloc (64, (bytes + 63) / 64 * 64);

  memset (mem, 0, bytes);
  device[ndevices].blist = blist_create (mem, n);
  device[ndevices].prio = prio;
  device[ndevices].first = 1000 * (ndevices + 1);
  blist_free (device[ndevices].blist, 0, n);
  return device[ndevices++].blist;
}

static void
set (void)
{
  placement_set (&p, device, ndevices);
}

static uint32_t
take (uint32_t n, int above)
{
  nruns = 77;
  return placement_take (&p, n, above, runs, &nruns);
}

/* The runs of the last take are these, { first, n } each, up to n 0. */
static void
assert_runs (const struct slot_run *expected)
{
  unsigned n = 0;

  for (; expected[n].n > 0; n++)
    cr_assert (n < nruns && runs[n].first == expected[n].first && runs[n].n == expected[n].n,
               "run %u of %u: %u slots from %u, not %u from %u", n, nruns, runs[n].n, runs[n].first,
               expected[n].n, expected[n].first);
  cr_assert_eq (nruns, n);
}

#define ASSERT_RUNS(...) assert_runs ((const struct slot_run[]){ __VA_ARGS__, { 0, 0 } })

/* Without devices there is nothing to take. */
Test (placement, empty)
{
  set ();
  cr_assert_eq (take (5, PRIO_ANY), 0);
  cr_assert_eq (nruns, 0);
}

/* Nothing is asked for, nothing is given. */
Test (placement, nothing)
{
  add (0, 10);
  set ();
  cr_assert_eq (take (0, PRIO_ANY), 0);
  cr_assert_eq (nruns, 0);
}

/* Equal ones take turns by the stripe, and the next request goes on in the stripe where the last ended. */
Test (placement, equals_take_turns)
{
  add (3, 50);
  add (3, 50);
  set ();
  cr_assert_eq (take (2, PRIO_ANY), 2);
  ASSERT_RUNS ({ 1000, 2 });
  cr_assert_eq (take (9, PRIO_ANY), 9);
  ASSERT_RUNS ({ 1002, 2 }, { 2000, 4 }, { 1004, 3 });
  cr_assert_eq (take (1, PRIO_ANY), 1);
  ASSERT_RUNS ({ 1007, 1 });
  cr_assert_eq (take (1, PRIO_ANY), 1);
  ASSERT_RUNS ({ 2004, 1 });
}

/* Stripes of a device alone in its class are one run; stripes of two are not, though their slots follow one another. */
Test (placement, runs_are_joined)
{
  add (3, 50);
  set ();
  cr_assert_eq (take (11, PRIO_ANY), 11);
  ASSERT_RUNS ({ 1000, 11 });
}

/* A device alone has no stripes: what it has as one run is not given in pieces because a stripe would end there. */
Test (placement, alone_there_are_no_stripes)
{
  struct blist *a = add (3, 50);
  uint32_t n;

  set ();
  cr_assert_eq (take (2, PRIO_ANY), 2);
  blist_fill (a, 0, 50, &n);
  blist_free (a, 10, 2);
  blist_free (a, 20, 5);
  blist_free (a, 30, 11);
  cr_assert_eq (take (3, PRIO_ANY), 3);
  ASSERT_RUNS ({ 1020, 3 });
  cr_assert_eq (take (11, PRIO_ANY), 11);
  ASSERT_RUNS ({ 1030, 11 });
  cr_assert_eq (take (4, PRIO_ANY), 4);
  ASSERT_RUNS ({ 1010, 2 }, { 1023, 2 });
}

/* The highest class first, to its last slot, then the next; what is taken in all is said when there is no more. */
Test (placement, classes_in_order)
{
  add (7, 3);
  add (5, 6);
  add (5, 3);
  add (-1, 2);
  set ();
  cr_assert_eq (take (20, PRIO_ANY), 14);
  ASSERT_RUNS ({ 1000, 3 }, { 2000, 4 }, { 3000, 3 }, { 2004, 2 }, { 4000, 2 });
  cr_assert_eq (take (1, PRIO_ANY), 0);
  cr_assert_eq (nruns, 0);
}

/* Only classes whose priority is higher than that asked for; equal is not higher. */
Test (placement, above)
{
  add (7, 2);
  add (5, 2);
  add (-1, 2);
  set ();
  cr_assert_eq (take (5, 7), 0);
  cr_assert_eq (nruns, 0);
  cr_assert_eq (take (5, 5), 2);
  ASSERT_RUNS ({ 1000, 2 });
  cr_assert_eq (take (5, 5), 0, "there is room below");
  cr_assert_eq (take (5, -1), 2);
  ASSERT_RUNS ({ 2000, 2 });
  cr_assert_eq (take (5, PRIO_ANY), 2);
  ASSERT_RUNS ({ 3000, 2 });
}

/* In a class, a whole stripe on any device goes before halves on the one whose turn it is. */
Test (placement, stripes_before_halves)
{
  struct blist *a = add (0, 20), *b = add (0, 20);
  uint32_t n;

  blist_fill (a, 0, 20, &n);
  blist_fill (b, 0, 20, &n);
  blist_free (a, 3, 2);
  blist_free (a, 8, 1);
  blist_free (b, 10, 4);
  set ();
  cr_assert_eq (take (8, PRIO_ANY), 7);
  ASSERT_RUNS ({ 2010, 4 }, { 1003, 2 }, { 1008, 1 });
}

/* A request shorter than a stripe looks for all of itself first. */
Test (placement, short_requests_stay_whole)
{
  struct blist *a = add (0, 20);
  uint32_t n;

  add (0, 20);
  blist_fill (a, 0, 20, &n);
  blist_free (a, 3, 2);
  set ();
  cr_assert_eq (take (3, PRIO_ANY), 3);
  ASSERT_RUNS ({ 2000, 3 });
}

/* New devices, or a new order: every class starts a new turn, with a whole stripe; the blists stay as they are. */
Test (placement, set_starts_new_turns)
{
  struct placement_device first;

  add (0, 20);
  add (0, 20);
  set ();
  take (5, PRIO_ANY);
  ASSERT_RUNS ({ 1000, 4 }, { 2000, 1 });
  set ();
  take (5, PRIO_ANY);
  ASSERT_RUNS ({ 1004, 4 }, { 2001, 1 });
  first = device[0];
  device[0] = device[1];
  device[1] = first;
  set ();
  take (5, PRIO_ANY);
  ASSERT_RUNS ({ 2002, 4 }, { 1008, 1 });
}

/* A device that is left out gets nothing, whatever its room; once it is back it has its turn again. */
Test (placement, left_out)
{
  add (5, 20);
  add (0, 20);
  placement_set (&p, device + 1, 1);
  cr_assert_eq (take (30, PRIO_ANY), 20);
  ASSERT_RUNS ({ 2000, 20 });
  set ();
  cr_assert_eq (take (30, PRIO_ANY), 20);
  ASSERT_RUNS ({ 1000, 20 });
  placement_set (&p, device, 0);
  cr_assert_eq (take (1, PRIO_ANY), 0);
}

/* As many classes as devices, and as many devices as there may be. */
Test (placement, max_devices)
{
  static struct placement_device all[PLACEMENT_MAX];

  add (0, PLACEMENT_MAX);
  for (int i = 0; i < PLACEMENT_MAX; i++)
    all[i] = (struct placement_device){ device[0].blist, 1000, PLACEMENT_MAX - i, false };
  placement_set (&p, all, PLACEMENT_MAX);
  cr_assert_eq (p.nclasses, PLACEMENT_MAX);
  cr_assert_eq (take (MAX_RUNS, PRIO_ANY), MAX_RUNS);
  for (int i = 0; i < PLACEMENT_MAX; i++)
    all[i].prio = 0;
  placement_set (&p, all, PLACEMENT_MAX);
  cr_assert_eq (p.nclasses, 1);
  cr_assert_eq (p.class[0].n, PLACEMENT_MAX);
}
