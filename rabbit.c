/* rabbit.c - one connection to RabbitMQ.
 *
 * Connecting: rabbit_connect takes step after step and waits for each: look-up, TCP, TLS, log-in,
 * channels, exchanges, queues, consumer. From then on nothing waits. rabbit_next takes frames as
 * they come and joins contents itself, since amqp_read_message waits for the rest of one.
 * rabbit_publish sends a frame only when there is space: the library waits for ever on a full
 * socket, so
 *   - a frame of content has at most PIECE bytes, and
 *   - a socket that poll() calls writable takes more than that (SO_SNDBUF: a third of it on Linux;
 *     SO_SNDLOWAT elsewhere).
 *
 * TLS: the library reads whole records, so nothing stays behind that poll() does not show.
 *
 * Channels: publications have one, since their frames must not mix with other contents; consumer
 * and bindings have one, so that RabbitMQ does them in order; declarations have one; the look for
 * the node's queue has one, which RabbitMQ closes if there is no queue.
 *
 * Errors: what the library or RabbitMQ says becomes one text with host, port and remedy, and never
 * the password.
 *
 * Threads: one; only rabbit_stop may be called by another. */
#include "rabbit.h"

#include "cluster_tls.h"
#include "dial.h"
#include "host.h"

/* rabbitmq-c moved its headers in 0.12, and warns of the old names since 0.15. */
#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/ssl_socket.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>
#endif

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PUBLISH_CHANNEL = 1, CONSUME_CHANNEL, DECLARE_CHANNEL, LOOK_CHANNEL };

#define HEARTBEAT 10 /* seconds; RabbitMQ drops a node that is silent for two of them */
#define FRAME_MAX 131072
#define PIECE 65536
#define STEP_TIME 2 /* seconds for each step of connecting */
#define SEND_BUFFER 524288

#define NAME_MAX_BYTES 255 /* of AMQP's short strings */
#define NODE_BYTES 130

struct rabbit_content {
    bool open;
    char *memory; /* NULL: it is skipped */
    size_t size, length;
};

struct rabbit {
    struct config *config; /* a copy: the section rabbitmq, and node_ttl */
    unsigned partitions;
    size_t headroom;
    bool quorum; /* queues are replicated */
    char name[sizeof((struct config *)0)->rabbitmq_exchange + sizeof RABBIT_LAYOUT + 2];
    char key[NODE_BYTES + 2]; /* the node's own routing key */
    char queue[NAME_MAX_BYTES + 1];
    unsigned attempt; /* counts the names of the node's queue */
    atomic_bool stop;

    size_t dialled; /* counts the attempts to connect: each takes the next host */
    char host[256]; /* of the last attempt */
    uint64_t port;
    struct cluster_tls tls;

    amqp_connection_state_t connection; /* NULL: none */
    bool consumed;                      /* the queue of this name was consumed before */
    struct rabbit_content contents[2];  /* of returns, and of deliveries */
    struct str rest;                    /* of a publication */
    unsigned code;                      /* RabbitMQ's, of the last error; or 0 */
    char error[600];
};

/* "@" and the node; ".", attempt and layout behind the longest exchange. */
_Static_assert(sizeof((struct config *)0)->rabbitmq_exchange + NODE_BYTES + 15 <= NAME_MAX_BYTES,
               "the name of a node's queue fits a short string");

static amqp_bytes_t rabbit_bytes(struct str text)
{
    return (amqp_bytes_t){text.length, (void *)(uintptr_t)text.at};
}

static amqp_bytes_t rabbit_text(const char *text)
{
    return rabbit_bytes(str_from(text));
}

/* --- errors ----------------------------------------------------------------------------------- */

bool rabbit_fail(struct rabbit *rabbit, const char *what, const char *remedy)
{
    snprintf(rabbit->error, sizeof rabbit->error, "RabbitMQ at %s port %u: %.250s: %s",
             rabbit->host, (unsigned)rabbit->port, what, remedy);
    return false;
}

const char *rabbit_error(const struct rabbit *rabbit)
{
    return rabbit->error;
}

static const char see_log[] = "see its log";
static const char not_known[] = "correct [rabbitmq] host or hosts, or the name service";
static const char not_there[] = "start it there, or correct [rabbitmq] host and port, or hosts";

