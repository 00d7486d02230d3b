/* SPDX-License-Identifier: BSD-3-Clause
 *
 * live.c - a model checker of live changes: devices come, go and change rank at random (fleet.h), while four connections write,
 * read and trim, and compare every byte with a copy in memory (model.h).
 */
#include <config.h>

#include <criterion/criterion.h>

#include "tests/random.h"

#include "fleet.h"
#include "model.h"

enum {
  SECONDS = 40,        /* at scale 1 */
  SECONDS_SLOWED = 15, /* with a sanitizer */
};

TestSuite (live, .init = livedrum_setup, .fini = dev_teardown, .timeout = 900);

/* Whatever comes and goes: no wrong byte, and no error but those that must be. */
Test (live, model)
{
  unsigned seconds = random_steps (server_is_sanitized () ? SECONDS_SLOWED : SECONDS);
  char *last = dev_path ("last");
  double end;

  fleet_start (&(struct server_options){ .threads = 1 });
  model_start (&srv);
  for (end = seconds_now () + seconds; seconds_now () < end && !atomic_load (&model.failed);)
    fleet_step ();
  if (!atomic_load (&model.failed))
    fleet_leave_one (last);
  atomic_store (&model.stop, true);
  model_join ();
  cr_log_info ("live: %u s: %u requests; devices: %u added, %u removed (%u of them tight), %u "
               "removals cancelled, %u gave up, %u did not fit; %u rebalanced",
               seconds, atomic_load (&model.nrequests), fleet.nadded, fleet.nremoved, fleet.ntight,
               fleet.ncancelled, fleet.ngave_up, fleet.nunfit, fleet.nrebalanced);
  cr_assert (fleet.nadded && fleet.nremoved, "nothing has happened");
  fleet_check_end (last, model_check (nbd));
  livedrum_stop ();
}
