/* cluster_link.c - links between nodes.
 *
 * Data: `struct links` has a list of peers (other nodes, linked or not) and a list of links
 * (sockets, of a known peer or not). A peer names at most one link that is up and one that this
 * node is connecting; an accepted link belongs to no peer before its hello.
 *
 * Flow: connect or accept, TLS handshake, hello of the listening end, hello of the connecting end,
 * ping of the listening end. Nothing else passes before the link is up. With its ping the listening
 * end decides: it may have a better link, or not understand the other's version. So the connecting
 * end relies on the link only then.
 *
 * Two links of a pair: the node that joined later connects; the earlier one only after
 * PEER_CONNECT_LATER without a link. The later one rejects such a link if its own is up or only
 * lacks the ping, else ends its own; the earlier one takes every link. So both keep the same link.
 * cluster_peer.c says when and where to connect, and with which key.
 *
 * Invariants: a link in LINK_DEAD belongs to no peer and its socket is shut down; links_flush frees
 * it. New links are appended and the oldest are served first: a flood of new ones delays nobody's
 * handshake.
 *
 * Threads: only the loop's. */
#include "cluster_link.h"

#include "cluster_crypto.h"
#include "conn.h"
#include "ws.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define READS_PER_ITERATION 16
#define ACCEPTS_PER_ITERATION 64
#define HANDSHAKES_PER_ITERATION 8 /* steps of TLS handshakes; one computes for 0.2 ms */
#define ACCEPT_PAUSE 200           /* milliseconds without accepting after EMFILE and the like */
#define UNAUTHENTICATED_MAX 64     /* accepted links before the end of their TLS handshake */
#define HANDSHAKE_TIME 2000        /* milliseconds from connect or accept to the ping */
#define PING_EVERY 1000            /* milliseconds */
#define SUSPECT_AFTER 2500         /* milliseconds of silence: nothing is sent any more */
#define BROKEN_AFTER 6000          /* milliseconds of silence: the link is ended */
#define REJECTION_LOG_PAUSE 10000  /* milliseconds between two lines about rejected links */
#define QUEUE_MAX (64u * 1024 * 1024)

enum link_state {
    LINK_CONNECTING, /* connect() is under way */
    LINK_SECURING,   /* the TLS handshake is under way */
    LINK_HELLO,      /* waits for the other's hello */
    LINK_CONFIRMING, /* connected from here: waits for the ping */
    LINK_UP,
    LINK_DEAD
};

struct link {
    struct conn conn; /* first: the dirty list leads from it to the link */
    enum link_state state;
    bool connects;        /* this node has connected */
    bool unauthenticated; /* counted in unauthenticated_count */
    bool wrong_key;       /* the other does not know the key offered */
    bool closed;          /* the other has closed it properly */
    struct node_id other; /* accepted: known after its hello */
    unsigned version;     /* the highest that both understand; known after the hello */
    struct ws_reader reader;
    struct buf message; /* pieces of a message so far */
    size_t preauth;     /* bytes received before it was up */
    int64_t deadline;   /* to be up */
    int64_t last_heard, last_sent;
    struct link *next;
};

struct links {
    struct links_options options;
    struct tls_context *tls;
    struct lookup *lookup;
    struct node_id self;
    bool joined;
    struct peer *peers;
    struct link *links; /* oldest first */
    size_t link_count, unauthenticated_count;
    unsigned handshakes; /* steps of this iteration */
    struct conn_shared shared;
    struct fifo events;
    int64_t now;
    int64_t accept_after; /* do not accept before */
    int64_t rejections_logged_after, rejections_unlogged;
};

/* --- logs, events, peers --------------------------------------------------------------------- */

/* Logs a line. `node`, `link` (its address) and `reason` may be NULL. */
static void links_log(const struct links *links, enum log_level level, const char *message,
                      const struct node_id *node, const struct link *link, const char *reason)
{
    char address[CONN_ADDRESS_MAX];
    struct log_field fields[4] = {{.name = NULL}};
    size_t count = 0;

    if (node)
        fields[count++] = (struct log_field){.name = "node", .text = str_from(node->name)};
    if (link) {
        conn_address(link->conn.address, address);
        fields[count++] = (struct log_field){.name = "address", .text = str_from(address)};
    }
    if (reason)
        fields[count++] = (struct log_field){.name = "reason", .text = str_from(reason)};
    log_write(links->options.log, level, message, fields);
}

