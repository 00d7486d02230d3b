/* SPDX-License-Identifier: BSD-3-Clause
 *
 * mapfile.c - tests of lib/mapfile.c. The linker sends the calls of lib/ through here.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/mapfile.h"
#include "lib/pagemap.h"
#include "lib/pagesum.h"
#include "lib/units.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "failed.h"
#include "files.h"
#include "logged.h"
#include "nth.h"

enum { NPAGES = 200000 }; /* three pieces and a bit of a fourth */

WRAP_ALLOC (malloc, (size_t n), (n))
WRAP_ALLOC (calloc, (size_t n, size_t size), (n, size))
WRAP_FREE
WRAP (int, unlinkat, (int dirfd, const char *name, int flags), (dirfd, name, flags), -1, EACCES)
WRAP (int, fstat, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP (int, ftruncate, (int fd, off_t n), (fd, n), -1, EFBIG)
WRAP (int, fsync, (int fd), (fd), -1, EIO)

WRAP_ASPRINTF

WRAP_OPENAT

static bool no_seek_data;

off_t __real_lseek (int fd, off_t offset, int whence);
off_t __wrap_lseek (int fd, off_t offset, int whence);

off_t
__wrap_lseek (int fd, off_t offset, int whence)
{
  errno = EINVAL;
  return no_seek_data ? -1 : __real_lseek (fd, offset, whence);
}

/* Threads sync, too, so no nth here. */
static _Atomic unsigned nsyncs;
static int sync_errors[3]; /* of the first calls; 0: it goes through */
static void (*in_sync) (void), (*in_write) (void);

int __real_fdatasync (int fd);
int __wrap_fdatasync (int fd);

int
__wrap_fdatasync (int fd)
{
  unsigned n = nsyncs++;
  int ret = __real_fdatasync (fd);

  if (in_sync)
    in_sync ();
  if (n < 3 && sync_errors[n]) {
    errno = sync_errors[n];
    return -1;
  }
  return ret;
}

/* What calls do: at most so many bytes; 0: as many as it is asked for. Or fail, or end at 0. */
struct turn {
  size_t max_bytes;
  int error;
  bool nothing;
};

static const struct turn *turns;
static unsigned nturns, ncalls, nread_calls;

/* True if it is not done, and *ret is what it returns. */
static bool
take_turn (struct iovec *iov, ssize_t *ret)
{
  const struct turn *t = ncalls < nturns ? &turns[ncalls] : NULL;

  if (turns)
    ncalls++;
  if (t && t->max_bytes && t->max_bytes < iov->iov_len)
    iov->iov_len = t->max_bytes;
  if (t && t->error)
    errno = t->error;
  *ret = t && t->error ? -1 : 0;
  return t && (t->error || t->nothing);
}

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t offset)
{
  struct iovec one = *iov;
  ssize_t ret;

  if (in_write)
    in_write ();
  return niov == 1 && take_turn (&one, &ret) ? ret : __real_pwritev (fd, &one, niov, offset);
}

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t offset);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset);

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t offset)
{
  struct iovec one = *iov;
  ssize_t ret;

  nread_calls++;
  if (fails ("preadv", EIO))
    return -1;
  return niov == 1 && take_turn (&one, &ret) ? ret : __real_preadv (fd, &one, niov, offset);
}

#define TAKE_TURNS(...)                                \
  do {                                                 \
    static const struct turn list[] = { __VA_ARGS__ }; \
    turns = list;                                      \
    nturns = sizeof list / sizeof list[0];             \
    ncalls = 0;                                        \
  } while (0)

static int dirfd;
static const char *dir;

static void
setup (void)
{
  scratch_setup ();
  dir = scratch_path ("");
  dirfd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  cr_assert_geq (dirfd, 0);
  logged_start ();
}

TestSuite (mapfile, .init = setup, .fini = scratch_teardown, .timeout = 120);

static struct mapfile *
create (const char *name, uint64_t npages)
{
  struct mapfile *mf;

  cr_assert_eq (mapfile_create (dirfd, dir, name, npages, &mf), 0, "%s", logged_last ());
  return mf;
}

static struct mapfile *
reopen (struct mapfile *mf, const char *name, uint64_t npages)
{
  mapfile_close (mf);
  cr_assert_eq (mapfile_open (dirfd, dir, name, npages, &mf), 0, "%s", logged_last ());
  return mf;
}

