/* log.c - one line for each event, and `die` for start-up.
 *
 * A line is composed on the stack and leaves in one write() that never waits: a pipe that nobody
 * reads would stop the server. The log is opened non-blocking where that concerns nobody else
 * (log_open), and poll() is asked first, because stderr may be a socket or belong to another user,
 * and then stays as it was inherited. A pipe that poll() calls writable takes PIPE_BUF bytes, the
 * most that a line may have.
 *
 * A line that cannot leave is lost and counted. Before the next one that can, a line tells the
 * count, so that a gap is seen where it is. A disk or terminal may take a part of a line: the next
 * write then begins with a line feed.
 *
 * Text and JSON differ in the table `formats` and in how bytes are escaped. */
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
#define ESCAPED_MAX 16   /* bytes of the longest character, escaped */
#define NUMBER_MAX 20    /* and of the longest number */
#define DIE_TIMEOUT 1000 /* milliseconds */

static const char *const level_names[] = {"debug", "info", "warn", "error"};

/* What stands before, between and behind the parts of a line. */
static const struct log_format {
    const char *time, *level, *message, *name, *value, *end;
} formats[] = {{"", " ", " ", " ", "=", "\n"},
               {"{\"time\":\"", "\",\"level\":\"", "\",\"message\":", ",\"", "\":", "}\n"}};

/* Characters beyond ASCII that terminals obey or do not show: controls, marks that turn the
 * direction, line breaks. */
static bool log_is_hidden(unsigned code)
{
    return code < 0xa0 || code == 0x61c || (code >= 0x200b && code <= 0x200f) ||
           (code >= 0x2028 && code <= 0x202e) || (code >= 0x2060 && code <= 0x206f) ||
           code == 0xfeff;
}

/* Appends the bytes of one character as \xHH each, or in JSON its code as \uHHHH. */
static void log_escape(struct buf *line, struct str bytes, unsigned code, bool json)
{
    if (json)
        buf_print(line, "\\u%04x", code & 0xffff);
    for (size_t i = 0; !json && i < bytes.length; i++)
        buf_print(line, "\\x%02x", (unsigned char)bytes.at[i] & 0xffu);
}

/* Appends the character of more than one byte that valid UTF-8 begins with; returns its length. */
static size_t log_append_character(struct buf *line, struct str text, bool json)
{
    unsigned char first = (unsigned char)text.at[0];
    size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    unsigned code = first & 0xffu >> (length + 1);

    for (size_t i = 1; i < length; i++)
        code = code << 6 | ((unsigned char)text.at[i] & 0x3fu);
    if (log_is_hidden(code))
        log_escape(line, (struct str){text.at, length}, code, json);
    else
        buf_append(line, (struct str){text.at, length});
    return length;
}

/* Appends the characters of `text` for which the line has space before `end`. */
static void log_append_escaped(struct buf *line, struct str text, bool json, size_t end)
{
    bool utf8 = utf8_valid(text);

    for (size_t i = 0; i < text.length && line->length + ESCAPED_MAX <= end; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c == '"' || c == '\\')
            buf_append(line, STR("\\"));
        if (c >= 0x20 && c < 0x7f)
            buf_append(line, (struct str){text.at + i, 1});
        else if (c >= 0x80 && utf8)
            i += log_append_character(line, (struct str){text.at + i, text.length - i}, json) - 1;
        else
            log_escape(line, (struct str){text.at + i, 1}, c, json);
    }
}

static void log_append_quoted(struct buf *line, struct str text, bool json, size_t end)
{
    if (text.length > VALUE_MAX) {
        text.length = VALUE_MAX;
        /* a part of a character at the cut would make the whole value invalid UTF-8 */
        while (text.length > VALUE_MAX - 3 && (text.at[text.length] & 0xc0) == 0x80)
            text.length--;
    }
    buf_append(line, STR("\""));
    log_append_escaped(line, text, json, end);
    buf_append(line, STR("\""));
}

static void log_append_time(struct buf *line)
{
    struct timespec now;
    struct tm utc;
    char text[40];

    clock_gettime(CLOCK_REALTIME, &now);
    if (!gmtime_r(&now.tv_sec, &utc))
        return;
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    buf_print(line, "%s.%03dZ", text, (int)(now.tv_nsec / 1000000));
}

/* Where a text must end, so that the fields behind it fit into the line. */
static size_t log_text_end(const struct buf *line, const struct log_field *behind)
{
    size_t needed = 4; /* a quote, a brace, a line feed */

    for (; behind && behind->name; behind++)
        needed += strlen(behind->name) + NUMBER_MAX + 4;
    return needed < line->limit ? line->limit - needed : 0;
}

static void log_compose(const struct log *log, struct buf *line, enum log_level level,
                        const char *message, const struct log_field *fields)
{
    const struct log_format *format = &formats[log->json];

    buf_append(line, str_from(format->time));
    log_append_time(line);
    buf_append(line, str_from(format->level));
    buf_append(line, str_from(level_names[level]));
    buf_append(line, str_from(format->message));
    if (log->json)
        log_append_quoted(line, str_from(message), true, log_text_end(line, fields));
    else
        buf_append(line, str_from(message));
    for (; fields && fields->name; fields++) {
        buf_append(line, str_from(format->name));
        buf_append(line, str_from(fields->name));
        buf_append(line, str_from(format->value));
        if (fields->text.at)
            log_append_quoted(line, fields->text, log->json, log_text_end(line, fields + 1));
        else
            buf_append_number(line, fields->number);
    }
    buf_append(line, str_from(format->end));
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
    char bytes[LOG_LINE_MAX];
    struct buf line = BUF_INIT(bytes);
    size_t count;

    if (state->torn)
        buf_append(&line, STR("\n"));
    log_compose(log, &line, level, message, fields);
    errno = EMSGSIZE;
    count = line.failed ? 0 : log_push(fileno(log->file ? log->file : stderr), str_of(&line));
    if (count && count == line.length) {
        state->torn = false;
        return true;
    }
    state->error = errno;
    state->torn = state->torn || count;
    return false;
}

bool log_catch_up(const struct log *log)
{
    struct log_state *state = log->state;
    struct log_field fields[] = {{.name = "reason"}, {0}};
    char message[48];

    if (!state || state->reported == state->lost)
        return true;
    snprintf(message, sizeof message, "%llu lines were lost",
             (unsigned long long)(state->lost - state->reported));
    fields[0].text = str_from(strerror(state->error));
    if (!log_put(log, LOG_ERROR, message, fields))
        return false;
    state->reported = state->lost;
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
    return log->file || !path[0] ? 0 : errno;
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
    poll(&out, 1, DIE_TIMEOUT);
    log_push(STDERR_FILENO, (struct str){line, length});
    exit(1);
}
