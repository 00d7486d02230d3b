/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bounce.c - tests of lib/bounce.c.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

#include "lib/bounce.h"
#include "lib/devio.h"
#include "lib/units.h"
#include "tests/random.h"

static struct bounce *pool;

static void
setup (void)
{
  cr_assert_eq (bounce_create (&pool), 0);
}

static void
teardown (void)
{
  bounce_destroy (pool);
}

TestSuite (bounce, .init = setup, .fini = teardown, .timeout = 60);

/* All buffers are aligned, and each is one's own to its last byte. */
Test (bounce, buffers)
{
  unsigned char *buffer[BOUNCE_BUFFERS];

  for (unsigned i = 0; i < BOUNCE_BUFFERS; i++) {
    buffer[i] = bounce_get (pool);
    cr_assert_eq ((uintptr_t) buffer[i] % PAGE_BYTES, 0);
    memset (buffer[i], (int) i, DEVIO_BUFFER_BYTES);
  }
  for (unsigned i = 0; i < BOUNCE_BUFFERS; i++) {
    cr_assert_eq (buffer[i][0], i);
    cr_assert_eq (buffer[i][DEVIO_BUFFER_BYTES - 1], i);
    bounce_put (pool, buffer[i]);
  }
}

static void *
get_one (void *arg)
{
  *(void *_Atomic *) arg = bounce_get (pool);
  return NULL;
}

/* Who comes when all are taken gets the one that comes back. */
Test (bounce, waits_for_one)
{
  void *buffer[BOUNCE_BUFFERS];
  void *_Atomic got = NULL;
  pthread_t thread;

  for (unsigned i = 0; i < BOUNCE_BUFFERS; i++)
    buffer[i] = bounce_get (pool);
  cr_assert_eq (pthread_create (&thread, NULL, get_one, &got), 0);
  for (unsigned i = 0; i < 1000; i++)
    sched_yield (); /* so that it would have one, if it could */
  cr_assert_null (got);
  bounce_put (pool, buffer[7]);
  pthread_join (thread, NULL);
  cr_assert_eq (got, buffer[7]);
}

enum { NTHREADS = 2 * BOUNCE_BUFFERS };

static atomic_uint shared; /* buffers that two had at once */

static void *
use_some (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  for (unsigned i = 0; i < random_steps (500); i++) {
    volatile uintptr_t *mine = bounce_get (pool);

    *mine = (uintptr_t) arg;
    if (rng_below (&rng, 2))
      sched_yield ();
    if (*mine != (uintptr_t) arg)
      atomic_fetch_add (&shared, 1);
    bounce_put (pool, (void *) mine);
  }
  return NULL;
}

/* With twice as many threads as buffers, each has what it got for itself, and gets it. */
Test (bounce, many_threads)
{
  pthread_t thread[NTHREADS];

  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, use_some, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (shared, 0);
}
