/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blist.c - tests of lib/blist.c: one behaviour each, then a comparison with a model over random steps
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "blist.h"

/* Not powers of 64, on purpose; SOME is one level of hints, MANY three. */
enum { SOME = 1000, MANY = 300000 };

static void *
  mem; /* of the last blist made; no more than it needs, so that a sanitizer sees every step aside */

static struct blist *
new_blist (uint32_t nslots)
{
  size_t bytes = blist_bytes (nslots);

  free (mem);
  mem = aligned_alloc (64, bytes);
  cr_assert_not_null (mem);
  memset (mem, 0, bytes);
  return blist_create (mem, nslots);
}

static void
free_memory (void)
{
  free (mem);
}

TestSuite (blist, .fini = free_memory);
TestSuite (blist_model, .fini = free_memory);

static void
free_run (struct blist *bl, uint32_t first, uint32_t n)
{
  cr_assert_eq (blist_free (bl, first, n), 0, "free of %u slots from %u on", n, first);
}

static void
fill_run (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t nwere_free;

  cr_assert_eq (blist_fill (bl, first, n, &nwere_free), 0);
}

static void
assert_alloc (struct blist *bl, uint32_t min, uint32_t max, uint32_t first, uint32_t n)
{
  struct slot_run run = { 0 };

  cr_assert_eq (blist_alloc (bl, min, max, &run), 0, "no run of %u", min);
  cr_assert_eq (run.first, first, "run starts at %u, not at %u", run.first, first);
  cr_assert_eq (run.n, n, "run has %u slots, not %u", run.n, n);
}

static void
assert_no_run (struct blist *bl, uint32_t min)
{
  struct slot_run run = { .first = 77, .n = 78 };

  cr_assert_eq (blist_alloc (bl, min, min, &run), -ENOSPC, "there is a run of %u", min);
  cr_assert (run.first == 77 && run.n == 78, "output changed on failure");
}

/* ---- size ---- */

/* A blist takes no more than 1.14 bits a slot, and a few lines. */
Test (blist, is_small)
{
  static const uint32_t nslots[] = { 1, 64, 65, 4096, 4097, 1 << 20, 1 << 24, UINT32_MAX - 1 };

  for (size_t i = 0; i < sizeof nslots / sizeof nslots[0]; i++)
    cr_assert_leq (blist_bytes (nslots[i]), 512 + nslots[i] * 1.14 / 8, "%u slots", nslots[i]);
}

/* No slots, or more than 2^32-2, cannot be. */
Test (blist, has_a_size_limit)
{
  cr_assert_eq (blist_bytes (0), 0);
  cr_assert_eq (blist_bytes (UINT32_MAX), 0);
  cr_assert_neq (blist_bytes (UINT32_MAX - 1), 0);
}

/* All slots of a new blist are used. */
Test (blist, is_made_full)
{
  struct blist *bl = new_blist (SOME);

  cr_assert_eq (blist_nslots (bl), SOME);
  cr_assert_eq (blist_nfree (bl), 0);
  assert_no_run (bl, 1);
}

