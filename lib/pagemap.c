/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "pagemap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "memlock.h"
#include "units.h"

enum { LEAVES_PER_WORD = 64 };

struct pagemap {
  _Atomic uint64_t *entry; /* slot in the low half, checksum in the high one */
  _Atomic uint64_t *leaf_set;
  uint64_t npages; /* that there is memory for */
};

static uint64_t
entry_bytes (uint64_t npages)
{
  return npages * sizeof (uint64_t);
}

static uint64_t
leaf_set_bytes (uint64_t npages)
{
  uint64_t nleaves = (npages + PAGEMAP_LEAF - 1) / PAGEMAP_LEAF;

  return (nleaves + LEAVES_PER_WORD - 1) / LEAVES_PER_WORD * sizeof (uint64_t);
}

uint64_t
pagemap_bytes (uint64_t npages)
{
  return entry_bytes (npages) + leaf_set_bytes (npages);
}

static void *
map_sparse (uint64_t bytes)
{
  void *mem =
    mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

  if (mem == MAP_FAILED)
    return NULL;
  madvise (mem, bytes,
           MADV_NOHUGEPAGE); /* a huge page would be 2 MiB of map for one page of export */
  return mem;
}

static int
check_size (uint64_t npages)
{
  if (npages == 0)
    return -EINVAL;
  return npages > SIZE_MAX / 2 / sizeof (uint64_t) ? -ENOMEM : 0;
}

int
pagemap_create (uint64_t npages, struct pagemap **pmp)
{
  struct pagemap *pm;
  int ret = check_size (npages);

  if (ret < 0)
    return ret;
  pm = calloc (1, sizeof *pm);
  if (!pm)
    return -ENOMEM;
  pm->npages = npages;
  pm->entry = map_sparse (entry_bytes (npages));
  pm->leaf_set = map_sparse (leaf_set_bytes (npages));
  if (!pm->entry || !pm->leaf_set) {
    pagemap_destroy (pm);
    return -ENOMEM;
  }
  *pmp = pm;
  return 0;
}

void
pagemap_destroy (struct pagemap *pm)
{
  if (pm->entry)
    munmap ((void *) pm->entry, entry_bytes (pm->npages));
  if (pm->leaf_set)
    munmap ((void *) pm->leaf_set, leaf_set_bytes (pm->npages));
  free (pm);
}

int
pagemap_touch (struct pagemap *pm)
{
  int ret;

  /* All of it will be there anyway: with fewer entries of the page tables to look up for it. Only a hint. */
  madvise ((void *) pm->entry, entry_bytes (pm->npages), MADV_HUGEPAGE);
  ret = memlock_touch ((void *) pm->entry, entry_bytes (pm->npages));
  return ret < 0 ? ret : memlock_touch ((void *) pm->leaf_set, leaf_set_bytes (pm->npages));
}

static bool
leaf_is_set (const struct pagemap *pm, uint64_t leaf)
{
  uint64_t word =
    atomic_load_explicit (&pm->leaf_set[leaf / LEAVES_PER_WORD], memory_order_acquire);

  return word >> leaf % LEAVES_PER_WORD & 1;
}

/* False, and it is where it was, and as it was. */
static bool
remap (_Atomic uint64_t **mem, uint64_t from_bytes, uint64_t to_bytes)
{
  void *at = mremap ((void *) *mem, from_bytes, to_bytes, MREMAP_MAYMOVE);

  if (at == MAP_FAILED)
    return false;
  *mem = at;
  return true;
}

static int
grow (struct pagemap *pm, uint64_t npages)
{
  if (!remap (&pm->leaf_set, leaf_set_bytes (pm->npages), leaf_set_bytes (npages)))
    return -ENOMEM;
  if (!remap (&pm->entry, entry_bytes (pm->npages), entry_bytes (npages))) {
    remap (&pm->leaf_set, leaf_set_bytes (npages), leaf_set_bytes (pm->npages));
    return -ENOMEM;
  }
  pm->npages = npages;
  return 0;
}

