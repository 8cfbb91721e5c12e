/* redis.c - one connection to Redis.
 *
 * Waiting: there is one deadline, REDIS_TIMEOUT after the beginning, for a connection (look-up, TCP
 * to each address, TLS, AUTH, SELECT) and one for a pipeline (sending, all replies). A Redis that
 * sends a byte now and then gains no time. hiredis has no deadline for a whole reply, so
 * redis_receive polls before each read; hiredis formats commands and parses replies.
 *
 * Sentinel: with [redis] sentinels each connection begins with a question to one of them, and the
 * Redis that it names must say by ROLE that it is a master. All of that shares the deadline.
 *
 * Failures: a failure ends the connection. So does an error reply that concerns the server and not
 * the command, after the remaining replies have been read. The next connection waits for a back-off
 * that grows while connections do not last. A connection found closed while idle is no failure:
 * redis_renew replaces it.
 *
 * Threads: one at a time. */
#include "redis.h"

#include "cluster_lookup.h"
#include "cluster_tls.h"
#include "host.h"
#include "os.h"

#include <hiredis/hiredis.h>
#ifdef WSPUSH_REDIS_TLS /* the Makefile has found hiredis_ssl 1.0 or later */
#include <hiredis/hiredis_ssl.h>
#endif

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define BACKOFF_MAX 1600 /* milliseconds before connecting again */

#define SENTINEL_PORT 26379

#define RENEW_AFTER 500 /* milliseconds: an older connection is replaced if found closed */

struct redis {
    const struct config *config;
    struct resolver resolver;
    struct cluster_tls tls;
    bool at_sentinel; /* what was dialled last is a Sentinel */
    char host[256];   /* where */
    uint64_t port;
    size_t sentinel; /* of the list: the one to ask first */
    redisContext *context;
    redisReply *reply;
    size_t waiting;   /* commands of the pipeline without reply */
    bool sent;        /* the pipeline was sent */
    bool ends;        /* an error reply ends the connection when nothing waits */
    bool was_lost;    /* a good connection has ended, or was found closed */
    int64_t deadline; /* os_now_ms, as all times */
    int64_t begun_at; /* when it connected */
    int64_t retry_at, pause;
    char error[REDIS_ERROR_MAX], reason[250];
};

/* Remedies, by the first word of an error reply. */
static const struct redis_error_kind {
    const char *word, *remedy;
    bool ends; /* it concerns this server: the name may lead to another one */
} redis_error_kinds[] = {
    {"READONLY", "it is a replica: point [redis] host at the primary", true},
    {"LOADING", "wait until it has read its data", true},
    {"MASTERDOWN", "it is a replica without its primary: point [redis] host at the primary", true},
    {"NOREPLICAS", "start its replicas, or point [redis] host at the primary", true},
    {"NOAUTH", "set [redis] password, and username unless it is the default user's", true},
    {"WRONGPASS", "correct [redis] password and username", true},
    {"MOVED", "Redis Cluster is not supported: point [redis] host at a single Redis", true},
    {"CLUSTERDOWN", "Redis Cluster is not supported: point [redis] host at a single Redis", true},
    {"MISCONF", "it cannot write to its disk: free some space there", true},
    {"OOM", "give it more memory", false},
    {"NOPERM", "let its user run this command", false},
    {"", "correct that there, or in the section [redis] of the configuration", false},
};

struct redis *redis_new(const struct config *config)
{
    struct redis *redis = calloc(1, sizeof *redis);

    if (redis)
        redis->config = config;
    return redis;
}

bool redis_check_config(const struct config *config, char *error, size_t room)
{
#ifndef WSPUSH_REDIS_TLS
    if (config->redis_tls.enabled) {
        snprintf(error, room,
                 "[redis] tls = true needs hiredis 1.0 or later with hiredis_ssl, and this wspush "
                 "was built with hiredis %d.%d.%d without it: build it where libhiredis-dev has it "
                 "(Debian 13), or set tls = false and point [redis] host at a tunnel on this "
                 "machine, such as stunnel",
                 HIREDIS_MAJOR, HIREDIS_MINOR, HIREDIS_PATCH);
        return false;
    }
#endif
    (void)config, (void)error, (void)room;
    return true;
}

