/* SPDX-License-Identifier: BSD-3-Clause
 *
 * metrics.c - drumctl metrics: what a snapshot says in Prometheus' text format, for node_exporter's textfile collector.
 *
 * All of a metric's lines stand together, as the format has it; so it is one loop over the devices for each of theirs.
 */
#include <config.h>

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "drumctl.h"
#include "options.h"
#include "outfile.h"
#include "snapshot.h"
#include "text.h"

static void
describe (FILE *out, const char *name, const char *type, const char *help)
{
  fprintf (out, "# HELP drum_%s %s\n# TYPE drum_%s %s\n", name, help, name, type);
}

/* KEY="VALUE" */
static void
put_label (FILE *out, const char *key, const char *value)
{
  char *utf8 = text_to_utf8 (value);

  fprintf (out, "%s=\"", key);
  for (const char *at = utf8; *at; at++)
    if (*at == '\\' || *at == '"')
      fprintf (out, "\\%c", *at);
    else if (*at == '\n')
      fputs ("\\n", out);
    else
      putc (*at, out);
  putc ('"', out);
  free (utf8);
}

/* Which device or export, and what it does, if it does several things. */
struct labels {
  const char *key, *value, *op;
};

/* bound: le= of a bucket; NULL: none. */
static void
put_name (FILE *out, const char *name, const char *suffix, const struct labels *labels,
          const char *bound)
{
  fprintf (out, "drum_%s%s{", name, suffix);
  put_label (out, labels->key, labels->value);
  if (labels->op)
    fprintf (out, ",op=\"%s\"", labels->op);
  if (bound)
    fprintf (out, ",le=\"%s\"", bound);
  fputs ("} ", out);
}

static void
put_value (FILE *out, const char *name, const struct labels *labels, uint64_t value)
{
  put_name (out, name, "", labels, NULL);
  fprintf (out, "%" PRIu64 "\n", value);
}

static void
put_histogram (FILE *out, const struct snapshot *snap, const char *name,
               const struct labels *labels, const struct counters *io)
{
  uint64_t n = 0;

  for (unsigned k = 0; k < snap->nbuckets; k++) {
    char bound[TEXT_NUMBER] = "+Inf";

    if (k + 1 < snap->nbuckets)
      snprintf (bound, sizeof bound, "%.9g", snap->bounds[k]);
    n += io->histogram[k];
    put_name (out, name, "_bucket", labels, bound);
    fprintf (out, "%" PRIu64 "\n", n);
  }
  put_name (out, name, "_sum", labels, NULL);
  fprintf (out, "%.9g\n", io->seconds);
  put_name (out, name, "_count", labels, NULL);
  fprintf (out, "%" PRIu64 "\n", n);
}

static void
put_drum_value (FILE *out, const char *name, const char *help, uint64_t value)
{
  describe (out, name, "gauge", help);
  fprintf (out, "drum_%s %" PRIu64 "\n", name, value);
}

static void
put_drum (FILE *out, const struct snapshot *snap)
{
  uint64_t promised = 0, running = 0;

  for (size_t i = 0; i < snap->nexports; i++)
    promised += snap->exports[i].size;
  for (size_t i = 0; i < snap->njobs; i++)
    running += strcmp (snap->jobs[i].state, "running") == 0;

  describe (out, "info", "gauge", "Version of the server.");
  put_value (out, "info", &(struct labels){ "version", snap->version, NULL }, 1);
  describe (out, "uptime_seconds", "gauge", "Time since the server started.");
  fprintf (out, "drum_uptime_seconds %.3f\n", snap->uptime);
  put_drum_value (out, "size_bytes", "What pages can use on the devices that are open.",
                  snap->room.size);
  put_drum_value (out, "used_bytes", "What pages use on all devices.", snap->room.used);
  put_drum_value (out, "avail_bytes", "What is free on the devices that are open.",
                  snap->room.avail);
  put_drum_value (out, "kept_bytes", "Of what is free, what is kept for rewrites.", snap->kept);
  put_drum_value (out, "reserved_bytes",
                  "Of what is free, what exports have as a reserve and do not use yet.",
                  snap->reserved);
  put_drum_value (out, "promised_bytes", "Size of all exports.", promised);
  put_drum_value (
    out, "jobs_running",
    "Devices being added, removed or emptied, rebalances, scrubs, exports being changed.", running);
}

