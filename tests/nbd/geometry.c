/* SPDX-License-Identifier: BSD-3-Clause
 *
 * geometry.c - what a client is told about the export, and that it is true.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"
#include "tests/stamp.h"

#include "client.h"
#include "dev.h"

enum { KIB = 1024, MIB = 1024 * KIB, MAX_EXTENTS = 64 };

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("nbdkit's own plugins have their own geometry");
}

TestSuite (geometry, .init = setup, .fini = dev_teardown, .timeout = 300);

static struct nbd_handle *
start (struct server *srv, const char *device, const char *size)
{
  server_start (srv, &(struct server_options){ .params = PARAMS (dev_path ("%s", device), size) });
  return client_open (srv);
}

static void
stop (struct server *srv, struct nbd_handle *nbd)
{
  client_close (nbd);
  server_stop (srv);
}

/* The default size is all usable slots less those kept back: one in 64, at least one. */
Test (geometry, default_size)
{
  struct server srv;

  stop (&srv, start (&srv, "min,size=16K", NULL));
  for (unsigned npages = 4; npages <= 4 * KIB; npages *= 4) {
    unsigned usable = npages - 2, kept = usable / 64 ? usable / 64 : 1;
    struct nbd_handle *nbd = start (&srv, str ("a%u,size=%u", npages, npages * PAGE_BYTES), NULL);

    cr_assert_eq (nbd_get_size (nbd), (usable - kept) * PAGE_BYTES, "device of %u pages", npages);
    stop (&srv, nbd);
  }
}

/* size= may be more than there is. */
Test (geometry, thin_size)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", "size=1T");
  char page[PAGE_BYTES] = { 0 };

  cr_assert_eq (nbd_get_size (nbd), INT64_C (1) << 40);
  client_write_page (nbd, 1, 1, (UINT64_C (1) << 28) - 1);
  client_expect_page (nbd, 1, 1, (UINT64_C (1) << 28) - 1);
  client_read (nbd, page, sizeof page, UINT64_C (1) << 39);
  client_expect_page (nbd, 0, 0, UINT64_C (1) << 27);
  stop (&srv, nbd);
}

/* What is said again replaces what was said before: drum@.service has a state= of its own before the administrator's. */
Test (geometry, the_last_one_counts)
{
  struct server srv;
  struct nbd_handle *nbd;

  server_start (&srv, &(struct server_options){
                        .params = PARAMS (dev_path ("a,size=1M"), "size=2M",
                                          str ("state=%s", run_path ("first")), "size=3M",
                                          str ("state=%s", run_path ("last"))) });
  nbd = client_open (&srv);
  cr_assert_eq (nbd_get_size (nbd), 3 * MIB);
  cr_assert_neq (access (run_path ("first"), F_OK), 0);
  cr_assert_eq (access (run_path ("last"), F_OK), 0);
  stop (&srv, nbd);
}

static uint64_t
resident_kib (const struct server *srv)
{
  char *status = (char *) file_contents (str ("/proc/%d/status", (int) srv->pid), NULL);

  return strtoull (strstr (status, "VmRSS:") + 6, NULL, 10);
}

/* A thin export costs no memory until it is written, and a trim or zero of all of it costs neither memory nor time. */
Test (geometry, thin_export_costs_nothing)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", "size=1T");
  uint64_t before = resident_kib (&srv);

  for (uint64_t at = 0; at < UINT64_C (1) << 40; at += UINT64_C (1) << 38) {
    client_trim (nbd, UINT32_MAX, at);
    client_zero (nbd, UINT32_MAX, at + 1, 0);
  }
  cr_assert_lt (resident_kib (&srv), before + 8 * KIB);
  stop (&srv, nbd);
}

/* Any request works, whole pages are preferred, 32 MiB is the most. */
Test (geometry, block_sizes)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", NULL);

  cr_assert_eq (nbd_get_block_size (nbd, LIBNBD_SIZE_MINIMUM), 1);
  cr_assert_eq (nbd_get_block_size (nbd, LIBNBD_SIZE_PREFERRED), PAGE_BYTES);
  cr_assert_eq (nbd_get_block_size (nbd, LIBNBD_SIZE_MAXIMUM), 32 * MIB);
  stop (&srv, nbd);
}

