/* cluster_listen.c - where a node of a cluster listens for the others, and what it tells them.
 *
 * [cluster] advertise is the host under which the others find this node: an address, a name, or by
 * default this machine's private IPv4 address, found by asking the kernel which address it would
 * send from. Where the node listens may differ (rpc_listen): a proxy or a container's network may
 * stand between. A name is not looked up: it may stand for another address here (127.0.1.1) than
 * elsewhere, so the node listens at all addresses of this machine. */
#include "cluster_listen.h"

#include "cluster_tls.h"
#include "log.h"
#include "redis.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define RPC_PORT_ABOVE 1000 /* the clients' port: the default of rpc_port */

bool cluster_check_config(struct config *config, char *error, size_t room)
{
    if (!config->rpc_port)
        config->rpc_port = config->port + RPC_PORT_ABOVE;
    if (!config->crypto_key[0])
        snprintf(error, room,
                 "[common] cluster = true needs crypto_key: the same 16 bytes on every node");
    else if (config->rpc_port > 65535)
        snprintf(error, room, "[common] port + %d is not a port: set [cluster] rpc_port",
                 RPC_PORT_ABOVE);
    else if ((config->rpc_listen_port ? config->rpc_listen_port : config->rpc_port) == config->port)
        snprintf(error, room, "[cluster] rpc_port must not be [common] port");
    else
        return redis_check_config(config, error, room) && cluster_tls_check(config, error, room);
    return false;
}

/* True for the addresses that RFC 1918 keeps for private networks. */
static bool cluster_is_private(const unsigned char address[4])
{
    return address[0] == 10 || (address[0] == 172 && address[1] >= 16 && address[1] < 32) ||
           (address[0] == 192 && address[1] == 168);
}

/* Finds the private address from which this machine would send to `target`; nothing is sent. */
static bool cluster_source_address(const char *target, char *host, size_t room)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)}, own;
    socklen_t length = sizeof own;
    unsigned char address[4];
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    bool found;

    if (fd < 0)
        return false;
    inet_pton(AF_INET, target, &to.sin_addr);
    found = connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
            getsockname(fd, (struct sockaddr *)&own, &length) == 0;
    close(fd);
    if (!found)
        return false;
    memcpy(address, &own.sin_addr, sizeof address);
    return cluster_is_private(address) &&
           inet_ntop(AF_INET, &own.sin_addr, host, (socklen_t)room) != NULL;
}

/* Writes the host that is advertised, in its one spelling. True for an address. */
static bool cluster_find_host(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1])
{
    static const char *const targets[] = {"10.255.255.254", "172.31.255.254", "192.168.255.254"};
    static const int families[] = {AF_INET, AF_INET6};
    const size_t room = CONFIG_ADVERTISE_MAX + 1;
    unsigned char address[16];

    for (size_t i = 0; i < sizeof families / sizeof families[0]; i++)
        if (inet_pton(families[i], config->advertise, address) == 1)
            return inet_ntop(families[i], address, host, (socklen_t)room) != NULL;
    snprintf(host, room, "%s", config->advertise);
    for (char *at = host; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    if (host[0])
        return false;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (cluster_source_address(targets[i], host, room))
            return true;
    die("this machine has no private IPv4 address: set [cluster] advertise to the address or "
        "the name at which the other nodes find it");
}

/* All addresses of this machine: of IPv6 and IPv4, if one socket can listen on both. */
static const char *cluster_any_host(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0), zero = 0;
    bool both = fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero) == 0;

    if (fd >= 0)
        close(fd);
    return both ? "::" : "0.0.0.0";
}

int cluster_listen(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1],
                   enum listener_purpose purpose)
{
    uint64_t port = config->rpc_listen_port ? config->rpc_listen_port : config->rpc_port;
    bool is_address = cluster_find_host(config, host);

    if (config->rpc_listen_host[0])
        return listener_bind("[cluster] rpc_listen", config->rpc_listen_host, port, NULL, purpose);
    return listener_bind(
        "[cluster] advertise", is_address ? host : cluster_any_host(), port,
        "advertise must be an address of this machine, or set [cluster] rpc_listen to one at "
        "which what is sent there arrives",
        purpose);
}
