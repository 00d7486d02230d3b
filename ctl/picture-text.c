/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include <stdlib.h>

#include "picture.h"
#include "terminal.h"
#include "text.h"

/* Of the 256: from grey through blue to white, as more is used; red is bad. */
static const char *const color[NSHADES] = {
  "\033[38;5;240m", "\033[38;5;25m",  "\033[38;5;32m",
  "\033[38;5;39m",  "\033[38;5;123m", "\033[1;38;5;196m"
};

static const char *
sign (enum shade shade)
{
  static const char *const blocks[NSHADES] = { "·", "░", "▒", "▓", "█", "X" };
  static const char *const ascii[NSHADES] = { ".", "-", "+", "*", "#", "X" };

  return (text_is_utf8 () ? blocks : ascii)[shade];
}

/* n cells of one shade. */
static void
put (enum shade shade, unsigned n, FILE *out)
{
  bool colors = terminal_has_colors ();

  if (colors)
    fputs (color[shade], out);
  while (n--)
    fputs (sign (shade), out);
  if (colors)
    fputs ("\033[0m", out);
}

static void
put_row (const struct picture_device *d, unsigned first, unsigned end, FILE *out)
{
  fputs ("  ", out);
  while (first < end) {
    unsigned next = first + 1;

    while (next < end && d->shade[next] == d->shade[first])
      next++;
    put (d->shade[first], next - first, out);
    first = next;
  }
  putc ('\n', out);
}

static void
put_legend (FILE *out)
{
  for (enum shade shade = 0; shade < NSHADES; shade++) {
    fputs (shade ? "   " : "", out);
    put (shade, 1, out);
    fprintf (out, " %s", shade_meaning[shade]);
  }
  putc ('\n', out);
}

void
picture_text (const struct picture *p, unsigned width, FILE *out)
{
  for (size_t i = 0; i < p->ndevices; i++) {
    const struct picture_device *d = &p->devices[i];
    char *name = text_printable (d->name), *caption = picture_caption (d);

    fprintf (out, "%s: %s\n", name, caption);
    for (unsigned first = 0; first < d->ncells; first += width)
      put_row (d, first, first + width < d->ncells ? first + width : d->ncells, out);
    free (name);
    free (caption);
    putc ('\n', out);
  }
  put_legend (out);
}
