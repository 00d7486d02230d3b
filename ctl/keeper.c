/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "keeper-impl.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "attached.h"
#include "swaps.h"

enum {
  HANDSHAKE_MS = 3000,
  RETRY_MS = 250,  /* between two tries */
  ADOPT_MS = 5000, /* the kernel takes a moment to see that a socket is dead */
  ADOPT_RETRY_MS = 10,
  DEAD_SECONDS = 86400, /* the longest outage */
  /* How soon what was sent to a server that has gone is sent to the next one. With several connections the kernel also takes one
   * for dead whose server is slower than this. The default is 30 s. */
  IO_TIMEOUT_MS = 5000,
  IO_TIMEOUT_SEVERAL_MS = 10000,
};

static const char in_use_word = 'y';

/* What the one who ordered is told. */
struct report {
  int index; /* or -errno */
  char why[NBDCLIENT_WHY_BYTES];
};

void
keeper_log (const struct keeper *k, int level, const char *fmt, ...)
{
  char line[NBDCLIENT_WHY_BYTES + 128];
  int len = snprintf (line, sizeof line, "<%d>drum-swapon: %s: ", LOG_DAEMON | level, k->device);
  va_list args;

  va_start (args, fmt);
  len += vsnprintf (line + len, sizeof line - (size_t) len, fmt, args);
  va_end (args);
  if (len > (int) sizeof line - 1)
    len = (int) sizeof line - 1;
  if (write (k->log, line, (size_t) len) == -1)
    return; /* and there is nobody else to tell */
}

/* No byte of what is still in its buffers may reach the server any more; whoever reads from it, the kernel, sees it dead. */
static void
abort_socket (int fd)
{
  const struct sockaddr unspec = { .sa_family = AF_UNSPEC };

  connect (fd, &unspec, sizeof unspec);
  shutdown (fd, SHUT_RDWR);
  close (fd);
}

static void
drop_sockets (struct keeper *k)
{
  for (unsigned i = 0; i < k->nsockets; i++) {
    int fd = k->sockets[i];

    k->sockets[i] = -1;
    if (fd != -1)
      abort_socket (fd);
  }
}

static bool
is_same (const struct nbdclient_export *a, const struct nbdclient_export *b)
{
  return a->size_bytes == b->size_bytes && a->flags == b->flags;
}

static int
open_sockets (struct keeper *k, char *why)
{
  const struct nbdclient_session session = { k->name, k->id, k->epoch };

  for (unsigned i = 0; i < k->nsockets; i++) {
    struct nbdclient_export now;
    int fd = nbdclient_open (&k->server, &session, HANDSHAKE_MS, &now, why);

    if (fd < 0)
      return fd;
    k->sockets[i] = fd;
    if (!is_same (&now, &k->export)) {
      snprintf (why, NBDCLIENT_WHY_BYTES,
                "the server has another export now (%" PRIu64 " bytes, flags %#x; it was %" PRIu64
                " bytes, %#x); start it as it was",
                now.size_bytes, now.flags, k->export.size_bytes, k->export.flags);
      return -EMEDIUMTYPE;
    }
  }
  return 0;
}

/* Until the kernel has taken it in the place of one that it has seen to be dead. */
static int
hand_over (struct keeper *k, int fd, char *why)
{
  int64_t deadline = nbdclient_now () + ADOPT_MS;

  for (;;) {
    int ret = nbdlink_replace (&k->link, k->index, fd);

    if (ret == 1)
      return 0;
    if (ret == 0 && nbdclient_now () >= deadline)
      ret = -EBUSY;
    if (ret < 0) {
      snprintf (why, NBDCLIENT_WHY_BYTES, "the kernel does not take the new socket: %s",
                strerror (-ret));
      return ret;
    }
    poll (NULL, 0, ADOPT_RETRY_MS);
  }
}

static int
reconnect (struct keeper *k, char *why)
{
  int ret;

  drop_sockets (k);
  k->epoch++;
  ret = open_sockets (k, why);
  for (unsigned i = 0; ret == 0 && i < k->nsockets; i++) {
    ret = hand_over (k, k->sockets[i], why);
    if (ret == -EINVAL)
      ret = -ENODEV;
  }
  return ret;
}

static void
went_down (struct keeper *k)
{
  k->up = false;
  k->since = nbdclient_now ();
  *k->said = '\0';
  keeper_log (k, LOG_WARNING, "the connection to %s is dead; trying again until it is back",
              k->uri);
}

static void
came_up (struct keeper *k)
{
  int64_t now = nbdclient_now (), down_ms = now - k->since;

  if (down_ms > k->longest_ms)
    k->longest_ms = down_ms;
  k->outages++;
  k->since = now;
  k->up = true;
  keeper_log (k, LOG_NOTICE, "connected again after %" PRId64 ".%03d s (epoch %" PRIu64 ")",
              down_ms / 1000, (int) (down_ms % 1000), k->epoch);
}

