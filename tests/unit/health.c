/* SPDX-License-Identifier: BSD-3-Clause
 *
 * health.c - tests of lib/health.c: runs of suspect slots, doomed slots, errors one after the other.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

#include "lib/health.h"

enum { LATER_NS = 1000 };

static struct health h;

TestSuite (health, .timeout = 60);

static bool
suspect (uint32_t first, uint32_t n, uint64_t not_before_ns)
{
  return health_suspect (&h, (struct slot_run){ first, n }, not_before_ns);
}

/* The next run is this one; n 0: there is none. */
static void
assert_next (uint64_t now_ns, uint32_t first, uint32_t n)
{
  struct slot_run run = { 0, 0 };

  cr_assert_eq (health_next (&h, now_ns, &run), n > 0, "%u, %u", run.first, run.n);
  cr_assert (run.first == first && run.n == n, "%u, %u", run.first, run.n);
}

/* What was put in comes out, once; its slots stay counted. */
Test (health, suspects)
{
  assert_next (0, 0, 0);
  cr_assert (suspect (10, 5, 0));
  cr_assert (suspect (30, 1, 0));
  cr_assert_eq (h.nsuspect, 6);
  assert_next (0, 10, 5);
  assert_next (0, 30, 1);
  assert_next (0, 0, 0);
  cr_assert_eq (h.nsuspect, 6);
}

/* What is to be looked at later is not found before, and what is behind it is. */
Test (health, later)
{
  cr_assert (suspect (10, 5, LATER_NS));
  cr_assert (suspect (30, 1, 0));
  assert_next (LATER_NS - 1, 30, 1);
  assert_next (LATER_NS - 1, 0, 0);
  assert_next (LATER_NS, 10, 5);
}

/* Neighbours become one, on either side, and are due when the later one is; not what is due at once and what is not. */
Test (health, neighbours)
{
  cr_assert (suspect (10, 5, LATER_NS));
  cr_assert (suspect (15, 1, LATER_NS + 5));
  cr_assert (suspect (8, 2, LATER_NS));
  cr_assert (suspect (16, 4, 0));
  cr_assert (suspect (21, 1, 0));
  cr_assert_eq (h.nruns, 3);
  cr_assert_eq (h.nsuspect, 13);
  assert_next (LATER_NS + 4, 16, 4);
  assert_next (LATER_NS + 4, 21, 1);
  assert_next (LATER_NS + 4, 0, 0);
  assert_next (LATER_NS + 5, 8, 8);
}

/* So many are remembered; one more is not, and changes nothing; a neighbour still finds its place. */
Test (health, too_many_suspects)
{
  for (uint32_t i = 0; i < HEALTH_RUNS; i++)
    cr_assert (suspect (10 * i, 2, 0));
  cr_assert_not (suspect (5, 1, 0));
  cr_assert_eq (h.nsuspect, 2 * HEALTH_RUNS);
  cr_assert (suspect (12, 3, 0));
  cr_assert_eq (h.nsuspect, 2 * HEALTH_RUNS + 3);
  assert_next (0, 0, 2);
  cr_assert (suspect (5, 1, 0));
}

/* Doomed slots come out of a run in order, each once; a slot is doomed once however often it is. */
Test (health, doomed)
{
  uint32_t slot = 77;

  cr_assert (health_doom (&h, 20));
  cr_assert (health_doom (&h, 12));
  cr_assert (health_doom (&h, 20));
  cr_assert (health_doom (&h, 15));
  cr_assert_not (health_take_doomed (&h, (struct slot_run){ 0, 12 }, &slot));
  cr_assert_not (health_take_doomed (&h, (struct slot_run){ 21, 100 }, &slot));
  cr_assert_eq (slot, 77);
  cr_assert (health_take_doomed (&h, (struct slot_run){ 12, 9 }, &slot));
  cr_assert_eq (slot, 12);
  cr_assert (health_take_doomed (&h, (struct slot_run){ 12, 9 }, &slot));
  cr_assert_eq (slot, 15);
  cr_assert (health_take_doomed (&h, (struct slot_run){ 12, 9 }, &slot));
  cr_assert_eq (slot, 20);
  cr_assert_not (health_take_doomed (&h, (struct slot_run){ 12, 9 }, &slot));
  cr_assert_eq (h.ndoomed, 0);
}

Test (health, too_many_doomed)
{
  for (uint32_t i = 0; i < HEALTH_DOOMED; i++)
    cr_assert (health_doom (&h, 3 * i));
  cr_assert_not (health_doom (&h, 1));
  cr_assert (health_doom (&h, 3), "it is already");
}

/* So many hard errors in a row make a device fail; one success between begins the count anew, and a lack of space is none. */
Test (health, streak)
{
  uint32_t slot = 2;

  for (unsigned i = 0; i + 1 < HEALTH_STREAK; i++)
    cr_assert_not (health_note (&h, slot++, true, -EIO));
  cr_assert_not (health_note (&h, slot, true, 0));
  for (unsigned i = 0; i + 1 < HEALTH_STREAK; i++) {
    cr_assert_not (health_note (&h, slot++, true, -EIO));
    cr_assert_not (health_note (&h, slot++, true, -ENOSPC));
  }
  cr_assert (health_note (&h, slot, true, -EIO));
}

/* What is read well says nothing of what is not written, and the other way round. */
Test (health, streak_of_a_kind)
{
  for (unsigned write = 0; write < 2; write++) {
    for (uint32_t slot = 2; slot < 1 + HEALTH_STREAK; slot++) {
      cr_assert_not (health_note (&h, slot, write, -EIO));
      cr_assert_not (health_note (&h, slot, !write, 0));
    }
    cr_assert (health_note (&h, 99, write, -EIO));
    health_forget_streaks (&h);
  }
}

/* One bad page that somebody asks for again and again says nothing of the others. */
Test (health, streak_of_one_slot)
{
  cr_assert_not (health_note (&h, 7, true, 0));
  for (unsigned i = 0; i < 3 * HEALTH_STREAK; i++)
    cr_assert_not (health_note (&h, 7, true, -EIO));
  for (uint32_t slot = 8; slot + 2 < 8 + HEALTH_STREAK; slot++)
    cr_assert_not (health_note (&h, slot, true, -EIO));
  cr_assert (health_note (&h, 100, true, -EIO));
}

/* Some errors are final. */
Test (health, gone)
{
  static const int final[] = { ENXIO, ENODEV, EROFS, EBADF };

  for (unsigned i = 0; i < 4; i++) {
    cr_assert_not (health_note (&h, 2, true, 0));
    cr_assert (health_note (&h, 2, true, -final[i]), "%d", final[i]);
  }
  cr_assert_not (health_note (&h, 2, true, 0));
  cr_assert_not (health_note (&h, 3, true, -EIO));
}
