/* test_cluster_pending.c - cluster_pending.c: what other nodes reply about a command is put
 * together, and what they do not reply does not hold it up. */
#include "cluster_pending.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

static const struct node_id nodes[] = {
    {"10.0.0.1:8800", 100}, {"10.0.0.2:8800", 100}, {"10.0.0.3:8800", 100}};

/* Commands whose result is the word of the one node that owns the client. */
static const enum command_kind for_one[] = {COMMAND_SEND_TO_CLIENT, COMMAND_BIND, COMMAND_UNBIND,
                                            COMMAND_CLOSE_CLIENT, COMMAND_CLIENT_INFO};

static const enum command_kind for_many[] = {COMMAND_SEND_TO_CLIENTS, COMMAND_SEND_TO_GROUP,
                                             COMMAND_SEND_TO_USER, COMMAND_SEND_TO_SYSTEM,
                                             COMMAND_ONLINE_LIST};

static struct pending_table table;
static struct pending_list list;

static struct pending *begin(enum command_kind command)
{
    struct pending *pending = pending_new(&table, &list, PENDING_COMMAND, 1000);

    if (!pending)
        abort();
    pending->command = command;
    return pending;
}

static void end(struct pending *pending)
{
    pending_unlink(&table, &list, pending);
    pending_free(pending);
}

/* Frees all that a test has left in the list. */
static void finish(int unused)
{
    (void)unused;
    while (list.first)
        end(list.first);
    CHECK(!list.first && !list.last && table.by_id.count == 0);
    table_free(&table.by_id);
    table = (struct pending_table){0};
    list = (struct pending_list){0};
}

static struct cluster_msg answer(int code, const char *error, const char *list_text)
{
    return (struct cluster_msg){.kind = MSG_REPLY,
                                .result.code = (enum result_code)code,
                                .error = str_from(error),
                                .list = str_from(list_text)};
}

static void begin_nothing(int unused)
{
    (void)unused;
}

/* Adds a part and has its node say this. */
static void say_part(struct pending *pending, const struct node_id *node, struct cluster_msg said)
{
    struct pending_reply *part = pending_expect(pending, node);

    if (!part)
        abort();
    pending_take_reply(pending, part, &said);
    CHECK(part->done);
}

static bool has_list(const struct pending *pending, const char *expected)
{
    bool good = str_equal(str_of(&pending->result.list), str_from(expected));

    if (!good)
        printf("  expected %s\n  got %.*s\n", expected, (int)pending->result.list.length,
               pending->result.list.at ? pending->result.list.at : "");
    return good && !pending->result.list.failed;
}

/* --- all of them ------------------------------------------------------------------------------ */

static void a_new_one_is_empty(void)
{
    struct pending *pending = pending_new(&table, &list, PENDING_ADMIT, 4711);

    CHECK(pending && pending->kind == PENDING_ADMIT && pending->deadline == 4711 &&
          pending->id == 1);
    CHECK(list.first == pending && list.last == pending && !pending->next);
    CHECK(!pending->replies && !pending->reply_count && !pending->replies_missing &&
          !pending->owners);
    CHECK(pending->result.code == RESULT_SUCCESS && !pending->result.error &&
          pending_is_done(pending));
}

/* The list is in the order in which they came, whichever is taken out. */
static void all_are_listed_and_found(void)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}};

    for (size_t i = 0; i < COUNT(orders); i++) {
        struct pending *made[4];

        for (int k = 0; k < 4; k++) {
            made[k] = pending_new(&table, &list, PENDING_BIND, 1000 + k);
            CHECK(made[k] && made[k]->id == (uint64_t)(i * 4) + (uint64_t)k + 1);
        }
        for (int k = 0; k < 4; k++) {
            const struct pending *pending = list.first, *last = NULL;

            for (int j = 0; j < 4; j++) {
                if (!made[j])
                    continue;
                CHECK(pending == made[j] && pending_find(&table, made[j]->id) == made[j]);
                last = pending;
                pending = pending ? pending->next : NULL;
            }
            CHECK(!pending && list.last == last);
            pending_unlink(&table, &list, made[orders[i][k]]);
            CHECK(!made[orders[i][k]]->next);
            CHECK(!pending_find(&table, made[orders[i][k]]->id));
            pending_free(made[orders[i][k]]);
            made[orders[i][k]] = NULL;
        }
        CHECK(!list.first && !list.last);
    }
    CHECK(!pending_find(&table, 0) && !pending_find(&table, 1) &&
          !pending_find(&table, UINT64_MAX));
}

