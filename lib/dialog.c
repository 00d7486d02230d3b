/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "dialog.h"

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NS_PER_MS = 1000000, NS_PER_SECOND = 1000000000, MAX_WAIT_MS = 1000 };

struct dialog {
  control_handler *handler;
  void *opaque;
  enum dialog_state state;
  uint64_t since_ns; /* the last reply, or a part of it; the begin of a request; the begin of all */
  bool last;         /* it is over when the reply is sent */
  bool no_more;      /* there is nothing more to receive */

  struct json_object *request; /* deferred, or NULL */
  uint64_t asked_ns, due_ns;   /* when it was asked first, when it must be asked again */

  char *reply; /* a line, or NULL */
  size_t reply_bytes, sent_bytes;

  size_t received_bytes; /* and not yet used */
  char received[CONTROL_MAX_REQUEST];
};

struct dialog *
dialog_create (control_handler *handler, void *opaque, uint64_t now_ns)
{
  struct dialog *d = malloc (sizeof *d);

  if (!d)
    return NULL;
  memset (d, 0, offsetof (struct dialog, received));
  d->handler = handler;
  d->opaque = opaque;
  d->since_ns = now_ns;
  return d;
}

void
dialog_free (struct dialog *d)
{
  json_object_put (d->request);
  free (d->reply);
  free (d);
}

enum dialog_state
dialog_state (const struct dialog *d)
{
  return d->state;
}

/* A line of it, the caller's; NULL: out of memory. */
static char *
to_line (struct json_object *object, size_t *len)
{
  const char *text;
  char *line;

  /* json-c leaves out what it has no memory for; malloc's errno is all that tells. */
  errno = 0;
  text = json_object_to_json_string_length (object, JSON_C_TO_STRING_NOSLASHESCAPE, len);
  if (!text || errno == ENOMEM)
    return NULL;
  line = malloc (*len + 1);
  if (!line)
    return NULL;
  memcpy (line, text, *len);
  line[(*len)++] = '\n';
  return line;
}

/* True if value, which is object's from now on, was added; false also if it is NULL. */
static bool
add (struct json_object *object, const char *key, struct json_object *value)
{
  if (value && json_object_object_add (object, key, value) == 0)
    return true;
  json_object_put (value);
  return false;
}

static struct json_object *
new_reply (void)
{
  struct json_object *reply = json_object_new_object ();

  if (reply && add (reply, "version", json_object_new_int (CONTROL_VERSION)) &&
      add (reply, "ok", json_object_new_boolean (true)))
    return reply;
  json_object_put (reply);
  return NULL;
}

/* Make it one of an error, whatever else it says. */
static bool
make_error (struct json_object *reply, int err)
{
  const char *name = strerrorname_np (err);

  if (!add (reply, "ok", json_object_new_boolean (false)))
    return false;
  if (!json_object_object_get_ex (reply, "error", NULL) &&
      !add (reply, "error", json_object_new_string (strerror (err))))
    return false;
  return add (reply, "errno", json_object_new_string (name ? name : "EIO"));
}

/* What is next? */
static void
settle (struct dialog *d)
{
  if (d->reply)
    d->state = DIALOG_SENDING;
  else if (d->last)
    d->state = DIALOG_OVER;
  else if (d->request)
    d->state = DIALOG_DEFERRED;
  else if (memchr (d->received, '\n', d->received_bytes))
    d->state = DIALOG_READY;
  else if (d->received_bytes == sizeof d->received)
    dialog_refuse (d, EMSGSIZE, "a request is one line of at most 65536 bytes: this one is longer");
  else
    d->state = d->no_more ? DIALOG_OVER : DIALOG_RECEIVING;
}

/* The reply takes the place of what it answers. complete: it is all there. */
static void
answer (struct dialog *d, struct json_object *reply, bool complete)
{
  json_object_put (d->request);
  d->request = NULL;
  d->reply = complete ? to_line (reply, &d->reply_bytes) : NULL;
  d->sent_bytes = 0;
  if (!d->reply)
    d->last = true;
}

static void
answer_error (struct dialog *d, int err, const char *why)
{
  struct json_object *reply = new_reply ();

  answer (d, reply,
          reply && add (reply, "error", json_object_new_string (why)) && make_error (reply, err));
  json_object_put (reply);
}

void
dialog_refuse (struct dialog *d, int err, const char *why)
{
  d->last = true;
  answer_error (d, err, why);
  settle (d);
}

/* How long ago d->request was asked first; 0 is for the first time only. */
static unsigned
waited_ms (const struct dialog *d, uint64_t now_ns)
{
  uint64_t ms = (now_ns - d->asked_ns) / NS_PER_MS;

  if (ms == 0)
    return 1;
  return ms < UINT_MAX ? (unsigned) ms : UINT_MAX;
}

