/* redis.h - one connection to Redis, used by one thread that may wait. The only user of hiredis.
 * Connects when it is first needed and again after a failure, with back-off and jitter; until then
 * every call fails at once. The name is looked up again for each connection. What Redis says of
 * itself rather than of a command (READONLY, LOADING, MASTERDOWN and their like) ends the
 * connection: the name may lead to another Redis by now.
 * Refuses: to wait longer than REDIS_TIMEOUT for a connection, or for the replies to a pipeline.
 */
#ifndef WSPUSH_REDIS_H
#define WSPUSH_REDIS_H

#include "config.h"

#define REDIS_TIMEOUT 1000 /* milliseconds */

struct redis;

/* A connection that is not open yet; `config` must outlive it. NULL without memory. */
struct redis *redis_new(const struct config *config);

void redis_free(struct redis *redis);

/* REFUSAL: an error, `text` is what Redis said. */
enum redis_type { REDIS_NIL, REDIS_NUMBER, REDIS_TEXT, REDIS_LIST, REDIS_ERROR };

/* A reply, valid until the next call on its connection. Zeroed is nil. */
struct redis_reply {
    enum redis_type type;
    int64_t number;
    struct str text;
    size_t count; /* of a list */
    const void *elements;
};

#define REDIS_WORDS_MAX 256

/* Runs a command: its name and arguments, at most REDIS_WORDS_MAX, ended by {NULL, 0}. False if
 * Redis could not be reached, was too slow, or refused. */
bool redis_call(struct redis *redis, const struct str *words, struct redis_reply *reply);

/* The same, but if the connection is found closed, or what Redis says ends it, it is made anew and
 * the command sent again: it may then have been run twice. */
bool redis_call_again(struct redis *redis, const struct str *words, struct redis_reply *reply);

/* Appends a command to a pipeline, which the first redis_next sends. False: there is no connection,
 * and nothing of the pipeline was or will be sent. What was not taken of the pipeline before is
 * dropped. */
bool redis_append(struct redis *redis, const struct str *words);

/* Takes the reply to the oldest command of the pipeline that has none; it may be a REFUSAL. False:
 * the connection broke, so this command and those behind it may have been run or not, and the reply
 * is nil; or there is no such command. */
bool redis_next(struct redis *redis, struct redis_reply *reply);

/* One element of a list. */
struct redis_reply redis_element(const struct redis_reply *list, size_t index);

/* True if there is a connection, as far as is known. */
bool redis_is_connected(const struct redis *redis);

/* What went wrong last, in plain English with the remedy; "" if nothing has. */
const char *redis_error(const struct redis *redis);

/* The same without remedy, host or port, for anybody to read. */
const char *redis_reason(const struct redis *redis);

#endif
