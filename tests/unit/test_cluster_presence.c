/* test_cluster_presence.c - cluster_presence.c: what members are told of joins and leaves, whatever
 * becomes of the records: 1001 and 1002 alternate, and what came and went unseen costs nothing. */
#include "cluster_fake.h"

/* --- changes, without a hub ------------------------------------------------------------------- */

static const char client_id[] =
    "\"0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrst+/\"";

/* Client number `who` of this node joins, leaves or is still there. */
static void change(size_t who, const char *group, enum presence_kind kind, bool told)
{
    char id[sizeof client_id];

    memcpy(id, client_id, sizeof id);
    id[1] = (char)('a' + who);
    presence_change(fake.cluster,
                    &(struct hub_presence){.kind = kind,
                                           .notify = told,
                                           .system = STR("shop"),
                                           .group = str_from(group),
                                           .id = str_from(id),
                                           .client_json = str_from(textf("{\"n\":%zu}", who))});
}

/* Appends what was published since `*seen`: 1 for 1001, 2 for 1002, ? for anything else. */
static void note_notices(char *notices, size_t *seen)
{
    for (; *seen < fake.publication_count; ++*seen) {
        const struct fake_publication *kept = &fake.publications[*seen];
        const struct cluster_msg *msg = fake_read(kept->with.text);
        bool good = kept->with.lane == LANE_NOTICE && !kept->with.to && msg->kind == MSG_SEND &&
                    kept->with.slot == state_slot_of(&msg->command) &&
                    kept->with.partition == wire_partition(STR("shop"));

        notices[strlen(notices)] = !good                       ? '?'
                                   : msg->command.code == 1001 ? '1'
                                   : msg->command.code == 1002 ? '2'
                                                               : '?';
    }
}

/* --- each transition -------------------------------------------------------------------------- */

/* A script: J and j a join that is told and one that is not (of a crowd), L and l the same of a
 * leave, R a refresh; p the operations are begun; C, U, ? and N their result is changed, unchanged,
 * unknown or that they were not done; V this node was taken for dead, B Redis is back. */
static void play(const char *script)
{
    bool online = false;

    for (; *script; script++) {
        switch (*script) {
        case 'J':
        case 'j':
        case 'L':
        case 'l':
            online = strchr("Jj", *script) != NULL;
            change(0, "g", online ? PRESENCE_JOIN : PRESENCE_LEAVE, strchr("JL", *script) != NULL);
            break;
        case 'R':
            change(0, "g", PRESENCE_REFRESH, false);
            break;
        case 'p':
            fake_wait(100);
            break;
        case 'e': /* the notices come back */
            fake_return_all();
            fake_serve();
            break;
        case 'C':
            fake_written(REGISTRY_CHANGED);
            break;
        case 'U':
            fake_written(REGISTRY_UNCHANGED);
            break;
        case '?':
            fake_written(REGISTRY_UNKNOWN);
            break;
        case 'N':
            fake_written(REGISTRY_NOT_DONE);
            break;
        case 'V':
        case 'B': /* the hub reports its clients, of which this test has none, first */
            if (online)
                change(0, "g", PRESENCE_REFRESH, *script == 'V');
            fake_registry_event(*script == 'V' ? REGISTRY_REVIVED : REGISTRY_RECONNECTED, "");
            cluster_serve(fake.cluster, NULL, fake.now);
            break;
        default:
            CHECK(false);
        }
    }
}

