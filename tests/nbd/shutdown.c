/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shutdown.c - the end of a server as its clients see it: no reply says that anything has failed.
 *
 * The clients here speak NBD themselves, so that they see every reply there is, and what comes behind the last one.
 */
#include <config.h>

#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
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

#include "tests/faults/faults.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { PATIENCE_MS = 60 * 1000, NCLIENTS = 4, DEPTH = 8, NPAGES = 512, ENOUGH = 200, ROUNDS = 5 };

static struct server srv;
static struct faults *faults;
static pid_t background; /* an nbdkit that is no child of ours */

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum leaves like this");
}

static void
teardown (void)
{
  if (background)
    kill (background, SIGKILL);
  dev_teardown ();
}

TestSuite (shutdown, .init = setup, .fini = teardown, .timeout = 300);

static void
start (void)
{
  faults = faults_open (run_path ("faults"));
  cr_assert_not_null (faults, "%m");
  server_start (
    &srv, &(struct server_options){ .threads = 4,
                                    .params = PARAMS (dev_path ("a,size=8M"), control_param ()),
                                    .socket = run_path ("nbd"),
                                    .faults = run_path ("faults") });
}

static bool
is_there (const char *path)
{
  struct stat st;

  return lstat (path, &st) == 0;
}

/* It has ended as a good server does, and nothing of it is left. */
static void
expect_ended (void)
{
  server_reap (&srv);
  cr_assert (WIFEXITED (srv.status) && WEXITSTATUS (srv.status) == 0, "wait status %#x:\n%s",
             srv.status, server_stderr (&srv));
  cr_assert (!is_there (srv.socket), "its socket is still there");
  cr_assert (!is_there (control_path ()), "the control socket is still there");
  cr_assert_null (strstr (server_stderr (&srv), "Sanitizer"), "%s", server_stderr (&srv));
}

/* ---- clients ---- */

#define PACKED __attribute__ ((packed))

struct PACKED request {
  uint32_t magic;
  uint16_t flags, type;
  uint64_t cookie, offset;
  uint32_t count;
};

struct PACKED reply {
  uint32_t magic, error;
  uint64_t cookie;
};

/* What it has seen; the fields are its thread's until that has ended, but nreplies. */
struct raw {
  pthread_t thread;
  int fd;
  struct rng rng;
  _Atomic unsigned nreplies;
  char failure[200];
};

static bool
transfer (ssize_t (*call) (int fd, void *buf, size_t n, int flags), int fd, void *buf, size_t n)
{
  for (char *at = buf; n > 0;) {
    ssize_t done = call (fd, at, n, MSG_NOSIGNAL);

    if (done <= 0)
      return false;
    at += done;
    n -= (size_t) done;
  }
  return true;
}

static bool
get (int fd, void *buf, size_t n)
{
  return transfer (recv, fd, buf, n);
}

static bool
put (int fd, const void *buf, size_t n)
{
  return transfer ((ssize_t (*) (int, void *, size_t, int)) send, fd, (void *) buf, n);
}

/* The old handshake within the new one: the export by its name, and simple replies. */
static int
shake_hands (int fd, const char *export)
{
  struct PACKED {
    uint32_t flags;
    char magic[8];
    uint32_t option, len;
  } hello = { htobe32 (3), "IHAVEOPT", htobe32 (1), htobe32 ((uint32_t) strlen (export)) };
  char greeting[18], size[10];

  cr_assert (get (fd, greeting, sizeof greeting), "no greeting");
  cr_assert (put (fd, &hello, 20) && put (fd, export, strlen (export)), "send: %m");
  cr_assert (get (fd, size, sizeof size), "no export");
  return fd;
}

static int
connect_unix (const char *path)
{
  return shake_hands (control_open_at (path), "");
}

static int
connect_tcp (unsigned port)
{
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons ((uint16_t) port) };
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  cr_assert_eq (connect (fd, (struct sockaddr *) &address, sizeof address), 0, "connect: %m");
  return shake_hands (fd, "");
}

enum { CMD_READ, CMD_WRITE };

