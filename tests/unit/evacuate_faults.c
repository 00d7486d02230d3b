/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate_faults.c - evacuations in which the n-th call of what can fail, fails, once or from there on; for every n.
 *
 * The linker sends the calls of lib/ through here; those of the test's own thread never fail.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

#include "lib/evacuate.h"
#include "lib/export.h"
#include "lib/exports.h"
#include "lib/job.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"
#include "stamped.h"

enum { NPAGES = 100, A_SLOTS = 70, B_SLOTS = 200 };

enum call { NO_CALL, PREADV, PWRITEV, DRUM_ALLOC, DRUM_ALLOC_ABOVE, MMAP };

static struct fault {
  enum call call;
  unsigned nth;  /* from 0 */
  bool for_good; /* and all after it */
  int err;
} fault;

static unsigned ncalls; /* of fault.call */
static bool has_failed;
static pthread_t main_thread;

/* Is it this call's turn to fail? */
static bool
fails (enum call call)
{
  unsigned n;

  if (call != fault.call || pthread_equal (pthread_self (), main_thread))
    return false;
  n = ncalls++;
  if (n != fault.nth && !(fault.for_good && n > fault.nth))
    return false;
  has_failed = true;
  errno = fault.err;
  return true;
}

#define WRAP(type, name, NAME, parameters, arguments, failure) \
  type __real_##name parameters;                               \
  type __wrap_##name parameters;                               \
  type __wrap_##name parameters                                \
  {                                                            \
    return fails (NAME) ? failure : __real_##name arguments;   \
  }

WRAP (ssize_t, preadv, PREADV, (int fd, const struct iovec *iov, int niov, off_t offset),
      (fd, iov, niov, offset), -1)
WRAP (ssize_t, pwritev, PWRITEV, (int fd, const struct iovec *iov, int niov, off_t offset),
      (fd, iov, niov, offset), -1)
WRAP (int, drum_alloc, DRUM_ALLOC,
      (struct drum * d, const struct drum_demand *want, struct slot_run *runs, unsigned *nruns),
      (d, want, runs, nruns), -fault.err)
WRAP (int, drum_alloc_above, DRUM_ALLOC_ABOVE,
      (struct drum * d, int above, const struct drum_demand *want, struct slot_run *runs,
       unsigned *nruns),
      (d, above, want, runs, nruns), -fault.err)
WRAP (void *, mmap, MMAP, (void *at, size_t n, int prot, int flags, int fd, off_t offset),
      (at, n, prot, flags, fd, offset), MAP_FAILED)

static uint64_t later_ns; /* than it is */

uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return __real_now_ns () + later_ns;
}

static struct drum *drum;
static struct exports *exports;
static struct export *export;
static struct jobs *jobs;
static struct stamped pages;
static bool checksum = true;

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  main_thread = pthread_self ();
}

TestSuite (evacuate_faults, .init = setup, .fini = scratch_teardown, .timeout = 120);

/* 60 pages in five pieces of the map, in two of which they lie in reverse. */
static void
begin (int prio_a, int prio_b)
{
  struct export_config config = { .name = "", .size_bytes = NPAGES * PAGE_BYTES, checksum };

  drum = drum_make (4);
  drum_add_file (drum, "a", prio_a, A_SLOTS);
  cr_assert_eq (exports_create (&exports), 0);
  cr_assert_eq (export_create (drum, &config, &export), 0);
  cr_assert_eq (exports_add (exports, export), 0);
  cr_assert_eq (jobs_create (NULL, NULL, &jobs), 0);
  stamped_init (&pages, export);
  for (unsigned page = 20; page-- > 0;)
    cr_assert_eq (stamped_write (&pages, page, 1), 0);
  cr_assert_eq (stamped_write (&pages, 30, 45), 0);
  stamped_trim (&pages, 50, 5);
  drum_add_file (drum, "b", prio_b, B_SLOTS);
}

static void
end (void)
{
  jobs_destroy (jobs);
  exports_destroy (exports);
  drum_undo (drum); /* the files, too */
}

static struct evacuation
everything (void)
{
  return (struct evacuation){ drum, exports, NULL };
}

static bool force;

static int
remove_main (struct job *job, void *dev)
{
  struct evacuation ev = everything ();
  int ret = evacuate_device (job, &ev, dev, force);

  if (ret == 0)
    swapdev_close (dev);
  return ret;
}

