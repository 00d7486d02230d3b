/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "keeper-impl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "attached.h"

/* Who has asked for a detach, and waits for an answer. */
static struct sockaddr_un asker;
static socklen_t asker_len;

int
keeper_control_open (struct keeper *k, char why[NBDCLIENT_WHY_BYTES])
{
  struct sockaddr_un addr;

  attached_address (k->index, &addr);
  mkdir (ATTACHED_DIR, 0700);
  unlink (
    addr.sun_path); /* of one that was killed; the device is ours, so nobody else listens there */
  k->control = socket (AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (k->control != -1 && bind (k->control, (struct sockaddr *) &addr, sizeof addr) == 0)
    return 0;
  snprintf (why, NBDCLIENT_WHY_BYTES, "%s: can't be made: %s", addr.sun_path, strerror (errno));
  return -errno;
}

void
keeper_control_close (struct keeper *k)
{
  struct sockaddr_un addr;

  attached_address (k->index, &addr);
  unlink (addr.sun_path);
}

void
keeper_control_reply (struct keeper *k, const char *text)
{
  if (asker_len)
    sendto (k->control, text, strlen (text), MSG_DONTWAIT | MSG_NOSIGNAL,
            (struct sockaddr *) &asker, asker_len);
  asker_len = 0;
}

static void
reply_status (struct keeper *k)
{
  char text[KEEPER_URI_BYTES + 512];
  unsigned standing_by = 0;

  for (unsigned i = k->leader + 1; i < KEEPER_NPROCESSES; i++)
    standing_by += keeper_alive (k, i);
  snprintf (text, sizeof text,
            "uri=%s\nsize=%" PRIu64 "\nconnections=%u\nstate=%s\nseconds=%" PRId64
            "\noutages=%u\nlongest_ms=%" PRId64 "\nepoch=%" PRIu64 "\npid=%d\nstandby=%u\n",
            k->uri, k->export.size_bytes, k->nsockets, k->up ? "up" : "down",
            (nbdclient_now () - k->since) / 1000, k->outages, k->longest_ms, k->epoch,
            (int) getpid (), standing_by);
  keeper_control_reply (k, text);
}

bool
keeper_control_serve (struct keeper *k)
{
  for (;;) {
    char text[16];
    ssize_t n;

    asker_len = sizeof asker;
    n = recvfrom (k->control, text, sizeof text - 1, MSG_DONTWAIT, (struct sockaddr *) &asker,
                  &asker_len);
    if (n < 0)
      break;
    text[n] = '\0';
    if (strcmp (text, ATTACHED_DETACH) == 0)
      return true;
    if (strcmp (text, ATTACHED_STATUS) == 0)
      reply_status (k);
  }
  asker_len = 0;
  return false;
}
