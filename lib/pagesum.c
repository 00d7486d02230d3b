/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "pagesum.h"

#include <string.h>

#ifdef HAVE_XXH_X86DISPATCH_H
#include <xxh_x86dispatch.h>
#else
#include <xxhash.h>
#endif

#include "units.h"

uint64_t
pagesum_export_key (const char *name)
{
  return XXH3_64bits (name, strlen (name));
}

uint32_t
pagesum_key (uint64_t export_key, uint64_t page)
{
  uint64_t x = export_key ^ (page + 1) * UINT64_C (0x9e3779b97f4a7c15);

  x ^= x >> 32; /* every bit of page must reach the half that is kept */
  x *= UINT64_C (0xd6e8feb86659fd93);
  return (uint32_t) (x >> 32);
}

uint32_t
pagesum_contents (const void *data)
{
  return (uint32_t) XXH3_64bits (data, PAGE_BYTES);
}

bool
page_is_zero (const void *data)
{
  const unsigned char *p = data;
  uint64_t first;

  memcpy (&first, p, sizeof first);
  return first == 0 && memcmp (p, p + sizeof first, PAGE_BYTES - sizeof first) == 0;
}
