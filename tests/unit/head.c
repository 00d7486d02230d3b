/* SPDX-License-Identifier: BSD-3-Clause
 *
 * head.c - tests of lib/head.c: it is given devices that are simulated, in a time of their own.
 */
#include <config.h>

#include <criterion/criterion.h>

#include "lib/head.h"
#include "tests/random.h"

#include "queued.h"

#define US UINT64_C (1000)
#define MS (1000 * US)
#define S  (1000 * MS)

/* Each of its servers does one request at a time, in the order in which they came. What comes while others are there comes in no
 * order, and is a jump; what comes alone goes on where the last one ended, if it is a write. */
struct device {
  unsigned nservers;
  uint64_t request_ns, page_ns, jump_ns;
};

/* Who always wants so many requests out at once, of 1 to most_pages pages; or for a while, and then nothing for as long. */
struct load {
  unsigned depth;
  uint32_t most_pages;
  unsigned reads_percent;
  uint64_t while_ns;
};

static struct head h;
static uint64_t now;
static struct queued queue;
static struct rng rng;
static unsigned noisy; /* one request in so many takes five times as long; 0: none */
static bool ignored;   /* what it says */
/* Of a run: */
static uint64_t npages_done;
static unsigned nchanges;

static void
setup (void)
{
  head_init (&h);
  rng = rng_for (8);
  now = 1 * S;
  queue = (struct queued){ .nout = 0 };
  noisy = 0;
  ignored = false;
}

TestSuite (head, .init = setup, .timeout = 300);

static void
submit (const struct device *d, const struct load *l)
{
  struct queued_request r = { .begin_ns = now,
                              .npages = 1 + (uint32_t) rng_below (&rng, l->most_pages),
                              .write = rng_below (&rng, 100) >= l->reads_percent };
  uint64_t ns = d->request_ns + r.npages * d->page_ns;

  if (queue.nout > 0 || !r.write)
    ns += d->jump_ns;
  if (noisy && rng_below (&rng, noisy) == 0)
    ns *= 5;
  queued_submit (&queue, d->nservers, r, ns);
}

static bool
is_wanted (const struct load *l)
{
  return !l->while_ns || now / l->while_ns % 2 == 0;
}

/* As swapdev-io.c does, for a device that is slow. */
static void
note (const struct queued_request *r, bool alone)
{
  uint64_t from_ns = atomic_load (&h.from_ns);
  bool was = h.best;

  if (from_ns == 0 || (r->write && r->end_ns >= from_ns))
    head_note (&h, &(struct head_io){ .begin_ns = r->begin_ns,
                                      .end_ns = r->end_ns,
                                      .npages = r->npages,
                                      .write = r->write,
                                      .alone = alone });
  nchanges += h.best != was;
}

static void
run (const struct device *d, const struct load *l, uint64_t ns)
{
  uint64_t end_ns = now + ns;

  npages_done = 0;
  nchanges = 0;
  while (now < end_ns) {
    unsigned most = h.one && !ignored ? 1 : l->depth;
    struct queued_request r;

    if (queue.nout == 0 && !is_wanted (l))
      now = (now / l->while_ns + 1) * l->while_ns;
    while (is_wanted (l) && queue.nout < most)
      submit (d, l);
    r = queued_take (&queue);
    now = r.end_ns;
    npages_done += r.npages;
    note (&r, queue.nout == 0 && (l->depth == 1 || !is_wanted (l)));
  }
}

/* What it loses beside having no limit at all, from the beginning. */
static double
loss (const struct device *d, const struct load *l, uint64_t ns, unsigned noise)
{
  double without;

  setup ();
  noisy = noise;
  ignored = true;
  run (d, l, ns);
  without = (double) npages_done;
  setup ();
  noisy = noise;
  run (d, l, ns);
  return 1 - (double) npages_done / without;
}

static const struct device seeks = { 1, 50 * US, 0, 5 * MS };
static const struct device parallel = { 32, 1 * MS, 0, 0 };
static const struct device serial = { 1, 0, 1 * MS, 0 };
static const struct load writes = { 32, 1, 0, 0 };

/* A disk that has to seek for all but the next page is given one write after the other, soon, and keeps that. */
Test (head, seeks)
{
  for (unsigned k = 0; k < 2; k++) {
    setup ();
    noisy = k ? 8 : 0;
    run (&seeks, &writes, 3 * S);
    cr_assert (h.best);
    run (&seeks, &writes, 100 * S);
    cr_assert (h.best);
    cr_assert_eq (nchanges, 0);
    cr_assert_geq (npages_done, (noisy ? 0.6 : 0.97) * 100 * 20000, "%lu", npages_done);
  }
}

/* Also with requests of all sizes, when it waits for the next ones now and then, and when a few want it. */
Test (head, seeks_with_other_loads)
{
  const struct load loads[] = { { 32, 16, 0, 0 }, { 32, 1, 0, 30 * MS }, { 2, 1, 0, 0 } };

  for (unsigned i = 0; i < 3; i++) {
    setup ();
    run (&seeks, &loads[i], 10 * S);
    cr_assert (h.best, "load %u", i);
    run (&seeks, &loads[i], 300 * S);
    cr_assert_eq (nchanges, 0, "load %u", i);
  }
}

