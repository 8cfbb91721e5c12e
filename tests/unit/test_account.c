/* test_account.c - account.c: who is registered stays so, on the disk, and only with its password;
 * and the same of a store that many nodes share, as far as it can be reached. */
#include "account.h"
#include "os.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define QUICK 10      /* iterations: these passwords guard nothing */
#define TIMEOUT 10000 /* milliseconds after which a test gives up */
#define MOMENT 20     /* milliseconds in which something wrong would have happened */

#define SALT "000102030405060708090a0b0c0d0e0f"
#define HASH "c98afd11b17f19d03a6704e392ecdab86b859c6f0386216ead15d04c10281895"
#define PASSWORD "p\xc3\xa4ssword \xf0\x9f\x94\x91" /* what HASH is of, at 1,000 iterations */
#define LINE(name) "pbkdf2-sha256 1000 " SALT " " HASH " " name "\n"

/* Accounts in a folder of their own. */
struct fixture {
    char folder[PATH_MAX / 2];
    int wake[2];
    struct accounts *accounts;
    uint64_t request_id; /* the last one used */
    char error[PATH_MAX];
};

/* A path in the fixture's folder, until the next call. */
static const char *path_of(const struct fixture *fixture, const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", fixture->folder, name);
    return path;
}

static bool open_accounts(struct fixture *fixture, unsigned iterations)
{
    account_close(fixture->accounts);
    fixture->accounts = account_open(fixture->folder, fixture->wake[1], iterations, fixture->error,
                                     sizeof fixture->error);
    return fixture->accounts;
}

static void fixture_open(struct fixture *fixture, unsigned iterations)
{
    const char *parent = getenv("TMPDIR");

    *fixture = (struct fixture){.request_id = UINT64_MAX / 2};
    snprintf(fixture->folder, sizeof fixture->folder, "%s/wspush-account-XXXXXX",
             parent && *parent ? parent : "/tmp");
    CHECK(mkdtemp(fixture->folder));
    CHECK(pipe(fixture->wake) == 0);
    for (int i = 0; i < 2; i++)
        fcntl(fixture->wake[i], F_SETFL, O_NONBLOCK);
    CHECK(open_accounts(fixture, iterations));
}

