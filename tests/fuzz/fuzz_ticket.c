/* fuzz_ticket.c - tickets: what is read keeps to its limits, only what was signed is good, and what
 * is written is read as it was meant. */
#include "ticket.h"

#include "fuzz.h"

#define NOW 1700000000
#define LONGEST 3600
#define VERSION 7

static struct crypto_keyring keys, other_keys;

static const struct ticket_terms terms = {
    .version = VERSION, .since = NOW - 10, .now = NOW, .longest = LONGEST};

static void prepare(void)
{
    static bool done;

    if (done)
        return;
    done = true;
    REQUIRE(crypto_add_key(&keys, STR("0123456789abcdef"), false));
    REQUIRE(crypto_add_key(&other_keys, STR("0123456789abcdeg"), false));
}

/* --- what is read ---------------------------------------------------------------------------- */

static void require_name(struct str name)
{
    REQUIRE(name.length > 0 && name.length <= TICKET_NAME_MAX && utf8_valid(name));
    REQUIRE(!utf8_has_control(name));
}

static void require_claims(const struct ticket_claims *claims)
{
    char room[TICKET_NAME_MAX];
    struct str rest = claims->groups, name;
    size_t count = 0;

    REQUIRE(claims->is_signed && claims->end >= 0);
    require_name(claims->system);
    if (claims->user.length)
        require_name(claims->user);
    REQUIRE(claims->extend.length <= TICKET_EXTEND_MAX && utf8_valid(claims->extend));
    for (; ticket_next_group(&rest, room, &name); count++)
        require_name(name);
    REQUIRE(count <= TICKET_GROUPS_MAX && count == ticket_count_groups(claims->groups));
}

static void require_same(const struct ticket_claims *a, const struct ticket_claims *b)
{
    REQUIRE(str_equal(a->system, b->system) && str_equal(a->user, b->user));
    REQUIRE(str_equal(a->extend, b->extend) && str_equal(a->groups, b->groups));
    REQUIRE(a->end == b->end);
}

/* Claims that were read can be copied, and written, unless they are too long; then they are read
 * again. */
static void try_writing(const struct ticket_claims *claims)
{
    char space[TICKET_ROOM];
    struct buf room = BUF_INIT(space), text = {0}, copied = {0};
    struct ticket_claims copy;
    struct ticket again;

    REQUIRE(ticket_copy_claims(claims, &copied, &copy));
    require_same(claims, &copy);
    if (ticket_write(&text, keys.keys, VERSION, &copy, NOW + 60)) {
        REQUIRE(text.length <= TICKET_MAX && ticket_read(str_of(&text), &room, &again));
        require_same(claims, &again.claims);
        REQUIRE(again.expires == NOW + 60);
        REQUIRE(ticket_check(&again, &keys, &terms) ==
                (claims->end && claims->end <= NOW ? TICKET_EXPIRED : TICKET_OK));
        REQUIRE(ticket_check(&again, &other_keys, &terms) == TICKET_FORGED);
    }
    buf_free(&text);
    buf_free(&copied);
}

/* Reads and judges a text, whose memory has just its size. */
static enum ticket_result judge(struct str text, struct ticket_claims *claims, struct buf *kept)
{
    char space[TICKET_ROOM];
    struct buf room = BUF_INIT(space);
    struct str copy = exact_copy(text);
    struct ticket ticket;
    enum ticket_result result = TICKET_MALFORMED;

    if (ticket_read(copy, &room, &ticket)) {
        REQUIRE(text.length <= TICKET_MAX && is_inside(ticket.text, copy));
        REQUIRE(is_inside(ticket.signature, copy));
        require_claims(&ticket.claims);
        result = ticket_check(&ticket, &keys, &terms);
        if (claims)
            REQUIRE(ticket_copy_claims(&ticket.claims, kept, claims));
    }
    free_copy(copy);
    return result;
}

/* --- what is signed -------------------------------------------------------------------------- */

/* Signs what stands in `text` for this system. */
static void sign(struct buf *text, struct str system)
{
    unsigned char key[CRYPTO_HASH_SIZE], mac[CRYPTO_HASH_SIZE];

    REQUIRE(ticket_derive_key(keys.keys, VERSION, system, key));
    REQUIRE(crypto_hmac(key, str_of(text), mac));
    buf_append(text, STR("."));
    REQUIRE(crypto_base64url(text, CRYPTO_BYTES(mac)));
}

static void try_signed(struct str header, struct str payload)
{
    struct buf text = {0}, kept = {0};
    struct ticket_claims claims = {0};
    enum ticket_result result;

    REQUIRE(crypto_base64url(&text, header));
    buf_append(&text, STR("."));
    REQUIRE(crypto_base64url(&text, payload));
    sign(&text, STR("shop"));
    result = judge(str_of(&text), &claims, &kept);
    if (claims.is_signed)
        try_writing(&claims);
    REQUIRE(result != TICKET_OK || str_equal(claims.system, STR("shop")));
    buf_free(&text);
    buf_free(&kept);
}

/* A ticket that is changed in one byte, or cut, is not good. */
static void require_fragile(struct fuzz *fuzz)
{
    static const struct ticket_claims claims = {
        .system = STR_INIT("shop"), .user = STR_INIT("u"), .groups = STR_INIT("[\"g\"]")};
    struct buf text = {0};
    size_t at;

    REQUIRE(ticket_write(&text, keys.keys, VERSION, &claims, NOW + 60));
    REQUIRE(judge(str_of(&text), NULL, NULL) == TICKET_OK);
    at = (fuzz_byte(fuzz) << 8 | fuzz_byte(fuzz)) % text.length;
    REQUIRE(judge((struct str){text.at, at}, NULL, NULL) != TICKET_OK);
    text.at[at] = (char)(text.at[at] ^ (int)(fuzz_byte(fuzz) % 255 + 1));
    REQUIRE(judge(str_of(&text), NULL, NULL) != TICKET_OK);
    buf_free(&text);
}

/* --- base64url ------------------------------------------------------------------------------- */

static void try_base64url(struct str bytes)
{
    struct buf text = {0}, back = {0};
    struct str copy = exact_copy(bytes);

    REQUIRE(crypto_base64url(&text, copy) && text.length == (bytes.length * 4 + 2) / 3);
    REQUIRE(crypto_read_base64url(str_of(&text), &back) && str_equal(str_of(&back), bytes));
    text.length = back.length = 0;
    if (crypto_read_base64url(copy, &back)) { /* there is one way to write bytes */
        REQUIRE(crypto_base64url(&text, str_of(&back)));
        REQUIRE(str_equal(str_of(&text), bytes));
    }
    free_copy(copy);
    buf_free(&text);
    buf_free(&back);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};

    prepare();
    switch (fuzz_byte(&fuzz) % 5) {
    case 0:
        REQUIRE(judge(fuzz_rest(&fuzz), NULL, NULL) != TICKET_OK);
        break;
    case 1:
        try_signed(STR("{\"alg\":\"HS256\"}"), fuzz_rest(&fuzz));
        break;
    case 2:
        try_signed(fuzz_rest(&fuzz), STR("{\"sys\":\"shop\",\"exp\":1700000060}"));
        break;
    case 3:
        require_fragile(&fuzz);
        break;
    case 4:
        try_base64url(fuzz_rest(&fuzz));
    }
    return 0;
}
