/* test_roster.c - roster.c: counts; pages in which all that stays is exactly once while others come
 * and go, in slices; positions, also forged ones; and what is done to all clients of a user. */
#include "roster.h"

#include "node.h"

#define CLIENTS 120

static struct test_client clients[CLIENTS];
static bool is_there[CLIENTS];
static struct result result; /* of the last command */

/* --- commands -------------------------------------------------------------------------------- */

static struct command make_command(enum command_kind kind)
{
    return (struct command){
        .kind = kind, .system = STR("shop"), .limit = 100, .close_code = WS_CLOSE_NORMAL};
}

static struct command bind_to(size_t who, const char *group)
{
    struct command command = make_command(COMMAND_BIND);

    command.client = quoted(id_of(&clients[who]));
    command.group = str_from(group);
    return command;
}

static void (*between)(void); /* called between two pages, and between slices of one */

/* Takes over the result of a walk. */
static void finish(void)
{
    struct roster_walk *walk;

    for (size_t rounds = 0; roster_run(&node.hub); rounds++)
        if (between && rounds % 3 == 0)
            between();
    walk = roster_take(&node.hub);
    CHECK(walk && walk->id == 5 && !roster_take(&node.hub));
    result = walk->result;
    walk->result.list = (struct buf){0};
    roster_free(walk);
}

static const struct result *apply(struct command command)
{
    buf_free(&result.list);
    result = (struct result){0};
    if (!roster_apply(&node.hub, &command, 5, &result))
        finish();
    flush();
    return &result;
}

static bool succeeds(struct command command)
{
    return apply(command)->code == RESULT_SUCCESS && !result.error;
}

static void come(size_t who)
{
    arrive(&clients[who], STR("shop"));
    is_there[who] = true;
}

static void go(size_t who)
{
    if (is_there[who])
        depart(&clients[who]);
    is_there[who] = false;
}

static void set_up(size_t count)
{
    node_open();
    node.hub.channels.key[0] = 1; /* the orders are the same each time */
    node.config.scope = NOTICE_OFF;
    node.config.max_groups = 100000;
    for (size_t i = 0; i < count; i++)
        come(i);
}

static void tear_down(void)
{
    for (size_t i = 0; i < CLIENTS; i++)
        go(i);
    buf_free(&result.list);
    node_close();
}

/* --- counts ---------------------------------------------------------------------------------- */

static void counts_are_named(void)
{
    static const struct {
        const char *groups, *users;
        bool wide;
        const char *expected;
    } rows[] = {
        {NULL, NULL, false, ""},
        {NULL, NULL, true, "\"system\":3"},
        {"[]", NULL, false, "\"groups\":{}"},
        {"[\"g\" , \"h\",\"\",\"\\u0067\"]", NULL, false,
         "\"groups\":{\"g\":2,\"h\":1,\"\":0,\"\\u0067\":2}"},
        {NULL, "[\"u\",\"g\",\"\\ud800\"]", false, "\"users\":{\"u\":2,\"g\":0,\"\\ud800\":0}"},
        {"[\"u\"]", "[\"u\"]", true, "\"system\":3,\"groups\":{\"u\":0},\"users\":{\"u\":2}"},
    };
    struct command command;

    set_up(3);
    arrive(&clients[3], STR("other"));
    is_there[3] = true;
    for (size_t i = 0; i < 2; i++) {
        command = bind_to(i, "g");
        command.user = STR("u");
        command.has_user = true;
        CHECK(succeeds(command));
    }
    CHECK(succeeds(bind_to(2, "h")));
    for (size_t i = 0; i < COUNT(rows); i++) {
        command = make_command(COMMAND_COUNT_CLIENTS);
        command.groups = str_from(rows[i].groups);
        command.users = str_from(rows[i].users);
        command.wide = rows[i].wide;
        CHECK(succeeds(command) && same(str_of(&result.list), str_from(rows[i].expected)));
    }
    /* a system without clients */
    command.system = STR("nobody");
    CHECK(succeeds(command));
    CHECK(same(str_of(&result.list), STR("\"system\":0,\"groups\":{\"u\":0},\"users\":{\"u\":0}")));
    tear_down();
}

/* --- pages ----------------------------------------------------------------------------------- */

