/* cluster_slots.h - which slots the node's queue is to be bound to, what RabbitMQ has been asked
 * for, and what it has answered. No connection and no lock of its own.
 * Refuses: more than SLOTS_ASKED_MAX bindings that wait for their answer. */
#ifndef WSPUSH_CLUSTER_SLOTS_H
#define WSPUSH_CLUSTER_SLOTS_H

#include "cluster_wire.h"

#define SLOTS_ASKED_MAX 64
#define SLOTS_RECENT 60000 /* milliseconds: younger bindings may not survive RabbitMQ's death */

struct slots_binding {
    uint16_t slot;
    uint32_t version; /* of slots_set */
    bool bound;
    int64_t at; /* when it was asked for */
};

/* Zeroed, no slot is bound. */
struct slots {
    struct {
        bool wanted, dirty; /* to be bound; in the ring of those to be asked for */
        bool maybe;         /* bound, for all we know */
        bool sure;          /* bound, as RabbitMQ has answered on this connection */
        bool restoring;     /* waited for after a connection */
        uint32_t relied;    /* publications that come back through this binding alone */
        uint32_t version;
        int64_t changed_at;
    } slots[WIRE_SLOTS];
    uint16_t dirty[WIRE_SLOTS]; /* a ring of those to be asked for */
    size_t dirty_first, dirty_count;
    struct slots_binding asked[SLOTS_ASKED_MAX]; /* a ring, in RabbitMQ's order */
    size_t asked_first, asked_count;
    size_t restoring; /* how many */
};

/* A slot is to be bound, or not. The last call counts. */
void slots_set(struct slots *slots, uint16_t slot, uint32_t version, bool bound, int64_t now);

/* True if a slot is to be asked for, and not too many are already. */
bool slots_can_ask(const struct slots *slots);

/* Takes the next slot to be asked for: true, and RabbitMQ is to be asked for it now. One that is
 * relied on is not unbound. */
bool slots_ask(struct slots *slots, int64_t now, struct slots_binding *binding);

/* RabbitMQ has answered the oldest that was asked for: false if there is none. */
bool slots_answer(struct slots *slots, struct slots_binding *binding);

/* A new connection: has every wanted slot bound again, and those unbound that may have stayed
 * behind. `restoring` counts those changed at `since` or later, until they are answered; they are
 * asked for first. */
void slots_restore(struct slots *slots, int64_t since);

/* True if what is published under a slot comes to this node for certain; the slot stays bound until
 * slots_release. */
bool slots_rely(struct slots *slots, uint16_t slot);
void slots_release(struct slots *slots, uint16_t slot);

/* When the oldest unanswered one was asked for, or `otherwise`. */
int64_t slots_oldest(const struct slots *slots, int64_t otherwise);

#endif
