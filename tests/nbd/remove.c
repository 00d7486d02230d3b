/* SPDX-License-Identifier: BSD-3-Clause
 *
 * remove.c - devices that leave while clients are connected, and those that stay after all.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { KIB = 1 << 10, MIB = 1 << 20, SLOW = 20 * PAGE_BYTES };

static struct server srv;
static struct nbd_handle *nbd;
static int control;
static const char *a, *b;

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has devices");
  a = dev_path ("a");
  b = dev_path ("b");
}

TestSuite (remove, .init = setup, .fini = dev_teardown, .timeout = 300);

/* a is filled before b, under an export of 16 MiB. */
static void
start (const char *size_a, const char *size_b)
{
  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("a,prio=5,size=%s", size_a),
                                                            dev_path ("b,size=%s", size_b),
                                                            "size=16M", control_param ()) });
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

static void
write_pages (unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_write_page (nbd, 1, 1, page);
}

static void
expect_pages (unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_expect_page (nbd, 1, 1, page);
}

static double
seconds_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (double) ts.tv_sec + (double) ts.tv_nsec / 1e9;
}

/* The pages are elsewhere, what is free is less, and another server can have the file, or it can be deleted. */
Test (remove, lets_go)
{
  struct server other;
  json *job;

  start ("1M", "2M");
  write_pages (0, 250);
  expect_uint (control_device (control, a), "used", 250 * PAGE_BYTES);
  job = control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_uint (job, "done", 250 * PAGE_BYTES);
  expect_uint (job, "total", 250 * PAGE_BYTES);
  expect_uint (job, "unreadable", 0);
  expect_str (job, "kind", "remove");
  expect_str (job, "device", a);
  control_expect_no_device (control, a);
  expect_uint (control_device (control, b), "used", 250 * PAGE_BYTES);
  expect_uint (control_status (control), "drum.size", 510 * PAGE_BYTES);
  expect_uint (control_status (control), "drum.used", 250 * PAGE_BYTES);
  server_start (&other, &(struct server_options){ .params = PARAMS (a) });
  server_stop (&other);
  cr_assert_eq (unlink (a), 0);
  expect_pages (0, 250);
  control_error (control, "ENOENT", "'verb': 'remove', 'device': '%s'", a);
  stop ();
}

/* What would not fit is refused at once, with the numbers; all stays as it is. */
Test (remove, does_not_fit)
{
  const char *error;

  start ("1M", "512K");
  write_pages (0, 200);
  error = control_error (control, "ENOSPC", "'verb': 'remove', 'device': '%s'", a);
  /* 126 slots, less 1 that is kept back and 15 to spare. */
  cr_assert (strstr (error, a) && strstr (error, "holds 800K") && strstr (error, "room for 440K"),
             "%s", error);
  expect_str (control_device (control, a), "state", "open");
  cr_assert_eq (json_object_array_length (member (control_status (control), "jobs")), 0);
  client_trim (nbd, 90 * PAGE_BYTES, 0);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_pages (90, 200);
  stop ();
}

/* The last device can go only when nothing is on it; then there is no room at all, until one comes. */
Test (remove, the_last)
{
  start ("1M", "1M");
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", b);
  write_pages (0, 1);
  control_error (control, "ENOSPC", "'verb': 'remove', 'device': '%s'", a);
  client_trim (nbd, PAGE_BYTES, 0);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_uint (control_status (control), "drum.size", 0);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 0), ENOSPC);
  client_expect_page (nbd, 0, 0, 0);
  control_run (control, "done", "'verb': 'add', 'device': '%s'", b);
  write_pages (0, 10);
  expect_pages (0, 10);
  stop ();
}

/* Begin to move 100 pages off a, so slowly that it is under way when this returns. */
static uint64_t
begin_slowly (unsigned rate)
{
  uint64_t job;

  write_pages (0, 100);
  job = control_start (control, "'verb': 'remove', 'device': '%s', 'rate': %u", a, rate);
  expect_str (control_wait_moving (control, job), "state", "running");
  expect_str (control_device (control, a), "state", "closing");
  return job;
}

/* A client that needs the room has it: no write fails, and the removal is off. */
Test (remove, gives_up_for_clients)
{
  uint64_t job;
  json *info;

  start ("1M", "512K");
  job = begin_slowly (SLOW);
  write_pages (100, 370); /* of 380 slots 5 are kept back */
  info = control_wait (control, job, "failed");
  cr_assert (strstr (member_str (info, "error"), a) && strstr (member_str (info, "error"), "room"),
             "%s", member_str (info, "error"));
  expect_str (control_device (control, a), "state", "open");
  expect_pages (0, 370);
  write_pages (370, 375);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 375), ENOSPC);
  stop ();
}

/* A removal that was given up, but has not noticed yet, and another of the same device do not get into each other's way. */
Test (remove, again_while_the_first_gives_up)
{
  uint64_t first;

  start ("1M", "512K");
  first = begin_slowly (1); /* and so its next look is more than an hour away */
  write_pages (100, 370);
  expect_str (control_device (control, a), "state", "open");
  client_trim (nbd, 300 * PAGE_BYTES, 0);
  control_error (control, "EBUSY", "'verb': 'remove', 'device': '%s'", a);
  control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, first);
  control_wait (control, first, "cancelled");
  expect_str (control_device (control, a), "state", "open");
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_pages (300, 370);
  stop ();
}

