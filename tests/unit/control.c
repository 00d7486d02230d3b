/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.c - tests of lib/control.c: sockets, and several clients. What is said is tested by dialog.c.
 *
 * Nothing here sleeps: clocks are put forward, and what another thread does is waited for.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/control.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "files.h"
#include "logged.h"

enum { BIG_BYTES = 8 << 20, NOBODY = 65534 };

#define PING "{\"version\":1,\"verb\":\"ping\"}\n"
#define PONG "{\"version\":1,\"ok\":true,\"verb\":\"ping\"}\n"

/* The clock of the server. */
static _Atomic uint64_t put_forward_ns;

uint64_t __real_now_ns (void);
uint64_t __wrap_now_ns (void);

uint64_t
__wrap_now_ns (void)
{
  return __real_now_ns () + atomic_load (&put_forward_ns);
}

/* Its accept4, that can be made to fail. */
static atomic_uint naccepts;
static atomic_int accept_error;

int __real_accept4 (int fd, struct sockaddr *address, socklen_t *len, int flags);
int __wrap_accept4 (int fd, struct sockaddr *address, socklen_t *len, int flags);

int
__wrap_accept4 (int fd, struct sockaddr *address, socklen_t *len, int flags)
{
  int err = atomic_load (&accept_error);

  atomic_fetch_add (&naccepts, 1);
  if (err == 0)
    return __real_accept4 (fd, address, len, flags);
  errno = err;
  return -1;
}

/* How often somebody tried to lock a folder. */
static atomic_uint nlocks;

int __real_flock (int fd, int operation);
int __wrap_flock (int fd, int operation);

int
__wrap_flock (int fd, int operation)
{
  atomic_fetch_add (&nlocks, 1);
  return __real_flock (fd, operation);
}

/* The mode that the socket has before it is given the right one. */
static mode_t first_mode;

int __real_fchmodat (int dir, const char *path, mode_t mode, int flags);
int __wrap_fchmodat (int dir, const char *path, mode_t mode, int flags);

int
__wrap_fchmodat (int dir, const char *path, mode_t mode, int flags)
{
  first_mode = file_stat (path).st_mode & 07777;
  return __real_fchmodat (dir, path, mode, flags);
}

/* In the server's thread. */
static atomic_bool no_memory;
static _Thread_local bool is_test = false;

void *__real_malloc (size_t n);
void *__wrap_malloc (size_t n);

void *
__wrap_malloc (size_t n)
{
  return atomic_load (&no_memory) && !is_test ? NULL : __real_malloc (n);
}

static struct control *control;
static char *path;
static atomic_uint nasked;
static atomic_bool deferring;
static sem_t may_go_on;
static atomic_uint nsignals_open; /* that the server's thread would take */

static bool
is_verb (struct json_object *request, const char *name)
{
  struct json_object *verb;

  return json_object_object_get_ex (request, "verb", &verb) &&
         strcmp (json_object_get_string (verb), name) == 0;
}

/* ping: says the verb. big: says much. wait: when deferring is over, or after 10 s. hold: holds the server. */
static int
handler (void *opaque, struct json_object *request, unsigned waited_ms, struct json_object *reply,
         unsigned *wait_ms)
{
  struct json_object *verb;
  sigset_t blocked;

  pthread_sigmask (SIG_BLOCK, NULL, &blocked);
  atomic_fetch_add (&nsignals_open,
                    !sigismember (&blocked, SIGTERM) + !sigismember (&blocked, SIGPIPE));
  atomic_fetch_add ((atomic_uint *) opaque, 1);
  *wait_ms = 10000 - waited_ms;
  if (is_verb (request, "wait") && atomic_load (&deferring) && waited_ms < 10000)
    return -EAGAIN;
  if (is_verb (request, "hold"))
    sem_wait (&may_go_on);
  if (is_verb (request, "big")) {
    char *text = malloc (BIG_BYTES);

    memset (text, 'b', BIG_BYTES);
    json_object_object_add (reply, "text", json_object_new_string_len (text, BIG_BYTES));
    free (text);
  }
  if (json_object_object_get_ex (request, "verb", &verb))
    json_object_object_add (reply, "verb", json_object_get (verb));
  return 0;
}

