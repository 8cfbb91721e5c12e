/* broker.c - what is said to all nodes that need it, through RabbitMQ. */
#include "broker.h"

#include "worker.h"

/* rabbitmq-c moved its headers in 0.12 and warns of the old names since 0.15. */
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define PUBLISH_CHANNEL 1
#define CONSUME_CHANNEL 2
#define LOOK_CHANNEL 3
#define HEARTBEAT 10 /* seconds */
#define FRAME_MAX 131072
#define PATIENCE 2 /* seconds for the steps of connecting */
#define PAUSE_MOST 3200
/* Publications that wait for their confirm. A confirm says that RabbitMQ has the message in its
 * order queue, not that it has left it: with many more of them the queues fill behind the confirms.
 */
#define IN_FLIGHT_MAX 16
#define PREFETCH 512 /* deliveries that the loop has not taken */
/* Publications that have been confirmed a moment ago. RabbitMQ moves a message on from its order
 * queue behind the confirm: if it dies between the two, the message is gone. So the last ones are
 * published again on the next connection; who has them takes them for repetitions. */
#define CONFIRMED_KEPT 1000 /* milliseconds; it takes so long only where CPU is short */
#define CONFIRMED_MOST 64
#define CONFIRMED_BYTES (1024 * 1024)

#define BINDS_IN_FLIGHT 64 /* bindings that wait for their answer */
#define TICK 1000          /* milliseconds: heartbeats must go out */
#define RECENT 60000       /* milliseconds: bindings younger than this may not survive its death */

enum job_kind { JOB_PUBLISH, JOB_BIND, JOB_UNBIND, JOB_TAKEN, JOB_STOP };

/* A publication is its own job. */
struct job {
    struct mail mail;
    enum job_kind kind;
    uint64_t ticket, tag;
    uint64_t taken; /* TAKEN: how many deliveries */
    uint16_t slot;
    uint32_t version; /* BIND, UNBIND */
    unsigned order;
    int64_t deadline;
    bool confirmed; /* who waited for it knows */
    int64_t confirmed_at;
    size_t length;
    char text[];
};

struct job_list {
    struct job *first, *last;
    size_t count;
};

struct broker {
    struct broker_options options;
    struct mailbox jobs, events;
    int pipe[2]; /* wakes the thread */
    pthread_t thread;
    bool has_thread;
    atomic_size_t waiting; /* bytes of publications that are neither confirmed nor refused */
    pthread_mutex_t lock;  /* guards `writing` */
    int writing;           /* the connection's descriptor while a write may block, or -1 */
    bool closing;          /* guarded too: no write may block any more */

    /* the thread's own */
    amqp_connection_state_t connection; /* NULL: none */
    struct job_list to_publish, in_flight, confirmed;
    size_t confirmed_bytes;
    bool wanted[BROKER_SLOTS];    /* slots that are to be bound, */
    bool asked_for[BROKER_SLOTS]; /* and those that may be bound, for all we know */
    struct job_list binds;        /* bindings to be asked for */
    struct {
        uint16_t slot;
        uint32_t version;
    } asked[BINDS_IN_FLIGHT]; /* a ring of those asked for and not answered */
    size_t asked_first, asked_count;
    size_t restoring;                /* bindings of a new connection that are not there yet */
    int64_t asked_at[BROKER_SLOTS];  /* when each slot was last to be bound or unbound */
    uint32_t versions[BROKER_SLOTS]; /* of what was last to be done with each */
    bool came_up;                    /* on an earlier connection, */
    int64_t lost_at;                 /* which was lost then */
    bool up, stop;
    uint64_t published;      /* publications of this connection: the last one's tag */
    uint64_t arrived, taken; /* deliveries of this connection, those of them taken, */
    uint64_t acknowledged;   /* and those that the broker knows to be taken */
    uint64_t stale;          /* deliveries of earlier connections that will still be taken */
    int64_t retry_at, pause;
    char error[500], told[500];
    char queue[200];
};

/* --- lists and events ------------------------------------------------------------------------ */

static void append(struct job_list *list, struct job *job)
{
    job->mail.next = NULL;
    if (list->last)
        list->last->mail.next = &job->mail;
    else
        list->first = job;
    list->last = job;
    list->count++;
}

