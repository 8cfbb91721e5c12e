/* test_api.c - api.c: what each route takes, refuses and answers, at and past every limit. */
#include "node.h"

#include "http.h"
#include "json.h"
#include "os.h"
#include "ticket.h"

/* a and b are of the system shop, c of another. */
static struct test_client clients[3];

static int64_t now, unix_now; /* of the next call */
static bool skip_late;        /* late answers are not waited for */

/* What the last call brought. */
static struct {
    int status, told; /* the second is the code that the answer is said to have */
    char system[ACCOUNT_NAME_MAX + 1];
    const char *allow;
    unsigned retry_after;
    bool late;
    struct buf body;
    int64_t code;
    struct str msg, data; /* JSON */
} answer;

struct call {
    const char *method, *path, *headers; /* NULL: POST, and a good token of shop */
    struct str body;                     /* '@', '~' and '^' stand for the ids of a, b and c */
};

/* --- calling --------------------------------------------------------------------------------- */

static const char *token_line(const struct crypto_keyring *keys, const char *system,
                              uint64_t generation, int64_t expires)
{
    struct buf token = {0};
    const char *line;

    CHECK(crypto_sign_token(keys->keys, str_from(system), generation, expires, &token));
    line = textf("Token: %.*s\r\n", (int)token.length, token.at);
    buf_free(&token);
    return line;
}

/* A token's line; its system is registered unless it is already. */
static const char *token_of(const char *system)
{
    if (!account_exists(node.accounts, str_from(system)))
        node_register(str_from(system), STR("secret"));
    return token_line(&node.keys, system, node_generation(str_from(system)), unix_now + 60);
}

/* An answer is one envelope, {"code":…,"msg":…,"data":…} in this order, whose code fits the
 * status. */
static void check_envelope(void)
{
    static const struct {
        int64_t code;
        int statuses[5];
    } fits[] = {
        {0, {200}},     {-1, {400, 403, 404, 405, 415}},
        {-1001, {200}}, {-1002, {401}},
        {-1003, {200}}, {-1004, {200}},
        {-1005, {200}}, {-1006, {429}},
        {-1007, {503}},
    };
    struct json_field fields[] = {
        {.name = STR("code")}, {.name = STR("msg")}, {.name = STR("data")}};
    struct buf expected = {0};
    struct json_error error;
    bool fit = false;

    if (!CHECK(json_parse_object(str_of(&answer.body), fields, 3, &error)) ||
        !CHECK(json_decode_integer(fields[0].value, &answer.code)))
        return;
    answer.msg = fields[1].value.text;
    answer.data = fields[2].value.text;
    CHECK(fields[1].value.type == JSON_STRING);
    buf_append(&expected, str_from(textf("{\"code\":%lld,\"msg\":", (long long)answer.code)));
    buf_append(&expected, answer.msg);
    buf_append(&expected, STR(",\"data\":"));
    buf_append(&expected, answer.data);
    buf_append(&expected, STR("}"));
    CHECK(same(str_of(&answer.body), str_of(&expected)));
    buf_free(&expected);
    for (size_t i = 0; i < COUNT(fits); i++)
        for (size_t j = 0; j < 5 && fits[i].code == answer.code; j++)
            fit = fit || fits[i].statuses[j] == answer.status;
    CHECK(fit);
    CHECK(str_equal(answer.msg, STR("\"success\"")) == (answer.code == 0));
    CHECK(answer.code == 0 || (str_equal(answer.data, STR("[]")) && answer.msg.length > 2));
    CHECK((answer.retry_after > 0) == (answer.status == 429));
    CHECK(answer.told == answer.code); /* under which it is counted */
}

/* Appends a text with ids in place of their signs. */
static struct str with_ids(struct str pattern, struct buf *out)
{
    for (size_t i = 0; i < pattern.length; i++) {
        const char *sign = memchr("@~^", pattern.at[i], 3);

        if (sign)
            buf_append(out, id_of(&clients[sign - "@~^"]));
        else
            buf_append(out, (struct str){pattern.at + i, 1});
    }
    return str_of(out);
}

static unsigned char address[16]; /* of the caller */

static bool body_comes_later; /* than the head: others have called meanwhile */

static bool forget_caller(struct api_call *call)
{
    memset(node.api.system, 'x', sizeof node.api.system);
    call->system = (struct str){0};
    return true;
}

static void perform(struct call call)
{
    const char *headers = call.headers ? call.headers : token_of("shop");
    struct str head = str_from(textf("%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n",
                                     call.method ? call.method : "POST", call.path, headers));
    static struct http_request request;
    struct api_call this;
    struct api_response got = {0};
    struct account_result result;
    struct buf body = {0};

    CHECK(http_parse_request(head, 8192, &request) == HTTP_OK);
    this = (struct api_call){.request = &request,
                             .route = api_route(request.path),
                             .body = with_ids(call.body, &body),
                             .request_id = 77,
                             .address = address,
                             .now = now,
                             .unix_now = unix_now};
    answer.late = api_check(&node.api, &this, &got) &&
                  (!body_comes_later || forget_caller(&this)) &&
                  api_handle(&node.api, &this, &got) == API_LATER;
    buf_free(&body);
    buf_free(&answer.body);
    if (answer.late && skip_late)
        return;
    if (answer.late && node_walk(&got)) {
        /* a walk of roster.h */
    } else if (answer.late && node_await(&result)) {
        CHECK(result.request_id == 77);
        api_finish(&node.api, &result, unix_now, &got);
    }
    flush();
    answer.status = got.status;
    answer.told = got.code;
    snprintf(answer.system, sizeof answer.system, "%.*s", (int)got.system.length,
             got.system.length ? got.system.at : "");
    answer.allow = got.allow;
    answer.retry_after = got.retry_after;
    answer.body = got.body;
    CHECK(!got.fields);
    check_envelope();
}

static bool is_answered(int status, int64_t code)
{
    if (answer.status == status && answer.code == code)
        return true;
    printf("  expected %d and %lld, got %d: %.*s\n", status, (long long)code, answer.status,
           (int)answer.body.length, answer.body.at);
    return false;
}

/* Calls with these header lines; NULL: with a token of shop. */
static bool calls_with(const char *headers, const char *path, const char *body, int status,
                       int64_t code)
{
    perform((struct call){.path = path, .headers = headers, .body = str_from(body)});
    return is_answered(status, code);
}

static bool calls(const char *path, const char *body, int status, int64_t code)
{
    return calls_with(NULL, path, body, status, code);
}

static bool answers_data(const char *path, const char *body, const char *data)
{
    return calls(path, body, 200, 0) && same(answer.data, str_from(data));
}

/* Refuses with 400 and -1, and names what is wrong. */
static bool refuses(const char *path, const char *body, const char *what)
{
    return calls(path, body, 400, -1) && contains(answer.msg, what);
}

static void set_up(void)
{
    static const char *const systems[] = {"shop", "shop", "other"};

    node_open();
    now = 1000000;
    unix_now = UNIX_NOW;
    skip_late = false;
    for (size_t i = 0; i < COUNT(clients); i++)
        arrive(&clients[i], str_from(systems[i]));
}

static void tear_down(void)
{
    for (size_t i = 0; i < COUNT(clients); i++)
        depart(&clients[i]);
    buf_free(&answer.body);
    node_close();
}

/* Calls may have closed one. */
static void reconnect(struct test_client *client)
{
    if (!client->conn.client) {
        depart(client);
        arrive(client, STR("shop"));
    }
    far_forget(&client->far);
}

/* --- routes and their fields ----------------------------------------------------------------- */

enum kind { TEXT, INTEGER, BOOLEAN, TEXTS, ANY };

static const struct {
    const char *name, *good;
    enum kind kind;
} fields[] = {
    {"systemId", "\"s\"", TEXT},     {"password", "\"p\"", TEXT},      {"clientId", "\"@\"", TEXT},
    {"groupName", "\"g\"", TEXT},    {"userId", "\"u\"", TEXT},        {"extend", "\"e\"", TEXT},
    {"code", "1000", INTEGER},       {"msg", "\"m\"", TEXT},           {"data", "{\"a\":1}", ANY},
    {"sendUserId", "\"x\"", TEXT},   {"messageId", "\"y\"", TEXT},     {"receipt", "true", BOOLEAN},
    {"exclude", "[\"~\"]", TEXTS},   {"clientIds", "[\"@\"]", TEXTS},  {"reason", "\"r\"", TEXT},
    {"system", "true", BOOLEAN},     {"groupNames", "[\"g\"]", TEXTS}, {"userIds", "[]", TEXTS},
    {"groups", "true", BOOLEAN},     {"prefix", "\"g\"", TEXT},        {"after", "\"\"", TEXT},
    {"once", "false", BOOLEAN},      {"limit", "1", INTEGER},          {"except", "[\"~\"]", TEXTS},
    {"newPassword", "\"n\"", TEXT},  {"rotate", "true", BOOLEAN},      {"ttl", "60", INTEGER},
    {"session", "0", INTEGER},       {"groups[]", "[\"g\"]", TEXTS},   {"url", "\"\"", TEXT},
    {"events", "[\"join\"]", TEXTS},
};

/* The name in a body: "groups" is a boolean for one path, and an array, groups[], for another. */
static const char *field_name(const char *word)
{
    return textf("%.*s", (int)strcspn(word, "["), word);
}

static const struct route {
    const char *path, *required, *optional;
} routes[] = {
    {"/api/register", "systemId password", ""},
    {"/api/login", "systemId password", ""},
    {"/api/set_password", "password newPassword", "systemId"}, /* with a Token */
    {"/api/delete_system", "password", ""},
    {"/api/ticket_key", "", "rotate"},
    {"/api/set_webhook", "url", "events rotate"},
    {"/api/webhook_status", "", ""},
    {"/api/send_to_client", "clientId code msg data", "sendUserId messageId receipt once"},
    {"/api/bind_to_group", "clientId groupName", "userId extend"},
    {"/api/send_to_group", "groupName code msg data", "sendUserId messageId receipt once exclude"},
    {"/api/get_online_list", "groupName", ""},
    {"/api/send_to_clients", "clientIds code msg data", "sendUserId messageId receipt once"},
    {"/api/send_to_system", "code msg data", "sendUserId messageId receipt once"},
    {"/api/send_to_user", "userId code msg data", "sendUserId messageId receipt once"},
    {"/api/unbind_from_group", "clientId groupName", ""},
    {"/api/close_client", "clientId", "code reason"},
    {"/api/count", "", "system groupNames userIds"},
    {"/api/list_clients", "", "groupName userId groups after limit"},
    {"/api/list_groups", "", "prefix after limit"},
    {"/api/bind_user_to_group", "userId groupName", ""},
    {"/api/unbind_user_from_group", "userId groupName", ""},
    {"/api/close_user", "userId", "code reason except"},
    {"/api/client_info", "clientId", ""},
    {"/api/ticket", "", "userId extend groups[] ttl session"},
};

static bool has_word(const char *words, const char *word)
{
    struct str rest = str_from(words);

    while (rest.at)
        if (str_equal(str_cut(&rest, ' '), str_from(word)))
            return true;
    return false;
}

