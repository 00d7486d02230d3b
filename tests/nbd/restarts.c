/* SPDX-License-Identifier: BSD-3-Clause
 *
 * restarts.c - what becomes of many exports when the server ends, or is killed in the midst of what is done to one of them.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum { MIB = 1 << 20, HEADER = 1 /* what a template's export has in its first page */ };

static char *state;

static void
setup (void)
{
  livedrum_setup ();
  state = str ("state=%s", run_path ("state"));
}

TestSuite (restarts, .init = setup, .fini = livedrum_teardown, .timeout = 600);

#define EXPORT(verb, name) "'verb': 'export-" verb "', 'export': '" name "'"

static struct nbd_handle *
must_open (const char *name)
{
  return client_open_as (&srv, name);
}

static void
write_as (const char *name, uint32_t writer, unsigned first, unsigned end)
{
  struct nbd_handle *client = must_open (name);

  for (unsigned page = first; page < end; page++)
    client_write_page (client, writer, 1, page);
  client_close (client);
}

static void
expect_as (const char *name, uint32_t writer, unsigned first, unsigned end)
{
  struct nbd_handle *client = must_open (name);

  for (unsigned page = first; page < end; page++)
    client_expect_page (client, writer, writer != 0, page);
  client_close (client);
}

/* ---- what is there again ---- */

static void
serve (const char *const *with)
{
  livedrum_serve (&(struct server_options){ .threads = 1, .params = with });
}

/* Without losses, or suddenly. */
static void
end_server (bool kindly)
{
  if (!kindly) {
    livedrum_kill ();
    return;
  }
  control_ok (control, "'verb': 'shutdown'");
  close (control);
  server_reap (&srv);
  nbd = NULL;
}

/* All but what a client does to it, as text. */
static char *
describe (void)
{
  static const char *const fields[] = { "name",   "size", "used",      "reserve",  "limit",
                                        "weight", "iops", "bandwidth", "exclusive" };
  json *exports = member (control_status (control), "exports"), *template;
  char *text = str ("%s", "");

  for (size_t i = 0; i < json_object_array_length (exports); i++) {
    json *e = json_object_array_get_idx (exports, i);

    for (unsigned k = 0; k < sizeof fields / sizeof fields[0]; k++)
      text = str ("%s%s ", text, json_object_to_json_string (member (e, fields[k])));
    if (json_object_object_get_ex (e, "template", &template))
      text = str ("%s%s", text, json_object_to_json_string (template));
    text = str ("%s\n", text);
  }
  return text;
}

/* While nobody is connected: a close is not answered. */
static void
wait_idle (const char *name)
{
  while (member_uint (control_export_as (control, name), "clients") > 0)
    sched_yield ();
}

static void
restarts (bool kindly)
{
  const char *const *params =
    PARAMS (dev_path ("a,size=8M"), dev_path ("b,size=8M"), "export=kept,size=2M",
            "export=resized,size=4M", "export=removed,size=1M", "export=from,size=1M",
            "export=to,size=2M", "template=t-*,size=1M", state);
  const char *const *other_params =
    PARAMS (a, b, "export=kept,size=2M,limit=2M", "export=resized,size=4M",
            "export=removed,size=1M", "export=from,size=1M", "export=to,size=2M", state);
  char *before;

  serve (params);
  write_as ("kept", 1, 0, 100);
  write_as ("resized", 2, 0, 300);
  write_as ("removed", 3, 0, 50);
  write_as ("from", 4, 0, 60);
  write_as ("to", 5, 30, 90);
  write_as ("t-1", 6, HEADER, 40);
  control_ok (control,
              EXPORT ("add", "added") ", 'size': %u, 'reserve': %u, 'weight': 7, 'iops': 1000000",
              3 * MIB, MIB);
  write_as ("added", 7, 10, 20);
  control_ok (control, EXPORT ("set", "kept") ", 'limit': %u, 'bandwidth': 1073741824", MIB);
  control_ok (control, EXPORT ("set", "t-1") ", 'exclusive': false");
  control_ok (control, EXPORT ("fill", "from"));
  for (const char *const *name = (const char *const[]){ "resized", "removed", "from", "to", NULL };
       *name; name++)
    wait_idle (*name);
  control_run (control, "done", EXPORT ("resize", "resized") ", 'size': %u", MIB);
  control_run (control, "done", EXPORT ("remove", "removed"));
  control_run (control, "done", "'verb': 'export-move', 'from': 'from', 'to': 'to'");
  before = describe ();
  for (unsigned i = 0; i < 2; i++) { /* once more: what a start finds it also leaves */
    end_server (kindly);
    serve (params);
    cr_assert_str_eq (describe (), before);
    expect_as ("kept", 1, 0, 100);
    expect_as ("resized", 2, 0, 256);
    expect_as ("from", 0, 0, 256);
    expect_as ("to", 4, 0, 30);
    expect_as ("to", 5, 30, 90);
    expect_as ("t-1", 6, HEADER, 40);
    expect_as ("added", 7, 10, 20);
    cr_assert_null (client_try_open (&srv, "removed"));
    server_wait_stderr (&srv, "export \"removed\": was removed while the server ran");
  }
  end_server (kindly);
  serve (other_params); /* a term that the command line names anew counts; others stay (terms.c) */
  cr_assert_eq (member_uint (control_export_as (control, "kept"), "limit"), 2 * MIB);
  cr_assert_eq (member_uint (control_export_as (control, "kept"), "bandwidth"), 1 << 30);
  cr_assert_eq (member_uint (control_export_as (control, "from"), "reserve"), MIB);
  control_ok (control, EXPORT ("add", "removed") ", 'size': %u", MIB); /* back again, empty */
  expect_as ("removed", 0, 0, 256);
  wait_idle ("removed");
  end_server (kindly);
  serve (other_params);
  expect_as ("removed", 0, 0, 256);
}

