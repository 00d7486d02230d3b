/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "health.h"

#include <errno.h>
#include <stdatomic.h>

/* Do the two lie side by side, and are both to be looked at now, or both later? */
static bool
can_join (const struct suspect *s, struct slot_run run, uint64_t not_before_ns)
{
  return (s->not_before_ns == 0) == (not_before_ns == 0) &&
         (s->run.first + s->run.n == run.first || run.first + run.n == s->run.first);
}

bool
health_suspect (struct health *h, struct slot_run run, uint64_t not_before_ns)
{
  for (unsigned i = 0; i < h->nruns; i++) {
    struct suspect *s = &h->suspect[i];

    if (can_join (s, run, not_before_ns)) {
      s->run.first = run.first < s->run.first ? run.first : s->run.first;
      s->run.n += run.n;
      s->not_before_ns = not_before_ns > s->not_before_ns ? not_before_ns : s->not_before_ns;
      h->nsuspect += run.n;
      return true;
    }
  }
  if (h->nruns == HEALTH_RUNS)
    return false;
  h->suspect[h->nruns++] = (struct suspect){ .run = run, .not_before_ns = not_before_ns };
  h->nsuspect += run.n;
  return true;
}

bool
health_next (struct health *h, uint64_t now_ns, struct slot_run *run)
{
  for (unsigned i = 0; i < h->nruns; i++)
    if (h->suspect[i].not_before_ns <= now_ns) {
      *run = h->suspect[i].run;
      h->suspect[i] = h->suspect[--h->nruns];
      return true;
    }
  return false;
}

bool
health_doom (struct health *h, uint32_t slot)
{
  for (unsigned i = 0; i < h->ndoomed; i++)
    if (h->doomed[i] == slot)
      return true;
  if (h->ndoomed == HEALTH_DOOMED)
    return false;
  h->doomed[h->ndoomed++] = slot;
  return true;
}

bool
health_take_doomed (struct health *h, struct slot_run run, uint32_t *slot)
{
  unsigned first = h->ndoomed;

  for (unsigned i = 0; i < h->ndoomed; i++)
    if (h->doomed[i] - run.first < run.n &&
        (first == h->ndoomed || h->doomed[i] < h->doomed[first]))
      first = i;
  if (first == h->ndoomed)
    return false;
  *slot = h->doomed[first];
  h->doomed[first] = h->doomed[--h->ndoomed];
  return true;
}

/* The device itself is gone, or does not let us write. */
static bool
is_final (int err)
{
  return err == -ENXIO || err == -ENODEV || err == -EROFS || err == -EBADF;
}

bool
health_note (struct health *h, uint32_t slot, bool write, int ret)
{
  struct health_streak *s = &h->streak[write];
  bool again;

  if (ret == 0) {
    if (atomic_load_explicit (&s->nerrors, memory_order_relaxed))
      atomic_store_explicit (&s->nerrors, 0, memory_order_relaxed);
    return false;
  }
  if (ret == -ENOSPC)
    return false; /* the file system's affair */
  again = atomic_exchange (&s->last_failed, slot) == slot;
  return is_final (ret) || atomic_fetch_add (&s->nerrors, !again) + !again >= HEALTH_STREAK;
}

void
health_forget_streaks (struct health *h)
{
  atomic_store (&h->streak[0].nerrors, 0);
  atomic_store (&h->streak[1].nerrors, 0);
}
