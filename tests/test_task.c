/* test_task.c - task.c: what other nodes say about a command is put together, and what they do not
 * say does not hold it up. */
#include "task.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

static const struct identity nodes[] = {
    {{10, 0, 0, 1}, 8800, 100}, {{10, 0, 0, 2}, 8800, 100}, {{10, 0, 0, 3}, 8800, 100}};

/* Commands whose outcome is the word of the one node that owns the client. */
static const enum command_kind for_one[] = {COMMAND_SEND_TO_CLIENT, COMMAND_BIND, COMMAND_UNBIND,
                                            COMMAND_CLOSE_CLIENT, COMMAND_CLIENT_INFO};

static const enum command_kind for_many[] = {COMMAND_SEND_TO_CLIENTS, COMMAND_SEND_TO_GROUP,
                                             COMMAND_SEND_TO_USER, COMMAND_SEND_TO_SYSTEM,
                                             COMMAND_ONLINE_LIST};

static struct tasks tasks;

static struct task *begin(enum command_kind command)
{
    struct task *task = task_new(&tasks, TASK_COMMAND, 1000);

    if (!task)
        abort();
    task->command = command;
    return task;
}

static void end(struct task *task)
{
    task_unlink(&tasks, task);
    task_free(task);
}

static void finish(void)
{
    CHECK(!tasks.first && !tasks.last && tasks.by_id.count == 0);
    table_free(&tasks.by_id);
    tasks = (struct tasks){0};
}

static struct letter answer(int code, const char *error, const char *list_text)
{
    return (struct letter){.kind = LETTER_ANSWER,
                           .outcome.code = (enum outcome_code)code,
                           .error = str_from(error),
                           .list = str_from(list_text)};
}

/* Adds a part and has its node say this. */
static void say_part(struct task *task, const struct identity *node, struct letter said)
{
    struct task_part *part = task_add_part(task, node);

    if (!part)
        abort();
    task_add_outcome(task, part, &said);
    CHECK(part->done);
}

static bool has_list(const struct task *task, const char *expected)
{
    bool good = str_equal(str_of(&task->outcome.list), str_from(expected));

    if (!good)
        printf("  expected %s\n  got %.*s\n", expected, (int)task->outcome.list.length,
               task->outcome.list.at ? task->outcome.list.at : "");
    return good && !task->outcome.list.failed;
}

/* --- all tasks ------------------------------------------------------------------------------- */

static void a_new_task_is_empty(void)
{
    struct task *task = task_new(&tasks, TASK_ADMIT, 4711);

    CHECK(task && task->kind == TASK_ADMIT && task->deadline == 4711 && task->id == 1);
    CHECK(tasks.first == task && tasks.last == task && !task->next);
    CHECK(!task->parts && !task->part_count && !task->parts_open && !task->owners);
    CHECK(task->outcome.code == OUTCOME_SUCCESS && !task->outcome.error && task_is_done(task));
    end(task);
    finish();
}

/* The list is in the order in which they came, whichever is taken out. */
static void tasks_are_listed_and_found(void)
{
    static const int orders[][4] = {{0, 1, 2, 3}, {3, 2, 1, 0}, {1, 0, 3, 2}, {2, 3, 0, 1}};

    for (size_t i = 0; i < COUNT(orders); i++) {
        struct task *made[4];

        for (int k = 0; k < 4; k++) {
            made[k] = task_new(&tasks, TASK_BIND, 1000 + k);
            CHECK(made[k] && made[k]->id == (uint64_t)(i * 4) + (uint64_t)k + 1);
        }
        for (int k = 0; k < 4; k++) {
            const struct task *task = tasks.first, *last = NULL;

            for (int j = 0; j < 4; j++) {
                if (!made[j])
                    continue;
                CHECK(task == made[j] && task_find(&tasks, made[j]->id) == made[j]);
                last = task;
                task = task ? task->next : NULL;
            }
            CHECK(!task && tasks.last == last);
            task_unlink(&tasks, made[orders[i][k]]);
            CHECK(!made[orders[i][k]]->next);
            CHECK(!task_find(&tasks, made[orders[i][k]]->id));
            task_free(made[orders[i][k]]);
            made[orders[i][k]] = NULL;
        }
        CHECK(!tasks.first && !tasks.last);
    }
    CHECK(!task_find(&tasks, 0) && !task_find(&tasks, 1) && !task_find(&tasks, UINT64_MAX));
    finish();
}

