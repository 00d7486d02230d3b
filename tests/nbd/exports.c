/* SPDX-License-Identifier: BSD-3-Clause
 *
 * exports.c - many exports on one drum: their names, what each is promised, who may have it, what is done to it while others swap,
 * and those that come from a template. restarts.c has what becomes of them when the server ends.
 */
#include <config.h>

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/faults/faults.h"
#include "tests/random.h"
#include "tests/scratch.h"
#include "tests/stamp.h"

#include "livedrum.h"

enum { MIB = 1 << 20, TURNS = 1000 };

TestSuite (exports, .init = livedrum_setup, .fini = livedrum_teardown, .timeout = 300);

static void
serve (const char *const *params)
{
  livedrum_serve (&(struct server_options){ .threads = 1, .params = params });
}

static struct nbd_handle *
must_open (const char *name)
{
  return client_open_as (&srv, name);
}

static void
expect_refused (const char *name, const char *why)
{
  cr_assert_null (client_try_open (&srv, name), "\"%s\" is not refused", name);
  server_wait_stderr (&srv, why);
}

/* What a client of another process says of it: another peer. */
static bool
can_other_open (const char *name)
{
  return shell ("nbdinfo --size 'nbd+unix:///%s?socket=%s' >&2", name, srv.socket) == 0;
}

static void
expect_export (const char *name, const char *field, uint64_t value)
{
  expect_uint (control_export_as (control, name), field, value);
}

/* A close is not answered: there is no event for its end. */
static void
wait_for_clients (const char *name, unsigned n)
{
  while (member_uint (control_export_as (control, name), "clients") > n)
    sched_yield ();
}

static void
close_all (const char *name, struct nbd_handle *last)
{
  client_close (last);
  wait_for_clients (name, 0);
}

static void
write_as (struct nbd_handle *client, uint32_t writer, unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_write_page (client, writer, 1, page);
}

static void
expect_as (struct nbd_handle *client, uint32_t writer, unsigned first, unsigned end)
{
  for (unsigned page = first; page < end; page++)
    client_expect_page (client, writer, writer != 0, page);
}

/* How many pages it takes before there is no room. */
static unsigned
fill (struct nbd_handle *client, uint32_t writer)
{
  unsigned page = 0, size = (unsigned) (nbd_get_size (client) / PAGE_BYTES);
  int error = 0;

  while (page < size && (error = client_try_write_page (client, writer, 1, page)) == 0)
    page++;
  cr_assert (page == size || error == ENOSPC, "errno %d", error);
  return page;
}

/* ---- names ---- */

static int
add_name (void *opaque, const char *name, const char *description)
{
  char **list = opaque;

  (void) description;
  *list = str ("%s\"%s\" ", *list, name);
  return 0;
}

static void
expect_list (const char *names)
{
  struct nbd_handle *asking = nbd_create ();
  char *list = str ("%s", "");

  cr_assert_eq (nbd_set_opt_mode (asking, true), 0);
  cr_assert_eq (nbd_connect_unix (asking, srv.socket), 0, "%s", nbd_get_error ());
  cr_assert_neq (
    nbd_opt_list (asking, (nbd_list_callback){ .callback = add_name, .user_data = &list }), -1,
    "%s", nbd_get_error ());
  cr_assert_str_eq (list, names);
  nbd_opt_abort (asking);
  nbd_close (asking);
}

Test (exports, have_names)
{
  struct nbd_handle *one, *two;

  serve (PARAMS (dev_path ("a,size=4M"), "export=two,size=2M", "export=one,size=1G",
                 "export=h\xc3\xb6st\\ a'b/c,,d,size=4096"));
  expect_list ("\"h\xc3\xb6st\\ a'b/c,d\" \"one\" \"two\" ");
  expect_refused ("", "default export (\"\") not permitted");
  expect_refused ("three", "there is no export \"three\": \"drumctl exports\" lists");
  expect_refused ("One", "there is no export \"One\"");
  one = must_open ("one");
  two = must_open ("two");
  cr_assert_eq (nbd_get_size (one), 1 << 30);
  cr_assert_eq (nbd_get_size (two), 2 * MIB);
  write_as (one, 1, 0, 100);
  expect_as (two, 0, 0, 512);
  write_as (two, 2, 50, 150);
  expect_as (one, 1, 0, 100);
  expect_as (one, 0, 100, 200);
  expect_as (two, 0, 0, 50);
  expect_as (two, 2, 50, 150);
  client_trim (one, 100 * PAGE_BYTES, 0);
  expect_as (two, 2, 50, 150);
  expect_export ("one", "used", 0);
  expect_export ("two", "used", 100 * PAGE_BYTES);
  expect_export ("two", "clients", 1);
  client_close (one);
  client_close (two);
}

