/* test_buf.c - tests views, numbers, hashes, UTF-8 and the growable buffer. */
#include "buf.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>

static void views_are_made(void)
{
    static const struct str fixed = STR_INIT("a\0b");
    char text[] = "hello";
    struct buf buf = {.at = text, .length = 3, .capacity = 5};

    CHECK(str_from(NULL).at == NULL && str_from(NULL).length == 0);
    CHECK(str_from(text).at == text && str_from(text).length == 5);
    CHECK(str_from("").at != NULL && str_from("").length == 0);
    CHECK(STR("").at != NULL && STR("").length == 0);
    CHECK(STR("abc").length == 3 && memcmp(STR("abc").at, "abc", 3) == 0);
    CHECK(fixed.length == 3 && memcmp(fixed.at, "a\0b", 3) == 0);
    CHECK(str_of(&buf).at == text && str_of(&buf).length == 3);
    CHECK(str_of(&(struct buf){0}).length == 0);
}

static void texts_are_compared(void)
{
    static const struct {
        struct str a, b;
        bool equal, nocase;
    } cases[] = {
        {STR_INIT(""), STR_INIT(""), true, true},
        {{NULL, 0}, STR_INIT(""), true, true},
        {{NULL, 0}, {NULL, 0}, true, true},
        {{NULL, 0}, STR_INIT("a"), false, false},
        {STR_INIT("abc"), STR_INIT("abc"), true, true},
        {STR_INIT("abc"), STR_INIT("aBC"), false, true},
        {STR_INIT("abc"), STR_INIT("abcd"), false, false},
        {STR_INIT("abc"), STR_INIT("abd"), false, false},
        {STR_INIT("a\0b"), STR_INIT("a\0b"), true, true},
        {STR_INIT("a\0b"), STR_INIT("a\0c"), false, false},
        {STR_INIT("a"), STR_INIT("a\0"), false, false},
        {STR_INIT("\xc3\xa4"), STR_INIT("\xc3\x84"), false, false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str a = exact_copy(cases[i].a), b = exact_copy(cases[i].b);
        bool good = CHECK(str_equal(a, b) == cases[i].equal);

        good = CHECK(str_equal(b, a) == cases[i].equal) && good;
        good = CHECK(str_equal_nocase(a, b) == cases[i].nocase) && good;
        good = CHECK(str_equal_nocase(b, a) == cases[i].nocase) && good;
        if (!good)
            printf("  in case %zu\n", i);
        free_copy(a);
        free_copy(b);
    }
    CHECK(str_equal(cases[1].a, cases[1].b) && str_equal(cases[2].a, cases[2].b));
    CHECK(str_equal_nocase(cases[1].a, cases[1].b) && !str_equal(cases[3].a, cases[3].b));
}

/* Each byte against each: only the 26 letters have two forms. */
static void only_ascii_letters_lose_their_case(void)
{
    size_t wrong = 0;

    for (int i = 0; i < 256; i++)
        for (int j = 0; j < 256; j++) {
            char a = (char)i, b = (char)j;
            bool letter = (i | 0x20) >= 'a' && (i | 0x20) <= 'z' && i < 0x80;
            bool same = i == j || (letter && (i ^ j) == 0x20);

            wrong += str_equal_nocase((struct str){&a, 1}, (struct str){&b, 1}) != same;
        }
    CHECK(wrong == 0);
}

static void blanks_are_trimmed(void)
{
    static const struct {
        struct str text, trimmed;
    } cases[] = {
        {STR_INIT(""), STR_INIT("")},           {STR_INIT(" \t \t"), STR_INIT("")},
        {STR_INIT("a"), STR_INIT("a")},         {STR_INIT(" \ta"), STR_INIT("a")},
        {STR_INIT("a\t "), STR_INIT("a")},      {STR_INIT("\t a b\tc \t"), STR_INIT("a b\tc")},
        {STR_INIT("\na\r"), STR_INIT("\na\r")}, {STR_INIT(" \0 "), STR_INIT("\0")},
        {STR_INIT("\v\f"), STR_INIT("\v\f")},   {STR_INIT("\xa0 "), STR_INIT("\xa0")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str text = exact_copy(cases[i].text), trimmed = str_trim(text);

        if (!CHECK(str_equal(trimmed, cases[i].trimmed)))
            printf("  in case %zu\n", i);
        CHECK(trimmed.at >= text.at && trimmed.at <= text.at + text.length);
        free_copy(text);
    }
    CHECK(str_trim((struct str){NULL, 0}).length == 0);
}

static void texts_are_cut(void)
{
    static const struct {
        struct str text;
        size_t count;
        struct str pieces[4];
    } cases[] = {
        {STR_INIT(""), 1, {STR_INIT("")}},
        {STR_INIT("abc"), 1, {STR_INIT("abc")}},
        {STR_INIT("a,b"), 2, {STR_INIT("a"), STR_INIT("b")}},
        {STR_INIT(","), 2, {STR_INIT(""), STR_INIT("")}},
        {STR_INIT("a,b,"), 3, {STR_INIT("a"), STR_INIT("b"), STR_INIT("")}},
        {STR_INIT(",,a"), 3, {STR_INIT(""), STR_INIT(""), STR_INIT("a")}},
        {STR_INIT("a\0b,\0"), 2, {STR_INIT("a\0b"), STR_INIT("\0")}},
    };
    struct str none = {NULL, 0};

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str text = exact_copy(cases[i].text), rest = text;

        for (size_t j = 0; j < cases[i].count; j++) {
            if (!CHECK(rest.at != NULL) ||
                !CHECK(str_equal(str_cut(&rest, ','), cases[i].pieces[j])))
                printf("  in case %zu, piece %zu\n", i, j);
        }
        CHECK(rest.at == NULL && rest.length == 0);
        free_copy(text);
    }
    CHECK(str_cut(&none, ',').at == NULL && none.at == NULL && none.length == 0);
}

static void numbers_are_read(void)
{
    static const struct {
        struct str text;
        uint64_t max, number;
    } cases[] = {
        {STR_INIT("0"), 0, 0},
        {STR_INIT("7"), 7, 7},
        {STR_INIT("007"), 7, 7},
        {STR_INIT("65535"), 65535, 65535},
        {STR_INIT("00000000000000000001"), 1, 1},
        {STR_INIT("9999999999999999999"), UINT64_MAX, 9999999999999999999u},
        {STR_INIT("10000000000000000000"), UINT64_MAX, 10000000000000000000u},
        {STR_INIT("18446744073709551615"), UINT64_MAX, UINT64_MAX},
        {STR_INIT("9223372036854775807"), INT64_MAX, INT64_MAX},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str text = exact_copy(cases[i].text);
        uint64_t number = 12345;

        if (!CHECK(str_number(text, cases[i].max, &number) && number == cases[i].number))
            printf("  in case %zu\n", i);
        number = 12345;
        if (cases[i].max > 0 && cases[i].max == cases[i].number)
            CHECK(!str_number(text, cases[i].max - 1, &number) && number == 12345);
        free_copy(text);
    }
}

static void other_numbers_are_refused(void)
{
    static const struct str cases[] = {
        {NULL, 0},
        STR_INIT(""),
        STR_INIT(" 1"),
        STR_INIT("1 "),
        STR_INIT("+1"),
        STR_INIT("-1"),
        STR_INIT("-0"),
        STR_INIT("0x1"),
        STR_INIT("1e1"),
        STR_INIT("1.0"),
        STR_INIT("1,0"),
        STR_INIT("/"),
        STR_INIT(":"),
        STR_INIT("1\0"),
        STR_INIT("\0"),
        STR_INIT("1\n"),
        STR_INIT("\xb1"),
        STR_INIT("\xef\xbc\x91"), /* a digit, but not an ASCII one */
        STR_INIT("000000000000000000001"),
        STR_INIT("18446744073709551616"),
        STR_INIT("18446744073709551620"),
        STR_INIT("28446744073709551615"),
        STR_INIT("99999999999999999999"),
        STR_INIT("100000000000000000000"),
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str text = exact_copy(cases[i]);
        uint64_t number = 12345;

        if (!CHECK(!str_number(text, UINT64_MAX, &number)) || !CHECK(number == 12345))
            printf("  in case %zu\n", i);
        free_copy(text);
    }
}

#define HASH_PRIME 0x7fffffffu

/* Two different polynomials of degree n agree in at most n points, and these seeds draw different
 * points: so texts of n bytes may collide under n of them, and no more. */
static void hashes_seldom_collide(void)
{
    static const struct str pairs[][2] = {
        {STR_INIT(""), STR_INIT("\0")},
        {STR_INIT("a"), STR_INIT("b")},
        {STR_INIT("a"), STR_INIT("a\0")},
        {STR_INIT("ab"), STR_INIT("ba")},
        {STR_INIT("\0\0"), STR_INIT("\0\0\0")},
        {STR_INIT("\xff"), STR_INIT("\x7f")},
        {STR_INIT("same but for the last byte 1"), STR_INIT("same but for the last byte 2")},
        {STR_INIT("1 same but for the first byte"), STR_INIT("2 same but for the first byte")},
    };

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        struct str a = exact_copy(pairs[i][0]), b = exact_copy(pairs[i][1]);
        size_t longer = a.length > b.length ? a.length : b.length, collisions = 0;

        for (uint32_t seed = 0; seed < 20000; seed++)
            collisions += str_hash(a, seed) == str_hash(b, seed);
        if (!CHECK(collisions <= longer))
            printf("  in pair %zu: %zu\n", i, collisions);
        free_copy(a);
        free_copy(b);
    }
}

