/* wspush.c - main: the command line, the configuration, the start, signals.
 *
 * The start, in the order that privileges demand: read the options and the configuration (file,
 * then environment, then command line); raise the limit of descriptors; derive keys from
 * crypto_key, which takes time; open the TCP listeners, whose ports may need root; become the
 * configured user; then open what that user must be able to open again: data_dir and its lock, the
 * log, a Unix socket, the key file. Then signals, the server, READY=1.
 *
 * While it runs: signal handlers count what was asked for and wake the loop; loop_run returns,
 * and SIGHUP (read the configuration again) or SIGUSR1 (reopen the log) is done here, between two
 * iterations. A reload checks everything before it changes anything.
 *
 * Rejects, before anything is served and with the remedy: what would only fail later. -t says the
 * same without serving. The only globals are what the signal handler needs. */
#include "account.h"
#include "cluster.h"
#include "cluster_listen.h"
#include "config.h"
#include "crypto.h"
#include "listener.h"
#include "log.h"
#include "os.h"
#include "server.h"
#include "tls.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define VERSION "0.2.0"
#define DEFAULT_FILE "config.ini"
#define OTHER_FILE "configs/config.ini" /* where the service whose API this is keeps it */
#define SECRET_MAX 65536                /* bytes of a file that a variable names */
#define CONFIG_MAX (1024 * 1024)
#define MOST_CONNECTIONS 10000000
#define ERROR_MAX 1400
#define KEY_FILE "key"
#define LOCK_FILE "lock"
#define OWN_DESCRIPTORS 16      /* standard streams, listeners, the wake pipe, files */
#define CLUSTER_DESCRIPTORS 400 /* links, unauthenticated ones too, and what libraries open */

#ifdef WSPUSH_CLUSTER
#define FEATURES "cluster (Redis, RabbitMQ)"
#else
#define FEATURES "single node"
#endif

extern char **environ; /* POSIX has it, and no header that declares it */

/* What the signal handler needs; each counts. */
static volatile sig_atomic_t stops, calls, reloads, reopens; /* calls: the last two together */
static int wake = -1;

static const char wspush_version[] = "wspush " VERSION "\nfeatures: " FEATURES "\n";
static const char wspush_usage[] =
    "usage: wspush [-c FILE] [-t] [-v] [-h] [PORT]\n"
    "\n"
    "  -c FILE   configuration (" DEFAULT_FILE ", or " OTHER_FILE "; absent: defaults)\n"
    "  -t        test whether a start would succeed, and exit\n"
    "  -v        print the version and what is compiled in, and exit (--version)\n"
    "  -h        print this and exit (--help)\n"
    "  PORT      listen on this port instead of the configured one\n"
    "\n"
    "A variable of the environment, such as WSPUSH_COMMON_PORT=8080, overrides the key in\n"
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
    bool absent;   /* the file does not exist, and need not */
    uint64_t port; /* 0: not given */
};

/* The process: what was asked for, and what was made of it. */
struct program {
    struct options options;
    struct config config;
    struct log log;
    struct log_state log_state;
    struct crypto_keyring keys;
    struct listener_file socket;
    struct server server;
};

/* --- command line ---------------------------------------------------------------------------- */

_Noreturn static void wspush_print(FILE *to, const char *text)
{
    fputs(text, to);
    exit(to == stdout ? 0 : 2);
}

static void wspush_parse_options(int count, char **arguments, struct options *options)
{
    int option;

    *options = (struct options){.file = DEFAULT_FILE};
    for (int i = 1; i < count && strcmp(arguments[i], "--") != 0; i++)
        if (strcmp(arguments[i], "--version") == 0 || strcmp(arguments[i], "--help") == 0)
            wspush_print(stdout, arguments[i][2] == 'v' ? wspush_version : wspush_usage);
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
            wspush_print(stdout, wspush_version);
        case 'h':
            wspush_print(stdout, wspush_usage);
        default:
            wspush_print(stderr, wspush_usage);
        }
    }
    if (optind < count &&
        (!str_number(str_from(arguments[optind]), 65535, &options->port) || !options->port))
        die("PORT must be a number from 1 to 65535, not %s", arguments[optind]);
    if (optind + 1 < count)
        wspush_print(stderr, wspush_usage);
    if (!options->named && access(DEFAULT_FILE, F_OK) != 0) {
        options->absent = access(OTHER_FILE, F_OK) != 0;
        options->file = options->absent ? DEFAULT_FILE : OTHER_FILE;
    }
}

