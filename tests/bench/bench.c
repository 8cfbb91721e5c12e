/* bench.c - the load generator of tests/bench/bench.sh: holds many WebSocket clients on 127.0.0.x,
 * has a server push to them through its HTTP API, and times every message. Without a port it forks
 * a bare server to measure instead, which reads no JSON and checks no token: a plain loop of send()
 * with the frame as it comes in the request, and the answer behind it. That is the limit of the
 * machine.
 *
 *   bench CASE [NAME=VALUE...]         see `cases` and the options below
 *
 * prints one line of NAME=VALUE: rates in 1/s, times in microseconds, memory in bytes. It exits
 * with 1 if a message was lost, repeated, damaged, out of order or with the wrong client, if a
 * client was closed or a request refused; with 2 if it could not measure. One thread, one epoll
 * set, nothing but 127.0.0.0/8, and no loop without an end. Linux only, with _GNU_SOURCE. */
#include "buf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 19900
#define OUTSIDERS 8     /* clients that are not in the group of a fan-out, and must get nothing */
#define PER_SOURCE 8000 /* clients of one source address: ports are not endless */
#define REQUESTS_MAX 64 /* connections for requests */
#define BINDERS 8       /* of them bind the clients, at least */
#define PLACES_MAX 2    /* ports to connect clients to */
#define PAYLOAD 128     /* bytes of a message, */
#define FRAME 132       /* and with the header of its frame */
#define RECENT 1024     /* messages that are remembered; more than are under way */
#define ALL 99999u      /* whom a message to the group is for */
#define NOBODY UINT32_MAX
#define ID_ROOM 80
#define EVENTS 512
#define SCRATCH 65536
#define BATCH_ROOM (512 * 1024) /* for a batch of events */
#define EVENTS_AHEAD 8192       /* messages of clients that the receiver has not got yet */
#define SETTLE 100 /* milliseconds in which what comes too often or too late is still seen */
#define SECOND INT64_C(1000000000)

#define KEY "dGhlIHNhbXBsZSBub25jZQ==" /* RFC 6455's example, with what is accepted for it */
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define SUCCESS "{\"code\":0,\"msg\":\"success\",\"data\":"
#define MESSAGE_BEGIN "{\"code\":0,\"msg\":\""

/* What the command line may set. */
struct options {
    uint64_t clients, http, inflight, count, milliseconds, under_way, gap, patience, limit, cpu,
        server_cpu;
    uint64_t groups;            /* that binds go to */
    uint64_t every;             /* the bare server spoils one message in so many, */
    const char *spoil;          /* in this way, see `spoil_from` */
    const char *port, *pid;     /* of the nodes that clients connect to: one, or A,B */
    const char *api;            /* the port for requests; the first of those */
    const char *token, *system; /* who sends */
    const char *program, *config;
    const char *receiver; /* the port on which webhooks are received */
};

/* What the receiver of webhooks has got; in memory that it shares with its parent. */
struct received {
    atomic_ullong events, batches; /* without `start` */
    atomic_ullong holes;           /* numbers that did not come in turn, and what is told as lost */
};

/* Times, in the order in which they were taken until they are printed. */
struct series {
    int64_t *at;
    size_t count, room;
};

/* A message. It is remembered for a while after everybody has got it. */
struct push {
    char payload[PAYLOAD + 1];
    uint32_t number, target, missing; /* how many receivers have not got it */
    uint32_t rank;            /* its place in the order in which everybody must get messages */
    bool published, answered; /* asked for and not given up; the request was answered */
    int64_t begun;
};

struct client {
    int fd;
    bool upgraded, greeted;
    char id[ID_ROOM];
    uint32_t newest; /* rank of the newest message it has got, */
    uint64_t before; /* and which of the 64 that end with it */
    char *kept;      /* the beginning of what is not whole yet */
    size_t length;
};

/* A connection for requests, one at a time. */
struct request {
    int fd;
    struct push *message; /* the one it has sent, or NULL */
    bool binding;
    int64_t begun;
    char text[1024];
    size_t length;
};

/* What may be wrong, counted. */
enum fault { LOST, REPEATED, DISORDERED, STRAY, DAMAGED, CLOSED, REFUSED, FAULTS };

static const char *const fault_names[FAULTS] = {"lost",    "repeated", "disordered", "stray",
                                                "damaged", "closed",   "refused"};

struct bench {
    struct options options;
    int epoll;
    bool bare;   /* against the bare server, */
    pid_t child; /* which is this one, or the receiver; or 0 */
    struct received *received;
    uint16_t ports[PLACES_MAX], api;
    pid_t pids[PLACES_MAX];
    size_t places, pid_count;
    struct client *clients;
    size_t opened, greeted, members; /* clients; those in the group come first */
    struct request requests[REQUESTS_MAX];
    size_t request_count, bound;
    struct push messages[RECENT];
    uint32_t numbers, ranks; /* given away so far */
    bool unicast, publishing;
    uint64_t left; /* messages to publish in this phase, */
    int64_t until; /* and its end */
    size_t underway;
    uint64_t deliveries, pings;
    uint32_t asked; /* the client that owes a pong, or NOBODY */
    struct series answers, lasts, latencies[PLACES_MAX];
    uint64_t faults[FAULTS];
    uint32_t random;
    int64_t deadline;
    char scratch[SCRATCH];
};

static void give_up(const char *what)
{
    fprintf(stderr, "bench: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(2);
}

/* One that is no fault of the system. */
static void refuse(const char *what)
{
    errno = 0;
    give_up(what);
}

static int64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

static void *take_memory(void *old, size_t size)
{
    void *new = realloc(old, size);

    if (!new)
        give_up("memory");
    return new;
}

static uint32_t draw(struct bench *bench, size_t below)
{
    bench->random ^= bench->random << 13;
    bench->random ^= bench->random >> 17;
    bench->random ^= bench->random << 5;
    return (uint32_t)(bench->random % below);
}

static void pin(uint64_t cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sysconf(_SC_NPROCESSORS_ONLN) > 1 && sched_setaffinity(0, sizeof set, &set) != 0)
        give_up("sched_setaffinity");
}

/* --- figures ---------------------------------------------------------------------------------- */

static void series_add(struct series *series, int64_t value)
{
    if (series->count == series->room) {
        series->room = series->room ? 2 * series->room : 1024;
        series->at = take_memory(series->at, series->room * sizeof *series->at);
    }
    series->at[series->count++] = value;
}

