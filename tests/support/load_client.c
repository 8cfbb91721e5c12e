/* load_client.c - many WebSocket clients for the tests, on 127.0.0.x, among them some that
 * misbehave.
 *
 *   load_client PORT SYSTEM TOKEN
 *
 * One thread reads commands from stdin, a line each, and answers each with a line:
 *   open N      opens N more clients                            open TOTAL
 *   bind GROUP  binds every client to a group                   bound N
 *   ping        every client sends "ping" and awaits "pong"     pongs N
 *   frames K    waits until K pushed frames have come in all    frames N
 *   wait MS     answers pings for MS milliseconds
 *   closed N    the same until N clients were closed     closed N going_away M pings P took MS
 *   drop N      resets N clients                                open TOTAL
 *   requests N  one request on each of N connections, three times    answers M
 *   stall N     opens N clients that read nothing after their id     open TOTAL
 *   flood GROUP SIZE MOST   sends messages to a group until a member is closed for being slow
 *               sent N median US longest US whole N wrong N last N kept N end CODE REASON
 *   vanish N    drops every packet for the last N clients        vanished N
 *   offline     waits until all other clients have the notice 1002 of each of them, once
 *               told N of N right CLIENTS first MS last MS
 *   drip N      N connections of each kind that send a byte now and then, until all were closed
 *               for each kind: KIND ended N answered N first MS last MS
 *   silent N    N connections that send nothing                      silent TOTAL
 *   leave N     closes the first N of those                          silent TOTAL
 *   speak       each of the others sends a request                   good N refused N
 *   call N      N requests on a connection that stays                answers N longest US
 *   storm N     N connections that come and go, in ten ways     connections N answers N bound N
 *
 * US are microseconds, MS milliseconds. Each wait is bounded by TIMEOUT. Between commands the
 * clients read what comes and answer pings. Any error of a system call ends the program with 1; the
 * end of its input, with 0. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#ifdef __linux__
#include <asm/socket.h>
#include <linux/filter.h>
#endif
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX 19900
#define PER_SOURCE 8000 /* clients of one source address: ports are not endless */
#define TIMEOUT 60000   /* milliseconds for what is waited for */
#define FRAME_MAX 65536 /* the longest frame that is read, with its header */
#define WINDOW 8        /* messages of a flood that the slowest reader may be behind */
#define DRIP 50         /* milliseconds between two bytes of one that dribbles */
#define SILENT_MAX 1000
#define BRIEF_MAX 100      /* at a time */
#define FLOOD_FROM 1000000 /* the code of a flood's first message */

struct client {
    int fd;
    bool stalled; /* reads nothing */
    bool gone;    /* has vanished */
    char id[17];
    char *kept; /* the beginning of a frame that is not whole yet */
    size_t length;
    size_t received;      /* messages of a flood, in their order */
    size_t offline_count; /* notices to others that it is offline */
    unsigned end_code;    /* of the close frame that it got, */
    char end[32];         /* and the reason in it */
};

struct load {
    char scratch[2 * FRAME_MAX];
    struct client *clients;
    struct pollfd *polls;
    size_t count;
    uint16_t port;
    const char *system, *token;
    size_t frames, pongs, pings, closed, going_away;
    int api;                          /* a connection for requests that stays, or -1 */
    char *tail;                       /* how each message of a flood goes on behind its number */
    size_t tail_length, wrong;        /* and how many did not */
    size_t offline_total;             /* notices that clients which vanished are offline, */
    int64_t vanished_at, first, last; /* when they did, and when the notices came */
    int silent[SILENT_MAX];
    size_t silent_count;
    size_t briefs;  /* so far */
    int64_t polled; /* when all clients were last polled */
};

static int64_t now_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void give_up(const char *what)
{
    fprintf(stderr, "load_client: %s: %s\n", what, strerror(errno));
    exit(1);
}

/* Connects from an address that `number` chooses. */
static int connect_as(const struct load *load, size_t number, bool narrow)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    struct timeval timeout = {.tv_sec = TIMEOUT / 1000};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1, window = 4096, segment = 536;

    if (fd < 0)
        give_up("socket");
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number / PER_SOURCE));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(load->port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    if (narrow) { /* small windows and segments, so that the kernel keeps little for it */
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &window, sizeof window);
        setsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &segment, sizeof segment);
    }
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        give_up("connect");
    return fd;
}

static int connect_from(const struct load *load, size_t number)
{
    return connect_as(load, number, false);
}

/* Closes a connection so that no port is left waiting. */
static void reset(int fd)
{
    struct linger reset = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(fd);
}

static void send_all(int fd, const char *text, size_t length)
{
    if (send(fd, text, length, 0) != (ssize_t)length)
        give_up("send");
}