/* How a body differs from a good one. */
struct twist {
    const char *without;       /* a field that is left out */
    const char *field, *value; /* one with another value */
    bool bare;                 /* no optional fields */
    bool strange;              /* with all fields of other routes, ill-typed */
    const char *more;          /* further members */
};

static const char *twisted_value(size_t field, const struct twist *twist)
{
    bool here = twist->field && strcmp(twist->field, fields[field].name) == 0;

    return here ? twist->value : fields[field].good;
}

static const char *make_body(const struct route *route, struct twist twist)
{
    static char body[2000];
    size_t length = 0;

    for (size_t i = 0; i < COUNT(fields); i++) {
        const char *name = fields[i].name, *value = NULL;

        if (has_word(route->required, name))
            value = twisted_value(i, &twist);
        else if (has_word(route->optional, name))
            value = twist.bare ? NULL : twisted_value(i, &twist);
        else if (twist.strange && !has_word(route->optional, textf("%s[]", name)) &&
                 !has_word(route->optional, field_name(name)))
            value = fields[i].kind == INTEGER ? "[]" : "12";
        if (value && !(twist.without && strcmp(twist.without, name) == 0))
            length += (size_t)snprintf(body + length, sizeof body - length, "%c\"%s\":%s",
                                       length ? ',' : '{', field_name(name), value);
    }
    snprintf(body + length, sizeof body - length, "%s%s}", length ? "" : "{",
             twist.more ? twist.more : "");
    return body;
}

/* True if it is a success, or would be but for the account. */
static bool is_taken(const struct route *route, const char *body)
{
    perform((struct call){.path = route->path, .body = str_from(body)});
    reconnect(&clients[0]);
    if (answer.status == 200 && (answer.code == 0 || answer.code == -1004 || answer.code == -1005))
        return true;
    printf("  %s %s\n  was refused: %.*s\n", route->path, body, (int)answer.body.length,
           answer.body.at);
    return false;
}

static bool is_refused(const struct route *route, const char *body, const char *what)
{
    bool good = refuses(route->path, body, what);

    if (!good)
        printf("  %s %s\n", route->path, body);
    return good && !answer.late && clients[0].conn.client;
}

static void good_bodies_are_taken(void)
{
    for (size_t i = 0; i < COUNT(routes); i++) {
        CHECK(is_taken(&routes[i], make_body(&routes[i], (struct twist){.bare = true})));
        CHECK(is_taken(&routes[i], make_body(&routes[i], (struct twist){0})));
        CHECK(
            is_taken(&routes[i], textf(" \r\n\t%s \n", make_body(&routes[i], (struct twist){0}))));
        CHECK(is_taken(&routes[i],
                       textf("\xef\xbb\xbf%s", make_body(&routes[i], (struct twist){0}))));
    }
}

static void required_fields_are_required(void)
{
    for (size_t i = 0; i < COUNT(routes); i++) {
        for (size_t field = 0; field < COUNT(fields); field++) {
            const char *name = fields[field].name;
            const char *body = make_body(&routes[i], (struct twist){.without = name});

            if (has_word(routes[i].required, name))
                CHECK(is_refused(&routes[i], body, textf("field %s is missing", name)));
            else
                CHECK(is_taken(&routes[i], body));
        }
    }
}

static void ill_typed_fields_are_refused(void)
{
    static const char *const values[] = {
        "null", "true",          "12",  "\"12\"", "[]", "[\"a\",1]", "[\"a\",[\"b\"]]",
        "{}",   "{\"a\":\"b\"}", "1.5", "\"]\""};
    /* how good ones begin */
    static const char *const good[] = {
        [TEXT] = "\"", [INTEGER] = "12", [BOOLEAN] = "true", [TEXTS] = "[]", [ANY] = ""};

    for (size_t i = 0; i < COUNT(routes); i++)
        for (size_t field = 0; field < COUNT(fields); field++)
            for (size_t value = 0; value < COUNT(values); value++) {
                struct twist twist = {.field = fields[field].name, .value = values[value]};
                const char *begin = good[fields[field].kind];

                if (strncmp(twist.value, begin, strlen(begin)) == 0)
                    continue;
                if (has_word(routes[i].required, twist.field) ||
                    has_word(routes[i].optional, twist.field))
                    CHECK(is_refused(&routes[i], make_body(&routes[i], twist),
                                     textf("field %s must be", field_name(twist.field))));
            }
}

static void unknown_fields_are_ignored(void)
{
    for (size_t i = 0; i < COUNT(routes); i++) {
        struct twist twist = {.strange = true,
                              .more = ",\"\":[[]],\"CODE\":null,\"Data\":{\"a\":1}"};

        CHECK(is_taken(&routes[i], make_body(&routes[i], twist)));
    }
    /* a receipt on what is no send, and an exclusion of what is no group, say nothing */
    CHECK(answers_data("/api/bind_to_group",
                       "{\"clientId\":\"@\",\"groupName\":\"g\",\"receipt\":true}", "[]"));
    far_forget(&clients[0].far);
    CHECK(calls("/api/send_to_system",
                "{\"code\":1,\"msg\":\"m\",\"data\":1,\"exclude\":[\"@\"],\"clientIds\":[]}", 200,
                0));
    CHECK(got_text(&clients[0].far, "{\"code\":1,\"msg\":\"m\",\"data\":1}"));
}

/* What is JSON is tested with json.c. A byte order mark may stand in front, once. */
static void bodies_that_are_no_object_are_refused(void)
{
    static const char rows[] = "|[]|{|{\"a\":\"\xff\"}|\xef\xbb{}|"
                               "\xef\xbb\xbf|\xef\xbb\xbf\xef\xbb\xbf{}|{}\xef\xbb\xbf";

    for (size_t i = 0; i < COUNT(routes); i++)
        for (struct str rest = str_from(rows); rest.at;) {
            struct str body = str_cut(&rest, '|');

            CHECK(
                is_refused(&routes[i], textf("%.*s", (int)body.length, body.at), "not valid JSON"));
        }
    CHECK(refuses("/api/login", "{\"systemId\":\"s\",\"system\\u0049d\":\"s\"}", "not valid JSON"));
    CHECK(calls("/api/send_to_system", /* neither name is one of this call's */
                "{\"systemId\":1,\"systemId\":2,\"code\":1,\"msg\":\"m\",\"data\":1}", 200, 0));
    CHECK(calls("/api/send_to_system", "{\"code\":-9223372036854775808,\"msg\":\"m\",\"data\":1}",
                200, 0));
    CHECK(refuses("/api/send_to_system", "{\"code\":1.0,\"msg\":\"m\",\"data\":1}",
                  "field code must be an integer of 64 bits"));
}

/* --- limits ---------------------------------------------------------------------------------- */

/* The good body of a route with `count` times `unit` and then `tail` as the text of one field. */
static const char *long_body(const struct route *route, const char *field, const char *unit,
                             size_t count, const char *tail)
{
    static char value[8000], body[9000];
    struct str good = str_from(make_body(
        route,
        (struct twist){.field = field, .value = "#", .bare = has_word(route->required, field)}));
    struct str before = str_cut(&good, '#');
    size_t length = 0;

    value[0] = '\0';
    for (size_t i = 0; i < count; i++)
        length += (size_t)snprintf(value + length, sizeof value - length, "%s", unit);
    snprintf(body, sizeof body, "%.*s\"%s%s\"%.*s", (int)before.length, before.at, value, tail,
             (int)good.length, good.at);
    return body;
}

static const struct route *route_of(const char *path)
{
    for (size_t i = 0; i < COUNT(routes); i++)
        if (strcmp(routes[i].path, path) == 0)
            return &routes[i];
    abort();
}

/* Every string that is decoded: `least` is 1 for what must not be empty. */
static const struct text_rule {
    const char *field;
    size_t limit, least;
    bool is_name;
    const char *paths;
} text_rules[] = {
    {"systemId", 128, 1, true, "register login"},
    {"password", 256, 1, false, "register login"},
    {"groupName", 128, 1, true,
     "bind_to_group unbind_from_group send_to_group get_online_list bind_user_to_group "
     "unbind_user_from_group"},
    {"groupName", 128, 0, true, "list_clients"},
    {"prefix", 128, 0, true, "list_groups"},
    {"userId", 128, 1, true, "send_to_user bind_user_to_group unbind_user_from_group close_user"},
    {"userId", 128, 0, true, "bind_to_group list_clients"},
    {"extend", 1024, 0, false, "bind_to_group"},
    {"messageId", 64, 0, false,
     "send_to_client send_to_clients send_to_group send_to_user send_to_system"},
    {"reason", 123, 0, false, "close_client close_user"},
};

/* Runs a check for every rule and each of its routes. */
static void for_each_text(void (*check)(const struct text_rule *rule, const struct route *route))
{
    for (size_t i = 0; i < COUNT(text_rules); i++)
        for (struct str rest = str_from(text_rules[i].paths); rest.at;) {
            struct str path = str_cut(&rest, ' ');

            check(&text_rules[i], route_of(textf("/api/%.*s", (int)path.length, path.at)));
        }
}

/* A login with a good body is not taken: it would have to be of an account. */
static bool is_text_taken(const struct route *route, const char *body)
{
    return strcmp(route->path, "/api/login") == 0 || is_taken(route, body);
}

static void check_length(const struct text_rule *rule, const struct route *route)
{
    /* one character in several ways, and how many bytes it has */
    static const struct {
        const char *unit;
        size_t bytes;
    } units[] = {{"x", 1},       {"\xc3\xa9", 2}, {"\xe2\x82\xac", 3}, {"\xf0\x9f\x98\x80", 4},
                 {"\\u0041", 1}, {"\\u00e9", 2},  {"\\u20AC", 3},      {"\\uD83D\\uDE00", 4},
                 {"\\\"", 1}};
    static const char *const rest[] = {"", "a", "ab", "abc"};
    const char *field = rule->field;

    for (size_t i = 0; i < COUNT(units); i++) {
        size_t count = rule->limit / units[i].bytes;
        const char *unit = units[i].unit, *tail = rest[rule->limit % units[i].bytes];

        CHECK(is_refused(
            route, long_body(route, field, unit, count, textf("%s!", tail)),
            textf("field %s is too long; the limit in bytes is %zu", field, rule->limit)));
        CHECK(is_text_taken(route, long_body(route, field, unit, count, tail)));
    }
    if (rule->least)
        CHECK(is_refused(route, long_body(route, field, "", 0, ""),
                         textf("field %s must not be empty", field)));
    else
        CHECK(is_taken(route, long_body(route, field, "", 0, "")));
}

static void texts_may_be_as_long_as_their_limit(void)
{
    for_each_text(check_length);
}

static void check_characters(const struct text_rule *rule, const struct route *route)
{
    static const char *const texts[2] = {
        "\\u0000|\\n|\\t|\\b|\\u001f|\\u007f|\x7f|\\u0080|\xc2\x80|"
        "\\u0085|\xc2\x9f|\\u009f",
        "\\u0020|!|\\u007e|\xc2\xa0|\xc3\x80|\\u00a0|\xe2\x82\xac|"
        "\xe2\x80\x8b"};

    for (int good = 0; good < 2; good++)
        for (struct str rest = str_from(texts[good]); rest.at;) {
            struct str text = str_cut(&rest, '|');
            const char *body =
                long_body(route, rule->field, "a", 1, textf("%.*sz", (int)text.length, text.at));

            if (good || !rule->is_name)
                CHECK(is_text_taken(route, body));
            else
                CHECK(is_refused(route, body,
                                 textf("field %s has a control character", rule->field)));
        }
    CHECK(is_refused(route, long_body(route, rule->field, "\\ud800", 1, ""),
                     textf("field %s has half of a surrogate pair", rule->field)));
}

