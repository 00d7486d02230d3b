/* SPDX-License-Identifier: BSD-3-Clause
 *
 * inflight.h - what I/O is out on a device, so that one which does not come back is said (FreeBSD's "indefinite wait
 * buffer") and not only waited for.
 *
 * Structure: a table of INFLIGHT_MAX entries, each a cache line of its own, claimed and left by one compare-and-swap; when
 *            it is full, further I/O is not watched. A thread looks first at an entry that is nearly its own.
 * Unit:      CLOCK_MONOTONIC nanoseconds (now_ns), to 4 of them; slots of the device.
 * Locking:   none. Any number of threads begin and end; one at a time scans. What ends takes no memory, logs nothing and
 *            waits for nobody: if its I/O was reported, it leaves the end for the next scan to report, and the entry to free.
 * Memory:    the caller's, zeroed, aligned to a cache line.
 */
#ifndef DRUM_INFLIGHT_H
#define DRUM_INFLIGHT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { INFLIGHT_MAX = 64 };

/* The fields are inflight.c's; those behind state belong to who last changed it. */
struct inflight_io {
  _Alignas(64) _Atomic uint64_t state; /* 0: free; else when it began, and in the low bits a tag */
  uint64_t end_ns;
  uint32_t first_slot, nslots;
  int ret;
  bool write;
};

struct inflight {
  struct inflight_io io[INFLIGHT_MAX];
};

/* An I/O begins: its entry for inflight_end; NULL if it is not watched. */
struct inflight_io *inflight_begin (struct inflight *t, uint64_t now_ns, bool write, uint32_t slot,
                                    uint32_t nslots);

/* It has ended: ret is its result, 0 or -errno. io may be NULL. */
void inflight_end (struct inflight_io *io, int ret);

/* Report, once, each I/O that is out for limit_ns or longer, and the end of those reported before. path: the device's. */
void inflight_scan (struct inflight *t, const char *path, uint64_t now_ns, uint64_t limit_ns);

/* When the oldest I/O that is still out began; 0 if none is. Looks at the whole table: INFLIGHT_MAX cache lines. */
uint64_t inflight_oldest_ns (const struct inflight *t);

#endif
