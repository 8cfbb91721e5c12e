/* test_mailbox.c - mailbox.c: what threads post arrives once and in order, and whoever waits for it
 * is woken. Good under the thread sanitizer, too. */
#include "mailbox.h"

#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE 10000 /* milliseconds after which a test gives up */
#define POSTERS 4
#define EACH 20000 /* things that each of them posts */

struct parcel {
    struct mail mail; /* first */
    int poster, number;
};

static struct mailbox box;
static int ends[2];

static void open_box(void)
{
    ends[0] = ends[1] = -1;
    CHECK(mailbox_pipe(ends));
    mailbox_open(&box, ends[1]);
}

static void close_box(void)
{
    CHECK(!mailbox_take(&box));
    mailbox_close(&box);
    close(ends[0]);
    close(ends[1]);
}

static bool is_readable(void)
{
    struct pollfd wake = {ends[0], POLLIN, 0};

    return poll(&wake, 1, 0) == 1;
}

static void post(int poster, int number)
{
    struct parcel *parcel = calloc(1, sizeof *parcel);

    if (!parcel)
        abort();
    *parcel = (struct parcel){.poster = poster, .number = number};
    parcel->mail.next = &parcel->mail; /* whatever stands there */
    mailbox_post(&box, &parcel->mail);
}

static void pipes_do_not_block(void)
{
    int pipe_ends[2];
    char bytes[600];

    CHECK(mailbox_pipe(pipe_ends));
    for (int i = 0; i < 2; i++)
        CHECK(fcntl(pipe_ends[i], F_GETFL) & O_NONBLOCK);
    CHECK(read(pipe_ends[0], bytes, 1) == -1);
    memset(bytes, 'x', sizeof bytes);
    for (size_t length = 0; length <= sizeof bytes; length += 1 + length / 3) {
        CHECK(length == 0 || write(pipe_ends[1], bytes, length) == (ssize_t)length);
        mailbox_drain(pipe_ends[0]);
        if (!CHECK(read(pipe_ends[0], bytes, 1) == -1))
            printf("  that was with %zu bytes\n", length);
    }
    for (size_t length = 255; length <= 257; length++) {
        CHECK(write(pipe_ends[1], bytes, length) == (ssize_t)length);
        mailbox_drain(pipe_ends[0]);
        CHECK(read(pipe_ends[0], bytes, 1) == -1);
    }
    close(pipe_ends[0]);
    close(pipe_ends[1]);
}

/* Takes a list and checks that it is these numbers, in this order. */
static bool took(int from, int to)
{
    struct mail *mail = mailbox_take(&box), *next;
    int expected = from;
    bool good = true;

    for (; mail; mail = next) {
        next = mail->next;
        good = ((struct parcel *)mail)->number == expected++ && good;
        free(mail);
    }
    return good && expected == to;
}

static void all_is_taken_oldest_first(void)
{
    open_box();
    CHECK(!mailbox_take(&box));
    for (int count = 1; count <= 10; count++) {
        for (int i = 0; i < count; i++)
            post(0, i);
        CHECK(took(0, count) && !mailbox_take(&box));
    }
    post(0, 5);
    CHECK(took(5, 6));
    post(0, 6);
    post(0, 7);
    CHECK(took(6, 8));
    close_box();
}

/* A byte for each time that there is something again: neither none nor one for each thing. */
static void the_reader_is_woken_when_there_is_something_new(void)
{
    open_box();
    CHECK(!is_readable());
    for (int round = 0; round < 3; round++) {
        char bytes[64];

        for (int i = 0; i < 10; i++) {
            post(0, i);
            CHECK(is_readable());
        }
        CHECK(read(ends[0], bytes, sizeof bytes) == 1);
        CHECK(took(0, 10) && !is_readable());
    }
    post(0, 0);
    mailbox_drain(ends[0]); /* before it is taken, as whoever waits has to do */
    CHECK(!is_readable());
    post(0, 1);
    CHECK(!is_readable() && took(0, 2));
    post(0, 2);
    CHECK(is_readable() && took(2, 3));
    close_box();
}

