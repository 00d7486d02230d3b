/* SPDX-License-Identifier: BSD-3-Clause
 *
 * unreadable.c - a device that is to leave, with pages on it that can't be read: their bytes in the file were changed.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"
#include "tests/stamp.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { MIB = 1 << 20, NPAGES = 100 };

static const unsigned damaged[] = { 17, 42, 43 };

static struct server srv;
static struct nbd_handle *nbd;
static int control;
static const char *a, *b;

static bool
is_damaged (unsigned page)
{
  return page == damaged[0] || page == damaged[1] || page == damaged[2];
}

/* Change one byte of each damaged page, where it lies in the file. */
static void
damage (const char *path)
{
  size_t len;
  const unsigned char *data = file_contents (path, &len);
  unsigned n = 0;

  for (size_t at = 0; at + PAGE_BYTES <= len; at += PAGE_BYTES) {
    struct stamp stamp;

    if (!stamp_read (data + at, &stamp) || stamp.writer != 1 || !is_damaged ((unsigned) stamp.page))
      continue;
    file_write (path, at + 1000, "!", 1);
    n++;
  }
  cr_assert_eq (n, 3);
}

/* 100 pages on a, three of them damaged; b has room for all. A removal without force has failed. */
static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has devices");
  a = dev_path ("a");
  b = dev_path ("b");
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M,prio=5"),
                                                                  dev_path ("b,size=1M"), "size=4M",
                                                                  control_param ()) });
  control = control_open ();
  nbd = client_open (&srv);
  for (unsigned page = 0; page < NPAGES; page++)
    client_write_page (nbd, 1, 1, page);
  damage (a);
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

TestSuite (unreadable, .init = setup, .fini = teardown, .timeout = 300);

static int
try_read (unsigned page)
{
  char buf[PAGE_BYTES];

  return nbd_pread (nbd, buf, sizeof buf, page * PAGE_BYTES, 0) == 0 ? 0 : nbd_get_errno ();
}

static void
expect_right_but_damaged (void)
{
  for (unsigned page = 0; page < NPAGES; page++)
    if (is_damaged (page))
      cr_assert_eq (try_read (page), EIO, "page %u", page);
    else
      client_expect_page (nbd, 1, 1, page);
}

static void
expect_listed (json *job)
{
  json *pages = member (job, "unreadable_pages");

  expect_uint (job, "unreadable", 3);
  cr_assert_eq (json_object_array_length (pages), 3);
  for (unsigned i = 0; i < 3; i++) {
    expect_str (json_object_array_get_idx (pages, i), "export", "");
    expect_uint (json_object_array_get_idx (pages, i), "page", damaged[i]);
  }
}

static json *
fail_to_remove (void)
{
  return control_run (control, "failed", "'verb': 'remove', 'device': '%s'", a);
}

/* The job names the pages and the way out; all others are moved, and the device stays, closed. */
Test (unreadable, stays_closed)
{
  json *job = fail_to_remove ();
  const char *error = member_str (job, "error");

  expect_listed (job);
  expect_uint (job, "lost", 0);
  expect_uint (job, "done", (NPAGES - 3) * PAGE_BYTES);
  cr_assert (strstr (error, a) && strstr (error, "3 pages") && strstr (error, "force"), "%s",
             error);
  expect_str (control_device (control, a), "state", "closed");
  expect_uint (control_device (control, a), "used", 3 * PAGE_BYTES);
  expect_uint (control_device (control, b), "used", (NPAGES - 3) * PAGE_BYTES);
  expect_right_but_damaged ();
  /* Nothing new is put there, though its priority is higher; and it does not count as room. */
  for (unsigned page = NPAGES; page < NPAGES + 10; page++)
    client_write_page (nbd, 1, 1, page);
  expect_uint (control_device (control, a), "used", 3 * PAGE_BYTES);
  expect_uint (control_status (control), "drum.size", 254 * PAGE_BYTES);
  /* Again is the same again. */
  expect_listed (fail_to_remove ());
  expect_str (control_device (control, a), "state", "closed");
}

/* With force it goes; the pages fail to be read until they are written as a whole, or trimmed, and are never zeroes before. */
Test (unreadable, force)
{
  json *job = control_run (control, "done", "'verb': 'remove', 'device': '%s', 'force': true", a);

  expect_listed (job);
  expect_uint (job, "lost", 3);
  control_expect_no_device (control, a);
  cr_assert_eq (unlink (a), 0);
  expect_right_but_damaged ();
  expect_right_but_damaged ();
  /* A part of it needs the rest. */
  cr_assert_eq (nbd_pwrite (nbd, "x", 1, damaged[0] * PAGE_BYTES, 0), -1);
  cr_assert_eq (nbd_get_errno (), EIO);
  cr_assert_eq (try_read (damaged[0]), EIO);
  client_write_page (nbd, 2, 2, damaged[0]);
  client_trim (nbd, PAGE_BYTES, damaged[1] * PAGE_BYTES);
  client_expect_page (nbd, 2, 2, damaged[0]);
  client_expect_page (nbd, 0, 0, damaged[1]);
  cr_assert_eq (try_read (damaged[2]), EIO);
  client_zero (nbd, PAGE_BYTES, damaged[2] * PAGE_BYTES, 0);
  client_expect_page (nbd, 0, 0, damaged[2]);
  expect_uint (control_export (control), "used", (NPAGES - 2) * PAGE_BYTES);
  expect_uint (control_status (control), "drum.used", (NPAGES - 2) * PAGE_BYTES);
}

/* First without, then with force. */
Test (unreadable, force_after_all)
{
  json *job;

  fail_to_remove ();
  job = control_run (control, "done", "'verb': 'remove', 'device': '%s', 'force': true", a);
  expect_listed (job);
  expect_uint (job, "lost", 3);
  control_expect_no_device (control, a);
  expect_right_but_damaged ();
}

/* To add it is to open it again, at once and as it was: its pages stay, and new ones come. */
Test (unreadable, add_opens_it)
{
  fail_to_remove ();
  control_run (control, "done", "'verb': 'add', 'device': '%s'", a);
  expect_str (control_device (control, a), "state", "open");
  expect_uint (control_device (control, a), "used", 3 * PAGE_BYTES);
  expect_uint (control_status (control), "drum.size", 508 * PAGE_BYTES);
  for (unsigned page = NPAGES; page < NPAGES + 10; page++)
    client_write_page (nbd, 1, 1, page);
  expect_uint (control_device (control, a), "used", 13 * PAGE_BYTES);
  control_error (control, "EBUSY", "'verb': 'add', 'device': '%s'", a);
  expect_right_but_damaged ();
}

/* Who rewrites or frees the pages saves the device: then it goes without force. */
Test (unreadable, rewritten)
{
  fail_to_remove ();
  client_write_page (nbd, 2, 2, damaged[0]);
  client_trim (nbd, 2 * PAGE_BYTES, damaged[1] * PAGE_BYTES);
  expect_uint (control_device (control, a), "used", 0);
  expect_uint (control_run (control, "done", "'verb': 'remove', 'device': '%s'", a), "lost", 0);
  control_expect_no_device (control, a);
  client_expect_page (nbd, 2, 2, damaged[0]);
}

/* Clients that need its room do not get it: closed is not closing. */
Test (unreadable, is_no_room)
{
  unsigned page;

  fail_to_remove ();
  for (page = NPAGES; page < 254 - 3 + 3;
       page++) /* b's slots, less 3 kept back; 3 pages are on a */
    client_write_page (nbd, 1, 1, page);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, page), ENOSPC);
  expect_str (control_device (control, a), "state", "closed");
}
