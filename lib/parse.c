/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "parse.h"

#include <ctype.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "log.h"
#include "session.h"
#include "swapdev.h"
#include "terms.h"
#include "units.h"
#include "utf8.h"

#define LENGTH(array) (sizeof (array) / sizeof (array)[0])

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

  for (unsigned i = 0; i < LENGTH (words); i++)
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

int
parse_io (const char *parameter, const char *text, enum rings_use *use)
{
  static const char *const names[] = {
    [RINGS_AUTO] = "auto",
    [RINGS_ALWAYS] = "uring",
    [RINGS_NEVER] = "sync",
  };

  for (unsigned i = 0; i < LENGTH (names); i++)
    if (strcasecmp (text, names[i]) == 0) {
      *use = (enum rings_use) i;
      return 0;
    }
  log_error ("%s: \"%s\" is none of auto, uring and sync", parameter, text);
  return -EINVAL;
}

int
parse_time (const char *parameter, const char *text, uint64_t *seconds)
{
  static const struct {
    const char *name;
    unsigned seconds;
  } units[] = { { "", 1 }, { "s", 1 }, { "min", 60 }, { "h", 3600 }, { "d", 86400 } };
  unsigned long long value;
  unsigned i = 0;
  char *end;

  value = strtoull (text, &end, 10);
  while (i < LENGTH (units) && strcasecmp (end, units[i].name) != 0)
    i++;
  if (!isdigit ((unsigned char) *text) || i == LENGTH (units)) {
    log_error ("%s: \"%s\" is not a time: write digits and one of s, min, h, d, as in 12h",
               parameter, text);
    return -EINVAL;
  }
  if (value > INT32_MAX / units[i].seconds) {
    log_error ("%s: %s is too long: %d seconds are the most that a time can be", parameter, text,
               INT32_MAX);
    return -EINVAL;
  }
  *seconds = value * units[i].seconds;
  return 0;
}

/* Cut what stands first off *rest, up to a comma that stands alone, and put single commas into it. */
static char *
cut_name (char **rest)
{
  char *from = *rest, *name = from, *to = from;

  for (; *from; *to++ = *from++) {
    if (*from != ',')
      continue;
    if (from[1] != ',')
      break;
    from++;
  }
  *rest = *from ? from + 1 : NULL;
  *to = '\0';
  return name;
}

/* One that may stand behind a name, once, and where its value goes in what is parsed. */
struct option {
  const char *name; /* "prio=" */
  int (*parse) (const char *parameter, const char *text, void *field);
  size_t field;
};

struct syntax {
  const char *form;   /* of one that has a size: "NAME,size=SIZE" */
  const char *wanted; /* what anything else is told */
  const struct option *options;
  unsigned noptions;
};

static int
parse_option (const char *thing, const char *text, const struct syntax *syntax, void *parsed,
              unsigned *has)
{
  char parameter[PATH_MAX + 16];

  for (unsigned i = 0; i < syntax->noptions; i++) {
    const struct option *option = &syntax->options[i];
    size_t len = strlen (option->name);

    if (strncmp (text, option->name, len) != 0)
      continue;
    snprintf (parameter, sizeof parameter, "%s: %s", thing, option->name);
    if (*has & 1u << i) {
      log_error ("%s is given twice", parameter);
      return -EINVAL;
    }
    *has |= 1u << i;
    return option->parse (parameter, text + len, (char *) parsed + option->field);
  }
  log_error ("%s: \"%s\" is none of %s", thing, text, syntax->wanted);
  return -EINVAL;
}

/* rest: what stands behind the name; NULL: nothing does. */
static int
parse_options (const char *thing, char *rest, const struct syntax *syntax, void *parsed)
{
  unsigned has = 0;
  int ret = 0;

  while (ret == 0 && rest)
    ret = parse_option (thing, strsep (&rest, ","), syntax, parsed, &has);
  return ret;
}

static int
parse_prio (const char *parameter, const char *text, void *field)
{
  return parse_int (parameter, text, SWAP_PRIO_MIN, SWAP_PRIO_MAX, field);
}

static int
parse_device_size (const char *parameter, const char *text, void *field)
{
  uint64_t bytes;
  int ret = parse_size (parameter, text, &bytes);

  if (ret < 0)
    return ret;
  if (bytes == 0) {
    log_error ("%s 0 is no size for a device: leave size= out to take a file as it is", parameter);
    return -EINVAL;
  }
  *(uint64_t *) field = bytes;
  return 0;
}

