/* SPDX-License-Identifier: BSD-3-Clause
 *
 * soak.c - everything at random, for as long as one likes: devices come, go and change rank (fleet.h), and fail, fill up, hang,
 * tear or damage what they are given (faults.h), under four clients that compare every byte (model.h). In the end the server has
 * what it had in the beginning: memory, descriptors and threads.
 *
 * bench/soak runs it; in `make check` it is a smoke test of some seconds.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "fleet.h"
#include "model.h"

enum {
  SECONDS = 12, /* without $DRUM_SOAK_SECONDS */
  SAMPLE_SECONDS = 60,
  MAX_TROUBLES = 3, /* at once */
  HOURS_AT_MOST = 12,
};

TestSuite (soak, .init = livedrum_setup, .fini = dev_teardown);

/* Something that goes wrong with a device, for a while. */
struct trouble {
  struct fleet_file *file; /* NULL: none */
  struct faults_rule *rule;
  double end;
  bool reads; /* may fail */
  bool ending;
};

/* What may go wrong. Times are drawn up to these, numbers of calls too; count 0 is all of them. */
static const struct kind {
  const char *name;
  struct faults_plan plan;
  bool reads; /* may fail, and are I/O errors for the clients */
  unsigned ms;
} kinds[] = {
#define PLAN(...) \
  {               \
    __VA_ARGS__   \
  }
  { "is dead", PLAN (.calls = FAULTS_ANY, .action = FAULTS_FAIL, .error = EIO), true, 3000 },
  { "is gone", PLAN (.calls = FAULTS_ANY, .action = FAULTS_FAIL, .error = ENXIO), true, 1000 },
  { "takes no writes", PLAN (.calls = FAULTS_WRITE, .action = FAULTS_FAIL, .error = EIO), false,
    2000 },
  { "is full",
    PLAN (.calls = FAULTS_WRITE | FAULTS_ALLOCATE, .action = FAULTS_FAIL, .error = ENOSPC), false,
    2000 },
  { "fails some writes",
    PLAN (.calls = FAULTS_WRITE, .action = FAULTS_FAIL, .error = EIO, .count = 5), false, 500 },
  { "tears writes",
    PLAN (.calls = FAULTS_WRITE, .action = FAULTS_CUT, .error = EIO, .bytes = 16384, .count = 5),
    false, 500 },
  { "can't be read", PLAN (.calls = FAULTS_READ, .action = FAULTS_FAIL, .error = EIO), true, 500 },
  { "reads what was not written", PLAN (.calls = FAULTS_READ, .action = FAULTS_FLIP, .bytes = 8192),
    true, 500 },
  { "damages a page",
    PLAN (.calls = FAULTS_WRITE, .action = FAULTS_FLIP, .bytes = 8192, .count = 1), true, 500 },
  { "is short of breath",
    PLAN (.calls = FAULTS_READ | FAULTS_WRITE, .action = FAULTS_CUT, .bytes = 16384, .count = 50),
    false, 2000 },
  { "is short of memory",
    PLAN (.calls = FAULTS_READ | FAULTS_WRITE, .action = FAULTS_FAIL, .error = ENOMEM, .count = 5),
    false, 500 },
  { "is slow", PLAN (.calls = FAULTS_READ | FAULTS_WRITE, .action = FAULTS_DELAY, .us = 20000),
    false, 1000 },
  { "hangs", PLAN (.calls = FAULTS_READ | FAULTS_WRITE, .action = FAULTS_HOLD), false, 2500 },
  { "has no room", PLAN (.calls = FAULTS_ALLOCATE, .action = FAULTS_FAIL, .error = ENOSPC), false,
    500 },
  { "does not sync", PLAN (.calls = FAULTS_SYNC, .action = FAULTS_FAIL, .error = EIO), false, 500 },
};

enum { NKINDS = sizeof kinds / sizeof kinds[0] };

static struct faults *faults;
static struct rng rng;
static struct trouble troubles[MAX_TROUBLES];
static bool damaging;        /* the only trouble there is damages pages */
static unsigned nof[NKINDS]; /* how often there was one of each kind */

/* Drawn from the first that it may be. */
static uint64_t
up_to (uint64_t most, uint64_t least)
{
  return most ? least + rng_below (&rng, most - least + 1) : 0;
}

static struct faults_plan
draw (const struct faults_plan *most)
{
  struct faults_plan plan = *most;

  plan.count = up_to (plan.count, 1);
  plan.bytes = most->action == FAULTS_CUT ? up_to (plan.bytes, 1) : up_to (plan.bytes, 0);
  plan.us = (uint32_t) up_to (plan.us, 1);
  plan.skip = rng_below (&rng, 2) ? rng_below (&rng, 50) : 0;
  return plan;
}

static bool
does_damage (const struct faults_plan *plan)
{
  return plan->action == FAULTS_FLIP && plan->calls == FAULTS_WRITE;
}

static void
begin_trouble (struct trouble *t, struct fleet_file *file, const struct kind *kind)
{
  struct faults_plan plan = draw (&kind->plan);

  file->hurt = file->faulty = true;
  fleet.nfaults++;
  fleet.nfaults_begun++;
  if (kind->reads)
    model_begin_faulty ();
  *t = (struct trouble){ .file = file,
                         .end = seconds_now () + (double) rng_below (&rng, kind->ms) / 1000,
                         .reads = kind->reads,
                         .rule = faults_add (faults, file->path, &plan) };
  cr_assert_not_null (t->rule);
  damaging = does_damage (&plan);
  nof[kind - kinds]++;
}

