/* SPDX-License-Identifier: BSD-3-Clause
 *
 * keepalive.c - tests of plugin/keepalive.c, on real sockets.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#include "plugin/keepalive.h"

/* Two ends of a connection of this process with itself. */
static void
make_connection (int family, int end[2])
{
  struct sockaddr_storage addr = { .ss_family = (sa_family_t) family };
  socklen_t len = sizeof addr;
  int listener = socket (family, SOCK_STREAM, 0);

  if (family == AF_INET6)
    ((struct sockaddr_in6 *) &addr)->sin6_addr = in6addr_loopback;
  else
    ((struct sockaddr_in *) &addr)->sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  cr_assert_eq (bind (listener, (struct sockaddr *) &addr, len), 0);
  cr_assert_eq (listen (listener, 1), 0);
  cr_assert_eq (getsockname (listener, (struct sockaddr *) &addr, &len), 0);
  end[0] = socket (family, SOCK_STREAM, 0);
  cr_assert_eq (connect (end[0], (struct sockaddr *) &addr, len), 0);
  end[1] = accept (listener, NULL, NULL);
  cr_assert_geq (end[1], 0);
  close (listener);
}

static int
get (int fd, int level, int option)
{
  int value = -1;
  socklen_t len = sizeof value;

  cr_assert_eq (getsockopt (fd, level, option, &value, &len), 0);
  return value;
}

static void
start (int fd)
{
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;

  cr_assert_eq (getpeername (fd, (struct sockaddr *) &peer, &len), 0);
  keepalive_start ((struct sockaddr *) &peer, len);
}

static void
asks_after_one (int family)
{
  int one[2], other[2];

  make_connection (family, one);
  make_connection (family, other);
  start (one[1]);
  cr_assert_neq (get (one[1], SOL_SOCKET, SO_KEEPALIVE), 0);
  cr_assert_eq (get (one[1], IPPROTO_TCP, TCP_KEEPIDLE), 30);
  cr_assert_eq (get (one[1], IPPROTO_TCP, TCP_KEEPINTVL), 15);
  cr_assert_eq (get (one[1], IPPROTO_TCP, TCP_KEEPCNT), 8);
  cr_assert_eq (get (one[0], SOL_SOCKET, SO_KEEPALIVE), 0);
  cr_assert_eq (get (other[0], SOL_SOCKET, SO_KEEPALIVE), 0);
  cr_assert_eq (get (other[1], SOL_SOCKET, SO_KEEPALIVE), 0);
}

Test (keepalive, ipv4)
{
  asks_after_one (AF_INET);
}

Test (keepalive, ipv6)
{
  if (access ("/proc/net/if_inet6", R_OK) == 0)
    asks_after_one (AF_INET6);
}

/* Other sockets are let be. */
Test (keepalive, unix_socket)
{
  int end[2];

  cr_assert_eq (socketpair (AF_UNIX, SOCK_STREAM, 0, end), 0);
  start (end[0]);
  cr_assert_eq (get (end[0], SOL_SOCKET, SO_KEEPALIVE), 0);
  cr_assert_eq (get (end[1], SOL_SOCKET, SO_KEEPALIVE), 0);
}