/* What no export may be called is refused for that, whatever a template says; and what a client sends is in one line of the log, to be read and
 * not to be obeyed. */
Test (exports, names_that_can_not_be)
{
  static const struct {
    const char *name, *logged;
  } names[] = {
    { "\x1b[31mred\nnbdkit: error: drum: /dev/sda: has failed",
      "\"\\x1b[31mred\\x0anbdkit: error: drum: /dev/sda: has failed\"" },
    { "a\tb", "\"a\\x09b\"" },
    { "a\xff", "\"a\\xff\"" },
    { "\xc2\x9b\x31m", "\"\\xc2\\x9b1m\"" },
    { "\xc3\xb6\r@a.1", "\"\xc3\xb6\\x0d@a.1\"" },
    { "x@a.1@b.2", "\"x@a.1@b.2\"" },
  };

  char longest[4096 + 1] = "";

  serve (PARAMS (dev_path ("a,size=4M"), "export=one,size=1M", "template=*,size=1M"));
  for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
    expect_refused (names[i].name, str ("no export may have the name %s", names[i].logged));
  memset (longest, '\n', sizeof longest - 1);
  expect_refused (longest, "\\x0a\\x0a\": write up to 255 bytes");
  longest[256] = 0;
  expect_refused (longest, "write up to 255 bytes");
  for (char *line = strtok (server_stderr (&srv), "\n"); line; line = strtok (NULL, "\n")) {
    cr_assert_eq (strncmp (line, "nbdkit: ", 8), 0, "%s", line);
    cr_assert_neq (strncmp (line, "nbdkit: error: drum: /dev", 25), 0, "%s", line);
    cr_assert_null (strpbrk (line, "\033\r\t"), "%s", line);
  }
  expect_list ("\"one\" ");
}

Test (exports, default_one_beside_others)
{
  struct nbd_handle *one;

  serve (PARAMS (dev_path ("a,size=4M"), "size=2M", "export=one,size=3M"));
  expect_list ("\"\" \"one\" ");
  nbd = must_open ("");
  one = must_open ("one");
  cr_assert_eq (nbd_get_size (nbd), 2 * MIB);
  cr_assert_eq (nbd_get_size (one), 3 * MIB);
  write_pages (0, 10);
  expect_as (one, 0, 0, 10);
  client_close (one);
}

/* ---- what is done to one while others swap ---- */

static atomic_bool stop;

/* Overwrites and reads its pages until it is told to stop. */
static void
swap_on (struct worker *w)
{
  static _Thread_local char data[PAGE_BYTES], seen[PAGE_BYTES];

  for (uint32_t i = 1; !atomic_load (&stop) && !worker_failed (w); i++) {
    uint64_t page = rng_below (&w->rng, 64);

    stamp_fill (data, (struct stamp){ w->index + 1, i, page });
    if (nbd_pwrite (w->nbd, data, PAGE_BYTES, page * PAGE_BYTES, 0) == -1 ||
        nbd_pread (w->nbd, seen, PAGE_BYTES, page * PAGE_BYTES, 0) == -1)
      worker_fail (w, "%s", nbd_get_error ());
    else if (memcmp (data, seen, PAGE_BYTES) != 0)
      worker_fail (w, "page %u is another", (unsigned) page);
  }
}

