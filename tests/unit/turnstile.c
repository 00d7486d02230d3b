/* SPDX-License-Identifier: BSD-3-Clause
 *
 * turnstile.c - tests of lib/turnstile.c.
 *
 * Who waits is read from the turnstile's own count, so that threads come one by one, in a known order, without sleeps.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "lib/turnstile.h"
#include "tests/random.h"

static struct turnstile t;

static void
setup (void)
{
  turnstile_init (&t, 1);
}

static void
teardown (void)
{
  cr_assert_eq (t.nwaiting, 0);
  turnstile_destroy (&t);
}

TestSuite (turnstile, .init = setup, .fini = teardown, .timeout = 60);

static unsigned
nwaiting (void)
{
  unsigned n;

  mutex_lock (&t.mutex);
  n = t.nwaiting;
  mutex_unlock (&t.mutex);
  return n;
}

/* A thread that enters, says the how-manieth it was, from 1, and leaves when told. */
struct client {
  bool write;
  pthread_t thread;
  sem_t may_leave;
  atomic_uint turn;
};

static atomic_uint nturns;

static void *
client_main (void *arg)
{
  struct client *c = arg;

  turnstile_enter (&t, c->write);
  atomic_store (&c->turn, atomic_fetch_add (&nturns, 1) + 1);
  while (sem_wait (&c->may_leave) == -1)
    ;
  turnstile_leave (&t);
  return NULL;
}

static void
start (struct client *c, bool write)
{
  c->write = write;
  atomic_store (&c->turn, 0);
  sem_init (&c->may_leave, 0, 0);
  cr_assert_eq (pthread_create (&c->thread, NULL, client_main, c), 0);
}

static void
wait_turn (struct client *c)
{
  while (!atomic_load (&c->turn))
    sched_yield ();
}

/* Start one that must not wait. */
static void
start_in (struct client *c, bool write)
{
  start (c, write);
  wait_turn (c);
}

/* Start one that must wait, and wait until it does. */
static void
start_waiting (struct client *c, bool write)
{
  unsigned before = nwaiting ();

  start (c, write);
  while (nwaiting () != before + 1)
    sched_yield ();
}

static void
finish (struct client *c)
{
  sem_post (&c->may_leave);
  pthread_join (c->thread, NULL);
}

/* Without a limit everybody is in at once, readers and writers. */
Test (turnstile, no_limit)
{
  struct client c[20];

  turnstile_set_limit (&t, 0);
  for (unsigned i = 0; i < 20; i++)
    start_in (&c[i], i % 2);
  for (unsigned i = 0; i < 20; i++)
    finish (&c[i]);
}

/* So many are in, and no more until one leaves. */
Test (turnstile, holds_its_limit)
{
  struct client c[5];

  turnstile_set_limit (&t, 3);
  for (unsigned i = 0; i < 3; i++)
    start_in (&c[i], i % 2);
  start_waiting (&c[3], false);
  start_waiting (&c[4], true);
  finish (&c[1]);
  wait_turn (&c[3]);
  cr_assert_eq (nwaiting (), 1);
  finish (&c[0]);
  wait_turn (&c[4]);
  for (unsigned i = 2; i < 5; i++)
    finish (&c[i]);
}

/* The order in which those behind the first one had their turn, when each leaves once it has had it. */
static void
expect_order (struct client *c, unsigned n, const unsigned *order)
{
  finish (&c[0]);
  for (unsigned i = 0; i < n; i++) {
    wait_turn (&c[order[i]]);
    cr_assert_eq (c[order[i]].turn, i + 2, "turn %u of %u: %u", i, order[i], c[order[i]].turn);
    finish (&c[order[i]]);
  }
}

/* Readers come before writers, whoever came first; and of the same kind, who came first. */
Test (turnstile, readers_come_first)
{
  struct client c[6];

  start_in (&c[0], true);
  start_waiting (&c[1], true);
  start_waiting (&c[2], false);
  start_waiting (&c[3], true);
  start_waiting (&c[4], false);
  start_waiting (&c[5], false);
  expect_order (c, 5, (const unsigned[]){ 2, 4, 5, 1, 3 });
}

/* But when so many readers have passed, a writer has a turn; and the next one after as many again. */
Test (turnstile, writers_do_not_starve)
{
  enum { P = TURNSTILE_PASSING, N = 2 * P + 5 };
  struct client c[N];
  unsigned order[N], n = 0;

  start_in (&c[0], false);
  start_waiting (&c[1], true);
  start_waiting (&c[2], true);
  start_waiting (&c[3], true);
  for (unsigned i = 4; i < N; i++)
    start_waiting (&c[i], false);
  for (unsigned i = 0; i < P; i++)
    order[n++] = 4 + i;
  order[n++] = 1;
  for (unsigned i = P; i < 2 * P; i++)
    order[n++] = 4 + i;
  order[n++] = 2;
  order[n++] = 4 + 2 * P; /* the last reader */
  order[n++] = 3;
  expect_order (c, n, order);
}

