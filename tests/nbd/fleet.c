/* SPDX-License-Identifier: BSD-3-Clause
 *
 * fleet.c - see fleet.h.
 */
#include <config.h>

#include "fleet.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/random.h"
#include "tests/scratch.h"

#include "model.h"

enum {
  NOPERATIONS = 12,
  TIGHT_ROOM = MODEL_PAGES - 100,
  ENOUGH = 2 * MODEL_PAGES,
  MAX_LOOKS = 100,
  SLACK = 256,         /* pages that are in two places while they are moved or rewritten */
  SLACK_FAULTY = 1024, /* and slots that failed, and wait to be looked at */
  MAX_LOST = 16,       /* pages that a job lists */
  MIB = 1 << 20,
};

struct fleet fleet;

static struct rng rng;
static uint64_t rebalance; /* its job, or 0 */
static bool ending;        /* all are to go */

/* How many slots for pages have the devices that stay, if file leaves (NULL: none)? */
static unsigned
room_without (const struct fleet_file *file)
{
  unsigned n = 0;

  for (struct fleet_file *f = fleet.file; f < fleet.file + FLEET_FILES; f++)
    if (f->state == THERE && !f->faulty && f != file)
      n += f->nusable;
  return n - n / 64 - 1;
}

bool
fleet_is_safe (const struct fleet_file *file)
{
  return room_without (file) >= MODEL_PAGES + (fleet.nfaults_begun ? SLACK_FAULTY : SLACK);
}

static struct fleet_file *
any_file (int state)
{
  unsigned first = rng_below (&rng, FLEET_FILES);

  for (unsigned i = 0; i < FLEET_FILES; i++)
    if ((int) fleet.file[(first + i) % FLEET_FILES].state == state)
      return &fleet.file[(first + i) % FLEET_FILES];
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
begin_adding (struct fleet_file *file)
{
  file->job = control_start (control, "'verb': 'add', 'device': '%s', 'prio': %d%s", file->path,
                             random_prio (),
                             file->fresh ? str (", 'size': %u", file->npages * PAGE_BYTES) : "");
  file->reopening = file->state == SICK;
  file->state = COMING;
  file->fresh = false;
}

/* The server has let go of a file that was removed: another may take it. It may be deleted, too. */
static void
check_let_go (struct fleet_file *file)
{
  int fd = open (file->path, O_RDWR | O_CLOEXEC);

  cr_assert_geq (fd, 0, "%s: %m", file->path);
  cr_assert_eq (flock (fd, LOCK_EX | LOCK_NB), 0, "%s: %m", file->path);
  if (rng_below (&rng, 2)) {
    cr_assert_eq (unlink (file->path), 0);
    file->fresh = true;
    file->hurt = file->faulty;
  }
  close (fd);
}

/* Is it removed, refused at once, or under way? */
static void
begin_removing (struct fleet_file *file, bool force)
{
  bool sick = file->state == SICK;
  json *reply;

  file->is_tight = !ending && !sick && !fleet_is_safe (file);
  file->cancelled = false;
  if (file->is_tight) {
    atomic_store (&model.nrefused, 0);
    atomic_store (&model.tight, true);
  }
  file->force = force;
  if (force)
    model_begin_faulty ();
  control_send (control, "'verb': 'remove', 'device': '%s'%s%s", file->path,
                random_rate (file->is_tight), force ? ", 'force': true" : "");
  reply = control_reply (control);
  if (json_object_get_boolean (member (reply, "ok"))) {
    file->job = member_uint (reply, "job");
    file->state = LEAVING;
    if (file->is_tight)
      atomic_store (&model.growing, true); /* now they want the room that was there when it began */
    return;
  }
  if (!file->hurt || strcmp (member_str (reply, "errno"), "EBUSY") != 0) {
    expect_str (reply, "errno", "ENOSPC");
    cr_assert (strstr (member_str (reply, "error"), "room for"), "%s", member_str (reply, "error"));
  }
  fleet.nunfit++;
  if (force)
    model_end_faulty ();
  if (file->is_tight)
    atomic_store (&model.tight, false);
}

/* A tight removal has ended: until there is room enough again, writes may fail. */
static void
end_tight (json *job, bool done)
{
  if (!done)
    cr_assert_eq (atomic_load (&model.nrefused), 0,
                  "%u writes failed for a removal that was not: %s", atomic_load (&model.nrefused),
                  json_object_to_json_string (job));
  fleet.ntight += done;
  while (!fleet_is_safe (NULL)) {
    struct fleet_file *more = any_file (AWAY);

    begin_adding (more);
    control_wait (control, more->job, "done");
    more->state = THERE;
    more->nusable = more->npages - 2;
    more->job = 0;
    fleet.nadded++;
  }
  atomic_store (&model.tight, false);
}

/* A removal by force has ended: these pages may have been given up. */
static void
note_lost (json *job)
{
  json *pages = member (job, "unreadable_pages");

  for (size_t i = 0; i < json_object_array_length (pages); i++)
    model_may_lose (member_uint (json_object_array_get_idx (pages, i), "page"));
  cr_assert_leq (member_uint (job, "lost"), json_object_array_length (pages));
  model_end_faulty ();
}

/* A removal has ended. */
static void
end_removing (struct fleet_file *file, json *job)
{
  const char *state = member_str (job, "state");
  bool done = strcmp (state, "done") == 0, cancelled = strcmp (state, "cancelled") == 0;

  file->state = done ? AWAY : THERE;
  cr_assert (done || (cancelled ? file->cancelled : file->is_tight || file->hurt || fleet.nfaults),
             "%s", json_object_to_json_string (job));
  fleet.nremoved += done;
  fleet.ncancelled += cancelled;
  fleet.ngave_up += !done && !cancelled;
  fleet.nlost += member_uint (job, "lost");
  if (file->force)
    note_lost (job);
  else
    expect_uint (job, "lost", 0);
  if (done) {
    control_expect_no_device (control, file->path);
    check_let_go (file);
  } else if (!file->hurt)
    expect_str (control_device (control, file->path), "state", "open");
  if (file->is_tight)
    end_tight (job, done);
}

/* As long as a device is there, clients have its room, whatever a removal wants. */
static void
check_clients_come_first (const struct fleet_file *file)
{
  unsigned n = atomic_load (&model.nrefused);
  json *devices = member (control_status (control), "devices");

  for (size_t i = 0; i < json_object_array_length (devices); i++)
    if (strcmp (member_str (json_object_array_get_idx (devices, i), "name"), file->path) == 0)
      cr_assert_eq (n, 0, "%u writes failed while there was room on %s", n, file->path);
}

/* An add has ended, or that of one that was sick, which opens it again. */
static void
end_adding (struct fleet_file *file, json *job)
{
  bool done = strcmp (member_str (job, "state"), "done") == 0;

  cr_assert (done || file->hurt, "%s", json_object_to_json_string (job));
  if (done) {
    file->state = THERE;
    fleet.nadded += !file->reopening;
    fleet.nreopened += file->reopening;
  } else if (file->reopening)
    file->state = SICK;
  else {
    unlink (file->path); /* there may be nothing, or a label that can't be read */
    file->state = AWAY;
    file->fresh = true;
    file->hurt = file->faulty;
  }
}

/* See what has become of a file's job, for at most ms. */
static void
look_after (struct fleet_file *file, unsigned ms)
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
  if (file->state == LEAVING)
    end_removing (file, job);
  else
    end_adding (file, job);
}

