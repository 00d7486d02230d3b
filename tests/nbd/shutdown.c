/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shutdown.c - the end of a server as its clients see it: no reply says that anything has failed.
 *
 * The clients here speak NBD themselves, so that they see every reply there is, and what comes behind the last one.
 */
#include <config.h>

#include <arpa/inet.h>
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
#include "raw.h"

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
  setenv ("TSAN_OPTIONS", "report_thread_leaks=0", 0); /* who leaves joins nobody */
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

/* What it has seen; the fields are its thread's until that has ended, but nreplies. */
struct client {
  pthread_t thread;
  int fd;
  struct rng rng;
  _Atomic unsigned nreplies;
  char failure[200];
};

static int
connect_unix (const char *path)
{
  return raw_shake_hands (control_open_at (path));
}

static int
connect_tcp (unsigned port)
{
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons ((uint16_t) port) };
  int fd = socket (AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

  address.sin_addr.s_addr = htonl (INADDR_LOOPBACK);
  cr_assert_eq (connect (fd, (struct sockaddr *) &address, sizeof address), 0, "connect: %m");
  return raw_shake_hands (fd);
}

/* Its cookie says what it is. */
static bool
send_request (struct client *client, unsigned type)
{
  struct raw raw = { .data = NULL };
  char page[PAGE_BYTES];
  bool sent;

  rng_fill (&client->rng, page, sizeof page);
  raw_request (&raw, 0, type, type, rng_below (&client->rng, NPAGES) * PAGE_BYTES, PAGE_BYTES);
  if (type == RAW_WRITE)
    raw_bytes (&raw, page, sizeof page);
  sent = raw_send (client->fd, raw.data, raw.len);
  raw_free (&raw);
  return sent;
}

/* Reads and writes, some at once, until the server hangs up; each reply must say that all is well. Not being able to send is no end:
 * there may be replies yet. */
static void *
client_main (void *arg)
{
  struct client *client = arg;
  unsigned char reply[16];
  char page[PAGE_BYTES];

  for (unsigned i = 0; i < DEPTH; i++)
    send_request (client, i % 2 ? RAW_WRITE : RAW_READ);
  while (raw_receive (client->fd, reply, sizeof reply)) {
    if (memcmp (reply, "\x67\x44\x66\x98\0\0\0", 8) != 0) {
      snprintf (client->failure, sizeof client->failure, "reply %u: error %u", client->nreplies,
                reply[7]);
      break;
    }
    if (reply[15] == RAW_READ && !raw_receive (client->fd, page, sizeof page))
      break;
    client->nreplies++;
    send_request (client, rng_below (&client->rng, 2) ? RAW_WRITE : RAW_READ);
  }
  close (client->fd);
  return NULL;
}

static void
client_start (struct client *client, unsigned n, int fd)
{
  *client = (struct client){ .fd = fd, .rng = rng_for (n) };
  cr_assert_eq (pthread_create (&client->thread, NULL, client_main, client), 0);
}

static void
client_wait (const struct client *client, unsigned nreplies)
{
  while (atomic_load (&client->nreplies) < nreplies)
    sched_yield ();
}

static void
client_join (struct client *client)
{
  pthread_join (client->thread, NULL);
  cr_assert_str_empty (client->failure, "%s", client->failure);
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
  struct client client[NCLIENTS];

  for (unsigned round = 0; round < random_steps (ROUNDS); round++) {
    int control;

    start ();
    control = control_open ();
    for (unsigned i = 0; i < NCLIENTS; i++)
      client_start (&client[i], round * NCLIENTS + i, connect_unix (srv.socket));
    for (unsigned i = 0; i < NCLIENTS; i++)
      client_wait (&client[i], ENOUGH);
    expect_uint (control_ok (control, "'verb': 'shutdown', 'force': true"), "pid",
                 (uint64_t) srv.pid);
    expect_over (control);
    for (unsigned i = 0; i < NCLIENTS; i++)
      client_join (&client[i]);
    expect_ended ();
  }
}

/* It lets what is under way end first, and does not care whether who asked for it is still there. */
Test (shutdown, waits_for_requests)
{
  struct faults_rule *rule;
  struct client client[2];
  int control;

  start ();
  rule = faults_add (faults, dev_path ("a"),
                     &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD });
  for (unsigned i = 0; i < 2; i++)
    client_start (&client[i], i, connect_unix (srv.socket));
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
    client_join (&client[i]);
    cr_log_info ("%u replies",
                 client[i].nreplies); /* of what was under way: it would do no harm to lose them */
  }
  expect_ended ();
}

