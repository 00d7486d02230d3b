/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "devices.h"

#include <criterion/criterion.h>
#include <string.h>

#include "lib/drum-health.h"
#include "tests/scratch.h"

#include "logged.h"

uint64_t
bytes_of (uint32_t nusable)
{
  return (uint64_t) (nusable + SWAPDEV_NRESERVED) * PAGE_BYTES;
}

struct swapdev *
device_create (const char *name, int prio, uint32_t nusable)
{
  struct swapdev_spec spec = {
    .path = scratch_path (name),
    .prio = prio,
    .create_bytes = bytes_of (nusable),
  };
  struct swapdev_identity identity = { .generation = 1 };
  struct swapdev *dev;

  cr_assert_eq (swapdev_open (&spec, &dev), 0, "%s: %s", spec.path, logged_last ());
  memcpy (identity.device, swapdev_identity (dev)->device, sizeof identity.device);
  cr_assert_eq (swapdev_prepare (dev, &identity), 0, "%s", spec.path);
  return dev;
}

const struct swapdev_place *
place_of (const char *path)
{
  static struct swapdev_place place;

  swapdev_place_init (&place, path);
  return &place;
}

struct drum *
drum_make (uint32_t stripe_slots)
{
  struct drum *d;

  cr_assert_eq (drum_create (stripe_slots * PAGE_BYTES, &d), 0);
  return d;
}

uint32_t
drum_add_file (struct drum *d, const char *name, int prio, uint32_t nusable)
{
  struct drum_device_info devices[DRUM_MAX_DEVICES];
  struct swapdev *dev = device_create (name, prio, nusable);
  unsigned n;

  cr_assert_eq (drum_add (d, dev), 0);
  n = drum_devices (d, devices, DRUM_MAX_DEVICES);
  for (unsigned i = 0; i < n; i++)
    if (devices[i].swapdev == dev)
      return devices[i].first + SWAPDEV_NRESERVED;
  cr_assert (false, "%s is not in the drum", name);
  return 0;
}

bool
drum_find_file (struct drum *d, const char *name, struct drum_device_info *info)
{
  struct drum_device_info devices[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (d, devices, DRUM_MAX_DEVICES);

  for (unsigned i = 0; i < n; i++)
    if (strcmp (swapdev_path (devices[i].swapdev), scratch_path (name)) == 0) {
      *info = devices[i];
      return true;
    }
  return false;
}

unsigned
drum_nused_on (struct drum *d, const char *name)
{
  struct drum_device_info info;

  cr_assert (drum_find_file (d, name, &info), "%s is gone", name);
  return info.nslots - info.nfree;
}

void
drum_assert_state (struct drum *d, const char *name, enum drum_device_state state)
{
  struct drum_device_info info;

  cr_assert (drum_find_file (d, name, &info), "%s is gone", name);
  cr_assert (info.state == state, "%s is %d", name, info.state);
}

void
drum_assert_gone (struct drum *d, const char *name)
{
  struct drum_device_info info;

  cr_assert_not (drum_find_file (d, name, &info), "%s is still there", name);
}

uint64_t
drum_nused (struct drum *d)
{
  struct drum_usage usage;

  drum_usage (d, &usage);
  return usage.nslots - usage.nfree;
}

uint64_t
drum_nfree (struct drum *d)
{
  struct drum_usage usage;

  drum_usage (d, &usage);
  return usage.nfree;
}

uint64_t
drum_nused_anywhere (struct drum *d)
{
  struct drum_device_info devices[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (d, devices, DRUM_MAX_DEVICES);
  uint64_t nused = 0;

  for (unsigned i = 0; i < n; i++)
    nused += devices[i].nslots - devices[i].nfree;
  return nused;
}

bool
drum_find (struct drum *d, const char *path, struct drum_device_info *info)
{
  struct drum_device_info devices[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (d, devices, DRUM_MAX_DEVICES);

  for (unsigned i = 0; i < n; i++)
    if (strcmp (swapdev_path (devices[i].swapdev), path) == 0) {
      *info = devices[i];
      return true;
    }
  return false;
}

void
drum_assert_adds_up (struct drum *d)
{
  struct drum_device_info devices[DRUM_MAX_DEVICES];
  unsigned n;

  cr_assert (drum_check (d));
  drum_hold_devices (d); /* nor is a slot found bad between the two looks */
  n = drum_devices (d, devices, DRUM_MAX_DEVICES);
  for (unsigned i = 0; i < n; i++) {
    const struct drum_device_info *dev = &devices[i];

    cr_assert_leq (dev->nfree, dev->nslots);
    cr_assert_eq (dev->nslots + dev->nsuspect + swapdev_nbad (dev->swapdev) + SWAPDEV_NRESERVED,
                  swapdev_nslots (dev->swapdev), "%s: %u usable, %u suspect, %u bad of %u",
                  swapdev_path (dev->swapdev), dev->nslots, dev->nsuspect,
                  swapdev_nbad (dev->swapdev), swapdev_nslots (dev->swapdev));
  }
  drum_release_devices (d);
}

void
drum_heal (struct drum *d)
{
  struct swapdev *dev;
  struct slot_run run;

  while (drum_next_sick (d, 0, &dev, &run) == 0)
    if (run.n == 0)
      drum_end_failing (d, dev, false);
    else {
      drum_suspect_ok (d, dev, run);
      drum_suspect_end (d, dev);
    }
}

int
drum_take_runs (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                unsigned *nruns)
{
  return drum_alloc (d, &(struct drum_demand){ .nnew = nnew, .nmove = nmove }, runs, nruns);
}

uint32_t
drum_take (struct drum *d, uint32_t n)
{
  struct slot_run runs[DRUM_BATCH];
  unsigned nruns;

  cr_assert_eq (drum_take_runs (d, n, 0, runs, &nruns), 0);
  cr_assert_eq (nruns, 1, "%u slots came in %u runs", n, nruns);
  cr_assert_eq (runs[0].n, n);
  return runs[0].first;
}

void
drum_take_any (struct drum *d, uint32_t n)
{
  struct slot_run runs[DRUM_BATCH];
  unsigned nruns;

  for (uint32_t now; n > 0; n -= now) {
    now = n < DRUM_BATCH ? n : DRUM_BATCH;
    cr_assert_eq (drum_take_runs (d, now, 0, runs, &nruns), 0);
  }
}

void
drum_give (struct drum *d, uint32_t first, uint32_t n)
{
  struct slot_run run = { .first = first, .n = n };

  drum_free (d, &run, 1, NULL);
}