static void
setup (void)
{
  is_test = true;
  scratch_setup ();
  logged_start ();
  path = scratch_path ("control");
}

static void
setup_server (void)
{
  setup ();
  cr_assert_eq (control_open (path, &control), 0, "%s", logged_last ());
  cr_assert_eq (control_start (control, handler, &nasked), 0);
}

static void
teardown (void)
{
  scratch_teardown ();
}

static void
teardown_server (void)
{
  control_close (control);
  cr_assert_eq (scratch_count (), 0, "something is left in the folder");
  cr_assert_eq (atomic_load (&nsignals_open), 0);
  teardown ();
}

TestSuite (control_open, .init = setup, .fini = teardown, .timeout = 60);
TestSuite (control, .init = setup_server, .fini = teardown_server, .timeout = 60);

static int
connect_to (const char *name)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  snprintf (address.sun_path, sizeof address.sun_path, "%s", name);
  if (connect (fd, (struct sockaddr *) &address, sizeof address) == 0)
    return fd;
  close (fd);
  return -errno;
}

static int
client (void)
{
  int fd = connect_to (path);

  cr_assert_geq (fd, 0, "connect: %s", strerror (-fd));
  return fd;
}

static void
put_n (int fd, const void *bytes, size_t len)
{
  for (size_t at = 0; at < len;) {
    ssize_t n = send (fd, (const char *) bytes + at, len - at, MSG_NOSIGNAL);

    cr_assert_gt (n, 0, "send: %m");
    at += (size_t) n;
  }
}

static void
put (int fd, const char *text)
{
  put_n (fd, text, strlen (text));
}

/* A line, or what there is of it when the connection ends. */
static char *
get_line (int fd)
{
  char *line = keep_for_test (calloc (1, 1024));

  for (size_t len = 0; len < 1023 && recv (fd, line + len, 1, 0) == 1; len++)
    if (line[len] == '\n')
      break;
  return line;
}

static void
assert_line (int fd, const char *expected)
{
  char *line = get_line (fd);

  cr_assert_str_eq (line, expected, "%s", line);
  free (line);
}

static void
assert_error (int fd, const char *name)
{
  char *line = get_line (fd);

  cr_assert_not_null (strstr (line, str ("\"errno\":\"%s\"", name)), "%s", line);
  cr_assert_not_null (strstr (line, "{\"version\":1,\"ok\":false,\"error\":\""), "%s", line);
  free (line);
}

static void
assert_over (int fd)
{
  char c;
  ssize_t n = recv (fd, &c, 1, 0);

  cr_assert (n == 0 || (n == -1 && errno == ECONNRESET), "%zd: %c", n, c);
  close (fd);
}

static void
ping (int fd)
{
  put (fd, PING);
  assert_line (fd, PONG);
}

static void
wait_until_asked (unsigned n)
{
  while (atomic_load (&nasked) < n)
    sched_yield ();
}

static void
put_clock_forward (unsigned seconds)
{
  atomic_fetch_add (&put_forward_ns, seconds * UINT64_C (1000000000));
  control_wake (control);
}

/* The server has seen all that had happened before this. */
static void
let_it_turn (int other)
{
  for (unsigned i = 0; i < 3; i++)
    ping (other);
}

/* The folder is left as it was by one that has only been opened; NULL may be closed. */
Test (control_open, opens_and_closes)
{
  cr_assert_eq (control_open (path, &control), 0);
  cr_assert (S_ISSOCK (file_stat (path).st_mode));
  control_wake (control);
  control_close (control);
  control_close (NULL);
  cr_assert_eq (scratch_count (), 0);
  cr_assert_eq (logged_count (""), 0);
}

