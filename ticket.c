/* ticket.c - reads, judges and writes tickets.
 *
 * Reading is cheap and comes first: length, header, claims, each against its limit. A ticket that
 * fails there costs no hash. Judging needs the version of the system's key, which the caller finds
 * by the claim `sys`; until the signature is known to be good, nothing that was read is believed.
 * Then comes the time. So "expired" is told only to who had a good ticket once.
 *
 * Key: HMAC-SHA-256, under a key that crypto derives of crypto_key for tickets alone, of the
 * version (8 bytes, big-endian) and the systemId. While a crypto_key is changed there are two.
 * A signature is compared as text, in constant time: base64url that is not in its one spelling
 * never matches. Threads: any. */
#include "ticket.h"

#include <inttypes.h>
#include <string.h>

/* {"alg":"HS256","typ":"JWT"} */
#define TICKET_HEADER "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"
#define TICKET_SIGNATURE_ROOM 48 /* 32 bytes in base64, and what its encoder needs behind it */

/* --- claims ---------------------------------------------------------------------------------- */

enum ticket_claim { CLAIM_SYS, CLAIM_EXP, CLAIM_SUB, CLAIM_EXT, CLAIM_GRP, CLAIM_END, CLAIM_COUNT };

static bool ticket_is_name(struct str text)
{
    return text.length && text.length <= TICKET_NAME_MAX && !utf8_has_control(text);
}

static bool ticket_take_text(struct json_value value, struct buf *room, struct str *text)
{
    size_t begin = room->length;

    if (!json_decode_string(value, room))
        return false;
    *text = str_skip(str_of(room), begin);
    return true;
}

/* A NumericDate may have a fraction, which is cut off. */
static bool ticket_take_time(struct json_value value, int64_t *time)
{
    struct str fraction = value.text;
    uint64_t ignored;

    value.text = str_cut(&fraction, '.');
    return json_decode_integer(value, time) &&
           (!fraction.at || str_number(fraction, UINT64_MAX, &ignored));
}

bool ticket_next_group(struct str *rest, char room[TICKET_NAME_MAX], struct str *name)
{
    struct buf decoded = {.at = room, .capacity = TICKET_NAME_MAX, .limit = TICKET_NAME_MAX};
    struct json_value value;

    if (!json_next_element(rest, &value))
        return false;
    *name = json_decode_string(value, &decoded) ? str_of(&decoded) : (struct str){0};
    return true;
}

size_t ticket_count_groups(struct str groups)
{
    struct json_value value;
    size_t count = 0;

    while (json_next_element(&groups, &value))
        count++;
    return count;
}

bool ticket_check_groups(struct json_value groups)
{
    char room[TICKET_NAME_MAX];
    struct str name = {0};
    bool good = groups.type == JSON_ARRAY && ticket_count_groups(groups.text) <= TICKET_GROUPS_MAX;

    while (good && ticket_next_group(&groups.text, room, &name))
        good = ticket_is_name(name);
    return good;
}

static bool ticket_take_claims(const struct json_field *fields, struct buf *room,
                               struct ticket *ticket)
{
    struct ticket_claims *claims = &ticket->claims;
    struct json_value sub = fields[CLAIM_SUB].value, ext = fields[CLAIM_EXT].value;
    struct json_value grp = fields[CLAIM_GRP].value, end = fields[CLAIM_END].value;

    claims->is_signed = true;
    claims->groups = grp.text;
    return ticket_take_text(fields[CLAIM_SYS].value, room, &claims->system) &&
           ticket_is_name(claims->system) &&
           ticket_take_time(fields[CLAIM_EXP].value, &ticket->expires) &&
           (!sub.type ||
            (ticket_take_text(sub, room, &claims->user) && ticket_is_name(claims->user))) &&
           (!ext.type || (ticket_take_text(ext, room, &claims->extend) &&
                          claims->extend.length <= TICKET_EXTEND_MAX)) &&
           (!grp.type || ticket_check_groups(grp)) &&
           (!end.type || (ticket_take_time(end, &claims->end) && claims->end > 0));
}

