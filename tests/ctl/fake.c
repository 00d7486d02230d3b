/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "fake.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/scratch.h"

#include "run.h"

enum { MAX_REPLIES = 64, MAX_REQUEST = 65536 };

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static const struct fake_reply *replies;
static bool used[MAX_REPLIES], cancelled;
static char *requests;
static int listener;

const char *
fake_socket (void)
{
  return scratch_path ("ctl");
}

static void
record (const char *line)
{
  size_t before = requests ? strlen (requests) : 0;

  pthread_mutex_lock (&mutex);
  requests = realloc (requests, before + strlen (line) + 2);
  sprintf (requests + before, "%s\n", line);
  pthread_mutex_unlock (&mutex);
}

char *
fake_requests (void)
{
  char *copy;

  pthread_mutex_lock (&mutex);
  copy = str ("%s", requests ? requests : "");
  pthread_mutex_unlock (&mutex);
  return copy;
}

void
fake_expect_request (const char *const *args, const char *request)
{
  char *before = fake_requests (), *line;
  struct result r = run_drumctl (args);

  cr_assert_eq (r.status, 0, "%s: %s", args[0], r.err);
  line = fake_requests () + strlen (before);
  *strchr (line, '\n') = '\0';
  cr_assert_str_eq (line, str ("{\"version\":1,%s}", request));
}

static const struct fake_reply *
choose (const char *line)
{
  for (unsigned i = 0; replies[i].text; i++) {
    const struct fake_reply *r = &replies[i];
    char verb[64];

    snprintf (verb, sizeof verb, "\"verb\":\"%s\"", r->verb ? r->verb : "");
    if ((r->verb && !strstr (line, verb)) || used[i] || (r->cancelled && !cancelled))
      continue;
    used[i] = r->once;
    return r;
  }
  return NULL;
}

static bool
send_all (int fd, const char *text, size_t len)
{
  for (ssize_t n; len; text += n, len -= (size_t) n)
    if ((n = send (fd, text, len, MSG_NOSIGNAL)) <= 0)
      return false;
  return true;
}

/* False: that was the end of the connection. */
static bool
answer (int fd, const char *line)
{
  const struct fake_reply *r;

  record (line);
  r = choose (line);
  if (strstr (line, "\"verb\":\"cancel\""))
    cancelled = true;
  if (!r)
    return false;
  usleep (r->delay_ms * 1000);
  if (r->text == FAKE_SILENCE)
    return true;
  return send_all (fd, r->text, strlen (r->text)) && !r->hangs_up && send_all (fd, "\n", 1);
}

/* drumctl asks one thing after the other, so what comes is one line or a part of one. */
static void
serve (int fd)
{
  static char line[MAX_REQUEST];
  size_t len = 0;
  ssize_t n;

  if (replies[0].greets) {
    send_all (fd, replies[0].text, strlen (replies[0].text));
    close (fd);
    return;
  }
  while ((n = recv (fd, line + len, sizeof line - len - 1, 0)) > 0) {
    len += (size_t) n;
    line[len] = '\0';
    if (line[len - 1] != '\n')
      continue;
    line[len - 1] = '\0';
    len = 0;
    if (!answer (fd, line))
      break;
  }
  close (fd);
}

static void *
serve_all (void *unused)
{
  (void) unused;
  for (;;) {
    int fd = accept4 (listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd != -1)
      serve (fd);
  }
  return NULL;
}

void
fake_start (const struct fake_reply *table)
{
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  pthread_t thread;

  replies = table;
  strcpy (addr.sun_path, fake_socket ());
  listener = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  cr_assert_eq (bind (listener, (struct sockaddr *) &addr, sizeof addr), 0, "bind: %m");
  cr_assert_eq (listen (listener, 8), 0);
  setenv ("DRUM_CONTROL", addr.sun_path, 1);
  cr_assert_eq (pthread_create (&thread, NULL, serve_all, NULL), 0);
}

char *
fake_canned (const char *name)
{
  size_t len;
  char *text = (char *) file_contents (str (SOURCE_DIR "/%s", name), &len);

  for (char *at = text; at < text + len; at++)
    if (*at == '\n')
      *at = ' ';
  return text;
}

void
fake_setup (void)
{
  static struct fake_reply canned[3];

  setup ();
  canned[0] = (struct fake_reply){ "status", .text = fake_canned ("status.json") };
  canned[1] = (struct fake_reply){ "map", .text = fake_canned ("map.json") };
  fake_start (canned);
}