/* The mode is 0600, whatever the umask, and never lets others in. */
Test (control_open, mode)
{
  static const mode_t umasks[] = { 0, 022, 077, 0777 };

  for (unsigned i = 0; i < sizeof umasks / sizeof umasks[0]; i++) {
    umask (umasks[i]);
    cr_assert_eq (control_open (path, &control), 0);
    cr_assert_eq (file_stat (path).st_mode & 07777, 0600);
    cr_assert_eq (first_mode, 0600 & ~umasks[i], "first it was %o", first_mode);
    control_close (control);
  }
}

/* A path is as long as a socket's may be, and no longer; nothing is cut. */
Test (control_open, path_length)
{
  size_t max = sizeof ((struct sockaddr_un *) 0)->sun_path - 1, folder = strlen (scratch_path (""));
  char name[200];

  memset (name, 'n', sizeof name);
  name[max - folder] = '\0';
  path = scratch_path (name);
  cr_assert_eq (strlen (path), max);
  cr_assert_eq (control_open (path, &control), 0);
  cr_assert_eq (scratch_count (), 1);
  control_close (control);

  control = NULL;
  path = str ("%sn", path);
  cr_assert_eq (control_open (path, &control), -ENAMETOOLONG);
  assert_logged_error ("is too long for a socket's path, by 1 bytes");
  cr_assert_null (control);
  cr_assert_eq (scratch_count (), 0);
}

/* A socket that nobody listens on. */
static void
make_stale (const char *name)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM, 0);

  snprintf (address.sun_path, sizeof address.sun_path, "%s", name);
  cr_assert_eq (bind (fd, (struct sockaddr *) &address, sizeof address), 0);
  close (fd);
}

/* What a server that was killed has left is replaced. */
Test (control_open, replaces_a_stale_socket)
{
  make_stale (path);
  cr_assert_eq (control_open (path, &control), 0);
  cr_assert_eq (control_start (control, handler, &nasked), 0);
  ping (client ());
  control_close (control);
  cr_assert_eq (scratch_count (), 0);
}

/* A server that listens is left alone, also if it does not accept for the time being; so is one of another kind. */
Test (control_open, leaves_a_live_socket)
{
  static const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
  struct control *second = NULL;

  cr_assert_eq (control_open (path, &control), 0);
  for (unsigned i = 0; i < 2 * CONTROL_MAX_CLIENTS; i++) {
    cr_assert_eq (control_open (path, &second), -EADDRINUSE);
    assert_logged_error ("a server listens there already");
  }
  cr_assert_eq (control_start (control, handler, &nasked), 0);
  ping (client ());
  control_close (control);

  for (unsigned i = 0; i < 3; i++) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket (AF_UNIX, types[i], 0);

    snprintf (address.sun_path, sizeof address.sun_path, "%s", path);
    cr_assert_eq (bind (fd, (struct sockaddr *) &address, sizeof address), 0);
    listen (fd, 1);
    cr_assert_eq (control_open (path, &second), -EADDRINUSE, "type %d", types[i]);
    assert_logged_error ("a server listens there already");
    unlink (path);
    close (fd);
  }
  cr_assert_null (second);
}

/* Whatever is no socket is not touched, also if it is a link to one. */
Test (control_open, leaves_what_is_no_socket)
{
  char *stale = scratch_path ("stale");
  struct stat before, after;

  make_stale (stale);
  for (unsigned i = 0; i < 5; i++) {
    switch (i) {
    case 0:
      file_make ("control", 0);
      break;
    case 1:
      cr_assert_eq (mkdir (path, 0700), 0);
      break;
    case 2:
      cr_assert_eq (mkfifo (path, 0600), 0);
      break;
    case 3:
      cr_assert_eq (symlink (stale, path), 0);
      break;
    case 4:
      cr_assert_eq (symlink ("nowhere", path), 0);
      break;
    }
    cr_assert_eq (lstat (path, &before), 0);
    cr_assert_eq (control_open (path, &control), -EEXIST);
    assert_logged_error ("is no socket");
    cr_assert_eq (lstat (path, &after), 0);
    cr_assert_eq (before.st_ino, after.st_ino);
    cr_assert_eq (before.st_mode, after.st_mode);
    cr_assert_eq (remove (path), 0);
  }
  cr_assert_eq (scratch_count (), 1);
}

