/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service.h - from what a user asked for to a running drum with its export, and back.
 *
 * Locking: none; one thread, before the first request and after the last; but for service_add.
 * Errors:  0 or -errno, and one line through log.h that names what is wrong. A start that fails, or is undone, leaves
 *          files, devices and their contents as they were.
 */
#ifndef DRUM_SERVICE_H
#define DRUM_SERVICE_H

#include <stdbool.h>
#include <stdint.h>

#include "memlock.h"
#include "swapdev.h"

struct bounce;
struct drum;
struct export;
struct sessions;
struct state;

struct service_config {
  const struct swapdev_spec *devices;
  unsigned ndevices;
  uint32_t stripe_bytes;
  uint64_t size_bytes; /* of the default export; 0: all usable slots less those kept back */
  bool checksum;
  bool reset_on_mkswap;     /* struct export_config has these */
  uint32_t readahead_bytes; /* up to READAHEAD_MAX_BYTES */
  bool direct;              /* O_DIRECT where it can be */
  enum memlock_mode lock;
  const char
    *state_dir; /* absolute: what outlives a restart is kept there (state.h); NULL: nothing does */
  bool sync;    /* with it: every write is durable before it is acknowledged */
  bool repair;  /* with it: start with what is sound, and lose the rest */
};

struct service {
  struct drum *drum;
  struct export *export;
  struct sessions *sessions;
  struct bounce *bounce; /* for O_DIRECT; NULL: without */
  struct state *state;   /* NULL: without */
  enum memlock_mode lock;
  bool locked;                      /* since service_lock: what is added is touched */
  struct swapdev_identity identity; /* of its devices; each has a UUID of its own */
  struct swapdev_spec *named;       /* with a state: what the start named, copied */
  unsigned nnamed;
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

/* What live changes have done to devices, those that came or went included, is in the state when this returns 0. Nothing to do
 * without one. */
int service_save (struct service *service);

/* Make durable what was acknowledged before: state_sync. */
int service_sync (struct service *service);

/* Does that outlive the power, too? */
bool service_is_durable (const struct service *service);

/* Are there pages to come back to after a restart? */
bool service_keeps_pages (const struct service *service);

/* The server ends. */
void service_stop (struct service *service);

/* The server did not come to serve (its socket can't be bound, say). */
void service_undo (struct service *service);

#endif
