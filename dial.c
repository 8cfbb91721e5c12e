/* dial.c - a TCP connection to a host, for a thread that may wait: look-up, then one
 * address after the other, each for DIAL_TIME. Every connection looks the name up again, since a
 * failover may have moved it. */
#include "dial.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void dial_set_options(int fd)
{
    int on = 1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
#ifdef SO_NOSIGPIPE
    setsockopt(fd, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof on);
#endif
}

/* Waits for a connect() under way; returns 0 or an errno. */
static int dial_await(int fd)
{
    struct pollfd polled = {fd, POLLOUT, 0};
    int error = 0, ready;
    socklen_t size = sizeof error;

    do
        ready = poll(&polled, 1, DIAL_TIME * 1000);
    while (ready < 0 && errno == EINTR);
    if (ready == 0)
        return ETIMEDOUT;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

/* A connected socket; or -1, with errno. */
static int dial_open(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    int error;

    if (fd < 0)
        return -1;
    dial_set_options(fd);
    error = connect(fd, address->ai_addr, address->ai_addrlen) == 0 ? 0 : errno;
    if (error == EINPROGRESS || error == EINTR)
        error = dial_await(fd);
    if (error == 0)
        return fd;
    close(fd);
    errno = error;
    return -1;
}

static const char *dial_explain(int error)
{
    switch (error) {
    case ECONNREFUSED:
        return "connection refused";
    case ETIMEDOUT:
        return "no answer within 2 s to the attempt to connect";
    default:
        return strerror(error);
    }
}

int dial_tcp(const char *host, unsigned port, const atomic_bool *stop, struct dial_result *result)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *list;
    char number[12];
    int fd = -1, status, error = 0;

    *result = (struct dial_result){0};
    snprintf(number, sizeof number, "%u", port);
    status = getaddrinfo(host, number, &hints, &list);
    if (status != 0) {
        result->unknown = true;
        result->error = status == EAI_NONAME ? "this host name is not known" : gai_strerror(status);
        return -1;
    }
    for (const struct addrinfo *address = list; address && fd < 0; address = address->ai_next) {
        if (atomic_load(stop))
            break;
        fd = dial_open(address);
        error = errno;
    }
    freeaddrinfo(list);
    if (fd < 0)
        result->error = dial_explain(error);
    return fd;
}
