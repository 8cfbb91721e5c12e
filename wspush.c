/* wspush.c - main: the command line, the configuration, the start, signals.
 * Refuses, before anything is served and with its remedy: whatever would only fail later. */
#include "account.h"
#include "cluster.h"
#include "config.h"
#include "crypto.h"
#include "os.h"
#include "listener.h"
#include "log.h"
#include "loop.h"
#include "os.h"
#include "os.h"
#include "tls.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define VERSION "0.1.0"
#define DEFAULT_FILE "config.ini"
#define OTHER_FILE "configs/config.ini" /* where the system has it whose API this is */
#define SECRET_MAX 65536                /* of a file that a variable names */
#define CONFIG_MAX (1024 * 1024)
#define MOST_CONNECTIONS 10000000
#define KEY_FILE "key"
#define LOCK_FILE "lock"
/* Standard streams, the listener, the wake pipe, and files. */
#define OWN_DESCRIPTORS 16
/* In a cluster: a link to each other node, those that knock, and what the libraries open. */
#define CLUSTER_DESCRIPTORS 400

#ifdef WSPUSH_CLUSTER
#define FEATURES "cluster (Redis, RabbitMQ)"
#else
#define FEATURES "single node"
#endif

extern char **environ; /* POSIX has it, and no header that declares it */

/* POSIX has no call that sets a process's supplementary groups, but every system has this one. */
int initgroups(const char *user, gid_t group);

/* What the signal handler needs. */
static volatile sig_atomic_t stops, calls, reloads, reopens; /* calls: the last two together */
static int wake_descriptor = -1;

static const char usage[] =
    "usage: wspush [-c FILE] [-t] [-v] [-h] [PORT]\n"
    "\n"
    "  -c FILE   configuration (" DEFAULT_FILE ", or " OTHER_FILE "; absent: defaults)\n"
    "  -t        test whether a start would succeed, and exit\n"
    "  -v        print the version and what is compiled in, and exit (--version)\n"
    "  -h        print this and exit (--help)\n"
    "  PORT      listen on this port instead of the configured one\n"
    "\n"
    "A variable of the environment, such as WSPUSH_COMMON_PORT=8080, goes before the key in\n"
    "FILE; WSPUSH_COMMON_CRYPTO_KEY_FILE=PATH has the value read from a file.\n"
    "\n"
    "Clients connect to ws://HOST:PORT/ws?systemId=NAME, business systems POST to\n"
    "http://HOST:PORT/api/..., and browsers show the console at http://HOST:PORT/;\n"
    "with [tls] it is wss:// and https://. Metrics are at http://127.0.0.1:7801/metrics.\n"
    "\n"
    "SIGTERM drains and stops, a second one stops at once. SIGHUP reads the configuration\n"
    "again, SIGUSR1 reopens the log.\n";

struct options {
    const char *file;
    bool named, test;
    uint64_t port; /* 0: none was given */
    bool absent;   /* the file is not there, and need not be */
};

_Noreturn static void wspush_print_version(void)
{
    printf("wspush " VERSION "\nfeatures: " FEATURES "\n");
    exit(0);
}

_Noreturn static void wspush_print_usage(void)
{
    fputs(usage, stdout);
    exit(0);
}

/* The two options that many people try first. */
static void wspush_take_long_options(int count, char **arguments)
{
    for (int i = 1; i < count && strcmp(arguments[i], "--") != 0; i++) {
        if (strcmp(arguments[i], "--version") == 0)
            wspush_print_version();
        if (strcmp(arguments[i], "--help") == 0)
            wspush_print_usage();
    }
}

static void parse_options(int count, char **arguments, struct options *options)
{
    int option;

    *options = (struct options){.file = DEFAULT_FILE};
    wspush_take_long_options(count, arguments);
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
            wspush_print_version();
        case 'h':
            wspush_print_usage();
        default:
            fputs(usage, stderr);
            exit(2);
        }
    }
    if (optind < count &&
        (!str_number(str_from(arguments[optind]), 65535, &options->port) || !options->port))
        die("PORT must be a number from 1 to 65535, not %s", arguments[optind]);
    if (optind + 1 < count) {
        fputs(usage, stderr);
        exit(2);
    }
    if (!options->named && access(DEFAULT_FILE, F_OK) != 0 && access(OTHER_FILE, F_OK) == 0)
        options->file = OTHER_FILE;
}

