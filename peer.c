/* peer.c - the links between the nodes of a cluster. */
#include "peer.h"

#include "conn.h"
#include "http.h"
#include "json.h"
#include "worker.h"
#include "ws.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_A_TURN 16
#define ACCEPT_PAUSE 200    /* milliseconds without accepting when descriptors have run out */
#define GUESTS_MAX 64       /* accepted links that have not proved themselves */
#define HANDSHAKE_TIME 2000 /* milliseconds for all of it */
#define PING_EVERY 1000     /* milliseconds */
#define SUSPECT_AFTER 2500  /* milliseconds of silence after which nothing is sent */
#define BROKEN_AFTER 6000   /* milliseconds of silence after which a link is given up */
#define PAUSE_MOST 3200
#define LETTER_MAX (256u * 1024 * 1024)
#define QUEUE_MAX (64u * 1024 * 1024)
#define NONCE_SIZE 32
#define KEY_TEXT 24 /* of Sec-WebSocket-Key */
#define PATH "/peer"

enum link_state {
    LINK_CONNECTING, /* dialled: the connection is not there yet */
    LINK_UPGRADING,  /* dialled: 101 is awaited */
    LINK_ASKED,      /* dialled: the challenge is awaited */
    LINK_PROVED,     /* dialled: the other's proof is awaited */
    LINK_ACCEPTED,   /* accepted: the upgrade is awaited */
    LINK_CHALLENGED, /* accepted: the proof is awaited */
    LINK_UP,
    LINK_DEAD
};

struct link {
    struct conn conn; /* first: the dirty list leads from here to the link */
    enum link_state state;
    bool dialled;
    bool guest;            /* counted as one that has not proved itself */
    struct identity other; /* accepted: known once it is proved */
    struct ws_reader reader;
    struct buf message;                                      /* the pieces of a letter so far */
    size_t unproved;                                         /* bytes received before the proof */
    char key[KEY_TEXT];                                      /* dialled: of the upgrade */
    char nonce[2 * NONCE_SIZE], other_nonce[2 * NONCE_SIZE]; /* in hex */
    int64_t deadline;                                        /* of the handshake */
    int64_t last_heard, last_sent;
    const char *reason; /* why it ended */
    struct link *next;
};

struct peers {
    struct peers_options options;
    struct identity self;
    bool joined;
    struct peer *first;
    struct link *links;
    size_t link_count, guest_count;
    struct conn_shared shared;
    struct peer_event *oldest, *newest;
    int64_t now;
    int64_t accept_after; /* no accepting before this time */
};

/* --- small things ---------------------------------------------------------------------------- */

static void log_peer(const struct peers *peers, enum log_level level, const char *message,
                     const struct identity *identity, const char *reason)
{
    char name[IDENTITY_TEXT_MAX];
    struct log_field fields[] = {{.name = "node"}, {.name = "reason"}, {0}};

    fields[0].text = (struct str){name, identity_write_name(identity, name)};
    if (reason)
        fields[1].text = str_from(reason);
    else
        fields[1].name = NULL;
    log_write(peers->options.log, level, message, fields);
}

/* Leaves an event, and takes `text`. Without memory the letter is lost, as on a broken link. */
static void leave_event(struct peers *peers, enum peer_event_kind kind, const struct identity *from,
                        struct buf text)
{
    struct peer_event *event = calloc(1, sizeof *event);

    if (!event) {
        buf_free(&text);
        return;
    }
    *event = (struct peer_event){.kind = kind, .from = *from, .text = text};
    if (peers->newest)
        peers->newest->next = event;
    else
        peers->oldest = event;
    peers->newest = event;
}

struct peer_event *peers_take(struct peers *peers)
{
    struct peer_event *event = peers->oldest;

    if (!event)
        return NULL;
    peers->oldest = event->next;
    if (!peers->oldest)
        peers->newest = NULL;
    return event;
}

struct peer *peers_find(const struct peers *peers, const struct identity *identity)
{
    for (struct peer *peer = peers->first; peer; peer = peer->next)
        if (identity_same(&peer->identity, identity))
            return peer;
    return NULL;
}

