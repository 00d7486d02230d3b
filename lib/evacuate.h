/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate.h - move pages in the background: all off a device that is to leave, or up to faster devices.
 *
 * A pass walks the page maps of all exports, 8 bytes a page, and moves what lies on the device in pieces of at most
 * EVACUATE_PIECE pages, each entirely under its range lock (pages_move). Clients see no difference but latency. Evacuation
 * ends when the device has no used slot, rescanning, because a write under way holds slots that no map shows yet. (The
 * BSDs walk their swap maps, too: FreeBSD swap_pager.c 2020, swap_pager_swapoff; but page everything in.)
 * Memory:  64 KiB a pass; nothing by page.
 * Locking: a job's thread; takes range locks and the drum's lock, one after the other.
 * Errors:  0 or -errno, and one line through log.h.
 */
#ifndef DRUM_EVACUATE_H
#define DRUM_EVACUATE_H

#include <stdbool.h>

struct drum;
struct exports;
struct job;
struct state;
struct swapdev;

enum {
  EVACUATE_PIECE = 16, /* pages, 64 KiB */
  EVACUATE_DURABLE_PIECE =
    256 /* the same where each is made durable before its old slots are free: DRUM_BATCH */
};

struct evacuation {
  struct drum *drum;
  struct exports *exports;
  struct state *state; /* that the exports' maps are in; NULL: nothing outlives the server */
};

/* Move all pages off a device that is closing, and take it out of the drum: it is the caller's to close. If that can't be done, it stays: open as it was if there is no
 * room (-ENOSPC), a write fails, or the job is cancelled (-ECANCELED); closed if pages can't be read (-ENODATA), unless force
 * says that these are to be marked as lost. */
int evacuate_device (struct job *job, const struct evacuation *ev, struct swapdev *dev, bool force);

/* Move all pages that can be read off a failing device, which stays: failed; or failing as before, if there is no room. */
int evacuate_failing (struct job *job, const struct evacuation *ev, struct swapdev *dev);

/* Move pages up into room on devices of higher priority, from the lowest devices first. */
int evacuate_upwards (struct job *job, const struct evacuation *ev);

#endif
