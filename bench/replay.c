/* SPDX-License-Identifier: BSD-3-Clause
 *
 * replay.c - how fast does an NBD server answer what a kernel that swaps has asked for?
 *
 * Requests go out in the order of the trace, each as soon as so many have ended as had when the kernel sent it, and nothing
 * that it overlaps is in flight. So what a page holds is known at any time, and each page that comes back is looked at: a
 * wrong one ends the program. What no server owes (pages that were trimmed) is not. Pages that the trace reads before it
 * writes them are written before the clock starts.
 */
#include <config.h>

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <libnbd.h>

#include "measure.h"
#include "trace.h"

enum { PAGE_WORDS = PAGE_BYTES / 8, MAX_CONNECTIONS = 64, PREFILL_PAGES = 32 };
#define STEP UINT64_C (0x9e3779b97f4a7c15)

/* One request in flight. */
struct slot {
  const struct trace_request *request;
  uint64_t *data;
  uint64_t sent_ns;
};

static const char *const names[TRACE_NKINDS] = { "read", "write", "trim" };

static struct trace trace;
static struct nbd_handle *connections[MAX_CONNECTIONS];
static unsigned nconnections = 1;

static uint64_t seed;
static uint32_t *versions; /* of each page; 0: nobody can say what it holds */
static bool *busy;         /* pages with a request in flight */
static struct slot *slots, **idle;
static uint32_t nidle, nended, nconcurrent;

static uint64_t *latencies_ns[TRACE_NKINDS];
static uint32_t counts[TRACE_NKINDS];
static uint64_t nmoved, nchecked; /* pages */

static void *
need (size_t n, size_t size)
{
  void *p = calloc (n ? n : 1, size);

  if (!p)
    err (EXIT_FAILURE, "memory");
  return p;
}

static void fail (const char *what) __attribute__ ((noreturn));

static void
fail (const char *what)
{
  errx (EXIT_FAILURE, "%s: %s", what, nbd_get_error ());
}