static struct job *take_first(struct job_list *list)
{
    struct job *job = list->first;

    if (!job)
        return NULL;
    list->first = (struct job *)job->mail.next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    return job;
}

/* False without memory. */
static bool post_event(struct broker *broker, struct broker_event event, struct str text)
{
    struct broker_event *copy = malloc(sizeof *copy + text.length);

    if (!copy)
        return false;
    *copy = event;
    if (text.length)
        memcpy(copy + 1, text.at, text.length);
    copy->text = (struct str){(const char *)(copy + 1), text.length};
    mailbox_post(&broker->events, &copy->mail);
    return true;
}

/* Forgets what was confirmed long ago, or is too much. */
static void forget_confirmed(struct broker *broker)
{
    int64_t since = worker_now() - CONFIRMED_KEPT;
    struct job *job;

    while ((job = broker->confirmed.first) &&
           (job->confirmed_at < since || broker->confirmed.count > CONFIRMED_MOST ||
            broker->confirmed_bytes > CONFIRMED_BYTES)) {
        broker->confirmed_bytes -= job->length;
        free(take_first(&broker->confirmed));
    }
}

static void remember_confirmed(struct broker *broker, struct job *job)
{
    job->confirmed = true;
    job->confirmed_at = worker_now();
    append(&broker->confirmed, job);
    broker->confirmed_bytes += job->length;
    forget_confirmed(broker);
}

/* A publication has come to its end; without memory to say so that is waited for. */
static void finish(struct broker *broker, struct job *job, enum broker_event_kind kind)
{
    struct broker_event event = {.kind = kind, .ticket = job->ticket};
    bool told = job->confirmed;

    if (!told)
        atomic_fetch_sub(&broker->waiting, job->length);
    if (kind == BROKER_CONFIRMED)
        remember_confirmed(broker, job);
    else
        free(job);
    if (told)
        return;
    while (!post_event(broker, event, (struct str){0}))
        poll(NULL, 0, 10);
}

/* --- failures -------------------------------------------------------------------------------- */

static bool fail(struct broker *broker, const char *what, const char *remedy)
{
    const struct config *config = broker->options.config;

    snprintf(broker->error, sizeof broker->error, "RabbitMQ at %s port %u: %.150s: %s",
             config->rabbitmq_host, (unsigned)config->rabbitmq_port, what, remedy);
    return false;
}

static bool fail_status(struct broker *broker, int status, const char *remedy)
{
    return fail(broker, amqp_error_string2(status), remedy);
}

/* False, with the reason noted, unless the reply is a good one. */
static bool good_reply(struct broker *broker, amqp_rpc_reply_t reply, const char *remedy)
{
    const amqp_connection_close_t *closed;
    const amqp_channel_close_t *channel;
    char text[200];

    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return true;
    if (reply.reply_type != AMQP_RESPONSE_SERVER_EXCEPTION)
        return fail_status(broker, reply.library_error, remedy);
    closed = reply.reply.decoded;
    channel = reply.reply.decoded;
    if (reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD)
        snprintf(text, sizeof text, "%.*s", (int)closed->reply_text.len,
                 (const char *)closed->reply_text.bytes);
    else if (reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD)
        snprintf(text, sizeof text, "%.*s", (int)channel->reply_text.len,
                 (const char *)channel->reply_text.bytes);
    else
        snprintf(text, sizeof text, "unexpected answer %u", (unsigned)reply.reply.id);
    return fail(broker, text, remedy);
}

/* The connection is of no use any more. What was published on it and is still wanted, or was
 * confirmed a moment ago, is published again on the next one, before everything else. */
