/* test_cluster_bus.c - cluster_bus.c with a real RabbitMQ at 127.0.0.1, port $RABBIT_PORT: echoes,
 * one order, batches, bindings, what is lost and told of, what helps.
 *
 * The buses reach RabbitMQ through a relay of this program, which can hold back what RabbitMQ says,
 * read nothing of either, or cut. Linked with --wrap=getaddrinfo. */
#include "cluster_bus.h"
#include "os.h"

#include "test.h"

#if __has_include(<rabbitmq-c/amqp.h>)
#include <rabbitmq-c/amqp.h>
#include <rabbitmq-c/tcp_socket.h>
#else
#include <amqp.h>
#include <amqp_tcp_socket.h>
#endif

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#define TIMEOUT 30000 /* milliseconds after which a test gives up */
#define NODES 3

static unsigned rabbit_port;

/* --- the relay -------------------------------------------------------------------------------- */

#define RELAY_PAIRS 16

static struct relay {
    int listener;
    unsigned port;
    int pairs[RELAY_PAIRS][2]; /* the bus's end and RabbitMQ's, or -1 */
    atomic_bool hold, deaf, cut, stop;
    atomic_uint accepted;
    pthread_t thread;
} relay;

static int connect_to(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static void relay_close(int pair)
{
    for (int i = 0; i < 2; i++)
        if (relay.pairs[pair][i] >= 0)
            close(relay.pairs[pair][i]);
    relay.pairs[pair][0] = relay.pairs[pair][1] = -1;
}

static void relay_accept(void)
{
    int fd = accept(relay.listener, NULL, NULL);

    for (int i = 0; i < RELAY_PAIRS && fd >= 0; i++) {
        if (relay.pairs[i][0] >= 0)
            continue;
        relay.pairs[i][0] = fd;
        relay.pairs[i][1] = connect_to(rabbit_port);
        atomic_fetch_add(&relay.accepted, 1);
        return;
    }
    if (fd >= 0)
        close(fd);
}

static void relay_copy(int pair, int from)
{
    static char bytes[65536];
    ssize_t length = read(relay.pairs[pair][from], bytes, sizeof bytes), sent = 0, more;

    while (length > 0 && sent < length) {
        more = send(relay.pairs[pair][!from], bytes + sent, (size_t)(length - sent), MSG_NOSIGNAL);
        if (more <= 0)
            break;
        sent += more;
    }
    if (length <= 0 || sent < length)
        relay_close(pair);
}

static void *relay_run(void *unused)
{
    struct pollfd polls[1 + 2 * RELAY_PAIRS];

    while (!atomic_load(&relay.stop)) {
        bool hold = atomic_load(&relay.hold), deaf = atomic_load(&relay.deaf);

        polls[0] = (struct pollfd){relay.listener, POLLIN, 0};
        for (int i = 0; i < RELAY_PAIRS; i++) {
            if (atomic_load(&relay.cut))
                relay_close(i);
            polls[1 + 2 * i] = (struct pollfd){deaf ? -1 : relay.pairs[i][0], POLLIN, 0};
            polls[2 + 2 * i] = (struct pollfd){deaf || hold ? -1 : relay.pairs[i][1], POLLIN, 0};
        }
        atomic_store(&relay.cut, false);
        if (poll(polls, 1 + 2 * RELAY_PAIRS, 5) <= 0)
            continue;
        if (polls[0].revents)
            relay_accept();
        for (int i = 0; i < 2 * RELAY_PAIRS; i++)
            if (polls[1 + i].revents && relay.pairs[i / 2][i % 2] == polls[1 + i].fd)
                relay_copy(i / 2, i % 2);
    }
    return unused;
}

static void relay_cut(void)
{
    atomic_store(&relay.cut, true);
    while (atomic_load(&relay.cut))
        poll(NULL, 0, 1);
}

static void relay_open(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;

    relay.listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    memset(relay.pairs, -1, sizeof relay.pairs);
    if (bind(relay.listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(relay.listener, 16) != 0 ||
        getsockname(relay.listener, (struct sockaddr *)&address, &size) != 0)
        abort();
    relay.port = ntohs(address.sin_port);
    pthread_create(&relay.thread, NULL, relay_run, NULL);
}

/* --- RabbitMQ itself -------------------------------------------------------------------------- */

static amqp_bytes_t raw_text(const char *text)
{
    return amqp_cstring_bytes(text);
}

static amqp_connection_state_t raw_open(void)
{
    amqp_connection_state_t raw = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(raw);

    CHECK(amqp_socket_open(socket, "127.0.0.1", (int)rabbit_port) == AMQP_STATUS_OK);
    CHECK(amqp_login(raw, "/", 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, "guest", "guest").reply_type ==
          AMQP_RESPONSE_NORMAL);
    amqp_channel_open(raw, 1);
    return raw;
}

static void raw_close(amqp_connection_state_t raw)
{
    CHECK(amqp_get_rpc_reply(raw).reply_type == AMQP_RESPONSE_NORMAL);
    amqp_connection_close(raw, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(raw);
}

static void raw_delete_queue(const char *name)
{
    amqp_connection_state_t raw = raw_open();

    amqp_queue_delete(raw, 1, raw_text(name), 0, 0);
    raw_close(raw);
}

static void raw_delete_exchange(const char *name)
{
    amqp_connection_state_t raw = raw_open();

    amqp_exchange_delete(raw, 1, raw_text(name), 0);
    raw_close(raw);
}

static void raw_declare_exchange(const char *name, const char *type)
{
    amqp_connection_state_t raw = raw_open();

    amqp_exchange_declare(raw, 1, raw_text(name), raw_text(type), 0, 1, 0, 0, amqp_empty_table);
    raw_close(raw);
}

static void raw_publish(const char *exchange, const char *key, struct str text)
{
    amqp_connection_state_t raw = raw_open();

    amqp_basic_publish(raw, 1, raw_text(exchange), raw_text(key), 0, 0, NULL,
                       (amqp_bytes_t){text.length, (void *)(uintptr_t)text.at});
    amqp_channel_close(raw, 1, AMQP_REPLY_SUCCESS); /* its answer comes behind */
    raw_close(raw);
}

/* --- nodes ------------------------------------------------------------------------------------ */

#define GOT_MAX 50000

/* An entry of a batch that has come. */
struct got {
    uint64_t origin, number;
    unsigned stream; /* lane * partitions + partition */
    char text[16];
    size_t length;
};

struct node {
    struct config config;
    struct crypto_keyring keys;
    struct node_id id;
    struct bus *bus;
    int wake[2];
    struct got *got;
    size_t got_count, batches, largest; /* batches, and entries of the largest of notices */
    size_t counts[BUS_WARNING + 1];     /* of events */
    char texts[BUS_WARNING + 1][600];   /* the last of each */
    uint64_t failed_sum;                /* of ids */
    bool lazy;                          /* acknowledges nothing */
};

static struct node nodes[NODES];
static char exchange[32];
static unsigned exchanges;
static uint64_t incarnations = 1000;

static void take_batch(struct node *node, const struct bus_event *event)
{
    struct wire_batch batch = event->batch;
    uint64_t number = batch.first_seq;
    struct str text;

    node->batches++;
    if (batch.lane == LANE_NOTICE && batch.count > node->largest)
        node->largest = batch.count;
    for (; wire_next_entry(&batch, &text) && node->got_count < GOT_MAX; number++) {
        struct got *got = &node->got[node->got_count++];

        *got = (struct got){.origin = batch.origin.incarnation,
                            .number = number,
                            .stream = (unsigned)batch.lane * WIRE_PARTITIONS + batch.partition,
                            .length = text.length};
        snprintf(got->text, sizeof got->text, "%.*s", (int)(text.length < 15 ? text.length : 15),
                 text.at);
    }
    if (!node->lazy)
        bus_acknowledge(node->bus, 1);
}

static void pump(struct node *node)
{
    struct bus_event *event, *next;

    os_drain(node->wake[0]);
    for (event = bus_take(node->bus); event; event = next) {
        next = (struct bus_event *)event->mail.next;
        node->counts[event->kind]++;
        snprintf(node->texts[event->kind], sizeof node->texts[0], "%.*s", (int)event->text.length,
                 event->text.at ? event->text.at : "");
        if (event->kind == BUS_BATCH)
            take_batch(node, event);
        if (event->kind == BUS_FAILED)
            node->failed_sum += event->id;
        free(event);
    }
}

static void pump_all(int wait)
{
    struct pollfd polls[NODES];

    for (int i = 0; i < NODES; i++)
        polls[i] = (struct pollfd){nodes[i].bus ? nodes[i].wake[0] : -1, POLLIN, 0};
    poll(polls, NODES, wait);
    for (int i = 0; i < NODES; i++)
        if (nodes[i].bus)
            pump(&nodes[i]);
}

/* Waits until a count of a node's is as large as that. */
static bool await(const size_t *count, size_t least)
{
    int64_t until = os_now_ms() + TIMEOUT;

    while (*count < least && os_now_ms() < until)
        pump_all(100);
    if (*count < least)
        printf("  there are %zu, not %zu\n", *count, least);
    return *count >= least;
}

/* Takes what comes for some time: for what must not come. */
static void linger(int64_t time)
{
    int64_t until = os_now_ms() + time;

    while (os_now_ms() < until)
        pump_all(20);
}

static void set_node(struct node *node, unsigned port, unsigned char key)
{
    free(node->got);
    memset(node, 0, sizeof *node);
    node->got = calloc(GOT_MAX, sizeof *node->got);
    config_defaults(&node->config);
    node->config.rabbitmq_port = port;
    node->config.rpc_timeout = 2000;
    memcpy(node->config.rabbitmq_exchange, exchange, sizeof exchange);
    node->keys.count = 1;
    memset(&node->keys.keys[0], key, sizeof node->keys.keys[0]);
    node_set_name(&node->id, STR("127.0.0.1"), 1000 + (unsigned)(node - nodes));
    node->id.incarnation = ++incarnations;
    if (!node->got || !os_wake_pipe(node->wake))
        abort();
}

static void open_bus(struct node *node)
{
    struct bus_options options = {.config = &node->config,
                                  .keys = &node->keys,
                                  .cluster = STR("wspush:0"),
                                  .self = node->id,
                                  .wake = node->wake[1]};

    node->bus = bus_open(&options);
    CHECK(node->bus);
}

/* Starts so many nodes of one cluster, on an exchange of their own; the first one's connection goes
 * through the relay. */
static void begin(int count)
{
    snprintf(exchange, sizeof exchange, "t%ld.%u", (long)getpid(), ++exchanges);
    atomic_store(&relay.hold, false);
    for (int i = 0; i < count; i++) {
        set_node(&nodes[i], i == 0 ? relay.port : rabbit_port, 7);
        open_bus(&nodes[i]);
    }
    for (int i = 0; i < count; i++)
        CHECK(await(&nodes[i].counts[BUS_UP], 1));
}

static void close_node(struct node *node)
{
    if (!node->bus)
        return;
    bus_close(node->bus);
    node->bus = NULL;
    close(node->wake[0]);
    close(node->wake[1]);
}

static void finish(int count)
{
    (void)count;
    atomic_store(&relay.hold, false);
    for (int i = 0; i < NODES; i++)
        close_node(&nodes[i]);
}

static bool publish_text(struct node *node, enum wire_lane lane, unsigned partition, unsigned slot,
                         uint64_t id, struct str text)
{
    return bus_publish(node->bus, &(struct bus_publication){.id = id,
                                                            .lane = lane,
                                                            .partition = partition,
                                                            .slot = (uint16_t)slot,
                                                            .text = text,
                                                            .deadline = os_now_ms() + TIMEOUT});
}

/* Publishes a text that is a number. */
static bool publish(struct node *node, enum wire_lane lane, unsigned partition, unsigned slot,
                    uint64_t id)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)id);
    return publish_text(node, lane, partition, slot, id, str_from(text));
}