/* Numbers are not used twice, and those that differ only above 32 bits are told apart. */
static void numbers_are_told_apart(void)
{
    struct task *one, *other;

    tasks.next_id = 6;
    one = task_new(&tasks, TASK_COMMAND, 0);
    tasks.next_id = (1ull << 32) + 6;
    other = task_new(&tasks, TASK_COMMAND, 0);
    CHECK(one && one->id == 7 && other && other->id == (1ull << 32) + 7);
    CHECK(task_find(&tasks, 7) == one && task_find(&tasks, (1ull << 32) + 7) == other);
    CHECK(!task_find(&tasks, (1ull << 33) + 7));
    end(one);
    CHECK(!task_find(&tasks, 7) && task_find(&tasks, (1ull << 32) + 7) == other);
    end(other);
    finish();
}

/* What it has is freed with it: a sanitizer sees what is left. */
static void all_of_a_task_is_freed(void)
{
    struct task *task = begin(COMMAND_SEND_TO_CLIENTS);

    for (size_t i = 0; i < 100; i++)
        say_part(task, &nodes[i % 3], answer(0, "", "\"a\""));
    buf_append(&task->text, STR("[]"));
    buf_append(&task->message_id, STR("\"m\""));
    buf_append(&task->outcome.list, STR("\"l\""));
    task->owners = malloc(sizeof *task->owners);
    end(task);
    task_free(begin(COMMAND_BIND)); /* not taken out: the table is freed below */
    tasks.first = tasks.last = NULL;
    table_free(&tasks.by_id);
    tasks = (struct tasks){0};
}

/* --- parts ----------------------------------------------------------------------------------- */

static void parts_are_open_until_they_are_done(void)
{
    struct task *task = begin(COMMAND_ONLINE_LIST);
    struct identity later = nodes[0];
    struct letter said = answer(0, "", "");

    later.start++;
    for (size_t i = 0; i < 3; i++) {
        CHECK(!task_open_part(task, &nodes[i]));
        CHECK(task_add_part(task, &nodes[i]) == &task->parts[i]);
        CHECK(!task->parts[i].done && task->parts_open == i + 1 && task->part_count == i + 1);
        CHECK(task_open_part(task, &nodes[i]) == &task->parts[i] && !task_is_done(task));
    }
    CHECK(!task_open_part(task, &later));
    task_add_outcome(task, task_open_part(task, &nodes[1]), &said);
    CHECK(!task_open_part(task, &nodes[1]) && task->parts_open == 2 && !task_is_done(task));
    task_give_up_part(task, task_open_part(task, &nodes[0]));
    CHECK(!task_open_part(task, &nodes[0]) && task->parts_open == 1 && !task_is_done(task));
    task_add_outcome(task, task_open_part(task, &nodes[2]), &said);
    CHECK(task->parts_open == 0 && task_is_done(task) && task->part_count == 3);
    end(task);
    finish();
}

/* One node may have to say two things: they are done one after the other. */
static void a_node_may_have_two_parts(void)
{
    struct task *task = begin(COMMAND_ONLINE_LIST);
    struct letter said = answer(0, "", "");

    CHECK(task_add_part(task, &nodes[0]) && task_add_part(task, &nodes[0]));
    task_add_outcome(task, task_open_part(task, &nodes[0]), &said);
    CHECK(task_open_part(task, &nodes[0]) && !task_is_done(task));
    task_add_outcome(task, task_open_part(task, &nodes[0]), &said);
    CHECK(!task_open_part(task, &nodes[0]) && task_is_done(task));
    end(task);
    finish();
}

