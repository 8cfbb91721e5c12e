/* test_event.c - what becomes of clients, as members of events. The webhook is one of this program,
 * which writes down what it is given. */
#include "event.h"

#include "scarce.h"
#include "test.h"

#include <sys/socket.h>
#include <unistd.h>

/* --- the webhook ----------------------------------------------------------------------------- */

static int left = -1; /* allocations until they fail; -1: they never do */

static bool scarce_refuses(void)
{
    left -= left > 0;
    return left == 0;
}

struct webhooks {
    int count;
};
struct webhook {
    const char *system;
};

static struct webhooks hooks = {2};
static struct webhook systems[] = {{"shop"}, {"other"}};
static unsigned wanted;   /* bits: 1 << kind */
static bool full;         /* no message fits */
static char pushed[4096]; /* a line for each event */

struct webhook *webhook_find(const struct webhooks *webhooks, struct str system)
{
    for (int i = 0; i < webhooks->count; i++)
        if (str_equal(str_from(systems[i].system), system))
            return &systems[i];
    return NULL;
}

struct webhook *webhook_next(const struct webhooks *webhooks, size_t *place)
{
    return webhooks && (int)*place < webhooks->count ? &systems[(*place)++] : NULL;
}

struct str webhook_system(const struct webhook *webhook)
{
    return str_from(webhook->system);
}

void webhook_restart(struct webhooks *webhooks, struct webhook *webhook, uint64_t lost)
{
    size_t length = strlen(pushed);

    CHECK(webhooks == &hooks);
    snprintf(pushed + length, sizeof pushed - length, "%s restarts, %d\n", webhook->system,
             (int)lost);
}

bool webhook_wants(struct webhooks *webhooks, const struct webhook *webhook, enum webhook_kind kind)
{
    CHECK(webhooks == &hooks && webhook == &systems[0]);
    return wanted & 1u << kind;
}

/* Notes the system, the kind and the members of an event; one that is lost has a '!' instead. */
bool webhook_push(struct webhooks *webhooks, struct webhook *webhook, enum webhook_kind kind,
                  const struct webhook_field *fields)
{
    struct buf line = {.at = pushed, .length = strlen(pushed), .limit = sizeof pushed};

    CHECK(webhooks == &hooks);
    line.capacity = line.limit;
    buf_print(&line, "%s %u", webhook->system, (unsigned)kind);
    for (; fields->name; fields++) {
        buf_print(&line, " %s=", fields->name);
        if (fields->type == WEBHOOK_NUMBER)
            buf_append_number(&line, fields->number);
        else
            buf_append(&line, fields->text);
        if (fields->type == WEBHOOK_JSON && !fields->text.length)
            buf_append(&line, STR("!"));
    }
    CHECK(buf_append(&line, (struct str){"\n", 2}));
    return !full;
}

static bool got(const char *text)
{
    bool good = strcmp(pushed, text) == 0;

    if (!good)
        printf("  expected %s  got %s", text, pushed);
    pushed[0] = '\0';
    return good;
}

/* --- a client -------------------------------------------------------------------------------- */

static struct conn_shared shared;
static struct channels channels;
static struct conn conn;
static struct client *client;
static int far_end;

static void join(enum channel_kind kind, struct str name)
{
    bool is_new;

    CHECK(channel_subscribe(&channels, client, kind, name, &is_new) && is_new);
    if (kind == CHANNEL_USER)
        channel_move_user(client);
}

static void begin(int fixture)
{
    static const unsigned char address[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 7};
    int ends[2];

    (void)fixture;
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    far_end = ends[1];
    channels = (struct channels){.key = {1, 2}};
    conn_open(&conn, ends[0], &shared);
    memcpy(conn.address, address, sizeof address);
    client = channel_add_client(&channels, &conn, STR("shop"), 1, STR("id1"), false, false);
    CHECK(client);
    wanted = 0x1f;
    full = false;
    pushed[0] = '\0';
}

static void end(int fixture)
{
    (void)fixture;
    channel_close(&channels);
    conn_close(&conn);
    close(far_end);
}

static void disconnect(struct webhooks *webhooks, unsigned code, struct str reason, int64_t seconds)
{
    struct event_client about = event_about(client);

    event_disconnect(webhooks, &about, code, reason, seconds);
}

/* --- tests ----------------------------------------------------------------------------------- */

static void a_client_has_neither_user_nor_group(void)
{
    event_connect(&hooks, client, STR(""));
    CHECK(got("shop 0 clientId=id1 userId= extend= remote=2001:db8::7 groups=[]\n"));
    event_connect(&hooks, client, STR("id0"));
    CHECK(got("shop 0 clientId=id1 userId= extend= remote=2001:db8::7 groups=[] previous=id0\n"));
    disconnect(&hooks, 1006, STR(""), 0);
    CHECK(got("shop 1 clientId=id1 userId= extend= code=1006 reason= seconds=0\n"));
}

