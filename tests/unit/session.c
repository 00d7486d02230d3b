/* SPDX-License-Identifier: BSD-3-Clause
 *
 * session.c - tests of lib/session.c. Exports are only passed through: any address will do.
 *
 * That somebody waits has no event; but what he has done before he waits can be seen: a bar, or a halt, is there. Whether he
 * waits is then looked at after so many turns for others that he would be through, if he could.
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

enum { TURNS = 1000, FOREVER_MS = 3600 * 1000 };

static struct sessions *sessions;
static char exports[2];

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

TestSuite (session, .init = setup, .fini = teardown, .timeout = 120);

/* ---- names ---- */

static void
expect_parts (const char *text, const char *export, const char *id, uint64_t epoch)
{
  static struct session_name name;

  memset (&name, 'x', sizeof name);
  cr_assert_eq (session_parse (text, &name), 0, "%s", text);
  cr_assert_str_eq (name.export, export, "%s: %s", text, name.export);
  cr_assert_str_eq (name.id, id, "%s: %s", text, name.id);
  cr_assert_eq (name.epoch, epoch, "%s: %" PRIu64, text, name.epoch);
}

Test (session, names)
{
  char *id64 = str ("%064d", 7), *id65 = str ("%065d", 7);

  expect_parts ("", "", "", 0);
  expect_parts ("vm", "vm", "", 0);
  expect_parts ("@a.1", "", "a", 1);
  expect_parts ("vm@a.1", "vm", "a", 1);
  expect_parts ("v.m@h-o_S7.0", "v.m", "h-o_S7", 0);
  expect_parts ("vm@b.2@a.1", "vm@b.2", "a", 1);
  expect_parts ("vm@a.007", "vm", "a", 7);
  expect_parts ("vm@a.18446744073709551615", "vm", "a", UINT64_MAX);
  expect_parts (str ("vm@%s.1", id64), "vm", id64, 1);
  for (const char *const *p =
         (const char *const[]){ "vm@a.18446744073709551616", "vm@a.", "vm@a", "vm@.1", "vm@", "@",
                                "vm@a.1.2", "vm@a.b.1", "vm@a.+1", "vm@a.-1", "vm@a. 1", "vm@a.1 ",
                                "vm@a b.1", "vm@a/b.1", "vm@\xc3\xa4.1", "vm@a.1@", "vm@b.1@a.x",
                                NULL };
       *p; p++)
    expect_parts (*p, *p, "", 0);
  expect_parts (str ("vm@%s.1", id65), str ("vm@%s.1", id65), "", 0);
}

Test (session, long_names)
{
  static struct session_name name, before;
  char *longest = str ("%04096d", 7);

  expect_parts (longest, longest, "", 0);
  expect_parts (str ("%s@a.1", longest), longest, "a", 1);
  memset (&name, 'x', sizeof name);
  before = name;
  cr_assert_eq (session_parse (str ("%s7", longest), &name), -ENAMETOOLONG);
  cr_assert_eq (session_parse (str ("%s7@a.1", longest), &name), -ENAMETOOLONG);
  cr_assert_eq (memcmp (&name, &before, sizeof name), 0, "output changed on failure");
}

/* ---- who is barred ---- */

static int
try_open (const char *id, uint64_t epoch, struct session **session)
{
  static _Thread_local struct session_name name;

  struct session_wish wish = { .export = (struct export *) exports, .name = &name, .peer = "" };

  strcpy (name.id, id);
  name.epoch = epoch;
  return session_open (sessions, &wish, session);
}

static struct session *
must_open (const char *id, uint64_t epoch)
{
  struct session *session;

  cr_assert_eq (try_open (id, epoch, &session), 0);
  return session;
}

static void
expect_refused (const char *id, uint64_t epoch, int error)
{
  struct session *session = (struct session *) exports;

  cr_assert_eq (try_open (id, epoch, &session), error);
  cr_assert_eq (session, (struct session *) exports, "output changed on failure");
}

