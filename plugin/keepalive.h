/* SPDX-License-Identifier: BSD-3-Clause
 *
 * keepalive.h - TCP connections whose client is gone are found.
 *
 * A host that lost its power says no goodbye, and nbdkit 1.32 asks after nobody: its connection would stay for ever, and an
 * exclusive export would be refused to the host that comes back. nbdkit does not tell which of the descriptors is a connection's, either.
 */
#ifndef DRUM_KEEPALIVE_H
#define DRUM_KEEPALIVE_H

#include <sys/socket.h>

/* Ask after the client at this address from now on: a host that has started again says at once that it knows no such
 * connection; one that can't be reached has more than two minutes, since many survive an outage of the network. Does nothing for other
 * kinds of sockets; a failure does no harm. */
void keepalive_start (const struct sockaddr *peer, socklen_t len);

#endif
