/* json.c - RFC 8259, strictly, in one linear pass without recursion.
 *
 * The parser steps over values: scalars are checked and skipped, containers are entered and left.
 * It needs no stack but one bit per level, whether the container there is an object, which is why
 * depth is limited to 64. Of the outermost object's members, those that the caller wants are noted
 * as views from their first byte to their last; everything else is only checked.
 *
 * A text is checked as UTF-8 first, so strings need no further look at their bytes. Functions that
 * take a json_value rely on its text having passed json_parse_object, and do not check it again. */
#include "json.h"

#include <string.h>

#define ESCAPED_NAME_MAX 64 /* bytes of a wanted name that is written with escapes */

struct json_parser {
    const char *at, *end;
    const char *reason;

    unsigned depth;
    uint64_t is_object; /* bit d - 1: the container at depth d is an object */

    struct json_field *fields;
    size_t field_count;
    struct json_field *field; /* the wanted member whose value is being read, or NULL */
};

static bool json_fail(struct json_parser *p, const char *reason)
{
    p->reason = reason;
    return false;
}

static void json_skip_space(struct json_parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
}

/* The byte here, or 0 at the end: no token begins with 0. */
static char json_peek(const struct json_parser *p)
{
    return p->at < p->end ? *p->at : '\0';
}

/* Steps over the next byte if it is `c`, which is not NUL. */
static bool json_take(struct json_parser *p, char c)
{
    if (json_peek(p) != c)
        return false;
    p->at++;
    return true;
}

static bool json_skip_escape(struct json_parser *p)
{
    size_t digits = 4;
    char c;

    p->at++;
    c = json_peek(p);
    if (!c || !strchr("\"\\/bfnrtu", c))
        return json_fail(p, "unknown escape in a string");
    p->at++;
    for (; c == 'u' && digits > 0; digits--, p->at++)
        if (str_hex_digit(json_peek(p)) < 0)
            return json_fail(p, "\\u needs four hex digits");
    return true;
}

static bool json_skip_string(struct json_parser *p)
{
    p->at++;
    while (p->at < p->end && *p->at != '"') {
        if ((unsigned char)*p->at < 0x20)
            return json_fail(p, "control byte in a string");
        if (*p->at != '\\')
            p->at++;
        else if (!json_skip_escape(p))
            return false;
    }
    return json_take(p, '"') || json_fail(p, "string without an end");
}

static size_t json_skip_digits(struct json_parser *p)
{
    const char *from = p->at;

    while (json_peek(p) >= '0' && json_peek(p) <= '9')
        p->at++;
    return (size_t)(p->at - from);
}

static bool json_skip_number(struct json_parser *p)
{
    bool negative = json_take(p, '-');

    if (!json_take(p, '0') && json_skip_digits(p) == 0)
        return json_fail(p, negative ? "digit expected" : "value expected");
    if (json_take(p, '.') && json_skip_digits(p) == 0)
        return json_fail(p, "digit expected after the point");
    if (json_take(p, 'e') || json_take(p, 'E')) {
        if (!json_take(p, '+'))
            json_take(p, '-');
        if (json_skip_digits(p) == 0)
            return json_fail(p, "digit expected in the exponent");
    }
    return true;
}

static bool json_skip_word(struct json_parser *p, struct str word)
{
    if ((size_t)(p->end - p->at) < word.length || memcmp(p->at, word.at, word.length) != 0)
        return json_fail(p, "value expected");
    p->at += word.length;
    return true;
}

/* The type of a value by its first byte. */
static enum json_type json_type_of(char first)
{
    return first == '{'                   ? JSON_OBJECT
           : first == '['                 ? JSON_ARRAY
           : first == '"'                 ? JSON_STRING
           : first == 't' || first == 'f' ? JSON_BOOLEAN
           : first == 'n'                 ? JSON_NULL
                                          : JSON_NUMBER;
}

static bool json_skip_scalar(struct json_parser *p)
{
    switch (json_type_of(json_peek(p))) {
    case JSON_STRING:
        return json_skip_string(p);
    case JSON_BOOLEAN:
        return json_skip_word(p, *p->at == 't' ? STR("true") : STR("false"));
    case JSON_NULL:
        return json_skip_word(p, STR("null"));
    default:
        return json_skip_number(p);
    }
}

