/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faults-test.c - tests of libfaults.so, in a child that makes the calls.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "faults.h"

enum { FILE_BYTES = 1 << 20, MAX_RESULTS = 1000 };

struct result {
  long ret;
  int error;
  uint64_t ns;
  char first; /* byte that was read */
};

static struct faults *faults;
static char *file, *control;
static struct result results[MAX_RESULTS];
static unsigned nresults;

static void
setup (void)
{
  scratch_setup ();
  control = scratch_path ("control");
  file = scratch_path ("disk-a");
  cr_assert_eq (shell ("head -c %d /dev/zero | tr '\\0' . >'%s'", FILE_BYTES, file), 0);
  faults = faults_open (control);
  cr_assert_not_null (faults, "%m");
}

TestSuite (faults, .init = setup, .fini = scratch_teardown, .timeout = 60);

/* Start a child that makes these calls: see calls.c. */
static FILE *
start (const char *fmt, ...)
{
  va_list args;
  FILE *child;

  va_start (args, fmt);
  child = popen (str ("DRUM_FAULTS='%s' LD_PRELOAD='%s' exec '%s' '%s' %s", control, LIBFAULTS,
                      CALLS, file, vstr (fmt, args)),
                 "r");
  va_end (args);
  cr_assert_not_null (child);
  return child;
}

/* Wait for its end, and take its results. */
static void
finish (FILE *child)
{
  char line[100];

  for (nresults = 0; fgets (line, sizeof line, child); nresults++) {
    struct result *r = &results[nresults];

    cr_assert_lt (nresults, MAX_RESULTS);
    r->first = 0;
    cr_assert_geq (sscanf (line, "%ld %d %" SCNu64 " %c", &r->ret, &r->error, &r->ns, &r->first),
                   3);
  }
  cr_assert_eq (pclose (child), 0);
}

#define CHILD(...) finish (start (__VA_ARGS__))

static void
assert_result (unsigned i, long ret, int error)
{
  cr_assert_lt (i, nresults);
  cr_assert (results[i].ret == ret && results[i].error == error, "call %u: %ld, errno %d (%s)", i,
             results[i].ret, results[i].error, strerror (results[i].error));
}

static struct faults_rule *
add (const struct faults_plan *plan)
{
  struct faults_rule *rule = faults_add (faults, "/disk-a", plan);

  cr_assert_not_null (rule);
  return rule;
}

/* How many bytes of the file were written. */
static unsigned
count_written (void)
{
  size_t len;
  const char *data = (const char *) file_contents (file, &len);
  unsigned n = 0;

  cr_assert_eq (len, FILE_BYTES);
  for (size_t i = 0; i < len; i++)
    n += data[i] == 'w';
  return n;
}

static const struct {
  const char *name;
  enum faults_call call;
} calls[] = {
  { "pread", FAULTS_READ },         { "pread64", FAULTS_READ },
  { "preadv", FAULTS_READ },        { "preadv64", FAULTS_READ },
  { "ureadv", FAULTS_READ },        { "uwritev", FAULTS_WRITE },
  { "preadv2", FAULTS_READ },       { "preadv64v2", FAULTS_READ },
  { "pwrite", FAULTS_WRITE },       { "pwrite64", FAULTS_WRITE },
  { "pwritev", FAULTS_WRITE },      { "pwritev64", FAULTS_WRITE },
  { "pwritev2", FAULTS_WRITE },     { "pwritev64v2", FAULTS_WRITE },
  { "fallocate", FAULTS_ALLOCATE }, { "fallocate64", FAULTS_ALLOCATE },
  { "fsync", FAULTS_SYNC },         { "fdatasync", FAULTS_SYNC },
};
enum { NCALLS = sizeof calls / sizeof calls[0] };

/* Without rules, calls do what they always do. */
Test (faults, changes_nothing_unasked)
{
  CHILD ("pread 1000 3000");
  assert_result (0, 3000, 0);
  cr_assert_eq (results[0].first, '.');
  CHILD ("pwritev 1000 3000");
  assert_result (0, 3000, 0);
  cr_assert_eq (count_written (), 3000);
  CHILD ("preadv 1000 %d", FILE_BYTES);
  assert_result (0, FILE_BYTES - 1000, 0);
  cr_assert_eq (results[0].first, 'w');
  CHILD ("fdatasync 0 0");
  assert_result (0, 0, 0);
}

/* A call by any of its names fails with the error, is counted, and does nothing; the other calls go through. */
Test (faults, each_call_can_fail)
{
  struct faults_rule *rule[4];

  for (unsigned i = 0; i < 4; i++)
    rule[i] = add (
      &(struct faults_plan){ .calls = 1u << i, .action = FAULTS_FAIL, .error = 100 + (int) i });
  for (unsigned i = 0; i < NCALLS; i++) {
    unsigned which = (unsigned) __builtin_ctz (calls[i].call);
    uint64_t before = atomic_load (&rule[which]->nacted);

    CHILD ("%s 0 4096", calls[i].name);
    assert_result (0, -1, 100 + (int) which);
    cr_assert_eq (rule[which]->nacted, before + 1, "%s", calls[i].name);
  }
  cr_assert_eq (count_written (), 0);
}

