/* SPDX-License-Identifier: BSD-3-Clause
 *
 * memload - fills more memory than the machine has and checks that every page comes back as it was
 *           written.
 *
 * Pattern: a page is known by its number and its version, and by its host's number. Word i of it is
 *          mix (host, page, version) + i * STEP: every word on all hosts differs from every other, one
 *          addition is all it takes to check one (this also runs under an emulator), and a word found in
 *          the wrong place says which host, page and version it is of. Version 0 is a page of zeroes: written so,
 *          or released and not written since.
 * Memory:  2 bytes a page of its own, locked, so that what is expected is not lost with the swap.
 * Output:  once a second "memload: seconds=N checked=N rewritten=N wrong=N in=N out=N" (pages
 *          swapped since the start); at the end "memload: took fill=MS touch=MS check=MS command=MS", the
 *          milliseconds of each part, and "memload: N pages checked, N rewritten, N wrong".
 *          Exit status 0 if none was wrong, 1 if one was, 2 if it could not run.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>

enum {
  PAGE_BYTES = 4096,
  PAGE_WORDS = PAGE_BYTES / 8,
  RELEASE_PAGES = 512,  /* given back in a run: two clusters of the kernel's swap map */
  RELEASE_EVERY = 8192, /* in pages checked: some 10 % of all pages are zero at any time */
  MAX_NEIGHBOURS = 16,  /* pages in a row at each random place */
  AHEAD_PAGES = 64,
  MAX_REPORTS = 20,
  MAX_HOST = 255,
};
#define STEP UINT64_C (0x9e3779b97f4a7c15)

struct counts {
  uint64_t checked;
  uint64_t rewritten;
  uint64_t wrong;
};

static uint64_t *memory;
static uint16_t *versions;
static uint32_t npages;
static uint16_t host;
static struct counts total;
static uint64_t first_in, first_out; /* /proc/vmstat at the start */
static time_t start_seconds, last_seconds;
static volatile sig_atomic_t told;

static void die (const char *fmt, ...) __attribute__ ((noreturn, format (printf, 1, 2)));
static void usage (void) __attribute__ ((noreturn));

static void
be_told (int sig)
{
  told = sig;
}

static void
die (const char *fmt, ...)
{
  va_list args;

  fputs ("memload: ", stdout);
  va_start (args, fmt);
  vprintf (fmt, args);
  va_end (args);
  putchar ('\n');
  exit (2);
}

/* The finishing step of splitmix64: one to one, so that unmix can take it back. */
static uint64_t
mix (uint64_t x)
{
  x = (x ^ (x >> 30)) * UINT64_C (0xbf58476d1ce4e5b9);
  x = (x ^ (x >> 27)) * UINT64_C (0x94d049bb133111eb);
  return x ^ (x >> 31);
}

static uint64_t
unmix (uint64_t x)
{
  x = (x ^ (x >> 31) ^ (x >> 62)) * UINT64_C (0x319642b2d24d8ec3);
  x = (x ^ (x >> 27) ^ (x >> 54)) * UINT64_C (0x96de1b173f119089);
  return x ^ (x >> 30) ^ (x >> 60);
}

static uint64_t
first_word (uint32_t page, uint16_t version)
{
  return mix ((uint64_t) host << 48 | (uint64_t) page << 16 | version);
}

static uint64_t
random_word (void)
{
  static uint64_t state;

  return mix ((state += STEP) + host);
}

static uint32_t
random_below (uint32_t n)
{
  return (random_word () >> 32) * n >> 32;
}

