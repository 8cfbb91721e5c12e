/* cluster_bus.c - the bus's thread: connect, probe, publish batches, take echoes and deliveries.
 *
 * Data: each lane of each partition is a stream (cluster_stream.h): entries that wait, and batches
 * in flight, oldest first. An entry that fails becomes its FAILED event, so that needs no memory.
 *
 * Flow: bus_publish appends to `arrived`; the thread sorts that into streams, forms a batch when
 * fewer than the window are in flight, and publishes it. Its delivery is the echo. A stream keeps
 * its order, so batches before an echoed one are lost. Notices go while no send of their partition
 * waits, one batch at a time: one can be published again without overtaking another.
 *
 * Bindings: a batch comes back through the binding of one of its slots (its carrier), which stays
 * bound until then, or through the node's own key.
 *
 * Acknowledgements: the ring `deliveries` has all that RabbitMQ has not been acknowledged. The loop
 * acknowledges the batches it was given, the thread all others; RabbitMQ is told in groups.
 *
 * Threads: `lock` guards what both sides use. If the thread hangs in a name look-up, bus_close
 * abandons it: it frees the bus when it returns, and touches nothing of the caller's.
 *
 * Time: `clock` advances by at most a second an iteration: after a standstill the thread reads what
 * has come meanwhile before it judges RabbitMQ by age. */
#include "cluster_bus.h"

#include "cluster_bus_state.h"
#include "os.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEND_WINDOW 2 /* batches of a stream in flight; measured */
#define NOTICES_PER_BATCH 64
#define DELIVERIES_BYTES_MAX (32 << 20) /* not acknowledged by the loop: stop reading */
#define ACK_EVERY 16                    /* deliveries that are acknowledged together, or */
#define ACK_BYTES (1 << 20)             /* so many bytes, or */
#define ACK_TIME 200                    /* after so many milliseconds */
#define SCRATCH_KEPT 262144
#define TICK 1000      /* milliseconds: probes are due */
#define QUICK_TICK 100 /* while something is in flight */
#define BACKOFF_MAX 3200
#define PROBE_TIME 5000
#define RECONNECT_AFTER 20000
#define WARN_FOREIGN 60000 /* milliseconds between two warnings */
#define WARN_QUEUE 1000
#define CLOSE_TIME 2000 /* milliseconds that bus_close waits for the thread */

/* --- connect and disconnect ------------------------------------------------------------------- */

static void bus_forget_deliveries(struct bus *bus)
{
    for (; bus->deliveries_count; bus->deliveries_count--) {
        bus->stale += bus->deliveries[bus->deliveries_first].given;
        bus->deliveries_first = (bus->deliveries_first + 1) % RABBIT_PREFETCH;
    }
    bus->deliveries_bytes = bus->unacked_bytes = 0;
    bus->handled = bus->acked = 0;
}

static void bus_disconnect(struct bus *bus)
{
    if (bus->up)
        bus->lost_at = os_now_ms();
    bus_set_up(bus, false);
    rabbit_disconnect(bus->rabbit);
    bus_sort_arrived(bus);
    bus_fail_sends(bus);
    if (bus->slow)
        bus_post_new(bus, BUS_MOVING, "");
    bus->slow = false;
    if (strcmp(rabbit_error(bus->rabbit), bus->down_reason) != 0) {
        snprintf(bus->down_reason, sizeof bus->down_reason, "%s", rabbit_error(bus->rabbit));
        bus_post_new(bus, BUS_DOWN, bus->down_reason);
    }
    bus_forget_deliveries(bus);
    bus->retry_at = os_now_ms() + os_backoff(&bus->pause, BACKOFF_MAX);
}

/* The bus is up once all slots are bound and all probes are back. */
static void bus_check_up(struct bus *bus)
{
    if (bus->up || bus->slots.restoring || bus->probes_missing)
        return;
    bus->was_up = true;
    bus->pause = 0;
    bus->down_reason[0] = '\0';
    bus_set_up(bus, true);
    bus_post_new(bus, BUS_UP, "");
}

/* Has all slots bound again. A queue that still exists has its bindings, except those that were
 * young when RabbitMQ died: only those keep the bus from being up. */