/* A metric that is one uint64_t of each device, or of each export. */
struct value {
  const char *name, *type, *help;
  size_t offset;
};

/* clang-format off */
static const struct value device_values[] = {
  { "device_size_bytes", "gauge", "Size of a device.", offsetof (struct device, room.size) },
  { "device_used_bytes", "gauge", "What pages use on a device.", offsetof (struct device, room.used) },
  { "device_avail_bytes", "gauge", "What is free on a device.", offsetof (struct device, room.avail) },
  { "device_bad_slots", "gauge", "Slots of 4096 bytes that failed: never used again, or suspect.", offsetof (struct device, bad) },
  { "device_suspect_slots", "gauge", "Of those, how many are yet to be looked at.", offsetof (struct device, suspect) },
  { "device_checksum_mismatches_total", "counter", "Pages that came back from a device with a wrong checksum.", offsetof (struct device, mismatches) },
  { "device_read_bytes_total", "counter", "Bytes read from a device.", offsetof (struct device, read.bytes) },
  { "device_written_bytes_total", "counter", "Bytes written to a device.", offsetof (struct device, write.bytes) },
};

static const struct value export_values[] = {
  { "export_size_bytes", "gauge", "Size of an export.", offsetof (struct export, size) },
  { "export_used_bytes", "gauge", "What is in slots of an export.", offsetof (struct export, used) },
  { "export_reserve_bytes", "gauge", "What only this export may use up.", offsetof (struct export, reserve) },
  { "export_limit_bytes", "gauge", "The most that an export may use; 0: its size.", offsetof (struct export, limit) },
  { "export_clients", "gauge", "Connections to an export.", offsetof (struct export, clients) },
  { "export_zero_pages_total", "counter", "Pages of zeroes that were written, and took no slot.", offsetof (struct export, zero_pages) },
  { "export_read_bytes_total", "counter", "Bytes that clients read.", offsetof (struct export, read.bytes) },
  { "export_written_bytes_total", "counter", "Bytes that clients wrote.", offsetof (struct export, write.bytes) },
  { "export_trimmed_bytes_total", "counter", "Bytes that clients trimmed.", offsetof (struct export, trim.bytes) },
  { "export_zeroed_bytes_total", "counter", "Bytes that clients zeroed.", offsetof (struct export, zero.bytes) },
};
/* clang-format on */

static void
put_values (FILE *out, const struct value *values, size_t n, const char *key, const void *things,
            size_t thing_bytes, size_t nthings, size_t name_offset)
{
  for (size_t k = 0; k < n; k++) {
    describe (out, values[k].name, values[k].type, values[k].help);
    for (size_t i = 0; i < nthings; i++) {
      const char *thing = (const char *) things + i * thing_bytes;
      const char *name = *(const char *const *) (thing + name_offset);

      put_value (out, values[k].name, &(struct labels){ key, name, NULL },
                 *(const uint64_t *) (thing + values[k].offset));
    }
  }
}

static void
put_device_info (FILE *out, const struct snapshot *snap)
{
  describe (out, "device_info", "gauge", "Type and UUID of a device.");
  for (size_t i = 0; i < snap->ndevices; i++) {
    fputs ("drum_device_info{", out);
    put_label (out, "device", snap->devices[i].name);
    putc (',', out);
    put_label (out, "type", snap->devices[i].type);
    putc (',', out);
    put_label (out, "uuid", snap->devices[i].uuid);
    fputs ("} 1\n", out);
  }
  describe (out, "device_priority", "gauge", "Priority of a device; higher is used first.");
  for (size_t i = 0; i < snap->ndevices; i++) {
    const struct labels labels = { "device", snap->devices[i].name, NULL };

    put_name (out, "device_priority", "", &labels, NULL);
    fprintf (out, "%d\n", snap->devices[i].prio);
  }
}

static void
put_device_state (FILE *out, const struct snapshot *snap)
{
  static const char *const states[] = {
    "open", "closing", "closed", "failing", "failed", "adding"
  };

  describe (out, "device_state", "gauge", "1 for the state that a device is in, 0 for the others.");
  for (size_t i = 0; i < snap->ndevices; i++)
    for (size_t k = 0; k < sizeof states / sizeof states[0]; k++) {
      fputs ("drum_device_state{", out);
      put_label (out, "device", snap->devices[i].name);
      fprintf (out, ",state=\"%s\"} %d\n", states[k],
               strcmp (snap->devices[i].state, states[k]) == 0);
    }
}

