/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev_io.c - tests of the transfers of lib/swapdev.c. preadv and pwritev go through here, so that they can be short,
 * be interrupted, or fail.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "lib/devio.h"
#include "lib/flow.h"
#include "lib/inflight.h"
#include "lib/stats.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"

enum { NSLOTS = 200 };

/* What the n-th call does: a positive number is how many bytes at most, 0 is a count of 0, a negative one -errno. Those behind the
 * last do the real thing. */
static long plan[64];
static unsigned nplanned, ncalls;
static struct rng *at_random; /* or: anything transient, at random */
static unsigned every;        /* or: every such call fails with every_error */
static int every_error;
static size_t asked[64]; /* bytes that the first calls were asked for */
static struct swapdev *dev;
static uint64_t *during; /* look at what is out during the call, and since when that is */

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);

static long
next_step (void)
{
  static const long transient[] = { -EINTR, -EAGAIN, -ENOMEM };
  unsigned n = ncalls++;

  if (every)
    return n % every == every - 1 ? -every_error : INT32_MAX;
  if (!at_random)
    return n < nplanned ? plan[n] : INT32_MAX;
  return rng_below (at_random, 3) ? (long) (1 + rng_below (at_random, 3 * PAGE_BYTES))
                                  : transient[rng_below (at_random, 3)];
}

/* Instead: calls are under way until they are told to end, and do nothing. */
static bool gated;
static atomic_uint nunderway, most_underway, may_end;

static ssize_t
pass_gate (void)
{
  unsigned n = atomic_fetch_add (&nunderway, 1) + 1, most = atomic_load (&most_underway);

  while (n > most && !atomic_compare_exchange_weak (&most_underway, &most, n))
    ;
  while (!atomic_load (&may_end))
    sched_yield ();
  atomic_fetch_sub (&nunderway, 1);
  return PAGE_BYTES;
}

/* The first most bytes of iov, in cut. */
static int
cut_iov (const struct iovec *iov, int niov, size_t most, struct iovec *cut)
{
  int n = 0;

  for (; n < niov && most > 0; n++) {
    cut[n] = iov[n];
    if (cut[n].iov_len > most)
      cut[n].iov_len = most;
    most -= cut[n].iov_len;
  }
  return n;
}

static ssize_t
step (ssize_t (*real) (int, const struct iovec *, int, off_t), int fd, const struct iovec *iov,
      int niov, off_t offset)
{
  struct iovec cut[NSLOTS];
  long what;

  if (gated)
    return pass_gate ();
  if (ncalls < 64) {
    asked[ncalls] = 0;
    for (int i = 0; i < niov; i++)
      asked[ncalls] += iov[i].iov_len;
  }
  what = next_step ();
  if (during) {
    *during = inflight_oldest_ns (swapdev_inflight (dev));
    inflight_scan (swapdev_inflight (dev), swapdev_path (dev), now_ns () + 1000, 0);
  }
  if (what < 0) {
    errno = (int) -what;
    return -1;
  }
  if (what == 0)
    return 0;
  niov = cut_iov (iov, niov, (size_t) what, cut);
  return real (fd, cut, niov, offset);
}

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset)
{
  return step (__real_preadv, fd, iov, niov, offset);
}

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset)
{
  return step (__real_pwritev, fd, iov, niov, offset);
}

static unsigned char data[NSLOTS * PAGE_BYTES], back[sizeof data];

static void
setup (void)
{
  struct rng rng = rng_for (99);

  scratch_setup ();
  logged_start ();
  dev = device_create ("a", 0, NSLOTS);
  rng_fill (&rng, data, sizeof data - 8);
  ncalls = 0;
}

static void
teardown (void)
{
  swapdev_close (dev);
  scratch_teardown ();
}

TestSuite (swapdev_io, .init = setup, .fini = teardown, .timeout = 60);

#define PLAN(...)                              \
  do {                                         \
    const long steps[] = { __VA_ARGS__ };      \
                                               \
    memcpy (plan, steps, sizeof steps);        \
    nplanned = sizeof steps / sizeof steps[0]; \
    ncalls = 0;                                \
  } while (0)

