/* test_identity.c - identity.c: one spelling for each node and each of its lives, and no other. */
#include "identity.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    struct identity identity;
    const char *name, *text;
} rows[] = {
    {{{0, 0, 0, 0}, 0, 0}, "0.0.0.0:0", "0.0.0.0:0/0"},
    {{{127, 0, 0, 1}, 8800, 1}, "127.0.0.1:8800", "127.0.0.1:8800/1"},
    {{{10, 20, 30, 40}, 65535, 1700000000000},
     "10.20.30.40:65535",
     "10.20.30.40:65535/1700000000000"},
    {{{192, 168, 1, 200}, 1, 1ull << 63}, "192.168.1.200:1", "192.168.1.200:1/9223372036854775808"},
    {{{255, 255, 255, 255}, 65535, UINT64_MAX},
     "255.255.255.255:65535",
     "255.255.255.255:65535/18446744073709551615"},
};

/* Reads from memory of just the text's size. */
static bool reads(struct str text, struct identity *identity)
{
    struct str copy = exact_copy(text);
    bool good = identity_read(copy, identity);

    free_copy(copy);
    return good;
}

static bool reads_address(struct str text, unsigned char address[4])
{
    struct str copy = exact_copy(text);
    bool good = identity_read_address(copy, address);

    free_copy(copy);
    return good;
}

static void identities_are_written(void)
{
    for (size_t i = 0; i < COUNT(rows); i++) {
        char text[IDENTITY_TEXT_MAX];

        memset(text, '#', sizeof text);
        CHECK(identity_write(&rows[i].identity, text) == strlen(rows[i].text));
        CHECK(strcmp(text, rows[i].text) == 0);
        memset(text, '#', sizeof text);
        CHECK(identity_write_name(&rows[i].identity, text) == strlen(rows[i].name));
        CHECK(strcmp(text, rows[i].name) == 0);
    }
    CHECK(strlen(rows[COUNT(rows) - 1].text) == IDENTITY_TEXT_MAX - 1); /* the longest */
}

static void what_is_written_is_read(void)
{
    uint32_t state = 7;

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct identity identity = {{9, 9, 9, 9}, 9, 9};

        CHECK(reads(str_from(rows[i].text), &identity));
        CHECK(identity_same(&identity, &rows[i].identity));
    }
    for (int i = 0; i < 10000 && test_good; i++) {
        struct identity written = {{0}, (uint16_t)next_random(&state), next_random(&state)}, read;
        char text[IDENTITY_TEXT_MAX];

        for (int k = 0; k < 4; k++)
            written.address[k] = (unsigned char)next_random(&state);
        written.start = written.start << (next_random(&state) % 32) | next_random(&state) % 2;
        CHECK(reads((struct str){text, identity_write(&written, text)}, &read));
        CHECK(memcmp(read.address, written.address, 4) == 0 && read.port == written.port);
        if (!CHECK(read.start == written.start))
            printf("  that was %s\n", text);
    }
}

static void other_spellings_are_refused(void)
{
    static const struct str refused[] = {
        STR_INIT(""),
        STR_INIT("/"),
        STR_INIT(":/"),
        STR_INIT("1.2.3.4"),
        STR_INIT("1.2.3.4:5"),
        STR_INIT("1.2.3.4/6"),
        STR_INIT("1.2.3.4:/6"),
        STR_INIT("1.2.3.4:5/"),
        STR_INIT(":5/6"),
        STR_INIT("1.2.3:5/6"),
        STR_INIT("1.2.3.4.5:5/6"),
        STR_INIT("1.2.3.:5/6"),
        STR_INIT("1.2.3.4.:5/6"),
        STR_INIT(".1.2.3.4:5/6"),
        STR_INIT("1..3.4:5/6"),
        STR_INIT("01.2.3.4:5/6"),
        STR_INIT("1.2.3.04:5/6"),
        STR_INIT("1.2.3.4:05/6"),
        STR_INIT("1.2.3.4:5/06"),
        STR_INIT("1.2.3.00:5/6"),
        STR_INIT("1.2.3.4:00/6"),
        STR_INIT("1.2.3.4:5/00"),
        STR_INIT("256.2.3.4:5/6"),
        STR_INIT("1.2.3.256:5/6"),
        STR_INIT("1.2.3.4:65536/6"),
        STR_INIT("1.2.3.4:5/18446744073709551616"),
        STR_INIT("1.2.3.4:5/99999999999999999999"),
        STR_INIT("-1.2.3.4:5/6"),
        STR_INIT("1.2.3.4:+5/6"),
        STR_INIT("1.2.3.4:5/-6"),
        STR_INIT(" 1.2.3.4:5/6"),
        STR_INIT("1.2.3.4 :5/6"),
        STR_INIT("1.2.3.4:5/6 "),
        STR_INIT("1.2.3.4:5/6\n"),
        STR_INIT("1.2.3.4:5/6\0"),
        STR_INIT("1.2.3.4\0:5/6"),
        STR_INIT("1.2.3.4:5/6/"),
        STR_INIT("1.2.3.4:5/6/7"),
        STR_INIT("1.2.3.4:5:5/6"),
        STR_INIT("1.2.3.4:5/6:7"),
        STR_INIT("1.2.3.4:0x5/6"),
        STR_INIT("1.2.3.a:5/6"),
        STR_INIT("1,2,3,4:5/6"),
        STR_INIT("[::1]:5/6"),
        STR_INIT("::1:5/6"),
        STR_INIT("localhost:5/6"),
        STR_INIT("1.2.3.4:5/1e3"),
    };
    struct identity identity;

    CHECK(reads(STR("1.2.3.4:5/6"), &identity) && identity.start == 6);
    for (size_t i = 0; i < COUNT(refused); i++)
        if (!CHECK(!reads(refused[i], &identity)))
            printf("  that was %.*s\n", (int)refused[i].length, refused[i].at);
    CHECK(!identity_read((struct str){0}, &identity));
}

