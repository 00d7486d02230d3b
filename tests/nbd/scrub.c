/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scrub.c - reading all that is stored while clients go on, on disks that fail (libfaults.so).
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum { NPAGES = 200, BAD = 17, NWORKERS = 2, EACH = 40 };

static struct faults *faults;
static atomic_bool done;

static void
setup (void)
{
  char *path;

  livedrum_setup ();
  path = run_path ("faults");
  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  livedrum_start_as (&(struct server_options){
    .params = PARAMS (dev_path ("a,size=1M,prio=5"), dev_path ("b,size=1M")), .faults = path });
}

TestSuite (scrub, .init = setup, .fini = livedrum_teardown, .timeout = 300);

/* What happens to these calls on a, behind the first so many. */
static struct faults_rule *
add_rule (enum faults_call calls, enum faults_action action, unsigned skip, unsigned count)
{
  struct faults_rule *rule = faults_add (
    faults, a,
    &(struct faults_plan){
      .calls = calls, .action = action, .skip = skip, .count = count, .error = EIO, .bytes = 99 });

  cr_assert_not_null (rule);
  return rule;
}

/* Pages from 0 on, all on a; what the disk was given of one is another. */
static void
write_one_wrong (void)
{
  struct faults_rule *rule = add_rule (FAULTS_WRITE, FAULTS_FLIP, BAD, 1);

  write_pages (0, NPAGES);
  cr_assert_eq (rule->nacted, 1);
  faults_remove (rule);
  expect_uint (control_device (control, a), "used", NPAGES * PAGE_BYTES);
}

static void
expect_page_listed (json *pages, unsigned i, unsigned page)
{
  expect_str (json_object_array_get_idx (pages, i), "export", "");
  expect_uint (json_object_array_get_idx (pages, i), "page", page);
}

static void
expect_warning (json *job, const char *text)
{
  cr_assert_str_eq (
    json_object_get_string (json_object_array_get_idx (member (job, "warnings"), 0)), text);
}

/* Pages of its own, and a few of those that are scrubbed, until it is told to stop; none may fail. */
static void
write_and_read (struct worker *w)
{
  uint32_t version = 0;

  while (!atomic_load (&done) && !worker_failed (w)) {
    static char data[NWORKERS][PAGE_BYTES];
    uint64_t page = NPAGES + w->index * EACH + rng_below (&w->rng, EACH);
    char *buf = data[w->index];
    struct stamp stamp;

    stamp_fill (buf, (struct stamp){ w->index + 2, ++version, page });
    if (nbd_pwrite (w->nbd, buf, PAGE_BYTES, page * PAGE_BYTES, 0) == -1 ||
        nbd_pread (w->nbd, buf, PAGE_BYTES, page * PAGE_BYTES, 0) == -1)
      worker_fail (w, "%s", nbd_get_error ());
    else if (!stamp_read (buf, &stamp) || stamp.sequence != version || stamp.page != page)
      worker_fail (w, "page %u has version %u", (unsigned) page, stamp.sequence);
    page = BAD + 1 + rng_below (&w->rng, NPAGES - BAD - 1);
    if (nbd_pread (w->nbd, buf, PAGE_BYTES, page * PAGE_BYTES, 0) == -1)
      worker_fail (w, "%s", nbd_get_error ());
    else if (!stamp_read (buf, &stamp) || stamp.sequence != 1 || stamp.page != page)
      worker_fail (w, "page %u is page %u", (unsigned) page, (unsigned) stamp.page);
    if (version % 8 == 0 &&
        nbd_trim (w->nbd, PAGE_BYTES, (NPAGES + w->index * EACH) * PAGE_BYTES, 0) == -1)
      worker_fail (w, "%s", nbd_get_error ());
  }
}

/* Just the page that is wrong is found, said with its place, and counted; clients do not notice. When it has been written again
 * all is well. */
