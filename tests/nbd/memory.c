/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memory.c - that nothing in the plugin takes memory, or gives it back, once it serves: whatever is asked, whatever fails.
 * libfaults.so watches malloc, mmap and their kin in a server under load.
 *
 * nbdkit takes memory for each connection, for larger requests, and for the answer to block status, whose parts the plugin
 * hands to it: that is its own.
 */
#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/scratch.h"

#include "client.h"
#include "control.h"
#include "dev.h"

enum { MIB = 1 << 20, NWORKERS = 4, SIZE_BYTES = 8 * MIB, MAX_BYTES = 128 << 10, NREQUESTS = 500 };

static struct server srv;
static struct faults *faults;
static int control;
static const char *a;
static _Atomic uint64_t nrequests;
static atomic_bool done, may_fail, with_extents;
static const char *_Atomic trouble = "nothing"; /* the last that was made */
static atomic_uint
  nasking; /* requests for extents that are under way: nbdkit takes memory for those */

static void
setup (void)
{
  dev_setup ();
  if (!server_is_drum ())
    cr_skip_test ("only the drum promises that");
  if (server_is_sanitized ())
    cr_skip_test ("a sanitizer has a malloc of its own");
  a = dev_path ("a");
}

TestSuite (memory, .init = setup, .fini = dev_teardown, .timeout = 300);

static void
start (const char *param)
{
  char *path = run_path ("faults");

  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  server_start (
    &srv, &(struct server_options){
            .threads = 2,
            .params = PARAMS (dev_path ("a,size=16M,prio=5"), dev_path ("b,size=16M"),
                              str ("size=%u", SIZE_BYTES), "lock=yes", param, control_param ()),
            .faults = path });
  control = control_open ();
}

static struct faults_rule *
add_rule (const char *path, const struct faults_plan *plan)
{
  struct faults_rule *rule = faults_add (faults, path, plan);

  cr_assert_not_null (rule);
  return rule;
}

/* End a watch; all but nbdkit's own must have come by without. */
static void
expect_none (const char *when, bool by_server)
{
  const struct faults_memory *m = &faults->memory;
  const struct faults_take *take = m->take;
  char *where = str ("%s", "");

  faults_ignore_memory (faults);
  for (unsigned i = 0; i < FAULTS_FRAMES && take->frame[i]; i++)
    where = str ("%s %#jx", where, (uintmax_t) take->frame[i] - 1);
  cr_assert_eq (m->nplugin, 0, "%s: %ju calls, the first of %s by thread \"%s\"; at:\n%s", when,
                (uintmax_t) m->nplugin, take->call, take->thread,
                shell_output ("addr2line -fpie '%s' %s", server_plugin (), where));
  cr_assert_eq (m->nserver > 0, by_server, "%s: nbdkit, when the plugin calls it: %ju", when,
                (uintmax_t) m->nserver);
}

/* False if a client gave up before. */
static bool
come_to (const _Atomic uint64_t *counter, uint64_t n)
{
  while (!atomic_load (&done) && atomic_load (counter) < n)
    usleep (1000);
  return !atomic_load (&done);
}

/* The watch sees what there is: a question on the control socket takes memory, in the plugin and in json-c. */
static void
expect_it_sees (void)
{
  faults_watch_memory (faults, "nbdkit"); /* whose clients may still be going */
  control_status (control);
  faults_ignore_memory (faults);
  cr_assert_gt (faults->memory.nplugin, 0);
  cr_assert_str_eq (faults->memory.take[0].thread, "drum-control");
}

static int
no_extent (void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n,
           int *error)
{
  (void) opaque, (void) context, (void) offset, (void) entries, (void) n, (void) error;
  return 0;
}

static int
ask_for_extents (struct worker *w, uint64_t len, uint64_t at)
{
  int ret = 0;

  atomic_fetch_add (&nasking, 1);
  if (atomic_load (&with_extents))
    ret = nbd_block_status (w->nbd, len, at, (nbd_extent_callback){ .callback = no_extent }, 0);
  atomic_fetch_sub (&nasking, 1);
  return ret;
}

/* One request, any there is. */
static int
request (struct worker *w, char *buf)
{
  bool aligned = rng_below (&w->rng, 3) > 0;
  uint64_t unit = aligned ? PAGE_BYTES : 1;
  uint64_t len = (1 + rng_below (&w->rng, MAX_BYTES / unit)) * unit;
  uint64_t at = rng_below (&w->rng, (SIZE_BYTES - len) / unit + 1) * unit;

  switch (rng_below (&w->rng, 9)) {
  case 0:
  case 1:
  case 2:
    rng_fill (&w->rng, buf, len);
    if (aligned)
      memset (buf, 0, PAGE_BYTES);
    return nbd_pwrite (w->nbd, buf, len, at, 0);
  case 3:
  case 4:
    return nbd_pread (w->nbd, buf, len, at, 0);
  case 5:
    return nbd_trim (w->nbd, len, at, 0);
  case 6:
    return nbd_zero (w->nbd, len, at, aligned ? LIBNBD_CMD_FLAG_FAST_ZERO : 0);
  case 7:
    return nbd_cache (w->nbd, len, at, 0);
  default:
    return atomic_load (&with_extents) ? ask_for_extents (w, len, at) : nbd_flush (w->nbd, 0);
  }
}

