/* test_channel.c - channel.c: subscriptions beside a plain matrix of who is in what, deliveries,
 * and notices in turn, also of channels that cease to exist. */
#include "channel.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 12
#define GROUPS 40
#define USERS 3

static struct conn_shared shared;
static struct channels channels;
static struct conn conns[CLIENTS];
static int far_ends[CLIENTS];
static struct client *clients[CLIENTS];

static struct str name_of(const char *prefix, int number)
{
    static char room[4][16];
    static unsigned next;
    char *text = room[next++ % 4];

    snprintf(text, sizeof room[0], "%s%d", prefix, number);
    return str_from(text);
}

static void add(int who)
{
    int pair[2];

    if (!CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0))
        exit(1);
    far_ends[who] = pair[1];
    conn_open(&conns[who], pair[0], &shared);
    clients[who] = channel_add_client(&channels, &conns[who], STR("shop"), 100 + (uint64_t)who,
                                      name_of("id", who), false, false);
    CHECK(clients[who] != NULL);
}

/* Unsubscribes a client from a position, and drops what is empty. */
static void leave(int who, uint32_t position)
{
    struct channel *channel = channel_unsubscribe(clients[who], position);

    if (channel->count == 0)
        channel_drop(&channels, channel);
}

static void take_out(int who)
{
    while (clients[who]->subscription_count)
        leave(who, clients[who]->subscription_count - 1);
    channel_remove_client(&channels, clients[who]);
    clients[who] = NULL;
    conn_close(&conns[who]);
    close(far_ends[who]);
}

static void begin(int count)
{
    channels = (struct channels){.key = {1, 2}};
    for (int who = 0; who < count; who++)
        add(who);
}

static void finish(int count)
{
    while (conn_next_dirty(&shared))
        ;
    for (int who = 0; who < count; who++)
        if (clients[who])
            take_out(who);
    CHECK(channels.clients.count == 0 && channels.names.count == 0);
    channel_close(&channels);
}

static struct channel *join(int who, enum channel_kind kind, struct str name)
{
    bool is_new = false;
    struct channel *channel = channel_subscribe(&channels, clients[who], kind, name, &is_new);

    CHECK(channel && is_new);
    if (kind == CHANNEL_USER)
        channel_move_user(clients[who]);
    return channel;
}

static struct channel *find(enum channel_kind kind, struct str name)
{
    struct channel *system = channel_find(&channels, CHANNEL_SYSTEM, NULL, STR("shop"));

    return channel_find(&channels, kind, system, name);
}

/* --- subscriptions --------------------------------------------------------------------------- */

static bool in_group[CLIENTS][GROUPS];
static int user_of[CLIENTS]; /* -1 is none */

static uint32_t draw(uint32_t below)
{
    static uint32_t state = 7;

    state = state * 1664525u + 1013904223u;
    return (state >> 8) % below;
}

/* Both ends of each subscription name each other; the system is first, the user second. */
static bool ends_agree(int who)
{
    const struct client *client = clients[who];
    bool good = client->subscriptions[0].channel->kind == CHANNEL_SYSTEM;

    for (uint32_t i = 0; i < client->subscription_count; i++) {
        const struct subscription *subscription = &client->subscriptions[i];
        const struct channel_member *member = &subscription->channel->members[subscription->index];

        good = good && member->client == client && member->position == i &&
               subscription->index < subscription->channel->count &&
               channel_position(client, subscription->channel) == i &&
               (subscription->channel->kind == CHANNEL_USER) == (i == 1 && user_of[who] >= 0);
    }
    return good;
}

static bool matches_the_matrix(void)
{
    bool good = true;

    for (int group = 0; group < GROUPS; group++) {
        struct channel *channel = find(CHANNEL_GROUP, name_of("g", group));
        uint32_t count = 0;

        for (int who = 0; who < CLIENTS; who++) {
            bool is_in = clients[who] && in_group[who][group];

            count += is_in;
            if (clients[who] && channel)
                good = good && is_in == (channel_position(clients[who], channel) <
                                         clients[who]->subscription_count);
        }
        good = good && (channel ? channel->count == count : count == 0);
    }
    for (int who = 0; who < CLIENTS; who++) {
        struct str user = clients[who] ? channel_user(clients[who]) : STR("");

        good = good && (!clients[who] || ends_agree(who)) &&
               str_equal(user, user_of[who] < 0 ? STR("") : name_of("u", user_of[who]));
    }
    return good;
}

