/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate.c - tests of lib/evacuate.c: what moves, what can't, and what is left when it is given up.
 *
 * The linker sends some calls of lib/ through here, so that clients come in between the pieces, and reads fail.
 * evacuate_faults.c makes each call fail in turn, evacuate_threads.c has clients in threads.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "lib/evacuate.h"
#include "lib/export.h"
#include "lib/job.h"
#include "lib/pages.h"
#include "tests/scratch.h"

#include "devices.h"
#include "logged.h"
#include "stamped.h"

enum { NPAGES = 400, A_SLOTS = 100, B_SLOTS = 300 };

static struct drum *drum;
static struct export *export;
static struct jobs *jobs;
static struct stamped pages;

/* ---- what the linker sends here ---- */

static unsigned npieces;                /* that were moved */
static void (*after_piece) (void);      /* in the job's thread, which holds nothing */
static uint32_t alloc_max = UINT32_MAX; /* more slots at once are refused */
static _Atomic uint64_t
  unreadable_bytes;      /* the first so many bytes behind the label of any device can't be read */
static bool refuse_next; /* the next more than one */
static sem_t *write_begins, *write_goes_on; /* for the next write of a device */
static sem_t *read_begins, *read_goes_on;   /* for the next read of a client */
static _Thread_local bool in_job;
static sem_t *job_waits_or_ends; /* posted when a job does: for a range lock, that is */
static sem_t *sleeps;            /* posted when a job does */

int __real_export_move (struct export *e, uint64_t *page, unsigned n,
                        const struct pages_move *move);
int __wrap_export_move (struct export *e, uint64_t *page, unsigned n,
                        const struct pages_move *move);

int
__wrap_export_move (struct export *e, uint64_t *page, unsigned n, const struct pages_move *move)
{
  int ret = __real_export_move (e, page, n, move);

  if (ret > 0) {
    npieces++;
    if (after_piece)
      after_piece ();
  }
  return ret;
}

int __real_drum_alloc (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                       unsigned *nruns);
int __wrap_drum_alloc (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                       unsigned *nruns);

int
__wrap_drum_alloc (struct drum *d, uint32_t nnew, uint32_t nmove, struct slot_run *runs,
                   unsigned *nruns)
{
  bool refuse = nnew + nmove > alloc_max || (refuse_next && nnew + nmove > 1);

  refuse_next = false;
  return refuse ? -ENOSPC : __real_drum_alloc (d, nnew, nmove, runs, nruns);
}

int __real_drum_alloc_above (struct drum *d, int above, uint32_t nnew, uint32_t nmove,
                             struct slot_run *runs, unsigned *nruns);
int __wrap_drum_alloc_above (struct drum *d, int above, uint32_t nnew, uint32_t nmove,
                             struct slot_run *runs, unsigned *nruns);

int
__wrap_drum_alloc_above (struct drum *d, int above, uint32_t nnew, uint32_t nmove,
                         struct slot_run *runs, unsigned *nruns)
{
  return nnew + nmove > alloc_max ? -ENOSPC
                                  : __real_drum_alloc_above (d, above, nnew, nmove, runs, nruns);
}

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset)
{
  off_t label = SWAPDEV_NRESERVED * PAGE_BYTES;

  if (offset >= label && offset < label + (off_t) atomic_load (&unreadable_bytes)) {
    errno = EIO;
    return -1;
  }
  if (read_begins && !in_job) {
    sem_t *begins = read_begins;

    read_begins = NULL;
    sem_post (begins);
    sem_wait (read_goes_on);
  }
  return __real_preadv (fd, iov, niov, offset);
}

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset)
{
  sem_t *begins = write_begins;

  if (begins) {
    write_begins = NULL;
    sem_post (begins);
    sem_wait (write_goes_on);
  }
  return __real_pwritev (fd, iov, niov, offset);
}

int __real_sem_wait (sem_t *sem);
int __wrap_sem_wait (sem_t *sem);

int
__wrap_sem_wait (sem_t *sem)
{
  if (in_job && job_waits_or_ends)
    sem_post (job_waits_or_ends);
  return __real_sem_wait (sem);
}

int __real_job_sleep (struct job *job, unsigned ms);
int __wrap_job_sleep (struct job *job, unsigned ms);

int
__wrap_job_sleep (struct job *job, unsigned ms)
{
  if (sleeps)
    sem_post (sleeps);
  return __real_job_sleep (job, ms);
}