static void nothing_else_may_be_missing(void)
{
    struct task *task = begin(COMMAND_SEND_TO_GROUP);

    CHECK(task_is_done(task));
    task->to_confirm = true;
    CHECK(!task_is_done(task));
    task->to_count = true;
    task->to_confirm = false;
    CHECK(!task_is_done(task));
    task->to_count = false;
    CHECK(task_add_part(task, &nodes[0]) && !task_is_done(task));
    task_give_up_part(task, &task->parts[0]);
    CHECK(task_is_done(task));
    end(task);
    finish();
}

/* --- what they say --------------------------------------------------------------------------- */

static void counts_are_added(void)
{
    for (size_t i = 0; i < COUNT(for_many); i++) {
        struct task *task = begin(for_many[i]);
        struct letter said = answer(0, "", "");

        task->outcome = (struct outcome){.matched = 1, .queued = 2, .dropped = 3, .count = 4};
        for (uint64_t k = 0; k < 3; k++) {
            said.outcome.matched = 10 + k;
            said.outcome.queued = 20 + k;
            said.outcome.dropped = 30 + k;
            said.outcome.count = 40 + k;
            say_part(task, &nodes[k], said);
        }
        CHECK(task->outcome.matched == 34 && task->outcome.queued == 65);
        CHECK(task->outcome.dropped == 96 && task->outcome.count == 127);
        CHECK(task->outcome.code == OUTCOME_SUCCESS && !task->outcome.error && !task->incomplete);
        end(task);
    }
    finish();
}

/* What one node cannot do makes the sum incomplete, and nothing worse. */
static void a_failure_of_many_is_incomplete(void)
{
    for (size_t i = 0; i < COUNT(for_many); i++) {
        struct task *task = begin(for_many[i]);

        say_part(task, &nodes[0], answer(0, "", "\"a\""));
        CHECK(!task->incomplete);
        say_part(task, &nodes[1], answer(-1007, "out of memory", ""));
        CHECK(task->incomplete && task->outcome.code == OUTCOME_SUCCESS && !task->outcome.error);
        say_part(task, &nodes[2], answer(0, "", "\"c\""));
        CHECK(task->incomplete && task->outcome.code == OUTCOME_SUCCESS);
        end(task);
    }
    finish();
}

static void the_word_of_one_is_the_outcome(void)
{
    static const struct {
        int code;
        const char *error;
    } words[] = {{0, ""}, {-1003, "client not online"}, {-1007, "out of memory"}};

    for (size_t i = 0; i < COUNT(for_one) * COUNT(words); i++) {
        struct task *task = begin(for_one[i / COUNT(words)]);
        struct letter said =
            answer(words[i % COUNT(words)].code, words[i % COUNT(words)].error, "{\"a\":1}");
        char *error = exact_bytes(said.error);

        said.error.at = error;
        said.outcome.matched = 1;
        said.outcome.dropped = 1;
        say_part(task, &nodes[0], said);
        free(error); /* the letter's text goes, what it said stays */
        CHECK((int)task->outcome.code == words[i % COUNT(words)].code && !task->incomplete);
        CHECK(strcmp(task->outcome.error, words[i % COUNT(words)].error) == 0);
        CHECK(task->outcome.matched == 1 && task->outcome.dropped == 1);
        task_merge(task);
        CHECK(has_list(task, "{\"a\":1}"));
        end(task);
    }
    finish();
}

/* An error that is too long is cut, and ends in a NUL. */
static void errors_are_cut(void)
{
    char text[300];

    memset(text, 'e', sizeof text);
    for (size_t length = 0; length <= sizeof text; length++) {
        struct task *task = begin(COMMAND_BIND);
        struct letter said = answer(-1007, "", "");

        said.error = (struct str){text, length};
        say_part(task, &nodes[0], said);
        CHECK(strlen(task->outcome.error) == (length < 199 ? length : 199));
        CHECK(memcmp(task->outcome.error, text, strlen(task->outcome.error)) == 0);
        end(task);
    }
    finish();
}

