/* SPDX-License-Identifier: BSD-3-Clause
 *
 * handler.h - a handler for the fuzzer that looks at all of a request, and puts much of it into its reply.
 */
#ifndef DRUM_FUZZ_HANDLER_H
#define DRUM_FUZZ_HANDLER_H

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

static void *
handler_opaque (void)
{
  return NULL;
}

static int
handle (void *opaque, struct json_object *request, unsigned waited_ms, struct json_object *reply,
        unsigned *wait_ms)
{
  struct json_object *verb, *seconds, *list;

  (void) opaque;
  if (!json_object_object_get_ex (request, "verb", &verb) ||
      !json_object_is_type (verb, json_type_string)) {
    json_object_object_add (reply, "error", json_object_new_string ("verb: there is none"));
    return -EINVAL;
  }
  if (strcmp (json_object_get_string (verb), "wait") == 0 &&
      json_object_object_get_ex (request, "seconds", &seconds) &&
      waited_ms / 1000 < json_object_get_uint64 (seconds) % 4) {
    *wait_ms = 700;
    return -EAGAIN;
  }
  list = json_object_new_array ();
  json_object_object_foreach (request, key, value)
  {
    json_object_array_add (list, json_object_new_string (key));
    json_object_array_add (list, json_object_get (value));
  }
  json_object_object_add (reply, "arguments", list);
  return 0;
}

#endif
