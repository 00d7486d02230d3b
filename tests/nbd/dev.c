/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dev.c - backing files in the scratch folder, and what is in them.
 */
#include <config.h>

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "dev.h"
#include "server.h"

char *
run_path (const char *name)
{
  return scratch_path (str ("run/%s", name));
}

char *
dev_path (const char *fmt, ...)
{
  va_list args;
  char *path;

  va_start (args, fmt);
  path = scratch_path (str ("dev/%s", vstr (fmt, args)));
  va_end (args);
  return path;
}

void
dev_setup (void)
{
  scratch_setup ();
  /* Others may look inside: some servers run as another user. */
  cr_assert_eq (chmod (scratch_path (""), 0755), 0);
  cr_assert_eq (mkdir (scratch_path ("run"), 0777), 0);
  cr_assert_eq (mkdir (scratch_path ("dev"), 0755), 0);
}

void
dev_teardown (void)
{
  server_kill_all ();
  scratch_teardown ();
}

static char *
make_file (const char *name, uint64_t size_bytes, bool allocate)
{
  char *path = dev_path ("%s", name);
  int fd = open (path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

  cr_assert_geq (fd, 0, "%s: %m", path);
  cr_assert_eq (ftruncate (fd, size_bytes), 0, "%s: %m", path);
  if (allocate && size_bytes)
    cr_assert_eq (posix_fallocate (fd, 0, size_bytes), 0, "%s", path);
  close (fd);
  return path;
}

char *
dev_sparse (const char *name, uint64_t size_bytes)
{
  return make_file (name, size_bytes, false);
}

char *
dev_allocated (const char *name, uint64_t size_bytes)
{
  return make_file (name, size_bytes, true);
}

/* FNV-1a by 8 bytes; only has to notice a change. */
static uint64_t
contents_hash (const char *path)
{
  size_t len;
  unsigned char *data = file_contents (path, &len);
  uint64_t hash = UINT64_C (0xcbf29ce484222325), word;

  for (size_t i = 0; i < len; i += 8) {
    word = 0;
    memcpy (&word, data + i, len - i < 8 ? len - i : 8);
    hash = (hash ^ word) * UINT64_C (0x100000001b3);
  }
  free (data);
  return hash;
}

static char *
describe_devices (bool with_blocks)
{
  struct dirent **names;
  int n = scandir (dev_path ("%s", ""), &names, NULL, alphasort);
  char *all = str ("%s", "");

  cr_assert_geq (n, 0);
  for (int i = 0; i < n; i++) {
    char *path = dev_path ("%s", names[i]->d_name);
    struct stat st;

    cr_assert_eq (lstat (path, &st), 0, "%s: %m", path);
    if (names[i]->d_name[0] == '.')
      continue;
    all = str ("%s%s mode %o size %jd blocks %jd hash %" PRIx64 "\n", all, names[i]->d_name,
               st.st_mode, (intmax_t) st.st_size, with_blocks ? (intmax_t) st.st_blocks : 0,
               S_ISREG (st.st_mode) ? contents_hash (path) : 0);
  }
  return all;
}

char *
dev_snapshot (void)
{
  return describe_devices (true);
}

char *
dev_contents (void)
{
  return describe_devices (false);
}

char *
shell_output (const char *fmt, ...)
{
  char *out = run_path ("shell.out"), *command;
  va_list args;

  va_start (args, fmt);
  command = vstr (fmt, args);
  va_end (args);
  cr_assert_eq (shell ("{ %s\n} >'%s'", command, out), 0);
  return (char *) file_contents (out, NULL);
}
