/* server.h - a node: builds the parts, connects them, takes up a new configuration, and takes the
 * parts down.
 * Rejects: to open without memory, threads, random bytes, or readable accounts. */
#ifndef WSPUSH_SERVER_H
#define WSPUSH_SERVER_H

#include "api.h"
#include "config.h"
#include "console.h"
#include "crypto.h"
#include "hub.h"
#include "listener.h"
#include "log.h"
#include "loop.h"
#include "poller.h"
#include "session.h"

struct server {
    /* Set by the caller before server_open; what is pointed to outlives the server. */
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    const char *version, *features; /* for /metrics */
    int wake[2];                    /* a wake pipe, see os_wake_pipe; the caller's */
    uint64_t most_connections;      /* what listener.max_connections may be raised to */
    /* of these: clients, admin (the server's from now on), max_connections */
    struct listener listener;
    int links; /* in a cluster: the socket for the other nodes (the server's from now on), */
    char host[CONFIG_ADVERTISE_MAX + 1]; /* and the host they find it at */
    struct tls_context *tls; /* NULL: connections are plain; the loop's once the server is open */
    volatile sig_atomic_t *stops, *calls; /* as in struct loop_options */

    /* Set by server_open; zero before. */
    struct hub hub;
    struct api api;
    struct console console, client_module;
    struct conn_shared shared;
    struct session_context context;
    struct pollers *pollers;
    struct loop *loop;                     /* for loop_run */
    char node[CONFIG_ADVERTISE_MAX + 176]; /* this one's name in events */
    enum config_notice scope;              /* of which the cluster has presence records */
};

/* Opens a node. False: `error` says why, cut to `room` bytes; the server is closed. */
bool server_open(struct server *server, char *error, size_t room);

/* Call when live keys have changed in `config`, or listener.max_connections: takes up what does not
 * take effect by itself. For `tls` see loop_reload. */
void server_reload(struct server *server, struct tls_context *tls);

void server_close(struct server *server);

#endif
