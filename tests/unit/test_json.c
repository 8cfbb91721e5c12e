/* test_json.c - tests the JSON parser on good and bad documents, and what it reads from them. */
#include "json.h"
#include "test.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME_64 "10123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"

/* Whether a text is good. */
static bool accepted(struct str text, struct json_error *error)
{
    struct str copy = exact_copy(text);
    bool good = json_parse_object(copy, NULL, 0, error);

    *error = good ? (struct json_error){0} : *error;
    free_copy(copy);
    return good;
}

static void show(struct str text)
{
    printf("  with: %.*s\n", (int)(text.length > 200 ? 200 : text.length), text.at);
}

static void check_accepted(struct str text)
{
    struct json_error error = {0};

    if (!CHECK(accepted(text, &error))) {
        printf("  %s at %zu\n", error.reason, error.offset);
        show(text);
    }
}

static void check_refused(struct str text)
{
    struct json_error error = {0};

    if (!CHECK(!accepted(text, &error)) || !CHECK(error.reason && error.reason[0]) ||
        !CHECK(error.offset <= text.length))
        show(text);
}

/* A value's text between the two halves of a document; `out` is emptied before. */
static struct str framed(struct buf *out, const struct str frame[2], struct str value)
{
    out->length = 0;
    buf_append(out, frame[0]);
    buf_append(out, value);
    buf_append(out, frame[1]);
    return str_of(out);
}

/* In the first two, the value is that of the outermost member "v". */
static const struct str frames[][2] = {
    {STR_INIT("{\"v\":"), STR_INIT("}")},
    {STR_INIT("\n{ \"a\" :\t1 ,\r\n \"v\" : "), STR_INIT(" , \"b\" : [ ] }")},
    {STR_INIT("{\"w\":[["), STR_INIT("]]}")},
    {STR_INIT("{\"w\":{\"v\":"), STR_INIT(",\"x\":2}}")},
    {STR_INIT("{\"w\":[null,"), STR_INIT(",{\"v\":0}]}")},
};

/* Good values, separated by |. */
static const struct {
    enum json_type type;
    struct str text;
} good_values[] = {
    {JSON_NULL, STR_INIT("null")},
    {JSON_BOOLEAN, STR_INIT("true|false")},
    {JSON_NUMBER, STR_INIT("0|-0|-0.0|7|-10|1.0|1.00500|0.1|0e0|0E+00|1e400|-1E-400|12.5e+07|"
                           "123456789012345678901234567890|-9223372036854775809|"
                           "0.000000000000000000000000000001")},
    {JSON_STRING,
     STR_INIT("\"\"|\"a\"|\" \"|\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"|\"\\\\\"|\"\\\\\\\"\"|"
              "\"\\u0041\\u00e9\\uFFFF\\uabCD\\u0000\"|\"\\u00411\"|\"\\ud83d\\ude00\"|"
              "\"\\ud83d\"|\"\\uDE00\\uD83D\"|\"\\uD800\\n\"|\"\x7f'/\"|"
              "\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"|"
              "\"\xef\xbb\xbf\xe2\x80\xa8\xef\xbf\xbf\xc2\x80\"|\"{}[],:null/*#\"")},
    {JSON_ARRAY, STR_INIT("[]|[ \t\r\n]|[1]|[1,\"a\",null,true,false,{},[]]|[ 1 , 2 ]|[[[[]]],[]]|"
                          "[\"]\",\"}\",\",\",\"\\\"\"]|[{\"a\":1},{\"a\":2}]")},
    {JSON_OBJECT,
     STR_INIT("{}|{\n}|{\"\":0}|{\"v\":{\"v\":{\"v\":null}}}|{ \"a\" : 1 , \"b\" : 2 }|"
              "{\"\\\"}\":\"{\",\"[\":[\"}\"]}|{\"a\":[{\"a\":1},{\"a\":[{\"a\":{}}]}]}")},
};

/* Parses a good value in every frame, and each prefix of that document, which must be refused. */
static void check_good_value(enum json_type type, struct str value)
{
    struct buf text = {0};

    for (size_t i = 0; i < COUNT(frames); i++) {
        struct str whole = framed(&text, frames[i], value), copy = exact_copy(whole);
        struct json_field field = {.name = STR("v")};
        struct json_error error;
        struct str *found = &field.value.text;
        bool good = CHECK(json_parse_object(copy, &field, 1, &error));

        if (good && i < 2)
            good = CHECK(field.value.type == type) && CHECK(str_equal(*found, value)) &&
                   CHECK(found->at == copy.at + frames[i][0].length);
        else if (good)
            good = CHECK(field.value.type == JSON_NONE);
        if (!good)
            show(copy);
        free_copy(copy);
        for (size_t length = 0; length < whole.length; length++)
            check_refused((struct str){whole.at, length});
    }
    buf_free(&text);
}

static void good_values_come_back_and_prefixes_are_refused(void)
{
    for (size_t i = 0; i < COUNT(good_values); i++)
        for (struct str rest = good_values[i].text; rest.at;)
            check_good_value(good_values[i].type, str_cut(&rest, '|'));
}

