/* test_park.c - park.c: what is parked comes back once, with its token, however it is woken. */
#include "park.h"

#include "test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SPOTS (2 * PARK_LOT + 88)
#define PATIENCE 10000 /* milliseconds after which a test gives up */
#define MOMENT 20      /* milliseconds in which something wrong would have happened */

/* A descriptor to park, and the other end of it. */
struct spot {
    int fd, peer;
    int32_t place;
    bool watched;
    unsigned returns;
};

/* A park with its descriptors; the token of a spot is its index. */
struct yard {
    struct park *park;
    int wake[2];
    size_t count;
    struct spot spots[SPOTS];
    unsigned wrong; /* tokens that came back unknown or unwatched */
};

static struct yard yard;

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void make_quick(int fd)
{
    fcntl(fd, F_SETFL, O_NONBLOCK);
}

static void open_yard(size_t count, size_t max_lots)
{
    memset(&yard, 0, sizeof yard);
    CHECK(pipe(yard.wake) == 0);
    make_quick(yard.wake[0]);
    make_quick(yard.wake[1]);
    yard.count = count;
    for (size_t i = 0; i < count; i++) {
        int ends[2] = {-1, -1};

        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        make_quick(ends[0]);
        make_quick(ends[1]);
        yard.spots[i] = (struct spot){.fd = ends[0], .peer = ends[1], .place = -1};
    }
    yard.park = park_new(yard.wake[1], max_lots);
    CHECK(yard.park);
}

static void take_places(void)
{
    for (size_t i = 0; i < yard.count; i++)
        yard.spots[i].place = park_take_place(yard.park, (uint32_t)i);
}

static void watch_spot(struct spot *spot)
{
    spot->watched = true;
    park_watch(yard.park, spot->place, spot->fd);
}

/* Watches everything that has a place. */
static void watch_all(void)
{
    for (size_t i = 0; i < yard.count; i++)
        if (yard.spots[i].place >= 0 && !yard.spots[i].watched)
            watch_spot(&yard.spots[i]);
    park_commit(yard.park);
}

static void open_watched_yard(size_t count, size_t max_lots)
{
    open_yard(count, max_lots);
    take_places();
    watch_all();
}

/* Ends the park first and the descriptors after it. */
static void close_yard(void)
{
    CHECK(yard.wrong == 0);
    park_free(yard.park);
    for (size_t i = 0; i < yard.count; i++) {
        close(yard.spots[i].fd);
        if (yard.spots[i].peer >= 0)
            close(yard.spots[i].peer);
    }
    close(yard.wake[0]);
    close(yard.wake[1]);
}

/* Waits for the wake pipe and empties it; false if nothing has come before `until`. */
static bool woken(int64_t until)
{
    struct pollfd wake = {.fd = yard.wake[0], .events = POLLIN};
    int64_t left = until - now();
    char bytes[64];

    if (poll(&wake, 1, left > 0 ? (int)left : 0) <= 0)
        return false;
    while (read(yard.wake[0], bytes, sizeof bytes) > 0)
        ;
    return true;
}

/* Takes what has come back, `max` at a time; returns how many. */
static size_t collect(size_t max)
{
    uint32_t tokens[SPOTS];
    size_t total = 0, count;

    while ((count = park_returned(yard.park, tokens, max)) > 0) {
        for (size_t i = 0; i < count; i++) {
            if (tokens[i] < yard.count && yard.spots[tokens[i]].watched) {
                yard.spots[tokens[i]].watched = false;
                yard.spots[tokens[i]].returns++;
            } else {
                yard.wrong++;
            }
        }
        total += count;
    }
    return total;
}

/* Waits until `wanted` descriptors have come back, or patience ends; returns how many have. */
static size_t await_some(size_t wanted, size_t max)
{
    int64_t until = now() + PATIENCE;
    size_t total = 0;

    while (total < wanted && woken(until))
        total += collect(max);
    return total;
}

static size_t await(size_t wanted)
{
    return await_some(wanted, SPOTS);
}

/* True if nothing comes back for a moment. */
static bool quiet(void)
{
    poll(NULL, 0, MOMENT);
    woken(now());
    return collect(SPOTS) == 0;
}

static bool send_byte(int fd)
{
    return write(fd, "x", 1) == 1;
}

static void make_all_readable(void)
{
    for (size_t i = 0; i < yard.count; i++)
        CHECK(send_byte(yard.spots[i].peer));
}