static struct str ticket_copy_text(struct buf *room, struct str text)
{
    size_t begin = room->length;

    buf_append(room, text);
    return str_skip(str_of(room), begin);
}

bool ticket_copy_claims(const struct ticket_claims *claims, struct buf *room,
                        struct ticket_claims *copy)
{
    *copy = *claims;
    if (!buf_reserve(room, claims->system.length + claims->user.length + claims->extend.length +
                               claims->groups.length + claims->key.length))
        return false;
    copy->system = ticket_copy_text(room, claims->system);
    copy->user = ticket_copy_text(room, claims->user);
    copy->extend = ticket_copy_text(room, claims->extend);
    copy->groups = ticket_copy_text(room, claims->groups);
    copy->key = ticket_copy_text(room, claims->key);
    return true;
}

/* --- reading --------------------------------------------------------------------------------- */

/* Decodes a part of a ticket, which must be a JSON object. */
static bool ticket_read_part(struct str part, struct buf *room, struct json_field *fields,
                             size_t count)
{
    size_t begin = room->length;
    struct json_error error;

    return crypto_read_base64url(part, room) &&
           json_parse_object(str_skip(str_of(room), begin), fields, count, &error);
}

/* True for a header that names HS256 and no extension that must be understood. A field that stands
 * twice is rejected, for two readers could take one each. */
static bool ticket_read_header(struct str part, struct buf *room)
{
    struct json_field fields[] = {{.name = STR_INIT("alg")}, {.name = STR_INIT("crit")}};
    struct str algorithm;

    if (str_equal(part, STR(TICKET_HEADER))) /* most libraries write this one; 0.3 µs */
        return true;
    return ticket_read_part(part, room, fields, 2) && fields[1].value.type == JSON_NONE &&
           ticket_take_text(fields[0].value, room, &algorithm) &&
           str_equal(algorithm, STR("HS256"));
}

bool ticket_read(struct str text, struct buf *room, struct ticket *ticket)
{
    struct json_field fields[CLAIM_COUNT] = {
        [CLAIM_SYS] = {.name = STR_INIT("sys")}, [CLAIM_EXP] = {.name = STR_INIT("exp")},
        [CLAIM_SUB] = {.name = STR_INIT("sub")}, [CLAIM_EXT] = {.name = STR_INIT("ext")},
        [CLAIM_GRP] = {.name = STR_INIT("grp")}, [CLAIM_END] = {.name = STR_INIT("end")}};
    struct str rest = text, header = str_cut(&rest, '.'), payload = str_cut(&rest, '.');

    *ticket = (struct ticket){.signature = rest};
    if (text.length > TICKET_MAX || !rest.at || !ticket_read_header(header, room) ||
        !ticket_read_part(payload, room, fields, CLAIM_COUNT))
        return false;
    ticket->text = (struct str){text.at, header.length + 1 + payload.length};
    return ticket_take_claims(fields, room, ticket);
}

/* --- signatures ------------------------------------------------------------------------------ */

bool ticket_derive_key(const struct crypto_keys *keys, uint64_t version, struct str system,
                       unsigned char key[CRYPTO_HASH_SIZE])
{
    char space[8 + TICKET_NAME_MAX];
    struct buf text = BUF_INIT(space);

    bytes_put_be(space, 8, version);
    text.length = 8;
    return buf_append(&text, system) && crypto_hmac(keys->ticket, str_of(&text), key);
}

/* The same, if it is not the key of the last ticket anyway. */
static bool ticket_find_key(const struct crypto_keys *keys, uint64_t version, struct str system,
                            struct ticket_key *last)
{
    unsigned char key[CRYPTO_HASH_SIZE];
    bool good;

