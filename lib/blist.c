/* SPDX-License-Identifier: BSD-3-Clause
 *
 * blist.c - the free slots of one swap device
 *
 * Structure:
 *   bits      one bit a slot, 1 = free, in words of 64; slots behind the end are never free.
 *   level[0]  one byte a word, its hint: an upper bound on the class of the longest run that starts in the word. A run
 *             is maximal here: the slot before its first is used. Classes are the lengths up to 64, then steps of 8
 *             up to 1024, so a byte holds them.
 *   level[k]  one byte a line of 64 hints below: an upper bound on them. The top level is one line.
 *   longest   an upper bound on the longest run of all, counted up to 1024.
 *   cursor    where the next search begins (next fit).
 * All of it lies in one block of memory: this header, the bits, the levels from the bottom up.
 *
 * Since only the word in which a run starts carries its length, freeing 16M slots is one memset and one hint for each
 * level, and a free raises one hint and those above it that are lower. A search compares a line of 64 hints at once, goes
 * up while there is nothing in the line and down where there is; whatever it finds to promise too much, it lowers. An
 * alloc that takes most of what a hint promised makes it exact again on its way out, so that the next search does not
 * come here in vain. A demand that fails is remembered in longest: until a free makes such a run, it fails at once.
 *
 * Cost, on a 2.6 GHz EPYC (bench/blist; 1M slots, 16M slots where they differ):
 *   alloc of one         7 ns at 0 and 50 % full, 9 at 90 %, 13 (16M: 21) at 99 %
 *   free of one          11 ns (20) in random order
 *   aged mix             103 ns (157) for 1 to 64 slots and the frees that make room, at 90 % full; 39 (54) for 16 slots;
 *                        850 ns at 99 %, in some 20 calls; no single call takes more than 1.3 us
 *   only fit far away    90 ns (113) to free 32 among fragments and to find them again
 *   repeated failure     2 ns
 *   first failure        0.04 us if no such run was freed; 38 us (1 ms) where 2,000 (31,000) hints promise too much
 *   free all             2 us (30), and 80 us (1.2 ms) more for the kernel to zero the pages, or 170 us with huge pages
 *   memory               1.13 bits a slot
 *
 * Limits: 2^32-2 slots; a demand (min) of at most 1024. A failed search costs up to 30 ns for each word whose hint promised
 * too much, once, as it lowers the hint; only runs longer than 64 that share the demand's class but are shorter (demands
 * that are not multiples of 8) are looked at again by the next search that longest lets through.
 *
 * Locking: the caller's; nothing here is atomic.
 *
 * FreeBSD's subr_blist.c gave the idea: a radix tree of hints over a bitmap, next fit, and a search that corrects the
 * hints. Its tree is made of nodes of a bitmap and a hint about the runs inside the node's subtree, and it descends by
 * recursion; here runs cross any boundary, the levels are flat arrays and every step is a loop.
 */
#include <config.h>

#include <errno.h>
#include <string.h>

#include "blist.h"
#include "hintline.h"

/* Keeps what is rare out of the registers of what is not: 1 ns of an alloc's 8. */
#define NOINLINE __attribute__ ((noinline))

#define ALL_FREE UINT64_MAX
#define NONE     UINT32_MAX /* no slot, no word: neither ever has this number */

enum {
  FAN = HINTLINE,  /* slots a word, hints a line, hints under a hint */
  NLEVELS_MAX = 5, /* 2^32 slots: 2^26, 2^20, 2^14, 2^8 and 2^2 hints */
  FINE_MAX = 64,   /* runs of up to this many slots have a class for each length */
  COARSE = 8,      /* longer ones share a class with this many lengths */
};

struct level {
  uint8_t *hint; /* starts a line; two more of 0 behind the end */
  uint32_t nhints;
};

struct blist {
  uint64_t *bits; /* one more of 0 before the first, two behind the last */
  uint32_t nslots;
  uint32_t nfree;
  uint32_t cursor;  /* <= nslots */
  uint32_t longest; /* no run is longer, or this is BLIST_MIN_MAX */
  unsigned nlevels;
  struct level level[NLEVELS_MAX];
};

static inline uint32_t
min_u32 (uint32_t a, uint32_t b)
{
  return a < b ? a : b;
}

