/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "log.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

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

static _Thread_local struct log_capture *captured;

void
log_capture_begin (struct log_capture *capture)
{
  *capture = (struct log_capture){ .errors = NULL };
  captured = capture;
}

void
log_capture_end (void)
{
  captured = NULL;
}

void
log_capture_free (struct log_capture *capture)
{
  free (capture->errors);
  free (capture->warnings);
  *capture = (struct log_capture){ .errors = NULL };
}

/* One more line for *lines. False if there is no memory for it. */
static bool
append_line (char **lines, const char *fmt, va_list args)
{
  char *line, *all;

  if (vasprintf (&line, fmt, args) == -1)
    return false;
  if (*lines) {
    int ret = asprintf (&all, "%s\n%s", *lines, line);

    free (line);
    if (ret == -1)
      return false;
    free (*lines);
    line = all;
  }
  *lines = line;
  return true;
}

/* True if the line has found its reader. */
static bool
capture (enum log_level level, const char *fmt, va_list args)
{
  if (!captured || level == LEVEL_NOTICE)
    return false;
  if (level == LEVEL_ERROR)
    return append_line (&captured->errors, fmt, args);
  append_line (&captured->warnings, fmt, args);
  return false;
}

#define LOG_TO(level)                   \
  do {                                  \
    va_list args, again;                \
    va_start (args, fmt);               \
    va_copy (again, args);              \
    if (!capture ((level), fmt, again)) \
      log_sink ((level), fmt, args);    \
    va_end (again);                     \
    va_end (args);                      \
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
