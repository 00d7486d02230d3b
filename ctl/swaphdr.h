/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swaphdr.h - the header that makes a device a swap device: one page, as mkswap(8) writes it.
 */
#ifndef DRUM_SWAPHDR_H
#define DRUM_SWAPHDR_H

#include <stdbool.h>

/* See to it that there is one that the kernel takes. make: write one if there is none, or one for another size; then force also
 * where there is something else. 0, or -errno and a line that says why; -ENXIO: there is none, and none was to be made. */
int swaphdr_prepare (const char *device, bool make, bool force);

#endif
