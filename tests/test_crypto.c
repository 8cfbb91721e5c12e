/* test_crypto.c - known answers of everything that has some, and tokens: what was signed is
 * accepted until it expires, and nothing that differs from it in anything. */
#include "crypto.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

#define EXPIRES 1700000000

static void encodes_base64(void)
{
    static const struct {
        struct str bytes, text;
    } vectors[] = {
        /* RFC 4648, section 10 */
        {STR_INIT(""), STR_INIT("")},
        {STR_INIT("f"), STR_INIT("Zg==")},
        {STR_INIT("fo"), STR_INIT("Zm8=")},
        {STR_INIT("foo"), STR_INIT("Zm9v")},
        {STR_INIT("foob"), STR_INIT("Zm9vYg==")},
        {STR_INIT("fooba"), STR_INIT("Zm9vYmE=")},
        {STR_INIT("foobar"), STR_INIT("Zm9vYmFy")},
        /* section 4: digits 62 and 63 */
        {STR_INIT("\xfb\xff\xbf\0"), STR_INIT("+/+/AA==")},
    };
    struct buf all = {0}, out = {0}, full = {.limit = 3};

    for (size_t i = 0; i < COUNT(vectors); i++) {
        size_t before = all.length;

        CHECK(crypto_base64(&all, vectors[i].bytes));
        CHECK(str_equal((struct str){all.at + before, all.length - before}, vectors[i].text));
    }
    /* longer than the lines of 64 digits that some encoders make */
    while (out.length < 300)
        buf_append(&out, STR("foobar"));
    all.length = 0;
    CHECK(crypto_base64(&all, str_of(&out)) && all.length == 400);
    for (size_t i = 0; i < all.length; i += 8)
        CHECK(memcmp(all.at + i, "Zm9vYmFy", 8) == 0);
    CHECK(!crypto_base64(&full, STR("foo")) && full.failed && full.length == 0);
    buf_free(&all);
    buf_free(&out);
    buf_free(&full);
}

