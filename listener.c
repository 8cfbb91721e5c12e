/* listener.c - the sockets that accept connections, and the limits of connections.
 *
 * Start: opens sockets by TCP or at a path, or ends the process with a message that names the key
 * and the remedy. Ports below 1024 need root's privileges, which are given up after that; a path
 * is opened behind that, for it must be removable.
 *
 * Accepting: a connection beyond a limit is accepted all the same and marked, so that the loop can
 * answer it. When descriptors or memory run out, accepting pauses; the kernel's queue keeps who
 * waits.
 *
 * Counting: a table of tallies by address (all of IPv4, 64 bits of IPv6), kept only while
 * max_per_ip is set. A trusted proxy's connections are not counted; the session counts the client
 * that X-Forwarded-For names.
 *
 * Invariant: a tally exists only with one connection or more; without memory for a tally the
 * connection is let in uncounted, and uncounting it does nothing. One thread, the loop's. */
#include "listener.h"

#include "conn.h"
#include "host.h"
#include "os.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096
#define LOG_PAUSE 60000 /* milliseconds between two lines about rejected connections */

/* --- start: TCP ------------------------------------------------------------------------------ */

static int listener_try(const struct addrinfo *address, enum listener_purpose purpose)
{
    int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    int one = 1, zero = 0;

    if (fd < 0)
        return -1;
    if (address->ai_family == AF_INET6) /* :: is all addresses, also where it is not by default */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 &&
        (purpose == LISTENER_TEST || listen(fd, BACKLOG) == 0) &&
        fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        return fd;
    close(fd);
    return -1;
}

/* `unavailable`: the remedy where the address is not one of this machine. */
static const char *listener_remedy(int error, const char *unavailable)
{
    switch (error) {
    case EADDRINUSE:
        return "stop what listens there, or choose another port";
    case EACCES:
        return "ports below 1024 need privileges: choose a higher one, or start as root with [common] "
               "user set, or with CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return unavailable ? unavailable : "give an address of this machine, or 0.0.0.0 for all";
    default:
        return "choose another address or port";
    }
}

int listener_bind(const char *key, const char *host, uint64_t port, const char *remedy,
                  enum listener_purpose purpose)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list;
    char service[8];
    int error, fd = -1, code = 0;

    snprintf(service, sizeof service, "%u", (unsigned)port);
    error = getaddrinfo(host, service, &hints, &list);
    if (error)
        die("%s = %s: %s: give an address of this machine, or 0.0.0.0 for all", key, host,
            gai_strerror(error));
    for (const struct addrinfo *entry = list; entry && fd < 0; entry = entry->ai_next) {
        fd = listener_try(entry, purpose);
        code = errno;
    }
    freeaddrinfo(list);
    if (fd < 0 && (purpose == LISTENER_SERVE || code != EADDRINUSE))
        die("cannot listen on %s port %s (%s): %s: %s", host, service, key, strerror(code),
            listener_remedy(code, remedy));
    return fd;
}

static bool listener_is_wildcard(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

bool listener_overlaps(const char *host, const char *other)
{
    return listener_is_wildcard(host) || listener_is_wildcard(other) || strcmp(host, other) == 0;
}

/* --- start: host = unix:PATH ----------------------------------------------------------------- */

const char *listener_path(const struct config *config)
{
    return strncmp(config->host, "unix:", 5) == 0 ? config->host + 5 : NULL;
}

/* True if a server listens there; a socket that refuses connections was left behind. */
static bool listener_is_taken(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool taken;

    if (fd < 0)
        die("socket: %s", strerror(errno));
    fcntl(fd, F_SETFL, O_NONBLOCK); /* a full queue is a server's, and not waited for */
    taken = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
            (errno != ECONNREFUSED && errno != ENOENT);
    close(fd);
    return taken;
}

/* Checks the path, and what is there now. True if that is a socket. */
static bool listener_check_path(const char *path, struct sockaddr_un *address)
{
    struct stat status;

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path)
        die("[common] host = unix:%s: such a path may have at most %zu bytes: choose a shorter one",
            path, sizeof address->sun_path - 1);
    memcpy(address->sun_path, path, strlen(path));
    if (lstat(path, &status) != 0)
        return false;
    if (!S_ISSOCK(status.st_mode))
        die("[common] host = unix:%s: there is a file that is not a socket: remove it, or choose "
            "another path",
            path);
    return true;
}

