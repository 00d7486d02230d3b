/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rates.h - what happened between two snapshots, per second; and the latencies of it.
 *
 * Latencies come from a histogram whose buckets double: a value is the upper bound of its bucket, so the true one is no more
 * than that, and more than half of it.
 */
#ifndef DRUMCTL_RATES_H
#define DRUMCTL_RATES_H

#include <stdbool.h>

#include "snapshot.h"

struct rates {
  double requests, bytes; /* a second */
  uint64_t errors;        /* all of them */
  uint64_t in_flight;     /* now */
  double p50, p99, max;   /* seconds; 0: there were no requests; INFINITY: beyond the last bound */
};

/* before NULL: since there are counters. Counters that are lower than before have begun anew. */
struct rates rates_between (const struct snapshot *now, const struct counters *before,
                            const struct counters *counters, double seconds);

/* Of the server's time. The first snapshot, or one of a server that was started again, covers all of it. */
double rates_seconds (const struct snapshot *before, const struct snapshot *now);
bool rates_same_server (const struct snapshot *before, const struct snapshot *now);

#endif
