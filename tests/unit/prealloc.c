/* SPDX-License-Identifier: BSD-3-Clause
 *
 * prealloc.c - tests of lib/prealloc.c. fallocate and pwrite go through here, so that they can fail as on other file
 * systems.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/prealloc.h"
#include "lib/units.h"
#include "tests/scratch.h"

#include "files.h"
#include "logged.h"

enum { FILE_BYTES = 1 << 20 };

/* What the next calls are to do: 0 is the real thing; of pwrite, another positive number is a short count. */
static int fallocate_errors[4], pwrite_results[4];
static unsigned nfallocates, npwrites;

int __real_fallocate (int fd, int mode, off_t offset, off_t len);
int __wrap_fallocate (int fd, int mode, off_t offset, off_t len);
ssize_t __real_pwrite (int fd, const void *buf, size_t n, off_t offset);
ssize_t __wrap_pwrite (int fd, const void *buf, size_t n, off_t offset);

int
__wrap_fallocate (int fd, int mode, off_t offset, off_t len)
{
  int err = nfallocates < 4 ? fallocate_errors[nfallocates] : 0;

  nfallocates++;
  if (!err)
    return __real_fallocate (fd, mode, offset, len);
  errno = err;
  return -1;
}

ssize_t
__wrap_pwrite (int fd, const void *buf, size_t n, off_t offset)
{
  int result = npwrites < 4 ? pwrite_results[npwrites] : 0;

  npwrites++;
  if (result == 0)
    return __real_pwrite (fd, buf, n, offset);
  if (result > 0)
    return __real_pwrite (fd, buf, (size_t) result, offset);
  errno = -result;
  return -1;
}

static char *path;
static int fd;

static void
setup (void)
{
  scratch_setup ();
  path = file_make ("f", FILE_BYTES);
  fd = open (path, O_RDWR | O_CLOEXEC);
  cr_assert_geq (fd, 0);
  logged_start ();
}

TestSuite (prealloc, .init = setup, .fini = scratch_teardown);

/* Anything in the middle of the file; the rest is a hole. */
static void
write_some (void)
{
  char data[3 * PAGE_BYTES];

  memset (data, 'x', sizeof data);
  file_write (path, FILE_BYTES / 2 - 100, data, sizeof data);
  npwrites = 0;
}

static void
assert_contents (void)
{
  size_t len;
  unsigned char *data = file_contents (path, &len);

  cr_assert_eq (len, FILE_BYTES);
  for (size_t i = 0; i < len; i++) {
    bool inside = i >= FILE_BYTES / 2 - 100 && i < FILE_BYTES / 2 - 100 + 3 * PAGE_BYTES;
    cr_assert (data[i] == (inside ? 'x' : 0), "byte %zu has changed", i);
  }
}

static void
assert_no_holes (void)
{
  cr_assert_eq (lseek (fd, 0, SEEK_HOLE), FILE_BYTES, "hole at %jd",
                (intmax_t) lseek (fd, 0, SEEK_HOLE));
}

static uint64_t
allocated_bytes (void)
{
  struct stat st;

  cr_assert_eq (fstat (fd, &st), 0);
  return (uint64_t) st.st_blocks * 512;
}

/* A new file gets its size and all its space. */
Test (prealloc, allocates_a_new_file)
{
  cr_assert_eq (ftruncate (fd, 0), 0);
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
  cr_assert_eq (lseek (fd, 0, SEEK_END), FILE_BYTES);
  cr_assert_geq (allocated_bytes (), FILE_BYTES);
  cr_assert_eq (logged_count (""), 0);
}

/* Holes of an existing file are filled, and what is written in it stays. */
Test (prealloc, fills_holes_and_keeps_contents)
{
  write_some ();
  cr_assert_lt (allocated_bytes (), FILE_BYTES);
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
  cr_assert_geq (allocated_bytes (), FILE_BYTES);
  assert_contents ();
}

/* A hole is found also in a file that has as many blocks as its size needs, because some lie behind its end. */
Test (prealloc, finds_a_hole_where_blocks_lie_behind_the_end)
{
  cr_assert_eq (__real_fallocate (fd, FALLOC_FL_KEEP_SIZE, FILE_BYTES / 2, FILE_BYTES), 0);
  cr_assert_geq (allocated_bytes (), FILE_BYTES);
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
  cr_assert_geq (allocated_bytes (), FILE_BYTES + FILE_BYTES / 2, "the first half is a hole");
}

