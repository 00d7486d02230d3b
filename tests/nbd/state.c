/* SPDX-License-Identifier: BSD-3-Clause
 *
 * state.c - starts with a state= that is not as the last server left it: what is refused, in one line and with nothing changed; what
 * state-repair=yes makes of it, which is I/O errors for exactly the pages that are lost; and what a start takes from the command line.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <xxhash.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"

#include "livedrum.h"

enum {
  NPAGES = 400, /* written; some on each device */
  SIZE = 500 * PAGE_BYTES,
  MAX_WORDS = 4,
  LOST = -1, /* slot 2^32-1 */
};

static const char *dir, *state; /* and state= with it */

static void
setup (void)
{
  livedrum_setup ();
  dir = run_path ("state");
  state = str ("state=%s", dir);
}

TestSuite (state, .init = setup, .fini = dev_teardown, .timeout = 600);

/* ---- starts ---- */

#define DEVICES "a,size=1M,prio=5", "b,size=4M", NULL

/* The parameters: these devices, size=, state=, and more (or NULL). */
static const char *const *
params_of (const char *const *devices, const char *more)
{
  static const char *params[8];
  unsigned n = 0;

  memset (params, 0, sizeof params);
  while (*devices)
    params[n++] = dev_path ("%s", *devices++);
  params[n++] = state;
  params[n++] = more;
  return params;
}

#define WITH(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void
start (const char *const *devices, const char *more)
{
  livedrum_start (params_of (devices, more));
}

/* The state, and devices a (1M) and b (4M), with pages on both. */
static void
make_state (void)
{
  start (WITH (DEVICES), str ("size=%u", SIZE));
  write_pages (0, NPAGES);
  livedrum_kill ();
}

static char *
snapshot (void)
{
  return shell_output ("cd '%s' && ls && sha256sum *", dir);
}

/* Each word is in the one line that it says; neither devices nor state are changed. */
static void
refuses (const char *const *params, const char *const *words)
{
  char *before = snapshot (), *line = server_refuses (&(struct server_options){ .params = params });

  fprintf (stderr, "%s", line);
  for (; *words; words++)
    cr_expect (strstr (line, *words), "\"%s\" is not in: %s", *words, line);
  cr_assert_str_eq (snapshot (), before, "it has changed the state, and said: %s", line);
}

/* Refuse it, and all pages are there once it has been put right. */
static void
starts_again (void)
{
  start (WITH (DEVICES), NULL);
  expect_pages (0, NPAGES);
  livedrum_kill ();
}

/* ---- what is in the state ---- */

static json *
read_manifest (void)
{
  const char *path = str ("%s/manifest", dir);
  json *m = json_tokener_parse ((const char *) file_contents (path, NULL));

  cr_assert_not_null (m, "%s", path);
  return m;
}

static void
write_manifest (json *m)
{
  char *text = str ("%s\n", json_object_to_json_string_ext (m, JSON_C_TO_STRING_PLAIN));
  FILE *f = fopen (str ("%s/manifest", dir), "w");

  cr_assert_not_null (f, "%m");
  fprintf (f, "%sxxh3 %016" PRIx64 "\n", text, (uint64_t) XXH3_64bits (text, strlen (text)));
  cr_assert_eq (fclose (f), 0, "%m");
}

/* As if the machine had been started again since. */
static void
reboot (void)
{
  json *m = read_manifest ();

  json_object_object_add (m, "boot",
                          json_object_new_string ("00000000-0000-4000-8000-000000000001"));
  write_manifest (m);
}

struct range {
  uint32_t first, end;
};

static struct range
range_of (const char *path)
{
  json *devices = member (read_manifest (), "devices");

  for (size_t i = 0; i < json_object_array_length (devices); i++) {
    json *dev = json_object_array_get_idx (devices, i);

    if (strcmp (member_str (dev, "path"), path) == 0) {
      uint32_t first = (uint32_t) member_uint (dev, "first");

      return (struct range){ first, first + (uint32_t) member_uint (dev, "nslots") };
    }
  }
  cr_assert_fail ("%s is not in the manifest", path);
  return (struct range){ 0, 0 };
}

