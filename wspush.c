/* wspush.c - main: the command line, the configuration, the start, signals.
 * Refuses, before anything is served and with its remedy: whatever would only fail later. */
#include "account.h"
#include "config.h"
#include "crypto.h"
#include "file.h"
#include "identity.h"
#include "log.h"
#include "loop.h"
#include "mailbox.h"

#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define VERSION "0.1.0"
#define DEFAULT_FILE "config.ini"
#define CONFIG_MAX (1024 * 1024)
#define BACKLOG 4096
#define KEY_FILE "key"
#define LOCK_FILE "lock"
/* Standard streams, the listener, the wake pipe, and files. */
#define OWN_DESCRIPTORS 16
/* In a cluster: a link to each other node, those that knock, and what the libraries open. */
#define CLUSTER_DESCRIPTORS 400
#define RPC_PORT_ABOVE 1000 /* the port, where no other is configured */

#ifdef WSPUSH_CLUSTER
#define FEATURES "cluster (Redis, RabbitMQ)"
#else
#define FEATURES "single node"
#endif

/* POSIX has no call that sets a process's supplementary groups, but every system has this one. */
int initgroups(const char *user, gid_t group);

/* What the signal handler needs. */
static volatile sig_atomic_t stops, reloads;
static int wake_descriptor = -1;

static const char usage[] =
    "usage: wspush [-c FILE] [-t] [-v] [-h] [PORT]\n"
    "\n"
    "  -c FILE   configuration (" DEFAULT_FILE " in the working directory; absent: defaults)\n"
    "  -t        test the configuration and exit\n"
    "  -v        print the version and what is compiled in, and exit\n"
    "  -h        print this and exit\n"
    "  PORT      listen on this port instead of the configured one\n"
    "\n"
    "WebSocket clients connect to ws://HOST:PORT/ws?systemId=NAME; business systems POST to\n"
    "http://HOST:PORT/api/…; with [tls] wss:// and https://. SIGTERM drains and stops, a second\n"
    "one stops at once. SIGHUP loads a renewed certificate.\n";

struct options {
    const char *file;
    bool named, test;
    struct str port;
    bool absent; /* the file is not there, and need not be */
};

static void parse_options(int count, char **arguments, struct options *options)
{
    int option;

    *options = (struct options){.file = DEFAULT_FILE};
    while ((option = getopt(count, arguments, "c:tvh")) != -1) {
        switch (option) {
        case 'c':
            options->file = optarg;
            options->named = true;
            break;
        case 't':
            options->test = true;
            break;
        case 'v':
            printf("wspush " VERSION "\nfeatures: " FEATURES "\n");
            exit(0);
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind < count)
        options->port = str_from(arguments[optind++]);
    if (optind < count) {
        fputs(usage, stderr);
        exit(2);
    }
}

/* What a node of a cluster must have been told. */
static void check_cluster(const struct options *options, struct config *config)
{
    if (!config->crypto_key[0])
        die("%s: cluster = true needs [common] crypto_key: the same 16 bytes on every node",
            options->file);
    if (!config->rpc_port)
        config->rpc_port = config->port + RPC_PORT_ABOVE;
    if (config->rpc_port > 65535)
        die("%s: [common] port + %d is no port: set [cluster] rpc_port", options->file,
            RPC_PORT_ABOVE);
    if (config->rpc_port == config->port)
        die("%s: [cluster] rpc_port must not be [common] port", options->file);
}

static void read_config(struct options *options, struct config *config)
{
    struct buf text = {.limit = CONFIG_MAX};
    char error[700];
    bool good;
    int code = file_read(options->file, &text);

    config_defaults(config);
    options->absent = code == ENOENT;
    if (code && (code != ENOENT || options->named))
        die("%s: %s: give a readable file with -c", options->file, strerror(code));
    good = code || config_parse(config, options->file, str_of(&text), error, sizeof error);
    buf_free(&text);
    if (!good)
        die("%s", error);
#ifndef WSPUSH_CLUSTER
    if (config->cluster)
        die("%s: cluster = true, but this binary is built without cluster support: build one with "
            "make CLUSTER=1, or set cluster = false",
            options->file);
#endif
    if (options->port.at && (!str_number(options->port, 65535, &config->port) || !config->port))
        die("PORT must be a number from 1 to 65535, not %s", options->port.at);
    if (config->cluster)
        check_cluster(options, config);
}

static void open_log(const struct config *config, struct log *log)
{
    *log = (struct log){.level = config->log_level, .json = config->log_format == LOG_FORMAT_JSON};
    if (!config->log_file[0])
        return;
    log->file = fopen(config->log_file, "a");
    if (!log->file)
        die("[log] file = %s: %s: name a file that can be written, or none for stderr",
            config->log_file, strerror(errno));
    setvbuf(log->file, NULL, _IONBF, 0); /* one line, one write */
}

/* --- descriptors ----------------------------------------------------------------------------- */

static uint64_t descriptors_for(const struct config *config, uint64_t connections)
{
    return loop_descriptors(connections) + OWN_DESCRIPTORS +
           (config->cluster ? CLUSTER_DESCRIPTORS : 0);
}

/* Raises the limit of descriptors as far as it goes; returns how many connections there may be. */
static uint64_t connection_limit(const struct config *config)
{
    struct rlimit limit;
    uint64_t connections = config->max_connections;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < descriptors_for(config, 1))
        die("only %llu descriptors may be open, %llu are the least: raise ulimit -n",
            (unsigned long long)limit.rlim_cur, (unsigned long long)descriptors_for(config, 1));
    if (connections && descriptors_for(config, connections) > limit.rlim_cur)
        die("[limits] max_connections = %llu needs %llu descriptors, but only %llu may be open: "
            "raise ulimit -n, or lower max_connections",
            (unsigned long long)connections,
            (unsigned long long)descriptors_for(config, connections),
            (unsigned long long)limit.rlim_cur);
    if (connections)
        return connections;
    connections = limit.rlim_cur < 10000000 ? limit.rlim_cur : 10000000;
    while (descriptors_for(config, connections) > limit.rlim_cur)
        connections -= connections / 1000 + 1;
    return connections;
}

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

