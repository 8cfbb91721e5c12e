/* json.c - RFC 8259, strictly, in one linear pass without recursion. */
#include "json.h"

#include <stdlib.h>
#include <string.h>

/* A key of an object that is still open. The keys of one object stand together on a stack,
 * because those of the objects inside it have been taken off again. */
struct key {
    uint32_t hash, offset, length; /* offset and length of the text between the quotes */
};

#define KEYS_INLINE 64
#define KEYS_FEW 32 /* up to here each key is compared with each */

struct parser {
    const char *begin, *at, *end;
    const char *reason;
    bool no_memory; /* that is the reason */
    uint32_t seed;

    unsigned depth;
    uint64_t is_object;             /* bit d - 1: the container at depth d is an object */
    uint32_t first_key[JSON_DEPTH]; /* at d - 1: where the keys of the container at depth d begin */

    struct key *keys;
    uint32_t key_count, key_capacity;
    struct key inline_keys[KEYS_INLINE];

    struct json_field *fields;
    size_t field_count;
    struct json_field *field; /* the wanted member whose value is being read, or NULL */
};

static bool fail(struct parser *p, const char *reason)
{
    p->reason = reason;
    return false;
}

static bool fail_memory(struct parser *p)
{
    p->no_memory = true;
    return fail(p, "out of memory");
}

static void skip_space(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
}

/* The byte here, or 0 at the end: no token begins with 0. */
static char peek(const struct parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

static bool skip_escape(struct parser *p)
{
    size_t digits = 4;

    p->at++;
    switch (peek(p)) {
    case '"':
    case '\\':
    case '/':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
        p->at++;
        return true;
    case 'u':
        for (p->at++; digits > 0; digits--, p->at++)
            if (hex_digit(peek(p)) < 0)
                return fail(p, "\\u needs four hex digits");
        return true;
    default:
        return fail(p, "unknown escape in a string");
    }
}

static bool skip_string(struct parser *p)
{
    p->at++;
    while (p->at < p->end) {
        unsigned char c = (unsigned char)*p->at;

        if (c == '"') {
            p->at++;
            return true;
        }
        if (c < 0x20)
            return fail(p, "control byte in a string");
        if (c != '\\')
            p->at++;
        else if (!skip_escape(p))
            return false;
    }
    return fail(p, "string without an end");
}

static size_t skip_digits(struct parser *p)
{
    const char *from = p->at;

    while (peek(p) >= '0' && peek(p) <= '9')
        p->at++;
    return (size_t)(p->at - from);
}

static bool skip_number(struct parser *p)
{
    if (peek(p) == '-')
        p->at++;
    if (peek(p) == '0')
        p->at++;
    else if (skip_digits(p) == 0)
        return fail(p, "digit expected");
    if (peek(p) == '.') {
        p->at++;
        if (skip_digits(p) == 0)
            return fail(p, "digit expected after the point");
    }
    if (peek(p) == 'e' || peek(p) == 'E') {
        p->at++;
        if (peek(p) == '+' || peek(p) == '-')
            p->at++;
        if (skip_digits(p) == 0)
            return fail(p, "digit expected in the exponent");
    }
    return true;
}

static bool skip_word(struct parser *p, struct str word)
{
    if ((size_t)(p->end - p->at) < word.length || memcmp(p->at, word.at, word.length) != 0)
        return fail(p, "value expected");
    p->at += word.length;
    return true;
}

static bool skip_scalar(struct parser *p)
{
    switch (peek(p)) {
    case '"':
        return skip_string(p);
    case 't':
        return skip_word(p, STR("true"));
    case 'f':
        return skip_word(p, STR("false"));
    case 'n':
        return skip_word(p, STR("null"));
    default:
        if (peek(p) == '-' || (peek(p) >= '0' && peek(p) <= '9'))
            return skip_number(p);
        return fail(p, "value expected");
    }
}

static enum json_type type_of(char first)
{
    switch (first) {
    case '{':
        return JSON_OBJECT;
    case '[':
        return JSON_ARRAY;
    case '"':
        return JSON_STRING;
    case 't':
    case 'f':
        return JSON_BOOLEAN;
    case 'n':
        return JSON_NULL;
    default:
        return JSON_NUMBER;
    }
}

static uint32_t read_hex4(const char *at)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++)
        value = value << 4 | (uint32_t)hex_digit(at[i]);
    return value;
}

