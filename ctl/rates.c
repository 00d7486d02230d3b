/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "rates.h"

#include <math.h>

/* The bound of the first bucket with which at least part of all are counted. */
static double
quantile (const struct snapshot *now, const uint64_t *histogram, uint64_t all, double part)
{
  uint64_t n = 0;

  for (unsigned k = 0; k + 1 < now->nbuckets; k++) {
    n += histogram[k];
    if (n > 0 && (double) n >= part * (double) all)
      return now->bounds[k];
  }
  return INFINITY;
}

static uint64_t
grown (uint64_t before, uint64_t now)
{
  return now > before ? now - before : 0;
}

struct rates
rates_between (const struct snapshot *now, const struct counters *before,
               const struct counters *counters, double seconds)
{
  static const struct counters none = { .requests = 0 };
  struct rates rates = { .in_flight = counters->in_flight };
  uint64_t histogram[MAX_BUCKETS], all = 0;

  if (!before || before->requests > counters->requests)
    before = &none;
  for (unsigned k = 0; k < now->nbuckets; k++)
    all += histogram[k] = grown (before->histogram[k], counters->histogram[k]);
  rates.errors = grown (before->errors, counters->errors);
  if (seconds > 0) {
    rates.requests = (double) grown (before->requests, counters->requests) / seconds;
    rates.bytes = (double) grown (before->bytes, counters->bytes) / seconds;
  }
  if (all) {
    rates.p50 = quantile (now, histogram, all, 0.5);
    rates.p99 = quantile (now, histogram, all, 0.99);
    rates.max = quantile (now, histogram, all, 1);
  }
  return rates;
}

bool
rates_same_server (const struct snapshot *before, const struct snapshot *now)
{
  return before && before->pid == now->pid && before->uptime <= now->uptime;
}

double
rates_seconds (const struct snapshot *before, const struct snapshot *now)
{
  return rates_same_server (before, now) ? now->uptime - before->uptime : now->uptime;
}
