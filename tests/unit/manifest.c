/* SPDX-License-Identifier: BSD-3-Clause
 *
 * manifest.c - tests of lib/manifest.c. The linker sends the calls of lib/ through here.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <xxhash.h>

#include "lib/drum-devices.h"
#include "lib/manifest.h"
#include "lib/swapdev.h"
#include "lib/units.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "files.h"
#include "logged.h"
#include "nth.h"

static unsigned nfsyncs;
static bool no_exchange;

WRAP_ALLOC (malloc, (size_t n), (n))
WRAP_ALLOC (calloc, (size_t n, size_t size), (n, size))
WRAP_ALLOC (strdup, (const char *s), (s))
WRAP_FREE
WRAP (int, fstat, (int fd, struct stat *st), (fd, st), -1, EIO)
WRAP (int, renameat, (int from, const char *a, int to, const char *b), (from, a, to, b), -1, EIO)
WRAP (int, unlinkat, (int dirfd, const char *name, int flags), (dirfd, name, flags), -1, EIO)
WRAP (ssize_t, preadv, (int fd, const struct iovec *iov, int niov, off_t offset),
      (fd, iov, niov, offset), -1, EIO)
WRAP (ssize_t, pwritev, (int fd, const struct iovec *iov, int niov, off_t offset),
      (fd, iov, niov, offset), -1, ENOSPC)
WRAP (struct json_tokener *, json_tokener_new_ex, (int depth), (depth), NULL, ENOMEM)
WRAP (struct json_object *, json_object_new_object, (void), (), NULL, ENOMEM)
WRAP (struct json_object *, json_object_new_array, (void), (), NULL, ENOMEM)
WRAP (struct json_object *, json_object_new_string, (const char *s), (s), NULL, ENOMEM)
WRAP (struct json_object *, json_object_new_int, (int32_t n), (n), NULL, ENOMEM)
WRAP (struct json_object *, json_object_new_uint64, (uint64_t n), (n), NULL, ENOMEM)
WRAP (struct json_object *, json_object_new_boolean, (json_bool b), (b), NULL, ENOMEM)
WRAP (int, json_object_object_add_ex,
      (struct json_object * to, const char *const key, struct json_object *const value,
       const unsigned flags),
      (to, key, value, flags), -1, ENOMEM)
WRAP (int, json_object_array_add, (struct json_object * array, struct json_object *value),
      (array, value), -1, ENOMEM)

/* What json-c does without memory: it leaves something out. */
const char *__real_json_object_to_json_string_length (struct json_object *object, int flags,
                                                      size_t *len);
const char *__wrap_json_object_to_json_string_length (struct json_object *object, int flags,
                                                      size_t *len);

const char *
__wrap_json_object_to_json_string_length (struct json_object *object, int flags, size_t *len)
{
  const char *text = __real_json_object_to_json_string_length (object, flags, len);

  if (fails ("json_object_to_json_string_length", ENOMEM))
    *len -= 1;
  return text;
}

/* And here it says nothing. */
struct json_object *__real_json_tokener_parse_ex (struct json_tokener *tok, const char *text,
                                                  int len);
struct json_object *__wrap_json_tokener_parse_ex (struct json_tokener *tok, const char *text,
                                                  int len);

struct json_object *
__wrap_json_tokener_parse_ex (struct json_tokener *tok, const char *text, int len)
{
  struct json_object *object = __real_json_tokener_parse_ex (tok, text, len), *list;

  if (fails ("json_tokener_parse_ex", 0)) {
    cr_assert (json_object_object_get_ex (object, "removed", &list));
    cr_assert_eq (json_object_array_del_idx (list, 0, 1), 0);
  }
  return object;
}

int __real_renameat2 (int from, const char *a, int to, const char *b, unsigned flags);
int __wrap_renameat2 (int from, const char *a, int to, const char *b, unsigned flags);

int
__wrap_renameat2 (int from, const char *a, int to, const char *b, unsigned flags)
{
  errno = EINVAL;
  return no_exchange || fails ("renameat2", EIO) ? -1 : __real_renameat2 (from, a, to, b, flags);
}

int __real_fsync (int fd);
int __wrap_fsync (int fd);

int
__wrap_fsync (int fd)
{
  nfsyncs++;
  return fails ("fsync", EIO) ? -1 : __real_fsync (fd);
}

WRAP_OPENAT

static int dirfd;
static const char *dir;
static char *file;