static void pages_and_lists_of_names_have_limits(void)
{
    static const char *const fields_of_names[] = {"groupNames", "userIds"};
    static char names[5000];

    for (int limit = 0; limit <= 1001; limit += limit == 1 ? 999 : 1) {
        const char *body = textf("{\"limit\":%d}", limit);

        if (limit == 1 || limit == 1000)
            CHECK(calls("/api/list_groups", body, 200, 0) &&
                  calls("/api/list_clients", body, 200, 0));
        else
            CHECK(refuses("/api/list_groups", body, "field limit must be from 1 to 1000") &&
                  refuses("/api/list_clients", body, "field limit must be from 1 to 1000"));
    }
    CHECK(refuses("/api/list_groups", "{\"limit\":-1}", "field limit must be from 1 to 1000"));
    for (size_t i = 0; i < 1001; i++)
        strcat(names, i ? ",\"\"" : "\"\"");
    for (size_t i = 0; i < 2; i++) {
        CHECK(refuses("/api/count", textf("{\"%s\":[%s]}", fields_of_names[i], names),
                      "too many entries; the limit is 1000"));
        CHECK(calls("/api/count", textf("{\"%s\":[%s]}", fields_of_names[i], names + 3), 200, 0));
    }
}

static void names_have_no_control_characters(void)
{
    for_each_text(check_characters);
}

/* --- callers ---------------------------------------------------------------------------- */

static void routes_take_post_alone(void)
{
    static const char *const methods[] = {"GET",  "HEAD",  "PUT",     "DELETE", "PATCH",
                                          "post", "POSTX", "CONNECT", "TRACE"};

    for (size_t i = 0; i < COUNT(routes); i++) {
        for (size_t method = 0; method < COUNT(methods); method++) {
            perform((struct call){.method = methods[method], .path = routes[i].path});
            CHECK(is_answered(405, -1) && contains(answer.msg, "POST"));
            CHECK(answer.allow && same(str_from(answer.allow), STR("POST, OPTIONS")));
        }
        perform((struct call){.method = "OPTIONS", .path = routes[i].path, .headers = ""});
        CHECK(is_answered(200, 0) && same(str_from(answer.allow), STR("POST, OPTIONS")));
        CHECK(is_taken(&routes[i], make_body(&routes[i], (struct twist){0})) && !answer.allow);
        perform((struct call){.path = textf("%s?a=b", routes[i].path),
                              .body = str_from(make_body(&routes[i], (struct twist){0}))});
        CHECK(answer.status == 200);
        reconnect(&clients[0]);
    }
    perform((struct call){.method = "OPTIONS", .path = "*", .headers = ""});
    CHECK(is_answered(200, 0) && contains(str_from(answer.allow), "POST"));
}

/* Makes a good call with these header lines at every route: refused with a message that has
 * `named`, or, if that is NULL, taken. */
static void check_everywhere(const char *headers, int status, const char *named)
{
    char lines[1000], given[500];

    snprintf(given, sizeof given, "%s", headers); /* it may be of textf, which is used below */
    for (size_t i = 0; i < COUNT(routes); i++) {
        const char *body = make_body(&routes[i], (struct twist){0});

        snprintf(lines, sizeof lines, "%s%s", token_of("shop"), given);
        perform((struct call){.path = routes[i].path, .headers = lines, .body = str_from(body)});
        reconnect(&clients[0]);
        if (named)
            CHECK(is_answered(status, -1) && contains(answer.msg, named));
        else
            CHECK(answer.status == 200);
    }
}

/* Browsers say for whose pages they ask; programs do not. */
static void pages_of_other_sites_are_refused(void)
{
    static const struct {
        const char *headers, *allowed; /* allowed_origins; NULL is empty */
        const char *named;             /* in the refusal; NULL: it may call */
    } rows[] = {
        {"", NULL, NULL},
        {"Sec-Fetch-Site: same-origin\r\nOrigin: http://h\r\n", NULL, NULL},
        {"Sec-Fetch-Site: same-origin\r\nOrigin: http://x\r\n", NULL, NULL}, /* a proxy */
        {"Sec-Fetch-Site: same-site\r\nOrigin: http://x.h\r\n", NULL, NULL},
        {"Sec-Fetch-Site: none\r\n", NULL, NULL},
        {"Sec-Fetch-Site: cross-site\r\nOrigin: http://x\r\n", NULL, "Origin http://x "},
        {"sec-fetch-site:Cross-Site\r\nOrigin: null\r\n", NULL, "Origin null "},
        {"Sec-Fetch-Site: cross-site\r\nOrigin: http://x\r\n", "http://x", "Origin http://x "},
        {"Sec-Fetch-Site: cross-site\r\n", NULL, "Origin (none) "},
        {"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", NULL, "Origin (none) "},
        {"Origin: http://h\r\n", NULL, NULL},
        {"Origin: https://H:8443\r\n", NULL, NULL},
        {"Origin: http://x\r\n", NULL, "Origin http://x is foreign to Host h:"},
        {"Origin: http://x.h\r\n", NULL, "Origin http://x.h "},
        {"Origin: http://hh\r\n", NULL, "Origin http://hh "},
        {"Origin: http://h@x\r\n", NULL, "Origin http://h@x "},
        {"Origin: http://x:80/h\r\n", NULL, "Origin http://x:80/h "},
        {"Origin: h\r\n", NULL, "Origin h "},
        {"Origin: null\r\n", NULL, "Origin null "},
        {"Origin:\r\n", NULL, "Origin  "},
        {"Origin: http://\r\n", NULL, "Origin http:// "},
        {"Origin: http://h\r\nOrigin: http://h\r\n", NULL, "Origin http://h "},
        {"Origin: \xff \"\x80\r\n", NULL, "Origin ??\\\"? "},
        {"Origin: http://x\r\n", "http://x", NULL},
        {"Origin: http://y\r\n", "http://x", "Origin http://y "},
        {"Origin: http://h\r\n", "http://x", NULL},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        strcpy(node.config.allowed_origins, rows[i].allowed ? rows[i].allowed : "");
        check_everywhere(rows[i].headers, 403, rows[i].named);
    }
}

/* What is compressed is refused by name, once the caller may call, and costs it no call. */
static void codings_are_refused(void)
{
    static const struct {
        const char *header, *named; /* NULL: it is taken */
    } rows[] = {
        {"Content-Encoding: identity", NULL},
        {"content-encoding: IDENTITY ", NULL},
        {"Content-Encoding: gzip", "Content-Encoding gzip is"},
        {"Content-Encoding: br, gzip", "Content-Encoding br,?gzip is"},
        {"Content-Encoding:", NULL},
        {"Content-Encoding: identity\r\nContent-Encoding: gzip", "Content-Encoding identity is"},
        {"Content-Encoding: \x80\"", "Content-Encoding ?\\\" is"},
    };

    for (size_t i = 0; i < COUNT(rows); i++)
        check_everywhere(textf("%s\r\n", rows[i].header), 415, rows[i].named);
    CHECK(calls_with("Content-Encoding: gzip\r\n", "/api/get_online_list", "", 401, -1002));
    node.config.api_rate = 1;
    for (int i = 0; i < 3; i++) {
        CHECK(calls_with(textf("%s%s", token_of("shop"), "Content-Encoding: x\r\n"),
                         "/api/get_online_list", "", 415, -1));
    }
    CHECK(calls("/api/get_online_list", "{\"groupName\":\"g\"}", 200, 0));
}

/* A long Origin is cut; the host of an absolute target goes before Host. */
static void a_refusal_names_both_sites(void)
{
    static struct http_request request;
    struct api_response got = {0};
    struct api_call call = {.request = &request, .route = api_route(STR("/api/login"))};
    const char *head = textf("POST http://[::1]:80/api/login HTTP/1.1\r\nHost: x\r\n"
                             "Origin: http://x%0500d\r\n\r\n",
                             0);

    call.address = address;
    CHECK(http_parse_request(str_from(head), 8192, &request) == HTTP_OK);
    CHECK(!api_check(&node.api, &call, &got) && got.status == 403);
    CHECK(
        contains(str_of(&got.body), textf("Origin http://x%092d is foreign to Host [::1]:80:", 0)));
    buf_free(&got.body);
    head = "POST http://[::1]:80/api/login HTTP/1.1\r\nHost: x\r\nOrigin: http://[::1]\r\n\r\n";
    CHECK(http_parse_request(str_from(head), 8192, &request) == HTTP_OK);
    CHECK(api_check(&node.api, &call, &got));
}

static void bodies_may_come_later(void)
{
    body_comes_later = true;
    for (size_t i = 0; i < COUNT(routes); i++)
        CHECK(is_taken(&routes[i], make_body(&routes[i], (struct twist){0})));
    CHECK(strcmp(answer.system, "shop") == 0);
    body_comes_later = false;
}

/* Every path has a number of its own, and all others have the last one. */
static void other_paths_are_unknown(void)
{
    static const char *const methods[] = {"POST", "GET", "HEAD", "OPTIONS"};
    struct str rest =
        STR("/|/api|/api/|/api/send_to_client/|/api/send_to_clien|/api/send_to_clientss|"
            "/API/register|/api/%72egister|//api/register|/api/register;x");
    bool seen[API_ROUTES] = {false};

    while (rest.at) {
        struct str path = str_cut(&rest, '|');

        CHECK(api_route(path) == API_ROUTES - 1);
        for (size_t method = 0; method < COUNT(methods); method++) {
            perform((struct call){.method = methods[method],
                                  .path = textf("%.*s", (int)path.length, path.at),
                                  .headers = ""});
            CHECK(is_answered(404, -1) && contains(answer.msg, "path") && !answer.allow);
        }
    }
    CHECK(COUNT(routes) == API_ROUTES - 1);
    for (size_t i = 0; i < COUNT(routes); i++) {
        unsigned route = api_route(str_from(routes[i].path));

        CHECK(route < API_ROUTES - 1 && !seen[route]);
        seen[route] = true;
        CHECK(same(api_path(route), str_from(routes[i].path)));
    }
    CHECK(api_path(API_ROUTES - 1).length == 0 && api_path(API_ROUTES).length == 0);
}

#define BAD_TOKENS 11

static void write_bad_tokens(char lines[BAD_TOKENS][800])
{
    const char *good = token_of("shop");
    uint64_t generation = node_generation(STR("shop"));
    struct crypto_keyring others = {0};
    int length = (int)strlen(good) - 2; /* without the line's end */
    size_t i = 0;

    CHECK(crypto_add_key(&others, STR("fedcba9876543210"), false));
    snprintf(lines[i++], 800, "%s", "");
    snprintf(lines[i++], 800, "Token:\r\n");
    snprintf(lines[i++], 800, "Token: x\r\n");
    snprintf(lines[i++], 800, "%s", token_line(&node.keys, "shop", generation, unix_now));
    snprintf(lines[i++], 800, "%s", token_line(&node.keys, "shop", generation, 0));
    snprintf(lines[i++], 800, "%s", token_line(&others, "shop", generation, unix_now + 60));
    snprintf(lines[i++], 800, "%s%s", good, good);
    snprintf(lines[i++], 800, "Authorization: %s", good + strlen("Token: "));
    snprintf(lines[i++], 800, "%.*s0\r\n", length, good);
    snprintf(lines[i++], 800, "%.*s\r\n", length - 1, good);
    snprintf(lines[i++], 800, "%.*s%c\r\n", length - 1, good, good[length - 1] == '0' ? '1' : '0');
    CHECK(i == BAD_TOKENS);
}

