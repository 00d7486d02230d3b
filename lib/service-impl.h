/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-impl.h - what service.c and service-state.c share; nobody else's.
 */
#ifndef DRUM_SERVICE_IMPL_H
#define DRUM_SERVICE_IMPL_H

#include "drum-devices.h"
#include "service.h"

struct export_config;

/* Devices on their way into the drum. */
struct opening {
  unsigned n;
  struct swapdev *swapdev[DRUM_MAX_DEVICES];
  struct drum_seat seat[DRUM_MAX_DEVICES];
};

/* Open one more of them, which may stand anywhere; nothing is changed yet. */
int opening_add (struct opening *opening, const struct service *service,
                 const struct swapdev_spec *spec);

/* Open the devices that the start names, and those that the state names; each that the state knows has its seat. */
int service_open_known (const struct service_config *config, struct service *service,
                        struct opening *opening);

/* Who the service is, from this start on; and a note in the state that it is about to label its devices so. */
int service_begin_state (const struct service_config *config, struct service *service);

/* The size of the default export in the state; 0 if it has none. -EINVAL if another one is asked for. */
int service_known_size (const struct service_config *config, const struct service *service,
                        uint64_t *bytes);

/* Its map, which is new if the state has none. */
int service_open_map (const struct service_config *config, struct service *service,
                      struct export_config *export);

/* It is there: give it the pages that it had. */
int service_restore_map (const struct service_config *config, struct service *service);

/* A session_note: a client's epoch is in the state. opaque is the service. */
int service_note_client (void *opaque, const char *id, uint64_t epoch);

/* What the start names, while the service runs: -ENOMEM. NULL if it does not name that. */
int service_keep_named (const struct service_config *config, struct service *service);
const struct swapdev_spec *service_named (const struct service *service, const char *path);
void service_forget_named (struct service *service);

/* The start is done: all of it is in the state. */
int service_finish_state (const struct service_config *config, struct service *service);

#endif
