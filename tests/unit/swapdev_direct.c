/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev_direct.c - tests of swap devices with O_DIRECT: what is probed, and what goes through buffers.
 *
 * preadv, pwritev, statx and fcntl go through here: this is a file system that wants as much alignment as the test says.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/bounce.h"
#include "lib/devio.h"
#include "lib/stats.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"

enum { NSLOTS = 300 };

static size_t wanted = 512; /* alignment of memory, offsets and counts; 0: I/O is refused */
static size_t stated;       /* what statx says; 0: nothing, as old kernels do */
static bool refused;        /* O_DIRECT as such */
static atomic_int failing;  /* errno of the next call */
static struct rng *at_random;
static bool direct; /* as fcntl set it; the real file is left alone */
static atomic_uint ncalls;

static atomic_bool held; /* writes wait here */
static atomic_uint nheld;

int __real_fcntl (int fd, int what, ...);
int __wrap_fcntl (int fd, int what, ...);

int
__wrap_fcntl (int fd, int what, ...)
{
  va_list args;
  int flags;

  va_start (args, what);
  flags = va_arg (args, int);
  va_end (args);
  if (what != F_SETFL)
    return __real_fcntl (fd, what, flags);
  if (refused && flags & O_DIRECT) {
    errno = EINVAL;
    return -1;
  }
  direct = flags & O_DIRECT;
  return 0;
}

int __wrap_statx (int fd, const char *path, int flags, unsigned mask, struct statx *stx);

int
__wrap_statx (int fd, const char *path, int flags, unsigned mask, struct statx *stx)
{
  (void) fd, (void) path, (void) flags;
  memset (stx, 0, sizeof *stx);
#ifdef STATX_DIOALIGN
  stx->stx_mask = stated ? mask : 0;
  stx->stx_dio_mem_align = stx->stx_dio_offset_align = (unsigned) stated;
#else
  (void) mask;
#endif
  return 0;
}

static bool
is_aligned (const struct iovec *iov, int niov, off_t offset)
{
  bool ok = wanted > 0 && (size_t) offset % (wanted ? wanted : 1) == 0;

  for (int i = 0; i < niov && ok; i++)
    ok = (uintptr_t) iov[i].iov_base % wanted == 0 && iov[i].iov_len % wanted == 0;
  return ok;
}

/* May it be done? And how much of it is said to be? */
static ssize_t
check (const struct iovec *iov, int niov, off_t offset)
{
  ssize_t sum = 0;

  ncalls++;
  for (int i = 0; i < niov; i++)
    sum += (ssize_t) iov[i].iov_len;
  errno = atomic_exchange (&failing, 0);
  if (errno)
    return -1;
  if (direct && !is_aligned (iov, niov, offset)) {
    errno = EINVAL;
    return -1;
  }
  if (at_random && rng_below (at_random, 4) == 0) {
    errno = EAGAIN;
    return -1;
  }
  if (at_random && rng_below (at_random, 2))
    sum = 1 + (ssize_t) rng_below (at_random, (uint64_t) sum);
  return sum;
}

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset)
{
  ssize_t most = check (iov, niov, offset), done;

  if (most < 0)
    return -1;
  done = __real_preadv (fd, iov, niov, offset);
  return done < most ? done : most;
}

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset)
{
  ssize_t most;

  if (atomic_load (&held)) {
    atomic_fetch_add (&nheld, 1);
    while (atomic_load (&held))
      sched_yield ();
  }
  most = check (iov, niov, offset);
  if (most < 0)
    return -1;
  return __real_pwritev (fd, iov, niov, offset) < most ? -1 : most;
}

static struct bounce *pool;
static struct swapdev *dev;
static _Alignas(PAGE_BYTES) unsigned char memory[(NSLOTS + 2) * PAGE_BYTES], back[sizeof memory];

static void
setup (void)
{
  struct rng rng = rng_for (5);

  scratch_setup ();
  logged_start ();
  rng_fill (&rng, memory, sizeof memory - 8);
  cr_assert_eq (bounce_create (&pool), 0);
}

static void
teardown (void)
{
  if (dev)
    swapdev_close (dev);
  bounce_destroy (pool);
  scratch_teardown ();
}

TestSuite (swapdev_direct, .init = setup, .fini = teardown, .timeout = 60);

static int
prepare (void)
{
  struct swapdev_spec spec = { .path = scratch_path ("a"),
                               .create_bytes = (NSLOTS + 2) * PAGE_BYTES,
                               .bounce = pool };
  struct swapdev_identity identity = { .generation = 1 };
  int ret;

  cr_assert_eq (swapdev_open (&spec, &dev), 0);
  ret = swapdev_prepare (dev, &identity);
  ncalls = 0;
  return ret;
}

