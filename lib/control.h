/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.h - the control socket: clients, lines, limits (docs/control.md); what the verbs mean is the handler's.
 *
 * Structure: one thread of its own that polls the socket, all clients and a wake-up; it never blocks on a client, nor in the
 *            handler.
 * Locking:   control_wake may be called by any thread at any time between control_open and control_close.
 * Errors:    0 or -errno; control_open also says in one line through log.h what is wrong. A client's errors are its own.
 */
#ifndef DRUM_CONTROL_H
#define DRUM_CONTROL_H

#include <stdbool.h>

struct control;
struct json_object;

enum {
  CONTROL_VERSION = 1,
  CONTROL_MAX_REQUEST = 65536, /* bytes, newline included */
  CONTROL_MAX_CLIENTS = 32,
  CONTROL_MAX_DEPTH = 8,       /* of objects and arrays in a request */
  CONTROL_SILENT_SECONDS = 30, /* inside a request or a reply */
  CONTROL_IDLE_SECONDS = 300,  /* between requests */
};

/* Answer a request, an object whose version is right, into reply, to which "version" and "ok" (true for 0, false for
 * -errno, with "errno") are added by the caller; it adds "error" itself. Or -EAGAIN: not yet; then it is
 * asked again at the next control_wake, and at the latest in *wait_ms. waited_ms: how long ago it was asked first. */
typedef int control_handler (void *opaque, struct json_object *request, unsigned waited_ms,
                             struct json_object *reply, unsigned *wait_ms);

/* Bind path (absolute) with mode 0600 and listen; a socket that nobody listens on any more is replaced. Before the fork.
 * -EADDRINUSE if somebody does; -EEXIST if path is something else than a socket. */
int control_open (const char *path, struct control **c);

/* Serve. After the fork, once. */
int control_start (struct control *c, control_handler *handler, void *opaque);

/* Ask again what was not yet to be answered. */
void control_wake (struct control *c);

/* Stop serving, drop all clients and remove the socket, if it is still ours. */
void control_close (struct control *c);

#endif