static bool rabbit_fail_memory(struct rabbit *rabbit)
{
    return rabbit_fail(rabbit, "out of memory", "free some");
}

/* Says what the library's status means, in plain words where it has none. */
static bool rabbit_fail_status(struct rabbit *rabbit, int status)
{
    switch (status) {
    case AMQP_STATUS_TIMEOUT:
        return rabbit_fail(rabbit, "no answer within 2 s", "see whether it hangs");
    case AMQP_STATUS_CONNECTION_CLOSED:
        return rabbit_fail(rabbit, "it has closed the connection", see_log);
    case AMQP_STATUS_SOCKET_ERROR:
        return rabbit_fail(rabbit, "the connection broke", see_log);
    default:
        return rabbit_fail(rabbit, amqp_error_string2(status), see_log);
    }
}

/* The remedy for an error code of RabbitMQ. */
static const char *rabbit_remedy(unsigned code)
{
    switch (code) {
    case AMQP_CONNECTION_FORCED:
        return "it stops, or an operator closed the connection";
    case AMQP_ACCESS_REFUSED:
        return "[rabbitmq] user needs permission to configure, write and read what begins with the "
               "exchange's name (rabbitmqctl set_permissions)";
    case AMQP_NOT_FOUND:
        return "if RabbitMQ is a cluster, start the node that has the queue, or delete the queue; "
               "see its log";
    case AMQP_PRECONDITION_FAILED:
        return "an exchange or queue of this name but of another kind is there: delete it, or "
               "choose another [rabbitmq] exchange; queue_type = quorum needs RabbitMQ 3.10";
    default:
        return see_log;
    }
}

/* Keeps why RabbitMQ closed the connection or a channel. Without `remedy` the code has one. */
static bool rabbit_fail_closed(struct rabbit *rabbit, const amqp_method_t *method,
                               const char *remedy)
{
    const amqp_connection_close_t *closed = method->decoded;
    const amqp_channel_close_t *channel = method->decoded;
    amqp_bytes_t reason;
    char text[256];

    if (method->id == AMQP_CONNECTION_CLOSE_METHOD) {
        rabbit->code = closed->reply_code;
        reason = closed->reply_text;
    } else if (method->id == AMQP_CHANNEL_CLOSE_METHOD) {
        rabbit->code = channel->reply_code;
        reason = channel->reply_text;
    } else {
        return rabbit_fail(rabbit, "an answer that was not asked for", see_log);
    }
    snprintf(text, sizeof text, "%.*s", (int)reason.len, (const char *)reason.bytes);
    return rabbit_fail(rabbit, text, remedy ? remedy : rabbit_remedy(rabbit->code));
}

/* True for a good reply; else keeps the reason. */
static bool rabbit_check(struct rabbit *rabbit, amqp_rpc_reply_t reply, const char *remedy)
{
    rabbit->code = 0;
    if (reply.reply_type == AMQP_RESPONSE_NORMAL)
        return true;
    if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION)
        return rabbit_fail_closed(rabbit, &reply.reply, remedy);
    return rabbit_fail_status(rabbit, reply.library_error);
}

static bool rabbit_check_last(struct rabbit *rabbit)
{
    return rabbit_check(rabbit, amqp_get_rpc_reply(rabbit->connection), NULL);
}

static bool rabbit_check_status(struct rabbit *rabbit, int status)
{
    return status == AMQP_STATUS_OK || rabbit_fail_status(rabbit, status);
}

/* --- connect ---------------------------------------------------------------------------------- */

void rabbit_disconnect(struct rabbit *rabbit)
{
    if (rabbit->connection)
        amqp_destroy_connection(rabbit->connection);
    rabbit->connection = NULL;
    for (int i = 0; i < 2; i++) {
        free(rabbit->contents[i].memory);
        rabbit->contents[i] = (struct rabbit_content){0};
    }
    rabbit->rest = (struct str){0};
}

int rabbit_fd(const struct rabbit *rabbit)
{
    return amqp_get_sockfd(rabbit->connection);
}

/* Takes the next host. */
static void rabbit_choose_host(struct rabbit *rabbit)
{
    const struct config *config = rabbit->config;
    struct str host = str_from(config->rabbitmq_host);
    uint64_t port = 0;

    host_of_list(str_from(config->rabbitmq_hosts), rabbit->dialled++, &host, &port);
    snprintf(rabbit->host, sizeof rabbit->host, "%.*s", (int)host.length, host.at);
    rabbit->port = port ? port : config->rabbitmq_port;
}

