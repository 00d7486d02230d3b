/* SPDX-License-Identifier: BSD-3-Clause
 *
 * snapshot.h - what a server says of itself at one time: the reply to status, as structs; see docs/control.md for what each
 * field means. What the first servers did not say is 0, or as if it was not asked for.
 *
 * Memory: strings belong to the reply, which the snapshot holds.
 */
#ifndef DRUMCTL_SNAPSHOT_H
#define DRUMCTL_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client;
struct json_object;

enum { MAX_BUCKETS = 64, MAX_RUNS = 48, MAX_LISTED = 16 };

struct counters {
  uint64_t requests, bytes, errors, in_flight;
  double seconds;
  uint64_t histogram[MAX_BUCKETS]; /* of the snapshot's nbuckets */
};

struct room {
  uint64_t size, used, avail;
};

struct class {
  int prio;
  uint64_t ndevices;
  struct room room;
};

struct device {
  const char *name, *type, *uuid, *state;
  int prio;
  struct room room;
  uint64_t bad, suspect, mismatches;
  struct counters read, write;
};

struct export
{
  const char *name;
  uint64_t size, used, clients, zero_pages;
  uint64_t reserve, limit, iops, bandwidth; /* 0: none */
  uint64_t weight;                          /* 0: the server has no weights */
  bool exclusive;
  const char *template; /* NULL: none */
  double idle;          /* seconds; negative: there was no request yet */
  struct counters read, write, trim, zero;
};

struct job {
  uint64_t id;
  const char *kind, *state;
  const char *device, *export; /* what it is about; both NULL: the drum */
  uint64_t done, total;
  uint64_t rate; /* 0: no limit */
  double seconds;
  uint64_t unreadable, lost;
  struct {
    const char *export;
    uint64_t page;
  } listed[MAX_LISTED];
  unsigned nlisted;
  const char *error;            /* NULL: none */
  struct json_object *warnings; /* an array, or NULL */
};

struct snapshot {
  struct json_object *reply;
  const char *version;
  const char *io; /* uring or sync */
  uint64_t pid;
  double uptime;
  const char *state_dir; /* NULL: without state= */
  bool state_is_durable, state_syncs_writes;
  struct room room;
  uint64_t kept, reserved, stripe;
  bool overcommit;
  bool has_runs;
  uint64_t largest_run, runs[MAX_RUNS];
  unsigned nruns;
  double bounds[MAX_BUCKETS]; /* of all but the last bucket */
  unsigned nbuckets;
  struct class *classes;
  struct device *devices;
  struct export *exports;
  struct job *jobs;
  size_t nclasses, ndevices, nexports, njobs;
};

/* NULL, and said why. */
struct snapshot *snapshot_ask (struct client *c, bool fragmentation);
struct snapshot *snapshot_ask_once (bool fragmentation);
void snapshot_free (struct snapshot *snap);

/* NULL: there is none of this name. */
const struct device *snapshot_device (const struct snapshot *snap, const char *name);
const struct export *snapshot_export (const struct snapshot *snap, const char *name);

/* The most that its pages may take: its size, or its limit. */
uint64_t export_most (const struct export *e);

/* What was the same device, or export, before; NULL: there was none, or there was no before. */
const struct device *snapshot_device_before (const struct snapshot *before, const struct device *d);
const struct export *snapshot_export_before (const struct snapshot *before,
                                             const struct snapshot *now, const struct export *e);

/* The job that a reply to wait has. It lives as long as the reply. False, and said why. */
bool job_from_reply (struct json_object *reply, struct job *job);

#endif
