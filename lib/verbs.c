/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "verbs.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "export.h"
#include "exports.h"
#include "job.h"
#include "live.h"
#include "log.h"
#include "report.h"
#include "service.h"
#include "swapdev.h"
#include "units.h"
#include "utf8.h"

typedef struct json_object json;

enum { WAIT_SECONDS = 60, WAIT_MAX_SECONDS = 3600 }; /* for jobs; for requests, at a shutdown */

/* One request under way. */
struct call {
  struct live *live;
  json *args;
  json *reply;
  unsigned waited_ms, *wait_ms;
};

/* How much of a name that is wrong is shown. */
static int
cut (const char *name)
{
  return (int) utf8_prefix (name, 64);
}

/* An argument that must be a whole number in [min, max]; *value stays as it is if it is not given. */
static int
get_int (const struct call *call, const char *key, int64_t min, int64_t max, int64_t *value)
{
  json *arg;

  if (!json_object_object_get_ex (call->args, key, &arg))
    return 0;
  if (!json_object_is_type (arg, json_type_int) || json_object_get_int64 (arg) < min ||
      json_object_get_int64 (arg) > max) {
    log_error ("%s: is %s, and must be a whole number from %lld to %lld", key,
               json_object_to_json_string (arg), (long long) min, (long long) max);
    return -EINVAL;
  }
  *value = json_object_get_int64 (arg);
  return 0;
}

static int
get_bool (const struct call *call, const char *key, bool *value)
{
  json *arg;

  if (!json_object_object_get_ex (call->args, key, &arg))
    return 0;
  if (!json_object_is_type (arg, json_type_boolean)) {
    log_error ("%s: is %s, and must be true or false", key, json_object_to_json_string (arg));
    return -EINVAL;
  }
  *value = json_object_get_boolean (arg);
  return 0;
}

/* A time, of up to max seconds. */
static int
get_seconds (const struct call *call, const char *key, unsigned max, unsigned *ms)
{
  double seconds;
  json *arg;

  if (!json_object_object_get_ex (call->args, key, &arg))
    return 0;
  seconds = json_object_get_double (arg);
  if ((!json_object_is_type (arg, json_type_int) && !json_object_is_type (arg, json_type_double)) ||
      !(seconds >= 0 && seconds <= max)) {
    log_error ("%s: is %s, and must be a number from 0 to %u", key,
               json_object_to_json_string (arg), max);
    return -EINVAL;
  }
  *ms = (unsigned) (seconds * 1000);
  return 0;
}

/* The device, an absolute path. */
static int
get_device (const struct call *call, const char **path)
{
  json *arg;

  if (!json_object_object_get_ex (call->args, "device", &arg) ||
      !json_object_is_type (arg, json_type_string) ||
      json_object_get_string_len (arg) != (int) strlen (json_object_get_string (arg))) {
    log_error ("device: name one by its path");
    return -EINVAL;
  }
  *path = json_object_get_string (arg);
  if ((*path)[0] != '/' || strlen (*path) >= PATH_MAX) {
    log_error ("%.*s: is not an absolute path of less than %d bytes", cut (*path), *path, PATH_MAX);
    return -EINVAL;
  }
  return 0;
}

/* The name of an export; of length 0 it is the default one's. */
static int
get_name (const struct call *call, const char *key, const char **name)
{
  json *arg;

  if (!json_object_object_get_ex (call->args, key, &arg) ||
      !json_object_is_type (arg, json_type_string) ||
      json_object_get_string_len (arg) != (int) strlen (json_object_get_string (arg))) {
    log_error ("%s: name an export", key);
    return -EINVAL;
  }
  *name = json_object_get_string (arg);
  return 0;
}

/* Bytes, whole pages; *bytes stays as it is if they are not given. */
static int
get_pages (const struct call *call, const char *key, uint64_t *bytes)
{
  int64_t value = (int64_t) *bytes;
  int ret = get_int (call, key, 0, INT64_MAX, &value);

  if (ret == 0 && value % PAGE_BYTES) {
    log_error ("%s: %lld is not a multiple of %u bytes", key, (long long) value, PAGE_BYTES);
    return -EINVAL;
  }
  *bytes = (uint64_t) value;
  return ret;
}

static int
get_count (const struct call *call, const char *key, uint64_t *n)
{
  int64_t value = (int64_t) *n;
  int ret = get_int (call, key, 0, INT64_MAX, &value);

  *n = (uint64_t) value;
  return ret;
}

