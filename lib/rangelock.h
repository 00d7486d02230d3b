/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rangelock.h - shared and exclusive locks on ranges of pages.
 *
 * A request locks its whole range at once; that one lock makes reads, read-modify-write, evacuation and the reuse of
 * slots safe against each other, so that nothing else is held across I/O.
 * Memory:  the records lie on the requests' own stacks, in a list; taking a lock allocates nothing.
 * Order:   first come, first served: a request waits for every earlier one, granted or still waiting, that overlaps it
 *          and is not shared with it. So nobody starves, and since a request holds one range only, nobody deadlocks. (But for the page
 *          that no export has, see export.c: who has that may wait for a range, and nobody the other way round.)
 * Cost:    a walk over the requests under way, some tens at most (a server thread has one each).
 * Locking: its own mutex, a leaf: nothing else is taken under it.
 */
#ifndef DRUM_RANGELOCK_H
#define DRUM_RANGELOCK_H

#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>

#include "mutex.h"

struct rangelock_holder;

struct rangelock {
  struct mutex mutex;
  struct rangelock_holder *first, *last; /* in order of arrival */
  unsigned nwaiting;
};

/* One request's range, from lock to unlock. The fields are rangelock.c's. */
struct rangelock_holder {
  struct rangelock_holder *prev, *next;
  uint64_t start, end; /* pages, half open */
  bool exclusive;
  bool waiting;
  sem_t granted;
};

void rangelock_init (struct rangelock *rl);
void rangelock_destroy (struct rangelock *rl);

/* Lock [start, end); may sleep. holder is untouched by the caller until rangelock_unlock. An empty range is fine, and
 * conflicts with nothing. Did it have to wait? */
bool rangelock_lock (struct rangelock *rl, struct rangelock_holder *holder, uint64_t start,
                     uint64_t end, bool exclusive);
void rangelock_unlock (struct rangelock *rl, struct rangelock_holder *holder);

#endif