/* One that has waited before stands before those that have longer, and behind its equals. */
static void the_list_is_in_the_order_of_deadlines(void)
{
    static const int64_t deadlines[] = {50, 60, 60, 55, 10, 60, 10, 70};
    static const uint64_t expected[] = {5, 7, 1, 4, 2, 3, 6, 8};
    const struct pending *pending, *before = NULL;
    size_t i = 0;

    for (; i < COUNT(deadlines); i++)
        CHECK(pending_new(&table, &list, PENDING_COMMAND, deadlines[i]));
    for (i = 0, pending = list.first; pending; before = pending, pending = pending->next, i++)
        CHECK(i < COUNT(expected) && pending->id == expected[i] && pending->previous == before);
    CHECK(i == COUNT(expected) && list.last == before && list.count == i);
    pending_prolong(&list, list.first, 65);
    CHECK(list.first->id == 7 && list.count == i && list.last->previous->id == 5);
}

/* Numbers are not used twice, and those that differ only above 32 bits are told apart. */
static void numbers_are_told_apart(void)
{
    struct pending *one, *other;

    table.last_id = 6;
    one = pending_new(&table, &list, PENDING_COMMAND, 0);
    table.last_id = (1ull << 32) + 6;
    other = pending_new(&table, &list, PENDING_COMMAND, 0);
    CHECK(one && one->id == 7 && other && other->id == (1ull << 32) + 7);
    CHECK(pending_find(&table, 7) == one && pending_find(&table, (1ull << 32) + 7) == other);
    CHECK(!pending_find(&table, (1ull << 33) + 7));
    end(one);
    CHECK(!pending_find(&table, 7) && pending_find(&table, (1ull << 32) + 7) == other);
    end(other);
}

/* What it has is freed with it: a sanitizer sees what is left. */
static void all_of_it_is_freed(void)
{
    struct pending *pending = begin(COMMAND_SEND_TO_CLIENTS);

    for (size_t i = 0; i < 100; i++)
        say_part(pending, &nodes[i % 3], answer(0, "", "\"a\""));
    buf_append(&pending->text, STR("[]"));
    buf_append(&pending->message_id, STR("\"m\""));
    buf_append(&pending->result.list, STR("\"l\""));
    pending->owners = malloc(sizeof *pending->owners);
}

/* --- replies -----------------------------------------------------------------------------------
 */

static void parts_are_open_until_they_are_done(void)
{
    struct pending *pending = begin(COMMAND_ONLINE_LIST);
    struct node_id later = nodes[0];
    struct cluster_msg said = answer(0, "", "");

    later.incarnation++;
    for (size_t i = 0; i < 3; i++) {
        CHECK(!pending_expected(pending, &nodes[i]));
        CHECK(pending_expect(pending, &nodes[i]) == &pending->replies[i]);
        CHECK(!pending->replies[i].done && pending->replies_missing == i + 1 &&
              pending->reply_count == i + 1);
        CHECK(pending_expected(pending, &nodes[i]) == &pending->replies[i] &&
              !pending_is_done(pending));
    }
    CHECK(!pending_expected(pending, &later));
    pending_take_reply(pending, pending_expected(pending, &nodes[1]), &said);
    CHECK(!pending_expected(pending, &nodes[1]) && pending->replies_missing == 2 &&
          !pending_is_done(pending));
    pending_give_up(pending, pending_expected(pending, &nodes[0]));
    CHECK(!pending_expected(pending, &nodes[0]) && pending->replies_missing == 1 &&
          !pending_is_done(pending));
    pending_take_reply(pending, pending_expected(pending, &nodes[2]), &said);
    CHECK(pending->replies_missing == 0 && pending_is_done(pending) && pending->reply_count == 3);
}

/* One node may have to say two things: they are done one after the other. */
static void a_node_may_have_two_parts(void)
{
    struct pending *pending = begin(COMMAND_ONLINE_LIST);
    struct cluster_msg said = answer(0, "", "");

    CHECK(pending_expect(pending, &nodes[0]) && pending_expect(pending, &nodes[0]));
    pending_take_reply(pending, pending_expected(pending, &nodes[0]), &said);
    CHECK(pending_expected(pending, &nodes[0]) && !pending_is_done(pending));
    pending_take_reply(pending, pending_expected(pending, &nodes[0]), &said);
    CHECK(!pending_expected(pending, &nodes[0]) && pending_is_done(pending));
}