/* The largest request works, at an odd offset too. */
Test (geometry, largest_request)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=34M", NULL);
  unsigned char *out = malloc (32 * MIB), *in = calloc (1, 32 * MIB);
  struct rng rng = rng_for (1);

  for (unsigned offset = 0; offset <= 4097; offset += 4097) {
    rng_fill (&rng, out, 32 * MIB);
    client_write (nbd, out, 32 * MIB, offset);
    client_read (nbd, in, 32 * MIB, offset);
    cr_assert_eq (memcmp (in, out, 32 * MIB), 0, "at offset %u", offset);
  }
  stop (&srv, nbd);
}

/* All that a first-class server offers is offered. */
Test (geometry, flags)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", NULL);

  cr_expect_eq (nbd_is_read_only (nbd), 0);
  cr_expect_eq (nbd_can_multi_conn (nbd), 1);
  cr_expect_eq (nbd_can_flush (nbd), 1);
  cr_expect_eq (nbd_can_fua (nbd), 1);
  cr_expect_eq (nbd_can_trim (nbd), 1);
  cr_expect_eq (nbd_can_zero (nbd), 1);
  cr_expect_eq (nbd_can_fast_zero (nbd), 1);
  cr_expect_eq (nbd_can_cache (nbd), 1);
  cr_expect_eq (nbd_can_df (nbd), 1);
  cr_expect_eq (nbd_is_rotational (nbd), 0);
  cr_expect_eq (nbd_get_structured_replies_negotiated (nbd), 1);
  cr_expect_eq (nbd_can_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION), 1);
  stop (&srv, nbd);
}

/* What one connection has written and flushed, another reads: can_multi_conn is no lie. */
Test (geometry, connections_see_each_other)
{
  struct server srv;
  struct nbd_handle *a = start (&srv, "a,size=1M", NULL), *b = client_open (&srv);

  for (unsigned i = 1; i < 100; i++) {
    client_write_page (a, 1, i, 5);
    cr_assert_eq (nbd_flush (b, 0), 0);
    client_expect_page (b, 1, i, 5);
  }
  client_close (b);
  stop (&srv, a);
}

struct extents {
  unsigned n;
  struct {
    uint64_t len;
    bool hole;
  } extent[MAX_EXTENTS];
};

static int
on_extents (void *data, const char *context, uint64_t offset, uint32_t *entries, size_t nentries,
            int *error)
{
  struct extents *e = data;

  (void) context, (void) offset, (void) error;
  for (size_t i = 0; i < nentries; i += 2) {
    bool hole = entries[i + 1] == (LIBNBD_STATE_HOLE | LIBNBD_STATE_ZERO);

    cr_assert (hole || entries[i + 1] == 0, "state %u", entries[i + 1]);
    /* A server may cut an extent in pieces. */
    if (e->n && e->extent[e->n - 1].hole == hole)
      e->extent[e->n - 1].len += entries[i];
    else {
      cr_assert_lt (e->n, MAX_EXTENTS);
      e->extent[e->n].len = entries[i];
      e->extent[e->n++].hole = hole;
    }
  }
  return 0;
}

static struct extents
get_extents (struct nbd_handle *nbd, uint64_t len, uint64_t offset)
{
  struct extents e = { 0 };
  nbd_extent_callback callback = { .callback = on_extents, .user_data = &e };
  uint64_t seen = 0;

  while (seen < len) {
    cr_assert_eq (nbd_block_status (nbd, len - seen, offset + seen, callback, 0), 0, "%s",
                  nbd_get_error ());
    seen = 0;
    for (unsigned i = 0; i < e.n; i++)
      seen += e.extent[i].len;
  }
  /* The last one may reach further than asked. */
  e.extent[e.n - 1].len -= seen - len;
  return e;
}

static void
expect_extents (struct nbd_handle *nbd, uint64_t len, uint64_t offset, const uint64_t *lengths,
                bool first_is_hole)
{
  struct extents e = get_extents (nbd, len, offset);

  for (unsigned i = 0; i < e.n; i++) {
    cr_assert_eq (e.extent[i].len, lengths[i],
                  "extent %u from %" PRIu64 " is %" PRIu64 " bytes, not %" PRIu64, i, offset,
                  e.extent[i].len, lengths[i]);
    cr_assert_eq (e.extent[i].hole, first_is_hole ^ (i & 1), "extent %u", i);
  }
}

#define LENGTHS(...) ((const uint64_t[]){ __VA_ARGS__ })