static int
transfer (bool write, unsigned char *at, uint32_t slot, unsigned n)
{
  struct iovec iov[2] = { { at, n / 3 * PAGE_BYTES },
                          { at + n / 3 * PAGE_BYTES, (n - n / 3) * PAGE_BYTES } };

  return write ? swapdev_write (dev, NULL, slot, iov, 2) : swapdev_read (dev, NULL, slot, iov, 2);
}

/* From memory + from to slot, and back to the same place in another buffer. */
static void
assert_goes_through (unsigned from, uint32_t slot, unsigned n)
{
  memset (back, 0xee, sizeof back);
  cr_assert_eq (transfer (true, memory + from, slot, n), 0);
  cr_assert_eq (transfer (false, back + from, slot, n), 0);
  cr_assert_eq (memcmp (back + from, memory + from, n * PAGE_BYTES), 0, "%u pages from %u", n,
                from);
  cr_assert (from == 0 || back[from - 1] == 0xee, "before");
  cr_assert_eq (back[from + n * PAGE_BYTES], 0xee, "behind");
}

/* What is aligned goes in one call, as it is; what is not in pieces of a buffer. */
Test (swapdev_direct, buffers_what_is_not_aligned)
{
  cr_assert_eq (prepare (), 0);
  cr_assert (swapdev_is_direct (dev));
  cr_assert (direct);
  assert_goes_through (0, 2, 256);
  cr_assert_eq (ncalls, 2);
  assert_goes_through (512, 10, 256);
  cr_assert_eq (ncalls, 4);
  assert_goes_through (16, 7, 256);
  cr_assert_eq (ncalls, 12);
  assert_goes_through (511, 30, 1);
  cr_assert_eq (ncalls, 14);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* One piece that is not aligned is enough. */
Test (swapdev_direct, looks_at_all_pieces)
{
  struct iovec iov[3] = { { memory, PAGE_BYTES },
                          { memory + 3 * PAGE_BYTES + 8, PAGE_BYTES },
                          { memory + 6 * PAGE_BYTES, PAGE_BYTES } };

  cr_assert_eq (prepare (), 0);
  cr_assert_eq (swapdev_write (dev, NULL, 5, iov, 3), 0);
  cr_assert_eq (transfer (false, back, 5, 3), 0);
  cr_assert_eq (memcmp (back, memory, PAGE_BYTES), 0);
  cr_assert_eq (memcmp (back + PAGE_BYTES, memory + 3 * PAGE_BYTES + 8, PAGE_BYTES), 0);
  cr_assert_eq (memcmp (back + 2 * PAGE_BYTES, memory + 6 * PAGE_BYTES, PAGE_BYTES), 0);
}

/* Of what does, the least: as the kernel says, or as reading shows. */
Test (swapdev_direct, finds_the_alignment)
{
  static const struct {
    size_t wanted, stated, found;
  } cases[] = {
    { 4, 4, 4 },     { 1, 1, 1 },         { 512, 512, 512 },  { 4096, 4096, 4096 },
    { 1, 0, 512 },   { 512, 0, 512 },     { 1024, 0, 4096 },  { 4096, 0, 4096 },
    { 512, 4, 512 }, { 4096, 512, 4096 }, { 512, 8192, 512 },
  };

  for (unsigned i = 0; i < sizeof cases / sizeof cases[0]; i++) {
#ifndef STATX_DIOALIGN
    if (cases[i].stated)
      continue;
#endif
    wanted = cases[i].wanted;
    stated = cases[i].stated;
    direct = false;
    cr_assert_eq (prepare (), 0);
    cr_assert (swapdev_is_direct (dev), "case %u", i);
    assert_goes_through ((unsigned) cases[i].found % PAGE_BYTES, 2, 200);
    cr_assert_eq (ncalls, 2, "case %u: needs a buffer", i);
    if (cases[i].found > 1) {
      assert_goes_through ((unsigned) cases[i].found / 2, 2, 200);
      cr_assert_gt (ncalls, 4, "case %u: needs no buffer", i);
    }
    swapdev_undo (dev);
    dev = NULL;
    cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
  }
}

static void
assert_fallen_back (void)
{
  cr_assert_eq (prepare (), 0);
  cr_assert_not (swapdev_is_direct (dev));
  cr_assert_not (direct);
  cr_assert_eq (logged_count (""), 1);
  cr_assert (logged_last_level () == LEVEL_WARNING);
  cr_assert_eq (logged_count (str ("%s: direct=yes", scratch_path ("a"))), 1, "%s", logged_last ());
  assert_goes_through (1, 2, 256);
  cr_assert_eq (ncalls, 2);
}

/* A file system without it, as tmpfs was: the device works all the same, through the page cache, and that is said. */
Test (swapdev_direct, falls_back_if_it_is_refused)
{
  refused = true;
  assert_fallen_back ();
}

/* One that takes the flag, but no I/O. */
Test (swapdev_direct, falls_back_if_io_is_refused)
{
  wanted = 0;
  assert_fallen_back ();
}

/* One that wants more than a page. */
Test (swapdev_direct, falls_back_if_a_page_is_too_small)
{
  wanted = stated = 65536;
  assert_fallen_back ();
}

/* A disk that fails when it is tried is no disk that can't. */
Test (swapdev_direct, errors_are_errors)
{
  struct swapdev_spec spec = { .path = scratch_path ("a"),
                               .create_bytes = (NSLOTS + 2) * PAGE_BYTES,
                               .bounce = pool };
  struct swapdev_identity identity = { .generation = 1 };
  struct swapdev *bad;

  cr_assert_eq (swapdev_open (&spec, &bad), 0);
  failing = EIO;
  cr_assert_eq (swapdev_prepare (bad, &identity), -EIO);
  assert_logged_error ("O_DIRECT");
  swapdev_undo (bad);
}

/* Label and bad slots are written so, too, and put back so. */
Test (swapdev_direct, labels)
{
  wanted = 4096;
  cr_assert_eq (prepare (), 0);
  swapdev_close (dev);
  dev = NULL;
  direct = false;
  cr_assert_eq (prepare (), 0, "%s", logged_last ());
  cr_assert (swapdev_is_labelled (dev));
}

/* 13 transient errors in a row may be, but no other. */
static void
transfer_somehow (bool write, unsigned char *at, uint32_t slot, unsigned n)
{
  int ret;

  while ((ret = transfer (write, at, slot, n)) < 0)
    cr_assert_eq (ret, -EAGAIN, "%s", strerror (-ret));
}

/* Short counts may end anywhere: the next call begins at the last place that is aligned. */
Test (swapdev_direct, comes_through_at_random)
{
  struct rng rng = rng_for (1);

  cr_assert_eq (prepare (), 0);
  for (unsigned i = 0; i < random_steps (300); i++) {
    unsigned n = 1 + (unsigned) rng_below (&rng, 200);
    uint32_t slot = 2 + (uint32_t) rng_below (&rng, NSLOTS - n);
    unsigned from = (unsigned) rng_below (&rng, 3) * 256;

    at_random = &rng;
    transfer_somehow (true, memory + from, slot, n);
    transfer_somehow (false, back + from, slot, n);
    at_random = NULL;
    cr_assert_eq (memcmp (back + from, memory + from, n * PAGE_BYTES), 0,
                  "DRUM_TEST_SEED=%u, step %u", (unsigned) random_seed (), i);
  }
}

enum { MANY = 100, SPAN = 5 }; /* of threads; pages that one of them may have */

static uint32_t span; /* and has */

static void *
write_some (void *arg)
{
  uint32_t i = (uint32_t) (uintptr_t) arg;
  struct iovec iov = { .iov_base = memory + 8, .iov_len = span * PAGE_BYTES };

  return (void *) (intptr_t) swapdev_write (dev, NULL, 2 + i % (NSLOTS / SPAN) * SPAN, &iov, 1);
}

/* With all buffers of its share taken, a request waits for one and does not fail; what is aligned, as are pages that move, goes on,
 * and so does, when these are the large ones, what needs a small one. (Not the other way round: beside others a long one comes in short pieces.) */
static void
run_out (uint32_t npages)
{
  unsigned share = bounce_shape[bounce_kind (npages * PAGE_BYTES)].share, n = share + 4;
  struct stats_snapshot writes;
  pthread_t thread[MANY];
  void *ret;

  cr_assert_leq (n, MANY);
  cr_assert_eq (prepare (), 0);
  span = npages;
  atomic_store (&held, true);
  for (uintptr_t i = 0; i < n; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, write_some, (void *) i), 0);
  while (atomic_load (&nheld) < share)
    sched_yield ();
  for (unsigned i = 0; i < 1000; i++)
    sched_yield ();
  cr_assert_eq (nheld, share);
  cr_assert_eq (transfer (false, back, 100, 9), 0); /* aligned */
  if (bounce_kind (npages * PAGE_BYTES) == BOUNCE_LARGE)
    cr_assert_eq (transfer (false, back + 8, 100, 1), 0);
  stats_read (swapdev_stats (dev, true), &writes);
  cr_assert_eq (writes.in_flight, share);
  atomic_store (&held, false);
  for (unsigned i = 0; i < n; i++) {
    pthread_join (thread[i], &ret);
    cr_assert_null (ret);
  }
  for (unsigned i = 0; i < n; i++) {
    cr_assert_eq (transfer (false, back, 2 + i % (NSLOTS / SPAN) * SPAN, npages), 0);
    cr_assert_eq (memcmp (back, memory + 8, npages * PAGE_BYTES), 0);
  }
}

Test (swapdev_direct, small_buffers_run_out)
{
  run_out (1);
}

Test (swapdev_direct, large_buffers_run_out)
{
  run_out (SPAN);
}
