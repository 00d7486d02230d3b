/* SPDX-License-Identifier: BSD-3-Clause
 *
 * picture.h - the drum as cells, each a shade; the same for a terminal and for a file.
 */
#ifndef DRUMCTL_PICTURE_H
#define DRUMCTL_PICTURE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_object;

/* How much of a cell is used. */
enum shade { SHADE_FREE, SHADE_SOME, SHADE_HALF, SHADE_MOST, SHADE_FULL, SHADE_BAD, NSHADES };

enum { MAX_CELLS = 1024 };

struct picture_device {
  const char *name, *state;
  int prio;
  uint64_t nslots, cell_slots, nused, nbad;
  enum shade shade[MAX_CELLS];
  unsigned ncells;
};

struct picture {
  struct json_object *reply; /* which the names belong to */
  struct picture_device *devices;
  size_t ndevices;
};

extern const char *const shade_meaning[NSHADES];

/* NULL, and said why. */
struct picture *picture_ask (unsigned ncells);
void picture_free (struct picture *p);

/* "prio 10, open, 64G, 31% used, a cell is 1G": the caller's. */
char *picture_caption (const struct picture_device *d);

/* In rows of at most width cells. */
void picture_text (const struct picture *p, unsigned width, FILE *out);
void picture_svg (FILE *out, const void *picture);

#endif
