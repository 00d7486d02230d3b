/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "flow.h"

#include <stdbool.h>

#include "stats.h"
#include "terms.h"

void
flow_init (struct flow *f)
{
  flow_set_share (f, EXPORT_WEIGHT_DEFAULT, 0, 0);
}

/* What another rate owed is forgotten. */
static void
set_cap (struct flow_cap *cap, uint64_t rate)
{
  if (atomic_exchange (&cap->rate, rate) != rate)
    atomic_store (&cap->paid_ns, 0);
}

void
flow_set_share (struct flow *f, unsigned weight, uint64_t iops, uint64_t bandwidth)
{
  atomic_store (&f->weight, weight ? weight : EXPORT_WEIGHT_DEFAULT);
  set_cap (&f->requests, iops);
  set_cap (&f->bytes, bandwidth);
  atomic_store (&f->capped, iops || bandwidth);
}

unsigned
flow_weight (const struct flow *f)
{
  return f ? atomic_load_explicit (&f->weight, memory_order_relaxed) : EXPORT_WEIGHT_DEFAULT;
}

/* Have n more paid for. Returns when they may begin. */
static uint64_t
charge (struct flow_cap *cap, uint64_t n, uint64_t now_ns)
{
  uint64_t rate = atomic_load (&cap->rate), paid_ns = atomic_load (&cap->paid_ns), from_ns;

  if (rate == 0)
    return 0;
  do
    from_ns = paid_ns > now_ns ? paid_ns : now_ns;
  while (!atomic_compare_exchange_weak (&cap->paid_ns, &paid_ns,
                                        from_ns + (uint64_t) ((double) n * 1e9 / (double) rate)));
  if (atomic_load (&cap->rate) != rate)
    atomic_store (&cap->paid_ns, 0); /* set_cap may have done so before that */
  return from_ns - FLOW_BURST_NS;
}

/* Is this a time that the cap could still mean? No if it has been changed since, and forgotten what it had. */
static bool
may_mean (const struct flow_cap *cap, uint64_t until_ns)
{
  return atomic_load (&cap->paid_ns) >= until_ns + FLOW_BURST_NS;
}

uint64_t
flow_pace (struct flow *f, uint64_t nbytes, uint64_t *until_ns)
{
  uint64_t now, ns;

  if (!atomic_load_explicit (&f->capped, memory_order_relaxed))
    return 0;
  now = now_ns ();
  if (*until_ns == 0) {
    uint64_t requests_ns = charge (&f->requests, 1, now),
             bytes_ns = charge (&f->bytes, nbytes, now);

    *until_ns = requests_ns > bytes_ns ? requests_ns : bytes_ns;
  } else if (!may_mean (&f->requests, *until_ns) && !may_mean (&f->bytes, *until_ns))
    return 0;
  if (*until_ns <= now)
    return 0;
  ns = *until_ns - now;
  ns = ns < FLOW_LOOK_NS ? ns : FLOW_LOOK_NS;
  atomic_fetch_add_explicit (&f->paced_ns, ns, memory_order_relaxed);
  return ns;
}

uint64_t
flow_paced_ns (const struct flow *f)
{
  return atomic_load_explicit (&f->paced_ns, memory_order_relaxed);
}