struct entry {
  uint32_t slot, sum;
};

static char *
map_path (void)
{
  return str ("%s/map-1", dir);
}

static struct entry
read_entry (unsigned page)
{
  const struct entry *map = (const struct entry *) file_contents (map_path (), NULL);

  return map[page];
}

static void
write_entry (unsigned page, struct entry entry)
{
  file_write (map_path (), page * sizeof entry, &entry, sizeof entry);
}

/* ---- what is lost ---- */

static bool lost[SIZE / PAGE_BYTES];

static unsigned
lose_range (struct range range)
{
  const struct entry *map = (const struct entry *) file_contents (map_path (), NULL);
  unsigned n = 0;

  for (unsigned page = 0; page < NPAGES; page++)
    if (map[page].slot >= range.first && map[page].slot < range.end) {
      lost[page] = true;
      n++;
    }
  cr_assert (n > 0 && n < NPAGES, "%u", n);
  return n;
}

static unsigned
lose_pages (unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    lost[page] = true;
  return end - first;
}

static void
expect_lost (void)
{
  char buf[PAGE_BYTES];

  for (unsigned page = 0; page < SIZE / PAGE_BYTES; page++)
    if (!lost[page])
      client_expect_page (nbd, page < NPAGES, page < NPAGES, page);
    else {
      cr_assert_eq (nbd_pread (nbd, buf, sizeof buf, (uint64_t) page * PAGE_BYTES, 0), -1,
                    "page %u is not lost", page);
      cr_assert_eq (nbd_get_errno (), EIO);
    }
}

/* No slot is lost or used twice. */
static void
check_used (void)
{
  unsigned n = 0;

  for (unsigned page = 0; page < NPAGES; page++)
    n += !lost[page];
  expect_uint (control_export (control), "used", (uint64_t) n * PAGE_BYTES);
  expect_uint (control_status (control), "drum.used", (uint64_t) n * PAGE_BYTES);
}

/* Start with state-repair=yes: these n pages are lost, which is said, until they are written; also for the starts that follow. */
static void
repairs (const char *const *devices, unsigned n)
{
  start (devices, "state-repair=yes");
  if (n > 0)
    server_wait_stderr (&srv, str ("export \"\": %u pages are lost: ", n));
  else
    cr_assert_null (strstr (server_stderr (&srv), "lost"), "%s", server_stderr (&srv));
  expect_lost ();
  check_used ();
  livedrum_kill ();
  start (devices, NULL);
  cr_assert_null (strstr (server_stderr (&srv), "lost"), "%s", server_stderr (&srv));
  expect_lost ();
  check_used ();
  for (unsigned page = 0; page < SIZE / PAGE_BYTES; page++)
    if (lost[page] && page < NPAGES)
      client_write_page (nbd, 1, 1, page);
    else if (lost[page])
      client_trim (nbd, PAGE_BYTES, (uint64_t) page * PAGE_BYTES);
  memset (lost, 0, sizeof lost);
  expect_lost ();
  check_used ();
  livedrum_kill ();
}

/* ---- devices ---- */

Test (state, device_is_missing)
{
  make_state ();
  cr_assert_eq (rename (dev_path ("a"), dev_path ("away")), 0);
  refuses (params_of (WITH (DEVICES), NULL),
           WITH (dev_path ("a: is missing"), dir, "state-repair=yes", "bring it back"));
  refuses (params_of (WITH ("a", "b"), NULL), WITH (dev_path ("a: is missing")));
  refuses (params_of (WITH ("b"), NULL), WITH (dev_path ("a: is missing")));
  start (WITH ("away", "b"), NULL); /* it may have moved */
  expect_pages (0, NPAGES);
  livedrum_kill ();
  start (WITH ("b"), NULL); /* that is known then */
  expect_pages (0, NPAGES);
  livedrum_kill ();
  cr_assert_eq (rename (dev_path ("away"), dev_path ("gone")), 0);
  lose_range (range_of (dev_path ("away")));
  repairs (WITH ("b"), lose_range (range_of (dev_path ("away"))));
  start (WITH ("gone", "b"), NULL); /* with nothing on it */
  expect_uint (control_device (control, dev_path ("gone")), "used", 0);
  expect_pages (0, NPAGES);
  livedrum_kill ();
}

