/* SPDX-License-Identifier: BSD-3-Clause
 *
 * nbdlink.h - what the kernel's nbd driver is told by generic netlink: attach, one more socket, detach.
 *
 * libnl-genl does this too, but takes memory for each message, and this must also work while there is none: while the
 * machine swaps to the very device. So a message is built on the stack. Three commands and one look-up are all there is.
 *
 * Locking: one user at a time; another process that shares the descriptor may go on after it, with sequence numbers of its own.
 * Errors:  0 (or what is said) or -errno, which is the kernel's.
 */
#ifndef DRUM_NBDLINK_H
#define DRUM_NBDLINK_H

#include <stdbool.h>
#include <stdint.h>

struct nbdlink {
  int fd;
  uint16_t family;
  uint32_t seq;
};

enum { NBDLINK_ANY = -1 };

struct nbdlink_device {
  uint64_t size_bytes;
  uint64_t flags;                /* the server's */
  uint64_t dead_timeout_seconds; /* I/O waits so long for a new socket, and then fails */
  const int *sockets;
  unsigned nsockets;
};

/* -ENOENT: the kernel knows no "nbd": its module is not loaded. */
int nbdlink_open (struct nbdlink *link);

/* Attach to this /dev/nbdN, or to a free one; => N */
int nbdlink_connect (struct nbdlink *link, int index, const struct nbdlink_device *device);

/* Put this socket in the place of a dead one. => 1, or 0 if the kernel has not noticed yet that one is dead; -EINVAL: this
 * device is not attached any more */
int nbdlink_replace (struct nbdlink *link, int index, int fd);

int nbdlink_disconnect (struct nbdlink *link, int index);

#endif
