/* fuzz_json.c - json.c against a second reading of RFC 8259 that is slow and plain: both accept the
 * same texts. Views lie in the text, elements and strings mean the same when written again. */
#include "json.h"

#include "fuzz.h"

/* --- a second opinion ------------------------------------------------------------------------ */

/* What is wanted of the outermost object, as code points. */
#define WANTED 4
static const struct {
    uint32_t points[4];
    size_t count;
} wanted[WANTED] = {{{'a'}, 1}, {{'d', 'a', 't', 'a'}, 4}, {{0xe9}, 1}, {{0}, 0}};

struct plain {
    const unsigned char *at, *end;
    char stack[JSON_DEPTH];
    unsigned depth;
    bool once;         /* what is wanted must not be there twice */
    bool seen[WANTED]; /* it is there */
};

/* Reads one character of UTF-8; false if it is none. */
static bool plain_character(struct plain *plain, uint32_t *point)
{
    unsigned lead = *plain->at++;
    unsigned more = lead < 0x80 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};

    if ((lead >= 0x80 && lead < 0xc0) || lead >= 0xf8)
        return false;
    *point = more == 0 ? lead : lead & (0x3fu >> more);
    for (unsigned i = 0; i < more; i++) {
        if (plain->at == plain->end || (*plain->at & 0xc0) != 0x80)
            return false;
        *point = *point << 6 | (*plain->at++ & 0x3f);
    }
    return *point >= least[more] && *point <= 0x10ffff && (*point < 0xd800 || *point > 0xdfff);
}

static bool plain_is_text(struct str text)
{
    struct plain plain = {.at = (const unsigned char *)text.at};
    uint32_t point;

    plain.end = plain.at + text.length;
    while (plain.at < plain.end)
        if (!plain_character(&plain, &point))
            return false;
    return true;
}

static unsigned plain_peek(const struct plain *plain)
{
    return plain->at < plain->end ? *plain->at : 0;
}

static bool plain_take(struct plain *plain, const char *word)
{
    size_t length = strlen(word);

    if ((size_t)(plain->end - plain->at) < length || memcmp(plain->at, word, length) != 0)
        return false;
    plain->at += length;
    return true;
}

static void plain_space(struct plain *plain)
{
    while (plain_take(plain, " ") || plain_take(plain, "\t") || plain_take(plain, "\n") ||
           plain_take(plain, "\r"))
        ;
}

static bool plain_hex(struct plain *plain, uint32_t *value)
{
    static const char digits[] = "0123456789abcdefABCDEF";

    *value = 0;
    for (int i = 0; i < 4; i++) {
        const char *digit = plain_peek(plain) ? strchr(digits, (int)plain_peek(plain)) : NULL;

        if (!digit)
            return false;
        *value =
            *value * 16 + (uint32_t)(digit - digits > 15 ? digit - digits - 6 : digit - digits);
        plain->at++;
    }
    return true;
}

static bool plain_escape(struct plain *plain, uint32_t *point)
{
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name = plain_peek(plain) ? strchr(names, (int)plain_peek(plain)) : NULL;

    if (plain_take(plain, "u"))
        return plain_hex(plain, point);
    if (!name)
        return false;
    plain->at++;
    *point = (unsigned char)values[name - names];
    return true;
}

/* Reads a string; what it means goes to `points`, which has room for it. */
static bool plain_string(struct plain *plain, uint32_t *points, size_t *count)
{
    bool ended = false;

    *count = 0;
    if (!plain_take(plain, "\""))
        return false;
    while (plain->at < plain->end && !ended) {
        uint32_t point;
        bool escaped = plain_take(plain, "\\");

        ended = !escaped && plain_take(plain, "\"");
        if (ended)
            continue;

        if (escaped ? !plain_escape(plain, &point) : !plain_character(plain, &point))
            return false;
        if (!escaped && point < 0x20)
            return false;
        if (escaped && *count && point >= 0xdc00 && point < 0xe000 &&
            points[*count - 1] >= 0xd800 && points[*count - 1] < 0xdc00)
            points[*count - 1] = 0x10000 + (points[*count - 1] - 0xd800) * 0x400 + point - 0xdc00;
        else
            points[(*count)++] = point;
    }
    return ended;
}

static bool plain_digits(struct plain *plain)
{
    const unsigned char *from = plain->at;

    while (plain_peek(plain) >= '0' && plain_peek(plain) <= '9')
        plain->at++;
    return plain->at > from;
}

