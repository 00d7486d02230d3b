/* SPDX-License-Identifier: BSD-3-Clause
 *
 * pagesum.h - what a page's bytes must look like when they come back.
 *
 * A 32-bit checksum of the contents (XXH3, from libxxhash) XOR a key made of export and page: a page that was written
 * for one place does not pass in another, yet can pass to another export without being read, by XOR of both keys.
 */
#ifndef DRUM_PAGESUM_H
#define DRUM_PAGESUM_H

#include <stdbool.h>
#include <stdint.h>

/* The key of a page; export_key is made once per export, from its name. */
uint64_t pagesum_export_key (const char *name);
uint32_t pagesum_key (uint64_t export_key, uint64_t page);

/* The checksum of PAGE_BYTES at data, before the key. */
uint32_t pagesum_contents (const void *data);

/* Are all PAGE_BYTES at data zero? Nearly free for most pages that are not. */
bool page_is_zero (const void *data);

#endif
