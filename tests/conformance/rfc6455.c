/* rfc6455.c - RFC 6455 over a socket, by vectors named after its sections.
 *
 * Usage: rfc6455 echo PORT, against tests/conformance/echo.c; rfc6455 wspush PORT TARGET, against
 * wspush, where TARGET is that of an upgrade. Both must take messages of 16 MiB. wspush gives no
 * messages back, so there the same vectors show everything but the echoes. Each vector is sent
 * whole, seven bytes at a time and byte by byte, and ends with the server's end of the connection,
 * which this client never ends itself. A vector that fails the connection ends with the frame that
 * does: the server has nothing more to wait for. The frames are written and read by this file's own
 * few lines, not by ws.c. */
#include "wire.h"

#define MESSAGE_MAX (16u << 20)

static const char *subject;
static const char *target = "/";
static uint16_t port;
static bool echoes;
static uint32_t seed = 6455;

/* --- frames: written and read ----------------------------------------------------------------- */

/* A frame to send. */
struct piece {
    unsigned first; /* its first byte, and 0x100 to tell it from none */
    struct str payload;
    bool bare;          /* it has no mask */
    unsigned extended;  /* the bytes of its extended length: 0, 2 or 8 if `announced` is set */
    uint64_t announced; /* the length it announces, if not that of the payload: see LENGTH */
};

#define FRAME(first, payload)                                                                      \
    {                                                                                              \
        0x100 | (first), STR_INIT(payload), false, 0, 0                                            \
    }
#define BARE(first, payload)                                                                       \
    {                                                                                              \
        0x100 | (first), STR_INIT(payload), true, 0, 0                                             \
    }
/* A frame with an extended length of 2 or 8 bytes that says `announced`. */
#define LENGTH(first, payload, extended, announced)                                                \
    {                                                                                              \
        0x100 | (first), STR_INIT(payload), false, extended, announced                             \
    }
#define TEXT(payload) FRAME(0x81, payload)
#define BINARY(payload) FRAME(0x82, payload)
#define BEGIN(payload) FRAME(0x01, payload)
#define MORE(payload) FRAME(0x00, payload)
#define LAST(payload) FRAME(0x80, payload)
#define CLOSE(payload) FRAME(0x88, payload)
#define PING(payload) FRAME(0x89, payload)
#define PONG(payload) FRAME(0x8a, payload)

#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static void append(struct buf *out, const void *bytes, size_t length)
{
    if (!buf_append(out, (struct str){bytes, length}))
        abort();
}

static void append_text(struct buf *out, const char *text)
{
    append(out, text, strlen(text));
}

static void append_number(struct buf *out, uint64_t number)
{
    if (!buf_append_number(out, (int64_t)number))
        abort();
}

static void append_piece(struct buf *out, const struct piece *piece)
{
    uint64_t length = piece->extended ? piece->announced : piece->payload.length;
    unsigned extended = piece->extended  ? piece->extended
                        : length > 65535 ? 8
                        : length > 125   ? 2
                                         : 0;
    unsigned char header[14] = {(unsigned char)(piece->first & 0xff)},
                  *mask = header + 2 + extended;
    uint32_t random = next_random(&seed);
    size_t start;

    header[1] = (unsigned char)(extended == 8 ? 127 : extended == 2 ? 126 : length);
    for (unsigned i = 0; i < extended; i++)
        header[2 + i] = (unsigned char)(length >> (8 * (extended - 1 - i)));
    if (piece->bare) {
        append(out, header, 2 + extended);
        append(out, piece->payload.at, piece->payload.length);
        return;
    }
    header[1] |= 0x80;
    for (unsigned i = 0; i < 4; i++)
        mask[i] = (unsigned char)(random >> (8 * i));
    append(out, header, 6 + extended);
    start = out->length;
    append(out, piece->payload.at, piece->payload.length);
    for (size_t i = 0; i < piece->payload.length; i++)
        out->at[start + i] = (char)((unsigned char)out->at[start + i] ^ mask[i & 3]);
}

static void append_frame(struct buf *out, unsigned first, struct str payload)
{
    append_piece(out, &(struct piece){.first = first, .payload = payload});
}

/* Takes a server's frame off the front: whole, final, without a mask, its length in its shortest
 * form. False if it is none. */
static bool take_frame(struct str *rest, unsigned *opcode, struct str *payload)
{
    const unsigned char *at = (const unsigned char *)rest->at;
    size_t extended, header;
    uint64_t length = 0;

    if (rest->length < 2 || (at[0] & 0xf0) != 0x80 || at[1] > 127)
        return false;
    extended = at[1] == 127 ? 8 : at[1] == 126 ? 2 : 0;
    header = 2 + extended;
    if (rest->length < header)
        return false;
    for (size_t i = 0; i < extended; i++)
        length = length << 8 | at[2 + i];
    if (extended == 0)
        length = at[1];
    if ((extended == 2 && length < 126) || (extended == 8 && length < 65536) ||
        rest->length - header < length)
        return false;
    *opcode = at[0] & 0x0f;
    *payload = (struct str){rest->at + header, (size_t)length};
    *rest = (struct str){rest->at + header + length, rest->length - header - (size_t)length};
    return *opcode < 8 || length < 126;
}

/* Writes a line for each frame: "text hello", "pong x", "close 1002"; the reason is left out. */
static void describe_frames(struct str frames, struct buf *out)
{
    struct str payload;
    unsigned opcode;

    while (frames.length) {
        if (!take_frame(&frames, &opcode, &payload)) {
            append_text(out, "no frame\n");
            return;
        }
        append_text(out, opcode == 1    ? "text "
                         : opcode == 2  ? "binary "
                         : opcode == 8  ? "close"
                         : opcode == 9  ? "ping "
                         : opcode == 10 ? "pong "
                                        : "unknown ");
        if (opcode != 8) {
            append(out, payload.at, payload.length);
        } else if (payload.length >= 2) {
            append_text(out, " ");
            append_number(
                out, (uint64_t)((unsigned char)payload.at[0] << 8 | (unsigned char)payload.at[1]));
        } else if (payload.length) {
            append_text(out, " with one byte");
        }
        append_text(out, "\n");
    }
}

/* --- a conversation --------------------------------------------------------------------------- */

#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define HOST "Host: 127.0.0.1\r\n"
#define UPGRADE "Upgrade: websocket\r\n"
#define CONNECTION "Connection: Upgrade\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

static void append_upgrade(struct buf *out)
{
    append_text(out, "GET ");
    append_text(out, target);
    append_text(out, " HTTP/1.1\r\n" HOST UPGRADE CONNECTION VERSION KEY "\r\n");
}

