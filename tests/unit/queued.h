/* SPDX-License-Identifier: BSD-3-Clause
 *
 * queued.h - requests that are out on a device which is simulated: each of its servers does one at a time, in the order in which they
 * came, and others wait. Time is the caller's.
 */
#ifndef DRUM_TESTS_UNIT_QUEUED_H
#define DRUM_TESTS_UNIT_QUEUED_H

#include <stdbool.h>
#include <stdint.h>

enum { QUEUED_MAX = 512, QUEUED_SERVERS = 64 };

struct queued_request {
  uint64_t begin_ns, end_ns;
  uint32_t npages;
  bool write;
};

/* Zeroed, nothing is out. */
struct queued {
  uint64_t free_ns[QUEUED_SERVERS];
  unsigned nout;
  struct queued_request out[QUEUED_MAX];
};

/* Another one, which begins at its begin_ns and takes ns once it is its turn. */
void queued_submit (struct queued *q, unsigned nservers, struct queued_request r, uint64_t ns);

/* The next one ends. => one is out. */
struct queued_request queued_take (struct queued *q);

#endif