static void bus_restore_bindings(struct bus *bus, bool kept)
{
    int64_t since = kept && bus->was_up ? bus->lost_at - SLOTS_RECENT : INT64_MIN;

    pthread_mutex_lock(&bus->lock);
    slots_restore(&bus->slots, since);
    pthread_mutex_unlock(&bus->lock);
}

static void bus_connect(struct bus *bus)
{
    bool kept;

    if (rabbit_connected(bus->rabbit) || os_now_ms() < bus->retry_at)
        return;
    if (!rabbit_connect(bus->rabbit, &kept)) {
        bus_disconnect(bus);
        return;
    }
    for (unsigned i = 0; i < WIRE_PARTITIONS; i++)
        bus->probes[i] = (struct bus_probe){.due = true};
    bus->probes_missing = WIRE_PARTITIONS;
    bus_restore_bindings(bus, kept);
}

/* --- receive ---------------------------------------------------------------------------------- */

static void bus_record_echo(struct bus *bus, struct bus_probe *probe, int64_t since)
{
    probe->echo_at = bus->clock;
    pthread_mutex_lock(&bus->lock);
    bus_count_echo(&bus->stats, os_now_us() - since);
    pthread_mutex_unlock(&bus->lock);
}

static void bus_take_probe(struct bus *bus, const struct wire_batch *head)
{
    struct bus_probe *probe = &bus->probes[head->partition];

    if (head->first_seq < probe->first_seq || !probe->out)
        return;
    probe->out = false;
    bus_record_echo(bus, probe, probe->at_us);
    bus_drop_lost(bus, head->partition, probe->at_us);
    if (bus->probes_missing) {
        bus->probes_missing--;
        bus_check_up(bus);
    }
}

/* A batch of this node has come back: those before it in its stream are lost. */
static void bus_take_echo(struct bus *bus, const struct wire_batch *head)
{
    struct stream *stream = &bus->streams[head->partition][head->lane];
    struct stream_batch *found = stream_find(stream, head->first_seq);

    if (!found)
        return; /* it has FAILED before, or was published again */
    while (stream->in_flight != found)
        bus_fail_batch(bus, stream, stream->in_flight,
                       "RabbitMQ lost the message: one behind it came back");
    stream_remove(stream, found);
    bus_release(bus, found);
    bus_record_echo(bus, &bus->probes[head->partition], found->at_us);
    bus_complete(bus, head->lane, found->cost, found->entries.count, true);
    stream_free_batch(found);
}

static void bus_count_foreign(struct bus *bus, enum wire_result result)
{
    pthread_mutex_lock(&bus->lock);
    bus->stats.foreign++;
    pthread_mutex_unlock(&bus->lock);
    bus_warn(bus, &bus->warned_foreign, WARN_FOREIGN,
             result == WIRE_VERSION_UNKNOWN
                 ? "RabbitMQ delivers publications of nodes whose version this one does not "
                   "understand: they are dropped; bring all nodes to neighbouring versions"
                 : "RabbitMQ delivers publications that are not of this cluster: they are dropped; "
                   "give each cluster on one RabbitMQ a [rabbitmq] exchange or vhost of its own, "
                   "and all nodes of one cluster the same crypto_key");
}

/* Opens a delivery, whose bytes follow `event`. Returns true if the loop gets it. */
static bool bus_open_delivery(struct bus *bus, struct bus_event *event, size_t length)
{
    enum wire_result result;

    *event = (struct bus_event){.kind = BUS_BATCH};
    result = wire_open_batch((struct str){(const char *)(event + 1), length}, &bus->keys,
                             str_of(&bus->cluster), &event->batch);
    if (result != WIRE_GOOD) {
        bus_count_foreign(bus, result);
        return false;
    }
    if (node_equal(&event->batch.origin, &bus->self)) {
        if (event->batch.count)
            bus_take_echo(bus, &event->batch);
        else
            bus_take_probe(bus, &event->batch);
    }
    return event->batch.count > 0;
}

