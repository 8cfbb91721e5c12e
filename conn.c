/* conn.c - one socket, plain or TLS: limited input, a send queue of shared messages, flush, kill.
 *
 * Input: a read goes to the shared scratch buffer, behind a copy of what was kept before, as long
 * as that is little. The user of the input keeps what it could not use (conn_keep). A long message
 * that comes in many pieces is read straight into the connection's own buffer instead, and not
 * moved.
 *
 * Output: messages are shared bytes, in a queue whose first entry is in struct conn and whose
 * others are in a ring that exists while there are any. So a push to an idle client allocates
 * nothing. A flush writes up to 64 messages per writev, or packs them into TLS records, until the
 * socket takes no more; then want_write is set and POLLOUT continues. A queue's cost counts memory,
 * not payload alone; shared->buffered counts each message once, however many queues hold it.
 *
 * Invariant: a connection with new output, or one that broke, is in one of the two dirty lists,
 * from which the loop flushes. Only the loop's thread touches a connection. */
#include "conn.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define VECTORS 64
#define PONG_MAX 0x3ffffffu /* the last place in the queue that conn->pong can name */
#define RING_MIN 8          /* slots of a new ring: a power of two */
#define COPY_MAX 4096 /* bytes of kept input up to which they are copied to the scratch buffer */

void conn_open(struct conn *conn, int fd, struct conn_shared *shared)
{
    *conn = (struct conn){.fd = fd, .shared = shared};
}

bool conn_secure(struct conn *conn, const struct tls_context *context)
{
    conn->tls = tls_open(context, conn->fd);
    return conn->tls;
}

bool conn_is_opening(const struct conn *conn)
{
    return conn->tls && tls_is_opening(conn->tls);
}

const char *conn_failure(const struct conn *conn)
{
    return conn->tls ? conn->tls->reason : NULL;
}

static bool conn_is_ipv4(const unsigned char address[16])
{
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

    return memcmp(address, mapped, sizeof mapped) == 0;
}

struct str conn_owner(const unsigned char address[16])
{
    return (struct str){(const char *)address, conn_is_ipv4(address) ? 16 : 8};
}

void conn_store_address(unsigned char out[16], const struct sockaddr_storage *from)
{
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;

    memset(out, 0, 16);
    if (from->ss_family == AF_INET6) {
        memcpy(&ipv6, from, sizeof ipv6);
        memcpy(out, &ipv6.sin6_addr, 16);
    } else if (from->ss_family == AF_INET) { /* a peer on a Unix-domain socket has none: :: */
        memcpy(&ipv4, from, sizeof ipv4);
        out[10] = out[11] = 0xff;
        memcpy(out + 12, &ipv4.sin_addr, 4);
    }
}

void conn_reset_address(struct conn *conn)
{
    struct sockaddr_storage from = {0};
    socklen_t length = sizeof from;

    getpeername(conn->fd, (struct sockaddr *)&from, &length);
    conn_store_address(conn->address, &from);
}

void conn_address(const unsigned char address[16], char text[CONN_ADDRESS_MAX])
{
    bool ipv4 = conn_is_ipv4(address);

    if (!inet_ntop(ipv4 ? AF_INET : AF_INET6, address + (ipv4 ? 12 : 0), text, CONN_ADDRESS_MAX))
        text[0] = '\0';
}

static enum conn_status conn_receive_secure(struct conn *conn, char *at, size_t size, size_t *count)
{
    switch (tls_read(conn->tls, at, size, count)) {
    case TLS_DONE:
        return CONN_READY;
    case TLS_WANTS_WRITE:
        conn->want_write = conn->tls_wants_write = true;
        return CONN_BLOCKED;
    case TLS_WANTS_READ:
        return CONN_BLOCKED;
    case TLS_PLAIN_HTTP:
        tls_close(conn->tls);
        conn->tls = NULL;
        return CONN_PLAIN;
    default:
        return CONN_ENDED;
    }
}

static enum conn_status conn_receive_plain(struct conn *conn, char *at, size_t size, size_t *count)
{
    ssize_t n;

    do
        n = recv(conn->fd, at, size, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return CONN_BLOCKED;
    *count = n > 0 ? (size_t)n : 0;
    return n > 0 ? CONN_READY : CONN_ENDED;
}

static enum conn_status conn_receive(struct conn *conn, char *at, size_t size, size_t *count)
{
    enum conn_status status = conn->tls ? conn_receive_secure(conn, at, size, count)
                                        : conn_receive_plain(conn, at, size, count);

