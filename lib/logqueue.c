/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "logqueue.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "log.h"
#include "stats.h"
#include "thread.h"

/* Before each line in the ring; the line has no 0 there. */
struct head {
  uint16_t level;
  uint16_t length;
};

static char ring[LOGQUEUE_BYTES];
static size_t first, used; /* bytes */
static uint64_t nlost;     /* since the ring was full */
static bool stopping, stopped;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all of these */
static pthread_cond_t more = PTHREAD_COND_INITIALIZER, over;
static pthread_t thread;
static log_sink *next; /* NULL: not started */

static void
put (const void *data, size_t n)
{
  size_t at = (first + used) % sizeof ring, part = sizeof ring - at < n ? sizeof ring - at : n;

  memcpy (ring + at, data, part);
  memcpy (ring, (const char *) data + part, n - part);
  used += n;
}

static void
take (void *data, size_t n)
{
  size_t part = sizeof ring - first < n ? sizeof ring - first : n;

  memcpy (data, ring + first, part);
  memcpy ((char *) data + part, ring, n - part);
  first = (first + n) % sizeof ring;
  used -= n;
}

static void
enqueue (enum log_level level, const char *fmt, va_list args)
{
  struct head head = { .level = (uint16_t) level };
  char line[LOGQUEUE_LINE_BYTES];

  vsnprintf (line, sizeof line, fmt, args);
  head.length = (uint16_t) strlen (line);
  pthread_mutex_lock (&mutex);
  if (nlost > 0 || sizeof head + head.length > sizeof ring - used)
    nlost++;
  else {
    put (&head, sizeof head);
    put (line, head.length);
  }
  pthread_cond_signal (&more);
  pthread_mutex_unlock (&mutex);
}

/* Wait for the next line; false if there will be none. */
static bool
dequeue (enum log_level *level, char line[LOGQUEUE_LINE_BYTES])
{
  struct head head = { .level = LEVEL_WARNING };
  bool found;

  pthread_mutex_lock (&mutex);
  while (used == 0 && nlost == 0 && !stopping)
    pthread_cond_wait (&more, &mutex);
  found = used > 0 || nlost > 0;
  if (used > 0) {
    take (&head, sizeof head);
    take (line, head.length);
    line[head.length] = 0;
  } else if (nlost > 0) {
    snprintf (line, LOGQUEUE_LINE_BYTES, "%" PRIu64 " lines of the log are lost: it was not read",
              nlost);
    nlost = 0;
  }
  pthread_mutex_unlock (&mutex);
  *level = head.level;
  return found;
}

static void __attribute__ ((format (printf, 2, 3))) say (enum log_level level, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  next (level, fmt, args);
  va_end (args);
}

static void *
thread_main (void *arg)
{
  char line[LOGQUEUE_LINE_BYTES];
  enum log_level level;

  (void) arg;
  while (dequeue (&level, line))
    say (level, "%s", line);
  pthread_mutex_lock (&mutex);
  stopped = true;
  pthread_cond_signal (&over);
  pthread_mutex_unlock (&mutex);
  return NULL;
}

int
logqueue_start (void)
{
  pthread_condattr_t attr;
  int ret;

  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&over, &attr);
  pthread_condattr_destroy (&attr);
  used = 0;
  nlost = 0;
  stopping = stopped = false;
  next = log_set_sink (enqueue);
  ret = thread_start (&thread, "drum-log", thread_main, NULL);
  if (ret < 0) {
    log_set_sink (next);
    next = NULL;
  }
  return ret;
}

void
logqueue_stop (void)
{
  uint64_t until_ns = now_ns () + LOGQUEUE_PATIENCE_MS * UINT64_C (1000000);
  struct timespec until = { .tv_sec = (time_t) (until_ns / 1000000000),
                            .tv_nsec = (long) (until_ns % 1000000000) };
  int err = 0;

  if (!next || stopping)
    return;
  pthread_mutex_lock (&mutex);
  stopping = true;
  pthread_cond_signal (&more);
  while (!stopped && err != ETIMEDOUT)
    err = pthread_cond_timedwait (&over, &mutex, &until);
  err = stopped ? 0 : ETIMEDOUT;
  pthread_mutex_unlock (&mutex);
  log_set_sink (next);
  if (err) {
    pthread_detach (thread); /* it ends with the program */
    return;
  }
  pthread_join (thread, NULL);
  pthread_cond_destroy (&over);
  next = NULL;
}
