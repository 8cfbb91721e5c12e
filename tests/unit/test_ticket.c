/* test_ticket.c - tickets: what is read, what is judged, and what is written. */
#include "ticket.h"

#include "test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOW 1700000000
#define HEADER "{\"alg\":\"HS256\",\"typ\":\"JWT\"}"
#define CLAIMS "\"sys\":\"shop\",\"exp\":1700000060"

static struct crypto_keyring keys, others;

static struct ticket_key last_key;
static struct ticket_terms terms = {
    .version = 3, .since = NOW - 100, .now = NOW, .longest = 3600, .last = &last_key};

/* Appends a ticket made of any two texts, signed under this version of a system's key. */
static void sign(struct buf *out, const char *header, const char *payload,
                 const struct crypto_keyring *ring, uint64_t version, const char *system)
{
    unsigned char key[CRYPTO_HASH_SIZE], mac[CRYPTO_HASH_SIZE];
    size_t begin = out->length;

    CHECK(crypto_base64url(out, str_from(header)));
    buf_append(out, STR("."));
    CHECK(crypto_base64url(out, str_from(payload)));
    CHECK(ticket_derive_key(&ring->keys[0], version, str_from(system), key));
    CHECK(crypto_hmac(key, str_skip(str_of(out), begin), mac));
    buf_append(out, STR("."));
    CHECK(crypto_base64url(out, CRYPTO_BYTES(mac)));
}

static enum ticket_result judge_text(struct str text, struct ticket *ticket)
{
    static char space[TICKET_ROOM];
    struct buf room = BUF_INIT(space);

    return ticket_read(text, &room, ticket) ? ticket_check(ticket, &keys, &terms)
                                            : TICKET_MALFORMED;
}

static enum ticket_result judge_signed(const char *header, const char *payload)
{
    struct buf text = {0};
    struct ticket ticket;
    enum ticket_result result;

    sign(&text, header, payload, &keys, terms.version, "shop");
    result = judge_text(str_of(&text), &ticket);
    buf_free(&text);
    return result;
}

static bool is(const char *header, const char *payload, enum ticket_result expected)
{
    enum ticket_result result = judge_signed(header, payload);

    if (result != expected)
        printf("  expected %d, got %d: %.200s %.200s\n", (int)expected, (int)result, header,
               payload);
    return result == expected;
}

static bool malformed(const char *payload)
{
    return is(HEADER, payload, TICKET_MALFORMED);
}

/* A payload with one more member, a string of `count` times `c`. */
static const char *with_string(const char *name, char c, size_t count)
{
    static char text[8192];
    int length = snprintf(text, sizeof text, "{" CLAIMS ",\"%s\":\"", name);

    memset(text + length, c, count);
    snprintf(text + length + count, sizeof text - (size_t)length - count, "\"}");
    return text;
}

/* A payload with so many groups, which end in one of `last` bytes. */
static const char *with_groups(size_t count, size_t last)
{
    static char text[8192];
    int length = snprintf(text, sizeof text, "{" CLAIMS ",\"grp\":[");

    for (size_t i = 1; i < count; i++)
        length += snprintf(text + length, sizeof text - (size_t)length, "\"%zu\",", i);
    text[length++] = '"';
    memset(text + length, 'x', last);
    snprintf(text + length + last, sizeof text - (size_t)length - last, "\"]}");
    return text;
}

static void test_claims(void)
{
    struct buf text = {0};
    struct ticket ticket;
    struct str rest, name;
    char room[TICKET_NAME_MAX];

    sign(&text, HEADER,
         "{\"iat\":1,\"sys\":\"shop\",\"exp\":1700000060.5,\"sub\":\"u\\u0031\",\"ext\":\"a\\tb\","
         "\"grp\": [ \"news\" , \"\\u00e9\" ],\"end\":1700009999,\"nbf\":{\"x\":[]}}",
         &keys, 3, "shop");
    CHECK(judge_text(str_of(&text), &ticket) == TICKET_OK);
    CHECK(str_equal(ticket.claims.system, STR("shop")));
    CHECK(str_equal(ticket.claims.user, STR("u1")));
    CHECK(str_equal(ticket.claims.extend, STR("a\tb")));
    CHECK(ticket.claims.end == 1700009999 && ticket.expires == 1700000060);
    CHECK(ticket.claims.is_signed);
    rest = ticket.claims.groups;
    CHECK(ticket_count_groups(rest) == 2);
    CHECK(ticket_next_group(&rest, room, &name) && str_equal(name, STR("news")));
    CHECK(ticket_next_group(&rest, room, &name) && str_equal(name, STR("\xc3\xa9")));
    CHECK(!ticket_next_group(&rest, room, &name));
    buf_free(&text);
    CHECK(is(HEADER, "{" CLAIMS "}", TICKET_OK));
    CHECK(is(HEADER, "{" CLAIMS ",\"grp\":[]}", TICKET_OK));
}

