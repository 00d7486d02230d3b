/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rangelock.c - tests of lib/rangelock.c.
 *
 * Who waits is read from the lock's own count, so that threads come one by one, in a known order, without sleeps.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "lib/rangelock.h"
#include "tests/random.h"

static struct rangelock rl;

static void
setup (void)
{
  rangelock_init (&rl);
}

static void
teardown (void)
{
  rangelock_destroy (&rl);
}

TestSuite (rangelock, .init = setup, .fini = teardown, .timeout = 30);

static unsigned
nwaiting (void)
{
  unsigned n;

  mutex_lock (&rl.mutex);
  n = rl.nwaiting;
  mutex_unlock (&rl.mutex);
  return n;
}

static void
wait_for_waiters (unsigned n)
{
  while (nwaiting () != n)
    sched_yield ();
}

/* A thread that locks a range, says so, and unlocks it when told. */
struct client {
  uint64_t start, end;
  bool exclusive;
  bool expected_to_wait;
  pthread_t thread;
  struct rangelock_holder holder;
  sem_t may_unlock;
  atomic_uint granted; /* the how-manieth of all, from 1; 0: not yet */
};

static atomic_uint ngranted;

static void *
client_main (void *arg)
{
  struct client *c = arg;

  cr_assert_eq (rangelock_lock (&rl, &c->holder, c->start, c->end, c->exclusive),
                c->expected_to_wait);
  atomic_store (&c->granted, atomic_fetch_add (&ngranted, 1) + 1);
  while (sem_wait (&c->may_unlock) == -1)
    ;
  rangelock_unlock (&rl, &c->holder);
  return NULL;
}

static void
start (struct client *c)
{
  sem_init (&c->may_unlock, 0, 0);
  cr_assert_eq (pthread_create (&c->thread, NULL, client_main, c), 0);
}

/* Start one that must wait, and wait until it does. */
static void
start_waiting (struct client *c)
{
  unsigned before = nwaiting ();

  c->expected_to_wait = true;
  start (c);
  wait_for_waiters (before + 1);
}

/* Start one that must not wait. */
static void
start_granted (struct client *c)
{
  start (c);
  while (!atomic_load (&c->granted))
    sched_yield ();
}

static void
wait_granted (struct client *c)
{
  while (!atomic_load (&c->granted))
    sched_yield ();
}

static void
finish (struct client *c)
{
  sem_post (&c->may_unlock);
  pthread_join (c->thread, NULL);
}

/* Readers share a range, also if it is not the same. */
Test (rangelock, shared_locks_go_together)
{
  struct rangelock_holder a, b, c;

  rangelock_lock (&rl, &a, 0, 10, false);
  rangelock_lock (&rl, &b, 0, 10, false);
  rangelock_lock (&rl, &c, 5, 20, false);
  rangelock_unlock (&rl, &b);
  rangelock_unlock (&rl, &a);
  rangelock_unlock (&rl, &c);
}

/* Ranges that only touch do not conflict; an empty one conflicts with nothing. */
Test (rangelock, other_ranges_do_not_conflict)
{
  struct rangelock_holder a, b, c, empty, empty_too;

  rangelock_lock (&rl, &a, 10, 20, true);
  rangelock_lock (&rl, &b, 0, 10, true);
  rangelock_lock (&rl, &c, 20, UINT64_MAX, true);
  rangelock_lock (&rl, &empty, 15, 15, true);
  rangelock_lock (&rl, &empty_too, 15, 15, true);
  rangelock_unlock (&rl, &c);
  rangelock_unlock (&rl, &b);
  rangelock_unlock (&rl, &a);
  rangelock_lock (&rl, &a, 10, 20, true);
  rangelock_unlock (&rl, &empty);
  rangelock_unlock (&rl, &a);
  rangelock_unlock (&rl, &empty_too);
}

/* A writer waits for a reader and a reader for a writer, where one page is in both their ranges. */
Test (rangelock, one_page_is_enough_to_wait)
{
  static const struct {
    bool first, second;
  } kinds[] = { { true, true }, { true, false }, { false, true } };

  for (unsigned i = 0; i < 3; i++)
    for (unsigned side = 0; side < 2; side++) {
      struct rangelock_holder a;
      struct client b = { .start = side ? 0 : 19, .end = side ? 11 : 30 };

      b.exclusive = kinds[i].second;
      rangelock_lock (&rl, &a, 10, 20, kinds[i].first);
      start_waiting (&b);
      cr_assert_eq (atomic_load (&b.granted), 0);
      rangelock_unlock (&rl, &a);
      wait_granted (&b);
      finish (&b);
    }
}

