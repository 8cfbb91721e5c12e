/* cluster_hello.h - what the two ends of a link say first: who they are, and which versions of the
 * protocol they understand: {"node":TEXT,"version":N,"oldest":M}. Pure functions of bytes.
 * Refuses: everything else, but for members that it does not know. */
#ifndef WSPUSH_CLUSTER_HELLO_H
#define WSPUSH_CLUSTER_HELLO_H

#include "cluster_wire.h"

#define HELLO_MAX (NODE_TEXT_MAX + 64)

struct hello {
    struct node_id node;
    unsigned version, oldest; /* that it understands; it understands the one behind `version` too */
};

/* Writes the hello of a node of this version, and a NUL; returns its length. */
size_t hello_write(const struct node_id *self, char text[HELLO_MAX]);

bool hello_read(struct str text, struct hello *hello);

/* True if a node of this version and the other understand each other. False: `reason` says which of
 * them is too old, and what helps. */
bool hello_overlaps(const struct hello *hello, char *reason, size_t room);

#endif