static void test_missing_and_ill_typed(void)
{
    static const char *const wrong[] = {"null",   "true", "[]",    "{}",          "1",
                                        "-1",     "1e9",  "\"\"",  "[1]",         "[[]]",
                                        "[\"\"]", "0",    "1.5e9", "[\"a\",null]"};
    /* which of them each claim takes */
    static const struct {
        const char *name, *good;
        enum ticket_result result;
    } claims[] = {{"sub", "", TICKET_OK},
                  {"ext", "\"\"", TICKET_OK},
                  {"grp", "[]", TICKET_OK},
                  {"end", "1", TICKET_EXPIRED}};
    char payload[200];

    CHECK(malformed("{}"));
    CHECK(malformed("{\"sys\":\"shop\"}"));
    CHECK(malformed("{\"exp\":1700000060}"));
    CHECK(malformed("[]"));
    CHECK(malformed("{" CLAIMS));
    CHECK(malformed("{" CLAIMS ",\"sys\":\"shop\"}"));
    CHECK(malformed("{" CLAIMS ",\"end\":1800000000,\"end\":1900000000}"));
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        snprintf(payload, sizeof payload, "{\"exp\":1700000060,\"sys\":%s}", wrong[i]);
        CHECK(malformed(payload));
        snprintf(payload, sizeof payload, "{\"sys\":\"shop\",\"exp\":%s}", wrong[i]);
        CHECK(is(HEADER, payload,
                 strspn(wrong[i], "-01") == strlen(wrong[i]) ? TICKET_EXPIRED : TICKET_MALFORMED));
        for (size_t j = 0; j < sizeof claims / sizeof claims[0]; j++) {
            snprintf(payload, sizeof payload, "{" CLAIMS ",\"%s\":%s}", claims[j].name, wrong[i]);
            CHECK(is(HEADER, payload,
                     strcmp(wrong[i], claims[j].good) != 0 ? TICKET_MALFORMED : claims[j].result));
        }
    }
}

static void test_limits(void)
{
    CHECK(is(HEADER, with_string("sub", 'x', 128), TICKET_OK));
    CHECK(malformed(with_string("sub", 'x', 129)));
    CHECK(is(HEADER, with_string("ext", 'x', 1024), TICKET_OK));
    CHECK(malformed(with_string("ext", 'x', 1025)));
    CHECK(malformed("{" CLAIMS ",\"sub\":\"a\\u0007\"}"));
    CHECK(malformed("{" CLAIMS ",\"sub\":\"a\\u0085\"}"));
    CHECK(malformed("{" CLAIMS ",\"sub\":\"\\ud800\"}"));
    CHECK(malformed("{" CLAIMS ",\"grp\":[\"a\\n\"]}"));
    CHECK(is(HEADER, "{" CLAIMS ",\"ext\":\"a\\u0007\"}", TICKET_OK));
    CHECK(is(HEADER, with_groups(64, 128), TICKET_OK));
    CHECK(malformed(with_groups(64, 129)));
    CHECK(malformed(with_groups(65, 1)));
}

/* A ticket of `length` bytes, padded by a claim that is ignored. */
static enum ticket_result judge_length(size_t length)
{
    struct buf text = {0};
    struct ticket ticket;
    enum ticket_result result = TICKET_MISSING;

    for (size_t pad = 2800; pad < 3000 && result == TICKET_MISSING; pad++) {
        text.length = 0;
        sign(&text, HEADER, with_string("pad", 'x', pad), &keys, 3, "shop");
        if (text.length == length)
            result = judge_text(str_of(&text), &ticket);
    }
    buf_free(&text);
    return result;
}

static void test_length(void)
{
    CHECK(judge_length(4096) == TICKET_OK);
    CHECK(judge_length(4097) == TICKET_MALFORMED);
}

static void test_headers(void)
{
    static const char *const bad[] = {
        "{}",
        "{\"alg\":\"none\"}",
        "{\"alg\":\"None\"}",
        "{\"alg\":\"\"}",
        "{\"alg\":\"hs256\"}",
        "{\"alg\":\"HS384\"}",
        "{\"alg\":\"HS512\"}",
        "{\"alg\":\"RS256\"}",
        "{\"alg\":\"ES256\"}",
        "{\"alg\":null}",
        "{\"alg\":[\"HS256\"]}",
        "{\"alg\":\"HS256\\u0000\"}",
        "{\"alg\":\"none\",\"alg\":\"HS256\"}",
        "{\"alg\":\"HS256\",\"alg\":\"none\"}",
        "{\"alg\":\"HS256\",\"\\u0061lg\":\"none\"}",
        "{\"alg\":\"HS256\",\"crit\":[\"exp\"]}",
        "{\"alg\":\"HS256\",\"crit\":null}",
        "{\"alg\":\"HS256\"}}",
        "\"HS256\"",
        "",
    };

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(is(bad[i], "{" CLAIMS "}", TICKET_MALFORMED));
    CHECK(is("{\"typ\":\"x\",\"kid\":\"1\",\"alg\":\"\\u0048S256\"}", "{" CLAIMS "}", TICKET_OK));
}

