/* test_cluster_link.c - cluster_link.c: nodes of one process that link over the loopback, with a
 * clock that the test turns; and far ends with a key of ours, which see each frame that nodes say
 * to each other, and try what no node would. */
#include "cluster_link.h"

#include "cluster_crypto.h"
#include "conn.h"
#include "ws.h"

#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define HOSTS 3
#define START 1000000  /* milliseconds at which a test begins */
#define TURNS_MAX 5000 /* after which a test gives up */
#define MIB (1024u * 1024)
#define KEY "0123456789abcdef"
#define NEW_KEY "another key here"

/* A node's side of the links. */
struct host {
    struct links *links;
    struct node_id self;
    uint16_t port; /* at which it listens */
    struct log log;
    struct crypto_keyring keys;
};

static struct host hosts[HOSTS];
static size_t host_count;
static struct config config;
static struct crypto_keyring keys; /* of the far ends */
static struct tls_context *tls;    /* theirs */
static int64_t now;
static int fds_before;
static int wake[2];

/* --- names ------------------------------------------------------------------------------------ */

/* The test's getaddrinfo, in the place of the system's: names that it makes up. */
int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list);
int __real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list);

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t names_changed = PTHREAD_COND_INITIALIZER;
static bool names_hang; /* look-ups wait while this is set */
static unsigned names_asked, names_done;
static const char *names_address; /* what "node.example" stands for */

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list)
{
    struct addrinfo numeric = *hints;
    const char *address;
    int error;

    pthread_mutex_lock(&names_lock);
    names_asked++;
    while (names_hang)
        pthread_cond_wait(&names_changed, &names_lock);
    address = names_address;
    names_done++;
    pthread_cond_broadcast(&names_changed);
    pthread_mutex_unlock(&names_lock);
    if (strcmp(host, "nowhere.example") == 0)
        return EAI_NONAME;
    if (strcmp(host, "node.example") != 0)
        return __real_getaddrinfo(host, service, hints, list);
    numeric.ai_flags |= AI_NUMERICHOST;
    if (strcmp(address, "both") != 0)
        return __real_getaddrinfo(address, service, &numeric, list);
    error = __real_getaddrinfo("::1", service, &numeric, list);
    return error ? error : __real_getaddrinfo("127.0.0.1", service, &numeric, &(*list)->ai_next);
}

static void set_hanging(bool hang)
{
    pthread_mutex_lock(&names_lock);
    names_hang = hang;
    pthread_cond_broadcast(&names_changed);
    pthread_mutex_unlock(&names_lock);
}

static unsigned asked(void)
{
    unsigned count;

    pthread_mutex_lock(&names_lock);
    count = names_asked;
    pthread_mutex_unlock(&names_lock);
    return count;
}

/* --- sockets --------------------------------------------------------------------------------- */

static int count_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 512; fd++)
        count += fcntl(fd, F_GETFD) != -1;
    return count;
}

/* A listening socket on an address of the loopback, at a port of its own if *port is 0; -1 if there
 * is no such address. */
static int listen_at(const char *address, uint16_t *port)
{
    union lookup_address at;
    socklen_t length = sizeof at;
    int fd, one = 1;

    CHECK(lookup_read(str_from(address), &at));
    lookup_set_port(&at, *port);
    fd = socket(at.any.sa_family, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, &at.any, lookup_size(&at)) != 0 || listen(fd, 128) != 0) {
        close(fd);
        return -1;
    }
    CHECK(getsockname(fd, &at.any, &length) == 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    *port = ntohs(at.any.sa_family == AF_INET6 ? at.ipv6.sin6_port : at.ipv4.sin_port);
    return fd;
}

static int open_listener(uint16_t *port)
{
    int fd = listen_at("127.0.0.1", port);

    CHECK(fd >= 0);
    return fd;
}

/* A port at which nobody listens. */
static uint16_t closed_port(void)
{
    uint16_t port = 0;

    close(open_listener(&port));
    return port;
}

static struct node_id node_at(uint16_t port, uint64_t incarnation)
{
    struct node_id node = {.incarnation = incarnation};

    CHECK(node_set_name(&node, STR("127.0.0.1"), port));
    return node;
}

static struct node_id node_named(const char *host, uint16_t port, uint64_t incarnation)
{
    struct node_id node = {.incarnation = incarnation};

    CHECK(node_set_name(&node, str_from(host), port));
    return node;
}

static const char *node_text(const struct node_id *node)
{
    char text[NODE_TEXT_MAX];

    node_write(node, text);
    return textf("%s", text);
}

/* --- hosts ----------------------------------------------------------------------------------- */

/* `key` is used, `accepted` is accepted as well, unless it is NULL. */
static struct host *open_host_with(const char *key, const char *accepted, uint64_t incarnation,
                                   int listener, uint16_t port)
{
    struct host *host = &hosts[host_count++];
    struct links_options options = {.config = &config,
                                    .log = &host->log,
                                    .keys = &host->keys,
                                    .listener = listener,
                                    .wake = wake[1]};

    *host = (struct host){.log = {.file = tmpfile(), .level = LOG_DEBUG}, .port = port};
    if (!host->log.file)
        abort();
    setvbuf(host->log.file, NULL, _IONBF, 0);
    CHECK(crypto_add_key(&host->keys, str_from(key), false));
    CHECK(!accepted || crypto_add_key(&host->keys, str_from(accepted), false));
    CHECK(cluster_crypto_derive(&host->keys));
    host->self = node_at(port, incarnation);
    host->links = links_open(&options);
    CHECK(host->links != NULL);
    if (incarnation)
        links_join(host->links, &host->self);
    return host;
}

static struct host *open_keyed(const char *key, const char *accepted, uint64_t incarnation)
{
    uint16_t port = 0;
    int listener = open_listener(&port);

    return open_host_with(key, accepted, incarnation, listener, port);
}

static struct host *open_host(uint64_t incarnation)
{
    return open_keyed(KEY, NULL, incarnation);
}

static void begin(int unused)
{
    (void)unused;
    signal(SIGPIPE, SIG_IGN);
    config_defaults(&config);
    host_count = 0;
    now = START;
    fds_before = count_fds();
}

static void close_host(struct host *host)
{
    links_close(host->links);
    host->links = NULL;
}

static void close_hosts(void)
{
    for (size_t i = 0; i < host_count; i++) {
        close_host(&hosts[i]);
        fclose(hosts[i].log.file);
    }
    host_count = 0;
}

/* One iteration of one host; true if there was something to do. */
static bool turn_host(struct host *host)
{
    size_t count = links_poll_count(host->links);
    struct pollfd *polls = calloc(count, sizeof *polls);
    bool moved;

    if (!polls)
        abort();
    links_poll(host->links, polls);
    moved = poll(polls, (nfds_t)count, 0) > 0;
    links_serve(host->links, polls, now);
    links_flush(host->links);
    free(polls);
    return moved;
}

static bool turn(void)
{
    bool moved = false;

    for (size_t i = 0; i < host_count; i++)
        if (hosts[i].links)
            moved = turn_host(&hosts[i]) || moved;
    return moved;
}

