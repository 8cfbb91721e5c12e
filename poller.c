/* poller.c - threads that poll() idle descriptors.
 *
 * A slot is a number: poller * POLLER_SLOTS + index. Its way round: the owner writes the descriptor
 * to `arming` under the poller's lock (poller_arm) and wakes the thread once (poller_commit). The
 * thread moves it to `polls`, where only the thread touches it. When poll() finds it readable or
 * broken, the thread takes it out of `polls` and appends the slot to `ready` under the lock of all
 * pollers; the first one there writes a byte to the owner's wake pipe. poller_ready turns slots
 * into tokens.
 *
 * Invariants: a slot stands in at most one of `arming`, `polls` and `ready`, so `ready` needs one
 * entry for each slot and cannot overflow. Full pipes are no loss: they wake their reader.
 *
 * Threads: `tokens`, `used`, `wake_pending` and the list of pollers are the owner's alone; what the
 * two locks guard is marked. No thread ever holds both. */
#include "poller.h"

#include "os.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define NO_TOKEN UINT32_MAX

struct poller {
    struct pollers *pollers;
    pthread_t thread;
    int wake[2]; /* a byte written to [1] wakes the thread */
    uint32_t number;

    size_t used; /* slots */
    bool wake_pending;
    uint32_t tokens[POLLER_SLOTS]; /* NO_TOKEN: the slot is free */

    pthread_mutex_t lock;     /* guards the next two */
    int arming[POLLER_SLOTS]; /* descriptors to poll from now on, or -1 */
    bool stop;

    struct pollfd polls[1 + POLLER_SLOTS]; /* the thread's own; the first one is the wake pipe */
    nfds_t poll_count; /* used so far: poll() fails for more entries than files may be open */
};

struct pollers {
    size_t count, max;
    size_t first_free; /* no poller before this one has a free slot */
    bool wake_pending; /* of at least one of them */
    int wake;

    pthread_mutex_t lock; /* guards the next two */
    int32_t *ready;       /* room for every slot there can be */
    size_t ready_count;

    struct poller *list[]; /* room for `max` */
};

struct pollers *poller_open(int wake, size_t max_pollers)
{
    struct pollers *pollers = calloc(1, sizeof *pollers + max_pollers * sizeof pollers->list[0]);

    if (pollers)
        pollers->ready = malloc((1 + max_pollers) * POLLER_SLOTS * sizeof *pollers->ready);
    if (!pollers || !pollers->ready) {
        free(pollers);
        return NULL;
    }
    pollers->wake = wake;
    pollers->max = max_pollers;
    pthread_mutex_init(&pollers->lock, NULL);
    return pollers;
}

/* --- the thread ------------------------------------------------------------------------------ */

/* Takes what the owner has armed. False: it is time to stop. */
static bool poller_take_armed(struct poller *poller)
{
    bool stop;

    pthread_mutex_lock(&poller->lock);
    for (nfds_t i = 0; i < POLLER_SLOTS; i++) {
        if (poller->arming[i] < 0)
            continue;
        poller->polls[1 + i].fd = poller->arming[i];
        poller->arming[i] = -1;
        if (i + 1 >= poller->poll_count)
            poller->poll_count = i + 2;
    }
    stop = poller->stop;
    pthread_mutex_unlock(&poller->lock);
    return !stop;
}

/* Hands back every descriptor that poll() found readable or broken: `count` of them. */
static void poller_hand_back(struct poller *poller, int count)
{
    struct pollers *pollers = poller->pollers;
    bool wake;

    pthread_mutex_lock(&pollers->lock);
    wake = pollers->ready_count == 0;
    for (int i = 0; i < POLLER_SLOTS && count > 0; i++) {
        struct pollfd *entry = &poller->polls[1 + i];

        if (entry->fd >= 0 && entry->revents) {
            entry->fd = -1;
            pollers->ready[pollers->ready_count++] = (int32_t)poller->number * POLLER_SLOTS + i;
            count--;
        }
    }
    pthread_mutex_unlock(&pollers->lock);
    if (wake)
        os_wake(pollers->wake);
}

static void *poller_run(void *argument)
{
    struct poller *poller = argument;

    for (;;) {
        int count = poll(poller->polls, poller->poll_count, -1);

        if (count < 0)
            continue;
        if (poller->polls[0].revents) {
            count--;
            os_drain(poller->wake[0]);
            if (!poller_take_armed(poller))
                return NULL;
        }
        if (count > 0) {
            poller_hand_back(poller, count);
            sched_yield(); /* where both share a processor, the owner goes first */
        }
    }
}

/* --- slots ----------------------------------------------------------------------------------- */