/* What the kernel does not take back (where that would be one mapping more than it has) stays for when the map grows again. */
static void
shrink (struct pagemap *pm, uint64_t npages)
{
  uint64_t first = (npages + PAGEMAP_LEAF - 1) / PAGEMAP_LEAF;
  uint64_t end = (pm->npages + PAGEMAP_LEAF - 1) / PAGEMAP_LEAF;

  for (uint64_t leaf = first; leaf < end; leaf++)
    if (leaf_is_set (pm, leaf))
      atomic_fetch_and (&pm->leaf_set[leaf / LEAVES_PER_WORD],
                        ~(UINT64_C (1) << leaf % LEAVES_PER_WORD));
  if (!remap (&pm->entry, entry_bytes (pm->npages), entry_bytes (npages)))
    return;
  remap (&pm->leaf_set, leaf_set_bytes (pm->npages), leaf_set_bytes (npages));
  pm->npages = npages;
}

int
pagemap_resize (struct pagemap *pm, uint64_t npages)
{
  int ret = check_size (npages);

  if (ret < 0)
    return ret;
  if (npages > pm->npages)
    return grow (pm, npages);
  shrink (pm, npages);
  return 0;
}

void
pagemap_prefetch (const struct pagemap *pm, uint64_t page)
{
  __builtin_prefetch ((const void *) &pm->leaf_set[page / PAGEMAP_LEAF / LEAVES_PER_WORD]);
  __builtin_prefetch ((const void *) &pm->entry[page]);
}

struct pagemap_entry
pagemap_get (const struct pagemap *pm, uint64_t page)
{
  uint64_t entry = 0;

  if (leaf_is_set (pm, page / PAGEMAP_LEAF))
    entry = atomic_load_explicit (&pm->entry[page], memory_order_acquire);
  return (struct pagemap_entry){ .slot = (uint32_t) entry, .sum = (uint32_t) (entry >> 32) };
}

void
pagemap_set (struct pagemap *pm, uint64_t page, struct pagemap_entry entry)
{
  uint64_t leaf = page / PAGEMAP_LEAF;

  if (!leaf_is_set (pm, leaf)) {
    if (entry.slot == SLOT_NONE)
      return;
    atomic_fetch_or_explicit (&pm->leaf_set[leaf / LEAVES_PER_WORD],
                              UINT64_C (1) << leaf % LEAVES_PER_WORD, memory_order_acq_rel);
  }
  atomic_store_explicit (&pm->entry[page], (uint64_t) entry.sum << 32 | entry.slot,
                         memory_order_release);
}

unsigned
pagemap_take (struct pagemap *pm, uint64_t page, uint64_t end, uint32_t slot[PAGEMAP_LEAF])
{
  unsigned n = 0;

  for (; page < end; page++) {
    uint64_t entry = atomic_load_explicit (&pm->entry[page], memory_order_relaxed);

    if (entry == 0)
      continue;
    atomic_store_explicit (&pm->entry[page], 0, memory_order_release);
    slot[n] = (uint32_t) entry;
    n += slot[n] != SLOT_LOST;
  }
  return n;
}

uint64_t
pagemap_next (const struct pagemap *pm, uint64_t page, uint64_t end)
{
  while (page < end) {
    uint64_t leaf = page / PAGEMAP_LEAF;
    uint64_t word =
      atomic_load_explicit (&pm->leaf_set[leaf / LEAVES_PER_WORD], memory_order_acquire);

    word >>= leaf % LEAVES_PER_WORD;
    if (word & 1)
      return page;
    leaf = word ? leaf + (uint64_t) __builtin_ctzll (word)
                : (leaf / LEAVES_PER_WORD + 1) * LEAVES_PER_WORD;
    page = leaf * PAGEMAP_LEAF;
  }
  return end;
}

uint64_t
pagemap_find (const struct pagemap *pm, uint64_t page, uint64_t end, uint32_t first_slot,
              uint32_t end_slot)
{
  while ((page = pagemap_next (pm, page, end)) < end) {
    uint64_t leaf_end = (page / PAGEMAP_LEAF + 1) * PAGEMAP_LEAF;

    for (leaf_end = leaf_end < end ? leaf_end : end; page < leaf_end; page++) {
      uint32_t slot = (uint32_t) atomic_load_explicit (&pm->entry[page], memory_order_relaxed);

      if (slot - first_slot < end_slot - first_slot)
        return page;
    }
  }
  return end;
}