static void transitions(void)
{
    static const struct {
        const char *script, *operations, *notices;
        size_t waiting; /* entries left */
    } rows[] = {
        /* plain */
        {"JpC", "w", "1", 0},
        {"JpCLpC", "wd", "12", 0},
        {"JpCLpCJpC", "wdw", "121", 0},
        {"Jp", "w", "", 1},
        /* a crowd is recorded, and nobody is told */
        {"jpC", "w", "", 0},
        {"jpClpC", "wd", "", 0},
        {"jpCLpC", "wd", "2", 0},
        /* what came and went unseen costs nothing */
        {"JL", "", "", 0},
        {"JLp", "", "", 0},
        {"JLJLJLp", "", "", 0},
        {"JLJpC", "w", "1", 0},
        /* who left and came back is told of as both: somebody may have joined in between */
        {"JpCLJpCC", "wdw", "121", 0},
        {"JpCLJLpC", "wd", "12", 0},
        {"JpCLJLJpCC", "wdw", "121", 0},
        /* the same while an operation is under way */
        {"JpLCpC", "wd", "12", 0},
        {"JpLJCCC", "wdw", "121", 0},
        {"JpLJLCpC", "wd", "12", 0},
        {"JpCLpJCpC", "wdw", "121", 0},
        {"JpCLpJLCp", "wd", "12", 0},
        {"JpLNp", "w", "", 0},
        {"JpLNpC", "w", "", 0},
        /* a refresh writes, and nobody is told */
        {"JpCRpU", "ww", "1", 0},
        {"JpCRpC", "ww", "1", 0},
        {"JRpC", "w", "1", 0},
        {"JpRCpU", "ww", "1", 0},
        {"JpCRLpC", "wd", "12", 0},
        /* what was not done is done later */
        {"JpNpC", "ww", "1", 0},
        {"JpCLpNpC", "wdd", "12", 0},
        {"JpCLpNJpCC", "wddw", "121", 0},
        /* a connection that broke: 1001 and 1002 once each, whether it was done or not */
        {"Jp?pC", "ww", "1", 0},
        {"Jp?pU", "ww", "1", 0},
        {"Jp?p?pU", "www", "1", 0},
        {"Jp?LpC", "wd", "", 0},
        {"Jp?LpU", "wd", "", 0},
        {"Jp?LpUJpC", "wdw", "1", 0},
        {"Jp?LJpUC", "wdw", "1", 0},
        {"Jp?LJpCC", "wdw", "1", 0},
        {"JpL?pC", "wd", "", 0},
        {"JpCLp?pC", "wdd", "12", 0},
        {"JpCLp?pU", "wdd", "12", 0},
        {"JpCLp?JpUC", "wddw", "121", 0},
        {"JpCLp?JpCC", "wddw", "121", 0},
        {"JpCLp?JpCCLpC", "wddwd", "1212", 0},
        /* Redis lost the record */
        {"JpCBpC", "ww", "1", 0},
        {"JpCBpCLpC", "wwd", "12", 0},
        {"JpCLpU", "wd", "12", 0},
        {"JpCBLpU", "wd", "12", 0},
        {"JpCLJpUC", "wdw", "121", 0},
        {"JpCLBpU", "wd", "12", 0},
        {"JBpC", "w", "1", 0},
        /* taken for dead: another node removed the record and told 1002, or not yet */
        {"JpCeVpC", "ww", "11", 0},
        {"JpCVpC", "ww", "1", 0}, /* its 1001 comes behind the 1002 */
        {"JpCVLpU", "wd", "12", 0},
        {"JpCVpU", "ww", "1", 0},
        {"JpCeVRpC", "ww", "11", 0},
        {"JpCVLpC", "wd", "12", 0},
        {"JpCeVLpU", "wd", "1", 0},
        {"JpCLVpC", "wd", "12", 0},
        {"JpCeLVpU", "wd", "1", 0},
        {"JpCLpVC", "wd", "12", 0},
        {"JpCeLpVU", "wd", "1", 0},
        {"JpCLJVpCC", "wdw", "121", 0},
        {"JpCeLJVpUC", "wdw", "11", 0},
        {"JpCeRpVCpU", "www", "11", 0},
        {"JVpC", "w", "1", 0},
        {"JpVCpU", "ww", "1", 0},
        {"JpVLCpC", "wd", "12", 0},
        {"Jp?VpU", "ww", "1", 0},
        {"Jp?VpC", "ww", "1", 0},
        {"JpCVLJpCC", "wdw", "121", 0},
        {"JpCeVLJpUC", "wdw", "11", 0},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        char operations[64] = "", notices[64] = "";
        size_t seen = 0;

        fake_start(0);
        play(rows[i].script);
        for (size_t k = 0; k < fake.operation_count; k++)
            operations[k] = fake.operations[k].text.length ? 'w' : 'd';
        note_notices(notices, &seen);
        if (!CHECK(strcmp(operations, rows[i].operations) == 0 &&
                   strcmp(notices, rows[i].notices) == 0 &&
                   presence_waiting(fake.cluster) == rows[i].waiting + fake_open_publications()))
            printf("  %s: %s, not %s; %s, not %s; %zu wait\n", rows[i].script, operations,
                   rows[i].operations, notices, rows[i].notices,
                   presence_waiting(fake.cluster) - fake_open_publications());
        fake_end();
    }
}

/* --- at random, against a model --------------------------------------------------------------- */

#define MODELLED 3

static struct world {
    bool online[MODELLED]; /* the hub's word */
    bool record[MODELLED]; /* in Redis */
    bool view[MODELLED];   /* the last notice was 1001 */
    bool strict;           /* notices alternate, */
    size_t late;           /* but for those that were on their way when the node was cleaned up */
    size_t seen;           /* publications */
    uint32_t state;
} world;

static unsigned draw(unsigned below)
{
    return next_random(&world.state) % below;
}

/* A notice to the members. */
static void tell(size_t who, bool online)
{
    if (world.strict && world.seen >= world.late && !CHECK(world.view[who] != online))
        printf("  client %zu was told %s twice\n", who, online ? "1001" : "1002");
    world.view[who] = online;
}

/* What was published comes back, and so to the members. */
static void take_notices(void)
{
    for (; world.seen < fake.publication_count; world.seen++) {
        const struct cluster_msg *msg = fake_read(fake.publications[world.seen].with.text);

        CHECK(msg->command.data.length == strlen("{\"n\":0}"));
        tell((size_t)(msg->command.data.at[5] - '0') % MODELLED, msg->command.code == 1001);
        fake_return(world.seen);
    }
}

