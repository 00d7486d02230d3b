/* SPDX-License-Identifier: BSD-3-Clause
 *
 * server.c - a real nbdkit with the drum plugin.
 *
 * nbdkit writes its pid file when it is ready to take connections, so inotify tells us, and a pidfd tells that it has
 * ended instead.
 */
#include <config.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "dev.h"
#include "server.h"

enum { PATIENCE_MS = 120 * 1000, AGAIN_MS = 10 * 1000, MAX_ARGS = 2048, MAX_SERVERS = 4 };

/* Copies: a test that fails leaves its stack behind. */
static struct server running[MAX_SERVERS];
static unsigned nstarted;

const char *
server_plugin (void)
{
  const char *plugin = getenv ("DRUM_PLUGIN");

  return plugin && *plugin ? plugin : DEFAULT_PLUGIN;
}

bool
server_is_drum (void)
{
  return strchr (server_plugin (), '/') != NULL;
}

bool
server_is_sanitized (void)
{
  return SANITIZER_PRELOAD[0] != 0;
}

char *
server_environment (void)
{
  return str ("%s", server_is_sanitized ()
                      ? "ASAN_OPTIONS=detect_leaks=0 LD_PRELOAD='" SANITIZER_PRELOAD " " EARLY "'"
                      : "");
}

static void
make_argv (const char **argv, const struct server *srv, const struct server_options *options,
           const char *pidfile)
{
  const char *io = getenv ("DRUM_TEST_IO");
  unsigned n = 0;

  for (const char *const *p = options->wrapper; p && *p && n < MAX_ARGS / 2; p++)
    argv[n++] = *p;
  argv[n++] = NBDKIT;
  argv[n++] = "-f";
  argv[n++] = "--exit-with-parent";
  argv[n++] = str ("-U%s", srv->socket);
  argv[n++] = str ("-P%s", pidfile);
  if (options->threads)
    argv[n++] = str ("-t%u", options->threads);
  for (const char *const *p = options->options; p && *p && n < MAX_ARGS - 2; p++)
    argv[n++] = *p;
  argv[n++] = server_plugin ();
  if (server_is_drum () && options->params && io && *io)
    argv[n++] = str ("io=%s", io); /* what a test gives itself counts */
  if (!server_is_drum ())
    argv[n++] = str ("size=%ju", (uintmax_t) options->memory_bytes);
  else
    for (const char *const *p = options->params; p && *p && n < MAX_ARGS - 1; p++)
      argv[n++] = *p;
  argv[n] = NULL;
}

