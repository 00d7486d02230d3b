/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "swaps.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { MAX_BYTES = 16384 };

/* The whole file, as a string. */
static int
read_swaps (char *buf, size_t size)
{
  int fd = open ("/proc/swaps", O_RDONLY | O_CLOEXEC), ret = 0;
  size_t len = 0;
  ssize_t n;

  if (fd == -1)
    return -errno;
  while (len < size - 1 && (n = read (fd, buf + len, size - 1 - len)) != 0) {
    if (n == -1 && errno == EINTR)
      continue;
    if (n == -1) {
      ret = -errno;
      break;
    }
    len += (size_t) n;
  }
  buf[len] = '\0';
  close (fd);
  return ret;
}

int
swaps_find (const char *device, struct swaps_entry *entry)
{
  char text[MAX_BYTES];
  size_t len = strlen (device);
  int ret = read_swaps (text, sizeof text);

  if (ret < 0)
    return ret;
  for (const char *line = text; *line; line += *line == '\n') {
    uint64_t size, used;
    int priority;

    if (strncmp (line, device, len) == 0 && (line[len] == ' ' || line[len] == '\t') &&
        sscanf (line + len, " %*s %" SCNu64 " %" SCNu64 " %d", &size, &used, &priority) == 3) {
      if (entry)
        *entry = (struct swaps_entry){ size << 10, used << 10, priority };
      return 1;
    }
    line += strcspn (line, "\n");
  }
  return 0;
}