static void bind_slot(struct node *node, unsigned slot)
{
    size_t before = node->counts[BUS_BOUND];

    bus_bind(node->bus, (uint16_t)slot, 1, true);
    CHECK(await(&node->counts[BUS_BOUND], before + 1));
}

static struct bus_stats stats_of(struct node *node)
{
    struct bus_stats stats;

    bus_read_stats(node->bus, &stats);
    return stats;
}

/* True if what has come from each stream of each origin has rising numbers, without holes from one
 * origin's own point of view. */
static bool rises(const struct node *node, bool holes)
{
    for (size_t i = 0; i < node->got_count; i++)
        for (size_t j = i; j-- > 0;)
            if (node->got[j].origin == node->got[i].origin &&
                node->got[j].stream == node->got[i].stream) {
                if (node->got[j].number + 1 != node->got[i].number &&
                    !(holes && node->got[j].number < node->got[i].number))
                    return false;
                break;
            }
    return true;
}

/* How often a text has come. */
static size_t times(const struct node *node, const char *text)
{
    size_t count = 0;

    for (size_t i = 0; i < node->got_count; i++)
        count += strcmp(node->got[i].text, text) == 0;
    return count;
}

/* --- what comes, and where -------------------------------------------------------------------- */

static void each_publication_comes_back_and_to_who_is_bound(void)
{
    bind_slot(&nodes[1], 5);
    CHECK(publish(&nodes[0], LANE_SEND, 3, 5, 1));
    CHECK(publish(&nodes[0], LANE_SEND, 3, 6, 2));
    CHECK(bus_publish(nodes[0].bus, &(struct bus_publication){.id = 3,
                                                              .partition = 3,
                                                              .to = &nodes[2].id,
                                                              .text = STR("for 2"),
                                                              .deadline = INT64_MAX}));
    CHECK(await(&nodes[0].got_count, 3));
    CHECK(await(&nodes[1].got_count, 1) && await(&nodes[2].got_count, 1));
    for (int i = 0; i < 3 && nodes[0].got_count == 3; i++)
        CHECK(nodes[0].got[i].number == 1 + (uint64_t)i && nodes[0].got[i].stream == 3 &&
              nodes[0].got[i].origin == nodes[0].id.incarnation);
    CHECK(times(&nodes[0], "1") == 1 && times(&nodes[0], "2") == 1 && times(&nodes[0], "for 2"));
    CHECK(times(&nodes[1], "1") == 1 && times(&nodes[2], "for 2") == 1);
    CHECK(bus_is_idle(nodes[0].bus));
    CHECK(stats_of(&nodes[0]).published == 3 && stats_of(&nodes[0]).failed == 0);
    CHECK(stats_of(&nodes[0]).echo_sum > 0);
}