/* Redis does, or does not do, the oldest operation, and this node learns what has become of it. */
static void answer_operation(bool may_break)
{
    struct fake_operation *operation = NULL;
    struct registry_event *event;
    static struct registry_result result;
    enum registry_change changes[] = {REGISTRY_UNCHANGED, REGISTRY_UNKNOWN, REGISTRY_NOT_DONE};
    unsigned way = may_break ? draw(4) : 3;
    size_t who;

    for (size_t i = 0; i < fake.operation_count && !operation; i++)
        if (!fake.operations[i].done)
            operation = &fake.operations[i];
    if (!operation)
        return;
    operation->done = true;
    who = (size_t)(operation->name.at[1] - 'a') % MODELLED;
    result = (struct registry_result){operation->id, changes[way % 3]};
    if (way == 3 || (way == 1 && draw(2))) { /* of what is unknown half is done */
        bool present = operation->text.length != 0;

        if (way == 3)
            result.change = world.record[who] != present ? REGISTRY_CHANGED : REGISTRY_UNCHANGED;
        world.record[who] = present;
    } else if (way == 0) {
        result.change = REGISTRY_NOT_DONE;
    }
    event = fake_registry_event(REGISTRY_WRITTEN, "");
    event->results = &result;
    event->count = 1;
    cluster_serve(fake.cluster, NULL, fake.now);
    if (draw(2))
        take_notices();
}

/* All records of this node vanish, and it hears of that before anything else is done. A 1001 that
 * is on its way comes behind the 1002 of the cleanup. */
static void lose_records(bool cleaned_up)
{
    if (cleaned_up)
        world.late = fake.publication_count;
    for (size_t who = 0; who < MODELLED; who++) {
        if (cleaned_up && world.record[who])
            world.view[who] = false;
        world.record[who] = false;
        if (world.online[who])
            change(who, "g", PRESENCE_REFRESH, cleaned_up);
    }
    fake_registry_event(cleaned_up ? REGISTRY_REVIVED : REGISTRY_RECONNECTED, "");
    cluster_serve(fake.cluster, NULL, fake.now);
}

static void walk(uint32_t seed, bool may_break, bool may_lose, bool may_be_cleaned_up)
{
    world = (struct world){.strict = !(may_break && may_be_cleaned_up), .state = seed};
    fake_start(0);
    for (int step = 0; step < 400 && test_good; step++) {
        size_t who = draw(MODELLED);
        unsigned what = draw(100);

        if (what < 45) {
            world.online[who] = !world.online[who];
            change(who, "g", world.online[who] ? PRESENCE_JOIN : PRESENCE_LEAVE, true);
        } else if (what < 50 && world.online[who]) {
            change(who, "g", PRESENCE_REFRESH, false);
        } else if (what < 65) {
            fake_wait(100);
        } else if (what < 98) {
            answer_operation(may_break);
        } else if (may_lose && (what == 98 || !may_be_cleaned_up)) {
            lose_records(false);
        } else if (may_be_cleaned_up) {
            lose_records(true);
        }
    }
    for (int step = 0; step < 100; step++) {
        fake_wait(100);
        answer_operation(false);
    }
    take_notices();
    fake_serve();
    CHECK(presence_is_idle(fake.cluster));
    for (size_t who = 0; who < MODELLED; who++) {
        CHECK(world.record[who] == world.online[who]);
        CHECK(!world.strict || world.view[who] == world.online[who]);
    }
    if (!test_good)
        printf("  that was seed %u\n", (unsigned)seed);
    fake_end();
}

static void notices_alternate_whatever_redis_does(void)
{
    for (uint32_t seed = 1; seed <= 300 && test_good; seed++)
        walk(seed, seed % 2, seed / 2 % 2, false);
}

static void notices_alternate_around_a_cleanup(void)
{
    for (uint32_t seed = 1; seed <= 150 && test_good; seed++)
        walk(seed, false, false, true);
}

/* Where the connection breaks and the node is cleaned up as well, records still come to what they
 * should be. */
static void records_converge_in_any_case(void)
{
    for (uint32_t seed = 1; seed <= 150 && test_good; seed++)
        walk(seed, true, true, true);
}

/* --- what is written and published ------------------------------------------------------------ */

