/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hostile.c - clients that send nonsense, hang up anywhere, and come by the thousand, with nbdkit -t 1 (nbdkit 1.32 itself may abort when a
 * client hangs up under several threads). Nobody else notices: four clients work all the while (model.h), and in the end every
 * byte of theirs and every counter is as it must be, and the server has the descriptors, threads and memory of before.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"
#include "model.h"
#include "raw.h"

enum {
  MIB = 1 << 20,
  SIZE = 16 * MIB,
  MINE = MODEL_PAGES, /* the first page that is not the model's */
  NMINE = SIZE / PAGE_BYTES - MINE,
  NCROWD = 200,
  NCONNECTS = 10000,
  WARM = 2000,   /* requests of the model's clients */
  FAR = 1 << 30, /* behind the export */
};

static struct process before;

/* A drum with pages of ours behind the model's, and the model's clients at work. */
static void
setup (void)
{
  livedrum_setup ();
  livedrum_start_as (
    &(struct server_options){ .threads = 1,
                              .params = PARAMS (dev_path ("a,size=12M,prio=5"),
                                                dev_path ("b,size=12M,prio=5"), "size=16M") });
  for (unsigned page = MINE; page < MINE + NMINE; page++)
    client_write_page (nbd, 1, 1, page);
  model_start (&srv);
  /* Warm: nbdkit has made a buffer for the largest request of each. */
  while (atomic_load (&model.nrequests) < WARM && !atomic_load (&model.failed))
    expect_uint (control_export (control), "clients", 1 + MODEL_CLIENTS);
  before = server_process (&srv);
}

/* Wait until all have been let go. */
static void
settle (void)
{
  expect_str (member (control_status (control), "server"), "version", PACKAGE_VERSION);
  control_forget ();
  server_settle (&srv, before.nfds, before.nthreads);
}

/* The others have noticed nothing, and of the hostile ones nothing is left but these pages with data. */
static void
check_all (unsigned nmine)
{
  uint64_t nused;

  settle ();
  cr_assert (!atomic_load (&model.failed));
  atomic_store (&model.stop, true);
  model_join ();
  nused = model_check (nbd) + nmine;
  cr_assert_gt (atomic_load (&model.nrequests), 0);
  expect_uint (control_export (control), "used", nused * PAGE_BYTES);
  expect_uint (control_status (control), "drum.used", nused * PAGE_BYTES);
  expect_uint (control_export (control), "clients", 1);
}

static void
expect_mine (void)
{
  for (unsigned page = MINE; page < MINE + NMINE; page++)
    client_expect_page (nbd, 1, 1, page);
}

/* How much more memory it has than then. A tenth and a MiB are for what malloc does with what it has. */
static void
expect_memory (const struct process *then)
{
  struct process now = server_process (&srv);

  if (!server_is_sanitized ())
    cr_assert_leq (now.rss_kib, then->rss_kib + then->rss_kib / 10 + 1024,
                   "%" PRIu64 " KiB, and there were %" PRIu64, now.rss_kib, then->rss_kib);
}

TestSuite (hostile, .init = setup, .fini = livedrum_teardown, .timeout = 900);

static void
send_request (int fd, unsigned flags, unsigned type, uint64_t cookie, uint64_t offset, uint32_t len)
{
  struct raw raw = { .data = NULL };

  raw_request (&raw, flags, type, cookie, offset, len);
  cr_assert (raw_send (fd, raw.data, raw.len), "the server hangs up");
  raw_free (&raw);
}

static void
expect_still_served (int fd)
{
  static unsigned char data[PAGE_BYTES];
  struct stamp stamp;

  send_request (fd, 0, RAW_READ, 99, (uint64_t) MINE * PAGE_BYTES, PAGE_BYTES);
  cr_assert_eq (raw_reply (fd, 99), 0);
  cr_assert (raw_receive (fd, data, sizeof data), "the server hangs up");
  cr_assert (stamp_read (data, &stamp) && stamp.page == MINE);
}

