/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scrub.h - read what is stored, in the background, to find what can't be read before somebody needs it.
 *
 * A walk over the page maps of all exports, which reads what has a slot in pieces of at most SCRUB_PIECE pages, each under its
 * range lock, shared: exactly as a client would, so that a page that is written or trimmed meanwhile is no error, and one
 * that can't be read has the same consequences (the slot is doomed, the device may be failing).
 * Memory:  64 KiB; nothing by page.
 * Locking: a job's thread; takes range locks and the drum's lock, one after the other.
 * Errors:  0 or -errno, and one line through log.h.
 */
#ifndef DRUM_SCRUB_H
#define DRUM_SCRUB_H

struct drum;
struct exports;
struct job;
struct swapdev;

enum { SCRUB_PIECE = 16 }; /* pages, 64 KiB */

struct scrub {
  struct drum *drum;
  struct exports *exports;
  const char *name;    /* what is scrubbed, for messages */
  struct swapdev *dev; /* only what is on this device; NULL: everything */
};

/* 0 also if pages can't be read: then the job has their number, the first of them, and a warning that says how many are which;
 * the log has where each is. -ECANCELED; -ENODEV: the device has left meanwhile. */
int scrub_run (struct job *job, const struct scrub *scrub);

#endif