/* Ask the handler for an answer to d->request. */
static void
ask (struct dialog *d, unsigned waited, uint64_t now_ns)
{
  struct json_object *reply = new_reply ();
  unsigned wait_ms = MAX_WAIT_MS;
  int ret = -ENOMEM;

  if (reply)
    ret = d->handler (d->opaque, d->request, waited, reply, &wait_ms);
  if (ret == -EAGAIN)
    d->due_ns = now_ns + (wait_ms ? wait_ms : 1) * (uint64_t) NS_PER_MS;
  else
    answer (d, reply, reply && (ret == 0 || make_error (reply, -ret)));
  json_object_put (reply);
}

/* What is wrong with what was parsed, of a line of len bytes? NULL: nothing. */
static const char *
find_fault (struct json_tokener *tok, struct json_object *object, size_t len)
{
  enum json_tokener_error err = json_tokener_get_error (tok);

  if (err == json_tokener_continue)
    return "it has no end";
  if (err != json_tokener_success)
    return json_tokener_error_desc (err);
  if (!json_object_is_type (object, json_type_object))
    return "it is something else";
  return json_tokener_get_parse_end (tok) == len ? NULL : "something follows it";
}

/* d->request is the line from here on, or an error is the answer. False: out of memory. */
static bool
parse (struct dialog *d, const char *line, size_t len)
{
  /* One deeper, for what is in the innermost. */
  struct json_tokener *tok = json_tokener_new_ex (CONTROL_MAX_DEPTH + 1);
  const char *fault;
  char why[256];

  if (!tok)
    return false;
  json_tokener_set_flags (tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
  d->request = json_tokener_parse_ex (tok, line, (int) len);
  fault = find_fault (tok, d->request, len);
  json_tokener_free (tok);
  if (fault) {
    snprintf (why, sizeof why, "a request is a JSON object on one line: %s", fault);
    answer_error (d, EINVAL, why);
  }
  return true;
}

static bool
has_right_version (struct json_object *request)
{
  struct json_object *version = NULL;

  return json_object_object_get_ex (request, "version", &version) &&
         json_object_is_type (version, json_type_int) &&
         json_object_get_int64 (version) == CONTROL_VERSION;
}

/* Take the first line out of what was received, and ask for its answer. */
static void
take_line (struct dialog *d, uint64_t now_ns)
{
  const char *newline = memchr (d->received, '\n', d->received_bytes);
  size_t len = (size_t) (newline - d->received);

  if (!parse (d, d->received, len))
    d->last = true;
  d->received_bytes -= len + 1;
  memmove (d->received, newline + 1, d->received_bytes);

  if (d->request && !has_right_version (d->request))
    answer_error (d, EPROTONOSUPPORT,
                  "this server speaks version 1 of the protocol: a request says \"version\": 1");
  if (!d->request)
    return;
  d->asked_ns = now_ns;
  ask (d, 0, now_ns);
}

uint64_t
dialog_due_ns (const struct dialog *d)
{
  bool silent = d->state == DIALOG_SENDING || d->received_bytes > 0;

  if (d->state == DIALOG_READY || d->state == DIALOG_OVER)
    return 0;
  if (d->state == DIALOG_DEFERRED)
    return d->due_ns;
  return d->since_ns +
         (silent ? CONTROL_SILENT_SECONDS : CONTROL_IDLE_SECONDS) * (uint64_t) NS_PER_SECOND;
}

void
dialog_turn (struct dialog *d, bool woken, uint64_t now_ns)
{
  bool due = now_ns >= dialog_due_ns (d);

  if (d->state == DIALOG_READY)
    take_line (d, now_ns);
  else if (d->state == DIALOG_DEFERRED && (woken || due))
    ask (d, waited_ms (d, now_ns), now_ns);
  else if (due)
    dialog_end (d);
  else
    return;
  if (d->reply)
    d->since_ns = now_ns;
  settle (d);
}

void
dialog_end (struct dialog *d)
{
  free (d->reply);
  d->reply = NULL;
  d->last = true;
  settle (d);
}

size_t
dialog_room (struct dialog *d, char **room)
{
  *room = d->received + d->received_bytes;
  return sizeof d->received - d->received_bytes;
}

void
dialog_received (struct dialog *d, size_t n, uint64_t now_ns)
{
  if (d->received_bytes == 0)
    d->since_ns = now_ns;
  d->received_bytes += n;
  d->no_more = n == 0;
  settle (d);
  if (d->reply) /* to what is too long */
    d->since_ns = now_ns;
}

size_t
dialog_reply (const struct dialog *d, const char **bytes)
{
  *bytes = d->reply + d->sent_bytes;
  return d->reply_bytes - d->sent_bytes;
}

void
dialog_sent (struct dialog *d, size_t n, uint64_t now_ns)
{
  d->since_ns = now_ns;
  d->sent_bytes += n;
  if (d->sent_bytes < d->reply_bytes)
    return;
  free (d->reply);
  d->reply = NULL;
  settle (d);
}
