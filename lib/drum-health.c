/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "drum-health.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "bug.h"
#include "drum-impl.h"
#include "log.h"
#include "stats.h"
#include "swapdev.h"
#include "units.h"

enum {
  AGAIN_SECONDS = 30
}; /* until a file that was full, or a device that could not be emptied, is tried again */

static uint64_t
in_a_while_ns (void)
{
  return now_ns () + AGAIN_SECONDS * UINT64_C (1000000000);
}

/* => holds d->lock. Unless it is known to be failing, or is being removed. */
static void
fail_locked (struct drum *d, struct device *dev, const char *why)
{
  mutex_assert_held (&d->lock);
  if (dev->state != DEVICE_OPEN && dev->state != DEVICE_CLOSED)
    return;
  dev->again_ns = 0;
  dev->why = why;
  drum_set_state_locked (d, dev, DEVICE_FAILING);
}

void
drum_suspect_locked (struct drum *d, struct device *dev, struct slot_run run,
                     uint64_t not_before_ns)
{
  bool known = health_suspect (&dev->health, run, not_before_ns);

  mutex_assert_held (&d->lock);
  if (known && dev->state == DEVICE_OPEN)
    room_shrink (&d->room, run.n, 0);
  if (!known)
    drum_give_back_locked (d, dev, run);
  if (!known && not_before_ns == 0)
    fail_locked (d, dev, "too many of its slots took no data");
  if (!dev->avoid) {
    dev->avoid = true;
    drum_place_devices_locked (d);
  }
  pthread_cond_signal (&d->sick);
}

void
drum_slots_failed (struct drum *d, const struct slot_run *runs, unsigned nruns,
                   const struct drum_return *what, int err)
{
  uint64_t not_before_ns = err == -ENOSPC ? in_a_while_ns () : 0;

  mutex_lock (&d->lock);
  for (unsigned i = 0; i < nruns; i++) {
    struct slot_run run = runs[i];
    struct device *dev = drum_device_at (d, run.first, &run.first);

    if (dev)
      drum_suspect_locked (d, dev, run, not_before_ns);
  }
  drum_unlock_returned (d, what);
}

void
drum_read_failed (struct drum *d, uint32_t slot, int err)
{
  struct device *dev;
  uint32_t device_slot;

  mutex_lock (&d->lock);
  dev = drum_device_at (d, slot, &device_slot);
  if (dev) {
    if (err == -EBADMSG)
      atomic_fetch_add (&dev->health.nmismatches, 1);
    if (!health_doom (&dev->health, device_slot) &&
        err != -EBADMSG) /* a power failure leaves many */
      fail_locked (d, dev, "too many of its pages can't be read");
  }
  drum_unlock_returned (d, NULL);
}

const char *
drum_locate (struct drum *d, uint32_t slot, uint64_t *offset_bytes)
{
  uint32_t device_slot;
  struct device *dev = drum_device_at (d, slot, &device_slot);

  *offset_bytes = (uint64_t) device_slot << PAGE_SHIFT;
  return dev ? swapdev_path (dev->swapdev) : "?";
}

/* => holds d->lock. *why is set if it is to be said that a device is failing. */
static bool
find_sick_locked (struct drum *d, struct swapdev **swapdev, struct slot_run *run, const char **why)
{
  uint64_t now = now_ns ();

  mutex_assert_held (&d->lock);
  for (unsigned i = 0; i < d->ndevices; i++) {
    struct device *dev = d->device[i];

    if (dev->state == DEVICE_FAILING && !dev->leaving && dev->again_ns <= now) {
      dev->leaving = true;
      *why = dev->why;
      dev->why = NULL;
      *run = (struct slot_run){ .n = 0 };
    } else if (dev->state > DEVICE_CLOSING || !health_next (&dev->health, now, run))
      continue;
    else
      dev->npins++;
    *swapdev = dev->swapdev;
    return true;
  }
  return false;
}

int
drum_next_sick (struct drum *d, unsigned timeout_ms, struct swapdev **dev, struct slot_run *run)
{
  uint64_t end_ns = now_ns () + timeout_ms * UINT64_C (1000000);
  struct timespec end = { .tv_sec = (time_t) (end_ns / 1000000000),
                          .tv_nsec = (long) (end_ns % 1000000000) };
  const char *why = NULL;
  bool found = false;
  int ret = 0;

  mutex_lock (&d->lock);
  while (!d->dismissed && !(found = find_sick_locked (d, dev, run, &why)) && now_ns () < end_ns)
    mutex_timedwait (&d->lock, &d->sick, &end);
  if (!found)
    ret = d->dismissed ? -ECANCELED : -ETIMEDOUT;
  d->dismissed = false;
  mutex_unlock (&d->lock);
  if (why)
    log_warning ("%s: is failing: %s: nothing new is put there, and what can be read is moved off",
                 swapdev_path (*dev), why);
  return ret;
}

void
drum_dismiss (struct drum *d)
{
  mutex_lock (&d->lock);
  d->dismissed = true;
  pthread_cond_broadcast (&d->sick);
  mutex_unlock (&d->lock);
}

void
drum_suspect_ok (struct drum *d, struct swapdev *swapdev, struct slot_run run)
{
  struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  dev->health.nsuspect -= run.n;
  if (blist_free (dev->blist, run.first, run.n) < 0)
    bug ("%s: suspect slots were free", swapdev_path (swapdev));
  if (dev->state == DEVICE_OPEN)
    room_grow (&d->room, run.n, run.n);
  drum_unlock_returned (d, NULL);
}

void
drum_suspect_later (struct drum *d, struct swapdev *swapdev, struct slot_run run,
                    uint64_t not_before_ns)
{
  struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  dev->health.nsuspect -= run.n;
  if (dev->state == DEVICE_OPEN)
    room_grow (&d->room, run.n, 0);
  drum_suspect_locked (d, dev, run, not_before_ns ? not_before_ns : in_a_while_ns ());
  mutex_unlock (&d->lock);
}

int
drum_suspect_bad (struct drum *d, struct swapdev *swapdev, uint32_t slot)
{
  struct device *dev;
  int ret;

  mutex_lock (&d->admin);
  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  ret = swapdev_mark_bad (swapdev, slot);
  if (ret == 0)
    dev->health.nsuspect--;
  mutex_unlock (&d->lock);
  mutex_unlock (&d->admin);
  return ret;
}

void
drum_suspect_end (struct drum *d, struct swapdev *swapdev)
{
  struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  dev->npins--;
  mutex_unlock (&d->lock);
}

void
drum_fail_device (struct drum *d, struct swapdev *swapdev, const char *why)
{
  mutex_lock (&d->lock);
  fail_locked (d, drum_device_locked (d, swapdev), why);
  drum_unlock_returned (d, NULL);
}

void
drum_end_failing (struct drum *d, struct swapdev *swapdev, bool done)
{
  struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  dev->leaving = false;
  dev->again_ns = in_a_while_ns ();
  if (done && dev->state == DEVICE_FAILING)
    drum_set_state_locked (d, dev, DEVICE_FAILED);
  mutex_unlock (&d->lock);
}