    conn->shared->received += *count;
    return status;
}

struct conn_bytes conn_kept(const struct conn *conn)
{
    const struct buf *input = conn->input;

    return input ? (struct conn_bytes){input->at, input->length} : (struct conn_bytes){0};
}

static void conn_drop_input(struct conn *conn)
{
    if (!conn->input)
        return;
    conn->shared->buffered -= conn->input->capacity;
    buf_free(conn->input);
    free(conn->input);
    conn->input = NULL;
}

/* Reads into the scratch buffer, behind a copy of the `kept` bytes. */
static enum conn_status conn_fill_scratch(struct conn *conn, size_t kept, struct conn_bytes *bytes)
{
    char *scratch = conn->shared->scratch;
    size_t count = 0;
    enum conn_status status;

    if (kept)
        memcpy(scratch, conn->input->at, kept);
    status = conn_receive(conn, scratch + kept, CONN_SCRATCH - kept, &count);
    if (status == CONN_READY) {
        conn_drop_input(conn);
        *bytes = (struct conn_bytes){scratch, kept + count};
    }
    return status;
}

/* Makes space for `more` bytes behind the kept input; false without memory. */
static bool conn_reserve_input(struct conn *conn, size_t more)
{
    size_t before = conn->input->capacity;
    bool reserved = buf_reserve(conn->input, more);

    conn->shared->buffered += conn->input->capacity - before;
    return reserved;
}

enum conn_status conn_fill(struct conn *conn, size_t limit, struct conn_bytes *bytes)
{
    struct buf *input = conn->input;
    size_t count = 0, least = conn->tls ? TLS_RECORD_MAX : 1;
    enum conn_status status;

    *bytes = conn_kept(conn);
    if (conn->broken || bytes->length >= limit)
        return CONN_ENDED;
    /* copying a little is cheap, and reads stay large without a large buffer */
    if (bytes->length <= COPY_MAX)
        return conn_fill_scratch(conn, bytes->length, bytes);
    /* TLS hands over whole records: the last one may pass the limit, which ends the connection */
    input->limit = limit < SIZE_MAX - least ? limit + least - 1 : limit;
    if (input->capacity - input->length < least && !conn_reserve_input(conn, least))
        return CONN_ENDED;
    status = conn_receive(conn, input->at + input->length, input->capacity - input->length, &count);
    input->length += count;
    *bytes = (struct conn_bytes){input->at, input->length};
    return status;
}

void conn_keep(struct conn *conn, struct conn_bytes rest)
{
    struct buf *input = conn->input;

    if (rest.length == 0 || conn->broken) {
        conn_drop_input(conn);
        return;
    }
    if (input) {
        if (rest.at != input->at) /* a body that comes in many pieces is not moved for each */
            memmove(input->at, rest.at, rest.length);
        input->length = rest.length;
        return;
    }
    conn->input = input = calloc(1, sizeof *input);
    if (!input || !conn_reserve_input(conn, rest.length) ||
        !buf_append(input, (struct str){rest.at, rest.length}))
        conn_kill(conn);
}

static void conn_mark_dirty(struct conn *conn)
{
    if (conn->dirty)
        return;
    conn->dirty = true;
    conn->shared->push_count += !conn->has_response;
    fifo_push(conn->has_response ? &conn->shared->responses : &conn->shared->pushes,
              &conn->dirty_link);
}

struct conn *conn_next_dirty(struct conn_shared *shared)
{
    bool push = shared->push_count > 0 &&
                (shared->push_count <= CONN_FEW_PUSHES || !shared->responses.first);
    struct conn *conn = (struct conn *)fifo_pop(push ? &shared->pushes : &shared->responses);

    shared->push_count -= push;
    if (conn)
        conn->dirty = false;
    return conn;
}

bool conn_any_dirty(const struct conn_shared *shared)
{
    return shared->responses.first || shared->pushes.first;
}

/* --- the queue ------------------------------------------------------------------------------- */

static uint32_t conn_slot(const struct conn_ring *ring, uint32_t index)
{
    return (ring->head + index) & (ring->capacity - 1);
}

/* Makes space in the ring for one more message. False without memory: then nothing has changed. */
static bool conn_grow_ring(struct conn *conn)
{
    struct conn_ring *old = conn->ring, *ring;
    uint32_t capacity = old ? old->capacity * 2 : RING_MIN;

    if (old && old->count < old->capacity)
        return true;
    ring = malloc(sizeof *ring + capacity * sizeof ring->slots[0]);
    if (!ring)
        return false;
    *ring = (struct conn_ring){.capacity = capacity};
    for (; old && ring->count < old->count; ring->count++)
        ring->slots[ring->count] = old->slots[conn_slot(old, ring->count)];
    conn->shared->buffered += (capacity - (old ? old->capacity : 0)) * sizeof ring->slots[0];
    free(old);
    conn->ring = ring;
    return true;
}

/* Takes the message at one end off the ring, and frees the ring if it was the last. */
static struct rcbuf *conn_take(struct conn *conn, bool oldest)
{
    struct conn_ring *ring = conn->ring;
    uint32_t slot = conn_slot(ring, oldest ? 0 : ring->count - 1);
    struct rcbuf *message = ring->slots[slot];

