/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagemap.h - page of an export -> slot and checksum.
 *
 * Structure: one sparse anonymous mapping of 8-byte entries; the kernel's page tables make it sparse. Beside it one bit
 *            for each LEAF of 512 entries says whether one of them was ever set, so that walks over what was never
 *            written touch nothing and are fast (1 TiB: 64 KiB of bits).
 * Memory:    4 KiB for each 2 MiB of export ever written to (and address space, which costs nothing: 2 GiB a TiB).
 * Locking:   entries are loaded and stored atomically, so slot and checksum never disagree; which version is seen is the
 *            business of the caller, who holds the page's range lock.
 * Errors:    0 or -errno, outputs untouched on failure. Only pagemap_create and pagemap_resize allocate.
 */
#ifndef DRUM_PAGEMAP_H
#define DRUM_PAGEMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "units.h"

struct pagemap;

struct pagemap_entry {
  uint32_t slot; /* SLOT_NONE, SLOT_LOST or a slot of the drum */
  uint32_t sum;  /* of the page's contents; 0 without a slot */
};

/* Does it say where the page is? */
static inline bool
pagemap_has_slot (struct pagemap_entry entry)
{
  return entry.slot != SLOT_NONE && entry.slot != SLOT_LOST;
}

/* What it becomes where the key that its checksum is made with changes by so much. */
static inline struct pagemap_entry
pagemap_rekey (struct pagemap_entry entry, uint32_t change)
{
  entry.sum ^= pagemap_has_slot (entry) ? change : 0;
  return entry;
}

/* Entries per bit of "ever set": those of one page of memory. */
enum { PAGEMAP_LEAF = 512 };

/* -ENOMEM also if the export is larger than the address space. */
int pagemap_create (uint64_t npages, struct pagemap **pm);
void pagemap_destroy (struct pagemap *pm);

/* Nobody else uses it meanwhile. Of pages that go none has an entry; those that come have none. -ENOMEM, and nothing changed; never where
 * it gets smaller. */
int pagemap_resize (struct pagemap *pm, uint64_t npages);

/* Have all of its memory now: pagemap_bytes. -ENOMEM. */
int pagemap_touch (struct pagemap *pm);

/* Bytes of memory for a map of npages that is in use to the last page. */
uint64_t pagemap_bytes (uint64_t npages);

/* The entry of this page is wanted soon: have it on its way from memory meanwhile. */
void pagemap_prefetch (const struct pagemap *pm, uint64_t page);

struct pagemap_entry pagemap_get (const struct pagemap *pm, uint64_t page);
void pagemap_set (struct pagemap *pm, uint64_t page, struct pagemap_entry entry);

/* Clear the entries of [page, end), which is part of a LEAF that pagemap_next has found; slot gets those that they had. Returns how
 * many. */
unsigned pagemap_take (struct pagemap *pm, uint64_t page, uint64_t end,
                       uint32_t slot[PAGEMAP_LEAF]);

/* The first page at or behind page, and before end, that may have an entry; end if there is none. */
uint64_t pagemap_next (const struct pagemap *pm, uint64_t page, uint64_t end);

/* The first page in [page, end) that has a slot in [first_slot, end_slot); end if there is none. 8 bytes a page are read: some
 * 50 ms for 64 GiB. */
uint64_t pagemap_find (const struct pagemap *pm, uint64_t page, uint64_t end, uint32_t first_slot,
                       uint32_t end_slot);

#endif