Test (scrub, finds_the_page)
{
  struct worker workers[NWORKERS];
  json *job;

  write_one_wrong ();
  for (unsigned i = 0; i < NWORKERS; i++)
    workers[i] = (struct worker){ .main = write_and_read };
  workers_start (&srv, workers, NWORKERS);
  job = control_run (control, "done", "'verb': 'scrub', 'rate': %u", NPAGES * PAGE_BYTES);
  for (unsigned i = 0; i < 5; i++)
    expect_uint (control_run (control, "done", "'verb': 'scrub', 'device': '%s'", a), "unreadable",
                 1);
  atomic_store (&done, true);
  workers_join (workers, NWORKERS);

  expect_str (job, "kind", "scrub");
  cr_assert (!json_object_object_get_ex (job, "device", NULL));
  cr_assert (!json_object_object_get_ex (job, "error", NULL));
  cr_assert_geq (member_uint (job, "done"), NPAGES * PAGE_BYTES);
  expect_uint (job, "unreadable", 1);
  expect_page_listed (member (job, "unreadable_pages"), 0, BAD);
  expect_uint (job, "lost", 0);
  expect_uint (control_device (control, a), "mismatches", 6);
  expect_uint (control_device (control, a), "read.errors", 0);
  expect_uint (control_device (control, b), "mismatches", 0);
  server_wait_stderr (&srv,
                      str ("export \"\": page %u can't be read: at offset %u of %s: wrong checksum",
                           BAD, (BAD + 2) * PAGE_BYTES, a));
  write_pages (BAD, BAD + 1);
  job = control_run (control, "done", "'verb': 'scrub'");
  expect_uint (job, "unreadable", 0);
  cr_assert (!json_object_object_get_ex (job, "warnings", NULL));
  expect_pages (0, NPAGES);
}

/* Errors of I/O and wrong checksums are told apart; a page that can be read at the second try is none. */
Test (scrub, counts_errors)
{
  struct faults_rule *rule;
  json *job;

  write_one_wrong ();
  rule = add_rule (FAULTS_READ, FAULTS_FAIL, 0, 4); /* 16 pages, then the first three of them */
  job = control_run (control, "done", "'verb': 'scrub', 'device': '%s'", a);
  faults_remove (rule);
  expect_str (job, "device", a);
  expect_uint (job, "done", NPAGES * PAGE_BYTES);
  expect_uint (job, "total", NPAGES * PAGE_BYTES);
  expect_uint (job, "unreadable", 4);
  for (unsigned i = 0; i < 3; i++)
    expect_page_listed (member (job, "unreadable_pages"), i, i);
  expect_page_listed (member (job, "unreadable_pages"), 3, BAD);
  expect_warning (job, str ("%s: 4 of %u pages can't be read: 3 with an I/O error, 1 with a wrong "
                            "checksum",
                            a, NPAGES));
  expect_uint (control_device (control, a), "mismatches", 1);
  expect_uint (control_device (control, a), "read.errors", 4);
  expect_str (control_device (control, a), "state", "open");
  expect_uint (control_run (control, "done", "'verb': 'scrub', 'device': '%s'", b), "done", 0);
}

/* Clients go on while it sleeps; cancelled it has done a part. */
Test (scrub, cancelled)
{
  uint64_t job;
  json *info;

  write_one_wrong ();
  job = control_start (control, "'verb': 'scrub', 'rate': 1");
  control_wait_moving (control, job);
  expect_pages (0, BAD);
  write_pages (0, BAD);
  control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, job);
  info = control_wait (control, job, "cancelled");
  expect_uint (info, "done", PAGE_BYTES);
  expect_uint (info, "total", NPAGES * PAGE_BYTES);
  expect_uint (info, "unreadable", 0);
}

Test (scrub, bad_arguments)
{
  control_error (control, "EINVAL", "'verb': 'scrub', 'rate': 0");
  control_error (control, "EINVAL", "'verb': 'scrub', 'force': true");
  control_error (control, "EINVAL", "'verb': 'scrub', 'device': 'a'");
  control_error (control, "ENOENT", "'verb': 'scrub', 'device': '%s'", dev_path ("c"));
}
