/* SPDX-License-Identifier: BSD-3-Clause
 *
 * kill.c - a server with state= that is killed (SIGKILL) again and again, at random moments, and started anew with the same command
 * line, while four clients write, read, trim and zero, and devices come, go and change rank.
 *
 * After each start every page is as it was when it was last answered for, or as a request wanted it that was sent and not answered;
 * the devices are those that were acknowledged, or asked for; and what the server says of itself adds up.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <criterion/criterion.h>
#include <linux/magic.h>

#include "tests/faults/faults.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum {
  KILLS = 30, /* without $DRUM_KILLS */
  NCLIENTS = 4,
  REGION = 512, /* pages of each */
  NPAGES = NCLIENTS * REGION,
  DEPTH = 4,  /* requests at once on a connection */
  MOST = 16,  /* pages of a request */
  LIFE = 400, /* requests that a server may answer */
  NFILES = 8,
  SLACK = 600,   /* pages that the devices have room for, and clients don't ask for */
  ENOUGH = 8000, /* and with so many there comes no more */
  NCHANGES = 3,  /* at most: acknowledged ones of a life, and again so many that are asked for */
  MIB = 1 << 20,
};

static void
setup_in_memory (void)
{
  struct statfs fs;

  if (statfs ("/dev/shm", &fs) == -1 || fs.f_type != TMPFS_MAGIC || access ("/dev/shm", W_OK) == -1)
    cr_skip_test ("/dev/shm is no tmpfs");
  setenv ("TMPDIR", "/dev/shm", 1);
  livedrum_setup ();
}

TestSuite (kill, .fini = dev_teardown);

/* ---- clients ---- */

struct page {
  uint32_t version; /* that was answered for; 0: zeroes */
  uint32_t wanted;  /* by a request that was not */
  bool is_asked;    /* there is one */
};

struct request {
  bool busy;
  enum { READ, WRITE, TRIM, ZERO } kind;
  int64_t cookie;
  unsigned first, n; /* pages of the region */
  char data[MOST][PAGE_BYTES];
};

struct region {
  struct rng rng; /* goes on over all lives */
  uint32_t last;  /* version */
  struct page page[REGION];
  struct request request[DEPTH];
};

static struct region regions[NCLIENTS];
static atomic_uint nanswered;
static atomic_uint last_answer; /* who has it kills the server; 0: nobody */
static atomic_bool killed;

static void
count_answer (void)
{
  unsigned n = atomic_fetch_add (&nanswered, 1) + 1, last = atomic_load (&last_answer);

  if (last && n >= last && !atomic_exchange (&killed, true))
    kill (srv.pid, SIGKILL);
}

static uint64_t
page_number (const struct worker *w, unsigned page)
{
  return (uint64_t) w->index * REGION + page;
}

static bool
is_free (const struct region *r, unsigned first, unsigned n)
{
  for (unsigned i = 0; i < DEPTH; i++) {
    const struct request *other = &r->request[i];

    if (other->busy && other->first < first + n && first < other->first + other->n)
      return false;
  }
  return true;
}

/* Something for pages that no other request of ours concerns; a corner of them more often. */
static void
choose (struct worker *w, struct region *r, struct request *req)
{
  uint64_t dice = rng_below (&w->rng, 20);

  do {
    req->n = 1 + (unsigned) rng_below (&w->rng, rng_below (&w->rng, 2) ? MOST : 2);
    req->first =
      (unsigned) rng_below (&w->rng, (rng_below (&w->rng, 3) ? REGION : 4 * MOST) - req->n);
  } while (!is_free (r, req->first, req->n));
  req->kind = dice < 6 ? READ : dice < 16 ? WRITE : dice < 18 ? TRIM : ZERO;
  if (req->kind == READ)
    return;
  r->last++;
  for (unsigned i = 0; i < req->n; i++) {
    struct page *page = &r->page[req->first + i];

    page->is_asked = true;
    page->wanted = req->kind == WRITE && rng_below (&w->rng, 12) ? r->last : 0;
    memset (req->data[i], 0, PAGE_BYTES);
    if (page->wanted)
      stamp_fill (req->data[i],
                  (struct stamp){ w->index + 1, page->wanted, page_number (w, req->first + i) });
  }
}

