/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum-impl.h - what drum.c (slots) and drum-devices.c (devices) share; nobody else's.
 */
#ifndef DRUM_DRUM_IMPL_H
#define DRUM_DRUM_IMPL_H

#include <stdatomic.h>

#include "drum-devices.h"
#include "drum.h"
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
  enum drum_device_state before;          /* closing: what it was */
  bool leaving; /* somebody moves its pages off: from drum_close_device to drum_end_closing */
};

struct drum {
  struct mutex admin; /* device changes; taken before lock */
  struct mutex lock;  /* all below, but readers of space and nclosed take none */
  struct space space; /* owner: struct device */
  pthread_cond_t slots_returned;
  unsigned nwaiting; /* for slots_returned */
  struct room room;
  _Atomic unsigned nclosed; /* devices that are not open */
  unsigned ndevices;
  struct device *device[DRUM_MAX_DEVICES]; /* by priority, highest first; equal ones as they came */
  struct placement placement;
};

/* => holds d->lock. Change the state of a device, and account for what that changes. */
void drum_set_state_locked (struct drum *d, struct device *dev, enum drum_device_state state);

#endif
