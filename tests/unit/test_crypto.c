/* test_crypto.c - known answers of everything that has some, and tokens: what was signed is
 * accepted until it expires, what was sealed is opened, and nothing that differs from it in
 * anything. */
#include "crypto.h"

#include "test.h"

#include <stdlib.h>
#include <string.h>

#define EXPIRES 1700000000
#define GENERATION 0x0123456789abcdef

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

static void hashes(void)
{
    static const struct {
        struct str bytes;
        const char *digits;
    } vectors[] = {
        /* the examples that NIST gives for FIPS 180-4 */
        {STR_INIT(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {STR_INIT("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {STR_INIT("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };

    for (size_t i = 0; i < COUNT(vectors); i++) {
        unsigned char hash[CRYPTO_HASH_SIZE], wanted[CRYPTO_HASH_SIZE];

        CHECK(str_read_hex(str_from(vectors[i].digits), wanted, sizeof wanted));
        CHECK(crypto_sha256(vectors[i].bytes, hash) && memcmp(hash, wanted, sizeof hash) == 0);
    }
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

        CHECK(str_read_hex(vectors[i].salt, salt, sizeof salt));
        CHECK(str_read_hex(vectors[i].hash, wanted, sizeof wanted));
        CHECK(crypto_hash_password(vectors[i].password, salt, vectors[i].iterations, hash));
        CHECK(memcmp(hash, wanted, sizeof hash) == 0);
        CHECK(crypto_hash_password(vectors[i].password, salt, vectors[i].iterations - 1, hash));
        CHECK(memcmp(hash, wanted, sizeof hash) != 0);
    }
}

static struct crypto_keyring keys_of(struct str crypto_key)
{
    struct crypto_keyring keys = {0};

    CHECK(crypto_add_key(&keys, crypto_key, false) && keys.count == 1);
    return keys;
}

/* Checks an exact copy of the token, in which a sanitizer sees every byte read too far. */
static bool accepts(const struct crypto_keyring *keys, struct str token, int64_t now,
                    struct buf *name)
{
    struct crypto_known known = {0};
    uint64_t generation = 0;
    char *copy = malloc(token.length);
    bool accepted;

    if (!copy && token.length)
        abort();
    if (token.length)
        memcpy(copy, token.at, token.length);
    accepted =
        crypto_check_token(keys, &known, (struct str){copy, token.length}, now, name, &generation);
    CHECK(!accepted || generation == GENERATION);
    free(copy);
    return accepted;
}

/* The same, where nothing must be accepted and nothing said about a name. */
static bool refuses(const struct crypto_keyring *keys, struct str token, int64_t now)
{
    struct buf name = {0};
    bool refused = !accepts(keys, token, now, &name) && name.length == 0;

    buf_free(&name);
    return refused;
}

/* The signature is HMAC-SHA-256 of what stands before it, under HKDF's "token"; the answer here was
 * computed with Python. */
static void signs_a_known_token(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0};

    CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, EXPIRES, &token));
    CHECK(str_equal(str_of(&token),
                    STR("000000006553f100.0123456789abcdef.73686f70."
                        "ba04d8312944c05c8adc5af276adbd275483657a38b75433d00ba66a85e3917e")));
    buf_free(&token);
}

/* A part that does not fit must not be left out, even if what follows it would fit. */
static void signs_whole_tokens_only(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    char name[128] = "a long one";
    struct buf token = {0}, full = {0};

    CHECK(
        crypto_sign_token(keys.keys, (struct str){name, sizeof name}, GENERATION, EXPIRES, &token));
    for (full.limit = 1; full.limit < token.length; full.limit++) {
        CHECK(!crypto_sign_token(keys.keys, (struct str){name, sizeof name}, GENERATION, EXPIRES,
                                 &full));
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
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0}, name = {0};

    for (size_t i = 0; i < COUNT(names); i++) {
        token.length = 0;
        name.length = 0;
        buf_append(&name, STR("before:"));
        CHECK(crypto_sign_token(keys.keys, names[i], GENERATION, EXPIRES, &token));
        CHECK(accepts(&keys, str_of(&token), 0, &name) && name.length == 7 + names[i].length);
        CHECK(memcmp(name.at, "before:", 7) == 0);
        CHECK(memcmp(name.at + 7, names[i].at, names[i].length) == 0);
    }
    buf_free(&token);
    buf_free(&name);
}

/* Tokens of one system and time differ in their generation alone, and one that is known does not
 * speak for another. */