static void (*before_remove) (void);

int __real_drum_remove (struct drum *d, struct swapdev *dev);
int __wrap_drum_remove (struct drum *d, struct swapdev *dev);

int
__wrap_drum_remove (struct drum *d, struct swapdev *dev)
{
  if (before_remove)
    before_remove ();
  return __real_drum_remove (d, dev);
}

/* ---- one drum, and jobs on it ---- */

static void
make (bool checksum)
{
  struct export_config config = { .name = "e",
                                  .size_bytes = NPAGES * PAGE_BYTES,
                                  .checksum = checksum };

  drum = drum_make (16);
  cr_assert_eq (export_create (drum, &config, &export), 0);
  cr_assert_eq (jobs_create (NULL, NULL, &jobs), 0);
  stamped_init (&pages, export);
}

/* Pages go to a first, in order; b has room for all. */
static void
make_a_and_b (bool checksum)
{
  make (checksum);
  drum_add_file (drum, "a", 5, A_SLOTS);
  drum_add_file (drum, "b", 0, B_SLOTS);
}

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
}

static void
teardown (void)
{
  jobs_destroy (jobs);
  export_destroy (export);
  drum_destroy (drum);
  scratch_teardown ();
}

TestSuite (evacuate, .init = setup, .fini = teardown, .timeout = 60);

struct order {
  struct evacuation ev;
  struct swapdev *dev; /* NULL: upwards */
  bool force;
};

static int
order_main (struct job *job, void *opaque)
{
  struct order order = *(struct order *) opaque;
  int ret;

  free (opaque);
  in_job = true;
  ret = order.dev ? evacuate_device (job, &order.ev, order.dev, order.force)
                  : evacuate_upwards (job, &order.ev);
  if (job_waits_or_ends)
    sem_post (job_waits_or_ends);
  return ret;
}

static uint64_t
start (struct swapdev *dev, bool force, uint64_t rate)
{
  struct order *order = malloc (sizeof *order);
  uint64_t id;

  *order = (struct order){ { drum, &export, 1 }, dev, force };
  cr_assert_eq (
    jobs_start (jobs, JOB_REMOVE, dev ? swapdev_path (dev) : NULL, rate, order_main, order, &id),
    0);
  return id;
}

static uint64_t
start_removing (const char *name, bool force)
{
  struct swapdev *dev;

  cr_assert_eq (drum_close_device (drum, place_of (scratch_path (name)), &dev), 0, "%s",
                logged_last ());
  return start (dev, force, 0);
}

/* The last job's, until the next. */
static struct job_info
finish (uint64_t id)
{
  static struct job_info info;

  job_info_free (&info);
  cr_assert_eq (jobs_wait (jobs, id), 0);
  cr_assert_eq (jobs_get (jobs, id, &info), 0);
  return info;
}

static struct job_info
remove_device (const char *name, bool force)
{
  return finish (start_removing (name, force));
}

static struct job_info
rebalance (void)
{
  return finish (start (NULL, false, 0));
}

static void
assert_job (struct job_info info, enum job_state state, const char *error)
{
  cr_assert (info.state == state, "it is %d: %s", info.state, info.error ? info.error : "");
  cr_assert_eq (info.error != NULL, error != NULL, "%s", info.error);
  if (error)
    cr_assert_not_null (strstr (info.error, error), "%s", info.error);
}

/* False if the drum has none of this name. */
static bool
find (const char *name, struct drum_device_info *info)
{
  struct drum_device_info devices[8];
  unsigned n = drum_devices (drum, devices, 8);

  for (unsigned i = 0; i < n; i++)
    if (strcmp (swapdev_path (devices[i].swapdev), scratch_path (name)) == 0) {
      *info = devices[i];
      return true;
    }
  return false;
}

static unsigned
nused_on (const char *name)
{
  struct drum_device_info info;

  cr_assert (find (name, &info), "%s is gone", name);
  return info.nslots - info.nfree;
}

static void
assert_state (const char *name, enum drum_device_state state)
{
  struct drum_device_info info;

  cr_assert (find (name, &info), "%s is gone", name);
  cr_assert (info.state == state, "%s is %d", name, info.state);
}

static void
assert_gone (const char *name)
{
  struct drum_device_info info;

  cr_assert_not (find (name, &info), "%s is still there", name);
}

