/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fleet.h - devices that come, go and change rank at random, under the clients of model.h.
 *
 * Mostly the devices that stay have room for all pages there can be (a safe change): then no request of a client fails,
 * and no removal does. Sometimes they have not (a tight one, of one device at a time): then the removal may be refused or
 * give up, and only if it is carried through may writes fail for want of room, until a device is added.
 *
 * A test may make devices fail, too: it says so first, by hurt and faulty of the file. What is asked of one that was hurt may
 * fail; when the server gives it up, it is opened again, or removed by force.
 */
#ifndef DRUM_TESTS_FLEET_H
#define DRUM_TESTS_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "livedrum.h"

enum { FLEET_FILES = 8 };

/* A backing file, and what the main thread knows of it. */
struct fleet_file {
  char *path;
  unsigned npages;  /* in all */
  unsigned nusable; /* by clients' pages, when it was last looked at */
  unsigned nused;
  enum { AWAY, COMING, THERE, LEAVING, SICK } state; /* SICK: closed, failing or failed */
  bool fresh;                                        /* is to be created */
  uint64_t job;
  bool cancelled, is_tight, reopening;
  bool force;  /* its removal may lose pages */
  bool hurt;   /* something may have gone wrong with it since it was created */
  bool faulty; /* it may fail at any time: its room does not count */
};

struct fleet {
  struct fleet_file file[FLEET_FILES];
  unsigned nfaults, nfaults_begun; /* some file of it is faulty: removals of others may give up */
  unsigned nadded, nremoved, ntight, ncancelled, ngave_up, nunfit, nrebalanced, nreopened, nlost;
};

extern struct fleet fleet;

/* Start the server, with three devices and room for MODEL_PAGES; faults: as in server_options. */
void fleet_start (const struct server_options *options);

/* Do something, and see how all is that was begun. */
void fleet_step (void);

/* Is there room enough without this file (NULL: with all)? */
bool fleet_is_safe (const struct fleet_file *file);

/* Everything goes to one more device, while clients go on; nothing may fail any more. */
void fleet_leave_one (const char *last);

/* The clients have stopped: the one device left has so many pages, and the drum nothing else. */
void fleet_check_end (const char *last, uint64_t nused);

#endif
