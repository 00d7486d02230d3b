/* SPDX-License-Identifier: BSD-3-Clause
 *
 * slotio.c - tests of lib/slotio.c, with a drum that only writes down what it is asked for.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>

#include "lib/slotio.h"
#include "lib/units.h"
#include "tests/random.h"

static struct drum *const drum = (struct drum *) &drum;             /* never looked into */
static const struct flow *const flow = (const struct flow *) &flow; /* nor this */

enum { MAX_CALLS = DRUM_BATCH, NSLOTS = 2000 };

struct call {
  enum slotio_kind kind;
  uint32_t slot, n;
  unsigned niov;
};

static struct call calls[MAX_CALLS];
static unsigned ncalls, nlots;
static unsigned fail_at = UINT32_MAX; /* this call fails */
static char *transferred[NSLOTS];     /* slot -> memory */
static char memory[DRUM_BATCH][PAGE_BYTES];

static int
write_down (enum slotio_kind kind, uint32_t slot, const struct iovec *iov, unsigned niov)
{
  struct call call = { .kind = kind, .slot = slot, .niov = niov };

  for (unsigned i = 0; i < niov; i++) {
    cr_assert (iov[i].iov_len > 0 && iov[i].iov_len % PAGE_BYTES == 0);
    for (size_t at = 0; at < iov[i].iov_len; at += PAGE_BYTES)
      transferred[slot + call.n++] = (char *) iov[i].iov_base + at;
  }
  cr_assert_lt (ncalls, MAX_CALLS);
  calls[ncalls] = call;
  return ncalls++ == fail_at ? -EIO : 0;
}

void __wrap_drum_transfer (struct drum *d, const struct flow *f, bool write, struct drum_io *io,
                           unsigned n, uint64_t *known_ns);
void __wrap_drum_readahead (struct drum *d, struct slot_run run);

void
__wrap_drum_transfer (struct drum *d, const struct flow *f, bool write, struct drum_io *io,
                      unsigned n, uint64_t *known_ns)
{
  cr_assert_eq (d, drum);
  cr_assert_eq (f, flow);
  cr_assert (n > 0 && n <= DRUM_TOGETHER);
  for (unsigned i = 0; i < n; i++)
    io[i].ret = write_down (write ? SLOTIO_WRITE : SLOTIO_READ, io[i].slot, io[i].iov, io[i].niov);
  nlots++;
  *known_ns += 1000;
}

void
__wrap_drum_readahead (struct drum *d, struct slot_run run)
{
  cr_assert_eq (d, drum);
  calls[ncalls++] = (struct call){ .kind = SLOTIO_READAHEAD, .slot = run.first, .n = run.n };
}

static void
assert_call (unsigned i, enum slotio_kind kind, uint32_t slot, uint32_t n, unsigned niov)
{
  cr_assert (calls[i].kind == kind && calls[i].slot == slot && calls[i].n == n &&
               calls[i].niov == niov,
             "call %u: %u slots from %u in %u pieces", i, calls[i].n, calls[i].slot, calls[i].niov);
}

/* Nothing gathered, nothing done. */
Test (slotio, nothing_is_no_call)
{
  struct slotio io;

  slotio_init (&io, drum, flow, SLOTIO_WRITE);
  cr_assert_eq (slotio_submit (&io), 0);
  cr_assert_eq (ncalls, 0);
}

/* Consecutive slots to consecutive memory are one call with one piece. */
Test (slotio, a_run_is_one_piece)
{
  struct slotio io;

  slotio_init (&io, drum, flow, SLOTIO_READ);
  for (uint32_t i = 0; i < DRUM_BATCH; i++)
    slotio_add (&io, 100 + i, memory[i]);
  cr_assert_eq (slotio_submit (&io), 0);
  cr_assert_eq (ncalls, 1);
  assert_call (0, SLOTIO_READ, 100, DRUM_BATCH, 1);
}

/* Slots that come in any order from scattered memory are one call if they are consecutive. */
Test (slotio, scattered_memory_is_one_call)
{
  static const uint32_t slots[] = { 15, 12, 10, 11, 14, 13 };
  struct slotio io;

  slotio_init (&io, drum, flow, SLOTIO_WRITE);
  for (unsigned i = 0; i < 6; i++)
    slotio_add (&io, slots[i], memory[i]);
  io.known_ns = 77;
  cr_assert_eq (slotio_submit (&io), 0);
  cr_assert_eq (io.known_ns, 1077);
  cr_assert_eq (ncalls, 1);
  assert_call (0, SLOTIO_WRITE, 10, 6, 5); /* 10 and 11 lie together */
  for (unsigned i = 0; i < 6; i++)
    cr_assert_eq (transferred[slots[i]], memory[i]);
}

