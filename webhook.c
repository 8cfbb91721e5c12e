/* webhook.c - events of systems, delivered to the receivers that these systems have named.
 *
 * Data. Each system has a struct webhook with a FIFO of events: JSON without their numbers. A batch
 * is the first `batch` events of it. They stay there until the receiver takes them; each attempt
 * writes the body again, under the one lock, because an overflow may empty the FIFO meanwhile.
 *
 * Losses. An overflow empties the FIFO and begins an epoch, whose first event, `start`, tells how
 * much was lost. A batch that is under way then counts as lost, even if the receiver takes it. A
 * `start` that is dropped passes its count on to the next one.
 *
 * Epochs are the unix time in milliseconds, in a cluster by Redis's clock, or one more than the
 * last epoch of this node: no two batches have the same id. None is used before its time: after a
 * crash the next one is larger.
 *
 * Threads. Up to WORKERS_MAX workers, each with webhooks and connections of its own. A worker takes
 * the webhook that is due first, makes one attempt without the lock, and looks again; while a
 * receiver works, its next batch grows. Workers wait in poll(), which the stop pipe ends, or in
 * dial_tcp(), which nothing ends: webhook_close leaves such a worker behind. */
#include "webhook.h"

#include "dial.h"
#include "json.h"
#include "os.h"
#include "table.h"
#include "webhook_client.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define WORKERS_MAX 16
#define KEPT_MAX 4 /* connections of a worker, see WEBHOOK_DESCRIPTORS */
#define BATCH_EVENTS 256
#define BATCH_BYTES (256 * 1024)
#define NUMBER_MAX 32   /* bytes of an event's number in a batch, with what is around it */
#define KEEP_PAUSES 4   /* 4 s: a connection without work is closed; many servers do so after 5 */
#define PAUSES_MAX 30   /* the longest pause is 30 s */
#define DIAL_WAIT 200   /* milliseconds for which webhook_close waits for those that dial */
#define AHEAD_MAX 10000 /* milliseconds for which an epoch waits, however the clock was set */
#define ENTRY_COST (sizeof(struct webhook_entry) + 16) /* memory beside the text */

struct webhook_entry {
    struct fifo_link link; /* first */
    int64_t queued_at;     /* os_now_ms() */
    size_t length;
    char text[]; /* behind {"seq":N */
};

struct webhook {
    struct webhook *next; /* of its worker's */
    struct webhook_worker *worker;
    struct rcbuf *url; /* of the settings in `report` */
    struct webhook_report report;
    struct fifo queue;
    size_t batch;         /* events of it that go together, 0: not tried yet */
    unsigned tries;       /* of the batch */
    int64_t due, used_at; /* os_now_ms() of the next attempt and of the last */
    int64_t backoff;      /* see os_backoff */
    bool moved;           /* the connection is to another URL */
    struct receiver receiver;
    size_t name_length;
    char name[];
};

struct webhook_worker {
    struct webhooks *webhooks;
    struct webhook *first;
    size_t count;
    bool started;
    atomic_bool dialing;
    pthread_t thread;
    pthread_cond_t changed;
};

struct webhooks {
    struct webhook_options options;
    uint32_t seed;
    int stop_pipe[2];
    atomic_bool stop;
    pthread_mutex_t tls_lock;
    struct tls_context *tls; /* made by the first worker that needs it */
    struct table table;
    pthread_mutex_t lock; /* guards what follows */
    struct webhook_worker workers[WORKERS_MAX];
    struct webhook_stats stats;
    int64_t clock, last_epoch;
    bool finishing;
};

struct str webhook_system(const struct webhook *hook)
{
    return (struct str){hook->name, hook->name_length};
}

static int64_t webhook_unix_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- signatures (Standard Webhooks) ---------------------------------------------------------- */

/* The secret is HMAC(HKDF(crypto_key, "webhook"), version and system). */
static bool webhook_derive(const struct crypto_keys *keys, struct str system, uint64_t version,
                           unsigned char secret[CRYPTO_HASH_SIZE])
{
    char bytes[8 + 128];
    struct buf text = BUF_INIT(bytes);

    bytes_put_be(bytes, 8, version);
    text.length = 8;
    return buf_append(&text, system) &&
           crypto_derive(keys, STR("webhook"), secret, CRYPTO_HASH_SIZE) &&
           crypto_hmac(secret, str_of(&text), secret);
}