/* Section 4.2.2: what the answer to an upgrade must have, and must not have; `protocol` NULL: no
 * subprotocol. */
static bool is_upgraded(struct str head, const char *accept, const char *protocol)
{
    static const char *const absent[] = {"Sec-WebSocket-Extensions", "Content-Length",
                                         "Transfer-Encoding"};
    struct str value = {0};

    for (size_t i = 0; i < COUNT(absent); i++)
        if (wire_field(head, absent[i], &value))
            return false;
    if (protocol ? !wire_field_is(head, "Sec-WebSocket-Protocol", protocol)
                 : wire_field(head, "Sec-WebSocket-Protocol", &value) != 0)
        return false;
    return wire_status(head) == 101 && wire_field_is(head, "Upgrade", "websocket") &&
           wire_field_is(head, "Connection", "Upgrade") &&
           wire_field(head, "Sec-WebSocket-Accept", &value) == 1 &&
           str_equal(value, str_from(accept));
}

/* Takes off what precedes the frames that a vector is about: the answer to the upgrade, and the
 * client's id, which wspush sends. */
static bool take_welcome(struct str *rest, const char *accept, const char *protocol)
{
    static const char hello[] = "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"";
    struct str head = {0}, payload = {0};
    unsigned opcode = 0;

    if (!wire_head(rest, &head) || !is_upgraded(head, accept, protocol))
        return false;
    return echoes ||
           (take_frame(rest, &opcode, &payload) && opcode == 1 && payload.length > sizeof hello &&
            memcmp(payload.at, hello, sizeof hello - 1) == 0);
}

/* Upgrades, sends the frames in pieces of `size`, and leaves the server's frames in *frames, which
 * points into `in`. */
static enum wire_end converse(struct str sent, size_t size, struct buf *in, struct str *frames)
{
    struct buf upgrade = {0};
    int fd = wire_connect(port);
    enum wire_end end;

    append_upgrade(&upgrade);
    if (fd < 0 || send(fd, upgrade.at, upgrade.length, MSG_NOSIGNAL) != (ssize_t)upgrade.length)
        end = WIRE_REFUSED;
    else
        end = wire_exchange(fd, sent, size, in);
    if (fd >= 0)
        close(fd);
    buf_free(&upgrade);
    *frames = str_of(in);
    if (!take_welcome(frames, ACCEPT, NULL))
        *frames = STR("no welcome");
    return end;
}

static bool is_message(const char *line)
{
    return strncmp(line, "text ", 5) == 0 || strncmp(line, "binary ", 7) == 0;
}

/* Copies those lines of what is expected that the server will send: wspush gives back nothing but
 * the text "pong". */
static void append_expected(struct buf *out, const char *expected)
{
    while (*expected) {
        size_t length = strcspn(expected, "\n") + 1;

        if (echoes || !is_message(expected) || strncmp(expected, "text pong\n", length) == 0)
            append(out, expected, length);
        expected += length;
    }
}

/* Sends frames in one manner and compares what comes back with `expected`. */
static bool answers(struct str sent, const struct wire_manner *manner, struct str expected)
{
    struct buf in = {0}, got = {0};
    struct str frames;
    enum wire_end end = converse(sent, manner->size, &in, &frames);
    bool good;

    describe_frames(frames, &got);
    good = end == WIRE_ENDED && str_equal(str_of(&got), expected);
    if (!good) {
        printf("     %s, the connection %s\n", manner->name, wire_ends[end]);
        wire_show("expected", expected);
        wire_show("got", str_of(&got));
    }
    buf_free(&in);
    buf_free(&got);
    return good;
}

/* Sends frames in every manner. If they do not end the connection, the client closes it; if they
 * do, one more message is behind them when they are sent whole, which must be ignored. */
static bool answers_always(struct str sent, const char *expected_text)
{
    bool ends = strstr(expected_text, "close") != NULL, good = true;
    struct buf bytes = {0}, expected = {0};

    append_expected(&expected, expected_text);
    append(&bytes, sent.at, sent.length);
    if (!ends) {
        append_frame(&bytes, 0x88, STR("\x03\xe8"));
        append_text(&expected, "close 1000\n");
    }
    for (size_t i = 0; i < COUNT(wire_manners); i++) {
        size_t length = bytes.length;

        if (ends && i == 0) {
            append_frame(&bytes, 0x81, STR("behind"));
            append_frame(&bytes, 0x89, STR("behind"));
        }
        good &= answers(str_of(&bytes), &wire_manners[i], str_of(&expected));
        bytes.length = length;
    }
    buf_free(&bytes);
    buf_free(&expected);
    return good;
}

/* --- the vectors ------------------------------------------------------------------------------ */

#define PIECES_MAX 8

struct vector {
    const char *title;
    struct piece pieces[PIECES_MAX];
    const char *expected; /* without the end of the connection by close 1000, if it stays open */
};