static bool plain_number(struct plain *plain)
{
    plain_take(plain, "-");
    if (!plain_take(plain, "0") && !plain_digits(plain))
        return false;
    if (plain_take(plain, ".") && !plain_digits(plain))
        return false;
    if (!plain_take(plain, "e") && !plain_take(plain, "E"))
        return true;
    if (!plain_take(plain, "+"))
        plain_take(plain, "-");
    return plain_digits(plain);
}

/* Reads `"key":`, which must be new if it is wanted. */
static bool plain_read_key(struct plain *plain)
{
    uint32_t *points = malloc(((size_t)(plain->end - plain->at) + 1) * sizeof *points);
    size_t count;
    bool good;

    if (!points)
        abort();
    good = plain_string(plain, points, &count);
    for (size_t i = 0; good && i < WANTED; i++) {
        if (plain->depth > 1 || count != wanted[i].count ||
            memcmp(points, wanted[i].points, count * sizeof *points) != 0)
            continue;
        good = !plain->once || !plain->seen[i];
        plain->seen[i] = true;
        break;
    }
    free(points);
    plain_space(plain);
    good = good && plain_take(plain, ":");
    plain_space(plain);
    return good;
}

static bool plain_scalar(struct plain *plain)
{
    bool good;
    uint32_t *points;
    size_t count;

    if (plain_peek(plain) != '"')
        return plain_take(plain, "true") || plain_take(plain, "false") ||
               plain_take(plain, "null") || plain_number(plain);
    points = malloc((size_t)(plain->end - plain->at) * sizeof *points);
    if (!points)
        abort();
    good = plain_string(plain, points, &count);
    free(points);
    return good;
}

/* Leaves what ends here; *done if all of it, else what follows is a value. */
static bool plain_after(struct plain *plain, bool *done)
{
    for (;;) {
        plain_space(plain);
        *done = plain->depth == 0;
        if (*done)
            return plain->at == plain->end;
        if (plain_take(plain, ",")) {
            plain_space(plain);
            return plain->stack[plain->depth - 1] == ']' || plain_read_key(plain);
        }
        if (plain_peek(plain) != (unsigned char)plain->stack[plain->depth - 1])
            return false;
        plain->at++;
        plain->depth--;
    }
}

static bool plain_document(struct plain *plain)
{
    bool done = false;

    plain_space(plain);
    if (plain_peek(plain) != '{')
        return false;
    while (!done) {
        bool object = plain_peek(plain) == '{';

        if (object || plain_peek(plain) == '[') {
            if (plain->depth == JSON_DEPTH)
                return false;
            plain->stack[plain->depth++] = object ? '}' : ']';
            plain->at++;
            plain_space(plain);
            if (plain_peek(plain) != (object ? '}' : ']')) {
                if (object && !plain_read_key(plain))
                    return false;
                continue;
            }
        } else if (!plain_scalar(plain)) {
            return false;
        }
        if (!plain_after(plain, &done))
            return false;
    }
    return true;
}

static bool plain_accepts(struct str text, bool once)
{
    struct plain plain = {.at = (const unsigned char *)text.at, .once = once};

    plain.end = plain.at + text.length;
    return plain_is_text(text) && plain_document(&plain);
}

/* --- what is found --------------------------------------------------------------------------- */

/* Reads {"a":VALUE}; the value's text must be the whole of it. */
static struct json_value read_alone(struct str value, struct buf *room)
{
    struct json_field field = {.name = STR_INIT("a")};
    struct json_error error;

    room->length = 0;
    buf_append(room, STR("{\"a\":"));
    buf_append(room, value);
    buf_append(room, STR("}"));
    REQUIRE(json_parse_object(str_of(room), &field, 1, &error));
    REQUIRE(str_equal(field.value.text, value));
    return field.value;
}

static void require_string(struct json_value value)
{
    struct buf text = {0}, again = {0}, quoted = {0}, room = {0};
    struct buf little = {.limit = value.text.length > 6 ? value.text.length / 2 : 1};

    if (json_decode_string(value, &text)) {
        REQUIRE(utf8_valid(str_of(&text)) && text.length <= value.text.length - 2);
        REQUIRE(json_append_quoted(&quoted, str_of(&text)));
        REQUIRE(json_decode_string(read_alone(str_of(&quoted), &room), &again));
        REQUIRE(str_equal(str_of(&text), str_of(&again)));
        REQUIRE(json_decode_string(value, &little) == (text.length <= little.limit));
        REQUIRE(little.length <= little.limit);
    }
    buf_free(&text);
    buf_free(&again);
    buf_free(&quoted);
    buf_free(&room);
    buf_free(&little);
}