static void answers_websocket_keys(void)
{
    struct buf out = {0}, full = {.limit = 27};

    /* RFC 6455, section 1.3 */
    CHECK(crypto_websocket_accept(&out, STR("dGhlIHNhbXBsZSBub25jZQ==")));
    CHECK(str_equal(str_of(&out), STR("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
    CHECK(!crypto_websocket_accept(&full, STR("dGhlIHNhbXBsZSBub25jZQ==")));
    buf_free(&out);
    buf_free(&full);
}

static void writes_hex(void)
{
    struct buf out = {0}, full = {.limit = 5};

    CHECK(crypto_hex(&out, STR("\0\x01\x7f\x80\xab\xff")));
    CHECK(crypto_hex(&out, STR("")));
    CHECK(str_equal(str_of(&out), STR("00017f80abff")));
    CHECK(!crypto_hex(&full, STR("abc")));
    buf_free(&out);
    buf_free(&full);
}

static void reads_hex(void)
{
    static const struct str refused[] = {
        STR_INIT(""),           STR_INIT("0"),        STR_INIT("00017f8"),   STR_INIT("00017f80a"),
        STR_INIT("00017f80ab"), STR_INIT("00017F80"), STR_INIT("0x017f80"),  STR_INIT(" 0017f80"),
        STR_INIT("00017f8 "),   STR_INIT("00017f8g"), STR_INIT("00017f8\0"), STR_INIT("+1017f80"),
    };
    unsigned char bytes[4];

    CHECK(crypto_unhex(STR("00017f80"), bytes, 4) && memcmp(bytes, "\0\x01\x7f\x80", 4) == 0);
    CHECK(crypto_unhex(STR("abcdef09"), bytes, 4) && memcmp(bytes, "\xab\xcd\xef\x09", 4) == 0);
    CHECK(crypto_unhex(STR(""), bytes, 0));
    for (size_t i = 0; i < COUNT(refused); i++)
        if (!CHECK(!crypto_unhex(refused[i], bytes, 4)))
            printf("     in row %zu of refused\n", i);
    for (int c = 0; c < 256; c++) {
        char digits[2] = {'0', (char)c};
        bool digit = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');

        CHECK(crypto_unhex((struct str){digits, 2}, bytes, 1) == digit);
    }
}

static void compares(void)
{
    CHECK(crypto_equal(STR("secret"), STR("secret")));
    CHECK(crypto_equal(STR(""), STR("")));
    CHECK(!crypto_equal(STR("secret"), STR("secreT")));
    CHECK(!crypto_equal(STR("secret"), STR("Secret")));
    CHECK(!crypto_equal(STR("secret"), STR("secre")));
    CHECK(!crypto_equal(STR("secre"), STR("secret")));
    CHECK(!crypto_equal(STR("a\0b"), STR("a\0c")));
}

static void gives_random_bytes(void)
{
    unsigned char a[32] = {0}, b[32] = {0}, seen = 0;

    CHECK(crypto_random(a, sizeof a) && crypto_random(b, sizeof b));
    CHECK(memcmp(a, b, sizeof a) != 0);
    for (size_t i = 0; i < sizeof a; i++)
        seen |= a[i];
    CHECK(seen != 0);
    CHECK(crypto_random(a, 0));
    CHECK(!crypto_random(a, SIZE_MAX));
}

static void erases(void)
{
    char secret[9] = "secrets!";

    crypto_erase(secret, 7);
    CHECK(memcmp(secret, "\0\0\0\0\0\0\0!", 9) == 0);
}

/* The vectors are in the documentation of Python's passlib, as pbkdf2_sha256. */
static void hashes_passwords(void)
{
    static const struct {
        struct str password;
        unsigned iterations;
        struct str salt, hash;
    } vectors[] = {
        {STR_INIT("password"), 6400, STR_INIT("d19af35e2b4548696d4d09c158eb1d03"),
         STR_INIT("635d40721a95e1bd2c522b1d65dd17afdeca5a8ca6344d0b34dae71206381fd3")},
        {STR_INIT("password"), 6400, STR_INIT("fba508fd2fa75c893c8dc6dd1f1dc586"),
         STR_INIT("f7c8d989c575e8e0df12c1197983c61d4de46eb52bbd411738f8a65524030f8e")},
        {STR_INIT("toomanysecrets"), 29000, STR_INIT("37660c21642c05604c69ed3dc758eb3d"),
         STR_INIT("d6df22c81d80f9617f679259bfe95f0888575cddf7376dce4a04184e105845f9")},
    };

    for (size_t i = 0; i < COUNT(vectors); i++) {
        unsigned char salt[CRYPTO_SALT_SIZE], hash[CRYPTO_HASH_SIZE], wanted[CRYPTO_HASH_SIZE];

        CHECK(crypto_unhex(vectors[i].salt, salt, sizeof salt));
        CHECK(crypto_unhex(vectors[i].hash, wanted, sizeof wanted));
        CHECK(crypto_hash_password(vectors[i].password, salt, vectors[i].iterations, hash));
        CHECK(memcmp(hash, wanted, sizeof hash) == 0);
        CHECK(crypto_hash_password(vectors[i].password, salt, vectors[i].iterations - 1, hash));
        CHECK(memcmp(hash, wanted, sizeof hash) != 0);
    }
}

static struct crypto_keys keys_of(struct str crypto_key)
{
    struct crypto_keys keys;

    CHECK(crypto_derive_keys(&keys, crypto_key));
    return keys;
}

/* Checks an exact copy of the token, in which a sanitizer sees every byte read too far. */
static bool accepts(const struct crypto_keys *keys, struct str token, int64_t now, struct buf *name)
{
    char *copy = malloc(token.length);
    bool accepted;

    if (!copy && token.length)
        abort();
    if (token.length)
        memcpy(copy, token.at, token.length);
    accepted = crypto_check_token(keys, (struct str){copy, token.length}, now, name);
    free(copy);
    return accepted;
}

/* The same, where nothing must be accepted and nothing said about a name. */
static bool refuses(const struct crypto_keys *keys, struct str token, int64_t now)
{
    struct buf name = {0};
    bool refused = !accepts(keys, token, now, &name) && name.length == 0;

    buf_free(&name);
    return refused;
}

/* The signature is HMAC-SHA-256 of what stands before it, under HMAC-SHA-256 of "wspush token"
 * under crypto_key; the answer here was computed with Python's hmac. */
static void signs_a_known_token(void)
{
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0};

    CHECK(crypto_sign_token(&keys, STR("shop"), EXPIRES, &token));
    CHECK(str_equal(str_of(&token),
                    STR("000000006553f100.73686f70."
                        "3c54fb1aef1accffe608f9b8065e55fc32cdb41bf2e30f020a2d69831d176190")));
    buf_free(&token);
}

/* A part that does not fit must not be left out, even if what follows it would fit. */
static void signs_whole_tokens_only(void)
{
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));
    char name[128] = "a long one";
    struct buf token = {0}, full = {0};

    CHECK(crypto_sign_token(&keys, (struct str){name, sizeof name}, EXPIRES, &token));
    for (full.limit = 1; full.limit < token.length; full.limit++) {
        CHECK(!crypto_sign_token(&keys, (struct str){name, sizeof name}, EXPIRES, &full));
        buf_free(&full);
    }
    buf_free(&token);
}

static void accepts_what_it_signed(void)
{
    static const struct str names[] = {
        STR_INIT("a"),
        STR_INIT("shop.example"),
        STR_INIT("\0\x01.\x7f\x80\xff"),
        STR_INIT("\xe7\xb3\xbb\xe7\xbb\x9f"),
        STR_INIT("0123456789012345678901234567890123456789012345678901234567890123"
                 "0123456789012345678901234567890123456789012345678901234567890123"),
    };
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0}, name = {0};

    for (size_t i = 0; i < COUNT(names); i++) {
        token.length = 0;
        name.length = 0;
        buf_append(&name, STR("before:"));
        CHECK(crypto_sign_token(&keys, names[i], EXPIRES, &token));
        CHECK(accepts(&keys, str_of(&token), 0, &name) && name.length == 7 + names[i].length);
        CHECK(memcmp(name.at, "before:", 7) == 0);
        CHECK(memcmp(name.at + 7, names[i].at, names[i].length) == 0);
    }
    buf_free(&token);
    buf_free(&name);
}

