/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scratch.c - a folder for each test.
 *
 * A child of the test, the janitor, waits for the other end of a pipe to close and then removes the folder. That happens
 * at the end of the test, and as well when the test crashes, times out or is interrupted.
 */
#include <config.h>

#include "scratch.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *dir;
static pid_t janitor;
static int janitor_pipe;

struct kept {
  struct kept *next;
  void *mem;
};

static struct kept *kept;

void *
keep_for_test (void *mem)
{
  struct kept *k = malloc (sizeof *k);

  cr_assert_not_null (k);
  *k = (struct kept){ .next = kept, .mem = mem };
  kept = k;
  return mem;
}

char *
vstr (const char *fmt, va_list args)
{
  char *s;

  cr_assert_geq (vasprintf (&s, fmt, args), 0);
  return keep_for_test (s);
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
  /* A server of a test that was killed may still be on its way out, and add and remove files under us. */
  for (int tries = 0; tries < 100; tries++)
    if (nftw (dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0 || access (dir, F_OK) == -1)
      break;
  _exit (0);
}

void
scratch_setup (void)
{
  const char *tmp = getenv ("TMPDIR");
  int fds[2];

  dir = str ("%s/drum-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
  cr_assert_eq (pipe2 (fds, O_CLOEXEC), 0);
  cr_assert_not_null (mkdtemp (dir), "%s: %m", dir);
  fflush (NULL);
  janitor = fork ();
  cr_assert_geq (janitor, 0, "fork: %m");
  if (janitor == 0) {
    close (fds[1]);
    janitor_main (fds[0]);
  }
  close (fds[0]);
  janitor_pipe = fds[1];
  umask (022);
}

void
scratch_teardown (void)
{
  if (janitor > 0) {
    close (janitor_pipe);
    waitpid (janitor, NULL, 0);
  }
}

char *
scratch_path (const char *name)
{
  return str ("%s/%s", dir, name);
}

void
file_write (const char *path, uint64_t offset, const void *data, size_t len)
{
  int fd = open (path, O_WRONLY | O_CLOEXEC);

  cr_assert_geq (fd, 0, "%s: %m", path);
  cr_assert_eq (pwrite (fd, data, len, (off_t) offset), (ssize_t) len, "%s: %m", path);
  close (fd);
}

unsigned char *
file_contents (const char *path, size_t *len)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC);
  size_t n = 0, room = 65536;
  unsigned char *data = malloc (room);
  ssize_t r;

  cr_assert_geq (fd, 0, "%s: %m", path);
  cr_assert_not_null (data);
  /* To its end, not to its size: those below /proc have none. */
  while ((r = read (fd, data + n, room - n - 1)) > 0) {
    n += (size_t) r;
    if (n + 1 == room)
      cr_assert_not_null (data = realloc (data, room *= 2));
  }
  cr_assert_eq (r, 0, "%s: %m", path);
  close (fd);
  data[n] = 0;
  if (len)
    *len = n;
  return keep_for_test (data);
}

struct stat
file_stat (const char *path)
{
  struct stat st;

  cr_assert_eq (stat (path, &st), 0, "%s: %m", path);
  return st;
}

int
shell (const char *fmt, ...)
{
  char *log = scratch_path (".shell.log"), *command;
  va_list args;
  int status;

  va_start (args, fmt);
  command = vstr (fmt, args);
  va_end (args);
  fflush (NULL);
  status = system (str ("{ %s\n} >'%s' 2>&1 </dev/null", command, log));
  if (status != 0)
    fprintf (stderr, "+ %s\n%s", command, (char *) file_contents (log, NULL));
  unlink (log); /* some tests count the files */
  return status;
}