/* Requests that can't be done are errors, change nothing, and the next one is answered. */
Test (hostile, impossible_requests)
{
  static const struct {
    unsigned flags, type;
    uint64_t offset;
    uint32_t len;
  } bad[] = {
    { 0, RAW_READ, SIZE, 1 },
    { 0, RAW_READ, SIZE - 1, 2 },
    { 0, RAW_READ, 0, SIZE + 1 },
    { 0, RAW_READ, FAR, PAGE_BYTES },
    { 0, RAW_READ, INT64_MAX, PAGE_BYTES },
    { 0, RAW_READ, UINT64_MAX, 1 },
    { 0, RAW_READ, UINT64_MAX - 4095, PAGE_BYTES },
    { 0, RAW_READ, 0, UINT32_MAX },
    { 0, RAW_READ, 0, 0x80000000u },
    { 0, RAW_READ, 0, 0 },
    { 0xffff, RAW_READ, 0, PAGE_BYTES },
    { 0, RAW_TRIM, SIZE, PAGE_BYTES },
    { 0, RAW_TRIM, SIZE - PAGE_BYTES, 2 * PAGE_BYTES },
    { 0, RAW_TRIM, UINT64_MAX - 4095, PAGE_BYTES },
    { 0, RAW_TRIM, 0, UINT32_MAX },
    { 0, RAW_TRIM, 0, 0 },
    { 0x8000, RAW_TRIM, 0, PAGE_BYTES },
    { 0, RAW_ZEROES, SIZE - 1, 2 },
    { 0, RAW_ZEROES, UINT64_MAX, UINT32_MAX },
    { 0, RAW_ZEROES, 0, UINT32_MAX },
    { 0, RAW_ZEROES, 0, 0 },
    { 0x8000, RAW_ZEROES, 0, PAGE_BYTES },
    { 0, RAW_CACHE, SIZE, 1 },
    { 0, RAW_CACHE, 0, UINT32_MAX },
    { 0, RAW_STATUS, 0, PAGE_BYTES }, /* no meta context was chosen */
    { 0, 8, 0, PAGE_BYTES },
    { 0, 0xffff, 0, PAGE_BYTES },
  };
  int fd = raw_open (&srv);

  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    int error;

    send_request (fd, bad[i].flags, bad[i].type, i, bad[i].offset, bad[i].len);
    error = raw_reply (fd, i);
    cr_assert_gt (error, 0, "request %u: %d", i, error);
    expect_still_served (fd);
  }
  close (fd);
  expect_mine ();
  check_all (NMINE);
}

/* The same of writes, whose data comes all the same: it is passed over, or the server hangs up. */
Test (hostile, impossible_writes)
{
  static const struct {
    unsigned flags;
    uint64_t offset;
    uint32_t len;
  } bad[] = {
    { 0, SIZE, 1 },
    { 0, SIZE - 1, 2 },
    { 0, SIZE - PAGE_BYTES, 2 * PAGE_BYTES },
    { 0, 0, SIZE + 1 },
    { 0, UINT64_MAX, 1 },
    { 0, UINT64_MAX - 4095, PAGE_BYTES },
    { 0xffff, (uint64_t) MINE * PAGE_BYTES, PAGE_BYTES },
    { 0, 0, (64 << 20) + 1 },
    { 0, 0, (192 << 20) },
    { 0, 0, UINT32_MAX },
    { 0, 0, 0 },
  };
  static char garbage[MIB];
  unsigned nhangups = 0;

  memset (garbage, 'g', sizeof garbage);
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    int fd = raw_open (&srv), error;
    bool taken = true;

    send_request (fd, bad[i].flags, RAW_WRITE, i, bad[i].offset, bad[i].len);
    for (uint32_t at = 0, n; taken && at < bad[i].len; at += n) {
      n = bad[i].len - at < sizeof garbage ? bad[i].len - at : (uint32_t) sizeof garbage;
      taken = raw_send (fd, garbage, n);
    }
    error = raw_reply (fd, i);
    cr_assert_neq (error, 0, "write %u", i);
    if (taken && error > 0)
      expect_still_served (fd);
    else
      nhangups++;
    close (fd);
  }
  cr_assert_leq (nhangups, 2, "only of those that are too long to be read");
  expect_mine ();
  check_all (NMINE);
}

