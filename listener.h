/* listener.h - the sockets that accept connections: opened at start, accepted from in the loop;
 * whose a connection is (the peer's, or the client's that a trusted proxy names in
 * X-Forwarded-For), and how many connections there may be, in all and by address.
 *
 * Rejects at start, with the remedy (see die): what cannot be listened on. In the loop: to believe
 * X-Forwarded-For of anybody but a trusted proxy; to accept without descriptors or memory: then
 * connections wait in the kernel's queue. */
#ifndef WSPUSH_LISTENER_H
#define WSPUSH_LISTENER_H

#include "config.h"
#include "http.h"
#include "log.h"
#include "table.h"

#include <sys/types.h>

#define LISTENER_PAUSE 200 /* milliseconds without accepting when descriptors have run out */

/* --- start: every failure ends the process --------------------------------------------------- */

/* A test binds, for that is what fails, but does not listen: nobody must connect to it. */
enum listener_purpose { LISTENER_SERVE, LISTENER_TEST };

/* Opens a non-blocking socket. For the messages: `key` is the configuration's, and `remedy` says
 * what to do if `host` is not an address of this machine; NULL: the usual. A test may find the port
 * taken: -1. */
int listener_bind(const char *key, const char *host, uint64_t port, const char *remedy,
                  enum listener_purpose purpose);

/* True if two sockets cannot listen at the same port of these two hosts. */
bool listener_overlaps(const char *host, const char *other);

/* With host = unix:PATH the path, else NULL. */
const char *listener_path(const struct config *config);

/* Which file a Unix-domain socket is. */
struct listener_file {
    dev_t device;
    ino_t inode;
};

/* Opens a non-blocking socket for host = unix:PATH. It belongs to the current user and is
 * open to everybody who may enter its directory (mode 0666). One that a server left behind is
 * replaced. A test opens nothing: -1. */
int listener_open_path(const struct config *config, enum listener_purpose purpose,
                       struct listener_file *file);

/* Removes the socket, unless another server has put its own there. */
void listener_remove_path(const struct config *config, const struct listener_file *file);

/* --- in the loop ----------------------------------------------------------------------------- */

struct listener_network {
    unsigned char address[16];
    unsigned bits; /* the first ones count */
};

struct listener {
    const struct config *config;
    const struct log *log;
    int clients, admin;       /* the sockets, owned; -1: closed, or none */
    uint64_t max_connections; /* without those of the admin socket; above 0 */

    struct listener_network *proxies; /* trusted_proxies */
    size_t proxy_count;
    struct table tallies; /* connections by conn_owner of the address; only with max_per_ip */
    uint32_t seed;

    int64_t accept_after; /* no accepting before this time: descriptors have run out, */
    bool exhausted;       /* and that has been logged */
    int64_t log_after;    /* no line about rejected connections before this time */
};

/* Reads trusted_proxies. The caller has set config, log, max_connections, seed and the sockets;
 * the rest is zero. False without memory. */
bool listener_open(struct listener *listener);

/* Closes the sockets and frees everything. */
void listener_close(struct listener *listener);

/* Closes the clients' socket: no new clients. */
void listener_stop(struct listener *listener);

/* A connection that was just accepted: a non-blocking socket, the caller's. */
struct listener_connection {
    int fd;
    unsigned char address[16]; /* IPv6, or IPv4 mapped into it; all zero: a Unix-domain socket */
    bool by_proxy;             /* a trusted proxy has opened it */
    bool over_limit;           /* it is one more than max_connections or max_per_ip allows */
};

/* Accepts one connection from `socket`, which is one of the listener's; `open` connections of
 * clients are open. One from the clients' socket is counted for its address unless it comes from a
 * proxy; of the admin socket nothing is counted or limited. False: there is none, or accepting
 * pauses. */
bool listener_accept(struct listener *listener, int socket, size_t open, int64_t now,
                     struct listener_connection *connection);

/* Stops accepting for LISTENER_PAUSE, at `open` connections; `error` is the errno. */
void listener_pause(struct listener *listener, int error, size_t open, int64_t now);

/* True while accepting pauses. */
bool listener_is_paused(const struct listener *listener, int64_t now);

/* True for an address of trusted_proxies, and for a peer on the Unix-domain socket (all zero). */
bool listener_trusts(const struct listener *listener, const unsigned char address[16]);

/* Replaces a peer's address by that of the client whose request it passes on: walks
 * X-Forwarded-For from its end as long as the address found so far is a trusted proxy's. Several
 * fields are one list. What is not an address ends the walk. */
void listener_find_client(const struct listener *listener, const struct http_request *request,
                          unsigned char address[16]);

/* Counts a connection; false if its address now has more than max_per_ip. It is counted in any
 * case, until listener_uncount. */
bool listener_count(struct listener *listener, const unsigned char address[16]);

void listener_uncount(struct listener *listener, const unsigned char address[16]);

/* Forgets all counts, after a change of max_per_ip: the caller counts every connection again. */
void listener_forget(struct listener *listener);

#endif
