/* Loaded into adbd, which otherwise listens on every interface and on vsock, to anybody: here it hears loopback only.
 * Also loses the device on order: the file /adbd/lose holds "write N" or "read N", and adbd dies at the call that takes
 * its reads from, or writes to, ordinary files below /data past N bytes. That is a cable pulled mid-pull or mid-push. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

int bind(int fd, const struct sockaddr *address, socklen_t length) {
  static int (*real)(int, const struct sockaddr *, socklen_t);
  if (!real) real = (int (*)(int, const struct sockaddr *, socklen_t))dlsym(RTLD_NEXT, "bind");
  if (address->sa_family == AF_INET) {
    struct sockaddr_in here = *(const struct sockaddr_in *)address;
    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return real(fd, (struct sockaddr *)&here, sizeof here);
  }
  if (address->sa_family == AF_INET6) {
    static const unsigned char mapped[16] = {[10] = 0xff, [11] = 0xff, [12] = 127, [15] = 1}; /* ::ffff:127.0.0.1 */
    struct sockaddr_in6 here = *(const struct sockaddr_in6 *)address;
    memcpy(&here.sin6_addr, mapped, sizeof mapped);
    return real(fd, (struct sockaddr *)&here, sizeof here);
  }
  if (address->sa_family == AF_UNIX) return real(fd, address, length);
  errno = EACCES;
  return -1;
}

static void count(int fd, const char *kind, ssize_t bytes) {
  static atomic_long total;
  struct stat file;
  if (bytes <= 0 || access("/adbd/lose", F_OK) || fstat(fd, &file) || !S_ISREG(file.st_mode)) return;
  char path[64], name[256], order[8];
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(path, name, sizeof name - 1);
  if (length < 6 || memcmp(name, "/data/", 6)) return;
  FILE *orders = fopen("/adbd/lose", "r");
  long limit = 0;
  if (!orders) return;
  int read = fscanf(orders, "%7s %ld", order, &limit);
  fclose(orders);
  if (read != 2 || strcmp(order, kind)) return;
  if ((total += bytes) > limit) {
    unlink("/adbd/lose"); /* once: the adbd that comes after lives */
    _exit(1);
  }
}

ssize_t write(int fd, const void *data, size_t size) {
  static ssize_t (*real)(int, const void *, size_t);
  if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
  ssize_t done = real(fd, data, size);
  count(fd, "write", done);
  return done;
}

ssize_t read(int fd, void *data, size_t size) {
  static ssize_t (*real)(int, void *, size_t);
  if (!real) real = (ssize_t (*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  ssize_t done = real(fd, data, size);
  count(fd, "read", done);
  return done;
}