/* Where there is no fallocate, zeroes are written, to the holes alone. */
Test (prealloc, writes_where_fallocate_is_not_supported)
{
  static const int errors[] = { EOPNOTSUPP, ENOSYS };

  for (unsigned i = 0; i < 2; i++) {
    cr_assert_eq (ftruncate (fd, 0), 0);
    cr_assert_eq (ftruncate (fd, FILE_BYTES), 0);
    write_some ();
    nfallocates = 0;
    fallocate_errors[0] = errors[i];
    cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
    cr_assert_gt (npwrites, 0);
    assert_no_holes ();
    assert_contents ();
  }
  cr_assert_eq (logged_count (""), 0);
}

/* Writing goes on after a signal and after a short count. */
Test (prealloc, writes_on_after_a_short_count)
{
  write_some ();
  fallocate_errors[0] = EOPNOTSUPP;
  pwrite_results[0] = -EINTR;
  pwrite_results[1] = 100;
  pwrite_results[2] = 5000;
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
  assert_no_holes ();
  assert_contents ();
}

/* fallocate is asked again after a signal. */
Test (prealloc, allocates_again_after_a_signal)
{
  fallocate_errors[0] = fallocate_errors[1] = EINTR;
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
  cr_assert_eq (nfallocates, 3);
  cr_assert_geq (allocated_bytes (), FILE_BYTES);
}

/* No room is said in one line that names the file and the size; the contents stay. */
Test (prealloc, says_that_there_is_no_room)
{
  static const int errors[] = { ENOSPC, EDQUOT };

  for (unsigned i = 0; i < 2; i++) {
    nfallocates = 0;
    fallocate_errors[0] = errors[i];
    write_some ();
    cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), -errors[i]);
    cr_assert_eq (logged_count ("no room for 1M"), 1);
    assert_logged_error (path);
    assert_contents ();
  }
}

/* The same while it writes. */
Test (prealloc, says_that_writing_found_no_room)
{
  write_some ();
  fallocate_errors[0] = EOPNOTSUPP;
  pwrite_results[1] = -ENOSPC;
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), -ENOSPC);
  cr_assert_eq (logged_count ("no room for 1M"), 1);
  assert_logged_error (path);
  assert_contents ();
}

/* Any other failure is said by its name. */
Test (prealloc, says_what_else_failed)
{
  fallocate_errors[0] = EIO;
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), -EIO);
  cr_assert_eq (logged_count (strerror (EIO)), 1);
  assert_logged_error (path);
}

/* More than the file system has left, with what others were promised, is refused before anything is allocated. */
Test (prealloc, asks_for_room_before_it_takes_it)
{
  uint64_t before = allocated_bytes (), missing = 77;

  cr_assert_eq (prealloc_check (fd, path, UINT64_C (15) << 40, 0, &missing), -ENOSPC);
  assert_logged_error ("no room for 15T");
  cr_assert_eq (prealloc_check (fd, path, FILE_BYTES, UINT64_C (15) << 40, &missing), -ENOSPC);
  assert_logged_error (path);
  cr_assert_eq (missing, 77, "output changed on failure");
  cr_assert_eq (allocated_bytes (), before);
}

/* What is missing is what is not allocated yet. */
Test (prealloc, says_how_much_is_missing)
{
  uint64_t missing;

  cr_assert_eq (prealloc_check (fd, path, FILE_BYTES, 0, &missing), 0);
  cr_assert_eq (missing, FILE_BYTES);
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, NULL), 0);
  cr_assert_eq (prealloc_check (fd, path, FILE_BYTES, UINT64_C (15) << 40, &missing), 0);
  cr_assert_eq (missing, 0);
  cr_assert_eq (logged_count (""), 0);
}

static unsigned nprogress;
static uint64_t last_done;

static int
stop_at (void *opaque, uint64_t done_bytes, uint64_t total_bytes)
{
  cr_assert_eq (total_bytes, FILE_BYTES);
  cr_assert_gt (done_bytes, last_done);
  last_done = done_bytes;
  return ++nprogress == *(unsigned *) opaque ? -ECANCELED : 0;
}

/* Who watches hears how far it is, up to the end, and may stop it; then nothing is said. */
Test (prealloc, can_be_watched_and_stopped)
{
  unsigned nth = 0;
  struct prealloc_watch watch = { .progress = stop_at, .opaque = &nth };

  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, &watch), 0);
  cr_assert_eq (last_done, FILE_BYTES);
  nth = 1;
  nprogress = 0;
  last_done = 0;
  cr_assert_eq (prealloc_file (fd, path, FILE_BYTES, &watch), -ECANCELED);
  cr_assert_eq (logged_count (""), 0);
}
