/* SPDX-License-Identifier: BSD-3-Clause
 *
 * verbs.c - tests of lib/verbs.c and lib/report.c: requests and replies as docs/control.md has them.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <json-c/json.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/export.h"
#include "lib/job.h"
#include "lib/label.h"
#include "lib/live.h"
#include "lib/report.h"
#include "lib/service.h"
#include "lib/stats.h"
#include "lib/verbs.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"
#include "stamped.h"

/* 4 of a's are bad. */
enum { A_SLOTS = 100, A_BAD = 4, B_SLOTS = 300, NPAGES = 400, STRIPE = 16 };

static struct service service;
static struct live *live;
static struct stamped pages;
static struct json_object *request, *reply; /* the last ones */
static unsigned wait_ms;

/* ---- what the linker sends here ---- */

static atomic_bool adds_wait;
static sem_t add_waits, add_goes_on;
static bool warns;

int __real_fallocate (int fd, int mode, off_t offset, off_t n);
int __wrap_fallocate (int fd, int mode, off_t offset, off_t n);

int
__wrap_fallocate (int fd, int mode, off_t offset, off_t n)
{
  if (atomic_load (&adds_wait)) {
    sem_post (&add_waits);
    while (sem_wait (&add_goes_on) == -1)
      ;
  }
  return __real_fallocate (fd, mode, offset, n);
}

int __real_live_set_priority (struct live *l, const char *path, int prio);
int __wrap_live_set_priority (struct live *l, const char *path, int prio);

int
__wrap_live_set_priority (struct live *l, const char *path, int prio)
{
  if (warns) {
    log_warning ("first");
    log_warning ("second");
  }
  return __real_live_set_priority (l, path, prio);
}

static sem_t added, added_goes_on; /* if add_stops: an add is in the drum, but not yet at its end */
static atomic_bool add_stops;

int __real_drum_add (struct drum *d, struct swapdev *dev);
int __wrap_drum_add (struct drum *d, struct swapdev *dev);

int
__wrap_drum_add (struct drum *d, struct swapdev *dev)
{
  int ret = __real_drum_add (d, dev);

  if (atomic_load (&add_stops)) {
    sem_post (&added);
    while (sem_wait (&added_goes_on) == -1)
      ;
  }
  return ret;
}

static void (*before_adding) (void);

void __real_live_adding (struct live *l, void (*each) (void *opaque, const struct swapdev_spec *s),
                         void *opaque);
void __wrap_live_adding (struct live *l, void (*each) (void *opaque, const struct swapdev_spec *s),
                         void *opaque);

void
__wrap_live_adding (struct live *l, void (*each) (void *opaque, const struct swapdev_spec *s),
                    void *opaque)
{
  if (before_adding)
    before_adding ();
  __real_live_adding (l, each, opaque);
}

/* ---- one service ---- */

static uint64_t
bytes_of (uint32_t nusable)
{
  return (uint64_t) (nusable + SWAPDEV_NRESERVED) * PAGE_BYTES;
}

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

static void
setup (void)
{
  struct swapdev_spec spec[2];
  struct service_config config = { .devices = spec,
                                   .ndevices = 2,
                                   .stripe_bytes = STRIPE * PAGE_BYTES,
                                   .size_bytes = NPAGES * PAGE_BYTES,
                                   .checksum = true };

  scratch_setup ();
  logged_start ();
  sem_init (&add_waits, 0, 0);
  sem_init (&add_goes_on, 0, 0);
  sem_init (&added, 0, 0);
  sem_init (&added_goes_on, 0, 0);
  make_a ();
  spec[0] = (struct swapdev_spec){ .path = scratch_path ("a"), .prio = 5 };
  spec[1] = (struct swapdev_spec){ .path = scratch_path ("b"),
                                   .prio = -1,
                                   .create_bytes = bytes_of (B_SLOTS) };
  cr_assert_eq (service_start (&config, &service), 0, "%s", logged_last ());
  cr_assert_eq (live_create (&service, NULL, NULL, &live), 0);
  stamped_init (&pages, service.export);
}

static void
teardown (void)
{
  json_object_put (request);
  json_object_put (reply);
  live_destroy (live);
  stamped_assert_whole (&pages, service.drum);
  service_stop (&service);
  scratch_teardown ();
}

TestSuite (verbs, .init = setup, .fini = teardown, .timeout = 60);

/* ---- questions and answers ---- */

/* Ask, with ' for ", so long ago. */
static int
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

static int
ask (const char *text)
{
  return ask_since (0, text);
}

static struct json_object *
get (struct json_object *from, const char *key)
{
  struct json_object *value = NULL;

  cr_assert (json_object_object_get_ex (from, key, &value), "%s is missing in %s", key,
             json_object_to_json_string (from));
  return value;
}

