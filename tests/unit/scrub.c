/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scrub.c - tests of lib/scrub.c: what it finds, and what it leaves alone. evacuate_threads.c scrubs beside clients in threads.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "lib/drum-health.h"
#include "lib/scrub.h"
#include "lib/stats.h"
#include "tests/scratch.h"

#include "evacuating.h"
#include "files.h"
#include "logged.h"

enum { NWRITTEN = 60 };

static bool no_memory;

void *__real_mmap (void *at, size_t n, int prot, int flags, int fd, off_t offset);
void *__wrap_mmap (void *at, size_t n, int prot, int flags, int fd, off_t offset);

void *
__wrap_mmap (void *at, size_t n, int prot, int flags, int fd, off_t offset)
{
  if (!no_memory)
    return __real_mmap (at, n, prot, flags, fd, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

TestSuite (scrub, .init = evacuating_setup, .fini = evacuating_teardown, .timeout = 120);

static struct scrub scrub = { .name = "all of it" };

static int
scrub_main (struct job *job, void *opaque)
{
  (void) opaque;
  return scrub_run (job, &scrub);
}

/* Of everything, or of one device. */
static uint64_t
start_scrub (const char *device, uint64_t rate)
{
  struct drum_device_info info = { .swapdev = NULL };
  uint64_t id;

  if (device)
    cr_assert (drum_find_file (drum, device, &info));
  scrub.drum = drum;
  scrub.exports = exports;
  scrub.dev = info.swapdev;
  cr_assert_eq (jobs_start (jobs, JOB_SCRUB, device, rate, scrub_main, NULL, &id), 0);
  return id;
}

static struct job_info
run_scrub (const char *device)
{
  return finish (start_scrub (device, 0));
}

static void
assert_progress (struct job_info info, unsigned ndone, unsigned ntotal)
{
  cr_assert_eq (info.done_bytes, ndone * PAGE_BYTES, "%u", (unsigned) info.done_bytes / PAGE_BYTES);
  cr_assert_eq (info.total_bytes, ntotal * PAGE_BYTES, "%u",
                (unsigned) info.total_bytes / PAGE_BYTES);
}

/* It read so many pages, and found these to be unreadable. */
static void
assert_found (struct job_info info, unsigned nread, const unsigned *page, unsigned n)
{
  assert_job (info, JOB_DONE, NULL);
  assert_progress (info, nread, nread);
  assert_unreadable (info, page, n);
  cr_assert_eq (info.nlost, 0);
  cr_assert_eq (info.warnings != NULL, n > 0, "%s", info.warnings);
}

/* Page i, for i < NWRITTEN, is in slot i of a. */
static void
make_written (bool checksum)
{
  make_a_and_b (checksum);
  cr_assert_eq (stamped_write (&pages, 0, NWRITTEN), 0);
  logged_start ();
}

static struct drum_device_info
device (const char *name)
{
  struct drum_device_info info;

  cr_assert (drum_find_file (drum, name, &info));
  return info;
}

static uint64_t
nreads_of (const char *name)
{
  struct stats_snapshot snapshot;

  stats_read (swapdev_stats (device (name).swapdev, false), &snapshot);
  return snapshot.nrequests;
}

/* Pages of all kinds, on both devices: those that have a slot are read, each once, and nothing is changed. */
Test (scrub, all_is_well)
{
  make_with_90_pages (true);
  cr_assert_eq (stamped_write (&pages, 300, 70), 0);
  cr_assert_gt (drum_nused_on (drum, "b"), 0);
  logged_start ();
  assert_found (run_scrub (NULL), 160, NULL, 0);
  cr_assert_eq (logged_count (""), 1);
  cr_assert_eq (logged_count ("all of it: has been scrubbed: all of its 160 pages can be read"), 1);
  cr_assert_eq (device ("a").nmismatches, 0);
  stamped_assert_whole (&pages, drum);
}

/* Neighbours are read together, 64 KiB at once. */
Test (scrub, reads_runs)
{
  make_written (true);
  assert_found (run_scrub (NULL), NWRITTEN, NULL, 0);
  cr_assert_eq (nreads_of ("a"), 4, "%u", (unsigned) nreads_of ("a"));
  cr_assert_eq (hook.npieces, 4);
}

/* With a rate no more than it allows in 4 ms. */
Test (scrub, pieces_are_as_the_rate_has_them)
{
  make_written (true);
  assert_found (finish (start_scrub (NULL, 250 * 4 * PAGE_BYTES)), NWRITTEN, NULL, 0);
  cr_assert_eq (hook.npieces, NWRITTEN / 4, "%u", hook.npieces);
}

/* Change a byte of the page in this slot of a to another, or back. */
static void
flip (unsigned slot)
{
  unsigned char *file = file_contents (scratch_path ("a"), NULL), byte;
  uint64_t at = (slot + SWAPDEV_NRESERVED) * PAGE_BYTES + slot % PAGE_BYTES;

  byte = file[at] ^ 0x40;
  free (file);
  file_write (scratch_path ("a"), at, &byte, 1);
}

static char *
message_of (unsigned page)
{
  return str ("export \"e\": page %u can't be read: at offset %u of %s: wrong checksum", page,
              (unsigned) ((page + SWAPDEV_NRESERVED) * PAGE_BYTES), scratch_path ("a"));
}

/* Each page in turn: just this one is found, said, and counted, and keeps its slot. */
Test (scrub, each_page_corrupted_in_turn)
{
  make_written (true);
  for (unsigned page = 0; page < NWRITTEN; page++) {
    struct job_info info;

    flip (page);
    logged_start ();
    info = run_scrub (page % 2 ? "a" : NULL);
    assert_found (info, NWRITTEN, &page, 1);
    cr_assert_str_eq (info.warnings, "all of it: 1 of 60 pages can't be read: 0 with an I/O error, "
                                     "1 with a wrong checksum");
    cr_assert_eq (logged_count (""), 2, "%s", logged_last ());
    cr_assert_eq (logged_count (message_of (page)), 1);
    cr_assert_eq (device ("a").nmismatches, page + 1);
    flip (page);
  }
  assert_found (run_scrub (NULL), NWRITTEN, NULL, 0);
  cr_assert (device ("a").state == DEVICE_OPEN);
  stamped_assert_whole (&pages, drum);
}

/* Errors of I/O and wrong checksums are counted apart; the slots are looked at before they are used again. */
Test (scrub, two_kinds_of_errors)
{
  struct job_info info;

  make_written (true);
  spoil (20);
  spoil (59);
  atomic_store (&hook.unreadable_bytes, 5 * PAGE_BYTES);
  info = run_scrub (NULL);
  assert_found (info, NWRITTEN, (unsigned[]){ 0, 1, 2, 3, 4, 20, 59 }, 7);
  cr_assert_not_null (
    strstr (info.warnings,
            "7 of 60 pages can't be read: 5 with an I/O error, 2 with a wrong checksum"),
    "%s", info.warnings);
  cr_assert_eq (logged_count (str ("%s: %s", scratch_path ("a"), strerror (EIO))), 5);
  cr_assert_eq (device ("a").nmismatches, 2);
  atomic_store (&hook.unreadable_bytes, 0);
  cr_assert_eq (device ("a").nsuspect, 0);
  stamped_trim (&pages, 0, NWRITTEN);
  cr_assert_eq (device ("a").nsuspect, 7, "%u", device ("a").nsuspect);
  assert_found (run_scrub (NULL), 0, NULL, 0);
}

/* More than are listed. */
Test (scrub, many)
{
  unsigned bad[NWRITTEN];

  make_written (true);
  for (unsigned i = 0; i < NWRITTEN; i++)
    spoil (bad[i] = i);
  assert_found (run_scrub (NULL), NWRITTEN, bad, NWRITTEN);
}

/* A device that gives nothing back is a failing one, as if clients had read from it; the scrub goes on to its end. */
Test (scrub, a_device_that_fails)
{
  make_written (true);
  atomic_store (&hook.unreadable_bytes, NWRITTEN * PAGE_BYTES);
  cr_assert_eq (run_scrub (NULL).nunreadable, NWRITTEN);
  cr_assert (device ("a").state == DEVICE_FAILING);
  atomic_store (&hook.unreadable_bytes, 0);
  assert_found (run_scrub (NULL), NWRITTEN, NULL, 0);
}

/* Only what is on it is read, and found. */
Test (scrub, one_device)
{
  make (true);
  drum_add_file (drum, "a", 5, 30);
  drum_add_file (drum, "b", 0, B_SLOTS);
  cr_assert_eq (stamped_write (&pages, 0, 50), 0);
  cr_assert_eq (drum_nused_on (drum, "b"), 20);
  spoil (7);
  file_write (scratch_path ("b"), (12 + SWAPDEV_NRESERVED) * PAGE_BYTES, "!", 1); /* page 42 */
  assert_found (run_scrub ("a"), 30, (unsigned[]){ 7 }, 1);
  cr_assert_eq (nreads_of ("b"), 0);
  assert_found (run_scrub ("b"), 20, (unsigned[]){ 42 }, 1);
  assert_found (run_scrub (NULL), 50, (unsigned[]){ 7, 42 }, 2);
}

/* Without checksums only errors of I/O can be found, and that is said. */
Test (scrub, without_checksums)
{
  struct job_info info;

  make_written (false);
  spoil (20);
  info = run_scrub (NULL);
  assert_unreadable (info, NULL, 0);
  cr_assert_str_eq (info.warnings,
                    "export \"e\": has no checksums (checksum=no): of its pages only "
                    "those are found that can't be read at all");
  atomic_store (&hook.unreadable_bytes, 2 * PAGE_BYTES);
  info = run_scrub (NULL);
  assert_unreadable (info, (unsigned[]){ 0, 1 }, 2);
  cr_assert_not_null (strstr (info.warnings, "2 of 60 pages can't be read"));
}

/* Pages that were given up have no slot: there is nothing to be read. */
Test (scrub, lost_pages)
{
  make_written (true);
  spoil (20);
  assert_job (remove_device ("a", true), JOB_DONE, NULL);
  assert_found (run_scrub (NULL), NWRITTEN - 1, NULL, 0);
}

/* What has been found until then is known. */
Test (scrub, cancelled)
{
  struct job_info info;

  make_written (true);
  spoil (20);
  spoil (40);
  cancel_after (2, 1);
  info = run_scrub (NULL);
  assert_job (info, JOB_CANCELLED, NULL);
  assert_progress (info, 32, NWRITTEN);
  assert_unreadable (info, (unsigned[]){ 20 }, 1);
  cr_assert_not_null (strstr (info.warnings, "1 of 32 pages can't be read"), "%s", info.warnings);
  cr_assert_eq (hook.npieces, 2);
}

/* While it sleeps. What there was to do on a device is known. */
Test (scrub, one_device_cancelled)
{
  struct job_info info;

  make (true);
  drum_add_file (drum, "a", 5, 30);
  drum_add_file (drum, "b", 0, B_SLOTS);
  cr_assert_eq (stamped_write (&pages, 0, 50), 0);
  cancel_after (1, 1);
  info = finish (start_scrub ("b", 1));
  assert_job (info, JOB_CANCELLED, NULL);
  assert_progress (info, 1, 20);
}

Test (scrub, no_memory)
{
  uint64_t id;

  make_written (true);
  assert_found (run_scrub (NULL), NWRITTEN, NULL, 0); /* its thread's stack is there */
  no_memory = true;
  id = start_scrub (NULL, 0);
  jobs_wait (jobs, id);
  no_memory = false;
  assert_job (finish (id), JOB_FAILED, "all of it: can't be scrubbed: Cannot allocate memory");
}

static void
change_pages (void)
{
  if (hook.npieces == 1) {
    stamped_write (&pages, 16, 5); /* the slots of these are another's then */
    stamped_write (&pages, 200, 5);
    stamped_trim (&pages, 30, 20);
    stamped_write (&pages, 30, 3);
    stamped_trim (&pages, 0, 3);
  }
}

/* What is written and trimmed between two pieces is as it is then. */
Test (scrub, pages_change_meanwhile)
{
  struct job_info info;

  make_written (true);
  hook.after_piece = change_pages;
  info = run_scrub (NULL);
  assert_job (info, JOB_DONE, NULL);
  assert_unreadable (info, NULL, 0);
  assert_progress (info, 16 + (NWRITTEN - 16 - 20 + 3) + 5, 16 + (NWRITTEN - 16 - 20 + 3) + 5);
  stamped_assert_whole (&pages, drum);
}

static void
remove_a (void)
{
  if (hook.npieces == 1)
    jobs_wait (jobs, start_removing ("a", false));
}

/* The device leaves: so the job ends. */
Test (scrub, the_device_leaves)
{
  uint64_t id;

  make_written (true);
  hook.after_piece = remove_a;
  id = start_scrub ("a", 0);
  jobs_wait (jobs, id);
  assert_job (finish (id), JOB_FAILED, "all of it: can't be scrubbed: it has left the drum");
  drum_assert_gone (drum, "a");
  stamped_assert_whole (&pages, drum);
}

/* Its pages move to another: each is read all the same, where it is then. */
Test (scrub, a_device_leaves_meanwhile)
{
  make_written (true);
  hook.after_piece = remove_a;
  assert_found (run_scrub (NULL), NWRITTEN, NULL, 0);
  drum_assert_gone (drum, "a");
}

static void *
trim_one (void *unused)
{
  (void) unused;
  stamped_trim (&pages, 5, 1);
  return NULL;
}

/* Clients read beside it what it reads; who changes a page waits until it has been read. */
Test (scrub, clients_meanwhile)
{
  sem_t begins, goes_on;
  pthread_t client;
  char data[PAGE_BYTES];
  uint64_t id;

  make_written (true);
  sem_init (&begins, 0, 0);
  sem_init (&goes_on, 0, 0);
  hook.read_goes_on = &goes_on;
  hook.read_begins = &begins;
  id = start_scrub (NULL, 0);
  sem_wait (&begins);
  cr_assert_eq (export_read (export, data, sizeof data, 5 * PAGE_BYTES), 0);
  cr_assert_eq (pthread_create (&client, NULL, trim_one, NULL), 0);
  cr_assert_eq (export_write (export, data, sizeof data, 77 * PAGE_BYTES), 0);
  cr_assert_eq (export_trim (export, PAGE_BYTES, 77 * PAGE_BYTES), 0);
  cr_assert_eq (export_npages_used (export), NWRITTEN, "the page that is read has gone");
  sem_post (&goes_on);
  pthread_join (client, NULL);
  assert_found (finish (id), NWRITTEN, NULL, 0);
  stamped_assert_whole (&pages, drum);
}
