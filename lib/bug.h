/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bug.h - what cannot happen, happened.
 *
 * A build with --enable-debug (all tests) aborts. Others say so and go on: a server that holds people's memory is worth
 * more alive, and what led here has changed nothing.
 */
#ifndef DRUM_BUG_H
#define DRUM_BUG_H

#include <stdlib.h>

#include "log.h"

#ifdef DRUM_DEBUG
/* Not in a queue that ends here. */
#define bug(...) (log_set_sink (NULL), log_error (__VA_ARGS__), abort ())
#else
#define bug(...) log_error (__VA_ARGS__)
#endif

#endif
