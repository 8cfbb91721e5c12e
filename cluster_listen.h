/* cluster_listen.h - what a node of a cluster needs before it starts: a checked configuration, and
 * the socket for the other nodes. Start-up only.
 * Rejects, with the remedy: what a cluster cannot work with. */
#ifndef WSPUSH_CLUSTER_LISTEN_H
#define WSPUSH_CLUSTER_LISTEN_H

#include "config.h"
#include "listener.h"

#include <stdio.h>

#ifdef WSPUSH_CLUSTER

/* Checks what a node must have been told, and sets the default of rpc_port. False: `error`, cut to
 * `room` bytes, says what is missing. */
bool cluster_check_config(struct config *config, char *error, size_t room);

/* Opens the socket for the other nodes, as listener_bind does, and writes the host they are told.
 */
int cluster_listen(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1],
                   enum listener_purpose purpose);

#else /* a single-node build */

static inline bool cluster_check_config(struct config *config, char *error, size_t room)
{
    (void)config;
    snprintf(error, room,
             "[common] cluster = true, but this binary is built without cluster support: build one "
             "with make CLUSTER=1, or set cluster = false");
    return false;
}

static inline int cluster_listen(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1],
                                 enum listener_purpose purpose)
{
    (void)config, (void)host, (void)purpose;
    return -1;
}

#endif

#endif