/* No folder, no socket. */
Test (control_open, needs_a_folder)
{
  cr_assert_eq (control_open (scratch_path ("none/control"), &control), -ENOENT);
  assert_logged_error ("the folder can't be locked: No such file or directory");
  file_make ("file", 0);
  cr_assert_eq (control_open (scratch_path ("file/control"), &control), -ENOTDIR);
}

/* Another server's socket that has taken the place of ours stays. */
Test (control_open, removes_only_its_own)
{
  struct control *second;

  cr_assert_eq (control_open (path, &control), 0);
  cr_assert_eq (unlink (path), 0);
  cr_assert_eq (control_open (path, &second), 0);
  control_close (control);
  cr_assert (S_ISSOCK (file_stat (path).st_mode));
  control_close (second);
  cr_assert_eq (scratch_count (), 0);

  cr_assert_eq (control_open (path, &control), 0);
  cr_assert_eq (unlink (path), 0);
  file_make ("control", 1);
  control_close (control);
  cr_assert_eq (file_stat (path).st_size, 1);
}

enum { NOPENERS = 4 };

static pthread_barrier_t barrier;
static atomic_uint nopened, nrefused;

static void *
open_at_once (void *arg)
{
  struct control *c = NULL;
  int ret;

  (void) arg;
  pthread_barrier_wait (&barrier);
  ret = control_open (path, &c);
  atomic_fetch_add (&nopened, ret == 0);
  atomic_fetch_add (&nrefused, ret == -EADDRINUSE);
  pthread_barrier_wait (&barrier);
  control_close (c);
  return NULL;
}

/* Of servers that start at once over a stale socket exactly one wins. */
Test (control_open, one_wins)
{
  pthread_t thread[NOPENERS];

  pthread_barrier_init (&barrier, NULL, NOPENERS);
  for (unsigned round = 1; round <= random_steps (200); round++) {
    make_stale (path);
    for (unsigned i = 0; i < NOPENERS; i++)
      cr_assert_eq (pthread_create (&thread[i], NULL, open_at_once, NULL), 0);
    for (unsigned i = 0; i < NOPENERS; i++)
      pthread_join (thread[i], NULL);
    cr_assert_eq (atomic_load (&nopened), round, "in round %u", round);
    cr_assert_eq (atomic_load (&nrefused), round * (NOPENERS - 1));
  }
}

/* A server waits while another one starts or stops in that folder. */
Test (control_open, waits_for_the_folder)
{
  int folder = open (scratch_path (""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  pthread_t thread;

  cr_assert_eq (flock (folder, LOCK_EX), 0);
  pthread_barrier_init (&barrier, NULL, 2);
  cr_assert_eq (pthread_create (&thread, NULL, open_at_once, NULL), 0);
  pthread_barrier_wait (&barrier);
  while (atomic_load (&nlocks) < 4)
    sched_yield ();
  cr_assert_eq (scratch_count (), 0);
  close (folder);
  pthread_barrier_wait (&barrier);
  pthread_join (thread, NULL);
  cr_assert_eq (atomic_load (&nopened), 1);
}

/* Requests and replies, one after the other, and many in one piece. */
Test (control, answers)
{
  int fd = client ();

  ping (fd);
  ping (fd);
  put (fd, PING PING "x\n" PING);
  assert_line (fd, PONG);
  assert_line (fd, PONG);
  assert_error (fd, "EINVAL");
  assert_line (fd, PONG);
  close (fd);
}

/* In chunks of any size. */
Test (control, any_chunks)
{
  struct rng rng = rng_for (0);
  int fd = client ();

  for (unsigned round = 0; round < random_steps (100); round++) {
    static const char input[] = PING "[]\n" PING;

    for (size_t at = 0; at < sizeof input - 1;) {
      size_t n = 1 + rng_below (&rng, 20), left = sizeof input - 1 - at;

      put_n (fd, input + at, n < left ? n : left);
      at += n < left ? n : left;
      if (rng_below (&rng, 4) == 0)
        sched_yield ();
    }
    assert_line (fd, PONG);
    assert_error (fd, "EINVAL");
    assert_line (fd, PONG);
  }
}

/* Who says what he has to, and hangs up one way, gets all replies. */
Test (control, half_closed)
{
  int fd = client ();

  atomic_store (&deferring, true);
  put (fd, PING "{\"version\":1,\"verb\":\"wait\"}\n" PING "{\"vers");
  shutdown (fd, SHUT_WR);
  wait_until_asked (2);
  assert_line (fd, PONG);
  atomic_store (&deferring, false);
  control_wake (control);
  assert_line (fd, "{\"version\":1,\"ok\":true,\"verb\":\"wait\"}\n");
  assert_line (fd, PONG);
  assert_over (fd);
}

/* So many clients are served; one more is told so, and may come when another has gone. */
Test (control, many_clients)
{
  int fd[CONTROL_MAX_CLIENTS], late;

  for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
    fd[i] = client ();
    ping (fd[i]);
  }
  late = client ();
  assert_error (late, "EBUSY");
  assert_over (late);
  for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++)
    ping (fd[i]);
  close (fd[7]);
  let_it_turn (fd[0]);
  late = client ();
  ping (late);
  for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++)
    if (i != 7)
      ping (fd[i]);
}

