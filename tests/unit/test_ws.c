/* test_ws.c - WebSocket (RFC 6455): vectors named after its sections, each fed whole, byte by byte
 * and cut at every place, which must all tell the same story; and what is written, byte for byte.
 */
#include "ws.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

#define LIMIT 100000
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
    size_t used, length;
    char *at;

    buf_append(&peer->input, bytes);
    length = peer->input.length;
    at = malloc(length);
    if (!at && length)
        abort();
    if (length)
        memcpy(at, peer->input.at, length);
    used = read_events(peer, at, length);
    buf_consume(&peer->input, used);
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
    {"5.2 nothing", STR_INIT(""), STR_INIT("")},
    {"5.2 half a header", STR_INIT("\x81"), STR_INIT("unread 1:\n")},
    {"5.2 a header without its mask's end", STR_INIT("\x81\x80\1\2\3"), STR_INIT("unread 5:\n")},
    {"5.2 reserved bit", STR_INIT("\xc1\x80" NOMASK), STR_INIT("bad 1002:a reserved bit is set\n")},
    {"5.2 opcode 3", STR_INIT("\x83\x80" NOMASK), STR_INIT("bad 1002:unknown opcode\n")},
    {"5.2 opcode 11", STR_INIT("\x8b\x80" NOMASK), STR_INIT("bad 1002:unknown opcode\n")},
    {"5.2 a length of 5 in 16 bits", STR_INIT("\x82\xfe\0\5" NOMASK "hello"),
     STR_INIT("bad 1002:a length not in its shortest form\n")},
    {"5.3 not masked", STR_INIT("\x81\x05Hello"),
     STR_INIT("bad 1002:a client's frames must be masked\n")},
    {"5.3 not masked, known from two bytes", STR_INIT("\x81\x05"),
     STR_INIT("bad 1002:a client's frames must be masked\n")},
    {"5.3 an empty message has a mask too", STR_INIT("\x81\x80\1\2\3\4"), STR_INIT("text:\n")},
    {"5.4 two fragments", STR_INIT("\x01\x83" NOMASK "Hel\x80\x82" NOMASK "lo"),
     STR_INIT("text:Hello\n")},
    {"5.4 each fragment has its mask",
     STR_INIT("\x02\x85\1\2\3\4abcde\0\x83\2\2\2\2abc\x80\x81\3\3\3\3a"),
     STR_INIT("binary:````dc`ab\n")},
    {"5.4 empty fragments",
     STR_INIT("\x01\x80" NOMASK "\0\x80" NOMASK "\0\x81" NOMASK "a\0\x80" NOMASK "\x80\x80" NOMASK
              "\x81\x81" NOMASK "b"),
     STR_INIT("text:a\ntext:b\n")},
    {"5.4 nothing but empty fragments", STR_INIT("\x02\x80" NOMASK "\x80\x80" NOMASK),
     STR_INIT("binary:\n")},
    {"5.4 not finished", STR_INIT("\x01\x83" NOMASK "Hel\0\x82" NOMASK "l"),
     STR_INIT("unfinished:Hell\n")},
    {"5.4 nothing to continue", STR_INIT("\x80\x80" NOMASK),
     STR_INIT("bad 1002:nothing to continue\n")},
    {"5.4 nothing left to continue", STR_INIT("\x81\x81" NOMASK "a\0\x80" NOMASK),
     STR_INIT("text:a\nbad 1002:nothing to continue\n")},
    {"5.4 a text inside a text", STR_INIT("\x01\x81" NOMASK "a\x81\x81" NOMASK "b"),
     STR_INIT("bad 1002:a new message before the last one's end\n")},
    {"5.4 a binary inside a text", STR_INIT("\x01\x80" NOMASK "\x02\x80" NOMASK),
     STR_INIT("bad 1002:a new message before the last one's end\n")},
    {"5.4 control frames between fragments",
     STR_INIT("\x01\x83\1\1\1\1abc\x89\x82\2\2\2\2hi\x8a\x80" NOMASK "\x80\x82\3\3\3\3ab"),
     STR_INIT("ping:jk\npong:\ntext:`cbba\n")},
    {"5.4 a close between fragments", STR_INIT("\x01\x81" NOMASK "a\x88\x80" NOMASK),
     STR_INIT("close 1005:\nunfinished:a\n")},
    {"5.5 a fragmented ping", STR_INIT("\x09\x80" NOMASK),
     STR_INIT("bad 1002:a control frame is fragmented\n")},
    {"5.5 a ping of 126 bytes", STR_INIT("\x89\xfe\0\x7e" NOMASK),
     STR_INIT("bad 1002:a control frame is longer than 125 bytes\n")},
    {"5.5 a ping of 5 bytes in 16 bits", STR_INIT("\x89\xfe\0\5" NOMASK "hello"),
     STR_INIT("bad 1002:a control frame is longer than 125 bytes\n")},
    {"5.5 a close of 5 bytes in 64 bits", STR_INIT("\x88\xff\0\0\0\0\0\0\0\5" NOMASK "hello"),
     STR_INIT("bad 1002:a control frame is longer than 125 bytes\n")},
    {"5.5.1 a close without a code", STR_INIT("\x88\x80" NOMASK), STR_INIT("close 1005:\n")},
    {"5.5.1 a close with a code", STR_INIT("\x88\x82" NOMASK "\x03\xe8"),
     STR_INIT("close 1000:\n")},
    {"5.5.1 a close with a reason", STR_INIT("\x88\x85\1\2\3\4\x0e\xa2gdd"),
     STR_INIT("close 4000:d`e\n")},
    {"5.5.1 a reason in UTF-8", STR_INIT("\x88\x84" NOMASK "\x03\xe9\xc3\xa4"),
     STR_INIT("close 1001:\xc3\xa4\n")},
    {"5.5.1 half a code", STR_INIT("\x88\x81" NOMASK "\x03"),
     STR_INIT("bad 1002:a close frame with half a code\n")},
    {"5.5.1 a reason that is not UTF-8", STR_INIT("\x88\x83" NOMASK "\x03\xe8\xff"),
     STR_INIT("bad 1007:a close reason that is not UTF-8\n")},
    {"5.5.1 a reason that ends inside a character", STR_INIT("\x88\x83" NOMASK "\x03\xe8\xc3"),
     STR_INIT("bad 1007:a close reason that is not UTF-8\n")},
    {"5.5.2 an empty ping", STR_INIT("\x89\x80" NOMASK), STR_INIT("ping:\n")},
    {"5.5.2 a ping of any bytes", STR_INIT("\x89\x83" NOMASK "\0\xff\n"),
     STR_INIT("ping:\0\xff\n\n")},
    {"5.5.2 a ping that is not whole", STR_INIT("\x89\x83" NOMASK "ab"), STR_INIT("unread 8:\n")},
    {"5.5.3 a pong that nobody asked for", STR_INIT("\x8a\x81" NOMASK "a"), STR_INIT("pong:a\n")},
    {"5.6 two messages", STR_INIT("\x81\x81" NOMASK "a\x82\x81" NOMASK "\xff"),
     STR_INIT("text:a\nbinary:\xff\n")},
    {"5.7 a masked text", STR_INIT("\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
     STR_INIT("text:Hello\n")},
    {"5.7 a masked pong", STR_INIT("\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"),
     STR_INIT("pong:Hello\n")},
    {"8.1 a character in two frames", STR_INIT("\x01\x81" NOMASK "\xc3\x80\x81" NOMASK "\xa4"),
     STR_INIT("text:\xc3\xa4\n")},
    {"8.1 a ping inside a character",
     STR_INIT("\x01\x82" NOMASK "\xe2\x82\x89\x81" NOMASK "\xff\x80\x81" NOMASK "\xac"),
     STR_INIT("ping:\xff\ntext:\xe2\x82\xac\n")},
    {"8.1 a character that goes on wrongly in the next frame",
     STR_INIT("\x01\x81" NOMASK "\xe0\x80\x82" NOMASK "\x80\x80"),
     STR_INIT("bad 1007:a text message that is not UTF-8\n")},
    {"8.1 a message that ends inside a character", STR_INIT("\x81\x81" NOMASK "\xc3"),
     STR_INIT("bad 1007:a text message that is not UTF-8\n")},
    {"8.1 an empty last frame inside a character",
     STR_INIT("\x01\x81" NOMASK "\xc3\x80\x80" NOMASK),
     STR_INIT("bad 1007:a text message that is not UTF-8\n")},
    {"8.1 a message begins anew", STR_INIT("\x81\x81" NOMASK "a\x81\x81" NOMASK "\xa4"),
     STR_INIT("text:a\nbad 1007:a text message that is not UTF-8\n")},
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

/* 5.2: each length in its shortest form, cut at the ends of the header and of the payload. */
static void reads_every_kind_of_length(void)
{
    static const size_t lengths[] = {0, 1, 125, 126, 127, 65535, 65536};

    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct buf payload = {0}, bytes = {0}, story = {0};
        bool good;

        fill(&payload, lengths[i]);
        append_frame(&bytes, 0x82, str_of(&payload), "\x37\xfa\x21\x3d");
        append_frame(&bytes, 0x89, STR("behind"), NOMASK);
        tell(&story, "binary:", str_of(&payload));
        append_text(&story, "ping:behind\n");
        good = tells(str_of(&bytes), LIMIT, bytes.length, 1, str_of(&story)) &&
               tells(str_of(&bytes), LIMIT, 1, 1, str_of(&story)) &&
               tells(str_of(&bytes), LIMIT, 1000, 1021, str_of(&story));
        for (size_t cut = 0; good && cut < 20 && cut < bytes.length; cut++)
            good = tells(str_of(&bytes), LIMIT, cut, bytes.length, str_of(&story)) &&
                   tells(str_of(&bytes), LIMIT, bytes.length - cut, cut, str_of(&story));
        if (!good)
            printf("     with length %zu\n", lengths[i]);
        buf_free(&payload);
        buf_free(&bytes);
        buf_free(&story);
    }
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
        {"1,000 announced", STR_INIT("\x82\xfe\x03\xe8" NOMASK), STR_INIT("unfinished:\n")},
        {"1,001 announced", STR_INIT("\x82\xfe\x03\xe9" NOMASK),
         STR_INIT("bad 1009:message too long\n")},
        {"65,536 announced", STR_INIT("\x82\xff\0\0\0\0\0\1\0\0" NOMASK),
         STR_INIT("bad 1009:message too long\n")},
        {"4 GiB announced", STR_INIT("\x82\xff\0\0\0\1\0\0\0\0" NOMASK),
         STR_INIT("bad 1009:message too long\n")},
        {"2 + 998 announced", STR_INIT("\x02\x82" NOMASK "ab\x80\xfe\x03\xe6" NOMASK),
         STR_INIT("unfinished:ab\n")},
        {"2 + 999 announced", STR_INIT("\x02\x82" NOMASK "ab\x80\xfe\x03\xe7" NOMASK),
         STR_INIT("bad 1009:message too long\n")},
        {"2 + 1 + 998 announced",
         STR_INIT("\x02\x82" NOMASK "ab\0\x81" NOMASK "c\x80\xfe\x03\xe6" NOMASK),
         STR_INIT("bad 1009:message too long\n")},
        {"control frames do not count",
         STR_INIT("\x02\x82" NOMASK "ab\x89\x82" NOMASK "hi\x80\xfe\x03\xe6" NOMASK),
         STR_INIT("ping:hi\nunfinished:ab\n")},
        {"each message counts anew", STR_INIT("\x82\x82" NOMASK "ab\x82\xfe\x03\xe8" NOMASK),
         STR_INIT("binary:ab\nunfinished:\n")},
    };

    for (size_t i = 0; i < COUNT(limits); i++)
        if (!always_tells(limits[i].bytes, 1000, limits[i].story))
            printf("     in %s\n", limits[i].name);
    CHECK(always_tells(STR("\x82\x80" NOMASK "\x82\x81" NOMASK "a"), 0,
                       STR("binary:\nbad 1009:message too long\n")));
}

