/* tcp_proxy.c - a connection that can be held, cut or redirected, and a clock that can be put back.
 * Two things in one:
 *
 *   with -DDETOUR_LIBRARY -shared -fPIC   a library for LD_PRELOAD: connect() to 127.0.0.1 port
 *                                         FROM goes to port TO instead if DETOUR has FROM:TO in its
 *                                         list, with commas between; and if DETOUR_CLOCK names a
 *                                         file, CLOCK_MONOTONIC is behind by the milliseconds in it
 *                                         (int64_t), as after a pause of a virtual machine
 *   else                                  a program:
 *
 *   tcp_proxy LISTEN TARGET
 *
 * takes connections at 127.0.0.1 port LISTEN, makes one to port TARGET for each, and passes bytes
 * on. It reads commands from stdin, a line each, and answers each with its first word and with how
 * many connections there were:
 *   pass         passes bytes on, as from the start
 *   hold         passes nothing on: all that is sent waits, and so do new connections
 *   cut          resets all connections, and each new one
 *   to PORT      leads to another target, from the next connection on
 *   record FILE  what goes to the target is appended to FILE, from the next connection on
 *   count
 *
 * It exits with 0 at the end of its input. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAIRS_MAX 64

/* --- the library ----------------------------------------------------------------------------- */

#ifdef DETOUR_LIBRARY

long syscall(long number, ...); /* what is behind connect(); POSIX does not know it */

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    const char *at = getenv("DETOUR"), *to;
    struct sockaddr_in other;

    if (address->sa_family != AF_INET || length != sizeof other)
        at = NULL;
    else
        memcpy(&other, address, sizeof other);
    for (; at && (to = strchr(at, ':')); at = strchr(to, ',') ? strchr(to, ',') + 1 : NULL)
        if (other.sin_addr.s_addr == htonl(INADDR_LOOPBACK) &&
            ntohs(other.sin_port) == strtoul(at, NULL, 10)) {
            other.sin_port = htons((uint16_t)strtoul(to + 1, NULL, 10));
            return (int)syscall(SYS_connect, fd, &other, sizeof other);
        }
    return (int)syscall(SYS_connect, fd, address, length);
}

/* How far the clock is behind, shared with who changes it. Threads that look at the same time find
 * the same. */
static const volatile int64_t *find_shift(void)
{
    static const volatile int64_t none, *_Atomic found;
    const char *name = getenv("DETOUR_CLOCK");
    int fd;

    if (found)
        return found;
    fd = name ? open(name, O_RDONLY) : -1;
    if (fd >= 0) {
        void *map = mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, fd, 0);

        close(fd);
        found = map == MAP_FAILED ? &none : map;
    } else {
        found = &none;
    }
    return found;
}

int clock_gettime(clockid_t id, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, id, now);

    if (result == 0 && id == CLOCK_MONOTONIC) {
        int64_t shift = *find_shift();

        now->tv_sec -= shift / 1000;
        now->tv_nsec -= shift % 1000 * 1000000;
        if (now->tv_nsec < 0) {
            now->tv_nsec += 1000000000;
            now->tv_sec--;
        }
    }
    return result;
}

#else

/* --- the program ----------------------------------------------------------------------------- */

struct pair {
    int near, far;
    FILE *record;
};

struct proxy {
    struct pair pairs[PAIRS_MAX];
    size_t count;
    struct sockaddr_in target;
    int listener;
    bool holds, is_cut;
    char *record; /* the file's name, or NULL */
};

