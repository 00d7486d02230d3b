/* SPDX-License-Identifier: BSD-3-Clause
 *
 * scaling.c - what does a request cost lib/, on drums of 1 GiB to 16 TiB, nearly empty to nearly full, by 1 to 16 threads?
 *
 * A drum's device is a sparse file, on which nothing is written but its label. The requests are for a working set whose pages lie all over
 * the export, at first in slots all over the drum; all the other slots that are used are claimed, in runs, as pages of nobody.
 * So what lib/ looks at is as large as it would be, but the data is not: each page of the working set has a frame of a file in memory, the
 * same for all drums, and always the same contents; there the system calls go, whatever slot they are for. The same calls and checksums without
 * lib/ are the base: what is more is lib/'s.
 *
 * Figures are CPU time of the thread, medians of rounds. All drums are there at once and take turns; ratios are taken within the round, so
 * that what else the machine does hits both.
 */
#include <config.h>

#include <err.h>
#include <getopt.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bench/measure.h"
#include "drum.h"
#include "export.h"
#include "log.h"
#include "pagemap.h"
#include "pagesum.h"
#include "ring.h"
#include "service.h"
#include "tests/unit/served.h"
#include "units.h"

enum {
  NSMALL = 1 << 14, /* requests of a page, and of 1 MiB, in the working set */
  NLARGE = 64,
  LARGE_PAGES = 256,
  NFRAMES = NSMALL + NLARGE * LARGE_PAGES,
  NPARTS = 16, /* of the frames, each a file: so threads do not meet in the kernel's lock of one */
  RUN_PAGES = 80,
  FIRST_SLOT = 3,
  MAX_ROUNDS = 31,
  MAX_THREADS = 16,
};

enum request { NOTHING, READ, WRITE, TRIM, ZEROES };

/* What is measured, and what is done with the same pages before and after. */
struct figure {
  const char *name;
  enum request before, timed, after;
  bool large;
};

static const struct figure figures[] = {
  { "read_4K", NOTHING, READ, NOTHING, false },    { "rewrite_4K", NOTHING, WRITE, NOTHING, false },
  { "trim_4K", NOTHING, TRIM, WRITE, false },      { "write_4K", TRIM, WRITE, NOTHING, false },
  { "zeroes_4K", NOTHING, ZEROES, WRITE, false },  { "read_1M", NOTHING, READ, NOTHING, true },
  { "rewrite_1M", NOTHING, WRITE, NOTHING, true },
};
enum { NFIGURES = sizeof figures / sizeof figures[0], FIGURE_READ = 0, FIGURE_REWRITE = 1 };

/* A drum, or the base. */
struct target {
  const char *size;
  uint64_t gib; /* 0: the base */
  unsigned used_percent;
  unsigned reference; /* the target that it is compared with */
  char device[4200];
  struct service service;
  struct export *export;
  uint64_t small_page[NSMALL], large_page[NLARGE]; /* where in the export they are */
  uint32_t next_small, next_large;
  double ns[NFIGURES][MAX_ROUNDS];
};

static char dir[4096];
static unsigned nrounds = 15, nsmall = 1000, nlarge = 6, npairs = 50000;
static int frames[NPARTS];
static _Alignas(64) char buffer[LARGE_PAGES * PAGE_BYTES]; /* set_contents */

/* Where this thread's I/O goes instead of to the device: data at buf to and from at. */
static _Thread_local struct {
  int fd;
  off_t at;
  const char *buf; /* NULL: to the device */
} frame;

ssize_t __real_preadv (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_preadv (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at);

typedef ssize_t transfer (int fd, const struct iovec *iov, int niov, off_t at);

/* Pages of a request may lie in another order on the device than in memory. */
static ssize_t
transfer_frames (transfer *call, const struct iovec *iov, int niov)
{
  ssize_t sum = 0;

  for (int i = 0; i < niov; i++) {
    ssize_t done =
      call (frame.fd, &iov[i], 1, frame.at + ((const char *) iov[i].iov_base - frame.buf));

    if (done < 0)
      return done;
    sum += done;
  }
  return sum;
}

ssize_t
__wrap_preadv (int fd, const struct iovec *iov, int niov, off_t at)
{
  return frame.buf ? transfer_frames (__real_preadv, iov, niov) : __real_preadv (fd, iov, niov, at);
}

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  return frame.buf ? transfer_frames (__real_pwritev, iov, niov)
                   : __real_pwritev (fd, iov, niov, at);
}

