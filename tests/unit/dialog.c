/* SPDX-License-Identifier: BSD-3-Clause
 *
 * dialog.c - tests of lib/dialog.c. Time is the test's own.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/dialog.h"
#include "tests/random.h"
#include "tests/scratch.h"

#define SECONDS UINT64_C (1000000000)
#define MS      UINT64_C (1000000)

static struct dialog *dialog;
static uint64_t now;

/* What the handler does, and what it saw. */
static int handler_ret;
static unsigned handler_wait_ms = UINT_MAX; /* UINT_MAX: it does not say */
static unsigned last_waited_ms, nasked;
static bool handler_says_why;

static int
handler (void *opaque, struct json_object *request, unsigned waited_ms, struct json_object *reply,
         unsigned *wait_ms)
{
  struct json_object *n;

  cr_assert_eq (opaque, &nasked);
  nasked++;
  last_waited_ms = waited_ms;
  if (handler_wait_ms != UINT_MAX)
    *wait_ms = handler_wait_ms;
  if (handler_says_why)
    json_object_object_add (reply, "error", json_object_new_string ("/srv/a: is why"));
  if (json_object_object_get_ex (request, "n", &n))
    json_object_object_add (reply, "n", json_object_get (n));
  return handler_ret;
}

static void
setup (void)
{
  now = 1000 * SECONDS;
  dialog = dialog_create (handler, &nasked, now);
  cr_assert_not_null (dialog);
  cr_assert (dialog_state (dialog) == DIALOG_RECEIVING);
}

static void
teardown (void)
{
  dialog_free (dialog);
}

TestSuite (dialog, .init = setup, .fini = teardown, .timeout = 60);

static const char *
state_name (enum dialog_state state)
{
  static const char *const names[] = { "receiving", "ready", "deferred", "sending", "over" };

  return names[state];
}

#define assert_state(expected) \
  cr_assert (dialog_state (dialog) == (expected), "it is %s", state_name (dialog_state (dialog)))

/* The client sends these bytes, as far as there is room. */
static size_t
put (const void *bytes, size_t len)
{
  char *room;
  size_t size;

  assert_state (DIALOG_RECEIVING);
  size = dialog_room (dialog, &room);
  cr_assert_gt (size, 0);
  if (len > size)
    len = size;
  memcpy (room, bytes, len);
  dialog_received (dialog, len, now);
  return len;
}

static void
puts_all (const char *text)
{
  cr_assert_eq (put (text, strlen (text)), strlen (text));
}

static void
turn (void)
{
  dialog_turn (dialog, false, now);
}

/* All of the reply, taken by so many bytes at a time. */
static char *
take_by (size_t max)
{
  char *text = NULL;
  size_t len = 0;

  do {
    const char *bytes;
    size_t n;

    assert_state (DIALOG_SENDING);
    n = dialog_reply (dialog, &bytes);
    cr_assert_gt (n, 0);
    n = n < max ? n : max;
    text = realloc (text, len + n + 1);
    memcpy (text + len, bytes, n);
    len += n;
    text[len] = '\0';
    dialog_sent (dialog, n, now);
  } while (text[len - 1] != '\n');
  return text;
}

static char *
take (void)
{
  return take_by (SIZE_MAX);
}

/* The reply to one line is this. */
static void
assert_answer (const char *line, const char *expected)
{
  char *reply;

  puts_all (line);
  puts_all ("\n");
  assert_state (DIALOG_READY);
  turn ();
  reply = take ();
  cr_assert_str_eq (reply, expected, "%s: %s", line, reply);
  free (reply);
  assert_state (DIALOG_RECEIVING);
}

/* The reply to this line (of len bytes) is an error of this name, and the handler is not asked. */
static void
assert_refused (const void *line, size_t len, const char *name)
{
  unsigned before = nasked;
  char *reply;

  if (len > 0)
    put (line, len);
  puts_all ("\n");
  turn ();
  reply = take ();
  cr_assert_not_null (strstr (reply, str ("\"errno\":\"%s\"", name)), "%.*s: %s", (int) len,
                      (const char *) line, reply);
  cr_assert_not_null (strstr (reply, "{\"version\":1,\"ok\":false,\"error\":\""), "%s", reply);
  free (reply);
  cr_assert_eq (nasked, before);
  assert_state (DIALOG_RECEIVING);
}

/* A request and its reply; the handler's keys stand behind ours. */
Test (dialog, answers)
{
  assert_answer ("{\"version\":1,\"n\":7}", "{\"version\":1,\"ok\":true,\"n\":7}\n");
  assert_answer (" { \"n\" : [ 1 , 2 ] , \"version\" : 1 } \r",
                 "{\"version\":1,\"ok\":true,\"n\":[1,2]}\n");
  cr_assert_eq (last_waited_ms, 0);
}

