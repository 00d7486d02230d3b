/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum_devices.c - tests of lib/drum-devices.c: devices that are closed, opened again, looked at and ranked anew.
 *
 * drum.c has those that come and go; drum_model.c compares both with a model.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum {
  NSLOTS = 128
}; /* of each device; two are kept back of one, four of two, 16 are the low-water mark of one */

static struct drum *drum;
static struct swapdev *dev_a, *dev_b;
static uint32_t a, b; /* their first usable slots */
static struct slot_run runs[DRUM_BATCH];
static unsigned nruns;

/* Devices a and b, of one slot a stripe. */
static void
setup (void)
{
  struct drum_device_info devices[2];

  scratch_setup ();
  logged_start ();
  drum = drum_make (1);
  a = drum_add_file (drum, "a", 5, NSLOTS);
  b = drum_add_file (drum, "b", 5, NSLOTS);
  drum_devices (drum, devices, 2);
  dev_a = devices[0].swapdev;
  dev_b = devices[1].swapdev;
}

static void
teardown (void)
{
  cr_assert (drum_check (drum));
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (drum_devices, .init = setup, .fini = teardown, .timeout = 60);

static int
close_device (const char *name)
{
  struct swapdev *dev;

  return drum_close_device (drum, place_of (scratch_path (name)), &dev);
}

static void
assert_state (struct swapdev *dev, enum drum_device_state state)
{
  struct drum_device_info info;

  cr_assert (drum_device (drum, dev, &info));
  cr_assert (info.state == state, "%s is %d", swapdev_path (dev), info.state);
}

static void
assert_usage (uint64_t nslots, uint64_t nfree)
{
  struct drum_usage usage;

  drum_usage (drum, &usage);
  cr_assert (usage.nslots == nslots && usage.nfree == nfree, "%u of %u are free",
             (unsigned) usage.nfree, (unsigned) usage.nslots);
  cr_assert_eq (usage.nkept, room_nkept (nslots));
}

static bool
is_on (uint32_t slot, uint32_t first)
{
  return slot >= first && slot < first + NSLOTS;
}

/* A closed device gets no slots and counts for nothing; what is freed on it is room only once it is open again. */
Test (drum_devices, a_closed_device_is_passed_over)
{
  struct swapdev *dev = NULL;

  drum_take_any (drum, 20); /* by turns: 10 on each */
  cr_assert (drum_slot_returns (drum, a));
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), 0);
  cr_assert_eq (dev, dev_a);
  assert_state (dev_a, DEVICE_CLOSING);
  assert_usage (NSLOTS, NSLOTS - 10);
  cr_assert_not (drum_slot_returns (drum, a));
  cr_assert (drum_slot_returns (drum, b));
  cr_assert_eq (drum_take (drum, 50), b + 10);
  drum_give (drum, a, 4);
  assert_usage (NSLOTS, NSLOTS - 60);
  drum_end_closing (drum, dev_a, true);
  assert_state (dev_a, DEVICE_CLOSED);
  assert_usage (NSLOTS, NSLOTS - 60);
  cr_assert_not (drum_slot_returns (drum, a + 4));
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), 0);
  assert_state (dev_a, DEVICE_OPEN);
  assert_usage (2 * NSLOTS, 2 * NSLOTS - 66);
  cr_assert (drum_slot_returns (drum, a + 4));
  cr_assert_eq (drum_take_runs (drum, 2, 0, runs, &nruns), 0);
  cr_assert (is_on (runs[0].first, a) && is_on (runs[1].first, b), "they take turns again");
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* A slot on no device does not come back. */
Test (drum_devices, guards_do_not_return)
{
  cr_assert_eq (close_device ("a"), 0);
  cr_assert_not (drum_slot_returns (drum, a + NSLOTS));
  cr_assert_not (drum_slot_returns (drum, 0));
}