    if (last->version == version && str_equal((struct str){last->system, last->length}, system))
        return true;
    last->length = 0;
    good = ticket_derive_key(keys, version, system, key) && crypto_mac_set_key(&last->mac, key);
    crypto_erase(key, sizeof key);
    if (!good)
        return false;
    memcpy(last->system, system.at, system.length);
    last->length = system.length;
    last->version = version;
    return true;
}

/* Appends the signature of a text. */
static bool ticket_sign(const struct crypto_keys *keys, uint64_t version, struct str system,
                        struct str text, struct ticket_key *last, struct buf *out)
{
    struct ticket_key own = {.length = 0}, *key = last ? last : &own;
    unsigned char mac[CRYPTO_HASH_SIZE];
    bool good =
        ticket_find_key(keys, version, system, key) && crypto_mac_sign(&key->mac, text, mac);

    crypto_mac_free(&own.mac);
    return good && crypto_base64url(out, CRYPTO_BYTES(mac));
}

/* With `last`, that is the key under the first crypto_key. */
static bool ticket_is_signed(const struct ticket *ticket, const struct crypto_keyring *keys,
                             uint64_t version, struct ticket_key *last)
{
    bool good = false;

    for (size_t i = 0; i < keys->count && !good; i++) {
        char space[TICKET_SIGNATURE_ROOM];
        struct buf expected = BUF_INIT(space);

        good = ticket_sign(&keys->keys[i], version, ticket->claims.system, ticket->text,
                           i ? NULL : last, &expected) &&
               crypto_equal(str_of(&expected), ticket->signature);
    }
    return good;
}

enum ticket_result ticket_check(const struct ticket *ticket, const struct crypto_keyring *keys,
                                const struct ticket_terms *terms)
{
    bool is_recent = terms->now < terms->since + terms->longest;
    int64_t end = ticket->claims.end;

    if (ticket->expires > terms->now + terms->longest + TICKET_SKEW)
        return TICKET_MALFORMED;
    if (!ticket_is_signed(ticket, keys, terms->version, terms->last) &&
        !(is_recent && ticket_is_signed(ticket, keys, terms->version - 1, NULL)))
        return TICKET_FORGED;
    if (ticket->expires <= terms->now - TICKET_SKEW || (end && end <= terms->now))
        return TICKET_EXPIRED;
    return TICKET_OK;
}

/* --- writing --------------------------------------------------------------------------------- */

/* Appends a claim that is a text, unless that is empty. */
static void ticket_write_text(struct buf *out, struct str name, struct str text)
{
    if (!text.length)
        return;
    buf_append(out, name);
    json_append_quoted(out, text);
}

static void ticket_write_payload(struct buf *out, const struct ticket_claims *claims,
                                 int64_t expires)
{
    ticket_write_text(out, STR("{\"sys\":"), claims->system);
    buf_print(out, ",\"exp\":%" PRId64, expires);
    ticket_write_text(out, STR(",\"sub\":"), claims->user);
    ticket_write_text(out, STR(",\"ext\":"), claims->extend);
    buf_append(out, claims->groups.length ? STR(",\"grp\":") : STR(""));
    buf_append(out, claims->groups);
    if (claims->end)
        buf_print(out, ",\"end\":%" PRId64, claims->end);
    buf_append(out, STR("}"));
}

bool ticket_write(struct buf *out, const struct crypto_keys *keys, uint64_t version,
                  const struct ticket_claims *claims, int64_t expires)
{
    char space[TICKET_MAX], signature[TICKET_SIGNATURE_ROOM];
    struct buf payload = BUF_INIT(space), signed_by = BUF_INIT(signature);
    size_t begin = out->length;

    ticket_write_payload(&payload, claims, expires);
    buf_append(out, STR(TICKET_HEADER "."));
    if (payload.failed || !crypto_base64url(out, str_of(&payload)) ||
        !ticket_sign(keys, version, claims->system, str_skip(str_of(out), begin), NULL, &signed_by))
        return false;
    buf_append(out, STR("."));
    return buf_append(out, str_of(&signed_by)) && out->length - begin <= TICKET_MAX;
}
