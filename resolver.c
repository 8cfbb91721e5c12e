/* resolver.c - looks names up, in a detached thread that the caller waits for no longer than it
 * likes. The job belongs to both: the last one that leaves frees it. */
#include "resolver.h"

#include "mailbox.h"
#include "worker.h"

#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct resolver_job {
    pthread_mutex_t lock;
    bool ended, abandoned;
    int pipe[2]; /* a byte in it: ended */
    struct resolver_result result;
    char host[256];
};

static void resolver_ask(const char *host, int flags, struct resolver_result *result)
{
    struct addrinfo hints = {.ai_flags = flags, .ai_socktype = SOCK_STREAM}, *list = NULL;
    int error = getaddrinfo(host, NULL, &hints, &list);

    *result = (struct resolver_result){.error = error ? gai_strerror(error) : "no address"};
    for (struct addrinfo *at = list; at && result->count < RESOLVER_ADDRESSES_MAX; at = at->ai_next)
        if (getnameinfo(at->ai_addr, at->ai_addrlen, result->addresses[result->count],
                        RESOLVER_TEXT_MAX, NULL, 0, NI_NUMERICHOST) == 0)
            result->count++;
    if (list)
        freeaddrinfo(list);
}

static void resolver_free_job(struct resolver_job *job)
{
    for (int i = 0; i < 2; i++)
        if (job->pipe[i] >= 0)
            close(job->pipe[i]);
    pthread_mutex_destroy(&job->lock);
    free(job);
}

static void *resolver_work(void *argument)
{
    struct resolver_job *job = argument;
    bool last;

    resolver_ask(job->host, 0, &job->result);
    pthread_mutex_lock(&job->lock);
    job->ended = true;
    last = job->abandoned;
    if (!last && write(job->pipe[1], "", 1) < 0)
        job->result.error = "no pipe"; /* the caller waits until its limit, and asks again */
    pthread_mutex_unlock(&job->lock);
    if (last)
        resolver_free_job(job);
    return NULL;
}

static struct resolver_job *resolver_start(const char *host)
{
    struct resolver_job *job = calloc(1, sizeof *job);
    pthread_t thread;

    if (!job)
        return NULL;
    pthread_mutex_init(&job->lock, NULL);
    job->pipe[0] = job->pipe[1] = -1;
    snprintf(job->host, sizeof job->host, "%s", host);
    if (mailbox_pipe(job->pipe) && worker_start(&thread, resolver_work, job)) {
        pthread_detach(thread);
        return job;
    }
    resolver_free_job(job);
    return NULL;
}

void resolver_find(struct resolver *resolver, const char *host, int64_t limit,
                   struct resolver_result *result)
{
    struct pollfd ended = {.fd = -1, .events = POLLIN};
    struct resolver_job *job;

    resolver_ask(host, AI_NUMERICHOST, result);
    if (result->count)
        return;
    if (!resolver->job)
        resolver->job = resolver_start(host);
    job = resolver->job;
    *result = (struct resolver_result){.error = job ? "its name is not resolved in time"
                                                    : "no thread to look its name up"};
    if (!job)
        return;
    ended.fd = job->pipe[0];
    if (poll(&ended, 1, (int)limit) <= 0)
        return;
    pthread_mutex_lock(&job->lock); /* the thread lets go of it last */
    *result = job->result;
    pthread_mutex_unlock(&job->lock);
    resolver->job = NULL;
    resolver_free_job(job);
}

void resolver_close(struct resolver *resolver)
{
    struct resolver_job *job = resolver->job;
    bool last;

    resolver->job = NULL;
    if (!job)
        return;
    pthread_mutex_lock(&job->lock);
    job->abandoned = true;
    last = job->ended;
    pthread_mutex_unlock(&job->lock);
    if (last)
        resolver_free_job(job);
}
