/* SPDX-License-Identifier: BSD-3-Clause
 *
 * shadow.c - random requests of any alignment, length and kind, compared with a copy in memory.
 *
 * Each connection has a region of the export to itself, but the regions meet inside pages. Several requests of one
 * connection are under way at once as long as they do not touch the same bytes; those of different connections touch
 * the same pages all the time. The drum is no larger than the export needs, so freed slots are used again soon.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include <criterion/criterion.h>

#include "client.h"
#include "dev.h"

enum { MAX_DEPTH = 8, NREGIONS = 4, MIB = 1 << 20 };

TestSuite (shadow, .init = dev_setup, .fini = dev_teardown, .timeout = 900);

enum kind { READ, WRITE, TRIM, ZERO, AFTER_TRIM };

struct request {
  bool busy;
  enum kind kind;
  int64_t cookie;
  uint64_t start; /* in the export */
  size_t len;
  uint32_t flags;
  unsigned char *buf;
};

struct region {
  uint64_t start;
  size_t len;
  unsigned depth;
  unsigned nsteps;
  unsigned char *shadow; /* what the bytes from start on are */
  struct request requests[MAX_DEPTH];
};

/* Where and how much: mostly little, often whole pages, often near the region's ends or in a busy corner of it. */
static void
choose_range (struct worker *w, struct region *r, struct request *req)
{
  static const size_t most[] = { 600, 600, 5000, 5000, 20000, 70000, 300000, 2 * MIB };
  uint64_t lo = 0, room = r->len;

  switch (rng_below (&w->rng, 5)) {
  case 0: /* the edges, where the neighbours are */
    lo = rng_below (&w->rng, 2) ? 0 : r->len - 8192;
    room = 8192;
    break;
  case 1:
  case 2: /* a corner that is written again and again */
    lo = r->len / 3;
    room = 262144;
    break;
  }
  req->start = r->start + lo + rng_below (&w->rng, room);
  req->len = 1 + rng_below (&w->rng, most[rng_below (&w->rng, 8)]);
  switch (rng_below (&w->rng, 3)) {
  case 0:
    req->start -= req->start % PAGE_BYTES;
    req->len += PAGE_BYTES - req->len % PAGE_BYTES;
    break;
  case 1:
    req->start -= req->start % 512;
    req->len += 512 - req->len % 512;
    break;
  }
  if (req->start < r->start)
    req->start = r->start;
  if (req->start + req->len > r->start + r->len)
    req->len = r->start + r->len - req->start;
}

static void
choose (struct worker *w, struct region *r, struct request *req)
{
  uint64_t dice = rng_below (&w->rng, 100);

  choose_range (w, r, req);
  req->flags = 0;
  req->kind = dice < 35 ? READ : dice < 75 ? WRITE : dice < 88 ? TRIM : ZERO;
  if (req->kind != READ && rng_below (&w->rng, 4) == 0)
    req->flags |= LIBNBD_CMD_FLAG_FUA;
  if (req->kind == ZERO && rng_below (&w->rng, 3) == 0)
    req->flags |= LIBNBD_CMD_FLAG_NO_HOLE;
  if (req->kind == ZERO && rng_below (&w->rng, 3) == 0)
    req->flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
  if (req->kind == READ || req->kind == WRITE)
    req->buf = malloc (req->len);
  if (req->kind == WRITE) {
    rng_fill (&w->rng, req->buf, req->len);
    /* Zeroes in the middle, often by pages, are the writes that take no slots. */
    if (rng_below (&w->rng, 4) == 0) {
      size_t from = rng_below (&w->rng, req->len);

      memset (req->buf + from, 0, 1 + rng_below (&w->rng, req->len - from));
    }
  }
}

static void
submit (struct worker *w, struct request *req)
{
  struct nbd_handle *nbd = w->nbd;

  switch (req->kind) {
  case READ:
  case AFTER_TRIM:
    req->cookie = nbd_aio_pread (nbd, req->buf, req->len, req->start, NBD_NULL_COMPLETION, 0);
    break;
  case WRITE:
    req->cookie =
      nbd_aio_pwrite (nbd, req->buf, req->len, req->start, NBD_NULL_COMPLETION, req->flags);
    break;
  case TRIM:
    req->cookie = nbd_aio_trim (nbd, req->len, req->start, NBD_NULL_COMPLETION, req->flags);
    break;
  case ZERO:
    req->cookie = nbd_aio_zero (nbd, req->len, req->start, NBD_NULL_COMPLETION, req->flags);
    break;
  }
  req->busy = req->cookie != -1;
  if (!req->busy)
    worker_fail (w, "submit: %s", nbd_get_error ());
}