/* Some of all: written, rewritten, trimmed, never written. 90 pages, all on a. */
static void
write_90_pages (void)
{
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  cr_assert_eq (stamped_write (&pages, 200, 35), 0);
  stamped_trim (&pages, 10, 5);
  cr_assert_eq (stamped_write (&pages, 30, 3), 0);
  cr_assert_eq (nused_on ("a"), 90);
}

/* Change a byte of this slot of a, as it stands on the device. */
static void
spoil (uint32_t slot)
{
  file_write (scratch_path ("a"), (slot + SWAPDEV_NRESERVED) * PAGE_BYTES + 99, "!", 1);
}

/* ---- it leaves ---- */

static void
everything_moves (bool checksum)
{
  struct drum_device_info a;
  struct job_info info;

  make_a_and_b (checksum);
  write_90_pages ();
  cr_assert (find ("a", &a));
  info = remove_device ("a", false);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.total_bytes, 90 * PAGE_BYTES);
  cr_assert_eq (info.done_bytes, 90 * PAGE_BYTES);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  assert_gone ("a");
  cr_assert_eq (nused_on ("b"), 90);
  stamped_assert_whole (&pages, drum);
  cr_assert_eq (drum_add_file (drum, "c", 9, A_SLOTS), a.first + SWAPDEV_NRESERVED,
                "its range is not given again");
  cr_assert_eq (stamped_write (&pages, 300, 50), 0);
  cr_assert_eq (nused_on ("c"), 50);
  stamped_assert_whole (&pages, drum);
  cr_assert_eq (logged_count (""), 0, "%s", logged_last ());
}

/* Every page moves, the device is gone, and its range can be used again. */
Test (evacuate, everything_moves)
{
  everything_moves (true);
}

/* The same without checksums. */
Test (evacuate, everything_moves_without_checksums)
{
  everything_moves (false);
}

/* The file of a device that left is closed: it can be added again at once. */
Test (evacuate, the_file_is_let_go)
{
  make_a_and_b (true);
  write_90_pages ();
  for (unsigned i = 0; i < 3; i++) {
    assert_job (remove_device ("a", false), JOB_DONE, NULL);
    drum_add_file (drum, "a", 5, A_SLOTS);
    assert_job (rebalance (), JOB_DONE, NULL);
    cr_assert_eq (nused_on ("a"), 90);
  }
  stamped_assert_whole (&pages, drum);
}

/* An empty device leaves without a pass. */
Test (evacuate, an_empty_device_leaves)
{
  make_a_and_b (true);
  assert_job (remove_device ("b", false), JOB_DONE, NULL);
  assert_gone ("b");
  cr_assert_eq (npieces, 0);
}

/* Two that leave at once, onto a third. */
Test (evacuate, two_at_once)
{
  uint64_t a, b;

  make (true);
  drum_add_file (drum, "a", 5, A_SLOTS);
  drum_add_file (drum, "b", 5, A_SLOTS);
  drum_add_file (drum, "c", 0, B_SLOTS);
  cr_assert_eq (stamped_write (&pages, 0, 180), 0);
  a = start_removing ("a", false);
  b = start_removing ("b", false);
  assert_job (finish (a), JOB_DONE, NULL);
  assert_job (finish (b), JOB_DONE, NULL);
  cr_assert_eq (nused_on ("c"), 180);
  stamped_assert_whole (&pages, drum);
}

/* Many exports are walked one after the other. */
Test (evacuate, two_exports)
{
  static struct stamped other;
  struct export_config config = { .name = "f", .size_bytes = 50 * PAGE_BYTES, .checksum = true };
  struct export *both[2];
  struct order *order = malloc (sizeof *order);
  uint64_t id;

  make_a_and_b (true);
  cr_assert_eq (export_create (drum, &config, &both[1]), 0);
  both[0] = export;
  stamped_init (&other, both[1]);
  cr_assert_eq (stamped_write (&pages, 0, 40), 0);
  cr_assert_eq (stamped_write (&other, 0, 50), 0);
  *order = (struct order){ .ev = { drum, both, 2 } };
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &order->dev), 0);
  cr_assert_eq (jobs_start (jobs, JOB_REMOVE, "a", 0, order_main, order, &id), 0);
  assert_job (finish (id), JOB_DONE, NULL);
  stamped_assert (&pages);
  stamped_assert (&other);
  cr_assert_eq (nused_on ("b"), 90);
  export_destroy (both[1]);
}

