/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "freerange.h"

#include <stddef.h>

void
freerange_init (struct freerange *fr, struct drum *d, struct room_account *account, uint32_t nmove)
{
  fr->drum = d;
  fr->nruns = 0;
  fr->what = (struct drum_return){ .account = account, .nmove = nmove };
}

static void
add_run (struct freerange *fr, struct slot_run run)
{
  struct slot_run *last = fr->nruns > 0 ? &fr->run[fr->nruns - 1] : NULL;

  if (last && last->first + last->n == run.first) {
    last->n += run.n;
  } else if (last && last->first == run.first + run.n) { /* pages swapped out in descending order */
    last->first = run.first;
    last->n += run.n;
  } else {
    if (fr->nruns == DRUM_BATCH)
      freerange_flush (fr);
    if (fr->what.nmove == 0) /* or else a write has asked for it already */
      drum_prefetch (fr->drum, run.first);
    fr->run[fr->nruns++] = run;
  }
}

void
freerange_add (struct freerange *fr, uint32_t slot, bool shrinks)
{
  add_run (fr, (struct slot_run){ .first = slot, .n = 1 });
  fr->what.nshrink += shrinks;
}

void
freerange_add_all (struct freerange *fr, const uint32_t *slot, unsigned n)
{
  for (unsigned i = 0; i < n;) {
    struct slot_run run = { .first = slot[i], .n = 1 };

    while (++i < n && slot[i] == run.first + run.n)
      run.n++;
    add_run (fr, run);
    fr->what.nshrink += run.n; /* with it: what was there before may have been freed */
  }
}

void
freerange_flush (struct freerange *fr)
{
  if (fr->nruns > 0)
    drum_free (fr->drum, fr->run, fr->nruns, &fr->what);
  fr->nruns = 0;
  fr->what.nmove = fr->what.nshrink = 0;
}