/* Pages that were on it are not looked for on the one that takes its place. */
Test (state, device_is_another)
{
  make_state ();
  cr_assert_eq (rename (dev_path ("a"), dev_path ("away")), 0);
  dev_allocated ("a", 1 << 20);
  refuses (params_of (WITH (DEVICES), NULL),
           WITH (dev_path ("a: is another device"), dir, "state-repair=yes"));
  refuses (params_of (WITH ("b"), NULL), WITH (dev_path ("a: is another device")));
  file_write (dev_path ("a"), 0, "not ours", 8);
  refuses (params_of (WITH ("b"), NULL), WITH (dev_path ("a: is another device")));
  dev_allocated ("a", 1 << 20);
  repairs (WITH (DEVICES), lose_range (range_of (dev_path ("a"))));
}

Test (state, device_is_a_copy)
{
  make_state ();
  cr_assert_eq (shell ("cd '%s' && cp a copy && chmod 600 copy", dev_path (".")), 0);
  refuses (params_of (WITH ("a", "copy", "b"), NULL), WITH ("copy", "same label", dev_path ("a")));
  cr_assert_eq (rename (dev_path ("copy"), dev_path ("a")), 0);
  cr_assert_eq (shell ("cd '%s' && cp a old && chmod 600 old", dev_path (".")), 0);
  starts_again ();
  cr_assert_eq (rename (dev_path ("old"), dev_path ("a")), 0);
  refuses (params_of (WITH (DEVICES), NULL),
           WITH (dev_path ("a: is of generation"), dir, "old copy", "state-repair=yes"));
  repairs (WITH (DEVICES), 0); /* nothing was written since */
}

Test (state, state_is_an_old_copy)
{
  make_state ();
  cr_assert_eq (shell ("cp -r '%s' '%s.old'", dir, dir), 0);
  starts_again ();
  cr_assert_eq (shell ("rm -r '%s' && mv '%s.old' '%s'", dir, dir, dir), 0);
  refuses (params_of (WITH (DEVICES), NULL), WITH ("is of generation", dir, "an old copy"));
}

Test (state, device_has_another_size)
{
  make_state ();
  cr_assert_eq (truncate (dev_path ("a"), 2 << 20), 0);
  refuses (params_of (WITH ("a", "b"), NULL), WITH (dev_path ("a: has another size"), dir));
  refuses (params_of (WITH (DEVICES), NULL), WITH (dev_path ("a"), "size="));
  repairs (WITH ("a", "b"), lose_range (range_of (dev_path ("a"))));
}

/* A server without the state must not take its devices; one that was told to has made an end of it. */
Test (state, device_was_used_without)
{
  const char *const *without = PARAMS (dev_path ("a"), dev_path ("b"));

  make_state ();
  refuses (without, WITH ("holds pages of the state", "state=", "force=yes"));
  refuses (PARAMS (dev_path ("a"), str ("state=%s.other", dir)),
           WITH (dev_path ("a"), "holds pages of the state"));
  cr_assert_eq (access (str ("%s.other", dir), F_OK), -1, "it leaves a folder");
  starts_again ();
  livedrum_start (PARAMS (dev_path ("a"), "force=yes"));
  livedrum_stop ();
  refuses (params_of (WITH (DEVICES), NULL),
           WITH (dev_path ("a: has been used without this state"), dir));
  repairs (WITH (DEVICES), lose_range (range_of (dev_path ("a"))));
}

/* ---- the folder ---- */

