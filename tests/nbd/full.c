/* SPDX-License-Identifier: BSD-3-Clause
 *
 * full.c - what a drum does when all its slots are taken, under an export larger than it.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "tests/stamp.h"

#include "client.h"
#include "dev.h"

/* 514 + 258 + 258 pages, of which 2 each are labels, leave 1024 slots; one in 64 of them is kept back. */
enum { NUSABLE = 1024, NKEPT = 16, NDATA = NUSABLE - NKEPT, NCLIENTS = 4 };

TestSuite (full, .init = dev_setup, .fini = dev_teardown, .timeout = 600);

static void
require_drum (void)
{
  if (!server_is_drum ())
    cr_skip_test ("only the drum can be full");
}

static struct nbd_handle *
start_thin (struct server *srv, unsigned threads)
{
  require_drum ();
  server_start (srv,
                &(struct server_options){
                  .threads = threads,
                  .params = PARAMS (dev_path ("a,prio=1,size=2056K"), dev_path ("b,size=1032K"),
                                    dev_path ("c,size=1032K"), "size=16M") });
  return client_open (srv);
}

/* Pages 0 to NDATA - 1, written one by one as sequence 1. */
static void
fill_up (struct nbd_handle *nbd)
{
  for (unsigned page = 0; page < NDATA; page++)
    client_write_page (nbd, 1, 1, page);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, NDATA), ENOSPC);
}

/* Every slot that is not kept back takes a page; the next write fails with ENOSPC, and nothing that was there is
 * harmed. */
Test (full, enospc_and_everything_reads_back)
{
  struct server srv;
  struct nbd_handle *nbd = start_thin (&srv, 1);

  fill_up (nbd);
  for (unsigned page = 0; page < NDATA; page++)
    client_expect_page (nbd, 1, 1, page);
  /* What failed is as it was, zeroes, and fails again. */
  client_expect_page (nbd, 0, 0, NDATA);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 4000), ENOSPC);
  client_close (nbd);
  server_stop (&srv);
}

/* A request larger than what is left fails with ENOSPC; each of its pages is then either the old or the new one, and
 * the slots it took on its way are not lost. */
Test (full, write_larger_than_what_is_left)
{
  enum { FIRST = 900, N = 256 };
  struct server srv;
  struct nbd_handle *nbd = start_thin (&srv, 1);
  char *buf = malloc (N * PAGE_BYTES);
  unsigned nused = FIRST;

  for (unsigned page = 0; page < FIRST; page++)
    client_write_page (nbd, 1, 1, page);
  for (unsigned i = 0; i < N; i++)
    stamp_fill (buf + i * PAGE_BYTES, (struct stamp){ 1, 2, FIRST + i });
  cr_assert_eq (nbd_pwrite (nbd, buf, N * PAGE_BYTES, FIRST * PAGE_BYTES, 0), -1);
  cr_assert_eq (nbd_get_errno (), ENOSPC, "%s", nbd_get_error ());
  client_read (nbd, buf, N * PAGE_BYTES, FIRST * PAGE_BYTES);
  for (unsigned i = 0; i < N; i++) {
    struct stamp stamp;

    cr_assert (stamp_read (buf + i * PAGE_BYTES, &stamp));
    if (stamp_is_zero (&stamp))
      continue;
    cr_assert (stamp.page == FIRST + i && stamp.sequence == 2);
    nused++;
  }
  for (unsigned page = 2000; nused < NDATA; page++, nused++)
    client_write_page (nbd, 1, 3, page);
  cr_assert_eq (client_try_write_page (nbd, 1, 3, 3999), ENOSPC);
  client_close (nbd);
  server_stop (&srv);
}

