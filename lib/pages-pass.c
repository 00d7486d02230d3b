/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pages-pass.c - all pages of one export pass to another (FreeBSD's swap_pager_copy).
 *
 * In this order: the new entries of to are in its file, and durable; the file of from is empty, and durable; only then the maps in memory
 * change, and slots are freed. Until the file is empty all can be taken back; and whenever it ends before, each slot that should pass is in from's
 * file, in to's, or in both at the same page.
 */
#include <config.h>

#include "pages.h"

#include <errno.h>
#include <string.h>

#include "freerange.h"
#include "log.h"
#include "mapfile.h"
#include "pagemap.h"
#include "pagesum.h"
#include "state.h"

/* What page is to be in to. */
static struct pagemap_entry
passed (const struct pages *from, const struct pages *to, uint64_t page)
{
  struct pagemap_entry own = pagemap_get (to->map, page);
  uint32_t change = to->checksum ? pagesum_key (from->key, page) ^ pagesum_key (to->key, page) : 0;

  return own.slot == SLOT_NONE ? pagemap_rekey (pagemap_get (from->map, page), change) : own;
}

/* Pages [*first, end) of the leaf behind *page are those that from may have. False: there is none before npages. */
static bool
next_leaf (const struct pages *from, uint64_t *page, uint64_t npages, uint64_t *end)
{
  *page = pagemap_next (from->map, *page, npages);
  *end = (*page / PAGEMAP_LEAF + 1) * PAGEMAP_LEAF;
  *end = *end < npages ? *end : npages;
  return *page < npages;
}

uint64_t
pages_npassing (const struct pages *from, const struct pages *to, uint64_t npages)
{
  uint64_t page = 0, end, n = 0;

  for (; next_leaf (from, &page, npages, &end); page = end)
    for (uint64_t i = page; i < end; i++)
      n +=
        pagemap_has_slot (pagemap_get (from->map, i)) && pagemap_get (to->map, i).slot == SLOT_NONE;
  return n;
}

/* Write to the file of to what its pages before npages come to be; or, undo, what they are. *reached: those behind were not written. */
static int
record (const struct pages *from, struct pages *to, uint64_t npages, bool undo, uint64_t *reached)
{
  uint64_t page = 0, end;
  int ret = 0;

  for (; ret == 0 && next_leaf (from, &page, npages, &end); page = end) {
    struct pagemap_entry entry[PAGEMAP_LEAF];
    unsigned n = (unsigned) (end - page), first = n, stop = 0, done;

    for (unsigned i = 0; i < n; i++) {
      struct pagemap_entry own = pagemap_get (to->map, page + i), is = passed (from, to, page + i);

      entry[i] = undo ? own : is;
      if (is.slot != own.slot) {
        first = first < i ? first : i;
        stop = i + 1;
      }
    }
    if (first >= stop)
      continue;
    done = mapfile_write (to->file, page + first, entry + first, stop - first, &ret);
    *reached = page + first + done;
  }
  if (ret < 0)
    log_error ("export \"%s\": %s can't be written: %s", to->export, mapfile_path (to->file),
               strerror (-ret));
  return ret < 0 ? -EIO : 0;
}

/* Make all maps durable. */
static int
sync_maps (const struct pages *p)
{
  int ret = p->state ? state_sync_maps (p->state) : 0;

  if (ret < 0)
    log_error ("export \"%s\": its page map can't be made durable: %s", p->export, strerror (-ret));
  return ret;
}

static int
empty_file (struct pages *p)
{
  int ret = mapfile_empty (p->file);

  if (ret < 0)
    log_error ("export \"%s\": %s can't be emptied: %s", p->export, mapfile_path (p->file),
               strerror (-ret));
  return ret;
}

static int
pass_in_files (struct pages *from, struct pages *to, uint64_t npages)
{
  uint64_t reached = 0;
  int ret = record (from, to, npages, false, &reached);

  if (ret == 0)
    ret = sync_maps (to);
  if (ret == 0)
    ret = empty_file (from);
  if (ret < 0)
    record (from, to, reached, true, &reached);
  else
    sync_maps (from); /* if it fails, flushes fail from here on, and nobody relies on them */
  return ret;
}

/* From here on nothing can fail. */
static void
pass_in_memory (struct pages *from, struct pages *to, uint64_t npages)
{
  uint64_t page = 0, end;
  struct freerange fr;

  freerange_init (&fr, from->drum, &from->account, 0);
  for (; next_leaf (from, &page, npages, &end); page = end)
    for (uint64_t i = page; i < end; i++) {
      struct pagemap_entry entry = pagemap_get (from->map, i);

      if (entry.slot == SLOT_NONE)
        continue;
      if (pagemap_get (to->map, i).slot == SLOT_NONE)
        pagemap_set (to->map, i, passed (from, to, i));
      else if (pagemap_has_slot (entry))
        freerange_add (&fr, entry.slot, true);
      pagemap_set (from->map, i, (struct pagemap_entry){ .slot = SLOT_NONE });
    }
  freerange_flush (&fr);
}

int
pages_pass (struct pages *from, struct pages *to, uint64_t npages)
{
  int ret = to->file ? pass_in_files (from, to, npages) : 0;

  if (ret == 0)
    pass_in_memory (from, to, npages);
  return ret;
}