/* Makes room for a frame of content: see above. */
static void rabbit_set_buffer(const struct rabbit *rabbit)
{
    int fd = rabbit_fd(rabbit), room = SEND_BUFFER, piece = PIECE + 1024;

    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    setsockopt(fd, SOL_SOCKET, SO_SNDLOWAT, &piece, sizeof piece); /* Linux ignores it */
}

static bool rabbit_open_tcp(struct rabbit *rabbit)
{
    struct dial_result result;
    int fd = dial_tcp(rabbit->host, (unsigned)rabbit->port, &rabbit->stop, &result);
    amqp_socket_t *socket;

    if (fd < 0)
        return rabbit_fail(rabbit, result.error, result.unknown ? not_known : not_there);
    rabbit->connection = amqp_new_connection();
    socket = rabbit->connection ? amqp_tcp_socket_new(rabbit->connection) : NULL;
    if (!socket) {
        close(fd);
        return rabbit_fail_memory(rabbit);
    }
    amqp_tcp_socket_set_sockfd(socket, fd);
    rabbit_set_buffer(rabbit);
    return true;
}

/* Says why a connection with TLS was not made. */
static bool rabbit_fail_tls(struct rabbit *rabbit, int status)
{
    switch (status) {
    case AMQP_STATUS_HOSTNAME_RESOLUTION_FAILED:
        return rabbit_fail(rabbit, "this host name is not known", not_known);
    case AMQP_STATUS_SOCKET_ERROR:
        return rabbit_fail(rabbit, "it takes no connection", not_there);
    case AMQP_STATUS_TIMEOUT:
        return rabbit_fail(rabbit, "no answer within 2 s to the attempt to connect", not_there);
    default:
        return rabbit_fail(rabbit, cluster_tls_reason(&rabbit->tls),
                           "correct [rabbitmq] hosts, ca, cert and key, or RabbitMQ's certificate");
    }
}

/* The library looks the name up, connects, and shakes hands. */
static bool rabbit_open_tls(struct rabbit *rabbit)
{
    struct timeval timeout = {STEP_TIME, 0};
    amqp_socket_t *socket;
    int status;

    errno = 0;
    rabbit->connection = amqp_new_connection();
    socket = rabbit->connection ? amqp_ssl_socket_new(rabbit->connection) : NULL;
    if (!socket)
        return rabbit_fail_memory(rabbit);
    amqp_ssl_socket_set_verify_hostname(socket, 0); /* OpenSSL does, and knows addresses */
    if (!cluster_tls_set_up(&rabbit->tls, &rabbit->config->rabbitmq_tls, rabbit->host,
                            amqp_ssl_socket_get_context(socket)))
        return rabbit_fail(rabbit, rabbit->tls.error, "put it right in [rabbitmq]");
    status = amqp_socket_open_noblock(socket, rabbit->host, (int)rabbit->port, &timeout);
    if (status != AMQP_STATUS_OK)
        return rabbit_fail_tls(rabbit, status);
    dial_set_options(rabbit_fd(rabbit));
    rabbit_set_buffer(rabbit);
    return true;
}

static bool rabbit_log_in(struct rabbit *rabbit)
{
    const struct config *config = rabbit->config;
    amqp_field_value_t yes = {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1};
    /* else a deleted queue or a blocked publication would go unnoticed */
    amqp_table_entry_t able[] = {{rabbit_text("consumer_cancel_notify"), yes},
                                 {rabbit_text("connection.blocked"), yes}};
    amqp_table_entry_t capabilities = {rabbit_text("capabilities"),
                                       {.kind = AMQP_FIELD_KIND_TABLE, .value.table = {2, able}}};
    amqp_table_t properties = {1, &capabilities};

    return rabbit_check(rabbit,
                        amqp_login_with_properties(rabbit->connection, config->rabbitmq_vhost, 0,
                                                   FRAME_MAX, HEARTBEAT, &properties,
                                                   AMQP_SASL_METHOD_PLAIN, config->rabbitmq_user,
                                                   config->rabbitmq_password),
                        "correct [rabbitmq] user, password and vhost");
}