/* An error has its errno by name, and the handler's words, or else the errno's. */
Test (dialog, answers_errors)
{
  handler_ret = -ENOENT;
  assert_answer ("{\"version\":1}", "{\"version\":1,\"ok\":false,\"error\":\"No such file or "
                                    "directory\",\"errno\":\"ENOENT\"}\n");
  handler_says_why = true;
  assert_answer ("{\"version\":1,\"n\":3}", "{\"version\":1,\"ok\":false,\"error\":\"/srv/a: is "
                                            "why\",\"n\":3,\"errno\":\"ENOENT\"}\n");
  handler_ret = -100000;
  assert_answer ("{\"version\":1}", "{\"version\":1,\"ok\":false,\"error\":\"/srv/a: is "
                                    "why\",\"errno\":\"EIO\"}\n");
}

/* What is no JSON object, or not only that, is refused, and the next line is heard. */
Test (dialog, refuses_what_is_no_object)
{
  static const char *const lines[] = {
    "",
    " ",
    "x",
    "7",
    "null",
    "\"{}\"",
    "[{\"version\":1}]",
    "{",
    "{\"version\":1",
    "{\"version\":1,}",
    "{\"version\":1,\"n\":\"",
    "{\"version\":1}}",
    "{\"version\":1} {\"version\":1}",
    "{\"version\":1} x",
    "{\"version\":1}x",
    "{\"version\":1,\"n\":'x'}",
    "{version:1}",
    "/* */ {\"version\":1}",
    "{\"version\":1,\"n\":\"\xff\"}",
    "{\"version\":1,\"\xc3\":1}",
  };

  for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++)
    assert_refused (lines[i], strlen (lines[i]), "EINVAL");
  assert_answer ("{\"version\":1}", "{\"version\":1,\"ok\":true}\n");
}

/* A zero byte is no end and no space. */
Test (dialog, refuses_zero_bytes)
{
  static const char line[] = "{\"version\":1,\"n\":\"ab\"}";

  for (size_t at = 0; at <= sizeof line - 1; at++) {
    char with[sizeof line];

    memcpy (with, line, at);
    with[at] = '\0';
    memcpy (with + at + 1, line + at, sizeof line - 1 - at);
    assert_refused (with, sizeof line, "EINVAL");
  }
}

/* Only the number 1 is version 1. */
Test (dialog, refuses_other_versions)
{
  static const char *const lines[] = {
    "{}",
    "{\"version\":0}",
    "{\"version\":2}",
    "{\"version\":\"1\"}",
    "{\"version\":1.0}",
    "{\"version\":true}",
    "{\"version\":null}",
    "{\"version\":[1]}",
    "{\"Version\":1}",
    "{\"version\":4294967297}",
    "{\"version\":18446744073709551617}",
  };

  for (unsigned i = 0; i < sizeof lines / sizeof lines[0]; i++)
    assert_refused (lines[i], strlen (lines[i]), "EPROTONOSUPPORT");
}

/* An object in which lists stand within one another: of depth objects and lists in all. */
static char *
nested (unsigned depth)
{
  char *lists = str ("%s", "");

  for (unsigned i = 0; i < depth - 1; i++)
    lists = str ("[%s]", i ? lists : "1");
  return str ("{\"version\":1,\"n\":%s}", lists);
}

/* Depth is bounded: a parser that recurses is on a thread's stack. */
Test (dialog, refuses_depth)
{
  char *line = nested (CONTROL_MAX_DEPTH);

  puts_all (line);
  puts_all ("\n");
  turn ();
  cr_assert_not_null (strstr (keep_for_test (take ()), "\"ok\":true"));
  line = nested (CONTROL_MAX_DEPTH + 1);
  assert_refused (line, strlen (line), "EINVAL");
  line = nested (10000);
  assert_refused (line, strlen (line), "EINVAL");
}

/* Several requests that arrive at once are answered one by one, in order, and no more is received until the last has been. */
Test (dialog, one_by_one)
{
  puts_all ("{\"version\":1,\"n\":1}\n{\"version\":1,\"n\":2}\n\n{\"version\":1,\"n\":3}\n{\"ver");
  for (unsigned i = 1; i <= 4; i++) {
    char *reply;

    assert_state (DIALOG_READY);
    turn ();
    cr_assert_eq (nasked, i < 3 ? i : i - 1);
    reply = take_by (5);
    if (i != 3)
      cr_assert_not_null (strstr (reply, str ("\"n\":%u", i < 3 ? i : 3)), "%s", reply);
    else
      cr_assert_not_null (strstr (reply, "EINVAL"));
    free (reply);
  }
  assert_state (DIALOG_RECEIVING);
  puts_all ("sion\":1,\"n\":4}\n");
  turn ();
  cr_assert_str_eq (keep_for_test (take ()), "{\"version\":1,\"ok\":true,\"n\":4}\n");
}

