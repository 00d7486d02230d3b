/* SPDX-License-Identifier: BSD-3-Clause
 *
 * watch-json.c - one interval as an object on a line, for scripts; drumctl(8) has its fields.
 */
#include <config.h>

#include <json-c/json.h>
#include <math.h>
#include <time.h>

#include "rates.h"
#include "text.h"
#include "watch.h"

static void
add_text (struct json_object *to, const char *key, const char *text)
{
  json_object_object_add (to, key, need (json_object_new_string (text)));
}

static void
add_number (struct json_object *to, const char *key, uint64_t number)
{
  json_object_object_add (to, key, need (json_object_new_uint64 (number)));
}

/* With so many digits as mean something. */
static void
add_decimal (struct json_object *to, const char *key, double number, const char *fmt)
{
  struct json_object *value = need (json_object_new_double (number));

  json_object_set_serializer (value, json_object_double_to_json_string, (void *) fmt, NULL);
  json_object_object_add (to, key, value);
}

static struct json_object *
add_object (struct json_object *to, const char *key)
{
  struct json_object *object = need (json_object_new_object ());

  json_object_object_add (to, key, object);
  return object;
}

static struct json_object *
append_object (struct json_object *array)
{
  struct json_object *object = need (json_object_new_object ());

  json_object_array_add (array, object);
  return object;
}

/* null: there were no requests. JSON has no infinity: what took longer than the last bound has that one. */
static void
add_latency (struct json_object *to, const char *key, double seconds, const struct snapshot *now)
{
  if (isinf (seconds))
    seconds = now->nbuckets > 1 ? now->bounds[now->nbuckets - 2] : 0;
  if (seconds == 0)
    json_object_object_add (to, key, NULL);
  else
    add_decimal (to, key, seconds, "%.6f");
}

static void
add_rates (struct json_object *object, const char *key, const struct snapshot *now, double seconds,
           const struct counters *before, const struct counters *counters)
{
  struct rates r = rates_between (now, before, counters, seconds);
  struct json_object *to = add_object (object, key);

  add_decimal (to, "requests", r.requests, "%.3f");
  add_decimal (to, "bytes", r.bytes, "%.1f");
  add_number (to, "errors", r.errors);
  add_number (to, "in_flight", r.in_flight);
  add_latency (to, "p50", r.p50, now);
  add_latency (to, "p99", r.p99, now);
  add_latency (to, "max", r.max, now);
}

static void
add_room (struct json_object *to, const struct room *room)
{
  add_number (to, "size", room->size);
  add_number (to, "used", room->used);
  add_number (to, "avail", room->avail);
}

static void
add_device (struct json_object *to, const struct snapshot *before, const struct snapshot *now,
            double seconds, const struct device *d)
{
  const struct device *was = snapshot_device_before (before, d);

  add_text (to, "name", d->name);
  add_text (to, "type", d->type);
  json_object_object_add (to, "prio", need (json_object_new_int (d->prio)));
  add_text (to, "state", d->state);
  add_room (to, &d->room);
  add_number (to, "bad", d->bad);
  add_rates (to, "read", now, seconds, was ? &was->read : NULL, &d->read);
  add_rates (to, "write", now, seconds, was ? &was->write : NULL, &d->write);
}

static void
add_export (struct json_object *to, const struct snapshot *before, const struct snapshot *now,
            double seconds, const struct export *e)
{
  const struct export *was = snapshot_export_before (before, now, e);

  add_text (to, "name", e->name);
  add_number (to, "size", e->size);
  add_number (to, "used", e->used);
  add_number (to, "reserve", e->reserve);
  add_number (to, "limit", e->limit);
  if (e->idle < 0)
    json_object_object_add (to, "idle", NULL);
  else
    add_decimal (to, "idle", e->idle, "%.3f");
  add_number (to, "clients", e->clients);
  add_rates (to, "read", now, seconds, was ? &was->read : NULL, &e->read);
  add_rates (to, "write", now, seconds, was ? &was->write : NULL, &e->write);
  add_rates (to, "trim", now, seconds, was ? &was->trim : NULL, &e->trim);
  add_rates (to, "zero", now, seconds, was ? &was->zero : NULL, &e->zero);
}

void
watch_json (const struct snapshot *before, const struct snapshot *now, FILE *out)
{
  struct json_object *top = need (json_object_new_object ());
  struct json_object *exports = need (json_object_new_array ());
  struct json_object *devices = need (json_object_new_array ());
  struct json_object *drum;
  double seconds = rates_seconds (before, now);
  struct timespec ts;

  if (!rates_same_server (before, now))
    before = NULL;
  clock_gettime (CLOCK_REALTIME, &ts);
  add_decimal (top, "time", (double) ts.tv_sec + (double) ts.tv_nsec / 1e9, "%.3f");
  add_decimal (top, "interval", seconds, "%.3f");
  drum = add_object (top, "drum");
  add_room (drum, &now->room);
  add_number (drum, "reserved", now->reserved);
  json_object_object_add (top, "exports", exports);
  for (size_t i = 0; i < now->nexports; i++)
    add_export (append_object (exports), before, now, seconds, &now->exports[i]);
  json_object_object_add (top, "devices", devices);
  for (size_t i = 0; i < now->ndevices; i++)
    add_device (append_object (devices), before, now, seconds, &now->devices[i]);
  fprintf (
    out, "%s\n",
    json_object_to_json_string_ext (top, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
  json_object_put (top);
}
