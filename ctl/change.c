/* SPDX-License-Identifier: BSD-3-Clause
 *
 * change.c - the verbs that change devices and the drum: add, remove, rebalance, scrub, priority, maxio, shutdown; cancel and wait.
 */
#include <config.h>

#include <json-c/json.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lib/log.h"
#include "lib/parse.h"
#include "lib/swapdev.h"

#include "client.h"
#include "drumctl.h"
#include "fields.h"
#include "follow.h"
#include "options.h"
#include "perform.h"
#include "text.h"

#define RATE_OPTION(m)                                                            \
  {                                                                               \
    'r', "rate", "RATE", option_size, &(m).rate, "at most so much a second: 100M" \
  }

/* Devices are named by absolute paths. */
static bool
request_path (struct json_object *request, const char *path)
{
  char *cwd, *absolute;

  if (!*path) {
    log_error ("the path of a device is empty");
    return false;
  }
  if (*path == '/') {
    request_text (request, "device", path);
    return true;
  }
  if (!(cwd = getcwd (NULL, 0))) {
    log_error ("%s: the current folder has no name any more: give an absolute path", path);
    return false;
  }
  absolute = text_format ("%s/%s", strcmp (cwd, "/") == 0 ? "" : cwd, path);
  request_text (request, "device", absolute);
  free (absolute);
  free (cwd);
  return true;
}

enum { NO_PRIO = INT_MIN };

/* Seconds: what a server takes at most for a shutdown, and how much longer its answer, or its end, may take. */
enum { MAX_SHUTDOWN = 3600, GRACE = 10 };

/* --prio and --size say the same as prio= and size=, and more than the default. */
static bool
merge (struct swapdev_spec *spec, const char *text, int prio, uint64_t size)
{
  if (parse_device (text, spec) < 0)
    return false;
  if ((prio != NO_PRIO && spec->prio != SWAP_PRIO_DEFAULT) || (size && spec->create_bytes)) {
    log_error ("%s: say it once: %s", text,
               size && spec->create_bytes ? "size= or --size" : "prio= or --prio");
    free ((char *) spec->path);
    return false;
  }
  if (prio != NO_PRIO)
    spec->prio = prio;
  if (size)
    spec->create_bytes = size;
  return true;
}

static int
run_add (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .force = false };
  struct swapdev_spec spec;
  struct json_object *request;
  int prio = NO_PRIO, status;
  uint64_t size = 0;
  const struct option_spec options[] = {
    { 'p', "prio", "PRIO", option_prio, &prio, "priority, -1 to 32767; higher is used first (-1)" },
    { 0, "size", "SIZE", option_size, &size, "create a file of this size" },
    { 'f', "force", NULL, option_switch, &manner.force, "take it even if it carries other data" },
    NO_WAIT_OPTION (manner),
    { 0 },
  };

  status = options_parse (self, options, 1, 1, &argc, &argv);
  if (status >= 0)
    return status;
  if (!merge (&spec, argv[0], prio, size))
    return STATUS_USAGE;
  request = request_new ("add");
  if (!request_path (request, spec.path)) {
    json_object_put (request);
    free ((char *) spec.path);
    return STATUS_USAGE;
  }
  free ((char *) spec.path);
  request_number (request, "prio", spec.prio);
  if (spec.create_bytes)
    request_number (request, "size", (int64_t) spec.create_bytes);
  if (spec.maxio)
    request_number (request, "maxio", spec.maxio);
  return perform_job (request, &manner);
}

static void
add_help (FILE *out)
{
  fputs ("\nDEVICE is PATH[,prio=N][,size=SIZE][,maxio=N]; a comma in PATH is written ,,\n", out);
}

const struct verb verb_add = {
  .name = "add",
  .operands = "DEVICE",
  .summary = "Add a file or block device to the drum.",
  .more = add_help,
  .run = run_add,
};

static int
run_remove (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .force = false };
  struct json_object *request;
  const struct option_spec options[] = {
    RATE_OPTION (manner),
    { 'f', "force", NULL, option_switch, &manner.force, "give up pages that can't be read" },
    NO_WAIT_OPTION (manner),
    { 0 },
  };
  int status = options_parse (self, options, 1, 1, &argc, &argv);

  if (status >= 0)
    return status;
  request = request_new ("remove");
  if (request_path (request, argv[0]))
    return perform_job (request, &manner);
  json_object_put (request);
  return STATUS_USAGE;
}

const struct verb verb_remove = {
  .name = "remove",
  .operands = "PATH",
  .summary = "Move all pages off a device, and take it out of the drum.",
  .run = run_remove,
};

static int
run_rebalance (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .force = false };
  const struct option_spec options[] = { RATE_OPTION (manner), NO_WAIT_OPTION (manner), { 0 } };
  int status = options_parse (self, options, 0, 0, &argc, &argv);

  return status >= 0 ? status : perform_job (request_new ("rebalance"), &manner);
}

const struct verb verb_rebalance = {
  .name = "rebalance",
  .summary = "Move pages to where they would be put now: the highest priority, by turns.",
  .run = run_rebalance,
};

static int
run_scrub (const struct verb *self, int argc, char **argv)
{
  struct manner manner = { .force = false };
  const struct option_spec options[] = { RATE_OPTION (manner), NO_WAIT_OPTION (manner), { 0 } };
  struct json_object *request;
  int status = options_parse (self, options, 0, 1, &argc, &argv);

  if (status >= 0)
    return status;
  request = request_new ("scrub");
  if (argc == 0 || request_path (request, argv[0]))
    return perform_job (request, &manner);
  json_object_put (request);
  return STATUS_USAGE;
}

