/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bounce.h - aligned buffers for O_DIRECT, which most clients' memory is not fit for.
 *
 * Memory:  BOUNCE_BUFFERS of DEVIO_BUFFER_BYTES (4 MiB in all), made at start and kept out of core dumps.
 * Waiting: who finds none free waits and never fails; so does who wants more than BOUNCE_SHARE for one device, so that one whose I/O
 *          hangs leaves some for the others. Who has one waits for nothing but its turn on a device, and has no second
 *          one, so they come back. Who moves pages needs none, since its own memory is aligned, and neither do labels: so
 *          an evacuation goes on whatever the clients do.
 * Locking: its own, a leaf; any number of threads at once.
 */
#ifndef DRUM_BOUNCE_H
#define DRUM_BOUNCE_H

#include <semaphore.h>

enum { BOUNCE_BUFFERS = 16, BOUNCE_SHARE = 12 };

struct bounce;

/* What a device may have at once. The field is bounce.c's. */
struct bounce_share {
  sem_t left;
};

void bounce_share_init (struct bounce_share *share);
void bounce_share_destroy (struct bounce_share *share);

/* 0 or -ENOMEM. */
int bounce_create (struct bounce **b);
void bounce_destroy (struct bounce *b);

/* Have all of its memory now. -ENOMEM. */
int bounce_touch (struct bounce *b);

/* DEVIO_BUFFER_BYTES, aligned to a page, of this share. May sleep. */
void *bounce_get (struct bounce *b, struct bounce_share *share);
void bounce_put (struct bounce *b, struct bounce_share *share, void *buffer);

#endif
