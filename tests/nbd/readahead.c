/* SPDX-License-Identifier: BSD-3-Clause
 *
 * readahead.c - readahead=: what lies beside a page that was read comes into the page cache.
 */
#include <config.h>

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <linux/magic.h>

#include "tests/scratch.h"

#include "livedrum.h"

enum { NPAGES = 200, PAGE = 100, DEVICE_BYTES = 4 << 20 };

TestSuite (readahead, .init = livedrum_setup, .fini = livedrum_teardown, .timeout = 300);

/* How many pages of the device are in the page cache. */
static unsigned
count_cached (int fd)
{
  unsigned char in_core[DEVICE_BYTES / PAGE_BYTES];
  void *map = mmap (NULL, DEVICE_BYTES, PROT_READ, MAP_SHARED, fd, 0);
  unsigned n = 0;

  cr_assert_neq (map, MAP_FAILED, "%m");
  cr_assert_eq (mincore (map, DEVICE_BYTES, in_core), 0, "%m");
  munmap (map, DEVICE_BYTES);
  for (unsigned i = 0; i < sizeof in_core; i++)
    n += in_core[i] & 1;
  return n;
}

/* With readahead, and a device of which nothing is in the page cache, read a page among others. Returns the device. */
static int
read_one (const char *param)
{
  struct statfs fs;
  int fd;

  cr_assert_eq (statfs (run_path (""), &fs), 0, "%m");
  if (fs.f_type == TMPFS_MAGIC)
    cr_skip_test ("temporary files are in memory, and always cached: set TMPDIR");
  livedrum_start (PARAMS (dev_path ("a,size=4M"), "size=2M", param));
  write_pages (0, NPAGES);
  fd = open (a, O_RDONLY | O_CLOEXEC);
  cr_assert_geq (fd, 0, "%m");
  cr_assert_eq (fdatasync (fd), 0, "%m");
  posix_fadvise (fd, 0, 0, POSIX_FADV_DONTNEED);
  if (count_cached (fd) > 0)
    cr_skip_test ("this file system does not let go of what is cached");
  expect_pages (PAGE, PAGE + 1);
  return fd;
}

Test (readahead, what_lies_beside)
{
  int fd = read_one ("readahead=128K");

  while (count_cached (fd) < 32) /* or the test's time is up */
    usleep (1000);
  expect_pages (0, NPAGES);
}

Test (readahead, is_off)
{
  int fd = read_one (NULL);

  cr_assert_eq (count_cached (fd), 1);
}

/* There is nobody who would find it there. */
Test (readahead, direct)
{
  livedrum_start (PARAMS (dev_path ("a,size=4M"), "direct=yes", "readahead=128K"));
  cr_assert (strstr (server_stderr (&srv), "readahead=: does nothing with direct=yes"), "%s",
             server_stderr (&srv));
  write_pages (0, NPAGES);
  expect_pages (0, NPAGES);
}
