/* listen.c - the sockets that a server listens on. */
#include "listen.h"

#include "file.h"
#include "log.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 4096

/* A test binds, for that is what fails, and does not listen: nobody must connect to it. */
enum purpose { TO_LISTEN, TO_TEST };

static int try_listen(const struct addrinfo *address, enum purpose purpose)
{
    int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
    int one = 1, zero = 0;

    if (fd < 0)
        return -1;
    if (address->ai_family == AF_INET6) /* :: is all addresses, also where it is not by default */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 &&
        (purpose == TO_TEST || listen(fd, BACKLOG) == 0) && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
        return fd;
    close(fd);
    return -1;
}

/* What helps when one cannot listen. */
static const char *remedy(const char *key, int error)
{
    bool advertised = strcmp(key, "[cluster] advertise") == 0;

    switch (error) {
    case EADDRINUSE:
        return "stop what listens there, or choose another port";
    case EACCES:
        return "ports below 1024 need rights: choose one above, or start as root with [common] "
               "user set, or with CAP_NET_BIND_SERVICE";
    case EADDRNOTAVAIL:
        return advertised ? "advertise must be an address of this machine, or set [cluster] "
                            "rpc_listen to one at which what is sent there arrives"
                          : "give an address of this machine, or 0.0.0.0 for all";
    default:
        return "choose another address or port";
    }
}

/* Listens where `key` of the configuration says. A test may find the port taken: -1. */
static int open_at(const char *key, const char *host, uint64_t port_number, enum purpose purpose)
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
        fd = try_listen(entry, purpose);
        code = errno;
    }
    freeaddrinfo(list);
    if (fd < 0 && (purpose == TO_LISTEN || code != EADDRINUSE))
        die("cannot listen on %s port %s (%s): %s: %s", host, port, key, strerror(code),
            remedy(key, code));
    return fd;
}

int listen_open(const struct config *config)
{
    return open_at("[common] host", config->host, config->port, TO_LISTEN);
}

int listen_open_admin(const struct config *config)
{
    return config->admin_port
               ? open_at("[admin] listen", config->admin_host, config->admin_port, TO_LISTEN)
               : -1;
}

/* --- the cluster's port ---------------------------------------------------------------------- */

/* True for the addresses that RFC 1918 keeps for private networks. */
static bool is_private(const unsigned char address[4])
{
    return address[0] == 10 || (address[0] == 172 && address[1] >= 16 && address[1] < 32) ||
           (address[0] == 192 && address[1] == 168);
}

/* Finds the address from which this machine would speak to `target`; nothing is sent. */
static bool own_address(const char *target, char *host, size_t room)
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
    return is_private(address) && inet_ntop(AF_INET, &own.sin_addr, host, (socklen_t)room);
}

/* Writes what the other nodes are told, in the one spelling that it has. True for an address. */
static bool find_advertised(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1])
{
    static const char *const targets[] = {"10.255.255.254", "172.31.255.254", "192.168.255.254"};
    const size_t room = CONFIG_ADVERTISE_MAX + 1;
    unsigned char address[16];
    size_t i = 0;

    for (const int *family = (const int[]){AF_INET, AF_INET6, -1}; *family >= 0; family++)
        if (inet_pton(*family, config->advertise, address) == 1)
            return inet_ntop(*family, address, host, (socklen_t)room);
    snprintf(host, room, "%s", config->advertise);
    for (char *at = host; *at; at++)
        *at = (char)tolower((unsigned char)*at);
    if (host[0])
        return false;
    while (i < sizeof targets / sizeof targets[0] && !own_address(targets[i], host, room))
        i++;
    if (i == sizeof targets / sizeof targets[0])
        die("this machine has no private IPv4 address: set [cluster] advertise to the address or "
            "the name at which the other nodes find it");
    return true;
}

/* Where all addresses of this machine are: of IPv6 and IPv4, if one socket can listen on both. */
static const char *listen_everywhere(void)
{
    int fd = socket(AF_INET6, SOCK_STREAM, 0), zero = 0;
    bool both = fd >= 0 && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero) == 0;

    if (fd >= 0)
        close(fd);
    return both ? "::" : "0.0.0.0";
}

/* Listens where rpc_listen says, or at the address that is advertised. A name may stand for another
 * address here than elsewhere (127.0.1.1, a proxy's): it listens at all of this machine. */
