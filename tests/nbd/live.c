/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live.c - a model checker of live changes: devices come, go and change rank at random, while four connections write, read
 * and trim, and compare every byte with a copy in memory.
 *
 * Mostly the devices that stay have room for all pages there can be (a safe change): then no request of a client fails,
 * and no removal does. Sometimes they have not (a tight one, of one device at a time): then the removal may be refused or
 * give up, and only if it is carried through may writes fail for want of room, until a device is added.
 */
#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum {
  NWRITERS = 4,
  REGION = 768, /* pages of each */
  NPAGES = NWRITERS * REGION,
  HOT = 240, /* of them, written much more than the others */
  MAX_RUN = 300,
  NFILES = 8,
  NOPERATIONS = 10,
  TIGHT_ROOM = NPAGES - 100,
  ENOUGH = 2 * NPAGES,
  MAX_LOOKS = 100,
  SLACK = 256,         /* pages that are in two places while they are moved or rewritten */
  SECONDS = 40,        /* at scale 1 */
  SECONDS_SLOWED = 15, /* with a sanitizer */
  MIB = 1 << 20,
};

TestSuite (live, .init = livedrum_setup, .fini = dev_teardown, .timeout = 900);

/* What writers and main thread share. */
static atomic_bool stop;
static atomic_bool tight;     /* a write may fail for want of room */
static atomic_bool growing;   /* they write more than they trim */
static atomic_uint nrefused;  /* that did */
static atomic_uint nrequests; /* in all */
static atomic_bool failed;    /* a writer */

static unsigned char shadow[NPAGES * PAGE_BYTES];

/* A change of whole pages: what the server has for them is to become next. */
struct change {
  unsigned first, n; /* pages of the export */
  unsigned char next[MAX_RUN * PAGE_BYTES];
  size_t offset, len; /* of what is changed, in next */
  enum { WRITE, TRIM, ZERO } kind;
  uint32_t flags;
};

static unsigned char *
shadow_of (unsigned page)
{
  return shadow + (size_t) page * PAGE_BYTES;
}

/* Mostly a few pages; in a corner that is written again and again, or anywhere. */
static void
choose_pages (struct worker *w, bool hot, unsigned *first, unsigned *n)
{
  static const unsigned most[] = { 1, 4, 4, 16, 16, 40, MAX_RUN };
  unsigned room = hot ? HOT : REGION;

  *n = 1 + rng_below (&w->rng, most[rng_below (&w->rng, 7)]);
  if (*n > room)
    *n = room;
  *first = w->index * REGION + rng_below (&w->rng, room - *n + 1);
}

/* Where in its pages the change is: all of them, or any bytes. */
static void
choose_bytes (struct worker *w, struct change *c, bool part)
{
  c->offset = 0;
  c->len = c->n * PAGE_BYTES;
  if (part) {
    c->offset = rng_below (&w->rng, c->len);
    c->len = 1 + rng_below (&w->rng, c->len - c->offset);
  }
}

static void
choose_change (struct worker *w, struct change *c, uint32_t sequence)
{
  static _Thread_local unsigned char data[MAX_RUN * PAGE_BYTES];
  unsigned dice = rng_below (&w->rng, 100);
  bool hot = rng_below (&w->rng, 32);
  unsigned nwrites = atomic_load (&growing) ? 100 : 20;

  /* All of it once; and of what is not hot little later on, so that it is moved more often than written. */
  c->first = w->index * REGION + (sequence - 1) * MAX_RUN;
  c->n = REGION - (sequence - 1) * MAX_RUN;
  if (sequence > (REGION - 1) / MAX_RUN + 1)
    choose_pages (w, hot, &c->first, &c->n);
  else if (c->n > MAX_RUN)
    c->n = MAX_RUN;
  c->kind = !hot || dice < nwrites ? WRITE : dice % 2 ? TRIM : ZERO;
  c->flags = rng_below (&w->rng, 2) && c->kind == ZERO ? LIBNBD_CMD_FLAG_NO_HOLE : 0;
  choose_bytes (w, c, c->kind != TRIM && rng_below (&w->rng, 4) == 0);
  if (c->kind == WRITE && dice != 0)
    for (unsigned i = 0; i < c->n; i++)
      stamp_fill (data + i * PAGE_BYTES, (struct stamp){ w->index + 1, sequence, c->first + i });
  else
    memset (data, 0, c->n * PAGE_BYTES);
  memcpy (c->next, shadow_of (c->first), c->n * PAGE_BYTES);
  memcpy (c->next + c->offset, data + c->offset, c->len);
}