static int by_value(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void series_print(const char *name, const char *suffix, struct series *series)
{
    size_t count = series->count;

    if (!count)
        return;
    qsort(series->at, count, sizeof *series->at, by_value);
    printf(" %s%s_p50=%.1f %s%s_p99=%.1f", name, suffix, (double)series->at[(count - 1) / 2] / 1000,
           name, suffix, (double)series->at[(count * 99 - 1) / 100] / 1000);
}

/* CPU time of the server in nanoseconds. The clock is exact; how it is split is not, which ticks
 * decide. */
struct usage {
    double total, user, system;
};

static void usage_add(struct usage *usage, pid_t pid)
{
    char path[64], text[1024], *at;
    struct timespec time;
    clockid_t clock;
    FILE *file;
    unsigned field = 2;

    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    file = fopen(path, "r");
    if (!file || !fgets(text, sizeof text, file) || clock_getcpuclockid(pid, &clock) != 0 ||
        clock_gettime(clock, &time) != 0)
        give_up("the server's CPU time");
    fclose(file);
    usage->total += (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
    for (at = strrchr(text, ')'); at && field < 14; field++)
        at = strchr(at + 1, ' ');
    if (at) { /* utime and stime */
        usage->user += (double)strtoul(at + 1, &at, 10);
        usage->system += (double)strtoul(at, NULL, 10);
    }
}

static struct usage usage_of(const struct bench *bench)
{
    struct usage usage = {0};

    for (size_t i = 0; i < bench->pid_count; i++)
        usage_add(&usage, bench->pids[i]);
    return usage;
}

/* Prints what one delivery has cost. */
static void usage_print(const struct bench *bench, struct usage before)
{
    struct usage after = usage_of(bench);
    double ticks = after.user - before.user + after.system - before.system;
    double each = (after.total - before.total) / 1000 / (double)bench->deliveries;
    double share = ticks > 0 ? (after.user - before.user) / ticks : 0;

    if (bench->pid_count && bench->deliveries)
        printf(" cpu=%.3f user=%.3f system=%.3f", each, each * share, each * (1 - share));
}

/* Bytes of memory that a process has, or 0. */
static uint64_t resident_of(pid_t pid)
{
    char path[64], line[256];
    uint64_t bytes = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%ld/status", (long)pid);
    file = fopen(path, "r");
    while (file && fgets(line, sizeof line, file))
        if (strncmp(line, "VmRSS:", 6) == 0)
            bytes = strtoull(line + 6, NULL, 10) * 1024;
    if (file)
        fclose(file);
    return bytes;
}

static uint64_t resident(const struct bench *bench)
{
    return bench->pid_count ? resident_of(bench->pids[0]) : 0;
}

/* --- sockets ---------------------------------------------------------------------------------- */

/* Connects from an address that `number` chooses. Loopback does not keep one waiting. */
static int dial(uint16_t port, size_t number)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    struct linger reset = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    if (fd < 0)
        give_up("socket");
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number / PER_SOURCE));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset); /* no port is left waiting */
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        give_up("connect");
    return fd;
}

static void watch(int epoll, int fd, uint32_t number)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};

    if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0)
        give_up("epoll_ctl");
}

static void send_all(int fd, const char *text, size_t length)
{
    if (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length)
        give_up("send");
}

/* --- messages --------------------------------------------------------------------------------- */

static void publish(struct bench *bench, struct request *request);

/* Notes that a client has got the message of a rank. False if it has had it before. */
static bool note_rank(struct bench *bench, struct client *client, uint32_t rank)
{
    if (rank > client->newest) {
        uint32_t ahead = rank - client->newest;

        client->before = ahead < 64 ? client->before << ahead | 1 : 1;
        client->newest = rank;
        return true;
    }
    if (client->newest - rank < 64) {
        uint64_t bit = UINT64_C(1) << (client->newest - rank);

        if (client->before & bit) {
            bench->faults[REPEATED]++;
            return false;
        }
        client->before |= bit;
    }
    bench->faults[DISORDERED]++;
    return true;
}

/* The message whose number a payload has, if that is one of late and the rest is as it was sent. */
static struct push *find_message(struct bench *bench, const char *payload, size_t length)
{
    const char *at = payload + sizeof MESSAGE_BEGIN - 1;
    struct push *message;
    uint32_t number = 0;

    if (length != PAYLOAD)
        return NULL;
    for (size_t i = 0; i < 10; i++)
        number = number * 10 + (uint32_t)(at[i] - '0');
    message = &bench->messages[number % RECENT];
    return message->number == number && memcmp(message->payload, payload, PAYLOAD) == 0 ? message
                                                                                        : NULL;
}

/* A message is done once everybody has got it and its request was answered. */
static void check_done(struct bench *bench, struct push *message, int64_t now)
{
    if (!message->published || message->missing || !message->answered)
        return;
    message->published = false;
    bench->underway--;
    for (size_t i = 0; i < bench->request_count; i++)
        if (bench->requests[i].message == message) {
            bench->requests[i].message = NULL;
            if (bench->publishing && bench->left && now < bench->until)
                publish(bench, &bench->requests[i]);
            return;
        }
}

static void take_message(struct bench *bench, uint32_t number, const char *payload, size_t length,
                         int64_t now)
{
    struct push *message = find_message(bench, payload, length);

    if (!message) {
        bench->faults[DAMAGED]++;
        return;
    }
    if (message->target == ALL ? number >= bench->members : number != message->target) {
        bench->faults[STRAY]++;
        return;
    }
    if (!message->rank)
        message->rank = ++bench->ranks; /* who gets it first gives everybody's order */
    if (!note_rank(bench, &bench->clients[number], message->rank) || !message->missing)
        return;
    bench->deliveries++;
    if (--message->missing)
        return;
    series_add(&bench->lasts, now - message->begun);
    if (bench->unicast)
        series_add(&bench->latencies[number % bench->places], now - message->begun);
    check_done(bench, message, now);
}

static void write_message(struct push *message)
{
    int n = snprintf(message->payload, sizeof message->payload,
                     MESSAGE_BEGIN "%010u %020lld %05u\",\"data\":\"", message->number,
                     (long long)message->begun, message->target);

    memset(message->payload + n, 'x', (size_t)(PAYLOAD - n));
    memcpy(message->payload + PAYLOAD - 2, "\"}", 3);
}