/* Every wrong token at every route is answered alike, whatever the body; register and login need
 * none. */
static void tokens_are_checked(void)
{
    static const char *const bodies[] = {"{}", "no JSON"};
    static char lines[BAD_TOKENS][800];

    write_bad_tokens(lines);
    for (size_t i = 0; i < COUNT(routes); i++)
        for (size_t row = 0; row < 2 * COUNT(lines); row++) {
            perform((struct call){.path = routes[i].path,
                                  .headers = lines[row / 2],
                                  .body = str_from(bodies[row % 2])});
            if (has_word(routes[i].required, "systemId"))
                CHECK(is_answered(400, -1));
            else
                CHECK(is_answered(401, -1002) && contains(answer.msg, "Token"));
        }
}

static void a_token_may_outlive_its_account(void)
{
    CHECK(calls_with(token_line(&node.keys, "gone", 1, unix_now + 60), "/api/get_online_list",
                     "{\"groupName\":\"g\"}", 200, -1001) &&
          contains(answer.msg, "systemId"));
}

static void a_token_is_for_its_system(void)
{
    static const char body[] = "{\"clientId\":\"@\",\"groupName\":\"g\",\"code\":1000,"
                               "\"msg\":\"m\",\"data\":1,\"clientIds\":[\"@\"],\"userId\":\"u\"}";
    static const char *const paths[] = {"/api/send_to_client", "/api/bind_to_group",
                                        "/api/unbind_from_group", "/api/close_client",
                                        "/api/client_info"};
    static const char *const empty[][2] = {
        {"/api/send_to_group", "[]"},
        {"/api/send_to_user", "[]"},
        {"/api/get_online_list", "{\"count\":0,\"list\":[]}"},
    };

    CHECK(calls("/api/bind_to_group", body, 200, 0));
    reconnect(&clients[0]);
    for (size_t i = 0; i < COUNT(paths); i++) {
        perform(
            (struct call){.path = paths[i], .headers = token_of("other"), .body = str_from(body)});
        CHECK(is_answered(200, -1003) && same(answer.msg, STR("\"client not online\"")));
    }
    for (size_t i = 0; i < COUNT(empty); i++) {
        CHECK(calls_with(token_of("other"), empty[i][0], body, 200, 0) &&
              same(answer.data, str_from(empty[i][1])));
    }
    perform((struct call){
        .path = "/api/send_to_clients", .headers = token_of("other"), .body = str_from(body)});
    CHECK(same(answer.data, str_from(textf("{\"failed\":[\"%s\"]}", clients[0].id))));
    CHECK(got_nothing(&clients[0].far));
    perform((struct call){
        .path = "/api/send_to_system", .headers = token_of("other"), .body = str_from(body)});
    CHECK(got_nothing(&clients[0].far));
    CHECK(got_text(&clients[2].far, "{\"code\":1000,\"msg\":\"m\",\"data\":1}"));
}

static bool is_within_rate(const char *system)
{
    perform((struct call){.path = "/api/get_online_list",
                          .headers = token_of(system),
                          .body = STR("{\"groupName\":\"g\"}")});
    if (answer.status == 200)
        return true;
    CHECK(is_answered(429, -1006) && answer.retry_after == 1);
    CHECK(contains(answer.msg, "api_rate"));
    return false;
}

/* What is rejected anyway counts as well, but not what has no token. */
static void calls_are_limited_by_rate(void)
{
    node.config.api_rate = 4;
    for (int i = 0; i < 4; i++)
        CHECK(calls("/api/send_to_group", "", 400, -1));
    CHECK(!is_within_rate("shop") && is_within_rate("other"));
    now += 250;
    CHECK(is_within_rate("shop") && !is_within_rate("shop"));
    CHECK(calls_with("", "/api/send_to_group", "", 401, -1002));
    CHECK(calls("/api/register", "{\"systemId\":\"s\",\"password\":\"p\"}", 200, 0));
    node.config.api_rate = 0;
    for (int i = 0; i < 20; i++)
        CHECK(is_within_rate("shop"));
}

/* --- accounts -------------------------------------------------------------------------------- */

static void systems_register_and_log_in(void)
{
    static const struct {
        const char *path, *name, *password;
        int64_t code;
    } rows[] = {
        {"/api/login", "new", "secret", -1005},
        {"/api/register", "new", "secret", 0},
        {"/api/register", "new", "secret", -1004},
        {"/api/register", "new", "other", -1004},
        {"/api/login", "new", "secret", 0},
        {"/api/login", "new", "other", -1005},
        {"/api/login", "nobody", "secret", -1005},
        {"/api/login", "NEW", "secret", -1005},
        {"/api/login", "new ", "secret", -1005},
        {"/api/register", "\xc3\xa9 \xf0\x9f\x98\x80", "\\u0000\xe2\x82\xac", 0},
        {"/api/login", "\\u00e9 \\ud83d\\ude00", "\\u0000\\u20ac", 0},
        {"/api/login", "\\u00e9 \\ud83d\\ude00", "\\u0000", -1005},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        CHECK(calls(
            rows[i].path,
            textf("{\"systemId\":\"%s\",\"password\":\"%s\"}", rows[i].name, rows[i].password), 200,
            rows[i].code));
        CHECK(answer.late);
        if (rows[i].code == -1005)
            CHECK(same(answer.msg, STR("\"wrong systemId or password\"")));
        else if (rows[i].path[5] == 'r')
            CHECK(same(answer.data, STR("[]")));
    }
}

/* The token of a login opens the routes, until it expires. */
static void a_login_token_works(void)
{
    struct json_field parts[] = {{.name = STR("token")}, {.name = STR("expiresIn")}};
    char header[500];
    struct json_error error;
    struct call call = {.path = "/api/send_to_system",
                        .headers = header,
                        .body = STR("{\"code\":5,\"msg\":\"m\",\"data\":1}")};

    node_register(STR("shop"), STR("secret"));
    node.config.token_ttl = 1000;
    CHECK(calls("/api/login", "{\"systemId\":\"shop\",\"password\":\"secret\"}", 200, 0));
    CHECK(json_parse_object(answer.data, parts, 2, &error));
    CHECK(same(parts[1].value.text, STR("1000")));
    snprintf(header, sizeof header, "token: %.*s\r\n", (int)parts[0].value.text.length - 2,
             parts[0].value.text.at + 1);
    CHECK(same(answer.data,
               str_from(textf("{\"token\":%.*s,\"expiresIn\":1000}",
                              (int)parts[0].value.text.length, parts[0].value.text.at))));
    unix_now += 999;
    perform(call);
    CHECK(is_answered(200, 0));
    CHECK(got_text(&clients[0].far, "{\"code\":5,\"msg\":\"m\",\"data\":1}"));
    CHECK(got_nothing(&clients[2].far));
    unix_now += 1;
    perform(call);
    CHECK(is_answered(401, -1002));
}

static void registration_may_be_restricted(void)
{
    static const struct {
        enum config_register mode;
        const char *headers;
        int status, code;
    } rows[] = {
        {REGISTER_OPEN, "", 200, 0},
        {REGISTER_OPEN, "Register-Key: wrong\r\n", 200, 0},
        {REGISTER_CLOSED, "", 403, -1},
        {REGISTER_CLOSED, "Register-Key: open sesame\r\n", 403, -1},
        {REGISTER_KEY, "", 401, -1002},
        {REGISTER_KEY, "Register-Key:\r\n", 401, -1002},
        {REGISTER_KEY, "Register-Key: wrong\r\n", 401, -1002},
        {REGISTER_KEY, "Register-Key: open\r\n", 401, -1002},
        {REGISTER_KEY, "Register-Key: open sesame!\r\n", 401, -1002},
        {REGISTER_KEY, "Register-Key: open sesame\r\nRegister-Key: open sesame\r\n", 401, -1002},
        {REGISTER_KEY, "register-key:  open sesame \r\n", 200, 0},
    };

    strcpy(node.config.register_key, "open sesame");
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *body = textf("{\"systemId\":\"s%zu\",\"password\":\"p\"}", i);

        node.config.registration = rows[i].mode;
        CHECK(calls_with(rows[i].headers, "/api/register", body, rows[i].status, rows[i].code));
        if (rows[i].code)
            CHECK(contains(answer.msg, rows[i].status == 403 ? "closed" : "Register-Key"));
        /* a login needs no key */
        CHECK(calls("/api/login", body, 200, rows[i].code == 0 ? 0 : -1005));
    }
}

