/* SPDX-License-Identifier: BSD-3-Clause
 *
 * placement.h - which device gets the next slots?
 *
 * Structure: the devices that are open, in classes of equal priority. The highest class that has room comes first, down to
 *            single slots, before the next (a fragmented fast disk still beats a slow one); in a class the devices take
 *            turns, a stripe at a time: the whole stripe on every device, then halves (FreeBSD swap_pager.c 2020,
 *            swp_pager_getswapspace; NetBSD uvm_swap.c, uvm_swap_alloc and swaplist_trim). Where there is only one, all that
 *            is asked for takes the place of the stripe. Devices in trouble (slow, or just failed) come after all others.
 * Locking:   none; the drum's lock.
 * Memory:    the struct itself; nothing allocates.
 */
#ifndef DRUM_PLACEMENT_H
#define DRUM_PLACEMENT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "blist.h"

enum { PLACEMENT_MAX = 256 };
enum { PRIO_ANY = INT_MIN }; /* below all */

struct placement_device {
  struct blist *blist;
  uint32_t first; /* of its range of the drum */
  int prio;
  bool avoid; /* in trouble: only where no other device has room, in whatever class */
};

/* The devices of one priority: n of them from device[first] on. */
struct placement_class {
  unsigned first, n;
  unsigned turn; /* whose turn it is, 0 to n - 1 */
  uint32_t left; /* slots left of its stripe */
};

/* Zeroed, with stripe_slots, is empty. The fields are placement.c's. */
struct placement {
  uint32_t stripe_slots;
  unsigned ndevices, nclasses, navoided;
  struct placement_device device[PLACEMENT_MAX];
  struct placement_class class[PLACEMENT_MAX];
};

/* From now on these devices get slots; they come highest priority first, and equal ones in the order of their turns. Every
 * class starts a new turn. */
void placement_set (struct placement *p, const struct placement_device *devices, unsigned n);

/* Take up to n slots (at most BLIST_MIN_MAX), in as few runs as there are, of devices whose priority is higher than above. runs must have room for
 * n. Returns how many it took: fewer than n only if those devices have no more. */
uint32_t placement_take (struct placement *p, uint32_t n, int above, struct slot_run *runs,
                         unsigned *nruns);

#endif