/* A cancelled removal leaves the device open, and what was moved where it is. */
Test (remove, cancelled)
{
  uint64_t job, used;
  json *info;

  start ("1M", "1M");
  job = begin_slowly (SLOW);
  control_error (control, "EBUSY", "'verb': 'remove', 'device': '%s'", a);
  control_error (control, "EBUSY", "'verb': 'add', 'device': '%s'", a);
  control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, job);
  info = control_wait (control, job, "cancelled");
  used = member_uint (control_device (control, a), "used");
  expect_str (control_device (control, a), "state", "open");
  cr_assert (used > 0 && used < 100 * PAGE_BYTES, "%" PRIu64, used);
  expect_uint (info, "done", 100 * PAGE_BYTES - used);
  expect_pages (0, 100);
  write_pages (100, 110); /* it has the highest priority, again */
  expect_uint (control_device (control, a), "used", used + 10 * PAGE_BYTES);
  /* And once more, in full. */
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_pages (0, 110);
  stop ();
}

/* While it lasts nothing new comes to the device, and all can be read, rewritten and trimmed. */
Test (remove, under_way)
{
  uint64_t job;

  start ("1M", "1M");
  job = begin_slowly (SLOW);
  for (unsigned page = 90; page < 100; page++) /* still on a, and now on b */
    client_write_page (nbd, 1, 2, page);
  client_trim (nbd, 10 * PAGE_BYTES, 80 * PAGE_BYTES);
  cr_assert_leq (member_uint (control_device (control, a), "used"), 79 * PAGE_BYTES);
  expect_pages (0, 80);
  for (unsigned page = 80; page < 100; page++)
    client_expect_page (nbd, page < 90 ? 0 : 1, page < 90 ? 0 : 2, page);
  expect_str (control_job (control, job), "state", "running");
  control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, job);
  control_wait (control, job, "cancelled");
  stop ();
}

/* The rate is a limit: so much, but for one piece, takes so long at least. Reads see nothing of it. */
Test (remove, rate)
{
  enum { RATE = 2 * MIB, NPAGES = 200 };
  uint64_t job;
  json *info;

  start ("1M", "1M");
  write_pages (0, NPAGES);
  job = control_start (control, "'verb': 'remove', 'device': '%s', 'rate': %u", a, RATE);
  do
    expect_pages (0, NPAGES);
  while (strcmp (member_str (control_job (control, job), "state"), "running") == 0);
  info = control_wait (control, job, "done");
  expect_uint (info, "rate", RATE);
  expect_uint (info, "done", NPAGES * PAGE_BYTES);
  cr_assert_geq (json_object_get_double (member (info, "seconds")),
                 0.99 * (NPAGES * PAGE_BYTES - RATE / 250) / RATE);
  stop ();
}

/* A removal that would take hours holds up nobody who stops the server, and neither does who waits for it. */
Test (remove, stopped_under_way)
{
  uint64_t job;
  double began;

  start ("1M", "1M");
  job = begin_slowly (1);
  control_send (control, "'verb': 'wait', 'job': %" PRIu64 ", 'seconds': 3600", job);
  client_close (nbd); /* for this nbdkit does wait */
  began = seconds_now ();
  server_stop (&srv);
  cr_assert_lt (seconds_now () - began, 30);
  cr_assert_eq (access (control_path (), F_OK), -1);
}

/* Three devices leave and one comes, all at once; a job is known by its number. */
Test (remove, several_at_once)
{
  enum { NPAGES = 900 };
  uint64_t job[4];

  server_start (
    &srv, &(struct server_options){
            .params = PARAMS (dev_path ("a,size=1M"), dev_path ("b,size=1M"),
                              dev_path ("c,size=2M"), dev_path ("d,size=8M"), control_param ()) });
  control = control_open ();
  nbd = client_open (&srv);
  write_pages (0, NPAGES);
  for (unsigned i = 0; i < 3; i++)
    job[i] = control_start (control, "'verb': 'remove', 'device': '%s', 'rate': %u",
                            dev_path ("%c", 'a' + i), 2 * MIB);
  job[3] =
    control_start (control, "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("e"), MIB);
  for (unsigned i = 0; i < 4; i++) {
    cr_assert_eq (job[i], i + 1);
    expect_str (control_wait (control, job[i], "done"), "device",
                dev_path ("%s", i < 3 ? str ("%c", 'a' + i) : "e"));
  }
  expect_pages (0, NPAGES);
  cr_assert_eq (json_object_array_length (member (control_status (control), "devices")), 2);
  cr_assert_eq (json_object_array_length (member (control_status (control), "jobs")), 4);
  expect_uint (control_status (control), "drum.used", NPAGES * PAGE_BYTES);
  stop ();
}

/* Names that are no device's, and numbers that are no job's. */
Test (remove, unknown)
{
  const char *error;

  start ("1M", "1M");
  error = control_error (control, "ENOENT", "'verb': 'remove', 'device': '%s'", dev_path ("c"));
  cr_assert (strstr (error, dev_path ("c")), "%s", error);
  control_error (control, "EINVAL", "'verb': 'remove', 'device': 'a'");
  control_error (control, "EINVAL", "'verb': 'remove', 'device': '%s', 'rate': 0", a);
  control_error (control, "EINVAL", "'verb': 'remove', 'device': '%s', 'rate': '1M'", a);
  control_error (control, "ENOENT", "'verb': 'cancel', 'job': 1");
  control_error (control, "ENOENT", "'verb': 'wait', 'job': 1");
  control_error (control, "EINVAL", "'verb': 'cancel'");
  expect_str (control_device (control, a), "state", "open");
  stop ();
}