static bool
send_request (struct raw *raw, bool write)
{
  struct PACKED {
    struct request request;
    char data[PAGE_BYTES];
  } message = { .request = { .magic = htobe32 (0x25609513),
                             .type = htobe16 (write ? CMD_WRITE : CMD_READ),
                             .cookie = write,
                             .offset = htobe64 (rng_below (&raw->rng, NPAGES) * PAGE_BYTES),
                             .count = htobe32 (PAGE_BYTES) } };

  rng_fill (&raw->rng, message.data, 64);
  return put (raw->fd, &message, sizeof message.request + (write ? PAGE_BYTES : 0));
}

/* Reads and writes, some at once, until the server hangs up; each reply must say that all is well. Not being able to send is no end:
 * there may be replies yet. */
static void *
raw_main (void *arg)
{
  struct raw *raw = arg;
  char data[PAGE_BYTES];
  struct reply reply;

  for (unsigned i = 0; i < DEPTH; i++)
    send_request (raw, i % 2);
  while (get (raw->fd, &reply, sizeof reply)) {
    if (be32toh (reply.magic) != 0x67446698 || reply.error) {
      snprintf (raw->failure, sizeof raw->failure, "reply %u: magic %#x, error %u", raw->nreplies,
                be32toh (reply.magic), be32toh (reply.error));
      break;
    }
    if (reply.cookie == CMD_READ && !get (raw->fd, data, sizeof data))
      break;
    raw->nreplies++;
    send_request (raw, rng_below (&raw->rng, 2));
  }
  close (raw->fd);
  return NULL;
}

static void
raw_start (struct raw *raw, unsigned n, int fd)
{
  *raw = (struct raw){ .fd = fd, .rng = rng_for (n) };
  cr_assert_eq (pthread_create (&raw->thread, NULL, raw_main, raw), 0);
}

static void
raw_wait (const struct raw *raw, unsigned nreplies)
{
  while (atomic_load (&raw->nreplies) < nreplies)
    sched_yield ();
}

static void
raw_join (struct raw *raw)
{
  pthread_join (raw->thread, NULL);
  cr_assert_str_empty (raw->failure, "%s", raw->failure);
}

/* The end of the connection. */
static void
expect_over (int fd)
{
  char c;
  ssize_t n = recv (fd, &c, 1, 0);

  cr_assert (n == 0 || (n == -1 && errno == ECONNRESET), "%zd: %m", n);
  close (fd);
}

/* ---- what they see ---- */

/* Under load: until the connection ends every reply says that all is well; and a new server can be started there at once. */
Test (shutdown, no_reply_is_an_error)
{
  struct raw raw[NCLIENTS];

  for (unsigned round = 0; round < random_steps (ROUNDS); round++) {
    int control;

    start ();
    control = control_open ();
    for (unsigned i = 0; i < NCLIENTS; i++)
      raw_start (&raw[i], round * NCLIENTS + i, connect_unix (srv.socket));
    for (unsigned i = 0; i < NCLIENTS; i++)
      raw_wait (&raw[i], ENOUGH);
    expect_uint (control_ok (control, "'verb': 'shutdown', 'force': true"), "pid",
                 (uint64_t) srv.pid);
    expect_over (control);
    for (unsigned i = 0; i < NCLIENTS; i++)
      raw_join (&raw[i]);
    expect_ended ();
  }
}

/* It lets what is under way end first, and does not care whether who asked for it is still there. */
Test (shutdown, waits_for_requests)
{
  struct faults_rule *rule;
  struct raw raw[2];
  int control;

  start ();
  rule = faults_add (faults, dev_path ("a"),
                     &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD });
  for (unsigned i = 0; i < 2; i++)
    raw_start (&raw[i], i, connect_unix (srv.socket));
  faults_wait (&rule->nacted, 1);
  control = control_open ();
  control_send (control, "'verb': 'shutdown', 'force': true");
  close (control);
  control = control_open ();
  while (json_object_array_length (member (control_status (control), "jobs")) == 0)
    sched_yield ();
  expect_str (control_job (control, 1), "kind", "shutdown");
  expect_str (control_job (control, 1), "state", "running");
  cr_assert_not_null (
    strstr (control_error (control, "EBUSY", "'verb': 'shutdown', 'force': true"), "already"));
  faults_remove (rule);
  expect_over (control);
  for (unsigned i = 0; i < 2; i++) {
    raw_join (&raw[i]);
    cr_log_info ("%u replies",
                 raw[i].nreplies); /* of what was under way: it would do no harm to lose them */
  }
  expect_ended ();
}

