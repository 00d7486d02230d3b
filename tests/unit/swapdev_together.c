/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swapdev_together.c - tests of lib/swapdev-io.c: transfers on several devices that are under way at once. What the kernel says of
 * them goes through here, so that it can take none, do less, or fail.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/bounce.h"
#include "lib/ring.h"
#include "lib/stats.h"
#include "lib/swapdev.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"

enum { NDEVICES = 4, NSLOTS = 256, NTHREADS = 4, SHARE = NSLOTS / NTHREADS, LOT = 12 };

static struct swapdev *dev[NDEVICES];
static struct bounce *bounce;
static struct rings *rings;
static _Atomic unsigned nsubmits, most_at_once;

/* What has come back by now, and nobody has looked at: do less, ask for another try, or fail. */
static __thread struct rng *harm;
static __thread const struct swapdev_io *victim; /* this one fails */

static void
harm_results (struct io_uring *ring)
{
  struct io_uring_cqe *cqe;
  unsigned head;

  io_uring_for_each_cqe (ring, head, cqe)
  {
    if (victim && io_uring_cqe_get_data (cqe) == victim)
      cqe->res = -EIO;
    if (!harm || cqe->res <= 0)
      continue;
    if (rng_below (harm, 6) == 0)
      cqe->res = rng_below (harm, 2) ? -EAGAIN : -EINTR;
    else if (rng_below (harm, 4) == 0)
      cqe->res = 1 + (int) rng_below (harm, (uint64_t) cqe->res);
  }
}

static __thread bool hold_one_back;

int __real___io_uring_get_cqe (struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
                               unsigned n, sigset_t *mask);
int __wrap___io_uring_get_cqe (struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
                               unsigned n, sigset_t *mask);

int
__wrap___io_uring_get_cqe (struct io_uring *ring, struct io_uring_cqe **cqe, unsigned submit,
                           unsigned n, sigset_t *mask)
{
  int ret = __real___io_uring_get_cqe (ring, cqe, submit, n, mask);

  harm_results (ring);
  return ret;
}

int __real_io_uring_submit_and_wait (struct io_uring *ring, unsigned n);
int __wrap_io_uring_submit_and_wait (struct io_uring *ring, unsigned n);

int
__wrap_io_uring_submit_and_wait (struct io_uring *ring, unsigned n)
{
  int ret;

  nsubmits++;
  if (io_uring_sq_ready (ring) > most_at_once)
    most_at_once = io_uring_sq_ready (ring);
  if (harm && rng_below (harm, 8) == 0)
    return -EAGAIN;
  if (victim && io_uring_sq_ready (ring) > n)
    n = io_uring_sq_ready (ring); /* also what is slower than others is to come by here */
  ring->sq.sqe_tail -= hold_one_back;
  ret = __real_io_uring_submit_and_wait (ring, n);
  ring->sq.sqe_tail += hold_one_back;
  hold_one_back = false;
  harm_results (ring);
  return ret;
}

/* Who writes to this device by himself hangs there, until he may go on. */
static ino_t hanging;
static sem_t hangs, may_go_on;

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  struct stat st;

  if (hanging && fstat (fd, &st) == 0 && st.st_ino == hanging) {
    sem_post (&hangs);
    while (sem_wait (&may_go_on) != 0)
      ;
  }
  return __real_pwritev (fd, iov, niov, at);
}

static struct swapdev *
open_device (unsigned i)
{
  struct swapdev_spec spec = { .path = scratch_path (str ("%u", i)),
                               .create_bytes = bytes_of (NSLOTS),
                               .bounce = i % 2 ? bounce : NULL };
  struct swapdev_identity identity = { .generation = 1 };
  struct swapdev *d;

  cr_assert_eq (swapdev_open (&spec, &d), 0, "%s", logged_last ());
  memcpy (identity.device, swapdev_identity (d)->device, sizeof identity.device);
  cr_assert_eq (swapdev_prepare (d, &identity), 0, "%s", logged_last ());
  return d;
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  if (!rings_are_there ())
    cr_skip_test ("the kernel does not let us use io_uring");
  cr_assert_eq (bounce_create (&bounce), 0);
  cr_assert_eq (rings_create (true, &rings), 0);
  for (unsigned i = 0; i < NDEVICES; i++)
    dev[i] = open_device (i);
}

