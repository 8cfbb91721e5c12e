/* test_log.c - tests that a log line has what it was given, that no peer can forge one, and that a
 * log that takes nothing is never waited for. */
#include "log.h"
#include "json.h"
#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIME_LENGTH 24 /* 2024-05-06T07:08:09.123Z */

/* Appends what stands in a file, from its beginning. */
static void read_back(FILE *file, struct buf *out)
{
    char piece[4096];
    size_t n;

    rewind(file);
    while ((n = fread(piece, 1, sizeof piece, file)) > 0)
        buf_append(out, (struct str){piece, n});
}

/* Writes one line to a file of its own and appends it to `out`. */
static void write_line(struct log log, enum log_level level, const char *message,
                       const struct log_field *fields, struct buf *out)
{
    log.file = tmpfile();
    if (!CHECK(log.file != NULL))
        return;
    log_write(&log, level, message, fields);
    read_back(log.file, out);
    fclose(log.file);
}

/* The line without the time before it and the LF behind it. */
static struct str without_time(struct str line)
{
    if (!CHECK(line.length > TIME_LENGTH + 1) || !CHECK(line.at[line.length - 1] == '\n'))
        return (struct str){0};
    return (struct str){line.at + TIME_LENGTH, line.length - TIME_LENGTH - 1};
}

static bool one_line(struct str text)
{
    return text.length > 0 && memchr(text.at, '\n', text.length) == text.at + text.length - 1;
}

/* A member of a line of JSON, decoded; its type in *type. */
static void json_member(struct str line, struct str name, enum json_type *type, struct buf *out)
{
    struct json_field field = {.name = name};
    struct json_error error;

    *type = JSON_NONE;
    if (!CHECK(one_line(line)) || !CHECK(json_parse_object(line, &field, 1, &error)))
        return;
    *type = field.value.type;
    if (*type == JSON_STRING)
        CHECK(json_decode_string(field.value, out));
    else
        buf_append(out, field.value.text);
}

static bool member_is(struct str line, struct str name, enum json_type type, struct str text)
{
    enum json_type found;
    struct buf out = {0};
    bool same;

    json_member(line, name, &found, &out);
    same = found == type && str_equal(str_of(&out), text);
    buf_free(&out);
    return same;
}

static const struct log_field some_fields[] = {
    {.name = "client", .text = STR_INIT("9fa54bdb")},
    {.name = "count", .number = 42},
    {.name = "low", .number = INT64_MIN},
    {.name = "empty", .text = STR_INIT("")},
    {.name = "none", .text = {NULL, 0}},
    {0},
};

static void lines_have_their_form(void)
{
    static const struct {
        enum log_level level;
        const char *message;
        const struct log_field *fields;
        struct str text, json; /* without the time */
    } cases[] = {
        {LOG_DEBUG, "an iteration", NULL, STR_INIT(" debug an iteration"),
         STR_INIT("\",\"level\":\"debug\",\"message\":\"an iteration\"}")},
        {LOG_INFO, "listening", &some_fields[5], STR_INIT(" info listening"),
         STR_INIT("\",\"level\":\"info\",\"message\":\"listening\"}")},
        {LOG_WARN, "slow", &some_fields[4], STR_INIT(" warn slow none=0"),
         STR_INIT("\",\"level\":\"warn\",\"message\":\"slow\",\"none\":0}")},
        {LOG_ERROR, "all \"of\" them", some_fields,
         STR_INIT(" error all \"of\" them client=\"9fa54bdb\" count=42 low=-9223372036854775808 "
                  "empty=\"\" none=0"),
         STR_INIT(
             "\",\"level\":\"error\",\"message\":\"all \\\"of\\\" them\","
             "\"client\":\"9fa54bdb\",\"count\":42,\"low\":-9223372036854775808,\"empty\":\"\","
             "\"none\":0}")},
    };

    for (size_t i = 0; i < 2 * COUNT(cases); i++) {
        bool json = i % 2;
        struct str expected = json ? cases[i / 2].json : cases[i / 2].text, line;
        struct buf out = {0};

        write_line((struct log){.json = json}, cases[i / 2].level, cases[i / 2].message,
                   cases[i / 2].fields, &out);
        CHECK(one_line(str_of(&out)));
        line = str_skip(str_of(&out), json ? strlen("{\"time\":\"") : 0);
        if (!CHECK(str_equal(without_time(line), expected)))
            printf("  in case %zu: %.*s", i, (int)out.length, out.at);
        buf_free(&out);
    }
}

