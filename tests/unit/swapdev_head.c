/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev_head.c - tests of lib/swapdev-io.c: one request at a time where that is more. preadv and pwritev come to a disk here that has to
 * seek, and may hang; threads write to it side by side, each to the next slots but in no order.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "lib/stats.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum { NSLOTS = 100000, NTHREADS = 16, LOT = 8, PAGE_NS = 100 * 1000, JUMP_NS = 3 * 1000 * 1000 };

static struct swapdev *dev;

/* The disk. */
static pthread_mutex_t disk = PTHREAD_MUTEX_INITIALIZER;
static off_t disk_at;
static uint64_t free_ns;
static atomic_bool hangs; /* the next call, and no other, until it is put back */
static atomic_uint nhanging;

/* What the threads do. */
static atomic_bool reads, stops;
static atomic_uint nbegun, ndone;
static pthread_t thread[NTHREADS];

static void
sleep_until (uint64_t ns)
{
  struct timespec until = { (time_t) (ns / 1000000000), (long) (ns % 1000000000) };

  while (clock_nanosleep (CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) != 0)
    ;
}

static ssize_t
serve (const struct iovec *iov, int niov, off_t at)
{
  size_t nbytes = 0;
  uint64_t now = now_ns (), end_ns;

  for (int i = 0; i < niov; i++)
    nbytes += iov[i].iov_len;
  if (atomic_load (&hangs) && atomic_fetch_add (&nhanging, 1) == 0)
    while (atomic_load (&hangs))
      sleep_until (now_ns () + 1000 * 1000);
  pthread_mutex_lock (&disk);
  free_ns = (free_ns > now ? free_ns : now) + PAGE_NS + (at == disk_at ? 0 : JUMP_NS);
  disk_at = at + (off_t) nbytes;
  end_ns = free_ns;
  pthread_mutex_unlock (&disk);
  sleep_until (end_ns);
  return (ssize_t) nbytes;
}

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at);

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t at)
{
  return at == 0 ? __real_preadv (fd, iov, niov, at) : serve (iov, niov, at);
}

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  return at == 0 ? __real_pwritev (fd, iov, niov, at) : serve (iov, niov, at);
}

/* Of each lot of slots the last one comes first, and so on, so that each of them is a jump, unless those that wait are put in order. */
static uint32_t
next_slot (void)
{
  unsigned n = atomic_fetch_add (&nbegun, 1);

  return SWAPDEV_NRESERVED + (n / LOT * LOT + LOT - 1 - n % LOT) % (NSLOTS / LOT * LOT);
}

static void *
work (void *arg)
{
  char page[PAGE_BYTES] = { 0 };

  (void) arg;
  while (!atomic_load (&stops)) {
    struct iovec iov = { page, sizeof page };

    if ((atomic_load (&reads) ? swapdev_read : swapdev_write) (dev, NULL, next_slot (), &iov, 1) <
        0)
      abort ();
    atomic_fetch_add (&ndone, 1);
  }
  return NULL;
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  dev = device_create ("a", 0, NSLOTS);
}

static void
begin (unsigned maxio)
{
  swapdev_set_maxio (dev, maxio);
  for (unsigned i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, work, NULL), 0);
}

static void
end (void)
{
  atomic_store (&stops, true);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
}

static void
teardown (void)
{
  swapdev_close (dev);
  scratch_teardown ();
}

TestSuite (swapdev_head, .init = setup, .fini = teardown, .timeout = 300);

static void
wait_done (unsigned n)
{
  for (unsigned end = atomic_load (&ndone) + n; atomic_load (&ndone) < end;)
    sleep_until (now_ns () + 1000 * 1000);
}

/* Until it stays so: a trial ends before so many are done. */
static void
wait_single (bool single)
{
  unsigned since = atomic_load (&ndone);

  while (atomic_load (&ndone) < since + 1000) {
    if (swapdev_is_single (dev) != single)
      since = atomic_load (&ndone);
    sleep_until (now_ns () + 1000 * 1000);
  }
}

/* Writes come to be one at a time, in the order of their slots, and the disk hardly seeks any more; reads that come after them are not. */
Test (swapdev_head, comes_and_goes)
{
  begin (0);
  wait_single (true);
  cr_assert_eq (swapdev_maxio (dev), 0);
  atomic_store (&reads, true);
  wait_single (false);
  atomic_store (&reads, false);
  wait_single (true);
  end ();
}

/* A limit that was asked for is the limit. */
Test (swapdev_head, maxio)
{
  begin (0);
  wait_single (true);
  swapdev_set_maxio (dev, NTHREADS);
  for (unsigned i = 0; i < 20; i++) {
    cr_assert_not (swapdev_is_single (dev));
    wait_done (50);
  }
  swapdev_set_maxio (dev, 0);
  wait_single (true);
  end ();
}

/* One that hangs does not hold up the others, who would not wait for it without us. */
Test (swapdev_head, hanging)
{
  begin (0);
  wait_single (true);
  atomic_store (&hangs, true);
  while (!atomic_load (&nhanging))
    sched_yield ();
  while (swapdev_is_single (dev))
    sched_yield ();
  for (unsigned i = 0; i < 20; i++) {
    wait_done (25);
    cr_assert_not (swapdev_is_single (dev));
  }
  atomic_store (&hangs, false);
  end ();
}