static int
rise_main (struct job *job, void *opaque)
{
  struct evacuation ev = everything ();

  (void) opaque;
  return evacuate_upwards (job, &ev);
}

/* Run it with the fault, to its end. */
static struct job_info
run (job_main *main, void *dev)
{
  struct job_info info;
  uint64_t id;

  ncalls = 0;
  cr_assert_eq (jobs_start (jobs, JOB_REMOVE, NULL, 0, main, dev, &id), 0);
  cr_assert_eq (jobs_wait (jobs, id), 0);
  cr_assert_eq (jobs_get (jobs, id, &info), 0);
  keep_for_test (info.device);
  keep_for_test (info.error);
  keep_for_test (info.warnings);
  fault.call = NO_CALL;
  return info;
}

static struct job_info
remove_a (void)
{
  struct swapdev *dev;

  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &dev), 0, "%s",
                logged_last ());
  return run (remove_main, dev);
}

/* Whatever became of it: the device is gone if it was done, else open, or closed if it could not be read; and everything is
 * whole. What failed works again, and so the device leaves at last. Returns the job's state. */
static enum job_state
remove_with (enum call call, unsigned nth, bool for_good, int err)
{
  enum drum_device_state expected = call == PREADV ? DEVICE_CLOSED : DEVICE_OPEN;
  struct drum_device_info a = { .nslots = 0 };
  struct job_info info;
  enum job_state state;

  begin (5, 0);
  has_failed = false;
  fault = (struct fault){ call, nth, for_good, err };
  info = remove_a ();
  state = info.state;
  cr_assert (state == JOB_DONE || (state == JOB_FAILED && info.error), "call %u: %d", nth, state);
  cr_assert_eq (drum_find_file (drum, "a", &a), state != JOB_DONE, "call %u: %s", nth, info.error);
  if (state == JOB_FAILED)
    cr_assert (a.state == expected, "call %u: it is %d: %s", nth, a.state, info.error);
  cr_assert_eq (info.nlost, 0, "call %u", nth);
  job_info_free (&info);
  stamped_assert_whole (&pages, drum);
  if (state == JOB_FAILED) {
    later_ns += UINT64_C (60000000000);
    drum_heal (drum);
    info = remove_a ();
    cr_assert (info.state == JOB_DONE, "call %u: %s", nth, info.error);
    job_info_free (&info);
    stamped_assert_whole (&pages, drum);
  }
  end ();
  return state;
}

/* One call after the other fails, until there is none left; returns how many there are. Each time the job ends as expected. */
static unsigned
remove_with_every (enum call call, bool for_good, int err, enum job_state expected)
{
  unsigned nth = 0;

  do {
    enum job_state state = remove_with (call, nth, for_good, err);

    if (!has_failed)
      break;
    cr_assert (state == expected, "call %u: %d", nth, state);
  } while (++nth < 1000);
  return nth;
}

/* A read that fails once is tried again, page by page. */
Test (evacuate_faults, a_read_fails)
{
  cr_assert_geq (remove_with_every (PREADV, false, EIO, JOB_DONE), 5);
}

/* The same without checksums. */
Test (evacuate_faults, a_read_fails_without_checksums)
{
  checksum = false;
  cr_assert_geq (remove_with_every (PREADV, false, EIO, JOB_DONE), 5);
}

/* When all reads fail from some point on, the device stays, closed. */
Test (evacuate_faults, reads_fail_for_good)
{
  cr_assert_geq (remove_with_every (PREADV, true, EIO, JOB_FAILED), 5);
}

/* What can't be written in one place goes to another. */
Test (evacuate_faults, a_write_fails)
{
  cr_assert_geq (remove_with_every (PWRITEV, false, EIO, JOB_DONE), 5);
}

Test (evacuate_faults, a_write_fails_for_now)
{
  cr_assert_geq (remove_with_every (PWRITEV, false, EAGAIN, JOB_DONE), 5);
}

/* A full file system is no reason to give up, nor to try smaller pieces: there is room elsewhere. */
Test (evacuate_faults, a_write_finds_no_space)
{
  cr_assert_geq (remove_with_every (PWRITEV, false, ENOSPC, JOB_DONE), 5);
}

