/* test_console.c - console.c: the page and the client module are the files, compressed; the page's
 * policy fits it, and a browser that has it is not sent it again. */
#include "console.h"

#include "crypto.h"

#include "test.h"

#include <stdio.h>

#define PAGE_MAX 44000 /* the page stays below this, */
#define SENT_MAX 16384 /* and what the binary has of it below this */
#define MODULE_MAX 8192

static struct console console;
static char file[PAGE_MAX + 2]; /* one more shows that it is too long; and the NUL at the end */
static size_t file_length;

static struct str read_file(const char *name)
{
    FILE *stream = fopen(name, "rb");

    CHECK(stream != NULL);
    if (stream) {
        file_length = fread(file, 1, sizeof file - 1, stream);
        fclose(stream);
    }
    return (struct str){file, file_length};
}

static struct str page_sent(void)
{
    return (struct str){console.file->bytes, console.file->length};
}

static size_t count(struct str text, const char *part)
{
    struct str sought = str_from(part);
    size_t found = 0;

    for (size_t i = 0; i + sought.length <= text.length; i++)
        found += memcmp(text.at + i, sought.at, sought.length) == 0;
    return found;
}

/* What a gzip member ends with: the CRC-32 and the length of the text (RFC 1952), 8 bytes. */
static void write_trailer(struct str text, char out[8])
{
    uint32_t crc = ~(uint32_t)0;

    for (size_t i = 0; i < text.length; i++) {
        crc ^= (unsigned char)text.at[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
    }
    for (int i = 0; i < 4; i++) {
        out[i] = (char)(~crc >> 8 * i);
        out[i + 4] = (char)(text.length >> 8 * i);
    }
}

/* What is sent is a text, compressed. */
static void check_sent(struct str sent, struct str text)
{
    char trailer[8];

    CHECK(count(text, "\r") == 0 && count(text, "\t") == 0);
    write_trailer(text, trailer);
    CHECK(sent.length > 1000);
    CHECK(memcmp(sent.at, "\x1f\x8b\x08\0", 4) == 0); /* deflated, no name */
    CHECK(memcmp(sent.at + sent.length - 8, trailer, 8) == 0);
}

static void the_page_is_the_file(void)
{
    struct str text = read_file("console.html");

    CHECK(text.length > 1000 && text.length < PAGE_MAX);
    CHECK(page_sent().length < SENT_MAX);
    check_sent(page_sent(), text);
}

static void the_client_module_is_a_file(void)
{
    struct console module;
    struct str text = read_file("wspush.js");

    if (!CHECK(console_open_client(&module)))
        return;
    CHECK(text.length > 1000 && text.length <= MODULE_MAX);
    check_sent((struct str){module.file->bytes, module.file->length}, text);
    CHECK(strcmp(module.type, "text/javascript; charset=utf-8") == 0);
    CHECK(strcmp(module.fields,
                 textf("ETag: %s\r\nContent-Encoding: gzip\r\nX-Content-Type-Options: nosniff\r\n"
                       "Cache-Control: max-age=300\r\nAccess-Control-Allow-Origin: *\r\n",
                       module.etag)) == 0);
    CHECK(strlen(module.etag) == 18 && strcmp(module.etag, console.etag) != 0);
    console_close(&module);
}

/* What the policy forbids, and what would bring text of peers to life. */
static void the_page_keeps_to_its_policy(void)
{
    static const char *const never[] = {" style=",
                                        " onclick=\"",
                                        " onload=",
                                        "javascript:",
                                        "innerHTML",
                                        "outerHTML",
                                        "insertAdjacentHTML",
                                        "document.write",
                                        "eval(",
                                        "new Function",
                                        "srcdoc",
                                        "<base",
                                        "<iframe",
                                        "setAttribute('style'",
                                        " src=",
                                        "@import",
                                        "url("};
    struct str text = read_file("console.html");

    for (size_t i = 0; i < COUNT(never); i++)
        if (!CHECK(count(text, never[i]) == 0))
            printf("     the page has: %s\n", never[i]);
    /* no other host: the only address is the name of SVG, in the icon */
    CHECK(count(text, "http://") == 1 && count(text, "http://www.w3.org/2000/svg") == 1);
    CHECK(count(text, "https://") == 0);
    CHECK(count(text, "<style") == 1 && count(text, "<script") == 1);
}

/* Appends what a policy has for the text between two marks of the file. */
static void append_source(struct buf *out, const char *before, const char *behind)
{
    const char *begin = strstr(file, before), *end = begin ? strstr(begin, behind) : NULL;
    unsigned char hash[CRYPTO_HASH_SIZE];

    if (!CHECK(begin && end))
        return;
    begin += strlen(before);
    CHECK(crypto_sha256((struct str){begin, (size_t)(end - begin)}, hash));
    buf_append(out, STR("'sha256-"));
    crypto_base64(out, (struct str){(const char *)hash, sizeof hash});
    buf_append(out, STR("'"));
}

static void the_policy_fits_the_page(void)
{
    struct buf wanted = {0};

    read_file("console.html");
    buf_append(&wanted, STR("Content-Security-Policy: default-src 'none'; style-src "));
    append_source(&wanted, "<style>", "</style>");
    buf_append(&wanted, STR("; script-src "));
    append_source(&wanted, "<script>", "</script>");
    buf_append(
        &wanted,
        STR(" 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
            "frame-ancestors 'none'; require-trusted-types-for 'script'; "
            "trusted-types 'none'\r\n"));
    buf_append(&wanted, (struct str){"", 1});
    CHECK(count(str_from(console.fields), wanted.at) == 1);
    CHECK(count(str_from(console.fields), "unsafe") == 0);
    buf_free(&wanted);
}

/* What a request is answered; its head line and fields are given. */
static struct rcbuf *ask(const char *head, struct http_response *answer)
{
    struct http_request request;

    CHECK(http_parse_request(str_from(head), 8192, &request) == HTTP_OK);
    return console_respond(&console, &request, answer);
}

/* The same to somebody who knows the page by a tag, which stands between two texts. */
static struct rcbuf *ask_known(const char *before, const char *tag, const char *behind,
                               struct http_response *answer)
{
    char head[300];

    snprintf(head, sizeof head, "GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: %s%s%s\r\n\r\n",
             before, tag, behind);
    return ask(head, answer);
}

static void it_is_sent_once(void)
{
    static const struct {
        const char *before, *behind;
        bool tagged, known;
    } rows[] = {
        {"", "", true, true},
        {"W/", "", true, true},
        {"\"x\", ", "", true, true},
        {"\"x\",W/", " , \"y\"", true, true},
        {"*", "", false, true},
        {"\"x\"", "", false, false},
        {"x", "", true, false},
        {"", "x", true, false},
        {"W/ ", "", true, false},
        {"W/x", "", true, false},
        {"\"x\", \"y\"", "", false, false},
    };
    struct http_response answer;

    CHECK(ask("GET / HTTP/1.1\r\nHost: h\r\n\r\n", &answer) == console.file);
    CHECK(answer.status == 200 && answer.head && answer.body.length == console.file->length);
    CHECK(strcmp(answer.type, "text/html; charset=utf-8") == 0);
    CHECK(answer.fields == console.fields && !answer.allow && !answer.retry_after);
    CHECK(!ask("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n", &answer));
    CHECK(answer.status == 200 && answer.head && answer.body.length == console.file->length);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct rcbuf *page =
            ask_known(rows[i].before, rows[i].tagged ? console.etag : "", rows[i].behind, &answer);

        if (!CHECK(page == (rows[i].known ? NULL : console.file)) ||
            !CHECK(answer.status == (rows[i].known ? 304 : 200) && answer.head))
            printf("     in row %zu\n", i);
    }
}