/* A disk that hangs for longer than is asked for: it stays, and nobody has noticed but by waiting. */
Test (shutdown, gives_up)
{
  struct faults_rule *rule;
  struct raw raw[2];
  const char *error;
  int control;

  start ();
  control = control_open ();
  rule =
    faults_add (faults, dev_path ("a"),
                &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD, .count = 1 });
  for (unsigned i = 0; i < 2; i++)
    raw_start (&raw[i], i, connect_unix (srv.socket));
  faults_wait (&rule->nacted, 1);
  error = control_error (control, "ETIMEDOUT", "'verb': 'shutdown', 'force': true, 'seconds': 0.1");
  cr_assert_not_null (strstr (error, "still under way after 0.1 s"), "%s", error);
  faults_remove (rule);
  for (unsigned i = 0; i < 2; i++)
    raw_wait (&raw[i], atomic_load (&raw[i].nreplies) + ENOUGH);
  close (connect_unix (srv.socket));
  control_ok (control, "'verb': 'shutdown', 'force': true");
  expect_over (control);
  for (unsigned i = 0; i < 2; i++)
    raw_join (&raw[i]);
  expect_ended ();
}

/* Who connects, or asks, when it has begun, waits: for the new server. */
Test (shutdown, refuses_nobody)
{
  struct faults_rule *rule;
  struct raw held, late;
  struct pollfd pfd = { .events = POLLIN };
  int control, fd;

  start ();
  control = control_open ();
  rule =
    faults_add (faults, dev_path ("a"),
                &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD, .count = 1 });
  fd = connect_unix (srv.socket);
  raw_start (&held, 0, connect_unix (srv.socket));
  faults_wait (&rule->nacted, 1);
  control_send (control, "'verb': 'shutdown', 'force': true");
  while (json_object_array_length (member (control_status (control_open ()), "jobs")) == 0)
    sched_yield ();
  late = (struct raw){ .fd = fd, .rng = rng_for (1) };
  cr_assert (send_request (&late, false) && send_request (&late, true));
  pfd.fd = control_open_at (srv.socket);
  faults_remove (rule);
  control_reply (control);
  expect_over (control);
  raw_join (&held);
  expect_over (fd);
  cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1); /* a greeting at most */
  expect_ended ();
}

/* ---- when it may, and what is left ---- */

/* What a restart would lose keeps it from leaving, unless it is forced. */
Test (shutdown, keeps_pages)
{
  struct nbd_handle *nbd;
  const char *error;
  int control;

  start ();
  control = control_open ();
  nbd = client_open (&srv);
  error = control_error (control, "EBUSY", "'verb': 'shutdown'");
  cr_assert_not_null (strstr (error, "has 1 connections and holds 0 pages"), "%s", error);
  client_write_page (nbd, 1, 1, 7);
  client_close (nbd);
  while (member_uint (control_export (control), "clients") > 0)
    sched_yield ();
  error = control_error (control, "EBUSY", "'verb': 'shutdown'");
  cr_assert_not_null (
    strstr (error, "holds 1 pages, which a restart without state= loses: run swapoff"), "%s",
    error);
  nbd = client_open (&srv);
  client_expect_page (nbd, 1, 1, 7);
  client_zero (nbd, PAGE_BYTES, 7 * PAGE_BYTES, 0);
  client_close (nbd);
  while (member_uint (control_export (control), "clients") > 0)
    sched_yield ();
  control_ok (control, "'verb': 'shutdown'");
  expect_over (control);
  expect_ended ();
}

/* By drumctl, which is back when all is free for the next one. */
Test (shutdown, again_at_once)
{
  char *drumctl = str ("%s -s '%s' shutdown --force", DRUMCTL, control_path ());
  struct server before;

  start ();
  for (unsigned i = 0; i < random_steps (ROUNDS); i++) {
    struct raw raw;

    raw_start (&raw, i, connect_unix (srv.socket));
    raw_wait (&raw, ENOUGH);
    cr_assert_str_eq (shell_output ("%s", drumctl), "the drum: shut down\n");
    raw_join (&raw);
    before = srv;
    start ();
    server_reap (&before);
    cr_assert_eq (before.status, 0);
  }
  cr_assert_eq (shell ("%s", drumctl), 0);
  expect_ended ();
}

