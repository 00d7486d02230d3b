/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev-impl.h - what swapdev.c (the device) and swapdev-io.c (its I/O) share; nobody else's.
 */
#ifndef DRUM_SWAPDEV_IMPL_H
#define DRUM_SWAPDEV_IMPL_H

#include "devio.h"
#include "head.h"
#include "inflight.h"
#include "label.h"
#include "mutex.h"
#include "stats.h"
#include "swapdev.h"
#include "turnstile.h"
#include "units.h"

enum { RESERVED_BYTES = SWAPDEV_NRESERVED * PAGE_BYTES };

struct swapdev {
  /* What stood there, for swapdev_undo. */
  _Alignas(PAGE_BYTES) unsigned char saved[RESERVED_BYTES];
  char *path;
  int prio;
  unsigned asked_maxio;
  struct devio io;
  struct bounce *bounce;                /* for O_DIRECT; or NULL */
  struct turnstile share[BOUNCE_KINDS]; /* of the buffers */
  bool is_block;
  struct stat st;   /* when it was opened */
  bool created;     /* by us, at this start */
  bool is_labelled; /* was ours before this start */
  bool overwritten; /* label and bad slots are not as found: see saved */
  uint32_t nslots;
  uint64_t size_bytes;
  struct swapdev_identity identity;
  struct badslots bad;
  _Atomic bool dirty; /* written to since the last sync began */
  struct mutex syncing;
  bool unsynced; /* syncing; a sync has failed */
  const struct prealloc_watch *watch;
  struct blist *blist;
  struct stats stats[2];        /* of reads, of writes */
  _Atomic uint32_t delay_ns[2]; /* how long one waits, beyond the time to copy it; smoothed */
  struct inflight inflight;
  struct turnstile turnstile;
  struct mutex
    trying; /* head, and what the turnstile makes of it, whose lock comes behind this one */
  struct head head;
};

#endif
