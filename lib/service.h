/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service.h - from what a user asked for to a running drum with its exports, and back.
 *
 * Locking: none; one thread, before the first request and after the last; but where it says "any thread".
 * Errors:  0 or -errno, and one line through log.h that names what is wrong. A start that fails, or is undone, leaves
 *          files, devices and their contents as they were.
 */
#ifndef DRUM_SERVICE_H
#define DRUM_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "memlock.h"
#include "mutex.h"
#include "ring.h"
#include "swapdev.h"
#include "terms.h"

struct bounce;
struct drum;
struct export;
struct exports;
struct session;
struct sessions;
struct state;

struct service_config {
  const struct swapdev_spec *devices;
  unsigned ndevices;
  uint32_t stripe_bytes;
  /* Of the default export. 0: all usable slots less those kept back; with exports or templates: there is none. */
  uint64_t size_bytes;
  const struct export_spec *exports; /* each name once */
  unsigned nexports;
  const struct export_template *templates; /* the first that matches counts */
  unsigned ntemplates;
  bool no_overcommit; /* the sizes of all exports may not exceed the slots */
  bool checksum;
  bool reset_on_mkswap;     /* struct export_config has these */
  uint32_t readahead_bytes; /* up to READAHEAD_MAX_BYTES */
  bool direct;              /* O_DIRECT where it can be */
  enum rings_use io;
  enum memlock_mode lock;
  const char
    *state_dir; /* absolute: what outlives a restart is kept there (state.h); NULL: nothing does */
  bool sync;    /* with it: every write is durable before it is acknowledged */
  bool repair;  /* with it: start with what is sound, and lose the rest */
};

struct service {
  struct drum *drum;
  struct exports *exports;
  struct sessions *sessions;
  struct bounce *bounce; /* for O_DIRECT; NULL: without */
  struct rings *rings;   /* NULL: without io_uring */
  struct state *state;   /* NULL: without */
  enum memlock_mode lock;
  bool locked;                      /* since service_lock: what is added is touched */
  struct swapdev_identity identity; /* of its devices; each has a UUID of its own */
  struct swapdev_spec *named;       /* with a state: what the start named, copied */
  unsigned nnamed;
  bool checksum, reset_on_mkswap; /* of exports to come */
  uint32_t readahead_bytes;
  struct mutex creating;             /* one export at a time; all below */
  uint64_t number;                   /* of the last one's map file */
  struct export_template *templates; /* copied */
  unsigned ntemplates;
  struct export_spec *asked; /* exports that the start asks for, the default one first; copied */
  unsigned nasked;
};

int service_start (const struct service_config *config, struct service *service);

/* After the fork, before any thread is started: lock its memory, if that is asked for (memlock.h). Fails only if it must be. */
int service_lock (struct service *service);

/* A thread of the server's begins to serve. */
void service_enter_thread (const struct service *service);

/* And a connection, in this thread: it has taken no request yet, so there may be memory for them. */
void service_enter_connection (const struct service *service);

/* One more device, while the service runs; takes as long as the file takes to be allocated. Any thread. */
int service_add (struct service *service, const struct swapdev_spec *spec);

/* A device has been moved off and taken out of the drum (drum_remove), where it had its range from first on: it goes. If that can't be
 * noted in the state, it is there again, closed. */
int service_drop (struct service *service, struct swapdev *dev, uint32_t first, int prio);

/* The exports, any thread. What is wrong is said; -ENOENT: there is none of that name. */

/* A connection begins: text is NAME or NAME@ID.EPOCH, peer where it comes from (session.h). Makes an export that a template asks for.
 * -ENOENT, and as session_open. */
int service_open (struct service *service, const char *text, const char *peer,
                  struct session **session);
void service_close (struct service *service, struct session *session);

/* One more. -EINVAL: no such name, or size; -EEXIST; -ENOSPC: what it is to be promised can't be had. */
int service_add_export (struct service *service, const struct export_spec *spec);

/* Other terms, from the next request on. */
int service_set_export (struct service *service, const char *name,
                        const struct export_terms *terms);

/* See export_fill; length UINT64_MAX: up to its end. */
int service_fill_export (struct service *service, const char *name, uint64_t length,
                         uint64_t offset, uint64_t *reserve_bytes);

/* Bar the connections that it has: another client may have it. *n: how many there were. */
int service_take_over (struct service *service, const char *name, unsigned *n);

/* Only while it has no client; those that come meanwhile wait. O(pages). -EBUSY: it has one. */
int service_remove_export (struct service *service, const char *name);
/* *freed_bytes: of pages that were stored beyond the new end. */
int service_resize_export (struct service *service, const char *name, uint64_t size_bytes,
                           uint64_t *freed_bytes);
/* All pages of one pass to the other: export_pass. */
int service_move_export (struct service *service, const char *from, const char *to);

/* Could one of those be done now? As they say. */
int service_check_idle (struct service *service, const char *name);

/* Remove those that a template made, and that nobody has used for longer than it says. To be called now and then. */
void service_expire (struct service *service);
bool service_expires (const struct service *service); /* is there such a template? */

/* What live changes have done to devices, those that came or went included, is in the state when this returns 0. Nothing to do
 * without one. */
int service_save (struct service *service);

/* Make durable what was acknowledged before: state_sync. */
int service_sync (struct service *service);

/* Are there pages to come back to after a restart? */
bool service_keeps_pages (const struct service *service);

/* The server ends. */
void service_stop (struct service *service);

/* The server did not come to serve (its socket can't be bound, say). */
void service_undo (struct service *service);

#endif
