/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum.c - tests of lib/drum.c: placement, slots kept back, accounting and messages, one behaviour each.
 *
 * drum_model.c compares it with a model.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "lib/placement.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
}

TestSuite (drum, .init = setup, .fini = scratch_teardown, .timeout = 60);

static struct slot_run runs[DRUM_BATCH];
static unsigned nruns;

static void
assert_run (unsigned i, uint32_t first, uint32_t n)
{
  cr_assert (i < nruns && runs[i].first == first && runs[i].n == n,
             "run %u of %u: %u slots from %u, not %u from %u", i, nruns, runs[i].n, runs[i].first,
             n, first);
}

static void
take (struct drum *d, uint32_t n)
{
  cr_assert_eq (drum_take_runs (d, n, 0, runs, &nruns), 0, "no room for %u", n);
}

/* ---- parameters ---- */

/* A stripe is a power of two from 4K to 4M. */
Test (drum, stripe_is_checked)
{
  static const uint32_t bad[] = { 0, 1, 2048, 4095, 4097, 12288, 65535, 8 << 20, 1u << 31 };
  struct drum *d = NULL;

  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    cr_assert_eq (drum_create (bad[i], &d), -EINVAL, "%u", bad[i]);
  cr_assert_null (d, "output changed on failure");
  for (uint32_t good = STRIPE_MIN_BYTES; good <= STRIPE_MAX_BYTES; good *= 2) {
    cr_assert_eq (drum_create (good, &d), 0, "%u", good);
    drum_destroy (d);
  }
}

/* Sizes are added up with a guard between two, in 64 bits; there are at most DRUM_MAX_DEVICES. */
Test (drum, sizes_are_checked)
{
  static uint32_t nslots[DRUM_MAX_DEVICES + 1];

  cr_assert_eq (drum_check_sizes (nslots, 0), 0);
  nslots[0] = SLOT_MAX;
  cr_assert_eq (drum_check_sizes (nslots, 1), 0);
  nslots[1] = 3;
  cr_assert_eq (drum_check_sizes (nslots, 2), -EFBIG);
  nslots[0] = SLOT_MAX - 4;
  cr_assert_eq (drum_check_sizes (nslots, 2), 0);
  nslots[0] = SLOT_MAX - 3;
  cr_assert_eq (drum_check_sizes (nslots, 2), -EFBIG, "the guard is not counted");
  nslots[0] = nslots[1] = nslots[2] = 0x55555555;
  cr_assert_eq (drum_check_sizes (nslots, 3), -EFBIG);
  nslots[0] = nslots[1] = nslots[2] = 0xaaaaaaab; /* as 32 bits: 1 */
  cr_assert_eq (drum_check_sizes (nslots, 3), -EFBIG);
  memset (nslots, 0, sizeof nslots);
  cr_assert_eq (drum_check_sizes (nslots, DRUM_MAX_DEVICES), 0);
  cr_assert_eq (drum_check_sizes (nslots, DRUM_MAX_DEVICES + 1), -EMFILE);
}

/* A request for nothing, or for more than DRUM_BATCH, is a mistake. */
Test (drum, alloc_checks_its_numbers)
{
  struct drum *d = drum_make (16);

  drum_add_file (d, "a", 0, 2000);
  nruns = 77;
  cr_assert_eq (drum_take_runs (d, 0, 0, runs, &nruns), -EINVAL);
  cr_assert_eq (drum_take_runs (d, DRUM_BATCH + 1, 0, runs, &nruns), -EINVAL);
  cr_assert_eq (drum_take_runs (d, DRUM_BATCH, 1, runs, &nruns), -EINVAL);
  cr_assert_eq (nruns, 77, "output changed on failure");
  drum_destroy (d);
}

/* ---- placement ---- */

/* Devices of equal priority take turns, a stripe each, also when it is filled slot by slot. */
Test (drum, equals_take_turns_by_stripe)
{
  struct drum *d = drum_make (16);
  uint32_t base[3];

  base[0] = drum_add_file (d, "a", 5, 200);
  base[1] = drum_add_file (d, "b", 5, 200);
  base[2] = drum_add_file (d, "c", 5, 200);
  for (unsigned i = 0; i < 16 * 3 * 4; i++) {
    uint32_t slot = drum_take (d, 1), expected = base[i / 16 % 3] + i / 48 * 16 + i % 16;
    cr_assert_eq (slot, expected, "slot %u is %u, not %u", i, slot, expected);
  }
  drum_destroy (d);
}