/* Posts an event, and takes `text`. Without memory the message is lost, as on a broken link. */
static void links_post(struct links *links, enum link_event_kind kind, const struct node_id *from,
                       struct buf text)
{
    struct link_event *event = calloc(1, sizeof *event);

    if (!event) {
        buf_free(&text);
        return;
    }
    *event = (struct link_event){.kind = kind, .from = *from, .text = text};
    fifo_push(&links->events, &event->fifo);
}

struct link_event *links_take(struct links *links)
{
    return (struct link_event *)fifo_pop(&links->events);
}

struct peer *links_find(const struct links *links, const struct node_id *id)
{
    return peer_find(links->peers, id);
}

struct peer *links_find_tag(const struct links *links, const struct node_tag *tag)
{
    return peer_find_tag(links->peers, tag);
}

struct peer *links_all(const struct links *links)
{
    return links->peers;
}

struct peer *links_add(struct links *links, const struct node_id *id)
{
    return peer_add(&links->peers, id);
}

/* --- end a link ------------------------------------------------------------------------------ */

/* An address of an attempt gave no link; `link` is NULL if there was not even a socket. */
static void links_fail(const struct links *links, struct peer *peer, const struct link *link,
                       const char *reason)
{
    bool named = peer->resolved != NULL, rejected = link && link->wrong_key;
    bool goes_on = peer_fail(peer, rejected, links->options.keys->count, links->now);

    if (!peer->failure_logged && !(goes_on && rejected))
        links_log(links, LOG_WARN, "no link to a node", &peer->id, named ? link : NULL, reason);
    peer->failure_logged = peer->failure_logged || !goes_on;
}

static void link_end(struct links *links, struct link *link, const char *reason)
{
    struct peer *peer;

    if (link->state == LINK_DEAD)
        return;
    for (peer = links->peers; peer; peer = peer->next) {
        if (peer->connecting == link) {
            peer->connecting = NULL;
            links_fail(links, peer, link, reason);
        }
        if (peer->link == link) {
            peer->link = NULL;
            peer_pause(peer, links->now);
            links_post(links, LINK_EVENT_DOWN, &peer->id, (struct buf){0});
            links_log(links, link->closed ? LOG_INFO : LOG_WARN,
                      link->closed ? "a node has closed its link" : "the link to a node has broken",
                      &peer->id, NULL, link->closed ? NULL : reason);
            peer->failure_logged = !link->closed;
        }
    }
    if (link->unauthenticated)
        links->unauthenticated_count--;
    link->unauthenticated = false;
    if (link->state != LINK_CONNECTING) /* tell the other that this is no accident */
        conn_finish(&link->conn);
    link->state = LINK_DEAD;
    conn_kill(&link->conn);
}

/* Ends a link before it is up. Strangers can cause any number of rejections: few are logged. */
static void link_reject(struct links *links, struct link *link, enum log_level level,
                        const char *reason)
{
    char text[400];

    if (!link->connects && level < LOG_WARN) {
        links_log(links, level, "refused a link", NULL, link, reason);
    } else if (!link->connects && links->now < links->rejections_logged_after) {
        links->rejections_unlogged++;
    } else if (!link->connects) {
        snprintf(text, sizeof text, "%s (and %lld before it)", reason,
                 (long long)links->rejections_unlogged);
        links_log(links, level, "refused a link", link->other.name[0] ? &link->other : NULL, link,
                  links->rejections_unlogged ? text : reason);
        links->rejections_logged_after = links->now + REJECTION_LOG_PAUSE;
        links->rejections_unlogged = 0;
    }
    link_end(links, link, reason);
}

static void links_reap(struct links *links)
{
    struct link **at = &links->links;

    while (*at) {
        struct link *link = *at;

        if (link->state != LINK_DEAD) {
            at = &link->next;
            continue;
        }
        *at = link->next;
        links->link_count--;
        conn_close(&link->conn);
        buf_free(&link->message);
        free(link);
    }
}

/* --- write ----------------------------------------------------------------------------------- */

/* Queues one frame. False if the other does not read, or without memory. */
static bool link_send(struct links *links, struct link *link, enum ws_opcode opcode,
                      struct str payload)
{
    uint8_t mask[4] = {0};
    struct rcbuf *message;
    bool queued;

    if (link->connects) /* RFC 6455, 5.3; TLS already hides what the mask is for */
        crypto_random(mask, sizeof mask);
    message = link->connects ? ws_masked_frame(opcode, payload, mask) : ws_frame(opcode, payload);
    queued = message && conn_queue(&link->conn, message, QUEUE_MAX);
    rcbuf_release(message);
    link->last_sent = links->now;
    return queued;
}

