/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "perform.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "client.h"
#include "drumctl.h"
#include "fields.h"
#include "follow.h"
#include "signals.h"

int
perform (struct json_object *request)
{
  struct json_object *reply = ask_once (request);
  int status = reply ? STATUS_DONE : STATUS_FAILED;

  json_object_put (reply);
  return status;
}

/* The number of the job that a request has begun; 0, and said why. */
static uint64_t
begin (struct client *c, struct json_object *request)
{
  struct json_object *reply = client_ask (c, request);
  uint64_t id = reply ? field_number (reply, "job") : 0;

  json_object_put (reply);
  return fields_were_fine () ? id : 0;
}

/* Who asks us to stop from here on means the job. */
int
perform_job (struct json_object *request, const struct manner *manner)
{
  int status = STATUS_FAILED;
  struct client *c;
  uint64_t id;

  if (manner->rate)
    request_number (request, "rate", (int64_t) manner->rate);
  if (manner->force)
    request_bool (request, "force", true);
  if (!(c = client_open ())) {
    json_object_put (request);
    return status;
  }
  if (!manner->no_wait)
    signals_catch ();
  id = begin (c, request);
  if (id && manner->no_wait)
    status = printf ("job %" PRIu64 "\n", id) < 0 ? STATUS_FAILED : STATUS_DONE;
  else if (id)
    status = follow (c, id);
  client_close (c);
  return status;
}