static void what_is_unbound_comes_no_more(void)
{
    bind_slot(&nodes[1], 5);
    CHECK(publish(&nodes[0], LANE_SEND, 3, 5, 1) && await(&nodes[1].got_count, 1));
    bus_bind(nodes[1].bus, 5, 2, false);
    bind_slot(&nodes[1], 6); /* behind it */
    CHECK(publish(&nodes[0], LANE_SEND, 3, 5, 2) && await(&nodes[0].got_count, 2));
    CHECK(publish(&nodes[0], LANE_SEND, 3, 6, 3) && await(&nodes[1].got_count, 2));
    CHECK(times(&nodes[1], "1") == 1 && times(&nodes[1], "3") == 1);
}

/* Two nodes publish at once; all see one order in each partition. */
static void all_nodes_see_one_order(void)
{
    size_t total = 4000;

    for (int i = 0; i < NODES; i++)
        bind_slot(&nodes[i], 9);
    for (unsigned i = 0; i < total / 2; i++) {
        CHECK(publish(&nodes[0], LANE_SEND, i % 2, 9, i) &&
              publish(&nodes[1], LANE_SEND, i % 2, 9, i));
        if (i % 8 == 0)
            pump_all(0);
    }
    for (int i = 0; i < NODES; i++)
        CHECK(await(&nodes[i].got_count, total) && rises(&nodes[i], false));
    for (unsigned partition = 0; partition < 2; partition++) {
        size_t at[NODES] = {0};

        for (size_t n = 0; n < total / 2; n++) {
            for (int i = 0; i < NODES; i++)
                while (nodes[i].got[at[i]].stream != partition)
                    at[i]++;
            for (int i = 1; i < NODES; i++)
                CHECK(nodes[i].got[at[i]].origin == nodes[0].got[at[0]].origin &&
                      nodes[i].got[at[i]].number == nodes[0].got[at[0]].number);
            for (int i = 0; i < NODES; i++)
                at[i]++;
            if (!test_good)
                break;
        }
    }
}