struct peer *peers_all(const struct peers *peers)
{
    return peers->first;
}

/* One node of each pair dials: the one that came later, because it knows the other from the start.
 */
static bool is_for_us_to_dial(const struct peers *peers, const struct identity *other)
{
    char ours[IDENTITY_TEXT_MAX], theirs[IDENTITY_TEXT_MAX];

    if (peers->self.start != other->start)
        return peers->self.start > other->start;
    identity_write_name(&peers->self, ours);
    identity_write_name(other, theirs);
    return strcmp(ours, theirs) > 0;
}

static void pause_dialling(struct peers *peers, struct peer *peer)
{
    peer->retry_at = peers->now + worker_pause(&peer->pause, PAUSE_MOST);
}

/* --- the end of a link ----------------------------------------------------------------------- */

static void end_link(struct peers *peers, struct link *link, const char *reason)
{
    struct peer *peer;

    if (link->state == LINK_DEAD)
        return;
    for (peer = peers->first; peer; peer = peer->next) {
        if (peer->dialing == link) {
            peer->dialing = NULL;
            pause_dialling(peers, peer);
            if (!peer->told)
                log_peer(peers, LOG_WARN, "no link to a node", &peer->identity, reason);
            peer->told = true;
        }
        if (peer->link == link) {
            peer->link = NULL;
            pause_dialling(peers, peer);
            leave_event(peers, PEER_DOWN, &peer->identity, (struct buf){0});
            log_peer(peers, LOG_WARN, "the link to a node has broken", &peer->identity, reason);
            peer->told = true;
        }
    }
    if (link->guest)
        peers->guest_count--;
    link->guest = false;
    link->state = LINK_DEAD;
    conn_kill(&link->conn);
}

static void reap(struct peers *peers)
{
    struct link **at = &peers->links;

    while (*at) {
        struct link *link = *at;

        if (link->state != LINK_DEAD) {
            at = &link->next;
            continue;
        }
        *at = link->next;
        peers->link_count--;
        conn_close(&link->conn);
        buf_free(&link->message);
        free(link);
    }
}

/* --- writing --------------------------------------------------------------------------------- */

/* Queues one frame; false if the other does not read. */
static bool send_frame(struct peers *peers, struct link *link, enum ws_opcode opcode,
                       struct str payload)
{
    uint8_t mask[4] = {0};
    struct message *message;
    bool queued;

    if (link->dialled)
        crypto_random(mask, sizeof mask);
    message = link->dialled ? ws_masked_frame(opcode, payload, mask) : ws_frame(opcode, payload);
    queued = message && conn_queue(&link->conn, message, QUEUE_MAX);
    message_release(message);
    link->last_sent = peers->now;
    return queued;
}

static void send_bytes(struct link *link, struct str bytes)
{
    struct message *message = message_copy(bytes);

    if (message)
        conn_queue(&link->conn, message, QUEUE_MAX);
    message_release(message);
}

bool peers_reach(const struct peers *peers, const struct peer *peer)
{
    return peer->link && peers->now - peer->link->last_heard < SUSPECT_AFTER;
}

bool peers_send(struct peers *peers, struct peer *peer, struct str text)
{
    return peers_reach(peers, peer) && send_frame(peers, peer->link, WS_TEXT, text);
}

/* --- proofs ---------------------------------------------------------------------------------- */

static bool make_nonce(char hex[2 * NONCE_SIZE])
{
    char bytes[NONCE_SIZE];
    struct buf out = {.at = hex, .capacity = 2 * NONCE_SIZE, .limit = 2 * NONCE_SIZE};

    return crypto_random(bytes, sizeof bytes) &&
           crypto_hex(&out, (struct str){bytes, sizeof bytes});
}

/* What one end of a link proves, in hex: that it holds the key, is who it says, means this other
 * node and this very handshake. */