/* Unwritten, trimmed and zeroed pages are holes, written ones data, from whatever offset one asks. */
Test (geometry, extents)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=4M", "size=1G");
  char *buf = malloc (100 * PAGE_BYTES), zeroes[PAGE_BYTES] = { 0 };

  expect_extents (nbd, 512 * MIB, 0, LENGTHS (512 * MIB), true);
  memset (buf, 'x', 100 * PAGE_BYTES);
  client_write (nbd, buf, 100 * PAGE_BYTES, 100 * PAGE_BYTES);
  expect_extents (nbd, 300 * PAGE_BYTES, 0,
                  LENGTHS (100 * PAGE_BYTES, 100 * PAGE_BYTES, 100 * PAGE_BYTES), true);
  expect_extents (nbd, 300 * PAGE_BYTES, 100 * PAGE_BYTES + 1,
                  LENGTHS (100 * PAGE_BYTES - 1, 200 * PAGE_BYTES + 1), false);
  expect_extents (nbd, 1000, 100 * PAGE_BYTES - 500, LENGTHS (500, 500), true);
  client_trim (nbd, 10 * PAGE_BYTES, 120 * PAGE_BYTES);
  client_zero (nbd, 10 * PAGE_BYTES, 140 * PAGE_BYTES, 0);
  client_write (nbd, zeroes, PAGE_BYTES, 160 * PAGE_BYTES);
  expect_extents (nbd, 100 * PAGE_BYTES, 100 * PAGE_BYTES,
                  LENGTHS (20 * PAGE_BYTES, 10 * PAGE_BYTES, 10 * PAGE_BYTES, 10 * PAGE_BYTES,
                           10 * PAGE_BYTES, PAGE_BYTES, 39 * PAGE_BYTES),
                  false);
  /* One byte makes a page of data; a write of zeroes over it makes it a hole again. */
  client_write (nbd, "x", 1, 500 * PAGE_BYTES + 77);
  expect_extents (nbd, 2 * PAGE_BYTES, 500 * PAGE_BYTES, LENGTHS (PAGE_BYTES, PAGE_BYTES), false);
  client_write (nbd, zeroes, 1, 500 * PAGE_BYTES + 77);
  expect_extents (nbd, 2 * PAGE_BYTES, 500 * PAGE_BYTES, LENGTHS (2 * PAGE_BYTES), true);
  /* The very end. */
  client_write (nbd, "x", 1, 1024 * MIB - 1);
  expect_extents (nbd, 2 * PAGE_BYTES, 1024 * MIB - 2 * PAGE_BYTES,
                  LENGTHS (PAGE_BYTES, PAGE_BYTES), true);
  stop (&srv, nbd);
}

/* With REQ_ONE the answer is one extent, that does not go beyond what was asked. */
Test (geometry, one_extent)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=4M", NULL);
  struct extents e = { 0 };
  nbd_extent_callback callback = { .callback = on_extents, .user_data = &e };

  client_write_page (nbd, 1, 1, 1);
  cr_assert_eq (nbd_block_status (nbd, 4 * PAGE_BYTES, 0, callback, LIBNBD_CMD_FLAG_REQ_ONE), 0);
  cr_assert (e.n == 1 && e.extent[0].hole && e.extent[0].len == PAGE_BYTES);
  e = (struct extents){ 0 };
  cr_assert_eq (nbd_block_status (nbd, 100, PAGE_BYTES, callback, LIBNBD_CMD_FLAG_REQ_ONE), 0);
  cr_assert (e.n == 1 && !e.extent[0].hole && e.extent[0].len == 100);
  stop (&srv, nbd);
}

/* The longest range that a client can ask for gets its answer: nbdkit 1.32 aborts on an extent of 4 GiB, which this range
 * is in whole pages. */
Test (geometry, longest_extent)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=4M", "size=8G");
  struct extents e = { 0 };
  nbd_extent_callback callback = { .callback = on_extents, .user_data = &e };

  cr_assert_eq (nbd_block_status (nbd, UINT32_MAX, 0, callback, 0), 0, "%s", nbd_get_error ());
  cr_assert (e.n == 1 && e.extent[0].hole && e.extent[0].len == UINT32_MAX);
  stop (&srv, nbd);
}

static int
count_export (void *data, const char *name, const char *description)
{
  unsigned *n = data;

  (void) description;
  cr_assert_str_eq (name, "");
  ++*n;
  return 0;
}

/* There is one export, and its name is empty. */
Test (geometry, exports_are_listed)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", NULL), *lister = nbd_create ();
  unsigned n = 0;

  nbd_set_opt_mode (lister, true);
  cr_assert_eq (nbd_connect_unix (lister, srv.socket), 0);
  cr_assert_eq (
    nbd_opt_list (lister, (nbd_list_callback){ .callback = count_export, .user_data = &n }), 1);
  cr_assert_eq (n, 1);
  nbd_opt_abort (lister);
  nbd_close (lister);
  stop (&srv, nbd);
}