static void hashes_depend_on_text_and_seed(void)
{
    static const uint32_t seeds[] = {0, 1, 0x7ffeffff, 0x7fffffff, 0x80000000, UINT32_MAX};
    char text[300];
    size_t past = 0, same = 0;

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    for (size_t i = 0; i < sizeof seeds / sizeof seeds[0]; i++)
        for (size_t length = 0; length <= sizeof text; length++) {
            struct str whole = {text, length}, copy = exact_copy(whole);
            uint32_t hash = str_hash(copy, seeds[i]);

            past += hash >= HASH_PRIME;
            same += hash == str_hash(whole, seeds[i]);
            free_copy(copy);
        }
    CHECK(past == 0 && same == 6 * (sizeof text + 1));
    CHECK(str_hash(STR("text"), 1) != str_hash(STR("text"), 2));
    CHECK(str_hash((struct str){NULL, 0}, 5) == str_hash(STR(""), 5));
}

/* The vectors of the reference implementation: key 00 01 … 0f, texts 00 01 … of this length. */
static void siphash_vectors(void)
{
    static const struct {
        size_t length;
        uint64_t hash;
    } rows[] = {{0, 0x726fdb47dd0e0e31},
                {1, 0x74f839c593dc67fd},
                {7, 0xab0200f58b01d137},
                {8, 0x93f5f5799a932462},
                {15, 0xa129ca6149be45e5}};
    const uint64_t key[2] = {0x0706050403020100, 0x0f0e0d0c0b0a0908};
    char text[16];

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)i;
    for (size_t i = 0; i < COUNT(rows); i++)
        CHECK(str_siphash((struct str){text, rows[i].length}, key) == rows[i].hash);
    CHECK(str_siphash((struct str){NULL, 0}, key) == rows[0].hash);
}