/* The largest blist works to its last slot. */
Test (blist, reaches_the_last_of_2_32_slots)
{
  const uint32_t nslots = UINT32_MAX - 1, last = nslots - 1;
  void *map = mmap (NULL, blist_bytes (nslots), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  struct blist *bl;
  struct slot_run run;

  cr_assert_neq (map, MAP_FAILED);
  bl = blist_create (map, nslots);
  free_run (bl, last - 99, 100);
  free_run (bl, 5, 3);
  assert_alloc (bl, 2, 10, 5, 3);
  cr_assert_eq (blist_alloc (bl, 101, 101, &run), -ENOSPC);
  assert_alloc (bl, 60, 60, last - 99, 60);
  assert_alloc (bl, 40, UINT32_MAX, last - 39, 40);
  free_run (bl, last, 1);
  cr_assert_eq (blist_free (bl, last, 1), -EINVAL);
  cr_assert_eq (blist_free (bl, last, 2), -EINVAL);
  cr_assert_eq (blist_nfree (bl), 1);
  cr_assert (blist_next (bl, last, true, &run) && run.first == last && run.n == 1);
  cr_assert_not (blist_next (bl, last, false, &run));
  munmap (map, blist_bytes (nslots));
}

/* ---- alloc ---- */

/* Two free slots with a used one between them are not a run of two. */
Test (blist, alloc_needs_contiguous_slots)
{
  struct blist *bl = new_blist (SOME);

  free_run (bl, 10, 1);
  free_run (bl, 12, 1);
  assert_no_run (bl, 2);
  assert_alloc (bl, 1, 1, 10, 1);
  assert_alloc (bl, 1, 1, 12, 1);
}

/* A run of min is enough, but all of it up to max is taken. */
Test (blist, alloc_takes_up_to_max)
{
  struct blist *bl = new_blist (MANY);

  free_run (bl, 50, 20);
  free_run (bl, 100, 5000);
  assert_alloc (bl, 10, 30, 50, 20);
  assert_alloc (bl, 10, 30, 100, 30);
  assert_alloc (bl, 10, UINT32_MAX, 130, 4970);
}

/* A run that is too short is passed over, even if it is the next. */
Test (blist, alloc_passes_over_short_runs)
{
  struct blist *bl = new_blist (MANY);

  for (uint32_t slot = 0; slot < 200000; slot += 20)
    free_run (bl, slot, 10);
  free_run (bl, 250000, 11);
  assert_alloc (bl, 11, 11, 250000, 11);
}

/* The next alloc goes on where the last one ended, not at a hole before it. */
Test (blist, alloc_goes_on_at_the_cursor)
{
  struct blist *bl = new_blist (SOME);

  free_run (bl, 0, SOME);
  assert_alloc (bl, 100, 100, 0, 100);
  free_run (bl, 50, 50);
  assert_alloc (bl, 50, 50, 100, 50);
}

/* A run is cut at the cursor when the search begins in its middle, and found whole when it wraps. */
Test (blist, alloc_cuts_the_run_at_the_cursor)
{
  struct blist *bl = new_blist (MANY);

  free_run (bl, 0, 600);
  assert_alloc (bl, 300, 300, 0, 300);
  free_run (bl, 0, 300);
  assert_alloc (bl, 200, 200, 300, 200);
  free_run (bl, 300, 200);
  assert_alloc (bl, 101, 600, 0, 600);
}

/* At the end the search wraps around, up to the runs that begin just before the cursor. */
Test (blist, alloc_wraps_to_the_word_of_the_cursor)
{
  struct blist *bl = new_blist (MANY);

  free_run (bl, 64 * 1000, 64);
  assert_alloc (bl, 60, 60, 64 * 1000, 60);
  free_run (bl, 64 * 1000 + 10, 3);
  assert_alloc (bl, 4, 4, 64 * 1000 + 60, 4);
  assert_alloc (bl, 3, 3, 64 * 1000 + 10, 3);
}

/* After the last slot the cursor is at the first. */
Test (blist, alloc_takes_the_last_slot_then_the_first)
{
  struct blist *bl = new_blist (SOME);

  free_run (bl, 0, 1);
  free_run (bl, SOME - 1, 1);
  assert_alloc (bl, 1, 1, 0, 1);
  free_run (bl, 0, 1);
  assert_alloc (bl, 1, 1, SOME - 1, 1);
  assert_alloc (bl, 1, 1, 0, 1);
}

/* Runs of all lengths are found whatever boundary of word, line or level they cross; and not taken for longer. */
Test (blist, alloc_finds_runs_across_boundaries)
{
  static const uint32_t boundary[] = { 64, 4096, 262144 };
  static const uint32_t length[] = { 2, 3, 63, 64, 65, 66, 127, 128, 129, 200, 1000, 1023, 1024 };
  struct blist *bl = new_blist (MANY);

  for (size_t b = 0; b < sizeof boundary / sizeof boundary[0]; b++)
    for (size_t l = 0; l < sizeof length / sizeof length[0]; l++)
      for (uint32_t before = 0; before <= length[l] && before <= boundary[b]; before++) {
        uint32_t first = boundary[b] - before;

        free_run (bl, first, length[l]);
        if (length[l] < BLIST_MIN_MAX)
          assert_no_run (bl, length[l] + 1);
        assert_alloc (bl, length[l], length[l], first, length[l]);
      }
}

/* What is left of a run is found by later searches, also when it begins in another word. */
Test (blist, alloc_leaves_the_rest_to_be_found)
{
  struct blist *bl = new_blist (MANY);
  struct slot_run run;

  free_run (bl, 4000, 1500);
  cr_assert_eq (blist_alloc_at (bl, 4050, 100, 100, &run), 0);
  free_run (bl, 200000, 10);
  assert_alloc (bl, 1, 1, 4150, 1);
  assert_alloc (bl, 1000, 1000, 4151, 1000);
  assert_alloc (bl, 349, 349, 5151, 349);
  assert_alloc (bl, 50, 50, 4000, 50);
}

/* A demand that failed is met as soon as a free makes the run for it. */
Test (blist, alloc_works_again_after_a_free)
{
  struct blist *bl = new_blist (MANY);

  for (uint32_t slot = 0; slot + 8 <= MANY; slot += 8)
    free_run (bl, slot, 7);
  assert_no_run (bl, 8);
  assert_no_run (bl, 8);
  assert_alloc (bl, 7, 8, 0, 7);
  free_run (bl, 8 * 20000 + 7, 1);
  assert_alloc (bl, 8, 15, 8 * 20000, 15);
  assert_no_run (bl, 8);
}

/* min is 1 to max, and at most BLIST_MIN_MAX. */
Test (blist, alloc_checks_its_arguments)
{
  struct blist *bl = new_blist (MANY);
  struct slot_run run = { .first = 77, .n = 78 };

  free_run (bl, 0, MANY);
  cr_assert_eq (blist_alloc (bl, 0, 5, &run), -EINVAL);
  cr_assert_eq (blist_alloc (bl, 6, 5, &run), -EINVAL);
  cr_assert_eq (blist_alloc (bl, BLIST_MIN_MAX + 1, UINT32_MAX, &run), -EINVAL);
  cr_assert (run.first == 77 && run.n == 78, "output changed on failure");
  cr_assert_eq (blist_nfree (bl), MANY);
  assert_alloc (bl, BLIST_MIN_MAX, UINT32_MAX, 0, MANY);
}

/* The preferred slot is taken if min slots are free there, even in the middle of a run, and the cursor moves there. */
Test (blist, alloc_at_takes_the_preferred_slot)
{
  struct blist *bl = new_blist (SOME);
  struct slot_run run;

  free_run (bl, 100, 100);
  free_run (bl, 300, 100);
  cr_assert_eq (blist_alloc_at (bl, 350, 50, 60, &run), 0);
  cr_assert (run.first == 350 && run.n == 50);
  cr_assert_eq (blist_alloc_at (bl, 310, 5, 5, &run), 0);
  cr_assert (run.first == 310 && run.n == 5);
  assert_alloc (bl, 1, 1, 315, 1);
}

/* A preferred slot that is used, has too few free ones behind it, or does not exist, is the same as none. */
Test (blist, alloc_at_falls_back_to_the_cursor)
{
  static const uint32_t prefer[] = { 5, 396, SOME - 1, SOME, UINT32_MAX };
  struct blist *bl = new_blist (SOME);
  struct slot_run run;

  free_run (bl, 100, 100);
  free_run (bl, 300, 100);
  for (size_t i = 0; i < sizeof prefer / sizeof prefer[0]; i++) {
    cr_assert_eq (blist_alloc_at (bl, prefer[i], 5, 6, &run), 0);
    cr_assert (run.first == 100 + 6 * i && run.n == 6, "prefer %u", prefer[i]);
  }
}

/* ---- free ---- */

/* A free that fills the hole between two runs makes one run of all three. */
Test (blist, free_merges_both_neighbours)
{
  struct blist *bl = new_blist (MANY);

  free_run (bl, 4000, 96);
  free_run (bl, 4097, 300);
  assert_no_run (bl, 301);
  free_run (bl, 4096, 1);
  assert_alloc (bl, 397, 1000, 4000, 397);
}

/* A slot that is free already cannot be freed, nor can a run that holds one, wherever in it. */
Test (blist, free_refuses_free_slots)
{
  static const struct slot_run twice[] = {
    { 500, 1 }, { 500, 2 }, { 499, 2 }, { 400, 101 }, { 400, 500 }, { 500, 500 }, { 0, SOME },
  };
  struct blist *bl = new_blist (SOME);

  free_run (bl, 500, 1);
  for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++)
    cr_assert_eq (blist_free (bl, twice[i].first, twice[i].n), -EINVAL, "case %zu", i);
  cr_assert_eq (blist_nfree (bl), 1);
  assert_alloc (bl, 1, SOME, 500, 1);
}

