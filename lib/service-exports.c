/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-exports.c - the exports of a service: at its start, and while it runs.
 *
 * An export is in the table, and in the state, before a client may have it; and out of both before its slots are free.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "drum.h"
#include "export.h"
#include "exports.h"
#include "log.h"
#include "manifest.h"
#include "mapfile.h"
#include "parse.h"
#include "restore.h"
#include "service-impl.h"
#include "session.h"
#include "state.h"
#include "stats.h"
#include "bootid.h"
#include "units.h"

enum { GIVEN_BYTES = 512, NS_PER_SECOND = 1000000000 };

/* An export on its way into the service. */
struct birth {
  const struct export_spec *spec;
  const char *pattern, *given; /* see struct export_config; NULL */
  bool format;                 /* as a swap area */
  struct export *export;
};

/* What the start says of an export, to tell whether the next one says something else. */
static void
describe (const struct export_spec *spec, char text[GIVEN_BYTES])
{
  const struct export_terms *t = &spec->terms;

  snprintf (text, GIVEN_BYTES,
            "size=%" PRIu64 ",reserve=%" PRIu64 ",limit=%" PRIu64 ",weight=%u,iops=%" PRIu64
            ",bandwidth=%" PRIu64 ",exclusive=%d",
            spec->size_bytes, t->reserve_bytes, t->limit_bytes, t->weight, t->iops, t->bandwidth,
            t->exclusive);
}

bool
service_has_default (const struct service_config *config)
{
  return config->size_bytes > 0 || (config->nexports == 0 && config->ntemplates == 0);
}

static struct export_spec
default_spec (const struct service_config *config)
{
  return (struct export_spec){ .name = "",
                               .size_bytes = config->size_bytes,
                               .terms = { .weight = EXPORT_WEIGHT_DEFAULT } };
}

/* What the start asks for under this name. False: nothing. */
static bool
find_spec (const struct service_config *config, const char *name, struct export_spec *spec)
{
  if (!*name && service_has_default (config)) {
    *spec = default_spec (config);
    return true;
  }
  for (unsigned i = 0; i < config->nexports; i++)
    if (strcmp (config->exports[i].name, name) == 0) {
      *spec = config->exports[i];
      return true;
    }
  return false;
}

/* ---- making one ---- */

static int
complain_create (const struct export_spec *spec, int ret)
{
  const char *name = *spec->name ? spec->name : "size=";

  if (ret == -EINVAL)
    log_error ("%s: %" PRIu64 " is not a multiple of %u bytes", name, spec->size_bytes, PAGE_BYTES);
  else if (ret == -ENOMEM)
    log_error ("%s: no memory for the page map of an export of %" PRIu64
               " bytes: give a smaller size",
               name, spec->size_bytes);
  return ret;
}

/* The object, with its map file if there is a state; config has all but the file. */
static int
create (struct service *service, const struct export_spec *spec, struct export_config *config,
        bool is_new, struct export **e)
{
  int ret = 0;

  config->name = spec->name;
  config->size_bytes = spec->size_bytes;
  config->checksum = service->checksum;
  config->reset_on_mkswap = service->reset_on_mkswap;
  config->readahead_bytes = service->readahead_bytes;
  config->state = service->state;
  if (service->state)
    ret = state_map (service->state, config->number, spec->size_bytes >> PAGE_SHIFT, is_new,
                     &config->file);
  if (ret < 0)
    return ret;
  ret = complain_create (spec, export_create (service->drum, config, e));
  if (ret < 0 && config->file)
    mapfile_close (config->file);
  if (ret < 0)
    return ret;
  ret = service->state ? state_keep (service->state, config->file) : 0;
  if (ret < 0) {
    complain_create (spec, ret);
    export_destroy (*e);
  }
  return ret;
}

/* It came to nothing, or goes: nothing of it stays. => it is not in the table. */
static void
bury (struct service *service, struct export *e)
{
  if (service->state) {
    state_forget (service->state, export_file (e));
    state_remove_map (service->state, export_number (e));
  }
  export_clear (e);
  export_release (e);
}

