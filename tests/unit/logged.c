/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "logged.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { MAX_MESSAGES = 1024, MESSAGE_BYTES = 512 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static char message[MAX_MESSAGES][MESSAGE_BYTES]; /* those beyond the last replace it */
static enum log_level last_level;
static unsigned nmessages;

static void
sink (enum log_level level, const char *fmt, va_list args)
{
  pthread_mutex_lock (&mutex);
  if (nmessages < MAX_MESSAGES)
    nmessages++;
  vsnprintf (message[nmessages - 1], MESSAGE_BYTES, fmt, args);
  last_level = level;
  pthread_mutex_unlock (&mutex);
}

void
logged_start (void)
{
  pthread_mutex_lock (&mutex);
  nmessages = 0;
  pthread_mutex_unlock (&mutex);
  log_set_sink (sink);
}

unsigned
logged_count (const char *text)
{
  unsigned n = 0;

  pthread_mutex_lock (&mutex);
  for (unsigned i = 0; i < nmessages; i++)
    n += strstr (message[i], text) != NULL;
  pthread_mutex_unlock (&mutex);
  return n;
}

const char *
logged_last (void)
{
  return nmessages ? message[nmessages - 1] : "";
}

enum log_level
logged_last_level (void)
{
  return last_level;
}
