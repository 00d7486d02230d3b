/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stats.c - tests of lib/stats.c. The clock is the test's: now_ns comes from here.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <time.h>

#include "lib/stats.h"

static _Thread_local struct timespec fake_time;

int __wrap_clock_gettime (clockid_t clock, struct timespec *ts);

int
__wrap_clock_gettime (clockid_t clock, struct timespec *ts)
{
  cr_assert_eq (clock, CLOCK_MONOTONIC);
  *ts = fake_time;
  return 0;
}

static struct stats stats;
static struct stats_snapshot snapshot;

/* A request that takes so long. */
static void
request (uint64_t ns, uint64_t nbytes, int ret)
{
  uint64_t begin_ns;

  fake_time = (struct timespec){ .tv_sec = 12345, .tv_nsec = 999999999 };
  begin_ns = now_ns ();
  stats_begin (&stats);
  cr_assert_eq (begin_ns, UINT64_C (12345999999999));
  fake_time.tv_sec = (time_t) ((begin_ns + ns) / 1000000000);
  fake_time.tv_nsec = (long) ((begin_ns + ns) % 1000000000);
  stats_end (&stats, begin_ns, now_ns (), nbytes, ret);
  stats_read (&stats, &snapshot);
}

/* The bucket of the only request since the last call. */
static unsigned
bucket_of (uint64_t ns)
{
  static struct stats_snapshot before;
  unsigned found = STATS_BUCKETS;

  request (ns, 1, 0);
  for (unsigned k = 0; k < STATS_BUCKETS; k++) {
    if (snapshot.bucket[k] == before.bucket[k])
      continue;
    cr_assert_eq (snapshot.bucket[k], before.bucket[k] + 1);
    cr_assert_eq (found, STATS_BUCKETS, "in two buckets");
    found = k;
  }
  before = snapshot;
  return found;
}

/* Bucket k ends at 2^k microseconds, to the nanosecond; the last has no end. */
Test (stats, buckets_end_where_they_say)
{
  cr_assert_eq (bucket_of (0), 0);
  for (unsigned k = 0; k < STATS_BUCKETS - 1; k++) {
    uint64_t end_ns = (UINT64_C (1) << k) * 1000;

    cr_assert_eq (bucket_of (end_ns), k, "%" PRIu64 " ns", end_ns);
    cr_assert_eq (bucket_of (end_ns + 1), k + 1, "%" PRIu64 " ns", end_ns + 1);
    cr_assert_float_eq (stats_bucket_seconds (k) * 1e9, (double) end_ns, 1e-3);
  }
  cr_assert_eq (bucket_of (UINT64_C (1) << 60), STATS_BUCKETS - 1);
}

/* Pages are counted when they were transferred, errors when not; time either way. */
Test (stats, counts_what_was_done)
{
  request (5, 7, 0);
  request (10, 100, -EIO);
  request (20, 3, 0);
  cr_assert_eq (snapshot.nrequests, 3);
  cr_assert_eq (snapshot.nbytes, 10);
  cr_assert_eq (snapshot.nerrors, 1);
  cr_assert_eq (snapshot.total_ns, 35);
  cr_assert_eq (snapshot.in_flight, 0);
}

/* What has begun and not ended is in flight, and nowhere else. */
Test (stats, counts_what_is_in_flight)
{
  stats_begin (&stats);
  stats_begin (&stats);
  stats_read (&stats, &snapshot);
  cr_assert_eq (snapshot.in_flight, 2);
  cr_assert_eq (snapshot.nrequests, 0);
  stats_end (&stats, 1, 2, 1, 0);
  stats_read (&stats, &snapshot);
  cr_assert_eq (snapshot.in_flight, 1);
  stats_end (&stats, 1, 2, 1, -EIO);
  stats_read (&stats, &snapshot);
  cr_assert_eq (snapshot.in_flight, 0);
}

enum { NTHREADS = 8, NREQUESTS = 20000 };

static void *
hammer (void *arg)
{
  (void) arg;
  for (unsigned i = 0; i < NREQUESTS; i++) {
    stats_begin (&stats);
    stats_end (&stats, 1000, 1000 + (i % 2 ? 1500 : 3000), 2,
               i % 4 ? 0 : -EIO); /* buckets 1 and 2 */
  }
  return NULL;
}

/* Nothing is lost, whoever counts at the same time. */
Test (stats, threads_lose_nothing, .timeout = 60)
{
  pthread_t thread[NTHREADS];
  uint64_t n = NTHREADS * NREQUESTS;

  for (unsigned i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, hammer, NULL), 0);
  for (unsigned i = 0; i < 1000; i++) {
    stats_read (&stats, &snapshot);
    cr_assert_leq (snapshot.nrequests, n);
    cr_assert_leq (snapshot.in_flight, NTHREADS);
  }
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  stats_read (&stats, &snapshot);
  cr_assert_eq (snapshot.nrequests, n);
  cr_assert_eq (snapshot.nerrors, n / 4);
  cr_assert_eq (snapshot.nbytes, n / 4 * 3 * 2);
  cr_assert_eq (snapshot.total_ns, n / 2 * 4500);
  cr_assert_eq (snapshot.bucket[1], n / 2);
  cr_assert_eq (snapshot.bucket[2], n / 2);
  cr_assert_eq (snapshot.in_flight, 0);
}