/* What the tests of UTF-8 compare with: decodes one character the plain way and looks at what came
 * out. Returns its length, or 0. */
static size_t plain_character(const unsigned char *at, size_t length)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t size = at[0] < 0x80             ? 1
                  : (at[0] & 0xe0) == 0xc0 ? 2
                  : (at[0] & 0xf0) == 0xe0 ? 3
                  : (at[0] & 0xf8) == 0xf0 ? 4
                                           : 0;
    uint32_t point = size == 1 ? at[0] : at[0] & (0x7fu >> size);

    if (size == 0 || size > length)
        return 0;
    for (size_t i = 1; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (at[i] & 0x3f);
    }
    if (point < least[size] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
        return 0;
    return size;
}

static bool plain_valid(const unsigned char *at, size_t length)
{
    while (length > 0) {
        size_t size = plain_character(at, length);

        if (size == 0)
            return false;
        at += size;
        length -= size;
    }
    return true;
}

/* True if some text begins with these bytes; of at most 4 bytes. */
static bool plain_begins_text(const unsigned char *at, size_t length)
{
    static const unsigned char second[] = {0x80, 0x90, 0xa0};
    unsigned char longer[8];

    if (plain_valid(at, length))
        return true;
    memcpy(longer, at, length);
    for (size_t i = 0; i < sizeof second; i++)
        for (size_t more = 1; more <= 3; more++) {
            memset(longer + length, 0x80, more);
            longer[length] = second[i];
            if (plain_valid(longer, length + more))
                return true;
        }
    return false;
}