/* Cut anywhere, with one byte more anywhere, or with another byte: whatever is read is written back
 * as it was. */
static void changed_texts_are_another_or_none(void)
{
    const char *right = "10.20.30.40:8800/1700000000000";
    size_t length = strlen(right);
    struct identity identity;

    for (size_t cut = 0; cut < length; cut++)
        CHECK(!reads((struct str){right, cut}, &identity) || cut > strcspn(right, "/") + 1);
    for (size_t i = 0; i <= length; i++)
        for (int c = 0; c < 256; c++) {
            char text[64], again[IDENTITY_TEXT_MAX];

            for (int more = 0; more < 2; more++) {
                struct str changed = {text, length + (size_t)more};

                if (i == length && !more)
                    continue;
                memcpy(text, right, i);
                text[i] = (char)c;
                memcpy(text + i + 1, right + i + !more, length - i - !more);
                if (!CHECK(
                        !reads(changed, &identity) ||
                        str_equal(changed, (struct str){again, identity_write(&identity, again)})))
                    printf("  that was byte %d at %zu\n", c, i);
            }
        }
}

static void addresses_are_read(void)
{
    static const struct {
        struct str text;
        bool good;
        unsigned char address[4];
    } cases[] = {
        {STR_INIT("0.0.0.0"), true, {0, 0, 0, 0}},
        {STR_INIT("192.168.1.255"), true, {192, 168, 1, 255}},
        {STR_INIT("1.2.3.4"), true, {1, 2, 3, 4}},
        {STR_INIT(""), false, {0}},
        {STR_INIT("1"), false, {0}},
        {STR_INIT("1.2.3"), false, {0}},
        {STR_INIT("1.2.3."), false, {0}},
        {STR_INIT("1.2.3.4."), false, {0}},
        {STR_INIT("1.2.3.4.5"), false, {0}},
        {STR_INIT("1.2.3.256"), false, {0}},
        {STR_INIT("1.2.3.-4"), false, {0}},
        {STR_INIT("1.2.3.4 "), false, {0}},
        {STR_INIT("1.2.3.4:5"), false, {0}},
        {STR_INIT("1.2.3.4\0"), false, {0}},
        {STR_INIT("::1"), false, {0}},
        {STR_INIT("a.b.c.d"), false, {0}},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        unsigned char address[4] = {9, 9, 9, 9};
        bool good = reads_address(cases[i].text, address);

        if (!CHECK(good == cases[i].good && (!good || memcmp(address, cases[i].address, 4) == 0)))
            printf("  that was %s\n", cases[i].text.at);
    }
}

static void lives_and_nodes_are_compared(void)
{
    const struct identity one = {{1, 2, 3, 4}, 5, 6};

    CHECK(identity_same(&one, &(struct identity){{1, 2, 3, 4}, 5, 6}));
    CHECK(identity_same_name(&one, &(struct identity){{1, 2, 3, 4}, 5, 6}));
    CHECK(!identity_same(&one, &(struct identity){{1, 2, 3, 4}, 5, 7}));
    CHECK(identity_same_name(&one, &(struct identity){{1, 2, 3, 4}, 5, 7}));
    CHECK(!identity_same(&one, &(struct identity){{1, 2, 3, 4}, 5, 6 + (1ull << 32)}));
    CHECK(!identity_same(&one, &(struct identity){{1, 2, 3, 4}, 6, 6}));
    CHECK(!identity_same_name(&one, &(struct identity){{1, 2, 3, 4}, 6, 6}));
    for (int i = 0; i < 4; i++) {
        struct identity other = one;

        other.address[i] ^= 0x80;
        CHECK(!identity_same(&one, &other) && !identity_same_name(&one, &other));
    }
}

int main(void)
{
    test_run("identities_are_written", identities_are_written);
    test_run("what_is_written_is_read", what_is_written_is_read);
    test_run("other_spellings_are_refused", other_spellings_are_refused);
    test_run("changed_texts_are_another_or_none", changed_texts_are_another_or_none);
    test_run("addresses_are_read", addresses_are_read);
    test_run("lives_and_nodes_are_compared", lives_and_nodes_are_compared);
    return test_finish();
}
