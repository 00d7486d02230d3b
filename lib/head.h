/* SPDX-License-Identifier: BSD-3-Clause
 *
 * head.h - does a device get more done one request at a time?
 *
 * One that is slow at seeking may: new slots are taken in order, but of many threads each makes its call when it comes to it, and
 * to a disk without an order of its own (or with too short a queue) that is a jump for many of them. It is found by trying: what gets
 * done one at a time, after what was out has ended, against what got done just before. If it is HEAD_GAIN times as much it stays so, until
 * that is less than HEAD_KEEP times what gets done without a limit, which is tried in the same way. Both only when it was so twice in a row.
 * Measure: pages a second of reads and writes together, without the time in which nobody wanted any. It is for writes: when there were none in
 *          a whole measurement, there is no limit; those that come after them are tried anew.
 * Cost:    a trial ends when it gets less done than before, and there is none for HEAD_REST times as long as the last one took, or for twice the last
 *          pause, if that is longer, up to HEAD_PAUSE_MAX_NS. So trials take no more than 1 % of what gets done.
 * Unit:    CLOCK_MONOTONIC nanoseconds.
 * Locking: none: the caller's, but for from_ns.
 */
#ifndef DRUM_HEAD_H
#define DRUM_HEAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
  HEAD_SLOW_NS = 1000 * 1000, /* a device whose writes take less is not tried */
  HEAD_REQUESTS = 32,         /* at least so many, and for so long, before it is judged */
  HEAD_BEST_NS = 100 * 1000 * 1000,
  HEAD_TRIAL_NS = 50 * 1000 * 1000,
  HEAD_LOST_NS =
    10 * 1000 * 1000, /* the same for less than before, or the time that so many took */
  HEAD_REST = 100,
};
#define HEAD_GAIN         1.5
#define HEAD_KEEP         1.2
#define HEAD_PAUSE_MAX_NS (UINT64_C (120) * 1000 * 1000 * 1000)

/* The fields are head.c's, but these two are for all to read. */
struct head {
  _Atomic uint64_t
    from_ns; /* slow writes that end from then on are to be noted; 0: all that ends */
  bool one;  /* at a time; false: there is no limit */
  bool best; /* the same, but when the other one is tried */
  unsigned nwon;
  uint64_t next_ns, pause_ns, cost_ns;
  uint64_t changed_ns; /* what began before was out with another limit */
  uint64_t idle_ns;    /* nobody has wanted anything since then; 0: somebody does */
  uint64_t skipped_ns; /* of such times; what follows is without them */
  uint64_t tried_ns;   /* when the limit changed */
  uint64_t since_ns;   /* what is below was counted since then; 0: nothing */
  unsigned nrequests, nwrites;
  uint64_t npages;
  double page_ns, request_ns; /* of the best one, when it was looked at last */
};

/* A request that has ended. */
struct head_io {
  uint64_t begin_ns, end_ns;
  uint32_t npages;
  bool write;
  bool alone; /* nobody else is out, or waits */
};

/* Also of one that others look at. */
void head_init (struct head *h);

void head_note (struct head *h, const struct head_io *io);

/* Nothing that is out now, or was just before, tells anything: somebody else says how much at once. What was found stays. */
void head_interrupt (struct head *h, uint64_t now_ns);

/* One at a time has kept others waiting for so long, for nothing: there is no limit, and no trial soon. */
void head_give_up (struct head *h, uint64_t now_ns, uint64_t cost_ns);

#endif