/* Sends a masked frame; the mask is 0, which is as good as any here. */
static void send_frame(int fd, unsigned opcode, const char *text, size_t length)
{
    char frame[6 + 125] = {(char)(0x80 | opcode), (char)(0x80 | length)};

    memcpy(frame + 6, text, length);
    send_all(fd, frame, 6 + length);
}

/* A message of a flood: its number must be the next one, and the rest as it was sent. */
static void take_flood(struct load *load, struct client *client, const char *payload, size_t length)
{
    static const char begin[] = "{\"code\":";
    char *rest;
    size_t number;

    if (length < sizeof begin || memcmp(payload, begin, sizeof begin - 1) != 0)
        return;
    number = strtoul(payload + sizeof begin - 1, &rest, 10);
    if (number < FLOOD_FROM)
        return; /* a notice */
    length -= (size_t)(rest - payload);
    if (number == FLOOD_FROM + client->received && length == load->tail_length &&
        memcmp(rest, load->tail, length) == 0)
        client->received++;
    else
        load->wrong++;
}

/* A notice that a client is offline. */
static void take_offline(struct load *load, const char *id)
{
    for (size_t i = 0; i < load->count; i++)
        if (memcmp(load->clients[i].id, id, 16) == 0) {
            load->clients[i].offline_count++;
            load->last = now_us();
            load->offline_total += load->clients[i].gone;
        }
    if (!load->first)
        load->first = load->last;
}

static void take_pushed(struct load *load, struct client *client, const char *payload,
                        size_t length)
{
    static const char offline[] =
        "{\"code\":1002,\"msg\":\"client offline\",\"data\":{\"clientId\":\"";

    load->frames++;
    if (load->tail)
        take_flood(load, client, payload, length);
    if (load->vanished_at && length > sizeof offline + 16 &&
        memcmp(payload, offline, sizeof offline - 1) == 0)
        take_offline(load, payload + sizeof offline - 1);
}

static void take_end(struct load *load, struct client *client, const char *payload, size_t length)
{
    load->going_away += length >= 2 && memcmp(payload, "\x03\xe9", 2) == 0;
    if (length >= 2) {
        client->end_code = (unsigned)(unsigned char)payload[0] << 8 | (unsigned char)payload[1];
        snprintf(client->end, sizeof client->end, "%.*s", (int)(length - 2), payload + 2);
    }
    send_frame(client->fd, 8, payload, length);
}

static void take_frame(struct load *load, struct client *client, unsigned opcode,
                       const char *payload, size_t length)
{
    static const char hello[] = "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"";

    if (opcode == 9) {
        load->pings++;
        send_frame(client->fd, 10, payload, length);
    } else if (opcode == 8) {
        take_end(load, client, payload, length);
    } else if (length == 4 && memcmp(payload, "pong", 4) == 0) {
        load->pongs++;
    } else if (!client->id[0] && length >= sizeof hello + 15 &&
               memcmp(payload, hello, sizeof hello - 1) == 0) {
        memcpy(client->id, payload + sizeof hello - 1, 16);
    } else {
        take_pushed(load, client, payload, length);
    }
}

static void keep(struct client *client, const char *bytes, size_t length)
{
    free(client->kept);
    client->kept = length ? malloc(length) : NULL;
    client->length = length;
    if (length && !client->kept)
        give_up("malloc");
    if (length)
        memcpy(client->kept, bytes, length);
}

/* Takes the whole frames off what a client has got, and keeps the rest. */
static void take_frames(struct load *load, struct client *client, const char *bytes, size_t count)
{
    size_t at = 0;

    while (count - at >= 2) {
        size_t header = (bytes[at + 1] & 127) == 126 ? 4 : 2;
        size_t length = (size_t)(unsigned char)bytes[at + 1];

        if (header == 4 && count - at >= 4)
            length =
                (size_t)(unsigned char)bytes[at + 2] << 8 | (size_t)(unsigned char)bytes[at + 3];
        if (length == 127 && header == 2) {
            errno = EMSGSIZE;
            give_up("a pushed frame");
        }
        if (count - at < header + length)
            break;
        take_frame(load, client, bytes[at] & 15, bytes + at + header, length);
        at += header + length;
    }
    keep(client, bytes + at, count - at);
}

static void close_client(struct client *client)
{
    keep(client, NULL, 0);
    reset(client->fd);
    client->fd = -1;
}

static void read_client(struct load *load, struct client *client)
{
    size_t kept = client->length;
    ssize_t n;

    if (kept)
        memcpy(load->scratch, client->kept, kept);
    n = recv(client->fd, load->scratch + kept, sizeof load->scratch - kept, MSG_DONTWAIT);
    if (n > 0) {
        take_frames(load, client, load->scratch, kept + (size_t)n);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        close_client(client);
        load->closed++;
    }
}