static uint32_t json_read_hex4(const char *at)
{
    uint32_t value = 0;

    for (int i = 0; i < 4; i++)
        value = value << 4 | (uint32_t)str_hex_digit(at[i]);
    return value;
}

static bool json_append_code_point(struct buf *out, uint32_t point)
{
    char bytes[4];
    size_t length = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xc0, 0xe0, 0xf0};

    for (size_t i = length; i-- > 1; point >>= 6)
        bytes[i] = (char)(0x80 | (point & 0x3f));
    bytes[0] = (char)(lead[length] | point);
    return buf_append(out, (struct str){bytes, length});
}

/* Decodes the escape at `at`, of a checked string, and returns its length in bytes. A surrogate
 * without its other half comes out as itself. */
static size_t json_decode_escape(const char *at, const char *end, uint32_t *point)
{
    static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";

    if (at[1] != 'u') {
        *point = (unsigned char)meant[strchr(plain, at[1]) - plain];
        return 2;
    }
    *point = json_read_hex4(at + 2);
    if (*point >= 0xd800 && *point < 0xdc00 && end - at >= 12 && at[6] == '\\' && at[7] == 'u') {
        uint32_t low = json_read_hex4(at + 8);

        if (low >= 0xdc00 && low < 0xe000) {
            *point = 0x10000 + ((*point - 0xd800) << 10) + (low - 0xdc00);
            return 12;
        }
    }
    return 6;
}

/* Appends what the bytes between a string's quotes mean. False for half a surrogate pair. */
static bool json_decode(struct str inner, struct buf *out)
{
    const char *at = inner.at, *end = inner.at + inner.length;

    while (at < end) {
        const char *escape = memchr(at, '\\', (size_t)(end - at));
        uint32_t point;

        if (!escape)
            return buf_append(out, (struct str){at, (size_t)(end - at)});
        if (!buf_append(out, (struct str){at, (size_t)(escape - at)}))
            return false;
        at = escape + json_decode_escape(escape, end, &point);
        if ((point >= 0xd800 && point < 0xe000) || !json_append_code_point(out, point))
            return false;
    }
    return true;
}

/* Finds out whether a key of the outermost object, without its quotes, is wanted. False if it was
 * there before. */
static bool json_note_member(struct json_parser *p, struct str name)
{
    char space[ESCAPED_NAME_MAX];
    struct buf meant = BUF_INIT(space);

    p->field = NULL;
    if (memchr(name.at, '\\', name.length)) {
        if (!json_decode(name, &meant))
            return true; /* longer than any wanted name, or no UTF-8 */
        name = str_of(&meant);
    }
    for (size_t i = 0; i < p->field_count; i++) /* lengths first: 4 % of a unicast's instructions */
        if (p->fields[i].name.length == name.length && str_equal(p->fields[i].name, name))
            p->field = &p->fields[i];
    return !p->field || p->field->value.type == JSON_NONE;
}

/* Reads `"key" :`. */
static bool json_read_key(struct json_parser *p)
{
    const char *from = p->at + 1;

    if (json_peek(p) != '"')
        return json_fail(p, "key expected");
    if (!json_skip_string(p))
        return false;
    if (p->depth == 1 && !json_note_member(p, (struct str){from, (size_t)(p->at - from) - 1})) {
        p->at = from;
        return json_fail(p, "duplicate key");
    }
    json_skip_space(p);
    if (!json_take(p, ':'))
        return json_fail(p, "colon expected");
    json_skip_space(p);
    return true;
}

static bool json_in_object(const struct json_parser *p)
{
    return p->is_object >> (p->depth - 1) & 1;
}

/* Enters an array or object. An empty one is left at once, which sets *whole. */
static bool json_open_container(struct json_parser *p, bool *whole)
{
    bool object = *p->at == '{';
    uint64_t bit;

    if (p->depth == JSON_DEPTH)
        return json_fail(p, "nested too deeply");
    bit = (uint64_t)1 << p->depth++;
    p->is_object = object ? p->is_object | bit : p->is_object & ~bit;
    p->at++;
    json_skip_space(p);
    *whole = json_take(p, object ? '}' : ']');
    p->depth -= *whole;
    return *whole || !object || json_read_key(p);
}

