/* SPDX-License-Identifier: BSD-3-Clause
 *
 * handshake.c - nbdclient.c against servers that say anything, and against nbdkit.
 *
 * What a server says is put into a socket before the client looks, so no server has to run: the client's answers wait at the
 * other end.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "ctl/nbdclient.h"
#include "tests/scratch.h"

enum { PATIENCE_MS = 30000, MOMENT_MS = 20, MAX_BYTES = 1 << 18, GO = 7, ACK = 1, INFO = 3 };
#define REPLY_MAGIC UINT64_C (0x3e889045565a9)
#define REFUSAL     UINT32_C (0x80000000)

TestSuite (handshake, .init = scratch_setup, .fini = scratch_teardown, .timeout = 120);

/* What the server says, as far as it is said. */
static unsigned char said[MAX_BYTES];
static size_t nsaid;

static void
say (const void *data, size_t len)
{
  cr_assert_leq (nsaid + len, sizeof said);
  memcpy (said + nsaid, data, len);
  nsaid += len;
}

static void
say16 (unsigned value)
{
  uint16_t be = htobe16 ((uint16_t) value);

  say (&be, sizeof be);
}

static void
say32 (uint32_t value)
{
  value = htobe32 (value);
  say (&value, sizeof value);
}

static void
say64 (uint64_t value)
{
  value = htobe64 (value);
  say (&value, sizeof value);
}

static void
say_hello (void)
{
  nsaid = 0;
  say ("NBDMAGICIHAVEOPT", 16);
  say16 (3);
}

static void
say_reply (uint32_t type, uint32_t len)
{
  say64 (REPLY_MAGIC);
  say32 (GO);
  say32 (type);
  say32 (len);
}

static void
say_export (uint64_t size_bytes, unsigned flags)
{
  say_reply (INFO, 12);
  say16 (0);
  say64 (size_bytes);
  say16 (flags);
}

/* All that a good server says. */
static void
say_all (void)
{
  say_hello ();
  say_export (1 << 20, 0x16d);
  say_reply (INFO, 14);
  say16 (3);
  say32 (1);
  say32 (4096);
  say32 (32 << 20);
  say_reply (INFO, 6);
  say16 (1);
  say ("name", 4);
  say_reply (ACK, 0);
}

/* One handshake. */
struct outcome {
  int ret, fds[2];
  struct nbdclient_export export;
  char why[NBDCLIENT_WHY_BYTES];
};

static const struct nbdclient_session plain = { .name = "export" };

