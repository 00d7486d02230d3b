/* SPDX-License-Identifier: BSD-3-Clause
 *
 * logqueue.c - tests of lib/logqueue.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/logqueue.h"
#include "tests/random.h"

enum { MANY = 10000, NTHREADS = 4, EACH = 300 };

static int pthread_create_error;

int __real_pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *),
                           void *arg);
int __wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *),
                           void *arg);

int
__wrap_pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *),
                       void *arg)
{
  return pthread_create_error ? pthread_create_error
                              : __real_pthread_create (thread, attr, main, arg);
}

/* What was said: by the queue's thread, and looked at once that has ended. */
static struct {
  enum log_level level;
  char line[LOGQUEUE_LINE_BYTES];
} said[MANY];
static unsigned nsaid;
static sem_t may_say, is_saying;
static atomic_bool holding;

static void
keep (enum log_level level, const char *fmt, va_list args)
{
  if (atomic_load (&holding)) {
    sem_post (&is_saying);
    sem_wait (&may_say);
  }
  said[nsaid].level = level;
  vsnprintf (said[nsaid++].line, sizeof said[0].line, fmt, args);
}

static void
setup (void)
{
  sem_init (&may_say, 0, 0);
  sem_init (&is_saying, 0, 0);
  log_set_sink (keep);
}

TestSuite (logqueue, .init = setup, .timeout = 60);

static void
start (void)
{
  cr_assert_eq (logqueue_start (), 0);
}

/* Have the sink take one line and not come back from it; others stay in the queue. */
static void
hold (void)
{
  atomic_store (&holding, true);
  log_notice ("held");
  sem_wait (&is_saying);
}

static void
let_go (void)
{
  atomic_store (&holding, false);
  sem_post (&may_say);
}

/* Lines of all levels and lengths, over the end of the ring many times, come out as they went in. */
Test (logqueue, lines_stay_as_they_are)
{
  static char text[2 * LOGQUEUE_LINE_BYTES];
  struct rng rng = rng_for (1);
  unsigned n = random_steps (500);
  size_t waiting = 0, len[500];

  cr_assert_leq (n, 500);
  memset (text, 'x', sizeof text);
  start ();
  hold ();
  for (unsigned i = 0; i < n; i++) {
    len[i] = rng_below (&rng, i % 50 ? 300 : sizeof text);
    if ((waiting += len[i] + 20) > LOGQUEUE_BYTES - LOGQUEUE_LINE_BYTES) {
      let_go ();
      logqueue_stop ();
      start ();
      hold ();
      waiting = len[i];
    }
    (i % 2 ? log_error : log_warning) ("%u %.*s", i, (int) len[i], text);
  }
  let_go ();
  logqueue_stop ();
  for (unsigned i = 0, at = 0; i < n; i++, at++) {
    char expected[LOGQUEUE_LINE_BYTES];

    while (strcmp (said[at].line, "held") == 0)
      at++;
    snprintf (expected, sizeof expected, "%u %.*s", i, (int) len[i], text);
    cr_assert_str_eq (said[at].line, expected);
    cr_assert_eq (said[at].level, i % 2 ? LEVEL_ERROR : LEVEL_WARNING);
  }
}

/* Who logs does not wait for the sink. What there is no room for is counted, in its place; lines after that are said again. */
Test (logqueue, nobody_waits)
{
  unsigned nlost = 0, n;

  start ();
  hold ();
  for (unsigned i = 0; i < MANY; i++)
    log_error ("line %05u", i);
  let_go ();
  logqueue_stop ();
  n = nsaid - 2;
  cr_assert (n > 1000 && n < MANY, "%u", n);
  for (unsigned i = 0; i < n; i++) {
    char expected[32];

    snprintf (expected, sizeof expected, "line %05u", i);
    cr_assert_str_eq (said[i + 1].line, expected);
  }
  cr_assert_eq (sscanf (said[nsaid - 1].line, "%u lines of the log are lost", &nlost), 1, "%s",
                said[nsaid - 1].line);
  cr_assert_eq (said[nsaid - 1].level, LEVEL_WARNING);
  cr_assert_eq (n + nlost, MANY);

  start ();
  log_notice ("again");
  logqueue_stop ();
  cr_assert_str_eq (said[nsaid - 1].line, "again");
}

/* A line that came after some were lost is not said before that is. */
Test (logqueue, losses_have_their_place)
{
  unsigned nlost = 0;
  char expected[32];

  start ();
  hold ();
  for (unsigned i = 0; i < MANY; i++)
    log_error ("line %05u", i);
  sem_post (&may_say); /* the next is held: there is room for more than one line */
  sem_wait (&is_saying);
  log_error ("line %05u", MANY);
  let_go ();
  logqueue_stop ();
  cr_assert_eq (sscanf (said[nsaid - 1].line, "%u lines of the log are lost", &nlost), 1, "%s",
                said[nsaid - 1].line);
  cr_assert_eq (nsaid - 2 + nlost, MANY + 1);
  snprintf (expected, sizeof expected, "line %05u", nsaid - 3);
  cr_assert_str_eq (said[nsaid - 2].line, expected);
}

static void *
say_some (void *arg)
{
  for (unsigned i = 0; i < EACH; i++)
    log_error ("%u %u", (unsigned) (uintptr_t) arg, i);
  return NULL;
}

/* From many threads: all of them, each thread's in its order. */
Test (logqueue, threads)
{
  unsigned next_of[NTHREADS] = { 0 };
  pthread_t thread[NTHREADS];

  start ();
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, say_some, (void *) i), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  logqueue_stop ();
  cr_assert_eq (nsaid, NTHREADS * EACH);
  for (unsigned i = 0; i < nsaid; i++) {
    unsigned who, nth;

    cr_assert_eq (sscanf (said[i].line, "%u %u", &who, &nth), 2);
    cr_assert_eq (nth, next_of[who]++);
  }
}

/* What a thread says is kept for who asked for its work as before. */
Test (logqueue, capture)
{
  struct log_capture capture;

  start ();
  log_capture_begin (&capture, false);
  log_error ("one");
  log_error ("two");
  log_capture_end ();
  cr_assert_str_eq (capture.errors, "one\ntwo");
  log_capture_free (&capture);
  logqueue_stop ();
  cr_assert_eq (nsaid, 2);
}

static void
never_ends (enum log_level level, const char *fmt, va_list args)
{
  int fds[2];
  char c;

  (void) level, (void) fmt, (void) args;
  sem_post (&is_saying);
  cr_assert_eq (pipe (fds), 0);
  read (fds[0], &c, 1);
}

/* A sink that does not come back does not keep the program from ending. */
Test (logqueue, stops_though_the_sink_hangs)
{
  log_set_sink (never_ends);
  start ();
  log_error ("one");
  sem_wait (&is_saying);
  log_error ("two");
  logqueue_stop ();
  cr_assert_eq (log_set_sink (keep), never_ends);
  logqueue_stop ();
}

/* No thread: lines go where they went before. */
Test (logqueue, no_thread)
{
  pthread_create_error = EAGAIN;
  cr_assert_eq (logqueue_start (), -EAGAIN);
  log_error ("one");
  cr_assert_eq (nsaid, 1);
  logqueue_stop ();
}
