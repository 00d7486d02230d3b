/* SPDX-License-Identifier: BSD-3-Clause
 *
 * session_holders.c - tests of lib/session.c: who may have an export, alone or with others; an operator who takes it away; and one that is
 * changed as a whole, for which clients wait. Exports are only passed through: any address will do.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session.h"
#include "tests/random.h"
#include "tests/scratch.h"

enum { TURNS = 1000, NEXPORTS = 3 };

static struct sessions *sessions;
static char exports[NEXPORTS];

static void
setup (void)
{
  scratch_setup ();
  cr_assert_eq (sessions_create (NULL, NULL, &sessions), 0);
}

static void
teardown (void)
{
  sessions_destroy (sessions);
  scratch_teardown ();
}

TestSuite (session_holders, .init = setup, .fini = teardown, .timeout = 120);

static struct export *
export_of (unsigned i)
{
  return (struct export *) &exports[i];
}

/* Somebody who opens an export. */
struct opener {
  unsigned export;
  const char *id; /* "": none */
  uint64_t epoch;
  const char *peer;
  bool exclusive;

  struct session *session;
  char holder[256];
  int ret;
  pthread_t thread;
  atomic_bool back;
};

static int
try_open (struct opener *o)
{
  static _Thread_local struct session_name name;
  struct session_wish wish = {
    .export = export_of (o->export), .name = &name, .peer = o->peer, .exclusive = o->exclusive
  };

  snprintf (name.export, sizeof name.export, "e%u", o->export);
  strcpy (name.id, o->id);
  name.epoch = o->epoch;
  o->ret = session_open (sessions, &wish, &o->session);
  if (o->ret == -EBUSY)
    snprintf (o->holder, sizeof o->holder, "%s", wish.holder);
  atomic_store (&o->back, true);
  return o->ret;
}

static void *
open_main (void *arg)
{
  try_open (arg);
  return NULL;
}

static void
start_open (struct opener *o)
{
  cr_assert_eq (pthread_create (&o->thread, NULL, open_main, o), 0);
}

static void
expect_waits (struct opener *o)
{
  for (unsigned i = 0; i < TURNS; i++)
    sched_yield ();
  cr_assert_not (atomic_load (&o->back), "it does not wait, and returns %d", o->ret);
}

static int
join (struct opener *o)
{
  cr_assert_eq (pthread_join (o->thread, NULL), 0);
  return o->ret;
}

static void
expect_runs (struct session *session)
{
  cr_assert_eq (session_begin (session), 0);
  session_end (session);
}

#define OPENER(id_, epoch_, peer_) \
  ((struct opener){ .id = id_, .epoch = epoch_, .peer = peer_, .exclusive = true })

/* ---- one client at a time ---- */

/* Who has it, who else may come then, and what is said of the holder. */
Test (session_holders, exclusive)
{
  static const struct {
    const char *id, *peer, *other_id, *other_peer, *holder; /* NULL: it is the same client */
  } pairs[] = {
    { "", "10.0.0.1", "", "10.0.0.1", NULL },
    { "", "10.0.0.1", "", "10.0.0.2", "10.0.0.1" },
    { "", "10.0.0.1", "", "10.0.0.11", "10.0.0.1" },
    { "", "", "", "", "an unknown peer" }, /* nobody knows that it is the same */
    { "", "10.0.0.1", "", "", "10.0.0.1" },
    { "a", "10.0.0.1", "a", "10.0.0.2", NULL }, /* it has another address by now */
    { "a", "10.0.0.1", "b", "10.0.0.1", "a (10.0.0.1)" },
    { "a", "", "b", "10.0.0.1", "a (an unknown peer)" },
    { "a", "10.0.0.1", "", "10.0.0.1", NULL }, /* where one has no ID the address counts */
    { "", "10.0.0.1", "a", "10.0.0.1", NULL },
    { "a", "10.0.0.1", "", "10.0.0.2", "a (10.0.0.1)" },
    { "", "10.0.0.1", "a", "10.0.0.2", "10.0.0.1" },
  };

  for (unsigned i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
    struct opener one = OPENER (pairs[i].id, i, pairs[i].peer), two, elsewhere;

    two = OPENER (pairs[i].other_id, i, pairs[i].other_peer);
    cr_assert_eq (try_open (&one), 0, "%u", i);
    cr_assert_eq (try_open (&two), pairs[i].holder ? -EBUSY : 0, "%u", i);
    if (pairs[i].holder)
      cr_assert_str_eq (two.holder, pairs[i].holder);
    else
      session_close (two.session);
    elsewhere = two;
    elsewhere.export = 1;
    cr_assert_eq (try_open (&elsewhere), 0, "%u", i);
    two.exclusive = false; /* who does not insist comes in */
    cr_assert_eq (try_open (&two), 0);
    session_close (two.session);
    session_close (elsewhere.session);
    session_close (one.session);
    two.exclusive = true;
    cr_assert_eq (try_open (&two), 0, "%u: it was free", i);
    session_close (two.session);
  }
}