/* Slots that do not exist cannot be freed or filled, and ends beyond 2^32 do not come round. */
Test (blist, free_and_fill_refuse_slots_beyond_the_end)
{
  static const struct slot_run beyond[] = {
    { SOME, 1 },       { SOME - 1, 2 },        { 0, SOME + 1 },
    { UINT32_MAX, 1 }, { 10, UINT32_MAX - 5 }, { UINT32_MAX, UINT32_MAX },
  };
  struct blist *bl = new_blist (SOME);
  uint32_t nwere_free = 77;

  for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; i++) {
    cr_assert_eq (blist_free (bl, beyond[i].first, beyond[i].n), -EINVAL, "case %zu", i);
    cr_assert_eq (blist_fill (bl, beyond[i].first, beyond[i].n, &nwere_free), -EINVAL, "case %zu",
                  i);
  }
  cr_assert_eq (blist_nfree (bl), 0);
  cr_assert_eq (nwere_free, 77, "output changed on failure");
  cr_assert (blist_check (bl));
}

/* Nothing freed or filled is no error, up to the end. */
Test (blist, free_and_fill_of_nothing_do_nothing)
{
  struct blist *bl = new_blist (SOME);
  uint32_t nwere_free = 77;

  cr_assert_eq (blist_free (bl, SOME, 0), 0);
  cr_assert_eq (blist_fill (bl, SOME, 0, &nwere_free), 0);
  cr_assert_eq (nwere_free, 0);
  cr_assert_eq (blist_nfree (bl), 0);
}

