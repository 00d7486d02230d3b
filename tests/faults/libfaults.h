/* SPDX-License-Identifier: BSD-3-Clause
 *
 * libfaults.h - what the parts of libfaults.so share.
 */
#ifndef DRUM_TESTS_LIBFAULTS_H
#define DRUM_TESTS_LIBFAULTS_H

#include "faults.h"

#include <sys/uio.h>

/* The control file; NULL until the constructor has run. */
extern struct faults *faults __attribute__ ((visibility ("hidden")));

/* preadv2 or pwritev2, and what is to go wrong with it. */
ssize_t faults_transfer (int fd, const struct iovec *iov, int niov, off_t at, int flags, bool write)
  __attribute__ ((visibility ("hidden")));

/* What this thread takes from here on is the library's own; or the server's again. */
void faults_watch_thread (bool watch) __attribute__ ((visibility ("hidden")));

#endif
