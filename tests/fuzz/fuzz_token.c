/* fuzz_token.c - tokens, client ids and the names of nodes: whatever is opened is exactly what was
 * sealed, and nothing else opens. */
#include "cluster_crypto.h"
#include "cluster_wire.h"

#include "fuzz.h"

#define NOW 1700000000

static struct crypto_keyring keys, other_keys;
static struct crypto_known known, other_known;

static void prepare(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    REQUIRE(crypto_add_key(&keys, STR("0123456789abcdef"), false));
    REQUIRE(crypto_add_key(&other_keys, STR("0123456789abcdeg"), false));
    REQUIRE(cluster_crypto_derive(&keys) && cluster_crypto_derive(&other_keys));
}

/* --- tokens ---------------------------------------------------------------------------------- */

/* What was accepted is what would be written for this system and this time. */
static void require_canonical(struct str token, struct str system, uint64_t generation)
{
    struct buf again = {0};
    unsigned char time[8];
    uint64_t expires = 0;

    REQUIRE(str_read_hex((struct str){token.at, 16}, time, sizeof time));
    for (int i = 0; i < 8; i++)
        expires = expires << 8 | time[i];
    REQUIRE(expires > NOW && expires <= INT64_MAX);
    REQUIRE(crypto_sign_token(keys.keys, system, generation, (int64_t)expires, &again));
    REQUIRE(str_equal(str_of(&again), token));
    buf_free(&again);
}

static void try_token(struct str text)
{
    char room[16];
    uint64_t generation;
    struct buf system = {0};
    struct buf little = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    struct str token = exact_copy(text);
    bool good = crypto_check_token(&keys, &known, token, NOW, &system, &generation);

    if (good)
        require_canonical(token, str_of(&system), generation);
    REQUIRE(good || system.length == 0);
    REQUIRE(crypto_check_token(&keys, &known, token, NOW, &little, &generation) ==
            (good && system.length <= sizeof room));
    REQUIRE(!crypto_check_token(&keys, &known, token, -1, &system, &generation));
    REQUIRE(!crypto_check_token(&other_keys, &other_known, token, NOW, &system, &generation));
    buf_free(&system);
    free_copy(token);
}

/* A token that is changed in one byte, or cut, is none. */
static void require_fragile(struct str token, struct fuzz *fuzz)
{
    size_t at = (fuzz_byte(fuzz) << 8 | fuzz_byte(fuzz)) % token.length;
    char *changed = exact_bytes(token);
    struct str cut;
    struct buf system = {0};
    uint64_t generation;

    changed[at] = (char)(changed[at] ^ (int)(fuzz_byte(fuzz) % 255 + 1));
    REQUIRE(!crypto_check_token(&keys, &known, (struct str){changed, token.length}, NOW, &system,
                                &generation));
    cut = exact_copy((struct str){token.at, at});
    REQUIRE(!crypto_check_token(&keys, &known, cut, NOW, &system, &generation));
    free_copy(cut);
    free(changed);
    buf_free(&system);
}

static void try_signing(struct fuzz *fuzz)
{
    int64_t expires = (int64_t)NOW - 100 + fuzz_byte(fuzz);
    uint64_t right = fuzz_byte(fuzz) * 0x0101010101010101u, generation = 0;
    struct fuzz last = *fuzz;
    struct str system = fuzz_take(fuzz, 1 + fuzz_byte(fuzz) % 128);
    struct buf token = {0}, name = {0};

    if (system.length) {
        REQUIRE(crypto_sign_token(keys.keys, system, right, expires, &token));
        REQUIRE(crypto_check_token(&keys, &known, str_of(&token), NOW, &name, &generation) ==
                (expires > NOW));
        REQUIRE(expires <= NOW || (str_equal(str_of(&name), system) && generation == right));
        require_fragile(str_of(&token), &last);
    }
    buf_free(&token);
    buf_free(&name);
}

/* --- client ids ------------------------------------------------------------------------------ */

static void require_same_id(const unsigned char plain[CLUSTER_ID_SIZE], struct str text)
{
    char again[HUB_ID_TEXT];

    REQUIRE(cluster_crypto_seal_id(keys.keys, plain, again));
    REQUIRE(str_equal((struct str){again, sizeof again}, text));
}

/* Any JSON string, as a request has it. */
static void try_id_of_request(struct str text)
{
    struct json_field field = {.name = STR_INIT("a")};
    struct json_error error;
    struct node_tag owner;
    uint64_t number;
    struct buf json = {0};

    buf_append(&json, STR("{\"a\":"));
    buf_append(&json, text);
    buf_append(&json, STR("}"));
    if (json_parse_object(str_of(&json), &field, 1, &error))
        wire_open_client(&keys, field.value, &owner, &number);
    buf_free(&json);
}

