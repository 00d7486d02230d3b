/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum-impl.h - what drum.c (slots) and drum-devices.c (devices) share; nobody else's.
 */
#ifndef DRUM_DRUM_IMPL_H
#define DRUM_DRUM_IMPL_H

#include <stdatomic.h>

#include "drum-devices.h"
#include "drum-health.h"
#include "drum.h"
#include "health.h"
#include "mutex.h"
#include "placement.h"
#include "room.h"
#include "space.h"

struct device {
  struct swapdev *swapdev;
  struct blist *blist;
  uint32_t first; /* of its range of the drum */
  int prio;
  uint64_t added_ns;                      /* now_ns */
  _Atomic (enum drum_device_state) state; /* changed under the drum's lock, read without it too */
  bool leaving;    /* somebody moves its pages off: until drum_end_closing or drum_end_failing */
  bool coming;     /* see struct drum_seat */
  bool avoid;      /* see placement.h */
  unsigned npins;  /* it can't be removed now */
  uint64_t nsyncs; /* the drum's, when it was last synced */
  enum drum_device_state before; /* closing: the state that it had */
  struct drum_leave leave;
  uint64_t again_ns; /* failing: when to try to move its pages off */
  const char *why;   /* failing: what nobody has said yet */
  struct health health;
};

/* What every request reads without the lock lies in other cache lines than what changes under it. */
struct drum {
  struct mutex admin;             /* device changes; taken before lock */
  _Atomic unsigned nclosed;       /* devices that are not open; changed under lock */
  struct space space;             /* owner: struct device; changed under lock */
  _Alignas(64) struct mutex lock; /* all below */
  unsigned nwaiting;              /* for slots_returned */
  unsigned ndevices;
  struct room room;
  pthread_cond_t slots_returned;
  pthread_cond_t sick; /* drum_next_sick has something to find; CLOCK_MONOTONIC */
  bool dismissed;      /* who waits for that is to go */
  uint64_t nsyncs;
  struct device *device[DRUM_MAX_DEVICES]; /* by priority, highest first; equal ones as they came */
  struct placement placement;
  struct rings *rings; /* or NULL */
};

/* Its slots, without those that are reserved, bad, or suspect. */
uint64_t drum_nusable (const struct device *dev);

/* => holds d->lock (or admin). NULL if there is none. */
struct device *drum_device_locked (struct drum *d, const struct swapdev *swapdev);

/* The device that slot is on, and its number there; without any lock, as nothing that has slots in use goes. NULL, which is
 * a bug. */
struct device *drum_device_at (struct drum *d, uint32_t slot, uint32_t *device_slot);

/* => holds d->lock. The devices, their priorities, states or troubles are not what they were. */
void drum_place_devices_locked (struct drum *d);

/* => holds d->lock. Slots of a device, in its own numbers, that are used, but hold no page, are suspect from here on. If there are
 * too many runs of them they are free again, and the device is failing, unless they are to be looked at later. */
void drum_suspect_locked (struct drum *d, struct device *dev, struct slot_run run,
                          uint64_t not_before_ns);

/* => holds d->lock. Slots that are used, but hold no page, are free. */
void drum_give_back_locked (struct drum *d, struct device *dev, struct slot_run run);

/* => holds d->lock, and lets go of it. Slots were given back, or taken out of use: what comes with that is accounted for, who waits for
 * it looks again, and what is to be said of the room is said. */
void drum_unlock_returned (struct drum *d, const struct drum_return *what);

/* Does it open again when a page finds no room? */
bool drum_may_reopen (const struct device *dev);

/* => holds d->lock. Have the room know what there would be with those that do; of interest only to promises. */
void drum_count_closing_locked (struct drum *d);

/* => holds d->lock. The same, and room_check. */
struct room_notice drum_check_room_locked (struct drum *d);

/* Without the lock. */
static inline void
drum_say (struct room_notice notice)
{
  if (notice.what != ROOM_NOTHING) /* inline: it is seldom said, and often asked */
    room_say (notice);
}

/* => holds d->lock. Change the state of a device, and account for what that changes. */
void drum_set_state_locked (struct drum *d, struct device *dev, enum drum_device_state state);

#endif
