/* cluster_bus.c - publications in batches, their echoes, bindings, probes; the bus's thread.
 *
 * Data: each lane of each partition is a stream: entries that wait, and batches in flight, oldest
 * first. An entry is a publication, and is itself the event that says it FAILED, so that telling
 * needs no memory. A batch keeps its entries until it comes back; its bytes are made each time it
 * is published. Numbers are given when a batch is formed, so what was dropped before leaves no
 * hole.
 *
 * Flow: bus_publish puts an entry on the list `arrived`; the thread moves it to its stream, forms a
 * batch of what waits when there are fewer in flight than the window, and publishes it. A batch of
 * its own that RabbitMQ delivers is the echo: the oldest in flight, or those before it are lost.
 * Notices go while no send of their partition waits, one batch at a time: so one can be published
 * again without passing another.
 *
 * Bindings: `slots` says what each slot is to be; those that RabbitMQ has not been told are in the
 * ring `dirty`. What was asked for and not answered is in the ring `asked`, in RabbitMQ's order.
 *
 * Deliveries: the ring `held` has all that are not acknowledged yet. The loop acknowledges those
 * it was given, the thread all others; RabbitMQ hears of it in batches as well.
 *
 * Threads: `lock` guards what both sides use. The thread may hang in a name look-up; bus_close then
 * abandons it: it frees the bus when it returns, and touches nothing of the caller's.
 *
 * Time: `clock` advances a second at most for each iteration, so a machine that stood still first
 * reads what has come meanwhile, before it judges RabbitMQ by its age. */
#include "cluster_bus.h"

#include "rabbit.h"
#include "worker.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SEND_WINDOW 1     /* batches of a stream in flight; measured */
#define BATCH_BYTES 65536 /* of entries; a larger one goes alone */
#define NOTICES_A_BATCH 64
#define ASKED_MAX 64          /* bindings that wait for their answer */
#define HELD_BYTES (32 << 20) /* not acknowledged by the loop: then nothing more is read */
#define ACK_EVERY 16          /* deliveries that are acknowledged together, or */
#define ACK_BYTES (1 << 20)   /* so many bytes of them, or */
#define ACK_TIME 200          /* after so many milliseconds */
#define SCRATCH_KEPT 262144
#define TICK 1000      /* milliseconds: heartbeats must go out */
#define QUICK_TICK 100 /* while something is waited for */
#define PAUSE_MOST 3200
#define RECENT 60000     /* milliseconds: bindings younger than this may not survive its death */
#define PROBE_EVERY 5000 /* milliseconds without an echo */
#define PROBE_TIME 5000
#define BREAK_TIME 20000
#define NOTE_STRANGE 60000 /* milliseconds between two notes */
#define NOTE_MADE 1000
#define CLOSE_TIME 2000 /* milliseconds that bus_close waits for the thread */

const uint32_t bus_echo_bounds[BUS_ECHO_BUCKETS - 1] = {250,   500,   1000,   2000,    4000,   8000,
                                                        16000, 50000, 200000, 1000000, 5000000};

/* A publication. */
struct bus_entry {
    struct bus_event event; /* first */
    enum wire_lane lane;
    unsigned partition;
    int64_t deadline;
    struct str key, text; /* in `bytes` */
    char bytes[];
};

struct bus_list {
    struct bus_entry *first, *last;
    uint32_t count;
};

struct bus_batch {
    struct bus_batch *next;
    uint64_t first;
    struct bus_list entries;
    size_t bytes;
    struct str keys[RABBIT_KEYS_MAX];
    size_t key_count;
    bool again; /* to be published again */
    int64_t at; /* when it was published, */
    int64_t at_us;
};

struct bus_stream {
    struct bus_list waiting;
    struct bus_batch *in_flight, *last;
    unsigned flying;
    uint64_t next; /* the number of the next entry */
};

struct bus_probe {
    bool due, out;
    int64_t at, at_us; /* when it was published */
    int64_t echo_at;   /* the last echo of its partition */
};

struct bus_slot {
    bool wanted, dirty; /* to be bound; in the ring of those to be asked for */
    bool maybe;         /* bound, for all we know */
    bool restoring;     /* waited for before the bus is up */
    uint32_t version;
    int64_t changed_at;
};

struct bus_asked {
    uint16_t slot;
    bool bound;
    int64_t at;
    struct bus_event *event; /* BOUND */
};

struct bus {
    struct mailbox events;
    int pipe[2]; /* wakes the thread */
    pthread_t thread;
    bool has_thread;

    pthread_mutex_t lock; /* guards: */
    bool woken, up, stop, ended, abandoned, paused;
    struct bus_list arrived;
    uint64_t acknowledged; /* by the loop */
    size_t bytes[LANE_COUNT];
    uint64_t pending; /* publications that have not come to their end */
    struct bus_slot slots[WIRE_SLOTS];
    uint16_t dirty[WIRE_SLOTS];
    size_t dirty_first, dirty_count;
    struct bus_stats stats;