/* Turns the library's heartbeats off. It sends one before it reads, and closes the connection if
 * that fails: then a node that stood still would lose what its socket has from a RabbitMQ that has
 * died. The bus's probes tell each side that the other lives. */
static bool rabbit_stop_heartbeats(struct rabbit *rabbit)
{
    int status = amqp_tune_connection(rabbit->connection, amqp_get_channel_max(rabbit->connection),
                                      amqp_get_frame_max(rabbit->connection), 0);

    return rabbit_check_status(rabbit, status);
}

static bool rabbit_open_connection(struct rabbit *rabbit)
{
    struct timeval timeout = {STEP_TIME, 0};

    if (!(rabbit->config->rabbitmq_tls.enabled ? rabbit_open_tls : rabbit_open_tcp)(rabbit))
        return false;
    amqp_set_handshake_timeout(rabbit->connection, &timeout);
    amqp_set_rpc_timeout(rabbit->connection, &timeout);
    if (!rabbit_log_in(rabbit) || !rabbit_stop_heartbeats(rabbit))
        return false;
    for (amqp_channel_t channel = PUBLISH_CHANNEL; channel <= LOOK_CHANNEL; channel++) {
        amqp_channel_open(rabbit->connection, channel);
        if (!rabbit_check_last(rabbit))
            return false;
    }
    return true;
}

/* --- topology --------------------------------------------------------------------------------- */

static amqp_table_entry_t rabbit_text_argument(const char *name, const char *value)
{
    return (amqp_table_entry_t){rabbit_text(name),
                                {.kind = AMQP_FIELD_KIND_UTF8, .value.bytes = rabbit_text(value)}};
}

static amqp_table_entry_t rabbit_number_argument(const char *name, int32_t value)
{
    return (amqp_table_entry_t){rabbit_text(name),
                                {.kind = AMQP_FIELD_KIND_I32, .value.i32 = value}};
}

static amqp_table_entry_t rabbit_switch_argument(const char *name)
{
    return (amqp_table_entry_t){rabbit_text(name),
                                {.kind = AMQP_FIELD_KIND_BOOLEAN, .value.boolean = 1}};
}

/* `alternate`: the exchange that takes what has no route; NULL for none. */
static bool rabbit_declare_exchange(struct rabbit *rabbit, const char *name, const char *type,
                                    const char *alternate)
{
    amqp_table_entry_t argument = rabbit_text_argument("alternate-exchange", alternate);

    amqp_exchange_declare(rabbit->connection, DECLARE_CHANNEL, rabbit_text(name), rabbit_text(type),
                          0, 1, 0, 0, alternate ? (amqp_table_t){1, &argument} : amqp_empty_table);
    return rabbit_check_last(rabbit);
}

static bool rabbit_declare_queue(struct rabbit *rabbit, const char *name,
                                 amqp_table_entry_t *arguments, int count)
{
    amqp_queue_declare(rabbit->connection, DECLARE_CHANNEL, rabbit_text(name), 0, 1, 0, 0,
                       (amqp_table_t){count, arguments});
    return rabbit_check_last(rabbit);
}

static bool rabbit_bind_now(struct rabbit *rabbit, const char *queue, const char *exchange,
                            const char *key)
{
    amqp_queue_bind(rabbit->connection, DECLARE_CHANNEL, rabbit_text(queue), rabbit_text(exchange),
                    rabbit_text(key), amqp_empty_table);
    return rabbit_check_last(rabbit);
}

/* The name of a partition's order exchange and queue. */
static void rabbit_name_order(const struct rabbit *rabbit, unsigned partition,
                              char name[NAME_MAX_BYTES + 1])
{
    snprintf(name, NAME_MAX_BYTES + 1, "%s.order.%u", rabbit->name, partition);
}

/* A quorum queue keeps what it has moved on until all receivers' queues have confirmed it, and
 * moves it again if its leader dies meanwhile: the repetition follows in the same order. */
