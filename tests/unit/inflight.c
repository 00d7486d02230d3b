/* SPDX-License-Identifier: BSD-3-Clause
 *
 * inflight.c - tests of lib/inflight.c. I/O began as long ago as the test says, so that nothing has to wait.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>

#include "lib/inflight.h"
#include "lib/stats.h"
#include "tests/random.h"

#include "logged.h"

#define SECOND UINT64_C (1000000000)

enum { LIMIT_SECONDS = 20 };

static struct inflight table;
static uint64_t start_ns; /* "now" of all tests */

static void
setup (void)
{
  logged_start ();
  start_ns = now_ns ();
}

TestSuite (inflight, .init = setup, .timeout = 60);

static void
scan (uint64_t now)
{
  inflight_scan (&table, "/srv/a", now, LIMIT_SECONDS * SECOND);
}

/* I/O that is out for less than the limit is nobody's business. */
Test (inflight, says_nothing_about_quick_ones)
{
  struct inflight_io *io = inflight_begin (&table, start_ns, false, 30, 16);

  scan (start_ns - SECOND); /* the scan's clock may have been read before the I/O began */
  scan (start_ns);
  scan (start_ns + LIMIT_SECONDS * SECOND - 4);
  inflight_end (io, 0);
  scan (start_ns + 100 * SECOND);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* What is out for longer is said once, and once more when it ends, with the time from begin to end. */
Test (inflight, says_what_does_not_come_back)
{
  struct inflight_io *io = inflight_begin (&table, start_ns - 34 * SECOND, false, 30, 16);

  scan (start_ns - 14 * SECOND);
  cr_assert_str_eq (logged_last (),
                    "still waiting for a read of 64K at offset 122880 of /srv/a: 20 s");
  cr_assert (logged_last_level () == LEVEL_WARNING);
  scan (start_ns - 13 * SECOND);
  cr_assert_eq (logged_count (""), 1);
  inflight_end (io, 0);
  cr_assert_eq (logged_count (""), 1, "logged by the I/O path");
  scan (start_ns + 100 * SECOND);
  cr_assert_str_eq (logged_last (),
                    "a read of 64K at offset 122880 of /srv/a took 34 s in the end");
  scan (start_ns + 200 * SECOND);
  cr_assert_eq (logged_count (""), 2);
}

/* An error at the end is said, too; offsets beyond 4 GiB are right. */
Test (inflight, says_the_error)
{
  struct inflight_io *io = inflight_begin (&table, start_ns - 60 * SECOND, true, 1 << 20, 1);

  scan (start_ns);
  cr_assert_str_eq (logged_last (),
                    "still waiting for a write of 4K at offset 4294967296 of /srv/a: 60 s");
  inflight_end (io, -EIO);
  scan (start_ns);
  cr_assert_str_eq (
    logged_last (),
    "a write of 4K at offset 4294967296 of /srv/a failed after 60 s: Input/output error");
}

/* An entry whose end is still to be reported is not taken by other I/O; afterwards it is. */
Test (inflight, reported_entries_wait_for_the_scan)
{
  struct inflight_io *io[INFLIGHT_MAX];

  for (unsigned i = 0; i < INFLIGHT_MAX; i++)
    io[i] = inflight_begin (&table, start_ns - 30 * SECOND, false, i, 1);
  scan (start_ns);
  cr_assert_eq (logged_count ("still waiting"), INFLIGHT_MAX);
  inflight_end (io[5], 0);
  cr_assert_null (inflight_begin (&table, start_ns, false, 1, 1));
  scan (start_ns);
  cr_assert_eq (inflight_begin (&table, start_ns, false, 1, 1), io[5]);
}

/* As many as the table has are watched, each in an entry of its own; further I/O is not, and goes on. */
Test (inflight, a_full_table_stops_nobody)
{
  struct inflight_io *io[INFLIGHT_MAX];

  for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
    io[i] = inflight_begin (&table, start_ns, false, 1, 1);
    cr_assert_not_null (io[i]);
    for (unsigned j = 0; j < i; j++)
      cr_assert_neq (io[i], io[j]);
  }
  cr_assert_null (inflight_begin (&table, start_ns, false, 1, 1));
  inflight_end (NULL, 0);
  inflight_end (io[17], 0);
  cr_assert_eq (inflight_begin (&table, start_ns, false, 1, 1), io[17]);
}