Test (restarts, killed)
{

  restarts (false);
}

Test (restarts, shut_down)
{

  restarts (true);
}

/* Another size on the command line is no resize. */
Test (restarts, size_is_not_changed_by_a_start)
{
  const char *line;

  serve (PARAMS (dev_path ("a,size=8M"), "export=x,size=1M", state));
  livedrum_kill ();
  line =
    server_refuses (&(struct server_options){ .params = PARAMS (a, "export=x,size=2M", state) });
  cr_assert (strstr (line, "export \"x\": size= is 2097152") && strstr (line, "export-resize"),
             "%s", line);
  serve (PARAMS (a, state)); /* one that is not named is there all the same */
  expect_as ("x", 0, 0, 256);
}

/* The time for which nobody uses it goes on where it was; but not while the server is away, and it does not go while a client has it. */
Test (restarts, idle_time_counts)
{
  const char *const *with =
    PARAMS (dev_path ("a,size=8M"), "template=t-*,size=1M,expire=3s", state);
  struct nbd_handle *used;

  serve (with);
  used = must_open ("t-used");
  client_write_page (used, 1, 1, HEADER);
  write_as ("t-idle", 2, HEADER, 20);
  wait_idle ("t-idle");
  nanosleep (&(struct timespec){ .tv_sec = 2 }, NULL); /* so long is what is tested here */
  nbd_close (used);
  livedrum_kill ();
  nanosleep (&(struct timespec){ .tv_sec = 3 }, NULL);
  serve (with);
  used = must_open ("t-used");
  cr_assert_not_null (control_find_export (control, "t-idle"), "%s", server_stderr (&srv));
  server_wait_stderr (&srv, "export \"t-idle\": nobody has used it for 3 s: it goes");
  nanosleep (&(struct timespec){ .tv_sec = 4 }, NULL);
  client_expect_page (used, 1, 1, HEADER);
  client_close (used);
}

/* The state can't be changed any more once something has been announced that is not done, or over: nobody has the export before the
 * state says so; a start would do it once more. */
