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

/* Lock the open file for this server alone, until it is closed: flock(2), which outlives the fork into the background.
 * -EBUSY names who has it, as far as /proc tells. */
int claim_lock (int fd, const char *path, const struct stat *st);

/* The kernel refused a block device to us: say who has it. Returns -EBUSY. */
int claim_busy (const char *path, const struct stat *st);

/* Refuse what may be someone's data: a signature that libblkid knows, or a regular file whose first MiB is not all
 * zero. Not for our own devices, whose slots may look like anything. -EEXIST if it is refused. */
int claim_check_foreign (int fd, const char *path, const struct stat *st, uint64_t size_bytes);

/* 1 and its name if there is a signature on it (of a file system, a partition table, swap ...), 0 if not, -errno. */
int claim_signature (int fd, uint64_t size_bytes, char *name, size_t name_size);

#endif
