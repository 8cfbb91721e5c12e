/* ws.c - RFC 6455: the handshake and the frames. */
#include "ws.h"

#include "crypto.h"

#include <string.h>

/* Section 4.2.1: the key is base64 of 16 bytes, 22 digits and two signs of padding. */
static bool is_key(struct str key)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    if (key.length != 24 || key.at[22] != '=' || key.at[23] != '=')
        return false;
    for (size_t i = 0; i < 22; i++)
        if (!memchr(digits, key.at[i], 64))
            return false;
    return true;
}

int ws_check_upgrade(const struct http_request *request, struct str *key, const char **error)
{
    struct str version = {0};

    if (request->minor == 0 || !str_equal(request->method, STR("GET")) ||
        !http_header_has(request, STR("Connection"), STR("upgrade")) ||
        !http_header_has(request, STR("Upgrade"), STR("websocket"))) {
        *error = "a WebSocket upgrade is expected here";
        return 400;
    }
    if (request->content_length || request->chunked) {
        *error = "an upgrade request has no body";
        return 400;
    }
    if (http_header(request, STR("Sec-WebSocket-Version"), &version) != 1) {
        *error = "Sec-WebSocket-Version must be there once";
        return 400;
    }
    if (!str_equal(version, STR("13"))) {
        *error = "Sec-WebSocket-Version must be 13";
        return 426;
    }
    if (http_header(request, STR("Sec-WebSocket-Key"), key) != 1 || !is_key(*key)) {
        *error = "Sec-WebSocket-Key must be there once, as base64 of 16 bytes";
        return 400;
    }
    return 0;
}

struct str ws_offered_protocol(const struct http_request *request)
{
    struct str first = {0};

    for (size_t i = 0; i < request->header_count; i++) {
        struct str list = request->headers[i].value;

        if (!str_equal_nocase(request->headers[i].name, STR("Sec-WebSocket-Protocol")))
            continue;
        while (list.at && !first.length)
            first = str_trim(str_cut(&list, ','));
    }
    return first;
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

struct frame {
    bool final, masked;
    unsigned opcode;
    uint64_t length;
    size_t header;   /* bytes of the header, mask included; 0 if they are not all there */
    size_t extended; /* of them: bytes of the extended length */
    unsigned reserved;
};

static struct frame parse_header(const unsigned char *at, size_t length)
{
    struct frame frame = {0};
    size_t header;

    if (length < 2)
        return frame;
    frame.final = at[0] & 0x80;
    frame.reserved = at[0] & 0x70;
    frame.opcode = at[0] & 0x0f;
    frame.masked = at[1] & 0x80;
    frame.length = at[1] & 0x7f;
    frame.extended = frame.length == 126 ? 2 : frame.length == 127 ? 8 : 0;
    header = 2 + frame.extended + (frame.masked ? 4 : 0);
    if (length < header)
        return frame;
    if (frame.extended)
        frame.length = 0;
    for (size_t i = 0; i < frame.extended; i++)
        frame.length = frame.length << 8 | at[2 + i];
    frame.header = header;
    return frame;
}

static size_t refuse(struct ws_event *event, enum ws_close_code code, const char *error)
{
    event->type = WS_EVENT_BAD;
    event->code = (uint16_t)code;
    event->error = error;
    return 0;
}

/* What the first two bytes already tell: a bad frame is refused before the rest of it comes. */
static const char *check_start(const struct ws_reader *reader, const struct frame *frame)
{
    bool control = frame->opcode >= 8;

    if (frame->reserved)
        return "a reserved bit is set";
    if (frame->masked == reader->from_server)
        return reader->from_server ? "a server's frames must not be masked"
                                   : "a client's frames must be masked";
    if (control) {
        if (frame->opcode > WS_PONG)
            return "unknown opcode";
        if (!frame->final)
            return "a control frame is fragmented";
        if (frame->length > WS_CONTROL_MAX || frame->extended)
            return "a control frame is longer than 125 bytes";
        return NULL;
    }
    if (frame->opcode > WS_BINARY)
        return "unknown opcode";
    if (frame->opcode == WS_CONTINUATION && !reader->message)
        return "nothing to continue";
    if (frame->opcode != WS_CONTINUATION && reader->message)
        return "a new message before the last one's end";
    return NULL;
}

static bool is_shortest(const struct frame *frame)
{
    /* section 5.2: the minimal number of bytes must be used, the highest bit must be 0 */
    if (frame->extended == 2)
        return frame->length > 125;
    if (frame->extended == 8)
        return frame->length > 0xffff && frame->length >> 63 == 0;
    return true;
}

static void unmask(char *at, size_t length, const uint8_t mask[4], unsigned from)
{
    uint8_t turned[8];
    uint64_t eight, word;
    size_t i = 0;

    for (unsigned k = 0; k < 8; k++)
        turned[k] = mask[(from + k) & 3];
    memcpy(&eight, turned, sizeof eight);
    for (; i + sizeof eight <= length; i += sizeof eight) {
        memcpy(&word, at + i, sizeof word);
        word ^= eight;
        memcpy(at + i, &word, sizeof word);
    }
    for (; i < length; i++)
        at[i] = (char)(at[i] ^ turned[i & 7]);
}

/* Section 7.4: the codes that an endpoint may put on the wire. */
static bool is_close_code(unsigned code)
{
    return (code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006) ||
           (code >= 3000 && code <= 4999);
}

static size_t read_control(char *at, const struct frame *frame, struct ws_event *event)
{
    char *payload = at + frame->header;
    size_t length = (size_t)frame->length;

    if (frame->masked)
        unmask(payload, length, (const uint8_t *)payload - 4, 0);
    event->type = WS_EVENT_CONTROL;
    event->opcode = (enum ws_opcode)frame->opcode;
    event->payload = (struct str){payload, length};
    if (frame->opcode != WS_CLOSE)
        return frame->header + length;
    event->code = WS_CLOSE_NO_CODE;
    if (length == 1)
        return refuse(event, WS_CLOSE_PROTOCOL, "a close frame with half a code");
    if (length >= 2) {
        event->code =
            (uint16_t)((unsigned)(unsigned char)payload[0] << 8 | (unsigned char)payload[1]);
        event->payload = (struct str){payload + 2, length - 2};
        if (!is_close_code(event->code))
            return refuse(event, WS_CLOSE_PROTOCOL, "a close code that may not be sent");
        if (!utf8_valid(event->payload))
            return refuse(event, WS_CLOSE_BAD_DATA, "a close reason that is not UTF-8");
    }
    return frame->header + length;
}

static size_t read_payload(struct ws_reader *reader, char *at, size_t length,
                           struct ws_event *event)
{
    size_t piece = length < reader->left ? length : reader->left;

