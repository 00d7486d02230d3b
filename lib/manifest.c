/* SPDX-License-Identifier: BSD-3-Clause */
#include <config.h>

#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <xxhash.h>

#include "devio.h"
#include "drum-devices.h"
#include "log.h"
#include "swapdev.h"
#include "units.h"

typedef struct json_object json;

#define NEW_NAME MANIFEST_NAME ".new"

enum {
  MAX_BYTES = 64 << 20, /* far more than there can be */
  MAX_DEPTH = 8,
  CHECK_BYTES = sizeof "xxh3 0123456789abcdef\n" - 1,
};

/* ---- what stands in it ---- */

enum kind { UUID, TEXT, PATH, U64, U32, INT, BOOL, LIST };

/* A member of a struct, and what it may be. The list ends with one that has no key. */
struct field {
  const char *key;
  enum kind kind;
  size_t at;
  int64_t min; /* of a number, or of bytes in a text */
  uint64_t max;
  /* LIST: an array on the heap, and how long it is */
  size_t n_at, item_bytes;
  const struct field *item;
};

#define FIELD(of, name_, kind_, ...)                                             \
  {                                                                              \
    .key = #name_, .kind = kind_, .at = offsetof (struct of, name_), __VA_ARGS__ \
  }
#define TERM(name_, kind_, ...)                                                         \
  {                                                                                     \
    .key = #name_, .kind = kind_, .at = offsetof (struct manifest_export, terms.name_), \
    __VA_ARGS__                                                                         \
  }
#define RANGE(min_, max_) .min = min_, .max = max_
#define END     \
  {             \
    .key = NULL \
  }

static const struct field device_fields[] = {
  FIELD (manifest_device, uuid, UUID),
  FIELD (manifest_device, path, PATH),
  FIELD (manifest_device, first, U32, RANGE (1, SLOT_MAX)),
  FIELD (manifest_device, nslots, U32, RANGE (SWAPDEV_MIN_SLOTS, SLOT_MAX)),
  FIELD (manifest_device, prio, INT, RANGE (SWAP_PRIO_MIN, SWAP_PRIO_MAX)),
  FIELD (manifest_device, given_prio, INT, RANGE (SWAP_PRIO_MIN, SWAP_PRIO_MAX)),
  FIELD (manifest_device, maxio, U32, RANGE (0, SWAP_MAXIO_MAX)),
  FIELD (manifest_device, given_maxio, U32, RANGE (0, SWAP_MAXIO_MAX)),
  FIELD (manifest_device, state, INT, RANGE (DEVICE_OPEN, DEVICE_FAILED)),
  FIELD (manifest_device, leaving, BOOL),
  FIELD (manifest_device, leave_force, BOOL),
  FIELD (manifest_device, leave_rate, U64, RANGE (0, UINT64_MAX)),
  END,
};

static const struct field removed_fields[] = { { .key = "path", .kind = PATH }, END };

static const struct field removed_export_fields[] = { { .key = "name", .kind = TEXT, .max = 4096 },
                                                      END };

static const struct field export_fields[] = {
  FIELD (manifest_export, name, TEXT, RANGE (0, 4096)),
  FIELD (manifest_export, size_bytes, U64, RANGE (PAGE_BYTES, INT64_MAX)),
  FIELD (manifest_export, number, U64, RANGE (1, UINT64_MAX)),
  FIELD (manifest_export, next_bytes, U64, RANGE (0, INT64_MAX)),
  FIELD (manifest_export, moving_to, U64, RANGE (0, UINT64_MAX)),
  TERM (reserve_bytes, U64, RANGE (0, INT64_MAX)),
  TERM (limit_bytes, U64, RANGE (0, INT64_MAX)),
  TERM (weight, U32, RANGE (1, EXPORT_WEIGHT_MAX)),
  TERM (iops, U64, RANGE (0, UINT64_MAX)),
  TERM (bandwidth, U64, RANGE (0, UINT64_MAX)),
  TERM (exclusive, BOOL),
  FIELD (manifest_export, given, TEXT, RANGE (0, 4096)),
  FIELD (manifest_export, pattern, TEXT, RANGE (0, 4096)),
  FIELD (manifest_export, idle, U64, RANGE (0, UINT32_MAX)),
  END,
};

static const struct field client_fields[] = {
  FIELD (manifest_client, id, TEXT, RANGE (1, 4096)),
  FIELD (manifest_client, epoch, U64, RANGE (0, UINT64_MAX)),
  END,
};