/* ---- fill ---- */

/* Fill counts the free slots among those that it takes. */
Test (blist, fill_counts_the_free_slots)
{
  struct blist *bl = new_blist (SOME);
  uint32_t nwere_free;

  free_run (bl, 100, 300);
  fill_run (bl, 150, 1);
  cr_assert_eq (blist_fill (bl, 50, 200, &nwere_free), 0);
  cr_assert_eq (nwere_free, 149);
  cr_assert_eq (blist_nfree (bl), 150);
  cr_assert_eq (blist_fill (bl, 50, 200, &nwere_free), 0);
  cr_assert_eq (nwere_free, 0);
}

/* A take ends before the first slot that is used, or does not exist; with its rest to be found. */
Test (blist, take_ends_at_a_used_slot)
{
  struct blist *bl = new_blist (SOME);

  free_run (bl, 100, 300);
  fill_run (bl, 350, 1);
  free_run (bl, SOME - 5, 5);
  cr_assert_eq (blist_take (bl, 99, 10), 0, "used");
  cr_assert_eq (blist_take (bl, SOME, 1), 0, "behind the end");
  cr_assert_eq (blist_take (bl, UINT32_MAX, 2), 0, "far behind it");
  cr_assert_eq (blist_take (bl, 100, 0), 0);
  cr_assert_eq (blist_take (bl, 200, 1), 1);
  cr_assert_eq (blist_take (bl, 200, 1), 0, "twice");
  cr_assert_eq (blist_take (bl, 340, 100), 10);
  cr_assert_eq (blist_take (bl, SOME - 3, 100), 3);
  cr_assert_eq (blist_nfree (bl), 299 - 11 + 2);
  assert_alloc (bl, 139, 139, 201, 139);
  cr_assert (blist_check (bl));
  blist_prefetch (bl, 0);
  blist_prefetch (bl, SOME - 1);
}

