/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum.c - devices, placement and accounting; the address space itself is space.c.
 *
 * Accounting, all under the drum's lock:
 *   nslots   usable slots of all devices                nfree    of them free, as their blists have it
 *   nmoving  slots that moves under way will return     nkept    drum_nkept (nslots)
 * A page may get its first slot only while nfree + nmoving > nkept; a move needs just a free slot. So whatever the
 * moves under way hold, nkept slots come back when they end, and a move that finds none free need only wait.
 */
#include <config.h>

#include "drum.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bug.h"
#include "log.h"
#include "mutex.h"
#include "space.h"
#include "swapdev.h"
#include "units.h"

_Static_assert(DRUM_MAX_DEVICES == (int) SPACE_MAX, "every device has a range");

struct device {
  struct swapdev *swapdev;
  struct blist *blist;
  uint32_t first; /* of its range of the drum */
};

/* The devices of one priority: n of them from device[first] on. */
struct class {
  unsigned first, n;
  unsigned turn; /* whose turn it is, 0 to n - 1 */
  uint32_t left; /* slots left of its stripe */
};

/* What to say once the lock is let go. */
struct notice {
  enum { NOTHING, ALMOST_FULL, FULL, ROOM_AGAIN } what;
  uint64_t room; /* slots left */
};

struct drum {
  struct mutex admin; /* device changes; taken before lock */
  struct mutex lock;  /* all below, but readers of space take none */
  struct space space; /* owner: struct device */
  pthread_cond_t slots_returned;
  unsigned nwaiting; /* for slots_returned */
  uint32_t stripe_slots;
  uint64_t nslots, nfree, nmoving, nkept;
  bool almost_full, full; /* said already */
  unsigned ndevices, nclasses;
  struct device *device[DRUM_MAX_DEVICES]; /* by priority, highest first; equal ones as they came */
  struct class class[DRUM_MAX_DEVICES];
};

int
drum_create (uint32_t stripe_bytes, struct drum **dp)
{
  struct drum *d;

  if (stripe_bytes < STRIPE_MIN_BYTES || stripe_bytes > STRIPE_MAX_BYTES ||
      (stripe_bytes & (stripe_bytes - 1)))
    return -EINVAL;
  d = calloc (1, sizeof *d);
  if (!d)
    return -ENOMEM;
  mutex_init (&d->admin);
  mutex_init (&d->lock);
  pthread_cond_init (&d->slots_returned, NULL);
  d->stripe_slots = stripe_bytes >> PAGE_SHIFT;
  *dp = d;
  return 0;
}

static void
destroy (struct drum *d, void (*end_device) (struct swapdev *))
{
  for (unsigned i = 0; i < d->ndevices; i++) {
    end_device (d->device[i]->swapdev);
    free (d->device[i]);
  }
  pthread_cond_destroy (&d->slots_returned);
  mutex_destroy (&d->lock);
  mutex_destroy (&d->admin);
  free (d);
}

void
drum_destroy (struct drum *d)
{
  destroy (d, swapdev_close);
}

void
drum_undo (struct drum *d)
{
  destroy (d, swapdev_undo);
}

uint64_t
drum_nkept (uint64_t nslots)
{
  uint64_t nkept = nslots / 64;

  return nslots == 0 ? 0 : nkept < 1 ? 1 : nkept > 1024 ? 1024 : nkept;
}

int
drum_check_sizes (const uint32_t *nslots, unsigned n)
{
  uint64_t sum = 0;

  for (unsigned i = 0; i < n; i++)
    sum += (uint64_t) nslots[i] + (i > 0); /* a guard slot before each but the first */
  return n > DRUM_MAX_DEVICES ? -EMFILE : sum > SLOT_MAX ? -EFBIG : 0;
}

/* => holds d->lock. Group the devices by priority; every class starts a new turn. */
static void
make_classes_locked (struct drum *d)
{
  mutex_assert_held (&d->lock);
  d->nclasses = 0;
  for (unsigned i = 0; i < d->ndevices; i++) {
    if (i > 0 && swapdev_prio (d->device[i - 1]->swapdev) == swapdev_prio (d->device[i]->swapdev))
      d->class[d->nclasses - 1].n++;
    else
      d->class[d->nclasses++] = (struct class){ .first = i, .n = 1, .left = d->stripe_slots };
  }
}

