/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum_health.c - tests of lib/drum-health.c: what fails is out of use, comes back or does not, and nothing else changes.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "lib/drum-health.h"
#include "lib/export.h"
#include "lib/health.h"
#include "lib/inflight.h"
#include "lib/stats.h"
#include "tests/scratch.h"

#include "devices.h"
#include "faulty.h"
#include "logged.h"
#include "stamped.h"

enum { A_SLOTS = 100, B_SLOTS = 100, FIRST = SWAPDEV_NRESERVED };

static struct drum *drum;
static uint32_t first_a, first_b; /* usable slots */
static uint64_t later_ns;

uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return __real_now_ns () + later_ns;
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  drum = drum_make (4);
  first_a = drum_add_file (drum, "a", 5, A_SLOTS);
  first_b = drum_add_file (drum, "b", 0, B_SLOTS);
}

static void
teardown (void)
{
  drum_assert_adds_up (drum);
  drum_undo (drum);
  scratch_teardown ();
}

TestSuite (drum_health, .init = setup, .fini = teardown, .timeout = 60);

static struct drum_device_info
device (const char *name)
{
  struct drum_device_info info;

  cr_assert (drum_find (drum, scratch_path (name), &info));
  return info;
}

static void
fail_slots (uint32_t first, uint32_t n, int err)
{
  drum_slots_failed (drum, &(struct slot_run){ first, n }, 1, NULL, err);
}

/* Write these slots, which are taken; what the device says. */
static int
write_slots (uint32_t first, uint32_t n)
{
  static char data[16 * PAGE_BYTES];
  struct iovec iov = { data, n * PAGE_BYTES };
  struct drum_io io = { .slot = first, .iov = &iov, .niov = 1 };

  drum_transfer (drum, NULL, true, &io, 1, NULL);
  return io.ret;
}

static int
read_slot (uint32_t slot)
{
  static char data[PAGE_BYTES];
  struct iovec iov = { data, sizeof data };
  struct drum_io io = { .slot = slot, .iov = &iov, .niov = 1 };

  drum_transfer (drum, NULL, false, &io, 1, NULL);
  return io.ret;
}

/* The device's I/O fails so often that it is a failing one. */
static void
make_failing (const char *name, uint32_t slot)
{
  faulty_add (&(struct faulty){ .name = name, .calls = FAULTY_BOTH, .error = EIO });
  for (unsigned i = 0; i < HEALTH_STREAK; i++) {
    cr_assert (device (name).state == DEVICE_OPEN, "after %u errors", i);
    cr_assert_eq (read_slot (slot + i), -EIO);
  }
  cr_assert (device (name).state == DEVICE_FAILING);
  faulty_clear ();
}

/* Who failed is neither used nor free, and its device comes after all others. */
Test (drum_health, suspect)
{
  uint32_t first = drum_take (drum, 4);

  cr_assert_eq (first, first_a);
  fail_slots (first + 1, 2, -EIO);
  cr_assert_eq (device ("a").nsuspect, 2);
  cr_assert_eq (device ("a").nslots, A_SLOTS - 2);
  cr_assert_eq (drum_nused (drum), 2);
  drum_assert_adds_up (drum);
  cr_assert_eq (drum_take (drum, 4), first_b);
  drum_heal (drum);
  cr_assert_eq (device ("a").nsuspect, 0);
  cr_assert_eq (drum_nused (drum), 6);
  drum_scan_inflight (drum, now_ns (), UINT64_MAX);
  cr_assert_lt (drum_take (drum, 1), first_b, "nothing is wrong with it any more");
}

/* While some are looked at the device is still one in trouble. */
Test (drum_health, in_trouble_until_all_is_done)
{
  struct slot_run run;
  struct swapdev *dev;

  fail_slots (drum_take (drum, 1), 1, -EIO);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
  drum_scan_inflight (drum, now_ns (), UINT64_MAX);
  cr_assert_eq (drum_take (drum, 1), first_b);
  drum_suspect_ok (drum, dev, run);
  drum_suspect_end (drum, dev);
}

/* A device in trouble is used where nobody else has room. */
Test (drum_health, the_last_resort)
{
  fail_slots (drum_take (drum, 1), 1, -EIO);
  drum_take_any (drum, B_SLOTS);
  cr_assert_eq (device ("b").nfree, 0);
  cr_assert_eq (device ("a").nfree, A_SLOTS - 1);
  drum_take_any (drum, 10);
}

