/* SPDX-License-Identifier: BSD-3-Clause
 *
 * client.h - libnbd clients: connections, and threads that use one each.
 *
 * An assertion of Criterion's ends a test from its main thread only, so a worker notes what went wrong and returns;
 * workers_join fails the test with it. The client_* functions assert, and are for the main thread.
 */
#ifndef DRUM_TESTS_CLIENT_H
#define DRUM_TESTS_CLIENT_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libnbd.h>

#include "tests/random.h"

#include "server.h"

struct nbd_handle *client_open (const struct server *srv);
struct nbd_handle *client_open_as (const struct server *srv, const char *export);
/* NULL if it is refused. From any thread. */
struct nbd_handle *client_try_open (const struct server *srv, const char *export);
void client_close (struct nbd_handle *nbd);

void client_read (struct nbd_handle *nbd, void *buf, size_t len, uint64_t offset);
void client_write (struct nbd_handle *nbd, const void *buf, size_t len, uint64_t offset);
void client_trim (struct nbd_handle *nbd, uint64_t len, uint64_t offset);
void client_zero (struct nbd_handle *nbd, uint64_t len, uint64_t offset, uint32_t flags);

/* Write one page full of its stamp (see stamp.h). */
void client_write_page (struct nbd_handle *nbd, uint32_t writer, uint32_t sequence, uint64_t page);
/* 0, or the errno it failed with. */
int client_try_write_page (struct nbd_handle *nbd, uint32_t writer, uint32_t sequence,
                           uint64_t page);
/* Fail unless the page holds exactly this stamp; writer 0, sequence 0 is zeroes. */
void client_expect_page (struct nbd_handle *nbd, uint32_t writer, uint32_t sequence, uint64_t page);

struct worker {
  pthread_t thread;
  struct nbd_handle *nbd;
  unsigned index;
  const char *export; /* NULL: "" */
  struct rng rng;
  void (*main) (struct worker *);
  void *context;
  char failure[400]; /* empty if all is well */
};

/* The first failure stays. */
void worker_fail (struct worker *w, const char *fmt, ...) __attribute__ ((format (printf, 2, 3)));

static inline bool
worker_failed (const struct worker *w)
{
  return w->failure[0] != 0;
}

/* Give each worker a connection and a thread; main, context and export are set before. Wait for all. */
void workers_start (const struct server *srv, struct worker *workers, unsigned n);
void workers_join (struct worker *workers, unsigned n);
/* The same where the server has been killed: they don't take leave of it. */
void workers_join_killed (struct worker *workers, unsigned n);
void workers_run (const struct server *srv, struct worker *workers, unsigned n);

#endif
