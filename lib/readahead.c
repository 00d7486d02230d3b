/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "readahead.h"

#include "drum.h"
#include "pagemap.h"

static uint64_t
min (uint64_t a, uint64_t b)
{
  return a < b ? a : b;
}

/* How many of the max pages before the one that has this slot lie right before it? */
static uint32_t
count_before (const struct pagemap *map, uint64_t page, uint32_t slot, uint32_t max)
{
  uint32_t n = 0;

  while (n < max && pagemap_get (map, page - n - 1).slot == slot - n - 1)
    n++;
  return n;
}

static uint32_t
count_after (const struct pagemap *map, uint64_t page, uint32_t slot, uint32_t max)
{
  uint32_t n = 0;

  while (n < max && slot + n < SLOT_MAX && pagemap_get (map, page + n + 1).slot == slot + n + 1)
    n++;
  return n;
}

static void
ask (struct drum *d, uint32_t first, uint32_t n)
{
  if (n > 0)
    drum_readahead (d, (struct slot_run){ .first = first, .n = n });
}

void
readahead_around (struct drum *d, const struct pagemap *map, uint64_t first, uint64_t end,
                  uint64_t map_end, uint32_t npages)
{
  struct pagemap_entry low = pagemap_get (map, first), high = pagemap_get (map, end - 1);
  uint64_t block = (end - 1) / npages * npages, block_end = block + npages;

  if (first > block && pagemap_has_slot (low)) {
    uint32_t n = count_before (map, first, low.slot, (uint32_t) (first - block));

    ask (d, low.slot - n, n);
  }
  if (first >= block && pagemap_has_slot (high)) {
    uint32_t max = (uint32_t) (min (block_end, map_end) - end);

    ask (d, high.slot + 1, count_after (map, end - 1, high.slot, max));
  }
}
