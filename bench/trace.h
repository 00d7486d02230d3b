/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace.h - what a kernel that swaps asked its server for, in its order.
 *
 * Concurrency: kept as its cause, not by the clock. A request says how many of those before it had ended when it came, so
 *              whoever sends it as soon as that many have ended has as many in flight as the kernel had, or fewer.
 * Format:      a line "drum swap trace 1: N requests\n", then three numbers a request, each in groups of 7 bits, the lowest
 *              first, with bit 7 set in all bytes but the last:
 *                (npages - 1) * 4 + kind
 *                page less the end of the request before, as 2 * d, or -2 * d - 1 if d is negative
 *                nended less that of the request before
 *              all through xz, which takes it to some 2 bytes a request.
 * Errors:      what can't be read ends the program, and it says why.
 */
#ifndef DRUM_BENCH_TRACE_H
#define DRUM_BENCH_TRACE_H

#include <stdint.h>
#include <stdio.h>

enum { PAGE_BYTES = 4096 };
enum trace_kind { TRACE_READ, TRACE_WRITE, TRACE_TRIM, TRACE_NKINDS };

struct trace_request {
  enum trace_kind kind;
  uint32_t page;
  uint32_t npages;
  uint32_t nended;
};

struct trace {
  struct trace_request *requests;
  uint32_t nrequests;
  uint32_t npages;      /* of the export: the end of the request that reaches furthest */
  uint32_t nwidest;     /* pages of the largest read or write */
  uint32_t nconcurrent; /* most requests in flight at once */
};

/* The trace in this file. */
struct trace trace_load (const char *path);

/* The one that a log of nbdkit's log filter holds, in whole pages. Requests that are neither read, write nor trim don't count. */
struct trace trace_from_log (FILE *log);

/* In the format above, less xz. */
void trace_print (const struct trace *t, FILE *to);

void trace_free (struct trace *t);

#endif