/* Now, in seconds, as a log line says it. time() may be a tick behind the clock of the log. */
static void now_as_text(char text[20])
{
    struct timespec now = {0};
    struct tm utc = {0};

    clock_gettime(CLOCK_REALTIME, &now);
    CHECK(gmtime_r(&now.tv_sec, &utc) != NULL &&
          strftime(text, 20, "%Y-%m-%dT%H:%M:%S", &utc) == 19);
}

static bool is_time(struct str time, const char before[20], const char after[20])
{
    static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

    if (time.length != TIME_LENGTH)
        return false;
    for (size_t i = 0; i < TIME_LENGTH; i++)
        if (form[i] == 'd' ? time.at[i] < '0' || time.at[i] > '9' : time.at[i] != form[i])
            return false;
    return memcmp(before, time.at, 19) <= 0 && memcmp(time.at, after, 19) <= 0;
}

static void lines_tell_the_time(void)
{
    char before[20] = "", after[20] = "";
    struct buf text = {0}, line = {0}, time = {0};
    enum json_type type;

    now_as_text(before);
    write_line((struct log){0}, LOG_INFO, "text", NULL, &text);
    write_line((struct log){.json = true}, LOG_INFO, "json", NULL, &line);
    now_as_text(after);
    if (CHECK(text.length > TIME_LENGTH))
        CHECK(is_time((struct str){text.at, TIME_LENGTH}, before, after));
    json_member(str_of(&line), STR("time"), &type, &time);
    CHECK(type == JSON_STRING && is_time(str_of(&time), before, after));
    buf_free(&text);
    buf_free(&line);
    buf_free(&time);
}

/* Writes a line with one field; between the quotes of its value must be `form`. */
static void check_escaped(struct str value, bool json, struct str form)
{
    struct buf line = {0}, end = {0};

    write_line((struct log){.json = json}, LOG_INFO, "m",
               (struct log_field[]){{.name = "v", .text = value}, {0}}, &line);
    buf_append(&end, json ? STR("\"m\",\"v\":\"") : STR(" m v=\""));
    buf_append(&end, form);
    buf_append(&end, json ? STR("\"}\n") : STR("\"\n"));
    CHECK(one_line(str_of(&line)));
    if (!CHECK(line.length > end.length &&
               str_equal(str_skip(str_of(&line), line.length - end.length), str_of(&end))))
        printf("  it was %.*s", (int)line.length, line.at);
    if (json && utf8_valid(value))
        CHECK(member_is(str_of(&line), STR("v"), JSON_STRING, value));
    buf_free(&line);
    buf_free(&end);
}

/* What could end a line or a value, and what a terminal would obey or not show, is escaped: in text
 * byte by byte, in JSON as a character, or as a byte of what is not UTF-8. Other UTF-8 passes. */
