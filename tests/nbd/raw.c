/* SPDX-License-Identifier: BSD-3-Clause
 *
 * raw.c - see raw.h.
 */
#include <config.h>

#include "raw.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "control.h"

enum { PATIENCE_MS = 120 * 1000, GREETING_BYTES = 18, REPLY_ACK = 1 };

#define REPLY_MAGIC 0x67446698u

void
raw_bytes (struct raw *raw, const void *data, size_t len)
{
  if (len == 0)
    return;
  if (raw->len + len > raw->room) {
    raw->room = 2 * (raw->len + len);
    raw->data = realloc (raw->data, raw->room);
    cr_assert_not_null (raw->data);
  }
  memcpy (raw->data + raw->len, data, len);
  raw->len += len;
}

void
raw_number (struct raw *raw, unsigned nbytes, uint64_t value)
{
  while (nbytes-- > 0)
    raw_bytes (raw, &(unsigned char){ (unsigned char) (value >> 8 * nbytes) }, 1);
}

void
raw_flags (struct raw *raw)
{
  raw_number (raw, 4, 3);
}

void
raw_option (struct raw *raw, uint32_t option, const void *data, uint32_t len)
{
  raw_number (raw, 8, RAW_OPTION_MAGIC);
  raw_number (raw, 4, option);
  raw_number (raw, 4, len);
  raw_bytes (raw, data, len);
}

void
raw_go (struct raw *raw)
{
  raw_option (raw, RAW_GO, "\0\0\0\0\0", 6); /* no name, no questions */
}

void
raw_request (struct raw *raw, unsigned flags, unsigned type, uint64_t cookie, uint64_t offset,
             uint32_t len)
{
  raw_number (raw, 4, RAW_REQUEST_MAGIC);
  raw_number (raw, 2, flags);
  raw_number (raw, 2, type);
  raw_number (raw, 8, cookie);
  raw_number (raw, 8, offset);
  raw_number (raw, 4, len);
}

void
raw_free (struct raw *raw)
{
  free (raw->data);
  *raw = (struct raw){ .data = NULL };
}

bool
raw_send (int fd, const void *data, size_t len)
{
  const char *at = data;

  while (len > 0) {
    ssize_t n = send (fd, at, len, MSG_NOSIGNAL);

    if (n == -1 && (errno == EPIPE || errno == ECONNRESET))
      return false;
    cr_assert_gt (n, 0, "send: %m");
    at += n;
    len -= (size_t) n;
  }
  return true;
}

/* Wait for something to be there. */
static void
wait_for (int fd)
{
  struct pollfd pfd = { .fd = fd, .events = POLLIN };

  cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "the server says nothing");
}

bool
raw_receive (int fd, void *data, size_t len)
{
  char *at = data;

  while (len > 0) {
    ssize_t n;

    wait_for (fd);
    n = recv (fd, at, len, 0);
    if (n == 0 || (n == -1 && errno == ECONNRESET))
      return false;
    cr_assert_gt (n, 0, "recv: %m");
    at += n;
    len -= (size_t) n;
  }
  return true;
}

static int
take_greeting (int fd)
{
  char greeting[GREETING_BYTES];

  cr_assert (raw_receive (fd, greeting, sizeof greeting), "no greeting");
  cr_assert_eq (memcmp (greeting, "NBDMAGICIHAVEOPT", 16), 0);
  return fd;
}

int
raw_connect (const struct server *srv)
{
  return take_greeting (control_open_at (srv->socket));
}

static uint64_t
number_at (const unsigned char *data, unsigned nbytes)
{
  uint64_t value = 0;

  while (nbytes-- > 0)
    value = value << 8 | *data++;
  return value;
}

/* Replies to options, until one says that the transmission begins. */
static void
wait_for_ack (int fd)
{
  unsigned char head[20], data[4096];
  uint64_t type, len;

  do {
    cr_assert (raw_receive (fd, head, sizeof head), "the server hangs up");
    type = number_at (head + 12, 4);
    len = number_at (head + 16, 4);
    cr_assert_eq (type & 0x80000000u, 0, "option %u: error %#x", (unsigned) number_at (head + 8, 4),
                  (unsigned) type);
    cr_assert_leq (len, sizeof data);
    cr_assert (raw_receive (fd, data, len), "the server hangs up");
  } while (type != REPLY_ACK);
}

int
raw_shake_hands (int fd)
{
  struct raw raw = { .data = NULL };

  take_greeting (fd);
  raw_flags (&raw);
  raw_go (&raw);
  cr_assert (raw_send (fd, raw.data, raw.len), "the server hangs up");
  wait_for_ack (fd);
  raw_free (&raw);
  return fd;
}

int
raw_open (const struct server *srv)
{
  return raw_shake_hands (control_open_at (srv->socket));
}

int
raw_reply (int fd, uint64_t cookie)
{
  unsigned char reply[16];

  if (!raw_receive (fd, reply, sizeof reply))
    return -1;
  cr_assert_eq (number_at (reply, 4), REPLY_MAGIC);
  cr_assert_eq (number_at (reply + 8, 8), cookie);
  return (int) number_at (reply + 4, 4);
}