/* A trim leaves zeroes in whole pages; the bytes of pages it only touches may be zeroes or what they were. */
static void
check_trimmed (struct worker *w, struct region *r, const struct request *req)
{
  unsigned char *shadow = r->shadow + (req->start - r->start);
  uint64_t end = req->start + req->len;

  for (size_t i = 0; i < req->len; i++) {
    uint64_t page = (req->start + i) / PAGE_BYTES * PAGE_BYTES;
    bool whole = page >= req->start && page + PAGE_BYTES <= end;

    if (req->buf[i] != 0 && (whole || req->buf[i] != shadow[i])) {
      worker_fail (w, "trim of %zu at %" PRIu64 ": byte %" PRIu64 " is %#x", req->len, req->start,
                   req->start + i, req->buf[i]);
      return;
    }
  }
  memcpy (shadow, req->buf, req->len);
}

static void
check_read (struct worker *w, const unsigned char *shadow, const struct request *req)
{
  size_t i = 0;

  if (memcmp (req->buf, shadow, req->len) == 0)
    return;
  while (req->buf[i] == shadow[i])
    i++;
  worker_fail (w, "read of %zu at %" PRIu64 ": byte %" PRIu64 " is %#x, not %#x", req->len,
               req->start, req->start + i, req->buf[i], shadow[i]);
}

/* It has been answered: error is 0 or an errno. */
static void
finish (struct worker *w, struct region *r, struct request *req, int error)
{
  static const char *const names[] = { "read", "write", "trim", "zero", "read" };
  unsigned char *shadow = r->shadow + (req->start - r->start);

  req->busy = false;
  if (error == ENOTSUP && req->kind == ZERO && req->flags & LIBNBD_CMD_FLAG_FAST_ZERO)
    return;
  if (error) {
    worker_fail (w, "%s of %zu at %" PRIu64 ", flags %#x: %s", names[req->kind], req->len,
                 req->start, req->flags, nbd_get_error ());
    return;
  }
  switch (req->kind) {
  case READ:
    check_read (w, shadow, req);
    break;
  case WRITE:
    memcpy (shadow, req->buf, req->len);
    break;
  case ZERO:
    memset (shadow, 0, req->len);
    return;
  case TRIM:
    req->kind = AFTER_TRIM;
    req->buf = malloc (req->len);
    submit (w, req);
    return;
  case AFTER_TRIM:
    check_trimmed (w, r, req);
    break;
  }
  free (req->buf);
}

/* Wait until at least one request is done. */
static void
wait_some (struct worker *w, struct region *r)
{
  unsigned ndone = 0;

  while (ndone == 0 && !worker_failed (w)) {
    for (unsigned i = 0; i < r->depth; i++) {
      struct request *req = &r->requests[i];
      int done = req->busy ? nbd_aio_command_completed (w->nbd, req->cookie) : 0;

      if (done != 0) {
        ndone++;
        finish (w, r, req, done == 1 ? 0 : nbd_get_errno ());
      }
    }
    if (ndone == 0 && nbd_poll (w->nbd, -1) == -1)
      worker_fail (w, "poll: %s", nbd_get_error ());
  }
}

static bool
in_conflict (const struct region *r, const struct request *req)
{
  for (unsigned i = 0; i < r->depth; i++) {
    const struct request *other = &r->requests[i];

    if (other->busy && other != req && (other->kind != READ || req->kind != READ) &&
        other->start < req->start + req->len && req->start < other->start + other->len)
      return true;
  }
  return false;
}

static struct request *
idle_request (struct region *r)
{
  for (unsigned i = 0; i < r->depth; i++)
    if (!r->requests[i].busy)
      return &r->requests[i];
  return NULL;
}

static void
shadow_worker (struct worker *w)
{
  struct region *r = w->context;
  struct request *req;

  for (unsigned step = 0; step < r->nsteps && !worker_failed (w); step++) {
    while (!(req = idle_request (r)) && !worker_failed (w))
      wait_some (w, r);
    if (!req)
      break;
    choose (w, r, req);
    while (in_conflict (r, req) && !worker_failed (w))
      wait_some (w, r);
    submit (w, req);
  }
  for (unsigned i = 0; i < r->depth; i++)
    while (r->requests[i].busy && !worker_failed (w))
      wait_some (w, r);
}

/* Pages have data if and only if they hold something else than zeroes. */
static void
check_extent (uint64_t offset, const unsigned char *shadow, uint64_t len, bool hole)
{
  static const unsigned char zeroes[PAGE_BYTES];

  for (uint64_t i = 0; i < len; i += PAGE_BYTES) {
    bool is_zero = memcmp (shadow + i, zeroes, PAGE_BYTES) == 0;

    cr_assert_eq (hole, is_zero, "page at %" PRIu64 " is %s zeroes, but a %s", offset + i,
                  is_zero ? "all" : "not all", hole ? "hole" : "page with data");
  }
}

struct walk {
  const unsigned char *shadow;
  uint64_t next;
};