/* Each of the calls goes through to the one it stands for. */
Test (faults, each_call_does_its_work)
{
  unsigned nwritten = 0;

  for (unsigned i = 0; i < NCALLS; i++) {
    CHILD ("%s 4096 300", calls[i].name);
    assert_result (0, calls[i].call & (FAULTS_READ | FAULTS_WRITE) ? 300 : 0, 0);
    nwritten = calls[i].call == FAULTS_WRITE ? 300 : nwritten;
    cr_assert_eq (count_written (), nwritten, "%s", calls[i].name);
  }
}

/* A rule is for files whose path has its part, and no longer than it is there. */
Test (faults, other_files_are_left_alone)
{
  struct faults_plan plan = { .calls = FAULTS_ANY, .action = FAULTS_FAIL, .error = EIO };
  struct faults_rule *other = faults_add (faults, "/disk-b", &plan), *rule = add (&plan);

  CHILD ("pwrite 0 10");
  assert_result (0, -1, EIO);
  faults_remove (rule);
  CHILD ("pwrite 0 10");
  assert_result (0, 10, 0);
  cr_assert_eq (other->ncalls, 0);
  cr_assert_eq (rule->ncalls, 1);
}

/* It acts on so many calls behind so many. */
Test (faults, the_nth_call_fails)
{
  struct faults_rule *rule = add (&(struct faults_plan){
    .calls = FAULTS_WRITE, .action = FAULTS_FAIL, .error = EIO, .skip = 2, .count = 3 });

  CHILD ("pwrite 0 10 7");
  cr_assert_eq (nresults, 7);
  for (unsigned i = 0; i < 7; i++)
    assert_result (i, i >= 2 && i < 5 ? -1 : 10, i >= 2 && i < 5 ? EIO : 0);
  cr_assert_eq (rule->ncalls, 7);
  cr_assert_eq (rule->nacted, 3);
  faults_remove (rule);
  add (
    &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_FAIL, .error = EIO, .skip = 4 });
  CHILD ("pwrite 0 10 7");
  for (unsigned i = 0; i < 7; i++)
    assert_result (i, i >= 4 ? -1 : 10, i >= 4 ? EIO : 0);
}

/* A call is cut where the rule says, whatever pieces it comes in; with an error it fails, having done as much. */
Test (faults, transfers_are_cut)
{
  static const char *const names[] = { "pwrite", "pwritev", "pwritev2", "uwritev" };
  struct faults_rule *rule;

  for (unsigned i = 0; i < 4; i++) {
    rule =
      add (&(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_CUT, .bytes = 5000 + i });
    CHILD ("%s 0 9000", names[i]);
    assert_result (0, 5000 + i, 0);
    cr_assert_eq (count_written (), 5000 + i);
    faults_remove (rule);
  }
  rule = add (&(struct faults_plan){
    .calls = FAULTS_WRITE, .action = FAULTS_CUT, .bytes = 6000, .error = EIO });
  CHILD ("pwritev 0 9000");
  assert_result (0, -1, EIO);
  cr_assert_eq (count_written (), 6000);
  faults_remove (rule);
  add (&(struct faults_plan){ .calls = FAULTS_ANY, .action = FAULTS_CUT });
  CHILD ("pread 0 9000");
  assert_result (0, 0, 0);
  CHILD ("fallocate 0 %d", 2 * FILE_BYTES);
  assert_result (0, 0, 0);
  cr_assert_eq (file_stat (file).st_size, FILE_BYTES, "it was done");
}

/* A byte is inverted on its way to the disk, or back. */
Test (faults, bytes_are_inverted)
{
  struct faults_rule *rule =
    add (&(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_FLIP, .count = 1 });
  unsigned char *data;

  CHILD ("preadv 5 9000 2");
  cr_assert_eq ((unsigned char) results[0].first, (unsigned char) ~'.');
  cr_assert_eq (results[1].first, '.');
  faults_remove (rule);
  add (&(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_FLIP, .bytes = 8000 });
  CHILD ("pwritev 100 9000");
  assert_result (0, 9000, 0);
  cr_assert_eq (count_written (), 8999);
  data = file_contents (file, NULL);
  cr_assert_eq (data[8100], (unsigned char) ~'w');
}

/* A call that is held is out until its rule is removed, and then does its work. */
Test (faults, calls_are_held)
{
  struct faults_rule *rule =
    add (&(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD });
  FILE *child = start ("pwrite 0 100");

  faults_wait (&rule->nacted, 1);
  nanosleep (&(struct timespec){ .tv_nsec = 10000000 }, NULL);
  cr_assert_eq (count_written (), 0);
  faults_remove (rule);
  finish (child);
  assert_result (0, 100, 0);
  cr_assert_eq (count_written (), 100);
  cr_assert_geq (results[0].ns, 10000000);
}

