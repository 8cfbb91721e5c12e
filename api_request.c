/* api_request.c - the body of a call: one JSON object whose fields are checked by a table, and the
 * envelope that rejects it. */
#include "api_request.h"

#include "json.h"
#include "ws.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* --- fields ---------------------------------------------------------------------------------- */

enum api_field_type {
    TYPE_NAME,    /* a string of up to `max` bytes without control characters */
    TYPE_TEXT,    /* a string of up to `max` bytes */
    TYPE_RAW,     /* the same, passed on as it is; with a `max` of 0 it has no limit */
    TYPE_ANY,     /* any value, passed on as it is */
    TYPE_INTEGER, /* of 64 bits; with a `max`, from 1 to that */
    TYPE_BOOLEAN,
    TYPE_STRINGS /* an array of strings, with a `max` of up to so many */
};

struct api_field_rule {
    struct str name;
    enum api_field_type type;
    size_t max;
};

#define MESSAGE_ID_MAX 64
#define API_PAGE_MAX 1000
#define REASON_MAX (WS_CONTROL_MAX - 2)

static const struct api_field_rule api_fields[FIELD_COUNT] = {
    [FIELD_SYSTEM_ID] = {STR_INIT("systemId"), TYPE_NAME, ACCOUNT_NAME_MAX},
    [FIELD_PASSWORD] = {STR_INIT("password"), TYPE_TEXT, ACCOUNT_PASSWORD_MAX},
    [FIELD_NEW_PASSWORD] = {STR_INIT("newPassword"), TYPE_TEXT, ACCOUNT_PASSWORD_MAX},
    [FIELD_ROTATE] = {STR_INIT("rotate"), TYPE_BOOLEAN, 0},
    [FIELD_CLIENT_ID] = {STR_INIT("clientId"), TYPE_RAW, 0},
    [FIELD_CLIENT_IDS] = {STR_INIT("clientIds"), TYPE_STRINGS, 0},
    [FIELD_GROUP_NAME] = {STR_INIT("groupName"), TYPE_NAME, 128},
    [FIELD_USER_ID] = {STR_INIT("userId"), TYPE_NAME, 128},
    [FIELD_EXTEND] = {STR_INIT("extend"), TYPE_TEXT, 1024},
    [FIELD_CODE] = {STR_INIT("code"), TYPE_INTEGER, 0},
    [FIELD_MSG] = {STR_INIT("msg"), TYPE_RAW, 0},
    [FIELD_DATA] = {STR_INIT("data"), TYPE_ANY, 0},
    [FIELD_SEND_USER_ID] = {STR_INIT("sendUserId"), TYPE_RAW, 0},
    [FIELD_MESSAGE_ID] = {STR_INIT("messageId"), TYPE_RAW, MESSAGE_ID_MAX},
    [FIELD_RECEIPT] = {STR_INIT("receipt"), TYPE_BOOLEAN, 0},
    [FIELD_ONCE] = {STR_INIT("once"), TYPE_BOOLEAN, 0},
    [FIELD_EXCLUDE] = {STR_INIT("exclude"), TYPE_STRINGS, 0},
    [FIELD_REASON] = {STR_INIT("reason"), TYPE_TEXT, REASON_MAX},
    [FIELD_SYSTEM] = {STR_INIT("system"), TYPE_BOOLEAN, 0},
    [FIELD_GROUP_NAMES] = {STR_INIT("groupNames"), TYPE_STRINGS, API_PAGE_MAX},
    [FIELD_USER_IDS] = {STR_INIT("userIds"), TYPE_STRINGS, API_PAGE_MAX},
    [FIELD_GROUPS] = {STR_INIT("groups"), TYPE_BOOLEAN, 0},
    [FIELD_PREFIX] = {STR_INIT("prefix"), TYPE_NAME, 128},
    [FIELD_AFTER] = {STR_INIT("after"), TYPE_TEXT, ROSTER_POSITION_MAX},
    [FIELD_LIMIT] = {STR_INIT("limit"), TYPE_INTEGER, API_PAGE_MAX},
    [FIELD_EXCEPT] = {STR_INIT("except"), TYPE_STRINGS, API_PAGE_MAX},
    [FIELD_TICKET_GROUPS] = {STR_INIT("groups"), TYPE_STRINGS, 0},
    [FIELD_TTL] = {STR_INIT("ttl"), TYPE_INTEGER, 0},
    [FIELD_SESSION] = {STR_INIT("session"), TYPE_INTEGER, 0},
    [FIELD_URL] = {STR_INIT("url"), TYPE_TEXT, ACCOUNT_URL_MAX},
    [FIELD_EVENTS] = {STR_INIT("events"), TYPE_STRINGS, 16},
};

/* --- responses ------------------------------------------------------------------------------- */

bool api_reject(struct api_response *response, int status, enum result_code code, const char *error)
{
    *response = (struct api_response){.status = status, .code = code};
    command_write_envelope(&response->body, code, str_from(error), (struct str){0});
    return false;
}

bool api_reject_for(struct api_response *response, int status, enum result_code code,
                    const char *error, unsigned retry_after)
{
    api_reject(response, status, code, error);
    response->retry_after = retry_after;
    return false;
}

