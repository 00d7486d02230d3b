/* SPDX-License-Identifier: BSD-3-Clause
 *
 * restore.h - at a start, from the map files of a state to page maps, blists and counters; one pass over each file.
 *
 * What makes no sense (an entry whose slot is on no device, is bad, or is another page's; one that was torn) is damage, and refused, or with
 * repair a lost page. After a power failure, when the machine's boot is another one, two pages may name the same slot: the one
 * whose checksum matches what is there has it, the others are lost. A lost page gives EIO until it is written or trimmed.
 * Cost:    some 8 bytes to read and 10 ns for each page that is used.
 * Locking: none; one thread, before the first request.
 * Memory:  8 bytes for each slot that more than one page names.
 * Errors:  0 or -errno, and one line through log.h. On failure exports and drum are to be thrown away; the files are as they were, but
 *          for pages that were found lost.
 */
#ifndef DRUM_RESTORE_H
#define DRUM_RESTORE_H

#include <stdbool.h>
#include <stdint.h>

struct drum;
struct export;

struct restore {
  struct drum *drum; /* its devices are in their ranges, with nothing used */
  struct export *const *exports;
  unsigned nexports;
  bool rebooted; /* the power may have failed */
  bool repair;
  const char *dir; /* for messages */
};

/* -EBADMSG if that is refused. To nlost[i] the pages of exports[i] that are lost by it are added. */
int restore_exports (const struct restore *r, uint64_t *nlost);

#endif
