/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - tests of lib/room.c: how many slots may still be given out, and what is said of it, when.
 */
#include <config.h>

#include <criterion/criterion.h>

#include "lib/room.h"
#include "lib/units.h"

#include "logged.h"

static struct room room;

static void
setup (void)
{
  logged_start ();
}

TestSuite (room, .init = setup, .timeout = 60);

/* One slot in 64 is kept back, at least one, at most 1024; of none, none. */
Test (room, kept_slots)
{
  static const uint64_t kept[][2] = {
    { 0, 0 },      { 1, 1 },        { 63, 1 },       { 127, 1 },        { 128, 2 },
    { 6400, 100 }, { 65535, 1023 }, { 65536, 1024 }, { 1 << 30, 1024 }, { SLOT_MAX, 1024 },
  };

  for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
    cr_assert_eq (room_nkept (kept[i][0]), kept[i][1], "of %u", (unsigned) kept[i][0]);
}

/* The low-water mark is 128 slots, or an eighth of a small drum. */
Test (room, low_water)
{
  static const uint64_t low[][2] = {
    { 0, 0 }, { 7, 0 }, { 8, 1 }, { 1023, 127 }, { 1024, 128 }, { 1032, 128 }, { SLOT_MAX, 128 },
  };

  for (size_t i = 0; i < sizeof low / sizeof low[0]; i++)
    cr_assert_eq (room_low_water (low[i][0]), low[i][1], "of %u", (unsigned) low[i][0]);
}

/* Devices that come and go change all three numbers; what is kept back goes by the sum, in 64 bits. */
Test (room, grows_and_shrinks)
{
  room_grow (&room, 100, 60);
  room_grow (&room, SLOT_MAX, SLOT_MAX - 7);
  cr_assert_eq (room.nslots, UINT64_C (100) + SLOT_MAX);
  cr_assert_eq (room.nfree, UINT64_C (60) + SLOT_MAX - 7);
  cr_assert_eq (room.nkept, 1024);
  room_shrink (&room, SLOT_MAX, SLOT_MAX - 7);
  cr_assert_eq (room.nslots, 100);
  cr_assert_eq (room.nfree, 60);
  cr_assert_eq (room.nkept, 1);
  room_shrink (&room, 100, 60);
  cr_assert_eq (room.nslots, 0);
  cr_assert_eq (room.nfree, 0);
  cr_assert_eq (room.nkept, 0);
}

/* Left is what is free or comes back, less what is kept; never less than none. */
Test (room, left)
{
  cr_assert_eq (room_left (&room, NULL), 0);
  room_grow (&room, 640, 30);
  cr_assert_eq (room_left (&room, NULL), 20);
  room.nmoving = 5;
  cr_assert_eq (room_left (&room, NULL), 25);
  room.nfree = 6;
  cr_assert_eq (room_left (&room, NULL), 1);
  room.nfree = 5;
  cr_assert_eq (room_left (&room, NULL), 0);
  room.nfree = 4;
  cr_assert_eq (room_left (&room, NULL), 0);
}

/* With so many left. */
static void
set_left (uint64_t left)
{
  room.nfree = left + room.nkept;
}

static void
assert_check (uint64_t left, int what)
{
  struct room_notice notice;

  set_left (left);
  notice = room_check (&room);
  cr_assert_eq ((int) notice.what, what, "with %u left: %d", (unsigned) left, (int) notice.what);
  cr_assert_eq (notice.left, left);
}

/* Almost full is said once, under the low-water mark; then nothing until there is more than the high-water mark. */
Test (room, notices_come_once)
{
  room_grow (&room, 8192, 8192);
  assert_check (8000, ROOM_NOTHING);
  assert_check (128, ROOM_NOTHING);
  assert_check (127, ROOM_ALMOST_FULL);
  assert_check (0, ROOM_NOTHING);
  assert_check (512, ROOM_NOTHING);
  assert_check (100, ROOM_NOTHING);
  assert_check (513, ROOM_AGAIN);
  assert_check (5000, ROOM_NOTHING);
  assert_check (127, ROOM_ALMOST_FULL);
}

/* The marks of a small drum are an eighth and a half of it. */
Test (room, marks_of_a_small_drum)
{
  room_grow (&room, 80, 80);
  assert_check (10, ROOM_NOTHING);
  assert_check (9, ROOM_ALMOST_FULL);
  assert_check (40, ROOM_NOTHING);
  assert_check (41, ROOM_AGAIN);
}

/* Full is said once, to the first who is refused; and again only after there was room, also if it never was almost full. */
Test (room, refusals_come_once)
{
  room_grow (&room, 8192, 8192);
  cr_assert_eq ((int) room_refused (&room, false).what, ROOM_FULL);
  cr_assert_eq ((int) room_refused (&room, false).what, ROOM_NOTHING);
  assert_check (300, ROOM_NOTHING);
  cr_assert_eq ((int) room_refused (&room, false).what, ROOM_NOTHING);
  assert_check (600, ROOM_AGAIN);
  cr_assert_eq ((int) room_refused (&room, false).what, ROOM_FULL);
}

/* A drum without devices is not almost full: nobody has used anything. */
Test (room, an_empty_drum_says_nothing)
{
  assert_check (0, ROOM_NOTHING);
}

/* What is said has its level and, where it helps, the number. */
Test (room, says)
{
  room_say ((struct room_notice){ .what = ROOM_NOTHING });
  cr_assert_eq (logged_count (""), 0);
  room_say ((struct room_notice){ .what = ROOM_ALMOST_FULL, .left = 77 });
  cr_assert_eq (logged_count ("almost full: 77 slots"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  room_say ((struct room_notice){ .what = ROOM_FULL, .left = 0 });
  cr_assert_eq (logged_count ("the drum is full"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  room_say ((struct room_notice){ .what = ROOM_AGAIN, .left = 600 });
  cr_assert_eq (logged_count ("room again: 600 slots"), 1);
  cr_assert (logged_last_level () == LEVEL_NOTICE);
}