/* Reads the value of a string member of a page's entry into a text. */
static struct str entry_name(struct json_value entry, const char *member)
{
    struct json_field field = {.name = str_from(member)};
    struct json_error error;

    if (!CHECK(json_parse_object(entry.text, &field, 1, &error)))
        return (struct str){0};
    return str_from(textf("%.*s", (int)field.value.text.length - 2, field.value.text.at + 1));
}

static size_t seen[100000]; /* how often each name was listed: groups g0, g1 …, or clients */

static void note_entry(const struct command *command, struct json_value entry)
{
    struct str name =
        entry_name(entry, command->kind == COMMAND_LIST_GROUPS ? "groupName" : "clientId");

    if (command->kind == COMMAND_LIST_GROUPS) {
        if (CHECK(name.length > 1))
            seen[(size_t)strtoul(name.at + 1, NULL, 10) % COUNT(seen)]++;
        return;
    }
    for (size_t i = 0; i < CLIENTS; i++)
        if (is_there[i] && str_equal(name, id_of(&clients[i])))
            seen[i]++;
}

static char position[ROSTER_POSITION_MAX + 1]; /* of the next page */

/* Gets the page behind `position` and notes its entries. False at the end. */
static bool get_page(struct command command)
{
    struct str list, next;
    struct buf text = {0};
    struct json_value entry;
    size_t count = 0;

    command.after = str_from(position);
    if (!CHECK(succeeds(command)))
        return false;
    list = str_of(&result.list);
    next = roster_split(&list);
    CHECK(next.length >= 2 && next.length <= sizeof position);
    snprintf(position, sizeof position, "%.*s", (int)next.length - 2, next.at + 1);
    buf_append(&text, STR("["));
    buf_append(&text, list);
    buf_append(&text, STR("]"));
    for (struct str rest = str_of(&text); json_next_element(&rest, &entry); count++)
        note_entry(&command, entry);
    buf_free(&text);
    CHECK(count == result.count && count <= command.limit);
    CHECK(count > 0 || !position[0]); /* no page of a node alone is empty but the last */
    return position[0] != '\0';
}

/* Lists all; returns how many pages that takes. `churn` is called between pages and slices. */
static size_t list_all(struct command command, void (*churn)(void))
{
    size_t pages = 1;

    memset(seen, 0, sizeof seen);
    position[0] = '\0';
    between = churn;
    for (; get_page(command) && pages < 100000; pages++)
        if (churn)
            churn();
    between = NULL;
    return pages;
}

static bool all_seen_once(size_t from, size_t to)
{
    size_t wrong = 0;

    for (size_t i = from; i < to; i++)
        wrong += seen[i] != 1;
    if (wrong)
        printf("  %zu of %zu not listed exactly once\n", wrong, to - from);
    return wrong == 0;
}

static void pages_have_their_limit(void)
{
    static const unsigned limits[] = {1, 2, 7, 49, 50, 51, 1000};
    struct command groups = make_command(COMMAND_LIST_GROUPS);
    struct command people = make_command(COMMAND_LIST_CLIENTS);

    set_up(50);
    for (size_t i = 0; i < 50; i++)
        CHECK(succeeds(bind_to(i % 3, textf("g%zu", i))));
    for (size_t i = 0; i < COUNT(limits); i++) {
        size_t pages = (50 + limits[i] - 1) / limits[i];

        groups.limit = people.limit = limits[i];
        CHECK(list_all(groups, NULL) == pages && all_seen_once(0, 50));
        CHECK(list_all(people, NULL) == pages && all_seen_once(0, 50));
    }
    groups.group = STR("g1");
    groups.limit = 4;
    CHECK(list_all(groups, NULL) == 3 && seen[1] == 1 && all_seen_once(10, 20) && !seen[2]);
    groups.group = STR("x");
    CHECK(list_all(groups, NULL) == 1 && result.count == 0);
    groups.group = STR("");
    groups.system = people.system = STR("nobody");
    CHECK(list_all(groups, NULL) == 1 && list_all(people, NULL) == 1 && result.count == 0);
    tear_down();
}

static uint32_t random_state = 7;

static size_t random_below(size_t end)
{
    return next_random(&random_state) % end;
}

#define STABLE_GROUPS 3000
static size_t newest_group;