static void failed_jobs_are_answered(void)
{
    static const struct {
        enum account_job_kind kind;
        enum account_outcome outcome;
        int status;
        int64_t code;
        const char *msg;
    } rows[] = {
        {ACCOUNT_REGISTER, ACCOUNT_DONE, 200, 0, "success"},
        {ACCOUNT_REGISTER, ACCOUNT_EXISTS, 200, -1004, "already registered"},
        {ACCOUNT_REGISTER, ACCOUNT_UNSAVED, 503, -1007, "could not be saved: disk full"},
        {ACCOUNT_REGISTER, ACCOUNT_UNREACHABLE, 503, -1007, "\"disk full\""},
        {ACCOUNT_REGISTER, ACCOUNT_FAILED, 503, -1007, "hashed\""},
        {ACCOUNT_LOGIN, ACCOUNT_DENIED, 200, -1005, "wrong systemId or password"},
        {ACCOUNT_LOGIN, ACCOUNT_FAILED, 503, -1007, "hashed"},
        {ACCOUNT_LOGIN, ACCOUNT_EVICTED, 429, -1006, "too many registrations and logins"},
        {ACCOUNT_REGISTER, ACCOUNT_EVICTED, 429, -1006, "too many registrations and logins"},
        {ACCOUNT_SET_PASSWORD, ACCOUNT_DENIED, 200, -1005, "wrong systemId or password"},
        {ACCOUNT_SET_PASSWORD, ACCOUNT_UNSAVED, 503, -1007, "could not be saved: disk full"},
        {ACCOUNT_RESET_PASSWORD, ACCOUNT_DENIED, 200, -1001, "systemId is not registered"},
        {ACCOUNT_ROTATE_KEY, ACCOUNT_DENIED, 200, -1001, "systemId is not registered"},
        {ACCOUNT_DELETE, ACCOUNT_DENIED, 200, -1005, "wrong systemId or password"},
        {ACCOUNT_DELETE, ACCOUNT_EVICTED, 429, -1006, "too many registrations and logins"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct account_result result = {.kind = rows[i].kind,
                                        .outcome = rows[i].outcome,
                                        .reason = "disk full",
                                        .name_length = 1,
                                        .name = "s"};
        struct api_response got;

        api_finish(&node.api, &result, unix_now, &got);
        buf_free(&answer.body);
        answer.status = got.status;
        answer.told = got.code;
        answer.retry_after = got.retry_after;
        answer.body = got.body;
        check_envelope();
        CHECK(is_answered(rows[i].status, rows[i].code) && contains(answer.msg, rows[i].msg));
    }
}

/* A slow worker has a short queue; jobs that do not fit are refused for some seconds. */
static void too_many_jobs_are_refused(void)
{
    struct accounts *slow;
    char error[100];
    int count = 0;

    slow = account_open(node.folder, node.wake[1], 50000, error, sizeof error);
    CHECK(slow);
    node.api.accounts = slow;
    skip_late = true;
    do
        perform((struct call){
            .path = "/api/login",
            .headers = "",
            .body = str_from(textf("{\"systemId\":\"s%d\",\"password\":\"p\"}", count))});
    while (answer.late && ++count < 1000);
    CHECK(count >= ACCOUNT_LOGINS_MAX && count < 1000);
    CHECK(is_answered(429, -1006) && answer.retry_after == 5);
    /* registrations have places of their own */
    perform((struct call){.path = "/api/register",
                          .headers = "",
                          .body = STR("{\"systemId\":\"s\",\"password\":\"p\"}")});
    CHECK(answer.late);
    skip_late = false;
    account_close(slow);
}

/* Logs in from an address that ends in `from`. */
static bool logs_in(unsigned char from, const char *system, const char *password, int status,
                    int64_t code)
{
    bool good;

    memset(address, 0, sizeof address);
    address[10] = address[11] = 0xff;
    address[15] = from;
    good = calls("/api/login", textf("{\"systemId\":\"%s\",\"password\":\"%s\"}", system, password),
                 status, code);
    memset(address, 0, sizeof address);
    return good;
}

/* The same, without waiting for a result; true if there will be one. */
static bool asks(unsigned char from, const char *system, const char *password)
{
    skip_late = true;
    address[10] = address[11] = 0xff;
    address[15] = from;
    perform((struct call){
        .path = "/api/login",
        .headers = "",
        .body = str_from(textf("{\"systemId\":\"%s\",\"password\":\"%s\"}", system, password))});
    memset(address, 0, sizeof address);
    skip_late = false;
    return answer.late;
}

/* The outcome of the next login that comes to an end. */
static bool ends_with(enum account_outcome outcome)
{
    struct account_result result = {0};
    struct api_response got = {0};

    if (!node_await(&result))
        return false;
    api_finish(&node.api, &result, unix_now, &got);
    CHECK(got.status == (outcome == ACCOUNT_EVICTED ? 429 : 200));
    CHECK((got.retry_after > 0) == (got.status == 429));
    buf_free(&got.body);
    return result.outcome == outcome;
}

static bool is_throttled(unsigned retry_after)
{
    return is_answered(429, -1006) && contains(answer.msg, "too many logins") && !answer.late &&
           answer.retry_after == retry_after;
}

/* Sets the limits of failed logins, but for the pause of an address. */
static void set_limits(int64_t pause)
{
    api_open(&node.api);
    node.api.address_logins.pause = pause;
    node_register(STR("shop"), STR("secret"));
    node_register(STR("other"), STR("secret"));
}

/* After ten failures from one address one login at a time is verified there, when the pause is
 * over; elsewhere, and for other systems, nothing has changed. */
static void guessing_from_one_address_ends(void)
{
    static const char *const systems[] = {"shop", "nobody"};

    set_limits(6000);
    for (size_t i = 0; i < COUNT(systems); i++) {
        for (int k = 0; k < 10; k++)
            CHECK(logs_in(1, systems[i], textf("guess %d", k), 200, -1005));
        CHECK(asks(1, systems[i], "guess 10"));
        for (int k = 11; k < 14; k++)
            CHECK(!asks(1, systems[i], textf("guess %d", k)) && is_throttled(6));
    }
    CHECK(node.api.login_failures == 20); /* those that were verified */
    CHECK(logs_in(2, "shop", "guess", 200, -1005));
    CHECK(logs_in(1, "other", "guess", 200, -1005));
    CHECK(logs_in(2, "shop", "secret", 200, 0));
    CHECK(logs_in(1, "other", "secret", 200, 0));
    now += 11999; /* two pauses: one for the login that waits */
    CHECK(!asks(1, "shop", "guess 20") && is_throttled(1));
    now += 1;
    CHECK(logs_in(1, "shop", "guess 20", 200, -1005));
}

/* The right password, which has not been good here yet, gets in from an address that is throttled:
 * it waits for its turn. */
static void a_throttled_login_waits_for_its_turn(void)
{
    int64_t begun;

    set_limits(300);
    for (int k = 0; k < 10; k++)
        CHECK(logs_in(1, "shop", textf("guess %d", k), 200, -1005));
    begun = os_now_ms();
    CHECK(asks(1, "shop", "secret") && asks(1, "shop", "secret")); /* the second joins the first */
    CHECK(!asks(1, "shop", "guess") && is_throttled(1));
    CHECK(ends_with(ACCOUNT_DONE) && os_now_ms() - begun >= 300);
    CHECK(ends_with(ACCOUNT_DONE));
}

/* While guesses keep coming from there, the right password takes their place when it is repeated.
 */
static void a_repeated_password_passes_guesses(void)
{
    set_limits(6000);
    for (int k = 0; k < 10; k++)
        CHECK(logs_in(1, "shop", textf("guess %d", k), 200, -1005));
    CHECK(asks(1, "shop", "guess 10"));
    for (int k = 11; k < 20; k++)
        CHECK(!asks(1, "shop", textf("guess %d", k)) && is_throttled(6));
    CHECK(!asks(1, "shop", "secret") && is_throttled(6));
    CHECK(!asks(1, "shop", "guess 20") && is_throttled(6));
    CHECK(asks(1, "shop", "secret") && ends_with(ACCOUNT_EVICTED));
    CHECK(!asks(1, "shop", "guess 11") && is_throttled(6)); /* repeated, as the other one is */
    CHECK(asks(1, "shop", "secret"));
}

/* What was good once costs no hashing, and passes whatever has failed. */
static void a_login_that_was_good_is_recalled(void)
{
    set_limits(6000);
    CHECK(logs_in(1, "shop", "secret", 200, 0) && answer.late);
    CHECK(logs_in(1, "shop", "secret", 200, 0) && !answer.late);
    for (int i = 0; i < 99; i++)
        CHECK(logs_in((unsigned char)(1 + i % 11), "shop", textf("guess %d", i), 200, -1005));
    while (asks(1, "shop", textf("guess %lld", (long long)node.api.system_logins.tat[0])) &&
           node.api.system_logins.tat[0]++ < 20)
        ;
    for (int i = 0; i < 8; i++)
        asks((unsigned char)(20 + i), "shop", "guess");
    CHECK(!asks(50, "shop", "guess") && is_throttled(7)); /* everywhere */
    CHECK(!asks(1, "shop", "secrets") && is_throttled(7));
    CHECK(logs_in(1, "shop", "secret", 200, 0) && !answer.late);
    CHECK(logs_in(50, "shop", "secret", 200, 0) && !answer.late);
}

/* Passwords that are verified at the same time cannot pass the limit together: each counts from
 * when it is asked for. One that was right, or was not verified, is taken back. */
static void logins_under_way_count(void)
{
    set_limits(6000);
    for (int k = 0; k < 10; k++)
        CHECK(asks(1, "shop", textf("guess %d", k)));
    CHECK(asks(1, "shop", "guess 10"));
    CHECK(!asks(1, "shop", "guess 11") && is_throttled(6));
    for (int k = 0; k < 10; k++)
        CHECK(ends_with(ACCOUNT_DENIED));
    for (int k = 0; k < 9; k++)
        CHECK(logs_in(3, "other", textf("guess %d", k), 200, -1005));
    CHECK(logs_in(3, "other", "secret", 200, 0) && answer.late);
    CHECK(logs_in(3, "other", "guess 9", 200, -1005));
    CHECK(asks(3, "other", "guess 10"));
    CHECK(!asks(3, "other", "guess 11") && is_throttled(6));
}

/* Registrations that fail, as many as may be, take nothing from logins. */
static void registrations_do_not_count(void)
{
    set_limits(6000);
    address[10] = address[11] = 0xff;
    address[15] = 1;
    for (int i = 0; i < 30; i++)
        CHECK(calls("/api/register", "{\"systemId\":\"shop\",\"password\":\"guess\"}", 200, -1004));
    CHECK(logs_in(1, "shop", "secret", 200, 0) && calls("/api/login", "{}", 400, -1));
    CHECK(node.api.login_failures == 0);
}

static void guessing_from_everywhere_ends(void)
{
    set_limits(6000);
    for (int i = 0; i < 100; i++)
        CHECK(logs_in((unsigned char)(i % 50), "shop", textf("guess %d", i), 200, -1005));
    for (unsigned char i = 0; i < 6; i++) /* one a second, so far as a connection can wait */
        CHECK(asks(100 + i, "shop", "guess"));
    CHECK(!asks(77, "shop", "secret") && is_throttled(7));
    now += 6999;
    CHECK(!asks(100, "shop", "guess 2") && is_throttled(1)); /* one waits here */
    now += 1;
    CHECK(logs_in(77, "shop", "secret", 200, 0));
}

/* The owner of an IPv6 address has a network of them. */
static void an_ipv6_network_is_one_address(void)
{
    set_limits(6000);
    memcpy(address, "\x20\x01\x0d\xb8\1\2\3\4", 8);
    for (unsigned char i = 0; i < 12; i++) {
        address[15] = i;
        skip_late = true;
        perform((struct call){
            .path = "/api/login",
            .body = str_from(textf("{\"systemId\":\"shop\",\"password\":\"guess %d\"}", i))});
        CHECK(answer.late == (i < 11));
    }
    CHECK(is_throttled(6));
    address[7] = 5;
    perform((struct call){.path = "/api/login",
                          .body = STR("{\"systemId\":\"shop\",\"password\":\"guess\"}")});
    CHECK(answer.late);
    skip_late = false;
    memset(address, 0, sizeof address);
}

/* The system is removed and registered again: its old tokens are revoked. */
static void a_token_ends_with_its_account(void)
{
    char error[100], old[800];
    struct call call = {.path = "/api/get_online_list", .body = STR("{\"groupName\":\"g\"}")};
    struct call old_call = call;

    snprintf(old, sizeof old, "%s", token_of("shop"));
    old_call.headers = old;
    for (int i = 0; i < 3; i++) { /* it is known well */
        perform(old_call);
        CHECK(is_answered(200, 0));
    }
    account_close(node.accounts);
    unlink(textf("%s/accounts", node.folder));
    node.accounts = node.api.accounts =
        account_open(node.folder, node.wake[1], 1, error, sizeof error);
    perform(old_call);
    CHECK(is_answered(200, -1001));
    node_register(STR("shop"), STR("secret"));
    perform(old_call);
    CHECK(is_answered(401, -1002) && contains(answer.msg, "revoked"));
    call.headers = token_of("shop");
    CHECK(strcmp(call.headers, old) != 0);
    perform(call);
    CHECK(is_answered(200, 0));
    perform(old_call);
    CHECK(is_answered(401, -1002));
}

/* --- changes of an account -------------------------------------------------------------------- */

/* The header line of a login's token, until the next call; NULL if the login failed. */
static const char *token_by_login(const char *system, const char *password)
{
    static char line[800];
    struct json_field token = {.name = STR("token")};
    struct json_error error;

    if (!logs_in(1, system, password, 200, 0) || !json_parse_object(answer.data, &token, 1, &error))
        return NULL;
    snprintf(line, sizeof line, "Token: %.*s\r\n", (int)token.value.text.length - 2,
             token.value.text.at + 1);
    return line;
}

/* What was good with the old password is not any more. */
static void a_password_is_set(void)
{
    static const char body[] = "{\"password\":\"secret\",\"newPassword\":\"new\"}";
    char old[800];

    set_limits(6000);
    snprintf(old, sizeof old, "%s", token_by_login("shop", "secret"));
    CHECK(calls_with("", "/api/set_password", body, 401, -1002));
    CHECK(contains(answer.msg, "Token header missing"));
    CHECK(calls_with(old, "/api/set_password", "{\"password\":\"secret\"}", 400, -1) &&
          contains(answer.msg, "newPassword is missing"));
    CHECK(calls_with(old, "/api/set_password", "{\"newPassword\":\"new\"}", 400, -1) &&
          contains(answer.msg, "password is missing"));
    CHECK(calls_with(old, "/api/set_password", "{\"password\":\"secret\",\"newPassword\":\"\"}",
                     400, -1) &&
          contains(answer.msg, "newPassword must not be empty"));
    CHECK(calls_with(old, "/api/set_password", "{\"password\":\"\",\"newPassword\":\"n\"}", 400,
                     -1) &&
          contains(answer.msg, "password must not be empty"));
    CHECK(calls_with(old, "/api/set_password",
                     textf("{\"password\":\"secret\",\"newPassword\":\"%0257d\"}", 0), 400, -1));
    CHECK(calls_with(old, "/api/set_password", "{\"password\":\"guess\",\"newPassword\":\"n\"}",
                     200, -1005));
    body_comes_later = true;
    CHECK(calls_with(old, "/api/set_password", body, 200, 0) && same(answer.data, STR("[]")));
    body_comes_later = false;
    CHECK(calls_with(old, "/api/get_online_list", "{\"groupName\":\"g\"}", 401, -1002));
    CHECK(contains(answer.msg, "revoked"));
    CHECK(calls_with(old, "/api/set_password", body, 401, -1002));
    CHECK(logs_in(2, "shop", "secret", 200, -1005));
    CHECK(calls_with(token_by_login("shop", "new"), "/api/get_online_list", "{\"groupName\":\"g\"}",
                     200, 0));
    CHECK(clients[0].conn.client && clients[1].conn.client);
}

/* Who has the Register-Key needs neither Token nor password. */
static void a_forgotten_password_is_set_with_the_register_key(void)
{
    static const char key[] = "Register-Key: open sesame\r\n";
    static const char body[] = "{\"systemId\":\"shop\",\"newPassword\":\"new\"}";
    char old[800];

    set_limits(6000);
    strcpy(node.config.register_key, "open sesame");
    CHECK(calls_with(key, "/api/set_password", body, 403, -1));
    node.config.registration = REGISTER_CLOSED;
    CHECK(calls_with(key, "/api/set_password", body, 403, -1));
    node.config.registration = REGISTER_KEY;
    CHECK(calls_with("", "/api/set_password", body, 401, -1002));
    CHECK(calls_with("Register-Key: open\r\n", "/api/set_password", body, 401, -1002));
    CHECK(calls_with(key, "/api/set_password", "{\"newPassword\":\"new\"}", 400, -1) &&
          contains(answer.msg, "systemId is missing"));
    CHECK(calls_with(key, "/api/set_password", "{\"systemId\":\"\",\"newPassword\":\"new\"}", 400,
                     -1));
    CHECK(calls_with(key, "/api/set_password", "{\"systemId\":\"nobody\",\"newPassword\":\"new\"}",
                     200, -1001));
    snprintf(old, sizeof old, "%s", token_by_login("shop", "secret"));
    body_comes_later = true;
    CHECK(calls_with(key, "/api/set_password", body, 200, 0));
    body_comes_later = false;
    CHECK(calls_with(old, "/api/get_online_list", "{\"groupName\":\"g\"}", 401, -1002));
    CHECK(logs_in(1, "shop", "new", 200, 0) && logs_in(2, "shop", "secret", 200, -1005));
    /* beside a Token the key means nothing: the password must be right */
    snprintf(old, sizeof old, "%s%s", token_by_login("shop", "new"), key);
    CHECK(calls_with(old, "/api/set_password", body, 400, -1) &&
          contains(answer.msg, "password is missing"));
    /* nor is it for anything else */
    CHECK(calls_with(key, "/api/delete_system", "{\"password\":\"new\"}", 401, -1002));
}

static void a_system_is_deleted(void)
{
    char old[800];

    set_limits(6000);
    snprintf(old, sizeof old, "%s", token_by_login("shop", "secret"));
    CHECK(calls_with("", "/api/delete_system", "{\"password\":\"secret\"}", 401, -1002));
    CHECK(calls_with(old, "/api/delete_system", "{}", 400, -1));
    CHECK(calls_with(old, "/api/delete_system", "{\"password\":\"guess\"}", 200, -1005));
    CHECK(clients[0].conn.client && node_logged(""));
    CHECK(calls_with(old, "/api/delete_system", "{\"password\":\"secret\"}", 200, 0));
    CHECK(same(answer.data, STR("[]")) && !account_exists(node.accounts, STR("shop")));
    for (size_t i = 0; i < 2; i++)
        CHECK(got_close(&clients[i].far, 4401, "system deleted"));
    CHECK(clients[2].conn.client && got_nothing(&clients[2].far));
    CHECK(calls_with(old, "/api/get_online_list", "{\"groupName\":\"g\"}", 200, -1001));
    CHECK(calls_with("", "/api/login", "{\"systemId\":\"shop\",\"password\":\"secret\"}", 200,
                     -1005));
    CHECK(
        calls_with("", "/api/register", "{\"systemId\":\"shop\",\"password\":\"secret\"}", 200, 0));
    CHECK(calls_with(old, "/api/get_online_list", "{\"groupName\":\"g\"}", 401, -1002));
    CHECK(calls_with(token_by_login("shop", "secret"), "/api/get_online_list",
                     "{\"groupName\":\"g\"}", 200, 0));
}

/* The key that /api/ticket_key answers with in base64url, and its version. */
static struct str ticket_key(const char *body, uint64_t *version)
{
    static char room[64];
    struct json_field parts[] = {{.name = STR("key")}, {.name = STR("version")}};
    struct buf key = BUF_INIT(room);
    struct json_error error;
    int64_t number = 0;

    CHECK(calls("/api/ticket_key", body, 200, 0));
    CHECK(json_parse_object(answer.data, parts, 2, &error) &&
          json_decode_integer(parts[1].value, &number) && json_decode_string(parts[0].value, &key));
    *version = (uint64_t)number;
    return str_of(&key);
}

/* The key is that of the version: the same again, another one after each rotation. */
static void a_ticket_key_is_told_and_rotated(void)
{
    unsigned char key[CRYPTO_HASH_SIZE];
    char room[64];
    struct buf text = BUF_INIT(room);
    uint64_t first = 0, version = 0;

    node_register(STR("shop"), STR("secret"));
    for (uint64_t i = 0; i < 4; i++) {
        struct str told = ticket_key(i % 2 ? "{\"rotate\":true}" : "{\"rotate\":false}", &version);

        first = i ? first : version;
        CHECK(version == first + (i + 1) / 2);
        text.length = 0;
        CHECK(ticket_derive_key(&node.keys.keys[0], version, STR("shop"), key) &&
              crypto_base64url(&text, CRYPTO_BYTES(key)));
        CHECK(same(told, str_of(&text)) && answer.late == i % 2);
    }
    CHECK(calls_with("", "/api/ticket_key", "{}", 401, -1002));
    CHECK(first > 0 && first < (uint64_t)1 << 53);
}

#define NO_WEBHOOK                                                                                    \
    "{\"url\":\"\",\"events\":[],\"active\":false,\"node\":\"\",\"epoch\":0,\"queued\":0,\"lost\":0," \
    "\"deliveries\":[]}"

/* Nobody listens where events go. */
static void a_webhook_tells_how_it_is_doing(void)
{
    const struct webhook_settings settings = {.url = STR("http://127.0.0.1:1/x"),
                                              .events =
                                                  1u << WEBHOOK_CONNECT | 1u << WEBHOOK_MESSAGE};
    struct webhook_options options = {.keys = &node.keys,
                                      .node = "n:1",
                                      .version = "1",
                                      .ca = "",
                                      .timeout = 1000,
                                      .pause = 3600000,
                                      .retry = 3600000,
                                      .queue = 1 << 20};
    int64_t until = os_now_ms() + 10000;
    struct webhook_report report = {0};
    struct webhook *webhook;

    CHECK(answers_data("/api/webhook_status", "{}", NO_WEBHOOK));
    if (!CHECK((node.hub.webhooks = webhook_open(&options))))
        return;
    CHECK(answers_data("/api/webhook_status", "{}", NO_WEBHOOK));
    CHECK(webhook_set(node.hub.webhooks, STR("shop"), &settings, 7));
    webhook = webhook_find(node.hub.webhooks, STR("shop"));
    while (!report.deliveries && os_now_ms() < until) {
        poll(NULL, 0, 1);
        webhook_read_report(node.hub.webhooks, webhook, &report);
    }
    CHECK(answers_data(
        "/api/webhook_status", "{}",
        textf("{\"url\":\"http://127.0.0.1:1/x\",\"events\":[\"connect\",\"message\"],"
              "\"active\":true,\"node\":\"n:1\",\"epoch\":%lld,\"queued\":1,\"lost\":7,"
              "\"deliveries\":[{\"at\":%lld,\"status\":0,\"error\":\"%s\",\"events\":1,"
              "\"attempt\":1,\"ms\":%u}]}",
              (long long)report.epoch, (long long)report.last[0].at, report.last[0].error,
              report.last[0].took)));
    CHECK(contains(answer.data, "refused"));
    CHECK(calls_with(token_of("other"), "/api/webhook_status", "{}", 200, 0));
    CHECK(same(answer.data, str_from(NO_WEBHOOK))); /* it is of its system alone */
    webhook_close(node.hub.webhooks);
    node.hub.webhooks = NULL;
}

/* A password is guessed no faster by changes than by logins. */
static void guesses_by_changes_count(void)
{
    char token[800];

    set_limits(6000);
    snprintf(token, sizeof token, "%s", token_by_login("shop", "secret"));
    address[10] = address[11] = 0xff;
    address[15] = 9;
    for (int i = 0; i < 10; i++)
        CHECK(calls_with(token, i % 2 ? "/api/set_password" : "/api/delete_system",
                         textf("{\"password\":\"%d\",\"newPassword\":\"n\"}", i), 200, -1005));
    skip_late = true;
    perform((struct call){
        .path = "/api/delete_system", .headers = token, .body = STR("{\"password\":\"guess\"}")});
    CHECK(answer.late); /* its turn is later */
    perform((struct call){.path = "/api/set_password",
                          .headers = token,
                          .body = STR("{\"password\":\"other\",\"newPassword\":\"n\"}")});
    CHECK(is_throttled(6));
    skip_late = false;
    CHECK(!asks(9, "shop", "and another") && is_throttled(6));
    CHECK(node.api.login_failures == 10);
    memset(address, 0, sizeof address);
}

/* --- what calls do --------------------------------------------------------------------------- */

#define MESSAGE "\"code\":7,\"msg\":\"m\",\"data\":1"
#define PUSHED "{" MESSAGE

static void extras_are_pushed(void)
{
    static const struct {
        const char *sent, *pushed;
    } rows[] = {
        {"", ""},
        {",\"receipt\":false", ""},
        {",\"sendUserId\":\"u\"", ",\"sendUserId\":\"u\""},
        {",\"messageId\":\"i\"", ",\"messageId\":\"i\""},
        {",\"messageId\" : \"\\u0069\" , \"sendUserId\":\"\\ud800\"",
         ",\"sendUserId\":\"\\ud800\",\"messageId\":\"\\u0069\""},
        {",\"messageId\":\"\",\"sendUserId\":\"\"", ",\"sendUserId\":\"\",\"messageId\":\"\""},
    };
    static const char *const paths[][2] = {
        {"/api/send_to_client", "\"clientId\":\"@\","},
        {"/api/send_to_clients", "\"clientIds\":[\"@\"],"},
        {"/api/send_to_group", "\"groupName\":\"g\","},
        {"/api/send_to_user", "\"userId\":\"u\","},
        {"/api/send_to_system", ""},
    };

    CHECK(calls("/api/bind_to_group",
                "{\"clientId\":\"@\",\"groupName\":\"g\",\"userId\":\"\\u0075\"}", 200, 0));
    far_forget(&clients[0].far);
    for (size_t path = 0; path < COUNT(paths); path++)
        for (size_t i = 0; i < COUNT(rows); i++) {
            CHECK(answers_data(paths[path][0],
                               textf("{%s" MESSAGE "%s}", paths[path][1], rows[i].sent),
                               path == 1 ? "{\"failed\":[]}" : "[]"));
            CHECK(got_text(&clients[0].far, textf(PUSHED "%s}", rows[i].pushed)));
            CHECK(got_nothing(&clients[0].far));
        }
}

/* A fresh messageId is the same in the answer and in the frame, and never the same twice. */
static bool has_fresh_id(char id[17])
{
    struct json_field part = {.name = STR("messageId")};
    struct json_error error;

    memset(id, 0, 17);
    if (!CHECK(json_parse_object(answer.data, &part, 1, &error)) ||
        !CHECK(part.value.text.length == 18))
        return false;
    memcpy(id, part.value.text.at + 1, 16);
    return strspn(id, "0123456789abcdef") == 16;
}

static void receipts_tell_what_became_of_it(void)
{
    static const struct {
        const char *path, *who, *counts;
        bool reached;
    } rows[] = {
        {"/api/send_to_client", "\"clientId\":\"@\"", "\"matched\":1,\"queued\":1", true},
        {"/api/send_to_clients", "\"clientIds\":[\"@\",\"^\",\"@\"]", "\"matched\":1,\"queued\":1",
         true},
        {"/api/send_to_clients", "\"clientIds\":[]", "\"matched\":0,\"queued\":0", false},
        {"/api/send_to_group", "\"groupName\":\"g\"", "\"matched\":2,\"queued\":2", true},
        {"/api/send_to_group", "\"groupName\":\"g\",\"exclude\":[\"~\"]",
         "\"matched\":1,\"queued\":1", true},
        {"/api/send_to_group", "\"groupName\":\"none\"", "\"matched\":0,\"queued\":0", false},
        {"/api/send_to_user", "\"userId\":\"u\"", "\"matched\":2,\"queued\":2", true},
        {"/api/send_to_user", "\"userId\":\"none\"", "\"matched\":0,\"queued\":0", false},
        {"/api/send_to_system", "\"z\":0", "\"matched\":2,\"queued\":2", true},
    };
    char id[17], before[17] = "";

    for (size_t i = 0; i < 2; i++)
        CHECK(calls("/api/bind_to_group",
                    textf("{\"clientId\":\"%c\",\"groupName\":\"g\",\"userId\":\"u\"}", "@~"[i]),
                    200, 0));
    far_forget(&clients[0].far);
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *body = textf("{%s," MESSAGE ",\"receipt\":true", rows[i].who);
        const char *failed = i == 1   ? textf("\"failed\":[\"%s\"],", clients[2].id)
                             : i == 2 ? "\"failed\":[],"
                                      : "";

        CHECK(answers_data(
            rows[i].path, textf("%s,\"messageId\":\"\\u0041\"}", body),
            textf("{%s\"messageId\":\"\\u0041\",%s,\"dropped\":0}", failed, rows[i].counts)));
        if (rows[i].reached)
            CHECK(got_text(&clients[0].far, PUSHED ",\"messageId\":\"\\u0041\"}"));
        CHECK(calls(rows[i].path, textf("%s}", body), 200, 0) && has_fresh_id(id));
        CHECK(same(answer.data, str_from(textf("{%s\"messageId\":\"%s\",%s,\"dropped\":0}", failed,
                                               id, rows[i].counts))));
        CHECK(strcmp(id, before) != 0);
        memcpy(before, id, sizeof before);
        if (rows[i].reached)
            CHECK(got_text(&clients[0].far, textf(PUSHED ",\"messageId\":\"%s\"}", id)));
        CHECK(got_nothing(&clients[0].far));
    }
    CHECK(calls("/api/send_to_client", "{\"clientId\":\"^\"," MESSAGE ",\"receipt\":true}", 200,
                -1003));
}