/* Writes why something cannot be done; returns false. */
#ifdef __GNUC__
__attribute__((format(printf, 2, 3)))
#endif
static bool
wspush_fail(char error[ERROR_MAX], const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(error, ERROR_MAX, format, arguments);
    va_end(arguments);
    return false;
}

/* --- configuration --------------------------------------------------------------------------- */

/* Sets a key from the file that a variable names, without the line end behind the value. */
static bool wspush_set_from_file(struct config *config, struct str name, const char *path,
                                 char error[ERROR_MAX])
{
    struct buf text = {.limit = SECRET_MAX};
    struct str value;
    int code = os_read_file(path, &text);
    bool good;

    value = str_of(&text);
    if (value.length && value.at[value.length - 1] == '\n')
        value.length--;
    if (value.length && value.at[value.length - 1] == '\r')
        value.length--;
    good = code ? wspush_fail(error, "%.*s: %s: %s: name a file that can be read", (int)name.length,
                              name.at, path, strerror(code))
                : config_set(config, name, value, error, ERROR_MAX);
    crypto_erase(text.at, text.length);
    buf_free(&text);
    return good;
}

/* Sets a key from a variable WSPUSH_SECTION_KEY or WSPUSH_SECTION_KEY_FILE; ignores others. */
static bool wspush_set_variable(struct config *config, const char *variable, char error[ERROR_MAX])
{
    struct str value = str_from(variable), name = str_cut(&value, '=');
    char plain[64];

    if (strncmp(variable, "WSPUSH_", strlen("WSPUSH_")) != 0)
        return true;
    if (!config_names_file(name))
        return config_set(config, name, value, error, ERROR_MAX);
    snprintf(plain, sizeof plain, "%.*s", (int)(name.length - strlen("_FILE")), name.at);
    if (getenv(plain))
        return wspush_fail(error, "%s and %s_FILE are both set: keep one of them", plain, plain);
    return wspush_set_from_file(config, name, value.at, error);
}

/* False if two listeners of one configuration would need the same port. */
static bool wspush_check_ports(const struct options *options, const struct config *config,
                               char error[ERROR_MAX])
{
    bool local = listener_path(config) != NULL;

    if (local && options->port)
        return wspush_fail(error, "[common] host = %s has no port: leave the argument PORT out",
                           config->host);
    if (!local && config->admin_port == config->port &&
        listener_overlaps(config->host, config->admin_host))
        return wspush_fail(error,
                           "[admin] listen must not have the port of [common]: give one of "
                           "them another than %llu",
                           (unsigned long long)config->port);
    return true;
}

/* Reads the file, the environment, the command line, in this order. False: `error` says what is
 * wrong and what helps. */
static bool wspush_load_config(const struct options *options, struct config *config,
                               char error[ERROR_MAX])
{
    struct buf text = {.limit = CONFIG_MAX};
    int code = os_read_file(options->file, &text);
    bool good;

    config_defaults(config);
    if (code == ENOENT && options->absent)
        code = 0;
    if (code == ENOENT && !options->named)
        return wspush_fail(error, "%s no longer exists", options->file);
    if (code)
        return wspush_fail(error, "%s: %s: give a readable file with -c", options->file,
                           strerror(code));
    good = config_parse(config, options->file, str_of(&text), error, ERROR_MAX);
    crypto_erase(text.at, text.length);
    buf_free(&text);
    for (char **variable = environ; good && *variable; variable++)
        good = wspush_set_variable(config, *variable, error);
    if (good && options->port)
        config->port = options->port;
    return good && wspush_check_ports(options, config, error) &&
           (!config->cluster || cluster_check_config(config, error, ERROR_MAX));
}

