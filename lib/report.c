/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "report.h"

#include <json-c/json.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "drum-devices.h"
#include "drum.h"
#include "export.h"
#include "exports.h"
#include "job.h"
#include "live.h"
#include "service.h"
#include "state.h"
#include "stats.h"
#include "swapdev.h"
#include "units.h"

typedef struct json_object json;

/* Without memory there is no object to add to, or no value: it is left out. json-c aborts on the former. */
static void
put (json *to, const char *key, json *value)
{
  if (!to || json_object_object_add (to, key, value) < 0)
    json_object_put (value);
}

static void
append (json *array, json *value)
{
  if (!array || json_object_array_add (array, value) < 0)
    json_object_put (value);
}

static void
add_uint (json *to, const char *key, uint64_t n)
{
  put (to, key, json_object_new_uint64 (n));
}

static void
add_slots (json *to, const char *key, uint64_t nslots)
{
  add_uint (to, key, nslots * PAGE_BYTES);
}

static void
add_text (json *to, const char *key, const char *text)
{
  put (to, key, json_object_new_string (text));
}

/* To the nanosecond, without the digits that a double has beyond. */
static json *
new_seconds (double seconds)
{
  char text[32];

  snprintf (text, sizeof text, "%.9g", seconds);
  return json_object_new_double_s (seconds, text);
}

static void
add_seconds (json *to, const char *key, uint64_t ns)
{
  put (to, key, new_seconds ((double) ns / 1e9));
}

/* A new object or array, below to. */
static json *
add_object (json *to, const char *key)
{
  json *object = to ? json_object_new_object () : NULL;

  if (object && json_object_object_add (to, key, object) < 0) {
    json_object_put (object);
    return NULL;
  }
  return object;
}

static json *
add_array (json *to, const char *key)
{
  json *array = to ? json_object_new_array () : NULL;

  if (array && json_object_object_add (to, key, array) < 0) {
    json_object_put (array);
    return NULL;
  }
  return array;
}

static json *
append_object (json *array)
{
  json *object = array ? json_object_new_object () : NULL;

  if (object && json_object_array_add (array, object) < 0) {
    json_object_put (object);
    return NULL;
  }
  return object;
}

static void
add_counters (json *to, const char *key, const struct stats_snapshot *s)
{
  json *counters = add_object (to, key), *histogram;

  add_uint (counters, "requests", s->nrequests);
  add_uint (counters, "bytes", s->nbytes);
  add_uint (counters, "errors", s->nerrors);
  add_uint (counters, "in_flight", s->in_flight);
  add_seconds (counters, "seconds", s->total_ns);
  histogram = add_array (counters, "histogram");
  for (unsigned k = 0; k < STATS_BUCKETS; k++)
    append (histogram, json_object_new_uint64 (s->bucket[k]));
}

static void
add_device_counters (json *to, const char *key, const struct swapdev *dev, bool write)
{
  struct stats_snapshot snapshot = { .nrequests = 0 };

  if (dev)
    stats_read (swapdev_stats (dev, write), &snapshot);
  add_counters (to, key, &snapshot);
}

static const char *
state_name (enum drum_device_state state)
{
  static const char *const name[] = { "open", "closing", "closed", "failing", "failed" };

  return name[state];
}

/* => holds the devices. */
static void
report_device (const struct drum_device_info *dev, json *to)
{
  char uuid[UUID_STR_LEN];

  uuid_unparse_lower (swapdev_identity (dev->swapdev)->device, uuid);
  add_text (to, "name", swapdev_path (dev->swapdev));
  add_text (to, "type", swapdev_is_block (dev->swapdev) ? "block" : "file");
  add_text (to, "uuid", uuid);
  put (to, "prio", json_object_new_int (dev->prio));
  add_uint (to, "maxio", swapdev_maxio (dev->swapdev));
  put (to, "single", json_object_new_boolean (swapdev_is_single (dev->swapdev)));
  put (to, "direct", json_object_new_boolean (swapdev_is_direct (dev->swapdev)));
  add_text (to, "state", state_name (dev->state));
  add_slots (to, "size", swapdev_nslots (dev->swapdev));
  add_slots (to, "used", dev->nslots - dev->nfree);
  add_slots (to, "avail", dev->nfree);
  add_uint (to, "bad", swapdev_nbad (dev->swapdev) + dev->nsuspect);
  add_uint (to, "suspect", dev->nsuspect);
  add_uint (to, "mismatches", dev->nmismatches);
  add_seconds (to, "uptime", now_ns () - dev->added_ns);
  add_device_counters (to, "read", dev->swapdev, false);
  add_device_counters (to, "write", dev->swapdev, true);
}