Test (exports, come_and_go_while_others_swap)
{
  static struct worker workers[2] = { { .main = swap_on, .export = "one" },
                                      { .main = swap_on, .export = "two" } };
  struct nbd_handle *x, *y;
  json *job;

  serve (PARAMS (dev_path ("a,size=8M"), dev_path ("b,size=8M"), "export=one,size=2M",
                 "export=two,size=2M"));
  workers_start (&srv, workers, 2);
  for (unsigned i = 0; i < random_steps (10); i++) {
    control_ok (control, "'verb': 'export-add', 'export': 'x', 'size': %u", 2 * MIB);
    control_ok (control, "'verb': 'export-add', 'export': 'y', 'size': %u, 'reserve': %u", 3 * MIB,
                MIB);
    expect_list ("\"one\" \"two\" \"x\" \"y\" ");
    x = must_open ("x");
    y = must_open ("y");
    expect_as (x, 0, 0, 2 * MIB / PAGE_BYTES);
    expect_as (y, 0, 0, 3 * MIB / PAGE_BYTES);
    write_as (x, 10, 0, 300);
    write_as (y, 11, 200, 400);
    close_all ("x", x);
    close_all ("y", y);
    job = control_run (control, "done", "'verb': 'export-resize', 'export': 'x', 'size': %u", MIB);
    expect_uint (job, "done", 44 * PAGE_BYTES);
    expect_export ("x", "size", MIB);
    expect_export ("x", "used", MIB);
    x = must_open ("x");
    cr_assert_eq (nbd_get_size (x), MIB);
    expect_as (x, 10, 0, 256);
    close_all ("x", x);
    job =
      control_run (control, "done", "'verb': 'export-resize', 'export': 'x', 'size': %u", 2 * MIB);
    expect_uint (job, "done", 0);
    control_run (control, "done", "'verb': 'export-move', 'from': 'x', 'to': 'y'");
    expect_export ("x", "used", 0);
    expect_export ("y", "used", 400 * PAGE_BYTES);
    y = must_open ("y");
    expect_as (y, 10, 0, 200);
    expect_as (y, 11, 200, 400); /* its own stay */
    x = must_open ("x");
    expect_as (x, 0, 0, 512);
    close_all ("x", x);
    close_all ("y", y);
    control_run (control, "done", "'verb': 'export-remove', 'export': 'x'");
    control_run (control, "done", "'verb': 'export-remove', 'export': 'y'");
    expect_list ("\"one\" \"two\" ");
    expect_refused ("x", "there is no export \"x\"");
    expect_uint (control_status (control), "drum.reserved", 0);
    control_forget ();
  }
  atomic_store (&stop, true);
  workers_join (workers, 2);
  expect_uint (control_status (control), "drum.used",
               member_uint (control_export_as (control, "one"), "used") +
                 member_uint (control_export_as (control, "two"), "used"));
}

static void
expect_error (const char *error, const char *says, const char *request)
{
  const char *text = control_error (control, error, "%s", request);

  cr_assert (strstr (text, says), "\"%s\" is not in: %s", says, text);
}

static void
expect_failure (const char *says, const char *request)
{
  json *job = control_run (control, "failed", "%s", request);

  cr_assert (strstr (member_str (job, "error"), says), "\"%s\" is not in: %s", says,
             member_str (job, "error"));
}

#define EXPORT(verb, name) "'verb': 'export-" verb "', 'export': '" name "'"

/* What can't be is refused with words that help, and nothing has changed. */
Test (exports, what_can_not_be)
{
  static const struct {
    const char *error, *says, *request;
  } refused[] = {
    { "EEXIST", "export \"one\": is there already: export-set changes its terms, and export-resize",
      EXPORT ("add", "one") ", 'size': 4096" },
    { "EINVAL", "size: is not given", EXPORT ("add", "x") },
    { "EINVAL", "size: 1000 is not a multiple of 4096", EXPORT ("add", "x") ", 'size': 1000" },
    { "EINVAL", "ends like @ID.EPOCH", EXPORT ("add", "x@a.1") ", 'size': 4096" },
    { "EINVAL", "control character", EXPORT ("add", "x\\n") ", 'size': 4096" },
    { "EINVAL", "less than its reserve", EXPORT ("add", "x") ", 'size': 4096, 'reserve': 8192" },
    { "ENOSPC", "all reserves", EXPORT ("add", "x") ", 'size': 8388608, 'reserve': 8388608" },
    { "ENOMEM", "no memory for the page map", EXPORT ("add", "x") ", 'size': 4611686018427387904" },
    { "ENOENT", "there is no export \"x\"", EXPORT ("set", "x") ", 'limit': 4096" },
    { "EINVAL", "less than its reserve", EXPORT ("set", "one") ", 'limit': 4096" },
    { "EINVAL", "weight", EXPORT ("set", "one") ", 'weight': 0" },
    { "ENOSPC", "all reserves", EXPORT ("set", "big") ", 'reserve': 4194304" },
    { "ENOENT", "there is no export \"x\"", EXPORT ("fill", "x") },
    { "EINVAL", "\"one\": 300M is behind its end: its size is 2M",
      EXPORT ("fill", "one") ", 'offset': 314572800" },
    { "EINVAL", "\"one\": 300M is behind its end",
      EXPORT ("fill", "one") ", 'offset': 314572800, 'length': 4096" },
    { "EINVAL", "its size is", EXPORT ("fill", "one") ", 'offset': 8192, 'length': 2097152" },
    { "ENOSPC", "its limit is", EXPORT ("fill", "two") },
    { "ENOENT", "there is no export \"x\"", EXPORT ("takeover", "x") },
    { "ENOENT", "there is no export \"x\"", EXPORT ("remove", "x") },
    { "ENOENT", "there is no export \"x\"", EXPORT ("resize", "x") ", 'size': 4096" },
    { "ENOENT", "there is no export \"x\"", "'verb': 'export-move', 'from': 'x', 'to': 'one'" },
    { "ENOENT", "there is no export \"x\"", "'verb': 'export-move', 'from': 'one', 'to': 'x'" },
  };
  static const struct {
    const char *says, *request;
  } fail[] = {
    { "less than its reserve of 1M", EXPORT ("resize", "one") ", 'size': 4096" },
    { "can't be given the size of 4E: Cannot allocate memory: give a smaller size",
      EXPORT ("resize", "one") ", 'size': 4611686018427387904" },
    { "is both", "'verb': 'export-move', 'from': 'one', 'to': 'one'" },
    { "lie beyond its end", "'verb': 'export-move', 'from': 'big', 'to': 'one'" },
    { "its limit is", "'verb': 'export-move', 'from': 'big', 'to': 'two'" },
  };
  struct nbd_handle *big;
  const char *before;

  serve (PARAMS (dev_path ("a,size=4M"), "export=one,size=2M,reserve=1M",
                 "export=two,size=1G,limit=1M", "export=big,size=4M"));
  big = must_open ("big");
  write_as (big, 3, 100, 300);
  write_as (big, 3, 600, 700);
  close_all ("big", big);
  before = str ("%s", json_object_to_json_string (member (control_status (control), "drum")));
  for (unsigned i = 0; i < sizeof refused / sizeof refused[0]; i++)
    expect_error (refused[i].error, refused[i].says, refused[i].request);
  for (unsigned i = 0; i < sizeof fail / sizeof fail[0]; i++)
    expect_failure (fail[i].says, fail[i].request);
  expect_list ("\"big\" \"one\" \"two\" ");
  cr_assert_str_eq (json_object_to_json_string (member (control_status (control), "drum")), before);
  expect_export ("one", "size", 2 * MIB);
  expect_export ("one", "reserve", MIB);
  expect_export ("two", "limit", MIB);
  big = must_open ("big");
  expect_as (big, 3, 100, 300);
  expect_as (big, 3, 600, 700);
  client_close (big);
}