/* When no place takes any from some point on, it ends: the device is open again, with all that has not moved. */
Test (evacuate_faults, writes_fail_for_good)
{
  cr_assert_geq (remove_with_every (PWRITEV, true, ENOSPC, JOB_FAILED), 5);
}

/* Slots that are refused once are asked for again, in smaller pieces; refused for good, the device is open again. */
Test (evacuate_faults, slots_are_refused)
{
  cr_assert_geq (remove_with_every (DRUM_ALLOC, false, ENOSPC, JOB_DONE), 5);
}

Test (evacuate_faults, slots_are_refused_for_good)
{
  cr_assert_geq (remove_with_every (DRUM_ALLOC, true, ENOSPC, JOB_FAILED), 5);
}

/* No memory to begin with. */
Test (evacuate_faults, no_memory)
{
  cr_assert_eq (remove_with (MMAP, 0, false, ENOMEM), JOB_FAILED);
}

/* Which pages are lost? */
static unsigned
count_lost (void)
{
  char data[PAGE_BYTES];
  unsigned n = 0;

  for (unsigned page = 0; page < NPAGES; page++)
    if (export_read (export, data, PAGE_BYTES, page * PAGE_BYTES) == -EIO) {
      pages.sequence[page] = STAMPED_EIO;
      n++;
    }
  return n;
}

/* With force, the device leaves wherever its reads begin to fail, and the job says exactly how many pages are lost. */
Test (evacuate_faults, reads_fail_for_good_with_force)
{
  unsigned nth;

  force = true;
  for (nth = 0; nth < 1000; nth++) {
    struct drum_device_info a;
    struct job_info info;

    begin (5, 0);
    has_failed = false;
    fault = (struct fault){ PREADV, nth, true, EIO };
    info = remove_a ();
    cr_assert (info.state == JOB_DONE, "call %u: %s", nth, info.error);
    cr_assert_not (drum_find_file (drum, "a", &a));
    cr_assert_eq (info.nlost, count_lost (), "call %u: %u are lost", nth, (unsigned) info.nlost);
    cr_assert_eq (info.nlost, info.nunreadable);
    cr_assert_eq (export_npages_used (export), 60 - info.nlost);
    stamped_assert_whole (&pages, drum);
    end ();
    if (!has_failed)
      break;
    cr_assert_gt (info.nlost, 0);
  }
  cr_assert_geq (nth, 5);
}

/* There is no more room than what is free and not kept: no slot is still to come back. */
static void
assert_no_move_is_open (void)
{
  struct slot_run runs[DRUM_BATCH];
  struct drum_usage usage;
  unsigned nruns;

  drum_usage (drum, &usage);
  cr_assert_eq (drum_take_runs (drum, (uint32_t) (usage.nfree - usage.nkept) + 1, 0, runs, &nruns),
                -ENOSPC);
}

/* What rises stays where it is when something fails; done or failed, everything is whole. */
static unsigned
rise_with_every (enum call call, bool for_good, int err, enum job_state expected)
{
  unsigned nth;

  for (nth = 0; nth < 1000; nth++) {
    struct job_info info;
    bool last;

    begin (0, 5);
    has_failed = false;
    fault = (struct fault){ call, nth, for_good, err };
    info = run (rise_main, NULL);
    last = !has_failed;
    cr_assert (info.state == (last ? JOB_DONE : expected), "call %u: %d: %s", nth, info.state,
               info.error);
    job_info_free (&info);
    stamped_assert_whole (&pages, drum);
    assert_no_move_is_open ();
    end ();
    if (last)
      break;
  }
  return nth;
}

Test (evacuate_faults, rising)
{
  cr_assert_geq (rise_with_every (PREADV, false, EIO, JOB_DONE), 5);
  cr_assert_geq (rise_with_every (PREADV, true, EIO, JOB_DONE), 5);
  cr_assert_geq (rise_with_every (PWRITEV, false, EIO, JOB_DONE), 5);
  cr_assert_geq (rise_with_every (DRUM_ALLOC_ABOVE, false, ENOSPC, JOB_DONE), 5);
  cr_assert_geq (rise_with_every (DRUM_ALLOC_ABOVE, true, ENOSPC, JOB_DONE), 5);
  cr_assert_eq (rise_with_every (MMAP, false, ENOMEM, JOB_FAILED), 1);
}
