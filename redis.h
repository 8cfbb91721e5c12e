/* redis.h - one connection to Redis, for one thread that may wait. The only user of hiredis.
 *
 * It connects when it is first needed, and again after a failure, with back-off and jitter; during
 * the back-off calls fail at once. Each connection looks the name up again, or asks a Sentinel
 * where the master is, and has it confirm that. An error that concerns the server and not the
 * command (READONLY, LOADING, MASTERDOWN and the like) ends the connection: the name may lead to
 * another Redis by now. Rejects: waiting longer than REDIS_TIMEOUT for a connection, or for the
 * replies of a pipeline. */
#ifndef WSPUSH_REDIS_H
#define WSPUSH_REDIS_H

#include "config.h"

#define REDIS_TIMEOUT 1000  /* milliseconds */
#define REDIS_ERROR_MAX 900 /* bytes of redis_error, with a NUL */

struct redis;

/* False if this build cannot do what [redis] asks for: `error`, cut to `room` bytes, says why, and
 * what helps. */
bool redis_check_config(const struct config *config, char *error, size_t room);

/* A connection that is not open yet. `config` must outlive it. NULL without memory. */
struct redis *redis_new(const struct config *config);

void redis_free(struct redis *redis);

/* ERROR: an error reply; `text` is what Redis said. */
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

/* Runs a command: name and arguments, at most REDIS_WORDS_MAX, ended by {NULL, 0}. False if Redis
 * could not be reached, was too slow, or replied with an error. */
bool redis_call(struct redis *redis, const struct str *words, struct redis_reply *reply);

/* The same, but if the connection is found closed, or the reply ends it, the command is sent again
 * over a new one: it may then have run twice. */
bool redis_call_again(struct redis *redis, const struct str *words, struct redis_reply *reply);

/* Appends a command to the pipeline, which the first redis_next sends. Replies of an earlier
 * pipeline that were not taken are dropped. False if there is no connection: nothing of the
 * pipeline was or will be sent. */
bool redis_append(struct redis *redis, const struct str *words);

/* Call before work that does not depend on what this connection said before (WATCH, MULTI). If the
 * server has closed the connection while it was idle, replaces it at once, without error or pause.
 * Returns true if it was replaced: the server may be another one, or may have lost data. */
bool redis_renew(struct redis *redis);

/* Takes the reply to the pipeline's oldest command without one; it may be an ERROR. False if the
 * connection broke: this command and those behind it may have run or not. False also if no command
 * is left. The reply is then nil. */
bool redis_next(struct redis *redis, struct redis_reply *reply);

/* An element of a list. */
struct redis_reply redis_element(const struct redis_reply *list, size_t index);

/* True if there is a connection, as far as is known. */
bool redis_is_connected(const struct redis *redis);

/* What failed last, and the remedy; "" if nothing has. */
const char *redis_error(const struct redis *redis);

/* The same without remedy, host or port: clients may see it. */
const char *redis_reason(const struct redis *redis);

#endif
