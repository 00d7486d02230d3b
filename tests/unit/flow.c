/* SPDX-License-Identifier: BSD-3-Clause
 *
 * flow.c - tests of lib/flow.c, in a time of their own.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "lib/flow.h"
#include "lib/stats.h"
#include "lib/terms.h"
#include "tests/random.h"

#define MS UINT64_C (1000000)
#define S  (1000 * MS)

static struct flow f;
static _Atomic uint64_t now;

uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return atomic_load (&now);
}

static void
setup (void)
{
  flow_init (&f);
  atomic_store (&now, 1000 * S);
}

TestSuite (flow, .init = setup, .timeout = 60);

/* How long the next request has to wait, whole. Nobody else's time passes. */
static uint64_t
wait_ns (uint64_t nbytes)
{
  uint64_t until_ns = 0;

  flow_pace (&f, nbytes, &until_ns);
  return until_ns > now ? until_ns - now : 0;
}

/* A request sleeps as it is told until it may begin. */
static void
make_request (uint64_t nbytes)
{
  uint64_t until_ns = 0, begin = now, before = flow_paced_ns (&f), ns;

  while ((ns = flow_pace (&f, nbytes, &until_ns)) > 0) {
    cr_assert_leq (ns, FLOW_LOOK_NS);
    atomic_fetch_add (&now, ns);
  }
  cr_assert_eq (flow_paced_ns (&f) - before, now - begin);
}

Test (flow, default_weight)
{
  cr_assert_eq (flow_weight (&f), EXPORT_WEIGHT_DEFAULT);
  cr_assert_eq (flow_weight (NULL), EXPORT_WEIGHT_DEFAULT);
  flow_set_share (&f, 7, 0, 0);
  cr_assert_eq (flow_weight (&f), 7);
  flow_set_share (&f, 0, 0, 0);
  cr_assert_eq (flow_weight (&f), EXPORT_WEIGHT_DEFAULT);
}

/* Without a cap nothing waits, whatever was before. */
Test (flow, no_caps)
{
  for (unsigned i = 0; i < 1000; i++)
    cr_assert_eq (wait_ns (1 << 30), 0);
  flow_set_share (&f, 100, 1, 1);
  cr_assert_eq (wait_ns (1 << 20), 0);
  cr_assert_gt (wait_ns (1), 0);
  flow_set_share (&f, 100, 0, 0);
  cr_assert_eq (wait_ns (1 << 20), 0);
}

/* So many requests a second, and no fewer, after a burst of 100 ms' worth. */
Test (flow, iops)
{
  uint64_t begin = now;
  unsigned burst = 0;

  flow_set_share (&f, 100, 200, 0);
  while (now == begin) {
    make_request (4096);
    burst += now == begin;
  }
  cr_assert (burst >= 20 && burst <= 21, "%u at once", burst);
  for (unsigned i = 0; i < 2000; i++)
    make_request (1 << 20);
  cr_assert (now - begin >= 9900 * MS && now - begin <= 10100 * MS, "%" PRIu64, now - begin);
}

/* So many bytes a second, whatever the sizes are. */
Test (flow, bandwidth)
{
  struct rng rng = rng_for (3);
  uint64_t begin = now, nbytes = 0, ms;

  flow_set_share (&f, 100, 0, 10 << 20);
  for (unsigned i = 0; i < 2000; i++) {
    uint64_t n = 1 + rng_below (&rng, 256 << 10);

    make_request (n);
    nbytes += n;
  }
  ms = nbytes * 1000 / (10 << 20);
  cr_assert ((now - begin) / MS >= ms - 200 && (now - begin) / MS <= ms + 1,
             "%" PRIu64 " not %" PRIu64, (now - begin) / MS, ms);
}