/* Closing says what is wrong: no such device, closed already, no room; and then changes nothing. */
Test (drum_devices, close_is_refused)
{
  struct swapdev *dev = NULL;

  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("c")), &dev), -ENOENT);
  assert_logged_error ("/c: is no device");
  cr_assert_eq (drum_close_device (drum, place_of (""), &dev), -ENOENT);
  assert_logged_error ("is no device");
  cr_assert_eq (close_device ("b"), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("b")), &dev), -EBUSY);
  assert_logged_error ("/b: its pages are being moved off already");
  drum_end_closing (drum, dev_b, false);
  drum_take_any (drum, 112); /* 56 on each */
  cr_assert_eq (logged_count (""), 0);
  drum_give (drum, b, 1);
  drum_give (drum, a, 1);
  cr_assert_eq (close_device ("a"), 0, "55 fit into 73 less 2 and 16");
  drum_end_closing (drum, dev_a, false);
  drum_take_any (drum, 2);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), -ENOSPC,
                "56 do not fit into 72 less 2 and 16");
  assert_logged_error ("/a: holds 224K, and the other devices have room for 216K");
  cr_assert_null (dev, "output changed on failure");
  assert_state (dev_a, DEVICE_OPEN);
}

/* A device can be named by any path of its file. */
Test (drum_devices, by_another_path)
{
  struct swapdev *dev;

  cr_assert_eq (symlink (scratch_path ("a"), scratch_path ("link")), 0);
  cr_assert_eq (link (scratch_path ("b"), scratch_path ("hard")), 0);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("link")), &dev), 0);
  cr_assert_eq (dev, dev_a);
  drum_end_closing (drum, dev_a, true);
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("./link"))), 0);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("hard")), 7), 0);
  cr_assert_eq (drum_take (drum, 1), b);
}

/* Only a closed device can be opened again, and only one that is closing ends it. */
Test (drum_devices, reopen_is_refused)
{
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), -EBUSY);
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("c"))), -ENOENT);
  drum_end_closing (drum, dev_a, true);
  assert_state (dev_a, DEVICE_OPEN);
  cr_assert_eq (close_device ("a"), 0);
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), -EBUSY);
  drum_end_closing (drum, dev_a, true);
  drum_end_closing (drum, dev_a, false);
  assert_state (dev_a, DEVICE_CLOSED);
  cr_assert_eq (close_device ("a"), 0, "a closed device can be tried again");
  assert_state (dev_a, DEVICE_CLOSING);
}

/* Fill b, and what is free on it but its kept slots, while a is closing with n used slots. */
static void
fill_while_a_closes (uint32_t n)
{
  drum_take_any (drum, 2 * n);
  cr_assert_eq (close_device ("a"), 0);
  drum_take_any (drum, NSLOTS - n - 2);
  logged_start ();
}

/* A page that finds no room opens what is closing; many pages are to try as fewer first. */
Test (drum_devices, a_page_without_room_opens_them)
{
  fill_while_a_closes (10);
  cr_assert_eq (drum_take_runs (drum, 2, 0, runs, &nruns), -ENOSPC);
  assert_state (dev_a, DEVICE_CLOSING);
  cr_assert_eq (
    drum_alloc_above (drum, 4, &(struct drum_demand){ .nnew = 1, .nmove = 0 }, runs, &nruns),
    -ENOSPC);
  assert_state (dev_a, DEVICE_CLOSING);
  cr_assert_eq (drum_take_runs (drum, 1, 0, runs, &nruns), 0);
  cr_assert (is_on (runs[0].first, a));
  assert_state (dev_a, DEVICE_OPEN);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* Until its remover has noticed, it can't be removed again: two would move the same pages, and one close the device under the
 * other. */
Test (drum_devices, one_remover_at_a_time)
{
  fill_while_a_closes (10);
  drum_take (drum, 1);
  assert_state (dev_a, DEVICE_OPEN);
  drum_give (drum, b, NSLOTS - 2);
  logged_start ();
  cr_assert_eq (close_device ("a"), -EBUSY);
  assert_logged_error ("its pages are being moved off already");
  drum_end_closing (drum, dev_a, true);
  assert_state (dev_a, DEVICE_OPEN);
  cr_assert_eq (close_device ("a"), 0);
}

/* A page opens all that are closing, but none that is closed: its I/O fails. */
Test (drum_devices, closed_ones_stay_closed)
{
  struct drum_device_info devices[3];
  struct swapdev *dev_c;

  drum_add_file (drum, "c", 0, NSLOTS);
  drum_devices (drum, devices, 3);
  dev_c = devices[2].swapdev;
  fill_while_a_closes (0);
  cr_assert_eq (close_device ("c"), 0);
  drum_end_closing (drum, dev_c, true);
  cr_assert_eq (drum_take_runs (drum, 1, 0, runs, &nruns), 0);
  assert_state (dev_a, DEVICE_OPEN);
  assert_state (dev_c, DEVICE_CLOSED);
  drum_take_any (drum, NSLOTS - 3);
  cr_assert_eq (drum_take_runs (drum, 1, 0, runs, &nruns), -ENOSPC);
  assert_state (dev_c, DEVICE_CLOSED);
  drum_end_closing (drum, dev_a, false);
}

static sem_t waits;

int __real_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex);

