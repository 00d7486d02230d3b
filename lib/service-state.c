/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-state.c - what of a service outlives a restart: from a manifest to its devices and exports, and back.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bootid.h"
#include "drum-devices.h"
#include "drum.h"
#include "export.h"
#include "exports.h"
#include "log.h"
#include "manifest.h"
#include "service-impl.h"
#include "session.h"
#include "state.h"
#include "stats.h"
#include "swapdev.h"
#include "units.h"

enum {
  NS_PER_SECOND = 1000000000,
  FEW = 32, /* files that the server has open besides, before clients come */
};

/* What is new, beside what the drum tells. */
struct change {
  struct service *service;
  const struct service_config *config; /* of the start that is being done; or NULL */
  struct manifest_client client;       /* that comes with a higher epoch; or no ID */
};

static bool
is_removed (const struct manifest *m, const char *path)
{
  for (unsigned i = 0; i < m->nremoved; i++)
    if (strcmp (m->removed[i], path) == 0)
      return true;
  return false;
}

static bool
is_device (const struct manifest *m, const char *path)
{
  for (unsigned i = 0; i < m->ndevices; i++)
    if (strcmp (m->devices[i].path, path) == 0)
      return true;
  return false;
}

static bool
is_named (const struct service_config *config, const char *path)
{
  for (unsigned i = 0; i < config->ndevices; i++)
    if (strcmp (config->devices[i].path, path) == 0)
      return true;
  return false;
}

static int
refuse_known (const struct service_config *config, const char *path, const char *what)
{
  if (config->repair) {
    log_warning ("%s: %s: its pages are lost", path, what);
    return 0;
  }
  log_error ("%s: %s, and belongs to the state in %s: bring it back, name its new path, or give "
             "state-repair=yes to lose what was on it",
             path, what, config->state_dir);
  return -EBADMSG;
}

/* Was there a device, and is nothing now? */
static bool
is_missing (const struct manifest *m, const char *path)
{
  return is_device (m, path) && access (path, F_OK) == -1 && errno == ENOENT;
}

/* Open those that the start names, but for those that were removed while the server ran. */
static int
open_named (const struct service_config *config, const struct service *service,
            const struct manifest *m, struct opening *opening)
{
  int ret = 0;

  for (unsigned i = 0; i < config->ndevices && ret == 0; i++) {
    struct swapdev_spec spec = config->devices[i];

    spec.state = m ? m->state : NULL;
    if (m && is_removed (m, spec.path))
      log_notice (
        "%s: was removed while the server ran, and is left out: drumctl add brings it back",
        spec.path);
    else if (m && is_missing (m, spec.path))
      ret = refuse_known (config, spec.path, "is missing");
    else
      ret = opening_add (opening, service, &spec);
  }
  return ret;
}

/* Which one is it? opening->n: none. */
static unsigned
find_known (const struct opening *opening, const struct manifest_device *known)
{
  unsigned i = 0;

  while (i < opening->n &&
         (!swapdev_is_labelled (opening->swapdev[i]) ||
          uuid_compare (swapdev_identity (opening->swapdev[i])->device, known->uuid) != 0))
    i++;
  return i;
}

static bool
is_opened (const struct opening *opening, const char *path)
{
  for (unsigned i = 0; i < opening->n; i++)
    if (strcmp (swapdev_path (opening->swapdev[i]), path) == 0)
      return true;
  return false;
}

/* Look for one that the start does not name where it was. Whatever is there is let go if it is not the one. */
static int
open_recorded (const struct service_config *config, const struct service *service,
               const struct manifest *m, const struct manifest_device *known,
               struct opening *opening)
{
  struct swapdev_spec spec = {
    .path = known->path, .prio = known->given_prio, .maxio = known->given_maxio, .force = true
  };
  bool is_another = is_opened (opening, known->path);
  int ret;

  if (is_missing (m, known->path))
    return is_named (config, known->path) ? 0 : refuse_known (config, known->path, "is missing");
  ret = is_another ? 0 : opening_add (opening, service, &spec);
  if (ret < 0)
    return config->repair && ret != -ENOMEM ? refuse_known (config, known->path, "can't be opened")
                                            : ret;
  if (find_known (opening, known) < opening->n)
    return 0;
  if (!is_another)
    swapdev_undo (opening->swapdev[--opening->n]);
  return refuse_known (config, known->path, "is another device than it was");
}

/* Is that the device as the state left it? */
static const char *
find_fault (const struct manifest *m, const struct manifest_device *known,
            const struct swapdev *dev)
{
  const struct swapdev_identity *id = swapdev_identity (dev);

  if (swapdev_nslots (dev) != known->nslots)
    return "has another size than it had";
  if (uuid_compare (id->state, m->state) != 0)
    return "has been used without this state since";
  return NULL;
}