#define ONCE MESSAGE ",\"once\":true"

/* A repeated send gets a receipt, asked for or not, which says so; other content is refused. */
static void repeated_sends_are_told(void)
{
    static const struct {
        const char *path, *who, *failed, *counts;
    } rows[] = {
        {"/api/send_to_client", "\"clientId\":\"@\"", "", "1"},
        {"/api/send_to_clients", "\"clientIds\":[\"@\",\"~\"]", "\"failed\":[]", "2"},
        {"/api/send_to_group", "\"groupName\":\"g\"", "", "2"},
        {"/api/send_to_user", "\"userId\":\"u\"", "", "2"},
        {"/api/send_to_system", "\"z\":0", "", "2"},
    };

    for (size_t i = 0; i < 2; i++)
        CHECK(calls("/api/bind_to_group",
                    textf("{\"clientId\":\"%c\",\"groupName\":\"g\",\"userId\":\"u\"}", "@~"[i]),
                    200, 0));
    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *id = textf("\"messageId\":\"%zu\"", i), *more = *rows[i].failed ? "," : "";
        const char *body = textf("{%s," ONCE ",%s", rows[i].who, id);
        const char *again = textf("{%s%s%s,\"matched\":0,\"queued\":0,\"dropped\":0,"
                                  "\"repeated\":true}",
                                  rows[i].failed, more, id);

        CHECK(answers_data(rows[i].path, textf("%s}", body),
                           *more ? textf("{%s}", rows[i].failed) : "[]"));
        far_forget(&clients[0].far);
        CHECK(answers_data(rows[i].path, textf("%s}", body), again));
        CHECK(answers_data(rows[i].path, textf("%s,\"receipt\":true}", body), again));
        CHECK(answers_data(
            rows[i].path,
            textf("{%s," ONCE ",\"messageId\":\"r%zu\",\"receipt\":true}", rows[i].who, i),
            textf("{%s%s\"messageId\":\"r%zu\",\"matched\":%s,\"queued\":%s,"
                  "\"dropped\":0}",
                  rows[i].failed, more, i, rows[i].counts, rows[i].counts)));
        far_forget(&clients[0].far);
        body = textf("%s,\"sendUserId\":\"u\",\"receipt\":true}", body);
        if (!*more)
            CHECK(refuses(rows[i].path, body, "messageId was used for another message"));
        else
            CHECK(answers_data(rows[i].path, body,
                               textf("{\"failed\":[\"%s\",\"%s\"],%s,\"matched\":0,\"queued\":0,"
                                     "\"dropped\":0}",
                                     clients[0].id, clients[1].id, id)));
        CHECK(got_nothing(&clients[0].far));
        CHECK(refuses(rows[i].path, textf("{%s," ONCE "}", rows[i].who),
                      "field messageId is missing: once needs it"));
        CHECK(refuses(rows[i].path,
                      textf("{%s," ONCE ",\"messageId\":\"\",\"receipt\":true}", rows[i].who),
                      "field messageId is missing: once needs it"));
    }
    /* what some have got and others get now is not repeated */
    CHECK(answers_data("/api/send_to_client", "{\"clientId\":\"@\"," ONCE ",\"messageId\":\"x\"}",
                       "[]"));
    CHECK(answers_data("/api/send_to_clients",
                       "{\"clientIds\":[\"@\",\"~\"]," ONCE ",\"messageId\":\"x\"}",
                       "{\"failed\":[]}"));
}

