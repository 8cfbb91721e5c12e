/* conn.h - one socket, plain or TLS: limited input, a send queue of shared messages, flush, kill.
 *
 * A quiet connection owns no buffer: reads go to a scratch buffer that all connections of a loop
 * share, and only input that cannot be used yet is kept. Messages are queued first and leave with
 * conn_flush, many in one system call or TLS record. Nothing here blocks, and a connection that
 * keeps more unused input than the caller allows has ended. */
#ifndef WSPUSH_CONN_H
#define WSPUSH_CONN_H

#include "buf.h"
#include "tls.h"

#include <sys/socket.h>
#include <sys/types.h>

#define CONN_SCRATCH 65536
#define CONN_MESSAGE_COST 64 /* at most what a queued message costs in memory beside its bytes */

/* The budget of a batch, a part of an iteration (new input; input held back before): connections
 * with more work are held back until the next iteration. Counted are bytes queued, and for each
 * message CONN_BACKLOG_EACH; bytes read and used; and CONN_READ_COST for each read. */
#define CONN_BUDGET (4 * 1024 * 1024)
#define CONN_BACKLOG_EACH 512
#define CONN_READ_COST 1024

struct client;

/* The queue behind its first message: a ring of pointers. */
struct conn_ring {
    uint32_t head, count; /* the slot of the oldest message; messages */
    uint32_t capacity;    /* slots: a power of two */
    struct rcbuf *slots[];
};

/* What the connections of one loop share. Zeroed is valid. */
struct conn_shared {
    /* dirty connections: something is queued, or they broke */
    struct fifo responses;   /* those whose peer waits for a response */
    struct fifo pushes;      /* the others, */
    size_t push_count;       /* and how many */
    size_t flush_backlog;    /* queued in this iteration, see CONN_BUDGET */
    size_t spent;            /* other work in this iteration */
    size_t batch;            /* the sum of both when the present batch began */
    uint64_t exhausted;      /* batches that used up their budget */
    uint64_t received, sent; /* bytes of all connections ever, without those of TLS itself */
    uint64_t waiting;        /* bytes in all queues */
    uint64_t buffered;       /* bytes of memory: messages in queues, rings, input kept */
    char scratch[CONN_SCRATCH];
    char record[TLS_RECORD_MAX]; /* the TLS record that is being written */
};

/* One socket. The loop owns it; the hub queues to it. What each message sent touches stands first,
 * in 64 bytes. */
struct conn {
    struct fifo_link dirty_link; /* in one of the shared lists, if `dirty` */
    int fd;
    bool has_response : 1;    /* its peer waits for a response */
    bool dirty : 1;           /* in one of the shared lists */
    bool want_write : 1;      /* the socket took no more: poll for POLLOUT */
    bool tls_wants_write : 1; /* TLS has to write before anything can be read */
    bool broken : 1;          /* reset, or out of memory: nothing goes in or out any more */
    bool close_queued : 1;    /* a close frame is queued: nothing follows it */
    unsigned pong : 26;       /* the place in the queue, from 1, of a pong that a newer one may
                                 replace; 0: none */
    uint32_t sent;            /* bytes of the first message that have left */
    uint32_t queued;          /* bytes that have not left, over all messages */
    struct rcbuf *first;      /* the oldest message; mostly the only one: then there is no ring */
    struct conn_ring *ring;   /* the others, or NULL */
    struct conn_shared *shared;
    struct tls *tls;           /* NULL: plain */
    struct client *client;     /* that it serves; the hub sets and clears it */
    struct buf *input;         /* received and not used yet, or NULL */
    unsigned char address[16]; /* of the peer, or of the client that a proxy names (see listener.h):
                                  IPv6, or IPv4 mapped into it; the owner sets it */
};

/* The position of a walk over the queue. Zeroed is before the first message. */
struct conn_cursor {
    uint32_t passed; /* messages */
};

/* The next message of the queue, or NULL. */
struct rcbuf *conn_next_queued(const struct conn *conn, struct conn_cursor *cursor);

/* Makes a connection of a non-blocking socket, which it owns from then on. */
void conn_open(struct conn *conn, int fd, struct conn_shared *shared);

/* Starts TLS on a connection that was just opened. False without memory. */
bool conn_secure(struct conn *conn, const struct tls_context *context);

/* True while the TLS handshake is not done; conn_fill does it. */
bool conn_is_opening(const struct conn *conn);

/* Why TLS failed; NULL if it did not, or for a plain connection. */
const char *conn_failure(const struct conn *conn);

