/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum-health.h - slots and devices that fail: taken out of use, looked at, given back or marked bad for good.
 *
 * Locking: each takes the drum's lock; drum_suspect_bad takes admin, too.
 * Errors:  0 or -errno.
 */
#ifndef DRUM_DRUM_HEALTH_H
#define DRUM_DRUM_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "blist.h"

struct drum;
struct drum_return;
struct swapdev;

/* These slots (at most DRUM_BATCH runs) took no data, err: they are suspect. what comes with that, as in drum_free. */
void drum_slots_failed (struct drum *d, const struct slot_run *runs, unsigned nruns,
                        const struct drum_return *what, int err);

/* The page in this slot can't be read (err), or is not what was written (-EBADMSG). Its range lock is held. */
void drum_read_failed (struct drum *d, uint32_t slot, int err);

/* Where is this slot? Its page's range lock is held. */
const char *drum_locate (struct drum *d, uint32_t slot, uint64_t *offset_bytes);

/* For the medic. Wait, up to timeout_ms, for something that is sick: suspect slots of a device, in its own numbers, that nobody has
 * looked at (run->n > 0; the device stays until drum_suspect_end); or a failing device, whose pages are to be moved off
 * (run->n == 0; it stays until drum_end_failing). -ETIMEDOUT; -ECANCELED, once, after drum_dismiss, whatever is sick. */
int drum_next_sick (struct drum *d, unsigned timeout_ms, struct swapdev **dev,
                    struct slot_run *run);
void drum_dismiss (struct drum *d);

/* What became of the run, part by part, in any order: */
void drum_suspect_ok (struct drum *d, struct swapdev *dev, struct slot_run run);
void drum_suspect_later (struct drum *d, struct swapdev *dev, struct slot_run run,
                         uint64_t not_before_ns);
/* Never to be used again; the table of the label is to be written by the caller. -ENOSPC if it is full. */
int drum_suspect_bad (struct drum *d, struct swapdev *dev, uint32_t slot);
void drum_suspect_end (struct drum *d, struct swapdev *dev);

/* Too much is wrong with it. why is said, by the medic; it is not copied. */
void drum_fail_device (struct drum *d, struct swapdev *dev, const char *why);

/* Its pages have been moved off as far as they can be read; or they could not be for now (done false): later again. */
void drum_end_failing (struct drum *d, struct swapdev *dev, bool done);

#endif
