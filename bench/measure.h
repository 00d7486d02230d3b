/* SPDX-License-Identifier: BSD-3-Clause
 *
 * measure.h - what the benchmarks in C have in common: random numbers that are the same each time, clocks and medians, and devices
 * that need no disk.
 */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stdint.h>
#include <time.h>

#define GIB UINT64_C (0x40000000)

/* Begin the random numbers again; the next one, less than end. */
void random_begin (void);
uint32_t random_below (uint32_t end);

uint64_t clock_ns (clockid_t clock);

/* Sorts them. */
double median (double *values, unsigned n);

/* A file that is all hole. With -Wl,--wrap=prealloc_check -Wl,--wrap=prealloc_file it may stay that as a swap device, too, however large:
 * what lib/ would have allocated it says it has. */
void make_sparse (const char *path, uint64_t size_bytes);

#endif
