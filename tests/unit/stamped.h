/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stamped.h - an export full of stamps, and what each page of it should be. For one thread.
 */
#ifndef DRUM_UNIT_STAMPED_H
#define DRUM_UNIT_STAMPED_H

#include <stdint.h>

struct drum;
struct export;

enum { STAMPED_MAX = 1024 }; /* pages */

#define STAMPED_EIO ((uint32_t) -1) /* a sequence: it can't be read */

struct stamped {
  struct export *export;
  unsigned npages;
  uint32_t last;                  /* sequence given to a write */
  uint32_t sequence[STAMPED_MAX]; /* of each page; 0 for a page of zeroes */
};

/* Begin with an export of zeroes. */
void stamped_init (struct stamped *s, struct export *e);

/* A request of its own each. A write that fails leaves each page as it was, or as it was to be: the caller knows. */
int stamped_write (struct stamped *s, unsigned first, unsigned n);
void stamped_trim (struct stamped *s, unsigned first, unsigned n);

/* Every page reads as it should. */
void stamped_assert (const struct stamped *s);

/* And so do the drum's numbers: a used slot for each page that has one, and no other. */
void stamped_assert_whole (const struct stamped *s, struct drum *d);

#endif