static void give_up(const char *what)
{
    fprintf(stderr, "tcp_proxy: %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in loopback(const char *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)strtoul(port, NULL, 10));
    return address;
}

/* Closes with a reset, as a machine does that knows nothing of the connection. */
static void reset(int fd)
{
    struct linger at_once = {1, 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

static void end_pair(struct proxy *proxy, size_t index)
{
    struct pair *pair = &proxy->pairs[index];

    reset(pair->near);
    reset(pair->far);
    if (pair->record)
        fclose(pair->record);
    *pair = proxy->pairs[--proxy->count];
}

static void take_connection(struct proxy *proxy)
{
    int near = accept(proxy->listener, NULL, NULL), far;

    if (near < 0)
        return;
    far = proxy->is_cut || proxy->count == PAIRS_MAX ? -1 : socket(AF_INET, SOCK_STREAM, 0);
    if (far < 0 || connect(far, (struct sockaddr *)&proxy->target, sizeof proxy->target) != 0) {
        reset(near);
        if (far >= 0)
            close(far);
        return;
    }
    proxy->pairs[proxy->count++] =
        (struct pair){near, far, proxy->record ? fopen(proxy->record, "ab") : NULL};
}

/* Passes on what has come; false at the end of the connection. */
static bool pass(int from, int to, FILE *record)
{
    char bytes[65536];
    ssize_t length = read(from, bytes, sizeof bytes), sent = 0, n;

    if (length <= 0)
        return false;
    if (record) {
        fwrite(bytes, 1, (size_t)length, record);
        fflush(record);
    }
    for (; sent < length; sent += n) {
        n = write(to, bytes + sent, (size_t)(length - sent));
        if (n < 0)
            return false;
    }
    return true;
}

static void obey(struct proxy *proxy, char *command)
{
    char *argument = strchr(command, ' ');

    command[strcspn(command, "\n")] = '\0';
    if (argument)
        *argument++ = '\0';
    if (argument && strcmp(command, "to") == 0) {
        proxy->target = loopback(argument);
    } else if (argument) {
        free(proxy->record);
        proxy->record = strdup(argument);
    }
    if (strcmp(command, "pass") == 0 || strcmp(command, "hold") == 0 ||
        strcmp(command, "cut") == 0) {
        proxy->holds = command[0] == 'h';
        proxy->is_cut = command[0] == 'c';
    }
    printf("%s %zu\n", command, proxy->count);
    fflush(stdout);
    while (proxy->is_cut && proxy->count)
        end_pair(proxy, 0);
}

/* One iteration: commands, new connections, bytes. False at the end of the input. */
static bool run_once(struct proxy *proxy)
{
    struct pollfd polls[2 + 2 * PAIRS_MAX];
    char command[5000];
    size_t count = proxy->holds ? 0 : proxy->count;

    polls[0] = (struct pollfd){STDIN_FILENO, POLLIN, 0};
    polls[1] = (struct pollfd){proxy->listener, proxy->holds ? 0 : POLLIN, 0};
    for (size_t i = 0; i < count; i++) {
        polls[2 + 2 * i] = (struct pollfd){proxy->pairs[i].near, POLLIN, 0};
        polls[3 + 2 * i] = (struct pollfd){proxy->pairs[i].far, POLLIN, 0};
    }
    if (poll(polls, 2 + 2 * (nfds_t)count, -1) < 0)
        give_up("poll");
    for (size_t i = count; i-- > 0;) { /* the last first: ending one moves the last one there */
        struct pair *pair = &proxy->pairs[i];

        if ((polls[2 + 2 * i].revents && !pass(pair->near, pair->far, pair->record)) ||
            (polls[3 + 2 * i].revents && !pass(pair->far, pair->near, NULL)))
            end_pair(proxy, i);
    }
    if (polls[1].revents)
        take_connection(proxy);
    if (polls[0].revents) {
        if (!fgets(command, sizeof command, stdin))
            return false;
        obey(proxy, command);
    }
    return true;
}

int main(int count, char **arguments)
{
    static struct proxy proxy;
    struct sockaddr_in here;
    int one = 1;

    if (count != 3) {
        fputs("usage: tcp_proxy LISTEN TARGET\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdin, NULL, _IONBF, 0); /* what poll() says must be all that there is */
    here = loopback(arguments[1]);
    proxy.target = loopback(arguments[2]);
    proxy.listener = socket(AF_INET, SOCK_STREAM, 0);
    if (proxy.listener < 0)
        give_up("socket");
    setsockopt(proxy.listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(proxy.listener, (struct sockaddr *)&here, sizeof here) != 0 ||
        listen(proxy.listener, 64) != 0)
        give_up("listen");
    while (run_once(&proxy))
        ;
    free(proxy.record);
    return 0;
}

#endif
