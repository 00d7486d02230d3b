/* SPDX-License-Identifier: BSD-3-Clause
 *
 * lock.c - lock=: what of it takes effect here, and that I/O takes no memory then.
 */
#include <config.h>

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum {
  MIB = 1 << 20,
  KIB = 1 << 10,
  CAP_BIT_IPC_LOCK = 14,
  CAP_BIT_SYS_NICE = 23,
  CAP_BIT_SYS_RESOURCE = 24
};
enum { MAX_THREADS = 4 };
enum { FLAG_NOIO = 0x80000 }; /* PF_MEMALLOC_NOIO: of PR_SET_IO_FLUSHER */

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("nbdkit's own plugins take other parameters");
  if (server_is_sanitized ())
    cr_skip_test ("a sanitizer takes memory of its own, and locks none");
}

TestSuite (lock, .init = setup, .fini = dev_teardown, .timeout = 300);

/* A number out of /proc/PID/status. */
static uint64_t
status_of (pid_t pid, const char *key, int base)
{
  char *text = shell_output ("sed -n 's/^%s:[[:space:]]*//p' /proc/%d/status", key, (int) pid);

  cr_assert_neq (*text, 0, "%s", key);
  return strtoull (text, NULL, base);
}

static bool
may (int cap)
{
  return status_of (getpid (), "CapEff", 16) >> cap & 1;
}

/* Sum, or bitwise and, of a field of all threads' stat, counted as proc(5) does. */
static uint64_t
field_of_threads (const struct server *srv, unsigned field, bool sum)
{
  char *text = shell_output ("sed 's/.*) //' /proc/%d/task/*/stat | cut -d' ' -f%u", (int) srv->pid,
                             field - 2);
  uint64_t all = sum ? 0 : UINT64_MAX;
  char *end;

  for (; *text; text = *end ? end + 1 : end) {
    uint64_t value = strtoull (text, &end, 10);

    all = sum ? all + value : all & value;
  }
  return all;
}

static bool
took (const struct server *srv, const char *what)
{
  char *line = strstr (server_stderr (srv), "lock=yes: "), *not ;

  cr_assert_not_null (line, "%s", server_stderr (srv));
  not = strstr (line, "not: ");
  cr_assert_not_null (strstr (line, what), "%s", line);
  return !not || strstr (line, what) < not ;
}

/* One line says what took effect, and /proc agrees; an idle server takes no more than 16 MiB beside its tables. */
Test (lock, takes_effect)
{
  struct server srv;
  uint64_t tables = 2 * MIB + 64 * KIB; /* page map, blist */

  server_start (
    &srv, &(struct server_options){
            .threads = 1, .params = PARAMS (dev_path ("a,size=64M"), "size=1G", "lock=yes") });
  client_close (client_open (&srv)); /* its threads are there */
  cr_assert_eq (took (&srv, "memory locked"), may (CAP_BIT_IPC_LOCK));
  cr_assert_eq (took (&srv, "I/O flusher"), may (CAP_BIT_SYS_RESOURCE));
  cr_assert_eq (took (&srv, "real-time"), may (CAP_BIT_SYS_NICE));
  cr_assert (took (&srv, "no core dumps") && took (&srv, "tables touched"));
  cr_assert_eq (status_of (srv.pid, "VmLck", 10) > 0, may (CAP_BIT_IPC_LOCK));
  cr_assert_leq (status_of (srv.pid, "VmRSS", 10), (16 * MIB + tables) / KIB);
  cr_assert_geq (status_of (srv.pid, "VmRSS", 10), tables / KIB);
  cr_assert_eq ((field_of_threads (&srv, 9, false) & FLAG_NOIO) != 0, took (&srv, "I/O flusher"),
                "not all threads have it");
  cr_assert_eq (field_of_threads (&srv, 41, false) == SCHED_RR, took (&srv, "real-time"));
  server_stop (&srv);
}

/* io=auto is without io_uring, for which the kernel takes memory. */
Test (lock, no_rings)
{
  const char *const lock[] = { "lock=no", "lock=yes" };
  char *dump = shell_output ("%s --dump-plugin %s", NBDKIT, server_plugin ());

  for (unsigned i = 0; i < 2; i++) {
    struct server srv;

    server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M"), lock[i],
                                                                    "io=auto", control_param ()) });
    expect_str (control_status (control_open ()), "drum.io",
                i == 0 && strstr (dump, "drum_io=uring") ? "uring" : "sync");
    server_stop (&srv);
  }
}

/* Without it nothing of that is done. */
Test (lock, no)
{
  struct server srv;

  server_start (&srv,
                &(struct server_options){ .params = PARAMS (dev_path ("a,size=64M"), "lock=no") });
  cr_assert_eq (status_of (srv.pid, "VmLck", 10), 0);
  cr_assert_null (strstr (server_stderr (&srv), "lock="));
  server_stop (&srv);
}

/* It starts, or says why not, and leaves all as it was. */
Test (lock, strict)
{
  const struct server_options options = { .params =
                                            PARAMS (dev_path ("a,size=1M"), "lock=strict") };
  struct server srv;

  if (may (CAP_BIT_IPC_LOCK) && may (CAP_BIT_SYS_RESOURCE) && may (CAP_BIT_SYS_NICE)) {
    server_start (&srv, &options);
    cr_assert_not_null (strstr (server_stderr (&srv), "lock=strict: memory locked"));
    server_stop (&srv);
  } else
    cr_assert_not_null (strstr (server_refuses (&options), "lock=strict: can't have: "));
}

