/* SPDX-License-Identifier: BSD-3-Clause
 *
 * attached.h - the devices that drum-swapon keeps: each has a socket in /run/drum-swapon, at which its keeper answers.
 *
 * One datagram asks, one answers: "status" with lines of KEY=VALUE, "detach" with "done" or why not.
 */
#ifndef DRUM_ATTACHED_H
#define DRUM_ATTACHED_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#ifndef ATTACHED_DIR
#define ATTACHED_DIR "/run/drum-swapon"
#endif
#define ATTACHED_STATUS "status"
#define ATTACHED_DETACH "detach"
#define ATTACHED_DONE   "done"

enum { ATTACHED_REPLY_BYTES = 4096, ATTACHED_MAX = 256, ATTACHED_PATIENCE_SECONDS = 15 };

void attached_address (int index, struct sockaddr_un *addr);

/* The indexes of all that have a socket, sorted; => how many, at most max. */
unsigned attached_list (int *indexes, unsigned max);

/* Ask its keeper. 0, or -errno: -ENOENT, there is no socket; -ECONNREFUSED, nobody is left at it; -ETIMEDOUT. */
int attached_ask (int index, const char *request, int timeout_seconds,
                  char reply[ATTACHED_REPLY_BYTES]);

/* The device that was attached to this URI, written just so; -1: none was. */
int attached_find (const char *uri);

/* The value of a line KEY=VALUE, into buf; false if there is none. */
bool attached_value (const char *reply, const char *key, char *buf, unsigned size);

#endif