/* Polls all clients once, for up to `timeout` milliseconds. */
static void poll_clients(struct load *load, int timeout)
{
    for (size_t i = 0; i < load->count; i++)
        load->polls[i] =
            (struct pollfd){load->clients[i].stalled ? -1 : load->clients[i].fd, POLLIN, 0};
    load->polled = now_us();
    if (poll(load->polls, (nfds_t)load->count, timeout) <= 0)
        return;
    for (size_t i = 0; i < load->count; i++)
        if (load->polls[i].revents)
            read_client(load, &load->clients[i]);
}

/* Call in the middle of other work: the server must not take a client for dead because that is
 * slow. */
static void poll_sometimes(struct load *load)
{
    if (now_us() - load->polled > 100000)
        poll_clients(load, 0);
}

/* Serves until a counter has reached a number, or timeout ends. */
static void poll_until(struct load *load, const size_t *counter, size_t number)
{
    int64_t end = now_us() + TIMEOUT * 1000;

    while (*counter < number && now_us() < end)
        poll_clients(load, 100);
}

/* Reads an answer's head and body, or an upgrade's head, whole; what follows is left to the
 * client. Returns how many bytes the head has. */
static size_t read_head(int fd, char *text, size_t room, size_t *length)
{
    *length = 0;
    for (;;) {
        ssize_t n = recv(fd, text + *length, room - 1 - *length, 0);
        char *end;

        if (n <= 0)
            give_up("no answer");
        *length += (size_t)n;
        text[*length] = '\0';
        end = strstr(text, "\r\n\r\n");
        if (end)
            return (size_t)(end + 4 - text);
    }
}

static void send_upgrade(int fd, const char *system)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "GET /ws?systemId=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                     system);

    send_all(fd, text, (size_t)n);
}

/* Reads the answer to an upgrade and the frame with the id. */
static void await_id(struct load *load, struct client *client)
{
    char text[1024];
    size_t length, head = read_head(client->fd, text, sizeof text, &length);

    if (strncmp(text, "HTTP/1.1 101", 12) != 0) {
        errno = EPROTO;
        give_up(text);
    }
    take_frames(load, client, text + head, length - head);
    while (!client->id[0] && client->fd >= 0) {
        struct pollfd wait = {client->fd, POLLIN, 0};

        if (poll(&wait, 1, TIMEOUT) != 1)
            give_up("no first frame");
        read_client(load, client);
    }
}

static void open_client(struct load *load, bool narrow)
{
    struct client *client = &load->clients[load->count];

    *client = (struct client){.fd = connect_as(load, load->count, narrow)};
    load->count++;
    send_upgrade(client->fd, load->system);
    await_id(load, client);
}

/* --- requests -------------------------------------------------------------------------------- */

static void send_request(const struct load *load, int fd, const char *path, const char *body)
{
    char text[1024 + FRAME_MAX];
    int n = snprintf(text, sizeof text,
                     "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: %s\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     path, load->token, strlen(body), body);

    send_all(fd, text, (size_t)n);
}

/* Reads an answer; answers here come in one piece or their head comes first. */
static void read_whole(int fd, char *text, size_t room)
{
    size_t length, head = read_head(fd, text, room, &length);

    while (length == head) {
        ssize_t n = recv(fd, text + length, room - 1 - length, 0);

        if (n <= 0)
            give_up("no answer");
        length += (size_t)n;
        text[length] = '\0';
    }
}

/* True if the answer is a good one. */
static bool read_answer(int fd)
{
    char text[1024];

    read_whole(fd, text, sizeof text);
    return strncmp(text, "HTTP/1.1 200", 12) == 0 && strstr(text, "\"code\":0,") != NULL;
}

static bool bind_client(const struct load *load, int fd, const char *id, const char *group)
{
    char body[256];

    snprintf(body, sizeof body, "{\"clientId\":\"%s\",\"groupName\":\"%s\"}", id, group);
    send_request(load, fd, "/api/bind_to_group", body);
    return read_answer(fd);
}

static size_t bind_clients(struct load *load, const char *group)
{
    int fd = connect_from(load, 0);
    size_t bound = 0;

    for (size_t i = 0; i < load->count; i++) {
        poll_sometimes(load);
        if (load->clients[i].fd >= 0)
            bound += bind_client(load, fd, load->clients[i].id, group);
    }
    close(fd);
    return bound;
}

/* One request on each of many connections at a time, three times over. */
static size_t request_on_many(struct load *load, size_t count)
{
    int *fds = malloc((count + 1) * sizeof *fds);
    size_t answers = 0;

    if (!fds)
        give_up("malloc");
    for (size_t i = 0; i < count; i++)
        fds[i] = connect_from(load, i);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++)
            send_request(load, fds[i], "/api/get_online_list", "{\"groupName\":\"nobody\"}");
        for (size_t i = 0; i < count; i++) {
            poll_sometimes(load);
            answers += read_answer(fds[i]);
        }
    }
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
    free(fds);
    return answers;
}