/* Bad values, separated by |. */
static const struct str bad_values[] = {
    /* numbers */
    STR_INIT("01|00|-01|+1|.5|1.|-|-.5|--1|- 1|1.e5|1e|1e+|1e-|1e1.5|1e+-1|1.2.3|1ee1|0x10|"
             "1_000|1f|1\0|1 000|\xef\xbc\x91|1e\xef\xbc\x91"),
    /* words */
    STR_INIT("NaN|-NaN|Infinity|-Infinity|True|TRUE|tru|truex|true1|fals|falsE|nul|nulll|Null|"
             "nil|undefined|abc|t|true false"),
    /* strings */
    STR_INIT("\"|\"a|a\"|'a'|`a`|\"\\\"|\"\\x41\"|\"\\'\"|\"\\a\"|\"\\v\"|\"\\0\"|\"\\U0041\"|"
             "\"\\u\"|\"\\u004\"|\"\\u 041\"|\"\\u004g\"|\"\\u00:0\"|\"\\u00`0\"|\"\\u+041\"|"
             "\"\\u{41}\"|\"\\ud83d\\ude0\"|\"\\\n\"|\"a\nb\"|\"a\\\"|\"a\"b|\"a\" \"b\"|"
             "\"a\"\"b\"|\xe2\x80\x9c\x61\xe2\x80\x9d|\"\\\xc3\xa9\""),
    /* arrays */
    STR_INIT("[|]|[1,]|[,1]|[,]|[1,,2]|[1 2]|[1;2]|[1:2]|[\"a\":1]|[1}|[1|[]]|[][|[[]|[a]|[+]|"
             "(1)"),
    /* objects */
    STR_INIT("{|}|{\"b\":1,}|{,}|{,\"b\":1}|{\"b\"}|{\"b\":}|{\"b\" 1}|{\"b\",1}|{\"b\"::1}|"
             "{\"b\"=1}|{:1}|{\"b\":1 \"c\":2}|{\"b\":1,,\"c\":2}|{\"b\":1;\"c\":2}|{\"b\":1:2}|"
             "{\"b\":1,2}|{\"b\":1,\"c\"}|{b:1}|{'b':1}|{1:1}|{null:1}|{true:1}|{[]:1}|{{}:1}|"
             "{{}}|{1}|{\"b\":1]|{}}|{}{}|{\"b\nc\":1}|{\"\\q\":1}|{\"b:1}|{...}"),
    /* what stands between tokens */
    STR_INIT("/**/1|1//|1#|1;|1:|\v1|1\f|\0001|1\b|\xc2\2401|\xef\xbb\2771|1\xe2\x80\xa8|"
             "\xe3\x80\2001|\\u00201|\x7f|*|1}|1 2|\\"),
};

static void bad_values_are_refused(void)
{
    struct buf text = {0};

    for (size_t i = 0; i < COUNT(bad_values); i++)
        for (struct str rest = bad_values[i]; rest.at;) {
            struct str value = str_cut(&rest, '|');

            for (size_t j = 0; j < COUNT(frames); j++)
                check_refused(framed(&text, frames[j], value));
        }
    buf_free(&text);
}

static void one_object_is_one_document(void)
{
    /* separated by | */
    struct str good = STR("{}| {}|{} | \t\r\n{ \t\r\n} \t\r\n|{\"a\":1}\n");
    struct str bad = STR("| |\n\n|null|1|\"a\"|true|[]|[{}]|{}{}|{} {}|{},|{},{}|{}}|{}]|{}1|{}\0|"
                         "\0{}|{}#|{}//|/**/{}|({})|{\"a\":1}}|{\"a\":1}]|\"a\":1|\v{}|{}\f|{\0}|"
                         "{\xc2\xa0}|\xef\xbb\xbf{}|{}\xef\xbb\xbf|{\0}\0|\0{\0}|\xff\xfe{\0}\0|"
                         "\xfe\xff\0{\0}|{]|{\"a\":[}]");

    while (good.at)
        check_accepted(str_cut(&good, '|'));
    while (bad.at)
        check_refused(str_cut(&bad, '|'));
    CHECK(!json_parse_object((struct str){NULL, 0}, NULL, 0, &(struct json_error){0}));
}

static void control_bytes_are_refused(void)
{
    static const struct str spots[][2] = {
        {STR_INIT("{\"v\":\"a"), STR_INIT("b\"}")},
        {STR_INIT("{\"v\":\""), STR_INIT("\"}")},
        {STR_INIT("{\"a"), STR_INIT("b\":1}")},
        {STR_INIT("{\"v\":[\"\\\\"), STR_INIT("\"]}")},
    };
    struct buf text = {0};

    for (int c = 0; c < 0x80; c++)
        for (size_t i = 0; i < COUNT(spots); i++) {
            char byte = (char)c;
            struct str whole = framed(&text, spots[i], (struct str){&byte, 1});

            if (c < 0x20)
                check_refused(whole);
            else if (c != '"' && c != '\\')
                check_accepted(whole);
        }
    buf_free(&text);
}