/* A reason is said once. */
static void
say_why (struct keeper *k, const char *why)
{
  if (strcmp (k->said, why) == 0)
    return;
  snprintf (k->said, sizeof k->said, "%s", why);
  keeper_log (k, LOG_WARNING, "%s", why);
}

/* => false: the kernel has it no more; somebody else has detached it */
static bool
try_again (struct keeper *k)
{
  char why[NBDCLIENT_WHY_BYTES];
  int ret = reconnect (k, why);

  if (ret == 0)
    came_up (k);
  else if (ret != -ENODEV)
    say_why (k, why);
  return ret != -ENODEV;
}

static void
detach (struct keeper *k)
{
  int ret = nbdlink_disconnect (&k->link, k->index);

  if (ret < 0)
    keeper_log (k, LOG_ERR, "can't be detached: %s", strerror (-ret));
  drop_sockets (k);
  k->over = true;
}

/* Only if nobody's memory is on it. */
static bool
detach_unless_used (struct keeper *k)
{
  int ret = swaps_find (k->device, NULL);

  if (ret != 0) {
    keeper_log (k, LOG_WARNING, "is in use as swap, and stays; drum-swapoff %s ends that",
                k->device);
    keeper_control_reply (k, ret > 0 ? "is in use as swap" : "/proc/swaps can't be read");
    return false;
  }
  detach (k);
  keeper_control_reply (k, ATTACHED_DONE);
  return true;
}

/* What the one who ordered has to say, or his end. => he does not want it */
static bool
hear_setup (struct keeper *k)
{
  char word = 0;
  ssize_t n = recv (k->setup, &word, 1, MSG_DONTWAIT);

  if (n == -1 && (errno == EAGAIN || errno == EINTR))
    return false;
  k->in_use = n == 1 && word == in_use_word;
  return !k->in_use;
}

static void
close_setup (struct keeper *k)
{
  int fd = k->setup;

  k->setup = -1;
  if (fd != -1)
    close (fd);
}

/* poll, for timeout_ms or until there is something. => a socket is dead */
static bool
wait_for_events (struct keeper *k, int timeout_ms, bool *ordered, bool *asked, bool *killed)
{
  enum { CONTROL, SETUP, SIGNALS, SOCKETS };
  struct pollfd pfd[SOCKETS + KEEPER_MAX_SOCKETS] = {
    [CONTROL] = { .fd = k->control, .events = POLLIN },
    [SETUP] = { .fd = k->setup, .events = POLLIN },
    [SIGNALS] = { .fd = k->signals, .events = POLLIN },
  };
  unsigned nsockets = k->up ? k->nsockets : 0;
  bool dead = false;

  for (unsigned i = 0; i < nsockets; i++)
    pfd[SOCKETS + i] = (struct pollfd){ .fd = k->sockets[i], .events = POLLRDHUP };
  if (poll (pfd, SOCKETS + nsockets, timeout_ms) <= 0)
    return false;
  for (unsigned i = 0; i < nsockets; i++)
    dead = dead || pfd[SOCKETS + i].revents;
  *asked = pfd[CONTROL].revents;
  *ordered = pfd[SETUP].revents;
  *killed = pfd[SIGNALS].revents;
  return dead;
}

static void
take_signal (struct keeper *k)
{
  struct signalfd_siginfo info;

  if (read (k->signals, &info, sizeof info) == -1)
    return; /* it was meant for a process that is dead */
}

/* => the device is detached, with this status */
static bool
handle_events (struct keeper *k, bool ordered, bool asked, bool killed, int *status)
{
  if (ordered) {
    bool unwanted = hear_setup (k), detached = unwanted && detach_unless_used (k);

    if (unwanted || k->in_use)
      close_setup (k);
    *status = 1;
    if (detached)
      return true;
  }
  if (killed)
    take_signal (k);
  *status = 0;
  return (killed && detach_unless_used (k)) ||
         (asked && keeper_control_serve (k) && detach_unless_used (k));
}

/* The loop. */
static int
lead (struct keeper *k)
{
  int status = 0, wait_ms = k->up ? -1 : 0;

  for (;;) {
    bool ordered = false, asked = false, killed = false;

    if (wait_for_events (k, wait_ms, &ordered, &asked, &killed))
      went_down (k);
    if (handle_events (k, ordered, asked, killed, &status))
      break;
    if (!k->up && !try_again (k)) {
      keeper_log (k, LOG_WARNING, "was detached by somebody else");
      k->over = true;
      break;
    }
    wait_ms = k->up ? -1 : RETRY_MS;
  }
  keeper_control_close (k);
  return status;
}

/* /sys/block/nbdN/queue/NAME; what does not work does not matter much. */
static void
set_queue (const struct keeper *k, const char *name, unsigned value)
{
  char path[64], text[16];
  int fd, len = snprintf (text, sizeof text, "%u", value);

  snprintf (path, sizeof path, "/sys/block/nbd%d/queue/%s", k->index, name);
  fd = open (path, O_WRONLY | O_CLOEXEC);
  if (fd == -1 || write (fd, text, (size_t) len) == -1)
    keeper_log (k, LOG_NOTICE, "%s: can't be set to %s: %s", path, text, strerror (errno));
  if (fd != -1)
    close (fd);
}