/* Feeds up to 4 bytes at once, one by one, and behind ASCII text of every length that matters to
 * reading eight at a time. */
static bool agrees_with_plain(const unsigned char *bytes, size_t length)
{
    static const char ascii[] = "0123456789abcdef";
    struct str whole = {(const char *)bytes, length};
    bool valid = plain_valid(bytes, length), good = utf8_valid(whole) == valid;
    size_t fed = 0, plain = 0;
    struct utf8 state = {0};
    char text[24];

    while (fed < length && utf8_feed(&state, (struct str){whole.at + fed, 1}))
        fed++;
    while (plain < length && plain_begins_text(bytes, plain + 1))
        plain++;
    good = good && fed == plain && (fed < length || valid == (state.missing == 0));
    memcpy(text, ascii, 16);
    memcpy(text + 16, bytes, length);
    for (size_t before = 4; before <= 12; before += 4)
        good = good && utf8_valid((struct str){text + 16 - before, before + length}) == valid;
    return good;
}

static void utf8_agrees_with_a_plain_decoder(void)
{
    static const unsigned char edges[] = {0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                          0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                          0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff};
    const size_t n = sizeof edges;
    size_t wrong = 0;

    for (unsigned i = 0; i < 256; i++) {
        unsigned char one[] = {(unsigned char)i};
        wrong += !agrees_with_plain(one, 1);
        for (unsigned j = 0; j < 256; j++) {
            unsigned char two[] = {(unsigned char)i, (unsigned char)j};
            wrong += !agrees_with_plain(two, 2);
        }
    }
    for (size_t i = 0; i < n * n * n; i++) {
        unsigned char three[] = {edges[i / n / n], edges[i / n % n], edges[i % n]};
        wrong += !agrees_with_plain(three, 3);
    }
    for (size_t i = 0; i < n * n * n; i++)
        for (size_t j = 2; j < 10; j++) {
            unsigned char four[] = {edges[i / n / n], edges[i / n % n], edges[i % n], edges[j]};
            wrong += !agrees_with_plain(four, 4);
        }
    CHECK(wrong == 0);
}

