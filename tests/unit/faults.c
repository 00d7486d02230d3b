/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faults.c - a scripted workload in which the n-th I/O of the devices goes wrong, in each way, for every n.
 *
 * Whatever goes wrong: what is read is what was written, or an error; what could be read once can be read when the device works
 * again; each slot is accounted for after every step; and a write fails only if no other device has room.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "lib/drum-health.h"
#include "lib/export.h"
#include "lib/job.h"
#include "lib/live.h"
#include "lib/service.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "devices.h"
#include "faulty.h"
#include "logged.h"
#include "tests/unit/served.h"

enum { NPAGES = 60, A_SLOTS = 70, B_SLOTS = 150, C_SLOTS = 150, MAX_N = 2000 };

static struct service service;
static struct live *live;
static uint64_t later_ns;

/* The version of each page; after a write that failed it may have either. */
static struct {
  uint32_t is, may_be;
  bool unreadable; /* the last read failed */
} page[NPAGES];
static uint32_t version;
static unsigned nwrite_errors, nread_errors;
static struct faulty fault; /* the one that is tried */

uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return __real_now_ns () + later_ns;
}

TestSuite (faults, .init = scratch_setup, .fini = scratch_teardown, .timeout = 300);

static void
begin (void)
{
  struct swapdev_spec spec[2] = {
    { .path = scratch_path ("a"), .prio = 5, .create_bytes = bytes_of (A_SLOTS) },
    { .path = scratch_path ("b"), .create_bytes = bytes_of (B_SLOTS) }
  };
  struct service_config config = { .io = RINGS_NEVER, /* all of it is seen here */
                                   .devices = spec,
                                   .ndevices = 2,
                                   .stripe_bytes = 4 * PAGE_BYTES,
                                   .size_bytes = NPAGES * PAGE_BYTES,
                                   .checksum = true };

  logged_start ();
  later_ns = 0; /* while jobs run: what they wait for comes by the real clock */
  cr_assert_eq (service_start (&config, &service), 0, "%s", logged_last ());
  cr_assert_eq (live_create (&service, NULL, NULL, &live), 0);
  memset (page, 0, sizeof page);
  nwrite_errors = nread_errors = 0;
}

static const char *
where (void)
{
  return str ("%s: calls %d, action %d, error %d, call %u, then %u",
              fault.name ? fault.name : "any", (int) fault.calls, (int) fault.action, fault.error,
              fault.skip, fault.count);
}

/* A clear error, which the client gets. */
static void
assert_error (int ret)
{
  cr_assert (ret == -EIO || ret == -ENOSPC || ret == -fault.error, "%s: %s", where (),
             strerror (-ret));
}

static void
read_page (unsigned i)
{
  char data[PAGE_BYTES];
  struct stamp stamp;
  int ret = export_read (served (&service), data, PAGE_BYTES, (uint64_t) i * PAGE_BYTES);

  page[i].unreadable = ret < 0;
  if (ret < 0) {
    nread_errors++;
    cr_assert_eq (ret, -EIO);
    return;
  }
  cr_assert (stamp_read (data, &stamp), "%s: page %u is mixed", where (), i);
  cr_assert (stamp.sequence == 0 || stamp.page == i, "%s: page %u has page %u", where (), i,
             (unsigned) stamp.page);
  cr_assert (stamp.sequence == page[i].is || stamp.sequence == page[i].may_be,
             "%s: page %u has version %u, not %u or %u", where (), i, stamp.sequence, page[i].is,
             page[i].may_be);
  page[i].is = page[i].may_be = stamp.sequence;
}

static void
note_write (unsigned i, int ret, uint32_t sequence)
{
  if (ret == 0)
    page[i].is = sequence;
  else
    assert_error (ret);
  page[i].may_be = sequence;
}

static void
write_pages (unsigned first, unsigned n)
{
  static char data[NPAGES][PAGE_BYTES];
  int ret;

  version++;
  for (unsigned i = 0; i < n; i++)
    stamp_fill (data[i], (struct stamp){ 1, version, first + i });
  ret = export_write (served (&service), data, (uint64_t) n * PAGE_BYTES,
                      (uint64_t) first * PAGE_BYTES);
  nwrite_errors += ret < 0;
  for (unsigned i = first; i < first + n; i++)
    note_write (i, ret, version);
}

/* The second half of a page is written as it is: it has to be read first. */
static void
write_half (unsigned i)
{
  char data[PAGE_BYTES];
  int ret;

  read_page (i);
  if (page[i].unreadable)
    return;
  stamp_fill (data, (struct stamp){ 1, page[i].is, i });
  ret = export_write (served (&service), data, PAGE_BYTES / 2,
                      (uint64_t) i * PAGE_BYTES + PAGE_BYTES / 2);
  if (ret < 0)
    assert_error (ret);
}