static void records_and_notices_say_who_it_was(void)
{
    const char *json = "{\"clientId\":\"x\",\"userId\":\"\\u0001\"}";
    struct hub_presence presence = {.kind = PRESENCE_JOIN,
                                    .notify = true,
                                    .system = STR("s\"1\""),
                                    .group = STR("g\\\xc3\xa9"),
                                    .id = str_from(client_id),
                                    .client_json = str_from(json)};
    const struct cluster_msg *msg;

    presence_change(fake.cluster, &presence);
    fake_serve();
    CHECK(fake.operation_count == 1);
    CHECK(same(fake.operations[0].name, str_from(textf("%sg\\\xc3\xa9", client_id))));
    CHECK(same(fake.operations[0].text,
               str_from(textf("{\"system\":\"s\\\"1\\\"\",\"group\":\"g\\\\\xc3\xa9\",\"id\":%s,"
                              "\"identity\":%s}",
                              client_id, json))));
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 1);
    msg = fake_read(fake.publications[0].with.text);
    CHECK(msg->command.kind == COMMAND_SEND_TO_GROUP && msg->command.code == 1001);
    CHECK(same(msg->command.system, presence.system) && same(msg->command.group, presence.group));
    CHECK(same(msg->command.msg, STR("\"client online\"")));
    CHECK(same(msg->command.data, str_from(json)) && !msg->command.clients.length);
    CHECK(fake.publications[0].with.slot == wire_slot(WIRE_GROUP, presence.system, presence.group));
    /* the client's leave is not told to itself: it may be back */
    presence.kind = PRESENCE_LEAVE;
    presence_change(fake.cluster, &presence);
    fake_serve();
    CHECK(fake.operation_count == 2 && !fake.operations[1].text.length);
    fake_written(REGISTRY_CHANGED);
    msg = fake_read(fake.publications[1].with.text);
    CHECK(msg->command.code == 1002 && same(msg->command.msg, STR("\"client offline\"")));
    CHECK(same(msg->command.clients, str_from(textf("[%s]", client_id))));
    /* without a group it is the system's */
    presence.kind = PRESENCE_JOIN;
    presence.group = STR("");
    presence_change(fake.cluster, &presence);
    fake_serve();
    fake_written(REGISTRY_CHANGED);
    msg = fake_read(fake.publications[2].with.text);
    CHECK(msg->command.kind == COMMAND_SEND_TO_SYSTEM && !msg->command.group.length);
    CHECK(fake.publications[2].with.slot == wire_slot(WIRE_SYSTEM, presence.system, STR("")));
    fake_return_all();
    CHECK(presence_is_idle(fake.cluster));
}

/* The last description is what is written and told, though it came while the record was written. */
static void the_last_description_counts(void)
{
    struct hub_presence presence = {.kind = PRESENCE_JOIN,
                                    .notify = true,
                                    .system = STR("shop"),
                                    .group = STR("g"),
                                    .id = str_from(client_id),
                                    .client_json = STR("{\"v\":1}")};

    presence_change(fake.cluster, &presence);
    presence.kind = PRESENCE_REFRESH;
    presence.notify = false;
    presence.client_json = STR("{\"v\":2}");
    presence_change(fake.cluster, &presence);
    fake_serve();
    CHECK(fake.operation_count == 1 && contains(fake.operations[0].text, "{\"v\":2}"));
    presence.client_json = STR("{\"v\":3}");
    presence_change(fake.cluster, &presence);
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 1 && contains(fake.publications[0].with.text, "{\"v\":3}"));
    fake_serve();
    CHECK(fake.operation_count == 2 && contains(fake.operations[1].text, "{\"v\":3}"));
    fake_written(REGISTRY_UNCHANGED);
    fake_return_all();
    CHECK(fake.publication_count == 1 && presence_is_idle(fake.cluster));
}

/* Of 100 changes behind a slow Redis the last one is written: one operation for each entry. */
static void many_changes_are_one_operation(void)
{
    change(0, "g", PRESENCE_JOIN, true);
    fake_serve();
    for (int i = 0; i < 100; i++)
        change(0, "g", PRESENCE_REFRESH, false);
    for (size_t k = 0; k < 150; k++)
        for (int i = 0; i < 10; i++)
            change(1, textf("g%zu", k), i ? PRESENCE_REFRESH : PRESENCE_JOIN, true);
    fake_serve();
    CHECK(fake.operation_count == 1 + 150);
    fake_written(REGISTRY_CHANGED);
    fake_serve();
    CHECK(fake.operation_count == 1 + 150 + 1);
    fake_written(REGISTRY_UNCHANGED);
    fake_return_all();
    CHECK(fake.publication_count == 1 + 150 && presence_is_idle(fake.cluster));
}

/* --- bounds ----------------------------------------------------------------------------------- */

static void operations_are_bounded(void)
{
    for (size_t i = 0; i < 3000; i++)
        change(0, textf("%zu", i), PRESENCE_JOIN, false);
    fake_serve();
    fake_serve();
    CHECK(fake.operation_count == 1024);
    /* oldest first */
    for (size_t i = 0; i < fake.operation_count; i++)
        CHECK(same(fake.operations[i].name, str_from(textf("\"a%.67s\"%zu", client_id + 2, i))));
    fake_written(REGISTRY_CHANGED); /* which begins the next ones */
    CHECK(fake.operation_count == 2048);
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.operation_count == 3000);
    fake_written(REGISTRY_CHANGED);
    CHECK(presence_is_idle(fake.cluster) && fake.publication_count == 0);
}

