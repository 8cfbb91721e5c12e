/* test_inbox.c - messages in pieces, and how often they may come. */
#include "inbox.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

static struct inbox inbox;

static bool is(const struct buf *message, const char *text)
{
    return message && !message->failed && str_equal(str_of(message), str_from(text));
}

static void pieces_become_a_message(void)
{
    CHECK(!inbox_append(&inbox, 1, STR("x"), false));
    CHECK(is(inbox_append(&inbox, 1, STR("a"), true), "a"));
    CHECK(is(inbox_append(&inbox, 2, STR("z"), true), "z"));
    CHECK(is(inbox_append(&inbox, 1, STR(""), false), "a"));
    CHECK(is(inbox_append(&inbox, 1, STR("bc"), false), "abc") && inbox.bytes == 4);
    CHECK(is(inbox_append(&inbox, 2, STR("y"), true), "y") && inbox.bytes == 4);
    inbox_clear(&inbox, 1);
    CHECK(!inbox_append(&inbox, 1, STR("x"), false) && inbox.bytes == 1);
    inbox_forget(&inbox, 2);
    inbox_forget(&inbox, 3);
    CHECK(inbox.bytes == 0);
    inbox_close(&inbox);
}

/* All clients share the memory; one that has no more room loses its message, and no other. */
static void memory_is_limited(void)
{
    size_t half = INBOX_BYTES_MAX / 2;
    char *text = calloc(1, half);
    struct str piece = {text, half};
    const struct buf *message;

    CHECK(text != NULL);
    CHECK(!inbox_append(&inbox, 1, piece, true)->failed);
    CHECK(!inbox_append(&inbox, 2, piece, true)->failed && inbox.bytes == INBOX_BYTES_MAX);
    message = inbox_append(&inbox, 2, STR("x"), false);
    CHECK(message && message->failed && inbox.bytes == half);
    message = inbox_append(&inbox, 2, STR("x"), false);
    CHECK(message && message->failed && inbox.bytes == half);
    CHECK(is(inbox_append(&inbox, 2, STR("new"), true), "new"));
    CHECK(inbox_append(&inbox, 1, STR("x"), false)->length == half + 1);
    inbox_close(&inbox);
    CHECK(inbox.bytes == 0 && inbox.clients.count == 0);
    free(text);
}

/* How many of `count` messages at this moment pass. */
static unsigned passing(uint64_t client, unsigned count, int64_t now)
{
    unsigned passed = 0;

    while (count-- > 0)
        passed += inbox_judge(&inbox, client, 10, now) == INBOX_PASSES;
    return passed;
}

static void a_rate_is_kept(void)
{
    CHECK(passing(1, 30, 1000) == 20 && passing(2, 30, 1000) == 20);
    CHECK(passing(1, 5, 1099) == 0 && passing(1, 5, 1100) == 1 && passing(1, 5, 1100) == 0);
    CHECK(passing(1, 30, 2100) == 10);
    CHECK(passing(1, 50, 1000000) == 20);
    inbox_close(&inbox);
}

static void ten_times_the_rate_is_a_flood(void)
{
    unsigned count = 0;

    while (count < 1000 && inbox_judge(&inbox, 1, 10, 5000) != INBOX_IS_FLOOD)
        count++;
    CHECK(count == 200);
    CHECK(inbox_judge(&inbox, 2, 10, 5000) == INBOX_PASSES);
    for (int64_t now = 10000; now < 60000; now += 11) /* nine times the rate, without end */
        if (inbox_judge(&inbox, 3, 10, now) == INBOX_IS_FLOOD)
            count++;
    CHECK(count == 200);
    inbox_close(&inbox);
}

/* What has become idle is freed as others send. */
static void idle_clients_take_no_memory(void)
{
    for (uint64_t client = 1; client <= 1000; client++)
        inbox_judge(&inbox, client, 10, 1000);
    CHECK(inbox.clients.count == 1000);
    inbox_append(&inbox, 1000, STR("kept"), true);
    for (int i = 0; i < 2000; i++)
        inbox_judge(&inbox, 2000, 10, 10000);
    CHECK(inbox.clients.count == 2);
    CHECK(is(inbox_append(&inbox, 1000, STR("!"), false), "kept!"));
    inbox_close(&inbox);
}

int main(void)
{
    test_run("pieces become a message", pieces_become_a_message);
    test_run("memory is limited", memory_is_limited);
    test_run("a rate is kept", a_rate_is_kept);
    test_run("ten times the rate is a flood", ten_times_the_rate_is_a_flood);
    test_run("idle clients take no memory", idle_clients_take_no_memory);
    return test_finish();
}
