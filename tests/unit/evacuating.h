/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuating.h - a drum of two devices, jobs that evacuate or scrub them, and what comes in between.
 *
 * The linker sends some calls of lib/ through evacuating.c, so that clients come in between the pieces, and reads fail. The
 * program is linked with evacuate_LDFLAGS.
 */
#ifndef DRUM_UNIT_EVACUATING_H
#define DRUM_UNIT_EVACUATING_H

#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/evacuate.h"
#include "lib/export.h"
#include "lib/exports.h"
#include "lib/job.h"

#include "devices.h"
#include "stamped.h"

enum { NPAGES = 400, A_SLOTS = 100, B_SLOTS = 300 };

extern struct drum *drum;
extern struct exports *exports;
extern struct export *export; /* in it */
extern struct jobs *jobs;
extern struct stamped pages; /* of the export */

extern struct hooks {
  unsigned npieces;             /* that were moved, or scrubbed */
  void (*after_piece) (void);   /* in the job's thread, which holds nothing */
  void (*before_remove) (void); /* the same */
  uint32_t alloc_max;           /* more slots at once are refused */
  bool refuse_next;             /* the next more than one */
  /* The first so many bytes behind the label of any device can't be read; from any thread. */
  _Atomic uint64_t unreadable_bytes;
  sem_t *write_begins, *write_goes_on; /* for the next write of a device */
  sem_t *read_begins, *read_goes_on;   /* for the next read of a client */
  sem_t *job_waits_or_ends;            /* posted when a job does: for a range lock, that is */
  sem_t *sleeps;                       /* posted when a job does */
} hook;

/* The .init and .fini of every suite. */
void evacuating_setup (void);
void evacuating_teardown (void);

/* The drum without a device. */
void make (bool checksum);

/* Pages go to a first, in order; b has room for all. */
void make_a_and_b (bool checksum);

/* The same with pages of all kinds: written, rewritten, trimmed, never written. 90 pages, all on a. */
void make_with_90_pages (bool checksum);

struct order {
  struct evacuation ev;
  struct swapdev *dev; /* NULL: upwards */
  bool force;
};

/* The job that order, of malloc, asks for. */
int order_main (struct job *job, void *order);

/* Begin a job; without a device, of pages that rise. */
uint64_t start (struct swapdev *dev, bool force, uint64_t rate);
uint64_t start_removing (const char *name, bool force);

/* Wait for its end. What is returned stays until the next call. */
struct job_info finish (uint64_t id);

/* Both in one. */
struct job_info remove_device (const char *name, bool force);
struct job_info rebalance (void);

/* It ended like this; error, unless NULL, is a part of its error. */
void assert_job (struct job_info info, enum job_state state, const char *error);

/* It says of these pages, and of no others, that they can't be read. */
void assert_unreadable (struct job_info info, const unsigned *page, unsigned n);

/* Cancel this job when n pieces have moved. */
void cancel_after (unsigned n, uint64_t job);

/* Change a byte of this slot of a, as it stands on the device. */
void spoil (uint32_t slot);

#endif
