/* json.c - RFC 8259, strictly, in one linear pass without recursion. */
#include "json.h"

#include <string.h>

#define ESCAPED_NAME_MAX 64 /* bytes of a wanted name that is written with escapes */

struct parser {
    const char *begin, *at, *end;
    const char *reason;

    unsigned depth;
    uint64_t is_object; /* bit d - 1: the container at depth d is an object */

    struct json_field *fields;
    size_t field_count;
    struct json_field *field; /* the wanted member whose value is being read, or NULL */
};

static bool fail(struct parser *p, const char *reason)
{
    p->reason = reason;
    return false;
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

/* Appends what the bytes between a string's quotes mean. False for half a surrogate pair. */
static bool decode(struct str inner, struct buf *out)
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
        if ((point >= 0xd800 && point < 0xe000) || !append_code_point(out, point))
            return false;
    }
    return true;
}

/* A key of the outermost object, without its quotes: finds out whether it is wanted. False if it
 * has been there before. */
static bool note_member(struct parser *p, struct str name)
{
    char room[ESCAPED_NAME_MAX];
    struct buf meant = {.at = room, .capacity = sizeof room, .limit = sizeof room};

    p->field = NULL;
    if (memchr(name.at, '\\', name.length)) {
        if (!decode(name, &meant))
            return true; /* no name that is wanted */
        name = str_of(&meant);
    }
    for (size_t i = 0; i < p->field_count; i++)
        if (str_equal(p->fields[i].name, name))
            p->field = &p->fields[i];
    return !p->field || p->field->value.type == JSON_NONE;
}

/* Reads `"key" :`. */
static bool read_key(struct parser *p)
{
    const char *from = p->at + 1;

    if (peek(p) != '"')
        return fail(p, "key expected");
    if (!skip_string(p))
        return false;
    if (p->depth == 1 && !note_member(p, (struct str){from, (size_t)(p->at - from) - 1})) {
        p->at = from;
        return fail(p, "duplicate key");
    }
    skip_space(p);
    if (peek(p) != ':')
        return fail(p, "colon expected");
    p->at++;
    skip_space(p);
    return true;
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
    p->depth++;
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
        p->at++;
        p->depth--;
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

bool json_parse_object(struct str text, struct json_field *fields, size_t count,
                       struct json_error *error)
{
    struct parser p = {.begin = text.at,
                       .at = text.at,
                       .end = text.length ? text.at + text.length : text.at,
                       .fields = fields,
                       .field_count = count};
    bool good;

    for (size_t i = 0; i < count; i++)
        fields[i].value = (struct json_value){0};
    good = utf8_valid(text) ? read_document(&p) : fail_utf8(&p);
    if (!good)
        *error = (struct json_error){p.reason, (size_t)(p.at - p.begin)};
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
    return decode((struct str){value.text.at + 1, value.text.length - 2}, out);
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
