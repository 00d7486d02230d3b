/* SPDX-License-Identifier: BSD-3-Clause
 *
 * turnstile.c - tests of lib/turnstile.c.
 *
 * Who waits is read from the turnstile's own count, so that threads come one by one, in a known order, without sleeps. Time is the
 * test's own.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "lib/flow.h"
#include "lib/stats.h"
#include "lib/turnstile.h"
#include "tests/random.h"

#define MS UINT64_C (1000000)

static struct turnstile t;
static _Atomic uint64_t now;

uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return atomic_load (&now);
}

/* Without a window, unless a test sets one: requests go whole. */
static void
setup (void)
{
  atomic_store (&now, 1000 * 1000 * MS);
  turnstile_init (&t, 1, true);
  t.window.size = t.window.best = 0;
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
  const struct flow *flow;
  bool write;
  uint32_t npages, granted, slot;
  pthread_t thread;
  sem_t may_leave;
  atomic_uint turn;
};

static atomic_uint nturns;

static void *
client_main (void *arg)
{
  struct client *c = arg;
  struct turnstile_turn turn = { .slot = c->slot };

  c->granted = turnstile_enter (&t, &turn, c->flow, c->write, c->npages);
  turnstile_see (&t, now_ns ());
  atomic_store (&c->turn, atomic_fetch_add (&nturns, 1) + 1);
  while (sem_wait (&c->may_leave) == -1)
    ;
  turnstile_leave (&t, &turn);
  return NULL;
}

static void
start_at (struct client *c, const struct flow *flow, bool write, uint32_t npages, uint32_t slot)
{
  c->flow = flow;
  c->write = write;
  c->npages = npages;
  c->slot = slot;
  atomic_store (&c->turn, 0);
  sem_init (&c->may_leave, 0, 0);
  cr_assert_eq (pthread_create (&c->thread, NULL, client_main, c), 0);
}

static void
start_of (struct client *c, const struct flow *flow, bool write, uint32_t npages)
{
  start_at (c, flow, write, npages, 0);
}

static void
wait_turn (struct client *c)
{
  while (!atomic_load (&c->turn))
    sched_yield ();
}