static void redis_drop_reply(struct redis *redis)
{
    if (redis->reply)
        freeReplyObject(redis->reply);
    redis->reply = NULL;
}

static void redis_disconnect(struct redis *redis)
{
    if (redis->context)
        redisFree(redis->context);
    redis->context = NULL;
    redis->waiting = 0;
    redis->ends = false;
}

void redis_free(struct redis *redis)
{
    if (!redis)
        return;
    redis_drop_reply(redis);
    redis_disconnect(redis);
    resolver_close(&redis->resolver);
    free(redis);
}

bool redis_is_connected(const struct redis *redis)
{
    return redis->context && !redis->ends;
}

const char *redis_error(const struct redis *redis)
{
    return redis->error;
}

const char *redis_reason(const struct redis *redis)
{
    return redis->reason;
}

/* Keeps what failed. `subject` begins the sentence for clients. */
static void redis_set_error(struct redis *redis, const char *subject, const char *what,
                            const char *remedy)
{
    snprintf(redis->error, sizeof redis->error, "%s at %s port %u: %.400s: %s",
             redis->at_sentinel ? "Sentinel" : "Redis", redis->host, (unsigned)redis->port, what,
             remedy);
    snprintf(redis->reason, sizeof redis->reason, "%s%.200s", subject, what);
}

/* Ends the connection; the next one waits for the back-off. */
static void redis_end(struct redis *redis)
{
    int64_t now = os_now_ms();

    if (redis->context && redis->begun_at && now - redis->begun_at > BACKOFF_MAX)
        redis->pause = 0;
    redis_disconnect(redis);
    redis->retry_at = now + os_backoff(&redis->pause, BACKOFF_MAX);
}

/* The connection broke while a reply was expected. */
static void redis_on_broken(struct redis *redis)
{
    redisContext *context = redis->context;
    bool late = os_now_ms() >= redis->deadline ||
                (context->err == REDIS_ERR_IO && (errno == EAGAIN || errno == EWOULDBLOCK));
    const char *what = context->err ? context->errstr : "it closed the connection";

    redis->was_lost = !late;
    redis_set_error(redis,
                    "the connection to Redis broke: ", late ? "it does not answer in time" : what,
                    "is it running, and reachable from here?");
    if (late)
        snprintf(redis->reason, sizeof redis->reason, "Redis does not answer in time");
    redis_end(redis);
}

/* Keeps the first error reply of a pipeline: later ones may only follow from it (EXECABORT). */
static void redis_take_error(struct redis *redis, struct str text)
{
    const struct redis_error_kind *refusal = redis_error_kinds;
    struct str rest = text, word = str_cut(&rest, ' ');
    char said[151];

    while (refusal->word[0] && !str_equal(word, str_from(refusal->word)))
        refusal++;
    if (str_equal(word, STR("MOVED")) || str_equal(word, STR("ASK")))
        text = word; /* the rest names addresses */
    if (text.length && text.at[text.length - 1] == '.')
        text.length--;
    redis->ends |= refusal->ends;
    if (redis->error[0])
        return;
    if (text.length >= sizeof said)
        text.length = sizeof said - 1;
    for (size_t i = 0; i < text.length; i++)
        said[i] = text.at[i] >= ' ' && text.at[i] <= '~' ? text.at[i] : '?';
    said[text.length] = '\0';
    redis_set_error(redis, "Redis says: ", said,
                    redis->at_sentinel ? "correct [redis] sentinel_username and sentinel_password, "
                                         "or let that user run SENTINEL"
                                       : refusal->remedy);
}

