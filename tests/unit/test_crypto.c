/* test_crypto.c - known answers of everything that has some, and tokens: what was signed is
 * accepted until it expires, and nothing that differs from it in anything. */
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

/* --- keys ------------------------------------------------------------------------------------ */

/* RFC 4231: a key of less than 32 bytes is one that ends in zeros. */
static void authenticates_texts(void)
{
    static const struct {
        unsigned char key[CRYPTO_HASH_SIZE];
        struct str text;
        const char *mac;
    } vectors[] = {
        {"\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b",
         STR_INIT("Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {"Jefe", STR_INIT("what do ya want for nothing?"),
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
    };
    unsigned char wanted[CRYPTO_HASH_SIZE], found[CRYPTO_HASH_SIZE];
    struct crypto_mac mac = {0};

    for (size_t i = 0; i < COUNT(vectors); i++) {
        CHECK(str_read_hex(str_from(vectors[i].mac), wanted, sizeof wanted));
        CHECK(crypto_hmac(vectors[i].key, vectors[i].text, found));
        CHECK(memcmp(found, wanted, sizeof wanted) == 0);
        CHECK(crypto_mac_set_key(&mac, vectors[i].key));
        for (int again = 0; again < 3; again++) {
            memset(found, 0, sizeof found);
            CHECK(crypto_mac_sign(&mac, vectors[i].text, found));
            CHECK(memcmp(found, wanted, sizeof wanted) == 0);
        }
    }
    crypto_mac_free(&mac);
    crypto_mac_free(&mac);
    CHECK(!mac.context);
}

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
    unsigned char first[8], second[8];

    CHECK(crypto_add_key(&keys, STR("0123456789abcdef"), false) && keys.count == 1);
    CHECK(crypto_add_key(&keys, STR("0123456789abcdef"), true) && keys.count == 2);
    CHECK(!crypto_add_key(&keys, STR("0123456789abcdef"), false) && keys.count == 2);
    CHECK(is_key(keys.keys[0].token,
                 "8614418a148d8910907810546ed55527df85ded7e9c1b795186c1781c680d0b0"));
    CHECK(crypto_derive(&keys.keys[0], STR("name"), first, sizeof first));
    CHECK(crypto_derive(&keys.keys[1], STR("name"), second, sizeof second));
    CHECK(is_key(first, "ad69ba226c9db8b8"));
    CHECK(is_key(second, CRYPTO_ITERATIONS == 600000 ? "f290256e8d638788" : "89958f5da8128c08"));
    CHECK(!crypto_derive(&keys.keys[0], STR("more than thirty bytes of label"), first, 8));
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
    test_run("crypto authenticates texts (RFC 4231)", authenticates_texts);
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
    return test_finish();
}