static const struct {
    struct str bytes;
    size_t offset; /* of the byte that cannot stand where it stands */
} bad_utf8[] = {
    {STR_INIT("\x80"), 0},
    {STR_INIT("\xbf"), 0},
    {STR_INIT("\xc0\x80"), 0},
    {STR_INIT("\xc0\xaf"), 0},
    {STR_INIT("\xc1\xbf"), 0},
    {STR_INIT("\xc3"), 1},
    {STR_INIT("\xc3("), 1},
    {STR_INIT("\xc3\xa9\xa9"), 2},
    {STR_INIT("\xe0\x80\xaf"), 1},
    {STR_INIT("\xe0\x9f\xbf"), 1},
    {STR_INIT("\xe2\x82"), 2},
    {STR_INIT("\xed\xa0\x80"), 1},
    {STR_INIT("\xed\xbf\xbf"), 1},
    {STR_INIT("\xed\xa0\xbd\xed\xb8\x80"), 1},
    {STR_INIT("\xf0\x8f\xbf\xbf"), 1},
    {STR_INIT("\xf0\x9f\x98"), 3},
    {STR_INIT("\xf4\x90\x80\x80"), 1},
    {STR_INIT("\xf5\x80\x80\x80"), 0},
    {STR_INIT("\xf8\x88\x80\x80\x80"), 0},
    {STR_INIT("\xfe"), 0},
    {STR_INIT("\xff"), 0},
};

static void invalid_utf8_is_refused(void)
{
    static const struct str spots[][2] = {
        {STR_INIT("{\"v\":\"a"), STR_INIT("b\"}")},
        {STR_INIT("{\"long enough to be read fast "), STR_INIT("\":1}")},
        {STR_INIT("{\"v\":[{\"w\":\"\\n"), STR_INIT("\"}]}")},
        {STR_INIT(""), STR_INIT("{}")},
        {STR_INIT("{}"), STR_INIT("")},
        {STR_INIT("{\"v\":"), STR_INIT("}")},
    };
    struct buf text = {0};

    for (size_t i = 0; i < COUNT(bad_utf8); i++)
        for (size_t j = 0; j < COUNT(spots); j++) {
            struct str whole = framed(&text, spots[j], bad_utf8[i].bytes);
            struct json_error error = {0};

            if (!CHECK(!accepted(whole, &error)) ||
                !CHECK(error.offset == spots[j][0].length + bad_utf8[i].offset))
                printf("  in case %zu, spot %zu, at %zu\n", i, j, error.offset);
        }
    buf_free(&text);
}

static void errors_tell_where(void)
{
    static const struct {
        struct str text;
        size_t from, to;
    } cases[] = {
        {STR_INIT(""), 0, 0},
        {STR_INIT("  [1]"), 2, 2},
        {STR_INIT("{"), 1, 1},
        {STR_INIT("{} x"), 3, 3},
        {STR_INIT("{\"a\":01}"), 6, 6},
        {STR_INIT("{\"a\":1,}"), 7, 7},
        {STR_INIT("{\"a\" 1}"), 5, 5},
        {STR_INIT("{\"a\":[1,,2]}"), 8, 8},
        {STR_INIT("{\"a\":\"b\nc\"}"), 7, 7},
        {STR_INIT("{\"a\":\"b\\qc\"}"), 7, 8},
        {STR_INIT("{\"a\":nope}"), 5, 5},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_error error = {0};

        CHECK(!accepted(cases[i].text, &error) && error.reason);
        if (!CHECK(error.offset >= cases[i].from && error.offset <= cases[i].to))
            printf("  in case %zu: %s at %zu\n", i, error.reason, error.offset);
    }
}

static const struct {
    struct str name, key; /* wanted, and as it stands behind it */
    bool same;
} key_pairs[] = {
    {STR_INIT("a"), STR_INIT("a"), true},
    {STR_INIT("a"), STR_INIT("\\u0061"), true},
    {STR_INIT("abc"), STR_INIT("ab\\u0063"), true},
    {STR_INIT("/"), STR_INIT("\\/"), true},
    {STR_INIT("\xc3\xa9"), STR_INIT("\\u00E9"), true},
    {STR_INIT("\xe2\x82\xac"), STR_INIT("\\u20ac"), true},
    {STR_INIT("\xf0\x9f\x98\x80"), STR_INIT("\\ud83d\\uDE00"), true},
    {STR_INIT(NAME_64), STR_INIT(NAME_64), true},
    {STR_INIT(NAME_64),
     STR_INIT("\\u00310123456789abcdef0123456789abcdef0123456789abcdef0123456789abcde"), true},
    {STR_INIT("a"), STR_INIT("A"), false},
    {STR_INIT("a"), STR_INIT("a "), false},
    {STR_INIT("a"), STR_INIT("aa"), false},
    {STR_INIT("a"), STR_INIT(""), false},
    {STR_INIT("a"), STR_INIT("a\\u0000"), false},
    {STR_INIT("a"), STR_INIT("\\\\u0061"), false},
    {STR_INIT("n"), STR_INIT("\\n"), false},
    {STR_INIT("\xc3\xa9"), STR_INIT("e\xcc\x81"), false},
    {STR_INIT("a"), STR_INIT("a\\ud800"), false},
    {STR_INIT("a"), STR_INIT("\\ud800a"), false},
    {STR_INIT(NAME_64), STR_INIT(NAME_64 "\\n"), false},
};

