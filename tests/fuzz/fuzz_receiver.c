/* fuzz_receiver.c - what receivers of webhooks answer (webhook_client.c, http.c), and URLs of them.
 * However the bytes come, they are understood in the same way; only a connection on which nothing
 * is left may be kept. recv(), send() and close() end here. */
#include "http.h"
#include "webhook_client.h"

#include "fuzz.h"

#include <sys/socket.h>

static struct fuzz incoming;
static uint32_t incoming_split;

ssize_t __wrap_recv(int fd, void *at, size_t size, int flags);
ssize_t __wrap_send(int fd, const void *at, size_t size, int flags);
int __wrap_close(int fd);

ssize_t __wrap_recv(int fd, void *at, size_t size, int flags)
{
    size_t piece = incoming.length ? next_piece(&incoming_split, incoming.length) : 0;
    struct str bytes = fuzz_take(&incoming, piece < size ? piece : size);

    (void)fd;
    (void)flags;
    if (bytes.length)
        memcpy(at, bytes.at, bytes.length);
    return (ssize_t)bytes.length;
}

ssize_t __wrap_send(int fd, const void *at, size_t size, int flags)
{
    (void)fd;
    (void)at;
    (void)flags;
    return (ssize_t)size;
}

int __wrap_close(int fd)
{
    (void)fd;
    return 0;
}

/* Posts a request that is answered with these bytes, in pieces. */
static bool post(struct str bytes, uint32_t split, struct receiver_result *result)
{
    static char bytes_sent[4];
    const struct buf request = {.at = bytes_sent, .length = 4};
    struct receiver receiver = {.fd = 1};

    incoming = (struct fuzz){bytes.at, bytes.length};
    incoming_split = split;
    receiver_post(&receiver, &request, 1000, -1, result);
    REQUIRE(receiver.fd == (receiver.fd < 0 ? -1 : 1) && !receiver.tls);
    REQUIRE((result->status == 0) == (result->error != NULL));
    REQUIRE(result->status == 0 || (result->status >= 200 && result->status <= 999));
    REQUIRE(!result->stale || (result->status == 0 && incoming.length == 0));
    return receiver.fd >= 0;
}

static void try_response(struct str bytes, uint32_t split)
{
    struct receiver_result whole, pieces;
    bool kept = post(bytes, 0, &whole);

    REQUIRE(!kept || incoming.length == 0);
    for (uint32_t how = 1; how <= 2; how++) {
        bool keeps = post(bytes, how == 1 ? 1 : split + 2, &pieces);

        REQUIRE(pieces.status == whole.status && pieces.stale == whole.stale);
        REQUIRE(keeps || !kept); /* the reverse: more than the response had come at once */
    }
}

/* A head that is taken is taken at its end, and not before. */
static void try_head(struct str bytes)
{
    struct str copy = exact_copy(bytes);
    struct http_request head, again;
    enum http_result result = http_parse_response(copy, 512, &head);

    REQUIRE((result == HTTP_BAD) == (head.error != NULL));
    if (result == HTTP_OK) {
        REQUIRE(head.head_length <= copy.length && head.status >= 100 && head.status <= 999);
        REQUIRE(!head.chunked || head.content_length == 0);
        REQUIRE(http_parse_response((struct str){copy.at, head.head_length - 1}, 512, &again) ==
                HTTP_MORE);
        REQUIRE(http_parse_response((struct str){copy.at, head.head_length}, 512, &again) ==
                HTTP_OK);
        REQUIRE(again.status == head.status && again.content_length == head.content_length);
    }
    free_copy(copy);
}

static void try_url(struct fuzz *fuzz)
{
    struct str list = exact_copy(fuzz_take(fuzz, fuzz_byte(fuzz))),
               text = exact_copy(fuzz_rest(fuzz));
    struct receiver_url url;
    char plain[RECEIVER_URL_MAX + 300];

    if (receiver_read_url(text, &url)) {
        REQUIRE(url.port > 0 && url.port < 65536 && url.host[0] && url.path.at[0] == '/');
        REQUIRE(is_inside(url.authority, text));
        REQUIRE(receiver_is_allowed(text, text) || memchr(text.at, ',', text.length));
        /* written in its plainest form it means the same */
        snprintf(plain, sizeof plain, strchr(url.host, ':') ? "%s://[%s]:%u%.*s" : "%s://%s:%u%.*s",
                 url.secure ? "https" : "http", url.host, (unsigned)url.port, (int)url.path.length,
                 url.path.at);
        REQUIRE(strlen(plain) > RECEIVER_URL_MAX || strchr(plain, ',') ||
                receiver_is_allowed(str_from(plain), text));
    } else {
        REQUIRE(!receiver_is_allowed(list, text));
    }
    receiver_is_allowed(list, text);
    free_copy(list);
    free_copy(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};
    unsigned kind = fuzz_byte(&fuzz);
    uint32_t split = fuzz_byte(&fuzz);

    if (kind % 4 == 0) {
        try_url(&fuzz);
    } else {
        try_head((struct str){fuzz.at, fuzz.length});
        try_response(fuzz_rest(&fuzz), split);
    }
    return 0;
}
