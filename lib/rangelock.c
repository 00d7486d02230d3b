/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "rangelock.h"

#include <errno.h>

void
rangelock_init (struct rangelock *rl)
{
  mutex_init (&rl->mutex);
  rl->first = rl->last = NULL;
  rl->nwaiting = 0;
}

void
rangelock_destroy (struct rangelock *rl)
{
  mutex_destroy (&rl->mutex);
}

static bool
overlap (const struct rangelock_holder *a, const struct rangelock_holder *b)
{
  uint64_t start = a->start > b->start ? a->start : b->start;
  uint64_t end = a->end < b->end ? a->end : b->end;

  return start < end;
}

/* => rl->mutex held. Must holder wait for one that came before it? */
static bool
must_wait_locked (struct rangelock *rl, const struct rangelock_holder *holder)
{
  mutex_assert_held (&rl->mutex);
  for (const struct rangelock_holder *h = holder->prev; h; h = h->prev)
    if (overlap (h, holder) && (h->exclusive || holder->exclusive))
      return true;
  return false;
}

bool
rangelock_lock (struct rangelock *rl, struct rangelock_holder *holder, uint64_t start, uint64_t end,
                bool exclusive)
{
  bool waiting;

  holder->start = start;
  holder->end = end;
  holder->exclusive = exclusive;
  holder->next = NULL;

  mutex_lock (&rl->mutex);
  holder->prev = rl->last;
  *(rl->last ? &rl->last->next : &rl->first) = holder;
  rl->last = holder;
  waiting = holder->waiting = must_wait_locked (rl, holder);
  if (waiting) {
    sem_init (&holder->granted, 0, 0);
    rl->nwaiting++;
  }
  mutex_unlock (&rl->mutex);

  if (waiting) {
    while (sem_wait (&holder->granted) == -1 && errno == EINTR)
      ;
    sem_destroy (&holder->granted);
  }
  return waiting;
}

void
rangelock_unlock (struct rangelock *rl, struct rangelock_holder *holder)
{
  mutex_lock (&rl->mutex);
  *(holder->prev ? &holder->prev->next : &rl->first) = holder->next;
  *(holder->next ? &holder->next->prev : &rl->last) = holder->prev;
  for (struct rangelock_holder *h = holder->next; h && rl->nwaiting; h = h->next)
    if (h->waiting && !must_wait_locked (rl, h)) {
      h->waiting = false;
      rl->nwaiting--;
      sem_post (
        &h->granted); /* its owner can't leave before we let go of the mutex: it must unlock first */
    }
  mutex_unlock (&rl->mutex);
}