/* A device on its way into the drum. */
static void
report_adding (void *opaque, const struct swapdev_spec *spec)
{
  json *to = append_object (opaque);

  add_text (to, "name", spec->path);
  add_text (to, "type", "file");
  add_text (to, "uuid", "");
  put (to, "prio", json_object_new_int (spec->prio));
  add_uint (to, "maxio", spec->maxio);
  put (to, "single", json_object_new_boolean (false));
  put (to, "direct", json_object_new_boolean (false));
  add_text (to, "state", "adding");
  add_slots (to, "size", 0);
  add_slots (to, "used", 0);
  add_slots (to, "avail", 0);
  add_uint (to, "bad", 0);
  add_uint (to, "suspect", 0);
  add_uint (to, "mismatches", 0);
  add_seconds (to, "uptime", 0);
  add_device_counters (to, "read", NULL, false);
  add_device_counters (to, "write", NULL, true);
}

static void
report_export (struct export *e, json *to)
{
  static const char *const name[EXPORT_NOPS] = { "read", "write", "trim", "zero" };
  struct stats_snapshot snapshot;
  struct export_terms terms;

  export_get_terms (e, &terms);
  add_text (to, "name", export_name (e));
  add_uint (to, "size", export_size_bytes (e));
  add_slots (to, "used", export_npages_used (e));
  add_uint (to, "reserve", terms.reserve_bytes);
  add_uint (to, "limit", terms.limit_bytes);
  add_uint (to, "weight", terms.weight);
  add_uint (to, "iops", terms.iops);
  add_uint (to, "bandwidth", terms.bandwidth);
  put (to, "exclusive", json_object_new_boolean (terms.exclusive));
  if (export_pattern (e))
    add_text (to, "template", export_pattern (e));
  if (export_last_ns (e) > 0)
    add_seconds (to, "idle", now_ns () - export_last_ns (e));
  add_uint (to, "clients", export_nclients (e));
  add_uint (to, "zero_pages", export_npages_zero (e));
  for (enum export_op op = 0; op < EXPORT_NOPS; op++) {
    export_stats (e, op, &snapshot);
    add_counters (to, name[op], &snapshot);
  }
}

static void
report_classes (const struct drum_device_info *dev, unsigned n, json *to)
{
  for (unsigned i = 0, first; i < n; i = first) {
    uint64_t nslots = 0, nfree = 0, nopen = 0;
    json *class;

    for (first = i; first < n && dev[first].prio == dev[i].prio; first++) {
      if (dev[first].state != DEVICE_OPEN)
        continue;
      nslots += dev[first].nslots;
      nfree += dev[first].nfree;
      nopen++;
    }
    if (nopen == 0)
      continue;
    class = append_object (to);
    put (class, "prio", json_object_new_int (dev[i].prio));
    add_uint (class, "devices", nopen);
    add_slots (class, "size", nslots);
    add_slots (class, "used", nslots - nfree);
    add_slots (class, "avail", nfree);
  }
}

struct fragmentation {
  uint64_t nruns[32]; /* [k]: of 2^k to 2^(k+1)-1 slots */
  uint32_t largest;
};

static void
count_free_run (struct fragmentation *f, struct slot_run run)
{
  if (run.n == 0)
    return;
  f->nruns[31 - __builtin_clz (run.n)]++;
  f->largest = run.n > f->largest ? run.n : f->largest;
}

/* => holds the devices. Walks all free runs, in pieces, so that nobody waits long for the drum's lock. A run that changes between
 * two pieces may be counted in part. */
static void
count_free_runs (struct drum *d, struct swapdev *dev, struct fragmentation *f)
{
  struct slot_run run[DRUM_BATCH], last = { .n = 0 };

  for (uint32_t from = 0; from < swapdev_nslots (dev);) {
    unsigned n = drum_free_runs (d, dev, &from, run);

    for (unsigned i = 0; i < n; i++)
      if (last.n > 0 && last.first + last.n == run[i].first)
        last.n += run[i].n; /* it was cut between two pieces */
      else {
        count_free_run (f, last);
        last = run[i];
      }
  }
  count_free_run (f, last);
}