/* Groups come, so that the table grows, and go. */
static void churn_groups(void)
{
    for (int i = 0; i < 20 && newest_group < COUNT(seen); i++) {
        struct command command = bind_to(1, textf("g%zu", newest_group));
        struct result none = {0};

        hub_apply(&node.hub, &command, &none);
        command.group =
            str_from(textf("g%zu", STABLE_GROUPS + random_below(newest_group + 1 - STABLE_GROUPS)));
        command.kind = random_below(3) ? COMMAND_UNBIND : COMMAND_BIND;
        hub_apply(&node.hub, &command, &none);
        CHECK(none.code == RESULT_SUCCESS);
        newest_group++;
    }
}

static void groups_that_stay_are_listed_once(void)
{
    static const unsigned limits[] = {97, 10, 1000, 33};
    struct command command = make_command(COMMAND_LIST_GROUPS);
    size_t capacity, grown = 0;

    set_up(2);
    newest_group = STABLE_GROUPS;
    for (size_t i = 0; i < STABLE_GROUPS; i++)
        CHECK(succeeds(bind_to(0, textf("g%zu", i))));
    for (size_t i = 0; i < COUNT(limits); i++) {
        capacity = node.hub.channels.names.capacity;
        command.limit = limits[i];
        CHECK(list_all(command, churn_groups) >= STABLE_GROUPS / limits[i]);
        CHECK(all_seen_once(0, STABLE_GROUPS));
        grown += node.hub.channels.names.capacity > capacity;
    }
    CHECK(grown > 0 && newest_group < COUNT(seen));
    tear_down();
}

/* Clients come and go; half of them stay. */
static void churn_clients(void)
{
    for (int i = 0; i < 4; i++) {
        size_t who = CLIENTS / 2 + random_below(CLIENTS / 2);

        if (is_there[who])
            go(who);
        else
            come(who);
    }
}

static void clients_that_stay_are_listed_once(void)
{
    struct command command = make_command(COMMAND_LIST_CLIENTS), bind;
    static const unsigned limits[] = {1, 7, 30};

    set_up(CLIENTS / 2);
    for (size_t i = 0; i < CLIENTS / 2; i++) {
        bind = bind_to(i, "all");
        bind.user = i % 10 ? STR("u") : STR("v"); /* the second is small */
        bind.has_user = true;
        CHECK(succeeds(bind));
    }
    for (size_t i = 0; i < COUNT(limits); i++) {
        command.limit = limits[i];
        command.user = command.group = STR("");
        list_all(command, churn_clients);
        CHECK(all_seen_once(0, CLIENTS / 2));
        command.group = STR("all");
        list_all(command, churn_clients);
        CHECK(all_seen_once(0, CLIENTS / 2));
        command.user = STR("v");
        list_all(command, churn_clients);
        for (size_t who = 0; who < CLIENTS; who++)
            CHECK(seen[who] == (who < CLIENTS / 2 && who % 10 == 0));
        command.group = STR("");
        list_all(command, churn_clients);
        for (size_t who = 0; who < CLIENTS; who++)
            CHECK(seen[who] == (who < CLIENTS / 2 && who % 10 == 0));
    }
    tear_down();
}

static void entries_describe(void)
{
    struct command command = bind_to(0, "g\"");
    const char *about;

    set_up(1);
    command = bind_to(0, "g\"");
    command.user = STR("u");
    command.extend = STR("e");
    command.has_user = command.has_extend = true;
    CHECK(succeeds(command));
    command = make_command(COMMAND_LIST_GROUPS);
    CHECK(succeeds(command) &&
          same(str_of(&result.list), STR("{\"groupName\":\"g\\\"\",\"clients\":1},\"\"")));
    command.kind = COMMAND_LIST_CLIENTS;
    about = textf("{\"clientId\":\"%s\",\"userId\":\"u\",\"extend\":\"e\"", clients[0].id);
    CHECK(succeeds(command));
    CHECK(same(
        str_of(&result.list),
        str_from(textf("%s,\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"},\"\"", about))));
    command.wide = true;
    CHECK(succeeds(command));
    CHECK(same(str_of(&result.list),
               str_from(textf("%s,\"groups\":[\"g\\\"\"],\"connectedAt\":1700000000,"
                              "\"remote\":\"127.0.0.1\"},\"\"",
                              about))));
    tear_down();
}

