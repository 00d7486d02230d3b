/* SPDX-License-Identifier: BSD-3-Clause
 *
 * readahead.h - what lies beside a page that was read, and may be wanted next (FreeBSD's swap_pager_haspage).
 *
 * What was written together lies together: pages around the one that was read, as far as their slots are consecutive, are one
 * piece of I/O more, or one that is longer. So the kernel is asked to have them in its page cache soon.
 * Cost:    the entries of those pages, and a posix_fadvise or two: some 30 us for 64 KiB that are not there, and 300 for each MiB;
 *          no wait for the disk, unless so much is asked of it that the kernel takes no more.
 * Locking: none; the caller holds the pages that were read, so that the device they are on is there.
 */
#ifndef DRUM_READAHEAD_H
#define DRUM_READAHEAD_H

#include <stdint.h>

struct drum;
struct pagemap;

enum { READAHEAD_MAX_BYTES = 4 << 20 };

/* [first, end), which is not empty, was read, of a map of map_end pages. Ask for at most max pages, half of them before it, or
 * more where there are fewer on the other side. */
void readahead_around (struct drum *d, const struct pagemap *map, uint64_t first, uint64_t end,
                       uint64_t map_end, uint32_t max);

#endif