static uint64_t
get_uint (struct json_object *from, const char *key)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_int), "%s", key);
  return json_object_get_uint64 (value);
}

static double
get_double (struct json_object *from, const char *key)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_double), "%s", key);
  return json_object_get_double (value);
}

static const char *
get_text (struct json_object *from, const char *key)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_string), "%s", key);
  return json_object_get_string (value);
}

static struct json_object *
get_array (struct json_object *from, const char *key, size_t n)
{
  struct json_object *value = get (from, key);

  cr_assert (json_object_is_type (value, json_type_array), "%s", key);
  cr_assert_eq (json_object_array_length (value), n, "%s has %zu", key,
                json_object_array_length (value));
  return value;
}

static struct json_object *
at (struct json_object *array, size_t i)
{
  struct json_object *value = json_object_array_get_idx (array, i);

  cr_assert_not_null (value, "%zu", i);
  return value;
}

static uint64_t
uint_at (struct json_object *array, size_t i)
{
  cr_assert (json_object_is_type (at (array, i), json_type_int), "%zu", i);
  return json_object_get_uint64 (at (array, i));
}

/* The keys are these, in this order, with one space between two. */
static void
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

/* Refused, with nothing but an error, which has this in it. */
static void
assert_refused (const char *text, int error, const char *says)
{
  int ret = ask (text);

  cr_assert_eq (ret, error, "%s: %d: %s", text, ret, json_object_to_json_string (reply));
  assert_keys (reply, "error");
  cr_assert_not_null (strstr (get_text (reply, "error"), says), "%s: %s", text,
                      get_text (reply, "error"));
  cr_assert_eq (logged_count (""), 0, "it is the client's, not the log's: %s", logged_last ());
}

/* Done, with nothing but a job. */
static unsigned
ask_for_job (const char *text)
{
  cr_assert_eq (ask (text), 0, "%s: %s", text, json_object_to_json_string (reply));
  assert_keys (reply, "job");
  return (unsigned) get_uint (reply, "job");
}

/* Wait until it has ended; its description. */
static struct json_object *
end_of (unsigned job)
{
  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u}", job)), 0);
  assert_keys (reply, "job");
  return get (reply, "job");
}

static void
assert_ends (unsigned job, const char *state)
{
  struct json_object *end = end_of (job);

  cr_assert_str_eq (get_text (end, "state"), state, "%s", json_object_to_json_string (end));
}

static struct json_object *
device_of (const char *name, const char *array)
{
  struct json_object *devices = get (reply, array);

  for (size_t i = 0; i < json_object_array_length (devices); i++)
    if (strcmp (get_text (at (devices, i), "name"), scratch_path (name)) == 0)
      return at (devices, i);
  cr_assert (false, "%s is missing", name);
  return NULL;
}

/* ---- what is refused ---- */

/* No verb, no such verb, and arguments that it does not have. */
Test (verbs, verbs_and_arguments_are_checked)
{
  static const char *const verbs[] = { "status", "map",       "add",    "remove", "priority",
                                       "maxio",  "rebalance", "cancel", "wait" };

  assert_refused ("{}", -EINVAL, "verb: is not given");
  assert_refused ("{'verb': 7}", -EINVAL, "verb: is not given");
  assert_refused ("{'verb': null}", -EINVAL, "verb: is not given");
  assert_refused ("{'verb': ''}", -EINVAL, "there is no such verb");
  assert_refused ("{'verb': 'STATUS'}", -EINVAL, "STATUS: there is no such verb");
  assert_refused (str ("{'verb': '%0500d'}", 0), -EINVAL, "000: there is no such verb");
  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    assert_refused (str ("{'verb': '%s', 'nonsense': 1}", verbs[i]), -EINVAL,
                    str ("nonsense: %s has no such argument", verbs[i]));
    assert_refused (str ("{'verb': '%s', '': 1}", verbs[i]), -EINVAL, "has no such argument");
  }
  assert_refused ("{'verb': 'status', 'cells': 5}", -EINVAL, "cells: status has no such argument");
  assert_refused ("{'verb': 'remove', 'device': '/a', 'prio': 1}", -EINVAL, "prio: remove has no");
  assert_refused ("{'verb': 'rebalance', 'device': '/a'}", -EINVAL, "device: rebalance has no");
  cr_assert_eq (ask ("{'version': 1, 'verb': 'status'}"), 0);
}

