/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "text.h"

#include <langinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "lib/utf8.h"

#include "drumctl.h"

void *
need (void *mem)
{
  if (!mem) {
    log_error ("out of memory");
    exit (STATUS_FAILED);
  }
  return mem;
}

char *
text_format (const char *fmt, ...)
{
  va_list args;
  char *text;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) == -1)
    text = NULL;
  va_end (args);
  return need (text);
}

bool
text_is_utf8 (void)
{
  return strcmp (nl_langinfo (CODESET), "UTF-8") == 0;
}

/* The bytes of the character at text, which has one, and its columns; 0 if it is none that may be printed. */
static size_t
next_char (const char *text, unsigned *columns)
{
  mbstate_t state = { 0 };
  wchar_t wc;
  size_t n = mbrtowc (&wc, text, strlen (text), &state);
  int width;

  if (n == 0 || n > strlen (text) || (width = wcwidth (wc)) < 0)
    return 0;
  *columns = (unsigned) width;
  return n;
}

char *
text_printable (const char *text)
{
  char *copy = need (malloc (4 * strlen (text) + 1)), *to = copy;
  unsigned columns;

  while (*text) {
    size_t n = next_char (text, &columns);

    if (n) {
      memcpy (to, text, n);
      to += n;
      text += n;
    } else
      to += sprintf (to, "\\x%02x", (unsigned char) *text++);
  }
  *to = '\0';
  return copy;
}

char *
text_to_utf8 (const char *text)
{
  char *copy = need (malloc (3 * strlen (text) + 1)), *to = copy;

  while (*text) {
    unsigned n = utf8_char (text);

    memcpy (to, n ? text : "\xef\xbf\xbd", n ? n : 3);
    to += n ? n : 3;
    text += n ? n : 1;
  }
  *to = '\0';
  return copy;
}

size_t
text_clip (const char *text, unsigned width)
{
  size_t bytes = 0;

  while (text[bytes]) {
    unsigned columns = 1;
    size_t n = next_char (text + bytes, &columns);

    if (columns > width)
      break;
    width -= columns;
    bytes += n ? n : 1;
  }
  return bytes;
}

unsigned
text_width (const char *text)
{
  unsigned width = 0;

  while (*text) {
    unsigned columns = 1;
    size_t n = next_char (text, &columns);

    width += columns;
    text += n ? n : 1;
  }
  return width;
}

void
text_each_line (const char *text, void (*log) (const char *fmt, ...))
{
  char *copy = need (strdup (text ? text : "")), *rest = copy;

  while (text && rest) {
    char *line = text_printable (strsep (&rest, "\n"));

    log ("%s", line);
    free (line);
  }
  free (copy);
}

const char *
text_export (const char *name)
{
  return *name ? name : "(default)";
}

unsigned
text_percent (uint64_t part, uint64_t whole)
{
  return whole ? (unsigned) ((double) part * 100 / (double) whole + 0.5) : 0;
}

const char *
text_rate (double bytes_a_second, char buf[TEXT_NUMBER])
{
  char bytes[16];

  snprintf (buf, TEXT_NUMBER, "%s/s",
            format_bytes (bytes_a_second < 1e18 ? (uint64_t) bytes_a_second : 0, bytes));
  return buf;
}

const char *
text_decimal (double number, char buf[TEXT_NUMBER])
{
  if (number == 0)
    strcpy (buf, "0");
  else if (number < 9.95)
    snprintf (buf, TEXT_NUMBER, "%.1f", number);
  else if (number < 9999.5)
    snprintf (buf, TEXT_NUMBER, "%.0f", number);
  else if (number < 9999.5e3)
    snprintf (buf, TEXT_NUMBER, "%.0fk", number / 1e3);
  else
    snprintf (buf, TEXT_NUMBER, "%.0fM", number / 1e6);
  return buf;
}

const char *
text_latency (double seconds, char buf[TEXT_NUMBER])
{
  static const char *const unit[] = { "us", "ms", "s" };
  double value = seconds * 1e6;
  unsigned u = 0;

  for (; u < 2 && value >= 999.5; u++)
    value /= 1000;
  snprintf (buf, TEXT_NUMBER, "%.*f%s", u && value < 9.95 ? 1 : 0, value, unit[u]);
  return buf;
}

const char *
text_duration (double seconds, char buf[TEXT_NUMBER])
{
  unsigned long s = seconds > 0 && seconds < 1e12 ? (unsigned long) (seconds + 0.5) : 0;

  if (s < 3600)
    snprintf (buf, TEXT_NUMBER, "%lu:%02lu", s / 60, s % 60);
  else if (s < 86400)
    snprintf (buf, TEXT_NUMBER, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
  else
    snprintf (buf, TEXT_NUMBER, "%lud %lu:%02lu", s / 86400, s / 3600 % 24, s / 60 % 60);
  return buf;
}

const char *
text_ago (double seconds, char buf[TEXT_NUMBER])
{
  unsigned long s = seconds > 0 && seconds < 1e12 ? (unsigned long) seconds : 0;

  if (s < 60)
    snprintf (buf, TEXT_NUMBER, "%lus", s);
  else if (s < 3600)
    snprintf (buf, TEXT_NUMBER, "%lumin", s / 60);
  else if (s < 86400)
    snprintf (buf, TEXT_NUMBER, "%luh", s / 3600);
  else
    snprintf (buf, TEXT_NUMBER, "%lud", s / 86400);
  return buf;
}