/* Takes a variable's value from the file that it names, without the line feed at its end. */
static bool wspush_set_from_file(struct config *config, struct str name, const char *path,
                                 char *error, size_t room)
{
    struct buf text = {.limit = SECRET_MAX};
    struct str value;
    int code = os_read_file(path, &text);
    bool good = false;

    value = str_of(&text);
    if (value.length && value.at[value.length - 1] == '\n')
        value.length--;
    if (value.length && value.at[value.length - 1] == '\r')
        value.length--;
    if (code)
        snprintf(error, room, "%.*s: %s: %s: name a file that can be read", (int)name.length,
                 name.at, path, strerror(code));
    else
        good = config_set(config, name, value, error, room);
    crypto_erase(text.at, text.length);
    buf_free(&text);
    return good;
}

/* Takes one variable; others than WSPUSH_... are none of ours. */
static bool wspush_set_variable(struct config *config, const char *variable, char *error,
                                size_t room)
{
    struct str value = str_from(variable), name = str_cut(&value, '=');
    char plain[64];

    if (strncmp(variable, "WSPUSH_", strlen("WSPUSH_")) != 0)
        return true;
    if (!config_names_file(name))
        return config_set(config, name, value, error, room);
    snprintf(plain, sizeof plain, "%.*s", (int)(name.length - strlen("_FILE")), name.at);
    if (getenv(plain)) {
        snprintf(error, room, "%s and %s_FILE are both set: keep one of them", plain, plain);
        return false;
    }
    return wspush_set_from_file(config, name, value.at, error, room);
}

/* Two listeners of one configuration would take each other's port. */
static bool wspush_check_ports(const struct options *options, const struct config *config,
                               char *error, size_t room)
{
    bool local = listener_path(config) != NULL;

    if (local && options->port)
        snprintf(error, room, "[common] host = %s has no port: leave the argument PORT out",
                 config->host);
    else if (!local && config->admin_port == config->port &&
             listener_overlaps(config->host, config->admin_host))
        snprintf(
            error, room,
            "[admin] listen must not have the port of [common]: give one of them another than %llu",
            (unsigned long long)config->port);
    else
        return true;
    return false;
}

/* Reads the configuration: the file, the environment, the command line. False: `error`, of `room`
 * bytes, says what is wrong and what helps. */
static bool load_config(const struct options *options, struct config *config, bool *absent,
                        char *error, size_t room)
{
    struct buf text = {.limit = CONFIG_MAX};
    bool good;
    int code = os_read_file(options->file, &text);

    config_defaults(config);
    *absent = code == ENOENT;
    if (code && (code != ENOENT || options->named)) {
        snprintf(error, room, "%s: %s: give a readable file with -c", options->file,
                 strerror(code));
        return false;
    }
    good = code || config_parse(config, options->file, str_of(&text), error, room);
    crypto_erase(text.at, text.length);
    buf_free(&text);
    for (char **variable = environ; good && *variable; variable++)
        good = wspush_set_variable(config, *variable, error, room);
    if (good && options->port)
        config->port = options->port;
    return good && wspush_check_ports(options, config, error, room) &&
           (!config->cluster || cluster_check_config(config, error, room));
}

_Noreturn static void wspush_refuse_log(const struct config *config, int error)
{
    die("[log] file = %s: %s: name a file that can be written%s%s, or none for stderr",
        config->log_file, strerror(error), config->user[0] ? " by [common] user = " : "",
        config->user);
}

/* What a server is made of that changes when it is told to. */
struct server {
    struct options options;
    struct config config;
    struct log log;
    struct log_state log_state;
    uint64_t descriptors; /* that may be open */
    struct loop *loop;
};

static void open_log(struct server *server)
{
    const struct config *config = &server->config;
    int error;

    server->log = (struct log){.level = config->log_level,
                               .json = config->log_format == LOG_FORMAT_JSON,
                               .state = &server->log_state};
    error = log_open(&server->log, config->log_file);
    if (error)
        wspush_refuse_log(config, error);
}