/* Those that are not given stay as they are. */
static int
get_terms (const struct call *call, struct export_terms *terms)
{
  int64_t weight = terms->weight;
  int ret;

  if ((ret = get_pages (call, "reserve", &terms->reserve_bytes)) < 0 ||
      (ret = get_pages (call, "limit", &terms->limit_bytes)) < 0 ||
      (ret = get_int (call, "weight", 1, EXPORT_WEIGHT_MAX, &weight)) < 0 ||
      (ret = get_count (call, "iops", &terms->iops)) < 0 ||
      (ret = get_count (call, "bandwidth", &terms->bandwidth)) < 0 ||
      (ret = get_bool (call, "exclusive", &terms->exclusive)) < 0)
    return ret;
  terms->weight = (unsigned) weight;
  return 0;
}

/* A size that must be given. */
static int
get_size (const struct call *call, uint64_t *bytes)
{
  int ret = get_pages (call, "size", bytes);

  if (ret == 0 && *bytes == 0) {
    log_error ("size: is not given: a multiple of %u bytes above 0", PAGE_BYTES);
    return -EINVAL;
  }
  return ret;
}

static int
get_job (const struct call *call, uint64_t *job)
{
  int64_t value = 0;
  int ret = get_int (call, "job", 1, INT64_MAX, &value);

  if (ret == 0 && value == 0) {
    log_error ("job: name one by its number");
    return -EINVAL;
  }
  *job = (uint64_t) value;
  return ret;
}

static int
no_such_job (uint64_t job)
{
  log_error ("job %llu: there is none, or it ended long ago", (unsigned long long) job);
  return -ENOENT;
}

static void
reply_job (const struct call *call, uint64_t job)
{
  json_object_object_add (call->reply, "job", json_object_new_uint64 (job));
}

static int
verb_status (const struct call *call)
{
  bool fragmentation = false;
  int ret = get_bool (call, "fragmentation", &fragmentation);

  if (ret == 0)
    report_status (call->live, fragmentation, call->reply);
  return ret;
}

static int
verb_map (const struct call *call)
{
  int64_t ncells = REPORT_CELLS;
  int ret = get_int (call, "cells", 1, REPORT_MAX_CELLS, &ncells);

  if (ret == 0)
    report_map (call->live, (unsigned) ncells, call->reply);
  return ret;
}