Test (restarts, what_is_over_is_said_before_anybody_comes)
{
  struct faults *faults = faults_open (run_path ("faults"));
  struct faults_rule *rule;

  livedrum_serve (&(struct server_options){
    .threads = 1,
    .params = PARAMS (dev_path ("a,size=4M"), "export=one,size=2M", "export=two,size=2M",
                      "export=other,size=1M", state),
    .faults = run_path ("faults") });
  write_as ("one", 1, 0, 100);
  wait_idle ("one");
  rule = faults_add (faults, "/manifest",
                     &(struct faults_plan){
                       .calls = FAULTS_WRITE, .action = FAULTS_FAIL, .error = ENOSPC, .skip = 1 });
  control_run (control, "done", "'verb': 'export-move', 'from': 'one', 'to': 'two'");
  expect_as ("other", 0, 0, 10);
  cr_assert_null (client_try_open (&srv, "one"), "it may be written to, and its pages moved again");
  cr_assert_null (client_try_open (&srv, "two"));
  server_wait_stderr (&srv, "export \"one\" can't be opened: the state can't be changed");
  faults_remove (rule);
  write_as ("one", 2, 50, 150);
  livedrum_kill ();
  serve (PARAMS (a, state));
  expect_as ("one", 2, 50, 150);
  expect_as ("two", 1, 0, 100);
  expect_as ("two", 0, 100, 512);
}

/* ---- killed in the midst of it ---- */

enum { NEXPORTS = 12, MAX_PAGES = 192, ROUNDS = 60, LOOK_MS = 5 };

struct page {
  uint32_t writer, sequence; /* who wrote it; 0: nobody */
};

/* What an export holds, or would; npages 0: it is not there. */
struct image {
  unsigned npages;
  struct page page[MAX_PAGES];
};

/* As it is, and as it is once what has been asked for is done. */
struct world {
  struct image image[NEXPORTS];
};

static struct world now, next;
static struct rng rng;
static uint32_t last_sequence;

static char *
name_of (unsigned i)
{
  return str ("e%02u", i);
}

static unsigned
any_export (bool there)
{
  unsigned first = (unsigned) rng_below (&rng, NEXPORTS);

  for (unsigned i = 0; i < NEXPORTS; i++)
    if ((now.image[(first + i) % NEXPORTS].npages > 0) == there)
      return (first + i) % NEXPORTS;
  return NEXPORTS;
}

static void
resize_image (struct image *image, unsigned npages)
{
  for (unsigned page = npages; page < MAX_PAGES; page++)
    image->page[page] = (struct page){ 0, 0 };
  image->npages = npages;
}

static unsigned
nbehind (const struct image *image, unsigned npages)
{
  unsigned n = 0;

  for (unsigned page = npages; page < image->npages; page++)
    n += image->page[page].writer != 0;
  return n;
}

/* Choose something to do; next is what comes of it. The request; NULL: nothing. */
static char *
choose (void)
{
  unsigned x = any_export (true), y = any_export (true),
           npages = 1 + (unsigned) rng_below (&rng, MAX_PAGES);

  next = now;
  switch (rng_below (&rng, 6)) {
  case 0:
    if ((x = any_export (false)) == NEXPORTS)
      return NULL;
    resize_image (&next.image[x], npages);
    return str ("'verb': 'export-add', 'export': '%s', 'size': %u", name_of (x),
                npages * PAGE_BYTES);
  case 1:
    if (x == NEXPORTS)
      return NULL;
    resize_image (&next.image[x], 0);
    return str ("'verb': 'export-remove', 'export': '%s'", name_of (x));
  case 2:
  case 3:
    if (x == NEXPORTS)
      return NULL;
    resize_image (&next.image[x], npages);
    return str ("'verb': 'export-resize', 'export': '%s', 'size': %u", name_of (x),
                npages * PAGE_BYTES);
  default:
    if (x == NEXPORTS || x == y || nbehind (&now.image[x], now.image[y].npages) > 0)
      return NULL;
    for (unsigned page = 0; page < now.image[x].npages && page < now.image[y].npages; page++)
      if (now.image[y].page[page].writer == 0)
        next.image[y].page[page] = now.image[x].page[page];
    resize_image (&next.image[x], 0);
    next.image[x].npages = now.image[x].npages;
    return str ("'verb': 'export-move', 'from': '%s', 'to': '%s'", name_of (x), name_of (y));
  }
}

/* Write some of it and trim some. */
static void
use (unsigned x)
{
  struct image *image = &now.image[x];
  struct nbd_handle *client = must_open (name_of (x));

  for (unsigned i = 0; i < 20; i++) {
    unsigned page = (unsigned) rng_below (&rng, image->npages);

    if (rng_below (&rng, 4)) {
      client_write_page (client, x + 1, ++last_sequence, page);
      image->page[page] = (struct page){ x + 1, last_sequence };
    } else {
      client_trim (client, PAGE_BYTES, (uint64_t) page * PAGE_BYTES);
      image->page[page] = (struct page){ 0, 0 };
    }
  }
  client_close (client);
  wait_idle (name_of (x));
}

