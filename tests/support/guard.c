// Preloaded before a test: every block from posix_memalign and its like (tensors, oneDNN's scratch memory) lies between
// two pages that may not be touched, as near as its alignment allows to the second. What is written past its end dies
// at once; what is written into the gap that the alignment leaves is noticed when the block is freed.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

extern void __libc_free(void *);

enum { SLOTS = 1 << 16, PAGE = 4096, FILLED = 0xA5 };

typedef struct {
  char *user, *base;
  size_t size, span;
} Block;

static Block blocks[SLOTS];  // open addressing by `user`
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static unsigned home_of(const void *p) { return (unsigned)(((uintptr_t)p * 0x9E3779B97F4A7C15ull) >> 48); }

static void die(const char *why) {
  if (write(2, why, strlen(why)) < 0) _exit(1);
  abort();
}

static void *guarded(size_t alignment, size_t size) {
  if (alignment < 16) alignment = 16;
  size_t room = (size + 2 * alignment + PAGE - 1) / PAGE * PAGE, span = room + 2 * PAGE;
  char *base = mmap(NULL, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return NULL;
  mprotect(base, PAGE, PROT_NONE);
  mprotect(base + PAGE + room, PAGE, PROT_NONE);
  char *end = base + PAGE + room, *user = (char *)(((uintptr_t)end - size) / alignment * alignment);
  memset(user + size, FILLED, (size_t)(end - user) - size);
  pthread_mutex_lock(&lock);
  unsigned at = home_of(user), looked = 0;
  while (blocks[at].user != NULL) {
    if (++looked == SLOTS - 1) die("guard: too many blocks\n");
    at = (at + 1) % SLOTS;
  }
  blocks[at] = (Block){user, base, size, span};
  pthread_mutex_unlock(&lock);
  return user;
}

static Block taken_out(const void *p) {
  unsigned gap = home_of(p);
  while (blocks[gap].user != NULL && blocks[gap].user != p) gap = (gap + 1) % SLOTS;
  Block found = blocks[gap];
  if (found.user == NULL) return found;
  for (unsigned at = (gap + 1) % SLOTS; blocks[at].user != NULL; at = (at + 1) % SLOTS) {
    unsigned home = home_of(blocks[at].user);
    int between = gap <= at ? gap < home && home <= at : gap < home || home <= at;
    if (between) continue;  // it would not be found from its home any more
    blocks[gap] = blocks[at];
    gap = at;
  }
  blocks[gap].user = NULL;
  return found;
}

int posix_memalign(void **out, size_t alignment, size_t size) {
  void *block = guarded(alignment, size);
  if (block == NULL) return ENOMEM;
  *out = block;
  return 0;
}

void *aligned_alloc(size_t alignment, size_t size) { return guarded(alignment, size); }

void *memalign(size_t alignment, size_t size) { return guarded(alignment, size); }

void free(void *p) {
  if (p == NULL) return;
  pthread_mutex_lock(&lock);
  Block found = taken_out(p);
  pthread_mutex_unlock(&lock);
  if (found.user == NULL) {
    __libc_free(p);
    return;
  }
  for (const char *at = found.user + found.size; at < found.base + found.span - PAGE; at++)
    if (*(const unsigned char *)at != FILLED) die("guard: a block was written past its end\n");
  munmap(found.base, found.span);
}