/* A node binds and unbinds the slot that it publishes under: all comes back. */
static void what_is_published_while_its_slot_is_bound_and_unbound_comes_back(void)
{
    for (unsigned i = 0; i < 4000; i++) {
        if (i % 7 == 0)
            bus_bind(nodes[0].bus, 9, i, i % 2 == 0);
        CHECK(publish(&nodes[0], LANE_SEND, 3, 9, i));
        if (i % 3 == 0)
            CHECK(await(&nodes[0].got_count, i > 2 ? i - 2 : 0));
    }
    CHECK(await(&nodes[0].got_count, 4000) && rises(&nodes[0], false));
    CHECK(nodes[0].counts[BUS_FAILED] == 0 && stats_of(&nodes[0]).published == 4000);
}

static void what_waits_leaves_in_batches(void)
{
    for (unsigned i = 0; i < 20000; i++)
        CHECK(publish(&nodes[0], LANE_SEND, i % 16, i % 200, i));
    CHECK(await(&nodes[0].got_count, 20000) && rises(&nodes[0], false));
    CHECK(nodes[0].batches < 10000);
    CHECK(nodes[0].counts[BUS_FAILED] == 0 && bus_is_idle(nodes[0].bus));
}

/* One of 15 MiB between small ones, in its partition and another. */
static void a_large_one_goes_alone(void)
{
    size_t length = 15 * 1024 * 1024;
    char *large = malloc(length);

    if (!large)
        abort();
    memset(large, 'L', length);
    begin(2);
    bind_slot(&nodes[1], 9);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(publish(&nodes[0], LANE_SEND, i % 2, 9, i));
        if (i == 50)
            CHECK(publish_text(&nodes[0], LANE_SEND, 0, 9, 1000, (struct str){large, length}));
    }
    CHECK(await(&nodes[0].got_count, 101) && rises(&nodes[0], false));
    CHECK(await(&nodes[1].got_count, 101) && rises(&nodes[1], false));
    CHECK(times(&nodes[1], "LLLLLLLLLLLLLLL") == 1);
    CHECK(!publish_text(&nodes[0], LANE_SEND, 0, 9, 1, (struct str){large, BUS_MESSAGE_MAX}));
    free(large);
    finish(0);
}

/* --- notices ---------------------------------------------------------------------------------- */

static void notices_leave_behind_sends_and_in_small_batches(void)
{
    size_t last_send = 0, first_notice = SIZE_MAX;

    for (unsigned i = 0; i < 1000; i++)
        CHECK(publish(&nodes[0], LANE_NOTICE, 4, 1, i));
    for (unsigned i = 0; i < 1000; i++)
        CHECK(publish(&nodes[0], LANE_SEND, 4, 1, i));
    CHECK(await(&nodes[0].got_count, 2000) && rises(&nodes[0], false));
    CHECK(nodes[0].largest > 1 && nodes[0].largest <= 64);
    for (size_t i = 0; i < 2000; i++) {
        if (nodes[0].got[i].stream < WIRE_PARTITIONS)
            last_send = i;
        else if (first_notice == SIZE_MAX && nodes[0].got[i].number > 64)
            first_notice = i; /* of the second batch */
    }
    CHECK(last_send < 1999 && first_notice < SIZE_MAX);
    CHECK(bus_is_idle(nodes[0].bus));
}

/* While two batches of sends are in flight a third waits, and a notice behind it. */
static void a_notice_waits_while_a_send_waits(void)
{
    bind_slot(&nodes[1], 9);
    atomic_store(&relay.hold, true);
    for (unsigned i = 1; i <= 2; i++)
        CHECK(publish(&nodes[0], LANE_SEND, 4, 9, i) && await(&nodes[1].got_count, i));
    CHECK(publish(&nodes[0], LANE_SEND, 4, 9, 3) && publish(&nodes[0], LANE_NOTICE, 4, 9, 4));
    linger(300);
    CHECK(nodes[1].got_count == 2);
    atomic_store(&relay.hold, false);
    CHECK(await(&nodes[1].got_count, 4) && strcmp(nodes[1].got[3].text, "4") == 0);
    CHECK(await(&nodes[0].got_count, 4));
}

