/* SPDX-License-Identifier: BSD-3-Clause
 *
 * model.h - four clients that write, read, trim and zero at random, each its own pages, and compare every byte with a copy in
 * memory, whatever else is done to the server.
 *
 * What may go wrong is said by who does it, before it can: else every error of a request, and every wrong byte, ends the client
 * that saw it, sets failed, and fails the test in model_join.
 */
#ifndef DRUM_TESTS_MODEL_H
#define DRUM_TESTS_MODEL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "client.h"

enum {
  MODEL_CLIENTS = 4,
  MODEL_REGION = 768, /* pages of each */
  MODEL_PAGES = MODEL_CLIENTS * MODEL_REGION,
};

struct model {
  atomic_bool stop;
  atomic_bool failed;    /* a client */
  atomic_uint nrequests; /* in all */

  atomic_bool growing; /* they write more than they trim */

  atomic_bool tight;    /* a write may fail for want of room */
  atomic_uint nrefused; /* that did */

  atomic_uint nunread; /* I/O errors that may have been, and were read again */
  atomic_uint nlost;   /* pages that were found to be: see model_may_lose */
};

extern struct model model;

/* The clients of srv, on one connection each. */
void model_start (const struct server *srv);

/* Wait for them: they end when one has failed, or stop is set. Fails the test if one has. */
void model_join (void);

/* Between the two any page may be an I/O error: its reader asks again until it is not, or it is over. */
void model_begin_faulty (void);
void model_end_faulty (void);

/* This page may be an error until it is written or trimmed; to be said between those two. */
void model_may_lose (uint64_t page);

/* All pages are as they were written. How many are not zeroes, of those that are not lost. */
uint64_t model_check (struct nbd_handle *nbd);

#endif
