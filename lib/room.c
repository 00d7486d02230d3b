/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "room.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

#include "bug.h"
#include "log.h"
#include "units.h"

uint64_t
room_nkept (uint64_t nslots)
{
  uint64_t nkept = nslots / 64;

  return nslots == 0 ? 0 : nkept < 1 ? 1 : nkept > 1024 ? 1024 : nkept;
}

uint64_t
room_low_water (uint64_t nslots)
{
  return nslots / 8 < ROOM_LOW_WATER ? nslots / 8 : ROOM_LOW_WATER;
}

void
room_grow (struct room *r, uint64_t nslots, uint64_t nfree)
{
  r->nslots += nslots;
  r->nfree += nfree;
  r->nkept = room_nkept (r->nslots);
}

void
room_shrink (struct room *r, uint64_t nslots, uint64_t nfree)
{
  room_grow (r, -nslots, -nfree);
}

uint64_t
room_nusable (const struct room *r)
{
  return r->nslots - r->nkept;
}

static uint64_t
minimum (uint64_t a, uint64_t b)
{
  return a < b ? a : b;
}

static uint64_t
less (uint64_t a, uint64_t b)
{
  return a > b ? a - b : 0;
}

static uint64_t
nused_by (const struct room_account *a)
{
  return atomic_load_explicit (&a->nused, memory_order_relaxed);
}

/* What the account has reserved, and not used yet. */
static uint64_t
unfilled (const struct room_account *a)
{
  return less (a->promise.nreserved, nused_by (a));
}

/* For new pages, promised or not. */
static uint64_t
nfree_for_new (const struct room *r)
{
  return less (r->nfree + r->nmoving, r->nkept);
}

/* For new pages that were promised; those of everybody come after them. When devices that are closing open again, there is more to keep
 * back: that stays free, too, or promises could not be kept then. */
static uint64_t
nfree_for_promises (const struct room *r)
{
  return less (nfree_for_new (r), room_nkept (r->nslots + r->closing.nslots) - r->nkept);
}

static uint64_t
nfree_for_all (const struct room *r)
{
  return r->nreserved ? less (nfree_for_promises (r), r->npromised) : nfree_for_new (r);
}

uint64_t
room_left (const struct room *r, const struct room_account *a)
{
  uint64_t own = a ? minimum (unfilled (a), nfree_for_new (r)) : 0;

  return own + nfree_for_all (r);
}

bool
room_fits (const struct room *r, const struct room_account *a, uint32_t nnew, uint32_t ngrow)
{
  uint64_t nown = a ? minimum (ngrow, unfilled (a)) : 0;

  if (nnew == 0)
    return true;
  if (nfree_for_new (r) >= r->npromised)
    return nnew - nown <= nfree_for_all (r);
  return a && nused_by (a) + ngrow <= a->promise.nreserved && nnew <= nfree_for_new (r);
}

bool
room_is_limited (const struct room_account *a, uint32_t ngrow)
{
  return a && a->promise.nlimit && ngrow > less (a->promise.nlimit, nused_by (a));
}

/* Is it well below its limit, so that reaching it is news? */
static void
check_limit (struct room_account *a)
{
  uint64_t nlimit = a->promise.nlimit;

  if (!nlimit || less (nlimit, nused_by (a)) > minimum (nlimit / 2, ROOM_HIGH_WATER))
    a->limited = false;
}

void
room_count (struct room *r, struct room_account *a, int64_t change)
{
  uint64_t nused = a ? nused_by (a) : 0;

  if (!a || change == 0)
    return;
  if (change < 0 && nused < (uint64_t) -change) {
    bug ("export \"%s\": %" PRIi64 " of %" PRIu64 " pages", a->name, change, nused);
    change = -(int64_t) nused;
  }
  r->npromised -= unfilled (a);
  atomic_store_explicit (&a->nused, nused + (uint64_t) change, memory_order_relaxed);
  r->npromised += unfilled (a);
  check_limit (a);
}

static bool
lacks (struct room_shortage *shortage, int of, uint64_t npages, uint64_t nslots)
{
  if (npages <= nslots)
    return false;
  shortage->of = of;
  shortage->npages = npages;
  shortage->nslots = nslots;
  return true;
}

int
room_may_promise (const struct room *r, const struct room_account *a,
                  const struct room_promise *want, struct room_shortage *shortage)
{
  const struct room_promise *had = &a->promise;
  uint64_t npromised = r->npromised - unfilled (a) + less (want->nreserved, nused_by (a));

  if (want->nreserved > had->nreserved &&
      (lacks (shortage, ROOM_OF_RESERVES, r->nreserved - had->nreserved + want->nreserved,
              room_nusable (r)) ||
       lacks (shortage, ROOM_OF_PROMISED, npromised, nfree_for_promises (r))))
    return -ENOSPC;
  if (want->nsize > had->nsize && r->no_overcommit &&
      lacks (shortage, ROOM_OF_SIZES, r->nsizes - had->nsize + want->nsize, room_nusable (r)))
    return -ENOSPC;
  return 0;
}

void
room_promise (struct room *r, struct room_account *a, const struct room_promise *want)
{
  r->npromised -= unfilled (a);
  r->nreserved += want->nreserved - a->promise.nreserved;
  r->nsizes += want->nsize - a->promise.nsize;
  a->promise = *want;
  r->npromised += unfilled (a);
  check_limit (a);
}

