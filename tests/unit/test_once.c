/* test_once.c - once.c: a send is new once for each target and messageId, until it is forgotten for
 * its age or for newer ones; a random walk beside a list that is searched from end to end. */
#include "once.h"

#include "test.h"

#define START 1000000 /* milliseconds */
#define TTL 1000
#define MAX 100

static struct once once;
static uint64_t secret[2] = {1, 2};
static int64_t now;

static void set_up(void)
{
    once = (struct once){0};
    now = START;
}

static struct once_key key_of(char kind, struct str system, struct str name, struct str id,
                              struct str frame)
{
    struct once_key key = {0};

    CHECK(once_make_key(secret, kind, system, name, id, frame, &key));
    return key;
}

static struct once_key numbered(uint64_t target, uint64_t content)
{
    return (struct once_key){target, content};
}

static enum once_result take(uint64_t target, uint64_t content)
{
    struct once_key key = numbered(target, content);

    return once_take(&once, &key, now, TTL, MAX);
}

/* --- keys ------------------------------------------------------------------------------------- */

/* Whatever is another target, or another messageId, has another key, however it is cut. */
static void targets_have_keys_of_their_own(void)
{
    static const struct {
        char kind;
        struct str system, name, id;
    } rows[] = {
        {0, STR_INIT("shop"), STR_INIT(""), STR_INIT("\"1\"")},
        {1, STR_INIT("shop"), STR_INIT(""), STR_INIT("\"1\"")},
        {1, STR_INIT("shop"), STR_INIT("g"), STR_INIT("\"1\"")},
        {2, STR_INIT("shop"), STR_INIT("g"), STR_INIT("\"1\"")},
        {1, STR_INIT("shopg"), STR_INIT(""), STR_INIT("\"1\"")},
        {1, STR_INIT("shop"), STR_INIT("g1"), STR_INIT("\"\"")},
        {1, STR_INIT("sho"), STR_INIT("pg"), STR_INIT("\"1\"")},
        {1, STR_INIT("shop"), STR_INIT("g"), STR_INIT("\"11\"")},
        {1, STR_INIT("shop"), STR_INIT("g"), STR_INIT("\"\\u00001\"")},
    };
    struct once_key keys[COUNT(rows)], first, second;

    for (size_t i = 0; i < COUNT(rows); i++) {
        keys[i] = key_of(rows[i].kind, rows[i].system, rows[i].name, rows[i].id, STR("{}"));
        for (size_t j = 0; j < i; j++)
            if (!CHECK(keys[i].target != keys[j].target))
                printf("  rows %zu and %zu\n", j, i);
        CHECK(keys[i].content == keys[0].content);
    }
    first = key_of(1, STR("s"), STR("g"), STR("\"A1\""), STR("{}"));
    second = key_of(1, STR("s"), STR("g"), STR("\"\\u00411\""), STR("{} "));
    CHECK(first.target == second.target); /* spelled in another way */
    CHECK(first.content != second.content);
}

/* Nobody can say which keys are alike without knowing the secret. */
static void keys_follow_the_secret(void)
{
    struct once_key before = key_of(1, STR("s"), STR("g"), STR("\"1\""), STR("{}")), after;

    secret[1]++;
    after = key_of(1, STR("s"), STR("g"), STR("\"1\""), STR("{}"));
    CHECK(before.target != after.target && before.content != after.content);
}

/* --- what is remembered ----------------------------------------------------------------------- */

static void a_send_is_new_once(void)
{
    CHECK(!once.ring && !once.newest);
    CHECK(take(1, 10) == ONCE_NEW && take(1, 10) == ONCE_REPEATED);
    CHECK(take(1, 11) == ONCE_CONFLICT && take(1, 10) == ONCE_REPEATED);
    CHECK(take(2, 10) == ONCE_NEW && take(2, 10) == ONCE_REPEATED);
    /* all of one bucket */
    for (uint64_t i = 1; i <= 20; i++)
        CHECK(take(i << 32, i) == ONCE_NEW);
    for (uint64_t i = 1; i <= 20; i++)
        CHECK(take(i << 32, i) == ONCE_REPEATED);
    CHECK(take(1, 10) == ONCE_REPEATED && once.next - once.first == 22);
}

static void a_send_is_forgotten_for_its_age(void)
{
    CHECK(take(1, 10) == ONCE_NEW);
    now += TTL - 1;
    CHECK(take(1, 10) == ONCE_REPEATED && take(2, 20) == ONCE_NEW); /* which makes it no younger */
    now++;
    CHECK(take(1, 11) == ONCE_NEW && take(1, 11) == ONCE_REPEATED && take(2, 20) == ONCE_REPEATED);
    now += TTL - 2;
    CHECK(take(2, 20) == ONCE_REPEATED);
    now++;
    CHECK(take(2, 21) == ONCE_NEW && take(1, 11) == ONCE_REPEATED);
}