Test (state, parameters)
{
  make_state ();
  refuses (params_of (WITH (DEVICES), "checksum=no"), WITH ("checksum=", "state="));
  refuses (params_of (WITH (DEVICES), "size=1M"), WITH ("size=", "1048576", dir));
  refuses (PARAMS (dev_path ("c,size=1M"), "sync=yes"), WITH ("sync=", "state="));
  refuses (PARAMS (dev_path ("c,size=1M"), "state-repair=yes"), WITH ("state-repair=", "state="));
  refuses (params_of (WITH (DEVICES), "sync=maybe"), WITH ("sync=", "maybe"));
  refuses (params_of (WITH (DEVICES), "state="), WITH ("state="));
  refuses (PARAMS (dev_path ("c,size=1M"), str ("state=%s/manifest", dir)), WITH ("manifest"));
  refuses (PARAMS (dev_path ("c,size=1M"), str ("state=%s/none/deeper", dir)),
           WITH ("none/deeper"));
  start (WITH (DEVICES), str ("size=%u", SIZE));
  expect_pages (0, NPAGES);
  livedrum_kill ();
}

Test (state, second_server)
{
  make_state ();
  start (WITH (DEVICES), NULL);
  refuses (PARAMS (dev_path ("c,size=1M"), state), WITH (dir, "another server uses it"));
  refuses (params_of (WITH (DEVICES), NULL), WITH (dir, "another server uses it"));
  expect_pages (0, NPAGES);
  livedrum_kill ();
  starts_again ();
}

Test (state, damaged_manifest)
{
  const char *path = str ("%s/manifest", dir);
  size_t len;
  unsigned char *good;

  make_state ();
  good = file_contents (path, &len);
  for (size_t at = 0; at < len; at += 1 + len / 10) {
    unsigned char byte = good[at] ^ 1;

    file_write (path, at, &byte, 1);
    refuses (params_of (WITH (DEVICES), NULL), WITH (path));
    refuses (params_of (WITH (DEVICES), "state-repair=yes"), WITH (path));
    file_write (path, at, &good[at], 1);
  }
  for (size_t n = 0; n < len; n += 1 + len / 5) {
    cr_assert_eq (truncate (path, (off_t) n), 0);
    refuses (params_of (WITH (DEVICES), NULL), WITH (path, "damaged"));
    file_write (path, 0, good, len);
  }
  cr_assert_eq (unlink (path), 0);
  refuses (params_of (WITH (DEVICES), NULL), WITH (dir, "manifest is missing"));
  refuses (params_of (WITH (DEVICES), "state-repair=yes"), WITH (dir, "manifest is missing"));
  cr_assert_eq (shell ("touch '%s'", path), 0);
  file_write (path, 0, good, len);
  starts_again ();
}

/* nbdkit itself fails after the plugin is ready: nothing has happened. */
Test (state, start_that_fails)
{
  const char *nosuch = run_path ("nosuch/sock");
  char *before, *devices;
  struct server failed;

  cr_assert_not (server_launch (
    &failed, &(struct server_options){ .socket = nosuch,
                                       .params = PARAMS (dev_path ("a,size=1M"), state) }));
  cr_assert_eq (access (dir, F_OK), -1, "it leaves a folder");
  cr_assert_eq (access (dev_path ("a"), F_OK), -1, "it leaves a file");
  make_state ();
  before = snapshot ();
  devices = dev_snapshot ();
  cr_assert_not (server_launch (
    &failed, &(struct server_options){ .socket = nosuch,
                                       .params = params_of (WITH (DEVICES, NULL), NULL) }));
  cr_assert_str_eq (snapshot (), before);
  cr_assert_str_eq (dev_snapshot (), devices);
  cr_assert_not (server_launch (
    &failed, &(struct server_options){ .socket = nosuch,
                                       .params = params_of (WITH ("a", "b", "c,size=1M"), NULL) }));
  cr_assert_str_eq (snapshot (), before);
  cr_assert_str_eq (dev_snapshot (), devices);
  starts_again ();
}

/* ---- page maps ---- */

