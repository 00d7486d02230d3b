/* SPDX-License-Identifier: BSD-3-Clause
 *
 * terms.c - what a start makes of the terms of exports: which are as they were changed live, and which as the command line has
 * them.
 */
#include <config.h>

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include <criterion/criterion.h>

#include "tests/random.h"
#include "tests/scratch.h"

#include "livedrum.h"

enum { MIB = 1 << 20 };

#define EXPORT(verb, name) "'verb': 'export-" verb "', 'export': '" name "'"
#define REPLACED           ", changed while the server ran, and is "

static char *state;

static void
setup (void)
{
  livedrum_setup ();
  state = str ("state=%s", run_path ("state"));
}

TestSuite (terms, .init = setup, .fini = livedrum_teardown, .timeout = 600);

static void
serve (const char *const *with)
{
  livedrum_serve (&(struct server_options){ .threads = 1, .params = with });
}

/* Killed, and started with that. */
static void
restart (const char *const *with)
{
  livedrum_kill ();
  serve (with);
}

/* What the status has of it. */
static char *
describe (const char *name)
{
  static const char *const fields[] = { "size", "reserve",   "limit",    "weight",
                                        "iops", "bandwidth", "exclusive" };
  json *e = control_find_export (control, name);
  char *text = str ("%s", e ? "" : "none");

  for (unsigned i = 0; e && i < sizeof fields / sizeof fields[0]; i++)
    text = str ("%s%s%s", text, i ? " " : "", json_object_to_json_string (member (e, fields[i])));
  return text;
}

#define IS(size, reserve, limit, weight, exclusive) \
  str ("%u %u %u %d 0 0 %s", (size) *MIB, (reserve) *MIB, (limit) *MIB, weight, (exclusive))

/* And nothing of it was replaced; or only what is said in this many lines. */
static void
expect (const char *name, const char *is, unsigned nreplaced)
{
  unsigned n = 0;

  cr_assert_str_eq (describe (name), is, "\"%s\" is %s, and not %s (DRUM_TEST_SEED=%ju)", name,
                    describe (name), is, (uintmax_t) random_seed ());
  for (const char *at = server_stderr (&srv); (at = strstr (at, REPLACED)); at++)
    n++;
  cr_assert_eq (n, nreplaced, "%s", server_stderr (&srv));
}

/* While nobody is connected: a close is not answered. */
static void
wait_idle (const char *name)
{
  while (member_uint (control_export_as (control, name), "clients") > 0)
    sched_yield ();
}

static void
change_build (void)
{
  control_ok (control,
              EXPORT ("set", "build") ", 'reserve': %u, 'limit': %u, 'weight': 300, "
                                      "'exclusive': true",
              20 * MIB, 24 * MIB);
}

#define WITH(...) PARAMS (a, state, __VA_ARGS__)

static void
begin (const char *asked)
{
  serve (PARAMS (dev_path ("a,size=64M"), state, asked));
}

/* The command line catches up with a live resize: that is no word on the terms. */
Test (terms, another_size_is_another_size)
{
  begin ("export=build,size=32M");
  change_build ();
  control_run (control, "done", EXPORT ("resize", "build") ", 'size': %u", 48 * MIB);
  restart (WITH ("export=build,size=48M"));
  expect ("build", IS (48, 20, 24, 300, "true"), 0);
}

Test (terms, of_the_default_export)
{
  begin ("size=32M");
  control_ok (control, EXPORT ("set", "") ", 'reserve': %u, 'weight': 7", 16 * MIB);
  control_run (control, "done", EXPORT ("resize", "") ", 'size': %u", 48 * MIB);
  restart (WITH ("size=48M"));
  expect ("", IS (48, 16, 0, 7, "false"), 0);
}

/* Each is compared by itself, and what is not named is its default. */
Test (terms, each_by_itself)
{
  begin ("export=build,size=48M,reserve=16M,exclusive=yes");
  control_ok (control, EXPORT ("set", "build") ", 'reserve': %u, 'weight': 7", 12 * MIB);
  restart (WITH ("export=build,size=48M,reserve=8M,exclusive=yes"));
  expect ("build", IS (48, 8, 0, 7, "true"), 1);
  server_wait_stderr (&srv, "export \"build\": its reserve was 12582912" REPLACED "8388608 now");
  restart (WITH ("export=build,size=48M,reserve=8M,weight=100"));
  expect ("build", IS (48, 8, 0, 7, "false"),
          0); /* 100 is what it was; and exclusive was not changed live */
  restart (WITH ("export=build,size=48M,weight=9"));
  expect ("build", IS (48, 0, 0, 9, "false"), 1);
  server_wait_stderr (&srv, "export \"build\": its weight was 7" REPLACED "9 now");
  control_ok (control, EXPORT ("set", "build") ", 'weight': 7");
  restart (WITH ("export=build,size=48M"));
  expect ("build", IS (48, 0, 0, 100, "false"), 1);
  restart (WITH ("export=build,size=48M"));
  expect ("build", IS (48, 0, 0, 100, "false"), 0);
}

