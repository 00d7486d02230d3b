/* SPDX-License-Identifier: BSD-3-Clause
 *
 * export_shape_faults.c - exports with a state that are resized, and whose pages pass to others, while any call may fail, or be the last one of
 * a server that is killed, or whose power fails.
 *
 * The linker sends what lib/ does to the map files through here; it is recorded as in power.c, and nothing is synced for real. A start
 * that finishes what was interrupted may be interrupted itself.
 */
#include <config.h>

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "lib/drum.h"
#include "lib/export.h"
#include "lib/manifest.h"
#include "lib/mapfile.h"
#include "lib/pagemap.h"
#include "lib/pagesum.h"
#include "lib/state.h"
#include "tests/random.h"
#include "tests/scratch.h"

#include "devices.h"
#include "files.h"
#include "logged.h"
#include "nth.h"

enum { NPAGES = 5 * PAGEMAP_LEAF + 100, LESS = 2 * PAGEMAP_LEAF + 11, NSLOTS = 3 * NPAGES };
enum { FROM, TO, NMAPS };
enum { SECTOR = 512, MAX_OPS = 4096, MAX_BYTES = (NPAGES + PAGEMAP_LEAF) * 8 };

/* ---- the record ---- */

struct op {
  enum { WRITE, SIZE, SYNC } kind;
  int file;
  uint64_t at, len;
  unsigned char *data;
};

struct content {
  unsigned char data[MAX_BYTES];
  uint64_t size_bytes;
};

/* What is on the disk for sure, and what was done since. */
static struct disk {
  struct content base[NMAPS];
  struct op op[MAX_OPS];
  int n;
} disk;

static bool recording;
static ino_t ino[NMAPS];
static struct rng rng;

static struct op *
record (int fd, int kind)
{
  struct stat st;

  if (!recording || fstat (fd, &st) == -1)
    return NULL;
  for (int i = 0; i < NMAPS; i++)
    if (st.st_ino == ino[i]) {
      cr_assert_lt (disk.n, MAX_OPS);
      disk.op[disk.n] = (struct op){ .kind = kind, .file = i };
      return &disk.op[disk.n++];
    }
  return NULL;
}

ssize_t __real_pwritev (int fd, const struct iovec *iov, int niov, off_t at);
ssize_t __wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at);

ssize_t
__wrap_pwritev (int fd, const struct iovec *iov, int niov, off_t at)
{
  struct op *op;

  if (fails ("pwritev", EIO))
    return -1;
  op = record (fd, WRITE);
  if (op) {
    cr_assert_eq (niov, 1);
    op->at = (uint64_t) at;
    op->len = iov->iov_len;
    op->data = malloc (op->len);
    memcpy (op->data, iov->iov_base, op->len);
  }
  return __real_pwritev (fd, iov, niov, at);
}

int __real_ftruncate (int fd, off_t len);
int __wrap_ftruncate (int fd, off_t len);

int
__wrap_ftruncate (int fd, off_t len)
{
  struct op *op;

  if (fails ("ftruncate", EFBIG))
    return -1;
  op = record (fd, SIZE);
  if (op)
    op->len = (uint64_t) len;
  return __real_ftruncate (fd, len);
}

int __wrap_fdatasync (int fd);

int
__wrap_fdatasync (int fd)
{
  if (fails ("fdatasync", EIO))
    return -1;
  record (fd, SYNC);
  return 0;
}

void *__real_mremap (void *mem, size_t from, size_t to, int flags, ...);
void *__wrap_mremap (void *mem, size_t from, size_t to, int flags, ...);

void *
__wrap_mremap (void *mem, size_t from, size_t to, int flags, ...)
{
  return fails ("mremap", ENOMEM) ? (void *) -1 : __real_mremap (mem, from, to, flags);
}

int __real_fstatfs (int fd, struct statfs *fs);
int __wrap_fstatfs (int fd, struct statfs *fs);

int
__wrap_fstatfs (int fd, struct statfs *fs)
{
  int ret = __real_fstatfs (fd, fs);

  fs->f_type = EXT4_SUPER_MAGIC;
  return ret;
}

WRAP_ALLOC (malloc, (size_t n), (n))
WRAP_ALLOC (calloc, (size_t n, size_t size), (n, size))
WRAP_FREE
WRAP_ASPRINTF
WRAP_OPENAT
WRAP (ssize_t, preadv, (int fd, const struct iovec *iov, int niov, off_t at), (fd, iov, niov, at),
      -1, EIO)