static void
write_all (struct mapfile *mf, uint64_t page, const struct pagemap_entry *entries, unsigned n)
{
  int error = 77;

  cr_assert_eq (mapfile_write (mf, page, entries, n, &error), n);
  cr_assert_eq (error, 77, "output changed");
}

static void
write_one (struct mapfile *mf, uint64_t page, uint32_t slot, uint32_t sum)
{
  write_all (mf, page, &(struct pagemap_entry){ .slot = slot, .sum = sum }, 1);
}

/* What a read gave, of an export of at most NPAGES. */
struct seen {
  struct pagemap_entry entry[NPAGES];
  uint64_t end; /* of the last piece */
  unsigned npieces;
  uint64_t nentries;
  int ret; /* of the piece that is the last */
  unsigned ret_at;
};

static int
see (void *opaque, uint64_t page, const struct pagemap_entry *entries, unsigned n)
{
  struct seen *seen = opaque;

  cr_assert (page >= seen->end && n > 0 && n <= MAPFILE_READ);
  seen->end = page + n;
  seen->npieces++;
  seen->nentries += n;
  if (page + n <= NPAGES)
    memcpy (&seen->entry[page], entries, n * sizeof *entries);
  return seen->npieces == seen->ret_at ? seen->ret : 0;
}

static struct seen *
read_all (struct mapfile *mf)
{
  static struct seen seen;

  memset (&seen, 0, sizeof seen);
  cr_assert_eq (mapfile_read (mf, see, &seen), 0, "%s", logged_last ());
  return &seen;
}

#define assert_entry(seen, page, slot_, sum_)                                                    \
  cr_assert ((seen)->entry[page].slot == (slot_) && (seen)->entry[page].sum == (sum_),           \
             "page %u: slot %u, sum %x", (unsigned) (page), (unsigned) (seen)->entry[page].slot, \
             (unsigned) (seen)->entry[page].sum)

/* A new one is a hole of the right size, nobody else's to read. */
Test (mapfile, starts_empty)
{
  struct mapfile *mf = create ("map", NPAGES);
  struct stat st = file_stat (scratch_path ("map"));

  cr_assert_eq (st.st_size, NPAGES * 8);
  cr_assert_eq (st.st_blocks, 0);
  cr_assert_eq (st.st_mode, S_IFREG | 0600);
  cr_assert_str_eq (mapfile_path (mf), str ("%s/map", dir));
  cr_assert_eq (read_all (mf)->npieces, 0);
  mf = reopen (mf, "map", NPAGES);
  cr_assert_eq (read_all (mf)->npieces, 0);
  mapfile_close (mf);
  cr_assert_eq (logged_count (""), 0);
}

/* Eight bytes a page: the slot, then the checksum, each the lowest byte first. */
Test (mapfile, format)
{
  static const unsigned char expected[8] = { 1, 2, 3, 4, 5, 6, 7, 8 };
  struct mapfile *mf = create ("map", NPAGES);
  unsigned char bytes[8];

  write_one (mf, NPAGES - 1, 0x04030201, 0x08070605);
  file_read (scratch_path ("map"), (NPAGES - 1) * 8, bytes, 8);
  cr_assert_eq (memcmp (bytes, expected, 8), 0);
  cr_assert_eq (file_stat (scratch_path ("map")).st_size, NPAGES * 8);
  mapfile_close (mf);
}

/* All bits come back, from the first page to the last. */
Test (mapfile, keeps_all_bits)
{
  struct mapfile *mf = create ("map", NPAGES);
  struct seen *seen;

  write_one (mf, 0, SLOT_MAX, UINT32_MAX);
  write_one (mf, NPAGES - 1, SLOT_LOST, 0);
  write_one (mf, 511, 1, 0x80000000);
  mf = reopen (mf, "map", NPAGES);
  seen = read_all (mf);
  assert_entry (seen, 0, SLOT_MAX, UINT32_MAX);
  assert_entry (seen, NPAGES - 1, SLOT_LOST, 0);
  assert_entry (seen, 511, 1, 0x80000000);
  cr_assert_eq (seen->npieces, 2, "holes are passed over");
  write_one (mf, 511, SLOT_NONE, 0);
  assert_entry (read_all (mf), 511, SLOT_NONE, 0);
  mapfile_close (mf);
}