/* What is wanted must not be there twice, however it is written; the error says where. */
static void wanted_members_stand_once(void)
{
    for (size_t i = 0; i < COUNT(key_pairs); i++) {
        struct json_field field = {.name = key_pairs[i].name};
        struct json_error error = {0};
        struct buf text = {0};
        size_t at;
        bool good;

        buf_append(&text, STR("{\"x\":{},\""));
        buf_append(&text, field.name);
        buf_append(&text, STR("\":1,\"x\":2,\""));
        at = text.length;
        buf_append(&text, key_pairs[i].key);
        buf_append(&text, STR("\":{}}"));
        good = json_parse_object(str_of(&text), &field, 1, &error);
        if (!CHECK(good != key_pairs[i].same) ||
            !CHECK(good ? str_equal(field.value.text, STR("1"))
                        : error.offset == at && strcmp(error.reason, "duplicate key") == 0))
            printf("  in case %zu\n", i);
        buf_free(&text);
    }
}

/* What stands twice elsewhere is not ours to judge: members that nobody wants, and all inside. */
static void other_members_may_stand_twice(void)
{
    static const struct str texts[] = {
        STR_INIT("{\"x\":1,\"x\":2,\"x\":[]}"),
        STR_INIT("{\"a\":{\"a\":1,\"a\":2}}"),
        STR_INIT("{\"x\":{\"a\":1,\"\\u0061\":2},\"a\":3}"),
        STR_INIT("{\"x\":[{\"a\":1,\"a\":2},{\"a\":3}],\"a\":{\"a\":{\"a\":{}}}}"),
    };

    for (size_t i = 0; i < COUNT(texts); i++) {
        struct json_field field = {.name = STR("a")};
        struct json_error error;

        CHECK(json_parse_object(texts[i], &field, 1, &error));
        check_accepted(texts[i]);
    }
}

/* An outermost object with arrays (`kinds` 0), objects (1) or both by turns (2) to this depth. */
static struct str nested(struct buf *out, size_t depth, int kinds)
{
    out->length = 0;
    buf_append(out, STR("{\"k\":"));
    for (size_t i = 1; i < depth; i++)
        buf_append(out, kinds == 0 || (kinds == 2 && i % 2) ? STR("[") : STR("{\"k\":"));
    buf_append(out, STR("0"));
    for (size_t i = depth; i-- > 1;)
        buf_append(out, kinds == 0 || (kinds == 2 && i % 2) ? STR("]") : STR("}"));
    buf_append(out, STR("}"));
    return str_of(out);
}

static void depth_is_limited(void)
{
    static const struct str deepest[2] = {STR_INIT("{\"a\":"), STR_INIT(",\"b\":[1]}")};
    struct buf text = {0}, twice = {0};

    CHECK(JSON_DEPTH == 64);
    for (int kinds = 0; kinds < 3; kinds++) {
        check_accepted(nested(&text, 1, kinds));
        check_accepted(nested(&text, 63, kinds));
        check_accepted(framed(&twice, deepest, str_of(&text)));
        check_accepted(nested(&text, 64, kinds));
        check_refused(framed(&twice, deepest, str_of(&text)));
        check_refused(nested(&text, 65, kinds));
        check_refused(nested(&text, 66, kinds));
        check_refused(nested(&text, 10000, kinds));
    }
    /* side by side is not deep; an empty one counts as well */
    nested(&text, 62, 2);
    buf_append(&twice, STR("  "));
    twice.length = 0;
    buf_append(&twice, STR("{\"a\":["));
    for (int i = 0; i < 100; i++) {
        buf_append(&twice, str_of(&text));
        buf_append(&twice, STR(","));
    }
    buf_append(&twice, STR("[]]}"));
    check_accepted(str_of(&twice));
    nested(&text, 64, 0);
    text.at[text.length / 2 + 2] = ' '; /* the 0 within the innermost */
    check_accepted(str_of(&text));
    buf_free(&text);
    buf_free(&twice);
}

static void members_are_found(void)
{
    static const struct str text =
        STR_INIT("{\"unknown\":{\"code\":5},\"d\\u0061ta\" : [ 1 , {\"msg\":2} ] ,\"code\":-7\n,"
                 "\"msg\": \"\\u0061\" ,\"\":null,\"c\":{ } }");
    struct json_field fields[] = {
        {.name = STR("code")}, {.name = STR("msg")},    {.name = STR("data")}, {.name = STR("")},
        {.name = STR("c")},    {.name = STR("absent")}, {.name = STR("Code")},
    };
    static const struct {
        enum json_type type;
        struct str text;
    } expected[] = {
        {JSON_NUMBER, STR_INIT("-7")},
        {JSON_STRING, STR_INIT("\"\\u0061\"")},
        {JSON_ARRAY, STR_INIT("[ 1 , {\"msg\":2} ]")},
        {JSON_NULL, STR_INIT("null")},
        {JSON_OBJECT, STR_INIT("{ }")},
        {JSON_NONE, {NULL, 0}},
        {JSON_NONE, {NULL, 0}},
    };
    struct json_error error;

    CHECK(json_parse_object(text, fields, COUNT(fields), &error));
    for (size_t i = 0; i < COUNT(fields); i++)
        if (!CHECK(fields[i].value.type == expected[i].type) ||
            !CHECK(str_equal(fields[i].value.text, expected[i].text)))
            printf("  in field %zu\n", i);
    /* what an earlier text left is forgotten */
    CHECK(
        json_parse_object(STR("{\"msg\":1,\"code\":{\"data\":2}}"), fields, COUNT(fields), &error));
    CHECK(fields[0].value.type == JSON_OBJECT && fields[1].value.type == JSON_NUMBER);
    for (size_t i = 2; i < COUNT(fields); i++)
        CHECK(fields[i].value.type == JSON_NONE);
}