static bool make_proof(const struct peers *peers, const struct link *link, bool of_dialler,
                       const struct identity *other, char hex[2 * CRYPTO_HASH_SIZE])
{
    char room[400], ours[IDENTITY_TEXT_MAX], theirs[IDENTITY_TEXT_MAX];
    unsigned char proof[CRYPTO_HASH_SIZE];
    struct buf out = {.at = hex, .capacity = 2 * CRYPTO_HASH_SIZE, .limit = 2 * CRYPTO_HASH_SIZE};
    const char *dialler = link->dialled ? ours : theirs, *acceptor = link->dialled ? theirs : ours;
    const char *first = link->dialled ? link->nonce : link->other_nonce;
    const char *second = link->dialled ? link->other_nonce : link->nonce;
    int length;

    identity_write(&peers->self, ours);
    identity_write(other, theirs);
    length = snprintf(room, sizeof room, "%s %s %s %.*s %.*s", of_dialler ? "dial" : "accept",
                      dialler, acceptor, 2 * NONCE_SIZE, first, 2 * NONCE_SIZE, second);
    return crypto_prove(peers->options.keys, (struct str){room, (size_t)length}, proof) &&
           crypto_hex(&out, (struct str){(const char *)proof, sizeof proof});
}

/* Sends {"node":…,"nonce":…,"proof":…}, or the part of it that the other does not know yet. */
static bool send_proof(struct peers *peers, struct link *link, const struct identity *other)
{
    char room[400], life[IDENTITY_TEXT_MAX], proof[2 * CRYPTO_HASH_SIZE];
    int length;

    if (!make_proof(peers, link, link->dialled, other, proof))
        return false;
    identity_write(&peers->self, life);
    if (link->dialled)
        length =
            snprintf(room, sizeof room, "{\"node\":\"%s\",\"nonce\":\"%.*s\",\"proof\":\"%.*s\"}",
                     life, 2 * NONCE_SIZE, link->nonce, 2 * CRYPTO_HASH_SIZE, proof);
    else
        length = snprintf(room, sizeof room, "{\"proof\":\"%.*s\"}", 2 * CRYPTO_HASH_SIZE, proof);
    return send_frame(peers, link, WS_TEXT, (struct str){room, (size_t)length});
}

static bool check_proof(const struct peers *peers, const struct link *link,
                        const struct identity *other, struct str given)
{
    char proof[2 * CRYPTO_HASH_SIZE];

    return make_proof(peers, link, !link->dialled, other, proof) &&
           crypto_equal((struct str){proof, sizeof proof}, given);
}

/* --- the handshake --------------------------------------------------------------------------- */

/* The link is up: it takes the place of one before it, which the other must have given up. */
static void come_up(struct peers *peers, struct link *link)
{
    struct peer *peer = peers_add(peers, &link->other);

    if (!peer) {
        end_link(peers, link, "out of memory");
        return;
    }
    if (peer->dialing == link)
        peer->dialing = NULL;
    if (peer->link)
        end_link(peers, peer->link, "another one has taken its place");
    if (link->guest)
        peers->guest_count--;
    link->guest = false;
    link->state = LINK_UP;
    link->reader.limit = LETTER_MAX;
    peer->link = link;
    peer->pause = 0;
    peer->told = false;
    log_peer(peers, LOG_INFO, "linked to a node", &peer->identity, NULL);
    leave_event(peers, PEER_UP, &peer->identity, (struct buf){0});
}

enum field { FIELD_CHALLENGE, FIELD_NODE, FIELD_NONCE, FIELD_PROOF, FIELD_COUNT };

/* A string among the fields, without escapes; empty if it is not there. */
static struct str text_of(const struct json_field *field)
{
    struct str text = field->value.text;

    if (field->value.type != JSON_STRING)
        return (struct str){0};
    return (struct str){text.at + 1, text.length - 2};
}

static bool take_nonce(struct link *link, struct str nonce)
{
    if (nonce.length != sizeof link->other_nonce)
        return false;
    memcpy(link->other_nonce, nonce.at, nonce.length);
    return true;
}

