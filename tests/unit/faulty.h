/* SPDX-License-Identifier: BSD-3-Clause
 *
 * faulty.h - what goes wrong on the devices of a test that is linked with --wrap=preadv and --wrap=pwritev.
 *
 * Rules say which calls: those of lib/ go through here; the first rule that acts on a call decides. Any thread.
 */
#ifndef DRUM_UNIT_FAULTY_H
#define DRUM_UNIT_FAULTY_H

#include <stdbool.h>
#include <stdint.h>

enum faulty_calls { FAULTY_READ = 1, FAULTY_WRITE = 2, FAULTY_BOTH = 3 };

enum faulty_action {
  FAULTY_FAIL,    /* nothing is done: -1 and .error */
  FAULTY_TEAR,    /* half of it is done, and then it fails */
  FAULTY_CORRUPT, /* done, but a byte of its first slot is another; what was written so stays so */
};

struct faulty {
  const char *name; /* of the file in the scratch folder; NULL: any */
  enum faulty_calls calls;
  enum faulty_action action;
  int error;
  uint32_t first, end; /* of the device's slots; end 0: all */
  unsigned skip;       /* so many go through before the first it acts on */
  unsigned count;      /* it acts on so many; 0: on all from there on */
};

void faulty_add (const struct faulty *rule);

/* All is well from here on. The counts stay until the next faulty_add after that. */
void faulty_clear (void);

/* Calls that some rule matched, and those on which one acted. */
unsigned faulty_ncalls (void);
unsigned faulty_nacted (void);

#endif