/* A line of so many bytes, newline included. */
static char *
long_line (size_t bytes)
{
  static const char begin[] = "{\"version\":1,\"n\":\"", end[] = "\"}\n";
  size_t nbegin = sizeof begin - 1, nend = sizeof end - 1;
  char *line = keep_for_test (malloc (bytes + 1));

  memset (line, 'x', bytes);
  memcpy (line, begin, nbegin);
  memcpy (line + bytes - nend, end, nend + 1);
  return line;
}

/* The longest line is answered; one byte more is told so, and it is over, whatever follows. */
Test (dialog, length_is_bounded)
{
  char *line = long_line (CONTROL_MAX_REQUEST);
  char *reply;

  for (unsigned i = 0; i < 2; i++) {
    puts_all (line);
    assert_state (DIALOG_READY);
    turn ();
    reply = take_by (1000);
    cr_assert_gt (strlen (reply), CONTROL_MAX_REQUEST);
    free (reply);
  }
  free (line);
  line = long_line (CONTROL_MAX_REQUEST + 1);
  cr_assert_eq (put (line, CONTROL_MAX_REQUEST + 1), CONTROL_MAX_REQUEST);
  assert_state (DIALOG_SENDING);
  reply = keep_for_test (take ());
  cr_assert_not_null (strstr (reply, "EMSGSIZE"), "%s", reply);
  assert_state (DIALOG_OVER);
  cr_assert_eq (nasked, 2);
}

/* The replies do not depend on how the bytes come, nor on how they go. */
Test (dialog, any_chunks)
{
  static const char input[] = "{\"version\":1,\"n\":1}\n\n[]\n{\"version\":1,\"n\":{\"a\":[]}}\nx\n"
                              "{\"version\":2}\n{\"version\":1,\"n\":\"\xc3\xa4\"}\n";
  struct rng rng = rng_for (0);
  char *expected = NULL;

  for (unsigned round = 0; round < random_steps (300); round++) {
    char *all = str ("%s", "");
    size_t at = 0;

    while (at < sizeof input - 1 || dialog_state (dialog) != DIALOG_RECEIVING)
      if (dialog_state (dialog) == DIALOG_RECEIVING) {
        size_t n = 1 + rng_below (&rng, round ? 30 : 1);

        at += put (input + at, n < sizeof input - 1 - at ? n : sizeof input - 1 - at);
      } else if (dialog_state (dialog) == DIALOG_READY)
        turn ();
      else
        all = str ("%s%s", all, (char *) keep_for_test (take_by (1 + rng_below (&rng, 50))));
    expected = expected ? expected : all;
    cr_assert_str_eq (all, expected, "seed %" PRIu64, random_seed ());
  }
}

/* Deferred: the handler is asked again when something has happened, or when it wanted to be, and at no other time. */
Test (dialog, defers)
{
  handler_ret = -EAGAIN;
  handler_wait_ms = 500;
  puts_all ("{\"version\":1,\"n\":1}\n{\"version\":1,\"n\":2}\n");
  turn ();
  assert_state (DIALOG_DEFERRED);
  cr_assert_eq (nasked, 1);
  cr_assert_eq (last_waited_ms, 0);
  cr_assert_eq (dialog_due_ns (dialog), now + 500 * MS);
  now += 500 * MS - 1;
  turn ();
  cr_assert_eq (nasked, 1);
  now += 1;
  turn ();
  cr_assert_eq (nasked, 2);
  cr_assert_eq (last_waited_ms, 500);
  cr_assert_eq (dialog_due_ns (dialog), now + 500 * MS);
  now += 20 * MS;
  dialog_turn (dialog, true, now);
  cr_assert_eq (nasked, 3);
  cr_assert_eq (last_waited_ms, 520);
  assert_state (DIALOG_DEFERRED);

  handler_ret = 0;
  now += 3600 * SECONDS;
  dialog_turn (dialog, true, now);
  cr_assert_str_eq (keep_for_test (take ()), "{\"version\":1,\"ok\":true,\"n\":1}\n");
  assert_state (DIALOG_READY);
  turn ();
  cr_assert_eq (last_waited_ms, 0, "the clock is each request's own");
  cr_assert_str_eq (keep_for_test (take ()), "{\"version\":1,\"ok\":true,\"n\":2}\n");
}

