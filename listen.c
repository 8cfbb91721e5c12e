/* listen.c - the sockets that a server listens on. */
#include "listen.h"

#include "identity.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096

static int try_listen(const struct addrinfo *address)
{
    int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol), one = 1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0 &&
        fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        return fd;
    close(fd);
    return -1;
}

/* What helps when one cannot listen. */
static const char *remedy(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "stop what listens there, or choose another port";
    case EACCES:
        return "ports below 1024 need rights: choose one above, or start as root with [common] "
               "user set, or with CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return "give an address of this machine, or 0.0.0.0 for all";
    default:
        return "choose another address or port";
    }
}

/* Listens where `key` of the configuration says. */
static int open_at(const char *key, const char *host, uint64_t port_number)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list;
    char port[8];
    int error, fd = -1, code = 0;

    snprintf(port, sizeof port, "%u", (unsigned)port_number);
    error = getaddrinfo(host, port, &hints, &list);
    if (error)
        die("%s = %s: %s: give an address of this machine, or 0.0.0.0 for all", key, host,
            gai_strerror(error));
    for (const struct addrinfo *entry = list; entry && fd < 0; entry = entry->ai_next) {
        fd = try_listen(entry);
        code = errno;
    }
    freeaddrinfo(list);
    if (fd < 0)
        die("cannot listen on %s port %s (%s): %s: %s", host, port, key, strerror(code),
            remedy(code));
    return fd;
}

int listen_open(const struct config *config)
{
    return open_at("[common] host", config->host, config->port);
}

int listen_open_admin(const struct config *config)
{
    return config->admin_port ? open_at("[admin] listen", config->admin_host, config->admin_port)
                              : -1;
}

/* --- the cluster's port ---------------------------------------------------------------------- */

/* True for the addresses that RFC 1918 keeps for private networks. */
static bool is_private(const unsigned char address[4])
{
    return address[0] == 10 || (address[0] == 172 && address[1] >= 16 && address[1] < 32) ||
           (address[0] == 192 && address[1] == 168);
}

/* The address from which this machine would speak to `target`; nothing is sent to find out. */
static bool own_address(const char *target, unsigned char address[4])
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)}, own;
    socklen_t length = sizeof own;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    bool found;

    if (fd < 0 || !identity_read_address(str_from(target), address))
        return false;
    memcpy(&to.sin_addr, address, 4);
    found = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
            getsockname(fd, (struct sockaddr *)&own, &length) == 0;
    close(fd);
    if (found)
        memcpy(address, &own.sin_addr, 4);
    return found && is_private(address);
}

/* The address that the other nodes are told. */
static void find_advertised(const struct config *config, unsigned char address[4])
{
    static const char *const targets[] = {"10.255.255.254", "172.31.255.254", "192.168.255.254"};

    if (config->advertise[0]) {
        /* neither 0.0.0.0/8 nor what is not one machine's own */
        if (!identity_read_address(str_from(config->advertise), address) || address[0] == 0 ||
            address[0] >= 224)
            die("[cluster] advertise = %s: give an IPv4 address of this machine",
                config->advertise);
        return;
    }
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (own_address(targets[i], address))
            return;
    die("this machine has no private IPv4 address: set [cluster] advertise to the address at which "
        "the other nodes find it");
}

int listen_open_rpc(const struct config *config, unsigned char address[4])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)config->rpc_port)};
    struct addrinfo entry = {.ai_family = AF_INET,
                             .ai_socktype = SOCK_STREAM,
                             .ai_addr = (struct sockaddr *)&at,
                             .ai_addrlen = sizeof at};
    int fd;

    find_advertised(config, address);
    memcpy(&at.sin_addr, address, 4);
    fd = try_listen(&entry);
    if (fd < 0)
        die("cannot listen for other nodes on [cluster] advertise %u.%u.%u.%u, rpc_port %u: %s: %s",
            address[0], address[1], address[2], address[3], (unsigned)config->rpc_port,
            strerror(errno),
            errno == EADDRINUSE      ? "stop what listens there, or choose another rpc_port"
            : errno == EADDRNOTAVAIL ? "advertise must be an address of this machine"
                                     : "choose another advertise or rpc_port");
    return fd;
}
