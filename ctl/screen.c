/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "screen.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "terminal.h"
#include "text.h"

/* Another screen than the one with the shell's history, without a cursor, without wrapping; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"

static bool entered, has_keys;
static struct termios before;

void
screen_enter (void)
{
  static bool at_exit;
  struct termios raw;

  if (entered)
    return;
  if (!at_exit)
    at_exit = atexit (screen_leave) == 0;
  has_keys = tcgetattr (STDIN_FILENO, &before) == 0;
  if (has_keys) {
    raw = before;
    raw.c_lflag &= ~(tcflag_t) (ICANON | ECHO);
    tcsetattr (STDIN_FILENO, TCSANOW, &raw);
  }
  entered = true;
  fputs (ENTER, stdout);
}

void
screen_leave (void)
{
  if (!entered)
    return;
  entered = false;
  fputs (LEAVE, stdout);
  fflush (stdout);
  if (has_keys)
    tcsetattr (STDIN_FILENO, TCSANOW, &before);
}

/* Erasing the rest of a line that is full would erase its last character. */
static void
draw_line (const char *line, size_t len, unsigned width, bool heading)
{
  char *copy = need (strndup (line, len));
  const char *on = "", *off = "";

  if (heading && terminal_has_colors ()) {
    on = "\033[7m";
    off = "\033[0m";
  }
  copy[text_clip (copy, width)] = '\0';
  printf ("%s%s%s%s", on, copy, off, text_width (copy) < width ? "\033[K" : "");
  free (copy);
}

static unsigned
count_lines (const char *text)
{
  unsigned n = 0;

  for (; *text; text++)
    n += *text == '\n';
  return n;
}

void
screen_draw (const char *text)
{
  unsigned height = terminal_lines (), width = terminal_columns (), n = count_lines (text);
  unsigned shown = n <= height ? n : height - 1;

  fputs ("\033[H", stdout);
  for (unsigned i = 0; i < shown; i++) {
    size_t len = strcspn (text, "\n");

    if (i)
      putchar ('\n');
    draw_line (text, len, width, i == 0);
    text += len + 1;
  }
  if (shown < n)
    printf ("\n(%u lines more)\033[K", n - shown);
  else if (shown < height)
    fputs ("\n\033[J", stdout);
  fflush (stdout);
}