/* Connections of an older epoch are in nobody's way, though they are open. */
Test (session_holders, barred_ones_hold_nothing)
{
  struct opener one = OPENER ("a", 1, "x"), two = OPENER ("a", 2, "x"),
                three = OPENER ("b", 1, "y");

  cr_assert_eq (try_open (&one), 0);
  cr_assert_eq (try_open (&two), 0);
  cr_assert_eq (sessions_count (sessions, export_of (0)), 1);
  cr_assert_eq (try_open (&three), -EBUSY);
  session_close (two.session);
  cr_assert_eq (sessions_count (sessions, export_of (0)), 0);
  cr_assert_eq (try_open (&three), 0);
  session_close (one.session);
  session_close (three.session);
}

/* ---- taken away ---- */

Test (session_holders, an_operator_takes_it)
{
  struct opener one = OPENER ("a", 1, "x"), also = OPENER ("", 0, "x"), elsewhere = one,
                two = OPENER ("b", 1, "y"), again = OPENER ("a", 7, "x");

  elsewhere.export = 1;
  cr_assert_eq (sessions_bar (sessions, export_of (0)), 0);
  cr_assert_eq (try_open (&one), 0);
  cr_assert_eq (try_open (&also), 0);
  cr_assert_eq (try_open (&elsewhere), 0);
  cr_assert_eq (sessions_bar (sessions, export_of (0)), 2);
  cr_assert_eq (session_begin (one.session), -ESTALE);
  cr_assert_eq (session_begin (also.session), -ESTALE);
  expect_runs (elsewhere.session);
  cr_assert_eq (try_open (&again), -EPERM, "it takes it back");
  again.exclusive = false;
  cr_assert_eq (try_open (&again), 0);
  session_close (again.session);
  again.exclusive = true;
  cr_assert_eq (try_open (&two), 0);
  cr_assert_eq (try_open (&again), -EBUSY);
  session_close (two.session);
  cr_assert_eq (try_open (&again), 0, "another has had it");
  session_close (again.session);
  session_close (one.session);
  session_close (also.session);
  session_close (elsewhere.session);
}

/* Each client once, as long as there is room. */
Test (session_holders, are_listed)
{
  static const struct opener who[] = { { .id = "", .peer = "x" },
                                       { .id = "a", .peer = "y" },
                                       { .id = "a", .peer = "z" },
                                       { .id = "", .peer = "x" },
                                       { .id = "b", .peer = "" } };
  struct opener o[5], barred = { .id = "", .peer = "w" },
                      elsewhere = { .export = 1, .id = "", .peer = "v" };
  char names[64], few[6];

  cr_assert_eq (sessions_list (sessions, export_of (0), names, sizeof names), 0);
  cr_assert_str_empty (names);
  cr_assert_eq (try_open (&barred), 0);
  sessions_bar (sessions, export_of (0));
  cr_assert_eq (try_open (&elsewhere), 0);
  for (unsigned i = 0; i < 5; i++) {
    o[i] = who[i];
    cr_assert_eq (try_open (&o[i]), 0);
  }
  cr_assert_eq (sessions_list (sessions, export_of (0), names, sizeof names), 3);
  cr_assert_str_eq (names, "b (an unknown peer), x, a (z)");
  cr_assert_eq (sessions_list (sessions, export_of (0), few, sizeof few), 3);
  cr_assert_str_eq (few, "b (an");
  for (unsigned i = 0; i < 5; i++)
    session_close (o[i].session);
  session_close (barred.session);
  session_close (elsewhere.session);
}