/* n slots from slot on, from or to memory in three uneven pieces of whole pages. */
static int
transfer (bool write, unsigned char *memory, uint32_t slot, unsigned n)
{
  struct iovec iov[3];
  unsigned niov = 0;
  size_t at = 0;

  for (unsigned i = 0; i < 3; i++) {
    size_t pages = i == 2 ? n - at / PAGE_BYTES : n / 4 * (i + 1) / 2;

    if (pages == 0)
      continue;
    iov[niov++] = (struct iovec){ .iov_base = memory + at, .iov_len = pages * PAGE_BYTES };
    at += pages * PAGE_BYTES;
  }
  return write ? swapdev_write (dev, NULL, slot, iov, niov)
               : swapdev_read (dev, NULL, slot, iov, niov);
}

static void
assert_back (uint32_t slot, unsigned n)
{
  memset (back, 0xee, sizeof back);
  cr_assert_eq (transfer (false, back, slot, n), 0);
  cr_assert_eq (memcmp (back, data, n * PAGE_BYTES), 0, "other bytes came back");
}

/* A transfer of any number of pieces is one call. */
Test (swapdev_io, one_call_is_enough)
{
  cr_assert_eq (transfer (true, data, 10, 50), 0);
  cr_assert_eq (ncalls, 1);
  assert_back (10, 50);
  cr_assert_eq (ncalls, 2);
}

/* Slots are counted from the start of the device: slot 2 is behind the label and the bad slots. */
Test (swapdev_io, slots_have_their_place)
{
  cr_assert_eq (transfer (true, data, 2, 1), 0);
  cr_assert_eq (transfer (true, data, NSLOTS + 1, 1), 0);
  file_read (scratch_path ("a"), 2 * PAGE_BYTES, back, PAGE_BYTES);
  cr_assert_eq (memcmp (back, data, PAGE_BYTES), 0);
  file_read (scratch_path ("a"), (NSLOTS + 1) * PAGE_BYTES, back, PAGE_BYTES);
  cr_assert_eq (memcmp (back, data, PAGE_BYTES), 0);
}

/* After a short count it goes on where that ended: inside a page, at its end, in another piece. */
Test (swapdev_io, goes_on_after_short_counts)
{
  PLAN (1, 4095, 4096, 5000, 1, 9 * 4096 + 7, 512);
  cr_assert_eq (transfer (true, data, 20, 60), 0);
  cr_assert_eq (ncalls, 8);
  PLAN (4096, 17, 12345, 3);
  assert_back (20, 60);
  cr_assert_eq (ncalls, 5);
}

/* Transient errors are tried again. */
Test (swapdev_io, tries_transient_errors_again)
{
  PLAN (-EINTR, -EAGAIN, -ENOMEM, 5000, -EINTR, -EINTR);
  cr_assert_eq (transfer (true, data, 20, 10), 0);
  PLAN (-EAGAIN, 100, -EAGAIN, -ENOMEM);
  assert_back (20, 10);
}

/* Each time it asks for half as much, in whole pages, down to one; and for twice as much once that went through. */
Test (swapdev_io, asks_for_less)
{
  static const unsigned npages[] = { 60, 30, 15, 7, 3, 1, 1, 1, 2, 4, 8, 16, 29 };

  PLAN (-ENOMEM, -ENOMEM, -EAGAIN, -EINTR, -ENOMEM, -ENOMEM, -ENOMEM);
  cr_assert_eq (transfer (true, data, 20, 60), 0);
  cr_assert_eq (ncalls, sizeof npages / sizeof npages[0]);
  for (unsigned i = 0; i < ncalls; i++)
    cr_assert_eq (asked[i], npages[i] * PAGE_BYTES, "call %u: %zu bytes", i, asked[i]);
  assert_back (20, 60);
}

