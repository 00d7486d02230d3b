/* SPDX-License-Identifier: BSD-3-Clause
 *
 * state.c - tests of lib/state.c: whose folder it is, what a start that fails leaves of it, and what a sync takes along.
 *
 * The linker sends the syncs of lib/ through here.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/drum.h"
#include "lib/manifest.h"
#include "lib/mapfile.h"
#include "lib/pagemap.h"
#include "lib/state.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"

enum { NPAGES = 1000, NTHREADS = 8 };

static long fs_type;
static char synced[256]; /* the last letters of the files that were, in order */
static atomic_uint nsynced;
static _Atomic char fails_for; /* the last letter of the file whose sync fails */
static _Atomic char holds_for; /* and of that whose sync waits */
static sem_t holds, goes_on, waits;
static atomic_bool
  durable[NPAGES]; /* those that had an entry in the map when its sync began, once that is done */

int __real_fstatfs (int fd, struct statfs *fs);
int __wrap_fstatfs (int fd, struct statfs *fs);

int
__wrap_fstatfs (int fd, struct statfs *fs)
{
  int ret = __real_fstatfs (fd, fs);

  fs->f_type = fs_type;
  return ret;
}

int __wrap_fdatasync (int fd);

int
__wrap_fdatasync (int fd)
{
  uint64_t entries[NPAGES] = { 0 };
  char link[64], path[4096];
  ssize_t n;

  snprintf (link, sizeof link, "/proc/self/fd/%d", fd);
  n = readlink (link, path, sizeof path);
  if (n > 0)
    synced[atomic_fetch_add (&nsynced, 1) % sizeof synced] = path[n - 1];
  if (n > 0 && path[n - 1] == '1' && pread (fd, entries, sizeof entries, 0) < 0)
    abort ();
  if (n > 0 && holds_for == path[n - 1]) {
    sem_post (&holds);
    sem_wait (&goes_on);
  }
  if (n > 0 && fails_for == path[n - 1]) {
    errno = EIO;
    return -1;
  }
  if (n > 0 && path[n - 1] == '1')
    for (unsigned i = 0; i < NPAGES; i++)
      durable[i] = durable[i] || entries[i];
  return 0;
}

int __real_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex);

int
__wrap_pthread_cond_wait (pthread_cond_t *cond, pthread_mutex_t *mutex)
{
  sem_post (&waits); /* with the mutex held: who takes it next finds us waiting */
  return __real_pthread_cond_wait (cond, mutex);
}

static char *dir;
static struct state *state;

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  fs_type = EXT4_SUPER_MAGIC;
  sem_init (&holds, 0, 0);
  sem_init (&goes_on, 0, 0);
  sem_init (&waits, 0, 0);
  dir = scratch_path ("dir");
}

TestSuite (state, .init = setup, .fini = scratch_teardown, .timeout = 120);

static void
open_state (void)
{
  cr_assert_eq (state_open (dir, false, &state), 0, "%s", logged_last ());
}

/* ---- the folder ---- */

/* A manifest of so many exports; a second one of them has a map. */
static int
compose_exports (void *opaque, const struct manifest *before, struct manifest *m)
{
  unsigned n = *(unsigned *) opaque;

  (void) before;
  m->generation = n;
  m->exports = calloc (n, sizeof *m->exports);
  for (m->nexports = 0; m->nexports < n; m->nexports++)
    m->exports[m->nexports] = (struct manifest_export){
      .name = strdup (m->nexports ? "b" : "a"),
      .size_bytes = NPAGES * PAGE_BYTES,
      .number = m->nexports + 1,
      .terms.weight = 1,
      .given = strdup (""),
      .pattern = strdup (""),
    };
  return 0;
}

static void
update (unsigned nexports)
{
  cr_assert_eq (state_update (state, compose_exports, &nexports), 0, "%s", logged_last ());
}

static struct mapfile *
get_map (uint64_t number, bool create)
{
  struct mapfile *mf;

  cr_assert_eq (state_map (state, number, NPAGES, create, &mf), 0, "%s", logged_last ());
  return mf;
}

Test (state, is_made_if_it_is_not_there)
{
  open_state ();
  cr_assert_eq (file_stat (dir).st_mode, S_IFDIR | 0700);
  cr_assert_null (state_manifest (state));
  cr_assert (state_is_durable (state) && !state_syncs_writes (state));
  cr_assert_str_eq (state_dir (state), dir);
  update (1);
  mapfile_close (get_map (1, true));
  state_close (state);
  open_state ();
  cr_assert_eq (state_manifest (state)->nexports, 1);
  mapfile_close (get_map (1, false));
  state_close (state);
}