/* What a fill leaves of a run is found, before it and behind it. */
Test (blist, fill_leaves_the_rest_to_be_found)
{
  struct blist *bl = new_blist (MANY);

  free_run (bl, 4000, 3000);
  fill_run (bl, 4090, 300);
  assert_alloc (bl, 500, 500, 4390, 500);
  assert_alloc (bl, 1024, 5000, 4890, 2110);
  assert_alloc (bl, 90, 5000, 4000, 90);
}

/* ---- next and stats ---- */

/* Next shows all runs, free and used, in order, and cuts the one that it begins in. */
Test (blist, next_shows_all_runs)
{
  struct blist *bl = new_blist (SOME);
  struct slot_run run = { 0 };

  free_run (bl, 10, 200);
  free_run (bl, SOME - 1, 1);
  cr_assert (blist_next (bl, 0, true, &run) && run.first == 10 && run.n == 200);
  cr_assert (blist_next (bl, 50, true, &run) && run.first == 50 && run.n == 160);
  cr_assert (blist_next (bl, 210, true, &run) && run.first == SOME - 1 && run.n == 1);
  cr_assert_not (blist_next (bl, SOME, true, &run));
  cr_assert (blist_next (bl, 0, false, &run) && run.first == 0 && run.n == 10);
  cr_assert (blist_next (bl, 10, false, &run) && run.first == 210 && run.n == SOME - 211);
  cr_assert_not (blist_next (bl, SOME - 1, false, &run));
  cr_assert_eq (run.first, 210, "output changed on failure");
}

/* Runs are counted by the power of two below their length. */
Test (blist, stats_count_runs_by_size)
{
  struct blist *bl = new_blist (MANY);
  struct blist_stats stats;

  free_run (bl, 0, 1);
  free_run (bl, 10, 63);
  free_run (bl, 100, 64);
  free_run (bl, 200, 127);
  free_run (bl, MANY - 100000, 100000);
  blist_stats (bl, &stats);
  cr_assert_eq (stats.nruns, 5);
  cr_assert_eq (stats.largest, 100000);
  cr_assert_eq (stats.by_size[0], 1);
  cr_assert_eq (stats.by_size[5], 1);
  cr_assert_eq (stats.by_size[6], 2);
  cr_assert_eq (stats.by_size[16], 1);
}

/* ---- the model: one byte a slot, searched one by one ---- */

struct model {
  struct blist *bl;
  uint8_t *free;
  uint32_t nslots;
  uint32_t nfree;
  uint32_t cursor;
  uint64_t random;
};

/* How full it is kept, and in what pieces. */
struct regime {
  unsigned used_percent;
  uint32_t run_max; /* longest run freed or asked for */
  uint32_t
    hole; /* if not 0: begin with free runs of up to this many slots, a used one between two */
};

/* xorshift64*; the same steps in every run. */
static uint32_t
below (struct model *m, uint32_t end)
{
  m->random ^= m->random >> 12;
  m->random ^= m->random << 25;
  m->random ^= m->random >> 27;
  return (uint32_t) ((m->random * UINT64_C (0x2545F4914F6CDD1D) >> 32) % end);
}

/* How many slots from first on are free (or used), counted up to max. */
static uint32_t
model_run (const struct model *m, uint32_t first, bool free, uint32_t max)
{
  uint32_t n = 0;

  while (n < max && first + n < m->nslots && m->free[first + n] == free)
    n++;
  return n;
}

/* The first run of min in [from, end); m->nslots if there is none. */
static uint32_t
model_find (const struct model *m, uint32_t from, uint32_t end, uint32_t min)
{
  while (from < end) {
    uint32_t n = model_run (m, from, true, min);
    if (n == min)
      return from;
    from += n + 1;
  }
  return m->nslots;
}

static void
model_set (struct model *m, uint32_t first, uint32_t n, bool free)
{
  for (uint32_t i = first; i < first + n; i++) {
    if (free && !m->free[i])
      m->nfree++;
    if (!free && m->free[i])
      m->nfree--;
    m->free[i] = free;
  }
}