/* The same as an array, whatever is written, and with a file system that knows no holes. */
static void
compare_with_array (bool seek)
{
  static struct pagemap_entry model[NPAGES];
  struct mapfile *mf = create ("map", NPAGES);
  struct rng rng = rng_for (1);

  no_seek_data = !seek;
  for (unsigned step = 0, nsteps = random_steps (3000); step < nsteps; step++) {
    struct pagemap_entry entries[MAPFILE_BATCH];
    unsigned n = 1 + (unsigned) rng_below (&rng, MAPFILE_BATCH);
    uint64_t page = rng_below (&rng, NPAGES - n + 1);

    rng_fill (&rng, entries, n * sizeof entries[0]);
    write_all (mf, page, entries, n);
    memcpy (&model[page], entries, n * sizeof entries[0]);
    if (rng_below (&rng, 300) == 0)
      mf = reopen (mf, "map", NPAGES);
    if (rng_below (&rng, 100) == 0)
      cr_assert_eq (memcmp (read_all (mf)->entry, model, sizeof model), 0,
                    "step %u, DRUM_TEST_SEED=%" PRIu64, step, random_seed ());
  }
  cr_assert_eq (memcmp (read_all (mf)->entry, model, sizeof model), 0);
  mapfile_close (mf);
}

Test (mapfile, is_an_array)
{
  compare_with_array (true);
}

Test (mapfile, is_an_array_without_seek_data)
{
  compare_with_array (false);
}

/* Holes are not read, however long they are: 1 TiB of export, and one page of it written. */
Test (mapfile, holes_cost_nothing)
{
  const uint64_t npages = UINT64_C (1) << 28;
  struct mapfile *mf = create ("map", npages);
  struct seen *seen = read_all (mf);

  cr_assert_eq (nread_calls, 0);
  write_one (mf, npages / 2 + 5, 1, 2);
  seen = read_all (mf);
  cr_assert_eq (seen->npieces, 1);
  cr_assert_leq (seen->nentries, MAPFILE_READ);
  cr_assert_eq (nread_calls, 1);
  mapfile_close (mf);
}

/* Large pieces, as many as it takes. */
Test (mapfile, reads_in_pieces)
{
  struct mapfile *mf = create ("map", NPAGES);
  struct pagemap_entry entries[MAPFILE_BATCH];
  struct seen *seen;

  memset (entries, 1, sizeof entries);
  for (uint64_t page = 0; page < NPAGES; page += MAPFILE_BATCH)
    write_all (mf, page, entries,
               NPAGES - page < MAPFILE_BATCH ? (unsigned) (NPAGES - page) : MAPFILE_BATCH);
  seen = read_all (mf);
  cr_assert_eq (seen->npieces, (NPAGES + MAPFILE_READ - 1) / MAPFILE_READ);
  cr_assert_eq (seen->nentries, NPAGES);
  cr_assert_eq (nread_calls, seen->npieces);
  mapfile_close (mf);
}

/* Who looks at the pieces may stop, and says what comes back. */
Test (mapfile, read_may_stop)
{
  struct mapfile *mf = create ("map", NPAGES);
  static struct seen seen;

  write_one (mf, 0, 1, 1);
  write_one (mf, 100000, 1, 1);
  write_one (mf, 199999, 1, 1);
  seen = (struct seen){ .ret = -EUCLEAN, .ret_at = 2 };
  cr_assert_eq (mapfile_read (mf, see, &seen), -EUCLEAN);
  cr_assert_eq (seen.npieces, 2);
  seen = (struct seen){ .ret = 5, .ret_at = 1 };
  cr_assert_eq (mapfile_read (mf, see, &seen), 5);
  cr_assert_eq (seen.npieces, 1);
  cr_assert_eq (logged_count (""), 0);
  mapfile_close (mf);
}

