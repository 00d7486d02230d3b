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

void
freerange_add (struct freerange *fr, uint32_t slot, bool shrinks)
{
  struct slot_run *last = fr->nruns > 0 ? &fr->run[fr->nruns - 1] : NULL;

  if (last && last->first + last->n == slot) {
    last->n++;
  } else if (last && last->first == slot + 1) { /* pages swapped out in descending order */
    last->first--;
    last->n++;
  } else {
    if (fr->nruns == DRUM_BATCH)
      freerange_flush (fr);
    if (fr->what.nmove == 0) /* or else a write has asked for it already */
      drum_prefetch (fr->drum, slot);
    fr->run[fr->nruns++] = (struct slot_run){ .first = slot, .n = 1 };
  }
  fr->what.nshrink += shrinks;
}

void
freerange_flush (struct freerange *fr)
{
  if (fr->nruns > 0)
    drum_free (fr->drum, fr->run, fr->nruns, &fr->what);
  fr->nruns = 0;
  fr->what.nmove = fr->what.nshrink = 0;
}
