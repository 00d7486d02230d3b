/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "drum-devices.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "drum-impl.h"
#include "inflight.h"
#include "log.h"
#include "stats.h"
#include "swapdev.h"
#include "units.h"

_Static_assert(DRUM_MAX_DEVICES == (int) SPACE_MAX, "every device has a range");
_Static_assert(DRUM_MAX_DEVICES == (int) PLACEMENT_MAX, "every device has its turn");

#define SLOW_NS UINT64_C (1000000000) /* an I/O out for so long: others are asked first */

int
drum_check_sizes (const uint32_t *nslots, unsigned n)
{
  uint64_t sum = 0;

  for (unsigned i = 0; i < n; i++)
    sum += (uint64_t) nslots[i] + (i > 0); /* a guard slot before each but the first */
  return n > DRUM_MAX_DEVICES ? -EMFILE : sum > SLOT_MAX ? -EFBIG : 0;
}

uint64_t
drum_nusable (const struct device *dev)
{
  return swapdev_nusable (dev->swapdev) - dev->health.nsuspect;
}

void
drum_place_devices_locked (struct drum *d)
{
  struct placement_device open[DRUM_MAX_DEVICES];
  unsigned n = 0;

  mutex_assert_held (&d->lock);
  for (unsigned i = 0; i < d->ndevices; i++) {
    const struct device *dev = d->device[i];

    if (dev->state == DEVICE_OPEN)
      open[n++] = (struct placement_device){ dev->blist, dev->first, dev->prio, dev->avoid };
  }
  atomic_store (&d->nclosed, d->ndevices - n);
  placement_set (&d->placement, open, n);
}

void
drum_set_state_locked (struct drum *d, struct device *dev, enum drum_device_state state)
{
  uint64_t nusable = drum_nusable (dev), nfree = blist_nfree (dev->blist);
  bool was_open = dev->state == DEVICE_OPEN;

  mutex_assert_held (&d->lock);
  dev->state = state;
  if (was_open && state != DEVICE_OPEN)
    room_shrink (&d->room, nusable, nfree);
  else if (!was_open && state == DEVICE_OPEN)
    room_grow (&d->room, nusable, nfree);
  drum_place_devices_locked (d);
  pthread_cond_broadcast (&d->slots_returned); /* those who wait must count anew */
  pthread_cond_signal (&d->sick);              /* who is passed over is not looked at */
}

/* => holds d->lock. Put dev behind all of its priority and above. */
static void
insert_device_locked (struct drum *d, struct device *dev)
{
  unsigned at = 0;

  mutex_assert_held (&d->lock);
  while (at < d->ndevices && d->device[at]->prio >= dev->prio)
    at++;
  memmove (&d->device[at + 1], &d->device[at], (d->ndevices - at) * sizeof d->device[0]);
  d->device[at] = dev;
  d->ndevices++;
}

/* => holds d->lock. */
static void
take_out_device_locked (struct drum *d, const struct device *dev)
{
  unsigned at = 0;

  mutex_assert_held (&d->lock);
  while (d->device[at] != dev)
    at++;
  d->ndevices--;
  memmove (&d->device[at], &d->device[at + 1], (d->ndevices - at) * sizeof d->device[0]);
}

int
drum_check_place (struct drum *d, uint32_t nslots)
{
  int ret;

  mutex_lock (&d->lock);
  ret = space_check (&d->space, nslots);
  mutex_unlock (&d->lock);
  return ret;
}

int
drum_add (struct drum *d, struct swapdev *swapdev)
{
  struct drum_seat seat = { .state = DEVICE_OPEN, .prio = swapdev_prio (swapdev) };

  return drum_add_at (d, swapdev, &seat);
}

int
drum_add_at (struct drum *d, struct swapdev *swapdev, const struct drum_seat *seat)
{
  struct device *dev = calloc (1, sizeof *dev);
  struct room_notice notice = { .what = ROOM_NOTHING };
  int ret;

  if (!dev)
    return -ENOMEM;
  dev->swapdev = swapdev;
  dev->blist = swapdev_blist (swapdev);
  dev->prio = seat->prio;
  dev->added_ns = now_ns ();
  dev->state = DEVICE_CLOSED;
  dev->first = seat->first;
  dev->coming = seat->coming;
  dev->leave = seat->leave;

  mutex_lock (&d->admin);
  mutex_lock (&d->lock);
  ret = dev->first ? space_insert_at (&d->space, dev->first, swapdev_nslots (swapdev), dev)
                   : space_insert (&d->space, swapdev_nslots (swapdev), dev, &dev->first);
  if (ret == 0) {
    insert_device_locked (d, dev);
    drum_set_state_locked (d, dev, seat->coming ? DEVICE_CLOSED : seat->state);
    notice = drum_check_room_locked (d);
  }
  mutex_unlock (&d->lock);
  mutex_unlock (&d->admin);
  room_say (notice);
  if (ret < 0)
    free (dev);
  return ret;
}