static size_t drain(int fd)
{
    char bytes[4096];
    ssize_t n;
    size_t total = 0;

    while ((n = read(fd, bytes, sizeof bytes)) > 0)
        total += (size_t)n;
    return total;
}

/* Lowers the number of files that may be open; returns what it was. */
static rlim_t allow_files(rlim_t count)
{
    struct rlimit limit;
    rlim_t before;

    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    before = limit.rlim_cur;
    limit.rlim_cur = count;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    return before;
}

static void starts_no_thread_before_the_first_place(void)
{
    open_yard(1, 4);
    CHECK(park_threads(yard.park) == 0);
    park_commit(yard.park);
    CHECK(collect(SPOTS) == 0);
    take_places();
    CHECK(yard.spots[0].place >= 0);
    CHECK(park_threads(yard.park) == 1);
    CHECK(quiet());
    close_yard();
}

static void gives_back_a_readable_one_once(void)
{
    open_watched_yard(8, 4);
    CHECK(quiet());
    CHECK(send_byte(yard.spots[5].peer));
    CHECK(await(1) == 1);
    CHECK(yard.spots[5].returns == 1);
    CHECK(send_byte(yard.spots[5].peer));
    CHECK(quiet());
    /* what is readable already comes back at once */
    watch_all();
    CHECK(await(1) == 1);
    CHECK(yard.spots[5].returns == 2);
    CHECK(drain(yard.spots[5].fd) == 2);
    close_yard();
}

static void carries_any_token(void)
{
    static const uint32_t tokens[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe};
    const size_t count = sizeof tokens / sizeof *tokens;
    uint32_t token = 77;

    open_yard(count, 1);
    for (size_t i = 0; i < count; i++) {
        int32_t place = park_take_place(yard.park, tokens[i]);

        CHECK(place >= 0);
        park_watch(yard.park, place, yard.spots[i].fd);
        park_commit(yard.park);
        CHECK(send_byte(yard.spots[i].peer));
        CHECK(woken(now() + PATIENCE));
        CHECK(park_returned(yard.park, &token, 1) == 1);
        CHECK(token == tokens[i]);
        CHECK(park_returned(yard.park, &token, 1) == 0);
    }
    close_yard();
}

/* Makes a TCP connection over 127.0.0.1. */
static bool connect_spot(struct spot *spot)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bool good;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    spot->peer = socket(AF_INET, SOCK_STREAM, 0);
    good = bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(listener, 1) == 0 &&
           getsockname(listener, (struct sockaddr *)&address, &length) == 0 &&
           connect(spot->peer, (struct sockaddr *)&address, sizeof address) == 0;
    spot->fd = accept(listener, NULL, NULL);
    close(listener);
    return good && spot->fd >= 0;
}

static void close_peer(struct spot *spot)
{
    close(spot->peer);
    spot->peer = -1;
}

static void reset_peer(struct spot *spot)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};

    setsockopt(spot->peer, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close_peer(spot);
}

static void shut_peer(struct spot *spot)
{
    shutdown(spot->peer, SHUT_WR);
}

static void shut_own(struct spot *spot)
{
    shutdown(spot->fd, SHUT_RDWR);
}

static void gives_back_what_ends(void)
{
    static void (*const ways[])(struct spot *) = {close_peer, reset_peer, shut_peer, shut_own};
    const size_t count = sizeof ways / sizeof *ways;

    open_yard(2 * count, 1);
    for (size_t i = count; i < 2 * count; i++) {
        close(yard.spots[i].fd);
        close(yard.spots[i].peer);
        CHECK(connect_spot(&yard.spots[i]));
    }
    take_places();
    watch_all();
    CHECK(quiet());
    for (size_t i = 0; i < 2 * count; i++) {
        ways[i % count](&yard.spots[i]);
        CHECK(await(1) == 1);
        CHECK(yard.spots[i].returns == 1);
    }
    CHECK(quiet());
    close_yard();
}

static void lets_the_owner_write_meanwhile(void)
{
    open_watched_yard(4, 1);
    for (int round = 0; round < 200; round++) {
        struct spot *spot = &yard.spots[round % 4];

        CHECK(send_byte(spot->fd));
        CHECK(drain(spot->peer) == 1);
    }
    CHECK(quiet());
    CHECK(send_byte(yard.spots[2].peer));
    CHECK(await(1) == 1);
    CHECK(yard.spots[2].returns == 1);
    close_yard();
}

