/* log.h - one line for each event, for people or for machines, and `die` for start-up.
 *
 * Bytes from peers are given as fields, never as the message: a field is written with everything
 * escaped that could end a line, move a cursor or forge another field. Secrets are given to
 * neither.
 * Refuses: to wait. A line that the log does not take at once is lost, and counted. One thread
 * writes to a log: the loop's. */
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

/* What a log remembers from line to line. Zeroed is valid. */
struct log_state {
    uint64_t lost; /* lines that it did not take, */
    uint64_t told; /* and how many of them a line has told of */
    int error;     /* why it did not take the last of them */
    bool torn;     /* it took the beginning of the last of them */
};

/* Where lines go; `file` NULL is stderr; `state` NULL counts nothing. Zeroed: everything from debug
 * up, as text, to stderr. */
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

/* Opens the file at `path`; "" is stderr. Whatever can make a writer wait (a pipe, a terminal) is
 * opened as non-blocking, stderr if possible: as a second open file, for O_NONBLOCK on stderr
 * itself would also change it for the shell. Returns 0, or errno. */
int log_open(struct log *log, const char *path);

/* Writes "TIME LEVEL message name=value …" or the same as one JSON object, in one write, if the
 * level is at least the log's. `message` is our own text; `fields` ends with a NULL name, or is
 * NULL. Valid UTF-8 passes, but for the characters that terminals obey or hide; these, and in what
 * is not UTF-8 all bytes outside printable ASCII, are escaped as \xHH (text) or \uHHHH (JSON). At
 * most 2,000 bytes of a value are written, and fewer where the line would pass LOG_LINE_MAX. */
void log_write(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields);

/* Writes "N lines were lost" if lines were, and no line has told so yet. Call it now and then.
 * False: the log still takes nothing. */
bool log_catch_up(const struct log *log);

/* Lines lost in all. */
uint64_t log_lost(const struct log *log);

/* Opens the file at `path` again, for it may have been renamed; what is logged goes there from now
 * on. Returns 0, or errno: then the old one is kept. Nothing happens if lines go to stderr. */
int log_reopen(const struct log *log, const char *path);

/* Start-up only: prints "wspush: " and the formatted text to stderr and exits with 1. Gives a
 * stderr that takes nothing a second. */
#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
_Noreturn void
die(const char *format, ...);

#endif