bool links_reach(const struct links *links, const struct peer *peer)
{
    return peer->link && links->now - peer->link->last_heard < SUSPECT_AFTER;
}

bool links_send(struct links *links, struct peer *peer, struct str text)
{
    return text.length <= LINK_MESSAGE_MAX && links_reach(links, peer) &&
           link_send(links, peer->link, WS_TEXT, text);
}

/* --- hello ----------------------------------------------------------------------------------- */

static bool link_send_hello(struct links *links, struct link *link)
{
    char text[HELLO_MAX];

    return link_send(links, link, WS_TEXT, (struct str){text, hello_write(&links->self, text)});
}

/* The link is up: it replaces the peer's link, and the one being connected. */
static void link_on_up(struct links *links, struct link *link, struct peer *peer)
{
    struct link *connecting = peer->connecting;
    struct log_field fields[] = {{.name = "node", .text = str_from(peer->id.name)},
                                 {.name = "version", .number = link->version},
                                 {.name = NULL}};

    peer->connecting = NULL;
    if (connecting && connecting != link)
        link_end(links, connecting, "another one is up");
    if (peer->link)
        link_end(links, peer->link, "another one has taken its place");
    link->state = LINK_UP;
    link->reader.limit = LINK_MESSAGE_MAX;
    peer->link = link;
    peer->version = link->version;
    peer_succeed(peer);
    log_write(links->options.log, LOG_INFO, "linked to a node", fields);
    links_post(links, LINK_EVENT_UP, &peer->id, (struct buf){0});
}

/* Accepted, and the hello is good: keep this link, or the other one of the pair? */
static void link_decide(struct links *links, struct link *link)
{
    struct peer *peer = links_add(links, &link->other);
    bool later = peer && peer_is_earlier(peer, &links->self);

    if (!peer)
        link_reject(links, link, LOG_WARN, "out of memory");
    else if (later && ((peer->link && peer->link->connects && links_reach(links, peer)) ||
                       (peer->connecting && peer->connecting->state == LINK_CONFIRMING)))
        link_reject(links, link, LOG_DEBUG, "this node has connected to it meanwhile");
    else if (!link_send(links, link, WS_PING, (struct str){0}))
        link_reject(links, link, LOG_WARN, "out of memory");
    else
        link_on_up(links, link, peer);
}

static void link_take_hello(struct links *links, struct link *link, struct str text)
{
    struct hello hello;
    char reason[300];

    if (!hello_read(text, &hello)) {
        link_reject(links, link, LOG_WARN, "it sent no hello of this protocol");
        return;
    }
    if (link->connects && !node_equal(&hello.node, &link->other)) {
        link_reject(links, link, LOG_WARN,
                    "another node answers at its address, or the same one after a restart");
        return;
    }
    if (node_equal_name(&hello.node, &links->self)) {
        link_reject(links, link, LOG_WARN, "it has the name of this node");
        return;
    }
    link->other = hello.node;
    link->version = hello.version < WIRE_VERSION ? hello.version : WIRE_VERSION;
    if (link->connects && !link_send_hello(links, link)) {
        link_reject(links, link, LOG_WARN, "out of memory");
    } else if (!hello_overlaps(&hello, reason, sizeof reason)) {
        conn_flush(&link->conn); /* the hello: the other logs the reason too */
        link_reject(links, link, LOG_WARN, reason);
    } else if (link->connects) {
        link->state = LINK_CONFIRMING;
    } else {
        link_decide(links, link);
    }
}

/* --- read ------------------------------------------------------------------------------------ */

static void link_take_piece(struct links *links, struct link *link, const struct ws_event *event)
{
    if (event->opcode != WS_TEXT || link->state == LINK_CONFIRMING) {
        link_reject(links, link, LOG_WARN, "it breaks the protocol: no such message here");
    } else if (!buf_append(&link->message, event->payload)) {
        link_reject(links, link, LOG_WARN, "out of memory");
    } else if (event->last && link->state == LINK_UP) {
        links_post(links, LINK_EVENT_MESSAGE, &link->other, link->message);
        link->message = (struct buf){0};
    } else if (event->last) {
        link_take_hello(links, link, str_of(&link->message));
        buf_free(&link->message);
    }
}