static void fixture_close(struct fixture *fixture)
{
    account_close(fixture->accounts);
    close(fixture->wake[0]);
    close(fixture->wake[1]);
    unlink(path_of(fixture, "accounts"));
    CHECK(rmdir(fixture->folder) == 0); /* nothing else is in it */
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Waits for the wake pipe and takes a result. */
static bool await_result(struct fixture *fixture, struct account_result *result)
{
    int64_t until = now() + TIMEOUT, left;

    while (!account_take_result(fixture->accounts, result)) {
        struct pollfd wake = {.fd = fixture->wake[0], .events = POLLIN};
        char bytes[64];

        left = until - now();
        if (left <= 0 || poll(&wake, 1, (int)left) <= 0)
            return false;
        while (read(fixture->wake[0], bytes, sizeof bytes) > 0)
            ;
    }
    return true;
}

static enum account_submission submission_of(struct fixture *fixture,
                                             struct account_request request)
{
    request.request_id = ++fixture->request_id;
    return account_submit(fixture->accounts, &request);
}

static bool submit_from(struct fixture *fixture, uint32_t origin, enum account_job_kind kind,
                        struct str name, struct str password)
{
    return submission_of(fixture,
                         (struct account_request){
                             .kind = kind, .origin = origin, .name = name, .password = password}) ==
           ACCOUNT_SUBMITTED;
}

static bool submit(struct fixture *fixture, enum account_job_kind kind, struct str name,
                   struct str password)
{
    return submit_from(fixture, 0, kind, name, password);
}

/* Has one job done and checks that the result is that job's. */
static struct account_result ask(struct fixture *fixture, enum account_job_kind kind,
                                 struct str name, struct str password)
{
    struct account_result result = {.outcome = ACCOUNT_FAILED};

    CHECK(submit(fixture, kind, name, password));
    CHECK(await_result(fixture, &result));
    CHECK(result.request_id == fixture->request_id && result.kind == kind);
    CHECK(str_equal((struct str){result.name, result.name_length}, name));
    return result;
}

static bool registers(struct fixture *fixture, struct str name, struct str password)
{
    return ask(fixture, ACCOUNT_REGISTER, name, password).outcome == ACCOUNT_DONE;
}

/* Logs in, and sees that the outcome is one of the two there are. */
static bool logs_in(struct fixture *fixture, struct str name, struct str password)
{
    enum account_outcome outcome = ask(fixture, ACCOUNT_LOGIN, name, password).outcome;

    CHECK(outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED);
    return outcome == ACCOUNT_DONE;
}

/* Writes the accounts file as a person might. */
static void write_file(const struct fixture *fixture, struct str text)
{
    FILE *file = fopen(path_of(fixture, "accounts"), "w");

    CHECK(file && fwrite(text.at, 1, text.length, file) == text.length);
    if (file)
        fclose(file);
}

static struct buf read_file(const struct fixture *fixture)
{
    struct buf text = {0};

    CHECK(os_read_file(path_of(fixture, "accounts"), &text) == 0);
    return text;
}

static bool holds(struct buf *text, struct str part)
{
    for (size_t i = 0; i + part.length <= text->length; i++)
        if (memcmp(text->at + i, part.at, part.length) == 0)
            return true;
    return false;
}

static void registers_and_logs_in(void)
{
    struct fixture fixture;

    fixture_open(&fixture, QUICK);
    CHECK(!account_exists(fixture.accounts, STR("shop")));
    CHECK(!logs_in(&fixture, STR("shop"), STR("secret")));
    CHECK(registers(&fixture, STR("shop"), STR("secret")));
    CHECK(account_exists(fixture.accounts, STR("shop")));
    CHECK(!account_exists(fixture.accounts, STR("shops")));
    CHECK(!account_exists(fixture.accounts, STR("sho")));
    CHECK(!account_exists(fixture.accounts, (struct str){0}));
    CHECK(logs_in(&fixture, STR("shop"), STR("secret")));
    CHECK(!logs_in(&fixture, STR("shop"), STR("Secret")));
    CHECK(!logs_in(&fixture, STR("Shop"), STR("secret")));
    CHECK(ask(&fixture, ACCOUNT_REGISTER, STR("shop"), STR("other")).outcome == ACCOUNT_EXISTS);
    CHECK(logs_in(&fixture, STR("shop"), STR("secret")));
    CHECK(!logs_in(&fixture, STR("shop"), STR("other")));
    fixture_close(&fixture);
}

/* Of one kind; and neither kind waits for all jobs of the other. */
static void results_come_in_order(void)
{
    struct fixture fixture;
    struct account_result result;
    static const struct {
        enum account_job_kind kind;
        struct str name, password;
        enum account_outcome outcome;
    } jobs[] = {
        {ACCOUNT_LOGIN, STR_INIT("a"), STR_INIT("0"), ACCOUNT_DENIED},
        {ACCOUNT_REGISTER, STR_INIT("a"), STR_INIT("1"), ACCOUNT_DONE},
        {ACCOUNT_LOGIN, STR_INIT("a"), STR_INIT("1"), ACCOUNT_DONE},
        {ACCOUNT_REGISTER, STR_INIT("a"), STR_INIT("2"), ACCOUNT_EXISTS},
        {ACCOUNT_LOGIN, STR_INIT("a"), STR_INIT("2"), ACCOUNT_DENIED},
        {ACCOUNT_REGISTER, STR_INIT("b"), STR_INIT("2"), ACCOUNT_DONE},
        {ACCOUNT_LOGIN, STR_INIT("b"), STR_INIT("2"), ACCOUNT_DONE},
        {ACCOUNT_LOGIN, STR_INIT("b"), STR_INIT("3"), ACCOUNT_DENIED},
        {ACCOUNT_LOGIN, STR_INIT("b"), STR_INIT("4"), ACCOUNT_DENIED},
    };
    const size_t count = COUNT(jobs);

    fixture_open(&fixture, 20000); /* long enough to submit all while the first is done */
    CHECK(!account_take_result(fixture.accounts, &result));
    for (size_t i = 0; i < count; i++)
        CHECK(submit(&fixture, jobs[i].kind, jobs[i].name, jobs[i].password));
    for (size_t i = 0; i < count && CHECK(await_result(&fixture, &result)); i++) {
        CHECK(result.request_id == fixture.request_id - count + 1 + i);
        CHECK(result.kind == jobs[i].kind && result.outcome == jobs[i].outcome);
        CHECK(str_equal((struct str){result.name, result.name_length}, jobs[i].name));
    }
    CHECK(!account_take_result(fixture.accounts, &result));
    fixture_close(&fixture);
}

/* Every kind of byte that a name may have, and what a careless file format would trip over. */
static const struct str names[] = {
    STR_INIT("x"),
    STR_INIT("two words"),
    STR_INIT("  two  before and after  "),
    STR_INIT("#1"),
    STR_INIT("shop #2 # wspush"),
    STR_INIT("\"quoted\" 'names' `here`"),
    STR_INIT("back\\slash\\n"),
    STR_INIT("100%s %n {} <&> ; = , / . .."),
    STR_INIT("pbkdf2-sha256 1 2 3 4"),
    STR_INIT("\xc3\xbc\xd0\xb6\xe5\x95\x86\xe5\xba\x97 \xf0\x9f\x9b\x92"),
    STR_INIT("\xc2\xa0\xe2\x80\xa8\xef\xbb\xbf\xf4\x8f\xbf\xbf"),
    STR_INIT("1234567812345678123456781234567812345678123456781234567812345678"
             "1234567812345678123456781234567812345678123456781234567812345678"),
};

#define NAMES (sizeof names / sizeof *names)

static void names_of_every_kind_survive(void)
{
    struct fixture fixture;

    fixture_open(&fixture, QUICK);
    for (size_t i = 0; i < NAMES; i++)
        CHECK(registers(&fixture, names[i], names[NAMES - 1 - i]));
    for (int again = 0; again < 2; again++) {
        CHECK(open_accounts(&fixture, QUICK));
        for (size_t i = 0; i < NAMES; i++) {
            CHECK(account_exists(fixture.accounts, names[i]));
            CHECK(logs_in(&fixture, names[i], names[NAMES - 1 - i]));
            CHECK(!logs_in(&fixture, names[i], names[i]));
        }
        CHECK(!account_exists(fixture.accounts, STR("two")));
        CHECK(!account_exists(fixture.accounts, STR("two  before and after")));
        CHECK(registers(&fixture, again ? STR("later") : STR("late"), STR("p")));
    }
    fixture_close(&fixture);
}

static void passwords_are_any_bytes(void)
{
    struct fixture fixture;
    char password[ACCOUNT_PASSWORD_MAX + 1];
    struct str whole = {password, ACCOUNT_PASSWORD_MAX};

    for (size_t i = 0; i < sizeof password; i++)
        password[i] = (char)i;
    fixture_open(&fixture, QUICK);
    CHECK(registers(&fixture, STR("all"), whole));
    CHECK(logs_in(&fixture, STR("all"), whole));
    CHECK(!logs_in(&fixture, STR("all"), (struct str){password, ACCOUNT_PASSWORD_MAX - 1}));
    CHECK(!logs_in(&fixture, STR("all"), (struct str){password, 1}));
    password[ACCOUNT_PASSWORD_MAX - 1] ^= 1;
    CHECK(!logs_in(&fixture, STR("all"), whole));
    fixture_close(&fixture);
}

static void refuses_what_is_too_long(void)
{
    struct fixture fixture;
    char many[ACCOUNT_PASSWORD_MAX + 1];

    memset(many, 'm', sizeof many);
    fixture_open(&fixture, QUICK);
    CHECK(!submit(&fixture, ACCOUNT_REGISTER, (struct str){many, ACCOUNT_NAME_MAX + 1}, STR("p")));
    CHECK(!submit(&fixture, ACCOUNT_LOGIN, STR("n"), (struct str){many, ACCOUNT_PASSWORD_MAX + 1}));
    CHECK(registers(&fixture, (struct str){many, ACCOUNT_NAME_MAX}, STR("p")));
    fixture_close(&fixture);
}

static bool is_hex(struct str text, size_t length)
{
    for (size_t i = 0; i < text.length; i++)
        if (!memchr("0123456789abcdef", text.at[i], 16))
            return false;
    return text.length == length;
}

static void the_file_tells_no_password(void)
{
    struct fixture fixture;
    struct buf text;
    struct str rest, line[3];
    struct stat status;

    fixture_open(&fixture, QUICK);
    CHECK(stat(path_of(&fixture, "accounts"), &status) != 0 && errno == ENOENT);
    CHECK(registers(&fixture, STR("first"), STR("the password")));
    CHECK(registers(&fixture, STR("second"), STR("the password")));
    CHECK(stat(path_of(&fixture, "accounts"), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    text = read_file(&fixture);
    CHECK(!holds(&text, STR("the password")));
    rest = str_of(&text);
    for (int i = 0; i < 3; i++)
        line[i] = str_cut(&rest, '\n');
    CHECK(rest.length == 0 && line[0].length > 0 && line[0].at[0] == '#');
    for (int i = 1; i < 3; i++) {
        CHECK(str_equal(str_cut(&line[i], ' '), STR("pbkdf2-sha256")));
        CHECK(str_equal(str_cut(&line[i], ' '), STR("10")));
    }
    for (size_t length = 32; length <= 64; length *= 2) { /* salt and hash */
        struct str first = str_cut(&line[1], ' '), second = str_cut(&line[2], ' ');

        CHECK(is_hex(first, length) && is_hex(second, length));
        CHECK(!str_equal(first, second));
    }
    CHECK(str_equal(line[1], STR("first")) && str_equal(line[2], STR("second")));
    buf_free(&text);
    fixture_close(&fixture);
}

static void reads_a_file_of_another_time(void)
{
    struct fixture fixture;
    struct buf text;

    fixture_open(&fixture, QUICK);
    write_file(&fixture, STR("\n# a note\n" LINE("old shop") "\n#" LINE("not this") LINE("b")));
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(account_exists(fixture.accounts, STR("old shop")));
    CHECK(account_exists(fixture.accounts, STR("b")));
    CHECK(!account_exists(fixture.accounts, STR("not this")));
    CHECK(logs_in(&fixture, STR("old shop"), STR(PASSWORD)));
    CHECK(!logs_in(&fixture, STR("old shop"), STR("password")));
    /* what people wrote into it stays */
    CHECK(registers(&fixture, STR("new"), STR("p")));
    text = read_file(&fixture);
    CHECK(holds(&text, STR("\n# a note\n" LINE("old shop") "\n#" LINE("not this") LINE("b"))));
    buf_free(&text);
    fixture_close(&fixture);
}

/* Writes a file of which a crash has left this, opens it, and registers one more. */
static void open_torn(struct fixture *fixture, struct str text, bool has_two)
{
    size_t whole = has_two ? text.length : strlen(LINE("one"));
    struct buf torn = {0}, after;

    write_file(fixture, text);
    unlink(path_of(fixture, "accounts.torn"));
    CHECK(open_accounts(fixture, QUICK));
    CHECK(account_exists(fixture->accounts, STR("one")));
    CHECK(account_exists(fixture->accounts, STR("two or so")) == has_two);
    CHECK(!account_exists(fixture->accounts, STR("two")));
    after = read_file(fixture);
    CHECK(str_equal(str_of(&after), (struct str){text.at, whole}));
    if (whole < text.length) {
        CHECK(strstr(fixture->error, "torn"));
        CHECK(os_read_file(path_of(fixture, "accounts.torn"), &torn) == 0);
        CHECK(str_equal(str_of(&torn), (struct str){text.at + whole, text.length - whole}));
    } else {
        CHECK(fixture->error[0] == '\0' && access(path_of(fixture, "accounts.torn"), F_OK) != 0);
    }
    CHECK(registers(fixture, STR("two or so"), STR("2")) == !has_two);
    CHECK(registers(fixture, STR("three"), STR("3")));
    CHECK(open_accounts(fixture, QUICK) && fixture->error[0] == '\0');
    CHECK(logs_in(fixture, STR("three"), STR("3")));
    CHECK(has_two || logs_in(fixture, STR("two or so"), STR("2")));
    buf_free(&torn);
    buf_free(&after);
}

/* A power cut may leave any part of the line that was being appended, or zeros: what was whole
 * before is there, and what was torn has not happened. What is left of a name is no name. */
static void a_torn_line_has_not_happened(void)
{
    struct fixture fixture;
    struct str text = STR(LINE("one") LINE("two or so"));
    size_t one = strlen(LINE("one"));
    char zeros[sizeof LINE("one") LINE("two or so")];

    fixture_open(&fixture, QUICK);
    for (size_t length = one; length <= text.length; length++) {
        open_torn(&fixture, (struct str){text.at, length}, length == text.length);
        memset(zeros, 0, sizeof zeros);
        memcpy(zeros, text.at, length);
        if (length < text.length)
            open_torn(&fixture, (struct str){zeros, text.length}, false);
    }
    write_file(&fixture, STR("")); /* an empty file is a file of no accounts */
    unlink(path_of(&fixture, "accounts.torn"));
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(!account_exists(fixture.accounts, STR("two")));
    CHECK(registers(&fixture, STR("four"), STR("4")));
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(logs_in(&fixture, STR("four"), STR("4")));
    fixture_close(&fixture);
}

/* A file that cannot be mended stays, and no server starts with it. */
static void a_torn_line_that_stays_is_told(void)
{
    struct fixture fixture;
    struct str text = STR(LINE("one") "half a li");
    struct buf after;

    fixture_open(&fixture, QUICK);
    write_file(&fixture, text);
    CHECK(mkdir(path_of(&fixture, "accounts.torn"), 0700) == 0);
    CHECK(!open_accounts(&fixture, QUICK) && strstr(fixture.error, "cannot be moved"));
    after = read_file(&fixture);
    CHECK(str_equal(str_of(&after), text));
    buf_free(&after);
    CHECK(rmdir(path_of(&fixture, "accounts.torn")) == 0);
    fixture_close(&fixture);
}

#define METHOD "pbkdf2-sha256"
#define X32 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* Lines that are refused, and a word that their complaint must have. */
static const struct {
    struct str line;
    const char *word;
} damages[] = {
    {STR_INIT("pbkdf2-sha512 1000 " SALT " " HASH " n"), "method"},
    {STR_INIT("PBKDF2-SHA256 1000 " SALT " " HASH " n"), "method"},
    {STR_INIT(" " METHOD " 1000 " SALT " " HASH " n"), "method"},
    {STR_INIT("n"), "method"},
    {STR_INIT("\0\0\0"), "method"},
    {STR_INIT("\r"), "method"},
    {STR_INIT(METHOD), "iterations"},
    {STR_INIT(METHOD " "), "iterations"},
    {STR_INIT(METHOD "  " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 0 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " -1 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " +1 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 1e3 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 2147483648 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 18446744073709551617 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 1000"), ""},
    {STR_INIT(METHOD " 1000 " SALT), ""},
    {STR_INIT(METHOD " 1000  " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 " SALT "0 " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 0" SALT "0 " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 " X32 " " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 000102030405060708090A0B0C0D0E0F " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 " SALT "  n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " SALT " n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " X32 X32 " n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH "00 n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH), "name"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH " "), "name"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH " good"), "twice"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH " " X32 X32 X32 X32 "x"), "name"},
};

static void names_the_line_that_is_damaged(void)
{
    struct fixture fixture;
    char expected[PATH_MAX];

    fixture_open(&fixture, QUICK);
    snprintf(expected, sizeof expected, "%s/accounts:4: ", fixture.folder);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct buf text = {0};

        buf_append(&text, STR("# header\n" LINE("good") "\n"));
        buf_append(&text, damages[i].line);
        buf_append(&text, i % 2 ? STR("\n" LINE("behind")) : STR("\n"));
        write_file(&fixture, str_of(&text));
        buf_free(&text);
        CHECK(!open_accounts(&fixture, QUICK));
        CHECK(strncmp(fixture.error, expected, strlen(expected)) == 0);
        if (!CHECK(strlen(fixture.error) > strlen(expected) &&
                   strstr(fixture.error + strlen(expected), damages[i].word)))
            printf("     %s\n", fixture.error);
    }
    fixture_close(&fixture);
}

static void says_why_it_cannot_read(void)
{
    struct fixture fixture;
    char little[8];

    fixture_open(&fixture, QUICK);
    CHECK(mkdir(path_of(&fixture, "accounts"), 0700) == 0);
    CHECK(!open_accounts(&fixture, QUICK));
    CHECK(strstr(fixture.error, path_of(&fixture, "accounts")));
    CHECK(strstr(fixture.error, strerror(EISDIR)));
    memset(little, '!', sizeof little);
    CHECK(!account_open(fixture.folder, fixture.wake[1], QUICK, little, 4));
    CHECK(strlen(little) == 3 && little[4] == '!');
    CHECK(rmdir(path_of(&fixture, "accounts")) == 0);
    account_close(NULL);
    fixture_close(&fixture);
}

static void iterations_are_the_files(void)
{
    struct fixture fixture;
    struct buf text;

    fixture_open(&fixture, QUICK);
    CHECK(registers(&fixture, STR("few"), STR("p")));
    CHECK(open_accounts(&fixture, 5 * QUICK));
    CHECK(registers(&fixture, STR("more"), STR("p")));
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(logs_in(&fixture, STR("few"), STR("p")));
    CHECK(logs_in(&fixture, STR("more"), STR("p")));
    text = read_file(&fixture);
    CHECK(holds(&text, STR("\n" METHOD " 10 ")) && holds(&text, STR("\n" METHOD " 50 ")));
    buf_free(&text);
    fixture_close(&fixture);
}

/* Whether a name is registered must not show in the time that a refusal takes. */
static void an_unknown_name_costs_the_same(void)
{
    struct fixture fixture;
    clock_t known, unknown;

    fixture_open(&fixture, 50000);
    CHECK(registers(&fixture, STR("known"), STR("p")));
    known = clock();
    CHECK(!logs_in(&fixture, STR("known"), STR("wrong")));
    unknown = clock();
    CHECK(!logs_in(&fixture, STR("unknown"), STR("wrong")));
    known = unknown - known;
    unknown = clock() - unknown;
    CHECK(unknown > known / 4 && known > unknown / 4);
    fixture_close(&fixture);
}

/* Registrations have a small share of the places, and logins the others; while one kind has none
 * left, the other has all of its own. */
static void a_full_queue_refuses(void)
{
    struct fixture fixture;
    struct account_result result;
    int64_t until = now() + TIMEOUT;
    int registrations = 0, logins = 0;
    char name[24] = "slow";

    fixture_open(&fixture, 100000); /* long enough to fill the queue meanwhile */
    while (registrations <= 1000 && submit(&fixture, ACCOUNT_REGISTER, STR("slow"), STR("p")))
        registrations++;
    /* the worker may have taken one already */
    CHECK(registrations == ACCOUNT_REGISTRATIONS_MAX ||
          registrations == ACCOUNT_REGISTRATIONS_MAX + 1);
    for (; logins <= 1000 && submit(&fixture, ACCOUNT_LOGIN, str_from(name), STR("p")); logins++)
        snprintf(name, sizeof name, "slow %d", logins);
    CHECK(logins >= ACCOUNT_LOGINS_MAX && logins <= ACCOUNT_LOGINS_MAX + 2);
    do
        CHECK(await_result(&fixture, &result));
    while (result.outcome != ACCOUNT_DONE && now() < until);
    while (!submit(&fixture, ACCOUNT_LOGIN, STR("later"), STR("p")) && now() < until)
        poll(NULL, 0, 1);
    CHECK(now() < until); /* there was room again */
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(logs_in(&fixture, STR("slow"), STR("p")));
    fixture_close(&fixture);
}

static void closing_drops_what_waits(void)
{
    struct fixture fixture;
    char name[] = "system 0";

    fixture_open(&fixture, 20000);
    for (; name[7] <= '9'; name[7]++)
        CHECK(submit(&fixture, ACCOUNT_REGISTER, str_from(name), str_from(name)));
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(!account_exists(fixture.accounts, STR("system 9")));
    for (name[7] = '0'; name[7] <= '9'; name[7]++)
        CHECK(!account_exists(fixture.accounts, str_from(name)) ||
              logs_in(&fixture, str_from(name), str_from(name)));
    fixture_close(&fixture);
}

/* Part of the line can be written. */
static void fill_disk(struct fixture *fixture, bool on)
{
    static struct rlimit before;
    struct rlimit small;
    struct stat status;

    if (on) {
        CHECK(stat(path_of(fixture, "accounts"), &status) == 0);
        CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
        small = before;
        small.rlim_cur = (rlim_t)status.st_size + 20;
        signal(SIGXFSZ, SIG_IGN);
        fflush(stdout);
        setrlimit(RLIMIT_FSIZE, &small);
    } else {
        setrlimit(RLIMIT_FSIZE, &before);
        signal(SIGXFSZ, SIG_DFL);
    }
}

static void put_folder_there(struct fixture *fixture, bool on)
{
    char aside[PATH_MAX];

    snprintf(aside, sizeof aside, "%s", path_of(fixture, "aside"));
    if (on) {
        CHECK(rename(path_of(fixture, "accounts"), aside) == 0);
        CHECK(mkdir(path_of(fixture, "accounts"), 0700) == 0);
    } else {
        CHECK(rmdir(path_of(fixture, "accounts")) == 0);
        CHECK(rename(aside, path_of(fixture, "accounts")) == 0);
    }
}

static void move_folder(struct fixture *fixture, bool on)
{
    char aside[PATH_MAX];

    snprintf(aside, sizeof aside, "%s.aside", fixture->folder);
    CHECK((on ? rename(fixture->folder, aside) : rename(aside, fixture->folder)) == 0);
}

static void what_is_not_saved_has_not_happened(void)
{
    static void (*const ways[])(struct fixture *, bool) = {fill_disk, put_folder_there,
                                                           move_folder};
    struct fixture fixture;
    char name[] = "system 0";

    fixture_open(&fixture, QUICK);
    CHECK(registers(&fixture, STR("before"), STR("b")));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct buf before = read_file(&fixture), after;
        struct account_result result;

        name[7]++;
        ways[i](&fixture, true);
        result = ask(&fixture, ACCOUNT_REGISTER, str_from(name), STR("first"));
        CHECK(result.outcome == ACCOUNT_UNSAVED && result.reason[0]);
        CHECK(!account_exists(fixture.accounts, str_from(name)));
        CHECK(!logs_in(&fixture, str_from(name), STR("first")));
        CHECK(logs_in(&fixture, STR("before"), STR("b")));
        ways[i](&fixture, false);
        after = read_file(&fixture);
        CHECK(str_equal(str_of(&before), str_of(&after)));
        buf_free(&before);
        buf_free(&after);
        CHECK(registers(&fixture, str_from(name), STR("second")));
        CHECK(open_accounts(&fixture, QUICK));
        CHECK(logs_in(&fixture, str_from(name), STR("second")));
    }
    fixture_close(&fixture);
}

/* The first account needs a file, which is made whole: a crash can leave one beside it. */
static void the_first_account_makes_the_file(void)
{
    struct fixture fixture;
    struct stat status;
    struct account_result result;
    FILE *file;

    fixture_open(&fixture, QUICK);
    CHECK(mkdir(path_of(&fixture, "accounts.new"), 0700) == 0);
    result = ask(&fixture, ACCOUNT_REGISTER, STR("n"), STR("p"));
    CHECK(result.outcome == ACCOUNT_UNSAVED && result.reason[0]);
    CHECK(access(path_of(&fixture, "accounts"), F_OK) != 0);
    CHECK(rmdir(path_of(&fixture, "accounts.new")) == 0);
    file = fopen(path_of(&fixture, "accounts.new"), "w");
    CHECK(file && fputs("half a li", file) >= 0);
    if (file)
        fclose(file);
    CHECK(chmod(path_of(&fixture, "accounts.new"), 0644) == 0);
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(registers(&fixture, STR("n"), STR("p")));
    CHECK(stat(path_of(&fixture, "accounts"), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    CHECK(open_accounts(&fixture, QUICK));
    CHECK(logs_in(&fixture, STR("n"), STR("p")));
    fixture_close(&fixture);
}

/* A file that was there and is not any more was moved by somebody: no other one takes its place. */
static void a_file_that_has_gone_is_told(void)
{
    struct fixture fixture;
    struct account_result result;

    fixture_open(&fixture, QUICK);
    CHECK(registers(&fixture, STR("a"), STR("p")));
    CHECK(unlink(path_of(&fixture, "accounts")) == 0);
    result = ask(&fixture, ACCOUNT_REGISTER, STR("b"), STR("p"));
    CHECK(result.outcome == ACCOUNT_UNSAVED && strcmp(result.reason, strerror(ENOENT)) == 0);
    CHECK(access(path_of(&fixture, "accounts"), F_OK) != 0);
    fixture_close(&fixture);
}

/* True if the name's account, once it is known, is in the file. */
static bool known_means_saved(struct fixture *fixture, struct str name, bool *known)
{
    struct buf line = {0}, text = {0};
    bool good = true;

    *known = account_exists(fixture->accounts, name);
    if (*known) {
        buf_append(&line, STR(" "));
        buf_append(&line, name);
        buf_append(&line, STR("\n"));
        text = read_file(fixture);
        good = holds(&text, str_of(&line));
    }
    buf_free(&line);
    buf_free(&text);
    return good;
}

static void the_owner_asks_while_the_worker_works(void)
{
    const unsigned count = 40;
    struct fixture fixture;
    struct account_result result;
    unsigned seen = 0, results = 0;
    int64_t until = now() + TIMEOUT;
    bool good = true, known;
    char name[16];

    fixture_open(&fixture, QUICK);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "system %u", i);
        while (!submit(&fixture, ACCOUNT_REGISTER, str_from(name), STR("p")) && now() < until)
            poll(NULL, 0, 1);
    }
    while (seen < count && good && now() < until) {
        snprintf(name, sizeof name, "system %u", seen);
        good = known_means_saved(&fixture, str_from(name), &known);
        seen += known;
    }
    CHECK(good && seen == count);
    while (results < count && await_result(&fixture, &result))
        results += result.outcome == ACCOUNT_DONE;
    CHECK(results == count);
    fixture_close(&fixture);
}

/* --- accounts in a store --------------------------------------------------------------------- */

#define FAKE_MAX 8

/* A store in memory, which can be told to fail. The worker alone uses it while a job is done. */
struct fake_store {
    struct {
        char name[ACCOUNT_NAME_MAX + 1];
        char record[200];
    } records_kept[FAKE_MAX];
    size_t count, finds, adds;
    enum account_outcome find_fails, add_fails; /* DONE: they do not */
    int gate;    /* -1, or a descriptor to wait for before an answer, */
    int arrival; /* and one to be written to before that */
};

static struct fake_store fake;

static const char *fake_record(struct str name)
{
    for (size_t i = 0; i < fake.count; i++)
        if (str_equal(str_from(fake.records_kept[i].name), name))
            return fake.records_kept[i].record;
    return NULL;
}

static void await_gate(void)
{
    struct pollfd gate = {.fd = fake.gate, .events = POLLIN};

    if (fake.gate >= 0)
        CHECK(write(fake.arrival, "x", 1) == 1 && poll(&gate, 1, TIMEOUT) == 1);
}

static enum account_outcome fake_find(void *state, struct str name, struct buf *record)
{
    CHECK(state == &fake && record->length == 0 && !record->failed);
    await_gate();
    fake.finds++;
    if (fake.find_fails != ACCOUNT_DONE)
        return fake.find_fails;
    if (!fake_record(name))
        return ACCOUNT_DENIED;
    buf_append(record, str_from(fake_record(name)));
    return ACCOUNT_DONE;
}

static void fake_put(struct str name, struct str record)
{
    CHECK(fake.count < FAKE_MAX && record.length < sizeof fake.records_kept[0].record);
    snprintf(fake.records_kept[fake.count].name, sizeof fake.records_kept[0].name, "%.*s",
             (int)name.length, name.at);
    snprintf(fake.records_kept[fake.count].record, sizeof fake.records_kept[0].record, "%.*s",
             (int)record.length, record.at);
    fake.count++;
}

static enum account_outcome fake_add(void *state, struct str name, struct str record)
{
    CHECK(state == &fake);
    fake.adds++;
    if (fake.add_fails != ACCOUNT_DONE)
        return fake.add_fails;
    if (fake_record(name))
        return ACCOUNT_EXISTS;
    fake_put(name, record);
    return ACCOUNT_DONE;
}

static const char *fake_reason(void *state)
{
    CHECK(state == &fake);
    return "the store is down";
}

static const struct account_store store = {&fake, fake_find, fake_add, fake_reason};

static bool open_store(struct fixture *fixture, unsigned iterations)
{
    account_close(fixture->accounts);
    fixture->accounts = account_open_store(&store, fixture->wake[1], iterations, fixture->error,
                                           sizeof fixture->error);
    return fixture->accounts;
}

/* An fixture whose accounts are in the store; its folder stays empty, which closing it checks. */
static void fake_open(struct fixture *fixture, unsigned iterations)
{
    fake = (struct fake_store){.gate = -1};
    fixture_open(fixture, iterations);
    CHECK(open_store(fixture, iterations));
}

static void fake_close(struct fixture *fixture)
{
    CHECK(access(path_of(fixture, "accounts"), F_OK) != 0);
    fixture_close(fixture);
}

static enum account_outcome outcome_of(struct fixture *fixture, enum account_job_kind kind,
                                       const char *name, const char *password)
{
    struct account_result result = ask(fixture, kind, str_from(name), str_from(password));

    CHECK(strcmp(result.reason, result.outcome == ACCOUNT_UNREACHABLE ? "the store is down" : "") ==
          0);
    return result.outcome;
}

static void a_store_keeps_accounts(void)
{
    struct fixture fixture;

    fake_open(&fixture, QUICK);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DENIED);
    CHECK(fake.finds == 1 && fake.adds == 0);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "shop", "secret") == ACCOUNT_DONE);
    CHECK(fake.count == 1 && fake.adds == 1 && strcmp(fake.records_kept[0].name, "shop") == 0);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DONE);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "shop", "Secret") == ACCOUNT_DENIED);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "Shop", "secret") == ACCOUNT_DENIED);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "shop", "other") == ACCOUNT_EXISTS);
    CHECK(fake.count == 1 && fake.adds == 1); /* what is there is not even tried */
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "shop", "other") == ACCOUNT_DENIED);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DONE);
    /* the cluster knows who is registered; here nothing is */
    CHECK(!account_exists(fixture.accounts, STR("shop")));
    CHECK(!account_exists(fixture.accounts, STR("")));
    fake_close(&fixture);
}

