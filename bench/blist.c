/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blist.c - how long do the calls of lib/blist.c take?
 *
 * Every figure is a trace of calls, recorded once from fixed random numbers and then replayed on a restored copy of
 * the same blist, so that neither the random numbers nor the book-keeping are in the time. A round is one replay; a
 * figure is the median round. The slowest call is that whose fastest round was the slowest, so that interrupts do
 * not count.
 */
#include <config.h>

#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "bench/measure.h"
#include "blist.h"

#define CPU   CLOCK_PROCESS_CPUTIME_ID /* what other processes take does not count */
#define ALLOC UINT32_MAX               /* in place of the first slot of a free */

enum { NROUNDS_MAX = 15, NCALLS_MAX = 1 << 20, HUGE_BYTES = 2 << 20 };

/* An aged blist is one in which every slot has been allocated that often, on average. */
enum { AGE = 4 };

/* blist_alloc of exactly n slots, or blist_free of n slots from first on. */
struct call {
  uint32_t first;
  uint32_t n;
};

struct bench {
  const char *name; /* "1M" */
  uint32_t nslots;
  unsigned nrounds;
  struct blist *bl;
  void *copy; /* of the blist when the trace began */
  struct call *calls;
  size_t ncalls;
  struct slot_run *extents; /* what the trace has allocated */
  size_t nextents;
};

static void *
new_memory (size_t bytes)
{
  void *mem = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

  if (mem == MAP_FAILED)
    err (EXIT_FAILURE, "mmap of %zu bytes", bytes);
  return mem;
}

static void
print (const struct bench *b, const char *what, double value, const char *unit)
{
  printf ("blist_%s_%s_%s %.6g %s\n", b->name, what, unit, value, unit);
  fflush (stdout);
}

/* ---- traces ---- */

/* Begin again: all slots used, nothing allocated. */
static void
begin (struct bench *b)
{
  if (b->bl)
    munmap (b->bl, blist_bytes (b->nslots));
  b->bl = blist_create (new_memory (blist_bytes (b->nslots)), b->nslots);
  b->nextents = 0;
  b->ncalls = 0;
  random_begin ();
}

/* The trace begins here. */
static void
save (struct bench *b)
{
  memcpy (b->copy, b->bl, blist_bytes (b->nslots));
  b->ncalls = 0;
}

static void
restore (struct bench *b)
{
  memcpy (b->bl, b->copy, blist_bytes (b->nslots));
}

static void
record (struct bench *b, uint32_t first, uint32_t n)
{
  if (b->ncalls < NCALLS_MAX)
    b->calls[b->ncalls++] = (struct call){ first, n };
}

static inline int
replay_call (struct bench *b, struct call call)
{
  struct slot_run run;

  if (call.first == ALLOC)
    return blist_alloc (b->bl, call.n, call.n, &run);
  return blist_free (b->bl, call.first, call.n);
}

/* The time of the trace divided by ndone, in ns. */
static double
replay (struct bench *b, size_t ndone)
{
  double ns[NROUNDS_MAX];

  for (unsigned i = 0; i < b->nrounds; i++) {
    uint64_t begin_ns;

    restore (b);
    begin_ns = clock_ns (CPU);
    for (size_t c = 0; c < b->ncalls; c++)
      replay_call (b, b->calls[c]);
    ns[i] = (double) (clock_ns (CPU) - begin_ns) / (double) ndone;
  }
  return median (ns, b->nrounds);
}

/* The time of the slowest call, in us. */
static double
replay_slowest (struct bench *b)
{
  uint32_t *fastest_ns = calloc (b->ncalls, sizeof *fastest_ns);
  uint32_t slowest_ns = 0;

  if (!fastest_ns)
    err (EXIT_FAILURE, "calloc");
  for (unsigned i = 0; i < b->nrounds; i++) {
    restore (b);
    for (size_t c = 0; c < b->ncalls; c++) {
      uint64_t begin_ns = clock_ns (CLOCK_MONOTONIC);
      uint32_t ns;

      replay_call (b, b->calls[c]);
      ns = (uint32_t) (clock_ns (CLOCK_MONOTONIC) - begin_ns);
      if (i == 0 || ns < fastest_ns[c])
        fastest_ns[c] = ns;
    }
  }
  for (size_t c = 0; c < b->ncalls; c++)
    slowest_ns = fastest_ns[c] > slowest_ns ? fastest_ns[c] : slowest_ns;
  free (fastest_ns);
  return slowest_ns / 1e3;
}

/* ---- figures ---- */

/* Alloc of one where every slot is used with the same probability. */
static void
bench_alloc_one (struct bench *b, unsigned used_percent)
{
  char what[40];

  begin (b);
  for (uint32_t slot = 0; slot < b->nslots; slot++)
    if (random_below (100) >= used_percent)
      blist_free (b->bl, slot, 1);
  save (b);
  for (uint32_t i = blist_nfree (b->bl) / 2; i > 0; i--)
    record (b, ALLOC, 1);
  snprintf (what, sizeof what, "alloc1_%upct", used_percent);
  print (b, what, replay (b, b->ncalls), "ns");
}