/* Writes an array again from its elements, with all that is in them, without white space. */
static void rewrite(struct str array, struct buf *out)
{
    struct str rest = array;
    struct json_value element;
    bool first = true;

    buf_append(out, STR("["));
    for (; json_next_element(&rest, &element); first = false) {
        if (!first)
            buf_append(out, STR(","));
        if (element.type == JSON_ARRAY)
            rewrite(element.text, out);
        else
            buf_append(out, element.text);
    }
    buf_append(out, STR("]"));
    CHECK(!json_next_element(&rest, &element)); /* the end stays the end */
}

static void arrays_are_taken_apart(void)
{
    static const struct {
        struct str array, rewritten;
    } cases[] = {
        {STR_INIT("[]"), STR_INIT("[]")},
        {STR_INIT("[ \r\n\t]"), STR_INIT("[]")},
        {STR_INIT("[1]"), STR_INIT("[1]")},
        {STR_INIT("[ -1e5 ]"), STR_INIT("[-1e5]")},
        {STR_INIT("[1,2,3]"), STR_INIT("[1,2,3]")},
        {STR_INIT("[ true ,\tfalse\n,\rnull ]"), STR_INIT("[true,false,null]")},
        {STR_INIT("[[]]"), STR_INIT("[[]]")},
        {STR_INIT("[ [ ] , [ [ 1 ] , 2 ] , 3 ]"), STR_INIT("[[],[[1],2],3]")},
        {STR_INIT("[[[[[[0]]]]],[[[]]]]"), STR_INIT("[[[[[[0]]]]],[[[]]]]")},
        {STR_INIT("[{},{ \"a\":[1,{}] },[{}]]"), STR_INIT("[{},{ \"a\":[1,{}] },[{}]]")},
        {STR_INIT("[\"\",\"]\",\"[\",\",\",\"}\",\"{\"]"),
         STR_INIT("[\"\",\"]\",\"[\",\",\",\"}\",\"{\"]")},
        {STR_INIT("[\"\\\"\",\"\\\\\",[\"\\\\\\\"]\"]]"),
         STR_INIT("[\"\\\"\",\"\\\\\",[\"\\\\\\\"]\"]]")},
        {STR_INIT("[{\"]\":\"}\"},{\"\\\"[\":[\"]\"]} ]"),
         STR_INIT("[{\"]\":\"}\"},{\"\\\"[\":[\"]\"]}]")},
        {STR_INIT("[\"a b\" ,\"\xe2\x82\xac\"]"), STR_INIT("[\"a b\",\"\xe2\x82\xac\"]")},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct str array = exact_copy(cases[i].array);
        struct buf text = {0}, out = {0};

        check_accepted(framed(&text, frames[0], array));
        rewrite(array, &out);
        if (!CHECK(str_equal(str_of(&out), cases[i].rewritten)))
            show(str_of(&out));
        free_copy(array);
        buf_free(&text);
        buf_free(&out);
    }
}

static void elements_have_their_types(void)
{
    static const enum json_type types[] = {JSON_NULL,   JSON_BOOLEAN, JSON_BOOLEAN, JSON_NUMBER,
                                           JSON_STRING, JSON_ARRAY,   JSON_OBJECT};
    struct str rest = STR("[null,true,false,-1,\"a\",[],{}]");
    struct json_value element;

    for (size_t i = 0; i < COUNT(types); i++)
        CHECK(json_next_element(&rest, &element) && element.type == types[i]);
    CHECK(!json_next_element(&rest, &element));
}

/* The value of the member "v" of {"v":VALUE}, in a text that lives as long as *text. */
static struct json_value parsed(struct buf *text, struct str value)
{
    struct json_field field = {.name = STR("v")};
    struct json_error error = {0};

    if (!CHECK(json_parse_object(framed(text, frames[0], value), &field, 1, &error)))
        show(value);
    return field.value;
}