/* The state's folder may know smaller files than memory does maps. */
Test (exports, too_large_for_the_state)
{
  const char *error;

  serve (
    PARAMS (dev_path ("a,size=4M"), "export=one,size=2M", str ("state=%s", run_path ("state"))));
  control_send (control, EXPORT ("add", "x") ", 'size': %" PRIu64, UINT64_C (1) << 62);
  error = member_str (control_reply (control), "error");
  cr_assert_eq (strncmp (error, "x: ", 3), 0, "%s", error);
  cr_assert_not_null (strstr (error, "give a smaller size"), "%s", error);
  cr_assert_null (strchr (error, '\n'), "%s", error);
  expect_list ("\"one\" ");
}

/* As long as it has one connection: also the one that is moved to. */
Test (exports, attached_ones_stay)
{
  static const char *const requests[] = { EXPORT ("remove", "one"),
                                          EXPORT ("resize", "one") ", 'size': 4096",
                                          "'verb': 'export-move', 'from': 'one', 'to': 'two'",
                                          "'verb': 'export-move', 'from': 'two', 'to': 'one'" };
  struct nbd_handle *one, *also;

  serve (PARAMS (dev_path ("a,size=4M"), "export=one,size=1M", "export=two,size=1M"));
  one = must_open ("one");
  also = must_open ("one@host.1");
  write_as (one, 1, 0, 10);
  for (unsigned n = 2; n > 0; n--) {
    for (unsigned i = 0; i < sizeof requests / sizeof requests[0]; i++)
      expect_error ("EBUSY",
                    str ("export \"one\": has %u connection%s: detach", n, n == 1 ? "" : "s"),
                    requests[i]);
    client_close (n == 2 ? also : one);
    while (member_uint (control_export_as (control, "one"), "clients") == n)
      sched_yield ();
  }
  control_run (control, "done", "%s", requests[2]);
  expect_export ("one", "used", 0);
  expect_export ("two", "used", 10 * PAGE_BYTES);
}

struct opener {
  pthread_t thread;
  const char *name;
  struct nbd_handle *nbd;
  atomic_bool back;
};

static void *
opener_main (void *arg)
{
  struct opener *o = arg;

  o->nbd = client_try_open (&srv, o->name);
  atomic_store (&o->back, true);
  return NULL;
}

