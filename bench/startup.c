/* SPDX-License-Identifier: BSD-3-Clause
 *
 * startup.c - how long does a start with a state take, and what does a write cost more with one?
 *
 * Devices are sparse files that need not be allocated: calls of lib/ that would do it, or ask for the room, do nothing here. The maps
 * are generated: 64 GiB of written pages, in the order of their slots or in random order; and 1 TiB in which nothing is
 * written. A round is one start; a figure is the median round. Then 1000 exports of 1 GiB, at their first start and the next, and the
 * memory that they take. Of writes, it is the CPU time of 4 KiB at a random place, with and without a state.
 */
#include <config.h>

#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "bench/measure.h"
#include "export.h"
#include "service.h"
#include "tests/unit/served.h"
#include "units.h"

enum { NROUNDS = 5, NEXPORTS = 1000, NWRITES = 300000, FIRST_SLOT = 3, SPARE_SLOTS = 2000 };
static char dir[4096], device[4200], state[4200];

static double
now_ms (clockid_t clock)
{
  return (double) clock_ns (clock) / 1e6;
}

static void
print (const char *what, double value, const char *unit)
{
  printf ("startup_%s_%s %.4g %s\n", what, unit, value, unit);
  fflush (stdout);
}

static void
remove_all (void)
{
  char path[4300];

  for (unsigned i = 0; i <= NEXPORTS; i++) {
    snprintf (path, sizeof path, "%s/map-%u", state, i);
    unlink (path);
  }
  snprintf (path, sizeof path, "%s/manifest", state);
  unlink (path);
  snprintf (path, sizeof path, "%s/lock", state);
  unlink (path);
  rmdir (state);
  unlink (device);
}

static void
start (struct service *service, uint64_t size_bytes, bool with_state)
{
  struct swapdev_spec spec = { .path = device };
  struct service_config config = { .devices = &spec,
                                   .ndevices = 1,
                                   .stripe_bytes = 64 << 10,
                                   .size_bytes = size_bytes,
                                   .checksum = true,
                                   .state_dir = with_state ? state : NULL };

  if (service_start (&config, service) < 0)
    errx (EXIT_FAILURE, "no start in %s", dir);
}

/* Say in its map that every page is in a slot: in order, or not. */
static void
write_map (uint64_t npages, bool in_order)
{
  uint64_t bytes = npages * 8;
  char path[4300];
  uint64_t *map;
  int fd;

  snprintf (path, sizeof path, "%s/map-1", state);
  fd = open (path, O_RDWR | O_CLOEXEC);
  map = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (fd == -1 || map == MAP_FAILED)
    err (EXIT_FAILURE, "%s", path);
  for (uint64_t i = 0; i < npages; i++) {
    uint64_t k = in_order ? i : random_below ((uint32_t) i + 1);

    map[i] = map[k];
    map[k] = UINT64_C (0x12345678) << 32 | (FIRST_SLOT + i);
  }
  munmap (map, bytes);
  close (fd);
}