/* The export says in words what it is. */
Test (geometry, export_has_a_description)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", NULL), *asker = nbd_create ();
  char *description;

  nbd_set_full_info (asker, true);
  cr_assert_eq (nbd_connect_unix (asker, srv.socket), 0);
  description = nbd_get_export_description (asker);
  cr_assert (description && description[0], "%s", nbd_get_error ());
  client_close (asker);
  stop (&srv, nbd);
}

/* A name that does not exist is refused, and the server goes on. */
Test (geometry, unknown_export_is_refused)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", NULL), *other = nbd_create ();

  nbd_set_export_name (other, "nosuch");
  cr_assert_eq (nbd_connect_unix (other, srv.socket), -1);
  nbd_close (other);
  client_write_page (nbd, 1, 1, 1);
  client_expect_page (nbd, 1, 1, 1);
  stop (&srv, nbd);
}

/* cache and flush are taken, of written and unwritten ranges at any alignment. */
Test (geometry, cache_and_flush)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=4M", NULL);

  client_write_page (nbd, 1, 1, 10);
  cr_assert_eq (nbd_cache (nbd, 100 * PAGE_BYTES, 0, 0), 0, "%s", nbd_get_error ());
  cr_assert_eq (nbd_cache (nbd, 1, 10 * PAGE_BYTES + 4095, 0), 0, "%s", nbd_get_error ());
  cr_assert_eq (nbd_flush (nbd, 0), 0, "%s", nbd_get_error ());
  client_expect_page (nbd, 1, 1, 10);
  stop (&srv, nbd);
}

/* A fast zero either is fast or says ENOTSUP and changes nothing. Whole pages need no reading, so they are fast. */
Test (geometry, fast_zero)
{
  const uint32_t fast = LIBNBD_CMD_FLAG_FAST_ZERO;
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=4M", NULL);
  char page[PAGE_BYTES];

  client_write_page (nbd, 1, 1, 10);
  client_write_page (nbd, 1, 1, 11);
  client_zero (nbd, PAGE_BYTES, 10 * PAGE_BYTES, fast);
  client_expect_page (nbd, 0, 0, 10);
  client_zero (nbd, 3 * PAGE_BYTES, 100 * PAGE_BYTES + 5, fast); /* nothing there to read */
  if (nbd_zero (nbd, 100, 11 * PAGE_BYTES + 50, fast) == -1) {
    cr_assert_eq (nbd_get_errno (), ENOTSUP, "%s", nbd_get_error ());
    client_expect_page (nbd, 1, 1, 11);
  } else {
    client_read (nbd, page, sizeof page, 11 * PAGE_BYTES);
    cr_assert_eq (page[50], 0);
  }
  stop (&srv, nbd);
}

/* nbdkit -r: reads work, and nothing else is offered or taken. */
Test (geometry, read_only)
{
  struct server srv;
  struct nbd_handle *nbd;
  char page[PAGE_BYTES] = "x";

  server_start (&srv, &(struct server_options){ .options = PARAMS ("-r"),
                                                .params = PARAMS (dev_path ("a,size=1M")) });
  nbd = client_open (&srv);
  cr_assert_eq (nbd_is_read_only (nbd), 1);
  client_expect_page (nbd, 0, 0, 3);
  nbd_set_strict_mode (nbd, 0);
  cr_assert_eq (nbd_pwrite (nbd, page, sizeof page, 0, 0), -1);
  cr_assert_eq (nbd_get_errno (), EPERM, "%s", nbd_get_error ());
  client_expect_page (nbd, 0, 0, 0);
  stop (&srv, nbd);
}

/* Requests beyond the end are refused, and the last byte is there. */
Test (geometry, the_end)
{
  struct server srv;
  struct nbd_handle *nbd = start (&srv, "a,size=1M", "size=980K");
  uint64_t size = nbd_get_size (nbd);
  char c = 'x';

  client_write (nbd, &c, 1, size - 1);
  c = 0;
  client_read (nbd, &c, 1, size - 1);
  cr_assert_eq (c, 'x');
  nbd_set_strict_mode (nbd, 0);
  cr_assert_eq (nbd_pread (nbd, &c, 1, size, 0), -1);
  stop (&srv, nbd);
}