static int
verb_add (const struct call *call)
{
  struct swapdev_spec spec = { .force = false };
  int64_t prio = SWAP_PRIO_DEFAULT, size = 0, maxio = 0;
  uint64_t job;
  int ret;

  if ((ret = get_device (call, &spec.path)) < 0 ||
      (ret = get_int (call, "prio", SWAP_PRIO_MIN, SWAP_PRIO_MAX, &prio)) < 0 ||
      (ret = get_int (call, "size", 0, INT64_MAX, &size)) < 0 ||
      (ret = get_int (call, "maxio", 0, SWAP_MAXIO_MAX, &maxio)) < 0 ||
      (ret = get_bool (call, "force", &spec.force)) < 0)
    return ret;
  spec.prio = (int) prio;
  spec.create_bytes = (uint64_t) size;
  spec.maxio = (unsigned) maxio;
  ret = live_add (call->live, &spec, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

static int
verb_remove (const struct call *call)
{
  bool force = false;
  int64_t rate = 0;
  const char *path;
  uint64_t job;
  int ret;

  if ((ret = get_device (call, &path)) < 0 ||
      (ret = get_int (call, "rate", 1, INT64_MAX, &rate)) < 0 ||
      (ret = get_bool (call, "force", &force)) < 0)
    return ret;
  ret = live_remove (call->live, path, (uint64_t) rate, force, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

static int
verb_priority (const struct call *call)
{
  int64_t prio = SWAP_PRIO_MIN - 1;
  const char *path;
  int ret;

  if ((ret = get_device (call, &path)) < 0 ||
      (ret = get_int (call, "prio", SWAP_PRIO_MIN, SWAP_PRIO_MAX, &prio)) < 0)
    return ret;
  if (prio < SWAP_PRIO_MIN) {
    log_error ("prio: is not given: a whole number from %d to %d", SWAP_PRIO_MIN, SWAP_PRIO_MAX);
    return -EINVAL;
  }
  return live_set_priority (call->live, path, (int) prio);
}

static int
verb_maxio (const struct call *call)
{
  int64_t maxio = -1;
  const char *path;
  int ret;

  if ((ret = get_device (call, &path)) < 0 ||
      (ret = get_int (call, "maxio", 0, SWAP_MAXIO_MAX, &maxio)) < 0)
    return ret;
  if (maxio < 0) {
    log_error ("maxio: is not given: a whole number up to %d, or 0 for no limit", SWAP_MAXIO_MAX);
    return -EINVAL;
  }
  return live_set_maxio (call->live, path, (unsigned) maxio);
}

static int
verb_rebalance (const struct call *call)
{
  int64_t rate = 0;
  uint64_t job;
  int ret = get_int (call, "rate", 1, INT64_MAX, &rate);

  if (ret == 0)
    ret = live_rebalance (call->live, (uint64_t) rate, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

/* Without a device: all of them. */
static int
verb_scrub (const struct call *call)
{
  const char *path = NULL;
  int64_t rate = 0;
  uint64_t job;
  int ret;

  if ((json_object_object_get_ex (call->args, "device", NULL) &&
       (ret = get_device (call, &path)) < 0) ||
      (ret = get_int (call, "rate", 1, INT64_MAX, &rate)) < 0)
    return ret;
  ret = live_scrub (call->live, path, (uint64_t) rate, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

static int
verb_cancel (const struct call *call)
{
  uint64_t job;
  int ret = get_job (call, &job);

  if (ret == 0 && jobs_cancel (live_jobs (call->live), job) < 0)
    ret = no_such_job (job);
  return ret;
}

static int
verb_wait (const struct call *call)
{
  unsigned limit_ms = WAIT_SECONDS * 1000;
  struct job_info info;
  uint64_t job;
  int ret;

  if ((ret = get_job (call, &job)) < 0 ||
      (ret = get_seconds (call, "seconds", WAIT_MAX_SECONDS, &limit_ms)) < 0)
    return ret;
  ret = jobs_get (live_jobs (call->live), job, &info);
  if (ret < 0)
    return ret == -ENOENT ? no_such_job (job) : ret;
  if (info.state == JOB_RUNNING && call->waited_ms < limit_ms) {
    *call->wait_ms = limit_ms - call->waited_ms;
    ret = -EAGAIN;
  } else {
    report_job (&info, "job", call->reply);
  }
  job_info_free (&info);
  return ret;
}

/* Answered by its job's end: a process that ends answers no other question, but who asked may wait for its end. */
static int
verb_shutdown (const struct call *call)
{
  unsigned timeout_ms = WAIT_SECONDS * 1000;
  struct job_info info;
  bool force = false;
  uint64_t job;
  int ret;

  if ((ret = get_seconds (call, "seconds", WAIT_MAX_SECONDS, &timeout_ms)) < 0 ||
      (ret = get_bool (call, "force", &force)) < 0)
    return ret;
  if (call->waited_ms == 0 && (ret = live_shutdown (call->live, timeout_ms, force, &job)) < 0)
    return ret;
  job = live_last_shutdown (call->live);
  ret = jobs_get (live_jobs (call->live), job, &info);
  if (ret < 0)
    return ret == -ENOENT ? no_such_job (job) : ret;
  ret = info.state == JOB_RUNNING ? -EAGAIN : info.result;
  if (info.error)
    log_error ("%s", info.error);
  if (ret == 0)
    json_object_object_add (call->reply, "pid", json_object_new_int64 (getpid ()));
  job_info_free (&info);
  return ret;
}

static int
verb_export_add (const struct call *call)
{
  struct export_spec spec = { .terms = { .weight = EXPORT_WEIGHT_DEFAULT } };
  const char *name;
  int ret;

  if ((ret = get_name (call, "export", &name)) < 0 ||
      (ret = get_size (call, &spec.size_bytes)) < 0 || (ret = get_terms (call, &spec.terms)) < 0)
    return ret;
  spec.name = (char *) name;
  return service_add_export (live_service (call->live), &spec);
}

static int
verb_export_set (const struct call *call)
{
  struct service *service = live_service (call->live);
  struct export_terms terms = { .weight = EXPORT_WEIGHT_DEFAULT };
  const char *name;
  struct export *e;
  int ret = get_name (call, "export", &name);

  if (ret < 0)
    return ret;
  e = exports_get (service->exports, name); /* if there is none, service_set_export says so */
  if (e) {
    export_get_terms (e, &terms);
    export_release (e);
  }
  ret = get_terms (call, &terms);
  return ret < 0 ? ret : service_set_export (service, name, &terms);
}

static int
verb_export_fill (const struct call *call)
{
  uint64_t offset = 0, length = UINT64_MAX, reserve_bytes;
  const char *name;
  int ret;

  if ((ret = get_name (call, "export", &name)) < 0 ||
      (ret = get_count (call, "offset", &offset)) < 0 ||
      (json_object_object_get_ex (call->args, "length", NULL) &&
       (length = 0, ret = get_count (call, "length", &length)) < 0))
    return ret;
  ret = service_fill_export (live_service (call->live), name, length, offset, &reserve_bytes);
  if (ret == 0)
    json_object_object_add (call->reply, "reserve", json_object_new_uint64 (reserve_bytes));
  return ret;
}

static int
verb_export_takeover (const struct call *call)
{
  const char *name;
  unsigned n;
  int ret = get_name (call, "export", &name);

  if (ret == 0)
    ret = service_take_over (live_service (call->live), name, &n);
  if (ret == 0)
    json_object_object_add (call->reply, "sessions", json_object_new_uint64 (n));
  return ret;
}

static int
verb_export_remove (const struct call *call)
{
  const char *name;
  uint64_t job;
  int ret = get_name (call, "export", &name);

  if (ret == 0)
    ret = live_remove_export (call->live, name, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

static int
verb_export_resize (const struct call *call)
{
  uint64_t size_bytes = 0, job;
  const char *name;
  int ret;

  if ((ret = get_name (call, "export", &name)) < 0 || (ret = get_size (call, &size_bytes)) < 0)
    return ret;
  ret = live_resize_export (call->live, name, size_bytes, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

static int
verb_export_move (const struct call *call)
{
  const char *from, *to;
  uint64_t job;
  int ret;

  if ((ret = get_name (call, "from", &from)) < 0 || (ret = get_name (call, "to", &to)) < 0)
    return ret;
  ret = live_move_export (call->live, from, to, &job);
  if (ret == 0)
    reply_job (call, job);
  return ret;
}

static const struct verb {
  const char *name;
  int (*run) (const struct call *call);
  const char *args[9]; /* that it knows, and NULL */
} verbs[] = {
  { "status", verb_status, { "fragmentation" } },
  { "map", verb_map, { "cells" } },
  { "add", verb_add, { "device", "prio", "size", "maxio", "force" } },
  { "remove", verb_remove, { "device", "rate", "force" } },
  { "priority", verb_priority, { "device", "prio" } },
  { "maxio", verb_maxio, { "device", "maxio" } },
  { "rebalance", verb_rebalance, { "rate" } },
  { "scrub", verb_scrub, { "device", "rate" } },
  { "cancel", verb_cancel, { "job" } },
  { "wait", verb_wait, { "job", "seconds" } },
  { "shutdown", verb_shutdown, { "seconds", "force" } },
  { "export-add",
    verb_export_add,
    { "export", "size", "reserve", "limit", "weight", "iops", "bandwidth", "exclusive" } },
  { "export-set",
    verb_export_set,
    { "export", "reserve", "limit", "weight", "iops", "bandwidth", "exclusive" } },
  { "export-fill", verb_export_fill, { "export", "offset", "length" } },
  { "export-takeover", verb_export_takeover, { "export" } },
  { "export-remove", verb_export_remove, { "export" } },
  { "export-resize", verb_export_resize, { "export", "size" } },
  { "export-move", verb_export_move, { "from", "to" } },
};

static const struct verb *
find_verb (json *request)
{
  const char *name;
  json *verb;

  if (!json_object_object_get_ex (request, "verb", &verb) ||
      !json_object_is_type (verb, json_type_string)) {
    log_error ("verb: is not given");
    return NULL;
  }
  name = json_object_get_string (verb);
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++)
    if (strcmp (name, verbs[i].name) == 0)
      return &verbs[i];
  log_error ("%.*s: there is no such verb", cut (name), name);
  return NULL;
}

static bool
knows_arg (const struct verb *verb, const char *key)
{
  if (strcmp (key, "version") == 0 || strcmp (key, "verb") == 0)
    return true;
  for (unsigned i = 0; verb->args[i]; i++)
    if (strcmp (key, verb->args[i]) == 0)
      return true;
  return false;
}

static int
run (const struct call *call)
{
  const struct verb *verb = find_verb (call->args);

  if (!verb)
    return -EINVAL;
  for (struct lh_entry *arg = json_object_get_object (call->args)->head; arg; arg = arg->next)
    if (!knows_arg (verb, lh_entry_k (arg))) {
      log_error ("%.*s: %s has no such argument", cut (lh_entry_k (arg)),
                 (const char *) lh_entry_k (arg), verb->name);
      return -EINVAL;
    }
  return verb->run (call);
}

int
verbs_handle (void *opaque, json *request, unsigned waited_ms, json *reply, unsigned *wait_ms)
{
  struct call call = { opaque, request, reply, waited_ms, wait_ms };
  struct log_capture said;
  int ret;

  log_capture_begin (&said, true);
  ret = run (&call);
  log_capture_end ();
  if (ret < 0 && ret != -EAGAIN)
    json_object_object_add (reply, "error",
                            json_object_new_string (said.errors ? said.errors : strerror (-ret)));
  if (said.warnings)
    report_lines (said.warnings, "warnings", reply);
  log_capture_free (&said);
  return ret;
}