static void
write_and_read (struct nbd_handle *nbd, struct rng *rng, unsigned n, uint64_t npages)
{
  static char data[64 * KIB], back[64 * KIB];

  for (unsigned i = 0; i < n; i++) {
    uint64_t page = rng_below (rng, npages - 16);
    unsigned at = i % 4 ? 0 : 100, len = i % 4 ? sizeof data : 1000;

    rng_fill (rng, data, sizeof data - 8);
    client_write (nbd, data, len, page * PAGE_BYTES + at);
    client_read (nbd, back, len, page * PAGE_BYTES + at);
    cr_assert_eq (memcmp (data, back, len), 0);
    if (i % 16 == 0)
      client_trim (nbd, 16 * PAGE_BYTES, page * PAGE_BYTES);
  }
}

/* Have each thread of a connection serve a request of the largest size that comes: at once, or one might serve them all. */
static void
ask_all_threads (struct nbd_handle *nbd, struct faults *faults, unsigned n)
{
  static char data[64 * KIB], back[MAX_THREADS][64 * KIB];
  struct faults_rule *rule;
  int64_t cookie[MAX_THREADS];
  int ended;

  memset (data, 'x', sizeof data);
  client_write (nbd, data, sizeof data, 0);
  rule = faults_add (faults, dev_path ("%s", ""),
                     &(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_HOLD });
  for (unsigned i = 0; i < n; i++)
    cookie[i] = nbd_aio_pread (nbd, back[i], sizeof back[i], 0, NBD_NULL_COMPLETION, 0);
  while (rule->nacted < n)
    cr_assert_neq (nbd_poll (nbd, 10), -1, "%s", nbd_get_error ());
  faults_remove (rule);
  for (unsigned i = 0; i < n; i++) {
    while ((ended = nbd_aio_command_completed (nbd, cookie[i])) == 0)
      cr_assert_neq (nbd_poll (nbd, -1), -1, "%s", nbd_get_error ());
    cr_assert_eq (ended, 1, "%s", nbd_get_error ());
  }
}

/* Reads, writes and trims, all over the export and onto a device that was added: no thread has a page fault, once each has had a
 * request, and nbdkit its buffers. */
static void
expect_no_faults (const char *direct, unsigned threads)
{
  enum { NPAGES = 1 << 20, SLACK = 2 };
  struct faults *faults = faults_open (run_path ("faults"));
  struct rng rng = rng_for (3);
  struct server srv;
  struct nbd_handle *nbd;
  int control;
  uint64_t before, n;

  cr_assert_not_null (faults);
  server_start (&srv,
                &(struct server_options){ .threads = threads,
                                          .params = PARAMS (dev_path ("a,size=4M"), "size=4G",
                                                            "lock=yes", direct, control_param ()),
                                          .faults = run_path ("faults") });
  control = control_open ();
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", dev_path ("b"),
               512 * MIB);
  nbd = client_open (&srv);
  ask_all_threads (nbd, faults, threads);
  before = field_of_threads (&srv, 10, true);
  write_and_read (nbd, &rng, 2000, NPAGES);
  n = field_of_threads (&srv, 10, true) - before;
  cr_assert_leq (n, SLACK, "%" PRIu64 " page faults", n);
  client_close (nbd);
  server_stop (&srv);
}

/* Nor the first requests of a connection, up to the largest that Linux sends: those come when memory is short. */
Test (lock, first_requests_have_no_page_faults)
{
  enum { SLACK = 2 };
  static const uint32_t sizes[] = { 4 * KIB, 128 * KIB, 1 * MIB, 1280 * KIB };
  static char data[1280 * KIB];
  struct nbd_handle *nbd[2];
  struct server srv;
  uint64_t before, n;

  server_start (
    &srv, &(struct server_options){
            .threads = 1, .params = PARAMS (dev_path ("a,size=64M"), "lock=yes", "direct=yes") });
  memset (data, 'x', sizeof data);
  for (unsigned i = 0; i < 2; i++) {
    nbd[i] = client_open (&srv);
    client_read (nbd[i], data, 4 * KIB, 0); /* its thread is there */
  }
  before = field_of_threads (&srv, 10, true);
  for (unsigned i = 0; i < 8; i++) {
    client_write (nbd[i % 2], data, sizes[i / 2], 0);
    client_read (nbd[i % 2], data, sizes[i / 2], 0);
  }
  n = field_of_threads (&srv, 10, true) - before;
  cr_assert_leq (n, SLACK, "%" PRIu64 " page faults", n);
  for (unsigned i = 0; i < 2; i++)
    client_close (nbd[i]);
  server_stop (&srv);
}

Test (lock, io_has_no_page_faults)
{
  expect_no_faults ("direct=no", 1);
}

Test (lock, direct_io_has_no_page_faults)
{
  expect_no_faults ("direct=yes", 1);
}

Test (lock, io_with_rings_has_no_page_faults)
{
  expect_no_faults ("io=uring", MAX_THREADS);
}

Test (lock, io_of_many_threads_has_no_page_faults)
{
  expect_no_faults ("direct=no", MAX_THREADS);
}

Test (lock, direct_io_of_many_threads_has_no_page_faults)
{
  expect_no_faults ("direct=yes", MAX_THREADS);
}
