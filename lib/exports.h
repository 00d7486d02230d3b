/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.h - which exports a drum has, by name.
 *
 * Lifetime: who gets one has it until he lets go of it, also if it is removed meanwhile: then it is empty, and goes with the last who has
 *           it.
 * Locking:  a mutex of its own, a leaf.
 * Cost:     a search is O(log n); to add or remove one, O(n).
 * Errors:   0 or -errno.
 */
#ifndef DRUM_EXPORTS_H
#define DRUM_EXPORTS_H

struct export;
struct exports;

/* -ENOMEM */
int exports_create (struct exports **x);

/* With all that are in it, whoever has one: nobody uses it any more. */
void exports_destroy (struct exports *x);

/* From here on it is the table's to destroy. -EEXIST: there is one of that name; -ENOMEM. */
int exports_add (struct exports *x, struct export *e);

/* NULL: there is none of that name. Let go of it with export_release. */
struct export *exports_get (struct exports *x, const char *name);

/* Walk over all of them by name: the first one behind prev, which is let go of; NULL: from the beginning, or the end. */
struct export *exports_next (struct exports *x, struct export *prev);

/* It is not found any more. */
void exports_remove (struct exports *x, struct export *e);

unsigned exports_count (struct exports *x);

#endif