static void test_forms(void)
{
    static const char *const bad[] = {"", ".", "..", "...", "e30", "e30.", "e30..", "a.b.c"};
    struct buf text = {0}, longer = {0};
    struct ticket ticket;

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        CHECK(judge_text(str_from(bad[i]), &ticket) == TICKET_MALFORMED);
    CHECK(judge_text((struct str){0}, &ticket) == TICKET_MALFORMED);
    sign(&text, HEADER, "{" CLAIMS "}", &keys, 3, "shop");
    for (size_t length = 0; length < text.length; length++)
        CHECK(judge_text((struct str){text.at, length}, &ticket) != TICKET_OK);
    buf_append(&longer, str_of(&text));
    buf_append(&longer, STR("="));
    CHECK(judge_text(str_of(&longer), &ticket) == TICKET_FORGED);
    longer.at[longer.length - 1] = '.';
    CHECK(judge_text(str_of(&longer), &ticket) == TICKET_FORGED);
    buf_free(&longer);
    buf_free(&text);
}

/* Whatever byte stands in whatever place: only the ticket itself is good. */
static void test_each_byte(void)
{
    struct buf text = {0};
    struct ticket ticket;
    size_t good = 0;

    sign(&text, HEADER, "{" CLAIMS ",\"sub\":\"u1\",\"grp\":[\"news\"]}", &keys, 3, "shop");
    for (size_t i = 0; i < text.length; i++) {
        char was = text.at[i];

        for (int c = 0; c < 256; c++) {
            text.at[i] = (char)c;
            if (judge_text(str_of(&text), &ticket) == TICKET_OK)
                good++;
        }
        text.at[i] = was;
    }
    CHECK(good == text.length);
    buf_free(&text);
}

static enum ticket_result judge_of(const char *payload, const struct crypto_keyring *ring,
                                   uint64_t version, const char *system)
{
    struct buf text = {0};
    struct ticket ticket;
    enum ticket_result result;

    sign(&text, HEADER, payload, ring, version, system);
    result = judge_text(str_of(&text), &ticket);
    buf_free(&text);
    return result;
}

static enum ticket_result judge_key(const struct crypto_keyring *ring, uint64_t version,
                                    const char *system)
{
    return judge_of("{" CLAIMS "}", ring, version, system);
}

static void test_keys(void)
{
    CHECK(judge_key(&keys, 3, "shop") == TICKET_OK);
    CHECK(judge_key(&keys, 3, "shop2") == TICKET_FORGED);
    CHECK(judge_key(&others, 3, "shop") == TICKET_FORGED);
    CHECK(judge_key(&keys, 1, "shop") == TICKET_FORGED);
    CHECK(judge_key(&keys, 4, "shop") == TICKET_FORGED);
    /* the version before is good for `longest` */
    CHECK(judge_key(&keys, 2, "shop") == TICKET_OK);
    terms.since = NOW - 3599;
    CHECK(judge_key(&keys, 2, "shop") == TICKET_OK);
    terms.since = NOW - 3600;
    CHECK(judge_key(&keys, 2, "shop") == TICKET_FORGED);
    terms.since = NOW - 100;
    /* while the crypto_key is changed, both are good */
    keys.keys[1] = others.keys[0];
    keys.count = 2;
    CHECK(judge_key(&others, 3, "shop") == TICKET_OK);
    CHECK(judge_key(&others, 2, "shop") == TICKET_OK);
    keys.count = 1;
    /* the key of the last ticket is not that of another system or version */
    CHECK(judge_of("{\"sys\":\"shoq\",\"exp\":1700000060}", &keys, 3, "shoq") == TICKET_OK);
    CHECK(judge_key(&keys, 3, "shop") == TICKET_OK);
    terms.version = 4;
    CHECK(judge_key(&keys, 4, "shop") == TICKET_OK);
    terms.version = 3;
}

static enum ticket_result judge_at(int64_t expires, int64_t end)
{
    char payload[100];

    snprintf(payload, sizeof payload, "{\"sys\":\"shop\",\"exp\":%lld%s%.0lld}", (long long)expires,
             end ? ",\"end\":" : "", (long long)end);
    return judge_signed(HEADER, payload);
}