/* While many notices are on their way none are added: what waits cancels out meanwhile. */
static void notices_are_bounded(void)
{
    size_t told;

    for (size_t i = 0; i < 7000; i++)
        change(0, textf("%zu", i), PRESENCE_JOIN, true);
    for (int round = 0; round < 10; round++) {
        fake_serve();
        fake_written(REGISTRY_CHANGED);
    }
    told = fake.publication_count;
    CHECK(told >= 4096 && told < 4096 + 1024 && fake.operation_count == told);
    CHECK(presence_waiting(fake.cluster) == 7000);
    for (size_t i = told; i < 7000; i++)
        change(0, textf("%zu", i), PRESENCE_LEAVE, true);
    fake_return_all();
    CHECK(presence_is_idle(fake.cluster) && fake.publication_count == told);
}

/* --- when there is nobody to write or tell to ------------------------------------------------- */

static void nothing_is_begun_without_redis_or_rabbitmq(void)
{
    fake_registry_event(REGISTRY_WAITING, "no route");
    fake_serve();
    change(0, "g", PRESENCE_JOIN, true);
    fake_serve();
    CHECK(fake.operation_count == 0 && presence_deadline(fake.cluster) == INT64_MAX);
    /* who comes and goes meanwhile is not remembered, wherever it stands in the queue */
    for (size_t i = 1; i < 5; i++)
        change(i, "g", PRESENCE_JOIN, true);
    for (size_t i = 0; i < 4; i++)
        change(i * 7 % 4 + 1, "g", PRESENCE_LEAVE, true);
    CHECK(presence_waiting(fake.cluster) == 1);
    fake_bus_event(BUS_DOWN, STR("refused"));
    fake_registry_event(REGISTRY_RECONNECTED, "");
    fake_serve();
    CHECK(fake.operation_count == 0);
    fake_bus_event(BUS_UP, STR(""));
    fake_serve();
    CHECK(fake.operation_count == 1);
    fake_written(REGISTRY_CHANGED);
    fake_return_all();
    CHECK(presence_is_idle(fake.cluster));
}

/* A registry that did nothing is tried again a tenth of a second later, not at once. */
static void what_was_not_done_waits(void)
{
    change(0, "g", PRESENCE_JOIN, true);
    fake_serve();
    fake_written(REGISTRY_NOT_DONE);
    fake_serve();
    CHECK(fake.operation_count == 1 && presence_deadline(fake.cluster) == fake.now + 100);
    CHECK(cluster_deadline(fake.cluster) <= fake.now + 100);
    fake_wait(99);
    CHECK(fake.operation_count == 1);
    fake_wait(1);
    CHECK(fake.operation_count == 2 && presence_deadline(fake.cluster) == INT64_MAX);
    fake_written(REGISTRY_CHANGED);
    fake_return_all();
}

/* Without memory in the registry it is tried again, and nothing is lost. */
static void a_full_registry_loses_nothing(void)
{
    fake.registry_is_full = true;
    change(0, "g", PRESENCE_JOIN, true);
    change(1, "g", PRESENCE_JOIN, true);
    fake_serve();
    CHECK(fake.operation_count == 0 && presence_waiting(fake.cluster) == 2);
    fake.registry_is_full = false;
    fake_serve();
    CHECK(fake.operation_count == 2);
    fake_written(REGISTRY_CHANGED);
    fake_return_all();
    CHECK(fake.publication_count == 2 && presence_is_idle(fake.cluster));
}

static void a_notice_that_is_refused_is_counted(void)
{
    change(0, "g", PRESENCE_JOIN, true);
    fake_serve();
    fake.bus_is_full = true;
    fake_written(REGISTRY_CHANGED);
    CHECK(cluster_stats(fake.cluster).notices_dropped == 1 && presence_is_idle(fake.cluster));
}

/* --- the dead --------------------------------------------------------------------------------- */

/* Some records of a dead node are gone. */
static void removed(const struct node_id *dead, const struct str *records, size_t count)
{
    struct registry_event *event = fake_registry_event(REGISTRY_REMOVED, "");

    event->self = *dead;
    event->records = records;
    event->count = count;
}

#define DEAD_ID "\"0123456789abcdefghijklmnopqrstuvwxyz0123456789abcdefghijklmnopqrst+/\""
#define RECORD(group)                                                                              \
    STR_INIT("{\"system\":\"shop\",\"group\":\"" group "\",\"id\":" DEAD_ID                        \
             ",\"identity\":{\"clientId\":1}}")