/* A device must be an absolute path. */
Test (verbs, devices_are_checked)
{
  static const char *const verbs[] = { "'add'", "'remove'", "'priority', 'prio': 1",
                                       "'maxio', 'maxio': 1" };

  for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
    assert_refused (str ("{'verb': %s}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': 5}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': null}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': ['/a']}", verbs[i]), -EINVAL, "device: name one");
    assert_refused (str ("{'verb': %s, 'device': ''}", verbs[i]), -EINVAL, "absolute path");
    assert_refused (str ("{'verb': %s, 'device': 'a'}", verbs[i]), -EINVAL,
                    "a: is not an absolute");
    assert_refused (str ("{'verb': %s, 'device': '/a\\u0000b'}", verbs[i]), -EINVAL,
                    "device: name one");
    assert_refused (str ("{'verb': %s, 'device': '/%05000d'}", verbs[i], 0), -EINVAL,
                    "less than 4096 bytes");
  }
  assert_refused ("{'verb': 'remove', 'device': '/nowhere'}", -ENOENT, "/nowhere: is no device");
  assert_refused ("{'verb': 'priority', 'device': '/nowhere', 'prio': 1}", -ENOENT, "/nowhere");
  assert_refused ("{'verb': 'maxio', 'device': '/nowhere', 'maxio': 1}", -ENOENT, "/nowhere");
}

/* Numbers and switches have types and ranges; null is neither. */
Test (verbs, values_are_checked)
{
  static const struct {
    const char *verb, *key;
    const char *bad[8];
  } checked[] = {
    { "status", "fragmentation", { "1", "'yes'", "null", "{}" } },
    { "map", "cells", { "0", "1025", "-1", "5.0", "'5'", "null", "true" } },
    { "add", "prio", { "-2", "32768", "1.5", "'1'", "null", "4294967296" } },
    { "add", "size", { "-1", "0.5", "'1G'", "null", "[]" } },
    { "add", "maxio", { "-1", "65536", "1.5", "'1'", "null" } },
    { "add", "force", { "0", "'no'", "null" } },
    { "remove", "rate", { "0", "-1", "1e6", "'1M'", "null" } },
    { "remove", "force", { "1", "null" } },
    { "priority", "prio", { "-2", "32768", "null", "'high'" } },
    { "maxio", "maxio", { "-1", "65536", "null", "'4'" } },
    { "rebalance", "rate", { "0", "-5", "null", "false" } },
    { "cancel", "job", { "0", "-1", "'1'", "null", "1.0" } },
    { "wait", "job", { "0", "-1", "'1'", "null" } },
    { "wait", "seconds", { "-1", "-0.001", "3600.001", "3601", "'5'", "null", "true" } },
  };

  for (size_t i = 0; i < sizeof checked / sizeof checked[0]; i++) {
    const char *verb = checked[i].verb, *key = checked[i].key;
    bool on_device =
      (strchr ("arp", verb[0]) || strcmp (verb, "maxio") == 0) && strcmp (verb, "rebalance") != 0;
    bool waits = strcmp (key, "seconds") == 0;

    for (const char *const *bad = checked[i].bad; *bad; bad++)
      assert_refused (str ("{'verb': '%s', %s %s '%s': %s}", verb,
                           on_device ? str ("'device': '%s',", scratch_path ("b")) : "",
                           waits ? "'job': 1," : "", key, *bad),
                      -EINVAL, str ("%s: is ", key));
  }
  assert_refused (str ("{'verb': 'priority', 'device': '%s'}", scratch_path ("b")), -EINVAL,
                  "prio: is not given");
  assert_refused (str ("{'verb': 'maxio', 'device': '%s'}", scratch_path ("b")), -EINVAL,
                  "maxio: is not given");
  assert_refused ("{'verb': 'cancel'}", -EINVAL, "job: name one by its number");
  assert_refused ("{'verb': 'wait'}", -EINVAL, "job: name one by its number");
  assert_refused ("{'verb': 'cancel', 'job': 9}", -ENOENT, "job 9: there is none");
  assert_refused ("{'verb': 'wait', 'job': 9}", -ENOENT, "job 9: there is none");
  ask ("{'verb': 'status'}");
  get_array (reply, "jobs", 0);
}

/* ---- status ---- */

/* Requests are as many as the histogram has. */
static uint64_t
assert_counters (struct json_object *of, const char *key, uint64_t nbytes)
{
  struct json_object *counters = get (of, key), *histogram;
  uint64_t sum = 0;

  assert_keys (counters, "requests bytes errors in_flight seconds histogram");
  histogram = get_array (counters, "histogram", STATS_BUCKETS);
  for (size_t k = 0; k < STATS_BUCKETS; k++)
    sum += uint_at (histogram, k);
  cr_assert_eq (get_uint (counters, "requests"), sum);
  cr_assert_eq (get_uint (counters, "bytes"), nbytes, "%s: %s", key,
                json_object_to_json_string (counters));
  cr_assert_eq (get_uint (counters, "errors"), 0);
  cr_assert_eq (get_uint (counters, "in_flight"), 0);
  cr_assert_geq (get_double (counters, "seconds"), 0);
  return sum;
}