/* With a server that has said the first len bytes, and then hangs up, or not. */
static struct outcome
shake (size_t len, bool hangs_up, int timeout_ms, const struct nbdclient_session *session)
{
  static struct outcome o;
  int room = 2 * MAX_BYTES;

  memset (&o, 0, sizeof o);
  o.export.size_bytes = 77;
  cr_assert_eq (socketpair (AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, o.fds), 0);
  setsockopt (o.fds[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  cr_assert_eq (send (o.fds[1], said, len, 0), len == 0 ? 0 : (ssize_t) len, "%m");
  if (hangs_up)
    shutdown (o.fds[1], SHUT_WR);
  o.ret = nbdclient_handshake (o.fds[0], session, timeout_ms, &o.export, o.why);
  if (o.ret < 0) {
    cr_assert_eq (o.export.size_bytes, 77, "output changed on failure");
    cr_assert (*o.why && strlen (o.why) < sizeof o.why - 1 && !strchr (o.why, '\n'), "%s", o.why);
  }
  return o;
}

static void
hang_up (const struct outcome *o)
{
  close (o->fds[0]);
  close (o->fds[1]);
}

static void
expect (int ret, const char *why)
{
  struct outcome o = shake (nsaid, true, PATIENCE_MS, &plain);

  cr_assert_eq (o.ret, ret, "%d: %s", o.ret, o.why);
  cr_assert (strstr (o.why, why), "no \"%s\" in: %s", why, o.why);
  hang_up (&o);
}

/* What the client has said so far. */
static size_t
heard (const struct outcome *o, char *buf, size_t size)
{
  ssize_t n = recv (o->fds[1], buf, size, MSG_DONTWAIT);

  return n < 0 ? 0 : (size_t) n;
}

Test (handshake, good)
{
  static const char request[] = "\0\0\0\3IHAVEOPT\0\0\0\7\0\0\0\16\0\0\0\6export\0\1\0\3";
  struct outcome o;
  char buf[256];

  say_all ();
  say ("the kernel's", 12);
  o = shake (nsaid, false, PATIENCE_MS, &plain);
  cr_assert_eq (o.ret, 0, "%s", o.why);
  cr_assert_eq (o.export.size_bytes, 1 << 20);
  cr_assert_eq (o.export.flags, 0x16d);
  cr_assert_eq (o.export.min_block, 1);
  cr_assert_eq (o.export.max_block, 32 << 20);
  cr_assert_eq (heard (&o, buf, sizeof buf), sizeof request - 1);
  cr_assert_eq (memcmp (buf, request, sizeof request - 1), 0);
  cr_assert_eq (recv (o.fds[0], buf, sizeof buf, 0), 12, "something was read that is the kernel's");
  cr_assert_eq (memcmp (buf, "the kernel's", 12), 0);
}

Test (handshake, fenced_name)
{
  const struct nbdclient_session fenced = { "a b", "host-1", 42 }, unnamed = { "", "x", 1 };
  struct outcome o;
  char buf[256];

  say_all ();
  o = shake (nsaid, true, PATIENCE_MS, &fenced);
  cr_assert_eq (o.ret, 0);
  heard (&o, buf, sizeof buf);
  cr_assert_eq (memcmp (buf + 20, "\0\0\0\15a b@host-1.42", 17), 0);
  hang_up (&o);
  o = shake (nsaid, true, PATIENCE_MS, &unnamed);
  heard (&o, buf, sizeof buf);
  cr_assert_eq (memcmp (buf + 20, "\0\0\0\4@x.1", 8), 0);
}

/* A client that asks for zeroes behind the export of the old kind would wait for them. */
Test (handshake, flags_are_answered)
{
  for (unsigned flags = 0; flags < 4; flags++) {
    struct outcome o;
    char buf[256];

    say_all ();
    said[17] = (unsigned char) flags;
    o = shake (nsaid, true, PATIENCE_MS, &plain);
    cr_assert_eq (o.ret, flags & 1 ? 0 : -EPROTO);
    cr_assert_eq (heard (&o, buf, sizeof buf) > 0 ? buf[3] : 0, flags & 1 ? (char) flags : 0);
    hang_up (&o);
  }
}

Test (handshake, cut_at_every_byte)
{
  say_all ();
  for (size_t len = 0; len < nsaid; len++) {
    struct outcome o = shake (len, true, PATIENCE_MS, &plain);

    cr_assert_eq (o.ret, -ECONNRESET, "cut at %zu: %d", len, o.ret);
    hang_up (&o);
    o = shake (len, false, MOMENT_MS, &plain);
    cr_assert_eq (o.ret, -ETIMEDOUT, "silent at %zu: %d", len, o.ret);
    hang_up (&o);
  }
}

/* Whatever comes, it ends, and a failure leaves no trace. */
Test (handshake, wrong_at_every_bit)
{
  say_all ();
  for (size_t at = 0; at < nsaid * 8; at++) {
    struct outcome o;

    said[at / 8] ^= (unsigned char) (1 << at % 8);
    o = shake (nsaid, true, PATIENCE_MS, &plain);
    said[at / 8] ^= (unsigned char) (1 << at % 8);
    if (at < 16 * 8)
      cr_assert_eq (o.ret, -EPROTO, "magic with bit %zu wrong: %d", at, o.ret);
    hang_up (&o);
  }
}

Test (handshake, not_nbd)
{
  nsaid = 0;
  say ("SSH-2.0-OpenSSH_9.2p1 Debian\r\n", 30);
  expect (-EPROTO, "that is no NBD server");
  nsaid = 0;
  say ("NBDMAGIC", 8);
  say64 (UINT64_C (0x420281861253));
  say ("\0\0\0\0", 4);
  expect (-EPROTO, "old style");
}

Test (handshake, wrong_replies)
{
  static const uint32_t lengths[] = { 8193, 0x7fffffff, 0x80000000, 0xffffffff };

  for (unsigned i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
    say_hello ();
    say_reply (INFO, lengths[i]);
    expect (-EPROTO, "a reply of");
    say_hello ();
    say_reply (REFUSAL | 6, lengths[i]);
    expect (-EPROTO, "a reply of");
  }
  say_hello ();
  say64 (REPLY_MAGIC + 1);
  say ("\0\0\0\7\0\0\0\1\0\0\0\0", 12);
  expect (-EPROTO, "something else than was asked");
  say_hello ();
  say64 (REPLY_MAGIC);
  say ("\0\0\0\1\0\0\0\1\0\0\0\0", 12);
  expect (-EPROTO, "something else than was asked");
  say_hello ();
  say_reply (ACK, 0);
  expect (-EPROTO, "how large it is");
  for (uint32_t len = 0; len < 12; len++) {
    say_hello ();
    say_reply (INFO, len);
    say ("\0\0\0\0\0\0\0\0\0\0\0\0", len);
    expect (-EPROTO, "wrong length");
  }
}

Test (handshake, endless)
{
  say_hello ();
  for (unsigned i = 0; i < 1000; i++) {
    say_reply (INFO, 4);
    say16 (99);
    say16 (0);
  }
  expect (-EPROTO, "has no end");
}

Test (handshake, refusals)
{
  static const struct {
    unsigned type;
    int error;
    const char *why;
  } table[] = {
    { 1, -ENOTSUP, "too old" },
    { 2, -EACCES, "policy" },
    { 3, -EPROTO, "not understand" },
    { 4, -ENOTSUP, "platform" },
    { 5, -EACCES, "TLS" },
    { 6, -ENXIO, "no such export" },
    { 7, -ESHUTDOWN, "shutting" },
    { 8, -EPROTO, "block sizes" },
    { 9, -E2BIG, "too big" },
    { 10, -EPROTO, "(error 10)" },
    { 0, -EPROTO, "(error 0)" },
    { 0x7fffffff, -EPROTO, "refuses" },
  };

  for (unsigned i = 0; i < sizeof table / sizeof table[0]; i++) {
    say_hello ();
    say_reply (REFUSAL | table[i].type, 0);
    expect (table[i].error, table[i].why);
    say_hello ();
    say_reply (REFUSAL | table[i].type, 12);
    say ("go \033[2Jaway\n\377", 12);
    expect (table[i].error, ": go ?[2Jaway?");
  }
}

/* The text of an error may be long; what we say of it is not. */
Test (handshake, long_refusal)
{
  say_hello ();
  say_reply (REFUSAL | 6, 4096);
  for (unsigned i = 0; i < 4096; i++)
    say ("x", 1);
  expect (-ENXIO, "xxx");
}

Test (handshake, long_name)
{
  struct nbdclient_session session = { .name = str ("%01100d", 1), .id = "x" };
  struct outcome o;

  say_all ();
  o = shake (nsaid, true, PATIENCE_MS, &session);
  cr_assert_eq (o.ret, 0, "%s", o.why);
  hang_up (&o);
  session.name = str ("%01200d", 1);
  o = shake (nsaid, true, PATIENCE_MS, &session);
  cr_assert_eq (o.ret, -ENAMETOOLONG);
}

/* --- with nbdkit --- */

/* It gets a socket at which it is to listen, so nobody has to wait until it does. It dies with the test. */
static struct nbdclient_server
kit (const char *const *args)
{
  struct nbdclient_server server = { .naddresses = 1,
                                     .addresses = { { .len = sizeof (struct sockaddr_un) } } };
  struct sockaddr_un un = { .sun_family = AF_UNIX };
  const char *argv[16] = { NBDKIT, "--exit-with-parent", "-f", "-t", "1" };
  int listener = socket (AF_UNIX, SOCK_STREAM, 0);

  strcpy (un.sun_path, scratch_path ("sock"));
  cr_assert_eq (bind (listener, (struct sockaddr *) &un, sizeof un), 0, "%m");
  cr_assert_eq (listen (listener, 8), 0);
  memcpy (&server.addresses[0].addr, &un, sizeof un);
  for (unsigned i = 0; args[i]; i++)
    argv[5 + i] = args[i];
  if (fork () == 0) {
    dup2 (listener, 3);
    setenv ("LISTEN_FDS", "1", 1);
    setenv ("LISTEN_PID", str ("%d", (int) getpid ()), 1);
    execv (argv[0], (char **) argv);
    _exit (127);
  }
  close (listener);
  return server;
}
#define KIT(...) kit ((const char *const[]){ __VA_ARGS__, NULL })

static int
open_kit (struct nbdclient_server server, struct nbdclient_export *export, const char *why)
{
  char text[NBDCLIENT_WHY_BYTES] = "";
  int fd = nbdclient_open (&server, &plain, PATIENCE_MS, export, text);

  cr_assert (strstr (text, why), "no \"%s\" in: %s", why, text);
  return fd;
}

/* What it gives is what the kernel wants: a socket that blocks, without a time-out, at which the server takes requests. */
Test (handshake, nbdkit)
{
  static const char ask[28] = "\x25\x60\x95\x13\0\0\0\0cookie!!\0\0\0\0\0\0\0\0\0\0\0\4";
  struct nbdclient_export export;
  int fd = open_kit (KIT ("pattern", "1M"), &export, "");
  struct timeval left = { .tv_sec = 1 };
  socklen_t len = sizeof left;
  char reply[20];

  cr_assert_geq (fd, 0);
  cr_assert_eq (export.size_bytes, 1 << 20);
  cr_assert (export.flags & NBD_FLAG_READ_ONLY);
  cr_assert (!(fcntl (fd, F_GETFL) & O_NONBLOCK));
  getsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &left, &len);
  cr_assert (left.tv_sec == 0 && left.tv_usec == 0);
  getsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &left, &len);
  cr_assert (left.tv_sec == 0 && left.tv_usec == 0);
  cr_assert_eq (send (fd, ask, sizeof ask, 0), sizeof ask);
  cr_assert_eq (recv (fd, reply, sizeof reply, MSG_WAITALL), sizeof reply);
  cr_assert_eq (memcmp (reply, "\x67\x44\x66\x98\0\0\0\0cookie!!\0\0\0\0", 20), 0);
}

