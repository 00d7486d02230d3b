/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ring.c - tests of lib/ring.c: what is queued ends once, whatever the kernel takes of it.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <unistd.h>

#include "lib/ring.h"
#include "tests/random.h"
#include "tests/scratch.h"

enum { BLOCK = 512, NBLOCKS = 64 };

static struct rings *rings;
static int fd;
static unsigned ncalls;
static unsigned refuse_at = UINT32_MAX; /* from this call on, so many fail, with this */
static unsigned nrefusals;
static int refusal = -EAGAIN;
static struct rng *at_random; /* or: one in three */
static unsigned held_back;    /* or: the next one takes all but so many */

int __real_io_uring_submit_and_wait (struct io_uring *ring, unsigned n);
int __wrap_io_uring_submit_and_wait (struct io_uring *ring, unsigned n);

int
__wrap_io_uring_submit_and_wait (struct io_uring *ring, unsigned n)
{
  unsigned call = ncalls++;

  if (at_random && rng_below (at_random, 3) == 0)
    return rng_below (at_random, 2) ? -EINTR : -EAGAIN;
  if (call >= refuse_at && call - refuse_at < nrefusals)
    return refusal;
  if (held_back > 0) {
    unsigned nheld = held_back;
    int ret;

    held_back = 0;
    ring->sq.sqe_tail -= nheld;
    ret = __real_io_uring_submit_and_wait (ring, n);
    ring->sq.sqe_tail += nheld;
    return ret;
  }
  return __real_io_uring_submit_and_wait (ring, n);
}

static void
setup (void)
{
  char block[BLOCK];

  scratch_setup ();
  if (!rings_are_there ())
    cr_skip_test ("the kernel does not let us use io_uring");
  cr_assert_eq (rings_create (false, &rings), 0);
  fd = open (scratch_path ("file"), O_RDWR | O_CREAT, 0600);
  cr_assert_geq (fd, 0);
  for (unsigned i = 0; i < NBLOCKS; i++) {
    memset (block, (int) i, sizeof block);
    cr_assert_eq (pwrite (fd, block, sizeof block, i * BLOCK), BLOCK);
  }
}

static void
teardown (void)
{
  if (rings)
    rings_destroy (rings);
  scratch_teardown ();
}

TestSuite (ring, .init = setup, .fini = teardown, .timeout = 60);

/* Each is one man's, and when there are none, there are none; what is put back comes again. */
Test (ring, each_has_one_owner)
{
  struct ring *got[RINGS];

  for (unsigned i = 0; i < RINGS; i++) {
    got[i] = rings_get (rings);
    cr_assert_not_null (got[i]);
    for (unsigned k = 0; k < i; k++)
      cr_assert_neq (got[i], got[k]);
  }
  cr_assert_null (rings_get (rings));
  rings_put (rings, got[3]);
  cr_assert_eq (rings_get (rings), got[3]);
  for (unsigned i = 0; i < RINGS; i++)
    rings_put (rings, got[i]);
}

static struct iovec iov[NBLOCKS];
static char data[NBLOCKS][BLOCK];

static bool
queue_read (struct ring *r, unsigned i)
{
  memset (data[i], 0xff, BLOCK);
  iov[i] = (struct iovec){ .iov_base = data[i], .iov_len = BLOCK };
  if (!ring_takes (r))
    return false;
  ring_queue (r, fd, &iov[i], 1, i * BLOCK, false, &iov[i]);
  return true;
}

/* Wait for n of them: each comes once, and is right, or refused. Returns how many were. */
static unsigned
wait_for (struct ring *r, unsigned n)
{
  bool seen[NBLOCKS] = { false };
  unsigned nrefused = 0;

  while (n-- > 0) {
    ssize_t result;
    struct iovec *tag = ring_wait (r, &result);
    unsigned i = (unsigned) (tag - iov);

    cr_assert_lt (i, NBLOCKS);
    cr_assert (!seen[i], "%u ended twice", i);
    seen[i] = true;
    if (result == RING_REFUSED) {
      nrefused++;
      cr_assert_eq (data[i][0], (char) 0xff);
      continue;
    }
    cr_assert_eq (result, BLOCK);
    cr_assert (data[i][0] == (char) i && data[i][BLOCK - 1] == (char) i);
  }
  return nrefused;
}

/* As many as there can be, at once, and again. */
Test (ring, reads_what_is_there)
{
  struct ring *r = rings_get (rings);

  for (unsigned round = 0; round < 3; round++) {
    unsigned n = 0;

    ncalls = 0;
    while (n < NBLOCKS && queue_read (r, n))
      n++;
    cr_assert_eq (n, RING_ENTRIES);
    cr_assert_eq (wait_for (r, n), 0);
    cr_assert_leq (ncalls, n);
  }
  rings_put (rings, r);
}