/* Clients that come while it is changed wait, and find it as it is then. */
Test (exports, clients_wait_for_a_change)
{
  static const struct {
    const char *request;
    unsigned size;  /* of one, then; 0: it is gone */
    unsigned first; /* its first page that is not zeroes; of 10 */
  } change[] = {
    { EXPORT ("resize", "one") ", 'size': 1048576", MIB, 0 },
    { "'verb': 'export-move', 'from': 'two', 'to': 'one'", MIB, 0 },
    { "'verb': 'export-move', 'from': 'one', 'to': 'two'", MIB, 10 },
    { EXPORT ("remove", "one"), 0, 0 },
  };
  struct faults *faults = faults_open (run_path ("faults"));
  struct nbd_handle *other;

  livedrum_serve (&(struct server_options){
    .threads = 1,
    .params = PARAMS (dev_path ("a,size=4M"), "export=one,size=2M", "export=two,size=1M",
                      "export=other,size=1M", str ("state=%s", run_path ("state"))),
    .faults = run_path ("faults") });
  other = must_open ("other");
  nbd = must_open ("one");
  write_as (nbd, 1, 0, 10);
  close_all ("one", nbd);
  nbd = NULL;
  for (unsigned i = 0; i < sizeof change / sizeof change[0]; i++) {
    struct opener opener = { .name = "one" };
    struct faults_rule *rule = faults_add (
      faults, "/manifest", &(struct faults_plan){ .calls = FAULTS_WRITE, .action = FAULTS_HOLD });
    uint64_t job = control_start (control, "%s", change[i].request);

    faults_wait (&rule->nacted, 1);
    cr_assert_eq (pthread_create (&opener.thread, NULL, opener_main, &opener), 0);
    client_close (must_open ("other")); /* others don't wait */
    client_write_page (other, 9, i + 1, i);
    client_expect_page (other, 9, i + 1, i);
    for (unsigned k = 0; k < TURNS; k++)
      sched_yield ();
    cr_assert_not (atomic_load (&opener.back), "it has been let in");
    faults_remove (rule);
    control_wait (control, job, "done");
    pthread_join (opener.thread, NULL);
    cr_assert_eq (opener.nbd != NULL, change[i].size > 0, "%s", server_stderr (&srv));
    if (!opener.nbd)
      break;
    cr_assert_eq (nbd_get_size (opener.nbd), change[i].size);
    expect_as (opener.nbd, 0, 0, change[i].first);
    expect_as (opener.nbd, change[i].first ? 0 : 1, change[i].first ? 0 : change[i].first, 10);
    close_all ("one", opener.nbd);
  }
  server_wait_stderr (&srv, "there is no export \"one\"");
  client_close (other);
}

/* ---- promises ---- */

/* A limit is its own export's alone; what is reserved is there though the drum is full. */
Test (exports, promises_are_kept)
{
  struct nbd_handle *greedy, *small, *safe;
  unsigned n;

  serve (PARAMS (dev_path ("a,size=2M"), dev_path ("b,size=2M"), "export=greedy,size=64M",
                 "export=small,size=64M,limit=400K", "export=safe,size=2M,reserve=800K"));
  greedy = must_open ("greedy");
  small = must_open ("small");
  safe = must_open ("safe");
  cr_assert_eq (fill (small, 1), 100);
  client_write_page (small, 1, 2, 7); /* rewritten, it takes no more */
  control_ok (control, EXPORT ("set", "small") ", 'limit': %u", 440 << 10);
  cr_assert_eq (fill (small, 1), 110);
  n = fill (greedy, 2);
  cr_assert_eq (n, 2 * 510 - 1020 / 64 - 110 - 200, "%u", n);
  write_as (safe, 3, 0, 200);
  cr_assert_eq (client_try_write_page (safe, 3, 1, 200), ENOSPC);
  client_trim (greedy, 100 * PAGE_BYTES, 0);
  expect_uint (control_ok (control, EXPORT ("fill", "safe") ", 'offset': %u, 'length': %u",
                           300 * PAGE_BYTES, 50 * PAGE_BYTES),
               "reserve", 250 * PAGE_BYTES);
  expect_export ("safe", "reserve", 250 * PAGE_BYTES);
  for (unsigned page = 0; page < 50; page++)
    client_write_page (greedy, 2, 1, page);
  cr_assert_eq (client_try_write_page (greedy, 2, 1, 50), ENOSPC);
  write_as (safe, 3, 300, 350);
  expect_as (safe, 3, 0, 200);
  expect_as (safe, 3, 300, 350);
  expect_as (greedy, 2, 0, 50);
  expect_as (greedy, 2, 100, n);
  client_close (greedy);
  client_close (small);
  client_close (safe);
}