/* A request that has the server push a message; the bare one gets the frame ready-made. */
static size_t write_request(const struct bench *bench, const struct push *message, char *text,
                            size_t room)
{
    static const char header[4] = {(char)0x81, 126, 0, (char)PAYLOAD};
    bool all = message->target == ALL;
    const char *id = all ? "bench" : bench->clients[message->target].id;
    const char *name = all ? "groupName" : "clientId";
    int n;

    if (bench->bare)
        n = snprintf(text, room,
                     "POST /%s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n",
                     all ? "all" : id, FRAME);
    else
        n = snprintf(text, room,
                     "POST /api/send_to_%s HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: %s\r\n"
                     "Content-Length: %zu\r\n\r\n{\"%s\":\"%s\",%s",
                     all ? "group" : "client", bench->options.token,
                     strlen(name) + strlen(id) + 6 + PAYLOAD, name, id, message->payload + 1);
    if (n < 0 || (size_t)n + FRAME >= room)
        refuse("a request is too long");
    if (!bench->bare)
        return (size_t)n;
    memcpy(text + n, header, sizeof header);
    memcpy(text + n + sizeof header, message->payload, PAYLOAD);
    return (size_t)n + FRAME;
}

static bool is_busy(const struct bench *bench, uint32_t target)
{
    for (size_t i = 0; i < bench->request_count; i++)
        if (bench->requests[i].message && bench->requests[i].message->target == target)
            return true;
    return false;
}

/* Somebody for whom no message is under way, so that what he gets has an order. There is one, with
 * no fewer clients than requests. */
static uint32_t draw_target(struct bench *bench)
{
    uint32_t target = draw(bench, bench->members);

    while (is_busy(bench, target))
        target = (target + 1) % (uint32_t)bench->members;
    return target;
}

static void publish(struct bench *bench, struct request *request)
{
    struct push *message = &bench->messages[(bench->numbers + 1) % RECENT];
    char text[1024];
    size_t length;

    if (message->published)
        return; /* one is late by RECENT messages: this connection waits for the phase's end */
    *message = (struct push){.number = ++bench->numbers, .published = true};
    message->target = bench->unicast ? draw_target(bench) : ALL;
    message->missing = bench->unicast ? 1 : (uint32_t)bench->members;
    message->rank = bench->unicast ? ++bench->ranks : 0;
    message->begun = now_ns();
    write_message(message);
    length = write_request(bench, message, text, sizeof text);
    request->message = message;
    request->begun = message->begun;
    request->length = 0;
    bench->underway++;
    bench->left--;
    send_all(request->fd, text, length);
}

/* Gives up what has not come in time. */
static void give_up_late(struct bench *bench)
{
    int64_t now = now_ns();

    for (size_t i = 0; i < bench->request_count; i++) {
        struct push *message = bench->requests[i].message;

        if (!message || now - message->begun < (int64_t)bench->options.patience * 1000000)
            continue;
        if (!message->answered)
            refuse("a request was not answered");
        bench->faults[LOST] += message->missing;
        message->missing = 0;
        check_done(bench, message, now);
    }
}

/* --- requests --------------------------------------------------------------------------------- */

/* Has a connection bind the next client to the group, if there is one. */
static void bind_next(struct bench *bench, struct request *request)
{
    char text[1024], group[32] = "bench";
    const char *id;
    int n;

    request->binding = bench->bound < bench->members;
    if (!request->binding)
        return;
    if (bench->options.groups > 1)
        snprintf(group, sizeof group, "bench%zu", bench->bound % bench->options.groups);
    id = bench->clients[bench->bound++].id;
    n = snprintf(text, sizeof text,
                 "POST /api/bind_to_group HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: %s\r\n"
                 "Content-Length: %zu\r\n\r\n{\"clientId\":\"%s\",\"groupName\":\"%s\"}",
                 bench->options.token, strlen(id) + strlen(group) + 30, id, group);
    if (n < 0 || (size_t)n >= sizeof text)
        refuse("a request is too long");
    request->length = 0;
    send_all(request->fd, text, (size_t)n);
}

/* True once an answer is there as a whole. */
static bool is_whole(const struct request *request, bool *good)
{
    static const char length_field[] = "\r\nContent-Length: ";
    const char *end = memmem(request->text, request->length, "\r\n\r\n", 4);
    const char *length =
        memmem(request->text, request->length, length_field, sizeof length_field - 1);
    size_t head = end ? (size_t)(end + 4 - request->text) : 0;

    if (!end)
        return false;
    if (!length || length > end)
        refuse("an answer without Content-Length");
    if (request->length < head + strtoul(length + sizeof length_field - 1, NULL, 10))
        return false;
    *good = strncmp(request->text, "HTTP/1.1 200 ", 13) == 0 &&
            strncmp(end + 4, SUCCESS, sizeof SUCCESS - 1) == 0;
    return true;
}

static void read_request(struct bench *bench, struct request *request)
{
    struct push *message = request->message;
    bool good = false;
    int64_t now;
    ssize_t n = recv(request->fd, request->text + request->length,
                     sizeof request->text - 1 - request->length, MSG_DONTWAIT);

    if (n <= 0)
        refuse("a connection for requests was closed");
    request->length += (size_t)n;
    request->text[request->length] = '\0';
    if (!is_whole(request, &good))
        return;
    bench->faults[REFUSED] += !good;
    if (request->binding) {
        bind_next(bench, request);
    } else if (message && !message->answered) {
        now = now_ns();
        series_add(&bench->answers, now - request->begun);
        message->answered = true;
        check_done(bench, message, now);
    }
}

static void open_requests(struct bench *bench, size_t count)
{
    for (; bench->request_count < count; bench->request_count++) {
        struct request *request = &bench->requests[bench->request_count];

        *request = (struct request){.fd = dial(bench->api, 0)};
        watch(bench->epoll, request->fd, (uint32_t)(CLIENTS_MAX + bench->request_count));
    }
}

static void close_requests(struct bench *bench, size_t count)
{
    while (bench->request_count > count)
        close(bench->requests[--bench->request_count].fd);
}

/* --- clients ---------------------------------------------------------------------------------- */

/* Sends a masked frame. */
static void send_frame(int fd, unsigned opcode, const char *payload, size_t length)
{
    static const char mask[4] = {0x12, 0x34, 0x56, 0x78};
    char frame[6 + 125] = {(char)(0x80 | opcode), (char)(0x80 | length)};

    memcpy(frame + 2, mask, 4);
    for (size_t i = 0; i < length; i++)
        frame[6 + i] = (char)(payload[i] ^ mask[i % 4]);
    send_all(fd, frame, 6 + length);
}

