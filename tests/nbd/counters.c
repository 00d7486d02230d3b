/* SPDX-License-Identifier: BSD-3-Clause
 *
 * counters.c - what status counts, after I/O that is known.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"
#include "tests/stamp.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { MIB = 1 << 20, MAX_CLIENTS = 5 };

static struct server srv;
static struct nbd_handle *nbd;
static int control;
static const char *a;

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum counts");
  a = dev_path ("a");
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M,prio=5"),
                                                                  "size=4M", control_param ()) });
  control = control_open ();
  nbd = client_open (&srv);
}

static void
teardown (void)
{
  if (srv.pid) {
    client_close (nbd);
    close (control);
    server_stop (&srv);
  }
  dev_teardown ();
}

TestSuite (counters, .init = setup, .fini = teardown, .timeout = 300);

static void
write_stamped (unsigned first, unsigned n)
{
  char *buf = malloc (n * PAGE_BYTES);

  for (unsigned i = 0; i < n; i++)
    stamp_fill (buf + i * PAGE_BYTES, (struct stamp){ 1, 1, first + i });
  client_write (nbd, buf, n * PAGE_BYTES, first * PAGE_BYTES);
  free (buf);
}

/* One kind of I/O; its histogram counts each request once, and its seconds lie within the histogram's. */
static void
expect_counters (json *of, const char *kind, uint64_t requests, uint64_t bytes, uint64_t errors)
{
  json *counters = member (of, kind), *histogram = member (counters, "histogram");
  json *buckets = member (control_status (control), "buckets");
  double seconds = json_object_get_double (member (counters, "seconds")), least = 0, most = 0;
  size_t n = json_object_array_length (histogram);
  uint64_t sum = 0;

  expect_uint (counters, "requests", requests);
  expect_uint (counters, "bytes", bytes);
  expect_uint (counters, "errors", errors);
  expect_uint (counters, "in_flight", 0);
  cr_assert_eq (n, json_object_array_length (buckets) + 1);
  for (size_t k = 0; k < n; k++) {
    uint64_t count = json_object_get_uint64 (json_object_array_get_idx (histogram, k));
    json *above = json_object_array_get_idx (buckets, k);

    sum += count;
    if (k > 0)
      least += (double) count * json_object_get_double (json_object_array_get_idx (buckets, k - 1));
    most += (double) count * (above ? json_object_get_double (above) : 1e9);
  }
  cr_assert_eq (sum, requests, "%s: %s", kind, json_object_to_json_string (counters));
  cr_assert (seconds >= 0.999 * least && seconds <= 1.001 * most, "%s: %s", kind,
             json_object_to_json_string (counters));
}

/* Requests and bytes of each kind. What reads of holes and trims cost is nothing on the device. */
Test (counters, requests_and_bytes)
{
  char *buf = calloc (64, PAGE_BYTES);
  json *export, *device;

  export = control_export (control);
  for (unsigned i = 0; i < 4; i++)
    expect_counters (export, ((const char *[]){ "read", "write", "trim", "zero" })[i], 0, 0, 0);
  for (unsigned page = 0; page < 10; page++)
    write_stamped (page, 1);
  write_stamped (10, 64);
  client_write (nbd, buf, 5 * PAGE_BYTES, 100 * PAGE_BYTES); /* zeroes */
  client_write (nbd, "part", 4, 5 * PAGE_BYTES + 7);         /* read, changed, written */
  client_read (nbd, buf, 3 * PAGE_BYTES, 20 * PAGE_BYTES);
  client_read (nbd, buf, 100, 7);
  client_read (nbd, buf, 64 * PAGE_BYTES, 200 * PAGE_BYTES); /* holes */
  client_trim (nbd, 2 * PAGE_BYTES, 30 * PAGE_BYTES);
  client_trim (nbd, 2 * PAGE_BYTES, 300 * PAGE_BYTES);
  client_trim (nbd, 10, 0);
  client_zero (nbd, PAGE_BYTES, 40 * PAGE_BYTES, 0);
  cr_assert_eq (nbd_flush (nbd, 0), 0);

  export = control_export (control);
  expect_counters (export, "write", 13, 79 * PAGE_BYTES + 4, 0);
  expect_counters (export, "read", 3, 67 * PAGE_BYTES + 100, 0);
  expect_counters (export, "trim", 3, 4 * PAGE_BYTES + 10, 0);
  expect_counters (export, "zero", 1, PAGE_BYTES, 0);
  expect_uint (export, "zero_pages", 5);
  expect_uint (export, "used", 71 * PAGE_BYTES);
  expect_uint (export, "size", 4 * MIB);
  expect_str (export, "name", "");
  device = control_device (control, a);
  expect_counters (device, "write", 12, 75 * PAGE_BYTES, 0);
  expect_counters (device, "read", 3, 5 * PAGE_BYTES, 0);
  expect_uint (device, "used", 71 * PAGE_BYTES);
  expect_uint (device, "size", MIB);
  expect_uint (device, "bad", 0);
  expect_uint (device, "prio", 5);
}

