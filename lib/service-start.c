/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-start.c - the exports that a start finds in its state, and those that it is asked for.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "bootid.h"
#include "drum.h"
#include "export.h"
#include "exports.h"
#include "log.h"
#include "manifest.h"
#include "restore.h"
#include "service-impl.h"
#include "state.h"
#include "units.h"

enum { NS_PER_SECOND = 1000000000 };

/* The size of the default export, if it is new: as asked for, or all that there is. */
static int
choose_size (const struct service *service, struct export_spec *spec)
{
  struct drum_usage usage;

  drum_usage (service->drum, &usage);
  if (usage.nslots <= usage.nkept) {
    log_error ("device=: the drum has %" PRIu64
               " usable slots, and needs one more to keep back for rewrites: "
               "give one more device, or a larger one",
               usage.nslots);
    return -ENOSPC;
  }
  if (spec->size_bytes == 0)
    spec->size_bytes = (usage.nslots - usage.nkept) * PAGE_BYTES;
  return 0;
}

static int
create_new (struct service *service, const struct export_spec *asked)
{
  const struct manifest *m = service->state ? state_manifest (service->state) : NULL;
  struct export_spec spec = *asked;
  struct service_birth birth = { .spec = &spec };
  int ret;

  if (service_known_export (service, asked->name))
    return 0;
  if (service_removed_export (m, asked->name)) {
    log_notice ("export \"%s\": was removed while the server ran, and is left out: drumctl "
                "export-add brings one back",
                asked->name);
    return 0;
  }
  ret = choose_size (service, &spec);
  if (ret == 0)
    ret = service_bear_export (service, &birth);
  if (ret < 0)
    return ret;
  ret = exports_add (service->exports, birth.export);
  if (ret < 0) {
    service_complain_export (&spec, ret);
    service_bury_export (service, birth.export);
  }
  return ret;
}

/* One that a restart found. */
static int
renew_terms (const struct service *service, const struct manifest_export *known, struct export *e)
{
  const struct export_spec *asked = service_asked (service, known->name);
  struct export_terms terms = known->terms;

  if (asked)
    service_renew_terms (asked, known, &terms);
  return export_set_terms (e, &terms, true);
}

int
service_create_exports (const struct service_config *config, struct service *service)
{
  const struct manifest *m = service->state ? state_manifest (service->state) : NULL;
  int ret = 0;

  drum_set_overcommit (service->drum, !config->no_overcommit);
  for (unsigned i = 0; m && i < m->nexports && ret == 0; i++) {
    struct export *e = exports_get (service->exports, m->exports[i].name);

    ret = renew_terms (service, &m->exports[i], e);
    export_release (e);
  }
  for (unsigned i = 0; i < service->nasked && ret == 0; i++)
    ret = create_new (service, &service->asked[i]);
  return ret;
}

/* Does the start ask for another size than it has? */
static int
check_size (const struct service_config *config, const struct service *service,
            const struct manifest_export *known, uint64_t has_bytes)
{
  const struct export_spec *asked = service_asked (service, known->name);
  struct export_spec last;
  char text[2][16];

  if (!asked || asked->size_bytes == 0 || asked->size_bytes == has_bytes)
    return 0;
  service_last_asked (known, &last);
  if (asked->size_bytes == last.size_bytes) /* it was resized since, or made with another */
    return 0;
  log_error ("export \"%s\": size= is %" PRIu64
             " bytes (%s), and the state in %s has it with %" PRIu64
             " (%s): give that, and then drumctl export-resize",
             known->name, asked->size_bytes, format_bytes (asked->size_bytes, text[0]),
             config->state_dir, has_bytes, format_bytes (has_bytes, text[1]));
  return -EINVAL;
}

/* Give a map file the size that it should have. */
static int
mend_map (const struct service_config *config, struct service *service,
          const struct manifest_export *known, uint64_t size_bytes)
{
  uint64_t nlost = 0;
  int ret = 0;

  if (known->next_bytes)
    ret = state_finish_resize (service->state, known->number, known->size_bytes >> PAGE_SHIFT,
                               size_bytes >> PAGE_SHIFT);
  if (ret == 0 && config->repair)
    ret = state_repair_map (service->state, known->number, size_bytes >> PAGE_SHIFT, &nlost);
  if (nlost > 0)
    log_warning ("export \"%s\": %" PRIu64 " pages are lost: their part of its page map is missing",
                 known->name, nlost);
  return ret;
}

static int
reopen (const struct service_config *config, struct service *service,
        const struct manifest_export *known)
{
  uint64_t size_bytes = known->next_bytes ? known->next_bytes : known->size_bytes;
  struct export_spec spec = { .name = known->name, .size_bytes = size_bytes };
  struct export_config how = { .number = known->number, .idle_ns = known->idle * NS_PER_SECOND };
  struct export *e;
  int ret = check_size (config, service, known, size_bytes);

  if (ret == 0)
    ret = mend_map (config, service, known, size_bytes);
  how.pattern = *known->pattern ? known->pattern : NULL;
  if (ret == 0)
    ret = service_create_export (service, &spec, &how, false, &e);
  if (ret == 0 && (ret = exports_add (service->exports, e)) < 0) {
    service_complain_export (&spec, ret);
    export_destroy (e);
  }
  service->number = known->number > service->number ? known->number : service->number;
  return ret;
}

/* Finish an export_pass that was interrupted. */
static int
finish_move (struct service *service, const struct manifest *m, const struct manifest_export *from)
{
  unsigned i = 0;

  while (m->exports[i].number != from->moving_to) /* it is there: see manifest_load */
    i++;
  return state_finish_pass (service->state, from, &m->exports[i]);
}

/* All that are in the table get the pages that their files name. */
static int
restore (const struct service_config *config, struct service *service)
{
  const struct manifest *m = state_manifest (service->state);
  unsigned n = exports_count (service->exports);
  struct export **e = calloc (n + 1, sizeof (struct export *));
  uint64_t *nlost = calloc (n + 1, sizeof *nlost);
  struct restore r = {
    .drum = service->drum, .exports = e, .repair = config->repair, .dir = config->state_dir
  };
  struct export *next = NULL;
  uuid_t boot;
  int ret = -ENOMEM;

  if (e && nlost) {
    while ((next = exports_next (service->exports, next)))
      e[r.nexports++] = next; /* they stay */
    bootid_read (boot);
    r.rebooted = uuid_compare (boot, m->boot) != 0;
    ret = restore_exports (&r, nlost);
  }
  if (ret == -ENOMEM && !(e && nlost))
    log_error ("no memory for the exports");
  free (e);
  free (nlost);
  return ret;
}

int
service_restore_exports (const struct service_config *config, struct service *service)
{
  const struct manifest *m = state_manifest (service->state);
  int ret = 0;

  state_set_drum (service->state, service->drum);
  for (unsigned i = 0; m && i < m->nexports && ret == 0; i++)
    if (m->exports[i].moving_to)
      ret = finish_move (service, m, &m->exports[i]);
  for (unsigned i = 0; m && i < m->nexports && ret == 0; i++)
    ret = reopen (config, service, &m->exports[i]);
  return ret < 0 || !m ? ret : restore (config, service);
}