/* A slot left out is not touched: no call passes over a gap, so none spans a guard. */
Test (slotio, a_gap_is_another_call)
{
  struct slotio io;

  slotio_init (&io, drum, flow, SLOTIO_READ);
  slotio_add (&io, 7, memory[0]);
  slotio_add (&io, 5, memory[1]);
  slotio_add (&io, 4, memory[2]);
  cr_assert_eq (slotio_submit (&io), 0);
  cr_assert_eq (ncalls, 2);
  assert_call (0, SLOTIO_READ, 4, 2, 2);
  assert_call (1, SLOTIO_READ, 7, 1, 1);
}

/* Readahead has no memory, and asks for runs. */
Test (slotio, readahead_asks_for_runs)
{
  struct slotio io;

  slotio_init (&io, drum, flow, SLOTIO_READAHEAD);
  slotio_add (&io, 20, NULL);
  slotio_add (&io, 21, NULL);
  slotio_add (&io, 18, NULL);
  slotio_add (&io, 19, NULL);
  slotio_add (&io, 30, NULL);
  cr_assert_eq (slotio_submit (&io), 0);
  cr_assert_eq (ncalls, 2);
  assert_call (0, SLOTIO_READAHEAD, 18, 4, 0);
  assert_call (1, SLOTIO_READAHEAD, 30, 1, 0);
}

/* An error is that of the slots of its transfer; the others are done all the same, and each slot is known for what became of it.
 */
Test (slotio, goes_on_after_an_error)
{
  static const uint32_t slots[] = { 21, 10, 11, 30, 20, 31, 40 }; /* 10, 11; 20, 21; 30, 31; 40 */
  struct slotio io;

  fail_at = 1;
  slotio_init (&io, drum, flow, SLOTIO_WRITE);
  for (uint32_t i = 0; i < 7; i++)
    slotio_add (&io, slots[i], memory[i]);
  cr_assert_eq (slotio_submit (&io), -EIO);
  cr_assert_eq (ncalls, 4);
  for (uint32_t i = 0; i < 7; i++) {
    cr_assert_eq (slotio_result (&io, slots[i]), slots[i] / 10 == 2 ? -EIO : 0, "slot %u",
                  slots[i]);
    cr_assert (slots[i] / 10 == 2 || transferred[slots[i]] == memory[i], "slot %u", slots[i]);
  }
}

static void
check_random (struct rng *rng, unsigned step)
{
  unsigned n = 1 + (unsigned) rng_below (rng, DRUM_BATCH), nruns = 0;
  unsigned stride = step % 2 ? 1 : 7; /* of the memory: slots in order need not be pages in order */
  static char *expected[NSLOTS];
  struct slotio io;

  for (unsigned i = 0; i < NSLOTS; i++)
    transferred[i] = expected[i] = NULL;
  ncalls = 0;
  slotio_init (&io, drum, flow, SLOTIO_WRITE);
  for (unsigned i = 0; i < n; i++) {
    uint32_t slot = (uint32_t) rng_below (rng, NSLOTS / 2);

    while (expected[slot])
      slot++;
    expected[slot] = memory[i * stride % DRUM_BATCH];
    slotio_add (&io, slot, expected[slot]);
  }
  cr_assert_eq (slotio_submit (&io), 0);
  for (unsigned i = 0; i < NSLOTS; i++) {
    nruns += expected[i] && !(i > 0 && expected[i - 1]);
    cr_assert (transferred[i] == expected[i], "seed %" PRIu64 " step %u: slot %u", random_seed (),
               step, i);
  }
  cr_assert_eq (ncalls, nruns, "seed %" PRIu64 " step %u: %u calls for %u runs", random_seed (),
                step, ncalls, nruns);
}

/* At random: every page goes to its slot, nothing else is touched, and there are as many calls as runs. */
Test (slotio, as_few_calls_as_runs)
{
  struct rng rng = rng_for (1);

  for (unsigned step = 0; step < random_steps (500); step++)
    check_random (&rng, step);
}