static void tells_generations_apart(void)
{
    static const uint64_t generations[] = {0, 1, GENERATION, UINT64_MAX};
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct crypto_known known = {0};
    struct buf name = {0};

    for (size_t i = 0; i < 3 * COUNT(generations); i++) {
        struct buf token = {0};
        uint64_t generation = 7, right = generations[i % COUNT(generations)];

        CHECK(crypto_sign_token(keys.keys, STR("shop"), right, EXPIRES, &token));
        CHECK(crypto_check_token(&keys, &known, str_of(&token), 0, &name, &generation) &&
              generation == right);
        token.at[17 + i] = token.at[17 + i] == '2' ? '3' : '2';
        CHECK(!crypto_check_token(&keys, &known, str_of(&token), 0, &name, &generation));
        buf_free(&token);
    }
    buf_free(&name);
}

/* One that is known is held to be signed; nothing that differs from it is, nor has it no end. */
static void knows_the_very_token_again(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct crypto_known known = {0};
    struct buf token = {0}, name = {0};
    uint64_t generation;

    CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, EXPIRES, &token));
    for (int i = 0; i < 3; i++)
        CHECK(crypto_check_token(&keys, &known, str_of(&token), EXPIRES - 1, &name, &generation));
    CHECK(str_equal(str_of(&name), STR("shopshopshop")));
    CHECK(!crypto_check_token(&keys, &known, str_of(&token), EXPIRES, &name, &generation));
    for (size_t i = 0; i < token.length; i++) {
        token.at[i] ^= 1;
        CHECK(!crypto_check_token(&keys, &known, str_of(&token), 0, &name, &generation));
        token.at[i] ^= 1;
        CHECK(!crypto_check_token(&keys, &known, (struct str){token.at, i}, 0, &name, &generation));
    }
    CHECK(crypto_check_token(&keys, &known, str_of(&token), 0, &name, &generation));
    buf_free(&token);
    buf_free(&name);
}

static bool is_known(const struct crypto_known *known, struct str token)
{
    for (int i = 0; i < CRYPTO_TOKENS_KNOWN; i++)
        if (str_equal(token, (struct str){known->tokens[i].text, known->tokens[i].length}))
            return true;
    return false;
}

/* More tokens than are known, and longer ones than a system's name allows. */
static void forgets_tokens_for_others(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct crypto_known known = {0};
    struct buf token = {0}, name = {0};
    uint64_t generation;
    char system[400] = "s";

    for (size_t i = 1; i <= sizeof system; i++) {
        token.length = name.length = 0;
        CHECK(crypto_sign_token(keys.keys, (struct str){system, i}, GENERATION, EXPIRES, &token));
        for (int again = 1; again <= 2; again++)
            CHECK(crypto_check_token(&keys, &known, str_of(&token), 0, &name, &generation) &&
                  name.length == i * (size_t)again);
        CHECK(is_known(&known, str_of(&token)) == (i <= 128)); /* the last one always is */
    }
    buf_free(&token);
    buf_free(&name);
}

static void ends_at_its_time(void)
{
    static const int64_t ends[] = {1, EXPIRES, 1ll << 32, INT64_MAX};
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));

    for (size_t i = 0; i < COUNT(ends); i++) {
        struct buf token = {0}, name = {0};

        CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, ends[i], &token));
        CHECK(accepts(&keys, str_of(&token), ends[i] - 1, &name));
        CHECK(refuses(&keys, str_of(&token), ends[i]));
        CHECK(refuses(&keys, str_of(&token), INT64_MAX));
        CHECK(refuses(&keys, str_of(&token), -1)); /* a clock that cannot be right */
        /* an end before 1970 is past, too */
        token.length = 0;
        CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, -ends[i], &token));
        CHECK(refuses(&keys, str_of(&token), 0) && refuses(&keys, str_of(&token), EXPIRES));
        buf_free(&token);
        buf_free(&name);
    }
}

/* At each place every other byte. */
static void refuses_changed_tokens(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0};
    bool good;

    CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, EXPIRES, &token));
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
        STR_INIT(""),
        STR_INIT("."),
        STR_INIT(".."),
        STR_INIT("..."),
        STR_INIT("...."),
        STR_INIT("shop"),
        /* of the format without a generation */
        STR_INIT("000000006553f100.73686f70."
                 "3c54fb1aef1accffe608f9b8065e55fc32cdb41bf2e30f020a2d69831d176190"),
    };
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0}, longer = {0};

    CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, EXPIRES, &token));
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
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct buf token = {0};
    char other[] = "0123456789abcdef";

    CHECK(crypto_sign_token(keys.keys, STR("shop"), GENERATION, EXPIRES, &token));
    for (size_t i = 0; i < CRYPTO_KEY_SIZE; i++) {
        struct crypto_keyring others;

        other[i] ^= 1;
        others = keys_of((struct str){other, CRYPTO_KEY_SIZE});
        CHECK(refuses(&others, str_of(&token), 0));
        other[i] ^= 1;
    }
    CHECK(!refuses(&keys, str_of(&token), 0));
    buf_free(&token);
}

