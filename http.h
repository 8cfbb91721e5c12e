/* http.h - HTTP/1.1 (RFC 9110, RFC 9112): bytes to a view of a request or a response, and a
 * response to bytes. No sockets.
 *
 * The parser is a pure function of the bytes: a head is whole, not whole yet, or bad. Nothing is
 * kept between calls; a request is made of views of the bytes.
 *
 * Rejects whatever two servers could read differently: a bare LF, folded lines, a space before the
 * colon, two Host or Content-Length fields, Content-Length beside Transfer-Encoding, numbers with
 * signs, and every transfer coding but chunked. */
#ifndef WSPUSH_HTTP_H
#define WSPUSH_HTTP_H

#include "buf.h"

#define HTTP_HEADERS_MAX 100

enum http_result {
    HTTP_BAD = -1, /* rejected: `status` and `error` of the request say why */
    HTTP_MORE = 0, /* good so far, but not whole */
    HTTP_OK = 1
};

struct http_header {
    struct str name, value;
};

/* A request's head. All views point into the bytes that were parsed. */
struct http_request {
    size_t head_length;   /* bytes from the first to the end of the empty line */
    struct str method;    /* as sent; methods are case-sensitive */
    struct str path;      /* the target without its query, not percent-decoded; "*" for OPTIONS * */
    struct str query;     /* what follows '?', or empty */
    struct str host;      /* the authority of an absolute target, else Host */
    unsigned minor;       /* HTTP/1.minor */
    bool keep_alive;      /* the connection may serve another request */
    bool expect_continue; /* the client waits for 100 before it sends the body */
    bool chunked;         /* the body is in chunks; content_length is 0 then */
    uint64_t content_length;

    int status;        /* of a response; with HTTP_BAD: that of its response */
    const char *error; /* with HTTP_BAD: what is wrong, in plain English */

    size_t header_count;
    struct http_header headers[HTTP_HEADERS_MAX]; /* last: not cleared */
};

/* Parses the request's head at the front of `bytes`, of at most `max_head` bytes. */
enum http_result http_parse_request(struct str bytes, size_t max_head,
                                    struct http_request *request);

/* Parses the head of a response to a POST in the same way: minor, keep_alive, chunked, status (100
 * to 999) and the fields are set. content_length is UINT64_MAX for a body that ends with the
 * connection. */
enum http_result http_parse_response(struct str bytes, size_t max_head, struct http_request *head);

/* Returns how many fields have this name, without regard to case; *value is the first one's,
 * trimmed, and untouched if there is none. */
size_t http_header(const struct http_request *request, struct str name, struct str *value);

/* The position of a walk over a list in header fields. Zeroed is the beginning. */
struct http_cursor {
    size_t header; /* that comes next */
    struct str rest;
};

/* Takes the next entry, trimmed, of the comma-separated lists in the fields of this name; false at
 * the end. Entries may be empty. */
bool http_next_entry(const struct http_request *request, struct str name,
                     struct http_cursor *cursor, struct str *entry);

/* True if these lists have `token` as an entry, without regard to case. */
bool http_header_has(const struct http_request *request, struct str name, struct str token);

/* A host without its port; an address of IPv6 keeps its brackets. */
struct str http_host_name(struct str host);

/* Appends the percent-decoded value of a query parameter to `out`; a '+' stays a '+'. False if the
 * parameter is missing, or `out` has failed: it is badly encoded, or too long for `out`. */
bool http_query(struct str query, struct str name, struct buf *out);

/* How far a chunked body has been read. Zeroed is the start. */
struct http_chunks {
    enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER, CHUNK_DONE } state;
    uint32_t left;         /* bytes of the chunk still to come */
    uint32_t length;       /* bytes of content, moved together at the body's beginning */
    uint32_t trailer_left; /* bytes the trailer may still have */
};

/* Decodes a chunked body in place, from where it stopped. `at` is the beginning of the body;
 * *length is how many bytes are there, and becomes how many are left: chunks->length bytes of
 * content, and behind them what is not decoded yet (HTTP_MORE) or follows the body (HTTP_OK).
 * HTTP_BAD: a chunk is malformed, or a trailer has a field of the head (*status 400), or the
 * content exceeds `max_body`, below 4 GiB (*status 413). */
enum http_result http_read_chunks(struct http_chunks *chunks, char *at, size_t *length,
                                  size_t max_body, int *status);

/* Header lines against caches and against browsers that guess types. Responses in JSON have them;
 * others name them in `fields`. */
#define HTTP_UNCACHED "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

/* A response. Zeroed members are left out. With 401 a challenge is sent (RFC 9110, section 15.5.2).
 */
struct http_response {
    int status;
    struct str date; /* as in the Date field */
    struct str body;
    const char *type;     /* the body's media type; NULL: JSON */
    const char *allow;    /* methods, with 405 and OPTIONS */
    const char *fields;   /* further header lines, each with its CRLF */
    unsigned retry_after; /* seconds */
    unsigned timeout;     /* seconds that the connection may be idle, if it stays */
    bool close;           /* this is the connection's last response */
    bool keep_alive;      /* say so: an HTTP/1.0 client asked */
    bool head;            /* the request was HEAD, or the body goes another way: write none */
};

/* Appends a response's bytes. */
void http_write_response(struct buf *out, const struct http_response *response);

/* Writes a date as RFC 9110, section 5.6.7 has it: 29 bytes and a NUL. */
void http_date(int64_t unix_seconds, char text[30]);

#endif
