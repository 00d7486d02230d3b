/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fencing.c - clients that open NAME@ID.EPOCH: what an older session of theirs may still do once a newer one has begun.
 */
#include <config.h>

#include <errno.h>
#include <sched.h>
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

enum { TURNS = 1000 };

static struct server srv;
static struct faults *faults;
static int control;

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum fences");
  faults = faults_open (run_path ("faults"));
  cr_assert_not_null (faults, "%m");
  server_start (
    &srv, &(struct server_options){ .threads = 1, /* nbdkit may abort with more when one hangs up */
                                    .params = PARAMS (dev_path ("a,size=4M"), control_param ()),
                                    .faults = run_path ("faults") });
  control = control_open ();
}

static void
teardown (void)
{
  if (srv.pid) {
    close (control);
    server_stop (&srv);
  }
  dev_teardown ();
}

TestSuite (fencing, .init = setup, .fini = teardown, .timeout = 300);

static void
expect_refused (const char *export, const char *why)
{
  cr_assert_null (client_try_open (&srv, export), "%s", export);
  server_wait_stderr (&srv, why);
}

static int
ignore_extents (void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n,
                int *error)
{
  (void) opaque, (void) context, (void) offset, (void) entries, (void) n, (void) error;
  return 0;
}

/* Nothing that it asks for is done, and it is told the same of all. */
static void
expect_barred (struct nbd_handle *nbd)
{
  nbd_extent_callback ignore = { .callback = ignore_extents };
  static char buf[PAGE_BYTES];
  int results[7];

  for (unsigned i = 0; i < 7; i++) {
    results[i] = i == 0   ? nbd_pread (nbd, buf, sizeof buf, 0, 0)
                 : i == 1 ? nbd_pwrite (nbd, buf, sizeof buf, 0, 0)
                 : i == 2 ? nbd_trim (nbd, PAGE_BYTES, 0, 0)
                 : i == 3 ? nbd_zero (nbd, PAGE_BYTES, 0, 0)
                 : i == 4 ? nbd_cache (nbd, PAGE_BYTES, 0, 0)
                 : i == 5 ? nbd_flush (nbd, 0)
                          : nbd_block_status (nbd, PAGE_BYTES, 0, ignore, 0);
    cr_assert_eq (results[i], -1, "request %u is done", i);
    cr_assert_eq (nbd_get_errno (), ESHUTDOWN, "request %u: %s", i, nbd_get_error ());
  }
}

static void
expect_clients (unsigned n)
{
  /* A close is not answered: there is no event for its end. */
  while (member_uint (control_export (control), "clients") != n)
    sched_yield ();
}

/* The old session is refused, all of its connections and requests; others are not. */
Test (fencing, bars_older_sessions)
{
  struct nbd_handle *plain = client_open_as (&srv, ""), *other = client_open_as (&srv, "@other.1");
  struct nbd_handle *one = client_open_as (&srv, "@host.1"),
                    *also = client_open_as (&srv, "@host.1"), *two;

  client_write_page (one, 1, 1, 0);
  client_expect_page (also, 1, 1, 0);
  expect_clients (4);
  two = client_open_as (&srv, "@host.2");
  expect_barred (one);
  expect_barred (also);
  expect_refused ("@host.1", "export \"@host.1\" is refused: a later session of client host");
  expect_refused ("@host.0", "export \"@host.0\" is refused");
  client_expect_page (two, 1, 1, 0);
  client_write_page (two, 1, 2, 0);
  client_close (one);
  client_close (also);
  one = client_open_as (&srv, "@host.2");
  client_expect_page (one, 1, 2, 0);
  client_write_page (plain, 1, 3, 1);
  client_expect_page (other, 1, 3, 1);
  expect_clients (4);
  client_close (one);
  client_close (two);
  expect_clients (2);
  expect_refused ("@host.1", "export \"@host.1\" is refused"); /* for good */
  client_close (client_open_as (&srv, "@host.18446744073709551615"));
  client_close (plain);
  client_close (other);
  expect_clients (0);
}

/* As many connections of one session as it likes, each writes what another reads. */
Test (fencing, one_session_has_many_connections)
{
  struct nbd_handle *nbd[4];

  for (unsigned i = 0; i < 4; i++)
    nbd[i] = client_open_as (&srv, "@room_7-b.7");
  for (unsigned i = 0; i < 4; i++)
    client_write_page (nbd[i], i + 1, 1, i);
  for (unsigned i = 0; i < 4; i++)
    client_expect_page (nbd[(i + 1) % 4], i + 1, 1, i);
  for (unsigned i = 0; i < 4; i++)
    client_close (nbd[i]);
}

