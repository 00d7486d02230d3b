/* SPDX-License-Identifier: BSD-3-Clause
 *
 * medic.c - tests of lib/medic.c: which slots are bad, found in few probes, kept over a restart; and devices that fail.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <string.h>

#include "lib/drum-health.h"
#include "lib/label.h"
#include "lib/medic.h"
#include "tests/scratch.h"

#include "devices.h"
#include "faulty.h"
#include "logged.h"

enum { NSLOTS = 2000, RUN = 256, FIRST = SWAPDEV_NRESERVED };

static struct drum *drum;
static struct medic *medic;
static uint32_t first_slot; /* of the device's usable ones, in the drum */
static sem_t treated, failed;
static uint64_t later_ns;

void __real_drum_suspect_end (struct drum *d, struct swapdev *dev);
void __wrap_drum_suspect_end (struct drum *d, struct swapdev *dev);
uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

void
__wrap_drum_suspect_end (struct drum *d, struct swapdev *dev)
{
  __real_drum_suspect_end (d, dev);
  sem_post (&treated);
}

uint64_t
__wrap_now_ns (void)
{
  return __real_now_ns () + later_ns;
}

static void
wait_for (sem_t *sem)
{
  while (sem_wait (sem) == -1)
    ;
}

static void
failing (void *opaque, struct swapdev *dev)
{
  (void) opaque;
  (void) dev;
  sem_post (&failed);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  sem_init (&treated, 0, 0);
  sem_init (&failed, 0, 0);
  drum = drum_make (256);
  first_slot = drum_add_file (drum, "a", 0, NSLOTS);
}

static void
start (void)
{
  cr_assert_eq (medic_start (drum, failing, NULL, &medic), 0);
}

static void
stop (void)
{
  if (medic)
    medic_stop (medic);
  medic = NULL;
}