static int
parse_unsigned (const char *parameter, const char *text, int min, int max, unsigned *value)
{
  int n, ret = parse_int (parameter, text, min, max, &n);

  if (ret == 0)
    *value = (unsigned) n;
  return ret;
}

static int
parse_maxio (const char *parameter, const char *text, void *field)
{
  return parse_unsigned (parameter, text, 1, SWAP_MAXIO_MAX, field);
}

int
parse_device (const char *text, struct swapdev_spec *spec)
{
  static const struct option options[] = {
    { "prio=", parse_prio, offsetof (struct swapdev_spec, prio) },
    { "size=", parse_device_size, offsetof (struct swapdev_spec, create_bytes) },
    { "maxio=", parse_maxio, offsetof (struct swapdev_spec, maxio) },
  };
  static const struct syntax syntax = {
    NULL, "prio=N, size=SIZE and maxio=N; a comma in a path is written ,,", options,
    LENGTH (options)
  };
  struct swapdev_spec parsed = { .prio = SWAP_PRIO_DEFAULT };
  char *copy = strdup (text), *rest = copy;
  int ret;

  if (!copy)
    return -ENOMEM;
  parsed.path = cut_name (&rest);
  if (*parsed.path)
    ret = parse_options (parsed.path, rest, &syntax, &parsed);
  else {
    log_error ("device=%s: the path is empty: write device=PATH[,prio=N][,size=SIZE][,maxio=N]",
               text);
    ret = -EINVAL;
  }
  if (ret < 0) {
    free (copy);
    return ret;
  }
  *spec = parsed; /* its path is copy */
  return 0;
}

/* What keeps this from being an export's name, and how much of it is well; NULL: nothing does. */
static const char *
find_fault (const char *name, size_t *good)
{
  struct session_name parsed;
  unsigned n;

  for (*good = 0; name[*good]; *good += n) {
    const char *c = name + *good;

    n = utf8_char (c);
    if (n == 0)
      return "here the name goes on with what is not UTF-8: write it in UTF-8";
    if (utf8_is_control (c))
      return "here the name goes on with a control character: leave it out";
    if (*good + n > EXPORT_NAME_MAX)
      return "the name is longer than that, and may have 255 bytes";
  }
  if (*good == 0)
    return "the name is empty: the default export is made by size= instead";
  if (session_parse (name, &parsed) < 0 || *parsed.id)
    return "the name ends like @ID.EPOCH, by which clients tell who they are: choose another";
  return NULL;
}

static int
check_name (const char *kind, const char *name)
{
  size_t good;
  const char *fault = find_fault (name, &good);

  if (fault)
    log_error ("%s \"%.*s\": %s", kind, (int) good, name, fault);
  return fault ? -EINVAL : 0;
}

int
export_name_check (const char *name)
{
  return check_name ("export", name);
}

bool
export_name_is_valid (const char *name)
{
  size_t good;

  return !find_fault (name, &good);
}

bool
template_matches (const struct export_template *t, const char *name)
{
  return export_name_is_valid (name) && fnmatch (t->spec.name, name, 0) == 0;
}

static int
parse_pages (const char *parameter, const char *text, void *field)
{
  uint64_t bytes;
  int ret = parse_size (parameter, text, &bytes);

  if (ret < 0)
    return ret;
  if (bytes % PAGE_BYTES) {
    log_error ("%s: %s is not a multiple of %u bytes", parameter, text, PAGE_BYTES);
    return -EINVAL;
  }
  *(uint64_t *) field = bytes;
  return 0;
}

static int
parse_weight (const char *parameter, const char *text, void *field)
{
  return parse_unsigned (parameter, text, 1, EXPORT_WEIGHT_MAX, field);
}

static int
parse_iops (const char *parameter, const char *text, void *field)
{
  int n, ret = parse_int (parameter, text, 0, INT_MAX, &n);

  if (ret == 0)
    *(uint64_t *) field = (uint64_t) n;
  return ret;
}

static int
parse_bandwidth (const char *parameter, const char *text, void *field)
{
  return parse_size (parameter, text, field);
}

static int
parse_exclusive (const char *parameter, const char *text, void *field)
{
  return parse_bool (parameter, text, field);
}

static int
parse_max (const char *parameter, const char *text, void *field)
{
  return parse_unsigned (parameter, text, 0, INT_MAX, field);
}