    /* the thread's own */
    struct rabbit *rabbit;
    struct crypto_keyring keys;
    struct buf cluster;
    struct node_id self;
    int64_t rpc_timeout;
    struct bus_stream streams[WIRE_PARTITIONS][LANE_COUNT];
    struct bus_probe probes[WIRE_PARTITIONS];
    unsigned probes_missing; /* before the bus is up */
    unsigned turn;           /* the partition that is served first */
    struct buf out;          /* the batch that is being sent */
    bool blocked;            /* something waits until the socket takes more */
    bool slow;
    bool was_up; /* on an earlier connection, */
    int64_t lost_at;
    struct bus_asked asked[ASKED_MAX];
    size_t asked_first, asked_count, restoring;
    struct {
        size_t size;
        bool given; /* to the loop */
    } held[RABBIT_PREFETCH];
    size_t held_first, held_count, held_bytes;
    uint64_t stale;      /* given on earlier connections, and not acknowledged yet */
    uint64_t done, told; /* deliveries that were dealt with; that RabbitMQ knows to be */
    size_t untold_bytes;
    int64_t untold_since;
    int64_t clock, seen_at; /* see above */
    int64_t retry_at, pause;
    int64_t noted_strange, noted_made;
    uint32_t generation; /* of the connection: the number of its probes */
    char down[600];      /* the text of the last DOWN */
};

/* --- lists, events, time ---------------------------------------------------------------------- */

static int64_t bus_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void bus_append(struct bus_list *list, struct bus_entry *entry)
{
    entry->event.mail.next = NULL;
    if (list->last)
        list->last->event.mail.next = &entry->event.mail;
    else
        list->first = entry;
    list->last = entry;
    list->count++;
}

static struct bus_entry *bus_take_first(struct bus_list *list)
{
    struct bus_entry *entry = list->first;

    if (!entry)
        return NULL;
    list->first = (struct bus_entry *)entry->event.mail.next;
    if (!list->first)
        list->last = NULL;
    list->count--;
    return entry;
}

/* Posts an event, which belongs to the taker then; nobody takes it once the bus is abandoned. */
static void bus_post(struct bus *bus, struct bus_event *event)
{
    pthread_mutex_lock(&bus->lock);
    if (bus->abandoned)
        free(event);
    else
        mailbox_post(&bus->events, &event->mail);
    pthread_mutex_unlock(&bus->lock);
}

/* Posts a change of state; without memory it waits for some. */
static void bus_tell(struct bus *bus, enum bus_event_kind kind, const char *text)
{
    size_t length = strlen(text);
    struct bus_event *event;

    while (!(event = malloc(sizeof *event + length)))
        poll(NULL, 0, 10);
    *event = (struct bus_event){.kind = kind, .text = {(const char *)(event + 1), length}};
    memcpy(event + 1, text, length);
    bus_post(bus, event);
}

/* The same for the log, unless that was said less than `pause` milliseconds ago. */
static void bus_note(struct bus *bus, int64_t *noted, int64_t pause, const char *text)
{
    if (*noted && bus->clock - *noted < pause)
        return;
    *noted = bus->clock;
    bus_tell(bus, BUS_NOTED, text);
}

static size_t bus_cost(const struct bus_entry *entry)
{
    return sizeof *entry + entry->key.length + entry->text.length;
}

/* Publications of a lane have come to their end: by an echo, or by a failure. */
static void bus_end(struct bus *bus, enum wire_lane lane, size_t bytes, uint32_t count, bool good)
{
    pthread_mutex_lock(&bus->lock);
    bus->bytes[lane] -= bytes;
    bus->pending -= count;
    if (good)
        bus->stats.published += count;
    else
        bus->stats.failed += count;
    if (lane == LANE_NOTICE)
        bus->stats.notices_waiting -= count;
    pthread_mutex_unlock(&bus->lock);
}

/* Fails an entry of LANE_SEND. `text` is a literal. */
static void bus_fail_entry(struct bus *bus, struct bus_entry *entry, const char *text)
{
    bus_end(bus, LANE_SEND, bus_cost(entry), 1, false);
    entry->event.kind = BUS_FAILED;
    entry->event.batch.partition = entry->partition;
    entry->event.text = str_from(text);
    bus_post(bus, &entry->event);
}

static void bus_fail_list(struct bus *bus, struct bus_list *list, const char *text)
{
    struct bus_entry *entry;

    while ((entry = bus_take_first(list)))
        bus_fail_entry(bus, entry, text);
}

static void bus_free_list(struct bus_list *list)
{
    struct bus_entry *entry;

    while ((entry = bus_take_first(list)))
        free(entry);
}

