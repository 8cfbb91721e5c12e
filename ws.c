/* ws.c - RFC 6455: the handshake and the frames.
 *
 * Both directions are pure functions of bytes. ws_read takes one event at a time off the front of
 * what was received: a control frame once it is whole, a data frame as soon as its header is, and
 * then its payload in the pieces in which it comes. So a reader needs no buffer; its state says how
 * far the present frame and message have come, and carries the mask and the UTF-8 check over to the
 * next piece. Payload is unmasked in place.
 *
 * A frame is judged as early as possible: opcode, reserved bits and mask by its first two bytes,
 * its length against the limit before any payload. After WS_EVENT_BAD the reader is not used again.
 *
 * What is sent is one final frame per message, encoded once into shared bytes. */
#include "ws.h"

#include "crypto.h"

#include <string.h>

/* Section 4.2.1: the key is base64 of 16 bytes: 22 digits and two padding characters. */
static bool ws_is_key(struct str key)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t i = 0;

    while (i < key.length && memchr(digits, key.at[i], 64))
        i++;
    return i == 22 && str_equal(str_skip(key, i), STR("=="));
}

int ws_check_upgrade(const struct http_request *request, struct str *key, const char **error)
{
    struct str version = {0};
    size_t versions = http_header(request, STR("Sec-WebSocket-Version"), &version);
    bool is_13 = str_equal(version, STR("13"));

    *error = NULL;
    if (request->minor == 0 || !str_equal(request->method, STR("GET")) ||
        !http_header_has(request, STR("Connection"), STR("upgrade")) ||
        !http_header_has(request, STR("Upgrade"), STR("websocket")))
        *error = "a WebSocket upgrade is expected here";
    else if (request->content_length || request->chunked)
        *error = "an upgrade request has no body";
    else if (versions != 1)
        *error = "Sec-WebSocket-Version must be present once";
    else if (is_13 &&
             (http_header(request, STR("Sec-WebSocket-Key"), key) != 1 || !ws_is_key(*key)))
        *error = "Sec-WebSocket-Key must be present once, as base64 of 16 bytes";
    if (*error)
        return 400;
    if (!is_13)
        *error = "Sec-WebSocket-Version must be 13";
    return is_13 ? 0 : 426;
}

struct str ws_offered_protocol(const struct http_request *request)
{
    struct http_cursor cursor = {0};
    struct str protocol = {0};

    while (http_next_entry(request, STR("Sec-WebSocket-Protocol"), &cursor, &protocol))
        if (protocol.length)
            break;
    return protocol;
}

bool ws_write_upgrade(struct buf *out, struct str key, struct str protocol)
{
    buf_append(out, STR("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Accept: "));
    crypto_websocket_accept(out, key);
    if (protocol.length) {
        buf_append(out, STR("\r\nSec-WebSocket-Protocol: "));
        buf_append(out, protocol);
    }
    buf_append(out, STR("\r\n\r\n"));
    return !out->failed;
}

/* A frame's header. */
struct ws_frame_header {
    bool final, masked;
    unsigned opcode, reserved;
    uint64_t length; /* before the extended length is there: 126 or 127 */
    size_t extended; /* bytes of the extended length */
    size_t size;     /* bytes of the header, mask included */
};

static struct ws_frame_header ws_parse_header(const unsigned char *at, size_t length)
{
    struct ws_frame_header frame = {.final = at[0] & 0x80,
                                    .masked = at[1] & 0x80,
                                    .opcode = at[0] & 0x0f,
                                    .reserved = at[0] & 0x70,
                                    .length = at[1] & 0x7f};

    frame.extended = frame.length == 126 ? 2 : frame.length == 127 ? 8 : 0;
    frame.size = 2 + frame.extended + (frame.masked ? 4 : 0);
    if (frame.extended && length >= frame.size)
        frame.length = bytes_get_be(at + 2, frame.extended);
    return frame;
}