/* A live reserve above the limit that the command line has now, and the other way round. */
Test (terms, that_do_not_go_together)
{
  begin ("export=build,size=48M");
  change_build ();
  restart (WITH ("export=build,size=48M,limit=12M"));
  expect ("build", IS (48, 0, 12, 300, "true"), 2);
  control_ok (control, EXPORT ("set", "build") ", 'limit': %u", 8 * MIB);
  restart (WITH ("export=build,size=48M,limit=12M,reserve=10M"));
  expect ("build", IS (48, 10, 12, 300, "true"), 1);
  control_ok (control, EXPORT ("set", "build") ", 'limit': %u", 20 * MIB);
  restart (WITH ("export=build,size=48M,limit=12M,reserve=11M"));
  expect ("build", IS (48, 11, 20, 300, "true"), 0);
}

/* What no command line has said anything of is compared with the defaults, and stays when none says anything any more. */
Test (terms, named_for_the_first_time)
{
  begin ("export=other,size=1M");
  control_ok (control, EXPORT ("add", "build") ", 'size': %u", 48 * MIB);
  change_build ();
  restart (WITH ("export=build,size=48M,weight=9"));
  expect ("build", IS (48, 20, 24, 9, "true"), 1);
  restart (WITH ("export=other,size=1M"));
  expect ("build", IS (48, 20, 24, 9, "true"), 0);
}

/* One of that name that was made live is as if it came from the command line. */
Test (terms, of_one_that_was_made_anew)
{
  begin ("export=build,size=48M");
  control_run (control, "done", EXPORT ("remove", "build"));
  control_ok (control, EXPORT ("add", "build") ", 'size': %u, 'reserve': %u, 'exclusive': true",
              48 * MIB, 20 * MIB);
  for (unsigned i = 0; i < 2; i++) {
    restart (WITH ("export=build,size=48M"));
    expect ("build", IS (48, 20, 0, 100, "true"), 0);
  }
  restart (WITH ("export=build,size=48M,reserve=4M"));
  expect ("build", IS (48, 4, 0, 100, "true"), 1);
}

/* Also with another size; a later start knows that it was removed, and the one after an add, that it was added. */
Test (terms, of_one_that_was_made_anew_with_another_size)
{
  const char *line;

  begin ("export=build,size=32M");
  control_run (control, "done", EXPORT ("remove", "build"));
  restart (WITH ("export=build,size=48M"));
  expect ("build", "none", 0);
  control_ok (control, EXPORT ("add", "build") ", 'size': %u, 'weight': 7", 16 * MIB);
  restart (WITH ("export=build,size=48M"));
  expect ("build", IS (16, 0, 0, 7, "false"), 0);
  livedrum_kill ();
  line = server_refuses (&(struct server_options){ .params = WITH ("export=build,size=32M") });
  cr_assert (strstr (line, "export \"build\": size= is 33554432"), "%s", line);
  serve (WITH ("export=build,size=16M"));
  expect ("build", IS (16, 0, 0, 7, "false"), 0);
  control_run (control, "done", EXPORT ("remove", "build"));
  restart (WITH ("export=build,size=16M"));
  expect ("build", "none", 0);
}

/* A template is another way to make it. */
Test (terms, of_one_that_a_template_made_anew)
{
  const char *const *with = PARAMS (dev_path ("a,size=64M"), state, "export=t-1,size=32M",
                                    "template=t-*,size=16M,reserve=4M,weight=7");

  serve (with);
  control_run (control, "done", EXPORT ("remove", "t-1"));
  client_close (client_open_as (&srv, "t-1"));
  wait_idle ("t-1");
  restart (with);
  expect ("t-1", IS (16, 4, 0, 7, "true"), 0);
}

/* ---- any of it ---- */