void
drum_open_device (struct drum *d, struct swapdev *swapdev)
{
  struct room_notice notice;
  struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  dev->coming = false;
  drum_set_state_locked (d, dev, DEVICE_OPEN);
  notice = drum_check_room_locked (d);
  mutex_unlock (&d->lock);
  room_say (notice);
}

struct device *
drum_device_locked (struct drum *d, const struct swapdev *swapdev)
{
  for (unsigned i = 0; i < d->ndevices; i++)
    if (d->device[i]->swapdev == swapdev)
      return d->device[i];
  return NULL;
}

/* => holds d->lock. What there is without dev. */
static struct room
room_without_locked (struct drum *d, const struct device *dev)
{
  struct room rest;

  mutex_assert_held (&d->lock);
  drum_count_closing_locked (d);
  rest = d->room;
  if (dev->state == DEVICE_OPEN)
    room_shrink (&rest, drum_nusable (dev), blist_nfree (dev->blist));
  else if (drum_may_reopen (dev)) {
    rest.closing.nslots -= drum_nusable (dev);
    rest.closing.nfree -= blist_nfree (dev->blist);
  }
  return rest;
}

/* => holds d->lock. Is dev empty, and do the others, without its slots, have those to keep back, and those that are promised? */
static int
check_removal_locked (struct drum *d, const struct device *dev)
{
  struct room rest = room_without_locked (d, dev);
  struct room_shortage shortage;

  mutex_assert_held (&d->lock);
  if (blist_nfree (dev->blist) != drum_nusable (dev))
    return -EBUSY;
  if (dev->npins > 0)
    return -EAGAIN;
  if (dev->state != DEVICE_OPEN && !drum_may_reopen (dev))
    return 0; /* the others have done without it */
  if (!room_suffices (&rest, &shortage))
    return -ENOSPC;
  rest.nmoving = 0;
  if (rest.nfree >= rest.nkept && !room_is_broken (&rest))
    return 0;
  return d->room.nmoving > 0 ? -EAGAIN : -ENOSPC;
}

int
drum_remove (struct drum *d, struct swapdev *swapdev)
{
  struct room_notice notice = { .what = ROOM_NOTHING };
  struct device *dev;
  int ret = -ENOENT;

  mutex_lock (&d->admin);
  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  if (dev)
    ret = check_removal_locked (d, dev);
  if (ret == 0) {
    drum_set_state_locked (d, dev, DEVICE_CLOSED);
    take_out_device_locked (d, dev);
    drum_place_devices_locked (d); /* nclosed */
    space_remove (&d->space, dev->first);
    notice = drum_check_room_locked (d);
  }
  mutex_unlock (&d->lock);
  mutex_unlock (&d->admin);
  room_say (notice);
  if (ret == 0)
    free (dev);
  return ret;
}

static void
say_unknown (const struct swapdev_place *place)
{
  log_error ("%s: is no device of this drum", place->path);
}

/* => holds d->lock. */
static uint64_t
nused_on (const struct device *dev)
{
  return drum_nusable (dev) - blist_nfree (dev->blist);
}

/* => holds d->admin. NULL if there is none. */
static struct device *
find_by_place (struct drum *d, const struct swapdev_place *place)
{
  mutex_assert_held (&d->admin);
  for (unsigned i = 0; i < d->ndevices; i++)
    if (swapdev_is_at (d->device[i]->swapdev, place))
      return d->device[i];
  return NULL;
}

/* => holds d->lock. What is used on devices that are closing, which will need room elsewhere. */
static uint64_t
nleaving_locked (struct drum *d)
{
  uint64_t n = 0;

  mutex_assert_held (&d->lock);
  for (unsigned i = 0; i < d->ndevices && d->nclosed > 0; i++)
    if (d->device[i]->state == DEVICE_CLOSING)
      n += nused_on (d->device[i]);
  return n;
}

/* What a device would need to leave. */
struct leaving {
  uint64_t nused, npromised, room; /* elsewhere, beside what is promised */
  bool suffices;                   /* what is left does for what is promised; if not: */
  struct room_shortage shortage;
};