#define LIST_FIELD(name_, max_, fields_)                                               \
  {                                                                                    \
    .key = #name_, .kind = LIST, .at = offsetof (struct manifest, name_), .max = max_, \
    .n_at = offsetof (struct manifest, n##name_),                                      \
    .item_bytes = sizeof *((struct manifest *) NULL)->name_, .item = fields_           \
  }

static const struct field manifest_fields[] = {
  FIELD (manifest, state, UUID),
  FIELD (manifest, drum, UUID),
  FIELD (manifest, generation, U64, RANGE (0, UINT64_MAX)),
  FIELD (manifest, starting, BOOL),
  FIELD (manifest, boot, UUID),
  LIST_FIELD (devices, DRUM_MAX_DEVICES, device_fields),
  LIST_FIELD (removed, UINT_MAX, removed_fields),
  LIST_FIELD (exports, UINT_MAX, export_fields),
  LIST_FIELD (removed_exports, UINT_MAX, removed_export_fields),
  LIST_FIELD (clients, UINT_MAX, client_fields),
  END,
};

/* The array that f is in from, and its length. */
static char *
list_items (const struct field *f, const void *from, unsigned *n)
{
  char *items;

  memcpy (&items, (const char *) from + f->at, sizeof items);
  memcpy (n, (const char *) from + f->n_at, sizeof *n);
  return items;
}

static void
free_fields (const struct field *f, void *of)
{
  for (; f->key; f++)
    if (f->kind == TEXT || f->kind == PATH)
      free (*(char **) ((char *) of + f->at));
    else if (f->kind == LIST) {
      unsigned n;
      char *items = list_items (f, of, &n);

      for (unsigned i = 0; i < n; i++)
        free_fields (f->item, items + i * f->item_bytes);
      free (items);
    }
}

void
manifest_free (struct manifest *m)
{
  free_fields (manifest_fields, m);
  *m = (struct manifest){ .ndevices = 0 };
}

/* of is a copy byte by byte: give it strings and arrays of its own, or none where there is no memory. */
static int
copy_fields (const struct field *f, void *of)
{
  int ret = 0;

  for (; f->key; f++) {
    char **at = (char **) ((char *) of + f->at);

    if (f->kind == TEXT || f->kind == PATH) {
      *at = strdup (*at);
      ret = *at ? ret : -ENOMEM;
    } else if (f->kind == LIST) {
      unsigned n;
      const char *from = list_items (f, of, &n);
      char *items = calloc (n ? n : 1, f->item_bytes);

      if (!items) {
        ret = -ENOMEM;
        n = 0;
      } else if (n > 0)
        memcpy (items, from, n * f->item_bytes);
      *at = items;
      memcpy ((char *) of + f->n_at, &n, sizeof n);
      for (unsigned i = 0; i < n; i++)
        if (copy_fields (f->item, items + i * f->item_bytes) < 0)
          ret = -ENOMEM;
    }
  }
  return ret;
}

int
manifest_copy (const struct manifest *from, struct manifest *to)
{
  struct manifest m = *from;
  int ret = copy_fields (manifest_fields, &m);

  if (ret < 0)
    manifest_free (&m);
  else
    *to = m;
  return ret;
}

/* ---- to JSON ---- */

static json *new_list (const struct field *f, const void *from);

static json *
new_value (const struct field *f, const void *from)
{
  const void *at = (const char *) from + f->at;
  char uuid[UUID_STR_LEN];

  switch (f->kind) {
  case UUID:
    uuid_unparse_lower (at, uuid);
    return json_object_new_string (uuid);
  case TEXT:
  case PATH:
    return json_object_new_string (*(char *const *) at);
  case U64:
    return json_object_new_uint64 (*(const uint64_t *) at);
  case U32:
    return json_object_new_uint64 (*(const uint32_t *) at);
  case INT:
    return json_object_new_int (*(const int *) at);
  case BOOL:
    return json_object_new_boolean (*(const bool *) at);
  case LIST:
    return new_list (f, from);
  }
  return NULL;
}

/* Adds value, which may be NULL, and is to's from now on. False: out of memory. */
static bool
add (json *to, const char *key, json *value)
{
  /* A key that json-c copies is lost when its table can't grow. */
  if (value && json_object_object_add_ex (to, key, value, JSON_C_OBJECT_ADD_CONSTANT_KEY) == 0)
    return true;
  json_object_put (value);
  return false;
}

static bool
add_fields (json *to, const struct field *f, const void *from)
{
  for (; f->key; f++)
    if (!add (to, f->key, new_value (f, from)))
      return false;
  return true;
}

static json *
new_item (const struct field *fields, const void *from)
{
  json *item = json_object_new_object ();

  if (item && add_fields (item, fields, from))
    return item;
  json_object_put (item);
  return NULL;
}

static json *
new_list (const struct field *f, const void *from)
{
  unsigned n;
  char *items = list_items (f, from, &n);
  json *array = json_object_new_array ();

  for (unsigned i = 0; array && i < n; i++) {
    json *item = new_item (f->item, items + i * f->item_bytes);

    if (!item || json_object_array_add (array, item) < 0) {
      json_object_put (item);
      json_object_put (array);
      return NULL;
    }
  }
  return array;
}

/* The line that follows text. */
static void
make_check (const char *text, size_t len, char line[CHECK_BYTES + 1])
{
  snprintf (line, CHECK_BYTES + 1, "xxh3 %016" PRIx64 "\n", (uint64_t) XXH3_64bits (text, len));
}

/* All that stands in the file, the caller's. NULL: out of memory. */
static char *
encode (const struct manifest *m, size_t *len)
{
  json *root = json_object_new_object ();
  const char *json_text = NULL;
  char *text = NULL;

  if (root && add (root, "version", json_object_new_int (MANIFEST_VERSION)) &&
      add_fields (root, manifest_fields, m)) {
    /* json-c leaves out what it has no memory for; malloc's errno is all that tells. */
    errno = 0;
    json_text = json_object_to_json_string_length (
      root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE, len);
  }
  if (json_text && errno != ENOMEM)
    text = malloc (*len + 1 + CHECK_BYTES + 1);
  if (text) {
    memcpy (text, json_text, *len);
    text[(*len)++] = '\n';
    make_check (text, *len, text + *len);
    *len += CHECK_BYTES;
  }
  json_object_put (root);
  return text;
}

/* ---- from JSON ---- */

/* What is wrong with it; ret is 0 until something is. */
struct fault {
  int ret;
  char why[200];
};

static void find (struct fault *fault, int ret, const char *fmt, ...)
  __attribute__ ((format (printf, 3, 4)));

static void
find (struct fault *fault, int ret, const char *fmt, ...)
{
  va_list args;

  if (fault->ret)
    return; /* the first one counts */
  va_start (args, fmt);
  vsnprintf (fault->why, sizeof fault->why, fmt, args);
  va_end (args);
  fault->ret = ret;
}

static void
find_no_memory (struct fault *fault)
{
  find (fault, -ENOMEM, "%s", strerror (ENOMEM));
}

static bool
is_number (json *value, int64_t min, uint64_t max)
{
  if (!json_object_is_type (value, json_type_int) || json_object_get_int64 (value) < min)
    return false;
  return json_object_get_int64 (value) < 0 || json_object_get_uint64 (value) <= max;
}

/* None that a 0 would cut. */
static bool
is_text (json *value)
{
  return json_object_is_type (value, json_type_string) &&
         strlen (json_object_get_string (value)) == (size_t) json_object_get_string_len (value);
}

static bool
take_uuid (json *value, uuid_t uuid)
{
  return json_object_is_type (value, json_type_string) &&
         json_object_get_string_len (value) == UUID_STR_LEN - 1 &&
         uuid_parse (json_object_get_string (value), uuid) == 0;
}

static void take_fields (json *from, const struct field *f, void *to, struct fault *fault);

static bool
take_list (json *value, const struct field *f, void *to, struct fault *fault)
{
  char *items;
  size_t length;
  unsigned n;

  if (!json_object_is_type (value, json_type_array))
    return false;
  length = json_object_array_length (value);
  if (length > UINT_MAX)
    return false;
  n = (unsigned) length;
  if (n == 0)
    return true;
  items = calloc (n, f->item_bytes);
  if (!items) {
    find_no_memory (fault);
    return true;
  }
  memcpy ((char *) to + f->at, &items, sizeof items);
  memcpy ((char *) to + f->n_at, &n, sizeof n);
  for (unsigned i = 0; i < n; i++)
    take_fields (json_object_array_get_idx (value, i), f->item, items + i * f->item_bytes, fault);
  return true;
}

/* False if it is nothing for this field. */
static bool
take_value (json *value, const struct field *f, void *to, struct fault *fault)
{
  void *at = (char *) to + f->at;

  switch (f->kind) {
  case UUID:
    return take_uuid (value, at);
  case TEXT:
  case PATH:
    if (!is_text (value))
      return false;
    *(char **) at = strdup (json_object_get_string (value));
    if (!*(char **) at)
      find_no_memory (fault);
    return true;
  case U64:
    *(uint64_t *) at = json_object_get_uint64 (value);
    return is_number (value, 0, UINT64_MAX);
  case U32:
    *(uint32_t *) at = (uint32_t) json_object_get_uint64 (value);
    return is_number (value, 0, UINT32_MAX);
  case INT:
    *(int *) at = (int) json_object_get_int64 (value);
    return is_number (value, INT_MIN, INT_MAX);
  case BOOL:
    *(bool *) at = json_object_get_boolean (value);
    return json_object_is_type (value, json_type_boolean);
  case LIST:
    return take_list (value, f, to, fault);
  }
  return false;
}

/* to is zeroed, and in any case for free_fields afterwards. */
static void
take_fields (json *from, const struct field *f, void *to, struct fault *fault)
{
  for (; f->key && !fault->ret; f++) {
    json *value;

    if (!json_object_is_type (from, json_type_object) ||
        !json_object_object_get_ex (from, f->key, &value))
      find (fault, -EBADMSG, "a \"%s\" is missing", f->key);
    else if (!take_value (value, f, to, fault))
      find (fault, -EBADMSG, "a \"%s\" is something else", f->key);
  }
}

/* ---- does it make sense? ---- */

static bool check_list (const struct field *f, const void *of, struct fault *fault);

static bool
check_value (const struct field *f, const void *of, struct fault *fault)
{
  const void *at = (const char *) of + f->at;
  size_t len;

  switch (f->kind) {
  case UUID:
  case BOOL:
    return true;
  case TEXT:
    len = strlen (*(char *const *) at);
    return len >= (size_t) f->min && len <= f->max;
  case PATH:
    return **(char *const *) at == '/' && strlen (*(char *const *) at) < PATH_MAX;
  case U64:
    return *(const uint64_t *) at >= (uint64_t) f->min && *(const uint64_t *) at <= f->max;
  case U32:
    return *(const uint32_t *) at >= f->min && *(const uint32_t *) at <= f->max;
  case INT:
    return *(const int *) at >= f->min && *(const int *) at <= (int64_t) f->max;
  case LIST:
    return check_list (f, of, fault);
  }
  return false;
}

static void
check_fields (const struct field *f, const void *of, struct fault *fault)
{
  for (; f->key; f++)
    if (!check_value (f, of, fault))
      find (fault, -EBADMSG, "a \"%s\" is not what it may be", f->key);
}

static bool
check_list (const struct field *f, const void *of, struct fault *fault)
{
  unsigned n;
  char *items = list_items (f, of, &n);

  for (unsigned i = 0; i < n; i++)
    check_fields (f->item, items + i * f->item_bytes, fault);
  return n <= f->max;
}

static int
compare_uuids (const void *a, const void *b)
{
  return uuid_compare (((const struct manifest_device *) a)->uuid,
                       ((const struct manifest_device *) b)->uuid);
}

/* Equal: they overlap, or have no guard slot between them. */
static int
compare_ranges (const void *a, const void *b)
{
  const struct manifest_device *x = a, *y = b;

  if ((uint64_t) x->first + x->nslots < y->first)
    return -1;
  return (uint64_t) y->first + y->nslots < x->first;
}

static int
compare_names (const void *a, const void *b)
{
  return strcmp (((const struct manifest_export *) a)->name,
                 ((const struct manifest_export *) b)->name);
}

static int
compare_numbers (const void *a, const void *b)
{
  uint64_t x = ((const struct manifest_export *) a)->number;
  uint64_t y = ((const struct manifest_export *) b)->number;

  return (x > y) - (x < y);
}

static int
compare_ids (const void *a, const void *b)
{
  return strcmp (((const struct manifest_client *) a)->id,
                 ((const struct manifest_client *) b)->id);
}

/* Finds a fault, unless each item can come before the next. */
static void
check_distinct (const void *items, unsigned n, size_t size,
                int (*compare) (const void *a, const void *b), const char *why, struct fault *fault)
{
  char *sorted;

  if (n < 2 || fault->ret)
    return;
  sorted = malloc (n * size);
  if (!sorted) {
    find_no_memory (fault);
    return;
  }
  memcpy (sorted, items, n * size);
  qsort (sorted, n, size, compare);
  for (unsigned i = 1; i < n; i++)
    if (compare (sorted + (i - 1) * size, sorted + i * size) >= 0)
      find (fault, -EBADMSG, "%s", why);
  free (sorted);
}

static void
check_export (const struct manifest *m, const struct manifest_export *e, struct fault *fault)
{
  unsigned i = 0;

  if (e->size_bytes % PAGE_BYTES || e->next_bytes % PAGE_BYTES ||
      e->terms.reserve_bytes % PAGE_BYTES || e->terms.limit_bytes % PAGE_BYTES)
    find (fault, -EBADMSG, "a size of an export is not in pages");
  while (e->moving_to && i < m->nexports &&
         (m->exports[i].number != e->moving_to || e->moving_to == e->number))
    i++;
  if (e->moving_to && i == m->nexports)
    find (fault, -EBADMSG, "an export moves to one that is not there");
}

static void
check (const struct manifest *m, struct fault *fault)
{
  check_fields (manifest_fields, m, fault);
  for (unsigned i = 0; i < m->ndevices; i++)
    if (m->devices[i].nslots - 1 > SLOT_MAX - m->devices[i].first)
      find (fault, -EBADMSG, "a device ends behind the last slot");
#define CHECK_DISTINCT(list, by, why) \
  check_distinct (m->list, m->n##list, sizeof *m->list, compare_##by, (why), fault)
  CHECK_DISTINCT (devices, uuids, "two devices have one UUID");
  CHECK_DISTINCT (devices, ranges, "two devices overlap");
  CHECK_DISTINCT (exports, names, "two exports have one name");
  CHECK_DISTINCT (exports, numbers, "two exports have one number");
  CHECK_DISTINCT (clients, ids, "a client is there twice");
#undef CHECK_DISTINCT
  for (unsigned i = 0; i < m->nexports; i++)
    check_export (m, &m->exports[i], fault);
}

/* NULL if there is no object, or no memory. *end: where it ends in text. */
static json *
parse (const char *text, size_t len, size_t *end, struct fault *fault)
{
  struct json_tokener *tok = json_tokener_new_ex (MAX_DEPTH);
  json *root = NULL;

  if (tok) {
    json_tokener_set_flags (tok, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
    errno = 0;
    root = json_tokener_parse_ex (tok, text, (int) len);
    *end = json_tokener_get_parse_end (tok);
    json_tokener_free (tok);
  }
  if (!tok || (!root && errno == ENOMEM))
    find_no_memory (fault);
  if (json_object_is_type (root, json_type_object))
    return root;
  find (fault, -EBADMSG, "its JSON has no end, or is none");
  json_object_put (root);
  return NULL;
}

/* The version comes first: what follows the object is that of this version. */
static void
check_text (json *root, const char *text, size_t len, size_t end, struct fault *fault)
{
  char line[CHECK_BYTES + 1];
  json *version;

  if (!json_object_object_get_ex (root, "version", &version) ||
      !json_object_is_type (version, json_type_int)) {
    find (fault, -EBADMSG, "its version is missing");
    return;
  }
  if (json_object_get_int64 (version) != MANIFEST_VERSION) {
    find (fault, -EPROTO, "%s", json_object_get_string (version));
    return;
  }
  end += end < len && text[end] == '\n'; /* json-c may have passed over it */
  if (len != end + CHECK_BYTES) {
    find (fault, -EBADMSG, "its checksum is missing, or not the end");
    return;
  }
  make_check (text, end, line);
  if (memcmp (text + end, line, CHECK_BYTES) != 0)
    find (fault, -EBADMSG, "its checksum is another");
}

/* m is zeroed, and in any case for manifest_free afterwards. */
static void
decode (const char *text, size_t len, struct manifest *m, struct fault *fault)
{
  size_t end = 0;
  /* Twice, since json-c 0.16 may leave out what it has no memory for, and then says nothing. */
  json *root = parse (text, len, &end, fault), *again = parse (text, len, &end, fault);

  if (!fault->ret)
    check_text (root, text, len, end, fault);
  if (!fault->ret && !json_object_equal (root, again))
    find_no_memory (fault);
  if (!fault->ret)
    take_fields (root, manifest_fields, m, fault);
  if (!fault->ret)
    check (m, fault);
  json_object_put (root);
  json_object_put (again);
}

/* ---- the file ---- */

static void
read_file (int fd, char **text, size_t *len, struct fault *fault)
{
  struct devio io = { .fd = fd };
  struct iovec iov;
  struct stat st;
  int ret;

  if (fstat (fd, &st) == -1) {
    find (fault, -errno, "%s", strerror (errno));
    return;
  }
  if (st.st_size > MAX_BYTES) {
    find (fault, -EBADMSG, "it is too large");
    return;
  }
  *len = iov.iov_len = (size_t) st.st_size;
  *text = iov.iov_base = malloc (*len + 1);
  if (!*text) {
    find_no_memory (fault);
    return;
  }
  ret = devio_transfer (&io, 0, &iov, *len > 0, false, NULL);
  if (ret < 0)
    find (fault, ret, "%s", strerror (-ret));
}

static void
say (const char *dir, const struct fault *fault)
{
  if (fault->ret == -EPROTO)
    log_error ("%s/" MANIFEST_NAME ": is of version %s, and this server knows version %d: start "
               "the one that wrote it",
               dir, fault->why, MANIFEST_VERSION);
  else if (fault->ret == -EBADMSG)
    log_error ("%s/" MANIFEST_NAME ": is damaged: %s: put a copy of it there, or begin with an "
               "empty folder, and without what was swapped out",
               dir, fault->why);
  else
    log_error ("%s/" MANIFEST_NAME ": can't be read: %s", dir, fault->why);
}

int
manifest_load (int dirfd, const char *dir, struct manifest *m)
{
  struct manifest loaded = { .ndevices = 0 };
  struct fault fault = { .ret = 0 };
  int fd = openat (dirfd, MANIFEST_NAME, O_RDONLY | O_CLOEXEC);
  char *text = NULL;
  size_t len = 0;

  if (fd == -1 && errno == ENOENT)
    return -ENOENT;
  if (fd == -1)
    find (&fault, -errno, "%s", strerror (errno));
  else {
    read_file (fd, &text, &len, &fault);
    close (fd);
  }
  if (!fault.ret)
    decode (text, len, &loaded, &fault);
  free (text);
  if (fault.ret) {
    say (dir, &fault);
    manifest_free (&loaded);
    return fault.ret;
  }
  *m = loaded;
  return 0;
}

static int
write_file (int dirfd, const char *text, size_t len)
{
  struct devio io = { .fd = openat (dirfd, NEW_NAME,
                                    O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600) };
  struct iovec iov = { .iov_base = (char *) text, .iov_len = len };
  int ret;

  if (io.fd == -1)
    return -errno;
  ret = devio_transfer (&io, 0, &iov, 1, true, NULL);
  if (ret == 0 && fsync (io.fd) == -1)
    ret = -errno;
  close (io.fd);
  return ret;
}

/* The new one takes the old one's place. They change names, so that the old one can come back; where the file system can't do
 * that, or there is no old one, the new one is renamed. */
static int
replace (int dirfd)
{
  bool exchanged = renameat2 (dirfd, NEW_NAME, dirfd, MANIFEST_NAME, RENAME_EXCHANGE) == 0;
  bool was_there = exchanged || errno != ENOENT;
  int ret;

  if (!exchanged && errno != ENOENT && errno != EINVAL && errno != ENOSYS)
    return -errno;
  if (!exchanged && renameat (dirfd, NEW_NAME, dirfd, MANIFEST_NAME) == -1)
    return -errno;
  if (fsync (dirfd) == 0)
    return 0;
  ret = -errno;
  if (exchanged)
    renameat2 (dirfd, NEW_NAME, dirfd, MANIFEST_NAME, RENAME_EXCHANGE);
  else if (!was_there)
    unlinkat (dirfd, MANIFEST_NAME, 0);
  return ret;
}

/* Nothing is left of the one that is not in use: new or old. */
static int
store (int dirfd, const char *text, size_t len)
{
  int ret = write_file (dirfd, text, len);

  if (ret == 0)
    ret = replace (dirfd);
  unlinkat (dirfd, NEW_NAME, 0);
  return ret;
}

int
manifest_save (int dirfd, const char *dir, const struct manifest *m)
{
  struct fault fault = { .ret = 0 };
  size_t len;

  check (m, &fault); /* what could not be loaded is not written */
  if (!fault.ret) {
    char *text = encode (m, &len);
    int ret = text ? store (dirfd, text, len) : -ENOMEM;

    if (ret < 0)
      find (&fault, ret, "%s", strerror (-ret));
    free (text);
  }
  if (fault.ret)
    log_error ("%s/" MANIFEST_NAME ": can't be replaced, and stays as it was: %s", dir, fault.why);
  return fault.ret == -EBADMSG ? -EINVAL : fault.ret;
}