static void no_value_can_forge_a_line(void)
{
    static const struct {
        struct str value, text, json;
    } cases[] = {
        {STR_INIT("a\n2024-01-01T00:00:00.000Z error forged\r\n\x1b[2J\" level=\"x\\\t\0\x7f\x9b"
                  "\xe2\x80\xa8"),
         STR_INIT("a\\x0a2024-01-01T00:00:00.000Z error forged\\x0d\\x0a\\x1b[2J\\\" "
                  "level=\\\"x\\\\\\x09\\x00\\x7f\\x9b\\xe2\\x80\\xa8"),
         STR_INIT("a\\u000a2024-01-01T00:00:00.000Z error forged\\u000d\\u000a\\u001b[2J\\\" "
                  "level=\\\"x\\\\\\u0009\\u0000\\u007f\\u009b\\u00e2\\u0080\\u00a8")},
        {STR_INIT("gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80\n"),
         STR_INIT("gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80\\x0a"),
         STR_INIT("gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80\\u000a")},
        {STR_INIT("\xc2\x80\xc2\x9b|\xc2\x9f\xc2\xa0"),
         STR_INIT("\\xc2\\x80\\xc2\\x9b|\\xc2\\x9f\xc2\xa0"),
         STR_INIT("\\u0080\\u009b|\\u009f\xc2\xa0")},
        {STR_INIT("\xd8\x9c\xe2\x80\x8a\xe2\x80\x8b\xe2\x80\x8f\xe2\x80\x90"),
         STR_INIT("\\xd8\\x9c\xe2\x80\x8a\\xe2\\x80\\x8b\\xe2\\x80\\x8f\xe2\x80\x90"),
         STR_INIT("\\u061c\xe2\x80\x8a\\u200b\\u200f\xe2\x80\x90")},
        {STR_INIT("\xe2\x80\xa7\xe2\x80\xa8\xe2\x80\xae\xe2\x80\xaf\xe2\x81\x9f"),
         STR_INIT("\xe2\x80\xa7\\xe2\\x80\\xa8\\xe2\\x80\\xae\xe2\x80\xaf\xe2\x81\x9f"),
         STR_INIT("\xe2\x80\xa7\\u2028\\u202e\xe2\x80\xaf\xe2\x81\x9f")},
        {STR_INIT("\xe2\x81\xa0\xe2\x81\xaf\xef\xbb\xbf\xe2\x81\xb0\xf3\xa0\x80\xae"),
         STR_INIT("\\xe2\\x81\\xa0\\xe2\\x81\\xaf\\xef\\xbb\\xbf\xe2\x81\xb0\xf3\xa0\x80\xae"),
         STR_INIT("\\u2060\\u206f\\ufeff\xe2\x81\xb0\xf3\xa0\x80\xae")},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        check_escaped(cases[i].value, false, cases[i].text);
        check_escaped(cases[i].value, true, cases[i].json);
    }
}

static void every_byte_is_escaped_or_printable(void)
{
    for (unsigned i = 0; i < 512; i++) {
        unsigned byte = i & 255;
        char value = (char)byte, form[8];
        bool json = i >= 256;

        if (byte == '"' || byte == '\\')
            snprintf(form, sizeof form, "\\%c", value);
        else if (byte >= 0x20 && byte < 0x7f)
            snprintf(form, sizeof form, "%c", value);
        else
            snprintf(form, sizeof form, json ? "\\u%04x" : "\\x%02x", byte);
        check_escaped((struct str){&value, 1}, json, str_from(form));
    }
}

static void long_values_are_cut(void)
{
    static const struct {
        size_t given, written;
    } cases[] = {{0, 0}, {1999, 1999}, {2000, 2000}, {2001, 2000}, {100000, 2000}};
    static char text[100000];

    memset(text, 'v', sizeof text);
    for (size_t i = 0; i < COUNT(cases); i++) {
        const struct log_field fields[] = {
            {.name = "v", .text = {text, cases[i].given}}, {.name = "next", .number = 1}, {0}};
        struct buf line = {0};

        write_line((struct log){0}, LOG_INFO, "m", fields, &line);
        CHECK(without_time(str_of(&line)).length ==
              strlen(" info m v=\"\" next=1") + cases[i].written);
        buf_free(&line);
        write_line((struct log){.json = true}, LOG_INFO, "m", fields, &line);
        CHECK(
            member_is(str_of(&line), STR("v"), JSON_STRING, (struct str){text, cases[i].written}));
        CHECK(member_is(str_of(&line), STR("next"), JSON_NUMBER, STR("1")));
        buf_free(&line);
    }
}

/* A cut through a character would make the rest of a good value invalid. */
static void long_values_are_cut_between_characters(void)
{
    static const struct str characters[] = {STR_INIT("\xc3\xa9"), STR_INIT("\xe2\x82\xac"),
                                            STR_INIT("\xf0\x9f\x98\x80")};

    for (size_t i = 0; i < 3; i++)
        for (size_t before = 0; before < 5; before++) {
            struct buf value = {0}, line = {0};
            size_t size = characters[i].length;

            buf_append(&value, (struct str){"aaaaa", before});
            while (value.length <= 2100)
                buf_append(&value, characters[i]);
            write_line((struct log){.json = true}, LOG_INFO, "m",
                       (struct log_field[]){{.name = "v", .text = str_of(&value)}, {0}}, &line);
            value.length = before + (2000 - before) / size * size;
            if (!CHECK(member_is(str_of(&line), STR("v"), JSON_STRING, str_of(&value))))
                printf("  characters of %zu bytes behind %zu\n", size, before);
            buf_free(&value);
            buf_free(&line);
        }
}

