/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "evacuate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "drum-devices.h"
#include "drum-health.h"
#include "drum.h"
#include "export.h"
#include "exports.h"
#include "job.h"
#include "log.h"
#include "memlock.h"
#include "pages.h"
#include "placement.h"
#include "state.h"
#include "swapdev.h"
#include "units.h"

_Static_assert(EVACUATE_DURABLE_PIECE == (int) DRUM_BATCH, "as many as can move at once");

enum {
  UNSEEN_MAX_MS = 1000,
  UNSEEN_MS = 10, /* how long to wait for writes under way, whose slots no map shows yet */
};

/* One walk over all maps. */
struct pass {
  struct job *job;
  const struct evacuation *ev;
  struct pages_move move;
  const struct export *export; /* the one that is walked */
  uint64_t nmoved;
  uint64_t nunreadable;
  /* Called after each piece; what it returns, unless 0, ends the pass. */
  int (*check) (struct pass *pass);
  /* evacuate_device: */
  struct swapdev *dev;
  enum drum_device_state state; /* that it has to keep: closing or failing */
  uint64_t total;               /* slots used at the begin */
  uint64_t nlost;               /* pages given up */
  /* evacuate_upwards: */
  uint64_t done; /* slots moved by earlier passes */
  const struct drum_device_info *from;
};

static void
note_unreadable (void *opaque, uint64_t page)
{
  struct pass *pass = opaque;

  pass->nunreadable++;
  pass->nlost += pass->move.lose;
  job_unreadable (pass->job, export_name (pass->export), page);
  if (pass->move.lose)
    job_lost (pass->job, 1);
}

static bool
is_durable (const struct evacuation *ev)
{
  return ev->state && state_is_durable (ev->state);
}

static uint32_t
piece_bytes (const struct evacuation *ev)
{
  return (is_durable (ev) ? EVACUATE_DURABLE_PIECE : EVACUATE_PIECE) * PAGE_BYTES;
}

static int
pass_init (struct pass *pass, struct job *job, const struct evacuation *ev)
{
  void *buf = memlock_pages (piece_bytes (ev));

  if (!buf) {
    log_error ("no memory to move pages with: %s", strerror (errno));
    return -ENOMEM;
  }
  *pass = (struct pass){ .job = job, .ev = ev };
  pass->move = (struct pages_move){
    .buf = buf, .unreadable = note_unreadable, .opaque = pass, .above = PRIO_ANY
  };
  return 0;
}

static void
pass_end (struct pass *pass)
{
  munmap (pass->move.buf, piece_bytes (pass->ev));
}

static int
move_export (struct pass *pass, struct export *e)
{
  unsigned max = job_piece_bytes (pass->job, piece_bytes (pass->ev)) / PAGE_BYTES;
  unsigned n = max;
  uint64_t page = 0;
  int ret = 0;

  pass->export = e;
  while (page != UINT64_MAX && ret == 0) {
    int moved = export_move (e, &page, n, &pass->move);

    if (moved == -ENOSPC && n > 1) {
      n /= 2;
      continue;
    }
    if (moved < 0)
      return moved;
    if (moved > 0 && n < max)
      n++; /* slowly: where there is no room for so many now, there hardly will be for the next */
    pass->nmoved += (unsigned) moved;
    ret = pass->check (pass);
    if (ret == 0)
      ret = job_pace (pass->job, (uint32_t) moved * PAGE_BYTES);
  }
  return ret;
}

static int
pass_run (struct pass *pass)
{
  struct export *e = NULL;
  int ret = 0;

  pass->nmoved = pass->nunreadable = 0;
  while (ret == 0 && (e = exports_next (pass->ev->exports, e)))
    ret = move_export (pass, e);
  if (e)
    export_release (e);
  return ret;
}

