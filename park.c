/* park.c - threads that watch quiet descriptors with poll(). */
#include "park.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define STACK_SIZE (128 * 1024)
#define NO_TOKEN UINT32_MAX

struct lot {
    struct park *park;
    pthread_t thread;
    int bell[2];               /* a byte written to [1] wakes the thread */
    size_t taken;              /* the owner's: places taken */
    bool rung;                 /* the owner's: the bell is to be rung at the next commit */
    uint32_t tokens[PARK_LOT]; /* the owner's; NO_TOKEN where the place is free */
    uint32_t number;

    pthread_mutex_t lock;   /* guards what follows, up to the thread's own */
    int arrivals[PARK_LOT]; /* descriptors to be watched, by slot; -1 where there is none */
    bool stop;

    struct pollfd watched[1 + PARK_LOT]; /* the thread's own; the first one is the bell */
    nfds_t watched_count;                /* poll() fails for more entries than files may be open */
};

struct park {
    struct lot **lots;
    size_t lot_count, max_lots;
    size_t roomy; /* no lot before this one has a free place */
    bool rung;    /* the bell of a lot is to be rung at the next commit */
    int wake;

    pthread_mutex_t lock; /* guards what follows */
    int32_t *returned;    /* places; room for every place there is */
    size_t returned_count;
};

struct park *park_new(int wake, size_t max_lots)
{
    struct park *park = calloc(1, sizeof *park);

    if (!park)
        return NULL;
    park->wake = wake;
    park->max_lots = max_lots;
    pthread_mutex_init(&park->lock, NULL);
    return park;
}

static void empty_bell(int fd)
{
    char bytes[64];

    while (read(fd, bytes, sizeof bytes) > 0)
        ;
}

/* Takes the owner's orders. False when it is time to stop. */
static bool take_arrivals(struct lot *lot)
{
    bool stop;

    pthread_mutex_lock(&lot->lock);
    for (nfds_t slot = 0; slot < PARK_LOT; slot++) {
        if (lot->arrivals[slot] < 0)
            continue;
        lot->watched[1 + slot].fd = lot->arrivals[slot];
        lot->arrivals[slot] = -1;
        if (slot + 1 >= lot->watched_count)
            lot->watched_count = slot + 2;
    }
    stop = lot->stop;
    pthread_mutex_unlock(&lot->lock);
    return !stop;
}

/* Gives back every descriptor that poll() found to be readable or broken. */
static void give_back(struct lot *lot, int ready)
{
    struct park *park = lot->park;
    bool wake;

    pthread_mutex_lock(&park->lock);
    wake = park->returned_count == 0;
    for (int slot = 0; slot < PARK_LOT && ready > 0; slot++) {
        struct pollfd *entry = &lot->watched[1 + slot];

        if (entry->fd >= 0 && entry->revents) {
            entry->fd = -1;
            park->returned[park->returned_count++] = (int32_t)lot->number * PARK_LOT + slot;
            ready--;
        }
    }
    wake = wake && park->returned_count > 0;
    pthread_mutex_unlock(&park->lock);
    if (wake) {
        ssize_t n = write(park->wake, "p", 1);
        (void)n; /* a full pipe wakes the owner as well */
    }
}

static void *watch(void *argument)
{
    struct lot *lot = argument;

    for (;;) {
        int ready = poll(lot->watched, lot->watched_count, -1);

        if (ready < 0)
            continue;
        if (lot->watched[0].revents) {
            ready--;
            empty_bell(lot->bell[0]);
            if (!take_arrivals(lot))
                return NULL;
        }
        if (ready > 0) {
            give_back(lot, ready);
            sched_yield(); /* where both share a processor, the owner goes first */
        }
    }
}

static bool start_thread(struct lot *lot)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    int error;

    if (pthread_attr_init(&attributes) != 0)
        return false;
    pthread_attr_setstacksize(&attributes,
                              STACK_SIZE > PTHREAD_STACK_MIN ? STACK_SIZE : PTHREAD_STACK_MIN);
    /* signals are for the loop's thread */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    error = pthread_create(&lot->thread, &attributes, watch, lot);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return error == 0;
}

static bool open_bell(int bell[2])
{
    if (pipe(bell) != 0)
        return false;
    for (int i = 0; i < 2; i++)
        fcntl(bell[i], F_SETFL, O_NONBLOCK);
    return true;
}

static struct lot *open_lot(struct park *park)
{
    struct lot *lot = calloc(1, sizeof *lot);