/* => holds service->creating, or is the start. It is in no table yet. */
static int
bear (struct service *service, struct birth *birth)
{
  struct export_config config = { .number = ++service->number,
                                  .pattern = birth->pattern,
                                  .given = birth->given };
  int ret = create (service, birth->spec, &config, true, &birth->export);

  if (ret < 0)
    return ret;
  ret = export_set_terms (birth->export, &birth->spec->terms, false);
  if (ret == 0 && service->locked && (ret = export_touch (birth->export)) < 0)
    log_error ("export \"%s\": no memory for its page map", birth->spec->name);
  if (ret == 0 && birth->format && (ret = export_format (birth->export)) < 0)
    log_error ("export \"%s\": can't be made a swap area: %s", birth->spec->name, strerror (-ret));
  if (ret < 0)
    bury (service, birth->export);
  return ret;
}

/* ---- the start ---- */

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
create_new (const struct service_config *config, struct service *service,
            const struct export_spec *asked)
{
  const struct manifest *m = service->state ? state_manifest (service->state) : NULL;
  struct export_spec spec = *asked;
  struct birth birth = { .spec = &spec };
  char given[GIVEN_BYTES];
  int ret;

  (void) config;
  if (service_known_export (service, asked->name))
    return 0;
  if (service_removed_export (m, asked->name)) {
    log_notice ("export \"%s\": was removed while the server ran, and is left out: drumctl "
                "export-add brings one back",
                asked->name);
    return 0;
  }
  describe (asked, given);
  birth.given = given;
  ret = choose_size (service, &spec);
  if (ret == 0)
    ret = bear (service, &birth);
  if (ret < 0)
    return ret;
  ret = exports_add (service->exports, birth.export);
  if (ret < 0) {
    complain_create (&spec, ret);
    bury (service, birth.export);
  }
  return ret;
}

/* One that a restart found: what it had, unless the start says something else than the last one did. */
static int
renew_terms (const struct service_config *config, const struct manifest_export *known,
             struct export *e)
{
  struct export_terms terms = known->terms;
  struct export_spec spec;
  char given[GIVEN_BYTES];

  if (find_spec (config, known->name, &spec)) {
    describe (&spec, given);
    if (strcmp (given, known->given) != 0)
      terms = spec.terms;
  }
  return export_set_terms (e, &terms, true);
}

int
service_create_exports (const struct service_config *config, struct service *service)
{
  const struct manifest *m = service->state ? state_manifest (service->state) : NULL;
  struct export_spec spec = default_spec (config);
  int ret = 0;

  drum_set_overcommit (service->drum, !config->no_overcommit);
  for (unsigned i = 0; m && i < m->nexports && ret == 0; i++) {
    struct export *e = exports_get (service->exports, m->exports[i].name);

    ret = renew_terms (config, &m->exports[i], e);
    export_release (e);
  }
  if (ret == 0 && service_has_default (config))
    ret = create_new (config, service, &spec);
  for (unsigned i = 0; i < config->nexports && ret == 0; i++)
    ret = create_new (config, service, &config->exports[i]);
  return ret;
}

