/* SPDX-License-Identifier: BSD-3-Clause
 *
 * medic.h - a thread that looks at what is sick: suspect slots, and failing devices.
 *
 * A run of slots that took no data is written and read once more; if that fails it is halved, down to the slots that are bad,
 * which are few. They are never used again, and kept in the label (NetBSD uvm_swap.c, uvm_swap_markbad). A device with too many
 * of them, or whose label can't hold more, is failing.
 * Locking: none of its own. An I/O that hangs holds up only the medic.
 * Memory:  128 KiB, from the start on.
 */
#ifndef DRUM_MEDIC_H
#define DRUM_MEDIC_H

struct drum;
struct medic;
struct swapdev;

/* failing is called, by the medic's thread, for a device whose pages are to be moved off: see drum_next_sick. After the fork. */
int medic_start (struct drum *d, void (*failing) (void *opaque, struct swapdev *dev), void *opaque,
                 struct medic **m);

/* What it has begun it ends; then it has gone. */
void medic_stop (struct medic *m);

#endif
