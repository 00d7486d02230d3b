/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "attached.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

void
attached_address (int index, struct sockaddr_un *addr)
{
  *addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
  snprintf (addr->sun_path, sizeof addr->sun_path, ATTACHED_DIR "/nbd%d", index);
}

static int
by_number (const void *a, const void *b)
{
  return *(const int *) a - *(const int *) b;
}

unsigned
attached_list (int *indexes, unsigned max)
{
  DIR *dir = opendir (ATTACHED_DIR);
  struct dirent *entry;
  unsigned n = 0;

  if (!dir)
    return 0;
  while (n < max && (entry = readdir (dir)))
    if (sscanf (entry->d_name, "nbd%d", &indexes[n]) == 1)
      n++;
  closedir (dir);
  qsort (indexes, n, sizeof *indexes, by_number);
  return n;
}

/* A socket of our own, with a name of the kernel's choice, so that it can be answered. */
static int
ask (int fd, const struct sockaddr_un *to, const char *request, char *reply)
{
  const struct sockaddr_un own = { .sun_family = AF_UNIX };
  ssize_t n;

  if (bind (fd, (const struct sockaddr *) &own, sizeof own.sun_family) == -1 ||
      connect (fd, (const struct sockaddr *) to, sizeof *to) == -1 ||
      send (fd, request, strlen (request), MSG_NOSIGNAL) == -1)
    return errno == EAGAIN ? -ETIMEDOUT : -errno;
  n = recv (fd, reply, ATTACHED_REPLY_BYTES - 1, 0);
  if (n == -1)
    return errno == EAGAIN ? -ETIMEDOUT : -errno;
  reply[n] = '\0';
  return 0;
}

int
attached_ask (int index, const char *request, int timeout_seconds, char reply[ATTACHED_REPLY_BYTES])
{
  const struct timeval patience = { .tv_sec = timeout_seconds };
  struct sockaddr_un addr;
  int fd = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), ret;

  if (fd == -1)
    return -errno;
  attached_address (index, &addr);
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  ret = ask (fd, &addr, request, reply);
  close (fd);
  return ret;
}

bool
attached_value (const char *reply, const char *key, char *buf, unsigned size)
{
  size_t len = strlen (key);

  for (const char *line = reply; *line; line += *line == '\n') {
    size_t all = strcspn (line, "\n");

    if (strncmp (line, key, len) == 0 && line[len] == '=') {
      snprintf (buf, size, "%.*s", (int) (all - len - 1), line + len + 1);
      return true;
    }
    line += all;
  }
  return false;
}

int
attached_find (const char *uri)
{
  int indexes[ATTACHED_MAX];
  unsigned n = attached_list (indexes, ATTACHED_MAX);

  for (unsigned i = 0; i < n; i++) {
    char reply[ATTACHED_REPLY_BYTES], theirs[ATTACHED_REPLY_BYTES];

    if (attached_ask (indexes[i], ATTACHED_STATUS, ATTACHED_PATIENCE_SECONDS, reply) == 0 &&
        attached_value (reply, "uri", theirs, sizeof theirs) && strcmp (theirs, uri) == 0)
      return indexes[i];
  }
  return -1;
}