int
__wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex)
{
  sem_post (&waits); /* with the mutex held: who takes it next finds us waiting */
  return __real_pthread_cond_wait (cond, mutex);
}

static void *
take_one (void *arg)
{
  struct slot_run run;
  unsigned n;

  *(int *) arg = drum_take_runs (drum, 0, 1, &run, &n);
  return NULL;
}

/* A page that waits for a move gets its slot from a device that opens, too. */
Test (drum_devices, a_page_waits_for_an_opened_device)
{
  pthread_t thread;
  int ret = 77;

  fill_while_a_closes (0);
  cr_assert_eq (drum_take_runs (drum, 0, 2, runs, &nruns), 0);
  cr_assert_eq (drum_nfree (drum), 0);
  sem_init (&waits, 0, 0);
  cr_assert_eq (pthread_create (&thread, NULL, take_one, &ret), 0);
  sem_wait (&waits);
  drum_end_closing (drum, dev_a, false);
  pthread_join (thread, NULL);
  cr_assert_eq (ret, 0);
}

/* An empty device leaves whatever its state; one with used slots does not. */
Test (drum_devices, closed_devices_leave)
{
  drum_take_any (drum, 2);
  cr_assert_eq (close_device ("a"), 0);
  cr_assert_eq (drum_remove (drum, dev_a), -EBUSY);
  drum_give (drum, a, 1);
  cr_assert_eq (drum_remove (drum, dev_a), 0);
  assert_usage (NSLOTS, NSLOTS - 1);
  cr_assert_eq (drum_add_file (drum, "c", 5, NSLOTS), a, "its range is given again");
  drum_take_any (drum, 1);
  cr_assert_eq (close_device ("c"), 0);
  drum_end_closing (drum, dev_a, false); /* of a device that is gone: nothing happens */
  swapdev_close (dev_a);
}

/* A new priority counts from the next slot on; a device goes behind its new equals. */
Test (drum_devices, priority)
{
  struct drum_device_info devices[2];

  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("b")), 6), 0);
  cr_assert_eq (drum_take (drum, 3), b);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("b")), SWAP_PRIO_MIN), 0);
  cr_assert_eq (drum_take (drum, 3), a);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("a")), SWAP_PRIO_MIN), 0);
  drum_devices (drum, devices, 2);
  cr_assert_eq (devices[0].swapdev, dev_b);
  cr_assert_eq (devices[0].prio, SWAP_PRIO_MIN);
  cr_assert_eq (drum_take (drum, 1), b + 3);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("c")), 1), -ENOENT);
  assert_logged_error ("/c: is no device");
}

/* How many requests at once: no limit, unless it is set. */
Test (drum_devices, maxio)
{
  cr_assert_eq (swapdev_maxio (dev_a), 0);
  cr_assert_eq (drum_set_maxio (drum, place_of (scratch_path ("a")), 5), 0);
  cr_assert_eq (swapdev_maxio (dev_a), 5);
  cr_assert_eq (swapdev_maxio (dev_b), 0);
  cr_assert_eq (drum_set_maxio (drum, place_of (scratch_path ("c")), 1), -ENOENT);
  assert_logged_error ("/c: is no device");
}

/* A closed device can have a new priority; it stays closed. */
Test (drum_devices, priority_of_a_closed_device)
{
  cr_assert_eq (close_device ("a"), 0);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("a")), 7), 0);
  cr_assert_eq (drum_take (drum, 3), b);
  drum_end_closing (drum, dev_a, false);
  cr_assert_eq (drum_take (drum, 3), a);
}

