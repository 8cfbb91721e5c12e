/* test_log.c - tests that a log line says what it was given and that no peer can forge one. */
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

static void text_lines_have_their_form(void)
{
    static const struct {
        enum log_level level;
        const char *message;
        const struct log_field *fields;
        struct str line;
    } cases[] = {
        {LOG_DEBUG, "a turn", NULL, STR_INIT(" debug a turn")},
        {LOG_INFO, "listening", &some_fields[5], STR_INIT(" info listening")},
        {LOG_WARN, "slow", &some_fields[4], STR_INIT(" warn slow none=0")},
        {LOG_ERROR, "all of them", some_fields,
         STR_INIT(" error all of them client=\"9fa54bdb\" count=42 low=-9223372036854775808 "
                  "empty=\"\" none=0")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf line = {0};

        write_line((struct log){0}, cases[i].level, cases[i].message, cases[i].fields, &line);
        CHECK(one_line(str_of(&line)));
        if (!CHECK(str_equal(without_time(str_of(&line)), cases[i].line)))
            printf("  in case %zu: %.*s", i, (int)line.length, line.at);
        buf_free(&line);
    }
}

static void json_lines_have_their_form(void)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};

    for (int i = LOG_DEBUG; i <= LOG_ERROR; i++) {
        struct buf line = {0};
        struct str text;

        write_line((struct log){.json = true}, (enum log_level)i, "say \"hi\"", some_fields, &line);
        text = str_of(&line);
        CHECK(member_is(text, STR("level"), JSON_STRING, str_from(levels[i])));
        CHECK(member_is(text, STR("message"), JSON_STRING, STR("say \"hi\"")));
        CHECK(member_is(text, STR("client"), JSON_STRING, STR("9fa54bdb")));
        CHECK(member_is(text, STR("count"), JSON_NUMBER, STR("42")));
        CHECK(member_is(text, STR("low"), JSON_NUMBER, STR("-9223372036854775808")));
        CHECK(member_is(text, STR("empty"), JSON_STRING, STR("")));
        CHECK(member_is(text, STR("none"), JSON_NUMBER, STR("0")));
        CHECK(member_is(text, STR("other"), JSON_NONE, STR("")));
        buf_free(&line);
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

static const struct str forgery =
    STR_INIT("a\n2024-01-01T00:00:00.000Z error forged\r\n\x1b[2J\" level=\"x\\\t\0\x7f\x9b"
             "\xe2\x80\xa8");

static void text_lines_cannot_be_forged(void)
{
    const struct log_field fields[] = {{.name = "peer", .text = forgery}, {0}};
    struct buf line = {0};

    write_line((struct log){0}, LOG_WARN, "refused", fields, &line);
    CHECK(one_line(str_of(&line)));
    CHECK(str_equal(without_time(str_of(&line)),
                    STR(" warn refused peer=\"a\\x0a2024-01-01T00:00:00.000Z error forged"
                        "\\x0d\\x0a\\x1b[2J\\\" level=\\\"x\\\\\\x09\\x00\\x7f\\x9b"
                        "\\xe2\\x80\\xa8\"")));
    buf_free(&line);
}

/* What a terminal would obey, or not show, is escaped, and is the same when it is read. */
static void json_lines_hide_nothing(void)
{
    static const struct {
        struct str text, line;
    } cases[] = {
        {STR_INIT("\xc2\x80\xc2\x9b"
                  "31m\xc2\x9f"),
         STR_INIT("\\u0080\\u009b31m\\u009f")},
        {STR_INIT("\xd8\x9c\xe2\x80\x8b\xe2\x80\x8f"), STR_INIT("\\u061c\\u200b\\u200f")},
        {STR_INIT("\xe2\x80\xa8\xe2\x80\xae"), STR_INIT("\\u2028\\u202e")},
        {STR_INIT("\xe2\x81\xa0\xe2\x81\xaf\xef\xbb\xbf"), STR_INIT("\\u2060\\u206f\\ufeff")},
        {STR_INIT("\xc2\xa0\xe2\x80\x8a\xe2\x80\x90"),
         STR_INIT("\xc2\xa0\xe2\x80\x8a\xe2\x80\x90")},
        {STR_INIT("\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\x9f"),
         STR_INIT("\xe2\x80\xa7\xe2\x80\xaf\xe2\x81\x9f")},
        {STR_INIT("\xe2\x81\xb0\xf3\xa0\x80\xae"), STR_INIT("\xe2\x81\xb0\xf3\xa0\x80\xae")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct log_field fields[] = {{.name = "peer", .text = cases[i].text}, {0}};
        struct buf line = {0}, wanted = {0};

        write_line((struct log){.json = true}, LOG_WARN, "m", fields, &line);
        buf_append(&wanted, STR(",\"level\":\"warn\",\"message\":\"m\",\"peer\":\""));
        buf_append(&wanted, cases[i].line);
        buf_append(&wanted, STR("\"}\n"));
        CHECK(member_is(str_of(&line), STR("peer"), JSON_STRING, cases[i].text));
        if (!CHECK(line.length > wanted.length &&
                   str_equal((struct str){line.at + line.length - wanted.length, wanted.length},
                             str_of(&wanted))))
            printf("  in case %zu: %.*s", i, (int)line.length, line.at);
        buf_free(&wanted);
        buf_free(&line);
    }
}

static void json_lines_cannot_be_forged(void)
{
    const struct log_field fields[] = {{.name = "peer", .text = forgery}, {0}};
    struct buf line = {0};

    write_line((struct log){.json = true}, LOG_WARN, "refused", fields, &line);
    CHECK(member_is(str_of(&line), STR("level"), JSON_STRING, STR("warn")));
    /* not valid UTF-8, so each byte past ASCII stands for itself */
    CHECK(member_is(str_of(&line), STR("peer"), JSON_STRING,
                    STR("a\n2024-01-01T00:00:00.000Z error forged\r\n\x1b[2J\" level=\"x\\\t\0\x7f"
                        "\xc2\x9b\xc3\xa2\xc2\x80\xc2\xa8")));
    for (size_t i = 0; i + 1 < line.length; i++)
        if (!CHECK(line.at[i] >= 0x20 && line.at[i] < 0x7f))
            break;
    buf_free(&line);
}

/* What a byte looks like between the quotes of a field, by the words of the header. */
static void byte_as_written(char form[8], unsigned byte, bool json)
{
    if (byte == '"' || byte == '\\')
        snprintf(form, 8, "\\%c", (char)byte);
    else if (byte >= 0x20 && byte < 0x7f)
        snprintf(form, 8, "%c", (char)byte);
    else
        snprintf(form, 8, json ? "\\u%04x" : "\\x%02x", byte);
}

static void every_byte_is_escaped_or_printable(void)
{
    for (unsigned i = 0; i < 512; i++) {
        char byte = (char)(i & 255), end[40], form[8];
        bool json = i >= 256;
        const struct log_field fields[] = {{.name = "b", .text = {&byte, 1}}, {0}};
        struct buf line = {0};
        size_t length;

        byte_as_written(form, i & 255, json);
        length = (size_t)snprintf(end, sizeof end, json ? "\"m\",\"b\":\"%s\"}\n" : " m b=\"%s\"\n",
                                  form);
        write_line((struct log){.json = json}, LOG_INFO, "m", fields, &line);
        CHECK(one_line(str_of(&line)));
        if (!CHECK(line.length > length) ||
            !CHECK(memcmp(line.at + line.length - length, end, length) == 0))
            printf("  byte %u: %.*s", i & 255, (int)line.length, line.at);
        buf_free(&line);
    }
}

/* In a line for people the same characters are escaped, byte by byte. */
static void text_lines_hide_nothing(void)
{
    static const struct str text =
        STR_INIT("\xe4\xb8\xad\xe2\x80\xae\xc2\x9b\xc2\xa0\xf0\x9f\x98\x80");
    const struct log_field fields[] = {{.name = "b", .text = text}, {0}};
    struct buf line = {0};

    write_line((struct log){0}, LOG_INFO, "m", fields, &line);
    CHECK(str_equal(
        without_time(str_of(&line)),
        STR(" info m b=\"\xe4\xb8\xad\\xe2\\x80\\xae\\xc2\\x9b\xc2\xa0\xf0\x9f\x98\x80\"")));
    buf_free(&line);
}

static void valid_utf8_passes(void)
{
    static const struct str text = STR_INIT("gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80\n");
    const struct log_field fields[] = {{.name = "name", .text = text}, {0}};
    struct buf line = {0};

    write_line((struct log){.json = true}, LOG_INFO, "m", fields, &line);
    CHECK(member_is(str_of(&line), STR("name"), JSON_STRING, text));
    buf_append(&line, STR("\0"));
    CHECK(strstr(line.at, "\"gr\xc3\xbc\xc3\x9f \xe4\xb8\xad \xf0\x9f\x98\x80\\u000a\"") != NULL);
    buf_free(&line);
    write_line((struct log){0}, LOG_INFO, "m", fields, &line);
    CHECK(
        str_equal(without_time(str_of(&line)), STR(" info m name=\"gr\xc3\xbc\xc3\x9f \xe4\xb8\xad "
                                                   "\xf0\x9f\x98\x80\\x0a\"")));
    buf_free(&line);
}

static void long_values_are_cut(void)
{
    static const struct {
        size_t given, written;
    } cases[] = {{0, 0}, {1999, 1999}, {2000, 2000}, {2001, 2000}, {100000, 2000}};
    static char text[100000];

    memset(text, 'v', sizeof text);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
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

    for (size_t i = 0; i < 2 * sizeof units / sizeof units[0]; i++) {
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

static void lines_follow_each_other(void)
{
    struct log log = {.file = tmpfile()};
    struct buf text = {0};
    struct str rest;

    if (!CHECK(log.file != NULL))
        return;
    for (int i = 0; i < 100; i++)
        log_write(&log, LOG_INFO, "line", (struct log_field[]){{.name = "i", .number = i}, {0}});
    read_back(log.file, &text);
    fclose(log.file);
    rest = str_of(&text);
    for (int i = 0; i < 100; i++) {
        char expected[40];
        struct str line = str_cut(&rest, '\n');

        snprintf(expected, sizeof expected, " info line i=%d", i);
        if (!CHECK(line.length > TIME_LENGTH) ||
            !CHECK(str_equal((struct str){line.at + TIME_LENGTH, line.length - TIME_LENGTH},
                             str_from(expected))))
            break;
    }
    CHECK(rest.length == 0);
    buf_free(&text);
}

/* Each write to a datagram socket is a datagram of its own, so writes can be counted. */
static void a_line_is_one_write(void)
{
    static const size_t sizes[] = {0, 10, 900};
    static char value[900], received[65536];
    struct log log = {0};
    int ends[2], room = 65536;

    memset(value, 'v', sizeof value);
    if (!CHECK(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0) ||
        !CHECK((log.file = fdopen(ends[1], "w")) != NULL))
        return;
    setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    setvbuf(log.file, NULL, _IONBF, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
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

static void lines_go_to_stderr_without_a_file(void)
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    struct buf text = {0};

    if (!CHECK(file != NULL && kept >= 0) || !CHECK(dup2(fileno(file), STDERR_FILENO) >= 0))
        return;
    log_write(&(struct log){0}, LOG_DEBUG, "to stderr", NULL);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
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

/* Renamed, the old file keeps what it has, and a new one begins; what is there is gone on with. */
static void a_log_is_opened_again(void)
{
    char folder[] = "/tmp/wspush-unit.XXXXXX", path[80], old[80];
    struct log log = {0};
    int before;

    if (!CHECK(mkdtemp(folder) != NULL))
        return;
    snprintf(path, sizeof path, "%s/log", folder);
    snprintf(old, sizeof old, "%s/log.1", folder);
    log.file = fopen(path, "a");
    if (!CHECK(log.file != NULL))
        return;
    setvbuf(log.file, NULL, _IONBF, 0);
    before = next_descriptor();
    log_write(&log, LOG_INFO, "one", NULL);
    CHECK(log_reopen(&log, path) == 0); /* it is still there */
    log_write(&log, LOG_INFO, "two", NULL);
    CHECK(rename(path, old) == 0);
    log_write(&log, LOG_INFO, "three", NULL);
    CHECK(file_has(old, " info one\n info two\n info three\n"));
    CHECK(log_reopen(&log, path) == 0);
    log_write(&log, LOG_INFO, "four", NULL);
    CHECK(file_has(old, " info one\n info two\n info three\n") && file_has(path, " info four\n"));
    CHECK(truncate(path, 0) == 0); /* what has been emptied is begun again, without a hole */
    log_write(&log, LOG_INFO, "five", NULL);
    CHECK(file_has(path, " info five\n"));
    CHECK(unlink(path) == 0 && mkdir(path, 0700) == 0);
    CHECK(log_reopen(&log, path) == EISDIR);
    CHECK(rmdir(path) == 0 && rename(old, path) == 0);
    CHECK(log_reopen(&log, "/tmp/none/log") == ENOENT);
    CHECK(log_reopen(&log, "") == ENOENT);
    CHECK(log_reopen(&log, path) == 0);
    log_write(&log, LOG_INFO, "six", NULL);
    CHECK(file_has(path, " info one\n info two\n info three\n info six\n"));
    CHECK(next_descriptor() == before);
    fclose(log.file);
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

/* One that cannot be opened leaves the old one. */
static void the_old_log_is_kept(void)
{
    struct log log = {.file = tmpfile()};
    struct buf text = {0};

    if (!CHECK(log.file != NULL))
        return;
    setvbuf(log.file, NULL, _IONBF, 0);
    CHECK(log_reopen(&log, "/tmp/none/log") == ENOENT);
    log_write(&log, LOG_WARN, "still here", NULL);
    read_back(log.file, &text);
    CHECK(str_equal(without_time(str_of(&text)), STR(" warn still here")));
    fclose(log.file);
    buf_free(&text);
}

static void stderr_is_not_opened_again(void)
{
    CHECK(log_reopen(&(struct log){0}, "") == 0);
    CHECK(log_reopen(&(struct log){0}, "/tmp/none/log") == 0);
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

/* Nobody reads: lines are lost and counted, and nothing waits. Somebody reads again: that is told
 * before anything else. */
static void a_pipe_that_nobody_reads_is_not_waited_for(void)
{
    struct log_state state = {0};
    struct log log = {.state = &state};
    int reader = open_pipe(&log);
    struct buf text = {0};

    for (int round = 0; round < 3; round++) {
        uint64_t lines = fill(&log);

        CHECK(log_lost(&log) == 5u * (unsigned)(round + 1) && !log_catch_up(&log));
        read_pipe(reader, &text);
        CHECK(count_lines(str_of(&text)) == lines - 5);
        buf_free(&text);
        if (round == 1)
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

/* stderr is shared with whoever started this: it must stay as it is. */
static void stderr_is_opened_a_second_time(void)
{
    struct log_state state = {0};
    struct log log = {.state = &state};
    int ends[2], kept = dup(STDERR_FILENO);
    struct buf text = {0};

    if (!CHECK(pipe(ends) == 0 && kept >= 0 && dup2(ends[1], STDERR_FILENO) >= 0))
        return;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    CHECK(log_open(&log, "") == 0);
    CHECK(!(fcntl(STDERR_FILENO, F_GETFL) & O_NONBLOCK));
    CHECK(log.file && (fcntl(fileno(log.file), F_GETFL) & O_NONBLOCK));
    fill(&log);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    read_pipe(ends[0], &text);
    CHECK(count_lines(str_of(&text)) > 100);
    buf_free(&text);
    if (log.file)
        fclose(log.file);
    close(kept);
    close(ends[0]);
    close(ends[1]);
}

/* A file that stderr was sent to has one place where writing goes on, which die needs as well. */
static void a_file_as_stderr_is_not_opened_a_second_time(void)
{
    FILE *file = tmpfile();
    int kept = dup(STDERR_FILENO);
    struct log log = {0};

    if (!CHECK(file != NULL && kept >= 0) || !CHECK(dup2(fileno(file), STDERR_FILENO) >= 0))
        return;
    CHECK(log_open(&log, "") == 0 && !log.file);
    CHECK(dup2(kept, STDERR_FILENO) >= 0);
    close(kept);
    fclose(file);
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

/* What is torn stays behind in the old file. */
static void a_log_that_is_opened_again_begins_with_a_line(void)
{
    char folder[] = "/tmp/wspush-unit.XXXXXX", path[80];
    struct log_state state = {.torn = true};
    struct log log = {.state = &state};

    if (!CHECK(mkdtemp(folder) != NULL))
        return;
    snprintf(path, sizeof path, "%s/log", folder);
    CHECK(log_open(&log, path) == 0);
    if (CHECK(log.file != NULL)) {
        CHECK(log_reopen(&log, path) == 0);
        log_write(&log, LOG_INFO, "a line", NULL);
        CHECK(file_has(path, " info a line\n"));
        fclose(log.file);
    }
    CHECK(unlink(path) == 0 && rmdir(folder) == 0);
}

static void die_does_not_wait_for_ever(void)
{
    static char junk[65536];
    int ends[2], status = 0;
    pid_t child;

    if (!CHECK(pipe(ends) == 0))
        return;
    fcntl(ends[1], F_SETFL, O_NONBLOCK);
    for (size_t piece = sizeof junk; piece > 0; piece /= 2)
        while (write(ends[1], junk, piece) > 0)
            ;
    fcntl(ends[1], F_SETFL, 0);
    fflush(stdout);
    child = fork();
    if (child == 0) {
        alarm(20);
        dup2(ends[1], STDERR_FILENO);
        die("nobody reads this");
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    close(ends[0]);
    close(ends[1]);
}

static void die_tells_and_ends_with_1(void)
{
    FILE *file = tmpfile();
    struct buf text = {0};
    int status = 0;
    pid_t child;

    if (!CHECK(file != NULL))
        return;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        dup2(fileno(file), STDERR_FILENO);
        die("cannot open %s: error %d", "config.ini", 7);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 1);
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
    test_run("text_lines_have_their_form", text_lines_have_their_form);
    test_run("json_lines_have_their_form", json_lines_have_their_form);
    test_run("lines_tell_the_time", lines_tell_the_time);
    test_run("text_lines_cannot_be_forged", text_lines_cannot_be_forged);
    test_run("json_lines_cannot_be_forged", json_lines_cannot_be_forged);
    test_run("json_lines_hide_nothing", json_lines_hide_nothing);
    test_run("every_byte_is_escaped_or_printable", every_byte_is_escaped_or_printable);
    test_run("text_lines_hide_nothing", text_lines_hide_nothing);
    test_run("valid_utf8_passes", valid_utf8_passes);
    test_run("long_values_are_cut", long_values_are_cut);
    test_run("long_values_are_cut_between_characters", long_values_are_cut_between_characters);
    test_run("long_lines_are_cut", long_lines_are_cut);
    test_run("lower_levels_are_left_out", lower_levels_are_left_out);
    test_run("lines_follow_each_other", lines_follow_each_other);
    test_run("a_line_is_one_write", a_line_is_one_write);
    test_run("lines_go_to_stderr_without_a_file", lines_go_to_stderr_without_a_file);
    test_run("a_log_is_opened_again", a_log_is_opened_again);
    test_run("the_old_log_is_kept", the_old_log_is_kept);
    test_run("stderr_is_not_opened_again", stderr_is_not_opened_again);
    test_run("a_pipe_that_nobody_reads_is_not_waited_for",
             a_pipe_that_nobody_reads_is_not_waited_for);
    test_run("a_log_without_state_is_not_waited_for", a_log_without_state_is_not_waited_for);
    test_run("a_pipe_that_has_gone_loses_lines", a_pipe_that_has_gone_loses_lines);
    test_run("a_full_disk_loses_lines", a_full_disk_loses_lines);
    test_run("stderr_is_opened_a_second_time", stderr_is_opened_a_second_time);
    test_run("a_file_as_stderr_is_not_opened_a_second_time",
             a_file_as_stderr_is_not_opened_a_second_time);
    test_run("a_fifo_is_not_waited_for", a_fifo_is_not_waited_for);
    test_run("a_log_that_is_opened_again_begins_with_a_line",
             a_log_that_is_opened_again_begins_with_a_line);
    test_run("die_does_not_wait_for_ever", die_does_not_wait_for_ever);
    test_run("die_tells_and_ends_with_1", die_tells_and_ends_with_1);
    return test_finish();
}
