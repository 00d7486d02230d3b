/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export-terms.c - what an export is promised, and what it may have.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>

#include "drum.h"
#include "export-impl.h"
#include "log.h"
#include "pagemap.h"

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
int
export_promise_pages (struct export *e, const struct room_promise *want, bool force)
{
  struct room_shortage shortage;
  int ret = drum_promise (e->pages.drum, &e->pages.account, want, force, &shortage);

  if (ret < 0)
    say_shortage (e, want, &shortage);
  return ret;
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

int
export_refuse_promise (const struct export *e, const char *what, uint64_t bytes, const char *than,
                       uint64_t than_bytes)
{
  char text[2][16];

  log_error ("export \"%s\": a %s of %s is less than its %s of %s", e->name, what,
             format_bytes (bytes, text[0]), than, format_bytes (than_bytes, text[1]));
  return -EINVAL;
}

/* => holds e->promising. */
static int
set_promise_locked (struct export *e, uint64_t reserve_bytes, uint64_t limit_bytes, bool force)
{
  struct room_promise want = { .nsize = npages_of (e),
                               .nreserved = reserve_bytes >> PAGE_SHIFT,
                               .nlimit = limit_bytes >> PAGE_SHIFT };

  mutex_assert_held (&e->promising);
  if (force && want.nreserved > want.nsize) { /* it shrank when the server was killed, say */
    log_warning ("export \"%s\": its reserve is as small as its size now", e->name);
    want.nreserved = want.nsize;
  }
  if (force)
    return export_promise_pages (e, &want, true);
  if (reserve_bytes % PAGE_BYTES || limit_bytes % PAGE_BYTES) {
    log_error ("export \"%s\": reserve and limit have to be multiples of %u bytes", e->name,
               PAGE_BYTES);
    return -EINVAL;
  }
  if (reserve_bytes > e->size_bytes)
    return export_refuse_promise (e, "size", e->size_bytes, "reserve", reserve_bytes);
  if (limit_bytes && limit_bytes < reserve_bytes)
    return export_refuse_promise (e, "limit", limit_bytes, "reserve", reserve_bytes);
  return export_promise_pages (e, &want, false);
}

int
export_promise (struct export *e, uint64_t reserve_bytes, uint64_t limit_bytes, bool force)
{
  int ret;

  mutex_lock (&e->promising);
  ret = set_promise_locked (e, reserve_bytes, limit_bytes, force);
  mutex_unlock (&e->promising);
  return ret;
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

/* => holds e->promising. */
static int
fill_locked (struct export *e, uint64_t length, uint64_t offset, uint64_t *reserve_bytes)
{
  uint64_t had = export_reserve_bytes (e), limit = export_limit_bytes (e), want;
  uint64_t first = offset >> PAGE_SHIFT, end = (offset + length + PAGE_BYTES - 1) >> PAGE_SHIFT;
  char text[2][16];
  int ret;

  if (offset > e->size_bytes) {
    log_error ("export \"%s\": %s is behind its end: its size is %s", e->name,
               format_bytes (offset, text[0]), format_bytes (e->size_bytes, text[1]));
    return -EINVAL;
  }
  if (length > e->size_bytes || offset > e->size_bytes - length) {
    log_error ("export \"%s\": has no %s at %s: its size is %" PRIu64 " bytes", e->name,
               format_bytes (length, text[0]), format_bytes (offset, text[1]), e->size_bytes);
    return -EINVAL;
  }
  /* In this order a page that is written meanwhile counts at least once. */
  want = count_holes (e, first, end) << PAGE_SHIFT;
  want += export_npages_used (e) << PAGE_SHIFT;
  want = want > e->size_bytes ? e->size_bytes : want < had ? had : want;
  if (limit && want > limit) {
    log_error ("export \"%s\": filling that takes a reserve of %s, and its limit is %s: give a "
               "higher limit",
               e->name, format_bytes (want, text[0]), format_bytes (limit, text[1]));
    return -ENOSPC;
  }
  ret = set_promise_locked (e, want, limit, false);
  if (ret == 0)
    *reserve_bytes = want;
  return ret;
}

int
export_fill (struct export *e, uint64_t length, uint64_t offset, uint64_t *reserve_bytes)
{
  int ret;

  mutex_lock (&e->promising);
  ret = fill_locked (e, length, offset, reserve_bytes);
  mutex_unlock (&e->promising);
  return ret;
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
  flow_set_share (&e->pages.flow, terms->weight, terms->iops, terms->bandwidth);
  mutex_unlock (&e->mutex);
  return 0;
}
