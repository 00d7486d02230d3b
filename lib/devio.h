/* SPDX-License-Identifier: BSD-3-Clause
 *
 * devio.h - a transfer to or from one open file, in as many system calls as it takes.
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

/* From here on O_DIRECT, if the file takes it; its first page must be there to be read. -EINVAL, and nothing changed, if it
 * doesn't, or only with more than a page at once; or what reading gave. */
int devio_set_direct (struct devio *io);

/* Is this memory not aligned as it has to be? */
bool devio_needs_buffer (const struct devio *io, const struct iovec *iov, unsigned niov);

/* All of iov, from or to what begins at at. buffer: of DEVIO_BUFFER_BYTES, aligned to a page, if it is needed; else NULL. Uses up
 * iov. On failure some of it has been transferred. */
int devio_transfer (const struct devio *io, off_t at, struct iovec *iov, unsigned niov, bool write,
                    void *buffer);

/* Make the name of a file or folder durable: that it is there. Not for the I/O path: it opens the folder that it is in. */
int devio_sync_name (const char *path);

#endif