/* => holds d->lock. Have the other open devices room for what is used on dev, and for what is promised? */
static bool
fits_elsewhere_locked (struct drum *d, const struct device *dev, struct leaving *leaving)
{
  struct room rest = room_without_locked (d, dev);
  uint64_t nkept =
    rest.nreserved ? room_nkept (d->room.nslots + d->room.closing.nslots) : rest.nkept;
  uint64_t spare = nkept + room_low_water (rest.nslots) + nleaving_locked (d) + rest.npromised;
  bool was_room = dev->state == DEVICE_OPEN;

  mutex_assert_held (&d->lock);
  leaving->nused = nused_on (dev);
  leaving->npromised = rest.npromised;
  leaving->room = rest.nfree > spare ? rest.nfree - spare : 0;
  leaving->suffices = !was_room || room_suffices (&rest, &leaving->shortage);
  if (leaving->nused == 0) /* so that only promises lose by it */
    return leaving->suffices && (!was_room || rest.npromised == 0 || rest.nfree >= spare);
  return leaving->suffices && leaving->nused <= leaving->room;
}

/* => holds d->lock. */
static int
close_locked (struct drum *d, struct device *dev, struct leaving *leaving)
{
  mutex_assert_held (&d->lock);
  if (dev->leaving)
    return -EBUSY;
  if (dev->coming)
    return -EAGAIN;
  if (!fits_elsewhere_locked (d, dev, leaving))
    return -ENOSPC;
  dev->before = dev->state;
  dev->leaving = true;
  drum_set_state_locked (d, dev, DEVICE_CLOSING);
  return 0;
}

/* It has to stay. */
static void
say_needed (const char *path, const struct leaving *leaving)
{
  bool sizes = leaving->shortage.of == ROOM_OF_SIZES;
  char text[2][16];

  if (leaving->suffices)
    log_error ("%s: holds %s, and the other devices have room for %s%s: add a device first, or "
               "have clients give up some of their swap",
               path, format_bytes (leaving->nused * PAGE_BYTES, text[0]),
               format_bytes (leaving->room * PAGE_BYTES, text[1]),
               leaving->npromised ? " beside what is reserved" : "");
  else
    log_error ("%s: without it the drum has %s, and %s%s: add a device first, or %s", path,
               format_bytes (leaving->shortage.nslots * PAGE_BYTES, text[0]),
               format_bytes (leaving->shortage.npages * PAGE_BYTES, text[1]),
               sizes ? " is the size of all exports (overcommit=no)" : " are reserved for exports",
               sizes ? "remove an export" : "take back some of that");
}

int
drum_close_device (struct drum *d, const struct swapdev_place *place, struct swapdev **swapdev)
{
  struct leaving leaving = { .nused = 0 };
  struct device *dev;
  int ret = -ENOENT;

  mutex_lock (&d->admin);
  dev = find_by_place (d, place);
  if (dev) {
    mutex_lock (&d->lock);
    ret = close_locked (d, dev, &leaving);
    mutex_unlock (&d->lock);
  }
  if (ret == 0)
    *swapdev = dev->swapdev;
  mutex_unlock (&d->admin);
  if (ret == -ENOENT)
    say_unknown (place);
  else if (ret == -EAGAIN)
    log_error ("%s: is being added: wait until it is there", place->path);
  else if (ret == -EBUSY)
    log_error ("%s: its pages are being moved off already: wait for that, or cancel it",
               place->path);
  else if (ret == -ENOSPC)
    say_needed (place->path, &leaving);
  return ret;
}

void
drum_note_leave (struct drum *d, struct swapdev *swapdev, struct drum_leave how)
{
  mutex_lock (&d->lock);
  drum_device_locked (d, swapdev)->leave = how;
  mutex_unlock (&d->lock);
}

int
drum_state_at (struct drum *d, const struct swapdev_place *place, enum drum_device_state *state)
{
  const struct device *dev;

  mutex_lock (&d->admin);
  dev = find_by_place (d, place);
  if (dev)
    *state = dev->state;
  mutex_unlock (&d->admin);
  return dev ? 0 : -ENOENT;
}

void
drum_end_closing (struct drum *d, struct swapdev *swapdev, bool stuck)
{
  struct room_notice notice = { .what = ROOM_NOTHING };
  struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  if (dev) {
    dev->leaving = false;
    dev->leave.wanted = false;
  }
  if (dev && dev->state == DEVICE_CLOSING) {
    drum_set_state_locked (d, dev,
                           stuck && dev->before == DEVICE_OPEN ? DEVICE_CLOSED : dev->before);
    notice = drum_check_room_locked (d);
  }
  mutex_unlock (&d->lock);
  room_say (notice);
}

int
drum_reopen_device (struct drum *d, const struct swapdev_place *place)
{
  struct room_notice notice = { .what = ROOM_NOTHING };
  struct device *dev;
  int ret = -ENOENT;

  mutex_lock (&d->admin);
  dev = find_by_place (d, place);
  if (dev) {
    mutex_lock (&d->lock);
    ret = dev->state < DEVICE_CLOSED || dev->leaving ? -EBUSY : 0;
    if (ret == 0) {
      health_forget_streaks (&dev->health);
      dev->why = NULL;
      drum_set_state_locked (d, dev, DEVICE_OPEN);
      notice = drum_check_room_locked (d);
    }
    mutex_unlock (&d->lock);
  }
  mutex_unlock (&d->admin);
  room_say (notice);
  return ret;
}

