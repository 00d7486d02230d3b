/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "snapshot.h"

#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "client.h"
#include "fields.h"
#include "text.h"

static void
read_counters (struct json_object *object, const char *key, unsigned nbuckets, struct counters *to)
{
  struct json_object *from = field_object (object, key), *histogram;
  size_t n;

  to->requests = field_number (from, "requests");
  to->bytes = field_number (from, "bytes");
  to->errors = field_number (from, "errors");
  to->in_flight = field_number (from, "in_flight");
  to->seconds = field_seconds (from, "seconds");
  histogram = field_array (from, "histogram", &n);
  if (n != nbuckets) {
    field_complain ("histogram");
    return;
  }
  for (size_t k = 0; k < n; k++)
    to->histogram[k] = field_number (json_object_array_get_idx (histogram, k), NULL);
}

/* Of a field that not all servers have. */
static uint64_t
number_or_zero (struct json_object *from, const char *key)
{
  return field_is_there (from, key) ? field_number (from, key) : 0;
}

static void
read_room (struct json_object *from, struct room *to)
{
  to->size = field_number (from, "size");
  to->used = field_number (from, "used");
  to->avail = field_number (from, "avail");
}

static void
read_runs (struct json_object *from, struct snapshot *to)
{
  struct json_object *runs;
  size_t n;

  to->has_runs = true;
  to->largest_run = field_number (from, "largest");
  runs = field_array (from, "runs", &n);
  if (n > MAX_RUNS)
    field_complain ("runs");
  for (to->nruns = 0; to->nruns < n && to->nruns < MAX_RUNS; to->nruns++)
    to->runs[to->nruns] = field_number (json_object_array_get_idx (runs, to->nruns), NULL);
}

static void
read_drum (struct json_object *from, struct snapshot *to)
{
  struct json_object *classes = field_array (from, "classes", &to->nclasses);

  read_room (from, &to->room);
  to->kept = field_number (from, "kept");
  to->reserved = number_or_zero (from, "reserved");
  to->overcommit = !field_is_there (from, "overcommit") || field_bool (from, "overcommit");
  to->stripe = field_number (from, "stripe");
  if (field_is_there (from, "fragmentation"))
    read_runs (field_object (from, "fragmentation"), to);
  to->classes = need (calloc (to->nclasses + 1, sizeof *to->classes));
  for (size_t i = 0; i < to->nclasses; i++) {
    struct json_object *class = json_object_array_get_idx (classes, i);

    to->classes[i].prio = field_int (class, "prio");
    to->classes[i].ndevices = field_number (class, "devices");
    read_room (class, &to->classes[i].room);
  }
}

static void
read_buckets (struct json_object *from, struct snapshot *to)
{
  size_t n;
  struct json_object *bounds = field_array (from, "buckets", &n);

  if (n >= MAX_BUCKETS) {
    field_complain ("buckets");
    n = 0;
  }
  to->nbuckets = (unsigned) n + 1;
  for (size_t k = 0; k < n; k++) {
    to->bounds[k] = field_seconds (json_object_array_get_idx (bounds, k), NULL);
    if (k && to->bounds[k] <= to->bounds[k - 1])
      field_complain ("buckets");
  }
}

static void
read_devices (struct json_object *from, struct snapshot *to)
{
  struct json_object *devices = field_array (from, "devices", &to->ndevices);

  to->devices = need (calloc (to->ndevices + 1, sizeof *to->devices));
  for (size_t i = 0; i < to->ndevices; i++) {
    struct json_object *device = json_object_array_get_idx (devices, i);
    struct device *d = &to->devices[i];

    d->name = field_text (device, "name");
    d->type = field_text (device, "type");
    d->uuid = field_text (device, "uuid");
    d->state = field_text (device, "state");
    d->prio = field_int (device, "prio");
    read_room (device, &d->room);
    d->bad = field_number (device, "bad");
    d->suspect = field_number (device, "suspect");
    d->mismatches = field_number (device, "mismatches");
    read_counters (device, "read", to->nbuckets, &d->read);
    read_counters (device, "write", to->nbuckets, &d->write);
  }
}

static void
read_terms (struct json_object *from, struct export *to)
{
  to->reserve = number_or_zero (from, "reserve");
  to->limit = number_or_zero (from, "limit");
  to->weight = number_or_zero (from, "weight");
  to->iops = number_or_zero (from, "iops");
  to->bandwidth = number_or_zero (from, "bandwidth");
  to->exclusive = field_is_there (from, "exclusive") && field_bool (from, "exclusive");
  to->template = field_is_there (from, "template") ? field_text (from, "template") : NULL;
  to->idle = field_is_there (from, "idle") ? field_seconds (from, "idle") : -1;
}

static void
read_exports (struct json_object *from, struct snapshot *to)
{
  struct json_object *exports = field_array (from, "exports", &to->nexports);

  to->exports = need (calloc (to->nexports + 1, sizeof *to->exports));
  for (size_t i = 0; i < to->nexports; i++) {
    struct json_object *export = json_object_array_get_idx (exports, i);
    struct export *e = &to->exports[i];

    e->name = field_text (export, "name");
    e->size = field_number (export, "size");
    e->used = field_number (export, "used");
    e->clients = field_number (export, "clients");
    e->zero_pages = field_number (export, "zero_pages");
    read_terms (export, e);
    read_counters (export, "read", to->nbuckets, &e->read);
    read_counters (export, "write", to->nbuckets, &e->write);
    read_counters (export, "trim", to->nbuckets, &e->trim);
    read_counters (export, "zero", to->nbuckets, &e->zero);
  }
}