/* Opens the log; a test only looks whether that could be done. */
static void wspush_open_log(struct program *program)
{
    const struct config *config = &program->config;
    int error = 0;

    program->log = (struct log){.level = config->log_level,
                                .json = config->log_format == LOG_FORMAT_JSON,
                                .state = &program->log_state};
    if (!program->options.test)
        error = log_open(&program->log, config->log_file);
    else if (config->log_file[0])
        error = os_check_append(config->log_file);
    if (error)
        die("[log] file = %s: %s: name a file that can be written%s%s, or none for stderr",
            config->log_file, strerror(error), config->user[0] ? " by [common] user = " : "",
            config->user);
}

/* --- limits, certificate --------------------------------------------------------------------- */

static uint64_t wspush_descriptors(const struct config *config, uint64_t connections)
{
    return loop_descriptors(connections) + OWN_DESCRIPTORS +
           (config->cluster ? CLUSTER_DESCRIPTORS : 0) +
           (config->webhook_allow[0] ? WEBHOOK_DESCRIPTORS : 0);
}

/* The number of connections for which there are descriptors. */
static uint64_t wspush_most_connections(const struct config *config)
{
    uint64_t all = os_raise_descriptors();
    uint64_t connections = all < MOST_CONNECTIONS ? all : MOST_CONNECTIONS;

    while (connections && wspush_descriptors(config, connections) > all)
        connections -= connections / 1000 + 1;
    return connections;
}

/* Finds out for how many connections there are descriptors. */
static void wspush_count_descriptors(struct program *program)
{
    uint64_t all = os_raise_descriptors(), least = wspush_descriptors(&program->config, 1);

    if (!all)
        die("getrlimit: %s", strerror(errno));
    if (all < least)
        die("only %llu descriptors may be open, at least %llu are needed: raise ulimit -n",
            (unsigned long long)all, (unsigned long long)least);
    program->server.most_connections = wspush_most_connections(&program->config);
}

/* The limit of connections of a configuration, the present or a fresh one. False: `error` says why
 * there cannot be so many. */
static bool wspush_limit_connections(const struct program *program, const struct config *config,
                                     uint64_t *connections, char error[ERROR_MAX])
{
    uint64_t wanted = config->max_connections, most = wspush_most_connections(config);

    if (most > program->server.most_connections)
        most = program->server.most_connections;
    *connections = wanted ? wanted : most;
    if (*connections <= most)
        return true;
    return wspush_fail(
        error,
        "[limits] max_connections = %llu needs %llu descriptors, but only %llu may be open: "
        "raise ulimit -n (LimitNOFILE= in systemd), or lower max_connections to %llu",
        (unsigned long long)wanted, (unsigned long long)wspush_descriptors(config, wanted),
        (unsigned long long)os_raise_descriptors(), (unsigned long long)most);
}

/* Loads the certificate; *tls becomes NULL if none is configured. False: `error` says why not. */
static bool wspush_load_tls(const struct config *config, struct tls_context **tls,
                            char error[ERROR_MAX])
{
    char why[1200];

    *tls = NULL;
    if (!config->tls_cert[0] && !config->tls_key[0])
        return true;
    if (!config->tls_cert[0] || !config->tls_key[0])
        return wspush_fail(error, "[tls] cert and key belong together: give both, or none for "
                                  "plain connections");
    *tls = tls_context_new(config->tls_cert, config->tls_key, why, sizeof why);
    if (!*tls)
        return wspush_fail(
            error,
            "[tls] %s: give a certificate chain, the server's own certificate first and its "
            "issuers behind it, and its key without passphrase, both as PEM, in files that "
            "can be read",
            why);
    return true;
}

/* --- privileges and data --------------------------------------------------------------------- */

/* The user to become, or NULL if none is configured. */
static const struct passwd *wspush_find_user(const struct config *config)
{
    const struct passwd *user;

    if (!config->user[0])
        return NULL;
    user = os_find_user(config->user);
    if (!user && errno == EPERM)
        die("[common] user = %s: only root can become another user: start wspush as root, or "
            "leave user empty",
            config->user);
    if (!user)
        die("[common] user = %s: there is no such user: create it, or name another", config->user);
    return user;
}

_Noreturn static void wspush_reject_data(const struct config *config, int error)
{
    die("[common] data_dir = %s: %s: name a directory that can be created or written",
        config->data_dir, strerror(error));
}

/* Makes data_dir, which the user must own. A test only looks whether that could be done. True if
 * the user can lock it now. */
