/* SPDX-License-Identifier: BSD-3-Clause
 *
 * flow.h - whose request is it? What an export's requests have in common where they meet those of others: a weight, by which a
 * device's time is shared (turnstile.h), and caps that hold whether others want the device or not.
 *
 * The server's own requests, which move pages and look at them, are one more flow of the default weight, which has no record: NULL.
 * Caps:    no more than so many requests, and bytes, a second, but the first 100 ms' worth of them, or one request, at once after a
 *          pause (the virtual scheduling of ATM's GCRA: one number for each cap, the time at which all so far is paid for).
 * Unit:    CLOCK_MONOTONIC nanoseconds (now_ns); bytes.
 * Locking: none; any number of threads at once. Without caps a request costs one relaxed load.
 * Memory:  the caller's.
 */
#ifndef DRUM_FLOW_H
#define DRUM_FLOW_H

#include <stdatomic.h>
#include <stdint.h>

enum {
  FLOW_BURST_NS = 100 * 1000 * 1000,
  FLOW_LOOK_NS =
    100 * 1000 * 1000, /* how often who waits looks whether the caps are others by now */
};

/* The fields are flow.c's. */
struct flow {
  _Atomic unsigned weight;
  atomic_bool capped; /* by one of them at least */
  struct flow_cap {
    _Atomic uint64_t rate;    /* a second; 0: no cap */
    _Atomic uint64_t paid_ns; /* when all so far is */
  } requests, bytes;
  _Atomic uint64_t paced_ns; /* sum of what requests were to wait */
};

/* The default weight, and no caps. */
void flow_init (struct flow *f);

/* weight: 1 to EXPORT_WEIGHT_MAX; iops and bandwidth: 0 for none. Who waits because of other caps goes on. */
void flow_set_share (struct flow *f, unsigned weight, uint64_t iops, uint64_t bandwidth);

/* f may be NULL. */
unsigned flow_weight (const struct flow *f);

/* How long does a request for so many bytes have to wait? *until_ns is 0 at first; who has slept asks again, until it is 0: at most FLOW_LOOK_NS
 * at a time. */
uint64_t flow_pace (struct flow *f, uint64_t nbytes, uint64_t *until_ns);

/* What that was in all, so far. */
uint64_t flow_paced_ns (const struct flow *f);

#endif