/* --- sealed ids ------------------------------------------------------------------------------ */

static const char digits64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void number_bytes(unsigned char plain[CRYPTO_ID_SIZE], unsigned from)
{
    for (unsigned i = 0; i < CRYPTO_ID_SIZE; i++)
        plain[i] = (unsigned char)(from + i);
}

/* Opens an exact copy of the text. */
static bool opens(const struct crypto_keys *keys, struct str text,
                  unsigned char plain[CRYPTO_ID_SIZE])
{
    struct str copy = exact_copy(text);
    bool good = crypto_open_id(keys, copy, plain);

    free_copy(copy);
    return good;
}

/* AES-256-GCM with a nonce of 12 bytes: the first of HMAC-SHA-256 of what is sealed. The keys are
 * HKDF's "id" and "nonce"; the ids here were computed with Python's hmac and cryptography. */
static void seals_known_ids(void)
{
    static const struct {
        const char *key;
        unsigned from;
        struct str id;
    } vectors[] = {
        {"0123456789abcdef", 0,
         STR_INIT("oLVxSvCxK7H/3Yiw7XW3SBxQGz4OQDcDeoDsk88YX/qXnYRW5ate4LR61iNYrLAaWJmN")},
        {"0123456789abcdef", 233,
         STR_INIT("MRLYqCQ+zrewNp0LIwBWX9KH1co9R77vJgFW5sbqZQqwoGsrQLEpFppLd28oSg+gAGFk")},
        {"another key here", 0,
         STR_INIT("zGgTcK6rlaYY+0g/huydayFdVf7NF2OEcsjfhPkSOqPcTQ1Q/gXBxtIfaICeN1dGHvHB")},

    };

    for (size_t i = 0; i < COUNT(vectors); i++) {
        struct crypto_keyring keys = keys_of(str_from(vectors[i].key));
        unsigned char plain[CRYPTO_ID_SIZE], opened[CRYPTO_ID_SIZE] = {0};
        char id[CRYPTO_ID_TEXT];

        number_bytes(plain, vectors[i].from);
        CHECK(crypto_seal_id(keys.keys, plain, id));
        CHECK(str_equal((struct str){id, sizeof id}, vectors[i].id));
        CHECK(opens(keys.keys, vectors[i].id, opened) && memcmp(opened, plain, sizeof plain) == 0);
    }
}

/* The same always gives the same id, and what differs in one bit another one. */
static void ids_follow_from_what_they_seal(void)
{
    static char ids[8 * CRYPTO_ID_SIZE + 1][CRYPTO_ID_TEXT];
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    unsigned char plain[CRYPTO_ID_SIZE], opened[CRYPTO_ID_SIZE];
    char again[CRYPTO_ID_TEXT];

    number_bytes(plain, 0);
    for (size_t i = 0; i < COUNT(ids); i++) {
        bool changed = i < 8 * CRYPTO_ID_SIZE;

        if (changed)
            plain[i / 8] ^= (unsigned char)(1u << i % 8);
        CHECK(crypto_seal_id(keys.keys, plain, ids[i]) && crypto_seal_id(keys.keys, plain, again));
        CHECK(memcmp(ids[i], again, sizeof again) == 0);
        CHECK(opens(keys.keys, (struct str){ids[i], CRYPTO_ID_TEXT}, opened));
        CHECK(memcmp(opened, plain, sizeof plain) == 0);
        for (size_t k = 0; k < CRYPTO_ID_TEXT; k++)
            CHECK(memchr(digits64, ids[i][k], 64));
        for (size_t k = 0; k < i; k++) /* not even the nonces in front are the same */
            CHECK(memcmp(ids[i], ids[k], 16) != 0);
        if (changed)
            plain[i / 8] ^= (unsigned char)(1u << i % 8);
    }
}