/* Many long names: a page ends before it is too long. */
static void a_page_ends_when_it_is_long(void)
{
    struct command command = make_command(COMMAND_LIST_CLIENTS);

    set_up(4);
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 1500; j++)
            CHECK(succeeds(bind_to(i, textf("%0120zu", j))));
    command.wide = true;
    CHECK(list_all(command, NULL) == 2 && all_seen_once(0, 4));
    tear_down();
}

/* --- slices ---------------------------------------------------------------------------------- */

/* A long list takes many iterations, and a short one does not wait for its end. */
static void lists_share_the_iterations(void)
{
    struct command command = make_command(COMMAND_LIST_GROUPS);
    struct roster_walk *walk;
    size_t rounds = 0;

    set_up(1);
    for (size_t i = 0; i < 20000; i++)
        CHECK(succeeds(bind_to(0, textf("g%zu", i))));
    buf_free(&result.list);
    result = (struct result){0};
    command.group = STR("no such");
    CHECK(!roster_apply(&node.hub, &command, 1, &result));
    CHECK(!roster_apply(&node.hub, &command, 2, &result));
    command.kind = COMMAND_LIST_CLIENTS;
    command.group = STR("");
    CHECK(!roster_apply(&node.hub, &command, 3, &result));
    while (!(walk = roster_take(&node.hub)) && rounds < 5) {
        CHECK(roster_run(&node.hub));
        rounds++;
    }
    CHECK(walk && walk->id == 3);
    roster_free(walk);
    for (; roster_run(&node.hub); rounds++)
        ;
    CHECK(rounds > 40);
    for (uint64_t id = 1; id <= 2; id++) {
        walk = roster_take(&node.hub);
        CHECK(walk && walk->id == id && walk->result.count == 0);
        roster_free(walk);
    }
    tear_down();
}

static void lists_under_way_are_limited(void)
{
    struct command command = make_command(COMMAND_LIST_CLIENTS);
    struct roster_walk *walk;
    size_t count = 0;

    set_up(1);
    for (; count < 1000 && !roster_apply(&node.hub, &command, 1, &result); count++)
        ;
    CHECK(count == 256 && result.code == RESULT_LIMIT);
    while (roster_run(&node.hub))
        ;
    walk = roster_take(&node.hub);
    CHECK(walk != NULL);
    roster_free(walk);
    result = (struct result){0};
    CHECK(!roster_apply(&node.hub, &command, 1, &result)); /* the others are freed at the end */
    result = (struct result){0};
    tear_down();
}

/* --- positions ------------------------------------------------------------------------------- */

static bool refuses(struct command command, const char *after)
{
    command.after = str_from(after);
    return apply(command)->code == RESULT_MALFORMED && contains(str_from(result.error), "after");
}

static void forged_positions_are_refused(void)
{
    static const char *const bad[] = {"x",          "00",         "0000000", "00000000",
                                      "zzzzzzzzzz", "0000000000", "67",      "AABBCCDDEE"};
    static const enum command_kind kinds[] = {COMMAND_LIST_GROUPS, COMMAND_LIST_CLIENTS};
    char good[2][ROSTER_POSITION_MAX + 1], forged[ROSTER_POSITION_MAX + 2];

    set_up(2);
    CHECK(succeeds(bind_to(0, "g1")) && succeeds(bind_to(0, "g2")));
    for (size_t i = 0; i < 2; i++) {
        struct command command = make_command(kinds[i]);

        for (size_t j = 0; j < COUNT(bad); j++)
            CHECK(refuses(command, bad[j]));
        memset(forged, '0', sizeof forged);
        forged[sizeof forged - 1] = '\0';
        CHECK(refuses(command, forged));
        command.limit = 1;
        position[0] = '\0';
        CHECK(get_page(command));
        strcpy(good[i], position);
        for (size_t at = 0; good[i][at]; at++) {
            strcpy(forged, good[i]);
            forged[at] = forged[at] == '0' ? '1' : '0';
            CHECK(refuses(command, forged));
            strcpy(forged, good[i]);
            forged[at] = '\0';
            CHECK(at == 0 || refuses(command, forged));
        }
        strcpy(forged, good[i]);
        strcat(forged, "0");
        CHECK(refuses(command, forged));
    }
    /* one list's position is none of the other, nor of another run */
    CHECK(refuses(make_command(COMMAND_LIST_GROUPS), good[1]));
    CHECK(refuses(make_command(COMMAND_LIST_CLIENTS), good[0]));
    node.hub.channels.key[0]++;
    CHECK(refuses(make_command(COMMAND_LIST_CLIENTS), good[1]));
    node.hub.channels.key[0]--;
    tear_down();
}

