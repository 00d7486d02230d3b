/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hang.c - one device whose I/O hangs (libfaults.so holds it) while more requests wait for it than there are of anything in the
 * server that they have to share: what does not touch it goes on, thousands of requests, and in the end all that waited is done.
 */
#include <config.h>

#include <string.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum {
  NSTUCK = 40, /* more than there are buffers for O_DIRECT, and half as many read as write */
  NREADERS = NSTUCK / 2,
  NPAGES = 1000, /* on the device that does not hang */
  NREQUESTS = 6000,
  MIB = 1 << 20,
};

static struct faults *faults;

TestSuite (hang, .init = livedrum_setup, .fini = livedrum_teardown, .timeout = 600);

/* A request that waits, on a connection of its own. */
struct stuck {
  struct nbd_handle *nbd;
  int64_t cookie;
  char data[PAGE_BYTES];
};

static struct stuck stuck[NSTUCK];

/* Pages [0, NPAGES) on b, and NREADERS more on a, which comes first from here on. */
static void
start (const char *param)
{
  char *path = run_path ("faults");

  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  livedrum_start_as (
    &(struct server_options){ .threads = 1,
                              .options = PARAMS ("-D", "drum.waitms=1100"),
                              .params = PARAMS (dev_path ("b,size=16M"), "size=32M", param),
                              .faults = path });
  write_pages (0, NPAGES);
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'prio': 5, 'size': %u", a,
               16 * MIB);
  write_pages (NPAGES, NPAGES + NREADERS);
}

/* The page that waits is one of those on a, or a new one. */
static uint64_t
page_of (unsigned i)
{
  return NPAGES + i;
}

static void
begin_stuck (unsigned i)
{
  struct stuck *s = &stuck[i];
  uint64_t at = page_of (i) * PAGE_BYTES;

  s->nbd = client_open (&srv);
  stamp_fill (s->data, (struct stamp){ 1, 1, page_of (i) });
  if (i < NREADERS) {
    memset (s->data, 0, sizeof s->data);
    s->cookie = nbd_aio_pread (s->nbd, s->data, PAGE_BYTES, at, NBD_NULL_COMPLETION, 0);
  } else
    s->cookie = nbd_aio_pwrite (s->nbd, s->data, PAGE_BYTES, at, NBD_NULL_COMPLETION, 0);
  cr_assert_neq (s->cookie, -1, "%s", nbd_get_error ());
}

static bool
is_done (struct stuck *s)
{
  int done = nbd_aio_command_completed (s->nbd, s->cookie);

  cr_assert_neq (done, -1, "%s", nbd_get_error ());
  return done;
}

/* Read, rewrite, trim, and write anew what is on b, or goes there. */
static void
work (void)
{
  static uint32_t sequence[2 * NPAGES + NSTUCK];
  struct rng rng = rng_for (1);

  for (unsigned page = 0; page < NPAGES; page++)
    sequence[page] = 1;
  for (unsigned i = 0; i < NREQUESTS; i++) {
    unsigned page = (unsigned) rng_below (&rng, 2 * NPAGES);

    page += page < NPAGES ? 0 : NSTUCK;
    switch (rng_below (&rng, 4)) {
    case 0:
      client_trim (nbd, PAGE_BYTES, (uint64_t) page * PAGE_BYTES);
      sequence[page] = 0;
      break;
    case 1:
      client_write_page (nbd, 1, sequence[page] = i + 2, page);
      break;
    default:
      client_expect_page (nbd, sequence[page] ? 1 : 0, sequence[page], page);
    }
  }
}

static void
hang (const char *param)
{
  struct faults_rule *rule;

  start (param);
  rule = faults_add (
    faults, a, &(struct faults_plan){ .calls = FAULTS_READ | FAULTS_WRITE, .action = FAULTS_HOLD });
  cr_assert_not_null (rule);
  for (unsigned i = 0; i < NSTUCK; i++)
    begin_stuck (i);
  /* From here on new pages go elsewhere. */
  server_wait_stderr (&srv, "still waiting for a ");
  work ();
  for (unsigned i = 0; i < NREADERS; i++)
    cr_assert (!is_done (&stuck[i]), "request %u did not wait", i);
  faults_remove (rule);
  for (unsigned i = 0; i < NSTUCK; i++) {
    while (!is_done (&stuck[i]))
      cr_assert_neq (nbd_poll (stuck[i].nbd, -1), -1, "%s", nbd_get_error ());
    client_expect_page (nbd, 1, 1, page_of (i));
    client_close (stuck[i].nbd);
  }
}

Test (hang, others_go_on)
{
  hang (NULL);
}

Test (hang, others_go_on_direct)
{
  hang ("direct=yes");
}

Test (hang, others_go_on_with_rings)
{
  hang ("io=uring");
}