static const struct vector vectors[] = {
    /* 5.1: masks */
    {"5.1 text without a mask", {BARE(0x81, "x")}, "close 1002\n"},
    {"5.1 empty text without a mask", {BARE(0x81, "")}, "close 1002\n"},
    {"5.1 ping without a mask", {BARE(0x89, "")}, "close 1002\n"},
    {"5.1 close without a mask", {BARE(0x88, "\x03\xe8")}, "close 1002\n"},
    {"5.1 continuation without a mask", {BEGIN("a"), BARE(0x80, "b")}, "close 1002\n"},
    {"5.1 no mask behind a good message", {TEXT("a"), BARE(0x81, "b")}, "text a\nclose 1002\n"},
    /* 5.2: the first byte */
    {"5.2 RSV1 set", {FRAME(0xc1, "x")}, "close 1002\n"},
    {"5.2 RSV2 set", {FRAME(0xa1, "x")}, "close 1002\n"},
    {"5.2 RSV3 set", {FRAME(0x91, "x")}, "close 1002\n"},
    {"5.2 RSV1 set in a binary message", {FRAME(0xc2, "x")}, "close 1002\n"},
    {"5.2 RSV1 set in the first fragment", {FRAME(0x41, "x")}, "close 1002\n"},
    {"5.2 RSV1 set in a continuation", {BEGIN("a"), FRAME(0xc0, "b")}, "close 1002\n"},
    {"5.2 RSV3 set in a ping", {FRAME(0x99, "")}, "close 1002\n"},
    {"5.2 RSV2 set in a pong", {FRAME(0xaa, "")}, "close 1002\n"},
    {"5.2 RSV1 set in a close", {FRAME(0xc8, "\x03\xe8")}, "close 1002\n"},
    {"5.2 RSV1 set behind a ping", {PING("a"), FRAME(0xc1, "b")}, "pong a\nclose 1002\n"},
    {"5.2 reserved opcode 3", {FRAME(0x83, "")}, "close 1002\n"},
    {"5.2 reserved opcode 7", {FRAME(0x87, "x")}, "close 1002\n"},
    {"5.2 reserved opcode 3, not final", {FRAME(0x03, "x")}, "close 1002\n"},
    {"5.2 reserved control opcode 11", {FRAME(0x8b, "")}, "close 1002\n"},
    {"5.2 reserved control opcode 15", {FRAME(0x8f, "x")}, "close 1002\n"},
    {"5.2 reserved opcode in a message", {BEGIN("a"), FRAME(0x83, "b")}, "close 1002\n"},
    {"5.2 reserved control opcode in a message", {BEGIN("a"), FRAME(0x8b, "b")}, "close 1002\n"},
    {"5.2 reserved opcode behind a message", {TEXT("a"), FRAME(0x83, "")}, "text a\nclose 1002\n"},
    /* 5.2: the length; a bad one is refused by the header alone */
    {"5.2 length 0 in 16 bits", {LENGTH(0x81, "", 2, 0)}, "close 1002\n"},
    {"5.2 length 125 in 16 bits", {LENGTH(0x82, "", 2, 125)}, "close 1002\n"},
    {"5.2 length 0 in 64 bits", {LENGTH(0x82, "", 8, 0)}, "close 1002\n"},
    {"5.2 length 126 in 64 bits", {LENGTH(0x81, "", 8, 126)}, "close 1002\n"},
    {"5.2 length 65535 in 64 bits", {LENGTH(0x82, "", 8, 65535)}, "close 1002\n"},
    {"5.2 length with its top bit set", {LENGTH(0x82, "", 8, 0x8000000000000001u)}, "close 1002\n"},
    {"5.2 continuation in too long a form", {BEGIN("a"), LENGTH(0x80, "", 2, 1)}, "close 1002\n"},
    {"5.2 greatest length", {LENGTH(0x82, "", 8, 0x7fffffffffffffffu)}, "close 1009\n"},
    {"5.2 length of 4 GiB and one", {LENGTH(0x81, "", 8, 0x100000001u)}, "close 1009\n"},
    {"5.2 length of 16 MiB and one", {LENGTH(0x82, "", 8, MESSAGE_MAX + 1)}, "close 1009\n"},
    {"5.2 fragments of 16 MiB and one",
     {BEGIN("a"), LENGTH(0x80, "", 8, MESSAGE_MAX)},
     "close 1009\n"},
    /* 5.4: fragmentation */
    {"5.4 text in two fragments", {BEGIN("hel"), LAST("lo")}, "text hello\n"},
    {"5.4 binary in three",
     {FRAME(0x02, "\xff"), MORE("\xfe"), LAST("\xfd")},
     "binary \xff\xfe\xfd\n"},
    {"5.4 empty fragments", {BEGIN(""), MORE(""), LAST("")}, "text \n"},
    {"5.4 empty fragments around one", {BEGIN(""), MORE("a"), MORE(""), LAST("")}, "text a\n"},
    {"5.4 ping between fragments", {BEGIN("hel"), PING("x"), LAST("lo")}, "pong x\ntext hello\n"},
    {"5.4 pings between fragments",
     {BEGIN("a"), PING("x"), PING(""), MORE("b"), PING("y"), LAST("c")},
     "pong x\npong \npong y\ntext abc\n"},
    {"5.4 pong between fragments", {BEGIN("hel"), PONG("x"), LAST("lo")}, "text hello\n"},
    {"5.4 close between fragments", {BEGIN("hel"), CLOSE("\x03\xe8")}, "close 1000\n"},
    {"5.4 fragmented messages in a row",
     {BEGIN("a"), LAST("b"), FRAME(0x02, "c"), LAST("d")},
     "text ab\nbinary cd\n"},
    {"5.4 text before the last one's end", {BEGIN("a"), TEXT("b")}, "close 1002\n"},
    {"5.4 binary before a text's end", {BEGIN("a"), BINARY("b")}, "close 1002\n"},
    {"5.4 first fragment before the last one's end", {BEGIN("a"), BEGIN("b")}, "close 1002\n"},
    {"5.4 text after fragments without an end", {BEGIN("a"), MORE("b"), TEXT("c")}, "close 1002\n"},
    {"5.4 continuation of nothing", {LAST("a")}, "close 1002\n"},
    {"5.4 continuation of nothing, not final", {MORE("a")}, "close 1002\n"},
    {"5.4 continuation behind a whole message", {TEXT("a"), LAST("b")}, "text a\nclose 1002\n"},
    {"5.4 continuation behind a fragmented message",
     {BEGIN("a"), LAST("b"), MORE("c")},
     "text ab\nclose 1002\n"},
    {"5.4 continuation behind a ping", {PING("a"), LAST("b")}, "pong a\nclose 1002\n"},
    /* 5.5: control frames */
    {"5.5 ping in fragments", {FRAME(0x09, "a")}, "close 1002\n"},
    {"5.5 pong in fragments", {FRAME(0x0a, "a")}, "close 1002\n"},
    {"5.5 close in fragments", {FRAME(0x08, "\x03\xe8")}, "close 1002\n"},
    {"5.5 ping of 126 bytes", {LENGTH(0x89, "", 2, 126)}, "close 1002\n"},
    {"5.5 close of 126 bytes", {LENGTH(0x88, "", 2, 126)}, "close 1002\n"},
    {"5.5 ping of 5 bytes in 16 bits", {LENGTH(0x89, "hello", 2, 5)}, "close 1002\n"},
    {"5.5 ping of 126 bytes in a message", {BEGIN("a"), LENGTH(0x89, "", 2, 126)}, "close 1002\n"},
    /* 5.5.1: close */
    {"5.5.1 close without a code", {CLOSE("")}, "close\n"},
    {"5.5.1 close with a code", {CLOSE("\x03\xe8")}, "close 1000\n"},
    {"5.5.1 close with a reason", {CLOSE("\x03\xe9gr\xc3\xbc\xc3\x9f")}, "close 1001\n"},
    {"5.5.1 close with a reason of 123 bytes",
     {CLOSE("\x0f\xa0" HUNDRED TEN TEN "012")},
     "close 4000\n"},
    {"5.5.1 close with one byte", {CLOSE("\x03")}, "close 1002\n"},
    {"5.5.1 reason that is not UTF-8", {CLOSE("\x03\xe8\xff")}, "close 1007\n"},
    {"5.5.1 reason that ends inside a character",
     {CLOSE("\x03\xe8"
            "a\xe2\x82")},
     "close 1007\n"},
    {"5.5.1 reason with a surrogate", {CLOSE("\x03\xe8\xed\xa0\x80")}, "close 1007\n"},
    {"5.5.1 data after a close is ignored", {CLOSE("\x03\xe8"), TEXT("a")}, "close 1000\n"},
    {"5.5.1 ping after a close is ignored", {CLOSE("\x03\xe8"), PING("a")}, "close 1000\n"},
    {"5.5.1 second close is ignored", {CLOSE("\x03\xe8"), CLOSE("\x03\xe9")}, "close 1000\n"},
    {"5.5.1 error after a close is ignored", {CLOSE("\x03\xe8"), FRAME(0xff, "")}, "close 1000\n"},
    {"5.5.1 continuation after a close is ignored",
     {BEGIN("a"), CLOSE("\x0b\xb8"), LAST("b")},
     "close 3000\n"},
    {"5.5.1 what came before a close is answered",
     {TEXT("a"), PING("b"), BINARY("c"), CLOSE("\x03\xe8")},
     "text a\npong b\nbinary c\nclose 1000\n"},
    /* 5.5.2 and 5.5.3: ping and pong */
    {"5.5.2 empty ping", {PING("")}, "pong \n"},
    {"5.5.2 ping with a payload", {PING("hello")}, "pong hello\n"},
    {"5.5.2 ping with bytes that are no text", {PING("\xff\xfe\x80")}, "pong \xff\xfe\x80\n"},
    {"5.5.2 ping with 125 bytes",
     {PING(HUNDRED TEN TEN "01234")},
     "pong " HUNDRED TEN TEN "01234\n"},
    {"5.5.2 pings are answered in their order",
     {PING("a"), PING("b"), PING("c"), PING("d")},
     "pong a\npong b\npong c\npong d\n"},
    {"5.5.3 pong nobody asked for", {PONG("")}, ""},
    {"5.5.3 pong with a payload nobody asked for", {PONG("hello"), PING("a")}, "pong a\n"},
    {"5.5.3 pong of 125 bytes", {PONG(HUNDRED TEN TEN "01234"), TEXT("a")}, "text a\n"},
    /* 5.6: data frames */
    {"5.6 text", {TEXT("hello")}, "text hello\n"},
    {"5.6 empty text", {TEXT("")}, "text \n"},
    {"5.6 empty binary", {BINARY("")}, "binary \n"},
    {"5.6 binary that is not UTF-8", {BINARY("\xc3\x28\xff")}, "binary \xc3\x28\xff\n"},
    {"5.6 binary that ends inside a character", {BINARY("\xe2\x82")}, "binary \xe2\x82\n"},
    {"5.6 binary in fragments behind a text",
     {TEXT("a"), FRAME(0x02, "\xff"), LAST("\xff")},
     "text a\nbinary \xff\xff\n"},
    /* 8.1: UTF-8 and its state from message to message */
    {"8.1 character over two fragments", {BEGIN("\xe2"), LAST("\x82\xac")}, "text \xe2\x82\xac\n"},
    {"8.1 character over fragments with a ping inside",
     {BEGIN("\xf0\x9f"), PING("\xff"), MORE("\x98"), MORE(""), LAST("\x80")},
     "pong \xff\ntext \xf0\x9f\x98\x80\n"},
    {"8.1 binary between texts does not disturb",
     {TEXT("\xc3\xa4"), BINARY("\xc3"), TEXT("\xc3\xb6")},
     "text \xc3\xa4\nbinary \xc3\ntext \xc3\xb6\n"},
    {"8.1 bad byte behind a good message",
     {TEXT("a"), BEGIN("b"), MORE("\xff")},
     "text a\nclose 1007\n"},
    {"8.1 bad byte in an unfinished message fails at once",
     {BEGIN("hello"), PING("x"), MORE("\xc0")},
     "pong x\nclose 1007\n"},
    {"8.1 bad byte in an unfinished frame fails at once",
     {LENGTH(0x81, "hello\xff", 2, 1000)},
     "close 1007\n"},
    {"8.1 bad byte in an unfinished frame of 16 MiB fails at once",
     {LENGTH(0x01, "hello\xff", 8, MESSAGE_MAX)},
     "close 1007\n"},
};