static int open_listener(const struct config *config)
{
    struct addrinfo hints = {.ai_flags = AI_PASSIVE, .ai_socktype = SOCK_STREAM}, *list;
    char port[8];
    int error, fd = -1, code = 0;

    snprintf(port, sizeof port, "%u", (unsigned)config->port);
    error = getaddrinfo(config->host, port, &hints, &list);
    if (error)
        die("[common] host = %s: %s: give an address of this machine, or 0.0.0.0 for all",
            config->host, gai_strerror(error));
    for (const struct addrinfo *entry = list; entry && fd < 0; entry = entry->ai_next) {
        fd = try_listen(entry);
        code = errno;
    }
    freeaddrinfo(list);
    if (fd < 0)
        die("cannot listen on %s port %s: %s: %s", config->host, port, strerror(code),
            code == EADDRINUSE      ? "stop what listens there, or choose another port"
            : code == EACCES        ? "ports below 1024 need rights; choose one above"
            : code == EADDRNOTAVAIL ? "give an address of this machine, or 0.0.0.0 for all"
                                    : "choose another host or port");
    return fd;
}

static void open_wake_pipe(int wake[2])
{
    if (!mailbox_pipe(wake))
        die("pipe: %s", strerror(errno));
}

/* The certificate, if there is one: NULL for plain connections. */
static struct tls_context *load_certificate(const struct config *config)
{
    char error[1400];
    struct tls_context *tls;