static void
teardown (void)
{
  for (unsigned i = 0; i < NDEVICES && dev[i]; i++)
    swapdev_close (dev[i]);
  if (rings)
    rings_destroy (rings);
  if (bounce)
    bounce_destroy (bounce);
  scratch_teardown ();
}

TestSuite (swapdev_together, .init = setup, .fini = teardown, .timeout = 120);

/* A thread's part of the devices, and what it should hold. */
struct part {
  unsigned number;
  unsigned nsteps;
  bool harmed;
  unsigned char model[NDEVICES][SHARE][PAGE_BYTES];
  unsigned char memory[LOT][SHARE * PAGE_BYTES + PAGE_BYTES];
};

static uint32_t
first_slot (const struct part *p)
{
  return SWAPDEV_NRESERVED + p->number * SHARE;
}

/* Some transfers of one kind, which do not overlap: the pages of a device that are left of them begin at at[]. */
static unsigned
make_lot (struct part *p, struct rng *rng, bool write, struct swapdev_io *io,
          struct iovec iov[LOT][2])
{
  unsigned at[NDEVICES] = { 0 }, n = 1 + (unsigned) rng_below (rng, LOT), made = 0;

  for (unsigned i = 0; i < n; i++) {
    unsigned d = (unsigned) rng_below (rng, NDEVICES), skip = (unsigned) rng_below (rng, 4);
    unsigned left = SHARE - at[d], len;
    unsigned char *memory = p->memory[made] + rng_below (rng, 2) * 8; /* needs a buffer, or not */

    if (left <= skip)
      continue;
    len = 1 + (unsigned) rng_below (rng, left - skip);
    at[d] += skip;
    if (write)
      rng_fill (rng, memory, (size_t) len * PAGE_BYTES);
    iov[made][0] = (struct iovec){ memory, (len + 1) / 2 * PAGE_BYTES };
    iov[made][1] = (struct iovec){ memory + iov[made][0].iov_len, len / 2 * PAGE_BYTES };
    io[made] = (struct swapdev_io){ .dev = dev[d],
                                    .slot = first_slot (p) + at[d],
                                    .iov = iov[made],
                                    .niov = len > 1 ? 2 : 1,
                                    .write = write };
    at[d] += len;
    made++;
  }
  return made;
}

static unsigned
device_number (const struct swapdev *d)
{
  unsigned i = 0;

  while (dev[i] != d)
    i++;
  return i;
}

static void *
run_part (void *opaque)
{
  struct part *p = opaque;
  struct rng rng = rng_for (p->number), faults = rng_for (p->number + 100);

  harm = p->harmed ? &faults : NULL;
  for (unsigned step = 0; step < p->nsteps; step++) {
    bool write = rng_below (&rng, 2);
    struct { /* before the transfer uses it up */
      unsigned dev, at, len;
      unsigned char *memory;
    } was[LOT];
    struct swapdev_io io[LOT];
    struct iovec iov[LOT][2];
    unsigned n = make_lot (p, &rng, write, io, iov);

    for (unsigned i = 0; i < n; i++) {
      was[i].dev = device_number (io[i].dev);
      was[i].at = io[i].slot - first_slot (p);
      was[i].len =
        (unsigned) ((iov[i][0].iov_len + (io[i].niov > 1 ? iov[i][1].iov_len : 0)) / PAGE_BYTES);
      was[i].memory = iov[i][0].iov_base;
    }
    swapdev_transfer (io, n, rings, NULL);
    for (unsigned i = 0; i < n; i++) {
      unsigned char *model = p->model[was[i].dev][was[i].at];
      size_t bytes = (size_t) was[i].len * PAGE_BYTES;

      cr_assert_eq (io[i].ret, 0, "step %u: %d", step, io[i].ret);
      if (write)
        memcpy (model, was[i].memory, bytes);
      else
        cr_assert_eq (memcmp (model, was[i].memory, bytes), 0, "step %u, transfer %u", step, i);
    }
  }
  harm = NULL;
  return NULL;
}

static struct part part[NTHREADS];