/* Free all slots, one by one, in random order. */
static void
bench_free_one (struct bench *b)
{
  uint32_t *order = malloc (b->nslots * sizeof *order);

  if (!order)
    err (EXIT_FAILURE, "malloc");
  begin (b);
  for (uint32_t i = 0; i < b->nslots; i++) {
    uint32_t j = random_below (i + 1);
    order[i] = order[j];
    order[j] = i;
  }
  save (b);
  for (uint32_t i = 0; i < b->nslots; i++)
    record (b, order[i], 1);
  print (b, "free1_random", replay (b, b->ncalls), "ns");
  free (order);
}

static void
add_extent (struct bench *b, struct slot_run run)
{
  b->extents[b->nextents++] = run;
}

/* Free one of the extents. */
static void
free_extent (struct bench *b)
{
  uint32_t i = random_below ((uint32_t) b->nextents);
  struct slot_run run = b->extents[i];

  b->extents[i] = b->extents[--b->nextents];
  record (b, run.first, run.n);
  if (blist_free (b->bl, run.first, run.n) < 0)
    errx (EXIT_FAILURE, "free of %" PRIu32 " slots at %" PRIu32, run.n, run.first);
}

/* Allocate n slots in as few pieces as halving finds. */
static void
alloc_extents (struct bench *b, uint32_t n)
{
  uint32_t piece = n;

  while (n > 0) {
    struct slot_run run;

    piece = piece < n ? piece : n;
    record (b, ALLOC, piece);
    if (blist_alloc (b->bl, piece, piece, &run) == 0) {
      add_extent (b, run);
      n -= piece;
    } else {
      if ((piece /= 2) == 0)
        errx (EXIT_FAILURE, "no slot found");
    }
  }
}

/* Free 32 and alloc 32 where the other free slots are fragments: half of the slots are extents of 32, of the other
 * half every fifth is free. */
static void
bench_free32_alloc32 (struct bench *b)
{
  begin (b);
  for (uint32_t slot = 0; slot + 64 <= b->nslots; slot += 64) {
    add_extent (b, (struct slot_run){ slot, 32 });
    for (uint32_t i = 32; i < 64; i++)
      if (random_below (5) == 0)
        blist_free (b->bl, slot + i, 1);
  }
  save (b);
  while (b->ncalls < NCALLS_MAX / 2) {
    free_extent (b);
    alloc_extents (b, 32);
  }
  print (b, "free32_alloc32_90pct", replay (b, b->ncalls / 2), "ns");
}

/* One request of the aged mix: n slots, and random extents freed until there is room for them. */
static void
request (struct bench *b, unsigned used_percent, uint32_t n)
{
  while (blist_nfree (b->bl) < b->nslots / 100 * (100 - used_percent) + n)
    free_extent (b);
  alloc_extents (b, n);
}

/* The aged mix: requests of n_min to n_max slots each. The time is that of a request, with the frees that make room
 * for it, the failures and the halving. */
static void
bench_aged (struct bench *b, const char *what, unsigned used_percent, uint32_t n_min,
            uint32_t n_max)
{
  uint32_t spread = n_max - n_min + 1;
  size_t nrequests = 0;
  char name[64];

  begin (b);
  blist_free (b->bl, 0, b->nslots);
  for (uint64_t aged = 0; aged < AGE * (uint64_t) b->nslots; aged += n_min + spread / 2)
    request (b, used_percent, n_min + random_below (spread));
  save (b);
  for (; b->ncalls < NCALLS_MAX - 1000; nrequests++)
    request (b, used_percent, n_min + random_below (spread));
  snprintf (name, sizeof name, "%s_%upct", what, used_percent);
  print (b, name, replay (b, nrequests), "ns");
  snprintf (name, sizeof name, "%s_%upct_request", what, used_percent);
  print (b, name, (double) b->ncalls / (double) nrequests, "calls");
  snprintf (name, sizeof name, "%s_%upct_slowest_call", what, used_percent);
  print (b, name, replay_slowest (b), "us");
}

/* Alloc of 32 where every other slot is free, again and again. */
static void
bench_fail_again (struct bench *b)
{
  begin (b);
  for (uint32_t slot = 0; slot < b->nslots; slot += 2)
    blist_free (b->bl, slot, 1);
  save (b);
  record (b, ALLOC, 32);
  print (b, "fail32_single_holes_first", replay_slowest (b), "us");
  while (b->ncalls < NCALLS_MAX)
    record (b, ALLOC, 32);
  print (b, "fail32_single_holes_repeated", replay (b, b->ncalls), "ns");
}

/* The first alloc of 1024 that fails where all free runs are of 65 to 1000 slots: runs that were freed so, or that
 * were cut out of one free run by fills (whose hints promise more). */
static void
bench_fail_first (struct bench *b, bool cut)
{
  uint32_t n, nwere_free;

  begin (b);
  if (cut)
    blist_free (b->bl, 0, b->nslots);
  for (uint32_t slot = 0; slot + 1001 <= b->nslots; slot += n + 1) {
    n = 65 + random_below (936);
    if (cut)
      blist_fill (b->bl, slot + n, 1, &nwere_free);
    else
      blist_free (b->bl, slot, n);
  }
  if (cut)
    blist_fill (b->bl, b->nslots - 1001, 1001, &nwere_free);
  save (b);
  record (b, ALLOC, BLIST_MIN_MAX);
  print (b, cut ? "fail1024_cut_runs_first" : "fail1024_freed_runs_first", replay_slowest (b),
         "us");
}

