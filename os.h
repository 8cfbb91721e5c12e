/* os.h - the operating system: clock, threads, wake pipes, mailboxes, back-off, files, privileges,
 * sd_notify. POSIX alone, except for initgroups(), which every system has.
 *
 * File functions may wait for the disk: call them at start-up and in worker threads, never in the
 * loop's thread. Functions that return int return 0 or errno. */
#ifndef WSPUSH_OS_H
#define WSPUSH_OS_H

#include "buf.h"

#include <pthread.h>
#include <pwd.h>
#include <sys/types.h>

/* --- clock, threads, back-off ---------------------------------------------------------------- */

/* The monotonic clock, in milliseconds and in microseconds. */
int64_t os_now_ms(void);
int64_t os_now_us(void);

/* Starts a thread with all signals blocked: the loop's thread takes them. False if the
 * system grants none. */
bool os_thread_start(pthread_t *thread, void *(*work)(void *), void *argument);

/* The same with a stack of 128 KiB, for many threads that only poll(): one of 8 MiB could be backed
 * by huge pages, which cost 2 MiB of memory each. */
bool os_thread_start_small(pthread_t *thread, void *(*work)(void *), void *argument);

#define OS_BACKOFF_MIN 100

/* Returns how many milliseconds to wait after a failure. *backoff doubles from OS_BACKOFF_MIN to
 * `max`; the result is a random value between its half and all of it, so that nodes that failed
 * together do not retry together. Set *backoff to 0 after a success. */
int64_t os_backoff(int64_t *backoff, int64_t max);

/* --- wake pipes and mailboxes ---------------------------------------------------------------- */

/* Opens a pipe whose ends do not block: ends[0] for poll(), ends[1] for os_wake. False: errno. */
bool os_wake_pipe(int ends[2]);

/* Writes one byte to the pipe; a full pipe wakes its reader as well. Safe in a signal handler. */
void os_wake(int fd);

/* Empties the pipe. Call before looking for what the wake-up was about: a later one wakes again. */
void os_drain(int fd);

/* A queue between threads; a fifo_link is the first member of its entries. It has no limit: the
 * sender bounds what it posts. */
struct mailbox {
    pthread_mutex_t lock;
    struct fifo entries;
    int wake; /* the writing end of the reader's wake pipe */
};

/* Prepares a mailbox that wakes its reader through `wake`. */
void mailbox_open(struct mailbox *box, int wake);

/* Posts an entry; its taker owns it. Wakes the reader if the box was empty. */
void mailbox_post(struct mailbox *box, struct fifo_link *entry);

/* Takes all entries as a list, oldest first; NULL if there is none. */
struct fifo_link *mailbox_take(struct mailbox *box);

/* Call when no thread posts any more and all entries have been taken. */
void mailbox_close(struct mailbox *box);

/* --- files ----------------------------------------------------------------------------------- */

/* Appends a file's bytes to `out`; EFBIG if they exceed the buffer's limit. */
int os_read_file(const char *path, struct buf *out);

/* Replaces directory/name by these bytes, readable by the owner alone: writes name.new, syncs,
 * renames it, syncs the directory. A crash leaves the old file or the new one; after an error the
 * old one is untouched. `name` has fewer than 64 bytes. */
int os_replace_file(const char *directory, const char *name, struct str bytes);

/* Appends to a file that exists, and syncs it. EFBIG if it would exceed `limit` bytes. After an
 * error the file is as it was; a crash may leave a part of the bytes. */
int os_append_file(const char *path, struct str bytes, size_t limit);

/* Cuts a file to its first `length` bytes, and syncs it. */
int os_truncate_file(const char *path, size_t length);

/* Creates a directory for the owner alone; one that exists is good as it is. */
int os_make_directory(const char *path);

/* Whether a name could be created or removed at `path`: depends on its directory. */
int os_check_create(const char *path);

/* Whether a file could be opened to append, or created if it does not exist. Does neither. */
int os_check_append(const char *path);

/* Whether this is a directory, and whose. ENOENT if it does not exist. */
int os_check_directory(const char *path, uid_t *owner);

/* Locks directory/name, creating it, until the process ends. EAGAIN if another process has it. */
int os_lock_file(const char *directory, const char *name);

/* --- the process ----------------------------------------------------------------------------- */

/* Opens those of stdin, stdout and stderr that are closed, on /dev/null: else a socket could get
 * the number of stderr, and messages would be written to it. Call first in main. */
void os_keep_standard_streams(void);

/* Raises the limit of open descriptors as far as it goes. Returns it; 0: errno. */
uint64_t os_raise_descriptors(void);

/* What the process uses now. A number that this system does not tell is 0. */
struct os_usage {
    uint64_t cpu;              /* microseconds of CPU time, user and system */
    uint64_t resident;         /* bytes of memory: where there is /proc/self/statm */
    uint64_t descriptors;      /* that are open: Linux 6.2 or later */
    uint64_t descriptor_limit; /* how many may be; 0 also if there is no limit */
};

/* Fills in `usage`. Fit for the loop's thread: what is read of /proc is not on a disk. */
void os_measure(struct os_usage *usage);

/* The user of this name, in static memory. NULL: errno is EPERM if this process is not root and so
 * cannot become another user, ENOENT if there is no such user. */
const struct passwd *os_find_user(const char *name);

/* Becomes this user for good, with its groups. EPERM also if root could be regained. */
int os_become_user(const struct passwd *user);

/* Sends lines such as "READY=1\nSTATUS=..." to NOTIFY_SOCKET as in sd_notify(3): a path, or on
 * Linux an abstract name behind '@'. Never waits; without the variable nothing is sent. */
void os_notify(const char *lines);

/* Sends RELOADING=1 with the present time, for Type=notify-reload; READY=1 ends it. */
void os_notify_reloading(void);

#endif
