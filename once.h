/* once.h - which sends have been delivered on this node, so that a repetition is not delivered
 * again.
 *
 * A send is known by keyed hashes of its target and messageId and of its frame, so no caller of the
 * API can make two of them collide. The oldest sends are forgotten first. Memory grows with use:
 * none before the first send, then 40 to 80 bytes for each send that is remembered. */
#ifndef WSPUSH_ONCE_H
#define WSPUSH_ONCE_H

#include "json.h"

enum once_result {
    ONCE_NEW,      /* unknown until now */
    ONCE_REPEATED, /* delivered before */
    ONCE_CONFLICT, /* the target was sent other content under this messageId */
    ONCE_NO_MEMORY
};

/* Keyed hashes of a send. */
struct once_key {
    uint64_t target;  /* of the target and the messageId */
    uint64_t content; /* of the frame */
};

/* The sends remembered. Zeroed is empty. */
struct once {
    struct once_entry *ring; /* entry N is at N modulo capacity */
    uint64_t *newest;        /* buckets: 1 + the number of the newest entry; 0: none */
    size_t capacity;         /* a power of two, or 0 */
    uint64_t first, next;    /* numbers of the oldest entry and of the next one */
};

/* Makes the key of a send to the target of this kind and name (without control characters) in a
 * system; `id` is the messageId, JSON; `secret` is random. False without memory. */
bool once_make_key(const uint64_t secret[2], char kind, struct str system, struct str name,
                   struct str id, struct str frame, struct once_key *key);

/* Remembers a new send. `now` is in milliseconds of a steady clock. Sends older than `ttl` ms, and
 * all but the newest `max`, are forgotten. */
enum once_result once_take(struct once *once, const struct once_key *key, int64_t now, int64_t ttl,
                           uint64_t max);

/* Forgets the send that once_take has just called new: it was not delivered. */
void once_undo(struct once *once);

/* Frees everything. */
void once_free(struct once *once);

#endif