static void *
write_one (void *arg)
{
  *(int *) arg = stamped_write (&pages, 77, 1);
  return NULL;
}

/* A write under way holds a slot that no map shows: the device stays until it has ended, and its page moves, too. */
Test (evacuate, waits_for_writes_under_way)
{
  sem_t begins, goes_on, sleep;
  pthread_t client;
  uint64_t id;
  int ret = 77;

  sem_init (&begins, 0, 0);
  sem_init (&goes_on, 0, 0);
  sem_init (&sleep, 0, 0);
  make_a_and_b (true);
  write_90_pages ();
  write_goes_on = &goes_on;
  write_begins = &begins;
  cr_assert_eq (pthread_create (&client, NULL, write_one, &ret), 0);
  sem_wait (&begins);
  sleeps = &sleep;
  id = start_removing ("a", false);
  for (unsigned i = 0; i < 3; i++)
    sem_wait (&sleep);
  cr_assert_eq (nused_on ("a"), 1);
  sem_post (&goes_on);
  pthread_join (client, NULL);
  cr_assert_eq (ret, 0);
  assert_job (finish (id), JOB_DONE, NULL);
  assert_gone ("a");
  stamped_assert_whole (&pages, drum);
}

/* Nor does it give up for pages that can't be read before it has seen all. */
Test (evacuate, waits_for_writes_with_unreadable_pages)
{
  sem_t begins, goes_on, event;
  pthread_t client;
  uint64_t id;
  int ret = 77;

  sem_init (&begins, 0, 0);
  sem_init (&goes_on, 0, 0);
  sem_init (&event, 0, 0);
  make_a_and_b (true);
  write_90_pages ();
  spoil (3);
  write_goes_on = &goes_on;
  write_begins = &begins;
  cr_assert_eq (pthread_create (&client, NULL, write_one, &ret), 0);
  sem_wait (&begins);
  sleeps = job_waits_or_ends = &event;
  id = start_removing ("a", false);
  sem_wait (&event);
  assert_state ("a", DEVICE_CLOSING);
  cr_assert_eq (nused_on ("a"), 2);
  sem_post (&goes_on);
  pthread_join (client, NULL);
  cr_assert_eq (ret, 0);
  pages.sequence[3] = STAMPED_EIO;
  assert_job (finish (id), JOB_FAILED, "1 pages on it can't be read");
  cr_assert_eq (nused_on ("a"), 1);
  stamped_assert_whole (&pages, drum);
}

static void *
read_one (void *arg)
{
  static char data[PAGE_BYTES];

  *(int *) arg = export_read (export, data, sizeof data, 234 * PAGE_BYTES);
  return NULL;
}

/* A read under way keeps its page where it is: the file is not closed under it. */
Test (evacuate, waits_for_reads_under_way)
{
  sem_t begins, goes_on, event;
  pthread_t client;
  uint64_t id;
  int ret = 77;

  sem_init (&begins, 0, 0);
  sem_init (&goes_on, 0, 0);
  sem_init (&event, 0, 0);
  make_a_and_b (true);
  write_90_pages ();
  read_goes_on = &goes_on;
  read_begins = &begins;
  cr_assert_eq (pthread_create (&client, NULL, read_one, &ret), 0);
  sem_wait (&begins);
  job_waits_or_ends = &event;
  id = start_removing ("a", false);
  sem_wait (&event);
  assert_state ("a", DEVICE_CLOSING);
  cr_assert_gt (nused_on ("a"), 0);
  sem_post (&goes_on);
  pthread_join (client, NULL);
  cr_assert_eq (ret, 0);
  assert_job (finish (id), JOB_DONE, NULL);
  stamped_assert_whole (&pages, drum);
}

static void
refuse_after_two (void)
{
  refuse_next = npieces == 2;
}

/* A piece that finds no room for all is tried smaller; the next ones grow again, by a page each. */
Test (evacuate, pieces_grow_again)
{
  unsigned whole;

  make_a_and_b (true);
  write_90_pages ();
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  whole = npieces;
  drum_add_file (drum, "a", 5, A_SLOTS);
  assert_job (rebalance (), JOB_DONE, NULL);
  npieces = 0;
  after_piece = refuse_after_two;
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  cr_assert (npieces > whole && npieces <= whole + 3, "%u pieces, not %u and some", npieces, whole);
}