static int by_size(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

    return left < right ? -1 : left > right;
}

/* Returns the connection for requests that stays. */
static int api(struct load *load)
{
    if (load->api < 0)
        load->api = connect_from(load, 0);
    return load->api;
}

/* --- messages to a client that does not read -------------------------------------------------- */

/* Returns the fewest messages that a reading client has; *whole is how many clients have all
 * `sent`. */
static size_t slowest(const struct load *load, size_t sent, size_t *whole)
{
    size_t least = SIZE_MAX;

    *whole = 0;
    for (size_t i = 0; i < load->count; i++) {
        const struct client *client = &load->clients[i];

        if (client->stalled || client->fd < 0)
            continue;
        least = client->received < least ? client->received : least;
        *whole += client->received == sent;
    }
    return least;
}

/* Polls until every reading client is at most `behind` messages behind; false after TIMEOUT. */
static bool catch_up(struct load *load, size_t sent, size_t behind)
{
    int64_t end = now_us() + TIMEOUT * 1000;
    size_t whole;

    while (slowest(load, sent, &whole) + behind < sent) {
        if (now_us() > end)
            return false;
        poll_clients(load, 100);
    }
    return true;
}

/* Returns the number behind a name in an answer, or 0. */
static size_t number_in(const char *answer, const char *name)
{
    const char *at = strstr(answer, name);

    return at ? strtoul(at + strlen(name), NULL, 10) : 0;
}

/* Sends one message; returns how many members were too slow for it. */
static size_t send_numbered(struct load *load, const char *group, size_t number, int64_t *took)
{
    static char body[FRAME_MAX];
    char text[1024];
    int64_t begin = now_us();

    snprintf(body, sizeof body, "{\"groupName\":\"%s\",\"receipt\":true,\"code\":%zu%s", group,
             FLOOD_FROM + number, load->tail);
    send_request(load, api(load), "/api/send_to_group", body);
    read_whole(api(load), text, sizeof text);
    *took = now_us() - begin;
    if (strncmp(text, "HTTP/1.1 200", 12) != 0) {
        errno = EPROTO;
        give_up(text);
    }
    return number_in(text, "\"dropped\":");
}

/* How a message goes on behind its number, in the call as in the frame. */
static void make_tail(struct load *load, size_t size)
{
    static const char begin[] = ",\"msg\":\"flood\",\"data\":\"", end[] = "\",\"messageId\":\"f\"}";

    free(load->tail);
    load->tail_length = sizeof begin - 1 + size + sizeof end - 1;
    load->tail = malloc(load->tail_length + 1);
    if (!load->tail || size > FRAME_MAX - 1000)
        give_up("flood");
    snprintf(load->tail, sizeof begin, "%s", begin);
    memset(load->tail + sizeof begin - 1, 'x', size);
    snprintf(load->tail + sizeof begin - 1 + size, sizeof end, "%s", end);
    load->wrong = 0;
    for (size_t i = 0; i < load->count; i++)
        load->clients[i].received = 0;
}

/* The first stalled client reads to the end of its connection; returns it, or NULL. */
static const struct client *read_stalled(struct load *load)
{
    int64_t end = now_us() + TIMEOUT * 1000;

    for (size_t i = 0; i < load->count; i++) {
        struct client *client = &load->clients[i];

        if (!client->stalled)
            continue;
        client->stalled = false;
        while (client->fd >= 0 && now_us() < end)
            poll_clients(load, 100);
        return client;
    }
    return NULL;
}

static void flood(struct load *load, const char *argument)
{
    char group[64];
    size_t size, most, sent = 0, dropped = 0, whole;
    const struct client *heard = NULL;
    int64_t *took;

    if (sscanf(argument, "%63s %zu %zu", group, &size, &most) != 3 || most == 0)
        give_up("flood GROUP SIZE MOST");
    took = calloc(most, sizeof *took);
    if (!took)
        give_up("calloc");
    make_tail(load, size);
    while (sent < most && !dropped && catch_up(load, sent, WINDOW)) {
        dropped = send_numbered(load, group, sent, &took[sent]);
        sent++;
    }
    if (dropped)
        heard = read_stalled(load);
    catch_up(load, sent, 0);
    slowest(load, sent, &whole);
    qsort(took, sent, sizeof *took, by_size);
    printf("sent %zu median %lld longest %lld whole %zu wrong %zu last %zu kept %zu end %u %s\n",
           sent, (long long)took[sent / 2], (long long)took[sent - 1], whole, load->wrong, dropped,
           heard ? heard->received : 0, heard ? heard->end_code : 0, heard ? heard->end : "");
    free(took);
}