int
room_may_pass (const struct room *r, const struct room_account *from, const struct room_account *to,
               uint64_t npages, struct room_shortage *shortage)
{
  uint64_t npromised = r->npromised - unfilled (from) - unfilled (to) +
                       less (from->promise.nreserved, less (nused_by (from), npages)) +
                       less (to->promise.nreserved, nused_by (to) + npages);

  if (to->promise.nlimit &&
      lacks (shortage, ROOM_OF_LIMIT, nused_by (to) + npages, to->promise.nlimit))
    return -ENOSPC;
  return npromised > r->npromised &&
             lacks (shortage, ROOM_OF_PROMISED, npromised, nfree_for_promises (r))
           ? -ENOSPC
           : 0;
}

bool
room_suffices (const struct room *r, struct room_shortage *shortage)
{
  return !lacks (shortage, ROOM_OF_RESERVES, r->nreserved, room_nusable (r)) &&
         !(r->no_overcommit && lacks (shortage, ROOM_OF_SIZES, r->nsizes, room_nusable (r)));
}

/* With the devices that are closing: slots that pages can have, and those free for new ones. */
static uint64_t
nusable_reopened (const struct room *r)
{
  uint64_t nslots = r->nslots + r->closing.nslots;

  return nslots - room_nkept (nslots);
}

static uint64_t
nfree_reopened (const struct room *r)
{
  return less (r->nfree + r->closing.nfree + r->nmoving,
               room_nkept (r->nslots + r->closing.nslots));
}

bool
room_is_broken (const struct room *r)
{
  return r->nreserved > 0 &&
         (r->nreserved > nusable_reopened (r) || r->npromised > nfree_reopened (r));
}

static struct room_notice
check_promises (struct room *r)
{
  bool broken = room_is_broken (r);

  if (broken == r->broken)
    return (struct room_notice){ .what = ROOM_NOTHING };
  r->broken = broken;
  return (struct room_notice){ .what = broken ? ROOM_BROKEN : ROOM_KEPT_AGAIN,
                               .left = nfree_reopened (r),
                               .npromised = r->npromised,
                               .nreserved = r->nreserved,
                               .nusable = nusable_reopened (r) };
}

/* Is there plenty, and was there when somebody looked last? Nearly always, and this is looked at twice a write. */
static bool
is_plenty (const struct room *r)
{
  return !r->almost_full && !r->full && !r->broken && r->closing.nslots == 0 &&
         r->nreserved <= room_nusable (r) &&
         r->nfree + r->nmoving >= r->nkept + r->npromised + ROOM_LOW_WATER;
}

struct room_notice
room_check (struct room *r)
{
  struct room_notice notice = { .what = ROOM_NOTHING,
                                .left = r->nfree + r->nmoving - r->nkept - r->npromised };
  uint64_t left, high;

  if (is_plenty (r))
    return notice;
  left = room_left (r, NULL);
  high = minimum (r->nslots / 2, ROOM_HIGH_WATER);
  notice = check_promises (r);
  if (notice.what != ROOM_NOTHING)
    return notice; /* the rest is said after the next change */
  notice.left = left;
  notice.npromised = r->npromised;
  if (!r->almost_full && left < room_low_water (r->nslots)) {
    r->almost_full = true;
    notice.what = ROOM_ALMOST_FULL;
  } else if ((r->almost_full || r->full) && left > high) {
    r->almost_full = r->full = false;
    notice.what = ROOM_AGAIN;
  }
  return notice;
}

struct room_notice
room_refused (struct room *r, bool closed)
{
  if (r->full)
    return (struct room_notice){ .what = ROOM_NOTHING };
  r->full = true;
  return (struct room_notice){ .what = closed ? ROOM_FULL_CLOSED : ROOM_FULL,
                               .npromised = r->npromised };
}

struct room_notice
room_limited (struct room_account *a)
{
  if (a->limited)
    return (struct room_notice){ .what = ROOM_NOTHING };
  a->limited = true;
  return (
    struct room_notice){ .what = ROOM_LIMITED, .left = a->promise.nlimit, .account = a->name };
}

void
room_say (struct room_notice notice)
{
  const char *but = notice.npromised ? ", but for what is reserved" : "";
  char text[4][16];

  switch (notice.what) {
  case ROOM_NOTHING:
    break;
  case ROOM_ALMOST_FULL:
    log_warning ("the drum is almost full%s: %" PRIu64 " slots are left", but, notice.left);
    break;
  case ROOM_FULL:
    log_warning ("the drum is full%s: writes of new pages fail (ENOSPC) until some are freed or a "
                 "device is added",
                 but);
    break;
  case ROOM_FULL_CLOSED:
    log_warning ("the drum is full, but for devices that are closed: writes fail (ENOSPC) until "
                 "slots are freed, or a device is added or opened again (drumctl add)");
    break;
  case ROOM_AGAIN:
    log_notice ("the drum has room again: %" PRIu64 " slots", notice.left);
    break;
  case ROOM_LIMITED:
    log_warning ("export \"%s\": has reached its limit of %s: writes of new pages fail (ENOSPC)",
                 notice.account, format_bytes (notice.left * PAGE_BYTES, text[0]));
    break;
  case ROOM_BROKEN:
    log_warning ("the drum can't keep what it promised: %s are reserved, and %s of that not used "
                 "yet; it has %s, and %s of that free: add a device",
                 format_bytes (notice.nreserved * PAGE_BYTES, text[0]),
                 format_bytes (notice.npromised * PAGE_BYTES, text[1]),
                 format_bytes (notice.nusable * PAGE_BYTES, text[2]),
                 format_bytes (notice.left * PAGE_BYTES, text[3]));
    break;
  case ROOM_KEPT_AGAIN:
    log_notice ("the drum can keep what it promised again: %s are reserved",
                format_bytes (notice.nreserved * PAGE_BYTES, text[0]));
    break;
  }
}