/* In the child. The sanitizer's runtime has to be the first library of the program, and nbdkit is not built with it. */
static void
exec_nbdkit (const char **argv, const struct server *srv, const struct server_options *options)
{
  const char *preload = server_is_sanitized () ? SANITIZER_PRELOAD " " EARLY : "";
  const char *tsan = getenv ("TSAN_OPTIONS");
  uid_t uid = options->uid;
  int fd = open (srv->stderr_path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  int null = open ("/dev/null", O_RDWR);

  if (options->stderr_fd)
    fd = options->stderr_fd;
  if (fd == -1 || null == -1 || dup2 (null, 0) == -1 || dup2 (fd, 1) == -1 || dup2 (fd, 2) == -1)
    _exit (126);
  for (int i = 3; i < 1024; i++)
    close (i);
  if (uid && (setgroups (0, NULL) == -1 || setgid (uid) == -1 || setuid (uid) == -1))
    _exit (126);
  if (options->faults) {
    setenv ("DRUM_FAULTS", options->faults, 1);
    preload = str ("%s " LIBFAULTS, preload);
  }
  if (*preload)
    setenv ("LD_PRELOAD", preload, 1);
  if (server_is_sanitized ()) {
    /* nbdkit unloads the plugin at its end, so what leaked could not be told by name. */
    setenv ("ASAN_OPTIONS", "detect_leaks=0", 0);
    setenv ("UBSAN_OPTIONS", "print_stacktrace=1", 0);
    setenv ("TSAN_OPTIONS", str ("%s suppressions=" TSAN_SUPPRESSIONS, tsan ? tsan : ""), 1);
  }
  execvp (argv[0], (char **) argv);
  dprintf (2, "%s: %s\n", argv[0], strerror (errno));
  _exit (127);
}

/* Wait for the process to end; false if it is too slow. */
static bool
reap (struct server *srv, int patience_ms)
{
  struct pollfd pfd = { .fd = srv->pidfd, .events = POLLIN };
  int r;

  do
    r = poll (&pfd, 1, patience_ms);
  while (r == -1 && errno == EINTR);
  if (r != 1)
    return false;
  waitpid (srv->pid, &srv->status, 0);
  close (srv->pidfd);
  for (unsigned i = 0; i < MAX_SERVERS; i++)
    if (running[i].pid == srv->pid)
      running[i].pid = 0;
  srv->pid = 0;
  return true;
}

/* True once the pid file is there, false once the process has ended. */
static bool
wait_ready (struct server *srv, int inotify, const char *pidfile)
{
  struct pollfd pfds[2] = {
    { .fd = inotify, .events = POLLIN },
    { .fd = srv->pidfd, .events = POLLIN },
  };
  char events[4096];

  for (;;) {
    int r = poll (pfds, 2, PATIENCE_MS);

    cr_assert (r > 0 || errno == EINTR, "nbdkit neither starts nor ends:\n%s", server_stderr (srv));
    if (r > 0 && pfds[0].revents) {
      struct stat st;

      cr_assert_gt (read (inotify, events, sizeof events), 0);
      /* Written and closed: an empty one was only just created. */
      if (stat (pidfile, &st) == 0 && st.st_size > 0)
        return true;
    } else if (r > 0 && pfds[1].revents)
      return false;
  }
}

bool
server_launch (struct server *srv, const struct server_options *options)
{
  const char *argv[MAX_ARGS];
  char *pidfile = run_path (str ("pid.%u", nstarted));
  int inotify = inotify_init1 (IN_CLOEXEC);
  unsigned slot = 0;
  bool ready;

  srv->socket = options->socket ? options->socket : run_path (str ("sock.%u", nstarted));
  srv->stderr_path = run_path (str ("stderr.%u", nstarted));
  nstarted++;
  make_argv (argv, srv, options, pidfile);
  cr_assert_geq (inotify_add_watch (inotify, run_path (""), IN_CLOSE_WRITE), 0, "inotify: %m");

  fflush (NULL);
  srv->pid = fork ();
  cr_assert_geq (srv->pid, 0, "fork: %m");
  if (srv->pid == 0)
    exec_nbdkit (argv, srv, options);
  srv->pidfd = syscall (SYS_pidfd_open, srv->pid, 0);
  cr_assert_geq (srv->pidfd, 0, "pidfd_open: %m");
  while (slot < MAX_SERVERS - 1 && running[slot].pid)
    slot++;
  running[slot] = *srv;

  ready = wait_ready (srv, inotify, pidfile);
  close (inotify);
  if (!ready)
    reap (srv, PATIENCE_MS);
  return ready;
}

void
server_start (struct server *srv, const struct server_options *options)
{
  cr_assert (server_launch (srv, options), "nbdkit does not start:\n%s", server_stderr (srv));
}

void
server_reap (struct server *srv)
{
  cr_assert (reap (srv, PATIENCE_MS), "nbdkit does not end:\n%s", server_stderr (srv));
}

static void
assert_no_report (const struct server *srv)
{
  static const char *const words[] = { "Sanitizer", "runtime error:", "Assertion" };
  char *text = server_stderr (srv);

  for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
    cr_assert_null (strstr (text, words[i]), "nbdkit says:\n%s", text);
}

void
server_kill (struct server *srv)
{
  kill (srv->pid, SIGKILL);
  server_reap (srv);
  assert_no_report (srv);
  cr_assert (WIFSIGNALED (srv->status) && WTERMSIG (srv->status) == SIGKILL,
             "wait status %#x; nbdkit says:\n%s", srv->status, server_stderr (srv));
  cr_assert_eq (unlink (srv->socket), 0, "%s: %m", srv->socket);
}

void
server_stop (struct server *srv)
{
  cr_assert_gt (srv->pid, 0, "the server is not running");
  kill (srv->pid, SIGTERM);
  /* TSan keeps a signal that comes just before nbdkit's poll until that returns, which it then does not. */
  for (unsigned i = 0; server_is_sanitized () && i < 5 && !reap (srv, AGAIN_MS); i++)
    kill (srv->pid, SIGTERM);
  if (srv->pid)
    server_reap (srv);
  assert_no_report (srv);
  cr_assert (WIFEXITED (srv->status), "nbdkit was killed by signal %d:\n%s", WTERMSIG (srv->status),
             server_stderr (srv));
  cr_assert_eq (WEXITSTATUS (srv->status), 0, "nbdkit ended with status %d:\n%s",
                WEXITSTATUS (srv->status), server_stderr (srv));
}

char *
server_refuses (const struct server_options *options)
{
  struct server srv;
  char *before = dev_snapshot (), *after, *text, *newline;

  if (server_launch (&srv, options)) {
    server_stop (&srv);
    cr_assert_fail ("nbdkit starts with %s; stderr:\n%s", options->params ? options->params[0] : "",
                    server_stderr (&srv));
  }
  text = server_stderr (&srv);
  assert_no_report (&srv);
  cr_assert (WIFEXITED (srv.status) && WEXITSTATUS (srv.status) == 1, "wait status %#x:\n%s",
             srv.status, text);
  newline = strchr (text, '\n');
  cr_assert (newline && !newline[1], "not one line:\n%s", text);
  cr_assert_not_null (strstr (text, "error: "), "no error: %s", text);
  after = dev_snapshot ();
  cr_assert_str_eq (after, before, "it has changed files, and said: %s", text);
  return text;
}

char *
server_stderr (const struct server *srv)
{
  return (char *) file_contents (srv->stderr_path, NULL);
}

void
server_wait_stderr (const struct server *srv, const char *text)
{
  int inotify = inotify_init1 (IN_CLOEXEC);
  struct pollfd pfd = { .fd = inotify, .events = POLLIN };
  char events[4096];

  cr_assert_geq (inotify_add_watch (inotify, srv->stderr_path, IN_MODIFY), 0, "inotify: %m");
  while (!strstr (server_stderr (srv), text)) {
    cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "nbdkit does not say: %snbdkit says:\n%s", text,
                  server_stderr (srv));
    cr_assert_gt (read (inotify, events, sizeof events), 0);
  }
  close (inotify);
}