/* => holds d->lock. A device with nslots usable slots, nfree of them free, came. */
static void
account_device_locked (struct drum *d, uint64_t nslots, uint64_t nfree)
{
  mutex_assert_held (&d->lock);
  d->nslots += nslots;
  d->nfree += nfree;
  d->nkept = drum_nkept (d->nslots);
}

/* => holds d->lock. How many more pages may get their first slot? */
static uint64_t
room_locked (struct drum *d)
{
  uint64_t nfree = d->nfree + d->nmoving;

  mutex_assert_held (&d->lock);
  return nfree > d->nkept ? nfree - d->nkept : 0;
}

/* => holds d->lock. FreeBSD's swp_sizecheck: say once that room runs out, and once that there is some again. */
static struct notice
size_check_locked (struct drum *d)
{
  uint64_t room = room_locked (d);
  uint64_t low = d->nslots / 8 < DRUM_LOW_WATER ? d->nslots / 8 : DRUM_LOW_WATER;
  uint64_t high = d->nslots / 2 < DRUM_HIGH_WATER ? d->nslots / 2 : DRUM_HIGH_WATER;

  if (!d->almost_full && room < low) {
    d->almost_full = true;
    return (struct notice){ ALMOST_FULL, room };
  }
  if ((d->almost_full || d->full) && room > high) {
    d->almost_full = d->full = false;
    return (struct notice){ ROOM_AGAIN, room };
  }
  return (struct notice){ NOTHING, room };
}

/* => no lock held. */
static void
say (struct notice notice)
{
  switch (notice.what) {
  case NOTHING:
    break;
  case ALMOST_FULL:
    log_warning ("the drum is almost full: %" PRIu64 " slots are left", notice.room);
    break;
  case FULL:
    log_warning ("the drum is full: writes of new pages fail (ENOSPC) until some are freed or a "
                 "device is added");
    break;
  case ROOM_AGAIN:
    log_notice ("the drum has room again: %" PRIu64 " slots", notice.room);
    break;
  }
}

int
drum_add (struct drum *d, struct swapdev *swapdev)
{
  struct device *dev = malloc (sizeof *dev);
  struct notice notice = { .what = NOTHING };
  unsigned at = 0;
  int ret;

  if (!dev)
    return -ENOMEM;
  dev->swapdev = swapdev;
  dev->blist = swapdev_blist (swapdev);

  mutex_lock (&d->admin);
  mutex_lock (&d->lock);
  ret = space_insert (&d->space, swapdev_nslots (swapdev), dev, &dev->first);
  if (ret == 0) {
    while (at < d->ndevices && swapdev_prio (d->device[at]->swapdev) >= swapdev_prio (swapdev))
      at++;
    memmove (&d->device[at + 1], &d->device[at], (d->ndevices - at) * sizeof d->device[0]);
    d->device[at] = dev;
    d->ndevices++;
    make_classes_locked (d);
    account_device_locked (d, swapdev_nusable (swapdev), blist_nfree (dev->blist));
    notice = size_check_locked (d);
    pthread_cond_broadcast (&d->slots_returned);
  }
  mutex_unlock (&d->lock);
  mutex_unlock (&d->admin);
  say (notice);
  if (ret < 0)
    free (dev);
  return ret;
}

/* => holds d->lock. Take device[at] out, which has no used slot. */
static void
take_out_locked (struct drum *d, unsigned at)
{
  struct device *dev = d->device[at];
  uint64_t nusable = swapdev_nusable (dev->swapdev);

  mutex_assert_held (&d->lock);
  space_remove (&d->space, dev->first);
  d->ndevices--;
  memmove (&d->device[at], &d->device[at + 1], (d->ndevices - at) * sizeof d->device[0]);
  make_classes_locked (d);
  account_device_locked (d, -nusable, -nusable);
}

