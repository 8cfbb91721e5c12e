/* os.c - the operating system: clock, threads, wake pipes, mailboxes, files, privileges, sd_notify.
 *
 * Wake pipes. The reader, which sleeps in poll(), first empties the pipe and then looks for work,
 * so a byte that comes in between wakes it again. A full pipe loses bytes, but never a wake-up.
 * Mailboxes. A list under a mutex; only the first entry of a list writes a byte.
 *
 * Files. Nothing is reported as done before fsync() has returned. A file that is replaced is
 * written beside the old one, synced and renamed, then the directory is synced: a rename is on disk
 * only when its directory is. An append that fails is cut off again. Locks are fcntl() locks, which
 * end with the process; their descriptor stays open, because closing it would release the lock.
 *
 * Privileges. Groups first, then gid, then uid: after setuid() the others would fail. */
#include "os.h"

#include "crypto.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define NAME_CAP 64
#define SMALL_STACK (128 * 1024)

/* Not in POSIX, and hidden by _XOPEN_SOURCE, but every system has it. */
int initgroups(const char *user, gid_t group);

/* --- clock, threads, back-off ---------------------------------------------------------------- */

int64_t os_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t os_now_ms(void)
{
    return os_now_us() / 1000;
}

/* `stack`: its size in bytes; 0: the system's default. */
static bool os_thread_create(pthread_t *thread, size_t stack, void *(*work)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    bool started;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    if (stack)
        pthread_attr_setstacksize(&attributes, stack);
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    started = pthread_create(thread, &attributes, work, argument) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return started;
}

bool os_thread_start(pthread_t *thread, void *(*work)(void *), void *argument)
{
    return os_thread_create(thread, 0, work, argument);
}

bool os_thread_start_small(pthread_t *thread, void *(*work)(void *), void *argument)
{
    size_t least = (size_t)PTHREAD_STACK_MIN;

    return os_thread_create(thread, SMALL_STACK > least ? SMALL_STACK : least, work, argument);
}

int64_t os_backoff(int64_t *backoff, int64_t max)
{
    uint32_t random = 0;

    *backoff = *backoff ? *backoff * 2 : OS_BACKOFF_MIN;
    if (*backoff > max)
        *backoff = max;
    crypto_random(&random, sizeof random);
    return *backoff / 2 + random % (*backoff / 2 + 1);
}

/* --- wake pipes and mailboxes ---------------------------------------------------------------- */

bool os_wake_pipe(int ends[2])
{
    if (pipe(ends) != 0)
        return false;
    for (int i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    return true;
}

void os_wake(int fd)
{
    int saved = errno;
    ssize_t n = write(fd, "w", 1);

    (void)n;
    errno = saved;
}

void os_drain(int fd)
{
    char bytes[256];

    while (read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}

void mailbox_open(struct mailbox *box, int wake)
{
    *box = (struct mailbox){.wake = wake};
    pthread_mutex_init(&box->lock, NULL);
}

void mailbox_post(struct mailbox *box, struct fifo_link *entry)
{
    bool was_empty;

    pthread_mutex_lock(&box->lock);
    was_empty = !box->entries.first;
    fifo_push(&box->entries, entry);
    pthread_mutex_unlock(&box->lock);
    if (was_empty)
        os_wake(box->wake);
}

struct fifo_link *mailbox_take(struct mailbox *box)
{
    struct fifo_link *list;

    pthread_mutex_lock(&box->lock);
    list = box->entries.first;
    box->entries = (struct fifo){0};
    pthread_mutex_unlock(&box->lock);
    return list;
}

void mailbox_close(struct mailbox *box)
{
    pthread_mutex_destroy(&box->lock);
}

/* --- files ----------------------------------------------------------------------------------- */

int os_read_file(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), error = 0;
    char piece[4096];
    ssize_t n;

    if (fd < 0)
        return errno;
    while (!error && (n = read(fd, piece, sizeof piece)) != 0) {
        if (n < 0)
            error = errno == EINTR ? 0 : errno;
        else if (!buf_append(out, (struct str){piece, (size_t)n}))
            error = EFBIG;
    }
    close(fd);
    return error;
}

static int os_write_all(int fd, struct str bytes)
{
    while (bytes.length > 0) {
        ssize_t n = write(fd, bytes.at, bytes.length);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno;
        bytes = (struct str){bytes.at + n, bytes.length - (size_t)n};
    }
    return fsync(fd) == 0 ? 0 : errno;
}

static int os_replace_in(int directory, const char *name, const char *beside, struct str bytes)
{
    int fd, error;

    unlinkat(directory, beside, 0); /* a crash may have left one that others can read */
    fd = openat(directory, beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    error = os_write_all(fd, bytes);
    if (close(fd) != 0 && !error)
        error = errno;
    if (!error && renameat(directory, beside, directory, name) != 0)
        error = errno;
    if (error)
        unlinkat(directory, beside, 0);
    /* some file systems cannot sync a directory and say EINVAL; they order renames themselves */
    return error || fsync(directory) == 0 || errno == EINVAL ? error : errno;
}

int os_replace_file(const char *directory, const char *name, struct str bytes)
{
    char beside[NAME_CAP + 4];
    int fd, error;

    if ((size_t)snprintf(beside, sizeof beside, "%s.new", name) >= sizeof beside)
        return ENAMETOOLONG;
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    error = os_replace_in(fd, name, beside, bytes);
    close(fd);
    return error;
}

int os_append_file(const char *path, struct str bytes, size_t limit)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC), error;
    struct stat status;

    if (fd < 0)
        return errno;
    if (fstat(fd, &status) != 0) {
        error = errno;
    } else if (status.st_size > (off_t)limit || bytes.length > limit - (size_t)status.st_size) {
        error = EFBIG;
    } else {
        error = os_write_all(fd, bytes);
        if (error && ftruncate(fd, status.st_size) == 0)
            fsync(fd); /* a sync that failed may have written all bytes */
    }
    close(fd);
    return error;
}

