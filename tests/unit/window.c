/* SPDX-License-Identifier: BSD-3-Clause
 *
 * window.c - tests of lib/window.c: it is given devices that are simulated, in a time of their own.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <inttypes.h>

#include "lib/window.h"
#include "tests/random.h"

#include "queued.h"

#define US UINT64_C (1000)
#define MS (1000 * US)
#define S  (1000 * MS)

/* Each of its servers does one request at a time, in the order in which they came, and others wait. */
struct device {
  unsigned nservers;
  uint64_t request_ns, page_ns;
};

/* Who always wants so many requests of so many pages out at once. */
struct load {
  unsigned depth;
  uint32_t npages;
};

static struct window w;
static uint64_t now;
static struct queued queue;
static uint64_t npages_out;
static struct rng rng;
static bool noisy;
static unsigned
  few; /* one request in so many loses its processor for 50 ms when it has ended; 0: none */
/* Of a run: */
static uint64_t npages_done;
static double size_ns; /* sum of the sizes, each times how long it was in force */

static void
setup (void)
{
  window_init (&w);
  rng = rng_for (7);
  now = 1; /* 0 has a meaning of its own */
  queue.nout = 0;
  npages_out = 0;
  noisy = false;
  few = 0;
}

TestSuite (window, .init = setup, .timeout = 60);

static uint32_t
piece (const struct load *l)
{
  return w.size && w.size < l->npages ? w.size : l->npages;
}

static bool
fits (const struct load *l)
{
  return !w.size || !queue.nout || npages_out + piece (l) <= w.size;
}

static void
submit (const struct device *d, const struct load *l)
{
  struct queued_request r = { .begin_ns = now, .npages = piece (l) };
  uint64_t ns = d->request_ns + r.npages * d->page_ns;

  if (noisy)
    ns += rng_below (&rng, 8) == 0 ? rng_below (&rng, 5 * d->request_ns + 1) : 0;
  queued_submit (&queue, d->nservers, r, ns);
  npages_out += r.npages;
}

/* The next one ends. */
static struct queued_request
take (void)
{
  struct queued_request r = queued_take (&queue);

  npages_out -= r.npages;
  return r;
}

static void
run (const struct device *d, const struct load *l, uint64_t ns)
{
  uint64_t end_ns = now + ns;

  npages_done = 0;
  size_ns = 0;
  while (now < end_ns) {
    struct queued_request r;

    while (queue.nout < l->depth && fits (l))
      submit (d, l);
    r = take ();
    size_ns += w.size * (double) (r.end_ns - now);
    now = r.end_ns;
    npages_done += r.npages;
    window_note (&w, r.begin_ns, now + (few && rng_below (&rng, few) == 0 ? 50 * MS : 0), r.npages,
                 queue.nout + 1 < l->depth);
  }
}

/* Pages a second, of a run of so long. */
static double
rate (uint64_t ns)
{
  return (double) npages_done * 1e9 / (double) ns;
}

static double
mean_size (uint64_t ns)
{
  return size_ns / (double) ns;
}

/* A page a millisecond, one after the other: all that is more than one page at a time makes others wait. It is found at once,
 * whatever the requests are like, and seldom left. */
Test (window, serial)
{
  const struct device d = { 1, 0, 1 * MS };
  const struct load loads[] = { { 64, 1 }, { 16, 256 }, { 2, 32 } };

  for (unsigned i = 0; i < 3; i++) {
    for (unsigned k = 0; k < 2; k++) {
      setup ();
      noisy = k;
      run (&d, &loads[i],
           loads[i].depth * loads[i].npages * MS +
             500 * MS); /* what it is given before it knows ends, too */
      cr_assert_leq (w.size, 2, "load %u: %u", i, w.size);
      run (&d, &loads[i], 60 * S);
      cr_assert_leq (mean_size (60 * S), 1.05, "load %u: %f", i, mean_size (60 * S));
      cr_assert_geq (rate (60 * S), noisy ? 600 : 990);
    }
  }
}

/* One that does eight at a time has so many. */
Test (window, parallel)
{
  const struct device d = { 8, 1 * MS, 0 };
  const struct load l = { 100, 1 };

  for (unsigned k = 0; k < 2; k++) {
    setup ();
    noisy = k;
    run (&d, &l, 3 * S);
    run (&d, &l, 60 * S);
    cr_assert (mean_size (60 * S) >= 7.5 && mean_size (60 * S) <= 18, "%f", mean_size (60 * S));
    cr_assert_geq (rate (60 * S), noisy ? 4500 : 7500, "%f", rate (60 * S));
  }
}

/* A disk that has to seek, and is fast then, gets large pieces: of more than half the speed of the largest, and not much slower
 * than the smallest. */