static void
trim (unsigned first, unsigned n)
{
  cr_assert_eq (
    export_trim (served (&service), (uint64_t) n * PAGE_BYTES, (uint64_t) first * PAGE_BYTES), 0);
  for (unsigned i = first; i < first + n; i++)
    page[i].is = page[i].may_be = 0;
}

static void
read_all (void)
{
  for (unsigned i = 0; i < NPAGES; i++)
    read_page (i);
}

/* A job that may fail, but then says why. Returns how many pages it could not read. */
static unsigned
finish (int ret, uint64_t job)
{
  struct job_info info;

  if (ret < 0) {
    cr_assert_gt (logged_count (""), 0, "%s: %s without a word", where (), strerror (-ret));
    return 0;
  }
  cr_assert_eq (jobs_wait (live_jobs (live), job), 0);
  cr_assert_eq (jobs_get (live_jobs (live), job, &info), 0);
  cr_assert (info.state == JOB_DONE || (info.state == JOB_FAILED && info.error), "%s: %d", where (),
             info.state);
  cr_assert_eq (info.nlost, 0);
  job_info_free (&info);
  return (unsigned) info.nunreadable;
}

static void
add_c (void)
{
  struct swapdev_spec spec = { .path = scratch_path ("c"),
                               .prio = 5,
                               .create_bytes = bytes_of (C_SLOTS) };
  uint64_t job = 0;
  int ret = live_add (live, &spec, &job);

  finish (ret, job);
}

static void
remove_a (void)
{
  uint64_t job = 0;
  int ret = live_remove (live, scratch_path ("a"), 0, false, &job);

  finish (ret, job);
}

/* How many pages it found that can't be read. */
static unsigned
scrub (void)
{
  uint64_t job;

  cr_assert_eq (live_scrub (live, NULL, 0, &job), 0);
  return finish (0, job);
}

static void
run_script (void)
{
  for (unsigned step = 0; step < 16; step++) {
    switch (step) {
    case 0:
      write_pages (0, 30);
      break;
    case 1:
      write_pages (5, 10);
      break;
    case 2:
      write_half (3);
      break;
    case 3:
      trim (10, 7);
      break;
    case 4:
      read_all ();
      break;
    case 5:
      write_pages (35, 1);
      break;
    case 6:
      write_pages (33, 1);
      break;
    case 7:
      add_c ();
      break;
    case 8:
      write_pages (0, 20);
      break;
    case 9:
      write_half (35);
      break;
    case 10:
      remove_a ();
      break;
    case 11:
      read_all ();
      break;
    case 12:
      trim (0, 5);
      break;
    case 13:
      write_pages (2, 12);
      break;
    case 14:
      scrub ();
      break;
    case 15:
      read_all ();
      break;
    }
    drum_assert_adds_up (service.drum);
  }
}

/* The disks work again. What is still out is over, and everything is as it should be: nunreadable pages can't be read. */
static void
recover (unsigned nunreadable)
{
  static const char *const name[] = { "a", "b", "c" };
  struct drum_device_info info;
  unsigned n = 0, nscrubbed;

  faulty_clear ();
  nscrubbed = scrub ();
  live_destroy (live);
  later_ns += UINT64_C (60000000000);
  drum_heal (service.drum);
  for (unsigned i = 0; i < 3; i++)
    if (drum_find (service.drum, scratch_path (name[i]), &info) && info.state != DEVICE_OPEN)
      cr_assert_eq (drum_reopen_device (service.drum, place_of (scratch_path (name[i]))), 0,
                    "%s: %s", where (), name[i]);
  drum_heal (service.drum);
  drum_assert_adds_up (service.drum);
  cr_assert_eq (drum_nused_anywhere (service.drum), export_npages_used (served (&service)), "%s",
                where ());
  for (unsigned i = 0; i < NPAGES; i++) {
    read_page (i);
    n += page[i].unreadable;
  }
  cr_assert_leq (n, nunreadable, "%s: %u pages are lost", where (), n);
  cr_assert_eq (n, nscrubbed, "%s: the scrub found %u, and %u can't be read", where (), nscrubbed,
                n);
  write_pages (0, NPAGES); /* heals all */
  read_all ();
  for (unsigned i = 0; i < NPAGES; i++)
    cr_assert (page[i].is == version && !page[i].unreadable, "%s: page %u", where (), i);
  drum_heal (service.drum);
  drum_assert_adds_up (service.drum);
  cr_assert_eq (drum_nused_anywhere (service.drum), NPAGES);
  service_undo (&service);
}