static void nothing_else_may_be_missing(void)
{
    struct pending *pending = begin(COMMAND_SEND_TO_GROUP);

    CHECK(pending_is_done(pending));
    pending->echo_missing = true;
    CHECK(!pending_is_done(pending));
    pending->echo_missing = false;
    CHECK(pending_expect(pending, &nodes[0]) && !pending_is_done(pending));
    pending_give_up(pending, &pending->replies[0]);
    CHECK(pending_is_done(pending));
}

/* --- what they say --------------------------------------------------------------------------- */

static void counts_are_added(void)
{
    for (size_t i = 0; i < COUNT(for_many); i++) {
        struct pending *pending = begin(for_many[i]);
        struct cluster_msg said = answer(0, "", "");

        pending->result = (struct result){.matched = 1, .queued = 2, .dropped = 3, .count = 4};
        for (uint64_t k = 0; k < 3; k++) {
            said.result.matched = 10 + k;
            said.result.queued = 20 + k;
            said.result.dropped = 30 + k;
            said.result.count = 40 + k;
            say_part(pending, &nodes[k], said);
        }
        CHECK(pending->result.matched == 34 && pending->result.queued == 65);
        CHECK(pending->result.dropped == 96 && pending->result.count == 127);
        CHECK(pending->result.code == RESULT_SUCCESS && !pending->result.error &&
              !pending->incomplete);
    }
}

/* What one node cannot do makes the sum incomplete, and nothing worse. */
static void a_failure_of_many_is_incomplete(void)
{
    for (size_t i = 0; i < COUNT(for_many); i++) {
        struct pending *pending = begin(for_many[i]);

        say_part(pending, &nodes[0], answer(0, "", "\"a\""));
        CHECK(!pending->incomplete);
        say_part(pending, &nodes[1], answer(-1007, "out of memory", ""));
        CHECK(pending->incomplete && pending->result.code == RESULT_SUCCESS &&
              !pending->result.error);
        say_part(pending, &nodes[2], answer(0, "", "\"c\""));
        CHECK(pending->incomplete && pending->result.code == RESULT_SUCCESS);
    }
}

static void the_word_of_one_is_the_outcome(void)
{
    static const struct {
        int code;
        const char *error;
    } words[] = {{0, ""}, {-1003, "client not online"}, {-1007, "out of memory"}};

    for (size_t i = 0; i < COUNT(for_one) * COUNT(words); i++) {
        struct pending *pending = begin(for_one[i / COUNT(words)]);
        struct cluster_msg said =
            answer(words[i % COUNT(words)].code, words[i % COUNT(words)].error, "{\"a\":1}");
        char *error = exact_bytes(said.error);

        said.error.at = error;
        said.result.matched = 1;
        said.result.dropped = 1;
        say_part(pending, &nodes[0], said);
        free(error); /* the message's text goes, what it said stays */
        CHECK((int)pending->result.code == words[i % COUNT(words)].code && !pending->incomplete);
        CHECK(strcmp(pending->result.error, words[i % COUNT(words)].error) == 0);
        CHECK(pending->result.matched == 1 && pending->result.dropped == 1);
        pending_merge(pending);
        CHECK(has_list(pending, "{\"a\":1}"));
    }
}

/* An error that is too long is cut, and ends in a NUL. */
static void errors_are_cut(void)
{
    char text[300];

    memset(text, 'e', sizeof text);
    for (size_t length = 0; length <= sizeof text; length++) {
        struct pending *pending = begin(COMMAND_BIND);
        struct cluster_msg said = answer(-1007, "", "");

        said.error = (struct str){text, length};
        say_part(pending, &nodes[0], said);
        CHECK(strlen(pending->result.error) == (length < 199 ? length : 199));
        CHECK(memcmp(pending->result.error, text, strlen(pending->result.error)) == 0);
    }
}

