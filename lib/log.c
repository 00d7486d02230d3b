/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CAPTURE_BYTES = 16 << 10 };

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

static log_sink *sink = to_stderr;

log_sink *
log_set_sink (log_sink *new_sink)
{
  log_sink *old = sink;

  sink = new_sink ? new_sink : to_stderr;
  return old;
}

/* Of the plugin's own TLS, not of what glibc allocates at a thread's first look: I/O threads log, too. */
static _Thread_local struct log_capture *captured __attribute__ ((tls_model ("initial-exec")));

void
log_capture_begin (struct log_capture *capture, bool quiet)
{
  *capture = (struct log_capture){ .quiet = quiet };
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

/* One more line for *lines, if there is memory for it, and it is not long already. */
static void
append_line (char **lines, const char *fmt, va_list args)
{
  char *line, *all;

  if ((*lines && strlen (*lines) > CAPTURE_BYTES) || vasprintf (&line, fmt, args) == -1)
    return;
  if (*lines) {
    int ret = asprintf (&all, "%s\n%s", *lines, line);

    free (line);
    if (ret == -1)
      return;
    free (*lines);
    line = all;
  }
  *lines = line;
}

static void
capture (enum log_level level, const char *fmt, va_list args)
{
  if (captured && level != LEVEL_NOTICE)
    append_line (level == LEVEL_ERROR ? &captured->errors : &captured->warnings, fmt, args);
}

static bool
is_quiet (enum log_level level)
{
  return level == LEVEL_ERROR && captured && captured->quiet;
}

#define LOG_TO(level)             \
  do {                            \
    va_list args;                 \
    va_start (args, fmt);         \
    capture ((level), fmt, args); \
    va_end (args);                \
    va_start (args, fmt);         \
    if (!is_quiet (level))        \
      sink ((level), fmt, args);  \
    va_end (args);                \
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
