/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export.c - see export.h.
 *
 * A request is cut into the whole pages in its middle and at most two parts of pages at its ends; whole pages go in
 * chunks of DRUM_BATCH, whose slots, checksums and pieces of I/O fit on the stack.
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
#include "pagemap.h"
#include "pagesum.h"
#include "rangelock.h"
#include "slotio.h"
#include "units.h"

struct export
{
  struct drum *drum;
  struct pagemap *map;
  struct rangelock ranges;
  char *name;
  uint64_t size_bytes;
  uint64_t key; /* for pagesum_key */
  bool checksum;
  _Atomic uint64_t npages_used;
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
  e = calloc (1, sizeof *e);
  if (!e)
    return -ENOMEM;
  e->name = strdup (config->name);
  ret = e->name ? pagemap_create (npages, &e->map) : -ENOMEM;
  if (ret < 0) {
    free (e->name);
    free (e);
    return ret;
  }
  rangelock_init (&e->ranges);
  e->drum = d;
  e->size_bytes = config->size_bytes;
  e->checksum = config->checksum;
  e->key = pagesum_export_key (config->name);
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
  pagemap_destroy (e->map);
  rangelock_destroy (&e->ranges);
  free (e->name);
  free (e);
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

uint64_t
export_npages_used (const struct export *e)
{
  return atomic_load_explicit (&e->npages_used, memory_order_relaxed);
}

static bool
has_slot (struct pagemap_entry entry)
{
  return entry.slot != SLOT_NONE && entry.slot != SLOT_LOST;
}

static uint32_t
page_sum (const struct export *e, uint64_t page, const void *data)
{
  return e->checksum ? pagesum_contents (data) ^ pagesum_key (e->key, page) : 0;
}

/* Does what came from the device belong to this page? Says so if not. */
static bool
check_page (const struct export *e, uint64_t page, struct pagemap_entry entry, const void *data)
{
  if (!e->checksum || page_sum (e, page, data) == entry.sum)
    return true;
  log_error ("export \"%s\": page %llu: wrong checksum of what slot %u gave back: the read fails",
             e->name, (unsigned long long) page, entry.slot);
  return false;
}

/* => holds [page, page + n) shared; n is at most DRUM_BATCH. */
static int
read_chunk (struct export *e, uint64_t page, unsigned n, char *buf)
{
  struct pagemap_entry entry[DRUM_BATCH];
  struct slotio io;
  int ret;

  slotio_init (&io, e->drum, SLOTIO_READ);
  for (unsigned i = 0; i < n; i++) {
    entry[i] = pagemap_get (e->map, page + i);
    if (entry[i].slot == SLOT_LOST)
      return -EIO;
    if (entry[i].slot == SLOT_NONE)
      memset (buf + (size_t) i * PAGE_BYTES, 0, PAGE_BYTES);
    else
      slotio_add (&io, entry[i].slot, buf + (size_t) i * PAGE_BYTES);
  }
  ret = slotio_submit (&io);
  for (unsigned i = 0; i < n && ret == 0; i++)
    if (has_slot (entry[i]) && !check_page (e, page + i, entry[i], buf + (size_t) i * PAGE_BYTES))
      ret = -EIO;
  return ret;
}

/* => holds [first, end) shared. */
static int
read_pages (struct export *e, uint64_t first, uint64_t end, char *buf)
{
  int ret = 0;

  while (first < end && ret == 0) {
    unsigned n = end - first < DRUM_BATCH ? (unsigned) (end - first) : DRUM_BATCH;

    ret = read_chunk (e, first, n, buf);
    first += n;
    buf += (size_t) n * PAGE_BYTES;
  }
  return ret;
}

/* => holds page shared. */
static int
read_part (struct export *e, uint64_t page, uint32_t offset, uint32_t length, char *buf)
{
  char data[PAGE_BYTES];
  int ret = read_chunk (e, page, 1, data);

  if (ret == 0)
    memcpy (buf, data + offset, length);
  return ret;
}

int
export_read (struct export *e, void *buf, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  struct rangelock_holder holder;
  char *at = buf;
  int ret = 0;

  pagemap_prefetch (e->map, cut_start (&c));
  rangelock_lock (&e->ranges, &holder, cut_start (&c), cut_end (&c), false);
  if (c.head_bytes)
    ret = read_part (e, c.first - 1, c.head_offset, c.head_bytes, at);
  at += c.head_bytes;
  if (ret == 0)
    ret = read_pages (e, c.first, c.end, at);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = read_part (e, c.end, 0, c.tail_bytes, at);
  rangelock_unlock (&e->ranges, &holder);
  return ret;
}

/* => holds page exclusive. Point it to its new slot, or to none, and gather the old one to be freed. Returns by how many
 * the used pages of the export grow. */
static int
switch_page (struct export *e, uint64_t page, struct pagemap_entry to, struct freerange *fr)
{
  struct pagemap_entry from = pagemap_get (e->map, page);

  if (from.slot == SLOT_NONE && to.slot == SLOT_NONE)
    return 0;
  pagemap_set (e->map, page, to);
  if (has_slot (from))
    freerange_add (fr, from.slot, has_slot (to));
  return has_slot (to) - has_slot (from);
}

static void
count_used (struct export *e, int64_t growth)
{
  if (growth)
    atomic_fetch_add_explicit (&e->npages_used, (uint64_t) growth, memory_order_relaxed);
}

/* In the making of a chunk's new entries: the page is to have a slot, which is not known yet. */
#define SLOT_WANTED SLOT_LOST

/* Give the slots of the runs, in order, to those of n entries that want one, and gather the writes. */
static void
assign_slots (const struct slot_run *run, struct pagemap_entry *to, unsigned n, char *buf,
              struct slotio *io)
{
  uint32_t used = 0; /* of *run */