static void ping_server(struct load *load)
{
    size_t sent = 0;

    load->pongs = 0;
    for (size_t i = 0; i < load->count; i++)
        if (load->clients[i].fd >= 0 && !load->clients[i].stalled) {
            send_frame(load->clients[i].fd, 1, "ping", 4);
            sent++;
        }
    poll_until(load, &load->pongs, sent);
}

/* --- clients that vanish --------------------------------------------------------------------- */

/* No packet comes in any more, so that none is acknowledged either; elsewhere than on Linux it is
 * only not read. */
static void cut_off(int fd)
{
#ifdef __linux__
    struct sock_filter drop = {.code = BPF_RET | BPF_K, .k = 0};
    struct sock_fprog program = {.len = 1, .filter = &drop};

    if (setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) != 0)
        give_up("SO_ATTACH_FILTER");
#else
    (void)fd;
#endif
}

/* The last N clients vanish. */
static void vanish(struct load *load, size_t number)
{
    load->vanished_at = now_us();
    ping_server(load); /* the last that the server hears of them is no older than that */
    for (size_t i = 0; i < load->count; i++) {
        struct client *client = &load->clients[i];

        client->gone = i + number >= load->count;
        client->offline_count = 0;
        client->stalled = client->stalled || client->gone;
        if (client->gone)
            cut_off(client->fd);
    }
    load->offline_total = 0;
    load->first = load->last = 0;
}

/* Each client that stays must get one notice of each that vanished, and of no other. */
static void await_offline(struct load *load)
{
    size_t gone = 0, stay = 0, right = 0;

    for (size_t i = 0; i < load->count; i++) {
        gone += load->clients[i].gone;
        stay += !load->clients[i].stalled && load->clients[i].fd >= 0;
    }
    poll_until(load, &load->offline_total, gone * stay);
    poll_clients(load, 200); /* for one that is too many */
    for (size_t i = 0; i < load->count; i++)
        right += load->clients[i].offline_count == (load->clients[i].gone ? stay : 0);
    printf("told %zu of %zu right %zu first %lld last %lld\n", load->offline_total, gone * stay,
           right, (long long)(load->first - load->vanished_at) / 1000,
           (long long)(load->last - load->vanished_at) / 1000);
}

/* --- connections that send a byte now and then ----------------------------------------------- */

struct drip_kind {
    const char *name;
    bool client;         /* behind an upgrade */
    const char *opening; /* what it begins with, at once, */
    size_t opening_length;
    const char *drip; /* and what follows, now and then */
    size_t drip_length;
};

#define BYTES(text) (text), sizeof(text) - 1

static const struct drip_kind drip_kinds[] = {
    {"head", false, BYTES("GET / HTTP/1.1\r\nHost: x\r\nX: "), BYTES("a")},
    {"body", false, BYTES("POST /api/login HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\n"),
     BYTES("a")},
    {"chunk", false,
     BYTES("POST /api/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfff\r\n"),
     BYTES("a")},
    {"frame", true, BYTES("\x81\xfe\x1f\x40\0\0\0\0"), BYTES("a")}, /* of 8,000 bytes */
    {"pieces", true, BYTES("\x01\x81\0\0\0\0a"), BYTES("\0\x81\0\0\0\0a")},
};

#define KINDS (sizeof drip_kinds / sizeof drip_kinds[0])

struct dripper {
    int fd;
    const struct drip_kind *kind;
    int64_t begin, took; /* microseconds */
    bool ended, answered;
};

static void begin_drip(struct load *load, struct dripper *dripper, size_t number)
{
    dripper->kind = &drip_kinds[number % KINDS];
    dripper->begin = now_us(); /* no later than the server's, however slow this machine */
    dripper->fd = connect_from(load, number);
    if (dripper->kind->client) {
        struct client client = {.fd = dripper->fd};

        send_upgrade(client.fd, load->system);
        await_id(load, &client);
        keep(&client, NULL, 0);
    }
    send_all(dripper->fd, dripper->kind->opening, dripper->kind->opening_length);
}

