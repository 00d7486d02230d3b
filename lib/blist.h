/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blist.h - which slots of one swap device are free?
 *
 * Unit:    a slot is one page of backing store, numbered from 0 in its blist; the drum adds the first slot.
 * Range:   1 to 2^32-2 slots; runs are half open, [first, first + n).
 * Memory:  the caller's, blist_bytes (nslots) of it, 1.14 bits a slot; nothing here allocates or blocks.
 * Locking: none; calls on one blist are serialised by the drum's lock.
 * Errors:  0 or -errno, outputs untouched on failure.
 *
 * The idea (a radix tree of hints over a bitmap, next-fit with a cursor) is FreeBSD's subr_blist.c; the layout and
 * the bounds are ours, see blist.c.
 */
#ifndef DRUM_BLIST_H
#define DRUM_BLIST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest run that one blist_alloc may demand (min); max may be anything. */
enum { BLIST_MIN_MAX = 1024 };

struct blist;

/* n consecutive slots. */
struct slot_run {
  uint32_t first;
  uint32_t n;
};

struct blist_stats {
  uint64_t nruns;       /* runs of free slots */
  uint32_t largest;     /* the longest of them, in slots */
  uint64_t by_size[32]; /* [k]: runs of 2^k to 2^(k+1)-1 slots (FreeBSD's vm.swap_fragmentation) */
};

/* Bytes that a blist of nslots slots needs; 0 if nslots is out of range. */
size_t blist_bytes (uint32_t nslots);

/* Make a blist of nslots slots, all of them used, in mem: blist_bytes (nslots) bytes, aligned to 64, ZEROED by the
 * caller (fresh mmap or calloc), which outlive it and which it never leaves. It touches only the header; a free of all
 * slots touches 1 bit a slot, which takes the kernel longer than us unless the memory has huge pages (MADV_HUGEPAGE). */
struct blist *blist_create (void *mem, uint32_t nslots);

uint32_t blist_nslots (const struct blist *bl);

/* Exact number of free slots. */
uint32_t blist_nfree (const struct blist *bl);

/* Take the first run of at least min and at most max free slots at or after the cursor (wrapping around), put it in
 * *run and the cursor behind it. The run may be a part of a longer one.
 * -ENOSPC if no run of min is left, though blist_nfree may be larger: ask again for less.
 * -EINVAL unless 1 <= min <= max and min <= BLIST_MIN_MAX. */
int blist_alloc (struct blist *bl, uint32_t min, uint32_t max, struct slot_run *run);

/* As blist_alloc, but if at least min slots from prefer on are free, the run starts there. */
int blist_alloc_at (struct blist *bl, uint32_t prefer, uint32_t min, uint32_t max,
                    struct slot_run *run);

/* Give back n slots from first on. -EINVAL, and nothing changed, if any of them is free already or does not exist. */
int blist_free (struct blist *bl, uint32_t first, uint32_t n);

/* Make n slots from first on used, whatever they were; *nwere_free says how many of them were free.
 * -EINVAL if one does not exist. */
int blist_fill (struct blist *bl, uint32_t first, uint32_t n, uint32_t *nwere_free);

/* Make those of the n slots from first on used that are free, up to the first that is not, or does not exist. Returns how many. */
uint32_t blist_take (struct blist *bl, uint32_t first, uint32_t n);

/* This slot, which exists, is wanted soon: have it on its way from memory meanwhile. */
void blist_prefetch (const struct blist *bl, uint32_t slot);

/* Find the first maximal run of free (or of used) slots that ends behind from; a run under from is cut there.
 * False if there is none. To see all: run = {0}; while (blist_next (bl, run.first + run.n, true, &run)) ... */
bool blist_next (const struct blist *bl, uint32_t from, bool free, struct slot_run *run);

/* The same for slots before end only; a run that goes on there is cut. */
bool blist_next_before (const struct blist *bl, uint32_t from, uint32_t end, bool free,
                        struct slot_run *run);

/* Count the free runs; walks the whole bitmap, some 8 ns a run: 16 ms for 16M slots in 1.5 million fragments. Who cannot
 * hold a lock that long walks with blist_next_before, in pieces. */
void blist_stats (const struct blist *bl, struct blist_stats *stats);

/* For tests: walk everything, and tell whether what the search relies on still holds. */
bool blist_check (const struct blist *bl);

#endif
