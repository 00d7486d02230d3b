/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "watchdog.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "stats.h"
#include "thread.h"

struct watchdog {
  uint64_t interval_ns;
  void (*scan) (void *opaque, uint64_t now_ns);
  void *opaque;
  pthread_t thread;
  pthread_mutex_t mutex; /* for stopping */
  pthread_cond_t stopped;
  bool stopping;
};

/* Sleep until then; false if it was stopped. */
static bool
sleep_until (struct watchdog *w, uint64_t ns)
{
  struct timespec until = { .tv_sec = (time_t) (ns / 1000000000),
                            .tv_nsec = (long) (ns % 1000000000) };
  int err = 0;
  bool stopping;

  pthread_mutex_lock (&w->mutex);
  while (!w->stopping && err != ETIMEDOUT)
    err = pthread_cond_timedwait (&w->stopped, &w->mutex, &until);
  stopping = w->stopping;
  pthread_mutex_unlock (&w->mutex);
  return !stopping;
}

static void *
watchdog_main (void *arg)
{
  struct watchdog *w = arg;
  uint64_t next_ns = now_ns () + w->interval_ns;

  while (sleep_until (w, next_ns)) {
    uint64_t now = now_ns ();

    w->scan (w->opaque, now);
    /* Those that were missed, in a scan or by a machine that was suspended, are not made up for. */
    next_ns += w->interval_ns;
    if (next_ns < now)
      next_ns = now + w->interval_ns;
  }
  return NULL;
}

static void
destroy (struct watchdog *w)
{
  pthread_cond_destroy (&w->stopped);
  pthread_mutex_destroy (&w->mutex);
  free (w);
}

int
watchdog_start (unsigned interval_ms, void (*scan) (void *opaque, uint64_t now_ns), void *opaque,
                struct watchdog **wp)
{
  struct watchdog *w = malloc (sizeof *w);
  pthread_condattr_t attr;
  int ret;

  if (!w)
    return -ENOMEM;
  *w = (struct watchdog){ .interval_ns = interval_ms * UINT64_C (1000000),
                          .scan = scan,
                          .opaque = opaque };
  pthread_mutex_init (&w->mutex, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&w->stopped, &attr);
  pthread_condattr_destroy (&attr);
  ret = thread_start (&w->thread, "drum-watchdog", watchdog_main, w);
  if (ret < 0) {
    destroy (w);
    return ret;
  }
  *wp = w;
  return 0;
}

void
watchdog_stop (struct watchdog *w)
{
  pthread_mutex_lock (&w->mutex);
  w->stopping = true;
  pthread_cond_signal (&w->stopped);
  pthread_mutex_unlock (&w->mutex);
  pthread_join (w->thread, NULL);
  destroy (w);
}
