/* test_poller.c - poller.c: an armed descriptor becomes ready once, with its token. */
#include "poller.h"

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

#define ENTRIES (2 * POLLER_SLOTS + 88)
#define TIMEOUT 10000 /* milliseconds after which a test gives up */
#define MOMENT 20     /* milliseconds in which something wrong would have happened */

/* A descriptor to arm, and the other end of it. */
struct entry {
    int fd, peer;
    int32_t slot;
    bool armed;
    unsigned times;
};

/* Pollers and descriptors; the token of an entry is its index. */
struct fixture {
    struct pollers *pollers;
    int wake[2];
    size_t count;
    struct entry entries[ENTRIES];
    unsigned wrong; /* tokens that became ready unknown or unarmed */
};

static struct fixture fixture;

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

static void open_fixture(size_t count, size_t max_pollers)
{
    memset(&fixture, 0, sizeof fixture);
    CHECK(pipe(fixture.wake) == 0);
    make_quick(fixture.wake[0]);
    make_quick(fixture.wake[1]);
    fixture.count = count;
    for (size_t i = 0; i < count; i++) {
        int ends[2] = {-1, -1};

        CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
        make_quick(ends[0]);
        make_quick(ends[1]);
        fixture.entries[i] = (struct entry){.fd = ends[0], .peer = ends[1], .slot = -1};
    }
    fixture.pollers = poller_open(fixture.wake[1], max_pollers);
    CHECK(fixture.pollers);
}

static void take_slots(void)
{
    for (size_t i = 0; i < fixture.count; i++)
        fixture.entries[i].slot = poller_take_slot(fixture.pollers, (uint32_t)i);
}

static void arm_entry(struct entry *entry)
{
    entry->armed = true;
    poller_arm(fixture.pollers, entry->slot, entry->fd);
}

/* Arms everything that has a slot. */
static void arm_all(void)
{
    for (size_t i = 0; i < fixture.count; i++)
        if (fixture.entries[i].slot >= 0 && !fixture.entries[i].armed)
            arm_entry(&fixture.entries[i]);
    poller_commit(fixture.pollers);
}

static void open_armed(size_t count, size_t max_pollers)
{
    open_fixture(count, max_pollers);
    take_slots();
    arm_all();
}

/* Closes the pollers first, the descriptors after them. */
static void close_fixture(void)
{
    CHECK(fixture.wrong == 0);
    poller_close(fixture.pollers);
    for (size_t i = 0; i < fixture.count; i++) {
        close(fixture.entries[i].fd);
        if (fixture.entries[i].peer >= 0)
            close(fixture.entries[i].peer);
    }
    close(fixture.wake[0]);
    close(fixture.wake[1]);
}

/* Waits for the wake pipe and empties it; false if nothing has come before `until`. */
static bool woken(int64_t until)
{
    struct pollfd wake = {.fd = fixture.wake[0], .events = POLLIN};
    int64_t left = until - now();
    char bytes[64];

    if (poll(&wake, 1, left > 0 ? (int)left : 0) <= 0)
        return false;
    while (read(fixture.wake[0], bytes, sizeof bytes) > 0)
        ;
    return true;
}

/* Takes what is ready, `max` at a time; returns how many. */
static size_t collect(size_t max)
{
    uint32_t tokens[ENTRIES];
    size_t total = 0, count;

    while ((count = poller_ready(fixture.pollers, tokens, max)) > 0) {
        for (size_t i = 0; i < count; i++) {
            if (tokens[i] < fixture.count && fixture.entries[tokens[i]].armed) {
                fixture.entries[tokens[i]].armed = false;
                fixture.entries[tokens[i]].times++;
            } else {
                fixture.wrong++;
            }
        }
        total += count;
    }
    return total;
}

/* Waits until `wanted` descriptors are ready, or TIMEOUT has passed; returns how many have. */
static size_t await_some(size_t wanted, size_t max)
{
    int64_t until = now() + TIMEOUT;
    size_t total = 0;

    while (total < wanted && woken(until))
        total += collect(max);
    return total;
}

static size_t await(size_t wanted)
{
    return await_some(wanted, ENTRIES);
}