/* The rows of the table in RFC 3629, section 4, at both ends, and what stands just outside. */
static const struct {
    struct str text;
    bool valid;
} utf8_cases[] = {
    {{NULL, 0}, true},
    {STR_INIT(""), true},
    {STR_INIT("\0"), true},
    {STR_INIT("\x7f"), true},
    {STR_INIT("\xc2\x80"), true},
    {STR_INIT("\xdf\xbf"), true},
    {STR_INIT("\xe0\xa0\x80"), true},
    {STR_INIT("\xe0\xbf\xbf"), true},
    {STR_INIT("\xe1\x80\x80"), true},
    {STR_INIT("\xec\xbf\xbf"), true},
    {STR_INIT("\xed\x80\x80"), true},
    {STR_INIT("\xed\x9f\xbf"), true},
    {STR_INIT("\xee\x80\x80"), true},
    {STR_INIT("\xef\xbf\xbf"), true},
    {STR_INIT("\xf0\x90\x80\x80"), true},
    {STR_INIT("\xf0\xbf\xbf\xbf"), true},
    {STR_INIT("\xf1\x80\x80\x80"), true},
    {STR_INIT("\xf3\xbf\xbf\xbf"), true},
    {STR_INIT("\xf4\x80\x80\x80"), true},
    {STR_INIT("\xf4\x8f\xbf\xbf"), true},
    {STR_INIT("plain, \xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80, \xed\x95\x9c and 8 more"), true},
    {STR_INIT("\x80"), false},
    {STR_INIT("\xbf"), false},
    {STR_INIT("\xc0\x80"), false},
    {STR_INIT("\xc1\xbf"), false},
    {STR_INIT("\xc2\x7f"), false},
    {STR_INIT("\xc2\xc0"), false},
    {STR_INIT("\xc3\xa9\xa9"), false},
    {STR_INIT("\xe0\x9f\xbf"), false},
    {STR_INIT("\xe2\x82\x28"), false},
    {STR_INIT("\xed\xa0\x80"), false},
    {STR_INIT("\xed\xbf\xbf"), false},
    {STR_INIT("\xed\xa0\xbd\xed\xb8\x80"), false},
    {STR_INIT("\xf0\x8f\xbf\xbf"), false},
    {STR_INIT("\xf0\x9f\x98\x28"), false},
    {STR_INIT("\xf4\x90\x80\x80"), false},
    {STR_INIT("\xf5\x80\x80\x80"), false},
    {STR_INIT("\xf8\x88\x80\x80\x80"), false},
    {STR_INIT("\xfc\x84\x80\x80\x80\x80"), false},
    {STR_INIT("\xfe"), false},
    {STR_INIT("\xff"), false},
    {STR_INIT("\xc3"), false},
    {STR_INIT("\xe2\x82"), false},
    {STR_INIT("\xf0\x9f\x98"), false},
    {STR_INIT("eight or more ASCII bytes before \xc3"), false},
};

/* In two pieces, cut everywhere, the answer is the same as in one. */
static bool valid_at_split(struct str text, size_t split)
{
    struct str first = exact_copy((struct str){text.at, split});
    struct str second =
        exact_copy((struct str){text.at ? text.at + split : NULL, text.length - split});
    struct utf8 state = {0};
    bool valid = utf8_feed(&state, first) && utf8_feed(&state, second) && state.missing == 0;

    free_copy(first);
    free_copy(second);
    return valid;
}

static void utf8_is_the_same_at_every_split(void)
{
    for (size_t i = 0; i < sizeof utf8_cases / sizeof utf8_cases[0]; i++) {
        struct str text = utf8_cases[i].text;

        if (!CHECK(utf8_valid(text) == utf8_cases[i].valid))
            printf("  in case %zu\n", i);
        for (size_t split = 0; split <= text.length; split++)
            if (!CHECK(valid_at_split(text, split) == utf8_cases[i].valid))
                printf("  in case %zu, split at %zu\n", i, split);
    }
}

/* Appends pieces until one does not fit: that is the first that would pass the limit. */
static void check_limit(size_t limit, size_t size)
{
    struct buf buf = {.limit = limit};
    char piece[16];
    size_t expected = 0;

    for (char next = 'a';; next++) {
        memset(piece, next, sizeof piece);
        if (expected + size > limit)
            break;
        if (!CHECK(buf_append(&buf, (struct str){piece, size})))
            break;
        expected += size;
    }
    CHECK(!buf.failed && buf.length == expected);
    CHECK(!buf_append(&buf, (struct str){piece, size}));
    CHECK(buf.failed && buf.length == expected);
    for (size_t i = 0; i < buf.length; i++)
        if (!CHECK(buf.at[i] == (char)('a' + i / size)))
            break;
    /* what would fit does not go in either: the last of many calls tells of a failure before it */
    CHECK(!buf_reserve(&buf, limit - expected) && !buf_append(&buf, STR("")));
    CHECK(buf.failed && buf.length == expected);
    CHECK(!buf_append(&buf, STR("x")) && !buf_reserve(&buf, 1) && buf.limit == limit);
    buf_free(&buf);
}

