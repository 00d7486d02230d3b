/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.c - libFuzzer on what a control client sends: bytes -> dialog -> handler, and every reply is looked at.
 *
 * How the bytes are cut into pieces, and the replies too, follows from a hash of them: the same input does the same again.
 */
#include <config.h>

#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/dialog.h"
#include "lib/verbs.h"
#include "tests/fuzz/handler.h"
#include "tests/random.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

#define check(claim)                                    \
  do {                                                  \
    if (!(claim)) {                                     \
      fprintf (stderr, "it is not true: %s\n", #claim); \
      abort ();                                         \
    }                                                   \
  } while (0)

static uint64_t
hash (const uint8_t *data, size_t size)
{
  uint64_t h = 14695981039346656037u;

  for (size_t i = 0; i < size; i++)
    h = (h ^ data[i]) * 1099511628211u;
  return h;
}

/* Mostly some bytes, sometimes many. */
static size_t
piece (struct rng *rng, size_t max)
{
  size_t n = 1 + rng_below (rng, rng_below (rng, 4) ? 64 : 100000);

  return n < max ? n : max;
}

/* A reply is an object on a line, and says whether it is one of an error. Returns whether that is the end. */
static bool
check_reply (const char *text, size_t len)
{
  struct json_tokener *tok = json_tokener_new ();
  struct json_object *reply, *version, *ok, *error, *name;
  bool last = false;

  check (len > 0 && memchr (text, '\n', len) == text + len - 1);
  json_tokener_set_flags (tok, JSON_TOKENER_STRICT);
  reply = json_tokener_parse_ex (tok, text, (int) len);
  check (json_object_is_type (reply, json_type_object));
  check (json_object_object_get_ex (reply, "version", &version));
  check (json_object_get_int (version) == CONTROL_VERSION);
  check (json_object_object_get_ex (reply, "ok", &ok));
  check (json_object_is_type (ok, json_type_boolean));
  check (json_object_get_boolean (ok) == !json_object_object_get_ex (reply, "errno", &name));
  if (!json_object_get_boolean (ok)) {
    check (json_object_object_get_ex (reply, "error", &error));
    check (json_object_is_type (error, json_type_string));
    check (json_object_get_string_len (error) > 0);
    last = strcmp (json_object_get_string (name), "EMSGSIZE") == 0;
  }
  json_object_put (reply);
  json_tokener_free (tok);
  return last;
}

/* Take all of it. */
static bool
take_reply (struct dialog *d, struct rng *rng, uint64_t now)
{
  char *text = NULL;
  size_t len = 0;
  bool last;

  do {
    const char *bytes;
    size_t n = dialog_reply (d, &bytes);

    check (n > 0);
    n = piece (rng, n);
    text = realloc (text, len + n);
    memcpy (text + len, bytes, n);
    len += n;
    dialog_sent (d, n, now);
  } while (text[len - 1] != '\n');
  check (dialog_state (d) != DIALOG_SENDING);
  last = check_reply (text, len);
  free (text);
  return last;
}

static size_t
count_lines (const uint8_t *data, size_t size)
{
  size_t n = 0;

  for (size_t i = 0; i < size; i++)
    n += data[i] == '\n';
  return n;
}

/* Every line gets its reply, and nothing else does, until the client hangs up; time passes only for who waits. */
int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct rng rng = { hash (data, size) };
  uint64_t now = 1000000000;
  struct dialog *d = dialog_create (verbs_handle, handler_live (), now);
  size_t at = 0, nreplies = 0, n;
  bool last = false, gone = false;
  char *room;

  while (dialog_state (d) != DIALOG_OVER) {
    gone = rng_below (&rng, 256) == 0;
    if (gone)
      dialog_end (d);
    switch (dialog_state (d)) {
    case DIALOG_RECEIVING:
      n = dialog_room (d, &room);
      check (n > 0);
      n = at < size ? piece (&rng, n < size - at ? n : size - at) : 0;
      memcpy (room, data + at, n);
      at += n;
      dialog_received (d, n, now);
      break;
    case DIALOG_DEFERRED:
      if (dialog_due_ns (d) > now)
        now = dialog_due_ns (d);
      dialog_turn (d, rng_below (&rng, 2), now);
      break;
    case DIALOG_SENDING:
      check (!last);
      last = take_reply (d, &rng, now);
      nreplies++;
      break;
    default:
      dialog_turn (d, false, now);
    }
  }
  check (nreplies == count_lines (data, at) || last || gone);
  dialog_free (d);
  return 0;
}
