/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export.c - see export.h.
 *
 * A request is cut into the whole pages in its middle and at most two parts of pages at its ends, all locked at once; what is
 * done with them is pages.c's.
 */
#include <config.h>

#include "export.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "drum.h"
#include "freerange.h"
#include "log.h"
#include "mapfile.h"
#include "pagemap.h"
#include "pages.h"
#include "pagesum.h"
#include "rangelock.h"
#include "slotio.h"
#include "state.h"
#include "stats.h"
#include "units.h"

struct export
{
  struct pages pages;
  struct rangelock ranges;
  char *name;
  uint64_t size_bytes;
  _Atomic int nclients;
  struct stats stats[EXPORT_NOPS];
};

/* A byte range cut at page boundaries. If head_bytes or tail_bytes is not 0, the page before first (after end) is
 * concerned in part only. A range inside one page is all head. */
struct cut {
  uint64_t first, end; /* whole pages, half open; may be empty */
  uint32_t head_offset, head_bytes;
  uint32_t tail_bytes;
};

static struct cut
cut_range (uint64_t length, uint64_t offset)
{
  uint64_t end = offset + length;
  struct cut c = { .head_offset = offset % PAGE_BYTES };

  c.first = (offset + PAGE_BYTES - 1) >> PAGE_SHIFT;
  c.end = end >> PAGE_SHIFT;
  if (c.head_offset) {
    uint32_t rest = PAGE_BYTES - c.head_offset;
    c.head_bytes = length < rest ? (uint32_t) length : rest;
  }
  if (c.end < c.first) /* starts and ends inside the same page */
    c.end = c.first;
  else
    c.tail_bytes = end % PAGE_BYTES;
  return c;
}

/* The pages that are concerned, in part or as a whole: [cut_start, cut_end). */
static uint64_t
cut_start (const struct cut *c)
{
  return c->first - (c->head_bytes > 0);
}

static uint64_t
cut_end (const struct cut *c)
{
  return c->end + (c->tail_bytes > 0);
}

int
export_create (struct drum *d, const struct export_config *config, struct export **ep)
{
  uint64_t npages = config->size_bytes >> PAGE_SHIFT;
  struct sysinfo info;
  struct export *e;
  char map_text[16], ram_text[16];
  int ret;

  if (config->size_bytes == 0 || config->size_bytes % PAGE_BYTES)
    return -EINVAL;
  e = aligned_alloc (_Alignof(struct export), sizeof *e);
  if (!e)
    return -ENOMEM;
  memset (e, 0, sizeof *e);
  e->name = strdup (config->name);
  ret = e->name ? pagemap_create (npages, &e->pages.map) : -ENOMEM;
  if (ret < 0) {
    free (e->name);
    free (e);
    return ret;
  }
  rangelock_init (&e->ranges);
  e->size_bytes = config->size_bytes;
  e->pages.drum = d;
  flow_init (&e->pages.flow);
  e->pages.export = e->name;
  e->pages.checksum = config->checksum;
  e->pages.file = config->file;
  e->pages.state = config->state;
  e->pages.key = pagesum_export_key (config->name);
  if (sysinfo (&info) == 0 && pagemap_bytes (npages) > (uint64_t) info.totalram * info.mem_unit / 2)
    log_warning ("export \"%s\": its page map may come to take %s of the %s of memory here: give a "
                 "smaller size=",
                 e->name, format_bytes (pagemap_bytes (npages), map_text),
                 format_bytes ((uint64_t) info.totalram * info.mem_unit, ram_text));
  *ep = e;
  return 0;
}

void
export_destroy (struct export *e)
{
  if (e->pages.file)
    mapfile_close (e->pages.file);
  pagemap_destroy (e->pages.map);
  rangelock_destroy (&e->ranges);
  free (e->name);
  free (e);
}

int
export_touch (struct export *e)
{
  return pagemap_touch (e->pages.map);
}

const char *
export_name (const struct export *e)
{
  return e->name;
}

uint64_t
export_size_bytes (const struct export *e)
{
  return e->size_bytes;
}

bool
export_has_checksums (const struct export *e)
{
  return e->pages.checksum;
}

uint64_t
export_npages_used (const struct export *e)
{
  return atomic_load_explicit (&e->pages.nused, memory_order_relaxed);
}

void
export_count_client (struct export *e, int change)
{
  atomic_fetch_add (&e->nclients, change);
}

unsigned
export_nclients (const struct export *e)
{
  return (unsigned) atomic_load (&e->nclients);
}

uint64_t
export_npages_zero (const struct export *e)
{
  return atomic_load_explicit (&e->pages.nzero, memory_order_relaxed);
}

void
export_stats (const struct export *e, enum export_op op, struct stats_snapshot *snapshot)
{
  stats_read (&e->stats[op], snapshot);
}

void
export_restore (struct export *e, uint64_t page, struct pagemap_entry entry)
{
  struct pagemap_entry from = pagemap_get (e->pages.map, page);

  pagemap_set (e->pages.map, page, entry);
  e->pages.nused += (uint64_t) (pagemap_has_slot (entry) - pagemap_has_slot (from));
}

