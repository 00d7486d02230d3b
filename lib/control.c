/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "log.h"
#include "stats.h"
#include "thread.h"

enum {
  NS_PER_MS = 1000000,
  ACCEPT_AGAIN_MS = 1000, /* after it failed for want of memory or descriptors */
  PAUSE_MS = 10,          /* before what has no event is tried again */
  FOLDER_TRIES = 500,
};

struct client {
  int fd;
  struct dialog *dialog;
};

struct control {
  struct sockaddr_un address;
  struct stat st; /* of the socket that we have bound */
  int fd, wake_fd;
  control_handler *handler;
  void *opaque;
  pthread_t thread;
  bool started;
  atomic_bool stop;
  bool leaving;       /* set before stop */
  uint64_t accept_ns; /* not before; 0: the last time went well */
  unsigned nclients;
  struct client client[CONTROL_MAX_CLIENTS];
};

/* Open the folder that path is in, and lock it: who starts or stops a server in it meanwhile, waits. The descriptor. */
static int
lock_folder (const char *path)
{
  char *copy = strdup (path);
  int fd, err = ENOMEM;

  if (!copy)
    goto fail;
  fd = open (dirname (copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  err = errno;
  free (copy);
  if (fd == -1)
    goto fail;
  for (unsigned i = 0; i < FOLDER_TRIES; i++) {
    if (flock (fd, LOCK_EX | LOCK_NB) == 0)
      return fd;
    err = errno;
    if (err != EWOULDBLOCK && err != EINTR)
      break;
    poll (NULL, 0, PAUSE_MS);
  }
  close (fd);
fail:
  log_error ("%s: the folder can't be locked: %s", path, strerror (err));
  return -err;
}

/* Somebody may listen on the socket that is there: 0 if not, then it is removed. */
static int
remove_stale (const struct sockaddr_un *address)
{
  const char *path = address->sun_path;
  int fd, ret, err;

  fd = socket (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd == -1) {
    err = errno;
    log_error ("%s: no socket to be had: %s", path, strerror (err));
    return -err;
  }
  ret = connect (fd, (const struct sockaddr *) address, sizeof *address);
  err = errno;
  close (fd);
  if (ret == 0 || err == EAGAIN || err == EPROTOTYPE) {
    log_error ("%s: a server listens there already: give this one another path, or stop that one",
               path);
    return -EADDRINUSE;
  }
  if (err == ECONNREFUSED && unlink (path) == -1)
    err = errno;
  if (err == ECONNREFUSED || err == ENOENT)
    return 0;
  log_error ("%s: is a socket that can't be replaced: %s", path, strerror (err));
  return -err;
}

/* => the folder is locked. */
static int
make_way (const struct sockaddr_un *address)
{
  const char *path = address->sun_path;
  struct stat st;

  if (lstat (path, &st) == -1) {
    if (errno == ENOENT)
      return 0;
    int err = errno;
    log_error ("%s: %s", path, strerror (err));
    return -err;
  }
  if (S_ISSOCK (st.st_mode))
    return remove_stale (address);
  log_error ("%s: is there, and is no socket: give a path that is free", path);
  return -EEXIST;
}

/* The socket's file gets the mode of the socket, less the umask: so it is never open to others, and in the end 0600.
 * => the folder is locked, and path is free. */
static int
bind_and_listen (struct control *c)
{
  const char *path = c->address.sun_path;
  bool bound = false;
  int err;

  c->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (c->fd == -1 || fchmod (c->fd, 0600) == -1)
    goto fail;
  if (bind (c->fd, (const struct sockaddr *) &c->address, sizeof c->address) == -1)
    goto fail;
  bound = true;
  if (fchmodat (AT_FDCWD, path, 0600, AT_SYMLINK_NOFOLLOW) == 0 && lstat (path, &c->st) == 0 &&
      listen (c->fd, CONTROL_MAX_CLIENTS) == 0)
    return 0;
fail:
  err = errno;
  if (bound)
    unlink (path);
  log_error ("%s: the control socket can't be made: %s", path, strerror (err));
  return -err;
}

static int
set_address (struct sockaddr_un *address, const char *path)
{
  size_t len = strlen (path);

  if (len >= sizeof address->sun_path) {
    log_error ("%s: is too long for a socket's path, by %zu bytes: give a shorter one", path,
               len - sizeof address->sun_path + 1);
    return -ENAMETOOLONG;
  }
  address->sun_family = AF_UNIX;
  memcpy (address->sun_path, path, len + 1);
  return 0;
}

int
control_open (const char *path, struct control **ret)
{
  struct control *c = calloc (1, sizeof *c);
  int err, folder;

  if (!c) {
    log_error ("%s: out of memory", path);
    return -ENOMEM;
  }
  c->fd = -1;
  c->wake_fd = -1;
  err = set_address (&c->address, path);
  if (err < 0)
    goto fail;
  c->wake_fd = eventfd (0, EFD_NONBLOCK | EFD_CLOEXEC);
  if (c->wake_fd == -1) {
    err = -errno;
    log_error ("%s: no eventfd to be had: %s", path, strerror (-err));
    goto fail;
  }
  err = folder = lock_folder (path);
  if (folder < 0)
    goto fail;
  err = make_way (&c->address);
  if (err == 0)
    err = bind_and_listen (c);
  close (folder);
  if (err < 0)
    goto fail;
  *ret = c;
  return 0;
fail:
  if (c->fd != -1)
    close (c->fd);
  if (c->wake_fd != -1)
    close (c->wake_fd);
  free (c);
  return err;
}

static void
receive (struct client *client, uint64_t now)
{
  char *room;
  size_t size = dialog_room (client->dialog, &room);
  ssize_t n = recv (client->fd, room, size, MSG_DONTWAIT);

  if (n >= 0)
    dialog_received (client->dialog, (size_t) n, now);
  else if (errno != EAGAIN)
    dialog_end (client->dialog);
}

static void
transmit (struct client *client, uint64_t now)
{
  const char *bytes;
  size_t size = dialog_reply (client->dialog, &bytes);
  ssize_t n = send (client->fd, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);

  if (n >= 0)
    dialog_sent (client->dialog, (size_t) n, now);
  else if (errno != EAGAIN)
    dialog_end (client->dialog);
}

/* One step, so that no client keeps others waiting for long. */
static void
serve (struct client *client, short revents, bool woken, uint64_t now)
{
  struct dialog *d = client->dialog;

  if (dialog_state (d) == DIALOG_RECEIVING && revents)
    receive (client, now);
  else if (revents & (POLLHUP | POLLERR))
    dialog_end (d); /* it does not care for the reply any more */
  else if (revents & POLLOUT)
    transmit (client, now);
  dialog_turn (d, woken, now);
}

static void
drop (struct client *client)
{
  close (client->fd);
  dialog_free (client->dialog);
}

/* Why this client is not to be served; NULL: it is. */
static const char *
find_objection (const struct control *c, int fd, int *err)
{
  socklen_t len = sizeof (struct ucred);
  struct ucred peer;

  *err = EPERM;
  if (getsockopt (fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == -1 ||
      (peer.uid != 0 && peer.uid != geteuid ()))
    return "only root and the server's own user may control it";
  *err = EBUSY;
  return c->nclients == CONTROL_MAX_CLIENTS ? "too many clients are connected: try again later"
                                            : NULL;
}

/* Without descriptors or memory there is nobody to answer; poll would not wait. So look again later. */
static void
accept_later (struct control *c, uint64_t now)
{
  if (c->accept_ns == 0)
    log_warning ("%s: clients can't be accepted now: %s", c->address.sun_path, strerror (errno));
  c->accept_ns = now + ACCEPT_AGAIN_MS * (uint64_t) NS_PER_MS;
}

static void
accept_client (struct control *c, uint64_t now)
{
  struct client client = { .fd = accept4 (c->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC) };
  const char *objection;
  int err;

  if (client.fd == -1) {
    if (errno != EAGAIN && errno != ECONNABORTED)
      accept_later (c, now);
    return;
  }
  c->accept_ns = 0;
  client.dialog = dialog_create (c->handler, c->opaque, now);
  if (!client.dialog) {
    close (client.fd);
    return;
  }
  objection = find_objection (c, client.fd, &err);
  if (!objection) {
    c->client[c->nclients++] = client;
    return;
  }
  dialog_refuse (client.dialog, err, objection);
  if (dialog_state (client.dialog) == DIALOG_SENDING)
    transmit (&client, now);
  drop (&client);
}

static short
events_of (const struct client *client)
{
  switch (dialog_state (client->dialog)) {
  case DIALOG_RECEIVING:
    return POLLIN;
  case DIALOG_SENDING:
    return POLLOUT;
  default:
    return 0;
  }
}

/* Rounded up, so that it is due when poll is back. */
static int
ms_until (uint64_t due, uint64_t now)
{
  uint64_t ms = due > now ? (due - now + NS_PER_MS - 1) / NS_PER_MS : 0;

  return ms < INT_MAX ? (int) ms : INT_MAX;
}

/* What poll is to look at, and for how long. */
static int
prepare (const struct control *c, struct pollfd *p)
{
  uint64_t now = now_ns (), due = UINT64_MAX;
  bool accept_now = now >= c->accept_ns;

  p[0] = (struct pollfd){ .fd = c->wake_fd, .events = POLLIN };
  p[1] = (struct pollfd){ .fd = accept_now ? c->fd : -1, .events = POLLIN };
  if (!accept_now)
    due = c->accept_ns;
  for (unsigned i = 0; i < c->nclients; i++) {
    uint64_t client_due = dialog_due_ns (c->client[i].dialog);

    p[2 + i] = (struct pollfd){ .fd = c->client[i].fd, .events = events_of (&c->client[i]) };
    due = client_due < due ? client_due : due;
  }
  return due == UINT64_MAX ? -1 : ms_until (due, now);
}

/* Wait for something to do, and do it. */
static void
turn (struct control *c)
{
  struct pollfd p[2 + CONTROL_MAX_CLIENTS];
  int timeout_ms = prepare (c, p);
  eventfd_t nwakes;
  uint64_t now;
  bool woken;

  if (poll (p, 2 + c->nclients, timeout_ms) == -1) { /* the kernel has no memory */
    poll (NULL, 0, PAUSE_MS);
    return;
  }
  now = now_ns ();
  woken = p[0].revents && eventfd_read (c->wake_fd, &nwakes) == 0;
  for (unsigned i = c->nclients; i-- > 0;) { /* the last takes the place of one that leaves */
    serve (&c->client[i], p[2 + i].revents, woken, now);
    if (dialog_state (c->client[i].dialog) == DIALOG_OVER) {
      drop (&c->client[i]);
      c->client[i] = c->client[--c->nclients];
    }
  }
  if (p[1].revents)
    accept_client (c, now);
}

/* A last turn for everybody, and what of a reply the kernel takes at once. */
static void
answer_all (struct control *c)
{
  uint64_t now = now_ns ();

  for (unsigned i = 0; i < c->nclients; i++) {
    struct client *client = &c->client[i];

    dialog_turn (client->dialog, true, now);
    if (dialog_state (client->dialog) == DIALOG_SENDING)
      transmit (client, now);
  }
}

static void *
thread_main (void *arg)
{
  struct control *c = arg;

  while (!atomic_load (&c->stop))
    turn (c);
  if (c->leaving)
    answer_all (c);
  return NULL;
}

int
control_start (struct control *c, control_handler *handler, void *opaque)
{
  int ret;

  c->handler = handler;
  c->opaque = opaque;
  ret = thread_start (&c->thread, "drum-control", thread_main, c);
  if (ret < 0)
    log_error ("%s: no thread to be had: %s", c->address.sun_path, strerror (-ret));
  c->started = ret == 0;
  return ret;
}

void
control_wake (struct control *c)
{
  eventfd_write (c->wake_fd, 1); /* if it is full, there will be a wake-up anyhow */
}

/* It may be another server's by now. */
static void
remove_own (const struct control *c)
{
  const char *path = c->address.sun_path;
  int folder = lock_folder (path);
  struct stat st;

  if (folder < 0)
    return;
  if (lstat (path, &st) == 0 && st.st_dev == c->st.st_dev && st.st_ino == c->st.st_ino)
    unlink (path);
  close (folder);
}

static void
stop (struct control *c)
{
  if (!c->started)
    return;
  atomic_store (&c->stop, true);
  control_wake (c);
  pthread_join (c->thread, NULL);
  c->started = false;
}

void
control_leave (struct control *c)
{
  c->leaving = true;
  stop (c);
  remove_own (c);
}

void
control_close (struct control *c)
{
  if (!c)
    return;
  stop (c);
  for (unsigned i = 0; i < c->nclients; i++)
    drop (&c->client[i]);
  remove_own (c);
  close (c->fd);
  close (c->wake_fd);
  free (c);
}
