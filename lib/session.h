/* SPDX-License-Identifier: BSD-3-Clause
 *
 * session.h - who may still do something: clients that are fenced, and a server that is about to leave.
 *
 * Linux sends a request again on another socket when it believes the first one to be dead, and what stood in the old socket's
 * buffer may run later, over newer data. A client that opens NAME@ID.EPOCH is fenced: ID names the client, EPOCH counts its
 * sessions of this export; the first open with a higher epoch bars all lower ones of that ID for good. All connections of one epoch are one
 * session's, and equal. Who opens plain NAME is never barred.
 *
 * An export that is exclusive has one client at a time: the same ID, or, where one of two has none, the same peer. An operator can bar those
 * that have it, and who changes an export as a whole keeps clients away meanwhile.
 *
 * A server that halts takes no more requests: those under way end, later ones wait for ever, so that no client sees an error
 * where a new server will answer.
 *
 * Unit:    a session is one connection.
 * Cost:    two atomic operations a request, on a cache line of the session's own, unless somebody waits for its end.
 * Locking: a mutex for opens, closes and halts, a leaf; requests take none.
 * Memory:  at open; nothing on the I/O path.
 * Errors:  0 or -errno, outputs untouched on failure.
 */
#ifndef DRUM_SESSION_H
#define DRUM_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct export;
struct session;
struct sessions;

enum {
  SESSION_NAME_MAX = 4096, /* bytes of an export's name: NBD's longest */
  SESSION_ID_MAX = 64,     /* bytes of an ID: letters, digits, - and _ */
  SESSION_PEER_MAX = 127,  /* bytes of a peer's name; more are cut */
  SESSION_CLIENT_BYTES = SESSION_ID_MAX + SESSION_PEER_MAX + 16, /* of a client, in a message */
  SESSION_CLIENTS_MAX =
    4096, /* IDs that are remembered. Of those without a session the one that was opened longest ago
                                 is forgotten, and its epochs may come again */
};

/* What an export name says. */
struct session_name {
  char export[SESSION_NAME_MAX + 1];
  char id[SESSION_ID_MAX + 1]; /* "": not fenced */
  uint64_t epoch;
};

/* Take NAME@ID.EPOCH apart: at the last @ if ID.EPOCH follows; else all of it is NAME. -ENAMETOOLONG */
int session_parse (const char *text, struct session_name *name);

/* A highest epoch of a client (key: NAME@ID), to be kept over a restart before the session begins: what it returns, unless 0, is what session_open
 * returns; the next open asks again. Called with no lock held, once at a time for each key, which sessions_clients tells by then. May be
 * NULL. */
typedef int session_note (void *opaque, const char *key, uint64_t epoch);

/* -ENOMEM */
int sessions_create (session_note *note, void *opaque, struct sessions **s);
/* Also closes those that nobody closed (nbdkit does not, after SIGTERM); none of their requests is under way. NULL is fine. */
void sessions_destroy (struct sessions *s);

/* What was noted before a restart; the last one is forgotten last. -EINVAL: no key; -ENOMEM; -EUSERS as below. */
int sessions_remember (struct sessions *s, const char *key, uint64_t epoch);

/* Call each for all IDs that are known, in the order for sessions_remember; it must not come back here. */
void sessions_clients (struct sessions *s,
                       void (*each) (void *opaque, const char *key, uint64_t epoch), void *opaque);

/* Who wants what. */
struct session_wish {
  struct export *export;
  const struct session_name *name; /* its id and epoch */
  const char
    *peer;        /* where the client is: an address, say, without its port; "" is nobody else's */
  bool exclusive; /* if no other client has the export */
  char holder[SESSION_CLIENT_BYTES]; /* -EBUSY: who has it, for a message */
};

/* A connection begins. The first of a higher epoch than any before bars the lower ones of its ID; no open of an epoch returns
 * while a request of a lower one is under way. Waits while the server halts, or the export is held. -ESTALE if its own epoch is barred, if need be
 * while it waits; -EBUSY if another client has what is exclusive; -EPERM if an operator took it from this one (sessions_bar); -ENOENT if the export went while it waited; -EUSERS if SESSION_CLIENTS_MAX other IDs have
 * sessions; -ENOMEM. */
int session_open (struct sessions *s, struct session_wish *wish, struct session **session);
void session_close (struct session *session); /* all of its requests have ended */
struct export *session_export (const struct session *session);
const char *session_peer (const struct session *session);

/* How many connections has an export that are not barred? */
unsigned sessions_count (struct sessions *s, const struct export *e);

/* How many clients has it? And who are they, cut where there is no more room. */
unsigned sessions_list (struct sessions *s, const struct export *e, char *names, size_t room);

/* Bar all that it has: none of their requests begins from here on, and who opens it as exclusive waits for those that are under way. Where it is exclusive, the client that had it
 * does not get it back before another one has had it, or this is called once more. Returns how many. */
unsigned sessions_bar (struct sessions *s, const struct export *e);

/* An export that is changed as a whole; the caller's, from sessions_hold to sessions_release. The fields are session.c's. */
struct session_hold {
  const struct export *export;
  struct session_hold *next;
  _Atomic unsigned nwaiting; /* opens; also read without the mutex */
  bool released, gone;
};

/* From here on opens of it wait. -EBUSY if it has connections that are not barred, or have a request under way, or is held already. */
int sessions_hold (struct sessions *s, struct session_hold *hold, const struct export *e);

/* gone: it is not there any more, and those who wait get -ENOENT. */
void sessions_release (struct sessions *s, struct session_hold *hold, bool gone);

/* Around each request. session_begin: -ESTALE if it is barred, and then without session_end; waits while the server halts. */
int session_begin (struct session *session);
void session_end (struct session *session);

/* No request begins from here on, and none is under way when it returns: 0; or -ETIMEDOUT, if after so long some still are, and all goes
 * on as before. -EALREADY if another halt is there, or under way. */
int sessions_halt (struct sessions *s, unsigned timeout_ms);

/* Take a halt back: all who wait go on. */
void sessions_resume (struct sessions *s);

#endif