struct pagemap_entry
export_entry (const struct export *e, uint64_t page)
{
  return pagemap_get (e->pages.map, page);
}

struct mapfile *
export_file (const struct export *e)
{
  return e->pages.file;
}

bool
export_matches (const struct export *e, uint64_t page, struct pagemap_entry entry, const void *data)
{
  return pages_matches (&e->pages, page, entry, data);
}

int
export_flush (struct export *e)
{
  return e->pages.state ? state_sync (e->pages.state) : 0;
}

int
export_flush_map (struct export *e)
{
  return e->pages.state ? state_sync_maps (e->pages.state) : 0;
}

void
export_set_share (struct export *e, unsigned weight, uint64_t iops, uint64_t bandwidth)
{
  flow_set_share (&e->pages.flow, weight, iops, bandwidth);
}

uint64_t
export_pace (struct export *e, uint64_t length, uint64_t *until_ns)
{
  return flow_pace (&e->pages.flow, length, until_ns);
}

uint64_t
export_paced_ns (const struct export *e)
{
  return flow_paced_ns (&e->pages.flow);
}

/* A write of some kind has been done; is it to be durable at once? */
static int
finish_write (struct export *e, int ret)
{
  return ret == 0 && e->pages.state && state_syncs_writes (e->pages.state) ? export_flush (e) : ret;
}

int
export_read (struct export *e, void *buf, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns = stats_begin (&e->stats[EXPORT_READ]);
  struct rangelock_holder holder;
  char *at = buf;
  int ret = 0;

  pagemap_prefetch (e->pages.map, cut_start (&c));
  rangelock_lock (&e->ranges, &holder, cut_start (&c), cut_end (&c), false);
  if (c.head_bytes)
    ret = pages_read_part (&e->pages, c.first - 1, c.head_offset, c.head_bytes, at);
  at += c.head_bytes;
  if (ret == 0)
    ret = pages_read (&e->pages, c.first, c.end, at);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = pages_read_part (&e->pages, c.end, 0, c.tail_bytes, at);
  rangelock_unlock (&e->ranges, &holder);
  stats_end (&e->stats[EXPORT_READ], begin_ns, length, ret);
  return ret;
}

int
export_write (struct export *e, const void *buf, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns = stats_begin (&e->stats[EXPORT_WRITE]);
  struct rangelock_holder holder;
  const char *at = buf;
  int ret = 0;

  pagemap_prefetch (e->pages.map, cut_start (&c));
  rangelock_lock (&e->ranges, &holder, cut_start (&c), cut_end (&c), true);
  if (c.head_bytes)
    ret = pages_write_part (&e->pages, c.first - 1, c.head_offset, c.head_bytes, at);
  at += c.head_bytes;
  if (ret == 0)
    ret = pages_write (&e->pages, c.first, c.end, at);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = pages_write_part (&e->pages, c.end, 0, c.tail_bytes, at);
  rangelock_unlock (&e->ranges, &holder);
  ret = finish_write (e, ret);
  stats_end (&e->stats[EXPORT_WRITE], begin_ns, length, ret);
  return ret;
}

/* => holds no range. Clear whole pages, in pieces. */
static int
clear_range (struct export *e, uint64_t first, uint64_t end)
{
  int ret = 0;

  while (first < end && ret == 0) {
    uint64_t piece_end = end - first < EXPORT_PIECE ? end : first + EXPORT_PIECE;
    struct rangelock_holder holder;

    rangelock_lock (&e->ranges, &holder, first, piece_end, true);
    ret = pages_clear (&e->pages, first, piece_end);
    rangelock_unlock (&e->ranges, &holder);
    first = piece_end;
  }
  return ret;
}

int
export_trim (struct export *e, uint64_t length, uint64_t offset)
{
  uint64_t begin_ns = stats_begin (&e->stats[EXPORT_TRIM]);
  struct cut c = cut_range (length, offset);
  int ret = clear_range (e, c.first, c.end);
  stats_end (&e->stats[EXPORT_TRIM], begin_ns, length, ret);
  return ret;
}

/* => holds no range. Zero a part of a page. */
static int
zero_part (struct export *e, uint64_t page, uint32_t offset, uint32_t length)
{
  struct rangelock_holder holder;
  int ret;

  rangelock_lock (&e->ranges, &holder, page, page + 1, true);
  ret = pages_write_part (&e->pages, page, offset, length, NULL);
  rangelock_unlock (&e->ranges, &holder);
  return ret;
}