/* => holds d->lock. Is dev empty, and do the others, without its slots, have those to keep back? */
static int
check_removal_locked (struct drum *d, const struct device *dev)
{
  uint64_t nusable = swapdev_nusable (dev->swapdev);

  mutex_assert_held (&d->lock);
  if (blist_nfree (dev->blist) != nusable)
    return -EBUSY;
  return d->nfree - nusable + d->nmoving < drum_nkept (d->nslots - nusable) ? -ENOSPC : 0;
}

int
drum_remove (struct drum *d, struct swapdev *swapdev)
{
  struct notice notice = { .what = NOTHING };
  struct device *dev = NULL;
  int ret = -ENOENT;

  mutex_lock (&d->admin);
  mutex_lock (&d->lock);
  for (unsigned i = 0; i < d->ndevices; i++)
    if (d->device[i]->swapdev == swapdev) {
      dev = d->device[i];
      ret = check_removal_locked (d, dev);
      if (ret == 0) {
        take_out_locked (d, i);
        notice = size_check_locked (d);
      }
      break;
    }
  mutex_unlock (&d->lock);
  say (notice);
  if (ret == 0) {
    swapdev_close (swapdev);
    free (dev);
  }
  mutex_unlock (&d->admin);
  return ret;
}

static void
pass_turn (struct drum *d, struct class *c)
{
  c->turn = c->turn + 1 == c->n ? 0 : c->turn + 1;
  c->left = d->stripe_slots;
}

/* => holds d->lock. Take one run of at most n slots from class c: all that n and the stripe allow on every device, in
 * turn, then half of that, down to 1. -ENOSPC if every device of the class is full. */
static int
alloc_in_class_locked (struct drum *d, struct class *c, uint32_t n, struct slot_run *run)
{
  mutex_assert_held (&d->lock);
  for (uint32_t min = n < d->stripe_slots ? n : d->stripe_slots; min > 0; min /= 2)
    for (unsigned i = 0; i < c->n; i++) {
      struct device *dev = d->device[c->first + c->turn];
      uint32_t max = n < c->left ? n : c->left;

      if (blist_alloc (dev->blist, min < max ? min : max, max, run) == 0) {
        run->first += dev->first;
        c->left -= run->n;
        if (c->left == 0)
          pass_turn (d, c);
        return 0;
      }
      pass_turn (d, c);
    }
  return -ENOSPC;
}

/* => holds d->lock. */
static void
free_run_locked (struct drum *d, struct slot_run run)
{
  uint32_t first = 0;
  struct device *dev = space_lookup (&d->space, run.first, &first);

  mutex_assert_held (&d->lock);
  if (dev && blist_free (dev->blist, run.first - first, run.n) == 0)
    d->nfree += run.n;
  else
    bug ("slots %u to %u are freed, and were not used", run.first, run.first + run.n - 1);
}

/* => holds d->lock, and there are n free slots. Take them in the fewest runs that the rules give. */
static int
place_locked (struct drum *d, uint32_t n, struct slot_run *runs, unsigned *nruns)
{
  struct slot_run run;
  unsigned k = 0;

  mutex_assert_held (&d->lock);
  for (struct class *c = d->class; n > 0 && c < d->class + d->nclasses;) {
    if (alloc_in_class_locked (d, c, n, &run) < 0) {
      c++;
      continue;
    }
    n -= run.n;
    d->nfree -= run.n;
    if (k > 0 && runs[k - 1].first + runs[k - 1].n == run.first)
      runs[k - 1].n += run.n; /* the next stripe of a class of one */
    else
      runs[k++] = run;
  }
  if (n > 0) {
    bug ("%u slots that the drum counts as free are in no blist", n);
    while (k > 0)
      free_run_locked (d, runs[--k]);
    return -EIO;
  }
  *nruns = k;
  return 0;
}

