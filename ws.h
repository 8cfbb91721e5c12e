/* ws.h - RFC 6455: the handshake, bytes to frames to pieces of messages, messages to frame bytes.
 * No sockets and no buffers: a message is handed over in the pieces in which it comes, so a reader
 * is a few words, however long the message.
 *
 * Rejects extensions, a client's frames without a mask and a server's with one, reserved bits and
 * opcodes, bad UTF-8 at its first bad byte, and a message past its limit once its length is known.
 */
#ifndef WSPUSH_WS_H
#define WSPUSH_WS_H

#include "buf.h"
#include "http.h"

/* Opcodes (RFC 6455, section 5.2). */
enum ws_opcode {
    WS_CONTINUATION = 0,
    WS_TEXT = 1,
    WS_BINARY = 2,
    WS_CLOSE = 8,
    WS_PING = 9,
    WS_PONG = 10
};

/* Close codes that are sent from here (RFC 6455, section 7.4.1, and its registry). */
enum ws_close_code {
    WS_CLOSE_NORMAL = 1000,
    WS_CLOSE_GOING_AWAY = 1001,
    WS_CLOSE_PROTOCOL = 1002,
    WS_CLOSE_UNSUPPORTED = 1003,
    WS_CLOSE_NO_STATUS = 1005, /* never on the wire: the peer's close frame gave no code */
    WS_CLOSE_ABNORMAL = 1006,  /* never on the wire: the connection ended without a close frame */
    WS_CLOSE_INVALID_PAYLOAD = 1007,
    WS_CLOSE_POLICY = 1008,
    WS_CLOSE_TOO_BIG = 1009,
    WS_CLOSE_INTERNAL_ERROR = 1011,
    WS_CLOSE_TRY_LATER = 1013
};

#define WS_HEADER_MAX 10   /* of a frame that is sent: no mask */
#define WS_CONTROL_MAX 125 /* payload of a control frame */
#define WS_WHOLE_MAX 4103  /* payload of a frame that a reader hands over whole, if asked to */

/* Checks that a request is a valid upgrade (section 4.2.1). Returns 0 and its key, or the status of
 * the rejection, 400 or 426, and *error. */
int ws_check_upgrade(const struct http_request *request, struct str *key, const char **error);

/* The first subprotocol that a request offers; empty if it offers none. */
struct str ws_offered_protocol(const struct http_request *request);

/* Appends the response that accepts an upgrade (section 4.2.2), with `protocol` unless it is empty.
 */
bool ws_write_upgrade(struct buf *out, struct str key, struct str protocol);

/* The state of reading one peer's frames. Zeroed except for `limit`, it is the start of a client's.
 */
struct ws_reader {
    uint32_t limit;  /* greatest length of a message in bytes */
    uint32_t left;   /* payload bytes of the present data frame still to come */
    uint32_t length; /* payload bytes of the present message so far announced */
    uint8_t mask[4];
    unsigned mask_at : 2; /* which byte of the mask is next */
    unsigned message : 2; /* opcode of the message being read, 0 if none */
    bool from_server : 1;
    bool in_frame : 1, final : 1; /* inside a data frame; it is its message's last */
    bool whole : 1; /* set by the owner: frames of up to WS_WHOLE_MAX bytes come in one piece */
    struct utf8 utf8;
};

enum ws_event_type {
    WS_EVENT_MORE,    /* nothing whole: come again with more bytes behind those not consumed */
    WS_EVENT_DATA,    /* a piece of a message */
    WS_EVENT_CONTROL, /* a whole control frame */
    WS_EVENT_BAD      /* the peer broke the protocol: close with `code` */
};

struct ws_event {
    enum ws_event_type type;
    enum ws_opcode opcode; /* of the message (text or binary), or of the control frame */
    struct str payload;    /* the piece, or the control frame's payload, unmasked in place */
    bool last;             /* DATA: the message ends with this piece */
    uint16_t code;         /* BAD: the close code to send; a close frame: the peer's */
    const char *error;     /* BAD: what is wrong; also the close frame's reason */
};

/* Takes one event off the front of `length` bytes, unmasking in place, and returns how many bytes
 * it consumed. With WS_EVENT_MORE, fewer than 14 + WS_CONTROL_MAX bytes are left unconsumed, for a
 * `whole` reader 14 + WS_WHOLE_MAX: call again when more stand behind them. */
size_t ws_read(struct ws_reader *reader, char *at, size_t length, struct ws_event *event);

/* Writes the header of an unmasked, final frame; returns its length, at most WS_HEADER_MAX. */
size_t ws_write_header(char out[WS_HEADER_MAX], enum ws_opcode opcode, uint64_t length);

/* One final frame around `payload`, as a server sends it; the caller has the reference. NULL
 * without memory. */
struct rcbuf *ws_frame(enum ws_opcode opcode, struct str payload);

/* The payload of a frame that ws_frame has made. */
struct str ws_payload(const struct rcbuf *frame);

/* The same as a client sends it: masked with `mask`, which should be random; NULL: not masked. */
struct rcbuf *ws_masked_frame(enum ws_opcode opcode, struct str payload, const uint8_t mask[4]);

/* A close frame. `reason` is cut at 123 bytes, which the caller must not let fall inside a
 * character. WS_CLOSE_NO_STATUS gives a frame without code and reason. */
struct rcbuf *ws_close_frame(unsigned code, struct str reason);

#endif