static void take_greeting(struct bench *bench, struct client *client, const char *payload,
                          size_t length)
{
    static const char begin[] = SUCCESS "{\"clientId\":\"";
    const char *id = payload + sizeof begin - 1;
    const char *end = length < sizeof begin || memcmp(payload, begin, sizeof begin - 1) != 0
                          ? NULL
                          : memchr(id, '"', length - sizeof begin + 1);

    if (!end || end - id >= (ptrdiff_t)sizeof client->id)
        refuse("the first frame has no clientId");
    memcpy(client->id, id, (size_t)(end - id));
    client->greeted = true;
    bench->greeted++;
}

static void take_frame(struct bench *bench, uint32_t number, unsigned first, const char *payload,
                       size_t length, int64_t now)
{
    struct client *client = &bench->clients[number];

    if (first == 0x89 && length <= 125) {
        bench->pings++;
        send_frame(client->fd, 10, payload, length);
    } else if (first != 0x81) {
        bench->faults[DAMAGED] += first != 0x88; /* a close frame: the end follows */
    } else if (!client->greeted) {
        take_greeting(bench, client, payload, length);
    } else if (length == 4 && memcmp(payload, "pong", 4) == 0) {
        if (bench->asked != number)
            bench->faults[bench->asked == NOBODY ? REPEATED : STRAY]++;
        bench->asked = NOBODY;
    } else {
        take_message(bench, number, payload, length, now);
    }
}

/* Takes the whole frames off the front; returns how many bytes they had. */
static size_t take_frames(struct bench *bench, uint32_t number, const char *bytes, size_t count,
                          int64_t now)
{
    size_t taken = 0;

    while (count - taken >= 2) {
        const unsigned char *at = (const unsigned char *)bytes + taken;
        size_t header = at[1] == 126 ? 4 : 2, length = at[1];

        if (length > 126)
            refuse("a frame is masked or longer than any that was sent");
        if (count - taken < header)
            break;
        if (header == 4)
            length = (size_t)at[2] << 8 | at[3];
        if (count - taken < header + length)
            break;
        taken += header + length;
        take_frame(bench, number, at[0], (const char *)at + header, length, now);
    }
    return taken;
}

/* Takes the answer to an upgrade off the front; returns its length, or 0 if it is not whole. */
static size_t take_upgrade(struct client *client, const char *bytes, size_t count)
{
    const char *end = memmem(bytes, count, "\r\n\r\n", 4);

    if (!end)
        return 0;
    if (strncmp(bytes, "HTTP/1.1 101 ", 13) != 0 ||
        !memmem(bytes, (size_t)(end + 2 - bytes), ACCEPT "\r\n", sizeof ACCEPT + 1))
        refuse("an upgrade was refused");
    client->upgraded = true;
    return (size_t)(end + 4 - bytes);
}

static void close_client(struct bench *bench, struct client *client)
{
    close(client->fd);
    client->fd = -1;
    bench->faults[CLOSED]++;
    bench->left = 0; /* who is gone would be waited for with each message */
    if (!client->greeted)
        refuse("a client was closed before it had its id");
}

static void read_client(struct bench *bench, uint32_t number)
{
    struct client *client = &bench->clients[number];
    char *bytes = bench->scratch;
    size_t count = client->length, taken = 0;
    ssize_t n = recv(client->fd, bytes + count, SCRATCH - count, MSG_DONTWAIT);

    if (n <= 0) {
        close_client(bench, client);
        return;
    }
    if (count)
        memcpy(bytes, client->kept, count);
    count += (size_t)n;
    if (!client->upgraded)
        taken = take_upgrade(client, bytes, count);
    if (client->upgraded)
        taken += take_frames(bench, number, bytes + taken, count - taken, now_ns());
    if (taken == count && !client->length)
        return;
    client->length = count - taken;
    client->kept = take_memory(client->kept, client->length + 1);
    memcpy(client->kept, bytes + taken, client->length);
}

static void open_client(struct bench *bench)
{
    uint32_t number = (uint32_t)bench->opened++;
    struct client *client = &bench->clients[number];
    char query[4500], text[5000]; /* `system` may be followed by "&ticket=" and a ticket */
    int n;

    if (bench->bare) /* it takes clients by their numbers */
        snprintf(query, sizeof query, "%u", number);
    else
        snprintf(query, sizeof query, "systemId=%s", bench->options.system);
    n = snprintf(text, sizeof text,
                 "GET /ws?%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                 "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                 "Sec-WebSocket-Key: " KEY "\r\n\r\n",
                 query);
    if (n < 0 || (size_t)n >= sizeof text)
        refuse("the system's name is too long");
    *client = (struct client){.fd = dial(bench->ports[number % bench->places], number)};
    send_all(client->fd, text, (size_t)n);
    watch(bench->epoll, client->fd, number);
}

/* --- the turn --------------------------------------------------------------------------------- */

/* Waits for up to so many milliseconds and takes what has come. */
static void turn(struct bench *bench, int timeout)
{
    struct epoll_event events[EVENTS];
    int count = epoll_wait(bench->epoll, events, EVENTS, timeout);

    if (now_ns() > bench->deadline)
        refuse("the time is up");
    for (int i = 0; i < count; i++) {
        uint32_t number = events[i].data.u32;

        if (number >= CLIENTS_MAX)
            read_request(bench, &bench->requests[number - CLIENTS_MAX]);
        else if (bench->clients[number].fd >= 0)
            read_client(bench, number);
    }
}

static void turn_for(struct bench *bench, int64_t milliseconds)
{
    int64_t end = now_ns() + milliseconds * 1000000, left;

    while ((left = end - now_ns()) > 0)
        turn(bench, (int)(left / 1000000) + 1);
}

/* Opens clients, a number of them at the same time; returns how long that took. */
static int64_t open_clients(struct bench *bench, size_t count)
{
    int64_t begin = now_ns();

    while (bench->greeted < count) {
        while (bench->opened < count && bench->opened - bench->greeted < bench->options.under_way)
            open_client(bench);
        turn(bench, 100);
    }
    return now_ns() - begin;
}

/* Binds the members to the group; the bare server has no groups. */
static void bind_clients(struct bench *bench)
{
    size_t before = bench->request_count, busy = 1;

    if (bench->bare)
        return;
    open_requests(bench, before > BINDERS ? before : BINDERS);
    for (size_t i = 0; i < bench->request_count; i++)
        bind_next(bench, &bench->requests[i]);
    while (busy) {
        busy = 0;
        for (size_t i = 0; i < bench->request_count; i++)
            busy += bench->requests[i].binding;
        if (busy)
            turn(bench, 100);
    }
    close_requests(bench, before);
}

