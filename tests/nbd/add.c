/* SPDX-License-Identifier: BSD-3-Clause
 *
 * add.c - devices that are added while clients are connected.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { MIB = 1 << 20, STRIPE = 16, DRUM_UUID_AT = 16, DEVICE_UUID_AT = 32 };

static struct server srv;
static struct nbd_handle *nbd;
static int control;

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has devices");
}

/* One device, a, under an export of 16 MiB. */
static void
start (const char *a)
{
  server_start (&srv, &(struct server_options){
                        .params = PARAMS (dev_path ("%s", a), "size=16M", control_param ()) });
  control = control_open ();
  nbd = client_open (&srv);
}

static void
stop (void)
{
  client_close (nbd);
  close (control);
  server_stop (&srv);
}

TestSuite (add, .init = setup, .fini = dev_teardown, .timeout = 300);

static void
write_pages (unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_write_page (nbd, 1, 1, page);
}

/* An add that its job finds to be wrong: the error, with no file below dev/ changed. */
static const char *
refused (const char *args)
{
  char *before = dev_snapshot ();
  json *job = control_run (control, "failed", "'verb': 'add', %s", args);

  cr_assert_str_eq (dev_snapshot (), before, "it has changed files: %s",
                    json_object_to_json_string (job));
  cr_assert_eq (json_object_array_length (member (control_status (control), "devices")), 1);
  return member_str (job, "error");
}

/* Who was told that there is no room finds some as soon as the job is done; the drum's size has grown by what can be used. */
Test (add, room_at_once)
{
  start ("a,size=512K");
  write_pages (0, 125); /* of 126 slots one is kept back */
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 125), ENOSPC);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("b"), MIB);
  write_pages (125, 375); /* 380 slots, 5 kept back */
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 375), ENOSPC);
  for (unsigned page = 0; page < 375; page++)
    client_expect_page (nbd, 1, 1, page);
  expect_uint (control_status (control), "drum.size", 380 * PAGE_BYTES);
  expect_uint (control_status (control), "drum.avail", 5 * PAGE_BYTES);
  expect_uint (control_status (control), "drum.kept", 5 * PAGE_BYTES);
  stop ();
}

/* A device of the same priority has every other stripe from now on. */
Test (add, takes_its_turn)
{
  start ("a,size=1M");
  write_pages (0, STRIPE);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("b"), MIB);
  write_pages (STRIPE, 5 * STRIPE);
  expect_uint (control_device (control, dev_path ("a")), "used", 3 * STRIPE * PAGE_BYTES);
  expect_uint (control_device (control, dev_path ("b")), "used", 2 * STRIPE * PAGE_BYTES);
  stop ();
}

/* One of a higher priority has all that is written from now on, and is listed first. */
Test (add, priority)
{
  json *devices;

  start ("a,size=1M");
  write_pages (0, STRIPE);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u, 'prio': 7",
               dev_path ("b"), MIB);
  write_pages (STRIPE, 5 * STRIPE);
  expect_uint (control_device (control, dev_path ("a")), "used", STRIPE * PAGE_BYTES);
  expect_uint (control_device (control, dev_path ("b")), "used", 4 * STRIPE * PAGE_BYTES);
  devices = member (control_status (control), "devices");
  expect_str (json_object_array_get_idx (devices, 0), "name", dev_path ("b"));
  expect_uint (json_object_array_get_idx (devices, 0), "prio", 7);
  stop ();
}

/* A file is made as at start, and its label makes it one of this drum. */
Test (add, created_and_labelled)
{
  unsigned char *a, *b;
  json *device;

  start ("a,size=1M");
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': 1000000", dev_path ("b"));
  cr_assert_eq (file_stat (dev_path ("b")).st_mode, S_IFREG | 0600);
  cr_assert_eq (file_stat (dev_path ("b")).st_size, 1000000);
  cr_assert_geq (file_stat (dev_path ("b")).st_blocks * 512, 1000000);
  a = file_contents (dev_path ("a"), NULL);
  b = file_contents (dev_path ("b"), NULL);
  cr_assert_eq (memcmp (b, "DRUMSWAP", 8), 0);
  cr_assert_eq (memcmp (a + DRUM_UUID_AT, b + DRUM_UUID_AT, 16), 0, "another drum");
  cr_assert_neq (memcmp (a + DEVICE_UUID_AT, b + DEVICE_UUID_AT, 16), 0, "the same device");
  device = control_device (control, dev_path ("b"));
  expect_str (device, "state", "open");
  expect_str (device, "type", "file");
  expect_uint (device, "size", 1000000 / PAGE_BYTES * PAGE_BYTES);
  expect_uint (device, "avail", (1000000 / PAGE_BYTES - 2) * PAGE_BYTES);
  stop ();
  /* And so it is taken again without force. */
  start ("b");
  stop ();
}

