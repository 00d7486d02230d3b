/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum.c - slots: given out, taken back, and found; the accounting, with what is promised, is room.c, who gets which slots placement.c, the
 * address space space.c.
 */
#include <config.h>

#include "drum.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bug.h"
#include "drum-impl.h"
#include "log.h"
#include "swapdev.h"
#include "units.h"

int
drum_create (uint32_t stripe_bytes, struct drum **dp)
{
  pthread_condattr_t attr;
  struct drum *d;

  if (stripe_bytes < STRIPE_MIN_BYTES || stripe_bytes > STRIPE_MAX_BYTES ||
      (stripe_bytes & (stripe_bytes - 1)))
    return -EINVAL;
  d = aligned_alloc (_Alignof(struct drum), sizeof *d);
  if (!d)
    return -ENOMEM;
  memset (d, 0, sizeof *d);
  mutex_init (&d->admin);
  mutex_init (&d->lock);
  pthread_cond_init (&d->slots_returned, NULL);
  pthread_condattr_init (&attr);
  pthread_condattr_setclock (&attr, CLOCK_MONOTONIC);
  pthread_cond_init (&d->sick, &attr);
  pthread_condattr_destroy (&attr);
  d->placement.stripe_slots = stripe_bytes >> PAGE_SHIFT;
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
  pthread_cond_destroy (&d->sick);
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

void
drum_give_back_locked (struct drum *d, struct device *dev, struct slot_run run)
{
  mutex_assert_held (&d->lock);
  if (run.n == 0)
    return;
  if (blist_free (dev->blist, run.first, run.n) == 0)
    d->room.nfree += dev->state == DEVICE_OPEN ? run.n : 0;
  else
    bug ("%s: slots %u to %u are freed, and were not used", swapdev_path (dev->swapdev), run.first,
         run.first + run.n - 1);
}

/* => holds d->lock. Doomed slots among them are not given back. */
static void
free_run_locked (struct drum *d, struct slot_run run)
{
  uint32_t first = 0, doomed;
  struct device *dev = space_lookup (&d->space, run.first, &first);

  mutex_assert_held (&d->lock);
  if (!dev) {
    bug ("slot %u is freed, and on no device", run.first);
    return;
  }
  run.first -= first;
  while (health_take_doomed (&dev->health, run, &doomed)) {
    drum_give_back_locked (d, dev, (struct slot_run){ run.first, doomed - run.first });
    drum_suspect_locked (d, dev, (struct slot_run){ doomed, 1 }, 0);
    run.n -= doomed + 1 - run.first;
    run.first = doomed + 1;
  }
  drum_give_back_locked (d, dev, run);
}

/* => holds d->lock. Take n slots, or none: -ENOSPC if the devices above have not so many. */
static int
take_locked (struct drum *d, uint32_t n, int above, struct slot_run *runs, unsigned *nruns)
{
  unsigned k;
  uint32_t taken = placement_take (&d->placement, n, above, runs, &k);

  mutex_assert_held (&d->lock);
  d->room.nfree -= taken;
  if (taken == n) {
    *nruns = k;
    return 0;
  }
  while (k > 0)
    free_run_locked (d, runs[--k]);
  if (above != PRIO_ANY)
    return -ENOSPC;
  bug ("%u slots that the drum counts as free are in no blist", n - taken);
  return -EIO;
}

bool
drum_may_reopen (const struct device *dev)
{
  return dev->state == DEVICE_CLOSING && dev->before == DEVICE_OPEN;
}

/* => holds d->lock. Somebody's page needs the room of the devices that are closing. Is there some now? */
static bool
reopen_closing_locked (struct drum *d)
{
  bool any = false;

  mutex_assert_held (&d->lock);
  for (unsigned i = 0; i < d->ndevices && d->nclosed > 0; i++)
    if (drum_may_reopen (d->device[i])) {
      drum_set_state_locked (d, d->device[i], DEVICE_OPEN);
      any = true;
    }
  return any;
}

void
drum_count_closing_locked (struct drum *d)
{
  mutex_assert_held (&d->lock);
  d->room.closing.nslots = d->room.closing.nfree = 0;
  for (unsigned i = 0; i < d->ndevices && d->nclosed > 0; i++)
    if (drum_may_reopen (d->device[i])) {
      d->room.closing.nslots += drum_nusable (d->device[i]);
      d->room.closing.nfree += blist_nfree (d->device[i]->blist);
    }
}

struct room_notice
drum_check_room_locked (struct drum *d)
{
  mutex_assert_held (&d->lock);
  drum_count_closing_locked (d);
  return room_check (&d->room);
}

/* => holds d->lock. */
static bool
fits_locked (struct drum *d, const struct drum_demand *want)
{
  mutex_assert_held (&d->lock);
  drum_count_closing_locked (d);
  return room_fits (&d->room, want->account, want->nnew, want->ngrow);
}

/* => holds d->lock, and lets go of it to wait. */
static bool
has_room_locked (struct drum *d, const struct drum_demand *want)
{
  uint32_t n = want->nnew + want->nmove;

  mutex_assert_held (&d->lock);
  do {
    while (n == 1 && d->room.nfree == 0 && d->room.nmoving > 0 && fits_locked (d, want) &&
           !room_is_limited (want->account, want->ngrow)) {
      d->nwaiting++;
      mutex_wait (&d->lock, &d->slots_returned);
      d->nwaiting--;
    }
    if (room_is_limited (want->account, want->ngrow))
      return false;
    if (n <= d->room.nfree && fits_locked (d, want))
      return true;
  } while (n == 1 && reopen_closing_locked (d));
  return false;
}

/* => holds d->lock. Take what there is room for. */
static int
grant_locked (struct drum *d, const struct drum_demand *want, int above, struct slot_run *runs,
              unsigned *nruns)
{
  int ret = take_locked (d, want->nnew + want->nmove, above, runs, nruns);

  mutex_assert_held (&d->lock);
  if (ret == 0) {
    d->room.nmoving += want->nmove;
    room_count (&d->room, want->account, want->ngrow);
  }
  return ret;
}

static bool
is_sound (const struct drum_demand *want)
{
  uint64_t n = (uint64_t) want->nnew + want->nmove;

  return n > 0 && n <= DRUM_BATCH && want->ngrow <= want->nnew;
}

int
drum_alloc (struct drum *d, const struct drum_demand *want, struct slot_run *runs, unsigned *nruns)
{
  struct room_notice notice = { .what = ROOM_NOTHING };
  int ret = -ENOSPC;

  if (!is_sound (want))
    return -EINVAL;
  mutex_lock (&d->lock);
  if (has_room_locked (d, want)) {
    ret = grant_locked (d, want, PRIO_ANY, runs, nruns);
    notice = drum_check_room_locked (d);
  } else if (want->nnew + want->nmove == 1)
    notice = room_is_limited (want->account, want->ngrow) ? room_limited (want->account)
                                                          : room_refused (&d->room, d->nclosed > 0);
  mutex_unlock (&d->lock);
  drum_say (notice);
  return ret;
}

int
drum_alloc_above (struct drum *d, int above, const struct drum_demand *want, struct slot_run *runs,
                  unsigned *nruns)
{
  int ret = -ENOSPC;

  if (!is_sound (want))
    return -EINVAL;
  mutex_lock (&d->lock);
  if (!room_is_limited (want->account, want->ngrow) && want->nnew + want->nmove <= d->room.nfree &&
      fits_locked (d, want))
    ret = grant_locked (d, want, above, runs, nruns);
  mutex_unlock (&d->lock);
  return ret;
}

bool
drum_slot_returns (struct drum *d, uint32_t slot)
{
  uint32_t first;
  const struct device *dev;

  if (atomic_load_explicit (&d->nclosed, memory_order_relaxed) == 0)
    return true;
  dev = space_lookup (&d->space, slot, &first);
  return dev && dev->state == DEVICE_OPEN;
}

void
drum_unlock_returned (struct drum *d, const struct drum_return *what)
{
  struct room_notice notice;

  mutex_assert_held (&d->lock);
  if (what) {
    if (what->nmove > d->room.nmoving)
      bug ("more moves end than began");
    d->room.nmoving -= what->nmove;
    room_count (&d->room, what->account, -(int64_t) what->nshrink);
  }
  notice = drum_check_room_locked (d);
  if (d->nwaiting)
    pthread_cond_broadcast (&d->slots_returned);
  mutex_unlock (&d->lock);
  drum_say (notice);
}

void
drum_free (struct drum *d, const struct slot_run *runs, unsigned nruns,
           const struct drum_return *what)
{
  mutex_lock (&d->lock);
  for (unsigned i = 0; i < nruns; i++)
    free_run_locked (d, runs[i]);
  drum_unlock_returned (d, what);
}

int
drum_promise (struct drum *d, struct room_account *a, const struct room_promise *want, bool force,
              struct room_shortage *shortage)
{
  struct room_notice notice = { .what = ROOM_NOTHING };
  int ret;

  mutex_lock (&d->lock);
  drum_count_closing_locked (d);
  ret = force ? 0 : room_may_promise (&d->room, a, want, shortage);
  if (ret == 0) {
    room_promise (&d->room, a, want);
    notice = drum_check_room_locked (d);
  }
  mutex_unlock (&d->lock);
  drum_say (notice);
  return ret;
}

struct room_promise
drum_promised (struct drum *d, const struct room_account *a)
{
  struct room_promise promise;

  mutex_lock (&d->lock);
  promise = a->promise;
  mutex_unlock (&d->lock);
  return promise;
}

void
drum_set_overcommit (struct drum *d, bool overcommit)
{
  uint64_t nsizes, nusable;
  char sizes_text[16], usable_text[16];

  mutex_lock (&d->lock);
  d->room.no_overcommit = !overcommit;
  nsizes = d->room.nsizes;
  nusable = room_nusable (&d->room);
  mutex_unlock (&d->lock);
  if (!overcommit && nsizes > nusable)
    log_warning ("overcommit=no: the exports come to %s, and the drum has %s: add a device",
                 format_bytes (nsizes * PAGE_BYTES, sizes_text),
                 format_bytes (nusable * PAGE_BYTES, usable_text));
}

int
drum_may_pass (struct drum *d, const struct room_account *from, const struct room_account *to,
               uint64_t npages, struct room_shortage *shortage)
{
  int ret;

  mutex_lock (&d->lock);
  drum_count_closing_locked (d);
  ret = room_may_pass (&d->room, from, to, npages, shortage);
  mutex_unlock (&d->lock);
  return ret;
}

int
drum_pass_account (struct drum *d, struct room_account *from, struct room_account *to,
                   uint64_t npages, bool force, struct room_shortage *shortage)
{
  struct room_notice notice = { .what = ROOM_NOTHING };
  int ret;

  mutex_lock (&d->lock);
  drum_count_closing_locked (d);
  ret = room_may_pass (&d->room, from, to, npages, shortage);
  if (ret == 0 || force) {
    room_count (&d->room, from, -(int64_t) npages);
    room_count (&d->room, to, (int64_t) npages);
    notice = drum_check_room_locked (d);
  }
  mutex_unlock (&d->lock);
  drum_say (notice);
  return ret;
}

/* As drum_claim. */
void
drum_claim_account (struct drum *d, struct room_account *a, int change)
{
  room_count (&d->room, a, change);
}

/* Without the lock: nobody else is there. */
uint32_t
drum_claim (struct drum *d, struct slot_run run)
{
  uint32_t first = 0, ntaken;
  struct device *dev = space_lookup (&d->space, run.first, &first);

  if (!dev)
    return 0;
  ntaken = blist_take (dev->blist, run.first - first, run.n);
  if (dev->state == DEVICE_OPEN)
    d->room.nfree -= ntaken;
  return ntaken;
}

void
drum_prefetch (struct drum *d, uint32_t slot)
{
  uint32_t first = 0;
  const struct device *dev = space_lookup (&d->space, slot, &first);

  if (dev)
    blist_prefetch (dev->blist, slot - first);
}

enum drum_slot_kind
drum_slot_kind (struct drum *d, uint32_t slot)
{
  uint32_t first = 0;
  const struct device *dev = space_lookup (&d->space, slot, &first);

  if (!dev || slot - first < SWAPDEV_NRESERVED)
    return DRUM_SLOT_NONE;
  for (uint32_t i = 0; i < swapdev_nbad (dev->swapdev); i++)
    if (swapdev_bad_slot (dev->swapdev, i) == slot - first)
      return DRUM_SLOT_BAD;
  return DRUM_SLOT_GOOD;
}

/* => holds d->lock. A device that this sync has not come to yet; pinned, so that it stays. NULL: that was the last. */
static struct device *
pin_unsynced_locked (struct drum *d)
{
  mutex_assert_held (&d->lock);
  for (unsigned i = 0; i < d->ndevices; i++) {
    struct device *dev = d->device[i];

    if (dev->nsyncs != d->nsyncs) {
      dev->nsyncs = d->nsyncs;
      dev->npins++;
      return dev;
    }
  }
  return NULL;
}

static int
sync_device (struct drum *d, struct device *dev)
{
  int ret = swapdev_sync (dev->swapdev);

  if (ret < 0)
    drum_fail_device (d, dev->swapdev, "what was written to it can't be made durable");
  return ret;
}

int
drum_sync_slot (struct drum *d, uint32_t slot)
{
  uint32_t device_slot;
  struct device *dev = drum_device_at (d, slot, &device_slot);

  return dev ? sync_device (d, dev) : -EIO;
}

int
drum_sync (struct drum *d)
{
  struct device *dev;
  int ret = 0;

  mutex_lock (&d->lock);
  d->nsyncs++;
  while ((dev = pin_unsynced_locked (d))) {
    int err;

    mutex_unlock (&d->lock);
    err = sync_device (d, dev);
    ret = err < 0 ? err : ret;
    mutex_lock (&d->lock);
    dev->npins--;
  }
  mutex_unlock (&d->lock);
  return ret;
}

struct device *
drum_device_at (struct drum *d, uint32_t slot, uint32_t *device_slot)
{
  uint32_t first = 0;
  struct device *dev = space_lookup (&d->space, slot, &first);

  if (!dev)
    bug ("slot %u is on no device", slot);
  *device_slot = slot - first;
  return dev;
}

void
drum_set_rings (struct drum *d, struct rings *rings)
{
  d->rings = rings;
}

struct rings *
drum_rings (const struct drum *d)
{
  return d->rings;
}

/* How a read or write at this slot of the device went. */
static int
note (struct drum *d, struct device *dev, uint32_t device_slot, bool write, int ret)
{
  if (health_note (&dev->health, device_slot, write, ret))
    drum_fail_device (d, dev->swapdev, strerror (-ret));
  return ret;
}

void
drum_transfer (struct drum *d, const struct flow *flow, bool write, struct drum_io *io, unsigned n,
               uint64_t *known_ns)
{
  struct swapdev_io at[DRUM_TOGETHER];
  struct device *dev[DRUM_TOGETHER];
  uint32_t slot[DRUM_TOGETHER];
  unsigned nfound = 0;

  for (unsigned i = 0; i < n; i++) {
    struct swapdev_io *one = &at[nfound];

    io[i].ret = -EIO;
    dev[i] = drum_device_at (d, io[i].slot, &slot[i]);
    if (!dev[i])
      continue;
    one->dev = dev[i]->swapdev;
    one->flow = flow;
    one->slot = slot[i];
    one->iov = io[i].iov;
    one->niov = io[i].niov;
    one->write = write;
    nfound++;
  }
  swapdev_transfer (at, nfound, d->rings, known_ns);
  for (unsigned i = 0, k = 0; i < n; i++)
    if (dev[i])
      io[i].ret = note (d, dev[i], slot[i], write, at[k++].ret);
}

void
drum_readahead (struct drum *d, struct slot_run run)
{
  uint32_t device_slot;
  struct device *dev = drum_device_at (d, run.first, &device_slot);

  if (dev)
    swapdev_readahead (dev->swapdev, device_slot, run.n);
}

uint32_t
drum_stripe_bytes (const struct drum *d)
{
  return d->placement.stripe_slots << PAGE_SHIFT;
}

void
drum_usage (struct drum *d, struct drum_usage *usage)
{
  mutex_lock (&d->lock);
  *usage = (struct drum_usage){ .nslots = d->room.nslots,
                                .nfree = d->room.nfree,
                                .nkept = d->room.nkept,
                                .nreserved = d->room.nreserved,
                                .npromised = d->room.npromised,
                                .overcommit = !d->room.no_overcommit };
  mutex_unlock (&d->lock);
}

/* => holds d->lock. Is no slot of the run free? */
static bool
none_is_free (const struct device *dev, struct slot_run run)
{
  struct slot_run found;

  return !blist_next_before (dev->blist, run.first, run.first + run.n, true, &found);
}

/* => holds d->lock. Is each slot of a device one of: reserved, bad, suspect, free, or used? */
static bool
check_device_locked (struct drum *d, const struct device *dev)
{
  const struct health *h = &dev->health;
  uint64_t nsuspect = 0;
  bool ok = none_is_free (dev, (struct slot_run){ 0, SWAPDEV_NRESERVED });

  mutex_assert_held (&d->lock);
  for (uint32_t i = 0; i < swapdev_nbad (dev->swapdev); i++)
    ok = ok && none_is_free (dev, (struct slot_run){ swapdev_bad_slot (dev->swapdev, i), 1 });
  for (unsigned i = 0; i < h->nruns; i++) {
    nsuspect += h->suspect[i].run.n;
    ok = ok && none_is_free (dev, h->suspect[i].run);
  }
  for (unsigned i = 0; i < h->ndoomed; i++)
    ok = ok && none_is_free (dev, (struct slot_run){ h->doomed[i], 1 });
  ok =
    ok && (nsuspect == h->nsuspect || dev->npins > 0); /* those that are looked at are in no run */
  return ok && blist_nfree (dev->blist) + (uint64_t) h->nsuspect + swapdev_nbad (dev->swapdev) +
                   SWAPDEV_NRESERVED <=
                 swapdev_nslots (dev->swapdev);
}

bool
drum_check (struct drum *d)
{
  uint64_t nslots = 0, nfree = 0;
  bool ok = true;

  mutex_lock (&d->lock);
  for (unsigned i = 0; i < d->ndevices; i++) {
    ok = ok && blist_check (d->device[i]->blist) && check_device_locked (d, d->device[i]);
    if (d->device[i]->state != DEVICE_OPEN)
      continue;
    nslots += drum_nusable (d->device[i]);
    nfree += blist_nfree (d->device[i]->blist);
  }
  ok = ok && nslots == d->room.nslots && nfree == d->room.nfree &&
       d->room.nkept == room_nkept (nslots) && d->room.npromised <= d->room.nreserved;
  mutex_unlock (&d->lock);
  return ok;
}
