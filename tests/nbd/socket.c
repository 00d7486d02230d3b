/* SPDX-License-Identifier: BSD-3-Clause
 *
 * socket.c - the control socket as nbdkit brings it up and takes it down. What goes through it is tested elsewhere.
 */
#include <config.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { PATIENCE_MS = 60 * 1000, NOBODY = 65534 };

static pid_t background; /* an nbdkit that is no child of ours */

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum has a control socket");
}

static void
teardown (void)
{
  if (background)
    kill (background, SIGKILL);
  dev_teardown ();
}

TestSuite (socket, .init = setup, .fini = teardown, .timeout = 300);

static void
start (struct server *srv)
{
  server_start (
    srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M"), control_param ()) });
}

static bool
is_there (const char *path)
{
  struct stat st;

  return lstat (path, &st) == 0;
}

static void
expect_answer (const char *path)
{
  int fd = control_open_at (path);

  cr_assert_eq (json_object_array_length (member (control_status (fd), "devices")), 1);
  close (fd);
}

/* It is its owner's alone, whatever the umask, from the moment that the server is there until its end. */
Test (socket, mode)
{
  struct server srv;

  umask (0);
  start (&srv);
  cr_assert_eq (file_stat (control_path ()).st_mode, S_IFSOCK | 0600);
  expect_answer (control_path ());
  server_stop (&srv);
  cr_assert (!is_there (control_path ()), "it is still there");
  cr_assert_str_empty (server_stderr (&srv));
}

/* Without control= there is none. */
Test (socket, none)
{
  struct server srv;

  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M")) });
  cr_assert (!is_there (control_path ()));
  server_stop (&srv);
}

/* What a killed server left is replaced. */
Test (socket, stale)
{
  struct server srv;

  start (&srv);
  kill (srv.pid, SIGKILL);
  server_reap (&srv);
  cr_assert (is_there (control_path ()));
  start (&srv);
  expect_answer (control_path ());
  server_stop (&srv);
  cr_assert (!is_there (control_path ()));
}

/* One that somebody listens on is not; the new server says so, leaves no file behind, and the old one goes on. */
Test (socket, live)
{
  struct server srv;
  char *line;

  start (&srv);
  line = server_refuses (
    &(struct server_options){ .params = PARAMS (dev_path ("b,size=1M"), control_param ()) });
  cr_assert (strstr (line, control_path ()) && strstr (line, "listens"), "%s", line);
  expect_answer (control_path ());
  server_stop (&srv);
}

/* A relative path is one from where nbdkit was started. */
Test (socket, relative)
{
  struct server srv;

  cr_assert_eq (chdir (run_path (".")), 0);
  server_start (
    &srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M"), "control=control") });
  expect_answer (control_path ());
  server_stop (&srv);
  cr_assert (!is_there (control_path ()));
}

/* A path that is too long for a socket. */
Test (socket, too_long)
{
  char *line = server_refuses (&(struct server_options){
    .params = PARAMS (dev_path ("a,size=1M"), str ("control=/tmp/%0200d", 1)) });

  cr_assert (strstr (line, "too long") && strstr (line, "/tmp/0"), "%s", line);
}

/* A server that does not come up takes its socket with it: here nbdkit can't have its own, long after ours was made. */
Test (socket, failed_start)
{
  struct server srv, other;

  server_start (&other, &(struct server_options){ .params = PARAMS (dev_path ("b,size=1M")) });
  cr_assert (!server_launch (
    &srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=1M"), control_param ()),
                                    .socket = other.socket }));
  cr_assert (WIFEXITED (srv.status) && WEXITSTATUS (srv.status) == 1, "%s", server_stderr (&srv));
  cr_assert (!is_there (control_path ()), "the socket is still there");
  cr_assert (!is_there (dev_path ("a")), "the file is still there");
  server_stop (&other);
}

/* In the background it is the child that answers; the parent takes nothing away. */
Test (socket, background)
{
  struct pollfd pfd = { .events = POLLIN };
  int fd;

  cr_assert_eq (chdir (run_path (".")), 0);
  cr_assert_eq (shell ("%s '%s' -U '%s' '%s' '%s' control=control", server_environment (), NBDKIT,
                       run_path ("nbd"), server_plugin (), dev_path ("a,size=1M")),
                0);
  fd = control_open ();
  background = (pid_t) member_uint (control_status (fd), "server.pid");
  cr_assert_eq (file_stat (control_path ()).st_mode, S_IFSOCK | 0600);
  control_run (fd, "done", "'verb': 'add', 'device': '%s', 'size': 1048576", dev_path ("b"));
  control_run (fd, "done", "'verb': 'remove', 'device': '%s'", dev_path ("a"));
  close (fd);
  pfd.fd = (int) syscall (SYS_pidfd_open, background, 0);
  cr_assert_geq (pfd.fd, 0, "pidfd_open: %m");
  kill (background, SIGTERM);
  cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "nbdkit does not end");
  background = 0;
  cr_assert (!is_there (control_path ()), "the socket is still there");
}

/* In a child, as another user: 0 if the server's only words are that it is not for him. */
static int
be_refused (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  char reply[4096];
  ssize_t n, len = 0;

  strcpy (address.sun_path, path);
  if (setuid (NOBODY) == -1 || connect (fd, (struct sockaddr *) &address, sizeof address) == -1)
    return errno;
  while ((n = read (fd, reply + len, sizeof reply - 1 - (size_t) len)) > 0)
    len += n;
  reply[len] = 0;
  return n == 0 && strstr (reply, "\"ok\":false") && strstr (reply, "EPERM") ? 0 : 255;
}

static int
status_of_other_user (void)
{
  int status;
  pid_t pid;

  fflush (NULL);
  pid = fork ();
  if (pid == 0)
    _exit (be_refused (control_path ()));
  cr_assert_eq (waitpid (pid, &status, 0), pid);
  cr_assert (WIFEXITED (status));
  return WEXITSTATUS (status);
}

/* Another user can't connect; and if the socket's mode were changed, he is not answered. */
Test (socket, other_users)
{
  struct server srv;

  if (getuid () != 0)
    cr_skip_test ("only root can be somebody else");
  start (&srv);
  cr_assert_eq (chmod (scratch_path ("."), 0711), 0);
  cr_assert_eq (chmod (run_path ("."), 0711), 0);
  cr_assert_eq (status_of_other_user (), EACCES);
  cr_assert_eq (chmod (control_path (), 0666), 0);
  cr_assert_eq (status_of_other_user (), 0);
  expect_answer (control_path ());
  server_stop (&srv);
}

/* nbdkit's own questions are answered without one. */
Test (socket, dump_plugin)
{
  char *text = shell_output ("%s %s --dump-plugin '%s' control='%s'", server_environment (), NBDKIT,
                             server_plugin (), control_path ());

  cr_assert (strstr (text, "name=drum\n"), "%s", text);
  cr_assert (!is_there (control_path ()));
  text = shell_output ("%s %s '%s' --help", server_environment (), NBDKIT, server_plugin ());
  cr_assert (strstr (text, "control="), "%s", text);
}
