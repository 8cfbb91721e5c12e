/* test_os.c - clock, threads, wake pipes, mailboxes, files in a folder of their own, sd_notify.
 * Also runs under the thread sanitizer. */
#include "os.h"

#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT 10000 /* milliseconds after which a test gives up */
#define SENDERS 4
#define POSTS_EACH 20000

static char root[60];

/* The path of a name in the test's directory; good until the next call. */
static const char *path_of(const char *name)
{
    static char path[4096];

    snprintf(path, sizeof path, "%s/%s", root, name);
    return path;
}

static void put_file(const char *name, struct str bytes, mode_t mode)
{
    FILE *file = fopen(path_of(name), "wb");

    if (!CHECK(file != NULL))
        return;
    CHECK(bytes.length == 0 || fwrite(bytes.at, 1, bytes.length, file) == bytes.length);
    CHECK(fclose(file) == 0 && chmod(path_of(name), mode) == 0);
}

static bool file_holds(const char *name, struct str bytes)
{
    FILE *file = fopen(path_of(name), "rb");
    struct buf found = {0};
    bool same;
    int c;

    if (!file)
        return false;
    while ((c = getc(file)) != EOF)
        buf_append(&found, (struct str){&(char){(char)c}, 1});
    fclose(file);
    same = str_equal(str_of(&found), bytes);
    buf_free(&found);
    return same;
}

static mode_t mode_of(const char *name)
{
    struct stat status;

    return stat(path_of(name), &status) == 0 ? status.st_mode & 0777 : 0;
}

/* How many names the test's directory holds. */
static size_t names_left(void)
{
    DIR *directory = opendir(root);
    size_t count = 0;

    if (!CHECK(directory != NULL))
        return 0;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return count;
}

/* 20,000 bytes, each value among them. */
static struct str many_bytes(void)
{
    static char bytes[20000];

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)(i * 31 + i / 256);
    return (struct str){bytes, sizeof bytes};
}

static void files_are_read_whole(void)
{
    static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 8192, 20000};

    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct str bytes = {many_bytes().at, sizes[i]};
        struct buf out = {0};

        put_file("some", bytes, 0600);
        CHECK(buf_append(&out, STR("before ")));
        CHECK(os_read_file(path_of("some"), &out) == 0 && out.length == 7 + sizes[i]);
        CHECK(memcmp(out.at, "before ", 7) == 0);
        CHECK(str_equal((struct str){out.at + 7, out.length - 7}, bytes));
        buf_free(&out);
    }
    unlink(path_of("some"));
}

static void reading_keeps_the_limit(void)
{
    static const struct {
        size_t size, limit;
        int error;
    } cases[] = {
        {0, 1, 0},        {1, 1, 0},         {2, 1, EFBIG},         {10, 100, 0},
        {100, 100, 0},    {101, 100, EFBIG}, {4096, 4096, 0},       {4097, 4096, EFBIG},
        {5000, 10000, 0}, {20000, 20000, 0}, {20000, 19999, EFBIG}, {20000, 1, EFBIG},
    };

    for (size_t i = 0; i < COUNT(cases); i++) {
        struct str bytes = {many_bytes().at, cases[i].size};
        struct buf out = {.limit = cases[i].limit};

        put_file("some", bytes, 0600);
        if (!CHECK(os_read_file(path_of("some"), &out) == cases[i].error))
            printf("  in case %zu\n", i);
        if (cases[i].error == 0)
            CHECK(str_equal(str_of(&out), bytes) && !out.failed);
        CHECK(out.length <= cases[i].limit);
        buf_free(&out);
    }
    unlink(path_of("some"));
}

static void read_errors_are_returned(void)
{
    struct buf out = {0};

    CHECK(os_read_file(path_of("missing"), &out) == ENOENT);
    CHECK(os_read_file(path_of("missing/some"), &out) == ENOENT);
    CHECK(os_read_file(root, &out) == EISDIR);
    put_file("some", STR("x"), 0600);
    CHECK(os_read_file(path_of("some/below"), &out) == ENOTDIR);
    CHECK(out.length == 0);
    unlink(path_of("some"));
    buf_free(&out);
}