/* All at once, each with its own requests, some of which hang up in between. */
static void *
chat (void *arg)
{
  struct rng rng = rng_for ((uintptr_t) arg);
  uintptr_t nwrong = 0;
  char line[200], reply[200];

  is_test = true;
  for (unsigned round = 0; round < random_steps (50); round++) {
    int fd = connect_to (path);
    FILE *f = fd < 0 ? NULL : fdopen (fd, "r+");

    if (!f)
      return (void *) (nwrong + 1);
    setvbuf (f, NULL, _IONBF, 0);
    for (unsigned i = 0; i < 5; i++) {
      snprintf (line, sizeof line, "{\"version\":1,\"verb\":\"%p-%u-%u\"}\n", arg, round, i);
      if (send (fd, line, strlen (line), MSG_NOSIGNAL) < 0 || rng_below (&rng, 10) == 0)
        break;
      snprintf (line, sizeof line, "{\"version\":1,\"ok\":true,\"verb\":\"%p-%u-%u\"}\n", arg,
                round, i);
      if (!fgets (reply, sizeof reply, f) || strcmp (reply, line) != 0)
        nwrong++;
    }
    fclose (f);
  }
  return (void *) nwrong;
}

Test (control, many_clients_at_once)
{
  enum { N = 8 };
  pthread_t thread[N];
  void *nwrong;

  for (uintptr_t i = 0; i < N; i++)
    cr_assert_eq (pthread_create (&thread[i], NULL, chat, (void *) (i + 1)), 0);
  for (unsigned i = 0; i < N; i++) {
    pthread_join (thread[i], &nwrong);
    cr_assert_null (nwrong);
  }
}

/* A line that is too long is told so, though more of it is on its way; others do not notice. */
Test (control, too_long)
{
  int fd = client (), other = client ();
  char *blanks = malloc (CONTROL_MAX_REQUEST + 1);

  memset (blanks, ' ', CONTROL_MAX_REQUEST + 1);
  put_n (fd, blanks, CONTROL_MAX_REQUEST + 1);
  assert_error (fd, "EMSGSIZE");
  assert_over (fd);
  ping (other);
  free (blanks);
}