/* The oldest is that of all which are still out, reported or not; to 4 ns. */
Test (inflight, knows_the_oldest)
{
  struct inflight_io *a, *b, *c;
  uint64_t now = start_ns & ~(uint64_t) 3;

  cr_assert_eq (inflight_oldest_ns (&table), 0);
  b = inflight_begin (&table, now - 50 * SECOND, false, 1, 1);
  a = inflight_begin (&table, now - 60 * SECOND + 3, true, 1, 1);
  c = inflight_begin (&table, now, false, 1, 1);
  cr_assert_eq (inflight_oldest_ns (&table), now - 60 * SECOND);
  scan (now);
  cr_assert_eq (inflight_oldest_ns (&table), now - 60 * SECOND);
  inflight_end (a, 0);
  cr_assert_eq (inflight_oldest_ns (&table), now - 50 * SECOND, "ended, and still the oldest");
  inflight_end (b, 0);
  cr_assert_eq (inflight_oldest_ns (&table), now);
  inflight_end (c, 0);
  cr_assert_eq (inflight_oldest_ns (&table), 0);
}

enum { NTHREADS = 16 };

static atomic_uint nrunning;
static atomic_uint nslow;   /* that were watched */
static atomic_uint nstolen; /* entries with another owner */

/* One I/O in eight is slow: those the scan may report. Its fields say whose it is. */
static void *
hammer (void *arg)
{
  uint32_t who = (uint32_t) (uintptr_t) arg;

  for (unsigned i = 0; i < random_steps (20000); i++) {
    bool slow = i % 8 == 0;
    struct inflight_io *io =
      inflight_begin (&table, start_ns - (slow ? 30 : 0) * SECOND, who % 2, who, who + 1);

    if (!io)
      continue;
    if (slow) {
      atomic_fetch_add (&nslow, 1);
      sched_yield ();
    }
    if (io->first_slot != who || io->nslots != who + 1)
      atomic_fetch_add (&nstolen, 1);
    inflight_end (io, 0);
  }
  atomic_fetch_sub (&nrunning, 1);
  return NULL;
}

static atomic_uint nsaid[2]; /* waits, ends */

static void
count_messages (enum log_level level, const char *fmt, va_list args)
{
  (void) level, (void) args;
  atomic_fetch_add (&nsaid[strncmp (fmt, "still", 5) != 0], 1);
}

/* While threads begin and end and one scans, no entry has two owners, and each wait that is said is followed by its end. */
Test (inflight, threads_share_the_table)
{
  pthread_t thread[NTHREADS];

  log_set_sink (count_messages);
  atomic_store (&nrunning, NTHREADS);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, hammer, (void *) i), 0);
  while (atomic_load (&nrunning)) {
    scan (start_ns);
    inflight_oldest_ns (&table);
  }
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  scan (start_ns);
  cr_assert_eq (nstolen, 0, "entries have two owners");
  cr_assert_eq (nsaid[0], nsaid[1], "%u waits and %u ends", nsaid[0], nsaid[1]);
  cr_assert_gt (nsaid[0], 0);
  cr_assert_leq (nsaid[0], nslow, "quick I/O was reported");
  cr_assert_eq (inflight_oldest_ns (&table), 0);
  for (unsigned i = 0; i < INFLIGHT_MAX; i++)
    cr_assert_not_null (inflight_begin (&table, start_ns, false, 1, 1), "an entry got lost");
}
