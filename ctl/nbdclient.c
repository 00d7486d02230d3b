/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "nbdclient.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NBD_MAGIC       UINT64_C (0x4e42444d41474943) /* "NBDMAGIC" */
#define NBD_OPTS_MAGIC  UINT64_C (0x49484156454f5054) /* "IHAVEOPT" */
#define NBD_OLD_MAGIC   UINT64_C (0x0000420281861253)
#define NBD_REPLY_MAGIC UINT64_C (0x0003e889045565a9)

enum {
  FIXED_NEWSTYLE = 1 << 0,
  NO_ZEROES = 1 << 1,
  OPT_GO = 7,
  REP_ACK = 1,
  REP_INFO = 3,
  INFO_EXPORT = 0,
  INFO_BLOCK_SIZE = 3,
  MAX_REPLIES = 64,       /* to one option; a server has some ten to give */
  MAX_REPLY_BYTES = 8192, /* an error's text is at most 4096 */
  SEND_BUFFER_BYTES = 256 << 10,
  USER_TIMEOUT_MS = 10000, /* sent and not acknowledged for so long: the connection is dead */
};

/* What replies that say no are called, less the bit that makes them errors. */
static const struct {
  int error;
  const char *text;
} refusals[] = {
  [1] = { -ENOTSUP, "the server does not know NBD_OPT_GO; it is too old (nbdkit 1.2, nbd 3.16 and "
                    "qemu 2.6 know it)" },
  [2] = { -EACCES, "the server refuses (policy)" },
  [3] = { -EPROTO, "the server did not understand the request" },
  [4] = { -ENOTSUP, "the server does not support it on its platform" },
  [5] = { -EACCES, "the server wants TLS, which the kernel's NBD client has not" },
  [6] = { -ENXIO, "the server has no such export, or does not let us have it" },
  [7] = { -ESHUTDOWN, "the server is shutting down" },
  [8] = { -EPROTO, "the server wants to be asked for block sizes, and was" },
  [9] = { -E2BIG, "the server finds the request too big" },
};

/* One handshake. */
struct talk {
  int fd;
  int64_t deadline;
  char *why;
};

int64_t
nbdclient_now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (int64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int complain (char *why, int error, const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));

static int
complain (char *why, int error, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  vsnprintf (why, NBDCLIENT_WHY_BYTES, fmt, args);
  va_end (args);
  return error;
}

/* => 0 when one of events has come, or an error that the next call will tell */
static int
wait_for (const struct talk *t, short events)
{
  for (;;) {
    struct pollfd pfd = { .fd = t->fd, .events = events };
    int64_t left = t->deadline - nbdclient_now ();
    int n = left > 0 ? poll (&pfd, 1, (int) left) : 0;

    if (n > 0)
      return 0;
    if (n == 0)
      return complain (t->why, -ETIMEDOUT, "the server does not answer");
    if (errno != EINTR)
      return complain (t->why, -errno, "poll: %s", strerror (errno));
  }
}

static int
send_all (const struct talk *t, const void *data, size_t len)
{
  const char *at = data;

  while (len) {
    ssize_t n = send (t->fd, at, len, MSG_NOSIGNAL | MSG_DONTWAIT);
    int ret;

    if (n > 0) {
      at += n;
      len -= (size_t) n;
      continue;
    }
    if (n == -1 && errno != EAGAIN && errno != EINTR)
      return complain (t->why, -errno, "the server has hung up: %s", strerror (errno));
    ret = wait_for (t, POLLOUT);
    if (ret < 0)
      return ret;
  }
  return 0;
}

static int
receive (const struct talk *t, void *data, size_t len)
{
  char *at = data;

  while (len) {
    ssize_t n = recv (t->fd, at, len, MSG_DONTWAIT);
    int ret;

    if (n > 0) {
      at += n;
      len -= (size_t) n;
      continue;
    }
    if (n == 0)
      return complain (t->why, -ECONNRESET,
                       "the server has hung up in the middle of the handshake");
    if (errno != EAGAIN && errno != EINTR)
      return complain (t->why, -errno, "the server has hung up: %s", strerror (errno));
    ret = wait_for (t, POLLIN);
    if (ret < 0)
      return ret;
  }
  return 0;
}

static void
put16 (unsigned char **at, uint16_t value)
{
  value = htobe16 (value);
  memcpy (*at, &value, sizeof value);
  *at += sizeof value;
}

static void
put32 (unsigned char **at, uint32_t value)
{
  value = htobe32 (value);
  memcpy (*at, &value, sizeof value);
  *at += sizeof value;
}

static void
put64 (unsigned char **at, uint64_t value)
{
  value = htobe64 (value);
  memcpy (*at, &value, sizeof value);
  *at += sizeof value;
}

static uint16_t
get16 (const void *at)
{
  uint16_t value;

  memcpy (&value, at, sizeof value);
  return be16toh (value);
}