/* A client found to be slow: without a receipt the send has failed, with one it is counted. */
static void slow_clients_are_counted(void)
{
    node.config.send_queue = 1;
    for (int receipt = 0; receipt < 2; receipt++) {
        reconnect(&clients[0]);
        clients[0].conn.want_write = true; /* as if the socket took no more */
        CHECK(calls("/api/send_to_client", "{\"clientId\":\"@\"," MESSAGE "}", 200, 0));
        if (receipt)
            CHECK(answers_data("/api/send_to_client",
                               "{\"clientId\":\"@\",\"receipt\":true,\"messageId\":\"i\"," MESSAGE
                               "}",
                               "{\"messageId\":\"i\",\"matched\":1,\"queued\":0,\"dropped\":1}"));
        else
            CHECK(calls("/api/send_to_client", "{\"clientId\":\"@\"," MESSAGE "}", 200, -1003));
    }
}

static void clients_are_closed_with_a_code(void)
{
    static const struct {
        const char *extras;
        unsigned code;
        const char *reason;
    } rows[] = {
        {"", 1000, ""},
        {",\"code\":1000", 1000, ""},
        {",\"code\":3000,\"reason\":\"bye\"", 3000, "bye"},
        {",\"code\":4399", 4399, ""},
        {",\"code\":4500", 4500, ""},
        {",\"code\":4999,\"reason\":\"\\u00e9\\n\"", 4999, "\xc3\xa9\n"},
        {",\"reason\":\"only\"", 1000, "only"},
        {",\"msg\":1,\"data\":2,\"receipt\":3", 1000, ""},
    };
    struct str bad = STR("0|999|1001|1005|2999|4400|4499|5000|-1000|66536|4294968296|1000.0");

    for (size_t i = 0; i < COUNT(rows); i++) {
        const char *body = textf("{\"clientId\":\"@\"%s}", rows[i].extras);

        CHECK(answers_data("/api/close_client", body, "[]"));
        CHECK(got_close(&clients[0].far, rows[i].code, rows[i].reason));
        CHECK(calls("/api/close_client", body, 200, -1003));
        CHECK(got_nothing(&clients[0].far));
        reconnect(&clients[0]);
    }
    while (bad.at) {
        struct str code = str_cut(&bad, '|');

        CHECK(refuses("/api/close_client",
                      textf("{\"clientId\":\"@\",\"code\":%.*s}", (int)code.length, code.at),
                      "field code must be"));
        CHECK(clients[0].conn.client && got_nothing(&clients[0].far));
    }
}