static void watches_again_and_again(void)
{
    const unsigned rounds = 2000;
    unsigned good = 0;

    open_watched_yard(1, 1);
    for (unsigned round = 0; round < rounds; round++) {
        good += send_byte(yard.spots[0].peer) && await(1) == 1 && drain(yard.spots[0].fd) == 1;
        watch_all();
    }
    CHECK(good == rounds);
    CHECK(yard.spots[0].returns == rounds);
    CHECK(quiet());
    close_yard();
}

static bool places_differ(void)
{
    bool seen[3 * PARK_LOT] = {false};

    for (size_t i = 0; i < yard.count; i++) {
        int32_t place = yard.spots[i].place;

        if (place < 0 || place >= 3 * PARK_LOT || seen[place])
            return false;
        seen[place] = true;
    }
    return true;
}

static bool all_returned(unsigned times)
{
    for (size_t i = 0; i < yard.count; i++)
        if (yard.spots[i].returns != times)
            return false;
    return true;
}

static void fills_several_lots(void)
{
    open_watched_yard(SPOTS, 3);
    CHECK(park_threads(yard.park) == 3);
    CHECK(places_differ());
    make_all_readable();
    CHECK(await(SPOTS) == SPOTS);
    CHECK(all_returned(1));
    CHECK(quiet());
    close_yard();
}

static void gives_free_places_to_others(void)
{
    open_watched_yard(SPOTS, 3);
    make_all_readable();
    CHECK(await(SPOTS) == SPOTS);
    for (size_t i = 0; i < SPOTS; i += 2)
        park_leave_place(yard.park, yard.spots[i].place);
    for (size_t i = 0; i < SPOTS; i += 2) /* in another order than before */
        yard.spots[SPOTS - 2 - i].place = park_take_place(yard.park, (uint32_t)(SPOTS - 2 - i));
    CHECK(park_threads(yard.park) == 3);
    CHECK(places_differ());
    watch_all();
    CHECK(await(SPOTS) == SPOTS);
    CHECK(all_returned(2));
    CHECK(quiet());
    close_yard();
}

static void takes_orders_while_it_gives_back(void)
{
    unsigned seed = 11, good;
    const unsigned rounds = 5000;

    open_yard(16, 1);
    take_places();
    make_all_readable();
    for (good = 0; good < rounds; good++) {
        size_t count = 1 + (unsigned)rand_r(&seed) % yard.count;

        for (size_t i = 0; i < count; i++) { /* the last ones reach a thread that is awake */
            watch_spot(&yard.spots[i]);
            park_commit(yard.park);
        }
        if (await(count) != count)
            break;
    }
    CHECK(good == rounds);
    close_yard();
}

static void grows_while_descriptors_come_back(void)
{
    open_yard(PARK_LOT + 1, 2);
    make_all_readable();
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < PARK_LOT; i++)
            yard.spots[i].place = park_take_place(yard.park, (uint32_t)i);
        yard.spots[PARK_LOT].place = -1;
        watch_all();
        yard.spots[PARK_LOT].place = park_take_place(yard.park, PARK_LOT);
        watch_all();
        CHECK(await(PARK_LOT + 1) == PARK_LOT + 1);
        park_free(yard.park);
        yard.park = park_new(yard.wake[1], 2);
    }
    close_yard();
}

static void keeps_to_the_limit_of_lots(void)
{
    int32_t place;

    open_yard(1, 0);
    CHECK(park_take_place(yard.park, 1) == -1);
    CHECK(park_threads(yard.park) == 0);
    close_yard();

    open_yard(2 * PARK_LOT, 2);
    take_places();
    CHECK(yard.spots[2 * PARK_LOT - 1].place >= 0);
    CHECK(park_take_place(yard.park, 1) == -1);
    CHECK(park_threads(yard.park) == 2);
    place = yard.spots[3].place;
    park_leave_place(yard.park, place);
    CHECK(park_take_place(yard.park, 3) == place);
    CHECK(park_take_place(yard.park, 1) == -1);
    watch_all();
    CHECK(send_byte(yard.spots[3].peer));
    CHECK(await(1) == 1);
    CHECK(yard.spots[3].returns == 1);
    close_yard();
}

