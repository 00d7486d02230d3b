/* SPDX-License-Identifier: BSD-3-Clause
 *
 * units.h - the few numbers that every part of the swap system shares.
 */
#ifndef DRUM_UNITS_H
#define DRUM_UNITS_H

#include <stdint.h>

#define PAGE_BYTES 4096u /* a page of an export, and a slot of the drum */
#define PAGE_SHIFT 12

#define SLOT_NONE  ((uint32_t) 0) /* "no slot": the page reads as zeroes */
#define SLOT_LOST \
  ((uint32_t) -1) /* contents lost (OpenBSD's SWSLOT_BAD): EIO until written or trimmed */
#define SLOT_MAX ((uint32_t) -2) /* the last slot that a drum may have */

#endif
