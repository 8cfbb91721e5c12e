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
    const struct crypto_keys *keys;
    int listener;                 /* a listening socket, non-blocking; the loop closes it */
    int wake[2];                  /* a pipe, both ends non-blocking: a byte written to [1] wakes */
    uint64_t max_connections;     /* above 0; descriptors must suffice */
    int rpc_listener;             /* in a cluster: for the other nodes; the loop closes it */
    unsigned char rpc_address[4]; /* and the address they find it at */
    struct tls_context *tls;      /* NULL: connections are plain; the loop frees it */
    volatile sig_atomic_t *stops; /* counts requests to stop: one drains, two end at once */
    volatile sig_atomic_t *reloads; /* counts requests to load the certificate again */
};

/* Descriptors that a loop needs for so many connections: theirs, those of a few beyond the limit
 * that are told so, and the parking threads' pipes. */
uint64_t loop_descriptors(uint64_t connections);

/* Opens a node. NULL: `error` says why, cut to `room` bytes. */
struct loop *loop_open(const struct loop_options *options, char *error, size_t room);

/* Serves until asked to stop, drains and returns NULL; or returns at once why it cannot serve. */
const char *loop_run(struct loop *loop);

void loop_close(struct loop *loop);

#endif
