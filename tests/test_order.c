/* test_order.c - which publications have come, and which must come before. */
#include "order.h"

#include "json.h"

#include "test.h"

static struct identity node(unsigned last, uint64_t start)
{
    return (struct identity){{127, 0, 0, (unsigned char)last}, 8800, start};
}

static void a_number_is_taken_once_and_in_order(void)
{
    struct origins origins = {0};
    struct identity a = node(1, 5), b = node(2, 5), later = node(1, 6);

    CHECK(origins_take(&origins, &a, 0, 1));
    CHECK(!origins_take(&origins, &a, 0, 1));
    CHECK(origins_take(&origins, &a, 0, 7));
    CHECK(!origins_take(&origins, &a, 0, 6));
    CHECK(!origins_take(&origins, &a, 0, 0));
    /* orders, nodes and lives of a node count for themselves */
    CHECK(origins_take(&origins, &a, 1, 1) && origins_take(&origins, &b, 0, 1) &&
          origins_take(&origins, &later, 0, 1));
    CHECK(!origins_take(&origins, &a, 0, 7) && origins_take(&origins, &a, ORDERS - 1, 1));
    CHECK(origins.count == 3);
    origins_free(&origins);
    CHECK(!origins.first && origins.count == 0);
}

static void what_has_come_or_is_waived_is_not_waited_for(void)
{
    struct origins origins = {0};
    struct identity a = node(1, 5), b = node(2, 5);

    CHECK(origins_have(&origins, &a, 0, 0));
    CHECK(!origins_have(&origins, &a, 0, 1));
    origins_take(&origins, &a, 0, 5);
    CHECK(origins_have(&origins, &a, 0, 5) && origins_have(&origins, &a, 0, 1));
    CHECK(!origins_have(&origins, &a, 0, 6) && !origins_have(&origins, &a, 1, 5) &&
          !origins_have(&origins, &b, 0, 5));
    origins_waive(&origins, &a, 0, 8);
    origins_waive(&origins, &a, 0, 7);
    CHECK(origins_have(&origins, &a, 0, 8) && !origins_have(&origins, &a, 0, 9));
    /* what is waived may still come */
    CHECK(origins_take(&origins, &a, 0, 6) && origins_take(&origins, &a, 0, 8));
    origins_free(&origins);
}

static void nodes_long_gone_are_forgotten(void)
{
    struct origins origins = {0};
    struct identity first = node(1, 1), second = node(1, 2);

    for (uint64_t start = 1; start <= 1024; start++) {
        struct identity one = node(1, start);

        CHECK(origins_take(&origins, &one, 0, 3));
    }
    CHECK(!origins_take(&origins, &first, 0, 3)); /* heard of again: it stays */
    for (uint64_t start = 2000; start < 2010; start++) {
        struct identity one = node(1, start);

        CHECK(origins_take(&origins, &one, 0, 3));
    }
    CHECK(origins.count == 1024);
    CHECK(origins_have(&origins, &first, 0, 3) && !origins_have(&origins, &second, 0, 3));
    origins_free(&origins);
}

/* What recents_write writes, as it goes to another node. */
static bool written(const struct recents *recents, int64_t now, const char *expected)
{
    struct buf out = {0};
    bool good = recents_write(recents, now, &out) && str_equal(str_of(&out), str_from(expected));

    if (!good)
        printf("  got %.*s\n", (int)out.length, out.at);
    buf_free(&out);
    return good;
}

static void recents_are_written_newest_first_each_slot_once(void)
{
    struct recents recents = {0};

    CHECK(written(&recents, 0, ""));
    recents_note(&recents, 7, 1, 1000);
    recents_note(&recents, 0, 2, 1000);
    recents_note(&recents, 7, 3, 1001);
    CHECK(written(&recents, 1001, "[7,3,0,2]"));
    recents_note(&recents, 16383, 4, 1002);
    recents_note(&recents, 0, 5, 1003);
    CHECK(written(&recents, 1003, "[0,5,16383,4,7,3]"));
    /* what is older is not waited for */
    CHECK(written(&recents, 1001 + ORDER_RECENT - 1, "[0,5,16383,4,7,3]"));
    CHECK(written(&recents, 1001 + ORDER_RECENT, "[0,5,16383,4]"));
    CHECK(written(&recents, 1003 + ORDER_RECENT, ""));
}

static void only_so_many_recents_are_kept(void)
{
    struct recents recents = {0};
    struct buf out = {0};
    size_t commas = 0;

    for (uint16_t slot = 0; slot < 3 * RECENTS_KEPT; slot++)
        recents_note(&recents, slot, slot + 1u, 0);
    CHECK(recents_write(&recents, 0, &out));
    for (size_t i = 0; i < out.length; i++)
        commas += out.at[i] == ',';
    CHECK(commas == 2 * RECENTS_KEPT - 1);
    CHECK(recents.entries[0].number == 3 * RECENTS_KEPT &&
          recents.entries[RECENTS_KEPT - 1].number == 2 * RECENTS_KEPT + 1);
    buf_free(&out);
}

/* The array in an object, as json_parse_object has accepted it. */
static uint64_t last_of(const char *array, const bool wanted[])
{
    char text[200];
    struct json_field field = {.name = STR_INIT("after")};
    struct json_error error;

    snprintf(text, sizeof text, "{\"after\":%s}", array);
    CHECK(json_parse_object(str_from(text), &field, 1, &error));
    return recents_read_last(field.value.text, wanted, 10);
}

static void the_last_one_that_is_wanted_is_found(void)
{
    bool wanted[10] = {[2] = true, [9] = true};

    CHECK(last_of("[]", wanted) == 0);
    CHECK(last_of("[2,5]", wanted) == 5);
    CHECK(last_of("[3,8,2,5,9,4]", wanted) == 5);
    CHECK(last_of("[9,7,2,5]", wanted) == 7);
    CHECK(last_of("[3,8]", wanted) == 0);
    CHECK(recents_read_last((struct str){0}, wanted, 10) == 0);
}

/* Another node is believed, but not that its array is what it should be. */
static void what_is_no_slot_or_number_is_left_out(void)
{
    bool wanted[10] = {[2] = true};

    CHECK(last_of("[10,5]", wanted) == 0 && last_of("[-1,5]", wanted) == 0);
    CHECK(last_of("[2,-5]", wanted) == 0 && last_of("[2,0]", wanted) == 0);
    CHECK(last_of("[2]", wanted) == 0 && last_of("[2,5,2]", wanted) == 5);
    CHECK(last_of("[\"2\",5]", wanted) == 0 && last_of("[2,1.5]", wanted) == 0);
    CHECK(last_of("[18446744073709551618,5]", wanted) == 0);
    CHECK(last_of("[[2],[5]]", wanted) == 0);
}

int main(void)
{
    test_run("a_number_is_taken_once_and_in_order", a_number_is_taken_once_and_in_order);
    test_run("what_has_come_or_is_waived_is_not_waited_for",
             what_has_come_or_is_waived_is_not_waited_for);
    test_run("nodes_long_gone_are_forgotten", nodes_long_gone_are_forgotten);
    test_run("recents_are_written_newest_first_each_slot_once",
             recents_are_written_newest_first_each_slot_once);
    test_run("only_so_many_recents_are_kept", only_so_many_recents_are_kept);
    test_run("the_last_one_that_is_wanted_is_found", the_last_one_that_is_wanted_is_found);
    test_run("what_is_no_slot_or_number_is_left_out", what_is_no_slot_or_number_is_left_out);
    return test_finish();
}
