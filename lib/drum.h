/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum.h - the one address space of all slots, and who gets which.
 *
 * Structure: each device covers a range of slots; between two lies at least one guard slot that is never allocated, so
 *            that no run of slots, and no I/O, ever spans two devices. Slot 0 does not exist. Devices of equal priority
 *            form a class and take turns, a stripe at a time (FreeBSD swap_pager.c 2020, swp_pager_getswapspace; NetBSD
 *            uvm_swap.c, uvm_swap_alloc and swaplist_trim).
 * Placement: the highest class that has room, down to single slots, before the next (a fragmented fast disk still
 *            beats a slow one); inside a class the whole stripe on every device, then halves.
 * Kept back: one slot in 64 (1 to 1024) is for moves only: writes of a page that has a slot already, which return a
 *            slot for each they take. So a full drum can still be rewritten, in pieces and by turns.
 * Locking:   admin (drum_add, drum_remove; may sleep) before the drum's lock (short, never across I/O). What takes the
 *            lock holds it for at most DRUM_BATCH runs. drum_read, drum_write and drum_readahead take no lock.
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
struct swapdev;

enum {
  DRUM_BATCH = 256,        /* most slots in one drum_alloc, most runs in one drum_free */
  DRUM_MAX_DEVICES = 256,  /* SPACE_MAX */
  DRUM_LOW_WATER = 128,    /* slots left, or an eighth: "almost full" (FreeBSD's nswap_lowat) */
  DRUM_HIGH_WATER = 512,   /* slots left, or half of all: no longer so (nswap_hiwat) */
  STRIPE_MIN_BYTES = 4096, /* a stripe is a power of two */
  STRIPE_MAX_BYTES = 4 << 20,
  STRIPE_DEFAULT_BYTES = 64 << 10,
};

/* Slots in use and in all, without labels and bad slots. */
struct drum_usage {
  uint64_t nslots;
  uint64_t nfree;
  uint64_t nkept; /* of the free ones: for moves only */
};

struct drum_device_usage {
  const char *path; /* valid until the device is removed */
  int prio;
  uint32_t first, end; /* its range of the drum, half open */
  uint32_t nslots;     /* usable */
  uint32_t nfree;
};

/* -EINVAL unless stripe_bytes is a power of two in range. */
int drum_create (uint32_t stripe_bytes, struct drum **d);

/* All requests have ended. Closes the devices, or, when a start failed, undoes them. */
void drum_destroy (struct drum *d);
void drum_undo (struct drum *d);

/* Slots kept back out of nslots usable ones. */
uint64_t drum_nkept (uint64_t nslots);

/* Can n devices with these numbers of slots (reserved ones included) stand in one drum? -EFBIG if they need more than
 * 2^32-2 slots, guards included; -EMFILE if they are too many. */
int drum_check_sizes (const uint32_t *nslots, unsigned n);

/* Give a prepared device its range of the drum and its turn; from here on it is the drum's to close.
 * -EFBIG if no gap of the drum is large enough, -EMFILE if there are too many devices. */
int drum_add (struct drum *d, struct swapdev *dev);

/* Take a device without used slots out and close it; its range can be used again. No request may touch it: none can,
 * as none of its slots is in a page map. -ENOENT; -EBUSY if it has used slots; -ENOSPC if the others would not
 * have enough free ones left to keep back. */
int drum_remove (struct drum *d, struct swapdev *dev);

/* Take nnew + nmove slots (at most DRUM_BATCH) in as few runs as there are, nnew for pages that have none, nmove for
 * pages that have one already; runs must have room for DRUM_BATCH. Never blocks unless exactly one slot is asked for;
 * then it waits while all that it needs is for a move under way to return its slot.
 * -ENOSPC if there is no room for so many: ask for fewer; for one, the drum is full. */
int drum_alloc (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                unsigned *nruns);

/* Give back the slots of nruns runs (at most DRUM_BATCH), nmove of which end a move: the old slot of a page that was
 * moved, or the new one of a move that failed. */
void drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns, uint32_t nmove);

/* Transfer whole pages, consecutive in the drum from slot on; all of the slots are allocated. As swapdev_read. */
int drum_read (struct drum *d, uint32_t slot, struct iovec *iov, unsigned niov);
int drum_write (struct drum *d, uint32_t slot, struct iovec *iov, unsigned niov);
void drum_readahead (struct drum *d, struct slot_run run);

void drum_usage (struct drum *d, struct drum_usage *usage);

/* The devices in order of priority, at most max of them into devices; returns how many there are. */
unsigned drum_devices (struct drum *d, struct drum_device_usage *devices, unsigned max);

/* For tests: does everything add up? Walks all blists. */
bool drum_check (struct drum *d);

#endif