bool webhook_append_secret(struct buf *out, const struct crypto_keyring *keys, struct str system,
                           uint64_t version)
{
    unsigned char secret[CRYPTO_HASH_SIZE];
    bool good = webhook_derive(&keys->keys[0], system, version, secret) &&
                buf_append(out, STR("whsec_")) && crypto_base64(out, CRYPTO_BYTES(secret));

    crypto_erase(secret, sizeof secret);
    return good;
}

bool webhook_append_signature(struct buf *out, const unsigned char secret[CRYPTO_HASH_SIZE],
                              struct str text)
{
    unsigned char mac[CRYPTO_HASH_SIZE];

    return crypto_hmac(secret, text, mac) && buf_append(out, STR("v1,")) &&
           crypto_base64(out, CRYPTO_BYTES(mac));
}

/* Appends a signature for each crypto_key, and for the secret before if it is `rotated`. */
static void webhook_sign(const struct webhooks *webhooks, const struct webhook *hook,
                         uint64_t version, size_t rotated, struct str text, struct buf *out)
{
    const struct crypto_keyring *keys = webhooks->options.keys;
    unsigned char secret[CRYPTO_HASH_SIZE];

    for (size_t i = 0; i < keys->count * (1 + rotated); i++) {
        buf_append(out, i ? STR(" ") : STR(""));
        if (!webhook_derive(&keys->keys[i / (1 + rotated)], webhook_system(hook),
                            version - i % (1 + rotated), secret) ||
            !webhook_append_signature(out, secret, text))
            out->failed = true;
    }
    crypto_erase(secret, sizeof secret);
}

/* --- queues: all functions hold the lock ----------------------------------------------------- */

/* Removes and frees the first entries. */
static void webhook_drop(struct webhooks *webhooks, struct webhook *hook, size_t count)
{
    for (; count; count--, hook->report.count--) {
        struct webhook_entry *entry = (struct webhook_entry *)fifo_pop(&hook->queue);

        hook->report.queued -= entry->length + ENTRY_COST;
        webhooks->stats.queued -= entry->length + ENTRY_COST;
        free(entry);
    }
    hook->batch = hook->tries = 0;
}

static void webhook_add(struct webhooks *webhooks, struct webhook *hook,
                        struct webhook_entry *entry)
{
    fifo_push(&hook->queue, &entry->link);
    hook->report.count++;
    hook->report.seq++;
    hook->report.queued += entry->length + ENTRY_COST;
    webhooks->stats.queued += entry->length + ENTRY_COST;
}

/* 1 if the first entry is `start`, else 0. */
static size_t webhook_starts(const struct webhook *hook)
{
    return hook->report.count && hook->report.count == hook->report.seq;
}

/* os_now_ms() at which the oldest event was queued, `start` not counted; 0: there is none. */
static int64_t webhook_oldest(const struct webhook *hook)
{
    const struct fifo_link *first = hook->queue.first;

    first = webhook_starts(hook) ? first->next : first;
    return first ? ((const struct webhook_entry *)first)->queued_at : 0;
}

static bool webhook_has_work(const struct webhook *hook)
{
    return hook->report.count && !hook->report.off;
}

/* Writes an event of this moment. NULL without memory. */
static struct webhook_entry *webhook_new_entry(const char *type, const struct webhook_field *field)
{
    struct webhook_entry *entry = NULL;
    struct buf text = {0};

    buf_print(&text, ",\"type\":\"%s\",\"at\":%lld", type, (long long)webhook_unix_ms());
    for (; field->name; field++) {
        buf_print(&text, ",\"%s\":", field->name);
        text.failed |= field->type == WEBHOOK_JSON && !field->text.length;
        if (field->type == WEBHOOK_JSON)
            buf_append(&text, field->text);
        else if (field->type == WEBHOOK_TEXT)
            json_append_quoted(&text, field->text);
        else
            buf_append_number(&text, field->number);
    }
    if (buf_append(&text, STR("}")))
        entry = malloc(sizeof *entry + text.length);
    if (entry) {
        entry->queued_at = os_now_ms();
        entry->length = text.length;
        memcpy(entry->text, text.at, text.length);
    }
    buf_free(&text);
    return entry;
}

/* Empties the FIFO and queues a `start` that tells of this and of `more` losses. If the webhook is
 * off, or without memory, there is no start, and the epoch is 0. */
