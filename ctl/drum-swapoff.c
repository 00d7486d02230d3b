/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drum-swapoff.c - swapoff, and then detaches what drum-swapon attached.
 */
#include <config.h>

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/swap.h>
#include <unistd.h>

#include "lib/log.h"

#include "attached.h"
#include "drumctl.h"
#include "options.h"
#include "swaps.h"

enum { DETACH_SECONDS = 120, RETRY_MS = 200 };

static void
to_stderr (enum log_level level, const char *fmt, va_list args)
{
  fprintf (stderr, "drum-swapoff: %s", level == LEVEL_WARNING ? "warning: " : "");
  vfprintf (stderr, fmt, args);
  putc ('\n', stderr);
}

/* => N of /dev/nbdN, or of the device that was attached to this URI; or -1 */
static int
find_index (const char *text)
{
  int index, end = 0;

  if (sscanf (text, "/dev/nbd%d%n", &index, &end) == 1 && !text[end] && index >= 0)
    return index;
  index = attached_find (text);
  if (index < 0)
    log_error ("%s: nothing is attached to it; drum-swapon --status shows what is", text);
  return index;
}

/* The kernel says EINVAL while somebody else's swapoff is under way, such as systemd's at shutdown: that is waited for, since what
 * comes next is that the network goes. */
static bool
swap_off (const char *device)
{
  for (;;) {
    int used = swaps_find (device, NULL);

    if (used == 0 || (used == 1 && swapoff (device) == 0))
      return true;
    if (used < 0)
      log_error ("/proc/swaps: %s", strerror (-used));
    else if (errno == EINVAL && poll (NULL, 0, RETRY_MS) == 0)
      continue;
    else
      log_error ("%s: swapoff: %s", device,
                 errno == ENOMEM ? "what is on it does not fit into memory" : strerror (errno));
    return false;
  }
}

static int
detach (int index, const char *device)
{
  char reply[ATTACHED_REPLY_BYTES];
  int ret = attached_ask (index, ATTACHED_DETACH, DETACH_SECONDS, reply);

  if (ret == 0 && strcmp (reply, ATTACHED_DONE) == 0)
    return STATUS_DONE;
  if (ret == 0)
    log_error ("%s: %s", device, reply);
  else if (ret == -ENOENT)
    log_error ("%s: was not attached by drum-swapon; nbd-client -d %s detaches it", device, device);
  else if (ret == -ECONNREFUSED)
    log_error ("%s: its keeper has been killed; nbd-client -d %s detaches it", device, device);
  else
    log_error ("%s: its keeper: %s", device, strerror (-ret));
  return STATUS_FAILED;
}

static int
run (const struct verb *self, int argc, char **argv)
{
  bool version = false;
  const struct option_spec options[] = {
    { 'V', "version", NULL, option_switch, &version, "display the version" },
    { 0 },
  };
  int status = options_parse (self, options, 0, -1, &argc, &argv);

  if (status >= 0)
    return status;
  if (version) {
    puts ("drum-swapoff (" PACKAGE_STRING ")");
    return STATUS_DONE;
  }
  if (argc == 0) {
    log_error ("no device; drum-swapon --status shows those that there are");
    return STATUS_USAGE;
  }
  status = STATUS_DONE;
  for (int i = 0; i < argc; i++) {
    int index = find_index (argv[i]);
    char device[32];

    snprintf (device, sizeof device, "/dev/nbd%d", index);
    if (index < 0 || !swap_off (device) || detach (index, device) != STATUS_DONE)
      status = STATUS_FAILED;
  }
  return status;
}

static const struct verb drum_swapoff = {
  .operands = "DEVICE|URI...",
  .summary = "Take devices that drum-swapon attached out of use as swap, and detach them.",
  .run = run,
};

int
main (int argc, char **argv)
{
  setlocale (LC_CTYPE, "");
  log_set_sink (to_stderr);
  options_program ("drum-swapoff");
  return drum_swapoff.run (&drum_swapoff, argc, argv);
}
