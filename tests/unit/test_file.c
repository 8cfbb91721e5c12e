/* test_file.c - tests reading, replacing and locking of small files in a directory of their own. */
#include "file.h"
#include "test.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char root[200];

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

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct str bytes = {many_bytes().at, sizes[i]};
        struct buf out = {0};

        put_file("some", bytes, 0600);
        CHECK(buf_append(&out, STR("before ")));
        CHECK(file_read(path_of("some"), &out) == 0 && out.length == 7 + sizes[i]);
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

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct str bytes = {many_bytes().at, cases[i].size};
        struct buf out = {.limit = cases[i].limit};

        put_file("some", bytes, 0600);
        if (!CHECK(file_read(path_of("some"), &out) == cases[i].error))
            printf("  in case %zu\n", i);
        if (cases[i].error == 0)
            CHECK(str_equal(str_of(&out), bytes) && !out.failed);
        CHECK(out.length <= cases[i].limit);
        buf_free(&out);
    }
    unlink(path_of("some"));
}

static void what_cannot_be_read_is_told(void)
{
    struct buf out = {0};

    CHECK(file_read(path_of("missing"), &out) == ENOENT);
    CHECK(file_read(path_of("missing/some"), &out) == ENOENT);
    CHECK(file_read(root, &out) == EISDIR);
    put_file("some", STR("x"), 0600);
    CHECK(file_read(path_of("some/below"), &out) == ENOTDIR);
    CHECK(out.length == 0);
    unlink(path_of("some"));
    buf_free(&out);
}

static void files_are_replaced(void)
{
    static const size_t sizes[] = {10, 20000, 3, 0, 4096};

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct str bytes = {many_bytes().at, sizes[i]};

        CHECK(file_replace(root, "accounts", bytes) == 0 && file_holds("accounts", bytes));
        CHECK(mode_of("accounts") == 0600 && names_left() == 1);
    }
    CHECK(file_replace(root, "accounts", (struct str){NULL, 0}) == 0);
    CHECK(file_holds("accounts", STR("")));
    unlink(path_of("accounts"));
}

/* Whatever was there before, the new file is for the owner alone. */
static void replaced_files_are_for_the_owner(void)
{
    mode_t mask = umask(0);

    put_file("accounts", STR("old"), 0644);
    CHECK(file_replace(root, "accounts", STR("new")) == 0 && mode_of("accounts") == 0600);
    put_file("accounts.new", STR("left by a crash, and longer than the next"), 0666);
    CHECK(file_replace(root, "accounts", STR("newer")) == 0 && mode_of("accounts") == 0600);
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
    CHECK(file_replace(root, "accounts", STR("NEW")) == 0);
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
    CHECK(file_replace(root, name, STR("new")) == ENAMETOOLONG);
    CHECK(file_holds(name, STR("old")) && names_left() == 1);
    unlink(path_of(name));
    name[63] = '\0';
    CHECK(file_replace(root, name, STR("new")) == 0 && file_holds(name, STR("new")));
    CHECK(names_left() == 1);
    unlink(path_of(name));
}

static void a_failed_replace_changes_nothing(void)
{
    char other[4096];

    put_file("accounts", STR("old"), 0600);
    snprintf(other, sizeof other, "%s/missing", root);
    CHECK(file_replace(other, "accounts", STR("new")) == ENOENT);
    snprintf(other, sizeof other, "%s/accounts", root);
    CHECK(file_replace(other, "accounts", STR("new")) == ENOTDIR);
    CHECK(file_replace(root, "missing/accounts", STR("new")) == ENOENT);
    CHECK(file_holds("accounts", STR("old")) && names_left() == 1);
    /* written, but it cannot take its name: what was written beside is gone again */
    CHECK(mkdir(path_of("folder"), 0700) == 0);
    CHECK(file_replace(root, "folder", STR("new")) != 0);
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
    error = file_replace(root, "accounts", many_bytes());
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, SIG_DFL);
    CHECK(error == EFBIG);
    CHECK(file_holds("accounts", STR("old")) && names_left() == 1);
    unlink(path_of("accounts"));
}