/* Pages whose entries are cut off may have been anything, but what they are is not made up. */
Test (state, map_is_cut)
{
  make_state ();
  cr_assert_eq (truncate (map_path (), 300 * 8 + 5), 0);
  refuses (params_of (WITH (DEVICES), NULL), WITH (map_path (), "cut"));
  repairs (WITH (DEVICES), lose_pages (300, SIZE / PAGE_BYTES));
  cr_assert_eq (truncate (map_path (), 0), 0);
  refuses (params_of (WITH (DEVICES), NULL), WITH (map_path (), "cut"));
  repairs (WITH (DEVICES), lose_pages (0, SIZE / PAGE_BYTES));
  cr_assert_eq (truncate (map_path (), SIZE), 0);
  refuses (params_of (WITH (DEVICES), NULL), WITH (map_path (), "another export"));
  repairs (WITH (DEVICES), 0);
}

Test (state, map_is_missing)
{
  make_state ();
  cr_assert_eq (unlink (map_path ()), 0);
  refuses (params_of (WITH (DEVICES), NULL), WITH (map_path (), "can't be opened"));
  repairs (WITH (DEVICES), lose_pages (0, SIZE / PAGE_BYTES));
}

static void
expect_damaged (unsigned page)
{
  refuses (params_of (WITH (DEVICES), NULL),
           WITH (dir, str ("page %u", page), "damaged", "state-repair=yes"));
}

/* Slots that can't be: behind a device, at its label, far away; and a checksum of nothing. */
Test (state, entry_makes_no_sense)
{
  struct range range;
  struct entry last;

  make_state ();
  range = range_of (dev_path ("b"));
  write_entry (0, (struct entry){ range.end, 1 });
  expect_damaged (0);
  write_entry (1, (struct entry){ range.first, 1 });
  write_entry (2, (struct entry){ range.first + 1, 1 });
  write_entry (3, (struct entry){ (uint32_t) LOST - 1, 1 });
  write_entry (4, (struct entry){ 0, 1 });
  repairs (WITH (DEVICES), lose_pages (0, 5));
  /* A run that goes on behind the last slot: a is full. */
  range = range_of (dev_path ("a"));
  for (unsigned page = 0; page < NPAGES - 1; page++) {
    last = read_entry (page);
    if (last.slot == range.end - 1) {
      write_entry (page + 1, (struct entry){ range.end, 1 });
      expect_damaged (page + 1);
      repairs (WITH (DEVICES), lose_pages (page + 1, page + 2));
      return;
    }
  }
  cr_assert_fail ("the last slot of a is not used");
}

/* Two pages with one slot are damage, unless the power may have failed: then it is the page's whose checksum matches. */
Test (state, two_pages_with_one_slot)
{
  struct entry mine;

  make_state ();
  mine = read_entry (10);
  write_entry (
    5, (struct entry){ mine.slot, mine.sum ^ 1 }); /* the first that names it is not the one */
  write_entry (200, mine);
  expect_damaged (10);
  reboot ();
  lose_pages (5, 6);
  lose_pages (200, 201);
  start (WITH (DEVICES), NULL);
  server_wait_stderr (&srv, "export \"\": 2 pages are lost: ");
  expect_lost ();
  check_used ();
  livedrum_kill ();
  repairs (WITH (DEVICES), 0);
  mine = read_entry (10);
  write_entry (5, mine);
  expect_damaged (10);
  repairs (WITH (DEVICES), lose_pages (5, 6));
  write_entry (5, (struct entry){ mine.slot, 1 });
  write_entry (10, (struct entry){ mine.slot, 2 });
  expect_damaged (10);
  lose_pages (5, 6);
  lose_pages (10, 11);
  repairs (WITH (DEVICES), 2); /* and the slot is free */
}

/* ---- what a start takes from the command line ---- */

static void
expect_prio (const char *device, int prio, unsigned maxio)
{
  json *dev = control_device (control, dev_path ("%s", device));

  cr_assert_eq (json_object_get_int (member (dev, "prio")), prio, "must be %d: %s", prio,
                json_object_to_json_string (dev));
  expect_uint (dev, "maxio", maxio);
}