/* True if nothing becomes ready for a moment. */
static bool quiet(void)
{
    poll(NULL, 0, MOMENT);
    woken(now());
    return collect(ENTRIES) == 0;
}

static bool send_byte(int fd)
{
    return write(fd, "x", 1) == 1;
}

static void make_all_readable(void)
{
    for (size_t i = 0; i < fixture.count; i++)
        CHECK(send_byte(fixture.entries[i].peer));
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

static void starts_no_thread_before_the_first_slot(void)
{
    open_fixture(1, 4);
    CHECK(poller_count(fixture.pollers) == 0);
    poller_commit(fixture.pollers);
    CHECK(collect(ENTRIES) == 0);
    take_slots();
    CHECK(fixture.entries[0].slot >= 0);
    CHECK(poller_count(fixture.pollers) == 1);
    CHECK(quiet());
    close_fixture();
}

static void a_readable_one_is_ready_once(void)
{
    open_armed(8, 4);
    CHECK(quiet());
    CHECK(send_byte(fixture.entries[5].peer));
    CHECK(await(1) == 1);
    CHECK(fixture.entries[5].times == 1);
    CHECK(send_byte(fixture.entries[5].peer));
    CHECK(quiet());
    /* what is readable already is ready at once */
    arm_all();
    CHECK(await(1) == 1);
    CHECK(fixture.entries[5].times == 2);
    CHECK(drain(fixture.entries[5].fd) == 2);
    close_fixture();
}

static void carries_any_token(void)
{
    static const uint32_t tokens[] = {0, 1, 0x7fffffff, 0x80000000, 0xfffffffe};
    const size_t count = sizeof tokens / sizeof *tokens;
    uint32_t token = 77;

    open_fixture(count, 1);
    for (size_t i = 0; i < count; i++) {
        int32_t slot = poller_take_slot(fixture.pollers, tokens[i]);

        CHECK(slot >= 0);
        poller_arm(fixture.pollers, slot, fixture.entries[i].fd);
        poller_commit(fixture.pollers);
        CHECK(send_byte(fixture.entries[i].peer));
        CHECK(woken(now() + TIMEOUT));
        CHECK(poller_ready(fixture.pollers, &token, 1) == 1);
        CHECK(token == tokens[i]);
        CHECK(poller_ready(fixture.pollers, &token, 1) == 0);
    }
    close_fixture();
}

/* Makes a TCP connection over 127.0.0.1. */
static bool connect_entry(struct entry *entry)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bool good;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    entry->peer = socket(AF_INET, SOCK_STREAM, 0);
    good = bind(listener, (struct sockaddr *)&address, sizeof address) == 0 &&
           listen(listener, 1) == 0 &&
           getsockname(listener, (struct sockaddr *)&address, &length) == 0 &&
           connect(entry->peer, (struct sockaddr *)&address, sizeof address) == 0;
    entry->fd = accept(listener, NULL, NULL);
    close(listener);
    return good && entry->fd >= 0;
}

static void close_peer(struct entry *entry)
{
    close(entry->peer);
    entry->peer = -1;
}

static void reset_peer(struct entry *entry)
{
    struct linger none = {.l_onoff = 1, .l_linger = 0};

    setsockopt(entry->peer, SOL_SOCKET, SO_LINGER, &none, sizeof none);
    close_peer(entry);
}

static void shut_peer(struct entry *entry)
{
    shutdown(entry->peer, SHUT_WR);
}

static void shut_own(struct entry *entry)
{
    shutdown(entry->fd, SHUT_RDWR);
}

static void what_ends_is_ready(void)
{
    static void (*const ways[])(struct entry *) = {close_peer, reset_peer, shut_peer, shut_own};
    const size_t count = sizeof ways / sizeof *ways;

    open_fixture(2 * count, 1);
    for (size_t i = count; i < 2 * count; i++) {
        close(fixture.entries[i].fd);
        close(fixture.entries[i].peer);
        CHECK(connect_entry(&fixture.entries[i]));
    }
    take_slots();
    arm_all();
    CHECK(quiet());
    for (size_t i = 0; i < 2 * count; i++) {
        ways[i % count](&fixture.entries[i]);
        CHECK(await(1) == 1);
        CHECK(fixture.entries[i].times == 1);
    }
    CHECK(quiet());
    close_fixture();
}

