/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "readahead.h"

#include "drum.h"
#include "pagemap.h"

static uint32_t
min (uint32_t a, uint32_t b)
{
  return a < b ? a : b;
}

/* How many pages before the one that has this slot lie right before it, if max are enough? */
static uint32_t
count_before (const struct pagemap *map, uint64_t page, uint32_t slot, uint32_t max)
{
  uint32_t n = 0;

  while (n < max && n < page && pagemap_get (map, page - n - 1).slot == slot - n - 1)
    n++;
  return n;
}

static uint32_t
count_after (const struct pagemap *map, uint64_t page, uint64_t end, uint32_t slot, uint32_t max)
{
  uint32_t n = 0;

  max = min (max, SLOT_MAX - slot);
  while (n < max && n < end - page - 1 && pagemap_get (map, page + n + 1).slot == slot + n + 1)
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
                  uint64_t map_end, uint32_t max)
{
  struct pagemap_entry low = pagemap_get (map, first), high = pagemap_get (map, end - 1);
  uint32_t before = 0, after = 0;

  if (pagemap_has_slot (low))
    before = count_before (map, first, low.slot, max);
  if (pagemap_has_slot (high))
    after = count_after (map, end - 1, map_end, high.slot, max);
  before = min (before, max - min (after, max - max / 2));
  after = min (after, max - before);
  ask (d, low.slot - before, before);
  ask (d, high.slot + 1, after);
}
