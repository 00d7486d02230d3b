/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "fields.h"

#include <json-c/json.h>
#include <limits.h>
#include <math.h>

#include "lib/log.h"

static bool complained;

void
field_complain (const char *key)
{
  if (!complained)
    log_error (
      "the server's reply makes no sense: \"%s\" is not what it must be; use the drumctl that "
      "came with the server",
      key ? key : "an array");
  complained = true;
}

bool
fields_were_fine (void)
{
  bool fine = !complained;

  complained = false;
  return fine;
}

/* NULL if it is not there, or none of type. */
static struct json_object *
get (struct json_object *object, const char *key, enum json_type type)
{
  struct json_object *value = key ? json_object_object_get (object, key) : object;

  if (json_object_is_type (value, type))
    return value;
  /* A time that happens to be whole. */
  if (type == json_type_double && json_object_is_type (value, json_type_int))
    return value;
  field_complain (key);
  return NULL;
}

uint64_t
field_number (struct json_object *object, const char *key)
{
  struct json_object *value = get (object, key, json_type_int);

  if (value && json_object_get_int64 (value) < 0) {
    field_complain (key);
    return 0;
  }
  return json_object_get_uint64 (value);
}

int
field_int (struct json_object *object, const char *key)
{
  struct json_object *value = get (object, key, json_type_int);
  int64_t number = json_object_get_int64 (value);

  if (number < INT_MIN || number > INT_MAX) {
    field_complain (key);
    return 0;
  }
  return (int) number;
}

double
field_seconds (struct json_object *object, const char *key)
{
  double seconds = json_object_get_double (get (object, key, json_type_double));

  if (!isfinite (seconds) || seconds < 0) {
    field_complain (key);
    return 0;
  }
  return seconds;
}

const char *
field_text (struct json_object *object, const char *key)
{
  struct json_object *value = get (object, key, json_type_string);

  return value ? json_object_get_string (value) : "";
}

bool
field_bool (struct json_object *object, const char *key)
{
  return json_object_get_boolean (get (object, key, json_type_boolean));
}

struct json_object *
field_object (struct json_object *object, const char *key)
{
  return get (object, key, json_type_object);
}

struct json_object *
field_array (struct json_object *object, const char *key, size_t *n)
{
  struct json_object *array = get (object, key, json_type_array);

  *n = array ? json_object_array_length (array) : 0;
  return array;
}

bool
field_is_there (struct json_object *object, const char *key)
{
  return json_object_object_get_ex (object, key, NULL);
}
