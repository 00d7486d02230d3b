/* SPDX-License-Identifier: BSD-3-Clause
 *
 * prealloc.h - give a file all the space it needs, now.
 *
 * A swap server that finds its disk full while it writes has nobody left to tell (NetBSD panics on a hole).
 * Locking: none; used at start and at add, may take long: where the file system has no fallocate, it writes.
 */
#ifndef DRUM_PREALLOC_H
#define DRUM_PREALLOC_H

#include <stdint.h>

/* Before anything is taken: has the file system the bytes that the file lacks, beside promised_bytes for others? Counts
 * what the file lacks into *missing_bytes. -ENOSPC, and one line through log.h, if not. */
int prealloc_check (int fd, const char *path, uint64_t size_bytes, uint64_t promised_bytes,
                    uint64_t *missing_bytes);

/* Who wants to know how far it is, and may stop it: progress is called now and then, and what it returns, unless 0, is the end. */
struct prealloc_watch {
  int (*progress) (void *opaque, uint64_t done_bytes, uint64_t total_bytes);
  void *opaque;
};

/* Make the file size_bytes long and fill its holes; what is written in it stays. 0 or -errno, and one line through
 * log.h (but none if watch, which may be NULL, stopped it). On failure an existing file may have fewer holes than before, but the same contents. */
int prealloc_file (int fd, const char *path, uint64_t size_bytes,
                   const struct prealloc_watch *watch);

#endif