  for (unsigned i = 0; i < n; i++) {
    if (to[i].slot != SLOT_WANTED)
      continue;
    to[i].slot = run->first + used;
    slotio_add (io, to[i].slot, buf + (size_t) i * PAGE_BYTES);
    if (++used == run->n) {
      run++;
      used = 0;
    }
  }
}

/* => holds [page, page + n) exclusive; n is at most DRUM_BATCH.
 * -ENOSPC, and nothing changed, if the drum has no room for all n now: try fewer. */
static int
write_chunk (struct export *e, uint64_t page, unsigned n, const char *buf)
{
  struct pagemap_entry to[DRUM_BATCH];
  struct slot_run runs[DRUM_BATCH];
  unsigned nruns = 0, nnew = 0, nmove = 0;
  struct freerange fr;
  struct slotio io;
  int growth = 0;
  int ret;

  for (unsigned i = 0; i < n; i++) {
    const char *data = buf + (size_t) i * PAGE_BYTES;

    to[i] = (struct pagemap_entry){ .slot = SLOT_NONE };
    if (page_is_zero (data))
      continue;
    to[i] = (struct pagemap_entry){ .slot = SLOT_WANTED, .sum = page_sum (e, page + i, data) };
    *(has_slot (pagemap_get (e->map, page + i)) ? &nmove : &nnew) += 1;
  }
  if (nnew + nmove > 0) {
    ret = drum_alloc (e->drum, nnew, nmove, runs, &nruns);
    if (ret < 0)
      return ret;
    slotio_init (&io, e->drum, SLOTIO_WRITE);
    assign_slots (runs, to, n, (char *) buf, &io);
    ret = slotio_submit (&io);
    if (ret < 0) {
      drum_free (e->drum, runs, nruns, nmove);
      return ret == -ENOSPC ? -EIO : ret; /* -ENOSPC would say: try fewer */
    }
  }

  freerange_init (&fr, e->drum);
  for (unsigned i = 0; i < n; i++)
    growth += switch_page (e, page + i, to[i], &fr);
  freerange_flush (&fr);
  count_used (e, growth);
  return 0;
}

/* => holds [first, end) exclusive. When the drum is nearly full, chunks get smaller, down to a page. */
static int
write_pages (struct export *e, uint64_t first, uint64_t end, const char *buf)
{
  unsigned max = DRUM_BATCH;

  while (first < end) {
    unsigned n = end - first < max ? (unsigned) (end - first) : max;
    int ret = write_chunk (e, first, n, buf);

    if (ret == -ENOSPC && n > 1) {
      max = n / 2;
      continue;
    }
    if (ret < 0)
      return ret;
    first += n;
    buf += (size_t) n * PAGE_BYTES;
  }
  return 0;
}

/* => holds page exclusive. Change length bytes at offset of the page; buf NULL: to zeroes. */
static int
write_part (struct export *e, uint64_t page, uint32_t offset, uint32_t length, const char *buf)
{
  char data[PAGE_BYTES];
  int ret;

  if (!buf && pagemap_get (e->map, page).slot == SLOT_NONE)
    return 0;
  ret = read_chunk (e, page, 1, data);
  if (ret < 0)
    return ret;
  if (buf)
    memcpy (data + offset, buf, length);
  else
    memset (data + offset, 0, length);
  return write_chunk (e, page, 1, data);
}

int
export_write (struct export *e, const void *buf, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  struct rangelock_holder holder;
  const char *at = buf;
  int ret = 0;

  pagemap_prefetch (e->map, cut_start (&c));
  rangelock_lock (&e->ranges, &holder, cut_start (&c), cut_end (&c), true);
  if (c.head_bytes)
    ret = write_part (e, c.first - 1, c.head_offset, c.head_bytes, at);
  at += c.head_bytes;
  if (ret == 0)
    ret = write_pages (e, c.first, c.end, at);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = write_part (e, c.end, 0, c.tail_bytes, at);
  rangelock_unlock (&e->ranges, &holder);
  return ret;
}

/* => holds [first, end) exclusive. */
static void
clear_pages (struct export *e, uint64_t first, uint64_t end)
{
  struct pagemap_entry none = { .slot = SLOT_NONE };
  struct freerange fr;
  int growth = 0;

  freerange_init (&fr, e->drum);
  while ((first = pagemap_next (e->map, first, end)) < end)
    growth += switch_page (e, first++, none, &fr);
  freerange_flush (&fr);
  count_used (e, growth);
}

/* => holds no range. Clear whole pages, in pieces. */
static void
clear_range (struct export *e, uint64_t first, uint64_t end)
{
  while (first < end) {
    uint64_t piece_end = end - first < EXPORT_PIECE ? end : first + EXPORT_PIECE;
    struct rangelock_holder holder;

    rangelock_lock (&e->ranges, &holder, first, piece_end, true);
    clear_pages (e, first, piece_end);
    rangelock_unlock (&e->ranges, &holder);
    first = piece_end;
  }
}

int
export_trim (struct export *e, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);

