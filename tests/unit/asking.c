/* SPDX-License-Identifier: BSD-3-Clause
 *
 * asking.c - a service of two devices, the requests that a client makes of it, and what is in the replies.
 */
#include <config.h>

#include "asking.h"

#include <criterion/criterion.h>
#include <string.h>

#include "lib/job.h"
#include "lib/label.h"
#include "lib/stats.h"
#include "lib/verbs.h"
#include "tests/scratch.h"

#include "files.h"
#include "logged.h"
#include "tests/unit/served.h"

struct service service;
struct live *live;
struct stamped pages;
struct json_object *reply;
unsigned wait_ms;

static struct json_object *request;

/* ---- one service ---- */

/* A file with our label, and bad slots 50 to 53. */
static void
make_a (void)
{
  struct label label = { .identity = { .generation = 1 },
                         .size_bytes = bytes_of (A_SLOTS + A_BAD) };
  struct badslots bad = { .n = A_BAD };
  unsigned char page[2 * PAGE_BYTES];

  file_make ("a", label.size_bytes);
  uuid_generate (label.identity.drum);
  uuid_generate (label.identity.device);
  for (uint32_t i = 0; i < A_BAD; i++)
    bad.slot[i] = 50 + i;
  label_encode (&label, page);
  badslots_encode (&bad, page + PAGE_BYTES);
  file_write (scratch_path ("a"), 0, page, sizeof page);
}

void
asking_setup (void)
{
  struct swapdev_spec spec[2];
  struct service_config config = { .devices = spec,
                                   .ndevices = 2,
                                   .stripe_bytes = STRIPE * PAGE_BYTES,
                                   .size_bytes = NPAGES * PAGE_BYTES,
                                   .checksum = true };

  scratch_setup ();
  logged_start ();
  make_a ();
  spec[0] = (struct swapdev_spec){ .path = scratch_path ("a"), .prio = 5 };
  spec[1] = (struct swapdev_spec){ .path = scratch_path ("b"),
                                   .prio = -1,
                                   .create_bytes = bytes_of (B_SLOTS) };
  cr_assert_eq (service_start (&config, &service), 0, "%s", logged_last ());
  cr_assert_eq (live_create (&service, NULL, NULL, &live), 0);
  stamped_init (&pages, served (&service));
}

void
asking_teardown (void)
{
  json_object_put (request);
  json_object_put (reply);
  live_destroy (live);
  stamped_assert_whole (&pages, service.drum);
  service_stop (&service);
  scratch_teardown ();
}

/* ---- questions and answers ---- */

int
ask_since (unsigned waited_ms, const char *text)
{
  char *json = str ("%s", text);

  for (char *c = json; *c; c++)
    *c = *c == '\'' ? '"' : *c;
  json_object_put (request);
  json_object_put (reply);
  request = json_tokener_parse (json);
  cr_assert_not_null (request, "%s", json);
  reply = json_object_new_object ();
  wait_ms = 77;
  return verbs_handle (live, request, waited_ms, reply, &wait_ms);
}

int
ask (const char *text)
{
  return ask_since (0, text);
}

struct json_object *
get (struct json_object *from, const char *key)
{
  struct json_object *value = NULL;

  cr_assert (json_object_object_get_ex (from, key, &value), "%s is missing in %s", key,
             json_object_to_json_string (from));
  return value;
}

uint64_t
get_uint (struct json_object *from, const char *key)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_int), "%s", key);
  return json_object_get_uint64 (value);
}

double
get_double (struct json_object *from, const char *key)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_double), "%s", key);
  return json_object_get_double (value);
}

const char *
get_text (struct json_object *from, const char *key)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_string), "%s", key);
  return json_object_get_string (value);
}

struct json_object *
get_array (struct json_object *from, const char *key, size_t n)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_array), "%s", key);
  cr_assert_eq (json_object_array_length (value), n, "%s has %zu", key,
                json_object_array_length (value));
  return value;
}

struct json_object *
at (struct json_object *array, size_t i)
{
  struct json_object *value = json_object_array_get_idx (array, i);

  cr_assert_not_null (value, "%zu", i);
  return value;
}

uint64_t
uint_at (struct json_object *array, size_t i)
{
  cr_assert (json_object_is_type (at (array, i), json_type_int), "%zu", i);
  return json_object_get_uint64 (at (array, i));
}

void
assert_keys (struct json_object *from, const char *keys)
{
  char all[512] = "";

  cr_assert (json_object_is_type (from, json_type_object));
  json_object_object_foreach (from, key, value)
  {
    (void) value;
    strcat (strcat (all, *all ? " " : ""), key);
  }
  cr_assert_str_eq (all, keys);
}

unsigned
ask_for_job (const char *text)
{
  cr_assert_eq (ask (text), 0, "%s: %s", text, json_object_to_json_string (reply));
  assert_keys (reply, "job");
  return (unsigned) get_uint (reply, "job");
}

struct json_object *
end_of (unsigned job)
{
  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u}", job)), 0);
  assert_keys (reply, "job");
  return get (reply, "job");
}

void
assert_ends (unsigned job, const char *state)
{
  struct json_object *end = end_of (job);

  cr_assert_str_eq (get_text (end, "state"), state, "%s", json_object_to_json_string (end));
}

struct json_object *
device_of (const char *name, const char *array)
{
  struct json_object *devices = get (reply, array);

  for (size_t i = 0; i < json_object_array_length (devices); i++)
    if (strcmp (get_text (at (devices, i), "name"), scratch_path (name)) == 0)
      return at (devices, i);
  cr_assert (false, "%s is missing", name);
  return NULL;
}

void
assert_device (const char *name, int prio, const char *state, uint64_t nslots, uint64_t nused,
               uint64_t nbad)
{
  struct json_object *dev = device_of (name, "devices");
  uuid_t uuid;

  assert_keys (
    dev, "name type uuid prio maxio single direct state size used avail bad suspect mismatches "
         "uptime read write");
  cr_assert_str_eq (get_text (dev, "type"), "file");
  cr_assert_eq (uuid_parse (get_text (dev, "uuid"), uuid), 0);
  cr_assert_eq (json_object_get_int (get (dev, "prio")), prio);
  cr_assert_str_eq (get_text (dev, "state"), state);
  cr_assert_eq (get_uint (dev, "used"), nused * PAGE_BYTES);
  cr_assert_eq (get_uint (dev, "bad"), nbad);
  cr_assert_eq (get_uint (dev, "size"),
                get_uint (dev, "used") + get_uint (dev, "avail") + PAGE_BYTES * (nbad + 2));
  cr_assert_eq (get_uint (dev, "size"), bytes_of ((uint32_t) (nslots + nbad)));
}
