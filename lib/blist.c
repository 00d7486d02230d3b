/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blist.c - the free slots of one swap device
 */
#include <config.h>

#include <endian.h>
#include <errno.h>
#include <string.h>

#if defined(__SSE2__) && !defined(BLIST_PORTABLE)
#include <emmintrin.h>
#endif

#include "blist.h"

#define ALL_FREE UINT64_MAX
#define NONE     UINT32_MAX /* no slot, no word: neither ever has this number */

enum {
  FAN = 64,        /* slots a word, hints a line, hints under a hint */
  NLEVELS_MAX = 5, /* 2^32 slots: 2^26, 2^20, 2^14, 2^8 and 2^2 hints */
  FINE_MAX = 64,   /* runs up to here have a size class each */
  COARSE = 8,      /* longer ones share one with this many others, up to BLIST_MIN_MAX */
};

struct level {
  uint8_t *hint;
  uint32_t nhints;
};

struct blist {
  uint64_t *bits; /* 1 = free; nwords and a sentinel of 0 */
  uint32_t nslots;
  uint32_t nfree;
  uint32_t cursor;  /* < nslots: where the next search begins */
  uint32_t longest; /* no free run is longer, or it is BLIST_MIN_MAX */
  unsigned nlevels;
  struct level level[NLEVELS_MAX]; /* [0]: one hint a word */
};

static inline uint32_t
min_u32 (uint32_t a, uint32_t b)
{
  return a < b ? a : b;
}

static inline unsigned
size_class (uint32_t nslots)
{
  if (nslots <= FINE_MAX)
    return nslots;
  return FINE_MAX + (min_u32 (nslots, BLIST_MIN_MAX) - FINE_MAX) / COARSE;
}

/* ---- lines of 64 hints ---- */

#if defined(__SSE2__) && !defined(BLIST_PORTABLE)

/* Bit i of the result: line[i] >= class. */
static inline uint64_t
line_at_least (const uint8_t *line, unsigned class)
{
  const __m128i *v = (const __m128i *) line;
  __m128i least = _mm_set1_epi8 ((char) class);
  uint64_t found = 0;

  for (unsigned i = 0; i < 4; i++) {
    __m128i hints = _mm_load_si128 (&v[i]);
    __m128i match = _mm_cmpeq_epi8 (_mm_max_epu8 (hints, least), hints);
    found |= (uint64_t) (unsigned) _mm_movemask_epi8 (match) << 16 * i;
  }
  return found;
}

static inline uint8_t
line_max (const uint8_t *line)
{
  const __m128i *v = (const __m128i *) line;
  __m128i max = _mm_max_epu8 (_mm_max_epu8 (v[0], v[1]), _mm_max_epu8 (v[2], v[3]));

  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 8));
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 4));
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 2));
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 1));
  return (uint8_t) _mm_cvtsi128_si32 (max);
}

#else

/* Bit i of the result: line[i] >= class; eight bytes at a time. */
static inline uint64_t
line_at_least (const uint8_t *line, unsigned class)
{
  const uint64_t ones = UINT64_C (0x0101010101010101), tops = ones << 7;
  const uint64_t least = ones * class;
  uint64_t found = 0;

  for (unsigned i = 0; i < 8; i++) {
    uint64_t hints, low, match;

    memcpy (&hints, line + 8 * i, sizeof hints);
    hints = le64toh (hints);
    low = (hints | tops) - (least & ~tops); /* top bit: the low 7 bits are at least least's */
    match = ((hints & ~least) | (~(hints ^ least) & low)) & tops;
    found |= (match >> 7) * UINT64_C (0x0102040810204080) >> 56 << 8 * i;
  }
  return found;
}

static inline uint8_t
line_max (const uint8_t *line)
{
  uint8_t max = 0;

  for (unsigned i = 0; i < FAN; i++)
    max = line[i] > max ? line[i] : max;
  return max;
}

#endif

/* ---- hints ---- */

/* The runs that start in the word may be of this class from now on. */
static inline void
raise_hint (struct blist *bl, uint32_t word, unsigned class)
{
  uint32_t i = word;

  for (unsigned k = 0; k < bl->nlevels && bl->level[k].hint[i] < class; k++, i /= FAN)
    bl->level[k].hint[i] = (uint8_t) class;
}

/* The first word from word on in which, as far as its hint tells, a run of class starts; NONE if there is none.
 * Lowers the hints over lines that it saw to hold nothing. */
