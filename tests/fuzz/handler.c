/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "tests/fuzz/handler.h"

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "lib/drum.h"
#include "lib/export.h"
#include "lib/live.h"
#include "lib/log.h"
#include "lib/service.h"
#include "lib/swapdev.h"
#include "tests/unit/served.h"

enum { DEVICE_BYTES = 256 << 10 };

static bool kept_in;
static bool starting;

int __real_swapdev_open (const struct swapdev_spec *spec, struct swapdev **dev);
int __wrap_swapdev_open (const struct swapdev_spec *spec, struct swapdev **dev);

int
__wrap_swapdev_open (const struct swapdev_spec *spec, struct swapdev **dev)
{
  bool inside = kept_in && strncmp (spec->path, "/srv/", 5) == 0 && !strstr (spec->path, "/..");

  if (!starting && (!inside || spec->create_bytes > DEVICE_BYTES)) {
    log_error ("%s: is out of bounds", spec->path);
    return -ENOENT;
  }
  return __real_swapdev_open (spec, dev);
}

static void
quiet (enum log_level level, const char *fmt, va_list args)
{
  char line[8192];

  (void) level;
  vsnprintf (line, sizeof line, fmt, args); /* formats must be right all the same */
}

/* Our own /srv; else a folder somewhere. */
static void
keep_in (char folder[32])
{
  kept_in = (unshare (CLONE_NEWNS) == 0 || unshare (CLONE_NEWUSER | CLONE_NEWNS) == 0) &&
            mount (NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
            mount ("fuzz", "/srv", "tmpfs", 0, "size=8m") == 0;
  strcpy (folder, kept_in ? "/srv" : "/tmp/drum-fuzz-XXXXXX");
  if (!kept_in && !mkdtemp (folder))
    abort ();
}

struct live *
handler_live (void)
{
  static struct service service;
  static struct live *live;
  static char page[4096] = "something";
  char folder[32], path[2][40];
  struct swapdev_spec spec[2];
  struct service_config config = {
    .devices = spec, .ndevices = 2, .stripe_bytes = STRIPE_MIN_BYTES, .checksum = true
  };

  if (live)
    return live;
  log_set_sink (quiet);
  keep_in (folder);
  for (int i = 0; i < 2; i++) {
    snprintf (path[i], sizeof path[i], "%s/%c", folder, 'a' + i);
    spec[i] = (struct swapdev_spec){ .path = path[i], .create_bytes = DEVICE_BYTES };
  }
  starting = true;
  if (service_start (&config, &service) < 0 || live_create (&service, NULL, NULL, &live) < 0)
    abort ();
  starting = false;
  for (uint64_t i = 0; i < 20; i++)
    if (export_write (served (&service), page, sizeof page, i * sizeof page) < 0)
      abort ();
  return live;
}
