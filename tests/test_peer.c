/* test_peer.c - peer.c: nodes of one process that link over 127.0.0.1, with a clock that the test
 * turns; and far ends written by hand, which see each byte that nodes say to each other, and try
 * what no node would. */
#include "peer.h"

#include "node.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#define HOSTS 3
#define START 1000000   /* milliseconds at which a test begins */
#define TURNS_MOST 5000 /* after which a test gives up */
#define NONCE "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define HASH_TEXT (2 * CRYPTO_HASH_SIZE)
#define MIB (1024u * 1024)

/* A node's side of the links. */
struct host {
    struct peers *peers;
    struct identity self;
    uint16_t port; /* at which it listens */
    struct log log;
    struct crypto_keys keys;
};

static struct host hosts[HOSTS];
static size_t host_count;
static struct config config;
static int64_t now;
static int fds_before;

/* --- sockets --------------------------------------------------------------------------------- */

static int count_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 512; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* A listening socket on 127.0.0.1, at a port of its own if *port is 0. */
static int open_listener(uint16_t *port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(*port)};
    socklen_t length = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && listen(fd, 128) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&at, &length) == 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    *port = ntohs(at.sin_port);
    return fd;
}

/* A port at which nobody listens. */
static uint16_t closed_port(void)
{
    uint16_t port = 0;

    close(open_listener(&port));
    return port;
}

static struct identity life_at(uint16_t port, uint64_t start)
{
    return (struct identity){{127, 0, 0, 1}, port, start};
}

static const char *life_text(const struct identity *identity)
{
    char text[IDENTITY_TEXT_MAX];

    identity_write(identity, text);
    return say("%s", text);
}

/* --- hosts ----------------------------------------------------------------------------------- */

static struct host *open_host_with(const char *key, uint64_t start, uint16_t port_told)
{
    struct host *host = &hosts[host_count++];
    struct peers_options options = {.config = &config, .log = &host->log, .keys = &host->keys};

    *host = (struct host){.log = {.file = tmpfile(), .level = LOG_DEBUG}};
    if (!host->log.file)
        abort();
    setvbuf(host->log.file, NULL, _IONBF, 0);
    CHECK(crypto_derive_keys(&host->keys, str_from(key)));
    options.listener = open_listener(&host->port);
    host->self = life_at(port_told ? port_told : host->port, start);
    host->peers = peers_open(&options);
    CHECK(host->peers != NULL);
    if (start)
        peers_join(host->peers, &host->self);
    return host;
}

static struct host *open_host(uint64_t start)
{
    return open_host_with("0123456789abcdef", start, 0);
}

static void begin(void)
{
    signal(SIGPIPE, SIG_IGN);
    config_defaults(&config);
    fds_before = count_fds();
    host_count = 0;
    now = START;
}

static void close_host(struct host *host)
{
    peers_close(host->peers);
    host->peers = NULL;
}

/* Closes all hosts; no descriptor is left. */
static void finish(void)
{
    for (size_t i = 0; i < host_count; i++) {
        close_host(&hosts[i]);
        fclose(hosts[i].log.file);
    }
    CHECK(count_fds() == fds_before);
}

/* One turn of one host; true if there was something to do. */
static bool turn_host(struct host *host)
{
    size_t count = peers_poll_count(host->peers);
    struct pollfd *polls = calloc(count, sizeof *polls);
    bool moved;

    if (!polls)
        abort();
    peers_poll(host->peers, polls);
    moved = poll(polls, (nfds_t)count, 0) > 0;
    peers_serve(host->peers, polls, now);
    peers_flush(host->peers);
    free(polls);
    return moved;
}

static bool turn(void)
{
    bool moved = false;

    for (size_t i = 0; i < host_count; i++)
        if (hosts[i].peers)
            moved = turn_host(&hosts[i]) || moved;
    return moved;
}

/* Turns until nothing has moved for a while. */
static void rest(void)
{
    int quiet = 0;

    for (int turns = 0; quiet < 4 && turns < TURNS_MOST; turns++) {
        quiet = turn() ? 0 : quiet + 1;
        if (quiet > 1)
            poll(NULL, 0, 1);
    }
}

static void pass(int64_t milliseconds)
{
    now += milliseconds;
    rest();
}

/* Turns until this holds. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        bool holds_ = (condition);                                                                 \
                                                                                                   \
        for (int turns_ = 0; turns_ < TURNS_MOST && !holds_; turns_++) {                           \
            if (!turn())                                                                           \
                poll(NULL, 0, 1);                                                                  \
            holds_ = (condition);                                                                  \
        }                                                                                          \
        test_check(holds_, __FILE__, __LINE__, "until " #condition);                               \
    } while (0)

/* The registry of this host has that node. */
static struct peer *list(struct host *host, const struct identity *identity)
{
    struct peer *peer = peers_add(host->peers, identity);

    CHECK(peer != NULL);
    peer->listed = true;
    return peer;
}

static struct peer *peer_of(const struct host *host, const struct identity *identity)
{
    return peers_find(host->peers, identity);
}

static bool linked(const struct host *host, const struct identity *identity)
{
    const struct peer *peer = peer_of(host, identity);

    return peer && peer->link;
}

/* How often this stands in the host's log. */
static unsigned times_logged(const struct host *host, const char *text)
{
    static char room[1 << 20];
    size_t length;
    unsigned times = 0;

    rewind(host->log.file);
    length = fread(room, 1, sizeof room - 1, host->log.file);
    fseek(host->log.file, 0, SEEK_END);
    room[length] = '\0';
    for (const char *at = room; (at = strstr(at, text)); at++)
        times++;
    return times;
}

/* --- events ---------------------------------------------------------------------------------- */

/* Takes the next event, which is to be this one. */
static bool took(struct host *host, enum peer_event_kind kind, const struct identity *from,
                 struct str text)
{
    struct peer_event *event = peers_take(host->peers);
    bool good = false;

    if (event)
        good = event->kind == kind && identity_same(&event->from, from) &&
               str_equal(str_of(&event->text), text);
    if (!good)
        printf("  %s, kind %d, %zu bytes\n", event ? "another event" : "no event",
               event ? (int)event->kind : -1, event ? event->text.length : 0);
    if (event)
        buf_free(&event->text);
    free(event);
    return good;
}

static bool took_up(struct host *host, const struct identity *from)
{
    return took(host, PEER_UP, from, (struct str){0});
}

static bool took_down(struct host *host, const struct identity *from)
{
    return took(host, PEER_DOWN, from, (struct str){0});
}

static bool took_letter(struct host *host, const struct identity *from, const char *text)
{
    return took(host, PEER_LETTER, from, str_from(text));
}

static bool took_nothing(struct host *host)
{
    struct peer_event *event = peers_take(host->peers);
    bool nothing = !event;

    if (event) {
        printf("  an event of kind %d: %.*s\n", (int)event->kind, (int)(event->text.length % 2000),
               event->text.at ? event->text.at : "");
        buf_free(&event->text);
    }
    free(event);
    return nothing;
}

/* Takes events of one kind as long as there are some. */
static size_t take_all(struct host *host)
{
    struct peer_event *event;
    size_t count = 0;

    for (; (event = peers_take(host->peers)); count++) {
        buf_free(&event->text);
        free(event);
    }
    return count;
}

/* Two hosts, the second of which started later, linked. */
static void link_hosts(struct host **a, struct host **b)
{
    begin();
    *a = open_host(100);
    *b = open_host(200);
    list(*a, &(*b)->self);
    list(*b, &(*a)->self);
    UNTIL(linked(*a, &(*b)->self) && linked(*b, &(*a)->self));
    CHECK(took_up(*a, &(*b)->self) && took_nothing(*a));
    CHECK(took_up(*b, &(*a)->self) && took_nothing(*b));
}

/* --- linking --------------------------------------------------------------------------------- */

