/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "sysctls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/log.h"

static const struct {
  const char *name, *path;
  long min, max, best;
  const char *why;
} settings[] = {
  { "vm.min_free_kbytes", "/proc/sys/vm/min_free_kbytes", 16384, 0, 16384,
    "the network stack needs room while memory is short" },
  { "vm.watermark_boost_factor", "/proc/sys/vm/watermark_boost_factor", 0, 1, 0,
    "boosts stall a small machine for seconds" },
};

static bool
read_number (const char *path, long *value)
{
  char text[32] = "";
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  ssize_t n = fd == -1 ? -1 : read (fd, text, sizeof text - 1);

  if (fd != -1)
    close (fd);
  *value = strtol (text, NULL, 10);
  return n > 0;
}

static bool
write_number (const char *path, long value)
{
  char text[32];
  int fd = open (path, O_WRONLY | O_CLOEXEC), len = snprintf (text, sizeof text, "%ld", value);
  bool written = fd != -1 && write (fd, text, (size_t) len) == len;
  int error = errno;

  if (fd != -1)
    close (fd);
  errno = error;
  return written;
}

void
sysctls_check (bool set)
{
  for (unsigned i = 0; i < sizeof settings / sizeof settings[0]; i++) {
    long value;

    if (!read_number (settings[i].path, &value) ||
        (value >= settings[i].min && (!settings[i].max || value < settings[i].max)))
      continue;
    if (!set)
      log_warning ("%s is %ld: %s; sysctl -w %s=%ld, or --tune", settings[i].name, value,
                   settings[i].why, settings[i].name, settings[i].best);
    else if (write_number (settings[i].path, settings[i].best))
      log_notice ("%s: set to %ld (it was %ld)", settings[i].name, settings[i].best, value);
    else
      log_warning ("%s: can't be set to %ld: %s", settings[i].name, settings[i].best,
                   strerror (errno));
  }
}