static void take_accepted_proof(struct peers *peers, struct link *link,
                                const struct json_field *fields)
{
    if (!identity_read(text_of(&fields[FIELD_NODE]), &link->other) ||
        !take_nonce(link, text_of(&fields[FIELD_NONCE])) ||
        !check_proof(peers, link, &link->other, text_of(&fields[FIELD_PROOF])) ||
        identity_same_name(&link->other, &peers->self))
        end_link(peers, link, "the other does not hold our crypto_key");
    else if (!send_proof(peers, link, &link->other))
        end_link(peers, link, "out of memory");
    else
        come_up(peers, link);
}

/* A step of the handshake, once the upgrade is done. */
static void take_step(struct peers *peers, struct link *link, struct str text)
{
    struct json_field fields[FIELD_COUNT] = {[FIELD_CHALLENGE] = {.name = STR_INIT("challenge")},
                                             [FIELD_NODE] = {.name = STR_INIT("node")},
                                             [FIELD_NONCE] = {.name = STR_INIT("nonce")},
                                             [FIELD_PROOF] = {.name = STR_INIT("proof")}};
    struct json_error error;

    if (!json_parse_object(text, fields, FIELD_COUNT, &error)) {
        end_link(peers, link, "the other speaks another language");
    } else if (link->state == LINK_CHALLENGED) {
        take_accepted_proof(peers, link, fields);
    } else if (link->state == LINK_ASKED) {
        link->state = LINK_PROVED;
        if (!take_nonce(link, text_of(&fields[FIELD_CHALLENGE])) || !make_nonce(link->nonce) ||
            !send_proof(peers, link, &link->other))
            end_link(peers, link, "the other speaks another language");
    } else if (check_proof(peers, link, &link->other, text_of(&fields[FIELD_PROOF]))) {
        come_up(peers, link);
    } else {
        end_link(peers, link, "the other does not hold our crypto_key");
    }
}

/* Accepted: the upgrade. Nothing is said to whoever asks for something else. */
static size_t take_request(struct peers *peers, struct link *link, struct conn_bytes bytes)
{
    struct http_request request;
    struct str key = {0};
    const char *error;
    struct buf answer = {0};
    enum http_result result =
        http_parse_request((struct str){bytes.at, bytes.length}, PEER_UNPROVED_MAX, &request);
    char challenge[2 * NONCE_SIZE + 32];
    int length;

    if (result == HTTP_MORE)
        return 0;
    if (result == HTTP_BAD || !str_equal(request.path, STR(PATH)) ||
        ws_check_upgrade(&request, &key, &error) != 0 || !make_nonce(link->nonce)) {
        end_link(peers, link, "no upgrade");
        return 0;
    }
    ws_write_upgrade(&answer, key, (struct str){0});
    send_bytes(link, str_of(&answer));
    buf_free(&answer);
    length = snprintf(challenge, sizeof challenge, "{\"challenge\":\"%.*s\"}", 2 * NONCE_SIZE,
                      link->nonce);
    send_frame(peers, link, WS_TEXT, (struct str){challenge, (size_t)length});
    link->reader = (struct ws_reader){.limit = PEER_UNPROVED_MAX};
    link->state = LINK_CHALLENGED;
    return request.head_length;
}

/* Dialled: 101. The other end is this program too, so its answer is known byte for byte. */
static size_t take_upgrade(struct peers *peers, struct link *link, struct conn_bytes bytes)
{
    struct buf expected = {0};
    size_t length;
    bool good;

    ws_write_upgrade(&expected, (struct str){link->key, sizeof link->key}, (struct str){0});
    length = bytes.length < expected.length ? bytes.length : expected.length;
    good = !expected.failed && memcmp(bytes.at, expected.at, length) == 0;
    if (good && length < expected.length) {
        length = 0;
    } else if (good) {
        link->state = LINK_ASKED;
        link->reader = (struct ws_reader){.limit = PEER_UNPROVED_MAX, .from_server = true};
    } else {
        end_link(peers, link, "the other is no node");
    }
    buf_free(&expected);
    return length;
}

/* --- reading --------------------------------------------------------------------------------- */

