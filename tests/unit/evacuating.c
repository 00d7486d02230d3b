/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuating.c - see evacuating.h.
 */
#include <config.h>

#include "evacuating.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "tests/scratch.h"

#include "logged.h"

struct drum *drum;
struct exports *exports;
struct export *export;
struct jobs *jobs;
struct stamped pages;

/* ---- what the linker sends here ---- */

struct hooks hook = { .alloc_max = UINT32_MAX };

static _Thread_local bool in_job;

static void
note_piece (void)
{
  hook.npieces++;
  if (hook.after_piece)
    hook.after_piece ();
}

int __real_export_move (struct export *e, uint64_t *page, unsigned n,
                        const struct pages_move *move);
int __wrap_export_move (struct export *e, uint64_t *page, unsigned n,
                        const struct pages_move *move);

int
__wrap_export_move (struct export *e, uint64_t *page, unsigned n, const struct pages_move *move)
{
  int ret = __real_export_move (e, page, n, move);

  if (ret > 0)
    note_piece ();
  return ret;
}

unsigned __real_export_check (struct export *e, uint64_t *page, unsigned n,
                              const struct pages_check *check);
unsigned __wrap_export_check (struct export *e, uint64_t *page, unsigned n,
                              const struct pages_check *check);

unsigned
__wrap_export_check (struct export *e, uint64_t *page, unsigned n, const struct pages_check *check)
{
  unsigned ret = __real_export_check (e, page, n, check);

  if (ret > 0)
    note_piece ();
  return ret;
}

int __real_drum_alloc (struct drum *d, const struct drum_demand *want, struct slot_run *runs,
                       unsigned *nruns);
int __wrap_drum_alloc (struct drum *d, const struct drum_demand *want, struct slot_run *runs,
                       unsigned *nruns);

int
__wrap_drum_alloc (struct drum *d, const struct drum_demand *want, struct slot_run *runs,
                   unsigned *nruns)
{
  bool refuse =
    want->nnew + want->nmove > hook.alloc_max || (hook.refuse_next && want->nnew + want->nmove > 1);

  hook.refuse_next = false;
  return refuse ? -ENOSPC : __real_drum_alloc (d, want, runs, nruns);
}

int __real_drum_alloc_above (struct drum *d, int above, const struct drum_demand *want,
                             struct slot_run *runs, unsigned *nruns);
int __wrap_drum_alloc_above (struct drum *d, int above, const struct drum_demand *want,
                             struct slot_run *runs, unsigned *nruns);

int
__wrap_drum_alloc_above (struct drum *d, int above, const struct drum_demand *want,
                         struct slot_run *runs, unsigned *nruns)
{
  return want->nnew + want->nmove > hook.alloc_max
           ? -ENOSPC
           : __real_drum_alloc_above (d, above, want, runs, nruns);
}

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset)
{
  off_t label = SWAPDEV_NRESERVED * PAGE_BYTES;

  if (offset >= label && offset < label + (off_t) atomic_load (&hook.unreadable_bytes)) {
    errno = EIO;
    return -1;
  }
  if (hook.read_begins && !in_job) {
    sem_t *begins = hook.read_begins;

    hook.read_begins = NULL;
    sem_post (begins);
    sem_wait (hook.read_goes_on);
  }
  return __real_preadv (fd, iov, niov, offset);
}

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset)
{
  sem_t *begins = hook.write_begins;

  if (begins) {
    hook.write_begins = NULL;
    sem_post (begins);
    sem_wait (hook.write_goes_on);
  }
  return __real_pwritev (fd, iov, niov, offset);
}

int __real_sem_wait (sem_t *sem);
int __wrap_sem_wait (sem_t *sem);

int
__wrap_sem_wait (sem_t *sem)
{
  if (in_job && hook.job_waits_or_ends)
    sem_post (hook.job_waits_or_ends);
  return __real_sem_wait (sem);
}

int __real_job_sleep (struct job *job, unsigned ms);
int __wrap_job_sleep (struct job *job, unsigned ms);

int
__wrap_job_sleep (struct job *job, unsigned ms)
{
  if (hook.sleeps)
    sem_post (hook.sleeps);
  return __real_job_sleep (job, ms);
}

int __real_drum_remove (struct drum *d, struct swapdev *dev);
int __wrap_drum_remove (struct drum *d, struct swapdev *dev);

int
__wrap_drum_remove (struct drum *d, struct swapdev *dev)
{
  if (hook.before_remove)
    hook.before_remove ();
  return __real_drum_remove (d, dev);
}

