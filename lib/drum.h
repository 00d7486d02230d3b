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
 * Locking:   admin (device changes; may sleep) before the drum's lock (short, never across I/O). What takes the lock holds
 *            it for at most DRUM_BATCH runs. drum_read, drum_write and drum_readahead take no lock.
 * Memory:    everything at drum_create and drum_add.
 * Errors:    0 or -errno, outputs untouched on failure.
 */
#ifndef DRUM_DRUM_H
#define DRUM_DRUM_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "blist.h"

struct drum;
struct flow;
struct swapdev;

enum {
  DRUM_BATCH = 256,        /* most slots in one drum_alloc, most runs in one drum_free */
  STRIPE_MIN_BYTES = 4096, /* a stripe is a power of two */
  STRIPE_MAX_BYTES = 4 << 20,
  STRIPE_DEFAULT_BYTES = 64 << 10,
};

/* Slots in use and in all, without labels and bad slots, of the devices that are open. */
struct drum_usage {
  uint64_t nslots;
  uint64_t nfree;
  uint64_t nkept; /* of the free ones: for moves only */
};

/* -EINVAL unless stripe_bytes is a power of two in range. */
int drum_create (uint32_t stripe_bytes, struct drum **d);

/* All requests have ended. Closes the devices, or, when a start failed, undoes them. */
void drum_destroy (struct drum *d);
void drum_undo (struct drum *d);

/* Take nnew + nmove slots (at most DRUM_BATCH) in as few runs as there are, nnew for pages that have none, nmove for
 * pages that have one already; runs must have room for DRUM_BATCH. Never blocks unless exactly one slot is asked for;
 * then it waits while all that it needs is for a move under way to return its slot.
 * -ENOSPC if there is no room for so many: ask for fewer; for one, the drum is full. */
int drum_alloc (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                unsigned *nruns);

/* The same on devices of higher priority than above. Never blocks. -ENOSPC also if those have not so many. */
int drum_alloc_above (struct drum *d, int above, uint32_t nnew, uint32_t nmove,
                      struct slot_run *runs, unsigned *nruns);

/* Will this slot, which is used, be room for others once it is freed? No if its device is closed: then a page that leaves it is
 * a new one for the others (nnew). The answer may be out of date at once; that does no harm: the kept slots make good
 * for what was under way when a device closed, and a page that finds no room opens it again. */
bool drum_slot_returns (struct drum *d, uint32_t slot);

/* Give back the slots of nruns runs (at most DRUM_BATCH), nmove of which end a move: the old slot of a page that was
 * moved, or the new one of a move that failed. */
void drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns, uint32_t nmove);

/* Before the first request, while nobody else uses the drum: these slots hold pages. How many of them, from the first on, were free, and are used now; less than n: the next
 * one is used already, or can't be used at all. */
uint32_t drum_claim (struct drum *d, struct slot_run run);

/* This slot will be claimed soon: have what that needs on its way from memory meanwhile. */
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

/* Transfer whole pages, consecutive in the drum from slot on; all of the slots are allocated. As swapdev_read. */
int drum_read (struct drum *d, const struct flow *flow, uint32_t slot, struct iovec *iov,
               unsigned niov);
int drum_write (struct drum *d, const struct flow *flow, uint32_t slot, struct iovec *iov,
                unsigned niov);
void drum_readahead (struct drum *d, struct slot_run run);

uint32_t drum_stripe_bytes (const struct drum *d);
void drum_usage (struct drum *d, struct drum_usage *usage);

/* For tests: does everything add up? Walks all blists. */
bool drum_check (struct drum *d);

#endif