static void fall_out(struct broker *broker)
{
    struct job_list again = {0};
    struct job *job;

    if (broker->connection)
        amqp_destroy_connection(broker->connection);
    broker->connection = NULL;
    if (broker->up)
        broker->lost_at = worker_now();
    broker->up = false;
    if (strcmp(broker->error, broker->told) != 0) {
        memcpy(broker->told, broker->error, sizeof broker->told);
        post_event(broker, (struct broker_event){.kind = BROKER_DOWN}, str_from(broker->error));
    }
    forget_confirmed(broker);
    while ((job = take_first(&broker->confirmed)))
        append(&again, job);
    broker->confirmed_bytes = 0;
    while ((job = take_first(&broker->in_flight)))
        append(&again, job);
    while ((job = take_first(&broker->to_publish)))
        append(&again, job);
    broker->to_publish = again;
    while ((job = take_first(&broker->binds)))
        free(job);
    broker->asked_count = broker->restoring = 0;
    broker->stale += broker->arrived - broker->taken;
    broker->arrived = broker->taken = broker->acknowledged = broker->published = 0;
    broker->retry_at = worker_now() + worker_pause(&broker->pause, PAUSE_MOST);
}

/* --- connecting ------------------------------------------------------------------------------ */

static const char out_of_reach[] = "start it there, or correct [rabbitmq] host and port";
static const char out_of_order[] = "see its log";

static amqp_bytes_t bytes_of(const char *text)
{
    return amqp_cstring_bytes(text);
}

