/* SPDX-License-Identifier: BSD-3-Clause
 *
 * terms.h - what an export is promised, what it may have, and who may have it (FreeBSD swap_pager.c 2020: swap_reserve, and the
 * limits of a user).
 *
 * Unit:    bytes, whole pages; times in seconds.
 * Locking: plain data.
 */
#ifndef DRUM_TERMS_H
#define DRUM_TERMS_H

#include <stdbool.h>
#include <stdint.h>

enum {
  EXPORT_NAME_MAX = 255,       /* bytes */
  EXPORT_WEIGHT_DEFAULT = 100, /* of 1 to EXPORT_WEIGHT_MAX */
  EXPORT_WEIGHT_MAX = 10000,
};

struct export_terms {
  uint64_t reserve_bytes; /* slots that only this export may use up */
  uint64_t limit_bytes;   /* the most that its pages may take; 0: no limit but its size */
  unsigned weight;        /* its share of a device that others want, too */
  uint64_t iops;          /* requests a second; 0: no limit */
  uint64_t bandwidth;     /* bytes a second; 0: no limit */
  bool exclusive;         /* one client at a time */
};

/* One export that is asked for. */
struct export_spec {
  char *name;
  uint64_t size_bytes; /* 0: all that there is (the default export's only) */
  struct export_terms terms;
};

/* Exports that are made when their client first comes: those whose names match. */
struct export_template {
  struct export_spec spec; /* the name is a pattern: fnmatch(3), without flags */
  unsigned max;            /* exports at once; 0: no limit */
  uint64_t expire;         /* seconds without a client and without I/O, then it goes; 0: never */
};

#endif
