/* hold.c - holds many WebSocket clients for the tests and the bench, on 127.0.0.x.
 *
 *   hold PORT SYSTEM TOKEN
 *
 * reads commands from stdin, a line each, and answers each with a line:
 *   open N      opens N more clients                            open TOTAL
 *   bind GROUP  binds every client to a group                   bound N
 *   ping        every client sends "ping" and awaits "pong"     pongs N
 *   frames K    waits until K pushed frames have come in all    frames N
 *   wait MS     answers the server's pings for so long          closed N going_away M pings P
 *   drop N      resets N clients                                open TOTAL
 *   requests N  one request on each of N connections, thrice    answers M
 *   time N      N requests on one warm connection               median US p99 US
 *
 * Each wait is bounded. It exits with 0 at the end of its input. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
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
#define PATIENCE 20000  /* milliseconds for what is waited for */

struct client {
    int fd;
    char id[17];
    char kept[256]; /* the beginning of a frame that is not whole yet */
    size_t length;
};

struct holder {
    struct client *clients;
    struct pollfd *polls;
    size_t count;
    uint16_t port;
    const char *system, *token;
    size_t frames, pongs, pings, closed, going_away;
};

static int64_t now_us(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
}

static void give_up(const char *what)
{
    fprintf(stderr, "hold: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int dial(const struct holder *holder, size_t number)
{
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

    if (fd < 0)
        give_up("socket");
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + (uint32_t)(number / PER_SOURCE));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(holder->port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, (struct sockaddr *)&from, sizeof from) != 0 ||
        connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
        give_up("connect");
    return fd;
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

static void take_frame(struct holder *holder, struct client *client, unsigned opcode,
                       const char *payload, size_t length)
{
    static const char hello[] = "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"";

    if (opcode == 9) {
        holder->pings++;
        send_frame(client->fd, 10, payload, length);
    } else if (opcode == 8) {
        holder->going_away += length >= 2 && memcmp(payload, "\x03\xe9", 2) == 0;
        send_frame(client->fd, 8, payload, length);
    } else if (length == 4 && memcmp(payload, "pong", 4) == 0) {
        holder->pongs++;
    } else if (!client->id[0] && length >= sizeof hello + 15 &&
               memcmp(payload, hello, sizeof hello - 1) == 0) {
        memcpy(client->id, payload + sizeof hello - 1, 16);
    } else {
        holder->frames++;
    }
}

/* Takes the whole frames off what a client has; all of them are short here. */
static void take_frames(struct holder *holder, struct client *client)
{
    size_t at = 0;

    while (client->length - at >= 2) {
        size_t header = (client->kept[at + 1] & 127) == 126 ? 4 : 2;
        size_t length = (size_t)(unsigned char)client->kept[at + 1];

        if (header == 4 && client->length - at >= 4)
            length = (size_t)(unsigned char)client->kept[at + 2] << 8 |
                     (unsigned char)client->kept[at + 3];
        if (header + length > sizeof client->kept) {
            errno = EMSGSIZE;
            give_up("a pushed frame");
        }
        if (client->length - at < header + length)
            break;
        take_frame(holder, client, client->kept[at] & 15, client->kept + at + header, length);
        at += header + length;
    }
    memmove(client->kept, client->kept + at, client->length - at);
    client->length -= at;
}

static void read_client(struct holder *holder, struct client *client)
{
    ssize_t n = recv(client->fd, client->kept + client->length,
                     sizeof client->kept - client->length, MSG_DONTWAIT);

    if (n > 0) {
        client->length += (size_t)n;
        take_frames(holder, client);
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        close(client->fd);
        client->fd = -1;
        holder->closed++;
    }
}

/* Polls all clients once, for up to `timeout` milliseconds. */
static void serve(struct holder *holder, int timeout)
{
    for (size_t i = 0; i < holder->count; i++)
        holder->polls[i] = (struct pollfd){holder->clients[i].fd, POLLIN, 0};
    if (poll(holder->polls, (nfds_t)holder->count, timeout) <= 0)
        return;
    for (size_t i = 0; i < holder->count; i++)
        if (holder->polls[i].revents)
            read_client(holder, &holder->clients[i]);
}

/* Serves until a counter has reached a number, or patience ends. */
static void serve_until(struct holder *holder, const size_t *counter, size_t number)
{
    int64_t end = now_us() + PATIENCE * 1000;

    while (*counter < number && now_us() < end)
        serve(holder, 100);
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

static void open_client(struct holder *holder)
{
    struct client *client = &holder->clients[holder->count];
    char text[1024];
    size_t length, head;
    int n = snprintf(text, sizeof text,
                     "GET /ws?systemId=%s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                     "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
                     holder->system);

    *client = (struct client){.fd = dial(holder, holder->count)};
    holder->count++;
    send_all(client->fd, text, (size_t)n);
    head = read_head(client->fd, text, sizeof text, &length);
    if (length - head > sizeof client->kept || strncmp(text, "HTTP/1.1 101", 12) != 0) {
        errno = EPROTO;
        give_up(text);
    }
    memcpy(client->kept, text + head, length - head);
    client->length = length - head;
    take_frames(holder, client);
    while (!client->id[0] && client->fd >= 0) {
        struct pollfd wait = {client->fd, POLLIN, 0};

        if (poll(&wait, 1, PATIENCE) != 1)
            give_up("no first frame");
        read_client(holder, client);
    }
}

/* --- requests -------------------------------------------------------------------------------- */

static void send_request(const struct holder *holder, int fd, const char *path, const char *body)
{
    char text[1024];
    int n = snprintf(text, sizeof text,
                     "POST %s HTTP/1.1\r\nHost: 127.0.0.1\r\nToken: %s\r\n"
                     "Content-Length: %zu\r\n\r\n%s",
                     path, holder->token, strlen(body), body);

    send_all(fd, text, (size_t)n);
}

/* True if the answer is a good one; answers here come in one piece or their head comes first. */
static bool read_answer(int fd)
{
    char text[1024];
    size_t length, head = read_head(fd, text, sizeof text, &length);

    while (length == head) {
        ssize_t n = recv(fd, text + length, sizeof text - 1 - length, 0);

        if (n <= 0)
            give_up("no answer");
        length += (size_t)n;
        text[length] = '\0';
    }
    return strncmp(text, "HTTP/1.1 200", 12) == 0 && strstr(text, "\"code\":0,") != NULL;
}

static size_t bind_clients(const struct holder *holder, const char *group)
{
    int fd = dial(holder, 0);
    size_t bound = 0;

    for (size_t i = 0; i < holder->count; i++) {
        char body[256];

        if (holder->clients[i].fd < 0)
            continue;
        snprintf(body, sizeof body, "{\"clientId\":\"%s\",\"groupName\":\"%s\"}",
                 holder->clients[i].id, group);
        send_request(holder, fd, "/api/bind_to_group", body);
        bound += read_answer(fd);
    }
    close(fd);
    return bound;
}

/* One request on each of many connections at a time, three times over. */
static size_t request_on_many(const struct holder *holder, size_t count)
{
    int *fds = malloc((count + 1) * sizeof *fds);
    size_t answers = 0;

    if (!fds)
        give_up("malloc");
    for (size_t i = 0; i < count; i++)
        fds[i] = dial(holder, i);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < count; i++)
            send_request(holder, fds[i], "/api/get_online_list", "{\"groupName\":\"nobody\"}");
        for (size_t i = 0; i < count; i++)
            answers += read_answer(fds[i]);
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

static void time_requests(const struct holder *holder, size_t count)
{
    int64_t *took = malloc((count + 1) * sizeof *took);
    int fd = dial(holder, 0);

    if (!took || count == 0)
        give_up("malloc");
    for (size_t i = 0; i < count + 100; i++) {
        int64_t begin = now_us();

        send_request(holder, fd, "/api/get_online_list", "{\"groupName\":\"nobody\"}");
        if (!read_answer(fd))
            give_up("a bad answer");
        if (i >= 100) /* the first ones warm the connection up */
            took[i - 100] = now_us() - begin;
    }
    qsort(took, count, sizeof *took, by_size);
    printf("median %lld p99 %lld\n", (long long)took[count / 2], (long long)took[count * 99 / 100]);
    free(took);
    close(fd);
}

/* --- commands -------------------------------------------------------------------------------- */

static void open_clients(struct holder *holder, size_t number)
{
    while (number-- > 0 && holder->count < CLIENTS_MAX)
        open_client(holder);
}

/* Resets clients, so that no port is left waiting. */
static void drop_clients(struct holder *holder, size_t number)
{
    struct linger reset = {1, 0};

    for (; number > 0 && holder->count > 0; number--) {
        int fd = holder->clients[--holder->count].fd;

        if (fd < 0)
            continue;
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
        close(fd);
    }
}

static void ping_server(struct holder *holder)
{
    size_t sent = 0;

    holder->pongs = 0;
    for (size_t i = 0; i < holder->count; i++)
        if (holder->clients[i].fd >= 0) {
            send_frame(holder->clients[i].fd, 1, "ping", 4);
            sent++;
        }
    serve_until(holder, &holder->pongs, sent);
}

static void obey(struct holder *holder, const char *command, const char *argument)
{
    size_t number = strtoul(argument, NULL, 10);
    int64_t end;

    if (strcmp(command, "open") == 0) {
        open_clients(holder, number);
        printf("open %zu\n", holder->count);
    } else if (strcmp(command, "bind") == 0) {
        printf("bound %zu\n", bind_clients(holder, argument));
    } else if (strcmp(command, "ping") == 0) {
        ping_server(holder);
        printf("pongs %zu\n", holder->pongs);
    } else if (strcmp(command, "frames") == 0) {
        serve_until(holder, &holder->frames, number);
        printf("frames %zu\n", holder->frames);
    } else if (strcmp(command, "wait") == 0) {
        for (end = now_us() + (int64_t)number * 1000; now_us() < end;)
            serve(holder, 20);
        printf("closed %zu going_away %zu pings %zu\n", holder->closed, holder->going_away,
               holder->pings);
    } else if (strcmp(command, "drop") == 0) {
        drop_clients(holder, number);
        printf("open %zu\n", holder->count);
    } else if (strcmp(command, "requests") == 0) {
        printf("answers %zu\n", request_on_many(holder, number));
    } else if (strcmp(command, "time") == 0) {
        time_requests(holder, number);
    } else {
        printf("unknown command\n");
    }
    fflush(stdout);
}

int main(int count, char **arguments)
{
    struct holder holder = {0};
    struct rlimit limit;
    char line[256];

    if (count != 4) {
        fprintf(stderr, "usage: hold PORT SYSTEM TOKEN\n");
        return 2;
    }
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    holder.port = (uint16_t)strtoul(arguments[1], NULL, 10);
    holder.system = arguments[2];
    holder.token = arguments[3];
    holder.clients = calloc(CLIENTS_MAX, sizeof *holder.clients);
    holder.polls = calloc(CLIENTS_MAX, sizeof *holder.polls);
    if (!holder.clients || !holder.polls)
        give_up("calloc");
    while (fgets(line, sizeof line, stdin)) {
        char *argument = strchr(line, ' ');

        line[strcspn(line, "\n")] = '\0';
        if (argument)
            *argument++ = '\0';
        obey(&holder, line, argument ? argument : "");
    }
    drop_clients(&holder, holder.count);
    free(holder.clients);
    free(holder.polls);
    return 0;
}
