/* conn.h - one socket, plain or TLS: capped input, a queue of shared messages out, flush, kill.
 *
 * A connection that is quiet owns no buffer: reads go to one scratch buffer that all connections
 * of a loop share, and only what could not be used yet is kept. What is written is queued first and
 * leaves with conn_flush, all of it in one system call, or in one record of TLS, where the socket
 * takes it. Refuses: to block, and to go on reading when more unused input is kept than the caller
 * allows. */
#ifndef WSPUSH_CONN_H
#define WSPUSH_CONN_H

#include "buf.h"
#include "tls.h"

#include <sys/socket.h>
#include <sys/types.h>

#define CONN_SCRATCH 65536
#define CONN_BACKLOG_EACH 512
#define CONN_MESSAGE_COST 64 /* bytes that a waiting message costs beside its own, at most */

/* Work that may be done in a share of an iteration (new input; input held from iterations before)
 * before connections with more of it are held until the next one: bytes queued and
 * CONN_BACKLOG_EACH a message, bytes read and taken, and a fixed cost a read and a unit. */
#define CONN_BUDGET (4 * 1024 * 1024)
#define CONN_READ_COST 1024 /* of each read */

struct client;

/* What waits behind the first message: a ring of pointers. */
struct conn_ring {
    uint32_t head, count; /* the slot of the oldest, and how many there are */
    uint32_t capacity;    /* slots: a power of two */
    uint32_t pong;        /* the slot of a pong that a newer one replaces; CONN_NO_PONG */
    struct rcbuf *slots[];
};

#define CONN_NO_PONG UINT32_MAX

/* What the connections of one loop share. Zeroed is valid. */
struct conn_shared {
    struct fifo responses;   /* dirty connections that wait for the answer to a request */
    struct fifo pushes;      /* the other dirty ones */
    size_t flush_backlog;    /* what was queued since the loop last set this to 0: bytes, and
                       CONN_BACKLOG_EACH    for each message */
    size_t spent;            /* what else was done since then, see CONN_BUDGET, */
    size_t batch;            /* and how much of both before the present share of the iteration */
    uint64_t received, sent; /* bytes, without those of TLS itself, of all there have been */
    uint64_t waiting;        /* bytes in all queues together */
    uint64_t buffered;       /* memory of messages that wait, of rings, and of input kept */
    char scratch[CONN_SCRATCH];
    char record[TLS_RECORD_MAX]; /* what is about to leave as one */
};

/* One socket. The loop owns it; the hub queues to it and leaves its wishes in the flags. What is
 * touched for each message that is sent stands first, in 64 bytes. */
struct conn {
    struct fifo_link dirty_link; /* on one of the shared lists */
    int fd;
    bool has_response : 1;    /* its flush comes before those of pushes */
    bool dirty : 1;           /* on one of the shared lists */
    bool want_write : 1;      /* the socket took no more: wait until it is writable */
    bool tls_wants_write : 1; /* and until then nothing can be read: TLS has to write first */
    bool broken : 1;          /* reset, or out of memory: nothing goes in or out any more */
    bool close_queued : 1;    /* a close frame is queued: nothing follows it */
    bool pong_first : 1;      /* the first message is a pong that a newer one replaces */
    uint32_t sent;            /* bytes of the first message that have left */
    uint32_t queued;          /* bytes that wait, those of the first message included */
    struct rcbuf *first;      /* mostly the only one, and then no ring is needed */
    struct conn_ring *ring;   /* the others; NULL if there are none */
    struct conn_shared *shared;
    struct tls *tls;           /* NULL: plain */
    struct client *client;     /* whom it serves, set and cleared by the hub */
    struct buf *input;         /* bytes received and not used yet, or NULL */
    unsigned char address[16]; /* the peer's, or its client's (see address.h): IPv6, or IPv4 mapped
                                  into it; set by the owner */
};

/* A walk through what is queued. Zeroed is before the first message. */
struct conn_cursor {
    uint32_t passed; /* messages */
};

/* The next message that waits, or NULL. */
struct rcbuf *conn_next_queued(const struct conn *conn, struct conn_cursor *cursor);

/* Makes a connection of a non-blocking socket, which it owns from now on. */
void conn_open(struct conn *conn, int fd, struct conn_shared *shared);

/* Has a connection that was just opened speak TLS. False: no memory. */
bool conn_secure(struct conn *conn, const struct tls_context *context);

/* True until a connection over TLS has done its handshake, which conn_fill does. */
bool conn_is_opening(const struct conn *conn);