static void
read_job (struct json_object *from, struct job *to)
{
  struct json_object *pages;
  size_t n;

  *to = (struct job){ .id = field_number (from, "id") };
  to->kind = field_text (from, "kind");
  to->state = field_text (from, "state");
  to->device = field_is_there (from, "device") ? field_text (from, "device") : NULL;
  to->export = field_is_there (from, "export") ? field_text (from, "export") : NULL;
  to->done = field_number (from, "done");
  to->total = field_number (from, "total");
  to->rate = number_or_zero (from, "rate");
  to->seconds = field_seconds (from, "seconds");
  to->unreadable = field_number (from, "unreadable");
  to->lost = field_number (from, "lost");
  pages = field_array (from, "unreadable_pages", &n);
  for (; to->nlisted < n && to->nlisted < MAX_LISTED; to->nlisted++) {
    struct json_object *page = json_object_array_get_idx (pages, to->nlisted);

    to->listed[to->nlisted].export = field_text (page, "export");
    to->listed[to->nlisted].page = field_number (page, "page");
  }
  to->error = field_is_there (from, "error") ? field_text (from, "error") : NULL;
  to->warnings = field_is_there (from, "warnings") ? field_array (from, "warnings", &n) : NULL;
}

static void
read_jobs (struct json_object *from, struct snapshot *to)
{
  struct json_object *jobs = field_array (from, "jobs", &to->njobs);

  to->jobs = need (calloc (to->njobs + 1, sizeof *to->jobs));
  for (size_t i = 0; i < to->njobs; i++)
    read_job (json_object_array_get_idx (jobs, i), &to->jobs[i]);
}

static struct snapshot *
snapshot_from_reply (struct json_object *reply)
{
  struct snapshot *snap = need (calloc (1, sizeof *snap));
  struct json_object *server = field_object (reply, "server");

  snap->reply = reply;
  snap->version = field_text (server, "version");
  snap->io = field_text (field_object (reply, "drum"), "io");
  snap->pid = field_number (server, "pid");
  snap->uptime = field_seconds (server, "uptime");
  if (field_is_there (server, "state")) {
    struct json_object *state = field_object (server, "state");

    snap->state_dir = field_text (state, "dir");
    snap->state_is_durable = field_bool (state, "durable");
    snap->state_syncs_writes = field_bool (state, "sync");
  }
  read_drum (field_object (reply, "drum"), snap);
  read_buckets (reply, snap);
  read_devices (reply, snap);
  read_exports (reply, snap);
  read_jobs (reply, snap);
  if (fields_were_fine ())
    return snap;
  snapshot_free (snap);
  return NULL;
}

static struct json_object *
status_request (bool fragmentation)
{
  struct json_object *request = request_new ("status");

  if (fragmentation)
    request_bool (request, "fragmentation", true);
  return request;
}

struct snapshot *
snapshot_ask (struct client *c, bool fragmentation)
{
  struct json_object *reply = client_ask (c, status_request (fragmentation));

  return reply ? snapshot_from_reply (reply) : NULL;
}

struct snapshot *
snapshot_ask_once (bool fragmentation)
{
  struct json_object *reply = ask_once (status_request (fragmentation));

  return reply ? snapshot_from_reply (reply) : NULL;
}

void
snapshot_free (struct snapshot *snap)
{
  if (!snap)
    return;
  free (snap->classes);
  free (snap->devices);
  free (snap->exports);
  free (snap->jobs);
  json_object_put (snap->reply);
  free (snap);
}

const struct device *
snapshot_device (const struct snapshot *snap, const char *name)
{
  for (size_t i = 0; i < snap->ndevices; i++)
    if (strcmp (snap->devices[i].name, name) == 0)
      return &snap->devices[i];
  return NULL;
}

const struct export *
snapshot_export (const struct snapshot *snap, const char *name)
{
  for (size_t i = 0; i < snap->nexports; i++)
    if (strcmp (snap->exports[i].name, name) == 0)
      return &snap->exports[i];
  return NULL;
}

uint64_t
export_most (const struct export *e)
{
  return e->limit && e->limit < e->size ? e->limit : e->size;
}

const struct device *
snapshot_device_before (const struct snapshot *before, const struct device *d)
{
  const struct device *was = before ? snapshot_device (before, d->name) : NULL;

  return was && strcmp (was->uuid, d->uuid) == 0 ? was : NULL;
}

const struct export *
snapshot_export_before (const struct snapshot *before, const struct snapshot *now,
                        const struct export *e)
{
  size_t i = (size_t) (e - now->exports);

  if (!before)
    return NULL;
  /* It is where it was, unless some came or went: for a thousand of them not all names are compared. */
  if (i < before->nexports && strcmp (before->exports[i].name, e->name) == 0)
    return &before->exports[i];
  return snapshot_export (before, e->name);
}

bool
job_from_reply (struct json_object *reply, struct job *job)
{
  read_job (field_object (reply, "job"), job);
  return fields_were_fine ();
}