static void take_piece(struct peers *peers, struct link *link, const struct ws_event *event)
{
    if (event->opcode != WS_TEXT) {
        end_link(peers, link, "letters are text");
    } else if (!buf_append(&link->message, event->payload)) {
        end_link(peers, link, "out of memory");
    } else if (event->last && link->state == LINK_UP) {
        leave_event(peers, PEER_LETTER, &link->other, link->message);
        link->message = (struct buf){0};
    } else if (event->last) {
        take_step(peers, link, str_of(&link->message));
        link->message.length = 0;
    }
}

static size_t take_frame(struct peers *peers, struct link *link, struct conn_bytes bytes)
{
    struct ws_event event;
    size_t used = ws_read(&link->reader, bytes.at, bytes.length, &event);

    switch (event.type) {
    case WS_EVENT_MORE:
        break;
    case WS_EVENT_DATA:
        take_piece(peers, link, &event);
        break;
    case WS_EVENT_CONTROL:
        if (link->state != LINK_UP) /* an answer could be asked for again and again */
            end_link(peers, link, "a control frame before a proof");
        else if (event.opcode == WS_PING)
            send_frame(peers, link, WS_PONG, event.payload);
        else if (event.opcode == WS_CLOSE)
            end_link(peers, link, "closed by the other");
        break;
    case WS_EVENT_BAD:
        end_link(peers, link, event.error);
        break;
    }
    return used;
}

static size_t take_unit(struct peers *peers, struct link *link, struct conn_bytes bytes)
{
    switch (link->state) {
    case LINK_ACCEPTED:
        return take_request(peers, link, bytes);
    case LINK_UPGRADING:
        return take_upgrade(peers, link, bytes);
    case LINK_ASKED:
    case LINK_PROVED:
    case LINK_CHALLENGED:
    case LINK_UP:
        return take_frame(peers, link, bytes);
    case LINK_CONNECTING:
    case LINK_DEAD:
        break;
    }
    return 0;
}

/* Reads once. False if there is nothing more to read for now. */
static bool read_some(struct peers *peers, struct link *link)
{
    struct conn_bytes bytes;
    size_t used = 1, kept = conn_kept(&link->conn).length;
    enum conn_status status = conn_fill(&link->conn, CONN_SCRATCH, &bytes);

    if (status == CONN_ENDED)
        end_link(peers, link,
                 link->state == LINK_UP ? "closed by the other"
                                        : "closed by the other, which may hold another crypto_key");
    if (status != CONN_READY)
        return false;
    link->last_heard = peers->now;
    if (link->state != LINK_UP)
        link->unproved += bytes.length - kept;
    while (bytes.length && used && link->state != LINK_DEAD) {
        used = take_unit(peers, link, bytes);
        bytes.at += used;
        bytes.length -= used;
    }
    if (link->state == LINK_DEAD)
        return false;
    if (link->state != LINK_UP && link->unproved > PEER_UNPROVED_MAX) {
        end_link(peers, link, "too many bytes before a proof");
        return false;
    }
    conn_keep(&link->conn, bytes);
    return true;
}

/* Reads what is there, so that an end behind it is seen now and not in the next turn: nobody should
 * take a link for good that has been closed. */
static void read_link(struct peers *peers, struct link *link)
{
    for (int i = 0; i < READS_A_TURN && read_some(peers, link); i++)
        ;
}

/* --- connecting ------------------------------------------------------------------------------ */

static struct link *new_link(struct peers *peers, int fd, enum link_state state)
{
    struct link *link = calloc(1, sizeof *link);
    int one = 1;