static void clients_are_bound_listed_and_described(void)
{
    static const struct {
        const char *path, *body, *data;
    } rows[] = {
        {"get_online_list", "\"groupName\":\"g\"", "{\"count\":0,\"list\":[]}"},
        {"bind_to_group", "\"clientId\":\"@\",\"groupName\":\"g\"", "[]"},
        {"bind_to_group", "\"clientId\":\"@\",\"groupName\":\"\\u0067\"", "[]"},
        {"get_online_list", "\"groupName\":\"g\"", "{\"count\":1,\"list\":[\"@\"]}"},
        {"bind_to_group",
         "\"clientId\":\"~\",\"groupName\":\"g\",\"userId\":\"\\u00e9\",\"extend\":\"\\n\"", "[]"},
        {"get_online_list", "\"groupName\":\"g\"", "{\"count\":2,\"list\":[\"@\",\"~\"]}"},
        {"client_info", "\"clientId\":\"~\"",
         "{\"clientId\":\"~\",\"userId\":\"\xc3\xa9\",\"extend\":\"\\u000a\",\"groups\":[\"g\"],"
         "\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}"},
        {"count", "\"system\":true,\"groupNames\":[\"g\"],\"userIds\":[\"\\u00e9\"]",
         "{\"system\":2,\"groups\":{\"g\":2},\"users\":{\"\\u00e9\":1}}"},
        {"list_groups", "\"limit\":1",
         "{\"groups\":[{\"groupName\":\"g\",\"clients\":2}],\"next\":\"\"}"},
        {"list_clients", "\"userId\":\"\\u00e9\",\"groups\":true",
         "{\"clients\":[{\"clientId\":\"~\",\"userId\":\"\xc3\xa9\",\"extend\":\"\\u000a\",\"groups\":[\"g\"],"
         "\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}],\"next\":\"\"}"},
        {"bind_user_to_group", "\"userId\":\"\\u00e9\",\"groupName\":\"i\"",
         "{\"matched\":1,\"queued\":1,\"dropped\":0}"},
        {"unbind_user_from_group", "\"userId\":\"\\u00e9\",\"groupName\":\"i\"",
         "{\"matched\":1,\"queued\":1,\"dropped\":0}"},
        {"close_user", "\"userId\":\"\\u00e9\",\"except\":[\"~\"]", "{\"closed\":0}"},
        {"bind_to_group", "\"clientId\":\"~\",\"groupName\":\"h\",\"extend\":\"\"", "[]"},
        {"unbind_from_group", "\"clientId\":\"~\",\"groupName\":\"g\"", "[]"},
        {"unbind_from_group", "\"clientId\":\"~\",\"groupName\":\"g\"", "[]"},
        {"get_online_list", "\"groupName\":\"g\"", "{\"count\":1,\"list\":[\"@\"]}"},
        {"client_info", "\"clientId\":\"~\"",
         "{\"clientId\":\"~\",\"userId\":\"\xc3\xa9\",\"extend\":\"\",\"groups\":[\"h\"],"
         "\"connectedAt\":1700000000,\"remote\":\"127.0.0.1\"}"},
        {"send_to_clients", "\"clientIds\":[\"@\",\"x\" , \"^\",\"~\",\"\\u0078\"]," MESSAGE,
         "{\"failed\":[\"x\",\"^\",\"\\u0078\"]}"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct buf data = {0};

        with_ids(str_from(rows[i].data), &data);
        CHECK(calls(textf("/api/%s", rows[i].path), textf("{%s}", rows[i].body), 200, 0));
        CHECK(same(answer.data, str_of(&data)));
        buf_free(&data);
    }
}

/* Whatever is wrong with an id, the answer is one and the same. */
static void ids_that_are_not_online_look_alike(void)
{
    static const char *const ids[] = {"",   "0000000000000000", "^", "x", "\\u0000",
                                      "@@", "0123456789ABCDEF", "~"};
    static const char *const paths[] = {"send_to_client", "bind_to_group", "unbind_from_group",
                                        "close_client", "client_info"};

    leave(&clients[1]);
    for (size_t path = 0; path < COUNT(paths); path++)
        for (size_t i = 0; i < COUNT(ids); i++) {
            CHECK(
                calls(textf("/api/%s", paths[path]),
                      textf("{\"clientId\":\"%s\",\"groupName\":\"g\",\"code\":1000,\"msg\":\"m\","
                            "\"data\":1}",
                            ids[i]),
                      200, -1003));
            CHECK(same(str_of(&answer.body),
                       STR("{\"code\":-1003,\"msg\":\"client not online\",\"data\":[]}")));
        }
    CHECK(got_nothing(&clients[0].far) && got_nothing(&clients[2].far));
}

static void data_is_passed_on_untouched(void)
{
    struct str rest =
        STR("123456789012345678901234567890|1e400|1.0|-0|null|\"\\u0041\\/\"|\"\\ud800\"|"
            "{ \"b\" : [1 ,\t2] , \"a\":{} }|[\r\n]|\"\"|\"\xf0\x9f\x98\x80\"");

    while (rest.at) {
        struct str data = str_cut(&rest, '|');
        int length = (int)data.length;

        /* white space around values is not theirs */
        CHECK(calls("/api/send_to_system",
                    textf("{ \"data\" :\n%.*s\t, \"msg\" : \"m\" ,\"code\": 7 }", length, data.at),
                    200, 0));
        for (int i = 0; i < 2; i++)
            CHECK(got_text(&clients[i].far,
                           textf("{\"code\":7,\"msg\":\"m\",\"data\":%.*s}", length, data.at)));
    }
}

/* A string of 1 MiB goes through, and the memory that it took is not kept. */
static void long_data_is_passed_on(void)
{
    static char text[1 << 20];
    struct buf body = {0};

    memset(text, 'x', sizeof text);
    text[0] = text[sizeof text - 1] = '"';
    buf_append(&body, STR("{\"code\":7,\"msg\":\"m\",\"data\":"));
    buf_append(&body, (struct str){text, sizeof text});
    buf_append(&body, STR("}"));
    perform((struct call){.path = "/api/send_to_system", .body = str_of(&body)});
    CHECK(is_answered(200, 0) && node.api.decoded.capacity <= 65536);
    while (clients[0].conn.first) {
        conn_writable(&clients[0].conn);
        far_receive(&clients[0].far);
    }
    CHECK(got_frame(&clients[0].far, 1, str_of(&body)));
    buf_free(&body);
}

/* --- what is counted ------------------------------------------------------------------------- */

/* An answer says whose call it was, once a token has told that. */
static void answers_name_their_system(void)
{
    CHECK(calls("/api/get_online_list", "{\"groupName\":\"g\"}", 200, 0));
    CHECK(strcmp(answer.system, "shop") == 0);
    CHECK(calls("/api/get_online_list", "{}", 400, -1) && strcmp(answer.system, "shop") == 0);
    CHECK(calls_with(token_of("other"), "/api/get_online_list", "{\"groupName\":\"g\"}", 200, 0) &&
          strcmp(answer.system, "other") == 0);
    CHECK(calls_with("Token: x\r\n", "/api/get_online_list", "{\"groupName\":\"g\"}", 401, -1002) &&
          answer.system[0] == '\0');
    CHECK(calls("/api/none", "{}", 404, -1) && answer.system[0] == '\0');
}

static void refusals_of_others_are_envelopes(void)
{
    struct api_response got;

    api_reject(&got, 408, RESULT_MALFORMED, "too \"late\"");
    CHECK(got.status == 408 && !got.allow && !got.fields && !got.retry_after && got.code == -1);
    CHECK(!got.type && !got.system.length);
    CHECK(same(str_of(&got.body), STR("{\"code\":-1,\"msg\":\"too \\\"late\\\"\",\"data\":[]}")));
    buf_free(&got.body);
}

static void run(const char *name, void (*test)(void))
{
    test_run_between(name, set_up, test, tear_down);
}

int main(void)
{
    run("good bodies are taken", good_bodies_are_taken);
    run("required fields are required", required_fields_are_required);
    run("ill typed fields are refused", ill_typed_fields_are_refused);
    run("unknown fields are ignored", unknown_fields_are_ignored);
    run("bodies that are no object are refused", bodies_that_are_no_object_are_refused);
    run("texts may be as long as their limit", texts_may_be_as_long_as_their_limit);
    run("names have no control characters", names_have_no_control_characters);
    run("pages and lists of names have limits", pages_and_lists_of_names_have_limits);
    run("routes take post alone", routes_take_post_alone);
    run("pages of other sites are refused", pages_of_other_sites_are_refused);
    run("a refusal names both sites", a_refusal_names_both_sites);
    run("codings are refused", codings_are_refused);
    run("bodies may come later", bodies_may_come_later);
    run("other paths are unknown", other_paths_are_unknown);
    run("tokens are checked", tokens_are_checked);
    run("a token may outlive its account", a_token_may_outlive_its_account);
    run("a token is for its system", a_token_is_for_its_system);
    run("calls are limited by rate", calls_are_limited_by_rate);
    run("systems register and log in", systems_register_and_log_in);
    run("a login token works", a_login_token_works);
    run("guessing from one address ends", guessing_from_one_address_ends);
    run("a throttled login waits for its turn", a_throttled_login_waits_for_its_turn);
    run("a repeated password passes guesses", a_repeated_password_passes_guesses);
    run("a login that was good is recalled", a_login_that_was_good_is_recalled);
    run("logins under way count", logins_under_way_count);
    run("registrations do not count", registrations_do_not_count);
    run("guessing from everywhere ends", guessing_from_everywhere_ends);
    run("a token ends with its account", a_token_ends_with_its_account);
    run("a password is set", a_password_is_set);
    run("a forgotten password is set with the register key",
        a_forgotten_password_is_set_with_the_register_key);
    run("a system is deleted", a_system_is_deleted);
    run("a ticket key is told and rotated", a_ticket_key_is_told_and_rotated);
    run("a webhook tells how it is doing", a_webhook_tells_how_it_is_doing);
    run("guesses by changes count", guesses_by_changes_count);
    run("an ipv6 network is one address", an_ipv6_network_is_one_address);
    run("registration may be restricted", registration_may_be_restricted);
    run("failed jobs are answered", failed_jobs_are_answered);
    run("too many jobs are refused", too_many_jobs_are_refused);
    run("extras are pushed", extras_are_pushed);
    run("receipts tell what became of it", receipts_tell_what_became_of_it);
    run("repeated sends are told", repeated_sends_are_told);
    run("slow clients are counted", slow_clients_are_counted);
    run("clients are closed with a code", clients_are_closed_with_a_code);
    run("clients are bound listed and described", clients_are_bound_listed_and_described);
    run("ids that are not online look alike", ids_that_are_not_online_look_alike);
    run("data is passed on untouched", data_is_passed_on_untouched);
    run("long data is passed on", long_data_is_passed_on);
    run("answers name their system", answers_name_their_system);
    run("refusals of others are envelopes", refusals_of_others_are_envelopes);
    return test_finish();
}
