/* SPDX-License-Identifier: BSD-3-Clause
 *
 * bounce.h - aligned buffers for O_DIRECT, which most clients' memory is not fit for.
 *
 * Memory:  of each kind so many as bounce_shape says (6 MiB in all), made at start and kept out of core dumps. Most requests
 *          are for a page or a few, and a long one comes in short pieces where slots are not in a row: these have small ones, so that many can be
 *          under way at once.
 * Waiting: who finds none free waits and never fails. A device has at most its share of each kind (which swapdev.c sees to), so that one whose
 *          I/O hangs leaves some for the others. Who has one waits for nothing but its I/O, and takes a second one only if it is there, so they come
 *          back; who waits for one may have its turn on a device already. Who moves pages needs none, since its own memory is
 *          aligned, and neither do labels: so an evacuation does not wait for them.
 * Locking: its own, a leaf; any number of threads at once.
 */
#ifndef DRUM_BOUNCE_H
#define DRUM_BOUNCE_H

#include <stddef.h>

enum bounce_kind { BOUNCE_SMALL, BOUNCE_LARGE, BOUNCE_KINDS };

struct bounce_shape {
  size_t bytes; /* of each; of the last kind DEVIO_BUFFER_BYTES */
  unsigned n;
  unsigned share; /* of a device */
};

extern const struct bounce_shape bounce_shape[BOUNCE_KINDS];

struct bounce;

/* 0 or -ENOMEM. */
int bounce_create (struct bounce **b);
void bounce_destroy (struct bounce *b);

/* Have all of its memory now. -ENOMEM. */
int bounce_touch (struct bounce *b);

/* What a request of so many bytes is to have; for one that is longer than the largest, that. */
enum bounce_kind bounce_kind (size_t bytes);

/* Aligned to a page. May sleep. */
void *bounce_get (struct bounce *b, enum bounce_kind kind);
void *bounce_try_get (struct bounce *b,
                      enum bounce_kind kind); /* never sleeps; NULL: none is free */
void bounce_put (struct bounce *b, enum bounce_kind kind, void *buffer);

#endif
