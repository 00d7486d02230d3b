/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate.c - tests of lib/evacuate.c: devices that leave, with all that is on them, and pages that rise.
 *
 * evacuate_clients.c has clients meanwhile, and evacuate_threads.c has them in threads; evacuate_unreadable.c has pages that
 * can't be read, and evacuate_faults.c makes each call fail in turn.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <sched.h>
#include <stdlib.h>

#include "tests/scratch.h"

#include "evacuating.h"
#include "logged.h"

TestSuite (evacuate, .init = evacuating_setup, .fini = evacuating_teardown, .timeout = 60);

/* ---- it leaves ---- */

static void
everything_moves (bool checksum)
{
  struct drum_device_info a;
  struct job_info info;

  make_with_90_pages (checksum);
  cr_assert (drum_find_file (drum, "a", &a));
  info = remove_device ("a", false);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.total_bytes, 90 * PAGE_BYTES);
  cr_assert_eq (info.done_bytes, 90 * PAGE_BYTES);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  drum_assert_gone (drum, "a");
  cr_assert_eq (drum_nused_on (drum, "b"), 90);
  stamped_assert_whole (&pages, drum);
  cr_assert_eq (drum_add_file (drum, "c", 9, A_SLOTS), a.first + SWAPDEV_NRESERVED,
                "its range is not given again");
  cr_assert_eq (stamped_write (&pages, 300, 50), 0);
  cr_assert_eq (drum_nused_on (drum, "c"), 50);
  stamped_assert_whole (&pages, drum);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* Every page moves, the device is gone, and its range can be used again. */
Test (evacuate, everything_moves)
{
  everything_moves (true);
}

/* The same without checksums. */
Test (evacuate, everything_moves_without_checksums)
{
  everything_moves (false);
}

/* The file of a device that left is closed: it can be added again at once. */
Test (evacuate, the_file_is_let_go)
{
  make_with_90_pages (true);
  for (unsigned i = 0; i < 3; i++) {
    assert_job (remove_device ("a", false), JOB_DONE, NULL);
    drum_add_file (drum, "a", 5, A_SLOTS);
    assert_job (rebalance (), JOB_DONE, NULL);
    cr_assert_eq (drum_nused_on (drum, "a"), 90);
  }
  stamped_assert_whole (&pages, drum);
}

/* An empty device leaves without a pass. */
Test (evacuate, an_empty_device_leaves)
{
  make_a_and_b (true);
  assert_job (remove_device ("b", false), JOB_DONE, NULL);
  drum_assert_gone (drum, "b");
  cr_assert_eq (hook.npieces, 0);
}

/* Two that leave at once, onto a third. */
Test (evacuate, two_at_once)
{
  uint64_t a, b;

  make (true);
  drum_add_file (drum, "a", 5, A_SLOTS);
  drum_add_file (drum, "b", 5, A_SLOTS);
  drum_add_file (drum, "c", 0, B_SLOTS);
  cr_assert_eq (stamped_write (&pages, 0, 180), 0);
  a = start_removing ("a", false);
  b = start_removing ("b", false);
  assert_job (finish (a), JOB_DONE, NULL);
  assert_job (finish (b), JOB_DONE, NULL);
  cr_assert_eq (drum_nused_on (drum, "c"), 180);
  stamped_assert_whole (&pages, drum);
}

/* Many exports are walked one after the other. */
Test (evacuate, two_exports)
{
  static struct stamped other;
  struct export_config config = { .name = "f", .size_bytes = 50 * PAGE_BYTES, .checksum = true };
  struct export *second;
  struct order *order = malloc (sizeof *order);
  uint64_t id;

  make_a_and_b (true);
  cr_assert_eq (export_create (drum, &config, &second), 0);
  cr_assert_eq (exports_add (exports, second), 0);
  stamped_init (&other, second);
  cr_assert_eq (stamped_write (&pages, 0, 40), 0);
  cr_assert_eq (stamped_write (&other, 0, 50), 0);
  *order = (struct order){ .ev = { drum, exports, NULL } };
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &order->dev), 0);
  cr_assert_eq (jobs_start (jobs, JOB_REMOVE, "a", 0, order_main, order, &id), 0);
  assert_job (finish (id), JOB_DONE, NULL);
  stamped_assert (&pages);
  stamped_assert (&other);
  cr_assert_eq (drum_nused_on (drum, "b"), 90);
}

static void
refuse_after_two (void)
{
  hook.refuse_next = hook.npieces == 2;
}

/* A piece that finds no room for all is tried smaller; the next ones grow again, by a page each. */
Test (evacuate, pieces_grow_again)
{
  unsigned whole;

  make_with_90_pages (true);
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  whole = hook.npieces;
  drum_add_file (drum, "a", 5, A_SLOTS);
  assert_job (rebalance (), JOB_DONE, NULL);
  hook.npieces = 0;
  hook.after_piece = refuse_after_two;
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  cr_assert (hook.npieces > whole && hook.npieces <= whole + 3, "%u pieces, not %u and some",
             hook.npieces, whole);
}

/* A rate holds from the first piece on: pieces get smaller, and a cancelled job does not wait for the next. */
Test (evacuate, slow_jobs_can_be_cancelled)
{
  struct drum_device_info a;
  uint64_t id;

  make_with_90_pages (true);
  cr_assert (drum_find_file (drum, "a", &a));
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &a.swapdev), 0);
  id = start (a.swapdev, false, 1);
  while (drum_nused_on (drum, "a") == 90)
    sched_yield ();
  cr_assert_eq (jobs_cancel (jobs, id), 0);
  assert_job (finish (id), JOB_CANCELLED, NULL);
  cr_assert_eq (drum_nused_on (drum, "a"), 89);
  drum_assert_state (drum, "a", DEVICE_OPEN);
}