enum {
  NNAMES = 4,
  UNIT = 256 << 10,
  MIN_UNITS = 4,
  MAX_UNITS = 16,
  ROUNDS = 80,
  RESERVE = 0,
  LIMIT,
  WEIGHT,
  IOPS,
  BANDWIDTH,
  EXCLUSIVE,
  NTERMS
};

/* The first is the default export, and the last is one that the template makes if it is not there. */
static const char *const names[NNAMES] = { "", "x", "y", "t-1" };
static const char *const keys[NTERMS] = { "reserve", "limit",     "weight",
                                          "iops",    "bandwidth", "exclusive" };
static const uint64_t defaults[NTERMS] = { [WEIGHT] = 100 };

/* An export as it is, or as a command line has it; size 0: not at all. */
struct image {
  uint64_t size, term[NTERMS];
};

/* All that there is to know. What the command line has, and is not there, was removed. */
static struct image live[NNAMES], asked[NNAMES];
static struct rng rng;

static bool
one_in (unsigned n)
{
  return rng_below (&rng, n) == 0;
}

static uint64_t
any_size (void)
{
  return (MIN_UNITS + rng_below (&rng, MAX_UNITS - MIN_UNITS + 1)) * UNIT;
}

/* Few values, so that two are often the same. */
static uint64_t
any_term (unsigned term)
{
  switch (term) {
  case RESERVE:
  case LIMIT:
    return one_in (3) ? 0 : (1 + rng_below (&rng, MAX_UNITS)) * UNIT;
  case WEIGHT:
    return one_in (3) ? 100 : 1 + rng_below (&rng, 3);
  case EXCLUSIVE:
    return rng_below (&rng, 2);
  default:
    return one_in (3) ? 0 : 1000000 + rng_below (&rng, 3);
  }
}

static bool
goes_together (const struct image *image)
{
  const uint64_t *term = image->term;

  return term[RESERVE] <= image->size && (!term[LIMIT] || term[RESERVE] <= term[LIMIT]);
}

/* Some of them others, though not so that it would be refused. */
static void
change_terms (struct image *image)
{
  struct image changed;

  do {
    changed = *image;
    for (unsigned i = 0; i < NTERMS; i++)
      if (one_in (3))
        changed.term[i] = any_term (i);
  } while (!goes_together (&changed));
  *image = changed;
}

static struct image
any_image (void)
{
  struct image image = { .size = any_size () };

  memcpy (image.term, defaults, sizeof defaults);
  change_terms (&image);
  return image;
}

/* As members of a request: terms that are others than before; all if that is NULL. */
static char *
members (const struct image *image, const struct image *before)
{
  char *text = str ("%s", "");

  for (unsigned i = 0; i < NTERMS; i++)
    if (before && before->term[i] == image->term[i])
      continue;
    else if (i == EXCLUSIVE)
      text = str ("%s, 'exclusive': %s", text, image->term[i] ? "true" : "false");
    else
      text = str ("%s, '%s': %" PRIu64, text, keys[i], image->term[i]);
  return text;
}

static void
change_live (void)
{
  unsigned x = (unsigned) rng_below (&rng, NNAMES);
  struct image before = live[x], *e = &live[x];

  if (e->size == 0 && x == NNAMES - 1 && one_in (2)) {
    client_close (client_open_as (&srv, names[x]));
    wait_idle (names[x]);
    *e = (struct image){ 2 * MIB, { MIB, 0, 7, 0, 0, 1 } }; /* the template */
  } else if (e->size == 0) {
    *e = any_image ();
    control_ok (control, "'verb': 'export-add', 'export': '%s', 'size': %" PRIu64 "%s", names[x],
                e->size, members (e, NULL));
  } else if (one_in (4)) {
    control_run (control, "done", "'verb': 'export-remove', 'export': '%s'", names[x]);
    e->size = 0;
  } else if (one_in (3)) {
    e->size = any_size ();
    if (!goes_together (e))
      e->size = before.size;
    control_run (control, "done", "'verb': 'export-resize', 'export': '%s', 'size': %" PRIu64,
                 names[x], e->size);
  } else {
    change_terms (e);
    control_ok (control, "'verb': 'export-set', 'export': '%s'%s", names[x], members (e, &before));
  }
}