/* A rate holds from the first piece on: pieces get smaller, and a cancelled job does not wait for the next. */
Test (evacuate, slow_jobs_can_be_cancelled)
{
  struct drum_device_info a;
  sem_t moved;

  sem_init (&moved, 0, 0);
  make_a_and_b (true);
  write_90_pages ();
  cr_assert (find ("a", &a));
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("a")), &a.swapdev), 0);
  uint64_t id = start (a.swapdev, false, 1);
  while (nused_on ("a") == 90)
    sched_yield ();
  cr_assert_eq (jobs_cancel (jobs, id), 0);
  assert_job (finish (id), JOB_CANCELLED, NULL);
  cr_assert_eq (nused_on ("a"), 89);
  assert_state ("a", DEVICE_OPEN);
}

/* ---- cancelled ---- */

static unsigned cancel_after;
static uint64_t cancel_job;

static void
cancel_then (void)
{
  if (npieces == cancel_after)
    jobs_cancel (jobs, cancel_job);
}

/* Cancelled after any piece, the device is open, and everything is whole; the next remove goes on from there. */
Test (evacuate, cancelled_after_any_piece)
{
  unsigned n;

  make_a_and_b (true);
  write_90_pages ();
  after_piece = cancel_then;
  for (n = 1;; n++) {
    struct job_info info;

    npieces = 0;
    cancel_after = n;
    cancel_job = 2 * n - 1; /* the others rebalance */
    info = remove_device ("a", false);
    if (info.state == JOB_DONE)
      break;
    assert_job (info, JOB_CANCELLED, NULL);
    cr_assert_eq (npieces, n);
    cr_assert_eq (info.total_bytes, 90 * PAGE_BYTES);
    cr_assert_eq (info.done_bytes, (90 - nused_on ("a")) * PAGE_BYTES);
    assert_state ("a", DEVICE_OPEN);
    stamped_assert_whole (&pages, drum);
    assert_job (rebalance (), JOB_DONE, NULL);
    cr_assert_eq (nused_on ("a"), 90);
  }
  cr_assert_gt (n, 5);
  stamped_assert_whole (&pages, drum);
}

/* ---- what can't be read ---- */

static void
assert_unreadable (struct job_info info, const unsigned *page, unsigned n)
{
  cr_assert_eq (info.nunreadable, n, "%u", (unsigned) info.nunreadable);
  for (unsigned i = 0; i < n && i < JOB_LISTED; i++) {
    cr_assert_str_eq (info.unreadable[i].export, "e");
    cr_assert_eq (info.unreadable[i].page, page[i], "%u", (unsigned) info.unreadable[i].page);
  }
}

/* Three pages are spoiled: the others move, the device stays, closed. */
static void
fail_to_remove_three (void)
{
  static const unsigned spoiled[] = { 3, 17, 20 };
  struct job_info info;

  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  for (unsigned i = 0; i < 3; i++) {
    spoil (spoiled[i]);
    pages.sequence[spoiled[i]] = STAMPED_EIO;
  }
  info = remove_device ("a", false);
  assert_job (info, JOB_FAILED, "3 pages on it can't be read: it stays, closed");
  assert_unreadable (info, spoiled, 3);
  cr_assert_eq (info.nlost, 0);
  cr_assert_eq (info.done_bytes, 57 * PAGE_BYTES);
  assert_state ("a", DEVICE_CLOSED);
  cr_assert_eq (nused_on ("a"), 3);
  stamped_assert_whole (&pages, drum);
}

/* Pages that can't be read stay where they are, on a closed device, with all others moved off; it can be opened again. */
Test (evacuate, unreadable_pages_stay)
{
  make_a_and_b (true);
  fail_to_remove_three ();
  cr_assert_eq (stamped_write (&pages, 100, 10), 0);
  cr_assert_eq (nused_on ("a"), 3, "a closed device is used");
  cr_assert_eq (drum_reopen_device (drum, place_of (scratch_path ("a"))), 0);
  cr_assert_eq (stamped_write (&pages, 110, 10), 0);
  cr_assert_eq (nused_on ("a"), 13);
  stamped_assert_whole (&pages, drum);
}

/* What is written again or trimmed is unreadable no more; when that was all, the device can leave. */
Test (evacuate, unreadable_pages_are_replaced)
{
  make_a_and_b (true);
  fail_to_remove_three ();
  cr_assert_eq (stamped_write (&pages, 3, 1), 0);
  stamped_trim (&pages, 17, 1);
  cr_assert_eq (nused_on ("a"), 1);
  assert_unreadable (remove_device ("a", false), (unsigned[]){ 20 }, 1);
  cr_assert_eq (stamped_write (&pages, 15, 10), 0);
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  assert_gone ("a");
  stamped_assert_whole (&pages, drum);
}