/* The registry goes on once all notices of a step have come back, and not before. */
static void a_cleanup_goes_on_behind_its_notices(void)
{
    static const struct str records[] = {RECORD("a"), RECORD(""), RECORD("\\u0067\\u00e9")};
    const struct cluster_msg *msg;

    removed(&fake_nodes[0], records, 3);
    fake_serve();
    CHECK(fake.publication_count == 3 && fake.gone_on_count == 0);
    for (size_t i = 0; i < 3; i++) {
        msg = fake_read(fake.publications[i].with.text);
        CHECK(fake.publications[i].with.lane == LANE_NOTICE && msg->command.code == 1002);
        CHECK(same(msg->command.system, STR("shop")) &&
              same(msg->command.data, STR("{\"clientId\":1}")));
        CHECK(same(msg->command.clients, STR("[" DEAD_ID "]")));
        CHECK(same(msg->command.group, i == 0 ? STR("a") : i == 1 ? STR("") : STR("g\xc3\xa9")));
        CHECK(msg->command.kind == (i == 1 ? COMMAND_SEND_TO_SYSTEM : COMMAND_SEND_TO_GROUP));
    }
    fake_echo(0);
    fake_return(1);
    CHECK(fake.gone_on_count == 0 && !presence_is_idle(fake.cluster));
    fake_return(2);
    CHECK(fake.gone_on_count == 1 && node_equal(&fake.gone_on[0], &fake_nodes[0]));
    CHECK(presence_is_idle(fake.cluster));
    /* and then it is done */
    removed(&fake_nodes[0], NULL, 0);
    fake_serve();
    CHECK(fake.gone_on_count == 1 && fake.publication_count == 3);
}

/* Two cleanups, and notices of this node's own between theirs, do not touch each other. */
static void cleanups_do_not_touch_each_other(void)
{
    static const struct str records[] = {RECORD("a"), RECORD("b")};

    removed(&fake_nodes[0], records, 2);
    removed(&fake_nodes[1], records, 1);
    change(0, "g", PRESENCE_JOIN, true);
    fake_serve();
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 4);
    fake_return(0);
    CHECK(fake.gone_on_count == 0);
    removed(&fake_nodes[1], records, 2);
    fake_return(1);
    CHECK(fake.gone_on_count == 1 && node_equal(&fake.gone_on[0], &fake_nodes[0]));
    fake_return(2);
    CHECK(fake.gone_on_count == 2 && node_equal(&fake.gone_on[1], &fake_nodes[1]));
    fake_return_all();
    CHECK(fake.gone_on_count == 3 && node_equal(&fake.gone_on[2], &fake_nodes[1]));
    CHECK(presence_is_idle(fake.cluster));
}

/* Redis may hold anything: it is dropped and logged, and the cleanup goes on. */
static void malformed_records_are_dropped(void)
{
    static const struct str records[] = {
        STR_INIT(""),
        STR_INIT("{}"),
        STR_INIT("[]"),
        STR_INIT("{\"system\":\"shop\",\"group\":\"g\",\"id\":" DEAD_ID "}"),
        STR_INIT("{\"system\":\"shop\",\"group\":\"g\",\"id\":" DEAD_ID ",\"identity\":[]}"),
        STR_INIT("{\"system\":\"shop\",\"group\":\"g\",\"id\":" DEAD_ID ",\"identity\":{}"),
        STR_INIT("{\"system\":\"shop\",\"group\":\"g\",\"id\":\"short\",\"identity\":{}}"),
        STR_INIT("{\"system\":\"shop\",\"group\":\"g\",\"id\":1,\"identity\":{}}"),
        STR_INIT("{\"system\":\"shop\",\"group\":\"g\",\"identity\":{}}"),
        STR_INIT("{\"system\":1,\"group\":\"g\",\"id\":" DEAD_ID ",\"identity\":{}}"),
        STR_INIT("{\"system\":\"shop\",\"group\":null,\"id\":" DEAD_ID ",\"identity\":{}}"),
        STR_INIT("{\"system\":\"shop\",\"id\":" DEAD_ID ",\"identity\":{}}"),
        STR_INIT("{\"group\":\"g\",\"id\":" DEAD_ID ",\"identity\":{}}"),
        STR_INIT("{\"system\":\"\\ud800\",\"group\":\"g\",\"id\":" DEAD_ID ",\"identity\":{}}"),
        STR_INIT("\xff\xfe"),
        RECORD("0123456789012345678901234567890123456789012345678901234567890123456789"
               "0123456789012345678901234567890123456789012345678901234567890123456789"
               "0123456789012345678901234567890123456789012345678901234567890123456789"
               "0123456789012345678901234567890123456789012345678901234567890123456789"),
    };
    struct str good[] = {RECORD("g"), STR("nonsense"), RECORD("h")};

    for (size_t i = 0; i < COUNT(records); i++) {
        struct str copy = exact_copy(records[i]);

        removed(&fake_nodes[0], &copy, 1);
        fake_serve();
        if (!CHECK(fake.gone_on_count == i + 1 && fake.publication_count == 0))
            printf("  that was %.*s\n", (int)records[i].length, records[i].at);
        free_copy(copy);
    }
    CHECK(node_logged("a malformed presence record in Redis was dropped"));
    removed(&fake_nodes[0], good, 3);
    fake_serve();
    CHECK(fake.publication_count == 2 && fake.gone_on_count == COUNT(records));
    fake_return_all();
    CHECK(fake.gone_on_count == COUNT(records) + 1 && presence_is_idle(fake.cluster));
    /* too much waits: they are counted, and the cleanup is not stuck */
    fake.bus_is_full = true;
    removed(&fake_nodes[0], good, 3);
    fake_serve();
    CHECK(fake.gone_on_count == COUNT(records) + 2);
    CHECK(cluster_stats(fake.cluster).notices_dropped == 2);
}

