/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bounce.h - aligned buffers for O_DIRECT, which most clients' memory is not fit for.
 *
 * Memory:  BOUNCE_BUFFERS of DEVIO_BUFFER_BYTES (4 MiB in all), made at start and kept out of core dumps.
 * Waiting: who finds none free waits and never fails. Who has one waits for nothing but its turn on a device, and has no second
 *          one, so they come back. Who moves pages needs none, since its own memory is aligned, and neither do labels: so
 *          an evacuation goes on whatever the clients do.
 * Locking: its own, a leaf; any number of threads at once.
 */
#ifndef DRUM_BOUNCE_H
#define DRUM_BOUNCE_H

enum { BOUNCE_BUFFERS = 16 };

struct bounce;

/* 0 or -ENOMEM. */
int bounce_create (struct bounce **b);
void bounce_destroy (struct bounce *b);

/* Have all of its memory now. -ENOMEM. */
int bounce_touch (struct bounce *b);

/* DEVIO_BUFFER_BYTES, aligned to a page. May sleep. */
void *bounce_get (struct bounce *b);
void bounce_put (struct bounce *b, void *buffer);

#endif
