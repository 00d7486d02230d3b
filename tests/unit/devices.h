/* SPDX-License-Identifier: BSD-3-Clause
 *
 * devices.h - swap devices and drums made of temporary files, in the scratch folder.
 */
#ifndef DRUM_UNIT_DEVICES_H
#define DRUM_UNIT_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/drum-devices.h"
#include "lib/drum.h"
#include "lib/room.h"
#include "lib/swapdev.h"
#include "lib/units.h"

/* The size of a file that has nusable slots behind the label and the bad slots. */
uint64_t bytes_of (uint32_t nusable);

/* Create such a file, and open it as a device. */
struct swapdev *device_create (const char *name, int prio, uint32_t nusable);

/* What is at this path, until the next call. */
const struct swapdev_place *place_of (const char *path);

/* A drum without devices; its stripe in slots. */
struct drum *drum_make (uint32_t stripe_slots);

/* The same, and add it; returns the first usable slot of its range. */
uint32_t drum_add_file (struct drum *d, const char *name, int prio, uint32_t nusable);

/* The device that is this file; false if the drum has none. */
bool drum_find_file (struct drum *d, const char *name, struct drum_device_info *info);

/* It is there, and so many of its slots are used; it is in this state; it is not there. */
unsigned drum_nused_on (struct drum *d, const char *name);
void drum_assert_state (struct drum *d, const char *name, enum drum_device_state state);
void drum_assert_gone (struct drum *d, const char *name);

/* Slots that are used, and those that are free. */
uint64_t drum_nused (struct drum *d);
uint64_t drum_nfree (struct drum *d);

/* Used slots of all devices, also of those that are closed. */
uint64_t drum_nused_anywhere (struct drum *d);

/* The device at this path; false if there is none. */
bool drum_find (struct drum *d, const char *path, struct drum_device_info *info);

/* On each device each slot is one of used, free, bad, suspect and the two that are reserved. */
void drum_assert_adds_up (struct drum *d);

/* What is suspect by now has been looked at, and is well: as the medic does when the disks work again. */
void drum_heal (struct drum *d);

/* drum_alloc for nobody. */
int drum_take_runs (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                    unsigned *nruns);

/* Allocate n slots that must come in one run; returns the first. */
uint32_t drum_take (struct drum *d, uint32_t n);

/* Allocate n slots in any number of runs, and forget where they are. */
void drum_take_any (struct drum *d, uint32_t n);
void drum_give (struct drum *d, uint32_t first, uint32_t n);

#endif
