/* test_webhook.c - events reach a receiver that fails in every way: no hole, no other order, and
 * what is repeated is the same; what is lost is told. The receiver runs in threads of this program;
 * it does with each request what the next letter of its script says. */
#include "webhook.h"

#include "os.h"
#include "webhook_client.h"

#include "certificate.h"
#include "test.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE 30000 /* milliseconds after which a test gives up */
#define RECORDS_MAX 20000

/* --- the receiver ---------------------------------------------------------------------------- */

struct record {
    char *head, *body;
};

static struct {
    int listener;
    unsigned port;
    SSL_CTX *settings; /* guarded by `lock` */
    bool secure;       /* speaks TLS, and listens on ::1 if there is one: */
    bool ipv6;
    char host[16]; /* as in a URL */
    pthread_t thread;
    pthread_mutex_t lock; /* guards what follows */
    const char *script;   /* what to do with the next requests; then as if it were 'o' */
    size_t cut; /* 'K' ends the connection at this byte of the request, and counts it up */
    size_t requests, connections, open;
    size_t count;
    struct record records[RECORDS_MAX]; /* of requests that came whole */
    bool stop, held;
} server;

static char next_action(void)
{
    char action;

    pthread_mutex_lock(&server.lock);
    server.requests++;
    action = *server.script ? *server.script++ : 'o';
    pthread_mutex_unlock(&server.lock);
    return action;
}

static void record(const struct buf *request, size_t head)
{
    struct record *to;

    pthread_mutex_lock(&server.lock);
    if (server.count < RECORDS_MAX) {
        to = &server.records[server.count++];
        to->head = exact_bytes((struct str){request->at, head + 1});
        to->head[head] = '\0';
        to->body = exact_bytes((struct str){request->at + head, request->length - head + 1});
        to->body[request->length - head] = '\0';
    }
    pthread_mutex_unlock(&server.lock);
}

static void rest(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static bool is_held(void)
{
    bool held;

    pthread_mutex_lock(&server.lock);
    held = server.held;
    pthread_mutex_unlock(&server.lock);
    return held;
}

/* A connection of the receiver; `ssl` is NULL without TLS. */
struct peer {
    int fd;
    SSL *ssl;
};

static ssize_t hear(const struct peer *peer, void *at, size_t size)
{
    return peer->ssl ? SSL_read(peer->ssl, at, (int)size) : recv(peer->fd, at, size, 0);
}

/* The webhook may have gone meanwhile. */
static void say_bytes(const struct peer *peer, const char *at, size_t length)
{
    if (peer->ssl)
        SSL_write(peer->ssl, at, (int)length);
    else if (send(peer->fd, at, length, 0) < 0)
        return;
}

static void say(const struct peer *peer, const char *text)
{
    say_bytes(peer, text, strlen(text));
}

/* Reads a request, at most `limit` bytes of it. Returns the length of its head; 0: it was cut. */
static size_t read_request(const struct peer *peer, struct buf *request, size_t limit)
{
    size_t head = 0, length = SIZE_MAX;

    while (request->length < length && request->length < limit) {
        const char *end;
        ssize_t n;

        buf_reserve(request, 65536);
        n = hear(peer, request->at + request->length,
                 limit - request->length < 65535 ? limit - request->length : 65535);
        if (n <= 0)
            return 0;
        request->length += (size_t)n;
        request->at[request->length] = '\0';
        if (!head && (end = strstr(request->at, "\r\n\r\n"))) {
            head = (size_t)(end - request->at) + 4;
            length = head + strtoul(strstr(request->at, "Content-Length: ") + 16, NULL, 10);
        }
    }
    return request->length == length ? head : 0;
}

#define OK "HTTP/1.1 200 OK\r\n"

/* Answers as `action` says. False: the connection ends. */
static bool act(const struct peer *peer, char action)
{
    static char large[65537];
    char byte, where[200];
    const char *text = OK "Content-Length: 2\r\n\r\nok";

    switch (action) {
    case '5':
        say(peer, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        return true;
    case '3':
        snprintf(where, sizeof where,
                 "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%u/elsewhere\r\n"
                 "Content-Length: 0\r\n\r\n",
                 server.port);
        say(peer, where);
        return true;
    case '4':
        say(peer, "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n");
        return true;
    case 'c':
        say(peer, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        return true;
    case 'b': /* byte by byte */
        for (; *text; text++)
            say_bytes(peer, text, 1);
        return true;
    case 'h': /* half */
        say(peer, OK "Content-Le");
        return false;
    case 'n': /* nothing */
        return false;
    case 'x':
        say(peer, "SSH-2.0-nonsense\r\n");
        return false;
    case 'l': /* late */
        while (hear(peer, &byte, 1) > 0)
            ;
        return false;
    case 'w': /* waits until it is let go on */
        while (is_held())
            rest();
        say(peer, text);
        return true;
    case 'B': /* 64 KiB + 1 */
        say(peer, OK "Content-Length: 65537\r\n\r\n");
        say_bytes(peer, large, sizeof large);
        return true;
    case 'e':
        say(peer, OK "\r\nok");
        return false;
    case 'k': /* says that it keeps the connection, and does not */
        say(peer, text);
        return false;
    default:
        say(peer, text);
        return true;
    }
}

static void *serve_connection(void *argument)
{
    struct peer peer = {.fd = *(int *)argument};
    struct linger reset = {1, 0};
    struct pollfd polled = {.fd = peer.fd, .events = POLLIN};
    bool goes_on = true;

    free(argument);
    if (server.secure) {
        pthread_mutex_lock(&server.lock);
        peer.ssl = SSL_new(server.settings);
        pthread_mutex_unlock(&server.lock);
        SSL_set_fd(peer.ssl, peer.fd);
        goes_on = SSL_accept(peer.ssl) == 1;
    }
    while (goes_on && poll(&polled, 1, -1) == 1) {
        struct buf request = {0};
        char first, action;
        size_t head, limit = SIZE_MAX;

        if (recv(peer.fd, &first, 1, MSG_PEEK) <= 0)
            break;
        action = next_action();
        pthread_mutex_lock(&server.lock);
        if (action == 'K')
            limit = server.cut++;
        pthread_mutex_unlock(&server.lock);
        head = read_request(&peer, &request, limit);
        if (head)
            record(&request, head);
        if (!head && limit % 2)
            setsockopt(peer.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        goes_on = head && act(&peer, action);
        buf_free(&request);
    }
    SSL_free(peer.ssl);
    close(peer.fd);
    pthread_mutex_lock(&server.lock);
    server.open--;
    pthread_mutex_unlock(&server.lock);
    return NULL;
}

static void *serve(void *argument)
{
    int *fd;
    pthread_t thread;

    (void)argument;
    for (;;) {
        fd = malloc(sizeof *fd);
        *fd = accept(server.listener, NULL, NULL);
        pthread_mutex_lock(&server.lock);
        if (server.stop || *fd < 0)
            break;
        server.connections++;
        server.open++;
        pthread_mutex_unlock(&server.lock);
        if (os_thread_start(&thread, serve_connection, fd))
            pthread_detach(thread);
    }
    pthread_mutex_unlock(&server.lock);
    if (*fd >= 0)
        close(*fd);
    free(fd);
    return NULL;
}

/* Listens on a port of its own. False: there is no such address here. */
static bool listen_on(struct sockaddr *address, socklen_t size, const char *host)
{
    server.listener = socket(address->sa_family, SOCK_STREAM, 0);
    if (bind(server.listener, address, size) != 0) {
        close(server.listener);
        return false;
    }
    CHECK(listen(server.listener, 128) == 0 && getsockname(server.listener, address, &size) == 0);
    snprintf(server.host, sizeof server.host, "%s", host);
    return true;
}

int __real_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **list);
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **list);

/* The receiver is good.example as well. */
int __wrap_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
                       struct addrinfo **list)
{
    if (strcmp(host, "good.example") == 0)
        host = server.ipv6 ? "::1" : "127.0.0.1";
    return __real_getaddrinfo(host, port, hints, list);
}

static void open_server(const char *script)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};

    server.script = script;
    server.cut = server.requests = server.connections = server.open = server.count = 0;
    server.stop = false;
    server.held = true;
    pthread_mutex_init(&server.lock, NULL);
    ipv4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.ipv6 = server.secure && listen_on((struct sockaddr *)&ipv6, sizeof ipv6, "[::1]");
    if (server.ipv6) {
        server.port = ntohs(ipv6.sin6_port);
    } else {
        CHECK(listen_on((struct sockaddr *)&ipv4, sizeof ipv4, "127.0.0.1"));
        server.port = ntohs(ipv4.sin_port);
    }
    CHECK(os_thread_start(&server.thread, serve, NULL));
}