static uint32_t
next_candidate (struct blist *bl, uint32_t word, unsigned class)
{
  uint32_t i = word;
  unsigned k = 0;

  for (;;) {
    if (i < bl->level[k].nhints) {
      const uint8_t *line = bl->level[k].hint + (i & ~(FAN - 1u));
      uint64_t found = line_at_least (line, class);
      uint64_t ahead = found >> i % FAN;

      if (ahead) {
        i += (uint32_t) __builtin_ctzll (ahead);
        if (k == 0)
          return i;
        k--;
        i *= FAN;
        continue;
      }
      if (!found && k + 1 < bl->nlevels)
        bl->level[k + 1].hint[i / FAN] = line_max (line);
    }
    if (++k == bl->nlevels)
      return NONE;
    i = i / FAN + 1;
  }
}

/* ---- bits ---- */

/* The bits of the range [*slot, *slot + *n) that lie in the word of *slot, which must not be empty; takes them off. */
static inline uint64_t
next_mask (uint32_t *slot, uint32_t *n)
{
  uint32_t bit = *slot % FAN, k = min_u32 (FAN - bit, *n);

  *slot += k;
  *n -= k;
  return ALL_FREE >> (FAN - k) << bit;
}

static inline bool
is_free (const struct blist *bl, uint32_t slot)
{
  return bl->bits[slot / FAN] >> slot % FAN & 1;
}

/* How many slots from slot on are free, counted up to max. */
static inline uint32_t
run_after (const struct blist *bl, uint32_t slot, uint32_t max)
{
  const uint64_t *word = bl->bits + slot / FAN;
  uint64_t used = ~(*word >> slot % FAN);
  uint32_t n = FAN - slot % FAN;

  if (used && (uint32_t) __builtin_ctzll (used) < n)
    return min_u32 ((uint32_t) __builtin_ctzll (used), max);
  while (n < max && *++word == ALL_FREE)
    n += FAN;
  if (n < max)
    n += (uint32_t) __builtin_ctzll (~*word);
  return min_u32 (n, max);
}

/* How many slots up to and without slot are free, counted up to max. */
static inline uint32_t
run_before (const struct blist *bl, uint32_t slot, uint32_t max)
{
  const uint64_t *word = bl->bits + slot / FAN;
  uint32_t n = slot % FAN;

  if (n > 0) {
    uint32_t k = (uint32_t) __builtin_clzll (~(*word << (FAN - n)));
    if (k < n)
      return k;
  }
  while (n < max && word > bl->bits && *--word == ALL_FREE)
    n += FAN;
  if (n < max && n < slot)
    n += (uint32_t) __builtin_clzll (~*word);
  return min_u32 (n, max);
}

static bool
all_used (const struct blist *bl, uint32_t first, uint32_t n)
{
  while (n > 0) {
    uint32_t w = first / FAN;
    if (bl->bits[w] & next_mask (&first, &n))
      return false;
  }
  return true;
}

static inline void
set_free (struct blist *bl, uint32_t first, uint32_t n)
{
  while (n > 0) {
    uint32_t w = first / FAN;

    if (first % FAN == 0 && n >= 2 * FAN) {
      uint32_t nwords = n / FAN;
      memset (bl->bits + w, 0xff, (size_t) nwords * sizeof bl->bits[0]);
      first += nwords * FAN;
      n -= nwords * FAN;
    } else {
      bl->bits[w] |= next_mask (&first, &n);
    }
  }
}

/* A run may start at slot because the one before it was taken: make its hint cover it. */
static void
cover_rest (struct blist *bl, uint32_t slot)
{
  uint32_t w = slot / FAN;

  if (is_free (bl, slot) && bl->level[0].hint[w] < size_class (BLIST_MIN_MAX))
    raise_hint (bl, w, size_class (run_after (bl, slot, BLIST_MIN_MAX)));
}

/* ---- making ---- */

static uint32_t
nwords_of (uint32_t nslots)
{
  return nslots / FAN + (nslots % FAN != 0);
}

static size_t
whole_lines (size_t bytes)
{
  return (bytes + FAN - 1) / FAN * FAN;
}

