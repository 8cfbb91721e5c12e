/* rfc9112.c - RFC 9112 over a socket, by vectors named after its sections: what two servers could
 * read differently is refused, and nothing behind it is taken for a request.
 *
 * Usage: rfc9112 PORT, against a wspush with max_body = 64 KiB and a system n. Each vector is a
 * request, or what looks like one, with a good request behind it in the same bytes; they are sent
 * in one write, seven bytes at a time and byte by byte. A request that is refused gets one answer,
 * and then the connection ends; one that is understood is answered, and so is the one behind it.
 * Every answer must have the envelope. */
#include "wire.h"

#define MAX_BODY 65536

/* A call that is answered with 200 and -1004 if, and only if, its whole body has been read: the
 * system n is registered. */
#define BODY "{\"systemId\":\"n\",\"password\":\"p\"}"
#define LENGTH "Content-Length: 31\r\n"
#define POST "POST /api/register HTTP/1.1\r\nHost: a\r\n"
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define WHOLE "1f\r\n" BODY "\r\n"
#define BEHIND "GET /behind HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"

#define UNDERSTOOD "200 -1004\n404 -1 close\n"
#define REFUSED(status) #status " -1 close\n"

static uint16_t port;

static const struct vector {
    const char *title;
    struct str bytes;
    const char *expected; /* a line for each answer: STATUS CODE, and "close" if it says so */
} vectors[] = {
    /* 2.2: CR and LF come in pairs, and nothing else ends a line */
    {"2.2 bare LF ends the request line", STR_INIT("GET / HTTP/1.1\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"2.2 bare LF ends a header line", STR_INIT("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"),
     REFUSED(400)},
    {"2.2 bare LF in a value", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\nY: c\r\n\r\n"),
     REFUSED(400)},
    {"2.2 bare LF ends the head", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\n\n"), REFUSED(400)},
    {"2.2 bare LF everywhere", STR_INIT("GET / HTTP/1.1\nHost: a\n\n"), REFUSED(400)},
    {"2.2 bare LF before the request", STR_INIT("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"2.2 lone CR in the request line", STR_INIT("GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"2.2 lone CR in a header line", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n"),
     REFUSED(400)},
    {"2.2 lone CR ends the request line", STR_INIT("GET / HTTP/1.1\rHost: a\r\n\r\n"),
     REFUSED(400)},
    {"2.2 two CR before the LF", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"), REFUSED(400)},
    {"2.2 lone CR for the empty line", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\n\rX"), REFUSED(400)},
    {"2.2 NUL in the method", STR_INIT("G\0T / HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.2 NUL in the target", STR_INIT("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.2 NUL in the version", STR_INIT("GET / HTTP/1.1\0\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.2 space before the first header", STR_INIT("GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
     REFUSED(400)},
    {"2.2 space, and a header behind", STR_INIT("GET / HTTP/1.1\r\n X\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"2.2 two empty lines before the request",
     STR_INIT("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.2 an empty line before the request", STR_INIT("\r\n" POST LENGTH "\r\n" BODY), UNDERSTOOD},
    {"2.2 what is no HTTP: TLS", STR_INIT("\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"),
     REFUSED(400)},
    /* 2.3: the version */
    {"2.3 HTTP/0.9, a line without a version", STR_INIT("GET /\r\n"), REFUSED(400)},
    {"2.3 HTTP/0.9 by name", STR_INIT("GET / HTTP/0.9\r\nHost: a\r\n\r\n"), REFUSED(505)},
    {"2.3 HTTP/2.0 preface", STR_INIT("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), REFUSED(505)},
    {"2.3 HTTP/3.0", STR_INIT("GET / HTTP/3.0\r\nHost: a\r\n\r\n"), REFUSED(505)},
    {"2.3 http in small letters", STR_INIT("GET / http/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 HTTP/1.10", STR_INIT("GET / HTTP/1.10\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 HTTP/01.1", STR_INIT("GET / HTTP/01.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 HTTP/1", STR_INIT("GET / HTTP/1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 HTTP/1,1", STR_INIT("GET / HTTP/1,1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 HTTP/+1.1", STR_INIT("GET / HTTP/+1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 a name that is not HTTP", STR_INIT("GET / ICAP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"2.3 HTTP/1.2 is read as 1.1",
     STR_INIT("POST /api/register HTTP/1.2\r\nHost: a\r\n" LENGTH "\r\n" BODY), UNDERSTOOD},
    /* 3: the request line */
    {"3 two spaces before the target", STR_INIT("GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3 two spaces before the version", STR_INIT("GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3 tab before the target", STR_INIT("GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3 tab before the version", STR_INIT("GET /\tHTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3 vertical tab before the version", STR_INIT("GET /\vHTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3 space behind the version", STR_INIT("GET / HTTP/1.1 \r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3 space before the method", STR_INIT(" GET / HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3 a fourth word", STR_INIT("GET / x HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.1 method that is no token", STR_INIT("GE(T / HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.1 method with a raw byte", STR_INIT("G\xc3\x84T / HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3.2 no target", STR_INIT("GET HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2 target with raw bytes", STR_INIT("GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3.2 target with DEL", STR_INIT("GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2 target with a fragment", STR_INIT("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2.1 target without a slash", STR_INIT("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2.1 target of a query", STR_INIT("GET ?a HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2.2 absolute form",
     STR_INIT("POST http://b:1/api/register HTTP/1.1\r\nHost: a\r\n" LENGTH "\r\n" BODY),
     UNDERSTOOD},
    {"3.2.2 absolute form of another scheme", STR_INIT("GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3.2.2 absolute form without a host", STR_INIT("GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3.2.2 absolute form with a user", STR_INIT("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
     REFUSED(400)},
    {"3.2.2 absolute form without Host", STR_INIT("GET http://a/ HTTP/1.1\r\n\r\n"), REFUSED(400)},
    {"3.2.3 authority form", STR_INIT("GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2.3 CONNECT", STR_INIT("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"), REFUSED(400)},
    {"3.2.4 asterisk form with GET", STR_INIT("GET * HTTP/1.1\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"3.2 no Host", STR_INIT("GET / HTTP/1.1\r\n\r\n"), REFUSED(400)},
    {"3.2 two Host", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), REFUSED(400)},
    {"3.2 the same Host twice", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"),
     REFUSED(400)},
    {"3.2 two Host in HTTP/1.0", STR_INIT("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
     REFUSED(400)},
    {"3.2 Host with a slash", STR_INIT("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), REFUSED(400)},
    {"3.2 Host with a space", STR_INIT("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), REFUSED(400)},
    {"3.2 Host with a user", STR_INIT("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), REFUSED(400)},
    {"3.2 Host with raw bytes", STR_INIT("GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n"), REFUSED(400)},
    {"3.2 Host with two ports", STR_INIT("GET / HTTP/1.1\r\nHost: a:1:2\r\n\r\n"), REFUSED(400)},
    {"3.2 Host with a port of letters", STR_INIT("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
     REFUSED(400)},
    {"3.2 Host with a bracket left open", STR_INIT("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
     REFUSED(400)},
    {"3.2 Host with NUL", STR_INIT("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n"), REFUSED(400)},
    {"3.2 Host of an address and a port",
     STR_INIT("POST /api/register HTTP/1.1\r\nHost: [::1]:80\r\n" LENGTH "\r\n" BODY), UNDERSTOOD},
    /* 5: header lines */
    {"5.1 space before the colon", STR_INIT("GET / HTTP/1.1\r\nHost : a\r\n\r\n"), REFUSED(400)},
    {"5.1 tab before the colon", STR_INIT(POST "Content-Length\t: 31\r\n\r\n" BODY), REFUSED(400)},
    {"5.1 empty header name", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"), REFUSED(400)},
    {"5.1 no colon", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"), REFUSED(400)},
    {"5.1 space in a name", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n"), REFUSED(400)},
    {"5.1 raw bytes in a name", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: b\r\n\r\n"),
     REFUSED(400)},
    {"5.1 NUL in a name", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n"), REFUSED(400)},
    {"5.1 NUL in a value", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\0\r\n\r\n"), REFUSED(400)},
    {"5.1 control byte in a value", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\x01\r\n\r\n"),
     REFUSED(400)},
    {"5.1 vertical tab in a value", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\v\r\n\r\n"),
     REFUSED(400)},
    {"5.1 DEL in a value", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\x7f\r\n\r\n"), REFUSED(400)},
    {"5.1 raw bytes and tabs in a value", STR_INIT(POST "X: \t\xff\t\x80 \r\n" LENGTH "\r\n" BODY),
     UNDERSTOOD},
    {"5.2 folded line", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"), REFUSED(400)},
    {"5.2 folded line with a tab", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\tc: d\r\n\r\n"),
     REFUSED(400)},
    {"5.2 folded Content-Length", STR_INIT(POST "Content-Length:\r\n 31\r\n\r\n" BODY),
     REFUSED(400)},
    {"5.2 folded Transfer-Encoding",
     STR_INIT(POST "Transfer-Encoding:\r\n chunked\r\n\r\n" WHOLE "0\r\n\r\n"), REFUSED(400)},
    {"5.2 a line of one space", STR_INIT("GET / HTTP/1.1\r\nHost: a\r\n \r\n\r\n"), REFUSED(400)},
    /* 6.1: Transfer-Encoding */
    {"6.1 Content-Length before Transfer-Encoding",
     STR_INIT(POST LENGTH "Transfer-Encoding: chunked\r\n\r\n" WHOLE "0\r\n\r\n"), REFUSED(400)},
    {"6.1 Content-Length behind Transfer-Encoding",
     STR_INIT(POST "Transfer-Encoding: chunked\r\n" LENGTH "\r\n" WHOLE "0\r\n\r\n"), REFUSED(400)},
    {"6.1 Content-Length of 0 and Transfer-Encoding",
     STR_INIT(POST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.1 Content-Length and Transfer-Encoding of nothing known",
     STR_INIT(POST LENGTH "Transfer-Encoding: x\r\n\r\n" BODY), REFUSED(400)},
    {"6.1 Transfer-Encoding in HTTP/1.0",
     STR_INIT("POST /api/register HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" WHOLE
              "0\r\n\r\n"),
     REFUSED(400)},
    {"6.1 chunked twice", STR_INIT(POST "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.1 chunked twice, in two lines",
     STR_INIT(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.1 chunked, and a line of something else",
     STR_INIT(POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.1 gzip, chunked", STR_INIT(POST "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
     REFUSED(501)},
    {"6.1 gzip, and chunked in a second line",
     STR_INIT(POST "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     REFUSED(501)},
    {"6.1 identity, chunked",
     STR_INIT(POST "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n"), REFUSED(501)},
    {"6.1 chunked with a vertical tab behind",
     STR_INIT(POST "Transfer-Encoding: chunked\v\r\n\r\n0\r\n\r\n"), REFUSED(400)},
    {"6.1 chunked with a vertical tab before",
     STR_INIT(POST "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"), REFUSED(400)},
    {"6.1 chunked with NUL behind", STR_INIT(POST "Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.1 chunked with blanks around, in any case",
     STR_INIT(POST "transfer-encoding:\t CHUnked \t\r\n\r\n" WHOLE "0\r\n\r\n"), UNDERSTOOD},
    /* 6.2: Content-Length */
    {"6.2 two Content-Length", STR_INIT(POST LENGTH "Content-Length: 5\r\n\r\n" BODY),
     REFUSED(400)},
    {"6.2 the same Content-Length twice", STR_INIT(POST LENGTH LENGTH "\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length as a list", STR_INIT(POST "Content-Length: 31, 31\r\n\r\n" BODY),
     REFUSED(400)},
    {"6.2 Content-Length with a comma", STR_INIT(POST "Content-Length: 31,\r\n\r\n" BODY),
     REFUSED(400)},
    {"6.2 Content-Length +31", STR_INIT(POST "Content-Length: +31\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length -31", STR_INIT(POST "Content-Length: -31\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length -0", STR_INIT(POST "Content-Length: -0\r\n\r\n"), REFUSED(400)},
    {"6.2 Content-Length 0x1f", STR_INIT(POST "Content-Length: 0x1f\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length 3 1", STR_INIT(POST "Content-Length: 3 1\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length 31.0", STR_INIT(POST "Content-Length: 31.0\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length 3_1", STR_INIT(POST "Content-Length: 3_1\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length in quotes", STR_INIT(POST "Content-Length: \"31\"\r\n\r\n" BODY),
     REFUSED(400)},
    {"6.2 Content-Length with a vertical tab", STR_INIT(POST "Content-Length: \v31\r\n\r\n" BODY),
     REFUSED(400)},
    {"6.2 Content-Length with NUL", STR_INIT(POST "Content-Length: 31\0\r\n\r\n" BODY),
     REFUSED(400)},
    {"6.2 empty Content-Length", STR_INIT(POST "Content-Length:\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length of 2 to the 64",
     STR_INIT(POST "Content-Length: 18446744073709551616\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length of 2 to the 64, and 31",
     STR_INIT(POST "Content-Length: 18446744073709551647\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 Content-Length of 30 digits",
     STR_INIT(POST "Content-Length: 999999999999999999999999999999\r\n\r\n" BODY), REFUSED(400)},
    {"6.2 greatest Content-Length",
     STR_INIT(POST "Content-Length: 18446744073709551615\r\n\r\n" BODY), REFUSED(413)},
    {"6.2 Content-Length one beyond max_body", STR_INIT(POST "Content-Length: 65537\r\n\r\n" BODY),
     REFUSED(413)},
    {"6.2 Content-Length beyond max_body, of one who waits for 100",
     STR_INIT(POST "Expect: 100-continue\r\nContent-Length: 65537\r\n\r\n"), REFUSED(413)},
    {"6.2 Content-Length with zeros and blanks",
     STR_INIT(POST "Content-Length: \t 0031 \t\r\n\r\n" BODY), UNDERSTOOD},
    /* 6.3: what only begins like chunked is not */
    {"6.3 xchunked", STR_INIT(POST "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"), REFUSED(400)},
    {"6.3 chunkedx", STR_INIT(POST "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n"), REFUSED(400)},
    {"6.3 chunked;q=1", STR_INIT(POST "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.3 chunked in quotes", STR_INIT(POST "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.3 chunked, gzip", STR_INIT(POST "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.3 chunked and a comma", STR_INIT(POST "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"6.3 identity", STR_INIT(POST "Transfer-Encoding: identity\r\n\r\n" BODY), REFUSED(400)},
    {"6.3 empty Transfer-Encoding", STR_INIT(POST "Transfer-Encoding:\r\n\r\n" BODY), REFUSED(400)},
    /* 7.1: chunks */
    {"7.1 a chunk", STR_INIT(CHUNKED WHOLE "0\r\n\r\n"), UNDERSTOOD},
    {"7.1 upper-case hex", STR_INIT(CHUNKED "1F\r\n" BODY "\r\n0\r\n\r\n"), UNDERSTOOD},
    {"7.1 zeros before a size", STR_INIT(CHUNKED "0001f\r\n" BODY "\r\n0000\r\n\r\n"), UNDERSTOOD},
    {"7.1 size with +", STR_INIT(CHUNKED "+1f\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size with -", STR_INIT(CHUNKED "-1f\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size with 0x", STR_INIT(CHUNKED "0x1f\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size behind a space", STR_INIT(CHUNKED " 1f\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size before a space", STR_INIT(CHUNKED "1f \r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size with a space inside", STR_INIT(CHUNKED "1 f\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1 size of no digits", STR_INIT(CHUNKED "\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 no size where the last chunk should be", STR_INIT(CHUNKED WHOLE "\r\n\r\n"),
     REFUSED(400)},
    {"7.1 extension without a size", STR_INIT(CHUNKED WHOLE ";a\r\n\r\n"), REFUSED(400)},
    {"7.1 size of other letters", STR_INIT(CHUNKED "1g\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size with NUL", STR_INIT(CHUNKED "1f\0\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size of 17 digits", STR_INIT(CHUNKED "1000000000000001f\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1 size of 33 digits",
     STR_INIT(CHUNKED "10000000000000000000000000000001f\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 size of 16 f", STR_INIT(CHUNKED "ffffffffffffffff\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1 size beyond max_body", STR_INIT(CHUNKED "10001\r\n"), REFUSED(413)},
    {"7.1 sizes beyond max_body together", STR_INIT(CHUNKED WHOLE "fff0\r\n"), REFUSED(413)},
    {"7.1 bare LF behind a size", STR_INIT(CHUNKED "1f\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 lone CR behind a size", STR_INIT(CHUNKED "1f\r" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 bare LF behind the last size", STR_INIT(CHUNKED WHOLE "0\n\r\n"), REFUSED(400)},
    {"7.1 no CRLF behind the data", STR_INIT(CHUNKED "1f\r\n" BODY "0\r\n\r\n"), REFUSED(400)},
    {"7.1 bare LF behind the data", STR_INIT(CHUNKED "1f\r\n" BODY "\n0\r\n\r\n"), REFUSED(400)},
    {"7.1 two bytes behind the data", STR_INIT(CHUNKED "1f\r\n" BODY "xx0\r\n\r\n"), REFUSED(400)},
    {"7.1 data longer than its size", STR_INIT(CHUNKED "1e\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1 data shorter than its size", STR_INIT(CHUNKED "20\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1 bare LF at the end", STR_INIT(CHUNKED WHOLE "0\r\n\n"), REFUSED(400)},
    /* 7.1.1: extensions are ignored if they are any */
    {"7.1.1 extensions",
     STR_INIT(CHUNKED "1f;a;b=c ; d = \"e;\\\"\xff\"\r\n" BODY "\r\n0;x\r\n\r\n"), UNDERSTOOD},
    {"7.1.1 extension without a name", STR_INIT(CHUNKED "1f;\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1.1 extension without a value", STR_INIT(CHUNKED "1f;a=\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1.1 extension with raw bytes", STR_INIT(CHUNKED "1f;\xc3\xa4\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1.1 extension with NUL", STR_INIT(CHUNKED "1f;a\0\r\n" BODY "\r\n0\r\n\r\n"), REFUSED(400)},
    {"7.1.1 extension with a lone CR", STR_INIT(CHUNKED "1f;a\rb\r\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1.1 bare LF in an extension", STR_INIT(CHUNKED "1f;a\n" BODY "\r\n0\r\n\r\n"),
     REFUSED(400)},
    {"7.1.1 quotation past the line's end",
     STR_INIT(CHUNKED "1f;a=\"\r\n" BODY "\r\n0\r\n\r\n\"\r\n"), REFUSED(400)},
    /* 7.1.2: trailers are ignored if they are any */
    {"7.1.2 trailers", STR_INIT(CHUNKED WHOLE "0\r\nA: b\r\nC: d\r\n\r\n"), UNDERSTOOD},
    {"7.1.2 Content-Length in a trailer",
     STR_INIT(CHUNKED WHOLE "0\r\nA: b\r\nContent-Length: 5\r\n\r\n"), REFUSED(400)},
    {"7.1.2 Transfer-Encoding in a trailer",
     STR_INIT(CHUNKED WHOLE "0\r\ntransfer-encoding: chunked\r\n\r\n"), REFUSED(400)},
    {"7.1.2 Host in a trailer", STR_INIT(CHUNKED WHOLE "0\r\nHost: a\r\n\r\n"), REFUSED(400)},
    {"7.1.2 Token in a trailer", STR_INIT(CHUNKED WHOLE "0\r\nToken: a\r\n\r\n"), REFUSED(400)},
    {"7.1.2 folded trailer", STR_INIT(CHUNKED WHOLE "0\r\nA: b\r\n c\r\n\r\n"), REFUSED(400)},
    {"7.1.2 trailer without a colon", STR_INIT(CHUNKED WHOLE "0\r\nA\r\n\r\n"), REFUSED(400)},
    {"7.1.2 trailer with a space before the colon", STR_INIT(CHUNKED WHOLE "0\r\nA : b\r\n\r\n"),
     REFUSED(400)},
    {"7.1.2 trailer without a name", STR_INIT(CHUNKED WHOLE "0\r\n: b\r\n\r\n"), REFUSED(400)},
    {"7.1.2 trailer with NUL", STR_INIT(CHUNKED WHOLE "0\r\nA: \0\r\n\r\n"), REFUSED(400)},
    {"7.1.2 bare LF behind a trailer", STR_INIT(CHUNKED WHOLE "0\r\nA: b\n\r\n"), REFUSED(400)},
    {"7.1.2 a request where a trailer could be", STR_INIT(CHUNKED WHOLE "0\r\n"), REFUSED(400)},
    /* 9.3: more requests than one */
    {"2.2 a line end behind a body", STR_INIT(POST LENGTH "\r\n" BODY "\r\n"), UNDERSTOOD},
    {"2.2 two of them", STR_INIT(POST LENGTH "\r\n" BODY "\r\n\r\n"), "200 -1004\n400 -1 close\n"},
    {"3.2.2 an absolute target without a path",
     STR_INIT("OPTIONS http://a?x=1 HTTP/1.1\r\nHost: a\r\n\r\n"), "200 0\n404 -1 close\n"},
    {"9.3 a bad request behind a good one",
     STR_INIT(POST LENGTH "\r\n" BODY "GET / HTTP/1.1\nHost: a\r\n\r\n"),
     "200 -1004\n400 -1 close\n"},
    {"9.3 a request that looks like a body", STR_INIT("GET /a HTTP/1.1\r\nHost: a\r\n\r\n" BODY),
     "404 -1\n400 -1 close\n"},
    {"9.3 a body that looks like a request",
     STR_INIT(POST "Content-Length: 34\r\n\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n\r\n"),
     "400 -1\n404 -1 close\n"},
    {"9.3 chunks that look like a request",
     STR_INIT(CHUNKED "22\r\nGET /never HTTP/1.1\r\nHost: a\r\n\r\n\r\n\r\n0\r\n\r\n"),
     "400 -1\n404 -1 close\n"},
    {"9.3 nothing is read behind Connection: close",
     STR_INIT(POST "Connection: close\r\n" LENGTH "\r\n" BODY), "200 -1004 close\n"},
    {"9.3 nothing is read behind HTTP/1.0",
     STR_INIT("POST /api/register HTTP/1.0\r\n" LENGTH "\r\n" BODY), "200 -1004 close\n"},
    /* RFC 9110, 10.1.1 */
    {"10.1.1 another expectation", STR_INIT(POST "Expect: 200-ok\r\n" LENGTH "\r\n" BODY),
     REFUSED(417)},
};

static void append(struct buf *out, struct str bytes)
{
    if (!buf_append(out, bytes))
        abort();
}

static void append_number(struct buf *out, int64_t number)
{
    if (!buf_append_number(out, number))
        abort();
}

/* Cuts `text`, which must begin the rest, off it. */
static bool cut_text(struct str *rest, const char *text)
{
    size_t length = strlen(text);

    if (rest->length < length || memcmp(rest->at, text, length) != 0)
        return false;
    *rest = (struct str){rest->at + length, rest->length - length};
    return true;
}

/* Cuts a code off: a number that may have a sign. */
static struct str cut_code(struct str *rest)
{
    size_t i = 0;

    while (i < rest->length && (rest->at[i] == '-' || (rest->at[i] >= '0' && rest->at[i] <= '9')))
        i++;
    *rest = (struct str){rest->at + i, rest->length - i};
    return (struct str){rest->at - i, i};
}

/* {"code":CODE,"msg":"what is wrong","data":[]} and nothing else; writes the code. */
static bool describe_envelope(struct str body, struct buf *out)
{
    struct str code;

    if (!cut_text(&body, "{\"code\":"))
        return false;
    code = cut_code(&body);
    if (code.length == 0 || !cut_text(&body, ",\"msg\":\"") || body.length < 12 ||
        memcmp(body.at + body.length - 12, "\",\"data\":[]}", 12) != 0)
        return false;
    append(out, code);
    return body.length > 12 && !memchr(body.at, '"', body.length - 12);
}

/* Writes a line for the answer at the front of `rest` and cuts it off; false if it is malformed. */
static bool describe_answer(struct str *rest, struct buf *out)
{
    struct str head, value = {0};
    uint64_t length = 0;

    if (!wire_head(rest, &head))
        return false;
    append_number(out, wire_status(head));
    if (wire_status(head) == 100) {
        append(out, STR("\n"));
        return true;
    }
    append(out, STR(" "));
    if (!wire_field_is(head, "Content-Type", "application/json; charset=utf-8") ||
        wire_field(head, "Content-Length", &value) != 1 ||
        !str_number(value, rest->length, &length) ||
        !describe_envelope((struct str){rest->at, (size_t)length}, out))
        return false;
    *rest = (struct str){rest->at + length, rest->length - (size_t)length};
    append(out, wire_field_is(head, "Connection", "close") ? STR(" close\n") : STR("\n"));
    return true;
}

static bool answers(struct str sent, const struct wire_manner *manner, const char *expected)
{
    struct buf in = {0}, got = {0};
    enum wire_end end = wire_talk(port, sent, manner->size, &in);
    struct str rest = str_of(&in);
    bool good;

    while (rest.length)
        if (!describe_answer(&rest, &got)) {
            append(&got, STR(" malformed"));
            break;
        }
    good = end == WIRE_ENDED && str_equal(str_of(&got), str_from(expected));
    if (!good) {
        printf("     %s, the connection %s\n", manner->name, wire_ends[end]);
        wire_show("expected", str_from(expected));
        wire_show("got", str_of(&got));
        wire_show("which was", str_of(&in));
    }
    buf_free(&in);
    buf_free(&got);
    return good;
}

static bool answers_always(struct str sent, const char *expected)
{
    struct buf bytes = {0};
    bool good = true;

    append(&bytes, sent);
    append(&bytes, STR(BEHIND));
    for (size_t i = 0; i < COUNT(wire_manners); i++)
        good &= answers(str_of(&bytes), &wire_manners[i], expected);
    buf_free(&bytes);
    return good;
}

static void run_vectors(void)
{
    for (size_t i = 0; i < COUNT(vectors); i++)
        wire_report("wspush", vectors[i].title,
                    answers_always(vectors[i].bytes, vectors[i].expected));
}

static void append_chunk(struct buf *out, struct str data)
{
    char size[24];

    snprintf(size, sizeof size, "%zx\r\n", data.length);
    append(out, str_from(size));
    append(out, data);
    append(out, STR("\r\n"));
}

static void run_small_chunks(void)
{
    struct buf bytes = {0};
    struct str body = STR(BODY);

    append(&bytes, STR(CHUNKED));
    for (size_t i = 0; i < body.length; i++)
        append_chunk(&bytes, (struct str){body.at + i, 1});
    append(&bytes, STR("0\r\n\r\n"));
    wire_report("wspush", "7.1 chunks of one byte", answers_always(str_of(&bytes), UNDERSTOOD));
    buf_free(&bytes);
}

/* A body of max_body bytes is read to its end, and found to be no JSON; with a chunk more it is
 * refused for its length. */
static void run_large_chunks(void)
{
    static const char data[1024];
    static const struct wire_manner manner = {"in pieces of 997", 997};
    struct buf bytes = {0};
    size_t length;

    append(&bytes, STR(CHUNKED));
    for (int i = 0; i < MAX_BODY / 1024; i++)
        append_chunk(&bytes, (struct str){data, sizeof data});
    length = bytes.length;
    append(&bytes, STR("0\r\n\r\n" BEHIND));
    wire_report("wspush", "7.1 chunks of max_body bytes",
                answers(str_of(&bytes), &manner, "400 -1\n404 -1 close\n"));
    bytes.length = length;
    append(&bytes, STR("1\r\n \r\n0\r\n\r\n" BEHIND));
    wire_report("wspush", "7.1 chunks of max_body bytes and one",
                answers(str_of(&bytes), &manner, REFUSED(413)));
    buf_free(&bytes);
}

/* Sends a head, waits for the answer 100, and only then sends the rest. */
static bool continues(struct str head, struct str rest)
{
    struct buf in = {0}, got = {0};
    int fd = wire_connect(port);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    enum wire_end end = WIRE_REFUSED;
    struct str answer;
    bool good = fd >= 0 && send(fd, head.at, head.length, MSG_NOSIGNAL) == (ssize_t)head.length &&
                poll(&ready, 1, WIRE_PATIENCE) == 1;

    if (good)
        end = wire_exchange(fd, rest, SIZE_MAX, &in);
    if (fd >= 0)
        close(fd);
    answer = str_of(&in);
    while (answer.length && describe_answer(&answer, &got))
        ;
    good = end == WIRE_ENDED && str_equal(str_of(&got), STR("100\n" UNDERSTOOD));
    if (!good)
        wire_show("got", str_of(&got));
    buf_free(&in);
    buf_free(&got);
    return good;
}

static void run_continues(void)
{
    wire_report("wspush", "10.1.1 Expect: 100-continue",
                continues(STR(POST "Expect: 100-continue\r\n" LENGTH "\r\n"), STR(BODY BEHIND)));
    wire_report("wspush", "10.1.1 Expect: 100-continue with chunks",
                continues(STR(POST "expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n\r\n"),
                          STR(WHOLE "0\r\n\r\n" BEHIND)));
}

int main(int argc, char **argv)
{
    uint64_t number = 0;

    if (argc != 2 || !str_number(str_from(argv[1]), UINT16_MAX, &number)) {
        fputs("usage: rfc9112 PORT\n", stderr);
        return 2;
    }
    port = (uint16_t)number;
    run_vectors();
    run_small_chunks();
    run_large_chunks();
    run_continues();
    return test_finish();
}
