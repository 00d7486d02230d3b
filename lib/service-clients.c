/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-clients.c - clients that come, and find an export or have one made for them; and exports that no client comes for any more.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "drum.h"
#include "export.h"
#include "exports.h"
#include "log.h"
#include "manifest.h"
#include "parse.h"
#include "service-impl.h"
#include "session.h"
#include "state.h"
#include "stats.h"
#include "units.h"

/* How often it is kept that nobody has used an export yet, before it goes: a restart makes it stay at most as much longer. */
enum { IDLE_STEPS = 8, NS_PER_SECOND = 1000000000 };

/* NULL: none. */
static const struct export_template *
find_template (const struct service *service, const char *name)
{
  for (unsigned i = 0; i < service->ntemplates; i++)
    if (template_matches (&service->templates[i], name))
      return &service->templates[i];
  return NULL;
}

static bool
is_made_from (const struct export *e, const struct export_template *t)
{
  return export_pattern (e) && strcmp (export_pattern (e), t->spec.name) == 0;
}

static unsigned
count_made (struct service *service, const struct export_template *t)
{
  struct export *e = NULL;
  unsigned n = 0;

  while ((e = exports_next (service->exports, e)))
    n += is_made_from (e, t);
  return n;
}

/* Those that no template accounts for have so much of what an export is promised. */
static uint64_t
promised_to_others (struct service *service, bool sizes)
{
  struct export *e = NULL;
  uint64_t bytes = 0;

  while ((e = exports_next (service->exports, e))) {
    unsigned i = 0;

    while (i < service->ntemplates && !is_made_from (e, &service->templates[i]))
      i++;
    if (i == service->ntemplates || service->templates[i].max == 0)
      bytes += sizes ? export_size_bytes (e) : export_reserve_bytes (e);
  }
  return bytes;
}

/* One line: of the first that goes beyond what is left. */
void
service_check_templates (struct service *service)
{
  struct drum_usage usage;
  uint64_t others, left;
  char text[4][16];

  drum_usage (service->drum, &usage);
  others = promised_to_others (service, !usage.overcommit);
  left = (usage.nslots - usage.nkept) << PAGE_SHIFT;
  left = others < left ? left - others : 0;
  for (unsigned i = 0; i < service->ntemplates; i++) {
    const struct export_template *t = &service->templates[i];
    uint64_t each = usage.overcommit ? t->spec.terms.reserve_bytes : t->spec.size_bytes, all;

    if (__builtin_mul_overflow (each, t->max, &all))
      all = UINT64_MAX;
    if (all > left) {
      log_warning (
        "template \"%s\": max=%u exports with a %s of %s each come to %s%s, and the drum has "
        "%s for them, %s too little: the last ones will be refused: add a device, or give less",
        t->spec.name, t->max, usage.overcommit ? "reserve" : "size", format_bytes (each, text[0]),
        format_bytes (all, text[1]), usage.overcommit ? "" : " (overcommit=no)",
        format_bytes (left, text[2]), format_bytes (all - left, text[3]));
      return;
    }
    left -= all;
  }
}

/* => holds service->creating. */
static int
make_from_locked (struct service *service, const struct export_template *t, const char *name)
{
  struct export_spec spec = t->spec;
  struct service_birth birth = { .spec = &spec, .pattern = t->spec.name };
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
  ret = service_publish_export (service, &birth);
  if (ret == 0)
    log_notice ("export \"%s\": has been made from %s", name, t->spec.name);
  return ret;
}