static void try_id(struct str text)
{
    unsigned char plain[CLUSTER_ID_SIZE];
    struct str id = exact_copy(text);

    if (cluster_crypto_open_id(keys.keys, id, plain))
        require_same_id(plain, id);
    REQUIRE(!cluster_crypto_open_id(other_keys.keys, id, plain));
    try_id_of_request(text);
    free_copy(id);
}

static void try_sealing(struct fuzz *fuzz)
{
    unsigned char plain[CLUSTER_ID_SIZE] = {1}, opened[CLUSTER_ID_SIZE];
    unsigned at = fuzz_byte(fuzz) % HUB_ID_TEXT, change = fuzz_byte(fuzz) % 255 + 1;
    struct str bytes = fuzz_take(fuzz, sizeof plain);
    struct json_value json = {JSON_STRING, {0}};
    char text[HUB_ID_TEXT + 2] = "\"";
    struct node_tag owner;
    uint64_t number = 0;

    if (bytes.length)
        memcpy(plain, bytes.at, bytes.length);
    REQUIRE(cluster_crypto_seal_id(keys.keys, plain, text + 1));
    REQUIRE(cluster_crypto_open_id(keys.keys, (struct str){text + 1, HUB_ID_TEXT}, opened));
    REQUIRE(memcmp(plain, opened, sizeof plain) == 0);
    text[HUB_ID_TEXT + 1] = '"';
    json.text = (struct str){text, sizeof text};
    REQUIRE(wire_open_client(&keys, json, &owner, &number));
    REQUIRE(memcmp(owner.bytes, plain, 7) == 0 && (number & 0xff) == plain[22]);
    REQUIRE(!wire_open_client(&other_keys, json, &owner, &number));
    REQUIRE(!cluster_crypto_open_id(keys.keys, (struct str){text + 1, HUB_ID_TEXT - 1}, opened));
    text[HUB_ID_TEXT + 1] = text[1];
    REQUIRE(!cluster_crypto_open_id(keys.keys, (struct str){text + 1, HUB_ID_TEXT + 1}, opened));
    text[1 + at] = (char)(text[1 + at] ^ (int)change);
    REQUIRE(!cluster_crypto_open_id(keys.keys, (struct str){text + 1, HUB_ID_TEXT}, opened));
}

/* --- names of nodes, digits ------------------------------------------------------------------ */

static void try_node(struct str text)
{
    struct node_id node = {.incarnation = 0}, again = {.incarnation = 0};
    char written[NODE_TEXT_MAX];
    struct str copy = exact_copy(text), host;
    unsigned port;

    if (node_read(copy, &node)) {
        size_t length = node_write(&node, written);

        REQUIRE(length < sizeof written && str_equal((struct str){written, length}, text));
        REQUIRE(node_split_name(&node, &host, &port) && node_set_name(&again, host, port));
        again.incarnation = node.incarnation;
        REQUIRE(node_equal(&node, &again) && node_equal_name(&node, &again));
    }
    free_copy(copy);
}

static void try_digits(struct str bytes)
{
    struct buf digits = {0}, base64 = {0};
    char *again = exact_bytes(bytes);
    struct str copy = exact_copy(bytes);

    REQUIRE(buf_append_hex(&digits, copy) && digits.length == 2 * bytes.length);
    if (bytes.length)
        memset(again, 0, bytes.length);
    REQUIRE(str_read_hex(str_of(&digits), again, bytes.length));
    REQUIRE(str_equal((struct str){again, bytes.length}, bytes));
    REQUIRE(crypto_base64(&base64, copy) && base64.length == (bytes.length + 2) / 3 * 4);
    if (str_read_hex(copy, again, bytes.length / 2)) { /* there is one way to write digits */
        digits.length = 0;
        REQUIRE(buf_append_hex(&digits, (struct str){again, bytes.length / 2}));
        REQUIRE(str_equal(str_of(&digits), bytes));
    }
    buf_free(&digits);
    buf_free(&base64);
    free(again);
    free_copy(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};

    prepare();
    switch (fuzz_byte(&fuzz) % 6) {
    case 0:
        try_token(fuzz_rest(&fuzz));
        break;
    case 1:
        try_signing(&fuzz);
        break;
    case 2:
        try_id(fuzz_rest(&fuzz));
        break;
    case 3:
        try_sealing(&fuzz);
        break;
    case 4:
        try_node(fuzz_rest(&fuzz));
        break;
    case 5:
        try_digits(fuzz_rest(&fuzz));
    }
    return 0;
}