static void notices_wait_while_there_is_no_rabbitmq(void)
{
    static char text[65536];
    size_t count = 0, most = BUS_BYTES_MAX / sizeof text;

    snprintf(exchange, sizeof exchange, "t%ld.%u", (long)getpid(), ++exchanges);
    set_node(&nodes[0], 1, 7); /* nobody listens there */
    open_bus(&nodes[0]);
    CHECK(await(&nodes[0].counts[BUS_DOWN], 1));
    CHECK(strstr(nodes[0].texts[BUS_DOWN], "127.0.0.1 port 1: connection refused: start it there"));
    CHECK(!publish(&nodes[0], LANE_SEND, 0, 1, 1));
    CHECK(nodes[0].counts[BUS_FAILED] == 0);
    while (count <= most &&
           publish_text(&nodes[0], LANE_NOTICE, 0, 1, 1, (struct str){text, sizeof text}))
        count++;
    CHECK(count > most * 9 / 10 && count <= most);
    CHECK(!bus_is_idle(nodes[0].bus));
    finish(0);
}

/* --- what is lost ----------------------------------------------------------------------------- */

/* Sends in flight when the connection breaks have failed; notices come, with their old numbers and
 * before newer ones. */
static void what_is_in_flight_when_the_connection_breaks(void)
{
    bind_slot(&nodes[1], 9);
    atomic_store(&relay.hold, true);
    for (unsigned i = 1; i <= 10; i++)
        CHECK(publish(&nodes[0], LANE_NOTICE, 2, 9, i));
    CHECK(await(&nodes[1].got_count, 1)); /* the first batch was published */
    for (unsigned i = 11; i <= 20; i++)
        CHECK(publish(&nodes[0], LANE_SEND, 2, 9, i));
    for (unsigned i = 100; i < 200; i++)
        CHECK(publish(&nodes[0], LANE_NOTICE, 2, 9, i));
    linger(100);
    relay_cut();
    atomic_store(&relay.hold, false);
    CHECK(await(&nodes[0].counts[BUS_FAILED], 10) && nodes[0].failed_sum == 155);
    CHECK(await(&nodes[0].counts[BUS_DOWN], 1) && await(&nodes[0].counts[BUS_UP], 2));
    CHECK(publish(&nodes[0], LANE_SEND, 2, 9, 300));
    for (unsigned i = 200; i < 210; i++)
        CHECK(publish(&nodes[0], LANE_NOTICE, 2, 9, i));
    CHECK(await(&nodes[1].got_count, 121));
    linger(200);
    for (unsigned i = 1; i < 210; i++) {
        char text[16];

        snprintf(text, sizeof text, "%u", i);
        if (i <= 10 || i >= 100)
            CHECK(times(&nodes[0], text) >= 1 && times(&nodes[1], text) >= 1);
    }
    CHECK(times(&nodes[0], "300") == 1 && bus_is_idle(nodes[0].bus));
    CHECK(stats_of(&nodes[0]).failed == 10);
    /* repetitions have the numbers of what they repeat */
    for (size_t i = 0; i < nodes[1].got_count; i++)
        for (size_t j = 0; j < i; j++)
            if (nodes[1].got[i].stream == nodes[1].got[j].stream)
                CHECK((nodes[1].got[i].number == nodes[1].got[j].number) ==
                      (strcmp(nodes[1].got[i].text, nodes[1].got[j].text) == 0));
}

/* Notices that RabbitMQ has not got when the connection breaks are published again. */
static void notices_that_did_not_reach_rabbitmq_come(void)
{
    bind_slot(&nodes[1], 9);
    atomic_store(&relay.deaf, true);
    for (unsigned i = 1; i <= 100; i++)
        CHECK(publish(&nodes[0], LANE_NOTICE, i % 4, 9, i));
    linger(100);
    relay_cut();
    atomic_store(&relay.deaf, false);
    CHECK(await(&nodes[0].counts[BUS_UP], 2));
    CHECK(await(&nodes[0].got_count, 100) && await(&nodes[1].got_count, 100));
    CHECK(rises(&nodes[0], false) && rises(&nodes[1], false) && bus_is_idle(nodes[0].bus));
}

/* While it hangs: what waits fails at its deadline, and the bus says that it is slow. */
static void a_rabbitmq_that_hangs(void)
{
    nodes[0].config.rpc_timeout = 300;
    close_node(&nodes[0]);
    CHECK(os_wake_pipe(nodes[0].wake));
    open_bus(&nodes[0]);
    CHECK(await(&nodes[0].counts[BUS_UP], 2));
    atomic_store(&relay.hold, true);
    for (unsigned i = 0; i < 10; i++) {
        CHECK(bus_publish(nodes[0].bus, &(struct bus_publication){.id = i,
                                                                  .partition = 1,
                                                                  .text = STR("x"),
                                                                  .deadline = os_now_ms() + 200}));
        linger(20);
    }
    CHECK(await(&nodes[0].counts[BUS_SLOW], 1));
    CHECK(nodes[0].counts[BUS_FAILED] > 0 && nodes[0].counts[BUS_FAILED] < 10);
    CHECK(strstr(nodes[0].texts[BUS_FAILED], "waited too long"));
    atomic_store(&relay.hold, false);
    CHECK(await(&nodes[0].counts[BUS_MOVING], 1));
    CHECK(await(&nodes[0].got_count, 10 - nodes[0].counts[BUS_FAILED]) && rises(&nodes[0], false));
    CHECK(nodes[0].counts[BUS_DOWN] == 0);
}

