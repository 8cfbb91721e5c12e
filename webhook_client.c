/* webhook_client.c - a receiver of webhooks: its URL, and an HTTP/1.1 connection to it.
 *
 * URLs. An operator allows prefixes; so whatever two readers could take for different hosts or
 * paths is no URL here: a user before '@', an address in another form than inet_pton's, "..", or
 * an encoded dot or slash.
 *
 * Flow. The socket never blocks: each step tries, then polls for what TLS or the kernel wants,
 * until the deadline of the request, or until the stop descriptor is readable. http.c parses the
 * head of the response. Its status counts, whatever becomes of the body, which is read into the
 * same piece of memory and dropped; but only after a body that has ended can the connection stay.
 *
 * A receiver may end a kept connection while the next request is on its way. If nothing of a
 * response has come, that request is `stale`: the caller sends it once more on a new connection. */
#include "webhook_client.h"

#include "host.h"
#include "http.h"
#include "os.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 8192
#define INTERIM_MAX 8 /* 1xx responses before the final one */

/* --- URLs ------------------------------------------------------------------------------------ */

/* True if `path`, up to its query, has "..", or encoded what separates segments or makes dots. */
static bool receiver_is_evasive(struct str path)
{
    for (; path.length && *path.at != '?'; path = str_skip(path, 1)) {
        struct str three = {path.at, path.length < 3 ? path.length : 3};

        if ((path.length > 1 && memcmp(path.at, "..", 2) == 0) || *path.at == '\\' ||
            str_equal_nocase(three, STR("%2e")) || str_equal_nocase(three, STR("%2f")) ||
            str_equal_nocase(three, STR("%5c")))
            return true;
    }
    return false;
}

bool receiver_read_url(struct str text, struct receiver_url *url)
{
    struct str rest = text, scheme = str_cut(&rest, ':'), host;

    *url = (struct receiver_url){.secure = str_equal_nocase(scheme, STR("https"))};
    if (text.length > RECEIVER_URL_MAX || rest.length < 2 || memcmp(rest.at, "//", 2) != 0 ||
        (!url->secure && !str_equal_nocase(scheme, STR("http"))))
        return false;
    for (size_t i = 0; i < text.length; i++)
        if (text.at[i] <= ' ' || text.at[i] > '~' || text.at[i] == '#')
            return false;
    url->path = rest = str_skip(rest, 2);
    url->authority = str_cut(&rest, '/');
    url->path = rest.at ? str_skip(url->path, url->authority.length) : STR("/");
    if (!host_split(url->authority, &host, &url->port) || !host_is_reachable(host) ||
        host.length >= sizeof url->host || receiver_is_evasive(url->path) ||
        (*url->authority.at != '[' && memchr(host.at, ':', host.length)))
        return false;
    memcpy(url->host, host.at, host.length);
    if (url->port == 0)
        url->port = url->secure ? 443 : 80;
    return true;
}

bool receiver_is_allowed(struct str list, struct str text)
{
    struct receiver_url url, allowed;
    struct str entry;

    if (!receiver_read_url(text, &url))
        return false;
    while ((entry = str_entry(&list)).length)
        if (receiver_read_url(entry, &allowed) && allowed.secure == url.secure &&
            allowed.port == url.port &&
            str_equal_nocase(str_from(allowed.host), str_from(url.host)) &&
            allowed.path.length <= url.path.length &&
            memcmp(allowed.path.at, url.path.at, allowed.path.length) == 0)
            return true;
    return false;
}

/* --- connections ----------------------------------------------------------------------------- */

bool receiver_open(struct receiver *receiver, int fd, const struct tls_context *tls,
                   const struct receiver_url *url)
{
    *receiver = (struct receiver){.fd = fd};
    if (!url->secure || (tls && (receiver->tls = tls_connect(tls, fd, url->host))))
        return true;
    receiver_close(receiver);
    return false;
}

void receiver_close(struct receiver *receiver)
{
    if (receiver->tls)
        tls_finish(receiver->tls);
    tls_close(receiver->tls);
    if (receiver->fd >= 0)
        close(receiver->fd);
    *receiver = (struct receiver){.fd = -1};
}

bool receiver_is_open(struct receiver *receiver)
{
    struct pollfd polled = {.fd = receiver->fd, .events = POLLIN};

    if (receiver->fd >= 0 && poll(&polled, 1, 0) == 0)
        return true;
    receiver_close(receiver);
    return false;
}

/* --- an exchange ----------------------------------------------------------------------------- */

/* A request under way. */
struct exchange {
    struct receiver *receiver;
    int64_t deadline;
    int stop;
    bool ended;        /* by the receiver */
    const char *error; /* why it cannot go on */
    size_t length;     /* of the response, as far as it has come and is not dropped, */
    char input[HEAD_MAX + TLS_RECORD_MAX];
};

