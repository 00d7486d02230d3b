/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export.c - see export.h.
 *
 * A request is cut into the whole pages in its middle and at most two parts of pages at its ends, all locked at once; what is
 * done with them is pages.c's.
 */
#include <config.h>

#include "export-impl.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "drum.h"
#include "log.h"
#include "mapfile.h"
#include "pagemap.h"
#include "pages.h"
#include "pagesum.h"
#include "rangelock.h"
#include "readahead.h"
#include "slotio.h"
#include "state.h"
#include "stats.h"
#include "swaphdr.h"
#include "units.h"

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

static int
copy_name (const char *from, char **to)
{
  *to = from ? strdup (from) : NULL;
  return from && !*to ? -ENOMEM : 0;
}

static int
copy_names (struct export *e, const struct export_config *config)
{
  int ret = copy_name (config->name, &e->name);

  if (ret == 0)
    ret = copy_name (config->pattern, &e->pattern);
  return ret < 0 ? ret : copy_name (config->given, &e->given);
}

static void
free_names (struct export *e)
{
  free (e->name);
  free (e->pattern);
  free (e->given);
}

/* FreeBSD's swapon_check_swzone. */
void
export_check_memory (const char *name, uint64_t npages)
{
  struct sysinfo info;
  char map_text[16], ram_text[16];

  if (sysinfo (&info) == 0 && pagemap_bytes (npages) > (uint64_t) info.totalram * info.mem_unit / 2)
    log_warning ("export \"%s\": its page map may come to take %s of the %s of memory here: give a "
                 "smaller size=",
                 name, format_bytes (pagemap_bytes (npages), map_text),
                 format_bytes ((uint64_t) info.totalram * info.mem_unit, ram_text));
}

int
export_create (struct drum *d, const struct export_config *config, struct export **ep)
{
  uint64_t npages = config->size_bytes >> PAGE_SHIFT;
  struct export *e;
  int ret;

  if (config->size_bytes == 0 || config->size_bytes % PAGE_BYTES)
    return -EINVAL;
  e = aligned_alloc (_Alignof(struct export), sizeof *e);
  if (!e)
    return -ENOMEM;
  memset (e, 0, sizeof *e);
  ret = copy_names (e, config);
  if (ret == 0)
    ret = pagemap_create (npages, &e->pages.map);
  if (ret < 0) {
    free_names (e);
    free (e);
    return ret;
  }
  e->nusers = 1;
  e->number = config->number;
  e->left_ns = (int64_t) (now_ns () - config->idle_ns);
  e->terms.weight = EXPORT_WEIGHT_DEFAULT;
  mutex_init (&e->mutex);
  mutex_init (&e->promising);
  rangelock_init (&e->ranges);
  e->size_bytes = config->size_bytes;
  e->readahead_npages = config->readahead_bytes >> PAGE_SHIFT;
  e->reset_on_mkswap = config->reset_on_mkswap;
  e->pages.drum = d;
  flow_init (&e->pages.flow);
  e->pages.export = e->name;
  e->pages.checksum = config->checksum;
  e->pages.file = config->file;
  e->pages.state = config->state;
  e->pages.key = pagesum_export_key (config->name);
  e->pages.account.name = e->name;
  ret = export_promise_pages (e, &(struct room_promise){ .nsize = npages }, false);
  if (ret < 0) {
    e->pages.file = NULL; /* still the caller's */
    export_destroy (e);
    return ret;
  }
  export_check_memory (e->name, npages);
  *ep = e;
  return 0;
}

void
export_destroy (struct export *e)
{
  export_promise_pages (e, &(struct room_promise){ .nsize = 0 }, false);
  if (e->pages.file)
    mapfile_close (e->pages.file);
  pagemap_destroy (e->pages.map);
  rangelock_destroy (&e->ranges);
  mutex_destroy (&e->promising);
  mutex_destroy (&e->mutex);
  free_names (e);
  free (e);
}

void
export_hold (struct export *e)
{
  atomic_fetch_add (&e->nusers, 1);
}

void
export_release (struct export *e)
{
  if (atomic_fetch_sub (&e->nusers, 1) == 1)
    export_destroy (e);
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
  return atomic_load_explicit (&e->size_bytes, memory_order_relaxed);
}

bool
export_has_checksums (const struct export *e)
{
  return e->pages.checksum;
}

uint64_t
export_npages_used (const struct export *e)
{
  return atomic_load_explicit (&e->pages.account.nused, memory_order_relaxed);
}

uint64_t
export_number (const struct export *e)
{
  return e->number;
}

const char *
export_pattern (const struct export *e)
{
  return e->pattern;
}