/* Read pages; every one must be as the shadow has it, or as next has it (unless that is NULL). The shadow is as they are. */
static void
check_pages (struct worker *w, unsigned first, unsigned n, const unsigned char *next)
{
  static _Thread_local unsigned char seen[MAX_RUN * PAGE_BYTES];
  struct stamp stamp;

  if (nbd_pread (w->nbd, seen, n * PAGE_BYTES, (uint64_t) first * PAGE_BYTES, 0) == -1) {
    worker_fail (w, "read of %u pages at %u: %s", n, first, nbd_get_error ());
    return;
  }
  for (unsigned i = 0; i < n; i++) {
    const unsigned char *page = seen + i * PAGE_BYTES;

    if (memcmp (page, shadow_of (first + i), PAGE_BYTES) == 0)
      continue;
    if (next && memcmp (page, next + i * PAGE_BYTES, PAGE_BYTES) == 0) {
      memcpy (shadow_of (first + i), page, PAGE_BYTES);
      continue;
    }
    stamp_read (page, &stamp);
    worker_fail (w,
                 "page %u holds other bytes than were written: they begin with writer %u, sequence "
                 "%u, page %" PRIu64,
                 first + i, stamp.writer, stamp.sequence, stamp.page);
    return;
  }
}

static int
send_change (struct worker *w, const struct change *c)
{
  uint64_t at = (uint64_t) c->first * PAGE_BYTES + c->offset;

  switch (c->kind) {
  case WRITE:
    return nbd_pwrite (w->nbd, c->next + c->offset, c->len, at, c->flags);
  case TRIM:
    return nbd_trim (w->nbd, c->len, at, c->flags);
  default:
    return nbd_zero (w->nbd, c->len, at, c->flags);
  }
}

static void
make_change (struct worker *w, struct change *c, uint32_t sequence)
{
  bool was_tight = atomic_load (&tight);

  choose_change (w, c, sequence);
  if (send_change (w, c) == 0)
    memcpy (shadow_of (c->first), c->next, c->n * PAGE_BYTES);
  else if (nbd_get_errno () == ENOSPC && (was_tight || atomic_load (&tight))) {
    atomic_fetch_add (&nrefused, 1);
    check_pages (w, c->first, c->n, c->next);
  } else
    worker_fail (w, "change %d of %zu bytes at page %u: %s", c->kind, c->len, c->first,
                 nbd_get_error ());
}

static void
writer_main (struct worker *w)
{
  struct change *change = malloc (sizeof *change);
  unsigned first, n;

  for (uint32_t sequence = 0; !atomic_load (&stop) && !worker_failed (w);) {
    if (rng_below (&w->rng, 5) < 2) {
      choose_pages (w, rng_below (&w->rng, 2), &first, &n);
      check_pages (w, first, n, NULL);
    } else
      make_change (w, change, ++sequence);
    atomic_fetch_add (&nrequests, 1);
  }
  if (worker_failed (w))
    atomic_store (&failed, true);
  free (change);
}

/* A backing file, and what the main thread knows of it. */
struct file {
  char *path;
  unsigned nusable; /* slots */
  enum { AWAY, COMING, THERE, LEAVING } state;
  bool fresh; /* is to be created */
  uint64_t job;
  bool cancelled, is_tight;
};

static struct file files[NFILES];
static struct rng rng;
static uint64_t rebalance; /* its job, or 0 */
static unsigned nadded, nremoved, ncancelled, ngave_up, nunfit, nrebalanced, ntight_done;

/* How many slots for pages have the devices that stay, if file leaves (NULL: none)? */
static unsigned
room_without (const struct file *file)
{
  unsigned n = 0;

  for (unsigned i = 0; i < NFILES; i++)
    if (files[i].state == THERE && &files[i] != file)
      n += files[i].nusable;
  return n - n / 64 - 1;
}