static void lets_the_owner_write_meanwhile(void)
{
    open_armed(4, 1);
    for (int round = 0; round < 200; round++) {
        struct entry *entry = &fixture.entries[round % 4];

        CHECK(send_byte(entry->fd));
        CHECK(drain(entry->peer) == 1);
    }
    CHECK(quiet());
    CHECK(send_byte(fixture.entries[2].peer));
    CHECK(await(1) == 1);
    CHECK(fixture.entries[2].times == 1);
    close_fixture();
}

static void arms_again_and_again(void)
{
    const unsigned rounds = 2000;
    unsigned good = 0;

    open_armed(1, 1);
    for (unsigned round = 0; round < rounds; round++) {
        good += send_byte(fixture.entries[0].peer) && await(1) == 1 &&
                drain(fixture.entries[0].fd) == 1;
        arm_all();
    }
    CHECK(good == rounds);
    CHECK(fixture.entries[0].times == rounds);
    CHECK(quiet());
    close_fixture();
}

static bool slots_differ(void)
{
    bool seen[3 * POLLER_SLOTS] = {false};

    for (size_t i = 0; i < fixture.count; i++) {
        int32_t slot = fixture.entries[i].slot;

        if (slot < 0 || slot >= 3 * POLLER_SLOTS || seen[slot])
            return false;
        seen[slot] = true;
    }
    return true;
}

static bool all_ready(unsigned times)
{
    for (size_t i = 0; i < fixture.count; i++)
        if (fixture.entries[i].times != times)
            return false;
    return true;
}

static void fills_several_pollers(void)
{
    open_armed(ENTRIES, 3);
    CHECK(poller_count(fixture.pollers) == 3);
    CHECK(slots_differ());
    make_all_readable();
    CHECK(await(ENTRIES) == ENTRIES);
    CHECK(all_ready(1));
    CHECK(quiet());
    close_fixture();
}

static void gives_free_slots_to_others(void)
{
    open_armed(ENTRIES, 3);
    make_all_readable();
    CHECK(await(ENTRIES) == ENTRIES);
    for (size_t i = 0; i < ENTRIES; i += 2)
        poller_free_slot(fixture.pollers, fixture.entries[i].slot);
    for (size_t i = 0; i < ENTRIES; i += 2) /* in another order than before */
        fixture.entries[ENTRIES - 2 - i].slot =
            poller_take_slot(fixture.pollers, (uint32_t)(ENTRIES - 2 - i));
    CHECK(poller_count(fixture.pollers) == 3);
    CHECK(slots_differ());
    arm_all();
    CHECK(await(ENTRIES) == ENTRIES);
    CHECK(all_ready(2));
    CHECK(quiet());
    close_fixture();
}

static void arms_while_others_become_ready(void)
{
    unsigned seed = 11, good;
    const unsigned rounds = 5000;

    open_fixture(16, 1);
    take_slots();
    make_all_readable();
    for (good = 0; good < rounds; good++) {
        size_t count = 1 + (unsigned)rand_r(&seed) % fixture.count;

        for (size_t i = 0; i < count; i++) { /* the last ones reach a thread that is awake */
            arm_entry(&fixture.entries[i]);
            poller_commit(fixture.pollers);
        }
        if (await(count) != count)
            break;
    }
    CHECK(good == rounds);
    close_fixture();
}

static void grows_while_descriptors_become_ready(void)
{
    open_fixture(POLLER_SLOTS + 1, 2);
    make_all_readable();
    for (int round = 0; round < 20; round++) {
        for (size_t i = 0; i < POLLER_SLOTS; i++)
            fixture.entries[i].slot = poller_take_slot(fixture.pollers, (uint32_t)i);
        fixture.entries[POLLER_SLOTS].slot = -1;
        arm_all();
        fixture.entries[POLLER_SLOTS].slot = poller_take_slot(fixture.pollers, POLLER_SLOTS);
        arm_all();
        CHECK(await(POLLER_SLOTS + 1) == POLLER_SLOTS + 1);
        poller_close(fixture.pollers);
        fixture.pollers = poller_open(fixture.wake[1], 2);
    }
    close_fixture();
}

