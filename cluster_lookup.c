/* cluster_lookup.c - host names to addresses.
 *
 * Data: two FIFOs under one lock, `asked` and `found`. A question is a result without addresses; it
 * moves from one to the other.
 *
 * Flow: lookup_ask pushes a question and signals; the thread pops it, calls getaddrinfo without the
 * lock, pushes the result and wakes the loop. A resolver is the same for a thread that waits: it
 * polls the wake pipe of a look-up of its own.
 *
 * Threads: the caller's and one of its own, detached. Both hold the look-up; the last one frees it.
 * The thread writes to `wake` under the lock and not after `closed` is set: once lookup_close has
 * returned, the descriptor may be closed and its number reused. */
#include "cluster_lookup.h"

#include "os.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HOST_MAX 255

struct lookup {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct fifo asked, found;
    int wake;
    bool started; /* the thread runs */
    bool closed;
};

/* --- addresses -------------------------------------------------------------------------------- */

bool lookup_read(struct str host, union lookup_address *address)
{
    char text[INET6_ADDRSTRLEN];

    *address = (union lookup_address){.ipv6 = {.sin6_family = AF_INET6}};
    if (host.length >= sizeof text)
        return false;
    memcpy(text, host.at, host.length);
    text[host.length] = '\0';
    if (inet_pton(AF_INET6, text, &address->ipv6.sin6_addr) == 1)
        return true;
    *address = (union lookup_address){.ipv4 = {.sin_family = AF_INET}};
    return inet_pton(AF_INET, text, &address->ipv4.sin_addr) == 1;
}

void lookup_set_port(union lookup_address *address, unsigned port)
{
    if (address->any.sa_family == AF_INET6)
        address->ipv6.sin6_port = htons((uint16_t)port);
    else
        address->ipv4.sin_port = htons((uint16_t)port);
}

socklen_t lookup_size(const union lookup_address *address)
{
    return address->any.sa_family == AF_INET6 ? sizeof address->ipv6 : sizeof address->ipv4;
}

static void lookup_free(struct lookup *lookup)
{
    struct lookup_result *result;

    while ((result = (struct lookup_result *)fifo_pop(&lookup->asked)) ||
           (result = (struct lookup_result *)fifo_pop(&lookup->found)))
        free(result);
    pthread_cond_destroy(&lookup->changed);
    pthread_mutex_destroy(&lookup->lock);
    free(lookup);
}

/* --- the thread ------------------------------------------------------------------------------- */

static void lookup_look_up(struct lookup_result *result)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    int error = getaddrinfo(result->host, NULL, &hints, &list);

    for (const struct addrinfo *entry = list; entry && result->count < LOOKUP_ADDRESSES_MAX;
         entry = entry->ai_next) {
        union lookup_address *address = &result->addresses[result->count];

        if ((entry->ai_family != AF_INET && entry->ai_family != AF_INET6) ||
            entry->ai_addrlen > sizeof *address)
            continue;
        memcpy(address, entry->ai_addr, entry->ai_addrlen);
        result->count++;
    }
    if (list)
        freeaddrinfo(list);
    if (!result->count)
        result->error = error ? gai_strerror(error) : "the name has no address";
}

static void *lookup_work(void *argument)
{
    struct lookup *lookup = argument;
    struct lookup_result *result;

    pthread_mutex_lock(&lookup->lock);
    while (!lookup->closed) {
        bool was_empty;

        result = (struct lookup_result *)fifo_pop(&lookup->asked);
        if (!result) {
            pthread_cond_wait(&lookup->changed, &lookup->lock);
            continue;
        }
        pthread_mutex_unlock(&lookup->lock);
        lookup_look_up(result);
        pthread_mutex_lock(&lookup->lock);
        was_empty = !lookup->found.first;
        fifo_push(&lookup->found, &result->fifo);
        if (was_empty && !lookup->closed)
            os_wake(lookup->wake);
    }
    pthread_mutex_unlock(&lookup->lock);
    lookup_free(lookup); /* lookup_close has left it to the thread */
    return NULL;
}

/* --- the caller's side ------------------------------------------------------------------------ */

struct lookup *lookup_open(int wake)
{
    struct lookup *lookup = calloc(1, sizeof *lookup);