/* A large request goes to all devices, a stripe each; the next goes on where it ended. */
Test (drum, large_requests_are_striped)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", -1, 200), b = drum_add_file (d, "b", -1, 200);

  take (d, 40);
  cr_assert_eq (nruns, 3);
  assert_run (0, a, 16);
  assert_run (1, b, 16);
  assert_run (2, a + 16, 8);
  take (d, 10);
  cr_assert_eq (nruns, 2);
  assert_run (0, a + 24, 8);
  assert_run (1, b + 16, 2);
  drum_destroy (d);
}

/* A device alone in its class gives consecutive stripes as one run. */
Test (drum, one_device_gives_one_run)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 300);

  cr_assert_eq (drum_take (d, 7), a);
  cr_assert_eq (drum_take (d, DRUM_BATCH), a + 7);
  drum_destroy (d);
}

/* The higher priority is used first, whatever came first. */
Test (drum, higher_priority_first)
{
  struct drum *d = drum_make (4);
  uint32_t low = drum_add_file (d, "low", -1, 64), high = drum_add_file (d, "high", 32767, 8);
  uint32_t middle = drum_add_file (d, "middle", 0, 8);

  take (d, 20);
  cr_assert_eq (nruns, 3);
  assert_run (0, high, 8);
  assert_run (1, middle, 8);
  assert_run (2, low, 4);
  drum_destroy (d);
}

/* A fragmented fast device is used down to its single slots before the next class has its turn. */
Test (drum, single_slots_before_the_next_class)
{
  struct drum *d = drum_make (16);
  uint32_t fast = drum_add_file (d, "fast", 2, 40), slow = drum_add_file (d, "slow", 1, 200);

  cr_assert_eq (drum_take (d, 40), fast);
  for (uint32_t i = 0; i < 40; i += 4)
    drum_give (d, fast + i, 1);
  take (d, 12);
  cr_assert_eq (nruns, 11);
  for (unsigned i = 0; i < 10; i++)
    cr_assert (runs[i].n == 1 && runs[i].first >= fast && runs[i].first < fast + 40);
  assert_run (10, slow, 2);
  drum_destroy (d);
}

/* In a class, longer runs on any device go before shorter ones: whole stripes, then halves, down to one slot. */
Test (drum, halves_on_fragmented_devices)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 100), b = drum_add_file (d, "b", 0, 100);

  drum_take_any (d, 197); /* of 200, 3 are kept back */
  cr_assert_eq (drum_nfree (d), 3);
  drum_give (d, a + 10, 1);
  drum_give (d, a + 20, 2);
  drum_give (d, a + 30, 4);
  drum_give (d, b + 10, 8);
  drum_give (d, b + 30, 5);
  take (d, 15);
  cr_assert_eq (runs[0].n, 8, "the first run has %u slots", runs[0].n);
  cr_assert_eq (runs[0].first, b + 10);
  cr_assert (runs[1].n >= 4, "then %u", runs[1].n);
  cr_assert (drum_check (d));
  drum_destroy (d);
}

/* A device that is added has its turn among its equals. */
Test (drum, an_added_device_takes_its_turn)
{
  struct drum *d = drum_make (4);
  uint32_t a = drum_add_file (d, "a", 3, 64), b;

  take (d, 6);
  b = drum_add_file (d, "b", 3, 64);
  take (d, 12);
  cr_assert_eq (nruns, 3);
  assert_run (0, a + 6, 4);
  assert_run (1, b, 4);
  assert_run (2, a + 10, 4);
  drum_destroy (d);
}

/* ---- devices ---- */

/* No slot of a label, of a guard, or 0 is ever given, though all others are. */
Test (drum, gives_all_slots_but_reserved_ones)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 1, 65), b = drum_add_file (d, "b", 1, 65);
  static bool given[400];

  cr_assert_eq (a, 1 + SWAPDEV_NRESERVED);
  cr_assert_eq (b, a + 65 + 1 + SWAPDEV_NRESERVED, "a guard and two reserved slots lie between");
  drum_take_any (d, 128);
  cr_assert_eq (drum_take_runs (d, 0, 1, runs, &nruns), 0);
  cr_assert_eq (drum_take_runs (d, 0, 1, runs + 1, &nruns), 0);
  cr_assert_eq (drum_nfree (d), 0);
  for (uint32_t slot = 0; slot < b + 70; slot++)
    given[slot] = (slot >= a && slot < a + 65) || (slot >= b && slot < b + 65);
  for (unsigned i = 0; i < 2; i++)
    cr_assert (given[runs[i].first]);
  drum_destroy (d);
}