/* Every n-th call fails, for every n but 1: all of it comes through. */
Test (swapdev_io, every_nth_call_is_transient)
{
  static const int errors[] = { EINTR, EAGAIN, ENOMEM };

  for (unsigned k = 0; k < 3; k++)
    for (unsigned n = 2; n < 20; n++) {
      every = n;
      every_error = errors[k];
      cr_assert_eq (transfer (true, data + n * PAGE_BYTES, 2 + n, 150), 0, "every %u", n);
      memset (back, 0xee, sizeof back);
      cr_assert_eq (transfer (false, back, 2 + n, 150), 0, "every %u", n);
      every = 0;
      cr_assert_eq (memcmp (back, data + n * PAGE_BYTES, 150 * PAGE_BYTES), 0, "every %u", n);
    }
}

/* The n-th call fails hard, whatever went before: that is the end, and its error. */
Test (swapdev_io, the_nth_call_fails)
{
  for (unsigned n = 0; n < 30; n++) {
    for (unsigned i = 0; i < n; i++)
      plan[i] = i % 3 == 2 ? 1000 : i % 3 ? -EINTR : -ENOMEM;
    plan[n] = -EBADMSG;
    nplanned = n + 1;
    ncalls = 0;
    cr_assert_eq (transfer (n % 2, back, 20, 10), -EBADMSG);
    cr_assert_eq (ncalls, n + 1);
  }
}

/* A transient error that stays is an error, after a bounded number of calls. */
Test (swapdev_io, does_not_try_for_ever)
{
  for (unsigned i = 0; i < 64; i++)
    plan[i] = -EAGAIN;
  nplanned = 64;
  ncalls = 0;
  cr_assert_eq (transfer (true, data, 20, 10), -EAGAIN);
  cr_assert_eq (ncalls, DEVIO_RETRIES + 1);
}

/* Progress in between counts: a burst of errors after each piece is no reason to give up. */
Test (swapdev_io, progress_begins_anew)
{
  for (unsigned i = 0; i < 64; i++)
    plan[i] = i % 4 == 3 ? 100 : -EINTR;
  nplanned = 64;
  ncalls = 0;
  cr_assert_eq (transfer (true, data, 20, 10), 0);
  cr_assert_gt (ncalls, 64);
  assert_back (20, 10);
}

/* A count of 0 is a hard error at once: the file was cut. */
Test (swapdev_io, no_progress_is_an_error)
{
  PLAN (100, 0);
  cr_assert_eq (transfer (false, back, 20, 10), -EIO);
  cr_assert_eq (ncalls, 2);
  PLAN (0);
  cr_assert_eq (transfer (true, data, 20, 10), -EIO);
  cr_assert_eq (ncalls, 1);
}

/* Hard errors are reported as they are, at once; a quota is a full device. */
Test (swapdev_io, hard_errors_are_reported)
{
  static const int errors[][2] = { { EIO, EIO }, { ENOSPC, ENOSPC }, { EDQUOT, ENOSPC } };

  for (unsigned i = 0; i < 3; i++) {
    PLAN (4096, -errors[i][0]);
    cr_assert_eq (transfer (true, data, 20, 10), -errors[i][1]);
    cr_assert_eq (ncalls, 2);
  }
}

/* Whatever is short or transient, the bytes come through. */
Test (swapdev_io, comes_through_at_random)
{
  struct rng rng = rng_for (1);

  at_random = &rng;
  for (unsigned i = 0; i < random_steps (300); i++) {
    unsigned n = 1 + (unsigned) rng_below (&rng, 30);
    uint32_t slot = 2 + (uint32_t) rng_below (&rng, NSLOTS - n);
    int ret;

    while ((ret = transfer (true, data, slot, n)) < 0) /* 13 transient errors in a row may be */
      cr_assert (ret == -EINTR || ret == -EAGAIN || ret == -ENOMEM, "%s", strerror (-ret));
    while ((ret = transfer (false, back, slot, n)) < 0)
      cr_assert (ret == -EINTR || ret == -EAGAIN || ret == -ENOMEM, "%s", strerror (-ret));
    cr_assert_eq (memcmp (back, data, n * PAGE_BYTES), 0, "DRUM_TEST_SEED=%u, step %u",
                  (unsigned) random_seed (), i);
  }
}