/* Short counts go on, signals do no harm, also in the middle of an entry. */
Test (mapfile, short_counts_go_on)
{
  struct mapfile *mf = create ("map", NPAGES);
  struct pagemap_entry entries[100];
  struct rng rng = rng_for (2);

  rng_fill (&rng, entries, sizeof entries);
  TAKE_TURNS ({ .max_bytes = 8 }, { .error = EINTR }, { .max_bytes = 13 }, { .error = EINTR },
              { .error = EAGAIN }, { .max_bytes = 1 });
  write_all (mf, 1000, entries, 100);
  cr_assert_eq (ncalls, 7);
  TAKE_TURNS ({ .error = EINTR }, { .max_bytes = 8 * 1000 + 3 }, { .error = EINTR });
  cr_assert_eq (memcmp (&read_all (mf)->entry[1000], entries, sizeof entries), 0);
  cr_assert_gt (ncalls, 3);
  mapfile_close (mf);
}

/* What was written before a write fails counts; a page of which only a part was written does not. */
Test (mapfile, failing_writes)
{
  struct mapfile *mf = create ("map", NPAGES);
  struct pagemap_entry entries[100];
  struct seen *seen;
  int error = 0;

  memset (entries, 7, sizeof entries);
  TAKE_TURNS ({ .error = ENOSPC });
  cr_assert_eq (mapfile_write (mf, 0, entries, 100, &error), 0);
  cr_assert_eq (error, -ENOSPC);
  TAKE_TURNS ({ .nothing = true });
  cr_assert_eq (mapfile_write (mf, 0, entries, 100, &error), 0);
  cr_assert_eq (error, -EIO);
  TAKE_TURNS ({ .max_bytes = 8 * 30 }, { .error = EIO });
  cr_assert_eq (mapfile_write (mf, 0, entries, 100, &error), 30);
  cr_assert_eq (error, -EIO);
  TAKE_TURNS ({ .max_bytes = 8 * 20 }, { .max_bytes = 8 * 20 + 7 }, { .error = EDQUOT });
  cr_assert_eq (mapfile_write (mf, 1000, entries, 100, &error), 40);
  cr_assert_eq (error, -ENOSPC);
  turns = NULL;
  seen = read_all (mf);
  assert_entry (seen, 29, 0x07070707, 0x07070707);
  assert_entry (seen, 30, SLOT_NONE, 0);
  assert_entry (seen, 1039, 0x07070707, 0x07070707);
  cr_assert_eq (logged_count (""), 0, "the caller says it");
  mapfile_close (mf);
}

/* A file that can't be read is named, and so is where. */
Test (mapfile, failing_reads)
{
  static struct seen seen;
  struct mapfile *mf = create ("map", NPAGES);

  write_one (mf, 150000, 1, 1);
  TAKE_TURNS ({ .error = EIO });
  cr_assert_eq (mapfile_read (mf, see, &seen), -EIO);
  assert_logged_error ("/map: can't be read from byte 1196032 on: Input/output error");
  TAKE_TURNS ({ .nothing = true });
  cr_assert_eq (mapfile_read (mf, see, &seen), -EIO);
  cr_assert_eq (seen.npieces, 0);
  mapfile_close (mf);
}

/* One by the same name is replaced, and is not written to. */
Test (mapfile, create_replaces)
{
  struct mapfile *old = create ("map", 1000), *mf;
  struct stat st;

  write_one (old, 5, 1, 2);
  chmod (scratch_path ("map"), 0666);
  mf = create ("map", NPAGES);
  cr_assert_eq (read_all (mf)->npieces, 0);
  assert_entry (read_all (old), 5, 1, 2);
  st = file_stat (scratch_path ("map"));
  cr_assert (st.st_size == NPAGES * 8 && st.st_mode == (S_IFREG | 0600));
  mapfile_close (old);
  mapfile_close (mf);
}

