/* SPDX-License-Identifier: BSD-3-Clause
 *
 * overlap.c - readers, writers and trimmers of the same pages at once.
 *
 * Every page written says who wrote it, when and where to, all over. A page read must be one stamp, for its own page,
 * and not older than what the same writer had been told was written before the read began; or zeroes, where somebody
 * trims. So mixtures of two versions, bytes of another page and lost writes all show.
 * The drum has few slots more than the export has pages: freed slots are taken again at once.
 */
#include <config.h>

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>

#include <criterion/criterion.h>

#include "tests/stamp.h"

#include "client.h"
#include "dev.h"

enum { NPAGES = 64, MAX_RUN = 24, NWRITERS = 4, NREADERS = 3, NTRIMMERS = 1 };
enum { NWORKERS = NWRITERS + NREADERS + NTRIMMERS };

TestSuite (overlap, .init = dev_setup, .fini = dev_teardown, .timeout = 600);

struct board {
  unsigned nsteps;
  bool trims;
  /* The last sequence of each writer to each page that was sent, and that was acknowledged. */
  _Atomic uint32_t sent[NWRITERS + 1][NPAGES];
  _Atomic uint32_t acked[NWRITERS + 1][NPAGES];
  _Atomic bool written[NPAGES]; /* by anybody, ever */
  _Atomic unsigned nwriting;    /* writers that are not yet done */
};

struct run {
  unsigned first, end;
};

static struct run
choose_run (struct worker *w)
{
  unsigned first = rng_below (&w->rng, NPAGES);
  unsigned n = 1 + rng_below (&w->rng, rng_below (&w->rng, 2) ? 2 : MAX_RUN);

  return (struct run){ first, first + n > NPAGES ? NPAGES : first + n };
}

static void
write_some (struct worker *w, struct board *board, uint32_t sequence, unsigned char *buf)
{
  struct run run = choose_run (w);
  uint32_t writer = w->index + 1;

  for (unsigned page = run.first; page < run.end; page++) {
    stamp_fill (buf + (page - run.first) * PAGE_BYTES, (struct stamp){ writer, sequence, page });
    board->sent[writer][page] = sequence;
  }
  if (nbd_pwrite (w->nbd, buf, (run.end - run.first) * PAGE_BYTES, run.first * PAGE_BYTES, 0) == -1)
    worker_fail (w, "write of pages %u to %u: %s", run.first, run.end, nbd_get_error ());
  for (unsigned page = run.first; page < run.end; page++) {
    board->acked[writer][page] = sequence;
    board->written[page] = true;
  }
}

static void
check_page (struct worker *w, struct board *board, const void *buf, unsigned page,
            const uint32_t *acked_before, bool written_before)
{
  struct stamp stamp;

  if (!stamp_read (buf, &stamp))
    worker_fail (w, "page %u is a mixture; it begins with writer %u, sequence %u, page %" PRIu64,
                 page, stamp.writer, stamp.sequence, stamp.page);
  else if (stamp_is_zero (&stamp)) {
    if (written_before && !board->trims)
      worker_fail (w, "page %u is zeroes, and nobody trims", page);
  } else if (stamp.page != page || stamp.writer > NWRITERS || stamp.writer == 0)
    worker_fail (w, "page %u holds page %" PRIu64 " of writer %u, sequence %u", page, stamp.page,
                 stamp.writer, stamp.sequence);
  else if (stamp.sequence > board->sent[stamp.writer][page])
    worker_fail (w, "page %u holds sequence %u of writer %u, who never sent it", page,
                 stamp.sequence, stamp.writer);
  else if (stamp.sequence < acked_before[stamp.writer])
    worker_fail (w, "page %u holds sequence %u of writer %u, whose %u was acknowledged before",
                 page, stamp.sequence, stamp.writer, acked_before[stamp.writer]);
}

static void
read_some (struct worker *w, struct board *board, unsigned char *buf)
{
  struct run run = choose_run (w);
  uint32_t acked[MAX_RUN][NWRITERS + 1];
  bool written[MAX_RUN];

  for (unsigned page = run.first; page < run.end; page++) {
    for (unsigned writer = 1; writer <= NWRITERS; writer++)
      acked[page - run.first][writer] = board->acked[writer][page];
    written[page - run.first] = board->written[page];
  }
  if (nbd_pread (w->nbd, buf, (run.end - run.first) * PAGE_BYTES, run.first * PAGE_BYTES, 0) == -1)
    worker_fail (w, "read of pages %u to %u: %s", run.first, run.end, nbd_get_error ());
  for (unsigned page = run.first; page < run.end && !worker_failed (w); page++)
    check_page (w, board, buf + (page - run.first) * PAGE_BYTES, page, acked[page - run.first],
                written[page - run.first]);
}

static void
trim_some (struct worker *w)
{
  struct run run = choose_run (w);
  uint64_t len = (run.end - run.first) * PAGE_BYTES, offset = run.first * PAGE_BYTES;
  int r =
    rng_below (&w->rng, 2) ? nbd_trim (w->nbd, len, offset, 0) : nbd_zero (w->nbd, len, offset, 0);

  if (r == -1)
    worker_fail (w, "trim of pages %u to %u: %s", run.first, run.end, nbd_get_error ());
}

static void
writer_worker (struct worker *w)
{
  struct board *board = w->context;
  unsigned char *buf = malloc (MAX_RUN * PAGE_BYTES);

  for (uint32_t sequence = 1; sequence <= board->nsteps && !worker_failed (w); sequence++)
    write_some (w, board, sequence, buf);
  board->nwriting--;
  free (buf);
}

static void
reader_worker (struct worker *w)
{
  struct board *board = w->context;
  unsigned char *buf = malloc (MAX_RUN * PAGE_BYTES);

  while (board->nwriting > 0 && !worker_failed (w))
    read_some (w, board, buf);
  free (buf);
}

static void
trimmer_worker (struct worker *w)
{
  struct board *board = w->context;

  while (board->trims && board->nwriting > 0 && !worker_failed (w))
    trim_some (w);
}

static void
overlap_run (unsigned threads, bool trims, unsigned nsteps)
{
  static struct board board;
  struct server srv;
  struct worker workers[NWORKERS] = { 0 };

  board.nsteps = random_steps (nsteps);
  board.trims = trims;
  board.nwriting = NWRITERS;
  for (unsigned i = 0; i < NWORKERS; i++) {
    workers[i].main = i < NWRITERS              ? writer_worker
                      : i < NWRITERS + NREADERS ? reader_worker
                                                : trimmer_worker;
    workers[i].context = &board;
  }
  /* 3 * 22 usable slots, one of them kept back. */
  server_start (&srv, &(struct server_options){
                        .threads = threads,
                        .params = PARAMS (dev_path ("a,size=96K"), dev_path ("b,size=96K"),
                                          dev_path ("c,size=96K"), "size=256K"),
                        .memory_bytes = NPAGES * PAGE_BYTES });
  workers_run (&srv, workers, NWORKERS);
  server_stop (&srv);
}

/* Without trims a page that has been written is never zeroes again. */
Test (overlap, readers_and_writers)
{
  overlap_run (16, false, 3000);
}

/* With trims and zeroes between them. */
Test (overlap, readers_writers_and_trimmers)
{
  overlap_run (16, true, 3000);
}

/* With one thread a connection, as a kernel client has them. */
Test (overlap, one_thread_each)
{
  overlap_run (1, true, 3000);
}
