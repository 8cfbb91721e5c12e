/* redis.c - one connection to Redis. */
#include "redis.h"

#include "worker.h"

#include <hiredis/hiredis.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define PAUSE_MOST 1600 /* milliseconds, at most, before connecting again */

struct redis {
    const struct config *config;
    redisContext *context;
    redisReply *reply;
    int64_t retry_at; /* milliseconds of a steady clock */
    int64_t pause;
    bool was_lost; /* the connection had been good, and was found closed */
    char error[500];
};

struct redis *redis_new(const struct config *config)
{
    struct redis *redis = calloc(1, sizeof *redis);

    if (redis)
        redis->config = config;
    return redis;
}

static void drop_reply(struct redis *redis)
{
    if (redis->reply)
        freeReplyObject(redis->reply);
    redis->reply = NULL;
}

static void disconnect(struct redis *redis)
{
    drop_reply(redis);
    if (redis->context)
        redisFree(redis->context);
    redis->context = NULL;
}

void redis_free(struct redis *redis)
{
    if (!redis)
        return;
    disconnect(redis);
    free(redis);
}

const char *redis_error(const struct redis *redis)
{
    return redis->error;
}

/* Notes why a call failed. Its value is false. */
static bool fail(struct redis *redis, const char *what, const char *remedy)
{
    snprintf(redis->error, sizeof redis->error, "Redis at %s port %u: %.150s: %s",
             redis->config->redis_host, (unsigned)redis->config->redis_port, what, remedy);
    return false;
}

/* The connection is of no use any more: the next one is tried after a pause. */
static bool fall_out(struct redis *redis, const char *what, const char *remedy)
{
    fail(redis, what, remedy);
    disconnect(redis);
    redis->retry_at = worker_now() + worker_pause(&redis->pause, PAUSE_MOST);
    return false;
}

static bool exchange(struct redis *redis, const struct str *words)
{
    const char *texts[REDIS_WORDS_MAX];
    size_t lengths[REDIS_WORDS_MAX];
    int count = 0;

    drop_reply(redis);
    for (; words[count].at && count < REDIS_WORDS_MAX; count++) {
        texts[count] = words[count].at;
        lengths[count] = words[count].length;
    }
    redis->reply = redisCommandArgv(redis->context, count, texts, lengths);
    if (!redis->reply) {
        bool late = redis->context->err == REDIS_ERR_IO && errno == EAGAIN;

        redis->was_lost = !late;
        return fall_out(redis, late ? "it does not answer in time" : redis->context->errstr,
                        "is it running, and reachable from here?");
    }
    if (redis->reply->type == REDIS_REPLY_ERROR)
        return fail(redis, redis->reply->str,
                    "put that right there, or in the section [redis] of the configuration");
    redis->error[0] = '\0';
    return true;
}

/* Logs in and chooses the database. */
static bool introduce(struct redis *redis)
{
    struct str password = str_from(redis->config->redis_password);
    char number[24];
    size_t length = (size_t)snprintf(number, sizeof number, "%llu",
                                     (unsigned long long)redis->config->redis_db);

    return (!password.length || exchange(redis, (struct str[]){STR("AUTH"), password, {0}})) &&
           (!redis->config->redis_db ||
            exchange(redis, (struct str[]){STR("SELECT"), {number, length}, {0}}));
}

static bool connect_to(struct redis *redis)
{
    struct timeval patience = {REDIS_PATIENCE / 1000, REDIS_PATIENCE % 1000 * 1000};

    if (redis->context)
        return true;
    if (worker_now() < redis->retry_at)
        return false;
    redis->context = redisConnectWithTimeout(redis->config->redis_host,
                                             (int)redis->config->redis_port, patience);
    if (!redis->context)
        return fall_out(redis, "out of memory", "free some");
    if (redis->context->err)
        return fall_out(redis, redis->context->errstr,
                        "start it there, or correct [redis] host and port");
    redisSetTimeout(redis->context, patience);
    if (introduce(redis)) {
        redis->pause = 0;
        return true;
    }
    if (redis->context)
        fall_out(redis, redis->reply->str, "correct [redis] password or db");
    return false;
}

static struct redis_reply view(const redisReply *reply)
{
    switch (reply->type) {
    case REDIS_REPLY_INTEGER:
        return (struct redis_reply){.type = REDIS_NUMBER, .number = reply->integer};
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        return (struct redis_reply){.type = REDIS_TEXT, .text = {reply->str, (size_t)reply->len}};
    case REDIS_REPLY_ARRAY:
        return (struct redis_reply){
            .type = REDIS_LIST, .count = reply->elements, .elements = reply->element};
    default:
        return (struct redis_reply){.type = REDIS_NIL};
    }
}

bool redis_call_again(struct redis *redis, const struct str *words, struct redis_reply *reply)
{
    redis->was_lost = false;
    if (redis_call(redis, words, reply))
        return true;
    if (!redis->was_lost)
        return false;
    redis->retry_at = 0;
    return redis_call(redis, words, reply);
}

bool redis_call(struct redis *redis, const struct str *words, struct redis_reply *reply)
{
    if (!connect_to(redis) || !exchange(redis, words))
        return false;
    *reply = view(redis->reply);
    return true;
}

struct redis_reply redis_element(const struct redis_reply *list, size_t index)
{
    redisReply *const *elements = list->elements;

    return view(elements[index]);
}
