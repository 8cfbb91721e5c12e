/* listen.h - the sockets that a server listens on: start-up only.
 * Refuses, with its remedy (see die): what cannot be listened on. */
#ifndef WSPUSH_LISTEN_H
#define WSPUSH_LISTEN_H

#include "config.h"

#include <sys/types.h>

/* The non-blocking, listening socket for clients and the API, where they are reached by TCP. */
int listen_open(const struct config *config);

/* The one for /metrics and the like; -1 if there is to be none. */
int listen_open_admin(const struct config *config);

/* In a cluster the one for the other nodes, and the address or name that they are told. */
int listen_open_rpc(const struct config *config, char host[CONFIG_ADVERTISE_MAX + 1]);

/* Refuses what the three would refuse, but for ports that are taken. Listens nowhere. */
void listen_test(const struct config *config);

/* True if a server cannot listen on one port of both. */
bool listen_overlaps(const char *host, const char *other);

/* --- host = unix:PATH ------------------------------------------------------------------------ */

/* The path; NULL where the host is one of TCP. */
const char *listen_path(const struct config *config);

/* Which file the socket is. */
struct listen_place {
    dev_t device;
    ino_t file;
};

/* As listen_open, for a path. The socket belongs to the user that the process is now, and everybody
 * may connect who may enter its directory (mode 0666). One that a server has left behind is
 * replaced. */
int listen_open_path(const struct config *config, struct listen_place *place);

/* Removes the socket, unless another server has put its own there. */
void listen_remove_path(const struct config *config, const struct listen_place *place);

/* Refuses what listen_open_path would refuse, but for a path that is taken; nothing if there is
 * none. */
void listen_test_path(const struct config *config);

#endif
