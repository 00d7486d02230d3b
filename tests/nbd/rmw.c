/* SPDX-License-Identifier: BSD-3-Clause
 *
 * rmw.c - lost read-modify-write: connections that write different pieces of the same pages at once.
 *
 * A page is cut into cells; cell i belongs to connection i % NCLIENTS. Each connection writes, zeroes and reads back
 * its own cells only, so that any change of them by somebody else's request is an error, at once or in the end.
 */
#include <config.h>

#include <inttypes.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "client.h"
#include "dev.h"

enum { NCLIENTS = 4, NPAGES = 12, NBYTES = NPAGES * PAGE_BYTES };

TestSuite (rmw, .init = dev_setup, .fini = dev_teardown, .timeout = 600);

struct cells {
  unsigned cell_bytes;
  unsigned nsteps;
  unsigned char expected[NBYTES]; /* each cell is its owner's */
};

static void
check_cell (struct worker *w, const struct cells *cells, const unsigned char *seen, unsigned at,
            unsigned len)
{
  if (memcmp (seen, cells->expected + at, len) != 0)
    worker_fail (w, "cell of %u bytes at byte %u of the export is not what was written", len, at);
}

static void
rmw_worker (struct worker *w)
{
  struct cells *cells = w->context;
  unsigned ncells = NBYTES / cells->cell_bytes;
  unsigned char *buf = malloc (cells->cell_bytes);

  for (unsigned step = 0; step < cells->nsteps && !worker_failed (w); step++) {
    unsigned cell = rng_below (&w->rng, ncells / NCLIENTS) * NCLIENTS + w->index;
    unsigned at = cell * cells->cell_bytes;
    int r;

    switch (rng_below (&w->rng, 8)) {
    case 0:
      memset (cells->expected + at, 0, cells->cell_bytes);
      r = nbd_zero (w->nbd, cells->cell_bytes, at, 0);
      break;
    case 1:
    case 2:
      r = nbd_pread (w->nbd, buf, cells->cell_bytes, at, 0);
      if (r == 0)
        check_cell (w, cells, buf, at, cells->cell_bytes);
      break;
    default:
      rng_fill (&w->rng, cells->expected + at, cells->cell_bytes);
      r = nbd_pwrite (w->nbd, cells->expected + at, cells->cell_bytes, at, 0);
      break;
    }
    if (r == -1)
      worker_fail (w, "cell %u: %s", cell, nbd_get_error ());
  }
  free (buf);
}

static void
rmw_run (unsigned threads, unsigned cell_bytes, unsigned nsteps)
{
  struct server srv;
  static struct cells cells;
  static unsigned char seen[NBYTES];
  struct worker workers[NCLIENTS] = { 0 };
  struct nbd_handle *nbd;

  cells.cell_bytes = cell_bytes;
  cells.nsteps = random_steps (nsteps);
  for (unsigned i = 0; i < NCLIENTS; i++) {
    workers[i].main = rmw_worker;
    workers[i].context = &cells;
  }
  server_start (&srv, &(struct server_options){
                        .threads = threads,
                        .params = PARAMS (dev_path ("a,size=56K"), dev_path ("b,size=56K")),
                        .memory_bytes = NBYTES });
  workers_run (&srv, workers, NCLIENTS);
  nbd = client_open (&srv);
  client_read (nbd, seen, NBYTES, 0);
  for (unsigned at = 0; at < NBYTES; at++)
    cr_assert_eq (seen[at], cells.expected[at],
                  "byte %u, of connection %u, is %#x, not %#x (DRUM_TEST_SEED=%" PRIu64 ")", at,
                  at / cell_bytes % NCLIENTS, seen[at], cells.expected[at], random_seed ());
  client_close (nbd);
  server_stop (&srv);
}

/* Sectors of the same pages, one thread a connection, as a kernel client has them. */
Test (rmw, sectors_one_thread_each)
{
  rmw_run (1, 512, 20000);
}

/* The same with nbdkit's threads. */
Test (rmw, sectors_many_threads)
{
  rmw_run (16, 512, 20000);
}

/* Pieces of 7 bytes, which also lie across the borders of pages: two pages are read and written for one request. */
Test (rmw, odd_bytes)
{
  rmw_run (16, 7, 20000);
}