static void webhook_begin_epoch(struct webhooks *webhooks, struct webhook *hook, uint64_t more)
{
    int64_t now = webhooks->clock ? os_now_ms() + webhooks->clock : webhook_unix_ms();
    int64_t ahead = webhooks->last_epoch + 1 - now;
    struct webhook_entry *start = NULL;
    struct webhook_field lost[] = {{"lost", .type = WEBHOOK_NUMBER}, {0}};

    more += hook->report.count - webhook_starts(hook);
    webhooks->stats.lost += more;
    hook->report.lost += more;
    lost->number = (int64_t)hook->report.lost;
    webhook_drop(webhooks, hook, hook->report.count);
    webhooks->last_epoch = ahead > 0 ? now + ahead : now;
    if (!hook->report.off)
        start = webhook_new_entry("start", lost);
    hook->report.epoch = start ? webhooks->last_epoch : 0;
    hook->report.seq = 0;
    if (start)
        webhook_add(webhooks, hook, start);
    ahead = os_now_ms() + (ahead < AHEAD_MAX ? ahead : AHEAD_MAX);
    hook->due = hook->due > ahead ? hook->due : ahead;
}

/* Writes the batch. The first call fixes its length, so all attempts send the same bytes. */
static void webhook_write_body(const struct webhooks *webhooks, struct webhook *hook,
                               struct buf *body)
{
    const struct webhook_entry *entry = (const struct webhook_entry *)hook->queue.first;
    size_t most = hook->batch ? hook->batch : BATCH_EVENTS;

    buf_append(body, STR("{\"systemId\":"));
    json_append_quoted(body, webhook_system(hook));
    buf_append(body, STR(",\"node\":"));
    json_append_quoted(body, str_from(webhooks->options.node));
    buf_print(body, ",\"epoch\":%lld,\"events\":[", (long long)hook->report.epoch);
    for (hook->batch = 0; entry && hook->batch < most; hook->batch++) {
        if (hook->batch && body->length + entry->length + NUMBER_MAX > BATCH_BYTES)
            break;
        buf_print(body, "%s{\"seq\":%llu", hook->batch ? "," : "",
                  (unsigned long long)(hook->report.seq - hook->report.count + 1 + hook->batch));
        buf_append(body, (struct str){entry->text, entry->length});
        entry = (const struct webhook_entry *)entry->link.next;
    }
    buf_append(body, STR("]}"));
}

/* --- workers --------------------------------------------------------------------------------- */

/* One attempt's own copies: the webhook may change meanwhile. */
struct webhook_attempt {
    struct webhook_settings settings;
    struct receiver_url url;
    int64_t epoch;
    uint64_t seq;
    struct webhook_delivery delivery;
    int64_t began; /* os_now_ms() */
    struct buf body, request;
    struct receiver_result result;
};

static void webhook_write_request(const struct webhooks *webhooks, const struct webhook *hook,
                                  struct webhook_attempt *attempt)
{
    int64_t now = (int64_t)time(NULL);
    struct buf text = {0}, *out = &attempt->request;

    buf_print(&text, "%s.%lld.%llu", webhooks->options.node, (long long)attempt->epoch,
              (unsigned long long)attempt->seq);
    buf_append(out, STR("POST "));
    buf_append(out, attempt->url.path);
    buf_append(out, STR(" HTTP/1.1\r\nHost: "));
    buf_append(out, attempt->url.authority);
    buf_print(out,
              "\r\nUser-Agent: wspush/%s\r\nContent-Type: application/json\r\n"
              "Content-Length: %zu\r\nwebhook-timestamp: %lld\r\nwebhook-id: ",
              webhooks->options.version, attempt->body.length, (long long)now);
    buf_append(out, str_of(&text));
    buf_print(&text, ".%lld.", (long long)now);
    buf_append(&text, str_of(&attempt->body));
    buf_append(out, STR("\r\nwebhook-signature: "));
    webhook_sign(webhooks, hook, attempt->settings.version,
                 now - attempt->settings.rotated_at < WEBHOOK_SECRET_LIFE, str_of(&text), out);
    buf_append(out, STR("\r\n\r\n"));
    buf_append(out, str_of(&attempt->body));
    out->failed |= text.failed || attempt->body.failed;
    buf_free(&text);
}

