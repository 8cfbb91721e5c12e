/* cluster_bus_event.c - what the bus tells. */
#include "cluster_bus_event.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>

const uint32_t bus_echo_bounds[BUS_ECHO_BUCKETS - 1] = {250,   500,   1000,   2000,    4000,   8000,
                                                        16000, 50000, 200000, 1000000, 5000000};

struct bus_event *bus_new_event(enum bus_event_kind kind, const char *text)
{
    size_t length = strlen(text);
    struct bus_event *event;

    while (!(event = malloc(sizeof *event + length)))
        poll(NULL, 0, 10);
    *event = (struct bus_event){.kind = kind, .text = {(const char *)(event + 1), length}};
    memcpy(event + 1, text, length);
    return event;
}

void bus_count_echo(struct bus_stats *stats, int64_t took)
{
    size_t bucket = 0;

    while (bucket < BUS_ECHO_BUCKETS - 1 && took > bus_echo_bounds[bucket])
        bucket++;
    stats->echoes[bucket]++;
    stats->echo_sum += (uint64_t)took;
}
