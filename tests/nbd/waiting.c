/* SPDX-License-Identifier: BSD-3-Clause
 *
 * waiting.c - I/O that does not come back: the server says so, once, and how it ended. libfaults.so holds it.
 */
#include <config.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { MIB = 1 << 20 };

static struct server srv;
static struct nbd_handle *nbd;
static struct faults *faults;
static int control;
static const char *a;

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum waits for devices");
}

/* An I/O counts as stuck after so long. */
static void
start (unsigned ms)
{
  char *path;

  path = run_path ("faults");
  a = dev_path ("a");
  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  server_start (
    &srv, &(struct server_options){ .threads = 4,
                                    .options = PARAMS ("-D", str ("drum.waitms=%u", ms)),
                                    .params = PARAMS (dev_path ("a,size=1M,prio=5"),
                                                      dev_path ("b,size=1M"), control_param ()),
                                    .faults = path });
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

TestSuite (waiting, .init = setup, .fini = teardown, .timeout = 300);

static unsigned
count (const char *words)
{
  unsigned n = 0;

  for (const char *at = server_stderr (&srv); (at = strstr (at, words)); at++)
    n++;
  return n;
}

static struct faults_rule *
add_rule (const struct faults_plan *plan)
{
  struct faults_rule *rule = faults_add (faults, a, plan);

  cr_assert_not_null (rule);
  return rule;
}

/* It is over: the request is answered. 0 or an errno. */
static int
answer (int64_t cookie)
{
  int done;

  cr_assert_neq (cookie, -1, "%s", nbd_get_error ());
  while ((done = nbd_aio_command_completed (nbd, cookie)) == 0)
    cr_assert_neq (nbd_poll (nbd, -1), -1, "%s", nbd_get_error ());
  return done == 1 ? 0 : nbd_get_errno ();
}

static void
expect_waiting (const char *kind, unsigned reads, unsigned writes)
{
  server_wait_stderr (&srv, str ("still waiting for a %s of ", kind));
  expect_uint (control_device (control, a), "read.in_flight", reads);
  expect_uint (control_device (control, a), "write.in_flight", writes);
}

/* A write that is held is said once, with what and where; meanwhile others are answered, and the control socket too. */
Test (waiting, write)
{
  static char buf[2 * PAGE_BYTES];
  struct faults_rule *rule;
  int64_t cookie;

  start (100);
  rule = add_rule (&(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD });
  memset (buf, 'x', sizeof buf);
  cookie = nbd_aio_pwrite (nbd, buf, sizeof buf, 0, NBD_NULL_COMPLETION, 0);
  expect_waiting ("write", 0, 1);
  cr_assert (strstr (server_stderr (&srv),
                     str ("still waiting for a write of 8K at offset 8192 of %s: ", a)),
             "%s", server_stderr (&srv));
  client_expect_page (nbd, 0, 0, 50);
  cr_assert_eq (count ("in the end"), 0);
  faults_remove (rule);
  cr_assert_eq (answer (cookie), 0);
  server_wait_stderr (&srv, str ("a write of 8K at offset 8192 of %s took ", a));
  server_wait_stderr (&srv, " s in the end\n");
  cr_assert_eq (count ("still waiting"), 1, "%s", server_stderr (&srv));
  cr_assert_eq (count ("in the end"), 1, "%s", server_stderr (&srv));
  expect_uint (control_device (control, a), "write.in_flight", 0);
  expect_uint (control_device (control, a), "write.errors", 0);
}

/* So is a read, though many looks have seen it. Others of its kind are said each by itself. */
Test (waiting, reads)
{
  struct faults_rule *rule;
  char buf[2][PAGE_BYTES];
  int64_t cookie[2];

  start (100);
  client_write_page (nbd, 1, 1, 0);
  client_write_page (nbd, 1, 1, 1);
  rule = add_rule (&(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_HOLD });
  cookie[0] = nbd_aio_pread (nbd, buf[0], PAGE_BYTES, 0, NBD_NULL_COMPLETION, 0);
  server_wait_stderr (&srv, "still waiting for a read of 4K at offset 8192 of ");
  cookie[1] = nbd_aio_pread (nbd, buf[1], PAGE_BYTES, PAGE_BYTES, NBD_NULL_COMPLETION, 0);
  server_wait_stderr (&srv, "still waiting for a read of 4K at offset 12288 of ");
  expect_waiting ("read", 2, 0);
  faults_remove (rule);
  cr_assert_eq (answer (cookie[0]), 0);
  cr_assert_eq (answer (cookie[1]), 0);
  server_wait_stderr (&srv, str ("a read of 4K at offset 8192 of %s took ", a));
  server_wait_stderr (&srv, str ("a read of 4K at offset 12288 of %s took ", a));
  cr_assert_eq (count ("still waiting for a read"), 2, "%s", server_stderr (&srv));
  client_expect_page (nbd, 1, 1, 0);
  client_expect_page (nbd, 1, 1, 1);
}

/* One that fails in the end: also why. */
Test (waiting, and_failed)
{
  struct faults_rule *hold, *fail;
  char buf[PAGE_BYTES];
  int64_t cookie;

  start (100);
  client_write_page (nbd, 1, 1, 0);
  hold = add_rule (&(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_HOLD });
  fail =
    add_rule (&(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_FAIL, .error = EIO });
  cookie = nbd_aio_pread (nbd, buf, PAGE_BYTES, 0, NBD_NULL_COMPLETION, 0);
  expect_waiting ("read", 1, 0);
  faults_remove (hold);
  cr_assert_eq (answer (cookie), EIO);
  server_wait_stderr (&srv, str ("a read of 4K at offset 8192 of %s failed after ", a));
  server_wait_stderr (&srv, strerror (EIO));
  faults_remove (fail);
  expect_uint (control_device (control, a), "read.errors", 1);
  expect_uint (control_export (control), "read.errors", 1);
  client_expect_page (nbd, 1, 1, 0);
}

/* A removal waits for a read as a client does; status, and changes of other devices, do not. */
Test (waiting, removal)
{
  struct faults_rule *rule;
  uint64_t job;

  start (100);
  for (unsigned page = 0; page < 20; page++)
    client_write_page (nbd, 1, 1, page);
  rule = add_rule (&(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_HOLD });
  job = control_start (control, "'verb': 'remove', 'device': '%s'", a);
  expect_waiting ("read", 1, 0);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("c"), MIB);
  expect_str (control_job (control, job), "state", "running");
  for (unsigned page = 40; page < 50; page++)
    client_write_page (nbd, 1, 1, page);
  faults_remove (rule);
  control_wait (control, job, "done");
  for (unsigned page = 0; page < 20; page++)
    client_expect_page (nbd, 1, 1, page);
}

/* What takes its time, but less than that, is not worth a word. */
Test (waiting, not_long)
{
  struct faults_rule *rule;

  start (999); /* the most for which the server looks every 10 ms */
  rule = add_rule (
    &(struct faults_plan){ .calls = FAULTS_ANY, .action = FAULTS_DELAY, .us = 20000, .count = 20 });
  for (unsigned page = 0; page < 10; page++) {
    client_write_page (nbd, 1, 1, page);
    client_expect_page (nbd, 1, 1, page);
  }
  faults_wait (&rule->nacted, 20);
  faults_remove (rule);
  expect_uint (control_device (control, a), "read.requests", 10);
  cr_assert_eq (count ("waiting"), 0, "%s", server_stderr (&srv));
}