/* Make a blist in zeroed memory and free all of it at once, in us. */
static double
make_us (const struct bench *b, void *zeroed)
{
  uint64_t begin_ns = clock_ns (CPU);

  blist_free (blist_create (zeroed, b->nslots), 0, b->nslots);
  return (double) (clock_ns (CPU) - begin_ns) / 1e3;
}

/* In fresh memory, which the kernel has to zero, page by page or a huge page at once; and in memory that is there. */
static void
bench_make (struct bench *b)
{
  size_t bytes = blist_bytes (b->nslots), map_bytes = bytes + 2 * HUGE_BYTES;
  double fresh_us[NROUNDS_MAX], huge_us[NROUNDS_MAX], touched_us[NROUNDS_MAX];

  for (unsigned i = 0; i < b->nrounds; i++) {
    char *map = new_memory (map_bytes), *mem = map + (HUGE_BYTES - (uintptr_t) map % HUGE_BYTES);

    fresh_us[i] = make_us (b, mem);
    memset (mem, 0, bytes);
    touched_us[i] = make_us (b, mem);
    munmap (map, map_bytes);
    map = new_memory (map_bytes);
    mem = map + (HUGE_BYTES - (uintptr_t) map % HUGE_BYTES);
    madvise (mem, (bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES, MADV_HUGEPAGE);
    huge_us[i] = make_us (b, mem);
    munmap (map, map_bytes);
  }
  print (b, "create_free_all_fresh", median (fresh_us, b->nrounds), "us");
  print (b, "create_free_all_fresh_huge", median (huge_us, b->nrounds), "us");
  print (b, "create_free_all_touched", median (touched_us, b->nrounds), "us");
  print (b, "memory", (double) bytes * 8 / b->nslots, "bits_per_slot");
}

static void
bench_stats (struct bench *b)
{
  double us[NROUNDS_MAX];
  struct blist_stats stats;

  begin (b);
  for (uint32_t slot = 0; slot < b->nslots; slot++)
    if (random_below (100) >= 90)
      blist_free (b->bl, slot, 1);
  for (unsigned i = 0; i < b->nrounds; i++) {
    uint64_t begin_ns = clock_ns (CPU);

    blist_stats (b->bl, &stats);
    us[i] = (double) (clock_ns (CPU) - begin_ns) / 1e3;
  }
  print (b, "stats_90pct", median (us, b->nrounds), "us");
}

static void
bench_size (const char *name, uint32_t nslots, unsigned nrounds)
{
  static const unsigned used_percent[] = { 0, 50, 90, 99 };
  struct bench b = { .name = name, .nslots = nslots, .nrounds = nrounds };

  b.copy = new_memory (blist_bytes (nslots));
  b.calls = new_memory (NCALLS_MAX * sizeof *b.calls);
  b.extents = new_memory (nslots * sizeof *b.extents);
  for (unsigned i = 0; i < 4; i++)
    bench_alloc_one (&b, used_percent[i]);
  bench_free_one (&b);
  bench_free32_alloc32 (&b);
  for (unsigned i = 2; i < 4; i++) {
    bench_aged (&b, "aged_1_to_64", used_percent[i], 1, 64);
    bench_aged (&b, "aged_16", used_percent[i], 16, 16);
  }
  bench_fail_again (&b);
  bench_fail_first (&b, false);
  bench_fail_first (&b, true);
  bench_make (&b);
  bench_stats (&b);
  munmap (b.bl, blist_bytes (nslots));
  munmap (b.copy, blist_bytes (nslots));
  munmap (b.calls, NCALLS_MAX * sizeof *b.calls);
  munmap (b.extents, nslots * sizeof *b.extents);
}

static void
usage (FILE *where)
{
  fprintf (where,
           "usage: blist [--quick]\n"
           "Print how long the calls of lib/blist.c take, one `name value unit' line a figure.\n"
           "  --quick  a small blist and one round: shows that it runs, not how fast\n");
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "help", no_argument, NULL, 'h' },
    { "quick", no_argument, NULL, 'q' },
    { 0 },
  };
  bool quick = false;
  int c;

  while ((c = getopt_long (argc, argv, "", options, NULL)) != -1) {
    if (c == 'h') {
      usage (stdout);
      return EXIT_SUCCESS;
    }
    if (c != 'q') {
      usage (stderr);
      return EXIT_FAILURE;
    }
    quick = true;
  }
  if (optind < argc) {
    usage (stderr);
    return EXIT_FAILURE;
  }
  if (quick) {
    bench_size ("64K", 1 << 16, 1);
  } else {
    bench_size ("1M", 1 << 20, NROUNDS_MAX);
    bench_size ("16M", 1 << 24, 9);
  }
  return EXIT_SUCCESS;
}