static struct bus_batch *bus_take_batch(struct bus_stream *stream)
{
    struct bus_batch *batch = stream->in_flight;

    if (!batch)
        return NULL;
    stream->in_flight = batch->next;
    if (!stream->in_flight)
        stream->last = NULL;
    stream->flying--;
    return batch;
}

static void bus_fail_batch(struct bus *bus, struct bus_batch *batch, const char *text)
{
    bus_fail_list(bus, &batch->entries, text);
    free(batch);
}

/* --- coming up and going down ----------------------------------------------------------------- */

/* What is published from now on is refused; what has been is failed, but for notices. */
static void bus_fail_sends(struct bus *bus)
{
    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++) {
        struct bus_stream *sends = &bus->streams[partition][LANE_SEND];
        struct bus_batch *batch;

        while ((batch = bus_take_batch(sends)))
            bus_fail_batch(bus, batch,
                           "RabbitMQ was lost before the message came back: whether it was "
                           "delivered is not known");
        bus_fail_list(bus, &sends->waiting,
                      "RabbitMQ was lost before the message was published: nobody got it");
        batch = bus->streams[partition][LANE_NOTICE].in_flight;
        if (batch)
            batch->again = true;
    }
}

static void bus_sort_arrived(struct bus *bus)
{
    struct bus_list arrived;
    struct bus_entry *entry;

    pthread_mutex_lock(&bus->lock);
    arrived = bus->arrived;
    bus->arrived = (struct bus_list){0};
    pthread_mutex_unlock(&bus->lock);
    while ((entry = bus_take_first(&arrived)))
        bus_append(&bus->streams[entry->partition][entry->lane].waiting, entry);
}

static void bus_set_up(struct bus *bus, bool up)
{
    pthread_mutex_lock(&bus->lock);
    bus->up = up;
    bus->paused = false;
    pthread_mutex_unlock(&bus->lock);
}

static void bus_forget_deliveries(struct bus *bus)
{
    for (; bus->held_count; bus->held_count--) {
        bus->stale += bus->held[bus->held_first].given;
        bus->held_first = (bus->held_first + 1) % RABBIT_PREFETCH;
    }
    bus->held_bytes = bus->untold_bytes = 0;
    bus->done = bus->told = 0;
}

static void bus_disconnect(struct bus *bus)
{
    if (bus->up)
        bus->lost_at = worker_now();
    bus_set_up(bus, false);
    rabbit_disconnect(bus->rabbit);
    bus_sort_arrived(bus);
    bus_fail_sends(bus);
    if (bus->slow)
        bus_tell(bus, BUS_MOVING, "");
    bus->slow = false;
    if (strcmp(rabbit_error(bus->rabbit), bus->down) != 0) {
        snprintf(bus->down, sizeof bus->down, "%s", rabbit_error(bus->rabbit));
        bus_tell(bus, BUS_DOWN, bus->down);
    }
    for (; bus->asked_count; bus->asked_count--) {
        free(bus->asked[bus->asked_first].event);
        bus->asked_first = (bus->asked_first + 1) % ASKED_MAX;
    }
    bus_forget_deliveries(bus);
    bus->retry_at = worker_now() + worker_pause(&bus->pause, PAUSE_MOST);
}

/* Up once all slots are bound and all probes have come back. */
static void bus_check_up(struct bus *bus)
{
    if (bus->up || bus->restoring || bus->probes_missing)
        return;
    bus->was_up = true;
    bus->pause = 0;
    bus->down[0] = '\0';
    bus_set_up(bus, true);
    bus_tell(bus, BUS_UP, "");
}

/* Puts a slot into the ring, unless it is there. Call it with the lock. */
static void bus_mark_slot(struct bus *bus, uint16_t slot)
{
    if (bus->slots[slot].dirty)
        return;
    bus->slots[slot].dirty = true;
    bus->dirty[(bus->dirty_first + bus->dirty_count++) % WIRE_SLOTS] = slot;
}

/* Has every wanted slot bound again, and those unbound that may have stayed behind. If the queue is
 * there its bindings are too, but for those that were young when RabbitMQ died: those are waited
 * for. */
static void bus_restore_bindings(struct bus *bus, bool kept)
{
    int64_t since = kept && bus->was_up ? bus->lost_at - RECENT : INT64_MIN;

    bus->restoring = 0;
    pthread_mutex_lock(&bus->lock);
    for (int recent = 1; recent >= 0; recent--) {
        for (unsigned i = 0; i < WIRE_SLOTS; i++) {
            struct bus_slot *slot = &bus->slots[i];

            if ((!slot->wanted && !slot->maybe) || (slot->changed_at >= since) != recent)
                continue;
            bus_mark_slot(bus, (uint16_t)i);
            slot->restoring = recent;
            bus->restoring += (size_t)recent;
        }
    }
    pthread_mutex_unlock(&bus->lock);
}