static void
make_frames (void)
{
  for (unsigned i = 0; i < NPARTS; i++) {
    frames[i] = memfd_create ("frames", MFD_CLOEXEC);
    if (frames[i] == -1 || ftruncate (frames[i], (off_t) NFRAMES / NPARTS * PAGE_BYTES) == -1)
      err (EXIT_FAILURE, "memory");
  }
}

static void
say_errors (enum log_level level, const char *fmt, va_list args)
{
  if (level != LEVEL_ERROR)
    return;
  vwarnx (fmt, args);
}

static void
print (const char *what, const char *of, const char *unit, double value)
{
  printf ("scale_%s_%s_%s %.4g\n", what, of, unit, value);
  fflush (stdout);
}

/* ---- requests ---- */

/* Request i of the working set: its I/O goes to its frame. */
static void
use_frame (bool large, uint32_t i, const void *buf)
{
  uint32_t per_part = large ? NLARGE / NPARTS : NSMALL / NPARTS, place = i % per_part;
  uint32_t at = large ? NSMALL / NPARTS + place * LARGE_PAGES : place;

  frame.fd = frames[i / per_part];
  frame.at = (off_t) at * PAGE_BYTES;
  frame.buf = buf;
}

/* Contents that are not of zeroes: with the number of the request, at the beginning, they are those of its pages. */
static void
set_contents (char *buf, unsigned npages)
{
  memset (buf, 0, (size_t) npages * PAGE_BYTES);
  for (unsigned i = 0; i < npages; i++)
    buf[(size_t) i * PAGE_BYTES + PAGE_BYTES / 2] = 1;
}

static void
sum_pages (const char *buf, unsigned npages)
{
  for (unsigned i = 0; i < npages; i++)
    pagesum_contents (buf + (size_t) i * PAGE_BYTES); /* in another file: it is called */
}

/* What is left of a request without lib/. */
static int
request_base (enum request what, char *buf, unsigned npages)
{
  struct iovec iov = { .iov_base = buf, .iov_len = (size_t) npages * PAGE_BYTES };
  ssize_t done = (ssize_t) iov.iov_len;

  if (what == WRITE) {
    sum_pages (buf, npages);
    done = pwritev (frame.fd, &iov, 1, frame.at);
  } else if (what == READ) {
    done = preadv (frame.fd, &iov, 1, frame.at);
    sum_pages (buf, npages);
  }
  return done == (ssize_t) iov.iov_len ? 0 : -1;
}

static void
request (const struct target *t, enum request what, bool large, uint32_t i, char *buf)
{
  static char zeroes[PAGE_BYTES];
  unsigned npages = large ? LARGE_PAGES : 1;
  uint64_t bytes = npages * PAGE_BYTES, offset;
  int ret = 0;

  use_frame (large, i, buf);
  offset = (large ? t->large_page[i] : t->small_page[i]) * PAGE_BYTES;
  if (what == WRITE)
    *(uint32_t *) (void *) buf = i + 1;
  if (!t->export)
    ret = request_base (what, buf, npages);
  else if (what == READ)
    ret = export_read (t->export, buf, bytes, offset);
  else if (what == WRITE)
    ret = export_write (t->export, buf, bytes, offset);
  else if (what == TRIM)
    ret = export_trim (t->export, bytes, offset);
  else if (what == ZEROES)
    ret = export_write (t->export, zeroes, bytes, offset);
  if (ret < 0)
    errx (EXIT_FAILURE, "%s, %u %% used: a request fails: %s", t->size, t->used_percent,
          strerror (-ret));
}

/* n of them, from number first on. */
static void
requests (const struct target *t, enum request what, bool large, uint32_t first, unsigned n)
{
  uint32_t end = large ? NLARGE : NSMALL;

  for (unsigned k = 0; k < n && what != NOTHING; k++)
    request (t, what, large, (first + k) % end, buffer);
}