const struct verb verb_scrub = {
  .name = "scrub",
  .operands = "[PATH]",
  .summary = "Read all pages, or those on one device, and tell which can't be read.",
  .run = run_scrub,
};

/* The verb whose operands are a device and a number, which the server knows as key. */
static int
run_set (const struct verb *self, int argc, char **argv, const char *key,
         int (*set) (const char *name, const char *text, void *value))
{
  const struct option_spec options[] = { { 0 } };
  struct json_object *request;
  int value, status = options_parse (self, options, 2, 2, &argc, &argv);

  if (status >= 0)
    return status;
  if (set (argv[0], argv[1], &value) < 0)
    return STATUS_USAGE;
  request = request_new (self->name);
  request_number (request, key, value);
  if (request_path (request, argv[0]))
    return perform (request);
  json_object_put (request);
  return STATUS_USAGE;
}

static int
run_priority (const struct verb *self, int argc, char **argv)
{
  return run_set (self, argc, argv, "prio", option_prio);
}

const struct verb verb_priority = {
  .name = "priority",
  .operands = "PATH PRIO",
  .summary = "Change a device's priority, -1 to 32767; pages stay where they are.",
  .ordered = true,
  .run = run_priority,
};

static int
run_maxio (const struct verb *self, int argc, char **argv)
{
  return run_set (self, argc, argv, "maxio", option_maxio);
}

const struct verb verb_maxio = {
  .name = "maxio",
  .operands = "PATH N",
  .summary = "Change how many requests a device gets at once, 1 to 65535; 0 is no limit.",
  .ordered = true,
  .run = run_maxio,
};

/* It closes its files, and so gives back its devices, in any order, and last of all it is gone. Elsewhere (in a container) its
 * number may be somebody else's, for whom we do not wait for ever. */
static void
wait_gone (int64_t pid)
{
  struct pollfd pfd = { .fd = (int) syscall (SYS_pidfd_open, (pid_t) pid, 0), .events = POLLIN };

  if (pfd.fd == -1)
    return;
  poll (&pfd, 1, GRACE * 1000);
  close (pfd.fd);
}

/* It is the server that gives up after so long, and says why: we wait for that, and then for the process to be gone. */
static int
run_shutdown (const struct verb *self, int argc, char **argv)
{
  bool force = false;
  struct json_object *request, *reply;
  const struct option_spec options[] = {
    { 'f', "force", NULL, option_switch, &force, "even if clients, or their pages, are lost" },
    { 0 },
  };
  int status = options_parse (self, options, 0, 0, &argc, &argv);
  double seconds = options_timeout ();
  struct client *c;

  if (status >= 0)
    return status;
  if (!(c = client_open ()))
    return STATUS_FAILED;
  request = request_new ("shutdown");
  request_seconds (request, "seconds", seconds < MAX_SHUTDOWN ? seconds : MAX_SHUTDOWN);
  if (force)
    request_bool (request, "force", true);
  client_set_timeout (c, seconds + GRACE);
  reply = client_ask (c, request);
  status = reply && client_wait_end (c) ? STATUS_DONE : STATUS_FAILED;
  if (status == STATUS_DONE) {
    wait_gone ((int64_t) field_number (reply, "pid"));
    puts ("the drum: shut down");
  }
  json_object_put (reply);
  client_close (c);
  return status;
}

static void
shutdown_help (FILE *out)
{
  fputs ("\nRequests that take longer than --timeout to end leave the server as it is.\n", out);
}

const struct verb verb_shutdown = {
  .name = "shutdown",
  .summary = "End the server without an error for its clients, which wait for its return.",
  .more = shutdown_help,
  .run = run_shutdown,
};

static int
parse_job (const char *text, int *job)
{
  return parse_int ("job", text, 1, INT_MAX, job);
}

static int
run_cancel (const struct verb *self, int argc, char **argv)
{
  const struct option_spec options[] = { { 0 } };
  struct json_object *request;
  int job, status = options_parse (self, options, 1, 1, &argc, &argv);

  if (status >= 0)
    return status;
  if (parse_job (argv[0], &job) < 0)
    return STATUS_USAGE;
  request = request_new ("cancel");
  request_number (request, "job", job);
  return perform (request);
}

const struct verb verb_cancel = {
  .name = "cancel",
  .operands = "JOB",
  .summary = "Ask a job to stop; \"drumctl wait\" tells when it has.",
  .run = run_cancel,
};

/* The job is somebody else's: who does not want to wait any more just leaves. */
static int
run_wait (const struct verb *self, int argc, char **argv)
{
  const struct option_spec options[] = { { 0 } };
  int job, status = options_parse (self, options, 1, 1, &argc, &argv);
  struct client *c;

  if (status >= 0)
    return status;
  if (parse_job (argv[0], &job) < 0)
    return STATUS_USAGE;
  if (!(c = client_open ()))
    return STATUS_FAILED;
  status = follow (c, (uint64_t) job);
  client_close (c);
  return status;
}

const struct verb verb_wait = {
  .name = "wait",
  .operands = "JOB",
  .summary = "Show how far a job is until it ends; Ctrl-C leaves it alone.",
  .run = run_wait,
};
