/* file.h - small files read whole, replaced so that a crash leaves the old or the new one, and
 * appended to so that a crash leaves whole what was there before.
 * Blocks: for start-up and worker threads, never for the loop's. */
#ifndef WSPUSH_FILE_H
#define WSPUSH_FILE_H

#include "buf.h"

#include <sys/types.h>

/* Appends a file's bytes to `out`. Returns 0, or errno; EFBIG if they pass the buffer's limit. */
int file_read(const char *path, struct buf *out);

/* Replaces directory/name by these bytes, readable by the owner alone: written beside it, synced,
 * renamed over it, and the directory synced. Returns 0 once that is on the disk, or errno; the old
 * file is untouched then. The name must be shorter than 64 bytes. */
int file_replace(const char *directory, const char *name, struct str bytes);

/* Appends to a file that exists, and syncs it; `before` becomes its length without the bytes.
 * Returns 0 once they are on the disk, or errno, EFBIG if the file would pass `limit` bytes: a
 * failed append is cut off again, so that the file is as it was. A crash may leave a part of the
 * bytes. */
int file_append(const char *path, struct str bytes, size_t limit, size_t *before);

/* Cuts a file down to its first `length` bytes, and syncs it. Returns 0 or errno. */
int file_cut(const char *path, size_t length);

/* Creates a directory for the owner alone unless it is there. Returns 0 or errno. */
int file_make_directory(const char *path);

/* Whether something could be created or removed there: what matters is the directory. Returns 0 or
 * errno. */
int file_test_create(const char *path);

/* Whether a file could be opened to be appended to, and created if it is not there; neither is done
 * to it. Returns 0 or errno. */
int file_test_append(const char *path);

/* Whether this is a directory, and whose. Returns 0 or errno; ENOENT if it is not there and could
 * be looked for. */
int file_test_directory(const char *path, uid_t *owner);

/* Takes a lock on directory/name, creating it, that ends with the process. Returns 0, EAGAIN if
 * another process has it, or errno. */
int file_lock(const char *directory, const char *name);

#endif