/* By itself, so that a profiler can be told to look at nothing else. */
static __attribute__ ((noinline)) void
timed (const struct target *t, enum request what, bool large, uint32_t first, unsigned n)
{
  requests (t, what, large, first, n);
}

/* CPU time of one, in ns. */
static double
measure (struct target *t, const struct figure *f)
{
  unsigned n = f->large ? nlarge : nsmall;
  uint32_t *next = f->large ? &t->next_large : &t->next_small, first = *next;
  uint64_t begin_ns;
  double ns;

  requests (t, f->before, f->large, first, n);
  begin_ns = clock_ns (CLOCK_THREAD_CPUTIME_ID);
  timed (t, f->timed, f->large, first, n);
  ns = (double) (clock_ns (CLOCK_THREAD_CPUTIME_ID) - begin_ns) / n;
  requests (t, f->after, f->large, first, n);
  frame.buf = NULL;
  *next = (first + n) % (f->large ? NLARGE : NSMALL);
  return ns;
}

/* ---- drums ---- */

static void
start (struct target *t, const char *name)
{
  uint64_t nslots = t->gib * GIB / PAGE_BYTES;
  struct swapdev_spec spec = { .path = t->device };
  struct service_config config = { .devices = &spec,
                                   .ndevices = 1,
                                   .stripe_bytes = STRIPE_DEFAULT_BYTES,
                                   .size_bytes = 2 * t->gib * GIB, /* small, and large requests */
                                   .checksum = true,
                                   .io = RINGS_NEVER }; /* a ring knows nothing of frames */

  snprintf (t->device, sizeof t->device, "%s/%s-%s-%u", dir, name, t->size, t->used_percent);
  make_sparse (t->device, (nslots < SLOT_MAX ? nslots : SLOT_MAX) * PAGE_BYTES);
  if (service_start (&config, &t->service) < 0)
    errx (EXIT_FAILURE, "no start in %s", dir);
  unlink (t->device);
  t->export = served (&t->service);
}

/* In a random order, spread evenly over npages from base on. */
static void
spread (uint64_t *pages, uint32_t n, uint64_t base, uint64_t npages, unsigned align)
{
  uint64_t part = npages / n;

  for (uint32_t i = 0; i < n; i++) {
    uint32_t k = random_below (i + 1);

    pages[i] = pages[k];
    pages[k] =
      base + i * part + (part > align ? random_below ((uint32_t) (part / align)) * align : 0);
  }
}

static uint64_t
nslots_of (const struct target *t)
{
  struct drum_usage usage;

  drum_usage (t->service.drum, &usage);
  return usage.nslots;
}

/* Each of the small pages is in a slot anywhere. */
static void
place_small (struct target *t)
{
  uint64_t key = pagesum_export_key (export_name (t->export));
  _Alignas(64) char data[PAGE_BYTES];

  set_contents (data, 1);
  for (uint32_t i = 0; i < NSMALL; i++) {
    struct slot_run run = { .n = 1 };

    do
      run.first = FIRST_SLOT + random_below ((uint32_t) nslots_of (t));
    while (drum_claim (t->service.drum, run) == 0);
    *(uint32_t *) (void *) data = i + 1;
    export_restore (t->export, t->small_page[i],
                    (struct pagemap_entry){ .slot = run.first,
                                            .sum = pagesum_contents (data) ^
                                                   pagesum_key (key, t->small_page[i]) });
  }
}

static uint32_t
random_length (uint64_t mean)
{
  return 1 + random_below ((uint32_t) (2 * mean - 1));
}

/* Nobody's pages in all the others that are to be used: runs of them, and of free slots between them. */
static void
claim_others (struct target *t)
{
  uint64_t nslots = nslots_of (t), nused = nslots * t->used_percent / 100 - NFRAMES;
  uint64_t mean_free = RUN_PAGES * (nslots - nused) / nslots;
  uint64_t mean_used;

  mean_free = mean_free ? mean_free : 1;
  mean_used = mean_free * nused / (nslots - nused);
  for (uint64_t slot = FIRST_SLOT; slot < nslots; slot += random_length (mean_free)) {
    uint32_t n = random_length (mean_used ? mean_used : 1);
    struct slot_run run = { .first = (uint32_t) slot };

    run.n = n < nslots - slot ? n : (uint32_t) (nslots - slot);
    drum_claim (t->service.drum, run);
    slot += run.n;
  }
}