/* With force they are lost: EIO until written as a whole or trimmed, never zeroes; and a lost page does not move. */
Test (evacuate, force_gives_them_up)
{
  struct job_info info;
  char part[100];

  make_a_and_b (true);
  fail_to_remove_three ();
  info = remove_device ("a", true);
  assert_job (info, JOB_DONE, NULL);
  assert_unreadable (info, (unsigned[]){ 3, 17, 20 }, 3);
  cr_assert_eq (info.nlost, 3);
  assert_gone ("a");
  cr_assert_eq (export_npages_used (export), 57);
  stamped_assert_whole (&pages, drum);
  cr_assert_eq (export_read (export, part, sizeof part, 3 * PAGE_BYTES + 5), -EIO);
  cr_assert_eq (export_write (export, part, sizeof part, 3 * PAGE_BYTES), -EIO);
  cr_assert_eq (export_zero (export, sizeof part, 3 * PAGE_BYTES, false), -EIO);

  drum_add_file (drum, "c", 9, A_SLOTS);
  info = remove_device ("b", true);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  stamped_assert_whole (&pages, drum);

  cr_assert_eq (stamped_write (&pages, 3, 1), 0);
  stamped_trim (&pages, 17, 1);
  cr_assert_eq (export_zero (export, PAGE_BYTES, 20 * PAGE_BYTES, false), 0);
  pages.sequence[20] = 0;
  stamped_assert_whole (&pages, drum);
}

/* Force loses nothing that can be read, and says nothing of it. */
Test (evacuate, force_without_need)
{
  struct job_info info;

  make_a_and_b (true);
  write_90_pages ();
  info = remove_device ("a", true);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  stamped_assert_whole (&pages, drum);
}

/* Reads that fail are the same, also without checksums: all are counted, the first listed; when the device is well again
 * nothing is lost. */
Test (evacuate, failed_reads)
{
  enum { NBAD = 40 };
  unsigned bad[NBAD];
  struct job_info info;

  make_a_and_b (false);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  for (unsigned i = 0; i < NBAD; i++)
    bad[i] = i;
  atomic_store (&unreadable_bytes, NBAD * PAGE_BYTES);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("a")), 1), 0);
  info = remove_device ("a", false);
  assert_job (info, JOB_FAILED, "40 pages on it can't be read");
  assert_unreadable (info, bad, NBAD);
  cr_assert_eq (nused_on ("a"), NBAD);
  assert_state ("a", DEVICE_CLOSED);
  atomic_store (&unreadable_bytes, 0);
  stamped_assert_whole (&pages, drum);
  assert_job (remove_device ("a", false), JOB_DONE, NULL);
  stamped_assert_whole (&pages, drum);
}

static void
heal_at_the_end (void)
{
  if (npieces == 2)
    atomic_store (&unreadable_bytes, 0);
}

/* What could not be read is tried once more at least before it is given up. */
Test (evacuate, failed_reads_are_tried_again)
{
  struct job_info info;

  make_a_and_b (true);
  cr_assert_eq (stamped_write (&pages, 0, 48), 0);
  atomic_store (&unreadable_bytes, 16 * PAGE_BYTES);
  after_piece = heal_at_the_end;
  info = remove_device ("a", false);
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.nunreadable + info.nlost, 0);
  stamped_assert_whole (&pages, drum);
}

/* Cancelled while pages are given up: those that are lost are counted. */
Test (evacuate, lost_pages_are_counted_when_cancelled)
{
  static const unsigned spoiled[] = { 3, 40 };
  struct job_info info;

  make_a_and_b (true);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  for (unsigned i = 0; i < 2; i++)
    spoil (spoiled[i]);
  after_piece = cancel_then;
  cancel_after = 5; /* four pieces move what can be read, the fifth loses page 3 */
  cancel_job = 1;
  info = remove_device ("a", true);
  assert_job (info, JOB_CANCELLED, NULL);
  cr_assert_eq (nused_on ("a"), 1);
  cr_assert_eq (info.nlost, 1);
  cr_assert_eq (info.nunreadable, 1);
  pages.sequence[3] = pages.sequence[40] = STAMPED_EIO;
  assert_state ("a", DEVICE_OPEN);
  stamped_assert_whole (&pages, drum);
}

