/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.h - the control socket and its clients (docs/control.md). What is said with each is the dialog's, what the verbs
 * mean is the handler's.
 *
 * Structure: one thread of its own that polls the socket, all clients and a wake-up; it never blocks on a client. The handler
 *            runs in it, a request of each client by turns, and must not wait either: it defers.
 * Locking:   control_wake may be called by any thread at any time between control_open and control_close.
 * Errors:    0 or -errno; control_open also says in one line through log.h what is wrong. A client's errors are its own.
 */
#ifndef DRUM_CONTROL_H
#define DRUM_CONTROL_H

#include "dialog.h"

struct control;

enum { CONTROL_MAX_CLIENTS = 32 };

/* Bind path (absolute) with mode 0600 and listen; a socket that nobody listens on any more is replaced. Before the fork.
 * -EADDRINUSE if somebody does; -EEXIST if path is something else than a socket; -ENAMETOOLONG. */
int control_open (const char *path, struct control **c);

/* Serve. After the fork, once. */
int control_start (struct control *c, control_handler *handler, void *opaque);

/* Ask again what was not yet to be answered. */
void control_wake (struct control *c);

/* The process is about to end: stop serving, give the replies that there are to those who wait for one, and remove the socket, if it is
 * still ours. The clients stay connected: by the end of that they can tell the end of the process. Then nothing but control_close. */
void control_leave (struct control *c);

/* Stop serving, drop all clients and remove the socket, if it is still ours. NULL is fine. */
void control_close (struct control *c);

#endif