static void
make_target (struct target *t)
{
  uint64_t npages = t->gib * GIB / PAGE_BYTES;

  if (!t->gib)
    return;
  random_begin ();
  start (t, "drum");
  spread (t->small_page, NSMALL, 0, npages, 1);
  spread (t->large_page, NLARGE, npages, npages, LARGE_PAGES);
  place_small (t);
  claim_others (t);
  requests (t, WRITE, true, 0, NLARGE);
  frame.buf = NULL;
}

static void
end_target (struct target *t)
{
  if (t->export)
    service_stop (&t->service);
}

/* Have all frames written. */
static void
fill_frames (void)
{
  static const struct target base;

  make_frames ();
  set_contents (buffer, LARGE_PAGES);
  requests (&base, WRITE, false, 0, NSMALL);
  requests (&base, WRITE, true, 0, NLARGE);
  frame.buf = NULL;
}

/* ---- sizes and fills ---- */

static void
name_target (const struct target *t, const char *figure, char name[64])
{
  if (t->gib)
    snprintf (name, 64, "%s_%s_%upct", figure, t->size, t->used_percent);
  else
    snprintf (name, 64, "%s_base", figure);
}

static void
print_figure (const struct target *targets, unsigned k, unsigned f)
{
  const struct target *t = &targets[k], *reference = &targets[t->reference];
  double ns[MAX_ROUNDS], ratio[MAX_ROUNDS];
  char name[64];

  if (!t->gib && figures[f].timed != READ && figures[f].timed != WRITE)
    return;
  for (unsigned i = 0; i < nrounds; i++) {
    ns[i] = t->ns[f][i];
    ratio[i] = t->ns[f][i] / reference->ns[f][i];
  }
  name_target (t, figures[f].name, name);
  print (name, "cpu", "ns", median (ns, nrounds));
  if (t->gib)
    print (name, "to", reference->used_percent == t->used_percent ? "1G" : "50pct",
           median (ratio, nrounds));
}

/* A write and a read of 4 KiB, less the base's. */
static void
print_over (const struct target *t, const struct target *base)
{
  double ns[MAX_ROUNDS];
  char name[64];

  for (unsigned i = 0; i < nrounds; i++)
    ns[i] = t->ns[FIGURE_READ][i] + t->ns[FIGURE_REWRITE][i] - base->ns[FIGURE_READ][i] -
            base->ns[FIGURE_REWRITE][i];
  name_target (t, "rewrite_and_read_4K", name);
  print (name, "over_base", "ns", median (ns, nrounds));
}

static void
bench_targets (struct target *targets, unsigned n)
{
  for (unsigned k = 0; k < n; k++) { /* nobody finds in the caches what another one has just used */
    targets[k].next_small = NSMALL / n * k;
    targets[k].next_large = NLARGE / n * k;
  }
  for (unsigned i = 0; i < nrounds; i++)
    for (unsigned f = 0; f < NFIGURES; f++)
      for (unsigned k = 0; k < n; k++)
        targets[k].ns[f][i] = measure (&targets[k], &figures[f]);
  for (unsigned f = 0; f < NFIGURES; f++)
    for (unsigned k = 0; k < n; k++)
      print_figure (targets, k, f);
  for (unsigned k = 1; k < n; k++)
    print_over (&targets[k], &targets[0]);
}

/* ---- threads ---- */

struct worker {
  pthread_t thread;
  const struct target *target;
  pthread_barrier_t *begin;
  uint32_t first, end; /* of the small pages */
  unsigned npairs;
  uint64_t cpu_ns;
};

static void *
work (void *opaque)
{
  struct worker *w = opaque;
  uint32_t n = w->end - w->first;
  _Alignas(64) char buf[PAGE_BYTES];

  set_contents (buf, 1);
  pthread_barrier_wait (w->begin);
  w->cpu_ns = clock_ns (CLOCK_THREAD_CPUTIME_ID);
  for (unsigned i = 0; i < w->npairs; i++) {
    request (w->target, WRITE, false, w->first + i % n, buf);
    request (w->target, READ, false, w->first + (i + n / 2) % n, buf);
  }
  w->cpu_ns = clock_ns (CLOCK_THREAD_CPUTIME_ID) - w->cpu_ns;
  return NULL;
}