/* ---- one drum, and jobs on it ---- */

void
make (bool checksum)
{
  struct export_config config = { .name = "e",
                                  .size_bytes = NPAGES * PAGE_BYTES,
                                  .checksum = checksum };

  drum = drum_make (16);
  cr_assert_eq (exports_create (&exports), 0);
  cr_assert_eq (export_create (drum, &config, &export), 0);
  cr_assert_eq (exports_add (exports, export), 0);
  cr_assert_eq (jobs_create (NULL, NULL, &jobs), 0);
  stamped_init (&pages, export);
}

void
make_a_and_b (bool checksum)
{
  make (checksum);
  drum_add_file (drum, "a", 5, A_SLOTS);
  drum_add_file (drum, "b", 0, B_SLOTS);
}

void
evacuating_setup (void)
{
  scratch_setup ();
  logged_start ();
}

void
evacuating_teardown (void)
{
  jobs_destroy (jobs);
  exports_destroy (exports);
  drum_destroy (drum);
  scratch_teardown ();
}

int
order_main (struct job *job, void *opaque)
{
  struct order order = *(struct order *) opaque;
  int ret;

  free (opaque);
  in_job = true;
  ret = order.dev ? evacuate_device (job, &order.ev, order.dev, order.force)
                  : evacuate_upwards (job, &order.ev);
  if (order.dev && ret == 0)
    swapdev_close (order.dev);
  if (hook.job_waits_or_ends)
    sem_post (hook.job_waits_or_ends);
  return ret;
}

uint64_t
start (struct swapdev *dev, bool force, uint64_t rate)
{
  struct order *order = malloc (sizeof *order);
  uint64_t id;

  *order = (struct order){ { drum, exports, NULL }, dev, force };
  cr_assert_eq (
    jobs_start (jobs, JOB_REMOVE, dev ? swapdev_path (dev) : NULL, rate, order_main, order, &id),
    0);
  return id;
}

uint64_t
start_removing (const char *name, bool force)
{
  struct swapdev *dev;

  cr_assert_eq (drum_close_device (drum, place_of (scratch_path (name)), &dev), 0, "%s",
                logged_last ());
  return start (dev, force, 0);
}

struct job_info
finish (uint64_t id)
{
  static struct job_info info;

  job_info_free (&info);
  cr_assert_eq (jobs_wait (jobs, id), 0);
  cr_assert_eq (jobs_get (jobs, id, &info), 0);
  return info;
}

struct job_info
remove_device (const char *name, bool force)
{
  return finish (start_removing (name, force));
}

struct job_info
rebalance (void)
{
  return finish (start (NULL, false, 0));
}

void
assert_job (struct job_info info, enum job_state state, const char *error)
{
  cr_assert (info.state == state, "it is %d: %s", info.state, info.error ? info.error : "");
  cr_assert_eq (info.error != NULL, error != NULL, "%s", info.error);
  if (error)
    cr_assert_not_null (strstr (info.error, error), "%s", info.error);
}

void
make_with_90_pages (bool checksum)
{
  make_a_and_b (checksum);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  cr_assert_eq (stamped_write (&pages, 200, 35), 0);
  stamped_trim (&pages, 10, 5);
  cr_assert_eq (stamped_write (&pages, 30, 3), 0);
  cr_assert_eq (drum_nused_on (drum, "a"), 90);
}

void
spoil (uint32_t slot)
{
  file_write (scratch_path ("a"), (slot + SWAPDEV_NRESERVED) * PAGE_BYTES + 99, "!", 1);
}

void
assert_unreadable (struct job_info info, const unsigned *page, unsigned n)
{
  cr_assert_eq (info.nunreadable, n, "%u", (unsigned) info.nunreadable);
  for (unsigned i = 0; i < n && i < JOB_LISTED; i++) {
    cr_assert_str_eq (info.unreadable[i].export, "e");
    cr_assert_eq (info.unreadable[i].page, page[i], "%u", (unsigned) info.unreadable[i].page);
  }
}

static unsigned pieces_before_cancel;
static uint64_t job_to_cancel;

static void
cancel_then (void)
{
  if (hook.npieces == pieces_before_cancel)
    jobs_cancel (jobs, job_to_cancel);
}

void
cancel_after (unsigned n, uint64_t job)
{
  pieces_before_cancel = n;
  job_to_cancel = job;
  hook.after_piece = cancel_then;
}
