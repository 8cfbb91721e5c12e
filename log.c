/* log.c - one line for each event, and `die` for start-up.
 *
 * A line is put together on the stack and leaves in one write(), which must not wait: a pipe that
 * nobody reads would stop the whole server. Two things prevent that. The log is non-blocking where
 * that concerns nobody else (log_open); and poll() is asked first, because stderr may be a socket,
 * or belong to another user, and then stays as it was inherited. A pipe that poll() calls writable
 * has room for PIPE_BUF bytes, the most that a line may have.
 * A line that cannot leave is counted. The next line that can is preceded by one with the count, so
 * that a gap is seen where it is. Disks and terminals may take a part of a line: the next write
 * begins with a line feed then. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define VALUE_MAX 2000
#define ESCAPED_MAX 16    /* bytes of the longest character, escaped */
#define NUMBER_MAX 20     /* and of the longest number */
#define DIE_PATIENCE 1000 /* milliseconds */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* Characters beyond ASCII that terminals obey or do not show: control characters, and what turns
 * the direction or breaks the line. */
static bool is_hidden(unsigned code)
{
    return code < 0xa0 || code == 0x61c || (code >= 0x200b && code <= 0x200f) ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
           code == 0xfeff;
}

/* Appends \u and four digits. */
static void append_code(struct buf *line, unsigned code)
{
    char escaped[7];

    snprintf(escaped, sizeof escaped, "\\u%04x", code & 0xffff);
    buf_append(line, (struct str){escaped, 6});
}

/* Appends \x and two digits for each byte. */
static void append_bytes(struct buf *line, struct str bytes)
{
    char escaped[5];

    for (size_t i = 0; i < bytes.length; i++) {
        snprintf(escaped, sizeof escaped, "\\x%02x", (unsigned char)bytes.at[i] & 0xffu);
        buf_append(line, (struct str){escaped, 4});
    }
}

/* Appends the character of more than one byte that valid UTF-8 begins with; returns its length. */
static size_t append_character(struct buf *line, struct str text, bool json)
{
    unsigned char first = (unsigned char)text.at[0];
    size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    unsigned code = first & 0xffu >> (length + 1);

    for (size_t i = 1; i < length; i++)
        code = code << 6 | ((unsigned char)text.at[i] & 0x3fu);
    if (!is_hidden(code))
        buf_append(line, (struct str){text.at, length});
    else if (json)
        append_code(line, code);
    else
        append_bytes(line, (struct str){text.at, length});
    return length;
}

/* Appends the characters of `text` of which the line has room for before `end`. */
static void append_escaped(struct buf *line, struct str text, bool json, size_t end)
{
    bool utf8 = utf8_valid(text);

    for (size_t i = 0; i < text.length && line->length + ESCAPED_MAX <= end; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c == '"' || c == '\\') {
            buf_append(line, STR("\\"));
            buf_append(line, (struct str){text.at + i, 1});
        } else if (c >= 0x20 && c < 0x7f) {
            buf_append(line, (struct str){text.at + i, 1});
        } else if (c >= 0x80 && utf8) {
            i += append_character(line, (struct str){text.at + i, text.length - i}, json) - 1;
        } else if (json) {
            append_code(line, c);
        } else {
            append_bytes(line, (struct str){text.at + i, 1});
        }
    }
}

static void append_quoted(struct buf *line, struct str text, bool json, size_t end)
{
    if (text.length > VALUE_MAX) {
        text.length = VALUE_MAX;
        /* half a character at the cut would make the whole value invalid */
        while (text.length > VALUE_MAX - 3 && (text.at[text.length] & 0xc0) == 0x80)
            text.length--;
    }
    buf_append(line, STR("\""));
    append_escaped(line, text, json, end);
    buf_append(line, STR("\""));
}

static void append_time(struct buf *line)
{
    struct timespec now;
    struct tm utc;
    char text[40];
    size_t length;

    clock_gettime(CLOCK_REALTIME, &now);
    if (!gmtime_r(&now.tv_sec, &utc))
        return;
    length = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S.", &utc);
    length += (size_t)snprintf(text + length, sizeof text - length, "%03dZ",
                               (int)(now.tv_nsec / 1000000));
    buf_append(line, (struct str){text, length});
}

/* Where the content of a text has to end, so that the fields behind it fit. */
static size_t log_text_end(const struct buf *line, const struct log_field *behind)
{
    size_t needed = 4; /* a quote, a brace, a line feed */

    for (; behind && behind->name; behind++)
        needed += strlen(behind->name) + NUMBER_MAX + 4;
    return needed < line->limit ? line->limit - needed : 0;
}