/* Connects. False: there is no connection. */
static bool webhook_connect(struct webhooks *webhooks, struct webhook *hook,
                            struct webhook_attempt *attempt)
{
    const struct receiver_url *url = &attempt->url;
    struct dial_result dialed = {.error = "stopped"};
    const struct tls_context *tls;
    char error[256];
    int fd = -1;

    hook->worker->dialing = true; /* before it looks at `stop`: see webhook_close */
    if (!webhooks->stop)
        fd = dial_tcp(url->host, (unsigned)url->port, &webhooks->stop, &dialed);
    hook->worker->dialing = false;
    attempt->result.error = dialed.error;
    if (fd < 0)
        return false;
    pthread_mutex_lock(&webhooks->tls_lock);
    if (url->secure && !webhooks->tls)
        webhooks->tls = tls_client_context_new(webhooks->options.ca, error, sizeof error);
    tls = webhooks->tls;
    pthread_mutex_unlock(&webhooks->tls_lock);
    attempt->result.error = "the certificates in [webhook] ca cannot be loaded";
    return receiver_open(&hook->receiver, fd, tls, url);
}

static void webhook_try(struct webhooks *webhooks, struct webhook *hook,
                        struct webhook_attempt *attempt)
{
    bool fresh = !receiver_is_open(&hook->receiver);

    webhook_write_request(webhooks, hook, attempt);
    attempt->result = (struct receiver_result){.error = "out of memory"};
    for (; !attempt->request.failed; fresh = true) {
        if (fresh && !webhook_connect(webhooks, hook, attempt))
            break;
        receiver_post(&hook->receiver, &attempt->request, webhooks->options.timeout,
                      webhooks->stop_pipe[0], &attempt->result);
        if (fresh || !attempt->result.stale)
            break;
    }
    buf_free(&attempt->request);
    buf_free(&attempt->body);
}

/* Ends an attempt: removes the batch if it was taken, else sets the pause. Holds the lock. */
static void webhook_end_attempt(struct webhooks *webhooks, struct webhook *hook,
                                struct webhook_attempt *attempt)
{
    struct webhook_report *report = &hook->report;
    const struct receiver_result *result = &attempt->result;
    int64_t oldest = webhook_oldest(hook), pause = webhooks->options.pause;
    bool taken = result->status / 100 == 2, holds = attempt->epoch == report->epoch;

    hook->used_at = os_now_ms();
    if (hook->due < hook->used_at) /* an epoch that has begun meanwhile may have to wait */
        hook->due = hook->used_at;
    attempt->delivery.status = result->status;
    attempt->delivery.error = result->error;
    attempt->delivery.took = (unsigned)(hook->used_at - attempt->began);
    report->last[report->deliveries++ % WEBHOOK_DELIVERIES] = attempt->delivery;
    if (!taken) {
        webhooks->stats.failures++;
        hook->backoff = hook->backoff ? hook->backoff : pause * 2 / 3;
        hook->due += os_backoff(&hook->backoff, pause * PAUSES_MAX * 4 / 3); /* pause +- 1/3 */
    } else {
        hook->backoff = 0;
    }
    if (taken && holds) {
        webhooks->stats.delivered += hook->batch - webhook_starts(hook);
        report->lost = webhook_starts(hook) ? 0 : report->lost;
        webhook_drop(webhooks, hook, hook->batch);
    } else if (result->status == 410 && holds) {
        report->off = true;
        webhook_begin_epoch(webhooks, hook, 0);
    } else if (holds && oldest && hook->used_at - oldest > webhooks->options.retry) {
        webhook_begin_epoch(webhooks, hook, 0);
    }
}

/* Makes one attempt. Releases the lock meanwhile. */
static void webhook_serve(struct webhooks *webhooks, struct webhook *hook)
{
    struct webhook_attempt attempt = {.settings = hook->report.settings,
                                      .epoch = hook->report.epoch,
                                      .seq = hook->report.seq - hook->report.count + 1,
                                      .began = os_now_ms()};
    struct rcbuf *url = hook->url;

    url->references++; /* guarded by the lock */
    receiver_read_url((struct str){url->bytes, url->length}, &attempt.url);
    webhook_write_body(webhooks, hook, &attempt.body);
    attempt.delivery = (struct webhook_delivery){
        .at = webhook_unix_ms(), .events = (unsigned)hook->batch, .attempt = ++hook->tries};
    if (hook->moved)
        receiver_close(&hook->receiver);
    hook->moved = false;
    pthread_mutex_unlock(&webhooks->lock);
    webhook_try(webhooks, hook, &attempt);
    pthread_mutex_lock(&webhooks->lock);
    webhook_end_attempt(webhooks, hook, &attempt);
    rcbuf_release(url);
}

