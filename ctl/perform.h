/* SPDX-License-Identifier: BSD-3-Clause
 *
 * perform.h - have the server do something: at once, or as a job that is followed to its end.
 */
#ifndef DRUMCTL_PERFORM_H
#define DRUMCTL_PERFORM_H

#include <stdbool.h>
#include <stdint.h>

struct json_object;

/* How a job is begun, and whether it is waited for. */
struct manner {
  uint64_t rate;
  bool force, no_wait;
};

/* For a verb's table of options. */
#define NO_WAIT_OPTION(m)                                                                     \
  {                                                                                           \
    0, "no-wait", NULL, option_switch, &(m).no_wait, "only begin, and print the job's number" \
  }

/* Both put the request, and return the status to end with. */
int perform (struct json_object *request);
int perform_job (struct json_object *request, const struct manner *manner);

#endif
