/* SPDX-License-Identifier: BSD-3-Clause
 *
 * drumctl.h - what the verbs of drumctl share: where the server is, and how a verb is found.
 */
#ifndef DRUMCTL_H
#define DRUMCTL_H

#include <stdbool.h>
#include <stdio.h>

/* How drumctl ends, and what a verb returns; see drumctl(8). */
enum { STATUS_DONE, STATUS_FAILED, STATUS_USAGE };

struct verb {
  const char *name;
  const char *operands; /* as the usage has them; NULL: none */
  const char *summary;
  void (*more) (FILE *out); /* what --help says at its end; NULL: nothing */
  bool ordered;             /* options come before operands, one of which may begin with "-" */
  int (*run) (const struct verb *verb, int argc, char **argv);
};

extern const struct verb verb_list, verb_add, verb_remove, verb_rebalance, verb_priority,
  verb_scrub, verb_maxio, verb_status, verb_watch, verb_map, verb_metrics, verb_jobs, verb_wait,
  verb_cancel, verb_shutdown, verb_exports, verb_export_add, verb_export_set, verb_export_fill,
  verb_export_takeover, verb_export_remove, verb_export_resize, verb_export_move;

#endif
