/* SPDX-License-Identifier: BSD-3-Clause
 *
 * early.c - preloaded into nbdkit behind a sanitizer's runtime, so that this is ready before anything else runs.
 *
 * The runtime gets ready at the first malloc. In nbdkit that is in newlocale, in a constructor of libp11-kit: glibc's locale
 * lock is held, the runtime looks up a symbol that is not there, dlerror translates its message under the same lock, and the
 * lock is broken for good: whoever needs it next (json-c for each text, others at the exit) waits for ever. (Debian 12.)
 * This library is linked with -z initfirst: its constructor is the first of all.
 */
#include <stdlib.h>

static void __attribute__ ((constructor)) early (void)
{
  void *volatile mem = malloc (1);

  free (mem);
}