static void keeps_to_the_limit_of_pollers(void)
{
    int32_t slot;

    open_fixture(1, 0);
    CHECK(poller_take_slot(fixture.pollers, 1) == -1);
    CHECK(poller_count(fixture.pollers) == 0);
    close_fixture();

    open_fixture(2 * POLLER_SLOTS, 2);
    take_slots();
    CHECK(fixture.entries[2 * POLLER_SLOTS - 1].slot >= 0);
    CHECK(poller_take_slot(fixture.pollers, 1) == -1);
    CHECK(poller_count(fixture.pollers) == 2);
    slot = fixture.entries[3].slot;
    poller_free_slot(fixture.pollers, slot);
    CHECK(poller_take_slot(fixture.pollers, 3) == slot);
    CHECK(poller_take_slot(fixture.pollers, 1) == -1);
    arm_all();
    CHECK(send_byte(fixture.entries[3].peer));
    CHECK(await(1) == 1);
    CHECK(fixture.entries[3].times == 1);
    close_fixture();
}

static void gives_no_slots_without_a_thread(void)
{
    int next;
    rlim_t before;

    open_fixture(1, 1);
    next = dup(fixture.wake[0]);
    close(next);
    before = allow_files((rlim_t)next);
    CHECK(poller_take_slot(fixture.pollers, 0) == -1);
    CHECK(poller_count(fixture.pollers) == 0);
    allow_files(before);
    take_slots();
    arm_all();
    CHECK(send_byte(fixture.entries[0].peer));
    CHECK(await(1) == 1);
    close_fixture();
}

/* poll() refuses more entries than files that may be open, also entries that are not in use. */
static void works_where_few_files_may_be_open(void)
{
    rlim_t before = allow_files(64);

    open_armed(4, 1);
    CHECK(send_byte(fixture.entries[3].peer));
    CHECK(await(1) == 1);
    allow_files(before);
    close_fixture();
}

static void hands_out_in_small_pieces(void)
{
    const size_t count = POLLER_SLOTS + 44;
    uint32_t token;

    open_armed(count, 2);
    make_all_readable();
    CHECK(poller_ready(fixture.pollers, &token, 0) == 0);
    CHECK(await_some(count, 7) == count);
    CHECK(all_ready(1));
    CHECK(quiet());
    close_fixture();
}

/* The tokens beside `slot` are those from `first` to `end`, without `absent`. */
static bool siblings_are(int32_t slot, uint32_t first, uint32_t end, uint32_t absent)
{
    uint32_t tokens[POLLER_SLOTS];
    bool seen[ENTRIES] = {false};
    size_t count = poller_siblings(fixture.pollers, slot, tokens);

    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < first || tokens[i] >= end || tokens[i] == absent || seen[tokens[i]])
            return false;
        seen[tokens[i]] = true;
    }
    return count == end - first - (absent >= first && absent < end);
}

static void names_siblings(void)
{
    const uint32_t count = POLLER_SLOTS + 44;

    open_fixture(count, 2);
    take_slots();
    CHECK(siblings_are(fixture.entries[0].slot, 0, POLLER_SLOTS, count));
    CHECK(siblings_are(fixture.entries[POLLER_SLOTS - 1].slot, 0, POLLER_SLOTS, count));
    CHECK(siblings_are(fixture.entries[POLLER_SLOTS].slot, POLLER_SLOTS, count, count));
    poller_free_slot(fixture.pollers, fixture.entries[9].slot);
    CHECK(siblings_are(fixture.entries[0].slot, 0, POLLER_SLOTS, 9));
    poller_free_slot(fixture.pollers, fixture.entries[POLLER_SLOTS].slot);
    CHECK(siblings_are(fixture.entries[count - 1].slot, POLLER_SLOTS, count, POLLER_SLOTS));
    close_fixture();
}

static void a_full_wake_pipe_stops_nobody(void)
{
    open_armed(2, 1);
    while (send_byte(fixture.wake[1]))
        ;
    CHECK(send_byte(fixture.entries[1].peer));
    poll(NULL, 0, MOMENT);
    CHECK(await(1) == 1);
    CHECK(fixture.entries[1].times == 1);
    arm_all();
    CHECK(await(1) == 1);
    close_fixture();
}