/* A disk that hangs for longer than is asked for: it stays, and nobody has noticed but by waiting. */
Test (shutdown, gives_up)
{
  struct faults_rule *rule;
  struct client client[2];
  const char *error;
  int control;

  start ();
  control = control_open ();
  rule =
    faults_add (faults, dev_path ("a"),
                &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD, .count = 1 });
  for (unsigned i = 0; i < 2; i++)
    client_start (&client[i], i, connect_unix (srv.socket));
  faults_wait (&rule->nacted, 1);
  error = control_error (control, "ETIMEDOUT", "'verb': 'shutdown', 'force': true, 'seconds': 0.1");
  cr_assert_not_null (strstr (error, "still under way after 0.1 s"), "%s", error);
  faults_remove (rule);
  for (unsigned i = 0; i < 2; i++)
    client_wait (&client[i], atomic_load (&client[i].nreplies) + ENOUGH);
  close (connect_unix (srv.socket));
  control_ok (control, "'verb': 'shutdown', 'force': true");
  expect_over (control);
  for (unsigned i = 0; i < 2; i++)
    client_join (&client[i]);
  expect_ended ();
}

/* Who connects, or asks, when it has begun, waits: for the new server. */
Test (shutdown, refuses_nobody)
{
  struct faults_rule *rule;
  struct client held, late;
  struct pollfd pfd = { .events = POLLIN };
  int control, fd;

  start ();
  control = control_open ();
  rule =
    faults_add (faults, dev_path ("a"),
                &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD, .count = 1 });
  fd = connect_unix (srv.socket);
  client_start (&held, 0, connect_unix (srv.socket));
  faults_wait (&rule->nacted, 1);
  control_send (control, "'verb': 'shutdown', 'force': true");
  while (json_object_array_length (member (control_status (control_open ()), "jobs")) == 0)
    sched_yield ();
  client_start (&late, 1, fd);
  pfd.fd = control_open_at (srv.socket);
  faults_remove (rule);
  control_reply (control);
  expect_over (control);
  client_join (&held);
  client_join (&late);
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
  cr_assert_not_null (strstr (error, "has 1 connection and holds 0 pages"), "%s", error);
  client_write_page (nbd, 1, 1, 7);
  client_close (nbd);
  while (member_uint (control_export (control), "clients") > 0)
    sched_yield ();
  error = control_error (control, "EBUSY", "'verb': 'shutdown'");
  cr_assert_not_null (
    strstr (error, "holds 1 page, which a restart without state= loses: run swapoff"), "%s", error);
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

static struct nbd_handle *
try_open (const char *export)
{
  struct nbd_handle *nbd = nbd_create ();

  cr_assert_eq (nbd_set_export_name (nbd, export), 0);
  if (nbd_connect_unix (nbd, srv.socket) == 0)
    return nbd;
  nbd_close (nbd);
  return NULL;
}

/* With state= nothing is lost, so nothing keeps it: pages are there again, and who was barred still is. */
Test (shutdown, comes_back)
{
  struct server_options options = { .threads = 1,
                                    .params = PARAMS (dev_path ("a,size=8M"), control_param (),
                                                      str ("state=%s", run_path ("state"))),
                                    .socket = run_path ("nbd") };
  struct nbd_handle *nbd;
  int control;

  server_start (&srv, &options);
  control = control_open ();
  nbd = try_open ("@host.5");
  cr_assert_not_null (nbd, "%s", nbd_get_error ());
  client_write_page (nbd, 1, 1, 7);
  control_ok (control, "'verb': 'shutdown'");
  expect_over (control);
  expect_ended ();
  nbd_close (nbd);
  server_start (&srv, &options);
  cr_assert_null (try_open ("@host.4"));
  nbd = try_open ("@host.6");
  cr_assert_not_null (nbd, "%s", nbd_get_error ());
  client_expect_page (nbd, 1, 1, 7);
  cr_assert_null (try_open ("@host.5"));
  client_close (nbd);
  server_stop (&srv);
}

/* By drumctl, which is back when all is free for the next one. */
Test (shutdown, again_at_once)
{
  char *drumctl = str ("%s -s '%s' shutdown --force", DRUMCTL, control_path ());
  struct server before;

  start ();
  for (unsigned i = 0; i < random_steps (ROUNDS); i++) {
    struct client client;

    client_start (&client, i, connect_unix (srv.socket));
    client_wait (&client, ENOUGH);
    cr_assert_str_eq (shell_output ("%s", drumctl), "the drum: shut down\n");
    client_join (&client);
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
  struct client client;

  pfd.fd = (int) syscall (SYS_pidfd_open, background, 0);
  cr_assert_geq (pfd.fd, 0, "pidfd_open: %m");
  client_start (&client, 1, fd);
  client_wait (&client, ENOUGH);
  control_ok (control, "'verb': 'shutdown', 'force': true");
  expect_over (control);
  cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "nbdkit does not end");
  background = 0;
  client_join (&client);
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
  raw_shake_hands (fd); /* it is there */
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