bool api_print(struct api_response *response, int status, enum result_code code, const char *format,
               ...)
{
    char text[512];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return api_reject(response, status, code, text);
}

bool api_bad_field(struct api_request *request, enum api_field field, const char *problem)
{
    return api_print(request->response, 400, RESULT_MALFORMED, "field %s %s",
                     api_fields[field].name.at, problem);
}

void api_succeed(struct api_response *response, struct buf *data)
{
    *response = (struct api_response){.status = 200};
    command_write_envelope(&response->body, RESULT_SUCCESS, STR("success"), str_of(data));
    response->body.failed |= data->failed;
    buf_free(data);
}

/* --- the body -------------------------------------------------------------------------------- */

bool api_has(const struct api_request *request, enum api_field field)
{
    return request->json[field].value.type != JSON_NONE;
}

/* Checks and decodes a string. An `optional` one may be empty: an empty name removes it. */
static bool api_check_string(struct api_request *request, enum api_field field, bool optional)
{
    const struct api_field_rule *rule = &api_fields[field];
    struct json_value value = request->json[field].value;
    struct buf *decoded = &request->api->decoded;
    size_t begin = decoded->length;
    struct str text;

    if (value.type != JSON_STRING)
        return api_bad_field(request, field, "must be a string");
    if (!rule->max)
        return true;
    if (!json_decode_string(value, decoded))
        return api_bad_field(request, field, "has half of a surrogate pair");
    text = (struct str){decoded->at + begin, decoded->length - begin};
    if (!text.length && !optional)
        return api_bad_field(request, field, "must not be empty");
    if (text.length > rule->max)
        return api_print(request->response, 400, RESULT_MALFORMED,
                         "field %s is too long; the limit in bytes is %zu", rule->name.at,
                         rule->max);
    if (rule->type == TYPE_NAME && utf8_has_control(text))
        return api_bad_field(request, field, "has a control character");
    request->text[field] = text;
    return true;
}

static bool api_check_strings(struct api_request *request, enum api_field field)
{
    struct json_value array = request->json[field].value, element;
    size_t count = 0, max = api_fields[field].max;
    bool good = array.type == JSON_ARRAY;

    for (; good && json_next_element(&array.text, &element); count++)
        good = element.type == JSON_STRING;
    if (!good)
        return api_bad_field(request, field, "must be an array of strings");
    return !max || count <= max ||
           api_print(request->response, 400, RESULT_MALFORMED,
                     "field %s has too many entries; the limit is %zu", api_fields[field].name.at,
                     max);
}

static bool api_check_integer(struct api_request *request, enum api_field field)
{
    int64_t *number = field == FIELD_LIMIT ? &request->limit : &request->code;
    size_t max = api_fields[field].max;

    if (!json_decode_integer(request->json[field].value, number))
        return api_bad_field(request, field, "must be an integer of 64 bits");
    return !max || (*number >= 1 && (uint64_t)*number <= max) ||
           api_print(request->response, 400, RESULT_MALFORMED, "field %s must be from 1 to %zu",
                     api_fields[field].name.at, max);
}

static bool api_check_field(struct api_request *request, enum api_field field, bool optional)
{
    struct json_value value = request->json[field].value;

    switch (api_fields[field].type) {
    case TYPE_ANY:
        return true;
    case TYPE_INTEGER:
        return api_check_integer(request, field);
    case TYPE_BOOLEAN:
        return value.type == JSON_BOOLEAN || api_bad_field(request, field, "must be true or false");
    case TYPE_STRINGS:
        return api_check_strings(request, field);
    default:
        return api_check_string(request, field, optional);
    }
}

/* Reads the body into the fields that the route takes. */
bool api_read_fields(struct api_request *request, unsigned required, unsigned optional)
{
    static const char mark[] = {'\xef', '\xbb', '\xbf'}; /* byte order mark: no meaning in UTF-8 */
    struct str body = request->call->body, text = body;
    struct buf *decoded = &request->api->decoded;
    struct json_error error;

    for (enum api_field i = 0; i < FIELD_COUNT; i++) /* no name in UTF-8 is \xff */
        request->json[i].name = (required | optional) >> i & 1 ? api_fields[i].name : STR("\xff");
    if (body.length >= sizeof mark && memcmp(body.at, mark, sizeof mark) == 0)
        text = str_skip(body, sizeof mark);
    if (!json_parse_object(text, request->json, FIELD_COUNT, &error))
        return api_print(request->response, 400, RESULT_MALFORMED,
                         "the body is not valid JSON: %s, at byte %zu", error.reason,
                         body.length - text.length + error.offset + 1);
    decoded->length = 0;
    if (!buf_reserve(decoded, body.length)) {
        buf_free(decoded); /* clears the failure: it was of this request alone */
        return api_reject(request->response, 503, RESULT_UNREACHABLE, "out of memory");
    }
    for (enum api_field i = 0; i < FIELD_COUNT; i++) {
        if (api_has(request, i) && !api_check_field(request, i, optional >> i & 1))
            return false;
        else if (!api_has(request, i) && (required >> i & 1))
            return api_bad_field(request, i, "is missing");
    }
    return true;
}