/* What is not there, has another size, or is something else is not taken. */
Test (mapfile, open_refuses)
{
  struct mapfile *mf = NULL;

  cr_assert_eq (mapfile_open (dirfd, dir, "map", NPAGES, &mf), -ENOENT);
  assert_logged_error ("/map: the map of an export can't be opened: No such file");
  mapfile_close (create ("map", NPAGES));
  cr_assert_eq (mapfile_open (dirfd, dir, "map", NPAGES + 1, &mf), -EINVAL);
  assert_logged_error ("/map: is 1600000 bytes, and a map of 200001 pages has 8 for each");
  cr_assert_eq (mapfile_open (dirfd, dir, "map", NPAGES - 1, &mf), -EINVAL);
  assert_logged_error ("it was cut");
  for (int off = -7; off < 8; off++) {
    cr_assert_eq (truncate (scratch_path ("map"), NPAGES * 8 + off), 0);
    cr_assert_eq (mapfile_open (dirfd, dir, "map", NPAGES, &mf), off ? -EINVAL : 0, "%d", off);
    if (mf)
      mapfile_close (mf);
    mf = NULL;
  }
  logged_start ();
  cr_assert_eq (mkfifo (scratch_path ("fifo"), 0600), 0);
  cr_assert_eq (mapfile_open (dirfd, dir, "fifo", 0, &mf), -EINVAL);
  assert_logged_error ("/fifo: is no regular file");
  cr_assert_eq (mapfile_create (dirfd, dir, "map", UINT64_MAX / 8 + 1, &mf), -EFBIG);
  cr_assert_eq (logged_count (""), 0, "who knows the export says it");
  cr_assert_null (mf, "output changed on failure");
}

/* Whatever fails in a create, an open or a read, it says so once, and leaves nothing behind. */
Test (mapfile, every_call_may_fail)
{
  unsigned nopen = count_open_files (), nfiles = scratch_count (), n, nfailed[3] = { 0 };
  int ret, before;
  static struct seen seen;

  for (unsigned what = 0; what < 3; what++) {
    for (n = 0;; n++) {
      struct mapfile *mf = NULL;

      before = nallocated;
      if (what == 2)
        mf = reopen (create ("map", NPAGES), "map", NPAGES), write_one (mf, 0, 1, 1);
      logged_start ();
      failed_call = NULL;
      fail_in = (int) n;
      ret = what == 0   ? mapfile_create (dirfd, dir, "map", NPAGES, &mf)
            : what == 1 ? mapfile_open (dirfd, dir, "map", NPAGES, &mf)
                        : mapfile_read (mf, see, &seen);
      fail_in = DISARMED;
      if (what == 2)
        mapfile_close (mf);
      else if (ret == 0)
        mapfile_close (mf);
      else
        cr_assert_null (mf, "%s: output changed", failed_call);
      cr_assert_eq (nallocated, before, "%s: memory leaks", failed_call);
      cr_assert_eq (count_open_files (), nopen, "%s: descriptors leak", failed_call);
      if (!failed_call)
        break;
      cr_assert_lt (ret, 0, "%s failed", failed_call);
      if (ret == -EFBIG)
        cr_assert_eq (logged_count (""), 0);
      else
        assert_logged_error ("/map: ");
      if (what == 0)
        cr_assert_eq (scratch_count (), nfiles, "%s: the file is left behind", failed_call);
      memset (&seen, 0, sizeof seen);
    }
    cr_assert_eq (ret, 0);
    nfailed[what] = n;
  }
  cr_assert_geq (nfailed[0], 4);
  cr_assert_geq (nfailed[1], 4);
  cr_assert_geq (nfailed[2], 2);
}

/* What is cut off is gone, and what is new has no entries. */
Test (mapfile, resizes)
{
  struct mapfile *mf = create ("map", NPAGES);

  write_one (mf, 100, 1, 2);
  write_one (mf, 1000, 3, 4);
  cr_assert_eq (mapfile_sync (mf), 0);
  nsyncs = 0;
  cr_assert_eq (mapfile_resize (mf, 1000), 0);
  cr_assert_eq (file_stat (scratch_path ("map")).st_size, 8000);
  assert_entry (read_all (mf), 100, 1, 2);
  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (nsyncs, 1, "a size is to be synced, too");
  mf = reopen (mf, "map", 1000);
  cr_assert_eq (mapfile_resize (mf, NPAGES), 0);
  assert_entry (read_all (mf), 100, 1, 2);
  assert_entry (read_all (mf), 1000, SLOT_NONE, 0);
  cr_assert_eq (mapfile_resize (mf, UINT64_MAX / 8 + 1), -EFBIG);
  mf = reopen (mf, "map", NPAGES);
  cr_assert_eq (mapfile_empty (mf), 0);
  cr_assert_eq (read_all (mf)->npieces, 0);
  write_one (mf, 100, 5, 6);
  mf = reopen (mf, "map", NPAGES);
  assert_entry (read_all (mf), 100, 5, 6);
  mapfile_close (mf);
  cr_assert_eq (logged_count (""), 0);
}