static void
expect_runs (struct session *session)
{
  cr_assert_eq (session_begin (session), 0);
  session_end (session);
}

Test (session, knows_its_export)
{
  struct session_name name = { .id = "" };
  struct session *one, *two;

  struct session_wish wish = { .export = (struct export *) &exports[0], .name = &name, .peer = "" };

  cr_assert_eq (session_open (sessions, &wish, &one), 0);
  wish.export = (struct export *) &exports[1];
  cr_assert_eq (session_open (sessions, &wish, &two), 0);
  cr_assert_eq (session_export (one), (struct export *) &exports[0]);
  cr_assert_eq (session_export (two), (struct export *) &exports[1]);
  session_close (one);
  session_close (two);
}

/* A higher epoch bars the lower ones of its ID, and nobody else. */
Test (session, bars_lower_epochs)
{
  struct session *plain = must_open ("", 0), *other = must_open ("b", 1);
  struct session *one = must_open ("a", 1), *again = must_open ("a", 1), *five, *six;

  expect_runs (one);
  expect_runs (again);
  five = must_open ("a", 5);
  cr_assert_eq (session_begin (one), -ESTALE);
  cr_assert_eq (session_begin (again), -ESTALE);
  expect_refused ("a", 1, -ESTALE);
  expect_refused ("a", 4, -ESTALE);
  expect_refused ("a", 0, -ESTALE);
  session_close (one);
  one = must_open ("a", 5);
  expect_runs (five);
  expect_runs (one);
  six = must_open ("a", 6);
  cr_assert_eq (session_begin (one), -ESTALE);
  cr_assert_eq (session_begin (five), -ESTALE);
  cr_assert_eq (session_begin (again), -ESTALE);
  expect_runs (six);
  expect_runs (other);
  expect_runs (plain);
  session_close (six);
  expect_refused ("a", 5, -ESTALE); /* for good */
  session_close (five);
  session_close (one);
  session_close (again);
  session_close (other);
  session_close (plain);
  session_close (must_open ("a", 6));
}

/* A server that ends does not always close them. */
Test (session, end_while_they_are_open)
{
  must_open ("", 0);
  must_open ("a", 1);
  sessions_destroy (sessions);
  cr_assert_eq (sessions_create (NULL, NULL, &sessions), 0);
}

/* ---- who waits ---- */

/* A thread that opens, or begins a request. */
struct waiter {
  pthread_t thread;
  const char *id;
  uint64_t epoch;
  struct session *session;
  int ret;
  unsigned saw; /* of written */
  atomic_bool back;
};

/* By a request, before its end: who must have waited for that sees it. For TSan, too. */
static unsigned written;

static void *
open_main (void *arg)
{
  struct waiter *w = arg;

  w->ret = try_open (w->id, w->epoch, &w->session);
  if (w->ret == 0)
    w->saw = written;
  atomic_store (&w->back, true);
  return NULL;
}

static void
start_open (struct waiter *w, const char *id, uint64_t epoch)
{
  *w = (struct waiter){ .id = id, .epoch = epoch };
  cr_assert_eq (pthread_create (&w->thread, NULL, open_main, w), 0);
}

static void *
begin_main (void *arg)
{
  struct waiter *w = arg;

  w->ret = session_begin (w->session);
  atomic_store (&w->back, true);
  return NULL;
}

static void
start_begin (struct waiter *w, struct session *session)
{
  *w = (struct waiter){ .session = session };
  cr_assert_eq (pthread_create (&w->thread, NULL, begin_main, w), 0);
}

static void
expect_waits (struct waiter *w)
{
  for (unsigned i = 0; i < TURNS; i++)
    sched_yield ();
  cr_assert_not (atomic_load (&w->back), "it does not wait, and returns %d", w->ret);
}

static int
join (struct waiter *w)
{
  cr_assert_eq (pthread_join (w->thread, NULL), 0);
  return w->ret;
}

/* Until the bar for this session is there. */
static void
wait_barred (struct session *session)
{
  while (session_begin (session) == 0) {
    session_end (session);
    sched_yield ();
  }
}

