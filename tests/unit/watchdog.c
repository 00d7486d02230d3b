/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watchdog.c - tests of lib/watchdog.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "lib/stats.h"
#include "lib/watchdog.h"

static int pthread_create_error;

int __real_pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *),
                           void *arg);
int __wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *),
                           void *arg);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *),
                       void *arg)
{
  return pthread_create_error ? pthread_create_error
                              : __real_pthread_create (thread, attr, main, arg);
}

static struct watchdog *w;
static sem_t scanned, may_go_on;
static atomic_uint nscans;
static _Atomic uint64_t first_ns, last_ns;
static atomic_bool takes_signals;

static void
setup (void)
{
  sem_init (&scanned, 0, 0);
  sem_init (&may_go_on, 0, 0);
}

TestSuite (watchdog, .init = setup, .timeout = 30);

/* To see that something does not happen. */
static void
pause_for (uint64_t ns)
{
  nanosleep (&(struct timespec){ .tv_nsec = (long) ns }, NULL);
}

static void
scan (void *opaque, uint64_t now)
{
  sigset_t blocked;

  pthread_sigmask (SIG_SETMASK, NULL, &blocked);
  if (!sigismember (&blocked, SIGTERM) || !sigismember (&blocked, SIGCHLD))
    atomic_store (&takes_signals, true);
  atomic_store (&last_ns, now);
  if (atomic_fetch_add (&nscans, 1) == 0)
    atomic_store (&first_ns, now);
  sem_post (opaque);
}

/* Scans come one after the other, with the time, the first after an interval; and none after the stop. */
Test (watchdog, scans_again_and_again)
{
  uint64_t begin_ns = now_ns (), interval_ns = 10000000;
  unsigned n;

  cr_assert_eq (watchdog_start (10, scan, &scanned, &w), 0);
  for (unsigned i = 0; i < 5; i++)
    sem_wait (&scanned);
  watchdog_stop (w);
  n = nscans;
  cr_assert_geq (first_ns, begin_ns + interval_ns);
  cr_assert_geq (last_ns, begin_ns + n * interval_ns);
  cr_assert_leq (last_ns, now_ns ());
  pause_for (2 * interval_ns);
  cr_assert_eq (nscans, n, "it scans after its stop");
}

/* A stop does not wait for the interval to pass (nor, then, for the test's timeout). */
Test (watchdog, stops_at_once)
{
  cr_assert_eq (watchdog_start (3600 * 1000, scan, &scanned, &w), 0);
  pause_for (10000000); /* it sleeps by now, most likely */
  watchdog_stop (w);
  cr_assert_eq (nscans, 0);
}

/* Its thread takes no signals away from the program's; the one that starts it takes them as before. */
Test (watchdog, takes_no_signals)
{
  sigset_t blocked;

  cr_assert_eq (watchdog_start (1, scan, &scanned, &w), 0);
  sem_wait (&scanned);
  watchdog_stop (w);
  cr_assert_not (takes_signals);
  pthread_sigmask (SIG_SETMASK, NULL, &blocked);
  cr_assert_not (sigismember (&blocked, SIGTERM));
}

static void
slow_scan (void *opaque, uint64_t now)
{
  scan (opaque, now);
  if (nscans == 1)
    sem_wait (&may_go_on);
}

static void *
stop (void *arg)
{
  watchdog_stop (w);
  return arg;
}

/* A stop waits for the scan that is running, and there is no other after it. */
Test (watchdog, stop_waits_for_the_scan)
{
  pthread_t stopper;
  unsigned n;

  cr_assert_eq (watchdog_start (1, slow_scan, &scanned, &w), 0);
  sem_wait (&scanned);
  cr_assert_eq (pthread_create (&stopper, NULL, stop, NULL), 0);
  pause_for (10000000);
  cr_assert_eq (pthread_tryjoin_np (stopper, NULL), EBUSY, "it did not wait");
  sem_post (&may_go_on);
  pthread_join (stopper, NULL);
  n = nscans;
  pause_for (5000000);
  cr_assert_eq (nscans, n, "it scans after its stop");
}

/* Without a thread there is no watchdog, and nothing is left of it. */
Test (watchdog, says_that_there_is_no_thread)
{
  pthread_create_error = EAGAIN;
  cr_assert_eq (watchdog_start (1, scan, &scanned, &w), -EAGAIN);
  cr_assert_null (w, "output changed on failure");
}