_Noreturn static void listener_reject_path(const char *path, int error)
{
    die("cannot listen on unix:%s ([common] host): %s: %s", path, strerror(error),
        error == EADDRINUSE ? "stop what listens there, or choose another path"
                            : "choose a path in a directory where [common] user may write");
}

int listener_open_path(const struct config *config, enum listener_purpose purpose,
                       struct listener_file *file)
{
    const char *path = listener_path(config);
    struct sockaddr_un address;
    struct addrinfo entry = {.ai_family = AF_UNIX,
                             .ai_socktype = SOCK_STREAM,
                             .ai_addr = (struct sockaddr *)&address,
                             .ai_addrlen = sizeof address};
    struct stat status;
    bool exists = listener_check_path(path, &address);
    int fd, error;

    if (purpose == LISTENER_TEST) {
        error = os_check_create(path);
        if (error)
            listener_reject_path(path, error);
        return -1;
    }
    if (exists && listener_is_taken(&address))
        listener_reject_path(path, EADDRINUSE);
    if (exists)
        unlink(path);
    fd = listener_try(&entry, LISTENER_SERVE);
    if (fd < 0 || chmod(path, 0666) != 0 || stat(path, &status) != 0)
        listener_reject_path(path, errno);
    *file = (struct listener_file){.device = status.st_dev, .inode = status.st_ino};
    return fd;
}

void listener_remove_path(const struct config *config, const struct listener_file *file)
{
    const char *path = listener_path(config);
    struct stat status;

    if (stat(path, &status) == 0 && status.st_dev == file->device && status.st_ino == file->inode)
        unlink(path);
}

/* --- trusted proxies ------------------------------------------------------------------------- */

/* An entry of the list and its separator have two bytes at least. */
bool listener_open(struct listener *listener)
{
    struct str rest = str_from(listener->config->trusted_proxies);
    struct listener_network network;

    listener->proxies = malloc((1 + rest.length / 2) * sizeof *listener->proxies);
    if (!listener->proxies)
        return false;
    while (host_next_network(&rest, network.address, &network.bits))
        listener->proxies[listener->proxy_count++] = network;
    return true;
}

static bool listener_is_within(const struct listener_network *network,
                               const unsigned char address[16])
{
    unsigned bytes = network->bits / 8, left = 8 - network->bits % 8;

    return memcmp(network->address, address, bytes) == 0 &&
           (bytes == 16 || network->address[bytes] >> left == address[bytes] >> left);
}

bool listener_trusts(const struct listener *listener, const unsigned char address[16])
{
    static const unsigned char none[16];

    if (memcmp(address, none, sizeof none) == 0)
        return true;
    for (size_t i = 0; i < listener->proxy_count; i++)
        if (listener_is_within(&listener->proxies[i], address))
            return true;
    return false;
}

/* --- X-Forwarded-For ------------------------------------------------------------------------- */

/* Reads an address, with or without a port: 192.0.2.1:80, [2001:db8::1]:80, 2001:db8::1. */
static bool listener_parse(struct str entry, unsigned char address[16])
{
    struct str host;
    uint64_t port;
    unsigned bits;

    return !memchr(entry.at, '/', entry.length) && host_split(entry, &host, &port) &&
           host_next_network(&host, address, &bits) && host.length == 0;
}

/* Cuts the last entry off a list; separators alone are none. */
static struct str listener_cut_last(struct str *list)
{
    size_t begin = list->length;
    struct str entry;

    while (begin && list->at[begin - 1] != ',')
        begin--;
    entry = (struct str){list->at + begin, list->length - begin};
    list->length = begin ? begin - 1 : 0;
    return str_trim(entry);
}

void listener_find_client(const struct listener *listener, const struct http_request *request,
                          unsigned char address[16])
{
    unsigned char found[16];

    for (size_t i = request->header_count; i-- > 0;) {
        struct str list = request->headers[i].value;

        if (!str_equal_nocase(request->headers[i].name, STR("X-Forwarded-For")))
            continue;
        while (list.length) {
            struct str entry = listener_cut_last(&list);

            if (!entry.length)
                continue;
            if (!listener_trusts(listener, address) || !listener_parse(entry, found))
                return;
            memcpy(address, found, sizeof found);
        }
    }
}

/* --- connections of one address -------------------------------------------------------------- */

struct listener_tally {
    unsigned char address[16];
    uint64_t connections;
};

