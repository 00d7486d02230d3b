/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum-devices.h - the devices of a drum: who is there, who comes and goes, in what order they are used.
 *
 * Locking: each takes admin, which may sleep, and never is taken by I/O; but for drum_devices, drum_device, drum_open_device,
 *          drum_note_leave, drum_end_closing and drum_free_runs, which take the drum's lock only.
 * Errors:  0 or -errno, outputs untouched on failure.
 */
#ifndef DRUM_DRUM_DEVICES_H
#define DRUM_DRUM_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "blist.h"

struct drum;
struct swapdev;
struct swapdev_place;

enum {
  DRUM_MAX_DEVICES = 256, /* SPACE_MAX, PLACEMENT_MAX */
  DRUM_WALK =
    1
    << 20, /* slots that are walked while the drum's lock is held: some 10 us if they are all alike */
};

/* Is a device to leave, and how? The drum keeps that for who asks. */
struct drum_leave {
  bool wanted, force;
  uint64_t rate; /* bytes a second; 0: no limit */
};

/* The numbers stand in manifests. */
enum drum_device_state {
  DEVICE_OPEN,
  DEVICE_CLOSING, /* passed over; its pages are being moved off */
  DEVICE_CLOSED,  /* passed over; not all of its pages could be moved off */
  DEVICE_FAILING, /* passed over; too much is wrong with it, and its pages are to be moved off */
  DEVICE_FAILED,  /* the same, and what could be read has been moved */
};

struct drum_device_info {
  struct swapdev *swapdev;
  int prio;
  enum drum_device_state state;
  bool coming;                   /* closed only until drum_open_device */
  enum drum_device_state before; /* closing: what it was, and may be again */
  uint32_t first, end;           /* its range of the drum, half open */
  uint32_t nslots;               /* usable */
  uint32_t nfree;
  uint64_t added_ns;    /* when it came: now_ns */
  uint32_t nsuspect;    /* neither: they failed, and will be looked at */
  uint64_t nmismatches; /* pages that came back with a wrong checksum */
  struct drum_leave leave;
};

/* Can n devices with these numbers of slots (reserved ones included) stand in one drum? -EFBIG if they need more than
 * 2^32-2 slots, guards included; -EMFILE if they are too many. */
int drum_check_sizes (const uint32_t *nslots, unsigned n);

/* Is there a place for one more device of so many slots? As drum_add. */
int drum_check_place (struct drum *d, uint32_t nslots);

/* Give a prepared device its range of the drum and its turn; from here on it is the drum's to close.
 * -EFBIG if no gap of the drum is large enough, -EMFILE if there are too many devices. */
int drum_add (struct drum *d, struct swapdev *dev);

/* Where and how a device is to be in the drum. */
struct drum_seat {
  uint32_t first; /* where its range begins; 0: anywhere */
  enum drum_device_state state;
  bool coming; /* closed, until drum_open_device */
  int prio;
  struct drum_leave leave;
};

/* The same, but as seat says. -EEXIST, -EINVAL: its range can't begin there. */
int drum_add_at (struct drum *d, struct swapdev *dev, const struct drum_seat *seat);

/* One that was coming has its first turn now. */
void drum_open_device (struct drum *d, struct swapdev *dev);

/* Take a device without used slots out; it is the caller's to close, and its range can be used again. No request may touch it: none
 * can, as none of its slots is in a page map. -ENOENT; -EBUSY if it has used slots; -ENOSPC if the others would not
 * have enough left for what is kept back and what is promised; -EAGAIN: they would once moves under way have ended, or somebody looks at its
 * suspect slots. */
int drum_remove (struct drum *d, struct swapdev *dev);

/* Close a device to new slots, so that its pages can be moved off. -ENOENT; -EBUSY until drum_end_closing if it was closed before,
 * also if it is open again: who moved its pages off has not noticed yet; -EAGAIN until drum_open_device; -ENOSPC if what is used on it, and on others
 * that are closing, does not fit elsewhere beside what is promised, with the low-water mark to spare, or if too much is reserved for what is left
 * (without overcommit: promised to all). Says so through log.h. */
int drum_close_device (struct drum *d, const struct swapdev_place *place, struct swapdev **dev);

/* It is to leave, or not any more (it has been tried). */
void drum_note_leave (struct drum *d, struct swapdev *dev, struct drum_leave how);

/* Moving its pages off has come to an end, and it stays: as it was before; or closed, stuck on pages that can't be read. It
 * stays open if it is not closing any more: a page that finds no room on the devices that are open opens all that are
 * closing, and were open before. */
void drum_end_closing (struct drum *d, struct swapdev *dev, bool stuck);

/* -ENOENT */
int drum_state_at (struct drum *d, const struct swapdev_place *place,
                   enum drum_device_state *state);

/* Open a device again that is closed, failing or failed. -ENOENT if there is none, -EBUSY if it is open, or its pages are being
 * moved off. */
int drum_reopen_device (struct drum *d, const struct swapdev_place *place);

/* How many requests may be under way on the device at once; 0: no limit. -ENOENT, which it says through log.h. */
int drum_set_maxio (struct drum *d, const struct swapdev_place *place, unsigned maxio);

/* From the next allocation on. -ENOENT, which it says through log.h. */
int drum_set_priority (struct drum *d, const struct swapdev_place *place, int prio);

/* The devices in order of priority, at most max of them into devices; returns how many there are. */
unsigned drum_devices (struct drum *d, struct drum_device_info *devices, unsigned max);

/* One of them. False if it is not the drum's. */
bool drum_device (struct drum *d, const struct swapdev *dev, struct drum_device_info *info);

/* Between the two no device comes or goes, so that those drum_devices told of can be looked at. */
void drum_hold_devices (struct drum *d);
void drum_release_devices (struct drum *d);

/* Free runs of a device, at most DRUM_BATCH, among the DRUM_WALK slots from *from on, numbered from 0 in the device; a run that
 * goes on behind those is cut. To see all, begin with 0 and go on until *from is the number of its slots. Returns how
 * many. */
unsigned drum_free_runs (struct drum *d, struct swapdev *dev, uint32_t *from,
                         struct slot_run *runs);

/* To be called some times a second. Say what I/O is out for limit_ns or longer (inflight_scan), and pass over devices whose I/O
 * is out for more than a second while others have room. */
void drum_scan_inflight (struct drum *d, uint64_t now_ns, uint64_t limit_ns);

#endif