/* However many have passed, the newest are known, and the memory is that of MAX. */
static void the_oldest_is_forgotten_for_the_newest(void)
{
    for (uint64_t i = 1; i <= 10 * MAX; i++) {
        CHECK(take(i, i) == ONCE_NEW);
        CHECK(take(i, i) == ONCE_REPEATED);
        CHECK(take(i > MAX ? i - MAX + 1 : 1, 0) == ONCE_CONFLICT);
    }
    CHECK(once.capacity == 128 && once.next - once.first == MAX);
    CHECK(take(9 * MAX, 9 * MAX) == ONCE_NEW);
}

/* Few at a time take little memory, however many have passed. */
static void what_is_old_takes_no_memory(void)
{
    for (uint64_t i = 1; i <= 1000; i++, now += TTL / 10)
        CHECK(take(i, i) == ONCE_NEW);
    CHECK(once.capacity == 16);
}

/* A lower limit holds with the next new one; a higher one from then on. */
static void the_limits_may_change(void)
{
    struct once_key key = numbered(1000, 1);

    for (uint64_t i = 1; i <= MAX; i++)
        CHECK(take(i, i) == ONCE_NEW);
    CHECK(once_take(&once, &key, now, TTL, 3) == ONCE_NEW);
    CHECK(take(MAX, MAX) == ONCE_REPEATED && take(MAX - 1, MAX - 1) == ONCE_REPEATED);
    CHECK(take(MAX - 2, MAX - 2) == ONCE_NEW);
    now += TTL;
    CHECK(once_take(&once, &key, now, TTL + 1, MAX) == ONCE_REPEATED);
    CHECK(once_take(&once, &key, now, TTL, MAX) == ONCE_NEW);
    key = numbered(2000, 1);
    CHECK(once_take(&once, &key, now, TTL, 1) == ONCE_NEW && once.next - once.first == 1);
    CHECK(once_take(&once, &key, now, TTL, 1) == ONCE_REPEATED);
}

static void what_was_not_delivered_is_new_again(void)
{
    CHECK(take(1, 10) == ONCE_NEW && take(1 + 64, 10) == ONCE_NEW);
    once_undo(&once);
    CHECK(take(1, 10) == ONCE_REPEATED && take(1 + 64, 11) == ONCE_NEW);
    once_undo(&once);
    CHECK(take(1 + 64, 12) == ONCE_NEW && take(1 + 64, 12) == ONCE_REPEATED);
    for (uint64_t i = 100; i < 1000; i++) { /* also where it drove out another */
        CHECK(take(i, i) == ONCE_NEW);
        CHECK(take(i + 10000, i) == ONCE_NEW);
        once_undo(&once);
    }
    CHECK(once.capacity == 128 && take(999, 999) == ONCE_REPEATED);
}

/* --- a random walk ---------------------------------------------------------------------------- */

struct sent {
    struct once_key key;
    int64_t at;
};

static struct sent sent[30000];
static size_t sent_first, sent_count; /* those before are forgotten for their number */

static enum once_result expected_of(const struct once_key *key)
{
    for (size_t i = sent_count; i-- > sent_first;)
        if (sent[i].key.target == key->target && now - sent[i].at < TTL)
            return sent[i].key.content == key->content ? ONCE_REPEATED : ONCE_CONFLICT;
    return ONCE_NEW;
}

static void a_random_walk_follows_the_model(void)
{
    uint32_t random = 17;
    unsigned seen[3] = {0};

    for (size_t step = 0; step < COUNT(sent); step++) {
        struct once_key key = numbered(next_random(&random) % 300, next_random(&random) % 8 == 0);
        enum once_result expected, got;

        now += next_random(&random) % 20;
        expected = expected_of(&key);
        got = once_take(&once, &key, now, TTL, MAX);
        if (!CHECK(got == expected)) {
            printf("  step %zu: %d, not %d\n", step, (int)got, (int)expected);
            return;
        }
        seen[got]++;
        if (got != ONCE_NEW)
            continue;
        /* what is older than TTL may or may not count towards MAX: nobody sees it */
        sent[sent_count++] = (struct sent){key, now};
        if (sent_count - sent_first > MAX)
            sent_first++;
        if (next_random(&random) % 10 == 0) {
            once_undo(&once);
            sent_count--;
        }
    }
    CHECK(seen[ONCE_NEW] > 1000 && seen[ONCE_REPEATED] > 1000 && seen[ONCE_CONFLICT] > 1000);
}

static void tear_down(void)
{
    once_free(&once);
    CHECK(!once.ring && !once.newest && !once.capacity);
}

#define RUN(test) test_run_between(#test, set_up, test, tear_down)

int main(void)
{
    RUN(targets_have_keys_of_their_own);
    RUN(keys_follow_the_secret);
    RUN(a_send_is_new_once);
    RUN(a_send_is_forgotten_for_its_age);
    RUN(the_oldest_is_forgotten_for_the_newest);
    RUN(what_is_old_takes_no_memory);
    RUN(the_limits_may_change);
    RUN(what_was_not_delivered_is_new_again);
    RUN(a_random_walk_follows_the_model);
    return test_finish();
}
