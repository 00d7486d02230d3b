/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch.c - a folder for each test.
 *
 * A child of the test, the janitor, waits for the other end of a pipe to close and then removes the folder. That happens
 * at the end of the test, and as well when the test crashes, times out or is interrupted.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "scratch.h"
#include "server.h"

static char *dir;
static pid_t janitor;
static int janitor_pipe;

static char *
vstr (const char *fmt, va_list args)
{
  char *s;

  cr_assert_geq (vasprintf (&s, fmt, args), 0);
  return s;
}

char *
str (const char *fmt, ...)
{
  va_list args;
  char *s;

  va_start (args, fmt);
  s = vstr (fmt, args);
  va_end (args);
  return s;
}

char *
run_path (const char *name)
{
  return str ("%s/run/%s", dir, name);
}

char *
dev_path (const char *fmt, ...)
{
  va_list args;
  char *name;

  va_start (args, fmt);
  name = vstr (fmt, args);
  va_end (args);
  return str ("%s/dev/%s", dir, name);
}

static int
remove_entry (const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
  (void) st, (void) kind, (void) ftw;
  return remove (path);
}

static void
janitor_main (int fd)
{
  char c;

  signal (SIGINT, SIG_IGN);
  signal (SIGTERM, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  dup2 (fd, 0);
  for (int i = 1; i < 1024; i++)
    close (i);
  while (read (0, &c, 1) == -1 && errno == EINTR)
    ;
  /* A server of a test that was killed may still be on its way out, and remove its own files under us. */
  for (int tries = 0; tries < 100; tries++)
    if (nftw (dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 || errno == ENOENT)
      break;
  _exit (0);
}

void
scratch_setup (void)
{
  const char *tmp = getenv ("TMPDIR");
  int fds[2];

  dir = str ("%s/drum-nbd-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  cr_assert_eq (pipe2 (fds, O_CLOEXEC), 0);
  cr_assert_not_null (mkdtemp (dir), "%s: %m", dir);
  fflush (NULL);
  janitor = fork ();
  cr_assert_geq (janitor, 0, "fork: %m");
  if (janitor == 0)
    janitor_main (fds[0]);
  close (fds[0]);
  janitor_pipe = fds[1];
  /* Others may look inside: some servers run as another user. */
  cr_assert_eq (chmod (dir, 0755), 0);
  cr_assert_eq (mkdir (str ("%s/run", dir), 0777), 0);
  cr_assert_eq (mkdir (str ("%s/dev", dir), 0755), 0);
  umask (022);
}

void
scratch_teardown (void)
{
  server_kill_all ();
  if (janitor > 0) {
    close (janitor_pipe);
    waitpid (janitor, NULL, 0);
  }
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

unsigned char *
file_read (const char *path, size_t *len)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  size_t n = 0, room = 65536;
  unsigned char *data = malloc (room);
  ssize_t r;

  cr_assert_geq (fd, 0, "%s: %m", path);
  while ((r = read (fd, data + n, room - n - 1)) > 0) {
    n += r;
    if (n + 1 == room)
      data = realloc (data, room *= 2);
  }
  cr_assert_eq (r, 0, "%s: %m", path);
  close (fd);
  data[n] = 0;
  if (len)
    *len = n;
  return data;
}

void
file_write (const char *path, uint64_t offset, const void *data, size_t len)
{
  int fd = open (path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

  cr_assert_geq (fd, 0, "%s: %m", path);
  cr_assert_eq (pwrite (fd, data, len, offset), (ssize_t) len, "%s: %m", path);
  close (fd);
}

/* FNV-1a by 8 bytes; only has to notice a change. */
static uint64_t
contents_hash (const char *path)
{
  size_t len;
  unsigned char *data = file_read (path, &len);
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

int
shell (const char *fmt, ...)
{
  char *log = run_path ("shell.log"), *command;
  va_list args;
  int status;

  va_start (args, fmt);
  command = vstr (fmt, args);
  va_end (args);
  fflush (NULL);
  status = system (str ("{ %s\n} >'%s' 2>&1 </dev/null", command, log));
  if (status != 0)
    fprintf (stderr, "+ %s\n%s", command, (char *) file_read (log, NULL));
  return status;
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
  return (char *) file_read (out, NULL);
}
