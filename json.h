/* json.h - RFC 8259, strictly: one linear pass over a text that is checked whole and never copied.
 *
 * The pass notes where the wanted members of the outermost object are. Values stay views of the
 * text, so they can be passed on byte for byte. No memory is allocated.
 *
 * Rejects what RFC 8259 does, invalid UTF-8, nesting deeper than JSON_DEPTH, and a wanted member
 * that is there twice, compared after unescaping. Other duplicates are the receiver's business. */
#ifndef WSPUSH_JSON_H
#define WSPUSH_JSON_H

#include "buf.h"

#define JSON_DEPTH 64

enum json_type {
    JSON_NONE, /* absent */
    JSON_NULL,
    JSON_BOOLEAN,
    JSON_NUMBER,
    JSON_STRING,
    JSON_ARRAY,
    JSON_OBJECT
};

/* A value in its text, from its first byte to its last: a string with its quotes. */
struct json_value {
    enum json_type type;
    struct str text;
};

/* A member that the caller wants to know; its name has at most 64 bytes. */
struct json_field {
    struct str name;
    struct json_value value; /* set by json_parse_object; JSON_NONE if there is no such member */
};

/* What is wrong with a text, and at which byte, counted from 0. */
struct json_error {
    const char *reason;
    size_t offset;
};

/* Checks `text`, which must be one object, and finds `count` members of it by name; others are
 * checked and ignored. False: *error is set, and the values are meaningless. */
bool json_parse_object(struct str text, struct json_field *fields, size_t count,
                       struct json_error *error);

/* Takes the next element off an array that json_parse_object has accepted. Start with `rest` = the
 * array's text. False if no element is left. */
bool json_next_element(struct str *rest, struct json_value *element);

/* Appends what a string means to `out`, as UTF-8. False if it is not a string, holds half a
 * surrogate pair (which no UTF-8 can say), or `out` has no room. */
bool json_decode_string(struct json_value value, struct buf *out);

/* Reads an integer without fraction or exponent in the range of int64_t. */
bool json_decode_integer(struct json_value value, int64_t *number);

/* True for the value `true`. */
bool json_is_true(struct json_value value);

/* Appends a string with its quotes; `text` must be valid UTF-8. */
bool json_append_quoted(struct buf *out, struct str text);

#endif