static void change_user(int who)
{
    int user = (int)draw(USERS + 1) - 1;

    if (user == user_of[who])
        return;
    if (user >= 0)
        channel_subscribe(&channels, clients[who], CHANNEL_USER, name_of("u", user),
                          &(bool){false});
    if (user_of[who] >= 0)
        leave(who, 1); /* the new one, which is last, moves there */
    else
        channel_move_user(clients[who]);
    user_of[who] = user;
}

static void change_group(int who, bool grows)
{
    int group = (int)draw(GROUPS);
    struct channel *channel = find(CHANNEL_GROUP, name_of("g", group));

    if (in_group[who][group] && !grows)
        leave(who, channel_position(clients[who], channel));
    else if (!in_group[who][group] && grows)
        join(who, CHANNEL_GROUP, name_of("g", group));
    else
        return;
    in_group[who][group] = grows;
}

static void subscriptions_follow_a_matrix(void)
{
    begin(0);
    for (int who = 0; who < CLIENTS; who++)
        user_of[who] = -1;
    for (int step = 0; step < 6000 && test_good; step++) {
        int who = (int)draw(CLIENTS);
        bool grows = step / 1000 % 2 == 0;

        if (!clients[who]) {
            add(who);
        } else if (draw(100) == 0) {
            take_out(who);
            memset(in_group[who], 0, sizeof in_group[who]);
            user_of[who] = -1;
        } else if (draw(8) == 0) {
            change_user(who);
        } else {
            change_group(who, draw(8) ? grows : !grows);
        }
        CHECK(matches_the_matrix());
    }
    finish(CLIENTS);
}

static void lookups_find_what_is_there(void)
{
    begin(2);
    join(0, CHANNEL_GROUP, STR("a"));
    CHECK(find(CHANNEL_GROUP, STR("a")) && !find(CHANNEL_USER, STR("a")));
    CHECK(!find(CHANNEL_GROUP, STR("")) && !find(CHANNEL_GROUP, STR("b")));
    CHECK(channel_find_client(&channels, 101) == clients[1]);
    CHECK(!channel_find_client(&channels, 102));
    CHECK(str_equal(channel_client_id(clients[1]), STR("id1")));
    CHECK(str_equal(channel_name(channel_system(find(CHANNEL_GROUP, STR("a")))), STR("shop")));
    finish(2);
}

/* --- deliveries ------------------------------------------------------------------------------ */

static void deliveries_count_who_takes_them(void)
{
    struct rcbuf *bytes = rcbuf_copy(STR("hello"));
    struct delivery sum = {.limit = 1000};
    struct channel *channel;

    begin(4);
    for (int who = 0; who < 4; who++)
        channel = join(who, CHANNEL_GROUP, STR("g"));
    clients[2]->is_excluded = true;
    channel_deliver_to_all(&channels, channel, bytes, &sum);
    CHECK(sum.matched == 3 && sum.queued == 3 && bytes->references == 4);
    CHECK(!conns[2].first && conns[3].first == bytes && !channel_next_slow(&channels));
    /* the queues of all but one are full now, and their sockets take nothing */
    for (int who = 0; who < 4; who++)
        conns[who].want_write = true;
    sum = (struct delivery){.limit = 1};
    for (int i = 0; i < 2; i++)
        channel_deliver_to_all(&channels, channel, bytes, &sum);
    CHECK(sum.matched == 6 && sum.queued == 0);
    for (int who = 0; who < 4; who++)
        CHECK(who == 2 || channel_next_slow(&channels) == clients[who]); /* each once */
    CHECK(!channel_next_slow(&channels));
    CHECK(!channel_deliver(&channels, clients[0], bytes, &sum));
    CHECK(channel_deliver(&channels, clients[2], bytes, &sum));
    CHECK(sum.matched == 8 && sum.queued == 1);
    for (int who = 0; who < 4; who++)
        conn_kill(&conns[who]);
    CHECK(bytes->references == 1);
    rcbuf_release(bytes);
    finish(4);
}