/* --- descriptors ----------------------------------------------------------------------------- */

static uint64_t descriptors_for(const struct config *config, uint64_t connections)
{
    return loop_descriptors(connections) + OWN_DESCRIPTORS +
           (config->cluster ? CLUSTER_DESCRIPTORS : 0);
}

/* Raises the limit of descriptors as far as it goes, and returns it. */
static uint64_t raise_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        die("getrlimit: %s", strerror(errno));
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
        getrlimit(RLIMIT_NOFILE, &limit);
    return (uint64_t)limit.rlim_cur; /* rlim_t has a sign on FreeBSD */
}

/* How many connections there may be at the most. */
static uint64_t most_connections(const struct config *config, uint64_t descriptors)
{
    uint64_t connections = descriptors < MOST_CONNECTIONS ? descriptors : MOST_CONNECTIONS;

    if (descriptors < descriptors_for(config, 1))
        die("only %llu descriptors may be open, %llu are the least: raise ulimit -n",
            (unsigned long long)descriptors, (unsigned long long)descriptors_for(config, 1));
    while (descriptors_for(config, connections) > descriptors)
        connections -= connections / 1000 + 1;
    return connections;
}

/* How many there may be if `wanted` are configured; whether this is a cluster's node does not
 * change while it runs. False: `error` says why it cannot be so many. */
static bool connection_limit(const struct server *server, uint64_t wanted, uint64_t *connections,
                             char *error, size_t room)
{
    uint64_t most = most_connections(&server->config, server->descriptors);

    *connections = wanted ? wanted : most;
    if (*connections <= most)
        return true;
    snprintf(error, room,
             "[limits] max_connections = %llu needs %llu descriptors, but only %llu may be open: "
             "raise ulimit -n (LimitNOFILE= in systemd), or lower max_connections to %llu",
             (unsigned long long)*connections,
             (unsigned long long)descriptors_for(&server->config, *connections),
             (unsigned long long)server->descriptors, (unsigned long long)most);
    return false;
}

static void open_wake_pipe(int wake[2])
{
    if (!os_wake_pipe(wake))
        die("pipe: %s", strerror(errno));
}

