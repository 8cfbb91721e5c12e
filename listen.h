/* listen.h - the sockets that a server listens on: start-up only.
 * Refuses, with its remedy (see die): what cannot be listened on. */
#ifndef WSPUSH_LISTEN_H
#define WSPUSH_LISTEN_H

#include "config.h"

/* The non-blocking, listening socket for clients and the API. */
int listen_open(const struct config *config);

/* The one for /metrics and the like; -1 if there is to be none. */
int listen_open_admin(const struct config *config);

/* In a cluster the one for the other nodes, and the address that they are told. */
int listen_open_rpc(const struct config *config, unsigned char address[4]);

#endif