/* Call when the webhooks are closed: then all connections end. */
static void close_server(void)
{
    size_t left = 1;

    pthread_mutex_lock(&server.lock);
    server.stop = true;
    pthread_mutex_unlock(&server.lock);
    shutdown(server.listener, SHUT_RDWR); /* accept() returns */
    pthread_join(server.thread, NULL);
    for (int i = 0; i < PATIENCE && left; i++, rest()) {
        pthread_mutex_lock(&server.lock);
        left = server.open;
        pthread_mutex_unlock(&server.lock);
    }
    CHECK(left == 0);
    close(server.listener);
    for (size_t i = 0; i < server.count; i++) {
        free(server.records[i].head);
        free(server.records[i].body);
    }
    pthread_mutex_destroy(&server.lock);
}

/* --- the webhooks ---------------------------------------------------------------------------- */

static struct crypto_keyring keys;
static struct webhooks *hooks;
static struct webhook_options options;
static uint64_t pushed; /* messages */

#define ALL 0x1fu

static void open_hooks(const char *script)
{
    open_server(script);
    options = (struct webhook_options){.keys = &keys,
                                       .node = "10.0.0.5:8801",
                                       .version = "9.9",
                                       .ca = "",
                                       .timeout = PATIENCE,
                                       .pause = 2,
                                       .retry = PATIENCE,
                                       .queue = 1 << 20};
    hooks = webhook_open(&options);
    pushed = 0;
    CHECK(hooks);
}

static void reopen_hooks(void)
{
    webhook_close(hooks);
    hooks = webhook_open(&options);
    CHECK(hooks);
}

static void close_hooks(void)
{
    webhook_close(hooks);
    close_server();
}

static struct str hook_url(void)
{
    return str_from(
        textf("%s://%s:%u/hook?a=b", server.secure ? "https" : "http", server.host, server.port));
}

static struct webhook *set(const char *system, uint64_t lost)
{
    struct webhook_settings settings = {exact_copy(hook_url()), ALL, 7, 0};

    CHECK(webhook_set(hooks, str_from(system), &settings, lost));
    free_copy(settings.url);
    return webhook_find(hooks, str_from(system));
}

/* Pushes a message whose text is a number, and `padding` letters. */
static bool push(struct webhook *hook, size_t padding)
{
    static char letters[100000];
    struct buf text = {0};
    bool taken;

    memset(letters, 'x', sizeof letters);
    buf_print(&text, "%llu ", (unsigned long long)pushed);
    buf_append(&text, (struct str){letters, padding});
    taken = webhook_push(hooks, hook, WEBHOOK_MESSAGE,
                         (struct webhook_field[]){{.name = "text", .text = str_of(&text)}, {0}});
    pushed += taken;
    buf_free(&text);
    return taken;
}

static struct webhook_stats measure(void)
{
    struct webhook_stats stats;