bool rabbit_declare_order(struct rabbit *rabbit, unsigned partition)
{
    amqp_table_entry_t arguments[] = {
        rabbit_text_argument("x-queue-type", rabbit->quorum ? "quorum" : "classic"),
        rabbit_number_argument("x-message-ttl", 0),
        rabbit_text_argument("x-dead-letter-exchange", rabbit->name),
        rabbit_text_argument("x-dead-letter-strategy", "at-least-once"),
        rabbit_text_argument("x-overflow", "reject-publish")};
    char order[NAME_MAX_BYTES + 1];

    rabbit_name_order(rabbit, partition, order);
    return rabbit_declare_exchange(rabbit, order, "fanout", NULL) &&
           rabbit_declare_queue(rabbit, order, arguments, rabbit->quorum ? 5 : 3) &&
           rabbit_bind_now(rabbit, order, order, order);
}

/* Declares the exchange NAME. With quorum it has an alternate: an order queue would keep what has
 * no receiver left, such as the last messages to a node that has stopped, try again for ever, and
 * after 32 of them move nothing else. */
static bool rabbit_declare_name(struct rabbit *rabbit)
{
    amqp_table_entry_t arguments[] = {rabbit_text_argument("x-queue-type", "quorum"),
                                      rabbit_number_argument("x-message-ttl", 0)};
    char unrouted[NAME_MAX_BYTES + 1];

    if (!rabbit->quorum)
        return rabbit_declare_exchange(rabbit, rabbit->name, "direct", NULL);
    snprintf(unrouted, sizeof unrouted, "%s.unrouted", rabbit->name);
    return rabbit_declare_exchange(rabbit, unrouted, "fanout", NULL) &&
           rabbit_declare_queue(rabbit, unrouted, arguments, 2) &&
           rabbit_bind_now(rabbit, unrouted, unrouted, unrouted) &&
           rabbit_declare_exchange(rabbit, rabbit->name, "direct", unrouted);
}

/* Takes the next name for the node's queue. */
static void rabbit_name_queue(struct rabbit *rabbit)
{
    snprintf(rabbit->queue, sizeof rabbit->queue, "%s.%s.%u", rabbit->name, rabbit->key + 1,
             rabbit->attempt++ % 1000);
    rabbit->consumed = false;
}

/* True if the node's queue still exists, with its bindings. */
static bool rabbit_has_queue(struct rabbit *rabbit)
{
    amqp_channel_close_ok_t closed = {0};

    if (!rabbit->consumed)
        return false;
    amqp_queue_declare(rabbit->connection, LOOK_CHANNEL, rabbit_text(rabbit->queue), 1, 0, 0, 0,
                       amqp_empty_table);
    if (rabbit_check_last(rabbit))
        return true;
    if (rabbit->code) /* 404 closes the channel, which is not used again */
        amqp_send_method(rabbit->connection, LOOK_CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &closed);
    return false;
}

/* Declares the node's queue. It outlives a connection, so that nothing is lost while the node
 * reconnects, but not the node. If its home node is down it cannot be declared: the next attempt
 * uses another name. */
static bool rabbit_declare_own(struct rabbit *rabbit)
{
    int32_t expires = (int32_t)(rabbit->config->node_ttl * 2 + 60000);
    amqp_table_entry_t arguments[] = {
        rabbit_text_argument("x-queue-type", rabbit->quorum ? "quorum" : "classic"),
        rabbit_number_argument("x-expires", expires),
        rabbit_number_argument("x-max-length-bytes", RABBIT_QUEUE_BYTES),
        rabbit_switch_argument("x-single-active-consumer")};

    if (!rabbit_declare_queue(rabbit, rabbit->queue, arguments, rabbit->quorum ? 4 : 3)) {
        if (rabbit->code && rabbit->code != AMQP_ACCESS_REFUSED)
            rabbit_name_queue(rabbit);
        return false;
    }
    return rabbit_bind_now(rabbit, rabbit->queue, rabbit->name, rabbit->key);
}

static bool rabbit_consume(struct rabbit *rabbit)
{
    amqp_basic_qos(rabbit->connection, CONSUME_CHANNEL, 0, RABBIT_PREFETCH, 0);
    if (!rabbit_check_last(rabbit))
        return false;
    /* exclusive: beside a consumer that RabbitMQ still takes for our last one, order would be lost;
     * a quorum queue knows no exclusive consumer, but has a single active one instead */
    amqp_basic_consume(rabbit->connection, CONSUME_CHANNEL, rabbit_text(rabbit->queue),
                       amqp_empty_bytes, 0, 0, !rabbit->quorum, amqp_empty_table);
    rabbit->consumed =
        rabbit_check(rabbit, amqp_get_rpc_reply(rabbit->connection),
                     "it has not seen yet that the last connection has gone, or the user may not "
                     "read the queue");
    return rabbit->consumed;
}

