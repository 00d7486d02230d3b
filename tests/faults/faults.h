/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faults.h - what goes wrong on the disks of a real server, how slow they are, and whether it takes memory to serve them;
 * steered while it runs.
 *
 * Structure: the server runs with LD_PRELOAD=libfaults.so, through which its pread, pwrite, fallocate, fsync and their kin go, and what
 *            it gives to io_uring;
 *            the test that steers it maps the same control file, whose path is in $DRUM_FAULTS.
 * Locking:   one process adds and removes, the server's threads look; counters may be read at any time.
 * Limits:    calls that a library makes inside itself, and those of _FORTIFY_SOURCE (__pread_chk), are not seen.
 */
#ifndef DRUM_TESTS_FAULTS_H
#define DRUM_TESTS_FAULTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
  FAULTS_RULES = 16,
  FAULTS_DISKS = 8,
  FAULTS_PATH = 256,
  FAULTS_TAKES = 8,
  FAULTS_FRAMES = 16,
  FAULTS_NAME = 64,
};

enum faults_call {
  FAULTS_READ = 1,     /* pread, preadv, preadv2 */
  FAULTS_WRITE = 2,    /* pwrite, pwritev, pwritev2 */
  FAULTS_ALLOCATE = 4, /* fallocate */
  FAULTS_SYNC = 8,     /* fsync, fdatasync */
  FAULTS_ANY = 15,
};

enum faults_action {
  FAULTS_FAIL,  /* nothing is done: -1 and .error */
  FAULTS_DELAY, /* it begins .us later */
  FAULTS_HOLD,  /* it begins when the rule is removed */
  FAULTS_CUT, /* at most the first .bytes are done, and that is its result; with .error, it fails after them (a torn write).
                   An allocate or a sync is not done at all, and says that it is */
  FAULTS_FLIP, /* done, but the byte .bytes behind its start comes back, or goes to the disk, inverted */
};

struct faults_plan {
  uint32_t calls; /* which: of enum faults_call */
  enum faults_action action;
  uint64_t skip;  /* so many calls go through before the first it acts on */
  uint64_t count; /* it acts on so many; 0: on all from there on */
  int error;
  uint32_t us;
  uint64_t bytes;
};

/* Acts on files whose path contains path. All rules that match a call count it and can delay or hold it; what it does
 * is changed by the first of them. */
struct faults_rule {
  atomic_bool on;
  char path[FAULTS_PATH];
  struct faults_plan plan;
  _Atomic uint64_t ncalls; /* that it matches */
  _Atomic uint64_t nacted; /* on which it acts, counted before it does */
};

/* A disk that serves one call at a time, in the order in which they come, at page_us for every 4 KiB begun, and seek_us
 * more when one does not start where the last ended. Files of one disk, like partitions, share its time. */
struct faults_disk {
  atomic_bool on;
  char path[FAULTS_PATH];
  uint32_t page_us, seek_us;
  uint64_t head;            /* the server's: where the last call ended */
  uint64_t free_ns;         /* the server's: when all that has come is done (CLOCK_MONOTONIC) */
  _Atomic uint64_t ncalls;  /* served or being served */
  _Atomic uint64_t busy_ns; /* how long they take together */
};

/* A call that takes or gives back memory, and where in the plugin it came from. */
struct faults_take {
  char call[FAULTS_NAME];
  char thread[FAULTS_NAME];
  uint64_t frame
    [FAULTS_FRAMES]; /* return addresses, as offsets in its file, the innermost first; the rest are 0 */
};

/* Calls of malloc, mmap and their kin while watch is set, by whoever is nearest on the stack: the plugin (itself, or a library
 * for it), or the server that it called. What the server does for itself is nobody's business, nor are threads whose
 * name is in spared. What libc maps for itself, beside its malloc, is not seen. */
struct faults_memory {
  atomic_bool watch;
  char spared[FAULTS_NAME];
  _Atomic uint64_t nplugin;
  _Atomic uint64_t nserver;
  struct faults_take take[FAULTS_TAKES]; /* the plugin's first */
};

struct faults {
  unsigned
    next_rule; /* the one after that which was added last: a call may still be at one that is gone */
  struct faults_rule rule[FAULTS_RULES];
  struct faults_disk disk[FAULTS_DISKS];
  struct faults_memory memory;
};

/* Map a control file, created without rules if there is none. NULL and errno. */
struct faults *faults_open (const char *path);

/* NULL: there are as many as there can be, or path is too long. */
struct faults_rule *faults_add (struct faults *f, const char *path, const struct faults_plan *plan);
struct faults_disk *faults_add_disk (struct faults *f, const char *path, uint32_t page_us,
                                     uint32_t seek_us);

/* What it delays or holds goes on. */
void faults_remove (struct faults_rule *rule);
void faults_remove_disk (struct faults_disk *disk);

/* Watch from here on, with counters at 0, all threads but those named in spared ("drum-control drum-job"); or no more. */
void faults_watch_memory (struct faults *f, const char *spared);
void faults_ignore_memory (struct faults *f);

/* Wait until the counter has come to n. */
void faults_wait (const _Atomic uint64_t *counter, uint64_t n);

#endif