static uint32_t
get32 (const void *at)
{
  uint32_t value;

  memcpy (&value, at, sizeof value);
  return be32toh (value);
}

static uint64_t
get64 (const void *at)
{
  uint64_t value;

  memcpy (&value, at, sizeof value);
  return be64toh (value);
}

/* The server's greeting, and our answer. */
static int
greet (const struct talk *t)
{
  unsigned char hello[18], flags[4], *at = flags;
  unsigned offered;
  int ret = receive (t, hello, sizeof hello);

  if (ret < 0)
    return ret;
  if (get64 (hello) != NBD_MAGIC)
    return complain (t->why, -EPROTO, "that is no NBD server");
  if (get64 (hello + 8) != NBD_OPTS_MAGIC)
    return complain (t->why, -EPROTO,
                     get64 (hello + 8) == NBD_OLD_MAGIC
                       ? "the server speaks NBD of the old style; let it speak the new one"
                       : "the server speaks a kind of NBD that nobody knows");
  offered = get16 (hello + 16);
  if (!(offered & FIXED_NEWSTYLE))
    return complain (t->why, -EPROTO, "the server is too old (no fixed newstyle)");
  put32 (&at, offered & (FIXED_NEWSTYLE | NO_ZEROES));
  return send_all (t, flags, sizeof flags);
}

/* => the length of NAME or NAME@ID.EPOCH, or -ENAMETOOLONG */
static int
full_name (const struct nbdclient_session *s, char *buf, size_t size)
{
  int len = s->id && *s->id ? snprintf (buf, size, "%s@%s.%" PRIu64, s->name, s->id, s->epoch)
                            : snprintf (buf, size, "%s", s->name);

  return len >= 0 && (size_t) len < size ? len : -ENAMETOOLONG;
}

static int
send_go (const struct talk *t, const struct nbdclient_session *session)
{
  unsigned char request[NBDURI_NAME_BYTES + 256], *at = request;
  char name[NBDURI_NAME_BYTES + 128];
  int len = full_name (session, name, sizeof name);

  if (len < 0)
    return complain (t->why, len, "the name of the export is too long");
  put64 (&at, NBD_OPTS_MAGIC);
  put32 (&at, OPT_GO);
  put32 (&at, (uint32_t) len + 8);
  put32 (&at, (uint32_t) len);
  memcpy (at, name, (size_t) len);
  at += len;
  put16 (&at, 1); /* one information beside the export's own */
  put16 (&at, INFO_BLOCK_SIZE);
  return send_all (t, request, (size_t) (at - request));
}

static int
take_info (const struct talk *t, const unsigned char *data, size_t len,
           struct nbdclient_export *export, bool *has_export)
{
  unsigned type = len >= 2 ? get16 (data) : UINT16_MAX;

  if (len < 2 || (type == INFO_EXPORT && len != 12) || (type == INFO_BLOCK_SIZE && len != 14))
    return complain (t->why, -EPROTO, "the server sends an information of a wrong length");
  if (type == INFO_EXPORT) {
    export->size_bytes = get64 (data + 2);
    export->flags = get16 (data + 10);
    *has_export = true;
  } else if (type == INFO_BLOCK_SIZE) {
    export->min_block = get32 (data + 2);
    export->max_block = get32 (data + 10);
  }
  return 0;
}

/* With what the server says of it, as far as it can be printed. */
static int
refuse (const struct talk *t, uint32_t type, const unsigned char *data, size_t len)
{
  enum { NREFUSALS = sizeof refusals / sizeof refusals[0], MAX_TEXT = 256 };
  uint32_t number = type & 0x7fffffff;
  char text[MAX_TEXT + 1];
  size_t n = 0;

  for (; n < len && n < MAX_TEXT; n++)
    text[n] = data[n] >= ' ' && data[n] < 0x7f ? (char) data[n] : '?';
  text[n] = '\0';
  if (number < NREFUSALS && refusals[number].text)
    return complain (t->why, refusals[number].error, "%s%s%s", refusals[number].text, n ? ": " : "",
                     text);
  return complain (t->why, -EPROTO, "the server refuses (error %" PRIu32 ")%s%s", number,
                   n ? ": " : "", text);
}

static int
hear_answers (const struct talk *t, struct nbdclient_export *export)
{
  unsigned char head[20], data[MAX_REPLY_BYTES];
  bool has_export = false;

  for (unsigned i = 0; i < MAX_REPLIES; i++) {
    uint32_t type, len;
    int ret = receive (t, head, sizeof head);

    if (ret < 0)
      return ret;
    type = get32 (head + 12);
    len = get32 (head + 16);
    if (get64 (head) != NBD_REPLY_MAGIC || get32 (head + 8) != OPT_GO)
      return complain (t->why, -EPROTO, "the server answers something else than was asked");
    if (len > sizeof data)
      return complain (t->why, -EPROTO, "the server sends a reply of %" PRIu32 " bytes", len);
    ret = receive (t, data, len);
    if (ret < 0)
      return ret;
    if (type >> 31)
      return refuse (t, type, data, len);
    if (type == REP_ACK)
      return has_export ? 0 : complain (t->why, -EPROTO, "the server does not say how large it is");
    ret = type == REP_INFO ? take_info (t, data, len, export, &has_export) : 0;
    if (ret < 0)
      return ret;
  }
  return complain (t->why, -EPROTO, "the server's answer has no end");
}