    if (!link) {
        close(fd);
        return NULL;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    conn_open(&link->conn, fd, &peers->shared);
    link->state = state;
    link->dialled = state == LINK_CONNECTING;
    link->last_heard = link->last_sent = peers->now;
    link->deadline = peers->now + HANDSHAKE_TIME;
    link->next = peers->links;
    peers->links = link;
    peers->link_count++;
    return link;
}

/* Makes room for one more guest: the one that has taken longest to prove itself goes. */
static void end_oldest_guest(struct peers *peers)
{
    struct link *oldest = NULL;

    for (struct link *link = peers->links; link; link = link->next)
        if (link->guest) /* new ones stand at the front */
            oldest = link;
    if (oldest)
        end_link(peers, oldest, "too many at the door");
}

static void accept_links(struct peers *peers)
{
    for (int i = 0; i < GUESTS_MAX; i++) {
        int fd = accept(peers->options.listener, NULL, NULL);
        struct link *link;

        if (fd < 0) {
            /* without a descriptor it would be tried again and again */
            if (errno != EAGAIN && errno != EWOULDBLOCK)
                peers->accept_after = peers->now + ACCEPT_PAUSE;
            return;
        }
        fcntl(fd, F_SETFL, O_NONBLOCK);
        if (!peers->joined) {
            close(fd);
            continue;
        }
        if (peers->guest_count == GUESTS_MAX)
            end_oldest_guest(peers);
        link = new_link(peers, fd, LINK_ACCEPTED);
        if (link) {
            link->guest = true;
            peers->guest_count++;
        }
    }
}

static void dial(struct peers *peers, struct peer *peer)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(peer->identity.port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct link *link;

    peer->retry_at = peers->now + HANDSHAKE_TIME; /* unless it fails before, or comes about */
    if (fd < 0)
        return;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    memcpy(&to.sin_addr, peer->identity.address, 4);
    link = new_link(peers, fd, LINK_CONNECTING);
    if (!link)
        return;
    link->other = peer->identity;
    peer->dialing = link;
    if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0 && errno != EINPROGRESS)
        end_link(peers, link, strerror(errno));
}

/* The connection that was dialled is there, or is not to be had. */
static void ask_upgrade(struct peers *peers, struct link *link)
{
    int error = 0;
    socklen_t length = sizeof error;
    char bytes[16], room[300], name[IDENTITY_TEXT_MAX];
    struct buf key = {.at = link->key, .capacity = KEY_TEXT + 1, .limit = KEY_TEXT + 1};
    char key_room[KEY_TEXT + 1];

    key.at = key_room; /* the encoder ends it with a NUL */
    if (getsockopt(link->conn.fd, SOL_SOCKET, SO_ERROR, &error, &length) != 0 || error) {
        end_link(peers, link, strerror(error ? error : errno));
        return;
    }
    if (!crypto_random(bytes, sizeof bytes) ||
        !crypto_base64(&key, (struct str){bytes, sizeof bytes})) {
        end_link(peers, link, "out of random bytes");
        return;
    }
    memcpy(link->key, key_room, KEY_TEXT);
    identity_write_name(&link->other, name);
    length = (socklen_t)snprintf(room, sizeof room,
                                 "GET " PATH " HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\n"
                                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                                 "Sec-WebSocket-Key: %.*s\r\n\r\n",
                                 name, KEY_TEXT, link->key);
    send_bytes(link, (struct str){room, length});
    link->state = LINK_UPGRADING;
}

/* --- the turn -------------------------------------------------------------------------------- */

size_t peers_poll_count(const struct peers *peers)
{
    return 1 + peers->link_count;
}

void peers_poll(const struct peers *peers, struct pollfd *polls)
{
    size_t count = 0;

    polls[count++] =
        (struct pollfd){peers->now < peers->accept_after ? -1 : peers->options.listener, POLLIN, 0};
    for (const struct link *link = peers->links; link; link = link->next) {
        bool writes = link->conn.blocked || link->state == LINK_CONNECTING;
        bool reads = link->state != LINK_CONNECTING;

        polls[count++] = (struct pollfd){link->conn.fd,
                                         (short)((reads ? POLLIN : 0) | (writes ? POLLOUT : 0)), 0};
    }
}

static void serve_link(struct peers *peers, struct link *link, short events)
{
    if (link->state == LINK_CONNECTING) {
        ask_upgrade(peers, link);
        return;
    }
    if (link->conn.blocked && (events & (POLLOUT | POLLHUP | POLLERR)))
        conn_writable(&link->conn);
    if (events & (POLLIN | POLLHUP | POLLERR))
        read_link(peers, link);
}