/* ---- the exports ---- */

static const char *const names[NMAPS] = { "from", "to" };
static struct state *state;
static struct drum *drum;
static struct export *export[NMAPS];
static struct mapfile *map[NMAPS];
static struct manifest_export known[NMAPS];
static char *path[NMAPS];

static void
setup (void)
{
  scratch_setup ();
  logged_start ();
  rng = rng_for (1);
}

TestSuite (export_shape_faults, .init = setup, .fini = scratch_teardown, .timeout = 600);

static void
make (void)
{
  static unsigned nmade;
  char *dir = scratch_path (str ("state-%u", nmade++));

  drum = drum_make (16);
  drum_add_file (drum, str ("a-%u", nmade), 0, NSLOTS);
  cr_assert_eq (state_open (dir, false, &state), 0, "%s", logged_last ());
  state_set_drum (state, drum);
  for (unsigned i = 0; i < NMAPS; i++) {
    struct export_config config = {
      .name = names[i], .size_bytes = NPAGES * PAGE_BYTES, .checksum = true, .state = state
    };

    cr_assert_eq (state_map (state, i, NPAGES, true, &config.file), 0, "%s", logged_last ());
    cr_assert_eq (state_keep (state, config.file), 0);
    cr_assert_eq (export_create (drum, &config, &export[i]), 0);
    map[i] = config.file;
    path[i] = str ("%s/map-%u", dir, i);
    ino[i] = file_stat (path[i]).st_ino;
    known[i] = (struct manifest_export){ .name = (char *) names[i],
                                         .size_bytes = NPAGES * PAGE_BYTES,
                                         .number = i };
  }
}

static void
unmake (void)
{
  for (unsigned i = 0; i < NMAPS; i++) {
    state_forget (state, map[i]);
    export_destroy (export[i]);
  }
  state_close (state);
  drum_destroy (drum);
}

static void
write_or_trim (unsigned i)
{
  static unsigned char data[100 * PAGE_BYTES];
  unsigned n = 1 + (unsigned) rng_below (&rng, 100), page = (unsigned) rng_below (&rng, NPAGES - n);

  rng_fill (&rng, data, n * PAGE_BYTES);
  if (rng_below (&rng, 3))
    cr_assert_eq (export_write (export[i], data, n * PAGE_BYTES, page * PAGE_BYTES), 0);
  else
    cr_assert_eq (export_trim (export[i], n * PAGE_BYTES, page * PAGE_BYTES), 0);
}

/* Pages in both, some of them not flushed. */
static void
write_some (void)
{
  for (unsigned i = 0; i < 40; i++)
    write_or_trim (i % NMAPS);
  cr_assert_eq (state_sync_maps (state), 0);
  for (unsigned i = 0; i < 20; i++)
    write_or_trim (i % NMAPS);
}

/* What the entries are, and what they are to be. */
struct entries {
  struct pagemap_entry of[NMAPS][NPAGES];
  unsigned npages;
};

static struct entries
see_entries (void)
{
  struct entries is = { .npages = NPAGES };

  for (unsigned i = 0; i < NMAPS; i++)
    for (unsigned page = 0; page < NPAGES && page < export_size_bytes (export[i]) / PAGE_BYTES;
         page++)
      is.of[i][page] = export_entry (export[i], page);
  return is;
}

static struct entries
pass_entries (struct entries is)
{
  for (unsigned page = 0; page < NPAGES; page++) {
    struct pagemap_entry *from = &is.of[FROM][page], *to = &is.of[TO][page];

    if (to->slot == SLOT_NONE && from->slot != SLOT_NONE) {
      *to = *from;
      to->sum ^= pagesum_key (pagesum_export_key ("from"), page) ^
                 pagesum_key (pagesum_export_key ("to"), page);
    }
    *from = (struct pagemap_entry){ .slot = SLOT_NONE };
  }
  return is;
}

static void
assert_same (const struct entries *a, const struct entries *b, const char *what)
{
  for (unsigned i = 0; i < NMAPS; i++)
    for (unsigned page = 0; page < NPAGES; page++)
      cr_assert (a->of[i][page].slot == b->of[i][page].slot &&
                   a->of[i][page].sum == b->of[i][page].sum,
                 "DRUM_TEST_SEED=%" PRIu64 ", %s: \"%s\", page %u: slot %u, not %u", random_seed (),
                 what, names[i], page, a->of[i][page].slot, b->of[i][page].slot);
}

