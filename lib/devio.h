/* SPDX-License-Identifier: BSD-3-Clause
 *
 * devio.h - a transfer to or from one open file, in as many system calls as it takes.
 *
 * A short count goes on where it ended. A transient error (EINTR, EAGAIN, ENOMEM) is tried again, each time with half as much,
 * down to a page, and at most DEVIO_RETRIES times without any progress in between; what goes through is doubled again.
 * Locking: none; any number of threads at once.
 * Memory:  nothing allocates.
 * Errors:  0 or -errno; -EDQUOT comes as -ENOSPC, and a count of 0 (the file was cut, the device is gone) as -EIO.
 */
#ifndef DRUM_DEVIO_H
#define DRUM_DEVIO_H

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

/* 8 halve 1 MiB, the most that comes at once, down to a page; 4 more try that. */
enum { DEVIO_RETRIES = 12 };

/* All of iov, from or to what begins at at. Uses up iov. On failure some of it has been transferred. */
int devio_transfer (int fd, off_t at, struct iovec *iov, unsigned niov, bool write);

#endif