/* What status says of each device adds up at any time; and of those that are there, what state they are in. */
static void
look_at_devices (void)
{
  json *status = control_status (control), *devices = member (status, "devices");
  uint64_t nused = 0;

  for (size_t i = 0; i < json_object_array_length (devices); i++) {
    json *device = json_object_array_get_idx (devices, i);
    const char *name = member_str (device, "name"), *state = member_str (device, "state");

    nused += member_uint (device, "used");
    if (strcmp (state, "adding") == 0)
      continue;
    expect_uint (device, "size",
                 member_uint (device, "used") + member_uint (device, "avail") +
                   (member_uint (device, "bad") + 2) * PAGE_BYTES);
    cr_assert_leq (member_uint (device, "suspect"), member_uint (device, "bad"));
    for (struct fleet_file *f = fleet.file; f < fleet.file + FLEET_FILES; f++) {
      if ((f->state != THERE && f->state != SICK) || strcmp (name, f->path) != 0)
        continue;
      f->nused = member_uint (device, "used") / PAGE_BYTES;
      f->nusable = f->nused + member_uint (device, "avail") / PAGE_BYTES;
      f->state = strcmp (state, "open") == 0 ? THERE : SICK;
      cr_assert (f->hurt || (f->state == THERE && member_uint (device, "bad") == 0), "%s",
                 json_object_to_json_string (device));
    }
  }
  expect_uint (status, "drum.used", nused);
}

/* All of them, and for a while. */
static void
look_after_all (void)
{
  for (unsigned i = 0; i < FLEET_FILES; i++)
    if (fleet.file[i].job)
      look_after (&fleet.file[i], (unsigned) rng_below (&rng, 30));
  if (rebalance) {
    json *job = control_job (control, rebalance);

    if (strcmp (member_str (job, "state"), "running") != 0) {
      fleet.nrebalanced += strcmp (member_str (job, "state"), "done") == 0;
      cr_assert (fleet.nfaults_begun || strcmp (member_str (job, "state"), "failed") != 0, "%s",
                 json_object_to_json_string (job));
      rebalance = 0;
    }
  }
  look_at_devices ();
}