/* Appends, and sees that the file holds this then. */
static void append_and_see(struct str bytes, size_t limit, int error, struct str expected)
{
    size_t before = 77;

    CHECK(file_append(path_of("accounts"), bytes, limit, &before) == error);
    CHECK(file_holds("accounts", expected));
    CHECK(error || before == expected.length - bytes.length);
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
static void what_cannot_be_appended_to_is_told(void)
{
    size_t before;

    CHECK(file_append(path_of("missing"), STR("x"), 100, &before) == ENOENT);
    CHECK(file_append(path_of("missing/some"), STR("x"), 100, &before) == ENOENT);
    CHECK(file_append(root, STR("x"), 100, &before) == EISDIR);
    CHECK(file_cut(path_of("missing"), 0) == ENOENT && file_cut(root, 0) == EISDIR);
    CHECK(names_left() == 0);
}

static void files_are_cut(void)
{
    put_file("accounts", STR("one\ntwo\n"), 0600);
    CHECK(file_cut(path_of("accounts"), 8) == 0 && file_holds("accounts", STR("one\ntwo\n")));
    CHECK(file_cut(path_of("accounts"), 4) == 0 && file_holds("accounts", STR("one\n")));
    CHECK(file_cut(path_of("accounts"), 0) == 0 && file_holds("accounts", STR("")));
    unlink(path_of("accounts"));
}

/* At whatever byte the disk is full, the file stays as it was, and the next append is whole. */
static void a_full_disk_leaves_no_part_of_a_line(void)
{
    struct str old = STR("the old line\n"), line = STR("the new line\n");
    struct rlimit before, small;
    size_t length;

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
        error = file_append(path_of("accounts"), line, 100, &length);
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

    CHECK(file_make_directory(path_of("data")) == 0 && mode_of("data") == 0700);
    CHECK(file_make_directory(path_of("data")) == 0);
    CHECK(chmod(path_of("data"), 0755) == 0 && file_make_directory(path_of("data")) == 0);
    CHECK(file_make_directory(path_of("data/inner")) == 0 && mode_of("data/inner") == 0700);
    CHECK(file_make_directory(path_of("missing/data")) == ENOENT);
    put_file("plain", STR("x"), 0600);
    CHECK(file_make_directory(path_of("plain")) == ENOTDIR && file_holds("plain", STR("x")));
    CHECK(file_make_directory(path_of("plain/data")) == ENOTDIR);
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
        error = file_lock(root, "lock");
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

static void a_lock_keeps_others_out_until_the_end(void)
{
    int first[2], second[2], third[2], got = -1;
    pid_t child = lock_elsewhere(first, &got), other;

    CHECK(got == 0 && mode_of("lock") == 0600);
    CHECK(file_lock(root, "lock") == EAGAIN);
    CHECK(file_lock(root, "lock") == EAGAIN);
    other = lock_elsewhere(second, &got);
    CHECK(got == EAGAIN);
    end_process(other, second);
    end_process(child, first);

    CHECK(file_lock(root, "lock") == 0);
    other = lock_elsewhere(third, &got);
    CHECK(got == EAGAIN);
    end_process(other, third);
    unlink(path_of("lock"));
}

static void what_cannot_be_locked_is_told(void)
{
    char long_name[5000];

    memset(long_name, 'n', sizeof long_name);
    long_name[sizeof long_name - 1] = '\0';
    CHECK(file_lock(path_of("missing"), "lock") == ENOENT);
    CHECK(file_lock(root, long_name) == ENAMETOOLONG);
    CHECK(mkdir(path_of("lock"), 0700) == 0);
    CHECK(file_lock(root, "lock") == EISDIR);
    rmdir(path_of("lock"));
}

/* What can be known without writing; for root everything may be written. */
static void tests_say_what_could_be_written(void)
{
    uid_t owner = (uid_t)-1;

    put_file("there", STR("x"), 0600);
    mkdir(path_of("folder"), 0700);
    mkfifo(path_of("fifo"), 0600);
    CHECK(file_test_append(path_of("there")) == 0 && file_holds("there", STR("x")));
    CHECK(file_test_append(path_of("new")) == 0 && access(path_of("new"), F_OK) != 0);
    CHECK(file_test_append(path_of("folder")) == EISDIR);
    CHECK(file_test_append(path_of("folder/new")) == 0);
    CHECK(file_test_append(path_of("none/new")) == ENOENT);
    CHECK(file_test_append(path_of("there/new")) == ENOTDIR);
    CHECK(file_test_append(path_of("fifo")) == ENXIO);
    CHECK(file_test_append("/new-file-of-nobody") == (access("/", W_OK) == 0 ? 0 : errno));
    CHECK(file_test_create(path_of("there")) == 0 && file_test_create(path_of("none/x")) == ENOENT);
    CHECK(file_test_create(path_of("folder///")) == 0 && file_test_create("here") == 0);
    if (geteuid() != 0) {
        chmod(path_of("there"), 0400);
        chmod(path_of("folder"), 0500);
        CHECK(file_test_append(path_of("there")) == EACCES);
        CHECK(file_test_append(path_of("folder/new")) == EACCES);
    }
    CHECK(file_test_directory(path_of("folder"), &owner) == 0 && owner == geteuid());
    CHECK(file_test_directory(path_of("there"), &owner) == ENOTDIR);
    CHECK(file_test_directory(path_of("none"), &owner) == ENOENT);
    unlink(path_of("there"));
    unlink(path_of("fifo"));
    rmdir(path_of("folder"));
}

static void nothing_is_left(void)
{
    CHECK(names_left() == 0 && rmdir(root) == 0);
}

int main(void)
{
    const char *parent = getenv("TMPDIR");

    snprintf(root, sizeof root, "%s/wspush-test-file-XXXXXX", parent && *parent ? parent : "/tmp");
    if (!mkdtemp(root))
        return 1;
    test_run("files_are_read_whole", files_are_read_whole);
    test_run("reading_keeps_the_limit", reading_keeps_the_limit);
    test_run("what_cannot_be_read_is_told", what_cannot_be_read_is_told);
    test_run("files_are_replaced", files_are_replaced);
    test_run("replaced_files_are_for_the_owner", replaced_files_are_for_the_owner);
    test_run("the_old_file_is_never_written", the_old_file_is_never_written);
    test_run("names_are_shorter_than_64", names_are_shorter_than_64);
    test_run("a_failed_replace_changes_nothing", a_failed_replace_changes_nothing);
    test_run("a_full_disk_leaves_the_old_file", a_full_disk_leaves_the_old_file);
    test_run("files_are_appended_to", files_are_appended_to);
    test_run("what_cannot_be_appended_to_is_told", what_cannot_be_appended_to_is_told);
    test_run("files_are_cut", files_are_cut);
    test_run("a_full_disk_leaves_no_part_of_a_line", a_full_disk_leaves_no_part_of_a_line);
    test_run("directories_are_made", directories_are_made);
    test_run("a_lock_keeps_others_out_until_the_end", a_lock_keeps_others_out_until_the_end);
    test_run("what_cannot_be_locked_is_told", what_cannot_be_locked_is_told);
    test_run("tests_say_what_could_be_written", tests_say_what_could_be_written);
    test_run("nothing_is_left", nothing_is_left);
    return test_finish();
}
