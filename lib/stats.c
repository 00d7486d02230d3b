/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "stats.h"

#include <stdatomic.h>
#include <time.h>

uint64_t
now_ns (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000000000 + (uint64_t) ts.tv_nsec;
}

static void
add (_Atomic uint64_t *counter, uint64_t n)
{
  atomic_fetch_add_explicit (counter, n, memory_order_relaxed);
}

static uint64_t
get (const _Atomic uint64_t *counter)
{
  return atomic_load_explicit (counter, memory_order_relaxed);
}

void
stats_begin (struct stats *s)
{
  add (&s->nbegun, 1);
}

/* The first k with ns <= 2^k microseconds. */
static unsigned
bucket_of (uint64_t ns)
{
  uint64_t us = (ns + 999) / 1000;
  unsigned k = us <= 1 ? 0 : 64 - (unsigned) __builtin_clzll (us - 1);

  return k < STATS_BUCKETS ? k : STATS_BUCKETS - 1;
}

uint64_t
stats_end (struct stats *s, uint64_t begin_ns, uint64_t end_ns, uint64_t nbytes, int ret)
{
  uint64_t ns = end_ns - begin_ns;

  if (ret < 0)
    add (&s->nerrors, 1);
  else
    add (&s->nbytes, nbytes);
  add (&s->total_ns, ns);
  atomic_store_explicit (&s->last_ns, end_ns, memory_order_relaxed);
  add (&s->bucket[bucket_of (ns)], 1);
  return ns;
}

void
stats_read (const struct stats *s, struct stats_snapshot *snapshot)
{
  /* First those that began: of one that ended meanwhile it is known that it began. */
  uint64_t nbegun = atomic_load_explicit (&s->nbegun, memory_order_acquire);

  *snapshot = (struct stats_snapshot){
    .nbytes = get (&s->nbytes),
    .nerrors = get (&s->nerrors),
    .total_ns = get (&s->total_ns),
    .last_ns = get (&s->last_ns),
  };
  for (unsigned k = 0; k < STATS_BUCKETS; k++) {
    snapshot->bucket[k] = get (&s->bucket[k]);
    snapshot->nrequests += snapshot->bucket[k];
  }
  if (nbegun > snapshot->nrequests)
    snapshot->in_flight = (uint32_t) (nbegun - snapshot->nrequests);
}

double
stats_bucket_seconds (unsigned k)
{
  return (double) (UINT64_C (1) << k) / 1e6;
}