static void refuses_places_without_a_thread(void)
{
    int next;
    rlim_t before;

    open_yard(1, 1);
    next = dup(yard.wake[0]);
    close(next);
    before = allow_files((rlim_t)next);
    CHECK(park_take_place(yard.park, 0) == -1);
    CHECK(park_threads(yard.park) == 0);
    allow_files(before);
    take_places();
    watch_all();
    CHECK(send_byte(yard.spots[0].peer));
    CHECK(await(1) == 1);
    close_yard();
}

/* poll() refuses more entries than files that may be open, also entries that are not in use. */
static void works_where_few_files_may_be_open(void)
{
    rlim_t before = allow_files(64);

    open_watched_yard(4, 1);
    CHECK(send_byte(yard.spots[3].peer));
    CHECK(await(1) == 1);
    allow_files(before);
    close_yard();
}

static void hands_out_in_small_pieces(void)
{
    const size_t count = PARK_LOT + 44;
    uint32_t token;

    open_watched_yard(count, 2);
    make_all_readable();
    CHECK(park_returned(yard.park, &token, 0) == 0);
    CHECK(await_some(count, 7) == count);
    CHECK(all_returned(1));
    CHECK(quiet());
    close_yard();
}

/* The tokens beside `place` are those from `first` to `end`, without `absent`. */
static bool neighbours_are(int32_t place, uint32_t first, uint32_t end, uint32_t absent)
{
    uint32_t tokens[PARK_LOT];
    bool seen[SPOTS] = {false};
    size_t count = park_neighbours(yard.park, place, tokens);

    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < first || tokens[i] >= end || tokens[i] == absent || seen[tokens[i]])
            return false;
        seen[tokens[i]] = true;
    }
    return count == end - first - (absent >= first && absent < end);
}

static void names_neighbours(void)
{
    const uint32_t count = PARK_LOT + 44;

    open_yard(count, 2);
    take_places();
    CHECK(neighbours_are(yard.spots[0].place, 0, PARK_LOT, count));
    CHECK(neighbours_are(yard.spots[PARK_LOT - 1].place, 0, PARK_LOT, count));
    CHECK(neighbours_are(yard.spots[PARK_LOT].place, PARK_LOT, count, count));
    park_leave_place(yard.park, yard.spots[9].place);
    CHECK(neighbours_are(yard.spots[0].place, 0, PARK_LOT, 9));
    park_leave_place(yard.park, yard.spots[PARK_LOT].place);
    CHECK(neighbours_are(yard.spots[count - 1].place, PARK_LOT, count, PARK_LOT));
    close_yard();
}

static void a_full_wake_pipe_stops_nobody(void)
{
    open_watched_yard(2, 1);
    while (send_byte(yard.wake[1]))
        ;
    CHECK(send_byte(yard.spots[1].peer));
    poll(NULL, 0, MOMENT);
    CHECK(await(1) == 1);
    CHECK(yard.spots[1].returns == 1);
    watch_all();
    CHECK(await(1) == 1);
    close_yard();
}

static void ends_while_descriptors_are_watched(void)
{
    const size_t count = PARK_LOT + 4;

    open_watched_yard(count, 2);
    for (size_t i = 0; i < count; i += 3) /* some are coming back at this moment */
        CHECK(send_byte(yard.spots[i].peer));
    park_free(yard.park);
    for (size_t i = 0; i < count; i++)
        CHECK(send_byte(yard.spots[i].fd) && drain(yard.spots[i].peer) == 1);

    yard.park = park_new(yard.wake[1], 1);
    yard.spots[0].place = park_take_place(yard.park, 0);
    park_watch(yard.park, yard.spots[0].place, yard.spots[0].fd); /* and without a commit */
    park_free(yard.park);
    park_free(NULL);
    yard.park = NULL;
    close_yard();
}

static volatile sig_atomic_t signalled;

static void note_signal(int number)
{
    signalled = number;
}