static bool
any_job (void)
{
  for (unsigned i = 0; i < FLEET_FILES; i++)
    if (fleet.file[i].job)
      return true;
  return rebalance;
}

/* Remove the device without which there is room for what clients have now, but not quite for what they will want. */
static void
remove_tight (void)
{
  struct fleet_file *best = NULL;

  for (struct fleet_file *f = fleet.file; f < fleet.file + FLEET_FILES; f++)
    if (f->state == THERE && (!best || abs ((int) room_without (f) - TIGHT_ROOM) <
                                         abs ((int) room_without (best) - TIGHT_ROOM)))
      best = f;
  atomic_store (&model.growing, false);
  for (unsigned i = 0; i < MAX_LOOKS; i++)
    if (member_uint (control_export (control), "used") / PAGE_BYTES < room_without (best) / 5 * 4)
      break;
  if (!fleet_is_safe (best))
    begin_removing (best, false);
}

static void
remove_something (void)
{
  struct fleet_file *file = any_file (THERE);

  if (!any_job () && !fleet.nfaults && !any_file (SICK) && rng_below (&rng, 2))
    remove_tight ();
  else if (file && fleet_is_safe (file) && !atomic_load (&model.tight))
    begin_removing (file, false);
}

static void
cancel_something (void)
{
  struct fleet_file *file = any_file (LEAVING);

  if (file && rng_below (&rng, 2)) {
    file->cancelled = true;
    control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, file->job);
  } else if (rebalance && rng_below (&rng, 4) == 0)
    control_ok (control, "'verb': 'cancel', 'job': %" PRIu64, rebalance);
}

/* Of one that loses more we would not be told which pages they are. */
static bool
may_force (const struct fleet_file *file)
{
  return file->nused <= MAX_LOST;
}

static void
treat_something (void)
{
  struct fleet_file *file = any_file (SICK);

  if (file && rng_below (&rng, 2))
    begin_adding (file);
  else if (file)
    begin_removing (file, may_force (file) && rng_below (&rng, 2));
}

static void
do_something (void)
{
  struct fleet_file *file;

  switch (rng_below (&rng, NOPERATIONS)) {
  case 0:
  case 1:
    if (!atomic_load (&model.tight) && room_without (NULL) < ENOUGH && (file = any_file (AWAY)))
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
    if (!rebalance && !atomic_load (&model.tight))
      rebalance = control_start (control, "'verb': 'rebalance'%s", random_rate (false));
    break;
  case 9:
    if (!atomic_load (&model.tight))
      atomic_store (&model.growing, rng_below (&rng, 3) == 0);
    break;
  case 10:
    treat_something ();
    break;
  case 11:
    if ((file = any_file (THERE)))
      control_ok (control, "'verb': 'maxio', 'device': '%s', 'maxio': %u", file->path,
                  (unsigned) rng_below (&rng, 4));
    break;
  }
}

void
fleet_step (void)
{
  do_something ();
  look_after_all ();
  control_forget ();
}

void
fleet_start (const struct server_options *options)
{
  static const unsigned mib[FLEET_FILES] = { 4, 5, 8, 3, 6, 4, 2, 7 };
  struct server_options mine = *options;

  rng = rng_for (1000);
  for (unsigned i = 0; i < FLEET_FILES; i++) {
    unsigned npages = mib[i] * MIB / PAGE_BYTES;

    fleet.file[i] = (struct fleet_file){ .path = dev_path ("%c", 'a' + i),
                                         .npages = npages,
                                         .nusable = npages - 2,
                                         .state = i < 3 ? THERE : AWAY,
                                         .fresh = i >= 3 };
  }
  mine.threads = 1;
  mine.params = PARAMS (dev_path ("a,size=4M"), dev_path ("b,size=5M,prio=5"),
                        dev_path ("c,size=8M,prio=5"), "size=12M");
  livedrum_start_as (&mine);
}

void
fleet_leave_one (const char *last)
{
  while (any_job ())
    look_after_all ();
  control_run (control, "done", "'verb': 'add', 'device': '%s', 'size': %u", last, 16 * MIB);
  ending = true;
  while (any_file (THERE) || any_file (SICK)) {
    /* One that is failing is busy as long as the server moves its pages off: then again. */
    for (struct fleet_file *f = fleet.file; f < fleet.file + FLEET_FILES; f++)
      if (f->state == THERE || f->state == SICK)
        begin_removing (f, f->state == SICK && may_force (f));
    do {
      look_after_all ();
      control_forget ();
    } while (any_job ());
  }
}

void
fleet_check_end (const char *last, uint64_t nused)
{
  json *status = control_status (control);

  cr_assert_eq (json_object_array_length (member (status, "devices")), 1);
  expect_uint (status, "drum.used", nused * PAGE_BYTES);
  expect_uint (control_device (control, last), "used", nused * PAGE_BYTES);
  expect_uint (control_export (control), "used", nused * PAGE_BYTES);
}
