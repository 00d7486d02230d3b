/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "label.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <xxhash.h>

#include "units.h"

enum { LABEL_VERSION = 1 };

static const char label_magic[8] = "DRUMSWAP";
static const char badslots_magic[8] = "DRUMBADS";

/* A disk writes no less, even when the power fails. */
enum { SECTOR_BYTES = 512 };

/* Page 0. All integers little endian. It stands in its first sector, which has a checksum of its own, so that a start that the power
 * ends leaves the old label or the new one; the rest is zeroes, but for the checksum of the page, by which the first labels of this
 * version are known. */
struct label_page {
  char magic[8];
  uint32_t version;
  uint32_t page_bytes;
  uuid_t drum;
  uuid_t device;
  uint64_t size_bytes;
  uint64_t generation;
  uuid_t state; /* zero in the first labels of this version, which knew no state */
  uuid_t boot;
  unsigned char zero[SECTOR_BYTES - 104];
  uint64_t sector_checksum;
  unsigned char rest[PAGE_BYTES - SECTOR_BYTES - 8];
  uint64_t checksum;
};

/* Page 1. */
struct badslots_page {
  char magic[8];
  uint32_t version;
  uint32_t n;
  uint32_t slot[LABEL_MAX_BAD];
  unsigned char zero[PAGE_BYTES - 24 - 4 * LABEL_MAX_BAD];
  uint64_t checksum;
};

_Static_assert(sizeof (struct label_page) == PAGE_BYTES, "a label is one page");
_Static_assert(offsetof (struct label_page, rest) == SECTOR_BYTES, "a label is in one sector");
_Static_assert(sizeof (struct badslots_page) == PAGE_BYTES, "the bad slots are one page");

static uint64_t
page_checksum (const void *page)
{
  return htole64 (XXH3_64bits (page, PAGE_BYTES - sizeof (uint64_t)));
}

static uint64_t
sector_checksum (const struct label_page *p)
{
  return htole64 (XXH3_64bits (p, offsetof (struct label_page, sector_checksum)));
}

void
label_encode (const struct label *label, void *page)
{
  struct label_page p = { .version = htole32 (LABEL_VERSION), .page_bytes = htole32 (PAGE_BYTES) };

  memcpy (p.magic, label_magic, sizeof p.magic);
  uuid_copy (p.drum, label->identity.drum);
  uuid_copy (p.device, label->identity.device);
  uuid_copy (p.state, label->identity.state);
  uuid_copy (p.boot, label->identity.boot);
  p.size_bytes = htole64 (label->size_bytes);
  p.generation = htole64 (label->identity.generation);
  p.sector_checksum = sector_checksum (&p);
  p.checksum = page_checksum (&p);
  memcpy (page, &p, sizeof p);
}

/* Nobody has written anything else over it. */
static bool
is_whole (const struct label_page *p)
{
  static const unsigned char zeroes[sizeof p->rest];

  return p->checksum == page_checksum (p) || (p->sector_checksum == sector_checksum (p) &&
                                              memcmp (p->rest, zeroes, sizeof zeroes) == 0);
}

int
label_decode (const void *page, struct label *label)
{
  struct label_page p;

  memcpy (&p, page, sizeof p);
  if (memcmp (p.magic, label_magic, sizeof p.magic) != 0 || !is_whole (&p))
    return -ENOENT;
  if (le32toh (p.version) != LABEL_VERSION || le32toh (p.page_bytes) != PAGE_BYTES)
    return -EPROTO;
  uuid_copy (label->identity.drum, p.drum);
  uuid_copy (label->identity.device, p.device);
  uuid_copy (label->identity.state, p.state);
  uuid_copy (label->identity.boot, p.boot);
  label->identity.generation = le64toh (p.generation);
  label->size_bytes = le64toh (p.size_bytes);
  return 0;
}

void
badslots_encode (const struct badslots *bad, void *page)
{
  struct badslots_page p = { .version = htole32 (LABEL_VERSION), .n = htole32 (bad->n) };

  memcpy (p.magic, badslots_magic, sizeof p.magic);
  for (uint32_t i = 0; i < bad->n; i++)
    p.slot[i] = htole32 (bad->slot[i]);
  p.checksum = page_checksum (&p);
  memcpy (page, &p, sizeof p);
}

int
badslots_decode (const void *page, struct badslots *bad)
{
  struct badslots_page p;

  memcpy (&p, page, sizeof p);
  if (memcmp (p.magic, badslots_magic, sizeof p.magic) != 0 || p.checksum != page_checksum (&p) ||
      le32toh (p.version) != LABEL_VERSION || le32toh (p.n) > LABEL_MAX_BAD)
    return -ENOENT;
  bad->n = le32toh (p.n);
  for (uint32_t i = 0; i < bad->n; i++)
    bad->slot[i] = le32toh (p.slot[i]);
  return 0;
}
