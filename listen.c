/* listen.c - the sockets that a server listens on. */
#include "listen.h"

#include "file.h"
#include "identity.h"
#include "log.h"

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
    int fd = socket(address->ai_family, address->ai_socktype, address->ai_protocol), one = 1;

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 &&
        (purpose == TO_TEST || listen(fd, BACKLOG) == 0) && fcntl(fd, F_SETFL, O_NONBLOCK) == 0)
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
            remedy(code));
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

    if (identity_read_address(str_from(config->advertise), address))
        return;
    for (size_t i = 0; i < sizeof targets / sizeof targets[0]; i++)
        if (own_address(targets[i], address))
            return;
    die("this machine has no private IPv4 address: set [cluster] advertise to the address at which "
        "the other nodes find it");
}

static int listen_open_peers(const struct config *config, unsigned char address[4],
                             enum purpose purpose)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)config->rpc_port)};
    struct addrinfo entry = {.ai_family = AF_INET,
                             .ai_socktype = SOCK_STREAM,
                             .ai_addr = (struct sockaddr *)&at,
                             .ai_addrlen = sizeof at};
    int fd;

    find_advertised(config, address);
    memcpy(&at.sin_addr, address, 4);
    fd = try_listen(&entry, purpose);
    if (fd < 0 && (purpose == TO_LISTEN || errno != EADDRINUSE))
        die("cannot listen for other nodes on [cluster] advertise %u.%u.%u.%u, rpc_port %u: %s: %s",
            address[0], address[1], address[2], address[3], (unsigned)config->rpc_port,
            strerror(errno),
            errno == EADDRINUSE      ? "stop what listens there, or choose another rpc_port"
            : errno == EADDRNOTAVAIL ? "advertise must be an address of this machine"
                                     : "choose another advertise or rpc_port");
    return fd;
}

int listen_open_rpc(const struct config *config, unsigned char address[4])
{
    return listen_open_peers(config, address, TO_LISTEN);
}

/* --- a test ---------------------------------------------------------------------------------- */

static void listen_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

void listen_test(const struct config *config)
{
    unsigned char address[4];

    if (!listen_path(config))
        listen_close(open_at("[common] host", config->host, config->port, TO_TEST));
    if (config->admin_port)
        listen_close(open_at("[admin] listen", config->admin_host, config->admin_port, TO_TEST));
    if (config->cluster)
        listen_close(listen_open_peers(config, address, TO_TEST));
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
