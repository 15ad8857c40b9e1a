/* What a machine may do to a program: loaded into it with LD_PRELOAD.
 *
 * SHIM_CLOCK=SECONDS  the clock of the day goes wrong by so much
 * SHIM_WRITES=short   every write to a file takes half of what it is given
 * SHIM_WRITES=EINTR   every other write or lock is interrupted first; no sync of a
 *                     filesystem of a disk ever is
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int is_file(int fd) {
    struct stat status;
    return fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

static int does(const char *what) {
    const char *writes = getenv("SHIM_WRITES");
    return writes && strcmp(writes, what) == 0;
}

static int interrupted(void) {
    static __thread unsigned count;
    if (!does("EINTR") || count++ % 2) return 0;
    errno = EINTR;
    return 1;
}

static size_t taken(int fd, size_t len) {
    return len > 1 && does("short") && is_file(fd) ? len / 2 : len;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    NEXT(clock_gettime);
    int result = next(clock, time);
    const char *wrong = getenv("SHIM_CLOCK");
    if (result == 0 && clock == CLOCK_REALTIME && wrong) time->tv_sec += atol(wrong);
    return result;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    NEXT(write);
    return interrupted() ? -1 : next(fd, bytes, taken(fd, len));
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    NEXT(pwrite);
    return interrupted() ? -1 : next(fd, bytes, taken(fd, len), offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    NEXT(pwrite64);
    return interrupted() ? -1 : next(fd, bytes, taken(fd, len), offset);
}

ssize_t writev(int fd, const struct iovec *pieces, int count) {
    NEXT(writev);
    return interrupted() ? -1 : next(fd, pieces, does("short") && count > 1 ? 1 : count);
}

int ftruncate64(int fd, off64_t len) {
    NEXT(ftruncate64);
    return interrupted() ? -1 : next(fd, len);
}

int flock(int fd, int operation) {
    NEXT(flock);
    return interrupted() ? -1 : next(fd, operation);
}
