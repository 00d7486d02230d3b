/* SPDX-License-Identifier: BSD-3-Clause
 *
 * claim.h - may this file or block device be taken as a swap device?
 *
 * Locking: none; used at start and at add, may sleep.
 * Errors:  0 or -errno, and one line through log.h.
 */
#ifndef DRUM_CLAIM_H
#define DRUM_CLAIM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* Open it for reading and writing, with these flags: a descriptor, or -errno. With O_EXCL a block device is then ours alone.
 * Lock the open file for this server alone, until it is closed: flock(2), which outlives the fork into the background.
 * -EBUSY names who has it, as far as /proc tells; where that names nobody, they first wait for up to 5 seconds, in which the
 * kernel ends the I/O of a server that was killed. */
int claim_open (const char *path, const struct stat *st, int flags);
int claim_lock (int fd, const char *path, const struct stat *st);

/* Refuse what may be someone's data: a signature that libblkid knows, or a regular file whose first MiB is not all
 * zero. Not for our own devices, whose slots may look like anything. -EEXIST if it is refused. */
int claim_check_foreign (int fd, const char *path, const struct stat *st, uint64_t size_bytes);

/* 1 and its name if there is a signature on it (of a file system, a partition table, swap ...), 0 if not, -errno. */
int claim_signature (int fd, uint64_t size_bytes, char *name, size_t name_size);

#endif