static void
submit (struct worker *w, struct request *req)
{
  uint64_t at = page_number (w, req->first) * PAGE_BYTES, len = (uint64_t) req->n * PAGE_BYTES;
  uint32_t flags = rng_below (&w->rng, 50) ? 0 : LIBNBD_CMD_FLAG_FUA;
  nbd_completion_callback none = NBD_NULL_COMPLETION;

  switch (req->kind) {
  case READ:
    req->cookie = nbd_aio_pread (w->nbd, req->data, len, at, none, 0);
    break;
  case WRITE:
    req->cookie = nbd_aio_pwrite (w->nbd, req->data, len, at, none, flags);
    break;
  case TRIM:
    req->cookie = nbd_aio_trim (w->nbd, len, at, none, flags);
    break;
  case ZERO:
    req->cookie = nbd_aio_zero (w->nbd, len, at, none, flags);
    break;
  }
  req->busy = req->cookie != -1;
  if (!req->busy && !atomic_load (&killed))
    worker_fail (w, "submit: %s", nbd_get_error ());
}

/* Is that the page, in this version? */
static bool
is_version (const void *data, unsigned client, uint64_t page, uint32_t version)
{
  struct stamp stamp;

  if (!stamp_read (data, &stamp))
    return false;
  if (version == 0)
    return stamp_is_zero (&stamp);
  return stamp.writer == client + 1 && stamp.sequence == version && stamp.page == page;
}

/* It has been answered, and well. */
static void
finish (struct worker *w, struct region *r, const struct request *req)
{
  for (unsigned i = 0; i < req->n; i++) {
    struct page *page = &r->page[req->first + i];
    uint64_t number = page_number (w, req->first + i);

    if (req->kind == READ && !is_version (req->data[i], w->index, number, page->version))
      worker_fail (w, "page %" PRIu64 " is not version %u", number, page->version);
    if (req->kind == READ)
      continue;
    page->version = page->wanted;
    page->is_asked = false;
  }
  count_answer ();
}

/* What has been answered; the rest, if the server is dead, never will be. */
static void
look (struct worker *w, struct region *r)
{
  for (unsigned i = 0; i < DEPTH; i++) {
    struct request *req = &r->request[i];
    int done = req->busy ? nbd_aio_command_completed (w->nbd, req->cookie) : 0;

    if (done == 0)
      continue;
    req->busy = false;
    if (done == 1)
      finish (w, r, req);
    else if (!atomic_load (&killed) || nbd_get_errno () != ENOTCONN)
      worker_fail (w, "request of kind %d: %s", req->kind, nbd_get_error ());
  }
}

static void
use (struct worker *w)
{
  struct region *r = w->context;

  w->rng = r->rng;
  while (!worker_failed (w) && !nbd_aio_is_dead (w->nbd) && !nbd_aio_is_closed (w->nbd)) {
    for (unsigned i = 0; i < DEPTH; i++)
      if (!r->request[i].busy) {
        choose (w, r, &r->request[i]);
        submit (w, &r->request[i]);
      }
    if (nbd_poll (w->nbd, -1) == -1 && !atomic_load (&killed))
      worker_fail (w, "poll: %s", nbd_get_error ());
    look (w, r);
  }
  look (w, r);
  r->rng = w->rng;
}

/* What a page holds now is what it holds from here on. */
static void
settle_page (unsigned client, unsigned i, const void *data)
{
  struct page *page = &regions[client].page[i];
  uint64_t number = (uint64_t) client * REGION + i;
  struct stamp stamp;

  if (page->is_asked && is_version (data, client, number, page->wanted))
    page->version = page->wanted;
  stamp_read (data, &stamp);
  cr_assert (is_version (data, client, number, page->version),
             "page %" PRIu64 " holds writer %u, sequence %u, page %" PRIu64
             "; answered was %u, asked for %u (%d)",
             number, stamp.writer, stamp.sequence, stamp.page, page->version, page->wanted,
             page->is_asked);
  page->is_asked = false;
}

