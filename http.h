/* http.h - HTTP/1.1 (RFC 9110, RFC 9112): bytes to a request view, an answer to bytes. No sockets.
 *
 * The parser is a pure function of the bytes and their number. It gives one of three answers and
 * keeps nothing between calls; the request it fills is made of views of the bytes.
 * Refuses: whatever two servers could read differently - a bare LF, folded lines, a space before
 * the colon, two Host or Content-Length fields, Content-Length beside Transfer-Encoding, numbers
 * with signs - and every transfer coding but chunked. */
#ifndef WSPUSH_HTTP_H
#define WSPUSH_HTTP_H

#include "buf.h"

#define HTTP_HEADERS_MAX 100

enum http_result {
    HTTP_BAD = -1, /* refused: `status` and `error` of the request say why */
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
    struct str query;     /* what stands behind '?', or empty */
    struct str host;      /* whom it is for: the authority of an absolute target, else Host */
    unsigned minor;       /* HTTP/1.minor */
    bool keep_alive;      /* the connection may serve another request */
    bool expect_continue; /* the sender waits for 100 before it sends the body */
    bool chunked;         /* the body is in chunks; content_length is 0 then */
    uint64_t content_length;
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t header_count;

    int status;        /* with HTTP_BAD: the status to answer with, */
    const char *error; /* and what is wrong, in plain English */
};

/* Reads a request's head of at most `max_head` bytes. */
enum http_result http_parse_request(struct str bytes, size_t max_head,
                                    struct http_request *request);

/* How many fields have this name (case does not count); *value is the first one's, trimmed. */
size_t http_header(const struct http_request *request, struct str name, struct str *value);

/* True if the comma-separated list that the fields of this name make has `token` in it. */
bool http_header_has(const struct http_request *request, struct str name, struct str token);

/* A host without its port; an address of IPv6 keeps its brackets. */
struct str http_host_name(struct str host);

/* Appends the percent-decoded value of a query parameter to `out`. False if the parameter is
 * missing, badly encoded, or too long for `out`; a '+' stays a '+'. */
bool http_query(struct str query, struct str name, struct buf *out);

/* How far a chunked body has been read. Zeroed is the start. */
struct http_chunks {
    enum { CHUNK_SIZE, CHUNK_DATA, CHUNK_DATA_END, CHUNK_TRAILER } state;
    uint32_t left;         /* bytes of the chunk still to come */
    uint32_t length;       /* bytes of content, moved together at the body's beginning */
    uint32_t trailer_left; /* bytes the trailer may still have */
};

/* Decodes the chunked body that begins at `at`, in place and from where it stopped. *length is how
 * many bytes are there, and becomes how many are left: first chunks->length bytes of content,
 * behind them what is not decoded yet (HTTP_MORE) or follows the body (HTTP_OK). HTTP_BAD: a chunk
 * is malformed, or a trailer has a field of the head (*status 400), or the content exceeds
 * `max_body`, below 4 GiB (*status 413). */
enum http_result http_read_chunks(struct http_chunks *chunks, char *at, size_t *length,
                                  size_t max_body, int *status);

/* What an answer is not to be mistaken for: no cache keeps it, no browser guesses its type. Answers
 * in JSON have these lines; others name them in `fields`. */
#define HTTP_UNCACHED "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

/* An answer. Zeroed members are left out. With 401 goes a challenge, as RFC 9110 demands. */
struct http_response {
    int status;
    struct str date; /* as in the Date field */
    struct str body;
    const char *type;     /* the body's media type; NULL: JSON */
    const char *allow;    /* methods, with 405 and OPTIONS */
    const char *fields;   /* further header lines, each with its CRLF */
    unsigned retry_after; /* seconds */
    unsigned timeout;     /* seconds that the connection may be idle, if it stays */
    bool close;           /* this is the connection's last answer */
    bool keep_alive;      /* say so: an HTTP/1.0 client asked */
    bool head;            /* the request was HEAD, or the body goes another way: write none */
};

/* Appends an answer's bytes. */
void http_write_response(struct buf *out, const struct http_response *answer);

/* Writes a date as RFC 9110, section 5.6.7 has it: 29 bytes and a NUL. */
void http_date(int64_t unix_seconds, char text[30]);

#endif