/* A reply of any size is sent as its reader takes it; meanwhile others are served, and that client's next request waits. */
Test (control, big_replies)
{
  int fd = client (), other = client ();
  char *text = malloc (BIG_BYTES);

  put (fd, "{\"version\":1,\"verb\":\"big\"}\n" PING);
  wait_until_asked (1);
  let_it_turn (other);
  cr_assert_eq (atomic_load (&nasked), 4);
  cr_assert_eq (recv (fd, text, 33, MSG_WAITALL), 33);
  cr_assert_eq (memcmp (text, "{\"version\":1,\"ok\":true,\"text\":\"bb", 33), 0);
  cr_assert_eq (recv (fd, text, BIG_BYTES - 2, MSG_WAITALL), BIG_BYTES - 2);
  for (unsigned i = 0; i < BIG_BYTES - 2; i++)
    cr_assert_eq (text[i], 'b');
  assert_line (fd, "\",\"verb\":\"big\"}\n");
  assert_line (fd, PONG);
  free (text);
}

/* A client that sends and does not read: it is not listened to, so it costs no more than one reply. */
Test (control, a_deaf_client_is_not_heard)
{
  int fd = client (), other = client ();
  size_t sent = 0;
  ssize_t n;

  put (fd, "{\"version\":1,\"verb\":\"big\"}\n");
  wait_until_asked (1);
  let_it_turn (other);
  fcntl (fd, F_SETFL, O_NONBLOCK);
  while ((n = send (fd, PING, strlen (PING), MSG_NOSIGNAL)) > 0) {
    sent += (size_t) n;
    cr_assert_lt (sent, 64 << 20, "all that is sent is taken");
  }
  cr_assert_eq (errno, EAGAIN);
  let_it_turn (other);
  cr_assert_eq (atomic_load (&nasked), 7);
  put_clock_forward (CONTROL_SILENT_SECONDS - 1);
  let_it_turn (other);
  cr_assert_eq (send (fd, "x", 1, MSG_NOSIGNAL), -1);
  cr_assert_eq (errno, EAGAIN, "it is not waited for long enough");
  put_clock_forward (2);
  let_it_turn (other);
  cr_assert_eq (send (fd, "x", 1, MSG_NOSIGNAL), -1);
  cr_assert (errno == EPIPE || errno == ECONNRESET, "%m");
}

/* The silent are dropped, with half a request after 30 s, with none after 5 minutes. */
Test (control, the_silent_are_dropped)
{
  int half = client (), idle = client (), other = client ();

  ping (half);
  ping (idle);
  put (half, "{");
  let_it_turn (other);
  put_clock_forward (CONTROL_SILENT_SECONDS);
  assert_over (half);
  ping (idle);
  put_clock_forward (CONTROL_IDLE_SECONDS);
  assert_over (idle);
  assert_over (other);
  ping (client ());
}

/* Deferred: answered when woken, or in time; others are served meanwhile, and it may be closed then. */
Test (control, defers)
{
  int fd = client (), other = client ();

  atomic_store (&deferring, true);
  put (fd, "{\"version\":1,\"verb\":\"wait\"}\n" PING);
  wait_until_asked (1);
  let_it_turn (other);
  cr_assert_eq (atomic_load (&nasked), 4, "it was asked though nothing has happened");
  control_wake (control);
  wait_until_asked (5);
  atomic_store (&deferring, false);
  control_wake (control);
  assert_line (fd, "{\"version\":1,\"ok\":true,\"verb\":\"wait\"}\n");
  assert_line (fd, PONG);

  atomic_store (&deferring, true);
  put (fd, "{\"version\":1,\"verb\":\"wait\"}\n");
  wait_until_asked (8);
  put_clock_forward (9);
  wait_until_asked (9);
  put_clock_forward (1);
  assert_line (fd, "{\"version\":1,\"ok\":true,\"verb\":\"wait\"}\n");
  put (fd, "{\"version\":1,\"verb\":\"wait\"}\n");
  wait_until_asked (11);
}

