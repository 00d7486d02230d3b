/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "client.h"

#include <ctype.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/control.h"
#include "lib/log.h"
#include "lib/utf8.h"

#include "options.h"
#include "signals.h"
#include "text.h"

enum { READ_BYTES = 65536, MAX_REPLY_BYTES = 64 << 20 };

struct client {
  int fd;
  const char *path;
  char *buf; /* what has come, and belongs to the next reply */
  size_t len, room;
};

static bool
is_socket (const char *path)
{
  struct stat st;

  return stat (path, &st) == -1 || S_ISSOCK (st.st_mode);
}

/* Why nobody answers, and what to do. */
static void
explain (const char *path, int err)
{
  if (err == ENOENT)
    log_error ("%s: there is no such socket; is the server running, with control=%s?", path, path);
  else if (err == ECONNREFUSED && !is_socket (path))
    log_error ("%s: is not a socket; name the server's control=", path);
  else if (err == ECONNREFUSED)
    log_error ("%s: nobody listens there any more; start the server again", path);
  else if (err == EACCES || err == EPERM)
    log_error ("%s: no permission; be root, or the server's user", path);
  else if (err == EAGAIN)
    log_error ("%s: the server does not answer; --timeout has it wait longer", path);
  else if (err == EPROTOTYPE)
    log_error ("%s: is another kind of socket; name the server's control=", path);
  else
    log_error ("%s: %s", path, strerror (err));
}

static bool
make_address (const char *path, struct sockaddr_un *addr)
{
  *addr = (struct sockaddr_un){ .sun_family = AF_UNIX };
  if (!path || !*path) {
    log_error (
      "no server named: give -s SOCKET, or set DRUM_CONTROL, to what it was started with as "
      "control=");
    return false;
  }
  if (strlen (path) >= sizeof addr->sun_path) {
    log_error (
      "%s: is longer than the %zu bytes that a socket's path may have; go nearer, and name it "
      "by a relative path",
      path, sizeof addr->sun_path - 1);
    return false;
  }
  strcpy (addr->sun_path, path);
  return true;
}