/* Of either size, or any in between, one comes to have the size it was to have; and no other does. */
Test (mapfile, finishes_resizes)
{
  for (uint64_t is = 900; is <= 1300; is += 100)
    for (unsigned k = 0; k < 2; k++) {
      uint64_t from = k ? 1000 : 1200, to = k ? 1200 : 1000;
      bool fits = is >= 1000 && is <= 1200;
      struct mapfile *mf = create ("map", is);

      write_one (mf, is - 1, 1, 2);
      mapfile_close (mf);
      logged_start ();
      cr_assert_eq (mapfile_finish_resize (dirfd, dir, "map", from, to), fits ? 0 : -EINVAL);
      cr_assert_eq (file_stat (scratch_path ("map")).st_size, (off_t) (fits ? to : is) * 8);
      if (!fits) {
        assert_logged_error ("it was cut, or is that of another export");
        continue;
      }
      cr_assert_eq (mapfile_open (dirfd, dir, "map", to, &mf), 0);
      assert_entry (read_all (mf), is - 1, is <= to ? 1 : SLOT_NONE, is <= to ? 2 : 0);
      mapfile_close (mf);
    }
  cr_assert_eq (truncate (scratch_path ("map"), 8001), 0);
  logged_start ();
  cr_assert_eq (mapfile_finish_resize (dirfd, dir, "map", 1000, 2000), -EINVAL);
  assert_logged_error ("/map: is 8001 bytes");
  cr_assert_eq (mapfile_finish_resize (dirfd, dir, "none", 1000, 2000), -ENOENT);
  assert_logged_error ("/none: ");
}

/* Entries pass to where there are none, those of lost pages as they are; what lies beyond the end can't, and nothing changes. */
Test (mapfile, passes)
{
  struct mapfile *from = create ("from", NPAGES), *to = create ("to", 150000);
  uint64_t a = pagesum_export_key ("a"), b = pagesum_export_key ("b");
  struct seen *seen;

  write_one (from, 100, 1, 2);
  write_one (from, 101, SLOT_LOST, 0);
  write_one (from, 102, 3, 4);
  write_one (from, 70000, 5, 6);
  write_one (to, 102, 7, 8);
  write_one (to, 103, 9, 10);
  write_one (from, 150000, SLOT_LOST, 0);
  cr_assert_eq (mapfile_pass (from, to, a, b), -EFBIG);
  assert_logged_error ("/from: has page 150000, which can't pass to");
  assert_entry (read_all (from), 70000, 5, 6);
  assert_entry (read_all (to), 100, SLOT_NONE, 0);
  write_one (from, 150000, SLOT_NONE, 0);
  write_one (from, 149999, 11, 12);
  cr_assert_eq (mapfile_pass (from, to, a, b), 0, "%s", logged_last ());
  cr_assert_eq (read_all (from)->npieces, 0);
  seen = read_all (to);
  assert_entry (seen, 100, 1, 2 ^ pagesum_key (a, 100) ^ pagesum_key (b, 100));
  assert_entry (seen, 101, SLOT_LOST, 0);
  assert_entry (seen, 102, 7, 8);
  assert_entry (seen, 103, 9, 10);
  assert_entry (seen, 70000, 5, 6 ^ pagesum_key (a, 70000) ^ pagesum_key (b, 70000));
  assert_entry (seen, 149999, 11, 12 ^ pagesum_key (a, 149999) ^ pagesum_key (b, 149999));
  cr_assert_eq (logged_count (""), 0);
  mapfile_close (from);
  mapfile_close (to);
}

/* A sync without a write before it asks the disk nothing. */
Test (mapfile, sync_only_when_written)
{
  struct mapfile *mf = create ("map", NPAGES);
  struct pagemap_entry entry = { .slot = 1 };
  int error;

  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (nsyncs, 1, "a new one is not durable");
  nsyncs = 0;
  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (nsyncs, 0);
  write_one (mf, 0, 1, 1);
  write_one (mf, 1, 1, 1);
  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (nsyncs, 1);
  /* a part of it may be there */
  TAKE_TURNS ({ .error = EIO });
  cr_assert_eq (mapfile_write (mf, 0, &entry, 1, &error), 0);
  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (nsyncs, 2);
  mapfile_close (mf);
}

static struct mapfile *written;

