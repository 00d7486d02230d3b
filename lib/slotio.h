/* SPDX-License-Identifier: BSD-3-Clause
 *
 * slotio.h - one request's transfers, gathered into as few calls as its slots allow.
 *
 * Pieces (consecutive slots to or from consecutive memory) are gathered in any order; slotio_submit sorts them by slot,
 * makes one transfer of each run of consecutive slots, and gives the drum several of them at a time, to be under way at once. A guard slot ends
 * every device, so a run never spans two.
 * Memory:  the caller's stack, 6 KiB; nothing allocates.
 * Locking: none; the caller holds the range lock of the pages concerned.
 */
#ifndef DRUM_SLOTIO_H
#define DRUM_SLOTIO_H

#include <stdint.h>
#include <sys/uio.h>

#include "drum.h"

enum slotio_kind { SLOTIO_READ, SLOTIO_WRITE, SLOTIO_READAHEAD };

/* At most DRUM_BATCH slots. The fields are slotio.c's. */
struct slotio {
  struct drum *drum;
  const struct flow *flow;
  enum slotio_kind kind;
  unsigned npieces;
  int first_error;   /* of all */
  uint64_t known_ns; /* for current_ns, before slotio_submit, and after it */
  /* Of each piece: */
  uint32_t slot[DRUM_BATCH];    /* its first */
  struct iovec iov[DRUM_BATCH]; /* its data, as long as it is; used up by slotio_submit */
  int ret[DRUM_BATCH];          /* of the transfer that it was part of */
};

/* flow: whose they are; NULL: the server's own. */
void slotio_init (struct slotio *io, struct drum *d, const struct flow *flow,
                  enum slotio_kind kind);

/* One page at data (NULL to read ahead) to or from slot. */
void slotio_add (struct slotio *io, uint32_t slot, void *data);

/* Do it all. 0, or the first error; the other transfers are done all the same. */
int slotio_submit (struct slotio *io);

/* After that: 0 if this slot, which is among them, has been transferred, else the error of a transfer that it was part of. */
int slotio_result (const struct slotio *io, uint32_t slot);

#endif
