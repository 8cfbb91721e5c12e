/* file.c - small files read whole, replaced or appended to in a way that survives a crash. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME_ROOM 64

int file_read(const char *path, struct buf *out)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), error = 0;
    char piece[4096];
    ssize_t n = 1;

    if (fd < 0)
        return errno;
    while (n > 0) {
        n = read(fd, piece, sizeof piece);
        if (n < 0 && errno == EINTR) {
            n = 1;
            continue;
        }
        if (n < 0) {
            error = errno;
        } else if (!buf_append(out, (struct str){piece, (size_t)n})) {
            error = EFBIG;
            break;
        }
    }
    close(fd);
    return error;
}

static int write_all(int fd, struct str bytes)
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

/* A rename is on the disk when its directory is. */
static int sync_directory(int directory)
{
    /* some file systems cannot sync a directory and say EINVAL; they order renames themselves */
    return fsync(directory) == 0 || errno == EINVAL ? 0 : errno;
}

static int replace_in(int directory, const char *name, const char *beside, struct str bytes)
{
    int fd, error;

    unlinkat(directory, beside, 0); /* one left by a crash could be readable by others */
    fd = openat(directory, beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return errno;
    error = write_all(fd, bytes);
    if (close(fd) != 0 && !error)
        error = errno;
    if (!error && renameat(directory, beside, directory, name) != 0)
        error = errno;
    if (error)
        unlinkat(directory, beside, 0);
    return error ? error : sync_directory(directory);
}

int file_replace(const char *directory, const char *name, struct str bytes)
{
    char beside[NAME_ROOM + 4];
    int fd, error;

    if ((size_t)snprintf(beside, sizeof beside, "%s.new", name) >= sizeof beside)
        return ENAMETOOLONG;
    fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    error = replace_in(fd, name, beside, bytes);
    close(fd);
    return error;
}

static int file_append_to(int fd, struct str bytes, size_t limit, size_t *before)
{
    struct stat status;
    int error;

    if (fstat(fd, &status) != 0)
        return errno;
    if (status.st_size > (off_t)limit || bytes.length > limit - (size_t)status.st_size)
        return EFBIG;
    *before = (size_t)status.st_size;
    error = write_all(fd, bytes);
    if (error && ftruncate(fd, status.st_size) == 0)
        fsync(fd); /* a sync that failed may have written all of it */
    return error;
}

int file_append(const char *path, struct str bytes, size_t limit, size_t *before)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC), error;

    if (fd < 0)
        return errno;
    error = file_append_to(fd, bytes, limit, before);
    close(fd); /* what is synced does not depend on it */
    return error;
}

int file_cut(const char *path, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC), error = 0;

    if (fd < 0)
        return errno;
    if (ftruncate(fd, (off_t)length) != 0 || fsync(fd) != 0)
        error = errno;
    close(fd);
    return error;
}

int file_make_directory(const char *path)
{
    struct stat status;

    if (mkdir(path, 0700) == 0)
        return 0;
    if (errno != EEXIST)
        return errno;
    if (stat(path, &status) != 0)
        return errno;
    return S_ISDIR(status.st_mode) ? 0 : ENOTDIR;
}

int file_test_create(const char *path)
{
    char folder[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof folder)
        return ENAMETOOLONG;
    while (length > 1 && path[length - 1] == '/')
        length--;
    while (length > 0 && path[length - 1] != '/')
        length--;
    memcpy(folder, path, length);
    folder[length] = '\0';
    return access(length ? folder : ".", W_OK | X_OK) == 0 ? 0 : errno;
}

int file_test_append(const char *path)
{
    /* O_NONBLOCK: a FIFO without a reader would keep this waiting */
    int fd = open(path, O_WRONLY | O_APPEND | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    if (fd >= 0)
        close(fd);
    if (fd >= 0)
        return 0;
    return errno == ENOENT ? file_test_create(path) : errno;
}

int file_test_directory(const char *path, uid_t *owner)
{
    struct stat status;

    if (stat(path, &status) != 0)
        return errno;
    *owner = status.st_uid;
    return S_ISDIR(status.st_mode) ? 0 : ENOTDIR;
}

int file_lock(const char *directory, const char *name)
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
        return 0; /* the descriptor stays open: closing it would give the lock back */
    close(fd);
    return errno == EACCES ? EAGAIN : errno;
}