/* The webhook with work that is due first, NULL if none has work. Closes connections that are idle,
 * or too many. */
static struct webhook *webhook_choose(const struct webhook_worker *worker, int64_t now)
{
    int64_t keep = worker->webhooks->options.pause * KEEP_PAUSES;
    struct webhook *chosen = NULL, *oldest = NULL;
    size_t open = 0;

    for (struct webhook *hook = worker->first; hook; hook = hook->next) {
        if (!webhook_has_work(hook)) {
            if (now - hook->used_at > keep)
                receiver_close(&hook->receiver);
        } else if (!chosen || hook->due < chosen->due) {
            chosen = hook;
        }
        open += hook->receiver.fd >= 0;
        if (hook->receiver.fd >= 0 && (!oldest || hook->used_at < oldest->used_at))
            oldest = hook;
    }
    if (open > KEPT_MAX || (open == KEPT_MAX && chosen && chosen->receiver.fd < 0))
        receiver_close(&oldest->receiver);
    return chosen;
}

static void *webhook_work(void *argument)
{
    struct webhook_worker *worker = argument;
    struct webhooks *webhooks = worker->webhooks;

    pthread_mutex_lock(&webhooks->lock);
    while (!webhooks->stop) {
        int64_t now = os_now_ms(), wait = 999; /* no longer, for the wall clock may be set */
        struct webhook *hook = webhook_choose(worker, now);
        struct timespec until;

        if (hook && hook->due <= now) {
            webhook_serve(webhooks, hook);
            continue;
        }
        if (hook && hook->due - now < wait)
            wait = hook->due - now;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += (long)wait * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&worker->changed, &webhooks->lock, &until);
    }
    pthread_mutex_unlock(&webhooks->lock);
    return NULL;
}

/* Wakes the worker of a webhook, or starts it. Holds the lock. */
static void webhook_wake(struct webhook *hook)
{
    struct webhook_worker *worker = hook->worker;

    if (worker->started)
        pthread_cond_signal(&worker->changed);
    else
        worker->started = os_thread_start(&worker->thread, webhook_work, worker);
}

/* --- the loop's side ------------------------------------------------------------------------- */

struct webhook *webhook_find(const struct webhooks *webhooks, struct str system)
{
    struct table_cursor cursor = {0};
    struct webhook *hook;

    if (!webhooks || !webhooks->table.count)
        return NULL;
    cursor.hash = str_hash(system, webhooks->seed);
    while ((hook = table_next(&webhooks->table, &cursor)) &&
           !str_equal(webhook_system(hook), system))
        ;
    return hook;
}

/* Adds a webhook, off, to the worker that has fewest. NULL without memory. Holds the lock. */
static struct webhook *webhook_new(struct webhooks *webhooks, struct str system)
{
    struct webhook *hook = calloc(1, sizeof *hook + system.length);
    struct webhook_worker *worker = webhooks->workers;

    if (!hook || !table_add(&webhooks->table, str_hash(system, webhooks->seed), hook)) {
        free(hook);
        return NULL;
    }
    for (size_t i = 1; i < WORKERS_MAX; i++)
        if (webhooks->workers[i].count < worker->count)
            worker = &webhooks->workers[i];
    worker->count++;
    hook->name_length = system.length;
    memcpy(hook->name, system.at, system.length);
    hook->report.off = true;
    hook->receiver.fd = -1;
    hook->worker = worker;
    hook->next = worker->first;
    worker->first = hook;
    return hook;
}

void webhook_set_clock(struct webhooks *webhooks, int64_t clock)
{
    pthread_mutex_lock(&webhooks->lock);
    webhooks->clock = clock;
    pthread_mutex_unlock(&webhooks->lock);
}

/* Holds the lock. */
static void webhook_renew(struct webhooks *webhooks, struct webhook *hook, uint64_t lost)
{
    hook->report.lost += lost;
    webhook_begin_epoch(webhooks, hook, 0);
    webhook_wake(hook);
}