static void who_stays_silent_is_given_up(void)
{
    for (size_t i = 0; i < COUNT(for_one); i++) {
        struct task *task = begin(for_one[i]);

        CHECK(task_add_part(task, &nodes[0]));
        task_give_up_part(task, &task->parts[0]);
        CHECK(task->outcome.code == OUTCOME_UNREACHABLE && task_is_done(task));
        CHECK(strcmp(task->outcome.error, "the client's node cannot be reached") == 0);
        end(task);
    }
    for (size_t i = 0; i < COUNT(for_many); i++) {
        struct task *task = begin(for_many[i]);

        CHECK(task_add_part(task, &nodes[0]));
        task_give_up_part(task, &task->parts[0]);
        CHECK(task->outcome.code == OUTCOME_SUCCESS && !task->outcome.error && task->incomplete);
        CHECK(task_is_done(task));
        end(task);
    }
    finish();
}

static void a_task_can_fail(void)
{
    struct task *task = begin(COMMAND_SEND_TO_GROUP);

    task_fail(task, "RabbitMQ did not confirm in time");
    CHECK(task->outcome.code == OUTCOME_UNREACHABLE && !task->incomplete);
    CHECK(strcmp(task->outcome.error, "RabbitMQ did not confirm in time") == 0);
    end(task);
    finish();
}

/* --- lists ----------------------------------------------------------------------------------- */

static void lists_are_joined(void)
{
    static const struct {
        const char *own, *parts[3], *expected;
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
        struct task *task = begin(COMMAND_ONLINE_LIST);

        buf_append(&task->outcome.list, str_from(rows[i].own));
        for (size_t k = 0; k < 3; k++)
            say_part(task, &nodes[k], answer(0, "", rows[i].parts[k]));
        task_merge(task);
        if (!CHECK(has_list(task, rows[i].expected)))
            printf("  that was row %zu\n", i);
        end(task);
    }
    finish();
}

/* The parts keep their place in the list, whoever answers first; and who says nothing is not in it.
 */
static void lists_are_joined_in_the_order_of_the_parts(void)
{
    struct task *task = begin(COMMAND_ONLINE_LIST);
    struct letter c = answer(0, "", "\"c\""), a = answer(0, "", "\"a\"");

    for (size_t i = 0; i < 3; i++)
        CHECK(task_add_part(task, &nodes[i]));
    task_add_outcome(task, task_open_part(task, &nodes[2]), &c);
    task_add_outcome(task, task_open_part(task, &nodes[0]), &a);
    task_give_up_part(task, task_open_part(task, &nodes[1]));
    task_merge(task);
    CHECK(has_list(task, "\"a\",\"c\"") && task->incomplete);
    end(task);
    finish();
}

/* A list for which there was no memory is not passed off as whole. */
static void a_list_that_failed_is_told(void)
{
    struct task *task = begin(COMMAND_ONLINE_LIST);

    say_part(task, &nodes[0], answer(0, "", "\"a\""));
    say_part(task, &nodes[1], answer(0, "", "\"b\""));
    task->parts[0].list.failed = true;
    task_merge(task);
    CHECK(task->outcome.list.failed);
    end(task);
    finish();
}

/* Ids given to send_to_clients, whose part each is, and which the parts say have failed. */
static struct task *failures(const char *given, const char *owners, const char *const failed[3])
{
    struct task *task = begin(COMMAND_SEND_TO_CLIENTS);
    size_t count = strlen(owners);

    buf_append(&task->text, str_from(given));
    task->owners = malloc((count ? count : 1) * sizeof *task->owners);
    if (!task->owners)
        abort();
    task->owner_count = count;
    for (size_t i = 0; i < count; i++)
        task->owners[i] = (uint32_t)(owners[i] - '0');
    for (size_t i = 0; i < 3; i++)
        say_part(task, &nodes[i], answer(0, "", failed[i]));
    return task;
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
        struct task *task = failures(rows[i].given, rows[i].owners, rows[i].failed);

        task_merge(task);
        if (!CHECK(has_list(task, rows[i].expected)))
            printf("  that was row %zu\n", i);
        end(task);
    }
    finish();
}