/* How much is still used on the device, and may we go on? */
static int
check_device (struct pass *pass)
{
  struct drum_device_info info;
  uint64_t nused;

  if (!drum_device (pass->ev->drum, pass->dev, &info))
    return -ENOENT;
  nused = info.nslots - info.nfree;
  job_progress (pass->job, (pass->total > nused ? pass->total - nused : 0) * PAGE_BYTES,
                pass->total * PAGE_BYTES);
  if (info.state != pass->state)
    return -ENOSPC; /* a client needed the room, and has it again */
  return job_is_cancelled (pass->job) ? -ECANCELED : 0;
}

static uint64_t
nused_on (struct pass *pass)
{
  struct drum_device_info info = { .nslots = 0 };

  drum_device (pass->ev->drum, pass->dev, &info);
  return info.nslots - info.nfree;
}

/* Move until nothing is used on the device, or what is can't be read. */
static int
empty_device (struct pass *pass, bool force)
{
  unsigned unseen_ms = UNSEEN_MS;
  int ret;

  while ((ret = check_device (pass)) == 0 && nused_on (pass) > 0) {
    if (pass->nlost == 0)
      job_reset_unreadable (pass->job); /* they are met again */
    ret = pass_run (pass);
    if (ret < 0)
      return ret;
    pass->move.lose = false;
    if (pass->nmoved > 0)
      unseen_ms = UNSEEN_MS;
    else if (pass->nunreadable > 0 && pass->nunreadable >= nused_on (pass)) {
      if (!force)
        return -ENODATA;
      pass->move.lose = true;
    } else {
      ret = job_sleep (pass->job, unseen_ms);
      if (ret < 0)
        return ret;
      unseen_ms = unseen_ms < UNSEEN_MAX_MS ? 2 * unseen_ms : UNSEEN_MAX_MS;
    }
  }
  return ret;
}

/* Take the empty device out, once the moves under way let it go; and no map on the disk names its slots any more. */
static int
let_go (struct pass *pass)
{
  int ret = is_durable (pass->ev) ? state_sync_maps (pass->ev->state) : 0;

  while (ret == 0 && (ret = drum_remove (pass->ev->drum, pass->dev)) == -EAGAIN) {
    ret = job_sleep (pass->job, UNSEEN_MS);
    if (ret < 0)
      break;
  }
  return ret == -EBUSY ? -ENOSPC : ret; /* a client needed the room after the last look */
}

/* Say why it stays. */
static void
explain (const struct pass *pass, const char *path, int ret)
{
  if (ret == -ENOSPC)
    log_error ("%s: the other devices have no more room for what is on it and for what clients "
               "write: it is as it was",
               path);
  else if (ret == -ENODATA)
    log_error ("%s: %" PRIu64
               " pages on it can't be read: it stays, closed; remove it with force to give them up",
               path, pass->nunreadable);
  else if (ret < 0 && ret != -ECANCELED)
    log_error ("%s: its pages can't be moved: %s: it is as it was", path, strerror (-ret));
}

static int
begin_device (struct pass *pass, struct job *job, const struct evacuation *ev, struct swapdev *dev,
              enum drum_device_state state)
{
  struct drum_device_info info;
  int ret = pass_init (pass, job, ev);

  if (ret < 0)
    return ret;
  drum_device (ev->drum, dev, &info);
  pass->dev = dev;
  pass->check = check_device;
  pass->state = state;
  pass->move.first_slot = info.first;
  pass->move.end_slot = info.end;
  pass->total = info.nslots - info.nfree;
  return 0;
}

int
evacuate_device (struct job *job, const struct evacuation *ev, struct swapdev *dev, bool force)
{
  char *path = strdup (swapdev_path (dev)); /* the device is gone in the end */
  struct pass pass;
  int ret = path ? begin_device (&pass, job, ev, dev, DEVICE_CLOSING) : -ENOMEM;

  if (ret == 0) {
    ret = empty_device (&pass, force);
    if (ret == 0)
      ret = let_go (&pass);
    if (ret < 0)
      explain (&pass, path, ret);
    if (pass.nlost > 0)
      log_warning ("%s: %" PRIu64 " pages that could not be read have been given up", path,
                   pass.nlost);
    pass_end (&pass);
  }
  free (path);
  if (ret < 0)
    drum_end_closing (ev->drum, dev, ret == -ENODATA);
  return ret;
}