/* What one node has registered another finds, whatever iterations it would use itself. */
static void another_node_finds_what_is_stored(void)
{
    struct fixture fixture;

    fake_open(&fixture, QUICK);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_DONE);
    CHECK(open_store(&fixture, 3 * QUICK));
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "a", "1") == ACCOUNT_DONE);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "2") == ACCOUNT_EXISTS);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "b", "2") == ACCOUNT_DONE);
    CHECK(open_store(&fixture, QUICK));
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "b", "2") == ACCOUNT_DONE);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "b", "1") == ACCOUNT_DENIED);
    CHECK(strncmp(fake.records_kept[0].record, METHOD " 10 ", 17) == 0);
    CHECK(strncmp(fake.records_kept[1].record, METHOD " 30 ", 17) == 0);
    fake_close(&fixture);
}

/* METHOD ITERATIONS SALT HASH, as in a line of the file but without the name; no password. */
static void records_are_those_of_the_file(void)
{
    struct fixture fixture;
    struct str rest, salts[2], hashes[2];

    fake_open(&fixture, QUICK);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "the password") == ACCOUNT_DONE);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "b", "the password") == ACCOUNT_DONE);
    for (size_t i = 0; i < 2; i++) {
        rest = str_from(fake.records_kept[i].record);
        CHECK(!strstr(fake.records_kept[i].record, "password"));
        CHECK(str_equal(str_cut(&rest, ' '), STR(METHOD)));
        CHECK(str_equal(str_cut(&rest, ' '), STR("10")));
        salts[i] = str_cut(&rest, ' ');
        hashes[i] = rest;
        CHECK(is_hex(salts[i], 32) && is_hex(hashes[i], 64));
    }
    CHECK(!str_equal(salts[0], salts[1]) && !str_equal(hashes[0], hashes[1]));
    fake_put(STR("old"), STR(METHOD " 1000 " SALT " " HASH));
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "old", PASSWORD) == ACCOUNT_DONE);
    CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "old", "p") == ACCOUNT_DENIED);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "old", "p") == ACCOUNT_EXISTS);
    fake_close(&fixture);
}