static void files_are_replaced(void)
{
    static const size_t sizes[] = {10, 20000, 3, 0, 4096};

    for (size_t i = 0; i < COUNT(sizes); i++) {
        struct str bytes = {many_bytes().at, sizes[i]};

        CHECK(os_replace_file(root, "accounts", bytes) == 0 && file_holds("accounts", bytes));
        CHECK(mode_of("accounts") == 0600 && names_left() == 1);
    }
    CHECK(os_replace_file(root, "accounts", (struct str){NULL, 0}) == 0);
    CHECK(file_holds("accounts", STR("")));
    unlink(path_of("accounts"));
}

/* Whatever was there before, the new file is for the owner alone. */
static void replaced_files_are_for_the_owner(void)
{
    mode_t mask = umask(0);

    put_file("accounts", STR("old"), 0644);
    CHECK(os_replace_file(root, "accounts", STR("new")) == 0 && mode_of("accounts") == 0600);
    put_file("accounts.new", STR("left by a crash, and longer than the next"), 0666);
    CHECK(os_replace_file(root, "accounts", STR("newer")) == 0 && mode_of("accounts") == 0600);
    CHECK(file_holds("accounts", STR("newer")) && names_left() == 1);
    umask(mask);
    unlink(path_of("accounts"));
}

/* A reader of the old file keeps it: the new one is another file under the same name. */
static void the_old_file_is_never_written(void)
{
    char found[4] = "";
    FILE *old;

    put_file("accounts", STR("old"), 0600);
    old = fopen(path_of("accounts"), "rb");
    if (!CHECK(old != NULL))
        return;
    CHECK(os_replace_file(root, "accounts", STR("NEW")) == 0);
    CHECK(fread(found, 1, 3, old) == 3 && strcmp(found, "old") == 0);
    CHECK(file_holds("accounts", STR("NEW")));
    fclose(old);
    unlink(path_of("accounts"));
}

static void names_are_shorter_than_64(void)
{
    char name[65];

    memset(name, 'n', sizeof name);
    name[64] = '\0';
    put_file(name, STR("old"), 0600);
    CHECK(os_replace_file(root, name, STR("new")) == ENAMETOOLONG);
    CHECK(file_holds(name, STR("old")) && names_left() == 1);
    unlink(path_of(name));
    name[63] = '\0';
    CHECK(os_replace_file(root, name, STR("new")) == 0 && file_holds(name, STR("new")));
    CHECK(names_left() == 1);
    unlink(path_of(name));
}

static void a_failed_replace_changes_nothing(void)
{
    char other[4096];

    put_file("accounts", STR("old"), 0600);
    snprintf(other, sizeof other, "%s/missing", root);
    CHECK(os_replace_file(other, "accounts", STR("new")) == ENOENT);
    snprintf(other, sizeof other, "%s/accounts", root);
    CHECK(os_replace_file(other, "accounts", STR("new")) == ENOTDIR);
    CHECK(os_replace_file(root, "missing/accounts", STR("new")) == ENOENT);
    CHECK(file_holds("accounts", STR("old")) && names_left() == 1);
    /* written, but it cannot take its name: what was written beside is gone again */
    CHECK(mkdir(path_of("folder"), 0700) == 0);
    CHECK(os_replace_file(root, "folder", STR("new")) != 0);
    CHECK(names_left() == 2 && mode_of("folder") == 0700);
    rmdir(path_of("folder"));
    unlink(path_of("accounts"));
}

/* A limit on the size of files stands for a full disk: part of the bytes can be written. */
static void a_full_disk_leaves_the_old_file(void)
{
    struct rlimit before, small;
    int error;

    put_file("accounts", STR("old"), 0600);
    if (!CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0))
        return;
    small = before;
    small.rlim_cur = 5000;
    signal(SIGXFSZ, SIG_IGN);
    fflush(stdout);
    setrlimit(RLIMIT_FSIZE, &small);
    error = os_replace_file(root, "accounts", many_bytes());
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    CHECK(error == EFBIG);
    CHECK(file_holds("accounts", STR("old")) && names_left() == 1);
    unlink(path_of("accounts"));
}

/* Appends, and sees that the file holds this then. */
static void append_and_see(struct str bytes, size_t limit, int error, struct str expected)
{
    CHECK(os_append_file(path_of("accounts"), bytes, limit) == error);
    CHECK(file_holds("accounts", expected));
}