/* Connects to the first host that lets this node in. */
static bool rabbit_open_any(struct rabbit *rabbit)
{
    size_t left = host_list_length(str_from(rabbit->config->rabbitmq_hosts));
    bool good;

    do {
        rabbit_disconnect(rabbit);
        rabbit_choose_host(rabbit);
        good = rabbit_open_connection(rabbit);
    } while (!good && left-- > 1 && !atomic_load(&rabbit->stop));
    return good;
}

bool rabbit_connect(struct rabbit *rabbit, bool *kept)
{
    bool good = rabbit_open_any(rabbit), consumed = rabbit->consumed;

    *kept = good && rabbit_has_queue(rabbit);
    /* replicated: what waits there is not given up because there is no leader now */
    if (good && consumed && !*kept && rabbit->quorum && rabbit->code != AMQP_NOT_FOUND)
        return false;
    rabbit->consumed = *kept;
    good = good && rabbit_declare_name(rabbit);
    for (unsigned i = 0; good && i < rabbit->partitions; i++)
        good = !atomic_load(&rabbit->stop) && rabbit_declare_order(rabbit, i);
    return good && rabbit_declare_own(rabbit) && rabbit_consume(rabbit);
}

/* --- receive ---------------------------------------------------------------------------------- */

/* The content of a channel, while it is joined. */
static struct rabbit_content *rabbit_content_of(struct rabbit *rabbit, amqp_channel_t channel)
{
    return channel == PUBLISH_CHANNEL || channel == CONSUME_CHANNEL
               ? &rabbit->contents[channel == CONSUME_CHANNEL]
               : NULL;
}

/* Ends a content that has all its bytes. */
static enum rabbit_event_kind rabbit_end_content(struct rabbit *rabbit,
                                                 struct rabbit_content *content,
                                                 struct rabbit_event *event)
{
    if (content->length < content->size)
        return RABBIT_NOTHING;
    event->memory = content->memory;
    event->length = content->size;
    *content = (struct rabbit_content){0};
    return content == &rabbit->contents[0] ? RABBIT_RETURNED : RABBIT_DELIVERED;
}

static enum rabbit_event_kind rabbit_take_header(struct rabbit *rabbit, const amqp_frame_t *frame,
                                                 struct rabbit_event *event)
{
    struct rabbit_content *content = rabbit_content_of(rabbit, frame->channel);
    uint64_t size = frame->payload.properties.body_size;

    if (!content || content->open)
        return RABBIT_NOTHING;
    content->open = true;
    content->size = (size_t)size;
    if (size <= RABBIT_CONTENT_MAX) {
        content->memory = malloc(rabbit->headroom + content->size);
        if (!content->memory) {
            rabbit_fail_memory(rabbit);
            return RABBIT_LOST; /* not acknowledged: RabbitMQ delivers it again */
        }
    }
    return rabbit_end_content(rabbit, content, event);
}

static enum rabbit_event_kind rabbit_take_body(struct rabbit *rabbit, const amqp_frame_t *frame,
                                               struct rabbit_event *event)
{
    struct rabbit_content *content = rabbit_content_of(rabbit, frame->channel);
    amqp_bytes_t bytes = frame->payload.body_fragment;

    if (!content || !content->open || bytes.len > content->size - content->length)
        return RABBIT_NOTHING;
    if (content->memory && bytes.len)
        memcpy(content->memory + rabbit->headroom + content->length, bytes.bytes, bytes.len);
    content->length += bytes.len;
    return rabbit_end_content(rabbit, content, event);
}

static enum rabbit_event_kind rabbit_take_method(struct rabbit *rabbit, const amqp_method_t *method)
{
    const amqp_connection_blocked_t *blocked = method->decoded;
    char text[200];