static void
setup (void)
{
  scratch_setup ();
  dir = scratch_path ("");
  file = scratch_path (MANIFEST_NAME);
  dirfd = open (dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  cr_assert_geq (dirfd, 0);
  logged_start ();
}

TestSuite (manifest, .init = setup, .fini = scratch_teardown, .timeout = 300);

/* ---- manifests ---- */

static void
fill_uuid (struct rng *rng, uuid_t uuid)
{
  rng_fill (rng, uuid, sizeof (uuid_t));
}

/* Any bytes but 0, behind what tells it from the others. */
static char *
any_text (struct rng *rng, const char *prefix, unsigned i)
{
  char text[300];
  int n = snprintf (text, sizeof text, "%s%u", prefix, i);
  unsigned len = (unsigned) n + 1 + (unsigned) rng_below (rng, 30);

  text[n] = '-';
  for (unsigned at = (unsigned) n + 1; at < len; at++)
    text[at] = (char) (1 + rng_below (rng, 255));
  text[len] = '\0';
  return strdup (text);
}

/* Small and large ones. */
static uint64_t
any_number (struct rng *rng)
{
  return rng_next (rng) >> rng_below (rng, 64);
}

static struct manifest_device
any_device (struct rng *rng, unsigned i)
{
  struct manifest_device dev = {
    .path = any_text (rng, "/srv/", i),
    .prio = (int) rng_below (rng, SWAP_PRIO_MAX + 2) - 1,
    .given_prio = (int) rng_below (rng, SWAP_PRIO_MAX + 2) - 1,
    .maxio = (unsigned) rng_below (rng, SWAP_MAXIO_MAX + 1),
    .given_maxio = (unsigned) rng_below (rng, SWAP_MAXIO_MAX + 1),
    .state = (int) rng_below (rng, DEVICE_FAILED + 1),
    .leaving = rng_below (rng, 2),
    .leave_force = rng_below (rng, 2),
    .leave_rate = any_number (rng),
  };

  fill_uuid (rng, dev.uuid);
  return dev;
}

/* Devices stand in any order, some as near as they may. */
static void
any_devices (struct rng *rng, struct manifest *m)
{
  uint64_t first = 1;

  for (unsigned i = 0; i < m->ndevices; i++) {
    m->devices[i] = any_device (rng, i);
    first += rng_below (rng, 2) ? 0 : rng_below (rng, 1 << 20);
    m->devices[i].first = (uint32_t) first;
    m->devices[i].nslots = SWAPDEV_MIN_SLOTS + (uint32_t) rng_below (rng, 1 << 22);
    first += m->devices[i].nslots + 1;
  }
  for (unsigned i = 1; i < m->ndevices; i++) {
    unsigned j = (unsigned) rng_below (rng, i + 1);
    struct manifest_device dev = m->devices[i];

    m->devices[i] = m->devices[j];
    m->devices[j] = dev;
  }
}

static void *
array (unsigned n, size_t size)
{
  return n ? calloc (n, size) : NULL;
}

static struct manifest
any_manifest (struct rng *rng, unsigned max)
{
  struct manifest m = { .generation = any_number (rng), .starting = rng_below (rng, 2) };

  fill_uuid (rng, m.state);
  fill_uuid (rng, m.drum);
  fill_uuid (rng, m.boot);
  m.ndevices = (unsigned) rng_below (rng, (max < DRUM_MAX_DEVICES ? max : DRUM_MAX_DEVICES) + 1);
  m.devices = array (m.ndevices, sizeof *m.devices);
  any_devices (rng, &m);
  m.nremoved = (unsigned) rng_below (rng, max + 1);
  m.removed = array (m.nremoved, sizeof *m.removed);
  for (unsigned i = 0; i < m.nremoved; i++)
    m.removed[i] = any_text (rng, "/dev/", i);
  m.nexports = (unsigned) rng_below (rng, max + 1);
  m.exports = array (m.nexports, sizeof *m.exports);
  for (unsigned i = 0; i < m.nexports; i++)
    m.exports[i] = (struct manifest_export){
      .name = i ? any_text (rng, "", i) : strdup (""),
      .size_bytes = PAGE_BYTES * (1 + (any_number (rng) >> 14)),
      .number = ~(uint64_t) i,
      .next_bytes = PAGE_BYTES * (any_number (rng) >> 14),
      .moving_to = i ? ~(uint64_t) 0 : 0,
      .terms = { .reserve_bytes = PAGE_BYTES * (any_number (rng) >> 14),
                 .limit_bytes = PAGE_BYTES * (any_number (rng) >> 14),
                 .weight = 1 + (unsigned) rng_below (rng, EXPORT_WEIGHT_MAX),
                 .iops = any_number (rng),
                 .bandwidth = any_number (rng),
                 .exclusive = rng_below (rng, 2) },
      .given = any_text (rng, "", i),
      .pattern = any_text (rng, "", i),
      .idle = any_number (rng) >> 32,
    };
  m.nremoved_exports = (unsigned) rng_below (rng, max + 1);
  m.removed_exports = array (m.nremoved_exports, sizeof *m.removed_exports);
  for (unsigned i = 0; i < m.nremoved_exports; i++)
    m.removed_exports[i] = any_text (rng, "", i);
  m.nclients = (unsigned) rng_below (rng, max + 1);
  m.clients = array (m.nclients, sizeof *m.clients);
  for (unsigned i = 0; i < m.nclients; i++)
    m.clients[i] =
      (struct manifest_client){ .id = any_text (rng, "c", i), .epoch = any_number (rng) };
  return m;
}

/* With two of everything. */
static struct manifest
some_manifest (void)
{
  struct rng rng = rng_for (7);
  struct manifest m;

  while (m = any_manifest (&rng, 2), m.ndevices < 2 || m.nremoved < 2 || m.nexports < 2 ||
                                       m.nremoved_exports < 2 || m.nclients < 2)
    manifest_free (&m);
  return m;
}

#define same(member)  (a->member == b->member)
#define equal(member) (memcmp (&a->member, &b->member, sizeof a->member) == 0)
#define text(member)  (strcmp (a->member, b->member) == 0)

static bool
same_device (const struct manifest_device *a, const struct manifest_device *b)
{
  return equal (uuid) && text (path) && same (first) && same (nslots) && same (prio) &&
         same (given_prio) && same (maxio) && same (given_maxio) && same (state) &&
         same (leaving) && same (leave_force) && same (leave_rate);
}

static bool
same_export (const struct manifest_export *a, const struct manifest_export *b)
{
  return text (name) && same (size_bytes) && same (number) && same (next_bytes) &&
         same (moving_to) && same (terms.reserve_bytes) && same (terms.limit_bytes) &&
         same (terms.weight) && same (terms.iops) && same (terms.bandwidth) &&
         same (terms.exclusive) && text (given) && text (pattern) && same (idle);
}

static bool
same_client (const struct manifest_client *a, const struct manifest_client *b)
{
  return text (id) && same (epoch);
}

static void
assert_same (const struct manifest *a, const struct manifest *b)
{
  cr_assert (equal (state) && equal (drum) && equal (boot) && same (generation) && same (starting));
  cr_assert (same (ndevices) && same (nremoved) && same (nexports) && same (nremoved_exports) &&
             same (nclients));
  for (unsigned i = 0; i < a->ndevices; i++)
    cr_assert (same_device (&a->devices[i], &b->devices[i]), "device %u", i);
  for (unsigned i = 0; i < a->nremoved; i++)
    cr_assert (text (removed[i]), "removed %u", i);
  for (unsigned i = 0; i < a->nexports; i++)
    cr_assert (same_export (&a->exports[i], &b->exports[i]), "export %u", i);
  for (unsigned i = 0; i < a->nremoved_exports; i++)
    cr_assert (text (removed_exports[i]), "removed export %u", i);
  for (unsigned i = 0; i < a->nclients; i++)
    cr_assert (same_client (&a->clients[i], &b->clients[i]), "client %u", i);
}

static void
save (const struct manifest *m)
{
  cr_assert_eq (manifest_save (dirfd, dir, m), 0, "%s", logged_last ());
}

static void
assert_loads (const struct manifest *m)
{
  struct manifest loaded;

  cr_assert_eq (manifest_load (dirfd, dir, &loaded), 0, "%s", logged_last ());
  assert_same (&loaded, m);
  manifest_free (&loaded);
}

/* It is refused with this error and this line, and what is there stays. */
static void
assert_refused (int expected, const char *why)
{
  struct manifest m = { .generation = 77 };
  int ret = manifest_load (dirfd, dir, &m);

  cr_assert_eq (ret, expected, "%s: %d: %s", why, ret, logged_last ());
  cr_assert (m.generation == 77 && !m.devices && !m.nexports, "output changed");
  assert_logged_error (why);
}

/* ---- both ways ---- */

/* What was saved is loaded, whatever it is. */
Test (manifest, random_ones_come_back)
{
  struct rng rng = rng_for (1);

  for (unsigned step = 0, nsteps = random_steps (150); step < nsteps; step++) {
    struct manifest m = any_manifest (&rng, step % 30 ? 10 : 600);

    save (&m);
    assert_loads (&m);
    cr_assert_eq (scratch_count (), 1, "something is left behind");
    manifest_free (&m);
  }
  cr_assert_eq (logged_count (""), 0);
}

/* Empty ones, and those with the least and the most of everything. */
Test (manifest, extremes)
{
  struct manifest_device dev[2] = {
    { .path = "/", .first = 1, .nslots = SWAPDEV_MIN_SLOTS, .prio = -1, .given_prio = -1 },
    { .path = "/b",
      .first = 2 + SWAPDEV_MIN_SLOTS,
      .nslots = SLOT_MAX - 1 - SWAPDEV_MIN_SLOTS,
      .prio = SWAP_PRIO_MAX,
      .given_prio = SWAP_PRIO_MAX,
      .maxio = SWAP_MAXIO_MAX,
      .given_maxio = SWAP_MAXIO_MAX,
      .state = DEVICE_FAILED,
      .leave_rate = UINT64_MAX,
      .uuid = { 1 } },
  };
  struct manifest_export export = { .name = "",
                                    .size_bytes = INT64_MAX - PAGE_BYTES + 1,
                                    .number = UINT64_MAX,
                                    .next_bytes = INT64_MAX - PAGE_BYTES + 1,
                                    .terms = { .reserve_bytes = INT64_MAX - PAGE_BYTES + 1,
                                               .limit_bytes = INT64_MAX - PAGE_BYTES + 1,
                                               .weight = EXPORT_WEIGHT_MAX,
                                               .iops = UINT64_MAX,
                                               .bandwidth = UINT64_MAX },
                                    .given = "",
                                    .pattern = "",
                                    .idle = UINT32_MAX };
  struct manifest_client client = { .id = "c", .epoch = UINT64_MAX };
  struct manifest m = { .ndevices = 0 };

  save (&m);
  assert_loads (&m);
  m = (struct manifest){ .generation = UINT64_MAX,
                         .devices = dev,
                         .ndevices = 2,
                         .exports = &export,
                         .nexports = 1,
                         .clients = &client,
                         .nclients = 1 };
  save (&m);
  assert_loads (&m);
}

/* Paths have any bytes but 0: quotes, controls, what is no UTF-8. */
Test (manifest, any_bytes_come_back)
{
  struct manifest m = some_manifest ();
  char bytes[257] = "/";

  for (int c = 1; c < 256; c++)
    bytes[c] = (char) c;
  free (m.devices[0].path);
  free (m.removed[0]);
  free (m.exports[0].name);
  free (m.clients[0].id);
  m.devices[0].path = strdup (bytes);
  m.removed[0] = strdup ("/\xff\xfe\xed\xa0\x80\xc3");
  m.exports[0].name = strdup (bytes);
  m.clients[0].id = strdup ("\"\\u0000\\/\x7f");
  save (&m);
  assert_loads (&m);
  manifest_free (&m);
}

/* Many clients and exports, as many as there may be devices. */
Test (manifest, many)
{
  struct rng rng = rng_for (3);
  struct manifest m = { .ndevices = DRUM_MAX_DEVICES, .nclients = 4096 };

  m.devices = array (m.ndevices, sizeof *m.devices);
  m.clients = array (m.nclients, sizeof *m.clients);
  any_devices (&rng, &m);
  for (unsigned i = 0; i < m.nclients; i++)
    m.clients[i] = (struct manifest_client){ .id = any_text (&rng, "c", i), .epoch = i };
  save (&m);
  assert_loads (&m);
  manifest_free (&m);
}

/* It is nobody else's to read, and the folder is made durable, too. */
Test (manifest, save)
{
  struct manifest m = some_manifest ();

  save (&m);
  cr_assert_eq (nfsyncs, 2);
  cr_assert_eq (file_stat (file).st_mode, S_IFREG | 0600);
  /* a save that was killed */
  file_make (MANIFEST_NAME ".new", 1 << 20);
  save (&m);
  cr_assert_eq (nfsyncs, 4);
  cr_assert_eq (scratch_count (), 1);
  assert_loads (&m);
  manifest_free (&m);
}

Test (manifest, none)
{
  struct manifest m = { .generation = 77 };

  cr_assert_eq (manifest_load (dirfd, dir, &m), -ENOENT);
  cr_assert_eq (m.generation, 77);
  cr_assert_eq (logged_count (""), 0);
}

/* ---- damage ---- */

static void
put_file (const void *bytes, size_t len)
{
  file_make (MANIFEST_NAME, 0);
  file_write (file, 0, bytes, len);
}

/* Any other byte anywhere is seen. */
Test (manifest, every_byte_damaged)
{
  struct manifest m = some_manifest (), loaded;
  unsigned char *bytes;
  size_t len;

  save (&m);
  bytes = file_contents (file, &len);
  for (size_t i = 0; i < len; i++) {
    const unsigned char others[] = {
      bytes[i] ^ 1, bytes[i] ^ 0x80, bytes[i] ^ 0x20, 0, ' ', '9', '"', '}'
    };

    for (unsigned k = 0; k < sizeof others; k++) {
      int ret;

      if (others[k] == bytes[i])
        continue;
      logged_start ();
      file_write (file, i, &others[k], 1);
      ret = manifest_load (dirfd, dir, &loaded);
      cr_assert (ret == -EBADMSG || ret == -EPROTO, "byte %zu is %d: %d", i, others[k], ret);
      assert_logged_error (str ("%s/manifest: is ", dir));
    }
    file_write (file, i, &bytes[i], 1);
  }
  assert_loads (&m);
  manifest_free (&m);
}

/* So is one that was cut, or has grown. */
Test (manifest, every_truncation)
{
  struct manifest m = some_manifest (), loaded;
  unsigned char *bytes;
  size_t len;

  save (&m);
  bytes = file_contents (file, &len);
  for (size_t n = len; n-- > 0;) {
    logged_start ();
    cr_assert_eq (truncate (file, (off_t) n), 0);
    cr_assert_eq (manifest_load (dirfd, dir, &loaded), -EBADMSG, "%zu bytes", n);
    assert_logged_error ("/manifest: is damaged: ");
  }
  put_file (bytes, len);
  assert_loads (&m);
  file_write (file, len, "\n", 1);
  assert_refused (-EBADMSG, "its checksum is missing, or not the end");
  put_file (bytes, len);
  cr_assert_eq (truncate (file, (64 << 20) + 1), 0);
  assert_refused (-EBADMSG, "it is too large");
  unlink (file);
  cr_assert_eq (mkdir (file, 0700), 0);
  assert_refused (-EISDIR, "/manifest: can't be read: Is a directory");
  manifest_free (&m);
}

/* Random ones: nothing crashes. */
Test (manifest, much_damaged)
{
  struct manifest m = some_manifest (), loaded;
  struct rng rng = rng_for (5);
  unsigned char *bytes, *damaged;
  size_t len;

  save (&m);
  bytes = file_contents (file, &len);
  damaged = malloc (len);
  for (unsigned step = 0, nsteps = random_steps (3000); step < nsteps; step++) {
    size_t from = rng_below (&rng, len), to = rng_below (&rng, len);
    size_t n = rng_below (&rng, len - (from > to ? from : to)) + 1;

    memcpy (damaged, bytes, len);
    memmove (damaged + to, bytes + from, n);
    if (memcmp (damaged, bytes, len) == 0)
      continue;
    put_file (damaged, len);
    cr_assert_lt (manifest_load (dirfd, dir, &loaded), 0);
  }
  free (damaged);
  manifest_free (&m);
}

/* ---- whole, and yet not right ---- */

/* A file with the right checksum. */
static void
put_json (const char *json)
{
  size_t len = strlen (json);
  char *all =
    str ("%s\nxxh3 %016" PRIx64 "\n", json, (uint64_t) XXH3_64bits (str ("%s\n", json), len + 1));

  put_file (all, strlen (all));
}

#define U1 "11111111-1111-1111-1111-111111111111"
#define U2 "22222222-2222-2222-2222-222222222222"

static const char whole[] =
  "{\"version\":1,\"state\":\"" U1 "\",\"drum\":\"" U1 "\",\"generation\":5,\"starting\":false,"
  "\"boot\":\"" U1 "\",\"devices\":["
  "{\"uuid\":\"" U1 "\",\"path\":\"/a\",\"first\":1,\"nslots\":100,\"prio\":5,\"given_prio\":5,"
  "\"maxio\":0,\"given_maxio\":0,\"state\":0,\"leaving\":false,\"leave_force\":false,"
  "\"leave_rate\":0},"
  "{\"uuid\":\"" U2 "\",\"path\":\"/b\",\"first\":102,\"nslots\":200,\"prio\":6,\"given_prio\":6,"
  "\"maxio\":1,\"given_maxio\":1,\"state\":1,\"leaving\":true,\"leave_force\":true,"
  "\"leave_rate\":1}],"
  "\"removed\":[{\"path\":\"/c\"}],"
  "\"exports\":[{\"name\":\"\",\"size_bytes\":4096,\"number\":1,\"next_bytes\":8192,\"moving_to\":"
  "2,"
  "\"reserve_bytes\":4096,\"limit_bytes\":12288,\"weight\":7,\"iops\":8,\"bandwidth\":9,"
  "\"exclusive\":true,\"given\":\"g\",\"pattern\":\"p\",\"idle\":10},"
  "{\"name\":\"x\",\"size_bytes\":8192,\"number\":2,\"next_bytes\":0,\"moving_to\":0,"
  "\"reserve_bytes\":0,\"limit_bytes\":0,\"weight\":100,\"iops\":0,\"bandwidth\":0,"
  "\"exclusive\":false,\"given\":\"\",\"pattern\":\"\",\"idle\":0}],"
  "\"removed_exports\":[{\"name\":\"z\"}],"
  "\"clients\":[{\"id\":\"host\",\"epoch\":1},{\"id\":\"peer\",\"epoch\":2}]}";

/* The whole one, with the first that is there of one text replaced by another. */
static char *
with (const char *text, const char *other)
{
  const char *at = strstr (whole, text);

  cr_assert_not_null (at, "%s", text);
  return str ("%.*s%s%s", (int) (at - whole), whole, other, at + strlen (text));
}

Test (manifest, what_makes_no_sense)
{
  static const struct {
    const char *text, *other, *why;
  } bad[] = {
    { "\"version\":1", "\"versio\":1", "its version is missing" },
    { "\"version\":1", "\"version\":\"1\"", "its version is missing" },
    { "\"version\":1", "\"version\":1.0", "its version is missing" },
    { "\"generation\":5", "\"generation\":-5", "\"generation\"" },
    { "\"generation\":5", "\"generation\":5.5", "\"generation\"" },
    { "\"generation\":5", "\"generation\":\"5\"", "\"generation\"" },
    { "\"generation\":5", "\"generation\":null", "\"generation\"" },
    { "\"generation\":5,", "", "\"generation\" is missing" },
    { "false", "0", "\"starting\"" },
    { "\"boot\":\"1", "\"boot\":\"x", "\"boot\"" },
    { "\"boot\":\"1", "\"boot\":\"", "\"boot\"" },
    { "\"drum\":\"" U1 "\"", "\"drum\":1", "\"drum\"" },
    { "\"uuid\":\"" U1, "\"uuid\":\"" U1 "\\u0000", "\"uuid\"" },
    { "\"devices\":[", "\"devices\":{},\"x\":[", "\"devices\"" },
    { "\"devices\":[", "\"devices\":[5,", "\"uuid\" is missing" },
    { "\"devices\":[", "\"devices\":[null,", "\"uuid\" is missing" },
    { "\"/a\"", "\"a\"", "\"path\"" },
    { "\"/a\"", "\"\"", "\"path\"" },
    { "\"/a\"", "\"/a\\u0000\"", "\"path\"" },
    { "\"/a\"", "7", "\"path\"" },
    { "\"first\":1", "\"first\":0", "\"first\"" },
    { "\"first\":1", "\"first\":-1", "\"first\"" },
    { "\"first\":1", "\"first\":4294967295", "\"first\"" },
    { "\"first\":1", "\"first\":4294967297", "\"first\"" },
    { "\"nslots\":100", "\"nslots\":2", "\"nslots\"" },
    { "\"nslots\":100", "\"nslots\":4294967295", "\"nslots\"" },
    { "\"nslots\":200", "\"nslots\":4294967194", "ends behind the last slot" },
    { "\"nslots\":100", "\"nslots\":101", "overlap" },
    { "\"nslots\":100", "\"nslots\":1000", "overlap" },
    { "\"first\":102", "\"first\":1", "overlap" },
    { "\"prio\":5", "\"prio\":-2", "\"prio\"" },
    { "\"prio\":5", "\"prio\":32768", "\"prio\"" },
    { "\"prio\":5", "\"prio\":4294967301", "\"prio\"" },
    { "\"given_prio\":5", "\"given_prio\":true", "\"given_prio\"" },
    { "\"maxio\":0", "\"maxio\":65536", "\"maxio\"" },
    { "\"given_maxio\":0", "\"given_maxio\":-1", "\"given_maxio\"" },
    { "\"state\":0", "\"state\":-1", "\"state\"" },
    { "\"state\":0", "\"state\":5", "\"state\"" },
    { "\"leaving\":false", "\"leaving\":\"false\"", "\"leaving\"" },
    { "\"leave_rate\":0", "\"leave_rate\":1e3", "\"leave_rate\"" },
    { "\"uuid\":\"" U2, "\"uuid\":\"" U1, "one UUID" },
    { "{\"path\":\"/c\"}", "\"/c\"", "\"path\" is missing" },
    { "\"/c\"", "\"c\"", "\"path\"" },
    { "\"size_bytes\":4096", "\"size_bytes\":0", "\"size_bytes\"" },
    { "\"size_bytes\":4096", "\"size_bytes\":4097", "not in pages" },
    { "\"size_bytes\":4096", "\"size_bytes\":9223372036854775808", "\"size_bytes\"" },
    { "\"name\":\"x\"", "\"name\":\"\"", "two exports have one name" },
    { "\"number\":1", "\"number\":2", "two exports have one number" },
    { "\"next_bytes\":8192", "\"next_bytes\":1", "not in pages" },
    { "\"reserve_bytes\":4096", "\"reserve_bytes\":4095", "not in pages" },
    { "\"limit_bytes\":12288", "\"limit_bytes\":12287", "not in pages" },
    { "\"moving_to\":2", "\"moving_to\":3", "moves to one that is not there" },
    { "\"moving_to\":2", "\"moving_to\":1", "moves to one that is not there" },
    { "\"weight\":7", "\"weight\":0", "\"weight\"" },
    { "\"weight\":7", "\"weight\":10001", "\"weight\"" },
    { "\"exclusive\":true", "\"exclusive\":1", "\"exclusive\"" },
    { "\"given\":\"g\",", "", "\"given\" is missing" },
    { "\"idle\":10", "\"idle\":-1", "\"idle\"" },
    { "\"removed_exports\":[", "\"removed_exports\":[5,", "\"name\" is missing" },
    { "\"number\":1,", "\"number\":0,", "\"number\"" },
    { "\"id\":\"peer\"", "\"id\":\"host\"", "a client is there twice" },
    { "\"id\":\"peer\"", "\"id\":\"\"", "\"id\"" },
    { "\"epoch\":2", "\"epoch\":[2]", "\"epoch\"" },
    { "{\"version\"", "[{\"version\"", "JSON" },
    { "\"clients\"", "\"x\":[[[[[[[[[[]]]]]]]]]],\"clients\"", "JSON" },
  };
  struct manifest m;

  put_json (whole);
  cr_assert_eq (manifest_load (dirfd, dir, &m), 0, "%s", logged_last ());
  manifest_free (&m);
  for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    put_json (with (bad[i].text, bad[i].other));
    assert_refused (-EBADMSG, bad[i].why);
  }
  put_json ("null");
  assert_refused (-EBADMSG, "JSON");
  put_json ("[]");
  assert_refused (-EBADMSG, "JSON");
  put_json (with ("\"/a\"", str ("\"/%04096d\"", 0)));
  assert_refused (-EBADMSG, "\"path\"");
}