/* The open waits for the last of the requests under way, and others of its epoch wait with it. */
Test (session, waits_for_requests)
{
  struct session *one = must_open ("a", 1), *also = must_open ("a", 1);
  struct waiter two, three;

  cr_assert_eq (session_begin (one), 0);
  cr_assert_eq (session_begin (one), 0);
  cr_assert_eq (session_begin (also), 0);
  start_open (&two, "a", 2);
  wait_barred (one);
  expect_waits (&two);
  session_end (one);
  session_end (also);
  start_open (&three, "a", 2);
  expect_waits (&three);
  expect_waits (&two);
  cr_assert_eq (session_begin (also), -ESTALE);
  session_close (also); /* one that has none under way may go meanwhile */
  written++;
  session_end (one);
  cr_assert_eq (join (&two), 0);
  cr_assert_eq (join (&three), 0);
  cr_assert_eq (two.saw, 1);
  cr_assert_eq (three.saw, 1);
  session_close (one);
  session_close (two.session);
  session_close (three.session);
}

/* Requests of others, and of its own epoch, are not waited for. */
Test (session, waits_for_nobody_else)
{
  struct session *held[] = { must_open ("", 0), must_open ("b", 1), must_open ("a", 2) };

  for (unsigned i = 0; i < 3; i++)
    cr_assert_eq (session_begin (held[i]), 0);
  session_close (must_open ("a", 2));
  session_close (must_open ("b", 1));
  session_close (must_open ("c", 1));
  session_close (must_open ("", 0));
  for (unsigned i = 0; i < 3; i++) {
    session_end (held[i]);
    session_close (held[i]);
  }
}

/* Who waits when a still higher epoch comes is barred itself. */
Test (session, overtaken_while_it_waits)
{
  struct session *one = must_open ("a", 1);
  struct waiter two, three;

  cr_assert_eq (session_begin (one), 0);
  start_open (&two, "a", 2);
  wait_barred (one);
  start_open (&three, "a", 3);
  cr_assert_eq (join (&two), -ESTALE); /* and does not wait any longer for that */
  expect_waits (&three);
  session_end (one);
  cr_assert_eq (join (&three), 0);
  session_close (one);
  session_close (three.session);
}

/* ---- what is remembered ---- */

static char *listed;

static void
list (void *opaque, const char *id, uint64_t epoch)
{
  (void) opaque;
  listed = str ("%s%s.%" PRIu64 " ", listed, id, epoch);
}

static const char *
clients (void)
{
  listed = str ("%s", "");
  sessions_clients (sessions, list, NULL);
  return listed;
}

Test (session, remembers)
{
  cr_assert_str_eq (clients (), "");
  cr_assert_eq (sessions_remember (sessions, "@a", 5), 0);
  cr_assert_eq (sessions_remember (sessions, "@b", UINT64_MAX), 0);
  cr_assert_eq (sessions_remember (sessions, "@a", 4), 0);
  cr_assert_eq (sessions_remember (sessions, "@c", 0), 0);
  cr_assert_str_eq (clients (), "@b.18446744073709551615 @a.5 @c.0 ");
  expect_refused ("a", 4, -ESTALE);
  session_close (must_open ("b", UINT64_MAX));
  session_close (must_open ("a", 5));
  session_close (must_open ("", 9));
  session_close (must_open ("c", 1));
  cr_assert_str_eq (clients (), "@b.18446744073709551615 @a.5 @c.1 ");
}

