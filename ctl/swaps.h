/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swaps.h - what the kernel swaps on (/proc/swaps). Takes no memory of ours.
 */
#ifndef DRUM_SWAPS_H
#define DRUM_SWAPS_H

#include <stdint.h>

struct swaps_entry {
  uint64_t size_bytes, used_bytes;
  int priority;
};

/* 1 and *entry if this device is in use as swap, 0 if not, -errno if the kernel does not say. entry may be NULL. */
int swaps_find (const char *device, struct swaps_entry *entry);

#endif