static void test_times(void)
{
    CHECK(judge_at(NOW + 3605, 0) == TICKET_OK);
    CHECK(judge_at(NOW + 3606, 0) == TICKET_MALFORMED);
    CHECK(judge_at(NOW + 3610, 0) == TICKET_MALFORMED);
    CHECK(judge_at(NOW - 4, 0) == TICKET_OK);
    CHECK(judge_at(NOW - 5, 0) == TICKET_EXPIRED);
    CHECK(judge_at(NOW - 10, 0) == TICKET_EXPIRED);
    CHECK(judge_at(INT64_MAX, 0) == TICKET_MALFORMED);
    CHECK(judge_at(INT64_MIN, 0) == TICKET_EXPIRED);
    CHECK(judge_at(NOW + 60, NOW + 1) == TICKET_OK);
    CHECK(judge_at(NOW + 60, NOW) == TICKET_EXPIRED);
    CHECK(judge_at(NOW + 60, INT64_MAX) == TICKET_OK);
    CHECK(judge_at(NOW + 60, -1) == TICKET_MALFORMED);
}

static void test_writing(void)
{
    struct ticket_claims claims = {.system = STR("shop"),
                                   .user = STR("\"u\""),
                                   .extend = STR("\n"),
                                   .groups = STR("[\"a\", \"b\"]"),
                                   .end = NOW + 9};
    struct buf text = {0}, longer = {0};
    struct ticket ticket;

    buf_append(&text, STR("x"));
    CHECK(ticket_write(&text, &keys.keys[0], 3, &claims, NOW + 60));
    CHECK(judge_text(str_skip(str_of(&text), 1), &ticket) == TICKET_OK);
    CHECK(str_equal(ticket.claims.user, claims.user));
    CHECK(str_equal(ticket.claims.extend, claims.extend));
    CHECK(str_equal(ticket.claims.groups, claims.groups));
    CHECK(ticket.claims.end == NOW + 9 && ticket.expires == NOW + 60);
    text.length = 0;
    CHECK(ticket_write(&text, &keys.keys[0], 3, &(struct ticket_claims){.system = STR("shop")},
                       NOW + 1));
    CHECK(judge_text(str_of(&text), &ticket) == TICKET_OK);
    CHECK(!ticket.claims.user.length && !ticket.claims.groups.length && !ticket.claims.end);
    /* an array may be longer than a ticket */
    buf_append(&longer, STR("["));
    while (longer.length < 3000)
        buf_append(&longer, STR(" "));
    buf_append(&longer, STR("]"));
    claims.groups = str_of(&longer);
    text.length = 0;
    CHECK(!ticket_write(&text, &keys.keys[0], 3, &claims, NOW + 60));
    while (longer.length < 9000)
        buf_append(&longer, STR("]"));
    claims.groups = str_of(&longer);
    CHECK(!ticket_write(&text, &keys.keys[0], 3, &claims, NOW + 60));
    buf_free(&longer);
    buf_free(&text);
}

static void test_copying(void)
{
    struct ticket_claims claims = {.system = STR("shop"), .user = STR("u1"), .end = 7}, copy;
    struct buf room = {0};

    CHECK(ticket_copy_claims(&claims, &room, &copy));
    CHECK(str_equal(copy.system, STR("shop")) && copy.system.at == room.at);
    CHECK(str_equal(copy.user, STR("u1")) && !copy.extend.length && !copy.groups.length);
    CHECK(copy.end == 7 && !copy.is_signed);
    buf_free(&room);
}

/* RFC 7515, appendix A.1: the example is a JWT of another issuer, so only its signature counts. */
static void test_known_signature(void)
{
    static const char text[] =
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQog"
        "Imh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    char decoded[200];
    struct buf out = BUF_INIT(decoded);

    CHECK(crypto_read_base64url((struct str){text, 40}, &out));
    CHECK(str_equal(str_of(&out), STR("{\"typ\":\"JWT\",\r\n \"alg\":\"HS256\"}")));
}

int main(void)
{
    CHECK(crypto_add_key(&keys, STR("0123456789abcdef"), false));
    CHECK(crypto_add_key(&others, STR("fedcba9876543210"), false));
    test_run("claims are read, and others ignored", test_claims);
    test_run("claims that are missing or ill-typed", test_missing_and_ill_typed);
    test_run("claims at their limits and beyond", test_limits);
    test_run("a ticket has at most 4096 bytes", test_length);
    test_run("no algorithm but HS256, no critical extension", test_headers);
    test_run("what is no ticket", test_forms);
    test_run("each byte of a ticket counts", test_each_byte);
    test_run("versions of the key, systems, crypto_keys", test_keys);
    test_run("times, and clocks that differ", test_times);
    test_run("what is written can be read", test_writing);
    test_run("copies of claims", test_copying);
    test_run("base64url", test_known_signature);
    return test_finish();
}