/* A device without used slots can leave; its range is given to the next that fits. */
Test (drum, range_of_a_removed_device_is_used_again)
{
  struct drum *d = drum_make (16);
  struct swapdev *b = device_create ("b", 5, 50);
  struct drum_device_info devices[4];
  uint32_t a = drum_add_file (d, "a", 0, 50), first;

  cr_assert_eq (drum_add (d, b), 0);
  drum_add_file (d, "c", 0, 50);
  cr_assert_eq (drum_devices (d, devices, 4), 3);
  cr_assert_eq (devices[0].swapdev, b);
  first = devices[0].first;
  cr_assert_eq (drum_take (d, 1), first + SWAPDEV_NRESERVED);
  cr_assert_eq (drum_remove (d, b), -EBUSY);
  drum_give (d, first + SWAPDEV_NRESERVED, 1);
  cr_assert_eq (drum_remove (d, b), 0);
  swapdev_close (b);
  cr_assert_eq (drum_devices (d, devices, 4), 2);
  cr_assert_eq (drum_nfree (d), 100);
  cr_assert_eq (drum_add_file (d, "d", 0, 51), 1 + 3 * 53 + 2, "does not fit");
  cr_assert_eq (drum_add_file (d, "e", 0, 50), first + SWAPDEV_NRESERVED);
  cr_assert_eq (drum_take (d, 1), a);
  cr_assert (drum_check (d));
  drum_destroy (d);
}

/* A device that is in no drum, or in another, can't be removed. */
Test (drum, removes_only_its_own)
{
  struct drum *d = drum_make (16), *other = drum_make (16);
  struct swapdev *a = device_create ("a", 0, 50);

  cr_assert_eq (drum_remove (d, a), -ENOENT);
  cr_assert_eq (drum_add (other, a), 0);
  cr_assert_eq (drum_remove (d, a), -ENOENT);
  cr_assert_eq (drum_remove (other, a), 0);
  swapdev_close (a);
  drum_destroy (d);
  drum_destroy (other);
}

/* DRUM_MAX_DEVICES work; one more is refused, stays the caller's, and changes nothing. */
Test (drum, has_room_for_max_devices)
{
  struct drum *d = drum_make (1);
  struct swapdev *more;
  struct drum_usage usage;

  for (int i = 0; i < DRUM_MAX_DEVICES; i++)
    drum_add_file (d, str ("%d", i), i % 7, 1);
  more = device_create ("more", 9, 1);
  cr_assert_eq (drum_add (d, more), -EMFILE);
  swapdev_close (more);
  drum_usage (d, &usage);
  cr_assert_eq (usage.nslots, DRUM_MAX_DEVICES);
  take (d, 252);
  cr_assert_eq (nruns, 252);
  cr_assert (drum_check (d));
  drum_destroy (d);
}

/* Devices are listed by priority, equal ones as they came, no more than asked for, with exact numbers. */
Test (drum, lists_devices)
{
  static const char *const order[] = { "b", "d", "a", "c" };
  struct drum_device_info devices[4] = { { .swapdev = NULL } };
  struct drum *d = drum_make (16);

  drum_add_file (d, "a", 1, 10);
  drum_add_file (d, "b", 7, 20);
  drum_add_file (d, "c", 1, 30);
  drum_add_file (d, "d", 7, 40);
  drum_take_any (d, 18);
  cr_assert_eq (drum_devices (d, devices, 3), 4);
  cr_assert_null (devices[3].swapdev, "more than asked for");
  cr_assert_eq (drum_devices (d, devices, 4), 4);
  for (unsigned i = 0; i < 4; i++) {
    cr_assert_str_eq (swapdev_path (devices[i].swapdev), scratch_path (order[i]));
    cr_assert_eq (devices[i].end - devices[i].first, devices[i].nslots + SWAPDEV_NRESERVED);
  }
  cr_assert_eq (devices[0].nfree, 4);
  cr_assert_eq (devices[1].nfree, 38);
  cr_assert_eq (devices[2].nfree, 10);
  cr_assert_eq (devices[0].prio, 7);
  drum_destroy (d);
}

/* ---- slots kept back ---- */