    if (oldest)
        ring->head = conn_slot(ring, 1);
    if (--ring->count == 0) {
        conn->shared->buffered -= ring->capacity * sizeof ring->slots[0];
        free(ring);
        conn->ring = NULL;
    }
    return message;
}

/* Puts a message at the end of the queue; false without memory. */
static bool conn_append(struct conn *conn, struct rcbuf *message)
{
    if (!conn->first)
        conn->first = message;
    else if (conn_grow_ring(conn))
        conn->ring->slots[conn_slot(conn->ring, conn->ring->count++)] = message;
    else
        return false;
    return true;
}

/* Counts a message that one more queue holds, and takes a reference for it. */
static void conn_hold(struct conn *conn, struct rcbuf *message)
{
    message->references++;
    conn->queued += message->length;
    conn->shared->waiting += message->length;
    if (message->queues++ == 0)
        conn->shared->buffered += message->length + CONN_MESSAGE_COST;
}

/* The opposite, except for `queued` and `waiting`, which are counted as bytes leave. */
static void conn_release(struct conn *conn, struct rcbuf *message)
{
    if (--message->queues == 0)
        conn->shared->buffered -= message->length + CONN_MESSAGE_COST;
    rcbuf_release(message);
}

/* The messages in the queue. */
static uint32_t conn_count(const struct conn *conn)
{
    return conn->ring ? conn->ring->count + 1 : conn->first != NULL;
}

size_t conn_cost(const struct conn *conn)
{
    return conn->queued + (size_t)conn_count(conn) * CONN_MESSAGE_COST;
}

bool conn_queue(struct conn *conn, struct rcbuf *message, size_t limit)
{
    if (conn->broken || conn->close_queued)
        return true;
    if (conn_cost(conn) >= limit) {
        conn_flush(conn);
        if (conn->broken || conn_cost(conn) >= limit)
            return conn->broken;
    }
    if (message->length > UINT32_MAX - conn->queued || !conn_append(conn, message)) {
        conn_kill(conn);
        return true;
    }
    conn_hold(conn, message);
    conn->shared->flush_backlog += message->length + CONN_BACKLOG_EACH;
    conn_mark_dirty(conn);
    return true;
}

bool conn_queue_pong(struct conn *conn, struct rcbuf *pong, size_t limit)
{
    bool begun = conn->pong == 1 && conn->sent > 0;
    struct rcbuf **old;
    uint32_t count;

    if (conn->want_write && conn->pong && !begun) { /* so the connection is not broken */
        old = conn->pong == 1 ? &conn->first
                              : &conn->ring->slots[conn_slot(conn->ring, conn->pong - 2)];
        conn->queued -= (*old)->length;
        conn->shared->waiting -= (*old)->length;
        conn_release(conn, *old);
        *old = pong;
        conn_hold(conn, pong);
        return true;
    }
    if (!conn_queue(conn, pong, limit))
        return false;
    count = conn_count(conn);
    if (!conn->broken && !conn->close_queued)
        conn->pong = count <= PONG_MAX ? count & PONG_MAX : 0;
    return true;
}

struct rcbuf *conn_next_queued(const struct conn *conn, struct conn_cursor *cursor)
{
    const struct conn_ring *ring = conn->ring;
    uint32_t index = cursor->passed++;

