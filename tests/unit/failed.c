/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "failed.h"

#include <criterion/criterion.h>
#include <inttypes.h>

#include "tests/random.h"

_Atomic bool failed;
char failure[256];

void
assert_not_failed (void)
{
  cr_assert (!failed, "DRUM_TEST_SEED=%" PRIu64 ": %s", random_seed (), failure);
}
