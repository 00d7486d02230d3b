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
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "drum.h"
#include "freerange.h"
#include "log.h"
#include "mapfile.h"
#include "mutex.h"
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

/* A page that no export has. Whoever walks the map, and does not know where that will lead, has it locked shared, before any range of pages;
 * whoever changes the size, or lets pages pass, exclusive. */
#define SHAPE (UINT64_MAX - 1)

struct export
{
  struct pages pages;
  struct rangelock ranges;
  _Atomic unsigned nusers; /* export_hold */
  char *name, *pattern, *given;
  _Atomic uint64_t size_bytes; /* changed under SHAPE */
  uint64_t number;
  uint32_t readahead_npages;
  bool reset_on_mkswap;
  uuid_t swap_uuid; /* that page 0, whose lock guards it, had last; null: none is known */
  _Atomic int nclients;
  _Atomic int64_t left_ns;   /* when it was made, or a client went */
  struct mutex mutex;        /* all below; a leaf */
  struct export_terms terms; /* reserve and limit are the account's */
  struct export_plan plan;
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
static void
check_memory (const char *name, uint64_t npages)
{
  struct sysinfo info;
  char map_text[16], ram_text[16];

  if (sysinfo (&info) == 0 && pagemap_bytes (npages) > (uint64_t) info.totalram * info.mem_unit / 2)
    log_warning ("export \"%s\": its page map may come to take %s of the %s of memory here: give a "
                 "smaller size=",
                 name, format_bytes (pagemap_bytes (npages), map_text),
                 format_bytes ((uint64_t) info.totalram * info.mem_unit, ram_text));
}

static const char *
format_pages (uint64_t npages, char text[16])
{
  return format_bytes (npages * PAGE_BYTES, text);
}

/* The drum can't promise what is wanted. */
static void
say_shortage (const struct export *e, const struct room_promise *want,
              const struct room_shortage *shortage)
{
  static const char *const what[] = {
    [ROOM_OF_RESERVES] = "all reserves",
    [ROOM_OF_PROMISED] = "what is reserved and not used",
    [ROOM_OF_SIZES] = "all sizes",
  };
  bool size = shortage->of == ROOM_OF_SIZES;
  char text[3][16];

  log_error (
    "export \"%s\": %s of %s: %s would come to %s, and the drum has %s%s%s: add a device, or give "
    "less",
    e->name, size ? "a size" : "a reserve",
    format_pages (size ? want->nsize : want->nreserved, text[0]), what[shortage->of],
    format_pages (shortage->npages, text[1]), format_pages (shortage->nslots, text[2]),
    shortage->of == ROOM_OF_PROMISED ? " free" : "", size ? " (overcommit=no)" : "");
}

/* Says if that can't be. */
static int
promise (struct export *e, const struct room_promise *want, bool force)
{
  struct room_shortage shortage;
  int ret = drum_promise (e->pages.drum, &e->pages.account, want, force, &shortage);

  if (ret < 0)
    say_shortage (e, want, &shortage);
  return ret;
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
  ret = promise (e, &(struct room_promise){ .nsize = npages }, false);
  if (ret < 0) {
    e->pages.file = NULL; /* still the caller's */
    export_destroy (e);
    return ret;
  }
  check_memory (e->name, npages);
  *ep = e;
  return 0;
}

void
export_destroy (struct export *e)
{
  promise (e, &(struct room_promise){ .nsize = 0 }, false);
  if (e->pages.file)
    mapfile_close (e->pages.file);
  pagemap_destroy (e->pages.map);
  rangelock_destroy (&e->ranges);
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

static uint64_t
npages_of (const struct export *e)
{
  return export_size_bytes (e) >> PAGE_SHIFT;
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
export_reserve_bytes (const struct export *e)
{
  return drum_promised (e->pages.drum, &e->pages.account).nreserved << PAGE_SHIFT;
}

uint64_t
export_limit_bytes (const struct export *e)
{
  return drum_promised (e->pages.drum, &e->pages.account).nlimit << PAGE_SHIFT;
}

static int
refuse_promise (const struct export *e, const char *what, uint64_t bytes, const char *than,
                uint64_t than_bytes)
{
  char text[2][16];

  log_error ("export \"%s\": a %s of %s is less than its %s of %s", e->name, what,
             format_bytes (bytes, text[0]), than, format_bytes (than_bytes, text[1]));
  return -EINVAL;
}

int
export_promise (struct export *e, uint64_t reserve_bytes, uint64_t limit_bytes, bool force)
{
  struct room_promise want = { .nsize = npages_of (e),
                               .nreserved = reserve_bytes >> PAGE_SHIFT,
                               .nlimit = limit_bytes >> PAGE_SHIFT };

  if (reserve_bytes % PAGE_BYTES || limit_bytes % PAGE_BYTES) {
    log_error ("export \"%s\": reserve and limit have to be multiples of %u bytes", e->name,
               PAGE_BYTES);
    return -EINVAL;
  }
  if (reserve_bytes > e->size_bytes)
    return refuse_promise (e, "size", e->size_bytes, "reserve", reserve_bytes);
  if (limit_bytes && limit_bytes < reserve_bytes)
    return refuse_promise (e, "limit", limit_bytes, "reserve", reserve_bytes);
  return promise (e, &want, force);
}

/* Pages of the range that have no slot, as it is now. */
static uint64_t
count_holes (const struct export *e, uint64_t page, uint64_t end)
{
  uint64_t n = end - page;

  for (; (page = pagemap_next (e->pages.map, page, end)) < end; page++)
    n -= pagemap_has_slot (pagemap_get (e->pages.map, page));
  return n;
}

int
export_fill (struct export *e, uint64_t length, uint64_t offset, uint64_t *reserve_bytes)
{
  uint64_t had = export_reserve_bytes (e), limit = export_limit_bytes (e), want;
  struct cut c = cut_range (length, offset);
  char text[2][16];
  int ret;

  if (length > e->size_bytes || offset > e->size_bytes - length) {
    log_error ("export \"%s\": has no %s at %s: its size is %" PRIu64 " bytes", e->name,
               format_bytes (length, text[0]), format_bytes (offset, text[1]), e->size_bytes);
    return -EINVAL;
  }
  /* In this order a page that is written meanwhile counts at least once. */
  want = count_holes (e, cut_start (&c), cut_end (&c)) << PAGE_SHIFT;
  want += export_npages_used (e) << PAGE_SHIFT;
  want = want > e->size_bytes ? e->size_bytes : want < had ? had : want;
  if (limit && want > limit) {
    log_error ("export \"%s\": filling that takes a reserve of %s, and its limit is %s: give a "
               "higher limit",
               e->name, format_bytes (want, text[0]), format_bytes (limit, text[1]));
    return -ENOSPC;
  }
  ret = export_promise (e, want, limit, false);
  if (ret == 0)
    *reserve_bytes = want;
  return ret;
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
export_get_terms (struct export *e, struct export_terms *terms)
{
  struct room_promise promise = drum_promised (e->pages.drum, &e->pages.account);

  mutex_lock (&e->mutex);
  *terms = e->terms;
  mutex_unlock (&e->mutex);
  terms->reserve_bytes = promise.nreserved << PAGE_SHIFT;
  terms->limit_bytes = promise.nlimit << PAGE_SHIFT;
}

int
export_set_terms (struct export *e, const struct export_terms *terms, bool force)
{
  int ret = export_promise (e, terms->reserve_bytes, terms->limit_bytes, force);

  if (ret < 0)
    return ret;
  mutex_lock (&e->mutex);
  e->terms = *terms;
  export_set_share (e, terms->weight, terms->iops, terms->bandwidth);
  mutex_unlock (&e->mutex);
  return 0;
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

  last = left > last ? left : last;
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

static int
flush_map (struct export *e)
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
  if (ret == 0 && e->readahead_npages > 0)
    readahead_around (e->pages.drum, e->pages.map, cut_start (&c), cut_end (&c), npages_of (e),
                      e->readahead_npages);
  rangelock_unlock (&e->ranges, &holder);
  stats_end (&e->stats[EXPORT_READ], begin_ns, length, ret);
  return ret;
}

/* => holds page 0. The UUID of the swap header in it; null if there is none. */
static void
read_swap_uuid (struct export *e, uuid_t uuid)
{
  char page[PAGE_BYTES];
  struct swaphdr h;

  uuid_clear (uuid);
  if (pages_read (&e->pages, 0, 1, page) == 0 && swaphdr_parse (page, sizeof page, &h))
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
  uint64_t begin_ns = stats_begin (&e->stats[EXPORT_WRITE]);
  struct rangelock_holder holder;
  bool may_reset = e->reset_on_mkswap && cut_start (&c) == 0;
  const char *at = buf;
  int ret = 0;

  pagemap_prefetch (e->pages.map, cut_start (&c));
  rangelock_lock (&e->ranges, &holder, cut_start (&c), may_reset ? npages_of (e) : cut_end (&c),
                  true);
  if (may_reset)
    note_swap_area (e);
  if (c.head_bytes)
    ret = pages_write_part (&e->pages, c.first - 1, c.head_offset, c.head_bytes, at);
  at += c.head_bytes;
  if (ret == 0)
    ret = pages_write (&e->pages, c.first, c.end, at);
  at += (c.end - c.first) * PAGE_BYTES;
  if (ret == 0 && c.tail_bytes)
    ret = pages_write_part (&e->pages, c.end, 0, c.tail_bytes, at);
  if (ret == 0 && may_reset)
    ret = end_swap_area (e, cut_end (&c));
  rangelock_unlock (&e->ranges, &holder);
  ret = finish_write (e, ret);
  stats_end (&e->stats[EXPORT_WRITE], begin_ns, length, ret);
  return ret;
}

int
export_format (struct export *e)
{
  struct swaphdr h = { .page_bytes = PAGE_BYTES };
  uint64_t npages = npages_of (e);
  struct rangelock_holder holder;
  char page[PAGE_BYTES];
  int ret;

  if (npages < SWAPHDR_MIN_PAGES)
    return -EINVAL;
  h.last_page = swaphdr_last_page (npages);
  swaphdr_uuid_for (e->name, h.uuid);
  swaphdr_build (page, &h);
  rangelock_lock (&e->ranges, &holder, 0, 1, true);
  ret = pages_write (&e->pages, 0, 1, page);
  rangelock_unlock (&e->ranges, &holder);
  return finish_write (e, ret);
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
  uint64_t begin_ns = stats_begin (&e->stats[EXPORT_TRIM]);
  struct cut c = cut_range (length, offset);
  int ret = clear_range (e, c.first, c.end);
  stats_end (&e->stats[EXPORT_TRIM], begin_ns, length, ret);
  return ret;
}

static void
lock_shape (struct export *e, struct rangelock_holder *holder, bool exclusive)
{
  rangelock_lock (&e->ranges, holder, SHAPE, SHAPE + 1, exclusive);
}

static void
unlock_shape (struct export *e, struct rangelock_holder *holder)
{
  rangelock_unlock (&e->ranges, holder);
}

void
export_clear (struct export *e)
{
  struct rangelock_holder shape;

  lock_shape (e, &shape, true);
  if (e->pages.file)
    mapfile_close (e->pages.file);
  e->pages.file = NULL;
  unlock_shape (e, &shape);
  clear_range (e, 0, npages_of (e));
  promise (e, &(struct room_promise){ .nsize = 0 }, false);
}

/* => holds no range. Zero a part of a page. */
static int
zero_part (struct export *e, uint64_t page, uint32_t offset, uint32_t length)
{
  struct rangelock_holder holder;
  int ret;

  rangelock_lock (&e->ranges, &holder, page, page + 1, true);
  if (page == 0)
    note_swap_area (e);
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

/* => holds the shape. The next piece from page on, of at most npages: it begins with a page in [first_slot, end_slot). False: as far as was looked, up
 * to *end, there is none. */
static bool
find_piece (const struct export *e, uint64_t page, unsigned npages, uint32_t first_slot,
            uint32_t end_slot, uint64_t *first, uint64_t *end)
{
  uint64_t export_end = npages_of (e), search_end;

  page = page < export_end ? page : export_end; /* it may have shrunk */
  search_end = export_end - page < EXPORT_SEARCH ? export_end : page + EXPORT_SEARCH;
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
  return end == npages_of (e) ? UINT64_MAX : end;
}

int
export_move (struct export *e, uint64_t *page, unsigned npages, const struct pages_move *move)
{
  struct rangelock_holder shape, holder;
  struct freerange freed;
  uint64_t first, end;
  int ret = 0;

  lock_shape (e, &shape, false);
  if (find_piece (e, *page, npages, move->first_slot, move->end_slot, &first, &end)) {
    rangelock_lock (&e->ranges, &holder, first, end, true);
    ret = pages_move (&e->pages, first, end, move, &freed);
    rangelock_unlock (&e->ranges, &holder);
    if (freed.nruns > 0 && e->pages.state)
      state_sync (e->pages.state); /* if it fails: see pages_move */
    freerange_flush (&freed);
  }
  *page = ret == -ENOSPC ? first : behind_piece (e, end);
  unlock_shape (e, &shape);
  return ret;
}

unsigned
export_check (struct export *e, uint64_t *page, unsigned npages, const struct pages_check *check)
{
  struct rangelock_holder shape, holder;
  uint64_t first, end;
  unsigned nread = 0;

  lock_shape (e, &shape, false);
  if (find_piece (e, *page, npages, check->first_slot, check->end_slot, &first, &end)) {
    rangelock_lock (&e->ranges, &holder, first, end, false);
    nread = pages_check (&e->pages, first, end, check);
    rangelock_unlock (&e->ranges, &holder);
  }
  *page = behind_piece (e, end);
  unlock_shape (e, &shape);
  return nread;
}

/* => holds the shape. */
static int
grow (struct export *e, uint64_t npages)
{
  int ret = pagemap_resize (e->pages.map, npages);

  if (ret == 0 && e->pages.file) {
    ret = mapfile_resize (e->pages.file, npages);
    if (ret < 0)
      pagemap_resize (e->pages.map, npages_of (e));
  }
  return ret;
}

/* => holds the shape. The file first: where that fails nothing has changed. */
static int
shrink (struct export *e, uint64_t npages)
{
  int ret = e->pages.file ? mapfile_resize (e->pages.file, npages) : 0;

  if (ret == 0) {
    pages_drop (&e->pages, npages, npages_of (e));
    pagemap_resize (e->pages.map, npages);
  }
  return ret;
}

/* => holds the shape. A larger size is promised before it is there, a smaller one afterwards. */
static int
resize (struct export *e, uint64_t npages)
{
  struct room_promise had = drum_promised (e->pages.drum, &e->pages.account), want = had;
  char text[16];
  int ret;

  want.nsize = npages;
  if (npages < had.nreserved)
    return refuse_promise (e, "size", npages << PAGE_SHIFT, "reserve", had.nreserved << PAGE_SHIFT);
  ret = npages > had.nsize ? promise (e, &want, false) : 0;
  if (ret < 0)
    return ret;
  ret = npages < npages_of (e) ? shrink (e, npages) : grow (e, npages);
  promise (e, ret < 0 ? &had : &want, true);
  if (ret < 0) {
    log_error ("export \"%s\": can't be given the size of %s: %s", e->name,
               format_pages (npages, text), strerror (-ret));
    return ret;
  }
  check_memory (e->name, npages);
  atomic_store (&e->size_bytes, npages << PAGE_SHIFT);
  flush_map (e); /* if it fails, flushes fail from here on, and nobody relies on them */
  return 0;
}

int
export_resize (struct export *e, uint64_t size_bytes)
{
  struct rangelock_holder shape;
  int ret;

  if (size_bytes == 0 || size_bytes % PAGE_BYTES)
    return -EINVAL;
  lock_shape (e, &shape, true);
  ret = resize (e, size_bytes >> PAGE_SHIFT);
  unlock_shape (e, &shape);
  return ret;
}

static bool
has_pages_behind (const struct export *e, uint64_t page)
{
  uint64_t end = npages_of (e);

  while ((page = pagemap_next (e->pages.map, page, end)) < end && pages_is_hole (&e->pages, page))
    page++;
  return page < end;
}

/* Why can't pages pass? */
static int
refuse_pass (const struct export *from, const struct export *to, int ret, const char *why)
{
  log_error ("export \"%s\": its pages can't pass to \"%s\": %s", from->name, to->name, why);
  return ret;
}

static int
refuse_pages (const struct export *from, const struct export *to,
              const struct room_shortage *shortage)
{
  bool limit = shortage->of == ROOM_OF_LIMIT;
  char text[2][16], why[160];

  snprintf (why, sizeof why, "%s would come to %s, and %s %s%s",
            limit ? "that one" : "what is reserved and not used",
            format_pages (shortage->npages, text[0]), limit ? "its limit is" : "the drum has",
            format_pages (shortage->nslots, text[1]), limit ? "" : " free");
  return refuse_pass (from, to, -ENOSPC, why);
}

/* => from is at most as large as to, or has nothing beyond. */
static uint64_t
npages_of_both (const struct export *from, const struct export *to)
{
  return npages_of (from) < npages_of (to) ? npages_of (from) : npages_of (to);
}

static uint64_t
npassing (const struct export *from, const struct export *to)
{
  return pages_npassing (&from->pages, &to->pages, npages_of_both (from, to));
}

int
export_prepare_pass (struct export *from, struct export *to)
{
  struct room_shortage shortage;
  int ret;

  if (from == to)
    return refuse_pass (from, to, -EINVAL, "it is the same");
  if (from->pages.checksum != to->pages.checksum)
    return refuse_pass (from, to, -EINVAL, "one has checksums, and the other has none");
  if (has_pages_behind (from, npages_of (to)))
    return refuse_pass (from, to, -EFBIG, "some lie beyond its end: resize it first");
  if (drum_may_pass (from->pages.drum, &from->pages.account, &to->pages.account,
                     npassing (from, to), &shortage) < 0)
    return refuse_pages (from, to, &shortage);
  ret = flush_map (from);
  return ret < 0 ? refuse_pass (from, to, ret, "the page maps can't be made durable") : 0;
}

/* => holds both shapes. */
static int
pass (struct export *from, struct export *to)
{
  struct drum *d = from->pages.drum;
  struct room_account *out = &from->pages.account, *in = &to->pages.account;
  struct room_shortage shortage;
  uint64_t n = npassing (from, to);
  int ret;

  if (drum_pass_account (d, out, in, n, false, &shortage) < 0)
    return refuse_pages (from, to, &shortage);
  ret = pages_pass (&from->pages, &to->pages, npages_of_both (from, to));
  if (ret < 0)
    drum_pass_account (d, in, out, n, true, &shortage);
  return ret;
}

int
export_pass (struct export *from, struct export *to)
{
  struct export *first = from < to ? from : to, *second = from < to ? to : from;
  struct rangelock_holder shape[2];
  int ret = export_prepare_pass (from, to);

  if (ret < 0)
    return ret;
  lock_shape (first, &shape[0], true);
  lock_shape (second, &shape[1], true);
  ret = pass (from, to);
  unlock_shape (second, &shape[1]);
  unlock_shape (first, &shape[0]);
  return ret;
}