/* New pages can't have the slots kept back; moves can, to the last. */
Test (drum, kept_slots_are_for_moves)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 200); /* 3 kept back */
  struct slot_run old = { .first = a, .n = 3 };

  take (d, 100);
  take (d, 97);
  cr_assert_eq (drum_take_runs (d, 1, 0, runs, &nruns), -ENOSPC);
  cr_assert_eq (drum_take_runs (d, 1, 2, runs, &nruns), -ENOSPC);
  cr_assert_eq (drum_take_runs (d, 0, 4, runs, &nruns), -ENOSPC);
  cr_assert_eq (drum_take_runs (d, 0, 3, runs, &nruns), 0);
  cr_assert_eq (drum_nfree (d), 0);
  drum_free (d, &old, 1, &(struct drum_return){ .nmove = 3 });
  cr_assert_eq (drum_nfree (d), 3);
  cr_assert_eq (drum_take_runs (d, 1, 0, runs, &nruns), -ENOSPC);
  cr_assert (drum_check (d));
  drum_destroy (d);
}

/* What moves under way will return counts as room for new pages. */
Test (drum, moves_under_way_take_no_room)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 200);
  struct slot_run old = { .first = a, .n = 50 };

  take (d, 100);
  cr_assert_eq (drum_take_runs (d, 0, 50, runs, &nruns), 0);
  take (d, 50); /* none is free now, but 50 are to come */
  cr_assert_eq (drum_nfree (d), 0);
  drum_free (d, &old, 1, &(struct drum_return){ .nmove = 50 });
  take (d, 47);
  cr_assert_eq (drum_take_runs (d, 1, 0, runs, &nruns), -ENOSPC);
  drum_destroy (d);
}

/* Who is at his limit is told so at once, though a move under way will return the only slot. */
Test (drum, a_limit_is_not_waited_for)
{
  struct room_account account = { .name = "e", .promise.nlimit = 1 };
  struct drum_demand want = { .account = &account, .nnew = 1, .ngrow = 1 };
  struct drum *d = drum_make (16);

  drum_add_file (d, "a", 0, 200);
  cr_assert_eq (drum_alloc (d, &want, runs, &nruns), 0);
  take (d, 99);
  cr_assert_eq (drum_take_runs (d, 0, 50, runs, &nruns), 0);
  take (d, 50);
  cr_assert_eq (drum_nfree (d), 0);
  logged_start ();
  cr_assert_eq (drum_alloc (d, &want, runs, &nruns), -ENOSPC);
  cr_assert_eq (logged_count (""), 1);
  cr_assert_eq (logged_count ("limit of 4K"), 1, "%s", logged_last ());
  cr_assert_eq (account.nused, 1);
  drum_destroy (d);
}

/* More pages than slots, or none at all. */
Test (drum, demands_that_can_not_be)
{
  struct room_account account = { .name = "e" };
  struct drum *d = drum_make (16);

  drum_add_file (d, "a", 0, 200);
  for (uint32_t nnew = 0; nnew < 2; nnew++) {
    struct drum_demand want = { .account = &account, .nnew = nnew, .nmove = 1, .ngrow = nnew + 1 };

    cr_assert_eq (drum_alloc (d, &want, runs, &nruns), -EINVAL);
    cr_assert_eq (drum_alloc_above (d, PRIO_ANY, &want, runs, &nruns), -EINVAL);
  }
  drum_destroy (d);
}

static struct drum *shared;
static atomic_bool done;

static void *
move_one (void *arg)
{
  struct slot_run run;
  unsigned n;

  *(int *) arg = drum_take_runs (shared, 0, 1, &run, &n);
  atomic_store (&done, true);
  return NULL;
}

/* A move that finds no slot waits for the one that another move returns, instead of failing. */
Test (drum, a_move_waits_for_another)
{
  struct slot_run old;
  pthread_t thread;
  int ret = 77;

  shared = drum_make (16);
  old = (struct slot_run){ .first = drum_add_file (shared, "a", 0, 64), .n = 1 };
  take (shared, 63);
  cr_assert_eq (drum_take_runs (shared, 0, 1, runs, &nruns), 0);
  cr_assert_eq (drum_take_runs (shared, 0, 2, runs, &nruns), -ENOSPC, "more than one never waits");
  cr_assert_eq (pthread_create (&thread, NULL, move_one, &ret), 0);
  for (unsigned i = 0; i < 1000; i++)
    sched_yield ();
  cr_assert_not (atomic_load (&done));
  drum_free (shared, &old, 1, &(struct drum_return){ .nmove = 1 });
  pthread_join (thread, NULL);
  cr_assert_eq (ret, 0);
  cr_assert_eq (logged_count (""), 1, "only: almost full");
  drum_destroy (shared);
}