static void require_number(struct json_value value)
{
    struct buf text = {0};
    int64_t number;

    if (json_decode_integer(value, &number)) {
        buf_append_number(&text, number);
        REQUIRE(str_equal(str_of(&text), value.text) || str_equal(value.text, STR("-0")));
    }
    buf_free(&text);
}

/* The elements of an array, written one after the other, are the array. */
static void require_array(struct json_value value)
{
    struct str rest = value.text;
    struct buf text = {0}, room = {0};
    struct json_value element;
    size_t count = 0;

    buf_append(&text, STR("["));
    while (json_next_element(&rest, &element)) {
        REQUIRE(is_inside(element.text, value.text) && is_inside(rest, value.text));
        REQUIRE(element.text.length > 0);
        REQUIRE(read_alone(element.text, &room).type == element.type);
        buf_append(&text, count++ ? STR(",") : STR(""));
        buf_append(&text, element.text);
        if (element.type == JSON_STRING)
            require_string(element);
    }
    buf_append(&text, STR("]"));
    rest = read_alone(str_of(&text), &room).text;
    while (json_next_element(&rest, &element))
        count--;
    REQUIRE(count == 0);
    buf_free(&text);
    buf_free(&room);
}

static void require_value(struct json_value value, struct str text)
{
    struct buf room = {0};

    REQUIRE(is_inside(value.text, text));
    REQUIRE((value.type == JSON_NONE) == (value.text.length == 0));
    if (value.type == JSON_NONE)
        return;
    REQUIRE(read_alone(value.text, &room).type == value.type);
    REQUIRE(json_is_true(value) == str_equal(value.text, STR("true")));
    if (value.type == JSON_STRING)
        require_string(value);
    if (value.type == JSON_NUMBER)
        require_number(value);
    if (value.type == JSON_ARRAY)
        require_array(value);
    buf_free(&room);
}

static void try_text(struct str bytes)
{
    struct json_field fields[] = {{.name = STR_INIT("a")},
                                  {.name = STR_INIT("data")},
                                  {.name = STR_INIT("\xc3\xa9")},
                                  {.name = STR_INIT("")}};
    struct json_error error = {0}, again = {0};
    struct str text = exact_copy(bytes);
    bool good = json_parse_object(text, fields, COUNT(fields), &error);

    bool loose = json_parse_object(text, NULL, 0, &again);

    REQUIRE(good == plain_accepts(text, true) && loose == plain_accepts(text, false));
    if (good) {
        struct str cut = {text.at, text.length - 1};

        for (size_t i = 0; i < COUNT(fields); i++)
            require_value(fields[i].value, text);
        REQUIRE(json_parse_object(cut, NULL, 0, &error) == (text.at[cut.length] != '}'));
    } else {
        REQUIRE(error.reason && error.offset <= text.length);
        REQUIRE(loose || again.offset >= error.offset);
        REQUIRE(!loose || strcmp(error.reason, "duplicate key") == 0);
    }
    free_copy(text);
}

/* A text is what it was when it has been quoted and read. */
static void try_quoting(struct str text)
{
    struct buf quoted = {0}, room = {0}, again = {0};

    if (utf8_valid(text)) {
        REQUIRE(json_append_quoted(&quoted, text));
        REQUIRE(json_decode_string(read_alone(str_of(&quoted), &room), &again));
        REQUIRE(str_equal(str_of(&again), text));
    }
    REQUIRE(utf8_valid(text) == plain_is_text(text));
    buf_free(&quoted);
    buf_free(&room);
    buf_free(&again);
}

static void try_integer(struct str bytes)
{
    int64_t number = 0, again = 0;
    struct buf text = {0}, room = {0};

    memcpy(&number, bytes.at, bytes.length < 8 ? bytes.length : 8);
    buf_append_number(&text, number);
    REQUIRE(json_decode_integer(read_alone(str_of(&text), &room), &again) && again == number);
    buf_free(&text);
    buf_free(&room);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};
    unsigned first = length ? at[0] : 0;

    /* texts stand as they are, so that the corpus can be read; a first byte that no text has means
     * something else */
    if (first == 0xff || first == 0xfe)
        fuzz_byte(&fuzz);
    if (first == 0xff)
        try_quoting(fuzz_rest(&fuzz));
    else if (first == 0xfe && fuzz.length)
        try_integer(fuzz_rest(&fuzz));
    else
        try_text(fuzz_rest(&fuzz));
    return 0;
}