static void buffer_keeps_its_limit(void)
{
    static const size_t limits[] = {1, 2, 15, 63, 64, 65, 100, 127, 128, 129, 300};

    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        check_limit(limits[i], 1);
        check_limit(limits[i], 7);
        check_limit(limits[i], 16);
    }
}

static void buffer_grows_without_a_limit(void)
{
    struct buf buf = {0};
    bool good = true;

    CHECK(buf_append(&buf, (struct str){NULL, 0}) && buf.length == 0);
    for (size_t i = 0; i < 300000; i++)
        good = good && buf_append(&buf, (struct str){&"0123456789"[i % 10], 1});
    CHECK(good && !buf.failed && buf.length == 300000 && buf.capacity >= buf.length);
    for (size_t i = 0; good && i < buf.length; i++)
        good = buf.at[i] == "0123456789"[i % 10];
    CHECK(good);
    buf_free(&buf);
}

static void buffer_refuses_absurd_sizes(void)
{
    static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 2, SIZE_MAX / 2 + 1};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct buf open = {0}, capped = {.limit = 10};

        CHECK(buf_append(&open, STR("abc")) && buf_append(&capped, STR("abc")));
        CHECK(!buf_reserve(&open, sizes[i]) && open.failed);
        CHECK(!buf_reserve(&capped, sizes[i]) && capped.failed);
        CHECK(str_equal(str_of(&open), STR("abc")) && str_equal(str_of(&capped), STR("abc")));
        buf_free(&open);
        buf_free(&capped);
    }
}

static void buffer_makes_room(void)
{
    struct buf buf = {0};

    CHECK(buf_reserve(&buf, 0) && buf.length == 0);
    for (size_t more = 1; more < 5000; more *= 3) {
        size_t length = buf.length;

        CHECK(buf_reserve(&buf, more) && buf.length == length);
        if (!CHECK(buf.capacity >= length + more))
            break;
        memset(buf.at + length, 'x', more);
        buf.length += more;
    }
    CHECK(!buf.failed);
    buf_free(&buf);
}

static void buffer_takes_numbers(void)
{
    static const struct {
        int64_t number;
        struct str text;
    } cases[] = {
        {0, STR_INIT("0")},
        {7, STR_INIT("7")},
        {10, STR_INIT("10")},
        {-1, STR_INIT("-1")},
        {-90, STR_INIT("-90")},
        {1234567890, STR_INIT("1234567890")},
        {INT64_MAX, STR_INIT("9223372036854775807")},
        {INT64_MIN, STR_INIT("-9223372036854775808")},
        {INT64_MIN + 1, STR_INIT("-9223372036854775807")},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct buf buf = {0}, just = {.limit = cases[i].text.length};
        struct buf small = {.limit = cases[i].text.length - 1};

        CHECK(buf_append(&buf, STR("n=")) && buf_append_number(&buf, cases[i].number));
        if (!CHECK(str_equal((struct str){buf.at + 2, buf.length - 2}, cases[i].text)))
            printf("  in case %zu\n", i);
        CHECK(buf_append_number(&just, cases[i].number) && !just.failed);
        if (small.limit > 0) /* 0 is no limit */
            CHECK(!buf_append_number(&small, cases[i].number) && small.failed);
        buf_free(&buf);
        buf_free(&just);
        buf_free(&small);
    }
}

