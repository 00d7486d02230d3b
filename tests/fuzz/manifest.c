/* SPDX-License-Identifier: BSD-3-Clause
 *
 * manifest.c - libFuzzer on a manifest: as it is, and with the checksum that it should have; what loads can be saved.
 */
#include <config.h>

#include "lib/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/log.h"

int LLVMFuzzerTestOneInput (const uint8_t *data, size_t size);

/* No files: one in memory, that each openat opens. */
static int memory = -1;

int __wrap_openat (int dirfd, const char *path, int flags, ...);
int __wrap_renameat2 (int from, const char *a, int to, const char *b, unsigned flags);
int __wrap_unlinkat (int dirfd, const char *path, int flags);
int __wrap_fsync (int fd);

int
__wrap_openat (int dirfd, const char *path, int flags, ...)
{
  (void) dirfd, (void) path;
  if (flags & O_TRUNC && ftruncate (memory, 0) == -1)
    abort ();
  return dup (memory);
}

int
__wrap_renameat2 (int from, const char *a, int to, const char *b, unsigned flags)
{
  (void) from, (void) a, (void) to, (void) b, (void) flags;
  return 0;
}

int
__wrap_unlinkat (int dirfd, const char *path, int flags)
{
  (void) dirfd, (void) path, (void) flags;
  return 0;
}

int
__wrap_fsync (int fd)
{
  (void) fd;
  return 0;
}

static void
quiet (enum log_level level, const char *fmt, va_list args)
{
  char line[8192];

  (void) level;
  vsnprintf (line, sizeof line, fmt, args); /* formats must be right all the same */
}

static int
load (const void *bytes, size_t len, struct manifest *m)
{
  int ret;

  if (ftruncate (memory, 0) == -1 || pwrite (memory, bytes, len, 0) != (ssize_t) len)
    abort ();
  ret = manifest_load (-1, "fuzz", m);
  if (ret != 0 && ret != -EBADMSG && ret != -EPROTO)
    abort ();
  return ret;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  struct manifest m, again;
  char *text = malloc (size + 100);

  if (memory == -1) {
    log_set_sink (quiet);
    memory = memfd_create ("fuzz", MFD_CLOEXEC);
  }
  if (load (data, size, &m) == 0)
    manifest_free (&m);
  memcpy (text, data, size);
  snprintf (text + size, 100, "xxh3 %016" PRIx64 "\n", (uint64_t) XXH3_64bits (data, size));
  if (load (text, size + sizeof "xxh3 0123456789abcdef\n" - 1, &m) == 0) {
    if (manifest_save (-1, "fuzz", &m) < 0 || manifest_load (-1, "fuzz", &again) < 0 ||
        again.ndevices != m.ndevices || again.nexports != m.nexports)
      abort ();
    manifest_free (&again);
    manifest_free (&m);
  }
  free (text);
  return 0;
}