/* What does many at once, or takes as long whatever is out, has no limit, and pays no more than 2 % for that to be found out. */
Test (head, others)
{
  const struct device little = { 2, 4 * MS, 20 * US, 0 }, slow = { 32, 100 * MS, 0, 0 };
  const struct device *devices[] = { &parallel, &serial, &little, &slow };
  const struct load loads[] = {
    { 32, 1, 0, 0 }, { 32, 256, 0, 0 }, { 8, 16, 50, 0 }, { 32, 4, 10, 70 * MS }, { 2, 1, 0, 0 },
  };

  for (unsigned i = 0; i < sizeof devices / sizeof devices[0]; i++)
    for (unsigned k = 0; k < sizeof loads / sizeof loads[0]; k++)
      for (unsigned noise = 0; noise <= 8; noise += 8) {
        double lost = loss (devices[i], &loads[k], devices[i] == &slow ? 2000 * S : 60 * S, noise);

        cr_assert_eq (nchanges, 0, "device %u, load %u, noise %u", i, k, noise);
        cr_assert_leq (lost, 0.02, "device %u, load %u, noise %u: %f", i, k, noise, lost);
      }
}

/* A trial that is lost is over soon, however long a request takes. */
Test (head, lost_soon)
{
  const struct device slow = { 32, 100 * MS, 0, 0 };
  uint64_t begin_ns;

  while (!h.one)
    run (&slow, &writes, 1);
  begin_ns = now;
  while (h.one)
    run (&slow, &writes, 1);
  cr_assert_not (h.best);
  cr_assert_leq (now - begin_ns, 400 * MS);
}

/* Where it is one after the other, and that is the best, there is a look at the other way now and then, which costs as little. */
Test (head, looks_again)
{
  run (&seeks, &writes, 3 * S);
  run (&seeks, &writes, 30 * S);
  cr_assert_geq (h.pause_ns, 1 * S);
  run (&seeks, &writes, 600 * S);
  cr_assert_eq (h.pause_ns, HEAD_PAUSE_MAX_NS);
  cr_assert_geq (npages_done, 0.99 * 600 * 20000, "%lu", npages_done);
}

/* A device may become another one. */
Test (head, changes)
{
  const struct device fast = { 4, 100 * US, 0, 0 };
  const struct device *others[] = { &parallel, &serial, &fast };

  for (unsigned i = 0; i < 3; i++) {
    setup ();
    run (&seeks, &writes, 10 * S);
    cr_assert (h.best);
    run (others[i], &writes, 60 * S);
    cr_assert_not (h.best, "device %u", i);
    run (&seeks, &writes, 60 * S);
    cr_assert (h.best, "device %u", i);
  }
}

/* It is for writes: reads that come alone have no limit, at once; nor is one found for them; and writes after them have one again. */
Test (head, reads)
{
  const struct load reads = { 32, 1, 100, 0 };

  run (&seeks, &writes, 10 * S);
  cr_assert (h.best);
  run (&seeks, &reads, 64 * 6 * MS);
  cr_assert_not (h.one);
  run (&seeks, &reads, 100 * S);
  cr_assert_not (h.one);
  cr_assert_eq (nchanges, 0);
  run (&seeks, &writes, 3 * S);
  cr_assert (h.best);
}

/* Few reads among many writes are no reason to end it, and many are, on a disk that does not mind how many there are. */
Test (head, reads_among_writes)
{
  const struct load few = { 32, 1, 2, 0 };

  run (&seeks, &few, 10 * S);
  cr_assert (h.best);
  run (&seeks, &few, 100 * S);
  cr_assert_eq (nchanges, 0);
}

/* One client with one request after the other is never asked to do so. */
Test (head, alone)
{
  const struct load one = { 1, 1, 0, 0 };

  run (&seeks, &one, 10 * S);
  cr_assert_eq (nchanges, 0);
  cr_assert_eq (h.nrequests, 0);
}

/* Where nothing was wanted there was no time. */
Test (head, idleness)
{
  run (&seeks, &writes, 150 * MS); /* counting what is done without a limit, or with one */
  cr_assert_eq (atomic_load (&h.from_ns), 0);
  run (&seeks, &(struct load){ 32, 1, 0, 1000 * S }, 3 * S);
  now += 100000 * S;
  run (&seeks, &writes, 3 * S);
  cr_assert (h.best);
  cr_assert_leq (h.pause_ns, 1000 * S);
}

/* Who had to wait for nothing since then has no such limit for long, and the longer, the longer that was. */
Test (head, gives_up)
{
  run (&seeks, &writes, 10 * S);
  cr_assert (h.one);
  head_give_up (&h, now, 1 * S);
  cr_assert_not (h.one);
  cr_assert_not (h.best);
  run (&seeks, &writes, 99 * S);
  cr_assert_eq (nchanges, 0);
  run (&seeks, &writes, 10 * S);
  cr_assert (h.best);
}

/* An interruption ends a trial, and leaves what was found. */
Test (head, interrupted)
{
  while (!h.one)
    run (&seeks, &writes, 1);
  cr_assert_not (h.best);
  head_interrupt (&h, now);
  cr_assert_not (h.one);
  run (&seeks, &writes, 10 * S);
  cr_assert (h.best);
  while (h.one)
    run (&seeks, &writes, 1);
  head_interrupt (&h, now);
  cr_assert (h.one);
  cr_assert (h.best);
}