    if (!lot)
        return NULL;
    if (!open_bell(lot->bell)) {
        free(lot);
        return NULL;
    }
    lot->park = park;
    lot->number = (uint32_t)park->lot_count;
    for (int i = 0; i < PARK_LOT; i++) {
        lot->tokens[i] = NO_TOKEN;
        lot->arrivals[i] = -1;
    }
    for (int i = 0; i <= PARK_LOT; i++)
        lot->watched[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    lot->watched[0].fd = lot->bell[0];
    lot->watched_count = 1;
    pthread_mutex_init(&lot->lock, NULL);
    if (!start_thread(lot)) {
        close(lot->bell[0]);
        close(lot->bell[1]);
        pthread_mutex_destroy(&lot->lock);
        free(lot);
        return NULL;
    }
    return lot;
}

/* Room for one more lot, also for all its places to come back at once. */
static bool make_room(struct park *park)
{
    size_t count = park->lot_count + 1;
    struct lot **lots = realloc(park->lots, count * sizeof(struct lot *));
    int32_t *returned;

    if (!lots)
        return false;
    park->lots = lots;
    pthread_mutex_lock(&park->lock);
    returned = realloc(park->returned, count * PARK_LOT * sizeof *returned);
    if (returned)
        park->returned = returned;
    pthread_mutex_unlock(&park->lock);
    return returned;
}

static struct lot *lot_with_room(struct park *park)
{
    struct lot *lot;

    for (; park->roomy < park->lot_count; park->roomy++)
        if (park->lots[park->roomy]->taken < PARK_LOT)
            return park->lots[park->roomy];
    if (park->lot_count == park->max_lots || !make_room(park))
        return NULL;
    lot = open_lot(park);
    if (lot)
        park->lots[park->lot_count++] = lot;
    return lot;
}

int32_t park_take_place(struct park *park, uint32_t token)
{
    struct lot *lot = lot_with_room(park);
    uint32_t slot = 0;

    if (!lot)
        return -1;
    while (lot->tokens[slot] != NO_TOKEN)
        slot++;
    lot->tokens[slot] = token;
    lot->taken++;
    return (int32_t)(lot->number * PARK_LOT + slot);
}

static struct lot *lot_of(const struct park *park, int32_t place)
{
    return park->lots[place / PARK_LOT];
}

void park_leave_place(struct park *park, int32_t place)
{
    struct lot *lot = lot_of(park, place);

    lot->tokens[place % PARK_LOT] = NO_TOKEN;
    lot->taken--;
    if (lot->number < park->roomy)
        park->roomy = lot->number;
}

void park_watch(struct park *park, int32_t place, int fd)
{
    struct lot *lot = lot_of(park, place);

    pthread_mutex_lock(&lot->lock);
    lot->arrivals[place % PARK_LOT] = fd;
    pthread_mutex_unlock(&lot->lock);
    lot->rung = park->rung = true;
}

static void ring(struct lot *lot)
{
    ssize_t n = write(lot->bell[1], "b", 1);

    (void)n; /* a full pipe wakes the thread as well */
    lot->rung = false;
}

void park_commit(struct park *park)
{
    if (!park->rung) /* mostly: then nobody touches the lots, which are not in the cache */
        return;
    for (size_t i = 0; i < park->lot_count; i++)
        if (park->lots[i]->rung)
            ring(park->lots[i]);
    park->rung = false;
}

size_t park_returned(struct park *park, uint32_t *tokens, size_t max)
{
    size_t count;

    pthread_mutex_lock(&park->lock);
    count = park->returned_count < max ? park->returned_count : max;
    for (size_t i = 0; i < count; i++) {
        int32_t place = park->returned[--park->returned_count];

        tokens[i] = lot_of(park, place)->tokens[place % PARK_LOT];
    }
    pthread_mutex_unlock(&park->lock);
    return count;
}

size_t park_neighbours(const struct park *park, int32_t place, uint32_t tokens[PARK_LOT])
{
    const struct lot *lot = lot_of(park, place);
    size_t count = 0;

    for (size_t slot = 0; slot < PARK_LOT; slot++)
        if (lot->tokens[slot] != NO_TOKEN)
            tokens[count++] = lot->tokens[slot];
    return count;
}

size_t park_threads(const struct park *park)
{
    return park->lot_count;
}

void park_free(struct park *park)
{
    if (!park)
        return;
    for (size_t i = 0; i < park->lot_count; i++) {
        struct lot *lot = park->lots[i];

        pthread_mutex_lock(&lot->lock);
        lot->stop = true;
        pthread_mutex_unlock(&lot->lock);
        ring(lot);
        pthread_join(lot->thread, NULL);
        close(lot->bell[0]);
        close(lot->bell[1]);
        pthread_mutex_destroy(&lot->lock);
        free(lot);
    }
    pthread_mutex_destroy(&park->lock);
    free(park->lots);
    free(park->returned);
    free(park);
}