Test (handshake, nbdkit_says_what_it_can)
{
  struct nbdclient_export export;

  open_kit (KIT ("memory", "1G"), &export, "");
  cr_assert_eq (export.size_bytes, 1 << 30);
  cr_assert_eq (export.flags & (NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_TRIM | NBD_FLAG_CAN_MULTI_CONN),
                NBD_FLAG_SEND_TRIM | NBD_FLAG_CAN_MULTI_CONN);
}

/* The name that the server hears, as long as which the export of nbdkit's info is. */
static void
expect_name (const struct nbdclient_server *server, const char *name, const char *id,
             uint64_t epoch, const char *heard)
{
  const struct nbdclient_session session = { name, id, epoch };
  char why[NBDCLIENT_WHY_BYTES], text[64];
  struct nbdclient_export export;
  static const unsigned char ask[16] = "\x25\x60\x95\x13";
  unsigned char request[28] = { 0 }, reply[16];
  int fd = nbdclient_open (server, &session, PATIENCE_MS, &export, why);

  cr_assert_geq (fd, 0, "%s: %s", heard, why);
  cr_assert_eq (export.size_bytes, strlen (heard), "%s", heard);
  memcpy (request, ask, sizeof ask);
  request[27] = (unsigned char) export.size_bytes;
  cr_assert_eq (send (fd, request, sizeof request, 0), sizeof request);
  cr_assert_eq (recv (fd, reply, sizeof reply, MSG_WAITALL), sizeof reply);
  cr_assert_eq (recv (fd, text, export.size_bytes, MSG_WAITALL), (ssize_t) export.size_bytes);
  cr_assert_eq (memcmp (text, heard, export.size_bytes), 0, "%s", heard);
  close (fd);
}

