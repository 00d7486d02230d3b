/* SPDX-License-Identifier: BSD-3-Clause
 *
 * health.h - what a device is suspected of: slots that took no data, pages that can't be read, errors one after the other.
 *
 * Suspect slots hold nobody's page and get none until somebody has looked at them (medic.h). Doomed ones hold a page that could not
 * be read; it keeps its slot, so that a later read may still succeed, and the slot is suspect when it is freed.
 * (NetBSD uvm_swap.c, uvm_swap_markbad; OpenBSD uvm_aobj.c, uao_get.)
 * Unit:    slots are numbered from 0 in the device.
 * Memory:  the struct itself, bounded; a device with more is failing.
 * Locking: the drum's lock, but for the atomic counters.
 */
#ifndef DRUM_HEALTH_H
#define DRUM_HEALTH_H

#include <stdbool.h>
#include <stdint.h>

#include "blist.h"

enum {
  HEALTH_RUNS = 64,    /* of suspect slots */
  HEALTH_DOOMED = 256, /* slots */
  HEALTH_STREAK =
    8, /* hard errors of a kind (reads, writes), at different slots, without a success of that kind between: the device is failing */
};

struct suspect {
  struct slot_run run;
  uint64_t not_before_ns; /* to be looked at then; 0: now */
};

/* Zeroed is healthy. */
struct health {
  uint32_t nsuspect; /* slots in all of the runs, and those that are being looked at */
  unsigned nruns, ndoomed;
  struct suspect suspect[HEALTH_RUNS];
  uint32_t doomed[HEALTH_DOOMED];
  struct health_streak {
    _Atomic unsigned nerrors;
    _Atomic uint32_t last_failed; /* slot; asked for again and again, it is one error */
  } streak
    [2]; /* of reads, of writes: a disk that wears out takes nothing more, and is read as ever */
  _Atomic uint64_t nmismatches; /* pages that came back with a wrong checksum */
};

/* Neighbours become one run. false, and nothing is changed: there are too many. */
bool health_suspect (struct health *h, struct slot_run run, uint64_t not_before_ns);

/* Take a run out that is to be looked at by now; its slots stay counted. */
bool health_next (struct health *h, uint64_t now_ns, struct slot_run *run);

/* The slot's page can't be read. false: there are too many such. */
bool health_doom (struct health *h, uint32_t slot);

/* The first doomed slot of a run, which is doomed no more. */
bool health_take_doomed (struct health *h, struct slot_run run, uint32_t *slot);

/* A read or write that began at this slot ended: true if that makes the device a failing one. */
bool health_note (struct health *h, uint32_t slot, bool write, int ret);

/* It is looked at anew. */
void health_forget_streaks (struct health *h);

#endif
