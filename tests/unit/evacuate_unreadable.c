/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate_unreadable.c - tests of lib/evacuate.c: pages that can't be read, and those that are given up.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "lib/drum-health.h"
#include "tests/scratch.h"

#include "evacuating.h"
#include "logged.h"

TestSuite (evacuate_unreadable, .init = evacuating_setup, .fini = evacuating_teardown,
           .timeout = 60);

/* Three pages are spoiled: the others move, the device stays, closed. */
static void
fail_to_remove_three (void)
{
  static const unsigned spoiled[] = { 3, 17, 20 };
  struct job_info info;

  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  for (unsigned i = 0; i < 3; i++) {
    spoil (spoiled[i]);
    pages.sequence[spoiled[i]] = STAMPED_EIO;
  }
  info = remove_device ("a", false);
  assert_job (info, JOB_FAILED, "3 pages on it can't be read: it stays, closed");
  assert_unreadable (info, spoiled, 3);
  cr_assert_eq (info.nlost, 0);
  cr_assert_eq (info.done_bytes, 57 * PAGE_BYTES);
  drum_assert_state (drum, "a", DEVICE_CLOSED);
  cr_assert_eq (drum_nused_on (drum, "a"), 3);
  stamped_assert_whole (&pages, drum);
}

/* Pages that can't be read stay where they are, on a closed device, with all others moved off; it can be opened again. */
Test (evacuate_unreadable, unreadable_pages_stay)
{
  make_a_and_b (true);
  fail_to_remove_three ();
  cr_assert_eq (stamped_write (&pages, 100, 10), 0);
  cr_assert_eq (drum_nused_on (drum, "a"), 3, "a closed device is used");
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), 0);
  cr_assert_eq (stamped_write (&pages, 110, 10), 0);
  cr_assert_eq (drum_nused_on (drum, "a"), 13);
  stamped_assert_whole (&pages, drum);
}

/* What is written again or trimmed is unreadable no more; when that was all, the device can leave. */
Test (evacuate_unreadable, unreadable_pages_are_replaced)
{
  make_a_and_b (true);
  fail_to_remove_three ();
  cr_assert_eq (stamped_write (&pages, 3, 1), 0);
  stamped_trim (&pages, 17, 1);
  cr_assert_eq (drum_nused_on (drum, "a"), 1);
  assert_unreadable (remove_device ("a", false), (unsigned[]){ 20 }, 1);
  cr_assert_eq (stamped_write (&pages, 15, 10), 0);
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  drum_assert_gone (drum, "a");
  stamped_assert_whole (&pages, drum);
}

/* With force they are lost: EIO until written as a whole or trimmed, never zeroes; and a lost page does not move. */
Test (evacuate_unreadable, force_gives_them_up)
{
  struct job_info info;
  char part[100];

  make_a_and_b (true);
  fail_to_remove_three ();
  info = remove_device ("a", true);
  assert_job (info, JOB_DONE, NULL);
  assert_unreadable (info, (unsigned[]){ 3, 17, 20 }, 3);
  cr_assert_eq (info.nlost, 3);
  drum_assert_gone (drum, "a");
  cr_assert_eq (export_npages_used (export), 57);
  stamped_assert_whole (&pages, drum);
  cr_assert_eq (export_read (export, part, sizeof part, 3 * PAGE_BYTES + 5), -EIO);
  cr_assert_eq (export_write (export, part, sizeof part, 3 * PAGE_BYTES), -EIO);
  cr_assert_eq (export_zero (export, sizeof part, 3 * PAGE_BYTES, false), -EIO);

  drum_add_file (drum, "c", 9, A_SLOTS);
  info = remove_device ("b", true);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  stamped_assert_whole (&pages, drum);

  cr_assert_eq (stamped_write (&pages, 3, 1), 0);
  stamped_trim (&pages, 17, 1);
  cr_assert_eq (export_zero (export, PAGE_BYTES, 20 * PAGE_BYTES, false), 0);
  pages.sequence[20] = 0;
  stamped_assert_whole (&pages, drum);
}

/* Force loses nothing that can be read, and says nothing of it. */
Test (evacuate_unreadable, force_without_need)
{
  struct job_info info;

  make_with_90_pages (true);
  info = remove_device ("a", true);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  stamped_assert_whole (&pages, drum);
}

/* Reads that fail are the same, also without checksums: all are counted, the first listed; when the device is well again
 * nothing is lost. */
