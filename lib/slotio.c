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

/* Transfer pieces [begin, end), whose slots are consecutive. */
static int
submit_run (struct slotio *io, unsigned begin, unsigned end)
{
  struct slot_run all = { .first = io->piece[begin].run.first };
  struct iovec iov[DRUM_BATCH];
  unsigned niov = 0;

  for (unsigned i = begin; i < end; i++) {
    all.n += io->piece[i].run.n;
    iov[niov++] = (struct iovec){
      .iov_base = io->piece[i].data,
      .iov_len = (size_t) io->piece[i].run.n * PAGE_BYTES,
    };
  }
  switch (io->kind) {
  case SLOTIO_READ:
    return drum_read (io->drum, io->flow, all.first, iov, niov);
  case SLOTIO_WRITE:
    return drum_write (io->drum, io->flow, all.first, iov, niov);
  case SLOTIO_READAHEAD:
    break;
  }
  drum_readahead (io->drum, all);
  return 0;
}

int
slotio_submit (struct slotio *io)
{
  io->first_error = 0;
  sort_pieces (io);
  for (unsigned begin = 0, end; begin < io->npieces; begin = end) {
    int ret;

    for (end = begin + 1; end < io->npieces; end++)
      if (io->piece[end - 1].run.first + io->piece[end - 1].run.n != io->piece[end].run.first)
        break;
    ret = submit_run (io, begin, end);
    for (unsigned i = begin; i < end; i++)
      io->piece[i].ret = ret;
    if (io->first_error == 0)
      io->first_error = ret;
  }
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
