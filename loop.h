/* loop.h - the turn of the loop: one thread that polls, accepts, lets sessions work, flushes, and
 * reaps. Everything a node is made of is opened here.
 * Refuses: connections for which there are no descriptors; they wait in the listener's queue. */
#ifndef WSPUSH_LOOP_H
#define WSPUSH_LOOP_H

#include "config.h"
#include "crypto.h"
#include "log.h"
#include "tls.h"

#include <signal.h>

struct loop;

/* What a loop is opened with; it must outlive the loop. */
struct loop_options {
    const struct config *config;
    const struct log *log;
    const struct crypto_keyring *keys;
    const char *version;       /* for /metrics */
    int listener;              /* a listening socket, non-blocking; the loop closes it */
    int admin_listener;        /* the same for /metrics and the like, or -1 */
    int wake[2];               /* a pipe, both ends non-blocking: a byte written to [1] wakes */
    uint64_t max_connections;  /* above 0; descriptors must suffice */
    uint64_t most_connections; /* what loop_reload may raise that to */
    int rpc_listener;          /* in a cluster: for the other nodes; the loop closes it */
    char rpc_host[CONFIG_ADVERTISE_MAX + 1]; /* and the host they find it at */
    struct tls_context *tls;                 /* NULL: connections are plain; the loop frees it */
    volatile sig_atomic_t *stops; /* counts requests to stop: one drains, two end at once */
    volatile sig_atomic_t *calls; /* counts requests for which loop_run is to return */
};

/* Descriptors that a loop needs for so many connections: theirs, those of a few beyond the limit
 * that are told so, and the parking threads' pipes. */
uint64_t loop_descriptors(uint64_t connections);

/* Opens a node. NULL: `error` says why, cut to `room` bytes. */
struct loop *loop_open(const struct loop_options *options, char *error, size_t room);

enum loop_result {
    LOOP_STOPPED, /* it was asked to stop, and has drained */
    LOOP_CALLED,  /* `calls` has grown: the caller does what is wanted, and runs it again */
    LOOP_BROKEN   /* it can never serve: loop_broken says why */
};

/* Serves until there is a reason not to. */
enum loop_result loop_run(struct loop *loop);

const char *loop_broken(const struct loop *loop);

/* To be called when live keys have changed in the `config` that the loop was opened with: takes up
 * what does not take effect by itself, and `max_connections`, at most `most_connections`. */
void loop_reload(struct loop *loop, uint64_t max_connections);

/* Uses `tls`, which it frees in the end, for connections to come; they were not plain before. */
void loop_renew(struct loop *loop, struct tls_context *tls);

/* Counts, for /metrics, that the configuration was read again, and whether it could be used. */
void loop_count_reload(struct loop *loop, bool good);

void loop_close(struct loop *loop);

#endif
