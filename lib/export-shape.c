/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export-shape.c - what looks at an export as a whole, or changes it: pages that are moved, checked, pass to another, and its size.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "drum.h"
#include "export-impl.h"
#include "freerange.h"
#include "log.h"
#include "mapfile.h"
#include "pagemap.h"
#include "state.h"

static int
flush_map (struct export *e)
{
  return e->pages.state ? state_sync_maps (e->pages.state) : 0;
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
  export_clear_range (e, 0, npages_of (e));
  export_promise_pages (e, &(struct room_promise){ .nsize = 0 }, false);
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

static int
refuse_size (const struct export *e, uint64_t npages, int ret)
{
  char text[16];

  log_error ("export \"%s\": can't be given the size of %s: %s%s", e->name,
             format_pages (npages, text), strerror (-ret),
             ret == -ENOMEM || ret == -EFBIG ? ": give a smaller size" : "");
  return ret;
}

/* => holds the shape. A larger size is promised before it is there, a smaller one afterwards. */
static int
resize (struct export *e, uint64_t npages)
{
  struct room_promise had = drum_promised (e->pages.drum, &e->pages.account), want = had;
  int ret;

  want.nsize = npages;
  if (npages < had.nreserved)
    return export_refuse_promise (e, "size", npages << PAGE_SHIFT, "reserve",
                                  had.nreserved << PAGE_SHIFT);
  ret = npages > had.nsize ? export_promise_pages (e, &want, false) : 0;
  if (ret < 0)
    return ret;
  ret = npages < npages_of (e) ? shrink (e, npages) : grow (e, npages);
  export_promise_pages (e, ret < 0 ? &had : &want, true);
  if (ret < 0)
    return refuse_size (e, npages, ret);
  export_check_memory (e->name, npages);
  atomic_store (&e->size_bytes, npages << PAGE_SHIFT);
  flush_map (e); /* if it fails, flushes fail from here on, and nobody relies on them */
  return 0;
}

/* => holds e->promising. Could the drum promise it? */
static int
try_promise_locked (struct export *e, uint64_t npages)
{
  struct room_promise had = drum_promised (e->pages.drum, &e->pages.account), want = had;
  int ret;

  mutex_assert_held (&e->promising);
  want.nsize = npages;
  ret = export_promise_pages (e, &want, false);
  if (ret == 0)
    export_promise_pages (e, &had, true);
  return ret;
}

int
export_prepare_resize (struct export *e, uint64_t size_bytes)
{
  uint64_t reserve = export_reserve_bytes (e);
  struct pagemap *map;
  int ret;

  if (size_bytes == 0 || size_bytes % PAGE_BYTES) {
    log_error ("export \"%s\": %" PRIu64 " is not a multiple of %u bytes above 0", e->name,
               size_bytes, PAGE_BYTES);
    return -EINVAL;
  }
  if (size_bytes < reserve)
    return export_refuse_promise (e, "size", size_bytes, "reserve", reserve);
  mutex_lock (&e->promising);
  ret = try_promise_locked (e, size_bytes >> PAGE_SHIFT);
  mutex_unlock (&e->promising);
  if (ret < 0)
    return ret;
  ret = pagemap_create (size_bytes >> PAGE_SHIFT, &map); /* takes addresses, and no memory */
  if (ret < 0)
    return refuse_size (e, size_bytes >> PAGE_SHIFT, ret);
  pagemap_destroy (map);
  return 0;
}

int
export_resize (struct export *e, uint64_t size_bytes)
{
  struct rangelock_holder shape;
  int ret;

  if (size_bytes == 0 || size_bytes % PAGE_BYTES)
    return -EINVAL;
  mutex_lock (&e->promising);
  lock_shape (e, &shape, true);
  ret = resize (e, size_bytes >> PAGE_SHIFT);
  unlock_shape (e, &shape);
  mutex_unlock (&e->promising);
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
  else {
    uuid_clear (from->swap_uuid); /* whose pages come now, nobody knows */
    uuid_clear (to->swap_uuid);
  }
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