static void who_stays_silent_is_given_up(void)
{
    for (size_t i = 0; i < COUNT(for_one); i++) {
        struct pending *pending = begin(for_one[i]);

        CHECK(pending_expect(pending, &nodes[0]));
        pending_give_up(pending, &pending->replies[0]);
        CHECK(pending->result.code == RESULT_UNREACHABLE && pending_is_done(pending));
        CHECK(strcmp(pending->result.error, "the client's node cannot be reached") == 0);
    }
    for (size_t i = 0; i < COUNT(for_many); i++) {
        struct pending *pending = begin(for_many[i]);

        CHECK(pending_expect(pending, &nodes[0]));
        pending_give_up(pending, &pending->replies[0]);
        CHECK(pending->result.code == RESULT_SUCCESS && !pending->result.error &&
              pending->incomplete);
        CHECK(pending_is_done(pending));
    }
}

static void it_can_fail(void)
{
    struct pending *pending = begin(COMMAND_SEND_TO_GROUP);

    pending_fail(pending, "RabbitMQ did not bind in time");
    CHECK(pending->result.code == RESULT_UNREACHABLE && !pending->incomplete);
    CHECK(strcmp(pending->result.error, "RabbitMQ did not bind in time") == 0);
}

/* --- lists ----------------------------------------------------------------------------------- */