/* How many pages are not zeroes. */
static uint64_t
settle_pages (void)
{
  static char data[64][PAGE_BYTES];
  uint64_t n = 0;

  for (unsigned page = 0; page < NPAGES; page += 64) {
    client_read (nbd, data, sizeof data, (uint64_t) page * PAGE_BYTES);
    for (unsigned i = 0; i < 64; i++) {
      settle_page ((page + i) / REGION, (page + i) % REGION, data[i]);
      n += regions[(page + i) / REGION].page[(page + i) % REGION].version != 0;
    }
  }
  for (unsigned i = 0; i < NCLIENTS; i++)
    for (unsigned k = 0; k < DEPTH; k++)
      regions[i].request[k].busy = false;
  return n;
}

/* ---- devices ---- */

/* A backing file, and what the server has acknowledged of it; or was asked for since then. */
struct file {
  char *path;
  unsigned npages;
  enum { AWAY, THERE, LEAVING } state;
  bool is_made;
  int prio;
  enum { NOTHING, ADD, REMOVE, PRIORITY } asked;
  int asked_prio;
};

static struct file files[NFILES];
static struct rng rng;
static unsigned nadded, nremoved, nresumed, nranked; /* after a kill, by what was asked for */

static int
random_prio (void)
{
  static const int prios[] = { -1, 0, 5, 5, 10, 32767 };

  return prios[rng_below (&rng, 6)];
}

/* Slots for pages, without this file. */
static unsigned
room_without (const struct file *file)
{
  unsigned n = 0;

  for (const struct file *f = files; f < files + NFILES; f++)
    if (f != file && f->state == THERE && f->asked != REMOVE)
      n += f->npages - 2;
  return n;
}

static struct file *
any_file (int state)
{
  unsigned first = (unsigned) rng_below (&rng, NFILES);

  for (unsigned i = 0; i < NFILES; i++) {
    struct file *f = &files[(first + i) % NFILES];

    if ((int) f->state == state && f->asked == NOTHING)
      return f;
  }
  return NULL;
}

/* Ask for a change of some device. NULL: there is none that can be now. */
static struct file *
ask (void)
{
  unsigned what = (unsigned) rng_below (&rng, 3);
  struct file *f = any_file (what == 0 ? AWAY : THERE);

  if (!f || (what == 0 && room_without (NULL) > ENOUGH) ||
      (what == 1 && room_without (f) < NPAGES + SLACK))
    return NULL;
  f->asked_prio = random_prio ();
  switch (what) {
  case 0:
    f->asked = ADD;
    control_send (control, "'verb': 'add', 'device': '%s', 'prio': %d%s", f->path, f->asked_prio,
                  f->is_made ? "" : str (", 'size': %u", f->npages * PAGE_BYTES));
    break;
  case 1:
    f->asked = REMOVE;
    control_send (control, "'verb': 'remove', 'device': '%s'%s", f->path,
                  rng_below (&rng, 4) == 0
                    ? ""
                    : str (", 'rate': %u", (unsigned) (1 + rng_below (&rng, 8)) * MIB));
    break;
  case 2:
    f->asked = PRIORITY;
    control_send (control, "'verb': 'priority', 'device': '%s', 'prio': %d", f->path,
                  f->asked_prio);
    break;
  }
  return f;
}

/* It has been answered. */
static void
acknowledge (struct file *f)
{
  json *reply = control_reply (control);

  cr_assert (json_object_get_boolean (member (reply, "ok")), "%s",
             json_object_to_json_string (reply));
  if (f->asked == ADD)
    control_wait (control, member_uint (reply, "job"), "done");
  if (f->asked == REMOVE)
    f->state = LEAVING;
  else {
    f->state = THERE;
    f->prio = f->asked_prio;
  }
  f->is_made = true;
  f->asked = NOTHING;
}

static void
change_devices (void)
{
  for (uint64_t n = rng_below (&rng, NCHANGES + 1); n > 0; n--) {
    struct file *f = ask ();

    if (f)
      acknowledge (f);
  }
  if (rng_below (&rng, 3) == 0)
    control_start (control, "'verb': 'rebalance'");
  for (uint64_t n = rng_below (&rng, NCHANGES + 1); n > 0; n--)
    ask ();
}