static bool
is_safe (const struct file *file)
{
  return room_without (file) >= NPAGES + SLACK;
}

static struct file *
any_file (int state)
{
  unsigned first = rng_below (&rng, NFILES);

  for (unsigned i = 0; i < NFILES; i++)
    if ((int) files[(first + i) % NFILES].state == state)
      return &files[(first + i) % NFILES];
  return NULL;
}

static int
random_prio (void)
{
  static const int prios[] = { -1, 0, 5, 5, 10, 32767 };

  return prios[rng_below (&rng, 6)];
}

/* Slow enough to be met half-way, or none. */
static char *
random_rate (bool slow)
{
  unsigned most = slow ? 4 : 20;

  return !slow && rng_below (&rng, 2)
           ? str ("%s", "")
           : str (", 'rate': %u", (unsigned) (1 + rng_below (&rng, most)) * MIB);
}

static void
begin_adding (struct file *file)
{
  file->job = control_start (
    control, "'verb': 'add', 'device': '%s', 'prio': %d%s", file->path, random_prio (),
    file->fresh ? str (", 'size': %u", (file->nusable + 2) * PAGE_BYTES) : "");
  file->state = COMING;
  file->fresh = false;
}

/* The server has let go of a file that was removed: another may take it. It may be deleted, too. */
static void
check_let_go (struct file *file)
{
  int fd = open (file->path, O_RDWR | O_CLOEXEC);

  cr_assert_geq (fd, 0, "%s: %m", file->path);
  cr_assert_eq (flock (fd, LOCK_EX | LOCK_NB), 0, "%s: %m", file->path);
  if (rng_below (&rng, 2)) {
    cr_assert_eq (unlink (file->path), 0);
    file->fresh = true;
  }
  close (fd);
}

/* Is it removed, refused at once, or under way? */
static void
begin_removing (struct file *file)
{
  json *reply;

  file->is_tight = !is_safe (file);
  file->cancelled = false;
  if (file->is_tight) {
    atomic_store (&nrefused, 0);
    atomic_store (&tight, true);
  }
  control_send (control, "'verb': 'remove', 'device': '%s'%s", file->path,
                random_rate (file->is_tight));
  reply = control_reply (control);
  if (json_object_get_boolean (member (reply, "ok"))) {
    file->job = member_uint (reply, "job");
    file->state = LEAVING;
    if (file->is_tight)
      atomic_store (&growing, true); /* now they want the room that was there when it began */
    return;
  }
  expect_str (reply, "errno", "ENOSPC");
  cr_assert (strstr (member_str (reply, "error"), "room for"), "%s", member_str (reply, "error"));
  nunfit++;
  if (file->is_tight)
    atomic_store (&tight, false);
}

/* A removal has ended. */
static void
end_removing (struct file *file, json *job)
{
  const char *state = member_str (job, "state");
  bool done = strcmp (state, "done") == 0, cancelled = strcmp (state, "cancelled") == 0;

  file->state = done ? AWAY : THERE;
  cr_assert (done || (cancelled ? file->cancelled : file->is_tight), "%s",
             json_object_to_json_string (job));
  nremoved += done;
  ncancelled += cancelled;
  ngave_up += !done && !cancelled;
  if (done) {
    control_expect_no_device (control, file->path);
    check_let_go (file);
  } else
    expect_str (control_device (control, file->path), "state", "open");
  if (!file->is_tight)
    return;
  if (!done)
    cr_assert_eq (atomic_load (&nrefused), 0, "%u writes failed for a removal that was not: %s",
                  atomic_load (&nrefused), json_object_to_json_string (job));
  ntight_done += done;
  while (!is_safe (NULL)) {
    struct file *more = any_file (AWAY);

    begin_adding (more);
    control_wait (control, more->job, "done");
    more->state = THERE;
    more->job = 0;
    nadded++;
  }
  atomic_store (&tight, false);
}