/* Several exports of one server, by any name; "" has a session, too. */
Test (handshake, names)
{
  struct nbdclient_server server = KIT ("info", "mode=exportname");

  expect_name (&server, "host7", "me", 3, "host7@me.3");
  expect_name (&server, "", "me", 1, "@me.1");
  expect_name (&server, "a/b c\xc3\xb6@x", "me", UINT64_MAX,
               "a/b c\xc3\xb6@x@me.18446744073709551615");
  expect_name (&server, "host7", "", 1, "host7");
}

Test (handshake, nbdkit_of_the_old_style)
{
  struct nbdclient_export export;

  cr_assert_eq (open_kit (KIT ("--oldstyle", "memory", "1M"), &export, "old style"), -EPROTO);
}

Test (handshake, nbdkit_wants_tls)
{
  struct nbdclient_export export;

  cr_assert_eq (shell ("touch %s", scratch_path ("keys.psk")), 0);
  cr_assert_eq (
    open_kit (KIT ("--tls=require", "--tls-psk", scratch_path ("keys.psk"), "memory", "1M"),
              &export, "wants TLS"),
    -EACCES);
}

Test (handshake, nbdkit_cannot_open)
{
  struct nbdclient_export export;

  cr_assert_eq (open_kit (KIT ("eval", "open=echo EBUSY no >&2; exit 1", "get_size=echo 1M"),
                          &export, "no such export, or does not let us have it"),
                -ENXIO);
}

Test (handshake, nobody_listens)
{
  struct nbdclient_server server = { .naddresses = 0 };
  struct nbduri uri = { .host = "" };
  struct nbdclient_export export;
  char why[NBDCLIENT_WHY_BYTES];

  cr_assert_eq (nbdclient_open (&server, &plain, PATIENCE_MS, &export, why), -EDESTADDRREQ);
  strcpy (uri.path, scratch_path ("none"));
  cr_assert_eq (nbdclient_resolve (&uri, &server, why), 0);
  cr_assert_eq (nbdclient_open (&server, &plain, PATIENCE_MS, &export, why), -ENOENT);
  cr_assert_str_eq (why, "No such file or directory");
}

Test (handshake, addresses_in_turn)
{
  struct nbdclient_server server = KIT ("memory", "1M");
  struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "/nonexistent" };
  struct nbdclient_export export;

  server.addresses[1] = server.addresses[0];
  memcpy (&server.addresses[0].addr, &un, sizeof un);
  server.naddresses = 2;
  cr_assert_geq (open_kit (server, &export, ""), 0);
}
