/* SPDX-License-Identifier: BSD-3-Clause
 *
 * stamp.h - pages that say who wrote them, when, and where to: 256 copies of one stamp.
 */
#ifndef DRUM_TESTS_STAMP_H
#define DRUM_TESTS_STAMP_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { STAMPS_PER_PAGE = 256 };

/* All zero is a page of zeroes: writers count from 1. */
struct stamp {
  uint32_t writer;
  uint32_t sequence;
  uint64_t page;
};

static inline void
stamp_fill (void *page, struct stamp stamp)
{
  for (unsigned i = 0; i < STAMPS_PER_PAGE; i++)
    memcpy ((char *) page + i * sizeof stamp, &stamp, sizeof stamp);
}

/* True if the page is full of one stamp. */
static inline bool
stamp_read (const void *page, struct stamp *stamp)
{
  memcpy (stamp, page, sizeof *stamp);
  return memcmp (page, (const char *) page + sizeof *stamp,
                 (STAMPS_PER_PAGE - 1) * sizeof *stamp) == 0;
}

static inline bool
stamp_is_zero (const struct stamp *stamp)
{
  return stamp->writer == 0 && stamp->sequence == 0 && stamp->page == 0;
}

#endif
