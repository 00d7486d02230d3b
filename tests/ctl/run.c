/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "run.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/scratch.h"

enum { MAX_ARGS = 32, PATIENCE_MS = 30000 };

void
setup (void)
{
  scratch_setup ();
  setenv ("LC_ALL", "C.UTF-8", 1);
  setenv ("TERM", "xterm-256color", 1);
  unsetenv ("NO_COLOR");
  unsetenv ("DRUM_CONTROL");
}

/* Who runs us, a shell in the background or a Python program, may have them ignored. */
static void __attribute__ ((constructor)) reset_signals (void)
{
  signal (SIGINT, SIG_DFL);
  signal (SIGPIPE, SIG_DFL);
  signal (SIGQUIT, SIG_DFL);
}

static void
exec_drumctl (const char *const *args)
{
  const char *argv[MAX_ARGS] = { "drumctl" };

  for (unsigned i = 0; args[i] && i < MAX_ARGS - 2; i++)
    argv[i + 1] = args[i];
  signal (SIGPIPE, SIG_DFL);
  execv (DRUMCTL, (char **) argv);
  dprintf (2, "%s: %m\n", DRUMCTL);
  _exit (127);
}

static void
redirect (const char *path, int to)
{
  int fd = open (path, O_RDWR | O_CREAT | O_TRUNC, 0666);

  if (fd == -1 || dup2 (fd, to) == -1)
    _exit (126);
  close (fd);
}

static int
status_of (int wait_status)
{
  return WIFSIGNALED (wait_status) ? -WTERMSIG (wait_status) : WEXITSTATUS (wait_status);
}

static void
assert_no_report (const char *text)
{
  cr_assert (!strstr (text, "Sanitizer") && !strstr (text, "runtime error:"), "%s", text);
}

static struct result
finish (pid_t pid)
{
  struct result r;
  int status;

  cr_assert_eq (waitpid (pid, &status, 0), pid);
  r.status = status_of (status);
  r.out = (char *) file_contents (scratch_path ("out"), NULL);
  r.err = (char *) file_contents (scratch_path ("err"), NULL);
  assert_no_report (r.err);
  return r;
}

static pid_t
fork_with_files (void)
{
  pid_t pid;

  fflush (NULL);
  pid = fork ();
  cr_assert_geq (pid, 0, "fork: %m");
  if (pid == 0) {
    redirect ("/dev/null", 0);
    redirect (scratch_path ("out"), 1);
    redirect (scratch_path ("err"), 2);
  }
  return pid;
}

struct result
run_drumctl (const char *const *args)
{
  pid_t pid = fork_with_files ();

  if (pid == 0)
    exec_drumctl (args);
  return finish (pid);
}

struct result
run_shell (const char *command)
{
  pid_t pid;

  setenv ("DRUMCTL", DRUMCTL, 1);
  pid = fork_with_files ();
  if (pid == 0) {
    execl ("/bin/sh", "sh", "-c", command, NULL);
    _exit (127);
  }
  return finish (pid);
}

void
expect (const char *const *args, int status, const char *out, const char *err)
{
  struct result r = run_drumctl (args);

  cr_assert_eq (r.status, status, "%s ends with %d, not %d:\n%s%s", args[0], r.status, status,
                r.out, r.err);
  if (out)
    cr_assert_str_eq (r.out, out);
  if (!err || !*err)
    cr_assert_str_eq (r.err, "");
  else
    cr_assert_not_null (strstr (r.err, err), "no \"%s\" in: %s", err, r.err);
}

void
session_start (struct session *s, unsigned columns, unsigned lines, const char *const *args)
{
  struct winsize size = { .ws_col = (unsigned short) columns, .ws_row = (unsigned short) lines };
  int fds[2];

  *s = (struct session){ .seen = calloc (1, 1) };
  fflush (NULL);
  if (columns) {
    s->pid = forkpty (&s->fd, NULL, NULL, &size);
  } else {
    cr_assert_eq (pipe2 (fds, O_CLOEXEC), 0);
    s->fd = fds[0];
    s->pid = fork ();
    if (s->pid == 0 && (dup2 (fds[1], 1) == -1 || dup2 (fds[1], 2) == -1))
      _exit (126);
    if (s->pid)
      close (fds[1]);
  }
  cr_assert_geq (s->pid, 0, "fork: %m");
  if (s->pid == 0)
    exec_drumctl (args);
}

/* False at its end. */
static bool
read_more (struct session *s)
{
  struct pollfd pfd = { .fd = s->fd, .events = POLLIN };
  char buf[4096];
  ssize_t n;

  cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "drumctl says nothing more after:\n%s", s->seen);
  n = read (s->fd, buf, sizeof buf);
  if (n <= 0)
    return false;
  s->seen = realloc (s->seen, s->nseen + (size_t) n + 1);
  memcpy (s->seen + s->nseen, buf, (size_t) n);
  s->nseen += (size_t) n;
  s->seen[s->nseen] = '\0';
  return true;
}

void
session_expect (struct session *s, const char *text)
{
  char *at;

  while (!(at = strstr (s->seen, text)))
    cr_assert (read_more (s), "drumctl ended, and did not say \"%s\":\n%s", text, s->seen);
  at += strlen (text);
  s->nseen -= (size_t) (at - s->seen);
  memmove (s->seen, at, s->nseen + 1);
}

int
session_end (struct session *s)
{
  int status;

  while (read_more (s))
    ;
  close (s->fd);
  cr_assert_eq (waitpid (s->pid, &status, 0), s->pid);
  assert_no_report (s->seen);
  return status_of (status);
}

void
expect_golden (const char *name, const char *text)
{
  const char *path = str (SOURCE_DIR "/golden/%s", name);
  FILE *f;

  if (getenv ("DRUM_TEST_UPDATE")) {
    cr_assert_not_null (f = fopen (path, "w"), "%s: %m", path);
    fputs (text, f);
    fclose (f);
  }
  cr_assert_str_eq (text, (char *) file_contents (path, NULL), "%s has:\n%s\ndrumctl prints:\n%s",
                    path, (char *) file_contents (path, NULL), text);
}

void
expect_table (const char *golden, const char *const *args)
{
  struct result r = run_drumctl (args);

  cr_assert_eq (r.status, 0, "%s", r.err);
  cr_assert_str_eq (r.err, "");
  expect_golden (golden, r.out);
}