/* One kind of I/O of one device or export. */
struct io {
  struct labels labels;
  const struct counters *counters;
};

/* prefix: "device", "export". */
static void
put_io (FILE *out, const struct snapshot *snap, const char *prefix, const struct io *io, size_t n)
{
  char *name = text_format ("%s_io_errors_total", prefix);

  describe (out, name, "counter", "Requests that failed.");
  for (size_t i = 0; i < n; i++)
    put_value (out, name, &io[i].labels, io[i].counters->errors);
  free (name);
  name = text_format ("%s_io_in_flight", prefix);
  describe (out, name, "gauge", "Requests that are under way.");
  for (size_t i = 0; i < n; i++)
    put_value (out, name, &io[i].labels, io[i].counters->in_flight);
  free (name);
  name = text_format ("%s_io_seconds", prefix);
  describe (out, name, "histogram", "How long requests took.");
  for (size_t i = 0; i < n; i++)
    put_histogram (out, snap, name, &io[i].labels, io[i].counters);
  free (name);
}

static void
put_devices (FILE *out, const struct snapshot *snap)
{
  struct io *list = need (calloc (2 * snap->ndevices + 1, sizeof *list)), *io = list;

  put_device_info (out, snap);
  put_device_state (out, snap);
  put_values (out, device_values, sizeof device_values / sizeof device_values[0], "device",
              snap->devices, sizeof *snap->devices, snap->ndevices, offsetof (struct device, name));
  for (size_t i = 0; i < snap->ndevices; i++) {
    const struct device *d = &snap->devices[i];

    *io++ = (struct io){ { "device", d->name, "read" }, &d->read };
    *io++ = (struct io){ { "device", d->name, "write" }, &d->write };
  }
  put_io (out, snap, "device", list, 2 * snap->ndevices);
  free (list);
}

static void
put_export_idle (FILE *out, const struct snapshot *snap)
{
  describe (out, "export_idle_seconds", "gauge",
            "Time since the last request to an export ended, of those that had one.");
  for (size_t i = 0; i < snap->nexports; i++) {
    const struct labels labels = { "export", snap->exports[i].name, NULL };

    if (snap->exports[i].idle < 0)
      continue;
    put_name (out, "export_idle_seconds", "", &labels, NULL);
    fprintf (out, "%.3f\n", snap->exports[i].idle);
  }
}

static void
put_exports (FILE *out, const struct snapshot *snap)
{
  struct io *list = need (calloc (4 * snap->nexports + 1, sizeof *list)), *io = list;

  put_values (out, export_values, sizeof export_values / sizeof export_values[0], "export",
              snap->exports, sizeof *snap->exports, snap->nexports, offsetof (struct export, name));
  put_export_idle (out, snap);
  for (size_t i = 0; i < snap->nexports; i++) {
    const struct export *e = &snap->exports[i];

    *io++ = (struct io){ { "export", e->name, "read" }, &e->read };
    *io++ = (struct io){ { "export", e->name, "write" }, &e->write };
    *io++ = (struct io){ { "export", e->name, "trim" }, &e->trim };
    *io++ = (struct io){ { "export", e->name, "zero" }, &e->zero };
  }
  put_io (out, snap, "export", list, 4 * snap->nexports);
  free (list);
}

static void
put_metrics (FILE *out, const void *snap)
{
  put_drum (out, snap);
  put_devices (out, snap);
  put_exports (out, snap);
}

static int
run_metrics (const struct verb *self, int argc, char **argv)
{
  const char *output = "-";
  const struct option_spec options[] = {
    { 'o', "output", "FILE", option_text, &output, "replace this file, all at once" },
    { 0 },
  };
  int status = options_parse (self, options, 0, 0, &argc, &argv);
  struct snapshot *snap;

  if (status >= 0)
    return status;
  if (!(snap = snapshot_ask_once (false)))
    return STATUS_FAILED;
  status = outfile_write (output, put_metrics, snap) ? STATUS_DONE : STATUS_FAILED;
  snapshot_free (snap);
  return status;
}

const struct verb verb_metrics = {
  .name = "metrics",
  .summary = "Print all numbers for Prometheus, or write them to a file for node_exporter.",
  .run = run_metrics,
};
