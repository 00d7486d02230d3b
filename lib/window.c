/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "window.h"

#define WORTH_MORE 1.25 /* a larger window has to have that much more power */

void
window_init (struct window *w)
{
  *w = (struct window){ .hold = 1, .next_hold = 1 };
}

static void
count_anew (struct window *w, uint64_t now_ns)
{
  w->since_ns = now_ns;
  w->nrequests = w->nwanted = 0;
  w->npages = w->page_ns = 0;
}

/* Have another size, and measure that once what is out now has ended. */
static void
resize (struct window *w, uint32_t size, uint64_t now_ns)
{
  w->size = size;
  w->changed_ns = now_ns;
  count_anew (w, 0);
}

void
window_resume (struct window *w, uint64_t now_ns)
{
  resize (w, w->best, now_ns);
}

/* The size that is in force is the best one, and had so much power. Is it time to try another one? */
static bool
settle (struct window *w, double power)
{
  w->best = w->size;
  w->power = power;
  if (w->hold > 0)
    w->hold--;
  return w->hold == 0;
}

/* The best one was looked at again: let it grow where nobody waits for long, and else try another one now and then. */
static void
judge_best (struct window *w, double power, double latency_ns, uint64_t now_ns)
{
  bool due = settle (w, power);

  if (latency_ns < WINDOW_GOOD_NS) {
    w->hold = w->next_hold = 1;
    w->best = w->best < WINDOW_MAX ? 2 * w->best : 0;
    resize (w, w->best, now_ns);
  } else if (due) {
    w->shrink = w->shrink && w->best > 1 && latency_ns >= 2 * WINDOW_GOOD_NS;
    resize (w, w->shrink ? w->best / 2 : 2 * w->best, now_ns);
  }
}

/* It was no limit for what there was to do. But where that takes long, as much as was out, on average, may be too much. */
static void
judge_unused (struct window *w, double power, double latency_ns, uint64_t now_ns)
{
  double out = latency_ns * w->npages / (double) (now_ns - w->since_ns);

  if (w->size != w->best) {
    resize (w, w->best, now_ns);
    return;
  }
  if (latency_ns < 2 * WINDOW_GOOD_NS || out <= 1 || w->size == 1)
    return;
  if (out < w->size)
    w->size = (uint32_t) out + 1;
  if (settle (w, power)) {
    w->shrink = true;
    resize (w, w->best / 2, now_ns);
  }
}

/* Another one was tried: is it better? Then go on in that direction. */
static void
judge_trial (struct window *w, double power, uint64_t now_ns)
{
  if (power > w->power * (w->shrink ? 1 : WORTH_MORE)) {
    w->hold = w->next_hold = 1;
    settle (w, power);
    return;
  }
  w->shrink = !w->shrink;
  w->hold = w->next_hold;
  w->next_hold = w->next_hold < WINDOW_HOLD_MAX ? 2 * w->next_hold : WINDOW_HOLD_MAX;
  resize (w, w->best, now_ns);
}

static void
judge (struct window *w, uint64_t now_ns)
{
  double latency_ns = w->page_ns / w->npages, rate = w->npages / (double) (now_ns - w->since_ns);
  double power = rate * rate / latency_ns;

  if (w->size == 0) {
    if (latency_ns >= WINDOW_GOOD_NS)
      resize (w, w->best = 1, now_ns);
  } else if (w->nwanted < w->nrequests / 2)
    judge_unused (w, power, latency_ns, now_ns);
  else if (w->size == w->best)
    judge_best (w, power, latency_ns, now_ns);
  else
    judge_trial (w, power, now_ns);
  if (w->since_ns)
    count_anew (w, now_ns);
}

void
window_note (struct window *w, uint64_t begin_ns, uint64_t end_ns, uint32_t npages, bool wanted)
{
  if (begin_ns < w->changed_ns)
    return;
  if (w->since_ns == 0) {
    count_anew (w, end_ns);
    return;
  }
  w->nrequests++;
  w->nwanted += wanted;
  w->npages += npages;
  w->page_ns += (double) npages * (double) (end_ns - begin_ns);
  if (w->nrequests >= WINDOW_REQUESTS && end_ns - w->since_ns >= WINDOW_NS)
    judge (w, end_ns);
}