/* The class of runs of nslots. */
static inline uint8_t
class_of (uint32_t nslots)
{
  if (nslots <= FINE_MAX)
    return (uint8_t) nslots;
  return (uint8_t) (FINE_MAX + (min_u32 (nslots, BLIST_MIN_MAX) - FINE_MAX) / COARSE);
}

/* ---- hints ---- */

/* The line that hint i of the level lies in. */
static inline const uint8_t *
line_of (const struct level *level, uint32_t i)
{
  return level->hint + i / FAN * FAN;
}

/* A run of this class starts in the word from now on. */
static inline void
raise_hint (struct blist *bl, uint32_t word, uint8_t class)
{
  uint8_t *hint = &bl->level[0].hint[word];
  uint32_t i = word / FAN;

  *hint = *hint < class ? class : *hint; /* no branch: nobody could predict it */
  for (unsigned k = 1; k < bl->nlevels && bl->level[k].hint[i] < class; k++, i /= FAN)
    bl->level[k].hint[i] = class;
}

/* No run of more than this class starts in the word: lower its hint, and those above that it had set. */
static inline void
lower_hint (struct blist *bl, uint32_t word, uint8_t class)
{
  uint8_t was = bl->level[0].hint[word];
  uint32_t i = word;

  for (unsigned k = 0;; k++, i /= FAN) {
    uint8_t others;

    bl->level[k].hint[i] = class;
    if (k + 1 == bl->nlevels || bl->level[k + 1].hint[i / FAN] != was)
      return;
    others = line_max (line_of (&bl->level[k], i), i % FAN);
    if (others >= was)
      return;
    class = others > class ? others : class;
  }
}

/* The next word in which, as far as its hint tells, a run of class starts, from word on and from 0 again; NONE if there
 * is none at all. The others behind it in its line are in *more. Lowers the hints over lines that it saw to hold
 * nothing. */
static inline uint32_t
next_candidate (struct blist *bl, uint32_t word, uint8_t class, uint64_t *more)
{
  uint32_t i = word;
  unsigned k = 0;

  for (;;) {
    bool top = k + 1 == bl->nlevels;

    if (i < bl->level[k].nhints && (top || bl->level[k + 1].hint[i / FAN] >= class)) {
      uint64_t found = line_at_least (line_of (&bl->level[k], i), class);
      uint64_t ahead = found & ALL_FREE << i % FAN;

      if (top && !ahead)
        ahead = found;
      if (ahead) {
        i = i / FAN * FAN + (uint32_t) __builtin_ctzll (ahead);
        if (k == 0) {
          *more = ahead & (ahead - 1);
          return i;
        }
        k--;
        i *= FAN;
        continue;
      }
      if (top)
        return NONE;
      if (!found)
        bl->level[k + 1].hint[i / FAN] = line_max (line_of (&bl->level[k], i), FAN);
    }
    if (top) {
      i = 0; /* it was behind the end */
    } else {
      i = i / FAN + 1;
      k++;
    }
  }
}

/* ---- bits ---- */

/* The 64 slots from slot on, the first of them in bit 0. */
static inline uint64_t
slots_after (const struct blist *bl, uint32_t slot)
{
  const uint64_t *word = bl->bits + slot / FAN;

  return word[0] >> slot % FAN | word[1] << 1 << (FAN - 1 - slot % FAN);
}

/* The 64 slots before slot, the last of them in bit 63. */
static inline uint64_t
slots_before (const struct blist *bl, uint32_t slot)
{
  const uint64_t *word = bl->bits + slot / FAN;

  return word[0] << 1 << (FAN - 1 - slot % FAN) | word[-1] >> slot % FAN;
}

/* How many slots from slot on are free, counted up to max. */
static inline uint32_t
run_after (const struct blist *bl, uint32_t slot, uint32_t max)
{
  uint32_t n = 0;

  for (;;) {
    uint64_t used = ~slots_after (bl, slot + n);
    if (used)
      return min_u32 (n + (uint32_t) __builtin_ctzll (used), max);
    if (max - n <= FAN)
      return max;
    n += FAN;
  }
}

/* How many slots before slot are free, counted up to max. */
static inline uint32_t
run_before (const struct blist *bl, uint32_t slot, uint32_t max)
{
  for (uint32_t n = 0; n < max; n += FAN) {
    uint64_t used = ~slots_before (bl, slot - n);
    if (used)
      return min_u32 (n + (uint32_t) __builtin_clzll (used), max);
  }
  return max;
}