static const struct {
    struct str bytes;
    size_t good; /* bytes before the first bad one */
} texts[] = {
    {STR_INIT("\x80"), 0},
    {STR_INIT("\xbf"), 0},
    {STR_INIT("\xc0\x80"), 0},
    {STR_INIT("\xc1\xbf"), 0},
    {STR_INIT("\xf5\x80\x80\x80"), 0},
    {STR_INIT("\xfe"), 0},
    {STR_INIT("\xff"), 0},
    {STR_INIT("\xc2\x41"), 1},
    {STR_INIT("\xc2\xc2"), 1},
    {STR_INIT("\xe0\x9f\xbf"), 1},
    {STR_INIT("\xed\xa0\x80"), 1}, /* a surrogate */
    {STR_INIT("\xed\xbf\xbf"), 1},
    {STR_INIT("\xf0\x8f\xbf\xbf"), 1},
    {STR_INIT("\xf4\x90\x80\x80"), 1}, /* past U+10FFFF */
    {STR_INIT("\xe0\xa0\x41"), 2},
    {STR_INIT("\xf1\x80\x80\x41"), 3},
    {STR_INIT("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80"), 12},
    {STR_INIT("12345678\xff"), 8},
    {STR_INIT("1234567\xc3"
              "12345678"),
     8},
    {STR_INIT("1234567\xc3\xa4"
              "12345678\x80"),
     17},
    /* nothing bad in it */
    {STR_INIT("\xc2\x80\xdf\xbf"), 4},
    {STR_INIT("\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf"), 12},
    {STR_INIT("\xf0\x90\x80\x80\xf1\x80\x80\x80\xf4\x8f\xbf\xbf"), 12},
    {STR_INIT("\0\x7f"), 2},
};