/* Publishes in a closed loop; returns how long that took. */
static int64_t run_phase(struct bench *bench, uint64_t count, int64_t duration)
{
    int64_t begin = now_ns();

    bench->left = count;
    bench->until = begin + duration;
    bench->publishing = true;
    for (size_t i = 0; i < bench->request_count && bench->left; i++)
        publish(bench, &bench->requests[i]);
    while (bench->underway) {
        turn(bench, 50);
        give_up_late(bench);
    }
    bench->publishing = false;
    return now_ns() - begin;
}

static void forget_figures(struct bench *bench)
{
    bench->deliveries = 0;
    bench->answers.count = bench->lasts.count = 0;
    for (size_t i = 0; i < PLACES_MAX; i++)
        bench->latencies[i].count = 0;
}

/* Messages to the group, or to single clients: a fifth as long to warm up, then in earnest. */
static void publish_all(struct bench *bench)
{
    const struct options *options = &bench->options;
    int64_t duration = (int64_t)options->milliseconds * 1000000, took;
    struct usage before;

    run_phase(bench, options->count / 5 + 1, duration / 5);
    forget_figures(bench);
    before = usage_of(bench);
    took = run_phase(bench, options->count, duration);
    printf(" clients=%zu messages=%zu published=%u rate=%.0f", bench->members, bench->answers.count,
           bench->numbers, (double)bench->deliveries * 1e9 / (double)took);
    usage_print(bench, before);
    series_print("http", "", &bench->answers);
    turn_for(bench, SETTLE);
}

/* --- the bare server -------------------------------------------------------------------------- */

enum spoil {
    SPOIL_NONE,
    SPOIL_LOSE,
    SPOIL_REPEAT,
    SPOIL_STRAY,
    SPOIL_SWAP,
    SPOIL_DAMAGE,
    SPOIL_CLOSE
};

struct bare {
    int epoll, listener;
    int clients[CLIENTS_MAX]; /* by number, or -1 */
    size_t count, members;
    enum spoil
        spoil; /* so that those who measure can be tested: one in `every` is not as it should */
    uint64_t every, sent;
    size_t held; /* for whom a frame is held back, or CLIENTS_MAX */
    char held_frame[FRAME];
    char scratch[4096];
};

/* Sends a frame to a client in the wrong way. False if it has still to be sent. */
static bool bare_spoil(struct bare *bare, size_t number, const char *frame)
{
    if (bare->spoil == SPOIL_STRAY)
        send_all(bare->clients[number + 1 < bare->count ? bare->count - 1 : 0], frame, FRAME);
    if (bare->spoil == SPOIL_REPEAT)
        send_all(bare->clients[number], frame, FRAME);
    if (bare->spoil == SPOIL_SWAP && bare->held == CLIENTS_MAX) {
        bare->held = number;
        memcpy(bare->held_frame, frame, FRAME);
        return true;
    }
    if (bare->spoil == SPOIL_DAMAGE) {
        char other[FRAME];

        memcpy(other, frame, FRAME);
        other[FRAME - 3] ^= 1;
        send_all(bare->clients[number], other, FRAME);
        return true;
    }
    if (bare->spoil == SPOIL_CLOSE)
        shutdown(bare->clients[number], SHUT_RDWR); /* it is dropped when that is noticed */
    return bare->spoil == SPOIL_LOSE || bare->spoil == SPOIL_CLOSE;
}

static void bare_push(struct bare *bare, size_t number, const char *frame)
{
    if (bare->clients[number] < 0 ||
        (bare->spoil && ++bare->sent % bare->every == 0 && bare_spoil(bare, number, frame)))
        return;
    if (send(bare->clients[number], frame, FRAME, MSG_NOSIGNAL) != FRAME && !bare->spoil)
        give_up("send");
    if (bare->spoil && bare->held == number) {
        send_all(bare->clients[number], bare->held_frame, FRAME);
        bare->held = CLIENTS_MAX;
    }
}

static void bare_upgrade(struct bare *bare, int fd, const char *text)
{
    size_t number = strtoul(text + strlen("GET /ws?"), NULL, 10);
    char answer[512], hello[100];
    int length = snprintf(hello, sizeof hello, SUCCESS "{\"clientId\":\"%zu\"}}", number);
    int n = snprintf(answer, sizeof answer,
                     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Accept: " ACCEPT "\r\n\r\n\x81%c%s",
                     length, hello);

    if (number >= CLIENTS_MAX)
        exit(1);
    bare->clients[number] = fd;
    if (number >= bare->count)
        bare->count = number + 1;
    send_all(fd, answer, (size_t)n);
}

/* Does what a request asks for. Whatever it gets was sent in one piece, and comes as one. */
static void bare_serve(struct bare *bare, int fd, const char *text, size_t length)
{
    static const char answer[] = "HTTP/1.1 200 OK\r\n"
                                 "Content-Type: application/json; charset=utf-8\r\n"
                                 "Content-Length: 36\r\n\r\n" SUCCESS "[]}";
    const char *frame = text + length - FRAME;

    if (length > 4 && memcmp(text, "GET ", 4) == 0) {
        bare_upgrade(bare, fd, text);
    } else if (length > FRAME && memcmp(text, "POST /", 6) == 0) {
        if (text[6] != 'a')
            bare_push(bare, strtoul(text + 6, NULL, 10) % CLIENTS_MAX, frame);
        else
            for (size_t i = 0; i < bare->count && i < bare->members; i++)
                bare_push(bare, i, frame);
        send_all(fd, answer, sizeof answer - 1);
    } else if (length == 10) { /* the text "ping" */
        send_all(fd, "\x81\x04pong", 6);
    }
}

static void bare_drop(struct bare *bare, int fd)
{
    for (size_t i = 0; i < bare->count; i++)
        if (bare->clients[i] == fd)
            bare->clients[i] = -1;
    close(fd);
}

static void bare_accept(struct bare *bare)
{
    int fd, one = 1;

    for (int i = 0; i < 64 && (fd = accept(bare->listener, NULL, NULL)) >= 0; i++) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        watch(bare->epoll, fd, (uint32_t)fd);
    }
}

