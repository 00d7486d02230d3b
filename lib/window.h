/* SPDX-License-Identifier: BSD-3-Clause
 *
 * window.h - how many pages should be out on a device at once, so that it is busy, and who comes next need not wait for long?
 *
 * A device that is given more than it can do at a time makes a queue of it, of which we have no say. More in the window is
 * good as long as more gets done, and bad as soon as it all just takes longer. What is best is found by trying: twice or half as much, for some
 * requests, is better if it has more of throughput^2 / latency (Kleinrock's power, with more weight on throughput). That doubles
 * or halves with the window where only the queue grows, and the other way round where there is none yet; no idle
 * device's latency has to be known. It begins with one page, and doubles while that pays; later it tries seldom.
 * Tolerance: as long as no more than one request in WINDOW_FEW takes longer than WINDOW_GOOD_NS, and WINDOW_GOOD_PAGE_NS for each page
 *            (2 GB/s), the window grows, until there is none. Some always do, on a machine that has too much to do: whose thread
 *            loses its processor meanwhile; for the device that is no reason to make others wait.
 * Unit:      pages; CLOCK_MONOTONIC nanoseconds.
 * Locking:   none: the caller's.
 */
#ifndef DRUM_WINDOW_H
#define DRUM_WINDOW_H

#include <stdbool.h>
#include <stdint.h>

enum {
  WINDOW_GOOD_NS = 200 * 1000,
  WINDOW_GOOD_PAGE_NS = 2 * 1000,
  WINDOW_FEW = 4,
  WINDOW_MAX = 4096,    /* 16 MiB; with more there is no limit */
  WINDOW_REQUESTS = 16, /* at least so many, and for so long, before it is judged */
  WINDOW_NS = 10 * 1000 * 1000,
  WINDOW_HOLD_MAX = 128, /* so many times as long between two trials, when they are in vain */
};

/* The fields are window.c's, but size is for all to read. */
struct window {
  uint32_t size;            /* in force; 0: no limit */
  uint32_t best;            /* the same, but when another one is tried */
  double power, latency_ns; /* of the best one, when it was looked at last */
  bool good;                /* and few waited for long */
  bool shrink;              /* the next to be tried is the smaller one */
  unsigned hold, next_hold;
  uint64_t changed_ns; /* what began before was out with another size */
  uint64_t since_ns;   /* what is below was counted since then; 0: nothing */
  unsigned nrequests, nwanted, nslow;
  double npages, page_ns; /* sums: of the pages, and of how long each was out */
};

void window_init (struct window *w);

/* Nothing was noted for a while, and the device may be another one; but one that was slow can still be so. */
void window_resume (struct window *w, uint64_t now_ns);

/* A request of npages was out from begin_ns to end_ns. wanted: somebody waits for it to end. */
void window_note (struct window *w, uint64_t begin_ns, uint64_t end_ns, uint32_t npages,
                  bool wanted);

#endif
