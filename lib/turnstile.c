/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "turnstile.h"

#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stddef.h>

/* The state: how many are in in the low 32 bits, the limit in the next 16, and whether anybody waits. */
enum { LIMIT_SHIFT = 32 };
#define LIMIT_MASK ((uint64_t) TURNSTILE_MAX << LIMIT_SHIFT)
#define WAITING    (UINT64_C (1) << 48)

struct turnstile_waiter {
  struct turnstile_waiter *next;
  sem_t turn;
};

void
turnstile_init (struct turnstile *t, unsigned limit)
{
  mutex_init (&t->mutex);
  atomic_store (&t->state, (uint64_t) limit << LIMIT_SHIFT);
  t->readers.first = t->writers.first = NULL;
  t->nwaiting = t->npassed = 0;
}

void
turnstile_destroy (struct turnstile *t)
{
  mutex_destroy (&t->mutex);
}

unsigned
turnstile_limit (const struct turnstile *t)
{
  return (unsigned) ((atomic_load_explicit (&t->state, memory_order_relaxed) & LIMIT_MASK) >>
                     LIMIT_SHIFT);
}

/* Enter if there is room. waiting: for one who waits; others must not pass him. */
static bool
try_enter (struct turnstile *t, bool waiting)
{
  uint64_t state = atomic_load_explicit (&t->state, memory_order_relaxed);

  for (;;) {
    uint64_t limit = (state & LIMIT_MASK) >> LIMIT_SHIFT;

    if (limit && ((uint32_t) state >= limit || (!waiting && (state & WAITING))))
      return false;
    if (atomic_compare_exchange_weak_explicit (&t->state, &state, state + 1, memory_order_acquire,
                                               memory_order_relaxed))
      return true;
  }
}

static void
append (struct turnstile_queue *q, struct turnstile_waiter *w)
{
  w->next = NULL;
  *(q->first ? &q->last->next : &q->first) = w;
  q->last = w;
}

/* => holds t->mutex, and somebody waits. Take the one whose turn is next out of his queue. */
static struct turnstile_waiter *
take_next_locked (struct turnstile *t)
{
  bool both = t->readers.first && t->writers.first;
  bool write = both ? t->npassed == TURNSTILE_PASSING : !t->readers.first;
  struct turnstile_queue *q = write ? &t->writers : &t->readers;
  struct turnstile_waiter *w = q->first;

  mutex_assert_held (&t->mutex);
  t->npassed = both && !write ? t->npassed + 1 : 0;
  q->first = w->next;
  t->nwaiting--;
  return w;
}

/* => holds t->mutex. Let in as many of those who wait as there is room for. */
static void
admit_locked (struct turnstile *t)
{
  mutex_assert_held (&t->mutex);
  while (t->nwaiting > 0 && try_enter (t, true))
    sem_post (&take_next_locked (t)->turn); /* he may be gone at once, and his record with him */
  if (t->nwaiting == 0)
    atomic_fetch_and (&t->state, ~WAITING);
}

void
turnstile_enter (struct turnstile *t, bool write)
{
  struct turnstile_waiter waiter;

  if (try_enter (t, false))
    return;
  sem_init (&waiter.turn, 0, 0);
  mutex_lock (&t->mutex);
  append (write ? &t->writers : &t->readers, &waiter);
  t->nwaiting++;
  /* From here on, who leaves comes to the mutex; who left before has made room that we see. */
  atomic_fetch_or (&t->state, WAITING);
  admit_locked (t);
  mutex_unlock (&t->mutex);
  while (sem_wait (&waiter.turn) == -1 && errno == EINTR)
    ;
  sem_destroy (&waiter.turn);
}

void
turnstile_leave (struct turnstile *t)
{
  if (!(atomic_fetch_sub (&t->state, 1) & WAITING))
    return;
  mutex_lock (&t->mutex);
  admit_locked (t);
  mutex_unlock (&t->mutex);
}

void
turnstile_set_limit (struct turnstile *t, unsigned limit)
{
  uint64_t state;

  mutex_lock (&t->mutex);
  state = atomic_load (&t->state);
  while (!atomic_compare_exchange_weak (&t->state, &state,
                                        (state & ~LIMIT_MASK) | (uint64_t) limit << LIMIT_SHIFT))
    ;
  admit_locked (t);
  mutex_unlock (&t->mutex);
}
