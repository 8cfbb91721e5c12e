/* cluster_order.c - order between nodes. */
#include "cluster_order.h"

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

    if (!last || number <= *last)
        return ORDER_REPETITION;
    if (*last && number - *last > ORDER_JUMP_MAX)
        return ORDER_JUMP;
    *last = number;
    return ORDER_NEW;
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
