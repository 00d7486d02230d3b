/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "medic.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "blist.h"
#include "drum-health.h"
#include "drum.h"
#include "log.h"
#include "swapdev.h"
#include "thread.h"
#include "units.h"

enum {
  PROBE_SLOTS = 16, /* at once */
  MAX_HALVES = 32,  /* a run has fewer than 2^32 slots */
  MAX_FAILED = 64,  /* probes of one run */
  WAIT_MS = 10000,
};

struct medic {
  struct drum *drum;
  void (*failing) (void *opaque, struct swapdev *dev);
  void *opaque;
  pthread_t thread;
  unsigned char wrote[PROBE_SLOTS * PAGE_BYTES], read[PROBE_SLOTS * PAGE_BYTES];
};

/* What to write: nobody reads it but we. */
static void
fill (unsigned char *page, uint32_t slot)
{
  for (size_t at = 0; at < PAGE_BYTES; at += sizeof slot)
    memcpy (page + at, &slot, sizeof slot);
}

/* Do at most PROBE_SLOTS slots take and keep data? */
static int
probe_some (struct medic *m, struct swapdev *dev, struct slot_run run)
{
  struct iovec iov = { .iov_base = m->wrote, .iov_len = (size_t) run.n * PAGE_BYTES };
  int ret;

  for (uint32_t i = 0; i < run.n; i++)
    fill (m->wrote + (size_t) i * PAGE_BYTES, run.first + i);
  ret = swapdev_write (dev, NULL, run.first, &iov, 1);
  if (ret < 0)
    return ret;
  iov = (struct iovec){ .iov_base = m->read, .iov_len = (size_t) run.n * PAGE_BYTES };
  ret = swapdev_read (dev, NULL, run.first, &iov, 1);
  if (ret < 0)
    return ret;
  return memcmp (m->wrote, m->read, (size_t) run.n * PAGE_BYTES) == 0 ? 0 : -EBADMSG;
}

static int
probe (struct medic *m, struct swapdev *dev, struct slot_run run)
{
  int ret = 0;

  while (run.n > 0 && ret == 0) {
    uint32_t n = run.n < PROBE_SLOTS ? run.n : PROBE_SLOTS;

    ret = probe_some (m, dev, (struct slot_run){ run.first, n });
    run.first += n;
    run.n -= n;
  }
  return ret;
}

/* One slot took no data, alone and again. False if its device has no place to remember that: then it may be the device that
 * takes none, and the slot as good as any. */
static bool
mark_bad (struct medic *m, struct swapdev *dev, uint32_t slot)
{
  const char *why = NULL;

  if (swapdev_save_bad (dev) < 0)
    why = "its label can't be written";
  else if (drum_suspect_bad (m->drum, dev, slot) < 0)
    why = "its table of bad slots is full";
  if (why) {
    drum_suspect_later (m->drum, dev, (struct slot_run){ slot, 1 }, 0);
    drum_fail_device (m->drum, dev, why);
    return false;
  }
  log_warning ("%s: slot %u is bad, and will not be used again", swapdev_path (dev), slot);
  return true;
}

/* Find out which slots of a run are bad. */
static void
treat (struct medic *m, struct swapdev *dev, struct slot_run run)
{
  struct slot_run todo[MAX_HALVES + 1] = { run };
  unsigned n = 1, nfailed = 0;
  bool marked = false;

  while (n > 0) {
    struct slot_run r = todo[--n];
    int ret = nfailed < MAX_FAILED ? probe (m, dev, r) : -EIO;

    if (ret == 0)
      drum_suspect_ok (m->drum, dev, r);
    else if (ret == -ENOSPC)
      drum_suspect_later (m->drum, dev, r, 0);
    else if (++nfailed >= MAX_FAILED) {
      drum_suspect_later (m->drum, dev, r, 0);
      drum_fail_device (m->drum, dev, "too many of its slots are bad");
    } else if (r.n == 1) {
      marked |= mark_bad (m, dev, r.first);
    } else {
      uint32_t half = r.n / 2;

      todo[n++] = (struct slot_run){ r.first + half, r.n - half };
      todo[n++] = (struct slot_run){ r.first, half };
    }
  }
  if (marked && swapdev_save_bad (dev) < 0)
    log_warning (
      "%s: its bad slots can't be noted in its label: after a restart they are tried again",
      swapdev_path (dev));
}

static void *
medic_main (void *arg)
{
  struct medic *m = arg;
  struct swapdev *dev;
  struct slot_run run;
  int ret;

  while ((ret = drum_next_sick (m->drum, WAIT_MS, &dev, &run)) != -ECANCELED) {
    if (ret < 0)
      continue;
    if (run.n == 0)
      m->failing (m->opaque, dev);
    else {
      treat (m, dev, run);
      drum_suspect_end (m->drum, dev);
    }
  }
  return NULL;
}

int
medic_start (struct drum *d, void (*failing) (void *opaque, struct swapdev *dev), void *opaque,
             struct medic **mp)
{
  struct medic *m = calloc (1, sizeof *m);
  int ret;

  if (!m)
    return -ENOMEM;
  m->drum = d;
  m->failing = failing;
  m->opaque = opaque;
  ret = thread_start (&m->thread, "drum-medic", medic_main, m);
  if (ret < 0) {
    free (m);
    return ret;
  }
  *mp = m;
  return 0;
}

void
medic_stop (struct medic *m)
{
  drum_dismiss (m->drum);
  pthread_join (m->thread, NULL);
  free (m);
}