/* The notices of a cleanup come back after RabbitMQ has: the cleanup goes on then. */
static void a_cleanup_survives_a_loss_of_rabbitmq(void)
{
    static const struct str records[] = {RECORD("a")};

    removed(&fake_nodes[0], records, 1);
    fake_serve();
    fake_lose_bus();
    CHECK(fake.gone_on_count == 0);
    fake_bus_event(BUS_UP, STR(""));
    fake_return_all();
    CHECK(fake.gone_on_count == 1);
    /* published again with its number, it comes twice: once counts */
    fake_batch(&fake.self, LANE_NOTICE, wire_partition(STR("shop")), fake.publications[0].number,
               fake.publications[0].with.text);
    fake_serve();
    CHECK(fake.gone_on_count == 1 && presence_is_idle(fake.cluster));
}

/* --- with a hub ------------------------------------------------------------------------------- */

static const char *notice(unsigned code, size_t who, const char *group)
{
    return textf("{\"code\":%u,\"msg\":\"client %s\",\"data\":{\"clientId\":%s,\"userId\":\"\","
                 "\"extend\":\"\",\"groupName\":\"%s\"}}",
                 code, code == 1001 ? "online" : "offline", clients[who].id, group);
}

static void members_are_told_once(void)
{
    for (size_t i = 0; i < 3; i++)
        fake_arrive(i, "shop");
    fake_put_into(0, "g");
    fake_settle();
    CHECK(got_text(&clients[0].far, notice(1001, 0, "g")) && fake_got_nothing(0));
    fake_put_into(1, "g");
    CHECK(fake_got_nothing(0)); /* not before it is recorded */
    fake_settle();
    for (size_t i = 0; i < 2; i++)
        CHECK(got_text(&clients[i].far, notice(1001, 1, "g")) && fake_got_nothing(i));
    CHECK(fake_got_nothing(2));
    fake_depart(1);
    fake_settle();
    CHECK(got_text(&clients[0].far, notice(1002, 1, "g")) && fake_got_nothing(0));
    fake_depart(0);
    fake_depart(2);
    fake_settle();
    CHECK(fake.cleared == 0);
}

/* A restart of Redis: all records are written again, and nobody is told. */
static void all_is_restored_when_redis_is_back(void)
{
    for (size_t i = 0; i < 3; i++) {
        fake_arrive(i, "shop");
        fake_put_into(i, "g");
    }
    fake_settle();
    for (size_t i = 0; i < 3; i++)
        far_forget(&clients[i].far);
    fake_registry_event(REGISTRY_RECONNECTED, "");
    fake_serve();
    CHECK(fake.operation_count == 3 && fake.cleared == 0);
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 0 && presence_is_idle(fake.cluster));
    /* taken for dead: two of three records were removed, and 1002 told by another node */
    fake_registry_event(REGISTRY_REVIVED, "");
    fake_serve();
    CHECK(fake.operation_count == 6);
    fake.operations[5].done = true;
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 2);
    fake.operations[5].done = false;
    fake_written(REGISTRY_UNCHANGED);
    CHECK(fake.publication_count == 2);
    fake_return_all();
}

/* True if no operation is for a record of this client. */
static bool has_no_operation(size_t who)
{
    for (size_t i = 0; i < fake.operation_count; i++)
        if (memcmp(fake.operations[i].name.at, clients[who].id, HUB_ID_TEXT + 2) == 0)
            return false;
    return true;
}

/* A walk takes several iterations. Who leaves before it is reported may have been told of already.
 */
static void a_walk_comes_in_batches(void)
{
    size_t left = 0;

    for (size_t who = 0; who < FAKE_CLIENTS; who++) {
        fake_arrive(who, "shop");
        for (int i = 0; i < 200; i++)
            fake_put_into(who, textf("g%d", i));
    }
    fake_settle();
    fake_registry_event(REGISTRY_REVIVED, "");
    fake_serve();
    CHECK(!presence_is_idle(fake.cluster) && presence_deadline(fake.cluster) == fake.now);
    while (left < FAKE_CLIENTS && !has_no_operation(left))
        left++;
    if (CHECK(left < FAKE_CLIENTS))
        fake_depart(left);
    for (int round = 0; round < 5 && !presence_is_idle(fake.cluster); round++)
        fake_written(REGISTRY_UNCHANGED);
    CHECK(presence_is_idle(fake.cluster) && fake.operation_count >= FAKE_CLIENTS * 200);
    CHECK(fake.publication_count == 0);
    for (size_t who = 0; who < FAKE_CLIENTS; who++)
        if (who != left)
            fake_depart(who);
    fake_settle();
}

