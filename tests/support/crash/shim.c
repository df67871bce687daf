/* Loaded before libc (LD_PRELOAD): counts the calls that change files below one directory.
 *
 * `shim_arm` starts it, or SHIM_BELOW in the environment, with SHIM_REFUSE as "link=1,flock=37". Call
 * number `kill_at` is not made: the process dies instead. A journal holds
 * every call that succeeded, with what it wrote; tests/crashes.py reads it. `shim_refuse` makes one
 * kind of call fail, as a file system does that lacks it. Calls are made one at a time, so that the
 * order of the journal is the order on the disk. Linux only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* libc's own `syscall`, not the one at the end. */
static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        abort();
    return found;
}
static long (*real_syscall(void))(long, ...) {
    static long (*found)(long, ...);
    if (!found)
        found = (long (*)(long, ...))real("syscall");
    return found;
}
#define raw real_syscall()

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char base[PATH_MAX];
static size_t base_length;
static long count, kill_at;
static int journal = -1;

#define REFUSALS 16
static struct { char kind[24]; int error; } refusals[REFUSALS];
static int refused;

void shim_refuse(const char *kind, int error) {
    if (refused < REFUSALS) {
        snprintf(refusals[refused].kind, sizeof refusals[refused].kind, "%s", kind);
        refusals[refused++].error = error;
    }
}

void shim_arm(const char *below, long at, const char *journal_path) {
    if (journal_path && *journal_path)
        journal = (int)raw(SYS_openat, AT_FDCWD, journal_path,
                               O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    kill_at = at;
    snprintf(base, sizeof base, "%s", below);
    base_length = strlen(base);
}

__attribute__((constructor)) static void armed_by_environment(void) {
    const char *below = getenv("SHIM_BELOW"), *wanted = getenv("SHIM_REFUSE");
    char kind[24];
    int error, length;
    for (; wanted && sscanf(wanted, "%23[a-z0-9-]=%d%n", kind, &error, &length) == 2;
         wanted += length + (wanted[length] == ','))
        shim_refuse(kind, error);
    if (below)
        shim_arm(below, 0, "");
}

long shim_count(void) { return count; }

/* Where things are ------------------------------------------------------------------------ */

static int is_inside(const char *path) {
    return base_length && !strncmp(path, base, base_length) &&
           (path[base_length] == '/' || !path[base_length]);
}

static void path_of(int fd, char *into) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = raw(SYS_readlinkat, AT_FDCWD, link, into, PATH_MAX - 1);
    into[length < 0 ? 0 : length] = 0;
}

static int path_at(int dir, const char *path, char *into) {
    if (!base_length)
        return 0;
    if (path[0] == '/' || dir == AT_FDCWD) {
        snprintf(into, PATH_MAX, "%s", path);
    } else {
        path_of(dir, into);
        size_t length = strlen(into);
        snprintf(into + length, PATH_MAX - length, "/%s", path);
    }
    return is_inside(into);
}

static int is_open_inside(int fd) {
    char path[PATH_MAX];
    if (!base_length)
        return 0;
    path_of(fd, path);
    return is_inside(path);
}

static struct stat stat_of(int fd) {
    struct stat found = {0};
    int before = errno;
    fstat(fd, &found);
    errno = before;
    return found;
}

static ino_t inode_at(const char *path) {
    struct stat found = {0};
    int before = errno;
    lstat(path, &found);
    errno = before;
    return found.st_ino;
}

/* One call -------------------------------------------------------------------------------- */

static int is_refused(const char *kind) {
    for (int at = 0; at < refused; at++)
        if (!strcmp(refusals[at].kind, kind)) {
            errno = refusals[at].error;
            return 1;
        }
    return 0;
}

static void begin(void) {
    pthread_mutex_lock(&turn);
    if (++count == kill_at) {
        raw(SYS_kill, (pid_t)raw(SYS_getpid), SIGKILL);
        for (;;)
            pause();
    }
}

static void end(void) {
    int before = errno;
    pthread_mutex_unlock(&turn);
    errno = before;
}

static void put(const void *data, size_t length) {
    const char *next = data;
    int before = errno;
    while (journal >= 0 && length) {
        ssize_t written = raw(SYS_write, journal, next, length);
        if (written <= 0)
            abort();
        next += written;
        length -= (size_t)written;
    }
    errno = before;
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    char line[3 * PATH_MAX];
    va_list values;
    if (journal < 0)
        return;
    int length = sprintf(line, "%ld\t", count);
    va_start(values, format);
    length += vsnprintf(line + length, sizeof line - (size_t)length, format, values);
    va_end(values);
    put(line, (size_t)length);
}

#define REAL(name) ((__typeof__(&name))real(#name))

/* Opening --------------------------------------------------------------------------------- */

