/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mutex.h - a mutex that knows its owner in debug builds, so that a *_locked function can check its claim.
 */
#ifndef DRUM_MUTEX_H
#define DRUM_MUTEX_H

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

#include "bug.h"

struct mutex {
  pthread_mutex_t mutex;
#ifdef DRUM_DEBUG
  _Atomic pthread_t owner; /* 0: nobody */
#endif
};

static inline void
mutex_set_owner (struct mutex *m, pthread_t owner)
{
#ifdef DRUM_DEBUG
  atomic_store_explicit (&m->owner, owner, memory_order_relaxed);
#else
  (void) m;
  (void) owner;
#endif
}

static inline void
mutex_assert_held (struct mutex *m)
{
#ifdef DRUM_DEBUG
  if (atomic_load_explicit (&m->owner, memory_order_relaxed) != pthread_self ())
    bug ("a lock is not held where it must be");
#else
  (void) m;
#endif
}

static inline void
mutex_init (struct mutex *m)
{
  pthread_mutexattr_t attr;

  /* Held for less time than it takes to sleep and be woken: look again for a while before that. */
  pthread_mutexattr_init (&attr);
  pthread_mutexattr_settype (&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
  pthread_mutex_init (&m->mutex, &attr);
  pthread_mutexattr_destroy (&attr);
  mutex_set_owner (m, 0);
}

static inline void
mutex_destroy (struct mutex *m)
{
  pthread_mutex_destroy (&m->mutex);
}

static inline void
mutex_lock (struct mutex *m)
{
  pthread_mutex_lock (&m->mutex);
  mutex_set_owner (m, pthread_self ());
}

static inline void
mutex_unlock (struct mutex *m)
{
  mutex_set_owner (m, 0);
  pthread_mutex_unlock (&m->mutex);
}

static inline void
mutex_wait (struct mutex *m, pthread_cond_t *cond)
{
  mutex_set_owner (m, 0);
  pthread_cond_wait (cond, &m->mutex);
  mutex_set_owner (m, pthread_self ());
}

/* Until then, by the clock of cond, at the latest. */
static inline void
mutex_timedwait (struct mutex *m, pthread_cond_t *cond, const struct timespec *then)
{
  mutex_set_owner (m, 0);
  pthread_cond_timedwait (cond, &m->mutex, then);
  mutex_set_owner (m, pthread_self ());
}

#endif