/* Those without a session are forgotten, the one opened longest ago first; those with one never. */
Test (session, forgets)
{
  static struct session *held[SESSION_CLIENTS_MAX];
  struct session *one = must_open ("one", 5);

  session_close (must_open ("two", 5));
  session_close (must_open ("three", 5));
  session_close (must_open ("two", 5));
  for (unsigned i = 3; i < SESSION_CLIENTS_MAX; i++)
    cr_assert_eq (sessions_remember (sessions, str ("@x%u", i), 7), 0);
  expect_refused ("three", 4, -ESTALE); /* but it is known, and now the last one */
  held[0] = must_open ("more", 1);
  expect_refused ("three", 4, -ESTALE);
  expect_refused ("one", 4, -ESTALE);
  held[1] = must_open ("two", 1);
  for (unsigned i = 2; i < SESSION_CLIENTS_MAX - 1; i++)
    held[i] = must_open (str ("y%u", i), 1);
  expect_refused ("z", 1, -EUSERS);
  cr_assert_eq (sessions_remember (sessions, "@z", 1), -EUSERS);
  session_close (must_open ("", 0));
  session_close (must_open ("one", 6));
  session_close (one);
  held[SESSION_CLIENTS_MAX - 1] = must_open ("z", 1);
  for (unsigned i = 0; i < SESSION_CLIENTS_MAX; i++)
    session_close (held[i]);
}

/* ---- what is noted ---- */

static atomic_int note_result;
static atomic_bool hold_note, in_note;
static unsigned nnoted;
static uint64_t noted;

static int
note (void *opaque, const char *id, uint64_t epoch)
{
  if (opaque != &note_result || strcmp (id, "@a") != 0)
    return -EINVAL;
  atomic_store (&in_note, true);
  while (atomic_load (&hold_note))
    sched_yield ();
  atomic_store (&in_note, false);
  nnoted++;
  noted = epoch;
  return atomic_load (&note_result);
}

static void
start_noting (void)
{
  sessions_destroy (sessions);
  cr_assert_eq (sessions_create (note, &note_result, &sessions), 0);
}

static void
expect_noted (unsigned n, uint64_t epoch)
{
  cr_assert_eq (nnoted, n);
  cr_assert_eq (noted, epoch);
}

/* Each epoch once, before its first session; what was remembered not at all. */
Test (session, notes)
{
  start_noting ();
  cr_assert_eq (sessions_remember (sessions, "@a", 3), 0);
  session_close (must_open ("a", 3));
  session_close (must_open ("", 7));
  expect_refused ("a", 2, -ESTALE);
  expect_noted (0, 0);
  session_close (must_open ("a", 4));
  expect_noted (1, 4);
  session_close (must_open ("a", 4));
  session_close (must_open ("a", 6));
  expect_noted (2, 6);
}

/* What can't be noted is no session, and is tried again; the epochs below it are barred all the same. */
Test (session, note_fails)
{
  struct session *one;

  start_noting ();
  one = must_open ("a", 1);
  atomic_store (&note_result, -ENOSPC);
  expect_refused ("a", 2, -ENOSPC);
  expect_refused ("a", 2, -ENOSPC);
  expect_noted (3, 2);
  atomic_store (&note_result, -ENOENT);
  expect_refused ("a", 2, -EIO); /* the export is there */
  cr_assert_eq (session_begin (one), -ESTALE);
  expect_refused ("a", 1, -ESTALE);
  atomic_store (&note_result, 0);
  session_close (must_open ("a", 2));
  expect_noted (5, 2);
  session_close (must_open ("a", 2));
  expect_noted (5, 2);
  session_close (one);
}

/* It may take its time: nobody else waits for that, and who looks at the clients sees the new epoch. */
Test (session, note_is_slow)
{
  struct session *one, *plain;
  struct waiter two, again, three;

  start_noting ();
  one = must_open ("a", 1);
  atomic_store (&hold_note, true);
  start_open (&two, "a", 2);
  while (!atomic_load (&in_note))
    sched_yield ();
  cr_assert_str_eq (clients (), "@a.2 ");
  cr_assert_eq (session_begin (one), -ESTALE);
  session_close (one);
  plain = must_open ("", 0);
  expect_runs (plain);
  session_close (plain);
  start_open (&again, "a", 2);
  expect_waits (&again);
  start_open (&three, "a", 3);
  while (strcmp (clients (), "@a.3 ") != 0)
    sched_yield ();
  cr_assert_eq (join (&again), -ESTALE);
  expect_waits (&three);
  atomic_store (&hold_note, false);
  cr_assert_eq (join (&two), -ESTALE);
  cr_assert_eq (join (&three), 0);
  expect_noted (3, 3);
  session_close (three.session);
}

