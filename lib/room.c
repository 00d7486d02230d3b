/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "room.h"

#include <inttypes.h>

#include "log.h"

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
room_left (const struct room *r)
{
  uint64_t nfree = r->nfree + r->nmoving;

  return nfree > r->nkept ? nfree - r->nkept : 0;
}

struct room_notice
room_check (struct room *r)
{
  uint64_t left = room_left (r);
  uint64_t high = r->nslots / 2 < ROOM_HIGH_WATER ? r->nslots / 2 : ROOM_HIGH_WATER;

  if (!r->almost_full && left < room_low_water (r->nslots)) {
    r->almost_full = true;
    return (struct room_notice){ ROOM_ALMOST_FULL, left };
  }
  if ((r->almost_full || r->full) && left > high) {
    r->almost_full = r->full = false;
    return (struct room_notice){ ROOM_AGAIN, left };
  }
  return (struct room_notice){ ROOM_NOTHING, left };
}

struct room_notice
room_refused (struct room *r, bool closed)
{
  if (r->full)
    return (struct room_notice){ ROOM_NOTHING, 0 };
  r->full = true;
  return (struct room_notice){ closed ? ROOM_FULL_CLOSED : ROOM_FULL, 0 };
}

void
room_say (struct room_notice notice)
{
  switch (notice.what) {
  case ROOM_NOTHING:
    break;
  case ROOM_ALMOST_FULL:
    log_warning ("the drum is almost full: %" PRIu64 " slots are left", notice.left);
    break;
  case ROOM_FULL:
    log_warning ("the drum is full: writes of new pages fail (ENOSPC) until some are freed or a "
                 "device is added");
    break;
  case ROOM_FULL_CLOSED:
    log_warning ("the drum is full, but for devices that are closed: writes fail (ENOSPC) until "
                 "slots are freed, or a device is added or opened again (drumctl add)");
    break;
  case ROOM_AGAIN:
    log_notice ("the drum has room again: %" PRIu64 " slots", notice.left);
    break;
  }
}