static bool append_code_point(struct buf *out, uint32_t point)
{
    char bytes[4];
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = length; i-- > 1; point >>= 6)
        bytes[i] = (char)(0x80 | (point & 0x3f));
    bytes[0] = (char)(lead[length] | point);
    return buf_append(out, (struct str){bytes, length});
}

/* Decodes the escape at `at` (of a checked string) and returns how many bytes it takes. A
 * surrogate without its other half comes out as itself. */
static size_t decode_escape(const char *at, const char *end, uint32_t *point)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";

    if (at[1] != 'u') {
        *point = (unsigned char)meant[strchr(plain, at[1]) - plain];
        return 2;
    }
    *point = read_hex4(at + 2);
    if (*point >= 0xd800 && *point < 0xdc00 && end - at >= 12 && at[6] == '\\' && at[7] == 'u') {
        uint32_t low = read_hex4(at + 8);

        if (low >= 0xdc00 && low < 0xe000) {
            *point = 0x10000 + ((*point - 0xd800) << 10) + (low - 0xdc00);
            return 12;
        }
    }
    return 6;
}

/* Appends what the bytes between a string's quotes mean. Half a surrogate pair is refused unless
 * `lenient`; then it is written as three bytes, good for comparing and nothing else. */
static bool decode(struct str inner, bool lenient, struct buf *out)
{
    const char *at = inner.at, *end = inner.at + inner.length;

    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        uint32_t point;

        if (!escape)
            return buf_append(out, (struct str){at, (size_t)(end - at)});
        if (!buf_append(out, (struct str){at, (size_t)(escape - at)}))
            return false;
        at = escape + decode_escape(escape, end, &point);
        if (point >= 0xd800 && point < 0xe000 && !lenient)
            return false;
        if (!append_code_point(out, point))
            return false;
    }
    return true;
}

/* A key's text as it is meant: the view itself, or, if it has escapes, decoded into `room`. */
static struct str key_meaning(const struct parser *p, const struct key *key, struct buf *room)
{
    struct str inner = {p->begin + key->offset, key->length};

    if (inner.length == 0 || !memchr(inner.at, '\\', inner.length))
        return inner;
    decode(inner, true, room);
    return str_of(room);
}

static bool same_key(struct parser *p, const struct key *a, const struct key *b)
{
    struct buf room_a = {0}, room_b = {0};
    bool same;

    if (a->hash != b->hash)
        return false;
    same = str_equal(key_meaning(p, a, &room_a), key_meaning(p, b, &room_b));
    same = same || room_a.failed || room_b.failed; /* without memory rather refuse than miss one */
    buf_free(&room_a);
    buf_free(&room_b);
    return same;
}

static bool unique_among_few(struct parser *p, const struct key *keys, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t j = 0; j < i; j++)
            if (same_key(p, &keys[i], &keys[j])) {
                p->at = p->begin + keys[i].offset;
                return fail(p, "duplicate key");
            }
    return true;
}

/* A table of places, with linear probing: comparing each with each would be quadratic. */
static bool unique_among_many(struct parser *p, const struct key *keys, size_t count)
{
    size_t size = 2 * KEYS_FEW;
    uint32_t *places;

    while (size < 2 * count)
        size *= 2;
    places = calloc(size, sizeof *places);
    if (!places)
        return fail_memory(p);
    for (size_t i = 0; i < count; i++) {
        /* neighbouring hashes must not become neighbouring places: probing would crawl over runs */
        size_t at = (size_t)((keys[i].hash * 0x9e3779b97f4a7c15u) >> 32) & (size - 1);

        for (; places[at]; at = (at + 1) & (size - 1))
            if (same_key(p, &keys[i], &keys[places[at] - 1])) {
                p->at = p->begin + keys[i].offset;
                free(places);
                return fail(p, "duplicate key");
            }
        places[at] = (uint32_t)i + 1;
    }
    free(places);
    return true;
}