static void
start (struct client *c, bool write)
{
  start_of (c, NULL, write, 1);
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
start_waiting_at (struct client *c, const struct flow *flow, bool write, uint32_t npages,
                  uint32_t slot)
{
  unsigned before = nwaiting ();

  start_at (c, flow, write, npages, slot);
  while (nwaiting () != before + 1)
    sched_yield ();
}

static void
start_waiting_of (struct client *c, const struct flow *flow, bool write, uint32_t npages)
{
  start_waiting_at (c, flow, write, npages, 0);
}

static void
start_waiting (struct client *c, bool write)
{
  start_waiting_of (c, NULL, write, 1);
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

/* But a writer goes before those that are to write just behind it; readers do not. */
Test (turnstile, writers_in_order)
{
  static const uint32_t slots[] = { 0, 500, 300, 400, 500 + TURNSTILE_NEAR + 1, 299, 500, 7, 5 };
  struct client c[9];

  start_in (&c[0], true);
  for (unsigned i = 1; i < 9; i++)
    start_waiting_at (&c[i], NULL, i < 7, 1, slots[i]);
  expect_order (c, 8, (const unsigned[]){ 7, 8, 5, 2, 3, 1, 4, 6 });
}

/* One that is far behind has nothing to do with those, and waits for its turn. */
Test (turnstile, writers_far_behind)
{
  struct client c[4];

  start_in (&c[0], true);
  start_waiting_at (&c[1], NULL, true, 1, 500 + TURNSTILE_NEAR);
  start_waiting_at (&c[2], NULL, true, 1, 499);
  start_waiting_at (&c[3], NULL, true, 1, 500);
  expect_order (c, 3, (const unsigned[]){ 3, 1, 2 });
}

/* And when so many have gone before it, it waits for no more of them. */
Test (turnstile, writers_are_passed_so_often)
{
  enum { MAX = TURNSTILE_PASSED_MAX, N = MAX + 4 };
  struct client c[N];
  unsigned order[N], n = 0;

  start_in (&c[0], true);
  start_waiting_at (&c[1], NULL, true, 1, 900);
  for (unsigned i = 2; i < N; i++)
    start_waiting_at (&c[i], NULL, true, 1, i < MAX + 3 ? 100 : 99);
  for (unsigned i = 2; i < MAX + 2; i++)
    order[n++] = i;
  order[n++] = 1;
  order[n++] = MAX + 3; /* only for that one there was no going before */
  order[n++] = MAX + 2;
  expect_order (c, n, order);
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

/* One at a time is as a limit of one, but for those who ask for the limit; a limit that is asked for is the one. */
Test (turnstile, single)
{
  struct client c[4];

  turnstile_set_limit (&t, 0);
  start_in (&c[0], true);
  cr_assert (turnstile_is_alone (&t));
  start_in (&c[1], true);
  cr_assert_not (turnstile_is_alone (&t));
  turnstile_set_single (&t, true);
  cr_assert (turnstile_is_single (&t));
  cr_assert_eq (turnstile_limit (&t), 0);
  finish (&c[0]);
  cr_assert (turnstile_is_alone (&t));
  start_waiting (&c[2], true);
  cr_assert_not (turnstile_is_alone (&t));
  finish (&c[1]);
  wait_turn (&c[2]);
  start_waiting (&c[3], false);
  turnstile_set_single (&t, false);
  wait_turn (&c[3]);
  turnstile_set_single (&t, true);
  start_waiting (&c[0], true);
  turnstile_set_limit (&t, 3);
  cr_assert_not (turnstile_is_single (&t));
  wait_turn (&c[0]);
  turnstile_set_single (&t, true);
  cr_assert_not (turnstile_is_single (&t));
  for (unsigned i = 0; i < 4; i++)
    if (i != 1)
      finish (&c[i]);
  cr_assert_eq ((uint32_t) t.state, 0);
}

/* What hangs keeps nobody out for ever who could be in without it. What has only just begun does not hang. */
Test (turnstile, single_hanging)
{
  struct client c[3];

  turnstile_set_limit (&t, 0);
  turnstile_set_single (&t, true);
  start_in (&c[0], true);
  start_waiting (&c[1], true);
  atomic_fetch_add (&now, TURNSTILE_HANG_NS - 1);
  start_waiting (&c[2], true);
  mutex_lock (&t.mutex);
  cr_assert_eq (t.nwaiting, 2);
  mutex_unlock (&t.mutex);
  finish (&c[0]);
  wait_turn (&c[1]);
  cr_assert (turnstile_is_single (&t));
  atomic_fetch_add (&now, TURNSTILE_HANG_NS);
  wait_turn (&c[2]);
  cr_assert_not (turnstile_is_single (&t));
  finish (&c[1]);
  finish (&c[2]);
}

/* Who tries is in when there is room, and else has not come: nobody waits because of it. */
Test (turnstile, tries)
{
  struct turnstile_turn first = { .slot = 0 }, second = { .slot = 0 };
  struct client c[2];

  cr_assert (turnstile_try_enter (&t, &first, NULL, false, 7));
  cr_assert_eq (first.npages, 7);
  cr_assert_not (turnstile_try_enter (&t, &second, NULL, false, 1));
  cr_assert_eq (nwaiting (), 0);
  start_waiting (&c[0], true);
  turnstile_set_limit (&t, 2);
  wait_turn (&c[0]);
  cr_assert_not (turnstile_try_enter (&t, &second, NULL, false, 1));
  start_waiting (&c[1], true);
  turnstile_leave (&t, &first);
  wait_turn (&c[1]);
  finish (&c[0]);
  cr_assert (turnstile_try_enter (&t, &second, NULL, true, 1));
  turnstile_leave (&t, &second);
  finish (&c[1]);
  cr_assert_eq ((uint32_t) t.state, 0);
}

/* A reader that tries does not pass a writer that waits, nor does it slip in when one has left and the next is not yet in. */
Test (turnstile, tries_do_not_slip_in)
{
  struct turnstile_turn turn = { .slot = 0 };
  struct client c[2];

  start_in (&c[0], false);
  start_waiting (&c[1], true);
  cr_assert_not (turnstile_try_enter (&t, &turn, NULL, false, 1));
  mutex_lock (&t.mutex);
  sem_post (&c[0].may_leave);
  while ((uint32_t) t.state != 0)
    sched_yield ();
  mutex_unlock (&t.mutex);
  cr_assert_not (turnstile_try_enter (&t, &turn, NULL, false, 1));
  wait_turn (&c[1]);
  cr_assert_eq (c[1].turn, 2);
  finish (&c[1]);
  pthread_join (c[0].thread, NULL);
  cr_assert_eq ((uint32_t) t.state, 0);
}

/* ---- flows ---- */

enum { MANY = 256 };

static struct client crowd[MANY];
static unsigned ncrowd;
static const struct client *order[MANY]; /* of the crowd, by turns */

/* One more, that is to leave as soon as it has had its turn. */
static void
add (const struct flow *flow, bool write, uint32_t npages, unsigned n)
{
  while (n-- > 0) {
    struct client *c = &crowd[ncrowd++];

    start_waiting_of (c, flow, write, npages);
    sem_post (&c->may_leave);
  }
}

/* They come while somebody else is in; who leaves, and all have their turns. */
static struct client keeper;

static void
keep_waiting (void)
{
  start_in (&keeper, true);
}

static void
let_go (void)
{
  finish (&keeper);
  for (unsigned i = 0; i < ncrowd; i++) {
    pthread_join (crowd[i].thread, NULL);
    order[crowd[i].turn - 2] = &crowd[i];
  }
}

/* How many of the turns [first, end) were theirs? */
static unsigned
count (const struct flow *flow, bool write, unsigned first, unsigned end)
{
  unsigned n = 0;

  for (unsigned i = first; i < end; i++)
    n += order[i]->flow == flow && order[i]->write == write;
  return n;
}

static struct flow a, b, c;

static void
setup_flows (void)
{
  setup ();
  flow_init (&a);
  flow_init (&b);
  flow_init (&c);
}

TestSuite (turnstile_flows, .init = setup_flows, .fini = teardown, .timeout = 60);

/* However many come first, another flow has its half. */
Test (turnstile_flows, equal_shares)
{
  keep_waiting ();
  add (&a, false, 1, 100);
  add (&b, false, 1, 20);
  let_go ();
  for (unsigned i = 2; i <= 40; i += 2)
    cr_assert (count (&b, false, 0, i) >= i / 2 - 1 && count (&b, false, 0, i) <= i / 2 + 1);
  cr_assert_eq (count (&b, false, 0, 42), 20);
}

/* By weight, at any time. */
Test (turnstile_flows, weights)
{
  flow_set_share (&a, 100, 0, 0);
  flow_set_share (&b, 300, 0, 0);
  flow_set_share (&c, 50, 0, 0);
  keep_waiting ();
  add (&a, true, 1, 80);
  add (&b, true, 1, 80);
  add (&c, true, 1, 80);
  let_go ();
  for (unsigned i = 1; i <= 117; i++) { /* all of b's are done then */
    double of_a = count (&a, true, 0, i) - i * 2 / 9.0, of_b = count (&b, true, 0, i) - i * 6 / 9.0;

    cr_assert (of_a >= -2 && of_a <= 2, "turn %u: a is %f ahead", i, of_a);
    cr_assert (of_b >= -2 && of_b <= 2, "turn %u: b is %f ahead", i, of_b);
  }
}

/* By bytes, not by requests; and the server's own are a flow, too. */
Test (turnstile_flows, sizes)
{
  keep_waiting ();
  add (NULL, false, 16, 20);
  add (&b, false, 1, 160);
  let_go ();
  for (unsigned i = 17; i <= 170; i += 17) {
    unsigned large = count (NULL, false, 0, i);

    cr_assert (large + 1 >= i / 17 && large <= i / 17 + 1, "turn %u: %u", i, large);
  }
}

/* Who was away begins where the others are, and not with all that it has not had. */
Test (turnstile_flows, idleness_earns_nothing)
{
  keep_waiting ();
  add (&b, false, 1, 1);
  add (&a, false, 1, 60);
  let_go ();
  ncrowd = 0;
  nturns = 0;
  keep_waiting ();
  add (&a, false, 1, 40);
  add (&b, false, 1, 40);
  let_go ();
  cr_assert (count (&a, false, 0, 20) >= 9 && count (&a, false, 0, 20) <= 11, "%u",
             count (&a, false, 0, 20));
}

/* Nor does anybody who never waited: one that comes later, again and again, is always next. */
Test (turnstile_flows, newcomers)
{
  keep_waiting ();
  add (&a, false, 1, 30);
  add (&b, false, 1, 1);
  add (&c, false, 1, 1);
  let_go ();
  cr_assert_eq (count (&b, false, 0, 4), 1);
  cr_assert_eq (count (&c, false, 0, 4), 1);
}

/* A flow's readers come before another's writers, and get some turns more, but not all of them. */
Test (turnstile_flows, readers_lead)
{
  enum { P = TURNSTILE_PASSING };

  keep_waiting ();
  add (&b, true, 1, 20);
  add (&a, false, 1, 80);
  let_go ();
  for (unsigned i = 0; i < P; i++)
    cr_assert_eq (order[i]->flow, &a, "turn %u", i);
  for (unsigned i = 2 * P; i <= 40; i++) {
    unsigned writes = count (&b, true, 0, i);

    cr_assert (writes + P >= i - writes - 2 && i - writes + 2 >= writes, "turn %u: %u writes", i,
               writes);
  }
}

/* Writers of a flow that has much do not pass the reader of one that has little, though it is their turn among their own. */
Test (turnstile_flows, writers_pass_nobody_behind)
{
  keep_waiting ();
  add (&a, true, 1, 20);
  add (&a, false, 1, 50);
  t.npassed = TURNSTILE_PASSING;
  add (&b, false, 1, 3);
  for (unsigned i = 0; i < TURNSTILE_FLOWS; i++)
    if (t.flow[i].flow == &a)
      t.flow[i].tag += 100 * 1000 * 1000;
  let_go ();
  cr_assert_eq (count (&b, false, 0, 3), 3);
}

/* More flows than there are tags for: all have their turns. */
Test (turnstile_flows, many_flows)
{
  static struct flow flows[MANY];

  keep_waiting ();
  for (unsigned i = 0; i < MANY; i++) {
    flow_init (&flows[i]);
    add (&flows[i], i % 3 == 0, 1 + i % 5, 1);
  }
  let_go ();
  cr_assert_eq (nturns, MANY + 1);
}

/* ---- rivals ---- */

/* One of the flow has a turn for npages, of so long: how many of them it was let in with. */
static uint32_t
stay (const struct flow *flow, bool write, uint32_t npages, uint64_t ns)
{
  struct turnstile_turn turn = { .slot = 0 };
  uint32_t n = turnstile_enter (&t, &turn, flow, write, npages);

  turnstile_see (&t, now_ns ());
  atomic_fetch_add (&now, ns);
  turnstile_leave (&t, &turn);
  return n;
}

static uint32_t
visit (const struct flow *flow, uint32_t npages)
{
  return stay (flow, false, npages, 0);
}

/* With a window, while two flows come, requests go in pieces; and as they are before, and some time after. */
Test (turnstile_flows, rivals)
{
  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  for (unsigned i = 0; i < 10; i++)
    cr_assert_eq (visit (&a, 100), 100);
  cr_assert_eq (visit (&b, 100), 4);
  cr_assert_eq (visit (&b, 3), 3);
  cr_assert_eq (visit (&a, 100), 4);
  atomic_fetch_add (&now, TURNSTILE_RIVAL_NS - 1);
  cr_assert_eq (visit (&b, 100), 4);
  atomic_fetch_add (&now, TURNSTILE_RIVAL_NS - 1);
  cr_assert_eq (visit (&b, 100), 4);
  atomic_fetch_add (&now, 1);
  cr_assert_eq (visit (&b, 100), 100);
  cr_assert_eq (visit (&b, 100), 100);
  cr_assert_eq (visit (NULL, 100), 4); /* the server itself is one, too */
}

/* The flow writes, and reads before that has ended. */
static uint32_t
read_beside_write (const struct flow *flow, uint32_t npages)
{
  struct client writer;
  uint32_t n;

  start_of (&writer, flow, true, 1);
  wait_turn (&writer);
  n = visit (flow, npages);
  finish (&writer);
  return n;
}

/* So are a reader and a writer of one flow, if they come at the same time, and not only one after the other. */
Test (turnstile_flows, readers_and_writers_are_rivals)
{
  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  for (unsigned i = 0; i < 10; i++)
    cr_assert_eq (stay (&a, i % 2, 100, 0), 100);
  cr_assert_eq (read_beside_write (&a, 100), 4);
  cr_assert_eq (stay (&a, true, 100, 0), 4);
  atomic_fetch_add (&now, TURNSTILE_RIVAL_NS - 1);
  cr_assert_eq (visit (&a, 100), 4); /* that one is no news */
  atomic_fetch_add (&now, TURNSTILE_RIVAL_NS);
  cr_assert_eq (stay (&a, true, 100, 0), 100);
}

/* Who reads and writes by turns takes no look for that. */
Test (turnstile_flows, by_turns)
{
  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  visit (&a, 1);
  for (unsigned i = 0; i < 100; i++) {
    struct turnstile_turn turn = { .slot = 0 };

    cr_assert_eq (turnstile_enter (&t, &turn, &a, i % 3 == 0, 100), 100);
    cr_assert_null (turn.place);
    turnstile_leave (&t, &turn);
  }
}

/* However many writers there are, a reader of theirs waits for no more than what the window has let in. */
Test (turnstile_flows, reader_beside_its_writers)
{
  enum { NWRITERS = 16 };
  struct client w[NWRITERS + 1], reader;

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 2;
  read_beside_write (&a, 1);
  t.window.size = t.window.best = 1;
  start_of (&w[0], &a, true, 1);
  wait_turn (&w[0]);
  for (unsigned i = 1; i <= NWRITERS; i++)
    start_waiting_of (&w[i], &a, true, 64);
  for (unsigned i = 0; i < NWRITERS; i++) {
    start_waiting_of (&reader, &a, false, 1);
    finish (&w[i]);
    wait_turn (&reader);
    cr_assert_eq (nwaiting (), NWRITERS - i, "a writer has passed");
    finish (&reader);
    wait_turn (&w[i + 1]);
    cr_assert_eq (w[i + 1].granted, 1);
  }
  finish (&w[NWRITERS]);
}

/* Where the window is no limit rivals come in without a look, but for one now and then: with its latency the window is judged. */
Test (turnstile_flows, looks_now_and_then)
{
  struct turnstile_turn turn = { .slot = 0 };
  unsigned nlooks = 0;

  turnstile_set_limit (&t, 0);
  visit (&b, 1);
  for (unsigned i = 0; i < 1000; i++) {
    turnstile_enter (&t, &turn, i % 2 ? &a : &b, i % 3 == 0, 8);
    nlooks += turn.place != NULL;
    turnstile_see (&t, now_ns ());
    atomic_fetch_add (&now, MS / 10);
    turnstile_leave (&t, &turn);
  }
  cr_assert (nlooks >= 50 && nlooks <= 110, "%u", nlooks);
  cr_assert_eq (t.window.size, 0);
  for (unsigned i = 0; i < 100 && !t.window.size; i++)
    stay (i % 2 ? &a : &b, i % 3 == 0, 1, 2 * MS);
  cr_assert_neq (t.window.size, 0, "it has become slow, and nobody saw it");
  cr_assert_eq (visit (&a, 100), t.window.size);
}

/* But they are none any more when only one of them comes. */
Test (turnstile_flows, rivals_without_a_window_end)
{
  turnstile_set_limit (&t, 0);
  visit (&b, 1);
  for (unsigned i = 0; i < 100; i++)
    stay (i % 2 ? &a : &b, false, 1, MS);
  for (unsigned i = 0; i < 1000; i++)
    stay (&a, false, 1, MS);
  t.window.size = t.window.best = 4;
  atomic_fetch_add (&now, TURNSTILE_LOOK_NS);
  visit (&a, 1); /* this one may be looked at */
  cr_assert_eq (visit (&a, 100), 100);
}

/* One flow after the other, with some time between, are none. */
Test (turnstile_flows, no_rivals)
{
  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  for (unsigned i = 0; i < 10; i++) {
    for (unsigned k = 0; k < 10; k++)
      cr_assert_eq (visit (i % 2 ? &a : &b, 100), 100);
    atomic_fetch_add (&now, TURNSTILE_RIVAL_NS);
  }
}

static void
make_rivals (void)
{
  visit (&b, 1);
  visit (&a, 1);
}

/* No more pages are in than the window has, whosoever they are; and who waits gets in as they leave. */
Test (turnstile_flows, holds_its_window)
{
  struct client k[6];

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  make_rivals ();
  start_of (&k[0], &a, false, 3);
  wait_turn (&k[0]);
  start_of (&k[1], &b, true, 1);
  wait_turn (&k[1]);
  start_waiting_of (&k[2], &a, false, 9);
  start_waiting_of (&k[3], &b, false, 1);
  start_waiting_of (&k[4], &b, false, 1);
  finish (&k[1]);
  wait_turn (&k[3]);
  cr_assert_eq (nwaiting (), 2);
  finish (&k[0]);
  wait_turn (&k[4]);
  cr_assert_eq (nwaiting (), 1);
  finish (&k[3]);
  cr_assert_eq (nwaiting (), 1);
  finish (&k[4]);
  wait_turn (&k[2]);
  cr_assert_eq (k[2].granted, 4);
  finish (&k[2]);
  cr_assert_eq (t.npages, 0);
}

/* Who tries is let in with what a turn may have, and not beyond the window. */
Test (turnstile_flows, tries_the_window)
{
  struct turnstile_turn first = { .slot = 0 }, second = { .slot = 0 };
  struct client large;

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  make_rivals ();
  cr_assert (turnstile_try_enter (&t, &first, &a, true, 3));
  cr_assert_eq (first.npages, 3);
  cr_assert_not (turnstile_try_enter (&t, &second, &b, false, 2));
  cr_assert_eq (t.npages, 3);
  cr_assert (turnstile_try_enter (&t, &second, &b, false, 1));
  turnstile_leave (&t, &first);
  turnstile_leave (&t, &second);
  cr_assert (turnstile_try_enter (&t, &second, &b, false, 100));
  cr_assert_eq (second.npages, 4);
  turnstile_leave (&t, &second);
  cr_assert (turnstile_try_enter (&t, &first, &a, false, 1));
  start_waiting_of (&large, &a, true, 4);
  cr_assert_not (turnstile_try_enter (&t, &second, &b, false, 1)); /* past one that waits */
  turnstile_leave (&t, &first);
  wait_turn (&large);
  finish (&large);
  cr_assert_eq (t.npages, 0);
  for (unsigned i = 0; i < TURNSTILE_FLOWS; i++)
    cr_assert_eq (t.flow[i].nhere[0] + t.flow[i].nhere[1], 0);
}

/* Rivals have their window, and not one at a time beside it. */
Test (turnstile_flows, window_and_single)
{
  struct client k[3];

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 2;
  turnstile_set_single (&t, true);
  make_rivals ();
  cr_assert (turnstile_has_window (&t));
  start_of (&k[0], &a, true, 1);
  wait_turn (&k[0]);
  start_of (&k[1], &b, true, 1);
  wait_turn (&k[1]);
  start_waiting_of (&k[2], &b, true, 1);
  for (unsigned i = 0; i < 3; i++)
    finish (&k[i]);
  cr_assert (turnstile_is_single (&t));
}

/* When the rival has gone, those who wait for the window go on at once with the next one that comes. */
Test (turnstile_flows, window_ends)
{
  struct client k[4];

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 1;
  make_rivals ();
  start_of (&k[0], &a, false, 1);
  wait_turn (&k[0]);
  start_waiting_of (&k[1], &a, false, 1);
  start_waiting_of (&k[2], &a, false, 8);
  atomic_fetch_add (&now, TURNSTILE_RIVAL_NS);
  start_of (&k[3], &a, false, 5);
  for (unsigned i = 1; i < 4; i++)
    wait_turn (&k[i]);
  cr_assert_eq (k[3].granted, 5);
  for (unsigned i = 0; i < 4; i++)
    finish (&k[i]);
  cr_assert_eq (t.npages, 0);
  cr_assert_eq ((uint32_t) t.state, 0);
}

/* One that has to wait for long, or whose I/O takes long, is a rival all the while. */
Test (turnstile_flows, slow_rivals)
{
  struct client k[2];

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 4;
  make_rivals ();
  start_of (&k[0], &b, false, 4);
  wait_turn (&k[0]);
  start_waiting_of (&k[1], &a, false, 100);
  mutex_lock (&t.mutex);
  atomic_store (&t.looked_ns, atomic_fetch_add (&now, 10 * TURNSTILE_RIVAL_NS) +
                                10 * TURNSTILE_RIVAL_NS); /* does not hang */
  mutex_unlock (&t.mutex);
  start_waiting_of (&crowd[0], &a, false, 100);
  cr_assert_eq (nwaiting (), 2);
  finish (&k[0]);
  wait_turn (&k[1]);
  cr_assert_eq (k[1].granted, 4);
  finish (&k[1]);
  wait_turn (&crowd[0]);
  cr_assert_eq (crowd[0].granted, 4);
  finish (&crowd[0]);
  cr_assert_eq (visit (&a, 100), 4); /* not long ago */
  atomic_fetch_add (&now, TURNSTILE_RIVAL_NS);
  cr_assert_eq (visit (&a, 100), 100);
}

/* What hangs does not keep others out for ever, nor does it when it ends count twice. */
Test (turnstile_flows, hanging)
{
  struct client k[4];

  turnstile_set_limit (&t, 0);
  t.window.size = t.window.best = 2;
  make_rivals ();
  start_of (&k[0], &a, false, 2);
  wait_turn (&k[0]);
  start_waiting_of (&k[1], &b, false, 2);
  start_waiting_of (&k[2], &b, false, 2);
  atomic_fetch_add (&now, TURNSTILE_STALL_NS);
  wait_turn (&k[1]);
  cr_assert_eq (nwaiting (), 1);
  finish (&k[0]);
  cr_assert_eq (nwaiting (), 1); /* k[1] is still in */
  cr_assert_eq (t.npages, 2);
  finish (&k[1]);
  wait_turn (&k[2]);
  finish (&k[2]);
  cr_assert_eq (t.npages, 0);
}

/* One that is not to look out for them has no window. */
Test (turnstile_flows, may_not_adapt)
{
  turnstile_destroy (&t);
  turnstile_init (&t, 0, false);
  t.window.size = t.window.best = 4;
  make_rivals ();
  make_rivals ();
  cr_assert_eq (visit (&b, 100), 100);
  cr_assert_eq (visit (&a, 100), 100);
}

/* ---- at random ---- */

/* One flow reads and writes, on a device that is slow and fast by turns. Who tries is let in exactly if there is room, for as much of it as a turn may
 * have; and what is in is what was let in. */
Test (turnstile_flows, tries_at_random)
{
  enum { MAX_IN = 64 };
  static struct turnstile_turn turns[MAX_IN];
  struct turnstile_turn *in[MAX_IN], *unused[MAX_IN];
  unsigned nin = 0, nunused = 0, nwindow = 0, nopen = 0, nsingle = 0, limit = 0;
  struct rng rng = rng_for (3);
  uint64_t slow_ns = 0;

  window_init (&t.window);
  turnstile_set_limit (&t, limit);
  while (nunused < MAX_IN) {
    unused[nunused] = &turns[nunused];
    nunused++;
  }
  for (unsigned i = 0; i < random_steps (200000); i++) {
    if (rng_below (&rng, 10000) == 0)
      slow_ns = slow_ns ? 0 : 2 * MS;
    if (rng_below (&rng, 1000) == 0)
      turnstile_set_limit (&t, limit = rng_below (&rng, 2) * 8);
    if (rng_below (&rng, 1000) == 0)
      turnstile_set_single (&t, rng_below (&rng, 2));
    if (nunused > 0 && rng_below (&rng, 2)) {
      struct turnstile_turn *turn = unused[--nunused];
      uint32_t npages = 1 + (uint32_t) rng_below (&rng, 300), most;
      uint64_t npages_before = t.npages;
      bool is_in = turnstile_try_enter (&t, turn, &a, rng_below (&rng, 2), npages);
      bool by_window = t.state >> 50 & 1, single = turnstile_is_single (&t) && !by_window, room;

      most = by_window && npages > t.window.size ? t.window.size : npages;
      room = (!limit || nin < limit) && (!single || nin == 0) &&
             (!by_window || npages_before == 0 || npages_before + most <= t.window.size);
      cr_assert_eq (is_in, room, "step %u", i);
      nwindow += by_window;
      nopen += !by_window;
      nsingle += single;
      if (!is_in) {
        unused[nunused++] = turn;
        continue;
      }
      cr_assert_eq (turn->npages, most, "step %u: %u of %u", i, turn->npages, npages);
      turnstile_see (&t, now_ns ());
      in[nin++] = turn;
    } else if (nin > 0) {
      unsigned k = (unsigned) rng_below (&rng, nin);
      uint64_t placed = 0;

      atomic_fetch_add (&now, slow_ns + rng_below (&rng, 1000));
      turnstile_leave (&t, in[k]);
      unused[nunused++] = in[k];
      in[k] = in[--nin];
      for (unsigned m = 0; m < nin; m++)
        placed += in[m]->place ? in[m]->npages : 0;
      cr_assert_eq (t.npages, placed, "step %u", i);
      cr_assert_eq ((uint32_t) t.state, nin);
    }
  }
  while (nin > 0)
    turnstile_leave (&t, in[--nin]);
  cr_assert (nwindow > 0 && nopen > 0, "%u with a window, %u without", nwindow, nopen);
  cr_assert_gt (nsingle, 0);
}

/* ---- many threads, and a limit that changes ---- */

enum { NTHREADS = 8, MOST = 3 };

static atomic_int nin, most_in;
static atomic_bool unlimited;
static struct flow of[3];

static void *
visitor_main (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  for (unsigned i = 0, nsteps = random_steps (3000); i < nsteps; i++) {
    bool slow = i < nsteps / 2; /* and then so fast that there is no window soon */
    struct turnstile_turn turn = { .slot = (uint32_t) rng_below (&rng, 2000) };
    int n;

    const struct flow *flow = &of[rng_below (&rng, 3)];
    bool write = rng_below (&rng, 2);
    uint32_t npages = 1 + (uint32_t) rng_below (&rng, 4);
    if (rng_below (&rng, 2) || !turnstile_try_enter (&t, &turn, flow, write, npages))
      turnstile_enter (&t, &turn, flow, write, npages);
    n = atomic_fetch_add (&nin, 1) + 1;
    if (n > atomic_load (&most_in))
      atomic_store (&most_in, n);
    turnstile_see (&t, now_ns ());
    if (rng_below (&rng, 4) == 0)
      sched_yield ();
    if (slow)
      atomic_fetch_add (&now, MS / 4);
    atomic_fetch_sub (&nin, 1);
    turnstile_leave (&t, &turn);
    if (rng_below (&rng, 100) == 0)
      atomic_fetch_add (&now, rng_below (&rng, 300) * MS);
    if (arg == (void *) 1 && rng_below (&rng, 10) == 0)
      turnstile_set_single (&t, rng_below (&rng, 2));
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

  window_init (&t.window);
  for (unsigned i = 0; i < 3; i++)
    flow_init (&of[i]);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, visitor_main, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq ((uint32_t) t.state, 0);
  cr_assert_eq (t.npages, 0);
  for (unsigned i = 0; i < TURNSTILE_FLOWS; i++)
    cr_assert_eq (t.flow[i].nhere[0] + t.flow[i].nhere[1], 0);
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