const char *
export_given (const struct export *e)
{
  return e->given;
}

void
export_get_plan (struct export *e, struct export_plan *plan)
{
  mutex_lock (&e->mutex);
  *plan = e->plan;
  mutex_unlock (&e->mutex);
}

void
export_set_plan (struct export *e, struct export_plan plan)
{
  mutex_lock (&e->mutex);
  e->plan = plan;
  mutex_unlock (&e->mutex);
}

void
export_count_client (struct export *e, int change)
{
  if (change < 0)
    atomic_store (&e->left_ns, (int64_t) now_ns ());
  atomic_fetch_add (&e->nclients, change);
}

uint64_t
export_last_ns (const struct export *e)
{
  uint64_t last = 0;

  for (enum export_op op = 0; op < EXPORT_NOPS; op++) {
    uint64_t ns = atomic_load_explicit (&e->stats[op].last_ns, memory_order_relaxed);

    last = ns > last ? ns : last;
  }
  return last;
}

uint64_t
export_idle_ns (const struct export *e, uint64_t now)
{
  int64_t last = (int64_t) export_last_ns (e), left = atomic_load (&e->left_ns);

  last = last == 0 || left > last
           ? left
           : last; /* left is negative where it was idle for longer than the machine is up */
  return export_nclients (e) > 0 || last > (int64_t) now ? 0 : now - (uint64_t) last;
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
  drum_claim_account (e->pages.drum, &e->pages.account,
                      pagemap_has_slot (entry) - pagemap_has_slot (from));
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
finish_write (struct export *e, int ret, uint64_t *known_ns)
{
  if (ret < 0 || !e->pages.state || !state_syncs_writes (e->pages.state))
    return ret;
  *known_ns = 0;
  return export_flush (e);
}

/* A request begins: returns when. What it looks at first comes from memory meanwhile. */
static uint64_t
begin (struct export *e, enum export_op op, const struct cut *c)
{
  pagemap_prefetch (e->pages.map, cut_start (c));
  stats_begin (&e->stats[op]);
  return now_ns ();
}

int
export_read (struct export *e, void *buf, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns = begin (e, EXPORT_READ, &c), known_ns;
  struct rangelock_holder holder;
  char *at = buf;
  int ret = 0;

  if (rangelock_lock (&e->ranges, &holder, cut_start (&c), cut_end (&c), false))
    known_ns = 0;
  else
    known_ns = begin_ns;
  if (c.head_bytes)
    ret = pages_read_part (&e->pages, c.first - 1, c.head_offset, c.head_bytes, at, &known_ns);
  at += c.head_bytes;
  if (ret == 0)
    ret = pages_read (&e->pages, c.first, c.end, at, &known_ns);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = pages_read_part (&e->pages, c.end, 0, c.tail_bytes, at, &known_ns);
  if (ret == 0 && e->readahead_npages > 0) {
    known_ns = 0;
    readahead_around (e->pages.drum, e->pages.map, cut_start (&c), cut_end (&c), npages_of (e),
                      e->readahead_npages);
  }
  rangelock_unlock (&e->ranges, &holder);
  stats_end (&e->stats[EXPORT_READ], begin_ns, current_ns (&known_ns), length, ret);
  return ret;
}

/* => holds page 0. The UUID of the swap header in it; null if there is none. */
static void
read_swap_uuid (struct export *e, uuid_t uuid)
{
  uint64_t known_ns = 0;
  char page[PAGE_BYTES];
  struct swaphdr h;

  uuid_clear (uuid);
  if (pages_read (&e->pages, 0, 1, page, &known_ns) == 0 && swaphdr_parse (page, sizeof page, &h))
    uuid_copy (uuid, h.uuid);
}

/* => holds page 0 exclusive, and is about to change it. mkswap may take several writes for its header, and between them nothing may
 * be left of the last one: so remember whose it was. */
static void
note_swap_area (struct export *e)
{
  uuid_t uuid;

  if (!e->reset_on_mkswap)
    return;
  read_swap_uuid (e, uuid);
  if (!uuid_is_null (uuid))
    uuid_copy (e->swap_uuid, uuid);
}

/* => holds all pages exclusive, and has written those up to end. Has page 0 the header of another swap area now? Then the other
 * pages are dead. A host that resumes from hibernation writes the header that it had; and where no header is known, nobody knows
 * whose pages they are. */
static int
end_swap_area (struct export *e, uint64_t end)
{
  uuid_t uuid;

  read_swap_uuid (e, uuid);
  if (uuid_is_null (uuid) || uuid_is_null (e->swap_uuid) || uuid_compare (uuid, e->swap_uuid) == 0)
    return 0;
  log_notice ("export \"%s\": has a new swap header: the pages of the old swap area are freed",
              e->name);
  return pages_clear (&e->pages, end, npages_of (e));
}

int
export_write (struct export *e, const void *buf, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns = begin (e, EXPORT_WRITE, &c), known_ns = 0;
  struct rangelock_holder holder;
  bool may_reset = e->reset_on_mkswap && cut_start (&c) == 0;
  const char *at = buf;
  int ret = 0;

  rangelock_lock (&e->ranges, &holder, cut_start (&c), may_reset ? npages_of (e) : cut_end (&c),
                  true);
  if (may_reset)
    note_swap_area (e);
  if (c.head_bytes)
    ret = pages_write_part (&e->pages, c.first - 1, c.head_offset, c.head_bytes, at, &known_ns);
  at += c.head_bytes;
  if (ret == 0)
    ret = pages_write (&e->pages, c.first, c.end, at, &known_ns);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = pages_write_part (&e->pages, c.end, 0, c.tail_bytes, at, &known_ns);
  if (ret == 0 && may_reset) {
    known_ns = 0;
    ret = end_swap_area (e, cut_end (&c));
  }
  rangelock_unlock (&e->ranges, &holder);
  ret = finish_write (e, ret, &known_ns);
  stats_end (&e->stats[EXPORT_WRITE], begin_ns, current_ns (&known_ns), length, ret);
  return ret;
}

int
export_format (struct export *e)
{
  struct swaphdr h = { .page_bytes = PAGE_BYTES };
  uint64_t npages = npages_of (e), known_ns = 0;
  struct rangelock_holder holder;
  char page[PAGE_BYTES];
  int ret;

  if (npages < SWAPHDR_MIN_PAGES)
    return -EINVAL;
  h.last_page = swaphdr_last_page (npages);
  swaphdr_uuid_for (e->name, h.uuid);
  swaphdr_build (page, &h);
  rangelock_lock (&e->ranges, &holder, 0, 1, true);
  ret = pages_write (&e->pages, 0, 1, page, &known_ns);
  rangelock_unlock (&e->ranges, &holder);
  return finish_write (e, ret, &known_ns);
}

/* => holds no range. Clear whole pages, in pieces. */
int
export_clear_range (struct export *e, uint64_t first, uint64_t end)
{
  int ret = 0;

  while (first < end && ret == 0) {
    uint64_t piece_end = end - first < EXPORT_PIECE ? end : first + EXPORT_PIECE;
    struct rangelock_holder holder;

    rangelock_lock (&e->ranges, &holder, first, piece_end, true);
    if (first == 0)
      note_swap_area (e);
    ret = pages_clear (&e->pages, first, piece_end);
    rangelock_unlock (&e->ranges, &holder);
    first = piece_end;
  }
  return ret;
}

int
export_trim (struct export *e, uint64_t length, uint64_t offset)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns = begin (e, EXPORT_TRIM, &c);
  int ret = export_clear_range (e, c.first, c.end);

  stats_end (&e->stats[EXPORT_TRIM], begin_ns, now_ns (), length, ret);
  return ret;
}