/* --- all clients of a user ------------------------------------------------------------------- */

static bool counts(enum command_kind kind, const char *user, const char *group, size_t matched,
                   size_t dropped)
{
    struct command command = make_command(kind);

    command.user = str_from(user);
    command.group = str_from(group);
    return succeeds(command) && result.matched == matched && result.dropped == dropped &&
           result.queued == matched - dropped;
}

static size_t members(const char *group)
{
    struct command command = make_command(COMMAND_ONLINE_LIST);

    command.group = str_from(group);
    CHECK(succeeds(command));
    return (size_t)result.count;
}

static void users_are_bound_and_unbound(void)
{
    set_up(40);
    for (size_t i = 0; i < 40; i++) {
        struct command bind = bind_to(i, "all");

        bind.user = i < 38 ? STR("u") : STR("v");
        bind.has_user = true;
        CHECK(succeeds(bind));
    }
    CHECK(counts(COMMAND_BIND_USER, "nobody", "g", 0, 0) && members("g") == 0);
    CHECK(counts(COMMAND_BIND_USER, "u", "g", 38, 0) && members("g") == 38);
    CHECK(counts(COMMAND_BIND_USER, "u", "g", 38, 0) && members("g") == 38);
    CHECK(counts(COMMAND_BIND_USER, "v", "g", 2, 0) && members("g") == 40);
    node.config.max_groups = 2;
    CHECK(succeeds(bind_to(39, "h")) == false);
    CHECK(counts(COMMAND_BIND_USER, "v", "h", 2, 2) && members("h") == 0);
    CHECK(counts(COMMAND_UNBIND_USER, "v", "all", 2, 0) && members("all") == 38);
    CHECK(counts(COMMAND_BIND_USER, "v", "h", 2, 0) && members("h") == 2);
    CHECK(counts(COMMAND_UNBIND_USER, "u", "g", 38, 0) && members("g") == 2);
    CHECK(counts(COMMAND_UNBIND_USER, "u", "g", 38, 0) && members("g") == 2);
    tear_down();
}

static void users_are_closed(void)
{
    struct command command = make_command(COMMAND_CLOSE_USER);

    set_up(40);
    for (size_t i = 0; i < 40; i++) {
        struct command bind = bind_to(i, "all");

        bind.user = i < 30 ? STR("u") : STR("v");
        bind.has_user = i < 39;
        CHECK(succeeds(bind));
    }
    command.user = STR("u");
    command.clients = str_from(textf("[\"%s\",\"x\",\"%s\"]", clients[7].id, clients[35].id));
    command.close_code = 4000;
    command.reason = STR("elsewhere");
    CHECK(succeeds(command) && result.matched == 29);
    for (size_t i = 0; i < 40; i++) {
        CHECK((clients[i].conn.client != NULL) == (i == 7 || i >= 30));
        CHECK(!clients[i].conn.client || !clients[i].conn.client->is_excluded);
    }
    CHECK(got_close(&clients[0].far, 4000, "elsewhere"));
    CHECK(members("all") == 11);
    command.clients = (struct str){0};
    CHECK(succeeds(command) && result.matched == 1 && !clients[7].conn.client);
    CHECK(succeeds(command) && result.matched == 0);
    tear_down();
}

int main(void)
{
    test_run("counts_are_named", counts_are_named);
    test_run("pages_have_their_limit", pages_have_their_limit);
    test_run("groups_that_stay_are_listed_once", groups_that_stay_are_listed_once);
    test_run("clients_that_stay_are_listed_once", clients_that_stay_are_listed_once);
    test_run("entries_describe", entries_describe);
    test_run("a_page_ends_when_it_is_long", a_page_ends_when_it_is_long);
    test_run("lists_share_the_iterations", lists_share_the_iterations);
    test_run("lists_under_way_are_limited", lists_under_way_are_limited);
    test_run("forged_positions_are_refused", forged_positions_are_refused);
    test_run("users_are_bound_and_unbound", users_are_bound_and_unbound);
    test_run("users_are_closed", users_are_closed);
    return test_finish();
}