static int
on_extents (void *data, const char *context, uint64_t offset, uint32_t *entries, size_t nentries,
            int *error)
{
  struct walk *walk = data;

  (void) context, (void) error;
  cr_assert_eq (offset, walk->next);
  for (size_t i = 0; i < nentries; i += 2) {
    check_extent (walk->next, walk->shadow + walk->next, entries[i],
                  entries[i + 1] == (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO));
    walk->next += entries[i];
  }
  return 0;
}

static void
check_all (const struct server *srv, struct region *regions, uint64_t size)
{
  struct nbd_handle *nbd = client_open (srv);
  unsigned char *shadow = malloc (size), *seen = malloc (size);
  struct walk walk = { shadow, 0 };

  for (unsigned i = 0; i < NREGIONS; i++)
    memcpy (shadow + regions[i].start, regions[i].shadow, regions[i].len);
  for (uint64_t at = 0; at < size; at += MIB)
    client_read (nbd, seen + at, size - at < MIB ? size - at : MIB, at);
  for (uint64_t at = 0; at < size; at++)
    cr_assert_eq (seen[at], shadow[at], "byte %" PRIu64 " of the end result is %#x, not %#x", at,
                  seen[at], shadow[at]);
  while (server_is_drum () && walk.next < size) {
    nbd_extent_callback callback = { .callback = on_extents, .user_data = &walk };

    cr_assert_eq (nbd_block_status (nbd, size - walk.next, walk.next, callback, 0), 0, "%s",
                  nbd_get_error ());
  }
  client_close (nbd);
}

static void
shadow_run (const struct server_options *options, unsigned depth, unsigned nsteps)
{
  struct server srv;
  struct nbd_handle *nbd;
  struct region regions[NREGIONS] = { 0 };
  struct worker workers[NREGIONS] = { 0 };
  uint64_t size;

  server_start (&srv, options);
  nbd = client_open (&srv);
  size = nbd_get_size (nbd);
  client_close (nbd);
  for (unsigned i = 0; i < NREGIONS; i++) {
    /* Inner borders: one at a page's second sector, one at its last, one at an odd byte. */
    static const unsigned shift[NREGIONS + 1] = { 0, 512, 3584, 1003, 0 };
    uint64_t next = i + 1 == NREGIONS
                      ? size
                      : (i + 1) * (size / NREGIONS / PAGE_BYTES * PAGE_BYTES) + shift[i + 1];

    regions[i].start = i ? regions[i - 1].start + regions[i - 1].len : 0;
    regions[i].len = next - regions[i].start;
    regions[i].depth = depth;
    regions[i].nsteps = random_steps (nsteps);
    regions[i].shadow = calloc (1, regions[i].len);
    workers[i].main = shadow_worker;
    workers[i].context = &regions[i];
  }
  workers_run (&srv, workers, NREGIONS);
  check_all (&srv, regions, size);
  server_stop (&srv);
}

static const char *const *
three_devices (void)
{
  static const char *params[5];

  params[0] = dev_path ("a,prio=5,size=%u", 5 * MIB);
  params[1] = dev_path ("b,prio=5,size=%u", 6 * MIB);
  params[2] = dev_path ("c,size=%u", 7 * MIB);
  params[3] = NULL;
  return params;
}

/* Every byte read is the byte last written, with one request at a time on each connection. */
Test (shadow, four_connections_one_thread_each)
{
  shadow_run (
    &(struct server_options){ .threads = 1, .params = three_devices (), .memory_bytes = 17 * MIB },
    1, 2500);
}

/* The same with several requests of each connection under way at once. */
Test (shadow, four_connections_with_requests_in_flight)
{
  shadow_run (
    &(struct server_options){ .threads = 16, .params = three_devices (), .memory_bytes = 17 * MIB },
    MAX_DEPTH, 3000);
}

/* The same when nbdkit takes them one after another, though the client sends several. */
Test (shadow, requests_in_flight_to_one_thread)
{
  shadow_run (
    &(struct server_options){ .threads = 1, .params = three_devices (), .memory_bytes = 17 * MIB },
    MAX_DEPTH, 1200);
}

/* The same with the smallest stripe, so that every request of some pages spans devices. */
Test (shadow, stripe_of_one_page)
{
  const char *const *devices = three_devices ();

  shadow_run (
    &(struct server_options){ .threads = 16,
                              .params = PARAMS (devices[0], devices[1], devices[2], "stripe=4K"),
                              .memory_bytes = 17 * MIB },
    MAX_DEPTH, 1200);
}

/* The same without checksums. */
Test (shadow, without_checksums)
{
  const char *const *devices = three_devices ();

  shadow_run (
    &(struct server_options){ .threads = 16,
                              .params = PARAMS (devices[0], devices[1], devices[2], "checksum=no"),
                              .memory_bytes = 17 * MIB },
    MAX_DEPTH, 800);
}
