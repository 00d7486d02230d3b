/* SPDX-License-Identifier: BSD-3-Clause
 *
 * service-exports.c - exports that come, change and go while the service runs.
 *
 * An export is in the table, and in the state, before a client may have it; and out of both before its slots are free.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "export.h"
#include "exports.h"
#include "log.h"
#include "manifest.h"
#include "mapfile.h"
#include "parse.h"
#include "service-impl.h"
#include "session.h"
#include "state.h"
#include "units.h"

int
service_complain_export (const struct export_spec *spec, int ret)
{
  const char *name = *spec->name ? spec->name : "size=";

  if (ret == -EINVAL)
    log_error ("%s: %" PRIu64 " is not a multiple of %u bytes", name, spec->size_bytes, PAGE_BYTES);
  else if (ret == -ENOMEM)
    log_error ("%s: no memory for the page map of an export of %" PRIu64
               " bytes: give a smaller size",
               name, spec->size_bytes);
  else if (ret == -EFBIG)
    log_error ("%s: the state can't keep the page map of an export of %" PRIu64
               " bytes: give a smaller size",
               name, spec->size_bytes);
  return ret;
}

/* Its map file goes, unless the state could not be brought to forget it. */
static void
remove_map (struct service *service, uint64_t number)
{
  struct manifest_export known;

  if (service->state && !state_export (service->state, number, &known))
    state_remove_map (service->state, number);
}

int
service_create_export (struct service *service, const struct export_spec *spec,
                       struct export_config *config, bool is_new, struct export **e)
{
  const struct export_spec *asked = service_asked (service, spec->name);
  char given[GIVEN_BYTES];
  int ret = 0;

  if (asked)
    service_describe (asked, given);
  config->given = asked ? given : NULL;
  config->name = spec->name;
  config->size_bytes = spec->size_bytes;
  config->checksum = service->checksum;
  config->reset_on_mkswap = service->reset_on_mkswap;
  config->readahead_bytes = service->readahead_bytes;
  config->state = service->state;
  if (service->state)
    ret = state_map (service->state, config->number, spec->size_bytes >> PAGE_SHIFT, is_new,
                     &config->file);
  if (ret == -EFBIG)
    service_complain_export (spec, ret);
  if (ret < 0)
    return ret;
  ret = service_complain_export (spec, export_create (service->drum, config, e));
  if (ret < 0 && config->file)
    mapfile_close (config->file);
  if (ret == 0 && service->state && (ret = state_keep (service->state, config->file)) < 0) {
    service_complain_export (spec, ret);
    export_destroy (*e);
  }
  if (ret < 0 && is_new)
    remove_map (service, config->number);
  return ret;
}

void
service_bury_export (struct service *service, struct export *e)
{
  if (service->state)
    state_forget (service->state, export_file (e));
  remove_map (service, export_number (e));
  export_clear (e);
  export_release (e);
}

int
service_bear_export (struct service *service, struct service_birth *birth)
{
  struct export_config config = { .number = ++service->number, .pattern = birth->pattern };
  int ret = service_create_export (service, birth->spec, &config, true, &birth->export);

  if (ret < 0)
    return ret;
  ret = export_set_terms (birth->export, &birth->spec->terms, false);
  if (ret == 0 && service->locked && (ret = export_touch (birth->export)) < 0)
    log_error ("export \"%s\": no memory for its page map", birth->spec->name);
  if (ret == 0 && birth->format && (ret = export_format (birth->export)) < 0)
    log_error ("export \"%s\": can't be made a swap area: %s%s", birth->spec->name, strerror (-ret),
               ret == -ENOSPC ? ": add a device, or remove exports that are not used" : "");
  if (ret < 0)
    service_bury_export (service, birth->export);
  return ret;
}

int
service_say_unknown (struct service *service, const char *name, const char *text)
{
  struct export *only =
    exports_count (service->exports) == 1 ? exports_next (service->exports, NULL) : NULL;

  if (*name && !export_name_is_valid (name))
    log_error ("no export may have the name \"%s\": write up to %d bytes of UTF-8, without control "
               "characters or an end like @ID.EPOCH",
               text, EXPORT_NAME_MAX);
  else if (only)
    log_error ("there is no export \"%s\": the only one is \"%s\"", text, export_name (only));
  else
    log_error ("there is no export \"%s\": \"drumctl exports\" lists those that there are", text);
  if (only)
    export_release (only);
  return -ENOENT;
}

/* NULL, and said. */
static struct export *
find (struct service *service, const char *name)
{
  struct export *e = exports_get (service->exports, name);

  if (!e)
    service_say_unknown (service, name, name);
  return e;
}

bool
service_has_export (struct service *service, const struct export *e)
{
  struct export *found = exports_get (service->exports, export_name (e));

  if (found)
    export_release (found);
  return found == e;
}