    switch (method->id) {
    case AMQP_QUEUE_BIND_OK_METHOD:
    case AMQP_QUEUE_UNBIND_OK_METHOD:
        return RABBIT_BOUND;
    case AMQP_CONNECTION_CLOSE_METHOD:
    case AMQP_CHANNEL_CLOSE_METHOD:
        rabbit_fail_closed(rabbit, method, NULL);
        return RABBIT_LOST;
    case AMQP_BASIC_CANCEL_METHOD:
        rabbit_fail(rabbit, "the node's queue was deleted", "it will be created again");
        return RABBIT_LOST;
    case AMQP_CONNECTION_BLOCKED_METHOD:
        snprintf(text, sizeof text, "it takes no publications: %.*s", (int)blocked->reason.len,
                 (const char *)blocked->reason.bytes);
        rabbit_fail(rabbit, text, "give it more memory or disk");
        return RABBIT_LOST;
    default:
        return RABBIT_NOTHING;
    }
}

static enum rabbit_event_kind rabbit_take_frame(struct rabbit *rabbit, const amqp_frame_t *frame,
                                                struct rabbit_event *event)
{
    switch (frame->frame_type) {
    case AMQP_FRAME_METHOD:
        return rabbit_take_method(rabbit, &frame->payload.method);
    case AMQP_FRAME_HEADER:
        return rabbit_take_header(rabbit, frame, event);
    case AMQP_FRAME_BODY:
        return rabbit_take_body(rabbit, frame, event);
    default:
        return RABBIT_NOTHING;
    }
}

struct rabbit_event rabbit_next(struct rabbit *rabbit)
{
    struct rabbit_event event = {0};

    while (event.kind == RABBIT_NOTHING) {
        struct timeval none = {0, 0};
        amqp_frame_t frame;
        int status;

        amqp_maybe_release_buffers(rabbit->connection);
        status = amqp_simple_wait_frame_noblock(rabbit->connection, &frame, &none);
        if (status == AMQP_STATUS_TIMEOUT)
            break;
        event.kind = rabbit_check_status(rabbit, status) ? rabbit_take_frame(rabbit, &frame, &event)
                                                         : RABBIT_LOST;
    }
    return event;
}

bool rabbit_has_input(const struct rabbit *rabbit)
{
    return amqp_frames_enqueued(rabbit->connection) || amqp_data_in_buffer(rabbit->connection);
}

bool rabbit_connected(const struct rabbit *rabbit)
{
    return rabbit->connection != NULL;
}

/* --- send ------------------------------------------------------------------------------------- */

bool rabbit_writable(const struct rabbit *rabbit)
{
    struct pollfd polled = {rabbit_fd(rabbit), POLLOUT, 0};

    return poll(&polled, 1, 0) == 1;
}

bool rabbit_publishing(const struct rabbit *rabbit)
{
    return rabbit->rest.length > 0;
}

bool rabbit_publish_rest(struct rabbit *rabbit)
{
    size_t most = (size_t)amqp_get_frame_max(rabbit->connection) - 8;

    if (most > PIECE)
        most = PIECE;
    while (rabbit->rest.length && rabbit_writable(rabbit)) {
        size_t length = rabbit->rest.length < most ? rabbit->rest.length : most;
        amqp_frame_t frame = {.frame_type = AMQP_FRAME_BODY, .channel = PUBLISH_CHANNEL};
        int status;

        frame.payload.body_fragment = rabbit_bytes((struct str){rabbit->rest.at, length});
        rabbit->rest.at += length;
        rabbit->rest.length -= length;
        status = amqp_send_frame(rabbit->connection, &frame);
        if (status != AMQP_STATUS_OK)
            return rabbit_fail_status(rabbit, status);
    }
    return true;
}