/* An I/O that is out for more than a second: others first, until it has ended. */
Test (drum_health, slow)
{
  struct swapdev *dev = device ("a").swapdev;
  uint64_t now = now_ns ();
  struct inflight_io *io = inflight_begin (swapdev_inflight (dev), now, true, FIRST, 1);

  drum_scan_inflight (drum, now + 900000000, UINT64_MAX);
  cr_assert_eq (drum_take (drum, 4), first_a);
  drum_scan_inflight (drum, now + 1100000000, UINT64_MAX);
  cr_assert_eq (drum_take (drum, 4), first_b);
  inflight_end (io, 0);
  drum_scan_inflight (drum, now + 1200000000, UINT64_MAX);
  cr_assert_eq (drum_take (drum, 4), first_a + 4);
}

/* A slot whose page could not be read is suspect when it is freed; those around it are free. */
Test (drum_health, quarantine)
{
  uint32_t first = drum_take (drum, 4);
  struct slot_run run;
  struct swapdev *dev;

  drum_read_failed (drum, first + 1, -EIO);
  drum_read_failed (drum, first + 2, -EBADMSG);
  cr_assert_eq (device ("a").nmismatches, 1);
  cr_assert_eq (drum_nused (drum), 4, "the pages keep their slots");
  drum_assert_adds_up (drum);
  drum_give (drum, first, 4);
  cr_assert_eq (device ("a").nsuspect, 2);
  cr_assert_eq (drum_nused (drum), 0);
  cr_assert_eq (drum_nfree (drum), A_SLOTS + B_SLOTS - 2);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
  cr_assert (run.first == FIRST + 1 && run.n == 2, "%u, %u", run.first, run.n);
  drum_suspect_ok (drum, dev, run);
  drum_suspect_end (drum, dev);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), -ETIMEDOUT);
}

/* Of so many pages that can't be read it is the device that fails. */
Test (drum_health, too_many_unreadable)
{
  drum_add_file (drum, "c", 9, 2 * HEALTH_DOOMED);
  drum_take_any (drum, HEALTH_DOOMED + 1);
  for (uint32_t i = 0; i < HEALTH_DOOMED + 1; i++) {
    cr_assert (device ("c").state == DEVICE_OPEN);
    drum_read_failed (drum, device ("c").first + FIRST + i, -EIO);
  }
  cr_assert (device ("c").state == DEVICE_FAILING);
}

/* Where it lies, as the messages have it. */
Test (drum_health, locate)
{
  uint64_t offset = 0;

  cr_assert_str_eq (drum_locate (drum, first_b + 7, &offset), scratch_path ("b"));
  cr_assert_eq (offset, (FIRST + 7) * PAGE_BYTES);
}

/* A failing device gets no slots, and is no room; it is found once, and again only when its time has come. */
Test (drum_health, failing)
{
  struct swapdev *dev;
  struct slot_run run;

  cr_assert_eq (drum_take (drum, 4), first_a);
  make_failing ("a", first_a);
  cr_assert_eq (drum_nfree (drum), B_SLOTS);
  cr_assert_eq (drum_take (drum, 4), first_b);
  cr_assert_eq (drum_nused_anywhere (drum), 8);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
  cr_assert_eq (dev, device ("a").swapdev);
  cr_assert_eq (run.n, 0);
  cr_assert_eq (logged_count ("is failing: Input/output error"), 1, "%s", logged_last ());
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), -ETIMEDOUT, "somebody is at it");
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), -EBUSY);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), -EBUSY);
  drum_end_failing (drum, dev, false);
  cr_assert (device ("a").state == DEVICE_FAILING);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), -ETIMEDOUT);
  later_ns += UINT64_C (31000000000);
  logged_start ();
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
  cr_assert_eq (logged_count (""), 0, "it was said");
  drum_end_failing (drum, dev, true);
  cr_assert (device ("a").state == DEVICE_FAILED);
  later_ns += UINT64_C (31000000000);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), -ETIMEDOUT);
}

/* Somebody who knows better opens it again, failing or failed: it is as it was, and fails again as any other. */
Test (drum_health, opened_again)
{
  struct swapdev *dev;
  struct slot_run run;

  cr_assert_eq (drum_take (drum, 4), first_a);
  for (unsigned i = 0; i < 2; i++) {
    make_failing ("a", first_a);
    if (i == 1) {
      cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), 0);
      drum_end_failing (drum, dev, true);
    }
    cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), 0);
    cr_assert (device ("a").state == DEVICE_OPEN);
    cr_assert_eq (drum_nfree (drum), A_SLOTS + B_SLOTS - 4);
  }
}