/* Above: never on equals, and whole or not at all; a move may take what is kept back. */
Test (drum_devices, alloc_above)
{
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("b")), 6), 0);
  nruns = 77;
  cr_assert_eq (
    drum_alloc_above (drum, 6, &(struct drum_demand){ .nnew = 0, .nmove = 1 }, runs, &nruns),
    -ENOSPC);
  cr_assert_eq (nruns, 77, "output changed on failure");
  cr_assert_eq (drum_alloc_above (drum, 5, &(struct drum_demand){ .nnew = 0, .nmove = NSLOTS - 1 },
                                  runs, &nruns),
                0);
  cr_assert_eq (runs[0].first, b);
  cr_assert_eq (
    drum_alloc_above (drum, 5, &(struct drum_demand){ .nnew = 0, .nmove = 2 }, runs, &nruns),
    -ENOSPC);
  cr_assert_eq (
    drum_alloc_above (drum, 5, &(struct drum_demand){ .nnew = 0, .nmove = 1 }, runs, &nruns), 0);
  cr_assert_eq (runs[0].first, b + NSLOTS - 1);
  cr_assert_eq (
    drum_alloc_above (drum, 5, &(struct drum_demand){ .nnew = 0, .nmove = 0 }, runs, &nruns),
    -EINVAL);
  cr_assert_eq (drum_alloc_above (drum, 5, &(struct drum_demand){ .nnew = 1, .nmove = DRUM_BATCH },
                                  runs, &nruns),
                -EINVAL);
  drum_free (drum, &(struct slot_run){ b, NSLOTS }, 1, &(struct drum_return){ .nmove = NSLOTS });
}

/* Free runs are listed from any slot on, no more than asked for, and again behind the last. */
Test (drum_devices, free_runs)
{
  enum { FIRST = SWAPDEV_NRESERVED };
  struct drum_device_info info;
  uint32_t from = 0;

  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("a")), 6), 0);
  drum_take (drum, NSLOTS - 2);
  drum_give (drum, a + 10, 5);
  drum_give (drum, a + 20, 1);
  cr_assert_eq (drum_free_runs (drum, dev_a, &from, runs), 3);
  cr_assert (runs[0].first == FIRST + 10 && runs[0].n == 5);
  cr_assert (runs[1].first == FIRST + 20 && runs[1].n == 1);
  cr_assert_eq (from, FIRST + NSLOTS);
  from = FIRST + 12;
  cr_assert_eq (drum_free_runs (drum, dev_a, &from, runs), 3);
  cr_assert (runs[0].first == FIRST + 12 && runs[0].n == 3, "cut at the begin");
  cr_assert (runs[2].first == FIRST + NSLOTS - 2 && runs[2].n == 2);
  cr_assert_eq (drum_free_runs (drum, dev_a, &from, runs), 0);
  cr_assert (drum_device (drum, dev_a, &info));
  cr_assert_eq (info.nfree, 8);
}

/* At most DRUM_BATCH at once, so that nobody waits long for the lock. */
Test (drum_devices, free_runs_in_batches)
{
  static struct slot_run many[2 * DRUM_BATCH];
  struct drum_device_info devices[3];
  uint32_t c = drum_add_file (drum, "c", 9, 4 * DRUM_BATCH), from = 0;

  drum_take_any (drum, 4 * DRUM_BATCH);
  for (uint32_t i = 0; i < 4 * DRUM_BATCH; i += 2)
    drum_give (drum, c + i, 1);
  drum_devices (drum, devices, 3);
  cr_assert_eq (drum_free_runs (drum, devices[0].swapdev, &from, many), DRUM_BATCH);
  cr_assert_eq (many[DRUM_BATCH].n, 0);
  cr_assert_eq (from, many[DRUM_BATCH - 1].first + 1);
}

/* One device's description; false, and nothing changed, for another drum's. */
Test (drum_devices, describes_one)
{
  struct drum_device_info info = { .prio = 77 };
  struct swapdev *other = device_create ("other", 0, 10);

  cr_assert_not (drum_device (drum, other, &info));
  cr_assert_eq (info.prio, 77);
  swapdev_close (other);
  cr_assert (drum_device (drum, dev_b, &info));
  cr_assert_eq (info.swapdev, dev_b);
  cr_assert_eq (info.prio, 5);
  cr_assert_eq (info.first, b - SWAPDEV_NRESERVED);
  cr_assert_eq (info.end, b + NSLOTS);
  cr_assert_eq (info.nslots, NSLOTS);
  cr_assert_eq (info.nfree, NSLOTS);
}