/* However much is given: a line fits into PIPE_BUF, and each field is there. */
static void long_lines_are_cut(void)
{
    static const char *const units[] = {"v", "\n", "\xe4\xb8\xad", "\xe2\x80\xae",
                                        "\xf0\x9f\x98\x80"};
    static char text[3000];

    for (size_t i = 0; i < 2 * COUNT(units); i++) {
        struct str unit = str_from(units[i / 2]), value = {text, 0};
        struct log log = {.json = i % 2};
        struct buf line = {0};

        for (; value.length + unit.length <= sizeof text; value.length += unit.length)
            memcpy(text + value.length, unit.at, unit.length);
        write_line(log, LOG_INFO, "m",
                   (struct log_field[]){{.name = "first", .text = value},
                                        {.name = "number", .number = INT64_MIN},
                                        {.name = "last", .text = value},
                                        {.name = "end", .number = 7},
                                        {0}},
                   &line);
        CHECK(one_line(str_of(&line)) && line.length <= LOG_LINE_MAX);
        CHECK(line.length > LOG_LINE_MAX - 100); /* and not much shorter */
        if (log.json) {
            CHECK(
                member_is(str_of(&line), STR("number"), JSON_NUMBER, STR("-9223372036854775808")));
            CHECK(member_is(str_of(&line), STR("end"), JSON_NUMBER, STR("7")));
        } else {
            CHECK(line.length > 7 && memcmp(line.at + line.length - 7, " end=7\n", 7) == 0);
        }
        buf_free(&line);
    }
}

static void lower_levels_are_left_out(void)
{
    for (int least = LOG_DEBUG; least <= LOG_ERROR; least++)
        for (int level = LOG_DEBUG; level <= LOG_ERROR; level++) {
            struct buf line = {0};

            write_line((struct log){.level = (enum log_level)least}, (enum log_level)level, "m",
                       NULL, &line);
            CHECK((line.length > 0) == (level >= least));
            buf_free(&line);
        }
}

/* Each write to a datagram socket is a datagram of its own, so writes can be counted. */
static void a_line_is_one_write(void)
{
    static const size_t sizes[] = {0, 10, 900};
    static char value[900], received[65536];
    struct log log = {0};
    int ends[2], space = 65536;

    memset(value, 'v', sizeof value);
    if (!CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0) ||
        !CHECK((log.file = fdopen(ends[1], "w")) != NULL))
        return;
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &space, sizeof space);
    setvbuf(log.file, NULL, _IONBF, 0);
    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct log_field field = {.name = "v", .text = {value, sizes[i]}};
        ssize_t length;

        log_write(&log, LOG_INFO, "m", (struct log_field[]){field, field, field, field, {0}});
        length = recv(ends[0], received, sizeof received, MSG_DONTWAIT);
        CHECK(length > (ssize_t)(4 * sizes[i]));
        CHECK(length > 0 && one_line((struct str){received, (size_t)length}));
        CHECK(recv(ends[0], received, sizeof received, MSG_DONTWAIT) < 0);
    }
    fclose(log.file);
    close(ends[0]);
}

/* Puts a descriptor in the place of stderr; returns the old one, for restore_stderr. */
static int replace_stderr(int fd)
{
    int kept = dup(STDERR_FILENO);

    CHECK(kept >= 0 && dup2(fd, STDERR_FILENO) >= 0);
    return kept;
}

static void restore_stderr(int kept)
{
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
}