/* A full drum can be rewritten, page by page, in part and as a whole, with no request failing. */
Test (full, every_page_can_be_rewritten)
{
  struct server srv;
  struct nbd_handle *nbd = start_thin (&srv, 1);
  char *buf = malloc (NDATA * PAGE_BYTES);
  struct stamp stamp;

  fill_up (nbd);
  for (unsigned page = 0; page < NDATA; page++)
    client_write_page (nbd, 1, 2, page);
  for (unsigned page = 0; page < NDATA; page++)
    client_expect_page (nbd, 1, 2, page);
  /* More than is kept back, at once. */
  for (unsigned page = 0; page < NDATA; page++)
    stamp_fill (buf + page * PAGE_BYTES, (struct stamp){ 1, 3, page });
  client_write (nbd, buf, NDATA * PAGE_BYTES, 0);
  /* Parts of two pages. */
  client_write (nbd, buf + 7, PAGE_BYTES, 7);
  client_read (nbd, buf, NDATA * PAGE_BYTES, 0);
  for (unsigned page = 0; page < NDATA; page++)
    cr_assert (stamp_read (buf + page * PAGE_BYTES, &stamp) && stamp.sequence == 3 &&
                 stamp.page == page,
               "page %u", page);
  cr_assert_eq (client_try_write_page (nbd, 1, 3, NDATA), ENOSPC);
  client_close (nbd);
  server_stop (&srv);
}

struct rewriting {
  unsigned nsteps;
  uint32_t sequences[NDATA]; /* each written by the owner of its page */
};

/* Pages of this connection are those of its quarter. */
static void
rewrite_worker (struct worker *w)
{
  enum { QUARTER = NDATA / NCLIENTS, MAX_RUN = 64 };
  struct rewriting *rewriting = w->context;
  unsigned char *buf = malloc (MAX_RUN * PAGE_BYTES);

  for (unsigned step = 0; step < rewriting->nsteps && !worker_failed (w); step++) {
    unsigned n = 1 + rng_below (&w->rng, rng_below (&w->rng, 3) ? 4 : MAX_RUN);
    unsigned first = w->index * QUARTER + rng_below (&w->rng, QUARTER - n + 1);

    for (unsigned i = 0; i < n; i++)
      stamp_fill (buf + i * PAGE_BYTES, (struct stamp){ w->index + 1, step + 2, first + i });
    if (nbd_pwrite (w->nbd, buf, n * PAGE_BYTES, first * PAGE_BYTES, 0) == -1)
      worker_fail (w, "rewrite of %u pages at %u: %s", n, first, nbd_get_error ());
    for (unsigned i = 0; i < n; i++)
      rewriting->sequences[first + i] = step + 2;
  }
  free (buf);
}

static void
rewrite_full (unsigned threads)
{
  static struct rewriting rewriting;
  struct server srv;
  struct worker workers[NCLIENTS] = { 0 };
  struct nbd_handle *nbd = start_thin (&srv, threads);

  fill_up (nbd);
  rewriting.nsteps = random_steps (1500);
  for (unsigned i = 0; i < NCLIENTS; i++) {
    workers[i].main = rewrite_worker;
    workers[i].context = &rewriting;
  }
  workers_run (&srv, workers, NCLIENTS);
  for (unsigned page = 0; page < NDATA; page++)
    if (rewriting.sequences[page])
      client_expect_page (nbd, page / (NDATA / NCLIENTS) + 1, rewriting.sequences[page], page);
    else
      client_expect_page (nbd, 1, 1, page);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, NDATA), ENOSPC);
  client_close (nbd);
  server_stop (&srv);
}

/* From several connections at once, too: each rewrite returns what it takes, so they wait for each other and none
 * fails. */
Test (full, rewritten_by_several_connections)
{
  rewrite_full (1);
}

Test (full, rewritten_by_several_connections_with_threads)
{
  rewrite_full (16);
}

static void
append_worker (struct worker *w)
{
  enum { SHARE = 1024 }; /* pages of the export for each */
  unsigned *nwritten = w->context;

  for (unsigned i = 0; i < SHARE && !worker_failed (w); i++) {
    int error = client_try_write_page (w->nbd, w->index + 1, 1, w->index * SHARE + i);

    if (error == ENOSPC)
      break;
    if (error)
      worker_fail (w, "page %u: errno %d", i, error);
    else
      nwritten[w->index]++;
  }
}