int
service_hold_export (struct service *service, struct session_hold *h, struct export *e)
{
  int ret = sessions_hold (service->sessions, h, e);

  if (ret < 0 || service_has_export (service, e))
    return ret;
  sessions_release (service->sessions, h, true);
  return -ENOENT;
}

/* Keep clients away from it. */
static int
hold (struct service *service, struct session_hold *h, struct export *e)
{
  int ret = service_hold_export (service, h, e);

  if (ret == -ENOENT)
    service_say_unknown (service, export_name (e), export_name (e));
  else if (ret < 0)
    log_error ("export \"%s\": has a client, or is being changed already: detach its client first",
               export_name (e));
  return ret;
}

int
service_publish_export (struct service *service, struct service_birth *birth)
{
  struct session_hold h;
  int ret = service_bear_export (service, birth);

  mutex_assert_held (&service->creating);
  if (ret < 0)
    return ret;
  sessions_hold (service->sessions, &h, birth->export); /* nobody knows it yet */
  ret = service->state ? state_sync_names (service->state, export_file (birth->export)) : 0;
  if (ret == 0)
    ret = exports_add (service->exports, birth->export);
  if (ret == 0 && (ret = service_save (service)) < 0) {
    export_hold (birth->export);
    exports_remove (service->exports, birth->export);
    service_save (service); /* somebody else's may have named it */
  }
  if (ret < 0)
    log_error ("export \"%s\": can't be made: %s", birth->spec->name, strerror (-ret));
  sessions_release (service->sessions, &h, ret < 0);
  if (ret < 0)
    service_bury_export (service, birth->export);
  return ret;
}

int
service_add_export (struct service *service, const struct export_spec *spec)
{
  struct service_birth birth = { .spec = spec };
  struct export *e;
  int ret = *spec->name ? export_name_check (spec->name) : 0;

  if (ret < 0)
    return ret;
  mutex_lock (&service->creating);
  e = exports_get (service->exports, spec->name);
  if (e) {
    log_error (
      "export \"%s\": is there already: export-set changes its terms, and export-resize its "
      "size",
      spec->name);
    export_release (e);
    ret = -EEXIST;
  } else
    ret = service_publish_export (service, &birth);
  mutex_unlock (&service->creating);
  return ret;
}

/* It is exclusive from now on: that puts nobody out. */
static void
warn_of_clients (struct service *service, const struct export *e)
{
  char names[4 * SESSION_CLIENT_BYTES];
  unsigned n = sessions_list (service->sessions, e, names, sizeof names);

  if (n > 1)
    log_warning ("export \"%s\": %u clients have it, and go on until they detach: %s",
                 export_name (e), n, names);
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
  if (ret == 0 && terms->exclusive && !before.exclusive)
    warn_of_clients (service, e);
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
  log_notice ("export \"%s\": is free for another client: %u connection%s barred", name, *n,
              *n == 1 ? " is" : "s are");
  export_release (e);
  return 0;
}

int
service_withdraw_export (struct service *service, struct export *e, bool *gone)
{
  int ret;

  export_set_plan (e, (struct export_plan){ .leaving = true });
  ret = service_save (service);
  if (ret < 0) {
    export_set_plan (e, (struct export_plan){ .leaving = false });
    return ret;
  }
  export_hold (e);
  exports_remove (service->exports, e);
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
  log_error ("export \"%s\": has %u connection%s: detach its client first", name, n,
             n == 1 ? "" : "s");
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
    ret = service_withdraw_export (service, e, &gone);
    sessions_release (service->sessions, &h, gone);
  }
  if (gone) {
    log_notice ("export \"%s\": has been removed", name);
    service_bury_export (service, e);
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

  ret = export_prepare_resize (e, size_bytes);
  if (ret < 0)
    return ret;
  export_set_plan (e, (struct export_plan){ .next_bytes = size_bytes });
  ret = service_save (service);
  if (ret == 0)
    ret = export_resize (e, size_bytes);
  if (ret == 0 && service->locked && !shrinks && (ret = export_touch (e)) < 0)
    log_error ("export \"%s\": no memory for its page map: it may wait for it", export_name (e));
  export_set_plan (e, (struct export_plan){ .next_bytes = 0 });
  service_save (service); /* if it fails: see service_open */
  return ret;
}

int
service_resize_export (struct service *service, const char *name, uint64_t size_bytes,
                       uint64_t *freed_bytes)
{
  struct export *e = find (service, name);
  struct session_hold h;
  int ret = e ? hold (service, &h, e) : -ENOENT;

  if (ret == 0) {
    uint64_t npages = export_npages_used (e);

    ret = resize_held (service, e, size_bytes);
    *freed_bytes = (npages - export_npages_used (e)) << PAGE_SHIFT;
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
  service_save (service); /* if it fails: see service_open */
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