/* Lengths of all magnitudes. */
static uint32_t
random_length (struct model *m, uint32_t max)
{
  uint32_t limit = 1 + below (m, max);

  return 1 + below (m, below (m, 2) ? limit : 1 + limit / 16);
}

static void
step_alloc (struct model *m, const struct regime *regime)
{
  uint32_t min =
    random_length (m, regime->run_max > BLIST_MIN_MAX ? BLIST_MIN_MAX : regime->run_max);
  uint32_t max = below (m, 3) == 0 ? min : min + below (m, 2 * regime->run_max);
  uint32_t prefer = below (m, 4) == 0 ? below (m, m->nslots + m->nslots / 8 + 1) : UINT32_MAX;
  uint32_t first = m->nslots;
  struct slot_run run = { .first = 77, .n = 78 };
  int r;

  if (prefer < m->nslots && model_run (m, prefer, true, min) == min)
    first = prefer;
  if (first == m->nslots)
    first = model_find (m, m->cursor, m->nslots, min);
  if (first == m->nslots)
    first = model_find (m, 0, m->cursor, min);

  if (prefer == UINT32_MAX)
    r = blist_alloc (m->bl, min, max, &run);
  else
    r = blist_alloc_at (m->bl, prefer, min, max, &run);
  if (first == m->nslots) {
    cr_assert_eq (r, -ENOSPC, "alloc of %u: %d, but there is no run", min, r);
    cr_assert (run.first == 77 && run.n == 78, "output changed on failure");
  } else {
    uint32_t n = model_run (m, first, true, max);
    cr_assert_eq (r, 0, "alloc of %u: %d, but %u slots at %u are free", min, r, n, first);
    cr_assert_eq (run.first, first, "alloc of %u: at %u, not at %u", min, run.first, first);
    cr_assert_eq (run.n, n, "alloc of %u to %u: %u, not %u", min, max, run.n, n);
    model_set (m, first, n, false);
    m->cursor = first + n < m->nslots ? first + n : 0;
  }
}

/* A run of used slots; now and then any run, which may hold free ones or end nowhere. */
static void
step_free (struct model *m, const struct regime *regime)
{
  uint32_t first = below (m, m->nslots), n = random_length (m, regime->run_max), r = 0;

  if (below (m, 8) == 0) {
    if (below (m, 4) == 0)
      n += m->nslots - first;
    else if (below (m, 4) == 0)
      n = UINT32_MAX - below (m, m->nslots);
  } else {
    while (r++ < 100 && m->free[first])
      first = below (m, m->nslots);
    n = model_run (m, first, false, n);
  }
  if (n > m->nslots - first || model_run (m, first, false, n) < n) {
    cr_assert_eq (blist_free (m->bl, first, n), -EINVAL, "free of %u at %u", n, first);
  } else {
    cr_assert_eq (blist_free (m->bl, first, n), 0, "free of %u at %u", n, first);
    model_set (m, first, n, true);
  }
}

static void
step_fill (struct model *m, const struct regime *regime)
{
  uint32_t first = below (m, m->nslots), n = random_length (m, regime->run_max);
  uint32_t nwere_free = 77, before = m->nfree;

  if (n > m->nslots - first) {
    cr_assert_eq (blist_fill (m->bl, first, n, &nwere_free), -EINVAL);
    cr_assert_eq (nwere_free, 77, "output changed on failure");
  } else {
    cr_assert_eq (blist_fill (m->bl, first, n, &nwere_free), 0);
    model_set (m, first, n, false);
    cr_assert_eq (nwere_free, before - m->nfree, "fill of %u at %u", n, first);
  }
}

static void
step_next (struct model *m)
{
  uint32_t from = below (m, m->nslots + 1);
  bool free = below (m, 2);
  struct slot_run run = { .first = 77, .n = 78 };
  bool found = blist_next (m->bl, from, free, &run);

  while (from < m->nslots && m->free[from] != free)
    from++;
  if (from == m->nslots) {
    cr_assert (!found && run.first == 77 && run.n == 78);
  } else {
    cr_assert (found);
    cr_assert_eq (run.first, from);
    cr_assert_eq (run.n, model_run (m, from, free, m->nslots));
  }
}