/* ---- a server that halts ---- */

struct halter {
  pthread_t thread;
  unsigned timeout_ms;
  int ret;
  atomic_bool back;
};

static void *
halt_main (void *arg)
{
  struct halter *h = arg;

  do
    h->ret = sessions_halt (sessions, h->timeout_ms);
  while (h->ret == -EALREADY); /* the test looks whether it is there by the same */
  atomic_store (&h->back, true);
  return NULL;
}

static void
start_halt (struct halter *h, unsigned timeout_ms)
{
  *h = (struct halter){ .timeout_ms = timeout_ms };
  cr_assert_eq (pthread_create (&h->thread, NULL, halt_main, h), 0);
}

/* Who comes then waits, also with a higher epoch; and goes on when it is taken back. */
Test (session, halts)
{
  struct session *plain = must_open ("", 0), *one = must_open ("a", 1);
  struct waiter begin[2], open[2];

  cr_assert_eq (sessions_halt (sessions, 0), 0);
  cr_assert_eq (sessions_halt (sessions, 0), -EALREADY);
  start_begin (&begin[0], plain);
  start_begin (&begin[1], one);
  start_open (&open[0], "", 0);
  start_open (&open[1], "a", 2);
  for (unsigned i = 0; i < 2; i++) {
    expect_waits (&begin[i]);
    expect_waits (&open[i]);
  }
  cr_assert_str_eq (clients (), "@a.1 ", "a server that leaves makes no more promises");
  sessions_resume (sessions);
  cr_assert_eq (join (&open[0]), 0);
  cr_assert_eq (join (&begin[0]), 0);
  if (join (&begin[1]) == 0) /* before the open, or behind it */
    session_end (one);
  else
    cr_assert_eq (begin[1].ret, -ESTALE);
  cr_assert_eq (join (&open[1]), 0);
  session_end (plain);
  cr_assert_eq (sessions_halt (sessions, 0), 0);
  sessions_resume (sessions);
  session_close (plain);
  session_close (one);
  session_close (open[0].session);
  session_close (open[1].session);
}

/* What is under way is waited for, whose ever it is. */
Test (session, halt_waits_for_requests)
{
  struct session *plain = must_open ("", 0), *barred = must_open ("a", 1), *two;
  struct waiter open, begin;
  struct halter halter;

  cr_assert_eq (session_begin (plain), 0);
  cr_assert_eq (session_begin (barred), 0);
  start_open (&open, "a", 2);
  wait_barred (barred);
  start_halt (&halter, FOREVER_MS);
  while (sessions_halt (sessions, 0) == -ETIMEDOUT) /* until it is there */
    sched_yield ();
  start_begin (&begin, barred);
  session_end (barred);
  for (unsigned i = 0; i < TURNS; i++)
    sched_yield ();
  cr_assert_not (atomic_load (&halter.back));
  written++;
  session_end (plain);
  pthread_join (halter.thread, NULL);
  cr_assert_eq (halter.ret, 0);
  cr_assert_eq (written, 1);
  expect_waits (&open);
  expect_waits (&begin); /* that it is barred is not said to it any more */
  sessions_resume (sessions);
  cr_assert_eq (join (&open), 0);
  cr_assert_eq (join (&begin), -ESTALE);
  two = open.session;
  expect_runs (two);
  session_close (two);
  session_close (barred);
  session_close (plain);
}