static void link_take_control(struct links *links, struct link *link, const struct ws_event *event)
{
    if (link->state == LINK_CONFIRMING && event->opcode == WS_PING)
        link_on_up(links, link, links_find(links, &link->other));
    if (link->state != LINK_UP) /* no answer before authentication: it would amplify a flood */
        link_reject(links, link, LOG_WARN,
                    "it breaks the protocol: a control frame before a hello");
    else if (event->opcode == WS_PING)
        link_send(links, link, WS_PONG, event->payload);
    else if (event->opcode == WS_CLOSE)
        link_end(links, link, "closed by the other node");
}

static size_t link_take_frame(struct links *links, struct link *link, struct conn_bytes bytes)
{
    struct ws_event event;
    size_t used = ws_read(&link->reader, bytes.at, bytes.length, &event);

    switch (event.type) {
    case WS_EVENT_MORE:
        break;
    case WS_EVENT_DATA:
        link_take_piece(links, link, &event);
        break;
    case WS_EVENT_CONTROL:
        link_take_control(links, link, &event);
        break;
    case WS_EVENT_BAD:
        link_reject(links, link, LOG_WARN, event.error);
        break;
    }
    return used;
}

/* The TLS handshake is done: the other has a key of this node. */
static void link_on_secured(struct links *links, struct link *link)
{
    if (link->unauthenticated)
        links->unauthenticated_count--;
    link->unauthenticated = false;
    link->state = LINK_HELLO;
    link->reader = (struct ws_reader){.limit = LINK_PREAUTH_MAX, .from_server = link->connects};
    if (!link->connects && !link_send_hello(links, link))
        link_reject(links, link, LOG_WARN, "out of memory");
}

static void link_on_end(struct links *links, struct link *link)
{
    const char *detail = conn_failure(&link->conn);
    char reason[300];

    link->wrong_key = cluster_crypto_has_wrong_key(link->conn.tls);
    if (link->state == LINK_UP) {
        link->closed = !detail && !link->conn.broken;
        link_end(links, link, detail ? detail : "connection broken");
    } else if (link->wrong_key) {
        link_reject(links, link, LOG_WARN,
                    "it has another key: set the same [common] crypto_key on every node");
    } else if (!conn_is_opening(&link->conn)) {
        link_reject(links, link, LOG_DEBUG, "closed by the other node, whose log says why");
    } else {
        snprintf(reason, sizeof reason,
                 "the TLS handshake failed (%s): a node without a protocol version (replace it), "
                 "a node of another crypto_key, or no node",
                 detail ? detail : "closed");
        link_reject(links, link, LOG_DEBUG, reason);
    }
}

/* Reads once. Returns false if there is nothing more to read now. */
static bool link_read_once(struct links *links, struct link *link)
{
    struct conn_bytes bytes;
    size_t used = 1, kept = conn_kept(&link->conn).length;
    enum conn_status status = conn_fill(&link->conn, CONN_SCRATCH, &bytes);

    if (status == CONN_PLAIN)
        link_reject(links, link, LOG_WARN,
                    "it speaks plain HTTP: a node without a protocol version (replace it), or no "
                    "node");
    else if (status == CONN_ENDED)
        link_on_end(links, link);
    else if (link->state == LINK_SECURING && !conn_is_opening(&link->conn))
        link_on_secured(links, link);
    if (status != CONN_READY || link->state == LINK_DEAD)
        return false;
    link->last_heard = links->now;
    link->preauth += bytes.length - kept;
    while (bytes.length && used && link->state != LINK_DEAD) {
        used = link_take_frame(links, link, bytes);
        bytes.at += used;
        bytes.length -= used;
    }
    if (link->state == LINK_DEAD)
        return false;
    if (link->state != LINK_UP && link->preauth > LINK_PREAUTH_MAX) {
        link_reject(links, link, LOG_WARN, "it breaks the protocol: too many bytes before a hello");
        return false;
    }
    conn_keep(&link->conn, bytes);
    return true;
}

/* Reads all that is there: an end behind it must be seen now, so that a closed link is not taken
 * for up. */
static void link_read(struct links *links, struct link *link)
{
    for (int i = 0; i < READS_PER_ITERATION && link_read_once(links, link); i++)
        ;
}

/* --- connect and accept ---------------------------------------------------------------------- */

static struct link *links_new(struct links *links, int fd, enum link_state state)
{
    struct link *link = calloc(1, sizeof *link), **at = &links->links;
    int one = 1;

    if (!link) {
        close(fd);
        return NULL;
    }
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn_open(&link->conn, fd, &links->shared);
    link->state = state;
    link->connects = state == LINK_CONNECTING;
    link->last_heard = link->last_sent = links->now;
    link->deadline = links->now + HANDSHAKE_TIME;
    while (*at)
        at = &(*at)->next;
    *at = link;
    links->link_count++;
    return link;
}

