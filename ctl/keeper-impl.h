/* SPDX-License-Identifier: BSD-3-Clause
 *
 * keeper-impl.h - what the parts of the keeper share among them, and its processes among themselves.
 */
#ifndef DRUM_KEEPER_IMPL_H
#define DRUM_KEEPER_IMPL_H

#include <sys/types.h>

#include "keeper.h"
#include "nbdlink.h"

/* The one that leads, and those that wait for its death. */
enum { KEEPER_NPROCESSES = 3 };

struct keeper {
  /* What was ordered. */
  char uri[KEEPER_URI_BYTES], name[NBDURI_NAME_BYTES], id[NBDCLIENT_ID_BYTES];
  struct nbdclient_server server;
  struct nbdclient_export export;
  unsigned nsockets;

  /* Descriptors; -1: none. */
  int log, setup, control, signals;
  int sockets[KEEPER_MAX_SOCKETS];
  struct nbdlink link;

  struct {
    pid_t pid;
    int pidfd;
    bool ready;
  } process[KEEPER_NPROCESSES];
  unsigned leader;

  int index;
  char device[32]; /* /dev/nbdN */
  bool attached;
  bool in_use; /* as swap, as far as we were told */
  bool over;   /* detached: all may end */

  uint64_t epoch;
  bool up;            /* the kernel has all of the sockets */
  int64_t since;      /* nbdclient_now: up or down */
  int64_t longest_ms; /* of the outages that are over */
  unsigned outages;
  char said[NBDCLIENT_WHY_BYTES]; /* why the last try failed, if it was said in this outage */
};

/* keeper-lock.c. 0 or -errno, and what could not be had. */
int keeper_lock (char why[NBDCLIENT_WHY_BYTES]);
/* Start those that take over; each runs lead when all before it are dead, and exits with what that returns. */
int keeper_stand_by (struct keeper *k, int (*lead) (struct keeper *k),
                     char why[NBDCLIENT_WHY_BYTES]);
bool keeper_alive (const struct keeper *k, unsigned process);

/* keeper-control.c. */
int keeper_control_open (struct keeper *k, char why[NBDCLIENT_WHY_BYTES]);
void keeper_control_close (struct keeper *k);
/* Answer what has come. => somebody wants the device detached; keeper_control_reply tells him how that went */
bool keeper_control_serve (struct keeper *k);
void keeper_control_reply (struct keeper *k, const char *text);

/* One line in the kernel's log; level as syslog has it. */
void keeper_log (const struct keeper *k, int level, const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));

#endif