static void ends_while_descriptors_are_armed(void)
{
    const size_t count = POLLER_SLOTS + 4;

    open_armed(count, 2);
    for (size_t i = 0; i < count; i += 3) /* some are becoming ready at this moment */
        CHECK(send_byte(fixture.entries[i].peer));
    poller_close(fixture.pollers);
    for (size_t i = 0; i < count; i++)
        CHECK(send_byte(fixture.entries[i].fd) && drain(fixture.entries[i].peer) == 1);

    fixture.pollers = poller_open(fixture.wake[1], 1);
    fixture.entries[0].slot = poller_take_slot(fixture.pollers, 0);
    poller_arm(fixture.pollers, fixture.entries[0].slot,
               fixture.entries[0].fd); /* and without a commit */
    poller_close(fixture.pollers);
    poller_close(NULL);
    fixture.pollers = NULL;
    close_fixture();
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
    open_armed(1, 1);
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    kill(getpid(), SIGUSR1);
    poll(NULL, 0, MOMENT);
    CHECK(signalled == 0);
    CHECK(sigpending(&pending) == 0 && sigismember(&pending, SIGUSR1) == 1);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    CHECK(signalled == SIGUSR1);
    sigaction(SIGUSR1, &before, NULL);
    close_fixture();
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
        size_t i = (unsigned)rand_r(&seed) % fixture.count;

        if (read(writer->credit[0], &byte, 1) != 1 ||
            write(fixture.entries[i].peer, &writer->mark, 1) != 1)
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

/* Reads what an entry has received and counts it for its writers; false if there was nothing. */
static bool serve(const struct entry *entry, struct writer writers[WRITERS],
                  unsigned counts[WRITERS])
{
    unsigned char marks[WRITERS * CREDIT];
    ssize_t n = read(entry->fd, marks, sizeof marks);

    for (ssize_t i = 0; i < n; i++) {
        counts[marks[i]]++;
        send_byte(writers[marks[i]].credit[1]);
    }
    return n > 0;
}

/* Serves every entry that is ready and arms it again; returns how many had nothing to say. */
static unsigned serve_returned(struct writer writers[WRITERS], unsigned counts[WRITERS])
{
    unsigned idle = 0;

    for (size_t i = 0; i < fixture.count; i++)
        if (!fixture.entries[i].armed) {
            idle += !serve(&fixture.entries[i], writers, counts);
            arm_entry(&fixture.entries[i]);
        }
    poller_commit(fixture.pollers);
    return idle;
}

static void loses_and_doubles_nothing_in_a_storm(void)
{
    struct writer writers[WRITERS];
    unsigned counts[WRITERS] = {0}, idle = 0;
    int64_t until = now() + TIMEOUT;

    open_armed(POLLER_SLOTS + 44, 2);
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
    close_fixture();
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    allow_files(2 * ENTRIES + 256);
    test_run("starts no thread before the first slot", starts_no_thread_before_the_first_slot);
    test_run("a readable one is ready once", a_readable_one_is_ready_once);
    test_run("carries any token", carries_any_token);
    test_run("what ends is ready", what_ends_is_ready);
    test_run("lets the owner write meanwhile", lets_the_owner_write_meanwhile);
    test_run("arms again and again", arms_again_and_again);
    test_run("fills several pollers", fills_several_pollers);
    test_run("arms while others become ready", arms_while_others_become_ready);
    test_run("grows while descriptors become ready", grows_while_descriptors_become_ready);
    test_run("gives free slots to others", gives_free_slots_to_others);
    test_run("keeps to the limit of pollers", keeps_to_the_limit_of_pollers);
    test_run("gives no slots without a thread", gives_no_slots_without_a_thread);
    test_run("works where few files may be open", works_where_few_files_may_be_open);
    test_run("hands out in small pieces", hands_out_in_small_pieces);
    test_run("names siblings", names_siblings);
    test_run("a full wake pipe stops nobody", a_full_wake_pipe_stops_nobody);
    test_run("ends while descriptors are armed", ends_while_descriptors_are_armed);
    test_run("leaves signals to the owner", leaves_signals_to_the_owner);
    test_run("loses and doubles nothing in a storm", loses_and_doubles_nothing_in_a_storm);
    return test_finish();
}