static void groups_are_named_without_system_and_user(void)
{
    join(CHANNEL_GROUP, STR("g\"1"));
    event_connect(&hooks, client, STR(""));
    CHECK(got("shop 0 clientId=id1 userId= extend= remote=2001:db8::7 groups=[\"g\\\"1\"]\n"));
    join(CHANNEL_USER, STR("u1"));
    join(CHANNEL_GROUP, STR("g2"));
    client->extend = rcbuf_copy(STR("more"));
    event_connect(&hooks, client, STR(""));
    CHECK(got("shop 0 clientId=id1 userId=u1 extend=more remote=2001:db8::7 "
              "groups=[\"g\\\"1\",\"g2\"]\n"));
}

static void other_events_have_their_members(void)
{
    join(CHANNEL_USER, STR("u1"));
    client->extend = rcbuf_copy(STR("e"));
    event_join(&hooks, client, STR("news"));
    event_leave(&hooks, client, STR("news"));
    CHECK(got("shop 2 clientId=id1 userId=u1 extend=e groupName=news\n"
              "shop 3 clientId=id1 userId=u1 extend=e groupName=news\n"));
    CHECK(event_message(&hooks, client, (struct str){"a\0b", 3}));
    CHECK(memcmp(pushed, "shop 4 clientId=id1 userId=u1 text=a\0b\n", 40) == 0);
    pushed[0] = '\0';
    disconnect(&hooks, 4000, STR("bye"), 12);
    CHECK(got("shop 1 clientId=id1 userId=u1 extend=e code=4000 reason=bye seconds=12\n"));
}

static void a_webhook_is_told_of_the_end_of_a_node(void)
{
    event_end(&hooks, &systems[1], STR("10.0.0.5:8801"), 1764000000123);
    CHECK(got("other 5 node=10.0.0.5:8801 epoch=1764000000123\n"));
}

static void all_receivers_list_the_clients_again(void)
{
    event_restart(&hooks, &channels);
    CHECK(got("shop restarts, 1\nother restarts, 0\n"));
    event_restart(NULL, &channels);
}

static void messages_are_wanted_or_not(void)
{
    CHECK(event_wants(&hooks, client, WEBHOOK_MESSAGE));
    full = true;
    CHECK(!event_message(&hooks, client, STR("x")));
    wanted &= ~(1u << WEBHOOK_MESSAGE);
    CHECK(!event_wants(&hooks, client, WEBHOOK_MESSAGE));
}

static void without_a_webhook_nothing_is_done(void)
{
    struct webhooks *none[] = {NULL, &(struct webhooks){0}};

    for (size_t i = 0; i < COUNT(none); i++) {
        event_connect(none[i], client, STR(""));
        disconnect(none[i], 1000, STR(""), 1);
        event_join(none[i], client, STR("g"));
        event_leave(none[i], client, STR("g"));
        CHECK(event_message(none[i], client, STR("x")));
        CHECK(!event_wants(none[i], client, WEBHOOK_MESSAGE));
    }
    CHECK(got(""));
}

/* A list of groups that is cut short would be no JSON. */
static void without_memory_the_event_is_lost(void)
{
    static const char lost[] = "shop 0 clientId=id1 userId= extend= remote=2001:db8::7 groups=!\n";
    int losses = 0;

    for (int i = 0; i < 20; i++)
        join(CHANNEL_GROUP, str_from(textf("a group with a long name, number %d", i)));
    for (left = 1; left < 20; left++) {
        int last = left;

        pushed[0] = '\0';
        event_connect(&hooks, client, STR(""));
        losses += strcmp(pushed, lost) == 0;
        CHECK(left > 0 || strcmp(pushed, lost) == 0);
        left = last;
    }
    left = -1;
    CHECK(losses > 1);
}

int main(void)
{
    static const struct test tests[] = {
        TEST(a_client_has_neither_user_nor_group, 0),
        TEST(groups_are_named_without_system_and_user, 0),
        TEST(other_events_have_their_members, 0),
        TEST(a_webhook_is_told_of_the_end_of_a_node, 0),
        TEST(all_receivers_list_the_clients_again, 0),
        TEST(messages_are_wanted_or_not, 0),
        TEST(without_a_webhook_nothing_is_done, 0),
        TEST(without_memory_the_event_is_lost, 0),
    };

    test_run_all(tests, COUNT(tests), begin, end);
    return test_finish();
}
