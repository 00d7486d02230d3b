/* SPDX-License-Identifier: BSD-3-Clause
 *
 * client.c - libnbd clients.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include <criterion/criterion.h>

#include "tests/stamp.h"

#include "client.h"
#include "dev.h"

struct nbd_handle *
client_open (const struct server *srv)
{
  return client_open_as (srv, "");
}

struct nbd_handle *
client_try_open (const struct server *srv, const char *export)
{
  struct nbd_handle *nbd = nbd_create ();

  if (nbd && nbd_set_export_name (nbd, export) == 0 &&
      nbd_add_meta_context (nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0 &&
      nbd_connect_unix (nbd, srv->socket) == 0)
    return nbd;
  nbd_close (nbd);
  return NULL;
}

struct nbd_handle *
client_open_as (const struct server *srv, const char *export)
{
  struct nbd_handle *nbd = client_try_open (srv, export);

  cr_assert_not_null (nbd, "\"%s\": %s; nbdkit says:\n%s", export, nbd_get_error (),
                      server_stderr (srv));
  return nbd;
}

void
client_close (struct nbd_handle *nbd)
{
  cr_assert_eq (nbd_shutdown (nbd, 0), 0, "%s", nbd_get_error ());
  nbd_close (nbd);
}

void
client_read (struct nbd_handle *nbd, void *buf, size_t len, uint64_t offset)
{
  cr_assert_eq (nbd_pread (nbd, buf, len, offset, 0), 0, "read %zu at %" PRIu64 ": %s", len, offset,
                nbd_get_error ());
}

void
client_write (struct nbd_handle *nbd, const void *buf, size_t len, uint64_t offset)
{
  cr_assert_eq (nbd_pwrite (nbd, buf, len, offset, 0), 0, "write %zu at %" PRIu64 ": %s", len,
                offset, nbd_get_error ());
}

void
client_trim (struct nbd_handle *nbd, uint64_t len, uint64_t offset)
{
  cr_assert_eq (nbd_trim (nbd, len, offset, 0), 0, "trim %" PRIu64 " at %" PRIu64 ": %s", len,
                offset, nbd_get_error ());
}

void
client_zero (struct nbd_handle *nbd, uint64_t len, uint64_t offset, uint32_t flags)
{
  cr_assert_eq (nbd_zero (nbd, len, offset, flags), 0, "zero %" PRIu64 " at %" PRIu64 ": %s", len,
                offset, nbd_get_error ());
}

int
client_try_write_page (struct nbd_handle *nbd, uint32_t writer, uint32_t sequence, uint64_t page)
{
  char buf[PAGE_BYTES];

  stamp_fill (buf, (struct stamp){ writer, sequence, page });
  return nbd_pwrite (nbd, buf, sizeof buf, page * PAGE_BYTES, 0) == 0 ? 0 : nbd_get_errno ();
}

void
client_write_page (struct nbd_handle *nbd, uint32_t writer, uint32_t sequence, uint64_t page)
{
  int error = client_try_write_page (nbd, writer, sequence, page);

  cr_assert_eq (error, 0, "write of page %" PRIu64 ": errno %d", page, error);
}

void
client_expect_page (struct nbd_handle *nbd, uint32_t writer, uint32_t sequence, uint64_t page)
{
  char buf[PAGE_BYTES];
  struct stamp stamp;

  client_read (nbd, buf, sizeof buf, page * PAGE_BYTES);
  cr_assert (stamp_read (buf, &stamp), "page %" PRIu64 " is a mixture", page);
  cr_assert (stamp.writer == writer && stamp.sequence == sequence &&
               stamp.page == (writer ? page : 0),
             "page %" PRIu64 " holds writer %u, sequence %u, page %" PRIu64
             "; expected writer %u, sequence %u",
             page, stamp.writer, stamp.sequence, stamp.page, writer, sequence);
}

void
worker_fail (struct worker *w, const char *fmt, ...)
{
  va_list args;

  if (w->failure[0])
    return;
  va_start (args, fmt);
  vsnprintf (w->failure, sizeof w->failure, fmt, args);
  va_end (args);
}

static void *
worker_thread (void *arg)
{
  struct worker *w = arg;

  w->main (w);
  return NULL;
}

void
workers_start (const struct server *srv, struct worker *workers, unsigned n)
{
  for (unsigned i = 0; i < n; i++) {
    workers[i].index = i;
    workers[i].rng = rng_for (i);
    workers[i].failure[0] = 0;
    workers[i].nbd = client_open_as (srv, workers[i].export ? workers[i].export : "");
  }
  for (unsigned i = 0; i < n; i++)
    cr_assert_eq (pthread_create (&workers[i].thread, NULL, worker_thread, &workers[i]), 0);
}

static void
wait_for_all (struct worker *workers, unsigned n)
{
  for (unsigned i = 0; i < n; i++)
    pthread_join (workers[i].thread, NULL);
  for (unsigned i = 0; i < n; i++)
    cr_assert_eq (workers[i].failure[0], 0, "worker %u: %s (DRUM_TEST_SEED=%" PRIu64 ")", i,
                  workers[i].failure, random_seed ());
}

void
workers_join (struct worker *workers, unsigned n)
{
  wait_for_all (workers, n);
  for (unsigned i = 0; i < n; i++)
    client_close (workers[i].nbd);
}

void
workers_join_killed (struct worker *workers, unsigned n)
{
  wait_for_all (workers, n);
  for (unsigned i = 0; i < n; i++)
    nbd_close (workers[i].nbd);
}

void
workers_run (const struct server *srv, struct worker *workers, unsigned n)
{
  workers_start (srv, workers, n);
  workers_join (workers, n);
}
