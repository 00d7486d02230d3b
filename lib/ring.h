/* SPDX-License-Identifier: BSD-3-Clause
 *
 * ring.h - several reads and writes under way at once for one thread: io_uring, through liburing.
 *
 * Memory:  RINGS rings of RING_ENTRIES calls, made at start; the kernel's side of them, too, but for a record of each thread that comes to
 *          use one, and for what the I/O itself takes there. Nothing of ours is allocated later.
 * Waiting: who finds no ring free does without. So does one whose calls the kernel does not take now: ring_wait tells him.
 * Locking: the rings have a mutex of their own, a leaf; a ring is his who has got it.
 */
#ifndef DRUM_RING_H
#define DRUM_RING_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

enum { RINGS = 16, RING_ENTRIES = 32 };

/* Not a result, which is a count or -errno: the call has not been made. */
enum { RING_REFUSED = -65536 };

/* io=: are the transfers of a request that touches several devices, or places, under way at once? */
enum rings_use {
  RINGS_AUTO,   /* where that is faster, if the kernel lets us */
  RINGS_ALWAYS, /* or there is no start */
  RINGS_NEVER,  /* one after the other */
};

struct ring;
struct rings;

/* -ENOMEM; or why the kernel does not do it: -ENOSYS, -EPERM ... */
int rings_create (bool always, struct rings **rings);
void rings_destroy (struct rings *rings);

/* Does the kernel let us? */
bool rings_are_there (void);

/* To be used also where it costs more than it gains. */
bool rings_always (const struct rings *rings);

/* NULL: none is free. */
struct ring *rings_get (struct rings *rings);
void rings_put (struct rings *rings, struct ring *ring); /* nothing is queued there, or under way */

/* Can a call be queued? Not if there are RING_ENTRIES already, or some are still to be told that they are refused. */
bool ring_takes (struct ring *ring);

/* => ring_takes. A read or write that begins with the next ring_wait, which returns tag when it has ended; iov stays until then. */
void ring_queue (struct ring *ring, int fd, const struct iovec *iov, unsigned niov, off_t at,
                 bool write, void *tag);

/* Wait until one of those queued ends; there is one. Its tag; result: as of preadv and pwritev, but -errno; or RING_REFUSED. */
void *ring_wait (struct ring *ring, ssize_t *result);

#endif
