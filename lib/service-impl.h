/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-impl.h - what the files of service share; nobody else's.
 */
#ifndef DRUM_SERVICE_IMPL_H
#define DRUM_SERVICE_IMPL_H

#include "drum-devices.h"
#include "service.h"

struct export_config;
struct manifest;
struct session_hold;
struct manifest_export;

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

/* Each export of a state has a file: have as many open as this process may. -EMFILE, and said, if that is not enough for those that there will be. */
int service_allow_files (const struct service_config *config, const struct service *service);

/* Who the service is, from this start on; and a note in the state that it is about to label its devices so. */
int service_begin_state (const struct service_config *config, struct service *service);

/* The exports that the state has, with the pages that they had; what was being done to them is done. */
int service_restore_exports (const struct service_config *config, struct service *service);

/* The others that the start asks for; and all have their terms. */
int service_create_exports (const struct service_config *config, struct service *service);

/* Warn if templates promise more than they can keep, the other exports being there. For the start. */
void service_check_templates (struct service *service);

/* What the state says of an export; NULL: nothing. For the start. */
const struct manifest_export *service_known_export (const struct service *service,
                                                    const char *name);

/* Was it removed while the server ran, so that a start is not to make it again? m may be NULL. */
bool service_removed_export (const struct manifest *m, const char *name);

/* An export on its way into the service. */
struct service_birth {
  const struct export_spec *spec;
  const char *pattern; /* see struct export_config; NULL */
  bool format;         /* as a swap area */
  struct export *export;
};

/* Its object, with its map file if there is a state, a new one if is_new: config is completed, also by what the start asks for under this
 * name, whoever makes it. Says what is wrong. */
int service_create_export (struct service *service, const struct export_spec *spec,
                           struct export_config *config, bool is_new, struct export **e);

/* => holds service->creating, or is the start. Make a new one, which is in no table yet. */
int service_bear_export (struct service *service, struct service_birth *birth);

/* => the same. And it comes into the table and the state. */
int service_publish_export (struct service *service, struct service_birth *birth);

/* Is it in the table? With a session, or held, it stays there. */
bool service_has_export (struct service *service, const struct export *e);

/* Keep clients away from it: see sessions_hold. -ENOENT: it has gone. */
int service_hold_export (struct service *service, struct session_hold *h, struct export *e);

/* => holds it (service_hold_export), and *gone is false. It goes, first out of the state, and then out of the table:
 * whoever asks for it meanwhile waits. Then, once it is released, it is to be buried. */
int service_withdraw_export (struct service *service, struct export *e, bool *gone);

/* => it is not in the table. It came to nothing, or goes: nothing of it stays. */
void service_bury_export (struct service *service, struct export *e);

/* How long must nobody have used it, to be worth a note, if it is to go one day? 0: it stays. */
uint64_t service_idle_step_ns (const struct service *service, const struct export *e);

/* There is none of that name (-ENOENT), or can be none; text is what was asked for. */
int service_say_unknown (struct service *service, const char *name, const char *text);

/* There is no memory for it, or its size makes no sense: returns ret. */
int service_complain_export (const struct export_spec *spec, int ret);

/* A session_note: a client's epoch is in the state. opaque is the service. */
int service_note_client (void *opaque, const char *id, uint64_t epoch);

/* What the start names, devices, exports and templates, while the service runs: -ENOMEM. NULL if it does not name that device, or
 * that export; the default one may be asked for without saying so. */
int service_keep_named (const struct service_config *config, struct service *service);
const struct swapdev_spec *service_named (const struct service *service, const char *path);
const struct export_spec *service_asked (const struct service *service, const char *name);
void service_forget_named (struct service *service);

enum { GIVEN_BYTES = 512 };

/* What a start asks for, as text for the state; and what the one before it asked for: nothing is all defaults, and a size of 0. Its name is
 * known's. */
void service_describe (const struct export_spec *spec, char text[GIVEN_BYTES]);
void service_last_asked (const struct manifest_export *known, struct export_spec *spec);

/* An export that the state has keeps its terms, but for those that the start asks for otherwise than the last one did: says which live changes
 * that undoes. A reserve and a limit that don't go together then are both as asked for. */
void service_renew_terms (const struct export_spec *asked, const struct manifest_export *known,
                          struct export_terms *terms);

/* The start is done: all of it is in the state. */
int service_finish_state (const struct service_config *config, struct service *service);

#endif