/* As long as a device is there, clients have its room, whatever a removal wants. */
static void
check_clients_come_first (const struct file *file)
{
  unsigned n = atomic_load (&nrefused);
  json *devices = member (control_status (control), "devices");

  for (size_t i = 0; i < json_object_array_length (devices); i++)
    if (strcmp (member_str (json_object_array_get_idx (devices, i), "name"), file->path) == 0)
      cr_assert_eq (n, 0, "%u writes failed while there was room on %s", n, file->path);
}

/* See what has become of a file's job, for at most ms. */
static void
look_after (struct file *file, unsigned ms)
{
  json *job;

  if (file->state == LEAVING && file->is_tight)
    check_clients_come_first (file);
  job = member (
    control_ok (control, "'verb': 'wait', 'job': %" PRIu64 ", 'seconds': 0.%03u", file->job, ms),
    "job");

  if (strcmp (member_str (job, "state"), "running") == 0)
    return;
  file->job = 0;
  if (file->state == LEAVING) {
    end_removing (file, job);
    return;
  }
  expect_str (job, "state", "done");
  file->state = THERE;
  nadded++;
}

/* All of them, and for a while. */
static void
look_after_all (void)
{
  for (unsigned i = 0; i < NFILES; i++)
    if (files[i].job)
      look_after (&files[i], (unsigned) rng_below (&rng, 30));
  if (rebalance) {
    json *job = control_job (control, rebalance);

    if (strcmp (member_str (job, "state"), "running") == 0)
      return;
    nrebalanced += strcmp (member_str (job, "state"), "done") == 0;
    cr_assert_str_neq (member_str (job, "state"), "failed", "%s", json_object_to_json_string (job));
    rebalance = 0;
  }
}

static bool
any_job (void)
{
  for (unsigned i = 0; i < NFILES; i++)
    if (files[i].job)
      return true;
  return rebalance;
}

static void
wait_for_all (void)
{
  while (any_job ())
    look_after_all ();
}

/* What status says of each device adds up at any time. */
static void
check_sums (void)
{
  json *status = control_status (control), *devices = member (status, "devices");
  uint64_t nused = 0;

  for (size_t i = 0; i < json_object_array_length (devices); i++) {
    json *device = json_object_array_get_idx (devices, i);

    nused += member_uint (device, "used");
    if (strcmp (member_str (device, "state"), "adding") != 0)
      expect_uint (device, "size",
                   member_uint (device, "used") + member_uint (device, "avail") + 2 * PAGE_BYTES);
  }
  expect_uint (status, "drum.used", nused);
}

/* Remove the device without which there is room for what clients have now, but not quite for what they will want. */
static void
remove_tight (void)
{
  struct file *best = NULL;

  for (unsigned i = 0; i < NFILES; i++)
    if (files[i].state == THERE && (!best || abs ((int) room_without (&files[i]) - TIGHT_ROOM) <
                                               abs ((int) room_without (best) - TIGHT_ROOM)))
      best = &files[i];
  atomic_store (&growing, false);
  for (unsigned i = 0; i < MAX_LOOKS; i++)
    if (member_uint (control_export (control), "used") / PAGE_BYTES < room_without (best) / 5 * 4)
      break;
  if (!is_safe (best))
    begin_removing (best);
}

static void
remove_something (void)
{
  struct file *file = any_file (THERE);

  if (!any_job () && rng_below (&rng, 2))
    remove_tight ();
  else if (file && is_safe (file) && !atomic_load (&tight))
    begin_removing (file);
}

static void
cancel_something (void)
{
  struct file *file = any_file (LEAVING);

  if (file && rng_below (&rng, 2)) {
    file->cancelled = true;
    control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, file->job);
  } else if (rebalance && rng_below (&rng, 4) == 0)
    control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, rebalance);
}