/* Without overcommit no size is more than there is; what is asked for beyond that is refused, at a start and live. */
Test (exports, overcommit_may_be_off)
{
  const char *line = server_refuses (
    &(struct server_options){ .params = PARAMS (dev_path ("a,size=4M"), "export=one,size=2M",
                                                "export=two,size=2M", "overcommit=no") });

  cr_assert (strstr (line, "overcommit=no") && strstr (line, "export \"two\""), "%s", line);
  serve (PARAMS (dev_path ("a,size=4M"), "export=one,size=2M", "export=two,size=1M",
                 "overcommit=no", "template=t*,size=512K"));
  expect_error ("ENOSPC", "overcommit=no", EXPORT ("add", "x") ", 'size': 1048576");
  expect_failure ("overcommit=no", EXPORT ("resize", "one") ", 'size': 3145728");
  client_close (must_open ("t1"));
  expect_refused ("t2", "overcommit=no");
  control_run (control, "done", EXPORT ("resize", "one") ", 'size': %u", MIB);
  control_ok (control, EXPORT ("add", "x") ", 'size': %u", MIB);
  expect_refused ("t2", "overcommit=no");
  expect_list ("\"one\" \"t1\" \"two\" \"x\" ");
}

/* ---- who may have it ---- */

Test (exports, one_client_at_a_time)
{
  struct nbd_handle *one, *two, *also;
  const char *warning;
  json *reply;

  serve (PARAMS (dev_path ("a,size=4M"), "export=x,size=1M,exclusive=yes", "export=y,size=1M"));
  one = must_open ("x");
  also = must_open ("x"); /* the same process */
  cr_assert (can_other_open ("y"));
  cr_assert_not (can_other_open ("x"));
  server_wait_stderr (&srv, "export \"x\" is refused: another client has it: process");
  two = must_open ("x@a.1"); /* one of them has no ID */
  client_close (one);
  close_all ("x", (client_close (also), two));
  one = must_open ("x@a.1");
  two = must_open ("x@a.1");
  expect_refused ("x@b.1", "another client has it: a (process");
  also = must_open ("x@a.2");
  client_write_page (also, 1, 1, 0);
  cr_assert_eq (client_try_write_page (one, 1, 2, 0), ESHUTDOWN);
  expect_refused ("x@b.1", "another client has it: a (process");
  client_close (one);
  client_close (two);
  client_close (also);
  wait_for_clients ("x", 0);
  two = must_open ("x@b.1");
  control_ok (control, EXPORT ("set", "x") ", 'exclusive': false");
  cr_assert (can_other_open ("x"));
  one = must_open ("x@a.2");
  also = must_open ("x@a.2");
  reply = control_ok (control, EXPORT ("set", "x") ", 'exclusive': true");
  warning = json_object_get_string (json_object_array_get_idx (member (reply, "warnings"), 0));
  cr_assert_str_eq (warning, str ("export \"x\": 2 clients have it, and go on until they detach: "
                                  "a (process %d), b (process %d)",
                                  getpid (), getpid ()));
  reply = control_ok (control, EXPORT ("set", "x") ", 'exclusive': true"); /* as it was */
  cr_assert_not (json_object_object_get_ex (reply, "warnings", NULL));
  client_expect_page (one, 1, 1, 0); /* who is there stays */
  client_expect_page (two, 1, 1, 0);
  client_close (also);
  client_close (one);
  client_close (two);
}

/* Who had it is barred; his connections are in nobody's way. */
Test (exports, can_be_taken_over)
{
  struct nbd_handle *one, *two, *other;

  serve (PARAMS (dev_path ("a,size=4M"), "export=x,size=1M,exclusive=yes", "export=y,size=1M"));
  one = must_open ("x@a.1");
  two = must_open ("x@a.1");
  other = must_open ("y");
  client_write_page (one, 1, 1, 0);
  cr_assert_not (can_other_open ("x"));
  expect_uint (control_ok (control, EXPORT ("takeover", "x")), "sessions", 2);
  expect_uint (control_ok (control, EXPORT ("takeover", "x")), "sessions", 0);
  cr_assert_eq (client_try_write_page (one, 1, 2, 0), ESHUTDOWN);
  cr_assert_eq (client_try_write_page (two, 1, 2, 0), ESHUTDOWN);
  client_write_page (other, 1, 1, 0);
  cr_assert (can_other_open ("x"));
  client_close (other);
  wait_for_clients ("x", 2); /* the server may not know yet that the other one is gone */
  other = must_open ("x@b.1");
  client_expect_page (other, 1, 1, 0);
  client_close (other);
  wait_for_clients ("x", 2);
  control_run (control, "done", EXPORT ("resize", "x") ", 'size': %u", 2 * MIB);
  control_run (control, "done", EXPORT ("remove", "x"));
  cr_assert_eq (client_try_write_page (one, 1, 2, 0), ESHUTDOWN);
  client_close (one);
  client_close (two);
}