static void
assert_device (const char *name, int prio, const char *state, uint64_t nslots, uint64_t nused,
               uint64_t nbad)
{
  struct json_object *dev = device_of (name, "devices");
  uuid_t uuid;

  assert_keys (dev, "name type uuid prio maxio direct state size used avail bad uptime read write");
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

static void
assert_class (size_t i, int prio, uint64_t ndevices, uint64_t nslots, uint64_t nused)
{
  struct json_object *class = at (get (get (reply, "drum"), "classes"), i);

  assert_keys (class, "prio devices size used avail");
  cr_assert_eq (json_object_get_int (get (class, "prio")), prio);
  cr_assert_eq (get_uint (class, "devices"), ndevices);
  cr_assert_eq (get_uint (class, "size"), nslots * PAGE_BYTES);
  cr_assert_eq (get_uint (class, "used"), nused * PAGE_BYTES);
  cr_assert_eq (get_uint (class, "avail"), (nslots - nused) * PAGE_BYTES);
}

/* Everything there is to know, and it adds up. */
Test (verbs, status)
{
  struct json_object *drum, *export, *buckets, *server;
  char zero[PAGE_BYTES] = { 0 };

  cr_assert_eq (stamped_write (&pages, 0, 120), 0); /* 100 on a, 20 on b */
  cr_assert_eq (export_write (service.export, zero, sizeof zero, 300 * PAGE_BYTES), 0);
  stamped_trim (&pages, 0, 10);
  export_count_client (service.export, 1);
  cr_assert_eq (ask ("{'version': 1, 'verb': 'status'}"), 0);
  assert_keys (reply, "server drum buckets devices exports jobs");

  server = get (reply, "server");
  assert_keys (server, "version pid uptime");
  cr_assert_str_eq (get_text (server, "version"), PACKAGE_VERSION);
  cr_assert_eq (get_uint (server, "pid"), (uint64_t) getpid ());
  cr_assert (get_double (server, "uptime") > 0 && get_double (server, "uptime") < 60);

  drum = get (reply, "drum");
  assert_keys (drum, "size used avail kept stripe classes");
  cr_assert_eq (get_uint (drum, "size"), 400 * PAGE_BYTES);
  cr_assert_eq (get_uint (drum, "used"), 110 * PAGE_BYTES);
  cr_assert_eq (get_uint (drum, "avail"), 290 * PAGE_BYTES);
  cr_assert_eq (get_uint (drum, "kept"), 6 * PAGE_BYTES);
  cr_assert_eq (get_uint (drum, "stripe"), STRIPE * PAGE_BYTES);
  get_array (drum, "classes", 2);
  assert_class (0, 5, 1, A_SLOTS, 90);
  assert_class (1, -1, 1, B_SLOTS, 20);

  buckets = get_array (reply, "buckets", STATS_BUCKETS - 1);
  for (size_t k = 0; k < STATS_BUCKETS - 1; k++)
    cr_assert_eq (json_object_get_double (at (buckets, k)), stats_bucket_seconds ((unsigned) k));

  get_array (reply, "devices", 2);
  cr_assert_eq (device_of ("a", "devices"), at (get (reply, "devices"), 0), "the highest first");
  assert_device ("a", 5, "open", A_SLOTS, 90, A_BAD);
  assert_device ("b", -1, "open", B_SLOTS, 20, 0);
  cr_assert_eq (assert_counters (device_of ("a", "devices"), "write", 100 * PAGE_BYTES), 2,
                "bad slots part them");
  cr_assert_eq (assert_counters (device_of ("a", "devices"), "read", 0), 0);

  export = at (get_array (reply, "exports", 1), 0);
  assert_keys (export, "name size used clients zero_pages read write trim zero");
  cr_assert_str_eq (get_text (export, "name"), "");
  cr_assert_eq (get_uint (export, "size"), NPAGES * PAGE_BYTES);
  cr_assert_eq (get_uint (export, "used"), 110 * PAGE_BYTES);
  cr_assert_eq (get_uint (export, "clients"), 1);
  cr_assert_eq (get_uint (export, "zero_pages"), 1);
  cr_assert_eq (assert_counters (export, "write", 121 * PAGE_BYTES), 2);
  cr_assert_eq (assert_counters (export, "read", 0), 0);
  cr_assert_eq (assert_counters (export, "trim", 10 * PAGE_BYTES), 1);
  cr_assert_eq (assert_counters (export, "zero", 0), 0);
  get_array (reply, "jobs", 0);
}

/* Free runs are counted on request, by their length. */
Test (verbs, status_with_fragmentation)
{
  struct json_object *fragmentation, *runs;

  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': true}"), 0);
  fragmentation = get (get (reply, "drum"), "fragmentation");
  assert_keys (get (reply, "drum"), "size used avail kept stripe classes fragmentation");
  assert_keys (fragmentation, "largest runs");
  cr_assert_eq (get_uint (fragmentation, "largest"), B_SLOTS * PAGE_BYTES);
  runs = get_array (fragmentation, "runs", 32);
  for (size_t k = 0; k < 32; k++) /* 2 to 49, 54 to 105; 300 */
    cr_assert_eq (uint_at (runs, k), k == 5 ? 2 : k == 8 ? 1 : 0, "%zu", k);

  cr_assert_eq (stamped_write (&pages, 0, 100), 0);
  for (unsigned page = 0; page < 40; page += 2)
    stamped_trim (&pages, page, 1);
  stamped_trim (&pages, 50, 3);
  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': true}"), 0);
  runs = get_array (get (get (reply, "drum"), "fragmentation"), "runs", 32);
  for (size_t k = 0; k < 32; k++)
    cr_assert_eq (uint_at (runs, k), k == 0 ? 20 : k == 1 ? 1 : k == 8 ? 1 : 0, "%zu", k);
  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': false}"), 0);
  assert_keys (get (reply, "drum"), "size used avail kept stripe classes");
}

/* More free runs than one look takes. */
Test (verbs, many_free_runs)
{
  struct json_object *runs, *b;
  uint64_t sum = 0;

  cr_assert_eq (ask_for_job (str ("{'verb': 'add', 'device': '%s', 'size': %u, 'prio': 9}",
                                  scratch_path ("c"), (unsigned) bytes_of (700))),
                1);
  assert_ends (1, "done");
  for (unsigned page = 0; page < 400; page++)
    cr_assert_eq (stamped_write (&pages, page, 1), 0);
  drum_take_any (service.drum, 300);
  for (uint32_t slot = 0; slot < 700; slot += 2)
    if (slot >= 400)
      drum_give (service.drum, 1 + A_SLOTS + A_BAD + 2 + 1 + B_SLOTS + 2 + 1 + 2 + slot, 1);
  for (unsigned page = 0; page < 400; page += 2)
    stamped_trim (&pages, page, 1);
  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': true}"), 0);
  runs = get_array (get (get (reply, "drum"), "fragmentation"), "runs", 32);
  cr_assert_eq (uint_at (runs, 0), 350);
  cr_assert_eq (ask ("{'verb': 'map', 'cells': 1024}"), 0);
  b = get_array (device_of ("c", "devices"), "used", 702);
  for (size_t i = 0; i < 702; i++)
    sum += uint_at (b, i);
  cr_assert_eq (sum, 352);
  for (uint32_t slot = 401; slot < 700; slot += 2)
    drum_give (service.drum, 1 + A_SLOTS + A_BAD + 2 + 1 + B_SLOTS + 2 + 1 + 2 + slot, 1);
}

/* A device in each of its states. */
Test (verbs, status_of_devices_that_change)
{
  struct json_object *c;
  unsigned adding, removing;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  atomic_store (&adds_wait, true);
  adding = ask_for_job (str ("{'verb': 'add', 'device': '%s', 'size': %u, 'prio': 3}",
                             scratch_path ("c"), (unsigned) bytes_of (50)));
  sem_wait (&add_waits);
  removing =
    ask_for_job (str ("{'verb': 'remove', 'device': '%s', 'rate': 1}", scratch_path ("a")));
  do
    cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 0}", removing)), 0);
  while (get_uint (get (reply, "job"), "done") == 0);
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);

  get_array (reply, "devices", 3);
  c = device_of ("c", "devices");
  assert_keys (c, "name type uuid prio maxio direct state size used avail bad uptime read write");
  cr_assert_str_eq (get_text (c, "state"), "adding");
  cr_assert_eq (get_uint (c, "size") + get_uint (c, "used") + get_uint (c, "avail"), 0);
  cr_assert_eq (json_object_get_int (get (c, "prio")), 3);
  assert_counters (c, "read", 0);
  assert_device ("a", 5, "closing", A_SLOTS, 89, A_BAD);
  get_array (get (reply, "drum"), "classes", 1);
  assert_class (0, -1, 1, B_SLOTS, 1);
  cr_assert_eq (get_uint (get (reply, "drum"), "size"), B_SLOTS * PAGE_BYTES);
  cr_assert_eq (get_uint (get (reply, "drum"), "used"), 90 * PAGE_BYTES);
  cr_assert_eq (get_uint (get (reply, "drum"), "avail"), (B_SLOTS - 1) * PAGE_BYTES);
  get_array (reply, "jobs", 2);

  atomic_store (&adds_wait, false);
  sem_post (&add_goes_on);
  assert_ends (adding, "done");
  cr_assert_eq (ask (str ("{'verb': 'cancel', 'job': %u}", removing)), 0);
  assert_keys (reply, "");
  assert_ends (removing, "cancelled");
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  assert_device ("c", 3, "open", 50, 0, 0);
  assert_device ("a", 5, "open", A_SLOTS, 89, A_BAD);
}