static int
parse_expire (const char *parameter, const char *text, void *field)
{
  uint64_t seconds = 0;
  bool never = strcasecmp (text, "never") == 0;
  int ret = never ? 0 : parse_time (parameter, text, &seconds);

  if (ret < 0)
    return ret;
  if (seconds == 0 && !never) {
    log_error ("%s: %s is no time for a client to come back in: write 12h, say, or never",
               parameter, text);
    return -EINVAL;
  }
  *(uint64_t *) field = seconds;
  return 0;
}

/* Do its sizes go together? */
static int
check_sizes (const char *thing, const char *form, const struct export_spec *spec)
{
  const struct export_terms *terms = &spec->terms;

  if (spec->size_bytes == 0)
    log_error ("%s: its size is not given, or is 0: write %s", thing, form);
  else if (terms->reserve_bytes > spec->size_bytes)
    log_error ("%s: reserve= is %" PRIu64 " bytes, and its size only %" PRIu64
               ": reserve less, or make it larger",
               thing, terms->reserve_bytes, spec->size_bytes);
  else if (terms->limit_bytes && terms->reserve_bytes > terms->limit_bytes)
    log_error ("%s: reserve= is %" PRIu64 " bytes, and its limit= only %" PRIu64
               ": reserve less, or allow more",
               thing, terms->reserve_bytes, terms->limit_bytes);
  else
    return 0;
  return -EINVAL;
}

/* => *parsed has the defaults; its name is the caller's to free, whatever this returns. */
static int
parse_named (const char *kind, const char *text, const struct syntax *syntax,
             struct export_template *parsed)
{
  char thing[EXPORT_NAME_MAX + 32];
  char *rest = strdup (text);
  int ret;

  parsed->spec.name = rest;
  if (!rest)
    return -ENOMEM;
  cut_name (&rest);
  if (!*parsed->spec.name && strcmp (kind, "template") == 0) {
    log_error ("template \"\": the pattern is empty: write template=%s", syntax->form);
    return -EINVAL;
  }
  ret = check_name (kind, parsed->spec.name);
  if (ret < 0)
    return ret;
  snprintf (thing, sizeof thing, "%s \"%s\"", kind, parsed->spec.name);
  ret = parse_options (thing, rest, syntax, parsed);
  return ret < 0 ? ret : check_sizes (thing, syntax->form, &parsed->spec);
}

/* Those of an export, and then those that only templates have. */
static const struct option export_options[] = {
  { "size=", parse_pages, offsetof (struct export_template, spec.size_bytes) },
  { "reserve=", parse_pages, offsetof (struct export_template, spec.terms.reserve_bytes) },
  { "limit=", parse_pages, offsetof (struct export_template, spec.terms.limit_bytes) },
  { "weight=", parse_weight, offsetof (struct export_template, spec.terms.weight) },
  { "iops=", parse_iops, offsetof (struct export_template, spec.terms.iops) },
  { "bandwidth=", parse_bandwidth, offsetof (struct export_template, spec.terms.bandwidth) },
  { "exclusive=", parse_exclusive, offsetof (struct export_template, spec.terms.exclusive) },
  { "max=", parse_max, offsetof (struct export_template, max) },
  { "expire=", parse_expire, offsetof (struct export_template, expire) },
};

int
parse_export (const char *text, struct export_spec *spec)
{
  static const struct syntax syntax = {
    "NAME,size=SIZE",
    "size=SIZE, reserve=SIZE, limit=SIZE, weight=N, iops=N, bandwidth=SIZE and exclusive=yes|no; "
    "a comma in a name is written ,,",
    export_options, LENGTH (export_options) - 2
  };
  struct export_template parsed = { .spec.terms.weight = EXPORT_WEIGHT_DEFAULT };
  int ret = parse_named ("export", text, &syntax, &parsed);

  if (ret == 0)
    *spec = parsed.spec;
  else
    free (parsed.spec.name);
  return ret;
}

int
parse_template (const char *text, struct export_template *t)
{
  static const struct syntax syntax = {
    "PATTERN,size=SIZE",
    "size=SIZE, reserve=SIZE, limit=SIZE, weight=N, iops=N, bandwidth=SIZE, exclusive=yes|no, "
    "max=N and expire=TIME|never; a comma in a pattern is written ,,",
    export_options, LENGTH (export_options)
  };
  struct export_template parsed = { .spec.terms = { .weight = EXPORT_WEIGHT_DEFAULT,
                                                    .exclusive = true } };
  int ret = parse_named ("template", text, &syntax, &parsed);

  if (ret == 0)
    *t = parsed;
  else
    free (parsed.spec.name);
  return ret;
}