/* Why a connection over TLS has ended; NULL if nothing went wrong, or it is plain. */
const char *conn_failure(const struct conn *conn);

/* What of an address tells whose it is: all of IPv4, and the first 64 bits of IPv6, for its owner
 * has all of the others. */
struct str conn_owner(const unsigned char address[16]);

/* The address of a socket's peer; all zero for one on a Unix-domain socket. */
void conn_store_address(unsigned char out[16], const struct sockaddr_storage *from);

/* Gives a connection the address of its peer again. */
void conn_reset_address(struct conn *conn);

#define CONN_ADDRESS_MAX 46

/* Writes the peer's address as text. */
void conn_address(const struct conn *conn, char text[CONN_ADDRESS_MAX]);

/* Input that waits to be used, writable and in one piece. */
struct conn_bytes {
    char *at;
    size_t length;
};

enum conn_status {
    CONN_READY,   /* there are new bytes */
    CONN_BLOCKED, /* nothing more for now */
    CONN_PLAIN,   /* it was to speak TLS, but has sent a plain HTTP request, some of which is lost:
                     from now on it is a plain connection */
    CONN_ENDED    /* the peer has closed, or the connection is broken */
};

/* Reads once. *bytes is everything not used so far, kept or new, and is valid until the next call
 * for any connection of the loop. With CONN_READY, what of it is not used is lost unless it is
 * given to conn_keep before that. A connection that keeps `limit` bytes or more has ended. With TLS
 * the socket may have to become writable before there is more to read: `want_write` and
 * `tls_wants_write` say so, and reading is to be tried again behind conn_writable. */
enum conn_status conn_fill(struct conn *conn, size_t limit, struct conn_bytes *bytes);

/* The input kept, without reading. */
struct conn_bytes conn_kept(const struct conn *conn);

/* Keeps `rest`, the unused end of what conn_fill or conn_kept gave. Breaks the connection if there
 * is no memory. */
void conn_keep(struct conn *conn, struct conn_bytes rest);

/* Queues a message, taking a reference of its own, unless what waits costs `limit` bytes of memory
 * or more even after a flush (see conn_cost): then false. A broken or close_queued connection takes
 * it and drops it; one for which there is no memory, or 4 GiB wait, breaks. */
bool conn_queue(struct conn *conn, struct rcbuf *message, size_t limit);

/* The same for a pong. While the socket takes no more, it takes the place of one that waits and has
 * not begun to leave: RFC 6455, section 5.5.3, asks for an answer to the newest ping alone. */
bool conn_queue_pong(struct conn *conn, struct rcbuf *pong, size_t limit);

/* Bytes of memory that what waits costs, as if no other connection shared it: its length, and
 * CONN_MESSAGE_COST for each message. */
size_t conn_cost(const struct conn *conn);

/* Begins a share of an iteration: it has a CONN_BUDGET of its own. */
static inline void conn_begin_batch(struct conn_shared *shared)
{
    shared->batch = shared->flush_backlog + shared->spent;
}

/* True once the present share has used up its budget. */
static inline bool conn_over_budget(const struct conn_shared *shared)
{
    return shared->flush_backlog + shared->spent - shared->batch >= CONN_BUDGET;
}

/* Ends an iteration: its work no longer counts. Returns what was queued in it. */
static inline size_t conn_end_batches(struct conn_shared *shared)
{
    size_t flush_backlog = shared->flush_backlog;

    shared->flush_backlog = shared->spent = shared->batch = 0;
    return flush_backlog;
}

/* Writes what is queued as far as the socket takes it. */
void conn_flush(struct conn *conn);

/* poll() says that the socket takes bytes again: writes on. */
void conn_writable(struct conn *conn);

/* Ends the sending side: the peer sees the end once it has read what was written. */
void conn_finish(struct conn *conn);

/* Drops what is queued, but for the rest of messages that have begun to leave. */
void conn_drop_queue(struct conn *conn);

/* Takes the next connection off the dirty lists, those with answers first; NULL at the end. */
struct conn *conn_next_dirty(struct conn_shared *shared);

/* True while a connection is on the dirty lists. */
bool conn_any_dirty(const struct conn_shared *shared);

/* Breaks the connection: the queue is gone, the socket shut down. It stays open, so that its number
 * cannot become another connection's while somebody still watches it. */
void conn_kill(struct conn *conn);

/* Closes the socket and frees everything; the connection must not be dirty. */
void conn_close(struct conn *conn);

#endif
