/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "usage.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>

#include "lib/drum-devices.h"
#include "lib/drum.h"
#include "lib/swapdev.h"

enum { INTERVAL_MS = 1000 };

/* Set by nbdkit from -D drum.usage=N. */
NBDKIT_DLL_PUBLIC int drum_debug_usage = 0;

static _Atomic int nconnections;

int
usage_connection (int change)
{
  return atomic_fetch_add (&nconnections, change) + change;
}

static int64_t
now_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC_COARSE, &ts);
  return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void
print (struct drum *d)
{
  struct drum_device_info devices[DRUM_MAX_DEVICES];
  unsigned n = drum_devices (d, devices, DRUM_MAX_DEVICES);
  uint64_t nslots = 0, nfree = 0;

  for (unsigned i = 0; i < n; i++) {
    nslots += devices[i].nslots;
    nfree += devices[i].nfree;
  }
  flockfile (stderr);
  fprintf (stderr, "drum: used %" PRIu64 " of %" PRIu64 " slots:", nslots - nfree, nslots);
  for (unsigned i = 0; i < n; i++)
    fprintf (stderr, "%s %s %" PRIu32 "/%" PRIu32, i ? "," : "", swapdev_path (devices[i].swapdev),
             devices[i].nslots - devices[i].nfree, devices[i].nslots);
  putc ('\n', stderr);
  fflush (stderr);
  funlockfile (stderr);
}

void
usage_show (struct drum *d, bool now)
{
  static pthread_mutex_t mutex =
    PTHREAD_MUTEX_INITIALIZER; /* one line after the other, and the two below */
  static _Atomic int64_t next_ms;
  static uint64_t last_nfree = UINT64_MAX;
  struct drum_usage usage;
  int64_t ms;

  if (!drum_debug_usage)
    return;
  ms = now_ms ();
  if (!now && ms < atomic_load (&next_ms))
    return;
  pthread_mutex_lock (&mutex);
  if (now || ms >= atomic_load (&next_ms)) {
    drum_usage (d, &usage);
    if (now || usage.nfree != last_nfree)
      print (d);
    last_nfree = usage.nfree;
    atomic_store (&next_ms, ms + INTERVAL_MS);
  }
  pthread_mutex_unlock (&mutex);
}