static bool wspush_make_data(const struct config *config, const struct passwd *user, bool test)
{
    uid_t owner = user ? user->pw_uid : 0;
    int error =
        test ? os_check_directory(config->data_dir, &owner) : os_make_directory(config->data_dir);
    bool is_ready = !error && (!user || owner == user->pw_uid);

    if (test && error == ENOENT)
        error = os_check_create(config->data_dir);
    if (!test && !error && user && chown(config->data_dir, user->pw_uid, user->pw_gid) != 0)
        error = errno;
    if (error)
        wspush_reject_data(config, error);
    return is_ready;
}

/* Locks data_dir; call as the user. A test only looks whether that could be done. */
static void wspush_lock_data(const struct config *config, bool test)
{
    char path[sizeof config->data_dir + sizeof LOCK_FILE];
    int error;

    if (test && access(config->data_dir, W_OK | X_OK) != 0)
        wspush_reject_data(config, errno);
    snprintf(path, sizeof path, "%s/" LOCK_FILE, config->data_dir);
    error = test ? os_check_append(path) : os_lock_file(config->data_dir, LOCK_FILE);
    if (error == EAGAIN)
        die("[common] data_dir = %s is in use by another wspush: stop it, or give this one "
            "another data_dir",
            config->data_dir);
    if (error)
        die("%s: %s: data_dir and the files in it must belong to %s: chown -R them", path,
            strerror(error), config->user[0] ? config->user : "who runs wspush");
}

/* SIGHUP reads the configuration and the certificate as the user that wspush has become: fails now
 * rather than then. */
static void wspush_check_reload(const struct program *program)
{
    static struct config again;
    struct tls_context *tls;
    char error[ERROR_MAX];

    if (!program->config.user[0])
        return;
    if (!wspush_load_config(&program->options, &again, error) ||
        !wspush_load_tls(&again, &tls, error))
        die("as [common] user = %s, which SIGHUP reads it as: %s", program->config.user, error);
    tls_context_free(tls);
    crypto_erase(&again, sizeof again);
}

/* Takes crypto_key from the configuration, or from data_dir, where it makes one if there is none; a
 * test makes none. */
static void wspush_load_key(const struct config *config, char key[CRYPTO_KEY_SIZE], bool test)
{
    char path[sizeof config->data_dir + sizeof KEY_FILE];
    struct buf kept = {.limit = 8192};
    int error;

    if (config->crypto_key[0]) {
        memcpy(key, config->crypto_key, CRYPTO_KEY_SIZE);
        return;
    }
    snprintf(path, sizeof path, "%s/" KEY_FILE, config->data_dir);
    error = os_read_file(path, &kept);
    if (!error && kept.length != CRYPTO_KEY_SIZE)
        die("%s is damaged: put the key back, or remove the file for a new key (tokens in use "
            "become invalid)",
            path);
    if (!error)
        memcpy(key, kept.at, CRYPTO_KEY_SIZE);
    crypto_erase(kept.at, kept.length);
    buf_free(&kept);
    if (error == ENOENT && test)
        return;
    if (error == ENOENT && !crypto_random(key, CRYPTO_KEY_SIZE))
        die("OpenSSL has no random bytes");
    if (error == ENOENT)
        error = os_replace_file(config->data_dir, KEY_FILE, (struct str){key, CRYPTO_KEY_SIZE});
    if (error)
        die("%s: %s: data_dir must be writable", path, strerror(error));
}

/* Derives the keys. Only a key that a person has chosen is stretched, which takes time. */
static void wspush_make_keys(const struct config *config, struct crypto_keyring *keys)
{
    char key[CRYPTO_KEY_SIZE];
    struct str accepted = str_from(config->crypto_key_accepted);
    bool good;

    wspush_load_key(config, key, false);
    good = crypto_add_key(keys, (struct str){key, sizeof key}, config->crypto_key[0]) &&
           (accepted.length == 0 || crypto_add_key(keys, accepted, true));
    crypto_erase(key, sizeof key);
    if (!good)
        die("OpenSSL cannot derive keys");
}

/* --- signals --------------------------------------------------------------------------------- */