static void files_are_appended_to(void)
{
    put_file("accounts", STR(""), 0640);
    append_and_see(STR("one\n"), 100, 0, STR("one\n"));
    append_and_see(STR("two\n"), 8, 0, STR("one\ntwo\n"));
    append_and_see(STR(""), 8, 0, STR("one\ntwo\n"));
    append_and_see(STR("3"), 8, EFBIG, STR("one\ntwo\n"));
    append_and_see(STR("3"), 7, EFBIG, STR("one\ntwo\n"));
    append_and_see(STR("3"), 0, EFBIG, STR("one\ntwo\n"));
    CHECK(mode_of("accounts") == 0640 && names_left() == 1);
    unlink(path_of("accounts"));
}

/* Appending makes no file: one that is missing is an account file that somebody has moved. */
static void append_errors_are_returned(void)
{
    CHECK(os_append_file(path_of("missing"), STR("x"), 100) == ENOENT);
    CHECK(os_append_file(path_of("missing/some"), STR("x"), 100) == ENOENT);
    CHECK(os_append_file(root, STR("x"), 100) == EISDIR);
    CHECK(os_truncate_file(path_of("missing"), 0) == ENOENT && os_truncate_file(root, 0) == EISDIR);
    CHECK(names_left() == 0);
}

static void files_are_truncated(void)
{
    put_file("accounts", STR("one\ntwo\n"), 0600);
    CHECK(os_truncate_file(path_of("accounts"), 8) == 0 &&
          file_holds("accounts", STR("one\ntwo\n")));
    CHECK(os_truncate_file(path_of("accounts"), 4) == 0 && file_holds("accounts", STR("one\n")));
    CHECK(os_truncate_file(path_of("accounts"), 0) == 0 && file_holds("accounts", STR("")));
    unlink(path_of("accounts"));
}

/* At whatever byte the disk is full, the file stays as it was, and the next append is whole. */
static void a_full_disk_leaves_no_part_of_a_line(void)
{
    struct str old = STR("the old line\n"), line = STR("the new line\n");
    struct rlimit before, small;

    if (!CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0))
        return;
    small = before;
    signal(SIGXFSZ, SIG_IGN);
    fflush(stdout);
    for (size_t room = 0; room <= line.length; room++) {
        int error;

        put_file("accounts", old, 0600);
        small.rlim_cur = old.length + room;
        setrlimit(RLIMIT_FSIZE, &small);
        error = os_append_file(path_of("accounts"), line, 100);
        setrlimit(RLIMIT_FSIZE, &before);
        CHECK(error == (room < line.length ? EFBIG : 0));
        CHECK(file_holds("accounts", error ? old : STR("the old line\nthe new line\n")));
        if (error)
            append_and_see(line, 100, 0, STR("the old line\nthe new line\n"));
    }
    signal(SIGXFSZ, SIG_DFL);
    unlink(path_of("accounts"));
}

static void directories_are_made(void)
{
    mode_t mask = umask(0);

    CHECK(os_make_directory(path_of("data")) == 0 && mode_of("data") == 0700);
    CHECK(os_make_directory(path_of("data")) == 0);
    CHECK(chmod(path_of("data"), 0755) == 0 && os_make_directory(path_of("data")) == 0);
    CHECK(os_make_directory(path_of("data/inner")) == 0 && mode_of("data/inner") == 0700);
    CHECK(os_make_directory(path_of("missing/data")) == ENOENT);
    put_file("plain", STR("x"), 0600);
    CHECK(os_make_directory(path_of("plain")) == ENOTDIR && file_holds("plain", STR("x")));
    CHECK(os_make_directory(path_of("plain/data")) == ENOTDIR);
    umask(mask);
    unlink(path_of("plain"));
    rmdir(path_of("data/inner"));
    rmdir(path_of("data"));
}