static void bus_connect(struct bus *bus)
{
    bool kept;

    if (rabbit_connected(bus->rabbit) || worker_now() < bus->retry_at)
        return;
    if (!rabbit_connect(bus->rabbit, &kept)) {
        bus_disconnect(bus);
        return;
    }
    bus->generation++;
    for (unsigned i = 0; i < WIRE_PARTITIONS; i++)
        bus->probes[i] = (struct bus_probe){.due = true};
    bus->probes_missing = WIRE_PARTITIONS;
    bus_restore_bindings(bus, kept);
}

/* --- what comes ------------------------------------------------------------------------------- */

static void bus_count_echo(struct bus *bus, struct bus_probe *probe, int64_t since)
{
    int64_t took = bus_now_us() - since;
    size_t bucket = 0;

    while (bucket < BUS_ECHO_BUCKETS - 1 && took > bus_echo_bounds[bucket])
        bucket++;
    probe->echo_at = bus->clock;
    pthread_mutex_lock(&bus->lock);
    bus->stats.echoes[bucket]++;
    bus->stats.echo_sum += (uint64_t)took;
    pthread_mutex_unlock(&bus->lock);
}

static void bus_take_probe(struct bus *bus, const struct wire_batch *head)
{
    struct bus_probe *probe = &bus->probes[head->partition];

    if (head->first != bus->generation || !probe->out)
        return;
    probe->out = false;
    bus_count_echo(bus, probe, probe->at_us);
    if (bus->probes_missing) {
        bus->probes_missing--;
        bus_check_up(bus);
    }
}

static struct bus_batch *bus_find_batch(const struct bus_stream *stream, uint64_t first)
{
    struct bus_batch *batch = stream->in_flight;

    while (batch && batch->first != first)
        batch = batch->next;
    return batch;
}

/* A batch of this node's own has come back. One stream keeps its order: what was before it and has
 * not come back is lost. */
static void bus_take_echo(struct bus *bus, const struct wire_batch *head)
{
    struct bus_stream *stream = &bus->streams[head->partition][head->lane];
    struct bus_batch *found = bus_find_batch(stream, head->first), *batch;

    if (!found)
        return; /* it has FAILED before, or is a repetition */
    while ((batch = bus_take_batch(stream)) != found)
        bus_fail_batch(bus, batch, "RabbitMQ lost the message: one behind it came back");
    bus_count_echo(bus, &bus->probes[head->partition], found->at_us);
    bus_end(bus, head->lane, found->bytes, found->entries.count, true);
    bus_free_list(&found->entries);
    free(found);
}

static void bus_count_strange(struct bus *bus, enum wire_result result)
{
    pthread_mutex_lock(&bus->lock);
    bus->stats.strange++;
    pthread_mutex_unlock(&bus->lock);
    bus_note(bus, &bus->noted_strange, NOTE_STRANGE,
             result == WIRE_VERSION_UNKNOWN
                 ? "RabbitMQ brings publications of nodes whose version this one does not "
                   "understand: they are dropped; bring all nodes to neighbouring versions"
                 : "RabbitMQ brings publications that are not of this cluster: they are dropped; "
                   "give each cluster on one RabbitMQ a [rabbitmq] exchange or vhost of its own, "
                   "and all nodes of one cluster the same crypto_key");
}