/* Both: the one that is nearer. */
Test (flow, both)
{
  uint64_t begin = now;

  flow_set_share (&f, 100, 100, 1 << 20);
  for (unsigned i = 0; i < 1000; i++) /* 4 MiB */
    make_request (4096);
  cr_assert (now - begin >= 9800 * MS && now - begin <= 10 * S);
  begin = now;
  for (unsigned i = 0; i < 100; i++) /* 100 MiB */
    make_request (1 << 20);
  cr_assert (now - begin >= 98 * S && now - begin <= 101 * S);
}

/* A request that is larger than the burst goes at once after a pause, and is paid for afterwards. */
Test (flow, one_large_request)
{
  flow_set_share (&f, 100, 0, 1 << 20);
  cr_assert_eq (wait_ns (32 << 20), 0);
  cr_assert_eq (wait_ns (1), 32 * S - FLOW_BURST_NS);
  atomic_fetch_add (&now, 100 * S);
  cr_assert_eq (wait_ns (32 << 20), 0);
}

/* Pauses earn no more than a burst. */
Test (flow, idleness_earns_a_burst)
{
  unsigned n = 0;

  flow_set_share (&f, 100, 100, 0);
  atomic_fetch_add (&now, 1000 * S);
  while (wait_ns (1) == 0)
    n++;
  cr_assert (n >= 10 && n <= 11, "%u", n);
}

/* Who waits by a cap that is changed goes on; and the next ones by the new one. */
Test (flow, caps_change)
{
  uint64_t until_ns = 0, begin = now;

  flow_set_share (&f, 100, 0, 1);
  make_request (1 << 20);
  cr_assert_eq (flow_pace (&f, 1, &until_ns), FLOW_LOOK_NS);
  flow_set_share (&f, 100, 0, 1 << 20);
  cr_assert_eq (flow_pace (&f, 1, &until_ns), 0);
  make_request (4096);
  cr_assert_eq (now, begin);
  flow_set_share (&f, 100, 0, 1 << 20); /* no change */
  for (unsigned i = 0; i < 1024; i++)
    make_request (4096);
  cr_assert (now - begin >= 3900 * MS && now - begin <= 4 * S);
}

enum { NTHREADS = 4, NREQUESTS = 200000 };

static pthread_barrier_t all_there;

static void *
many_main (void *arg)
{
  pthread_barrier_wait (&all_there);
  for (unsigned i = 0; i < NREQUESTS; i++)
    flow_pace (&f, 4096, &(uint64_t){ 0 });
  return arg;
}

/* Threads at once forget nobody's request. */
Test (flow, many_threads)
{
  pthread_t thread[NTHREADS];

  pthread_barrier_init (&all_there, NULL, NTHREADS);
  flow_set_share (&f, 100, 1000, 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, many_main, NULL), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (wait_ns (1), NTHREADS * NREQUESTS * MS - FLOW_BURST_NS);
}

static _Atomic unsigned npaced;
static atomic_bool stop;

static void *
pace_main (void *arg)
{
  while (!atomic_load (&stop)) {
    flow_pace (&f, 1 << 20, &(uint64_t){ 0 });
    atomic_fetch_add (&npaced, 1);
  }
  return arg;
}

/* What the old rate owed is forgotten also for those who are just being charged. */
Test (flow, caps_change_meanwhile)
{
  pthread_t thread;

  flow_set_share (&f, 100, 0, 1 << 20);
  cr_assert_eq (pthread_create (&thread, NULL, pace_main, NULL), 0);
  for (unsigned i = 0; i < 5000; i++) {
    unsigned before;

    flow_set_share (&f, 100, 0, 1 << 16);
    flow_set_share (&f, 100, 0, UINT64_C (1) << 50);
    before = atomic_load (&npaced);
    while (atomic_load (&npaced) - before < 2) /* one of them has begun since */
      sched_yield ();
    cr_assert_eq (wait_ns (1), 0, "change %u", i);
  }
  atomic_store (&stop, true);
  pthread_join (thread, NULL);
}
