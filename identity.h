/* identity.h - who a node of a cluster is: its address, its port for other nodes, and when it
 * joined. As text it is IP:PORT/START; the part before the slash is the node's name. Refuses: every
 * other spelling. */
#ifndef WSPUSH_IDENTITY_H
#define WSPUSH_IDENTITY_H

#include "buf.h"

/* One life of a node: the same node has another start after each restart. */
struct identity {
    unsigned char address[4]; /* IPv4 */
    uint16_t port;
    uint64_t start; /* milliseconds of the registry's clock */
};

#define IDENTITY_TEXT_MAX 43

/* Writes the text, and a NUL; returns its length. */
size_t identity_write(const struct identity *identity, char text[IDENTITY_TEXT_MAX]);

/* Writes the name alone. */
size_t identity_write_name(const struct identity *identity, char text[IDENTITY_TEXT_MAX]);

/* Reads what identity_write writes. */
bool identity_read(struct str text, struct identity *identity);

/* Reads an IPv4 address, four numbers with points between them. */
bool identity_read_address(struct str text, unsigned char address[4]);

/* True if both are the same life of the same node. */
bool identity_same(const struct identity *a, const struct identity *b);

/* True if both are the same node, in whatever life. */
bool identity_same_name(const struct identity *a, const struct identity *b);

#endif