/* Of many ids at random those that fail come out in the order given, each once. */
static void many_failures_are_merged(void)
{
    uint32_t state = 42;

    for (int round = 0; round < 50 && test_good; round++) {
        struct buf given = {0}, expected = {0}, failed[3] = {{0}};
        char owners[201] = "";
        const char *texts[3];
        struct task *task;

        for (unsigned i = 0; i < 200; i++) {
            char id[16];

            snprintf(id, sizeof id, "\"%u\"", next_random(&state) % 300);
            buf_append(&given, i ? STR(",") : STR("["));
            buf_append(&given, str_from(id));
            owners[i] = (char)('0' + (unsigned)(id[1] + id[2]) % 3);
            if ((unsigned)(id[1] ^ id[2]) % 3 == 0) { /* the same for the same id */
                struct buf *list = &failed[owners[i] - '0'];

                buf_append(list, list->length ? STR(",") : STR(""));
                buf_append(list, str_from(id));
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
        task = failures(given.at, owners, texts);
        task_merge(task);
        CHECK(has_list(task, expected.at));
        end(task);
        buf_free(&given);
        buf_free(&expected);
        for (int i = 0; i < 3; i++)
            buf_free(&failed[i]);
    }
    finish();
}

/* A node that was given up has listed nothing: the others' stand. */
static void a_silent_node_lists_nothing(void)
{
    struct task *task = begin(COMMAND_SEND_TO_CLIENTS);
    struct letter a = answer(0, "", "\"a\""), c = answer(0, "", "\"c\"");

    buf_append(&task->text, STR("[\"a\",\"b\",\"c\"]"));
    task->owners = calloc(3, sizeof *task->owners);
    if (!task->owners)
        abort();
    task->owner_count = 3;
    for (uint32_t i = 0; i < 3; i++) {
        task->owners[i] = i;
        CHECK(task_add_part(task, &nodes[i]));
    }
    task_add_outcome(task, &task->parts[2], &c);
    task_give_up_part(task, &task->parts[1]);
    task_add_outcome(task, &task->parts[0], &a);
    task_merge(task);
    CHECK(has_list(task, "\"a\",\"c\"") && task->incomplete);
    end(task);
    finish();
}

/* A list of failures for which there was no memory is not passed off as whole either. */
static void a_list_of_failures_that_failed_is_told(void)
{
    struct task *task =
        failures("[\"a\",\"b\"]", "01", (const char *const[3]){"\"a\"", "\"b\"", ""});

    buf_free(&task->parts[1].list);
    task->parts[1].list.failed = true;
    task_merge(task);
    CHECK(task->outcome.list.failed);
    end(task);
    finish();
}

int main(void)
{
    test_run("a_new_task_is_empty", a_new_task_is_empty);
    test_run("tasks_are_listed_and_found", tasks_are_listed_and_found);
    test_run("numbers_are_told_apart", numbers_are_told_apart);
    test_run("all_of_a_task_is_freed", all_of_a_task_is_freed);
    test_run("parts_are_open_until_they_are_done", parts_are_open_until_they_are_done);
    test_run("a_node_may_have_two_parts", a_node_may_have_two_parts);
    test_run("nothing_else_may_be_missing", nothing_else_may_be_missing);
    test_run("counts_are_added", counts_are_added);
    test_run("a_failure_of_many_is_incomplete", a_failure_of_many_is_incomplete);
    test_run("the_word_of_one_is_the_outcome", the_word_of_one_is_the_outcome);
    test_run("errors_are_cut", errors_are_cut);
    test_run("who_stays_silent_is_given_up", who_stays_silent_is_given_up);
    test_run("a_task_can_fail", a_task_can_fail);
    test_run("lists_are_joined", lists_are_joined);
    test_run("lists_are_joined_in_the_order_of_the_parts",
             lists_are_joined_in_the_order_of_the_parts);
    test_run("a_list_that_failed_is_told", a_list_that_failed_is_told);
    test_run("failures_are_in_the_order_given", failures_are_in_the_order_given);
    test_run("many_failures_are_merged", many_failures_are_merged);
    test_run("a_silent_node_lists_nothing", a_silent_node_lists_nothing);
    test_run("a_list_of_failures_that_failed_is_told", a_list_of_failures_that_failed_is_told);
    return test_finish();
}