Test (ring, writes_and_fails)
{
  struct ring *r = rings_get (rings);
  struct iovec one = { .iov_base = (char[BLOCK]){ "new" }, .iov_len = BLOCK };
  char back[BLOCK];
  ssize_t result;

  ring_queue (r, fd, &one, 1, 5 * BLOCK, true, &one);
  cr_assert_eq (ring_wait (r, &result), &one);
  cr_assert_eq (result, BLOCK);
  cr_assert_eq (pread (fd, back, BLOCK, 5 * BLOCK), BLOCK);
  cr_assert_str_eq (back, "new");
  ring_queue (r, -1, &one, 1, 0, false, &one);
  cr_assert_eq (ring_wait (r, &result), &one);
  cr_assert_eq (result, -EBADF);
  rings_put (rings, r);
}

/* What the kernel does not take is said, once each, and leaves the ring as it was, also if that was all it could take: not even when the
 * kernel takes it later is anything of it done. */
Test (ring, what_is_refused_is_said)
{
  static const int errors[] = { -EAGAIN, -EBUSY, -ENOMEM };
  struct ring *r = rings_get (rings);

  for (unsigned e = 0; e < 3; e++) {
    refusal = errors[e];
    for (unsigned n = 1; n <= RING_ENTRIES; n++) {
      for (unsigned i = 0; i < n; i++)
        cr_assert (queue_read (r, i));
      ncalls = 0;
      refuse_at = 0;
      nrefusals = 1;
      cr_assert_eq (wait_for (r, n), n);
      for (unsigned i = 0; i < RING_ENTRIES; i++)
        cr_assert (queue_read (r, i), "%u after %u were refused", i, n);
      cr_assert_not (ring_takes (r));
      cr_assert_eq (wait_for (r, RING_ENTRIES), 0);
      cr_assert_eq (ncalls, 2);
    }
  }
  rings_put (rings, r);
}

/* The kernel may also take the first of them only. */
Test (ring, the_last_are_refused)
{
  struct ring *r = rings_get (rings);

  for (unsigned n = 2; n < 10; n++) {
    bool refused[NBLOCKS] = { false };

    for (unsigned i = 0; i < n; i++)
      cr_assert (queue_read (r, i));
    held_back = n / 2;
    for (unsigned i = 0; i < n; i++) {
      ssize_t result;
      struct iovec *tag = ring_wait (r, &result);

      refused[tag - iov] = result == RING_REFUSED;
    }
    for (unsigned i = 0; i < n; i++) {
      cr_assert_eq (refused[i], i >= n - n / 2, "%u of %u", i, n);
      cr_assert_eq (data[i][0], (char) (refused[i] ? 0xff : i));
    }
  }
  rings_put (rings, r);
}

/* An interruption is none. */
Test (ring, interrupted)
{
  struct ring *r = rings_get (rings);

  refusal = -EINTR;
  refuse_at = 0;
  nrefusals = 5;
  for (unsigned i = 0; i < 10; i++)
    cr_assert (queue_read (r, i));
  cr_assert_eq (wait_for (r, 10), 0);
  cr_assert_eq (queue_read (r, 11), true);
  cr_assert_eq (wait_for (r, 1), 0);
  rings_put (rings, r);
}

/* Queue some, wait for some, while the kernel takes some. */
Test (ring, at_random)
{
  struct rng rng = rng_for (1), faults = rng_for (2);
  struct ring *r = rings_get (rings);
  unsigned nout = 0, nrefused = 0;
  bool out[NBLOCKS] = { false };

  at_random = &faults;
  for (unsigned step = 0; step < 20000; step++) {
    unsigned i = (unsigned) rng_below (&rng, NBLOCKS);

    if (rng_below (&rng, 2) && !out[i]) {
      out[i] = nout < RING_ENTRIES && queue_read (r, i);
      nout += out[i];
    } else if (nout > 0) {
      ssize_t result;
      struct iovec *tag = ring_wait (r, &result);

      i = (unsigned) (tag - iov);
      cr_assert (out[i], "step %u: %u is not out", step, i);
      out[i] = false;
      nout--;
      nrefused += result == RING_REFUSED;
      cr_assert (result == RING_REFUSED ? data[i][0] == (char) 0xff : data[i][0] == (char) i);
    }
  }
  at_random = NULL;
  while (nout-- > 0)
    ring_wait (r, &(ssize_t){ 0 });
  cr_assert_gt (nrefused, 100);
  rings_put (rings, r);
}
