/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stats.h - counters of one kind of I/O (the reads of a device, the trims of an export), since it exists.
 *
 * Unit:    latencies in nanoseconds; the histogram's bucket k counts those of at most 2^k microseconds, and of more than
 *          bucket k - 1's; the last has no upper bound.
 * Locking: none: relaxed atomics, so that counting costs some nanoseconds and stops nobody; a reader sees each counter
 *          exact, but not all of one moment.
 * Memory:  the caller's, zeroed; nothing here allocates.
 */
#ifndef DRUM_STATS_H
#define DRUM_STATS_H

#include <stdint.h>

enum { STATS_BUCKETS = 28 }; /* the last but one ends at 2^26 us, 67 s */

/* The fields are stats.c's. The requests that ended are those in the buckets. */
struct stats {
  _Alignas(64) _Atomic uint64_t nbegun;
  _Atomic uint64_t nbytes;  /* transferred without an error */
  _Atomic uint64_t nerrors; /* requests that failed */
  _Atomic uint64_t total_ns;
  _Atomic uint64_t last_ns; /* when a request ended, now_ns; 0: none has */
  _Atomic uint64_t bucket[STATS_BUCKETS];
};

/* What they say at one time. */
struct stats_snapshot {
  uint64_t nrequests, nbytes, nerrors, total_ns, last_ns;
  uint32_t in_flight;
  uint64_t bucket[STATS_BUCKETS];
};

/* CLOCK_MONOTONIC. */
uint64_t now_ns (void);

/* The same, where somebody may know it: nobody has waited, or worked for long, since it was read. *known_ns is 0 if nobody does; then it is read, and
 * known. To read it takes some 40 ns in a virtual machine, and what is counted in several places begins and ends in all of them at once. */
static inline uint64_t
current_ns (uint64_t *known_ns)
{
  if (*known_ns == 0)
    *known_ns = now_ns ();
  return *known_ns;
}

/* A request begins. It ends: ret is its result, 0 or -errno; returns how long it took. */
void stats_begin (struct stats *s);
uint64_t stats_end (struct stats *s, uint64_t begin_ns, uint64_t end_ns, uint64_t nbytes, int ret);

void stats_read (const struct stats *s, struct stats_snapshot *snapshot);

/* The upper bound of bucket k, in seconds; k is less than STATS_BUCKETS - 1. */
double stats_bucket_seconds (unsigned k);

#endif
