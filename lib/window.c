/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "window.h"

#define WORTH_MORE 1.25 /* a larger window has to have that much more power */
#define CHANGED    8    /* so many times as slow is another device */

void
window_init (struct window *w)
{
  *w = (struct window){ .size = 1, .best = 1, .hold = 1, .next_hold = 1 };
}

static void
count_anew (struct window *w, uint64_t now_ns)
{
  w->since_ns = now_ns;
  w->nrequests = w->nwanted = w->nslow = 0;
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

static void
begin_anew (struct window *w, uint64_t now_ns)
{
  w->shrink = false;
  w->hold = w->next_hold = 1;
  resize (w, w->best = 1, now_ns);
}

void
window_resume (struct window *w, uint64_t now_ns)
{
  if (w->good)
    begin_anew (w, now_ns);
  else
    resize (w, w->best, now_ns);
}

/* How a size does. */
struct result {
  bool good; /* nobody waits for long */
  double latency_ns, good_ns, power, npages_out;
};

/* The size that is in force is the best one. Is it time to try another one? */
static bool
settle (struct window *w, const struct result *r)
{
  w->best = w->size;
  w->power = r->power;
  w->latency_ns = r->latency_ns;
  w->good = r->good;
  if (w->hold > 0)
    w->hold--;
  return w->hold == 0;
}

/* Nobody waits for long: let it grow, whether there is use for that now or not. */
static void
grow (struct window *w, const struct result *r, uint64_t now_ns)
{
  settle (w, r);
  w->hold = w->next_hold = 1;
  w->best = w->best < WINDOW_MAX ? 2 * w->best : 0;
  resize (w, w->best, now_ns);
}

/* The best one was looked at again: begin anew where the device has become quite another one, and else try another one now and
 * then. */
static void
judge_best (struct window *w, const struct result *r, uint64_t now_ns)
{
  bool changed = r->latency_ns > CHANGED * w->latency_ns && r->latency_ns > CHANGED * r->good_ns;
  bool due = settle (w, r);

  if (changed && w->best > 1)
    begin_anew (w, now_ns);
  else if (due) {
    w->shrink = w->shrink && w->best > 1 && r->latency_ns >= 2 * r->good_ns;
    resize (w, w->shrink ? w->best / 2 : 2 * w->best, now_ns);
  }
}

/* It was no limit for what there was to do. But where that takes long, as much as was out, on average, may be too much. */
static void
judge_unused (struct window *w, const struct result *r, uint64_t now_ns)
{
  if (w->size != w->best) {
    resize (w, w->best, now_ns);
    return;
  }
  if (r->latency_ns < 2 * r->good_ns || r->npages_out <= 1 || w->size == 1)
    return;
  if (r->npages_out < w->size)
    w->size = (uint32_t) r->npages_out + 1;
  if (settle (w, r)) {
    w->shrink = true;
    resize (w, w->best / 2, now_ns);
  }
}

/* Another one was tried: is it better? Then go on in that direction. */
static void
judge_trial (struct window *w, const struct result *r, uint64_t now_ns)
{
  if (r->power > w->power * (w->shrink ? 1 : WORTH_MORE)) {
    w->hold = w->next_hold = 1;
    settle (w, r);
    return;
  }
  w->shrink = !w->shrink;
  w->hold = w->next_hold;
  w->next_hold = w->next_hold < WINDOW_HOLD_MAX ? 2 * w->next_hold : WINDOW_HOLD_MAX;
  resize (w, w->best, now_ns);
}

static void
judge (struct window *w, const struct result *r, uint64_t now_ns)
{
  if (w->size == 0) {
    if (!r->good)
      begin_anew (w, now_ns);
  } else if (r->good && w->size == w->best)
    grow (w, r, now_ns);
  else if (w->nwanted < w->nrequests / 2)
    judge_unused (w, r, now_ns);
  else if (w->size == w->best)
    judge_best (w, r, now_ns);
  else
    judge_trial (w, r, now_ns);
  if (w->since_ns)
    count_anew (w, now_ns);
}

static double
good_ns (double npages)
{
  return WINDOW_GOOD_NS + WINDOW_GOOD_PAGE_NS * npages;
}

static struct result
result (const struct window *w, uint64_t now_ns)
{
  double elapsed_ns = (double) (now_ns - w->since_ns), rate = w->npages / elapsed_ns;
  double latency_ns = w->page_ns / w->npages;

  return (struct result){
    .good = w->nslow * WINDOW_FEW <= w->nrequests,
    .latency_ns = latency_ns,
    .good_ns = good_ns (w->npages / w->nrequests),
    .power = rate * rate / latency_ns,
    .npages_out = w->page_ns / elapsed_ns, /* Little's law */
  };
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
  w->nslow += (double) (end_ns - begin_ns) >= good_ns (npages);
  w->npages += npages;
  w->page_ns += (double) npages * (double) (end_ns - begin_ns);
  if (w->nrequests >= WINDOW_REQUESTS && end_ns > w->since_ns) {
    struct result r = result (w, end_ns);

    /* It takes no long look to see that nobody waits for long. */
    if (r.good || end_ns - w->since_ns >= WINDOW_NS)
      judge (w, &r, end_ns);
  }
}