/* Readers that passed nobody are not counted against those that come later. */
Test (turnstile, only_passing_counts)
{
  enum { P = TURNSTILE_PASSING };
  struct client c[2 * P + 2];
  unsigned order[2 * P + 1];

  start_in (&c[0], false);
  for (unsigned i = 1; i <= P; i++)
    start_waiting (&c[i], false);
  for (unsigned i = 0; i < P; i++) { /* all but the last leave before a writer comes */
    finish (&c[i]);
    wait_turn (&c[i + 1]);
  }
  start_waiting (&c[P + 1], true);
  for (unsigned i = P + 2; i < 2 * P + 2; i++)
    start_waiting (&c[i], false);
  for (unsigned i = 0; i < P; i++)
    order[i] = P + 2 + i;
  order[P] = P + 1;
  finish (&c[P]);
  for (unsigned i = 0; i <= P; i++) {
    wait_turn (&c[order[i]]);
    cr_assert_eq (c[order[i]].turn, P + 2 + i);
    finish (&c[order[i]]);
  }
}

/* Who comes when one has left and the next is not yet in has to wait all the same. */
Test (turnstile, nobody_slips_in)
{
  struct client c[3];

  start_in (&c[0], false);
  start_waiting (&c[1], false);
  mutex_lock (&t.mutex); /* keeps c[0] from passing its turn on */
  sem_post (&c[0].may_leave);
  while ((uint32_t) t.state != 0)
    sched_yield ();
  start (&c[2], true);
  for (unsigned i = 0; i < 1000; i++)
    sched_yield (); /* so that it would be in, if it could */
  mutex_unlock (&t.mutex);
  wait_turn (&c[1]);
  cr_assert_eq (c[1].turn, 2);
  finish (&c[1]);
  finish (&c[2]);
  pthread_join (c[0].thread, NULL);
}

/* A higher limit, or none, lets those in who wait; with a lower one the next has to wait until enough have left. */
Test (turnstile, limit_changes)
{
  struct client c[7];

  start_in (&c[0], false);
  for (unsigned i = 1; i < 6; i++)
    start_waiting (&c[i], i % 2);
  turnstile_set_limit (&t, 3);
  cr_assert_eq (turnstile_limit (&t), 3);
  wait_turn (&c[2]);
  wait_turn (&c[4]);
  cr_assert_eq (nwaiting (), 3);
  turnstile_set_limit (&t, 0);
  for (unsigned i = 0; i < 6; i++)
    wait_turn (&c[i]);
  turnstile_set_limit (&t, 2); /* they were counted without a limit, too */
  for (unsigned i = 0; i < 4; i++)
    finish (&c[i]);
  start_waiting (&c[6], false);
  finish (&c[4]);
  wait_turn (&c[6]);
  finish (&c[5]);
  finish (&c[6]);
  cr_assert_eq ((uint32_t) t.state, 0);
}

/* ---- many threads, and a limit that changes ---- */

enum { NTHREADS = 8, MOST = 3 };

static atomic_int nin, most_in;
static atomic_bool unlimited;

static void *
visitor_main (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  for (unsigned i = 0; i < random_steps (3000); i++) {
    int n;

    turnstile_enter (&t, rng_below (&rng, 2));
    n = atomic_fetch_add (&nin, 1) + 1;
    if (n > atomic_load (&most_in))
      atomic_store (&most_in, n);
    if (rng_below (&rng, 4) == 0)
      sched_yield ();
    atomic_fetch_sub (&nin, 1);
    turnstile_leave (&t);
    if (arg == (void *) 1 && rng_below (&rng, 10) == 0)
      turnstile_set_limit (&t, atomic_load (&unlimited) ? (unsigned) rng_below (&rng, MOST + 1)
                                                        : 1 + (unsigned) rng_below (&rng, MOST));
  }
  return NULL;
}

static void
run_visitors (void)
{
  pthread_t thread[NTHREADS];

  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, visitor_main, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq ((uint32_t) t.state, 0);
}

/* There are never more in than the highest limit, and nobody is forgotten. */
Test (turnstile, many_threads)
{
  run_visitors ();
  cr_assert_leq (most_in, MOST, "%d at once", most_in);
}

/* Nor if there is no limit now and then. */
Test (turnstile, many_threads_without_a_limit)
{
  atomic_store (&unlimited, true);
  run_visitors ();
}
