/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "placement.h"

#include <errno.h>

void
placement_set (struct placement *p, const struct placement_device *devices, unsigned n)
{
  p->ndevices = n;
  p->nclasses = p->navoided = 0;
  for (unsigned i = 0; i < n; i++) {
    p->device[i] = devices[i];
    p->navoided += devices[i].avoid;
    if (i > 0 && devices[i - 1].prio == devices[i].prio)
      p->class[p->nclasses - 1].n++;
    else
      p->class[p->nclasses++] =
        (struct placement_class){ .first = i, .n = 1, .left = p->stripe_slots };
  }
}

static void
pass_turn (struct placement *p, struct placement_class *c)
{
  c->turn = c->turn + 1 == c->n ? 0 : c->turn + 1;
  c->left = p->stripe_slots;
}

/* Take one run of at most n slots from class c, of its devices that are (not) to be avoided: all that n and the stripe allow on
 * every device, in turn, then half of that, down to 1; a device alone has no stripes. *min is where to begin, and then where it
 * was found: what no device has need not be asked for again. -ENOSPC if every such device of the class is full. */
static int
take_in_class (struct placement *p, struct placement_class *c, bool avoided, uint32_t n,
               uint32_t *min, struct slot_run *run)
{
  uint32_t most = c->n == 1 || n < p->stripe_slots ? n : p->stripe_slots;

  for (*min = most < *min ? most : *min; *min > 0; *min /= 2)
    for (unsigned i = 0; i < c->n; i++) {
      struct placement_device *dev = &p->device[c->first + c->turn];
      uint32_t max = c->n == 1 || n < c->left ? n : c->left;

      if (dev->avoid == avoided &&
          blist_alloc (dev->blist, *min < max ? *min : max, max, run) == 0) {
        run->first += dev->first;
        if (c->n > 1 && (c->left -= run->n) == 0)
          pass_turn (p, c);
        return 0;
      }
      pass_turn (p, c);
    }
  return -ENOSPC;
}

/* Take up to n slots of devices above that are (not) to be avoided, behind the *nruns runs that there are. Returns how many. */
static uint32_t
take (struct placement *p, uint32_t n, int above, bool avoided, struct slot_run *runs,
      unsigned *nruns)
{
  uint32_t left = n, min = n;
  unsigned k = *nruns;

  for (struct placement_class *c = p->class; left > 0 && c < p->class + p->nclasses;) {
    struct slot_run run;

    if (p->device[c->first].prio <= above)
      break;
    if (take_in_class (p, c, avoided, left, &min, &run) < 0) {
      min = left;
      c++;
      continue;
    }
    left -= run.n;
    if (k > 0 && runs[k - 1].first + runs[k - 1].n == run.first)
      runs[k - 1].n += run.n;
    else
      runs[k++] = run;
  }
  *nruns = k;
  return n - left;
}

uint32_t
placement_take (struct placement *p, uint32_t n, int above, struct slot_run *runs, unsigned *nruns)
{
  uint32_t taken;

  *nruns = 0;
  taken = take (p, n, above, false, runs, nruns);
  if (taken < n && p->navoided > 0)
    taken += take (p, n - taken, above, true, runs, nruns);
  return taken;
}