static inline bool
is_behind_free (const struct blist *bl, uint32_t slot)
{
  return slot > 0 && bl->bits[(slot - 1) / FAN] >> (slot - 1) % FAN & 1;
}

/* The part of the n slots from *slot on that lies in the first one's word, as a mask; takes it off them. */
static inline uint64_t
next_mask (uint32_t *slot, uint32_t *n)
{
  uint32_t bit = *slot % FAN, k = min_u32 (FAN - bit, *n);

  *slot += k;
  *n -= k;
  return ALL_FREE >> (FAN - k) << bit;
}

/* => 1 <= n; false, and nothing changed, if one of them is free already */
static inline bool
set_free (struct blist *bl, uint32_t first, uint32_t n)
{
  uint64_t *word = bl->bits + first / FAN;
  uint32_t slot = first, left = n, nwords;

  if (n <= FAN) {
    uint64_t mask = ALL_FREE >> (FAN - n);

    if (slots_after (bl, first) & mask)
      return false;
    word[0] |= mask << first % FAN;
    word[1] |= mask >> 1 >> (FAN - 1 - first % FAN);
    return true;
  }
  while (bl->nfree > 0 && left > 0) {
    uint64_t found = bl->bits[slot / FAN];
    if (found & next_mask (&slot, &left))
      return false;
  }
  *word |= next_mask (&first, &n);
  nwords = n / FAN;
  memset (bl->bits + first / FAN, 0xff, (size_t) nwords * sizeof *word);
  first += nwords * FAN;
  n -= nwords * FAN;
  if (n > 0)
    bl->bits[first / FAN] |= next_mask (&first, &n);
  return true;
}