/* What fails counts as a request and an error, and its bytes do not. */
Test (counters, errors)
{
  char buf[PAGE_BYTES];
  unsigned nfailed = 0;
  size_t len;
  unsigned char *data;

  write_stamped (0, 251); /* all but the 3 kept back */
  for (unsigned page = 300; page < 304; page++)
    nfailed += client_try_write_page (nbd, 1, 1, page) == ENOSPC;
  cr_assert_eq (nfailed, 4);
  data = file_contents (a, &len);
  for (size_t at = 2 * PAGE_BYTES; at < len; at += PAGE_BYTES)
    if (data[at])
      file_write (a, at + 1, "!", 1);
  for (unsigned page = 0; page < 7; page++)
    nfailed += nbd_pread (nbd, buf, sizeof buf, page * PAGE_BYTES, 0) == -1;
  cr_assert_eq (nfailed, 11);
  expect_counters (control_export (control), "write", 5, 251 * PAGE_BYTES, 4);
  expect_counters (control_export (control), "read", 7, 0, 7);
  /* The device did what it was asked for. */
  expect_counters (control_device (control, a), "read", 7, 7 * PAGE_BYTES, 0);
}

/* nbdkit notices a while later that a client has gone, and there is no event for it. */
static void
wait_for_clients (unsigned n)
{
  while (member_uint (control_export (control), "clients") > n)
    ;
  expect_uint (control_export (control), "clients", n);
}

Test (counters, clients)
{
  struct nbd_handle *more[MAX_CLIENTS];

  expect_uint (control_export (control), "clients", 1);
  for (unsigned i = 0; i < MAX_CLIENTS; i++) {
    more[i] = client_open (&srv);
    expect_uint (control_export (control), "clients", i + 2);
  }
  for (unsigned i = 0; i < MAX_CLIENTS; i++) {
    client_close (more[i]);
    wait_for_clients (MAX_CLIENTS - i);
  }
}

/* A device that comes begins at 0, and takes its numbers with it when it goes; an export's stay. */
Test (counters, of_devices_that_come_and_go)
{
  const char *b = dev_path ("b");

  write_stamped (0, 10);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u, 'prio': 7", b, MIB);
  expect_counters (control_device (control, b), "write", 0, 0, 0);
  write_stamped (10, 10);
  expect_counters (control_device (control, a), "write", 1, 10 * PAGE_BYTES, 0);
  expect_counters (control_device (control, b), "write", 1, 10 * PAGE_BYTES, 0);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  expect_counters (control_export (control), "write", 2, 20 * PAGE_BYTES, 0);
  expect_counters (control_export (control), "read", 0, 0, 0);
  expect_uint (control_device (control, b), "write.bytes", 20 * PAGE_BYTES);
  control_run (control, "done", "'verb': 'add', 'device': '%s'", a);
  expect_counters (control_device (control, a), "write", 0, 0, 0);
}

/* The server, free space and the map. */
Test (counters, the_rest)
{
  json *status, *runs, *used;
  unsigned nused = 0;

  status = control_status (control);
  expect_uint (status, "server.pid", (uint64_t) srv.pid);
  expect_str (status, "server.version", PACKAGE_VERSION);
  cr_assert_geq (json_object_get_double (member (status, "server.uptime")), 0);
  expect_uint (status, "drum.stripe", 65536);
  write_stamped (0, 12);
  client_trim (nbd, PAGE_BYTES, 3 * PAGE_BYTES);
  client_trim (nbd, 2 * PAGE_BYTES, 7 * PAGE_BYTES);
  status = control_ok (control, "'verb': 'status', 'fragmentation': true");
  expect_uint (status, "drum.fragmentation.largest", (254 - 12) * PAGE_BYTES);
  runs = member (status, "drum.fragmentation.runs");
  for (size_t k = 0; k < json_object_array_length (runs); k++)
    cr_assert_eq (json_object_get_uint64 (json_object_array_get_idx (runs, k)),
                  k == 0 || k == 1 || k == 7, "%s", json_object_to_json_string (runs));
  used = member (json_object_array_get_idx (
                   member (control_ok (control, "'verb': 'map', 'cells': 16"), "devices"), 0),
                 "used");
  cr_assert_eq (json_object_array_length (used), 16);
  for (unsigned i = 0; i < 16; i++)
    nused += json_object_get_uint64 (json_object_array_get_idx (used, i));
  cr_assert_eq (nused, 2 + 9);
}