/* One request after the other, overlapping, of any alignment, without waiting for replies (as many as the socket has room for), and
 * in pieces of any size: done as if they had come one by one. */
Test (hostile, interleaved)
{
  enum { NREQUESTS = 150, MOST = 3 * PAGE_BYTES, ROOM = 8 * PAGE_BYTES };
  static unsigned char expected[ROOM], seen[ROOM], data[MOST];
  struct rng rng = rng_for (1);
  struct raw raw = { .data = NULL };
  int fd = raw_open (&srv);

  client_read (nbd, expected, ROOM, (uint64_t) MINE * PAGE_BYTES);
  for (unsigned i = 0; i < NREQUESTS; i++) {
    uint32_t offset = (uint32_t) rng_below (&rng, ROOM - 1);
    uint32_t len = 1 + (uint32_t) rng_below (&rng, ROOM - offset < MOST ? ROOM - offset : MOST);
    bool write = rng_below (&rng, 3);

    raw_request (&raw, 0, write ? RAW_WRITE : RAW_ZEROES, i, (uint64_t) MINE * PAGE_BYTES + offset,
                 len);
    rng_fill (&rng, data, len - len % 8);
    if (write)
      raw_bytes (&raw, data, len);
    else
      memset (data, 0, len);
    memcpy (expected + offset, data, len);
  }
  for (size_t at = 0, n; at < raw.len; at += n) {
    n = 1 + rng_below (&rng, rng_below (&rng, 2) ? 40 : 20000);
    n = n < raw.len - at ? n : raw.len - at;
    cr_assert (raw_send (fd, raw.data + at, n), "the server hangs up");
  }
  for (unsigned i = 0; i < NREQUESTS; i++)
    cr_assert_eq (raw_reply (fd, i), 0);
  client_read (nbd, seen, ROOM, (uint64_t) MINE * PAGE_BYTES);
  cr_assert_eq (memcmp (seen, expected, ROOM), 0);
  raw_free (&raw);
  close (fd);
  client_trim (nbd, (uint64_t) NMINE * PAGE_BYTES, (uint64_t) MINE * PAGE_BYTES);
  check_all (0);
}

/* Send the first n bytes of what follows the greeting, or the handshake, and go. */
static void
send_and_go (const struct raw *raw, size_t n, bool greeted, bool orderly)
{
  int fd = greeted ? raw_connect (&srv) : raw_open (&srv);

  raw_send (fd, raw->data, n);
  if (orderly)
    shutdown (fd, SHUT_WR);
  close (fd);
}

/* Behind each byte of the head; and of the data some, the first and the last ones too. */
static size_t
next_cut (size_t n, size_t head, size_t len)
{
  enum { STEP = 911 };

  if (n <= head || n >= len - 3)
    return n + 1;
  return n + STEP < len - 3 ? n + STEP : len - 3;
}

/* A handshake, and a request to write three pages, cut after any number of their bytes: of the pages is written nothing, but by the
 * last byte, and then all, though nobody waits for the reply. */
Test (hostile, cut_anywhere)
{
  enum { N = 3 };
  struct raw handshake = { .data = NULL }, request = { .data = NULL };
  static char data[N * PAGE_BYTES];
  size_t head;

  for (unsigned i = 0; i < N; i++)
    stamp_fill (data + i * PAGE_BYTES, (struct stamp){ 2, 2, MINE + i });
  raw_flags (&handshake);
  raw_go (&handshake);
  raw_request (&request, 0, RAW_WRITE, 1, (uint64_t) MINE * PAGE_BYTES, sizeof data);
  head = request.len;
  raw_bytes (&request, data, sizeof data);
  for (size_t n = 0; n <= handshake.len; n++)
    send_and_go (&handshake, n, true, n % 2);
  for (size_t n = 0; n < request.len; n = next_cut (n, head, request.len))
    send_and_go (&request, n, false, n % 2);
  settle ();
  expect_mine ();
  send_and_go (&request, request.len, false, false);
  settle ();
  for (unsigned i = 0; i < N; i++)
    client_expect_page (nbd, 2, 2, MINE + i);
  raw_free (&handshake);
  raw_free (&request);
  check_all (NMINE);
}