/* One that a template asks for, unless somebody else made it meanwhile. */
static int
make_from_template (struct service *service, const char *name, const char *text)
{
  const struct export_template *t = find_template (service, name);
  struct export *e;
  int ret = 0;

  if (!t)
    return service_say_unknown (service, name, text);
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
               const char *text, const char *peer, struct session **session)
{
  struct session_wish wish = { .export = e, .name = name, .peer = peer };
  struct export_terms terms;
  int ret;

  export_get_terms (e, &terms);
  wish.exclusive = terms.exclusive;
  ret = session_open (service->sessions, &wish, session);
  if (ret == -ESTALE)
    log_error ("export \"%s\" is refused: a later session of client %s has begun", text, name->id);
  else if (ret == -EBUSY)
    log_error ("export \"%s\" is refused: another client has it: %s (drumctl export-takeover frees "
               "it)",
               text, wish.holder);
  else if (ret == -EPERM)
    log_error (
      "export \"%s\" is refused: an operator took it from this client, for another one (drumctl "
      "export-takeover once more gives it back)",
      text);
  else if (ret < 0 && ret != -ENOENT)
    log_error ("export \"%s\" can't be opened: %s", text, strerror (-ret));
  return ret;
}

/* Is what the state says of an export not what it is while a client has it: that something is being done to it which is over (it could not be
 * written), and which a start would do once more, to what clients have written since; that nobody has used it for a time; or
 * nothing at all, since a removal did not succeed? */
static bool
is_misrepresented (struct service *service, const struct export *e)
{
  struct manifest_export known;

  return service->state && (!state_export (service->state, export_number (e), &known) ||
                            known.next_bytes || known.moving_to || known.idle);
}

/* A client has come, and has done nothing yet. */
static int
settle (struct service *service, const struct export *e)
{
  if (!is_misrepresented (service, e) || service_save (service) == 0)
    return 0;
  log_error ("export \"%s\" can't be opened: the state can't be changed", export_name (e));
  return -EIO;
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
      if ((ret = make_from_template (service, name.export, text)) < 0)
        return ret;
    ret = begin_session (service, e, &name, text, peer, session);
    if (ret == 0 && !service_has_export (service, e)) { /* it went before the session began */
      session_close (*session);
      ret = -ENOENT;
    }
    if (ret == 0)
      break;
    export_release (e);
    if (ret != -ENOENT)
      return ret;
  }
  export_count_client (e, 1); /* from here on it is not idle */
  ret = settle (service, e);
  if (ret < 0)
    service_close (service, *session);
  return ret;
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

uint64_t
service_idle_step_ns (const struct service *service, const struct export *e)
{
  uint64_t limit_ns = expires_after_ns (service, e), step_ns = limit_ns / IDLE_STEPS;

  return limit_ns && step_ns < NS_PER_SECOND ? NS_PER_SECOND : step_ns;
}

static void
expire (struct service *service, struct export *e, uint64_t limit_ns)
{
  struct session_hold h;
  bool gone = false;

  if (service_hold_export (service, &h, e) < 0)
    return;
  if (export_idle_ns (e, now_ns ()) >= limit_ns) { /* no request since, either */
    log_notice ("export \"%s\": nobody has used it for %" PRIu64 " s: it goes", export_name (e),
                limit_ns / NS_PER_SECOND);
    service_withdraw_export (service, e, &gone);
  }
  sessions_release (service->sessions, &h, gone);
  if (gone)
    service_bury_export (service, e);
}

bool
service_expires (const struct service *service)
{
  for (unsigned i = 0; i < service->ntemplates; i++)
    if (service->templates[i].expire > 0)
      return true;
  return false;
}

/* Does the state say that it was idle for longer than it was, or for so much less that this is worth a note? */
static bool
is_idle_noted_wrong (struct service *service, const struct export *e, uint64_t idle_ns)
{
  struct manifest_export known;
  uint64_t noted_ns;

  if (!service->state)
    return false;
  noted_ns =
    state_export (service->state, export_number (e), &known) ? known.idle * NS_PER_SECOND : 0;
  return idle_ns < noted_ns || idle_ns >= noted_ns + service_idle_step_ns (service, e);
}

void
service_expire (struct service *service)
{
  struct export *e = NULL;
  bool save = false;

  while ((e = exports_next (service->exports, e))) {
    uint64_t limit_ns = expires_after_ns (service, e), idle_ns = export_idle_ns (e, now_ns ());

    if (limit_ns > 0 && idle_ns >= limit_ns)
      expire (service, e, limit_ns);
    else if (limit_ns > 0 && !save)
      save = is_idle_noted_wrong (service, e, idle_ns);
  }
  if (save)
    service_save (service);
}