/* ---- clients that need the room ---- */

static unsigned next_page;
static int client_ret;

/* Write new pages until none is left of the room beside what is closing, and one more. */
static void
need_the_room (void)
{
  struct drum_device_info a;

  if (npieces != 2)
    return;
  do
    client_ret = stamped_write (&pages, next_page++, 1);
  while (client_ret == 0 && find ("a", &a) && a.state == DEVICE_CLOSING);
}

/* A write that finds no room elsewhere has that of the closing device, which is open again, and stays. */
Test (evacuate, a_new_page_needs_the_room)
{
  struct job_info info;

  make_a_and_b (true);
  write_90_pages ();
  next_page = 100;
  after_piece = need_the_room;
  info = remove_device ("a", false);
  cr_assert_eq (client_ret, 0, "%s", strerror (-client_ret));
  assert_job (info, JOB_FAILED, "/a: the other devices have no more room");
  cr_assert_eq (npieces, 2, "it went on");
  assert_state ("a", DEVICE_OPEN);
  stamped_assert_whole (&pages, drum);
}

/* Leave room for 5 pages beside what is kept. */
static void
leave_little_room (void)
{
  if (npieces == 2)
    drum_take_any (drum, drum_nfree (drum) - room_nkept (B_SLOTS) - 5);
}

/* Evacuation itself never takes what is kept back for rewrites: these are no moves to the others. */
Test (evacuate, leaves_what_is_kept)
{
  struct drum_device_info b;

  make_a_and_b (true);
  write_90_pages ();
  after_piece = leave_little_room;
  assert_job (remove_device ("a", false), JOB_FAILED, "no more room");
  assert_state ("a", DEVICE_OPEN);
  cr_assert (find ("b", &b));
  cr_assert_eq (b.nfree, room_nkept (B_SLOTS), "%u", b.nfree);
  stamped_assert (&pages);
}

/* Fill what is not closing with other pages, and then rewrite one of the closing device's. */
static void
rewrite_in_need (void)
{
  if (npieces != 1)
    return;
  drum_take_any (drum, drum_nfree (drum) - room_nkept (B_SLOTS));
  client_ret = stamped_write (&pages, 299, 1);
}

/* The same for a page of the closing device itself, whose new slot is no new one once the device is open again: nothing but
 * the kept slots is free. */
Test (evacuate, a_rewrite_needs_the_room)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "a", 5, 200); /* 3 of its slots are kept back; all are used */
  drum_add_file (drum, "b", 0, B_SLOTS);
  cr_assert_eq (stamped_write (&pages, 0, 1), 0);
  cr_assert_eq (stamped_write (&pages, 101, 199), 0);
  cr_assert_eq (nused_on ("a"), 200);
  after_piece = rewrite_in_need;
  info = remove_device ("a", false);
  cr_assert_eq (client_ret, 0, "%s", strerror (-client_ret));
  assert_job (info, JOB_FAILED, "no more room");
  assert_state ("a", DEVICE_OPEN);
  stamped_assert (&pages);
}

static void
need_the_room_last (void)
{
  npieces = 2;
  need_the_room ();
}

/* The same at the last moment, when all pages have moved: the device is not taken from under the client's page. */
Test (evacuate, a_new_page_needs_the_room_last)
{
  struct job_info info;

  make_a_and_b (true);
  write_90_pages ();
  next_page = 100;
  before_remove = need_the_room_last;
  info = remove_device ("a", false);
  cr_assert_eq (client_ret, 0, "%s", strerror (-client_ret));
  assert_job (info, JOB_FAILED, "/a: the other devices have no more room");
  assert_state ("a", DEVICE_OPEN);
  cr_assert_eq (nused_on ("a"), 1);
  stamped_assert_whole (&pages, drum);
}

/* ---- upwards ---- */

/* Pages rise into the room above, as many as fit; then it is done. Equals and what is higher stay. */
Test (evacuate, rises_into_the_room_above)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "low", 0, 200);
  cr_assert_eq (stamped_write (&pages, 0, 150), 0);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.done_bytes + info.total_bytes, 0, "there is nothing above");
  drum_add_file (drum, "high", 7, 50);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.done_bytes, 50 * PAGE_BYTES);
  cr_assert_eq (info.total_bytes, 50 * PAGE_BYTES);
  cr_assert_eq (nused_on ("high"), 50);
  cr_assert_eq (nused_on ("low"), 100);
  stamped_assert_whole (&pages, drum);
  drum_add_file (drum, "equal", 0, 300);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (info.done_bytes, 0);
  cr_assert_eq (nused_on ("equal"), 0);
}