/* Serves until it is killed, as it is when its parent ends. */
static void bare_run(struct bare *bare)
{
    struct epoll_event events[EVENTS];

    for (;;) {
        int count = epoll_wait(bare->epoll, events, EVENTS, -1);

        for (int i = 0; i < count; i++) {
            int fd = (int)events[i].data.u32;
            ssize_t n;

            if (fd == bare->listener) {
                bare_accept(bare);
                continue;
            }
            n = recv(fd, bare->scratch, sizeof bare->scratch, MSG_DONTWAIT);
            if (n > 0)
                bare_serve(bare, fd, bare->scratch, (size_t)n);
            else
                bare_drop(bare, fd);
        }
    }
}

static enum spoil spoil_from(const char *name)
{
    static const char *const names[] = {"", "lose", "repeat", "stray", "swap", "damage", "close"};

    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum spoil)i;
    refuse("spoil is lose, repeat, stray, swap, damage or close");
    return SPOIL_NONE;
}

static void bare_child(const struct bench *bench, int listener)
{
    struct bare *bare = calloc(1, sizeof *bare);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(bench->options.server_cpu);
    if (!bare)
        exit(1);
    memset(bare->clients, -1, sizeof bare->clients);
    bare->listener = listener;
    bare->members = bench->members;
    bare->held = CLIENTS_MAX;
    bare->spoil = spoil_from(bench->options.spoil);
    bare->every = bench->options.every;
    bare->epoll = epoll_create1(0);
    watch(bare->epoll, listener, (uint32_t)listener);
    bare_run(bare);
}

static void bare_start(struct bench *bench)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) != 0 ||
        listen(listener, 4096) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0)
        give_up("the bare server");
    bench->child = fork();
    if (bench->child < 0)
        give_up("fork");
    if (bench->child == 0)
        bare_child(bench, listener);
    close(listener);
    bench->ports[0] = bench->api = ntohs(address.sin_port);
    bench->pids[0] = bench->child;
    bench->places = bench->pid_count = 1;
}

/* --- a receiver of webhooks ------------------------------------------------------------------- */

/* The number behind a name in a batch. */
static uint64_t receiver_number(const char *at, size_t length, const char *name)
{
    const char *found = memmem(at, length, name, strlen(name));

    return found ? strtoull(found + strlen(name), NULL, 10) : 0;
}

/* Counts the events of a batch, whose numbers must follow those before. */
static void receiver_count(struct received *received, const char *body, size_t length)
{
    static const char begin[] = "{\"seq\":";
    static uint64_t last;
    uint64_t events = 0;
    const char *end = body + length, *at;

    for (at = memmem(body, length, begin, sizeof begin - 1); at; events++) {
        uint64_t number = strtoull(at + sizeof begin - 1, NULL, 10);

        if (number == 1) { /* start */
            received->holes += receiver_number(at, (size_t)(end - at), "\"lost\":");
            events--;
        } else {
            received->holes += number != last + 1;
        }
        last = number;
        at = memmem(at + 1, (size_t)(end - at - 1), begin, sizeof begin - 1);
    }
    received->batches++;
    received->events += events;
}

/* Takes batches from a connection until it ends. */
static void receiver_serve(struct received *received, int fd)
{
    static const char answer[] = "HTTP/1.1 204 No Content\r\n\r\n";
    static char text[BATCH_ROOM + 1];
    size_t length = 0, head = 0, whole = 0;
    ssize_t n;

    while ((n = recv(fd, text + length, BATCH_ROOM - length, 0)) > 0) {
        const char *end;

        length += (size_t)n;
        text[length] = '\0';
        if (!head && (end = memmem(text, length, "\r\n\r\n", 4))) {
            head = (size_t)(end + 4 - text);
            whole = head + receiver_number(text, head, "\r\nContent-Length: ");
        }
        if (!head || length < whole)
            continue;
        receiver_count(received, text + head, length - head);
        length = head = 0;
        send_all(fd, answer, sizeof answer - 1);
    }
    close(fd);
}

static void receiver_child(const struct bench *bench, int listener)
{
    int fd, one = 1;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(bench->options.cpu);
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        receiver_serve(bench->received, fd);
    }
    exit(1);
}

/* Has the server send the events of the system to a receiver, and starts that. */
static void receiver_start(struct bench *bench)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char body[200], text[1024];
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd, n, one = 1;
    const char *port = bench->options.receiver ? bench->options.receiver : "0";

    bench->received = mmap(NULL, sizeof *bench->received, PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    if (bench->bare || bench->received == MAP_FAILED || listener < 0 ||
        setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(listener, 16) != 0)
        give_up("the receiver, which needs a server and a port");
    fflush(stdout);
    bench->child = fork();
    if (bench->child < 0)
        give_up("fork");
    if (bench->child == 0)
        receiver_child(bench, listener);
    close(listener);
    snprintf(body, sizeof body, /* another URL each time: it is tried at once */
             "{\"url\":\"http://127.0.0.1:%s/%lld\",\"events\":[\"connect\",\"disconnect\","
             "\"message\"]}",
             port, (long long)now_ns());
    n = snprintf(text, sizeof text,
                 "POST /api/set_webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: %s\r\n"
                 "Content-Length: %zu\r\n\r\n%s",
                 bench->options.token, strlen(body), body);
    fd = dial(bench->api, 0);
    send_all(fd, text, (size_t)n);
    n = (int)recv(fd, text, sizeof text, 0);
    if (n <= 0 || !memmem(text, (size_t)n, "whsec_", 6))
        refuse("set_webhook failed");
    close(fd);
}

/* Waits until so many events have come, and no others. */
static void receiver_await(struct bench *bench, uint64_t count)
{
    int64_t end = now_ns() + (int64_t)bench->options.patience * 1000000;

    while (bench->received->events < count && now_ns() < end)
        turn(bench, 1);
    if (bench->received->events < count)
        bench->faults[LOST] += count - bench->received->events;
    bench->faults[REPEATED] += bench->received->events > count;
    bench->faults[DISORDERED] = bench->received->holes;
}

/* --- cases ------------------------------------------------------------------------------------ */

static void run_fanout(struct bench *bench)
{
    open_clients(bench, bench->members + OUTSIDERS);
    open_requests(bench, bench->options.inflight);
    bind_clients(bench);
    publish_all(bench);
    series_print("last", "", &bench->lasts);
}

static void run_unicast(struct bench *bench)
{
    if (bench->members < bench->options.http)
        refuse("fewer clients than connections for requests");
    open_clients(bench, bench->members);
    open_requests(bench, bench->options.http);
    bench->unicast = true;
    publish_all(bench);
    series_print("latency", "", &bench->lasts);
    for (size_t i = 0; i < bench->places && bench->places > 1; i++)
        series_print("latency", i ? "_b" : "_a", &bench->latencies[i]);
}

