/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sync.c - flush, FUA and sync=yes: what is said to be durable was synced; and where that has failed nothing is said to be durable any
 * more, until the device in question has left.
 */
#include <config.h>

#include <errno.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <linux/magic.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"

#include "livedrum.h"

static struct faults *faults;

TestSuite (sync, .init = livedrum_setup, .fini = livedrum_teardown, .timeout = 300);

static void
start (const char *more)
{
  char *path = run_path ("faults");
  struct statfs fs;

  cr_assert_eq (statfs (run_path (""), &fs), 0, "%m");
  if (fs.f_type == TMPFS_MAGIC)
    cr_skip_test ("temporary files are in memory, and never synced: set TMPDIR");
  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  livedrum_start_as (&(struct server_options){
    .threads = 4,
    .params = PARAMS (dev_path ("a,size=4M,prio=5"), dev_path ("b,size=4M"), "size=4M",
                      str ("state=%s", run_path ("state")), more),
    .faults = path });
}

static struct faults_rule *
add_rule (const char *path, enum faults_action action)
{
  struct faults_rule *rule = faults_add (
    faults, path, &(struct faults_plan){ .calls = FAULTS_SYNC, .action = action, .error = EIO });

  cr_assert_not_null (rule);
  return rule;
}

/* Counts the syncs of a file. */
static struct faults_rule *
watch (const char *path)
{
  return add_rule (path, FAULTS_DELAY);
}

/* How many there were since the last time. */
static uint64_t
count (struct faults_rule *rule)
{
  return atomic_exchange (&rule->ncalls, 0);
}

static void
expect_error (int result, const char *what)
{
  cr_assert_eq (result, -1, "%s does not fail", what);
  cr_assert_eq (nbd_get_errno (), EIO, "%s: %s", what, nbd_get_error ());
}

static int
write_fua (unsigned page)
{
  static char data[PAGE_BYTES] = "x";

  return nbd_pwrite (nbd, data, sizeof data, (uint64_t) page * PAGE_BYTES, LIBNBD_CMD_FLAG_FUA);
}

/* What was written is synced once, and what was not is not. */
Test (sync, what_is_dirty)
{
  struct faults_rule *on_a, *on_b, *on_map;

  start (NULL);
  on_a = watch (a);
  on_b = watch (b);
  on_map = watch ("/map-1");
  write_pages (0, 10);
  cr_assert_eq (count (on_a) + count (on_b) + count (on_map), 0);
  for (unsigned i = 0; i < 2; i++) {
    cr_assert_eq (nbd_flush (nbd, 0), 0, "%s", nbd_get_error ());
    cr_assert_eq (count (on_a), i == 0);
    cr_assert_eq (count (on_map), i == 0);
  }
  cr_assert_eq (write_fua (3), 0, "%s", nbd_get_error ());
  cr_assert_eq (count (on_a), 1);
  cr_assert_eq (count (on_map), 1);
  cr_assert_eq (nbd_trim (nbd, PAGE_BYTES, 0, LIBNBD_CMD_FLAG_FUA), 0, "%s", nbd_get_error ());
  cr_assert_eq (nbd_zero (nbd, PAGE_BYTES, PAGE_BYTES, LIBNBD_CMD_FLAG_FUA), 0, "%s",
                nbd_get_error ());
  cr_assert_eq (count (on_a), 0, "no data came");
  cr_assert_eq (count (on_map), 2);
  cr_assert_eq (count (on_b), 0, "nothing was written there");
}

/* With sync=yes each write is. */
Test (sync, every_write)
{
  struct faults_rule *on_a, *on_map;

  start ("sync=yes");
  on_a = watch (a);
  on_map = watch ("/map-1");
  for (unsigned page = 0; page < 5; page++) {
    write_pages (page, page + 1);
    cr_assert_eq (count (on_a), 1);
    cr_assert_eq (count (on_map), 1);
  }
  add_rule (a, FAULTS_FAIL);
  cr_assert_eq (client_try_write_page (nbd, 1, 2, 7), EIO);
  client_expect_page (nbd, 1, 1, 4);
}

/* A device that did not sync once is not trusted again as long as it is there. */
Test (sync, device_that_failed_once)
{
  struct faults_rule *rule;

  start (NULL);
  write_pages (0, 10);
  rule = add_rule (a, FAULTS_FAIL);
  expect_error (nbd_flush (nbd, 0), "flush");
  expect_error (write_fua (0), "FUA");
  faults_remove (rule);
  for (unsigned i = 0; i < 3; i++) {
    expect_error (nbd_flush (nbd, 0), "flush");
    expect_error (write_fua (0), "FUA");
  }
  server_wait_stderr (&srv, str ("%s: has failed; all of its pages have been moved off", a));
  control_wait (control, 1, "done");
  expect_error (nbd_flush (nbd, 0), "flush");
  expect_pages (1, 10);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  cr_assert_eq (nbd_flush (nbd, 0), 0, "%s", nbd_get_error ());
  cr_assert_eq (write_fua (0), 0, "%s", nbd_get_error ());
  write_pages (10, 20);
  expect_pages (1, 20);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'prio': 5", a);
  write_pages (20, 30);
  cr_assert_eq (nbd_flush (nbd, 0), 0, "%s", nbd_get_error ());
  expect_uint (control_device (control, a), "used", 10 * PAGE_BYTES);
}

/* A map that did not is never trusted again by this server, but what was acknowledged is there after it was killed. */
Test (sync, map_that_failed_once)
{
  struct faults_rule *rule;

  start (NULL);
  write_pages (0, 10);
  rule = add_rule ("/map-1", FAULTS_FAIL);
  expect_error (nbd_flush (nbd, 0), "flush");
  faults_remove (rule);
  expect_error (nbd_flush (nbd, 0), "flush");
  write_pages (10, 20);
  expect_pages (0, 20);
  livedrum_kill ();
  start (NULL);
  expect_pages (0, 20);
  cr_assert_eq (nbd_flush (nbd, 0), 0, "%s", nbd_get_error ());
}