/* The slots before slot were taken: if it is free, a run starts there now. */
static NOINLINE void
cover_rest (struct blist *bl, uint32_t slot)
{
  uint32_t w = slot / FAN;

  if (slots_after (bl, slot) & 1 && bl->level[0].hint[w] < class_of (BLIST_MIN_MAX))
    raise_hint (bl, w, class_of (run_after (bl, slot, BLIST_MIN_MAX)));
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

static size_t
bits_bytes (uint32_t nwords)
{
  return whole_lines (((size_t) nwords + 3) * sizeof (uint64_t));
}

static size_t
hint_bytes (uint32_t nhints)
{
  return whole_lines ((size_t) nhints + 2);
}

size_t
blist_bytes (uint32_t nslots)
{
  uint32_t n = nwords_of (nslots);
  size_t bytes = whole_lines (sizeof (struct blist)) + bits_bytes (n);

  if (nslots == 0 || nslots == NONE)
    return 0;
  for (; n > FAN; n = nwords_of (n))
    bytes += hint_bytes (n);
  return bytes + hint_bytes (n);
}

struct blist *
blist_create (void *mem, uint32_t nslots)
{
  struct blist *bl = mem;
  char *next = (char *) mem + whole_lines (sizeof *bl);
  uint32_t n = nwords_of (nslots);

  bl->nslots = nslots;
  bl->bits = (uint64_t *) (void *) next + 1;
  next += bits_bytes (n);
  for (;; n = nwords_of (n)) {
    bl->level[bl->nlevels++] = (struct level){ .hint = (uint8_t *) next, .nhints = n };
    next += hint_bytes (n);
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

/* The first run of min slots that starts in word, of which only the slots in free count; NONE if there is none, and
 * then none that starts there is longer than *shorter. */
static inline uint32_t
probe (const struct blist *bl, uint32_t word, uint64_t free, uint32_t min, uint32_t *shorter)
{
  uint64_t next = bl->bits[word + 1];
  uint32_t n = 1;

  if (min > FAN) { /* only the run that leaves the word at its end can be long enough */
    uint32_t tail = free == ALL_FREE ? FAN : (uint32_t) __builtin_clzll (~free);
    uint32_t slot = word * FAN + (FAN - tail);

    n = tail > 0 ? run_after (bl, slot, min) : 0;
    *shorter = n > FAN ? n : FAN;
    return n == min ? slot : NONE;
  }
  while (free && n < min) { /* bit i of free: the n slots from i on are free */
    uint32_t step = min_u32 (n, min - n);

    free &= free >> step | next << (FAN - step);
    next &= next >> step;
    n += step;
  }
  *shorter = n - 1;
  return free ? word * FAN + (uint32_t) __builtin_ctzll (free) : NONE;
}

/* The first run of min that starts behind the word of the cursor or, from 0 again, up to that word; NONE if there is
 * none, which is remembered. */
static NOINLINE uint32_t
find (struct blist *bl, uint32_t min)
{
  uint32_t begin = bl->cursor / FAN, nwords = bl->level[0].nhints, w = begin + 1, way = 0;
  uint8_t class = class_of (min);
  uint64_t more = 0;

  if (bl->level[0].hint[w] < class)
    w = next_candidate (bl, w, class, &more);
  for (;;) {
    uint32_t shorter, slot, from_begin = w > begin ? w - begin : w + nwords + 1 - begin;

    if (w == NONE || from_begin <= way) { /* nothing, or once around */
      bl->longest = min - 1;
      return NONE;
    }
    slot = probe (bl, w, bl->bits[w], min, &shorter);
    if (slot != NONE)
      return slot;
    bl->level[0].hint[w] = class_of (shorter);
    way = from_begin;
    if (more) {
      w = w / FAN * FAN + (uint32_t) __builtin_ctzll (more);
      more &= more - 1;
    } else {
      w = next_candidate (bl, w + 1, class, &more);
    }
  }
}

/* Lower the hint of the word to the longest run that starts there, but one less than a power of two. */
static NOINLINE void
tighten_hint (struct blist *bl, uint32_t word)
{
  uint64_t free = bl->bits[word], next = bl->bits[word + 1];
  uint32_t shorter = 1;

  for (; free && shorter < FAN; shorter *= 2) {
    free &= free >> shorter | next << (FAN - shorter);
    next &= next >> shorter;
  }
  if (!free && shorter - 1 < bl->level[0].hint[word])
    lower_hint (bl, word, class_of (shorter - 1));
}

/* n slots of a run that starts in the word were taken. Where that may be most of what its hint promised, make it exact. */
static inline void
correct_hint (struct blist *bl, uint32_t word, uint64_t free, uint32_t n)
{
  if (free == 0)
    bl->level[0].hint[word] = 0;
  else if (n > 1 && bl->level[0].hint[word] < 2 * n)
    tighten_hint (bl, word);
}

/* Take n slots that reach the end of the first one's word. */
static NOINLINE void
take_words (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t slot = first, left = n, w = first / FAN;

  bl->bits[w] &= ~next_mask (&slot, &left);
  correct_hint (bl, w, bl->bits[w], n);
  while (left > 0) {
    w = slot / FAN;
    if ((bl->bits[w] &= ~next_mask (&slot, &left)) == 0)
      bl->level[0].hint[w] = 0;
  }
  cover_rest (bl, slot);
}

/* Take n slots, all of them free. */
static inline void
take (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t w = first / FAN;
  bool covered =
    !is_behind_free (bl, first); /* the run started in w, and what is left of it still does */

  bl->nfree -= n;
  bl->cursor = first + n;
  if (first % FAN + n < FAN) { /* the common case, without a loop */
    uint64_t left = bl->bits[w] & ~(~(ALL_FREE << n) << first % FAN);

    bl->bits[w] = left;
    correct_hint (bl, w, left, n);
    if (!covered)
      cover_rest (bl, first + n);
    return;
  }
  take_words (bl, first, n);
}

/* Take a run from first on, if it is not NONE, or else from the cursor on. */
static inline int
alloc (struct blist *bl, uint32_t first, uint32_t min, uint32_t max, struct slot_run *run)
{
  uint32_t n;

  if (first == NONE) {
    uint32_t w = bl->cursor / FAN, shorter;

    if (min == 1 || bl->level[0].hint[w] >= class_of (min) || is_behind_free (bl, bl->cursor))
      first = probe (bl, w, bl->bits[w] & ALL_FREE << bl->cursor % FAN, min, &shorter);
    if (first == NONE)
      first = find (bl, min);
    if (first == NONE)
      return -ENOSPC;
  }
  n = min == max ? min : run_after (bl, first, max);
  take (bl, first, n);
  *run = (struct slot_run){ .first = first, .n = n };
  return 0;
}

int
blist_alloc (struct blist *bl, uint32_t min, uint32_t max, struct slot_run *run)
{
  if (min < 1 || min > max || min > BLIST_MIN_MAX)
    return -EINVAL;
  if (min > bl->longest)
    return -ENOSPC;
  return alloc (bl, NONE, min, max, run);
}

int
blist_alloc_at (struct blist *bl, uint32_t prefer, uint32_t min, uint32_t max, struct slot_run *run)
{
  if (min < 1 || min > max || min > BLIST_MIN_MAX)
    return -EINVAL;
  if (min > bl->longest)
    return -ENOSPC;
  if (prefer >= bl->nslots || run_after (bl, prefer, min) < min)
    prefer = NONE;
  return alloc (bl, prefer, min, max, run);
}

/* ---- giving back ---- */

int
blist_free (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t before, length;

  if (first > bl->nslots || n > bl->nslots - first)
    return -EINVAL;
  if (n == 0)
    return 0;
  if (!set_free (bl, first, n))
    return -EINVAL;
  bl->nfree += n;

  /* The run that they are a part of now. If 1024 of it lie before them, its hint says so already. */
  before = run_before (bl, first, BLIST_MIN_MAX);
  length = min_u32 (before + min_u32 (n, BLIST_MIN_MAX), BLIST_MIN_MAX);
  if (length < BLIST_MIN_MAX)
    length += run_after (bl, first + n, BLIST_MIN_MAX - length);
  if (before < BLIST_MIN_MAX)
    raise_hint (bl, (first - before) / FAN, class_of (length));
  if (bl->longest < length)
    bl->longest = length;
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

/* The first slot from from on that is free (or used); nslots if there is none. */
static inline uint32_t
next_slot (const struct blist *bl, uint32_t from, uint32_t end, bool free)
{
  uint64_t flip = free ? 0 : ALL_FREE, found;
  uint32_t w = from / FAN, nwords = (end + FAN - 1) / FAN, slot;

  if (from >= end)
    return end;
  found = (bl->bits[w] ^ flip) & ALL_FREE << from % FAN;
  while (!found) {
    if (++w == nwords)
      return end;
    found = bl->bits[w] ^ flip;
  }
  slot =
    w * FAN + (uint32_t) __builtin_ctzll (found); /* may be behind the last one, which looks used */
  return slot < end ? slot : end;
}

uint32_t
blist_take (struct blist *bl, uint32_t first, uint32_t n)
{
  uint32_t nfree;

  if (first >= bl->nslots)
    return 0;
  n = next_slot (bl, first, first + min_u32 (n, bl->nslots - first), false) - first;
  if (n > 0)
    blist_fill (bl, first, n, &nfree);
  return n;
}

void
blist_prefetch (const struct blist *bl, uint32_t slot)
{
  __builtin_prefetch (&bl->bits[slot / FAN], 1);
  __builtin_prefetch (&bl->level[0].hint[slot / FAN], 1);
}

bool
blist_next_before (const struct blist *bl, uint32_t from, uint32_t end, bool free,
                   struct slot_run *run)
{
  uint32_t first = next_slot (bl, from, end, free);

  if (first == end)
    return false;
  *run = (struct slot_run){ .first = first, .n = next_slot (bl, first, end, !free) - first };
  return true;
}

bool
blist_next (const struct blist *bl, uint32_t from, bool free, struct slot_run *run)
{
  return blist_next_before (bl, from, bl->nslots, free, run);
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
  uint32_t nwords = bl->level[0].nhints, tail = bl->nslots % FAN;
  struct slot_run run = { 0 };
  uint64_t nfree = 0;

  while (blist_next (bl, run.first + run.n, true, &run)) {
    nfree += run.n;
    if (bl->level[0].hint[run.first / FAN] < class_of (run.n))
      return false;
    if (bl->longest < min_u32 (run.n, BLIST_MIN_MAX))
      return false;
  }
  for (unsigned k = 0; k + 1 < bl->nlevels; k++)
    for (uint32_t i = 0; i < bl->level[k].nhints; i++)
      if (bl->level[k].hint[i] > bl->level[k + 1].hint[i / FAN])
        return false;
  if (bl->bits[-1] || bl->bits[nwords] || bl->bits[nwords + 1])
    return false;
  if (tail > 0 && bl->bits[nwords - 1] >> tail)
    return false;
  return nfree == bl->nfree && bl->cursor <= bl->nslots;
}