static bool bus_take_delivery(struct bus *bus, const struct rabbit_event *delivery)
{
    struct bus_event *event = (struct bus_event *)(void *)delivery->memory;
    bool given = event && bus_open_delivery(bus, event, delivery->length);
    size_t last = (bus->deliveries_first + bus->deliveries_count) % RABBIT_PREFETCH;

    if (!event)
        bus_count_foreign(bus, WIRE_MALFORMED);
    if (given)
        bus_post(bus, event);
    else
        free(event);
    if (bus->deliveries_count == RABBIT_PREFETCH)
        return rabbit_fail(bus->rabbit, "it delivers more than was asked for", "see its log");
    bus->deliveries[last].size = delivery->length;
    bus->deliveries[last].given = given;
    bus->deliveries_count++;
    bus->deliveries_bytes += delivery->length;
    return true;
}

/* Declares a missing order queue again. */
static bool bus_remake_order_queue(struct bus *bus, unsigned partition)
{
    char text[160];

    if (!rabbit_declare_order(bus->rabbit, partition))
        return false;
    snprintf(text, sizeof text,
             "RabbitMQ had no order queue for partition %u: it is created again; do not delete it",
             partition);
    bus_warn(bus, &bus->warned_queue, WARN_QUEUE, text);
    return true;
}

/* No order queue took a batch: nobody gets it. */
static void bus_take_returned(struct bus *bus, const struct wire_batch *head)
{
    struct stream *stream = &bus->streams[head->partition][head->lane];
    struct stream_batch *found = stream_find(stream, head->first_seq);

    if (head->count == 0) {
        bus->probes[head->partition].out = false;
        bus->probes[head->partition].due = true;
        return;
    }
    if (!found)
        return;
    pthread_mutex_lock(&bus->lock);
    bus->stats.returned += found->entries.count;
    pthread_mutex_unlock(&bus->lock);
    bus_release(bus, found);
    if (head->lane == LANE_NOTICE)
        found->resend = true;
    else
        bus_fail_batch(bus, stream, found,
                       "RabbitMQ had no order queue for the message: nobody got it");
}

static bool bus_take_return(struct bus *bus, const struct rabbit_event *returned)
{
    struct wire_batch head;
    bool good =
        returned->memory &&
        wire_open_batch((struct str){returned->memory + sizeof(struct bus_event), returned->length},
                        &bus->keys, str_of(&bus->cluster), &head) == WIRE_GOOD;

    if (good)
        bus_take_returned(bus, &head);
    free(returned->memory);
    return !good || bus_remake_order_queue(bus, head.partition);
}

static void bus_take_bound(struct bus *bus)
{
    struct slots_binding binding;
    struct bus_event *event;
    bool answered;

    pthread_mutex_lock(&bus->lock);
    answered = slots_answer(&bus->slots, &binding);
    pthread_mutex_unlock(&bus->lock);
    if (!answered)
        return;
    if (binding.bound) {
        event = bus_new_event(BUS_BOUND, "");
        event->slot = binding.slot;
        event->version = binding.version;
        bus_post(bus, event);
    }
    bus_check_up(bus);
}

/* True if the loop has enough to do: stop reading. */
static bool bus_pause(struct bus *bus)
{
    bool paused = bus->deliveries_bytes > DELIVERIES_BYTES_MAX;

    if (paused != bus->paused) {
        pthread_mutex_lock(&bus->lock);
        bus->paused = paused;
        pthread_mutex_unlock(&bus->lock);
    }
    return paused;
}

static bool bus_take_events(struct bus *bus)
{
    while (!bus_pause(bus)) {
        struct rabbit_event event = rabbit_next(bus->rabbit);

        switch (event.kind) {
        case RABBIT_NOTHING:
            return true;
        case RABBIT_LOST:
            return false;
        case RABBIT_DELIVERED:
            if (!bus_take_delivery(bus, &event))
                return false;
            break;
        case RABBIT_RETURNED:
            if (!bus_take_return(bus, &event))
                return false;
            break;
        case RABBIT_BOUND:
            bus_take_bound(bus);
            break;
        }
    }
    return true;
}

/* --- publish ---------------------------------------------------------------------------------- */

/* Returns false if RabbitMQ takes nothing now; the thread then waits until it does. */
static bool bus_can_send(struct bus *bus)
{
    if (!rabbit_publishing(bus->rabbit) && rabbit_writable(bus->rabbit))
        return true;
    bus->want_write = true;
    return false;
}