int
export_zero (struct export *e, uint64_t length, uint64_t offset, bool fast)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns;
  int ret = 0;

  if (fast && ((c.head_bytes && !pages_is_hole (&e->pages, c.first - 1)) ||
               (c.tail_bytes && !pages_is_hole (&e->pages, c.end))))
    return -EOPNOTSUPP;
  begin_ns = stats_begin (&e->stats[EXPORT_ZERO]);
  if (c.head_bytes)
    ret = zero_part (e, c.first - 1, c.head_offset, c.head_bytes);
  if (ret == 0 && c.tail_bytes)
    ret = zero_part (e, c.end, 0, c.tail_bytes);
  if (ret == 0)
    ret = clear_range (e, c.first, c.end);
  ret = finish_write (e, ret);
  stats_end (&e->stats[EXPORT_ZERO], begin_ns, length, ret);
  return ret;
}

int
export_cache (struct export *e, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  uint64_t page = cut_start (&c), end = cut_end (&c);
  struct rangelock_holder holder;
  int ret = 0;

  rangelock_lock (&e->ranges, &holder, page, end, false);
  while ((page = pagemap_next (e->pages.map, page, end)) < end && ret == 0) {
    struct slotio io;

    slotio_init (&io, e->pages.drum, &e->pages.flow, SLOTIO_READAHEAD);
    for (unsigned n = 0; n < DRUM_BATCH && page < end; n++, page++) {
      struct pagemap_entry entry = pagemap_get (e->pages.map, page);

      if (entry.slot != SLOT_NONE && entry.slot != SLOT_LOST)
        slotio_add (&io, entry.slot, NULL);
    }
    ret = slotio_submit (&io);
  }
  rangelock_unlock (&e->ranges, &holder);
  return ret;
}

/* The end of the run of pages that are all holes, or all not, from page on. */
static uint64_t
extent_end (const struct export *e, uint64_t page, uint64_t end, bool data)
{
  while (page < end) {
    if (!data)
      page = pagemap_next (e->pages.map, page, end);
    if (page >= end || pages_is_hole (&e->pages, page) == data)
      break;
    page++;
  }
  return page;
}

/* Locks nothing: what was acknowledged before the request came stands in the map, and of what changes meanwhile either
 * state is a right answer. */
int
export_extents (struct export *e, uint64_t length, uint64_t offset, bool one,
                int (*add) (void *opaque, uint64_t offset, uint64_t length, bool data),
                void *opaque)
{
  uint64_t end = offset + length, end_page = (end + PAGE_BYTES - 1) >> PAGE_SHIFT;
  int ret = 0;

  for (unsigned n = 0; offset < end && ret == 0 && n < (one ? 1 : EXPORT_EXTENTS); n++) {
    uint64_t page = offset >> PAGE_SHIFT;
    bool data = !pages_is_hole (&e->pages, page);
    uint64_t stop = extent_end (e, page + 1, end_page, data) << PAGE_SHIFT;

    if (stop > end)
      stop = end;
    ret = add (opaque, offset, stop - offset, data);
    offset = stop;
  }
  return ret;
}

/* The next piece from page on, of at most npages: it begins with a page in [first_slot, end_slot). False: as far as was looked, up
 * to *end, there is none. */
static bool
find_piece (const struct export *e, uint64_t page, unsigned npages, uint32_t first_slot,
            uint32_t end_slot, uint64_t *first, uint64_t *end)
{
  uint64_t export_end = e->size_bytes >> PAGE_SHIFT;
  uint64_t search_end = export_end - page < EXPORT_SEARCH ? export_end : page + EXPORT_SEARCH;

  *first = pagemap_find (e->pages.map, page, search_end, first_slot, end_slot);
  if (*first == search_end)
    *end = search_end;
  else
    *end = export_end - *first < npages ? export_end : *first + npages;
  return *first < search_end;
}

/* Where the next piece is to be looked for. */
static uint64_t
behind_piece (const struct export *e, uint64_t end)
{
  return end == e->size_bytes >> PAGE_SHIFT ? UINT64_MAX : end;
}

int
export_move (struct export *e, uint64_t *page, unsigned npages, const struct pages_move *move)
{
  struct rangelock_holder holder;
  struct freerange freed;
  uint64_t first, end;
  int ret = 0;

  if (find_piece (e, *page, npages, move->first_slot, move->end_slot, &first, &end)) {
    rangelock_lock (&e->ranges, &holder, first, end, true);
    ret = pages_move (&e->pages, first, end, move, &freed);
    rangelock_unlock (&e->ranges, &holder);
    if (freed.nruns > 0 && e->pages.state)
      state_sync (e->pages.state); /* if it fails: see pages_move */
    freerange_flush (&freed);
  }
  *page = ret == -ENOSPC ? first : behind_piece (e, end);
  return ret;
}

unsigned
export_check (struct export *e, uint64_t *page, unsigned npages, const struct pages_check *check)
{
  struct rangelock_holder holder;
  uint64_t first, end;
  unsigned nread = 0;

  if (find_piece (e, *page, npages, check->first_slot, check->end_slot, &first, &end)) {
    rangelock_lock (&e->ranges, &holder, first, end, false);
    nread = pages_check (&e->pages, first, end, check);
    rangelock_unlock (&e->ranges, &holder);
  }
  *page = behind_piece (e, end);
  return nread;
}