static unsigned
start_adding_c (void)
{
  return ask_for_job (str ("{'verb': 'add', 'device': '%s', 'size': %u}", scratch_path ("c"),
                           (unsigned) bytes_of (50)));
}

/* A device that has just come into the drum is listed once. */
Test (verbs, a_device_that_comes_is_listed_once)
{
  unsigned job;

  atomic_store (&add_stops, true);
  job = start_adding_c ();
  sem_wait (&added);
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  get_array (reply, "devices", 3);
  assert_device ("c", -1, "open", 50, 0, 0);
  sem_post (&added_goes_on);
  assert_ends (job, "done");
}

static void
let_it_come (void)
{
  before_adding = NULL;
  atomic_store (&adds_wait, false);
  sem_post (&add_goes_on);
  jobs_wait (live_jobs (live), 1);
}

/* Nor is it ever missing: it comes while the status is made. */
Test (verbs, a_device_that_comes_is_listed)
{
  atomic_store (&adds_wait, true);
  start_adding_c ();
  sem_wait (&add_waits);
  before_adding = let_it_come;
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  get_array (reply, "devices", 3);
  assert_device ("c", -1, "open", 50, 0, 0);
}

/* ---- map ---- */

/* Cells of each device add up to its slots, label and bad slots included. */
static void
assert_map (const char *name, const char *state, uint64_t nslots, uint64_t nused, uint64_t nbad)
{
  struct json_object *dev = device_of (name, "devices"), *used, *bad;
  uint64_t cell, ncells, sum_used = 0, sum_bad = 0;

  assert_keys (dev, "name prio state slots cell used bad");
  cr_assert_str_eq (get_text (dev, "state"), state);
  cr_assert_eq (get_uint (dev, "slots"), nslots);
  cell = get_uint (dev, "cell");
  ncells = (nslots + cell - 1) / cell;
  used = get_array (dev, "used", ncells);
  bad = get_array (dev, "bad", ncells);
  for (size_t i = 0; i < ncells; i++) {
    uint64_t size = i + 1 < ncells ? cell : nslots - i * cell;

    cr_assert_leq (uint_at (used, i) + uint_at (bad, i), size, "cell %zu", i);
    sum_used += uint_at (used, i);
    sum_bad += uint_at (bad, i);
  }
  cr_assert_eq (sum_used, nused + 2, "%u", (unsigned) sum_used);
  cr_assert_eq (sum_bad, nbad);
}