/* Who hangs up while deferred is forgotten: its place is free, and it is asked no more. */
Test (control, forgets_who_hangs_up)
{
  int fd[CONTROL_MAX_CLIENTS], other;

  atomic_store (&deferring, true);
  for (unsigned i = 0; i < CONTROL_MAX_CLIENTS; i++) {
    fd[i] = client ();
    put (fd[i], "{\"version\":1,\"verb\":\"wait\"}\n");
    wait_until_asked (i + 1);
  }
  for (unsigned i = 1; i < CONTROL_MAX_CLIENTS; i++)
    close (fd[i]);
  while (other = client (), send (other, PING, strlen (PING), MSG_NOSIGNAL) < 0 ||
                              strcmp (get_line (other), PONG) != 0)
    close (other);
  cr_assert_eq (atomic_load (&nasked), CONTROL_MAX_CLIENTS + 1);
  control_wake (control);
  wait_until_asked (CONTROL_MAX_CLIENTS + 2);
  let_it_turn (other);
  cr_assert_eq (atomic_load (&nasked), CONTROL_MAX_CLIENTS + 5);
}

/* Nor does it cost another one the wake-up that comes with it, whoever stands where in the server's list. */
Test (control, wakes_all)
{
  sem_init (&may_go_on, 0, 0);
  for (unsigned who = 0; who < 3; who++) {
    int fd[4], holder;

    atomic_store (&nasked, 0);
    atomic_store (&deferring, true);
    for (unsigned i = 0; i < 4; i++) {
      fd[i] = client ();
      if (i == 2)
        ping (holder = client ());
      put (fd[i], "{\"version\":1,\"verb\":\"wait\"}\n");
      wait_until_asked (i + 1 + (i >= 2));
    }
    put (holder, "{\"version\":1,\"verb\":\"hold\"}\n");
    wait_until_asked (6);
    close (fd[who]);
    atomic_store (&deferring, false);
    control_wake (control);
    sem_post (&may_go_on);
    for (unsigned i = 0; i < 4; i++)
      if (i != who)
        assert_line (fd[i], "{\"version\":1,\"ok\":true,\"verb\":\"wait\"}\n");
  }
}

/* A signal that a hang-up could raise would end the test. */
Test (control, hang_up_before_the_reply)
{
  int other = client ();

  signal (SIGPIPE, SIG_DFL);
  for (unsigned i = 0; i < 50; i++) {
    int fd = client ();

    put (fd, i % 2 ? PING PING : "{\"version\":1,\"verb\":\"big\"}\n");
    close (fd);
  }
  ping (other);
}

/* Without descriptors nobody is accepted, and nobody spins: it is tried again after a second. */
Test (control, no_descriptors)
{
  static const int errors[] = { EMFILE, ENFILE, ENOMEM, ENOBUFS };
  int other = client (), late;

  ping (other);
  for (unsigned i = 0; i < sizeof errors / sizeof errors[0]; i++) {
    logged_start ();
    atomic_store (&accept_error, errors[i]);
    atomic_store (&naccepts, 0);
    late = client ();
    put (late, PING);
    while (logged_count ("clients can't be accepted now") == 0)
      sched_yield ();
    for (unsigned turn = 0; turn < 20; turn++)
      ping (other);
    cr_assert_eq (atomic_load (&naccepts), 1, "%u times", atomic_load (&naccepts));
    put_clock_forward (1);
    while (atomic_load (&naccepts) < 2)
      sched_yield ();
    cr_assert_eq (logged_count (""), 1, "it is said again and again");
    atomic_store (&accept_error, 0);
    if (i > 0) /* once in real time, so that nothing but time passes */
      put_clock_forward (1);
    assert_line (late, PONG);
    close (late);
  }
}

/* A client that there is no memory for is dropped; others are served before and after. */
Test (control, no_memory)
{
  int fd = client (), late;

  ping (fd);
  atomic_store (&no_memory, true);
  late = client ();
  assert_over (late);
  put (fd, PING);
  assert_over (fd);
  atomic_store (&no_memory, false);
  ping (client ());
}

/* Close drops whoever is there, whatever he is doing. */
Test (control, closes_with_clients)
{
  int idle = client (), half = client (), deaf = client (), deferred = client ();

  atomic_store (&deferring, true);
  put (deaf, "{\"version\":1,\"verb\":\"big\"}\n");
  put (deferred, "{\"version\":1,\"verb\":\"wait\"}\n");
  put (half, "{");
  wait_until_asked (2);
  ping (idle);
  control_close (control);
  control = NULL;
  assert_over (idle);
  assert_over (half);
  assert_over (deferred);
  cr_assert_eq (connect_to (path), -ENOENT);
}

