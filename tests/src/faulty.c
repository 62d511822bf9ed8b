/* A disk that is slow or fails, under any program: loaded before libc (LD_PRELOAD) by tests/src/faulty.rs.
 * STOCKLINE_DISK=slow:MS    every fdatasync takes so long
 * STOCKLINE_DISK=eio:FILE   fdatasync fails with EIO once FILE exists
 * STOCKLINE_DISK=full:FILE  writes beyond a file's end, and its growth, fail with ENOSPC once FILE exists */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *argument(const char *kind) {
    const char *plan = getenv("STOCKLINE_DISK");
    size_t length = strlen(kind);
    return plan && strncmp(plan, kind, length) == 0 && plan[length] == ':' ? plan + length + 1 : NULL;
}

static int begun(const char *kind) {
    const char *file = argument(kind);
    return file && access(file, F_OK) == 0;
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    const char *ms = argument("slow");
    if (ms) usleep((useconds_t)atoi(ms) * 1000);
    if (begun("eio")) { errno = EIO; return -1; }
    return real(fd);
}

static int grows(int fd, off_t end) {
    struct stat found;
    return fstat(fd, &found) == 0 && S_ISREG(found.st_mode) && end > found.st_size;
}

int ftruncate64(int fd, off_t length) {
    static int (*real)(int, off_t);
    if (!real) real = (int (*)(int, off_t))dlsym(RTLD_NEXT, "ftruncate64");
    if (begun("full") && grows(fd, length)) { errno = ENOSPC; return -1; }
    return real(fd, length);
}

ssize_t pwrite64(int fd, const void *data, size_t count, off_t offset) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    if (begun("full") && grows(fd, offset + (off_t)count)) { errno = ENOSPC; return -1; }
    return real(fd, data, count, offset);
}