/* The part of an address that identifies its owner: all of IPv4, the first 64 bits of IPv6. */
struct str conn_owner(const unsigned char address[16]);

/* Stores a peer's address; all zero for a Unix-domain socket. */
void conn_store_address(unsigned char out[16], const struct sockaddr_storage *from);

/* Sets `address` to the peer's again. */
void conn_reset_address(struct conn *conn);

#define CONN_ADDRESS_MAX 46

/* Writes `address` as text. */
void conn_address(const unsigned char address[16], char text[CONN_ADDRESS_MAX]);

/* Input, writable and in one piece. */
struct conn_bytes {
    char *at;
    size_t length;
};

enum conn_status {
    CONN_READY,   /* there are new bytes */
    CONN_BLOCKED, /* nothing more for now */
    CONN_PLAIN,   /* plain HTTP came instead of TLS, some of which is lost: the connection is plain
                     from now on */
    CONN_ENDED    /* the peer has closed, or the connection is broken */
};

/* Reads once. *bytes is all unused input, kept and new, valid until the next call for any
 * connection of the loop. With CONN_READY, give what is not used to conn_keep before that, or it is
 * lost. A connection that keeps `limit` bytes or more has ended. TLS may have to write first: then
 * `tls_wants_write` is set; call again after conn_writable. */
enum conn_status conn_fill(struct conn *conn, size_t limit, struct conn_bytes *bytes);

/* The input kept, without reading. */
struct conn_bytes conn_kept(const struct conn *conn);

/* Keeps `rest`, the unused end of what conn_fill or conn_kept gave. Without memory the connection
 * breaks. */
void conn_keep(struct conn *conn, struct conn_bytes rest);

/* Queues a message and takes a reference. False if the queue costs `limit` bytes of memory or more
 * even after a flush (see conn_cost): the message is not queued. A connection that is broken, or
 * has a close frame queued, ignores it and returns true. Without memory, or past 4 GiB queued, the
 * connection breaks. */
bool conn_queue(struct conn *conn, struct rcbuf *message, size_t limit);

/* The same for a pong. While the socket takes no more, it replaces a queued pong that has not begun
 * to leave: a response to the newest ping suffices (RFC 6455, section 5.5.3). */
bool conn_queue_pong(struct conn *conn, struct rcbuf *pong, size_t limit);

/* The memory that the queue costs if no other one shares its messages: their bytes, and
 * CONN_MESSAGE_COST for each. */
size_t conn_cost(const struct conn *conn);

/* True once the present batch has used up its budget. */
static inline bool conn_over_budget(const struct conn_shared *shared)
{
    return shared->flush_backlog + shared->spent - shared->batch >= CONN_BUDGET;
}

/* Begins a batch, which has a CONN_BUDGET of its own. */
static inline void conn_begin_batch(struct conn_shared *shared)
{
    shared->exhausted += conn_over_budget(shared);
    shared->batch = shared->flush_backlog + shared->spent;
}

/* Ends an iteration and clears its counts. Returns what was queued in it. */
static inline size_t conn_end_batches(struct conn_shared *shared)
{
    size_t backlog = shared->flush_backlog;

    shared->exhausted += conn_over_budget(shared);
    shared->flush_backlog = shared->spent = shared->batch = 0;
    return backlog;
}

/* Writes the queue as far as the socket takes it. */
void conn_flush(struct conn *conn);

/* Call on POLLOUT: clears want_write and flushes. */
void conn_writable(struct conn *conn);

/* Shuts the sending side down: the peer sees the end after what was written. */
void conn_finish(struct conn *conn);

/* Drops the queue, except for the rest of messages that have begun to leave. */
void conn_drop_queue(struct conn *conn);

/* Up to so many pushes leave before responses; short ones delay these by less than a millisecond.
 */
#define CONN_FEW_PUSHES 64

/* Takes the next connection off the dirty lists; NULL if they are empty. Responses come first, but
 * while no more than CONN_FEW_PUSHES connections wait for pushes, these do. */
struct conn *conn_next_dirty(struct conn_shared *shared);

/* True while a connection is on the dirty lists. */
bool conn_any_dirty(const struct conn_shared *shared);

/* Breaks the connection: drops the queue, shuts the socket down, marks it dirty so that the loop
 * sees it. The fd stays open: a poller may hold it, and a reused number would alias a new
 * connection. */
void conn_kill(struct conn *conn);

/* Closes the socket and frees everything; the connection must not be dirty. */
void conn_close(struct conn *conn);

#endif