/* What is refused at start is refused now, in the job's words; nothing is changed, and nothing left. */
Test (add, same_checks_as_at_start)
{
  const char *error;

  dev_allocated ("text", MIB);
  file_write (dev_path ("text"), 5000, "x", 1);
  dev_allocated ("empty", MIB);
  dev_allocated ("tiny", 2 * PAGE_BYTES);
  start ("a,size=1M");
  error = refused (str ("'device': '%s'", dev_path ("text")));
  cr_assert (strstr (error, "text: ") && strstr (error, "not empty"), "%s", error);
  error = refused (str ("'device': '%s', 'size': %u", dev_path ("empty"), 2 * MIB));
  cr_assert (strstr (error, "empty: ") && strstr (error, "size="), "%s", error);
  error = refused (str ("'device': '%s'", dev_path ("tiny")));
  cr_assert (strstr (error, "tiny: ") && strstr (error, "12288"), "%s", error);
  error = refused (str ("'device': '%s'", dev_path ("none")));
  cr_assert (strstr (error, "none: "), "%s", error);
  error = refused (str ("'device': '%s', 'size': 4096", dev_path ("none")));
  cr_assert (strstr (error, "none: ") && strstr (error, "12288"), "%s", error);
  error = refused (str ("'device': '%s', 'size': %" PRIu64, dev_path ("none"), UINT64_C (1) << 43));
  cr_assert (strstr (error, "none: "), "%s", error);
  error = refused (str ("'device': '%s'", dev_path (".")));
  cr_assert (strstr (error, dev_path (".")), "%s", error);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'force': true", dev_path ("text"));
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("empty"),
               MIB);
  stop ();
}

/* What can be said at once is no job. */
Test (add, bad_arguments)
{
  start ("a,size=1M");
  control_error (control, "EINVAL", "'verb': 'add'");
  control_error (control, "EINVAL", "'verb': 'add', 'device': 'b', 'size': %u", MIB);
  control_error (control, "EINVAL", "'verb': 'add', 'device': ''");
  control_error (control, "EINVAL", "'verb': 'add', 'device': '/dev/none', 'prio': -2");
  control_error (control, "EINVAL", "'verb': 'add', 'device': '/dev/none', 'prio': 32768");
  control_error (control, "EINVAL", "'verb': 'add', 'device': '/dev/none', 'size': -1");
  control_error (control, "EINVAL", "'verb': 'add', 'device': '/dev/none', 'force': 1");
  control_error (control, "EINVAL", "'verb': 'add', 'device': '/dev/none', 'bogus': 1");
  cr_assert_eq (json_object_array_length (member (control_status (control), "jobs")), 0);
  stop ();
}

/* A file that others may read is taken, with a warning in the job. */
Test (add, warnings)
{
  char *b = dev_allocated ("b", MIB);
  json *warnings;

  cr_assert_eq (chmod (b, 0644), 0);
  start ("a,size=1M");
  warnings = member (control_run (control, "done", "'verb': 'add', 'device': '%s'", b), "warnings");
  cr_assert_eq (json_object_array_length (warnings), 1);
  cr_assert (strstr (json_object_to_json_string (warnings), "0644"), "%s",
             json_object_to_json_string (warnings));
  stop ();
}

/* The same file is refused by any of its names, and so is one that another server has. */
Test (add, twice)
{
  struct server other;
  const char *error;

  start ("a,size=1M");
  cr_assert_eq (symlink ("a", dev_path ("symlink")), 0);
  cr_assert_eq (link (dev_path ("a"), dev_path ("hardlink")), 0);
  error = control_error (control, "EBUSY", "'verb': 'add', 'device': '%s'", dev_path ("a"));
  cr_assert (strstr (error, dev_path ("a")), "%s", error);
  control_error (control, "EBUSY", "'verb': 'add', 'device': '%s'", dev_path ("symlink"));
  control_error (control, "EBUSY", "'verb': 'add', 'device': '%s'", dev_path ("hardlink"));
  server_start (&other, &(struct server_options){ .params = PARAMS (dev_path ("b,size=1M")) });
  error = refused (str ("'device': '%s', 'force': true", dev_path ("b")));
  cr_assert (strstr (error, "in use by process") && strstr (error, str ("%d", (int) other.pid)),
             "%s", error);
  server_stop (&other);
  control_run (control, "done", "'verb': 'add', 'device': '%s'", dev_path ("b"));
  stop ();
}

/* A device is what it was called when it came, and answers to all names of its file. */
Test (add, symbolic_links)
{
  start ("a,size=1M");
  dev_allocated ("b", MIB);
  cr_assert_eq (symlink ("b", dev_path ("link")), 0);
  control_run (control, "done", "'verb': 'add', 'device': '%s'", dev_path ("link"));
  expect_str (control_device (control, dev_path ("link")), "state", "open");
  control_expect_no_device (control, dev_path ("b"));
  control_ok (control, "'verb': 'priority', 'device': '%s', 'prio': 3", dev_path ("b"));
  expect_uint (control_device (control, dev_path ("link")), "prio", 3);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", dev_path ("b"));
  control_expect_no_device (control, dev_path ("link"));
  stop ();
}

/* The export may be larger than the drum; it stays as large as it was, whatever comes. */
Test (add, export_stays)
{
  start ("a,size=1M");
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("b"),
               32 * MIB);
  client_close (nbd);
  nbd = client_open (&srv);
  cr_assert_eq (nbd_get_size (nbd), 16 * MIB);
  write_pages (0, 4096);
  for (unsigned page = 0; page < 4096; page++)
    client_expect_page (nbd, 1, 1, page);
  stop ();
}