static int open_at(int dir, const char *path, int flags, mode_t mode) {
    char full[PATH_MAX];
    int inside = path_at(dir, path, full);
    if (inside && (flags & O_TMPFILE) == O_TMPFILE) {
        if (is_refused("tmpfile"))
            return -1;
        return (int)raw(SYS_openat, dir, path, flags, mode); /* it has no name to lose */
    }
    if (!inside || !(flags & (O_CREAT | O_TRUNC)))
        return (int)raw(SYS_openat, dir, path, flags, mode);
    begin();
    ino_t before = inode_at(full);
    int fd = (int)raw(SYS_openat, dir, path, flags, mode);
    if (fd >= 0 && !before)
        note("create\t%s\t%lu\n", full, (unsigned long)stat_of(fd).st_ino);
    else if (fd >= 0 && (flags & O_TRUNC))
        note("truncate\t%lu\t0\n", (unsigned long)stat_of(fd).st_ino);
    end();
    return fd;
}

#define MODE(last, flags)                                   \
    mode_t mode = 0;                                        \
    if ((flags) & (O_CREAT | (O_TMPFILE & ~O_DIRECTORY))) { \
        va_list values;                                     \
        va_start(values, last);                             \
        mode = va_arg(values, mode_t);                      \
        va_end(values);                                     \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_at(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_at(AT_FDCWD, path, flags, mode);
}
int openat(int dir, const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_at(dir, path, flags, mode);
}
int openat64(int dir, const char *path, int flags, ...) {
    MODE(flags, flags)
    return open_at(dir, path, flags, mode);
}
int creat(const char *path, mode_t mode) {
    return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int creat64(const char *path, mode_t mode) { return creat(path, mode); }
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }

/* Data ------------------------------------------------------------------------------------ */

static void wrote(int fd, const void *data, ssize_t written, off_t at) {
    if (written <= 0)
        return;
    note("write\t%lu\t%ld\t%ld\n", (unsigned long)stat_of(fd).st_ino, (long)at, (long)written);
    put(data, (size_t)written);
    put("\n", 1);
}

static off_t behind(int fd, ssize_t written) {
    return (off_t)raw(SYS_lseek, fd, 0, SEEK_CUR) - written;
}

ssize_t write(int fd, const void *data, size_t length) {
    if (!is_open_inside(fd))
        return raw(SYS_write, fd, data, length);
    begin();
    ssize_t written = raw(SYS_write, fd, data, length);
    if (written > 0)
        wrote(fd, data, written, behind(fd, written));
    end();
    return written;
}
ssize_t writev(int fd, const struct iovec *parts, int number) {
    if (!is_open_inside(fd))
        return raw(SYS_writev, fd, parts, number);
    begin();
    ssize_t written = raw(SYS_writev, fd, parts, number);
    off_t at = written > 0 ? behind(fd, written) : 0;
    ssize_t left = written;
    for (int each = 0; each < number && left > 0; each++) {
        ssize_t length = (ssize_t)parts[each].iov_len < left ? (ssize_t)parts[each].iov_len : left;
        wrote(fd, parts[each].iov_base, length, at);
        at += length;
        left -= length;
    }
    end();
    return written;
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    if (!is_open_inside(fd))
        return raw(SYS_pwrite64, fd, data, length, at);
    begin();
    ssize_t written = raw(SYS_pwrite64, fd, data, length, at);
    wrote(fd, data, written, at);
    end();
    return written;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) {
    return pwrite64(fd, data, length, at);
}
int ftruncate64(int fd, off64_t length) {
    if (!is_open_inside(fd))
        return (int)raw(SYS_ftruncate, fd, length);
    begin();
    int answer = (int)raw(SYS_ftruncate, fd, length);
    if (!answer)
        note("truncate\t%lu\t%ld\n", (unsigned long)stat_of(fd).st_ino, (long)length);
    end();
    return answer;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

/* What this has no words for in a journal must not pass unseen. */
static void refuse_unknown(const char *name, int fd) {
    if (is_open_inside(fd)) {
        fprintf(stderr, "shim.c has no journal entry for %s\n", name);
        abort();
    }
}
ssize_t pwritev(int fd, const struct iovec *parts, int number, off_t at) {
    refuse_unknown("pwritev", fd);
    return REAL(pwritev)(fd, parts, number, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int number, off64_t at) {
    refuse_unknown("pwritev64", fd);
    return REAL(pwritev64)(fd, parts, number, at);
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t length) {
    refuse_unknown("sendfile", to);
    return raw(SYS_sendfile, to, from, at, length);
}
ssize_t sendfile(int to, int from, off_t *at, size_t length) {
    return sendfile64(to, from, at, length);
}
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *into, size_t length,
                        unsigned int flags) {
    refuse_unknown("copy_file_range", to);
    return raw(SYS_copy_file_range, from, at, to, into, length, flags);
}
int posix_fallocate64(int fd, off64_t at, off64_t length) {
    refuse_unknown("posix_fallocate", fd);
    return REAL(posix_fallocate64)(fd, at, length);
}
int posix_fallocate(int fd, off_t at, off_t length) { return posix_fallocate64(fd, at, length); }

static int synced(int fd, long number) {
    if (!is_open_inside(fd))
        return (int)raw(number, fd);
    struct stat found = stat_of(fd);
    begin();
    int answer = -1;
    if (!is_refused(S_ISDIR(found.st_mode) ? "fsync-directory" : "fsync")) {
        answer = (int)raw(number, fd);
        if (!answer)
            note("fsync\t%lu\n", (unsigned long)found.st_ino);
    }
    end();
    return answer;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

/* Names ----------------------------------------------------------------------------------- */

static int rename_at(int dir, const char *from, int other, const char *to, unsigned int flags) {
    char old[PATH_MAX], new[PATH_MAX];
    int inside = path_at(dir, from, old) | path_at(other, to, new);
    if (!inside)
        return (int)raw(SYS_renameat2, dir, from, other, to, flags);
    begin();
    int answer = -1;
    if (!is_refused(flags ? "renameat2" : "rename")) {
        answer = (int)raw(SYS_renameat2, dir, from, other, to, flags);
        if (!answer)
            note("rename\t%s\t%s\n", old, new);
    }
    end();
    return answer;
}
int rename(const char *from, const char *to) {
    return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0);
}
int renameat(int dir, const char *from, int other, const char *to) {
    return rename_at(dir, from, other, to, 0);
}
int renameat2(int dir, const char *from, int other, const char *to, unsigned int flags) {
    return rename_at(dir, from, other, to, flags);
}

int linkat(int dir, const char *from, int other, const char *to, int flags) {
    char old[PATH_MAX], new[PATH_MAX];
    path_at(dir, from, old);
    if (!path_at(other, to, new))
        return (int)raw(SYS_linkat, dir, from, other, to, flags);
    begin();
    int answer = -1;
    if (!is_refused("link")) {
        answer = (int)raw(SYS_linkat, dir, from, other, to, flags);
        if (!answer)
            note("link\t%s\t%lu\n", new, (unsigned long)inode_at(new));
    }
    end();
    return answer;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

static int remove_at(int dir, const char *path, int flags) {
    char full[PATH_MAX];
    if (!path_at(dir, path, full))
        return (int)raw(SYS_unlinkat, dir, path, flags);
    begin();
    int answer = (int)raw(SYS_unlinkat, dir, path, flags);
    if (!answer)
        note("remove\t%s\n", full);
    end();
    return answer;
}
int unlink(const char *path) { return remove_at(AT_FDCWD, path, 0); }
int unlinkat(int dir, const char *path, int flags) { return remove_at(dir, path, flags); }
int rmdir(const char *path) { return remove_at(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int dir, const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (!path_at(dir, path, full))
        return (int)raw(SYS_mkdirat, dir, path, mode);
    begin();
    int answer = (int)raw(SYS_mkdirat, dir, path, mode);
    if (!answer)
        note("mkdir\t%s\t%lu\n", full, (unsigned long)inode_at(full));
    end();
    return answer;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* What file systems may refuse ------------------------------------------------------------ */

int flock(int fd, int how) {
    if (is_open_inside(fd) && is_refused("flock"))
        return -1;
    return (int)raw(SYS_flock, fd, how);
}
int fchmod(int fd, mode_t mode) {
    if (is_open_inside(fd) && is_refused("chmod"))
        return -1;
    return (int)raw(SYS_fchmod, fd, mode);
}
int chmod(const char *path, mode_t mode) {
    char full[PATH_MAX];
    if (path_at(AT_FDCWD, path, full) && is_refused("chmod"))
        return -1;
    return (int)raw(SYS_fchmodat, AT_FDCWD, path, mode);
}
int fcntl64(int fd, int command, ...) {
    va_list values;
    va_start(values, command);
    void *value = va_arg(values, void *);
    va_end(values);
    int locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK;
    if (locks && is_open_inside(fd) && is_refused("fcntl"))
        return -1;
    static int (*next)(int, int, ...);
    if (!next)
        next = (int (*)(int, int, ...))real("fcntl64");
    return next(fd, command, value);
}
int fcntl(int fd, int command, ...) {
    va_list values;
    va_start(values, command);
    void *value = va_arg(values, void *);
    va_end(values);
    return fcntl64(fd, command, value);
}

void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t at) {
    if ((flags & MAP_SHARED) && fd >= 0 && is_open_inside(fd) && is_refused("mmap"))
        return MAP_FAILED;
    return (void *)raw(SYS_mmap, address, length, protection, flags, fd, at);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t at) {
    return mmap64(address, length, protection, flags, fd, at);
}

/* Rust makes some calls by number. Those that change files have to come by here as well. */
long syscall(long number, ...) {
    long a[6];
    va_list values;
    va_start(values, number);
    for (int at = 0; at < 6; at++)
        a[at] = va_arg(values, long);
    va_end(values);
    if (number == SYS_copy_file_range)
        return copy_file_range((int)a[0], (off64_t *)a[1], (int)a[2], (off64_t *)a[3],
                               (size_t)a[4], (unsigned int)a[5]);
    if (number == SYS_renameat2)
        return rename_at((int)a[0], (char *)a[1], (int)a[2], (char *)a[3], (unsigned int)a[4]);
    return raw(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