/* Compare every slot and all counts. */
static void
check_all (struct model *m)
{
  struct blist_stats stats, expected = { 0 };
  struct slot_run run = { 0 };
  uint32_t slot = 0;

  cr_assert (blist_check (m->bl), "invariants");
  while (blist_next (m->bl, run.first + run.n, true, &run)) {
    slot += model_run (m, slot, false, m->nslots);
    cr_assert_eq (run.first, slot);
    cr_assert_eq (run.n, model_run (m, slot, true, m->nslots));
    slot += run.n;
    expected.nruns++;
    expected.largest = run.n > expected.largest ? run.n : expected.largest;
    for (unsigned k = 0; k < 32; k++)
      expected.by_size[k] += run.n >= UINT64_C (1) << k && run.n < UINT64_C (2) << k;
  }
  slot += model_run (m, slot, false, m->nslots);
  cr_assert_eq (slot, m->nslots);
  blist_stats (m->bl, &stats);
  cr_assert_eq (memcmp (&stats, &expected, sizeof stats), 0, "stats");
}

static void
compare_with_model (uint32_t nslots, const struct regime *regime, uint64_t seed, unsigned nsteps)
{
  struct model m = { .bl = new_blist (nslots), .nslots = nslots, .random = seed };
  unsigned check_every = 1 + nslots / 64;

  cr_assert_not_null (m.free = calloc (nslots, 1));
  for (uint32_t slot = 0; regime->hole && slot < nslots;) {
    uint32_t n = 1 + below (&m, regime->hole);
    n = n < nslots - slot ? n : nslots - slot;
    free_run (m.bl, slot, n);
    model_set (&m, slot, n, true);
    slot += n + 1;
  }
  for (unsigned step = 0; step < nsteps; step++) {
    bool too_full = (uint64_t) (nslots - m.nfree) * 100 >= (uint64_t) nslots * regime->used_percent;
    uint32_t what = below (&m, 100);

    if (what < 4)
      step_next (&m);
    else if (what < 10)
      step_fill (&m, regime);
    else if (too_full ? what < 40 : what < 80)
      step_alloc (&m, regime);
    else
      step_free (&m, regime);
    cr_assert_eq (blist_nfree (m.bl), m.nfree, "%u slots, seed %d, step %u", nslots, (int) seed,
                  step);
    if (step % check_every == 0)
      check_all (&m);
  }
  check_all (&m);
  free (m.free);
}

static void
compare_all_sizes (struct regime regime)
{
  static const uint32_t nslots[] = { 1, 63, 64, 65, 1000, 4095, 4096, 4097, 70000, MANY };

  for (size_t i = 0; i < sizeof nslots / sizeof nslots[0]; i++)
    for (uint64_t seed = 1; seed <= 3; seed++)
      compare_with_model (nslots[i], &regime, seed, nslots[i] < 10000 ? 20000 : 6000);
}

/* Whatever happens, a blist says the same as an array of bytes: mostly free, in runs of any length. */
Test (blist_model, mostly_free)
{
  compare_all_sizes ((struct regime){ .used_percent = 20, .run_max = 3000 });
}

/* The same, half full, in runs of a few words. */
Test (blist_model, half_full)
{
  compare_all_sizes ((struct regime){ .used_percent = 50, .run_max = 300 });
}

/* The same, nearly full, in runs of up to one word. */
Test (blist_model, nearly_full)
{
  compare_all_sizes ((struct regime){ .used_percent = 95, .run_max = 64 });
}

/* The same, on single free slots. */
Test (blist_model, single_holes)
{
  compare_all_sizes ((struct regime){ .used_percent = 50, .run_max = 4, .hole = 1 });
}

/* The same, on runs that are nearly as long as what is asked for. */
Test (blist_model, long_holes)
{
  compare_all_sizes ((struct regime){ .used_percent = 5, .run_max = 1024, .hole = 1000 });
}