static bool push_key(struct parser *p, struct key key)
{
    if (p->key_count == p->key_capacity) {
        bool first = p->keys == p->inline_keys;
        uint32_t capacity = p->key_capacity * 2;
        struct key *keys = realloc(first ? NULL : p->keys, capacity * sizeof *keys);

        if (!keys)
            return fail_memory(p);
        if (first)
            memcpy(keys, p->inline_keys, sizeof p->inline_keys);
        p->keys = keys;
        p->key_capacity = capacity;
    }
    p->keys[p->key_count++] = key;
    return true;
}

static void note_member(struct parser *p, struct str name)
{
    p->field = NULL;
    for (size_t i = 0; i < p->field_count; i++)
        if (str_equal(p->fields[i].name, name))
            p->field = &p->fields[i];
}

/* Reads `"key" :`. */
static bool read_key(struct parser *p)
{
    struct key key = {.offset = (uint32_t)(p->at - p->begin) + 1};
    struct buf room = {0};
    struct str name;
    bool failed;

    if (peek(p) != '"')
        return fail(p, "key expected");
    if (!skip_string(p))
        return false;
    key.length = (uint32_t)(p->at - p->begin) - 1 - key.offset;
    name = key_meaning(p, &key, &room);
    key.hash = str_hash(name, p->seed);
    if (p->depth == 1)
        note_member(p, name);
    failed = room.failed;
    buf_free(&room);
    if (failed)
        return fail_memory(p);
    skip_space(p);
    if (peek(p) != ':')
        return fail(p, "colon expected");
    p->at++;
    skip_space(p);
    return push_key(p, key);
}

/* Enters an array or object; *empty if it ends at once and has been left again. */
static bool open_container(struct parser *p, bool *empty)
{
    bool object = *p->at == '{';
    uint64_t bit;

    if (p->depth == JSON_DEPTH)
        return fail(p, "nested too deeply");
    bit = (uint64_t)1 << p->depth;
    p->is_object = object ? p->is_object | bit : p->is_object & ~bit;
    p->first_key[p->depth++] = p->key_count;
    p->at++;
    skip_space(p);
    *empty = peek(p) == (object ? '}' : ']');
    if (*empty) {
        p->at++;
        p->depth--;
        return true;
    }
    return !object || read_key(p);
}

static bool in_object(const struct parser *p)
{
    return p->is_object >> (p->depth - 1) & 1;
}

static bool close_container(struct parser *p)
{
    uint32_t first = p->first_key[p->depth - 1];
    uint32_t count = p->key_count - first;
    const char *behind = p->at + 1;

    if (!(count <= KEYS_FEW ? unique_among_few(p, p->keys + first, count)
                            : unique_among_many(p, p->keys + first, count)))
        return false;
    p->key_count = first;
    p->at = behind;
    p->depth--;
    return true;
}

/* Behind a value: leaves the containers that end here, up to a comma or to the end of all. */
static bool after_value(struct parser *p, bool *done)
{
    for (;;) {
        if (p->depth == 1 && p->field)
            p->field->value.text.length = (size_t)(p->at - p->field->value.text.at);
        if (p->depth == 1)
            p->field = NULL;
        skip_space(p);
        *done = p->depth == 0;
        if (*done)
            return p->at == p->end || fail(p, "more text after the value");
        if (peek(p) == ',') {
            p->at++;
            skip_space(p);
            return !in_object(p) || read_key(p);
        }
        if (peek(p) != (in_object(p) ? '}' : ']'))
            return fail(p, in_object(p) ? "comma or } expected" : "comma or ] expected");
        if (!close_container(p))
            return false;
    }
}

static bool read_document(struct parser *p)
{
    bool done = false;

    skip_space(p);
    if (peek(p) != '{')
        return fail(p, "a JSON object is expected");
    while (!done) {
        bool whole = true;

        if (p->depth == 1 && p->field)
            p->field->value = (struct json_value){type_of(peek(p)), {p->at, 0}};
        if (peek(p) == '{' || peek(p) == '[') {
            if (!open_container(p, &whole))
                return false;
        } else if (!skip_scalar(p)) {
            return false;
        }
        if (whole && !after_value(p, &done))
            return false;
    }
    return true;
}

