/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "follow.h"

#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"

#include "client.h"
#include "drumctl.h"
#include "options.h"
#include "progress.h"
#include "signals.h"
#include "snapshot.h"
#include "terminal.h"
#include "text.h"

/* How long a server is asked to wait: at first hardly, so that what is done at once is said at once. */
static const double first_seconds = 0.1, terminal_seconds = 0.25, plain_seconds = 1;

static bool
is_kind (const struct job *job, const char *kind)
{
  return strcmp (job->kind, kind) == 0;
}

static bool
is_state (const struct job *job, const char *state)
{
  return strcmp (job->state, state) == 0;
}

static void
print_done (const struct job *job, const char *name)
{
  char done[16], duration[TEXT_NUMBER], rate[TEXT_NUMBER];
  const struct job_words *words = job_words (job);

  if (is_kind (job, "add")) {
    printf ("%s: added\n", name);
    return;
  }
  printf ("%s: %s", name, words->done);
  format_bytes (job->done, done);
  if (job->done && job->seconds >= 1)
    printf (", %s %s in %s, %s", done, words->bytes_done, text_duration (job->seconds, duration),
            text_rate ((double) job->done / job->seconds, rate));
  else if (job->done)
    printf (", %s %s", done, words->bytes_done);
  putchar ('\n');
}

/* Where that leaves the device that was to go. */
static void
print_state (struct client *c, const struct job *job, const char *name)
{
  struct snapshot *snap = snapshot_ask (c, false);
  const struct device *d;
  char used[16], *state;

  if (!snap)
    return;
  if (!(d = snapshot_device (snap, job->device)))
    log_error ("%s: is not a device of this drum", name);
  else {
    state = text_printable (d->state);
    log_error ("%s: is %s now, with %s on it%s", name, state, format_bytes (d->room.used, used),
               strcmp (d->state, "closed") == 0
                 ? "; remove it again, with or without --force, or add it back"
                 : "");
    free (state);
  }
  snapshot_free (snap);
}

static void
print_unreadable (const struct job *job, const char *name)
{
  for (unsigned i = 0; i < job->nlisted; i++) {
    char *export = text_printable (text_export (job->listed[i].export));

    log_warning ("%s: page %" PRIu64 " of export %s could not be read", name, job->listed[i].page,
                 export);
    free (export);
  }
  if (job->unreadable > job->nlisted)
    log_warning ("%s: %" PRIu64 " pages more could not be read", name,
                 job->unreadable - job->nlisted);
  if (job->lost)
    log_warning ("%s: %" PRIu64 " of the pages that could not be read %s lost", name, job->lost,
                 job->lost == 1 ? "is" : "are");
}

static int
report (struct client *c, const struct job *job)
{
  char *name = job_subject (job);
  char *kind = text_printable (job->kind);
  char done[16], total[16];
  bool is_done = is_state (job, "done");

  for (size_t i = 0; job->warnings && i < json_object_array_length (job->warnings); i++)
    text_each_line (json_object_get_string (json_object_array_get_idx (job->warnings, i)),
                    log_warning);
  print_unreadable (job, name);
  if (is_done)
    print_done (job, name);
  else {
    if (is_state (job, "cancelled") && job->total)
      log_error ("%s: the %s was cancelled, with %s of %s %s", name, kind,
                 format_bytes (job->done, done), format_bytes (job->total, total),
                 job_words (job)->bytes_done);
    else if (is_state (job, "cancelled"))
      log_error ("%s: the %s was cancelled", name, kind);
    else if (job->error)
      text_each_line (job->error, log_error);
    else
      log_error ("%s: the %s failed, and the server's log has more", name, kind);
    if (is_kind (job, "remove") && job->device)
      print_state (c, job, name);
  }
  free (name);
  free (kind);
  /* Whoever has all pages read wants to know whether they can be. */
  return is_done && !(is_kind (job, "scrub") && job->unreadable) ? STATUS_DONE : STATUS_FAILED;
}

/* The job as it is after so long, and the reply that it lives in; NULL, and said why. */
static struct json_object *
wait_for (struct client *c, uint64_t id, double seconds, struct job *job)
{
  struct json_object *request = request_new ("wait"), *reply;
  double patience = options_timeout () / 2;

  request_number (request, "job", (int64_t) id);
  request_seconds (request, "seconds", seconds < patience ? seconds : patience);
  reply = client_ask (c, request);
  if (!reply || job_from_reply (reply, job))
    return reply;
  json_object_put (reply);
  return NULL;
}

/* A job that has ended meanwhile is cancelled without an error. */
static bool
cancel (struct client *c, uint64_t id)
{
  struct json_object *request = request_new ("cancel"), *reply;

  request_number (request, "job", (int64_t) id);
  reply = client_ask (c, request);
  json_object_put (reply);
  return reply;
}

int
follow (struct client *c, uint64_t id)
{
  struct progress progress = { .begun = false };
  double seconds = first_seconds;
  struct json_object *reply;
  bool cancelled = false;
  struct job job;
  int status;

  for (;; json_object_put (reply)) {
    if (signals_caught () && !cancelled) {
      progress_clear (&progress);
      if (!cancel (c, id))
        return STATUS_FAILED;
      cancelled = true;
    }
    reply = wait_for (c, id, seconds, &job);
    if (!reply || !is_state (&job, "running"))
      break;
    if (!cancelled)
      progress_show (&progress, &job);
    seconds = terminal_is () ? terminal_seconds : plain_seconds;
  }
  progress_clear (&progress);
  status = reply ? report (c, &job) : STATUS_FAILED;
  json_object_put (reply);
  return status;
}