int
drum_set_priority (struct drum *d, const struct swapdev_place *place, int prio)
{
  struct device *dev;

  mutex_lock (&d->admin);
  dev = find_by_place (d, place);
  if (dev) {
    mutex_lock (&d->lock);
    take_out_device_locked (d, dev);
    dev->prio = prio;
    insert_device_locked (d, dev);
    drum_place_devices_locked (d);
    mutex_unlock (&d->lock);
  }
  mutex_unlock (&d->admin);
  if (!dev)
    say_unknown (place);
  return dev ? 0 : -ENOENT;
}

int
drum_set_maxio (struct drum *d, const struct swapdev_place *place, unsigned maxio)
{
  struct device *dev;

  mutex_lock (&d->admin);
  dev = find_by_place (d, place);
  if (dev)
    swapdev_set_maxio (dev->swapdev, maxio);
  mutex_unlock (&d->admin);
  if (!dev)
    say_unknown (place);
  return dev ? 0 : -ENOENT;
}

/* => holds d->lock. */
static struct drum_device_info
describe_locked (struct drum *d, const struct device *dev)
{
  mutex_assert_held (&d->lock);
  return (struct drum_device_info){
    .swapdev = dev->swapdev,
    .prio = dev->prio,
    .state = dev->state,
    .coming = dev->coming,
    .before = dev->before,
    .first = dev->first,
    .end = dev->first + swapdev_nslots (dev->swapdev),
    .nslots = (uint32_t) drum_nusable (dev),
    .nfree = blist_nfree (dev->blist),
    .added_ns = dev->added_ns,
    .nsuspect = dev->health.nsuspect,
    .nmismatches = dev->health.nmismatches,
    .leave = dev->leave,
  };
}

unsigned
drum_devices (struct drum *d, struct drum_device_info *devices, unsigned max)
{
  unsigned n;

  mutex_lock (&d->lock);
  n = d->ndevices;
  for (unsigned i = 0; i < n && i < max; i++)
    devices[i] = describe_locked (d, d->device[i]);
  mutex_unlock (&d->lock);
  return n;
}

bool
drum_device (struct drum *d, const struct swapdev *swapdev, struct drum_device_info *info)
{
  const struct device *dev;

  mutex_lock (&d->lock);
  dev = drum_device_locked (d, swapdev);
  if (dev)
    *info = describe_locked (d, dev);
  mutex_unlock (&d->lock);
  return dev;
}

void
drum_hold_devices (struct drum *d)
{
  mutex_lock (&d->admin);
}

void
drum_release_devices (struct drum *d)
{
  mutex_unlock (&d->admin);
}

unsigned
drum_free_runs (struct drum *d, struct swapdev *swapdev, uint32_t *from, struct slot_run *runs)
{
  const struct blist *bl = swapdev_blist (swapdev);
  uint32_t nslots = blist_nslots (bl), at = *from;
  uint32_t end = nslots - at < DRUM_WALK ? nslots : at + DRUM_WALK;
  unsigned n = 0;

  mutex_lock (&d->lock);
  for (; n < DRUM_BATCH && blist_next_before (bl, at, end, true, &runs[n]); n++)
    at = runs[n].first + runs[n].n;
  mutex_unlock (&d->lock);
  *from = n == DRUM_BATCH ? at : end;
  return n;
}

/* => holds d->lock. Is it slow, or has it just failed? */
static bool
is_in_trouble (struct drum *d, struct device *dev, uint64_t now_ns)
{
  uint64_t oldest_ns = inflight_oldest_ns (swapdev_inflight (dev->swapdev));

  mutex_assert_held (&d->lock);
  return (oldest_ns && now_ns > oldest_ns + SLOW_NS) || dev->health.nsuspect > 0;
}

void
drum_scan_inflight (struct drum *d, uint64_t now_ns, uint64_t limit_ns)
{
  mutex_lock (&d->admin);
  for (unsigned i = 0; i < d->ndevices; i++) {
    struct device *dev = d->device[i];
    bool trouble;

    mutex_lock (&d->lock);
    trouble = is_in_trouble (d, dev, now_ns);
    if (trouble != dev->avoid) {
      dev->avoid = trouble;
      drum_place_devices_locked (d);
    }
    mutex_unlock (&d->lock);
    inflight_scan (swapdev_inflight (dev->swapdev), swapdev_path (dev->swapdev), now_ns, limit_ns);
  }
  mutex_unlock (&d->admin);
}
