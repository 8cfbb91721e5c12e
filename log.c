/* log.c - one line for each event, and `die` for start-up. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define VALUE_MAX 2000

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

static void append_escaped(struct buf *line, struct str text, bool json)
{
    bool utf8 = utf8_valid(text);

    for (size_t i = 0; i < text.length; i++) {
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

static void append_quoted(struct buf *line, struct str text, bool json)
{
    if (text.length > VALUE_MAX) {
        text.length = VALUE_MAX;
        /* half a character at the cut would make the whole value invalid */
        while (text.length > VALUE_MAX - 3 && (text.at[text.length] & 0xc0) == 0x80)
            text.length--;
    }
    buf_append(line, STR("\""));
    append_escaped(line, text, json);
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

static void append_field(struct buf *line, const struct log_field *field, bool json)
{
    buf_append(line, json ? STR(",\"") : STR(" "));
    buf_append(line, str_from(field->name));
    buf_append(line, json ? STR("\":") : STR("="));
    if (field->text.at)
        append_quoted(line, field->text, json);
    else
        buf_append_number(line, field->number);
}

void log_write(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields)
{
    struct buf line = {0};

    if (level < log->level)
        return;
    buf_append(&line, log->json ? STR("{\"time\":\"") : STR(""));
    append_time(&line);
    buf_append(&line, log->json ? STR("\",\"level\":\"") : STR(" "));
    buf_append(&line, str_from(level_names[level]));
    buf_append(&line, log->json ? STR("\",\"message\":") : STR(" "));
    if (log->json)
        append_quoted(&line, str_from(message), true);
    else
        buf_append(&line, str_from(message));
    for (; fields && fields->name; fields++)
        append_field(&line, fields, log->json);
    buf_append(&line, log->json ? STR("}\n") : STR("\n"));
    if (!line.failed) {
        FILE *file = log->file ? log->file : stderr;

        fwrite(line.at, 1, line.length, file);
        fflush(file);
    }
    buf_free(&line);
}

int log_reopen(const struct log *log, const char *path)
{
    int fd, error;

    if (!log->file)
        return 0;
    fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0666);
    if (fd < 0)
        return errno;
    error = dup2(fd, fileno(log->file)) < 0 ? errno : 0;
    close(fd);
    return error;
}

void die(const char *format, ...)
{
    va_list arguments;

    fputs("wspush: ", stderr);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}
