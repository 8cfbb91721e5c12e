/* wire.h - what the conformance tests share: a client of a server on 127.0.0.1 that sends bytes in
 * pieces of a size, and takes what comes back until the server ends the connection. It knows
 * nothing of the product's protocols but how a head is cut into lines, so an error there is not
 * mirrored here. It waits no longer than WIRE_PATIENCE, and less once it has waited in vain. */
#ifndef WSPUSH_TEST_WIRE_H
#define WSPUSH_TEST_WIRE_H

#include "buf.h"

#include "test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WIRE_PATIENCE 20000  /* milliseconds for one connection */
#define WIRE_IMPATIENCE 1000 /* for each that follows one where they were not enough */
#define WIRE_SHORT 2048      /* up to so many bytes, small pieces have time to arrive one by one */

enum wire_end {
    WIRE_ENDED,  /* the server has closed its side: all that it sent is there */
    WIRE_RESET,  /* the connection broke, and with it perhaps what was on its way */
    WIRE_SILENT, /* the server neither said enough nor ended it */
    WIRE_REFUSED /* there was no connection */
};

static const char *const wire_ends[] = {"ended", "reset", "silent", "refused"};

static inline int64_t wire_now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static inline int wire_connect(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0 &&
        fcntl(fd, F_SETFL, O_NONBLOCK) == 0 &&
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Takes what is there; false when there will be no more. */
static inline bool wire_receive(int fd, struct buf *in, enum wire_end *end)
{
    ssize_t n;

    if (!buf_reserve(in, 65536))
        abort();
    n = recv(fd, in->at + in->length, 65536, 0);
    if (n > 0)
        in->length += (size_t)n;
    if (n > 0 || (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
        return true;
    *end = n == 0 ? WIRE_ENDED : WIRE_RESET;
    return false;
}

static inline void wire_pause(void)
{
    struct timespec moment = {.tv_nsec = 20000};

    nanosleep(&moment, NULL);
}

/* Sends `out` in pieces of `size` bytes and takes what comes, until the server's end. */
static inline enum wire_end wire_exchange(int fd, struct str out, size_t size, struct buf *in)
{
    bool slowly = out.length <= WIRE_SHORT && size < out.length;
    static int64_t patience = WIRE_PATIENCE;
    int64_t deadline = wire_now() + patience, left;
    enum wire_end end = WIRE_SILENT;

    while ((left = deadline - wire_now()) > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};

        if (out.length)
            ready.events = POLLIN | POLLOUT;
        if (poll(&ready, 1, (int)left) <= 0)
            continue;
        if ((ready.revents & ~POLLOUT) && !wire_receive(fd, in, &end))
            return end;
        if (ready.revents & POLLOUT) {
            ssize_t n = send(fd, out.at, out.length < size ? out.length : size, MSG_NOSIGNAL);

            if (n > 0)
                out = (struct str){out.at + n, out.length - (size_t)n};
            else if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
                out.length = 0; /* how it ended is seen by reading */
            if (slowly)
                wire_pause();
        }
    }
    patience = WIRE_IMPATIENCE;
    return WIRE_SILENT;
}

/* Sends all of `out` and reads nothing meanwhile. False if the server does not take it: it must not
 * have closed its socket, or the bytes that meet nobody would reset the connection. */
static inline bool wire_send(int fd, struct str out)
{
    int64_t deadline = wire_now() + WIRE_PATIENCE;

    while (out.length && wire_now() < deadline) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        ssize_t n = 0;

        if (poll(&ready, 1, 100) == 1)
            n = send(fd, out.at, out.length, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
            return false;
        if (n > 0)
            out = (struct str){out.at + n, out.length - (size_t)n};
    }
    return out.length == 0;
}

/* The same as wire_exchange on a connection of its own. */
static inline enum wire_end wire_talk(uint16_t port, struct str out, size_t size, struct buf *in)
{
    int fd = wire_connect(port);
    enum wire_end end;

    if (fd < 0)
        return WIRE_REFUSED;
    end = wire_exchange(fd, out, size, in);
    close(fd);
    return end;
}

/* How the bytes of a test are sent. */
static const struct wire_manner {
    const char *name;
    size_t size;
} wire_manners[] = {{"whole", SIZE_MAX}, {"in sevens", 7}, {"byte by byte", 1}};

static inline void wire_show(const char *what, struct str text)
{
    printf("     %s: ", what);
    for (size_t i = 0; i < text.length && i < 400; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c >= 0x20 && c < 0x7f)
            putchar(c);
        else
            printf(c == '\n' ? "|" : "\\x%02x", c);
    }
    printf(text.length > 400 ? "... (%zu bytes)\n" : "\n", text.length);
}

/* Counts one test and says how it went. */
static inline void wire_report(const char *subject, const char *title, bool good)
{
    if (good)
        test_passed++;
    else
        test_failed++;
    printf("%s %s %s\n", good ? "ok  " : "FAIL", subject, title);
    fflush(stdout);
}

/* Cuts the next line off, without its CRLF; false if there is none. */
static inline bool wire_line(struct str *rest, struct str *line)
{
    for (size_t i = 0; i + 1 < rest->length; i++)
        if (rest->at[i] == '\r' && rest->at[i + 1] == '\n') {
            *line = (struct str){rest->at, i};
            *rest = (struct str){rest->at + i + 2, rest->length - i - 2};
            return true;
        }
    return false;
}

/* Cuts an answer's head off, empty line included; false if it is not whole. */
static inline bool wire_head(struct str *rest, struct str *head)
{
    struct str at = *rest, line;

    while (wire_line(&at, &line))
        if (line.length == 0) {
            *head = (struct str){rest->at, (size_t)(at.at - rest->at)};
            *rest = at;
            return true;
        }
    return false;
}

/* How many fields of this name a head has; *value is the last one's. */
static inline size_t wire_field(struct str head, const char *name, struct str *value)
{
    struct str line;
    size_t count = 0;

    while (wire_line(&head, &line) && line.length) {
        struct str rest = line;

        if (!str_equal_nocase(str_cut(&rest, ':'), str_from(name)))
            continue;
        *value = str_trim(rest);
        count++;
    }
    return count;
}

/* True if a head has one field of this name, and it is `wanted`, in letters of any case. */
static inline bool wire_field_is(struct str head, const char *name, const char *wanted)
{
    struct str value = {0};

    return wire_field(head, name, &value) == 1 && str_equal_nocase(value, str_from(wanted));
}

/* The status of an answer, 0 if it has none. */
static inline unsigned wire_status(struct str head)
{
    uint64_t status = 0;

    if (head.length > 13 && memcmp(head.at, "HTTP/1.1 ", 9) == 0 && head.at[12] == ' ')
        str_number((struct str){head.at + 9, 3}, 599, &status);
    return (unsigned)status;
}

#endif