/* What the command line has of an export is changed. */
static void
change_asked (unsigned x, struct image *next)
{
  if (next->size && one_in (5)) {
    next->size = 0;
    return;
  }
  if (next->size == 0 && one_in (2))
    return;
  do {
    if (next->size == 0)
      *next = any_image ();
    if (one_in (2))
      next->size = live[x].size && !one_in (8) ? live[x].size : any_size ();
    if (x > 0 && one_in (2))
      change_terms (next);
    else if (x == 0)
      memcpy (next->term, defaults, sizeof defaults);
  } while (!goes_together (next) && (next->size = 0, true));
}

/* On the command line; a default is given now and then. */
static char *
parameter (unsigned x, const struct image *image)
{
  char *text = x == 0 ? str ("size=%" PRIu64, image->size)
                      : str ("export=%s,size=%" PRIu64, names[x], image->size);

  for (unsigned i = 0; i < NTERMS && x > 0; i++)
    if (image->term[i] != defaults[i] || one_in (4))
      text = str ("%s,%s=%" PRIu64, text, keys[i], image->term[i]);
  return text;
}

/* What a start makes of one export; *nreplaced counts live changes that the command line undoes. */
static void
restart_image (struct image *e, const struct image *last, const struct image *next,
               unsigned *nreplaced)
{
  const uint64_t *was = last->size ? last->term : defaults;
  uint64_t had[NTERMS];

  if (next->size == 0)
    return;
  if (e->size == 0) {
    if (last->size == 0)
      *e = *next;
    return;
  }
  memcpy (had, e->term, sizeof had);
  for (unsigned i = 0; i < NTERMS; i++)
    if (next->term[i] != was[i])
      e->term[i] = next->term[i];
  if (e->term[LIMIT] && e->term[LIMIT] < e->term[RESERVE]) {
    e->term[LIMIT] = next->term[LIMIT];
    e->term[RESERVE] = next->term[RESERVE];
  }
  for (unsigned i = 0; i < NTERMS; i++)
    *nreplaced += had[i] != was[i] && had[i] != e->term[i];
  if (e->term[RESERVE] > e->size)
    e->term[RESERVE] = e->size;
}

static bool
is_refused (const struct image *next)
{
  for (unsigned x = 0; x < NNAMES; x++)
    if (next[x].size && live[x].size && next[x].size != live[x].size &&
        next[x].size != asked[x].size)
      return true;
  return false;
}

static void
expect_live (unsigned x, unsigned nreplaced)
{
  const uint64_t *term = live[x].term;

  if (live[x].size == 0)
    expect (names[x], "none", nreplaced);
  else
    expect (names[x],
            str ("%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %s",
                 live[x].size, term[RESERVE], term[LIMIT], term[WEIGHT], term[IOPS],
                 term[BANDWIDTH], term[EXCLUSIVE] ? "true" : "false"),
            nreplaced);
}

static void
start (const struct image *next, unsigned *nrefused)
{
  const char *params[NNAMES + 4] = { dev_path ("a,size=64M"), state,
                                     "template=t-*,size=2M,reserve=1M,weight=7" };
  unsigned n = 3, nreplaced = 0;

  for (unsigned x = 0; x < NNAMES; x++)
    if (next[x].size)
      params[n++] = parameter (x, &next[x]);
  if (is_refused (next)) {
    const char *line = server_refuses (&(struct server_options){ .params = params });

    cr_assert_not_null (strstr (line, ": size= is "), "%s", line);
    ++*nrefused;
    start (asked, nrefused);
    return;
  }
  serve (params);
  for (unsigned x = 0; x < NNAMES; x++) {
    restart_image (&live[x], &asked[x], &next[x], &nreplaced);
    asked[x] = next[x];
  }
  for (unsigned x = 0; x < NNAMES; x++)
    expect_live (x, nreplaced);
}

/* Any changes of exports, and of the command line. */
Test (terms, of_any_changes)
{
  unsigned nsame = 0, nrefused = 0;

  rng = rng_for (4000);
  start (asked, &nrefused);
  for (unsigned round = 0; round < random_steps (ROUNDS); round++) {
    struct image next[NNAMES];

    memcpy (next, asked, sizeof next);
    for (unsigned i = (unsigned) rng_below (&rng, 6); i > 0; i--)
      change_live ();
    if (one_in (3))
      nsame++;
    else
      for (unsigned x = 0; x < NNAMES; x++)
        if (one_in (2))
          change_asked (x, &next[x]);
    livedrum_kill ();
    start (next, &nrefused);
    control_forget ();
  }
  printf ("%u starts with the same command line, %u refused\n", nsame, nrefused);
}