static void append_field(struct buf *line, const struct log_field *field, bool json)
{
    buf_append(line, json ? STR(",\"") : STR(" "));
    buf_append(line, str_from(field->name));
    buf_append(line, json ? STR("\":") : STR("="));
    if (field->text.at)
        append_quoted(line, field->text, json, log_text_end(line, field + 1));
    else
        buf_append_number(line, field->number);
}

static void log_compose(const struct log *log, struct buf *line, enum log_level level,
                        const char *message, const struct log_field *fields)
{
    buf_append(line, log->json ? STR("{\"time\":\"") : STR(""));
    append_time(line);
    buf_append(line, log->json ? STR("\",\"level\":\"") : STR(" "));
    buf_append(line, str_from(level_names[level]));
    buf_append(line, log->json ? STR("\",\"message\":") : STR(" "));
    if (log->json)
        append_quoted(line, str_from(message), true, log_text_end(line, fields));
    else
        buf_append(line, str_from(message));
    for (; fields && fields->name; fields++)
        append_field(line, fields, log->json);
    buf_append(line, log->json ? STR("}\n") : STR("\n"));
}

/* Writes what the file takes at once; returns how much. Less than all: errno says why. */
static size_t log_push(int fd, struct str bytes)
{
    struct pollfd out = {fd, POLLOUT, 0};
    size_t count = 0;
    ssize_t n = 0;

    while (count < bytes.length && n >= 0) {
        errno = EAGAIN;
        n = poll(&out, 1, 0) == 1 ? write(fd, bytes.at + count, bytes.length - count) : -1;
        if (n > 0)
            count += (size_t)n;
        else if (errno == EINTR)
            n = 0;
    }
    return count;
}

/* Writes a line; false if it is lost. */
static bool log_put(const struct log *log, enum log_level level, const char *message,
                    const struct log_field *fields)
{
    struct log_state none = {0}, *state = log->state ? log->state : &none;
    char room[LOG_LINE_MAX];
    struct buf line = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    size_t skip = !state->torn, left;

    buf_append(&line, STR("\n"));
    log_compose(log, &line, level, message, fields);
    if (line.failed) {
        state->error = EMSGSIZE;
        return false;
    }
    left = line.length - skip;
    left -= log_push(fileno(log->file ? log->file : stderr), (struct str){room + skip, left});
    if (left)
        state->error = errno;
    if (left < line.length - skip)
        state->torn = left > 0;
    return !left;
}

bool log_catch_up(const struct log *log)
{
    struct log_state *state = log->state;
    struct log_field fields[] = {{.name = "reason"}, {0}};
    char message[48];

    if (!state || state->told == state->lost)
        return true;
    snprintf(message, sizeof message, "%llu lines were lost",
             (unsigned long long)(state->lost - state->told));
    fields[0].text = str_from(strerror(state->error));
    if (!log_put(log, LOG_ERROR, message, fields))
        return false;
    state->told = state->lost;
    return true;
}

void log_write(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields)
{
    if (level < log->level)
        return;
    if ((!log_catch_up(log) || !log_put(log, level, message, fields)) && log->state)
        log->state->lost++;
}

uint64_t log_lost(const struct log *log)
{
    return log->state ? log->state->lost : 0;
}

static int log_open_path(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK | O_NOCTTY, 0666);
}

int log_open(struct log *log, const char *path)
{
    struct stat status;
    int fd = -1;

    if (path[0])
        fd = log_open_path(path);
    else if (fstat(STDERR_FILENO, &status) == 0 &&
             (S_ISFIFO(status.st_mode) || S_ISCHR(status.st_mode)))
        fd = open("/dev/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY);
    log->file = fd < 0 ? NULL : fdopen(fd, "a");
    if (log->file || !path[0])
        return 0;
    return errno;
}

int log_reopen(const struct log *log, const char *path)
{
    int fd, error;

    if (!log->file)
        return 0;
    fd = log_open_path(path);
    if (fd < 0)
        return errno;
    error = dup2(fd, fileno(log->file)) < 0 ? errno : 0;
    close(fd);
    if (!error && log->state)
        log->state->torn = false;
    return error;
}

void die(const char *format, ...)
{
    struct pollfd out = {STDERR_FILENO, POLLOUT, 0};
    char line[LOG_LINE_MAX] = "wspush: ";
    size_t length = strlen(line);
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(line + length, sizeof line - length - 1, format, arguments);
    va_end(arguments);
    length = strlen(line);
    line[length++] = '\n';
    poll(&out, 1, DIE_PATIENCE);
    log_push(STDERR_FILENO, (struct str){line, length});
    exit(1);
}