static size_t ws_fail(struct ws_event *event, enum ws_close_code code, const char *error)
{
    event->type = WS_EVENT_BAD;
    event->code = (uint16_t)code;
    event->error = error;
    return 0;
}

/* Judges a frame by its first two bytes: returns what is wrong with it, or NULL. */
static const char *ws_check_start(const struct ws_reader *reader,
                                  const struct ws_frame_header *frame)
{
    if (frame->reserved)
        return "a reserved bit is set";
    if (frame->masked == reader->from_server)
        return reader->from_server ? "a server's frames must not be masked"
                                   : "a client's frames must be masked";
    if (frame->opcode > WS_PONG || (frame->opcode > WS_BINARY && frame->opcode < WS_CLOSE))
        return "unknown opcode";
    if (frame->opcode >= WS_CLOSE)
        return !frame->final     ? "a control frame is fragmented"
               : frame->extended ? "a control frame is longer than 125 bytes"
                                 : NULL;
    if (frame->opcode == WS_CONTINUATION && !reader->message)
        return "nothing to continue";
    if (frame->opcode != WS_CONTINUATION && reader->message)
        return "a new message before the last one's end";
    return NULL;
}

/* Section 5.2: the minimal number of bytes must be used, the highest bit must be 0. */
static bool ws_is_shortest(const struct ws_frame_header *frame)
{
    return frame->extended == 0 ||
           (frame->length > (frame->extended == 2 ? 125 : 0xffff) && frame->length >> 63 == 0);
}

/* Section 5.3; `from` is the byte of the mask for the first byte of payload. */
static void ws_unmask(char *at, size_t length, const uint8_t mask[4], unsigned from)
{
    for (size_t i = 0; i < length; i++)
        at[i] = (char)(at[i] ^ mask[(from + i) & 3]);
}

/* Section 7.4: the codes that an endpoint may put on the wire. */
static bool ws_is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static size_t ws_read_control(char *at, const struct ws_frame_header *frame, struct ws_event *event)
{
    char *payload = at + frame->size;
    size_t length = (size_t)frame->length;

    if (frame->masked)
        ws_unmask(payload, length, (const uint8_t *)payload - 4, 0);
    event->type = WS_EVENT_CONTROL;
    event->opcode = (enum ws_opcode)frame->opcode;
    event->payload = (struct str){payload, length};
    event->code = frame->opcode == WS_CLOSE ? WS_CLOSE_NO_STATUS : 0;
    if (frame->opcode != WS_CLOSE || length == 0)
        return frame->size + length;
    if (length == 1)
        return ws_fail(event, WS_CLOSE_PROTOCOL, "a close frame with half a code");
    event->code = (uint16_t)bytes_get_be(payload, 2);
    event->payload = str_skip(event->payload, 2);
    if (!ws_is_close_code(event->code))
        return ws_fail(event, WS_CLOSE_PROTOCOL, "a close code that may not be sent");
    if (!utf8_valid(event->payload))
        return ws_fail(event, WS_CLOSE_INVALID_PAYLOAD, "a close reason that is not UTF-8");
    return frame->size + length;
}

static size_t ws_read_payload(struct ws_reader *reader, char *at, size_t length,
                              struct ws_event *event)
{
    size_t piece = length < reader->left ? length : reader->left;

    if (!reader->from_server)
        ws_unmask(at, piece, reader->mask, reader->mask_at);
    reader->mask_at = (reader->mask_at + piece) & 3;
    reader->left -= (uint32_t)piece;
    event->type = WS_EVENT_DATA;
    event->opcode = (enum ws_opcode)reader->message;
    event->payload = (struct str){at, piece};
    event->last = reader->left == 0 && reader->final;
    if (reader->message == WS_TEXT &&
        (!utf8_feed(&reader->utf8, event->payload) || (event->last && reader->utf8.missing)))
        return ws_fail(event, WS_CLOSE_INVALID_PAYLOAD, "a text message that is not UTF-8");
    reader->in_frame = reader->left > 0;
    if (event->last) {
        reader->message = 0;
        reader->length = 0;
        reader->utf8 = (struct utf8){0};
    }
    return piece;
}