static void run_handshakes(struct bench *bench)
{
    int64_t took = open_clients(bench, bench->members);

    printf(" clients=%zu rate=%.0f", bench->members, (double)bench->members * 1e9 / (double)took);
    turn_for(bench, SETTLE);
}

/* Clients come and go; a webhook hears of it. */
static void run_visits(struct bench *bench)
{
    int64_t begin;

    receiver_start(bench);
    begin = now_ns();
    open_clients(bench, bench->members);
    for (size_t i = 0; i < bench->members; i++) {
        close(bench->clients[i].fd);
        bench->clients[i].fd = -1;
    }
    receiver_await(bench, 2 * bench->members);
    printf(" clients=%zu batches=%llu rate=%.0f", bench->members, bench->received->batches,
           (double)bench->received->events * 1e9 / (double)(now_ns() - begin));
}

/* Clients send messages to a webhook, no more at a time than its queue holds. */
static void run_messages(struct bench *bench)
{
    static const char text[] = "a message of 32 bytes, for all..";
    uint64_t sent = 0, before = bench->members;
    struct usage usage;
    int64_t begin, end;

    receiver_start(bench);
    open_clients(bench, bench->members);
    receiver_await(bench, before);
    usage = usage_of(bench);
    begin = now_ns();
    end = begin + (int64_t)bench->options.milliseconds * 1000000;
    while (sent < bench->options.count && now_ns() < end) {
        for (size_t i = 0; i < 64 && sent < bench->options.count &&
                           before + sent < bench->received->events + EVENTS_AHEAD;
             i++)
            send_frame(bench->clients[sent++ % bench->members].fd, 1, text, sizeof text - 1);
        turn(bench, 0);
    }
    receiver_await(bench, before + sent);
    bench->deliveries = sent;
    printf(" clients=%zu batches=%llu rate=%.0f", bench->members, bench->received->batches,
           (double)sent * 1e9 / (double)(now_ns() - begin));
    usage_print(bench, usage);
}

static void run_binds(struct bench *bench)
{
    int64_t begin;

    open_clients(bench, bench->members);
    begin = now_ns();
    bind_clients(bench);
    printf(" clients=%zu rate=%.0f", bench->members,
           (double)bench->members * 1e9 / (double)(now_ns() - begin));
}

static void run_idle(struct bench *bench)
{
    uint64_t before = resident(bench), after;
    struct usage usage;
    double seconds = (double)bench->options.milliseconds / 1000;

    open_clients(bench, bench->members);
    bind_clients(bench);
    turn_for(bench, 1000);
    after = resident(bench);
    bench->pings = 0;
    usage = usage_of(bench);
    turn_for(bench, (int64_t)bench->options.milliseconds);
    printf(" clients=%zu pings=%llu before=%llu resident=%llu each=%.0f load=%.2f", bench->members,
           (unsigned long long)bench->pings, (unsigned long long)before, (unsigned long long)after,
           ((double)after - (double)before) / (double)bench->members,
           (usage_of(bench).total - usage.total) / seconds / 1e7);
}

/* A client says "ping" and waits for its answer. */
static void ask(struct bench *bench, uint32_t number)
{
    int64_t begin, end;

    turn_for(bench, (int64_t)bench->options.gap);
    begin = now_ns();
    end = begin + (int64_t)bench->options.patience * 1000000;
    bench->asked = number;
    send_frame(bench->clients[number].fd, 1, "ping", 4);
    while (bench->asked != NOBODY && now_ns() < end)
        turn(bench, 100);
    series_add(&bench->lasts, now_ns() - begin);
    bench->faults[LOST] += bench->asked != NOBODY;
    bench->asked = NOBODY;
}

/* One client after the other says "ping" where all are quiet. */
static void run_quiet(struct bench *bench)
{
    uint64_t before = resident(bench);

    open_clients(bench, bench->members);
    turn_for(bench, 1000);
    printf(" clients=%zu before=%llu resident=%llu", bench->members, (unsigned long long)before,
           (unsigned long long)resident(bench));
    for (uint64_t i = 0; i < bench->options.count && !bench->faults[CLOSED]; i++)
        ask(bench, draw(bench, bench->members));
    turn_for(bench, SETTLE);
    series_print("latency", "", &bench->lasts);
}

/* Starts the server once; returns how long it took to its first answer. */
static int64_t start_once(const struct bench *bench, uint64_t *memory)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    struct sockaddr_in from = {.sin_family = AF_INET}, to = from;
    int64_t begin = now_ns(), took;
    char answer[64];
    int fd = -1, status;
    pid_t child = fork();

    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1); /* or it might connect to itself */
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(bench->api);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(bench->options.server_cpu);
        execl(bench->options.program, bench->options.program, "-c", bench->options.config,
              bench->options.port, (char *)NULL);
        _exit(127);
    }
    do {
        struct timespec pause = {0, 100000};

        if (fd >= 0) {
            close(fd);
            nanosleep(&pause, NULL);
        }
        if (now_ns() > bench->deadline || waitpid(child, &status, WNOHANG) != 0)
            refuse("the server does not start");
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0)
            give_up("bind");
    } while (connect(fd, (struct sockaddr *)&to, sizeof to) != 0);
    send_all(fd, request, sizeof request - 1);
    if (recv(fd, answer, sizeof answer, 0) < 12 || memcmp(answer, "HTTP/1.1 ", 9) != 0)
        refuse("the server does not answer");
    took = now_ns() - begin;
    *memory = resident_of(child);
    close(fd);
    kill(child, SIGTERM);
    if (waitpid(child, &status, 0) != child || status != 0)
        refuse("the server does not end as it should");
    return took;
}

static void run_start(struct bench *bench)
{
    uint64_t memory = 0;

    for (uint64_t i = 0; i < bench->options.count; i++)
        series_add(&bench->lasts, start_once(bench, &memory));
    printf(" resident=%llu", (unsigned long long)memory);
    series_print("start", "", &bench->lasts);
}

static const struct {
    const char *name;
    void (*run)(struct bench *);
    bool server; /* there is one to connect to */
} cases[] = {
    {"fanout", run_fanout, true},         {"unicast", run_unicast, true},
    {"handshakes", run_handshakes, true}, {"idle", run_idle, true},
    {"quiet", run_quiet, true},           {"start", run_start, false},
    {"binds", run_binds, true},           {"visits", run_visits, true},
    {"messages", run_messages, true},
};