static void leaves_signals_to_the_owner(void)
{
    struct sigaction action = {.sa_handler = note_signal}, before;
    sigset_t one, pending;

    sigemptyset(&action.sa_mask);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigaction(SIGUSR1, &action, &before);
    open_watched_yard(1, 1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    kill(getpid(), SIGUSR1);
    poll(NULL, 0, MOMENT);
    CHECK(signalled == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    CHECK(signalled == SIGUSR1);
    sigaction(SIGUSR1, &before, NULL);
    close_yard();
}

#define WRITERS 3
#define ROUNDS 4000
#define CREDIT 16

/* A thread that makes random descriptors readable, never more than CREDIT bytes ahead. */
struct writer {
    pthread_t thread;
    unsigned char mark; /* what it writes */
    unsigned seed;
    int credit[2]; /* one byte for each that may be written; closed: give up */
};

static void *write_at_random(void *argument)
{
    struct writer *writer = argument;
    unsigned seed = writer->seed;
    char byte;

    for (int round = 0; round < ROUNDS; round++) {
        size_t i = (unsigned)rand_r(&seed) % yard.count;

        if (read(writer->credit[0], &byte, 1) != 1 ||
            write(yard.spots[i].peer, &writer->mark, 1) != 1)
            break;
    }
    return NULL;
}

static void start_writers(struct writer writers[WRITERS])
{
    for (unsigned i = 0; i < WRITERS; i++) {
        struct writer *writer = &writers[i];

        writer->mark = (unsigned char)i;
        writer->seed = 40 + i;
        CHECK(pipe(writer->credit) == 0);
        CHECK(write(writer->credit[1], "0123456789abcdef", CREDIT) == CREDIT);
        CHECK(pthread_create(&writer->thread, NULL, write_at_random, writer) == 0);
    }
}

/* Reads what a spot has received and counts it for its writers; false if there was nothing. */
static bool serve(const struct spot *spot, struct writer writers[WRITERS], unsigned counts[WRITERS])
{
    unsigned char marks[WRITERS * CREDIT];
    ssize_t n = read(spot->fd, marks, sizeof marks);

    for (ssize_t i = 0; i < n; i++) {
        counts[marks[i]]++;
        send_byte(writers[marks[i]].credit[1]);
    }
    return n > 0;
}

/* Serves every spot that has come back and parks it again; returns how many had nothing to say. */
static unsigned serve_returned(struct writer writers[WRITERS], unsigned counts[WRITERS])
{
    unsigned idle = 0;

    for (size_t i = 0; i < yard.count; i++)
        if (!yard.spots[i].watched) {
            idle += !serve(&yard.spots[i], writers, counts);
            watch_spot(&yard.spots[i]);
        }
    park_commit(yard.park);
    return idle;
}

static void loses_and_doubles_nothing_in_a_storm(void)
{
    struct writer writers[WRITERS];
    unsigned counts[WRITERS] = {0}, idle = 0;
    int64_t until = now() + PATIENCE;

    open_watched_yard(PARK_LOT + 44, 2);
    start_writers(writers);
    while (counts[0] + counts[1] + counts[2] < WRITERS * ROUNDS && woken(until)) {
        collect(16);
        idle += serve_returned(writers, counts);
    }
    CHECK(idle == 0);
    for (int i = 0; i < WRITERS; i++) {
        CHECK(counts[i] == ROUNDS);
        close(writers[i].credit[1]);
        pthread_join(writers[i].thread, NULL);
        close(writers[i].credit[0]);
    }
    CHECK(quiet());
    close_yard();
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    allow_files(2 * SPOTS + 256);
    test_run("starts no thread before the first place", starts_no_thread_before_the_first_place);
    test_run("gives back a readable one once", gives_back_a_readable_one_once);
    test_run("carries any token", carries_any_token);
    test_run("gives back what ends", gives_back_what_ends);
    test_run("lets the owner write meanwhile", lets_the_owner_write_meanwhile);
    test_run("watches again and again", watches_again_and_again);
    test_run("fills several lots", fills_several_lots);
    test_run("takes orders while it gives back", takes_orders_while_it_gives_back);
    test_run("grows while descriptors come back", grows_while_descriptors_come_back);
    test_run("gives free places to others", gives_free_places_to_others);
    test_run("keeps to the limit of lots", keeps_to_the_limit_of_lots);
    test_run("refuses places without a thread", refuses_places_without_a_thread);
    test_run("works where few files may be open", works_where_few_files_may_be_open);
    test_run("hands out in small pieces", hands_out_in_small_pieces);
    test_run("names neighbours", names_neighbours);
    test_run("a full wake pipe stops nobody", a_full_wake_pipe_stops_nobody);
    test_run("ends while descriptors are watched", ends_while_descriptors_are_watched);
    test_run("leaves signals to the owner", leaves_signals_to_the_owner);
    test_run("loses and doubles nothing in a storm", loses_and_doubles_nothing_in_a_storm);
    return test_finish();
}