/* Another scope: the records of the old one go, those of the new one are written, all in silence;
 * what comes of older operations does not matter any more. */
static void a_new_scope_replaces_all_records(void)
{
    fake_arrive(0, "shop");
    fake_put_into(0, "g");
    fake_serve();
    CHECK(fake.operation_count == 1); /* it is under way */
    node.config.scope = NOTICE_SYSTEM;
    cluster_republish(fake.cluster);
    CHECK(fake.cleared == 1);
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 0);
    CHECK(fake.operation_count == 2 && contains(fake.operations[1].text, "\"group\":\"\""));
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 0 && presence_is_idle(fake.cluster));
    fake_depart(0);
    fake_serve();
    fake_written(REGISTRY_CHANGED);
    CHECK(fake.publication_count == 1); /* the system's 1002 */
    fake_return_all();
    CHECK(presence_is_idle(fake.cluster));
}

/* Notices of other nodes reach the members here, but for a crowd and what is none. */
static void notices_of_other_nodes_are_told(void)
{
    struct cluster_msg msg = {.kind = MSG_SEND, .command = fake_send("{}")}, other;
    uint64_t number = 0;

    for (size_t i = 0; i < 2; i++) {
        fake_arrive(i, "shop");
        fake_put_into(i, "g");
    }
    fake_settle();
    for (size_t i = 0; i < 2; i++)
        far_forget(&clients[i].far);
    msg.command.code = 1001;
    fake_publish(0, LANE_NOTICE, ++number, &msg);
    fake_serve();
    for (size_t i = 0; i < 2; i++)
        CHECK(got_text(&clients[i].far, "{\"code\":1001,\"msg\":\"m\",\"data\":{}}"));
    node.config.max_members = 1;
    fake_publish(0, LANE_NOTICE, ++number, &msg);
    node.config.max_members = 1;
    fake_serve();
    node.config.max_members = 0;
    other = msg;
    other.command.group = STR("nobody");
    fake_publish(0, LANE_NOTICE, ++number, &other);
    other = msg;
    other.command.msg = (struct str){0}; /* clients could not read it */
    fake_publish(0, LANE_NOTICE, ++number, &other);
    other = msg;
    other.command.kind = COMMAND_CLOSE_CLIENT; /* no notice */
    other.command.client = fake_id(0);
    fake_publish(0, LANE_NOTICE, ++number, &other);
    other = msg;
    other.kind = MSG_REQUEST;
    fake_publish(0, LANE_NOTICE, ++number, &other);
    fake_serve();
    for (size_t i = 0; i < 2; i++)
        CHECK(fake_got_nothing(i) && clients[i].conn.client);
    CHECK(presence_is_idle(fake.cluster));
}

/* Whatever is left when the node closes is freed: a sanitizer sees what is not. */
static void closing_frees_what_is_left(void)
{
    static const struct str records[] = {RECORD("a")};

    fake_start(1);
    fake_arrive(0, "shop");
    fake_put_into(0, "g");
    removed(&fake_nodes[0], records, 1);
    change(0, "busy", PRESENCE_JOIN, true);
    fake_serve();
    change(1, "waits", PRESENCE_JOIN, true);
    fake_depart(0);
    CHECK(!presence_is_idle(fake.cluster));
    fake_end();
    CHECK(!fake.closed_clean);
}

static const struct test tests[] = {
    TEST(transitions, FAKE_CLOSED),
    TEST(notices_alternate_whatever_redis_does, FAKE_CLOSED),
    TEST(notices_alternate_around_a_cleanup, FAKE_CLOSED),
    TEST(records_converge_in_any_case, FAKE_CLOSED),
    TEST(records_and_notices_say_who_it_was, 0),
    TEST(the_last_description_counts, 0),
    TEST(many_changes_are_one_operation, 0),
    TEST(operations_are_bounded, 0),
    TEST(notices_are_bounded, 0),
    TEST(nothing_is_begun_without_redis_or_rabbitmq, 0),
    TEST(what_was_not_done_waits, 0),
    TEST(a_full_registry_loses_nothing, 0),
    TEST(a_notice_that_is_refused_is_counted, 0),
    TEST(a_cleanup_goes_on_behind_its_notices, 0),
    TEST(cleanups_do_not_touch_each_other, 0),
    TEST(malformed_records_are_dropped, 0),
    TEST(a_cleanup_survives_a_loss_of_rabbitmq, 0),
    TEST(members_are_told_once, 1),
    TEST(all_is_restored_when_redis_is_back, 0),
    TEST(a_walk_comes_in_batches, 0),
    TEST(a_new_scope_replaces_all_records, 0),
    TEST(notices_of_other_nodes_are_told, 1),
    TEST(closing_frees_what_is_left, FAKE_CLOSED),
};

int main(void)
{
    return fake_run(tests, COUNT(tests));
}