/* Asked for the first time is who has waited 0 ms, and nobody else. A handler that is due at once does not make us spin. */
Test (dialog, waited_zero_is_the_first_time)
{
  handler_ret = -EAGAIN;
  handler_wait_ms = 0;
  puts_all ("{\"version\":1}\n");
  turn ();
  cr_assert_gt (dialog_due_ns (dialog), now);
  handler_wait_ms = UINT_MAX;
  dialog_turn (dialog, true, now);
  cr_assert_gt (dialog_due_ns (dialog), now);
  cr_assert_eq (nasked, 2);
  cr_assert_eq (last_waited_ms, 1);
  now += 100 * 24 * 3600 * SECONDS;
  turn ();
  cr_assert_eq (last_waited_ms, UINT32_MAX);
}

/* No more to receive: what has arrived is answered, the begin of a line is not. */
Test (dialog, half_closed)
{
  puts_all ("{\"version\":1,\"n\":1}\n{\"version\":1,\"n\":2}\n{\"version\":1");
  for (unsigned i = 0; i < 2; i++) {
    turn ();
    free (take ());
  }
  dialog_received (dialog, 0, now);
  assert_state (DIALOG_OVER);
  cr_assert_eq (nasked, 2);
}

/* For all of a request there are 30 s, however many bytes come meanwhile. */
Test (dialog, a_request_takes_its_time)
{
  now += CONTROL_IDLE_SECONDS * SECONDS - 1;
  puts_all ("{");
  for (unsigned i = 0; i < CONTROL_SILENT_SECONDS; i++) {
    cr_assert_leq (dialog_due_ns (dialog), now + CONTROL_SILENT_SECONDS * SECONDS);
    turn ();
    puts_all (" ");
    now += 1 * SECONDS - (i == 0);
    turn ();
  }
  assert_state (DIALOG_RECEIVING);
  now += 1;
  turn ();
  assert_state (DIALOG_OVER);
}

/* A reply may take longer, as long as some of it is read every 30 s. */
Test (dialog, a_reply_is_to_be_read)
{
  puts_all ("{\"version\":1}\n{\"version\":1}\n");
  now += 3600 * SECONDS;
  turn ();
  for (unsigned i = 0; i < 3; i++) {
    now += CONTROL_SILENT_SECONDS * SECONDS - 1;
    turn ();
    assert_state (DIALOG_SENDING);
    dialog_sent (dialog, 1, now);
  }
  cr_assert_eq (dialog_due_ns (dialog), now + CONTROL_SILENT_SECONDS * SECONDS);
  now += CONTROL_SILENT_SECONDS * SECONDS;
  turn ();
  assert_state (DIALOG_OVER);
  cr_assert_eq (nasked, 1, "a request was asked while a reply is unsent");
}

/* So is one that nothing follows, and one to a request that took all its time to become too long. */
Test (dialog, a_last_reply_is_to_be_read)
{
  static char blanks[CONTROL_MAX_REQUEST];

  puts_all ("{\"version\":1}\n");
  turn ();
  cr_assert_eq (dialog_due_ns (dialog), now + CONTROL_SILENT_SECONDS * SECONDS);
  free (take ());
  memset (blanks, ' ', sizeof blanks);
  put (blanks, sizeof blanks - 1);
  now += CONTROL_SILENT_SECONDS * SECONDS - 1;
  puts_all (" ");
  assert_state (DIALOG_SENDING);
  cr_assert_eq (dialog_due_ns (dialog), now + CONTROL_SILENT_SECONDS * SECONDS);
}

/* Who asks nothing for 5 minutes is not waited for; they begin again with each reply. */
Test (dialog, idle)
{
  now += CONTROL_IDLE_SECONDS * SECONDS - 1;
  turn ();
  assert_state (DIALOG_RECEIVING);
  assert_answer ("{\"version\":1}", "{\"version\":1,\"ok\":true}\n");
  cr_assert_eq (dialog_due_ns (dialog), now + CONTROL_IDLE_SECONDS * SECONDS);
  now += CONTROL_IDLE_SECONDS * SECONDS - 1;
  turn ();
  assert_state (DIALOG_RECEIVING);
  now += 1;
  turn ();
  assert_state (DIALOG_OVER);
}

/* Refused at the door: a reply, and the end. */
Test (dialog, refuses)
{
  dialog_refuse (dialog, EPERM, "who are \"you\"?");
  cr_assert_str_eq (keep_for_test (take ()), "{\"version\":1,\"ok\":false,\"error\":\"who are "
                                             "\\\"you\\\"?\",\"errno\":\"EPERM\"}\n");
  assert_state (DIALOG_OVER);
}

