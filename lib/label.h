/* SPDX-License-Identifier: BSD-3-Clause
 *
 * label.h - the first two pages of a swap device, as they stand on it.
 *
 * Page 0 says whose device it is, page 1 which of its slots are bad. Little endian; each ends in a checksum over the
 * whole page (XXH3, 64 bits), so that a file system made over an old label does not pass for one of our devices. A label
 * that was written only in part when the power failed is the old one, or the new one.
 * Locking: none. Pure functions of their arguments; nothing here does I/O.
 */
#ifndef DRUM_LABEL_H
#define DRUM_LABEL_H

#include <stdbool.h>
#include <stdint.h>

#include "swapdev.h"

/* As many bad slots as page 1 has room for; a device with more is failing. */
enum { LABEL_MAX_BAD = 1000 };

struct label {
  struct swapdev_identity identity;
  uint64_t size_bytes; /* of the device when the label was written */
};

struct badslots {
  uint32_t n;
  uint32_t slot[LABEL_MAX_BAD]; /* numbered from 0 in the device */
};

void label_encode (const struct label *label, void *page);
void badslots_encode (const struct badslots *bad, void *page);

/* 0; -ENOENT if the page is no label of ours at all; -EPROTO if it is one of a version that we do not know. */
int label_decode (const void *page, struct label *label);

/* 0; -ENOENT if the page is no table of ours, or damaged. */
int badslots_decode (const void *page, struct badslots *bad);

#endif