/* Fails the sends that have waited too long. */
static void bus_drop_expired(struct bus *bus, struct stream *sends)
{
    int64_t now = os_now_ms();

    while (sends->waiting.count && stream_first(&sends->waiting)->deadline < now)
        bus_fail_entry(bus, stream_take(&sends->waiting),
                       "RabbitMQ is slow: the message waited too long, and nobody got it");
}

/* Publishes a batch, or a probe, which has no entries. */
static bool bus_send(struct bus *bus, unsigned partition, enum wire_lane lane,
                     const struct stream_batch *batch)
{
    struct wire_batch head = {
        .origin = bus->self, .lane = lane, .partition = partition, .first_seq = batch->first_seq};

    bus->out.length = 0;
    wire_begin_batch(&bus->out, &bus->keys, &head);
    for (const struct fifo_link *link = batch->entries.fifo.first; link; link = link->next)
        wire_append_entry(&bus->out, ((const struct stream_entry *)link)->text);
    if (!wire_seal_batch(&bus->out, &bus->keys, str_of(&bus->cluster), batch->entries.count)) {
        buf_free(&bus->out);
        return rabbit_fail(bus->rabbit, "out of memory", "free some");
    }
    return rabbit_publish(bus->rabbit, partition, batch->carrier < 0, batch->keys, batch->key_count,
                          str_of(&bus->out));
}

/* Looks for a bound slot of a batch: the batch comes back through it and needs no key for that,
 * which would cost RabbitMQ a sixth of its work. */
static void bus_choose_carrier(struct bus *bus, struct stream_batch *batch)
{
    uint64_t slot;

    pthread_mutex_lock(&bus->lock);
    for (size_t i = 0; i < batch->key_count && batch->carrier < 0; i++)
        if (str_number(batch->keys[i], WIRE_SLOTS - 1, &slot) &&
            slots_rely(&bus->slots, (uint16_t)slot))
            batch->carrier = (int)slot;
    pthread_mutex_unlock(&bus->lock);
}

static bool bus_send_batch(struct bus *bus, unsigned partition, enum wire_lane lane,
                           struct stream_batch *batch)
{
    if (!batch)
        return rabbit_fail(bus->rabbit, "out of memory", "free some");
    bus_choose_carrier(bus, batch);
    batch->resend = false;
    batch->at = bus->clock;
    batch->at_us = os_now_us();
    return bus_send(bus, partition, lane, batch);
}

/* Sends a probe through a partition that is idle, or behind a batch that may be lost. */
static bool bus_send_probe(struct bus *bus, unsigned partition)
{
    struct bus_probe *probe = &bus->probes[partition];
    struct stream_batch empty = {.carrier = -1};

    if (bus_wants_probe(bus, partition))
        probe->due = true;
    if (!probe->due || !bus_can_send(bus))
        return true;
    empty.first_seq = ++bus->probe_seq;
    if (!probe->out) {
        probe->first_seq = empty.first_seq;
        probe->at = bus->clock;
        probe->at_us = os_now_us();
    }
    probe->due = false;
    probe->out = true;
    probe->last_at = bus->clock;
    return bus_send(bus, partition, LANE_SEND, &empty);
}

/* Publishes what waits in a partition: sends before notices. */
static bool bus_send_partition(struct bus *bus, unsigned partition)
{
    struct stream *sends = &bus->streams[partition][LANE_SEND];
    struct stream *notices = &bus->streams[partition][LANE_NOTICE];

    bus_drop_expired(bus, sends);
    if (!bus_send_probe(bus, partition))
        return false;
    if (!bus->up)
        return true;
    while (sends->waiting.count && sends->in_flight_count < SEND_WINDOW && bus_can_send(bus))
        if (!bus_send_batch(bus, partition, LANE_SEND, stream_form(sends, UINT32_MAX)))
            return false;
    if (sends->waiting.count)
        return true;
    if (notices->in_flight && notices->in_flight->resend && bus_can_send(bus))
        return bus_send_batch(bus, partition, LANE_NOTICE, notices->in_flight);
    if (!notices->in_flight_count && notices->waiting.count && bus_can_send(bus))
        return bus_send_batch(bus, partition, LANE_NOTICE, stream_form(notices, NOTICES_PER_BATCH));
    return true;
}