/* Nobody has it before what its old client asked for has ended. */
Test (session_holders, the_next_waits_for_what_is_under_way)
{
  struct opener one = OPENER ("", 0, "x"), two = OPENER ("", 0, "y");
  struct session_hold hold;

  cr_assert_eq (try_open (&one), 0);
  cr_assert_eq (session_begin (one.session), 0);
  cr_assert_eq (sessions_bar (sessions, export_of (0)), 1); /* does not wait */
  cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), -EBUSY);
  start_open (&two);
  expect_waits (&two);
  session_end (one.session);
  cr_assert_eq (join (&two), 0);
  session_close (two.session);
  cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), 0);
  sessions_release (sessions, &hold, false);
  session_close (one.session);
}

/* ---- held ---- */

Test (session_holders, who_comes_waits)
{
  struct opener one = OPENER ("a", 1, "x"), two = OPENER ("", 0, "x"), elsewhere = one;
  struct session_hold hold, other;

  elsewhere.export = 1;
  for (unsigned gone = 0; gone < 2; gone++) {
    struct opener a = one, b = two;

    cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), 0);
    cr_assert_eq (sessions_hold (sessions, &other, export_of (0)), -EBUSY);
    start_open (&a);
    start_open (&b);
    while (atomic_load (&hold.nwaiting) < 2)
      sched_yield ();
    cr_assert_eq (try_open (&elsewhere), 0);
    cr_assert_eq (sessions_hold (sessions, &other, export_of (1)), -EBUSY);
    session_close (elsewhere.session);
    cr_assert_eq (sessions_hold (sessions, &other, export_of (1)), 0);
    sessions_release (sessions, &other, false);
    expect_waits (&a);
    expect_waits (&b);
    sessions_release (sessions, &hold, gone);
    cr_assert_eq (join (&a), gone ? -ENOENT : 0);
    cr_assert_eq (join (&b), gone ? -ENOENT : 0);
    if (gone)
      continue;
    cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), -EBUSY);
    session_close (a.session);
    session_close (b.session);
  }
}

/* What has happened meanwhile is found when it ends: a later epoch, another client. */
Test (session_holders, who_has_waited_is_looked_at_anew)
{
  struct opener old = OPENER ("a", 1, "x"), new = OPENER ("a", 2, "x"),
                rival = OPENER ("b", 1, "y");
  struct session_hold hold;
  int rets[2];

  cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), 0);
  start_open (&old);
  start_open (&rival);
  expect_waits (&old);
  expect_waits (&rival);
  sessions_release (sessions, &hold, false);
  rets[0] = join (&old);
  rets[1] = join (&rival);
  cr_assert ((rets[0] == 0 && rets[1] == -EBUSY) || (rets[0] == -EBUSY && rets[1] == 0), "%d %d",
             rets[0], rets[1]);
  session_close (rets[0] == 0 ? old.session : rival.session);
  cr_assert_eq (try_open (&new), 0);
  session_close (new.session);
  cr_assert_eq (try_open (&old), -ESTALE);
}

/* A halt comes first: nobody who waits for either begins before both are over. */
Test (session_holders, halted_while_held)
{
  struct opener one = OPENER ("a", 1, "x");
  struct session_hold hold;

  cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), 0);
  cr_assert_eq (sessions_halt (sessions, 1000), 0);
  start_open (&one);
  expect_waits (&one);
  sessions_release (sessions, &hold, false);
  expect_waits (&one);
  sessions_resume (sessions);
  cr_assert_eq (join (&one), 0);
  session_close (one.session);
}

static atomic_bool noting, go_on;

static int
slow_note (void *opaque, const char *key, uint64_t epoch)
{
  (void) opaque, (void) key, (void) epoch;
  atomic_store (&noting, true);
  while (!atomic_load (&go_on))
    sched_yield ();
  return 0;
}