    webhook_measure(hooks, &stats);
    return stats;
}

static struct webhook_report report_of(const struct webhook *hook)
{
    struct webhook_report report;

    webhook_read_report(hooks, hook, &report);
    return report;
}

/* So many requests have begun; what they have recorded may be read. */
static size_t requests(void)
{
    size_t count;

    pthread_mutex_lock(&server.lock);
    count = server.requests;
    pthread_mutex_unlock(&server.lock);
    return count;
}

static void await_request(void)
{
    for (int64_t until = os_now_ms() + PATIENCE; !requests() && os_now_ms() < until;)
        rest();
}

/* The next requests are treated so. */
static void change_script(const char *script)
{
    pthread_mutex_lock(&server.lock);
    server.script = script;
    server.held = false;
    pthread_mutex_unlock(&server.lock);
}

/* Waits until all has been delivered. */
static void settle(void)
{
    int64_t until = os_now_ms() + PATIENCE;

    while (measure().waiting && os_now_ms() < until)
        rest();
    CHECK(measure().waiting == 0 && measure().queued == 0 && measure().lag == 0);
    requests();
}

/* Waits for so many attempts of a webhook. */
static void await_attempts(const struct webhook *hook, uint64_t attempts)
{
    int64_t until = os_now_ms() + PATIENCE;

    while (report_of(hook).deliveries < attempts && os_now_ms() < until)
        rest();
    CHECK(report_of(hook).deliveries >= attempts);
    requests();
}

/* --- what a receiver knows ------------------------------------------------------------------- */

/* By the rules for receivers, of one system. */
struct model {
    int64_t epoch;
    uint64_t seq, events; /* the last one; all of them but starts */
    uint64_t next, lost;  /* the least number that a message may have; of which starts told */
    size_t starts, repeats;
};

static int64_t number_after(const char *text, const char *name)
{
    const char *at = strstr(text, name);

    return at ? strtoll(at + strlen(name), NULL, 10) : -1;
}

/* Takes the events of a batch that is new, one after the other. */
static void take_events(struct model *model, const char *body)
{
    int64_t epoch = number_after(body, "\"epoch\":");
    const char *at = body;

    while ((at = strstr(at, "{\"seq\":"))) {
        uint64_t seq = (uint64_t)number_after(at, "{\"seq\":");

        if (seq == 1 && epoch > model->epoch) {
            model->seq = 0;
            model->epoch = epoch;
            model->starts++;
            model->lost += (uint64_t)number_after(at, "\"lost\":");
            CHECK(strncmp(at, "{\"seq\":1,\"type\":\"start\",", 24) == 0);
        } else {
            model->events++;
        }
        CHECK(epoch == model->epoch && seq == model->seq + 1);
        model->seq = seq;
        if (strncmp(strchr(at, ','), ",\"type\":\"message\"", 17) == 0) {
            uint64_t number = (uint64_t)number_after(at, "\"text\":\"");

            CHECK(number == model->next || (number > model->next && model->lost));
            model->next = number + 1;
        }
        at++;
    }
}

static const char *id_of(const struct record *record)
{
    return strstr(record->head, "webhook-id: ");
}

/* Takes all that came. Nothing repeats but the batch before, and that is the same again. */
static struct model take_all(void)
{
    struct model model = {0};
    const struct record *before = NULL;

    for (size_t i = 0; i < server.count; i++) {
        const struct record *record = &server.records[i];
        size_t length = strcspn(id_of(record), "\r");

        if (before && strncmp(id_of(record), id_of(before), length + 1) == 0) {
            CHECK(strcmp(record->body, before->body) == 0);
            model.repeats++;
        } else {
            take_events(&model, record->body);
        }
        before = record;
    }
    return model;
}

/* --- tests ----------------------------------------------------------------------------------- */

/* The vector of the Standard Webhooks libraries; its key has 24 bytes, which HMAC pads with zeros.
 */
static void signs_as_the_standard_says(void)
{
    unsigned char secret[CRYPTO_HASH_SIZE + 4] = {0};
    struct buf out = {0};

    EVP_DecodeBlock(secret, (const unsigned char *)"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", 32);
    CHECK(webhook_append_signature(
        &out, secret, STR("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{\"test\": 2432232314}")));
    CHECK(str_equal(str_of(&out), STR("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")));
    buf_free(&out);
}

static void secrets_differ(void)
{
    static const char *const systems[] = {"shop", "shop", "shoq"};
    struct buf secrets[4] = {{0}, {0}, {0}, {0}};

    for (size_t i = 0; i < 3; i++) {
        CHECK(webhook_append_secret(&secrets[i], &keys, str_from(systems[i]), i % 2));
        CHECK(secrets[i].length == 6 + 44 && memcmp(secrets[i].at, "whsec_", 6) == 0);
        for (size_t k = 0; k < i; k++)
            CHECK(!str_equal(str_of(&secrets[i]), str_of(&secrets[k])));
    }
    CHECK(webhook_append_secret(&secrets[3], &keys, STR("shop"), 1));
    CHECK(str_equal(str_of(&secrets[3]), str_of(&secrets[1])));
    for (size_t i = 0; i < 4; i++)
        buf_free(&secrets[i]);
}