static void
load (unsigned i, struct content *c)
{
  size_t len;
  unsigned char *data = file_contents (path[i], &len);

  cr_assert_leq (len, MAX_BYTES);
  memset (c, 0, sizeof *c);
  memcpy (c->data, data, len);
  c->size_bytes = len;
  free (data);
}

/* The files say so, and the one of FROM has this size. */
static void
assert_files (const struct entries *should, const char *what)
{
  struct entries is = *should;
  struct content c;

  for (unsigned i = 0; i < NMAPS; i++) {
    load (i, &c);
    cr_assert_eq (c.size_bytes, (i == FROM ? should->npages : NPAGES) * 8, "%s: \"%s\", %" PRIu64,
                  what, names[i], c.size_bytes);
    memcpy (is.of[i], c.data, sizeof is.of[i]);
  }
  assert_same (&is, should, what);
}

/* ---- how it may end ---- */

static void
apply (struct content *c, const struct op *op, uint64_t from, uint64_t to)
{
  if (op->kind == SIZE) {
    if (op->len < c->size_bytes)
      memset (c->data + op->len, 0, c->size_bytes - op->len);
    c->size_bytes = op->len;
    return;
  }
  memcpy (c->data + from, op->data + (from - op->at), to - from);
  c->size_bytes = to > c->size_bytes ? to : c->size_bytes;
}

/* The last write may have come as far as the end of some page of the file. */
static void
apply_torn (struct content *c, const struct op *op)
{
  uint64_t npages = (op->at + op->len - 1) / PAGE_BYTES - op->at / PAGE_BYTES + 1;
  uint64_t end = (op->at / PAGE_BYTES + rng_below (&rng, npages + 1)) * PAGE_BYTES;

  end = end < op->at + op->len ? end : op->at + op->len;
  if (end > op->at)
    apply (c, op, op->at, end);
}

/* How much is there of each sector. */
static void
apply_some (struct content *c, const struct op *op, int i, int n, uint64_t salt)
{
  if (op->kind == SIZE && (rng_below (&rng, 2) || op->len > c->size_bytes))
    apply (c, op, 0, 0);
  for (uint64_t from = op->at, to; op->kind == WRITE && from < op->at + op->len; from = to) {
    struct rng sector = { salt + from / SECTOR * 7919 };

    to = (from / SECTOR + 1) * SECTOR;
    to = to < op->at + op->len ? to : op->at + op->len;
    if ((uint64_t) i < rng_below (&sector, (uint64_t) n + 1)) /* written out so late */
      apply (c, op, from, to);
  }
}

/* File number i when all has ended before op end. */
static struct content
content_at (int i, int end, bool power)
{
  enum { NOTHING, EVERYTHING, SOME } share = power ? (int) rng_below (&rng, 3) : EVERYTHING;
  struct content c = disk.base[i];
  uint64_t salt = rng_next (&rng);
  bool torn = !power && rng_below (&rng, 2);
  int synced = -1;

  for (int k = 0; k < end; k++)
    if (disk.op[k].file == i && disk.op[k].kind == SYNC)
      synced = k;
  for (int k = 0; k < end; k++) {
    const struct op *op = &disk.op[k];

    if (op->file != i || op->kind == SYNC || (k > synced && share == NOTHING))
      continue;
    if (k == end - 1 && torn && op->kind == WRITE)
      apply_torn (&c, op);
    else if (k > synced && share == SOME)
      apply_some (&c, op, k - synced, end - synced, salt);
    else
      apply (&c, op, op->at, op->at + op->len);
  }
  return c;
}

static void
write_file (int i, const struct content *c)
{
  struct iovec iov = { (void *) c->data, c->size_bytes };
  int fd = open (path[i], O_RDWR | O_CLOEXEC);

  cr_assert_geq (fd, 0);
  cr_assert (__real_ftruncate (fd, 0) == 0 && __real_ftruncate (fd, (off_t) c->size_bytes) == 0);
  cr_assert_eq (__real_pwritev (fd, &iov, 1, 0), (ssize_t) c->size_bytes);
  close (fd);
}

static void
forget_record (void)
{
  while (disk.n > 0)
    free (disk.op[--disk.n].data);
}

