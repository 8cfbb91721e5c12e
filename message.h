/* message.h - bytes encoded once and shared by reference count.
 * One thread uses them: the count is a plain number. */
#ifndef WSPUSH_MESSAGE_H
#define WSPUSH_MESSAGE_H

#include "buf.h"

/* Immutable bytes that many queues may hold. Lives until the last reference is released. */
struct message {
    uint32_t references;
    uint32_t queues; /* of connections: how many hold it, see conn.h */
    uint32_t length;
    char bytes[];
};

/* A message of `length` bytes for the caller to fill, with one reference, the caller's. NULL when
 * there is no memory or the length does not fit. */
struct message *message_new(size_t length);

/* A message with a copy of these bytes. */
struct message *message_copy(struct str bytes);

/* Gives a reference back; NULL is allowed. */
void message_release(struct message *message);

#endif