static void wspush_on_signal(int signal_number)
{
    int saved = errno;

    if (signal_number == SIGHUP)
        reloads++, calls++;
    else if (signal_number == SIGUSR1)
        reopens++, calls++;
    else
        stops++;
    os_wake(wake);
    errno = saved;
}

static void wspush_catch_signals(void)
{
    static const int counted[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
    struct sigaction count = {.sa_handler = wspush_on_signal}, ignore = {.sa_handler = SIG_IGN};

    sigfillset(&count.sa_mask); /* two counts must not meet */
    for (size_t i = 0; i < sizeof counted / sizeof counted[0]; i++)
        sigaction(counted[i], &count, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL); /* a file that may not grow is an error like a full disk */
}

/* --- while it runs --------------------------------------------------------------------------- */

static void wspush_reopen_log(const struct program *program)
{
    bool named = program->config.log_file[0];
    int error = named ? log_reopen(&program->log, program->config.log_file) : 0;
    struct log_field fields[] = {{.name = "error", .text = str_from(strerror(error))}, {0}};
    const char *message = !named  ? "SIGUSR1: the log is stderr, which stays"
                          : error ? "SIGUSR1: the log cannot be reopened, the old one stays"
                                  : "SIGUSR1: the log has been reopened";

    log_write(&program->log, error ? LOG_ERROR : LOG_INFO, message, error ? fields : NULL);
}

#define NEEDS_RESTART "SIGHUP: this change needs a restart"

/* A line for each key that has changed. */
static void wspush_log_changes(const struct program *program, const struct config *fresh)
{
    struct config_change change;
    size_t place = 0;

    while (config_next_change(&program->config, fresh, &place, &change)) {
        struct log_field fields[] = {{.name = "section", .text = change.section},
                                     {.name = "key", .text = change.name},
                                     {.name = "from", .text = str_from(change.from)},
                                     {.name = "to", .text = str_from(change.to)},
                                     {0}};

        if (!change.live)
            fields[2].name = NULL;
        log_write(&program->log, change.live ? LOG_INFO : LOG_WARN,
                  change.live ? "SIGHUP: changed" : NEEDS_RESTART, fields);
    }
}

/* Clients either speak TLS or not: that cannot change while the server runs. */
static void wspush_keep_tls_or_plain(const struct program *program, struct config *fresh)
{
    struct log_field fields[] = {{.name = "section", .text = STR("tls")}, {0}};

    if (!program->config.tls_cert[0] == !fresh->tls_cert[0])
        return;
    memcpy(fresh->tls_cert, program->config.tls_cert, sizeof fresh->tls_cert);
    memcpy(fresh->tls_key, program->config.tls_key, sizeof fresh->tls_key);
    log_write(&program->log, LOG_WARN, NEEDS_RESTART, fields);
}

/* Takes up the keys that may change. False: nothing has changed, and `error` says why. */
static bool wspush_reload(struct program *program, struct config *fresh, char error[ERROR_MAX])
{
    struct tls_context *tls;
    uint64_t connections;

    if (!wspush_load_config(&program->options, fresh, error) ||
        !wspush_limit_connections(program, fresh, &connections, error))
        return false;
    wspush_keep_tls_or_plain(program, fresh);
    if (!wspush_load_tls(fresh, &tls, error))
        return false;
    if (fresh->log_level < program->log.level) /* a change of it is told in any case */
        program->log.level = fresh->log_level;
    wspush_log_changes(program, fresh);
    config_adopt(&program->config, fresh);
    program->server.listener.max_connections = connections;
    server_reload(&program->server, tls);
    if (!tls)
        return true;
    log_write(&program->log, LOG_INFO, "SIGHUP: the certificate has been loaded",
              (struct log_field[]){{.name = "cert", .text = str_from(fresh->tls_cert)},
                                   {.name = "days_left", .number = tls_context_days(tls)},
                                   {0}});
    return true;
}

/* SIGHUP. A server that is stopping does not say that it is ready again. */
static void wspush_on_reload(struct program *program)
{
    static struct config fresh;
    char error[ERROR_MAX];
    bool good;

    if (!stops)
        os_notify_reloading();
    good = wspush_reload(program, &fresh, error);
    if (good)
        log_write(&program->log, LOG_INFO, "SIGHUP: the configuration has been read again", NULL);
    else
        log_write(&program->log, LOG_ERROR, "SIGHUP: reload failed, keeping the old configuration",
                  (struct log_field[]){{.name = "error", .text = str_from(error)}, {0}});
    program->log.level = program->config.log_level;
    program->server.context.metrics.reloads[good]++;
    crypto_erase(&fresh, sizeof fresh); /* it holds secrets */
    if (!stops)
        os_notify("READY=1");
}

/* Serves, and does what signals ask for, until the end. */
static void wspush_serve(struct program *program)
{
    sig_atomic_t reloaded = 0, reopened = 0;
    const char *error;

    while (loop_run(program->server.loop)) {
        if (reopened != reopens) {
            reopened = reopens;
            wspush_reopen_log(program);
        }
        if (reloaded != reloads) {
            reloaded = reloads;
            wspush_on_reload(program);
        }
    }
    error = cluster_fatal_error(program->server.context.cluster);
    if (error)
        die("%s", error);
}

/* --- the start ------------------------------------------------------------------------------- */

static void wspush_log_start(const struct config *config, const struct server *server)
{
    struct log_field fields[5] = {{.name = "host", .text = str_from(config->host)}};
    size_t count = 1;

    if (!listener_path(config))
        fields[count++] = (struct log_field){.name = "port", .number = (int64_t)config->port};
    fields[count++] = (struct log_field){.name = "max_connections",
                                         .number = (int64_t)server->listener.max_connections};
    if (server->tls)
        fields[count] =
            (struct log_field){.name = "certificate_days", .number = tls_context_days(server->tls)};
    log_write(server->log, LOG_INFO, "wspush " VERSION " is listening", fields);
}

/* Writes the beginning of a URL, up to its path. */
static void wspush_make_url(char url[300], const char *scheme, const char *host, uint64_t port)
{
    bool any = strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
    bool ipv6 = strchr(host, ':') && !any;

    snprintf(url, 300, "%s://%s%s%s:%u", scheme, ipv6 ? "[" : "", any ? "localhost" : host,
             ipv6 ? "]" : "", (unsigned)port);
}

/* What a newcomer has to know: who may register, how to see calls, how it ends. */
static void wspush_explain(const struct config *config)
{
    uint64_t longest = config->drain_wait + config->drain + LOOP_DRAIN_GRACE;

    if (config->registration == REGISTER_OPEN)
        puts(
            "  Register  Anyone who reaches this port may register. [auth] register restricts it.");
    if (config->log_level > LOG_DEBUG)
        puts("  Calls     To log every call, start with WSPUSH_LOG_LEVEL=debug.");
    printf("  Ctrl-C    Closes all clients and stops, in at most %llu s. Twice: stops at once.\n",
           (unsigned long long)(longest + 999) / 1000);
}

/* For a start by hand: what is where, and what to try first. */
static void wspush_welcome(const struct config *config, const char *absent)
{
    const char *path = listener_path(config);
    char url[300], metrics[300];

    wspush_make_url(url, config->tls_cert[0] ? "https" : "http", path ? "localhost" : config->host,
                    config->port);
    if (path) /* browsers do not know such sockets */
        printf("wspush " VERSION " listens on %s%s.\n", config->host, absent);
    else
        printf("wspush " VERSION " listens on %s port %u%s.\n", config->host,
               (unsigned)config->port, absent);
    if (config->console && !path)
        printf("  Console   %s/\n", url);
    wspush_make_url(metrics, "http", config->admin_host, config->admin_port);
    if (config->admin_port)
        printf("  Metrics   %s/metrics\n", metrics);
    if (config->registration != REGISTER_CLOSED)
        printf("  Try       curl -w '\\n' %s%s%s%s/api/register %s"
               "-d '{\"systemId\":\"demo\",\"password\":\"demo\"}'\n",
               path ? "--unix-socket " : "", path ? path : "", path ? " " : "", url,
               config->registration == REGISTER_KEY ? "-H 'Register-Key: ...' " : "");
    wspush_explain(config);
    fflush(stdout);
}

/* Reads and checks all that the command line and the file say. */
static void wspush_prepare(struct program *program)
{
    const struct config *config = &program->config;
    struct server *server = &program->server;
    char error[ERROR_MAX];

    if (!wspush_load_config(&program->options, &program->config, error))
        die("%s", error);
    if (!config->tls_cert[0] && !config->cluster && !config->webhook_allow[0])
        crypto_skip_error_texts();
    wspush_count_descriptors(program);
    if (!wspush_limit_connections(program, config, &server->listener.max_connections, error) ||
        !wspush_load_tls(config, &server->tls, error))
        die("%s", error);
}

/* A test: rejects what a start would reject of the files in data_dir. */
static void wspush_test_data(const struct config *config)
{
    char key[CRYPTO_KEY_SIZE], error[ERROR_MAX];
    struct accounts *accounts;

    wspush_load_key(config, key, true);
    crypto_erase(key, sizeof key);
    accounts = account_open(config->data_dir, -1, CRYPTO_ITERATIONS, error, sizeof error);
    if (!accounts)
        die("%s", error);
    account_close(accounts);
}

/* Opens the listeners; becomes the user; opens what that user must be able to open again, or to
 * remove. A test rejects what a start would reject, except ports that are taken, and changes
 * nothing. */
static void wspush_open_files(struct program *program, bool test)
{
    const struct config *config = &program->config;
    struct server *server = &program->server;
    enum listener_purpose purpose = test ? LISTENER_TEST : LISTENER_SERVE;
    const struct passwd *user;
    bool has_data;
    int error;

    server->listener.clients = server->listener.admin = server->links = -1;
    if (!listener_path(config))
        server->listener.clients =
            listener_bind("[common] host", config->host, config->port, NULL, purpose);
    if (config->admin_port)
        server->listener.admin =
            listener_bind("[admin] listen", config->admin_host, config->admin_port, NULL, purpose);
    if (config->cluster)
        server->links = cluster_listen(config, server->host, purpose);
    user = wspush_find_user(config);
    has_data = !config->cluster && wspush_make_data(config, user, test);
    error = user ? os_become_user(user) : 0;
    if (error)
        die("cannot become user %s: %s", user->pw_name, strerror(error));
    if (has_data)
        wspush_lock_data(config, test);
    if (has_data && test)
        wspush_test_data(config);
    wspush_check_reload(program);
    wspush_open_log(program);
    if (listener_path(config))
        server->listener.clients = listener_open_path(config, purpose, &program->socket);
}

/* Opens all that the server is given, and the server. */
static void wspush_open(struct program *program)
{
    const struct config *config = &program->config;
    struct server *server = &program->server;
    char error[ERROR_MAX];

    if (config->crypto_key[0]) /* before a port is open at which clients would wait */
        wspush_make_keys(config, &program->keys);
    wspush_open_files(program, false);
    if (!program->keys.count)
        wspush_make_keys(config, &program->keys);
    if (!os_wake_pipe(server->wake))
        die("pipe: %s", strerror(errno));
    wake = server->wake[1];
    wspush_catch_signals();
    if (!server_open(server, error, sizeof error))
        die("%s", error);
}

int main(int count, char **arguments)
{
    static struct program program; /* without an initializer it takes no room in the binary */

    program.server.config = &program.config;
    program.server.log = &program.log;
    program.server.keys = &program.keys;
    program.server.version = VERSION;
    program.server.features = FEATURES;
    program.server.stops = &stops;
    program.server.calls = &calls;
    os_keep_standard_streams();
    wspush_parse_options(count, arguments, &program.options);
    wspush_prepare(&program);
    if (program.options.test) {
        wspush_open_files(&program, true);
        printf(program.options.absent ? "no %s: the defaults are good\n" : "%s is good\n",
               program.options.file);
        tls_context_free(program.server.tls);
        return 0;
    }
    wspush_open(&program);
    wspush_log_start(&program.config, &program.server);
    if (program.options.absent || isatty(STDOUT_FILENO))
        wspush_welcome(&program.config,
                       program.options.absent ? " (no " DEFAULT_FILE " here: defaults)" : "");
    os_notify("READY=1\nSTATUS=serving");
    wspush_serve(&program);
    server_close(&program.server);
    if (listener_path(&program.config))
        listener_remove_path(&program.config, &program.socket);
    crypto_erase(&program.keys, sizeof program.keys);
    if (program.log.file)
        fclose(program.log.file);
    return 0;
}