/* Begin to record, with files that are as they are. */
static void
begin_record (void)
{
  for (int i = 0; i < NMAPS; i++)
    load ((unsigned) i, &disk.base[i]);
  forget_record ();
  recording = true;
}

static struct entries expected;
static int (*finish) (void);

/* All ended before op end; a start finishes it, or is ended as well. */
static void
check_end (int end, bool power, unsigned depth)
{
  static struct disk before[3];
  char *what =
    str ("depth %u, %s before op %d of %d", depth, power ? "power" : "kill", end, disk.n);
  int nops;

  before[depth] = disk;
  for (int i = 0; i < NMAPS; i++) {
    struct content c = content_at (i, end, power);

    write_file (i, &c);
    disk.base[i] = power ? c : disk.base[i];
  }
  /* As it was torn, too: there is no more than a last write of a kill. */
  if (!power)
    for (int i = 0; i < NMAPS; i++)
      load ((unsigned) i, &disk.base[i]);
  disk.n = 0;
  logged_start ();
  recording = true;
  cr_assert_eq (finish (), 0, "%s: %s", what, logged_last ());
  recording = false;
  assert_files (&expected, what);
  nops = disk.n;
  for (unsigned i = 0; i < 3 && depth < 2 && nops > 0; i++)
    check_end (1 + (int) rng_below (&rng, (uint64_t) nops), i % 2, depth + 1);
  forget_record ();
  disk = before[depth];
}

/* When it has returned, it needs no start to finish it. */
static void
check_durable (void)
{
  for (unsigned k = 0; k < 10; k++) {
    for (int i = 0; i < NMAPS; i++) {
      struct content c = content_at (i, disk.n, true);

      write_file (i, &c);
    }
    assert_files (&expected, "power after it");
  }
}

/* At any op from first on. */
static void
check_ends (int first)
{
  recording = false;
  check_durable ();
  for (int end = first; end <= disk.n; end++)
    for (unsigned i = 0; i < 6; i++)
      check_end (end, i % 2, 0);
}

static int
finish_pass (void)
{
  return state_finish_pass (state, &known[FROM], &known[TO]);
}

/* From its announcement on a pass is finished by the next start, or was complete. */
Test (export_shape_faults, a_pass_may_end_at_any_moment)
{
  for (unsigned round = 0, n = random_steps (10); round < n; round++) {
    struct entries after;
    int announced;

    make ();
    begin_record ();
    write_some ();
    expected = see_entries ();
    expected = pass_entries (expected);
    cr_assert_eq (export_prepare_pass (export[FROM], export[TO]), 0, "%s", logged_last ());
    announced = disk.n;
    cr_assert_eq (export_pass (export[FROM], export[TO]), 0, "%s", logged_last ());
    after = see_entries ();
    assert_same (&after, &expected, "no end");
    assert_files (&expected, "no end");
    finish = finish_pass;
    check_ends (announced);
    unmake ();
  }
}

/* What has an end in it can't be told from what never began: a start may do all of it. */
Test (export_shape_faults, a_start_may_do_all_of_it)
{
  make ();
  write_some ();
  expected = see_entries ();
  expected = pass_entries (expected);
  cr_assert_eq (finish_pass (), 0, "%s", logged_last ());
  assert_files (&expected, "all");
  cr_assert_eq (finish_pass (), 0, "%s", logged_last ());
  assert_files (&expected, "again");
  unmake ();
}

static unsigned to_npages;

static int
finish_resize (void)
{
  return state_finish_resize (state, FROM, NPAGES, to_npages);
}

static void
resize_entries (struct entries *is)
{
  is->npages = to_npages;
  for (unsigned page = to_npages; page < NPAGES; page++)
    is->of[FROM][page] = (struct pagemap_entry){ .slot = SLOT_NONE };
}

/* The size is the one before or the new one, and the start makes it that. */
Test (export_shape_faults, a_resize_may_end_at_any_moment)
{
  for (unsigned round = 0; round < 6; round++) {
    make ();
    write_some ();
    cr_assert_eq (state_sync_maps (state), 0);
    begin_record ();
    to_npages = round % 2 ? NPAGES + PAGEMAP_LEAF : LESS;
    expected = see_entries ();
    resize_entries (&expected);
    cr_assert_eq (export_resize (export[FROM], to_npages * PAGE_BYTES), 0, "%s", logged_last ());
    assert_files (&expected, "no end");
    finish = finish_resize;
    check_ends (0);
    unmake ();
  }
}