static void ends_at_its_time(void)
{
    static const int64_t ends[] = {1, EXPIRES, 1ll << 32, INT64_MAX};
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));

    for (size_t i = 0; i < COUNT(ends); i++) {
        struct buf token = {0}, name = {0};

        CHECK(crypto_sign_token(&keys, STR("shop"), ends[i], &token));
        CHECK(accepts(&keys, str_of(&token), ends[i] - 1, &name));
        CHECK(refuses(&keys, str_of(&token), ends[i]));
        CHECK(refuses(&keys, str_of(&token), INT64_MAX));
        CHECK(refuses(&keys, str_of(&token), -1)); /* a clock that cannot be right */
        /* an end before 1970 is past, too */
        token.length = 0;
        CHECK(crypto_sign_token(&keys, STR("shop"), -ends[i], &token));
        CHECK(refuses(&keys, str_of(&token), 0) && refuses(&keys, str_of(&token), EXPIRES));
        buf_free(&token);
        buf_free(&name);
    }
}

/* At each place every other byte. */
static void refuses_changed_tokens(void)
{
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0};
    bool good;

    CHECK(crypto_sign_token(&keys, STR("shop"), EXPIRES, &token));
    good = CHECK(!refuses(&keys, str_of(&token), 0));
    for (size_t i = 0; good && i < token.length; i++) {
        char right = token.at[i];

        for (int c = 0; good && c < 256; c++) {
            token.at[i] = (char)c;
            good = CHECK(token.at[i] == right || refuses(&keys, str_of(&token), 0));
        }
        if (!good)
            printf("     at %zu\n", i);
        token.at[i] = right;
    }
    buf_free(&token);
}

static void refuses_tokens_of_another_length(void)
{
    static const struct str others[] = {
        STR_INIT(""), STR_INIT("."), STR_INIT(".."), STR_INIT("..."), STR_INIT("shop"),
    };
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0}, longer = {0};

    CHECK(crypto_sign_token(&keys, STR("shop"), EXPIRES, &token));
    for (size_t n = 0; n < token.length; n++) {
        CHECK(refuses(&keys, (struct str){token.at, n}, 0));
        CHECK(refuses(&keys, (struct str){token.at + 1 + n, token.length - 1 - n}, 0));
    }
    /* one byte more, at each place */
    for (size_t n = 0; n <= token.length; n++) {
        longer.length = 0;
        buf_append(&longer, (struct str){token.at, n});
        buf_append(&longer, STR("0"));
        buf_append(&longer, (struct str){token.at + n, token.length - n});
        CHECK(refuses(&keys, str_of(&longer), 0));
    }
    for (size_t i = 0; i < COUNT(others); i++)
        CHECK(refuses(&keys, others[i], 0));
    buf_free(&token);
    buf_free(&longer);
}

static void refuses_other_keys(void)
{
    struct crypto_keys keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0};
    char other[] = "0123456789abcdef";

    CHECK(crypto_sign_token(&keys, STR("shop"), EXPIRES, &token));
    for (size_t i = 0; i < CRYPTO_KEY_SIZE; i++) {
        struct crypto_keys others;

        other[i] ^= 1;
        others = keys_of((struct str){other, CRYPTO_KEY_SIZE});
        CHECK(refuses(&others, str_of(&token), 0));
        other[i] ^= 1;
    }
    CHECK(!refuses(&keys, str_of(&token), 0));
    buf_free(&token);
}

int main(void)
{
    test_run("crypto encodes base64 (RFC 4648)", encodes_base64);
    test_run("crypto answers a WebSocket key (RFC 6455, 1.3)", answers_websocket_keys);
    test_run("crypto writes hex digits", writes_hex);
    test_run("crypto reads hex digits and nothing else", reads_hex);
    test_run("crypto compares", compares);
    test_run("crypto gives random bytes", gives_random_bytes);
    test_run("crypto erases", erases);
    test_run("crypto hashes passwords (PBKDF2-HMAC-SHA-256)", hashes_passwords);
    test_run("crypto signs a known token", signs_a_known_token);
    test_run("crypto signs whole tokens only", signs_whole_tokens_only);
    test_run("crypto accepts the tokens it signed", accepts_what_it_signed);
    test_run("crypto ends a token at its time", ends_at_its_time);
    test_run("crypto refuses a token with any byte changed", refuses_changed_tokens);
    test_run("crypto refuses a token of another length", refuses_tokens_of_another_length);
    test_run("crypto refuses tokens of other keys", refuses_other_keys);
    return test_finish();
}
