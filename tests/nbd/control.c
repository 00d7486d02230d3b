/* SPDX-License-Identifier: BSD-3-Clause
 *
 * control.c - a client of a server's control socket.
 */
#include <config.h>

#include "control.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "tests/scratch.h"

#include "dev.h"

enum { PATIENCE_MS = 120 * 1000 };

/* Those that were not forgotten. */
static json **replies;
static size_t nreplies;

char *
control_path (void)
{
  return run_path ("control");
}

char *
control_param (void)
{
  return str ("control=%s", control_path ());
}

int
control_open_at (const char *path)
{
  struct sockaddr_un address = { .sun_family = AF_UNIX };
  int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

  cr_assert_lt (strlen (path), sizeof address.sun_path);
  strcpy (address.sun_path, path);
  cr_assert_geq (fd, 0, "socket: %m");
  cr_assert_eq (connect (fd, (struct sockaddr *) &address, sizeof address), 0, "%s: %m", path);
  return fd;
}

int
control_open (void)
{
  return control_open_at (control_path ());
}

static void
send_line (int fd, const char *fmt, va_list args)
{
  char *line = str ("{'version': 1, %s}\n", vstr (fmt, args));
  size_t len = strlen (line);

  for (char *quote = line; (quote = strchr (quote, '\''));)
    *quote = '"';
  cr_assert_eq (send (fd, line, len, MSG_NOSIGNAL), (ssize_t) len, "%s: %m", line);
}

void
control_send (int fd, const char *fmt, ...)
{
  va_list args;

  va_start (args, fmt);
  send_line (fd, fmt, args);
  va_end (args);
}

/* One line, without its end. What came behind it stays in the socket. */
static char *
receive_line (int fd)
{
  struct pollfd pfd = { .fd = fd, .events = POLLIN };
  char *line = NULL, *newline = NULL;
  size_t len = 0;

  while (!newline) {
    ssize_t n;

    line = realloc (line, len + 65536);
    cr_assert_not_null (line);
    cr_assert_eq (poll (&pfd, 1, PATIENCE_MS), 1, "no reply");
    n = recv (fd, line + len, 65535, MSG_PEEK);
    cr_assert_gt (n, 0, "the server hangs up: %s", n ? strerror (errno) : "end of file");
    newline = memchr (line + len, '\n', (size_t) n);
    if (newline)
      n = newline + 1 - (line + len);
    cr_assert_eq (recv (fd, line + len, (size_t) n, 0), n);
    len += (size_t) n;
  }
  *newline = 0;
  return line;
}

json *
control_reply (int fd)
{
  char *line = receive_line (fd);
  json *reply = json_tokener_parse (line);

  cr_assert (reply && json_object_is_type (reply, json_type_object), "no object: %s", line);
  expect_uint (reply, "version", 1);
  free (line);
  replies = realloc (replies, (nreplies + 1) * sizeof (json *));
  cr_assert_not_null (replies);
  replies[nreplies++] = reply;
  return reply;
}

void
control_forget (void)
{
  while (nreplies > 0)
    json_object_put (replies[--nreplies]);
}

static bool
is_ok (json *reply)
{
  return json_object_get_boolean (member (reply, "ok"));
}

static json *
ask_ok (int fd, const char *fmt, va_list args)
{
  json *reply;

  send_line (fd, fmt, args);
  reply = control_reply (fd);
  cr_assert (is_ok (reply), "%s: %s", fmt, json_object_to_json_string (reply));
  return reply;
}

json *
control_ok (int fd, const char *fmt, ...)
{
  va_list args;
  json *reply;

  va_start (args, fmt);
  reply = ask_ok (fd, fmt, args);
  va_end (args);
  return reply;
}

const char *
control_error (int fd, const char *error, const char *fmt, ...)
{
  va_list args;
  json *reply;

  va_start (args, fmt);
  send_line (fd, fmt, args);
  va_end (args);
  reply = control_reply (fd);
  cr_assert (!is_ok (reply), "%s: must fail with %s: %s", fmt, error,
             json_object_to_json_string (reply));
  cr_assert_str_eq (member_str (reply, "errno"), error, "%s", json_object_to_json_string (reply));
  return member_str (reply, "error");
}

