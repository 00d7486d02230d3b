/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swaparea.h - see to it that a device is one to swap on: that it has a header (lib/swaphdr.h).
 */
#ifndef DRUM_SWAPAREA_H
#define DRUM_SWAPAREA_H

#include <stdbool.h>

/* See to it that there is one that the kernel takes. make: write one if there is none, or one for another size; then force also
 * where there is something else. 0, or -errno and a line that says why; -ENXIO: there is none, and none was to be made. */
int swaparea_prepare (const char *device, bool make, bool force);

#endif
