/* cluster_bus_state.c - the bus's events and failures.
 *
 * Data: struct bus. `lock` guards what the loop and the thread share, slots and stats among it; the
 * rest belongs to the thread.
 *
 * Events: they are posted with the lock held. Once bus_close has abandoned a hanging thread, the
 * wake descriptor is closed and its number may name another file.
 *
 * Invariants: each publication that bus_publish takes is completed once, in bus_complete: by an
 * echo, or in LANE_SEND by a failure. `bytes` and `pending` count the others. A batch that leaves
 * the flight releases the binding it relies on. */
#include "cluster_bus_state.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BUS_LOST_AFTER 250   /* milliseconds in flight: a batch or a probe may be lost */
#define BUS_PROBE_EVERY 5000 /* milliseconds without an echo: probe the partition */

void bus_post(struct bus *bus, struct bus_event *event)
{
    pthread_mutex_lock(&bus->lock);
    if (bus->abandoned)
        free(event);
    else
        mailbox_post(&bus->events, &event->mail);
    pthread_mutex_unlock(&bus->lock);
}

void bus_post_new(struct bus *bus, enum bus_event_kind kind, const char *text)
{
    bus_post(bus, bus_new_event(kind, text));
}

void bus_warn(struct bus *bus, int64_t *noted, int64_t pause, const char *text)
{
    if (*noted && bus->clock - *noted < pause)
        return;
    *noted = bus->clock;
    bus_post_new(bus, BUS_WARNING, text);
}

void bus_complete(struct bus *bus, enum wire_lane lane, size_t bytes, uint32_t count, bool good)
{
    pthread_mutex_lock(&bus->lock);
    bus->bytes[lane] -= bytes;
    bus->pending -= count;
    if (good)
        bus->stats.published += count;
    else
        bus->stats.failed += count;
    pthread_mutex_unlock(&bus->lock);
}

/* The entry becomes its FAILED event: stream_new has reserved the memory. */
void bus_fail_entry(struct bus *bus, struct stream_entry *entry, const char *text)
{
    struct bus_event event = {.kind = BUS_FAILED,
                              .id = entry->id,
                              .batch.partition = entry->partition,
                              .text = str_from(text)};

    bus_complete(bus, LANE_SEND, stream_cost(entry), 1, false);
    memcpy(entry, &event, sizeof event);
    bus_post(bus, (struct bus_event *)(void *)entry);
}

void bus_fail_list(struct bus *bus, struct stream_list *list, const char *text)
{
    struct stream_entry *entry;

    while ((entry = stream_take(list)))
        bus_fail_entry(bus, entry, text);
}

void bus_release(struct bus *bus, struct stream_batch *batch)
{
    if (batch->carrier < 0)
        return;
    pthread_mutex_lock(&bus->lock);
    slots_release(&bus->slots, (uint16_t)batch->carrier);
    pthread_mutex_unlock(&bus->lock);
    batch->carrier = -1;
}

void bus_fail_batch(struct bus *bus, struct stream *stream, struct stream_batch *batch,
                    const char *text)
{
    stream_remove(stream, batch);
    bus_release(bus, batch);
    bus_fail_list(bus, &batch->entries, text);
    stream_free_batch(batch);
}

void bus_fail_sends(struct bus *bus)
{
    for (unsigned partition = 0; partition < WIRE_PARTITIONS; partition++) {
        struct stream *sends = &bus->streams[partition][LANE_SEND];
        struct stream_batch *batch;

        while ((batch = sends->in_flight))
            bus_fail_batch(bus, sends, batch,
                           "RabbitMQ was lost before the message came back: whether it was "
                           "delivered is not known");
        bus_fail_list(bus, &sends->waiting,
                      "RabbitMQ was lost before the message was published: nobody got it");
        batch = bus->streams[partition][LANE_NOTICE].in_flight;
        if (batch) {
            bus_release(bus, batch);
            batch->resend = true;
        }
    }
}

void bus_sort_arrived(struct bus *bus)
{
    struct stream_list arrived;
    struct stream_entry *entry;

    pthread_mutex_lock(&bus->lock);
    arrived = bus->arrived;
    bus->arrived = (struct stream_list){0};
    pthread_mutex_unlock(&bus->lock);
    while ((entry = stream_take(&arrived)))
        stream_append(&bus->streams[entry->partition][entry->lane].waiting, entry);
}

void bus_set_up(struct bus *bus, bool up)
{
    pthread_mutex_lock(&bus->lock);
    bus->up = up;
    bus->paused = false;
    pthread_mutex_unlock(&bus->lock);
}

void bus_wake(struct bus *bus)
{
    if (!bus->woken)
        os_wake(bus->pipe[1]);
    bus->woken = true;
}

void bus_free(struct bus *bus)
{
    struct fifo_link *mail = mailbox_take(&bus->events), *next;

    for (; mail; mail = next) {
        next = mail->next;
        free(mail);
    }
    stream_free_list(&bus->arrived);
    for (unsigned i = 0; i < WIRE_PARTITIONS * LANE_COUNT; i++)
        stream_free(&bus->streams[i / LANE_COUNT][i % LANE_COUNT]);
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

void bus_drop_lost(struct bus *bus, unsigned partition, int64_t probed_us)
{
    struct stream *sends = &bus->streams[partition][LANE_SEND];
    struct stream_batch *notices = bus->streams[partition][LANE_NOTICE].in_flight;

    while (sends->in_flight && sends->in_flight->at_us < probed_us)
        bus_fail_batch(bus, sends, sends->in_flight,
                       "RabbitMQ lost the message: what was behind it came back");
    if (notices && notices->at_us < probed_us)
        notices->resend = true;
}

static bool bus_is_overdue(const struct bus *bus, unsigned partition)
{
    for (unsigned lane = 0; lane < LANE_COUNT; lane++) {
        const struct stream_batch *batch = bus->streams[partition][lane].in_flight;

        if (batch && !batch->resend && bus->clock - batch->at >= BUS_LOST_AFTER)
            return true;
    }
    return false;
}

bool bus_wants_probe(const struct bus *bus, unsigned partition)
{
    const struct bus_probe *probe = &bus->probes[partition];

    if (probe->out)
        return bus->clock - probe->last_at >= BUS_LOST_AFTER;
    return bus->up &&
           (bus->clock - probe->echo_at >= BUS_PROBE_EVERY || bus_is_overdue(bus, partition));
}