static bool log_in(struct broker *broker)
{
    const struct config *config = broker->options.config;
    struct timeval patience = {PATIENCE, 0};
    /* asked for, so that we hear of it if the queue is deleted; else we would be deaf and not know
     */
    amqp_table_entry_t notify = {bytes_of("consumer_cancel_notify"),
                                 {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
    amqp_table_entry_t capabilities = {
        bytes_of("capabilities"), {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {1, &notify}}};
    amqp_table_t properties = {1, &capabilities};
    amqp_socket_t *socket;
    int status;

    broker->connection = amqp_new_connection();
    socket = broker->connection ? amqp_tcp_socket_new(broker->connection) : NULL;
    if (!socket)
        return fail(broker, "out of memory", "free some");
    amqp_set_handshake_timeout(broker->connection, &patience);
    amqp_set_rpc_timeout(broker->connection, &patience);
    status = amqp_socket_open_noblock(socket, config->rabbitmq_host, (int)config->rabbitmq_port,
                                      &patience);
    if (status != AMQP_STATUS_OK)
        return fail_status(broker, status, out_of_reach);
    return good_reply(broker,
                      amqp_login_with_properties(broker->connection, config->rabbitmq_vhost, 0,
                                                 FRAME_MAX, HEARTBEAT, &properties,
                                                 AMQP_SASL_METHOD_PLAIN, config->rabbitmq_user,
                                                 config->rabbitmq_password),
                      "correct [rabbitmq] user, password and vhost");
}

static bool last_good(struct broker *broker, const char *remedy)
{
    return good_reply(broker, amqp_get_rpc_reply(broker->connection), remedy);
}

/* The exchange that nodes' queues are bound to, and before it those that give one order. */
static bool declare_exchanges(struct broker *broker)
{
    const char *name = broker->options.config->rabbitmq_exchange;
    char order[160];
    amqp_table_entry_t entries[3] = {
        {bytes_of("x-queue-type"),
         {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes_of("classic")}},
        {bytes_of("x-message-ttl"), {.kind = AMQP_FIELD_KIND_I32, .value.i32 = 0}},
        {bytes_of("x-dead-letter-exchange"),
         {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes_of(name)}}};
    amqp_table_t arguments = {3, entries};

    amqp_exchange_declare(broker->connection, CONSUME_CHANNEL, bytes_of(name), bytes_of("direct"),
                          0, 1, 0, 0, amqp_empty_table);
    for (int i = 0; i < ORDERS; i++) {
        if (!last_good(broker, "an exchange or queue of this name but of another kind is there: "
                               "delete it, or choose another [rabbitmq] exchange"))
            return false;
        snprintf(order, sizeof order, "%s.order.%d", name, i);
        amqp_exchange_declare(broker->connection, CONSUME_CHANNEL, bytes_of(order),
                              bytes_of("fanout"), 0, 1, 0, 0, amqp_empty_table);
        if (!last_good(broker, out_of_order))
            return false;
        amqp_queue_declare(broker->connection, CONSUME_CHANNEL, bytes_of(order), 0, 1, 0, 0,
                           arguments);
        if (!last_good(broker, out_of_order))
            return false;
        amqp_queue_bind(broker->connection, CONSUME_CHANNEL, bytes_of(order), bytes_of(order),
                        amqp_empty_bytes, amqp_empty_table);
    }
    return last_good(broker, out_of_order);
}

/* The node's queue. It outlives a connection, so that nothing is lost while the node connects
 * again, but not the node. */
static bool declare_queue(struct broker *broker)
{
    int32_t expires = (int32_t)(broker->options.config->node_ttl * 2 + 60000);
    amqp_table_entry_t entries[3] = {
        {bytes_of("x-queue-type"),
         {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = bytes_of("classic")}},
        {bytes_of("x-expires"), {.kind = AMQP_FIELD_KIND_I32, .value.i32 = expires}},
        {bytes_of("x-max-length-bytes"),
         {.kind = AMQP_FIELD_KIND_I32, .value.i32 = BROKER_BYTES_MAX}}};
    amqp_table_t arguments = {3, entries};

    amqp_queue_declare(broker->connection, CONSUME_CHANNEL, bytes_of(broker->queue), 0, 1, 0, 0,
                       arguments);
    if (!last_good(broker, out_of_order))
        return false;
    amqp_basic_qos(broker->connection, CONSUME_CHANNEL, 0, PREFETCH, 0);
    if (!last_good(broker, out_of_order))
        return false;
    /* exclusive: beside what the broker still takes for our last connection, order would be lost */
    amqp_basic_consume(broker->connection, CONSUME_CHANNEL, bytes_of(broker->queue),
                       amqp_empty_bytes, 0, 0, 1, amqp_empty_table);
    return last_good(broker, "it has not seen yet that the last connection has gone");
}

static bool open_channels(struct broker *broker)
{
    amqp_channel_open(broker->connection, PUBLISH_CHANNEL);
    if (!last_good(broker, out_of_order))
        return false;
    amqp_confirm_select(broker->connection, PUBLISH_CHANNEL);
    if (!last_good(broker, out_of_order))
        return false;
    amqp_channel_open(broker->connection, CONSUME_CHANNEL);
    return last_good(broker, out_of_order);
}

static struct job *new_job(enum job_kind kind, struct str text)
{
    struct job *job = malloc(sizeof *job + text.length);

    if (!job)
        return NULL;
    *job = (struct job){.kind = kind, .length = text.length};
    if (text.length)
        memcpy(job->text, text.at, text.length);
    return job;
}

/* True if the node's queue is there, and with it the bindings that it had. */
static bool has_queue(struct broker *broker)
{
    amqp_channel_close_ok_t closed = {0};

    if (!broker->came_up)
        return false;
    amqp_channel_open(broker->connection, LOOK_CHANNEL);
    if (amqp_get_rpc_reply(broker->connection).reply_type != AMQP_RESPONSE_NORMAL)
        return false;
    amqp_queue_declare(broker->connection, LOOK_CHANNEL, bytes_of(broker->queue), 1, 0, 0, 0,
                       amqp_empty_table);
    if (amqp_get_rpc_reply(broker->connection).reply_type == AMQP_RESPONSE_NORMAL)
        return true;
    /* 404 ends the channel; it is not used again */
    amqp_send_method(broker->connection, LOOK_CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &closed);
    return false;
}

static bool restore_binding(struct broker *broker, uint16_t slot)
{
    struct job *job = new_job(broker->wanted[slot] ? JOB_BIND : JOB_UNBIND, (struct str){0});

    if (!job)
        return fail(broker, "out of memory", "free some");
    job->slot = slot;
    job->version = broker->versions[slot];
    append(&broker->binds, job);
    return true;
}

/* Restores the bindings that were asked for since `since`, or those from before. */
static bool restore_some(struct broker *broker, int64_t since, bool before)
{
    for (unsigned slot = 0; slot < BROKER_SLOTS; slot++)
        if ((broker->wanted[slot] || broker->asked_for[slot]) &&
            (broker->asked_at[slot] < since) == before && !restore_binding(broker, (uint16_t)slot))
            return false;
    return true;
}

/* Has every wanted slot bound anew, and those unbound that may have stayed behind. If the queue is
 * there its bindings are too, but for those that were young when RabbitMQ died: those are waited
 * for. */
static bool restore_bindings(struct broker *broker, bool had_queue)
{
    int64_t since = had_queue ? broker->lost_at - RECENT : INT64_MIN;

    if (!restore_some(broker, since, false))
        return false;
    broker->restoring = broker->binds.count;
    return restore_some(broker, since, true);
}

static void come_up(struct broker *broker)
{
    broker->up = broker->came_up = true;
    broker->pause = 0;
    broker->told[0] = '\0';
    post_event(broker, (struct broker_event){.kind = BROKER_UP}, (struct str){0});
}

static void connect_to(struct broker *broker)
{
    bool good, had_queue;

    if (broker->connection || worker_now() < broker->retry_at)
        return;
    good = log_in(broker);
    had_queue = good && has_queue(broker);
    broker->came_up &=
        had_queue; /* a queue made anew has no bindings, also for the next connection */
    if (!good || !open_channels(broker) || !declare_exchanges(broker) || !declare_queue(broker) ||
        !restore_bindings(broker, had_queue)) {
        fall_out(broker);
        return;
    }
    if (!broker->restoring)
        come_up(broker);
}

/* --- what comes from the broker -------------------------------------------------------------- */

static void take_confirm(struct broker *broker, uint64_t tag, bool multiple,
                         enum broker_event_kind kind)
{
    struct job_list rest = {0};
    struct job *job;

    while ((job = broker->in_flight.first) && job->tag <= tag) {
        take_first(&broker->in_flight);
        if (multiple || job->tag == tag)
            finish(broker, job, kind);
        else
            append(&rest, job); /* confirmed out of turn */
    }
    while ((job = take_first(&broker->in_flight)))
        append(&rest, job);
    broker->in_flight = rest;
}

static void take_bound(struct broker *broker, bool bound)
{
    uint16_t slot = broker->asked[broker->asked_first].slot;
    uint32_t version = broker->asked[broker->asked_first].version;

    if (!broker->asked_count)
        return;
    broker->asked_first = (broker->asked_first + 1) % BINDS_IN_FLIGHT;
    broker->asked_count--;
    if (broker->restoring && --broker->restoring == 0)
        come_up(broker);
    broker->asked_for[slot] &= bound;
    if (bound)
        post_event(broker,
                   (struct broker_event){.kind = BROKER_BOUND, .slot = slot, .version = version},
                   (struct str){0});
}

static bool take_delivery(struct broker *broker)
{
    amqp_message_t message;
    amqp_rpc_reply_t reply = amqp_read_message(broker->connection, CONSUME_CHANNEL, &message, 0);
    bool posted;

    if (!good_reply(broker, reply, out_of_order))
        return false;
    posted = post_event(broker, (struct broker_event){.kind = BROKER_ARRIVED},
                        (struct str){message.body.bytes, message.body.len});
    amqp_destroy_message(&message);
    if (!posted)
        return fail(broker, "out of memory", "free some"); /* not acknowledged: it comes again */
    broker->arrived++;
    return true;
}

/* Says why the broker ends the connection or a channel. */
static bool take_close(struct broker *broker, const amqp_method_t *method)
{
    amqp_rpc_reply_t reply = {.reply_type = AMQP_RESPONSE_SERVER_EXCEPTION, .reply = *method};

    return good_reply(broker, reply, out_of_order);
}

static bool take_method(struct broker *broker, const amqp_method_t *method)
{
    const amqp_basic_ack_t *ack = method->decoded;
    const amqp_basic_nack_t *nack = method->decoded;

    switch (method->id) {
    case AMQP_BASIC_ACK_METHOD:
        take_confirm(broker, ack->delivery_tag, ack->multiple, BROKER_CONFIRMED);
        return true;
    case AMQP_BASIC_NACK_METHOD:
        take_confirm(broker, nack->delivery_tag, nack->multiple, BROKER_REFUSED);
        return true;
    case AMQP_BASIC_DELIVER_METHOD:
        return take_delivery(broker);
    case AMQP_QUEUE_BIND_OK_METHOD:
    case AMQP_QUEUE_UNBIND_OK_METHOD:
        take_bound(broker, method->id == AMQP_QUEUE_BIND_OK_METHOD);
        return true;
    case AMQP_CONNECTION_CLOSE_METHOD:
    case AMQP_CHANNEL_CLOSE_METHOD:
        return take_close(broker, method);
    case AMQP_BASIC_CANCEL_METHOD:
        return fail(broker, "the node's queue was deleted", "it will be made anew");
    default:
        return true;
    }
}

static bool take_frames(struct broker *broker)
{
    for (;;) {
        struct timeval none = {0, 0};
        amqp_frame_t frame;
        int status;

        amqp_maybe_release_buffers(broker->connection);
        status = amqp_simple_wait_frame_noblock(broker->connection, &frame, &none);
        if (status == AMQP_STATUS_TIMEOUT)
            return true;
        if (status != AMQP_STATUS_OK)
            return fail_status(broker, status, out_of_order);
        if (frame.frame_type == AMQP_FRAME_METHOD && !take_method(broker, &frame.payload.method))
            return false;
    }
}

/* --- what goes to it ------------------------------------------------------------------------- */

/* The library waits for ever when a socket is full: nothing is written unless there is room. */
static bool is_writable(const struct broker *broker)
{
    struct pollfd socket = {amqp_get_sockfd(broker->connection), POLLOUT, 0};

    return poll(&socket, 1, 0) == 1;
}

/* A message larger than the room may block all the same, until broker_break. */
static void set_writing(struct broker *broker, int fd)
{
    pthread_mutex_lock(&broker->lock);
    broker->writing = fd;
    if (fd >= 0 && broker->closing)
        shutdown(fd, SHUT_RDWR);
    pthread_mutex_unlock(&broker->lock);
}

void broker_break(struct broker *broker)
{
    pthread_mutex_lock(&broker->lock);
    if (broker->writing >= 0)
        shutdown(broker->writing, SHUT_RDWR);
    pthread_mutex_unlock(&broker->lock);
}

static bool publish(struct broker *broker, struct job *job)
{
    char order[160], key[8];
    int status;

    snprintf(order, sizeof order, "%s.order.%u", broker->options.config->rabbitmq_exchange,
             job->order);
    snprintf(key, sizeof key, "%u", (unsigned)job->slot);
    job->tag = ++broker->published;
    append(&broker->in_flight, job);
    set_writing(broker, amqp_get_sockfd(broker->connection));
    status = amqp_basic_publish(broker->connection, PUBLISH_CHANNEL, bytes_of(order), bytes_of(key),
                                0, 0, NULL, (amqp_bytes_t){job->length, job->text});
    set_writing(broker, -1);
    return status == AMQP_STATUS_OK || fail_status(broker, status, out_of_order);
}

static bool publish_some(struct broker *broker)
{
    struct job *job;

    forget_confirmed(broker);
    while (broker->up && broker->in_flight.count < IN_FLIGHT_MAX && broker->to_publish.first &&
           is_writable(broker)) {
        job = take_first(&broker->to_publish);
        if (!job->confirmed && job->deadline < worker_now())
            finish(broker, job, BROKER_REFUSED); /* who waited for it has been told so */
        else if (!publish(broker, job))
            return false;
    }
    return true;
}

static bool ask_binding(struct broker *broker, const struct job *job)
{
    amqp_bytes_t queue = bytes_of(broker->queue);
    amqp_bytes_t exchange = bytes_of(broker->options.config->rabbitmq_exchange);
    char text[8];
    size_t last;
    amqp_queue_bind_t bind = {.queue = queue, .exchange = exchange};
    amqp_queue_unbind_t unbind = {.queue = queue, .exchange = exchange};
    int status;

    snprintf(text, sizeof text, "%u", (unsigned)job->slot);
    bind.routing_key = unbind.routing_key = bytes_of(text);
    if (job->kind == JOB_BIND)
        status =
            amqp_send_method(broker->connection, CONSUME_CHANNEL, AMQP_QUEUE_BIND_METHOD, &bind);
    else
        status = amqp_send_method(broker->connection, CONSUME_CHANNEL, AMQP_QUEUE_UNBIND_METHOD,
                                  &unbind);
    last = (broker->asked_first + broker->asked_count++) % BINDS_IN_FLIGHT;
    broker->asked[last].slot = job->slot;
    broker->asked[last].version = job->version;
    broker->asked_for[job->slot] |= job->kind == JOB_BIND;
    return status == AMQP_STATUS_OK || fail_status(broker, status, out_of_order);
}

static bool ask_bindings(struct broker *broker)
{
    while (broker->binds.first && broker->asked_count < BINDS_IN_FLIGHT && is_writable(broker)) {
        struct job *job = take_first(&broker->binds);
        bool asked = ask_binding(broker, job);

        free(job);
        if (!asked)
            return false;
    }
    return true;
}

/* Deliveries that the loop has taken; those of earlier connections come again if they must. */
static void count_taken(struct broker *broker, uint64_t count)
{
    uint64_t stale = count < broker->stale ? count : broker->stale;

    broker->stale -= stale;
    broker->taken += count - stale;
}

static bool acknowledge(struct broker *broker)
{
    int status;

    if (broker->taken == broker->acknowledged || !is_writable(broker))
        return true;
    status = amqp_basic_ack(broker->connection, CONSUME_CHANNEL, broker->taken, 1);
    broker->acknowledged = broker->taken;
    return status == AMQP_STATUS_OK || fail_status(broker, status, out_of_order);
}

/* --- the thread ------------------------------------------------------------------------------ */

static void do_job(struct broker *broker, struct job *job)
{
    switch (job->kind) {
    case JOB_PUBLISH:
        append(&broker->to_publish, job);
        return;
    case JOB_BIND:
    case JOB_UNBIND:
        broker->wanted[job->slot] = job->kind == JOB_BIND;
        broker->asked_at[job->slot] = worker_now();
        broker->versions[job->slot] = job->version;
        if (broker->connection) {
            append(&broker->binds, job);
            return;
        }
        break;
    case JOB_TAKEN:
        count_taken(broker, job->taken);
        break;
    case JOB_STOP:
        broker->stop = true;
        break;
    }
    free(job);
}

static void do_jobs(struct broker *broker)
{
    struct mail *mail = mailbox_take(&broker->jobs), *next;

    for (; mail; mail = next) {
        next = mail->next;
        do_job(broker, (struct job *)mail);
    }
}

static void drop_expired(struct broker *broker)
{
    struct job_list kept = {0};
    struct job *job;
    int64_t now = worker_now();

    while ((job = take_first(&broker->to_publish))) {
        if (job->deadline < now)
            finish(broker, job, BROKER_REFUSED);
        else
            append(&kept, job);
    }
    broker->to_publish = kept;
}

static bool has_output(const struct broker *broker)
{
    return (broker->up && broker->to_publish.first && broker->in_flight.count < IN_FLIGHT_MAX) ||
           (broker->binds.first && broker->asked_count < BINDS_IN_FLIGHT) ||
           broker->taken != broker->acknowledged;
}

static void wait_for_work(const struct broker *broker)
{
    struct pollfd polls[2] = {{broker->pipe[0], POLLIN, 0}, {-1, POLLIN, 0}};
    int64_t wait = broker->connection ? TICK : broker->retry_at - worker_now();

    if (broker->connection) {
        polls[1].fd = amqp_get_sockfd(broker->connection);
        if (has_output(broker))
            polls[1].events = POLLIN | POLLOUT;
        if (amqp_frames_enqueued(broker->connection) || amqp_data_in_buffer(broker->connection))
            wait = 0;
    }
    poll(polls, 2, wait < 0 ? 0 : wait > TICK ? TICK : (int)wait);
}

static void *work(void *argument)
{
    struct broker *broker = argument;

    while (!broker->stop) {
        connect_to(broker);
        wait_for_work(broker);
        mailbox_drain(broker->pipe[0]);
        do_jobs(broker);
        if (broker->connection && !(take_frames(broker) && acknowledge(broker) &&
                                    ask_bindings(broker) && publish_some(broker)))
            fall_out(broker);
        if (!broker->connection)
            drop_expired(broker);
    }
    if (broker->connection && is_writable(broker))
        amqp_queue_delete(broker->connection, CONSUME_CHANNEL, bytes_of(broker->queue), 0, 0);
    return NULL;
}

/* --- the loop's side ------------------------------------------------------------------------- */

bool broker_publish(struct broker *broker, uint64_t ticket, uint16_t slot, unsigned order,
                    struct str text, int64_t deadline)
{
    struct job *job;

    if (text.length > BROKER_MESSAGE_MAX ||
        atomic_load(&broker->waiting) + text.length > BROKER_BYTES_MAX)
        return false;
    job = new_job(JOB_PUBLISH, text);
    if (!job)
        return false;
    job->ticket = ticket;
    job->slot = slot;
    job->order = order;
    job->deadline = deadline;
    atomic_fetch_add(&broker->waiting, text.length);
    mailbox_post(&broker->jobs, &job->mail);
    return true;
}

void broker_bind(struct broker *broker, uint16_t slot, uint32_t version, bool bound)
{
    struct job *job = new_job(bound ? JOB_BIND : JOB_UNBIND, (struct str){0});

    if (!job)
        return;
    job->slot = slot;
    job->version = version;
    mailbox_post(&broker->jobs, &job->mail);
}

struct broker_event *broker_take(struct broker *broker)
{
    struct broker_event *list = (struct broker_event *)mailbox_take(&broker->events);
    uint64_t taken = 0;
    struct job *job;

    for (const struct broker_event *event = list; event;
         event = (const struct broker_event *)event->mail.next)
        taken += event->kind == BROKER_ARRIVED;
    job = taken ? new_job(JOB_TAKEN, (struct str){0}) : NULL;
    if (job) {
        job->taken = taken;
        mailbox_post(&broker->jobs, &job->mail);
    }
    return list;
}

static bool start(struct broker *broker)
{
    broker->has_thread = worker_start(&broker->thread, work, broker);
    return broker->has_thread;
}

struct broker *broker_open(const struct broker_options *options)
{
    struct broker *broker = calloc(1, sizeof *broker);
    char life[IDENTITY_TEXT_MAX];

    if (!broker)
        return NULL;
    broker->options = *options;
    identity_write(&options->self, life);
    snprintf(broker->queue, sizeof broker->queue, "%s.%s", options->config->rabbitmq_exchange,
             life);
    pthread_mutex_init(&broker->lock, NULL);
    broker->writing = -1;
    mailbox_open(&broker->events, options->wake);
    mailbox_open(&broker->jobs, -1);
    broker->pipe[0] = broker->pipe[1] = -1;
    if (mailbox_pipe(broker->pipe)) {
        broker->jobs.wake = broker->pipe[1];
        if (start(broker))
            return broker;
    }
    broker_close(broker);
    return NULL;
}

static void free_mail(struct mail *list)
{
    while (list) {
        struct mail *next = list->next;

        free(list);
        list = next;
    }
}

void broker_close(struct broker *broker)
{
    struct job *job;

    if (!broker)
        return;
    if (broker->has_thread) {
        while (!(job = new_job(JOB_STOP, (struct str){0})))
            poll(NULL, 0, 10);
        mailbox_post(&broker->jobs, &job->mail);
        pthread_mutex_lock(&broker->lock);
        broker->closing = true;
        pthread_mutex_unlock(&broker->lock);
        broker_break(broker);
        pthread_join(broker->thread, NULL);
    }
    if (broker->connection)
        amqp_destroy_connection(broker->connection);
    free_mail(mailbox_take(&broker->jobs));
    free_mail(mailbox_take(&broker->events));
    free_mail((struct mail *)broker->to_publish.first);
    free_mail((struct mail *)broker->in_flight.first);
    free_mail((struct mail *)broker->confirmed.first);
    free_mail((struct mail *)broker->binds.first);
    mailbox_close(&broker->jobs);
    mailbox_close(&broker->events);
    pthread_mutex_destroy(&broker->lock);
    for (int i = 0; i < 2; i++)
        if (broker->pipe[i] >= 0)
            close(broker->pipe[i]);
    free(broker);
}