int
evacuate_failing (struct job *job, const struct evacuation *ev, struct swapdev *dev)
{
  struct pass pass;
  int ret = begin_device (&pass, job, ev, dev, DEVICE_FAILING);

  if (ret == 0) {
    ret = empty_device (&pass, false);
    if (ret == 0)
      log_warning ("%s: has failed; all of its pages have been moved off: replace it",
                   swapdev_path (dev));
    else if (ret == -ENODATA)
      log_warning ("%s: has failed, and %" PRIu64
                   " pages on it can't be read: remove it with force "
                   "to give them up",
                   swapdev_path (dev), pass.nunreadable);
    else if (ret != -ECANCELED)
      log_error ("%s: is failing, and its pages can't be moved now: %s: add a device",
                 swapdev_path (dev), strerror (-ret));
    pass_end (&pass);
  }
  drum_end_failing (ev->drum, dev, ret == 0 || ret == -ENODATA);
  return ret == -ENODATA ? 0 : ret;
}

/* How much has been moved, and is the device still what it was when we began with it? */
static int
check_upwards (struct pass *pass)
{
  uint64_t done = pass->done + pass->nmoved;
  struct drum_device_info now;

  job_progress (pass->job, done * PAGE_BYTES,
                (done > pass->total ? done : pass->total) * PAGE_BYTES);
  if (job_is_cancelled (pass->job))
    return -ECANCELED;
  return drum_device (pass->ev->drum, pass->from->swapdev, &now) && now.state == DEVICE_OPEN &&
             now.first == pass->from->first && now.prio == pass->from->prio
           ? 0
           : -ESTALE;
}

/* How many slots can rise: of those used below, as many as there is room above. */
static uint64_t
can_rise (const struct drum_device_info *dev, unsigned n)
{
  uint64_t room = 0, class_room = 0, can = 0; /* above the class of dev[i], in it, and in all */

  for (unsigned i = 0; i < n; i++) { /* the highest come first */
    uint64_t nused = dev[i].nslots - dev[i].nfree, rising;

    if (i > 0 && dev[i].prio < dev[i - 1].prio) {
      room += class_room;
      class_room = 0;
    }
    if (dev[i].state != DEVICE_OPEN)
      continue;
    rising = nused < room ? nused : room;
    can += rising;
    room -= rising;
    class_room += dev[i].nfree + rising;
  }
  return can;
}

int
evacuate_upwards (struct job *job, const struct evacuation *ev)
{
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (ev->drum, dev, DRUM_MAX_DEVICES);
  struct pass pass;
  int ret = pass_init (&pass, job, ev);

  if (ret < 0)
    return ret;
  pass.check = check_upwards;
  pass.total = can_rise (dev, n);
  for (; n > 0 && ret == 0; n--) {
    const struct drum_device_info *from = &dev[n - 1];

    if (from->prio == dev[0].prio || from->state != DEVICE_OPEN)
      continue;
    pass.move.first_slot = from->first;
    pass.move.end_slot = from->end;
    pass.move.above = from->prio;
    pass.from = from;
    pass.nmoved = 0;
    ret = check_upwards (&pass);
    if (ret == 0)
      ret = pass_run (&pass);
    pass.done += pass.nmoved;
    if (ret == -ESTALE) /* it left, or has another rank: on to the next */
      ret = 0;
  }
  if (ret == -ENOSPC) /* all room above is used: done */
    ret = 0;
  if (ret == 0)
    job_progress (job, pass.done * PAGE_BYTES, pass.done * PAGE_BYTES);
  else if (ret != -ECANCELED)
    log_error ("pages can't be moved: %s", strerror (-ret));
  pass_end (&pass);
  return ret;
}