/* A page that waits gets its slot from a device that is added, too. */
Test (drum, a_move_waits_for_a_device)
{
  pthread_t thread;
  int ret = 77;

  shared = drum_make (16);
  drum_add_file (shared, "a", 0, 64);
  take (shared, 63);
  cr_assert_eq (drum_take_runs (shared, 0, 1, runs, &nruns), 0);
  cr_assert_eq (pthread_create (&thread, NULL, move_one, &ret), 0);
  for (unsigned i = 0; i < 1000; i++)
    sched_yield ();
  drum_add_file (shared, "b", 0, 64);
  pthread_join (thread, NULL);
  cr_assert_eq (ret, 0);
  drum_destroy (shared);
}

/* After a device has left, the others still have their slots to rewrite with. */
Test (drum, a_device_leaves_kept_slots_behind)
{
  struct drum *d = drum_make (16);
  struct swapdev *b = device_create ("b", 0, 64);

  drum_add_file (d, "a", 5, 64);
  cr_assert_eq (drum_add (d, b), 0);
  cr_assert_eq (drum_take (d, 64), 1 + SWAPDEV_NRESERVED);
  if (drum_remove (d, b) == 0) {
    swapdev_close (b);
    cr_assert_eq (drum_take_runs (d, 0, 1, runs, &nruns), 0, "a full drum can't be rewritten");
  }
  drum_destroy (d);
}

/* ---- messages ---- */

/* Almost full is said once, below 128 slots; again only after there were more than 512. */
Test (drum, says_almost_full_once)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 8192); /* 128 kept back */

  drum_take_any (d, 8192 - 128 - 128);
  cr_assert_eq (logged_count (""), 0, "said with 128 left: %s", logged_last ());
  take (d, 1);
  cr_assert_eq (logged_count ("almost full"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  take (d, 1);
  drum_give (d, a, 386);
  drum_take_any (d, 386);
  cr_assert_eq (logged_count (""), 1, "said again: %s", logged_last ());
  drum_give (d, a + 1000, 386);
  cr_assert_eq (logged_count (""), 1, "room with 512 left");
  drum_give (d, a + 2000, 1);
  cr_assert_eq (logged_count ("room again"), 1);
  cr_assert (logged_last_level () == LEVEL_NOTICE);
  drum_give (d, a + 3000, 500);
  cr_assert_eq (logged_count (""), 2);
  drum_take_any (d, 513 + 500 - 127);
  cr_assert_eq (logged_count ("almost full"), 2);
  drum_destroy (d);
}

/* Full is said once, when a single page finds no room; again only after there was much room. */
Test (drum, says_full_once)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 2048), slot = a; /* 32 kept back */

  drum_take_any (d, 2016);
  cr_assert_eq (drum_take_runs (d, 2, 0, runs, &nruns), -ENOSPC);
  cr_assert_eq (logged_count ("is full"), 0, "two pages may be one too many");
  for (unsigned i = 0; i < 5; i++) {
    cr_assert_eq (drum_take_runs (d, 1, 0, runs, &nruns), -ENOSPC);
    cr_assert_eq (logged_count ("is full"), 1);
    drum_give (d, slot, 1);
    slot = drum_take (d, 1);
  }
  drum_give (d, a + 1, 513);
  cr_assert_eq (logged_count ("room again"), 1);
  drum_take_any (d, 513);
  cr_assert_eq (drum_take_runs (d, 1, 0, runs, &nruns), -ENOSPC);
  cr_assert_eq (logged_count ("is full"), 2);
  cr_assert_eq (logged_count ("almost full"), 2);
  drum_destroy (d);
}

/* A small drum is almost full at an eighth of its slots, and has room again at a half. */
Test (drum, small_drums_have_lower_marks)
{
  struct drum *d = drum_make (16);
  uint32_t a = drum_add_file (d, "a", 0, 64); /* 1 kept back */

  take (d, 55);
  cr_assert_eq (logged_count (""), 0, "said with 8 left");
  take (d, 1);
  cr_assert_eq (logged_count ("almost full"), 1);
  drum_give (d, a, 25);
  cr_assert_eq (logged_count (""), 1, "room with 32 left");
  drum_give (d, a + 25, 1);
  cr_assert_eq (logged_count ("room again"), 1);
  drum_destroy (d);
}