/* Also for connect, which waits where too many others do. */
static void
set_timeout (int fd, double seconds)
{
  struct timeval tv = { .tv_sec = (time_t) seconds };

  tv.tv_usec = (suseconds_t) ((seconds - (double) tv.tv_sec) * 1e6);
  setsockopt (fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
  setsockopt (fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
}

/* An interrupted call is made again, unless the user wants to go. */
static bool
go_on (void)
{
  return errno == EINTR && !signals_leave_now ();
}

struct client *
client_open (void)
{
  const char *path = options_socket ();
  struct sockaddr_un addr;
  struct client *c;

  if (!make_address (path, &addr))
    return NULL;
  c = need (calloc (1, sizeof *c));
  c->path = path;
  c->fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c->fd != -1) {
    set_timeout (c->fd, options_timeout ());
    do
      if (connect (c->fd, (struct sockaddr *) &addr, sizeof addr) == 0)
        return c;
    while (go_on ());
  }
  if (errno != EINTR)
    explain (path, errno);
  client_close (c);
  return NULL;
}

void
client_close (struct client *c)
{
  if (!c)
    return;
  if (c->fd != -1)
    close (c->fd);
  free (c->buf);
  free (c);
}

void
client_set_timeout (struct client *c, double seconds)
{
  set_timeout (c->fd, seconds);
}

struct json_object *
request_new (const char *verb)
{
  struct json_object *request = need (json_object_new_object ());

  request_number (request, "version", CONTROL_VERSION);
  request_text (request, "verb", verb);
  return request;
}

void
request_text (struct json_object *request, const char *key, const char *value)
{
  json_object_object_add (request, key, need (json_object_new_string (value)));
}

void
request_number (struct json_object *request, const char *key, int64_t value)
{
  json_object_object_add (request, key, need (json_object_new_int64 (value)));
}

void
request_seconds (struct json_object *request, const char *key, double value)
{
  struct json_object *number = need (json_object_new_double (value));

  json_object_set_serializer (number, json_object_double_to_json_string, (void *) "%.3g", NULL);
  json_object_object_add (request, key, number);
}

void
request_bool (struct json_object *request, const char *key, bool value)
{
  json_object_object_add (request, key, need (json_object_new_boolean (value)));
}

/* A server that has hung up may have said why before: that is for read_line to find. */
static bool
send_line (struct client *c, const char *line, size_t len)
{
  while (len) {
    ssize_t n = send (c->fd, line, len, MSG_NOSIGNAL);

    if (n == -1) {
      if (go_on ())
        continue;
      if (errno == EPIPE)
        return true;
      if (errno != EINTR)
        explain (c->path, errno);
      return false;
    }
    line += n;
    len -= (size_t) n;
  }
  return true;
}

static bool
make_room (struct client *c)
{
  if (c->len + READ_BYTES <= c->room)
    return true;
  if (c->room >= MAX_REPLY_BYTES) {
    log_error ("%s: the reply has no end; is this the control socket of a drum?", c->path);
    return false;
  }
  c->room = c->room ? 2 * c->room : READ_BYTES;
  c->buf = need (realloc (c->buf, c->room));
  return true;
}

/* The length of a line at the beginning of buf, its newline included; 0, and said why. */
static size_t
read_line (struct client *c)
{
  for (size_t seen = 0;;) {
    char *newline = c->len > seen ? memchr (c->buf + seen, '\n', c->len - seen) : NULL;
    ssize_t n;

    if (newline)
      return (size_t) (newline - c->buf) + 1;
    seen = c->len;
    if (!make_room (c))
      return 0;
    n = recv (c->fd, c->buf + c->len, c->room - c->len, 0);
    if (n > 0) {
      c->len += (size_t) n;
      continue;
    }
    if (n == -1 && go_on ())
      continue;
    if (n == 0 || errno == ECONNRESET)
      log_error ("%s: the server has hung up%s", c->path,
                 c->len ? " in the middle of a reply" : "");
    else if (errno != EINTR)
      explain (c->path, errno);
    return 0;
  }
}

/* The object that is all of the line; else NULL. */
static struct json_object *
parse_line (const char *line, size_t len)
{
  struct json_tokener *tok = need (json_tokener_new ());
  struct json_object *reply;

  while (len && isspace ((unsigned char) line[len - 1]))
    len--;
  json_tokener_set_flags (tok, JSON_TOKENER_STRICT);
  reply = json_tokener_parse_ex (tok, line, (int) len);
  if (json_tokener_get_error (tok) != json_tokener_success ||
      !json_object_is_type (reply, json_type_object)) {
    json_object_put (reply);
    reply = NULL;
  }
  json_tokener_free (tok);
  return reply;
}

static struct json_object *
get (struct json_object *object, const char *key, enum json_type type)
{
  struct json_object *value = json_object_object_get (object, key);

  return json_object_is_type (value, type) ? value : NULL;
}

static void
print_warnings (struct json_object *reply)
{
  struct json_object *warnings = get (reply, "warnings", json_type_array);

  for (size_t i = 0; warnings && i < json_object_array_length (warnings); i++)
    text_each_line (json_object_get_string (json_object_array_get_idx (warnings, i)), log_warning);
}

/* In the words of all servers so far; their errno says less. */
static bool
is_unknown_verb (const char *error, const char *verb)
{
  char *text = text_format ("%s: there is no such verb", verb);
  bool is = strcmp (error, text) == 0;

  free (text);
  return is;
}

static void
explain_error (const struct client *c, struct json_object *request, const char *error)
{
  const char *verb = json_object_get_string (json_object_object_get (request, "verb"));

  if (is_unknown_verb (error, verb))
    log_error ("%s: the server does not know %s; it is older than this drumctl", c->path, verb);
  else
    text_each_line (error, log_error);
}

/* Is it one that says ok? If not, say why. */
static bool
check_reply (const struct client *c, struct json_object *request, struct json_object *reply)
{
  struct json_object *version = get (reply, "version", json_type_int);
  struct json_object *ok = get (reply, "ok", json_type_boolean);
  struct json_object *error = get (reply, "error", json_type_string);

  if (!version || !ok || (!json_object_get_boolean (ok) && !error)) {
    log_error ("%s: the reply makes no sense; is this the control socket of a drum?", c->path);
    return false;
  }
  if (json_object_get_int (version) != CONTROL_VERSION) {
    log_error (
      "%s: the server speaks version %d of the protocol, and this drumctl version %d; use the "
      "drumctl that came with it",
      c->path, json_object_get_int (version), CONTROL_VERSION);
    return false;
  }
  print_warnings (reply);
  if (!json_object_get_boolean (ok))
    explain_error (c, request, json_object_get_string (error));
  return json_object_get_boolean (ok);
}

/* What a user has named may be anything; JSON can carry UTF-8 only. */
static bool
is_utf8 (struct json_object *request)
{
  json_object_object_foreach (request, key, value)
  {
    const char *text =
      json_object_is_type (value, json_type_string) ? json_object_get_string (value) : "";
    char *printable;

    (void) key;
    if (utf8_is_valid (text))
      continue;
    printable = text_printable (text);
    log_error ("%s: is not UTF-8: write it in UTF-8", printable);
    free (printable);
    return false;
  }
  return true;
}

static bool
send_request (struct client *c, struct json_object *request)
{
  const char *text = json_object_to_json_string_ext (request, JSON_C_TO_STRING_PLAIN |
                                                                JSON_C_TO_STRING_NOSLASHESCAPE);
  size_t len = strlen (text);
  char *line = need (malloc (len + 2));
  bool sent;

  memcpy (line, text, len);
  memcpy (line + len, "\n", 2);
  sent = send_line (c, line, len + 1);
  free (line);
  return sent;
}

struct json_object *
client_ask (struct client *c, struct json_object *request)
{
  bool sent = is_utf8 (request) && send_request (c, request);
  size_t len = sent ? read_line (c) : 0;
  struct json_object *reply = NULL;

  if (len) {
    reply = parse_line (c->buf, len);
    c->len -= len;
    memmove (c->buf, c->buf + len, c->len);
    if (!reply)
      log_error ("%s: the reply is no JSON; is this the control socket of a drum?", c->path);
    else if (!check_reply (c, request, reply)) {
      json_object_put (reply);
      reply = NULL;
    }
  }
  json_object_put (request);
  return reply;
}

bool
client_wait_end (struct client *c)
{
  ssize_t n;
  char byte;

  while ((n = recv (c->fd, &byte, 1, 0)) == -1 && go_on ())
    ;
  if (n == 0 || (n == -1 && errno == ECONNRESET))
    return true;
  if (n == -1 && errno == EINTR)
    return false;
  log_error ("%s: the server serves no more, and should have ended, but has not: kill it", c->path);
  return false;
}

struct json_object *
ask_once (struct json_object *request)
{
  struct client *c = client_open ();
  struct json_object *reply = c ? client_ask (c, request) : NULL;

  if (!c)
    json_object_put (request);
  client_close (c);
  return reply;
}