size_t ws_read(struct ws_reader *reader, char *at, size_t length, struct ws_event *event)
{
    struct ws_frame_header frame;
    const char *error;

    *event = (struct ws_event){.type = WS_EVENT_MORE};
    if (reader->in_frame)
        return length ? ws_read_payload(reader, at, length, event) : 0;
    if (length < 2)
        return 0;
    frame = ws_parse_header((const unsigned char *)at, length);
    error = ws_check_start(reader, &frame);
    if (error)
        return ws_fail(event, WS_CLOSE_PROTOCOL, error);
    if (length < frame.size)
        return 0;
    if (!ws_is_shortest(&frame))
        return ws_fail(event, WS_CLOSE_PROTOCOL, "a length not in its shortest form");
    if (frame.opcode >= WS_CLOSE)
        return length - frame.size < frame.length ? 0 : ws_read_control(at, &frame, event);
    if (frame.length > reader->limit - reader->length)
        return ws_fail(event, WS_CLOSE_TOO_BIG, "message too long");
    if (reader->whole && frame.length <= WS_WHOLE_MAX && length - frame.size < frame.length)
        return 0;
    reader->length += (uint32_t)frame.length;
    reader->left = (uint32_t)frame.length;
    reader->final = frame.final;
    if (frame.opcode != WS_CONTINUATION)
        reader->message = frame.opcode & 3;
    if (frame.masked)
        memcpy(reader->mask, at + frame.size - 4, 4);
    reader->mask_at = 0;
    reader->in_frame = true;
    return frame.size + ws_read_payload(reader, at + frame.size, length - frame.size, event);
}

size_t ws_write_header(char out[WS_HEADER_MAX], enum ws_opcode opcode, uint64_t length)
{
    size_t extended = length > 0xffff ? 8 : length > 125 ? 2 : 0;

    out[0] = (char)(0x80 | (unsigned)opcode);
    out[1] = (char)(extended == 8 ? 127 : extended == 2 ? 126 : length);
    bytes_put_be(out + 2, extended, length);
    return 2 + extended;
}

struct str ws_payload(const struct rcbuf *frame)
{
    unsigned length = (unsigned char)frame->bytes[1];

    return str_skip((struct str){frame->bytes, frame->length}, length == 127   ? 10
                                                               : length == 126 ? 4
                                                                               : 2);
}

struct rcbuf *ws_masked_frame(enum ws_opcode opcode, struct str payload, const uint8_t mask[4])
{
    char header[WS_HEADER_MAX];
    size_t length = ws_write_header(header, opcode, payload.length);
    struct rcbuf *frame = rcbuf_new(length + (mask ? 4 : 0) + payload.length);
    char *at;

    if (!frame)
        return NULL;
    memcpy(frame->bytes, header, length);
    at = frame->bytes + length;
    if (mask) {
        frame->bytes[1] = (char)(frame->bytes[1] | (char)0x80);
        memcpy(at, mask, 4);
        at += 4;
    }
    if (payload.length)
        memcpy(at, payload.at, payload.length);
    if (mask)
        ws_unmask(at, payload.length, mask, 0);
    return frame;
}

struct rcbuf *ws_frame(enum ws_opcode opcode, struct str payload)
{
    return ws_masked_frame(opcode, payload, NULL);
}

struct rcbuf *ws_close_frame(unsigned code, struct str reason)
{
    char payload[WS_CONTROL_MAX];
    size_t length = reason.length < WS_CONTROL_MAX - 2 ? reason.length : WS_CONTROL_MAX - 2;

    if (code == WS_CLOSE_NO_STATUS)
        return ws_frame(WS_CLOSE, (struct str){0});
    bytes_put_be(payload, 2, code);
    if (length)
        memcpy(payload + 2, reason.at, length);
    return ws_frame(WS_CLOSE, (struct str){payload, 2 + length});
}
