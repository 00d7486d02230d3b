/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pages.h - the pages of an export: read, written, cleared and moved, whole or in part, by who has their range lock.
 *
 * Unit:    pages; ranges are half open, [first, end).
 * Locking: the caller holds the range: shared to read, exclusive for the others. Nothing here takes a lock but the drum's.
 * Memory:  the thread's own stack (50 KiB), and pages of the sparse map that are touched anew.
 * Errors:  0 or -errno: -ENOSPC when the drum is full, -EIO for a page that is lost or has a wrong checksum, or whose entry the file
 *          does not take, and what a device's I/O gave.
 *
 * Whole pages go in chunks of DRUM_BATCH, whose slots, checksums and pieces of I/O fit on the stack.
 */
#ifndef DRUM_PAGES_H
#define DRUM_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "drum.h"
#include "flow.h"

struct freerange;
struct mapfile;
struct pagemap;
struct pagemap_entry;
struct state;

struct pages {
  struct drum *drum;
  struct flow flow; /* of what its clients ask for */
  struct pagemap *map;
  struct mapfile *file; /* what becomes of an entry is written there first; NULL: nowhere */
  struct state *state;  /* that this file is in; NULL */
  const char *export;   /* its name, for messages */
  uint64_t key;         /* for pagesum_key */
  bool checksum;
  _Alignas(64) struct room_account account; /* which changes; what is before does not */
  _Atomic uint64_t nzero;                   /* pages of zeroes that were written */
  _Atomic bool file_failed;                 /* and that has been said */
};

/* Without a slot: it reads as zeroes. Needs no lock, if an answer that may be out of date is good enough. */
bool pages_is_hole (const struct pages *p, uint64_t page);

/* Does what came from the device belong to this page? */
bool pages_matches (const struct pages *p, uint64_t page, struct pagemap_entry entry,
                    const void *data);

/* known_ns, here and below: for current_ns, when it begins, and then when it has ended, or 0. */
int pages_read (const struct pages *p, uint64_t first, uint64_t end, void *buf, uint64_t *known_ns);

/* Length bytes at offset of one page. */
int pages_read_part (const struct pages *p, uint64_t page, uint32_t offset, uint32_t length,
                     void *buf, uint64_t *known_ns);

/* Which pages are to be looked at. */
struct pages_check {
  uint32_t first_slot, end_slot; /* those that have a slot in [first_slot, end_slot) */
  void *buf;                     /* for end - first pages, or DRUM_BATCH */
  /* Is called for each that can't be read, with what its I/O gave, or -EBADMSG: its checksum is wrong. */
  void (*unreadable) (void *opaque, uint64_t page, int err);
  void *opaque;
};

/* Read pages of [first, end), at most DRUM_BATCH of them, as pages_read does. Returns how many. */
unsigned pages_check (const struct pages *p, uint64_t first, uint64_t end,
                      const struct pages_check *check);

/* On failure each page is as it was or as it was to be. When the drum is nearly full, chunks get smaller, down to a page. */
int pages_write (struct pages *p, uint64_t first, uint64_t end, const void *buf,
                 uint64_t *known_ns);

/* Change a part of a page; buf NULL: to zeroes. */
int pages_write_part (struct pages *p, uint64_t page, uint32_t offset, uint32_t length,
                      const void *buf, uint64_t *known_ns);

/* On failure each page is as it was, or cleared. */
int pages_clear (struct pages *p, uint64_t first, uint64_t end);

/* The same for pages that the file has no more. */
void pages_drop (struct pages *p, uint64_t first, uint64_t end);

/* How many pages of from, that have a slot, would pass: where to has no entry. */
uint64_t pages_npassing (const struct pages *from, const struct pages *to, uint64_t npages);

/* All pages, none beyond the end of to, pass from one export to another of the same drum, which keeps its own where both have one; those of from are
 * freed. A lost page passes as such, and stays so. No data is copied: 8 bytes a page are written. Nobody else uses either meanwhile. What
 * the files say is durable, and the account of to has those that pass, already. On failure nothing has changed. How it can be ended by a kill or the power, and go on: mapfile_pass. */
int pages_pass (struct pages *from, struct pages *to, uint64_t npages);

/* Which pages are to move, and where to. */
struct pages_move {
  uint32_t first_slot, end_slot; /* those that have a slot in [first_slot, end_slot) */
  int above; /* to devices of higher priority than this; PRIO_ANY: wherever a new page would go */
  bool lose; /* mark those that can't be read as lost */
  void *buf; /* for end - first pages, or DRUM_BATCH */
  /* Is called for each that can't be read, once the others have moved. */
  void (*unreadable) (void *opaque, uint64_t page);
  void *opaque;
};

/* Move pages of [first, end), at most DRUM_BATCH of them: read, check, take slots elsewhere, write, make that durable (or else a page that
 * was flushed might be lost with the power, though no client has changed it), point the map there; and gather the
 * old ones in freed, which the caller flushes, after state_sync, whatever this returns. One that can't be read stays as it is (or is marked as lost).
 * Returns how many were moved or marked. -ENOSPC, and nothing changed, if there is no room for all at once: try fewer; and what a
 * write gave, nothing changed. */
int pages_move (struct pages *p, uint64_t first, uint64_t end, const struct pages_move *move,
                struct freerange *freed);

#endif