/* => holds no range. Zero a part of a page. */
static int
zero_part (struct export *e, uint64_t page, uint32_t offset, uint32_t length)
{
  struct rangelock_holder holder;
  uint64_t known_ns = 0;
  int ret;

  rangelock_lock (&e->ranges, &holder, page, page + 1, true);
  if (page == 0)
    note_swap_area (e);
  ret = pages_write_part (&e->pages, page, offset, length, NULL, &known_ns);
  rangelock_unlock (&e->ranges, &holder);
  return ret;
}

int
export_zero (struct export *e, uint64_t length, uint64_t offset, bool fast)
{
  struct cut c = cut_range (length, offset);
  uint64_t begin_ns, known_ns = 0;
  int ret = 0;

  if (fast && ((c.head_bytes && !pages_is_hole (&e->pages, c.first - 1)) ||
               (c.tail_bytes && !pages_is_hole (&e->pages, c.end))))
    return -EOPNOTSUPP;
  begin_ns = begin (e, EXPORT_ZERO, &c);
  if (c.head_bytes)
    ret = zero_part (e, c.first - 1, c.head_offset, c.head_bytes);
  if (ret == 0 && c.tail_bytes)
    ret = zero_part (e, c.end, 0, c.tail_bytes);
  if (ret == 0)
    ret = export_clear_range (e, c.first, c.end);
  ret = finish_write (e, ret, &known_ns);
  stats_end (&e->stats[EXPORT_ZERO], begin_ns, now_ns (), length, ret);
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