/* Pairs of a write and a read, on disjoint pages. */
static void
run_threads (const struct target *t, unsigned nthreads, double *pairs_per_second, double *cpu_ns)
{
  struct worker workers[MAX_THREADS];
  pthread_barrier_t barrier;
  uint64_t begin_ns, sum_ns = 0;

  pthread_barrier_init (&barrier, NULL, nthreads + 1);
  for (unsigned i = 0; i < nthreads; i++) {
    workers[i] = (struct worker){ .target = t,
                                  .begin = &barrier,
                                  .first = NSMALL / nthreads * i,
                                  .end = NSMALL / nthreads * (i + 1),
                                  .npairs = npairs / nthreads };
    if (pthread_create (&workers[i].thread, NULL, work, &workers[i]))
      errx (EXIT_FAILURE, "no thread");
  }
  begin_ns = clock_ns (CLOCK_MONOTONIC);
  pthread_barrier_wait (&barrier);
  for (unsigned i = 0; i < nthreads; i++) {
    pthread_join (workers[i].thread, NULL);
    sum_ns += workers[i].cpu_ns;
  }
  *pairs_per_second = npairs * 1e9 / (double) (clock_ns (CLOCK_MONOTONIC) - begin_ns);
  *cpu_ns = (double) sum_ns / npairs;
  pthread_barrier_destroy (&barrier);
}

static void
bench_threads (const struct target *base, const struct target *t, unsigned max)
{
  for (unsigned n = 1; n <= max; n *= 2) {
    double rate[2][MAX_ROUNDS], cpu_ns[2][MAX_ROUNDS], ratio[MAX_ROUNDS];
    char name[32];

    for (unsigned i = 0; i < nrounds; i++) {
      run_threads (base, n, &rate[0][i], &cpu_ns[0][i]);
      run_threads (t, n, &rate[1][i], &cpu_ns[1][i]);
      ratio[i] = rate[1][i] / rate[0][i];
    }
    snprintf (name, sizeof name, "%u_threads", n);
    print (name, "rewrite_and_read_4K", "per_s", median (rate[1], nrounds));
    print (name, "base", "per_s", median (rate[0], nrounds));
    print (name, "to", "base", median (ratio, nrounds));
    print (name, "cpu", "ns", median (cpu_ns[1], nrounds));
    print (name, "base_cpu", "ns", median (cpu_ns[0], nrounds));
  }
}

/* ---- starts ---- */

static void
bench_start (const char *size, uint64_t gib)
{
  double ms[MAX_ROUNDS];
  static struct target t;

  t = (struct target){ .size = size, .gib = gib };
  for (unsigned i = 0; i < nrounds; i++) {
    uint64_t begin_ns = clock_ns (CLOCK_MONOTONIC);

    start (&t, "start");
    ms[i] = (double) (clock_ns (CLOCK_MONOTONIC) - begin_ns) / 1e6;
    service_stop (&t.service);
  }
  print ("start", size, "ms", median (ms, nrounds));
}

/* ---- */

/* References are indexes here. */
static struct target all[] = {
  { .size = "base" },
  { .size = "1G", .gib = 1, .used_percent = 50, .reference = 1 },
  { .size = "16G", .gib = 16, .used_percent = 50, .reference = 1 },
  { .size = "256G", .gib = 256, .used_percent = 50, .reference = 1 },
  { .size = "1T", .gib = 1 << 10, .used_percent = 50, .reference = 1 },
  { .size = "4T", .gib = 4 << 10, .used_percent = 50, .reference = 1 },
  { .size = "16T", .gib = 16 << 10, .used_percent = 50, .reference = 1 },
  { .size = "1T", .gib = 1 << 10, .used_percent = 10, .reference = 4 },
  { .size = "1T", .gib = 1 << 10, .used_percent = 90, .reference = 4 },
  { .size = "1T", .gib = 1 << 10, .used_percent = 99, .reference = 4 },
};
static struct target few[] = {
  { .size = "base" },
  { .size = "1G", .gib = 1, .used_percent = 50, .reference = 1 },
  { .size = "256G", .gib = 256, .used_percent = 50, .reference = 1 },
  { .size = "256G", .gib = 256, .used_percent = 99, .reference = 2 },
};

