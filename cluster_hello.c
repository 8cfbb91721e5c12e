/* cluster_hello.c - what the two ends of a link say first. */
#include "cluster_hello.h"

#include "json.h"

#include <stdio.h>

#define VERSION_MAX 1000000
#define HELLO_OLDEST (WIRE_VERSION > 1 ? WIRE_VERSION - 1 : 1)

size_t hello_write(const struct node_id *self, char text[HELLO_MAX])
{
    char node[NODE_TEXT_MAX];

    node_write(self, node);
    return (size_t)snprintf(text, HELLO_MAX, "{\"node\":\"%s\",\"version\":%d,\"oldest\":%d}", node,
                            WIRE_VERSION, HELLO_OLDEST);
}

bool hello_read(struct str text, struct hello *hello)
{
    struct json_field fields[] = {
        {.name = STR_INIT("node")}, {.name = STR_INIT("version")}, {.name = STR_INIT("oldest")}};
    struct json_error error;
    struct str node;
    int64_t version = 0, oldest = 0;

    if (!json_parse_object(text, fields, 3, &error) || fields[0].value.type != JSON_STRING)
        return false;
    node = fields[0].value.text;
    if (!node_read((struct str){node.at + 1, node.length - 2}, &hello->node) ||
        !json_decode_integer(fields[1].value, &version) ||
        !json_decode_integer(fields[2].value, &oldest) || oldest < 1 || oldest > version ||
        version > VERSION_MAX)
        return false;
    hello->version = (unsigned)version;
    hello->oldest = (unsigned)oldest;
    return true;
}

bool hello_overlaps(const struct hello *hello, char *reason, size_t room)
{
    if (hello->oldest > WIRE_VERSION)
        snprintf(reason, room,
                 "it has protocol version %u and understands %u and later, this node has %u: "
                 "replace this node by one of version %u first",
                 hello->version, hello->oldest, WIRE_VERSION, hello->oldest);
    else if (hello->version < HELLO_OLDEST)
        snprintf(reason, room,
                 "it has protocol version %u, this node has %u and understands %u and later: "
                 "replace it by one of version %u first",
                 hello->version, WIRE_VERSION, HELLO_OLDEST, HELLO_OLDEST);
    else
        return true;
    return false;
}