/* What wspush adds: the text "ping" is answered, however it comes. */
static const struct vector pushed[] = {
    {"5.4 text ping in fragments with a ping frame inside",
     {BEGIN("pi"), PING("x"), MORE(""), LAST("ng")},
     "pong x\ntext pong\n"},
    {"5.6 text ping behind an unfinished one",
     {BEGIN("pin"), LAST(""), TEXT("ping")},
     "text pong\n"},
    {"5.6 binary ping is none", {BINARY("ping"), PING("a")}, "pong a\n"},
};

static void append_pieces(struct buf *out, const struct vector *vector)
{
    for (size_t i = 0; i < PIECES_MAX && vector->pieces[i].first; i++)
        append_piece(out, &vector->pieces[i]);
}

static void run_vectors(const struct vector *table, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct buf bytes = {0};

        append_pieces(&bytes, &table[i]);
        wire_report(subject, table[i].title, answers_always(str_of(&bytes), table[i].expected));
        buf_free(&bytes);
    }
}

/* --- 8.1: UTF-8 ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    struct str text;
} valid[] = {
    {"U+0000", STR_INIT("a\0b")},
    {"U+0080", STR_INIT("\xc2\x80")},
    {"U+0800", STR_INIT("\xe0\xa0\x80")},
    {"U+E000", STR_INIT("\xee\x80\x80")},
    {"U+FFFD", STR_INIT("\xef\xbf\xbd")},
    {"U+10000", STR_INIT("\xf0\x90\x80\x80")},
    {"U+10FFFF", STR_INIT("\xf4\x8f\xbf\xbf")},
    {"byte order mark", STR_INIT("\xef\xbb\xbf"
                                 "a")},
    {"mixed", STR_INIT("Hello-\xc2\xb5@\xc3\x9f\xf0\x9f\x98\x80\xe2\x82\xac-UTF-8!!")},
};

/* `before` may begin a text; `bad` may not follow it. One of each kind: test_buf.c has all. */
static const struct {
    const char *name;
    struct str before, bad;
} invalid[] = {
    {"lone continuation 80", STR_INIT(""), STR_INIT("\x80")},
    {"continuation too many behind four", STR_INIT("\xf0\x9f\x98\x80"), STR_INIT("\x80")},
    {"C0 begins nothing", STR_INIT(""), STR_INIT("\xc0")},
    {"F5 begins nothing", STR_INIT(""), STR_INIT("\xf5")},
    {"FF begins nothing", STR_INIT("\xe2\x82\xac"), STR_INIT("\xff")},
    {"overlong U+07FF", STR_INIT("\xe0"), STR_INIT("\x9f")},
    {"overlong U+FFFF", STR_INIT("\xf0"), STR_INIT("\x8f")},
    {"surrogate U+D800", STR_INIT("\xed"), STR_INIT("\xa0")},
    {"surrogate behind Greek", STR_INIT("\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed"),
     STR_INIT("\xa0")},
    {"U+110000", STR_INIT("\xf4"), STR_INIT("\x90")},
    {"two bytes cut by a letter", STR_INIT("\xc3"), STR_INIT("(")},
    {"three bytes cut after two", STR_INIT("\xe2\x82"), STR_INIT("(")},
    {"four bytes cut after three", STR_INIT("\xf0\x9f\x98"), STR_INIT("a")},
};