/* One figure only, on the first drum. */
static void
bench_only (const char *name)
{
  unsigned f = 0;

  while (f < NFIGURES && strcmp (figures[f].name, name) != 0)
    f++;
  if (f == NFIGURES)
    errx (EXIT_FAILURE, "no figure is called %s", name);
  make_target (&few[1]);
  for (unsigned i = 0; i < nrounds; i++)
    few[1].ns[f][i] = measure (&few[1], &figures[f]);
  print (name, "cpu", "ns", median (few[1].ns[f], nrounds));
  end_target (&few[1]);
}

/* The threads only. */
static void
bench_only_threads (unsigned nthreads)
{
  double rate, cpu_ns;

  make_target (&few[1]);
  run_threads (&few[1], nthreads, &rate, &cpu_ns);
  print ("threads", "cpu", "ns", cpu_ns);
  end_target (&few[1]);
}

static void
bench_all (bool quick)
{
  struct target *targets = quick ? few : all;
  unsigned n = quick ? sizeof few / sizeof few[0] : sizeof all / sizeof all[0];

  for (unsigned k = 0; k < n; k++)
    make_target (&targets[k]);
  bench_targets (targets, n);
  bench_threads (&targets[0], &targets[quick ? 2 : 4], quick ? 2 : MAX_THREADS);
  for (unsigned k = 0; k < n; k++)
    end_target (&targets[k]);
  bench_start ("1G", 1);
  bench_start ("1T", 1 << 10);
  if (!quick)
    bench_start ("16T", 16 << 10);
}

static void
usage (FILE *where)
{
  fprintf (where,
           "usage: scaling [--quick] [--only FIGURE | --threads N] [DIR]\n"
           "Print what a request costs lib/, one `name value' line a figure. DIR is for sparse "
           "files (default: /dev/shm); up to\n"
           "3 GiB of memory are used.\n"
           "  --quick        few and small drums, few rounds: shows that it runs, not how fast\n"
           "  --only FIGURE  15000 requests for a page, or 90 for 1 MiB, on 1 GiB: for a profiler "
           "(function: timed)\n"
           "  --threads N    50000 writes and reads by N threads on 1 GiB, for a tracer\n");
}

int
main (int argc, char **argv)
{
  static const struct option options[] = {
    { "help", no_argument, NULL, 'h' },
    { "only", required_argument, NULL, 'o' },
    { "quick", no_argument, NULL, 'q' },
    { "threads", required_argument, NULL, 't' },
    { 0 },
  };
  const char *only = NULL;
  unsigned nthreads = 0;
  bool quick = false;
  int c;

  while ((c = getopt_long (argc, argv, "", options, NULL)) != -1) {
    if (c == 'h') {
      usage (stdout);
      return EXIT_SUCCESS;
    }
    if (c == 'o')
      only = optarg;
    else if (c == 't')
      nthreads = (unsigned) strtoul (optarg, NULL, 10);
    else if (c == 'q')
      quick = true;
    else {
      usage (stderr);
      return EXIT_FAILURE;
    }
  }
  if (nthreads > MAX_THREADS || argc > optind + 1) {
    usage (stderr);
    return EXIT_FAILURE;
  }
  if (quick) {
    nrounds = 3;
    npairs = 20000;
  }
  log_set_sink (say_errors);
  snprintf (dir, sizeof dir, "%s/drum-scale-XXXXXX", optind < argc ? argv[optind] : "/dev/shm");
  if (!mkdtemp (dir))
    err (EXIT_FAILURE, "%s", dir);
  fill_frames ();
  if (only)
    bench_only (only);
  else if (nthreads)
    bench_only_threads (nthreads);
  else
    bench_all (quick);
  rmdir (dir);
  return EXIT_SUCCESS;
}