/* The kernel has threads of its own in there, which do what io_uring can't do at once; one for each of ours may stay. */
static bool
is_kernels (const char *task)
{
  enum { PF_IO_WORKER = 0x10 };
  char stat[512] = "";
  unsigned flags = PF_IO_WORKER; /* it has gone meanwhile */
  int fd = open (str ("%s/stat", task), O_RDONLY);

  if (fd != -1 && read (fd, stat, sizeof stat - 1) > 0)
    cr_assert_eq (sscanf (strrchr (stat, ')'), ") %*c %*d %*d %*d %*d %*d %u", &flags), 1, "%s",
                  stat);
  if (fd != -1)
    close (fd);
  return flags & PF_IO_WORKER;
}

static unsigned
count_threads (const struct server *srv)
{
  char *path = str ("/proc/%d/task", srv->pid);
  DIR *dir = opendir (path);
  unsigned n = 0;

  cr_assert_not_null (dir, "opendir: %m");
  for (struct dirent *entry; (entry = readdir (dir));)
    n += entry->d_name[0] != '.' && !is_kernels (str ("%s/%s", path, entry->d_name));
  closedir (dir);
  return n;
}

struct process
server_process (const struct server *srv)
{
  char *text = (char *) file_contents (str ("/proc/%d/status", srv->pid), NULL);
  DIR *dir = opendir (str ("/proc/%d/fd", srv->pid));
  struct process p = { .nfds = 0 };

  cr_assert_not_null (dir, "opendir: %m");
  for (struct dirent *entry; (entry = readdir (dir));)
    p.nfds += entry->d_name[0] != '.';
  closedir (dir);
  p.rss_kib = strtoull (strstr (text, "VmRSS:") + 6, NULL, 10);
  p.nthreads = count_threads (srv);
  free (text);
  return p;
}

void
server_settle (const struct server *srv, unsigned nfds, unsigned nthreads)
{
  struct process now;

  for (unsigned ms = 0;; ms++) {
    now = server_process (srv);
    if ((now.nfds == nfds && now.nthreads == nthreads) || ms == PATIENCE_MS)
      break;
    usleep (1000); /* nothing tells of it */
  }
  cr_assert_eq (now.nfds, nfds, "%u descriptors, and there were to be %u", now.nfds, nfds);
  cr_assert_eq (now.nthreads, nthreads, "%u threads, and there were to be %u", now.nthreads,
                nthreads);
}

void
server_kill_all (void)
{
  for (unsigned i = 0; i < MAX_SERVERS; i++)
    if (running[i].pid) {
      struct server srv = running[i];

      kill (srv.pid, SIGKILL);
      reap (&srv, PATIENCE_MS);
      fprintf (stderr, "nbdkit's stderr:\n%s", server_stderr (&srv));
    }
}