static void poller_discard(struct poller *poller)
{
    close(poller->wake[0]);
    close(poller->wake[1]);
    pthread_mutex_destroy(&poller->lock);
    free(poller);
}

static struct poller *poller_new(struct pollers *pollers)
{
    struct poller *poller = calloc(1, sizeof *poller);

    if (!poller || !os_wake_pipe(poller->wake)) {
        free(poller);
        return NULL;
    }
    poller->pollers = pollers;
    poller->number = (uint32_t)pollers->count;
    poller->polls[0] = (struct pollfd){.fd = poller->wake[0], .events = POLLIN};
    poller->poll_count = 1;
    for (int i = 0; i < POLLER_SLOTS; i++) {
        poller->tokens[i] = NO_TOKEN;
        poller->arming[i] = -1;
        poller->polls[1 + i] = (struct pollfd){.fd = -1, .events = POLLIN};
    }
    pthread_mutex_init(&poller->lock, NULL);
    if (os_thread_start_small(&poller->thread, poller_run, poller))
        return poller;
    poller_discard(poller);
    return NULL;
}

/* A poller with a free slot, started if need be; NULL if there can be none. */
static struct poller *poller_with_room(struct pollers *pollers)
{
    struct poller *poller;

    for (; pollers->first_free < pollers->count; pollers->first_free++)
        if (pollers->list[pollers->first_free]->used < POLLER_SLOTS)
            return pollers->list[pollers->first_free];
    poller = pollers->count < pollers->max ? poller_new(pollers) : NULL;
    if (poller)
        pollers->list[pollers->count++] = poller;
    return poller;
}

int32_t poller_take_slot(struct pollers *pollers, uint32_t token)
{
    struct poller *poller = poller_with_room(pollers);
    uint32_t index = 0;

    if (!poller)
        return -1;
    while (poller->tokens[index] != NO_TOKEN)
        index++;
    poller->tokens[index] = token;
    poller->used++;
    return (int32_t)(poller->number * POLLER_SLOTS + index);
}

static struct poller *poller_of(const struct pollers *pollers, int32_t slot)
{
    return pollers->list[slot / POLLER_SLOTS];
}

void poller_free_slot(struct pollers *pollers, int32_t slot)
{
    struct poller *poller = poller_of(pollers, slot);

    poller->tokens[slot % POLLER_SLOTS] = NO_TOKEN;
    poller->used--;
    if (poller->number < pollers->first_free)
        pollers->first_free = poller->number;
}

/* --- arming and taking back ------------------------------------------------------------------ */

void poller_arm(struct pollers *pollers, int32_t slot, int fd)
{
    struct poller *poller = poller_of(pollers, slot);

    pthread_mutex_lock(&poller->lock);
    poller->arming[slot % POLLER_SLOTS] = fd;
    pthread_mutex_unlock(&poller->lock);
    poller->wake_pending = pollers->wake_pending = true;
}

void poller_commit(struct pollers *pollers)
{
    if (!pollers->wake_pending)
        return;
    for (size_t i = 0; i < pollers->count; i++)
        if (pollers->list[i]->wake_pending) {
            pollers->list[i]->wake_pending = false;
            os_wake(pollers->list[i]->wake[1]);
        }
    pollers->wake_pending = false;
}

size_t poller_ready(struct pollers *pollers, uint32_t *tokens, size_t max)
{
    size_t count;

    pthread_mutex_lock(&pollers->lock);
    count = pollers->ready_count < max ? pollers->ready_count : max;
    for (size_t i = 0; i < count; i++) {
        int32_t slot = pollers->ready[--pollers->ready_count];

        tokens[i] = poller_of(pollers, slot)->tokens[slot % POLLER_SLOTS];
    }
    pthread_mutex_unlock(&pollers->lock);
    return count;
}

size_t poller_siblings(const struct pollers *pollers, int32_t slot, uint32_t tokens[POLLER_SLOTS])
{
    const struct poller *poller = poller_of(pollers, slot);
    size_t count = 0;

    for (size_t i = 0; i < POLLER_SLOTS; i++)
        if (poller->tokens[i] != NO_TOKEN)
            tokens[count++] = poller->tokens[i];
    return count;
}

size_t poller_count(const struct pollers *pollers)
{
    return pollers->count;
}

void poller_close(struct pollers *pollers)
{
    if (!pollers)
        return;
    for (size_t i = 0; i < pollers->count; i++) {
        struct poller *poller = pollers->list[i];

        pthread_mutex_lock(&poller->lock);
        poller->stop = true;
        pthread_mutex_unlock(&poller->lock);
        os_wake(poller->wake[1]);
        pthread_join(poller->thread, NULL);
        poller_discard(poller);
    }
    pthread_mutex_destroy(&pollers->lock);
    free(pollers->ready);
    free(pollers);
}
