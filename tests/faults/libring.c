/* SPDX-License-Identifier: BSD-3-Clause
 *
 * libring.c - see faults.h: what goes wrong with reads and writes that the server gives to io_uring.
 *
 * While anything is planned the kernel does not get to see them: each is made as if it was a system call, by a thread of its own, and
 * when that is over the ring gets an entry that does nothing, whose result is then changed to what came of it.
 */
#undef _FORTIFY_SOURCE
#include <config.h>

#include "faults.h"
#include "libfaults.h"

#include <dlfcn.h>
#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdlib.h>

struct op {
  struct op *next;
  struct io_uring *ring;
  struct io_uring_sqe sqe;
  int result;
  bool done;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* all below */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct op *ops;

/* Is there anything to be looked at? */
static bool
is_planned (void)
{
  for (unsigned i = 0; i < FAULTS_RULES; i++)
    if (atomic_load (&faults->rule[i].on))
      return true;
  for (unsigned i = 0; i < FAULTS_DISKS; i++)
    if (atomic_load (&faults->disk[i].on))
      return true;
  return false;
}

static void *
make (void *opaque)
{
  struct op *op = opaque;
  const struct io_uring_sqe *sqe = &op->sqe;
  ssize_t ret = 0;

  if (sqe->opcode == IORING_OP_READV || sqe->opcode == IORING_OP_WRITEV)
    ret = faults_transfer (sqe->fd, (const struct iovec *) (uintptr_t) sqe->addr, (int) sqe->len,
                           (off_t) sqe->off, sqe->rw_flags, sqe->opcode == IORING_OP_WRITEV);
  pthread_mutex_lock (&mutex);
  op->result = ret == -1 ? -errno : (int) ret;
  op->done = true;
  pthread_cond_broadcast (&changed);
  pthread_mutex_unlock (&mutex);
  return NULL;
}

static void
begin (struct io_uring *ring, const struct io_uring_sqe *sqe)
{
  struct op *op = malloc (sizeof *op);
  pthread_t thread;

  *op = (struct op){ .next = ops, .ring = ring, .sqe = *sqe };
  ops = op;
  if (pthread_create (&thread, NULL, make, op) != 0)
    abort ();
  pthread_detach (thread);
}

/* Take what is queued out of the ring again. */
static unsigned
take (struct io_uring *ring)
{
  struct io_uring_sq *sq = &ring->sq;
  unsigned n = sq->sqe_tail - sq->sqe_head;

  for (unsigned i = 0; i < n; i++)
    begin (ring, &sq->sqes[(sq->sqe_head + i) & sq->ring_mask]);
  sq->sqe_tail = sq->sqe_head;
  return n;
}

static bool
is_out (const struct io_uring *ring)
{
  for (const struct op *op = ops; op; op = op->next)
    if (op->ring == ring)
      return true;
  return false;
}

/* Queue an entry that does nothing for each that has come back. */
static unsigned
queue_done (struct io_uring *ring)
{
  unsigned n = 0;

  for (struct op *op = ops; op; op = op->next)
    if (op->ring == ring && op->done) {
      struct io_uring_sqe *sqe = io_uring_get_sqe (ring);

      io_uring_prep_nop (sqe);
      sqe->user_data = op->sqe.user_data;
      n++;
    }
  return n;
}

/* They are among what has ended; forget them. */
static void
set_results (struct io_uring *ring)
{
  for (struct op **at = &ops; *at;) {
    struct op *op = *at;
    struct io_uring_cqe *cqe;
    unsigned head;

    if (op->ring != ring || !op->done) {
      at = &op->next;
      continue;
    }
    io_uring_for_each_cqe (ring, head, cqe) if (cqe->user_data == op->sqe.user_data) cqe->res =
      op->result;
    *at = op->next;
    free (op);
  }
}

int
io_uring_submit_and_wait (struct io_uring *ring, unsigned nwait)
{
  static int (*next) (struct io_uring *, unsigned);
  unsigned n = 0, ndone = 0;

  if (!next)
    next = (int (*) (struct io_uring *, unsigned)) dlsym (RTLD_NEXT, "io_uring_submit_and_wait");
  faults_watch_thread (false);
  pthread_mutex_lock (&mutex);
  if (is_planned ())
    n = take (ring);
  if (is_out (ring)) {
    while ((ndone = queue_done (ring)) == 0)
      pthread_cond_wait (&changed, &mutex);
    next (ring, ndone);
    set_results (ring);
  }
  pthread_mutex_unlock (&mutex);
  faults_watch_thread (true);
  return ndone > 0 ? (int) n : next (ring, nwait);
}