static bool bus_publish_some(struct bus *bus)
{
    if (!rabbit_publish_rest(bus->rabbit))
        return false;
    for (unsigned i = 0; i < WIRE_PARTITIONS; i++)
        if (!bus_send_partition(bus, (bus->first_partition + i) % WIRE_PARTITIONS))
            return false;
    bus->first_partition = (bus->first_partition + 1) % WIRE_PARTITIONS;
    if (rabbit_publishing(bus->rabbit))
        bus->want_write = true;
    else if (bus->out.capacity > SCRATCH_KEPT)
        buf_free(&bus->out);
    return true;
}

static bool bus_ask_bindings(struct bus *bus)
{
    struct slots_binding binding;
    bool asked;

    for (;;) {
        pthread_mutex_lock(&bus->lock);
        asked = slots_can_ask(&bus->slots) && bus_can_send(bus) &&
                slots_ask(&bus->slots, bus->clock, &binding);
        pthread_mutex_unlock(&bus->lock);
        if (!asked)
            return true;
        if (!rabbit_bind(bus->rabbit, binding.slot, binding.bound))
            return false;
    }
}

/* Removes from the ring what the loop has acknowledged and what it was not given. */
static void bus_take_acknowledged(struct bus *bus, uint64_t count)
{
    uint64_t stale = count < bus->stale ? count : bus->stale;

    bus->stale -= stale;
    count -= stale;
    while (bus->deliveries_count && (count || !bus->deliveries[bus->deliveries_first].given)) {
        count -= bus->deliveries[bus->deliveries_first].given;
        bus->deliveries_bytes -= bus->deliveries[bus->deliveries_first].size;
        bus->unacked_bytes += bus->deliveries[bus->deliveries_first].size;
        bus->deliveries_first = (bus->deliveries_first + 1) % RABBIT_PREFETCH;
        bus->deliveries_count--;
        if (bus->handled++ == bus->acked)
            bus->unacked_since = bus->clock;
    }
}

static bool bus_send_acknowledgements(struct bus *bus)
{
    if (bus->handled == bus->acked ||
        (bus->handled - bus->acked < ACK_EVERY && bus->unacked_bytes < ACK_BYTES &&
         bus->clock - bus->unacked_since < ACK_TIME) ||
        !rabbit_writable(bus->rabbit))
        return true;
    bus->acked = bus->handled;
    bus->unacked_bytes = 0;
    return rabbit_acknowledge(bus->rabbit, bus->acked);
}

/* --- the thread ------------------------------------------------------------------------------- */

/* Milliseconds since the oldest batch or probe in flight was published; -1 if there is none. */
static int64_t bus_age(const struct bus *bus)
{
    int64_t oldest = INT64_MAX;

    for (unsigned i = 0; i < WIRE_PARTITIONS; i++) {
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            const struct stream_batch *batch = bus->streams[i][lane].in_flight;

            if (batch && !batch->resend && batch->at < oldest)
                oldest = batch->at;
        }
        if (bus->probes[i].out && bus->probes[i].at < oldest)
            oldest = bus->probes[i].at;
    }
    return oldest == INT64_MAX ? -1 : bus->clock - oldest;
}

static void bus_set_slow(struct bus *bus, bool slow)
{
    char text[120];

    if (slow == bus->slow)
        return;
    bus->slow = slow;
    snprintf(text, sizeof text,
             "RabbitMQ is slow: what was published %lld ms ago has not come back",
             (long long)bus->rpc_timeout);
    bus_post_new(bus, slow ? BUS_SLOW : BUS_MOVING, slow ? text : "");
}

/* Returns false if RabbitMQ has been silent so long that a new connection is the better chance. */
static bool bus_check_age(struct bus *bus)
{
    int64_t age = bus_age(bus);
    char text[100];

    if (bus->up)
        bus_set_slow(bus, age > bus->rpc_timeout);
    if (age > RECONNECT_AFTER ||
        bus->clock - slots_oldest(&bus->slots, bus->clock) > RECONNECT_AFTER)
        return rabbit_fail(bus->rabbit, "it has not answered for 20 s", "see whether it hangs");
    for (unsigned i = 0; i < WIRE_PARTITIONS; i++) {
        if (!bus->probes[i].out || bus->clock - bus->probes[i].at <= PROBE_TIME)
            continue;
        snprintf(text, sizeof text, "a probe of partition %u has not come back within 5 s", i);
        return rabbit_fail(bus->rabbit, text, "see whether it hangs or lost an exchange");
    }
    return true;
}