bool rabbit_publish(struct rabbit *rabbit, unsigned partition, bool own, const struct str *keys,
                    size_t count, struct str content)
{
    char order[NAME_MAX_BYTES + 1];
    amqp_field_value_t others[RABBIT_KEYS_MAX];
    amqp_table_entry_t copies = {rabbit_text("CC"), {.kind = AMQP_FIELD_KIND_ARRAY}};
    amqp_basic_properties_t properties = {0};
    amqp_basic_publish_t method = {.routing_key = rabbit_text(rabbit->key), .mandatory = 1};
    amqp_frame_t header = {.frame_type = AMQP_FRAME_HEADER, .channel = PUBLISH_CHANNEL};
    int status;

    rabbit_name_order(rabbit, partition, order);
    method.exchange = rabbit_text(order);
    if (!own) {
        method.routing_key = rabbit_bytes(*keys++);
        count--;
    }
    for (size_t i = 0; i < count; i++)
        others[i] = (amqp_field_value_t){.kind = AMQP_FIELD_KIND_UTF8,
                                         .value.bytes = rabbit_bytes(keys[i])};
    if (count) {
        copies.value.value.array = (amqp_array_t){(int)count, others};
        properties._flags = AMQP_BASIC_HEADERS_FLAG;
        properties.headers = (amqp_table_t){1, &copies};
    }
    if (content.length <= PIECE) /* the library sends its frames together */
        return rabbit_check_status(rabbit,
                                   amqp_basic_publish(rabbit->connection, PUBLISH_CHANNEL,
                                                      method.exchange, method.routing_key, 1, 0,
                                                      &properties, rabbit_bytes(content)));
    header.payload.properties.class_id = AMQP_BASIC_CLASS;
    header.payload.properties.body_size = content.length;
    header.payload.properties.decoded = &properties;
    status =
        amqp_send_method(rabbit->connection, PUBLISH_CHANNEL, AMQP_BASIC_PUBLISH_METHOD, &method);
    if (status == AMQP_STATUS_OK)
        status = amqp_send_frame(rabbit->connection, &header);
    rabbit->rest = content;
    return rabbit_check_status(rabbit, status) && rabbit_publish_rest(rabbit);
}

bool rabbit_bind(struct rabbit *rabbit, uint16_t slot, bool bound)
{
    char key[8];
    amqp_queue_bind_t bind = {.queue = rabbit_text(rabbit->queue),
                              .exchange = rabbit_text(rabbit->name)};
    amqp_queue_unbind_t unbind = {.queue = bind.queue, .exchange = bind.exchange};

    snprintf(key, sizeof key, "%u", (unsigned)slot);
    bind.routing_key = unbind.routing_key = rabbit_text(key);
    return rabbit_check_status(rabbit, bound ? amqp_send_method(rabbit->connection, CONSUME_CHANNEL,
                                                                AMQP_QUEUE_BIND_METHOD, &bind)
                                             : amqp_send_method(rabbit->connection, CONSUME_CHANNEL,
                                                                AMQP_QUEUE_UNBIND_METHOD, &unbind));
}

bool rabbit_acknowledge(struct rabbit *rabbit, uint64_t count)
{
    return rabbit_check_status(rabbit,
                               amqp_basic_ack(rabbit->connection, CONSUME_CHANNEL, count, 1));
}

/* --- open and close --------------------------------------------------------------------------- */

void rabbit_leave(struct rabbit *rabbit)
{
    struct timeval second = {1, 0};

    if (!rabbit->connection || !rabbit_writable(rabbit))
        return;
    amqp_set_rpc_timeout(rabbit->connection, &second);
    amqp_queue_delete(rabbit->connection, DECLARE_CHANNEL, rabbit_text(rabbit->queue), 0, 0);
    if (rabbit_check_last(rabbit))
        amqp_connection_close(rabbit->connection, AMQP_REPLY_SUCCESS);
}

void rabbit_stop(struct rabbit *rabbit)
{
    atomic_store(&rabbit->stop, true);
}

struct rabbit *rabbit_open(const struct rabbit_options *options)
{
    struct rabbit *rabbit = calloc(1, sizeof *rabbit);

    if (!rabbit || !(rabbit->config = malloc(sizeof *rabbit->config))) {
        free(rabbit);
        return NULL;
    }
    *rabbit->config = *options->config;
    memset(rabbit->config->crypto_key, 0, sizeof rabbit->config->crypto_key);
    rabbit->partitions = options->partitions;
    rabbit->headroom = options->headroom;
    rabbit->quorum = options->config->rabbitmq_queue_type == QUEUE_QUORUM;
    snprintf(rabbit->name, sizeof rabbit->name, "%s." RABBIT_LAYOUT "%s",
             options->config->rabbitmq_exchange, rabbit->quorum ? "q" : "");
    snprintf(rabbit->key, sizeof rabbit->key, "@%.*s", (int)options->node.length, options->node.at);
    rabbit_name_queue(rabbit);
    return rabbit;
}

void rabbit_free(struct rabbit *rabbit)
{
    if (!rabbit)
        return;
    rabbit_disconnect(rabbit);
    free(rabbit->config);
    free(rabbit);
}