static void lists_are_joined(void)
{
    static const struct {
        const char *own, *replies[3], *expected;
    } rows[] = {
        {"", {"", "", ""}, ""},
        {"\"o\"", {"", "", ""}, "\"o\""},
        {"", {"\"a\"", "", ""}, "\"a\""},
        {"", {"", "", "\"c\""}, "\"c\""},
        {"", {"\"a\"", "", "\"c\""}, "\"a\",\"c\""},
        {"\"o\"", {"", "\"b\",\"b\"", ""}, "\"o\",\"b\",\"b\""},
        {"\"o\",\"p\"", {"\"a\"", "\"b\"", "\"c\""}, "\"o\",\"p\",\"a\",\"b\",\"c\""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct pending *pending = begin(COMMAND_ONLINE_LIST);

        buf_append(&pending->result.list, str_from(rows[i].own));
        for (size_t k = 0; k < 3; k++)
            say_part(pending, &nodes[k], answer(0, "", rows[i].replies[k]));
        pending_merge(pending);
        if (!CHECK(has_list(pending, rows[i].expected)))
            printf("  that was row %zu\n", i);
    }
}

/* The replies keep their place in the list, whoever answers first; and who says nothing is not in
 * it.
 */
static void lists_are_joined_in_the_order_of_the_parts(void)
{
    struct pending *pending = begin(COMMAND_ONLINE_LIST);
    struct cluster_msg c = answer(0, "", "\"c\""), a = answer(0, "", "\"a\"");

    for (size_t i = 0; i < 3; i++)
        CHECK(pending_expect(pending, &nodes[i]));
    pending_take_reply(pending, pending_expected(pending, &nodes[2]), &c);
    pending_take_reply(pending, pending_expected(pending, &nodes[0]), &a);
    pending_give_up(pending, pending_expected(pending, &nodes[1]));
    pending_merge(pending);
    CHECK(has_list(pending, "\"a\",\"c\"") && pending->incomplete);
}

/* A list for which there was no memory is not passed off as whole. */
static void a_list_that_failed_is_told(void)
{
    struct pending *pending = begin(COMMAND_ONLINE_LIST);

    say_part(pending, &nodes[0], answer(0, "", "\"a\""));
    say_part(pending, &nodes[1], answer(0, "", "\"b\""));
    pending->replies[0].list.failed = true;
    pending_merge(pending);
    CHECK(pending->result.list.failed);
}

/* Ids given to send_to_clients, and whose part each is. */
static struct pending *begin_ids(const char *ids, const char *owners)
{
    struct pending *pending = begin(COMMAND_SEND_TO_CLIENTS);
    size_t count = strlen(owners);

    buf_append(&pending->text, str_from(ids));
    pending->owners = malloc((count ? count : 1) * sizeof *pending->owners);
    if (!pending->owners)
        abort();
    pending->owner_count = count;
    for (size_t i = 0; i < count; i++)
        pending->owners[i] = (uint32_t)(owners[i] - '0');
    return pending;
}

/* The same in three parts, none of which has replied. */
static struct pending *shared_out(const char *ids, const char *owners)
{
    struct pending *pending = begin_ids(ids, owners);

    for (size_t i = 0; i < 3; i++)
        CHECK(pending_expect(pending, &nodes[i]));
    return pending;
}

/* The same with what each part's reply says has failed. */
static struct pending *failures(const char *ids, const char *owners, const char *const failed[3])
{
    struct pending *pending = begin_ids(ids, owners);

    for (size_t i = 0; i < 3; i++)
        say_part(pending, &nodes[i], answer(0, "", failed[i]));
    return pending;
}

static void failures_are_in_the_order_given(void)
{
    static const struct {
        const char *given, *owners, *failed[3], *expected;
    } rows[] = {
        {"[]", "", {"", "", ""}, ""},
        {"[\"a\",\"b\",\"c\"]", "012", {"", "", ""}, ""},
        {"[\"a\",\"b\",\"c\"]", "012", {"\"a\"", "\"b\"", "\"c\""}, "\"a\",\"b\",\"c\""},
        {"[\"a\",\"b\",\"c\"]", "210", {"\"c\"", "\"b\"", "\"a\""}, "\"a\",\"b\",\"c\""},
        {"[\"a\",\"b\",\"c\",\"d\",\"e\"]",
         "01010",
         {"\"a\",\"e\"", "\"d\"", ""},
         "\"a\",\"d\",\"e\""},
        {"[ \"a\" , \"b\" ,\"c\"\n]", "100", {"\"c\"", "\"a\"", ""}, "\"a\",\"c\""},
        /* one twice, one that another begins with, and one that begins with another */
        {"[\"a\",\"a\",\"a\"]", "000", {"\"a\",\"a\"", "", ""}, "\"a\",\"a\""},
        {"[\"a\",\"ab\",\"abc\"]", "000", {"\"ab\"", "", ""}, "\"ab\""},
        {"[\"abc\",\"ab\",\"a\"]", "000", {"\"ab\",\"a\"", "", ""}, "\"ab\",\"a\""},
        {"[\"ab\",\"abc\"]", "000", {"\"abc\"", "", ""}, "\"abc\""},
        /* as it was sent, escapes and all */
        {"[\"\\u0061\",\"a\",\"\\\"\",\",\"]",
         "0101",
         {"\"\\u0061\",\"\\\"\"", "\",\"", ""},
         "\"\\u0061\",\"\\\"\",\",\""},
        /* what is no string is nobody's client: this node says so */
        {"[1,12,null,{\"a\":[]},\"x\"]",
         "00001",
         {"1,12,null,{\"a\":[]}", "\"x\"", ""},
         "1,12,null,{\"a\":[]},\"x\""},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct pending *pending = failures(rows[i].given, rows[i].owners, rows[i].failed);

        pending_merge(pending);
        if (!CHECK(has_list(pending, rows[i].expected)))
            printf("  that was row %zu\n", i);
    }
}

/* Of many ids at random those that fail come out in the order given, each once. */
static void many_failures_are_merged(void)
{
    uint32_t state = 42;

    for (int round = 0; round < 50 && test_good; round++) {
        struct buf given = {0}, expected = {0}, failed[3] = {{0}};
        char owners[201] = "";
        const char *texts[3];
        struct pending *pending;

        for (unsigned i = 0; i < 200; i++) {
            char id[16];

            snprintf(id, sizeof id, "\"%u\"", next_random(&state) % 300);
            buf_append(&given, i ? STR(",") : STR("["));
            buf_append(&given, str_from(id));
            owners[i] = (char)('0' + (unsigned)(id[1] + id[2]) % 3);
            if ((unsigned)(id[1] ^ id[2]) % 3 == 0) { /* the same for the same id */
                struct buf *said = &failed[owners[i] - '0'];

                buf_append(said, said->length ? STR(",") : STR(""));
                buf_append(said, str_from(id));
                buf_append(&expected, expected.length ? STR(",") : STR(""));
                buf_append(&expected, str_from(id));
            }
        }
        buf_append(&given, STR("]"));
        buf_append(&given, (struct str){"", 1});
        buf_append(&expected, (struct str){"", 1});
        for (int i = 0; i < 3; i++) {
            buf_append(&failed[i], (struct str){"", 1});
            texts[i] = failed[i].at;
        }
        pending = failures(given.at, owners, texts);
        pending_merge(pending);
        CHECK(has_list(pending, expected.at));
        buf_free(&given);
        buf_free(&expected);
        for (int i = 0; i < 3; i++)
            buf_free(&failed[i]);
    }
}

/* A node that was given up has listed nothing: the others' stand. */
static void a_silent_node_lists_nothing(void)
{
    struct pending *pending = shared_out("[\"a\",\"b\",\"c\"]", "012");
    struct cluster_msg a = answer(0, "", "\"a\""), c = answer(0, "", "\"c\"");

    pending_take_reply(pending, &pending->replies[2], &c);
    pending_give_up(pending, &pending->replies[1]);
    pending_take_reply(pending, &pending->replies[0], &a);
    pending_merge(pending);
    CHECK(has_list(pending, "\"a\",\"c\"") && pending->incomplete);
}

/* A list of failures for which there was no memory is not passed off as whole either. */
static void a_list_of_failures_that_failed_is_told(void)
{
    struct pending *pending =
        failures("[\"a\",\"b\"]", "01", (const char *const[3]){"\"a\"", "\"b\"", ""});

    buf_free(&pending->replies[1].list);
    pending->replies[1].list.failed = true;
    pending_merge(pending);
    CHECK(pending->result.list.failed);
}

/* --- shares of send_to_clients --------------------------------------------------------------- */

static void each_part_gets_its_ids(void)
{
    static const char *const expected[] = {"[\"a\",\"c\",1]", "[\"b\",{\"x\":[\"a\"]}]", "[]"};
    const char *ids = "[\"a\" , \"b\",\"c\",\n1,{\"x\":[\"a\"]}]";
    struct pending *pending = shared_out(ids, "01001");

    for (size_t part = 0; part < 3; part++) {
        struct buf out = {0};

        CHECK(pending_write_ids(pending, str_from(ids), part, &out));
        CHECK(str_equal(str_of(&out), str_from(expected[part])));
        buf_free(&out);
        for (size_t room = 1; room < strlen(expected[part]); room++) {
            struct buf little = {.limit = room};

            CHECK(!pending_write_ids(pending, str_from(ids), part, &little));
            buf_free(&little);
        }
    }
}

/* A node out of reach: all of its ids have failed, and that is known, not incomplete. */
static void a_part_can_fail(void)
{
    struct pending *pending = shared_out("[\"a\",\"b\",\"c\",\"d\",\"e\"]", "01001");
    struct cluster_msg said = answer(0, "", "\"c\"");

    pending_fail_ids(pending, 1);
    CHECK(pending->replies[1].done && pending->replies_missing == 2 && !pending->incomplete);
    pending_fail_ids(pending, 2);
    pending_take_reply(pending, &pending->replies[0], &said);
    CHECK(pending_is_done(pending));
    pending_merge(pending);
    CHECK(has_list(pending, "\"b\",\"c\",\"e\"") && pending->result.code == RESULT_SUCCESS);
}

static const struct test tests[] = {
    TEST(a_new_one_is_empty, 0),
    TEST(all_are_listed_and_found, 0),
    TEST(the_list_is_in_the_order_of_deadlines, 0),
    TEST(numbers_are_told_apart, 0),
    TEST(all_of_it_is_freed, 0),
    TEST(parts_are_open_until_they_are_done, 0),
    TEST(a_node_may_have_two_parts, 0),
    TEST(nothing_else_may_be_missing, 0),
    TEST(counts_are_added, 0),
    TEST(a_failure_of_many_is_incomplete, 0),
    TEST(the_word_of_one_is_the_outcome, 0),
    TEST(errors_are_cut, 0),
    TEST(who_stays_silent_is_given_up, 0),
    TEST(it_can_fail, 0),
    TEST(lists_are_joined, 0),
    TEST(lists_are_joined_in_the_order_of_the_parts, 0),
    TEST(a_list_that_failed_is_told, 0),
    TEST(failures_are_in_the_order_given, 0),
    TEST(many_failures_are_merged, 0),
    TEST(a_silent_node_lists_nothing, 0),
    TEST(a_list_of_failures_that_failed_is_told, 0),
    TEST(each_part_gets_its_ids, 0),
    TEST(a_part_can_fail, 0),
};

int main(void)
{
    test_run_all(tests, COUNT(tests), begin_nothing, finish);
    return test_finish();
}
