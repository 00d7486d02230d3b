/* SPDX-License-Identifier: BSD-3-Clause
 *
 * inflight.c - see inflight.h.
 *
 * An entry's way: free -> CLAIMED -> out -> free; or, if it takes long, out -> REPORTED (by the scan) -> ENDED -> free
 * (by the scan). Whoever makes a step owns the fields until the next one: no two of them are ever there at once.
 */
#include <config.h>

#include "inflight.h"

#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "log.h"
#include "stats.h"
#include "units.h"

/* In the low bits of state; without one of them and not 0, the I/O is out and not yet reported. */
enum {
  REPORTED = 1,
  ENDED = 2,
  CLAIMED = 3, /* alone: its fields are being filled */
  TAG = 3,
};

static uint64_t
begin_of (uint64_t state)
{
  return state & ~(uint64_t) TAG;
}

/* Where this thread looks first. Stacks, and so thread descriptors, lie at equal distances; multiplied by the golden ratio they
 * spread evenly. (A thread-local variable of a plugin would cost memory at a thread's first I/O.) */
static unsigned
hint (void)
{
  return (unsigned) ((uint64_t) pthread_self () * UINT64_C (0x9e3779b97f4a7c15) >> 32);
}

struct inflight_io *
inflight_begin (struct inflight *t, uint64_t now_ns, bool write, uint32_t slot, uint32_t nslots)
{
  unsigned first = hint ();

  for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
    struct inflight_io *io = &t->io[(first + i) % INFLIGHT_MAX];
    uint64_t unused = 0;

    if (atomic_load_explicit (&io->state, memory_order_relaxed) ||
        !atomic_compare_exchange_strong_explicit (&io->state, &unused, CLAIMED,
                                                  memory_order_acquire, memory_order_relaxed))
      continue;
    io->write = write;
    io->first_slot = slot;
    io->nslots = nslots;
    atomic_store_explicit (&io->state, begin_of (now_ns), memory_order_release);
    return io;
  }
  return NULL;
}

void
inflight_end (struct inflight_io *io, int ret)
{
  uint64_t state;

  if (!io)
    return;
  state = atomic_load_explicit (&io->state, memory_order_relaxed);
  /* Not just a store: the scan may report it at this very moment. */
  if (!(state & TAG) && atomic_compare_exchange_strong_explicit (
                          &io->state, &state, 0, memory_order_release, memory_order_relaxed))
    return;
  io->end_ns = now_ns ();
  io->ret = ret;
  atomic_store_explicit (&io->state, begin_of (state) | ENDED, memory_order_release);
}

static void
report (const struct inflight_io *io, const char *path, bool ended, uint64_t ns)
{
  const char *kind = io->write ? "write" : "read";
  uint64_t offset = (uint64_t) io->first_slot << PAGE_SHIFT, seconds = ns / 1000000000;
  char size[16];

  format_bytes ((uint64_t) io->nslots << PAGE_SHIFT, size);
  if (!ended)
    log_warning ("still waiting for a %s of %s at offset %" PRIu64 " of %s: %" PRIu64 " s", kind,
                 size, offset, path, seconds);
  else if (io->ret == 0)
    log_warning ("a %s of %s at offset %" PRIu64 " of %s took %" PRIu64 " s in the end", kind, size,
                 offset, path, seconds);
  else
    log_warning ("a %s of %s at offset %" PRIu64 " of %s failed after %" PRIu64 " s: %s", kind,
                 size, offset, path, seconds, strerror (-io->ret));
}

void
inflight_scan (struct inflight *t, const char *path, uint64_t now_ns, uint64_t limit_ns)
{
  for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
    struct inflight_io *io = &t->io[i];
    uint64_t state = atomic_load_explicit (&io->state, memory_order_acquire);
    uint64_t begin_ns = begin_of (state);

    if ((state & TAG) == ENDED) {
      report (io, path, true, io->end_ns - begin_ns);
      atomic_store_explicit (&io->state, 0, memory_order_release);
    } else if (state && !(state & TAG) && now_ns > begin_ns && now_ns - begin_ns >= limit_ns &&
               atomic_compare_exchange_strong_explicit (&io->state, &state, begin_ns | REPORTED,
                                                        memory_order_acq_rel, memory_order_relaxed))
      report (io, path, false, now_ns - begin_ns);
  }
}

uint64_t
inflight_oldest_ns (const struct inflight *t)
{
  uint64_t oldest_ns = 0;

  for (unsigned i = 0; i < INFLIGHT_MAX; i++) {
    uint64_t state = atomic_load_explicit (&t->io[i].state, memory_order_relaxed);
    uint64_t begin_ns = begin_of (state);

    if (begin_ns && (state & TAG) != ENDED && (!oldest_ns || begin_ns < oldest_ns))
      oldest_ns = begin_ns;
  }
  return oldest_ns;
}