static json *
find_device (json *status, const char *path)
{
  json *devices = member (status, "devices");

  for (size_t i = 0; i < json_object_array_length (devices); i++)
    if (strcmp (member_str (json_object_array_get_idx (devices, i), "name"), path) == 0)
      return json_object_array_get_idx (devices, i);
  return NULL;
}

static void
settle_absent (struct file *f)
{
  cr_assert (f->state != THERE || f->asked == REMOVE, "%s: is not there", f->path);
  nremoved += f->state != AWAY;
  f->state = AWAY;
  if (f->asked != ADD && rng_below (&rng, 2))
    return;
  unlink (f->path); /* if it was made, perhaps not as a whole */
  f->is_made = false;
}

static void
settle_present (struct file *f, json *device)
{
  const char *state = member_str (device, "state"), *text = json_object_to_json_string (device);
  int prio = json_object_get_int (member (device, "prio"));

  cr_assert (f->state != AWAY || f->asked == ADD, "%s: is there", f->path);
  if (f->state == LEAVING || (f->asked == REMOVE && strcmp (state, "open") != 0)) {
    cr_assert_str_eq (state, "closing", "%s", text);
    nresumed++;
    f->state = LEAVING;
  } else {
    cr_assert_str_eq (state, "open", "%s", text);
    nadded += f->state == AWAY;
    f->state = THERE;
    f->is_made = true;
  }
  if ((f->asked == ADD || f->asked == PRIORITY) && prio == f->asked_prio) {
    nranked += f->asked == PRIORITY;
    f->prio = prio;
  }
  cr_assert_eq (prio, f->prio, "must be %d: %s", f->prio, text);
}

/* The server has all devices that it must have, and no others; those that were asked for, and whose answer nobody saw, are there or
 * not from here on. */
static void
settle_devices (void)
{
  json *status = control_status (control);
  size_t n = json_object_array_length (member (status, "devices"));

  for (struct file *f = files; f < files + NFILES; f++) {
    json *device = find_device (status, f->path);

    if (device)
      settle_present (f, device);
    else
      settle_absent (f);
    n -= device != NULL;
    f->asked = NOTHING;
  }
  cr_assert_eq (n, 0, "%s", json_object_to_json_string (status));
}

/* No client does anything. A page that is on its way off a device has two slots. */
static void
check_accounts (uint64_t nused)
{
  json *status = control_status (control), *devices = member (status, "devices");
  const char *text = json_object_to_json_string (status);
  bool moving = false;
  uint64_t sum = 0;

  for (size_t i = 0; i < json_object_array_length (devices); i++) {
    json *dev = json_object_array_get_idx (devices, i);

    expect_uint (dev, "bad", 0);
    expect_uint (dev, "mismatches", 0);
    expect_uint (dev, "size",
                 member_uint (dev, "used") + member_uint (dev, "avail") + 2 * PAGE_BYTES);
    sum += member_uint (dev, "used");
    moving |= strcmp (member_str (dev, "state"), "closing") == 0;
  }
  expect_uint (status, "drum.used", sum);
  expect_uint (json_object_array_get_idx (member (status, "exports"), 0), "used",
               nused * PAGE_BYTES);
  cr_assert (sum == nused * PAGE_BYTES || (moving && sum > nused * PAGE_BYTES), "%s", text);
}

/* ---- lives of a server ---- */

/* The same command line each time. */
static void
start (const char *state)
{
  livedrum_start_as (&(struct server_options){
    .threads = 1, /* nbdkit may abort with more when one hangs up */
    .params =
      PARAMS (dev_path ("a,size=4M"), dev_path ("b,size=5M,prio=5"), dev_path ("c,size=8M,prio=5"),
              str ("size=%u", NPAGES * PAGE_BYTES), str ("state=%s", state)) });
}

static void
make_files (void)
{
  static const unsigned mib[NFILES] = { 4, 5, 8, 3, 6, 4, 2, 7 };

  for (unsigned i = 0; i < NFILES; i++)
    files[i] = (struct file){ .path = dev_path ("%c", 'a' + i),
                              .npages = mib[i] * MIB / PAGE_BYTES,
                              .state = i < 3 ? THERE : AWAY,
                              .is_made = i < 3,
                              .prio = i == 0 ? -1 : 5 };
}