/* True if `head` has the signature of this version's secret, as one of `count`. */
static bool is_signed(const struct record *record, const char *system, uint64_t version,
                      size_t count)
{
    unsigned char secret[36];
    struct buf text = {0}, wanted = {0};
    const char *id = id_of(record), *at = strstr(record->head, "webhook-signature: ");
    const char *stamp = strstr(record->head, "webhook-timestamp: ");
    size_t signatures = 0;
    bool good;

    webhook_append_secret(&text, &keys, str_from(system), version);
    EVP_DecodeBlock(secret, (const unsigned char *)text.at + 6, 44);
    text.length = 0;
    buf_append(&text, (struct str){id + 12, strcspn(id + 12, "\r")});
    buf_append(&text, STR("."));
    buf_append(&text, (struct str){stamp + 19, strcspn(stamp + 19, "\r")});
    buf_append(&text, STR("."));
    buf_append(&text, str_from(record->body));
    webhook_append_signature(&wanted, secret, str_of(&text));
    buf_append(&wanted, (struct str){"", 1});
    good = strstr(at, wanted.at) != NULL;
    for (const char *one = at; (one = strstr(one, " v1,")); one++)
        signatures++;
    CHECK(signatures == count);
    CHECK(llabs(number_after(record->head, "webhook-timestamp: ") - (int64_t)time(NULL)) < 100);
    buf_free(&text);
    buf_free(&wanted);
    return good;
}

/* Replaces the times of events, which are of this test, by zeros. */
static void mask_times(char *body, int64_t began)
{
    while ((body = strstr(body, "\"at\":"))) {
        int64_t at = number_after(body, "\"at\":");

        CHECK(at >= began && at <= ((int64_t)time(NULL) + 1) * 1000);
        for (body += 5; *body >= '0' && *body <= '9'; body++)
            *body = '0';
    }
}

static void sends_what_is_documented(void)
{
    static const char member[] = ",\"clientId\":\"c\\\"1\",\"userId\":\"u1\",\"extend\":\"\"";
    struct webhook_field joins[] = {{.name = "clientId", .text = STR_INIT("c\"1")},
                                    {.name = "userId", .text = STR_INIT("u1")},
                                    {.name = "extend"},
                                    {.name = "groupName", .text = STR_INIT("news")},
                                    {0}};
    struct webhook_field connects[] = {
        joins[0],
        joins[1],
        joins[2],
        {.name = "remote", .text = STR_INIT("::1")},
        {.name = "groups", .text = STR_INIT("[\"news\"]"), .type = WEBHOOK_JSON},
        {0}};
    struct webhook_field disconnects[] = {joins[0],
                                          {.name = "code", .type = WEBHOOK_NUMBER, .number = 1006},
                                          {.name = "reason", .text = STR_INIT("")},
                                          {.name = "seconds", .type = WEBHOOK_NUMBER, .number = 0},
                                          {0}};
    const char *head, *wanted;
    struct webhook *hook;
    struct webhook_report report;
    int64_t began = (int64_t)time(NULL) * 1000;
    uint64_t epoch;

    open_hooks("5");
    hook = set("shop", 3);
    await_attempts(hook, 1);
    CHECK(webhook_push(hooks, hook, WEBHOOK_CONNECT, connects));
    CHECK(webhook_push(hooks, hook, WEBHOOK_JOIN, joins));
    CHECK(webhook_push(hooks, hook, WEBHOOK_DISCONNECT, disconnects));
    settle();
    report = report_of(hook);
    epoch = (uint64_t)report.epoch;
    CHECK(report.seq == 4 && report.lost == 0 && report.deliveries >= 3 && !report.off);
    CHECK(report.last[0].status == 500 && report.last[0].events == 1 && !report.last[0].error);
    CHECK(report.last[1].status == 200 && report.last[1].at >= report.last[0].at);
    CHECK(report.last[0].attempt == 1 && report.last[1].attempt == 2);
    CHECK(report.last[2].attempt == 1 && report.last[2].status == 200 && report.count == 0);
    CHECK(report.settings.events == ALL && str_equal(report.settings.url, hook_url()));
    CHECK(measure().delivered == 3 && measure().failures == 1 && measure().lost == 0);
    CHECK(server.count >= 3);
    for (size_t i = 0; i < server.count; i++) {
        CHECK(is_signed(&server.records[i], "shop", 7, 1));
        mask_times(server.records[i].body, began);
    }
    wanted = textf("{\"systemId\":\"shop\",\"node\":\"10.0.0.5:8801\",\"epoch\":%llu,\"events\":["
                   "{\"seq\":1,\"type\":\"start\",\"at\":0000000000000,\"lost\":3}]}",
                   (unsigned long long)epoch);
    CHECK(strcmp(server.records[0].body, wanted) == 0);
    CHECK(strcmp(server.records[1].body, wanted) == 0); /* the same again */
    wanted = textf("{\"seq\":2,\"type\":\"connect\",\"at\":0000000000000%s,\"remote\":\"::1\","
                   "\"groups\":[\"news\"]}",
                   member);
    CHECK(strstr(server.records[2].body, wanted));
    wanted = textf("{\"seq\":3,\"type\":\"join\",\"at\":0000000000000%s,\"groupName\":\"news\"}",
                   member);
    CHECK(strstr(server.records[server.count > 3 ? 3 : 2].body, wanted) ||
          strstr(server.records[2].body, wanted));
    wanted =
        "{\"seq\":4,\"type\":\"disconnect\",\"at\":0000000000000,\"clientId\":\"c\\\"1\",\"code\":1006,"
        "\"reason\":\"\",\"seconds\":0}]}";
    CHECK(strstr(server.records[server.count - 1].body, wanted));
    head = server.records[0].head;
    CHECK(strncmp(head, "POST /hook?a=b HTTP/1.1\r\n", 25) == 0);
    CHECK(strstr(head, textf("\r\nHost: 127.0.0.1:%u\r\n", server.port)));
    CHECK(strstr(head, "\r\nUser-Agent: wspush/9.9\r\n"));
    CHECK(strstr(head, "\r\nContent-Type: application/json\r\n"));
    CHECK(
        strstr(head, textf("\r\nwebhook-id: 10.0.0.5:8801.%llu.1\r\n", (unsigned long long)epoch)));
    close_hooks();
}