Test (state, one_server_at_a_time)
{
  struct state *other = NULL;

  open_state ();
  cr_assert_eq (state_open (dir, false, &other), -EBUSY);
  cr_assert_null (other);
  assert_logged_error ("another server uses it");
  cr_assert_eq (access (str ("%s/lock", dir), F_OK), 0, "who was refused has removed the lock");
  state_close (state);
  open_state ();
  state_close (state);
}

/* A start that comes to nothing leaves nothing. */
Test (state, undo_removes_what_it_made)
{
  open_state ();
  update (1);
  mapfile_close (get_map (1, true));
  state_undo (state);
  cr_assert_eq (scratch_count (), 0);
}

/* Or what was there. */
Test (state, undo_puts_back_what_was_there)
{
  unsigned char *before;
  size_t len, len_now;

  open_state ();
  update (1);
  mapfile_close (get_map (1, true));
  state_close (state);
  before = file_contents (str ("%s/manifest", dir), &len);
  open_state ();
  update (2);
  mapfile_close (get_map (2, true));
  update (2);
  state_undo (state);
  cr_assert_arr_eq (file_contents (str ("%s/manifest", dir), &len_now), before, len);
  cr_assert_eq (len_now, len);
  cr_assert_eq (
    shell ("test \"$(echo '%s'/*)\" = '%s/lock %s/manifest %s/map-1'", dir, dir, dir, dir), 0);
}

Test (state, maps_without_a_manifest_are_refused)
{
  open_state ();
  mapfile_close (get_map (1, true));
  state_close (state);
  cr_assert_eq (state_open (dir, false, &state), -EBADMSG);
  assert_logged_error ("its file manifest is missing");
}

Test (state, a_file_is_no_folder)
{
  file_make ("dir", 1);
  cr_assert_eq (state_open (dir, false, &state), -ENOTDIR);
  assert_logged_error ("can't be opened");
  cr_assert_eq (scratch_count (), 1);
}

/* ---- syncs ---- */

static struct drum *drum;
static struct mapfile *map;
static uint32_t a;

/* A state with a drum on devices a and b, and a map that ends in 1. */
static void
make (void)
{
  drum = drum_make (1);
  a = drum_add_file (drum, "a", 0, 100);
  drum_add_file (drum, "b", 0, 100);
  open_state ();
  state_set_drum (state, drum);
  map = get_map (1, true);
  cr_assert_eq (state_keep (state, map), 0);
  cr_assert_eq (state_sync (state),
                0); /* the first one takes along what a server before has left */
  nsynced = 0;
}

static void
unmake (void)
{
  state_forget (state, map);
  mapfile_close (map);
  state_close (state);
  drum_destroy (drum);
}

static void
write_entry (uint64_t page)
{
  struct pagemap_entry entry = { .slot = a };
  int error;

  cr_assert_eq (mapfile_write (map, page, &entry, 1, &error), 1);
}

static void
write_slot (uint32_t slot)
{
  static char data[PAGE_BYTES];
  struct iovec iov = { data, sizeof data };
  struct drum_io io = { .slot = slot, .iov = &iov, .niov = 1 };

  drum_transfer (drum, NULL, true, &io, 1, NULL);
  cr_assert_eq (io.ret, 0);
}

static void
assert_synced (const char *files)
{
  cr_assert (nsynced == strlen (files) && memcmp (synced, files, nsynced) == 0, "%u: %.*s",
             (unsigned) nsynced, (int) nsynced, synced);
  nsynced = 0;
}

/* A server that was killed has synced nothing: the first one is for all that it may have written. */
Test (state, the_first_sync_is_for_all)
{
  make ();
  update (1); /* there are no maps without a manifest */
  unmake ();
  open_state ();
  drum = drum_make (1);
  a = drum_add_file (drum, "a", 0, 100);
  state_set_drum (state, drum);
  map = get_map (1, false);
  cr_assert_eq (state_keep (state, map), 0);
  nsynced = 0;
  cr_assert_eq (state_sync (state), 0);
  assert_synced ("a1");
  unmake ();
}

/* What was written to, and first that to which the maps point. */
Test (state, devices_are_synced_before_maps)
{
  make ();
  cr_assert_eq (state_sync (state), 0);
  assert_synced ("");
  write_entry (1);
  write_slot (a);
  cr_assert_eq (state_sync (state), 0);
  assert_synced ("a1");
  write_slot (a + 103); /* behind the guard and what is reserved of b */
  cr_assert_eq (state_sync (state), 0);
  assert_synced ("b");
  write_entry (2);
  cr_assert_eq (state_sync (state), 0);
  assert_synced ("1");
  unmake ();
}

