/* SPDX-License-Identifier: BSD-3-Clause
 *
 * log.h - where lib/ says what a person must know: one line a message, without newline, that names the thing and
 * the way out. The program that uses lib/ sets the sink once, before anything else; without one, stderr.
 */
#ifndef DRUM_LOG_H
#define DRUM_LOG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>

enum log_level {
  LEVEL_ERROR,   /* what was asked for is not done */
  LEVEL_WARNING, /* it is done, but someone should look */
  LEVEL_NOTICE,  /* worth a line in the log of a healthy server */
};

typedef void log_sink (enum log_level level, const char *fmt, va_list args);

/* NULL: stderr. Returns the one before. */
log_sink *log_set_sink (log_sink *sink);

void log_error (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));
void log_warning (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));
void log_notice (const char *fmt, ...) __attribute__ ((format (printf, 1, 2)));

/* What this thread says, for whoever asked for its work, beside the sink. Lines, with a newline between two; NULL if there were
 * none. Of very many the first ones, some 16 KiB. */
struct log_capture {
  char *errors, *warnings;
  bool quiet;
};

/* From here to log_capture_end, on this thread; not nested. quiet: errors are nobody else's business, and do not go to the sink. The
 * strings are then the caller's to free. */
void log_capture_begin (struct log_capture *capture, bool quiet);
void log_capture_end (void);
void log_capture_free (struct log_capture *capture);

/* "1.5G": a size as swapon(8) prints it, in buf of at least 16 bytes; returns buf. */
const char *format_bytes (uint64_t bytes, char buf[16]);

#endif
