/* broker.h - what is said to all nodes that need it, through RabbitMQ. The only user of rabbitmq-c.
 *
 * Everything is published under a slot. A node binds the slots in which it has members, so it gets
 * nothing else. On its way each publication passes one of ORDERS queues without a consumer, out of
 * which RabbitMQ moves it at once (TTL 0, dead-letter exchange) to the queues of all nodes: so all
 * nodes get what is published in one order in that order.
 *
 * A thread of its own does the waiting; it connects, and again after a failure with back-off and
 * jitter, restores the bindings and publishes again what was not confirmed and is still wanted.
 * Refuses: more than BROKER_BYTES_MAX bytes that wait, and more than BROKER_MESSAGE_MAX at once. */
#ifndef WSPUSH_BROKER_H
#define WSPUSH_BROKER_H

#include "config.h"
#include "identity.h"
#include "mailbox.h"
#include "order.h"

#define BROKER_SLOTS 16384
#define BROKER_BYTES_MAX (64 * 1024 * 1024)
#define BROKER_MESSAGE_MAX (16 * 1024 * 1024) /* what RabbitMQ takes by default, at least */

struct broker;

struct broker_options {
    const struct config *config;
    struct identity self; /* names the node's queue */
    int wake;
};

enum broker_event_kind {
    BROKER_UP,        /* connected, all slots bound */
    BROKER_DOWN,      /* not connected: `text` says why and what helps */
    BROKER_CONFIRMED, /* the publication `ticket` is on its way to all who are bound */
    BROKER_REFUSED,   /* it is not: nobody will get it */
    BROKER_BOUND,     /* `slot` is bound */
    BROKER_ARRIVED    /* `text` was published under a bound slot */
};

struct broker_event {
    struct mail mail;
    enum broker_event_kind kind;
    uint64_t ticket;
    uint16_t slot;
    uint32_t version; /* BOUND: of the broker_bind that asked for it */
    struct str text;
};

/* Starts the thread. NULL without memory or thread. */
struct broker *broker_open(const struct broker_options *options);

/* Publishes `text` under a slot and in an order, behind all that was published before, unless that
 * can only be done after `deadline` (milliseconds of the steady clock). False if too much waits or
 * there is no memory; else CONFIRMED or REFUSED will follow. */
bool broker_publish(struct broker *broker, uint64_t ticket, uint16_t slot, unsigned order,
                    struct str text, int64_t deadline);

/* Binds a slot, or unbinds it. BOUND follows, once the broker has the binding. A higher `version`
 * than that of the last call for this slot tells the answers apart. */
void broker_bind(struct broker *broker, uint16_t slot, uint32_t version, bool bound);

/* Takes all events as a list of struct broker_event; each is the caller's to free. What has arrived
 * counts as delivered now. */
struct broker_event *broker_take(struct broker *broker);

/* Breaks the connection if the thread is stuck in a write to it. */
void broker_break(struct broker *broker);

/* Ends the thread and frees everything; NULL is allowed. The node's queue goes too. */
void broker_close(struct broker *broker);

#endif
