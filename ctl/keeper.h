/* SPDX-License-Identifier: BSD-3-Clause
 *
 * keeper.h - the part of drum-swapon that stays: it attaches a /dev/nbdN, and puts new sockets in whenever the server has gone.
 *
 * The machine may need this program to get at its memory, so it never waits for any: before the device is attached it is locked
 * into memory, out of the OOM killer's reach, an I/O flusher and real-time; from then on it takes no memory, starts nothing, and
 * asks nobody for a name. It writes its log to the kernel's (/dev/kmsg), for a pipe's reader may have been swapped out.
 *
 *   keeper.c          the loop: is the connection dead? then abort it, open another, hand it over
 *   keeper-lock.c     the measures above, and the processes that take over if the first is killed
 *   keeper-control.c  what drum-swapon --status and drum-swapoff say to it
 *
 * All processes share one table of descriptors, and struct keeper, which is all there is to know; so the one that takes over
 * finds sockets and epoch as they were, and runs the same loop. A connection that was being replaced is replaced once more.
 */
#ifndef DRUM_KEEPER_H
#define DRUM_KEEPER_H

#include <stdbool.h>
#include <stdint.h>

#include "nbdclient.h"

enum { KEEPER_MAX_SOCKETS = 16, KEEPER_URI_BYTES = 2048 };

struct keeper_order {
  const char *uri; /* as the user wrote it, for --status */
  struct nbdclient_server server;
  const char *name; /* of the export */
  const char *id;   /* see nbdclient.h; the epoch of the sockets is 1 */
  struct nbdclient_export export;
  int sockets[KEEPER_MAX_SOCKETS];
  unsigned nsockets;
  int index; /* of /dev/nbdN, or NBDLINK_ANY */
  int setup; /* the other end of what keeper_wait has */
};

/* Attach, say so, and keep it until it is told to detach. It wants to know KEEPER_IN_USE from whom it told; if that ends without,
 * and the device is not in use as swap, it is detached. => the status to exit with */
int keeper_run (const struct keeper_order *order);

/* In the process that ordered it: => N of /dev/nbdN, or a negative number, and why. */
int keeper_wait (int setup, char why[NBDCLIENT_WHY_BYTES]);

/* It stays from now on. Or it is not wanted: => when it has ended. */
void keeper_in_use (int setup);
void keeper_give_up (int setup);

#endif
