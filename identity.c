/* identity.c - who a node of a cluster is. */
#include "identity.h"

#include <stdio.h>
#include <string.h>

size_t identity_write_name(const struct identity *identity, char text[IDENTITY_TEXT_MAX])
{
    const unsigned char *address = identity->address;

    return (size_t)snprintf(text, IDENTITY_TEXT_MAX, "%u.%u.%u.%u:%u", address[0], address[1],
                            address[2], address[3], (unsigned)identity->port);
}

size_t identity_write(const struct identity *identity, char text[IDENTITY_TEXT_MAX])
{
    size_t length = identity_write_name(identity, text);

    return length + (size_t)snprintf(text + length, IDENTITY_TEXT_MAX - length, "/%llu",
                                     (unsigned long long)identity->start);
}

bool identity_read_address(struct str text, unsigned char address[4])
{
    struct str rest = text;

    for (int i = 0; i < 4; i++) {
        uint64_t number = 0;

        if (!str_number(str_cut(&rest, '.'), 255, &number))
            return false;
        address[i] = (unsigned char)number;
    }
    return !rest.at;
}

bool identity_read(struct str text, struct identity *identity)
{
    struct str start = text, port = str_cut(&start, '/'), address = str_cut(&port, ':');
    char again[IDENTITY_TEXT_MAX];
    uint64_t number = 0;

    if (!identity_read_address(address, identity->address) || !str_number(port, 65535, &number) ||
        !str_number(start, UINT64_MAX, &identity->start))
        return false;
    identity->port = (uint16_t)number;
    /* leading zeros would give one node two names */
    return str_equal(text, (struct str){again, identity_write(identity, again)});
}

bool identity_same_name(const struct identity *a, const struct identity *b)
{
    return memcmp(a->address, b->address, sizeof a->address) == 0 && a->port == b->port;
}

bool identity_same(const struct identity *a, const struct identity *b)
{
    return identity_same_name(a, b) && a->start == b->start;
}