/* Sessions of a life before are barred, by a server that has never seen them. */
static void
expect_barred (unsigned epoch)
{
  struct nbd_handle *old = nbd_create ();

  cr_assert_eq (nbd_set_export_name (old, str ("@load.%u", epoch)), 0);
  cr_assert_eq (nbd_connect_unix (old, srv.socket), -1, "epoch %u is let in", epoch);
  server_wait_stderr (&srv, "a later session of client load");
  nbd_close (old);
}

/* Clients at work, devices on their way, and then the end. */
static void
live (unsigned epoch)
{
  struct worker workers[NCLIENTS];

  atomic_store (&killed, false);
  atomic_store (&last_answer, 0);
  for (unsigned i = 0; i < NCLIENTS; i++)
    workers[i] =
      (struct worker){ .main = use, .context = &regions[i], .export = str ("@load.%u", epoch) };
  workers_start (&srv, workers, NCLIENTS);
  change_devices ();
  atomic_store (&last_answer, atomic_load (&nanswered) + 1 + (unsigned) rng_below (&rng, LIFE));
  workers_join_killed (workers, NCLIENTS);
  livedrum_kill ();
}

/* In the end all that leaves has left, every page can be read, and no slot is lost. */
static void
check_end (uint64_t nused)
{
  json *jobs = member (control_status (control), "jobs"), *job;

  for (size_t i = 0; i < json_object_array_length (jobs); i++)
    control_wait (control, member_uint (json_object_array_get_idx (jobs, i), "id"), "done");
  settle_devices ();
  check_accounts (nused);
  job = control_run (control, "done", "'verb': 'scrub'");
  expect_uint (job, "unreadable", 0);
  expect_uint (job, "done", nused * PAGE_BYTES);
  client_trim (nbd, (uint64_t) NPAGES * PAGE_BYTES, 0);
  check_accounts (0);
}

static unsigned
nkills (void)
{
  const char *s = getenv ("DRUM_KILLS");

  return s && *s ? (unsigned) strtoul (s, NULL, 10) : random_steps (KILLS);
}

static void
kill_often (void)
{
  const char *state = run_path ("state");
  uint64_t nused = 0;

  rng = rng_for (3000);
  for (unsigned i = 0; i < NCLIENTS; i++)
    regions[i].rng = rng_for (3001 + i);
  make_files ();
  start (state);
  for (unsigned i = 1; i <= nkills (); i++) {
    live (i);
    control_forget ();
    start (state);
    settle_devices ();
    nused = settle_pages ();
    check_accounts (nused);
    expect_barred (i - 1);
  }
  printf ("%u answers; of what was asked for at the end: %u added, %u removed, %u went on leaving, "
          "%u ranked\n",
          atomic_load (&nanswered), nadded, nremoved, nresumed, nranked);
  check_end (nused);
  livedrum_stop ();
  start (state);
  check_accounts (0);
  livedrum_stop ();
}

/* DIR on a disk (where temporary files are on one). */
Test (kill, at_random, .init = livedrum_setup, .timeout = 3600)
{
  kill_often ();
}

/* DIR in memory, where nothing is synced. */
Test (kill, at_random_in_memory, .init = setup_in_memory, .timeout = 3600)
{
  kill_often ();
}

/* ---- sessions that come back while their old requests hang ---- */

enum { SESSIONS = 12, NHELD = 8, TURNS = 200 };

static struct faults *faults;

struct opener {
  pthread_t thread;
  char *export;
  struct nbd_handle *nbd; /* NULL: refused */
  atomic_bool back;
};

static void *
opener_main (void *arg)
{
  struct opener *o = arg;

  o->nbd = nbd_create ();
  if (nbd_set_export_name (o->nbd, o->export) == -1 ||
      nbd_connect_unix (o->nbd, srv.socket) == -1) {
    nbd_close (o->nbd);
    o->nbd = NULL;
  }
  atomic_store (&o->back, true);
  return NULL;
}

static void
start_with_faults (void)
{
  livedrum_start_as (&(struct server_options){
    .threads = 1,
    .params = PARAMS (dev_path ("a,size=4M"), str ("state=%s", run_path ("state"))),
    .faults = run_path ("faults") });
}