/* What was changed live stays, unless the command line says something new. */
Test (state, priorities)
{
  start (WITH ("a,size=1M,prio=5,maxio=2", "b,size=4M"), NULL);
  control_ok (control, "'verb': 'priority', 'device': '%s', 'prio': 7", a);
  control_ok (control, "'verb': 'maxio', 'device': '%s', 'maxio': 9", a);
  control_ok (control, "'verb': 'priority', 'device': '%s', 'prio': 3", b);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': 1048576, 'prio': 4",
               dev_path ("c"));
  livedrum_kill ();
  start (WITH ("a,prio=5,maxio=2", "b"), NULL);
  expect_prio ("a", 7, 9);
  expect_prio ("b", 3, 0);
  expect_prio ("c", 4, 0);
  livedrum_kill ();
  start (WITH ("a,prio=6,maxio=2", "b", "c"), NULL); /* c without one is -1 */
  expect_prio ("a", 6, 9);
  expect_prio ("b", 3, 0);
  expect_prio ("c", -1, 0);
  livedrum_kill ();
  start (WITH ("a,prio=6,maxio=3", "b,prio=1"), NULL);
  expect_prio ("a", 6, 3);
  expect_prio ("b", 1, 0);
  expect_prio ("c", -1, 0);
  livedrum_kill ();
}

/* A removal that a SIGTERM interrupts goes on after it, as it was asked for. */
Test (state, removal_goes_on)
{
  make_state ();
  start (WITH ("a,prio=5", "b"), NULL);
  control_wait_moving (
    control, control_start (control, "'verb': 'remove', 'device': '%s', 'rate': 4096", a));
  livedrum_stop ();
  start (WITH ("a,prio=5", "b"), NULL);
  expect_str (control_device (control, a), "state", "closing");
  expect_uint (control_job (control, 1), "rate", 4096);
  expect_pages (0, NPAGES);
  livedrum_kill ();
}

/* One that was removed stays away, though it is named, until it is added; then it is as it was added. */
Test (state, removed_devices)
{
  make_state ();
  start (WITH ("a,prio=5", "b"), NULL);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  livedrum_kill ();
  for (unsigned i = 0; i < 2; i++) {
    start (WITH ("a,prio=5", "b"), NULL);
    server_wait_stderr (&srv, str ("%s: was removed while the server ran, and is left out", a));
    control_expect_no_device (control, a);
    expect_pages (0, NPAGES);
    livedrum_kill ();
  }
  start (WITH ("a,prio=5", "b"), NULL);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'prio': 2", a);
  livedrum_kill ();
  start (WITH ("a,prio=5", "b"), NULL);
  expect_prio ("a", 2, 0);
  expect_str (control_device (control, a), "state", "open");
  expect_pages (0, NPAGES);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  livedrum_kill ();
  start (WITH ("b"), NULL); /* it is not named any more: forgotten */
  livedrum_kill ();
  start (WITH ("a,prio=5", "b"), NULL);
  expect_prio ("a", 5, 0);
  expect_pages (0, NPAGES);
  livedrum_kill ();
}

/* ---- a folder that is full, or fails ---- */

static struct faults *faults;

static struct faults_rule *
fail_writes (const char *path, int error)
{
  struct faults_rule *rule = faults_add (
    faults, path,
    &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_FAIL, .error = error });

  cr_assert_not_null (rule);
  return rule;
}

static void
expect_failed (int result)
{
  cr_assert_eq (result, -1);
  cr_assert_eq (nbd_get_errno (), EIO, "%s", nbd_get_error ());
}

