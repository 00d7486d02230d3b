/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "queued.h"

void
queued_submit (struct queued *q, unsigned nservers, struct queued_request r, uint64_t ns)
{
  unsigned server = 0;

  for (unsigned i = 1; i < nservers; i++)
    if (q->free_ns[i] < q->free_ns[server])
      server = i;
  r.end_ns = (q->free_ns[server] > r.begin_ns ? q->free_ns[server] : r.begin_ns) + ns;
  q->free_ns[server] = r.end_ns;
  q->out[q->nout++] = r;
}

struct queued_request
queued_take (struct queued *q)
{
  struct queued_request r;
  unsigned next = 0;

  for (unsigned i = 1; i < q->nout; i++)
    if (q->out[i].end_ns < q->out[next].end_ns)
      next = i;
  r = q->out[next];
  q->out[next] = q->out[--q->nout];
  return r;
}
