/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bounce.h - aligned buffers for O_DIRECT, which most clients' memory is not fit for.
 *
 * Memory:  BOUNCE_BUFFERS of DEVIO_BUFFER_BYTES (4 MiB in all), made at start and kept out of core dumps.
 * Waiting: who finds none free waits and never fails. A device has at most BOUNCE_SHARE (which swapdev.c sees to), so that one whose
 *          I/O hangs leaves some for the others. Who has one waits for nothing but its I/O, and takes a second one only if it is there, so they come
 *          back; who waits for one may have its turn on a device already. Who moves pages needs none, since its own memory is
 *          aligned, and neither do labels: so an evacuation does not wait for them.
 * Locking: its own, a leaf; any number of threads at once.
 */
#ifndef DRUM_BOUNCE_H
#define DRUM_BOUNCE_H

enum { BOUNCE_BUFFERS = 16, BOUNCE_SHARE = 12 };

struct bounce;

/* 0 or -ENOMEM. */
int bounce_create (struct bounce **b);
void bounce_destroy (struct bounce *b);

/* Have all of its memory now. -ENOMEM. */
int bounce_touch (struct bounce *b);

/* DEVIO_BUFFER_BYTES, aligned to a page. May sleep. */
void *bounce_get (struct bounce *b);
void *bounce_try_get (struct bounce *b); /* never sleeps; NULL: none is free */
void bounce_put (struct bounce *b, void *buffer);

#endif