static void the_fields_are_whole_lines(void)
{
    struct str text = str_from(console.fields), line;
    char etag[40];
    size_t lines = 0;

    CHECK(text.length > 300 && text.length < sizeof console.fields - 1);
    CHECK(text.at[text.length - 2] == '\r' && text.at[text.length - 1] == '\n');
    while (text.length) {
        line = str_cut(&text, '\n');
        lines++;
        CHECK(line.length && line.at[line.length - 1] == '\r' && memchr(line.at, ':', line.length));
    }
    CHECK(lines == 6);
    snprintf(etag, sizeof etag, "ETag: %s\r\n", console.etag);
    CHECK(strlen(console.etag) == 18 && count(str_from(console.fields), etag) == 1);
    CHECK(count(str_from(console.fields), "Content-Encoding: gzip\r\n") == 1);
    CHECK(count(str_from(console.fields), "Cache-Control: no-cache\r\n") == 1);
    CHECK(count(str_from(console.fields), "X-Content-Type-Options: nosniff\r\n") == 1);
    CHECK(count(str_from(console.fields), "Referrer-Policy: no-referrer\r\n") == 1);
}

/* The tag changes with the page: it is a hash of all of it. */
static void the_tag_is_of_the_page(void)
{
    struct buf wanted = {0};
    unsigned char hash[CRYPTO_HASH_SIZE];

    CHECK(crypto_sha256(page_sent(), hash));
    buf_append(&wanted, STR("\""));
    buf_append_hex(&wanted, (struct str){(const char *)hash, 8});
    buf_append(&wanted, STR("\""));
    CHECK(str_equal(str_of(&wanted), str_from(console.etag)));
    buf_free(&wanted);
}

int main(void)
{
    if (!console_open(&console))
        printf("FAIL the console opens\n");
    else {
        test_run("the page is the file", the_page_is_the_file);
        test_run("the page keeps to its policy", the_page_keeps_to_its_policy);
        test_run("the policy fits the page", the_policy_fits_the_page);
        test_run("it is sent once", it_is_sent_once);
        test_run("the fields are whole lines", the_fields_are_whole_lines);
        test_run("the tag is of the page", the_tag_is_of_the_page);
        test_run("the client module is a file", the_client_module_is_a_file);
    }
    console_close(&console);
    console_close(&console); /* there is nothing left to free */
    return test_finish();
}
