/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "keepalive.h"

#include <dirent.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { IDLE_SECONDS = 30, INTERVAL_SECONDS = 15, PROBES = 8 };

static bool
is_connected_to (int fd, const struct sockaddr *peer, socklen_t len)
{
  struct sockaddr_storage addr;
  socklen_t addr_len = sizeof addr;

  return getpeername (fd, (struct sockaddr *) &addr, &addr_len) == 0 && addr_len == len &&
         memcmp (&addr, peer, len) == 0;
}

static void
set (int fd, int level, int option, int value)
{
  setsockopt (fd, level, option, &value, sizeof value);
}

void
keepalive_start (const struct sockaddr *peer, socklen_t len)
{
  const struct dirent *entry;
  DIR *dir;

  if (peer->sa_family != AF_INET && peer->sa_family != AF_INET6)
    return;
  dir = opendir ("/proc/self/fd");
  while (dir && (entry = readdir (dir))) {
    int fd = atoi (entry->d_name);

    if (entry->d_name[0] == '.' || !is_connected_to (fd, peer, len))
      continue;
    set (fd, IPPROTO_TCP, TCP_KEEPIDLE, IDLE_SECONDS);
    set (fd, IPPROTO_TCP, TCP_KEEPINTVL, INTERVAL_SECONDS);
    set (fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
    set (fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  }
  if (dir)
    closedir (dir);
}