static void
requests (struct worker *w)
{
  static char buf[NWORKERS][MAX_BYTES];

  while (!atomic_load (&done) && !worker_failed (w)) {
    bool may = atomic_load (&may_fail); /* when it begins, or when it ends */

    if (request (w, buf[w->index]) == -1 &&
        !((may || atomic_load (&may_fail)) && nbd_get_errno () == EIO))
      worker_fail (w, "after \"%s\", %s: %s", trouble, may ? "then bad reads" : "no bad reads",
                   nbd_get_error ());
    atomic_fetch_add (&nrequests, 1);
  }
  atomic_store (&done, true);
}

/* Requests, and what goes wrong under them, to the last of it, and until the log says so. */
struct trouble {
  const char *what, *says;
  struct faults_plan plan;
};

static void
watch_trouble (const struct trouble *t, const char *path, const char *spared)
{
  struct faults_rule *rule;
  bool came;

  atomic_store (&may_fail, t->plan.calls & FAULTS_READ);
  trouble = t->what;
  faults_watch_memory (faults, spared);
  do { /* a read that fails is said if it does so twice: others may have come in between */
    rule = add_rule (path, &t->plan);
    came = come_to (&rule->nacted, t->plan.count) && come_to (&nrequests, nrequests + NREQUESTS);
    faults_remove (rule);
  } while (came && !strstr (server_stderr (&srv), t->says));
  if (came)
    expect_none (t->what, false);
}

static void
expect_no_memory_for_requests (const char *param)
{
  static const struct trouble troubles[] = {
    { "a write that fails", "", { FAULTS_WRITE, FAULTS_FAIL, .count = 1, .error = EIO } },
    { "short writes", "", { FAULTS_WRITE, FAULTS_CUT, .count = 50, .bytes = PAGE_BYTES } },
    { "errors that pass",
      "",
      { FAULTS_READ | FAULTS_WRITE, FAULTS_FAIL, .count = 3, .error = EAGAIN } },
    { "reads that fail",
      "Input/output error",
      { FAULTS_READ, FAULTS_FAIL, .count = 4, .error = EIO } },
    { "wrong checksums", "wrong checksum", { FAULTS_READ, FAULTS_FLIP, .count = 20, .bytes = 99 } },
  };
  /* Whose pages a job moves off, which takes what it needs when it begins. */
  static const struct trouble failing = { "a device that fails",
                                          "is failing",
                                          { FAULTS_WRITE, FAULTS_FAIL, .error = EIO } };
  static const struct trouble full = { "a full file",
                                       "",
                                       { FAULTS_WRITE, FAULTS_FAIL, .count = 3, .error = ENOSPC } };
  struct worker workers[NWORKERS];

  start (param);
  for (unsigned i = 0; i < NWORKERS; i++)
    workers[i] = (struct worker){ .main = requests };
  workers_start (&srv, workers, NWORKERS);

  atomic_store (&with_extents, true);
  faults_watch_memory (faults, "");
  if (come_to (&nrequests, nrequests + 2 * NREQUESTS))
    expect_none ("all is well", true);
  atomic_store (&with_extents, false);
  while (atomic_load (&nasking) > 0)
    usleep (1000);
  for (unsigned i = 0; i < sizeof troubles / sizeof troubles[0]; i++)
    watch_trouble (&troubles[i], dev_path ("%s", ""), "");
  watch_trouble (&failing, a, "drum-medic drum-job");
  watch_trouble (&full, dev_path ("b"), "drum-job");
  atomic_store (&done, true);
  workers_join (workers, NWORKERS);
  expect_it_sees ();
  close (control);
  server_stop (&srv);
}

Test (memory, not_for_requests)
{
  expect_no_memory_for_requests ("direct=no");
}

Test (memory, not_for_requests_with_direct)
{
  expect_no_memory_for_requests ("direct=yes");
}

Test (memory, not_for_requests_with_rings)
{
  expect_no_memory_for_requests ("io=uring");
}

Test (memory, not_for_requests_with_state)
{
  expect_no_memory_for_requests (str ("state=%s", run_path ("state")));
}

/* Moving pages takes none: what a job needs it has when the first page moves. */
static void
expect_no_memory_for_moves (const char *param)
{
  static char buf[2 * MIB];
  struct faults_plan hold = { FAULTS_READ, FAULTS_HOLD, .count = 1 };
  struct faults_rule *first, *last;
  struct nbd_handle *nbd;
  struct rng rng = rng_for (1);
  uint64_t job;

  start (param);
  nbd = client_open (&srv);
  rng_fill (&rng, buf, sizeof buf - 8);
  client_write (nbd, buf, sizeof buf, 0);
  first = add_rule (a, &hold);
  job = control_start (control, "'verb': 'remove', 'device': '%s'", a);
  faults_wait (&first->nacted, 1);
  hold.skip = 20;
  last = add_rule (a, &hold);
  faults_watch_memory (faults, "drum-control"); /* it may still be at its reply */
  faults_remove (first);
  faults_wait (&last->nacted, 1);
  expect_none ("pages that move", false);
  faults_remove (last);
  control_wait (control, job, "done");
  expect_it_sees ();
  client_close (nbd);
  close (control);
  server_stop (&srv);
}

Test (memory, not_for_moves)
{
  expect_no_memory_for_moves ("direct=no");
}

Test (memory, not_for_moves_with_direct)
{
  expect_no_memory_for_moves ("direct=yes");
}