static void the_later_one_dials(void)
{
    struct host *a, *b;

    begin();
    a = open_host(100);
    b = open_host(200);
    CHECK(peers_deadline(a->peers) == INT64_MAX && peers_poll_count(a->peers) == 1);
    CHECK(!peers_find(a->peers, &b->self) && !peers_all(a->peers));
    list(a, &b->self);
    CHECK(peers_all(a->peers) == peer_of(a, &b->self) && !peers_all(a->peers)->next);
    CHECK(peers_add(a->peers, &b->self) == peer_of(a, &b->self));
    rest(); /* it is not for a to dial, whatever the time */
    CHECK(!peer_of(a, &b->self)->dialing && peers_deadline(a->peers) == INT64_MAX);
    pass(100000);
    CHECK(!peer_of(a, &b->self)->dialing && peers_poll_count(a->peers) == 1);
    peers_add(b->peers, &a->self); /* nor for b, while the registry does not know a */
    rest();
    CHECK(!peer_of(b, &a->self)->dialing && peers_deadline(b->peers) == INT64_MAX);
    CHECK(!peers_reach(b->peers, peer_of(b, &a->self)));
    CHECK(!peers_send(b->peers, peer_of(b, &a->self), STR("{}")));
    list(b, &a->self);
    CHECK(peers_deadline(b->peers) <= now);
    turn_host(b);
    CHECK(peer_of(b, &a->self)->dialing && peers_poll_count(b->peers) == 2);
    CHECK(peers_deadline(b->peers) == now + 2000);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    CHECK(took_up(a, &b->self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    CHECK(!peer_of(b, &a->self)->dialing && peers_reach(a->peers, peer_of(a, &b->self)));
    CHECK(times_logged(a, "linked to a node") == 1 && times_logged(b, "linked to a node") == 1);
    CHECK(times_logged(b, say("node=\"127.0.0.1:%u\"", a->self.port)) == 1);
    CHECK(times_logged(a, "warn") == 0 && times_logged(b, "warn") == 0);
    finish();
}

/* Of two that started at once the one with the greater name dials: one of them in any case. */
static void one_of_two_of_the_same_time_dials(void)
{
    struct host *a, *b;

    begin();
    a = open_host(100);
    b = open_host(100);
    list(a, &b->self);
    list(b, &a->self);
    turn_host(a);
    turn_host(b);
    CHECK(!peer_of(a, &b->self)->dialing != !peer_of(b, &a->self)->dialing);
    CHECK(!peer_of(a, &b->self)->dialing == (strcmp(life_text(&a->self), life_text(&b->self)) < 0));
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    CHECK(took_up(a, &b->self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    finish();
}

/* The registry may name this node itself, and for a while an earlier life of it. */
static void nobody_dials_itself(void)
{
    struct host *host;
    struct identity before;

    begin();
    host = open_host(200);
    before = host->self;
    before.start = 100;
    list(host, &host->self);
    pass(10000);
    CHECK(!peer_of(host, &host->self)->dialing && peers_poll_count(host->peers) == 1);
    CHECK(peers_deadline(host->peers) == INT64_MAX && times_logged(host, "node") == 0);
    list(host, &before); /* it answers itself, and sees that this is not whom it wants */
    pass(0);
    CHECK(!linked(host, &before) && !linked(host, &host->self) && took_nothing(host));
    CHECK(times_logged(host, "no link to a node") == 1);
    finish();
}

/* One that knows of nobody is found by those that know of it; it gets to know them. */
static void three_link(void)
{
    begin();
    for (uint64_t i = 0; i < HOSTS; i++)
        open_host(100 + i);
    for (size_t i = 0; i < HOSTS; i++)
        for (size_t j = 0; j < i; j++)
            list(&hosts[i], &hosts[j].self);
    for (size_t i = 0; i < HOSTS; i++)
        for (size_t j = 0; j < HOSTS; j++)
            UNTIL(i == j || linked(&hosts[i], &hosts[j].self));
    for (size_t i = 0; i < HOSTS; i++)
        for (size_t j = 0; j < HOSTS; j++)
            CHECK(i == j || peers_send(hosts[i].peers, peer_of(&hosts[i], &hosts[j].self),
                                       str_from(say("%zu to %zu", i, j))));
    rest();
    for (size_t i = 0; i < HOSTS; i++)
        CHECK(take_all(&hosts[i]) == 4); /* two UP, two letters */
    for (size_t i = 0; i < HOSTS; i++)
        CHECK(take_all(&hosts[i]) == 0 && peers_poll_count(hosts[i].peers) == 3);
    CHECK(!peer_of(&hosts[0], &hosts[1].self)->listed);
    finish();
}

/* --- letters --------------------------------------------------------------------------------- */

static void fill(struct buf *buf, size_t length, uint32_t seed)
{
    CHECK(buf_reserve(buf, length ? length : 1));
    for (size_t i = 0; i < length; i++)
        buf->at[i] = (char)('a' + (i * 7 + i / 251 + seed) % 26);
    buf->length = length;
}

static void letters_go_both_ways(void)
{
    static const size_t lengths[] = {0, 1, 125, 126, 65535, 65536, MIB, 5 * MIB + 1};
    struct host *a, *b;

    link_hosts(&a, &b);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct buf there = {0}, back = {0};

        fill(&there, lengths[i], 0);
        fill(&back, lengths[i], 1);
        CHECK(peers_send(a->peers, peer_of(a, &b->self), str_of(&there)));
        CHECK(peers_send(b->peers, peer_of(b, &a->self), str_of(&back)));
        rest();
        CHECK(took(b, PEER_LETTER, &a->self, str_of(&there)) && took_nothing(b));
        if (!CHECK(took(a, PEER_LETTER, &b->self, str_of(&back)) && took_nothing(a)))
            printf("  that was with %zu bytes\n", lengths[i]);
        buf_free(&there);
        buf_free(&back);
    }
    finish();
}

static void many_letters_stay_in_order(void)
{
    const int many = 3000;
    struct host *a, *b;

    link_hosts(&a, &b);
    for (int i = 0; i < many; i++) {
        CHECK(peers_send(a->peers, peer_of(a, &b->self), str_from(say("%d", i))));
        CHECK(peers_send(b->peers, peer_of(b, &a->self), str_from(say("%d%600d", i, 0))));
        if (i % 500 == 0)
            turn();
    }
    rest();
    for (int i = 0; i < many && test_good; i++)
        CHECK(took_letter(b, &a->self, say("%d", i)) &&
              took_letter(a, &b->self, say("%d%600d", i, 0)));
    CHECK(took_nothing(a) && took_nothing(b));
    finish();
}

/* Who does not read what it is sent gets no more of it; what was taken arrives. */
static void who_does_not_read_is_sent_no_more(void)
{
    struct buf letter = {0};
    struct host *a, *b;
    size_t sent = 0, got = 0;
    struct peer_event *event;

    link_hosts(&a, &b);
    fill(&letter, 4 * MIB, 0);
    while (sent < 40 && peers_send(a->peers, peer_of(a, &b->self), str_of(&letter))) {
        sent++;
        turn_host(a);
    }
    CHECK(sent >= 16 && sent < 40 && linked(a, &b->self));
    for (int turns = 0; turns < TURNS_MOST && got < sent; turns++) {
        turn();
        while ((event = peers_take(b->peers))) {
            CHECK(event->kind == PEER_LETTER && str_equal(str_of(&event->text), str_of(&letter)));
            buf_free(&event->text);
            free(event);
            got++;
        }
    }
    CHECK(got == sent);
    CHECK(peers_send(a->peers, peer_of(a, &b->self), STR("again")));
    rest();
    CHECK(took_letter(b, &a->self, "again") && took_nothing(b) && took_nothing(a));
    buf_free(&letter);
    finish();
}

/* --- breaking and dialling again ------------------------------------------------------------- */

static void a_broken_link_is_dialled_again(void)
{
    struct host *a, *b;
    struct identity self;
    int64_t retry;

    link_hosts(&a, &b);
    self = b->self;
    peers_remove(a->peers, peer_of(a, &self)); /* a ends it; b did not want that */
    rest();
    CHECK(took_nothing(a) && !peer_of(a, &self));
    CHECK(took_down(b, &a->self) && took_nothing(b));
    CHECK(times_logged(b, "the link to a node has broken") == 1);
    retry = peer_of(b, &a->self)->retry_at;
    CHECK(retry >= now + 50 && retry <= now + 100 && peers_deadline(b->peers) == retry);
    now = retry - 1;
    rest();
    CHECK(!peer_of(b, &a->self)->dialing);
    now = retry;
    UNTIL(linked(a, &self) && linked(b, &a->self));
    CHECK(took_up(a, &self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    CHECK(peers_send(b->peers, peer_of(b, &a->self), STR("once more")));
    rest();
    CHECK(took_letter(a, &self, "once more"));
    CHECK(peer_of(b, &a->self)->pause == 0 && times_logged(b, "no link to a node") == 0);
    finish();
}

/* What is said about a node that cannot be reached is said once; and the pauses double with each
 * failure, up to 3.2 s. */
static void pauses_double(void)
{
    struct identity nobody;
    struct host *host;
    struct peer *peer;
    int64_t pause = 0;

    begin();
    host = open_host(200);
    nobody = life_at(closed_port(), 100);
    peer = list(host, &nobody);
    for (int i = 0; i < 12; i++) {
        int64_t begun = now;

        rest();
        CHECK(!peer->dialing && !peer->link && took_nothing(host));
        if (!CHECK(i == 0 ? peer->pause == 100 || peer->pause == 200
                          : peer->pause == (pause < 1600 ? 2 * pause : 3200)))
            printf("  the pause after failure %d is %d\n", i + 1, (int)peer->pause);
        pause = peer->pause;
        CHECK(peer->retry_at >= now + pause / 2 && peer->retry_at <= now + pause);
        CHECK(peers_deadline(host->peers) == peer->retry_at);
        now = peer->retry_at - 1;
        rest();
        CHECK(!peer->dialing && peer->pause == pause);
        now = peer->retry_at;
        CHECK(now > begun);
    }
    CHECK(times_logged(host, "no link to a node") == 1 && times_logged(host, "warn") == 1);
    CHECK(times_logged(
              host, say("node=\"127.0.0.1:%u\" reason=\"Connection refused\"", nobody.port)) == 1);
    finish();
}

/* Pauses are drawn: two nodes that lost a third do not come back at the same time. */
static void pauses_differ(void)
{
    struct identity nobody;
    struct host *host;
    struct peer *peer;
    int64_t least = 3200, most = 0;

    begin();
    host = open_host(200);
    nobody = life_at(closed_port(), 100);
    peer = list(host, &nobody);
    for (int i = 0; i < 40; i++) {
        rest();
        if (peer->pause == 3200 && peer->retry_at - now < least)
            least = peer->retry_at - now;
        if (peer->pause == 3200 && peer->retry_at - now > most)
            most = peer->retry_at - now;
        now = peer->retry_at;
    }
    CHECK(least >= 1600 && most <= 3200 && most - least > 400);
    finish();
}

static void a_break_is_told_once(void)
{
    struct host *a, *b;
    struct identity gone;

    link_hosts(&a, &b);
    gone = a->self;
    close_host(a);
    for (int i = 0; i < 10; i++)
        pass(3200);
    CHECK(took_down(b, &gone) && took_nothing(b));
    CHECK(times_logged(b, "warn") == 1 && times_logged(b, "the link to a node has broken") == 1);
    CHECK(times_logged(b, "reason=\"closed by the other\"") == 1);
    finish();
}

/* --- silence --------------------------------------------------------------------------------- */

static void pings_keep_a_quiet_link_up(void)
{
    struct host *a, *b;

    link_hosts(&a, &b);
    for (int i = 0; i < 300; i++) {
        now += 200;
        rest();
        CHECK(peers_reach(a->peers, peer_of(a, &b->self)));
        CHECK(peers_reach(b->peers, peer_of(b, &a->self)));
    }
    CHECK(took_nothing(a) && took_nothing(b));
    finish();
}

/* A node that stands still is suspected after 2.5 s, and its link given up after 6. */
static void silence_is_suspect_and_then_the_end(void)
{
    struct host *a, *b;
    const struct peer *peer;

    link_hosts(&a, &b);
    peer = peer_of(a, &b->self);
    CHECK(peers_deadline(a->peers) == now + 1000);
    now += 2499;
    turn_host(a);
    CHECK(peers_reach(a->peers, peer) && peers_deadline(a->peers) == now + 1000);
    CHECK(peers_send(a->peers, peer_of(a, &b->self), STR("in time")));
    now += 1;
    turn_host(a);
    CHECK(!peers_reach(a->peers, peer) && peer->link);
    CHECK(!peers_send(a->peers, peer_of(a, &b->self), STR("too late")));
    rest(); /* b stirs: all is as before */
    CHECK(peers_reach(a->peers, peer) && took_letter(b, &a->self, "in time") && took_nothing(b));
    CHECK(took_nothing(a));
    now += 5999;
    turn_host(a);
    CHECK(peer->link && !peers_reach(a->peers, peer) && took_nothing(a));
    now += 1;
    turn_host(a);
    CHECK(!peer->link && took_down(a, &b->self) && took_nothing(a));
    CHECK(times_logged(a, "reason=\"no sign of life\"") == 1);
    UNTIL(!linked(b, &a->self));
    CHECK(took_down(b, &a->self) && took_nothing(b));
    pass(100);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    finish();
}

/* --- far ends by hand ------------------------------------------------------------------------ */

#define UPGRADED                                                                                   \
    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"            \
    "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
#define GET "GET /peer HTTP/1.1\r\nHost: h\r\n"
#define UPGRADE "Connection: Upgrade\r\nUpgrade: websocket\r\n"
#define VERSION "Sec-WebSocket-Version: 13\r\n"
#define KEY "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
#define REQUEST GET UPGRADE VERSION KEY "\r\n"
#define CHALLENGE_LENGTH (sizeof "{\"challenge\":\"\"}" - 1 + sizeof NONCE - 1)

/* Each piece is to leave at once. */
static void take_fd(struct far_end *far, int fd)
{
    int one = 1;

    *far = (struct far_end){.fd = fd};
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void call_port(uint16_t port, struct far_end *far)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    take_fd(far, fd);
}

/* Connects to a host. */
static void call(const struct host *host, struct far_end *far)
{
    call_port(host->port, far);
}

/* Sends in pieces of this size, with turns between them; 0 is all at once. A host may have closed
 * before it has all. */
static void send_pieces(const struct far_end *far, struct str bytes, size_t size)
{
    while (bytes.length) {
        size_t length = size && size < bytes.length ? size : bytes.length;

        if (!far_send(far, (struct str){bytes.at, length}))
            break;
        bytes.at += length;
        bytes.length -= length;
        turn();
    }
}

/* Sends the first bytes, and then the others. */
static void send_cut(const struct far_end *far, struct str bytes, size_t cut)
{
    send_pieces(far, (struct str){bytes.at, cut}, 0);
    turn();
    send_pieces(far, (struct str){bytes.at + cut, bytes.length - cut}, 0);
}

static void append_frame(struct buf *out, bool masked, unsigned first, struct str payload)
{
    static const uint8_t mask[4] = {0x12, 0x34, 0x80, 0xff};
    struct message *message =
        masked ? ws_masked_frame(WS_TEXT, payload, mask) : ws_frame(WS_TEXT, payload);
    size_t at = out->length;

    if (!message)
        abort();
    buf_append(out, (struct str){message->bytes, message->length});
    out->at[at] = (char)first;
    message_release(message);
}

static void send_frame(const struct far_end *far, bool masked, unsigned first, struct str payload)
{
    struct buf frame = {0};

    append_frame(&frame, masked, first, payload);
    CHECK(far_send(far, str_of(&frame)));
    buf_free(&frame);
}

/* True if exactly these bytes have come. */
static bool got_bytes(struct far_end *far, const char *text)
{
    struct str bytes = far_receive(far);
    size_t length = strlen(text);

    far->taken = length < bytes.length ? length : bytes.length;
    return same((struct str){bytes.at, far->taken}, str_from(text));
}

/* True if the 101 and a challenge have come, whose nonce is noted. */
static bool got_challenge(struct far_end *far, char nonce[sizeof NONCE])
{
    struct far_frame frame = {0};

    memset(nonce, 0, sizeof NONCE);
    if (!got_bytes(far, UPGRADED) || !far_next(far, &frame) ||
        frame.payload.length != CHALLENGE_LENGTH)
        return false;
    memcpy(nonce, frame.payload.at + CHALLENGE_LENGTH - sizeof NONCE - 1, sizeof NONCE - 1);
    return same(frame.payload, str_from(say("{\"challenge\":\"%s\"}", nonce))) &&
           frame.opcode == 1 && strspn(nonce, "0123456789abcdef") == sizeof NONCE - 1;
}

/* Takes in what has come until the connection has been ended, perhaps by a reset; false if it is
 * not. */
static bool hear_the_end(struct far_end *far)
{
    char byte;

    for (int i = 0; i < 300 && !far->ended; i++) {
        size_t taken = far->taken;

        far->taken = 0;
        far_receive(far);
        far->taken = taken;
        far->ended |= recv(far->fd, &byte, 1, MSG_PEEK) == 0;
        if (!far->ended && !turn())
            poll(NULL, 0, 1);
    }
    return far->ended;
}

/* True if nothing more has come, and the connection has been ended. */
static bool was_left(struct far_end *far)
{
    return hear_the_end(far) && got_nothing(far);
}

/* The proof of one end, as hex digits. */
static const char *prove(const struct crypto_keys *keys, const char *role, const char *dialler,
                         const char *acceptor, const char *first, const char *second)
{
    const char *text = say("%s %s %s %s %s", role, dialler, acceptor, first, second);
    unsigned char proof[CRYPTO_HASH_SIZE];
    char hex[HASH_TEXT + 1] = "";
    struct buf out = {.at = hex, .capacity = HASH_TEXT, .limit = HASH_TEXT};

    CHECK(crypto_prove(keys, str_from(text), proof));
    CHECK(crypto_hex(&out, (struct str){(const char *)proof, sizeof proof}));
    return say("%s", hex);
}

/* What a dialler says: who it is, its nonce and its proof. */
static const char *proof_of_dialler(const char *node_text, const char *nonce, const char *proof)
{
    return say("{\"node\":\"%s\",\"nonce\":\"%s\",\"proof\":\"%s\"}", node_text, nonce, proof);
}

static const char *good_proof(const struct host *host, const struct identity *self,
                              const char *challenge)
{
    return proof_of_dialler(
        life_text(self), NONCE,
        prove(&host->keys, "dial", life_text(self), life_text(&host->self), NONCE, challenge));
}

/* True if the host has proved itself to the caller. */
static bool got_proof(struct far_end *far, const struct host *host, const struct identity *self,
                      const char *challenge)
{
    return got_text(far,
                    say("{\"proof\":\"%s\"}", prove(&host->keys, "accept", life_text(self),
                                                    life_text(&host->self), NONCE, challenge)));
}

/* Calls a host, and proves to be that node, with the true key. */
static void call_as(struct host *host, struct far_end *far, const struct identity *self)
{
    char challenge[sizeof NONCE];

    call(host, far);
    send_pieces(far, STR(REQUEST), 0);
    rest();
    CHECK(got_challenge(far, challenge) && got_nothing(far));
    send_frame(far, true, 0x81, str_from(good_proof(host, self, challenge)));
    rest();
    CHECK(got_proof(far, host, self, challenge) && got_nothing(far) && !far->ended);
}

/* A listener by hand, that a host dials. */
struct post {
    int listener;
    struct identity self;
    struct far_end far;                 /* the connection that was accepted */
    struct ws_reader reader;            /* of it */
    char key[25];                       /* of the upgrade */
    char nonce[sizeof NONCE];           /* the dialler's */
    char proof[HASH_TEXT + 1];          /* the dialler's */
    char upgraded[sizeof UPGRADED + 1]; /* the answer to it */
};

static void open_post(struct post *post, uint64_t start)
{
    *post = (struct post){.far.fd = -1};
    post->listener = open_listener(&post->self.port);
    post->self = life_at(post->self.port, start);
}

static void close_post(struct post *post)
{
    close(post->listener);
    far_close(&post->far);
}

static bool accept_call(struct post *post)
{
    int fd = accept(post->listener, NULL, NULL);

    if (fd < 0)
        return false;
    far_close(&post->far);
    take_fd(&post->far, fd);
    post->reader = (struct ws_reader){.limit = MIB};
    return true;
}

/* Takes the next frame of the host, which is to be masked, whole and of this opcode. */
static bool got_masked(struct post *post, enum ws_opcode opcode, struct buf *payload)
{
    struct str bytes = far_receive(&post->far);
    struct ws_event event;
    size_t used = 0;

    payload->length = 0;
    if (bytes.length < 6 || ((unsigned char)bytes.at[0] & 0xf0) != 0x80)
        return false;
    used = ws_read(&post->reader, post->far.received.at, bytes.length, &event);
    post->far.taken = used;
    buf_append(payload, event.payload);
    return (event.type == WS_EVENT_CONTROL || (event.type == WS_EVENT_DATA && event.last)) &&
           event.opcode == opcode;
}

/* Waits for the host's call and its upgrade, and sees that it says nothing more. */
static void await_call(struct post *post)
{
    struct buf answer = {0};
    struct str head;

    UNTIL(accept_call(post));
    UNTIL(far_receive(&post->far).length >= 200 ||
          (post->far.received.length > 4 &&
           memcmp(post->far.received.at + post->far.received.length - 4, "\r\n\r\n", 4) == 0));
    head = far_receive(&post->far);
    CHECK(head.length > 30);
    if (head.length > 30)
        memcpy(post->key, head.at + head.length - 4 - 24, 24);
    CHECK(same(head, str_from(say("GET /peer HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
                                  "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                                  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n",
                                  post->self.port, post->key))));
    post->far.taken = head.length;
    CHECK(ws_write_upgrade(&answer, str_from(post->key), (struct str){0}) &&
          answer.length < sizeof post->upgraded);
    snprintf(post->upgraded, sizeof post->upgraded, "%.*s", (int)answer.length, answer.at);
    buf_free(&answer);
}

/* Upgrades, challenges the host with NONCE and takes its proof. */
static void challenge(struct post *post, const struct host *host)
{
    struct buf payload = {0};
    const char *start = say("{\"node\":\"%s\",\"nonce\":\"", life_text(&host->self));
    size_t length = strlen(start);

    send_pieces(&post->far, str_from(post->upgraded), 0);
    send_frame(&post->far, false, 0x81, STR("{\"challenge\":\"" NONCE "\"}"));
    rest();
    CHECK(got_masked(post, WS_TEXT, &payload));
    if (CHECK(payload.length > length + sizeof NONCE - 1))
        memcpy(post->nonce, payload.at + length, sizeof NONCE - 1);
    snprintf(post->proof, sizeof post->proof, "%s",
             prove(&host->keys, "dial", life_text(&host->self), life_text(&post->self), post->nonce,
                   NONCE));
    CHECK(same(str_of(&payload),
               str_from(proof_of_dialler(life_text(&host->self), post->nonce, post->proof))));
    buf_free(&payload);
}

static const char *proof_of_post(const struct post *post, const struct host *host)
{
    return say("{\"proof\":\"%s\"}", prove(&host->keys, "accept", life_text(&host->self),
                                           life_text(&post->self), post->nonce, NONCE));
}

/* --- the acceptor, seen by hand -------------------------------------------------------------- */

/* Before it knows who it is, a node talks to nobody. */
static void who_has_not_joined_is_silent(void)
{
    struct host *a, *b;
    struct far_end far;
    struct identity self;

    begin();
    a = open_host(0);
    b = open_host(200);
    self = life_at(a->self.port, 100);
    list(b, &self);
    pass(0);
    CHECK(!linked(b, &self) && took_nothing(b) && took_nothing(a));
    CHECK(times_logged(b, "no link to a node") == 1 && times_logged(a, "node") == 0);
    call(a, &far);
    send_pieces(&far, STR(REQUEST), 0);
    CHECK(was_left(&far));
    far_close(&far);
    peers_join(a->peers, &self);
    pass(3200);
    UNTIL(linked(a, &b->self) && linked(b, &self));
    CHECK(took_up(a, &b->self) && took_up(b, &self));
    finish();
}

/* The handshake byte for byte, and letters right behind it. */
static void a_caller_that_proves_itself_is_linked(void)
{
    struct host *host;
    struct identity self = life_at(1, 300);
    struct far_end far;
    char nonce[sizeof NONCE];
    struct buf bytes = {0};

    begin();
    host = open_host(100);
    call(host, &far);
    send_pieces(&far, STR(REQUEST), 0);
    rest();
    CHECK(got_challenge(&far, nonce) && took_nothing(host) && !peers_all(host->peers));
    CHECK(peers_deadline(host->peers) == now + 2000);
    append_frame(&bytes, true, 0x81, str_from(good_proof(host, &self, nonce)));
    append_frame(&bytes, true, 0x81, STR("one"));
    append_frame(&bytes, true, 0x01, STR("t"));
    append_frame(&bytes, true, 0x89, STR("are you there"));
    append_frame(&bytes, true, 0x00, STR("w"));
    append_frame(&bytes, true, 0x80, STR("o"));
    append_frame(&bytes, true, 0x8a, STR("unasked"));
    send_pieces(&far, str_of(&bytes), 0);
    rest();
    CHECK(got_proof(&far, host, &self, nonce) && got_frame(&far, 10, STR("are you there")));
    CHECK(took_up(host, &self) && took_letter(host, &self, "one"));
    CHECK(took_letter(host, &self, "two") && took_nothing(host) && got_nothing(&far));
    CHECK(peers_send(host->peers, peer_of(host, &self), STR("three")));
    rest();
    CHECK(got_text(&far, "three") && got_nothing(&far));
    send_frame(&far, true, 0x88, STR("\x03\xe8"));
    rest();
    CHECK(took_down(host, &self) && was_left(&far) && took_nothing(host));
    far_close(&far);
    buf_free(&bytes);
    finish();
}

/* However the bytes are cut: the upgrade, the proof, and a letter behind it. */
static void a_handshake_may_be_cut_anywhere(void)
{
    struct host *host;
    struct identity self = life_at(1, 300);

    begin();
    host = open_host(100);
    for (size_t cut = 0; cut < sizeof REQUEST + 330 && test_good; cut++) {
        struct far_end far;
        char nonce[sizeof NONCE];
        struct buf bytes = {0};
        size_t request = sizeof REQUEST - 1;
        size_t cuts[2] = {cut < request ? cut : request, cut < request ? 0 : cut - request};

        call(host, &far);
        if (cut)
            send_cut(&far, STR(REQUEST), cuts[0]);
        else
            send_pieces(&far, STR(REQUEST), 1);
        UNTIL(far_receive(&far).length >= sizeof UPGRADED + CHALLENGE_LENGTH);
        CHECK(got_challenge(&far, nonce));
        append_frame(&bytes, true, 0x81, str_from(good_proof(host, &self, nonce)));
        append_frame(&bytes, true, 0x81, STR("letter"));
        if (cut)
            send_cut(&far, str_of(&bytes), cuts[1] < bytes.length ? cuts[1] : bytes.length);
        else
            send_pieces(&far, str_of(&bytes), 1);
        UNTIL(far_receive(&far).length > HASH_TEXT);
        CHECK(got_proof(&far, host, &self, nonce));
        turn();
        CHECK(took_up(host, &self) && took_letter(host, &self, "letter") && took_nothing(host));
        far_close(&far);
        UNTIL(!linked(host, &self));
        if (!CHECK(took_down(host, &self)))
            printf("  that was cut at %zu\n", cut);
        buf_free(&bytes);
    }
    finish();
}

#define FILLER "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" /* 64 bytes */
#define FILLER_512 FILLER FILLER FILLER FILLER FILLER FILLER FILLER FILLER
#define NOMASK "\0\0\0\0"

/* What strangers send, and whether they get the 101 and a challenge for it; nothing else is said to
 * them in any case, and then they are left. */
static const struct {
    const char *name;
    struct str bytes;
    bool challenged;
} strangers[] = {
    {"garbage", STR_INIT("garbage\r\n\r\n"), false},
    {"NULs", STR_INIT("\0\0\0\0"), false},
    {"TLS", STR_INIT("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), false},
    {"another protocol", STR_INIT("AMQP\0\0\x09\x01"), false},
    {"bare LF", STR_INIT("GET /peer HTTP/1.1\nHost: h\n\n"), false},
    {"a browser", STR_INIT("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), false},
    {"no upgrade", STR_INIT(GET "\r\n"), false},
    {"a client", STR_INIT("GET /ws HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n"), false},
    {"a longer path", STR_INIT("GET /peers HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n"),
     false},
    {"a POST", STR_INIT("POST /peer HTTP/1.1\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n"), false},
    {"HTTP/1.0", STR_INIT("GET /peer HTTP/1.0\r\nHost: h\r\n" UPGRADE VERSION KEY "\r\n"), false},
    {"version 8", STR_INIT(GET UPGRADE "Sec-WebSocket-Version: 8\r\n" KEY "\r\n"), false},
    {"no key", STR_INIT(GET UPGRADE VERSION "\r\n"), false},
    {"a body", STR_INIT(GET UPGRADE VERSION KEY "Content-Length: 1\r\n\r\nx"), false},
    {"a head of more than 2,048 bytes",
     STR_INIT(GET "X: " FILLER_512 FILLER_512 FILLER_512 FILLER_512), false},
    {"a first line of more than 2,048 bytes",
     STR_INIT(FILLER_512 FILLER_512 FILLER_512 FILLER_512 "x"), false},
    {"a whole head of more than 2,048 bytes",
     STR_INIT(GET "X: " FILLER_512 FILLER_512 FILLER_512 FILLER_512 "\r\n" UPGRADE VERSION KEY
                  "\r\n"),
     false},
    {"not masked", STR_INIT(REQUEST "\x81\x02{}"), true},
    {"a reserved bit", STR_INIT(REQUEST "\xc1\x82" NOMASK "{}"), true},
    {"an unknown opcode", STR_INIT(REQUEST "\x83\x82" NOMASK "{}"), true},
    {"a close", STR_INIT(REQUEST "\x88\x80" NOMASK), true},
    {"not UTF-8", STR_INIT(REQUEST "\x81\x81" NOMASK "\xff"), true},
    {"nothing", STR_INIT(REQUEST "\x81\x80" NOMASK), true},
    {"no JSON", STR_INIT(REQUEST "\x81\x85" NOMASK "hello"), true},
    {"no object", STR_INIT(REQUEST "\x81\x82" NOMASK "[]"), true},
    {"nothing in it", STR_INIT(REQUEST "\x81\x82" NOMASK "{}"), true},
    {"a letter", STR_INIT(REQUEST "\x81\x92" NOMASK "{\"letter\":\"leave\"}"), true},
    {"a proof of nothing", STR_INIT(REQUEST "\x81\x8c" NOMASK "{\"proof\":\"\"}"), true},
    {"types that are wrong",
     STR_INIT(REQUEST "\x81\x9f" NOMASK "{\"node\":1,\"nonce\":[],\"proof\":{}}"), true},
    {"2,049 bytes announced", STR_INIT(REQUEST "\x81\xfe\x08\x01" NOMASK), true},
    {"4 GiB announced", STR_INIT(REQUEST "\x81\xff\0\0\0\1\0\0\0\0" NOMASK), true},
    {"2,048 bytes and one more in pieces",
     STR_INIT(REQUEST "\x01\xfe\x08\x00" NOMASK FILLER_512 FILLER_512 FILLER_512 FILLER_512
                      "\x80\x81" NOMASK "x"),
     true},
};

static void check_stranger(struct host *host, size_t i, size_t first, size_t size)
{
    struct far_end far;
    char nonce[sizeof NONCE];
    struct str bytes = strangers[i].bytes;

    call(host, &far);
    turn();
    if (first)
        send_cut(&far, bytes, first);
    else
        send_pieces(&far, bytes, size);
    CHECK(hear_the_end(&far));
    /* who breaks the protocol in the same breath may not even get the challenge */
    if (strangers[i].challenged && (far.received.length || size == 1))
        CHECK(got_challenge(&far, nonce));
    if (!CHECK(was_left(&far) && took_nothing(host) && !peers_all(host->peers)))
        printf("  that was %s, cut at %zu, pieces of %zu\n", strangers[i].name, first, size);
    far_close(&far);
}

static void strangers_are_met_with_silence(void)
{
    struct host *host;

    begin();
    host = open_host(100);
    for (size_t i = 0; i < COUNT(strangers) && test_good; i++) {
        size_t length = strangers[i].bytes.length, step = 1 + length / 400;

        check_stranger(host, i, 0, 0);
        check_stranger(host, i, 0, 1);
        for (size_t cut = 1; cut < length && test_good; cut += step)
            check_stranger(host, i, cut, 0);
    }
    CHECK(peers_poll_count(host->peers) == 1 && times_logged(host, "node") == 0);
    finish();
}

/* Not even a pong is said to who has not proved itself, and it cannot go on for ever. */
static void strangers_get_no_pong(void)
{
    struct host *host;
    struct far_end far;
    char nonce[sizeof NONCE];

    begin();
    host = open_host(100);
    call(host, &far);
    send_pieces(&far, STR(REQUEST), 0);
    rest();
    CHECK(got_challenge(&far, nonce));
    send_pieces(&far, STR("\x89\x82" NOMASK "hi"), 0);
    rest();
    CHECK(got_nothing(&far) && far.ended);
    far_close(&far);
    finish();
}

/* Whatever the frames are, PEER_UNPROVED_MAX bytes without a proof are enough. */
static void strangers_say_only_so_much(void)
{
    static const struct str frames[] = {
        STR_INIT("\x8a\xfd" NOMASK FILLER
                 "0123456789012345678901234567890123456789012345678901234567890"),
        STR_INIT("\x01\x80" NOMASK), /* and so on with 00 */
    };
    struct host *host;

    begin();
    host = open_host(100);
    for (size_t i = 0; i < COUNT(frames); i++) {
        struct far_end far;
        struct buf bytes = {0};
        char nonce[sizeof NONCE];

        buf_append(&bytes, STR(REQUEST));
        while (bytes.length <= sizeof REQUEST - 1 + PEER_UNPROVED_MAX) {
            size_t at = bytes.length;

            buf_append(&bytes, frames[i]);
            if (i == 1 && at >= sizeof REQUEST)
                bytes.at[at] = 0;
        }
        call(host, &far);
        send_pieces(&far, str_of(&bytes), 100);
        rest();
        CHECK(got_challenge(&far, nonce));
        if (!CHECK(was_left(&far)))
            printf("  that was row %zu\n", i);
        far_close(&far);
        buf_free(&bytes);
    }
    finish();
}

/* A stranger's head may have 2,048 bytes, and so may its message; and all of it two seconds. */
static void strangers_have_their_time(void)
{
    struct host *host;
    struct far_end fars[3];
    char nonce[sizeof NONCE];
    struct identity self = life_at(1, 300);
    struct buf proof = {0};

    begin();
    host = open_host(100);
    call(host, &fars[0]);
    call(host, &fars[1]);
    send_pieces(&fars[1], STR(GET "X: " FILLER_512 FILLER_512 FILLER_512), 0);
    call(host, &fars[2]);
    send_pieces(&fars[2],
                str_from(say(GET UPGRADE VERSION KEY "X: %0*d\r\n\r\n",
                             (int)(2048 - (sizeof REQUEST - 1) - 5), 0)),
                0);
    rest();
    CHECK(got_challenge(&fars[2], nonce));
    pass(1999);
    for (int i = 0; i < 3; i++)
        CHECK(got_nothing(&fars[i]) && !fars[i].ended);
    CHECK(peers_deadline(host->peers) == now + 1);
    buf_append(&proof, str_from(good_proof(host, &self, nonce)));
    while (proof.length < 2048)
        buf_append(&proof, STR(" "));
    send_frame(&fars[2], true, 0x81, str_of(&proof));
    rest();
    CHECK(got_proof(&fars[2], host, &self, nonce) && took_up(host, &self));
    pass(1);
    CHECK(was_left(&fars[0]) && was_left(&fars[1]) && got_nothing(&fars[2]) && !fars[2].ended);
    for (int i = 0; i < 3; i++)
        far_close(&fars[i]);
    buf_free(&proof);
    finish();
}

/* Every proof but the one that is right. */
static void wrong_proofs_are_refused(void)
{
    enum {
        OTHER_KEY,
        OTHER_NODE,
        OTHER_START,
        OTHER_NONCE,
        OTHER_CHALLENGE,
        NO_CHALLENGE,
        SWAPPED_NONCES,
        SWAPPED_NODES,
        OTHER_ROLE,
        UPPER_CASE,
        HALF,
        LONGER,
        OURS,
        OUR_NAME,
        BAD_NODE,
        SHORT_NONCE,
        LONG_NONCE,
        NO_NONCE,
        WRONG_COUNT
    };
    struct identity self = life_at(1, 300), other = life_at(2, 300), later = life_at(1, 301);
    struct crypto_keys stranger;
    struct host *host;

    begin();
    host = open_host(100);
    CHECK(crypto_derive_keys(&stranger, STR("0123456789abcdeF")));
    for (int i = 0; i < WRONG_COUNT; i++) {
        const char *me = life_text(&self), *it = life_text(&host->self), *node_text = me;
        const char *nonce = NONCE, *proof = NULL;
        const struct identity twin = life_at(host->self.port, 300);
        char hex[2 * HASH_TEXT + 1] = "", right[sizeof NONCE];
        struct far_end far;

        call(host, &far);
        send_pieces(&far, STR(REQUEST), 0);
        rest();
        CHECK(got_challenge(&far, right));
        proof = prove(&host->keys, "dial", me, it, NONCE, right);
        memcpy(hex, proof, HASH_TEXT);
        if (i == OTHER_KEY)
            proof = prove(&stranger, "dial", me, it, NONCE, right);
        else if (i == OTHER_NODE)
            node_text = life_text(&other);
        else if (i == OTHER_START)
            node_text = life_text(&later);
        else if (i == OTHER_NONCE)
            nonce = right;
        else if (i == OTHER_CHALLENGE)
            proof = prove(&host->keys, "dial", me, it, NONCE, NONCE);
        else if (i == NO_CHALLENGE)
            proof = prove(&host->keys, "dial", me, it, NONCE, "");
        else if (i == SWAPPED_NONCES)
            proof = prove(&host->keys, "dial", me, it, right, NONCE);
        else if (i == SWAPPED_NODES)
            proof = prove(&host->keys, "dial", it, me, NONCE, right);
        else if (i == OTHER_ROLE)
            proof = prove(&host->keys, "accept", me, it, NONCE, right);
        else if (i == UPPER_CASE)
            for (char *at = hex; *at; at++)
                *at = (char)(*at >= 'a' ? *at - 32 : *at);
        else if (i == HALF)
            hex[HASH_TEXT / 2] = '\0';
        else if (i == LONGER)
            hex[HASH_TEXT] = hex[0];
        else if (i == OURS || i == OUR_NAME)
            node_text = life_text(i == OURS ? &host->self : &twin);
        else if (i == BAD_NODE)
            node_text = say("0%s", me);
        else if (i == SHORT_NONCE)
            nonce = &NONCE[1];
        else if (i == LONG_NONCE)
            nonce = "0" NONCE;
        else if (i == NO_NONCE)
            nonce = "";
        if (i == UPPER_CASE || i == HALF || i == LONGER)
            proof = hex;
        if (i >= OURS) /* these would be right for what they say */
            proof = prove(&host->keys, "dial", node_text, it, nonce, right);
        send_frame(&far, true, 0x81, str_from(proof_of_dialler(node_text, nonce, proof)));
        if (!CHECK(was_left(&far) && took_nothing(host) && !peers_all(host->peers)))
            printf("  that was wrong proof %d\n", i);
        far_close(&far);
    }
    finish();
}

/* Each digit of a proof counts. */
static void every_digit_of_a_proof_counts(void)
{
    struct identity self = life_at(1, 300);
    struct host *host;

    begin();
    host = open_host(100);
    for (size_t i = 0; i < HASH_TEXT; i++) {
        struct far_end far;
        char nonce[sizeof NONCE], text[400];
        size_t at;

        call(host, &far);
        send_pieces(&far, STR(REQUEST), 0);
        UNTIL(far_receive(&far).length >= sizeof UPGRADED + CHALLENGE_LENGTH);
        CHECK(got_challenge(&far, nonce));
        snprintf(text, sizeof text, "%s", good_proof(host, &self, nonce));
        at = strlen(text) - 2 - HASH_TEXT + i;
        text[at] = text[at] == '0' ? '1' : '0';
        send_frame(&far, true, 0x81, str_from(text));
        if (!CHECK(was_left(&far) && took_nothing(host)))
            printf("  that was digit %zu\n", i);
        far_close(&far);
    }
    finish();
}

/* 64 that have not proved themselves are enough: for one more the one that has been there longest
 * has to go. Who is on a link does not suffer. */
static void guests_are_limited(void)
{
    struct host *host;
    struct identity first = life_at(1, 300), second = life_at(2, 300);
    struct far_end guests[67], linked_far;
    char nonce[sizeof NONCE];

    begin();
    host = open_host(100);
    call_as(host, &linked_far, &first);
    for (size_t i = 0; i < 65; i++) {
        call(host, &guests[i]);
        turn();
    }
    rest();
    CHECK(peers_poll_count(host->peers) == 1 + 1 + 64 && was_left(&guests[0]));
    for (size_t i = 1; i < 65; i++)
        CHECK(got_nothing(&guests[i]) && !guests[i].ended);
    send_frame(&linked_far, true, 0x81, STR("hello"));
    send_pieces(&guests[1], STR(REQUEST), 0);
    rest();
    CHECK(took_up(host, &first) && took_letter(host, &first, "hello"));
    CHECK(got_challenge(&guests[1], nonce));
    /* who proves itself makes room, and so does one that leaves */
    send_frame(&guests[1], true, 0x81, str_from(good_proof(host, &second, nonce)));
    rest();
    CHECK(got_proof(&guests[1], host, &second, nonce) && took_up(host, &second));
    far_close(&guests[64]);
    rest();
    CHECK(peers_poll_count(host->peers) == 1 + 2 + 62);
    call(host, &guests[64]);
    call(host, &guests[65]);
    rest();
    CHECK(peers_poll_count(host->peers) == 1 + 2 + 64);
    CHECK(got_nothing(&guests[2]) && !guests[2].ended);
    call(host, &guests[66]);
    rest();
    CHECK(was_left(&guests[2]) && got_nothing(&guests[3]) && !guests[3].ended);
    /* after two seconds all of them have to go, and the links stay */
    pass(2000);
    for (size_t i = 3; i < COUNT(guests); i++)
        CHECK(was_left(&guests[i]));
    CHECK(peers_poll_count(host->peers) == 1 + 2 && linked(host, &first) && linked(host, &second));
    CHECK(took_nothing(host));
    for (size_t i = 0; i < COUNT(guests); i++)
        far_close(&guests[i]);
    far_close(&linked_far);
    finish();
}

/* Many more come at once than there is room for. */
static void a_crowd_does_no_harm(void)
{
    static struct far_end crowd[120];
    struct identity self = life_at(1, 300);
    struct host *host;
    struct far_end far;
    size_t left = 0;

    begin();
    host = open_host(100);
    for (size_t i = 0; i < COUNT(crowd); i++)
        call(host, &crowd[i]);
    rest();
    CHECK(peers_poll_count(host->peers) == 1 + 64);
    for (size_t i = 0; i < COUNT(crowd); i++)
        left += recv(crowd[i].fd, &(char){0}, 1, MSG_PEEK) == 0;
    CHECK(left == COUNT(crowd) - 64);
    call_as(host, &far, &self);
    CHECK(took_up(host, &self) && took_nothing(host));
    for (size_t i = 0; i < COUNT(crowd); i++)
        far_close(&crowd[i]);
    rest();
    CHECK(peers_poll_count(host->peers) == 1 + 1 && linked(host, &self));
    far_close(&far);
    finish();
}

/* Carries bytes between a host that dials a post and the host that is behind it; keeps them. */
static void carry(struct far_end *from, const struct far_end *to, struct buf *kept)
{
    struct str bytes = far_receive(from);

    if (bytes.length) {
        buf_append(kept, bytes);
        CHECK(far_send(to, bytes));
    }
    from->taken = bytes.length;
}

/* What was said in one handshake is of no use in another: not to the acceptor, not to the dialler.
 */
static void a_recorded_handshake_is_of_no_use(void)
{
    struct host *a, *b;
    struct post post;
    struct far_end far;
    struct buf said = {0}, answered = {0};

    begin();
    open_post(&post, 100);
    a = open_host_with("0123456789abcdef", 100, post.self.port);
    b = open_host(200);
    list(b, &a->self);
    UNTIL(accept_call(&post));
    call(a, &far); /* it is not where its name says: the post is */
    for (int i = 0; i < TURNS_MOST && !(linked(a, &b->self) && linked(b, &a->self)); i++) {
        carry(&post.far, &far, &said);
        carry(&far, &post.far, &answered);
        turn();
    }
    CHECK(took_up(a, &b->self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    CHECK(said.length > 300 && answered.length > 200);
    far_close(&far);
    far_close(&post.far);
    UNTIL(!linked(a, &b->self) && !linked(b, &a->self));
    CHECK(took_down(a, &b->self) && took_down(b, &a->self));
    /* the dialler's bytes to the acceptor: it asks for something else now */
    call(a, &far);
    send_pieces(&far, (struct str){said.at, said.length - 10}, 0);
    UNTIL(far_receive(&far).length >= answered.length - HASH_TEXT - 14);
    send_pieces(&far, (struct str){said.at + said.length - 10, 10}, 0);
    CHECK(hear_the_end(&far) && took_nothing(a) && !linked(a, &b->self));
    CHECK(far.received.length == answered.length - HASH_TEXT - 14);
    CHECK(memcmp(far.received.at, answered.at, far.received.length) != 0);
    CHECK(memcmp(far.received.at, answered.at, sizeof UPGRADED - 1) == 0);
    /* the acceptor's bytes to the dialler: it has asked with another key */
    now = peer_of(b, &a->self)->retry_at;
    UNTIL(accept_call(&post));
    rest();
    far_forget(&post.far);
    send_pieces(&post.far, str_of(&answered), 0);
    CHECK(was_left(&post.far) && took_nothing(b) && !linked(b, &a->self));
    far_close(&far);
    close_post(&post);
    buf_free(&said);
    buf_free(&answered);
    finish();
}

/* --- the dialler, seen by hand --------------------------------------------------------------- */

static void who_proves_itself_is_linked_to(void)
{
    struct host *host;
    struct post post;
    struct buf payload = {0}, bytes = {0};

    begin();
    host = open_host(200);
    open_post(&post, 100);
    list(host, &post.self);
    await_call(&post);
    challenge(&post, host);
    CHECK(took_nothing(host) && !linked(host, &post.self));
    append_frame(&bytes, false, 0x81, str_from(proof_of_post(&post, host)));
    append_frame(&bytes, false, 0x81, STR("one"));
    append_frame(&bytes, false, 0x01, STR("tw"));
    append_frame(&bytes, false, 0x89, STR("are you there"));
    append_frame(&bytes, false, 0x80, STR("o"));
    send_pieces(&post.far, str_of(&bytes), 0);
    rest();
    CHECK(took_up(host, &post.self) && took_letter(host, &post.self, "one"));
    CHECK(took_letter(host, &post.self, "two") && took_nothing(host));
    CHECK(got_masked(&post, WS_PONG, &payload) && same(str_of(&payload), STR("are you there")));
    CHECK(peers_send(host->peers, peer_of(host, &post.self), STR("three")));
    rest();
    CHECK(got_masked(&post, WS_TEXT, &payload) && same(str_of(&payload), STR("three")));
    pass(1000);
    CHECK(got_masked(&post, WS_PING, &payload) && payload.length == 0);
    CHECK(got_nothing(&post.far));
    buf_free(&payload);
    buf_free(&bytes);
    close_post(&post);
    finish();
}

/* The masks are drawn for each frame. */
static void masks_differ(void)
{
    struct host *host;
    struct post post;
    char masks[8][4];
    unsigned same_masks = 0;

    begin();
    host = open_host(200);
    open_post(&post, 100);
    list(host, &post.self);
    await_call(&post);
    challenge(&post, host);
    send_frame(&post.far, false, 0x81, str_from(proof_of_post(&post, host)));
    rest();
    for (size_t i = 0; i < COUNT(masks); i++) {
        struct str bytes;

        CHECK(peers_send(host->peers, peer_of(host, &post.self), STR("x")));
        rest();
        bytes = far_receive(&post.far);
        if (CHECK(bytes.length == 7))
            memcpy(masks[i], bytes.at + 2, 4);
        far_forget(&post.far);
        for (size_t j = 0; j < i; j++)
            same_masks += memcmp(masks[i], masks[j], 4) == 0;
    }
    CHECK(same_masks == 0);
    close_post(&post);
    finish();
}

static void an_answer_may_be_cut_anywhere(void)
{
    begin();
    for (size_t cut = 0; cut < 250 && test_good; cut++) {
        struct host *host = open_host(200);
        struct post post;
        struct buf bytes = {0}, payload = {0};
        size_t length;

        open_post(&post, 100);
        list(host, &post.self);
        await_call(&post);
        buf_append(&bytes, str_from(post.upgraded));
        append_frame(&bytes, false, 0x81, STR("{\"challenge\":\"" NONCE "\"}"));
        length = bytes.length;
        if (cut)
            send_cut(&post.far, str_of(&bytes), cut < length ? cut : length);
        else
            send_pieces(&post.far, str_of(&bytes), 1);
        UNTIL(far_receive(&post.far).length > 170);
        CHECK(got_masked(&post, WS_TEXT, &payload));
        memcpy(post.nonce, payload.at + payload.length - 2 - HASH_TEXT - 11 - (sizeof NONCE - 1),
               sizeof NONCE - 1);
        bytes.length = 0;
        append_frame(&bytes, false, 0x81, str_from(proof_of_post(&post, host)));
        append_frame(&bytes, false, 0x81, STR("letter"));
        if (cut)
            send_cut(&post.far, str_of(&bytes), cut < bytes.length ? cut : bytes.length);
        else
            send_pieces(&post.far, str_of(&bytes), 1);
        UNTIL(linked(host, &post.self));
        turn();
        if (!CHECK(took_up(host, &post.self) && took_letter(host, &post.self, "letter") &&
                   took_nothing(host)))
            printf("  that was cut at %zu\n", cut);
        buf_free(&bytes);
        buf_free(&payload);
        close_post(&post);
        close_host(host);
        fclose(host->log.file);
        host_count = 0;
    }
    finish();
}

/* Whom it dialled cannot prove itself: there is no link, and that is told once. */
static void answers_that_are_wrong_end_it(void)
{
    enum {
        HANG_UP,
        GARBAGE,
        REFUSAL,
        OTHER_KEY_101,
        OTHER_101,
        LONG_HEAD,
        MASKED,
        NOT_JSON,
        NO_CHALLENGE,
        SHORT_CHALLENGE,
        LONG_CHALLENGE,
        TOO_LONG,
        CLOSE,
        NO_PROOF,
        OTHER_PROOF,
        REFLECTED,
        SWAPPED,
        MASKED_PROOF,
        CHALLENGE_AGAIN,
        SILENCE,
        WRONG_COUNT
    };
    begin();
    for (int i = 0; i < WRONG_COUNT; i++) {
        struct host *host = open_host(200);
        struct post post;

        open_post(&post, 100);
        list(host, &post.self);
        await_call(&post);
        if (i >= NO_PROOF && i != SILENCE)
            challenge(&post, host);
        else if (i >= MASKED && i != SILENCE)
            send_pieces(&post.far, str_from(post.upgraded), 0);
        if (i == HANG_UP)
            shutdown(post.far.fd, SHUT_WR);
        else if (i == GARBAGE)
            send_pieces(&post.far, STR("\xff\xfb\x01"), 0);
        else if (i == REFUSAL)
            send_pieces(&post.far, STR("HTTP/1.1 404 Not Found\r\n"), 0);
        else if (i == OTHER_KEY_101)
            send_pieces(&post.far, STR(UPGRADED), 0);
        else if (i == OTHER_101)
            send_pieces(
                &post.far,
                str_from(say("%.*sX: y\r\n\r\n", (int)strlen(post.upgraded) - 2, post.upgraded)),
                0);
        else if (i == LONG_HEAD)
            send_pieces(&post.far, STR("HTTP/1.1 101 Switching Protocols\r\nX: " FILLER_512), 0);
        else if (i == MASKED)
            send_frame(&post.far, true, 0x81, STR("{\"challenge\":\"" NONCE "\"}"));
        else if (i == NOT_JSON)
            send_frame(&post.far, false, 0x81, STR("hello"));
        else if (i == NO_CHALLENGE)
            send_frame(&post.far, false, 0x81, STR("{\"nonce\":\"" NONCE "\"}"));
        else if (i == SHORT_CHALLENGE)
            send_frame(&post.far, false, 0x81, STR("{\"challenge\":\"0123\"}"));
        else if (i == LONG_CHALLENGE)
            send_frame(&post.far, false, 0x81, STR("{\"challenge\":\"" NONCE "0\"}"));
        else if (i == TOO_LONG)
            send_pieces(&post.far, STR("\x81\x7e\x08\x01"), 0);
        else if (i == CLOSE)
            send_frame(&post.far, false, 0x88, STR(""));
        else if (i == NO_PROOF)
            send_frame(&post.far, false, 0x81, STR("{}"));
        else if (i == OTHER_PROOF)
            send_frame(&post.far, false, 0x81, STR("{\"proof\":\"" NONCE "\"}"));
        else if (i == REFLECTED)
            send_frame(&post.far, false, 0x81, str_from(say("{\"proof\":\"%s\"}", post.proof)));
        else if (i == SWAPPED)
            send_frame(&post.far, false, 0x81,
                       str_from(say("{\"proof\":\"%s\"}",
                                    prove(&host->keys, "accept", life_text(&host->self),
                                          life_text(&post.self), NONCE, post.nonce))));
        else if (i == MASKED_PROOF)
            send_frame(&post.far, true, 0x81, str_from(proof_of_post(&post, host)));
        else if (i == CHALLENGE_AGAIN)
            send_frame(&post.far, false, 0x81, STR("{\"challenge\":\"" NONCE "\"}"));
        else if (i == SILENCE) {
            pass(1999);
            CHECK(!post.far.ended && got_nothing(&post.far));
            pass(1);
        }
        if (!CHECK(was_left(&post.far) && took_nothing(host) && !linked(host, &post.self)) ||
            !CHECK(times_logged(host, "no link to a node") == 1) ||
            !CHECK(peer_of(host, &post.self)->listed && times_logged(host, "reason=") == 1))
            printf("  that was wrong answer %d\n", i);
        /* it is dialled again, and the truth is believed then */
        pass(3200);
        await_call(&post);
        challenge(&post, host);
        send_frame(&post.far, false, 0x81, str_from(proof_of_post(&post, host)));
        rest();
        CHECK(took_up(host, &post.self) && took_nothing(host));
        close_post(&post);
        close_host(host);
        fclose(host->log.file);
        host_count = 0;
    }
    finish();
}

/* --- keys and names -------------------------------------------------------------------------- */

/* Nodes of different keys do not link: the dialler's operator is told, once, what it may be. */
static void another_crypto_key_gives_no_link(void)
{
    struct host *a, *b;

    begin();
    a = open_host(100);
    b = open_host_with("0123456789abcdeF", 200, 0);
    list(a, &b->self);
    list(b, &a->self);
    for (int i = 0; i < 10; i++) {
        pass(3200);
        CHECK(!linked(a, &b->self) && !linked(b, &a->self));
    }
    CHECK(took_nothing(a) && took_nothing(b));
    CHECK(times_logged(b, "no link to a node") == 1 && times_logged(b, "crypto_key") == 1);
    CHECK(times_logged(a, "node") == 0 && peers_poll_count(a->peers) == 1);
    finish();
}

/* Who answers at the address of a node but is another, or another life of it, is not linked to. */
static void another_node_at_the_address_gives_no_link(void)
{
    struct host *a, *b;
    struct identity before;

    begin();
    a = open_host(100);
    b = open_host(200);
    before = a->self;
    before.start = 99;
    list(b, &before);
    for (int i = 0; i < 3; i++)
        pass(3200);
    CHECK(!linked(b, &before) && took_nothing(a) && took_nothing(b) && !peers_all(a->peers));
    CHECK(times_logged(b, "no link to a node") == 1);
    list(b, &a->self); /* both are known for a while; they are not mixed up */
    UNTIL(linked(b, &a->self) && linked(a, &b->self));
    CHECK(took_up(b, &a->self) && took_nothing(b) && !linked(b, &before));
    CHECK(peer_of(b, &before) != peer_of(b, &a->self));
    finish();
}

/* --- links that follow each other ------------------------------------------------------------ */

/* A node that dials anew has given up its link before: the new one takes its place. */
static void a_new_link_takes_the_place_of_the_old(void)
{
    struct identity self = life_at(1, 300);
    struct host *host;
    struct far_end old, new;

    begin();
    host = open_host(100);
    call_as(host, &old, &self);
    CHECK(took_up(host, &self));
    call_as(host, &new, &self);
    CHECK(took_down(host, &self) && took_up(host, &self) && took_nothing(host));
    CHECK(was_left(&old) && peers_poll_count(host->peers) == 2);
    CHECK(peers_send(host->peers, peer_of(host, &self), STR("to the new one")));
    send_frame(&new, true, 0x81, STR("from the new one"));
    rest();
    CHECK(got_text(&new, "to the new one") && took_letter(host, &self, "from the new one"));
    CHECK(!peers_all(host->peers)->next);
    far_close(&old);
    rest(); /* the end of the old one is nothing to the new */
    CHECK(linked(host, &self) && took_nothing(host));
    far_close(&new);
    rest();
    CHECK(took_down(host, &self) && took_nothing(host));
    finish();
}

/* Another life of a node is another node. */
static void lives_of_a_node_are_told_apart(void)
{
    struct identity first = life_at(1, 300), second = life_at(1, 301);
    struct host *host;
    struct far_end fars[2];

    begin();
    host = open_host(100);
    call_as(host, &fars[0], &first);
    call_as(host, &fars[1], &second);
    CHECK(took_up(host, &first) && took_up(host, &second) && took_nothing(host));
    CHECK(peers_send(host->peers, peer_of(host, &second), STR("x")));
    rest();
    CHECK(got_nothing(&fars[0]) && got_text(&fars[1], "x"));
    far_close(&fars[0]);
    rest();
    CHECK(took_down(host, &first) && took_nothing(host) && linked(host, &second));
    far_close(&fars[1]);
    finish();
}

/* --- breaches on a link that is up ----------------------------------------------------------- */

static void breaches_end_a_link(void)
{
    static const struct {
        struct str bytes;
        bool ends;
    } rows[] = {
        {STR_INIT("\x81\x01x"), true},              /* not masked */
        {STR_INIT("\xc1\x81" NOMASK "x"), true},    /* a reserved bit */
        {STR_INIT("\x81\x81" NOMASK "\xff"), true}, /* not UTF-8 */
        {STR_INIT("\x80\x80" NOMASK), true},        /* nothing to continue */
        {STR_INIT("\x88\x80" NOMASK), true},
        {STR_INIT("\x81\xff\0\0\0\0\x10\0\0\1" NOMASK), true}, /* 256 MiB and one byte */
        {STR_INIT("\x81\xff\0\0\0\0\x10\0\0\0" NOMASK), false},
        {STR_INIT("\x01\x81" NOMASK "x"), false},
        {STR_INIT("\x89\x80" NOMASK), false},
    };
    struct identity self = life_at(1, 300);
    struct host *host;

    begin();
    host = open_host(100);
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct far_end far;

        call_as(host, &far, &self);
        CHECK(took_up(host, &self));
        send_pieces(&far, rows[i].bytes, 1);
        rest();
        if (rows[i].ends)
            CHECK(took_down(host, &self) && was_left(&far));
        else
            CHECK(linked(host, &self) && !far.ended);
        if (!CHECK(took_nothing(host)))
            printf("  that was row %zu\n", i);
        far_close(&far);
        rest();
        take_all(host);
        CHECK(!linked(host, &self));
    }
    finish();
}

/* The one that dialled reads the frames of a server: masked ones are a breach. */
static void a_masked_letter_ends_the_diallers_link(void)
{
    struct host *host;
    struct post post;

    begin();
    host = open_host(200);
    open_post(&post, 100);
    list(host, &post.self);
    await_call(&post);
    challenge(&post, host);
    send_frame(&post.far, false, 0x81, str_from(proof_of_post(&post, host)));
    send_frame(&post.far, true, 0x81, STR("x"));
    rest();
    CHECK(took_up(host, &post.self) && took_down(host, &post.self) && took_nothing(host));
    CHECK(was_left(&post.far));
    close_post(&post);
    finish();
}

/* --- nodes that leave ------------------------------------------------------------------------ */

/* A node is removed in each state of its dialling; nothing is said about it. */
static void a_node_is_removed_while_it_is_dialled(void)
{
    begin();
    for (int stage = 0; stage < 5; stage++) {
        struct host *host = open_host(200);
        struct post post;

        open_post(&post, 100);
        list(host, &post.self);
        turn_host(host);
        CHECK(peer_of(host, &post.self)->dialing);
        if (stage >= 1)
            await_call(&post);
        if (stage == 2)
            send_pieces(&post.far, str_from(post.upgraded), 0);
        if (stage >= 3)
            challenge(&post, host);
        if (stage >= 4) {
            send_frame(&post.far, false, 0x81, str_from(proof_of_post(&post, host)));
            rest();
            CHECK(took_up(host, &post.self));
        }
        peers_remove(host->peers, peer_of(host, &post.self));
        CHECK(!peers_all(host->peers) && !peers_find(host->peers, &post.self));
        rest();
        CHECK(peers_poll_count(host->peers) == 1 && peers_deadline(host->peers) == INT64_MAX);
        pass(10000);
        CHECK(took_nothing(host) && peers_poll_count(host->peers) == 1);
        CHECK(peers_deadline(host->peers) == INT64_MAX && times_logged(host, "warn") == 0);
        if (stage >= 1)
            CHECK(was_left(&post.far));
        close_post(&post);
        close_host(host);
        fclose(host->log.file);
        host_count = 0;
    }
    finish();
}

/* Of many nodes one is removed, wherever it stands in the list; what it said is still taken. */
static void removing_one_leaves_the_others(void)
{
    struct identity nodes[5];
    struct host *host;

    begin();
    host = open_host(1);
    for (size_t gone = 0; gone < COUNT(nodes); gone++) {
        for (size_t i = 0; i < COUNT(nodes); i++) {
            nodes[i] = life_at((uint16_t)(i + 1), 300);
            list(host, &nodes[i]);
        }
        peers_remove(host->peers, peer_of(host, &nodes[gone]));
        for (size_t i = 0; i < COUNT(nodes); i++)
            CHECK(!peer_of(host, &nodes[i]) == (i == gone));
    }
    finish();
}

static void letters_outlive_their_node(void)
{
    struct identity self = life_at(1, 300);
    struct host *host;
    struct far_end far;

    begin();
    host = open_host(100);
    call_as(host, &far, &self);
    send_frame(&far, true, 0x81, STR("last words"));
    rest();
    peers_remove(host->peers, peer_of(host, &self));
    rest();
    CHECK(took_up(host, &self) && took_letter(host, &self, "last words") && took_nothing(host));
    CHECK(was_left(&far));
    far_close(&far);
    finish();
}

/* Closing with everything under way frees everything, and NULL is allowed. */
static void closing_frees_everything(void)
{
    struct identity self = life_at(1, 300);
    struct host *host;
    struct far_end fars[3];
    struct post post;

    begin();
    peers_close(NULL);
    host = open_host(200);
    open_post(&post, 100);
    list(host, &post.self);
    await_call(&post);
    call_as(host, &fars[0], &self);
    call(host, &fars[1]);
    call(host, &fars[2]);
    send_pieces(&fars[1], STR(REQUEST "\x01\x82" NOMASK "{}"), 0);
    send_frame(&fars[0], true, 0x81, STR("not taken"));
    send_frame(&fars[0], true, 0x01, STR("not whole"));
    rest();
    CHECK(peers_send(host->peers, peer_of(host, &self), STR("not sent")));
    close_host(host);
    CHECK(got_nothing(&fars[0]) && fars[0].ended);
    far_receive(&fars[1]);
    CHECK(fars[1].ended);
    for (size_t i = 0; i < 3; i++)
        far_close(&fars[i]);
    close_post(&post);
    finish();
}

int main(void)
{
    test_run("the_later_one_dials", the_later_one_dials);
    test_run("one_of_two_of_the_same_time_dials", one_of_two_of_the_same_time_dials);
    test_run("nobody_dials_itself", nobody_dials_itself);
    test_run("three_link", three_link);
    test_run("who_has_not_joined_is_silent", who_has_not_joined_is_silent);
    test_run("letters_go_both_ways", letters_go_both_ways);
    test_run("many_letters_stay_in_order", many_letters_stay_in_order);
    test_run("who_does_not_read_is_sent_no_more", who_does_not_read_is_sent_no_more);
    test_run("a_broken_link_is_dialled_again", a_broken_link_is_dialled_again);
    test_run("pauses_double", pauses_double);
    test_run("pauses_differ", pauses_differ);
    test_run("a_break_is_told_once", a_break_is_told_once);
    test_run("pings_keep_a_quiet_link_up", pings_keep_a_quiet_link_up);
    test_run("silence_is_suspect_and_then_the_end", silence_is_suspect_and_then_the_end);
    test_run("a_caller_that_proves_itself_is_linked", a_caller_that_proves_itself_is_linked);
    test_run("a_handshake_may_be_cut_anywhere", a_handshake_may_be_cut_anywhere);
    test_run("strangers_are_met_with_silence", strangers_are_met_with_silence);
    test_run("strangers_get_no_pong", strangers_get_no_pong);
    test_run("strangers_say_only_so_much", strangers_say_only_so_much);
    test_run("strangers_have_their_time", strangers_have_their_time);
    test_run("wrong_proofs_are_refused", wrong_proofs_are_refused);
    test_run("every_digit_of_a_proof_counts", every_digit_of_a_proof_counts);
    test_run("guests_are_limited", guests_are_limited);
    test_run("a_crowd_does_no_harm", a_crowd_does_no_harm);
    test_run("a_recorded_handshake_is_of_no_use", a_recorded_handshake_is_of_no_use);
    test_run("who_proves_itself_is_linked_to", who_proves_itself_is_linked_to);
    test_run("masks_differ", masks_differ);
    test_run("an_answer_may_be_cut_anywhere", an_answer_may_be_cut_anywhere);
    test_run("answers_that_are_wrong_end_it", answers_that_are_wrong_end_it);
    test_run("another_crypto_key_gives_no_link", another_crypto_key_gives_no_link);
    test_run("another_node_at_the_address_gives_no_link",
             another_node_at_the_address_gives_no_link);
    test_run("a_new_link_takes_the_place_of_the_old", a_new_link_takes_the_place_of_the_old);
    test_run("lives_of_a_node_are_told_apart", lives_of_a_node_are_told_apart);
    test_run("breaches_end_a_link", breaches_end_a_link);
    test_run("a_masked_letter_ends_the_diallers_link", a_masked_letter_ends_the_diallers_link);
    test_run("a_node_is_removed_while_it_is_dialled", a_node_is_removed_while_it_is_dialled);
    test_run("removing_one_leaves_the_others", removing_one_leaves_the_others);
    test_run("letters_outlive_their_node", letters_outlive_their_node);
    test_run("closing_frees_everything", closing_frees_everything);
    return test_finish();
}