/* Starts with an export of this size, of which the device has room for so much. */
static void
bench_start (const char *name, uint64_t size_bytes, bool written, bool in_order)
{
  double wall_ms[NROUNDS], cpu_ms[NROUNDS];
  struct service service;
  char what[64];

  make_sparse (device, size_bytes + SPARE_SLOTS * PAGE_BYTES);
  start (&service, size_bytes, true);
  service_stop (&service);
  if (written)
    write_map (size_bytes / PAGE_BYTES, in_order);
  for (unsigned i = 0; i < NROUNDS; i++) {
    double wall = now_ms (CLOCK_MONOTONIC), cpu = now_ms (CLOCK_PROCESS_CPUTIME_ID);

    start (&service, size_bytes, true);
    wall_ms[i] = now_ms (CLOCK_MONOTONIC) - wall;
    cpu_ms[i] = now_ms (CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (export_npages_used (served (&service)) != (written ? size_bytes / PAGE_BYTES : 0))
      errx (EXIT_FAILURE, "%s: pages are missing", name);
    service_stop (&service);
  }
  print (name, median (wall_ms, NROUNDS), "ms");
  snprintf (what, sizeof what, "%s_cpu", name);
  print (what, median (cpu_ms, NROUNDS), "ms");
  remove_all ();
}

static uint64_t
resident_kib (void)
{
  unsigned long long npages = 0;
  FILE *f = fopen ("/proc/self/statm", "r");

  if (!f || fscanf (f, "%*u %llu", &npages) != 1)
    err (EXIT_FAILURE, "/proc/self/statm");
  fclose (f);
  return npages * (uint64_t) sysconf (_SC_PAGESIZE) / 1024;
}

/* A start of so many that it takes nothing for granted, and the next one. */
static void
bench_exports (bool with_state)
{
  static struct export_spec exports[NEXPORTS];
  struct swapdev_spec spec = { .path = device };
  struct service_config config = { .devices = &spec,
                                   .ndevices = 1,
                                   .stripe_bytes = 64 << 10,
                                   .exports = exports,
                                   .nexports = NEXPORTS,
                                   .checksum = true,
                                   .state_dir = with_state ? state : NULL };
  double ms[2][NROUNDS], kib = 0;
  struct service service;

  for (unsigned i = 0; i < NEXPORTS; i++) {
    exports[i] = (struct export_spec){ .size_bytes = GIB, .terms.weight = 100 };
    if (asprintf (&exports[i].name, "host-%u", i) == -1)
      err (EXIT_FAILURE, "host-%u", i);
  }
  for (unsigned i = 0; i < NROUNDS; i++) {
    make_sparse (device, GIB);
    for (unsigned again = 0; again < 2; again++) {
      double begin = now_ms (CLOCK_MONOTONIC);
      uint64_t before = resident_kib ();

      if (service_start (&config, &service) < 0)
        errx (EXIT_FAILURE, "no start in %s", dir);
      ms[again][i] = now_ms (CLOCK_MONOTONIC) - begin;
      if (i == 0 && again == 0) /* the others find what this one has left */
        kib = (double) (resident_kib () - before);
      service_stop (&service);
    }
    remove_all ();
  }
  print (with_state ? "1000_exports_with_state" : "1000_exports", median (ms[0], NROUNDS), "ms");
  print (with_state ? "1000_exports_with_state_again" : "1000_exports_again",
         median (ms[1], NROUNDS), "ms");
  print (with_state ? "1000_exports_with_state" : "1000_exports", kib, "KiB");
  for (unsigned i = 0; i < NEXPORTS; i++)
    free (exports[i].name);
}

/* CPU time of a write, in us. */
static double
write_us (bool with_state)
{
  enum { NPAGES = 1 << 16 };
  static char data[PAGE_BYTES];
  struct service service;
  double begin;

  make_sparse (device, 2 * (uint64_t) NPAGES * PAGE_BYTES);
  start (&service, (uint64_t) NPAGES * PAGE_BYTES, with_state);
  memset (data, 1, sizeof data);
  for (unsigned i = 0; i < 2 * NPAGES; i++) /* there is memory for all of it */
    export_write (served (&service), data, PAGE_BYTES, (uint64_t) (i % NPAGES) * PAGE_BYTES);
  begin = now_ms (CLOCK_PROCESS_CPUTIME_ID);
  for (unsigned i = 0; i < NWRITES; i++) {
    data[0] = (char) i;
    if (export_write (served (&service), data, PAGE_BYTES,
                      (uint64_t) random_below (NPAGES) * PAGE_BYTES) < 0)
      errx (EXIT_FAILURE, "a write fails");
  }
  begin = now_ms (CLOCK_PROCESS_CPUTIME_ID) - begin;
  service_stop (&service);
  remove_all ();
  return begin * 1e3 / NWRITES;
}

static void
bench_write (void)
{
  double without[NROUNDS], with[NROUNDS], more[NROUNDS];

  for (unsigned i = 0; i < NROUNDS; i++) {
    without[i] = write_us (false);
    with[i] = write_us (true);
    more[i] = with[i] - without[i];
  }
  print ("write_without_state", median (without, NROUNDS), "us");
  print ("write_with_state", median (with, NROUNDS), "us");
  print ("write_more_with_state", median (more, NROUNDS), "us");
}

int
main (int argc, char **argv)
{
  const char *in = argc > 1 ? argv[1] : "/dev/shm";

  if (argc > 2 || in[0] == '-')
    errx (EXIT_FAILURE, "usage: startup [DIR]: where the files go (some 1 GiB; default: /dev/shm)");
  snprintf (dir, sizeof dir, "%s/drum-startup-XXXXXX", in);
  if (!mkdtemp (dir))
    err (EXIT_FAILURE, "%s", dir);
  snprintf (device, sizeof device, "%s/device", dir);
  snprintf (state, sizeof state, "%s/state", dir);
  bench_exports (false);
  bench_exports (true);
  bench_start ("64G_in_order", 64 * GIB, true, true);
  bench_start ("64G_random", 64 * GIB, true, false);
  bench_start ("1T_empty", 1024 * GIB, false, false);
  bench_write ();
  rmdir (dir);
  return EXIT_SUCCESS;
}
