/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dialog.h - the control protocol (docs/control.md) with one client, as bytes in and bytes out; it knows no sockets.
 *
 * Structure: one request at a time: bytes are received until there is a line, which gets its turn, perhaps several of them
 *            (deferred), until there is a reply, which is sent; only then come the next line and more bytes.
 * Unit:      time in nanoseconds, of a clock that is the caller's.
 * Locking:   none.
 * Memory:    64 KiB for a request, and one reply. Out of it, the dialog is over.
 */
#ifndef DRUM_DIALOG_H
#define DRUM_DIALOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct dialog;
struct json_object;

enum {
  CONTROL_VERSION = 1,
  CONTROL_MAX_REQUEST = 65536, /* bytes, newline included */
  CONTROL_MAX_DEPTH = 8,       /* of objects and arrays in a request */
  CONTROL_SILENT_SECONDS = 30, /* for all of a request; between two parts of a reply */
  CONTROL_IDLE_SECONDS = 300,  /* between requests */
};

/* Answer a request, an object whose version is right, into reply, to which "version" and "ok" (true for 0, false for
 * -errno, with "errno") are added by the caller; it adds "error" itself. Or -EAGAIN: not yet; then it is asked again, with a
 * new reply, when something has happened, and at the latest in *wait_ms. waited_ms: how long ago it was asked first; 0: this
 * is the first time. */
typedef int control_handler (void *opaque, struct json_object *request, unsigned waited_ms,
                             struct json_object *reply, unsigned *wait_ms);

/* What it waits for. */
enum dialog_state {
  DIALOG_RECEIVING, /* bytes: dialog_room, dialog_received */
  DIALOG_READY,     /* a turn, now */
  DIALOG_DEFERRED,  /* a turn, when something has happened */
  DIALOG_SENDING,   /* dialog_reply, dialog_sent */
  DIALOG_OVER,      /* dialog_free; it may be over after any of these calls */
};

/* NULL: out of memory. */
struct dialog *dialog_create (control_handler *handler, void *opaque, uint64_t now_ns);
void dialog_free (struct dialog *d);

enum dialog_state dialog_state (const struct dialog *d);

/* When it must have a turn, though nothing has happened. */
uint64_t dialog_due_ns (const struct dialog *d);

/* Let it ask the handler, at most once; if something has happened (woken), what was deferred, too. One who was silent for too
 * long is given up. */
void dialog_turn (struct dialog *d, bool woken, uint64_t now_ns);

/* RECEIVING: here is room for some bytes, at least one; so many were put there, and none means that there will be no more. */
size_t dialog_room (struct dialog *d, char **room);
void dialog_received (struct dialog *d, size_t n, uint64_t now_ns);

/* SENDING: these bytes are to be sent, at least one; so many of them were. */
size_t dialog_reply (const struct dialog *d, const char **bytes);
void dialog_sent (struct dialog *d, size_t n, uint64_t now_ns);

/* Say why not (err is an errno), and no more. */
void dialog_refuse (struct dialog *d, int err, const char *why);

/* The client is gone. */
void dialog_end (struct dialog *d);

#endif
