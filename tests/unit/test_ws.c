/* test_ws.c - WebSocket (RFC 6455): vectors named after its sections, each fed whole, byte by byte
 * and cut at every place, which must all tell the same story; and what is written, byte for byte.
 */
#include "ws.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

#define LIMIT 100000
#define S STR_INIT
#define NOT_UTF8 S("bad 1007:a text message that is not UTF-8\n")
#define TOO_LONG S("bad 1009:message too long\n")
#define LONG_CONTROL S("bad 1002:a control frame is longer than 125 bytes\n")
#define MASKED S("bad 1002:a server's frames must not be masked\n")
#define NOMASK "\0\0\0\0" /* a mask that changes nothing keeps the vectors readable */

static bool from_server; /* the peer whose frames are read is a server */

static void append_text(struct buf *out, const char *text)
{
    buf_append(out, str_from(text));
}

/* One peer's bytes on their way through a reader, and the story they tell: a line for each whole
 * message, each control frame and a refusal, and for what is not whole at the end. */
struct peer {
    struct ws_reader reader;
    struct buf input;   /* not consumed yet */
    struct buf message; /* the pieces so far */
    struct buf story;
    bool refused;
};

static void tell(struct buf *story, const char *what, struct str text)
{
    append_text(story, what);
    buf_append(story, text);
    append_text(story, "\n");
}

static void tell_number(struct buf *story, const char *what, int64_t number, struct str text)
{
    append_text(story, what);
    buf_append_number(story, number);
    tell(story, ":", text);
}

static void tell_data(struct peer *peer, const struct ws_event *event)
{
    buf_append(&peer->message, event->payload);
    if (!event->last)
        return;
    tell(&peer->story, event->opcode == WS_TEXT ? "text:" : "binary:", str_of(&peer->message));
    peer->message.length = 0;
}

static void tell_event(struct peer *peer, const struct ws_event *event)
{
    if (event->type == WS_EVENT_DATA)
        tell_data(peer, event);
    else if (event->type == WS_EVENT_CONTROL && event->opcode == WS_CLOSE)
        tell_number(&peer->story, "close ", event->code, event->payload);
    else if (event->type == WS_EVENT_CONTROL)
        tell(&peer->story, event->opcode == WS_PING ? "ping:" : "pong:", event->payload);
    else if (event->type == WS_EVENT_BAD)
        tell_number(&peer->story, "bad ", event->code, str_from(event->error));
    peer->refused = event->type == WS_EVENT_BAD;
}

/* Reads the events in `length` bytes and returns how many of them they consumed. */
static size_t read_events(struct peer *peer, char *at, size_t length)
{
    size_t done = 0;
    struct ws_event event = {.type = WS_EVENT_DATA};

    while (event.type != WS_EVENT_MORE && !peer->refused) {
        size_t used = ws_read(&peer->reader, at + done, length - done, &event);
        const char *payload = event.payload.at;

        CHECK(used <= length - done);
        CHECK(!payload || (payload >= at && payload + event.payload.length <= at + length));
        done += used;
        tell_event(peer, &event);
    }
    CHECK(peer->refused || length - done < 14 + WS_CONTROL_MAX);
    return done;
}

/* Feeds bytes behind those not consumed yet, all in memory of exactly their size, in which a
 * sanitizer sees every byte read too far. */
static void bytes_arrive(struct peer *peer, struct str bytes)
{
    char *at;

    buf_append(&peer->input, bytes);
    at = exact_bytes(str_of(&peer->input));
    buf_consume(&peer->input, read_events(peer, at, peer->input.length));
    free(at);
}

static void tell_what_is_left(struct peer *peer)
{
    if (peer->refused)
        return;
    if (peer->reader.message)
        tell(&peer->story, "unfinished:", str_of(&peer->message));
    if (peer->input.length)
        tell_number(&peer->story, "unread ", (int64_t)peer->input.length, (struct str){0});
}

/* Feeds `first` bytes and then pieces of `step`, and compares the story. */
static bool tells(struct str bytes, uint32_t limit, size_t first, size_t step, struct str story)
{
    struct peer peer = {.reader = {.from_server = from_server, .limit = limit}};
    bool good;

    while (bytes.length && !peer.refused) {
        struct str piece = {bytes.at, first < bytes.length ? first : bytes.length};

        bytes_arrive(&peer, piece);
        bytes.at += piece.length;
        bytes.length -= piece.length;
        first = step;
    }
    tell_what_is_left(&peer);
    good = CHECK(str_equal(str_of(&peer.story), story));
    if (!good)
        printf("     %.*s\n", peer.story.length < 200 ? (int)peer.story.length : 200,
               peer.story.at ? peer.story.at : "");
    buf_free(&peer.input);
    buf_free(&peer.message);
    buf_free(&peer.story);
    return good;
}