int
drum_alloc (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs, unsigned *nruns)
{
  uint32_t n = nnew + nmove;
  struct notice notice = { .what = NOTHING };
  int ret = -ENOSPC;

  if (n == 0 || n > DRUM_BATCH)
    return -EINVAL;
  mutex_lock (&d->lock);
  while (n == 1 && nnew <= room_locked (d) && d->nfree == 0 && d->nmoving > 0) {
    d->nwaiting++;
    mutex_wait (&d->lock, &d->slots_returned);
    d->nwaiting--;
  }
  if (nnew <= room_locked (d) && n <= d->nfree) {
    ret = place_locked (d, n, runs, nruns);
    if (ret == 0)
      d->nmoving += nmove;
    notice = size_check_locked (d);
  } else if (n == 1 && !d->full) {
    d->full = true;
    notice.what = FULL;
  }
  mutex_unlock (&d->lock);
  say (notice);
  return ret;
}

void
drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns, uint32_t nmove)
{
  struct notice notice;

  mutex_lock (&d->lock);
  for (unsigned i = 0; i < nruns; i++)
    free_run_locked (d, runs[i]);
  if (nmove > d->nmoving)
    bug ("more moves end than began");
  d->nmoving -= nmove;
  notice = size_check_locked (d);
  if (d->nwaiting)
    pthread_cond_broadcast (&d->slots_returned);
  mutex_unlock (&d->lock);
  say (notice);
}

/* The device that slot is on, and its number there. */
static struct swapdev *
find_device (struct drum *d, uint32_t slot, uint32_t *device_slot)
{
  uint32_t first = 0;
  struct device *dev = space_lookup (&d->space, slot, &first);

  if (!dev) {
    bug ("slot %u is on no device", slot);
    return NULL;
  }
  *device_slot = slot - first;
  return dev->swapdev;
}

int
drum_read (struct drum *d, uint32_t slot, struct iovec *iov, unsigned niov)
{
  uint32_t device_slot;
  struct swapdev *swapdev = find_device (d, slot, &device_slot);

  return swapdev ? swapdev_read (swapdev, device_slot, iov, niov) : -EIO;
}

int
drum_write (struct drum *d, uint32_t slot, struct iovec *iov, unsigned niov)
{
  uint32_t device_slot;
  struct swapdev *swapdev = find_device (d, slot, &device_slot);

  return swapdev ? swapdev_write (swapdev, device_slot, iov, niov) : -EIO;
}

void
drum_readahead (struct drum *d, struct slot_run run)
{
  uint32_t device_slot;
  struct swapdev *swapdev = find_device (d, run.first, &device_slot);

  if (swapdev)
    swapdev_readahead (swapdev, device_slot, run.n);
}

void
drum_usage (struct drum *d, struct drum_usage *usage)
{
  mutex_lock (&d->lock);
  *usage = (struct drum_usage){ .nslots = d->nslots, .nfree = d->nfree, .nkept = d->nkept };
  mutex_unlock (&d->lock);
}

unsigned
drum_devices (struct drum *d, struct drum_device_usage *devices, unsigned max)
{
  unsigned n;

  mutex_lock (&d->lock);
  n = d->ndevices;
  for (unsigned i = 0; i < n && i < max; i++) {
    const struct device *dev = d->device[i];

    devices[i] = (struct drum_device_usage){
      .path = swapdev_path (dev->swapdev),
      .prio = swapdev_prio (dev->swapdev),
      .first = dev->first,
      .end = dev->first + swapdev_nslots (dev->swapdev),
      .nslots = swapdev_nusable (dev->swapdev),
      .nfree = blist_nfree (dev->blist),
    };
  }
  mutex_unlock (&d->lock);
  return n;
}

bool
drum_check (struct drum *d)
{
  uint64_t nslots = 0, nfree = 0;
  bool ok = true;

  mutex_lock (&d->lock);
  for (unsigned i = 0; i < d->ndevices; i++) {
    nslots += swapdev_nusable (d->device[i]->swapdev);
    nfree += blist_nfree (d->device[i]->blist);
    ok = ok && blist_check (d->device[i]->blist);
  }
  ok = ok && nslots == d->nslots && nfree == d->nfree && d->nkept == drum_nkept (nslots);
  mutex_unlock (&d->lock);
  return ok;
}