/* Start one in the background, where it is another process than the one that has bound its sockets. */
static void
start_in_background (const char *listen)
{
  int control;

  cr_assert_eq (chdir (run_path (".")), 0);
  cr_assert_eq (shell ("%s '%s' -P '%s' %s '%s' '%s' control=control", server_environment (),
                       NBDKIT, run_path ("pid"), listen, server_plugin (), dev_path ("a,size=8M")),
                0);
  control = control_open ();
  background = (pid_t) member_uint (control_status (control), "server.pid");
  close (control);
}

static void
leave_background (int fd)
{
  struct pollfd pfd = { .events = POLLIN };
  int control = control_open ();
  struct raw raw;

  pfd.fd = (int) syscall (SYS_pidfd_open, background, 0);
  cr_assert_geq (pfd.fd, 0, "pidfd_open: %m");
  raw_start (&raw, 1, fd);
  raw_wait (&raw, ENOUGH);
  control_ok (control, "'verb': 'shutdown', 'force': true");
  expect_over (control);
  cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "nbdkit does not end");
  background = 0;
  raw_join (&raw);
  cr_assert (!is_there (control_path ()));
}

/* A relative path is made absolute by nbdkit. */
Test (shutdown, background)
{
  start_in_background ("-U nbd");
  cr_assert (is_there (run_path ("nbd")));
  leave_background (connect_unix (run_path ("nbd")));
  cr_assert (!is_there (run_path ("nbd")), "its socket is still there");
}

static unsigned
free_port (void)
{
  struct sockaddr_in address = { .sin_family = AF_INET };
  socklen_t len = sizeof address;
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  cr_assert_eq (bind (fd, (struct sockaddr *) &address, sizeof address), 0, "bind: %m");
  cr_assert_eq (getsockname (fd, (struct sockaddr *) &address, &len), 0);
  close (fd);
  return ntohs (address.sin_port);
}

Test (shutdown, tcp)
{
  unsigned port = free_port ();

  start_in_background (str ("-i 127.0.0.1 -p %u", port));
  leave_background (connect_tcp (port));
  start_in_background (str ("-i 127.0.0.1 -p %u", port));
  leave_background (connect_tcp (port));
}

/* In the child: become an nbdkit that finds its socket open, as a service manager does it. */
static void
exec_activated (int listener, const char *const *argv)
{
  if (dup2 (listener, 3) == -1)
    _exit (126);
  setenv ("LISTEN_PID", str ("%d", getpid ()), 1);
  setenv ("LISTEN_FDS", "1", 1);
  if (server_is_sanitized ())
    setenv ("LD_PRELOAD", SANITIZER_PRELOAD " " EARLY, 1);
  execvp (argv[0], (char **) argv);
  _exit (127);
}

/* A socket that a service manager listens on stays: it is to start the next one. */
Test (shutdown, leaves_the_sockets_of_others)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), control, status, fd;
  pid_t pid;

  strcpy (address.sun_path, run_path ("nbd"));
  cr_assert_eq (bind (listener, (struct sockaddr *) &address, sizeof address), 0, "bind: %m");
  cr_assert_eq (listen (listener, 5), 0);
  fd = control_open_at (run_path ("nbd"));
  fflush (NULL);
  pid = background = fork ();
  if (pid == 0)
    exec_activated (
      listener, PARAMS (NBDKIT, "-f", server_plugin (), dev_path ("a,size=8M"), control_param ()));
  shake_hands (fd, ""); /* it is there */
  control = control_open ();
  control_ok (control, "'verb': 'shutdown', 'force': true");
  expect_over (control);
  cr_assert_eq (waitpid (pid, &status, 0), pid);
  background = 0;
  cr_assert_eq (status, 0);
  expect_over (fd);
  cr_assert (is_there (run_path ("nbd")), "it has removed a socket that was not its own");
  cr_assert (!is_there (control_path ()));
}
