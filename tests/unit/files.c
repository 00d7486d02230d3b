/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "files.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "tests/scratch.h"

unsigned
scratch_count (void)
{
  DIR *d = opendir (scratch_path (""));
  unsigned n = 0;

  cr_assert_not_null (d);
  while (readdir (d))
    n++;
  closedir (d);
  return n - 2; /* . and .. */
}

unsigned
count_open_files (void)
{
  DIR *d = opendir ("/proc/self/fd");
  unsigned n = 0;

  cr_assert_not_null (d);
  while (readdir (d))
    n++;
  closedir (d);
  return n;
}

char *
file_make (const char *name, uint64_t size_bytes)
{
  char *path = scratch_path (name);
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  cr_assert_geq (fd, 0, "%s: %m", path);
  cr_assert_eq (ftruncate (fd, (off_t) size_bytes), 0, "%s: %m", path);
  close (fd);
  return path;
}

void
file_read (const char *path, uint64_t offset, void *data, size_t len)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC);

  cr_assert_geq (fd, 0, "%s: %m", path);
  cr_assert_eq (pread (fd, data, len, (off_t) offset), (ssize_t) len, "%s: %m", path);
  close (fd);
}
