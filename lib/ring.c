/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "ring.h"

#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>

#include "bug.h"
#include "mutex.h"

struct ring {
  struct io_uring uring;
  unsigned nqueued; /* since the last submission */
  struct io_uring_sqe *queued[RING_ENTRIES];
  void *tag[RING_ENTRIES]; /* of these; and those that were refused, and nobody knows yet */
  unsigned nrefused;
};

struct rings {
  bool always;
  struct mutex mutex; /* all below, but rings that are not free */
  unsigned nfree;
  struct ring *free[RINGS];
  unsigned n;
  struct ring ring[RINGS];
};

/* Who waits looks at what has come himself, where the kernel can do so (5.19): no other CPU need be stopped for it. */
static int
open_ring (struct ring *r)
{
  int ret = io_uring_queue_init (RING_ENTRIES, &r->uring, IORING_SETUP_COOP_TASKRUN);

  return ret == -EINVAL ? io_uring_queue_init (RING_ENTRIES, &r->uring, 0) : ret;
}

int
rings_create (bool always, struct rings **rp)
{
  struct rings *r = calloc (1, sizeof *r);
  int ret = 0;

  if (!r)
    return -ENOMEM;
  r->always = always;
  mutex_init (&r->mutex);
  while (r->n < RINGS && (ret = open_ring (&r->ring[r->n])) == 0)
    r->free[r->nfree++] = &r->ring[r->n++];
  if (ret < 0) {
    rings_destroy (r);
    return ret;
  }
  *rp = r;
  return 0;
}

bool
rings_are_there (void)
{
  struct ring r;

  if (open_ring (&r) < 0)
    return false;
  io_uring_queue_exit (&r.uring);
  return true;
}

void
rings_destroy (struct rings *r)
{
  while (r->n > 0)
    io_uring_queue_exit (&r->ring[--r->n].uring);
  mutex_destroy (&r->mutex);
  free (r);
}

bool
rings_always (const struct rings *r)
{
  return r->always;
}

struct ring *
rings_get (struct rings *r)
{
  struct ring *ring;

  mutex_lock (&r->mutex);
  ring = r->nfree > 0 ? r->free[--r->nfree] : NULL; /* the one that was used last */
  mutex_unlock (&r->mutex);
  return ring;
}

void
rings_put (struct rings *r, struct ring *ring)
{
  mutex_lock (&r->mutex);
  r->free[r->nfree++] = ring;
  mutex_unlock (&r->mutex);
}

bool
ring_takes (struct ring *r)
{
  if (r->nrefused > 0)
    return false;
  if (r->nqueued == 0 && io_uring_sq_ready (&r->uring) > 0)
    io_uring_submit (&r->uring); /* what has been refused, and does nothing, is in the way */
  return io_uring_sq_space_left (&r->uring) > 0;
}

void
ring_queue (struct ring *r, int fd, const struct iovec *iov, unsigned niov, off_t at, bool write,
            void *tag)
{
  struct io_uring_sqe *sqe = io_uring_get_sqe (&r->uring);

  if (write)
    io_uring_prep_writev (sqe, fd, iov, niov, (uint64_t) at);
  else
    io_uring_prep_readv (sqe, fd, iov, niov, (uint64_t) at);
  io_uring_sqe_set_data (sqe, tag);
  r->queued[r->nqueued] = sqe;
  r->tag[r->nqueued++] = tag;
}

/* The kernel has not taken the last n. They can't be taken back, but they can be made to do nothing, whenever they are. */
static void
refuse (struct ring *r, unsigned n)
{
  for (r->nrefused = 0; r->nrefused < n; r->nrefused++) {
    unsigned i = r->nqueued - n + r->nrefused;

    io_uring_prep_nop (r->queued[i]);
    io_uring_sqe_set_data (r->queued[i], NULL);
    r->tag[r->nrefused] = r->tag[i];
  }
}

/* Submit what is queued, and sleep until something has ended. */
static void
submit (struct ring *r)
{
  int ret = io_uring_submit_and_wait (&r->uring, 1);
  unsigned nleft = io_uring_sq_ready (&r->uring);

  if (ret == -EINTR)
    return;
  if (ret < 0 && nleft == 0 && ret != -EAGAIN && ret != -EBUSY)
    bug ("io_uring does not wait: %s", strerror (-ret));
  refuse (r, nleft < r->nqueued ? nleft : r->nqueued);
  r->nqueued = 0;
}

/* Sleep until something has ended, and submit nothing: what the kernel refused, and may refuse again, would keep it from waiting. */
static struct io_uring_cqe *
wait_for_one (struct ring *r)
{
  struct io_uring_cqe *cqe;

  while (io_uring_peek_cqe (&r->uring, &cqe) != 0) {
    int ret = io_uring_sq_ready (&r->uring) > 0 ? io_uring_wait_cqe (&r->uring, &cqe)
                                                : io_uring_submit_and_wait (&r->uring, 1);

    if (ret < 0 && ret != -EINTR && ret != -EAGAIN && ret != -EBUSY)
      bug ("io_uring does not wait: %s", strerror (-ret));
  }
  return cqe;
}

void *
ring_wait (struct ring *r, ssize_t *result)
{
  for (;;) {
    struct io_uring_cqe *cqe;
    void *tag;

    if (r->nrefused > 0) {
      *result = RING_REFUSED;
      return r->tag[--r->nrefused];
    }
    if (r->nqueued > 0) {
      submit (r);
      continue;
    }
    cqe = wait_for_one (r);
    tag = io_uring_cqe_get_data (cqe);
    *result = cqe->res;
    io_uring_cqe_seen (&r->uring, cqe);
    if (tag)
      return tag;
  }
}