static bool
is_of_this_generation (const struct manifest *m, const struct swapdev_identity *id)
{
  return id->generation == m->generation || (m->starting && id->generation + 1 == m->generation);
}

/* Give opening number i the seat that it had. */
static int
seat_known (const struct service_config *config, const struct manifest *m,
            const struct manifest_device *known, struct opening *opening, unsigned i)
{
  struct swapdev *dev = opening->swapdev[i];
  const char *fault = find_fault (m, known, dev);

  if (fault)
    return refuse_known (config, swapdev_path (dev), fault);
  if (!is_of_this_generation (m, swapdev_identity (dev)) && !config->repair) {
    log_error ("%s: is of generation %" PRIu64 ", and the state in %s of %" PRIu64
               ": the state is an old copy, or the device is: put the right one back, or give "
               "state-repair=yes to have errors for the pages that are not there any more",
               swapdev_path (dev), swapdev_identity (dev)->generation, config->state_dir,
               m->generation);
    return -EBADMSG;
  }
  opening->seat[i] = (struct drum_seat){
    .first = known->first,
    .state = (enum drum_device_state) known->state, /* never closing: see compose_device */
    .prio = swapdev_prio (dev) == known->given_prio ? known->prio : swapdev_prio (dev),
    .leave = { known->leaving, known->leave_force, known->leave_rate },
  };
  if (swapdev_asked_maxio (dev) == known->given_maxio)
    swapdev_set_maxio (dev, known->maxio);
  return 0;
}

/* No two may be copies of one device. */
static int
check_copies (const struct opening *opening)
{
  for (unsigned i = 0; i < opening->n; i++)
    for (unsigned k = 0; k < i; k++)
      if (uuid_compare (swapdev_identity (opening->swapdev[i])->device,
                        swapdev_identity (opening->swapdev[k])->device) == 0) {
        log_error (
          "%s: carries the same label as %s: one is a copy: leave it out, or overwrite its "
          "first two pages with zeroes",
          swapdev_path (opening->swapdev[i]), swapdev_path (opening->swapdev[k]));
        return -EEXIST;
      }
  return 0;
}

int
service_open_known (const struct service_config *config, struct service *service,
                    struct opening *opening)
{
  const struct manifest *m = state_manifest (service->state);
  int ret = open_named (config, service, m, opening);

  for (unsigned k = 0; m && k < m->ndevices && ret == 0; k++) {
    unsigned i;

    if (find_known (opening, &m->devices[k]) == opening->n)
      ret = open_recorded (config, service, m, &m->devices[k], opening);
    i = find_known (opening, &m->devices[k]);
    if (ret == 0 && i < opening->n)
      ret = seat_known (config, m, &m->devices[k], opening, i);
  }
  return ret < 0 ? ret : check_copies (opening);
}

int
service_allow_files (const struct service_config *config, const struct service *service)
{
  const struct manifest *m = state_manifest (service->state);
  unsigned ndevices = m && m->ndevices > config->ndevices ? m->ndevices : config->ndevices;
  uint64_t n = (uint64_t) ndevices + (m ? m->nexports : 0) + FEW;
  struct rlimit limit;

  for (unsigned i = 0; i < config->nexports; i++)
    n += !service_known_export (service, config->exports[i].name);
  if (getrlimit (RLIMIT_NOFILE, &limit) == -1)
    return -errno;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit (RLIMIT_NOFILE, &limit);
  }
  if (n <= limit.rlim_max)
    return 0;
  log_error ("state=: each export has a file in %s, so that this server needs %" PRIu64
             " open files, and may have %ju: allow it more (ulimit -Hn, or LimitNOFILE= of its "
             "unit)",
             config->state_dir, n, (uintmax_t) limit.rlim_max);
  return -EMFILE;
}

static int
compose_beginning (void *opaque, const struct manifest *before, struct manifest *m)
{
  const struct service *service = opaque;
  int ret = manifest_copy (before, m);

  if (ret < 0)
    return ret;
  uuid_copy (m->state, service->identity.state);
  uuid_copy (m->drum, service->identity.drum);
  m->generation = service->identity.generation;
  m->starting = true;
  return 0;
}

int
service_begin_state (const struct service_config *config, struct service *service)
{
  const struct manifest *m = state_manifest (service->state);
  struct swapdev_identity *id = &service->identity;

  if (m) {
    uuid_copy (id->drum, m->drum);
    uuid_copy (id->state, m->state);
    if (!config->repair ||
        id->generation < m->generation + !m->starting) /* else labels are newer */
      id->generation = m->generation + !m->starting;
  } else
    uuid_generate (id->state);
  if (!state_is_durable (service->state))
    bootid_read (id->boot);
  return state_update (service->state, compose_beginning, service);
}