static void rotates_secrets(void)
{
    static const int64_t ages[] = {0, WEBHOOK_SECRET_LIFE - 60, WEBHOOK_SECRET_LIFE + 1};

    for (size_t i = 0; i < COUNT(ages); i++) {
        struct webhook_settings settings = {.events = ALL, .version = 7};
        struct webhook *hook;
        int64_t epoch;
        bool both = ages[i] < WEBHOOK_SECRET_LIFE;

        open_hooks("");
        hook = set("shop", 0);
        settle();
        epoch = report_of(hook).epoch;
        settings.url = str_from(textf("http://127.0.0.1:%u/hook?a=b", server.port));
        settings.version = 8;
        settings.rotated_at = (int64_t)time(NULL) - ages[i];
        CHECK(webhook_set(hooks, STR("shop"), &settings, 5));
        CHECK(webhook_find(hooks, STR("shop")) == hook && report_of(hook).epoch == epoch);
        push(hook, 0);
        settle();
        CHECK(is_signed(&server.records[1], "shop", 8, both ? 2 : 1));
        CHECK(is_signed(&server.records[1], "shop", 7, both ? 2 : 1) == both);
        close_hooks();
    }
}

/* Each way to fail, again and again, while events go on. */
static void survives_every_failure(void)
{
    struct model model;
    struct webhook *hook;

    open_hooks("5nhx3o5kc5bnnnoBeokoxxooohhoo5e3keBck5nBhx3");
    hook = set("shop", 0);
    for (int i = 0; i < 3000; i++) {
        push(hook, (size_t)i % 50);
        if (i % 100 == 0)
            await_attempts(hook, (uint64_t)i / 100);
    }
    settle();
    model = take_all();
    CHECK(model.events == 3000 && model.starts == 1 && model.lost == 0 && model.next == 3000);
    CHECK(model.repeats >= 15 && measure().delivered == 3000 && measure().lost == 0);
    for (size_t i = 0; i < server.count; i++)
        CHECK(strncmp(server.records[i].head, "POST /hook?a=b ", 15) == 0);
    close_hooks();
}

static void survives_a_late_receiver(void)
{
    struct webhook *hook;

    open_hooks("lol");
    options.timeout = 50;
    reopen_hooks();
    hook = set("shop", 0);
    push(hook, 0);
    settle();
    CHECK(take_all().events == 1 && measure().failures >= 1);
    CHECK(strcmp(report_of(hook).last[0].error, "no response in time") == 0);
    CHECK(report_of(hook).last[0].took >= 40 && report_of(hook).last[0].events <= 2);
    close_hooks();
}

static void survives_an_end_at_every_byte(void)
{
    static char script[3000];
    struct webhook *hook;
    struct model model;
    size_t length;

    for (size_t i = 0; i < sizeof script - 1; i++)
        script[i] = i % 3 == 2 ? 'o' : 'K'; /* on a kept connection, and on a new one */
    open_hooks("");
    hook = set("shop", 0);
    settle();
    length = strlen(server.records[0].head) + strlen(server.records[0].body);
    change_script(script);
    while (server.cut <= length && pushed < length) {
        push(hook, 10);
        settle();
    }
    settle();
    model = take_all();
    CHECK(model.events == pushed && model.starts == 1 && model.next == pushed);
    CHECK(server.cut > length && measure().failures > length / 3);
    close_hooks();
}

/* A connection that was kept and has ended costs no failure. */
static void keeps_connections(void)
{
    struct webhook_settings elsewhere = {.events = ALL};
    struct webhook *hook;
    size_t left = 1;

    open_hooks("");
    options.pause = 1000;
    reopen_hooks();
    hook = set("shop", 0);
    for (int i = 0; i < 20; i++) {
        push(hook, 0);
        settle();
    }
    CHECK(server.connections == 1 && requests() >= 20);
    elsewhere.url = str_from(textf("http://good.example:%u/hook?a=b", server.port));
    CHECK(webhook_set(hooks, STR("shop"), &elsewhere, 0));
    settle(); /* another receiver gets another connection */
    CHECK(server.connections == 2 && set("shop", 0) == hook);
    settle();
    change_script("kkkkkkkkkk");
    for (int i = 0; i < 10; i++) {
        push(hook, 0);
        settle();
    }
    change_script("onononono"); /* ended when the next request has come */
    for (int i = 0; i < 5; i++) {
        push(hook, 0);
        settle();
    }
    CHECK(measure().failures == 0 && take_all().events == 35);
    options.pause = 2;
    reopen_hooks();
    set("shop", 0);
    settle();
    for (int64_t until = os_now_ms() + PATIENCE; left && os_now_ms() < until; rest()) {
        pthread_mutex_lock(&server.lock);
        left = server.open;
        pthread_mutex_unlock(&server.lock);
    }
    CHECK(left == 0); /* not kept for long */
    close_hooks();
}

/* 256 events or 256 KiB; one event may be larger. */
static void limits_batches(void)
{
    struct webhook *hook;
    size_t most = 0, longest = 0, largest = 0;

    open_hooks("w");
    hook = set("shop", 0);
    await_request();
    for (int i = 0; i < 1000; i++)
        push(hook, i < 500 ? 0 : 1250);
    change_script("");
    settle();
    CHECK(take_all().events == 1000);
    for (size_t i = 0; i < server.count; i++) {
        const char *body = server.records[i].body;
        size_t events = 0;

        for (const char *at = body; (at = strstr(at, "{\"seq\"")); at++)
            events++;
        most = events > most ? events : most;
        longest = strlen(body) > longest ? strlen(body) : longest;
        largest = events == 256 ? largest + 1 : largest;
    }
    CHECK(most == 256 && largest >= 2 && longest > 200000 && longest <= 256 * 1024);
    push(hook, 99000);
    push(hook, 99000);
    push(hook, 99000);
    settle();
    CHECK(take_all().events == 1003);
    close_hooks();
}