static void keep_link(struct peers *peers, struct link *link)
{
    if (link->conn.broken)
        end_link(peers, link, "connection broken");
    else if (link->state != LINK_UP && peers->now >= link->deadline)
        end_link(peers, link, "no proof in time");
    else if (link->state == LINK_UP && peers->now - link->last_heard >= BROKEN_AFTER)
        end_link(peers, link, "no sign of life");
    else if (link->state == LINK_UP && peers->now - link->last_sent >= PING_EVERY)
        send_frame(peers, link, WS_PING, (struct str){0});
}

/* Links are added at the front: those that were polled stand behind them, in the same order. */
void peers_serve(struct peers *peers, const struct pollfd *polls, int64_t now)
{
    size_t count = 1;
    struct link *first = peers->links;

    peers->now = now;
    if (polls[0].revents)
        accept_links(peers);
    for (struct link *link = first; link; link = link->next, count++)
        if (polls[count].revents && link->state != LINK_DEAD)
            serve_link(peers, link, polls[count].revents);
    for (struct link *link = peers->links; link; link = link->next)
        if (link->state != LINK_DEAD)
            keep_link(peers, link);
    for (struct peer *peer = peers->first; peer; peer = peer->next)
        if (!peer->link && !peer->dialing && peer->listed && now >= peer->retry_at &&
            is_for_us_to_dial(peers, &peer->identity))
            dial(peers, peer);
}

void peers_flush(struct peers *peers)
{
    struct conn *conn;

    while ((conn = conn_next_dirty(&peers->shared)))
        conn_flush(conn);
    reap(peers);
}

int64_t peers_deadline(const struct peers *peers)
{
    int64_t earliest = peers->now < peers->accept_after ? peers->accept_after : INT64_MAX;

    if (peers->shared.pushes.first)
        return peers->now; /* something was queued after the last flush */
    for (const struct link *link = peers->links; link; link = link->next) {
        int64_t next = link->state == LINK_UP ? link->last_sent + PING_EVERY : link->deadline;

        if (next < earliest)
            earliest = next;
    }
    for (const struct peer *peer = peers->first; peer; peer = peer->next)
        if (!peer->link && !peer->dialing && peer->listed && peer->retry_at < earliest &&
            is_for_us_to_dial(peers, &peer->identity))
            earliest = peer->retry_at;
    return earliest;
}

/* --- who is there ---------------------------------------------------------------------------- */

struct peers *peers_open(const struct peers_options *options)
{
    struct peers *peers = calloc(1, sizeof *peers);

    if (peers)
        peers->options = *options;
    return peers;
}

void peers_join(struct peers *peers, const struct identity *self)
{
    peers->self = *self;
    peers->joined = true;
}

struct peer *peers_add(struct peers *peers, const struct identity *identity)
{
    struct peer *peer = peers_find(peers, identity);

    if (peer)
        return peer;
    peer = calloc(1, sizeof *peer);
    if (!peer)
        return NULL;
    peer->identity = *identity;
    peer->next = peers->first;
    peers->first = peer;
    return peer;
}

void peers_remove(struct peers *peers, struct peer *peer)
{
    struct peer **at = &peers->first;

    struct link *links[2] = {peer->link, peer->dialing};

    while (*at != peer)
        at = &(*at)->next;
    *at = peer->next;
    free(peer);
    for (int i = 0; i < 2; i++)
        if (links[i])
            end_link(peers, links[i], "the node has left"); /* it is nobody's: nothing is said */
}

void peers_close(struct peers *peers)
{
    struct peer_event *event;

    if (!peers)
        return;
    while (peers->first)
        peers_remove(peers, peers->first);
    for (struct link *link = peers->links; link; link = link->next)
        end_link(peers, link, "stopping");
    while (conn_next_dirty(&peers->shared))
        ; /* the list must not outlive those on it */
    reap(peers);
    while ((event = peers_take(peers))) {
        buf_free(&event->text);
        free(event);
    }
    conn_shared_free(&peers->shared);
    if (peers->options.listener >= 0)
        close(peers->options.listener);
    free(peers);
}