/* No order queue: at once a failure, at once a new queue, and no notice is lost. */
static void an_order_queue_that_is_gone_is_made_again(void)
{
    char name[64];

    bind_slot(&nodes[1], 9);
    snprintf(name, sizeof name, "%s.1.order.5", exchange);
    raw_delete_queue(name);
    CHECK(publish(&nodes[0], LANE_SEND, 5, 9, 1));
    CHECK(await(&nodes[0].counts[BUS_FAILED], 1) && nodes[0].failed_sum == 1);
    CHECK(strstr(nodes[0].texts[BUS_FAILED], "no order queue"));
    CHECK(await(&nodes[0].counts[BUS_WARNING], 1) && strstr(nodes[0].texts[BUS_WARNING], "again"));
    CHECK(publish(&nodes[0], LANE_SEND, 5, 9, 2) && await(&nodes[1].got_count, 1));
    CHECK(times(&nodes[1], "1") == 0 && stats_of(&nodes[0]).returned == 1);
    raw_delete_queue(name);
    for (unsigned i = 10; i < 20; i++)
        CHECK(publish(&nodes[0], LANE_NOTICE, 5, 9, i));
    CHECK(await(&nodes[1].got_count, 11) && await(&nodes[0].got_count, 11));
    CHECK(rises(&nodes[1], true) && nodes[0].counts[BUS_FAILED] == 1);
    CHECK(nodes[0].counts[BUS_DOWN] == 0 && bus_is_idle(nodes[0].bus));
}

/* Takes a binding off the queue of node 0, or puts it back. */
static void raw_set_binding(const char *key, bool bound)
{
    char queue[200], direct[64];
    amqp_connection_state_t raw = raw_open();

    snprintf(direct, sizeof direct, "%s.1", exchange);
    snprintf(queue, sizeof queue, "%s.%s/%llu.0", direct, nodes[0].id.name,
             (unsigned long long)nodes[0].id.incarnation);
    if (bound)
        amqp_queue_bind(raw, 1, raw_text(queue), raw_text(direct), raw_text(key), amqp_empty_table);
    else
        amqp_queue_unbind(raw, 1, raw_text(queue), raw_text(direct), raw_text(key),
                          amqp_empty_table);
    raw_close(raw);
}

/* A batch that RabbitMQ loses behind the order queue, here for want of the binding that it relies
 * on, is found out by a probe behind it, and holds nothing up. */
static void a_lost_batch_does_not_hold_its_stream(void)
{
    bind_slot(&nodes[0], 9);
    raw_set_binding("9", false);
    for (unsigned i = 1; i <= 5; i++)
        CHECK(publish(&nodes[0], LANE_SEND, 5, 9, i));
    CHECK(await(&nodes[0].counts[BUS_FAILED], 5) && nodes[0].failed_sum == 15);
    CHECK(strstr(nodes[0].texts[BUS_FAILED], "lost the message"));
    CHECK(publish(&nodes[0], LANE_SEND, 5, 10, 6) && await(&nodes[0].got_count, 1));
    CHECK(nodes[0].counts[BUS_DOWN] == 0 && times(&nodes[0], "6") == 1);
}

/* The same when the probe behind it is lost as well: another one follows, and the connection stays.
 */
static void a_lost_probe_is_followed_by_another(void)
{
    char key[NODE_TEXT_MAX + 1];

    snprintf(key, sizeof key, "@%s/%llu", nodes[0].id.name,
             (unsigned long long)nodes[0].id.incarnation);
    raw_set_binding(key, false);
    CHECK(publish(&nodes[0], LANE_SEND, 5, 9, 1));
    linger(700); /* the batch is lost, and probes behind it */
    raw_set_binding(key, true);
    CHECK(await(&nodes[0].counts[BUS_FAILED], 1));
    CHECK(strstr(nodes[0].texts[BUS_FAILED], "lost the message"));
    CHECK(publish(&nodes[0], LANE_SEND, 5, 9, 2) && await(&nodes[0].got_count, 1));
    CHECK(nodes[0].counts[BUS_DOWN] == 0 && times(&nodes[0], "2") == 1);
}

/* The same before anybody sends: a probe finds it out. */
static void probes_find_what_is_gone(void)
{
    char name[64];

    snprintf(name, sizeof name, "%s.1.order.7", exchange);
    raw_delete_queue(name);
    CHECK(await(&nodes[0].counts[BUS_WARNING], 1) &&
          strstr(nodes[0].texts[BUS_WARNING], "partition 7"));
    CHECK(publish(&nodes[0], LANE_SEND, 7, 9, 1) && await(&nodes[0].got_count, 1));
    CHECK(nodes[0].counts[BUS_FAILED] == 0 && nodes[0].counts[BUS_DOWN] == 0);
    snprintf(name, sizeof name, "%s.1", exchange);
    raw_delete_exchange(name); /* of dead letters: nothing is returned, and nothing comes back */
    CHECK(await(&nodes[0].counts[BUS_SLOW], 1));
    CHECK(await(&nodes[0].counts[BUS_DOWN], 1) && strstr(nodes[0].texts[BUS_DOWN], "a probe of"));
    CHECK(await(&nodes[0].counts[BUS_UP], 2));
    CHECK(publish(&nodes[0], LANE_SEND, 7, 9, 2) && await(&nodes[0].got_count, 2));
}