/* Turns until nothing has moved for a while. */
static void rest(void)
{
    int quiet = 0;

    for (int turns = 0; quiet < 4 && turns < TURNS_MAX; turns++) {
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

static const char *log_of(const struct host *host)
{
    static char room[1 << 20];
    size_t length;

    rewind(host->log.file);
    length = fread(room, 1, sizeof room - 1, host->log.file);
    fseek(host->log.file, 0, SEEK_END);
    room[length] = '\0';
    return room;
}

static void show_logs(void)
{
    for (size_t i = 0; i < host_count; i++)
        printf("  the log of %s:\n%s", node_text(&hosts[i].self), log_of(&hosts[i]));
}

/* Turns until this holds. */
#define UNTIL(condition)                                                                           \
    do {                                                                                           \
        bool holds_ = (condition);                                                                 \
                                                                                                   \
        for (int turns_ = 0; turns_ < TURNS_MAX && !holds_; turns_++) {                            \
            if (!turn())                                                                           \
                poll(NULL, 0, 1);                                                                  \
            holds_ = (condition);                                                                  \
        }                                                                                          \
        if (!test_check(holds_, __FILE__, __LINE__, "until " #condition))                          \
            show_logs();                                                                           \
    } while (0)

/* The registry of this host has that node. */
static struct peer *list(struct host *host, const struct node_id *id)
{
    struct peer *peer = links_add(host->links, id);

    CHECK(peer != NULL);
    peer->listed = true;
    return peer;
}

static struct peer *peer_of(const struct host *host, const struct node_id *id)
{
    return links_find(host->links, id);
}

static bool linked(const struct host *host, const struct node_id *id)
{
    const struct peer *peer = peer_of(host, id);

    return peer && peer->link;
}

/* How often this stands in the host's log. */
static unsigned times_logged(const struct host *host, const char *text)
{
    unsigned times = 0;

    for (const char *at = log_of(host); (at = strstr(at, text)); at++)
        times++;
    return times;
}

/* --- events ---------------------------------------------------------------------------------- */

/* Takes the next event, which is to be this one. */
static bool took(struct host *host, enum link_event_kind kind, const struct node_id *from,
                 struct str text)
{
    struct link_event *event = links_take(host->links);
    bool good = false;

    for (int turns = 0; !event && turns < TURNS_MAX / 5; turns++) { /* the machine may be slow */
        turn();
        poll(NULL, 0, 1);
        event = links_take(host->links);
    }
    if (event)
        good = event->kind == kind && node_equal(&event->from, from) &&
               str_equal(str_of(&event->text), text);
    if (!good)
        printf("  %s, kind %d, %zu bytes\n", event ? "another event" : "no event",
               event ? (int)event->kind : -1, event ? event->text.length : 0);
    if (event)
        buf_free(&event->text);
    free(event);
    return good;
}

static bool took_up(struct host *host, const struct node_id *from)
{
    return took(host, LINK_EVENT_UP, from, (struct str){0});
}

static bool took_down(struct host *host, const struct node_id *from)
{
    return took(host, LINK_EVENT_DOWN, from, (struct str){0});
}

static bool took_message(struct host *host, const struct node_id *from, const char *text)
{
    return took(host, LINK_EVENT_MESSAGE, from, str_from(text));
}

static bool took_nothing(struct host *host)
{
    struct link_event *event = links_take(host->links);
    bool nothing = !event;

    if (event) {
        printf("  an event of kind %d: %.*s\n", (int)event->kind, (int)(event->text.length % 2000),
               event->text.at ? event->text.at : "");
        buf_free(&event->text);
    }
    free(event);
    return nothing;
}

/* Takes all events; returns how many there were. */
static size_t take_all(struct host *host)
{
    struct link_event *event;
    size_t count = 0;

    for (; (event = links_take(host->links)); count++) {
        buf_free(&event->text);
        free(event);
    }
    return count;
}

/* Two hosts, the second of which joined later, linked. */
static void link_hosts(struct host **a, struct host **b)
{
    *a = open_host(100);
    *b = open_host(200);
    list(*a, &(*b)->self);
    list(*b, &(*a)->self);
    UNTIL(linked(*a, &(*b)->self) && linked(*b, &(*a)->self));
    CHECK(took_up(*a, &(*b)->self) && took_nothing(*a));
    CHECK(took_up(*b, &(*a)->self) && took_nothing(*b));
}

/* --- linking --------------------------------------------------------------------------------- */

static void the_later_one_connects(void)
{
    struct host *a = open_host(100), *b = open_host(200);

    CHECK(links_deadline(a->links) == INT64_MAX && links_poll_count(a->links) == 1);
    CHECK(!links_find(a->links, &b->self) && !links_all(a->links));
    links_add(a->links, &b->self);
    CHECK(links_all(a->links) == peer_of(a, &b->self) && !links_all(a->links)->next);
    CHECK(links_add(a->links, &b->self) == peer_of(a, &b->self));
    links_add(b->links, &a->self); /* nobody connects while the registry does not know the other */
    pass(100000);
    CHECK(!peer_of(b, &a->self)->connecting && links_deadline(b->links) == INT64_MAX);
    CHECK(!peer_of(a, &b->self)->connecting && links_deadline(a->links) == INT64_MAX);
    CHECK(!links_reach(b->links, peer_of(b, &a->self)));
    CHECK(!links_send(b->links, peer_of(b, &a->self), STR("{}")));
    list(a, &b->self);
    list(b, &a->self);
    CHECK(links_deadline(b->links) <= now);
    turn_host(a);
    turn_host(b);
    CHECK(!peer_of(a, &b->self)->connecting && links_deadline(a->links) == now + 250);
    CHECK(peer_of(b, &a->self)->connecting && links_poll_count(b->links) == 2);
    CHECK(links_deadline(b->links) == now + 2000);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    CHECK(took_up(a, &b->self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    CHECK(!peer_of(b, &a->self)->connecting && links_reach(a->links, peer_of(a, &b->self)));
    CHECK(peer_of(a, &b->self)->version == WIRE_VERSION);
    CHECK(peer_of(b, &a->self)->version == WIRE_VERSION);
    CHECK(times_logged(a, "linked to a node") == 1 && times_logged(b, "linked to a node") == 1);
    CHECK(times_logged(b, textf("node=\"127.0.0.1:%u\"", a->port)) == 1);
    CHECK(times_logged(a, "warn") == 0 && times_logged(b, "warn") == 0);
}

/* Of two that joined at once the one with the greater name connects: one of them in any case. */
static void one_of_two_of_the_same_time_connects(void)
{
    struct host *a = open_host(100), *b = open_host(100);

    list(a, &b->self);
    list(b, &a->self);
    turn_host(a);
    turn_host(b);
    CHECK(!peer_of(a, &b->self)->connecting != !peer_of(b, &a->self)->connecting);
    CHECK(!peer_of(a, &b->self)->connecting == (strcmp(a->self.name, b->self.name) < 0));
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    CHECK(took_up(a, &b->self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
}

/* The registry may name this node itself, and for a while an earlier incarnation of it. */
static void nobody_connects_to_itself(void)
{
    struct host *host = open_host(200);
    struct node_id before = host->self;

    before.incarnation = 100;
    list(host, &host->self);
    pass(10000);
    CHECK(!peer_of(host, &host->self)->connecting && links_poll_count(host->links) == 1);
    CHECK(links_deadline(host->links) == INT64_MAX && times_logged(host, "node") == 0);
    list(host, &before); /* it answers itself, and sees that this is not whom it wants */
    pass(0);
    CHECK(!linked(host, &before) && !linked(host, &host->self) && took_nothing(host));
    CHECK(times_logged(host, "no link to a node") == 1);
    CHECK(times_logged(host, "the same one after a restart") == 1);
}

/* One that knows of nobody is found by those that know of it; it gets to know them. */
static void three_link(void)
{
    struct node_tag tag;

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
            CHECK(i == j || links_send(hosts[i].links, peer_of(&hosts[i], &hosts[j].self),
                                       str_from(textf("%zu to %zu", i, j))));
    rest();
    for (size_t i = 0; i < HOSTS; i++)
        CHECK(take_all(&hosts[i]) == 4); /* two UP, two messages */
    for (size_t i = 0; i < HOSTS; i++)
        CHECK(take_all(&hosts[i]) == 0 && links_poll_count(hosts[i].links) == 3);
    CHECK(!peer_of(&hosts[0], &hosts[1].self)->listed);
    CHECK(node_make_tag(&hosts[2].self, &tag));
    CHECK(links_find_tag(hosts[0].links, &tag) == peer_of(&hosts[0], &hosts[2].self));
    tag.incarnation++;
    CHECK(!links_find_tag(hosts[0].links, &tag));
}

/* --- messages -------------------------------------------------------------------------------- */

static void fill(struct buf *buf, size_t length, uint32_t seed)
{
    CHECK(buf_reserve(buf, length ? length : 1));
    for (size_t i = 0; i < length; i++)
        buf->at[i] = (char)('a' + (i * 7 + i / 251 + seed) % 26);
    buf->length = length;
}

static void messages_go_both_ways(void)
{
    static const size_t lengths[] = {0, 1, 125, 126, 65535, 65536, MIB, 5 * MIB + 1};
    struct host *a, *b;

    link_hosts(&a, &b);
    for (size_t i = 0; i < COUNT(lengths); i++) {
        struct buf there = {0}, back = {0};

        fill(&there, lengths[i], 0);
        fill(&back, lengths[i], 1);
        CHECK(links_send(a->links, peer_of(a, &b->self), str_of(&there)));
        CHECK(links_send(b->links, peer_of(b, &a->self), str_of(&back)));
        rest();
        CHECK(took(b, LINK_EVENT_MESSAGE, &a->self, str_of(&there)) && took_nothing(b));
        if (!CHECK(took(a, LINK_EVENT_MESSAGE, &b->self, str_of(&back)) && took_nothing(a)))
            printf("  that was with %zu bytes\n", lengths[i]);
        buf_free(&there);
        buf_free(&back);
    }
}

static void many_messages_stay_in_order(void)
{
    const int many = 3000;
    struct host *a, *b;

    link_hosts(&a, &b);
    for (int i = 0; i < many; i++) {
        CHECK(links_send(a->links, peer_of(a, &b->self), str_from(textf("%d", i))));
        CHECK(links_send(b->links, peer_of(b, &a->self), str_from(textf("%d%600d", i, 0))));
        if (i % 500 == 0)
            turn();
    }
    rest();
    for (int i = 0; i < many && test_good; i++)
        CHECK(took_message(b, &a->self, textf("%d", i)) &&
              took_message(a, &b->self, textf("%d%600d", i, 0)));
    CHECK(took_nothing(a) && took_nothing(b));
}

/* A peer that does not read gets no more; what was taken arrives. */
static void a_peer_that_does_not_read_is_sent_no_more(void)
{
    struct buf message = {0};
    struct host *a, *b;
    size_t sent = 0, got = 0;
    struct link_event *event;

    link_hosts(&a, &b);
    fill(&message, 4 * MIB, 0);
    while (sent < 40 && links_send(a->links, peer_of(a, &b->self), str_of(&message))) {
        sent++;
        turn_host(a);
    }
    CHECK(sent >= 16 && sent < 40 && linked(a, &b->self));
    for (int turns = 0; turns < TURNS_MAX && got < sent; turns++) {
        turn();
        while ((event = links_take(b->links))) {
            CHECK(event->kind == LINK_EVENT_MESSAGE &&
                  str_equal(str_of(&event->text), str_of(&message)));
            buf_free(&event->text);
            free(event);
            got++;
        }
    }
    CHECK(got == sent);
    CHECK(links_send(a->links, peer_of(a, &b->self), STR("again")));
    rest();
    CHECK(took_message(b, &a->self, "again") && took_nothing(b) && took_nothing(a));
    buf_free(&message);
}

/* What the other end would not take is not sent: it would cost the link. */
static void messages_that_are_too_long_are_not_sent(void)
{
    struct host *a, *b;
    char *bytes = malloc(LINK_MESSAGE_MAX + 1);

    if (!bytes)
        abort();
    memset(bytes, 'x', LINK_MESSAGE_MAX + 1);
    link_hosts(&a, &b);
    CHECK(!links_send(a->links, peer_of(a, &b->self), (struct str){bytes, LINK_MESSAGE_MAX + 1}));
    CHECK(links_send(a->links, peer_of(a, &b->self), (struct str){bytes, LINK_MESSAGE_MAX}));
    rest();
    CHECK(took(b, LINK_EVENT_MESSAGE, &a->self, (struct str){bytes, LINK_MESSAGE_MAX}));
    CHECK(linked(a, &b->self) && took_nothing(a) && took_nothing(b));
    free(bytes);
}

/* --- breaking and connecting again ----------------------------------------------------------- */

static void a_broken_link_is_connected_again(void)
{
    struct host *a, *b;
    struct node_id self;
    int64_t retry;

    link_hosts(&a, &b);
    self = b->self;
    links_remove(a->links, peer_of(a, &self)); /* a ends it; b did not want that */
    rest();
    CHECK(took_nothing(a) && !peer_of(a, &self));
    CHECK(took_down(b, &a->self) && took_nothing(b));
    CHECK(times_logged(b, "info a node has closed its link") == 1);
    retry = peer_of(b, &a->self)->retry_at;
    CHECK(retry >= now + 50 && retry <= now + 100 && links_deadline(b->links) == retry);
    now = retry - 1;
    rest();
    CHECK(!peer_of(b, &a->self)->connecting);
    now = retry;
    UNTIL(linked(a, &self) && linked(b, &a->self));
    CHECK(took_up(a, &self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    CHECK(links_send(b->links, peer_of(b, &a->self), STR("once more")));
    rest();
    CHECK(took_message(a, &self, "once more"));
    CHECK(peer_of(b, &a->self)->pause == 0 && times_logged(b, "no link to a node") == 0);
}

/* A node that cannot be reached is logged once; the pauses double up to 3.2 s (and differ: see
 * test_os.c). */
static void pauses_double(void)
{
    int64_t pause = 0;
    struct host *host = open_host(200);
    struct node_id nobody = node_at(closed_port(), 100);
    struct peer *peer = list(host, &nobody);

    for (int i = 0; i < 12; i++) {
        int64_t begun = now;

        rest();
        CHECK(!peer->connecting && !peer->link && took_nothing(host));
        if (!CHECK(i == 0 ? peer->pause == 100 || peer->pause == 200
                          : peer->pause == (pause < 1600 ? 2 * pause : 3200)))
            printf("  the pause after failure %d is %d\n", i + 1, (int)peer->pause);
        pause = peer->pause;
        CHECK(peer->retry_at >= now + pause / 2 && peer->retry_at <= now + pause);
        CHECK(links_deadline(host->links) == peer->retry_at);
        now = peer->retry_at - 1;
        rest();
        CHECK(!peer->connecting && peer->pause == pause);
        now = peer->retry_at;
        CHECK(now > begun);
    }
    CHECK(times_logged(host, "no link to a node") == 1 && times_logged(host, "warn") == 1);
    CHECK(times_logged(host, textf("node=\"%s\" reason=\"Connection refused\"", nobody.name)) == 1);
}

/* A node that closes its links is no accident; that it is not there afterwards is. */
static void an_end_is_told_once(void)
{
    struct host *a, *b;
    struct node_id gone;

    link_hosts(&a, &b);
    gone = a->self;
    close_host(a);
    rest();
    CHECK(took_down(b, &gone) && took_nothing(b));
    CHECK(times_logged(b, "info a node has closed its link") == 1);
    CHECK(times_logged(b, "warn") == 0);
    for (int i = 0; i < 10; i++)
        pass(3200);
    CHECK(took_nothing(b) && times_logged(b, "warn") == 1);
    CHECK(times_logged(b, "no link to a node") == 1);
}

/* --- silence --------------------------------------------------------------------------------- */

static void pings_keep_a_quiet_link_up(void)
{
    struct host *a, *b;

    link_hosts(&a, &b);
    for (int i = 0; i < 300; i++) {
        now += 200;
        rest();
        CHECK(links_reach(a->links, peer_of(a, &b->self)));
        CHECK(links_reach(b->links, peer_of(b, &a->self)));
    }
    CHECK(took_nothing(a) && took_nothing(b));
}

/* A node that stands still is suspected after 2.5 s, and its link given up after 6. */
static void silence_is_suspect_and_then_breaks_the_link(void)
{
    struct host *a, *b;
    const struct peer *peer;

    link_hosts(&a, &b);
    rest();
    peer = peer_of(a, &b->self);
    CHECK(links_deadline(a->links) == now + 1000);
    now += 2499;
    turn_host(a);
    CHECK(links_reach(a->links, peer) && links_deadline(a->links) == now + 1000);
    CHECK(links_send(a->links, peer_of(a, &b->self), STR("in time")));
    now += 1;
    turn_host(a);
    CHECK(!links_reach(a->links, peer) && peer->link);
    CHECK(!links_send(a->links, peer_of(a, &b->self), STR("too late")));
    rest(); /* b stirs: all is as before */
    CHECK(links_reach(a->links, peer) && took_message(b, &a->self, "in time") && took_nothing(b));
    CHECK(took_nothing(a));
    now += 5999;
    turn_host(a);
    CHECK(peer->link && !links_reach(a->links, peer) && took_nothing(a));
    now += 1;
    turn_host(a);
    CHECK(!peer->link && took_down(a, &b->self) && took_nothing(a));
    CHECK(times_logged(a, "reason=\"no sign of life\"") == 1);
    UNTIL(!linked(b, &a->self));
    CHECK(took_down(b, &a->self) && took_nothing(b));
    pass(100);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
}

/* A node that stood still itself finds in its kernel what the other has said meanwhile; also when
 * poll() was asked before that came. */
static void a_standstill_of_its_own_costs_no_link(void)
{
    struct host *a, *b;
    struct pollfd polls[2];

    link_hosts(&a, &b);
    rest();
    links_poll(a->links, polls);
    CHECK(links_poll_count(a->links) == 2 && poll(polls, 2, 0) == 0);
    CHECK(links_send(b->links, peer_of(b, &a->self), STR("meanwhile")));
    turn_host(b);
    now += 100000;
    links_serve(a->links, polls, now);
    links_flush(a->links);
    CHECK(linked(a, &b->self) && links_reach(a->links, peer_of(a, &b->self)));
    CHECK(took_message(a, &b->self, "meanwhile") && took_nothing(a));
    rest();
    CHECK(linked(b, &a->self) && took_nothing(a) && took_nothing(b));
}

/* --- far ends by hand ------------------------------------------------------------------------ */

/* The other end of a link: it has a key of ours and its handshake done, and says what it likes. */
struct far {
    struct conn conn;
    struct buf received; /* what came over TLS */
    struct ws_reader reader;
    bool connects; /* it has connected: its frames are masked */
    bool is_open, ended;
};

static struct conn_shared far_shared;

static void far_settle(void)
{
    while (conn_next_dirty(&far_shared))
        ;
}

/* Takes in what has come; TLS goes on with its handshake meanwhile. */
static void far_receive(struct far *far)
{
    struct conn_bytes bytes;
    enum conn_status status = CONN_READY;

    while (!far->ended && status == CONN_READY) {
        status = conn_fill(&far->conn, CONN_SCRATCH, &bytes);
        if (status == CONN_READY)
            buf_append(&far->received, (struct str){bytes.at, bytes.length});
    }
    far->ended = far->ended || status == CONN_ENDED;
}

static void far_take(struct far *far, int fd, bool connects, size_t key)
{
    int one = 1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *far = (struct far){.connects = connects,
                        .is_open = true,
                        .reader = {.limit = LINK_MESSAGE_MAX, .from_server = connects}};
    conn_open(&far->conn, fd, &far_shared);
    CHECK(connects ? (far->conn.tls = cluster_crypto_connect(tls, fd, key)) != NULL
                   : conn_secure(&far->conn, tls));
}

static int call_port(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(connect(fd, (struct sockaddr *)&to, sizeof to) == 0);
    return fd;
}

/* Connects to a host, and does the TLS handshake. */
static void call(const struct host *host, struct far *far)
{
    far_take(far, call_port(host->port), true, 0);
    for (int turns = 0; turns < TURNS_MAX && conn_is_opening(&far->conn) && !far->ended; turns++) {
        far_receive(far);
        turn();
    }
}

static void far_close(struct far *far)
{
    if (!far->is_open)
        return;
    far_settle();
    conn_close(&far->conn);
    buf_free(&far->received);
    far->is_open = false;
}

/* Sends bytes as records of this size, with turns between them; 0 is all at once. The host may have
 * closed before it has all. */
static void far_send(struct far *far, struct str bytes, size_t size)
{
    while (bytes.length) {
        size_t length = size && size < bytes.length ? size : bytes.length;
        struct rcbuf *message = rcbuf_copy((struct str){bytes.at, length});

        if (!message)
            abort();
        conn_queue(&far->conn, message, SIZE_MAX);
        rcbuf_release(message);
        conn_flush(&far->conn);
        far_settle();
        bytes.at += length;
        bytes.length -= length;
        turn();
    }
}

/* Sends the first bytes, and then the others. */
static void far_send_cut(struct far *far, struct str bytes, size_t cut)
{
    cut = cut < bytes.length ? cut : bytes.length;
    far_send(far, (struct str){bytes.at, cut}, 0);
    turn();
    far_send(far, (struct str){bytes.at + cut, bytes.length - cut}, 0);
}

static void append_frame(struct buf *out, bool masked, unsigned first, struct str payload)
{
    static const uint8_t mask[4] = {0x12, 0x34, 0x80, 0xff};
    struct rcbuf *message =
        masked ? ws_masked_frame(WS_TEXT, payload, mask) : ws_frame(WS_TEXT, payload);
    size_t at = out->length;

    if (!message)
        abort();
    buf_append(out, (struct str){message->bytes, message->length});
    out->at[at] = (char)first;
    rcbuf_release(message);
}

static void far_say(struct far *far, unsigned first, const char *text)
{
    struct buf frame = {0};

    append_frame(&frame, far->connects, first, str_from(text));
    far_send(far, str_of(&frame), 0);
    buf_free(&frame);
    rest();
}

/* Takes the next frame, which is to be this one. */
static bool got(struct far *far, enum ws_opcode opcode, const char *text)
{
    struct ws_event event = {.type = WS_EVENT_MORE};
    size_t used;
    bool good;

    far_receive(far);
    used = ws_read(&far->reader, far->received.at, far->received.length, &event);
    good = (event.type == WS_EVENT_CONTROL || (event.type == WS_EVENT_DATA && event.last)) &&
           event.opcode == opcode && str_equal(event.payload, str_from(text));
    if (!good)
        printf("  expected opcode %d %s, got event %d, opcode %d: %.*s\n", (int)opcode, text,
               (int)event.type, (int)event.opcode, (int)event.payload.length,
               event.payload.at ? event.payload.at : "");
    buf_consume(&far->received, used);
    return good;
}

static bool got_nothing(struct far *far)
{
    far_receive(far);
    if (far->received.length)
        printf("  %zu bytes have come\n", far->received.length);
    return far->received.length == 0;
}

/* True if the connection has been ended. */
static bool was_left(struct far *far)
{
    for (int i = 0; i < 300 && !far->ended; i++) {
        far_receive(far);
        if (!far->ended && !turn())
            poll(NULL, 0, 1);
    }
    return far->ended;
}

static const char *hello_of(const struct node_id *node, unsigned version, unsigned oldest)
{
    return textf("{\"node\":\"%s\",\"version\":%u,\"oldest\":%u}", node_text(node), version,
                 oldest);
}

static const char *hello(const struct node_id *node)
{
    return hello_of(node, WIRE_VERSION, WIRE_VERSION > 1 ? WIRE_VERSION - 1 : 1);
}

/* Connects to a host, and links as that node. */
static void call_as(struct host *host, struct far *far, const struct node_id *self)
{
    call(host, far);
    rest();
    CHECK(got(far, WS_TEXT, hello(&host->self)) && got_nothing(far));
    far_say(far, 0x81, hello(self));
    CHECK(got(far, WS_PING, "") && got_nothing(far) && !far->ended);
}

/* A listener by hand, that a host connects to. */
struct acceptor {
    int listener;
    uint16_t port;
    struct node_id self;
    struct far far;
    bool is_open;
};

/* The test's; test_end closes them. */
static struct acceptor acceptor;
static struct far caller, callers[2];

/* Opens one that the host's registry lists. */
static void acceptor_open(struct host *host, uint64_t incarnation)
{
    acceptor = (struct acceptor){.is_open = true};
    acceptor.listener = open_listener(&acceptor.port);
    acceptor.self = node_at(acceptor.port, incarnation);
    list(host, &acceptor.self);
}

static void acceptor_close(void)
{
    if (acceptor.is_open)
        close(acceptor.listener);
    far_close(&acceptor.far);
    acceptor.is_open = false;
}

static void close_all(void)
{
    acceptor_close();
    far_close(&caller);
    far_close(&callers[0]);
    far_close(&callers[1]);
    close_hosts();
}

static int accept_plain(void)
{
    int fd = -1;

    UNTIL((fd = accept(acceptor.listener, NULL, NULL)) >= 0);
    return fd;
}

/* Waits for the host's connection, and does the TLS handshake. */
static void await_call(void)
{
    far_close(&acceptor.far);
    far_take(&acceptor.far, accept_plain(), false, 0);
    for (int turns = 0; turns < TURNS_MAX && conn_is_opening(&acceptor.far.conn); turns++) {
        turn();
        far_receive(&acceptor.far);
    }
    CHECK(!conn_is_opening(&acceptor.far.conn) && !acceptor.far.ended);
}

/* Goes on to where only the ping is missing. */
static void await_hello(const struct host *host)
{
    await_call();
    CHECK(got_nothing(&acceptor.far));
    far_say(&acceptor.far, 0x81, hello(&acceptor.self));
    CHECK(got(&acceptor.far, WS_TEXT, hello(&host->self)) && got_nothing(&acceptor.far));
    CHECK(!linked(host, &acceptor.self));
}

static void await_link(const struct host *host)
{
    await_hello(host);
    far_say(&acceptor.far, 0x89, "");
    CHECK(got(&acceptor.far, WS_PONG, "") && linked(host, &acceptor.self));
}

/* --- the end that listens, seen by hand ------------------------------------------------------ */

/* Before it knows who it is, a node talks to nobody. */
static void a_node_that_has_not_joined_is_silent(void)
{
    struct host *a = open_host(0), *b = open_host(200);
    char byte;
    int fd;
    struct node_id self = node_at(a->port, 100);

    list(b, &self);
    pass(0);
    CHECK(!linked(b, &self) && took_nothing(b) && took_nothing(a));
    CHECK(times_logged(b, "no link to a node") == 1 && times_logged(a, "node") == 0);
    fd = call_port(a->port);
    rest();
    CHECK(recv(fd, &byte, 1, 0) == 0);
    close(fd);
    links_join(a->links, &self);
    pass(3200);
    UNTIL(linked(a, &b->self) && linked(b, &self));
    CHECK(took_up(a, &b->self) && took_up(b, &self));
}

/* The handshake frame by frame, and messages right behind it. */
static void a_caller_is_linked(void)
{
    struct node_id self = node_at(1, 300);
    struct buf bytes = {0};
    struct host *host = open_host(100);

    call(host, &caller);
    rest();
    CHECK(got(&caller, WS_TEXT, hello(&host->self)));
    CHECK(took_nothing(host) && !links_all(host->links));
    CHECK(links_deadline(host->links) == now + 2000);
    append_frame(&bytes, true, 0x81, str_from(hello(&self)));
    append_frame(&bytes, true, 0x81, STR("one"));
    append_frame(&bytes, true, 0x01, STR("t"));
    append_frame(&bytes, true, 0x89, STR("are you there"));
    append_frame(&bytes, true, 0x00, STR("w"));
    append_frame(&bytes, true, 0x80, STR("o"));
    append_frame(&bytes, true, 0x8a, STR("unasked"));
    far_send(&caller, str_of(&bytes), 0);
    rest();
    CHECK(got(&caller, WS_PING, "") && got(&caller, WS_PONG, "are you there"));
    CHECK(took_up(host, &self) && took_message(host, &self, "one"));
    CHECK(took_message(host, &self, "two") && took_nothing(host) && got_nothing(&caller));
    CHECK(links_send(host->links, peer_of(host, &self), STR("three")));
    rest();
    CHECK(got(&caller, WS_TEXT, "three") && got_nothing(&caller));
    far_say(&caller, 0x88, "\x03\xe8");
    CHECK(took_down(host, &self) && was_left(&caller) && took_nothing(host));
    far_close(&caller);
    buf_free(&bytes);
}

/* However the bytes are cut: the hello, and a message behind it. */
static void a_hello_may_be_cut_anywhere(void)
{
    struct node_id self = node_at(1, 300);
    struct buf bytes = {0};
    struct host *host = open_host(100);

    append_frame(&bytes, true, 0x81, str_from(hello(&self)));
    append_frame(&bytes, true, 0x81, STR("message"));
    for (size_t cut = 0; cut < bytes.length && test_good; cut++) {
        call(host, &caller);
        if (cut)
            far_send_cut(&caller, str_of(&bytes), cut);
        else
            far_send(&caller, str_of(&bytes), 1);
        UNTIL(linked(host, &self));
        rest();
        CHECK(took_up(host, &self) && took_message(host, &self, "message") && took_nothing(host));
        far_close(&caller);
        UNTIL(!linked(host, &self));
        if (!CHECK(took_down(host, &self)))
            printf("  that was cut at %zu\n", cut);
    }
    buf_free(&bytes);
}

#define FILLER "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" /* 64 bytes */
#define FILLER_512 FILLER FILLER FILLER FILLER FILLER FILLER FILLER FILLER
#define NOMASK "\0\0\0\0"
#define HOLDER "node=\"127.0.0.1:1\""

/* What a node with a key of ours must not say first. */
static const struct {
    const char *name;
    struct str bytes;
    const char *reason; /* part of it */
} breaches[] = {
    {"HTTP", STR_INIT("GET /peer HTTP/1.1\r\nHost: h\r\n\r\n"), "reason="},
    {"not masked", STR_INIT("\x81\x02{}"), "reason="},
    {"a reserved bit", STR_INIT("\xc1\x82" NOMASK "{}"), "reason="},
    {"an unknown opcode", STR_INIT("\x83\x82" NOMASK "{}"), "reason="},
    {"a close", STR_INIT("\x88\x80" NOMASK), "a control frame before a hello"},
    {"a ping", STR_INIT("\x89\x82" NOMASK "hi"), "a control frame before a hello"},
    {"a pong", STR_INIT("\x8a\x80" NOMASK), "a control frame before a hello"},
    {"not UTF-8", STR_INIT("\x81\x81" NOMASK "\xff"), "reason="},
    {"bytes", STR_INIT("\x82\x82" NOMASK "{}"), "no such message here"},
    {"nothing", STR_INIT("\x81\x80" NOMASK), "no hello of this protocol"},
    {"no JSON", STR_INIT("\x81\x85" NOMASK "hello"), "no hello of this protocol"},
    {"no object", STR_INIT("\x81\x82" NOMASK "[]"), "no hello of this protocol"},
    {"nothing in it", STR_INIT("\x81\x82" NOMASK "{}"), "no hello of this protocol"},
    {"2,049 bytes announced", STR_INIT("\x81\xfe\x08\x01" NOMASK), "reason="},
    {"4 GiB announced", STR_INIT("\x81\xff\0\0\0\1\0\0\0\0" NOMASK), "reason="},
    {"2,048 bytes and one more in pieces",
     STR_INIT("\x01\xfe\x08\x00" NOMASK FILLER_512 FILLER_512 FILLER_512 FILLER_512
              "\x80\x81" NOMASK "x"),
     "reason="},
};

static void check_breach(struct host *host, size_t i, size_t cut)
{
    struct far far;

    call(host, &far);
    if (cut)
        far_send_cut(&far, breaches[i].bytes, cut);
    else
        far_send(&far, breaches[i].bytes, 1);
    if (!CHECK(was_left(&far) && took_nothing(host) && !links_all(host->links)))
        printf("  that was %s, cut at %zu\n", breaches[i].name, cut);
    far_close(&far);
}

static void breaches_before_a_hello_end_it(void)
{
    for (size_t i = 0; i < COUNT(breaches) && test_good; i++) {
        size_t length = breaches[i].bytes.length;
        struct host *host = open_host(100);

        if (length < 100)
            check_breach(host, i, 0);
        for (size_t cut = 1; cut <= length && test_good; cut += 1 + length / 40)
            check_breach(host, i, cut);
        CHECK(links_poll_count(host->links) == 1);
        if (!CHECK(times_logged(host, "warn refused a link") == 1 &&
                   times_logged(host, "address=\"127.0.0.1\"") >= 1 &&
                   times_logged(host, breaches[i].reason) >= 1))
            printf("  that was %s: %s\n", breaches[i].name, log_of(host));
        close_hosts();
    }
}

/* Whatever the frames are, LINK_PREAUTH_MAX bytes without a hello are enough. */
static void only_so_much_comes_before_a_hello(void)
{
    struct buf bytes = {0};
    struct host *host = open_host(100);

    append_frame(&bytes, true, 0x01, STR(""));
    while (bytes.length <= LINK_PREAUTH_MAX)
        append_frame(&bytes, true, 0x00, STR(""));
    call(host, &caller);
    far_send(&caller, (struct str){bytes.at, LINK_PREAUTH_MAX}, 0);
    rest();
    far_receive(&caller);
    CHECK(!caller.ended);
    far_send(&caller, STR("x"), 0);
    CHECK(was_left(&caller) && times_logged(host, "too many bytes before a hello") == 1);
    far_close(&caller);
    buf_free(&bytes);
}

/* Hellos that are none, or of nodes that cannot be; a caller hears nothing more. */
static void wrong_hellos_are_refused(void)
{
    const char *texts[] = {
        "{\"node\":1,\"version\":1,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1\",\"version\":1,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/0\",\"version\":1,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:01/300\",\"version\":1,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":\"1\",\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1.5,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":0,\"oldest\":0}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1,\"oldest\":0}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1,\"oldest\":-1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1,\"oldest\":2}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1000001,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":4294967297,\"oldest\":1}",
        "{\"node\":\"127.0.0.1:1/300\",\"version\":1,\"oldest\":1",
    };

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct host *host = open_host(100);

        call(host, &caller);
        rest();
        CHECK(got(&caller, WS_TEXT, hello(&host->self)));
        far_say(&caller, 0x81, texts[i]);
        if (!CHECK(was_left(&caller) && got_nothing(&caller) && took_nothing(host)) ||
            !CHECK(!links_all(host->links)) ||
            !CHECK(times_logged(host, "it sent no hello of this protocol") == 1))
            printf("  that was %s\n", texts[i]);
        close_all();
    }
}

/* Two nodes with one name: one of them has to be another. */
static void a_node_of_this_name_is_refused(void)
{
    struct host *host = open_host(100);
    struct node_id twin = node_at(host->port, 300);

    call(host, &caller);
    far_say(&caller, 0x81, hello(&twin));
    CHECK(was_left(&caller) && took_nothing(host) && !links_all(host->links));
    CHECK(times_logged(host, "it has the name of this node") == 1);
}

/* Members that a later version may have are no matter. */
static void unknown_members_of_a_hello_are_ignored(void)
{
    struct node_id self = node_at(1, 300);
    struct host *host = open_host(100);

    call(host, &caller);
    far_say(&caller, 0x81,
            textf("{\"colour\":{\"a\":[1]},\"version\":%u,\"oldest\":1, \"node\":\"%s\"}",
                  WIRE_VERSION, node_text(&self)));
    CHECK(took_up(host, &self) && took_nothing(host));
}

/* A caller has two seconds for all of it. */
static void a_handshake_has_two_seconds(void)
{
    struct node_id self = node_at(1, 300);
    char byte;
    struct host *host = open_host(100);
    int silent = call_port(host->port);

    call(host, &callers[0]);
    call(host, &callers[1]);
    rest();
    pass(1999);
    CHECK(recv(silent, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    CHECK(links_deadline(host->links) == now + 1 && links_poll_count(host->links) == 4);
    far_say(&callers[0], 0x81, hello(&self));
    CHECK(took_up(host, &self));
    pass(1);
    CHECK(recv(silent, &byte, 1, MSG_DONTWAIT) == 0 && was_left(&callers[1]));
    far_receive(&callers[0]);
    CHECK(!callers[0].ended && linked(host, &self) && links_poll_count(host->links) == 2);
    CHECK(times_logged(host, "warn") == 0);
    close(silent);
}

/* 64 without a TLS handshake are enough: for one more the one that has been there longest has to
 * go. Those that have a key do not suffer. */
static void unauthenticated_links_are_limited(void)
{
    struct node_id first = node_at(1, 300), second = node_at(2, 300);
    int silent[66];
    char byte;
    struct host *host = open_host(100);

    call_as(host, &callers[0], &first);
    call(host, &callers[1]); /* it has not said its hello */
    for (size_t i = 0; i < 65; i++) {
        silent[i] = call_port(host->port);
        turn();
    }
    rest();
    CHECK(links_poll_count(host->links) == 1 + 2 + 64);
    CHECK(recv(silent[0], &byte, 1, MSG_DONTWAIT) == 0);
    for (size_t i = 1; i < 65; i++)
        CHECK(recv(silent[i], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    far_say(&callers[0], 0x81, "still there");
    far_say(&callers[1], 0x81, hello(&second));
    CHECK(took_up(host, &first) && took_message(host, &first, "still there"));
    CHECK(took_up(host, &second) && took_nothing(host));
    close(silent[64]); /* one that leaves makes room */
    rest();
    CHECK(links_poll_count(host->links) == 1 + 2 + 63);
    silent[64] = call_port(host->port);
    rest();
    CHECK(recv(silent[1], &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    silent[65] = call_port(host->port);
    rest();
    CHECK(recv(silent[1], &byte, 1, MSG_DONTWAIT) == 0);
    /* after two seconds all of them have to go, and the links stay */
    pass(2000);
    for (size_t i = 2; i < COUNT(silent); i++)
        CHECK(recv(silent[i], &byte, 1, MSG_DONTWAIT) == 0);
    CHECK(links_poll_count(host->links) == 1 + 2 && linked(host, &first) && linked(host, &second));
    CHECK(took_nothing(host) && times_logged(host, "warn") == 0);
    for (size_t i = 0; i < COUNT(silent); i++)
        close(silent[i]);
}

/* A handshake costs computing: of many that come at once some are served in an iteration, those
 * that came first before the others. */
static void handshakes_are_done_some_at_a_time(void)
{
    struct far fars[20];
    size_t answered = 0;
    struct host *host = open_host(100);

    for (size_t i = 0; i < COUNT(fars); i++) {
        far_take(&fars[i], call_port(host->port), true, 0);
        far_receive(&fars[i]); /* its hello has left */
    }
    turn(); /* accepts all of them */
    CHECK(links_poll_count(host->links) == 1 + COUNT(fars));
    for (size_t round = 1; round <= 3; round++) {
        turn_host(host);
        for (size_t i = answered; i < COUNT(fars); i++) {
            char byte;
            bool is_answered = recv(fars[i].conn.fd, &byte, 1, MSG_PEEK) > 0;

            CHECK(is_answered == (i < 8 * round));
        }
    }
    for (size_t i = 0; i < COUNT(fars); i++)
        far_close(&fars[i]);
}

/* --- foreign connections
 * -------------------------------------------------------------------------------- */

/* The reason that is logged, and in how many lines: a flood of connections fills no disk. */
static void foreign_bytes_are_refused_and_logged_sparsely(void)
{
    static const struct {
        struct str bytes;
        const char *reason;
    } rows[] = {
        {STR_INIT("GET /peer HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\n\r\n"),
         "a node without a protocol version (replace it)"},
        {STR_INIT("GET / HTTP/1.1\r\nHost: h\r\n\r\n"),
         "a node without a protocol version (replace it)"},
        {STR_INIT("AMQP\0\0\x09\x01"), "the TLS handshake failed"},
        {STR_INIT("\x16\x03\x01\x00\x05hello"), "the TLS handshake failed"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct host *host = open_host(100);
        char byte;

        for (int again = 0; again < 3; again++) {
            int fd = call_port(host->port);
            ssize_t result;

            turn();
            CHECK(send(fd, rows[i].bytes.at, rows[i].bytes.length, 0) > 0);
            rest();
            fcntl(fd, F_SETFL, O_NONBLOCK);
            while ((result = recv(fd, &byte, 1, 0)) > 0) /* an alert */
                ;
            CHECK((result == 0 || errno != EAGAIN) && links_poll_count(host->links) == 1);
            close(fd);
            pass(again ? 11000 : 0);
        }
        CHECK(took_nothing(host) && times_logged(host, "crypto_key") <= 3);
        if (!CHECK(times_logged(host, rows[i].reason) >= 2) ||
            !CHECK(times_logged(host, "warn") == (i < 2 ? 2 : 0)))
            printf("  that was row %zu: %s\n", i, log_of(host));
        if (i < 2)
            CHECK(times_logged(host, "(and 1 before it)") == 1);
        close_hosts();
    }
}

/* Nodes of different keys do not link: both operators are told what it is. */
static void another_crypto_key_gives_no_link(void)
{
    struct host *a = open_host(100), *b = open_keyed("0123456789abcdeF", NULL, 200);

    list(b, &a->self);
    for (int i = 0; i < 10; i++) {
        pass(3200);
        CHECK(!linked(a, &b->self) && !linked(b, &a->self));
    }
    CHECK(took_nothing(a) && took_nothing(b) && links_poll_count(a->links) == 1);
    CHECK(times_logged(b, "no link to a node") == 1 && times_logged(b, "warn") == 1);
    CHECK(times_logged(b, "it has another key: set the same [common] crypto_key") == 1);
    CHECK(times_logged(a, "it has another key: set the same [common] crypto_key") >= 1);
    CHECK(times_logged(a, "warn") < 10);
}

/* A crypto_key is changed in three steps, one node after the other. All pairs link that may meet
 * then, and those that need the second key as well. */
static void a_crypto_key_can_be_changed(void)
{
    static const char *const steps[4][2] = {
        {KEY, NULL}, {KEY, NEW_KEY}, {NEW_KEY, KEY}, {NEW_KEY, NULL}};

    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++) {
            bool links = !(i == 0 && j == 3) && !(i == 3 && j == 0);
            struct host *a = open_keyed(steps[i][0], steps[i][1], 100);
            struct host *b = open_keyed(steps[j][0], steps[j][1], 200);

            list(b, &a->self);
            rest(); /* a second key is tried at once */
            if (!CHECK(linked(a, &b->self) == links && linked(b, &a->self) == links) ||
                !CHECK(times_logged(b, "warn") == (links ? 0 : 1)))
                printf("  that was step %zu, called from step %zu\n", i, j);
            close_hosts();
        }
}

/* --- versions --------------------------------------------------------------------------------- */

static const struct {
    unsigned version, oldest;
    unsigned linked; /* with this version; 0: not */
    const char *reason;
} versions[] = {
    {WIRE_VERSION, WIRE_VERSION, WIRE_VERSION, NULL},
    {WIRE_VERSION + 1, WIRE_VERSION, WIRE_VERSION, NULL},
    {WIRE_VERSION + 9, WIRE_VERSION, WIRE_VERSION, NULL},
    {WIRE_VERSION + 2, WIRE_VERSION + 1, 0, "replace this node by one of version"},
#if WIRE_VERSION > 1
    {WIRE_VERSION - 1, WIRE_VERSION - 1, WIRE_VERSION - 1, NULL},
#endif
#if WIRE_VERSION > 2
    {WIRE_VERSION - 2, WIRE_VERSION - 2, 0, "replace it by one of version"},
#endif
};

static void versions_that_overlap_link(void)
{
    struct node_id self = node_at(1, 300);

    for (size_t i = 0; i < COUNT(versions); i++) {
        struct host *host = open_host(200);

        call(host, &caller);
        far_say(&caller, 0x81, hello_of(&self, versions[i].version, versions[i].oldest));
        CHECK(linked(host, &self) == (versions[i].linked > 0));
        if (versions[i].linked)
            CHECK(took_up(host, &self) && peer_of(host, &self)->version == versions[i].linked);
        else
            CHECK(was_left(&caller) && times_logged(host, versions[i].reason) == 1 &&
                  times_logged(host, HOLDER) == 1);
        acceptor_open(host, 100);
        await_call();
        far_say(&acceptor.far, 0x81,
                hello_of(&acceptor.self, versions[i].version, versions[i].oldest));
        CHECK(got(&acceptor.far, WS_TEXT, hello(&host->self))); /* the other is to know as well */
        far_say(&acceptor.far, 0x89, "");
        CHECK(linked(host, &acceptor.self) == (versions[i].linked > 0));
        if (versions[i].linked)
            CHECK(peer_of(host, &acceptor.self)->version == versions[i].linked);
        else if (!CHECK(was_left(&acceptor.far) && times_logged(host, versions[i].reason) == 2))
            printf("  %s\n", log_of(host));
        close_all();
    }
}

/* A node without a version takes the TLS handshake for bad HTTP, and closes. */
static void a_node_without_a_version_is_named(void)
{
    struct host *host = open_host(200);

    acceptor_open(host, 100);
    for (int i = 0; i < 3; i++) {
        int fd = accept_plain();
        char room[4096];

        rest();
        CHECK(recv(fd, room, sizeof room, 0) > 0);
        close(fd);
        rest();
        pass(3200);
    }
    CHECK(times_logged(host, "no link to a node") == 1 && times_logged(host, "warn") == 1);
    if (!CHECK(times_logged(host, "a node without a protocol version (replace it), a node of "
                                  "another crypto_key, or no node") == 1))
        printf("  %s\n", log_of(host));
}

/* --- the end that connects, seen by hand ----------------------------------------------------- */

static void a_listener_is_linked_to(void)
{
    struct buf bytes = {0};
    struct host *host = open_host(200);

    acceptor_open(host, 100);
    await_hello(host);
    append_frame(&bytes, false, 0x89, STR(""));
    append_frame(&bytes, false, 0x81, STR("one"));
    append_frame(&bytes, false, 0x01, STR("tw"));
    append_frame(&bytes, false, 0x89, STR("are you there"));
    append_frame(&bytes, false, 0x80, STR("o"));
    far_send(&acceptor.far, str_of(&bytes), 0);
    rest();
    CHECK(took_up(host, &acceptor.self) && took_message(host, &acceptor.self, "one"));
    CHECK(took_message(host, &acceptor.self, "two") && took_nothing(host));
    CHECK(got(&acceptor.far, WS_PONG, "") && got(&acceptor.far, WS_PONG, "are you there"));
    CHECK(links_send(host->links, peer_of(host, &acceptor.self), STR("three")));
    rest();
    CHECK(got(&acceptor.far, WS_TEXT, "three"));
    pass(1000);
    CHECK(got(&acceptor.far, WS_PING, "") && got_nothing(&acceptor.far));
    buf_free(&bytes);
}

/* A connection that ends without a word has broken. */
static void a_break_is_told_once(void)
{
    struct host *host = open_host(200);

    acceptor_open(host, 100);
    await_link(host);
    acceptor_close();
    rest();
    CHECK(took_up(host, &acceptor.self) && took_down(host, &acceptor.self) && took_nothing(host));
    CHECK(times_logged(host, "warn the link to a node has broken") == 1);
    for (int i = 0; i < 10; i++)
        pass(3200);
    CHECK(took_nothing(host) && times_logged(host, "warn") == 1);
}

/* The masks are drawn for each frame. */
static void masks_differ(void)
{
    char masks[8][4];
    unsigned same_masks = 0;
    struct host *host = open_host(200);

    acceptor_open(host, 100);
    await_link(host);
    for (size_t i = 0; i < COUNT(masks); i++) {
        CHECK(links_send(host->links, peer_of(host, &acceptor.self), STR("x")));
        rest();
        far_receive(&acceptor.far);
        if (CHECK(acceptor.far.received.length == 7))
            memcpy(masks[i], acceptor.far.received.at + 2, 4);
        buf_consume(&acceptor.far.received, 7);
        for (size_t j = 0; j < i; j++)
            same_masks += memcmp(masks[i], masks[j], 4) == 0;
    }
    CHECK(same_masks == 0);
}

static void a_listeners_hello_may_be_cut_anywhere(void)
{
    struct buf bytes = {0};
    size_t length = 1;

    for (size_t cut = 0; cut < length && test_good; cut++) {
        struct host *host = open_host(200);

        acceptor_open(host, 100);
        await_call();
        bytes.length = 0;
        append_frame(&bytes, false, 0x81, str_from(hello(&acceptor.self)));
        append_frame(&bytes, false, 0x89, STR(""));
        append_frame(&bytes, false, 0x81, STR("message"));
        length = bytes.length;
        if (cut)
            far_send_cut(&acceptor.far, str_of(&bytes), cut);
        else
            far_send(&acceptor.far, str_of(&bytes), 1);
        UNTIL(linked(host, &acceptor.self));
        rest();
        if (!CHECK(took_up(host, &acceptor.self) && took_message(host, &acceptor.self, "message") &&
                   took_nothing(host)))
            printf("  that was cut at %zu\n", cut);
        close_all();
    }
    buf_free(&bytes);
}

/* What it has connected to is not the node, or no node: there is no link, and that is told once. */
static void listeners_that_are_wrong_end_it(void)
{
    enum fault { SENDS, HANGS_UP, IS_SILENT, IS_ANOTHER_NODE, IS_ANOTHER_INCARNATION };
    static const struct {
        enum fault fault;
        bool later; /* than this node's hello */
        struct str bytes;
    } rows[] = {
        {HANGS_UP, false, {0}},
        {HANGS_UP, true, {0}},
        {IS_SILENT, false, {0}},
        {IS_SILENT, true, {0}},
        {IS_ANOTHER_NODE, false, {0}},
        {IS_ANOTHER_INCARNATION, false, {0}},
        {SENDS, false, STR_INIT("\x81\x02{}")},           /* no hello */
        {SENDS, false, STR_INIT("\x81\x82" NOMASK "{}")}, /* masked */
        {SENDS, false, STR_INIT("\x89\0")},               /* a ping first */
        {SENDS, false, STR_INIT("\x88\0")},               /* a close */
        {SENDS, false, STR_INIT("\x81\x7e\x08\x01")},     /* too long */
        {SENDS, true, STR_INIT("\x81\x02{}")},            /* a message for the ping */
        {SENDS, true, STR_INIT("\x8a\0")},                /* a pong for the ping */
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct host *host = open_host(200);
        enum fault fault = rows[i].fault;
        struct node_id other;

        acceptor_open(host, 100);
        other = fault == IS_ANOTHER_NODE ? node_at(1, 100) : node_at(acceptor.port, 101);
        if (rows[i].later)
            await_hello(host);
        else
            await_call();
        if (fault == SENDS)
            far_send(&acceptor.far, rows[i].bytes, 0);
        else if (fault == HANGS_UP)
            shutdown(acceptor.far.conn.fd, SHUT_WR);
        else if (fault != IS_SILENT)
            far_say(&acceptor.far, 0x81, hello(&other));
        if (fault == IS_SILENT) {
            pass(1999);
            far_receive(&acceptor.far);
            CHECK(!acceptor.far.ended && got_nothing(&acceptor.far));
            pass(1);
        }
        if (!CHECK(was_left(&acceptor.far) && took_nothing(host) &&
                   !linked(host, &acceptor.self)) ||
            !CHECK(times_logged(host, "no link to a node") == 1) ||
            !CHECK(peer_of(host, &acceptor.self)->listed && times_logged(host, "reason=") == 1))
            printf("  that was row %zu: %s\n", i, log_of(host));
        /* it is connected to again, and the truth is believed then */
        pass(3200);
        await_link(host);
        CHECK(took_up(host, &acceptor.self) && took_nothing(host));
        close_all();
    }
}

/* A node that answers at the address of another, or is another incarnation of it, is not linked to.
 */
static void another_node_at_the_address_gives_no_link(void)
{
    struct host *a = open_host(100), *b = open_host(200);
    struct node_id before = a->self;

    before.incarnation = 99;
    list(b, &before);
    for (int i = 0; i < 3; i++)
        pass(3200);
    CHECK(!linked(b, &before) && took_nothing(a) && took_nothing(b) && !links_all(a->links));
    CHECK(times_logged(b, "no link to a node") == 1);
    list(b, &a->self); /* both are known for a while; they are not mixed up */
    UNTIL(linked(b, &a->self) && linked(a, &b->self));
    CHECK(took_up(b, &a->self) && took_nothing(b) && !linked(b, &before));
    CHECK(peer_of(b, &before) != peer_of(b, &a->self));
}

/* --- two links of one pair -------------------------------------------------------------------- */

/* The later one does not know the earlier one yet, or cannot reach it: the earlier one comes. */
static void the_earlier_one_connects_if_the_later_does_not(void)
{
    struct host *a = open_host(100), *b = open_host(200);

    list(a, &b->self);
    pass(0);
    CHECK(!peer_of(a, &b->self)->connecting && links_deadline(a->links) == now + 250);
    pass(249);
    CHECK(!peer_of(a, &b->self)->connecting && links_poll_count(a->links) == 1);
    pass(1);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    CHECK(took_up(a, &b->self) && took_nothing(a) && took_up(b, &a->self) && took_nothing(b));
    list(b, &a->self); /* now it does: the link stays */
    for (int i = 0; i < 20; i++)
        pass(500);
    CHECK(took_nothing(a) && took_nothing(b));
    CHECK(links_poll_count(a->links) == 2 && links_poll_count(b->links) == 2);
    CHECK(times_logged(a, "warn") == 0 && times_logged(b, "warn") == 0);
}

/* Both connect at once, and their bytes come in every order: one link is left, the same at both
 * ends; each of them sees it come up once, and nothing breaks. */
static void of_two_links_both_ends_keep_the_same(void)
{
    unsigned by_earlier = 0, rounds = 100;

    for (uint32_t seed = 1; seed <= rounds && test_good; seed++) {
        struct host *a = open_host(100), *b = open_host(200);
        uint32_t state = seed * 2654435761u | 1;
        struct peer *at_a, *at_b;

        at_a = list(a, &b->self);
        at_b = list(b, &a->self);
        at_a->missing_since = now - 250; /* the later one is late */
        for (int i = 0; i < 60; i++) {
            uint32_t draw = next_random(&state);

            turn_host(draw % 8 < seed % 9 ? a : b);
            if (draw % 64 == 63)
                poll(NULL, 0, 1);
        }
        rest();
        UNTIL(at_a->link && at_b->link);
        CHECK(links_send(a->links, at_a, STR("to b")) && links_send(b->links, at_b, STR("to a")));
        for (int i = 0; i < 3; i++)
            pass(900);
        CHECK(took_up(a, &b->self) && took_message(a, &b->self, "to a") && took_nothing(a));
        CHECK(took_up(b, &a->self) && took_message(b, &a->self, "to b") && took_nothing(b));
        if (!CHECK(links_poll_count(a->links) == 2 && links_poll_count(b->links) == 2) ||
            !CHECK(times_logged(a, "warn") == 0 && times_logged(b, "warn") == 0))
            printf("  that was seed %u:\n%s", seed, log_of(a));
        by_earlier += times_logged(b, "refused a link") == 0;
        close_hosts();
    }
    CHECK(by_earlier > 0 && by_earlier < rounds); /* both kinds have been seen */
}

/* A node that connects again has given up its link before: the new one takes its place. */
static void a_new_link_takes_the_place_of_the_old(void)
{
    struct node_id self = node_at(1, 300);
    struct host *host = open_host(100);

    call_as(host, &callers[0], &self);
    CHECK(took_up(host, &self));
    call_as(host, &callers[1], &self);
    CHECK(took_down(host, &self) && took_up(host, &self) && took_nothing(host));
    CHECK(was_left(&callers[0]) && links_poll_count(host->links) == 2);
    CHECK(links_send(host->links, peer_of(host, &self), STR("to the new one")));
    far_say(&callers[1], 0x81, "from the new one");
    CHECK(got(&callers[1], WS_TEXT, "to the new one") &&
          took_message(host, &self, "from the new one"));
    CHECK(!links_all(host->links)->next);
    far_close(&callers[0]);
    rest(); /* the end of the old one is nothing to the new */
    CHECK(linked(host, &self) && took_nothing(host));
    far_close(&callers[1]);
    rest();
    CHECK(took_down(host, &self) && took_nothing(host));
}

/* The same by hand. At the later node its own link goes first while the ping alone is missing, and
 * gives way before that; at the earlier one the later one's link goes first in any case. */
static void the_later_node_decides(void)
{
    for (int i = 0; i < 4; i++) {
        bool later = i & 1, confirming = i & 2, own = later && confirming;
        struct host *host = open_host(later ? 200 : 100);

        acceptor_open(host, later ? 100 : 200);
        pass(0);
        pass(later ? 0 : 250);
        if (confirming)
            await_hello(host);
        else
            await_call();
        call(host, &caller);
        far_say(&caller, 0x81, hello(&acceptor.self));
        CHECK(linked(host, &acceptor.self) == !own);
        CHECK(was_left(own ? &caller : &acceptor.far));
        if (own)
            far_say(&acceptor.far, 0x89, "");
        CHECK(took_up(host, &acceptor.self) && took_nothing(host) && linked(host, &acceptor.self));
        CHECK(!peer_of(host, &acceptor.self)->connecting && times_logged(host, "warn") == 0);
        close_all();
    }
}

/* The later node's own link goes before one of the earlier node, unless that link is silent: then
 * the earlier node has lost it. */
static void a_silent_link_gives_way(void)
{
    struct host *host = open_host(200);

    acceptor_open(host, 100);
    await_link(host);
    CHECK(took_up(host, &acceptor.self));
    call(host, &caller);
    far_say(&caller, 0x81, hello(&acceptor.self));
    CHECK(was_left(&caller) && took_nothing(host) && linked(host, &acceptor.self));
    far_close(&caller);
    pass(2500);
    call_as(host, &caller, &acceptor.self);
    CHECK(took_down(host, &acceptor.self) && took_up(host, &acceptor.self) && took_nothing(host));
    CHECK(was_left(&acceptor.far));
}

/* Another incarnation of a node is another node. */
static void incarnations_of_a_node_are_told_apart(void)
{
    struct node_id first = node_at(1, 300), second = node_at(1, 301);
    struct host *host = open_host(100);

    call_as(host, &callers[0], &first);
    call_as(host, &callers[1], &second);
    CHECK(took_up(host, &first) && took_up(host, &second) && took_nothing(host));
    CHECK(links_send(host->links, peer_of(host, &second), STR("x")));
    rest();
    CHECK(got_nothing(&callers[0]) && got(&callers[1], WS_TEXT, "x"));
    far_close(&callers[0]);
    rest();
    CHECK(took_down(host, &first) && took_nothing(host) && linked(host, &second));
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
        {STR_INIT("\x82\x81" NOMASK "x"), true},    /* bytes */
        {STR_INIT("\x88\x80" NOMASK), true},
        {STR_INIT("\x81\xff\0\0\0\0\x04\0\0\1" NOMASK), true}, /* 64 MiB and one byte */
        {STR_INIT("\x81\xff\0\0\0\0\x04\0\0\0" NOMASK), false},
        {STR_INIT("\x01\x81" NOMASK "x"), false},
        {STR_INIT("\x89\x80" NOMASK), false},
    };
    struct node_id self = node_at(1, 300);
    struct host *host = open_host(100);

    for (size_t i = 0; i < COUNT(rows); i++) {
        call_as(host, &caller, &self);
        CHECK(took_up(host, &self));
        far_send(&caller, rows[i].bytes, 1);
        rest();
        if (rows[i].ends)
            CHECK(took_down(host, &self) && was_left(&caller));
        else
            CHECK(linked(host, &self) && !caller.ended);
        if (!CHECK(took_nothing(host)))
            printf("  that was row %zu\n", i);
        far_close(&caller);
        rest();
        take_all(host);
        CHECK(!linked(host, &self));
    }
}

/* The end that connected reads the frames of a server: masked ones are a breach. */
static void a_masked_message_ends_a_connecting_link(void)
{
    struct host *host = open_host(200);

    acceptor_open(host, 100);
    await_link(host);
    far_send(&acceptor.far, STR("\x81\x81" NOMASK "x"), 0);
    rest();
    CHECK(took_up(host, &acceptor.self) && took_down(host, &acceptor.self) && took_nothing(host));
    CHECK(was_left(&acceptor.far));
}

/* --- names and IPv6 --------------------------------------------------------------------------- */

static bool was_woken(void)
{
    char byte;

    return read(wake[0], &byte, 1) == 1;
}

/* A name is looked up for each attempt: the node may have moved. */
static void a_name_is_looked_up_for_each_attempt(void)
{
    struct host *a = open_host(100), *b = open_host(200);
    unsigned before = asked();
    struct pollfd pipe_poll = {.fd = wake[0], .events = POLLIN};
    struct node_id named = node_named("node.example", a->port, 100);

    links_join(a->links, &named);
    names_address = "127.0.0.9"; /* nobody is there */
    list(b, &named);
    turn_host(b);
    CHECK(peer_of(b, &named)->looking_up && poll(&pipe_poll, 1, 10000) == 1);
    CHECK(was_woken());
    rest();
    CHECK(asked() == before + 1 && !linked(b, &named) && !peer_of(b, &named)->looking_up);
    if (!CHECK(times_logged(b, "no link to a node") == 1 &&
               times_logged(b, "address=\"127.0.0.9\"") == 1))
        printf("  %s\n", log_of(b));
    names_address = "127.0.0.1";
    pass(3200);
    UNTIL(linked(b, &named) && linked(a, &b->self));
    CHECK(asked() == before + 2 && took_up(b, &named) && took_nothing(b));
    CHECK(was_woken());
}

/* The addresses of a name are tried in turn, without a pause. */
static void all_addresses_of_a_name_are_tried(void)
{
    struct host *a = open_host(100), *b = open_host(200); /* at 127.0.0.1, not at ::1 */
    struct node_id named = node_named("node.example", a->port, 100);

    links_join(a->links, &named);
    names_address = "both";
    list(b, &named);
    UNTIL(linked(b, &named) && linked(a, &b->self));
    CHECK(now == START && times_logged(b, "address=\"::1\"") == 1);
    CHECK(took_up(b, &named) && took_nothing(b) && !peer_of(b, &named)->resolved);
    CHECK(was_woken());
}

static void a_name_that_is_unknown_is_told(void)
{
    struct node_id nowhere = node_named("nowhere.example", 1, 100);
    struct host *host = open_host(200);

    list(host, &nowhere);
    UNTIL(peer_of(host, &nowhere)->failure_logged);
    CHECK(times_logged(host, gai_strerror(EAI_NONAME)) == 1 && took_nothing(host));
    CHECK(peer_of(host, &nowhere)->pause > 0 && was_woken());
}

/* A look-up that hangs holds up neither the other links nor the end. */
static void a_look_up_that_hangs_holds_up_nothing(void)
{
    struct host *a = open_host(100), *b = open_host(200);
    unsigned done;
    struct node_id named = node_named("node.example", 1, 100);

    names_address = "127.0.0.1";
    set_hanging(true);
    done = names_done;
    list(b, &named);
    turn_host(b);
    list(b, &a->self);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    for (int i = 0; i < 10; i++)
        pass(500);
    CHECK(linked(b, &a->self) && peer_of(b, &named)->looking_up);
    CHECK(times_logged(b, "its name is still being looked up") == 1);
    close_host(b);
    set_hanging(false); /* the thread ends by itself, and tells nobody */
    pthread_mutex_lock(&names_lock);
    while (names_done == done)
        pthread_cond_wait(&names_changed, &names_lock);
    pthread_mutex_unlock(&names_lock);
    poll(NULL, 0, 20);
    CHECK(poll(&(struct pollfd){.fd = wake[0], .events = POLLIN}, 1, 0) == 0);
}

/* A node that has been forgotten while its name was looked up is nobody's. */
static void a_node_is_removed_while_its_name_is_looked_up(void)
{
    struct node_id named = node_named("node.example", 1, 100);
    struct host *host = open_host(200);

    set_hanging(true);
    list(host, &named);
    turn_host(host);
    links_remove(host->links, peer_of(host, &named));
    set_hanging(false);
    CHECK(poll(&(struct pollfd){.fd = wake[0], .events = POLLIN}, 1, 10000) == 1);
    rest();
    CHECK(took_nothing(host) && links_poll_count(host->links) == 1 && was_woken());
}

static void nodes_link_over_ipv6(void)
{
    uint16_t port = 0;
    int listener = listen_at("::1", &port);
    struct host *a, *b;

    if (listener < 0) {
        printf("     this machine has no ::1\n");
        return;
    }
    a = open_host_with(KEY, NULL, 100, listener, port);
    a->self = node_named("::1", port, 100);
    links_join(a->links, &a->self);
    b = open_host(200);
    list(b, &a->self);
    UNTIL(linked(a, &b->self) && linked(b, &a->self));
    CHECK(took_up(b, &a->self) && took_nothing(b));
    CHECK(times_logged(b, textf("node=\"[::1]:%u\"", port)) == 1 && times_logged(b, "warn") == 0);
}

/* --- nodes that leave ------------------------------------------------------------------------ */

/* A node is removed in each state of connecting to it; nothing is said about it. */
static void a_node_is_removed_while_it_is_connected(void)
{
    for (int stage = 0; stage < 4; stage++) {
        struct host *host = open_host(200);

        acceptor_open(host, 100);
        turn_host(host);
        CHECK(peer_of(host, &acceptor.self)->connecting);
        if (stage == 1)
            await_call();
        if (stage == 2)
            await_hello(host);
        if (stage == 3) {
            await_link(host);
            CHECK(took_up(host, &acceptor.self));
        }
        links_remove(host->links, peer_of(host, &acceptor.self));
        CHECK(!links_all(host->links) && !links_find(host->links, &acceptor.self));
        rest();
        CHECK(links_poll_count(host->links) == 1 && links_deadline(host->links) == INT64_MAX);
        pass(10000);
        CHECK(took_nothing(host) && links_poll_count(host->links) == 1);
        CHECK(links_deadline(host->links) == INT64_MAX && times_logged(host, "warn") == 0);
        if (stage >= 1)
            CHECK(was_left(&acceptor.far));
        close_all();
    }
}

/* Of many nodes one is removed, wherever it stands in the list. */
static void removing_one_leaves_the_others(void)
{
    struct node_id nodes[5];
    struct host *host = open_host(1);

    for (size_t gone = 0; gone < COUNT(nodes); gone++) {
        for (size_t i = 0; i < COUNT(nodes); i++) {
            nodes[i] = node_at((uint16_t)(i + 1), 300);
            list(host, &nodes[i]);
        }
        links_remove(host->links, peer_of(host, &nodes[gone]));
        for (size_t i = 0; i < COUNT(nodes); i++)
            CHECK(!peer_of(host, &nodes[i]) == (i == gone));
    }
}

static void messages_outlive_their_node(void)
{
    struct node_id self = node_at(1, 300);
    struct host *host = open_host(100);

    call_as(host, &caller, &self);
    far_say(&caller, 0x81, "last words");
    links_remove(host->links, peer_of(host, &self));
    rest();
    CHECK(took_up(host, &self) && took_message(host, &self, "last words") && took_nothing(host));
    CHECK(was_left(&caller));
}

/* Closing with everything under way frees everything, and NULL is allowed. */
static void closing_frees_everything(void)
{
    struct node_id self = node_at(1, 300);
    struct host *host;
    int silent;

    links_close(NULL);
    host = open_host(200);
    acceptor_open(host, 100);
    await_call();
    call_as(host, &callers[0], &self);
    call(host, &callers[1]);
    silent = call_port(host->port);
    far_say(&callers[1], 0x01, "{}");
    far_say(&callers[0], 0x81, "not taken");
    far_say(&callers[0], 0x01, "not whole");
    CHECK(links_send(host->links, peer_of(host, &self), STR("not sent")));
    close_host(host);
    CHECK(was_left(&callers[0]) && got_nothing(&callers[0]) && was_left(&callers[1]));
    close(silent);
}

/* --- hellos, as bytes ------------------------------------------------------------------------- */

static void hellos_are_read_as_written(void)
{
    struct node_id nodes[] = {node_at(1, 1), node_named("::1", 65535, UINT64_MAX),
                              node_named("push-1.example", 80, 1700000000000)};
    char text[HELLO_MAX];
    struct hello read;

    for (size_t i = 0; i < COUNT(nodes); i++) {
        size_t length = hello_write(&nodes[i], text);

        CHECK(length == strlen(text) && strcmp(text, hello(&nodes[i])) == 0);
        for (size_t cut = 0; cut <= length; cut++) {
            struct str part = exact_copy((struct str){text, cut});

            CHECK(hello_read(part, &read) == (cut == length));
            free_copy(part);
        }
        CHECK(node_equal(&read.node, &nodes[i]) && read.version == WIRE_VERSION);
    }
}

/* No descriptor is left behind a test. */
static void finish(int unused)
{
    (void)unused;
    close_all();
    CHECK(count_fds() == fds_before);
}

static const struct test tests[] = {
    TEST(the_later_one_connects, 0),
    TEST(one_of_two_of_the_same_time_connects, 0),
    TEST(nobody_connects_to_itself, 0),
    TEST(three_link, 0),
    TEST(messages_go_both_ways, 0),
    TEST(many_messages_stay_in_order, 0),
    TEST(a_peer_that_does_not_read_is_sent_no_more, 0),
    TEST(messages_that_are_too_long_are_not_sent, 0),
    TEST(a_broken_link_is_connected_again, 0),
    TEST(pauses_double, 0),
    TEST(an_end_is_told_once, 0),
    TEST(a_break_is_told_once, 0),
    TEST(pings_keep_a_quiet_link_up, 0),
    TEST(silence_is_suspect_and_then_breaks_the_link, 0),
    TEST(a_standstill_of_its_own_costs_no_link, 0),
    TEST(a_node_that_has_not_joined_is_silent, 0),
    TEST(a_caller_is_linked, 0),
    TEST(a_hello_may_be_cut_anywhere, 0),
    TEST(breaches_before_a_hello_end_it, 0),
    TEST(only_so_much_comes_before_a_hello, 0),
    TEST(wrong_hellos_are_refused, 0),
    TEST(a_node_of_this_name_is_refused, 0),
    TEST(unknown_members_of_a_hello_are_ignored, 0),
    TEST(a_handshake_has_two_seconds, 0),
    TEST(unauthenticated_links_are_limited, 0),
    TEST(handshakes_are_done_some_at_a_time, 0),
    TEST(foreign_bytes_are_refused_and_logged_sparsely, 0),
    TEST(another_crypto_key_gives_no_link, 0),
    TEST(a_crypto_key_can_be_changed, 0),
    TEST(versions_that_overlap_link, 0),
    TEST(a_node_without_a_version_is_named, 0),
    TEST(a_listener_is_linked_to, 0),
    TEST(masks_differ, 0),
    TEST(a_listeners_hello_may_be_cut_anywhere, 0),
    TEST(listeners_that_are_wrong_end_it, 0),
    TEST(another_node_at_the_address_gives_no_link, 0),
    TEST(the_earlier_one_connects_if_the_later_does_not, 0),
    TEST(of_two_links_both_ends_keep_the_same, 0),
    TEST(a_new_link_takes_the_place_of_the_old, 0),
    TEST(the_later_node_decides, 0),
    TEST(a_silent_link_gives_way, 0),
    TEST(incarnations_of_a_node_are_told_apart, 0),
    TEST(breaches_end_a_link, 0),
    TEST(a_masked_message_ends_a_connecting_link, 0),
    TEST(a_name_is_looked_up_for_each_attempt, 0),
    TEST(all_addresses_of_a_name_are_tried, 0),
    TEST(a_name_that_is_unknown_is_told, 0),
    TEST(a_look_up_that_hangs_holds_up_nothing, 0),
    TEST(a_node_is_removed_while_its_name_is_looked_up, 0),
    TEST(nodes_link_over_ipv6, 0),
    TEST(a_node_is_removed_while_it_is_connected, 0),
    TEST(removing_one_leaves_the_others, 0),
    TEST(messages_outlive_their_node, 0),
    TEST(closing_frees_everything, 0),
    TEST(hellos_are_read_as_written, 0),
};

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (pipe(wake) != 0 || !crypto_add_key(&keys, STR(KEY), false) || !cluster_crypto_derive(&keys))
        return 1;
    fcntl(wake[0], F_SETFL, O_NONBLOCK);
    fcntl(wake[1], F_SETFL, O_NONBLOCK);
    tls = cluster_crypto_new_context(&keys);
    test_run_all(tests, COUNT(tests), begin, finish);
    tls_context_free(tls);
    close(wake[0]);
    close(wake[1]);
    return test_finish();
}