/* Texts that may not end where they do. */
static const struct {
    const char *name;
    struct str text;
} truncated[] = {
    {"one of two", STR_INIT("\xc3")},        {"one of three", STR_INIT("\xe2")},
    {"two of three", STR_INIT("a\xe2\x82")}, {"one of four", STR_INIT("\xf0")},
    {"two of four", STR_INIT("\xf0\x9f")},   {"three of four", STR_INIT("abcdefgh\xf0\x9f\x98")},
};

static void report_text(const char *kind, const char *name, bool good)
{
    char title[128];

    snprintf(title, sizeof title, "8.1 %s: %s", kind, name);
    wire_report(subject, title, good);
}

/* One frame; then a frame for each byte, with a ping before the last of them. */
static void run_valid_texts(void)
{
    for (size_t i = 0; i < COUNT(valid); i++) {
        struct str text = valid[i].text;
        struct buf bytes = {0}, expected = {0};
        bool good = true;

        append_frame(&bytes, 0x81, text);
        for (size_t k = 0; k < text.length; k++)
            append_frame(&bytes, k == 0 ? 0x01 : 0x00, (struct str){text.at + k, 1});
        append_frame(&bytes, 0x89, STR("x"));
        append_frame(&bytes, 0x80, STR(""));
        append_frame(&bytes, 0x88, STR("\x03\xe8"));
        for (size_t k = 0; echoes && k < 2; k++) {
            append_text(&expected, k == 0 ? "text " : "pong x\ntext ");
            append(&expected, text.at, text.length);
            append_text(&expected, "\n");
        }
        append_text(&expected, echoes ? "close 1000\n" : "pong x\nclose 1000\n");
        for (size_t k = 0; k < COUNT(wire_manners); k++)
            good &= answers(str_of(&bytes), &wire_manners[k], str_of(&expected));
        report_text("valid", valid[i].name, good);
        buf_free(&bytes);
        buf_free(&expected);
    }
}

/* A bad byte fails the connection in a whole message, and, as soon as it is there, in a message and
 * in a frame that have no end yet; the byte before it does not. */
static void run_invalid_texts(void)
{
    for (size_t i = 0; i < COUNT(invalid); i++) {
        struct buf text = {0}, bytes = {0};
        bool good;

        append(&text, invalid[i].before.at, invalid[i].before.length);
        append(&text, invalid[i].bad.at, invalid[i].bad.length);
        append_frame(&bytes, 0x81, str_of(&text));
        good = answers_always(str_of(&bytes), "close 1007\n");
        bytes.length = 0;
        append_frame(&bytes, 0x01, invalid[i].before);
        append_frame(&bytes, 0x89, STR("x"));
        append_frame(&bytes, 0x00, invalid[i].bad);
        good &= answers_always(str_of(&bytes), "pong x\nclose 1007\n");
        bytes.length = 0;
        append_piece(&bytes, &(struct piece){0x81, str_of(&text), false, 2, 1000});
        good &= answers_always(str_of(&bytes), "close 1007\n");
        report_text("invalid", invalid[i].name, good);
        buf_free(&text);
        buf_free(&bytes);
    }
}

static void run_truncated_texts(void)
{
    for (size_t i = 0; i < COUNT(truncated); i++) {
        struct buf bytes = {0};
        bool good;

        append_frame(&bytes, 0x81, truncated[i].text);
        good = answers_always(str_of(&bytes), "close 1007\n");
        bytes.length = 0;
        append_frame(&bytes, 0x01, truncated[i].text);
        append_frame(&bytes, 0x89, STR("x"));
        append_frame(&bytes, 0x80, STR(""));
        good &= answers_always(str_of(&bytes), "pong x\nclose 1007\n");
        report_text("truncated", truncated[i].name, good);
        buf_free(&bytes);
    }
}

/* --- 7.4: close codes ------------------------------------------------------------------------- */

static bool closes(unsigned code, struct str reason, unsigned answer)
{
    struct buf payload = {0}, bytes = {0}, expected = {0};
    bool good;

    append(&payload, (char[]){(char)(code >> 8), (char)(code & 0xff)}, 2);
    append(&payload, reason.at, reason.length);
    append_frame(&bytes, 0x88, str_of(&payload));
    append_text(&expected, "close ");
    append_number(&expected, answer);
    append(&expected, "\n", 2); /* its NUL as well */
    good = answers_always(str_of(&bytes), expected.at);
    buf_free(&payload);
    buf_free(&bytes);
    buf_free(&expected);
    return good;
}

/* 7.4.1 and its registry up to 1014, 7.4.2 for the rest. */
static void run_close_codes(void)
{
    static const unsigned good[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                    1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999};
    static const unsigned bad[] = {0,    1,    999,  1004, 1005, 1006, 1015, 1016,
                                   1100, 1999, 2000, 2999, 5000, 9999, 65535};
    char title[64];

    for (size_t i = 0; i < COUNT(good); i++) {
        snprintf(title, sizeof title, "7.4.%d code %u", good[i] < 3000 ? 1 : 2, good[i]);
        wire_report(subject, title,
                    closes(good[i], STR(""), good[i]) && closes(good[i], STR("bye"), good[i]));
    }
    for (size_t i = 0; i < COUNT(bad); i++) {
        bool first = bad[i] >= 1000 && bad[i] < 3000;

        snprintf(title, sizeof title, "7.4.%d code %u on the wire", first ? 1 : 2, bad[i]);
        wire_report(subject, title,
                    closes(bad[i], STR(""), 1002) && closes(bad[i], STR("bye"), 1002));
    }
}

/* --- lengths and numbers ---------------------------------------------------------------------- */

