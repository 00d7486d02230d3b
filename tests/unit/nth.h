/* SPDX-License-Identifier: BSD-3-Clause
 *
 * nth.h - a test in which the n-th call of anything that can fail, fails; for every n.
 *
 * The linker sends the calls of lib/ through the test (--wrap), which says WRAP for each of them. One thread.
 */
#ifndef DRUM_UNIT_NTH_H
#define DRUM_UNIT_NTH_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { DISARMED = -1 };

extern int fail_in; /* so many calls from now */
extern const char *failed_call;
extern int nallocated; /* allocations that were not freed */

/* Is it this call's turn to fail? Then errno is err. */
bool fails (const char *call, int err);

#define WRAP(type, name, parameters, arguments, failure, err) \
  type __real_##name parameters;                              \
  type __wrap_##name parameters;                              \
  type __wrap_##name parameters                               \
  {                                                           \
    if (fails (#name, err))                                   \
      return failure;                                         \
    return __real_##name arguments;                           \
  }

/* The same for what gives memory. */
#define WRAP_ALLOC(name, parameters, arguments) \
  void *__real_##name parameters;               \
  void *__wrap_##name parameters;               \
  void *__wrap_##name parameters                \
  {                                             \
    void *mem = NULL;                           \
                                                \
    if (!fails (#name, ENOMEM))                 \
      mem = __real_##name arguments;            \
    nallocated += mem != NULL;                  \
    return mem;                                 \
  }

#define WRAP_FREE               \
  void __real_free (void *mem); \
  void __wrap_free (void *mem); \
  void __wrap_free (void *mem)  \
  {                             \
    nallocated -= mem != NULL;  \
    __real_free (mem);          \
  }

/* What takes a variable number of arguments. */
#define WRAP_ASPRINTF                                                                           \
  int __wrap_asprintf (char **s, const char *fmt, ...) __attribute__ ((format (printf, 2, 3))); \
  int __wrap_asprintf (char **s, const char *fmt, ...)                                          \
  {                                                                                             \
    va_list args;                                                                               \
    int ret;                                                                                    \
                                                                                                \
    if (fails ("asprintf", ENOMEM))                                                             \
      return -1;                                                                                \
    va_start (args, fmt);                                                                       \
    ret = vasprintf (s, fmt, args);                                                             \
    va_end (args);                                                                              \
    nallocated += ret != -1;                                                                    \
    return ret;                                                                                 \
  }

#define WRAP_OPENAT                                                                  \
  int __real_openat (int dirfd, const char *path, int flags, ...);                   \
  int __wrap_openat (int dirfd, const char *path, int flags, ...);                   \
  int __wrap_openat (int dirfd, const char *path, int flags, ...)                    \
  {                                                                                  \
    va_list args;                                                                    \
    mode_t mode;                                                                     \
                                                                                     \
    va_start (args, flags);                                                          \
    mode = flags & O_CREAT ? va_arg (args, mode_t) : 0;                              \
    va_end (args);                                                                   \
    return fails ("openat", EMFILE) ? -1 : __real_openat (dirfd, path, flags, mode); \
  }

#endif
