/* SPDX-License-Identifier: BSD-3-Clause
 *
 * libmemory.c - see faults.h: malloc, mmap and their kin in the server, and who called them.
 *
 * Who that was is read off the stack, with what the compiler leaves for unwinding in any build. The calls themselves go to libc's
 * own names for them, and to the kernel: so nothing here has to be looked up, which would take memory.
 */
#undef _FORTIFY_SOURCE
#include <config.h>

#include "faults.h"
#include "libfaults.h"

#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

static const char plugin_name[] = "nbdkit-drum-plugin.so";

/* Its text, and the server's own: [begin, end), 0 until looked up. */
static struct text {
  uintptr_t base, begin, end;
} plugin, server;

/* Inside the watch itself. Not of what glibc allocates at a thread's first look. */
static _Thread_local bool looking __attribute__ ((tls_model ("initial-exec")));

void
faults_watch_thread (bool watch)
{
  looking = !watch;
}

static int
find_text (struct dl_phdr_info *info, size_t size, void *opaque)
{
  bool *found = opaque;
  struct text *text = *info->dlpi_name == 0                   ? &server
                      : strstr (info->dlpi_name, plugin_name) ? &plugin
                                                              : NULL;

  (void) size;
  /* The program comes first, and only its name is empty; the vdso's is, too, on some kernels. */
  if (!text || (text == &server && *found))
    return 0;
  *found = true;
  for (unsigned i = 0; i < info->dlpi_phnum; i++) {
    const ElfW (Phdr) *p = &info->dlpi_phdr[i];

    if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
      continue;
    text->base = info->dlpi_addr;
    text->end = info->dlpi_addr + p->p_vaddr + p->p_memsz;
    text->begin = info->dlpi_addr + p->p_vaddr;
  }
  return 0;
}

static bool
is_in (const struct text *text, uintptr_t at)
{
  return at >= text->begin && at < text->end;
}

/* A walk up the stack. */
struct walk {
  const struct text *nearest; /* of the two, or NULL */
  bool met_plugin;
  unsigned n;
  uint64_t frame[FAULTS_FRAMES];
};

static _Unwind_Reason_Code
step (struct _Unwind_Context *context, void *opaque)
{
  uintptr_t at = _Unwind_GetIP (context);
  struct walk *w = opaque;

  if (!w->nearest && is_in (&server, at))
    w->nearest = &server;
  if (!is_in (&plugin, at))
    return _URC_NO_REASON;
  if (!w->nearest)
    w->nearest = &plugin;
  w->met_plugin = true;
  if (w->n < FAULTS_FRAMES)
    w->frame[w->n++] = at - plugin.base;
  return _URC_NO_REASON;
}

static void
note (struct faults_memory *m, const struct walk *w, const char *call, const char *thread)
{
  uint64_t n = atomic_fetch_add (&m->nplugin, 1);

  if (n >= FAULTS_TAKES)
    return;
  snprintf (m->take[n].call, FAULTS_NAME, "%s", call);
  snprintf (m->take[n].thread, FAULTS_NAME, "%s", thread);
  memcpy (m->take[n].frame, w->frame, sizeof w->frame);
}

static void
look (const char *call)
{
  struct faults_memory *m = &faults->memory;
  struct walk w = { .n = 0 };
  char thread[FAULTS_NAME] = "";
  bool found = false;

  if (!plugin.begin)
    dl_iterate_phdr (find_text, &found);
  prctl (PR_GET_NAME, thread);
  if (strstr (m->spared, thread))
    return;
  _Unwind_Backtrace (step, &w);
  if (w.nearest == &plugin)
    note (m, &w, call, thread);
  else if (w.met_plugin)
    atomic_fetch_add (&m->nserver, 1);
}

static void
saw (const char *call)
{
  int err = errno;

  if (!faults || looking || !atomic_load_explicit (&faults->memory.watch, memory_order_relaxed))
    return;
  looking = true;
  look (call);
  looking = false;
  errno = err;
}

/* ---- what the server calls ---- */

extern void *__libc_malloc (size_t);
extern void *__libc_calloc (size_t, size_t);
extern void *__libc_realloc (void *, size_t);
extern void *__libc_memalign (size_t, size_t);
extern void __libc_free (void *);

void *
malloc (size_t size)
{
  saw ("malloc");
  return __libc_malloc (size);
}

void *
calloc (size_t n, size_t size)
{
  saw ("calloc");
  return __libc_calloc (n, size);
}

void *
realloc (void *old, size_t size)
{
  saw ("realloc");
  return __libc_realloc (old, size);
}

void *
memalign (size_t alignment, size_t size)
{
  saw ("memalign");
  return __libc_memalign (alignment, size);
}

void *
aligned_alloc (size_t alignment, size_t size)
{
  saw ("aligned_alloc");
  return __libc_memalign (alignment, size);
}

int
posix_memalign (void **mem, size_t alignment, size_t size)
{
  void *p;

  saw ("posix_memalign");
  p = __libc_memalign (alignment, size);
  if (!p)
    return ENOMEM;
  *mem = p;
  return 0;
}

void
free (void *mem)
{
  if (mem) /* libc's messages free NULL */
    saw ("free");
  __libc_free (mem);
}

void *
mmap (void *at, size_t len, int prot, int flags, int fd, off_t offset)
{
  saw ("mmap");
  return (void *) syscall (SYS_mmap, at, len, prot, flags, fd, offset);
}

int
munmap (void *at, size_t len)
{
  saw ("munmap");
  return (int) syscall (SYS_munmap, at, len);
}

void *
mremap (void *at, size_t old_len, size_t len, int flags, ...)
{
  va_list args;
  void *to;

  va_start (args, flags);
  to = flags & MREMAP_FIXED ? va_arg (args, void *) : NULL;
  va_end (args);
  saw ("mremap");
  return (void *) syscall (SYS_mremap, at, old_len, len, flags, to);
}

int
mprotect (void *at, size_t len, int prot)
{
  saw ("mprotect");
  return (int) syscall (SYS_mprotect, at, len, prot);
}

int
madvise (void *at, size_t len, int advice)
{
  saw ("madvise");
  return (int) syscall (SYS_madvise, at, len, advice);
}

/* Seldom called, and no other way is there to these. */
#define NEXT(name) ((__typeof__ (&name)) dlsym (RTLD_NEXT, #name))

void *
sbrk (intptr_t more)
{
  saw ("sbrk");
  return NEXT (sbrk) (more);
}

int
brk (void *end)
{
  saw ("brk");
  return NEXT (brk) (end);
}

int
pthread_create (pthread_t *thread, const pthread_attr_t *attr, void *(*main) (void *), void *arg)
{
  saw ("pthread_create");
  return NEXT (pthread_create) (thread, attr, main, arg);
}

/* Elsewhere the headers have made the name above this. */
#ifdef __LP64__
void *mmap64 (void *, size_t, int, int, int, off64_t) __attribute__ ((alias ("mmap"), copy (mmap)));
#endif