/* => holds the devices. */
static void
report_fragmentation (struct drum *d, const struct drum_device_info *dev, unsigned n, json *to)
{
  struct fragmentation f = { .largest = 0 };
  json *runs;

  for (unsigned i = 0; i < n; i++)
    if (dev[i].state == DEVICE_OPEN)
      count_free_runs (d, dev[i].swapdev, &f);
  add_slots (to, "largest", f.largest);
  runs = add_array (to, "runs");
  for (unsigned k = 0; k < 32; k++)
    append (runs, json_object_new_uint64 (f.nruns[k]));
}

/* => holds the devices. */
static void
report_drum (struct drum *d, const struct drum_device_info *dev, unsigned n, json *to)
{
  struct drum_usage usage;
  uint64_t nused = 0;

  drum_usage (d, &usage);
  for (unsigned i = 0; i < n; i++)
    nused += dev[i].nslots - dev[i].nfree;
  add_slots (to, "size", usage.nslots);
  add_slots (to, "used", nused);
  add_slots (to, "avail", usage.nfree);
  add_slots (to, "kept", usage.nkept);
  add_slots (to, "reserved", usage.npromised);
  put (to, "overcommit", json_object_new_boolean (usage.overcommit));
  add_uint (to, "stripe", drum_stripe_bytes (d));
  add_text (to, "io", drum_rings (d) ? "uring" : "sync");
  report_classes (dev, n, add_array (to, "classes"));
}

static void
report_state (const struct state *state, json *to)
{
  add_text (to, "dir", state_dir (state));
  put (to, "durable", json_object_new_boolean (state_is_durable (state)));
  put (to, "sync", json_object_new_boolean (state_syncs_writes (state)));
}

static void
report_server (struct live *live, json *to)
{
  const struct state *state = live_service (live)->state;

  add_text (to, "version", PACKAGE_VERSION);
  add_uint (to, "pid", (uint64_t) getpid ());
  add_seconds (to, "uptime", now_ns () - live_started_ns (live));
  if (state)
    report_state (state, add_object (to, "state"));
}

void
report_lines (const char *text, const char *key, json *to)
{
  json *lines = add_array (to, key);

  for (size_t len; *text; text += len + (text[len] == '\n')) {
    len = strcspn (text, "\n");
    append (lines, json_object_new_string_len (text, (int) len));
  }
}

static void
describe_job (const struct job_info *info, json *to)
{
  static const char *const kind[] = { "add",           "remove",        "rebalance",
                                      "evacuate",      "scrub",         "shutdown",
                                      "export-remove", "export-resize", "export-move" };
  static const char *const state[] = { "running", "done", "failed", "cancelled" };
  json *pages;

  add_uint (to, "id", info->id);
  add_text (to, "kind", kind[info->kind]);
  if (info->device)
    add_text (to, info->kind < JOB_EXPORT_REMOVE ? "device" : "export", info->device);
  add_text (to, "state", state[info->state]);
  add_uint (to, "done", info->done_bytes);
  add_uint (to, "total", info->total_bytes);
  if (info->rate)
    add_uint (to, "rate", info->rate);
  add_seconds (to, "seconds", info->elapsed_ns);
  add_uint (to, "unreadable", info->nunreadable);
  pages = add_array (to, "unreadable_pages");
  for (unsigned i = 0; i < JOB_LISTED && i < info->nunreadable; i++) {
    json *page = append_object (pages);

    add_text (page, "export", info->unreadable[i].export);
    add_uint (page, "page", info->unreadable[i].page);
  }
  add_uint (to, "lost", info->nlost);
  if (info->error)
    add_text (to, "error", info->error);
  if (info->warnings)
    report_lines (info->warnings, "warnings", to);
}

void
report_job (const struct job_info *info, const char *key, json *to)
{
  describe_job (info, add_object (to, key));
}

static void
append_job (void *opaque, const struct job_info *info)
{
  describe_job (info, append_object (opaque));
}

static const char *
name_of (json *device)
{
  const char *name = json_object_get_string (json_object_object_get (device, "name"));

  return name ? name : "";
}

static bool
has_device (json *devices, const char *name)
{
  for (size_t i = 0; i < json_object_array_length (devices); i++)
    if (strcmp (name_of (json_object_array_get_idx (devices, i)), name) == 0)
      return true;
  return false;
}