static bool fail_utf8(struct parser *p)
{
    struct utf8 state = {0};

    while (p->at < p->end && utf8_feed(&state, (struct str){p->at, 1}))
        p->at++;
    return fail(p, "not valid UTF-8");
}

bool json_parse_object(struct str text, struct json_field *fields, size_t count, uint32_t seed,
                       struct json_error *error)
{
    struct parser p = {.begin = text.at,
                       .at = text.at,
                       .end = text.length ? text.at + text.length : text.at,
                       .seed = seed,
                       .key_capacity = KEYS_INLINE,
                       .fields = fields,
                       .field_count = count};
    bool good;

    p.keys = p.inline_keys;
    for (size_t i = 0; i < count; i++)
        fields[i].value = (struct json_value){0};
    if (text.length >= UINT32_MAX)
        good = fail(&p, "text too long");
    else if (!utf8_valid(text))
        good = fail_utf8(&p);
    else
        good = read_document(&p);
    if (!good)
        *error = (struct json_error){p.reason, (size_t)(p.at - p.begin), p.no_memory};
    if (p.keys != p.inline_keys)
        free(p.keys);
    return good;
}

/* Moves over one value of a text that is known to be good. */
static void skip_checked(struct parser *p)
{
    unsigned depth = 0;

    do {
        char c = *p->at;

        if (c == '"') {
            skip_string(p);
        } else {
            depth += c == '{' || c == '[';
            depth -= c == '}' || c == ']';
            p->at++;
        }
    } while (depth > 0);
    while (p->at < p->end && !strchr(",]} \t\r\n", *p->at))
        p->at++;
}

bool json_next_element(struct str *rest, struct json_value *element)
{
    struct parser p = {.begin = rest->at, .at = rest->at};
    const char *from;

    if (rest->length == 0)
        return false;
    p.end = rest->at + rest->length;
    p.at++; /* the bracket, or the comma before this element */
    skip_space(&p);
    if (peek(&p) == ']') {
        *rest = (struct str){0};
        return false;
    }
    from = p.at;
    skip_checked(&p);
    *element = (struct json_value){type_of(*from), {from, (size_t)(p.at - from)}};
    skip_space(&p);
    *rest = (struct str){p.at, peek(&p) == ',' ? (size_t)(p.end - p.at) : 0};
    return true;
}

bool json_decode_string(struct json_value value, struct buf *out)
{
    if (value.type != JSON_STRING)
        return false;
    return decode((struct str){value.text.at + 1, value.text.length - 2}, false, out);
}

bool json_decode_integer(struct json_value value, int64_t *number)
{
    struct str digits = value.text;
    bool negative = digits.length && digits.at[0] == '-';
    uint64_t size;

    if (value.type != JSON_NUMBER)
        return false;
    if (negative)
        digits = (struct str){digits.at + 1, digits.length - 1};
    if (!str_number(digits, (uint64_t)INT64_MAX + negative, &size))
        return false;
    *number = negative ? (size ? -1 - (int64_t)(size - 1) : 0) : (int64_t)size;
    return true;
}

bool json_is_true(struct json_value value)
{
    return value.type == JSON_BOOLEAN && value.text.at[0] == 't';
}

bool json_append_quoted(struct buf *out, struct str text)
{
    static const char hex[] = "0123456789abcdef";
    size_t from = 0;

    buf_append(out, STR("\""));
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];
        char escaped[] = {'\\', 'u', '0', '0', hex[c >> 4], hex[c & 15]};

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_append(out, (struct str){text.at + from, i - from});
        if (c < 0x20)
            buf_append(out, (struct str){escaped, sizeof escaped});
        else
            buf_append(out, c == '"' ? STR("\\\"") : STR("\\\\"));
        from = i + 1;
    }
    if (from < text.length)
        buf_append(out, (struct str){text.at + from, text.length - from});
    return buf_append(out, STR("\""));
}
