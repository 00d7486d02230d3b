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
}

void
slotio_add (struct slotio *io, uint32_t slot, void *data)
{
  if (io->npieces > 0) {
    struct slotio_piece *last = &io->piece[io->npieces - 1];

    if (last->run.first + last->run.n == slot &&
        (!data || (char *) last->data + (size_t) last->run.n * PAGE_BYTES == data)) {
      last->run.n++;
      return;
    }
  }
  io->piece[io->npieces++] =
    (struct slotio_piece){ .run = { .first = slot, .n = 1 }, .data = data };
}

/* By slot. An insertion sort: pieces come sorted, or nearly so, and are few. */
static void
sort_pieces (struct slotio *io)
{
  for (unsigned i = 1; i < io->npieces; i++) {
    struct slotio_piece piece = io->piece[i];
    unsigned at = i;

    for (; at > 0 && io->piece[at - 1].run.first > piece.run.first; at--)
      io->piece[at] = io->piece[at - 1];
    io->piece[at] = piece;
  }
}

/* The end of the run of consecutive slots that piece begin begins. */
static unsigned
run_end (const struct slotio *io, unsigned begin)
{
  unsigned end = begin + 1;

  while (end < io->npieces &&
         io->piece[end - 1].run.first + io->piece[end - 1].run.n == io->piece[end].run.first)
    end++;
  return end;
}

static void
read_ahead (struct slotio *io)
{
  for (unsigned begin = 0, end; begin < io->npieces; begin = end) {
    struct slot_run all = { .first = io->piece[begin].run.first };

    end = run_end (io, begin);
    for (unsigned i = begin; i < end; i++) {
      all.n += io->piece[i].run.n;
      io->piece[i].ret = 0;
    }
    drum_readahead (io->drum, all);
  }
}

/* As many runs as may be under way at once, from piece begin on. Returns where the next ones begin. */
static unsigned
transfer_some (struct slotio *io, unsigned begin)
{
  struct drum_io transfer[DRUM_TOGETHER];
  unsigned ends[DRUM_TOGETHER], n = 0, at = begin;
  struct iovec iov[DRUM_BATCH];

  for (; n < DRUM_TOGETHER && at < io->npieces; n++) {
    ends[n] = run_end (io, at);
    transfer[n] = (struct drum_io){
      .slot = io->piece[at].run.first,
      .iov = &iov[at - begin],
      .niov = ends[n] - at,
    };
    for (; at < ends[n]; at++)
      iov[at - begin] = (struct iovec){
        .iov_base = io->piece[at].data,
        .iov_len = (size_t) io->piece[at].run.n * PAGE_BYTES,
      };
  }
  drum_transfer (io->drum, io->flow, io->kind == SLOTIO_WRITE, transfer, n);
  for (unsigned i = 0; i < n; i++) {
    if (io->first_error == 0)
      io->first_error = transfer[i].ret;
    while (begin < ends[i])
      io->piece[begin++].ret = transfer[i].ret;
  }
  return at;
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

    if (io->piece[middle].run.first <= slot)
      low = middle;
    else
      high = middle;
  }
  return io->piece[low].ret;
}
