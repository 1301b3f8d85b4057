/* Counts what a process asks of the heap, where the C library is glibc; loaded before it. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

static atomic_long asked;

long allocations_so_far(void) { return atomic_load(&asked); }

void *malloc(size_t size) {
  atomic_fetch_add(&asked, 1);
  return __libc_malloc(size);
}

void *calloc(size_t n, size_t size) {
  atomic_fetch_add(&asked, 1);
  return __libc_calloc(n, size);
}

void *realloc(void *old, size_t size) {
  atomic_fetch_add(&asked, 1);
  return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
  atomic_fetch_add(&asked, 1);
  return __libc_memalign(alignment, size);
}

int posix_memalign(void **to, size_t alignment, size_t size) {
  void *found = aligned_alloc(alignment, size);
  if (found == NULL) return ENOMEM;
  *to = found;
  return 0;
}
