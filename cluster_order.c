/* cluster_order.c - order between nodes. */
#include "cluster_order.h"

#include "json.h"

#include <stdlib.h>
#include <string.h>

#define ORDER_SENDERS_MAX 1024 /* incarnations that are remembered */

/* Frees the origin that was silent longest: it is dead. */
static void order_forget_oldest(struct order_senders *senders)
{
    struct order_sender **at = &senders->first;

    while ((*at)->next)
        at = &(*at)->next;
    free(*at);
    *at = NULL;
    senders->count--;
}

/* Finds an origin's entry, or makes it, and moves it to the front. NULL without memory. */
static struct order_sender *order_touch(struct order_senders *senders, const struct node_id *node)
{
    struct order_sender **at = &senders->first, *sender;

    while (*at && !node_equal(&(*at)->node, node))
        at = &(*at)->next;
    sender = *at;
    if (sender) {
        *at = sender->next;
    } else {
        sender = calloc(1, sizeof *sender);
        if (!sender)
            return NULL;
        if (senders->count == ORDER_SENDERS_MAX)
            order_forget_oldest(senders);
        sender->node = *node;
        senders->count++;
    }
    sender->next = senders->first;
    senders->first = sender;
    return sender;
}

enum order_result order_take(struct order_senders *senders, const struct node_id *node,
                             enum wire_lane lane, unsigned partition, uint64_t number)
{
    struct order_sender *sender = order_touch(senders, node);
    uint64_t *last = sender ? &sender->last[lane * WIRE_PARTITIONS + partition] : NULL;

    if (!last)
        return ORDER_NO_MEMORY;
    if (number <= *last)
        return ORDER_REPETITION;
    if (*last && number - *last > ORDER_JUMP_MAX)
        return ORDER_JUMP;
    *last = number;
    return ORDER_NEW;
}

void order_take_back(struct order_senders *senders, enum wire_lane lane, unsigned partition)
{
    senders->first->last[lane * WIRE_PARTITIONS + partition]--; /* order_touch has put it there */
}

bool order_write(const struct order_senders *senders, unsigned partition, struct buf *out)
{
    bool first = true;

    buf_append(out, STR("["));
    for (const struct order_sender *sender = senders->first; sender; sender = sender->next) {
        char text[NODE_TEXT_MAX];
        uint64_t sends = sender->last[LANE_SEND * WIRE_PARTITIONS + partition];
        uint64_t notices = sender->last[LANE_NOTICE * WIRE_PARTITIONS + partition];

        if (!sends && !notices)
            continue;
        node_write(&sender->node, text);
        buf_print(out, "%s\"%s\",%llu,%llu", first ? "" : ",", text, (unsigned long long)sends,
                  (unsigned long long)notices);
        first = false;
    }
    return buf_append(out, STR("]"));
}

void order_note(struct order_senders *firsts, const struct node_id *node, enum wire_lane lane,
                unsigned partition, uint64_t number)
{
    struct order_sender *sender = order_touch(firsts, node);
    uint64_t *first = sender ? &sender->last[lane * WIRE_PARTITIONS + partition] : NULL;

    if (first && !*first)
        *first = number;
}

bool order_merge(struct order_senders *senders, struct order_senders *firsts, unsigned partition,
                 struct str array)
{
    struct json_value text, value;
    struct node_id node;
    int64_t number;

    while (json_next_element(&array, &text)) {
        if (text.type != JSON_STRING ||
            !node_read((struct str){text.text.at + 1, text.text.length - 2}, &node))
            return false;
        for (size_t lane = 0; lane < LANE_COUNT; lane++) {
            struct order_sender *mine = order_touch(senders, &node);
            const struct order_sender *since = order_touch(firsts, &node);
            size_t stream = lane * WIRE_PARTITIONS + partition;

            if (!mine || !since || !json_next_element(&array, &value) ||
                !json_decode_integer(value, &number) || number < 0 ||
                (since->last[stream] && since->last[stream] <= (uint64_t)number))
                return false;
            if (mine->last[stream] < (uint64_t)number)
                mine->last[stream] = (uint64_t)number;
        }
    }
    return true;
}

void order_free(struct order_senders *senders)
{
    while (senders->count)
        order_forget_oldest(senders);
}

int64_t order_age(struct order_clock *clock, int64_t at, int64_t now)
{
    int64_t difference = now - at, least;

    if (clock->known && now - clock->begun >= ORDER_WINDOW) {
        clock->before = clock->least;
        clock->has_before = true;
        clock->known = false;
    }
    if (!clock->known) {
        clock->least = difference;
        clock->begun = now;
        clock->known = true;
    }
    if (difference < clock->least)
        clock->least = difference;
    least = clock->has_before && clock->before < clock->least ? clock->before : clock->least;
    return difference - least;
}