/* Whole, byte by byte, and cut at every place. */
static bool always_tells(struct str bytes, uint32_t limit, struct str story)
{
    bool good = tells(bytes, limit, bytes.length, 1, story) && tells(bytes, limit, 1, 1, story);

    for (size_t first = 0; good && first < bytes.length; first++)
        good = tells(bytes, limit, first, bytes.length, story);
    return good;
}

static const struct {
    const char *name;
    struct str bytes, story;
} vectors[] = {
    {"5.2 nothing", S(""), S("")},
    {"5.2 half a header", S("\x81"), S("unread 1:\n")},
    {"5.2 a header without its mask's end", S("\x81\x80\1\2\3"), S("unread 5:\n")},
    {"5.2 reserved bit", S("\xc1\x80" NOMASK), S("bad 1002:a reserved bit is set\n")},
    {"5.2 opcode 3", S("\x83\x80" NOMASK), S("bad 1002:unknown opcode\n")},
    {"5.2 opcode 11", S("\x8b\x80" NOMASK), S("bad 1002:unknown opcode\n")},
    {"5.2 a length of 5 in 16 bits", S("\x82\xfe\0\5" NOMASK "hello"),
     S("bad 1002:a length not in its shortest form\n")},
    {"5.3 not masked", S("\x81\x05Hello"), S("bad 1002:a client's frames must be masked\n")},
    {"5.3 not masked, known from two bytes", S("\x81\x05"),
     S("bad 1002:a client's frames must be masked\n")},
    {"5.3 an empty message has a mask too", S("\x81\x80\1\2\3\4"), S("text:\n")},
    {"5.4 two fragments", S("\x01\x83" NOMASK "Hel\x80\x82" NOMASK "lo"), S("text:Hello\n")},
    {"5.4 each fragment has its mask", S("\x02\x85\1\2\3\4abcde\0\x83\2\2\2\2abc\x80\x81\3\3\3\3a"),
     S("binary:````dc`ab\n")},
    {"5.4 empty fragments",
     S("\x01\x80" NOMASK "\0\x80" NOMASK "\0\x81" NOMASK "a\0\x80" NOMASK "\x80\x80" NOMASK
       "\x81\x81" NOMASK "b"),
     S("text:a\ntext:b\n")},
    {"5.4 nothing but empty fragments", S("\x02\x80" NOMASK "\x80\x80" NOMASK), S("binary:\n")},
    {"5.4 not finished", S("\x01\x83" NOMASK "Hel\0\x82" NOMASK "l"), S("unfinished:Hell\n")},
    {"5.4 nothing to continue", S("\x80\x80" NOMASK), S("bad 1002:nothing to continue\n")},
    {"5.4 nothing left to continue", S("\x81\x81" NOMASK "a\0\x80" NOMASK),
     S("text:a\nbad 1002:nothing to continue\n")},
    {"5.4 a text inside a text", S("\x01\x81" NOMASK "a\x81\x81" NOMASK "b"),
     S("bad 1002:a new message before the last one's end\n")},
    {"5.4 a binary inside a text", S("\x01\x80" NOMASK "\x02\x80" NOMASK),
     S("bad 1002:a new message before the last one's end\n")},
    {"5.4 control frames between fragments",
     S("\x01\x83\1\1\1\1abc\x89\x82\2\2\2\2hi\x8a\x80" NOMASK "\x80\x82\3\3\3\3ab"),
     S("ping:jk\npong:\ntext:`cbba\n")},
    {"5.4 a close between fragments", S("\x01\x81" NOMASK "a\x88\x80" NOMASK),
     S("close 1005:\nunfinished:a\n")},
    {"5.5 a fragmented ping", S("\x09\x80" NOMASK), S("bad 1002:a control frame is fragmented\n")},
    {"5.5 a ping of 126 bytes", S("\x89\xfe\0\x7e" NOMASK), LONG_CONTROL},
    {"5.5 a ping of 5 bytes in 16 bits", S("\x89\xfe\0\5" NOMASK "hello"), LONG_CONTROL},
    {"5.5 a close of 5 bytes in 64 bits", S("\x88\xff\0\0\0\0\0\0\0\5" NOMASK "hello"),
     LONG_CONTROL},
    {"5.5.1 a close without a code", S("\x88\x80" NOMASK), S("close 1005:\n")},
    {"5.5.1 a close with a code", S("\x88\x82" NOMASK "\x03\xe8"), S("close 1000:\n")},
    {"5.5.1 a close with a reason", S("\x88\x85\1\2\3\4\x0e\xa2gdd"), S("close 4000:d`e\n")},
    {"5.5.1 a reason in UTF-8", S("\x88\x84" NOMASK "\x03\xe9\xc3\xa4"),
     S("close 1001:\xc3\xa4\n")},
    {"5.5.1 half a code", S("\x88\x81" NOMASK "\x03"),
     S("bad 1002:a close frame with half a code\n")},
    {"5.5.1 a reason that is not UTF-8", S("\x88\x83" NOMASK "\x03\xe8\xff"),
     S("bad 1007:a close reason that is not UTF-8\n")},
    {"5.5.1 a reason that ends inside a character", S("\x88\x83" NOMASK "\x03\xe8\xc3"),
     S("bad 1007:a close reason that is not UTF-8\n")},
    {"5.5.2 an empty ping", S("\x89\x80" NOMASK), S("ping:\n")},
    {"5.5.2 a ping of any bytes", S("\x89\x83" NOMASK "\0\xff\n"), S("ping:\0\xff\n\n")},
    {"5.5.2 a ping that is not whole", S("\x89\x83" NOMASK "ab"), S("unread 8:\n")},
    {"5.5.3 a pong that nobody asked for", S("\x8a\x81" NOMASK "a"), S("pong:a\n")},
    {"5.6 two messages", S("\x81\x81" NOMASK "a\x82\x81" NOMASK "\xff"),
     S("text:a\nbinary:\xff\n")},
    {"5.7 a masked text", S("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), S("text:Hello\n")},
    {"5.7 a masked pong", S("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), S("pong:Hello\n")},
    {"8.1 a character in two frames", S("\x01\x81" NOMASK "\xc3\x80\x81" NOMASK "\xa4"),
     S("text:\xc3\xa4\n")},
    {"8.1 a ping inside a character",
     S("\x01\x82" NOMASK "\xe2\x82\x89\x81" NOMASK "\xff\x80\x81" NOMASK "\xac"),
     S("ping:\xff\ntext:\xe2\x82\xac\n")},
    {"8.1 a character that goes on wrongly in the next frame",
     S("\x01\x81" NOMASK "\xe0\x80\x82" NOMASK "\x80\x80"), NOT_UTF8},
    {"8.1 a message that ends inside a character", S("\x81\x81" NOMASK "\xc3"), NOT_UTF8},
    {"8.1 an empty last frame inside a character", S("\x01\x81" NOMASK "\xc3\x80\x80" NOMASK),
     NOT_UTF8},
    {"8.1 a message begins anew", S("\x81\x81" NOMASK "a\x81\x81" NOMASK "\xa4"),
     S("text:a\nbad 1007:a text message that is not UTF-8\n")},
};

static void reads_vectors(void)
{
    for (size_t i = 0; i < COUNT(vectors); i++)
        if (!always_tells(vectors[i].bytes, LIMIT, vectors[i].story))
            printf("     in %s\n", vectors[i].name);
}

/* Appends a frame with this first byte and its payload masked. */
static void append_frame(struct buf *out, unsigned first, struct str payload, const char *mask)
{
    char header[WS_HEADER_MAX];
    size_t length = ws_write_header(header, WS_BINARY, payload.length);

    header[0] = (char)first;
    header[1] = (char)(header[1] | 0x80);
    buf_append(out, (struct str){header, length});
    buf_append(out, (struct str){mask, 4});
    for (size_t i = 0; i < payload.length; i++)
        buf_append(out, (struct str){(char[]){(char)(payload.at[i] ^ mask[i & 3])}, 1});
}

/* 5.2 and 5.4: every first and second byte, outside and inside a message. */
static void judges_every_start(void)
{
    struct ws_event event;
    struct peer inside = {.reader = {.limit = LIMIT}}, outside = inside;
    bool good = true;

    bytes_arrive(&inside, STR("\x01\x81" NOMASK "a"));
    for (unsigned both = 0; good && both < 2 * 0x10000; both++) {
        bool in_message = both >> 16, final = both & 0x8000, masked = both & 0x80;
        unsigned opcode = both >> 8 & 15, length = both & 0x7f;
        bool data = in_message ? opcode == 0 : opcode == 1 || opcode == 2;
        bool control = opcode >= 8 && opcode <= 10 && final && length <= 125;
        bool allowed = (both & 0x7000) == 0 && masked && (data || control);
        struct ws_reader reader = in_message ? inside.reader : outside.reader;
        char start[2] = {(char)(both >> 8 & 0xff), (char)(both & 0xff)};
        size_t used = ws_read(&reader, start, 2, &event);

        good = CHECK(used == 0) && CHECK(event.type == (allowed ? WS_EVENT_MORE : WS_EVENT_BAD)) &&
               CHECK(allowed || (event.code == WS_CLOSE_PROTOCOL && event.error));
        if (!good)
            printf("     at %05x\n", both);
    }
    buf_free(&inside.input);
    buf_free(&inside.message);
}

static void fill(struct buf *buf, size_t length)
{
    for (size_t i = 0; i < length; i++)
        buf_append(buf, (struct str){(char[]){(char)(i * 7 + i / 251)}, 1});
}

/* 5.2: "the minimal number of bytes MUST be used", and the highest bit of 64 is 0. */
static void judges_every_form_of_length(void)
{
    static const struct {
        uint64_t length;
        bool in_16, in_64;
    } forms[] = {
        {0, false, false},          {1, false, false},          {125, false, false},
        {126, true, false},         {127, true, false},         {255, true, false},
        {256, true, false},         {65535, true, false},       {65536, false, true},
        {UINT32_MAX, false, true},  {1ull << 32, false, true},  {INT64_MAX, false, true},
        {1ull << 63, false, false}, {UINT64_MAX, false, false},
    };

    for (size_t i = 0; i < 2 * COUNT(forms); i++) {
        bool wide = i >= COUNT(forms);
        uint64_t length = forms[i % COUNT(forms)].length;
        bool allowed = wide ? forms[i % COUNT(forms)].in_64 : forms[i % COUNT(forms)].in_16;
        size_t digits = wide ? 8 : 2;
        char header[14] = {(char)0x82, (char)(wide ? 0xff : 0xfe)};
        struct str story = STR("bad 1002:a length not in its shortest form\n");

        if (!wide && length > 0xffff)
            continue;
        for (size_t k = 0; k < digits; k++)
            header[2 + k] = (char)(length >> 8 * (digits - 1 - k) & 0xff);
        if (allowed && length > UINT32_MAX)
            story = STR("bad 1009:message too long\n");
        else if (allowed)
            story = STR("unfinished:\n");
        if (!always_tells((struct str){header, 2 + digits + 4}, UINT32_MAX, story))
            printf("     with length %llu in %zu bytes\n", (unsigned long long)length, digits);
    }
}

/* 10.4: a length past the limit is refused before its payload comes, one within it is not. */
static void limits_messages(void)
{
    static const struct {
        const char *name;
        struct str bytes, story;
    } limits[] = {
        {"1,000 announced", S("\x82\xfe\x03\xe8" NOMASK), S("unfinished:\n")},
        {"1,001 announced", S("\x82\xfe\x03\xe9" NOMASK), TOO_LONG},
        {"65,536 announced", S("\x82\xff\0\0\0\0\0\1\0\0" NOMASK), TOO_LONG},
        {"4 GiB announced", S("\x82\xff\0\0\0\1\0\0\0\0" NOMASK), TOO_LONG},
        {"2 + 998 announced", S("\x02\x82" NOMASK "ab\x80\xfe\x03\xe6" NOMASK),
         S("unfinished:ab\n")},
        {"2 + 999 announced", S("\x02\x82" NOMASK "ab\x80\xfe\x03\xe7" NOMASK), TOO_LONG},
        {"2 + 1 + 998 announced", S("\x02\x82" NOMASK "ab\0\x81" NOMASK "c\x80\xfe\x03\xe6" NOMASK),
         TOO_LONG},
        {"control frames do not count",
         S("\x02\x82" NOMASK "ab\x89\x82" NOMASK "hi\x80\xfe\x03\xe6" NOMASK),
         S("ping:hi\nunfinished:ab\n")},
        {"each message counts anew", S("\x82\x82" NOMASK "ab\x82\xfe\x03\xe8" NOMASK),
         S("binary:ab\nunfinished:\n")},
    };

    for (size_t i = 0; i < COUNT(limits); i++)
        if (!always_tells(limits[i].bytes, 1000, limits[i].story))
            printf("     in %s\n", limits[i].name);
    CHECK(always_tells(STR("\x82\x80" NOMASK "\x82\x81" NOMASK "a"), 0,
                       STR("binary:\nbad 1009:message too long\n")));
}

/* What is UTF-8 is tested with buf.c. */
static const struct {
    struct str bytes;
    size_t good; /* bytes before the first bad one */
} texts[] = {
    {S("\x80"), 0},
    {S("\xc2\x41"), 1},
    {S("\xe0\x9f\xbf"), 1},
    {S("\xed\xa0\x80"), 1},
    {S("\xe0\xa0\x41"), 2},
    {S("\xf1\x80\x80\x41"), 3},
    {S("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"), 12},
    {S("12345678\xff"), 8},
    {S("1234567\xc3\xa4\06112345678\x80"), 18},
    {S("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"), 12},
    {S("\xf0\x90\x80\x80\xf1\x80\x80\x80\xf4\x8f\xbf\xbf"), 12},
    {S("\0\x7f"), 2},
};

/* 8.1: a bad byte is seen when it comes, not when its message ends; frames change nothing. */
static void sees_the_first_bad_byte(void)
{
    static const struct str refusal = NOT_UTF8;

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct str text = texts[i].bytes;
        struct buf whole = {0}, single = {0}, story = {0};
        bool good = true;

        append_text(&whole, "\x01\xe4\1\2\3\4"); /* announces 100 bytes */
        for (size_t n = 0; good && n < text.length; n++) {
            bool bad = n >= texts[i].good;

            buf_append(&whole, (struct str){(char[]){(char)(text.at[n] ^ "\1\2\3\4"[n & 3])}, 1});
            append_frame(&single, n == 0 ? 1 : 0, (struct str){text.at + n, 1}, "\5\6\7\x08");
            story.length = 0;
            tell(&story, "unfinished:", (struct str){text.at, n + 1});
            good = always_tells(str_of(&whole), LIMIT, bad ? refusal : str_of(&story)) &&
                   always_tells(str_of(&single), LIMIT, bad ? refusal : str_of(&story));
        }
        if (!good)
            printf("     in row %zu of texts\n", i);
        buf_free(&whole);
        buf_free(&single);
        buf_free(&story);
    }
}

/* 7.4: what may stand in a close frame, with the codes that IANA's registry has added. */
static void judges_every_close_code(void)
{
    for (unsigned code = 0; code < 0x10000; code++) {
        bool allowed = (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
                       (code >= 3000 && code <= 4999);
        char bytes[] = {
            (char)0x88, (char)0x82, 1, 2, 3, 4, (char)(code >> 8 ^ 1), (char)((code & 0xff) ^ 2)};
        struct ws_reader reader = {.limit = LIMIT};
        struct ws_event event;
        size_t used = ws_read(&reader, bytes, sizeof bytes, &event);

        if (!(allowed ? CHECK(used == sizeof bytes && event.type == WS_EVENT_CONTROL &&
                              event.opcode == WS_CLOSE && event.code == code)
                      : CHECK(event.type == WS_EVENT_BAD && event.code == WS_CLOSE_PROTOCOL)))
            printf("     with code %u\n", code);
    }
}

/* 5.5: control frames hold up to 125 bytes, a close reason up to 123. */
static void reads_the_longest_control_frames(void)
{
    struct buf payload = {0}, bytes = {0}, story = {0};

    while (payload.length < WS_CONTROL_MAX)
        append_text(&payload, "\x0c"); /* 0x0c0c is the close code 3084 */
    append_frame(&bytes, 0x89, str_of(&payload), "\x37\xfa\x21\x3d");
    append_frame(&bytes, 0x8a, str_of(&payload), NOMASK);
    append_frame(&bytes, 0x88, str_of(&payload), "\x37\xfa\x21\x3d");
    tell(&story, "ping:", str_of(&payload));
    tell(&story, "pong:", str_of(&payload));
    tell_number(&story, "close ", 0x0c0c, (struct str){payload.at, WS_CONTROL_MAX - 2});
    CHECK(always_tells(str_of(&bytes), LIMIT, str_of(&story)));
    buf_free(&payload);
    buf_free(&bytes);
    buf_free(&story);
}

#define GET "GET /ws HTTP/1.1\r\nHost: a\r\n"
#define UPGRADE "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"

/* Upgrades: each of `middles`, separated by |, stands between `before` and an empty line. */
static const struct {
    int status;
    const char *before, *middles;
} upgrades[] = {
    {0, GET UPGRADE KEY VERSION,
     "|Content-Length: 0\r\n|Origin: http://b\r\nSec-WebSocket-Protocol: chat\r\n"
     "Sec-WebSocket-Extensions: permessage-deflate\r\n"},
    {0, GET KEY VERSION,
     "upgrade: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n|"
     "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n"},
    /* 4.2.1, 1: a GET of HTTP/1.1, without a body */
    {400, "",
     "POST /ws HTTP/1.1\r\nHost: a\r\n" UPGRADE KEY VERSION
     "|get /ws HTTP/1.1\r\nHost: a\r\n" UPGRADE KEY VERSION
     "|GET /ws HTTP/1.0\r\nHost: a\r\n" UPGRADE KEY VERSION},
    {400, GET UPGRADE KEY VERSION, "Content-Length: 1\r\n|Transfer-Encoding: chunked\r\n"},
    /* 3 and 4: Upgrade and Connection */
    {400, GET KEY VERSION,
     "Connection: Upgrade\r\n|Upgrade: websockets\r\nConnection: Upgrade\r\n|"
     "Upgrade: websocket\r\n|Upgrade: websocket\r\nConnection: keep-alive\r\n"},
    /* 5: the key */
    {400, GET UPGRADE VERSION,
     "|" KEY KEY "|Sec-WebSocket-Key:\r\n|Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===\r\n|"
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n|"
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=\r\n|"
     "Sec-WebSocket-Key: dGhlIHNhbXBs-SBub25jZQ==\r\n|"
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ==\r\n|"
     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA==\r\n"},
    /* 6: the version */
    {400, GET UPGRADE KEY, "|" VERSION VERSION},
    {426, GET UPGRADE KEY,
     "Sec-WebSocket-Version: 8\r\n|Sec-WebSocket-Version: 14\r\n|"
     "Sec-WebSocket-Version: 8, 13\r\n|Sec-WebSocket-Version: 013\r\n|"
     "Sec-WebSocket-Version:\r\n"},
};

static void check_upgrade(struct str bytes, int wanted)
{
    struct http_request request;
    const char *error = NULL;
    struct str key = {0};
    int status;

    CHECK(http_parse_request(bytes, 8192, &request) == HTTP_OK);
    status = ws_check_upgrade(&request, &key, &error);
    if (!CHECK(status == wanted) || !CHECK((error != NULL) == (status != 0)) ||
        !CHECK(status || str_equal(key, STR("dGhlIHNhbXBsZSBub25jZQ=="))))
        printf("     with %.*s\n", (int)bytes.length, bytes.at);
}

static void checks_upgrades(void)
{
    for (size_t i = 0; i < COUNT(upgrades); i++)
        for (struct str rest = str_from(upgrades[i].middles); rest.at;) {
            struct buf bytes = {0};

            append_text(&bytes, upgrades[i].before);
            buf_append(&bytes, str_cut(&rest, '|'));
            append_text(&bytes, "\r\n");
            check_upgrade(str_of(&bytes), upgrades[i].status);
            buf_free(&bytes);
        }
}

/* 1.3 and 4.2.2. */
static void answers_upgrades(void)
{
    struct buf out = {0};

    CHECK(ws_write_upgrade(&out, STR("dGhlIHNhbXBsZSBub25jZQ=="), (struct str){0}));
    CHECK(
        str_equal(str_of(&out), STR("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                    "Connection: Upgrade\r\n"
                                    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")));
    buf_free(&out);
    CHECK(ws_write_upgrade(&out, STR("dGhlIHNhbXBsZSBub25jZQ=="), STR("chat")));
    CHECK(str_equal(str_of(&out), STR("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                                      "Connection: Upgrade\r\n"
                                      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
                                      "Sec-WebSocket-Protocol: chat\r\n\r\n")));
    for (size_t limit = 1; limit < out.length; limit++) {
        struct buf full = {.limit = limit};

        CHECK(!ws_write_upgrade(&full, STR("dGhlIHNhbXBsZSBub25jZQ=="), STR("chat")));
        buf_free(&full);
    }
    buf_free(&out);
}

/* Of all that the fields of one name list the first counts that is not empty. */
static void the_first_protocol_is_found(void)
{
    static const struct {
        const char *fields, *first;
    } rows[] = {
        {"", ""},
        {"Sec-WebSocket-Protocol: a\r\n", "a"},
        {"Sec-WebSocket-Protocol: a, b\r\n", "a"},
        {"sec-websocket-PROTOCOL:\ta\t,b\r\n", "a"},
        {"Sec-WebSocket-Protocol:  ,a\r\n", "a"},
        {"Sec-WebSocket-Protocol: , ,, a b ,c\r\n", "a b"},
        {"Sec-WebSocket-Protocol:\r\n", ""},
        {"Sec-WebSocket-Protocol: ,\r\n", ""},
        {"Sec-WebSocket-Protocol: , \t,\r\n", ""},
        {"Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: b\r\n", "a"},
        {"Sec-WebSocket-Protocol:\r\nX: y\r\nSec-WebSocket-Protocol: ,b\r\n", "b"},
        {"Sec-WebSocket-Protocols: a\r\n", ""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[400];
        struct http_request request;
        struct str bytes, first;

        snprintf(text, sizeof text, GET "%s\r\n", rows[i].fields);
        bytes = exact_copy(str_from(text));
        CHECK(http_parse_request(bytes, 8192, &request) == HTTP_OK);
        first = ws_offered_protocol(&request);
        if (!CHECK(str_equal(first, str_from(rows[i].first))))
            printf("     in row %zu: %.*s\n", i, (int)first.length, first.at ? first.at : "");
        free_copy(bytes);
    }
}

static void writes_headers(void)
{
    static const struct {
        enum ws_opcode opcode;
        uint64_t length;
        struct str bytes;
    } headers[] = {
        {WS_TEXT, 0, S("\x81\0")},
        {WS_TEXT, 5, S("\x81\x05")}, /* these two, 256 and 65,536 are of section 5.7 */
        {WS_PING, 5, S("\x89\x05")},
        {WS_PONG, 125, S("\x8a\x7d")},
        {WS_BINARY, 126, S("\x82\x7e\0\x7e")},
        {WS_BINARY, 127, S("\x82\x7e\0\x7f")},
        {WS_BINARY, 256, S("\x82\x7e\1\0")},
        {WS_TEXT, 65535, S("\x81\x7e\xff\xff")},
        {WS_BINARY, 65536, S("\x82\x7f\0\0\0\0\0\1\0\0")},
        {WS_TEXT, 0x0123456789abcdef, S("\x81\x7f\x01\x23\x45\x67\x89\xab\xcd\xef")},
        {WS_TEXT, INT64_MAX, S("\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")},
    };

    for (size_t i = 0; i < COUNT(headers); i++) {
        char out[WS_HEADER_MAX];
        size_t length = ws_write_header(out, headers[i].opcode, headers[i].length);

        if (!CHECK(str_equal((struct str){out, length}, headers[i].bytes)))
            printf("     in row %zu of headers\n", i);
    }
}

static bool is_message(struct rcbuf *message, struct str bytes)
{
    bool good = message && str_equal((struct str){message->bytes, message->length}, bytes);

    rcbuf_release(message);
    return good;
}

static void writes_closes(void)
{
    char reason[124];

    memset(reason, 'r', sizeof reason);
    CHECK(is_message(ws_close_frame(WS_CLOSE_NORMAL, (struct str){0}), STR("\x88\x02\x03\xe8")));
    CHECK(is_message(ws_close_frame(WS_CLOSE_PROTOCOL, STR("why")), STR("\x88\x05\x03\xeawhy")));
    CHECK(is_message(ws_close_frame(4999, STR("\xc3\xa4")), STR("\x88\x04\x13\x87\xc3\xa4")));
    CHECK(is_message(ws_close_frame(WS_CLOSE_NO_STATUS, STR("is not written")), STR("\x88\0")));
    for (size_t n = 122; n <= sizeof reason; n++) {
        struct rcbuf *frame = ws_close_frame(3000, (struct str){reason, n});
        size_t written = n < 123 ? n : 123;

        CHECK(frame && frame->length == 4 + written && frame->bytes[1] == (char)(2 + written));
        CHECK(memcmp(frame->bytes + 2, "\x0b\xb8", 2) == 0 &&
              memcmp(frame->bytes + 4, reason, written) == 0);
        rcbuf_release(frame);
    }
}

/* --- the frames of servers ------------------------------------------------------------------- */

static const struct {
    const char *name;
    struct str bytes, story;
} server_vectors[] = {
    {"5.1 masked", S("\x81\x85" NOMASK "Hello"), MASKED},
    {"5.1 masked, known from two bytes", S("\x81\x85"), MASKED},
    {"5.1 a masked ping", S("\x89\x80" NOMASK), MASKED},
    {"5.1 a masked close behind a text", S("\x81\1a\x88\x80" NOMASK),
     S("text:a\nbad 1002:a server's frames must not be masked\n")},
    {"5.2 a header without its length's end", S("\x82\x7e\1"), S("unread 3:\n")},
    {"5.2 reserved bit", S("\x91\0"), S("bad 1002:a reserved bit is set\n")},
    {"5.4 control frames between fragments", S("\x01\3abc\x89\2hi\x8a\0\x80\2de"),
     S("ping:hi\npong:\ntext:abcde\n")},
    {"5.5.1 a close with a reason", S("\x88\5\x0f\xa0why"), S("close 4000:why\n")},
    {"5.5.2 a ping whose payload would be a mask", S("\x89\4\1\2\3\4"), S("ping:\1\2\3\4\n")},
    {"5.6 two messages", S("\x81\1a\x82\1\xff"), S("text:a\nbinary:\xff\n")},
    {"8.1 a character in two frames", S("\x01\1\xc3\x80\1\xa4"), S("text:\xc3\xa4\n")},
    {"10.4 too long", S("\x82\x7f\0\0\0\0\0\2\0\0"), TOO_LONG},
};

static void reads_server_vectors(void)
{
    from_server = true;
    for (size_t i = 0; i < COUNT(server_vectors); i++)
        if (!always_tells(server_vectors[i].bytes, LIMIT, server_vectors[i].story))
            printf("     in %s\n", server_vectors[i].name);
    from_server = false;
}

/* 5.3, and 5.7 for the second. */
static void writes_masked_frames(void)
{
    static const uint8_t mask[4] = {0x37, 0xfa, 0x21, 0x3d}, none[4] = {0};

    CHECK(is_message(ws_masked_frame(WS_TEXT, (struct str){0}, mask),
                     STR("\x81\x80\x37\xfa\x21\x3d")));
    CHECK(is_message(ws_masked_frame(WS_TEXT, STR("Hello"), mask),
                     STR("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")));
    CHECK(is_message(ws_masked_frame(WS_PONG, STR("Hello"), mask),
                     STR("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58")));
    CHECK(is_message(ws_masked_frame(WS_BINARY, STR("\0\xff\0\xff\0"), none),
                     STR("\x82\x85" NOMASK "\0\xff\0\xff\0")));
}

/* A frame of every kind of length, twice, with a mask or from a server. Short ones are cut at every
 * place, long ones at the ends of header and payload. */
static void check_written(size_t length, const uint8_t *mask)
{
    struct buf payload = {0}, same = {0}, bytes = {0}, story = {0};
    struct rcbuf *frame;
    bool good;

    fill(&payload, length);
    fill(&same, length);
    frame = mask ? ws_masked_frame(WS_BINARY, str_of(&payload), mask)
                 : ws_frame(WS_BINARY, str_of(&payload));
    if (!frame)
        abort();
    CHECK(str_equal(str_of(&payload), str_of(&same)));
    CHECK(frame->length == length + (mask ? 6 : 2) +
                               (length > 65535 ? 8u
                                : length > 125 ? 2u
                                               : 0u));
    for (int i = 0; i < 2; i++) {
        buf_append(&bytes, (struct str){frame->bytes, frame->length});
        tell(&story, "binary:", str_of(&payload));
    }
    from_server = !mask;
    good = length <= 130 ? always_tells(str_of(&bytes), LIMIT, str_of(&story))
                         : tells(str_of(&bytes), LIMIT, 1, 1, str_of(&story)) &&
                               tells(str_of(&bytes), LIMIT, 1000, 1021, str_of(&story));
    for (size_t cut = 0; good && cut < 20 && cut < bytes.length; cut++)
        good = tells(str_of(&bytes), LIMIT, cut, bytes.length, str_of(&story)) &&
               tells(str_of(&bytes), LIMIT, bytes.length - cut, cut, str_of(&story));
    from_server = false;
    if (!good)
        printf("     with length %zu\n", length);
    rcbuf_release(frame);
    buf_free(&payload);
    buf_free(&same);
    buf_free(&bytes);
    buf_free(&story);
}

static void reads_what_it_writes(void)
{
    static const uint8_t masks[][4] = {{0x37, 0xfa, 0x21, 0x3d}, {0xff, 1, 0x80, 0x7f}, {0}};
    static const size_t lengths[] = {30, 122, 123, 124, 125, 126, 127, 130, 65535, 65536};

    for (size_t i = 0; i < 20 + COUNT(lengths); i++)
        for (size_t mask = 0; mask <= COUNT(masks); mask++)
            check_written(i < 20 ? i : lengths[i - 20], mask < COUNT(masks) ? masks[mask] : NULL);
}

int main(void)
{
    test_run("ws 5.2-5.7, 8.1: tells the same story of a vector at every cut", reads_vectors);
    test_run("ws 5.2: judges every first and second byte", judges_every_start);
    test_run("ws 5.2: refuses every form of a length but the shortest",
             judges_every_form_of_length);
    test_run("ws 5.5: reads the longest control frames", reads_the_longest_control_frames);
    test_run("ws 7.4: judges every close code", judges_every_close_code);
    test_run("ws 8.1: sees the first byte that is not UTF-8", sees_the_first_bad_byte);
    test_run("ws 10.4: refuses a length past the limit before its payload", limits_messages);
    test_run("ws 4.2.1: checks upgrades", checks_upgrades);
    test_run("ws 1.3, 4.2.2: answers upgrades byte for byte", answers_upgrades);
    test_run("ws 1.9: finds the first subprotocol offered", the_first_protocol_is_found);
    test_run("ws 5.2: writes headers byte for byte", writes_headers);
    test_run("ws 5.5.1: writes close frames byte for byte", writes_closes);
    test_run("ws 5.1-5.3: reads what it writes, of every kind of length", reads_what_it_writes);
    test_run("ws 5.1: tells the same story of a server's frames at every cut",
             reads_server_vectors);
    test_run("ws 5.3: writes masked frames byte for byte", writes_masked_frames);
    return test_finish();
}