/* A full pipe neither blocks who posts nor loses what is posted. */
static void a_full_pipe_is_no_harm(void)
{
    char bytes[4096];

    open_box();
    memset(bytes, 'x', sizeof bytes);
    while (write(ends[1], bytes, sizeof bytes) > 0)
        ;
    while (write(ends[1], bytes, 1) > 0)
        ;
    post(0, 0);
    post(0, 1);
    CHECK(is_readable() && took(0, 2));
    post(0, 2);
    CHECK(is_readable() && took(2, 3));
    mailbox_drain(ends[0]);
    CHECK(!is_readable());
    post(0, 3);
    CHECK(is_readable() && took(3, 4));
    close_box();
}

static void *post_many(void *argument)
{
    int poster = *(int *)argument;

    for (int i = 0; i < EACH; i++)
        post(poster, i);
    return NULL;
}

/* Threads post as fast as they can, and the reader sleeps in poll() when there is nothing: all
 * arrives, each poster's in its order, and nobody sleeps for ever. */
static void threads_post_and_one_reads(void)
{
    pthread_t threads[POSTERS];
    int names[POSTERS], next[POSTERS] = {0}, got = 0;
    bool in_order = true;

    open_box();
    for (int i = 0; i < POSTERS; i++) {
        names[i] = i;
        CHECK(pthread_create(&threads[i], NULL, post_many, &names[i]) == 0);
    }
    while (got < POSTERS * EACH) {
        struct pollfd wake = {ends[0], POLLIN, 0};
        struct mail *mail, *after;

        if (!CHECK(poll(&wake, 1, PATIENCE) == 1))
            break;
        mailbox_drain(ends[0]);
        for (mail = mailbox_take(&box); mail; mail = after, got++) {
            struct parcel *parcel = (struct parcel *)mail;

            after = mail->next;
            in_order = in_order && parcel->number == next[parcel->poster]++;
            free(parcel);
        }
    }
    for (int i = 0; i < POSTERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(got == POSTERS * EACH && in_order);
    close_box();
}

struct echo {
    struct mailbox there, back;
    int wake[2][2];
};

/* Gives back what comes, until a negative number does. */
static void *give_back(void *argument)
{
    struct echo *echo = argument;
    bool more = true;

    while (more) {
        struct pollfd wake = {echo->wake[0][0], POLLIN, 0};
        struct mail *mail, *next;

        if (poll(&wake, 1, PATIENCE) != 1)
            break;
        mailbox_drain(echo->wake[0][0]);
        for (mail = mailbox_take(&echo->there); mail; mail = next) {
            next = mail->next;
            more = ((struct parcel *)mail)->number >= 0 && more;
            mailbox_post(&echo->back, mail);
        }
    }
    return NULL;
}

/* One at a time there and back: each posting must wake. */
static void each_posting_wakes(void)
{
    struct echo echo;
    pthread_t thread;
    struct parcel parcel = {.number = 0};
    int trips = 0;

    CHECK(mailbox_pipe(echo.wake[0]) && mailbox_pipe(echo.wake[1]));
    mailbox_open(&echo.there, echo.wake[0][1]);
    mailbox_open(&echo.back, echo.wake[1][1]);
    CHECK(pthread_create(&thread, NULL, give_back, &echo) == 0);
    for (int i = 2000; i >= -1 && test_good; i--) {
        struct pollfd wake = {echo.wake[1][0], POLLIN, 0};

        parcel.number = i;
        mailbox_post(&echo.there, &parcel.mail);
        CHECK(poll(&wake, 1, PATIENCE) == 1);
        mailbox_drain(echo.wake[1][0]);
        CHECK(mailbox_take(&echo.back) == &parcel.mail && parcel.number == i);
        CHECK(!parcel.mail.next);
        trips++;
    }
    pthread_join(thread, NULL);
    CHECK(trips == 2002 && !mailbox_take(&echo.there) && !mailbox_take(&echo.back));
    mailbox_close(&echo.there);
    mailbox_close(&echo.back);
    for (int i = 0; i < 4; i++)
        close(echo.wake[i / 2][i % 2]);
}

int main(void)
{
    test_run("pipes_do_not_block", pipes_do_not_block);
    test_run("all_is_taken_oldest_first", all_is_taken_oldest_first);
    test_run("the_reader_is_woken_when_there_is_something_new",
             the_reader_is_woken_when_there_is_something_new);
    test_run("a_full_pipe_is_no_harm", a_full_pipe_is_no_harm);
    test_run("threads_post_and_one_reads", threads_post_and_one_reads);
    test_run("each_posting_wakes", each_posting_wakes);
    return test_finish();
}