/* With any number of cells; used and bad ones stand where they are. */
Test (verbs, map)
{
  static const unsigned ncells[] = { 1, 2, 3, 7, 64, 100, 105, 106, 107, 301, 302, 303, 1024 };
  struct json_object *used, *bad;

  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  stamped_trim (&pages, 10, 5);
  for (size_t i = 0; i < sizeof ncells / sizeof ncells[0]; i++) {
    cr_assert_eq (ask (str ("{'verb': 'map', 'cells': %u}", ncells[i])), 0);
    assert_keys (reply, "devices");
    get_array (reply, "devices", 2);
    assert_map ("a", "open", A_SLOTS + A_BAD + 2, 55, A_BAD);
    assert_map ("b", "open", B_SLOTS + 2, 0, 0);
    cr_assert_eq (get_uint (device_of ("b", "devices"), "cell"),
                  (B_SLOTS + 2 + ncells[i] - 1) / ncells[i], "the fewest that do");
  }
  cr_assert_eq (ask ("{'verb': 'map'}"), 0);
  cr_assert_eq (get_uint (device_of ("b", "devices"), "cell"), 302 / REPORT_CELLS + 1);
  cr_assert_eq (ask ("{'verb': 'map', 'cells': 1024}"), 0);
  used = get (device_of ("a", "devices"), "used");
  bad = get (device_of ("a", "devices"), "bad");
  for (size_t slot = 0; slot < 106; slot++) {
    bool is_bad = slot >= 50 && slot < 54, is_free = (slot >= 12 && slot < 17) || slot >= 66;

    cr_assert_eq (uint_at (bad, slot), is_bad, "%zu", slot);
    cr_assert_eq (uint_at (used, slot), !is_bad && !is_free, "%zu", slot);
  }
}

/* ---- what is done ---- */

static void
assert_job (struct json_object *job, unsigned id, const char *kind, const char *name,
            const char *keys)
{
  assert_keys (job, keys);
  cr_assert_eq (get_uint (job, "id"), id);
  cr_assert_str_eq (get_text (job, "kind"), kind);
  if (name)
    cr_assert_str_eq (get_text (job, "device"), scratch_path (name));
  cr_assert_geq (get_double (job, "seconds"), 0);
}