/* Does the start ask for another size than it has? */
static int
check_size (const struct service_config *config, const struct manifest_export *known,
            uint64_t has_bytes)
{
  struct export_spec spec;
  char has[16], asked[16], given[GIVEN_BYTES];

  if (!find_spec (config, known->name, &spec) || spec.size_bytes == 0 ||
      spec.size_bytes == has_bytes)
    return 0;
  describe (&spec, given);
  if (strcmp (given, known->given) == 0) /* it was resized since */
    return 0;
  log_error ("export \"%s\": size= is %" PRIu64
             " bytes (%s), and the state in %s has it with %" PRIu64
             " (%s): give that, and then drumctl export-resize",
             known->name, spec.size_bytes, format_bytes (spec.size_bytes, asked), config->state_dir,
             has_bytes, format_bytes (has_bytes, has));
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

/* How long had nobody used it? */
static uint64_t
idle_ns (const struct manifest_export *known)
{
  uint64_t now = (uint64_t) time (NULL);

  return now > known->used_at ? (now - known->used_at) * NS_PER_SECOND : 0;
}

static int
reopen (const struct service_config *config, struct service *service,
        const struct manifest_export *known)
{
  uint64_t size_bytes = known->next_bytes ? known->next_bytes : known->size_bytes;
  struct export_spec spec = { .name = known->name, .size_bytes = size_bytes }, asked;
  struct export_config how = { .number = known->number, .idle_ns = idle_ns (known) };
  char given[GIVEN_BYTES];
  struct export *e;
  int ret = check_size (config, known, size_bytes);

  if (ret == 0)
    ret = mend_map (config, service, known, size_bytes);
  if (find_spec (config, known->name, &asked)) {
    describe (&asked, given);
    how.given = given;
  }
  how.pattern = *known->pattern ? known->pattern : NULL;
  if (ret == 0)
    ret = create (service, &spec, &how, false, &e);
  if (ret == 0 && (ret = exports_add (service->exports, e)) < 0) {
    complain_create (&spec, ret);
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

/* ---- while it runs ---- */

/* NULL, and said. */
static struct export *
find (struct service *service, const char *name)
{
  struct export *e = exports_get (service->exports, name);

  if (!e)
    log_error ("there is no export \"%s\": drumctl exports lists those that there are", name);
  return e;
}

/* Keep clients away from it. */
static int
hold (struct service *service, struct session_hold *h, struct export *e)
{
  int ret = sessions_hold (service->sessions, h, e);

  if (ret < 0)
    log_error ("export \"%s\": has a client, or is being changed already: detach its client first",
               export_name (e));
  return ret;
}

/* => holds service->creating. A new one comes into the table, and the state. */
static int
publish_locked (struct service *service, struct birth *birth)
{
  struct session_hold h;
  int ret = bear (service, birth);

  mutex_assert_held (&service->creating);
  if (ret < 0)
    return ret;
  sessions_hold (service->sessions, &h, birth->export); /* nobody knows it yet */
  ret = exports_add (service->exports, birth->export);
  if (ret == 0 && (ret = service_save (service)) < 0) {
    export_hold (birth->export);
    exports_remove (service->exports, birth->export);
  }
  if (ret < 0)
    log_error ("export \"%s\": can't be made: %s", birth->spec->name, strerror (-ret));
  sessions_release (service->sessions, &h, ret < 0);
  if (ret < 0)
    bury (service, birth->export);
  return ret;
}

int
service_add_export (struct service *service, const struct export_spec *spec)
{
  struct birth birth = { .spec = spec };
  struct export *e;
  int ret = *spec->name ? export_name_check (spec->name) : 0;

  if (ret < 0)
    return ret;
  mutex_lock (&service->creating);
  e = exports_get (service->exports, spec->name);
  if (e) {
    log_error ("export \"%s\": is there already", spec->name);
    export_release (e);
    ret = -EEXIST;
  } else
    ret = publish_locked (service, &birth);
  mutex_unlock (&service->creating);
  return ret;
}

int
service_set_export (struct service *service, const char *name, const struct export_terms *terms)
{
  struct export *e = find (service, name);
  struct export_terms before;
  int ret;

  if (!e)
    return -ENOENT;
  export_get_terms (e, &before);
  ret = export_set_terms (e, terms, false);
  if (ret == 0 && (ret = service_save (service)) < 0)
    export_set_terms (e, &before, true);
  export_release (e);
  return ret;
}

int
service_fill_export (struct service *service, const char *name, uint64_t length, uint64_t offset,
                     uint64_t *reserve_bytes)
{
  struct export *e = find (service, name);
  struct export_terms before;
  int ret;

  if (!e)
    return -ENOENT;
  export_get_terms (e, &before);
  if (length == UINT64_MAX && offset <= export_size_bytes (e))
    length = export_size_bytes (e) - offset;
  ret = export_fill (e, length, offset, reserve_bytes);
  if (ret == 0 && (ret = service_save (service)) < 0)
    export_set_terms (e, &before, true);
  export_release (e);
  return ret;
}

int
service_take_over (struct service *service, const char *name, unsigned *n)
{
  struct export *e = find (service, name);

  if (!e)
    return -ENOENT;
  *n = sessions_bar (service->sessions, e);
  log_notice ("export \"%s\": is free for another client: %u connections are barred", name, *n);
  export_release (e);
  return 0;
}

/* => holds it; *gone is false. It goes, out of table and state first. */
static int
remove_held (struct service *service, struct export *e, bool *gone)
{
  int ret;

  export_hold (e);
  exports_remove (service->exports, e);
  ret = service_save (service);
  if (ret < 0) {
    exports_add (service->exports, e); /* has the room that it had */
    return ret;
  }
  *gone = true;
  return 0;
}

int
service_check_idle (struct service *service, const char *name)
{
  struct export *e = find (service, name);
  unsigned n = e ? sessions_count (service->sessions, e) : 0;

  if (!e)
    return -ENOENT;
  export_release (e);
  if (n == 0)
    return 0;
  log_error ("export \"%s\": has %u connections: detach its client first", name, n);
  return -EBUSY;
}

int
service_remove_export (struct service *service, const char *name)
{
  struct export *e = find (service, name);
  struct session_hold h;
  bool gone = false;
  int ret = e ? hold (service, &h, e) : -ENOENT;

  if (ret == 0) {
    ret = remove_held (service, e, &gone);
    sessions_release (service->sessions, &h, gone);
  }
  if (gone) {
    log_notice ("export \"%s\": has been removed", name);
    bury (service, e);
  }
  if (e)
    export_release (e);
  return ret;
}

static int
resize_held (struct service *service, struct export *e, uint64_t size_bytes)
{
  bool shrinks = size_bytes < export_size_bytes (e);
  int ret;

  export_set_plan (e, (struct export_plan){ .next_bytes = size_bytes });
  ret = service_save (service);
  if (ret == 0)
    ret = export_resize (e, size_bytes);
  if (ret == 0 && service->locked && !shrinks && (ret = export_touch (e)) < 0)
    log_error ("export \"%s\": no memory for its page map: it may wait for it", export_name (e));
  export_set_plan (e, (struct export_plan){ .next_bytes = 0 });
  service_save (service); /* if it fails, a start does it once more, to no effect */
  return ret;
}

int
service_resize_export (struct service *service, const char *name, uint64_t size_bytes)
{
  struct export *e = find (service, name);
  struct session_hold h;
  int ret = e ? hold (service, &h, e) : -ENOENT;

  if (ret == 0) {
    ret = resize_held (service, e, size_bytes);
    sessions_release (service->sessions, &h, false);
  }
  if (e)
    export_release (e);
  return ret;
}

static int
move_held (struct service *service, struct export *from, struct export *to)
{
  int ret;

  ret = export_prepare_pass (from, to);
  if (ret < 0)
    return ret;
  export_set_plan (from, (struct export_plan){ .moving_to = export_number (to) });
  ret = service_save (service);
  if (ret == 0)
    ret = export_pass (from, to);
  export_set_plan (from, (struct export_plan){ .moving_to = 0 });
  service_save (service); /* if it fails, a start does it once more, to no effect */
  return ret;
}

int
service_move_export (struct service *service, const char *from_name, const char *to_name)
{
  struct export *from = find (service, from_name), *to = from ? find (service, to_name) : NULL;
  struct session_hold h[2];
  int ret = to ? 0 : -ENOENT;

  if (ret == 0 && from == to) {
    log_error ("export \"%s\": is both: name another to move its pages to", from_name);
    ret = -EINVAL;
  }
  if (ret == 0 && (ret = hold (service, &h[0], from)) == 0) {
    ret = hold (service, &h[1], to);
    if (ret == 0) {
      ret = move_held (service, from, to);
      sessions_release (service->sessions, &h[1], false);
    }
    sessions_release (service->sessions, &h[0], false);
  }
  if (to)
    export_release (to);
  if (from)
    export_release (from);
  return ret;
}

/* ---- clients ---- */

/* NULL: none. */
static const struct export_template *
find_template (const struct service *service, const char *name)
{
  for (unsigned i = 0; i < service->ntemplates; i++)
    if (template_matches (&service->templates[i], name))
      return &service->templates[i];
  return NULL;
}

static unsigned
count_made (struct service *service, const struct export_template *t)
{
  struct export *e = NULL;
  unsigned n = 0;

  while ((e = exports_next (service->exports, e)))
    n += export_pattern (e) && strcmp (export_pattern (e), t->spec.name) == 0;
  return n;
}

/* => holds service->creating. */
static int
make_from_locked (struct service *service, const struct export_template *t, const char *name)
{
  struct export_spec spec = t->spec;
  struct birth birth = { .spec = &spec, .pattern = t->spec.name };
  int ret;

  mutex_assert_held (&service->creating);
  if (t->max > 0 && count_made (service, t) >= t->max) {
    log_error ("export \"%s\" is refused: %s has its %u exports already (max=%u): remove one that "
               "is not used any more",
               name, t->spec.name, t->max, t->max);
    return -EUSERS;
  }
  spec.name = (char *) name;
  birth.format = true;
  ret = publish_locked (service, &birth);
  if (ret == 0)
    log_notice ("export \"%s\": has been made from %s", name, t->spec.name);
  return ret;
}

/* One that a template asks for, unless somebody else made it meanwhile. */
static int
make_from_template (struct service *service, const char *name)
{
  const struct export_template *t = find_template (service, name);
  struct export *e;
  int ret = 0;

  if (!t) {
    log_error ("there is no export \"%s\": drumctl exports lists those that there are", name);
    return -ENOENT;
  }
  mutex_lock (&service->creating);
  e = exports_get (service->exports, name);
  if (e)
    export_release (e);
  else
    ret = make_from_locked (service, t, name);
  mutex_unlock (&service->creating);
  return ret;
}

/* A session of an export that is there; -ENOENT: it goes. */
static int
begin_session (struct service *service, struct export *e, const struct session_name *name,
               const char *peer, struct session **session)
{
  struct session_wish wish = { .export = e, .name = name, .peer = peer };
  struct export_terms terms;
  int ret;

  export_get_terms (e, &terms);
  wish.exclusive = terms.exclusive;
  ret = session_open (service->sessions, &wish, session);
  if (ret == -ESTALE)
    log_error ("export \"%s\" is refused: a later session of client %s has begun", name->export,
               name->id);
  else if (ret == -EBUSY)
    log_error ("export \"%s\" is refused: another client has it: %s (drumctl export-takeover frees "
               "it)",
               name->export, wish.holder);
  else if (ret < 0 && ret != -ENOENT)
    log_error ("export \"%s\" can't be opened: %s", name->export, strerror (-ret));
  return ret;
}

int
service_open (struct service *service, const char *text, const char *peer, struct session **session)
{
  struct session_name name;
  struct export *e;
  int ret = session_parse (text, &name);

  if (ret < 0) {
    log_error ("export \"%.64s...\": no name is so long", text);
    return ret;
  }
  for (;;) {
    while (!(e = exports_get (service->exports, name.export)))
      if ((ret = make_from_template (service, name.export)) < 0)
        return ret;
    ret = begin_session (service, e, &name, peer, session);
    if (ret == 0)
      break;
    export_release (e);
    if (ret != -ENOENT)
      return ret;
  }
  export_count_client (e, 1);
  return 0;
}

void
service_close (struct service *service, struct session *session)
{
  struct export *e = session_export (session);

  (void) service;
  session_close (session);
  export_count_client (e, -1);
  export_release (e);
}

/* Its template's time; 0: it stays. */
static uint64_t
expires_after_ns (const struct service *service, const struct export *e)
{
  const char *pattern = export_pattern (e);

  for (unsigned i = 0; pattern && i < service->ntemplates; i++)
    if (strcmp (service->templates[i].spec.name, pattern) == 0)
      return service->templates[i].expire * NS_PER_SECOND;
  return 0;
}

static void
expire (struct service *service, struct export *e, uint64_t limit_ns)
{
  struct session_hold h;
  bool gone = false;

  if (sessions_hold (service->sessions, &h, e) < 0)
    return;
  if (export_idle_ns (e, now_ns ()) >= limit_ns) { /* no request since, either */
    log_notice ("export \"%s\": nobody has used it for %" PRIu64 " s: it goes", export_name (e),
                limit_ns / NS_PER_SECOND);
    remove_held (service, e, &gone);
  }
  sessions_release (service->sessions, &h, gone);
  if (gone)
    bury (service, e);
}

bool
service_expires (const struct service *service)
{
  for (unsigned i = 0; i < service->ntemplates; i++)
    if (service->templates[i].expire > 0)
      return true;
  return false;
}

void
service_expire (struct service *service)
{
  struct export *e = NULL;

  while ((e = exports_next (service->exports, e))) {
    uint64_t limit_ns = expires_after_ns (service, e);

    if (limit_ns > 0 && export_idle_ns (e, now_ns ()) >= limit_ns)
      expire (service, e, limit_ns);
  }
}