  clear_range (e, c.first, c.end);
  return 0;
}

/* => holds no range. Zero a part of a page. */
static int
zero_part (struct export *e, uint64_t page, uint32_t offset, uint32_t length)
{
  struct rangelock_holder holder;
  int ret;

  rangelock_lock (&e->ranges, &holder, page, page + 1, true);
  ret = write_part (e, page, offset, length, NULL);
  rangelock_unlock (&e->ranges, &holder);
  return ret;
}

static bool
is_hole (const struct export *e, uint64_t page)
{
  return pagemap_get (e->map, page).slot == SLOT_NONE;
}

int
export_zero (struct export *e, uint64_t length, uint64_t offset, bool fast)
{
  struct cut c = cut_range (length, offset);
  int ret = 0;

  if (fast &&
      ((c.head_bytes && !is_hole (e, c.first - 1)) || (c.tail_bytes && !is_hole (e, c.end))))
    return -EOPNOTSUPP;
  if (c.head_bytes)
    ret = zero_part (e, c.first - 1, c.head_offset, c.head_bytes);
  if (ret == 0 && c.tail_bytes)
    ret = zero_part (e, c.end, 0, c.tail_bytes);
  if (ret == 0)
    clear_range (e, c.first, c.end);
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
  while ((page = pagemap_next (e->map, page, end)) < end && ret == 0) {
    struct slotio io;

    slotio_init (&io, e->drum, SLOTIO_READAHEAD);
    for (unsigned n = 0; n < DRUM_BATCH && page < end; n++, page++) {
      struct pagemap_entry entry = pagemap_get (e->map, page);

      if (has_slot (entry))
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
      page = pagemap_next (e->map, page, end);
    if (page >= end || is_hole (e, page) == data)
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
    bool data = !is_hole (e, page);
    uint64_t stop = extent_end (e, page + 1, end_page, data) << PAGE_SHIFT;

    if (stop > end)
      stop = end;
    ret = add (opaque, offset, stop - offset, data);
    offset = stop;
  }
  return ret;
}
