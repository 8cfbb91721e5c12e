/* single.c - cluster.h in a single-node build: there is no cluster, and all goes straight to the
 * hub. */
#include "cluster.h"

struct cluster *cluster_open(const struct cluster_options *options)
{
    (void)options;
    return NULL;
}

const struct account_store *cluster_accounts(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

const char *cluster_unready(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

const char *cluster_broken(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

const char *cluster_trouble(const struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

struct cluster_stats cluster_stats(const struct cluster *cluster)
{
    (void)cluster;
    return (struct cluster_stats){0};
}

void cluster_rescope(struct cluster *cluster)
{
    (void)cluster;
}

enum cluster_status cluster_apply(struct cluster *cluster, struct hub *hub,
                                  const struct command *command, bool receipt, uint64_t ticket,
                                  struct outcome *outcome)
{
    (void)cluster;
    (void)receipt;
    (void)ticket;
    hub_apply(hub, command, outcome);
    return CLUSTER_DONE;
}

enum cluster_admission cluster_admit(struct cluster *cluster, struct accounts *accounts,
                                     struct str system, uint64_t ticket)
{
    (void)cluster;
    (void)ticket;
    return accounts_know(accounts, system) ? CLUSTER_ADMITTED : CLUSTER_UNKNOWN;
}

const struct cluster_result *cluster_result(struct cluster *cluster)
{
    (void)cluster;
    return NULL;
}

size_t cluster_poll_count(const struct cluster *cluster)
{
    (void)cluster;
    return 0;
}

void cluster_poll(const struct cluster *cluster, struct pollfd *polls)
{
    (void)cluster;
    (void)polls;
}

void cluster_serve(struct cluster *cluster, const struct pollfd *polls, int64_t now)
{
    (void)cluster;
    (void)polls;
    (void)now;
}

void cluster_flush(struct cluster *cluster)
{
    (void)cluster;
}

int64_t cluster_deadline(const struct cluster *cluster)
{
    (void)cluster;
    return INT64_MAX;
}

bool cluster_is_settled(const struct cluster *cluster)
{
    (void)cluster;
    return true;
}

void cluster_close(struct cluster *cluster)
{
    (void)cluster;
}