static void
write_meanwhile (void)
{
  in_sync = NULL;
  write_one (written, 0, 2, 2);
}

static void
sync_meanwhile (void)
{
  in_write = NULL;
  cr_assert_eq (mapfile_sync (written), 0);
}

/* What is written while a sync is under way is for the next one. */
Test (mapfile, write_during_sync)
{
  written = create ("map", NPAGES);
  write_one (written, 0, 1, 1);
  in_sync = write_meanwhile;
  cr_assert_eq (mapfile_sync (written), 0);
  cr_assert_eq (mapfile_sync (written), 0);
  cr_assert_eq (nsyncs, 2);
  cr_assert_eq (mapfile_sync (written), 0);
  cr_assert_eq (nsyncs, 2);
  mapfile_close (written);
}

/* And so is a write under way when a sync begins. */
Test (mapfile, sync_during_write)
{
  written = create ("map", NPAGES);
  write_one (written, 0, 1, 1);
  in_write = sync_meanwhile;
  write_one (written, 0, 2, 2);
  cr_assert_eq (nsyncs, 1);
  cr_assert_eq (mapfile_sync (written), 0);
  cr_assert_eq (nsyncs, 2);
  mapfile_close (written);
}

/* Once it has failed it fails for ever, whether something was written since or not; a signal is no failure. */
Test (mapfile, failed_sync_is_for_ever)
{
  struct mapfile *mf = create ("map", NPAGES);

  write_one (mf, 0, 1, 1);
  sync_errors[0] = EINTR;
  sync_errors[2] = EIO;
  cr_assert_eq (mapfile_sync (mf), 0);
  cr_assert_eq (nsyncs, 2);
  write_one (mf, 0, 1, 1);
  cr_assert_eq (mapfile_sync (mf), -EIO);
  cr_assert_eq (mapfile_sync (mf), -EIO);
  write_one (mf, 0, 1, 1);
  cr_assert_eq (mapfile_sync (mf), -EIO);
  mapfile_close (mf);
}

enum { NTHREADS = 4, PAGES_EACH = 1000 };

static void *
write_own_pages (void *arg)
{
  unsigned first = *(unsigned *) arg;
  struct rng rng = rng_for (first);

  for (unsigned step = 0, nsteps = random_steps (20000); step < nsteps; step++) {
    struct pagemap_entry entry = { .slot = step + 1, .sum = first };
    int error;

    FAIL_UNLESS (
      mapfile_write (written, first + rng_below (&rng, PAGES_EACH - 1), &entry, 1, &error) == 1,
      "a write failed");
  }
  /* to the last page a last entry, which the sync behind it must see */
  FAIL_UNLESS (mapfile_write (written, first + PAGES_EACH - 1,
                              &(struct pagemap_entry){ .slot = 1, .sum = first }, 1,
                              &(int){ 0 }) == 1,
               "a write failed");
  return NULL;
}

/* Writers on pages of their own, beside one who syncs. */
Test (mapfile, threads)
{
  pthread_t thread[NTHREADS];
  unsigned first[NTHREADS], before;
  struct seen *seen;

  written = create ("map", NTHREADS * PAGES_EACH);
  for (unsigned i = 0; i < NTHREADS; i++) {
    first[i] = i * PAGES_EACH;
    cr_assert_eq (pthread_create (&thread[i], NULL, write_own_pages, &first[i]), 0);
  }
  for (unsigned i = 0; i < 100; i++)
    cr_assert_eq (mapfile_sync (written), 0);
  for (unsigned i = 0; i < NTHREADS; i++)
    pthread_join (thread[i], NULL);
  assert_not_failed ();
  cr_assert_eq (mapfile_sync (written), 0);
  before = nsyncs;
  cr_assert_eq (mapfile_sync (written), 0);
  cr_assert_eq (nsyncs, before);
  seen = read_all (written);
  for (unsigned page = 0; page < NTHREADS * PAGES_EACH; page++)
    cr_assert (seen->entry[page].slot == SLOT_NONE ||
                 seen->entry[page].sum == page / PAGES_EACH * PAGES_EACH,
               "page %u", page);
  for (unsigned i = 0; i < NTHREADS; i++)
    assert_entry (seen, first[i] + PAGES_EACH - 1, 1, first[i]);
  mapfile_close (written);
}
