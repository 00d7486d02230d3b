/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum.h - the one address space of all slots, and who gets which.
 *
 * Structure: each device covers a range of slots; between two lies at least one guard slot that is never allocated, so
 *            that no run of slots, and no I/O, ever spans two devices. Slot 0 does not exist. Which device gets the next
 *            slots is placement.c's.
 * Closing:   a device that is closed gets no new slots (FreeBSD's SW_CLOSING). Its blist stays exact, so that opening it again
 *            costs nothing; what is freed on it does not count as room.
 * Kept back: one slot in 64 (1 to 1024) is for moves only: writes of a page that has a slot already, which return a
 *            slot for each they take. So a full drum can still be rewritten, in pieces and by turns.
 * Accounts:  each export's pages have one (room.h), with a reserve and a limit. What is promised never waits for others.
 * Locking:   admin (device changes; may sleep) before the drum's lock (short, never across I/O). What takes the lock holds
 *            it for at most DRUM_BATCH runs. drum_transfer and drum_readahead take no lock.
 * Memory:    everything at drum_create and drum_add.
 * Errors:    0 or -errno, outputs untouched on failure.
 */
#ifndef DRUM_DRUM_H
#define DRUM_DRUM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "blist.h"
#include "room.h"
#include "swapdev.h"

struct drum;
struct flow;
struct rings;
struct swapdev;

enum {
  DRUM_TOGETHER = SWAPDEV_TOGETHER,
  DRUM_BATCH = 256,        /* most slots in one drum_alloc, most runs in one drum_free */
  STRIPE_MIN_BYTES = 4096, /* a stripe is a power of two */
  STRIPE_MAX_BYTES = 4 << 20,
  STRIPE_DEFAULT_BYTES = 64 << 10,
};

/* Slots in use and in all, without labels and bad slots, of the devices that are open. */
struct drum_usage {
  uint64_t nslots;
  uint64_t nfree;
  uint64_t nkept;     /* of the free ones: for moves only */
  uint64_t nreserved; /* by all accounts; of these */
  uint64_t npromised; /* so many are not used yet */
  bool overcommit;
};

/* What slots are wanted for. */
struct drum_demand {
  struct room_account *account; /* NULL: nobody's, and so without anything that is promised */
  uint32_t nnew;                /* slots for pages that have none that returns */
  uint32_t nmove;               /* slots for pages that have one, which returns */
  uint32_t
    ngrow; /* of nnew: pages that the account has more then; the others leave closed devices */
};

/* What comes with slots that are given back. */
struct drum_return {
  struct room_account *account;
  uint32_t
    nmove; /* moves that end: with the old slot of a page that was moved, or the new one of a move that failed */
  uint32_t nshrink; /* pages that the account has less then */
};

/* -EINVAL unless stripe_bytes is a power of two in range. */
int drum_create (uint32_t stripe_bytes, struct drum **d);

/* Before the first transfer: what they use to be under way at once (ring.h), which outlives the drum; NULL: nothing. */
void drum_set_rings (struct drum *d, struct rings *rings);
struct rings *drum_rings (const struct drum *d);

/* All requests have ended. Closes the devices, or, when a start failed, undoes them. */
void drum_destroy (struct drum *d);
void drum_undo (struct drum *d);

/* Take nnew + nmove slots (at most DRUM_BATCH) in as few runs as there are; runs must have room for DRUM_BATCH. Never blocks
 * unless exactly one slot is asked for; then it waits while all that it needs is for a move under way to return its slot.
 * -ENOSPC if there is no room for so many: ask for fewer; for one, the drum is full, or the account at its limit. */
int drum_alloc (struct drum *d, const struct drum_demand *want, struct slot_run *runs,
                unsigned *nruns);

/* The same on devices of higher priority than above. Never blocks. -ENOSPC also if those have not so many. */
int drum_alloc_above (struct drum *d, int above, const struct drum_demand *want,
                      struct slot_run *runs, unsigned *nruns);

/* Will this slot, which is used, be room for others once it is freed? No if its device is closed: then a page that leaves it is
 * a new one for the others (nnew). The answer may be out of date at once; that does no harm: the kept slots make good
 * for what was under way when a device closed, and a page that finds no room opens it again. */
bool drum_slot_returns (struct drum *d, uint32_t slot);

/* Give back the slots of nruns runs (at most DRUM_BATCH). what NULL: nothing comes with them. */
void drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns,
                const struct drum_return *what);

/* Promise the account something else than before: at first it has nothing, and in the end it is promised nothing. Less can always be had.
 * -ENOSPC, and why, if the sum of reserves would exceed the usable slots, or what is not used of them those that are free, or, without overcommit,
 * the sum of sizes the usable slots. With force it is promised all the same (a device may be away for now), and it warns, once, as when a device fails. */
int drum_promise (struct drum *d, struct room_account *a, const struct room_promise *want,
                  bool force, struct room_shortage *shortage);
struct room_promise drum_promised (struct drum *d, const struct room_account *a);

/* May the sizes of all exports together exceed the usable slots (FreeBSD's vm.overcommit)? At first yes. No: what is there already is not
 * taken back; it warns if that is too much. */
void drum_set_overcommit (struct drum *d, bool overcommit);

/* Pages pass from one account to another, with their slots. -ENOSPC, and why: to's limit is less, or what from has reserved can't be
 * promised to it anew. With force they pass all the same, but -ENOSPC says so. */
int drum_may_pass (struct drum *d, const struct room_account *from, const struct room_account *to,
                   uint64_t npages, struct room_shortage *shortage);
int drum_pass_account (struct drum *d, struct room_account *from, struct room_account *to,
                       uint64_t npages, bool force, struct room_shortage *shortage);

/* With drum_claim: the account has so many pages more, or less. */
void drum_claim_account (struct drum *d, struct room_account *a, int change);

/* Before the first request, while nobody else uses the drum: these slots hold pages. How many of them, from the first on, were free, and are used now; less than n: the next
 * one is used already, or can't be used at all. */
uint32_t drum_claim (struct drum *d, struct slot_run run);

/* This slot will be claimed, or freed, soon: have what that needs on its way from memory meanwhile. */
void drum_prefetch (struct drum *d, uint32_t slot);

/* Can this slot hold a page? */
enum drum_slot_kind {
  DRUM_SLOT_GOOD,
  DRUM_SLOT_BAD,
  DRUM_SLOT_NONE /* on no device, or reserved */
};
enum drum_slot_kind drum_slot_kind (struct drum *d, uint32_t slot);

/* Make durable what was written to the devices before. -EIO if one can't do it (then it is failing), or could not before:
 * what is on it may be gone with the power. One at a time. */
int drum_sync (struct drum *d);

/* The same for the device of this slot, which is used. */
int drum_sync_slot (struct drum *d, uint32_t slot);

/* A transfer of whole pages, consecutive in the drum from slot on; all of the slots are allocated. Uses up iov. */
struct drum_io {
  uint32_t slot;
  struct iovec *iov;
  unsigned niov;
  int ret; /* what came of it: see swapdev_transfer */
};

/* At most DRUM_TOGETHER; on several devices, or in several places, they are under way at once if the drum has rings. known_ns: see
 * swapdev_transfer. */
void drum_transfer (struct drum *d, const struct flow *flow, bool write, struct drum_io *io,
                    unsigned n, uint64_t *known_ns);
void drum_readahead (struct drum *d, struct slot_run run);

uint32_t drum_stripe_bytes (const struct drum *d);
void drum_usage (struct drum *d, struct drum_usage *usage);

/* For tests: does everything add up? Walks all blists. */
bool drum_check (struct drum *d);

#endif
