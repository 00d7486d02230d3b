/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "parse.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "log.h"
#include "swapdev.h"

int
parse_size (const char *parameter, const char *text, uint64_t *bytes)
{
  static const char units[] = "bkmgtpe";
  unsigned long long value;
  unsigned shift = 0;
  char *end;

  errno = 0;
  value = strtoull (text, &end, 10);
  if (!isdigit ((unsigned char) *text))
    goto bad;
  if (*end) {
    const char *unit = strchr (units, tolower ((unsigned char) *end));

    if (end[1] || (!unit && *end != 's' && *end != 'S'))
      goto bad;
    shift = unit ? 10 * (unsigned) (unit - units) : 9;
  }
  if (errno == ERANGE || value > (uint64_t) INT64_MAX >> shift) {
    log_error ("%s: %s is too large: 8E less one byte is the most that a size can be", parameter,
               text);
    return -EINVAL;
  }
  *bytes = (uint64_t) value << shift;
  return 0;
bad:
  log_error ("%s: \"%s\" is not a size: write digits and one of K, M, G, T, as in 64M", parameter,
             text);
  return -EINVAL;
}

int
parse_int (const char *parameter, const char *text, int min, int max, int *value)
{
  char *end;
  long n;

  errno = 0;
  n = strtol (text, &end, 10);
  if (end == text || *end || isspace ((unsigned char) *text) || errno || n < min || n > max) {
    log_error ("%s: \"%s\" is not a number from %d to %d", parameter, text, min, max);
    return -EINVAL;
  }
  *value = (int) n;
  return 0;
}

/* 0, 1, or -1 for what is neither. */
static int
find_switch (const char *text)
{
  static const char *const words[] = { "no", "yes", "off", "on", "false", "true", "0", "1" };

  for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++)
    if (strcasecmp (text, words[i]) == 0)
      return i % 2;
  return -1;
}

int
parse_bool (const char *parameter, const char *text, bool *value)
{
  int is = find_switch (text);

  if (is >= 0) {
    *value = is;
    return 0;
  }
  log_error ("%s: \"%s\" is neither yes nor no", parameter, text);
  return -EINVAL;
}

int
parse_lock (const char *parameter, const char *text, enum memlock_mode *mode)
{
  int is = find_switch (text);

  if (is < 0 && strcasecmp (text, "strict") != 0) {
    log_error ("%s: \"%s\" is none of no, yes and strict", parameter, text);
    return -EINVAL;
  }
  *mode = is < 0 ? MEMLOCK_STRICT : is ? MEMLOCK_YES : MEMLOCK_NO;
  return 0;
}

/* Cut the path off *rest, up to a comma that stands alone, and put single commas into it. */
static char *
cut_path (char **rest)
{
  char *from = *rest, *path = from, *to = from;

  for (; *from; *to++ = *from++) {
    if (*from != ',')
      continue;
    if (from[1] != ',')
      break;
    from++;
  }
  *rest = *from ? from + 1 : NULL;
  *to = '\0';
  return path;
}

/* The options that a device may have, each once. */
enum { PRIO, SIZE, MAXIO, NOPTIONS };

static const char *const option_name[NOPTIONS] = { "prio=", "size=", "maxio=" };

static int
set_size (const char *parameter, const char *text, struct swapdev_spec *spec)
{
  uint64_t bytes;
  int ret = parse_size (parameter, text, &bytes);

  if (ret < 0)
    return ret;
  if (bytes == 0) {
    log_error ("%s 0 is no size for a device: leave size= out to take a file as it is", parameter);
    return -EINVAL;
  }
  spec->create_bytes = bytes;
  return 0;
}

static int
set_maxio (const char *parameter, const char *text, struct swapdev_spec *spec)
{
  int n, ret = parse_int (parameter, text, 1, SWAP_MAXIO_MAX, &n);

  if (ret == 0)
    spec->maxio = (unsigned) n;
  return ret;
}

static int
parse_option (const char *option, struct swapdev_spec *spec, unsigned *has)
{
  char parameter[PATH_MAX + 16];
  const char *text = NULL;
  unsigned i;

  for (i = 0; i < NOPTIONS; i++)
    if (strncmp (option, option_name[i], strlen (option_name[i])) == 0) {
      text = option + strlen (option_name[i]);
      break;
    }
  if (!text) {
    log_error (
      "%s: \"%s\" is none of prio=N, size=SIZE and maxio=N; a comma in a path is written ,,",
      spec->path, option);
    return -EINVAL;
  }
  snprintf (parameter, sizeof parameter, "%s: %s", spec->path, option_name[i]);
  if (*has & 1u << i) {
    log_error ("%s is given twice", parameter);
    return -EINVAL;
  }
  *has |= 1u << i;
  switch (i) {
  case PRIO:
    return parse_int (parameter, text, SWAP_PRIO_MIN, SWAP_PRIO_MAX, &spec->prio);
  case SIZE:
    return set_size (parameter, text, spec);
  default:
    return set_maxio (parameter, text, spec);
  }
}

int
parse_device (const char *text, struct swapdev_spec *spec)
{
  struct swapdev_spec parsed = { .prio = SWAP_PRIO_DEFAULT };
  char *copy = strdup (text), *rest = copy;
  unsigned has = 0;
  int ret = 0;

  if (!copy)
    return -ENOMEM;
  parsed.path = cut_path (&rest);
  if (!*parsed.path) {
    log_error ("device=%s: the path is empty: write device=PATH[,prio=N][,size=SIZE][,maxio=N]",
               text);
    ret = -EINVAL;
  }
  while (ret == 0 && rest)
    ret = parse_option (strsep (&rest, ","), &parsed, &has);
  if (ret < 0) {
    free (copy);
    return ret;
  }
  *spec = parsed; /* its path is copy */
  return 0;
}