/* ---- any call may fail ---- */

/* Make each call fail once. What has failed has changed nothing; where that is not all, it was done before. */
static void
fail_every_call (int (*attempt) (void), struct entries (*change) (struct entries is),
                 unsigned nat_least)
{
  unsigned n;

  for (n = 0;; n++) {
    struct entries was, should, is;
    uint64_t nused[NMAPS], in_drum;
    int allocated_before, ret;
    bool cut;

    make ();
    write_some ();
    was = see_entries ();
    for (unsigned i = 0; i < NMAPS; i++)
      nused[i] = export_npages_used (export[i]);
    in_drum = drum_nused (drum);
    allocated_before = nallocated;
    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = attempt ();
    fail_in = DISARMED;
    cr_assert_eq (nallocated, allocated_before, "call %u, %s: memory leaks", n, failed_call);
    should = ret < 0 ? was : change (was);
    is = see_entries ();
    assert_same (&is, &should, str ("call %u, %s", n, failed_call));
    cut = logged_count ("can't be made durable: File too large") == 1;
    if (!cut)
      assert_files (&should, str ("call %u, %s", n, failed_call));
    if (ret < 0) {
      cr_assert_eq (logged_count (""), 1, "call %u, %s: %s", n, failed_call, logged_last ());
      cr_assert (logged_last_level () == LEVEL_ERROR);
      for (unsigned i = 0; i < NMAPS; i++)
        cr_assert_eq (export_npages_used (export[i]), nused[i]);
      cr_assert_eq (drum_nused (drum), in_drum);
      cr_assert_eq (export_size_bytes (export[FROM]), NPAGES * PAGE_BYTES);
    } else
      cr_assert_eq (drum_nused (drum),
                    export_npages_used (export[FROM]) + export_npages_used (export[TO]));
    cr_assert (drum_check (drum));
    unmake ();
    if (!failed_call)
      break;
  }
  cr_assert_geq (n, nat_least, "only %u calls: the linker does not send them here", n);
}

static int
try_pass (void)
{
  return export_pass (export[FROM], export[TO]);
}

Test (export_shape_faults, every_call_of_a_pass_may_fail)
{
  fail_every_call (try_pass, pass_entries, 10);
}

static int
try_resize (void)
{
  return export_resize (export[FROM], to_npages * PAGE_BYTES);
}

static struct entries
resized (struct entries is)
{
  resize_entries (&is);
  return is;
}

Test (export_shape_faults, every_call_of_a_resize_may_fail)
{
  to_npages = LESS;
  fail_every_call (try_resize, resized, 4);
  to_npages = NPAGES + PAGEMAP_LEAF;
  fail_every_call (try_resize, resized, 4);
}

/* What a start could not finish is not damaged by that: the next one can. */
static void
fail_every_finish (int (*attempt) (void), struct entries (*change) (struct entries is),
                   unsigned nat_least)
{
  unsigned n, nopen;

  for (n = 0;; n++) {
    int allocated_before, ret;

    make ();
    write_some ();
    expected = see_entries ();
    expected = change (expected);
    nopen = count_open_files ();
    allocated_before = nallocated;
    logged_start ();
    failed_call = NULL;
    fail_in = (int) n;
    ret = attempt ();
    fail_in = DISARMED;
    cr_assert_eq (nallocated, allocated_before, "call %u, %s: memory leaks", n, failed_call);
    cr_assert_eq (count_open_files (), nopen, "call %u, %s: descriptors leak", n, failed_call);
    if (failed_call) {
      cr_assert_lt (ret, 0, "call %u, %s, failed, and the start did not", n, failed_call);
      cr_assert_eq (logged_count (""), 1, "call %u, %s: %s", n, failed_call, logged_last ());
      cr_assert (logged_last_level () == LEVEL_ERROR);
      ret = attempt ();
    }
    cr_assert_eq (ret, 0, "call %u, %s: %s", n, failed_call, logged_last ());
    assert_files (&expected, str ("call %u, %s", n, failed_call));
    unmake ();
    if (!failed_call)
      break;
  }
  cr_assert_geq (n, nat_least, "only %u calls: the linker does not send them here", n);
}

Test (export_shape_faults, every_call_of_a_start_may_fail)
{
  fail_every_finish (finish_pass, pass_entries, 20);
  to_npages = LESS;
  fail_every_finish (finish_resize, resized, 5);
}