/* Until the old session may do nothing any more. */
static void
wait_barred (struct nbd_handle *old)
{
  char buf[PAGE_BYTES];

  while (nbd_pread (old, buf, sizeof buf, 100 * PAGE_BYTES, 0) == 0)
    sched_yield ();
}

/* Each page is as the last session that was let in left it, or as this one's requests want it, answered or not. */
static void
expect_either (struct nbd_handle *in, uint32_t left, uint32_t wanted)
{
  char buf[PAGE_BYTES];

  for (unsigned page = 0; page < NHELD; page++) {
    client_read (in, buf, sizeof buf, (uint64_t) page * PAGE_BYTES);
    cr_assert (is_version (buf, 0, page, left) || is_version (buf, 0, page, wanted),
               "page %u is neither version %u nor %u", page, left, wanted);
  }
}

/* Session epoch leaves writes that hang; the next one comes, and either has to wait for them, or for a server that is killed. */
static void
hang_and_come_back (unsigned epoch, bool with_kill)
{
  static char data[NHELD][PAGE_BYTES];
  struct nbd_handle *old = client_open_as (&srv, str ("@load.%u", epoch));
  struct nbd_handle *also = client_open_as (&srv, str ("@load.%u", epoch));
  struct opener next = { .export = str ("@load.%u", epoch + 1) };
  struct faults_rule *rule;

  for (unsigned page = 0; page < NHELD; page++)
    client_write_page (old, 1, 2 * epoch + 1, page);
  rule = faults_add (
    faults, dev_path ("a"),
    &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD, .skip = epoch % 3 });
  cr_assert_not_null (rule);
  for (unsigned page = 0; page < NHELD; page++) {
    stamp_fill (data[page], (struct stamp){ 1, 2 * epoch + 2, page });
    cr_assert_neq (nbd_aio_pwrite (old, data[page], PAGE_BYTES, (uint64_t) page * PAGE_BYTES,
                                   NBD_NULL_COMPLETION, 0),
                   -1, "%s", nbd_get_error ());
  }
  while (atomic_load (&rule->nacted) == 0)
    cr_assert_neq (nbd_poll (old, 10), -1, "%s", nbd_get_error ());
  cr_assert_eq (pthread_create (&next.thread, NULL, opener_main, &next), 0);
  wait_barred (also);
  for (unsigned i = 0; i < TURNS; i++)
    sched_yield ();
  cr_assert_not (atomic_load (&next.back), "it does not wait for what hangs");
  if (with_kill)
    livedrum_kill ();
  faults_remove (rule);
  pthread_join (next.thread, NULL);
  if (with_kill) {
    cr_assert_null (next.nbd);
    start_with_faults ();
    next.nbd = client_open_as (&srv, next.export);
  }
  cr_assert_not_null (next.nbd, "%s", server_stderr (&srv));
  expect_either (next.nbd, 2 * epoch + 1, 2 * epoch + 2);
  for (unsigned page = 0; page < NHELD; page++)
    client_write_page (next.nbd, 1, 2 * epoch + 3, page);
  nbd_close (also);
  nbd_close (old); /* what it had not sent was not to come */
  for (unsigned i = 0; i < TURNS; i++)
    client_expect_page (next.nbd, 1, 2 * epoch + 3, i % NHELD);
  client_close (next.nbd);
}

/* What hangs ends before the next session begins, or never; and no server, however it began, lets an older one in. */
Test (kill, sessions_come_back, .init = livedrum_setup, .timeout = 600)
{
  faults = faults_open (run_path ("faults"));
  cr_assert_not_null (faults, "%m");
  start_with_faults ();
  for (unsigned epoch = 1; epoch <= SESSIONS; epoch++) {
    hang_and_come_back (epoch, epoch % 2);
    expect_barred (epoch);
  }
  livedrum_kill ();
  start_with_faults ();
  expect_barred (1);
  expect_barred (SESSIONS);
  client_close (client_open_as (&srv, str ("@load.%u", SESSIONS + 1)));
  check_accounts (NHELD);
  livedrum_stop ();
}