void webhook_restart(struct webhooks *webhooks, struct webhook *hook, uint64_t lost)
{
    pthread_mutex_lock(&webhooks->lock);
    webhook_renew(webhooks, hook, lost);
    pthread_mutex_unlock(&webhooks->lock);
}

/* Gives a webhook what its system wants, and the reference to the URL. Holds the lock. */
static void webhook_change(struct webhooks *webhooks, struct webhook *hook, struct rcbuf *url,
                           const struct webhook_settings *settings, uint64_t lost)
{
    bool begins = hook->report.off || hook->report.settings.events != settings->events ||
                  !str_equal(hook->report.settings.url, settings->url);

    rcbuf_release(hook->url);
    hook->url = url;
    hook->report.settings = *settings;
    hook->report.settings.url = (struct str){url->bytes, url->length};
    hook->report.off = url->length == 0;
    if (!begins)
        return;
    hook->moved = true;
    hook->due = hook->backoff = 0;
    webhook_renew(webhooks, hook, lost);
}

bool webhook_set(struct webhooks *webhooks, struct str system,
                 const struct webhook_settings *settings, uint64_t lost)
{
    struct rcbuf *url = NULL;
    struct receiver_url parts;
    struct webhook *hook = NULL;

    if (!settings->url.length || receiver_read_url(settings->url, &parts))
        url = rcbuf_copy(settings->url);
    pthread_mutex_lock(&webhooks->lock);
    if (url && ((hook = webhook_find(webhooks, system)) || (hook = webhook_new(webhooks, system))))
        webhook_change(webhooks, hook, url, settings, lost);
    else
        rcbuf_release(url);
    pthread_mutex_unlock(&webhooks->lock);
    return hook != NULL;
}

/* Empties the longest queue: one system must not use up the memory that all share. */
static void webhook_make_room(struct webhooks *webhooks)
{
    struct webhook *longest = NULL, *hook;
    size_t place = 0;

    while ((hook = table_walk(&webhooks->table, &place)))
        if (!longest || hook->report.queued > longest->report.queued)
            longest = hook;
    if (longest)
        webhook_begin_epoch(webhooks, longest, 0);
}

/* Appends an entry. If it does not fit, or is NULL, it is lost with all others. Holds the lock. */
static void webhook_append(struct webhooks *webhooks, struct webhook *hook,
                           struct webhook_entry *entry)
{
    size_t bytes = entry ? entry->length + ENTRY_COST : 0;

    if (webhooks->stats.queued + bytes > WEBHOOK_BYTES_MAX)
        webhook_make_room(webhooks);
    if (entry && hook->report.epoch && hook->report.queued + bytes <= webhooks->options.queue &&
        webhooks->stats.queued + bytes <= WEBHOOK_BYTES_MAX) {
        webhook_add(webhooks, hook, entry);
    } else {
        webhook_begin_epoch(webhooks, hook, 1);
        free(entry);
    }
    webhook_wake(hook);
}

struct webhook *webhook_next(const struct webhooks *webhooks, size_t *place)
{
    return webhooks ? table_walk(&webhooks->table, place) : NULL;
}

const char *webhook_node(const struct webhooks *webhooks)
{
    return webhooks->options.node;
}

bool webhook_wants(struct webhooks *webhooks, const struct webhook *hook, enum webhook_kind kind)
{
    bool off;

    pthread_mutex_lock(&webhooks->lock);
    off = hook->report.off;
    pthread_mutex_unlock(&webhooks->lock);
    return !off && (hook->report.settings.events & 1u << kind);
}

bool webhook_push(struct webhooks *webhooks, struct webhook *hook, enum webhook_kind kind,
                  const struct webhook_field *fields)
{
    static const char *const types[] = {"connect", "disconnect", "join", "leave", "message", "end"};
    struct webhook_entry *entry;
    bool fits = true, wanted;

    if (kind != WEBHOOK_END && !(hook->report.settings.events & 1u << kind))
        return true;
    entry = webhook_new_entry(types[kind], fields);
    pthread_mutex_lock(&webhooks->lock);
    wanted = !hook->report.off && !webhooks->finishing;
    if (kind == WEBHOOK_MESSAGE && wanted)
        fits = entry && hook->report.queued + entry->length < webhooks->options.queue / 4 * 3 &&
               webhooks->stats.queued + entry->length < WEBHOOK_BYTES_MAX / 4 * 3;
    webhooks->stats.refused += !fits;
    if (wanted && fits)
        webhook_append(webhooks, hook, entry);
    else
        free(entry);
    pthread_mutex_unlock(&webhooks->lock);
    return fits;
}