/* The certificate, if there is one: NULL for plain connections. False: `error` says why not. */
static bool load_certificate(const struct config *config, struct tls_context **tls, char *error,
                             size_t room)
{
    char why[1200];

    *tls = NULL;
    if (!config->tls_cert[0] && !config->tls_key[0])
        return true;
    if (!config->tls_cert[0] || !config->tls_key[0]) {
        snprintf(error, room,
                 "[tls] cert and key belong together: give both, or none for plain connections");
        return false;
    }
    *tls = tls_context_new(config->tls_cert, config->tls_key, why, sizeof why);
    if (!*tls)
        snprintf(error, room,
                 "[tls] %s: give a certificate chain, the server's own certificate first and its "
                 "issuers behind it, and its key without passphrase, both as PEM, in files that "
                 "can be read",
                 why);
    return *tls != NULL;
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

_Noreturn static void wspush_refuse_data(const struct config *config, int error)
{
    die("[common] data_dir = %s: %s: name a directory that can be created or written",
        config->data_dir, strerror(error));
}

_Noreturn static void wspush_refuse_lock(const struct config *config, int error)
{
    die("%s/" LOCK_FILE ": %s: data_dir and the files in it must belong to %s: chown -R them",
        config->data_dir, strerror(error), config->user[0] ? config->user : "who runs wspush");
}

/* Becomes the configured user. Makes data_dir first, which that user must own; a node of a cluster
 * keeps nothing there. */
static void prepare_data(const struct config *config)
{
    const struct passwd *user = find_user(config);
    int error = config->cluster ? 0 : os_make_directory(config->data_dir);

    if (!config->cluster && !error && user &&
        chown(config->data_dir, user->pw_uid, user->pw_gid) != 0)
        error = errno;
    if (error)
        wspush_refuse_data(config, error);
    if (user)
        drop_privileges(user);
    if (config->cluster)
        return;
    error = os_lock_file(config->data_dir, LOCK_FILE);
    if (error == EAGAIN)
        die("[common] data_dir = %s is in use by another wspush: stop it, or give this one "
            "another data_dir",
            config->data_dir);
    if (error)
        wspush_refuse_lock(config, error);
}

/* What SIGHUP reads must be readable for the user that wspush has become: better not to start than
 * to fail then. */
static void wspush_check_reload(const struct server *server)
{
    static struct config again;
    struct tls_context *tls;
    char error[1400];
    bool absent;

    if (!server->config.user[0])
        return;
    if (!load_config(&server->options, &again, &absent, error, sizeof error) ||
        !load_certificate(&again, &tls, error, sizeof error))
        die("as [common] user = %s, which SIGHUP reads it as: %s", server->config.user, error);
    tls_context_free(tls);
    crypto_erase(&again, sizeof again);
}

/* Reads the key that is kept in data_dir. False: there is none. */
static bool wspush_read_key(const struct config *config, char key[CRYPTO_KEY_SIZE])
{
    char path[sizeof config->data_dir + sizeof KEY_FILE];
    struct buf kept = {.limit = 8192};
    int error;

    snprintf(path, sizeof path, "%s/" KEY_FILE, config->data_dir);
    error = os_read_file(path, &kept);
    if (error && error != ENOENT)
        die("%s: %s: data_dir must be writable", path, strerror(error));
    if (!error && kept.length != CRYPTO_KEY_SIZE)
        die("%s is damaged: put the key back, or remove the file for a new key (tokens in use "
            "become invalid)",
            path);
    if (!error)
        memcpy(key, kept.at, CRYPTO_KEY_SIZE);
    crypto_erase(kept.at, kept.length);
    buf_free(&kept);
    return !error;
}

/* The 16 bytes of crypto_key: configured, or kept in data_dir, or made now. */
static void load_key(const struct config *config, char key[CRYPTO_KEY_SIZE])
{
    int error;

    if (config->crypto_key[0]) {
        memcpy(key, config->crypto_key, CRYPTO_KEY_SIZE);
        return;
    }
    if (wspush_read_key(config, key))
        return;
    if (!crypto_random(key, CRYPTO_KEY_SIZE))
        die("no random bytes to be had from OpenSSL");
    error = os_replace_file(config->data_dir, KEY_FILE, (struct str){key, CRYPTO_KEY_SIZE});
    if (error)
        die("%s/" KEY_FILE ": %s: data_dir must be writable", config->data_dir, strerror(error));
}

/* Only the key that a person has chosen is stretched: that takes time at each start. */
static void make_keys(const struct config *config, struct crypto_keyring *keys)
{
    char key[CRYPTO_KEY_SIZE];
    struct str accepted = str_from(config->crypto_key_accepted);
    bool good;

    load_key(config, key);
    good = crypto_add_key(keys, (struct str){key, sizeof key}, config->crypto_key[0]) &&
           (accepted.length == 0 || crypto_add_key(keys, accepted, true));
    crypto_erase(key, sizeof key);
    if (!good)
        die("OpenSSL cannot derive keys");
}

/* --- signals --------------------------------------------------------------------------------- */

static void on_signal(int signal_number)
{
    int saved = errno;
    ssize_t n;

    if (signal_number == SIGHUP)
        reloads++;
    else if (signal_number == SIGUSR1)
        reopens++;
    else
        stops++;
    if (signal_number == SIGHUP || signal_number == SIGUSR1)
        calls++;
    n = write(wake_descriptor, "s", 1);
    (void)n;
    errno = saved;
}

static void catch_signals(int wake)
{
    static const int counted[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    struct sigaction count = {.sa_handler = on_signal}, ignore = {.sa_handler = SIG_IGN};

    wake_descriptor = wake;
    sigfillset(&count.sa_mask); /* two counts must not meet */
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++)
        sigaction(counted[i], &count, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a file that may not grow is an error like a full disk */
}

/* --- while it runs --------------------------------------------------------------------------- */

static void reopen_log(const struct server *server)
{
    bool named = server->config.log_file[0];
    int error = named ? log_reopen(&server->log, server->config.log_file) : 0;
    struct log_field fields[] = {{.name = "error", .text = str_from(strerror(error))}, {0}};

    if (!named)
        log_write(&server->log, LOG_INFO, "SIGUSR1: the log is stderr, which stays", NULL);
    else if (error)
        log_write(&server->log, LOG_ERROR, "SIGUSR1: the log cannot be reopened, the old one stays",
                  fields);
    else
        log_write(&server->log, LOG_INFO, "SIGUSR1: the log has been reopened", NULL);
}

#define NEEDS_RESTART "SIGHUP: this change needs a restart"

/* A line for each key that has changed. */
static void log_changes(const struct server *server, const struct config *fresh)
{
    struct config_change change;
    size_t place = 0;

    while (config_next_change(&server->config, fresh, &place, &change)) {
        struct log_field fields[] = {{.name = "section", .text = change.section},
                                     {.name = "key", .text = change.name},
                                     {.name = "from", .text = str_from(change.from)},
                                     {.name = "to", .text = str_from(change.to)},
                                     {0}};

        if (!change.live)
            fields[2].name = NULL;
        log_write(&server->log, change.live ? LOG_INFO : LOG_WARN,
                  change.live ? "SIGHUP: changed" : NEEDS_RESTART, fields);
    }
}

/* Uses a certificate that has been loaded again for connections to come. */
static void renew_certificate(struct server *server, struct tls_context *tls)
{
    struct log_field fields[] = {{.name = "cert", .text = str_from(server->config.tls_cert)},
                                 {.name = "days_left", .number = tls_context_days(tls)},
                                 {0}};

    loop_renew(server->loop, tls);
    log_write(&server->log, LOG_INFO, "SIGHUP: the certificate has been loaded", fields);
}

/* Whoever connects is either expected to speak TLS or not: that stays. */
static void keep_plain_or_secure(const struct server *server, struct config *fresh)
{
    struct log_field fields[] = {{.name = "section", .text = STR("tls")}, {0}};

    if (!server->config.tls_cert[0] == !fresh->tls_cert[0])
        return;
    memcpy(fresh->tls_cert, server->config.tls_cert, sizeof fresh->tls_cert);
    memcpy(fresh->tls_key, server->config.tls_key, sizeof fresh->tls_key);
    log_write(&server->log, LOG_WARN, NEEDS_RESTART, fields);
}

/* Takes up what may change. False: nothing has changed, and `error` says why not. */
static bool reload(struct server *server, struct config *fresh, char *error, size_t room)
{
    struct tls_context *tls;
    uint64_t connections;
    bool absent;

    if (!load_config(&server->options, fresh, &absent, error, room))
        return false;
    if (absent && !server->options.absent) {
        snprintf(error, room, "%s is not there any more", server->options.file);
        return false;
    }
    if (!connection_limit(server, fresh->max_connections, &connections, error, room))
        return false;
    keep_plain_or_secure(server, fresh);
    if (!load_certificate(fresh, &tls, error, room))
        return false;
    if (fresh->log_level < server->log.level) /* a change of it is told in any case */
        server->log.level = fresh->log_level;
    log_changes(server, fresh);
    config_adopt(&server->config, fresh);
    loop_reload(server->loop, connections);
    if (tls)
        renew_certificate(server, tls);
    return true;
}

/* SIGHUP. */
static void reload_or_complain(struct server *server)
{
    static struct config fresh;
    char error[1400];
    struct log_field fields[] = {{.name = "error"}, {0}};
    bool good;

    if (!stops) /* what stops is not said to be ready again */
        os_notify_reloading();
    good = reload(server, &fresh, error, sizeof error);
    fields[0].text = str_from(good ? "" : error);
    if (good)
        log_write(&server->log, LOG_INFO, "SIGHUP: the configuration has been read again", NULL);
    else
        log_write(&server->log, LOG_ERROR, "SIGHUP: what cannot be used leaves the old in place",
                  fields);
    server->log.level = server->config.log_level;
    loop_count_reload(server->loop, good);
    crypto_erase(&fresh, sizeof fresh); /* it holds secrets */
    if (!stops)
        os_notify("READY=1");
}

/* Serves until the end. */
static void serve(struct server *server)
{
    sig_atomic_t reloaded = 0, reopened = 0;
    enum loop_result result;

    while ((result = loop_run(server->loop)) == LOOP_CALLED) {
        if (reopened != reopens) {
            reopened = reopens;
            reopen_log(server);
        }
        if (reloaded != reloads) {
            reloaded = reloads;
            reload_or_complain(server);
        }
    }
    if (result == LOOP_BROKEN)
        die("%s", loop_broken(server->loop));
}

/* --- the start ------------------------------------------------------------------------------- */

static void log_start(const struct config *config, const struct log *log, uint64_t connections,
                      const struct tls_context *tls)
{
    struct log_field fields[] = {{.name = "host", .text = str_from(config->host)},
                                 {.name = "port", .number = (int64_t)config->port},
                                 {.name = "max_connections", .number = (int64_t)connections},
                                 {0},
                                 {0}};

    if (listener_path(config)) /* which has no port */
        fields[1] = (struct log_field){.name = "max_connections", .number = (int64_t)connections};
    if (tls)
        fields[listener_path(config) ? 2 : 3] =
            (struct log_field){.name = "certificate_days", .number = tls_context_days(tls)};

    log_write(log, LOG_INFO, "wspush " VERSION " is listening", fields);
}

/* The beginning of a URL, up to its path. */
static void make_url(char url[300], const char *scheme, const char *host, uint64_t port)
{
    bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    bool ipv6 = strchr(host, ':') && !any;

    snprintf(url, 300, "%s://%s%s%s:%u", scheme, ipv6 ? "[" : "", any ? "localhost" : host,
             ipv6 ? "]" : "", (unsigned)port);
}

static void wspush_print_welcome(const struct config *config, const char *absent)
{
    const char *path = listener_path(config);
    char url[300], metrics[300];

    make_url(url, config->tls_cert[0] ? "https" : "http", path ? "localhost" : config->host,
             config->port);
    if (path) /* browsers do not know such sockets */
        printf("wspush " VERSION " listens on %s%s.\n", config->host, absent);
    else
        printf("wspush " VERSION " listens on %s port %u%s.\n", config->host,
               (unsigned)config->port, absent);
    if (config->console && !path)
        printf("  Console   %s/\n", url);
    make_url(metrics, "http", config->admin_host, config->admin_port);
    if (config->admin_port)
        printf("  Metrics   %s/metrics\n", metrics);
    printf(
        "  Try       curl %s%s%s%s/api/register -d '{\"systemId\":\"demo\",\"password\":\"demo\"}'\n",
        path ? "--unix-socket " : "", path ? path : "", path ? " " : "", url);
    fflush(stdout);
}

/* For whoever has started it by hand: what is where, and what to try first. */
static void welcome(const struct server *server)
{
    if (server->options.absent || isatty(STDOUT_FILENO))
        wspush_print_welcome(&server->config,
                             server->options.absent ? " (no " DEFAULT_FILE " here: defaults)" : "");
}

/* Ports below 1024 need the rights that are given up later. */
static void open_listeners(const struct config *config, struct loop_options *with)
{
    with->listener = listener_open_clients(config, LISTENER_SERVE);
    with->admin_listener = listener_open_admin(config, LISTENER_SERVE);
    with->rpc_listener =
        config->cluster ? cluster_listen(config, with->rpc_host, LISTENER_SERVE) : -1;
}

/* Reads and checks all that the command line and the file say. */
static void prepare(struct server *server, struct loop_options *with)
{
    char error[1400];

    if (!load_config(&server->options, &server->config, &server->options.absent, error,
                     sizeof error))
        die("%s", error);
    server->descriptors = raise_descriptors();
    with->most_connections = most_connections(&server->config, server->descriptors);
    if (!connection_limit(server, server->config.max_connections, &with->max_connections, error,
                          sizeof error) ||
        !load_certificate(&server->config, &with->tls, error, sizeof error))
        die("%s", error);
}

/* Becomes the user. Opens what that user will have to open again, or to remove, only then. */
static void wspush_give_up_rights(struct server *server, struct loop_options *with,
                                  struct listener_file *place)
{
    prepare_data(&server->config);
    wspush_check_reload(server);
    open_log(server);
    if (listener_path(&server->config))
        with->listener = listener_open_path(&server->config, place);
}

/* --- a test ---------------------------------------------------------------------------------- */

/* Says what a start would say of data_dir. It belongs to the user once a start has made it so, and
 * is looked into only then. */
static void wspush_test_data(const struct config *config, const struct passwd *user)
{
    char path[sizeof config->data_dir + sizeof LOCK_FILE], key[CRYPTO_KEY_SIZE], error[1400];
    struct accounts *accounts;
    uid_t owner;
    int code = os_check_directory(config->data_dir, &owner);

    if (code == ENOENT || (!code && user && owner != user->pw_uid))
        return;
    if (!code && access(config->data_dir, W_OK | X_OK) != 0)
        code = errno;
    if (code)
        wspush_refuse_data(config, code);
    snprintf(path, sizeof path, "%s/" LOCK_FILE, config->data_dir);
    code = os_check_append(path);
    if (code)
        wspush_refuse_lock(config, code);
    if (!config->crypto_key[0])
        wspush_read_key(config, key);
    accounts = account_open(config->data_dir, -1, ACCOUNT_ITERATIONS, error, sizeof error);
    if (!accounts)
        die("%s", error);
    account_close(accounts);
    crypto_erase(key, sizeof key);
}

static void wspush_test_listeners(const struct config *config)
{
    char host[CONFIG_ADVERTISE_MAX + 1];
    int opened[] = {listener_open_clients(config, LISTENER_TEST),
                    listener_open_admin(config, LISTENER_TEST),
                    config->cluster ? cluster_listen(config, host, LISTENER_TEST) : -1};

    for (size_t i = 0; i < sizeof opened / sizeof opened[0]; i++)
        if (opened[i] >= 0)
            close(opened[i]);
}

/* Refuses what a start would refuse, but for ports that are taken; changes nothing. */
static void wspush_test(const struct server *server)
{
    const struct config *config = &server->config;
    const struct passwd *user = find_user(config);
    uid_t owner;
    int error = config->cluster ? 0 : os_check_directory(config->data_dir, &owner);

    if (error == ENOENT) /* a start makes it */
        error = os_check_create(config->data_dir);
    if (error)
        wspush_refuse_data(config, error);
    wspush_test_listeners(config);
    if (user)
        drop_privileges(user);
    if (!config->cluster)
        wspush_test_data(config, user);
    wspush_check_reload(server);
    listener_test_path(config);
    error = config->log_file[0] ? os_check_append(config->log_file) : 0;
    if (error)
        wspush_refuse_log(config, error);
    printf(server->options.absent ? "no %s: the defaults are good\n" : "%s is good\n",
           server->options.file);
}

/* Opens those of the three that are closed: else a socket or a file would get the number, and what
 * is meant for stderr would be written to it. */
static void keep_standard_streams(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

int main(int count, char **arguments)
{
    static struct server server;
    struct crypto_keyring keys = {0};
    struct listener_file place;
    struct loop_options with = {.config = &server.config,
                                .log = &server.log,
                                .keys = &keys,
                                .version = VERSION,
                                .stops = &stops,
                                .calls = &calls};
    char error[1400];

    keep_standard_streams();
    parse_options(count, arguments, &server.options);
    prepare(&server, &with);
    if (server.options.test) {
        wspush_test(&server);
        tls_context_free(with.tls);
        return 0;
    }
    if (server.config.crypto_key[0]) /* is stretched: nobody waits at an open port meanwhile */
        make_keys(&server.config, &keys);
    open_listeners(&server.config, &with);
    wspush_give_up_rights(&server, &with, &place);
    if (!keys.count)
        make_keys(&server.config, &keys);
    open_wake_pipe(with.wake);
    catch_signals(with.wake[1]);
    server.loop = loop_open(&with, error, sizeof error);
    if (!server.loop)
        die("%s", error);
    log_start(&server.config, &server.log, with.max_connections, with.tls);
    welcome(&server);
    os_notify("READY=1\nSTATUS=serving");
    serve(&server);
    loop_close(server.loop);
    if (listener_path(&server.config))
        listener_remove_path(&server.config, &place);
    crypto_erase(&keys, sizeof keys);
    if (server.log.file)
        fclose(server.log.file);
    return 0;
}
