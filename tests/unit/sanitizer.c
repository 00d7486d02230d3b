/* SPDX-License-Identifier: BSD-3-Clause
 *
 * sanitizer.c - lets Criterion run under the sanitizers.
 *
 * It leaks a little itself, in the process that runs the others, and only there: in those BoxFort has set BXFI_MAP. And it (its BoxFort) shares memory with its worker processes at an address between 0x2000...
 * and 0x6000... that it guesses with rand_r, (rand_r () & 0x3fffff) << 24 above the first, and gives up after ten guesses
 * that are not free. The thread sanitizer leaves little of that to programs. So rand_r is one that guesses well: behind
 * what is left to position independent programs (0x5500... to 0x5680...), a place for each call.
 */
#include <config.h>

#include <stdlib.h>

extern const char sanitizer_is_linked;
const char sanitizer_is_linked =
  1; /* Makefile.am asks for it, so that every program has all of this */

#ifdef __SANITIZE_ADDRESS__
const char *__lsan_default_suppressions (void);
const char *__asan_default_options (void);

const char *
__lsan_default_suppressions (void)
{
  return getenv ("BXFI_MAP") ? "" : "leak:libcriterion\n";
}

/* A leak is found when a test's process ends, and Criterion looks only at how, not at the exit code. */
const char *
__asan_default_options (void)
{
  return "abort_on_error=1";
}
#endif

#ifdef __SANITIZE_THREAD__
int
rand_r (unsigned *seed)
{
  static unsigned ncalls;

  (void) seed;
  return (int) ((0x567000000000 - 0x200000000000) >> 24) + (int) (ncalls++ & 0x7ff);
}
#endif
