/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swaphdr.h - the header that makes a device a swap device: its first page, as mkswap(8) writes it.
 *
 * Unit:   pages are those of the host that swaps, which may be larger than ours (arm64: up to 64 KiB).
 * Memory: the caller's. Locking: none.
 */
#ifndef DRUM_SWAPHDR_H
#define DRUM_SWAPHDR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uuid/uuid.h>

enum {
  SWAPHDR_MAX_PAGE_BYTES = 65536,
  SWAPHDR_LABEL_BYTES = 16, /* with a zero byte at its end */
  SWAPHDR_MIN_PAGES = 10,   /* the kernel takes no fewer */
};

struct swaphdr {
  uint32_t page_bytes; /* 4096 to SWAPHDR_MAX_PAGE_BYTES, a power of two */
  uint32_t last_page;  /* see swaphdr_last_page */
  bool
    suspended; /* a host has put its memory here when it was suspended to disk, and may come back for it */
  uuid_t uuid; /* null: it has none */
  char label[SWAPHDR_LABEL_BYTES];
};

/* Of a device of so many pages, as many of them as can be used. */
uint32_t swaphdr_last_page (uint64_t npages);

/* Fill a page of h->page_bytes: the header of an area in which nothing has been suspended, in the byte order of this machine. */
void swaphdr_build (void *page, const struct swaphdr *h);

/* Is this the beginning of a swap area, of either byte order, of pages of at most len bytes? *h is untouched if not. */
bool swaphdr_parse (const void *data, size_t len, struct swaphdr *h);

/* The UUID of the swap area that is made on the export of this name: the same each time. */
void swaphdr_uuid_for (const char *name, uuid_t uuid);

#endif