/* A client that is gone is forgotten in any state, whatever is called then. */
Test (dialog, ends_in_any_state)
{
  for (unsigned state = DIALOG_RECEIVING; state <= DIALOG_OVER; state++) {
    handler_ret = state == DIALOG_DEFERRED ? -EAGAIN : 0;
    if (state != DIALOG_RECEIVING)
      puts_all ("{\"version\":1}\n{\"version\":1}\n");
    if (state > DIALOG_READY)
      turn ();
    if (state == DIALOG_OVER)
      dialog_end (dialog);
    assert_state (state);
    dialog_end (dialog);
    assert_state (DIALOG_OVER);
    nasked = 0;
    dialog_turn (dialog, true, now + 3600 * SECONDS);
    assert_state (DIALOG_OVER);
    cr_assert_eq (nasked, 0);
    dialog_free (dialog);
    setup ();
  }
}

/* Every call of these that it makes may fail: the nth, for every n. */
static unsigned ncalls, fail_at;

static bool
fails (void)
{
  return ++ncalls == fail_at;
}

#define WRAP(type, name, params, args) \
  type __real_##name params;           \
  type __wrap_##name params;           \
  type __wrap_##name params            \
  {                                    \
    if (fails ()) {                    \
      errno = ENOMEM;                  \
      return NULL;                     \
    }                                  \
    return __real_##name args;         \
  }

WRAP (void *, malloc, (size_t n), (n))
WRAP (struct json_object *, json_object_new_object, (void), ())
WRAP (struct json_object *, json_object_new_int, (int32_t n), (n))
WRAP (struct json_object *, json_object_new_boolean, (json_bool b), (b))
WRAP (struct json_object *, json_object_new_string, (const char *s), (s))
WRAP (struct json_tokener *, json_tokener_new_ex, (int depth), (depth))

int __real_json_object_object_add (struct json_object *object, const char *key,
                                   struct json_object *value);
int __wrap_json_object_object_add (struct json_object *object, const char *key,
                                   struct json_object *value);

int
__wrap_json_object_object_add (struct json_object *object, const char *key,
                               struct json_object *value)
{
  return fails () ? -1 : __real_json_object_object_add (object, key, value);
}

const char *__real_json_object_to_json_string_length (struct json_object *object, int flags,
                                                      size_t *len);
const char *__wrap_json_object_to_json_string_length (struct json_object *object, int flags,
                                                      size_t *len);

/* What json-c does then: it leaves something out. */
const char *
__wrap_json_object_to_json_string_length (struct json_object *object, int flags, size_t *len)
{
  const char *text = __real_json_object_to_json_string_length (object, flags, len);

  if (fails ()) {
    *len /= 2;
    errno = ENOMEM;
  }
  return text;
}

static int
fail_with_enoent (void *opaque, struct json_object *request, unsigned waited_ms,
                  struct json_object *reply, unsigned *wait_ms)
{
  (void) opaque;
  (void) request;
  (void) waited_ms;
  (void) reply;
  (void) wait_ms;
  return -ENOENT;
}

/* An answer, an error and a refusal: each is all there, or it is over. False if it is. */
static bool
talk (void)
{
  static const char *const expected[] = { "\"ENOENT\"}\n", "\"EINVAL\"}\n", "\"EMSGSIZE\"}\n" };
  static char blanks[CONTROL_MAX_REQUEST];

  memset (blanks, ' ', sizeof blanks);
  puts_all ("{\"version\":1}\nx\n");
  for (unsigned i = 0; i < 3; i++) {
    char *reply;

    if (i < 2)
      turn ();
    else
      put (blanks, sizeof blanks);
    if (dialog_state (dialog) == DIALOG_OVER)
      return false;
    reply = take ();
    cr_assert_not_null (strstr (reply, expected[i]), "%s", reply);
    cr_assert_eq (strncmp (reply, "{\"version\":1,\"ok\":false,\"error\":\"", 33), 0, "%s", reply);
    free (reply);
  }
  assert_state (DIALOG_OVER);
  return true;
}

Test (dialog, out_of_memory)
{
  unsigned n = 0;
  bool all_said;

  dialog_free (dialog);
  do {
    ncalls = 0;
    fail_at = ++n;
    dialog = dialog_create (fail_with_enoent, NULL, now);
    all_said = dialog && talk ();
    cr_assert (!all_said || ncalls < fail_at, "call %u failed, and nobody has seen it", n);
    if (dialog)
      dialog_free (dialog);
  } while (!all_said);
  cr_assert_gt (n, 20);
  fail_at = 0;
  setup ();
}
