/* SPDX-License-Identifier: BSD-3-Clause
 *
 * verbs_report.c - tests of lib/report.c: status and map as docs/control.md has them, whatever the devices do.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <json-c/json.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "lib/drum.h"
#include "lib/export.h"
#include "lib/job.h"
#include "lib/report.h"
#include "lib/stats.h"
#include "tests/scratch.h"

#include "asking.h"
#include "logged.h"
#include "longadd.h"
#include "tests/unit/served.h"

/* ---- what the linker sends here ---- */

static sem_t added, added_goes_on; /* if add_stops: an add is in the drum, but not yet at its end */
static atomic_bool add_stops;

int __real_drum_add_at (struct drum *d, struct swapdev *dev, const struct drum_seat *seat);
int __wrap_drum_add_at (struct drum *d, struct swapdev *dev, const struct drum_seat *seat);

int
__wrap_drum_add_at (struct drum *d, struct swapdev *dev, const struct drum_seat *seat)
{
  int ret = __real_drum_add_at (d, dev, seat);

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

static void
setup (void)
{
  longadd_setup ();
  sem_init (&added, 0, 0);
  sem_init (&added_goes_on, 0, 0);
  asking_setup ();
}

TestSuite (verbs_report, .init = setup, .fini = asking_teardown, .timeout = 60);

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
Test (verbs_report, status)
{
  struct json_object *drum, *export, *buckets, *server;
  char zero[PAGE_BYTES] = { 0 };

  cr_assert_eq (stamped_write (&pages, 0, 120), 0); /* 100 on a, 20 on b */
  cr_assert_eq (export_write (served (&service), zero, sizeof zero, 300 * PAGE_BYTES), 0);
  stamped_trim (&pages, 0, 10);
  export_count_client (served (&service), 1);
  cr_assert_eq (ask ("{'version': 1, 'verb': 'status'}"), 0);
  assert_keys (reply, "server drum buckets devices exports jobs");

  server = get (reply, "server");
  assert_keys (server, "version pid uptime");
  cr_assert_str_eq (get_text (server, "version"), PACKAGE_VERSION);
  cr_assert_eq (get_uint (server, "pid"), (uint64_t) getpid ());
  cr_assert (get_double (server, "uptime") > 0 && get_double (server, "uptime") < 60);

  drum = get (reply, "drum");
  assert_keys (drum, "size used avail kept reserved overcommit stripe io classes");
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
  assert_keys (
    export, "name size used reserve limit weight iops bandwidth exclusive idle clients zero_pages "
            "read write trim zero");
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
Test (verbs_report, status_with_fragmentation)
{
  struct json_object *fragmentation, *runs;

  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': true}"), 0);
  fragmentation = get (get (reply, "drum"), "fragmentation");
  assert_keys (get (reply, "drum"),
               "size used avail kept reserved overcommit stripe io classes fragmentation");
  assert_keys (fragmentation, "largest runs");
  cr_assert_eq (get_uint (fragmentation, "largest"), B_SLOTS * PAGE_BYTES);
  runs = get_array (fragmentation, "runs", 32);
  for (size_t k = 0; k < 32; k++) /* 2 to 49, 54 to 105; 300 */
    cr_assert_eq (uint_at (runs, k), k == 5 ? 2 : k == 8 ? 1 : 0, "%zu", k);

  cr_assert_eq (stamped_write (&pages, 0, 100), 0);
  for (unsigned page = 0; page < 40; page += 2)
    stamped_trim (&pages, page, 1);
  stamped_trim (&pages, 60, 3);
  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': true}"), 0);
  runs = get_array (get (get (reply, "drum"), "fragmentation"), "runs", 32);
  for (size_t k = 0; k < 32; k++)
    cr_assert_eq (uint_at (runs, k), k == 0 ? 20 : k == 1 ? 1 : k == 8 ? 1 : 0, "%zu", k);
  cr_assert_eq (ask ("{'verb': 'status', 'fragmentation': false}"), 0);
  assert_keys (get (reply, "drum"), "size used avail kept reserved overcommit stripe io classes");
}

/* More free runs than one look takes. */
Test (verbs_report, many_free_runs)
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
Test (verbs_report, status_of_devices_that_change)
{
  struct json_object *c;
  unsigned adding, removing;

  cr_assert_eq (stamped_write (&pages, 0, 90), 0);
  longadd_begin ();
  adding = ask_for_job (str ("{'verb': 'add', 'device': '%s', 'size': %u, 'prio': 3}",
                             scratch_path ("c"), (unsigned) bytes_of (50)));
  longadd_await ();
  removing =
    ask_for_job (str ("{'verb': 'remove', 'device': '%s', 'rate': 1}", scratch_path ("a")));
  do
    cr_assert_eq (ask (str ("{'verb': 'wait', 'job': %u, 'seconds': 0}", removing)), 0);
  while (get_uint (get (reply, "job"), "done") == 0);
  cr_assert_eq (ask ("{'verb': 'status'}"), 0);

  get_array (reply, "devices", 3);
  c = device_of ("c", "devices");
  assert_keys (
    c, "name type uuid prio maxio single direct state size used avail bad suspect mismatches "
       "uptime read write");
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

  longadd_end (1);
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
Test (verbs_report, a_device_that_comes_is_listed_once)
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
  longadd_end (1);
  jobs_wait (live_jobs (live), 1);
}

/* Nor is it ever missing: it comes while the status is made. */
Test (verbs_report, a_device_that_comes_is_listed)
{
  longadd_begin ();
  start_adding_c ();
  longadd_await ();
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
Test (verbs_report, map)
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

/* Pages that can't be read: counted, and listed by export and number; given up with force. */
Test (verbs_report, unreadable_pages)
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

/* Lines become an array; none, one, the last with a newline or without. */
Test (verbs_report, lines)
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