/* A file as stderr has one offset, which die() needs as well: it is not opened a second time. */
static void lines_go_to_stderr_without_a_file(void)
{
    FILE *file = tmpfile();
    struct buf text = {0};
    struct log log = {0};
    int kept;

    if (!CHECK(file != NULL))
        return;
    kept = replace_stderr(fileno(file));
    CHECK(log_open(&log, "") == 0 && !log.file);
    log_write(&log, LOG_DEBUG, "to stderr", NULL);
    CHECK(log_reopen(&log, "") == 0 && log_reopen(&log, "/tmp/none/log") == 0);
    restore_stderr(kept);
    read_back(file, &text);
    CHECK(str_equal(without_time(str_of(&text)), STR(" debug to stderr")));
    fclose(file);
    buf_free(&text);
}

/* True if a file has these lines, but for the times. */
static bool file_has(const char *path, const char *lines)
{
    FILE *file = fopen(path, "r");
    struct buf text = {0}, all = {0};
    struct str rest;
    bool same;

    if (!file)
        return false;
    read_back(file, &text);
    fclose(file);
    rest = str_of(&text);
    while (rest.length) {
        struct str line = str_cut(&rest, '\n');

        buf_append(&all, (struct str){line.at + TIME_LENGTH, line.length - TIME_LENGTH});
        buf_append(&all, STR("\n"));
    }
    same = str_equal(str_of(&all), str_from(lines));
    if (!same)
        printf("  %s has: %.*s\n", path, (int)all.length, all.at ? all.at : "");
    buf_free(&text);
    buf_free(&all);
    return same;
}

/* The number that the next descriptor will have. */
static int next_descriptor(void)
{
    int fd = dup(STDOUT_FILENO);

    close(fd);
    return fd;
}

/* Renamed, the old file keeps what it has, and a new one begins; lines are appended to a file that
 * exists. A torn line stays behind. What cannot be opened leaves the old file. */