/* If that takes too long all goes on as before. */
Test (session, halt_gives_up)
{
  struct session *plain = must_open ("", 0), *barred = must_open ("a", 1),
                 *two = must_open ("a", 2);
  struct waiter begin, open;
  struct halter halter;

  cr_assert_eq (session_begin (plain), 0);
  cr_assert_eq (sessions_halt (sessions, 0), -ETIMEDOUT);
  expect_runs (plain);
  start_halt (&halter, 50);
  start_begin (&begin, two);
  start_open (&open, "", 0);
  pthread_join (halter.thread, NULL);
  cr_assert_eq (halter.ret, -ETIMEDOUT);
  cr_assert_eq (join (&begin), 0);
  cr_assert_eq (join (&open), 0);
  cr_assert_eq (session_begin (barred), -ESTALE);
  expect_runs (open.session);
  session_end (two);
  session_end (plain);
  cr_assert_eq (sessions_halt (sessions, 0), 0);
  sessions_resume (sessions);
  session_close (open.session);
  session_close (two);
  session_close (barred);
  session_close (plain);
}

/* ---- a request that begins while its session is being barred ---- */

enum { ROUNDS = 30000, LOOKS = 100 };

static _Atomic uint64_t returned; /* the epoch whose open has */
static atomic_uint nlate;

/* Requests one after the other until it is barred. Each looks for a while whether it may still run. */
static void *
racing_main (void *arg)
{
  struct waiter *w = arg;

  while (session_begin (w->session) == 0) {
    for (unsigned i = 0; i < LOOKS; i++)
      if (atomic_load (&returned) > w->epoch)
        atomic_fetch_add (&nlate, 1);
    session_end (w->session);
  }
  return NULL;
}

Test (session, races_with_a_bar)
{
  struct waiter w = { .session = must_open ("a", 0) };

  for (uint64_t epoch = random_steps (ROUNDS); epoch > 0; epoch--) {
    struct session *next;

    cr_assert_eq (pthread_create (&w.thread, NULL, racing_main, &w), 0);
    next = must_open ("a", w.epoch + 1);
    atomic_store (&returned, w.epoch + 1);
    pthread_join (w.thread, NULL);
    session_close (w.session);
    w.session = next;
    w.epoch++;
  }
  session_close (w.session);
  cr_assert_eq (atomic_load (&nlate), 0, "%u looks", atomic_load (&nlate));
}

/* ---- at random: many threads, few IDs, and a server that halts now and then ---- */

enum { NTHREADS = 8, NIDS = 3, STEPS = 4000 };

static _Atomic uint64_t asked[NIDS],
  opened[NIDS]; /* the highest epoch that was; whose open has returned */
static atomic_uint nrunning, nwrong, nran, nstale, nopened, nbarred, nhalts, ngave_up;
static atomic_bool halted, done;
static char first_wrong[200];

static void
wrong (const char *what, uint64_t epoch, uint64_t other)
{
  if (atomic_fetch_add (&nwrong, 1) == 0)
    snprintf (first_wrong, sizeof first_wrong, "%s: epoch %" PRIu64 ", %" PRIu64, what, epoch,
              other);
}

static void
raise (_Atomic uint64_t *highest, uint64_t epoch)
{
  uint64_t seen = atomic_load (highest);

  while (seen < epoch && !atomic_compare_exchange_weak (highest, &seen, epoch))
    ;
}

/* While it runs no open of a higher epoch may have returned, and the server has not halted. */
static void
check_allowed (unsigned id, uint64_t epoch)
{
  uint64_t highest = id < NIDS ? atomic_load (&opened[id]) : 0;

  if (highest > epoch)
    wrong ("a request runs after a higher epoch has begun", epoch, highest);
  if (atomic_load (&halted))
    wrong ("a request runs while the server has halted", epoch, 0);
}

/* A session, and what is known of it. */
struct held {
  struct session *session;
  unsigned id; /* NIDS: not fenced */
  uint64_t epoch;
};

