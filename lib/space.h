/* SPDX-License-Identifier: BSD-3-Clause
 *
 * space.h - the drum's address space: which range of slots is whose?
 *
 * Structure: a small sorted array of ranges; between two lies at least one guard slot that is nobody's.
 * Range:     slots 1 to SLOT_MAX; at most SPACE_MAX ranges.
 * Locking:   space_lookup takes no lock and may run beside everything (a sequence counter makes it look again if the
 *            array changed under it); the others are serialised by the caller.
 * Errors:    0 or -errno, outputs untouched on failure. Nothing allocates.
 */
#ifndef DRUM_SPACE_H
#define DRUM_SPACE_H

#include <stdint.h>

enum { SPACE_MAX = 256 };

struct space_range {
  _Atomic uint32_t first, end; /* half open */
  void *_Atomic owner;
};

/* Zeroed is empty. The fields are space.c's. */
struct space {
  _Atomic unsigned version; /* odd while the array changes */
  _Atomic unsigned n;
  struct space_range range[SPACE_MAX];
};

/* Give owner the first gap of nslots slots, at *first. -EFBIG if there is none, -EMFILE if there are too many ranges. */
int space_insert (struct space *s, uint32_t nslots, void *owner, uint32_t *first);

/* Give owner just these slots. -EINVAL if there are no such; -EEXIST if they are somebody's, or a guard slot is; -EMFILE. */
int space_insert_at (struct space *s, uint32_t first, uint32_t nslots, void *owner);

/* Could it be given one now? 0, or what space_insert would say. */
int space_check (const struct space *s, uint32_t nslots);

/* Take the range that begins at first away; its slots can be given again. -ENOENT if there is none. */
int space_remove (struct space *s, uint32_t first);

/* Whose is this slot, and where does his range begin? NULL for a guard slot, slot 0, or one behind all ranges. */
void *space_lookup (const struct space *s, uint32_t slot, uint32_t *first);

#endif
