/* log.h - one line for each event, as text or JSON, and `die` for start-up.
 *
 * Bytes of peers are given as fields, never as the message: in a field everything is escaped that
 * could end a line, move a cursor or forge another field. Secrets are never logged. Nothing waits:
 * a line that the log does not take at once is lost, and counted. Only the loop's thread logs. */
#ifndef WSPUSH_LOG_H
#define WSPUSH_LOG_H

#include "buf.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#ifdef PIPE_BUF
#define LOG_LINE_MAX PIPE_BUF /* a pipe takes so much whole, or nothing of it */
#else
#define LOG_LINE_MAX _POSIX_PIPE_BUF
#endif

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* What a log keeps from line to line. Zeroed is valid. */
struct log_state {
    uint64_t lost;     /* lines that it did not take */
    uint64_t reported; /* of these, those that a line has reported */
    int error;         /* why it did not take the last one */
    bool torn;         /* it took the beginning of the last one */
};

/* Where lines go; `file` NULL is stderr, `state` NULL counts nothing. Zeroed: all levels, as text,
 * to stderr. */
struct log {
    FILE *file;
    enum log_level level;
    bool json;
    struct log_state *state;
};

/* One named value of a line: text if `text.at` is set, else the number. */
struct log_field {
    const char *name;
    struct str text;
    int64_t number;
};

/* Opens the file at `path`; "" is stderr. Pipes and terminals are opened non-blocking, stderr, if
 * possible, as a second open file: O_NONBLOCK on stderr itself would change it for the shell too.
 * Returns 0, or errno. */
int log_open(struct log *log, const char *path);

/* Writes "TIME LEVEL message name=value ..." or the same as a JSON object, if `level` is at least
 * the log's. `message` is our own text; `fields` ends with a NULL name, or is NULL. Valid UTF-8
 * passes, except for characters that terminals obey or hide; these, and in other bytes all but
 * printable ASCII, become \xHH (text) or \uHHHH (JSON). At most 2,000 bytes of a value are written,
 * fewer where the line would exceed LOG_LINE_MAX. */
void log_write(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields);

/* Writes "N lines were lost" if some were since the last such line. Call now and then. False: the
 * log still takes nothing. */
bool log_catch_up(const struct log *log);

/* Lines lost in all. */
uint64_t log_lost(const struct log *log);

/* Opens the file at `path` again, which may have been renamed; lines go there from now on. Returns
 * 0, or errno: then the old file is kept. Does nothing if lines go to stderr. */
int log_reopen(const struct log *log, const char *path);

/* Start-up only: prints "wspush: " and the formatted text to stderr and exits with 1. Waits up to a
 * second for a stderr that takes nothing. */
#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
_Noreturn void
die(const char *format, ...);

#endif