/* Ends the oldest unauthenticated link: there is room for one more. */
static void links_end_unauthenticated(struct links *links)
{
    struct link *link = links->links;

    while (link && !link->unauthenticated)
        link = link->next;
    if (link)
        link_reject(links, link, LOG_DEBUG, "too many links without a TLS handshake");
}

static void links_accept(struct links *links)
{
    for (int i = 0; i < ACCEPTS_PER_ITERATION; i++) {
        int fd = accept(links->options.listener, NULL, NULL);
        struct link *link;

        if (fd < 0) {
            /* out of descriptors: poll() would report the listener again and again */
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                links->accept_after = links->now + ACCEPT_PAUSE;
            return;
        }
        if (!links->joined) {
            close(fd);
            continue;
        }
        if (links->unauthenticated_count >= UNAUTHENTICATED_MAX)
            links_end_unauthenticated(links);
        link = links_new(links, fd, LINK_SECURING);
        if (!link)
            continue;
        conn_reset_address(&link->conn);
        link->unauthenticated = true;
        links->unauthenticated_count++;
        if (!conn_secure(&link->conn, links->tls))
            link_reject(links, link, LOG_WARN, "out of memory");
    }
}

/* Begins an attempt, or tries its next address. */
static void links_connect(struct links *links, struct peer *peer)
{
    union lookup_address to;
    struct link *link = NULL;
    int fd;

    if (!peer_next_address(peer, links->lookup, links->now, &to))
        return;
    fd = socket(to.any.sa_family, SOCK_STREAM, 0);
    if (fd >= 0)
        link = links_new(links, fd, LINK_CONNECTING);
    if (!link) {
        links_fail(links, peer, NULL, fd < 0 ? strerror(errno) : "out of memory");
        return;
    }
    conn_store_address(link->conn.address, &to.storage);
    link->other = peer->id;
    peer->connecting = link;
    if (connect(fd, &to.any, lookup_size(&to)) != 0 && errno != EINPROGRESS && errno != EINTR)
        link_end(links, link, strerror(errno));
}