Test (evacuate_unreadable, failed_reads)
{
  enum { NBAD = 40 };
  unsigned bad[NBAD];
  struct job_info info;

  make_a_and_b (false);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  for (unsigned i = 0; i < NBAD; i++)
    bad[i] = i;
  atomic_store (&hook.unreadable_bytes, NBAD * PAGE_BYTES);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("a")), 1), 0);
  info = remove_device ("a", false);
  assert_job (info, JOB_FAILED, "40 pages on it can't be read");
  assert_unreadable (info, bad, NBAD);
  cr_assert_eq (drum_nused_on (drum, "a"), NBAD);
  drum_assert_state (drum, "a", DEVICE_CLOSED);
  atomic_store (&hook.unreadable_bytes, 0);
  stamped_assert_whole (&pages, drum);
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  stamped_assert_whole (&pages, drum);
}

static void
heal_at_the_end (void)
{
  if (hook.npieces == 2)
    atomic_store (&hook.unreadable_bytes, 0);
}

/* What could not be read is tried once more at least before it is given up. */
Test (evacuate_unreadable, failed_reads_are_tried_again)
{
  struct job_info info;

  make_a_and_b (true);
  cr_assert_eq (stamped_write (&pages, 0, 48), 0);
  atomic_store (&hook.unreadable_bytes, 16 * PAGE_BYTES);
  hook.after_piece = heal_at_the_end;
  info = remove_device ("a", false);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  stamped_assert_whole (&pages, drum);
}

/* Cancelled while pages are given up: those that are lost are counted. */
Test (evacuate_unreadable, lost_pages_are_counted_when_cancelled)
{
  static const unsigned spoiled[] = { 3, 40 };
  struct job_info info;

  make_a_and_b (true);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  for (unsigned i = 0; i < 2; i++)
    spoil (spoiled[i]);
  cancel_after (5, 1); /* four pieces move what can be read, the fifth loses page 3 */
  info = remove_device ("a", true);
  assert_job (info, JOB_CANCELLED, NULL);
  cr_assert_eq (drum_nused_on (drum, "a"), 1);
  cr_assert_eq (info.nlost, 1);
  cr_assert_eq (info.nunreadable, 1);
  pages.sequence[3] = pages.sequence[40] = STAMPED_EIO;
  drum_assert_state (drum, "a", DEVICE_OPEN);
  stamped_assert_whole (&pages, drum);
}

/* What can't be read stays where it is, and is said, once, though pieces are tried again and smaller; the job is done all the
 * same. */
Test (evacuate_unreadable, unreadable_pages_do_not_rise)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "a", 0, 100);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  spoil (20);
  pages.sequence[20] = STAMPED_EIO;
  drum_add_file (drum, "high", 7, 200);
  hook.alloc_max = 2;
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  assert_unreadable (info, (unsigned[]){ 20 }, 1);
  cr_assert_eq (info.nlost, 0);
  cr_assert_eq (drum_nused_on (drum, "high"), 59);
  drum_assert_state (drum, "a", DEVICE_OPEN);
  stamped_assert_whole (&pages, drum);
}

static int
failing_main (struct job *job, void *dev)
{
  struct evacuation ev = { drum, exports, NULL };

  return evacuate_failing (job, &ev, dev);
}

/* A failing device that empties itself gives nothing up: what it can't give back now may be read later. */
Test (evacuate_unreadable, a_failing_device_keeps_them)
{
  struct job_info info;
  struct drum_device_info a;
  struct swapdev *dev;
  struct slot_run run;
  uint64_t id;

  make_a_and_b (true);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  cr_assert (drum_find_file (drum, "a", &a));
  drum_fail_device (drum, a.swapdev, "a test says so");
  do
    cr_assert_eq (drum_next_sick (drum, 10000, &dev, &run), 0);
  while (run.n > 0);
  cr_assert_eq (dev, a.swapdev);
  hook.unreadable_bytes = 5 * PAGE_BYTES;
  cr_assert_eq (jobs_start (jobs, JOB_EVACUATE, swapdev_path (dev), 0, failing_main, dev, &id), 0);
  info = finish (id);
  assert_job (info, JOB_DONE, NULL);
  assert_unreadable (info, (unsigned[]){ 0, 1, 2, 3, 4 }, 5);
  cr_assert_eq (info.nlost, 0);
  drum_assert_state (drum, "a", DEVICE_FAILED);
  cr_assert_eq (drum_nused_on (drum, "a"), 5);
  hook.unreadable_bytes = 0;
  stamped_assert_whole (&pages, drum);
}
