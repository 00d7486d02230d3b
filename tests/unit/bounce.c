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

/* A request has the smallest that is large enough. */
Test (bounce, kinds)
{
  for (size_t npages = 1; npages <= 2 * DEVIO_BUFFER_BYTES / PAGE_BYTES; npages++) {
    enum bounce_kind kind = bounce_kind (npages * PAGE_BYTES);

    cr_assert_lt (kind, BOUNCE_KINDS);
    cr_assert (kind == BOUNCE_KINDS - 1 || bounce_shape[kind].bytes >= npages * PAGE_BYTES);
    cr_assert (kind == 0 || bounce_shape[kind - 1].bytes < npages * PAGE_BYTES);
  }
  cr_assert_eq (bounce_shape[BOUNCE_KINDS - 1].bytes, DEVIO_BUFFER_BYTES);
}

enum { MANY = 1000 }; /* more than there are */

/* All that there are. */
static unsigned
get_all (enum bounce_kind kind, unsigned char **buffer)
{
  unsigned n = 0;

  while ((buffer[n] = bounce_try_get (pool, kind)))
    cr_assert_lt (++n, MANY);
  cr_assert_eq (n, bounce_shape[kind].n);
  return n;
}

/* All buffers are aligned, and each is one's own to its last byte. */
Test (bounce, buffers)
{
  unsigned char *buffer[BOUNCE_KINDS][MANY];

  for (enum bounce_kind k = 0; k < BOUNCE_KINDS; k++)
    for (unsigned n = get_all (k, buffer[k]), i = 0; i < n; i++) {
      cr_assert_eq ((uintptr_t) buffer[k][i] % PAGE_BYTES, 0);
      memset (buffer[k][i], (int) (i + k), bounce_shape[k].bytes);
    }
  for (enum bounce_kind k = 0; k < BOUNCE_KINDS; k++)
    for (unsigned i = 0; i < bounce_shape[k].n; i++) {
      cr_assert_eq (buffer[k][i][0], (unsigned char) (i + k));
      cr_assert_eq (buffer[k][i][bounce_shape[k].bytes - 1], (unsigned char) (i + k));
      bounce_put (pool, k, buffer[k][i]);
    }
}

struct getter {
  enum bounce_kind kind;
  void *_Atomic got;
};

static void *
get_one (void *arg)
{
  struct getter *getter = arg;

  getter->got = bounce_get (pool, getter->kind);
  return NULL;
}

/* Who comes when all are taken gets the one that comes back. */
Test (bounce, waits_for_one)
{
  for (enum bounce_kind k = 0; k < BOUNCE_KINDS; k++) {
    unsigned char *buffer[MANY];
    struct getter getter = { .kind = k };
    pthread_t thread;

    get_all (k, buffer);
    cr_assert_eq (pthread_create (&thread, NULL, get_one, &getter), 0);
    for (unsigned i = 0; i < 1000; i++)
      sched_yield (); /* so that it would have one, if it could */
    cr_assert_null (getter.got);
    bounce_put (pool, k, buffer[7]);
    pthread_join (thread, NULL);
    cr_assert_eq (getter.got, buffer[7]);
  }
}

enum { NTHREADS = 32 };

static atomic_uint shared; /* buffers that two had at once */

static void *
use_some (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);

  for (unsigned i = 0; i < random_steps (500); i++) {
    enum bounce_kind kind = rng_below (&rng, BOUNCE_KINDS);
    volatile uintptr_t *mine = bounce_get (pool, kind);

    *mine = (uintptr_t) arg;
    if (rng_below (&rng, 2))
      sched_yield ();
    if (*mine != (uintptr_t) arg)
      atomic_fetch_add (&shared, 1);
    bounce_put (pool, kind, (void *) mine);
  }
  return NULL;
}

/* With many threads each has what it got for itself, and gets it. */
Test (bounce, many_threads)
{
  pthread_t thread[NTHREADS];

  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, use_some, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert_eq (shared, 0);
}