static int
add_string (char ***strings, unsigned *n, const char *text)
{
  char **more = realloc (*strings, (*n + 1) * sizeof *more);

  if (!more)
    return -ENOMEM;
  *strings = more;
  more[*n] = strdup (text);
  return more[*n] ? (++*n, 0) : -ENOMEM;
}

static int
compose_device (const struct drum_device_info *info, struct manifest_device *dev)
{
  *dev = (struct manifest_device){
    .path = strdup (swapdev_path (info->swapdev)),
    .first = info->first,
    .nslots = info->end - info->first,
    .prio = info->prio,
    .given_prio = swapdev_prio (info->swapdev),
    .maxio = swapdev_maxio (info->swapdev),
    .given_maxio = swapdev_asked_maxio (info->swapdev),
    .state = info->coming                    ? DEVICE_OPEN
             : info->state == DEVICE_CLOSING ? info->before
                                             : info->state,
    .leaving = info->leave.wanted,
    .leave_force = info->leave.force,
    .leave_rate = info->leave.rate,
  };
  uuid_copy (dev->uuid, swapdev_identity (info->swapdev)->device);
  return dev->path ? 0 : -ENOMEM;
}

static int
compose_devices (const struct service *service, struct manifest *m)
{
  struct drum_device_info info[DRUM_MAX_DEVICES];
  unsigned n;
  int ret = 0;

  drum_hold_devices (service->drum);
  n = drum_devices (service->drum, info, DRUM_MAX_DEVICES);
  m->devices = calloc (n ? n : 1, sizeof *m->devices);
  if (!m->devices)
    ret = -ENOMEM;
  while (ret == 0 && m->ndevices < n) {
    ret = compose_device (&info[m->ndevices], &m->devices[m->ndevices]);
    m->ndevices += ret == 0;
  }
  drum_release_devices (service->drum);
  return ret;
}

/* Those that a start is to leave out: they are not there any more, whoever comes first to say so. => m has its devices. */
static int
compose_removed (const struct service_config *config, const struct manifest *before,
                 struct manifest *m)
{
  int ret = 0;

  for (unsigned i = 0; i < before->nremoved && ret == 0; i++)
    if (!is_device (m, before->removed[i]) && (!config || is_named (config, before->removed[i])))
      ret = add_string (&m->removed, &m->nremoved, before->removed[i]);
  for (unsigned i = 0; i < before->ndevices && !config && ret == 0; i++)
    if (!is_device (m, before->devices[i].path) && !is_removed (m, before->devices[i].path))
      ret = add_string (&m->removed, &m->nremoved, before->devices[i].path);
  return ret;
}

/* A copy, "" for nothing. NULL: no memory. */
static char *
copy_text (const char *text)
{
  return strdup (text ? text : "");
}

static int
compose_export (const struct service *service, struct export *e, struct manifest_export *to)
{
  uint64_t step_ns = service_idle_step_ns (service, e), idle_ns = export_idle_ns (e, now_ns ());
  struct export_plan plan;

  export_get_plan (e, &plan);
  *to = (struct manifest_export){
    .name = copy_text (export_name (e)),
    .size_bytes = export_size_bytes (e),
    .number = export_number (e),
    .next_bytes = plan.next_bytes,
    .moving_to = plan.moving_to,
    .given = copy_text (export_given (e)),
    .pattern = copy_text (export_pattern (e)),
    .idle = step_ns && idle_ns >= step_ns ? idle_ns / NS_PER_SECOND : 0,
  };
  export_get_terms (e, &to->terms);
  return to->name && to->given && to->pattern ? 0 : -ENOMEM;
}

/* Room for one more of them. */
static struct manifest_export *
grow_exports (struct manifest *m)
{
  struct manifest_export *more = m->exports;

  if ((m->nexports & (m->nexports - 1)) == 0) /* each time that it would double */
    more = realloc (m->exports, (m->nexports ? 2 * m->nexports : 1) * sizeof *more);
  if (more)
    m->exports = more;
  return more ? &more[m->nexports] : NULL;
}

static int
compose_exports (const struct service *service, struct manifest *m)
{
  struct manifest_export *to;
  struct export *e = NULL;

  while ((e = exports_next (service->exports, e))) {
    struct export_plan plan;

    export_get_plan (e, &plan);
    if (plan.leaving)
      continue;
    to = grow_exports (m);
    if (!to || (m->nexports++, compose_export (service, e, to)) < 0) {
      export_release (e);
      return -ENOMEM;
    }
  }
  return 0;
}

static int
compare_name (const void *name, const void *export)
{
  return strcmp (name, ((const struct manifest_export *) export)->name);
}

