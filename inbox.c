/* inbox.c - messages of clients on their way to webhooks: unfinished ones, and how often they may
 * come.
 *
 * A table has an entry for each client that needs one. Two theoretical arrival times judge a
 * client: `due` advances with the messages that pass, `flood` ten times slower with all of them. An
 * entry is idle when both lie behind and no message is unfinished. Each message looks at
 * SWEEP entries of the table and frees those that are idle, so it does not grow with the number of
 * clients that have ever sent something. Only the loop's thread calls this module. */
#include "inbox.h"

#include <stdlib.h>

#define SWEEP 2

struct inbox_client {
    uint64_t number;
    int64_t due, flood; /* microseconds of the steady clock */
    struct buf text;
    bool begun; /* `text` is an unfinished message, */
};

static struct inbox_client *inbox_find(const struct inbox *inbox, uint64_t number)
{
    struct table_cursor cursor = {.hash = (uint32_t)number};
    struct inbox_client *client;

    while ((client = table_next(&inbox->clients, &cursor)) && client->number != number)
        ;
    return client;
}

static struct inbox_client *inbox_find_or_add(struct inbox *inbox, uint64_t number)
{
    struct inbox_client *client = inbox_find(inbox, number);

    if (client)
        return client;
    client = calloc(1, sizeof *client);
    if (client && table_add(&inbox->clients, (uint32_t)number, client)) {
        client->number = number;
        return client;
    }
    free(client);
    return NULL;
}

static void inbox_drop_text(struct inbox *inbox, struct inbox_client *client)
{
    inbox->bytes -= client->text.length;
    buf_free(&client->text);
    client->begun = false;
}

static void inbox_remove(struct inbox *inbox, struct inbox_client *client)
{
    inbox_drop_text(inbox, client);
    table_remove(&inbox->clients, (uint32_t)client->number, client);
    free(client);
}

const struct buf *inbox_append(struct inbox *inbox, uint64_t number, struct str piece, bool first)
{
    struct inbox_client *client =
        first ? inbox_find_or_add(inbox, number) : inbox_find(inbox, number);

    if (!client || (!first && !client->begun))
        return NULL;
    if (first)
        inbox_drop_text(inbox, client);
    client->begun = true;
    inbox->bytes -= client->text.length;
    if (inbox->bytes + client->text.length + piece.length > INBOX_BYTES_MAX)
        client->text.failed = true;
    if (!buf_append(&client->text, piece)) {
        buf_free(&client->text);
        client->text.failed = true;
    }
    inbox->bytes += client->text.length;
    return &client->text;
}

void inbox_clear(struct inbox *inbox, uint64_t number)
{
    struct inbox_client *client = inbox_find(inbox, number);

    if (client)
        inbox_drop_text(inbox, client);
}

static void inbox_sweep(struct inbox *inbox, int64_t now)
{
    for (int i = 0; i < SWEEP; i++) {
        struct inbox_client *client = table_walk(&inbox->clients, &inbox->sweep);

        if (!client)
            inbox->sweep = 0;
        else if (!client->begun && client->due <= now && client->flood <= now)
            inbox_remove(inbox, client);
    }
}

/* Lets a message pass, and moves the time on, if it comes no earlier than `burst` allow. */
static bool inbox_pass(int64_t *time, int64_t interval, int64_t burst, int64_t now)
{
    int64_t next = (*time > now ? *time : now) + interval;

    if (next - now > interval * burst)
        return false;
    *time = next;
    return true;
}

enum inbox_verdict inbox_judge(struct inbox *inbox, uint64_t number, uint64_t rate, int64_t now)
{
    int64_t interval = 1000000 / (int64_t)rate, time = now * 1000;
    struct inbox_client *client;

    inbox_sweep(inbox, time);
    client = inbox_find_or_add(inbox, number);
    if (!client)
        return INBOX_PASSES;
    if (!inbox_pass(&client->flood, interval / INBOX_FLOOD, INBOX_BURST * INBOX_FLOOD, time))
        return INBOX_IS_FLOOD;
    return inbox_pass(&client->due, interval, INBOX_BURST, time) ? INBOX_PASSES : INBOX_TOO_FAST;
}

void inbox_forget(struct inbox *inbox, uint64_t number)
{
    struct inbox_client *client = inbox_find(inbox, number);

    if (client)
        inbox_remove(inbox, client);
}

void inbox_close(struct inbox *inbox)
{
    struct inbox_client *client;
    size_t place = 0;

    while ((client = table_walk(&inbox->clients, &place))) {
        buf_free(&client->text);
        free(client);
    }
    table_free(&inbox->clients);
    *inbox = (struct inbox){0};
}