/* ---- templates ---- */

/* What a template made, without the swap header in its first page. */
enum { HEADER = 1 };

Test (exports, are_made_from_templates)
{
  struct nbd_handle *one, *two;
  json *export;

  serve (PARAMS (dev_path ("a,size=4M"), "export=host-0,size=1M",
                 "template=host-[0-9],size=2M,reserve=400K,limit=1M,max=2",
                 "template=host-*,size=3M,exclusive=no"));
  expect_list ("\"host-0\" ");
  expect_refused ("vm-1", "there is no export \"vm-1\"");
  expect_refused ("", "default export (\"\") not permitted");
  one = must_open ("host-1");
  cr_assert_eq (nbd_get_size (one), 2 * MIB);
  expect_list ("\"host-0\" \"host-1\" ");
  export = control_export_as (control, "host-1");
  expect_str (export, "template", "host-[0-9]");
  expect_uint (export, "reserve", 400 << 10);
  expect_uint (export, "limit", MIB);
  cr_assert (json_object_get_boolean (member (export, "exclusive")));
  cr_assert_not (can_other_open ("host-1"));
  cr_assert (can_other_open ("host-x"));
  two = must_open ("host-x");
  cr_assert_eq (nbd_get_size (two), 3 * MIB);
  cr_assert (can_other_open ("host-x"));
  cr_assert (can_other_open ("host-2"));
  expect_refused ("host-3", "host-[0-9] has its 2 exports already (max=2)");
  expect_refused ("host-3@a.1", "host-[0-9] has its 2 exports already (max=2)");
  write_as (one, 1, HEADER, 200);
  write_as (two, 2, HEADER, 300);
  expect_as (one, 1, HEADER, 200);
  close_all ("host-1", one);
  one = must_open ("host-1"); /* it stays */
  expect_as (one, 1, HEADER, 200);
  close_all ("host-1", one);
  control_run (control, "done", EXPORT ("remove", "host-1"));
  one = must_open ("host-3"); /* there is room for another */
  expect_as (one, 0, HEADER, 512);
  close_all ("host-3", one);
  control_run (control, "done", EXPORT ("remove", "host-3"));
  one = must_open ("host-1"); /* a new one of that name */
  expect_as (one, 0, HEADER, 512);
  expect_as (two, 2, HEADER, 300);
  close_all ("host-1", one);
  client_close (two);
}

/* Its first page is written when it is made. */
Test (exports, no_room_for_a_header)
{
  struct nbd_handle *greedy;

  serve (PARAMS (dev_path ("a,size=4M"), "export=x,size=64M", "template=t-*,size=2M"));
  greedy = must_open ("x");
  fill (greedy, 1);
  expect_refused (
    "t-1", "export \"t-1\": can't be made a swap area: No space left on device: add a device");
  client_close (greedy);
}

/* What templates could never keep is said at the start, beside what others have; once. */
Test (exports, templates_that_promise_too_much)
{
  serve (PARAMS (dev_path ("a,size=4M"), "export=x,size=2M,reserve=1M",
                 "template=t-*,size=2M,reserve=400K,max=2",
                 "template=u-*,size=64M,reserve=1M,max=3", "template=v-*,size=64M,reserve=1M,max=3",
                 "template=w-*,size=8M,reserve=1M"));
  cr_assert_not_null (strstr (
    server_stderr (&srv), "drum: warning: template \"u-*\": max=3 exports with a reserve of 1M "
                          "each come to 3M, and the drum has 2.1M for them, 868K too little: "));
  cr_assert_null (strstr (server_stderr (&srv), "template \"v-*\""));
  livedrum_stop ();
  serve (PARAMS (dev_path ("b,size=4M"), "export=x,size=2M,reserve=1M",
                 "template=t-*,size=2M,reserve=400K,max=2",
                 "template=u-*,size=64M,reserve=1M,max=2"));
  cr_assert_null (strstr (server_stderr (&srv), "template"));
  livedrum_stop ();
  serve (PARAMS (dev_path ("c,size=4M"), "export=x,size=2M", "template=t-*,size=400K,max=4",
                 "overcommit=no"));
  cr_assert_null (strstr (server_stderr (&srv), "template"));
  livedrum_stop ();
  serve (PARAMS (dev_path ("d,size=4M"), "export=x,size=2M", "template=t-*,size=400K,max=5",
                 "overcommit=no"));
  server_wait_stderr (&srv, "template \"t-*\": max=5 exports with a size of 400K each come to 1.9M "
                            "(overcommit=no), and the drum has 1.9M for them, 20K too little");
}