static uint32_t listener_hash(const struct listener *listener, const unsigned char address[16])
{
    return str_hash(conn_owner(address), listener->seed);
}

static struct listener_tally *listener_find_tally(const struct listener *listener,
                                                  const unsigned char address[16])
{
    struct table_cursor cursor = {.hash = listener_hash(listener, address)};
    struct listener_tally *tally;

    while ((tally = table_next(&listener->tallies, &cursor)))
        if (str_equal(conn_owner(tally->address), conn_owner(address)))
            return tally;
    return NULL;
}

bool listener_count(struct listener *listener, const unsigned char address[16])
{
    struct listener_tally *tally;

    if (!listener->config->max_per_ip)
        return true;
    tally = listener_find_tally(listener, address);
    if (!tally) {
        tally = calloc(1, sizeof *tally);
        if (tally)
            memcpy(tally->address, address, 16);
        if (!tally || !table_add(&listener->tallies, listener_hash(listener, address), tally)) {
            free(tally);
            return true;
        }
    }
    return ++tally->connections <= listener->config->max_per_ip;
}

void listener_uncount(struct listener *listener, const unsigned char address[16])
{
    struct listener_tally *tally = listener_find_tally(listener, address);

    if (!tally || --tally->connections)
        return;
    table_remove(&listener->tallies, listener_hash(listener, address), tally);
    free(tally);
}

void listener_forget(struct listener *listener)
{
    struct listener_tally *tally;
    size_t place = 0;

    while ((tally = table_walk(&listener->tallies, &place)))
        free(tally);
    table_free(&listener->tallies);
}

/* --- accepting ------------------------------------------------------------------------------- */

void listener_stop(struct listener *listener)
{
    if (listener->clients >= 0)
        close(listener->clients);
    listener->clients = -1;
}

void listener_close(struct listener *listener)
{
    listener_stop(listener);
    if (listener->admin >= 0)
        close(listener->admin);
    listener->admin = -1;
    listener_forget(listener);
    free(listener->proxies);
    listener->proxies = NULL;
    listener->proxy_count = 0;
}

bool listener_is_paused(const struct listener *listener, int64_t now)
{
    return now < listener->accept_after;
}

void listener_pause(struct listener *listener, int error, size_t open, int64_t now)
{
    struct log_field fields[] = {{.name = "error", .text = str_from(strerror(error))},
                                 {.name = "connections", .number = (int64_t)open},
                                 {0}};

    listener->accept_after = now + LISTENER_PAUSE;
    if (!listener->exhausted)
        log_write(listener->log, LOG_WARN, "no more connections can be accepted for now", fields);
    listener->exhausted = true;
}

/* A flood of rejected connections makes a line now and then. */
static void listener_log_limit(struct listener *listener, size_t open, int64_t now)
{
    struct log_field fields[] = {
        {.name = "connections", .number = (int64_t)open},
        {.name = "max_connections", .number = (int64_t)listener->max_connections},
        {.name = "max_per_ip", .number = (int64_t)listener->config->max_per_ip},
        {0}};

    if (now < listener->log_after)
        return;
    listener->log_after = now + LOG_PAUSE;
    log_write(listener->log, LOG_WARN,
              "connections are rejected: max_connections or max_per_ip is reached", fields);
}

static void listener_check_limits(struct listener *listener, size_t open, int64_t now,
                                  struct listener_connection *connection)
{
    connection->by_proxy = listener_trusts(listener, connection->address);
    connection->over_limit =
        (!connection->by_proxy && !listener_count(listener, connection->address)) ||
        open >= listener->max_connections;
    if (connection->over_limit)
        listener_log_limit(listener, open, now);
}

bool listener_accept(struct listener *listener, int socket, size_t open, int64_t now,
                     struct listener_connection *connection)
{
    struct sockaddr_storage from = {0};
    socklen_t length = sizeof from;
    int fd, one = 1;

    if (socket < 0 || listener_is_paused(listener, now))
        return false;
    do /* of those that were reset in the queue, which is finite */
        fd = accept(socket, (struct sockaddr *)&from, &length);
    while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
    if (fd < 0) {
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            listener_pause(listener, errno, open, now);
        return false;
    }
    listener->exhausted = false;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    *connection = (struct listener_connection){.fd = fd};
    conn_store_address(connection->address, &from);
    if (socket == listener->clients)
        listener_check_limits(listener, open, now, connection);
    return true;
}