/* Sends the rest of the pipeline. */
static bool redis_flush(struct redis *redis)
{
    int done = 0;

    if (!redis->sent)
        redis->deadline = os_now_ms() + REDIS_TIMEOUT;
    redis->sent = true;
    while (!done) {
        struct pollfd writable = {.fd = redis->context->fd, .events = POLLOUT};
        int64_t left = redis->deadline - os_now_ms();

        if (redisBufferWrite(redis->context, &done) != REDIS_OK || (!done && left <= 0))
            return false;
        if (!done)
            poll(&writable, 1, (int)left);
    }
    return true;
}

/* Waits for the next reply; NULL if the connection broke, or after the deadline. */
static redisReply *redis_receive(struct redis *redis)
{
    struct pollfd readable = {.fd = redis->context->fd, .events = POLLIN};
    void *reply = NULL;

    while (redisGetReplyFromReader(redis->context, &reply) == REDIS_OK && !reply) {
        int64_t left = redis->deadline - os_now_ms();

        if (left <= 0)
            return NULL;
        if (poll(&readable, 1, (int)left) > 0 && redisBufferRead(redis->context) != REDIS_OK)
            return NULL;
    }
    return reply;
}

static struct redis_reply redis_view(const redisReply *reply)
{
    struct redis_reply view = {.type = REDIS_NIL};

    switch (reply->type) {
    case REDIS_REPLY_INTEGER:
        view.type = REDIS_NUMBER;
        view.number = reply->integer;
        break;
    case REDIS_REPLY_ERROR:
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        view.type = reply->type == REDIS_REPLY_ERROR ? REDIS_ERROR : REDIS_TEXT;
        view.text = (struct str){reply->str, (size_t)reply->len};
        break;
    case REDIS_REPLY_ARRAY:
        view.type = REDIS_LIST;
        view.count = reply->elements;
        view.elements = reply->element;
        break;
    default:
        break;
    }
    return view;
}

struct redis_reply redis_element(const struct redis_reply *list, size_t index)
{
    redisReply *const *elements = list->elements;

    return redis_view(elements[index]);
}

bool redis_next(struct redis *redis, struct redis_reply *reply)
{
    redis_drop_reply(redis);
    *reply = (struct redis_reply){0};
    if (!redis->waiting)
        return false;
    if (!redis_flush(redis) || !(redis->reply = redis_receive(redis))) {
        redis_on_broken(redis);
        return false;
    }
    redis->waiting--;
    *reply = redis_view(redis->reply);
    if (reply->type == REDIS_ERROR)
        redis_take_error(redis, reply->text);
    if (redis->ends && !redis->waiting) {
        redis->was_lost = true;
        redis_end(redis);
    }
    return true;
}

static bool redis_write(struct redis *redis, const struct str *words)
{
    const char *texts[REDIS_WORDS_MAX];
    size_t lengths[REDIS_WORDS_MAX];
    int count = 0;

    for (; count < REDIS_WORDS_MAX && words[count].at; count++) {
        texts[count] = words[count].at;
        lengths[count] = words[count].length;
    }
    if (redisAppendCommandArgv(redis->context, count, texts, lengths) != REDIS_OK) {
        redis_set_error(redis, "", "out of memory", "free some");
        redis_end(redis);
        return false;
    }
    redis->waiting++;
    return true;
}

/* --- connect ---------------------------------------------------------------------------------- */

/* Runs one command of a new connection, within the connection's deadline. */
static bool redis_ask(struct redis *redis, const struct str *words, struct redis_reply *reply)
{
    redis->sent = true;
    if (!redis_write(redis, words) || !redis_next(redis, reply))
        return false;
    if (reply->type == REDIS_ERROR && redis->context)
        redis_end(redis);
    return reply->type != REDIS_ERROR;
}

/* Authenticates, if there is a name or a password to do it with. */
static bool redis_log_in(struct redis *redis, const char *username, const char *password)
{
    struct str name = str_from(username), secret = str_from(password);
    struct redis_reply reply;

    if (name.length)
        return redis_ask(redis, (struct str[]){STR("AUTH"), name, secret, {0}}, &reply);
    return !secret.length || redis_ask(redis, (struct str[]){STR("AUTH"), secret, {0}}, &reply);
}

