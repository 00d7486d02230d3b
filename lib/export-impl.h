/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export-impl.h - what export.c (requests), export-terms.c (what it is promised) and export-shape.c (what changes it as a whole) share;
 * nobody else's.
 */
#ifndef DRUM_EXPORT_IMPL_H
#define DRUM_EXPORT_IMPL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <uuid/uuid.h>

#include "export.h"
#include "mutex.h"
#include "pages.h"
#include "rangelock.h"
#include "stats.h"
#include "terms.h"
#include "units.h"

/* A page that no export has. Whoever walks the map, and does not know where that will lead, has it locked shared, before any range of pages;
 * whoever changes the size, or lets pages pass, exclusive. It may be held across I/O. */
#define SHAPE (UINT64_MAX - 1)

/* What every request reads lies in other cache lines than what others change. */
struct export
{
  struct pages pages;
  _Alignas(64) struct rangelock ranges;
  _Alignas(64) _Atomic unsigned nusers; /* export_hold */
  char *name, *pattern, *given;
  struct mutex promising;      /* before SHAPE: what is promised, and the size */
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

static inline uint64_t
npages_of (const struct export *e)
{
  return export_size_bytes (e) >> PAGE_SHIFT;
}

static inline const char *
format_pages (uint64_t npages, char text[16])
{
  return format_bytes (npages * PAGE_BYTES, text);
}

static inline void
lock_shape (struct export *e, struct rangelock_holder *holder, bool exclusive)
{
  rangelock_lock (&e->ranges, holder, SHAPE, SHAPE + 1, exclusive);
}

static inline void
unlock_shape (struct export *e, struct rangelock_holder *holder)
{
  rangelock_unlock (&e->ranges, holder);
}

/* Promise it that, and say if that can't be. */
int export_promise_pages (struct export *e, const struct room_promise *want, bool force);

/* Its size, or limit (what), would be less than another of these: -EINVAL. */
int export_refuse_promise (const struct export *e, const char *what, uint64_t bytes,
                           const char *than, uint64_t than_bytes);

/* Warn if a map of so many pages may come to take more than half of the memory (FreeBSD's swapon_check_swzone). */
void export_check_memory (const char *name, uint64_t npages);

/* => holds no range. Clear whole pages, in pieces. */
int export_clear_range (struct export *e, uint64_t first, uint64_t end);

#endif