static void a_nodes_queue_that_is_gone_is_made_again(void)
{
    char name[200], text[NODE_TEXT_MAX];

    for (unsigned slot = 0; slot < 500; slot++)
        bus_bind(nodes[1].bus, (uint16_t)slot, 1, true);
    CHECK(await(&nodes[1].counts[BUS_BOUND], 500));
    node_write(&nodes[1].id, text);
    snprintf(name, sizeof name, "%s.1.%s.0", exchange, text);
    raw_delete_queue(name);
    CHECK(await(&nodes[1].counts[BUS_DOWN], 1) && await(&nodes[1].counts[BUS_UP], 2));
    for (unsigned slot = 0; slot < 500; slot += 7)
        CHECK(publish(&nodes[0], LANE_SEND, slot % 16, slot, slot));
    CHECK(await(&nodes[1].got_count, 72));
}

/* --- foreign batches
 * -------------------------------------------------------------------------------- */

static void foreign_batches_are_dropped_and_logged(void)
{
    char name[64];

    bind_slot(&nodes[0], 9);
    set_node(&nodes[2], rabbit_port, 8); /* another crypto_key, the same exchange */
    open_bus(&nodes[2]);
    CHECK(await(&nodes[2].counts[BUS_UP], 1));
    for (unsigned i = 0; i < 300; i++) { /* more than RabbitMQ gives without acknowledgements */
        CHECK(publish(&nodes[2], LANE_SEND, 1, 9, i));
        CHECK(await(&nodes[2].got_count, i + 1));
    }
    snprintf(name, sizeof name, "%s.1", exchange);
    raw_publish(name, "9", STR("wsp, not a batch"));
    raw_publish(name, "9", STR(""));
    CHECK(publish(&nodes[1], LANE_SEND, 1, 9, 1) && await(&nodes[0].got_count, 1));
    CHECK(nodes[0].got_count == 1 && stats_of(&nodes[0]).foreign == 302);
    CHECK(await(&nodes[0].counts[BUS_WARNING], 1) && nodes[0].counts[BUS_WARNING] == 1);
    CHECK(strstr(nodes[0].texts[BUS_WARNING], "exchange or vhost of its own"));
    CHECK(nodes[0].counts[BUS_DOWN] == 0);
}

/* A loop that acknowledges nothing gets no more than it can hold, and the rest when it does. */
static void what_is_not_acknowledged_is_bounded(void)
{
    static char text[1 << 20];
    size_t count;

    bind_slot(&nodes[0], 9);
    nodes[0].lazy = true;
    for (unsigned i = 0; i < 60; i++) {
        CHECK(publish_text(&nodes[1], LANE_SEND, 1, 9, i, (struct str){text, sizeof text}));
        CHECK(await(&nodes[1].got_count, i + 1));
    }
    linger(500);
    count = nodes[0].got_count;
    CHECK(count >= 16 && count <= 34);
    nodes[0].lazy = false;
    bus_acknowledge(nodes[0].bus, count);
    CHECK(await(&nodes[0].got_count, 60) && rises(&nodes[0], false));
}

/* --- reasons ---------------------------------------------------------------------------------- */

static bool says(const char *part)
{
    open_bus(&nodes[0]);
    await(&nodes[0].counts[BUS_DOWN], 1);
    if (!strstr(nodes[0].texts[BUS_DOWN], part))
        printf("  it says: %s\n", nodes[0].texts[BUS_DOWN]);
    return strstr(nodes[0].texts[BUS_DOWN], part) != NULL;
}

static void reasons_say_what_helps(void)
{
    char name[64];

    begin(0);
    set_node(&nodes[0], rabbit_port, 7);
    memcpy(nodes[0].config.rabbitmq_password, "wrong", 6);
    CHECK(says("ACCESS_REFUSED") &&
          strstr(nodes[0].texts[BUS_DOWN], "correct [rabbitmq] user, password and vhost"));
    CHECK(!strstr(nodes[0].texts[BUS_DOWN], "wrong"));
    finish(0);
    set_node(&nodes[0], rabbit_port, 7);
    memcpy(nodes[0].config.rabbitmq_host, "nobody.invalid", 15);
    CHECK(says("nobody.invalid port ") && strstr(nodes[0].texts[BUS_DOWN], "[rabbitmq] host"));
    finish(0);
    set_node(&nodes[0], rabbit_port, 7);
    snprintf(name, sizeof name, "%s.1", exchange);
    raw_declare_exchange(name, "topic");
    CHECK(says("delete it, or choose another [rabbitmq] exchange"));
    finish(0);
    begin(0);
    set_node(&nodes[0], rabbit_port, 7);
    memcpy(nodes[0].config.rabbitmq_user, "poor", 5); /* bus.sh makes it, without permissions */
    memcpy(nodes[0].config.rabbitmq_password, "poor", 5);
    CHECK(says("ACCESS_REFUSED") && strstr(nodes[0].texts[BUS_DOWN], "set_permissions"));
    CHECK(!strstr(nodes[0].texts[BUS_DOWN], "delete"));
    finish(0);
    atomic_store(&relay.hold, true); /* it takes the connection and says nothing */
    set_node(&nodes[0], relay.port, 7);
    CHECK(says("no answer within 2 s"));
    finish(0);
}