/* A record that cannot be read lets nobody in, and is not written over. */
static void damaged_records_let_nobody_in(void)
{
    static const char *const records[] = {
        "",
        METHOD " 1000 " SALT,
        METHOD " 1000 " SALT "  " HASH,
        "pbkdf2-sha512 1000 " SALT " " HASH,
    };
    struct fixture fixture;

    fake_open(&fixture, QUICK);
    for (size_t i = 0; i < COUNT(records); i++) {
        fake.count = 0;
        fake_put(STR("n"), str_from(records[i]));
        if (!CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "n", PASSWORD) == ACCOUNT_FAILED) ||
            !CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "n", PASSWORD) == ACCOUNT_FAILED) ||
            !CHECK(fake.adds == 0 && strcmp(fake.records_kept[0].record, records[i]) == 0))
            printf("     %s\n", records[i]);
    }
    fake_close(&fixture);
}

static void a_store_that_fails_is_told(void)
{
    static const enum account_outcome fails[] = {ACCOUNT_UNREACHABLE, ACCOUNT_FAILED};
    struct fixture fixture;

    fake_open(&fixture, QUICK);
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_DONE);
    fake.adds = 0;
    for (size_t i = 0; i < COUNT(fails); i++) {
        fake.find_fails = fails[i];
        CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "a", "1") == fails[i]);
        CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "a", "2") == fails[i]);
        CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "b", "1") == fails[i]);
        CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "1") == fails[i]);
        CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "b", "1") == fails[i] && fake.adds == 0);
        fake.find_fails = ACCOUNT_DONE;
        fake.add_fails = fails[i];
        CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "b", "1") == fails[i] && fake.adds == 1);
        CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_EXISTS && fake.adds == 1);
        CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "a", "1") == ACCOUNT_DONE);
        CHECK(outcome_of(&fixture, ACCOUNT_LOGIN, "b", "1") == ACCOUNT_DENIED);
        fake.add_fails = ACCOUNT_DONE;
        fake.adds = 0;
    }
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "b", "1") == ACCOUNT_DONE);
    fake_close(&fixture);
}

