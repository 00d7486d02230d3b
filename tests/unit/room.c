/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.c - tests of lib/room.c: how many slots may still be given out, and what is said of it, when.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>

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

static struct room_account rich = { .name = "rich" }, poor = { .name = "poor" };

static void
promise (struct room_account *a, uint64_t nreserved, uint64_t nlimit)
{
  room_promise (&room, a, &(struct room_promise){ .nreserved = nreserved, .nlimit = nlimit });
}

/* A page of this account has got its first slot, or n have. */
static void
use (struct room_account *a, uint64_t n)
{
  room.nfree -= n;
  room_count (&room, a, (int64_t) n);
}

/* What is reserved and not used is left for who reserved it, and for nobody else. */
Test (room, reserves)
{
  room_grow (&room, 640, 110);
  promise (&rich, 60, 0);
  cr_assert_eq (room.nreserved, 60);
  cr_assert_eq (room.npromised, 60);
  cr_assert_eq (room_left (&room, NULL), 40);
  cr_assert_eq (room_left (&room, &poor), 40);
  cr_assert_eq (room_left (&room, &rich), 100);
  use (&rich, 25);
  cr_assert_eq (room.npromised, 35);
  cr_assert_eq (room_left (&room, &poor), 40);
  use (&poor, 40);
  cr_assert_eq (room_left (&room, &poor), 0);
  cr_assert_eq (room_left (&room, &rich), 35);
  use (&rich, 35);
  cr_assert_eq (room.npromised, 0);
  cr_assert_eq (room_left (&room, &rich), 0);
  room_count (&room, &rich, -60);
  cr_assert_eq (room.npromised, 60);
  promise (&rich, 10, 0);
  cr_assert_eq (room.npromised, 10);
  promise (&rich, 0, 0);
  cr_assert_eq (room.nreserved, 0);
  cr_assert_eq (room.npromised, 0);
}

/* Pages that leave closed devices, and those beyond a reserve, take what is everybody's; moves take nothing. */
Test (room, fits)
{
  room_grow (&room, 640, 30);
  promise (&rich, 15, 0);
  cr_assert (room_fits (&room, &rich, 15, 15));
  cr_assert (room_fits (&room, &rich, 20, 20));
  cr_assert (room_fits (&room, &rich, 20, 15), "5 that leave");
  cr_assert_not (room_fits (&room, &rich, 20, 14));
  cr_assert_not (room_fits (&room, &rich, 21, 21));
  cr_assert (room_fits (&room, &rich, 5, 0));
  cr_assert_not (room_fits (&room, &rich, 6, 0));
  cr_assert (room_fits (&room, NULL, 5, 0));
  cr_assert_not (room_fits (&room, NULL, 6, 0));
  room.nfree = 0;
  cr_assert (room_fits (&room, NULL, 0, 0), "moves");
}

/* If there is less than what is promised, it is for those who are within their reserve, and who comes first has it. */
Test (room, first_come_first_served)
{
  room_grow (&room, 640, 30);
  promise (&rich, 18, 0);
  promise (&poor, 7, 0);
  cr_assert (room_is_broken (&room));
  cr_assert_not (room_fits (&room, NULL, 1, 0));
  cr_assert (room_fits (&room, &rich, 18, 18));
  cr_assert_not (room_fits (&room, &rich, 19, 19));
  use (&rich, 18);
  cr_assert_eq (room_left (&room, &rich), 0);
  cr_assert_eq (room_left (&room, &poor), 2);
  cr_assert (room_fits (&room, &poor, 2, 2));
  cr_assert_not (room_fits (&room, &poor, 3, 3));
}

/* A limit is met by new pages only; 0 is none. */
Test (room, limits)
{
  room_grow (&room, 8192, 8192);
  promise (&poor, 0, 10);
  cr_assert_not (room_is_limited (&poor, 10));
  cr_assert (room_is_limited (&poor, 11));
  cr_assert_not (room_is_limited (NULL, 11));
  use (&poor, 10);
  cr_assert_not (room_is_limited (&poor, 0));
  cr_assert (room_is_limited (&poor, 1));
  cr_assert_eq ((int) room_limited (&poor).what, ROOM_LIMITED);
  cr_assert_eq ((int) room_limited (&poor).what, ROOM_NOTHING);
  room_count (&room, &poor, -5);
  cr_assert_eq ((int) room_limited (&poor).what, ROOM_NOTHING);
  room_count (&room, &poor, -1);
  cr_assert_eq ((int) room_limited (&poor).what, ROOM_LIMITED, "it was well below");
  promise (&poor, 0, 0);
  cr_assert_not (room_is_limited (&poor, UINT32_MAX));
}

