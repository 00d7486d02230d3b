/* SPDX-License-Identifier: BSD-3-Clause
 *
 * trace.c - see trace.h.
 */
#include <config.h>

#include <err.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "trace.h"

#define HEADER "drum swap trace 1: %" PRIu32 " requests"

enum { MAX_REQUESTS = 1 << 26 };

static const char *const names[TRACE_NKINDS] = {
  [TRACE_READ] = "Read", [TRACE_WRITE] = "Write", [TRACE_TRIM] = "Trim"
};

static void
append (struct trace *t, struct trace_request r)
{
  uint64_t end = (uint64_t) r.page + r.npages;

  /* Doubled whenever it is full, which is when there are so many as a power of two. */
  if (t->nrequests == MAX_REQUESTS)
    errx (EXIT_FAILURE, "more than %d requests", MAX_REQUESTS);
  if ((t->nrequests & (t->nrequests - 1)) == 0) {
    size_t n = t->nrequests ? 2 * (size_t) t->nrequests : 1;

    t->requests = reallocarray (t->requests, n, sizeof t->requests[0]);
    if (!t->requests)
      err (EXIT_FAILURE, "%zu requests", n);
  }
  t->requests[t->nrequests++] = r;
  if (end > t->npages)
    t->npages = (uint32_t) end;
  if (r.kind != TRACE_TRIM && r.npages > t->nwidest)
    t->nwidest = r.npages;
  if (t->nrequests - r.nended > t->nconcurrent)
    t->nconcurrent = t->nrequests - r.nended;
}

static uint64_t
get_number (FILE *f, const char *path)
{
  uint64_t n = 0;
  unsigned shift = 0;
  int c;

  do {
    c = getc_unlocked (f);
    if (c == EOF)
      errx (EXIT_FAILURE, "%s: ends too early", path);
    if (shift > 56)
      errx (EXIT_FAILURE, "%s: has a number that is too large", path);
    n |= (uint64_t) (c & 0x7f) << shift;
    shift += 7;
  } while (c & 0x80);
  return n;
}

static void
put_number (uint64_t n, FILE *f)
{
  for (; n > 0x7f; n >>= 7)
    putc ((int) (n & 0x7f) | 0x80, f);
  putc ((int) n, f);
}

/* The next request, which must be one that can come here. */
static struct trace_request
get_request (FILE *f, const char *path, const struct trace_request *before, uint32_t index)
{
  uint64_t head = get_number (f, path), jump = get_number (f, path), step = get_number (f, path);
  int64_t distance = jump & 1 ? -(int64_t) (jump >> 1) - 1 : (int64_t) (jump >> 1);
  int64_t page = (int64_t) before->page + before->npages + distance;
  uint64_t nended = before->nended + step, npages = head / 4 + 1;

  if (head % 4 >= TRACE_NKINDS || page < 0 || page + npages > UINT32_MAX || nended > index)
    errx (EXIT_FAILURE, "%s: request %" PRIu32 " can't be", path, index);
  return (struct trace_request){ .kind = head % 4,
                                 .page = (uint32_t) page,
                                 .npages = (uint32_t) npages,
                                 .nended = (uint32_t) nended };
}

struct trace
trace_load (const char *path)
{
  struct trace_request last = { .npages = 0 };
  struct trace t = { .nrequests = 0 };
  uint32_t n;
  FILE *f;

  /* As xz's standard input, so that no shell sees the name. */
  if (!freopen (path, "r", stdin))
    err (EXIT_FAILURE, "%s", path);
  f = popen ("xz -dc", "r");
  if (!f)
    err (EXIT_FAILURE, "xz");
  if (fscanf (f, HEADER, &n) != 1 || getc (f) != '\n')
    errx (EXIT_FAILURE, "%s: is no trace", path);
  for (uint32_t i = 0; i < n; i++) {
    last = get_request (f, path, &last, i);
    append (&t, last);
  }
  if (getc (f) != EOF)
    errx (EXIT_FAILURE, "%s: has more than %" PRIu32 " requests", path, n);
  if (pclose (f) != 0)
    errx (EXIT_FAILURE, "%s: xz can't read it", path);
  return t;
}

void
trace_print (const struct trace *t, FILE *to)
{
  const struct trace_request *r, *last = &(struct trace_request){ .npages = 0 };

  fprintf (to, HEADER "\n", t->nrequests);
  for (uint32_t i = 0; i < t->nrequests; i++, last = r) {
    int64_t distance;

    r = &t->requests[i];
    distance = (int64_t) r->page - last->page - last->npages;
    put_number ((uint64_t) (r->npages - 1) * 4 + r->kind, to);
    put_number (distance < 0 ? 2 * (uint64_t) (-distance - 1) + 1 : 2 * (uint64_t) distance, to);
    put_number (r->nended - last->nended, to);
  }
  if (fflush (to) != 0 || ferror (to))
    err (EXIT_FAILURE, "the trace");
}

static enum trace_kind
kind_of (const char *name)
{
  enum trace_kind kind = 0;

  while (kind < TRACE_NKINDS && strcmp (name, names[kind]) != 0)
    kind++;
  return kind;
}

/* Lines are "DATE TIME connection=1 Read id=1 offset=0x0 count=0x1000 ..." and, when it has ended,
 * "DATE TIME connection=1 ...Read id=1 return=0". */
struct trace
trace_from_log (FILE *log)
{
  struct trace t = { .nrequests = 0 };
  uint32_t nended = 0;
  char *line = NULL;
  size_t size = 0;

  while (getline (&line, &size, log) != -1) {
    char name[16];
    uint64_t offset, count;
    int n = sscanf (line, "%*s %*s connection=%*u %15s id=%*u offset=%" SCNx64 " count=%" SCNx64,
                    name, &offset, &count);

    if (n == 3 && kind_of (name) != TRACE_NKINDS && count > 0) {
      uint64_t first = offset / PAGE_BYTES, end = (offset + count - 1) / PAGE_BYTES + 1;

      if (end > UINT32_MAX)
        errx (EXIT_FAILURE, "a request is for page %" PRIu64, end - 1);
      append (&t, (struct trace_request){ .kind = kind_of (name),
                                          .page = (uint32_t) first,
                                          .npages = (uint32_t) (end - first),
                                          .nended = nended });
    } else if (n >= 1 && strncmp (name, "...", 3) == 0 && kind_of (name + 3) != TRACE_NKINDS)
      nended++;
  }
  if (nended > t.nrequests)
    errx (EXIT_FAILURE, "the log has more ends than beginnings");
  free (line);
  return t;
}

void
trace_free (struct trace *t)
{
  free (t->requests);
}
