/* SPDX-License-Identifier: BSD-3-Clause
 *
 * turnstile.h - at most so many requests at once on a device, and who has the next turn.
 *
 * Order:   a reader that waits gets its turn before any writer, since a process waits for what it reads, and only the kernel's
 *          page-out for what it writes; but when TURNSTILE_PASSING readers have passed waiting writers, one writer is next.
 *          Among readers, and among writers: first come, first served. Nobody slips in past those who wait.
 * Cost:    one compare-and-swap to enter and one atomic to leave, unless somebody has to wait. The limit may change at any time:
 *          those who are in are always counted.
 * Memory:  the records of those who wait lie on their own stacks.
 * Locking: its own mutex, a leaf, and only while somebody waits or the limit is changed. Who is in must not wait for anything
 *          but the I/O itself.
 */
#ifndef DRUM_TURNSTILE_H
#define DRUM_TURNSTILE_H

#include <stdbool.h>
#include <stdint.h>

#include "mutex.h"

enum {
  TURNSTILE_MAX = 65535, /* the largest limit; 0 is none */
  TURNSTILE_PASSING = 8,
};

struct turnstile_waiter;

/* The fields are turnstile.c's. */
struct turnstile {
  _Atomic uint64_t state; /* how many are in, the limit, and whether somebody waits */
  struct mutex mutex;     /* all below */
  struct turnstile_queue {
    struct turnstile_waiter *first, *last;
  } readers, writers;
  unsigned nwaiting;
  unsigned npassed; /* readers, past the writers that wait now */
};

void turnstile_init (struct turnstile *t, unsigned limit);
void turnstile_destroy (struct turnstile *t);

/* Those who are in stay in, also if they are more than the new limit. */
void turnstile_set_limit (struct turnstile *t, unsigned limit);
unsigned turnstile_limit (const struct turnstile *t);

/* May sleep. */
void turnstile_enter (struct turnstile *t, bool write);
void turnstile_leave (struct turnstile *t);

#endif
