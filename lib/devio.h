/* SPDX-License-Identifier: BSD-3-Clause
 *
 * devio.h - a transfer to or from one open file, in as many calls as it takes; system calls, or whose the caller makes them.
 *
 * Retries: a short count goes on where it ended. A transient error (EINTR, EAGAIN, ENOMEM) is tried again, each time with half as
 *          much, down to a page, and at most DEVIO_RETRIES times without any progress in between; what goes through is doubled again.
 * Direct:  with O_DIRECT, memory must be aligned as the file wants it; what is not goes through a buffer of the caller's, in pieces.
 * Locking: none; any number of threads at once, but for devio_set_direct.
 * Memory:  nothing allocates.
 * Errors:  0 or -errno; -EDQUOT comes as -ENOSPC, and a count of 0 (the file was cut, the device is gone) as -EIO.
 */
#ifndef DRUM_DEVIO_H
#define DRUM_DEVIO_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

enum {
  DEVIO_RETRIES =
    12, /* 8 halve 1 MiB, the most that comes at once, down to a page; 4 more try that */
  DEVIO_BUFFER_BYTES = 256 << 10,
};

struct devio {
  int fd;
  size_t align; /* with O_DIRECT: of memory and counts, at most a page; else 0 */
};

/* A transfer, call by call. The fields are devio.c's. */
struct devio_op {
  const struct devio *io;
  struct iovec *iov; /* what is still to be done, from or to at */
  unsigned niov;
  bool write;
  off_t at;
  void *buffer;
  size_t most, max;   /* bytes of a call, now and ever */
  size_t asked;       /* of this call */
  size_t excess;      /* what its last piece has been cut by */
  unsigned ncall;     /* pieces of it */
  struct iovec whole; /* of the buffer */
  unsigned nretries;
};

/* From here on O_DIRECT, if the file takes it; its first page must be there to be read. -EINVAL, and nothing changed, if it
 * doesn't, or only with more than a page at once; or what reading gave. */
int devio_set_direct (struct devio *io);

/* Is this memory not aligned as it has to be? */
bool devio_needs_buffer (const struct devio *io, const struct iovec *iov, unsigned niov);

/* All of iov, from or to what begins at at. buffer: of DEVIO_BUFFER_BYTES, aligned to a page, if it is needed; else NULL. Uses up
 * iov. On failure some of it has been transferred. */
int devio_transfer (const struct devio *io, off_t at, struct iovec *iov, unsigned niov, bool write,
                    void *buffer);

/* The same by steps, for some bytes at least. Begin; and then call by call, until devio_done returns anything but -EINPROGRESS, which
 * is the result. */
void devio_begin (struct devio_op *op, const struct devio *io, off_t at, struct iovec *iov,
                  unsigned niov, bool write, void *buffer);

/* What the next call is to transfer, at op->at; it stays until devio_done. */
const struct iovec *devio_next (struct devio_op *op, unsigned *niov);

/* Make it: what preadv or pwritev returned, or -errno. */
ssize_t devio_call (const struct devio_op *op);

/* The call has been made, and that came of it. */
int devio_done (struct devio_op *op, ssize_t done);

/* Make the call that devio_next named, and all that it takes after it. */
int devio_go_on (struct devio_op *op);

/* Make the name of a file or folder durable: that it is there. Not for the I/O path: it opens the folder that it is in. */
int devio_sync_name (const char *path);

#endif