/* Send this behind the greeting, see that the server hangs up or waits for more, and go. */
static void
talk (const void *data, size_t len)
{
  struct pollfd pfd = { .events = POLLIN };
  static char reply[65536];

  pfd.fd = raw_connect (&srv);
  if (raw_send (pfd.fd, data, len))
    while (poll (&pfd, 1, 5) == 1 && recv (pfd.fd, reply, sizeof reply, 0) > 0)
      ;
  close (pfd.fd);
}

/* A handshake with this option, in which it says that so many bytes follow, and fewer do. */
static void
talk_option (uint32_t option, uint32_t says, const void *data, size_t len)
{
  struct raw raw = { .data = NULL };

  raw_flags (&raw);
  raw_number (&raw, 8, RAW_OPTION_MAGIC);
  raw_number (&raw, 4, option);
  raw_number (&raw, 4, says);
  raw_bytes (&raw, data, len);
  talk (raw.data, raw.len);
  raw_free (&raw);
}

/* Handshakes of nonsense, with lengths beyond all measure; and requests with a wrong magic number. */
Test (hostile, nonsense)
{
  static const uint32_t options[] = { 0,        RAW_EXPORT_NAME, RAW_ABORT,
                                      RAW_LIST, RAW_STARTTLS,    RAW_INFO,
                                      RAW_GO,   RAW_LIST_META,   RAW_SET_META,
                                      77,       UINT32_MAX,      RAW_STRUCTURED_REPLY };
  static const uint32_t lengths[] = { 0, 1, 5, 6, 4096, 65536, 1 << 20, 1 << 30, UINT32_MAX };
  static char ones[100000];
  struct rng rng = rng_for (2);
  struct raw raw = { .data = NULL };
  unsigned char garbage[1000];

  memset (ones, 0xff, sizeof ones);
  for (unsigned i = 0; i < sizeof options / sizeof options[0]; i++)
    for (unsigned k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
      size_t len = lengths[k] < sizeof ones ? lengths[k] : sizeof ones;

      talk_option (options[i], lengths[k], ones, len);
      talk_option (options[i], lengths[k], garbage, 0);
    }
  for (unsigned i = 0; i < 100; i++) {
    rng_fill (&rng, garbage, sizeof garbage - 8);
    talk (garbage, 1 + rng_below (&rng, sizeof garbage - 8));
  }
  /* One option after the other, more than anybody needs. */
  raw_flags (&raw);
  for (unsigned i = 0; i < 1000; i++)
    raw_option (&raw, i % 2 ? RAW_LIST : 1000 + i, NULL, 0);
  talk (raw.data, raw.len);
  raw_free (&raw);
  raw_flags (&raw);
  raw_go (&raw);
  raw_request (&raw, 0, RAW_WRITE, 1, (uint64_t) MINE * PAGE_BYTES, PAGE_BYTES);
  raw.data[raw.len - 28] ^= 1; /* its magic number */
  raw_bytes (&raw, ones, PAGE_BYTES);
  talk (raw.data, raw.len);
  raw_free (&raw);
  settle ();
  expect_mine ();
  check_all (NMINE);
}