static void strings_are_decoded(void)
{
    static const struct {
        struct str text, meaning;
    } cases[] = {
        {STR_INIT("\"\""), STR_INIT("")},
        {STR_INIT("\"plain\""), STR_INIT("plain")},
        {STR_INIT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), STR_INIT("\"\\/\b\f\n\r\t")},
        {STR_INIT("\"a\\nb\\nc\""), STR_INIT("a\nb\nc")},
        {STR_INIT("\"\\\\n\\\\u0041\""), STR_INIT("\\n\\u0041")},
        {STR_INIT("\"\\u0000\\u007f\""), STR_INIT("\0\x7f")},
        {STR_INIT("\"\\u0080\\u07ff\""), STR_INIT("\xc2\x80\xdf\xbf")},
        {STR_INIT("\"\\u0800\\uFfFf\""), STR_INIT("\xe0\xa0\x80\xef\xbf\xbf")},
        {STR_INIT("\"\\ud7ff\\ue000\""), STR_INIT("\xed\x9f\xbf\xee\x80\x80")},
        {STR_INIT("\"\\ud800\\udc00\""), STR_INIT("\xf0\x90\x80\x80")},
        {STR_INIT("\"\\uDBFF\\uDFFF\""), STR_INIT("\xf4\x8f\xbf\xbf")},
        {STR_INIT("\"x\\ud83d\\ude00y\""), STR_INIT("x\xf0\x9f\x98\x80y")},
        {STR_INIT("\"\\u00e9\xc3\xa9\\u00e9\""), STR_INIT("\xc3\xa9\xc3\xa9\xc3\xa9")},
        {STR_INIT("\"\\u00411\""), STR_INIT("A1")},
    };
    struct buf text = {0};

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_value value = parsed(&text, cases[i].text);
        struct buf out = {0}, just = {.limit = cases[i].meaning.length};

        CHECK(buf_append(&out, STR("kept ")) && json_decode_string(value, &out));
        if (!CHECK(out.length >= 5 && memcmp(out.at, "kept ", 5) == 0) ||
            !CHECK(str_equal((struct str){out.at + 5, out.length - 5}, cases[i].meaning)))
            show(cases[i].text);
        CHECK(json_decode_string(value, &just) && str_equal(str_of(&just), cases[i].meaning));
        buf_free(&out);
        buf_free(&just);
    }
    buf_free(&text);
}

static void half_surrogate_pairs_are_not_decoded(void)
{
    /* separated by | */
    struct str cases = STR("\"\\ud83d\"|\"\\ude00\"|\"\\ud800 \"|\"\\udbff\\n\"|\"\\ud83d\\u0041\"|"
                           "\"\\ud83d\\ue000\"|\"\\ude00\\ud83d\"|\"\\ud83d\\ud83d\\ude00\"|"
                           "\"\\ud83d\\ude00\\ude00\"|\"\\udfff\\ud800\\udc00\"|\"\\ud83dude00\"|"
                           "\"\\ud83d\\\\ude00\"|\"\\ud83d\\udbff\"|\"\\ud83dxxde00\"|"
                           "\"\\ud83d\\nde00\"|\"\\ud83d-ude00\"");
    struct buf text = {0};

    while (cases.at) {
        struct str value = str_cut(&cases, '|');
        struct buf out = {0};

        if (!CHECK(!json_decode_string(parsed(&text, value), &out)))
            show(value);
        buf_free(&out);
    }
    buf_free(&text);
}

static void only_strings_with_room_are_decoded(void)
{
    static const struct {
        struct str text;
        size_t limit;
    } cases[] = {
        {STR_INIT("null"), 0},       {STR_INIT("true"), 0},          {STR_INIT("12"), 0},
        {STR_INIT("[\"a\"]"), 0},    {STR_INIT("{\"a\":\"b\"}"), 0}, {STR_INIT("\"abc\""), 2},
        {STR_INIT("\"a\\nb\""), 2},  {STR_INIT("\"a\\nb\""), 1},     {STR_INIT("\"\\u20ac\""), 2},
        {STR_INIT("\"ab\\nc\""), 1},
    };
    struct buf text = {0};

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct buf out = {.limit = cases[i].limit};

        if (!CHECK(!json_decode_string(parsed(&text, cases[i].text), &out)))
            show(cases[i].text);
        CHECK(out.limit == 0 || out.length <= out.limit);
        buf_free(&out);
    }
    CHECK(!json_decode_string((struct json_value){0}, &text));
    buf_free(&text);
}

static void append_utf8(struct buf *out, uint32_t point)
{
    char bytes[4];
    size_t length = 0;

    if (point < 0x80) {
        bytes[length++] = (char)point;
    } else {
        if (point < 0x800) {
            bytes[length++] = (char)(0xc0 | point >> 6);
        } else {
            if (point < 0x10000) {
                bytes[length++] = (char)(0xe0 | point >> 12);
            } else {
                bytes[length++] = (char)(0xf0 | point >> 18);
                bytes[length++] = (char)(0x80 | (point >> 12 & 0x3f));
            }
            bytes[length++] = (char)(0x80 | (point >> 6 & 0x3f));
        }
        bytes[length++] = (char)(0x80 | (point & 0x3f));
    }
    buf_append(out, (struct str){bytes, length});
}