/* True if the server's frames are `count` echoes of the message, a pong, and close 1000. */
static bool are_echoes(struct str frames, unsigned opcode, struct str message, size_t count)
{
    struct str payload;
    unsigned found;

    for (size_t i = 0; echoes && i < count; i++)
        if (!take_frame(&frames, &found, &payload) || found != opcode ||
            !str_equal(payload, message))
            return false;
    return take_frame(&frames, &found, &payload) && found == 10 && payload.length == 0 &&
           take_frame(&frames, &found, &payload) && found == 8 &&
           str_equal(payload, STR("\x03\xe8")) && frames.length == 0;
}

/* Sends frames that make up `count` times the message, a ping and a close. */
static bool echoes_message(struct buf *bytes, unsigned opcode, struct str message, size_t count,
                           size_t size)
{
    struct buf in = {0};
    struct str frames;
    enum wire_end end;
    bool good;

    append_frame(bytes, 0x89, STR(""));
    append_frame(bytes, 0x88, STR("\x03\xe8"));
    end = converse(str_of(bytes), size, &in, &frames);
    good = end == WIRE_ENDED && are_echoes(frames, opcode, message, count);
    if (!good) {
        printf("     in pieces of %zu, the connection %s\n", size, wire_ends[end]);
        wire_show("got", frames);
    }
    buf_free(&in);
    return good;
}