/* Another version is told from damage, whatever else it has. */
Test (manifest, other_version)
{
  static const char other[] = "{\"version\":2,\"new\":{}}\nsha4096 abcdefg\nand more\n";

  put_json (with ("\"version\":1", "\"version\":2"));
  assert_refused (-EPROTO,
                  "/manifest: is of version 2, and this server knows version 1: start the one");
  put_file (other, strlen (other));
  assert_refused (-EPROTO, "is of version 2");
  put_json (with ("\"version\":1", "\"version\":0"));
  assert_refused (-EPROTO, "is of version 0");
}

/* What is not known is passed over. */
Test (manifest, unknown_keys)
{
  struct manifest m;

  put_json (with ("\"number\":2", "\"number\":2,\"color\":\"blue\""));
  cr_assert_eq (manifest_load (dirfd, dir, &m), 0, "%s", logged_last ());
  cr_assert_eq (m.nexports, 2);
  manifest_free (&m);
}

/* One that could not be loaded is not saved. */
Test (manifest, save_refuses_what_makes_no_sense)
{
  struct manifest m = some_manifest (), bad = m;

  save (&m);
  bad.ndevices = 1;
  bad.devices[0].prio = -2;
  cr_assert_eq (manifest_save (dirfd, dir, &bad), -EINVAL);
  assert_logged_error ("/manifest: can't be replaced, and stays as it was: a \"prio\"");
  m.devices[0].prio = 0;
  save (&m);
  m.devices[1].first = m.devices[0].first;
  cr_assert_eq (manifest_save (dirfd, dir, &m), -EINVAL);
  assert_logged_error ("overlap");
  cr_assert_eq (scratch_count (), 1);
  manifest_free (&m);
}

