/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "head.h"

/* One success may be chance: of others' work, or of what was asked for. */
enum { WON = 2 };

static void
listen_from (struct head *h, uint64_t ns)
{
  atomic_store_explicit (&h->from_ns, ns, memory_order_relaxed);
}

static bool
is_resting (const struct head *h)
{
  return atomic_load_explicit (&h->from_ns, memory_order_relaxed) != 0;
}

static bool
is_trial (const struct head *h)
{
  return h->one != h->best;
}

/* Without the times in which nobody wanted anything. */
static uint64_t
busy_ns (const struct head *h, uint64_t now_ns)
{
  return now_ns - h->skipped_ns;
}

static void
count_anew (struct head *h, uint64_t since_ns)
{
  h->since_ns = since_ns;
  h->nrequests = h->nwrites = 0;
  h->npages = 0;
}

/* Have this limit, and count once what is out now has ended. */
static void
change (struct head *h, bool one, uint64_t now_ns)
{
  h->one = one;
  h->changed_ns = now_ns;
  h->tried_ns = busy_ns (h, now_ns);
  count_anew (h, 0);
}

/* Have the best one; and nobody needs to say anything for a while, if that is no limit. */
static void
settle (struct head *h, uint64_t now_ns)
{
  h->nwon = 0;
  listen_from (h, h->best ? 0 : h->next_ns > now_ns ? h->next_ns : now_ns);
  change (h, h->best, now_ns);
}

static void
pause_from (struct head *h, uint64_t now_ns)
{
  uint64_t least_ns = HEAD_REST * h->cost_ns;

  h->pause_ns = 2 * h->pause_ns < HEAD_PAUSE_MAX_NS ? 2 * h->pause_ns : HEAD_PAUSE_MAX_NS;
  if (h->pause_ns < least_ns)
    h->pause_ns = least_ns;
  h->cost_ns = 0;
  h->next_ns = now_ns + h->pause_ns;
}

void
head_init (struct head *h)
{
  h->best = false;
  h->next_ns = h->pause_ns = h->cost_ns = 0;
  h->idle_ns = h->skipped_ns = 0;
  settle (h, 1);
}

void
head_interrupt (struct head *h, uint64_t now_ns)
{
  settle (h, now_ns);
}

void
head_give_up (struct head *h, uint64_t now_ns, uint64_t cost_ns)
{
  h->best = false;
  h->cost_ns += cost_ns;
  pause_from (h, now_ns);
  settle (h, now_ns);
}

/* So much was counted with the best one. */
static void
judge_best (struct head *h, double elapsed_ns, uint64_t now_ns)
{
  if (h->nwrites == 0) {
    h->best = false;
    h->next_ns = h->pause_ns = 0;
    settle (h, now_ns);
    return;
  }
  h->page_ns = elapsed_ns / (double) h->npages;
  h->request_ns = elapsed_ns / h->nrequests;
  if (now_ns < h->next_ns)
    count_anew (h, busy_ns (h, now_ns));
  else
    change (h, !h->best, now_ns);
}

/* The other one was tried. */
static void
judge_trial (struct head *h, bool won, uint64_t now_ns)
{
  h->cost_ns += busy_ns (h, now_ns) - h->tried_ns;
  if (won && ++h->nwon < WON) {
    change (h, h->best, now_ns); /* and look at it again at once */
    return;
  }
  if (won) {
    h->best = h->one;
    h->pause_ns = 0;
  }
  pause_from (h, now_ns);
  settle (h, now_ns);
}

/* Is what was tried the better one? */
static bool
has_won (const struct head *h, double elapsed_ns)
{
  double page_ns = elapsed_ns / (double) h->npages;

  return h->one ? HEAD_GAIN * page_ns <= h->page_ns : page_ns < HEAD_KEEP * h->page_ns;
}

/* Has it clearly got less done, of requests like those before? */
static bool
has_lost (const struct head *h, double elapsed_ns)
{
  double more = h->one ? 1 : HEAD_KEEP;

  return elapsed_ns > HEAD_LOST_NS && elapsed_ns > more * HEAD_REQUESTS * h->request_ns &&
         elapsed_ns > more * h->nrequests * h->request_ns;
}

static bool
is_enough (const struct head *h, double elapsed_ns)
{
  return h->nrequests >= HEAD_REQUESTS &&
         elapsed_ns >= (is_trial (h) ? HEAD_TRIAL_NS : HEAD_BEST_NS);
}

/* What there is to do begins again, or ends. */
static void
note_idle (struct head *h, const struct head_io *io)
{
  if (h->idle_ns && io->begin_ns > h->idle_ns)
    h->skipped_ns += io->begin_ns - h->idle_ns;
  h->idle_ns = io->alone ? io->end_ns : 0;
}

/* Begin with a slow write that has company. */
static void
wake (struct head *h, const struct head_io *io)
{
  if (!io->write || io->alone || io->end_ns < h->next_ns)
    return;
  listen_from (h, 0);
  h->idle_ns = h->skipped_ns = 0;
  count_anew (h, io->end_ns);
}

static void
count (struct head *h, const struct head_io *io)
{
  h->nrequests++;
  h->nwrites += io->write;
  h->npages += io->npages;
}

void
head_note (struct head *h, const struct head_io *io)
{
  uint64_t now_ns = io->end_ns;
  double elapsed_ns;
  bool enough;

  if (is_resting (h)) {
    wake (h, io);
    return;
  }
  note_idle (h, io);
  if (io->begin_ns < h->changed_ns)
    return;
  if (h->since_ns == 0) {
    count_anew (h, busy_ns (h, now_ns));
    return;
  }
  count (h, io);
  elapsed_ns = (double) busy_ns (h, now_ns) - (double) h->since_ns;
  enough = is_enough (h, elapsed_ns);
  if (!is_trial (h)) {
    if (enough)
      judge_best (h, elapsed_ns, now_ns);
  } else if (enough || has_lost (h, elapsed_ns))
    judge_trial (h, enough && has_won (h, elapsed_ns), now_ns);
}