static void
run_parts (unsigned nsteps, bool harmed)
{
  pthread_t thread[NTHREADS];

  for (unsigned i = 0; i < NTHREADS; i++) {
    part[i].number = i;
    part[i].nsteps = (unsigned) random_steps (nsteps);
    part[i].harmed = harmed;
    cr_assert_eq (pthread_create (&thread[i], NULL, run_part, &part[i]), 0);
  }
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  for (unsigned i = 0; i < NDEVICES; i++)
    for (unsigned write = 0; write < 2; write++) {
      struct stats_snapshot s;

      stats_read (swapdev_stats (dev[i], write), &s);
      cr_assert (s.in_flight == 0 && s.nerrors == 0 && s.nrequests > 0);
    }
  cr_assert_gt (nsubmits, part[0].nsteps);
}

/* Every byte comes back. */
Test (swapdev_together, at_random)
{
  run_parts (150, false);
}

/* Also when the kernel refuses some, does less than it was asked for, or asks for another try. */
Test (swapdev_together, at_random_with_harm)
{
  run_parts (150, true);
}

/* And with turns: one, or two at once on a device; some wait. */
Test (swapdev_together, at_random_with_turns)
{
  for (unsigned i = 0; i < NDEVICES; i++)
    swapdev_set_maxio (dev[i], 1 + i % 2);
  run_parts (100, true);
}

/* One of them fails; the others do not. */
Test (swapdev_together, an_error_is_its_own)
{
  for (unsigned bad = 0; bad < NDEVICES; bad++) {
    static unsigned char memory[NDEVICES][8 * PAGE_BYTES];
    struct swapdev_io io[NDEVICES];
    struct iovec iov[NDEVICES];

    for (unsigned i = 0; i < NDEVICES; i++) {
      iov[i] = (struct iovec){ memory[i], sizeof memory[i] };
      io[i] =
        (struct swapdev_io){ .dev = dev[i], .slot = 2, .iov = &iov[i], .niov = 1, .write = true };
    }
    victim = &io[bad];
    swapdev_transfer (io, NDEVICES, rings, NULL);
    victim = NULL;
    for (unsigned i = 0; i < NDEVICES; i++)
      cr_assert_eq (io[i].ret, i == bad ? -EIO : 0, "%u", i);
  }
}

static void *
write_two (void *opaque)
{
  static unsigned char memory[2][PAGE_BYTES];
  struct iovec iov[2];
  struct swapdev_io *io = opaque;

  for (unsigned i = 0; i < 2; i++) {
    iov[i] = (struct iovec){ memory[i], PAGE_BYTES };
    io[i] =
      (struct swapdev_io){ .dev = dev[i], .slot = 2, .iov = &iov[i], .niov = 1, .write = true };
  }
  hold_one_back = true;
  swapdev_transfer (io, 2, rings, NULL);
  return NULL;
}

/* What the kernel does not take waits for its device alone: the other one's turn is free. */
Test (swapdev_together, a_hang_holds_no_turns)
{
  static unsigned char memory[PAGE_BYTES];
  struct iovec iov = { memory, sizeof memory };
  struct swapdev_io io[2];
  pthread_t thread;
  struct stat st;

  sem_init (&hangs, 0, 0);
  sem_init (&may_go_on, 0, 0);
  swapdev_set_maxio (dev[0], 1);
  cr_assert_eq (stat (scratch_path ("1"), &st), 0);
  hanging = st.st_ino;
  cr_assert_eq (pthread_create (&thread, NULL, write_two, io), 0);
  while (sem_wait (&hangs) != 0)
    ;
  cr_assert_eq (swapdev_write (dev[0], NULL, 9, &iov, 1), 0);
  sem_post (&may_go_on);
  pthread_join (thread, NULL);
  cr_assert (io[0].ret == 0 && io[1].ret == 0);
}

/* All of them are submitted at once. */
Test (swapdev_together, one_submission)
{
  static unsigned char memory[NDEVICES][PAGE_BYTES];
  struct swapdev_io io[NDEVICES];
  struct iovec iov[NDEVICES];

  for (unsigned i = 0; i < NDEVICES; i++) {
    iov[i] = (struct iovec){ memory[i], sizeof memory[i] };
    io[i] = (struct swapdev_io){ .dev = dev[i], .slot = 2, .iov = &iov[i], .niov = 1 };
  }
  swapdev_transfer (io, NDEVICES, rings, NULL);
  cr_assert_eq (most_at_once, NDEVICES);
}