/* The lowest rise first, to wherever there is room, and then those above them. */
Test (evacuate, rises_by_steps)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "low", 0, 100);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  drum_add_file (drum, "middle", 3, 50);
  cr_assert_eq (stamped_write (&pages, 100, 40), 0);
  drum_add_file (drum, "high", 7, 90);
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  cr_assert_eq (nused_on ("low"), 0);
  cr_assert_eq (nused_on ("high"), 90);
  cr_assert_eq (nused_on ("middle"), 10);
  cr_assert_eq (info.done_bytes, info.total_bytes);
  stamped_assert_whole (&pages, drum);
}

static struct job_info
rebalance_one_piece (void)
{
  npieces = 0;
  cancel_after = 1;
  cancel_job = 1;
  after_piece = cancel_then;
  return rebalance ();
}

/* Cancelled, it stops where it is; what it would have moved is said from the begin. */
Test (evacuate, rising_is_cancelled)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "low", 0, 100);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  drum_add_file (drum, "high", 7, 50);
  info = rebalance_one_piece ();
  assert_job (info, JOB_CANCELLED, NULL);
  cr_assert_eq (info.done_bytes, EVACUATE_PIECE * PAGE_BYTES);
  cr_assert_eq (info.total_bytes, 50 * PAGE_BYTES);
  cr_assert_eq (nused_on ("high"), EVACUATE_PIECE);
  stamped_assert_whole (&pages, drum);
}

/* Room on equals is no room to rise into, and pages of closed devices do not rise. */
Test (evacuate, what_can_rise)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "low", 0, 100);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  drum_add_file (drum, "equal", 0, 200);
  cr_assert_eq (drum_set_priority (drum, place_of (scratch_path ("low")), 0), 0); /* behind it */
  drum_add_file (drum, "lowest", -1, 200);
  drum_add_file (drum, "high", 7, 20);
  info = rebalance_one_piece ();
  cr_assert_eq (info.total_bytes, 20 * PAGE_BYTES, "%u", (unsigned) info.total_bytes / PAGE_BYTES);
}

Test (evacuate, closed_devices_do_not_rise)
{
  struct swapdev *dev;
  struct job_info info;

  make (true);
  drum_add_file (drum, "closed", 0, 100);
  cr_assert_eq (stamped_write (&pages, 0, 30), 0);
  drum_add_file (drum, "low", 1, 100);
  cr_assert_eq (stamped_write (&pages, 30, 30), 0);
  drum_add_file (drum, "high", 7, 200);
  drum_add_file (drum, "higher", 8, 200);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("closed")), &dev), 0);
  drum_end_closing (drum, dev, true);
  cr_assert_eq (drum_close_device (drum, place_of (scratch_path ("higher")), &dev), 0);
  info = rebalance_one_piece ();
  cr_assert_eq (info.total_bytes, 30 * PAGE_BYTES, "%u", (unsigned) info.total_bytes / PAGE_BYTES);
  after_piece = NULL;
  assert_job (rebalance (), JOB_DONE, NULL);
  cr_assert_eq (nused_on ("closed"), 30);
  cr_assert_eq (nused_on ("higher"), 0);
  cr_assert_eq (nused_on ("high"), 30);
  stamped_assert_whole (&pages, drum);
}

/* What can't be read stays where it is, and is said, once, though pieces are tried again and smaller; the job is done all the
 * same. */
Test (evacuate, unreadable_pages_do_not_rise)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "a", 0, 100);
  cr_assert_eq (stamped_write (&pages, 0, 60), 0);
  spoil (20);
  pages.sequence[20] = STAMPED_EIO;
  drum_add_file (drum, "high", 7, 200);
  alloc_max = 2;
  info = rebalance ();
  assert_job (info, JOB_DONE, NULL);
  assert_unreadable (info, (unsigned[]){ 20 }, 1);
  cr_assert_eq (info.nlost, 0);
  cr_assert_eq (nused_on ("high"), 59);
  assert_state ("a", DEVICE_OPEN);
  stamped_assert_whole (&pages, drum);
}