/* --- options ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t offset;
    uint64_t least, most;
} numbers[] = {
    {"clients", offsetof(struct options, clients), 1, CLIENTS_MAX - OUTSIDERS},
    {"http", offsetof(struct options, http), 1, REQUESTS_MAX},         /* requests of unicast */
    {"inflight", offsetof(struct options, inflight), 1, REQUESTS_MAX}, /* and of a fan-out */
    {"count", offsetof(struct options, count), 1, 10000000},           /* messages, pings, starts */
    {"ms", offsetof(struct options, milliseconds), 1, 600000},         /* how long, at most */
    {"under_way", offsetof(struct options, under_way), 1, 1024},       /* handshakes */
    {"gap", offsetof(struct options, gap), 1, 1000},                   /* ms between pings */
    {"patience", offsetof(struct options, patience), 10, 60000},       /* ms for a message */
    {"limit", offsetof(struct options, limit), 1, 600},                /* seconds for all */
    {"cpu", offsetof(struct options, cpu), 0, 1023},
    {"server_cpu", offsetof(struct options, server_cpu), 0, 1023},
    {"every", offsetof(struct options, every), 1, UINT32_MAX},
    {"groups", offsetof(struct options, groups), 1, 10000000},
};

static const struct {
    const char *name;
    size_t offset;
} texts[] = {
    {"spoil", offsetof(struct options, spoil)},       {"port", offsetof(struct options, port)},
    {"pid", offsetof(struct options, pid)},           {"api", offsetof(struct options, api)},
    {"token", offsetof(struct options, token)},       {"system", offsetof(struct options, system)},
    {"program", offsetof(struct options, program)},   {"config", offsetof(struct options, config)},
    {"receiver", offsetof(struct options, receiver)},
};

static void set_option(struct options *options, const char *argument)
{
    const char *value = strchr(argument, '=');
    struct str name = {argument, value ? (size_t)(value - argument) : 0};

    for (size_t i = 0; value && i < sizeof texts / sizeof *texts; i++)
        if (str_equal(name, str_from(texts[i].name))) {
            value++;
            memcpy((char *)options + texts[i].offset, &value, sizeof value);
            return;
        }
    for (size_t i = 0; value && i < sizeof numbers / sizeof *numbers; i++) {
        uint64_t number;

        if (str_equal(name, str_from(numbers[i].name)) &&
            str_number(str_from(value + 1), numbers[i].most, &number) &&
            number >= numbers[i].least) {
            memcpy((char *)options + numbers[i].offset, &number, sizeof number);
            return;
        }
    }
    fprintf(stderr, "bench: what is %s?\n", argument);
    exit(2);
}

/* Reads up to PLACES_MAX numbers, with commas between them. */
static size_t read_list(const char *list, uint64_t most, uint64_t out[PLACES_MAX])
{
    struct str rest = str_from(list);
    size_t count = 0;

    while (rest.at && rest.length) {
        if (count == PLACES_MAX || !str_number(str_cut(&rest, ','), most, &out[count]))
            refuse("port and pid are one number, or two with a comma");
        count++;
    }
    return count;
}

static void take_options(struct bench *bench, int argc, char **argv)
{
    uint64_t list[PLACES_MAX], api;

    bench->options = (struct options){.clients = 100,
                                      .http = 1,
                                      .inflight = 1,
                                      .count = 100000,
                                      .milliseconds = 1000,
                                      .under_way = 128,
                                      .gap = 3,
                                      .patience = 10000,
                                      .limit = 120,
                                      .cpu = 1,
                                      .every = 1,
                                      .groups = 1,
                                      .spoil = "",
                                      .system = "bench",
                                      .token = ""};
    for (int i = 2; i < argc; i++)
        set_option(&bench->options, argv[i]);
    bench->places = read_list(bench->options.port, UINT16_MAX, list);
    for (size_t i = 0; i < bench->places; i++)
        bench->ports[i] = (uint16_t)list[i];
    bench->pid_count = read_list(bench->options.pid, INT32_MAX, list);
    for (size_t i = 0; i < bench->pid_count; i++)
        bench->pids[i] = (pid_t)list[i];
    bench->api = bench->ports[0];
    if (bench->options.api && str_number(str_from(bench->options.api), UINT16_MAX, &api))
        bench->api = (uint16_t)api;
    bench->members = bench->options.clients;
    bench->bare = bench->places == 0;
}

static void prepare(struct bench *bench)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    bench->clients = calloc(CLIENTS_MAX, sizeof *bench->clients);
    bench->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!bench->clients || bench->epoll < 0)
        give_up("memory");
    bench->asked = NOBODY;
    bench->random = (uint32_t)now_ns() | 1;
    bench->deadline = now_ns() + (int64_t)bench->options.limit * SECOND;
}

/* Lets go of everything, prints what was wrong, and returns the exit status. */
static int finish(struct bench *bench)
{
    bool good = true;

    for (size_t i = 0; i < FAULTS; i++) {
        printf(" %s=%llu", fault_names[i], (unsigned long long)bench->faults[i]);
        good &= bench->faults[i] == 0;
    }
    printf("\n");
    close_requests(bench, 0);
    for (size_t i = 0; i < bench->opened; i++) {
        close(bench->clients[i].fd);
        free(bench->clients[i].kept);
    }
    free(bench->clients);
    free(bench->answers.at);
    free(bench->lasts.at);
    for (size_t i = 0; i < PLACES_MAX; i++)
        free(bench->latencies[i].at);
    if (bench->child) {
        kill(bench->child, SIGKILL);
        waitpid(bench->child, NULL, 0);
    }
    close(bench->epoll);
    return good ? 0 : 1;
}

int main(int argc, char **argv)
{
    static struct bench bench;

    for (size_t i = 0; argc > 1 && i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(argv[1], cases[i].name) != 0)
            continue;
        take_options(&bench, argc, argv);
        prepare(&bench);
        if (bench.bare && cases[i].server)
            bare_start(&bench);
        pin(bench.options.cpu);
        printf("case=%s target=%s", cases[i].name, bench.bare ? "bare" : "server");
        cases[i].run(&bench);
        return finish(&bench);
    }
    fprintf(stderr, "usage: bench fanout|unicast|handshakes|binds|idle|quiet|start|visits|messages "
                    "[NAME=VALUE...]\n");
    return 2;
}