/* At each place every other byte. */
static void changed_ids_do_not_open(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    unsigned char plain[CRYPTO_ID_SIZE], opened[CRYPTO_ID_SIZE];
    char id[CRYPTO_ID_TEXT];
    bool good;

    number_bytes(plain, 100);
    CHECK(crypto_seal_id(keys.keys, plain, id));
    good = CHECK(opens(keys.keys, (struct str){id, sizeof id}, opened));
    for (size_t i = 0; good && i < sizeof id; i++) {
        char right = id[i];

        for (int c = 0; good && c < 256; c++) {
            id[i] = (char)c;
            good = CHECK(id[i] == right || !opens(keys.keys, (struct str){id, sizeof id}, opened));
        }
        if (!good)
            printf("     at %zu\n", i);
        id[i] = right;
    }
    /* two places exchanged, or changed */
    for (size_t i = 0; i + 1 < sizeof id; i++) {
        char before[2] = {id[i], id[i + 1]};

        id[i] = before[1];
        id[i + 1] = before[0];
        CHECK(before[0] == before[1] || !opens(keys.keys, (struct str){id, sizeof id}, opened));
        id[i] = before[0] == 'A' ? 'B' : 'A';
        id[i + 1] = before[1] == 'A' ? 'B' : 'A';
        CHECK(!opens(keys.keys, (struct str){id, sizeof id}, opened));
        memcpy(id + i, before, 2);
    }
    CHECK(opens(keys.keys, (struct str){id, sizeof id}, opened));
}

/* Cut at either end, or with more behind it. */
static void ids_of_another_length_do_not_open(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    unsigned char plain[CRYPTO_ID_SIZE], opened[CRYPTO_ID_SIZE];
    char text[4 * CRYPTO_ID_TEXT];

    number_bytes(plain, 3);
    for (size_t filler = 0; filler < 5; filler++) {
        memset(text, "A=\n \0"[filler], sizeof text);
        CHECK(crypto_seal_id(keys.keys, plain, text));
        for (size_t length = 0; length <= 100; length++)
            CHECK(opens(keys.keys, (struct str){text, length}, opened) ==
                  (length == CRYPTO_ID_TEXT));
        for (size_t from = 1; from < CRYPTO_ID_TEXT; from++) {
            CHECK(!opens(keys.keys, (struct str){text + from, CRYPTO_ID_TEXT}, opened));
            CHECK(!opens(keys.keys, (struct str){text + from, CRYPTO_ID_TEXT - from}, opened));
        }
    }
    CHECK(!crypto_open_id(keys.keys, (struct str){0}, opened));
    memset(text, 'A', sizeof text);
    CHECK(!opens(keys.keys, (struct str){text, CRYPTO_ID_TEXT}, opened));
}

/* White space and padding inside are no base64 of an id, whether the whole is longer or not. */
static void ids_have_one_spelling(void)
{
    static const struct str insertions[] = {STR_INIT("\n"), STR_INIT(" "),  STR_INIT("\r\n"),
                                            STR_INIT("="),  STR_INIT("=="), STR_INIT("-"),
                                            STR_INIT("\0")};
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    unsigned char plain[CRYPTO_ID_SIZE], opened[CRYPTO_ID_SIZE];
    char id[CRYPTO_ID_TEXT];

    number_bytes(plain, 50);
    CHECK(crypto_seal_id(keys.keys, plain, id));
    for (size_t i = 0; i < COUNT(insertions); i++)
        for (size_t at = 0; at <= sizeof id; at++) {
            struct buf text = {0};

            buf_append(&text, (struct str){id, at});
            buf_append(&text, insertions[i]);
            buf_append(&text, (struct str){id + at, sizeof id - at});
            CHECK(!opens(keys.keys, str_of(&text), opened));
            CHECK(opens(keys.keys, (struct str){text.at, CRYPTO_ID_TEXT}, opened) ==
                  (at == CRYPTO_ID_TEXT));
            buf_free(&text);
        }
}

