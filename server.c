/* server.c - a node: builds the parts, connects them, and takes them down.
 *
 * All parts stand in one struct and know each other by pointers that are set here; none is global,
 * so that a test can open two servers. They are opened from the bottom up: console, pollers, hub,
 * listener; then the cluster, which joins in the background; then the accounts, which are in the
 * cluster's store if there is one; the loop last. They are closed in the opposite order, threads
 * first: after that nothing writes to the wake pipe. What was not opened is zero, and closing it
 * does nothing. */
#include "server.h"

#include "account.h"
#include "cluster.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define WEBHOOK_PAUSE 1000 /* milliseconds before the first repetition of a batch */
#define LOGINS_TOLD 20     /* failed logins that the log tells, in ten seconds */

static bool server_open_parts(struct server *server)
{
    if (server->config->console && !console_open(&server->console))
        return false;
    if (server->config->client_module && !console_open_client(&server->client_module))
        return false;
    server->pollers =
        poller_open(server->wake[1], 1 + (size_t)(server->most_connections / POLLER_SLOTS));
    return server->pollers && hub_open(&server->hub, server->config, server->log) &&
           crypto_random(&server->api.seed, sizeof server->api.seed) &&
           crypto_random(&server->listener.seed, sizeof server->listener.seed) &&
           listener_open(&server->listener);
}

static bool server_open_cluster(struct server *server)
{
    struct cluster_options options = {.config = server->config,
                                      .log = server->log,
                                      .keys = server->keys,
                                      .hub = &server->hub,
                                      .shared = &server->shared,
                                      .host = str_from(server->host),
                                      .port = (unsigned)server->config->rpc_port,
                                      .listener = server->links,
                                      .wake = server->wake[1]};
    struct cluster *cluster = server->config->cluster ? cluster_open(&options) : NULL;

    server->context.cluster = server->api.cluster = cluster;
    server->context.metrics.cluster = cluster;
    return cluster || !server->config->cluster;
}

static bool server_open_accounts(struct server *server, char *error, size_t room)
{
    const struct account_store *store = cluster_accounts(server->context.cluster);
    struct accounts *accounts;

    accounts = store ? account_open_store(store, server->wake[1], CRYPTO_ITERATIONS, error, room)
                     : account_open(server->config->data_dir, server->wake[1], CRYPTO_ITERATIONS,
                                    error, room);
    server->context.accounts = server->api.accounts = accounts;
    cluster_use_accounts(server->context.cluster, accounts);
    if (accounts && error[0])
        log_write(server->log, LOG_WARN, "accounts: a crash had torn the last line",
                  (struct log_field[]){{.name = "repair", .text = str_from(error)}, {0}});
    return accounts != NULL;
}

/* Opens the webhooks if the configuration allows any, and sets those of the accounts. False: out of
 * memory, or of descriptors. */
static bool server_open_webhooks(struct server *server)
{
    const struct config *config = server->config;
    struct str allow = str_from(config->webhook_allow);
    const char *host = config->cluster ? server->host : config->host;
    bool bracket = strchr(host, ':') && (config->cluster || !listener_path(config));

    if (server->hub.webhooks || !str_entry(&allow).length)
        return true;
    snprintf(server->node, sizeof server->node, "%s%s%s:%u", bracket ? "[" : "", host,
             bracket ? "]" : "", (unsigned)(config->cluster ? config->rpc_port : config->port));
    server->hub.webhooks =
        webhook_open(&(struct webhook_options){.keys = server->keys,
                                               .node = server->node,
                                               .version = server->version,
                                               .ca = config->webhook_ca,
                                               .timeout = (int64_t)config->webhook_timeout,
                                               .pause = WEBHOOK_PAUSE,
                                               .retry = (int64_t)config->webhook_retry,
                                               .queue = (size_t)config->webhook_queue,
                                               .clock = server->hub.clock});
    return server->hub.webhooks != NULL;
}

static bool server_open_loop(struct server *server)
{
    server->loop = loop_open(&(struct loop_options){.context = &server->context,
                                                    .shared = &server->shared,
                                                    .pollers = server->pollers,
                                                    .tls = server->tls,
                                                    .wake = server->wake[0],
                                                    .stops = server->stops,
                                                    .calls = server->calls});
    return server->loop;
}

static void server_connect(struct server *server)
{
    server->scope = server->config->scope;
    server->api = (struct api){.config = server->config, .keys = server->keys, .hub = &server->hub};
    api_open(&server->api);
    server->listener.config = server->config;
    server->listener.log = server->log;
    server->context = (struct session_context){
        .config = server->config,
        .log = server->log,
        .hub = &server->hub,
        .api = &server->api,
        .listener = &server->listener,
        .failed_logins = {.most = LOGINS_TOLD, .period = 10000},
        .console = server->config->console ? &server->console : NULL,
        .client_module = server->config->client_module ? &server->client_module : NULL,
        .metrics = {.hub = &server->hub,
                    .api = &server->api,
                    .shared = &server->shared,
                    .log = server->log,
                    .version = server->version,
                    .features = server->features,
                    .started = (int64_t)time(NULL)}};
}

bool server_open(struct server *server, char *error, size_t room)
{
    snprintf(error, room, "out of memory, or of threads");
    server_connect(server);
    if (server_open_parts(server) && server_open_cluster(server) &&
        server_open_accounts(server, error, room) && server_open_webhooks(server) &&
        server_open_loop(server)) {
        api_take_webhooks(&server->api);
        return true;
    }
    server_close(server);
    return false;
}

void server_reload(struct server *server, struct tls_context *tls)
{
    loop_reload(server->loop, tls);
    if (!server_open_webhooks(server))
        log_write(server->log, LOG_ERROR, "webhooks are off: out of memory, or of descriptors",
                  NULL);
    account_repeat_webhooks(server->context.accounts);
    api_take_webhooks(&server->api);
    if (server->scope != server->config->scope)
        cluster_republish(server->context.cluster);
    server->scope = server->config->scope;
}

void server_close(struct server *server)
{
    poller_close(server->pollers);
    account_close(server->context.accounts);
    cluster_close(server->context.cluster);
    if (server->loop)
        loop_close(server->loop);
    webhook_close(server->hub.webhooks);
    inbox_close(&server->context.inbox);
    listener_close(&server->listener);
    roster_close(&server->hub);
    hub_close(&server->hub);
    api_free(&server->api);
    console_close(&server->console);
    console_close(&server->client_module);
}