/* Two nodes register one name at the same time: the store decides, after both have looked. */
static void the_store_decides_who_was_first(void)
{
    struct fixture fixture;

    fake_open(&fixture, QUICK);
    fake.add_fails = ACCOUNT_EXISTS;
    CHECK(outcome_of(&fixture, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_EXISTS);
    CHECK(fake.finds == 1 && fake.adds == 1 && fake.count == 0);
    fake_close(&fixture);
}

/* Holds the worker in the store. */
struct gate {
    int bars[2]; /* a byte written to [1] opens it for good */
    int bell[2];
};

static void gated_open(struct fixture *fixture, struct gate *gate)
{
    fake_open(fixture, QUICK);
    CHECK(pipe(gate->bars) == 0 && pipe(gate->bell) == 0);
    fake.gate = gate->bars[0];
    fake.arrival = gate->bell[1];
}

static bool worker_waits(const struct gate *gate)
{
    struct pollfd bell = {.fd = gate->bell[0], .events = POLLIN};

    return poll(&bell, 1, TIMEOUT) == 1;
}

static void gated_close(struct fixture *fixture, const struct gate *gate)
{
    fake_close(fixture);
    for (int i = 0; i < 2; i++) {
        close(gate->bars[i]);
        close(gate->bell[i]);
    }
}

/* The store may wait for a network: the owner does not wait with it. */
static void a_slow_store_holds_up_nobody(void)
{
    struct fixture fixture;
    struct gate gate;
    struct account_result result;
    int submitted = 1;
    char name[16];
    int64_t begun;

    gated_open(&fixture, &gate);
    CHECK(submit(&fixture, ACCOUNT_REGISTER, STR("a"), STR("1")));
    CHECK(worker_waits(&gate));
    begun = now();
    snprintf(name, sizeof name, "a");
    for (; submit(&fixture, ACCOUNT_LOGIN, str_from(name), STR("1")); submitted++)
        snprintf(name, sizeof name, "a%d", submitted);
    CHECK(submitted == ACCOUNT_LOGINS_MAX + 1);
    CHECK(!account_exists(fixture.accounts, STR("a")));
    CHECK(!account_take_result(fixture.accounts, &result) && now() - begun < TIMEOUT / 2);
    CHECK(write(gate.bars[1], "x", 1) == 1); /* it stays readable: the gate is open */
    for (int i = 0; i < submitted; i++)
        CHECK(await_result(&fixture, &result) &&
              result.outcome == (i < 2 ? ACCOUNT_DONE : ACCOUNT_DENIED) &&
              result.kind == (i ? ACCOUNT_LOGIN : ACCOUNT_REGISTER));
    gated_close(&fixture, &gate);
}

/* Who submits many jobs is served in turn with those who submit few. */
static void origins_take_turns(void)
{
    static const uint32_t origins[] = {1, 1, 1, 1, 2, 2, 3};
    static const uint64_t turns[] = {0, 4, 6, 1, 5, 2, 3};
    struct fixture fixture;
    struct gate gate;
    struct account_result result;
    uint64_t first;

    gated_open(&fixture, &gate);
    first = fixture.request_id + 1;
    for (size_t i = 0; i < COUNT(origins); i++) {
        CHECK(submit_from(&fixture, origins[i], ACCOUNT_LOGIN, STR("a"),
                          (struct str){"1234567", i + 1}));
        if (i == 0)
            CHECK(worker_waits(&gate)); /* it has the first one */
    }
    CHECK(write(gate.bars[1], "x", 1) == 1);
    for (size_t i = 0; i < COUNT(turns); i++) {
        CHECK(await_result(&fixture, &result));
        CHECK(result.request_id == first + turns[i] && result.origin == origins[turns[i]]);
    }
    CHECK(submit_from(&fixture, 3, ACCOUNT_LOGIN, STR("a"), STR("1")));
    CHECK(await_result(&fixture, &result)); /* the list's end was kept right */
    gated_close(&fixture, &gate);
}

/* Submits a login that waits, from an origin of its own or not. */
static enum account_submission submit_login(struct fixture *fixture, uint32_t origin,
                                            const char *password, int64_t delay)
{
    return submission_of(fixture, (struct account_request){.kind = ACCOUNT_LOGIN,
                                                           .origin = origin,
                                                           .name = STR("a"),
                                                           .password = str_from(password),
                                                           .delay = delay});
}

static bool next_is(struct fixture *fixture, uint64_t request_id, enum account_outcome outcome)
{
    struct account_result result = {0};

    return CHECK(await_result(fixture, &result)) && result.request_id == request_id &&
           result.outcome == outcome;
}

/* Fills the places for logins from one origin, while the worker waits. */
static uint64_t fill_places(struct fixture *fixture, const struct gate *gate, uint32_t origin)
{
    char password[16];

    CHECK(submit_login(fixture, origin, "first", 0) == ACCOUNT_SUBMITTED && worker_waits(gate));
    for (int i = 0; i < ACCOUNT_LOGINS_MAX; i++) {
        snprintf(password, sizeof password, "%d", i);
        CHECK(submit_login(fixture, origin, password, 0) == ACCOUNT_SUBMITTED);
    }
    CHECK(submit_login(fixture, origin, "more", 0) == ACCOUNT_QUEUE_FULL);
    return fixture->request_id - 1;
}

/* Whoever has most of the places gives one to whoever has fewer: the one that was taken last. */
static void the_most_crowded_origin_makes_room(void)
{
    struct fixture fixture;
    struct gate gate;
    uint64_t last, mine;

    gated_open(&fixture, &gate);
    last = fill_places(&fixture, &gate, 1);
    for (int i = 0; i < ACCOUNT_LOGINS_MAX / 2; i++) {
        CHECK(submit_login(&fixture, 2 + (uint32_t)i, "mine", 0) == ACCOUNT_SUBMITTED);
        CHECK(next_is(&fixture, last--, ACCOUNT_EVICTED));
    }
    /* 1 has half of them, each other has one: 2 takes another 22 */
    mine = fixture.request_id - ACCOUNT_LOGINS_MAX / 2 + 1;
    for (char name[] = "mine A"; name[5] <= 'K'; name[5]++) {
        CHECK(submit_login(&fixture, 2, name, 0) == ACCOUNT_SUBMITTED);
        CHECK(next_is(&fixture, last--, ACCOUNT_EVICTED));
    }
    CHECK(submit_login(&fixture, 2, "mine L", 0) == ACCOUNT_SUBMITTED); /* 1 had its turn, 2 none */
    CHECK(next_is(&fixture, last--, ACCOUNT_EVICTED));
    CHECK(submit_login(&fixture, 2, "mine M", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(submit_login(&fixture, 1, "more", 0) == ACCOUNT_QUEUE_FULL);
    /* registrations are not concerned */
    CHECK(submit_from(&fixture, 1, ACCOUNT_REGISTER, STR("b"), STR("p")));
    CHECK(write(gate.bars[1], "x", 1) == 1);
    CHECK(next_is(&fixture, UINT64_MAX / 2 + 1, ACCOUNT_DENIED));
    for (int i = 0; i < 10; i++) {
        struct account_result result;

        CHECK(await_result(&fixture, &result));
        CHECK(result.kind == ACCOUNT_REGISTER || result.request_id >= mine);
    }
    gated_close(&fixture, &gate);
}

/* All places are taken by as many origins: who had no turn lately goes before who had one. */
static void who_had_no_turn_goes_before(void)
{
    struct fixture fixture;
    struct gate gate;
    struct account_result result;

    gated_open(&fixture, &gate);
    CHECK(submit_login(&fixture, 1000, "first", 0) == ACCOUNT_SUBMITTED && worker_waits(&gate));
    for (uint32_t i = 0; i < ACCOUNT_LOGINS_MAX; i++)
        CHECK(submit_login(&fixture, 1000 - i, "guess", 0) == ACCOUNT_SUBMITTED);
    CHECK(submit_login(&fixture, 1, "mine", 0) == ACCOUNT_SUBMITTED);
    CHECK(await_result(&fixture, &result) && result.outcome == ACCOUNT_EVICTED &&
          result.origin == 1000);
    CHECK(submit_login(&fixture, 1000, "guess", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(submit_login(&fixture, 2, "mine", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    gated_close(&fixture, &gate);
}

/* Many that log in with one password cost one hash, whatever comes of it; they take one place, and
 * lose it together. */
static void the_same_login_is_done_once(void)
{
    struct fixture fixture;
    struct gate gate;
    struct account_result result;
    int joined = 0;
    clock_t one, all;

    gated_open(&fixture, &gate);
    CHECK(submit_login(&fixture, 1, "1", 0) == ACCOUNT_SUBMITTED && worker_waits(&gate));
    CHECK(submit_login(&fixture, 1, "1", 0) == ACCOUNT_SUBMITTED); /* the other one has begun */
    for (int i = 0; i < ACCOUNT_COALESCED_MAX; i++)
        CHECK(submit_login(&fixture, 1, "1", 0) == ACCOUNT_COALESCED);
    CHECK(submit_login(&fixture, 1, "1", 0) == ACCOUNT_SUBMITTED); /* more than may join */
    CHECK(submit_login(&fixture, 2, "1", 0) == ACCOUNT_SUBMITTED);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    for (int i = 0; i < ACCOUNT_COALESCED_MAX + 4; i++) {
        CHECK(await_result(&fixture, &result) && result.outcome == ACCOUNT_DENIED);
        joined += result.coalesced;
    }
    CHECK(joined == ACCOUNT_COALESCED_MAX);
    CHECK(!account_take_result(fixture.accounts, &result));
    CHECK(submit_login(&fixture, 1, "2", 0) == ACCOUNT_SUBMITTED); /* all places are free again */
    CHECK(submit_login(&fixture, 1, "2", 0) == ACCOUNT_SUBMITTED ||
          submit_login(&fixture, 1, "2", 0) == ACCOUNT_COALESCED);
    gated_close(&fixture, &gate);

    fixture_open(&fixture, 100000);
    one = clock();
    CHECK(registers(&fixture, STR("a"), STR("p")));
    one = clock() - one;
    all = clock();
    for (int i = 0; i < 40; i++)
        CHECK(submission_of(&fixture, (struct account_request){.kind = ACCOUNT_LOGIN,
                                                               .name = STR("a"),
                                                               .password = STR("p")}) !=
              ACCOUNT_QUEUE_FULL);
    for (int i = 0; i < 40; i++)
        CHECK(await_result(&fixture, &result) && result.outcome == ACCOUNT_DONE);
    all = clock() - all;
    CHECK(all < 10 * one);
    fixture_close(&fixture);
}

static void joined_logins_lose_their_place_together(void)
{
    struct fixture fixture;
    struct gate gate;
    uint64_t last;

    gated_open(&fixture, &gate);
    last = fill_places(&fixture, &gate, 1);
    CHECK(submit_login(&fixture, 1, "47", 0) == ACCOUNT_COALESCED);
    CHECK(submit_login(&fixture, 2, "mine", 0) == ACCOUNT_SUBMITTED);
    CHECK(next_is(&fixture, last, ACCOUNT_EVICTED));
    CHECK(next_is(&fixture, last + 2, ACCOUNT_EVICTED));
    CHECK(submit_login(&fixture, 1, "46", 0) ==
          ACCOUNT_COALESCED); /* and is freed when this ends */
    CHECK(write(gate.bars[1], "x", 1) == 1);
    gated_close(&fixture, &gate);
}

/* A login that was good is recalled without the worker: its password alone, and while the account
 * stays what it was. */
static void a_good_login_is_recalled(void)
{
    struct fixture fixture;
    uint64_t generation = 0, other = 0;

    fixture_open(&fixture, QUICK);
    CHECK(registers(&fixture, STR("a"), STR("p")));
    CHECK(registers(&fixture, STR("b"), STR("p")));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("p"), &generation));
    CHECK(!logs_in(&fixture, STR("a"), STR("q")));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("q"), &generation));
    CHECK(logs_in(&fixture, STR("a"), STR("p")));
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR("p"), &generation) ==
          ACCOUNT_RECALL_HIT);
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("q"), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("pp"), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR(""), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("b"), STR("p"), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("ap"), STR(""), &other));
    CHECK(!logs_in(&fixture, STR("a"), STR("q"))); /* which takes nothing away */
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR("p"), &other) &&
          other == generation);
    CHECK(account_check_generation(fixture.accounts, STR("a"), generation) == ACCOUNT_TOKEN_VALID);
    CHECK(account_check_generation(fixture.accounts, STR("a"), generation ^ 1) ==
          ACCOUNT_TOKEN_REVOKED);
    CHECK(account_check_generation(fixture.accounts, STR("b"), generation) ==
          ACCOUNT_TOKEN_REVOKED);
    CHECK(account_check_generation(fixture.accounts, STR("c"), generation) == ACCOUNT_TOKEN_ORPHAN);
    CHECK(open_accounts(&fixture, QUICK)); /* another process has another key */
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("p"), &other));
    CHECK(account_check_generation(fixture.accounts, STR("a"), generation) == ACCOUNT_TOKEN_VALID);
    fixture_close(&fixture);
}