/* 8.1: a bad byte is seen when it comes, not when its message ends; frames change nothing. */
static void sees_the_first_bad_byte(void)
{
    static const struct str refusal = STR_INIT("bad 1007:a text message that is not UTF-8\n");

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

static const struct {
    struct str bytes;
    int status;
} upgrades[] = {
    {STR_INIT(GET UPGRADE KEY VERSION "\r\n"), 0},
    {STR_INIT(GET UPGRADE KEY VERSION "Origin: http://b\r\nSec-WebSocket-Protocol: chat\r\n"
                                      "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
     0},
    {STR_INIT(GET "upgrade: WebSocket\r\nconnection: keep-alive, UPGRADE\r\n" KEY VERSION "\r\n"),
     0},
    {STR_INIT(GET "Upgrade: h2c, websocket\r\nConnection: Upgrade\r\n" KEY VERSION "\r\n"), 0},
    {STR_INIT(GET UPGRADE KEY VERSION "Content-Length: 0\r\n\r\n"), 0},
    /* 4.2.1, 1: a GET of HTTP/1.1 */
    {STR_INIT("POST /ws HTTP/1.1\r\nHost: a\r\n" UPGRADE KEY VERSION "\r\n"), 400},
    {STR_INIT("get /ws HTTP/1.1\r\nHost: a\r\n" UPGRADE KEY VERSION "\r\n"), 400},
    {STR_INIT("GET /ws HTTP/1.0\r\nHost: a\r\n" UPGRADE KEY VERSION "\r\n"), 400},
    {STR_INIT(GET UPGRADE KEY VERSION "Content-Length: 1\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE KEY VERSION "Transfer-Encoding: chunked\r\n\r\n"), 400},
    /* 3 and 4: Upgrade and Connection */
    {STR_INIT(GET "Connection: Upgrade\r\n" KEY VERSION "\r\n"), 400},
    {STR_INIT(GET "Upgrade: websockets\r\nConnection: Upgrade\r\n" KEY VERSION "\r\n"), 400},
    {STR_INIT(GET "Upgrade: websocket\r\n" KEY VERSION "\r\n"), 400},
    {STR_INIT(GET "Upgrade: websocket\r\nConnection: keep-alive\r\n" KEY VERSION "\r\n"), 400},
    /* 5: the key */
    {STR_INIT(GET UPGRADE VERSION "\r\n"), 400},
    {STR_INIT(GET UPGRADE KEY KEY VERSION "\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key:\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=A\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQA=\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBs-SBub25jZQ==\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ==\r\n\r\n"), 400},
    {STR_INIT(GET UPGRADE VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQAA==\r\n\r\n"), 400},
    /* 6: the version */
    {STR_INIT(GET UPGRADE KEY "\r\n"), 400},
    {STR_INIT(GET UPGRADE KEY VERSION VERSION "\r\n"), 400},
    {STR_INIT(GET UPGRADE KEY "Sec-WebSocket-Version: 8\r\n\r\n"), 426},
    {STR_INIT(GET UPGRADE KEY "Sec-WebSocket-Version: 14\r\n\r\n"), 426},
    {STR_INIT(GET UPGRADE KEY "Sec-WebSocket-Version: 8, 13\r\n\r\n"), 426},
    {STR_INIT(GET UPGRADE KEY "Sec-WebSocket-Version: 013\r\n\r\n"), 426},
    {STR_INIT(GET UPGRADE KEY "Sec-WebSocket-Version:\r\n\r\n"), 426},
};

static void checks_upgrades(void)
{
    struct http_request request;

    for (size_t i = 0; i < COUNT(upgrades); i++) {
        const char *error = NULL;
        struct str key = {0};
        int status;
        bool good;

        CHECK(http_parse_request(upgrades[i].bytes, 8192, &request) == HTTP_OK);
        status = ws_check_upgrade(&request, &key, &error);
        good = CHECK(status == upgrades[i].status) && CHECK((error != NULL) == (status != 0)) &&
               CHECK(status || str_equal(key, STR("dGhlIHNhbXBsZSBub25jZQ==")));
        if (!good)
            printf("     in row %zu of upgrades\n", i);
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
        {WS_TEXT, 0, STR_INIT("\x81\0")},
        {WS_TEXT, 5, STR_INIT("\x81\x05")}, /* these two, 256 and 65,536 are of section 5.7 */
        {WS_PING, 5, STR_INIT("\x89\x05")},
        {WS_PONG, 125, STR_INIT("\x8a\x7d")},
        {WS_BINARY, 126, STR_INIT("\x82\x7e\0\x7e")},
        {WS_BINARY, 127, STR_INIT("\x82\x7e\0\x7f")},
        {WS_BINARY, 256, STR_INIT("\x82\x7e\1\0")},
        {WS_TEXT, 65535, STR_INIT("\x81\x7e\xff\xff")},
        {WS_BINARY, 65536, STR_INIT("\x82\x7f\0\0\0\0\0\1\0\0")},
        {WS_TEXT, 0x0123456789abcdef, STR_INIT("\x81\x7f\x01\x23\x45\x67\x89\xab\xcd\xef")},
        {WS_TEXT, INT64_MAX, STR_INIT("\x81\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")},
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

/* What is written here and masked is read as it was. */
static void reads_what_it_writes(void)
{
    static const char *const masks[] = {"\x37\xfa\x21\x3d", "\xff\1\x80\x7f"};

    for (size_t length = 1; length <= 130; length += length < 20 || length > 122 ? 1 : 17) {
        struct buf payload = {0}, bytes = {0}, story = {0};
        size_t half = length / 2;
        bool good;

        fill(&payload, length);
        append_frame(&bytes, 0x82, str_of(&payload), masks[0]);
        append_frame(&bytes, 0x02, (struct str){payload.at, half}, masks[0]);
        append_frame(&bytes, 0x80, (struct str){payload.at + half, length - half}, masks[1]);
        tell(&story, "binary:", str_of(&payload));
        tell(&story, "binary:", str_of(&payload));
        good = always_tells(str_of(&bytes), LIMIT, str_of(&story));
        if (!good)
            printf("     with length %zu\n", length);
        buf_free(&payload);
        buf_free(&bytes);
        buf_free(&story);
    }
}

/* --- the frames of servers ------------------------------------------------------------------- */

static const struct {
    const char *name;
    struct str bytes, story;
} server_vectors[] = {
    {"5.1 masked", STR_INIT("\x81\x85" NOMASK "Hello"),
     STR_INIT("bad 1002:a server's frames must not be masked\n")},
    {"5.1 masked, known from two bytes", STR_INIT("\x81\x85"),
     STR_INIT("bad 1002:a server's frames must not be masked\n")},
    {"5.1 a masked ping", STR_INIT("\x89\x80" NOMASK),
     STR_INIT("bad 1002:a server's frames must not be masked\n")},
    {"5.1 a masked close behind a text", STR_INIT("\x81\1a\x88\x80" NOMASK),
     STR_INIT("text:a\nbad 1002:a server's frames must not be masked\n")},
    {"5.2 half a header", STR_INIT("\x81"), STR_INIT("unread 1:\n")},
    {"5.2 a header without its length's end", STR_INIT("\x82\x7e\1"), STR_INIT("unread 3:\n")},
    {"5.2 reserved bit", STR_INIT("\x91\0"), STR_INIT("bad 1002:a reserved bit is set\n")},
    {"5.2 opcode 7", STR_INIT("\x87\0"), STR_INIT("bad 1002:unknown opcode\n")},
    {"5.2 a length of 5 in 16 bits",
     STR_INIT("\x82\x7e\0\5"
              "hello"),
     STR_INIT("bad 1002:a length not in its shortest form\n")},
    {"5.4 two fragments", STR_INIT("\x01\3Hel\x80\2lo"), STR_INIT("text:Hello\n")},
    {"5.4 empty fragments", STR_INIT("\x01\0\0\0\0\1a\0\0\x80\0\x81\1b"),
     STR_INIT("text:a\ntext:b\n")},
    {"5.4 control frames between fragments", STR_INIT("\x01\3abc\x89\2hi\x8a\0\x80\2de"),
     STR_INIT("ping:hi\npong:\ntext:abcde\n")},
    {"5.4 not finished", STR_INIT("\x01\3Hel\0\2l"), STR_INIT("unfinished:Hell\n")},
    {"5.4 nothing to continue", STR_INIT("\x80\0"), STR_INIT("bad 1002:nothing to continue\n")},
    {"5.5.1 a close with a reason", STR_INIT("\x88\5\x0f\xa0why"), STR_INIT("close 4000:why\n")},
    {"5.5.1 half a code", STR_INIT("\x88\1\x03"),
     STR_INIT("bad 1002:a close frame with half a code\n")},
    {"5.5.2 a ping whose payload would be a mask", STR_INIT("\x89\4\1\2\3\4"),
     STR_INIT("ping:\1\2\3\4\n")},
    {"5.6 two messages", STR_INIT("\x81\1a\x82\1\xff"), STR_INIT("text:a\nbinary:\xff\n")},
    {"5.7 an unmasked text", STR_INIT("\x81\5Hello"), STR_INIT("text:Hello\n")},
    {"5.7 an unmasked ping", STR_INIT("\x89\5Hello"), STR_INIT("ping:Hello\n")},
    {"8.1 a character in two frames", STR_INIT("\x01\1\xc3\x80\1\xa4"),
     STR_INIT("text:\xc3\xa4\n")},
    {"8.1 a bad byte", STR_INIT("\x81\2\xc3\x28"),
     STR_INIT("bad 1007:a text message that is not UTF-8\n")},
    {"10.4 too long", STR_INIT("\x82\x7f\0\0\0\0\0\2\0\0"),
     STR_INIT("bad 1009:message too long\n")},
};

static void reads_server_vectors(void)
{
    from_server = true;
    for (size_t i = 0; i < COUNT(server_vectors); i++)
        if (!always_tells(server_vectors[i].bytes, LIMIT, server_vectors[i].story))
            printf("     in %s\n", server_vectors[i].name);
    from_server = false;
}

/* What ws_frame writes is a server's; read by a client it is what it was. */
static void reads_what_a_server_writes(void)
{
    static const size_t lengths[] = {0, 1, 3, 4, 5, 8, 9, 125, 126, 127, 65535, 65536};

    from_server = true;
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct buf payload = {0}, bytes = {0}, story = {0};
        struct rcbuf *message;

        fill(&payload, lengths[i]);
        message = ws_frame(WS_BINARY, str_of(&payload));
        if (!message)
            abort();
        buf_append(&bytes, (struct str){message->bytes, message->length});
        buf_append(&bytes, (struct str){message->bytes, message->length});
        tell(&story, "binary:", str_of(&payload));
        tell(&story, "binary:", str_of(&payload));
        if (!tells(str_of(&bytes), LIMIT, bytes.length, 1, str_of(&story)) ||
            !tells(str_of(&bytes), LIMIT, 1, 1, str_of(&story)) ||
            !tells(str_of(&bytes), LIMIT, 1000, 1021, str_of(&story)))
            printf("     with length %zu\n", lengths[i]);
        rcbuf_release(message);
        buf_free(&payload);
        buf_free(&bytes);
        buf_free(&story);
    }
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

/* All lengths, and what it is given stays as it was. */
static void reads_what_it_masks(void)
{
    static const size_t lengths[] = {0, 1, 3, 4, 5, 7, 8, 9, 16, 125, 126, 127, 65535, 65536};
    static const uint8_t masks[][4] = {{0x37, 0xfa, 0x21, 0x3d}, {0xff, 1, 0x80, 0x7f}, {0}};

    for (size_t i = 0; i < COUNT(lengths) * COUNT(masks); i++) {
        struct buf payload = {0}, same = {0}, story = {0};
        struct rcbuf *message;
        struct str bytes;
        size_t length = lengths[i / COUNT(masks)];

        fill(&payload, length);
        fill(&same, length);
        message = ws_masked_frame(WS_BINARY, str_of(&payload), masks[i % COUNT(masks)]);
        if (!message)
            abort();
        bytes = (struct str){message->bytes, message->length};
        CHECK(bytes.length == length + 6 + (length > 65535 ? 8u : length > 125 ? 2u : 0u));
        CHECK(str_equal(str_of(&payload), str_of(&same)));
        tell(&story, "binary:", str_of(&payload));
        if (!tells(bytes, LIMIT, bytes.length, 1, str_of(&story)) ||
            !tells(bytes, LIMIT, 7, 1021, str_of(&story)))
            printf("     with length %zu\n", length);
        rcbuf_release(message);
        buf_free(&payload);
        buf_free(&same);
        buf_free(&story);
    }
}

int main(void)
{
    test_run("ws 5.2-5.7, 8.1: tells the same story of a vector at every cut", reads_vectors);
    test_run("ws 5.2: judges every first and second byte", judges_every_start);
    test_run("ws 5.2: reads every kind of length", reads_every_kind_of_length);
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
    test_run("ws 5.3: reads what it writes, masked", reads_what_it_writes);
    test_run("ws 5.1: tells the same story of a server's frames at every cut",
             reads_server_vectors);
    test_run("ws 5.1: reads what a server writes", reads_what_a_server_writes);
    test_run("ws 5.3: writes masked frames byte for byte", writes_masked_frames);
    test_run("ws 5.3: reads what it masks, of every length", reads_what_it_masks);
    return test_finish();
}