int
nbdclient_handshake (int fd, const struct nbdclient_session *session, int timeout_ms,
                     struct nbdclient_export *export, char why[NBDCLIENT_WHY_BYTES])
{
  struct talk t = { fd, nbdclient_now () + timeout_ms, why };
  struct nbdclient_export found = { .size_bytes = 0 };
  int ret = greet (&t);

  if (ret == 0)
    ret = send_go (&t, session);
  if (ret == 0)
    ret = hear_answers (&t, &found);
  if (ret == 0)
    *export = found;
  return ret;
}

static void
set_option (int fd, int level, int option, int value)
{
  setsockopt (fd, level, option, &value, sizeof value);
}

/* So that a dead peer is noticed, and writes do not wait to be larger. */
static void
set_options (int fd, int family)
{
  set_option (fd, SOL_SOCKET, SO_SNDBUF, SEND_BUFFER_BYTES);
  if (family == AF_UNIX)
    return;
  set_option (fd, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option (fd, IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS);
  set_option (fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option (fd, IPPROTO_TCP, TCP_KEEPIDLE, 4);
  set_option (fd, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set_option (fd, IPPROTO_TCP, TCP_KEEPCNT, 3);
}

static int
connect_to (const struct talk *t, const struct sockaddr *addr, socklen_t len)
{
  int error = 0, ret;
  socklen_t size = sizeof error;

  if (connect (t->fd, addr, len) == 0)
    return 0;
  if (errno != EINPROGRESS)
    return complain (t->why, -errno, "%s", strerror (errno));
  ret = wait_for (t, POLLOUT);
  if (ret < 0)
    return ret;
  getsockopt (t->fd, SOL_SOCKET, SO_ERROR, &error, &size);
  return error ? complain (t->why, -error, "%s", strerror (error)) : 0;
}

static int
open_one (const struct sockaddr *addr, socklen_t len, const struct nbdclient_session *session,
          int timeout_ms, struct nbdclient_export *export, char *why)
{
  int fd = socket (addr->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  struct talk t = { fd, nbdclient_now () + timeout_ms, why };
  int ret;

  if (fd == -1)
    return complain (why, -errno, "socket: %s", strerror (errno));
  set_options (fd, addr->sa_family);
  ret = connect_to (&t, addr, len);
  if (ret == 0)
    ret = nbdclient_handshake (fd, session, (int) (t.deadline - nbdclient_now ()), export, why);
  if (ret < 0) {
    close (fd);
    return ret;
  }
  fcntl (fd, F_SETFL, 0);
  return fd;
}

int
nbdclient_open (const struct nbdclient_server *server, const struct nbdclient_session *session,
                int timeout_ms, struct nbdclient_export *export, char why[NBDCLIENT_WHY_BYTES])
{
  int ret = complain (why, -EDESTADDRREQ, "the server has no address");

  for (unsigned i = 0; i < server->naddresses; i++) {
    ret = open_one ((const struct sockaddr *) &server->addresses[i].addr, server->addresses[i].len,
                    session, timeout_ms / (int) server->naddresses, export, why);
    if (ret >= 0)
      break;
  }
  return ret;
}

static void
add_address (struct nbdclient_server *server, const void *addr, socklen_t len)
{
  if (server->naddresses == NBDCLIENT_MAX_ADDRESSES || len > sizeof server->addresses[0].addr)
    return;
  memcpy (&server->addresses[server->naddresses].addr, addr, len);
  server->addresses[server->naddresses++].len = len;
}

int
nbdclient_resolve (const struct nbduri *uri, struct nbdclient_server *server,
                   char why[NBDCLIENT_WHY_BYTES])
{
  const struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG };
  struct addrinfo *list;
  int ret;

  *server = (struct nbdclient_server){ .naddresses = 0 };
  if (!*uri->host) {
    struct sockaddr_un un = { .sun_family = AF_UNIX };

    memcpy (un.sun_path, uri->path, sizeof un.sun_path);
    add_address (server, &un, sizeof un);
    return 0;
  }
  ret = getaddrinfo (uri->host, uri->port, &hints, &list);
  if (ret != 0)
    return complain (why, -EHOSTUNREACH, "%s",
                     ret == EAI_SYSTEM ? strerror (errno) : gai_strerror (ret));
  for (const struct addrinfo *a = list; a; a = a->ai_next)
    add_address (server, a->ai_addr, a->ai_addrlen);
  freeaddrinfo (list);
  return 0;
}