/* A delayed login is not begun before its time, and others are done meanwhile. */
static void a_delayed_login_waits(void)
{
    struct fixture fixture;
    struct account_result result;
    int64_t begun = now();
    uint64_t first;

    fixture_open(&fixture, QUICK);
    CHECK(submit_login(&fixture, 1, "guess", 200) == ACCOUNT_SUBMITTED);
    first = fixture.request_id;
    CHECK(submit_login(&fixture, 1, "guess", 200) == ACCOUNT_COALESCED);
    CHECK(submit_login(&fixture, 1, "other", 200) == ACCOUNT_THROTTLED);
    CHECK(submit_login(&fixture, 2, "other", 100) == ACCOUNT_SUBMITTED);
    CHECK(submit_login(&fixture, 1, "at once", 0) == ACCOUNT_SUBMITTED);
    CHECK(next_is(&fixture, first + 4, ACCOUNT_DENIED));
    CHECK(next_is(&fixture, first + 3, ACCOUNT_DENIED) && now() - begun >= 100);
    CHECK(next_is(&fixture, first, ACCOUNT_DENIED) && now() - begun >= 200);
    CHECK(await_result(&fixture, &result) && result.request_id == first + 1 && result.coalesced);
    CHECK(submit_login(&fixture, 1, "more", 50) == ACCOUNT_SUBMITTED);
    CHECK(await_result(&fixture, &result));
    fixture_close(&fixture);
}