int os_truncate_file(const char *path, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

    if (fd < 0 || ftruncate(fd, (off_t)length) != 0 || fsync(fd) != 0)
        error = errno;
    if (fd >= 0)
        close(fd);
    return error;
}

int os_check_directory(const char *path, uid_t *owner)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return errno;
    *owner = status.st_uid;
    return S_ISDIR(status.st_mode) ? 0 : ENOTDIR;
}

int os_make_directory(const char *path)
{
    uid_t owner;

    if (mkdir(path, 0700) == 0)
        return 0;
    return errno == EEXIST ? os_check_directory(path, &owner) : errno;
}

int os_check_create(const char *path)
{
    char copy[PATH_MAX];

    if ((size_t)snprintf(copy, sizeof copy, "%s", path) >= sizeof copy)
        return ENAMETOOLONG;
    return access(dirname(copy), W_OK | X_OK) == 0 ? 0 : errno;
}

int os_check_append(const char *path)
{
    /* O_NONBLOCK: open() of a FIFO without a reader would block */
    int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? os_check_create(path) : errno;
    close(fd);
    return 0;
}

int os_lock_file(const char *directory, const char *name)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char path[PATH_MAX];
    int fd;

    if ((size_t)snprintf(path, sizeof path, "%s/%s", directory, name) >= sizeof path)
        return ENAMETOOLONG;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    if (fcntl(fd, F_SETLK, &whole) == 0)
        return 0; /* the descriptor stays open: closing it would release the lock */
    close(fd);
    return errno == EACCES ? EAGAIN : errno;
}

/* --- the process ----------------------------------------------------------------------------- */

void os_keep_standard_streams(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

uint64_t os_raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        getrlimit(RLIMIT_NOFILE, &limit);
    return (uint64_t)limit.rlim_cur; /* rlim_t is signed on FreeBSD */
}

/* The second number of /proc/self/statm, in pages; 0 if there is none. */
static uint64_t os_resident_pages(void)
{
    char text[128];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text);
    struct str rest = {text, length > 0 ? (size_t)length : 0};
    uint64_t pages = 0;

    if (fd >= 0)
        close(fd);
    str_cut(&rest, ' ');
    return rest.at && str_number(str_cut(&rest, ' '), UINT64_MAX, &pages) ? pages : 0;
}

/* Linux 6.2 and later give /proc/self/fd the number of descriptors as its size. Listing that
 * directory instead takes up to 300 ms for 19,000 of them. */
void os_measure(struct os_usage *usage)
{
    struct rusage used = {0};
    struct rlimit limit;
    struct stat descriptors;

    *usage = (struct os_usage){.resident = os_resident_pages() * (uint64_t)sysconf(_SC_PAGESIZE)};
    if (getrusage(RUSAGE_SELF, &used) == 0)
        usage->cpu = (uint64_t)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) * 1000000 +
                     (uint64_t)(used.ru_utime.tv_usec + used.ru_stime.tv_usec);
    if (stat("/proc/self/fd", &descriptors) == 0 && descriptors.st_size > 0)
        usage->descriptors = (uint64_t)descriptors.st_size;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        usage->descriptor_limit = (uint64_t)limit.rlim_cur;
}

const struct passwd *os_find_user(const char *name)
{
    const struct passwd *user = NULL;

    if (geteuid() != 0)
        errno = EPERM;
    else if (!(user = getpwnam(name)))
        errno = ENOENT;
    return user;
}

int os_become_user(const struct passwd *user)
{
    if (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0)
        return errno;
    return user->pw_uid != 0 && setuid(0) == 0 ? EPERM : 0;
}

void os_notify(const char *lines)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = path ? strlen(path) : 0;
    int fd;

    if (length < 2 || length >= sizeof to.sun_path || (path[0] != '/' && path[0] != '@'))
        return;
    memcpy(to.sun_path, path, length);
    if (path[0] == '@')
        to.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)sendto(fd, lines, strlen(lines), 0, (struct sockaddr *)&to,
                 (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
    close(fd);
}

void os_notify_reloading(void)
{
    char lines[80];

    snprintf(lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)os_now_us());
    os_notify(lines);
}