/* A call that is delayed takes so much longer. */
Test (faults, calls_are_delayed)
{
  add (
    &(struct faults_plan){ .calls = FAULTS_READ, .action = FAULTS_DELAY, .us = 20000, .count = 1 });
  CHILD ("pread 0 100 2");
  cr_assert_geq (results[0].ns, 20000000);
  assert_result (0, 100, 0);
  assert_result (1, 100, 0);
}

static struct faults_disk *
add_disk (uint32_t page_us, uint32_t seek_us)
{
  struct faults_disk *disk = faults_add_disk (faults, "/disk-a", page_us, seek_us);

  cr_assert_not_null (disk);
  return disk;
}

static uint64_t
sum_ns (void)
{
  uint64_t ns = 0;

  for (unsigned i = 0; i < nresults; i++)
    ns += results[i].ns;
  return ns;
}

/* Each 4 KiB begun takes its time. */
Test (faults, disks_take_their_time)
{
  struct faults_disk *disk = add_disk (1000, 0);

  CHILD ("pread 0 4096 10");
  cr_assert_eq (disk->busy_ns, 10 * 1000000);
  cr_assert_geq (sum_ns (), 10 * 1000000);
  CHILD ("pwritev 0 12289 5");
  cr_assert_eq (disk->busy_ns, 30 * 1000000);
  cr_assert_eq (disk->ncalls, 15);
  cr_assert_geq (sum_ns (), 20 * 1000000);
}

/* A disk serves one at a time: with 8 that ask, most of a call's time is spent waiting for the 7 others. */
Test (faults, disks_serve_one_at_a_time)
{
  struct faults_disk *disk = add_disk (1000, 0);

  CHILD ("pread 0 4096 30 0 8");
  cr_assert_eq (nresults, 240);
  cr_assert_eq (disk->busy_ns, 240 * 1000000);
  /* Each of them is behind 7 others, but for the first ones and the last; and for what a busy machine makes of it. */
  cr_assert_geq (sum_ns (), 240 * UINT64_C (4000000), "%" PRIu64 " us a call", sum_ns () / 240000);
}

/* What does not start where the last call ended costs a seek. */
Test (faults, seeks_take_time)
{
  struct faults_disk *disk = add_disk (10, 5000);

  CHILD ("pread 0 4096 10 4096");
  cr_assert_eq (disk->busy_ns, 10 * 10000);
  CHILD ("pread 0 4096 10 8192");
  cr_assert_eq (disk->busy_ns, 20 * 10000 + 10 * 5000000);
  cr_assert_geq (sum_ns (), 10 * 5010000);
}

/* A disk that is removed is as fast as any other. */
Test (faults, disks_can_be_removed)
{
  struct faults_disk *disk = add_disk (3600 * 1000000u, 0);

  faults_remove_disk (disk);
  CHILD ("pread 0 4096 10");
  cr_assert_eq (disk->ncalls, 0);
}

/* A script makes disks slow, and fast again, by a program, also while a server runs. */
Test (faults, slowdisk_makes_them)
{
  struct faults_disk *disk = add_disk (3600 * 1000000u, 0);

  cr_assert_eq (shell ("'%s' '%s' /disk-b=1 /disk-a=10+200", SLOWDISK, control), 0);
  CHILD ("pread 4096 4096");
  cr_assert_eq (faults->disk[1].busy_ns, 210000);
  cr_assert_eq (disk->busy_ns, 0);
  cr_assert_eq (shell ("'%s' '%s'", SLOWDISK, control), 0);
  CHILD ("pread 4096 4096");
  cr_assert_eq (faults->disk[1].ncalls, 1);
}

/* The same of disks that hang. */
Test (faults, slowdisk_makes_them_hang)
{
  cr_assert_eq (shell ("'%s' '%s' /disk-a=hang", SLOWDISK, control), 0);
  cr_assert_eq (atomic_load (&faults->rule[0].on), true);
  cr_assert_eq (faults->rule[0].plan.action, FAULTS_HOLD);
  cr_assert_eq (shell ("'%s' '%s'", SLOWDISK, control), 0);
  cr_assert_eq (atomic_load (&faults->rule[0].on), false);
}

/* A server that can't be steered does not run. */
Test (faults, no_control_file_is_fatal)
{
  cr_assert_neq (
    system (str ("LD_PRELOAD='%s' '%s' '%s' pread 0 1 2>/dev/null", LIBFAULTS, CALLS, file)), 0);
  control = scratch_path ("missing");
  cr_assert_neq (system (str ("DRUM_FAULTS='%s' LD_PRELOAD='%s' '%s' '%s' pread 0 1 2>/dev/null",
                              control, LIBFAULTS, CALLS, file)),
                 0);
}