/* --- what a store has said -------------------------------------------------------------------- */

static enum account_token_status standing(struct fixture *fixture, uint64_t generation)
{
    return account_check_generation(fixture->accounts, STR("a"), generation);
}

/* Waits for the look-up that was asked for. */
static bool await_standing(struct fixture *fixture, uint64_t generation,
                           enum account_token_status wanted)
{
    int64_t until = now() + TIMEOUT;

    while (standing(fixture, generation) != wanted && now() < until)
        poll(NULL, 0, 1);
    return standing(fixture, generation) == wanted;
}

/* Another node makes the account anew, or removes it. */
static void fake_change(const char *record)
{
    fake.count = 0;
    if (record)
        fake_put(STR("a"), str_from(record));
}

#define OTHER_SALT "ff0102030405060708090a0b0c0d0e0f"

/* Tokens of an account in a store end when it is made anew, on the node where that happens at once,
 * and on others when they have asked the store. */
static void generations_of_a_store_are_learned(void)
{
    struct fixture fixture;
    struct account_result result;
    uint64_t old, new, recalled;

    fake_open(&fixture, QUICK);
    CHECK(standing(&fixture, 1) == ACCOUNT_TOKEN_VALID); /* nothing is known */
    CHECK(await_standing(&fixture, 1, ACCOUNT_TOKEN_ORPHAN));
    result = ask(&fixture, ACCOUNT_REGISTER, STR("a"), STR("p"));
    old = result.generation;
    CHECK(standing(&fixture, old) == ACCOUNT_TOKEN_VALID &&
          await_standing(&fixture, 1, ACCOUNT_TOKEN_REVOKED));
    result = ask(&fixture, ACCOUNT_LOGIN, STR("a"), STR("p"));
    CHECK(result.outcome == ACCOUNT_DONE && result.generation == old);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR("p"), &recalled) ==
          ACCOUNT_RECALL_LIKELY);
    /* anew, through this node */
    fake_change(NULL);
    new = ask(&fixture, ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    CHECK(new != old &&standing(&fixture, new) == ACCOUNT_TOKEN_VALID);
    CHECK(await_standing(&fixture, old, ACCOUNT_TOKEN_REVOKED));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("p"), &recalled));
    /* anew, through another one: whoever logs in here has it learned */
    fake_change(METHOD " 1000 " SALT " " HASH);
    result = ask(&fixture, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD));
    CHECK(result.outcome == ACCOUNT_DONE &&
          standing(&fixture, result.generation) == ACCOUNT_TOKEN_VALID);
    CHECK(await_standing(&fixture, new, ACCOUNT_TOKEN_REVOKED) &&
          await_standing(&fixture, old, ACCOUNT_TOKEN_REVOKED));
    fake_close(&fixture);
}