    if (!lookup)
        return NULL;
    lookup->wake = wake;
    pthread_mutex_init(&lookup->lock, NULL);
    pthread_cond_init(&lookup->changed, NULL);
    return lookup;
}

bool lookup_ask(struct lookup *lookup, struct str host)
{
    struct lookup_result *question = NULL;
    pthread_t thread;

    if (host.length <= HOST_MAX)
        question = calloc(1, sizeof *question + host.length + 1);
    if (!question)
        return false;
    memcpy(question->host, host.at, host.length);
    if (!lookup->started) {
        lookup->started = os_thread_start(&thread, lookup_work, lookup);
        if (!lookup->started) {
            free(question);
            return false;
        }
        pthread_detach(thread);
    }
    pthread_mutex_lock(&lookup->lock);
    fifo_push(&lookup->asked, &question->fifo);
    pthread_cond_signal(&lookup->changed);
    pthread_mutex_unlock(&lookup->lock);
    return true;
}

struct lookup_result *lookup_take(struct lookup *lookup)
{
    struct lookup_result *result;

    pthread_mutex_lock(&lookup->lock);
    result = (struct lookup_result *)fifo_pop(&lookup->found);
    pthread_mutex_unlock(&lookup->lock);
    return result;
}

void lookup_close(struct lookup *lookup)
{
    if (!lookup)
        return;
    if (!lookup->started) {
        lookup_free(lookup);
        return;
    }
    pthread_mutex_lock(&lookup->lock);
    lookup->closed = true;
    pthread_cond_signal(&lookup->changed);
    pthread_mutex_unlock(&lookup->lock);
}

/* --- for a thread that waits ------------------------------------------------------------------ */

static bool resolver_open(struct resolver *resolver)
{
    if (resolver->lookup)
        return true;
    if (!os_wake_pipe(resolver->pipe))
        return false;
    resolver->lookup = lookup_open(resolver->pipe[1]);
    if (resolver->lookup)
        return true;
    close(resolver->pipe[0]);
    close(resolver->pipe[1]);
    return false;
}

void resolver_close(struct resolver *resolver)
{
    if (!resolver->lookup)
        return;
    lookup_close(resolver->lookup);
    close(resolver->pipe[0]);
    close(resolver->pipe[1]);
    *resolver = (struct resolver){0};
}

static void resolver_add(struct resolver_result *result, const union lookup_address *address)
{
    if (getnameinfo(&address->any, lookup_size(address), result->addresses[result->count],
                    RESOLVER_TEXT_MAX, NULL, 0, NI_NUMERICHOST) == 0)
        result->count++;
}

/* Waits for the result of the look-up under way; NULL if that takes longer than `until`. */
static struct lookup_result *resolver_await(struct resolver *resolver, int64_t until)
{
    struct pollfd ready = {.fd = resolver->pipe[0], .events = POLLIN};
    int64_t left = until - os_now_ms();
    struct lookup_result *found;

    poll(&ready, 1, left > 0 ? (int)left : 0);
    os_drain(ready.fd);
    found = lookup_take(resolver->lookup);
    if (found)
        resolver->asked = false;
    return found;
}

void resolver_find(struct resolver *resolver, const char *host, int64_t limit,
                   struct resolver_result *result)
{
    union lookup_address address;
    struct lookup_result *found = NULL;
    int64_t until = os_now_ms() + limit;

    *result = (struct resolver_result){.error = "its name is not resolved in time"};
    if (lookup_read(str_from(host), &address)) {
        resolver_add(result, &address);
        return;
    }
    do {
        free(found); /* it is another host's */
        if (!resolver_open(resolver) ||
            !(resolver->asked = resolver->asked || lookup_ask(resolver->lookup, str_from(host)))) {
            result->error = "no thread or memory to look its name up";
            return;
        }
        found = resolver_await(resolver, until);
    } while (found && strcmp(found->host, host) != 0);
    if (!found)
        return;
    if (found->error)
        result->error = found->error;
    for (size_t i = 0; i < found->count && i < RESOLVER_ADDRESSES_MAX; i++)
        resolver_add(result, &found->addresses[i]);
    free(found);
}