/* Sends its byte, and looks whether it was ended. Returns true if it goes on. */
static bool send_drip(struct dripper *dripper)
{
    char text[1024];
    ssize_t n;

    if (dripper->ended)
        return false;
    if (send(dripper->fd, dripper->kind->drip, dripper->kind->drip_length, 0) < 0 &&
        errno != EPIPE && errno != ECONNRESET)
        give_up("send");
    n = recv(dripper->fd, text, sizeof text, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    dripper->answered = n >= 12 && memcmp(text, "HTTP/1.1 408", 12) == 0;
    dripper->ended = n <= 0 || dripper->answered;
    dripper->took = now_us() - dripper->begin;
    return !dripper->ended;
}

static void tell_kind(const struct dripper *drippers, size_t count, const struct drip_kind *kind)
{
    size_t ended = 0, answered = 0;
    int64_t first = INT64_MAX, last = 0;

    for (size_t i = 0; i < count; i++) {
        const struct dripper *dripper = &drippers[i];

        if (dripper->kind != kind || !dripper->ended)
            continue;
        ended++;
        answered += dripper->answered;
        first = dripper->took < first ? dripper->took : first;
        last = dripper->took > last ? dripper->took : last;
    }
    printf("%s ended %zu answered %zu first %lld last %lld ", kind->name, ended, answered,
           (long long)first / 1000, (long long)last / 1000);
}

static void drip(struct load *load, size_t number)
{
    size_t count = number * KINDS, going = count;
    struct dripper *drippers = calloc(count + 1, sizeof *drippers);
    int64_t end = now_us() + TIMEOUT * 1000;

    if (!drippers)
        give_up("calloc");
    for (size_t i = 0; i < count; i++)
        begin_drip(load, &drippers[i], i);
    while (going > 0 && now_us() < end) {
        going = 0;
        for (size_t i = 0; i < count; i++)
            going += send_drip(&drippers[i]);
        poll(NULL, 0, DRIP);
    }
    for (size_t i = 0; i < KINDS; i++)
        tell_kind(drippers, count, &drip_kinds[i]);
    printf("\n");
    for (size_t i = 0; i < count; i++)
        reset(drippers[i].fd);
    free(drippers);
}

/* --- connections that send nothing ----------------------------------------------------------- */

static void open_silent(struct load *load, size_t number)
{
    while (number-- > 0 && load->silent_count < SILENT_MAX) {
        load->silent[load->silent_count] = connect_from(load, load->silent_count);
        load->silent_count++;
    }
}

static void close_silent(struct load *load, size_t number)
{
    number = number < load->silent_count ? number : load->silent_count;
    for (size_t i = 0; i < number; i++)
        close(load->silent[i]);
    load->silent_count -= number;
    memmove(load->silent, load->silent + number, load->silent_count * sizeof load->silent[0]);
}

/* All send a request, then all read its answer: each closes behind it and makes room for others. */
static void speak(struct load *load)
{
    static const char request[] =
        "OPTIONS /api/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    struct pollfd polls[SILENT_MAX];
    size_t good = 0, refused = 0, left = load->silent_count;
    int64_t end = now_us() + TIMEOUT * 1000;

    for (size_t i = 0; i < left; i++) {
        send_all(load->silent[i], request, sizeof request - 1);
        polls[i] = (struct pollfd){load->silent[i], POLLIN, 0};
    }
    while (left > 0 && now_us() < end && poll(polls, (nfds_t)load->silent_count, 1000) >= 0)
        for (size_t i = 0; i < load->silent_count; i++) {
            char text[1024] = "";

            if (polls[i].fd < 0 || !polls[i].revents)
                continue;
            if (recv(polls[i].fd, text, sizeof text - 1, 0) > 0) {
                good += strncmp(text, "HTTP/1.1 200", 12) == 0;
                refused += strncmp(text, "HTTP/1.1 429", 12) == 0;
            }
            close(polls[i].fd);
            polls[i].fd = -1;
            left--;
        }
    for (size_t i = 0; i < load->silent_count; i++)
        if (polls[i].fd >= 0)
            close(polls[i].fd);
    load->silent_count = 0;
    printf("good %zu refused %zu\n", good, refused);
}

static void call(struct load *load, size_t number)
{
    int64_t longest = 0;
    size_t answers = 0;

    while (number-- > 0) {
        int64_t begin = now_us();

        send_request(load, api(load), "/api/get_online_list", "{\"groupName\":\"nobody\"}");
        answers += read_answer(api(load));
        longest = now_us() - begin > longest ? now_us() - begin : longest;
    }
    printf("answers %zu longest %lld\n", answers, (long long)longest);
}

/* --- connections that come and go ------------------------------------------------------------ */

enum brief_kind {
    BRIEF_ASK,         /* asks, reads the answer, closes */
    BRIEF_ASK_LAST,    /* asks, reads to the end */
    BRIEF_ASK_RESET,   /* asks, resets */
    BRIEF_SILENT,      /* closes */
    BRIEF_HALF_HEAD,   /* sends half a head, resets */
    BRIEF_UNKNOWN,     /* a client of no system, closes at once, reads to the end */
    BRIEF_LEAVE,       /* a client that is bound, closes */
    BRIEF_RESET,       /* a client that is bound, resets */
    BRIEF_CLOSE_FRAME, /* a client that is bound, sends a close frame, reads to the end */
    BRIEF_HALF_CLOSED, /* a client that is bound, closes its side, reads to the end */
    BRIEF_KINDS
};

struct brief {
    struct client client;
    enum brief_kind kind;
    char group[16];
};

static void begin_brief(struct load *load, struct brief *brief)
{
    static const char ask[] = "OPTIONS /api/login HTTP/1.1\r\nHost: x\r\n\r\n",
                      last[] = "OPTIONS / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    size_t number = load->briefs++;
    int fd = connect_from(load, number);

    *brief = (struct brief){.client = {.fd = fd}, .kind = number % BRIEF_KINDS};
    snprintf(brief->group, sizeof brief->group, "storm%zu", number / BRIEF_KINDS % 8);
    switch (brief->kind) {
    case BRIEF_ASK:
    case BRIEF_ASK_RESET:
        send_all(fd, ask, sizeof ask - 1);
        break;
    case BRIEF_ASK_LAST:
        send_all(fd, last, sizeof last - 1);
        break;
    case BRIEF_SILENT:
        break;
    case BRIEF_HALF_HEAD:
        send_all(fd, ask, sizeof ask / 2);
        break;
    case BRIEF_UNKNOWN:
        send_upgrade(fd, "unknown");
        send_frame(fd, 8, "", 0);
        break;
    default:
        send_upgrade(fd, load->system);
    }
}

/* Reads what comes until the server closes; true if it has begun with an answer. */
static bool read_to_end(int fd)
{
    char text[4096];
    ssize_t n = recv(fd, text, sizeof text, 0);
    bool answered = n >= 9 && memcmp(text, "HTTP/1.1 ", 9) == 0;

    while (n > 0)
        n = recv(fd, text, sizeof text, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        give_up("no end");
    return answered;
}

/* Reads its answer; true if there was one. Clients are bound. */
static bool read_brief(struct load *load, struct brief *brief, size_t *bound)
{
    if (brief->kind > BRIEF_UNKNOWN) {
        await_id(load, &brief->client);
        *bound += bind_client(load, api(load), brief->client.id, brief->group);
        return true;
    }
    if (brief->kind == BRIEF_ASK)
        return read_answer(brief->client.fd);
    if (brief->kind == BRIEF_ASK_LAST || brief->kind == BRIEF_UNKNOWN)
        return read_to_end(brief->client.fd);
    return false;
}

static void end_brief(struct brief *brief)
{
    int fd = brief->client.fd;

    keep(&brief->client, NULL, 0);
    if (brief->kind == BRIEF_CLOSE_FRAME)
        send_frame(fd, 8, "\x03\xe8", 2);
    if (brief->kind == BRIEF_HALF_CLOSED)
        shutdown(fd, SHUT_WR);
    if (brief->kind >= BRIEF_CLOSE_FRAME)
        read_to_end(fd);
    if (brief->kind == BRIEF_ASK_RESET || brief->kind == BRIEF_HALF_HEAD ||
        brief->kind == BRIEF_RESET)
        reset(fd);
    else
        close(fd);
}

static void storm(struct load *load, size_t number)
{
    static struct brief briefs[BRIEF_MAX];
    size_t answers = 0, bound = 0, total = 0;

    while (total < number) {
        size_t count = number - total < BRIEF_MAX ? number - total : BRIEF_MAX;

        for (size_t i = 0; i < count; i++)
            begin_brief(load, &briefs[i]);
        for (size_t i = 0; i < count; i++)
            answers += read_brief(load, &briefs[i], &bound);
        for (size_t i = 0; i < count; i++)
            end_brief(&briefs[i]);
        total += count;
    }
    printf("connections %zu answers %zu bound %zu\n", total, answers, bound);
}

/* --- commands -------------------------------------------------------------------------------- */

static void open_clients(struct load *load, size_t number)
{
    while (number-- > 0 && load->count < CLIENTS_MAX) {
        poll_sometimes(load);
        open_client(load, false);
    }
}

static void open_stalled(struct load *load, size_t number)
{
    while (number-- > 0 && load->count < CLIENTS_MAX) {
        open_client(load, true);
        load->clients[load->count - 1].stalled = true;
    }
}

static void drop_clients(struct load *load, size_t number)
{
    for (; number > 0 && load->count > 0; number--)
        if (load->clients[--load->count].fd >= 0)
            close_client(&load->clients[load->count]);
}

/* Commands for clients that misbehave; false if it is another command. */
static bool misbehave(struct load *load, const char *command, const char *argument)
{
    size_t number = strtoul(argument, NULL, 10);

    if (strcmp(command, "stall") == 0) {
        open_stalled(load, number);
        printf("open %zu\n", load->count);
    } else if (strcmp(command, "flood") == 0) {
        flood(load, argument);
    } else if (strcmp(command, "vanish") == 0) {
        vanish(load, number);
        printf("vanished %zu\n", number);
    } else if (strcmp(command, "offline") == 0) {
        await_offline(load);
    } else if (strcmp(command, "drip") == 0) {
        drip(load, number);
    } else if (strcmp(command, "silent") == 0) {
        open_silent(load, number);
        printf("silent %zu\n", load->silent_count);
    } else if (strcmp(command, "leave") == 0) {
        close_silent(load, number);
        printf("silent %zu\n", load->silent_count);
    } else if (strcmp(command, "speak") == 0) {
        speak(load);
    } else if (strcmp(command, "call") == 0) {
        call(load, number);
    } else if (strcmp(command, "storm") == 0) {
        storm(load, number);
    } else {
        return false;
    }
    return true;
}

/* Serves for some milliseconds, of which the pings are counted, or until so many have been closed.
 */
static void wait_for(struct load *load, int64_t milliseconds, size_t closed)
{
    int64_t begin = now_us(), end = begin + milliseconds * 1000;

    load->pings = 0;
    while (now_us() < end && load->closed < closed)
        poll_clients(load, 20);
    printf("closed %zu going_away %zu pings %zu took %lld\n", load->closed, load->going_away,
           load->pings, (long long)(now_us() - begin) / 1000);
}

static void obey(struct load *load, const char *command, const char *argument)
{
    size_t number = strtoul(argument, NULL, 10);

    if (misbehave(load, command, argument)) {
        /* it has answered */
    } else if (strcmp(command, "open") == 0) {
        open_clients(load, number);
        printf("open %zu\n", load->count);
    } else if (strcmp(command, "bind") == 0) {
        printf("bound %zu\n", bind_clients(load, argument));
    } else if (strcmp(command, "ping") == 0) {
        ping_server(load);
        printf("pongs %zu\n", load->pongs);
    } else if (strcmp(command, "frames") == 0) {
        poll_until(load, &load->frames, number);
        printf("frames %zu\n", load->frames);
    } else if (strcmp(command, "wait") == 0) {
        wait_for(load, (int64_t)number, SIZE_MAX);
    } else if (strcmp(command, "closed") == 0) {
        wait_for(load, TIMEOUT, number);
    } else if (strcmp(command, "drop") == 0) {
        drop_clients(load, number);
        printf("open %zu\n", load->count);
    } else if (strcmp(command, "requests") == 0) {
        printf("answers %zu\n", request_on_many(load, number));
    } else {
        printf("unknown command\n");
    }
    fflush(stdout);
}

/* Serves the clients, as a browser would, until there is a command. One comes at a time, so that
 * stdio keeps none back. */
static bool read_command(struct load *load, char *line, int room)
{
    struct pollfd command = {STDIN_FILENO, POLLIN, 0};

    while (poll(&command, 1, load->count ? 50 : -1) == 0)
        poll_clients(load, 0);
    return fgets(line, room, stdin) != NULL;
}

int main(int count, char **arguments)
{
    static struct load load = {.api = -1};
    struct rlimit limit;
    char line[256];

    if (count != 4) {
        fprintf(stderr, "usage: load_client PORT SYSTEM TOKEN\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGPIPE, SIG_IGN);
    load.port = (uint16_t)strtoul(arguments[1], NULL, 10);
    load.system = arguments[2];
    load.token = arguments[3];
    load.clients = calloc(CLIENTS_MAX, sizeof *load.clients);
    load.polls = calloc(CLIENTS_MAX, sizeof *load.polls);
    if (!load.clients || !load.polls)
        give_up("calloc");
    while (read_command(&load, line, sizeof line)) {
        char *argument = strchr(line, ' ');

        line[strcspn(line, "\n")] = '\0';
        if (argument)
            *argument++ = '\0';
        obey(&load, line, argument ? argument : "");
    }
    drop_clients(&load, load.count);
    close_silent(&load, load.silent_count);
    if (load.api >= 0)
        close(load.api);
    free(load.clients);
    free(load.polls);
    return 0;
}
