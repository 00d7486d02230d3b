/* SPDX-License-Identifier: BSD-3-Clause
 *
 * picture-svg.c - the picture as a file of its own, which needs nothing but what shows it.
 */
#include <config.h>

#include <stdlib.h>

#include "picture.h"
#include "text.h"

enum {
  CELL = 12,
  GAP = 1,
  ROW_CELLS = 64,
  MARGIN = 16,
  CAPTION = 20,
  LEGEND = 40,
  LEGEND_STEP = 96
};

static const char *const fill[NSHADES] = { "#e8edf2", "#b3cde3", "#6497b1",
                                           "#2f6690", "#03396c", "#d62728" };

/* As XML has it; what it can't have at all, control characters, as U+FFFD. */
static void
put_escaped (const char *text, FILE *out)
{
  char *utf8 = text_to_utf8 (text);

  for (const char *at = utf8; *at; at++)
    if (*at == '&')
      fputs ("&amp;", out);
    else if (*at == '<')
      fputs ("&lt;", out);
    else if (*at == '>')
      fputs ("&gt;", out);
    else if ((unsigned char) *at < 0x20 || *at == 0x7f)
      fputs ("\xef\xbf\xbd", out);
    else
      putc (*at, out);
  free (utf8);
}

static unsigned
nrows (const struct picture_device *d)
{
  return (d->ncells + ROW_CELLS - 1) / ROW_CELLS;
}

static unsigned
device_height (const struct picture_device *d)
{
  return CAPTION + nrows (d) * CELL + MARGIN;
}

static void
put_rect (unsigned x, unsigned y, enum shade shade, FILE *out)
{
  fprintf (out, "<rect x=\"%u\" y=\"%u\" width=\"%u\" height=\"%u\" class=\"c%u\"/>\n", x, y,
           CELL - GAP, CELL - GAP, shade);
}

static void
put_device (const struct picture_device *d, unsigned y, FILE *out)
{
  char *caption = picture_caption (d);

  fprintf (out, "<text x=\"%u\" y=\"%u\"><tspan class=\"name\">", MARGIN, y + CAPTION - 7);
  put_escaped (d->name, out);
  fputs ("</tspan>: ", out);
  put_escaped (caption, out);
  fputs ("</text>\n", out);
  for (unsigned i = 0; i < d->ncells; i++)
    put_rect (MARGIN + i % ROW_CELLS * CELL, y + CAPTION + i / ROW_CELLS * CELL, d->shade[i], out);
  free (caption);
}

static void
put_legend (unsigned y, FILE *out)
{
  for (enum shade shade = 0; shade < NSHADES; shade++) {
    unsigned x = MARGIN + shade * LEGEND_STEP;

    put_rect (x, y, shade, out);
    fprintf (out, "<text x=\"%u\" y=\"%u\">%s</text>\n", x + CELL + 4, y + CELL - 2,
             shade_meaning[shade]);
  }
}

static void
put_style (FILE *out)
{
  fputs ("<style>text { font: 12px sans-serif; fill: #222 } .name { font-weight: bold }", out);
  for (enum shade shade = 0; shade < NSHADES; shade++)
    fprintf (out, " .c%u { fill: %s }", shade, fill[shade]);
  fputs ("</style>\n", out);
}

void
picture_svg (FILE *out, const void *picture)
{
  const struct picture *p = picture;
  unsigned width = 2 * MARGIN + ROW_CELLS * CELL, height = MARGIN + LEGEND, y = MARGIN;

  for (size_t i = 0; i < p->ndevices; i++)
    height += device_height (&p->devices[i]);
  fprintf (
    out,
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%u\" height=\"%u\" viewBox=\"0 0 %u %u\">\n"
    "<title>What is used of the drum</title>\n",
    width, height, width, height);
  put_style (out);
  fputs ("<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n", out);
  for (size_t i = 0; i < p->ndevices; i++) {
    put_device (&p->devices[i], y, out);
    y += device_height (&p->devices[i]);
  }
  put_legend (y + MARGIN / 2, out);
  fputs ("</svg>\n", out);
}
