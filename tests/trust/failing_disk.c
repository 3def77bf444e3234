/* A disk that fails at the n-th thing done to it: LD_PRELOAD this library, then call fail_at.

   Opening for writing, writing, syncing, renaming, removing and making a folder are counted, below one folder only. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, IO_ERROR, FULL, SHORT, KILLED, TORN };
enum call { OPEN, WRITE, SYNC, RENAME, UNLINK, MKDIR };

static char root[PATH_MAX];
static size_t root_length;
static long target, fault;
static atomic_long seen;

/* From now on the nth call below folder (an absolute path) fails; with FULL, all after it too. nth 0: only count. */
void fail_at(const char *folder, long nth, long kind) {
    snprintf(root, sizeof root, "%s/", folder);
    target = nth, fault = kind, seen = 0;
    root_length = strlen(root);
}

long calls_seen(void) { return seen; }

static int below(const char *path) { return root_length && path && strncmp(path, root, root_length) == 0; }

static int below_fd(int descriptor) {
    char link[64], path[PATH_MAX];
    if (!root_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 2);
    if (length < 0) return 0;
    path[length] = '/', path[length + 1] = 0; /* the folder itself counts */
    return below(path);
}

/* Whether this call fails, with errno; KILLED does not return. */
static int fails(enum call call) {
    if (fault == SHORT && call != WRITE) return 0;
    if (fault == FULL && call == UNLINK) return 0;
    long number = ++seen;
    if (!target || number < target || (number > target && fault != FULL)) return 0;
    if (fault == KILLED) kill(0, SIGKILL), pause();
    if (fault == SHORT || fault == TORN) return 1;
    errno = fault == FULL ? ENOSPC : EIO;
    return 1;
}

static void torn(void) { if (fault == TORN) kill(0, SIGKILL), pause(); }

#define REAL(name) static __typeof__(name) *real; if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define OPENER(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        REAL(name); \
        int bad = (flags & (O_WRONLY | O_RDWR | O_CREAT)) && below(path) && fails(OPEN); \
        if (bad && fault != TORN) return -1; \
        int opened = real(path, flags, mode); \
        if (bad) torn(); \
        return opened; \
    }
OPENER(open)
OPENER(open64)

#define OPENER_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        va_list more; va_start(more, flags); mode_t mode = va_arg(more, mode_t); va_end(more); \
        REAL(name); \
        int bad = (flags & (O_WRONLY | O_RDWR | O_CREAT)) && (below(path) || (path[0] != '/' && below_fd(folder))) && fails(OPEN); \
        if (bad && fault != TORN) return -1; \
        int opened = real(folder, path, flags, mode); \
        if (bad) torn(); \
        return opened; \
    }
OPENER_AT(openat)
OPENER_AT(openat64)

ssize_t write(int file, const void *bytes, size_t length) {
    REAL(write);
    if (!below_fd(file) || !fails(WRITE)) return real(file, bytes, length);
    if (fault != SHORT && fault != TORN) return -1;
    ssize_t written = real(file, bytes, length > 1 ? length / 2 : length);
    torn();
    return written;
}

ssize_t writev(int file, const struct iovec *parts, int number) {
    REAL(writev);
    if (!below_fd(file) || !fails(WRITE)) return real(file, parts, number);
    if (fault != SHORT && fault != TORN) return -1;
    ssize_t written = real(file, parts, 1);
    torn();
    return written;
}

#define PWRITER(name, offset_type) \
    ssize_t name(int file, const void *bytes, size_t length, offset_type offset) { \
        REAL(name); \
        if (!below_fd(file) || !fails(WRITE)) return real(file, bytes, length, offset); \
        if (fault != SHORT && fault != TORN) return -1; \
        ssize_t written = real(file, bytes, length > 1 ? length / 2 : length, offset); \
        torn(); \
        return written; \
    }
PWRITER(pwrite, off_t)
PWRITER(pwrite64, off64_t)

#define CALL(name, call, where, parameters, arguments) \
    int name parameters { \
        REAL(name); \
        int bad = where && fails(call); \
        if (bad && fault != TORN) return -1; \
        int result = real arguments; \
        if (bad) torn(); \
        return result; \
    }
CALL(fsync, SYNC, below_fd(file), (int file), (file))
CALL(fdatasync, SYNC, below_fd(file), (int file), (file))
CALL(rename, RENAME, below(new), (const char *old, const char *new), (old, new))
CALL(unlink, UNLINK, below(path), (const char *path), (path))
CALL(mkdir, MKDIR, below(path), (const char *path, mode_t mode), (path, mode))
CALL(unlinkat, UNLINK, (below(path) || below_fd(folder)), (int folder, const char *path, int flags), (folder, path, flags))