/* Does it hold that? */
static bool
is_so (struct nbd_handle *client, const struct image *image)
{
  static char data[MAX_PAGES * PAGE_BYTES];
  struct stamp stamp;

  if (nbd_get_size (client) != (int64_t) image->npages * PAGE_BYTES)
    return false;
  client_read (client, data, image->npages * PAGE_BYTES, 0);
  for (unsigned page = 0; page < image->npages; page++) {
    const struct page *p = &image->page[page];

    if (!stamp_read (data + (size_t) page * PAGE_BYTES, &stamp) || stamp.writer != p->writer ||
        stamp.sequence != p->sequence || stamp.page != (p->writer ? page : 0))
      return false;
  }
  return true;
}

/* All of them, each page, and the accounts. */
static bool
is_world (const struct world *world)
{
  uint64_t nused = 0;
  bool same = true;

  for (unsigned x = 0; x < NEXPORTS && same; x++) {
    const struct image *image = &world->image[x];
    struct nbd_handle *client;
    json *export = control_find_export (control, name_of (x));

    if (!export || image->npages == 0) {
      same = !export && image->npages == 0;
      continue;
    }
    client = must_open (name_of (x));
    same = is_so (client, image) &&
           member_uint (export, "used") == (uint64_t) nbehind (image, 0) * PAGE_BYTES;
    nused += nbehind (image, 0);
    client_close (client);
    wait_idle (name_of (x));
  }
  return same && member_uint (control_status (control), "drum.used") == nused * PAGE_BYTES;
}

/* Until it is held, or done. */
static void
do_until_held (struct faults_rule *rule, const char *request)
{
  struct pollfd pfd = { .fd = control, .events = POLLIN };
  json *reply, *job = NULL;

  control_send (control, "%s", request);
  while (atomic_load (&rule->nacted) == 0) {
    if (poll (&pfd, 1, LOOK_MS) == 0)
      continue;
    reply = control_reply (control);
    cr_assert (json_object_get_boolean (member (reply, "ok")), "%s: %s", request,
               json_object_to_json_string (reply));
    if (!json_object_object_get_ex (reply, "job", &job))
      return;
    if (json_object_is_type (job, json_type_object)) {
      if (strcmp (member_str (job, "state"), "running") != 0)
        return;
      job = member (job, "id");
    }
    control_send (control, "'verb': 'wait', 'job': %" PRIu64 ", 'seconds': 0.01",
                  json_object_get_uint64 (job));
  }
}

/* Killed at any call of a change: it is done then, or nothing of it is, with each page where it belongs. */
Test (restarts, killed_in_the_midst_of_a_change)
{
  struct server_options options = { .threads = 1, .faults = run_path ("faults") };
  struct faults *faults = faults_open (run_path ("faults"));
  unsigned ndone = 0, nnot = 0;

  rng = rng_for (3000);
  options.params =
    PARAMS (dev_path ("a,size=8M"), dev_path ("b,size=8M"), "export=keep,size=1M", state);
  livedrum_serve (&options);
  for (unsigned round = 0; round < random_steps (ROUNDS);) {
    struct faults_rule *rule;
    char *request;

    for (unsigned i = 0; i < 3; i++)
      if (any_export (true) < NEXPORTS)
        use (any_export (true));
    request = choose ();
    if (!request)
      continue;
    round++;
    rule = faults_add (faults, "/state/",
                       &(struct faults_plan){ .calls = FAULTS_WRITE | FAULTS_SYNC,
                                              .action = FAULTS_HOLD,
                                              .skip = rng_below (&rng, 14) });
    do_until_held (rule, request);
    livedrum_kill ();
    faults_remove (rule);
    options.params = PARAMS (a, b, "export=keep,size=1M", state);
    livedrum_serve (&options);
    if (is_world (&next)) {
      ndone++;
      now = next;
    } else {
      cr_assert (is_world (&now),
                 "round %u: after %s something is neither as it was nor as it was to be "
                 "(DRUM_TEST_SEED=%ju)",
                 round, request, (uintmax_t) random_seed ());
      nnot++;
    }
    control_forget ();
  }
  printf ("%u changes were done at the next start, %u were not begun\n", ndone, nnot);
}
