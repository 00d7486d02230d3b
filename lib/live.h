/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live.h - changes to a service while clients use it: devices and exports that come, leave, or change; and its end.
 *
 * What takes long is a job (job.h), whose number the functions give.
 * Locking: any thread; live changes are serialised by a mutex that is not held while files are opened, allocated or closed.
 * Errors:  0 or -errno, and one line through log.h that names the device.
 */
#ifndef DRUM_LIVE_H
#define DRUM_LIVE_H

#include <stdbool.h>
#include <stdint.h>

#include "job.h"

struct jobs;
struct live;
struct service;
struct swapdev_spec;

/* After the fork. ended (may be NULL) is called at each job's end. */
int live_create (struct service *service, job_end *ended, void *opaque, struct live **live);

/* Cancels what is under way. The service stays. */
void live_destroy (struct live *live);

struct service *live_service (struct live *live);
struct jobs *live_jobs (struct live *live);
uint64_t live_started_ns (const struct live *live); /* when it was created, now_ns */

/* Add a device, with the same checks and options as at start. One that is there, but closed, failing or failed, is opened
 * again, as it was. -EBUSY if it is there, or being added; what is found only later is the job's error. */
int live_add (struct live *live, const struct swapdev_spec *spec, uint64_t *job);

/* Move everything off a device, rate bytes a second (0: no limit), and let it go. See evacuate_device. */
int live_remove (struct live *live, const char *path, uint64_t rate, bool force, uint64_t *job);

int live_set_priority (struct live *live, const char *path, int prio);
int live_set_maxio (struct live *live, const char *path, unsigned maxio);

/* See evacuate_upwards. -EBUSY if it is being done already. */
int live_rebalance (struct live *live, uint64_t rate, uint64_t *job);

/* Read all pages that have a slot, or (path not NULL) those on one device: see scrub_run. -ENOENT. There may be several. */
int live_scrub (struct live *live, const char *path, uint64_t rate, uint64_t *job);

/* See service_remove_export, service_resize_export, service_move_export. -ENOENT; -EBUSY: it has a client. */
int live_remove_export (struct live *live, const char *name, uint64_t *job);
int live_resize_export (struct live *live, const char *name, uint64_t size_bytes, uint64_t *job);
int live_move_export (struct live *live, const char *from, const char *to, uint64_t *job);

/* Halt, when the requests under way have ended, and make all durable; once that job is done the process is to end, without a word to
 * its clients. If they take longer than timeout_ms it fails, and all goes on as before. Unless force: -EBUSY while there are pages, or
 * clients, that a restart would lose. Also -EBUSY if it is being done already. */
int live_shutdown (struct live *live, unsigned timeout_ms, bool force, uint64_t *job);
uint64_t live_last_shutdown (struct live *live); /* the job of the last one; 0: there was none */

/* Call each for every device that is being added. */
void live_adding (struct live *live, void (*each) (void *opaque, const struct swapdev_spec *spec),
                  void *opaque);

#endif