/* Those who wait for one range get it in the order in which they came. */
Test (rangelock, first_come_first_served)
{
  enum { N = 8 };
  static struct client client[N];
  struct rangelock_holder a;

  rangelock_lock (&rl, &a, 0, 100, true);
  for (unsigned i = 0; i < N; i++) {
    client[i] = (struct client){ .start = i, .end = 50 + i, .exclusive = true };
    start_waiting (&client[i]);
  }
  rangelock_unlock (&rl, &a);
  for (unsigned i = 0; i < N; i++) {
    wait_granted (&client[i]);
    cr_assert_eq (atomic_load (&client[i].granted), i + 1);
    cr_assert_eq (nwaiting (), N - 1 - i, "two hold the range");
    finish (&client[i]);
  }
}

/* A writer that waits is not passed by readers that come later; they all go together after it. */
Test (rangelock, a_waiting_writer_is_not_starved)
{
  static struct client writer = { .start = 0, .end = 10, .exclusive = true };
  static struct client reader[3];
  struct rangelock_holder a;

  rangelock_lock (&rl, &a, 0, 10, false);
  start_waiting (&writer);
  for (unsigned i = 0; i < 3; i++) {
    reader[i] = (struct client){ .start = 5, .end = 6 };
    start_waiting (&reader[i]);
  }
  rangelock_unlock (&rl, &a);
  wait_granted (&writer);
  cr_assert_eq (nwaiting (), 3);
  finish (&writer);
  for (unsigned i = 0; i < 3; i++)
    wait_granted (&reader[i]);
  for (unsigned i = 0; i < 3; i++)
    finish (&reader[i]);
}

/* Who comes late waits for those that wait before it, but only where their ranges overlap. */
Test (rangelock, waits_only_for_what_overlaps)
{
  static struct client b = { .start = 5, .end = 15, .exclusive = true };
  static struct client c = { .start = 12, .end = 25, .exclusive = true };
  static struct client d = { .start = 15, .end = 30 };
  static struct client free_to_go = { .start = 30, .end = 40, .exclusive = true };
  struct rangelock_holder a;

  rangelock_lock (&rl, &a, 0, 10, true);
  start_waiting (&b);
  start_waiting (&c);
  start_waiting (&d);
  start_granted (&free_to_go);
  rangelock_unlock (&rl, &a);
  wait_granted (&b);
  cr_assert_eq (nwaiting (), 2);
  finish (&b);
  wait_granted (&c);
  cr_assert_eq (nwaiting (), 1);
  finish (&c);
  wait_granted (&d);
  finish (&d);
  finish (&free_to_go);
}

/* A reader that waits behind a writer does not hold up one whom the writer does not concern. */
Test (rangelock, a_shared_lock_in_between_is_no_obstacle)
{
  static struct client writer = { .start = 0, .end = 10, .exclusive = true };
  static struct client reader = { .start = 5, .end = 20 };
  static struct client late = { .start = 10, .end = 20 };
  struct rangelock_holder a;

  rangelock_lock (&rl, &a, 0, 1, false);
  start_waiting (&writer);
  start_waiting (&reader);
  start_granted (&late);
  finish (&late);
  rangelock_unlock (&rl, &a);
  finish (&writer);
  finish (&reader);
}

enum { NPAGES = 32, NTHREADS = 6 };

static atomic_int inside[NPAGES];    /* readers, or -1: a writer */
static unsigned unprotected[NPAGES]; /* for the thread sanitizer */
static atomic_uint nwrong;

static void
enter (uint64_t page, bool exclusive)
{
  if (exclusive) {
    if (atomic_exchange (&inside[page], -1) != 0)
      atomic_fetch_add (&nwrong, 1);
    unprotected[page]++;
  } else if (atomic_fetch_add (&inside[page], 1) < 0 || unprotected[page] == UINT32_MAX)
    atomic_fetch_add (&nwrong, 1);
}

static void
leave (uint64_t page, bool exclusive)
{
  if (exclusive)
    atomic_store (&inside[page], 0);
  else
    atomic_fetch_sub (&inside[page], 1);
}

static void *
lock_at_random (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  for (unsigned step = 0; step < random_steps (10000); step++) {
    uint64_t first = rng_below (&rng, NPAGES), end = first + rng_below (&rng, NPAGES - first + 1);
    bool exclusive = rng_below (&rng, 2);
    struct rangelock_holder holder;

    rangelock_lock (&rl, &holder, first, end, exclusive);
    for (uint64_t page = first; page < end; page++)
      enter (page, exclusive);
    if (step % 16 == 0)
      sched_yield ();
    for (uint64_t page = first; page < end; page++)
      leave (page, exclusive);
    rangelock_unlock (&rl, &holder);
  }
  return NULL;
}

/* At random: no page has a writer beside anyone else, and all get through. */
Test (rangelock, excludes_at_random)
{
  pthread_t thread[NTHREADS];

  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, lock_at_random, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (atomic_load (&nwrong), 0, "seed %" PRIu64, random_seed ());
  cr_assert_eq (nwaiting (), 0);
  cr_assert_null (rl.first);
}