/* Behind a value: leaves the containers that end here. *done if none is left, else the next value
 * follows. */
static bool json_after_value(struct json_parser *p, bool *done)
{
    for (;;) {
        if (p->depth == 1 && p->field) {
            p->field->value.text.length = (size_t)(p->at - p->field->value.text.at);
            p->field = NULL;
        }
        *done = p->depth == 0;
        if (*done)
            return true;
        json_skip_space(p);
        if (json_take(p, ',')) {
            json_skip_space(p);
            return !json_in_object(p) || json_read_key(p);
        }
        if (!json_take(p, json_in_object(p) ? '}' : ']'))
            return json_fail(p, json_in_object(p) ? "comma or } expected" : "comma or ] expected");
        p->depth--;
    }
}

/* Steps over one value with everything in it. */
static bool json_skip_value(struct json_parser *p)
{
    bool done = false;

    while (!done) {
        char first = json_peek(p);
        bool whole = true;

        if (p->depth == 1 && p->field)
            p->field->value = (struct json_value){json_type_of(first), {p->at, 0}};
        if (first == '{' || first == '[' ? !json_open_container(p, &whole) : !json_skip_scalar(p))
            return false;
        if (whole && !json_after_value(p, &done))
            return false;
    }
    return true;
}

static bool json_read_document(struct json_parser *p)
{
    json_skip_space(p);
    if (json_peek(p) != '{')
        return json_fail(p, "a JSON object is expected");
    if (!json_skip_value(p))
        return false;
    json_skip_space(p);
    return p->at == p->end || json_fail(p, "more text after the value");
}

static bool json_fail_utf8(struct json_parser *p)
{
    struct utf8 state = {0};

    while (p->at < p->end && utf8_feed(&state, (struct str){p->at, 1}))
        p->at++;
    return json_fail(p, "not valid UTF-8");
}

bool json_parse_object(struct str text, struct json_field *fields, size_t count,
                       struct json_error *error)
{
    struct json_parser p = {.at = text.at,
                            .end = text.length ? text.at + text.length : text.at,
                            .fields = fields,
                            .field_count = count};

    for (size_t i = 0; i < count; i++)
        fields[i].value = (struct json_value){0};
    if (utf8_valid(text) ? json_read_document(&p) : json_fail_utf8(&p))
        return true;
    *error = (struct json_error){p.reason, (size_t)(p.at - text.at)};
    return false;
}

bool json_next_element(struct str *rest, struct json_value *element)
{
    struct json_parser p = {0};
    const char *from;

    if (rest->length == 0)
        return false;
    p = (struct json_parser){.at = rest->at + 1, /* the bracket, or the comma before this element */
                             .end = rest->at + rest->length};
    json_skip_space(&p);
    from = p.at;
    if (json_take(&p, ']'))
        return false;
    json_skip_value(&p);
    *element = (struct json_value){json_type_of(*from), {from, (size_t)(p.at - from)}};
    json_skip_space(&p);
    *rest = (struct str){p.at, json_peek(&p) == ',' ? (size_t)(p.end - p.at) : 0};
    return true;
}

bool json_decode_string(struct json_value value, struct buf *out)
{
    if (value.type != JSON_STRING)
        return false;
    return json_decode((struct str){value.text.at + 1, value.text.length - 2}, out);
}

bool json_decode_integer(struct json_value value, int64_t *number)
{
    struct str digits = value.text;
    bool negative = digits.length && digits.at[0] == '-';
    uint64_t size;

    if (value.type != JSON_NUMBER)
        return false;
    if (negative)
        digits = str_skip(digits, 1);
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
    size_t from = 0;

    buf_append(out, STR("\""));
    for (size_t i = 0; i < text.length; i++) {
        unsigned char c = (unsigned char)text.at[i];

        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        buf_append(out, (struct str){text.at + from, i - from});
        buf_print(out, c < 0x20 ? "\\u%04x" : "\\%c", c);
        from = i + 1;
    }
    if (from < text.length)
        buf_append(out, str_skip(text, from));
    return buf_append(out, STR("\""));
}
