/* SPDX-License-Identifier: BSD-3-Clause
 *
 * session.h - who may still do something: clients that are fenced, and a server that is about to leave.
 *
 * Linux sends a request again on another socket when it believes the first one to be dead, and what stood in the old socket's
 * buffer may run later, over newer data. A client that opens NAME@ID.EPOCH is fenced: ID names the client, EPOCH counts its
 * sessions; the first open with a higher epoch bars all lower ones of that ID for good. All connections of one epoch are one
 * session's, and equal. Who opens plain NAME is never barred.
 *
 * A server that halts takes no more requests: those under way end, later ones wait for ever, so that no client sees an error
 * where a new server will answer.
 *
 * Unit:    a session is one connection.
 * Cost:    two atomic operations a request, on a cache line of the session's own.
 * Locking: a mutex for opens, closes and halts; requests take none.
 * Memory:  at open; nothing on the I/O path.
 * Errors:  0 or -errno.
 */
#ifndef DRUM_SESSION_H
#define DRUM_SESSION_H

#include <stdbool.h>
#include <stdint.h>

struct export;
struct session;
struct sessions;

enum {
  SESSION_ID_MAX = 64, /* bytes of an ID: letters, digits, - and _ */
  SESSION_CLIENTS_MAX =
    4096, /* IDs that are remembered; those without a session are forgotten, the oldest first */
};

/* What an export name says. */
struct session_name {
  char export[4097];           /* NBD's longest, and 0 */
  char id[SESSION_ID_MAX + 1]; /* "": not fenced */
  uint64_t epoch;
};

/* Take NAME@ID.EPOCH apart: at the last @ behind which ID.EPOCH follows; else all of it is NAME. -ENAMETOOLONG */
int session_parse (const char *text, struct session_name *name);

/* A highest epoch, to be kept over a restart (note, in state.h, or so), before the session begins: what it returns, unless 0, is
 * what session_open returns. May be NULL. */
typedef int session_note (void *opaque, const char *id, uint64_t epoch);

int sessions_create (session_note *note, void *opaque, struct sessions **s);
void sessions_destroy (struct sessions *s); /* all are closed */

/* What was noted before a restart. -ENOMEM */
int sessions_remember (struct sessions *s, const char *id, uint64_t epoch);

/* Call each for all IDs that are known. */
void sessions_clients (struct sessions *s,
                       void (*each) (void *opaque, const char *id, uint64_t epoch), void *opaque);

/* A connection begins. The first of a higher epoch than any before bars the lower ones of its ID, and waits until none of their requests is under way.
 * -ESTALE if its own epoch is barred; waits for ever after sessions_halt. */
int session_open (struct sessions *s, struct export *e, const struct session_name *name,
                  struct session **session);
void session_close (struct session *session);
struct export *session_export (const struct session *session);

/* Around each request. session_begin: -ESTALE if it is barred, and then without session_end; waits for ever after sessions_halt. */
int session_begin (struct session *session);
void session_end (struct session *session);

/* No request begins from here on, and none is under way when it returns: 0; or -ETIMEDOUT, if after so long some still are, and all goes
 * on as before. */
int sessions_halt (struct sessions *s, unsigned timeout_ms);

#endif
