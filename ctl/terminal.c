/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "terminal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool
terminal_is (void)
{
  return isatty (STDOUT_FILENO);
}

static struct winsize
window_size (void)
{
  struct winsize size = { 0 };

  if (ioctl (STDOUT_FILENO, TIOCGWINSZ, &size) == -1)
    size.ws_col = 0;
  if (size.ws_col == 0 || size.ws_row == 0)
    size = (struct winsize){ .ws_col = 80, .ws_row = 24 };
  return size;
}

unsigned
terminal_columns (void)
{
  return window_size ().ws_col;
}

unsigned
terminal_lines (void)
{
  return window_size ().ws_row;
}

bool
terminal_has_colors (void)
{
  const char *no = getenv ("NO_COLOR"), *term = getenv ("TERM");

  return terminal_is () && !(no && *no) && term && strcmp (term, "dumb") != 0;
}