/* A name that does not say ID.EPOCH is just another export's. */
Test (fencing, names)
{
  static const char *const names[] = { "x",   "@",     "@a",     "@a.",   "@a.x",
                                       "@.1", "x@a.1", "@a.1@b", "@a b.1" };

  for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
    expect_refused (names[i], str ("there is no export \"%s\": the only one is \"\"", names[i]));
  client_close (client_open_as (&srv, ""));
  client_close (client_open_as (&srv, "@a.1"));
  expect_clients (0);
}

struct opener {
  pthread_t thread;
  struct nbd_handle *nbd;
  atomic_bool back;
};

static void *
opener_main (void *arg)
{
  struct opener *o = arg;

  o->nbd = client_try_open (&srv, "@host.2");
  atomic_store (&o->back, true);
  return NULL;
}

static bool
is_barred (struct nbd_handle *nbd)
{
  char buf[PAGE_BYTES];

  return nbd_pread (nbd, buf, sizeof buf, 8 * PAGE_BYTES, 0) == -1;
}

/* A write of the old session hangs in a disk: the new one does not begin before it has ended, so it comes too late for nothing. */
Test (fencing, waits_for_what_hangs)
{
  struct nbd_handle *one = client_open_as (&srv, "@host.1"),
                    *also = client_open_as (&srv, "@host.1");
  struct faults_rule *rule =
    faults_add (faults, dev_path ("a"),
                &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD, .count = 1 });
  static char buf[PAGE_BYTES];
  struct opener opener = { .nbd = NULL };
  int64_t cookie;
  int ended;

  stamp_fill (buf, (struct stamp){ 1, 1, 0 });
  cookie = nbd_aio_pwrite (one, buf, sizeof buf, 0, NBD_NULL_COMPLETION, 0);
  cr_assert_neq (cookie, -1, "%s", nbd_get_error ());
  while (rule->nacted == 0)
    cr_assert_neq (nbd_poll (one, 10), -1, "%s", nbd_get_error ());
  cr_assert_eq (pthread_create (&opener.thread, NULL, opener_main, &opener), 0);
  while (!is_barred (also))
    sched_yield ();
  for (unsigned i = 0; i < TURNS; i++)
    sched_yield ();
  cr_assert_not (atomic_load (&opener.back), "it has begun, and the old write has not ended");
  client_close (also);
  faults_remove (rule);
  pthread_join (opener.thread, NULL);
  cr_assert_not_null (opener.nbd, "%s", server_stderr (&srv));
  client_expect_page (opener.nbd, 1, 1, 0);
  client_write_page (opener.nbd, 2, 2, 0);
  while ((ended = nbd_aio_command_completed (one, cookie)) == 0)
    cr_assert_neq (nbd_poll (one, -1), -1, "%s", nbd_get_error ());
  cr_assert_eq (ended, 1);
  expect_barred (one);
  client_expect_page (opener.nbd, 2, 2, 0);
  client_close (one);
  client_close (opener.nbd);
}

/* ---- sessions that follow one another, and leave requests behind ---- */

enum { SESSIONS = 40, DEPTH = 16 };

/* Each leaves so many writes of one page on their way and hangs up, as a kernel does that believes its socket to be dead; what the
 * next one writes stays. */
Test (fencing, what_is_left_behind_comes_to_nothing)
{
  static char buf[DEPTH][PAGE_BYTES];
  struct nbd_handle *nbd, *old = NULL;

  for (unsigned i = 0; i < random_steps (SESSIONS); i++) {
    nbd = client_open_as (&srv, str ("@host.%u", i));
    if (old)
      nbd_close (old); /* hangs up, and does not wait */
    client_write_page (nbd, 9, i + 1, 0);
    for (unsigned k = 0; k < 100; k++)
      client_expect_page (nbd, 9, i + 1, 0);
    for (unsigned k = 0; k < DEPTH; k++) {
      stamp_fill (buf[k], (struct stamp){ 1, i, 0 });
      cr_assert_neq (nbd_aio_pwrite (nbd, buf[k], PAGE_BYTES, 0, NBD_NULL_COMPLETION, 0), -1, "%s",
                     nbd_get_error ());
    }
    old = nbd;
  }
  nbd_close (old);
}
