/* SPDX-License-Identifier: BSD-3-Clause
 *
 * readahead.h - what lies beside a page that was read, and may be wanted next (FreeBSD's swap_pager_haspage).
 *
 * What was written together lies together. So the export is divided into blocks, and of the block in which a page was read, the
 * kernel is asked to have in its page cache soon what lies side by side with that page. Blocks rather than a window that moves
 * with each read: what is asked for is one large piece, once, and not a page more for each read.
 * Cost:    the entries of those pages, and a posix_fadvise or two: some 45 us for 64 KiB that are not there, and 340 for 1 MiB; no
 *          wait for the disk, unless so much is asked of it that the kernel takes no more.
 * Locking: none; the caller holds the pages that were read, so that the device they are on is there.
 */
#ifndef DRUM_READAHEAD_H
#define DRUM_READAHEAD_H

#include <stdint.h>

struct drum;
struct pagemap;

enum { READAHEAD_MAX_BYTES = 4 << 20 };

/* [first, end), which is not empty, was read, of a map of map_end pages. Ask for the rest of its block of npages; but if it began
 * before that, for nothing: who reads so much at once needs no help. */
void readahead_around (struct drum *d, const struct pagemap *map, uint64_t first, uint64_t end,
                       uint64_t map_end, uint32_t npages);

#endif