static uint64_t
clock_ms (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static uint64_t
clock_seconds (void)
{
  return clock_ms () / 1000;
}

/* How many milliseconds since the last time. */
static uint64_t
lap (void)
{
  static uint64_t last;
  uint64_t before = last;

  last = clock_ms ();
  return last - before;
}

static void
read_swapped (uint64_t *in, uint64_t *out)
{
  static char line[256];
  FILE *fp = fopen ("/proc/vmstat", "re");

  *in = *out = 0;
  if (fp == NULL)
    die ("/proc/vmstat: %s", strerror (errno));
  while (fgets (line, sizeof line, fp)) {
    sscanf (line, "pswpin %" SCNu64, in);
    sscanf (line, "pswpout %" SCNu64, out);
  }
  fclose (fp);
  *in -= first_in;
  *out -= first_out;
}

/* Print a line if a second has passed since the last. => true if it has; then *least is how many
 * pages have been swapped each way. */
static bool
progress (uint64_t *least)
{
  time_t now = clock_seconds ();
  uint64_t in, out;

  if (now == last_seconds)
    return false;
  last_seconds = now;
  read_swapped (&in, &out);
  printf ("memload: seconds=%jd checked=%" PRIu64 " rewritten=%" PRIu64 " wrong=%" PRIu64
          " in=%" PRIu64 " out=%" PRIu64 "\n",
          (intmax_t) (now - start_seconds), total.checked, total.rewritten, total.wrong, in, out);
  *least = in < out ? in : out;
  return true;
}

static void
write_page (uint32_t page, uint16_t version)
{
  uint64_t *words = memory + (size_t) page * PAGE_WORDS;
  uint64_t x = first_word (page, version);
  size_t i;

  versions[page] = version;
  if (version == 0) {
    memset (words, 0, PAGE_BYTES);
    return;
  }
  for (i = 0; i < PAGE_WORDS; i++, x += STEP)
    words[i] = x;
}

static void
rewrite_page (uint32_t page)
{
  uint16_t version = versions[page] + 1;

  write_page (page, version ? version : 1);
  total.rewritten++;
}

/* Say whose contents a wrong word is, as far as it tells. */
static void
report_wrong (uint32_t page, const uint64_t *words, size_t first_wrong)
{
  uint64_t word = words[first_wrong];
  uint64_t origin = unmix (word - first_wrong * STEP);
  uint64_t found = origin >> 16 & UINT32_MAX;
  unsigned version = origin & UINT16_MAX, whose = origin >> 48;
  size_t n, i;

  for (n = 0, i = first_wrong; i < PAGE_WORDS; i++)
    n += words[i] == word + (word ? (i - first_wrong) * STEP : 0);
  printf ("memload: page %" PRIu32 " is wrong from byte %zu on: version %u of host %u expected, ",
          page, first_wrong * 8, (unsigned) versions[page], (unsigned) host);
  if (word == 0)
    printf ("zeroes found");
  else if (found < npages && version > 0 && whose <= MAX_HOST)
    printf ("page %" PRIu64 " version %u of host %u found", found, version, whose);
  else
    printf ("%016" PRIx64 " found, which is of no page", word);
  printf (" (%zu of %zu words alike)\n", n, PAGE_WORDS - first_wrong);
}

/* => true if the page is as it was last written. A wrong one is written anew, to count once. */
static bool
check_page (uint32_t page)
{
  const uint64_t *words = memory + (size_t) page * PAGE_WORDS;
  uint64_t step = versions[page] ? STEP : 0;
  uint64_t first = versions[page] ? first_word (page, versions[page]) : 0;
  uint64_t x = first, diff = 0;
  size_t i;

  total.checked++;
  for (i = 0; i < PAGE_WORDS; i++, x += step)
    diff |= words[i] ^ x;
  if (diff == 0)
    return true;

  for (i = 0, x = first; words[i] == x; x += step)
    i++;
  if (total.wrong++ < MAX_REPORTS)
    report_wrong (page, words, i);
  rewrite_page (page);
  return false;
}

/* Have the kernel read in [first, first + AHEAD_PAGES) while the pages before are checked. */
static void
read_ahead (uint32_t first, uint32_t end)
{
  if (first + AHEAD_PAGES <= end)
    madvise (memory + (size_t) first * PAGE_WORDS, AHEAD_PAGES * PAGE_BYTES, MADV_WILLNEED);
}

static void
release_pages (uint32_t first, uint32_t n)
{
  if (madvise (memory + (size_t) first * PAGE_WORDS, (size_t) n * PAGE_BYTES, MADV_DONTNEED) == -1)
    die ("madvise: %s", strerror (errno));
  memset (versions + first, 0, n * sizeof *versions);
}

/* Check a page; rewrite half of them, zero a few, and now and then release a run somewhere. */
static void
check_and_change (uint32_t page)
{
  uint32_t dice = random_below (RELEASE_EVERY);

  check_page (page);
  if (dice == 0 && npages > RELEASE_PAGES)
    release_pages (random_below (npages - RELEASE_PAGES), RELEASE_PAGES);
  else if (dice < RELEASE_EVERY / 64)
    write_page (page, 0);
  else if (dice < RELEASE_EVERY / 2 || versions[page] == 0)
    rewrite_page (page);
}

/* A few neighbours anywhere, as programs touch memory; so readahead has something to do, too. */
static void
random_steps (void)
{
  uint32_t page = random_below (npages);
  uint32_t n = 1 + random_below (MAX_NEIGHBOURS);

  for (; n > 0 && page < npages; n--, page++)
    check_and_change (page);
}

static void
check_all (uint32_t n)
{
  uint64_t least;
  uint32_t page;

  for (page = 0; page < n; page++) {
    if (page % AHEAD_PAGES == 0) {
      progress (&least);
      read_ahead (page + AHEAD_PAGES, n);
    }
    check_page (page);
  }
}

/* Keep the first pages, release the others, run a command (swapoff, say), check what was kept. => how many milliseconds the
 * command took */
static uint64_t
keep_and_run (uint32_t nkept, const char *command)
{
  uint64_t took;
  int status;

  release_pages (nkept, npages - nkept);
  printf ("memload: keeps %" PRIu32 " pages and runs: %s\n", nkept, command);
  lap ();
  status = system (command); /* a spawn, not a fork: it copies no page table */
  took = lap ();
  if (status != 0)
    die ("%s: exit status %d", command,
         WIFSIGNALED (status) ? 128 + WTERMSIG (status) : WEXITSTATUS (status));
  check_all (npages);
  return took;
}

static void
usage (void)
{
  die (
    "usage: memload -m MIB [-n HOST] [-p PAGES] [-c PAGES] [-s SECONDS] [-w] [-k MIB -x COMMAND]\n"
    "  -m  how much memory to fill\n"
    "  -n  number of this host, 0 to 255: no other has the same patterns\n"
    "  -p  go on until so many pages have been swapped each way\n"
    "  -c  and until so many have been checked, from the same places in the same order each time\n"
    "  -s  and for so many seconds at least\n"
    "  -w  and until SIGUSR1 comes\n"
    "  -x  at the end run this command while only the first -k MiB are kept, and check those");
}

static uint64_t
parse_number (const char *s)
{
  char *end;
  uint64_t n;

  errno = 0;
  n = strtoull (s, &end, 10);
  if (errno || end == s || *end || *s == '-')
    die ("%s: is not a number", s);
  return n;
}

int
main (int argc, char *argv[])
{
  uint64_t mib = 0, number = 0, kept_mib = 0, wanted_pages = 0, wanted_checks = 0,
           wanted_seconds = 0;
  uint64_t least = 0, fill_ms, touch_ms, check_ms, command_ms = 0;
  const char *command = NULL;
  uint32_t page;
  bool waits = false, enough;
  int c;

  setvbuf (stdout, NULL, _IOLBF, 0);
  while ((c = getopt (argc, argv, "m:n:p:c:s:wk:x:")) != -1) {
    switch (c) {
    case 'm':
      mib = parse_number (optarg);
      break;
    case 'n':
      number = parse_number (optarg);
      break;
    case 'p':
      wanted_pages = parse_number (optarg);
      break;
    case 'c':
      wanted_checks = parse_number (optarg);
      break;
    case 's':
      wanted_seconds = parse_number (optarg);
      break;
    case 'w':
      waits = true;
      break;
    case 'k':
      kept_mib = parse_number (optarg);
      break;
    case 'x':
      command = optarg;
      break;
    default:
      usage ();
    }
  }
  if (optind != argc || mib == 0 || mib > 1 << 20 || kept_mib > mib || number > MAX_HOST)
    usage ();
  npages = mib << 20 >> 12;
  host = number;

  memory = mmap (NULL, (size_t) npages * PAGE_BYTES, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    die ("mmap of %" PRIu64 " MiB: %s", mib, strerror (errno));
  madvise (memory, (size_t) npages * PAGE_BYTES, MADV_NOHUGEPAGE);
  versions = calloc (npages, sizeof *versions);
  if (versions == NULL || mlock (versions, npages * sizeof *versions) == -1)
    die ("no memory for %" PRIu32 " versions: %s", npages, strerror (errno));

  signal (SIGUSR1, be_told);
  read_swapped (&first_in, &first_out);
  start_seconds = last_seconds = clock_seconds ();
  lap ();
  for (page = 0; page < npages; page++) {
    write_page (page, page % 64 == 63 ? 0 : 1);
    if (page % 64 == 0)
      progress (&least);
  }
  fill_ms = lap ();

  do {
    random_steps ();
    enough = (progress (&least) || wanted_pages == 0) && least >= wanted_pages &&
             total.checked >= wanted_checks && clock_seconds () >= start_seconds + wanted_seconds &&
             (told || !waits);
  } while (!enough);
  touch_ms = lap ();

  check_all (npages);
  check_ms = lap ();
  if (command)
    command_ms = keep_and_run (kept_mib << 20 >> 12, command);

  printf ("memload: took fill=%" PRIu64 " touch=%" PRIu64 " check=%" PRIu64 " command=%" PRIu64
          "\n",
          fill_ms, touch_ms, check_ms, command_ms);
  printf ("memload: %" PRIu64 " pages checked, %" PRIu64 " rewritten, %" PRIu64 " wrong\n",
          total.checked, total.rewritten, total.wrong);
  return total.wrong ? 1 : 0;
}
