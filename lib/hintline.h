/* SPDX-License-Identifier: BSD-3-Clause
 *
 * hintline.h - a line of 64 hints of a blist, looked at all at once: blist.c's own.
 *
 * A line is 64 bytes, aligned to 64. With SSE2, which every x86-64 has, or in plain C, eight bytes at a time
 * (BLIST_PORTABLE forces that, for its test).
 */
#ifndef DRUM_HINTLINE_H
#define DRUM_HINTLINE_H

#include <stdint.h>

enum { HINTLINE = 64 };

#if defined(__SSE2__) && !defined(BLIST_PORTABLE)

#include <emmintrin.h>

static inline uint64_t
quarter_at_least (__m128i hints, __m128i class)
{
  __m128i match = _mm_cmpeq_epi8 (_mm_max_epu8 (hints, class), hints);

  return (unsigned) _mm_movemask_epi8 (match);
}

/* Bit i of the result: line[i] >= class. */
static inline uint64_t
line_at_least (const uint8_t *line, uint8_t class)
{
  const __m128i *hints = (const __m128i *) line;
  __m128i c = _mm_set1_epi8 ((char) class);

  return quarter_at_least (hints[0], c) | quarter_at_least (hints[1], c) << 16 |
         quarter_at_least (hints[2], c) << 32 | quarter_at_least (hints[3], c) << 48;
}

/* The largest hint of the line but the one at except. */
static inline uint8_t
line_max (const uint8_t *line, uint32_t except)
{
  const __m128i *hints = (const __m128i *) line;
  __m128i index = _mm_setr_epi8 (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  __m128i max = _mm_setzero_si128 ();

  for (unsigned i = 0; i < 4; i++) {
    __m128i out = _mm_cmpeq_epi8 (index, _mm_set1_epi8 ((char) (except - 16 * i)));
    max = _mm_max_epu8 (max, _mm_andnot_si128 (out, hints[i]));
  }
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 8));
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 4));
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 2));
  max = _mm_max_epu8 (max, _mm_srli_si128 (max, 1));
  return (uint8_t) _mm_cvtsi128_si32 (max);
}

#else /* in plain C */

#include <endian.h>
#include <string.h>

/* Bit i of the result: line[i] >= class. Eight hints at a time. */
static inline uint64_t
line_at_least (const uint8_t *line, uint8_t class)
{
  const uint64_t ones = UINT64_C (0x0101010101010101), tops = ones << 7, c = ones * class;
  uint64_t found = 0;

  for (unsigned i = 0; i < 8; i++) {
    uint64_t hints, low, match;

    memcpy (&hints, line + 8 * i, sizeof hints);
    hints = le64toh (hints);
    low = (hints | tops) - (c & ~tops); /* the top bit of each: its lower bits are not less */
    match = ((hints & ~c) | (~(hints ^ c) & low)) & tops;
    found |= (match >> 7) * UINT64_C (0x0102040810204080) >> 56 << 8 * i;
  }
  return found;
}

/* The largest hint of the line but the one at except. */
static inline uint8_t
line_max (const uint8_t *line, uint32_t except)
{
  uint8_t max = 0;

  for (uint32_t i = 0; i < HINTLINE; i++)
    if (line[i] > max && i != except)
      max = line[i];
  return max;
}

#endif

#endif