static void a_log_is_opened_again(void)
{
    char folder[] = "/tmp/wspush-unit.XXXXXX", path[80], old[80];
    struct log_state state = {0};
    struct log log = {.state = &state};
    int before;

    if (!CHECK(mkdtemp(folder) != NULL))
        return;
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(old, sizeof old, "%s/log.1", folder);
    if (!CHECK(log_open(&log, path) == 0))
        return;
    before = next_descriptor();
    log_write(&log, LOG_INFO, "one", NULL);
    CHECK(log_reopen(&log, path) == 0); /* it is still there */
    log_write(&log, LOG_INFO, "two", NULL);
    CHECK(rename(path, old) == 0);
    log_write(&log, LOG_INFO, "three", NULL);
    CHECK(file_has(old, " info one\n info two\n info three\n"));
    state.torn = true;
    CHECK(log_reopen(&log, path) == 0);
    log_write(&log, LOG_INFO, "four", NULL);
    CHECK(file_has(old, " info one\n info two\n info three\n") && file_has(path, " info four\n"));
    CHECK(truncate(path, 0) == 0); /* the next line leaves no hole */
    CHECK(log_reopen(&log, "/tmp/none/log") == ENOENT && log_reopen(&log, "") == ENOENT);
    log_write(&log, LOG_INFO, "five", NULL);
    CHECK(file_has(path, " info five\n"));
    CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
    CHECK(log_reopen(&log, path) == EISDIR);
    CHECK(rmdir(path) == 0 && rename(old, path) == 0);
    CHECK(log_reopen(&log, path) == 0);
    log_write(&log, LOG_INFO, "six", NULL);
    CHECK(file_has(path, " info one\n info two\n info three\n info six\n"));
    CHECK(next_descriptor() == before);
    fclose(log.file);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

/* --- a log that takes no more ----------------------------------------------------------------- */

/* A log whose file is the writing end of a pipe; returns the reading end. */
static int open_pipe(struct log *log)
{
    int ends[2] = {-1, -1};

    if (CHECK(pipe(ends) == 0) && CHECK((log->file = fdopen(ends[1], "w")) != NULL))
        fcntl(ends[0], F_SETFL, O_NONBLOCK);
    return ends[0];
}

/* Appends all that a pipe holds. */
static void read_pipe(int fd, struct buf *out)
{
    char piece[4096];
    ssize_t n;

    while ((n = read(fd, piece, sizeof piece)) > 0)
        buf_append(out, (struct str){piece, (size_t)n});
}

static uint64_t count_lines(struct str text)
{
    uint64_t lines = 0;

    for (size_t i = 0; i < text.length; i++)
        lines += text.at[i] == '\n';
    return lines;
}

/* Writes lines until some are lost; returns how many were written and lost together. */
static uint64_t fill(const struct log *log)
{
    uint64_t lines = 0, before = log_lost(log);

    for (; log_lost(log) < before + 5 && lines < 100000; lines++)
        log_write(log, LOG_INFO, "a line", NULL);
    CHECK(lines < 100000);
    return lines;
}

/* While nobody reads, lines are lost and counted, and nothing waits; their number is the first line
 * after that. */
static void a_pipe_that_nobody_reads_is_not_waited_for(void)
{
    struct log_state state = {0};
    struct log log = {.state = &state};
    int reader = open_pipe(&log);
    struct buf text = {0};

    for (int times = 1; times <= 3; times++) {
        uint64_t lines = fill(&log);

        CHECK(log_lost(&log) == 5u * (unsigned)times && !log_catch_up(&log));
        read_pipe(reader, &text);
        CHECK(count_lines(str_of(&text)) == lines - 5);
        buf_free(&text);
        if (times == 2)
            CHECK(log_catch_up(&log)); /* without another line */
        log_write(&log, LOG_INFO, "another", NULL);
        CHECK(log_catch_up(&log));
        read_pipe(reader, &text);
        CHECK(count_lines(str_of(&text)) == 2);
        buf_append(&text, STR("\0"));
        CHECK(strstr(text.at,
                     " error 5 lines were lost reason=\"Resource temporarily unavailable\"\n"));
        CHECK(strstr(text.at, " info another\n") > strchr(text.at, '\n'));
        buf_free(&text);
    }
    close(reader);
    fclose(log.file);
}

static void a_log_without_state_is_not_waited_for(void)
{
    struct log log = {0};
    int reader = open_pipe(&log);
    struct buf text = {0};

    for (int i = 0; i < 5000; i++)
        log_write(&log, LOG_INFO, "a line", NULL);
    read_pipe(reader, &text);
    CHECK(text.length > 0 && count_lines(str_of(&text)) < 5000 && log_lost(&log) == 0);
    CHECK(text.length > 0 && text.at[text.length - 1] == '\n' && log_catch_up(&log));
    buf_free(&text);
    close(reader);
    fclose(log.file);
}

static void a_pipe_that_has_gone_loses_lines(void)
{
    struct log_state state = {0};
    struct log log = {.state = &state};
    int reader = open_pipe(&log);

    close(reader);
    log_write(&log, LOG_INFO, "a line", NULL);
    CHECK(log_lost(&log) == 1 && state.error == EPIPE);
    fclose(log.file);
}

/* A file that may not grow takes part of a line: the next one must not be glued to that. */
static void a_full_disk_loses_lines(void)
{
    struct log_state state = {0};
    struct log log = {.file = tmpfile(), .state = &state};
    struct rlimit before, few;
    struct buf text = {0};
    char end[100];
    size_t length;
    uint64_t lines;

    if (!CHECK(log.file != NULL) || !CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0))
        return;
    few = before;
    few.rlim_cur = 1000;
    CHECK(setrlimit(RLIMIT_FSIZE, &few) == 0);
    lines = fill(&log);
    CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
    CHECK(state.error == EFBIG && state.torn);
    log_write(&log, LOG_INFO, "another", NULL);
    CHECK(!state.torn);
    read_back(log.file, &text);
    fclose(log.file);
    CHECK(text.length > 1000 && text.at[1000] == '\n');
    CHECK(count_lines((struct str){text.at, 1000}) == lines - 5);
    length = (size_t)snprintf(end, sizeof end, " error 5 lines were lost reason=\"%s\"\n",
                              strerror(EFBIG));
    CHECK(text.length > 1001 + TIME_LENGTH + length &&
          memcmp(text.at + 1001 + TIME_LENGTH, end, length) == 0);
    CHECK(count_lines((struct str){text.at + 1001, text.length - 1001}) == 2);
    buf_free(&text);
}