/* Filled by several connections at once it takes as many pages as from one, and all of them read back. */
Test (full, filled_by_several_connections)
{
  struct server srv;
  struct nbd_handle *nbd = start_thin (&srv, 16);
  struct worker workers[NCLIENTS] = { 0 };
  unsigned nwritten[NCLIENTS] = { 0 }, sum = 0;

  for (unsigned i = 0; i < NCLIENTS; i++) {
    workers[i].main = append_worker;
    workers[i].context = nwritten;
  }
  workers_run (&srv, workers, NCLIENTS);
  for (unsigned i = 0; i < NCLIENTS; i++) {
    sum += nwritten[i];
    for (unsigned page = 0; page < nwritten[i]; page++)
      client_expect_page (nbd, i + 1, 1, i * 1024 + page);
    client_expect_page (nbd, 0, 0, i * 1024 + nwritten[i]);
  }
  cr_assert_eq (sum, NDATA, "%u pages were taken, %u fit", sum, NDATA);
  client_close (nbd);
  server_stop (&srv);
}

/* Each page trimmed or zeroed makes room for exactly one other. */
Test (full, trim_makes_room)
{
  struct server srv;
  struct nbd_handle *nbd = start_thin (&srv, 1);

  fill_up (nbd);
  client_trim (nbd, 10 * PAGE_BYTES, 100 * PAGE_BYTES);
  client_zero (nbd, 10 * PAGE_BYTES, 300 * PAGE_BYTES, 0);
  for (unsigned i = 0; i < 20; i++)
    client_write_page (nbd, 2, 1, 2000 + i);
  cr_assert_eq (client_try_write_page (nbd, 2, 1, 2020), ENOSPC);
  for (unsigned page = 0; page < NDATA; page++)
    if ((page >= 100 && page < 110) || (page >= 300 && page < 310))
      client_expect_page (nbd, 0, 0, page);
    else
      client_expect_page (nbd, 1, 1, page);
  for (unsigned i = 0; i < 20; i++)
    client_expect_page (nbd, 2, 1, 2000 + i);
  client_close (nbd);
  server_stop (&srv);
}

/* Pages of zeroes need no room: where nothing was they change nothing, and where data was they free it. */
Test (full, zeroes_need_no_room)
{
  struct server srv;
  struct nbd_handle *nbd = start_thin (&srv, 1);
  char *zeroes = calloc (64, PAGE_BYTES);

  fill_up (nbd);
  client_write (nbd, zeroes, 64 * PAGE_BYTES, 2000 * PAGE_BYTES);
  client_write (nbd, zeroes, 100, 3000 * PAGE_BYTES + 50);
  client_zero (nbd, 64 * PAGE_BYTES, 2500 * PAGE_BYTES, LIBNBD_CMD_FLAG_NO_HOLE);
  client_trim (nbd, 64 * PAGE_BYTES, 2500 * PAGE_BYTES);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 2000), ENOSPC);
  client_write (nbd, zeroes, 3 * PAGE_BYTES, 5 * PAGE_BYTES);
  for (unsigned i = 0; i < 3; i++)
    client_write_page (nbd, 2, 1, 2000 + i);
  cr_assert_eq (client_try_write_page (nbd, 1, 1, 2003), ENOSPC);
  client_close (nbd);
  server_stop (&srv);
}

/* An export of the default size fits whatever is written to it, in any order. */
Test (full, the_default_size_never_runs_out)
{
  struct server srv;
  struct nbd_handle *nbd;

  require_drum ();
  server_start (&srv, &(struct server_options){ .params = PARAMS (dev_path ("a,size=2056K"),
                                                                  dev_path ("b,size=1032K"),
                                                                  dev_path ("c,size=1032K")) });
  nbd = client_open (&srv);
  cr_assert_eq (nbd_get_size (nbd), NDATA * PAGE_BYTES);
  for (unsigned sequence = 1; sequence <= 2; sequence++)
    for (unsigned i = 0; i < NDATA; i++)
      client_write_page (nbd, 1, sequence, (uint64_t) i * 599 % NDATA);
  for (unsigned page = 0; page < NDATA; page++)
    client_expect_page (nbd, 1, 2, page);
  client_close (nbd);
  server_stop (&srv);
}