/* Bytes for a message; for a text, characters of one to four bytes each, and letters at its end. */
static struct str make_message(struct buf *room, bool text, size_t length)
{
    static const struct str characters = STR_INIT("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    char block[997]; /* a prime, so that no piece of a round size looks like the next */

    for (size_t i = 0; i < sizeof block; i++)
        block[i] = (char)(text ? 'x' : next_random(&seed));
    room->length = 0;
    while (text && room->length + characters.length <= length)
        append(room, characters.at, characters.length);
    while (room->length < length)
        append(room, block,
               length - room->length < sizeof block ? length - room->length : sizeof block);
    return str_of(room);
}

/* Appends a message in frames of at most `part` bytes. */
static void append_parts(struct buf *out, unsigned opcode, struct str message, size_t part)
{
    unsigned first = opcode;

    while (message.length > part) {
        append_frame(out, first, (struct str){message.at, part});
        message = (struct str){message.at + part, message.length - part};
        first = 0;
    }
    append_frame(out, first | 0x80, message);
}

/* A message of a length, in frames of `part`, sent in pieces of `size`. */
static bool echoes_length(bool text, size_t length, size_t part, size_t size)
{
    struct buf room = {0}, bytes = {0};
    struct str message = make_message(&room, text, length);
    unsigned opcode = text ? 1 : 2;
    bool good;

    append_parts(&bytes, opcode, message, part);
    good = echoes_message(&bytes, opcode, message, 1, size);
    buf_free(&room);
    buf_free(&bytes);
    return good;
}

static void run_lengths(void)
{
    static const size_t lengths[] = {1,     124,   125,   126,   127,   128,
                                     65534, 65535, 65536, 65537, 100000};
    char title[64];

    for (size_t i = 0; i < COUNT(lengths); i++)
        for (int text = 0; text < 2; text++) {
            size_t n = lengths[i];

            snprintf(title, sizeof title, "5.2 %s of %zu bytes", text ? "text" : "binary", n);
            wire_report(subject, title,
                        echoes_length(text, n, SIZE_MAX, SIZE_MAX) &&
                            echoes_length(text, n, SIZE_MAX, n > 1000 ? 997 : 7) &&
                            (n > 1000 || echoes_length(text, n, SIZE_MAX, 1)));
        }
    wire_report(subject, "5.2 text of 65536 bytes, byte by byte",
                echoes_length(true, 65536, SIZE_MAX, 1));
}

static void run_large(void)
{
    wire_report(subject, "5.2 text of 16 MiB in one frame",
                echoes_length(true, MESSAGE_MAX, SIZE_MAX, SIZE_MAX));
    wire_report(subject, "5.2 binary of 16 MiB in one frame, in pieces of 9973",
                echoes_length(false, MESSAGE_MAX, SIZE_MAX, 9973));
    wire_report(subject, "5.4 text of 16 MiB in fragments of 4093",
                echoes_length(true, MESSAGE_MAX, 4093, 65536));
    wire_report(subject, "5.4 text of 128 KiB in fragments of one byte",
                echoes_length(true, 131072, 1, 65536));
    wire_report(subject, "5.4 binary of 1000 fragments of one byte, in sevens",
                echoes_length(false, 1000, 1, 7));
}

/* Fragments that were good up to 16 MiB, and one byte. */
static void run_too_large(void)
{
    struct buf room = {0}, bytes = {0};

    append_parts(&bytes, 2, make_message(&room, false, MESSAGE_MAX + 1), 1u << 20);
    wire_report(subject, "5.4 binary of 16 MiB and one byte in fragments",
                answers(str_of(&bytes), &wire_manners[0], STR("close 1009\n")));
    buf_free(&room);
    buf_free(&bytes);
}

static void run_many_texts(void)
{
    struct buf bytes = {0};
    struct str text = STR("hello, hello, hello");

    for (int i = 0; i < 4000; i++)
        append_frame(&bytes, 0x81, text);
    wire_report(subject, "5.6 4000 texts in a row",
                echoes_message(&bytes, 1, text, 4000, SIZE_MAX));
    buf_free(&bytes);
}

/* Ten times: ten pings, a text's first fragment, ten pings, its last. */
static void run_many_pings(void)
{
    struct buf bytes = {0}, expected = {0};
    bool good = true;

    for (int i = 0; i < 10; i++)
        for (int k = 0; k < 22; k++) {
            struct str payload = {&"0123456789a0123456789b"[k], 1};

            append_frame(&bytes, k == 10 ? 0x01 : k == 21 ? 0x80 : 0x89, payload);
            if (k == 10 || (k == 21 && !echoes))
                continue;
            append_text(&expected, k == 21 ? "text a" : "pong ");
            append(&expected, payload.at, payload.length);
            append_text(&expected, "\n");
        }
    append_frame(&bytes, 0x88, STR(""));
    append_text(&expected, "close\n");
    for (size_t i = 0; i < COUNT(wire_manners); i++)
        good &= answers(str_of(&bytes), &wire_manners[i], str_of(&expected));
    wire_report(subject, "5.5.2 ten pings in a row, around and inside a text", good);
    buf_free(&bytes);
    buf_free(&expected);
}

/* --- 7.1: the end of the connection ----------------------------------------------------------- */

/* The server ends the TCP connection, and does not wait for this client to do it (nor for 2 s,
 * which is the least that a server here would wait). */
static void run_first_end(void)
{
    struct buf bytes = {0};
    int64_t begin = wire_now();
    bool good;

    append_frame(&bytes, 0x88, STR("\x03\xe8"));
    good = answers(str_of(&bytes), &wire_manners[0], STR("close 1000\n"));
    wire_report(subject, "7.1.1 the server ends TCP first, at once",
                good && wire_now() - begin < 1500);
    buf_free(&bytes);
}

/* A client that goes on sending sees why it was failed: the server takes and forgets what it sends.
 */
static void run_late_frames(void)
{
    static const char room[65536];
    struct buf bytes = {0}, in = {0}, got = {0};
    struct str frames = {0};
    int fd = wire_connect(port);
    bool good;

    append_upgrade(&bytes);
    append_frame(&bytes, 0x83, STR(""));
    while (bytes.length < 16u << 20) /* more than the sockets' buffers take */
        append_frame(&bytes, 0x82, (struct str){room, sizeof room});
    good = fd >= 0 && wire_send(fd, str_of(&bytes)) &&
           wire_exchange(fd, STR(""), 1, &in) == WIRE_ENDED;
    if (fd >= 0)
        close(fd);
    frames = str_of(&in);
    good = good && take_welcome(&frames, ACCEPT, NULL);
    describe_frames(frames, &got);
    wire_report(subject, "7.1.7 what comes after a failure does not hide the close",
                good && str_equal(str_of(&got), STR("close 1002\n")));
    buf_free(&bytes);
    buf_free(&in);
    buf_free(&got);
}

static void run_sudden_end(void)
{
    struct buf bytes = {0}, in = {0};
    int fd = wire_connect(port);
    bool good;

    append_upgrade(&bytes);
    good = fd >= 0 && send(fd, bytes.at, bytes.length, MSG_NOSIGNAL) == (ssize_t)bytes.length &&
           shutdown(fd, SHUT_WR) == 0 && wire_exchange(fd, STR(""), 1, &in) == WIRE_ENDED;
    if (fd >= 0)
        close(fd);
    wire_report(subject, "7.1.5 an end without a close frame is an end", good);
    buf_free(&bytes);
    buf_free(&in);
}

/* --- 4: the handshake ------------------------------------------------------------------------- */

#define GET "GET", "HTTP/1.1"

static const struct {
    const char *title;
    const char *method, *version;
    const char *lines;
    const char *accept;   /* for an upgrade, */
    unsigned status;      /* else this answer, */
    unsigned pushed;      /* or this one of wspush, if another */
    const char *protocol; /* that is accepted */
} handshakes[] = {
    {"4.2.2 the RFC's example", GET,
     "Host: server.example.com\r\n" UPGRADE CONNECTION KEY "Origin: http://example.com\r\n"
     "Sec-WebSocket-Protocol: chat, superchat\r\n" VERSION,
     ACCEPT, 101, 0, "chat"},
    {"4.2.2 another key", GET,
     HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n",
     "HSmrc0sMlYUkAGmm5OPpG2HaGWk=", 101, 0, NULL},
    {"4.1 names and values in any case", GET,
     "hOST: 127.0.0.1\r\nUPGRADE: WebSocket\r\nconnection: uPGRADE\r\nsec-websocket-version: 13\r\n"
     "SEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\n",
     ACCEPT, 101, 0, NULL},
    {"4.1 values without a space and with many", GET,
     "Host:127.0.0.1\r\nUpgrade:websocket\r\nConnection:\t Upgrade \t\r\n"
     "Sec-WebSocket-Version:13\t\r\nSec-WebSocket-Key:  dGhlIHNhbXBsZSBub25jZQ==  \r\n",
     ACCEPT, 101, 0, NULL},
    {"4.1 unknown headers are ignored", GET,
     "X-A: b\r\n" HOST UPGRADE "Sec-WebSocket-Nothing: 1\r\n" CONNECTION VERSION
     "Cookie: a=b; c=d\r\n" KEY "User-Agent: x (y)\r\nAccept-Language: de,en;q=0.5\r\n",
     ACCEPT, 101, 0, NULL},
    {"4.2.1 Connection with other tokens", GET,
     HOST UPGRADE "Connection: keep-alive, Upgrade\r\n" VERSION KEY, ACCEPT, 101, 0, NULL},
    {"4.2.1 Connection in several lines", GET,
     HOST UPGRADE "Connection: keep-alive\r\n"
                  "Connection: x,,upgrade ,y\r\n" VERSION KEY,
     ACCEPT, 101, 0, NULL},
    {"4.2.1 Upgrade with other tokens", GET,
     HOST "Upgrade: h2c , WEBSOCKET\r\n" CONNECTION VERSION KEY, ACCEPT, 101, 0, NULL},
    {"4.2.1 Upgrade in several lines", GET,
     HOST "Upgrade: h2c\r\n"
          "Upgrade: websocket\r\n" CONNECTION VERSION KEY,
     ACCEPT, 101, 0, NULL},
    {"9.1 permessage-deflate is declined", GET,
     HOST UPGRADE CONNECTION VERSION KEY
     "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
     ACCEPT, 101, 0, NULL},
    {"9.1 extensions in several lines are declined", GET,
     HOST UPGRADE CONNECTION VERSION KEY
     "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover, x; y=\"z\"\r\n"
     "Sec-WebSocket-Extensions: bbf-usp-protocol\r\n",
     ACCEPT, 101, 0, NULL},
    {"4.2.2 the first subprotocol is accepted", GET,
     HOST UPGRADE CONNECTION VERSION KEY "Sec-WebSocket-Protocol: mqtt, chat\r\n"
                                         "Sec-WebSocket-Protocol: wamp\r\n",
     ACCEPT, 101, 0, "mqtt"},
    {"4.2.1 a length of 0 is no body", GET,
     HOST UPGRADE CONNECTION VERSION KEY "Content-Length: 0\r\n", ACCEPT, 101, 0, NULL},
    {"4.2.1 a higher HTTP version", "GET", "HTTP/1.2", HOST UPGRADE CONNECTION VERSION KEY, ACCEPT,
     101, 0, NULL},
    {"4.2.1 POST", "POST", "HTTP/1.1", HOST UPGRADE CONNECTION VERSION KEY, NULL, 400, 405, NULL},
    {"4.2.1 HEAD", "HEAD", "HTTP/1.1", HOST UPGRADE CONNECTION VERSION KEY, NULL, 400, 405, NULL},
    {"4.2.1 get in small letters", "get", "HTTP/1.1", HOST UPGRADE CONNECTION VERSION KEY, NULL,
     400, 405, NULL},
    {"4.2.1 HTTP/1.0", "GET", "HTTP/1.0", HOST UPGRADE CONNECTION VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 HTTP/2.0", "GET", "HTTP/2.0", HOST UPGRADE CONNECTION VERSION KEY, NULL, 505, 0, NULL},
    {"4.2.1 no Host", GET, UPGRADE CONNECTION VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 two Host", GET, HOST HOST UPGRADE CONNECTION VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 no Upgrade", GET, HOST CONNECTION VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 another Upgrade", GET, HOST "Upgrade: h2c\r\n" CONNECTION VERSION KEY, NULL, 400, 0,
     NULL},
    {"4.2.1 Upgrade that only begins so", GET,
     HOST "Upgrade: websocket2\r\n" CONNECTION VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 no Connection", GET, HOST UPGRADE VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 Connection without upgrade", GET, HOST UPGRADE "Connection: keep-alive\r\n" VERSION KEY,
     NULL, 400, 0, NULL},
    {"4.2.1 Connection that only has it inside", GET,
     HOST UPGRADE "Connection: no-upgrade, upgraded\r\n" VERSION KEY, NULL, 400, 0, NULL},
    {"4.2.1 no Sec-WebSocket-Key", GET, HOST UPGRADE CONNECTION VERSION, NULL, 400, 0, NULL},
    {"4.2.1 two Sec-WebSocket-Key", GET, HOST UPGRADE CONNECTION VERSION KEY KEY, NULL, 400, 0,
     NULL},
    {"4.2.1 empty Sec-WebSocket-Key", GET, HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key:\r\n",
     NULL, 400, 0, NULL},
    {"4.2.1 Sec-WebSocket-Key of 15 bytes", GET,
     HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n", NULL, 400, 0,
     NULL},
    {"4.2.1 Sec-WebSocket-Key of 17 bytes", GET,
     HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZWE=\r\n", NULL, 400,
     0, NULL},
    {"4.2.1 Sec-WebSocket-Key with more behind it", GET,
     HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==ZQ==\r\n", NULL,
     400, 0, NULL},
    {"4.2.1 Sec-WebSocket-Key without padding", GET,
     HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n", NULL, 400, 0,
     NULL},
    {"4.2.1 Sec-WebSocket-Key with other bytes", GET,
     HOST UPGRADE CONNECTION VERSION "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub2-_ZQ==\r\n", NULL, 400,
     0, NULL},
    {"4.2.1 no Sec-WebSocket-Version", GET, HOST UPGRADE CONNECTION KEY, NULL, 400, 0, NULL},
    {"4.2.1 two Sec-WebSocket-Version", GET, HOST UPGRADE CONNECTION VERSION VERSION KEY, NULL, 400,
     0, NULL},
    {"4.4 version 8", GET, HOST UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 8\r\n", NULL, 426, 0,
     NULL},
    {"4.4 version 14", GET, HOST UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 14\r\n", NULL, 426,
     0, NULL},
    {"4.4 version 013", GET, HOST UPGRADE CONNECTION KEY "Sec-WebSocket-Version: 013\r\n", NULL,
     426, 0, NULL},
    {"4.2.1 a body", GET, HOST UPGRADE CONNECTION VERSION KEY "Content-Length: 2\r\n", NULL, 400, 0,
     NULL},
    {"4.2.1 folded header line", GET, HOST UPGRADE "Connection:\r\n Upgrade\r\n" VERSION KEY, NULL,
     400, 0, NULL},
};

/* 4.2.2 and 4.4: the answer to another version says which one would do. */
static bool is_refused(struct str head, unsigned status)
{
    struct str accept;

    return wire_status(head) == status && wire_field(head, "Sec-WebSocket-Accept", &accept) == 0 &&
           (status != 426 || (wire_field_is(head, "Sec-WebSocket-Version", "13") &&
                              wire_field_is(head, "Upgrade", "websocket")));
}

static void append_handshake(struct buf *out, size_t row)
{
    append_text(out, handshakes[row].method);
    append_text(out, " ");
    append_text(out, target);
    append_text(out, " ");
    append_text(out, handshakes[row].version);
    append_text(out, "\r\n");
    append_text(out, handshakes[row].lines);
    append_text(out, "\r\n");
    if (handshakes[row].accept)
        append_frame(out, 0x88, STR("\x03\xe8"));
    else /* the body that a row has, or an empty line, which is forgiven; then the last request */
        append_text(out, "\r\nGET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
}

static bool is_answered(struct str answer, size_t row)
{
    unsigned status =
        echoes || !handshakes[row].pushed ? handshakes[row].status : handshakes[row].pushed;
    struct str head = {0}, rest = answer, payload;
    unsigned opcode;

    if (handshakes[row].accept)
        return take_welcome(&rest, handshakes[row].accept, handshakes[row].protocol) &&
               take_frame(&rest, &opcode, &payload) && opcode == 8 && rest.length == 0;
    return wire_head(&rest, &head) && is_refused(head, status);
}

static void run_handshakes(void)
{
    for (size_t row = 0; row < COUNT(handshakes); row++) {
        bool good = true;

        for (size_t i = 0; i < COUNT(wire_manners); i++) {
            struct buf bytes = {0}, in = {0};
            enum wire_end end;

            append_handshake(&bytes, row);
            end = wire_talk(port, str_of(&bytes), wire_manners[i].size, &in);
            if (end != WIRE_ENDED || !is_answered(str_of(&in), row)) {
                printf("     %s, the connection %s\n", wire_manners[i].name, wire_ends[end]);
                wire_show("got", str_of(&in));
                good = false;
            }
            buf_free(&bytes);
            buf_free(&in);
        }
        wire_report(subject, handshakes[row].title, good);
    }
}

int main(int argc, char **argv)
{
    uint64_t number = 0;

    if (argc < 3 || !str_number(str_from(argv[2]), UINT16_MAX, &number)) {
        fputs("usage: rfc6455 echo PORT, or rfc6455 wspush PORT TARGET\n", stderr);
        return 2;
    }
    subject = argv[1];
    echoes = strcmp(subject, "echo") == 0;
    port = (uint16_t)number;
    if (argc > 3)
        target = argv[3];
    run_first_end();
    run_late_frames();
    run_sudden_end();
    run_handshakes();
    run_vectors(vectors, COUNT(vectors));
    if (!echoes)
        run_vectors(pushed, COUNT(pushed));
    run_valid_texts();
    run_invalid_texts();
    run_truncated_texts();
    run_close_codes();
    run_lengths();
    run_many_texts();
    run_many_pings();
    run_large();
    run_too_large();
    return test_finish();
}