/* ---- what is counted ---- */

static void
assert_counts (bool write, uint64_t nrequests, uint64_t nbytes, uint64_t nerrors)
{
  struct stats_snapshot snapshot;

  stats_read (swapdev_stats (dev, write), &snapshot);
  cr_assert_eq (snapshot.nrequests, nrequests);
  cr_assert_eq (snapshot.nbytes, nbytes);
  cr_assert_eq (snapshot.nerrors, nerrors);
  cr_assert_eq (snapshot.in_flight, 0);
}

/* A transfer counts once, in how many calls ever; label and bad slots, which are read and written by now, do not. */
Test (swapdev_io, counts_transfers)
{
  assert_counts (false, 0, 0, 0);
  assert_counts (true, 0, 0, 0);
  PLAN (5000, -EINTR, 100);
  cr_assert_eq (transfer (true, data, 10, 50), 0);
  assert_counts (true, 1, 50 * PAGE_BYTES, 0);
  assert_counts (false, 0, 0, 0);
  assert_back (10, 50);
  PLAN (4096, -EIO);
  cr_assert_eq (transfer (false, back, 10, 7), -EIO);
  assert_counts (false, 2, 50 * PAGE_BYTES, 1);
  assert_counts (true, 1, 50 * PAGE_BYTES, 0);
}

static uint64_t out_since_ns; /* seen from inside a call */

/* I/O is out for as long as its calls last, and is known by its place, size and direction. */
Test (swapdev_io, watches_transfers)
{
  struct inflight *inflight = swapdev_inflight (dev);
  uint64_t before_ns = now_ns () & ~(uint64_t) 3;

  during = &out_since_ns;
  cr_assert_eq (transfer (true, data, 10, 50), 0);
  cr_assert_geq (out_since_ns, before_ns);
  cr_assert_leq (out_since_ns, now_ns ());
  cr_assert_eq (logged_count (str ("write of 200K at offset 40960 of %s: ", scratch_path ("a"))), 1,
                "%s", logged_last ());
  inflight_scan (inflight, "it", now_ns (), 0);
  cr_assert_eq (logged_count ("a write of 200K at offset 40960 of it took 0 s in the end"), 1, "%s",
                logged_last ());
  cr_assert_eq (inflight_oldest_ns (inflight), 0);
  assert_back (10, 50);
  cr_assert_eq (logged_count ("still waiting for a read of 200K at offset 40960 of"), 1, "%s",
                logged_last ());
}

/* ---- so many at once ---- */

enum { NTHREADS = 8 };

static void *
one_page (void *arg)
{
  static char page[NTHREADS][PAGE_BYTES];
  uintptr_t i = (uintptr_t) arg;
  struct iovec iov = { .iov_base = page[i], .iov_len = PAGE_BYTES };

  return (void *) (intptr_t) (i % 2 ? swapdev_write : swapdev_read) (dev, NULL, 2 + (uint32_t) i,
                                                                     &iov, 1);
}

static void
wait_underway (unsigned n)
{
  while (atomic_load (&nunderway) != n)
    sched_yield ();
}

/* No more than maxio are under way, which is also how many are counted so; a new limit counts at once, and all end well. */
Test (swapdev_io, so_many_at_once)
{
  struct stats_snapshot reads, writes;
  pthread_t thread[NTHREADS];
  void *ret;

  gated = true;
  swapdev_set_maxio (dev, 2);
  cr_assert_eq (swapdev_maxio (dev), 2);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, one_page, (void *) i), 0);
  wait_underway (2);
  swapdev_set_maxio (dev, 4);
  wait_underway (4);
  for (unsigned i = 0; i < 1000; i++)
    sched_yield (); /* so that more would be, if they could */
  stats_read (swapdev_stats (dev, false), &reads);
  stats_read (swapdev_stats (dev, true), &writes);
  cr_assert_eq (reads.in_flight + writes.in_flight, 4);
  atomic_store (&may_end, 1);
  for (unsigned i = 0; i < NTHREADS; i++) {
    pthread_join (thread[i], &ret);
    cr_assert_null (ret);
  }
  cr_assert_eq (most_underway, 4);
  assert_counts (false, NTHREADS / 2, NTHREADS / 2 * PAGE_BYTES, 0);
  assert_counts (true, NTHREADS / 2, NTHREADS / 2 * PAGE_BYTES, 0);
}