/* Nothing is wrong with any device now, so what can't be read is damaged for good. */
static void
find_damaged (void)
{
  char page[PAGE_BYTES];

  for (uint64_t i = 0; i < MODEL_PAGES; i++)
    if (nbd_pread (nbd, page, PAGE_BYTES, i * PAGE_BYTES, 0) == -1)
      model_may_lose (i);
}

/* If it has done damage, all pages are looked at a second later, so that no write is on its way any more. */
static void
end_trouble (struct trouble *t)
{
  faults_remove (t->rule);
  if (damaging && !t->ending) {
    t->ending = true;
    t->end = seconds_now () + 1;
    return;
  }
  if (damaging)
    find_damaged ();
  damaging = false;
  if (t->reads)
    model_end_faulty ();
  t->file->faulty = false;
  fleet.nfaults--;
  t->file = NULL;
}

/* Only where the others have room for all. One that damages pages comes alone. */
static void
make_trouble (void)
{
  struct fleet_file *file = &fleet.file[rng_below (&rng, FLEET_FILES)];
  const struct kind *kind = &kinds[rng_below (&rng, NKINDS)];

  if (file->state == AWAY || file->faulty || atomic_load (&model.tight) || !fleet_is_safe (file) ||
      damaging || (does_damage (&kind->plan) && fleet.nfaults))
    return;
  for (unsigned i = 0; i < MAX_TROUBLES; i++)
    if (!troubles[i].file) {
      begin_trouble (&troubles[i], file, kind);
      return;
    }
}

static void
end_troubles (double now)
{
  for (unsigned i = 0; i < MAX_TROUBLES; i++)
    if (troubles[i].file && troubles[i].end <= now)
      end_trouble (&troubles[i]);
}

static void
print_sample (double seconds, const struct process *s)
{
  unsigned ndevices = 0;

  for (unsigned i = 0; i < FLEET_FILES; i++)
    ndevices += fleet.file[i].state != AWAY;
  printf ("%5.0f s: %u requests, %" PRIu64
          " KiB, %u descriptors, %u threads, %u devices; %u added, "
          "%u removed, %u cancelled, %u gave up, %u opened again, %u faults; unread %u, lost %u; "
          "wrong %d\n",
          seconds, atomic_load (&model.nrequests), s->rss_kib, s->nfds, s->nthreads, ndevices,
          fleet.nadded, fleet.nremoved, fleet.ncancelled, fleet.ngave_up, fleet.nreopened,
          fleet.nfaults_begun, atomic_load (&model.nunread), atomic_load (&model.nlost),
          atomic_load (&model.failed));
  fflush (stdout);
}

static unsigned
seconds_to_go (void)
{
  const char *s = getenv ("DRUM_SOAK_SECONDS");

  return s && *s ? (unsigned) strtoul (s, NULL, 10) : random_steps (SECONDS);
}

/* Until then, or until a client has failed; what the server has at the first sample, when it is warm. */
static struct process
soak (double begin, unsigned seconds)
{
  double end = begin + seconds,
         next = begin + (seconds < 5 * SAMPLE_SECONDS ? seconds / 5.0 : SAMPLE_SECONDS);
  struct process warm = { .rss_kib = 0 };

  for (double now = begin; now < end && !atomic_load (&model.failed); now = seconds_now ()) {
    if (rng_below (&rng, 4) == 0)
      make_trouble ();
    end_troubles (now);
    fleet_step ();
    if (now >= next) {
      struct process s = server_process (&srv);

      warm = warm.rss_kib ? warm : s;
      print_sample (now - begin, &s);
      next += SAMPLE_SECONDS;
    }
  }
  return warm;
}

/* Whatever comes, goes and fails: no wrong byte, no error but those that must be, and nothing that grows. */
Test (soak, everything, .timeout = HOURS_AT_MOST * 3600)
{
  const char *const *wrapper = getenv ("DRUM_SOAK_VALGRIND") ? VALGRIND : NULL;
  char *last = dev_path ("last"), *path = run_path ("faults");
  unsigned seconds = seconds_to_go ();
  struct process first, warm, end;
  double begin;

  faults = faults_open (path);
  cr_assert_not_null (faults, "%s: %m", path);
  rng = rng_for (2000);
  fleet_start (&(struct server_options){ .threads = 1, .faults = path, .wrapper = wrapper });
  model_start (&srv);
  first = server_process (&srv);
  begin = seconds_now ();
  warm = soak (begin, seconds);
  for (unsigned i = 0; i < 2; i++, sleep (1))
    end_troubles (HUGE_VAL);
  if (!atomic_load (&model.failed)) {
    fleet_leave_one (last);
    server_settle (&srv, first.nfds - 2, first.nthreads); /* there were three devices */
  }
  end = server_process (&srv);
  atomic_store (&model.stop, true);
  print_sample (seconds_now () - begin, &end);
  model_join ();
  for (unsigned i = 0; i < NKINDS; i++)
    printf ("%s%u %s", i ? ", " : "", nof[i], kinds[i].name);
  printf ("\n");
  fleet_check_end (last, model_check (nbd));
  if (!wrapper && !server_is_sanitized ())
    cr_assert_leq (end.rss_kib, warm.rss_kib + warm.rss_kib / 10 + 1024,
                   "%" PRIu64 " KiB, and there were %" PRIu64, end.rss_kib, warm.rss_kib);
  livedrum_stop ();
}