static void
do_something (void)
{
  struct file *file;

  switch (rng_below (&rng, NOPERATIONS)) {
  case 0:
  case 1:
    if (!atomic_load (&tight) && room_without (NULL) < ENOUGH && (file = any_file (AWAY)))
      begin_adding (file);
    break;
  case 2:
  case 3:
  case 4:
    remove_something ();
    break;
  case 5:
    cancel_something ();
    break;
  case 6:
  case 7:
    if ((file = any_file (rng_below (&rng, 4) ? THERE : LEAVING)) && file->state == THERE)
      control_ok (control, "'verb': 'priority', 'device': '%s', 'prio': %d", file->path,
                  random_prio ());
    break;
  case 8:
    if (!rebalance && !atomic_load (&tight))
      rebalance = control_start (control, "'verb': 'rebalance'%s", random_rate (false));
    break;
  case 9:
    check_sums ();
    if (!atomic_load (&tight))
      atomic_store (&growing, rng_below (&rng, 3) == 0);
    break;
  }
}

/* Everything goes to one more device, while clients go on; then they stop. */
static void
leave_one (const char *last)
{
  wait_for_all ();
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", last, 16 * MIB);
  for (unsigned i = 0; i < NFILES; i++)
    if (files[i].state == THERE)
      files[i].job = control_start (control, "'verb': 'remove', 'device': '%s'", files[i].path);
  for (unsigned i = 0; i < NFILES; i++)
    if (files[i].job)
      control_wait (control, files[i].job, "done");
}

/* The one device left has all there is, and nothing else. */
static void
check_end (const char *last)
{
  static const unsigned char zeroes[PAGE_BYTES];
  static unsigned char seen[NPAGES * PAGE_BYTES];
  uint64_t nused = 0;
  json *status;

  client_read (nbd, seen, sizeof seen, 0);
  for (unsigned page = 0; page < NPAGES; page++) {
    cr_assert_eq (memcmp (seen + page * PAGE_BYTES, shadow_of (page), PAGE_BYTES), 0,
                  "page %u is another in the end (DRUM_TEST_SEED=%" PRIu64 ")", page,
                  random_seed ());
    nused += memcmp (shadow_of (page), zeroes, PAGE_BYTES) != 0;
  }
  status = control_status (control);
  cr_assert_eq (json_object_array_length (member (status, "devices")), 1);
  expect_uint (status, "drum.used", nused * PAGE_BYTES);
  expect_uint (control_device (control, last), "used", nused * PAGE_BYTES);
  expect_uint (control_export (control), "used", nused * PAGE_BYTES);
}

static void
name_files (void)
{
  static const unsigned mib[NFILES] = { 4, 5, 8, 3, 6, 4, 2, 7 };

  for (unsigned i = 0; i < NFILES; i++)
    files[i] = (struct file){ .path = dev_path ("%c", 'a' + i),
                              .nusable = mib[i] * MIB / PAGE_BYTES - 2,
                              .fresh = true };
}

/* Whatever comes and goes: no wrong byte, and no error but those that must be. */
Test (live, model)
{
  static struct worker workers[NWRITERS];
  unsigned seconds = random_steps (server_is_sanitized () ? SECONDS_SLOWED : SECONDS);
  char *last = dev_path ("last");
  double end;

  name_files ();
  rng = rng_for (1000);
  for (unsigned i = 0; i < 3; i++) { /* 17 MiB for 12 */
    files[i].state = THERE;
    files[i].fresh = false;
  }
  livedrum_start_as (&(struct server_options){
    .threads = 1,
    .params = PARAMS (dev_path ("a,size=4M"), dev_path ("b,size=5M,prio=5"),
                      dev_path ("c,size=8M,prio=5"), "size=12M") });
  for (unsigned i = 0; i < NWRITERS; i++)
    workers[i].main = writer_main;
  workers_start (&srv, workers, NWRITERS);
  for (end = seconds_now () + seconds; seconds_now () < end && !atomic_load (&failed);) {
    do_something ();
    look_after_all ();
  }
  if (!atomic_load (&failed))
    leave_one (last);
  atomic_store (&stop, true);
  workers_join (workers, NWRITERS);
  cr_log_info ("live: %u s: %u requests; devices: %u added, %u removed (%u of them tight), %u "
               "removals cancelled, %u gave up, %u did not fit; %u rebalanced",
               seconds, atomic_load (&nrequests), nadded, nremoved, ntight_done, ncancelled,
               ngave_up, nunfit, nrebalanced);
  cr_assert (nadded && nremoved, "nothing has happened");
  check_end (last);
  livedrum_stop ();
}
