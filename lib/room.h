/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.h - how many slots are there, how many more may be given out, and what is to be said of it?
 *
 *   nslots   usable slots of the open devices           nfree    of them free, as their blists have it
 *   nmoving  slots that moves under way will return     nkept    room_nkept (nslots)
 *
 * A page may get its first slot only while nfree + nmoving > nkept; a move (of a page that has one already) needs just a free
 * slot. So whatever the moves under way hold, nkept slots come back when they end, and a move that finds none free
 * need only wait. Devices that are closed are not counted; a page that leaves one is a new page to the others.
 * Locking: the drum's lock, but for room_say, which is to be called without it.
 */
#ifndef DRUM_ROOM_H
#define DRUM_ROOM_H

#include <stdbool.h>
#include <stdint.h>

enum {
  ROOM_LOW_WATER = 128,  /* slots left, or an eighth: "almost full" (FreeBSD's nswap_lowat) */
  ROOM_HIGH_WATER = 512, /* slots left, or half of all: no longer so (nswap_hiwat) */
};

/* Zeroed is empty. */
struct room {
  uint64_t nslots, nfree, nmoving, nkept;
  bool almost_full, full; /* said already */
};

/* What to say once the lock is let go. */
struct room_notice {
  enum { ROOM_NOTHING, ROOM_ALMOST_FULL, ROOM_FULL, ROOM_FULL_CLOSED, ROOM_AGAIN } what;
  uint64_t left;
};

/* Slots kept back out of nslots usable ones: one in 64, 1 to 1024. */
uint64_t room_nkept (uint64_t nslots);
uint64_t room_low_water (uint64_t nslots);

/* A device with nslots usable slots, nfree of them free, came; went. */
void room_grow (struct room *r, uint64_t nslots, uint64_t nfree);
void room_shrink (struct room *r, uint64_t nslots, uint64_t nfree);

/* How many more pages may get their first slot? */
uint64_t room_left (const struct room *r);

/* FreeBSD's swp_sizecheck, after each change: say once that room runs out, and once that there is some again. */
struct room_notice room_check (struct room *r);
/* Somebody was refused; closed: while there are devices that are closed. */
struct room_notice room_refused (struct room *r, bool closed);
void room_say (struct room_notice notice);

#endif
