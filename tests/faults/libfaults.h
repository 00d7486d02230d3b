/* SPDX-License-Identifier: BSD-3-Clause
 *
 * libfaults.h - what the parts of libfaults.so share.
 */
#ifndef DRUM_TESTS_LIBFAULTS_H
#define DRUM_TESTS_LIBFAULTS_H

#include "faults.h"

/* The control file; NULL until the constructor has run. */
extern struct faults *faults __attribute__ ((visibility ("hidden")));

#endif
