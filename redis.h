/* redis.h - one connection to Redis, used by one thread that may wait. The only user of hiredis.
 * Connects when it is first needed and again after a failure, with back-off and jitter; until then
 * every call fails at once.
 * Refuses: to wait longer than REDIS_PATIENCE for anything. */
#ifndef WSPUSH_REDIS_H
#define WSPUSH_REDIS_H

#include "config.h"

#define REDIS_PATIENCE 1000 /* milliseconds, for a connection and for a reply */

struct redis;

/* A connection that is not open yet; `config` must outlive it. NULL without memory. */
struct redis *redis_new(const struct config *config);

void redis_free(struct redis *redis);

enum redis_type { REDIS_NIL, REDIS_NUMBER, REDIS_TEXT, REDIS_LIST };

/* A reply, valid until the next call on its connection. */
struct redis_reply {
    enum redis_type type;
    int64_t number;
    struct str text;
    size_t count; /* of a list */
    const void *elements;
};

#define REDIS_WORDS_MAX 256

/* Runs a command: its name and arguments, at most REDIS_WORDS_MAX, ended by {NULL, 0}. False if
 * Redis could not be reached, was too slow, or refused; redis_error says why. */
bool redis_call(struct redis *redis, const struct str *words, struct redis_reply *reply);

/* The same, but if the connection is found closed it is made anew and the command sent again: it
 * may then have been run twice. */
bool redis_call_again(struct redis *redis, const struct str *words, struct redis_reply *reply);

/* One element of a list. */
struct redis_reply redis_element(const struct redis_reply *list, size_t index);

/* What went wrong last, in plain English with the remedy; "" if nothing has. */
const char *redis_error(const struct redis *redis);

#endif