Test (window, seeks)
{
  const struct device d = { 1, 8 * MS, 40 * US };
  const struct load l = { 16, 1024 };
  double most = 1e9 / (40e3 + 8e6 / 1024);

  run (&d, &l, 5 * S);
  run (&d, &l, 60 * S);
  cr_assert_geq (rate (60 * S), most / 2, "%f of %f, %f", rate (60 * S), most, mean_size (60 * S));
  cr_assert_leq (mean_size (60 * S), 600);
}

/* Where nobody waits for long there is no limit soon. */
Test (window, fast)
{
  const struct device d = { 2, 4 * US, 0 };
  const struct load l = { 64, 1 };

  run (&d, &l, 1 * S);
  run (&d, &l, 10 * S);
  cr_assert (w.size == 0 || w.size >= 64, "%u", w.size);
  cr_assert_geq (rate (10 * S), 499000);
}

/* Also when there is little to do: nothing has to be counted then. */
Test (window, fast_and_little)
{
  const struct device d = { 2, 4 * US, 0 };
  const struct load l = { 1, 1 };

  run (&d, &l, 1 * S);
  cr_assert_eq (w.size, 0, "%u", w.size);
}

/* Also on a machine that has too much to do. */
Test (window, fast_but_few)
{
  const struct device d = { 2, 4 * US, 0 };
  const struct load l = { 64, 1 };

  few = 20;
  run (&d, &l, 1 * S);
  run (&d, &l, 10 * S);
  cr_assert_geq (rate (10 * S), 495000, "%f", rate (10 * S));
}

/* And there is none any more when a device that was slow has become so. */
Test (window, becomes_fast)
{
  const struct device slow = { 1, 1 * MS, 0 }, fast = { 4, 20 * US, 0 };
  const struct load l = { 32, 1 };

  run (&slow, &l, 10 * S);
  cr_assert_leq (w.size, 2);
  run (&fast, &l, 3 * S);
  run (&fast, &l, 10 * S);
  cr_assert_geq (rate (10 * S), 0.99 * 4 * 50000, "%f, size %u", rate (10 * S), w.size);
  run (&slow, &l, 5 * S);
}

/* With little to do it is no limit, and stays none. */
Test (window, little)
{
  const struct device d = { 8, 1 * MS, 0 };
  const struct load much = { 100, 1 }, little = { 3, 1 };

  run (&d, &much, 3 * S);
  cr_assert_geq (w.best, 8);
  run (&d, &little, 30 * S);
  cr_assert_geq (rate (30 * S), 2900);
  run (&d, &much, 10 * S);
  run (&d, &much, 10 * S);
  cr_assert_geq (rate (10 * S), 7000);
}

/* But it is when what there is to do is too much. */
Test (window, little_is_too_much)
{
  const struct device fast = { 8, 1 * MS, 0 }, slow = { 1, 1 * MS, 0 };
  const struct load much = { 100, 1 }, little = { 3, 1 };

  run (&fast, &much, 3 * S);
  cr_assert_geq (w.best, 8);
  run (&slow, &little, 10 * S);
  cr_assert_leq (w.size, 2);
}

/* A pause forgets what was being measured, and keeps what was found for a device that was slow. */
Test (window, resumes)
{
  const struct device d = { 8, 1 * MS, 0 };
  const struct load l = { 100, 1 };
  uint32_t size;

  run (&d, &l, 3 * S);
  size = w.best;
  cr_assert_geq (size, 8);
  now += 100 * S;
  window_resume (&w, now);
  cr_assert_eq (w.size, size);
  window_note (&w, now - 50 * S, now + 1 * MS, 1, true); /* began before the pause */
  cr_assert_eq (w.nrequests, 0);
}

/* One that was fast may not be so any more: it begins with little, and has more in a moment. */
Test (window, resumes_carefully)
{
  const struct device fast = { 2, 4 * US, 0 }, slow = { 1, 0, 1 * MS };
  const struct load l = { 64, 256 };

  run (&fast, &l, 1 * S);
  cr_assert (w.size == 0 || w.size >= 1024, "%u", w.size);
  queue.nout = 0;
  npages_out = 0;
  now += 100 * S;
  window_resume (&w, now);
  run (&fast, &l, 10 * MS);
  cr_assert (w.size == 0 || w.size >= 1024, "%u", w.size);
  queue.nout = 0;
  npages_out = 0;
  now += 100 * S;
  window_resume (&w, now);
  cr_assert_eq (w.size, 1);
  run (&slow, &l, 1 * S);
  cr_assert_leq (mean_size (1 * S), 1.5);
}

/* One that has become much slower begins anew, without a long way down. */
Test (window, becomes_slow)
{
  const struct device before = { 64, 1 * MS, 0 }, after = { 1, 0, 1 * MS };
  const struct load l = { 200, 16 };

  run (&before, &l, 20 * S);
  cr_assert_geq (w.size, 512);
  run (&after, &l, 200 * 16 * MS + 1 * S);
  cr_assert_leq (w.size, 2);
}