static void buffer_is_freed_and_used_again(void)
{
    struct buf buf = {.limit = 3};

    CHECK(buf_append(&buf, STR("abc")) && !buf_append(&buf, STR("d")) && buf.failed);
    buf_free(&buf);
    CHECK(buf.at == NULL && buf.length == 0 && buf.capacity == 0 && !buf.failed && buf.limit == 3);
    CHECK(buf_append(&buf, STR("xyz")) && str_equal(str_of(&buf), STR("xyz")));
    CHECK(!buf_append(&buf, STR("!")));
    buf_free(&buf);
    buf_free(&buf);
}

static void entries_come_off_a_list(void)
{
    static const struct {
        const char *list, *entries; /* with '|' behind each */
    } cases[] = {
        {"", ""},
        {" ", ""},
        {",, ,", ""},
        {"a", "a|"},
        {"a b", "a|b|"},
        {"a,b", "a|b|"},
        {"a, b ,c", "a|b|c|"},
        {" a  ,b, ", "a|b|"},
        {"a;b\tc d", "a;b\tc|d|"},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct str copy = exact_copy(str_from(cases[i].list)), rest = copy, entry;
        char found[50] = "";

        while ((entry = str_entry(&rest)).length) {
            strncat(found, entry.at, entry.length);
            strcat(found, "|");
        }
        if (!CHECK(strcmp(found, cases[i].entries) == 0) || !CHECK(rest.length == 0))
            printf("  %s\n", found);
        free_copy(copy);
    }
    CHECK(str_entry(&(struct str){NULL, 0}).length == 0);
}

static void hex_is_written(void)
{
    struct buf out = {0}, full = {.limit = 5};

    CHECK(buf_append_hex(&out, STR("\0\x01\x7f\x80\xab\xff")));
    CHECK(buf_append_hex(&out, STR("")));
    CHECK(str_equal(str_of(&out), STR("00017f80abff")));
    CHECK(!buf_append_hex(&full, STR("abc")));
    buf_free(&out);
    buf_free(&full);
}

static void hex_is_read(void)
{
    static const struct str refused[] = {
        STR_INIT(""),           STR_INIT("0"),        STR_INIT("00017f8"),   STR_INIT("00017f80a"),
        STR_INIT("00017f80ab"), STR_INIT("00017F80"), STR_INIT("0x017f80"),  STR_INIT(" 0017f80"),
        STR_INIT("00017f8 "),   STR_INIT("00017f8g"), STR_INIT("00017f8\0"), STR_INIT("+1017f80"),
    };
    unsigned char bytes[4];

    CHECK(str_read_hex(STR("00017f80"), bytes, 4) && memcmp(bytes, "\0\x01\x7f\x80", 4) == 0);
    CHECK(str_read_hex(STR("abcdef09"), bytes, 4) && memcmp(bytes, "\xab\xcd\xef\x09", 4) == 0);
    CHECK(str_read_hex(STR(""), bytes, 0));
    for (size_t i = 0; i < COUNT(refused); i++)
        if (!CHECK(!str_read_hex(refused[i], bytes, 4)))
            printf("     in row %zu of refused\n", i);
    for (int c = 0; c < 256; c++) {
        char digits[2] = {'0', (char)c};
        bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');

        CHECK(str_read_hex((struct str){digits, 2}, bytes, 1) == digit);
    }
}

static void big_endian_numbers(void)
{
    unsigned char bytes[9] = {[8] = 0x5a};

    bytes_put_be(bytes, 8, 0x0102030405060708);
    CHECK(memcmp(bytes, "\1\2\3\4\5\6\7\10\x5a", sizeof bytes) == 0);
    CHECK(bytes_get_be(bytes, 8) == 0x0102030405060708 && bytes_get_be(bytes + 1, 3) == 0x020304);
    bytes_put_be(bytes, 2, 0x12fffe);
    CHECK(memcmp(bytes, "\xff\xfe\3", 3) == 0 && bytes_get_be(bytes, 2) == 0xfffe);
    bytes_put_be(bytes, 0, 7);
    CHECK(bytes[0] == 0xff && bytes_get_be(bytes, 0) == 0);
}