/* The finishing step of splitmix64: the words of a page say which page and version, of which run of this program, it is. */
static uint64_t
first_word (uint32_t page)
{
  uint64_t x = seed ^ ((uint64_t) page << 32 | versions[page]);

  x = (x ^ (x >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C (0x94d049bb133111eb);
  return x ^ (x >> 31);
}

/* What these pages hold from now on. */
static void
new_contents (uint64_t *data, uint32_t page, uint32_t npages)
{
  for (; npages > 0; npages--, page++) {
    uint64_t word;

    versions[page]++;
    word = first_word (page);
    for (unsigned i = 0; i < PAGE_WORDS; i++)
      *data++ = word + i * STEP;
  }
}

static void
check_contents (const uint64_t *data, uint32_t page, uint32_t npages)
{
  for (; npages > 0; npages--, page++, data += PAGE_WORDS) {
    uint64_t word, diff = 0;

    if (versions[page] == 0)
      continue;
    word = first_word (page);
    for (unsigned i = 0; i < PAGE_WORDS; i++)
      diff |= data[i] ^ (word + i * STEP);
    if (diff)
      errx (EXIT_FAILURE, "page %" PRIu32 " came back wrong", page);
    nchecked++;
  }
}

static void
connect_all (const char *uri)
{
  for (unsigned i = 0; i < nconnections; i++) {
    struct nbd_handle *nbd = connections[i] = nbd_create ();

    if (!nbd || nbd_set_pread_initialize (nbd, false) == -1 || nbd_connect_uri (nbd, uri) == -1)
      fail (uri);
  }
  if (nbd_get_size (connections[0]) < (int64_t) trace.npages * PAGE_BYTES)
    errx (EXIT_FAILURE, "%s: has %" PRIi64 " bytes, and the trace reaches to %" PRIu64, uri,
          nbd_get_size (connections[0]), (uint64_t) trace.npages * PAGE_BYTES);
}

/* Pages that are read first get contents, in as few requests as there are. */
static void
prefill (void)
{
  bool *first_read = need (trace.npages, sizeof *first_read),
       *seen = need (trace.npages, sizeof *seen);
  uint64_t *data = need (PREFILL_PAGES, PAGE_BYTES);

  for (uint32_t i = 0; i < trace.nrequests; i++) {
    const struct trace_request *r = &trace.requests[i];

    for (uint32_t page = r->page; page < r->page + r->npages; page++) {
      first_read[page] |= !seen[page] && r->kind == TRACE_READ;
      seen[page] = true;
    }
  }
  for (uint32_t page = 0, end; page < trace.npages; page = end) {
    for (end = page; end < trace.npages && end - page < PREFILL_PAGES && first_read[end]; end++)
      ;
    if (end == page) {
      end++;
      continue;
    }
    new_contents (data, page, end - page);
    if (nbd_pwrite (connections[0], data, (size_t) (end - page) * PAGE_BYTES,
                    (uint64_t) page * PAGE_BYTES, 0) == -1)
      fail ("a write before the start");
  }
  free (data);
  free (seen);
  free (first_read);
}

static void
mark (const struct trace_request *r, bool is_busy)
{
  memset (busy + r->page, is_busy, r->npages * sizeof *busy);
}

static int
ended (void *opaque, int *error)
{
  uint64_t now = clock_ns (CLOCK_MONOTONIC);
  struct slot *s = opaque;
  const struct trace_request *r = s->request;

  if (*error)
    errx (EXIT_FAILURE, "request %td (%" PRIu32 " pages from %" PRIu32 "): %s", r - trace.requests,
          r->npages, r->page, strerror (*error));
  latencies_ns[r->kind][counts[r->kind]++] = now - s->sent_ns;
  if (r->kind == TRACE_READ)
    check_contents (s->data, r->page, r->npages);
  if (r->kind != TRACE_TRIM)
    nmoved += r->npages;
  mark (r, false);
  nended++;
  idle[nidle++] = s;
  return 1; /* libnbd may forget it */
}

static void
send_request (const struct trace_request *r)
{
  struct nbd_handle *nbd = connections[(size_t) (r - trace.requests) % nconnections];
  uint64_t offset = (uint64_t) r->page * PAGE_BYTES, length = (uint64_t) r->npages * PAGE_BYTES;
  struct slot *s = idle[--nidle];
  nbd_completion_callback callback = { .callback = ended, .user_data = s };
  int64_t cookie = -1;

  s->request = r;
  mark (r, true);
  if (trace.nconcurrent - nidle > nconcurrent)
    nconcurrent = trace.nconcurrent - nidle;
  if (r->kind == TRACE_WRITE)
    new_contents (s->data, r->page, r->npages);
  s->sent_ns = clock_ns (CLOCK_MONOTONIC);
  switch (r->kind) {
  case TRACE_READ:
    cookie = nbd_aio_pread (nbd, s->data, length, offset, callback, 0);
    break;
  case TRACE_WRITE:
    cookie = nbd_aio_pwrite (nbd, s->data, length, offset, callback, 0);
    break;
  case TRACE_TRIM:
    memset (versions + r->page, 0, r->npages * sizeof *versions);
    cookie = nbd_aio_trim (nbd, length, offset, callback, 0);
    break;
  default:
    abort ();
  }
  if (cookie == -1)
    fail ("request");
}

static bool
may_go (const struct trace_request *r)
{
  return r->nended <= nended && !memchr (busy + r->page, true, r->npages * sizeof *busy);
}

/* Until a connection has something to be done, and do it. */
static void
wait_and_work (void)
{
  struct pollfd fds[MAX_CONNECTIONS];

  for (unsigned i = 0; i < nconnections; i++) {
    unsigned direction = nbd_aio_get_direction (connections[i]);

    fds[i] = (struct pollfd){ .fd = nbd_aio_get_fd (connections[i]) };
    if (direction & LIBNBD_AIO_DIRECTION_READ)
      fds[i].events |= POLLIN;
    if (direction & LIBNBD_AIO_DIRECTION_WRITE)
      fds[i].events |= POLLOUT;
  }
  if (poll (fds, nconnections, -1) == -1 && errno != EINTR)
    err (EXIT_FAILURE, "poll");
  for (unsigned i = 0; i < nconnections; i++) {
    unsigned direction = nbd_aio_get_direction (connections[i]);

    if (direction & LIBNBD_AIO_DIRECTION_READ && fds[i].revents & (POLLIN | POLLHUP | POLLERR)) {
      if (nbd_aio_notify_read (connections[i]) == -1)
        fail ("a reply");
    } else if (direction & LIBNBD_AIO_DIRECTION_WRITE &&
               fds[i].revents & (POLLOUT | POLLHUP | POLLERR)) {
      if (nbd_aio_notify_write (connections[i]) == -1)
        fail ("a request");
    }
  }
}

static void
replay (void)
{
  bool trims = nbd_can_trim (connections[0]) == 1;

  for (uint32_t next = 0; nended < trace.nrequests;) {
    while (next < trace.nrequests && may_go (&trace.requests[next])) {
      const struct trace_request *r = &trace.requests[next++];

      if (r->kind == TRACE_TRIM && !trims)
        nended++;
      else
        send_request (r);
    }
    if (nended < trace.nrequests)
      wait_and_work ();
  }
}

static int
by_value (const void *a, const void *b)
{
  uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

  return (x > y) - (x < y);
}

static double
percentile_us (enum trace_kind kind, double share)
{
  uint32_t n = counts[kind];

  return n == 0 ? 0 : (double) latencies_ns[kind][(uint32_t) ((n - 1) * share)] / 1e3;
}

static void
print_kind (enum trace_kind kind)
{
  qsort (latencies_ns[kind], counts[kind], sizeof latencies_ns[kind][0], by_value);
  printf (", \"%s\": { \"requests\": %" PRIu32
          ", \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f }",
          names[kind], counts[kind], percentile_us (kind, 0.5), percentile_us (kind, 0.99),
          percentile_us (kind, 0.999));
}

static void
print_trace (void)
{
  static uint32_t nrequests[TRACE_NKINDS];
  static uint64_t npages[TRACE_NKINDS];

  for (uint32_t i = 0; i < trace.nrequests; i++) {
    nrequests[trace.requests[i].kind]++;
    npages[trace.requests[i].kind] += trace.requests[i].npages;
  }
  printf ("{ \"requests\": %" PRIu32 ", \"bytes\": %" PRIu64 ", \"max_in_flight\": %" PRIu32,
          trace.nrequests, (uint64_t) trace.npages * PAGE_BYTES, trace.nconcurrent);
  for (enum trace_kind kind = 0; kind < TRACE_NKINDS; kind++)
    printf (", \"%s\": { \"requests\": %" PRIu32 ", \"pages\": %" PRIu64 " }", names[kind],
            nrequests[kind], npages[kind]);
  puts (" }");
}

static void
run (const char *uri)
{
  double seconds;
  uint64_t began;

  seed = clock_ns (CLOCK_MONOTONIC) * STEP;
  versions = need (trace.npages, sizeof *versions);
  busy = need (trace.npages, sizeof *busy);
  slots = need (trace.nconcurrent, sizeof *slots);
  idle = need (trace.nconcurrent, sizeof *idle);
  for (nidle = 0; nidle < trace.nconcurrent; nidle++) {
    slots[nidle].data = need (trace.nwidest, PAGE_BYTES);
    idle[nidle] = &slots[nidle];
  }
  for (enum trace_kind kind = 0; kind < TRACE_NKINDS; kind++)
    latencies_ns[kind] = need (trace.nrequests, sizeof latencies_ns[kind][0]);

  connect_all (uri);
  prefill ();
  began = clock_ns (CLOCK_MONOTONIC);
  replay ();
  seconds = (double) (clock_ns (CLOCK_MONOTONIC) - began) / 1e9;
  for (unsigned i = 0; i < nconnections; i++) {
    nbd_shutdown (connections[i], 0);
    nbd_close (connections[i]);
  }

  printf ("{ \"requests\": %" PRIu32
          ", \"seconds\": %.3f, \"requests_per_s\": %.0f, \"mb_per_s\": %.1f, "
          "\"max_in_flight\": %" PRIu32 ", \"pages_checked\": %" PRIu64,
          trace.nrequests, seconds, trace.nrequests / seconds,
          (double) nmoved * PAGE_BYTES / 1e6 / seconds, nconcurrent, nchecked);
  for (enum trace_kind kind = 0; kind < TRACE_NKINDS; kind++)
    print_kind (kind);
  puts (" }");

  for (enum trace_kind kind = 0; kind < TRACE_NKINDS; kind++)
    free (latencies_ns[kind]);
  for (uint32_t i = 0; i < trace.nconcurrent; i++)
    free (slots[i].data);
  free (idle);
  free (slots);
  free (busy);
  free (versions);
}

static void
usage (FILE *to)
{
  fputs (
    "usage: replay --uri URI [--connections N] TRACE\n"
    "       replay --check TRACE\n"
    "       replay --from-log < LOG | xz -9e > TRACE\n"
    "  --uri URI          the server's export; what it holds is overwritten\n"
    "  --connections N    requests go to them by turns (default 1)\n"
    "  --check            only say what is in the trace, and whether it can be read\n"
    "  --from-log         make a trace of what nbdkit's log filter has written; see bench/record\n",
    to);
}

int
main (int argc, char *argv[])
{
  static const struct option options[] = {
    { "uri", required_argument, NULL, 'u' }, { "connections", required_argument, NULL, 'c' },
    { "check", no_argument, NULL, 'k' },     { "from-log", no_argument, NULL, 'l' },
    { "help", no_argument, NULL, 'h' },      { NULL, 0, NULL, 0 }
  };
  bool check = false, from_log = false;
  const char *uri = NULL;
  char *end;
  int c;

  while ((c = getopt_long (argc, argv, "", options, NULL)) != -1) {
    switch (c) {
    case 'u':
      uri = optarg;
      break;
    case 'c':
      nconnections = (unsigned) strtoul (optarg, &end, 10);
      if (*end || nconnections < 1 || nconnections > MAX_CONNECTIONS)
        errx (EXIT_FAILURE, "--connections: 1 to %d", MAX_CONNECTIONS);
      break;
    case 'k':
      check = true;
      break;
    case 'l':
      from_log = true;
      break;
    case 'h':
      usage (stdout);
      return EXIT_SUCCESS;
    default:
      usage (stderr);
      return EXIT_FAILURE;
    }
  }
  if (check + from_log + (uri != NULL) != 1 || argc - optind != !from_log) {
    usage (stderr);
    return EXIT_FAILURE;
  }
  if (from_log) {
    trace = trace_from_log (stdin);
    trace_print (&trace, stdout);
  } else {
    trace = trace_load (argv[optind]);
    if (check)
      print_trace ();
    else
      run (uri);
  }
  trace_free (&trace);
  return EXIT_SUCCESS;
}