/* ---- faults ---- */

/* Whatever fails in a save, the old one is there, or none if there was none, and nothing else is. */
static void
fail_saves (bool was_there)
{
  struct manifest old = some_manifest (), m = some_manifest ();
  unsigned nopen = count_open_files (), n, before;
  int ret;

  m.generation = 78;
  for (n = 0;; n++) {
    unlink (file);
    if (was_there)
      save (&old);
    before = nallocated;
    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = manifest_save (dirfd, dir, &m);
    fail_in = DISARMED;
    cr_assert_eq (nallocated, before, "%s: memory leaks", failed_call);
    cr_assert_eq (count_open_files (), nopen, "%s: descriptors leak", failed_call);
    if (!failed_call)
      break;
    if (strcmp (failed_call, "unlinkat") == 0) { /* an old one is left behind; no harm */
      cr_assert_eq (ret, 0);
      unlink (scratch_path (MANIFEST_NAME ".new"));
      continue;
    }
    cr_assert_lt (ret, 0, "%s failed", failed_call);
    assert_logged_error ("/manifest: can't be replaced, and stays as it was: ");
    cr_assert_eq (scratch_count (), was_there, "%s: something is left behind", failed_call);
    if (was_there)
      assert_loads (&old);
  }
  cr_assert_eq (ret, 0);
  assert_loads (&m);
  cr_assert_gt (n, 80, "only %u calls: the linker does not send them here", n);
  manifest_free (&old);
  manifest_free (&m);
}