static bool bus_serve(struct bus *bus)
{
    bus->want_write = false;
    return bus_take_events(bus) && bus_send_acknowledgements(bus) && bus_publish_some(bus) &&
           bus_ask_bindings(bus) && bus_check_age(bus);
}

/* True if something is in flight or not acknowledged. */
static bool bus_is_busy(const struct bus *bus)
{
    return bus_age(bus) >= 0 || bus->handled != bus->acked;
}

static void bus_wait(struct bus *bus)
{
    struct pollfd polls[2] = {{bus->pipe[0], POLLIN, 0}, {-1, POLLIN, 0}};
    bool connected = rabbit_connected(bus->rabbit);
    int64_t wait = TICK, now;

    if (!connected)
        wait = bus->retry_at - os_now_ms();
    else if (bus_is_busy(bus))
        wait = QUICK_TICK;
    if (connected && (bus->want_write || !bus->paused)) {
        polls[1].fd = rabbit_fd(bus->rabbit);
        polls[1].events = (short)((bus->paused ? 0 : POLLIN) | (bus->want_write ? POLLOUT : 0));
        if (!bus->paused && rabbit_has_input(bus->rabbit))
            wait = 0;
    }
    poll(polls, 2, wait < 0 ? 0 : wait > TICK ? TICK : (int)wait);
    now = os_now_ms();
    bus->clock += now - bus->seen_at < TICK ? now - bus->seen_at : TICK;
    bus->seen_at = now;
}

/* Takes what the loop has left. Returns false when the thread should end. */
static bool bus_take_work(struct bus *bus)
{
    uint64_t acknowledged;
    bool stop;

    pthread_mutex_lock(&bus->lock);
    if (bus->woken)
        os_drain(bus->pipe[0]);
    bus->woken = false;
    acknowledged = bus->acknowledged;
    bus->acknowledged = 0;
    stop = bus->stop;
    pthread_mutex_unlock(&bus->lock);
    bus_sort_arrived(bus);
    bus_take_acknowledged(bus, acknowledged);
    return !stop;
}

/* If the loop has asked for it, posts CAUGHT_UP behind all that had come. */
static void bus_report_caught_up(struct bus *bus)
{
    bool behind;

    pthread_mutex_lock(&bus->lock);
    behind = bus->catching_up && !bus->paused;
    bus->catching_up &= !behind;
    pthread_mutex_unlock(&bus->lock);
    if (behind)
        bus_post_new(bus, BUS_CAUGHT_UP, "");
}

static void *bus_run(void *argument)
{
    struct bus *bus = argument;
    bool abandoned;

    while (bus_take_work(bus)) {
        if (!rabbit_connected(bus->rabbit))
            bus_report_caught_up(bus);
        bus_connect(bus);
        if (rabbit_connected(bus->rabbit) && !bus_serve(bus))
            bus_disconnect(bus);
        bus_report_caught_up(bus);
        bus_wait(bus);
    }
    rabbit_leave(bus->rabbit);
    pthread_mutex_lock(&bus->lock);
    bus->ended = true;
    abandoned = bus->abandoned;
    pthread_mutex_unlock(&bus->lock);
    if (abandoned)
        bus_free(bus);
    return NULL;
}

/* --- the loop's side -------------------------------------------------------------------------- */

static struct stream_entry *bus_new_entry(const struct bus_publication *publication)
{
    char key[NODE_TEXT_MAX + 2] = "@";
    size_t length;
    struct stream_entry *entry;

    if (publication->text.length > BUS_MESSAGE_MAX - WIRE_BATCH_HEAD_MAX - 4)
        return NULL;
    if (publication->to)
        length = 1 + node_write(publication->to, key + 1);
    else
        length = (size_t)snprintf(key, sizeof key, "%u", (unsigned)publication->slot);
    entry = stream_new((struct str){key, length}, publication->text, sizeof(struct bus_event));
    if (!entry)
        return NULL;
    entry->id = publication->id;
    entry->lane = publication->lane;
    entry->partition = publication->partition;
    entry->deadline = publication->deadline;
    return entry;
}