/* The verbs that begin jobs, and how these are described; status has all of them, in order. */
Test (verbs, jobs)
{
  struct json_object *job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  cr_assert_eq (ask_for_job (str ("{'verb': 'add', 'device': '%s', 'size': %u}", scratch_path ("c"),
                                  (unsigned) bytes_of (50))),
                1);
  job = end_of (1);
  assert_job (job, 1, "add", "c",
              "id kind device state done total seconds unreadable unreadable_pages lost");
  cr_assert_str_eq (get_text (job, "state"), "done");

  cr_assert_eq (
    ask (str ("{'verb': 'priority', 'device': '%s', 'prio': 32767}", scratch_path ("c"))), 0);
  assert_keys (reply, "");
  cr_assert_eq (ask_for_job ("{'verb': 'rebalance', 'rate': 1000000000}"), 2);
  job = end_of (2);
  assert_job (job, 2, "rebalance", NULL,
              "id kind state done total rate seconds unreadable unreadable_pages lost");
  cr_assert_eq (get_uint (job, "rate"), 1000000000);
  cr_assert_eq (get_uint (job, "done"), 50 * PAGE_BYTES);
  cr_assert_eq (get_uint (job, "total"), 50 * PAGE_BYTES);

  cr_assert_eq (ask_for_job (str ("{'verb': 'remove', 'device': '%s'}", scratch_path ("a"))), 3);
  job = end_of (3);
  assert_job (job, 3, "remove", "a",
              "id kind device state done total seconds unreadable unreadable_pages lost");
  cr_assert_eq (get_uint (job, "done"), 40 * PAGE_BYTES);

  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  get_array (reply, "jobs", 3);
  for (unsigned i = 0; i < 3; i++)
    cr_assert_eq (get_uint (at (get (reply, "jobs"), i), "id"), i + 1);
  get_array (reply, "devices", 2);
  assert_device ("c", 32767, "open", 50, 50, 0);
}

static uint64_t
maxio_of (const char *name)
{
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);
  return get_uint (device_of (name, "devices"), "maxio");
}

/* A device has no limit, or the one it came with, until it is changed, by any of its names. */
Test (verbs, maxio)
{
  const char *c = scratch_path ("c");

  cr_assert_eq (maxio_of ("a"), 0);
  assert_ends (
    ask_for_job (
      str ("{'verb': 'add', 'device': '%s', 'size': %u, 'maxio': 65535, 'prio': 1, 'force': false}",
           c, (unsigned) bytes_of (50))),
    "done");
  cr_assert_eq (maxio_of ("c"), 65535);
  cr_assert_eq (ask (str ("{'verb': 'maxio', 'device': '%s', 'maxio': 1}", scratch_path ("./c"))),
                0);
  assert_keys (reply, "");
  cr_assert_eq (maxio_of ("c"), 1);
  cr_assert_eq (maxio_of ("a"), 0);
  cr_assert_eq (ask (str ("{'verb': 'maxio', 'device': '%s', 'maxio': 0}", c)), 0);
  cr_assert_eq (maxio_of ("c"), 0);
}

/* The default priority is that of a start, and so are the checks, whose words are the job's. */
Test (verbs, added_with_defaults)
{
  const char *add = str ("{'verb': 'add', 'device': '%s'", file_make ("c", bytes_of (50)));
  struct json_object *job;

  file_write (scratch_path ("c"), 99, "data", 4);
  chmod (scratch_path ("c"), 0644);
  job = end_of (ask_for_job (str ("%s}", add)));
  assert_job (job, 1, "add", "c",
              "id kind device state done total seconds unreadable unreadable_pages lost error");
  cr_assert_str_eq (get_text (job, "state"), "failed");
  cr_assert_not_null (strstr (get_text (job, "error"), scratch_path ("c")));
  job = end_of (ask_for_job (str ("%s, 'force': true, 'size': 0}", add)));
  assert_job (job, 2, "add", "c",
              "id kind device state done total seconds unreadable unreadable_pages lost warnings");
  cr_assert_not_null (
    strstr (json_object_get_string (at (get_array (job, "warnings", 1), 0)), "permissions"));
  ask ("{'verb': 'status'}");
  assert_device ("c", -1, "open", 50, 0, 0);
}

