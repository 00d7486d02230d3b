/* SPDX-License-Identifier: BSD-3-Clause
 *
 * room.h - how many slots are there, how many more may be given out, to whom, and what is to be said of it?
 *
 *   nslots     usable slots of the open devices             nfree      of them free, as their blists have it
 *   nmoving    slots that moves under way will return       nkept      room_nkept (nslots)
 *   nreserved  what accounts have reserved                  npromised  of that, what they have not used yet
 *
 * A page may get its first slot only while nfree + nmoving > nkept; a move (of a page that has one already) needs just a free
 * slot. So whatever the moves under way hold, nkept slots come back when they end, and a move that finds none free
 * need only wait. Devices that are closed are not counted; a page that leaves one is a new page to the others.
 *
 * Promises: what is left beyond the kept slots and npromised is for everybody; of npromised each account has its own part (FreeBSD's
 *           swap_reserve). When that can't be kept (a device failed, or slots went bad), those within their reserve have what
 *           there is, first come, first served.
 * Closing:  devices that are closing open again when a page finds no room; so they count where promises are looked at.
 * Locking:  the drum's lock, but for room_say, which is to be called without it, and for reading nused.
 */
#ifndef DRUM_ROOM_H
#define DRUM_ROOM_H

#include <stdbool.h>
#include <stdint.h>

enum {
  ROOM_LOW_WATER = 128,  /* slots left, or an eighth: "almost full" (FreeBSD's nswap_lowat) */
  ROOM_HIGH_WATER = 512, /* slots left, or half of all: no longer so (nswap_hiwat) */
};

/* In pages. */
struct room_promise {
  uint64_t nsize;     /* counts only while the sizes may not exceed the slots */
  uint64_t nreserved; /* slots that only this account may use up */
  uint64_t nlimit;    /* the most that it may have; 0: no limit */
};

/* Whose pages are they? Zeroed, but for the name, has no pages, and nothing is promised. */
struct room_account {
  const char *name;       /* of the export, for messages */
  _Atomic uint64_t nused; /* pages that have a slot, or whose first one has been taken */
  struct room_promise promise;
  bool limited; /* said already */
};

/* Zeroed is empty. */
struct room {
  uint64_t nslots, nfree, nmoving, nkept;
  uint64_t nsizes, nreserved, npromised; /* sums of all accounts */
  struct {
    uint64_t nslots, nfree;
  } closing;                      /* of devices that open again when a page finds no room */
  bool no_overcommit;             /* nsizes may not exceed the slots */
  bool almost_full, full, broken; /* said already */
};

/* What to say once the lock is let go. */
struct room_notice {
  enum {
    ROOM_NOTHING,
    ROOM_ALMOST_FULL,
    ROOM_FULL,
    ROOM_FULL_CLOSED,
    ROOM_AGAIN,
    ROOM_LIMITED,   /* left: the limit */
    ROOM_BROKEN,    /* promises can't be kept; left: what is free for them */
    ROOM_KEPT_AGAIN /* they can */
  } what;
  uint64_t left;
  uint64_t npromised, nreserved, nusable;
  const char *account; /* limited */
};

/* Why a promise can't be given: so many pages are too many for so many slots. */
struct room_shortage {
  enum { ROOM_OF_RESERVES, ROOM_OF_PROMISED, ROOM_OF_SIZES, ROOM_OF_LIMIT } of;
  uint64_t npages, nslots;
};

/* Slots kept back out of nslots usable ones: one in 64, 1 to 1024. */
uint64_t room_nkept (uint64_t nslots);
uint64_t room_low_water (uint64_t nslots);

/* A device with nslots usable slots, nfree of them free, came; went. */
void room_grow (struct room *r, uint64_t nslots, uint64_t nfree);
void room_shrink (struct room *r, uint64_t nslots, uint64_t nfree);

/* Slots that pages can have: those that are kept back are not among them. */
uint64_t room_nusable (const struct room *r);

/* How many more pages of this account may get their first slot, its limit aside? NULL: of one without reserve. */
uint64_t room_left (const struct room *r, const struct room_account *a);

/* May the account have nnew slots more, for ngrow new pages and for others that leave closed devices? NULL: pages that are moved for nobody
 * in particular, which take nothing that is promised. Its limit aside: */
bool room_fits (const struct room *r, const struct room_account *a, uint32_t nnew, uint32_t ngrow);
bool room_is_limited (const struct room_account *a, uint32_t ngrow);

/* The account has so many pages more, or less. */
void room_count (struct room *r, struct room_account *a, int64_t change);

/* Can this be promised instead of what was? Less can always. -ENOSPC, and why not. */
int room_may_promise (const struct room *r, const struct room_account *a,
                      const struct room_promise *want, struct room_shortage *shortage);
void room_promise (struct room *r, struct room_account *a, const struct room_promise *want);

/* Can so many pages of from become to's, with their slots? What from has reserved is promised to it anew. -ENOSPC, and why not. */
int room_may_pass (const struct room *r, const struct room_account *from,
                   const struct room_account *to, uint64_t npages, struct room_shortage *shortage);

/* Are there slots enough, used or not, for the reserves of all, and, without overcommit, for their sizes? If not, why not. */
bool room_suffices (const struct room *r, struct room_shortage *shortage);

/* Can what is reserved not be had, not even from devices that are closing? */
bool room_is_broken (const struct room *r);

/* FreeBSD's swp_sizecheck, after each change: say once that room runs out, and once that there is some again; and the same of promises. */
struct room_notice room_check (struct room *r);
/* Somebody was refused; closed: while there are devices that are closed. */
struct room_notice room_refused (struct room *r, bool closed);
/* An account was, by its limit: say so once, until it has fallen well below that. */
struct room_notice room_limited (struct room_account *a);
void room_say (struct room_notice notice);

#endif