/* --- notices --------------------------------------------------------------------------------- */

static void push(struct channel *channel, const char *text)
{
    struct rcbuf *bytes = rcbuf_copy(str_from(text));

    channel_push_notice(&channels, channel, bytes);
    rcbuf_release(bytes);
}

static bool next_is(const struct channel *expected, const char *text)
{
    struct channel *channel;
    struct rcbuf *bytes = channel_next_notice(&channels, &channel);
    bool good = bytes && channel == expected && bytes->references == 1 &&
                str_equal((struct str){bytes->bytes, bytes->length}, str_from(text));

    rcbuf_release(bytes);
    return good;
}

static void notices_go_in_turn(void)
{
    struct channel *a, *b, *channel;

    begin(1);
    a = join(0, CHANNEL_GROUP, STR("a"));
    b = join(0, CHANNEL_GROUP, STR("b"));
    CHECK(!channel_next_notice(&channels, &channel));
    push(a, "a1");
    push(a, "a2");
    push(b, "b1");
    push(a, "a3");
    CHECK(next_is(a, "a1") && next_is(b, "b1") && next_is(a, "a2"));
    push(b, "b2");
    CHECK(next_is(a, "a3") && next_is(b, "b2") && !channel_next_notice(&channels, &channel));
    finish(1);
}

/* Whatever its place in the line; a new channel of the same name has a line of its own. */
static void notices_go_with_their_channel(void)
{
    static const char *const names[] = {"a", "b", "c"};

    for (int gone = 0; gone < 8; gone++) {
        struct channel *groups[3], *again, *channel;

        begin(1);
        for (int i = 0; i < 3; i++) {
            groups[i] = join(0, CHANNEL_GROUP, str_from(names[i]));
            push(groups[i], names[i]);
            push(groups[i], "more");
        }
        for (int i = 2; i >= 0; i--)
            if (gone & 1 << i)
                leave(0, channel_position(clients[0], groups[i]));
        again = gone & 1 ? join(0, CHANNEL_GROUP, STR("a")) : groups[0];
        if (gone & 1)
            push(again, "again");
        for (int i = 0; i < 3; i++)
            CHECK(gone & 1 << i || next_is(groups[i], names[i]));
        CHECK(!(gone & 1) || next_is(again, "again"));
        for (int i = 0; i < 3; i++)
            CHECK(gone & 1 << i || next_is(groups[i], "more"));
        CHECK(!channel_next_notice(&channels, &channel) && !channels.notified.first);
        finish(1);
    }
}

static void closing_frees_everything(void)
{
    struct channel *kept, *dropped;

    begin(2);
    kept = join(0, CHANNEL_GROUP, STR("kept"));
    dropped = join(1, CHANNEL_GROUP, STR("dropped"));
    push(kept, "1");
    push(dropped, "2");
    leave(1, channel_position(clients[1], dropped));
    clients[0]->extend = rcbuf_copy(STR("extend"));
    CHECK(str_equal(channel_extend(clients[0]), STR("extend")));
    CHECK(channel_extend(clients[1]).length == 0);
    channel_close(&channels);
    for (int who = 0; who < 2; who++) {
        conn_close(&conns[who]);
        close(far_ends[who]);
        clients[who] = NULL;
    }
}

int main(void)
{
    test_run("subscriptions_follow_a_matrix", subscriptions_follow_a_matrix);
    test_run("lookups_find_what_is_there", lookups_find_what_is_there);
    test_run("deliveries_count_who_takes_them", deliveries_count_who_takes_them);
    test_run("notices_go_in_turn", notices_go_in_turn);
    test_run("notices_go_with_their_channel", notices_go_with_their_channel);
    test_run("closing_frees_everything", closing_frees_everything);
    return test_finish();
}
