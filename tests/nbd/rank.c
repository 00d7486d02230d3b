/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rank.c - priorities that change, and pages that rise to faster devices.
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

enum { MIB = 1 << 20, STRIPE = 16, SLOW = 20 * PAGE_BYTES };

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

TestSuite (rank, .init = setup, .fini = dev_teardown, .timeout = 300);

/* a is above b. */
static void
start (const char *size_a, const char *size_b)
{
  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("a,prio=5,size=%s", size_a),
                                                            dev_path ("b,prio=1,size=%s", size_b),
                                                            control_param ()) });
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

static void
expect_used (unsigned on_a, unsigned on_b)
{
  expect_uint (control_device (control, a), "used", on_a * PAGE_BYTES);
  expect_uint (control_device (control, b), "used", on_b * PAGE_BYTES);
}

static void
set_priority (const char *path, int prio)
{
  control_ok (control, "'verb': 'priority', 'device': '%s', 'prio': %d", path, prio);
}

/* What is written next is written by the new order; what is there stays. */
Test (rank, from_the_next_write_on)
{
  start ("1M", "1M");
  write_pages (0, 10);
  expect_used (10, 0);
  set_priority (b, 6);
  write_pages (10, 30);
  expect_used (10, 20);
  set_priority (b, -1);
  write_pages (30, 35);
  expect_used (15, 20);
  set_priority (b, 32767);
  write_pages (35, 36);
  expect_used (15, 21);
  expect_uint (control_device (control, b), "prio", 32767);
  expect_pages (0, 36);
  stop ();
}

/* Devices that become equals take turns; the classes in status are those. */
Test (rank, equals)
{
  json *classes;

  start ("1M", "1M");
  cr_assert_eq (json_object_array_length (member (control_status (control), "drum.classes")), 2);
  set_priority (b, 5);
  write_pages (0, 6 * STRIPE);
  expect_used (3 * STRIPE, 3 * STRIPE);
  classes = member (control_status (control), "drum.classes");
  cr_assert_eq (json_object_array_length (classes), 1);
  expect_uint (json_object_array_get_idx (classes, 0), "devices", 2);
  expect_uint (json_object_array_get_idx (classes, 0), "prio", 5);
  expect_uint (json_object_array_get_idx (classes, 0), "size", 508 * PAGE_BYTES);
  expect_uint (json_object_array_get_idx (classes, 0), "used", 6 * STRIPE * PAGE_BYTES);
  stop ();
}

Test (rank, bad_arguments)
{
  start ("1M", "1M");
  control_error (control, "EINVAL", "'verb': 'priority', 'device': '%s'", a);
  control_error (control, "EINVAL", "'verb': 'priority', 'device': '%s', 'prio': 32768", a);
  control_error (control, "EINVAL", "'verb': 'priority', 'device': '%s', 'prio': -2", a);
  control_error (control, "EINVAL", "'verb': 'priority', 'device': '%s', 'prio': 1.5", a);
  control_error (control, "ENOENT", "'verb': 'priority', 'device': '%s', 'prio': 1",
                 dev_path ("c"));
  control_error (control, "EINVAL", "'verb': 'rebalance', 'rate': 0");
  control_error (control, "EINVAL", "'verb': 'rebalance', 'device': '%s'", a);
  expect_uint (control_device (control, a), "prio", 5);
  stop ();
}

/* What is below rises, when there is room above. */
Test (rank, rebalance)
{
  json *job;

  start ("1M", "1M");
  set_priority (b, 6);
  write_pages (0, 100);
  set_priority (b, 1);
  write_pages (100, 150);
  expect_used (50, 100);
  job = control_run (control, "done", "'verb': 'rebalance'");
  expect_str (job, "kind", "rebalance");
  cr_assert (!json_object_object_get_ex (job, "device", NULL));
  expect_uint (job, "done", 100 * PAGE_BYTES);
  expect_uint (job, "total", 100 * PAGE_BYTES);
  expect_used (150, 0);
  expect_pages (0, 150);
  /* Nothing is left to be done; equals do not change places. */
  expect_uint (control_run (control, "done", "'verb': 'rebalance'"), "done", 0);
  set_priority (b, 5);
  expect_uint (control_run (control, "done", "'verb': 'rebalance'"), "done", 0);
  expect_used (150, 0);
  stop ();
}

/* No more rises than there is room for, and clients find theirs. */
Test (rank, rebalance_into_what_is_left)
{
  json *job;

  start ("512K", "2M");
  set_priority (a, 0);
  write_pages (0, 300);
  expect_used (0, 300);
  set_priority (a, 7);
  job = control_run (control, "done", "'verb': 'rebalance'");
  expect_used (126, 174);
  expect_uint (job, "done", 126 * PAGE_BYTES);
  expect_pages (0, 300);
  write_pages (300, 310);
  expect_used (126, 184);
  stop ();
}

/* From the third to the first and second, those in the middle first to the top. */
Test (rank, rebalance_three)
{
  const char *c = dev_path ("c");

  server_start (&srv, &(struct server_options){
                        .params = PARAMS (dev_path ("a,size=1M"), dev_path ("b,size=1M"),
                                          dev_path ("c,size=2M"), control_param ()) });
  control = control_open ();
  nbd = client_open (&srv);
  set_priority (c, 9);
  write_pages (0, 300);
  expect_uint (control_device (control, c), "used", 300 * PAGE_BYTES);
  set_priority (a, 12);
  set_priority (b, 11);
  control_run (control, "done", "'verb': 'rebalance'");
  expect_used (254, 46);
  expect_uint (control_device (control, c), "used", 0);
  expect_pages (0, 300);
  stop ();
}

/* One at a time; cancelled it leaves what it has moved where it is, and another can begin. */
Test (rank, rebalance_cancelled)
{
  uint64_t job, done;
  json *info;

  start ("1M", "1M");
  set_priority (b, 6);
  write_pages (0, 100);
  set_priority (b, 1);
  job = control_start (control, "'verb': 'rebalance', 'rate': %u", SLOW);
  control_wait_moving (control, job);
  control_error (control, "EBUSY", "'verb': 'rebalance'");
  expect_pages (0, 100);
  control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, job);
  info = control_wait (control, job, "cancelled");
  done = member_uint (info, "done");
  cr_assert (done > 0 && done < 100 * PAGE_BYTES, "%s", json_object_to_json_string (info));
  expect_used ((unsigned) (done / PAGE_BYTES), 100 - (unsigned) (done / PAGE_BYTES));
  control_run (control, "done", "'verb': 'rebalance'");
  expect_used (100, 0);
  expect_pages (0, 100);
  stop ();
}