/* Those of adding that have not come meanwhile. Uses up adding. */
static void
append_adding (json *devices, json *adding)
{
  for (size_t i = 0; devices && adding && i < json_object_array_length (adding); i++) {
    json *dev = json_object_array_get_idx (adding, i);

    if (!has_device (devices, name_of (dev)))
      append (devices, json_object_get (dev));
  }
  json_object_put (adding);
}

void
report_status (struct live *live, bool fragmentation, json *to)
{
  struct service *service = live_service (live);
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  json *drum, *buckets, *devices, *exports, *adding = json_object_new_array ();
  unsigned n;

  report_server (live, add_object (to, "server"));
  drum = add_object (to, "drum");
  buckets = add_array (to, "buckets");
  for (unsigned k = 0; k + 1 < STATS_BUCKETS; k++)
    append (buckets, new_seconds (stats_bucket_seconds (k)));
  devices = add_array (to, "devices");

  live_adding (live, report_adding, adding); /* first, so that none is missed that comes now */
  drum_hold_devices (service->drum);
  n = drum_devices (service->drum, dev, DRUM_MAX_DEVICES);
  report_drum (service->drum, dev, n, drum);
  if (fragmentation)
    report_fragmentation (service->drum, dev, n, add_object (drum, "fragmentation"));
  for (unsigned i = 0; i < n; i++)
    report_device (&dev[i], append_object (devices));
  drum_release_devices (service->drum);

  append_adding (devices, adding);
  exports = add_array (to, "exports");
  for (struct export *e = NULL; (e = exports_next (service->exports, e));)
    report_export (e, append_object (exports));
  jobs_list (live_jobs (live), append_job, add_array (to, "jobs"));
}

/* => holds the devices. How many slots of each cell are free? */
static void
count_free_in_cells (struct drum *d, struct swapdev *dev, uint32_t cell, uint32_t *nfree)
{
  struct slot_run run[DRUM_BATCH];

  for (uint32_t from = 0; from < swapdev_nslots (dev);) {
    unsigned n = drum_free_runs (d, dev, &from, run);

    for (unsigned i = 0; i < n; i++) {
      uint32_t end = run[i].first + run[i].n;

      for (uint32_t at = run[i].first; at < end;) {
        uint32_t stop = end - at < cell - at % cell ? end : at + (cell - at % cell);

        nfree[at / cell] += stop - at;
        at = stop;
      }
    }
  }
}

/* => holds the devices. */
static void
map_device (struct drum *d, const struct drum_device_info *dev, unsigned ncells, json *to)
{
  uint32_t nslots = swapdev_nslots (dev->swapdev), cell = (nslots - 1) / ncells + 1;
  uint32_t nfree[REPORT_MAX_CELLS] = { 0 }, nbad[REPORT_MAX_CELLS] = { 0 };
  json *used, *bad;

  count_free_in_cells (d, dev->swapdev, cell, nfree);
  for (uint32_t i = 0; i < swapdev_nbad (dev->swapdev); i++)
    nbad[swapdev_bad_slot (dev->swapdev, i) / cell]++;

  add_text (to, "name", swapdev_path (dev->swapdev));
  put (to, "prio", json_object_new_int (dev->prio));
  add_text (to, "state", state_name (dev->state));
  add_uint (to, "slots", nslots);
  add_uint (to, "cell", cell);
  used = add_array (to, "used");
  bad = add_array (to, "bad");
  for (uint32_t i = 0; i <= (nslots - 1) / cell; i++) {
    uint32_t size = nslots - i * cell < cell ? nslots - i * cell : cell;

    append (used, json_object_new_uint64 (size - nfree[i] - nbad[i]));
    append (bad, json_object_new_uint64 (nbad[i]));
  }
}

void
report_map (struct live *live, unsigned ncells, json *to)
{
  struct drum *d = live_service (live)->drum;
  struct drum_device_info dev[DRUM_MAX_DEVICES];
  json *devices = add_array (to, "devices");
  unsigned n;

  drum_hold_devices (d);
  n = drum_devices (d, dev, DRUM_MAX_DEVICES);
  for (unsigned i = 0; i < n; i++)
    map_device (d, &dev[i], ncells, append_object (devices));
  drum_release_devices (d);
}