static void
request (struct rng *rng, const struct held *h)
{
  uint64_t before = h->id < NIDS ? atomic_load (&opened[h->id]) : 0;
  int ret = session_begin (h->session);

  if (ret < 0) {
    if (ret != -ESTALE || h->id == NIDS || atomic_load (&asked[h->id]) <= h->epoch)
      wrong ("a request is refused", h->epoch, (uint64_t) -ret);
    atomic_fetch_add (&nstale, 1);
    return;
  }
  if (before > h->epoch)
    wrong ("a barred request begins", h->epoch, before);
  atomic_fetch_add (&nrunning, 1);
  check_allowed (h->id, h->epoch);
  for (uint64_t i = rng_below (rng, 4); i > 0; i--)
    sched_yield ();
  check_allowed (h->id, h->epoch);
  atomic_fetch_sub (&nrunning, 1);
  atomic_fetch_add (&nran, 1);
  session_end (h->session);
}

static void
open_one (struct rng *rng, struct held *h)
{
  static const char *const ids[] = { "a", "b", "c", "" };
  int ret;

  h->id = (unsigned) rng_below (rng, NIDS + 1);
  h->epoch = 0;
  if (h->id < NIDS) {
    h->epoch = atomic_load (&asked[h->id]) + rng_below (rng, 16) / 15;
    h->epoch -= h->epoch > 0 && rng_below (rng, 8) == 0;
    raise (&asked[h->id], h->epoch);
  }
  ret = try_open (ids[h->id], h->epoch, &h->session);
  if (ret == 0 && h->id < NIDS)
    raise (&opened[h->id], h->epoch);
  if (ret < 0) {
    h->session = NULL;
    if (ret != -ESTALE || h->id == NIDS || atomic_load (&asked[h->id]) <= h->epoch)
      wrong ("an open is refused", h->epoch, (uint64_t) -ret);
  }
  atomic_fetch_add (ret == 0 ? &nopened : &nbarred, 1);
}

static void *
client_main (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);
  struct held held[3] = { { NULL, 0, 0 } };

  for (unsigned i = random_steps (STEPS); i > 0; i--) {
    struct held *h = &held[rng_below (&rng, 3)];

    if (!h->session)
      open_one (&rng, h);
    else if (rng_below (&rng, 20))
      request (&rng, h);
    else {
      session_close (h->session);
      h->session = NULL;
    }
  }
  for (unsigned i = 0; i < 3; i++)
    if (held[i].session)
      session_close (held[i].session);
  return NULL;
}

static void *
halting_main (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  while (!atomic_load (&done)) {
    if (sessions_halt (sessions, (unsigned) rng_below (&rng, 3)) == 0) {
      atomic_store (&halted, true);
      for (uint64_t i = rng_below (&rng, 10); i > 0; i--)
        sched_yield ();
      if (atomic_load (&nrunning))
        wrong ("requests run while the server has halted", atomic_load (&nrunning), 0);
      atomic_store (&halted, false);
      sessions_resume (sessions);
      atomic_fetch_add (&nhalts, 1);
    } else
      atomic_fetch_add (&ngave_up, 1);
    for (uint64_t i = rng_below (&rng, 100); i > 0; i--)
      sched_yield ();
  }
  return NULL;
}

static int
note_at_random (void *opaque, const char *id, uint64_t epoch)
{
  (void) opaque, (void) id;
  for (uint64_t i = epoch % 4; i > 0; i--)
    sched_yield ();
  return 0;
}

Test (session, model)
{
  pthread_t thread[NTHREADS], halting;

  sessions_destroy (sessions);
  cr_assert_eq (sessions_create (note_at_random, NULL, &sessions), 0);
  cr_assert_eq (pthread_create (&halting, NULL, halting_main, (void *) 100), 0);
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, client_main, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  atomic_store (&done, true);
  pthread_join (halting, NULL);
  cr_log_info ("session: %u opened, %u barred; %u requests, %u stale; %u halts, %u gave up",
               atomic_load (&nopened), atomic_load (&nbarred), atomic_load (&nran),
               atomic_load (&nstale), atomic_load (&nhalts), atomic_load (&ngave_up));
  cr_assert_eq (atomic_load (&nwrong), 0, "%u times wrong; first %s (DRUM_TEST_SEED=%" PRIu64 ")",
                atomic_load (&nwrong), first_wrong, random_seed ());
}