/* In memory nothing outlives the power. */
Test (state, nothing_is_synced_for_a_folder_in_memory)
{
  fs_type = TMPFS_MAGIC;
  make ();
  cr_assert (!state_is_durable (state));
  write_slot (a);
  write_entry (1);
  cr_assert_eq (state_sync (state), 0);
  assert_synced ("");
  unmake ();
}

Test (state, a_map_that_can_not_be_synced_stays_so)
{
  make ();
  write_entry (1);
  fails_for = '1';
  cr_assert_eq (state_sync (state), -EIO);
  fails_for = 0;
  write_entry (2);
  cr_assert_eq (state_sync (state), -EIO);
  unmake ();
}

/* Until it has left. The others are synced all the same. */
Test (state, a_device_that_can_not_be_synced_stays_so)
{
  struct drum_device_info info;

  make ();
  write_slot (a);
  write_entry (1);
  fails_for = 'a';
  cr_assert_eq (state_sync (state), -EIO);
  assert_synced ("a1");
  fails_for = 0;
  drum_assert_state (drum, "a", DEVICE_FAILING);
  cr_assert_eq (state_sync (state), -EIO);
  cr_assert (drum_find_file (drum, "a", &info));
  cr_assert_eq (drum_remove (drum, info.swapdev), 0);
  swapdev_close (info.swapdev);
  cr_assert_eq (state_sync (state), 0);
  unmake ();
}

static void *
sync_main (void *ret)
{
  *(int *) ret = state_sync (state);
  return NULL;
}

/* A device stays while it is synced. */
Test (state, a_device_that_is_synced_can_not_leave)
{
  struct drum_device_info info;
  pthread_t thread;
  int ret = 1;

  make ();
  write_slot (a);
  holds_for = 'a';
  cr_assert_eq (pthread_create (&thread, NULL, sync_main, &ret), 0);
  sem_wait (&holds);
  cr_assert (drum_find_file (drum, "a", &info));
  cr_assert_eq (drum_remove (drum, info.swapdev), -EAGAIN);
  sem_post (&goes_on);
  pthread_join (thread, NULL);
  cr_assert_eq (ret, 0);
  cr_assert_eq (drum_remove (drum, info.swapdev), 0);
  swapdev_close (info.swapdev);
  unmake ();
}

/* Whoever comes while one sync is under way waits for the next one, and all of them share that; also its failure. */
static void
share (bool second_fails)
{
  pthread_t thread[NTHREADS];
  int ret[NTHREADS];

  make ();
  write_entry (1);
  holds_for = '1';
  cr_assert_eq (pthread_create (&thread[0], NULL, sync_main, &ret[0]), 0);
  sem_wait (&holds);
  holds_for = 0;
  write_entry (2);
  write_slot (a);
  for (unsigned i = 1; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, sync_main, &ret[i]), 0);
  for (unsigned i = 1; i < NTHREADS; i++)
    sem_wait (&waits);
  assert_synced ("1");
  if (second_fails)
    fails_for = 'a';
  sem_post (&goes_on);
  for (unsigned i = 0; i < NTHREADS; i++) {
    pthread_join (thread[i], NULL);
    cr_assert_eq (ret[i], i > 0 && second_fails ? -EIO : 0, "thread %u: %d", i, ret[i]);
  }
  assert_synced ("a1");
  unmake ();
}

Test (state, those_who_wait_share_a_sync)
{
  share (false);
}

Test (state, those_who_wait_share_its_failure)
{
  share (true);
}

static atomic_bool late;

/* Each finds what it has written durable when its sync returns. */
static void *
write_and_sync (void *arg)
{
  struct pagemap_entry entry = { .slot = a };

  for (unsigned page = (unsigned) (uintptr_t) arg; page < NPAGES; page += NTHREADS) {
    int error;

    if (mapfile_write (map, page, &entry, 1, &error) != 1 || state_sync (state) < 0 ||
        !durable[page])
      late = true;
  }
  return NULL;
}

Test (state, every_sync_takes_along_what_was_written_before)
{
  pthread_t thread[NTHREADS];

  make ();
  for (uintptr_t i = 0; i < NTHREADS; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, write_and_sync, (void *) i), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  cr_assert (!late);
  cr_assert_leq (nsynced, NPAGES);
  unmake ();
}