/* An open that is just being noted is no session yet: the export can be held, and then it waits for that, too. */
Test (session_holders, held_while_one_is_noted)
{
  struct opener one = OPENER ("a", 1, "x");
  struct session_hold hold;

  sessions_destroy (sessions);
  cr_assert_eq (sessions_create (slow_note, NULL, &sessions), 0);
  start_open (&one);
  while (!atomic_load (&noting))
    sched_yield ();
  cr_assert_eq (sessions_hold (sessions, &hold, export_of (0)), 0);
  atomic_store (&go_on, true);
  expect_waits (&one);
  while (atomic_load (&hold.nwaiting) < 1)
    sched_yield ();
  sessions_release (sessions, &hold, true);
  cr_assert_eq (join (&one), -ENOENT);
}

/* ---- at random: many clients, operators and changes ---- */

enum { NTHREADS = 8, NPEERS = 4, STEPS = 3000 };

static atomic_uint nrunning[NEXPORTS]; /* requests */
static atomic_bool is_held[NEXPORTS];
static atomic_uint nwrong, nopened, nbusy, nousted, ngone, nheld, ntaken;
static char first_wrong[100];

static void
wrong (const char *what)
{
  if (atomic_fetch_add (&nwrong, 1) == 0)
    snprintf (first_wrong, sizeof first_wrong, "%s", what);
}

static void
request (struct session *session, unsigned export, struct rng *rng)
{
  if (session_begin (session) < 0)
    return;
  atomic_fetch_add (&nrunning[export], 1);
  for (uint64_t i = rng_below (rng, 4); i > 0; i--) {
    if (atomic_load (&is_held[export]))
      wrong ("a request runs while its export is held");
    sched_yield ();
  }
  atomic_fetch_sub (&nrunning[export], 1);
  session_end (session);
}

static void
be_client (struct rng *rng)
{
  static const char *const peers[NPEERS] = { "p0", "p1", "p2", "p3" };
  unsigned peer = (unsigned) rng_below (rng, NPEERS);
  struct opener o = OPENER ("", 0, peers[peer]);
  int ret;

  o.export = (unsigned) rng_below (rng, NEXPORTS);
  ret = try_open (&o);
  if (ret < 0) {
    atomic_fetch_add (ret == -EBUSY ? &nbusy : ret == -EPERM ? &nousted : &ngone, 1);
    if (ret != -EBUSY && ret != -EPERM && ret != -ENOENT)
      wrong ("an open fails");
    return;
  }
  atomic_fetch_add (&nopened, 1);
  for (uint64_t i = rng_below (rng, 5); i > 0; i--)
    request (o.session, o.export, rng);
  session_close (o.session);
}

static void
be_operator (struct rng *rng)
{
  unsigned export = (unsigned) rng_below (rng, NEXPORTS);
  struct session_hold hold;

  if (rng_below (rng, 4) == 0)
    atomic_fetch_add (&ntaken, sessions_bar (sessions, export_of (export)));
  if (sessions_hold (sessions, &hold, export_of (export)) < 0)
    return;
  atomic_fetch_add (&nheld, 1);
  atomic_store (&is_held[export], true);
  for (uint64_t i = rng_below (rng, 4); i > 0; i--) {
    if (atomic_load (&nrunning[export]) > 0)
      wrong ("an export is held while a request runs");
    sched_yield ();
  }
  atomic_store (&is_held[export], false);
  sessions_release (sessions, &hold, rng_below (rng, 8) == 0);
}

static void *
random_main (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  for (unsigned i = random_steps (STEPS); i > 0; i--)
    if (rng_below (&rng, 6) == 0)
      be_operator (&rng);
    else
      be_client (&rng);
  return NULL;
}

Test (session_holders, at_random)
{
  pthread_t thread[NTHREADS];

  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, random_main, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_log_info ("session_holders: %u opened, %u busy, %u ousted, %u gone; %u held, %u taken",
               atomic_load (&nopened), atomic_load (&nbusy), atomic_load (&nousted),
               atomic_load (&ngone), atomic_load (&nheld), atomic_load (&ntaken));
  cr_assert_eq (atomic_load (&nwrong), 0, "%u times wrong; first: %s (DRUM_TEST_SEED=%" PRIu64 ")",
                atomic_load (&nwrong), first_wrong, random_seed ());
  for (unsigned i = 0; i < NEXPORTS; i++)
    cr_assert_eq (sessions_count (sessions, export_of (i)), 0);
}