/* What does not fit goes with all that is queued, and is told. */
static void tells_what_is_lost(void)
{
    static char fails[4001];
    struct webhook *hook;
    struct model model;
    struct webhook_field field[] = {{.name = "n", .type = WEBHOOK_NUMBER, .number = 1}, {0}};
    uint64_t others = 0;

    memset(fails, '5', sizeof fails - 1);
    open_hooks(fails);
    hook = set("shop", 0);
    await_attempts(hook, 1);
    while (push(hook, 4000))
        CHECK(report_of(hook).queued <= options.queue / 4 * 3);
    CHECK(pushed > 150 && measure().refused == 1 && measure().lost == 0 && !push(hook, 9000));
    CHECK(report_of(hook).epoch && report_of(hook).queued > options.queue / 2);
    for (; measure().lost == 0; others++) {
        CHECK(webhook_push(hooks, hook, WEBHOOK_JOIN, field));
        CHECK(report_of(hook).queued <= options.queue);
    }
    CHECK(measure().lost >= pushed && report_of(hook).lost == measure().lost);
    CHECK(push(hook, 0));
    change_script("");
    settle();
    model = take_all();
    CHECK(model.starts == 2 && report_of(hook).lost == 0);
    CHECK(model.lost == measure().lost && model.next == pushed);
    CHECK(measure().delivered + measure().lost == pushed + others);
    close_hooks();
}

/* Events that are older than `retry`, one without memory, and one that no queue can hold. */
static void gives_up_what_is_old(void)
{
    static char fails[4001];
    static const char *const padding = "x";
    const struct webhook_field no_memory[] = {{.name = "groups", .type = WEBHOOK_JSON}, {0}};
    struct webhook *hook;
    struct buf text = {0};
    uint64_t attempts;
    int64_t epoch;

    memset(fails, '5', sizeof fails - 1);
    open_hooks(fails);
    options.retry = 30;
    reopen_hooks();
    hook = set("shop", 0);
    epoch = report_of(hook).epoch;
    await_attempts(hook, 6); /* a start alone is never too old */
    CHECK(measure().lost == 0 && report_of(hook).epoch == epoch);
    for (int i = 0; i < 10; i++)
        push(hook, 0);
    for (int64_t until = os_now_ms() + PATIENCE; !measure().lost && os_now_ms() < until;)
        rest();
    CHECK(measure().lost == 10 && report_of(hook).seq == 1 && report_of(hook).lost == 10);
    attempts = report_of(hook).deliveries;
    await_attempts(hook, attempts + 3);
    CHECK(webhook_push(hooks, hook, WEBHOOK_JOIN, no_memory) && measure().lost == 11);
    for (size_t i = 0; i < options.queue; i++)
        buf_append(&text, str_from(padding));
    CHECK(webhook_push(hooks, hook, WEBHOOK_JOIN,
                       (struct webhook_field[]){{.name = "n", .text = str_of(&text)}, {0}}));
    CHECK(measure().lost == 12);
    buf_free(&text);
    change_script("");
    settle();
    CHECK(strstr(server.records[server.count - 1].body, "\"lost\":12}]}"));
    close_hooks();
}

static void goes_away_and_comes_back(void)
{
    struct webhook *hook;
    struct webhook_settings none = {0};
    int64_t epoch;

    open_hooks("4");
    hook = set("shop", 0);
    await_attempts(hook, 1);
    CHECK(report_of(hook).off && measure().waiting == 0 && push(hook, 0));
    CHECK(report_of(hook).queued == 0);
    epoch = report_of(hook).epoch;
    CHECK(set("shop", 4) == hook && report_of(hook).epoch > epoch);
    settle();
    CHECK(strstr(server.records[1].body, "\"lost\":4}]}") && !report_of(hook).off);
    CHECK(webhook_set(hooks, STR("shop"), &none, 0) && report_of(hook).off);
    push(hook, 0);
    CHECK(measure().waiting == 0 && webhook_set(hooks, STR("other"), &none, 0));
    set("shop", 0);
    push(hook, 0);
    webhook_restart(hooks, hook, 6);
    settle();
    CHECK(report_of(hook).lost == 0 && take_all().starts >= 3);
    CHECK(!webhook_find(hooks, STR("shoq")) && !webhook_find(NULL, STR("shop")));
    none.url = STR("ftp://good.com/");
    CHECK(!webhook_set(hooks, STR("shoq"), &none, 0) && !webhook_find(hooks, STR("shoq")));
    close_hooks();
}

