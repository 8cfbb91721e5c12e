/* webhook.h - events of systems, delivered to the receivers that these systems have named.
 *
 * The loop appends events to bounded queues and never waits. Threads, started with the first
 * webhook, POST them in batches, signed as Standard Webhooks says. A receiver gets each event at
 * least once and in order, or a `start` event with the number of those lost. `start` begins an
 * epoch, within which events are numbered without holes. A system has one batch under way at a
 * time; it is repeated, with the same id and body, until the receiver answers 2xx. If the queue is
 * full, or its oldest event too old, the whole queue is dropped and a larger epoch begins.
 *
 * All functions are for the loop's thread. */
#ifndef WSPUSH_WEBHOOK_H
#define WSPUSH_WEBHOOK_H

#include "crypto.h"

#define WEBHOOK_BYTES_MAX (64 * 1024 * 1024) /* of all queues together */
#define WEBHOOK_DESCRIPTORS 100              /* open at most, with those of name look-ups */
#define WEBHOOK_DELIVERIES 20                /* attempts that are remembered, of a system */
#define WEBHOOK_SECRET_LIFE 86400            /* seconds for which the secret before signs as well */

enum webhook_kind {
    WEBHOOK_CONNECT,
    WEBHOOK_DISCONNECT,
    WEBHOOK_JOIN,
    WEBHOOK_LEAVE,
    WEBHOOK_MESSAGE,
    WEBHOOK_END /* of a node; always sent */
};

/* One member of an event. A row of them ends with a NULL name. */
struct webhook_field {
    const char *name;
    enum { WEBHOOK_TEXT, WEBHOOK_NUMBER, WEBHOOK_JSON } type;
    struct str text; /* valid UTF-8; or JSON, and if that is empty the event is lost */
    int64_t number;
};

struct webhook_options {
    /* these four outlive the webhooks, and do not change: */
    const struct crypto_keyring *keys;
    const char *node;    /* this one's name */
    const char *version; /* of wspush */
    const char *ca;      /* PEM file of trusted certificates; "": the system's */
    int64_t timeout;     /* milliseconds for a request once there is a connection */
    int64_t pause; /* before the first repetition; doubles to 30 times as much; all +-1/3; >= 2 */
    int64_t retry; /* milliseconds after which an event is too old */
    int64_t clock; /* see webhook_set_clock; 0: epochs are of the wall clock */
    size_t queue;  /* bytes of memory for the events of a system; at least 1 MiB */
};

/* What a system wants. */
struct webhook_settings {
    struct str url;     /* one that is allowed, see webhook_client.h; "": no events */
    unsigned events;    /* bits: 1 << kind */
    uint64_t version;   /* of the secret */
    int64_t rotated_at; /* unix time at which it replaced the one before; 0: there was none */
};

struct webhooks;
struct webhook; /* of one system; valid until webhook_close */

/* Copies the options. NULL: out of memory or descriptors. */
struct webhooks *webhook_open(const struct webhook_options *options);

/* Sets what a system wants. Unless only the secret changes, an epoch begins; its `start` counts
 * what was queued, and `lost`, as lost. Pass the number of connected clients: the receiver has not
 * heard of them. False: out of memory, or `url` is no URL. */
bool webhook_set(struct webhooks *webhooks, struct str system,
                 const struct webhook_settings *settings, uint64_t lost);

/* The webhook of a system; NULL if there was none since webhook_open. `webhooks` may be NULL. */
struct webhook *webhook_find(const struct webhooks *webhooks, struct str system);

/* Queues an event of this moment, unless the system does not want it. False only for a message,
 * which is dropped: the queue is full. Messages may fill three quarters of it, so that they never
 * displace other events. */
bool webhook_push(struct webhooks *webhooks, struct webhook *webhook, enum webhook_kind kind,
                  const struct webhook_field *fields);

/* Walks over all webhooks: the next one from *place on (start with 0); NULL at the end. */
struct webhook *webhook_next(const struct webhooks *webhooks, size_t *place);

/* The system of a webhook. */
struct str webhook_system(const struct webhook *webhook);

/* The name of this node. */
const char *webhook_node(const struct webhooks *webhooks);

/* True if the system wants such events. */
bool webhook_wants(struct webhooks *webhooks, const struct webhook *webhook,
                   enum webhook_kind kind);

/* From now on epochs are of a clock that all nodes share: it is so many milliseconds ahead of
 * os_now_ms(). */
void webhook_set_clock(struct webhooks *webhooks, int64_t clock);

/* Begins an epoch: call if other nodes declared this one dead. `lost` as in webhook_set. */
void webhook_restart(struct webhooks *webhooks, struct webhook *webhook, uint64_t lost);

/* One attempt. */
struct webhook_delivery {
    int64_t at;        /* unix time at which it began, in milliseconds */
    const char *error; /* why there was no response; static */
    int status;        /* of the response; 0: none */
    unsigned events;   /* in the batch */
    unsigned attempt;  /* 1: the first one to send this batch */
    unsigned took;     /* milliseconds */
};

/* How a webhook is doing. */
struct webhook_report {
    int64_t epoch;
    uint64_t seq;                     /* of the event that was queued last */
    uint64_t lost;                    /* events of which the receiver does not know yet */
    size_t queued;                    /* bytes */
    size_t count;                     /* events that wait or are under way */
    struct webhook_settings settings; /* `url` is valid until webhook_set */
    bool off;                         /* the receiver answered 410, or the URL is "" */
    uint64_t deliveries;              /* attempts of all time; */
    struct webhook_delivery last[WEBHOOK_DELIVERIES]; /* number n at n % WEBHOOK_DELIVERIES */
};

void webhook_read_report(struct webhooks *webhooks, const struct webhook *webhook,
                         struct webhook_report *report);

/* Numbers since webhook_open, and of now. */
struct webhook_stats {
    uint64_t delivered, lost; /* events */
    uint64_t refused;         /* messages that did not fit */
    uint64_t failures;        /* attempts that were not taken */
    size_t queued;            /* bytes */
    int64_t lag;              /* milliseconds for which the oldest event has waited */
    size_t waiting;           /* systems with something queued or under way */
};

void webhook_measure(struct webhooks *webhooks, struct webhook_stats *stats);

/* Queues a last event, `end`, for each system, and ends all pauses. Later events are ignored. All
 * is delivered when no system is `waiting`. */
void webhook_finish(struct webhooks *webhooks);

/* Drops what is queued and frees everything, within 0.2 s. If a thread is still dialing then, it
 * and the memory stay until the process ends. NULL is allowed. */
void webhook_close(struct webhooks *webhooks);

/* Appends the secret of a system, "whsec_" and base64, derived from the first of the keys. */
bool webhook_append_secret(struct buf *out, const struct crypto_keyring *keys, struct str system,
                           uint64_t version);

/* Appends the signature of ID.TIMESTAMP.BODY: "v1," and base64 of its HMAC. */
bool webhook_append_signature(struct buf *out, const unsigned char secret[CRYPTO_HASH_SIZE],
                              struct str text);

#endif