size_t
blist_bytes (uint32_t nslots)
{
  uint32_t n = nwords_of (nslots);
  size_t bytes =
    whole_lines (sizeof (struct blist)) + whole_lines (((size_t) n + 1) * sizeof (uint64_t));

  if (nslots == 0 || nslots == UINT32_MAX)
    return 0;
  for (; n > FAN; n = nwords_of (n))
    bytes += whole_lines (n);
  return bytes + whole_lines (n);
}

struct blist *
blist_create (void *mem, uint32_t nslots)
{
  struct blist *bl = mem;
  uint8_t *next = (uint8_t *) mem + whole_lines (sizeof *bl);
  uint32_t n = nwords_of (nslots);

  bl->nslots = nslots;
  bl->bits = (uint64_t *) (void *) next;
  next += whole_lines (((size_t) n + 1) * sizeof bl->bits[0]);
  for (;; n = nwords_of (n)) {
    bl->level[bl->nlevels++] = (struct level){ .hint = next, .nhints = n };
    next += whole_lines (n);
    if (n <= FAN)
      return bl;
  }
}

uint32_t
blist_nslots (const struct blist *bl)
{
  return bl->nslots;
}

uint32_t
blist_nfree (const struct blist *bl)
{
  return bl->nfree;
}

/* ---- taking ---- */

/* The first run of min slots that starts in word, of whose bits only those in free count; NONE if there is none,
 * and then *shorter is at least as long as the longest that does. */
static inline uint32_t
probe (const struct blist *bl, uint32_t word, uint64_t free, uint32_t min, uint32_t *shorter)
{
  uint64_t next = bl->bits[word + 1];
  uint32_t n = 1;

  if (min > FAN) {
    /* Only the run that leaves the word at its end can be long enough. */
    uint32_t tail = free == ALL_FREE ? FAN : (uint32_t) __builtin_clzll (~free);
    uint32_t slot = word * FAN + (FAN - tail);

    n = tail ? run_after (bl, slot, min) : 0;
    *shorter = n > FAN ? n : FAN;
    return n == min ? slot : NONE;
  }
  /* Bit i of free: n slots from i on are free. */
  while (free && n < min) {
    uint32_t step = min_u32 (n, min - n);

    free &= free >> step | next << (FAN - step);
    next &= next >> step;
    n += step;
  }
  *shorter = n - 1;
  return free ? word * FAN + (uint32_t) __builtin_ctzll (free) : NONE;
}

/* The first run of min from the cursor on, wrapping around; NONE if there is none, which is remembered. */
static uint32_t
find (struct blist *bl, uint32_t min)
{
  uint32_t last = bl->cursor / FAN, w = last, shorter, slot;
  unsigned class = size_class (min);
  bool wrapped = false;

  slot = probe (bl, w, bl->bits[w] & ALL_FREE << bl->cursor % FAN, min, &shorter);
  while (slot == NONE) {
    w = next_candidate (bl, w + 1, class);
    if (w == NONE && !wrapped) {
      wrapped = true;
      w = next_candidate (bl, 0, class);
    }
    if (w == NONE || (wrapped && w > last)) {
      bl->longest = min - 1;
      return NONE;
    }
    slot = probe (bl, w, bl->bits[w], min, &shorter);
    if (slot == NONE)
      bl->level[0].hint[w] = (uint8_t) size_class (shorter);
  }
  return slot;
}

/* Take n free slots. */
static inline void
take (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t slot = first, left = n;

  while (left > 0) {
    uint32_t w = slot / FAN;
    if ((bl->bits[w] &= ~next_mask (&slot, &left)) == 0)
      bl->level[0].hint[w] = 0;
  }
  bl->nfree -= n;
  bl->cursor = slot < bl->nslots ? slot : 0;
  /* The hint of a word in which the run started covers the rest of it, too. */
  if (slot / FAN != first / FAN || (first > 0 && is_free (bl, first - 1)))
    cover_rest (bl, slot);
}

int
blist_alloc (struct blist *bl, uint32_t min, uint32_t max, struct slot_run *run)
{
  return blist_alloc_at (bl, NONE, min, max, run);
}

int
blist_alloc_at (struct blist *bl, uint32_t prefer, uint32_t min, uint32_t max, struct slot_run *run)
{
  uint32_t first = prefer, n;

  if (min < 1 || min > max || min > BLIST_MIN_MAX)
    return -EINVAL;
  if (min > bl->longest)
    return -ENOSPC;
  if (prefer >= bl->nslots || run_after (bl, prefer, min) < min)
    first = find (bl, min);
  if (first == NONE)
    return -ENOSPC;
  n = min == max ? min : run_after (bl, first, max);
  take (bl, first, n);
  *run = (struct slot_run){ .first = first, .n = n };
  return 0;
}

