/* log.h - one line for each event, for people or for machines, and `die` for start-up.
 *
 * Bytes from peers are given as fields, never as the message: a field is written with everything
 * escaped that could end a line, move a cursor or forge another field. Secrets are given to
 * neither. */
#ifndef WSPUSH_LOG_H
#define WSPUSH_LOG_H

#include "buf.h"

#include <stdbool.h>
#include <stdio.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* Where lines go; `file` NULL is stderr. Another one must be unbuffered (setvbuf), or a line longer
 * than its buffer leaves in two writes. Zeroed: everything from debug up, as text, to stderr. */
struct log {
    FILE *file;
    enum log_level level;
    bool json;
};

/* One named value of a line: text if `text.at` is set, else the number. */
struct log_field {
    const char *name;
    struct str text;
    int64_t number;
};

/* Writes "TIME LEVEL message name=value …" or the same as one JSON object, in one write, if the
 * level is at least the log's. `message` is our own text; `fields` ends with a NULL name, or is
 * NULL. Valid UTF-8 passes, but for the characters that terminals obey or hide; these, and in what
 * is not UTF-8 all bytes outside printable ASCII, are escaped as \xHH (text) or \uHHHH (JSON). At
 * most 2,000 bytes of a value are written. */
void log_write(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields);

/* Opens the file at `path` again, for it may have been renamed; what is logged goes there from now
 * on. Returns 0, or errno: then the old one is kept. Nothing happens if lines go to stderr. */
int log_reopen(const struct log *log, const char *path);

/* Start-up only: prints "wspush: " and the formatted text to stderr and exits with 1. */
#ifdef __GNUC__
__attribute__((format(printf, 1, 2)))
#endif
_Noreturn void
die(const char *format, ...);

#endif