/* Has the connection speak TLS. From then on its socket does not block. */
static bool redis_secure(struct redis *redis)
{
#ifdef WSPUSH_REDIS_TLS
    struct ssl_st *ssl = cluster_tls_new(&redis->tls, &redis->config->redis_tls, redis->host);

    if (!ssl)
        return false;
    fcntl(redis->context->fd, F_SETFL, O_NONBLOCK);
    redis->context->flags &= ~REDIS_BLOCK;
    if (redisInitiateSSL(redis->context, ssl) == REDIS_OK) /* it owns `ssl` from then on */
        return cluster_tls_shake_hands(ssl, redis->context->fd, redis->deadline);
    cluster_tls_free(ssl);
#else
    (void)redis, (void)fcntl; /* redis_check_config has rejected it */
#endif
    return false;
}

/* Connects to one address; `share` addresses divide the time left. */
static bool redis_connect_to(struct redis *redis, const char *address, size_t share)
{
    struct timeval timeout = {REDIS_TIMEOUT / 1000, REDIS_TIMEOUT % 1000 * 1000};
    int64_t left = (redis->deadline - os_now_ms()) / (int64_t)share;
    struct timeval limit = {0};

    if (left < 1)
        left = 1;
    limit.tv_sec = (time_t)(left / 1000);
    limit.tv_usec = (suseconds_t)(left % 1000 * 1000);
    redis_disconnect(redis);
    redis->context = redisConnectWithTimeout(address, (int)redis->port, limit);
    return redis->context && !redis->context->err &&
           redisSetTimeout(redis->context, timeout) == REDIS_OK;
}

/* Looks a host up and connects to it; `keys` is what to correct if that cannot be done. */
static bool redis_dial(struct redis *redis, struct str host, uint64_t port, const char *keys)
{
    struct resolver_result found;
    char remedy[100];
    bool good = false;

    snprintf(redis->host, sizeof redis->host, "%.*s", (int)host.length, host.at);
    redis->port = port;
    resolver_find(&redis->resolver, redis->host, redis->deadline - os_now_ms(), &found);
    for (size_t i = 0; i < found.count && !good; i++)
        good = redis_connect_to(redis, found.addresses[i], found.count - i);
    if (good && (!redis->config->redis_tls.enabled || redis_secure(redis)))
        return true;
    snprintf(remedy, sizeof remedy, "start it there, or correct [redis] %s", keys);
    if (good) {
        redis_set_error(redis, "", cluster_tls_reason(&redis->tls),
                        "correct [redis] ca, cert and key, the host's name, or its certificate");
        snprintf(redis->reason, sizeof redis->reason, "Redis cannot be reached: TLS failed");
    } else {
        redis_set_error(redis, "Redis cannot be reached: ",
                        !found.count      ? found.error
                        : !redis->context ? "out of memory"
                                          : redis->context->errstr,
                        remedy);
    }
    redis_end(redis);
    return false;
}

/* Asks one Sentinel where the master is. */
static bool redis_ask_sentinel(struct redis *redis, struct str host, uint64_t port,
                               char master[256], uint64_t *master_port)
{
    const struct config *config = redis->config;
    struct str words[] = {STR("SENTINEL"),
                          STR("GET-MASTER-ADDR-BY-NAME"),
                          str_from(config->redis_sentinel_master),
                          {0}};
    struct redis_reply reply;
    struct str address;

    redis->error[0] = redis->reason[0] = '\0';
    if (!redis_dial(redis, host, port ? port : SENTINEL_PORT, "sentinels") ||
        !redis_log_in(redis, config->redis_sentinel_username, config->redis_sentinel_password) ||
        !redis_ask(redis, words, &reply))
        return false;
    if (reply.type == REDIS_LIST && reply.count == 2) {
        address = redis_element(&reply, 0).text;
        snprintf(master, 256, "%.*s", (int)address.length, address.at);
        if (str_number(redis_element(&reply, 1).text, 65535, master_port))
            return true;
    }
    redis_set_error(redis, "Redis cannot be reached: ", "it does not know this master",
                    "correct [redis] sentinel_master");
    redis_end(redis);
    return false;
}

