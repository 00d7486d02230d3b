/* SPDX-License-Identifier: BSD-3-Clause
 *
 * evacuate_clients.c - tests of lib/evacuate.c: clients whose requests are under way, and those that need the room.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>

#include "tests/scratch.h"

#include "evacuating.h"
#include "logged.h"

TestSuite (evacuate_clients, .init = evacuating_setup, .fini = evacuating_teardown, .timeout = 60);

/* ---- requests under way ---- */

/* A client's, in a thread of its own, that stops where it reaches a device. */
static struct {
  sem_t begins, goes_on;
  pthread_t client;
  int ret;
} request;

static sem_t event;

static void *
write_one (void *unused)
{
  (void) unused;
  request.ret = stamped_write (&pages, 77, 1);
  return NULL;
}

static void *
read_one (void *unused)
{
  static char data[PAGE_BYTES];

  (void) unused;
  request.ret = export_read (export, data, sizeof data, 234 * PAGE_BYTES);
  return NULL;
}

static void
begin_request (void *(*main) (void *), sem_t **begins, sem_t **goes_on)
{
  sem_init (&request.begins, 0, 0);
  sem_init (&request.goes_on, 0, 0);
  sem_init (&event, 0, 0);
  *goes_on = &request.goes_on;
  *begins = &request.begins;
  cr_assert_eq (pthread_create (&request.client, NULL, main, NULL), 0);
  sem_wait (&request.begins);
}

static void
begin_write (void)
{
  begin_request (write_one, &hook.write_begins, &hook.write_goes_on);
}

static void
begin_read (void)
{
  begin_request (read_one, &hook.read_begins, &hook.read_goes_on);
}

/* It goes on, and ends well. */
static void
end_request (void)
{
  sem_post (&request.goes_on);
  pthread_join (request.client, NULL);
  cr_assert_eq (request.ret, 0);
}

/* A write under way holds a slot that no map shows: the device stays until it has ended, and its page moves, too. */
Test (evacuate_clients, waits_for_writes_under_way)
{
  uint64_t id;

  make_with_90_pages (true);
  begin_write ();
  hook.sleeps = &event;
  id = start_removing ("a", false);
  for (unsigned i = 0; i < 3; i++)
    sem_wait (&event);
  cr_assert_eq (drum_nused_on (drum, "a"), 1);
  end_request ();
  assert_job (finish (id), JOB_DONE, NULL);
  drum_assert_gone (drum, "a");
  stamped_assert_whole (&pages, drum);
}

/* Nor does it give up for pages that can't be read before it has seen all. */
Test (evacuate_clients, waits_for_writes_with_unreadable_pages)
{
  uint64_t id;

  make_with_90_pages (true);
  spoil (3);
  begin_write ();
  hook.sleeps = hook.job_waits_or_ends = &event;
  id = start_removing ("a", false);
  sem_wait (&event);
  drum_assert_state (drum, "a", DEVICE_CLOSING);
  cr_assert_eq (drum_nused_on (drum, "a"), 2);
  end_request ();
  pages.sequence[3] = STAMPED_EIO;
  assert_job (finish (id), JOB_FAILED, "1 pages on it can't be read");
  cr_assert_eq (drum_nused_on (drum, "a"), 1);
  stamped_assert_whole (&pages, drum);
}

/* A read under way keeps its page where it is: the file is not closed under it. */
Test (evacuate_clients, waits_for_reads_under_way)
{
  uint64_t id;

  make_with_90_pages (true);
  begin_read ();
  hook.job_waits_or_ends = &event;
  id = start_removing ("a", false);
  sem_wait (&event);
  drum_assert_state (drum, "a", DEVICE_CLOSING);
  cr_assert_gt (drum_nused_on (drum, "a"), 0);
  end_request ();
  assert_job (finish (id), JOB_DONE, NULL);
  stamped_assert_whole (&pages, drum);
}

/* ---- clients that need the room ---- */

static unsigned next_page;
static int client_ret;

/* A client writes meanwhile, without an error, and so a can't be removed, and is open. */
static void
assert_gives_up (const char *says)
{
  struct job_info info = remove_device ("a", false);

  cr_assert_eq (client_ret, 0, "%s", strerror (-client_ret));
  assert_job (info, JOB_FAILED, says);
  drum_assert_state (drum, "a", DEVICE_OPEN);
}

/* Write new pages until none is left of the room beside what is closing, and one more. */
static void
need_the_room (void)
{
  struct drum_device_info a;

  if (hook.npieces != 2)
    return;
  do
    client_ret = stamped_write (&pages, next_page++, 1);
  while (client_ret == 0 && drum_find_file (drum, "a", &a) && a.state == DEVICE_CLOSING);
}

/* A write that finds no room elsewhere has that of the closing device, which is open again, and stays. */
Test (evacuate_clients, a_new_page_needs_the_room)
{
  make_with_90_pages (true);
  next_page = 100;
  hook.after_piece = need_the_room;
  assert_gives_up ("/a: the other devices have no more room");
  cr_assert_eq (hook.npieces, 2, "it went on");
  stamped_assert_whole (&pages, drum);
}

/* Leave room for 5 pages beside what is kept. */
static void
leave_little_room (void)
{
  if (hook.npieces == 2)
    drum_take_any (drum, drum_nfree (drum) - room_nkept (B_SLOTS) - 5);
}

/* Evacuation itself never takes what is kept back for rewrites: these are no moves to the others. */
Test (evacuate_clients, leaves_what_is_kept)
{
  struct drum_device_info b;

  make_with_90_pages (true);
  hook.after_piece = leave_little_room;
  assert_job (remove_device ("a", false), JOB_FAILED, "no more room");
  drum_assert_state (drum, "a", DEVICE_OPEN);
  cr_assert (drum_find_file (drum, "b", &b));
  cr_assert_eq (b.nfree, room_nkept (B_SLOTS), "%u", b.nfree);
  stamped_assert (&pages);
}

/* Fill what is not closing with other pages, and then rewrite one of the closing device's. */
static void
rewrite_in_need (void)
{
  if (hook.npieces != 1)
    return;
  drum_take_any (drum, drum_nfree (drum) - room_nkept (B_SLOTS));
  client_ret = stamped_write (&pages, 299, 1);
}

/* The same for a page of the closing device itself, whose new slot is no new one once the device is open again: nothing but
 * the kept slots is free. */
Test (evacuate_clients, a_rewrite_needs_the_room)
{
  make (true);
  drum_add_file (drum, "a", 5, 200); /* 3 of its slots are kept back; all are used */
  drum_add_file (drum, "b", 0, B_SLOTS);
  cr_assert_eq (stamped_write (&pages, 0, 1), 0);
  cr_assert_eq (stamped_write (&pages, 101, 199), 0);
  cr_assert_eq (drum_nused_on (drum, "a"), 200);
  hook.after_piece = rewrite_in_need;
  assert_gives_up ("no more room");
  stamped_assert (&pages);
}

static void
need_the_room_last (void)
{
  hook.npieces = 2;
  need_the_room ();
}

/* The same at the last moment, when all pages have moved: the device is not taken from under the client's page. */
Test (evacuate_clients, a_new_page_needs_the_room_last)
{
  make_with_90_pages (true);
  next_page = 100;
  hook.before_remove = need_the_room_last;
  assert_gives_up ("/a: the other devices have no more room");
  cr_assert_eq (drum_nused_on (drum, "a"), 1);
  stamped_assert_whole (&pages, drum);
}
