/* A full disk for one directory, without root: preloaded into a process, it lets writes to files
 * below $CHAOS_STORE fail with ENOSPC while the file $CHAOS_DISK_FULL exists.
 *
 * Files can still be made and named, as on a disk whose blocks are used up.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int full(int fd)
{
    const char *flag = getenv("CHAOS_DISK_FULL"), *store = getenv("CHAOS_STORE");
    char link[64], path[4096];
    ssize_t length;
    int before = errno, answer = 0;

    if (flag && store && access(flag, F_OK) == 0) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        length = readlink(link, path, sizeof path - 1);
        if (length > 0) {
            path[length] = 0;
            answer = strncmp(path, store, strlen(store)) == 0;
        }
    }
    if (answer) { /* tell the waiting fault that a write was refused */
        snprintf(path, sizeof path, "%s.felt", flag);
        close(open(path, O_CREAT | O_WRONLY, 0600));
    }
    errno = answer ? ENOSPC : before;
    return answer;
}

#define GUARDED(type, name, fd, parameters, arguments)           \
    type name parameters                                         \
    {                                                            \
        static type(*real) parameters;                           \
        if (!real)                                               \
            real = (type(*) parameters)dlsym(RTLD_NEXT, #name);  \
        return full(fd) ? (type)-1 : real arguments;             \
    }

GUARDED(ssize_t, write, fd, (int fd, const void *bytes, size_t count), (fd, bytes, count))
GUARDED(ssize_t, writev, fd, (int fd, const struct iovec *parts, int count), (fd, parts, count))
GUARDED(ssize_t, pwrite, fd, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
GUARDED(ssize_t, pwrite64, fd, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at))
GUARDED(ssize_t, sendfile, to, (int to, int from, off_t *at, size_t count), (to, from, at, count))
GUARDED(ssize_t, sendfile64, to, (int to, int from, off64_t *at, size_t count), (to, from, at, count))
GUARDED(ssize_t, copy_file_range, to,
        (int from, off64_t *out, int to, off64_t *in, size_t count, unsigned flags),
        (from, out, to, in, count, flags))
