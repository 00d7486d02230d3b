/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "slotio.h"

#include <stddef.h>

#include "units.h"

void
slotio_init (struct slotio *io, struct drum *d, const struct flow *flow, enum slotio_kind kind)
{
  io->drum = d;
  io->flow = flow;
  io->kind = kind;
  io->npieces = 0;
  io->known_ns = 0;
}

static uint32_t
piece_slots (const struct slotio *io, unsigned i)
{
  return (uint32_t) (io->iov[i].iov_len >> PAGE_SHIFT);
}

void
slotio_add (struct slotio *io, uint32_t slot, void *data)
{
  unsigned n = io->npieces;

  if (n > 0 && io->slot[n - 1] + piece_slots (io, n - 1) == slot) {
    struct iovec *last = &io->iov[n - 1];

    if (!data || (char *) last->iov_base + last->iov_len == data) {
      last->iov_len += PAGE_BYTES;
      return;
    }
  }
  io->slot[n] = slot;
  io->iov[n] = (struct iovec){ .iov_base = data, .iov_len = PAGE_BYTES };
  io->npieces++;
}

/* By slot. An insertion sort: pieces come sorted, or nearly so, and are few. */
static void
sort_pieces (struct slotio *io)
{
  for (unsigned i = 1; i < io->npieces; i++) {
    uint32_t slot = io->slot[i];
    struct iovec iov = io->iov[i];
    unsigned at = i;

    for (; at > 0 && io->slot[at - 1] > slot; at--) {
      io->slot[at] = io->slot[at - 1];
      io->iov[at] = io->iov[at - 1];
    }
    io->slot[at] = slot;
    io->iov[at] = iov;
  }
}

/* The end of the run of consecutive slots that piece begin begins. */
static unsigned
run_end (const struct slotio *io, unsigned begin)
{
  unsigned end = begin + 1;

  while (end < io->npieces && io->slot[end - 1] + piece_slots (io, end - 1) == io->slot[end])
    end++;
  return end;
}

static void
read_ahead (struct slotio *io)
{
  for (unsigned begin = 0, end; begin < io->npieces; begin = end) {
    struct slot_run all = { .first = io->slot[begin] };

    end = run_end (io, begin);
    for (unsigned i = begin; i < end; i++) {
      all.n += piece_slots (io, i);
      io->ret[i] = 0;
    }
    drum_readahead (io->drum, all);
  }
}

/* As many runs as may be under way at once, from piece begin on. Returns where the next ones begin. */
static unsigned
transfer_some (struct slotio *io, unsigned begin)
{
  struct drum_io transfer[DRUM_TOGETHER];
  unsigned n = 0;

  for (unsigned at = begin, end; n < DRUM_TOGETHER && at < io->npieces; at = end) {
    end = run_end (io, at);
    transfer[n].slot = io->slot[at];
    transfer[n].iov = &io->iov[at];
    transfer[n++].niov = end - at;
  }
  drum_transfer (io->drum, io->flow, io->kind == SLOTIO_WRITE, transfer, n, &io->known_ns);
  for (unsigned i = 0; i < n; i++) {
    if (io->first_error == 0)
      io->first_error = transfer[i].ret;
    for (unsigned k = 0; k < transfer[i].niov; k++)
      io->ret[begin++] = transfer[i].ret;
  }
  return begin;
}

int
slotio_submit (struct slotio *io)
{
  io->first_error = 0;
  sort_pieces (io);
  if (io->kind == SLOTIO_READAHEAD)
    read_ahead (io);
  else
    for (unsigned begin = 0; begin < io->npieces; begin = transfer_some (io, begin))
      ;
  return io->first_error;
}

int
slotio_result (const struct slotio *io, uint32_t slot)
{
  unsigned low = 0, high = io->npieces; /* pieces are sorted by now */

  if (io->first_error == 0)
    return 0;
  while (high - low > 1) {
    unsigned middle = (low + high) / 2;

    if (io->slot[middle] <= slot)
      low = middle;
    else
      high = middle;
  }
  return io->ret[low];
}