/* Waits until a step that has returned `status` may be tried again; false if it may not. */
static bool receiver_wait(struct exchange *exchange, enum tls_status status)
{
    const struct tls *tls = exchange->receiver->tls;
    struct pollfd polled[] = {
        {exchange->receiver->fd, status == TLS_WANTS_READ ? POLLIN : POLLOUT, 0},
        {exchange->stop, POLLIN, 0}};
    int64_t left = exchange->deadline - os_now_ms();

    exchange->ended = status != TLS_WANTS_READ && status != TLS_WANTS_WRITE;
    if (exchange->ended)
        exchange->error = tls && tls->reason ? tls->reason : "the receiver ended the connection";
    else if (left <= 0)
        exchange->error = "no response in time";
    else if (poll(polled, 2, (int)left) < 0 && errno != EINTR)
        exchange->error = strerror(errno);
    else if (polled[1].revents)
        exchange->error = "stopped";
    return !exchange->error;
}

/* Sends or receives at least one byte, at most `size`. Returns how many; 0: it cannot go on. */
static size_t receiver_move(struct exchange *exchange, bool sends, char *at, size_t size)
{
    const struct receiver *receiver = exchange->receiver;
    enum tls_status status;
    size_t count;

    size = size < TLS_RECORD_MAX ? size : TLS_RECORD_MAX;
    do {
        if (receiver->tls) {
            status = sends ? tls_write(receiver->tls, at, size, &count)
                           : tls_read(receiver->tls, at, size, &count);
        } else {
            ssize_t n = sends ? send(receiver->fd, at, size, 0) : recv(receiver->fd, at, size, 0);

            count = n > 0 ? (size_t)n : 0;
            status = n > 0 ? TLS_DONE : sends ? TLS_WANTS_WRITE : TLS_WANTS_READ;
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
                status = TLS_ENDED;
        }
    } while (status != TLS_DONE && receiver_wait(exchange, status));
    return status == TLS_DONE ? count : 0;
}

static bool receiver_read(struct exchange *exchange)
{
    size_t count = receiver_move(exchange, false, exchange->input + exchange->length,
                                 sizeof exchange->input - exchange->length);

    exchange->length += count;
    return count > 0;
}

static void receiver_drop(struct exchange *exchange, size_t count)
{
    exchange->length -= count;
    memmove(exchange->input, exchange->input + count, exchange->length);
}

/* Reads the head of the final response, whose views are not valid afterwards. */
static bool receiver_read_head(struct exchange *exchange, struct http_request *head)
{
    for (unsigned interim = 0; interim < INTERIM_MAX;) {
        enum http_result result =
            http_parse_response((struct str){exchange->input, exchange->length}, HEAD_MAX, head);

        if (result == HTTP_BAD)
            break;
        if (result == HTTP_OK) {
            receiver_drop(exchange, head->head_length);
            if (head->status >= 200)
                return true;
            interim++;
        } else if (!receiver_read(exchange)) {
            return false;
        }
    }
    exchange->error = "the response is not HTTP/1.1";
    return false;
}

/* Reads and drops the response's body. True if it has ended, and nothing follows it. */
static bool receiver_skip_body(struct exchange *exchange, const struct http_request *head)
{
    enum http_result result;
    struct http_chunks chunks = {0};
    uint64_t left = head->content_length, total = 0;
    int status;

    do {
        size_t length = exchange->length < left ? exchange->length : (size_t)left;

        result = (left -= length) ? HTTP_MORE : HTTP_OK;
        if (head->chunked) {
            result = http_read_chunks(&chunks, exchange->input, &exchange->length,
                                      RECEIVER_BODY_MAX, &status);
            length = chunks.length;
            chunks.length = 0; /* nothing is kept */
        }
        if (result == HTTP_BAD)
            return false;
        receiver_drop(exchange, length);
        total += length;
    } while (total <= RECEIVER_BODY_MAX && result == HTTP_MORE && receiver_read(exchange));
    return total <= RECEIVER_BODY_MAX && result == HTTP_OK && exchange->length == 0;
}

void receiver_post(struct receiver *receiver, const struct buf *request, int64_t timeout, int stop,
                   struct receiver_result *result)
{
    struct exchange exchange;
    struct http_request head;
    size_t sent = 0, count;
    bool keep = false;

    memset(&exchange, 0, offsetof(struct exchange, input));
    exchange.receiver = receiver;
    exchange.deadline = os_now_ms() + timeout;
    exchange.stop = stop;
    *result = (struct receiver_result){0};
    while (sent < request->length &&
           (count = receiver_move(&exchange, true, request->at + sent, request->length - sent)))
        sent += count;
    if (exchange.ended)
        exchange.error = NULL; /* a response may have come first */
    if (!exchange.error && receiver_read_head(&exchange, &head)) {
        result->status = head.status;
        keep = receiver_skip_body(&exchange, &head) && head.keep_alive;
    } else {
        result->error = exchange.error;
        result->stale = exchange.ended && exchange.length == 0;
    }
    if (!keep)
        receiver_close(receiver);
}