/* An error gives the turn back, too. */
Test (swapdev_io, errors_give_turns_back)
{
  swapdev_set_maxio (dev, 1);
  PLAN (-EIO, -EIO);
  cr_assert_eq (transfer (true, data, 20, 10), -EIO);
  cr_assert_eq (transfer (false, back, 20, 10), -EIO);
  cr_assert_eq (transfer (true, data, 20, 10), 0);
}

/* Ten slots, in pieces of memory that are no whole pages. */
static int
transfer_for (const struct flow *flow, bool write, unsigned char *at)
{
  struct iovec iov[3] = { { at, 5 * PAGE_BYTES / 2 },
                          { at + 5 * PAGE_BYTES / 2, 4 * PAGE_BYTES },
                          { at + 13 * PAGE_BYTES / 2, 7 * PAGE_BYTES / 2 } };

  return (write ? swapdev_write : swapdev_read) (dev, flow, 20, iov, 3);
}

uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

enum { STOPPED_NS = 1000 * 1000 * 1000 };

static bool stopped; /* time is, so that rivals stay rivals */

uint64_t
__wrap_now_ns (void)
{
  return stopped ? STOPPED_NS : __real_now_ns ();
}

/* When two want the device, requests go in pieces, a page each at first; all of them, and no other; and an error ends them. */
Test (swapdev_io, rivals_go_in_pieces)
{
  struct flow a, b;

  stopped = true;
  flow_init (&a);
  flow_init (&b);
  cr_assert_eq (transfer_for (&a, true, data + PAGE_BYTES), 0);
  cr_assert_eq (ncalls, 1);
  cr_assert_eq (transfer_for (&b, true, data), 0);
  cr_assert_eq (ncalls, 11);
  for (unsigned i = 1; i < 11; i++)
    cr_assert_eq (asked[i], PAGE_BYTES);
  assert_counts (true, 11, 20 * PAGE_BYTES, 0);
  memset (back, 0, sizeof back);
  cr_assert_eq (transfer_for (&a, false, back), 0);
  cr_assert_eq (memcmp (back, data, 10 * PAGE_BYTES), 0);
  PLAN (PAGE_BYTES, -EIO);
  cr_assert_eq (transfer_for (&b, false, back), -EIO);
}

/* How long a write took, to the clock, that was known to begin so long ago. */
static uint64_t
known_to_take (const struct flow *flow, uint64_t ns)
{
  struct iovec iov = { .iov_base = data, .iov_len = PAGE_BYTES };
  struct swapdev_io io = {
    .dev = dev, .flow = flow, .slot = 20, .iov = &iov, .niov = 1, .write = true
  };
  struct stats_snapshot before, after;
  uint64_t known_ns = STOPPED_NS - ns;

  stats_read (swapdev_stats (dev, true), &before);
  swapdev_transfer (&io, 1, NULL, &known_ns);
  stats_read (swapdev_stats (dev, true), &after);
  cr_assert_eq (io.ret, 0);
  cr_assert_eq (known_ns, STOPPED_NS);
  cr_assert_eq (after.nrequests, before.nrequests + 1);
  return after.total_ns - before.total_ns;
}

/* Who knows when it begins is believed, unless it may have waited for its turn. */
Test (swapdev_io, begins_when_that_is_known)
{
  struct flow a, b;

  stopped = true;
  flow_init (&a);
  flow_init (&b);
  known_to_take (&a, 0); /* comes first, after nobody */
  cr_assert_eq (known_to_take (&a, 500), 500);
  cr_assert_eq (known_to_take (&b, 500), 0);
}