/* connect() has ended: well, or with an error. */
static void link_secure(struct links *links, struct link *link)
{
    int error = 0;
    socklen_t length = sizeof error;
    size_t key = 0;

    for (const struct peer *peer = links->peers; peer; peer = peer->next)
        if (peer->connecting == link)
            key = peer->key;
    if (getsockopt(link->conn.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error) {
        link_end(links, link, strerror(error ? error : errno));
    } else if (!(link->conn.tls = cluster_crypto_connect(links->tls, link->conn.fd, key))) {
        link_end(links, link, "out of memory");
    } else {
        link->state = LINK_SECURING;
        link_read(links, link); /* starts the handshake */
    }
}

/* --- iteration ------------------------------------------------------------------------------- */

size_t links_poll_count(const struct links *links)
{
    return 1 + links->link_count;
}

void links_poll(const struct links *links, struct pollfd *polls)
{
    size_t count = 0;

    polls[count++] =
        (struct pollfd){links->now < links->accept_after ? -1 : links->options.listener, POLLIN, 0};
    for (const struct link *link = links->links; link; link = link->next) {
        bool writes = link->conn.want_write || link->state == LINK_CONNECTING;
        bool reads = link->state != LINK_CONNECTING && !link->conn.tls_wants_write;

        polls[count++] = (struct pollfd){link->conn.fd,
                                         (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0};
    }
}

static void link_serve(struct links *links, struct link *link, short events)
{
    bool stuck = link->conn.tls_wants_write;

    if (link->state == LINK_CONNECTING) {
        link_secure(links, link);
        return;
    }
    if (link->state == LINK_SECURING && links->handshakes++ >= HANDSHAKES_PER_ITERATION)
        return;
    if (link->conn.want_write && (events & (POLLOUT | POLLHUP | POLLERR)))
        conn_writable(&link->conn);
    if (stuck || (events & (POLLIN | POLLHUP | POLLERR)))
        link_read(links, link);
}

static bool link_is_overdue(const struct links *links, const struct link *link)
{
    return link->state == LINK_UP ? links->now - link->last_heard >= BROKEN_AFTER
                                  : links->now >= link->deadline;
}

/* Does what is due. After a standstill of this node the kernel has what the other sent: it is read
 * before the other is judged silent. */
static void link_check(struct links *links, struct link *link)
{
    if (link_is_overdue(links, link) && link->state != LINK_CONNECTING)
        link_read(links, link);
    if (link->state == LINK_DEAD)
        return;
    if (link->conn.broken)
        link_end(links, link, "connection broken");
    else if (link_is_overdue(links, link) && link->state == LINK_UP)
        link_end(links, link, "no sign of life");
    else if (link_is_overdue(links, link))
        link_reject(links, link, LOG_DEBUG,
                    link->state == LINK_CONNECTING ? "no connection in time" : "no hello in time");
    else if (link->state == LINK_UP && links->now - link->last_sent >= PING_EVERY)
        link_send(links, link, WS_PING, (struct str){0});
}

/* Takes results of look-ups, and connects to the peers that are due. */
static void links_check_peers(struct links *links)
{
    struct lookup_result *result;
    struct peer *peer;

    while ((result = lookup_take(links->lookup))) {
        const char *error = result->error;

        peer = peer_take_result(links->peers, result, links->now);
        if (peer && error)
            links_fail(links, peer, NULL, error);
    }
    for (peer = links->peers; peer; peer = peer->next) {
        if (!peer->link && peer->listed && !peer->missing_since)
            peer->missing_since = links->now;
        if (peer->looking_up && links->now >= peer->retry_at && !peer->failure_logged) {
            links_log(links, LOG_WARN, "no link to a node", &peer->id, NULL,
                      "its name is still being looked up");
            peer->failure_logged = true;
        }
        if (links->now >= peer_connect_at(peer, &links->self, links->now))
            links_connect(links, peer);
    }
}

void links_serve(struct links *links, const struct pollfd *polls, int64_t now)
{
    size_t polled = links->link_count;
    struct link *link = links->links;

    links->now = now;
    links->handshakes = 0;
    if (polls[0].revents)
        links_accept(links);
    for (size_t i = 1; i <= polled; i++, link = link->next)
        if (polls[i].revents && link->state != LINK_DEAD)
            link_serve(links, link, polls[i].revents);
    for (link = links->links; link; link = link->next)
        if (link->state != LINK_DEAD)
            link_check(links, link);
    links_check_peers(links);
}

void links_flush(struct links *links)
{
    struct conn *conn;

    while ((conn = conn_next_dirty(&links->shared)))
        conn_flush(conn);
    links_reap(links);
}

int64_t links_deadline(const struct links *links)
{
    int64_t earliest = links->now < links->accept_after ? links->accept_after : INT64_MAX;

    if (conn_any_dirty(&links->shared))
        return links->now; /* queued after the last flush */
    for (const struct link *link = links->links; link; link = link->next) {
        int64_t next = link->state == LINK_UP ? link->last_sent + PING_EVERY : link->deadline;

        if (next < earliest)
            earliest = next;
    }
    for (const struct peer *peer = links->peers; peer; peer = peer->next) {
        int64_t next = peer_connect_at(peer, &links->self, links->now);

        if (next < earliest)
            earliest = next;
    }
    return earliest;
}

/* --- open and close -------------------------------------------------------------------------- */

void links_join(struct links *links, const struct node_id *self)
{
    links->self = *self;
    links->joined = true;
}

void links_remove(struct links *links, struct peer *peer)
{
    struct link *ended[2] = {peer->link, peer->connecting};

    peer_remove(&links->peers, peer);
    for (int i = 0; i < 2; i++)
        if (ended[i])
            link_end(links, ended[i], "the node has left"); /* of no peer any more: not logged */
}

void links_close(struct links *links)
{
    struct link_event *event;

    if (!links)
        return;
    while (links->peers)
        links_remove(links, links->peers);
    for (struct link *link = links->links; link; link = link->next)
        link_end(links, link, "stopping");
    while (conn_next_dirty(&links->shared))
        ; /* the list must not outlive its connections */
    links_reap(links);
    while ((event = links_take(links))) {
        buf_free(&event->text);
        free(event);
    }
    lookup_close(links->lookup);
    tls_context_free(links->tls);
    if (links->options.listener >= 0)
        close(links->options.listener);
    free(links);
}

struct links *links_open(const struct links_options *options)
{
    struct links *links = calloc(1, sizeof *links);

    if (!links)
        return NULL;
    links->options = *options;
    links->tls = cluster_crypto_new_context(options->keys);
    links->lookup = lookup_open(options->wake);
    if (links->tls && links->lookup)
        return links;
    links->options.listener = -1; /* remains the caller's */
    links_close(links);
    return NULL;
}