/* ---- giving back ---- */

int
blist_free (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t before, nrun;

  if (first > bl->nslots || n > bl->nslots - first)
    return -EINVAL;
  if (n == 0)
    return 0;
  if (bl->nfree > 0 && !all_used (bl, first, n))
    return -EINVAL;
  set_free (bl, first, n);
  bl->nfree += n;

  before = run_before (bl, first, BLIST_MIN_MAX);
  nrun = min_u32 (before + min_u32 (n, BLIST_MIN_MAX), BLIST_MIN_MAX);
  if (nrun < BLIST_MIN_MAX)
    nrun += run_after (bl, first + n, BLIST_MIN_MAX - nrun);
  if (before < BLIST_MIN_MAX)
    raise_hint (bl, (first - before) / FAN, size_class (nrun));
  if (bl->longest < nrun)
    bl->longest = nrun;
  return 0;
}

int
blist_fill (struct blist *bl, uint32_t first, uint32_t n, uint32_t *nwere_free)
{
  uint32_t nfree = 0, slot = first, left = n;

  if (first > bl->nslots || n > bl->nslots - first)
    return -EINVAL;
  while (left > 0) {
    uint32_t w = slot / FAN;
    uint64_t taken = bl->bits[w] & next_mask (&slot, &left);

    if (taken) {
      nfree += (uint32_t) __builtin_popcountll (taken);
      if ((bl->bits[w] &= ~taken) == 0)
        bl->level[0].hint[w] = 0;
    }
  }
  bl->nfree -= nfree;
  if (nfree > 0)
    cover_rest (bl, slot);
  *nwere_free = nfree;
  return 0;
}

/* ---- looking ---- */

bool
blist_next (const struct blist *bl, uint32_t from, bool free, struct slot_run *run)
{
  uint64_t flip = free ? 0 : ALL_FREE;
  uint32_t nwords = nwords_of (bl->nslots), w = from / FAN, first, end;
  uint64_t found;

  if (from >= bl->nslots)
    return false;
  found = (bl->bits[w] ^ flip) & ALL_FREE << from % FAN;
  while (!found && ++w < nwords)
    found = bl->bits[w] ^ flip;
  if (!found)
    return false;
  first = w * FAN + (uint32_t) __builtin_ctzll (found);
  if (first >= bl->nslots) /* what lies behind the end looks used */
    return false;

  found = (bl->bits[w] ^ ~flip) & ALL_FREE << first % FAN;
  while (!found && ++w < nwords)
    found = bl->bits[w] ^ ~flip;
  end = found ? w * FAN + (uint32_t) __builtin_ctzll (found) : bl->nslots;
  *run = (struct slot_run){ .first = first, .n = min_u32 (end, bl->nslots) - first };
  return true;
}

void
blist_stats (const struct blist *bl, struct blist_stats *stats)
{
  struct slot_run run = { 0 };

  *stats = (struct blist_stats){ 0 };
  while (blist_next (bl, run.first + run.n, true, &run)) {
    stats->nruns++;
    stats->by_size[31 - __builtin_clz (run.n)]++;
    if (stats->largest < run.n)
      stats->largest = run.n;
  }
}

bool
blist_check (const struct blist *bl)
{
  struct slot_run run = { 0 };
  uint32_t nwords = nwords_of (bl->nslots);
  uint64_t nfree = 0;

  while (blist_next (bl, run.first + run.n, true, &run)) {
    nfree += run.n;
    if (bl->level[0].hint[run.first / FAN] < size_class (run.n) ||
        bl->longest < min_u32 (run.n, BLIST_MIN_MAX))
      return false;
  }
  for (unsigned k = 0; k < bl->nlevels; k++)
    for (uint32_t i = 0; i < bl->level[k].nhints; i++)
      if (k + 1 < bl->nlevels && bl->level[k].hint[i] > bl->level[k + 1].hint[i / FAN])
        return false;
  if (bl->bits[nwords] || (bl->nslots % FAN && bl->bits[nwords - 1] >> bl->nslots % FAN))
    return false;
  return nfree == bl->nfree && bl->cursor < bl->nslots;
}