/* The epochs of a busy moment lie in the future; none is used before, for the node may end. */
static void uses_no_epoch_before_its_time(void)
{
    struct webhook *hook;
    int64_t epoch;
    struct timespec now;

    open_hooks("w");
    hook = set("shop", 0);
    await_request();
    for (int i = 0; i < 500; i++)
        webhook_restart(hooks, hook, 0);
    epoch = report_of(hook).epoch;
    change_script("");
    settle();
    clock_gettime(CLOCK_REALTIME, &now);
    CHECK(number_after(server.records[server.count - 1].body, "\"epoch\":") == epoch);
    CHECK((int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 >= epoch);
    close_hooks();
}

/* Only what is asked for is sent. */
static void sends_what_is_asked_for(void)
{
    const char *url;
    struct webhook_settings settings = {.events = 1u << WEBHOOK_JOIN};
    struct webhook_field none[] = {{0}};
    struct webhook *hook;

    open_hooks("");
    url = textf("http://127.0.0.1:%u/", server.port);
    settings.url = str_from(url);
    CHECK(webhook_set(hooks, STR("shop"), &settings, 0));
    hook = webhook_find(hooks, STR("shop"));
    for (int kind = WEBHOOK_CONNECT; kind <= WEBHOOK_END; kind++)
        CHECK(webhook_push(hooks, hook, (enum webhook_kind)kind, none));
    settle();
    CHECK(report_of(hook).seq == 3 && take_all().events == 2);
    close_hooks();
}

/* More systems than threads, some of which have a receiver that never answers. */
static void serves_many_systems(void)
{
    struct webhook *systems[60];
    uint64_t most = 0;

    open_hooks("lll");
    for (size_t i = 0; i < COUNT(systems); i++) {
        systems[i] = set(textf("system%zu", i), 0);
        if (i < 3)
            await_attempts(systems[i], 0);
    }
    for (int n = 0; n < 5; n++)
        for (size_t i = 0; i < COUNT(systems); i++)
            push(systems[i], 0);
    /* three threads wait; what the others serve is delivered */
    for (int64_t until = os_now_ms() + PATIENCE; os_now_ms() < until; rest()) {
        most = measure().delivered;
        if (most >= 5 * (COUNT(systems) - 3 * 4))
            break;
    }
    CHECK(most >= 5 * (COUNT(systems) - 3 * 4));
    for (size_t i = 0; i < COUNT(systems); i++)
        for (size_t k = 0; k < i; k++)
            CHECK(report_of(systems[i]).epoch != report_of(systems[k]).epoch);
    close_hooks();
}

/* Connections are kept, but not one for each of many systems. */
static void keeps_few_connections(void)
{
    size_t left = 200;

    open_hooks("");
    options.pause = PATIENCE;
    reopen_hooks();
    for (int i = 0; i < 200; i++)
        push(set(textf("system%d", i), 0), 0);
    settle();
    for (int64_t until = os_now_ms() + PATIENCE; left > 64 && os_now_ms() < until; rest()) {
        pthread_mutex_lock(&server.lock);
        left = server.open;
        pthread_mutex_unlock(&server.lock);
    }
    CHECK(left > 16 && left <= 64 && measure().failures == 0);
    close_hooks();
}

/* Webhooks whose receivers are down wait, but not those that share their threads. */
static void lets_no_system_wait_for_another(void)
{
    struct webhook *good[32], *bad[16];

    open_hooks("");
    options.pause = PATIENCE;
    reopen_hooks();
    for (size_t i = 0; i < COUNT(good); i++)
        good[i] = set(textf("good%zu", i), 0);
    settle();
    change_script("5555555555555555");
    for (size_t i = 0; i < COUNT(bad); i++)
        bad[i] = set(textf("bad%zu", i), 0);
    for (size_t i = 0; i < COUNT(bad); i++)
        await_attempts(bad[i], 1);
    for (size_t i = 0; i < COUNT(good); i++)
        push(good[i], 0);
    for (int64_t until = os_now_ms() + PATIENCE / 2;
         measure().delivered < COUNT(good) && os_now_ms() < until;)
        rest();
    CHECK(measure().delivered == COUNT(good) && measure().waiting == COUNT(bad));
    close_hooks();
}

/* Has the receiver speak TLS with a certificate: NAME.pem of those in the working directory. */
static void present(const char *name)
{
    SSL_CTX *settings = SSL_CTX_new(TLS_server_method());

    CHECK(SSL_CTX_use_certificate_file(settings, textf("%s.pem", name), SSL_FILETYPE_PEM) == 1);
    CHECK(SSL_CTX_use_PrivateKey_file(settings, textf("%s.key", name), SSL_FILETYPE_PEM) == 1);
    pthread_mutex_lock(&server.lock);
    SSL_CTX_free(server.settings);
    server.settings = settings;
    pthread_mutex_unlock(&server.lock);
}

/* Makes certificates NAME.pem for these names, of a folder that becomes the working directory. */
static void begin_tls(char *folder, const char *const names[][2], size_t count)
{
    CHECK(mkdtemp(folder) && chdir(folder) == 0);
    for (size_t i = 0; i < count; i++)
        certificate_write(textf("%s.pem", names[i][0]), textf("%s.key", names[i][0]), names[i][1]);
    server.secure = true;
}

static void end_tls(const char *folder, const char *const names[][2], size_t count)
{
    SSL_CTX_free(server.settings);
    server.settings = NULL;
    server.secure = false;
    for (size_t i = 0; i < count; i++) {
        unlink(textf("%s.pem", names[i][0]));
        unlink(textf("%s.key", names[i][0]));
    }
    CHECK(chdir("/") == 0 && rmdir(folder) == 0);
}

/* Over IPv6, if there is any; who does not trust the certificate sends nothing. */
static void speaks_tls(void)
{
    static const struct {
        const char *ca, *error;
    } rows[] = {
        {"hook.pem", NULL},
        {"other.pem", "certificate"},
        {"wrong.pem", "mismatch"},
        {"none.pem", "[webhook] ca"},
    };
    static const char *const names[][2] = {{"hook", "IP:::1,IP:127.0.0.1"},
                                           {"other", "IP:::1,IP:127.0.0.1"},
                                           {"wrong", "DNS:localhost,IP:::2"}};
    char folder[] = "/tmp/test_webhook.XXXXXX";
    struct webhook *hook;

    begin_tls(folder, names, COUNT(names));
    for (size_t i = 0; i < COUNT(rows); i++) {
        open_hooks("5nhc3ebB");
        present(rows[i].ca[0] == 'w' ? "wrong" : "hook");
        options.ca = rows[i].ca;
        reopen_hooks();
        hook = set("shop", 0);
        for (int n = 0; n < 300; n++)
            push(hook, 1000);
        if (rows[i].error) {
            await_attempts(hook, 2);
            CHECK(requests() == 0 && strstr(report_of(hook).last[1].error, rows[i].error));
        } else {
            settle();
            CHECK(take_all().events == 300 && measure().lost == 0);
        }
        close_hooks();
    }
    end_tls(folder, names, COUNT(names));
}

/* good.example is looked up for each connection. When it leads to a machine that has a trusted
 * certificate, but for another name, nothing is sent there. */
static void trusts_a_name_and_no_address(void)
{
    static const char *const names[][2] = {{"good", "DNS:good.example"},
                                           {"evil", "DNS:evil.example"}};
    char folder[] = "/tmp/test_webhook.XXXXXX";
    struct buf trusted = {0};
    struct webhook_report report;
    struct webhook *hook;
    size_t before;
    FILE *file;

    begin_tls(folder, names, COUNT(names));
    for (size_t i = 0; i < COUNT(names); i++)
        CHECK(os_read_file(textf("%s.pem", names[i][0]), &trusted) == 0);
    CHECK((file = fopen("ca.pem", "w")) && fwrite(trusted.at, trusted.length, 1, file) == 1);
    fclose(file);
    buf_free(&trusted);
    open_hooks("kk"); /* connections end */
    snprintf(server.host, sizeof server.host, "good.example");
    present("good");
    options.ca = "ca.pem";
    reopen_hooks();
    hook = set("shop", 0);
    settle();
    push(hook, 0);
    settle();
    present("evil");
    before = requests();
    push(hook, 0);
    await_attempts(hook, report_of(hook).deliveries + 2);
    CHECK(requests() == before && measure().waiting == 1);
    report = report_of(hook);
    CHECK(strstr(report.last[(report.deliveries - 1) % WEBHOOK_DELIVERIES].error, "mismatch"));
    present("good");
    settle();
    CHECK(take_all().events == 2 && measure().lost == 0);
    close_hooks();
    unlink("ca.pem");
    end_tls(folder, names, COUNT(names));
}

/* What all systems share has a limit; the longest queue goes first. */
static void shares_memory(void)
{
    static char fails[10000];
    static char text[99000];
    struct webhook_field field[] = {{.name = "n", .text = {text, sizeof text}}, {0}};
    struct webhook *systems[20], *little;
    size_t most = 0, others = 0;

    memset(fails, '5', sizeof fails - 1);
    memset(text, 'x', sizeof text);
    open_hooks(fails);
    options.queue = 4 << 20;
    options.pause = 100;
    reopen_hooks();
    little = set("little", 0);
    push(little, 0);
    for (size_t i = 0; i < COUNT(systems); i++)
        systems[i] = set(textf("system%zu", i), 0);
    for (size_t n = 0; n < 800; n++) {
        /* when there is no room, it is the little one that asks for it */
        bool full = WEBHOOK_BYTES_MAX - measure().queued < sizeof text + 200;

        others += full;
        CHECK(
            webhook_push(hooks, full ? little : systems[n % COUNT(systems)], WEBHOOK_JOIN, field));
        most = measure().queued > most ? measure().queued : most;
    }
    CHECK(most > 60 << 20 && most <= WEBHOOK_BYTES_MAX && measure().lost > 0);
    CHECK(others > 1 && report_of(little).seq == 2 + others && report_of(little).lost == 0);
    close_hooks();
}

static void ends_with_an_end(void)
{
    struct webhook *hook;
    const char *body;

    open_hooks("555555555555");
    options.pause = 200;
    reopen_hooks();
    hook = set("shop", 0);
    await_attempts(hook, 1);
    push(hook, 0);
    webhook_finish(hooks);
    CHECK(push(hook, 0) && measure().waiting == 1);
    change_script("");
    settle();
    body = server.records[server.count - 1].body;
    CHECK(strstr(body, "{\"seq\":3,\"type\":\"end\",\"at\":"));
    CHECK(strstr(body, textf(",\"node\":\"10.0.0.5:8801\",\"epoch\":%lld}]}",
                             (long long)report_of(hook).epoch)));
    CHECK(take_all().events == 2);
    close_hooks();
}

/* Whatever the workers do, closing does not wait for it. */
static void closes_at_once(void)
{
    int64_t before;
    struct webhook *hook;

    open_hooks("lllll");
    for (int i = 0; i < 4; i++)
        hook = set(textf("system%d", i), 0);
    for (int64_t until = os_now_ms() + PATIENCE; requests() < 4 && os_now_ms() < until; rest())
        push(hook, 10);
    before = os_now_ms();
    close_hooks();
    CHECK(os_now_ms() - before < PATIENCE / 2);
    open_hooks(""); /* without a webhook no thread */
    close_hooks();
    webhook_close(NULL);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    crypto_add_key(&keys, STR("0123456789abcdef"), false);
    test_run("requests are signed as the standard says", signs_as_the_standard_says);
    test_run("secrets differ by system and version", secrets_differ);
    test_run("what is sent is what is documented", sends_what_is_documented);
    test_run("the secret before signs for a day", rotates_secrets);
    test_run("every failure is survived, without a hole", survives_every_failure);
    test_run("a late receiver is survived", survives_a_late_receiver);
    test_run("an end at every byte of a request is survived", survives_an_end_at_every_byte);
    test_run("connections are kept", keeps_connections);
    test_run("batches have limits", limits_batches);
    test_run("what is lost is told", tells_what_is_lost);
    test_run("what is too old is given up, and told", gives_up_what_is_old);
    test_run("a webhook goes away and comes back", goes_away_and_comes_back);
    test_run("no epoch is used before its time", uses_no_epoch_before_its_time);
    test_run("only what is asked for is sent", sends_what_is_asked_for);
    test_run("many systems share the threads", serves_many_systems);
    test_run("few connections are kept", keeps_few_connections);
    test_run("no system waits for another", lets_no_system_wait_for_another);
    test_run("receivers may speak TLS", speaks_tls);
    test_run("a name that leads elsewhere is not followed", trusts_a_name_and_no_address);
    test_run("all systems share a limit", shares_memory);
    test_run("the last event is an end", ends_with_an_end);
    test_run("closing does not wait", closes_at_once);
    return test_finish();
}