Test (manifest, every_call_of_a_save_may_fail)
{
  fail_saves (true);
}

Test (manifest, every_call_of_a_first_save_may_fail)
{
  fail_saves (false);
}

/* Where two names can't be exchanged the new one takes the old one's place all the same. */
Test (manifest, without_exchange)
{
  struct manifest m = some_manifest ();

  no_exchange = true;
  save (&m);
  m.generation++;
  save (&m);
  assert_loads (&m);
  cr_assert_eq (scratch_count (), 1);
  manifest_free (&m);
}

Test (manifest, every_call_of_a_load_may_fail)
{
  struct manifest m = some_manifest (), loaded = { .generation = 77 };
  unsigned nopen = count_open_files (), n;
  int ret, before;

  save (&m);
  for (n = 0;; n++) {
    before = nallocated;
    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = manifest_load (dirfd, dir, &loaded);
    fail_in = DISARMED;
    cr_assert_eq (count_open_files (), nopen, "%s: descriptors leak", failed_call);
    if (!failed_call)
      break;
    cr_assert (ret < 0 && ret != -ENOENT && ret != -EBADMSG, "%s failed: %d", failed_call, ret);
    cr_assert_eq (nallocated, before, "%s: memory leaks", failed_call);
    cr_assert (loaded.generation == 77 && !loaded.devices, "%s: output changed", failed_call);
    assert_logged_error ("/manifest: can't be read: ");
  }
  cr_assert_eq (ret, 0);
  assert_same (&loaded, &m);
  cr_assert_gt (n, 15);
  manifest_free (&loaded);
  manifest_free (&m);
}

/* A copy has all of it, and nothing in common with it. */
Test (manifest, copies)
{
  struct manifest m = some_manifest (), copy = { .generation = 77 };

  cr_assert_eq (manifest_copy (&m, &copy), 0);
  assert_same (&copy, &m);
  manifest_free (&m);
  m = some_manifest ();
  assert_same (&copy, &m);
  manifest_free (&copy);
  manifest_free (&m);
}

Test (manifest, every_call_of_a_copy_may_fail)
{
  struct manifest m = some_manifest ();
  unsigned n;

  for (n = 0;; n++) {
    struct manifest copy = { .ndevices = 0 };
    int before = nallocated, ret;

    failed_call = NULL;
    fail_in = (int) n;
    ret = manifest_copy (&m, &copy);
    fail_in = DISARMED;
    cr_assert_eq (ret, failed_call ? -ENOMEM : 0, "%s failed: %d", failed_call, ret);
    manifest_free (&copy);
    cr_assert_eq (nallocated, before, "%s: memory leaks", failed_call);
    if (!failed_call)
      break;
  }
  cr_assert_gt (n, 5, "only %u calls: the linker does not send them here", n);
  manifest_free (&m);
}
