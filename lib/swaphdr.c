/* SPDX-License-Identifier: BSD-3-Clause
 *
 * swaphdr.c - see swaphdr.h. Where what stands is the kernel's union swap_header.
 */
#include <config.h>

#include "swaphdr.h"

#include <byteswap.h>
#include <string.h>

enum { MIN_PAGE_BYTES = 4096, BOOT_BYTES = 1024, SIGNATURE_BYTES = 10, SWAP_VERSION = 1 };

static const char swap_signature[SIGNATURE_BYTES] = "SWAPSPACE2";
static const char suspend_signature[SIGNATURE_BYTES] = "S1SUSPEND";

/* Behind BOOT_BYTES, in the byte order of the machine that made it. */
struct info {
  uint32_t version;
  uint32_t last_page;
  uint32_t nr_badpages;
  unsigned char uuid[16];
  char label[SWAPHDR_LABEL_BYTES];
};

uint32_t
swaphdr_last_page (uint64_t npages)
{
  return npages < UINT32_MAX ? (uint32_t) npages - 1 : UINT32_MAX - 1; /* mkswap does no more */
}

void
swaphdr_build (void *page, const struct swaphdr *h)
{
  struct info info = { .version = SWAP_VERSION, .last_page = h->last_page };
  char *at = page;

  uuid_copy (info.uuid, h->uuid);
  memcpy (info.label, h->label, strnlen (h->label, sizeof info.label - 1));
  memset (page, 0, h->page_bytes);
  memcpy (at + BOOT_BYTES, &info, sizeof info);
  memcpy (at + h->page_bytes - SIGNATURE_BYTES, swap_signature, SIGNATURE_BYTES);
}

bool
swaphdr_parse (const void *data, size_t len, struct swaphdr *h)
{
  for (uint32_t bytes = MIN_PAGE_BYTES; bytes <= len && bytes <= SWAPHDR_MAX_PAGE_BYTES;
       bytes *= 2) {
    const char *signature = (const char *) data + bytes - SIGNATURE_BYTES;
    bool suspended = memcmp (signature, suspend_signature, SIGNATURE_BYTES) == 0;
    struct info info;
    bool other_order;

    if (!suspended && memcmp (signature, swap_signature, SIGNATURE_BYTES) != 0)
      continue;
    memcpy (&info, (const char *) data + BOOT_BYTES, sizeof info);
    other_order = info.version == bswap_32 (SWAP_VERSION);
    if (info.version != SWAP_VERSION && !other_order)
      continue;
    *h = (struct swaphdr){ .page_bytes = bytes, .suspended = suspended };
    h->last_page = other_order ? bswap_32 (info.last_page) : info.last_page;
    uuid_copy (h->uuid, info.uuid);
    memcpy (h->label, info.label, sizeof h->label - 1);
    return true;
  }
  return false;
}

void
swaphdr_uuid_for (const char *name, uuid_t uuid)
{
  /* Made once for this: 10131f22-5734-4ebf-bf6d-ad702eae9d7a */
  static const uuid_t names = { 0x10, 0x13, 0x1f, 0x22, 0x57, 0x34, 0x4e, 0xbf,
                                0xbf, 0x6d, 0xad, 0x70, 0x2e, 0xae, 0x9d, 0x7a };

  uuid_generate_sha1 (uuid, names, name, strlen (name));
}
