/* message.c - bytes encoded once and shared by reference count. */
#include "message.h"

#include <stdlib.h>
#include <string.h>

struct message *message_new(size_t length)
{
    struct message *message =
        length <= UINT32_MAX - sizeof *message ? malloc(sizeof *message + length) : NULL;

    if (message) {
        message->references = 1;
        message->queues = 0;
        message->length = (uint32_t)length;
    }
    return message;
}

struct message *message_copy(struct str bytes)
{
    struct message *message = message_new(bytes.length);

    if (message && bytes.length)
        memcpy(message->bytes, bytes.at, bytes.length);
    return message;
}

void message_release(struct message *message)
{
    if (message && --message->references == 0)
        free(message);
}