    if (!config->tls_cert[0] && !config->tls_key[0])
        return NULL;
    if (!config->tls_cert[0] || !config->tls_key[0])
        die("[tls] cert and key belong together: give both, or none for plain connections");
    tls = tls_context_new(config->tls_cert, config->tls_key, error, sizeof error);
    if (!tls)
        die("[tls] %s: give a certificate chain and its key without passphrase, both as PEM, in "
            "files that can be read",
            error);
    return tls;
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

static int open_rpc_listener(const struct config *config, unsigned char address[4])
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

/* --- rights and data ------------------------------------------------------------------------- */

static const struct passwd *find_user(const struct config *config)
{
    const struct passwd *user;

    if (!config->user[0])
        return NULL;
    if (geteuid() != 0)
        die("[common] user = %s: only root can become another user: start wspush as root, or "
            "leave user empty",
            config->user);
    user = getpwnam(config->user);
    if (!user)
        die("[common] user = %s: there is no such user: create it, or name another", config->user);
    return user;
}

static void drop_privileges(const struct passwd *user)
{
    if (initgroups(user->pw_name, user->pw_gid) != 0 || setgid(user->pw_gid) != 0 ||
        setuid(user->pw_uid) != 0)
        die("cannot become user %s: %s", user->pw_name, strerror(errno));
    if (user->pw_uid != 0 && setuid(0) == 0)
        die("cannot give up root for user %s", user->pw_name);
}

/* Becomes the configured user. Makes data_dir first, which that user must own; a node of a cluster
 * keeps nothing there. */
static void prepare_data(const struct config *config)
{
    const struct passwd *user = find_user(config);
    int error = config->cluster ? 0 : file_make_directory(config->data_dir);

    if (!config->cluster && !error && user &&
        chown(config->data_dir, user->pw_uid, user->pw_gid) != 0)
        error = errno;
    if (error)
        die("[common] data_dir = %s: %s: name a directory that can be created or written",
            config->data_dir, strerror(error));
    if (user)
        drop_privileges(user);
    if (config->cluster)
        return;
    error = file_lock(config->data_dir, LOCK_FILE);
    if (error == EAGAIN)
        die("[common] data_dir = %s is in use by another wspush: stop it, or give this one "
            "another data_dir",
            config->data_dir);
    if (error)
        die("%s/" LOCK_FILE ": %s: data_dir and the files in it must belong to %s: chown -R them",
            config->data_dir, strerror(error), user ? user->pw_name : "who runs wspush");
}

/* The 16 bytes of crypto_key: configured, or kept in data_dir, or made now. */
static void load_key(const struct config *config, char key[CRYPTO_KEY_SIZE])
{
    char path[sizeof config->data_dir + sizeof KEY_FILE];
    struct buf kept = {.limit = 8192};
    int error;

    if (config->crypto_key[0]) {
        memcpy(key, config->crypto_key, CRYPTO_KEY_SIZE);
        return;
    }
    snprintf(path, sizeof path, "%s/" KEY_FILE, config->data_dir);
    error = file_read(path, &kept);
    if (error == ENOENT) {
        if (!crypto_random(key, CRYPTO_KEY_SIZE))
            die("no random bytes to be had from OpenSSL");
        error = file_replace(config->data_dir, KEY_FILE, (struct str){key, CRYPTO_KEY_SIZE});
    } else if (!error && kept.length != CRYPTO_KEY_SIZE) {
        die("%s is damaged: put the key back, or remove the file for a new key (tokens in use "
            "become invalid)",
            path);
    } else if (!error) {
        memcpy(key, kept.at, CRYPTO_KEY_SIZE);
    }
    if (error)
        die("%s: %s: data_dir must be writable", path, strerror(error));
    crypto_erase(kept.at, kept.length);
    buf_free(&kept);
}

static void make_keys(const struct config *config, struct crypto_keys *keys)
{
    char key[CRYPTO_KEY_SIZE];

    load_key(config, key);
    if (!crypto_derive_keys(keys, (struct str){key, sizeof key}))
        die("OpenSSL cannot derive keys");
    crypto_erase(key, sizeof key);
}

/* --- signals --------------------------------------------------------------------------------- */

static void on_signal(int signal_number)
{
    int saved = errno;
    ssize_t n;

    if (signal_number == SIGHUP)
        reloads++;
    else
        stops++;
    n = write(wake_descriptor, "s", 1);
    (void)n;
    errno = saved;
}

static void catch_signals(int wake)
{
    static const int counted[] = {SIGTERM, SIGINT, SIGHUP};
    struct sigaction count = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

    wake_descriptor = wake;
    sigfillset(&count.sa_mask); /* two counts must not meet */
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++)
        sigaction(counted[i], &count, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a file that may not grow is an error like a full disk */
}

static void log_start(const struct config *config, const struct log *log, uint64_t connections,
                      const struct tls_context *tls)
{
    struct log_field fields[] = {{.name = "host", .text = str_from(config->host)},
                                 {.name = "port", .number = (int64_t)config->port},
                                 {.name = "max_connections", .number = (int64_t)connections},
                                 {0},
                                 {0}};

    if (tls)
        fields[3] = (struct log_field){.name = "certificate_days", .number = tls_context_days(tls)};

    log_write(log, LOG_INFO, "wspush " VERSION " is listening", fields);
}

int main(int count, char **arguments)
{
    static struct config config;
    struct options options;
    struct log log;
    struct crypto_keys keys;
    struct loop_options with = {
        .config = &config, .log = &log, .keys = &keys, .stops = &stops, .reloads = &reloads};
    char error[1400];
    struct loop *loop;
    const char *broken;

    parse_options(count, arguments, &options);
    read_config(&options, &config);
    with.max_connections = connection_limit(&config);
    with.tls = load_certificate(&config);
    if (options.test) {
        printf(options.absent ? "no %s: the defaults are good\n" : "%s is good\n", options.file);
        tls_context_free(with.tls);
        return 0;
    }
    open_log(&config, &log);
    with.listener = open_listener(&config);
    with.rpc_listener = -1;
    if (config.cluster)
        with.rpc_listener = open_rpc_listener(&config, with.rpc_address);
    prepare_data(&config);
    make_keys(&config, &keys);
    open_wake_pipe(with.wake);
    catch_signals(with.wake[1]);
    loop = loop_open(&with, error, sizeof error);
    if (!loop)
        die("%s", error);
    log_start(&config, &log, with.max_connections, with.tls);
    broken = loop_run(loop);
    if (broken)
        die("%s", broken);
    loop_close(loop);
    crypto_erase(&keys, sizeof keys);
    if (log.file)
        fclose(log.file);
    return 0;
}
