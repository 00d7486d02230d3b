/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "log.h"

#include <stdio.h>

static void
to_stderr (enum log_level level, const char *fmt, va_list args)
{
  static const char *const prefix[] = { "drum: error: ", "drum: warning: ", "drum: " };

  flockfile (stderr);
  fputs (prefix[level], stderr);
  vfprintf (stderr, fmt, args);
  putc ('\n', stderr);
  funlockfile (stderr);
}

static void (*log_sink) (enum log_level, const char *, va_list) = to_stderr;

void
log_set_sink (void (*sink) (enum log_level level, const char *fmt, va_list args))
{
  log_sink = sink;
}

#define LOG_TO(level)              \
  do {                             \
    va_list args;                  \
    va_start (args, fmt);          \
    log_sink ((level), fmt, args); \
    va_end (args);                 \
  } while (0)

void
log_error (const char *fmt, ...)
{
  LOG_TO (LEVEL_ERROR);
}

void
log_warning (const char *fmt, ...)
{
  LOG_TO (LEVEL_WARNING);
}

void
log_notice (const char *fmt, ...)
{
  LOG_TO (LEVEL_NOTICE);
}

const char *
format_bytes (uint64_t bytes, char buf[16])
{
  static const char unit[] = "BKMGTPE";
  unsigned u = 0, whole, tenths;

  while (u < 6 && bytes >> (10 * (u + 1)))
    u++;
  whole = (unsigned) (bytes >> (10 * u)) & 1023;
  tenths = u ? (unsigned) (bytes >> (10 * (u - 1)) & 1023) * 10 / 1024 % 10 : 0;
  if (tenths)
    snprintf (buf, 16, "%u.%u%c", whole, tenths, unit[u]);
  else
    snprintf (buf, 16, "%u%c", whole, unit[u]);
  return buf;
}