/* Asks the Sentinels in turn, beginning with the one that has replied last; each has its share of
 * the time left. */
static bool redis_find_master(struct redis *redis, char master[256], uint64_t *port)
{
    struct str list = str_from(redis->config->redis_sentinels), host;
    int64_t deadline = redis->deadline;
    size_t count = host_list_length(list);
    uint64_t sentinel_port = 0;
    bool good = false;

    redis->at_sentinel = true;
    for (size_t left = count; left && !good; left--) {
        int64_t now = os_now_ms();

        redis->deadline = now + (deadline - now) / (int64_t)(left + 1);
        host_of_list(list, redis->sentinel, &host, &sentinel_port);
        good = redis_ask_sentinel(redis, host, sentinel_port, master, port);
        redis->sentinel += !good;
    }
    redis_disconnect(redis);
    redis->deadline = deadline;
    if (good) {
        redis->at_sentinel = false;
        redis->error[0] = redis->reason[0] = '\0';
    }
    return good;
}

/* What a Sentinel has named may have been demoted meanwhile, or not be promoted yet. */
static bool redis_check_role(struct redis *redis)
{
    struct redis_reply reply;

    if (!redis_ask(redis, (struct str[]){STR("ROLE"), {0}}, &reply))
        return false;
    if (reply.type == REDIS_LIST && reply.count &&
        str_equal(redis_element(&reply, 0).text, STR("master")))
        return true;
    redis_set_error(redis, "Redis cannot be reached: ", "Sentinel names it, but it is not a master",
                    "wait until the failover has ended");
    redis_end(redis);
    redis->sentinel++; /* another one may know better */
    return false;
}

static bool redis_connect(struct redis *redis)
{
    const struct config *config = redis->config;
    bool by_sentinel = config->redis_sentinels[0];
    char host[sizeof redis->host];
    uint64_t port = config->redis_port;
    char number[24];
    size_t length =
        (size_t)snprintf(number, sizeof number, "%llu", (unsigned long long)config->redis_db);
    struct redis_reply reply;

    if (redis->context)
        return true;
    if (os_now_ms() < redis->retry_at)
        return false;
    redis->error[0] = redis->reason[0] = '\0';
    redis->begun_at = 0;
    redis->deadline = os_now_ms() + REDIS_TIMEOUT;
    snprintf(host, sizeof host, "%s", config->redis_host);
    if ((by_sentinel && !redis_find_master(redis, host, &port)) ||
        !redis_dial(redis, str_from(host), port, "host and port"))
        return false;
    redis->begun_at = os_now_ms();
    return redis_log_in(redis, config->redis_username, config->redis_password) &&
           (!by_sentinel || redis_check_role(redis)) &&
           (!config->redis_db ||
            redis_ask(redis, (struct str[]){STR("SELECT"), {number, length}, {0}}, &reply));
}

bool redis_renew(struct redis *redis)
{
    struct pollfd readable = {.fd = redis->context ? redis->context->fd : -1, .events = POLLIN};

    /* a young connection that ends is a failure: replacing it each time would be a busy loop */
    if (!redis->context || redis->waiting || os_now_ms() - redis->begun_at < RENEW_AFTER ||
        poll(&readable, 1, 0) != 1)
        return false;
    redis_disconnect(redis);
    return redis_connect(redis);
}

bool redis_append(struct redis *redis, const struct str *words)
{
    struct redis_reply dropped;

    while (redis->sent && redis_next(redis, &dropped))
        ;
    if (!redis_connect(redis))
        return false;
    if (!redis->waiting) {
        redis->error[0] = redis->reason[0] = '\0';
        redis->sent = false;
    }
    return redis_write(redis, words);
}

bool redis_call(struct redis *redis, const struct str *words, struct redis_reply *reply)
{
    *reply = (struct redis_reply){0};
    return redis_append(redis, words) && redis_next(redis, reply) && reply->type != REDIS_ERROR;
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