static void ids_of_other_keys_do_not_open(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef")), mixed;
    unsigned char plain[CRYPTO_ID_SIZE], opened[CRYPTO_ID_SIZE];
    char other[] = "0123456789abcdef", id[CRYPTO_ID_TEXT], others_id[CRYPTO_ID_TEXT];

    number_bytes(plain, 7);
    CHECK(crypto_seal_id(keys.keys, plain, id));
    for (size_t i = 0; i < CRYPTO_KEY_SIZE; i++) {
        struct crypto_keyring others;

        other[i] ^= 1;
        others = keys_of((struct str){other, CRYPTO_KEY_SIZE});
        CHECK(!opens(others.keys, (struct str){id, sizeof id}, opened));
        CHECK(crypto_seal_id(others.keys, plain, others_id));
        CHECK(memcmp(id, others_id, 16) != 0);
        CHECK(!opens(keys.keys, (struct str){others_id, sizeof others_id}, opened));
        other[i] ^= 1;
    }
    /* it is the key of ids that opens: those of tokens and of peers have nothing to do with it */
    mixed = keys;
    mixed.keys[0].token[0] ^= 1;
    mixed.keys[0].link[0] ^= 1;
    CHECK(opens(mixed.keys, (struct str){id, sizeof id}, opened));
    mixed.keys[0].id[31] ^= 1;
    CHECK(!opens(mixed.keys, (struct str){id, sizeof id}, opened));
}

/* --- proofs ---------------------------------------------------------------------------------- */

/* HMAC-SHA-256 under HKDF's "registry", computed with Python. */
static void proves(void)
{
    struct crypto_keyring keys = keys_of(STR("0123456789abcdef"));
    struct crypto_keyring others = keys_of(STR("0123456789abcdeF"));
    unsigned char proof[CRYPTO_HASH_SIZE], wanted[CRYPTO_HASH_SIZE];

    CHECK(str_read_hex(STR("7d4e7b034850bf8cdff26f432d29e6baf35552dce255a38abac55d868a8bc04d"),
                       wanted, sizeof wanted));
    CHECK(crypto_prove(keys.keys, STR(""), proof) && memcmp(proof, wanted, sizeof proof) == 0);
    CHECK(str_read_hex(STR("7bd214d355ac9a6e12f86751e4430c344f7da8257b8e65938b6f49b7a5ac0da5"),
                       wanted, sizeof wanted));
    CHECK(crypto_prove(keys.keys, STR("dial a b"), proof));
    CHECK(memcmp(proof, wanted, sizeof proof) == 0);
    CHECK(crypto_prove(others.keys, STR("dial a b"), proof));
    CHECK(memcmp(proof, wanted, sizeof proof) != 0);
    for (size_t i = 0; i < 8; i++) {
        char text[] = "dial a b";

        text[i] ^= 1;
        CHECK(crypto_prove(keys.keys, str_from(text), proof));
        CHECK(memcmp(proof, wanted, sizeof proof) != 0);
        CHECK(crypto_prove(keys.keys, (struct str){"dial a b", i}, proof));
        CHECK(memcmp(proof, wanted, sizeof proof) != 0);
    }
}

/* --- keys ------------------------------------------------------------------------------------ */

static bool is_key(const unsigned char *key, const char *hex)
{
    unsigned char wanted[CRYPTO_HASH_SIZE];
    size_t length = strlen(hex) / 2;

    return str_read_hex(str_from(hex), wanted, length) && memcmp(key, wanted, length) == 0;
}

/* HKDF-SHA-256 with the salt "wspush"; stretched, of PBKDF2-HMAC-SHA-256. Computed with Python's
 * cryptography and hashlib. */
static void derives_known_keys(void)
{
    struct crypto_keyring keys = {0};
    const struct crypto_keys *plain = &keys.keys[0], *stretched = &keys.keys[1];

    CHECK(crypto_add_key(&keys, STR("0123456789abcdef"), false) && keys.count == 1);
    CHECK(crypto_add_key(&keys, STR("0123456789abcdef"), true) && keys.count == 2);
    CHECK(!crypto_add_key(&keys, STR("0123456789abcdef"), false) && keys.count == 2);
    CHECK(is_key(plain->name, "ad69ba226c9db8b8"));
    CHECK(is_key(plain->token, "8614418a148d8910907810546ed55527df85ded7e9c1b795186c1781c680d0b0"));
    CHECK(is_key(plain->id, "25c58f0e7c4b3ae35080dfc64c120451330828fd548284f84358c1cc88f3ddbb"));
    CHECK(is_key(plain->nonce, "7297358f54fb993df2fa34c22524772d58c2a850b8f26962ced090e233726176"));
    CHECK(is_key(plain->link, "2e02373bb799ba30805c89ff874f3ad3475c845e0762d9fd8fb66959ac894620"));
    CHECK(is_key(plain->publication,
                 "5f159323d3f61a17749cf8e88d771510953028f677ef337f840efe2c65ac436f"));
    CHECK(is_key(plain->registry,
                 "92c65fbaa5d8fb6f1619bf8afe2482c3917c0d94bfdf039d35238d6bc93ad185"));
    CHECK(is_key(stretched->name, "f290256e8d638788"));
    CHECK(is_key(stretched->link,
                 "0278ecf679db3125d8d8c385db78da2bdb43d2c31d7008bbd80fab0004cbce81"));
}

