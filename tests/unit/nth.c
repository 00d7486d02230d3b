/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "nth.h"

int fail_in = DISARMED;
const char *failed_call;
int nallocated;

bool
fails (const char *call, int err)
{
  if (fail_in == DISARMED || fail_in-- > 0)
    return false;
  failed_call = call;
  errno = err;
  return true;
}