/* --- numbers --------------------------------------------------------------------------------- */

void webhook_read_report(struct webhooks *webhooks, const struct webhook *hook,
                         struct webhook_report *report)
{
    pthread_mutex_lock(&webhooks->lock);
    *report = hook->report;
    pthread_mutex_unlock(&webhooks->lock);
}

void webhook_measure(struct webhooks *webhooks, struct webhook_stats *stats)
{
    const struct webhook *hook;
    int64_t now = os_now_ms();
    size_t place = 0;

    pthread_mutex_lock(&webhooks->lock);
    *stats = webhooks->stats;
    while ((hook = table_walk(&webhooks->table, &place))) {
        int64_t oldest = webhook_oldest(hook);

        stats->waiting += webhook_has_work(hook);
        if (oldest && now - oldest > stats->lag)
            stats->lag = now - oldest;
    }
    pthread_mutex_unlock(&webhooks->lock);
}

/* --- opening and closing --------------------------------------------------------------------- */

void webhook_finish(struct webhooks *webhooks)
{
    struct webhook *hook;
    size_t place = 0;

    pthread_mutex_lock(&webhooks->lock);
    webhooks->finishing = true;
    while ((hook = table_walk(&webhooks->table, &place))) {
        struct webhook_field end[] = {
            {.name = "node", .text = str_from(webhooks->options.node)},
            {"epoch", .type = WEBHOOK_NUMBER, .number = hook->report.epoch},
            {0}};

        hook->due = hook->backoff = 0;
        if (!hook->report.off)
            webhook_append(webhooks, hook, webhook_new_entry("end", end));
    }
    pthread_mutex_unlock(&webhooks->lock);
}

struct webhooks *webhook_open(const struct webhook_options *options)
{
    struct webhooks *webhooks = calloc(1, sizeof *webhooks);

    if (!webhooks || !os_wake_pipe(webhooks->stop_pipe)) {
        free(webhooks);
        return NULL;
    }
    webhooks->options = *options;
    webhooks->clock = options->clock;
    pthread_mutex_init(&webhooks->tls_lock, NULL);
    pthread_mutex_init(&webhooks->lock, NULL);
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        webhooks->workers[i].webhooks = webhooks;
        pthread_cond_init(&webhooks->workers[i].changed, NULL);
    }
    if (crypto_random(&webhooks->seed, sizeof webhooks->seed))
        return webhooks;
    webhook_close(webhooks);
    return NULL;
}

/* Ends the workers. False: some are still dialing. */
static bool webhook_stop(struct webhooks *webhooks)
{
    int64_t until = os_now_ms() + DIAL_WAIT;
    bool all = true;

    webhooks->stop = true;
    os_wake(webhooks->stop_pipe[1]);
    for (size_t i = 0; i < WORKERS_MAX; i++) {
        struct webhook_worker *worker = &webhooks->workers[i];

        pthread_mutex_lock(&webhooks->lock);
        pthread_cond_signal(&worker->changed);
        pthread_mutex_unlock(&webhooks->lock);
        while (worker->dialing && os_now_ms() < until)
            poll(NULL, 0, 1);
        if (worker->dialing) {
            pthread_detach(worker->thread);
            all = false;
        } else if (worker->started) {
            pthread_join(worker->thread, NULL);
        }
    }
    return all;
}

void webhook_close(struct webhooks *webhooks)
{
    struct webhook *hook;
    size_t place = 0;

    if (!webhooks || !webhook_stop(webhooks))
        return;
    while ((hook = table_walk(&webhooks->table, &place))) {
        webhook_drop(webhooks, hook, hook->report.count);
        receiver_close(&hook->receiver);
        rcbuf_release(hook->url);
        free(hook);
    }
    for (size_t i = 0; i < WORKERS_MAX; i++)
        pthread_cond_destroy(&webhooks->workers[i].changed);
    pthread_mutex_destroy(&webhooks->lock);
    pthread_mutex_destroy(&webhooks->tls_lock);
    tls_context_free(webhooks->tls);
    table_free(&webhooks->table);
    close(webhooks->stop_pipe[0]);
    close(webhooks->stop_pipe[1]);
    free(webhooks);
}