static void shared_bytes_live_until_the_last_reference(void)
{
    struct rcbuf *copy = rcbuf_copy(STR("abc")), *empty = rcbuf_copy((struct str){0});

    if (CHECK(copy && empty)) {
        CHECK(copy->references == 1 && copy->queues == 0 && copy->length == 3);
        CHECK(memcmp(copy->bytes, "abc", 3) == 0 && empty->length == 0);
        copy->references++;
        rcbuf_release(copy);
        CHECK(copy->references == 1 && copy->bytes[0] == 'a');
    }
    rcbuf_release(copy);
    rcbuf_release(empty);
    rcbuf_release(NULL);
    CHECK(!rcbuf_new(UINT32_MAX));
}

struct entry {
    struct fifo_link link;
    char name;
};

/* The names of all entries, in order; empties the FIFO. */
static const char *pop_all(struct fifo *fifo)
{
    static char names[8];
    size_t length = 0;
    struct fifo_link *link;

    while ((link = fifo_pop(fifo)) && length < sizeof names - 1) {
        CHECK(!link->next);
        names[length++] = ((struct entry *)link)->name;
    }
    names[length] = '\0';
    CHECK(!fifo->first && !fifo->last);
    return names;
}

static void fifo_keeps_its_order(void)
{
    struct entry a = {.name = 'a'}, b = {.name = 'b'}, c = {.name = 'c'};
    struct fifo fifo = {0};

    CHECK(!fifo_pop(&fifo) && !fifo_remove_after(&fifo, NULL));
    fifo_push(&fifo, &a.link);
    fifo_push(&fifo, &b.link);
    fifo_push(&fifo, &c.link);
    CHECK(strcmp(pop_all(&fifo), "abc") == 0);
    fifo_push(&fifo, &a.link);
    fifo_push(&fifo, &b.link);
    fifo_push(&fifo, &c.link);
    CHECK(!fifo_remove_after(&fifo, &c.link));
    CHECK(fifo_remove_after(&fifo, &b.link) == &c.link);
    fifo_push(&fifo, &c.link);
    CHECK(fifo_remove_after(&fifo, &a.link) == &b.link);
    CHECK(fifo_remove_after(&fifo, NULL) == &a.link);
    CHECK(strcmp(pop_all(&fifo), "c") == 0);
}

int main(void)
{
    test_run("views_are_made", views_are_made);
    test_run("texts_are_compared", texts_are_compared);
    test_run("only_ascii_letters_lose_their_case", only_ascii_letters_lose_their_case);
    test_run("blanks_are_trimmed", blanks_are_trimmed);
    test_run("texts_are_cut", texts_are_cut);
    test_run("numbers_are_read", numbers_are_read);
    test_run("other_numbers_are_refused", other_numbers_are_refused);
    test_run("hashes_seldom_collide", hashes_seldom_collide);
    test_run("hashes_depend_on_text_and_seed", hashes_depend_on_text_and_seed);
    test_run("siphash_vectors", siphash_vectors);
    test_run("utf8_agrees_with_a_plain_decoder", utf8_agrees_with_a_plain_decoder);
    test_run("utf8_is_the_same_at_every_split", utf8_is_the_same_at_every_split);
    test_run("buffer_keeps_its_limit", buffer_keeps_its_limit);
    test_run("buffer_grows_without_a_limit", buffer_grows_without_a_limit);
    test_run("buffer_refuses_absurd_sizes", buffer_refuses_absurd_sizes);
    test_run("buffer_makes_room", buffer_makes_room);
    test_run("buffer_takes_numbers", buffer_takes_numbers);
    test_run("buffer_is_freed_and_used_again", buffer_is_freed_and_used_again);
    test_run("entries_come_off_a_list", entries_come_off_a_list);
    test_run("hex_is_written", hex_is_written);
    test_run("hex_is_read", hex_is_read);
    test_run("big_endian_numbers", big_endian_numbers);
    test_run("shared_bytes_live_until_the_last_reference",
             shared_bytes_live_until_the_last_reference);
    test_run("fifo_keeps_its_order", fifo_keeps_its_order);
    return test_finish();
}