/* The process that started this one shares stderr: its flags stay as they are. */
static void a_pipe_as_stderr_is_opened_a_second_time(void)
{
    struct log_state state = {0};
    struct log log = {.state = &state};
    struct buf text = {0};
    int ends[2], kept;

    if (!CHECK(pipe(ends) == 0))
        return;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    kept = replace_stderr(ends[1]);
    CHECK(log_open(&log, "") == 0);
    CHECK(!(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK));
    CHECK(log.file && (fcntl(fileno(log.file), F_GETFL) & O_NONBLOCK));
    fill(&log);
    restore_stderr(kept);
    read_pipe(ends[0], &text);
    CHECK(count_lines(str_of(&text)) > 100);
    buf_free(&text);
    if (log.file)
        fclose(log.file);
    close(ends[0]);
    close(ends[1]);
}

/* Opening a FIFO would wait for its reader. */
static void a_fifo_is_not_waited_for(void)
{
    char folder[] = "/tmp/wspush-unit.XXXXXX", path[80];
    struct log_state state = {0};
    struct log log = {.state = &state};
    int reader;

    if (!CHECK(mkdtemp(folder) != NULL))
        return;
    snprintf(path, sizeof path, "%s/fifo", folder);
    CHECK(mkfifo(path, 0600) == 0);
    CHECK(log_open(&log, path) == ENXIO && !log.file);
    reader = open(path, O_RDONLY | O_NONBLOCK);
    CHECK(log_open(&log, path) == 0);
    if (CHECK(log.file != NULL)) {
        fill(&log);
        close(reader);
        CHECK(log_reopen(&log, path) == ENXIO);
        fclose(log.file);
    }
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

/* Runs die() in a child with this stderr. */
static void check_die(int fd)
{
    int status = 0;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(20);
        dup2(fd, STDERR_FILENO);
        die("cannot open %s: error %d", "config.ini", 7);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

static void die_does_not_wait_for_ever(void)
{
    static char junk[65536];
    int ends[2];

    if (!CHECK(pipe(ends) == 0))
        return;
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    for (size_t piece = sizeof junk; piece > 0; piece /= 2)
        while (write(ends[1], junk, piece) > 0)
            ;
    fcntl(ends[1], F_SETFL, 0);
    check_die(ends[1]);
    close(ends[0]);
    close(ends[1]);
}

static void die_tells_and_ends_with_1(void)
{
    FILE *file = tmpfile();
    struct buf text = {0};

    if (!CHECK(file != NULL))
        return;
    check_die(fileno(file));
    read_back(file, &text);
    CHECK(str_equal(str_of(&text), STR("wspush: cannot open config.ini: error 7\n")));
    fclose(file);
    buf_free(&text);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
    alarm(20); /* what waits has failed */
    test_run("lines_have_their_form", lines_have_their_form);
    test_run("lines_tell_the_time", lines_tell_the_time);
    test_run("no_value_can_forge_a_line", no_value_can_forge_a_line);
    test_run("every_byte_is_escaped_or_printable", every_byte_is_escaped_or_printable);
    test_run("long_values_are_cut", long_values_are_cut);
    test_run("long_values_are_cut_between_characters", long_values_are_cut_between_characters);
    test_run("long_lines_are_cut", long_lines_are_cut);
    test_run("lower_levels_are_left_out", lower_levels_are_left_out);
    test_run("a_line_is_one_write", a_line_is_one_write);
    test_run("lines_go_to_stderr_without_a_file", lines_go_to_stderr_without_a_file);
    test_run("a_log_is_opened_again", a_log_is_opened_again);
    test_run("a_pipe_that_nobody_reads_is_not_waited_for",
             a_pipe_that_nobody_reads_is_not_waited_for);
    test_run("a_log_without_state_is_not_waited_for", a_log_without_state_is_not_waited_for);
    test_run("a_pipe_that_has_gone_loses_lines", a_pipe_that_has_gone_loses_lines);
    test_run("a_full_disk_loses_lines", a_full_disk_loses_lines);
    test_run("a_pipe_as_stderr_is_opened_a_second_time", a_pipe_as_stderr_is_opened_a_second_time);
    test_run("a_fifo_is_not_waited_for", a_fifo_is_not_waited_for);
    test_run("die_does_not_wait_for_ever", die_does_not_wait_for_ever);
    test_run("die_tells_and_ends_with_1", die_tells_and_ends_with_1);
    return test_finish();
}