/* What can be promised: no more reserves than slots, none that are used by others, and, without overcommit, no more sizes. */
Test (room, may_promise)
{
  struct room_promise want = { .nreserved = 631 };
  struct room_shortage shortage = { .npages = 0 };

  room_grow (&room, 640, 300);
  cr_assert_eq (room_may_promise (&room, &rich, &want, &shortage), -ENOSPC);
  cr_assert (shortage.of == ROOM_OF_RESERVES && shortage.npages == 631 && shortage.nslots == 630);
  want.nreserved = 291;
  cr_assert_eq (room_may_promise (&room, &rich, &want, &shortage), -ENOSPC);
  cr_assert (shortage.of == ROOM_OF_PROMISED && shortage.npages == 291 && shortage.nslots == 290);
  want.nreserved = 290;
  want.nsize = 631;
  cr_assert_eq (room_may_promise (&room, &rich, &want, &shortage), 0);
  room.no_overcommit = true;
  cr_assert_eq (room_may_promise (&room, &rich, &want, &shortage), -ENOSPC);
  cr_assert (shortage.of == ROOM_OF_SIZES && shortage.npages == 631 && shortage.nslots == 630);
  room_promise (&room, &rich, &want);
  cr_assert_not (room_suffices (&room, &shortage));
  room.nfree = 0;
  want = (struct room_promise){ .nreserved = 100, .nsize = 631 };
  cr_assert_eq (room_may_promise (&room, &rich, &want, &shortage), 0, "less than before");
}

/* Devices that are closing count for promises, and what is to be kept back for them stays free. */
Test (room, closing_devices)
{
  room_grow (&room, 640, 110);
  promise (&rich, 60, 0);
  room.closing.nslots = 640;
  cr_assert_eq (room_left (&room, NULL), 30);
  cr_assert_eq (room_left (&room, &rich), 90);
  use (&poor, 50);
  cr_assert (room_is_broken (&room));
  room.closing.nfree = 20;
  cr_assert_not (room_is_broken (&room));
}

/* That promises can't be kept is said once, and that they can be, again. Who hears that it is almost full hears what is promised, too. */
Test (room, broken_promises)
{
  struct room_notice notice;

  room_grow (&room, 8192, 8192);
  promise (&rich, 8000, 0);
  notice = room_check (&room);
  cr_assert_eq ((int) notice.what, ROOM_ALMOST_FULL);
  cr_assert_eq (notice.npromised, 8000);
  room_shrink (&room, 1000, 1000);
  cr_assert_eq ((int) room_check (&room).what, ROOM_BROKEN);
  cr_assert_eq ((int) room_check (&room).what, ROOM_NOTHING);
  room_grow (&room, 1000, 1000);
  cr_assert_eq ((int) room_check (&room).what, ROOM_KEPT_AGAIN);
  use (&poor, 65);
  cr_assert_eq ((int) room_check (&room).what, ROOM_BROKEN);
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
  room_say ((struct room_notice){ .what = ROOM_FULL, .npromised = 1 });
  cr_assert_eq (logged_count ("the drum is full, but for what is reserved"), 1);
  room_say ((struct room_notice){ .what = ROOM_LIMITED, .left = 3, .account = "e" });
  cr_assert_eq (logged_count ("export \"e\": has reached its limit of 12K"), 1);
  room_say ((struct room_notice){
    .what = ROOM_BROKEN, .left = 1, .npromised = 2, .nreserved = 3, .nusable = 4 });
  cr_assert_eq (
    logged_count ("12K are reserved, and 8K of that not used yet; it has 16K, and 4K of"), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  room_say ((struct room_notice){ .what = ROOM_KEPT_AGAIN, .nreserved = 3 });
  cr_assert_eq (logged_count ("again: 12K are reserved"), 1);
  room_say ((struct room_notice){ .what = ROOM_AGAIN, .left = 600 });
  cr_assert_eq (logged_count ("room again: 600 slots"), 1);
  cr_assert (logged_last_level () == LEVEL_NOTICE);
}