/* It goes when nobody has used it for so long: not while a client is there, though that asks for nothing. */
Test (exports, expire)
{
  struct nbd_handle *idle, *gone;

  serve (PARAMS (dev_path ("a,size=4M"), "export=t-0,size=1M", "template=t-*,size=2M,expire=1s",
                 "template=u-*,size=2M"));
  idle = must_open ("t-idle");
  write_as (idle, 1, HEADER, 100);
  close_all ("u-1", must_open ("u-1"));
  gone = must_open ("t-gone");
  write_as (gone, 2, HEADER, 200);
  client_close (gone);
  server_wait_stderr (&srv, "export \"t-gone\": nobody has used it for 1 s: it goes");
  while (control_find_export (control, "t-gone"))
    control_forget ();
  expect_list ("\"t-0\" \"t-idle\" \"u-1\" ");
  expect_as (idle, 1, HEADER, 100);
  gone = must_open ("t-gone");
  expect_as (gone, 0, HEADER, 200);
  client_close (gone);
  client_close (idle);
  server_wait_stderr (&srv, "export \"t-idle\": nobody has used it for 1 s: it goes");
  while (control_find_export (control, "t-idle") || control_find_export (control, "t-gone"))
    control_forget ();
  expect_uint (control_status (control), "drum.used", PAGE_BYTES); /* u-1's header */
}

/* Many that come at once for the same name have the same one. */
Test (exports, are_made_once)
{
  static struct opener opener[16];

  serve (PARAMS (dev_path ("a,size=4M"), "template=*,size=1M"));
  for (unsigned round = 0; round < random_steps (10); round++) {
    for (unsigned i = 0; i < 16; i++) {
      opener[i] = (struct opener){ .name = str ("n%u", round * 2 + i % 2) };
      cr_assert_eq (pthread_create (&opener[i].thread, NULL, opener_main, &opener[i]), 0);
    }
    for (unsigned i = 0; i < 16; i++)
      pthread_join (opener[i].thread, NULL);
    for (unsigned i = 0; i < 16; i++) {
      cr_assert_not_null (opener[i].nbd, "%s", server_stderr (&srv));
      client_write_page (opener[i].nbd, i + 1, 1, HEADER);
      client_expect_page (opener[i % 2].nbd, i + 1, 1, HEADER);
    }
    for (unsigned i = 0; i < 16; i++)
      client_close (opener[i].nbd);
    cr_assert_eq (json_object_array_length (member (control_status (control), "exports")),
                  2 * round + 2);
    control_forget ();
  }
}

/* ---- very many ---- */

enum { MANY = 1000 };

/* As many as a room, a data centre or a mistake may have, and with state= each has a file. */
static void
serve_many (const char *state)
{
  const char *params[MANY + 4];
  unsigned n = 0;

  params[n++] = dev_path ("a,size=64M");
  params[n++] = control_param ();
  if (state)
    params[n++] = state;
  for (unsigned i = 0; i < MANY; i++)
    params[n++] = str ("export=e%03u,size=1G", i);
  params[n] = NULL;
  server_start (&srv, &(struct server_options){ .threads = 1,
                                                .params = params,
                                                .wrapper = PARAMS ("prlimit", "--nofile=256:") });
  control = control_open ();
}

static void
use_many (uint32_t sequence)
{
  for (unsigned i = 0; i < MANY; i += 37) {
    struct nbd_handle *e = must_open (str ("e%03u", i));

    client_expect_page (e, sequence > 1 ? i + 1 : 0, sequence > 1 ? sequence - 1 : 0, i);
    client_write_page (e, i + 1, sequence, i);
    client_close (e);
  }
  cr_assert_eq (json_object_array_length (member (control_status (control), "exports")), MANY);
  control_forget ();
}

Test (exports, a_thousand)
{
  serve_many (NULL);
  use_many (1);
}

Test (exports, a_thousand_with_a_state)
{
  char *state = str ("state=%s", run_path ("state"));

  serve_many (state);
  use_many (1);
  livedrum_kill ();
  serve_many (state);
  use_many (2);
}