/* One that has failed, and is empty, may go whatever the others have left. */
Test (drum_health, a_failed_one_goes)
{
  struct swapdev *dev = device ("a").swapdev;

  cr_assert_eq (drum_take (drum, 4), first_a);
  make_failing ("a", first_a);
  drum_give (drum, first_a, 4);
  while (drum_nfree (drum) > 0) {
    struct slot_run runs[DRUM_BATCH];
    unsigned nruns;

    cr_assert_eq (drum_take_runs (drum, 0, 1, runs, &nruns), 0);
  }
  cr_assert_eq (drum_remove (drum, dev), 0);
  swapdev_close (dev);
}

/* Slots that took no data since there was no space wait for a while; if they are too many runs, they are free instead. */
Test (drum_health, no_space)
{
  uint32_t first = drum_take (drum, 4);
  struct swapdev *dev;
  struct slot_run run;

  fail_slots (first, 4, -ENOSPC);
  cr_assert_eq (drum_next_sick (drum, 0, &dev, &run), -ETIMEDOUT);
  drum_add_file (drum, "c", 9, 4 * HEALTH_RUNS);
  first = device ("c").first + FIRST;
  drum_take_any (drum, 4 * HEALTH_RUNS);
  for (uint32_t i = 0; i < HEALTH_RUNS + 10; i++)
    fail_slots (first + 2 * i, 1, -ENOSPC);
  cr_assert (device ("c").state == DEVICE_OPEN);
  cr_assert_eq (device ("c").nsuspect, HEALTH_RUNS);
  cr_assert_eq (device ("c").nfree, 10);
  drum_assert_adds_up (drum);
  later_ns += UINT64_C (31000000000);
  drum_heal (drum);
  cr_assert_eq (device ("c").nsuspect, 0);
  cr_assert_eq (device ("a").nsuspect, 0);
}

/* Too many runs that took no data: the device is failing. */
Test (drum_health, too_many_suspects)
{
  drum_add_file (drum, "c", 9, 4 * HEALTH_RUNS);
  drum_take_any (drum, 4 * HEALTH_RUNS);
  for (uint32_t i = 0; i < HEALTH_RUNS + 1; i++) {
    cr_assert (device ("c").state == DEVICE_OPEN);
    fail_slots (device ("c").first + FIRST + 2 * i, 1, -EIO);
    drum_assert_adds_up (drum);
  }
  cr_assert (device ("c").state == DEVICE_FAILING);
}

/* Errors in a row count for a device whichever way they go, and a success between forgives them. */
Test (drum_health, a_success_between)
{
  cr_assert_eq (drum_take (drum, 4), first_a);
  faulty_add (&(struct faulty){
    .name = "a", .calls = FAULTY_BOTH, .error = EIO, .first = FIRST, .end = FIRST + 2 });
  for (unsigned i = 0; i < 3 * HEALTH_STREAK; i++) {
    cr_assert_eq (i % 2 ? write_slots (first_a, 1) : read_slot (first_a + 1), -EIO);
    if (i % (HEALTH_STREAK - 1) == 0)
      cr_assert_eq (write_slots (first_a + 2, 2), 0);
  }
  cr_assert (device ("a").state == DEVICE_OPEN);
}

/* On a full drum a rewrite of two pages, of which one finds a bad slot, does not wait for itself to end. */
Test (drum_health, a_retry_does_not_wait_for_its_own)
{
  struct export_config config = { .name = "", .size_bytes = 197 * PAGE_BYTES, .checksum = true };
  struct export *e;
  struct stamped pages;

  cr_assert_eq (export_create (drum, &config, &e), 0);
  stamped_init (&pages, e);
  cr_assert_eq (stamped_write (&pages, 0, 197), 0); /* 200 slots, 3 of them kept back */
  cr_assert_eq (drum_nfree (drum), 3);
  cr_assert_eq (stamped_write (&pages, 0, 1), 0);
  cr_assert_eq (stamped_write (&pages, 100, 1), 0); /* so that those free do not lie together */
  faulty_add (&(struct faulty){ .calls = FAULTY_WRITE, .error = EIO, .count = 1 });
  cr_assert_eq (stamped_write (&pages, 50, 3), 0);
  cr_assert_eq (faulty_nacted (), 1);
  cr_assert_gt (drum_nfree (drum), 0);
  stamped_assert_whole (&pages, drum);
  export_destroy (e);
}