static int listen_open_links(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1],
                             enum purpose purpose)
{
    uint64_t port = config->rpc_listen_port ? config->rpc_listen_port : config->rpc_port;
    bool is_address = find_advertised(config, host);

    if (config->rpc_listen_host[0])
        return open_at("[cluster] rpc_listen", config->rpc_listen_host, port, purpose);
    return open_at("[cluster] advertise", is_address ? host : listen_everywhere(), port, purpose);
}

int listen_open_rpc(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1])
{
    return listen_open_links(config, host, TO_LISTEN);
}

/* --- a test ---------------------------------------------------------------------------------- */

static void listen_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

void listen_test(const struct config *config)
{
    char host[CONFIG_ADVERTISE_MAX + 1];

    if (!listen_path(config))
        listen_close(open_at("[common] host", config->host, config->port, TO_TEST));
    if (config->admin_port)
        listen_close(open_at("[admin] listen", config->admin_host, config->admin_port, TO_TEST));
    if (config->cluster)
        listen_close(listen_open_links(config, host, TO_TEST));
}

bool listen_overlaps(const char *host, const char *other)
{
    static const char *const any[] = {"0.0.0.0", "::"};

    for (size_t i = 0; i < sizeof any / sizeof any[0]; i++)
        if (strcmp(host, any[i]) == 0 || strcmp(other, any[i]) == 0)
            return true;
    return strcmp(host, other) == 0;
}

/* --- host = unix:PATH ------------------------------------------------------------------------ */

const char *listen_path(const struct config *config)
{
    return strncmp(config->host, "unix:", 5) == 0 ? config->host + 5 : NULL;
}

/* True if somebody listens there; a socket without anybody is what a server left behind. */
static bool listen_is_taken(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool taken;

    if (fd < 0)
        die("socket: %s", strerror(errno));
    fcntl(fd, F_SETFL, O_NONBLOCK); /* a full queue is somebody's, and not waited for */
    taken = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 ||
            (errno != ECONNREFUSED && errno != ENOENT);
    close(fd);
    return taken;
}

/* Checks the path, and what is there now. True if that is a socket. */
static bool listen_check_path(const char *path, struct sockaddr_un *address)
{
    struct stat status;

    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path)
        die("[common] host = unix:%s: such a path may have %zu bytes: choose a shorter one", path,
            sizeof address->sun_path - 1);
    memcpy(address->sun_path, path, strlen(path));
    if (lstat(path, &status) != 0)
        return false;
    if (!S_ISSOCK(status.st_mode))
        die("[common] host = unix:%s: there is a file that is no socket: remove it, or choose "
            "another path",
            path);
    return true;
}

_Noreturn static void listen_refuse_path(const char *path, int error)
{
    die("cannot listen on unix:%s ([common] host): %s: %s", path, strerror(error),
        error == EADDRINUSE ? "stop what listens there, or choose another path"
                            : "choose a path in a directory where [common] user may write");
}

int listen_open_path(const struct config *config, struct listen_place *place)
{
    const char *path = listen_path(config);
    struct sockaddr_un address;
    struct addrinfo entry = {.ai_family = AF_UNIX,
                             .ai_socktype = SOCK_STREAM,
                             .ai_addr = (struct sockaddr *)&address,
                             .ai_addrlen = sizeof address};
    struct stat status;
    int fd;

    if (listen_check_path(path, &address)) {
        if (listen_is_taken(&address))
            listen_refuse_path(path, EADDRINUSE);
        unlink(path);
    }
    fd = try_listen(&entry, TO_LISTEN);
    if (fd < 0 || chmod(path, 0666) != 0 || stat(path, &status) != 0)
        listen_refuse_path(path, errno);
    *place = (struct listen_place){.device = status.st_dev, .file = status.st_ino};
    return fd;
}

void listen_remove_path(const struct config *config, const struct listen_place *place)
{
    const char *path = listen_path(config);
    struct stat status;

    if (stat(path, &status) == 0 && status.st_dev == place->device && status.st_ino == place->file)
        unlink(path);
}

void listen_test_path(const struct config *config)
{
    const char *path = listen_path(config);
    struct sockaddr_un address;
    int error;

    if (!path)
        return;
    listen_check_path(path, &address);
    error = file_test_create(path);
    if (error)
        listen_refuse_path(path, error);
}