/* What was good here may not be so any more in the store: it is asked, and only what has not
 * changed costs no hashing. It goes before all that is to be hashed. */
static void a_likely_login_goes_first(void)
{
    struct account_request likely = {
        .kind = ACCOUNT_LOGIN, .name = STR("a"), .password = STR(PASSWORD), .likely = true};
    struct fixture fixture;
    struct gate gate;
    struct account_result result;
    uint64_t old, ignored;

    gated_open(&fixture, &gate);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    fake_put(STR("a"), STR(METHOD " 1000 " SALT " " HASH));
    old = ask(&fixture, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).generation;
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_LIKELY);
    /* the same password, of an account that another node has made anew: its own generation */
    fake_change(NULL);
    CHECK(open_store(&fixture, QUICK));
    CHECK(ask(&fixture, ACCOUNT_REGISTER, STR("a"), STR(PASSWORD)).generation != old);
    CHECK(ask(&fixture, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).outcome == ACCOUNT_DONE);
    fake_change(METHOD " 1000 " SALT " " HASH);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_LIKELY);
    CHECK(submission_of(&fixture, likely) == ACCOUNT_SUBMITTED && await_result(&fixture, &result));
    CHECK(result.outcome == ACCOUNT_DONE && result.generation == old);
    /* another password: what was good is forgotten with the first try */
    fake_change(METHOD " 1000 " OTHER_SALT " " HASH);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_LIKELY);
    CHECK(submission_of(&fixture, likely) == ACCOUNT_SUBMITTED && await_result(&fixture, &result));
    CHECK(result.outcome == ACCOUNT_DENIED);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_MISS);
    gated_close(&fixture, &gate);

    gated_open(&fixture, &gate);
    fill_places(&fixture, &gate, 1);
    CHECK(submission_of(&fixture, likely) == ACCOUNT_SUBMITTED);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    CHECK(await_result(&fixture, &result) && result.request_id != fixture.request_id);
    CHECK(next_is(&fixture, fixture.request_id, ACCOUNT_DENIED));
    gated_close(&fixture, &gate);
}

/* A token that differs from what is known may be a newer one: the store is asked, and nothing said
 * before it has answered. */
static void what_differs_is_asked_about(void)
{
    struct fixture fixture;
    uint64_t old, new;
    unsigned finds;

    fake_open(&fixture, QUICK);
    fake_put(STR("a"), STR(METHOD " 1000 " OTHER_SALT " " HASH));
    CHECK(ask(&fixture, ACCOUNT_LOGIN, STR("a"), STR("x")).outcome == ACCOUNT_DENIED);
    fake_change(METHOD " 1000 " SALT " " HASH);
    new = ask(&fixture, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).generation;
    CHECK(open_store(&fixture, QUICK));
    fake_change(METHOD " 1000 " OTHER_SALT " " HASH);
    CHECK(standing(&fixture, 1) == ACCOUNT_TOKEN_VALID &&
          await_standing(&fixture, 1, ACCOUNT_TOKEN_REVOKED));
    poll(NULL, 0, 1100); /* what is known is not new any more */
    fake_change(METHOD " 1000 " SALT " " HASH);
    CHECK(standing(&fixture, new) == ACCOUNT_TOKEN_UNKNOWN);
    CHECK(await_standing(&fixture, new, ACCOUNT_TOKEN_VALID));
    old = 1;
    CHECK(standing(&fixture, old) == ACCOUNT_TOKEN_REVOKED);
    /* and not asked again for each call */
    finds = (unsigned)fake.finds;
    for (int i = 0; i < 100; i++)
        CHECK(standing(&fixture, old) == ACCOUNT_TOKEN_REVOKED &&
              standing(&fixture, new) == ACCOUNT_TOKEN_VALID);
    poll(NULL, 0, MOMENT);
    CHECK((unsigned)fake.finds == finds);
    fake_close(&fixture);
}

/* What cannot be looked up stays as it was known. */
static void an_unreachable_store_changes_nothing(void)
{
    struct fixture fixture;
    uint64_t generation;

    fake_open(&fixture, QUICK);
    generation = ask(&fixture, ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    poll(NULL, 0, 1100);
    fake.find_fails = ACCOUNT_UNREACHABLE;
    CHECK(standing(&fixture, 1) == ACCOUNT_TOKEN_UNKNOWN);
    poll(NULL, 0, MOMENT);
    CHECK(standing(&fixture, 1) == ACCOUNT_TOKEN_UNKNOWN);
    CHECK(standing(&fixture, generation) == ACCOUNT_TOKEN_VALID);
    fake_close(&fixture);
}

/* Of a store's accounts so many are kept in memory. */
static void few_are_kept_of_a_large_store(void)
{
    struct fixture fixture;
    char name[24];

    fake_open(&fixture, QUICK);
    fake.find_fails = ACCOUNT_UNREACHABLE;
    for (int i = 0; i < 3 * ACCOUNT_CACHE_MAX / 2; i++) {
        snprintf(name, sizeof name, "system %d", i);
        CHECK(account_check_generation(fixture.accounts, str_from(name), 1) == ACCOUNT_TOKEN_VALID);
    }
    fake_close(&fixture);
}

int main(void)
{
    test_run("registers and logs in", registers_and_logs_in);
    test_run("results come in order", results_come_in_order);
    test_run("names of every kind survive", names_of_every_kind_survive);
    test_run("passwords are any bytes", passwords_are_any_bytes);
    test_run("refuses what is too long", refuses_what_is_too_long);
    test_run("the file tells no password", the_file_tells_no_password);
    test_run("reads a file of another time", reads_a_file_of_another_time);
    test_run("a torn line has not happened", a_torn_line_has_not_happened);
    test_run("a torn line that stays is told", a_torn_line_that_stays_is_told);
    test_run("names the line that is damaged", names_the_line_that_is_damaged);
    test_run("says why it cannot read", says_why_it_cannot_read);
    test_run("iterations are the file's", iterations_are_the_files);
    test_run("an unknown name costs the same", an_unknown_name_costs_the_same);
    test_run("a full queue refuses", a_full_queue_refuses);
    test_run("closing drops what waits", closing_drops_what_waits);
    test_run("what is not saved has not happened", what_is_not_saved_has_not_happened);
    test_run("the first account makes the file", the_first_account_makes_the_file);
    test_run("a file that has gone is told", a_file_that_has_gone_is_told);
    test_run("the owner asks while the worker works", the_owner_asks_while_the_worker_works);
    test_run("a store keeps accounts", a_store_keeps_accounts);
    test_run("another node finds what is stored", another_node_finds_what_is_stored);
    test_run("records are those of the file", records_are_those_of_the_file);
    test_run("damaged records let nobody in", damaged_records_let_nobody_in);
    test_run("a store that fails is told", a_store_that_fails_is_told);
    test_run("the store decides who was first", the_store_decides_who_was_first);
    test_run("a slow store holds up nobody", a_slow_store_holds_up_nobody);
    test_run("origins take turns", origins_take_turns);
    test_run("the most crowded origin makes room", the_most_crowded_origin_makes_room);
    test_run("who had no turn goes before", who_had_no_turn_goes_before);
    test_run("the same login is done once", the_same_login_is_done_once);
    test_run("joined logins lose their place together", joined_logins_lose_their_place_together);
    test_run("a good login is recalled", a_good_login_is_recalled);
    test_run("a delayed login waits", a_delayed_login_waits);
    test_run("generations of a store are learned", generations_of_a_store_are_learned);
    test_run("a likely login goes first", a_likely_login_goes_first);
    test_run("what differs is asked about", what_differs_is_asked_about);
    test_run("an unreachable store changes nothing", an_unreachable_store_changes_nothing);
    test_run("few are kept of a large store", few_are_kept_of_a_large_store);
    return test_finish();
}
