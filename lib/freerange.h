/* SPDX-License-Identifier: BSD-3-Clause
 *
 * freerange.h - slots to be freed, gathered into runs (FreeBSD swap_pager.c 2020, swp_pager_update_freerange).
 *
 * So a trim of a large range takes the drum's lock seldom and holds it shortly: at most DRUM_BATCH runs at a time.
 * Memory:  the caller's stack, 2 KiB. Locking: none; takes the drum's.
 */
#ifndef DRUM_FREERANGE_H
#define DRUM_FREERANGE_H

#include <stdbool.h>
#include <stdint.h>

#include "drum.h"

/* The fields are freerange.c's. */
struct freerange {
  struct drum *drum;
  unsigned nruns;
  struct drum_return what;
  struct slot_run run[DRUM_BATCH];
};

/* They are of pages of this account. nmove: of the slots to come, how many are returned for one that was taken for a move; at most
 * DRUM_BATCH may come if it is not 0. */
void freerange_init (struct freerange *fr, struct drum *d, struct room_account *account,
                     uint32_t nmove);

/* A slot that no page map shows any more; shrinks: its page has no other instead. */
void freerange_add (struct freerange *fr, uint32_t slot, bool shrinks);

/* The same for n of them, whose pages have none instead. */
void freerange_add_all (struct freerange *fr, const uint32_t *slot, unsigned n);

/* Free what is gathered; to be called at the end. */
void freerange_flush (struct freerange *fr);

#endif