enum { MAY_FAIL_READS = 1, MAY_FAIL_WRITES = 2 };

/* The n-th matching call goes wrong, for every n; or for some of them, as DRUM_TEST_SCALE has it. */
static void
for_every_n (struct faulty is, unsigned may, unsigned nunreadable)
{
  unsigned stride = random_steps (100) < 100 ? 100 / random_steps (100) : 1;
  unsigned n, nacted = 1;

  for (n = 0; nacted > 0 && n < MAX_N; n += stride) {
    fault = is;
    fault.skip = n;
    begin ();
    faulty_add (&fault);
    run_script ();
    if (!(may & MAY_FAIL_WRITES))
      cr_assert_eq (nwrite_errors, 0, "%s: a write failed", where ());
    if (!(may & MAY_FAIL_READS))
      cr_assert_eq (nread_errors, 0, "%s: a read failed", where ());
    recover (nunreadable);
    nacted = faulty_nacted ();
  }
  cr_assert_lt (n, MAX_N);
  cr_assert_gt (n, 5, "only %u", n);
}

/* One write that fails, or is torn, is nothing that a client hears of. */
Test (faults, nth_write)
{
  for_every_n ((struct faulty){ .calls = FAULTY_WRITE, .error = EIO, .count = 1 }, 0, 0);
  for_every_n (
    (struct faulty){ .calls = FAULTY_WRITE, .error = EIO, .count = 1, .action = FAULTY_TEAR }, 0,
    0);
}

/* Nor is one read. */
Test (faults, nth_read)
{
  for_every_n ((struct faulty){ .calls = FAULTY_READ, .error = EIO, .count = 1 }, 0, 0);
  for_every_n (
    (struct faulty){ .calls = FAULTY_READ, .error = EIO, .count = 1, .action = FAULTY_TEAR }, 0, 0);
  for_every_n ((struct faulty){ .calls = FAULTY_READ, .count = 1, .action = FAULTY_CORRUPT }, 0, 0);
}

/* A few in a row: whoever is alone with them hears of it. */
Test (faults, some_in_a_row)
{
  for_every_n ((struct faulty){ .calls = FAULTY_BOTH, .error = EIO, .count = 3 }, MAY_FAIL_READS,
               0);
}

/* A device that takes no more writes: the others have room. */
Test (faults, a_takes_no_writes_from_there_on)
{
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_WRITE, .error = EIO }, 0, 0);
  for_every_n (
    (struct faulty){ .name = "a", .calls = FAULTY_WRITE, .error = EIO, .action = FAULTY_TEAR }, 0,
    0);
}

/* One that has gone: its pages can't be read while it is, no others. */
Test (faults, a_is_gone_from_there_on)
{
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_BOTH, .error = ENXIO }, MAY_FAIL_READS,
               0);
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_BOTH, .error = EIO }, MAY_FAIL_READS,
               0);
}

Test (faults, a_gives_nothing_from_there_on)
{
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_READ, .error = EIO }, MAY_FAIL_READS,
               0);
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_READ, .action = FAULTY_CORRUPT },
               MAY_FAIL_READS, 0);
}

/* A full file, once and for longer. */
Test (faults, full_file)
{
  for_every_n ((struct faulty){ .calls = FAULTY_WRITE, .error = ENOSPC, .count = 1 }, 0, 0);
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_WRITE, .error = ENOSPC }, 0, 0);
  for_every_n ((struct faulty){ .name = "a", .calls = FAULTY_WRITE, .error = EDQUOT }, 0, 0);
  for_every_n ((struct faulty){ .calls = FAULTY_WRITE, .error = ENOSPC }, MAY_FAIL_WRITES, 0);
}

/* A slot that keeps other data than was written is one page that can't be read, until it is written again. */
Test (faults, corrupted_slot)
{
  for_every_n ((struct faulty){ .calls = FAULTY_WRITE, .action = FAULTY_CORRUPT, .count = 1 },
               MAY_FAIL_READS, 1);
}

/* Nothing works from some point on: errors, and when it works again all is there. */
Test (faults, all_is_gone_from_there_on)
{
  for_every_n ((struct faulty){ .calls = FAULTY_WRITE, .error = EIO }, MAY_FAIL_WRITES, 0);
  for_every_n ((struct faulty){ .calls = FAULTY_READ, .error = EIO }, MAY_FAIL_READS, 0);
  for_every_n ((struct faulty){ .calls = FAULTY_BOTH, .error = EIO },
               MAY_FAIL_READS | MAY_FAIL_WRITES, 0);
}