static int
attach (struct keeper *k, int index, char *why)
{
  const struct nbdlink_device device = {
    .size_bytes = k->export.size_bytes & ~UINT64_C (4095),
    .flags = k->export.flags,
    .dead_timeout_seconds = DEAD_SECONDS,
    .sockets = k->sockets,
    .nsockets = k->nsockets,
  };
  int ret = nbdlink_connect (&k->link, index, &device);

  if (ret < 0) {
    snprintf (why, NBDCLIENT_WHY_BYTES, "the kernel does not attach it: %s%s", strerror (-ret),
              ret == -EBUSY && index >= 0 ? " (another --device?)" : "");
    return ret;
  }
  k->index = ret;
  k->attached = k->up = true;
  k->since = nbdclient_now ();
  snprintf (k->device, sizeof k->device, "/dev/nbd%d", k->index);
  set_queue (k, "io_timeout", k->nsockets == 1 ? IO_TIMEOUT_MS : IO_TIMEOUT_SEVERAL_MS);
  if (k->export.max_block && k->export.max_block < 128 << 10)
    set_queue (k, "max_sectors_kb", k->export.max_block >> 10);
  return 0;
}

/* Signals are read from a descriptor, or ignored: only a detach ends us. */
static int
take_signals (void)
{
  sigset_t set;

  signal (SIGCHLD, SIG_IGN);
  signal (SIGPIPE, SIG_IGN);
  signal (SIGHUP, SIG_IGN);
  sigemptyset (&set);
  sigaddset (&set, SIGTERM);
  sigaddset (&set, SIGINT);
  sigaddset (&set, SIGQUIT);
  sigprocmask (SIG_BLOCK, &set, NULL);
  return signalfd (-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static struct keeper *
make_keeper (const struct keeper_order *order)
{
  struct keeper *k =
    mmap (NULL, sizeof *k, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

  if (k == MAP_FAILED)
    return NULL;
  snprintf (k->uri, sizeof k->uri, "%s", order->uri);
  snprintf (k->name, sizeof k->name, "%s", order->name);
  snprintf (k->id, sizeof k->id, "%s", order->id ? order->id : "");
  snprintf (k->device, sizeof k->device, "%s", "/dev/nbd?");
  k->server = order->server;
  k->export = order->export;
  k->nsockets = order->nsockets;
  memcpy (k->sockets, order->sockets, sizeof k->sockets);
  k->setup = order->setup;
  k->control = -1;
  k->epoch = 1;
  k->log = open ("/dev/kmsg", O_WRONLY | O_CLOEXEC);
  k->signals = take_signals ();
  return k;
}

/* In this order: the standbys' start takes memory, which is then locked; and all of that before the device can be swapped on. */
static int
begin (struct keeper *k, int index, char *why)
{
  int ret = nbdlink_open (&k->link);

  if (ret < 0) {
    snprintf (why, NBDCLIENT_WHY_BYTES, "the kernel's nbd driver: %s%s", strerror (-ret),
              ret == -ENOENT ? "; modprobe nbd loads it" : "");
    return ret;
  }
  ret = keeper_stand_by (k, lead, why);
  if (ret == 0)
    ret = keeper_lock (why);
  if (ret == 0)
    ret = attach (k, index, why);
  if (ret == 0) {
    ret = keeper_control_open (k, why);
    if (ret < 0)
      detach (k);
  }
  return ret;
}

int
keeper_run (const struct keeper_order *order)
{
  struct keeper *k = make_keeper (order);
  struct report report = { .index = -ENOMEM, .why = "no memory" };

  if (k) {
    report.index = begin (k, order->index, report.why);
    if (report.index == 0)
      report.index = k->index;
  }
  if (send (order->setup, &report, sizeof report, MSG_NOSIGNAL) == -1)
    keeper_log (k, LOG_WARNING, "nobody waits for it");
  if (report.index >= 0)
    return lead (k);
  if (k)
    k->over = true;
  return 1;
}

int
keeper_wait (int setup, char why[NBDCLIENT_WHY_BYTES])
{
  struct report report;
  ssize_t n;

  do
    n = recv (setup, &report, sizeof report, 0);
  while (n == -1 && errno == EINTR);
  if (n != (ssize_t) sizeof report) {
    snprintf (why, NBDCLIENT_WHY_BYTES, "the process that should keep it has died");
    return -ECHILD;
  }
  memcpy (why, report.why, NBDCLIENT_WHY_BYTES);
  return report.index;
}

void
keeper_in_use (int setup)
{
  send (setup, &in_use_word, 1, MSG_NOSIGNAL);
}

void
keeper_give_up (int setup)
{
  char byte;

  shutdown (setup, SHUT_WR);
  while (recv (setup, &byte, 1, 0) == -1 && errno == EINTR)
    ;
}
