/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "leave.h"

#include <dirent.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
  SEND_MS = 100,       /* from the end of a request to its reply in the kernel */
  HAND_OVER_MS = 1000, /* from there to the client */
  LOOK_MS = 5,
};

static pid_t bound_by; /* before it went into the background */

void
leave_prepare (void)
{
  bound_by = getpid ();
}

/* Is there a descriptor that is so? */
static bool
any_descriptor (bool (*is_so) (int fd))
{
  DIR *dir = opendir ("/proc/self/fd");
  const struct dirent *entry;
  bool found = false;

  if (!dir)
    return false;
  while ((entry = readdir (dir)))
    if (entry->d_name[0] != '.' && is_so (atoi (entry->d_name)))
      found = true;
  closedir (dir);
  return found;
}

/* The option of a socket; -1 also for what is none. */
static int
socket_option (int fd, int option)
{
  socklen_t len = sizeof (int);
  int value;

  return getsockopt (fd, SOL_SOCKET, option, &value, &len) == 0 ? value : -1;
}

/* Has it sent what the other side has not yet got? What goes into a unix socket is there at once. */
static bool
is_sending (int fd)
{
  int domain = socket_option (fd, SO_DOMAIN), nbytes = 0;

  return (domain == AF_INET || domain == AF_INET6) && socket_option (fd, SO_ACCEPTCONN) == 0 &&
         ioctl (fd, SIOCOUTQ, &nbytes) == 0 && nbytes > 0;
}

void
leave_wait_sent (void)
{
  poll (NULL, 0, SEND_MS);
  for (int ms = 0; ms < HAND_OVER_MS && any_descriptor (is_sending); ms += LOOK_MS)
    poll (NULL, 0, LOOK_MS);
}

/* A socket that a service manager gave us was listening before; it is not ours to remove. */
static bool
remove_own_socket (int fd)
{
  struct sockaddr_un address = { .sun_family = AF_UNSPEC };
  socklen_t len = sizeof address, ucred_len = sizeof (struct ucred);
  struct ucred listener;

  return socket_option (fd, SO_DOMAIN) == AF_UNIX && socket_option (fd, SO_ACCEPTCONN) == 1 &&
         getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &listener, &ucred_len) == 0 &&
         listener.pid == bound_by && getsockname (fd, (struct sockaddr *) &address, &len) == 0 &&
         len < sizeof address && address.sun_path[0] == '/' && unlink (address.sun_path) == 0;
}

void
leave_remove_sockets (void)
{
  any_descriptor (remove_own_socket);
}