/* Every character there is, once escaped by number and decoded, gives its UTF-8. */
static void every_escaped_character_is_decoded(void)
{
    struct buf escaped = {0}, meaning = {0}, text = {0}, out = {0};
    char unit[16];

    buf_append(&escaped, STR("\""));
    for (uint32_t point = 0; point < 0x110000; point += point < 0x11000 ? 1 : 0x101) {
        if (point >= 0xd800 && point < 0xe000)
            continue;
        if (point < 0x10000)
            snprintf(unit, sizeof unit, point % 2 ? "\\u%04x" : "\\u%04X", (unsigned)point);
        else
            snprintf(unit, sizeof unit, "\\u%04x\\u%04x", 0xd7c0u + (unsigned)(point >> 10),
                     0xdc00u + (unsigned)(point & 0x3ff));
        buf_append(&escaped, str_from(unit));
        append_utf8(&meaning, point);
    }
    buf_append(&escaped, STR("\""));
    CHECK(json_decode_string(parsed(&text, str_of(&escaped)), &out));
    CHECK(!meaning.failed && str_equal(str_of(&out), str_of(&meaning)));
    buf_free(&escaped);
    buf_free(&meaning);
    buf_free(&text);
    buf_free(&out);
}

static void integers_are_decoded(void)
{
    static const struct {
        struct str text;
        bool good;
        int64_t number;
    } cases[] = {
        {STR_INIT("0"), true, 0},
        {STR_INIT("-0"), true, 0},
        {STR_INIT("1"), true, 1},
        {STR_INIT("-1"), true, -1},
        {STR_INIT("-1002"), true, -1002},
        {STR_INIT("9223372036854775807"), true, INT64_MAX},
        {STR_INIT("-9223372036854775807"), true, -INT64_MAX},
        {STR_INIT("-9223372036854775808"), true, INT64_MIN},
        {STR_INIT("9223372036854775808"), false, 0},
        {STR_INIT("-9223372036854775809"), false, 0},
        {STR_INIT("18446744073709551616"), false, 0},
        {STR_INIT("-18446744073709551617"), false, 0},
        {STR_INIT("123456789012345678901234567890"), false, 0},
        {STR_INIT("1.0"), false, 0},
        {STR_INIT("-0.0"), false, 0},
        {STR_INIT("1e2"), false, 0},
        {STR_INIT("1E0"), false, 0},
        {STR_INIT("10e-1"), false, 0},
        {STR_INIT("\"1\""), false, 0},
        {STR_INIT("null"), false, 0},
        {STR_INIT("true"), false, 0},
        {STR_INIT("[1]"), false, 0},
        {STR_INIT("{}"), false, 0},
    };
    struct buf text = {0};
    int64_t number = 0;

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct json_value value = parsed(&text, cases[i].text);

        number = 0;
        if (!CHECK(json_decode_integer(value, &number) == cases[i].good) ||
            !CHECK(number == cases[i].number))
            show(cases[i].text);
    }
    CHECK(!json_decode_integer((struct json_value){0}, &number));
    buf_free(&text);
}

static void truth_is_told(void)
{
    static const struct {
        struct str text;
        bool is_true;
    } cases[] = {
        {STR_INIT("true"), true},
        {STR_INIT("false"), false},
        {STR_INIT("null"), false},
        {STR_INIT("1"), false},
        {STR_INIT("\"true\""), false},
        {STR_INIT("[true]"), false},
        {STR_INIT("{\"true\":true}"), false},
    };
    struct buf text = {0};

    for (size_t i = 0; i < COUNT(cases); i++)
        if (!CHECK(json_is_true(parsed(&text, cases[i].text)) == cases[i].is_true))
            show(cases[i].text);
    CHECK(!json_is_true((struct json_value){0}));
    buf_free(&text);
}

static void check_round_trip(struct str meaning)
{
    struct buf quoted = {0}, text = {0}, out = {0};
    struct str copy = exact_copy(meaning);

    CHECK(json_append_quoted(&quoted, copy));
    if (!CHECK(json_decode_string(parsed(&text, str_of(&quoted)), &out)) ||
        !CHECK(str_equal(str_of(&out), meaning)))
        show(str_of(&quoted));
    free_copy(copy);
    buf_free(&quoted);
    buf_free(&text);
    buf_free(&out);
}

static void quoting_and_decoding_give_the_same(void)
{
    static const struct str some[] = {STR_INIT(""), STR_INIT("\""), STR_INIT("\\"),
                                      STR_INIT("\\\"\\u0041\0\n\x1f\x7f"), STR_INIT("</script>")};
    struct buf all = {0};

    for (size_t i = 0; i < COUNT(some); i++)
        check_round_trip(some[i]);
    for (int c = 0; c < 0x80; c++)
        check_round_trip((struct str){&(char){(char)c}, 1});
    for (uint32_t point = 0; point < 0x110000; point += point < 0x10100 ? 1 : 0xff)
        if (point < 0xd800 || point >= 0xe000)
            append_utf8(&all, point);
    for (uint32_t point = 0x80; point-- > 0;)
        append_utf8(&all, point);
    check_round_trip(str_of(&all));
    buf_free(&all);
}