bool bus_publish(struct bus *bus, const struct bus_publication *publication)
{
    enum wire_lane lane = publication->lane;
    struct stream_entry *entry = bus_new_entry(publication);
    bool good;

    pthread_mutex_lock(&bus->lock);
    good = entry && (bus->up || lane == LANE_NOTICE) &&
           bus->bytes[lane] + stream_cost(entry) <= BUS_BYTES_MAX;
    if (good) {
        bus->bytes[lane] += stream_cost(entry);
        bus->pending++;
        stream_append(&bus->arrived, entry);
        bus_wake(bus);
    }
    pthread_mutex_unlock(&bus->lock);
    if (!good)
        free(entry);
    return good;
}

void bus_bind(struct bus *bus, uint16_t slot, uint32_t version, bool bound)
{
    pthread_mutex_lock(&bus->lock);
    slots_set(&bus->slots, slot, version, bound, os_now_ms());
    bus_wake(bus);
    pthread_mutex_unlock(&bus->lock);
}

struct bus_event *bus_take(struct bus *bus)
{
    return (struct bus_event *)mailbox_take(&bus->events);
}

void bus_catch_up(struct bus *bus)
{
    pthread_mutex_lock(&bus->lock);
    bus->catching_up = true;
    bus_wake(bus);
    pthread_mutex_unlock(&bus->lock);
}

void bus_acknowledge(struct bus *bus, uint64_t count)
{
    pthread_mutex_lock(&bus->lock);
    bus->acknowledged += count;
    if (bus->acknowledged >= ACK_EVERY || bus->paused)
        bus_wake(bus);
    pthread_mutex_unlock(&bus->lock);
}

void bus_read_stats(struct bus *bus, struct bus_stats *stats)
{
    pthread_mutex_lock(&bus->lock);
    *stats = bus->stats;
    pthread_mutex_unlock(&bus->lock);
}

bool bus_is_idle(struct bus *bus)
{
    bool idle;

    pthread_mutex_lock(&bus->lock);
    idle = bus->pending == 0;
    pthread_mutex_unlock(&bus->lock);
    return idle;
}

struct bus *bus_open(const struct bus_options *options)
{
    struct bus *bus = calloc(1, sizeof *bus);
    struct rabbit_options rabbit = {.config = options->config,
                                    .partitions = WIRE_PARTITIONS,
                                    .headroom = sizeof(struct bus_event)};
    char node[NODE_TEXT_MAX];

    if (!bus)
        return NULL;
    rabbit.node = (struct str){node, node_write(&options->self, node)};
    bus->keys = *options->keys;
    bus->self = options->self;
    bus->rpc_timeout = (int64_t)options->config->rpc_timeout;
    bus->seen_at = os_now_ms();
    for (unsigned i = 0; i < WIRE_PARTITIONS * LANE_COUNT; i++)
        bus->streams[i / LANE_COUNT][i % LANE_COUNT].next_seq = 1; /* 0: before the first */
    bus->pipe[0] = bus->pipe[1] = -1;
    pthread_mutex_init(&bus->lock, NULL);
    mailbox_open(&bus->events, options->wake);
    bus->rabbit = rabbit_open(&rabbit);
    if (bus->rabbit && buf_append(&bus->cluster, options->cluster) && os_wake_pipe(bus->pipe) &&
        (bus->has_thread = os_thread_start(&bus->thread, bus_run, bus)))
        return bus;
    bus_free(bus);
    return NULL;
}

void bus_close(struct bus *bus)
{
    bool ended = false;

    if (!bus)
        return;
    rabbit_stop(bus->rabbit);
    pthread_mutex_lock(&bus->lock);
    bus->stop = true;
    bus_wake(bus);
    pthread_mutex_unlock(&bus->lock);
    for (int waited = 0; !ended && waited < CLOSE_TIME; waited += 10) {
        poll(NULL, 0, waited ? 10 : 1);
        pthread_mutex_lock(&bus->lock);
        ended = bus->ended;
        bus->abandoned = !ended && waited + 10 >= CLOSE_TIME;
        pthread_mutex_unlock(&bus->lock);
    }
    if (!ended) {
        pthread_detach(bus->thread);
        return;
    }
    pthread_join(bus->thread, NULL);
    bus_free(bus);
}