/* ---- cancelled ---- */

/* Cancelled after any piece, the device is open, and everything is whole; the next remove goes on from there. */
Test (evacuate, cancelled_after_any_piece)
{
  unsigned n;

  make_with_90_pages (true);
  for (n = 1;; n++) {
    struct job_info info;

    hook.npieces = 0;
    cancel_after (n, 2 * n - 1); /* the others rebalance */
    info = remove_device ("a", false);
    if (info.state == JOB_DONE)
      break;
    assert_job (info, JOB_CANCELLED, NULL);
    cr_assert_eq (hook.npieces, n);
    cr_assert_eq (info.total_bytes, 90 * PAGE_BYTES);
    cr_assert_eq (info.done_bytes, (90 - drum_nused_on (drum, "a")) * PAGE_BYTES);
    drum_assert_state (drum, "a", DEVICE_OPEN);
    stamped_assert_whole (&pages, drum);
    assert_job (rebalance (), JOB_DONE, NULL);
    cr_assert_eq (drum_nused_on (drum, "a"), 90);
  }
  cr_assert_gt (n, 5);
  stamped_assert_whole (&pages, drum);
}

/* ---- upwards ---- */

/* One device of priority 0, with the first npages of the export on it. */
static void
make_with_pages (const char *name, uint32_t nslots, unsigned npages)
{
  make (true);
  drum_add_file (drum, name, 0, nslots);
  cr_assert_eq (stamped_write (&pages, 0, npages), 0);
}

/* Pages rise into the room above, as many as fit; then it is done. Equals and what is higher stay. */
Test (evacuate, rises_into_the_room_above)
{
  struct job_info info;

  make_with_pages ("low", 200, 150);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.done_bytes + info.total_bytes, 0, "there is nothing above");
  drum_add_file (drum, "high", 7, 50);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.done_bytes, 50 * PAGE_BYTES);
  cr_assert_eq (info.total_bytes, 50 * PAGE_BYTES);
  cr_assert_eq (drum_nused_on (drum, "high"), 50);
  cr_assert_eq (drum_nused_on (drum, "low"), 100);
  stamped_assert_whole (&pages, drum);
  drum_add_file (drum, "equal", 0, 300);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.done_bytes, 0);
  cr_assert_eq (drum_nused_on (drum, "equal"), 0);
}

/* The lowest rise first, to wherever there is room, and then those above them. */
Test (evacuate, rises_by_steps)
{
  struct job_info info;

  make_with_pages ("low", 100, 60);
  drum_add_file (drum, "middle", 3, 50);
  cr_assert_eq (stamped_write (&pages, 100, 40), 0);
  drum_add_file (drum, "high", 7, 90);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (drum_nused_on (drum, "low"), 0);
  cr_assert_eq (drum_nused_on (drum, "high"), 90);
  cr_assert_eq (drum_nused_on (drum, "middle"), 10);
  cr_assert_eq (info.done_bytes, info.total_bytes);
  stamped_assert_whole (&pages, drum);
}

static struct job_info
rebalance_one_piece (void)
{
  hook.npieces = 0;
  cancel_after (1, 1);
  return rebalance ();
}

/* Cancelled, it stops where it is; what it would have moved is said from the begin. */
Test (evacuate, rising_is_cancelled)
{
  struct job_info info;

  make_with_pages ("low", 100, 60);
  drum_add_file (drum, "high", 7, 50);
  info = rebalance_one_piece ();
  assert_job (info, JOB_CANCELLED, NULL);
  cr_assert_eq (info.done_bytes, EVACUATE_PIECE * PAGE_BYTES);
  cr_assert_eq (info.total_bytes, 50 * PAGE_BYTES);
  cr_assert_eq (drum_nused_on (drum, "high"), EVACUATE_PIECE);
  stamped_assert_whole (&pages, drum);
}

/* Room on equals is no room to rise into, and pages of closed devices do not rise. */
Test (evacuate, what_can_rise)
{
  struct job_info info;

  make_with_pages ("low", 100, 60);
  drum_add_file (drum, "equal", 0, 200);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("low")), 0), 0); /* behind it */
  drum_add_file (drum, "lowest", -1, 200);
  drum_add_file (drum, "high", 7, 20);
  info = rebalance_one_piece ();
  cr_assert_eq (info.total_bytes, 20 * PAGE_BYTES, "%u", (unsigned) info.total_bytes / PAGE_BYTES);
}

Test (evacuate, closed_devices_do_not_rise)
{
  struct swapdev *dev;
  struct job_info info;

  make_with_pages ("closed", 100, 30);
  drum_add_file (drum, "low", 1, 100);
  cr_assert_eq (stamped_write (&pages, 30, 30), 0);
  drum_add_file (drum, "high", 7, 200);
  drum_add_file (drum, "higher", 8, 200);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("closed")), &dev), 0);
  drum_end_closing (drum, dev, true);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("higher")), &dev), 0);
  info = rebalance_one_piece ();
  cr_assert_eq (info.total_bytes, 30 * PAGE_BYTES, "%u", (unsigned) info.total_bytes / PAGE_BYTES);
  hook.after_piece = NULL;
  assert_job (rebalance (), JOB_DONE, NULL);
  cr_assert_eq (drum_nused_on (drum, "closed"), 30);
  cr_assert_eq (drum_nused_on (drum, "higher"), 0);
  cr_assert_eq (drum_nused_on (drum, "high"), 30);
  stamped_assert_whole (&pages, drum);
}
