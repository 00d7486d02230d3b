/* SPDX-License-Identifier: BSD-3-Clause
 *
 * map.c - the drum as a picture: drumctl map.
 */
#include <config.h>

#include "drumctl.h"
#include "options.h"
#include "outfile.h"
#include "picture.h"
#include "terminal.h"

enum { INDENT = 2, PLAIN_CELLS = 64, SVG_CELLS = 512 };

/* How many cells a row has. */
static unsigned
row_cells (void)
{
  unsigned columns = terminal_is () ? terminal_columns () : INDENT + PLAIN_CELLS;

  return columns <= INDENT ? 1 : columns - INDENT > MAX_CELLS ? MAX_CELLS : columns - INDENT;
}

static int
run_map (const struct verb *self, int argc, char **argv)
{
  const char *svg = NULL;
  int cells = 0;
  const struct option_spec options[] = {
    { 'c', "cells", "N", option_cells, &cells, "cells a device, at most 1024" },
    { 0, "svg", "FILE", option_text, &svg, "draw it into this file, as SVG; -: standard output" },
    { 0 },
  };
  int status = options_parse (self, options, 0, 0, &argc, &argv);
  struct picture *picture;

  if (status >= 0)
    return status;
  if (cells == 0)
    cells = svg ? SVG_CELLS : (int) row_cells ();
  if (!(picture = picture_ask ((unsigned) cells)))
    return STATUS_FAILED;
  status = STATUS_DONE;
  if (!svg)
    picture_text (picture, row_cells (), stdout);
  else if (!outfile_write (svg, picture_svg, picture))
    status = STATUS_FAILED;
  picture_free (picture);
  return status;
}

const struct verb verb_map = {
  .name = "map",
  .summary = "Draw what is used of each device, in a terminal or as SVG.",
  .run = run_map,
};