/* Leaving, it answers who waits, once more if it has no answer yet, and nobody else; and the connections stay until the end. */
Test (control, leaves)
{
  int idle = client (), half = client (), deferred = client (), twice = client ();
  char c;

  atomic_store (&deferring, true);
  put (deferred, "{\"version\":1,\"verb\":\"wait\"}\n");
  put (twice, "{\"version\":1,\"verb\":\"wait\"}\n" PING);
  put (half, "{");
  wait_until_asked (2);
  ping (idle);
  atomic_store (&deferring, false);
  control_leave (control);
  cr_assert_eq (connect_to (path), -ENOENT);
  assert_line (deferred, "{\"version\":1,\"ok\":true,\"verb\":\"wait\"}\n");
  assert_line (twice, "{\"version\":1,\"ok\":true,\"verb\":\"wait\"}\n");
  put (idle, PING);
  for (int *fd = (int[]){ idle, half, deferred, twice, -1 }; *fd != -1; fd++) {
    cr_assert_eq (recv (*fd, &c, 1, MSG_DONTWAIT), -1);
    cr_assert_eq (errno, EAGAIN);
  }
  control_close (control);
  control = NULL;
  assert_over (idle);
  assert_over (deferred);
}

/* It does not wait for who has no answer yet, or does not take his. */
Test (control, leaves_the_deaf)
{
  int deaf = client (), deferred = client ();
  char c;

  atomic_store (&deferring, true);
  put (deaf, "{\"version\":1,\"verb\":\"big\"}\n");
  put (deferred, "{\"version\":1,\"verb\":\"wait\"}\n");
  wait_until_asked (2);
  control_leave (control);
  cr_assert_eq (recv (deferred, &c, 1, MSG_DONTWAIT), -1);
  cr_assert_eq (errno, EAGAIN);
}

/* What a client of this user gets: the reply to a ping, in *reply. */
static void
ping_as (uid_t uid, char reply[256])
{
  int fds[2], status;
  pid_t pid;

  cr_assert_eq (pipe (fds), 0);
  pid = fork ();
  if (pid == 0) {
    char buf[256] = "no connection";
    int fd;

    if (seteuid (0) == -1 || setuid (uid) == -1)
      _exit (1);
    fd = connect_to (path);
    if (fd >= 0) {
      send (fd, PING, strlen (PING), MSG_NOSIGNAL);
      snprintf (buf, sizeof buf, "%s", get_line (fd));
    }
    _exit (write (fds[1], buf, sizeof buf) != sizeof buf);
  }
  cr_assert_eq (waitpid (pid, &status, 0), pid);
  cr_assert_eq (status, 0);
  cr_assert_eq (read (fds[0], reply, 256), 256);
  close (fds[0]);
  close (fds[1]);
}

/* Root and the server's own user are served; others are told, even if the file system lets them through. */
Test (control, only_for_root_and_its_user)
{
  char reply[256];

  if (geteuid () != 0)
    cr_skip ("only root can become others");
  cr_assert_eq (chmod (scratch_path (""), 0755), 0);
  ping_as (NOBODY, reply);
  cr_assert_str_eq (reply, "no connection");
  cr_assert_eq (chmod (path, 0666), 0);
  ping_as (NOBODY, reply);
  cr_assert_not_null (strstr (reply, "EPERM"), "%s", reply);
  ping_as (0, reply);
  cr_assert_str_eq (reply, PONG);
  cr_assert_eq (seteuid (NOBODY), 0);
  ping_as (NOBODY, reply);
  cr_assert_str_eq (reply, PONG);
  ping_as (0, reply);
  cr_assert_str_eq (reply, PONG);
  ping_as (1, reply);
  cr_assert_not_null (strstr (reply, "EPERM"), "%s", reply);
  cr_assert_eq (seteuid (0), 0);
}