/* One key for one purpose: none of them is another, under this crypto_key or the next. */
static void keys_differ(void)
{
    const struct crypto_keyring rings[2] = {keys_of(STR("0123456789abcdef")),
                                            keys_of(STR("0123456789abcdeF"))};
    const unsigned char *all[12];

    for (size_t i = 0; i < 2; i++) {
        const struct crypto_keys *keys = rings[i].keys;

        all[6 * i] = keys->token;
        all[6 * i + 1] = keys->id;
        all[6 * i + 2] = keys->nonce;
        all[6 * i + 3] = keys->link;
        all[6 * i + 4] = keys->publication;
        all[6 * i + 5] = keys->registry;
    }
    for (size_t i = 0; i < COUNT(all); i++)
        for (size_t j = 0; j < i; j++)
            CHECK(memcmp(all[i], all[j], CRYPTO_HASH_SIZE) != 0);
    CHECK(memcmp(rings[0].keys[0].name, rings[1].keys[0].name, 8) != 0);
}

/* A crypto_key is changed in three steps: all accept the new one; the new one is used; the old one
 * goes. What any node has signed is good for all that are at most one step away. */
static void accepts_all_keys_of_the_ring(void)
{
    static const struct str old = STR_INIT("0123456789abcdef"), new = STR_INIT("another key here");
    const struct str steps[4][2] = {{old, {NULL, 0}}, {old, new}, {new, old}, {new, {NULL, 0}}};
    struct crypto_keyring rings[4] = {{.count = 0}};

    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 2 && steps[i][j].at; j++)
            CHECK(crypto_add_key(&rings[i], steps[i][j], false));
    for (size_t i = 0; i < 4; i++) {
        struct buf token = {0}, name = {0};

        CHECK(crypto_sign_token(rings[i].keys, STR("shop"), GENERATION, EXPIRES, &token));
        for (size_t j = 0; j < 4; j++) {
            bool too_far = i < 2 ? j == 3 : j == 0;

            name.length = 0;
            CHECK(accepts(&rings[j], str_of(&token), 0, &name) == !too_far);
        }
        buf_free(&token);
        buf_free(&name);
    }
}

int main(void)
{
    test_run("crypto encodes base64 (RFC 4648)", encodes_base64);
    test_run("crypto hashes with SHA-256 (FIPS 180-4)", hashes);
    test_run("crypto answers a WebSocket key (RFC 6455, 1.3)", answers_websocket_keys);
    test_run("crypto compares", compares);
    test_run("crypto gives random bytes", gives_random_bytes);
    test_run("crypto erases", erases);
    test_run("crypto hashes passwords (PBKDF2-HMAC-SHA-256)", hashes_passwords);
    test_run("crypto derives known keys (RFC 5869)", derives_known_keys);
    test_run("crypto accepts all keys of the ring", accepts_all_keys_of_the_ring);
    test_run("crypto signs a known token", signs_a_known_token);
    test_run("crypto signs whole tokens only", signs_whole_tokens_only);
    test_run("crypto accepts the tokens it signed", accepts_what_it_signed);
    test_run("crypto tells generations apart", tells_generations_apart);
    test_run("crypto knows the very token again", knows_the_very_token_again);
    test_run("crypto forgets tokens for others", forgets_tokens_for_others);
    test_run("crypto ends a token at its time", ends_at_its_time);
    test_run("crypto refuses a token with any byte changed", refuses_changed_tokens);
    test_run("crypto refuses a token of another length", refuses_tokens_of_another_length);
    test_run("crypto refuses tokens of other keys", refuses_other_keys);
    test_run("crypto seals known ids (AES-256-GCM)", seals_known_ids);
    test_run("crypto makes ids that follow from what they seal", ids_follow_from_what_they_seal);
    test_run("crypto opens no id with any byte changed", changed_ids_do_not_open);
    test_run("crypto opens no id of another length", ids_of_another_length_do_not_open);
    test_run("crypto opens no id that is spelt otherwise", ids_have_one_spelling);
    test_run("crypto opens no id of other keys", ids_of_other_keys_do_not_open);
    test_run("crypto proves with the key of peers", proves);
    test_run("crypto has one key for one purpose", keys_differ);
    return test_finish();
}