/* Takes a delivery: true if it is given to the loop. `event` has its bytes behind it. */
static bool bus_open_delivery(struct bus *bus, struct bus_event *event, size_t length)
{
    enum wire_result result;

    *event = (struct bus_event){.kind = BUS_BATCH};
    result = wire_open_batch((struct str){(const char *)(event + 1), length}, &bus->keys,
                             str_of(&bus->cluster), &event->batch);
    if (result != WIRE_GOOD) {
        bus_count_strange(bus, result);
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
    size_t last = (bus->held_first + bus->held_count) % RABBIT_PREFETCH;

    if (!event)
        bus_count_strange(bus, WIRE_MALFORMED);
    if (given)
        bus_post(bus, event);
    else
        free(event);
    if (bus->held_count == RABBIT_PREFETCH)
        return rabbit_fail(bus->rabbit, "it delivers more than was asked for", "see its log");
    bus->held[last].size = delivery->length;
    bus->held[last].given = given;
    bus->held_count++;
    bus->held_bytes += delivery->length;
    return true;
}

/* Makes an order queue again that is not there. */
static bool bus_make_order(struct bus *bus, unsigned partition)
{
    char text[160];

    if (!rabbit_declare_order(bus->rabbit, partition))
        return false;
    snprintf(text, sizeof text,
             "RabbitMQ had no order queue for partition %u: it is made again; do not delete it",
             partition);
    bus_note(bus, &bus->noted_made, NOTE_MADE, text);
    return true;
}

/* No order queue took a batch: nobody has got it. */
static void bus_take_returned(struct bus *bus, const struct wire_batch *head)
{
    struct bus_stream *stream = &bus->streams[head->partition][head->lane];
    struct bus_batch *found = bus_find_batch(stream, head->first), **at = &stream->in_flight;

    if (head->count == 0) {
        bus->probes[head->partition].out = false;
        bus->probes[head->partition].due = true;
    }
    if (!found)
        return;
    pthread_mutex_lock(&bus->lock);
    bus->stats.returned += found->entries.count;
    pthread_mutex_unlock(&bus->lock);
    found->again = true;
    if (head->lane == LANE_NOTICE)
        return;
    while (*at != found)
        at = &(*at)->next;
    *at = found->next;
    if (stream->last == found) {
        stream->last = stream->in_flight;
        while (stream->last && stream->last->next)
            stream->last = stream->last->next;
    }
    stream->flying--;
    bus_fail_batch(bus, found, "RabbitMQ had no order queue for the message: nobody got it");
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
    return !good || bus_make_order(bus, head.partition);
}

static void bus_take_bound(struct bus *bus)
{
    struct bus_asked *asked = &bus->asked[bus->asked_first];
    struct bus_slot *slot = &bus->slots[asked->slot];

    if (!bus->asked_count)
        return;
    bus->asked_first = (bus->asked_first + 1) % ASKED_MAX;
    bus->asked_count--;
    slot->maybe &= asked->bound;
    if (asked->event)
        bus_post(bus, asked->event);
    if (slot->restoring) {
        slot->restoring = false;
        bus->restoring--;
        bus_check_up(bus);
    }
}

/* True if the loop has enough to do: then nothing more is read. */
static bool bus_pause(struct bus *bus)
{
    bool paused = bus->held_bytes > HELD_BYTES;

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

/* --- what goes -------------------------------------------------------------------------------- */

/* False if nothing can be sent now; then the thread waits until something can. */
static bool bus_can_send(struct bus *bus)
{
    if (!rabbit_publishing(bus->rabbit) && rabbit_writable(bus->rabbit))
        return true;
    bus->blocked = true;
    return false;
}

/* Adds a receiver to a batch. False if it has too many. */
static bool bus_add_key(struct bus_batch *batch, struct str key)
{
    for (size_t i = 0; i < batch->key_count; i++)
        if (str_equal(batch->keys[i], key))
            return true;
    if (batch->key_count == RABBIT_KEYS_MAX)
        return false;
    batch->keys[batch->key_count++] = key;
    return true;
}

/* Fails what has waited too long. */
static void bus_drop_expired(struct bus *bus, struct bus_stream *sends)
{
    int64_t now = worker_now();

    while (sends->waiting.first && sends->waiting.first->deadline < now)
        bus_fail_entry(bus, bus_take_first(&sends->waiting),
                       "RabbitMQ is slow: the message waited too long, and nobody got it");
}

/* Moves what waits into a new batch in flight, as much as one takes. NULL without memory. */
static struct bus_batch *bus_form_batch(struct bus_stream *stream, enum wire_lane lane)
{
    struct bus_batch *batch = calloc(1, sizeof *batch);
    size_t length = 0;
    struct bus_entry *entry;

    if (!batch)
        return NULL;
    batch->first = stream->next;
    while ((entry = stream->waiting.first) && bus_add_key(batch, entry->key)) {
        length += entry->text.length + 4;
        if (batch->entries.count &&
            (length > BATCH_BYTES ||
             (lane == LANE_NOTICE && batch->entries.count == NOTICES_A_BATCH)))
            break;
        batch->bytes += bus_cost(entry);
        bus_append(&batch->entries, bus_take_first(&stream->waiting));
    }
    stream->next += batch->entries.count;
    if (stream->last)
        stream->last->next = batch;
    else
        stream->in_flight = batch;
    stream->last = batch;
    stream->flying++;
    return batch;
}

/* Publishes a batch, or a probe, which has no entries. */
static bool bus_send(struct bus *bus, unsigned partition, enum wire_lane lane,
                     const struct bus_batch *batch)
{
    struct wire_batch head = {
        .origin = bus->self, .lane = lane, .partition = partition, .first = batch->first};

    bus->out.length = 0;
    wire_begin_batch(&bus->out, &bus->keys, &head);
    for (const struct bus_entry *entry = batch->entries.first; entry;
         entry = (const struct bus_entry *)entry->event.mail.next)
        wire_append_entry(&bus->out, entry->text);
    if (!wire_seal_batch(&bus->out, &bus->keys, str_of(&bus->cluster), batch->entries.count)) {
        buf_free(&bus->out);
        return rabbit_fail(bus->rabbit, "out of memory", "free some");
    }
    pthread_mutex_lock(&bus->lock);
    bus->stats.bytes_published += bus->out.length;
    pthread_mutex_unlock(&bus->lock);
    return rabbit_publish(bus->rabbit, partition, batch->keys, batch->key_count, str_of(&bus->out));
}

static bool bus_send_batch(struct bus *bus, unsigned partition, enum wire_lane lane,
                           struct bus_batch *batch)
{
    if (!batch)
        return rabbit_fail(bus->rabbit, "out of memory", "free some");
    batch->again = false;
    batch->at = bus->clock;
    batch->at_us = bus_now_us();
    return bus_send(bus, partition, lane, batch);
}

/* Publishes a probe through a partition that has been quiet. */
static bool bus_send_probe(struct bus *bus, unsigned partition)
{
    struct bus_probe *probe = &bus->probes[partition];
    struct bus_batch empty = {.first = bus->generation};

    if (bus->up && !probe->out && bus->clock - probe->echo_at >= PROBE_EVERY &&
        !bus->streams[partition][LANE_SEND].flying && !bus->streams[partition][LANE_NOTICE].flying)
        probe->due = true;
    if (!probe->due || !bus_can_send(bus))
        return true;
    probe->due = false;
    probe->out = true;
    probe->at = bus->clock;
    probe->at_us = bus_now_us();
    return bus_send(bus, partition, LANE_SEND, &empty);
}

/* Publishes what waits for a partition: sends before notices. */
static bool bus_send_partition(struct bus *bus, unsigned partition)
{
    struct bus_stream *sends = &bus->streams[partition][LANE_SEND];
    struct bus_stream *notices = &bus->streams[partition][LANE_NOTICE];

    bus_drop_expired(bus, sends);
    if (!bus_send_probe(bus, partition))
        return false;
    if (!bus->up)
        return true;
    while (sends->waiting.first && sends->flying < SEND_WINDOW && bus_can_send(bus))
        if (!bus_send_batch(bus, partition, LANE_SEND, bus_form_batch(sends, LANE_SEND)))
            return false;
    if (sends->waiting.first)
        return true;
    if (notices->in_flight && notices->in_flight->again && bus_can_send(bus))
        return bus_send_batch(bus, partition, LANE_NOTICE, notices->in_flight);
    if (!notices->flying && notices->waiting.first && bus_can_send(bus))
        return bus_send_batch(bus, partition, LANE_NOTICE, bus_form_batch(notices, LANE_NOTICE));
    return true;
}

static bool bus_publish_some(struct bus *bus)
{
    if (!rabbit_publish_rest(bus->rabbit))
        return false;
    for (unsigned i = 0; i < WIRE_PARTITIONS; i++)
        if (!bus_send_partition(bus, (bus->turn + i) % WIRE_PARTITIONS))
            return false;
    bus->turn = (bus->turn + 1) % WIRE_PARTITIONS;
    if (rabbit_publishing(bus->rabbit))
        bus->blocked = true;
    else if (bus->out.capacity > SCRATCH_KEPT)
        buf_free(&bus->out);
    return true;
}

/* The next slot to be asked for. False if there is none, or no memory to tell of it. */
static bool bus_next_slot(struct bus *bus, struct bus_asked *asked)
{
    struct bus_event *event;
    struct bus_slot *slot;

    if (bus->dirty_count == 0 || !(event = malloc(sizeof *event)))
        return false;
    pthread_mutex_lock(&bus->lock);
    *asked = (struct bus_asked){.slot = bus->dirty[bus->dirty_first], .at = bus->clock};
    bus->dirty_first = (bus->dirty_first + 1) % WIRE_SLOTS;
    bus->dirty_count--;
    slot = &bus->slots[asked->slot];
    slot->dirty = false;
    asked->bound = slot->wanted;
    *event = (struct bus_event){.kind = BUS_BOUND, .slot = asked->slot, .version = slot->version};
    pthread_mutex_unlock(&bus->lock);
    slot->maybe |= asked->bound;
    if (asked->bound)
        asked->event = event;
    else
        free(event);
    return true;
}

static bool bus_ask_bindings(struct bus *bus)
{
    struct bus_asked *asked;

    while (bus->dirty_count && bus->asked_count < ASKED_MAX && bus_can_send(bus)) {
        asked = &bus->asked[(bus->asked_first + bus->asked_count) % ASKED_MAX];
        if (!bus_next_slot(bus, asked))
            break;
        bus->asked_count++;
        if (!rabbit_bind(bus->rabbit, asked->slot, asked->bound))
            return false;
    }
    return true;
}

/* Takes what the loop has acknowledged, and what it was not given, off the ring. */
static void bus_take_acknowledged(struct bus *bus, uint64_t count)
{
    uint64_t stale = count < bus->stale ? count : bus->stale;

    bus->stale -= stale;
    count -= stale;
    while (bus->held_count && (count || !bus->held[bus->held_first].given)) {
        count -= bus->held[bus->held_first].given;
        bus->held_bytes -= bus->held[bus->held_first].size;
        bus->untold_bytes += bus->held[bus->held_first].size;
        bus->held_first = (bus->held_first + 1) % RABBIT_PREFETCH;
        bus->held_count--;
        if (bus->done++ == bus->told)
            bus->untold_since = bus->clock;
    }
}

static bool bus_send_acknowledgements(struct bus *bus)
{
    if (bus->done == bus->told ||
        (bus->done - bus->told < ACK_EVERY && bus->untold_bytes < ACK_BYTES &&
         bus->clock - bus->untold_since < ACK_TIME) ||
        !rabbit_writable(bus->rabbit))
        return true;
    bus->told = bus->done;
    bus->untold_bytes = 0;
    return rabbit_acknowledge(bus->rabbit, bus->told);
}

/* --- the thread ------------------------------------------------------------------------------- */

/* When the oldest that has not come back was published; the clock if there is none. */
static int64_t bus_oldest(const struct bus *bus)
{
    int64_t oldest = bus->clock;

    for (unsigned i = 0; i < WIRE_PARTITIONS; i++) {
        for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
            const struct bus_batch *batch = bus->streams[i][lane].in_flight;

            if (batch && !batch->again && batch->at < oldest)
                oldest = batch->at;
        }
        if (bus->probes[i].out && bus->probes[i].at < oldest)
            oldest = bus->probes[i].at;
    }
    return oldest;
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
    bus_tell(bus, slow ? BUS_SLOW : BUS_MOVING, slow ? text : "");
}

/* False if RabbitMQ has not answered for so long that a new connection is the better chance. */
static bool bus_check_age(struct bus *bus)
{
    int64_t oldest = bus_oldest(bus);
    char text[100];

    if (bus->up)
        bus_set_slow(bus, bus->clock - oldest > bus->rpc_timeout);
    if (bus->asked_count && bus->asked[bus->asked_first].at < oldest)
        oldest = bus->asked[bus->asked_first].at;
    if (bus->clock - oldest > BREAK_TIME)
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
    bus->blocked = false;
    return bus_take_events(bus) && bus_send_acknowledgements(bus) && bus_publish_some(bus) &&
           bus_ask_bindings(bus) && bus_check_age(bus);
}

/* True if something is waited for that has to be looked after. */
static bool bus_is_busy(const struct bus *bus)
{
    return bus_oldest(bus) < bus->clock || bus->done != bus->told || bus->pending;
}

static void bus_wait(struct bus *bus)
{
    struct pollfd polls[2] = {{bus->pipe[0], POLLIN, 0}, {-1, POLLIN, 0}};
    bool connected = rabbit_connected(bus->rabbit);
    int64_t wait = TICK, now;

    if (!connected)
        wait = bus->retry_at - worker_now();
    else if (bus_is_busy(bus))
        wait = QUICK_TICK;
    if (connected && (bus->blocked || !bus->paused)) {
        polls[1].fd = rabbit_fd(bus->rabbit);
        polls[1].events = (short)((bus->paused ? 0 : POLLIN) | (bus->blocked ? POLLOUT : 0));
        if (!bus->paused && rabbit_has_input(bus->rabbit))
            wait = 0;
    }
    poll(polls, 2, wait < 0 ? 0 : wait > TICK ? TICK : (int)wait);
    now = worker_now();
    bus->clock += now - bus->seen_at < TICK ? now - bus->seen_at : TICK;
    bus->seen_at = now;
}

/* Takes what the loop has left. False if the thread is to end. */
static bool bus_take_work(struct bus *bus)
{
    uint64_t acknowledged;
    bool stop;

    pthread_mutex_lock(&bus->lock);
    if (bus->woken)
        mailbox_drain(bus->pipe[0]);
    bus->woken = false;
    acknowledged = bus->acknowledged;
    bus->acknowledged = 0;
    stop = bus->stop;
    pthread_mutex_unlock(&bus->lock);
    bus_sort_arrived(bus);
    bus_take_acknowledged(bus, acknowledged);
    return !stop;
}

static void bus_free(struct bus *bus)
{
    struct mail *mail = mailbox_take(&bus->events), *next;

    for (; mail; mail = next) {
        next = mail->next;
        free(mail);
    }
    bus_free_list(&bus->arrived);
    for (unsigned i = 0; i < WIRE_PARTITIONS * LANE_COUNT; i++) {
        struct bus_stream *stream = &bus->streams[i / LANE_COUNT][i % LANE_COUNT];
        struct bus_batch *batch;

        bus_free_list(&stream->waiting);
        while ((batch = bus_take_batch(stream))) {
            bus_free_list(&batch->entries);
            free(batch);
        }
    }
    for (; bus->asked_count; bus->asked_count--) {
        free(bus->asked[bus->asked_first].event);
        bus->asked_first = (bus->asked_first + 1) % ASKED_MAX;
    }
    rabbit_free(bus->rabbit);
    crypto_erase(&bus->keys, sizeof bus->keys);
    buf_free(&bus->cluster);
    buf_free(&bus->out);
    mailbox_close(&bus->events);
    pthread_mutex_destroy(&bus->lock);
    for (int i = 0; i < 2; i++)
        if (bus->pipe[i] >= 0)
            close(bus->pipe[i]);
    free(bus);
}

static void *bus_run(void *argument)
{
    struct bus *bus = argument;
    bool abandoned;

    while (bus_take_work(bus)) {
        bus_connect(bus);
        if (rabbit_connected(bus->rabbit) && !bus_serve(bus))
            bus_disconnect(bus);
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

/* Wakes the thread. Call it with the lock. */
static void bus_wake(struct bus *bus)
{
    if (!bus->woken && write(bus->pipe[1], "w", 1) < 0)
        return; /* a full pipe wakes as well */
    bus->woken = true;
}

static struct bus_entry *bus_new_entry(const struct bus_publication *publication)
{
    char key[NODE_TEXT_MAX + 2] = "@";
    size_t key_length, length = publication->text.length;
    struct bus_entry *entry;

    if (publication->to)
        key_length = 1 + node_write(publication->to, key + 1);
    else
        key_length = (size_t)snprintf(key, sizeof key, "%u", (unsigned)publication->slot);
    entry = malloc(sizeof *entry + key_length + length);
    if (!entry)
        return NULL;
    *entry = (struct bus_entry){.event.id = publication->id,
                                .lane = publication->lane,
                                .partition = publication->partition,
                                .deadline = publication->deadline,
                                .key = {entry->bytes, key_length},
                                .text = {entry->bytes + key_length, length}};
    memcpy(entry->bytes, key, key_length);
    if (length)
        memcpy(entry->bytes + key_length, publication->text.at, length);
    return entry;
}

bool bus_publish(struct bus *bus, const struct bus_publication *publication)
{
    enum wire_lane lane = publication->lane;
    bool notice = lane == LANE_NOTICE, good;
    struct bus_entry *entry =
        publication->text.length <= BUS_MESSAGE_MAX ? bus_new_entry(publication) : NULL;

    pthread_mutex_lock(&bus->lock);
    good = entry && (bus->up || notice) && bus->bytes[lane] + bus_cost(entry) <= BUS_BYTES_MAX;
    if (good) {
        bus->bytes[lane] += bus_cost(entry);
        bus->pending++;
        bus->stats.notices_waiting += notice;
        bus_append(&bus->arrived, entry);
        bus_wake(bus);
    } else {
        bus->stats.notices_dropped += notice;
    }
    pthread_mutex_unlock(&bus->lock);
    if (!good)
        free(entry);
    return good;
}

void bus_bind(struct bus *bus, uint16_t slot, uint32_t version, bool bound)
{
    pthread_mutex_lock(&bus->lock);
    bus->slots[slot].wanted = bound;
    bus->slots[slot].version = version;
    bus->slots[slot].changed_at = worker_now();
    bus_mark_slot(bus, slot);
    bus_wake(bus);
    pthread_mutex_unlock(&bus->lock);
}

struct bus_event *bus_take(struct bus *bus)
{
    return (struct bus_event *)mailbox_take(&bus->events);
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
    struct rabbit_options rabbit = {
        .config = options->config, .partitions = WIRE_PARTITIONS, .room = sizeof(struct bus_event)};
    char node[NODE_TEXT_MAX];

    if (!bus)
        return NULL;
    rabbit.node = (struct str){node, node_write(&options->self, node)};
    bus->keys = *options->keys;
    bus->self = options->self;
    bus->rpc_timeout = (int64_t)options->config->rpc_timeout;
    bus->seen_at = worker_now();
    for (unsigned i = 0; i < WIRE_PARTITIONS * LANE_COUNT; i++)
        bus->streams[i / LANE_COUNT][i % LANE_COUNT].next = 1; /* 0 is before the first */
    bus->pipe[0] = bus->pipe[1] = -1;
    pthread_mutex_init(&bus->lock, NULL);
    mailbox_open(&bus->events, options->wake);
    bus->rabbit = rabbit_open(&rabbit);
    if (bus->rabbit && buf_append(&bus->cluster, options->cluster) && mailbox_pipe(bus->pipe) &&
        (bus->has_thread = worker_start(&bus->thread, bus_run, bus)))
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