uint64_t
control_start (int fd, const char *fmt, ...)
{
  va_list args;
  json *reply;

  va_start (args, fmt);
  reply = ask_ok (fd, fmt, args);
  va_end (args);
  return member_uint (reply, "job");
}

json *
control_job (int fd, uint64_t job)
{
  return member (control_ok (fd, "'verb': 'wait', 'job': %" PRIu64 ", 'seconds': 0", job), "job");
}

json *
control_wait (int fd, uint64_t job, const char *state)
{
  json *info = member (
    control_ok (fd, "'verb': 'wait', 'job': %" PRIu64 ", 'seconds': %d", job, PATIENCE_MS / 2000),
    "job");

  expect_str (info, "state", state);
  return info;
}

json *
control_run (int fd, const char *state, const char *fmt, ...)
{
  va_list args;
  json *reply;

  va_start (args, fmt);
  reply = ask_ok (fd, fmt, args);
  va_end (args);
  return control_wait (fd, member_uint (reply, "job"), state);
}

json *
control_wait_moving (int fd, uint64_t job)
{
  json *info;

  /* There is no event for it. Each turn is a round trip, and gives the server the processor. */
  do
    info =
      member (control_ok (fd, "'verb': 'wait', 'job': %" PRIu64 ", 'seconds': 0.002", job), "job");
  while (member_uint (info, "done") == 0 && strcmp (member_str (info, "state"), "running") == 0);
  return info;
}

json *
control_status (int fd)
{
  return control_ok (fd, "'verb': 'status'");
}

/* NULL if it is not there. */
static json *
find_device (int fd, const char *path)
{
  json *devices = member (control_status (fd), "devices");

  for (size_t i = 0; i < json_object_array_length (devices); i++) {
    json *device = json_object_array_get_idx (devices, i);

    if (strcmp (member_str (device, "name"), path) == 0)
      return device;
  }
  return NULL;
}

json *
control_device (int fd, const char *path)
{
  json *device = find_device (fd, path);

  cr_assert_not_null (device, "%s is no device", path);
  return device;
}

void
control_expect_no_device (int fd, const char *path)
{
  cr_assert_null (find_device (fd, path), "%s is still a device", path);
}

json *
control_find_export (int fd, const char *name)
{
  json *exports = member (control_status (fd), "exports");

  for (size_t i = 0; i < json_object_array_length (exports); i++) {
    json *export = json_object_array_get_idx (exports, i);

    if (strcmp (member_str (export, "name"), name) == 0)
      return export;
  }
  return NULL;
}

json *
control_export_as (int fd, const char *name)
{
  json *export = control_find_export (fd, name);

  cr_assert_not_null (export, "there is no export \"%s\"", name);
  return export;
}

json *
control_export (int fd)
{
  return json_object_array_get_idx (member (control_status (fd), "exports"), 0);
}

json *
member (json *object, const char *names)
{
  char *name = str ("%s", names), *dot;
  json *at = object;

  do {
    dot = strchr (name, '.');
    if (dot)
      *dot = 0;
    cr_assert (json_object_object_get_ex (at, name, &at), "there is no %s in %s", names,
               json_object_to_json_string (object));
    name = dot + 1;
  } while (dot);
  return at;
}

uint64_t
member_uint (json *object, const char *names)
{
  json *value = member (object, names);

  cr_assert (json_object_is_type (value, json_type_int), "%s is no number: %s", names,
             json_object_to_json_string (value));
  return json_object_get_uint64 (value);
}

const char *
member_str (json *object, const char *names)
{
  json *value = member (object, names);

  cr_assert (json_object_is_type (value, json_type_string), "%s is no text: %s", names,
             json_object_to_json_string (value));
  return json_object_get_string (value);
}

void
expect_uint (json *object, const char *names, uint64_t value)
{
  cr_assert_eq (member_uint (object, names), value, "%s must be %" PRIu64 ": %s", names, value,
                json_object_to_json_string (object));
}

void
expect_str (json *object, const char *names, const char *value)
{
  cr_assert_str_eq (member_str (object, names), value, "%s must be %s: %s", names, value,
                    json_object_to_json_string (object));
}
