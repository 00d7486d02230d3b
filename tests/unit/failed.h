/* SPDX-License-Identifier: BSD-3-Clause
 *
 * failed.h - the first thing that went wrong in any thread: Criterion's asserts work in the main thread only.
 */
#ifndef DRUM_UNIT_FAILED_H
#define DRUM_UNIT_FAILED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

extern _Atomic bool failed;
extern char failure[256];

#define FAIL_UNLESS(condition, ...)                       \
  do {                                                    \
    if (!(condition) && !atomic_exchange (&failed, true)) \
      snprintf (failure, sizeof failure, __VA_ARGS__);    \
  } while (0)

/* In the main thread, once the others have ended. */
void assert_not_failed (void);

#endif