/* m has been composed: by name. */
static bool
has_export (const struct manifest *m, const char *name)
{
  return m->nexports > 0 &&
         bsearch (name, m->exports, m->nexports, sizeof *m->exports, compare_name);
}

bool
service_removed_export (const struct manifest *m, const char *name)
{
  for (unsigned i = 0; m && i < m->nremoved_exports; i++)
    if (strcmp (m->removed_exports[i], name) == 0)
      return true;
  return false;
}

/* Exports that a start is not to make again, though it names them. => m has its exports. */
static int
compose_removed_exports (const struct change *change, const struct manifest *before,
                         struct manifest *m)
{
  bool live = !change->config;
  int ret = 0;

  for (unsigned i = 0; i < before->nremoved_exports && ret == 0; i++)
    if (!has_export (m, before->removed_exports[i]) &&
        (live || service_asked (change->service, before->removed_exports[i])))
      ret = add_string (&m->removed_exports, &m->nremoved_exports, before->removed_exports[i]);
  for (unsigned i = 0; i < before->nexports && live && ret == 0; i++)
    if (*before->exports[i].given && !has_export (m, before->exports[i].name) &&
        !service_removed_export (m, before->exports[i].name))
      ret = add_string (&m->removed_exports, &m->nremoved_exports, before->exports[i].name);
  return ret;
}

const struct manifest_export *
service_known_export (const struct service *service, const char *name)
{
  const struct manifest *m = service->state ? state_manifest (service->state) : NULL;

  for (unsigned i = 0; m && i < m->nexports; i++)
    if (strcmp (m->exports[i].name, name) == 0)
      return &m->exports[i];
  return NULL;
}

/* Gathers the clients that are known. */
struct gathering {
  struct manifest *m;
  int ret;
};

static void
add_client (void *opaque, const char *id, uint64_t epoch)
{
  struct gathering *g = opaque;
  struct manifest *m = g->m;
  struct manifest_client *more = realloc (m->clients, (m->nclients + 1) * sizeof *more);

  if (more) {
    m->clients = more;
    more[m->nclients] = (struct manifest_client){ .id = strdup (id), .epoch = epoch };
  }
  if (more && more[m->nclients].id)
    m->nclients++;
  else
    g->ret = -ENOMEM;
}

static int
compose_clients (const struct change *change, struct manifest *m)
{
  struct gathering g = { .m = m };
  const char *id = change->client.id;

  sessions_clients (change->service->sessions, add_client, &g);
  for (unsigned i = 0; id && i < m->nclients; i++)
    if (strcmp (m->clients[i].id, id) == 0) {
      m->clients[i].epoch = change->client.epoch;
      id = NULL;
    }
  if (id)
    add_client (&g, id, change->client.epoch);
  return g.ret;
}

static int
compose (void *opaque, const struct manifest *before, struct manifest *m)
{
  const struct change *change = opaque;
  const struct service *service = change->service;
  int ret;

  uuid_copy (m->state, service->identity.state);
  uuid_copy (m->drum, service->identity.drum);
  m->generation = service->identity.generation;
  bootid_read (m->boot);
  ret = compose_devices (service, m);
  if (ret == 0)
    ret = compose_removed (change->config, before, m);
  if (ret == 0)
    ret = compose_exports (service, m);
  if (ret == 0)
    ret = compose_removed_exports (change, before, m);
  if (ret == 0)
    ret = compose_clients (change, m);
  if (ret < 0)
    log_error ("state=: %s: no memory for it", state_dir (service->state));
  return ret;
}

static int
update (const struct change *change)
{
  struct state *state = change->service->state;

  return state ? state_update (state, compose, (void *) change) : 0;
}

int
service_note_client (void *opaque, const char *id, uint64_t epoch)
{
  return update (
    &(struct change){ .service = opaque, .client = { .id = (char *) id, .epoch = epoch } });
}

int
service_finish_state (const struct service_config *config, struct service *service)
{
  const struct manifest *m = state_manifest (service->state);
  int ret = 0;

  for (unsigned i = 0; m && i < m->nclients && ret == 0; i++)
    ret = sessions_remember (service->sessions, m->clients[i].id, m->clients[i].epoch);
  if (ret == 0)
    ret = state_sync (
      service->state); /* no map on the disk names slots of a device that the manifest does not */
  if (ret == 0)
    ret = state_sync_names (service->state, NULL); /* and those that the manifest names are there */
  if (ret == 0)
    ret = update (&(struct change){ .service = service, .config = config });
  return ret < 0 ? ret : state_sweep (service->state);
}

int
service_save (struct service *service)
{
  return update (&(struct change){ .service = service });
}