/* So many at once, each with a page of its own, half of them in the middle of a write when all hang up. */
static void
crowd (void)
{
  static char data[PAGE_BYTES];
  int fd[NCROWD];

  for (unsigned i = 0; i < NCROWD; i++)
    fd[i] = raw_open (&srv);
  for (unsigned i = 0; i < NCROWD; i++) {
    stamp_fill (data, (struct stamp){ 3, i + 1, MINE + i });
    send_request (fd[i], 0, RAW_WRITE, i, (uint64_t) (MINE + i) * PAGE_BYTES, PAGE_BYTES);
    cr_assert (raw_send (fd[i], data, PAGE_BYTES), "the server hangs up");
  }
  expect_uint (control_export (control), "clients", 1 + MODEL_CLIENTS + NCROWD);
  for (unsigned i = 0; i < NCROWD; i++)
    cr_assert_eq (raw_reply (fd[i], i), 0);
  memset (data, 'h', sizeof data);
  for (unsigned i = 0; i < NCROWD; i += 2) {
    send_request (fd[i], 0, RAW_WRITE, i, (uint64_t) (MINE + i) * PAGE_BYTES, PAGE_BYTES);
    cr_assert (raw_send (fd[i], data, i * 20), "the server hangs up");
  }
  for (unsigned i = 0; i < NCROWD; i++)
    close (fd[i]);
  settle ();
  for (unsigned i = 0; i < NCROWD; i++)
    client_expect_page (nbd, 3, i + 1, MINE + i);
}

/* 200 connections at once, again and again. */
Test (hostile, crowd)
{
  struct process warm;

  crowd ();
  warm = server_process (&srv);
  for (unsigned i = 0; i < 5; i++)
    crowd ();
  expect_memory (&warm);
  check_all (NMINE);
}

/* 10,000 connects, of which some say a bit, some all, and some goodbye. */
static void
connect_once (unsigned i, const struct raw *session)
{
  struct raw raw = { .data = NULL };
  int fd;

  if (i % 2) {
    fd = raw_open (&srv);
    if (i % 4 == 1) {
      raw_request (&raw, 0, RAW_DISCONNECT, i, 0, 0);
      raw_send (fd, raw.data, raw.len);
      raw_free (&raw);
    }
  } else {
    fd = i % 8 ? raw_connect (&srv) : control_open_at (srv.socket);
    raw_send (fd, session->data, i / 2 % session->len);
  }
  close (fd);
}

Test (hostile, connects)
{
  struct raw session = { .data = NULL };
  unsigned n = random_steps (NCONNECTS);
  struct process warm = before;
  double begin = seconds_now ();

  raw_flags (&session);
  raw_go (&session);
  raw_request (&session, 0, RAW_WRITE, 1, (uint64_t) MINE * PAGE_BYTES, PAGE_BYTES);
  for (unsigned i = 0; i < n; i++) {
    if (i == n / 10) {
      settle ();
      warm = server_process (&srv);
    }
    connect_once (i, &session);
  }
  settle ();
  cr_log_info ("hostile: %u connects in %.1f s", n, seconds_now () - begin);
  expect_memory (&warm);
  expect_mine ();
  raw_free (&session);
  check_all (NMINE);
}

/* The control socket: more than it serves at once, in the middle of a line, of a reply, or while a job runs for them. */
Test (hostile, control)
{
  static const char *const lines[] = {
    "",
    "{",
    "{\"version\": 1, \"verb\": \"status\"",
    "{\"version\": 1, \"verb\": \"status\"}\n{\"version\": 1, \"verb\": \"status\"}\n{",
    "{\"version\": 1, \"verb\": \"rebalance\", \"rate\": 4096}\n",
    "{\"version\": 1, \"verb\": \"wait\", \"job\": 1, \"seconds\": 3600}\n",
    "\n\n\n[]\nnull\n{}\n",
  };
  struct process warm;
  int fd[NCROWD];

  for (unsigned round = 0; round < 6; round++) {
    for (unsigned i = 0; i < NCROWD; i++) {
      const char *line = lines[i % (sizeof lines / sizeof lines[0])];

      fd[i] = control_open ();
      raw_send (fd[i], line, strlen (line));
    }
    for (unsigned i = 0; i < NCROWD; i++)
      close (fd[i]);
    settle ();
    if (round == 0)
      warm = server_process (&srv);
  }
  expect_memory (&warm);
  expect_mine ();
  check_all (NMINE);
}
