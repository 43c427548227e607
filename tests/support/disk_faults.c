/* A disk that fails on demand, loaded in front of the C library (LD_PRELOAD).

   disk_faults(chance, seed, kinds) makes each call below fail with that chance from now on, until it is called
   with chance 0; disk_faults_done() says how many calls have failed. Kinds are bits:
   1 no space left, 2 input/output error, 4 a write that is cut short, 8 a sync that fails,
   16 a rename, truncation or new file that fails.
   Only writing fails: what a medium that cannot be read means is another test's matter. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

static double chance;
static unsigned long long state = 1;
static int kinds;
static long done;

void disk_faults(double how_often, unsigned long long seed, int which)
{
    chance = how_often;
    state = seed * 2862933555777941757ULL + 3037000493ULL;
    kinds = which;
}

long disk_faults_done(void)
{
    return done;
}

static double draw(void)
{
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (double)(state >> 33) / 2147483648.0;
}

static int fails(int kind)
{
    if (chance <= 0 || !(kinds & kind) || draw() >= chance)
        return 0;
    ++done;
    return 1;
}

static int fails_with(int kind, int code)
{
    if (!fails(kind))
        return 0;
    errno = code;
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int no_write(int fd)
{
    /* What the test itself prints is not the disk's. */
    return fd > 2 && (fails_with(1, ENOSPC) || fails_with(2, EIO));
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (no_write(fd))
        return -1;
    return REAL(write)(fd, data, fd > 2 && size > 1 && fails(4) ? size / 2 : size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    if (no_write(fd))
        return -1;
    return REAL(pwrite)(fd, data, size > 1 && fails(4) ? size / 2 : size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    if (no_write(fd))
        return -1;
    return REAL(pwrite64)(fd, data, size > 1 && fails(4) ? size / 2 : size, at);
}

int fsync(int fd)
{
    return fails_with(8, EIO) ? -1 : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return fails_with(8, EIO) ? -1 : REAL(fdatasync)(fd);
}

int ftruncate64(int fd, off64_t size)
{
    return fails_with(16, EIO) ? -1 : REAL(ftruncate64)(fd, size);
}

int ftruncate(int fd, off_t size)
{
    return fails_with(16, EIO) ? -1 : REAL(ftruncate)(fd, size);
}

int rename(const char *from, const char *to)
{
    return fails_with(16, ENOSPC) ? -1 : REAL(rename)(from, to);
}

static int opened(int (*real)(const char *, int, ...), const char *path, int flags, mode_t mode)
{
    /* A file that is there already needs no space to be opened. */
    if ((flags & O_CREAT) && access(path, F_OK) != 0 && fails_with(16, ENOSPC))
        return -1;
    return real(path, flags, mode);
}

#define OPEN(name)                                                                                            \
    int name(const char *path, int flags, ...)                                                                \
    {                                                                                                         \
        mode_t mode = 0;                                                                                      \
        if (flags & O_CREAT) {                                                                                \
            va_list more;                                                                                     \
            va_start(more, flags);                                                                            \
            mode = va_arg(more, mode_t);                                                                      \
            va_end(more);                                                                                     \
        }                                                                                                     \
        return opened(REAL(name), path, flags, mode);                                                         \
    }

OPEN(open)
OPEN(open64)