static void quoted_text_is_appended(void)
{
    static const struct str text = STR_INIT("a\"b\\c/\n\x01\x7f\xc3\xa9");
    struct buf out = {0}, small = {.limit = 5}, empty = {0};

    CHECK(buf_append(&out, STR("x:")) && json_append_quoted(&out, text));
    CHECK(str_equal(str_of(&out), STR("x:\"a\\\"b\\\\c/\\u000a\\u0001\x7f\xc3\xa9\"")));
    CHECK(!json_append_quoted(&small, STR("abcd")) && small.failed);
    buf_free(&small);
    CHECK(json_append_quoted(&small, STR("abc")) && str_equal(str_of(&small), STR("\"abc\"")));
    CHECK(json_append_quoted(&empty, (struct str){NULL, 0}));
    CHECK(str_equal(str_of(&empty), STR("\"\"")));
    buf_free(&out);
    buf_free(&small);
    buf_free(&empty);
}

/* `piece` again and again, to 1 MiB, between the two halves of a document. */
static void repeated(const struct str frame[2], struct str piece, bool good)
{
    struct buf text = {0};

    buf_append(&text, frame[0]);
    while (text.length < 1024 * 1024)
        buf_append(&text, piece);
    buf_append(&text, frame[1]);
    if (good)
        check_accepted(str_of(&text));
    else
        check_refused(str_of(&text));
    buf_free(&text);
}

static void long_texts_take_no_time(void)
{
    static const struct {
        struct str frame[2], piece;
        bool good;
    } cases[] = {
        {{STR_INIT("{\"a\":[0"), STR_INIT("]}")}, STR_INIT(",{\"a\":1}"), true},
        {{STR_INIT("{\"a\":[0"), STR_INIT("]}")},
         STR_INIT(",{\"a\":{\"a\":[[{\"a\":{}}]]}}"),
         true},
        {{STR_INIT("{\"a\":[0"), STR_INIT(",{\"a\":1,\"a\":2}]}")}, STR_INIT(",{\"a\":1}"), true},
        {{STR_INIT("{\"a\":[0"), STR_INIT("]}")}, STR_INIT(",[]"), true},
        {{STR_INIT("{\"a\":[0"), STR_INIT("]}")}, STR_INIT(",1"), true},
        {{STR_INIT("{\"a\":"), STR_INIT("}")}, STR_INIT("["), false},
        {{STR_INIT("{\"a\":"), STR_INIT("}")}, STR_INIT("{\"a\":"), false},
        {{STR_INIT("{\"a\":\""), STR_INIT("\"}")}, STR_INIT("a long string "), true},
        {{STR_INIT("{\"a\":\""), STR_INIT("\"}")}, STR_INIT("\xe2\x82\xac"), true},
        {{STR_INIT("{\"a\":\""), STR_INIT("\"}")}, STR_INIT("\\\""), true},
        {{STR_INIT("{\"a\":\""), STR_INIT("\"}")}, STR_INIT("\\ud800"), true},
        {{STR_INIT("{\"a\":\""), STR_INIT("")}, STR_INIT("a string without an end"), false},
        {{STR_INIT("{\""), STR_INIT("\":1}")}, STR_INIT("\\u0061"), true},
        {{STR_INIT("{\"a\":1"), STR_INIT("}")}, STR_INIT("0123456789"), true},
        {{STR_INIT("{\"a\":1"), STR_INIT("x}")}, STR_INIT("0123456789"), false},
        {{STR_INIT("{\"a\":1"), STR_INIT("}")}, STR_INIT(" \t\r\n"), true},
        {{STR_INIT("{"), STR_INIT("")}, STR_INIT(" \t\r\n"), false},
    };

    for (size_t i = 0; i < COUNT(cases); i++)
        repeated(cases[i].frame, cases[i].piece, cases[i].good);
}

int main(void)
{
    alarm(60); /* what should take no time could take minutes */
    test_run("good values come back, and prefixes are refused",
             good_values_come_back_and_prefixes_are_refused);
    test_run("bad values are refused", bad_values_are_refused);
    test_run("one object is one document", one_object_is_one_document);
    test_run("control bytes are refused", control_bytes_are_refused);
    test_run("invalid utf8 is refused", invalid_utf8_is_refused);
    test_run("errors tell where", errors_tell_where);
    test_run("wanted members stand once", wanted_members_stand_once);
    test_run("other members may stand twice", other_members_may_stand_twice);
    test_run("depth is limited", depth_is_limited);
    test_run("members are found", members_are_found);
    test_run("arrays are taken apart", arrays_are_taken_apart);
    test_run("elements have their types", elements_have_their_types);
    test_run("strings are decoded", strings_are_decoded);
    test_run("half surrogate pairs are not decoded", half_surrogate_pairs_are_not_decoded);
    test_run("only strings with room are decoded", only_strings_with_room_are_decoded);
    test_run("every escaped character is decoded", every_escaped_character_is_decoded);
    test_run("integers are decoded", integers_are_decoded);
    test_run("truth is told", truth_is_told);
    test_run("quoting and decoding give the same", quoting_and_decoding_give_the_same);
    test_run("quoted text is appended", quoted_text_is_appended);
    test_run("long texts take no time", long_texts_take_no_time);
    return test_finish();
}