/* Starts a process that takes the lock, writes what it got to the pipe, and lives until told. */
static pid_t lock_elsewhere(int told[2], int *got)
{
    int answer[2], error = -1;
    char byte;
    pid_t child;

    if (!CHECK(pipe(told) == 0 && pipe(answer) == 0))
        return -1;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        close(told[1]);
        error = os_lock_file(root, "lock");
        if (write(answer[1], &error, sizeof error) != sizeof error || read(told[0], &byte, 1) != 0)
            _exit(1);
        _exit(0);
    }
    close(told[0]);
    close(answer[1]);
    CHECK(child > 0 && read(answer[0], &error, sizeof error) == sizeof error);
    close(answer[0]);
    *got = error;
    return child;
}

static void end_process(pid_t child, const int told[2])
{
    int status = -1;

    close(told[1]);
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_lock_excludes_other_processes_until_exit(void)
{
    int first[2], second[2], third[2], got = -1;
    pid_t child = lock_elsewhere(first, &got), other;

    CHECK(got == 0 && mode_of("lock") == 0600);
    CHECK(os_lock_file(root, "lock") == EAGAIN);
    CHECK(os_lock_file(root, "lock") == EAGAIN);
    other = lock_elsewhere(second, &got);
    CHECK(got == EAGAIN);
    end_process(other, second);
    end_process(child, first);

    CHECK(os_lock_file(root, "lock") == 0);
    other = lock_elsewhere(third, &got);
    CHECK(got == EAGAIN);
    end_process(other, third);
    unlink(path_of("lock"));
}

static void lock_errors_are_returned(void)
{
    char long_name[5000];

    memset(long_name, 'n', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    CHECK(os_lock_file(path_of("missing"), "lock") == ENOENT);
    CHECK(os_lock_file(root, long_name) == ENAMETOOLONG);
    CHECK(mkdir(path_of("lock"), 0700) == 0);
    CHECK(os_lock_file(root, "lock") == EISDIR);
    rmdir(path_of("lock"));
}

/* What can be known without writing; for root everything may be written. */
static void checks_say_what_could_be_written(void)
{
    uid_t owner = (uid_t)-1;

    put_file("there", STR("x"), 0600);
    mkdir(path_of("folder"), 0700);
    mkfifo(path_of("fifo"), 0600);
    CHECK(os_check_append(path_of("there")) == 0 && file_holds("there", STR("x")));
    CHECK(os_check_append(path_of("new")) == 0 && access(path_of("new"), F_OK) != 0);
    CHECK(os_check_append(path_of("folder")) == EISDIR);
    CHECK(os_check_append(path_of("folder/new")) == 0);
    CHECK(os_check_append(path_of("none/new")) == ENOENT);
    CHECK(os_check_append(path_of("there/new")) == ENOTDIR);
    CHECK(os_check_append(path_of("fifo")) == ENXIO);
    CHECK(os_check_append("/new-file-of-nobody") == (access("/", W_OK) == 0 ? 0 : errno));
    CHECK(os_check_create(path_of("there")) == 0 && os_check_create(path_of("none/x")) == ENOENT);
    CHECK(os_check_create(path_of("folder///")) == 0 && os_check_create("here") == 0);
    if (geteuid() != 0) {
        chmod(path_of("there"), 0400);
        chmod(path_of("folder"), 0500);
        CHECK(os_check_append(path_of("there")) == EACCES);
        CHECK(os_check_append(path_of("folder/new")) == EACCES);
    }
    CHECK(os_check_directory(path_of("folder"), &owner) == 0 && owner == geteuid());
    CHECK(os_check_directory(path_of("there"), &owner) == ENOTDIR);
    CHECK(os_check_directory(path_of("none"), &owner) == ENOENT);
    unlink(path_of("there"));
    unlink(path_of("fifo"));
    rmdir(path_of("folder"));
}

/* --- clock, threads, back-off ---------------------------------------------------------------- */

static void the_clock_counts_monotonic_time(void)
{
    struct timespec time;
    int64_t before = os_now_us(), between;

    clock_gettime(CLOCK_MONOTONIC, &time);
    between = (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000;
    CHECK(before <= between && between <= os_now_us());
    CHECK(between / 1000 <= os_now_ms() && os_now_ms() <= os_now_us() / 1000);
}

static void *read_mask(void *argument)
{
    pthread_sigmask(SIG_SETMASK, NULL, argument);
    return NULL;
}

static void threads_get_no_signals(void)
{
    sigset_t there, here;
    pthread_t thread;

    CHECK(os_thread_start(&thread, read_mask, &there) && pthread_join(thread, NULL) == 0);
    CHECK(sigismember(&there, SIGTERM) == 1 && sigismember(&there, SIGINT) == 1);
    pthread_sigmask(SIG_SETMASK, NULL, &here);
    CHECK(sigismember(&here, SIGTERM) == 0);
}

static void backoff_grows_to_its_limit_and_varies(void)
{
    static const int64_t expected[] = {100, 200, 400, 800, 1000, 1000};
    int64_t first = 0;
    int differ = 0;

    for (int round = 0; round < 100; round++) {
        int64_t backoff = 0;

        for (size_t i = 0; i < COUNT(expected); i++) {
            int64_t wait = os_backoff(&backoff, 1000);

            CHECK(backoff == expected[i] && wait >= backoff / 2 && wait <= backoff);
            differ += wait != first;
            first = i == 5 ? wait : first;
        }
    }
    CHECK(differ > 500);
}

/* --- wake pipes and mailboxes ---------------------------------------------------------------- */

static int wake[2];

static bool is_readable(void)
{
    return poll(&(struct pollfd){wake[0], POLLIN, 0}, 1, 0) == 1;
}

static void fill_pipe(void)
{
    static char bytes[4096];

    while (write(wake[1], bytes, sizeof bytes) > 0)
        ;
    while (write(wake[1], bytes, 1) > 0)
        ;
}

static void wake_pipes_do_not_block(void)
{
    static char bytes[600];

    CHECK(os_wake_pipe(wake));
    for (int i = 0; i < 2; i++)
        CHECK(fcntl(wake[i], F_GETFL) & O_NONBLOCK);
    for (size_t length = 0; length <= sizeof bytes; length += 1 + length / 3) {
        CHECK(length == 0 || write(wake[1], bytes, length) == (ssize_t)length);
        os_drain(wake[0]);
        if (!CHECK(!is_readable()))
            printf("  that was with %zu bytes\n", length);
    }
    for (size_t length = 255; length <= 257; length++) {
        CHECK(write(wake[1], bytes, length) == (ssize_t)length);
        os_drain(wake[0]);
        CHECK(!is_readable());
    }
    os_wake(wake[1]);
    CHECK(is_readable());
    fill_pipe();
    errno = EXDEV;
    os_wake(wake[1]); /* the pipe is full: neither blocks nor changes errno */
    CHECK(errno == EXDEV);
    close(wake[0]);
    close(wake[1]);
}

struct post {
    struct fifo_link mail; /* first */
    int sender, number;
};

static struct mailbox box;

static void open_box(void)
{
    CHECK(os_wake_pipe(wake));
    mailbox_open(&box, wake[1]);
}

static void close_box(void)
{
    CHECK(!mailbox_take(&box));
    mailbox_close(&box);
    close(wake[0]);
    close(wake[1]);
}

static void post(int sender, int number)
{
    struct post *post = calloc(1, sizeof *post);

    if (!post)
        abort();
    *post = (struct post){.sender = sender, .number = number};
    post->mail.next = &post->mail; /* the mailbox must overwrite it */
    mailbox_post(&box, &post->mail);
}

/* Takes a list and checks that it has these numbers, in this order. */
static bool took(int from, int to)
{
    struct fifo_link *mail = mailbox_take(&box), *next;
    int expected = from;
    bool good = true;

    for (; mail; mail = next) {
        next = mail->next;
        good = ((struct post *)mail)->number == expected++ && good;
        free(mail);
    }
    return good && expected == to;
}

static void entries_are_taken_oldest_first(void)
{
    open_box();
    CHECK(!mailbox_take(&box));
    for (int count = 1; count <= 10; count++) {
        for (int i = 0; i < count; i++)
            post(0, i);
        CHECK(took(0, count) && !mailbox_take(&box));
    }
    close_box();
}

/* Each time that the box has something again, one byte is written: not none, not one per entry. */
static void the_reader_is_woken_once_for_new_entries(void)
{
    open_box();
    for (int round = 0; round < 3; round++) {
        char bytes[64];

        for (int i = 0; i < 10; i++) {
            post(0, i);
            CHECK(is_readable());
        }
        CHECK(read(wake[0], bytes, sizeof bytes) == 1);
        CHECK(took(0, 10) && !is_readable());
    }
    post(0, 0);
    os_drain(wake[0]);
    post(0, 1);
    CHECK(!is_readable() && took(0, 2));
    post(0, 2);
    CHECK(is_readable() && took(2, 3));
    close_box();
}

static void a_full_pipe_loses_no_entry(void)
{
    open_box();
    fill_pipe();
    post(0, 0);
    post(0, 1);
    CHECK(is_readable() && took(0, 2));
    os_drain(wake[0]);
    CHECK(!is_readable());
    post(0, 3);
    CHECK(is_readable() && took(3, 4));
    close_box();
}

static void *post_many(void *argument)
{
    for (int i = 0; i < POSTS_EACH; i++)
        post(*(int *)argument, i);
    return NULL;
}

/* Senders post as fast as they can, the reader sleeps in poll(): each sender's entries arrive in
 * order, and no wake-up is lost. */
static void threads_post_and_one_reads(void)
{
    pthread_t threads[SENDERS];
    int names[SENDERS], next[SENDERS] = {0}, got = 0;
    bool in_order = true;

    open_box();
    for (int i = 0; i < SENDERS; i++) {
        names[i] = i;
        CHECK(pthread_create(&threads[i], NULL, post_many, &names[i]) == 0);
    }
    while (got < SENDERS * POSTS_EACH) {
        struct fifo_link *mail, *after;

        if (!CHECK(poll(&(struct pollfd){wake[0], POLLIN, 0}, 1, TIMEOUT) == 1))
            break;
        os_drain(wake[0]);
        for (mail = mailbox_take(&box); mail; mail = after, got++) {
            struct post *post = (struct post *)mail;

            after = mail->next;
            in_order = in_order && post->number == next[post->sender]++;
            free(post);
        }
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(threads[i], NULL);
    CHECK(got == SENDERS * POSTS_EACH && in_order);
    close_box();
}

/* --- the process ----------------------------------------------------------------------------- */

static void descriptors_are_raised_to_the_limit(void)
{
    struct rlimit before, low, after;

    if (!CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0))
        return;
    low = before;
    low.rlim_cur = 64;
    CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
    CHECK(os_raise_descriptors() == before.rlim_max);
    CHECK(getrlimit(RLIMIT_NOFILE, &after) == 0 && after.rlim_cur == before.rlim_max);
    setrlimit(RLIMIT_NOFILE, &before);
}

static void what_a_process_uses_is_measured(void)
{
    enum { MORE = 20, BYTES = 64 * 1024 * 1024 };
    struct os_usage before, after;
    struct rlimit limit;
    int fds[MORE];
    volatile char *memory; /* which is written to, though nobody reads it */

    os_measure(&before);
    for (int i = 0; i < MORE; i++)
        fds[i] = open("/dev/null", O_RDONLY);
    memory = malloc(BYTES);
    for (size_t i = 0; CHECK(memory) && i < BYTES; i += 1024)
        memory[i] = 1;
    os_measure(&after);
    free((void *)memory);
    for (int i = 0; i < MORE; i++)
        close(fds[i]);
    CHECK(before.cpu > 0 && after.cpu >= before.cpu);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
          after.descriptor_limit ==
              (limit.rlim_cur == RLIM_INFINITY ? 0 : (uint64_t)limit.rlim_cur));
    if (access("/proc/self/statm", R_OK) == 0)
        CHECK(before.resident > 0 && before.resident < 1 << 30 &&
              after.resident > before.resident + BYTES / 2);
    else
        CHECK(after.resident == 0);
    CHECK(after.descriptors == (before.descriptors ? before.descriptors + MORE : 0));
}

/* In a process of its own: its status tells what it has found. */
static int after_fork(int (*act)(void))
{
    int status = -1;
    pid_t child;

    fflush(stdout);
    child = fork();
    if (child == 0)
        _exit(act());
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int close_and_keep_streams(void)
{
    int fd;

    close(STDIN_FILENO);
    close(STDERR_FILENO);
    os_keep_standard_streams();
    fd = dup(STDOUT_FILENO);
    return fcntl(STDIN_FILENO, F_GETFD) >= 0 && fcntl(STDERR_FILENO, F_GETFD) >= 0 && fd > 2 ? 0
                                                                                             : 1;
}

static void closed_streams_are_opened(void)
{
    CHECK(after_fork(close_and_keep_streams) == 0);
}

static int become_nobody(void)
{
    const struct passwd *nobody = os_find_user("nobody");

    if (!nobody)
        return errno;
    if (os_become_user(nobody) != 0 || geteuid() != nobody->pw_uid || getegid() != nobody->pw_gid)
        return 101;
    errno = 0;
    return os_find_user("nobody") || errno != EPERM ? 102 : 0;
}

static void only_root_becomes_another_user(void)
{
    CHECK(after_fork(become_nobody) == (geteuid() == 0 ? 0 : EPERM));
    errno = 0;
    CHECK(!os_find_user("no such user") && errno == (geteuid() == 0 ? ENOENT : EPERM));
}

#define SOCKET_PATH_MAX sizeof(((struct sockaddr_un *)0)->sun_path)

/* A path of this length in the test's folder. */
static const char *socket_path(size_t length)
{
    static char path[200];

    memset(path, 'n', sizeof path);
    memcpy(path, root, strlen(root));
    path[strlen(root)] = '/';
    path[length] = '\0';
    return path;
}

/* Binds a non-blocking datagram socket to what NOTIFY_SOCKET will name; -1 if the system has no
 * such address. */
static int bind_notify(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    memcpy(at.sun_path, path, strlen(path));
    if (path[0] == '@')
        at.sun_path[0] = '\0';
    CHECK(fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    if (bind(fd, (struct sockaddr *)&at,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) == 0)
        return fd;
    close(fd);
    return -1;
}

/* True if this is the next datagram; NULL: there is none. */
static bool received(int fd, const char *text)
{
    char datagram[500];
    ssize_t length = recv(fd, datagram, sizeof datagram - 1, 0);

    if (length < 0)
        return !text;
    datagram[length] = '\0';
    if (text && strcmp(datagram, text) == 0)
        return true;
    printf("  received: %s\n", datagram);
    return false;
}

/* Up to the longest path that leaves room for its NUL. */
static void notifications_go_to_a_path(void)
{
    for (size_t length = SOCKET_PATH_MAX - 2; length < SOCKET_PATH_MAX + 20; length++) {
        int fd = length < SOCKET_PATH_MAX ? bind_notify(socket_path(length)) : -1;

        setenv("NOTIFY_SOCKET", socket_path(length), 1);
        os_notify("READY=1\nSTATUS=serving");
        os_notify("STOPPING=1");
        if (length < SOCKET_PATH_MAX) {
            CHECK(received(fd, "READY=1\nSTATUS=serving") && received(fd, "STOPPING=1"));
            CHECK(received(fd, NULL));
            CHECK(close(fd) == 0 && unlink(socket_path(length)) == 0);
        }
    }
}

/* The length of an abstract name is part of the address: what follows it must not be. */
static void notifications_go_to_an_abstract_name(void)
{
#ifdef __linux__
    char name[60];
    int fd;

    snprintf(name, sizeof name, "@wspush-test-%ld", (long)getpid());
    fd = bind_notify(name);
    setenv("NOTIFY_SOCKET", name, 1);
    os_notify("READY=1");
    CHECK(fd >= 0 && received(fd, "READY=1") && received(fd, NULL));
    close(fd);
#else
    printf("skip abstract names, which only Linux has\n");
#endif
}

static void other_addresses_get_no_notification(void)
{
    static const char *const wrong[] = {"", "/", "@", "nobody", "n/a", "vsock:2:1234", " /n"};
    int fd;

    CHECK(chdir(root) == 0);
    fd = bind_notify("nobody");
    for (size_t i = 0; i < COUNT(wrong); i++) {
        setenv("NOTIFY_SOCKET", wrong[i], 1);
        os_notify("READY=1");
    }
    unsetenv("NOTIFY_SOCKET");
    os_notify("READY=1");
    CHECK(fd >= 0 && received(fd, NULL));
    close(fd);
    CHECK(unlink("nobody") == 0 && chdir("/") == 0);
}

static int next_descriptor(void)
{
    int fd = dup(STDOUT_FILENO);

    close(fd);
    return fd;
}

/* No socket, no reader, not a socket, a full one: os_notify neither blocks nor leaks. */
static void notify_never_waits(void)
{
    int before = next_descriptor(), fd;

    setenv("NOTIFY_SOCKET", socket_path(80), 1);
    os_notify("READY=1");
    fd = bind_notify(socket_path(80));
    alarm(20);
    for (int i = 0; i < 5000; i++)
        os_notify("STATUS=again");
    alarm(0);
    CHECK(received(fd, "STATUS=again"));
    close(fd);
    os_notify("READY=1");
    CHECK(unlink(socket_path(80)) == 0);
    setenv("NOTIFY_SOCKET", root, 1);
    os_notify("READY=1");
    CHECK(next_descriptor() == before);
}

static void reloading_sends_the_time(void)
{
    char text[200] = "";
    long long before, sent;
    int fd = bind_notify(socket_path(80));

    setenv("NOTIFY_SOCKET", socket_path(80), 1);
    before = os_now_us();
    os_notify_reloading();
    CHECK(recv(fd, text, sizeof text - 1, 0) > 0);
    CHECK(strncmp(text, "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
    CHECK(strspn(text + 27, "0123456789") == strlen(text + 27));
    sent = strtoll(text + 27, NULL, 10);
    CHECK(sent >= before && sent <= os_now_us());
    close(fd);
    CHECK(unlink(socket_path(80)) == 0);
}

static void nothing_is_left(void)
{
    CHECK(names_left() == 0 && rmdir(root) == 0);
}

int main(void)
{
    snprintf(root, sizeof root, "/tmp/wspush-test-os-XXXXXX");
    if (!mkdtemp(root))
        return 1;
    test_run("files are read whole", files_are_read_whole);
    test_run("reading keeps the limit", reading_keeps_the_limit);
    test_run("read errors are returned", read_errors_are_returned);
    test_run("files are replaced", files_are_replaced);
    test_run("replaced files are for the owner", replaced_files_are_for_the_owner);
    test_run("the old file is never written", the_old_file_is_never_written);
    test_run("names are shorter than 64", names_are_shorter_than_64);
    test_run("a failed replace changes nothing", a_failed_replace_changes_nothing);
    test_run("a full disk leaves the old file", a_full_disk_leaves_the_old_file);
    test_run("files are appended to", files_are_appended_to);
    test_run("append errors are returned", append_errors_are_returned);
    test_run("files are truncated", files_are_truncated);
    test_run("a full disk leaves no part of a line", a_full_disk_leaves_no_part_of_a_line);
    test_run("directories are made", directories_are_made);
    test_run("a lock excludes other processes until exit",
             a_lock_excludes_other_processes_until_exit);
    test_run("lock errors are returned", lock_errors_are_returned);
    test_run("checks say what could be written", checks_say_what_could_be_written);
    test_run("the clock counts monotonic time", the_clock_counts_monotonic_time);
    test_run("threads get no signals", threads_get_no_signals);
    test_run("backoff grows to its limit and varies", backoff_grows_to_its_limit_and_varies);
    test_run("wake pipes do not block", wake_pipes_do_not_block);
    test_run("entries are taken oldest first", entries_are_taken_oldest_first);
    test_run("the reader is woken once for new entries", the_reader_is_woken_once_for_new_entries);
    test_run("a full pipe loses no entry", a_full_pipe_loses_no_entry);
    test_run("threads post and one reads", threads_post_and_one_reads);
    test_run("descriptors are raised to the limit", descriptors_are_raised_to_the_limit);
    test_run("what a process uses is measured", what_a_process_uses_is_measured);
    test_run("closed streams are opened", closed_streams_are_opened);
    test_run("only root becomes another user", only_root_becomes_another_user);
    test_run("notifications go to a path", notifications_go_to_a_path);
    test_run("notifications go to an abstract name", notifications_go_to_an_abstract_name);
    test_run("other addresses get no notification", other_addresses_get_no_notification);
    test_run("notify never waits", notify_never_waits);
    test_run("reloading sends the time", reloading_sends_the_time);
    test_run("nothing is left", nothing_is_left);
    return test_finish();
}