static void
teardown (void)
{
  stop ();
  drum_assert_adds_up (drum);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (medic, .init = setup, .fini = teardown, .timeout = 60);

static struct drum_device_info
device (void)
{
  struct drum_device_info info;

  cr_assert (drum_find (drum, scratch_path ("a"), &info));
  return info;
}

/* Slots of the device, in its own numbers, take no data. */
static void
break_slots (enum faulty_calls calls, uint32_t first, uint32_t n, int error)
{
  faulty_add (&(struct faulty){
    .name = "a", .calls = calls, .error = error, .first = first, .end = first + n });
}

/* A write to the first RUN slots has failed. */
static void
fail_run (int err)
{
  struct slot_run run = { drum_take (drum, RUN), RUN };

  cr_assert_eq (run.first, first_slot);
  drum_slots_failed (drum, &run, 1, NULL, err);
}

/* These of them, and no others, are bad. */
static void
assert_bad (const uint32_t *slot, unsigned n)
{
  struct drum_device_info info = device ();

  cr_assert_eq (info.nsuspect, 0);
  cr_assert_eq (swapdev_nbad (info.swapdev), n);
  for (unsigned i = 0; i < n; i++)
    cr_assert_eq (swapdev_bad_slot (info.swapdev, i), slot[i]);
  cr_assert_eq (info.nfree, NSLOTS - n);
  cr_assert_eq (drum_nfree (drum), NSLOTS - n);
  drum_assert_adds_up (drum);
}

/* A run that turns out well is given back, after one look at each of its slots. */
Test (medic, well)
{
  break_slots (FAULTY_BOTH, 5000, 1, EIO); /* nothing; it counts only what it matches */
  fail_run (-EIO);
  cr_assert_eq (drum_nfree (drum), NSLOTS - RUN);
  cr_assert_eq (device ().nsuspect, RUN);
  start ();
  wait_for (&treated);
  assert_bad (NULL, 0);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* One bad slot among 256 is found in some log2 (256) steps, the others are given back; it is said, and never given out again. */
static void
one_bad (enum faulty_calls calls, enum faulty_action action)
{
  uint32_t bad = FIRST + 100;

  faulty_add (&(struct faulty){
    .name = "a", .calls = calls, .action = action, .error = EIO, .first = bad, .end = bad + 1 });
  fail_run (-EIO);
  start ();
  wait_for (&treated);
  cr_assert_leq (faulty_nacted (), 9, "%u probes failed", faulty_nacted ());
  assert_bad (&bad, 1);
  cr_assert_eq (logged_count ("slot 102 is bad"), 1, "%s", logged_last ());
  drum_take_any (drum, NSLOTS - 1 - (uint32_t) room_nkept (NSLOTS - 1));
}

Test (medic, one_bad_to_write)
{
  one_bad (FAULTY_WRITE, FAULTY_FAIL);
}

Test (medic, one_bad_to_read)
{
  one_bad (FAULTY_READ, FAULTY_FAIL);
}

Test (medic, one_that_forgets)
{
  one_bad (FAULTY_WRITE, FAULTY_CORRUPT);
}

/* The whole run takes few probes when a range in it is bad. */
Test (medic, a_range_is_bad)
{
  uint32_t bad[10];

  for (uint32_t i = 0; i < 10; i++)
    bad[i] = FIRST + 40 + i;
  break_slots (FAULTY_WRITE, bad[0], 10, EIO);
  faulty_add (&(struct faulty){ .name = "a", .calls = FAULTY_BOTH, .skip = -1u });
  fail_run (-EIO);
  start ();
  wait_for (&treated);
  assert_bad (bad, 10);
  cr_assert_leq (faulty_ncalls (), 150, "%u", faulty_ncalls ());
}

/* Bad slots are in the label: after a restart they are bad still, and nobody gets them. */
Test (medic, bad_slots_survive_a_restart)
{
  struct swapdev_spec spec = { .path = scratch_path ("a") };
  struct swapdev_identity identity = { .generation = 2 };
  static const uint32_t bad[] = { FIRST + 3, FIRST + 200 };
  struct slot_run runs[DRUM_BATCH];
  struct swapdev *dev;
  unsigned nruns;

  break_slots (FAULTY_WRITE, bad[0], 1, EIO);
  break_slots (FAULTY_WRITE, bad[1], 1, EIO);
  fail_run (-EIO);
  start ();
  wait_for (&treated);
  assert_bad (bad, 2);
  stop ();
  drum_destroy (drum);
  faulty_clear ();

  drum = drum_make (256);
  cr_assert_eq (swapdev_open (&spec, &dev), 0, "%s", logged_last ());
  cr_assert_eq (swapdev_prepare (dev, &identity), 0);
  cr_assert_eq (drum_add (drum, dev), 0);
  assert_bad (bad, 2);
  while (drum_nfree (drum) > 0) {
    uint32_t n = drum_nfree (drum) < RUN ? (uint32_t) drum_nfree (drum) : RUN;

    cr_assert_eq (drum_take_runs (drum, 0, n, runs, &nruns), 0);
    for (unsigned i = 0; i < nruns; i++)
      for (unsigned k = 0; k < 2; k++)
        cr_assert_geq (device ().first + bad[k] - runs[i].first, runs[i].n, "a bad slot");
    drum_free (drum, NULL, 0, &(struct drum_return){ .nmove = n }); /* they are no moves */
  }
}

/* A device that takes nothing is found failing in a bounded number of probes, and that is said once. */
Test (medic, all_is_bad)
{
  break_slots (FAULTY_WRITE, FIRST, NSLOTS, EIO);
  fail_run (-EIO);
  start ();
  wait_for (&treated);
  wait_for (&failed);
  cr_assert_leq (faulty_nacted (), 64);
  cr_assert (device ().state == DEVICE_FAILING);
  cr_assert_eq (logged_count ("is failing: too many of its slots are bad"), 1, "%s",
                logged_last ());
  cr_assert_eq (drum_nfree (drum), 0);
  drum_assert_adds_up (drum);
}

/* Where not even the label can be written it is the device that fails, and no slot is called bad. */
Test (medic, the_label_fails)
{
  uint32_t bad = FIRST + 9;

  break_slots (FAULTY_WRITE, bad, 1, EIO);
  break_slots (FAULTY_WRITE, 1, 1, EIO);
  fail_run (-EIO);
  start ();
  wait_for (&treated);
  wait_for (&failed);
  cr_assert_eq (swapdev_nbad (device ().swapdev), 0);
  cr_assert_eq (device ().nsuspect, 1);
  cr_assert (device ().state == DEVICE_FAILING);
  cr_assert_eq (logged_count ("is failing: its label can't be written"), 1, "%s", logged_last ());
}

/* With a full table, one more bad slot makes the device a failing one; the slot is nobody's. */
Test (medic, the_table_is_full)
{
  struct swapdev *dev = device ().swapdev;

  for (uint32_t i = 0; i < LABEL_MAX_BAD; i++) {
    struct slot_run run = { drum_take (drum, 1), 1 };

    drum_slots_failed (drum, &run, 1, NULL, -EIO);
    cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
    cr_assert_eq (drum_suspect_bad (drum, dev, run.first), 0);
    __real_drum_suspect_end (drum, dev);
  }
  cr_assert_eq (device ().nslots, NSLOTS - LABEL_MAX_BAD);
  break_slots (FAULTY_WRITE, FIRST, NSLOTS, EIO);
  drum_slots_failed (drum, &(struct slot_run){ drum_take (drum, 1), 1 }, 1, NULL, -EIO);
  start ();
  wait_for (&treated);
  wait_for (&failed);
  cr_assert (device ().state == DEVICE_FAILING);
  cr_assert_eq (device ().nsuspect, 1);
  cr_assert_eq (logged_count ("is failing: its table of bad slots is full"), 1, "%s",
                logged_last ());
}

/* A full file: not bad, but out of use for a while; then looked at, and again if it still is; then given back. */
Test (medic, no_space_for_a_while)
{
  struct swapdev *dev;
  struct slot_run run;

  break_slots (FAULTY_WRITE, FIRST, NSLOTS, ENOSPC);
  fail_run (-ENOSPC);
  cr_assert_eq (drum_nfree (drum), NSLOTS - RUN);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), -ETIMEDOUT, "now would be too early");
  later_ns += UINT64_C (40000000000);
  start ();
  wait_for (&treated);
  stop ();
  cr_assert_eq (faulty_nacted (), 1);
  cr_assert_eq (device ().nsuspect, RUN);
  cr_assert_eq (swapdev_nbad (device ().swapdev), 0);
  cr_assert (device ().state == DEVICE_OPEN);
  drum_assert_adds_up (drum);
}

/* It gives back what a full file has room for again. */
Test (medic, space_again)
{
  fail_run (-ENOSPC);
  later_ns += UINT64_C (40000000000);
  start ();
  wait_for (&treated);
  assert_bad (NULL, 0);
}

/* While a device is looked at it does not go; the removal is to be tried again. */
Test (medic, a_device_that_is_looked_at_stays)
{
  struct swapdev *dev;
  struct slot_run run;

  drum_add_file (drum, "b", 0, NSLOTS);
  fail_run (-EIO);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
  cr_assert_eq (drum_remove (drum, dev), -EAGAIN);
  drum_suspect_later (drum, dev, run, 0);
  __real_drum_suspect_end (drum, dev);
  cr_assert_eq (drum_remove (drum, dev), 0, "suspect slots are nobody's");
  swapdev_close (dev);
}

/* Who is dismissed goes, whatever is sick; the next one finds it. */
Test (medic, dismissed)
{
  struct swapdev *dev;
  struct slot_run run;

  fail_run (-EIO);
  drum_dismiss (drum);
  cr_assert_eq (drum_next_sick (drum, 10000, &dev, &run), -ECANCELED);
  start ();
  wait_for (&treated);
  assert_bad (NULL, 0);
}