    if (!reader->from_server)
        unmask(at, piece, reader->mask, reader->mask_at);
    reader->mask_at = (reader->mask_at + piece) & 3;
    reader->left -= (uint32_t)piece;
    event->type = WS_EVENT_DATA;
    event->opcode = (enum ws_opcode)reader->message;
    event->payload = (struct str){at, piece};
    event->last = reader->left == 0 && reader->final;
    if (reader->message == WS_TEXT &&
        (!utf8_feed(&reader->utf8, event->payload) || (event->last && reader->utf8.missing)))
        return refuse(event, WS_CLOSE_BAD_DATA, "a text message that is not UTF-8");
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
    struct frame frame;
    const char *error;

    *event = (struct ws_event){.type = WS_EVENT_MORE};
    if (reader->in_frame)
        return length ? read_payload(reader, at, length, event) : 0;
    if (length < 2)
        return 0;
    frame = parse_header((const unsigned char *)at, length);
    error = check_start(reader, &frame);
    if (error)
        return refuse(event, WS_CLOSE_PROTOCOL, error);
    if (!frame.header)
        return 0;
    if (!is_shortest(&frame))
        return refuse(event, WS_CLOSE_PROTOCOL, "a length not in its shortest form");
    if (frame.opcode >= WS_CLOSE)
        return length - frame.header < frame.length ? 0 : read_control(at, &frame, event);
    if (frame.length > reader->limit - reader->length)
        return refuse(event, WS_CLOSE_TOO_BIG, "message too long");
    reader->length += (uint32_t)frame.length;
    reader->left = (uint32_t)frame.length;
    reader->final = frame.final;
    if (frame.opcode != WS_CONTINUATION)
        reader->message = frame.opcode & 3;
    if (frame.masked)
        memcpy(reader->mask, at + frame.header - 4, 4);
    reader->mask_at = 0;
    reader->in_frame = true;
    return frame.header + read_payload(reader, at + frame.header, length - frame.header, event);
}

size_t ws_write_header(char out[WS_HEADER_MAX], enum ws_opcode opcode, uint64_t length)
{
    size_t extended = length > 0xffff ? 8 : length > 125 ? 2 : 0;

    out[0] = (char)(0x80 | (unsigned)opcode);
    out[1] = (char)(extended == 8 ? 127 : extended == 2 ? 126 : length);
    for (size_t i = 0; i < extended; i++)
        out[2 + i] = (char)(length >> (8 * (extended - 1 - i)) & 0xff);
    return 2 + extended;
}

size_t ws_write_close(char out[WS_HEADER_MAX + WS_CONTROL_MAX], unsigned code, struct str reason)
{
    size_t header;

    if (code == WS_CLOSE_NO_CODE)
        return ws_write_header(out, WS_CLOSE, 0);
    if (reason.length > WS_CONTROL_MAX - 2)
        reason.length = WS_CONTROL_MAX - 2;
    header = ws_write_header(out, WS_CLOSE, 2 + reason.length);
    out[header] = (char)(code >> 8);
    out[header + 1] = (char)(code & 0xff);
    if (reason.length)
        memcpy(out + header + 2, reason.at, reason.length);
    return header + 2 + reason.length;
}

struct rcbuf *ws_frame(enum ws_opcode opcode, struct str payload)
{
    char header[WS_HEADER_MAX];
    size_t length = ws_write_header(header, opcode, payload.length);
    struct rcbuf *message = rcbuf_new(length + payload.length);

    if (!message)
        return NULL;
    memcpy(message->bytes, header, length);
    if (payload.length)
        memcpy(message->bytes + length, payload.at, payload.length);
    return message;
}

struct rcbuf *ws_masked_frame(enum ws_opcode opcode, struct str payload, const uint8_t mask[4])
{
    char header[WS_HEADER_MAX];
    size_t length = ws_write_header(header, opcode, payload.length);
    struct rcbuf *message = rcbuf_new(length + 4 + payload.length);
    char *at;

    if (!message)
        return NULL;
    header[1] = (char)(header[1] | (char)0x80);
    memcpy(message->bytes, header, length);
    at = message->bytes + length;
    memcpy(at, mask, 4);
    if (payload.length)
        memcpy(at + 4, payload.at, payload.length);
    unmask(at + 4, payload.length, mask, 0);
    return message;
}

struct rcbuf *ws_close_frame(unsigned code, struct str reason)
{
    char frame[WS_HEADER_MAX + WS_CONTROL_MAX];

    return rcbuf_copy((struct str){frame, ws_write_close(frame, code, reason)});
}