/* --- the end ---------------------------------------------------------------------------------- */

static atomic_bool lookup_hangs, lookup_began, lookup_ended;

int __real_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result);
int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result);

int __wrap_getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
                       struct addrinfo **result)
{
    bool hung = atomic_load(&lookup_hangs);

    atomic_store(&lookup_began, hung);
    while (atomic_load(&lookup_hangs))
        poll(NULL, 0, 5);
    if (hung)
        atomic_store(&lookup_ended, true);
    return __real_getaddrinfo(node, service, hints, result);
}

/* The thread is abandoned while it hangs, and frees what it has when it returns: the caller's
 * memory and descriptors are gone by then. */
static void the_end_does_not_wait_for_a_name(void)
{
    struct crypto_keyring *keys = calloc(1, sizeof *keys);
    char *cluster = exact_bytes(STR("wspush:0"));
    struct bus_options options;

    if (!keys)
        abort();
    begin(0);
    set_node(&nodes[0], rabbit_port, 7);
    *keys = nodes[0].keys;
    options = (struct bus_options){.config = &nodes[0].config,
                                   .keys = keys,
                                   .cluster = {cluster, 8},
                                   .self = nodes[0].id,
                                   .wake = nodes[0].wake[1]};
    atomic_store(&lookup_hangs, true);
    nodes[0].bus = bus_open(&options);
    CHECK(publish(&nodes[0], LANE_NOTICE, 1, 1, 1));
    while (!atomic_load(&lookup_began))
        poll(NULL, 0, 5);
    finish(0);
    free(keys);
    free(cluster);
    CHECK(!atomic_load(&lookup_ended));
    atomic_store(&lookup_hangs, false);
    for (int i = 0; i < 2000 && !atomic_load(&lookup_ended); i++)
        poll(NULL, 0, 5);
    CHECK(atomic_load(&lookup_ended));
    linger(300); /* so that it ends before the program */
}

/* RabbitMQ takes nothing more while a large publication is being written: the thread goes on, and
 * ends when it is told to. */
static void a_rabbitmq_that_reads_nothing_blocks_nothing(void)
{
    size_t length = 15 * 1024 * 1024;
    char *large = calloc(1, length);

    if (!large)
        abort();
    begin(1);
    atomic_store(&relay.deaf, true);
    for (unsigned i = 0; i < 4; i++)
        CHECK(publish_text(&nodes[0], LANE_SEND, i, 1, i, (struct str){large, length}));
    CHECK(await(&nodes[0].counts[BUS_SLOW], 1));
    close_node(&nodes[0]);
    atomic_store(&relay.deaf, false);
    finish(0);
    free(large);
}

/* With so many nodes of a cluster of its own. */
static const struct test all_tests[] = {
    TEST(each_publication_comes_back_and_to_who_is_bound, 3),
    TEST(what_is_unbound_comes_no_more, 2),
    TEST(all_nodes_see_one_order, 3),
    TEST(what_is_published_while_its_slot_is_bound_and_unbound_comes_back, 1),
    TEST(what_waits_leaves_in_batches, 1),
    TEST(a_large_one_goes_alone, 0),
    TEST(notices_leave_behind_sends_and_in_small_batches, 1),
    TEST(a_notice_waits_while_a_send_waits, 2),
    TEST(notices_that_did_not_reach_rabbitmq_come, 2),
    TEST(notices_wait_while_there_is_no_rabbitmq, 0),
    TEST(what_is_in_flight_when_the_connection_breaks, 2),
    TEST(a_rabbitmq_that_hangs, 1),
    TEST(a_lost_batch_does_not_hold_its_stream, 1),
    TEST(a_lost_probe_is_followed_by_another, 1),
    TEST(an_order_queue_that_is_gone_is_made_again, 2),
    TEST(probes_find_what_is_gone, 1),
    TEST(a_nodes_queue_that_is_gone_is_made_again, 2),
    TEST(foreign_batches_are_dropped_and_logged, 2),
    TEST(what_is_not_acknowledged_is_bounded, 2),
    TEST(reasons_say_what_helps, 0),
    TEST(the_end_does_not_wait_for_a_name, 0),
    TEST(a_rabbitmq_that_reads_nothing_blocks_nothing, 0),
};

int main(void)
{
    const char *port = getenv("RABBIT_PORT");
    uint64_t number = 0;

    if (!port || !str_number(str_from(port), 65535, &number)) {
        printf("RABBIT_PORT is not set: run tests/cluster/bus.sh\n");
        return 1;
    }
    rabbit_port = (unsigned)number;
    relay_open();
    test_run_all(all_tests, COUNT(all_tests), begin, finish);
    atomic_store(&relay.stop, true);
    pthread_join(relay.thread, NULL);
    for (int i = 0; i < NODES; i++)
        free(nodes[i].got);
    return test_finish();
}