/* Pages that can't be read: counted, and listed by export and number; given up with force. */
Test (verbs, unreadable_pages)
{
  struct json_object *job, *listed, *runs;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  for (unsigned page = 0; page < 40; page += 2) {
    file_write (scratch_path ("a"), (page + SWAPDEV_NRESERVED) * PAGE_BYTES, "!", 1);
    pages.sequence[page] = STAMPED_EIO;
  }
  job = end_of (ask_for_job (str ("{'verb': 'remove', 'device': '%s'}", scratch_path ("a"))));
  cr_assert_str_eq (get_text (job, "state"), "failed");
  cr_assert_eq (get_uint (job, "unreadable"), 20);
  cr_assert_eq (get_uint (job, "lost"), 0);
  listed = get_array (job, "unreadable_pages", JOB_LISTED);
  for (size_t i = 0; i < JOB_LISTED; i++) {
    assert_keys (at (listed, i), "export page");
    cr_assert_str_eq (get_text (at (listed, i), "export"), "");
    cr_assert_eq (get_uint (at (listed, i), "page"), 2 * i);
  }
  ask ("{'verb': 'status'}");
  assert_device ("a", 5, "closed", A_SLOTS, 20, A_BAD);
  ask ("{'verb': 'map'}");
  assert_map ("a", "closed", A_SLOTS + A_BAD + 2, 20, A_BAD);
  ask ("{'verb': 'status', 'fragmentation': true}");
  runs = get_array (get (get (reply, "drum"), "fragmentation"), "runs", 32);
  for (size_t k = 0; k < 32; k++) /* of b's 300, 70 are used */
    cr_assert_eq (uint_at (runs, k), k == 7, "%zu", k);
  job = end_of (
    ask_for_job (str ("{'verb': 'remove', 'device': '%s', 'force': true}", scratch_path ("a"))));
  cr_assert_str_eq (get_text (job, "state"), "done");
  cr_assert_eq (get_uint (job, "unreadable"), 20);
  cr_assert_eq (get_uint (job, "lost"), 20);
}

/* What live.h refuses has its words and its errno. */
Test (verbs, refused_by_live)
{
  cr_assert_eq (stamped_write (&pages, 0, 380), 0);
  logged_start ();
  assert_refused (str ("{'verb': 'remove', 'device': '%s'}", scratch_path ("b")), -ENOSPC,
                  "add a device first");
  assert_refused (str ("{'verb': 'add', 'device': '%s'}", scratch_path ("b")), -EBUSY,
                  "is a device of this drum already");
}

/* ---- wait ---- */

/* Not before it has ended, or the time is over: until then it says how long at most. */
Test (verbs, wait)
{
  unsigned job;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  job = ask_for_job (str ("{'verb': 'remove', 'device': '%s', 'rate': 1}", scratch_path ("a")));
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u}", job)), -EAGAIN);
  assert_keys (reply, "");
  cr_assert_eq (wait_ms, 60000);
  cr_assert_eq (ask_since (59999, str ("{'verb': 'wait', 'job': %u}", job)), -EAGAIN);
  cr_assert_eq (wait_ms, 1);
  cr_assert_eq (ask_since (60000, str ("{'verb': 'wait', 'job': %u}", job)), 0);
  assert_job (get (reply, "job"), job, "remove", "a",
              "id kind device state done total rate seconds unreadable unreadable_pages lost");
  cr_assert_str_eq (get_text (get (reply, "job"), "state"), "running");
  cr_assert_eq (wait_ms, 77);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 1.5}", job)), -EAGAIN);
  cr_assert_eq (wait_ms, 1500);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 3600}", job)), -EAGAIN);
  cr_assert_eq (wait_ms, 3600000);
  cr_assert_eq (ask_since (3600001, str ("{'verb': 'wait', 'job': %u, 'seconds': 3600}", job)), 0);
  cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 0}", job)), 0);
  cr_assert_eq (ask (str ("{'verb': 'cancel', 'job': %u}", job)), 0);
  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  cr_assert_eq (ask_since (5, str ("{'verb': 'wait', 'job': %u}", job)), 0);
  cr_assert_str_eq (get_text (get (reply, "job"), "state"), "cancelled");
  cr_assert_eq (wait_ms, 77);
}

/* ---- warnings ---- */

/* What is warned of while a verb is done is in its reply, line by line, and in the log; also of one that fails. */
Test (verbs, warnings_are_passed_on)
{
  struct json_object *warnings;

  warns = true;
  cr_assert_eq (ask (str ("{'verb': 'priority', 'device': '%s', 'prio': 1}", scratch_path ("a"))),
                0);
  assert_keys (reply, "warnings");
  warnings = get_array (reply, "warnings", 2);
  cr_assert_str_eq (json_object_get_string (at (warnings, 0)), "first");
  cr_assert_str_eq (json_object_get_string (at (warnings, 1)), "second");
  cr_assert_eq (logged_count (""), 2);
  cr_assert_eq (ask ("{'verb': 'priority', 'device': '/nowhere', 'prio': 1}"), -ENOENT);
  assert_keys (reply, "error warnings");
  log_error ("what comes after it is the log's again");
  cr_assert_eq (logged_count ("the log's again"), 1);
}

/* Lines become an array; none, one, the last with a newline or without. */
Test (verbs, lines)
{
  static const struct {
    const char *text;
    size_t n;
  } lines[] = { { "", 0 }, { "a", 1 }, { "a\n", 1 }, { "a\nb", 2 }, { "a\n\nb\n", 3 } };

  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
    struct json_object *to = json_object_new_object ();

    report_lines (lines[i].text, "lines", to);
    get_array (to, "lines", lines[i].n);
    json_object_put (to);
  }
}