static void
full (int error)
{
  struct faults_rule *rule;
  char *path = run_path ("faults");

  faults = faults_open (path);
  livedrum_start_as (&(struct server_options){
    .params = PARAMS (dev_path ("a,size=1M,prio=5"), dev_path ("b,size=4M"), state),
    .faults = path });
  write_pages (0, NPAGES);
  rule = fail_writes ("/map-1", error);
  cr_assert_eq (client_try_write_page (nbd, 1, 2, 10), EIO);
  cr_assert_eq (client_try_write_page (nbd, 1, 2, NPAGES), EIO);
  expect_failed (nbd_trim (nbd, 100 * PAGE_BYTES, 20 * PAGE_BYTES, 0));
  expect_failed (nbd_zero (nbd, 100 * PAGE_BYTES, 20 * PAGE_BYTES, 0));
  expect_pages (0, NPAGES);
  client_expect_page (nbd, 0, 0, NPAGES);
  check_used ();
  livedrum_kill ();
  faults_remove (rule);
  livedrum_start_as (&(struct server_options){ .params = PARAMS (a, b, state), .faults = path });
  expect_pages (0, NPAGES);
  check_used ();
  rule = fail_writes ("/map-1", error);
  cr_assert_eq (client_try_write_page (nbd, 1, 2, 10), EIO);
  faults_remove (rule);
  client_write_page (nbd, 1, 2, 10);
  client_expect_page (nbd, 1, 2, 10);
  client_trim (nbd, (uint64_t) NPAGES * PAGE_BYTES, 0);
  expect_uint (control_status (control), "drum.used", 0);
  livedrum_kill ();
}

Test (state, map_has_no_room)
{
  full (ENOSPC);
}

Test (state, map_fails)
{
  full (EIO);
}

/* Nothing is put on a device that the state does not know yet; and one that is on its way out stays until the state knows that. */
Test (state, killed_while_it_is_written)
{
  static const char *const changes[] = { "'verb': 'add', 'size': 1048576, 'prio': 9, 'device'",
                                         "'verb': 'remove', 'device'" };
  const char *const *params;
  char *path = run_path ("faults"), *c = dev_path ("c");

  faults = faults_open (path);
  params = PARAMS (dev_path ("a,size=1M,prio=5"), dev_path ("b,size=4M"), state);
  for (unsigned i = 0; i < 2; i++) {
    struct faults_rule *rule;

    livedrum_start_as (&(struct server_options){ .params = params, .faults = path });
    write_pages (0, 10);
    rule = faults_add (faults, "/manifest",
                       &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD });
    cr_assert_not_null (rule);
    control_send (control, "%s: '%s'", changes[i], i ? a : c);
    faults_wait (&rule->nacted, 1);
    write_pages (10, 60);
    livedrum_kill ();
    faults_remove (rule);
    livedrum_start_as (&(struct server_options){ .params = params, .faults = path });
    control_expect_no_device (control, c);
    expect_str (control_device (control, a), "state", "open");
    expect_pages (0, 60);
    expect_uint (control_status (control), "drum.used", 60 * PAGE_BYTES);
    livedrum_kill ();
  }
}

/* A live change that can't be kept is refused, and is not done. */
Test (state, manifest_has_no_room)
{
  struct faults_rule *rule;
  char *path = run_path ("faults"), *c = dev_path ("c");

  faults = faults_open (path);
  livedrum_start_as (&(struct server_options){
    .params = PARAMS (dev_path ("a,size=1M,prio=5"), dev_path ("b,size=4M"), state),
    .faults = path });
  write_pages (0, NPAGES);
  rule = fail_writes ("/manifest", ENOSPC);
  control_send (control, "'verb': 'priority', 'device': '%s', 'prio': 9", a);
  expect_str (control_reply (control), "errno", "ENOSPC");
  control_send (control, "'verb': 'maxio', 'device': '%s', 'maxio': 9", a);
  expect_str (control_reply (control), "errno", "ENOSPC");
  control_send (control, "'verb': 'remove', 'device': '%s'", a);
  expect_str (control_reply (control), "errno", "ENOSPC");
  control_run (control, "failed", "'verb': 'add', 'device': '%s', 'size': 1048576", c);
  cr_assert_eq (access (c, F_OK), -1, "it leaves a file");
  control_expect_no_device (control, c);
  expect_prio ("a", 5, 0);
  expect_str (control_device (control, a), "state", "open");
  expect_pages (0, NPAGES);
  faults_remove (rule);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': 1048576", c);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_pages (0, NPAGES);
  livedrum_kill ();
  start (WITH ("b"), NULL);
  control_expect_no_device (control, a);
  expect_prio ("c", -1, 0);
  expect_pages (0, NPAGES);
  livedrum_kill ();
}