    if (index == 0)
        return conn->first;
    return ring && index <= ring->count ? ring->slots[conn_slot(ring, index - 1)] : NULL;
}

static void conn_drop_first(struct conn *conn)
{
    conn_release(conn, conn->first);
    if (conn->pong)
        conn->pong--;
    conn->first = conn->ring ? conn_take(conn, true) : NULL;
}

/* Takes `count` bytes, which have left, off the front of the queue. */
static void conn_account_for(struct conn *conn, size_t count)
{
    conn->queued -= (uint32_t)count;
    conn->shared->waiting -= count;
    conn->shared->sent += count;
    count += conn->sent;
    while (conn->first && count >= conn->first->length) {
        count -= conn->first->length;
        conn_drop_first(conn);
    }
    conn->sent = (uint32_t)count;
}

/* Writes the front of the queue as one TLS record: many small messages share its overhead. */
static enum conn_status conn_write_record(struct conn *conn, size_t *count)
{
    char *record = conn->shared->record;
    size_t length = 0, skip = conn->sent;
    struct conn_cursor cursor = {0};
    const struct rcbuf *message;
    enum tls_status status;

    conn->pong = 0; /* what is in a record that could not leave must not change */
    while (length < TLS_RECORD_MAX && (message = conn_next_queued(conn, &cursor))) {
        size_t piece = message->length - skip;

        if (piece > TLS_RECORD_MAX - length)
            piece = TLS_RECORD_MAX - length;
        memcpy(record + length, message->bytes + skip, piece);
        length += piece;
        skip = 0;
    }
    status = tls_write(conn->tls, record, length, count);
    /* nothing is queued before the handshake is done, so TLS never waits for input */
    return status == TLS_DONE ? CONN_READY : status == TLS_WANTS_WRITE ? CONN_BLOCKED : CONN_ENDED;
}

static enum conn_status conn_write_some(const struct conn *conn, size_t *count)
{
    struct iovec vectors[VECTORS];
    struct conn_cursor cursor = {0};
    struct rcbuf *message;
    size_t skip = conn->sent;
    int used = 0;
    ssize_t n;

    while (used < VECTORS && (message = conn_next_queued(conn, &cursor))) {
        vectors[used++] = (struct iovec){message->bytes + skip, message->length - skip};
        skip = 0;
    }
    /* send() where it does: 7.3 us for each push to 10,000 clients become 6.4 */
    n = used == 1 ? send(conn->fd, vectors->iov_base, vectors->iov_len, 0)
                  : writev(conn->fd, vectors, used);
    *count = n > 0 ? (size_t)n : 0;
    if (n >= 0 || errno == EINTR)
        return CONN_READY;
    return errno == EAGAIN || errno == EWOULDBLOCK ? CONN_BLOCKED : CONN_ENDED;
}

void conn_flush(struct conn *conn)
{
    while (conn->first && !conn->want_write && !conn->broken) {
        size_t count = 0;
        enum conn_status status =
            conn->tls ? conn_write_record(conn, &count) : conn_write_some(conn, &count);

        if (status == CONN_READY)
            conn_account_for(conn, count);
        else if (status == CONN_BLOCKED)
            conn->want_write = true;
        else
            conn_kill(conn);
    }
}

void conn_writable(struct conn *conn)
{
    conn->want_write = conn->tls_wants_write = false;
    conn_flush(conn);
}

void conn_drop_queue(struct conn *conn)
{
    struct conn_cursor cursor = {0};
    size_t begun = conn->sent, kept = 0;
    uint32_t count = 0;
    const struct rcbuf *message;

    if (conn->tls && !conn->broken)
        begun += conn->tls->pending;
    for (; kept < begun && (message = conn_next_queued(conn, &cursor)); count++)
        kept += message->length;
    while (conn->ring && conn_count(conn) > count)
        conn_release(conn, conn_take(conn, false));
    if (!count && conn->first)
        conn_drop_first(conn);
    if (conn->pong > count)
        conn->pong = 0;
    conn->shared->waiting -= conn->queued;
    conn->queued = (uint32_t)(kept - (kept ? conn->sent : 0));
    conn->shared->waiting += conn->queued;
}

/* The input stays: the caller may be in the middle of using it. */
static void conn_break_off(struct conn *conn)
{
    conn->broken = true;
    conn->sent = 0;
    conn_drop_queue(conn);
}

void conn_kill(struct conn *conn)
{
    if (conn->broken)
        return;
    conn_break_off(conn);
    shutdown(conn->fd, SHUT_RDWR);
    conn_mark_dirty(conn); /* the loop sees that it broke */
}

void conn_finish(struct conn *conn)
{
    if (conn->broken)
        return;
    if (conn->tls)
        tls_finish(conn->tls);
    if (shutdown(conn->fd, SHUT_WR) != 0)
        conn_kill(conn);
}

void conn_close(struct conn *conn)
{
    conn_break_off(conn);
    conn_drop_input(conn);
    tls_close(conn->tls);
    conn->tls = NULL;
    close(conn->fd);
    conn->fd = -1;
}
