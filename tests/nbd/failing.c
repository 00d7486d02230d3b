/* SPDX-License-Identifier: BSD-3-Clause
 *
 * failing.c - disks that fail or hang under a real nbdkit: what clients see of it. libfaults.so makes them.
 */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { NWORKERS = 3, EACH = 100, MAX_REQUEST = 16 };

static struct server srv;
static struct nbd_handle *nbd;
static struct faults *faults;
static int control;
static const char *a, *b;
static atomic_bool done;

static void
setup (void)
{
  char *path;

  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has devices");
  path = run_path ("faults");
  a = dev_path ("a");
  b = dev_path ("b");
  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  server_start (
    &srv, &(struct server_options){ .threads = 4,
                                    .options = PARAMS ("-D", "drum.waitms=1100"),
                                    .params = PARAMS (dev_path ("a,size=4M,prio=5"),
                                                      dev_path ("b,size=4M"), control_param ()),
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

TestSuite (failing, .init = setup, .fini = teardown, .timeout = 300);

static struct faults_rule *
add_rule (enum faults_call calls, enum faults_action action, int error)
{
  struct faults_rule *rule = faults_add (
    faults, a, &(struct faults_plan){ .calls = calls, .action = action, .error = error });

  cr_assert_not_null (rule);
  return rule;
}

/* Each slot of a device is one of used, free, bad or suspect, and reserved. */
static void
assert_adds_up (const char *path)
{
  json *dev = control_device (control, path);

  cr_assert_eq (member_uint (dev, "size"), member_uint (dev, "used") + member_uint (dev, "avail") +
                                             (member_uint (dev, "bad") + 2) * PAGE_BYTES);
  cr_assert_leq (member_uint (dev, "suspect"), member_uint (dev, "bad"));
}

/* Write and read pages of its own until it is told to stop; none may fail. */
static void
write_and_read (struct worker *w)
{
  static char data[NWORKERS][MAX_REQUEST][PAGE_BYTES];
  char (*page)[PAGE_BYTES] = data[w->index];
  uint32_t version[EACH] = { 0 }, last = 0;

  while (!atomic_load (&done) && !worker_failed (w)) {
    unsigned n = 1 + (unsigned) rng_below (&w->rng, MAX_REQUEST);
    unsigned first = (unsigned) rng_below (&w->rng, EACH - n);
    uint64_t at = (uint64_t) w->index * EACH + first;
    struct stamp stamp;

    last++;
    for (unsigned i = 0; i < n; i++) {
      stamp_fill (page[i], (struct stamp){ w->index + 1, last, at + i });
      version[first + i] = last;
    }
    if (nbd_pwrite (w->nbd, page, n * PAGE_BYTES, at * PAGE_BYTES, 0) == -1)
      worker_fail (w, "write: %s", nbd_get_error ());
    first = (unsigned) rng_below (&w->rng, EACH);
    at = (uint64_t) w->index * EACH + first;
    if (nbd_pread (w->nbd, page, PAGE_BYTES, at * PAGE_BYTES, 0) == -1)
      worker_fail (w, "read: %s", nbd_get_error ());
    else if (!stamp_read (page, &stamp) || stamp.sequence != version[first])
      worker_fail (w, "page %u has version %u, not %u", (unsigned) at, stamp.sequence,
                   version[first]);
  }
}

/* A disk takes no more writes: no client hears of it. It empties itself, and can be removed, or opened again. */
Test (failing, under_load)
{
  struct worker workers[NWORKERS];
  struct faults_rule *rule;

  for (unsigned i = 0; i < NWORKERS; i++)
    workers[i] = (struct worker){ .main = write_and_read };
  workers_start (&srv, workers, NWORKERS);
  faults_wait (&add_rule (FAULTS_WRITE, FAULTS_DELAY, 0)->ncalls, 50);
  rule = add_rule (FAULTS_WRITE, FAULTS_FAIL, EIO);
  faults_remove (&faults->rule[0]);
  server_wait_stderr (&srv, str ("%s: is failing: ", a));
  server_wait_stderr (&srv, str ("%s: has failed; all of its pages have been moved off", a));
  control_wait (control, 1, "done");
  atomic_store (&done, true);
  workers_join (workers, NWORKERS);
  expect_str (control_job (control, 1), "kind", "evacuate");
  expect_str (control_job (control, 1), "device", a);
  expect_uint (control_job (control, 1), "lost", 0);
  expect_str (control_device (control, a), "state", "failed");
  expect_uint (control_device (control, a), "used", 0);
  assert_adds_up (a);
  assert_adds_up (b);
  faults_remove (rule);
  control_run (control, "done", "'verb': 'add', 'device': '%s'", a);
  expect_str (control_device (control, a), "state", "open");
  client_write_page (nbd, 9, 1, 0);
  client_expect_page (nbd, 9, 1, 0);
  control_run (control, "done", "'verb': 'remove', 'device': '%s'", a);
  control_expect_no_device (control, a);
}

/* A page that can't be read is an error for itself, with its place in the log, and comes back if the disk does. */
Test (failing, unreadable)
{
  struct faults_rule *rule;
  char buf[PAGE_BYTES];

  client_write_page (nbd, 1, 1, 7);
  rule = add_rule (FAULTS_READ, FAULTS_FAIL, EIO);
  cr_assert_eq (nbd_pread (nbd, buf, PAGE_BYTES, 7 * PAGE_BYTES, 0), -1);
  cr_assert_eq (nbd_get_errno (), EIO);
  cr_assert_eq (rule->ncalls, 2, "it is tried once more");
  server_wait_stderr (
    &srv, str ("export \"\": page 7 can't be read: at offset 8192 of %s: %s", a, strerror (EIO)));
  client_expect_page (nbd, 0, 0, 8);
  faults_remove (rule);
  client_expect_page (nbd, 1, 1, 7);
  expect_str (control_device (control, a), "state", "open");
  expect_uint (control_device (control, a), "mismatches", 0);
  rule = add_rule (FAULTS_READ, FAULTS_FLIP, 0);
  cr_assert_eq (nbd_pread (nbd, buf, PAGE_BYTES, 7 * PAGE_BYTES, 0), -1);
  cr_assert_eq (nbd_get_errno (), EIO);
  faults_remove (rule);
  expect_uint (control_device (control, a), "mismatches", 1);
  client_expect_page (nbd, 1, 1, 7);
  assert_adds_up (a);
}

/* A disk is full: it is not called bad or failing; what is written goes elsewhere. */
Test (failing, full)
{
  struct faults_rule *rule = add_rule (FAULTS_WRITE, FAULTS_FAIL, ENOSPC);

  for (unsigned page = 0; page < 20; page++)
    client_write_page (nbd, 1, 1, page);
  cr_assert_geq (rule->nacted, 1);
  expect_str (control_device (control, a), "state", "open");
  expect_uint (control_device (control, a), "used", 0);
  expect_uint (control_device (control, b), "used", 20 * PAGE_BYTES);
  assert_adds_up (a);
  faults_remove (rule);
  for (unsigned page = 0; page < 20; page++)
    client_expect_page (nbd, 1, 1, page);
}

/* A disk that hangs is passed over by the requests that come after; the one that it has ends when it does. */
Test (failing, hangs)
{
  struct faults_rule *rule = add_rule (FAULTS_WRITE, FAULTS_HOLD, 0);
  static char buf[PAGE_BYTES];
  int64_t cookie;
  int ended;

  stamp_fill (buf, (struct stamp){ 1, 1, 0 });
  cookie = nbd_aio_pwrite (nbd, buf, sizeof buf, 0, NBD_NULL_COMPLETION, 0);
  cr_assert_neq (cookie, -1, "%s", nbd_get_error ());
  while (rule->nacted == 0)
    cr_assert_neq (nbd_poll (nbd, 10), -1, "%s", nbd_get_error ());
  server_wait_stderr (&srv, str ("still waiting for a write of 4K at offset 8192 of %s", a));
  for (unsigned page = 1; page < 50; page++)
    client_write_page (nbd, 1, 1, page);
  for (unsigned page = 1; page < 50; page++)
    client_expect_page (nbd, 1, 1, page);
  cr_assert_eq (rule->nacted, 1, "others are asked first");
  cr_assert_eq (nbd_aio_command_completed (nbd, cookie), 0);
  faults_remove (rule);
  while ((ended = nbd_aio_command_completed (nbd, cookie)) == 0)
    cr_assert_neq (nbd_poll (nbd, -1), -1, "%s", nbd_get_error ());
  cr_assert_eq (ended, 1);
  client_expect_page (nbd, 1, 1, 0);
  expect_str (control_device (control, a), "state", "open");
}
