/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "behind.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static enum { RUNS, WAITS, ENDED } state;
static void (*request) (void);
static pthread_t thread;
static __thread bool is_behind;

static void
become (int now)
{
  pthread_mutex_lock (&mutex);
  state = now;
  pthread_cond_signal (&changed);
  pthread_mutex_unlock (&mutex);
}

int __real_sem_wait (sem_t *sem);
int __wrap_sem_wait (sem_t *sem);

int
__wrap_sem_wait (sem_t *sem)
{
  if (is_behind)
    become (WAITS);
  return __real_sem_wait (sem);
}

static void *
run (void *arg)
{
  (void) arg;
  is_behind = true;
  request ();
  become (ENDED);
  return NULL;
}

bool
behind_begin (void (*asked) (void))
{
  bool waits;

  request = asked;
  state = RUNS;
  if (pthread_create (&thread, NULL, run, NULL) != 0)
    abort ();
  pthread_mutex_lock (&mutex);
  while (state == RUNS)
    pthread_cond_wait (&changed, &mutex);
  waits = state == WAITS;
  pthread_mutex_unlock (&mutex);
  return waits;
}

void
behind_end (void)
{
  pthread_join (thread, NULL);
}
