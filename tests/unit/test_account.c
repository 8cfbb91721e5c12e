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

#define QUICK 10       /* iterations: these passwords guard nothing */
#define TIMEOUT 10000 /* milliseconds after which a test gives up */
#define MOMENT 20      /* milliseconds in which something wrong would have happened */

#define SALT "000102030405060708090a0b0c0d0e0f"
#define HASH "c98afd11b17f19d03a6704e392ecdab86b859c6f0386216ead15d04c10281895"
#define PASSWORD "p\xc3\xa4ssword \xf0\x9f\x94\x91" /* what HASH is of, at 1,000 iterations */
#define LINE(name) "pbkdf2-sha256 1000 " SALT " " HASH " " name "\n"

/* Accounts in a folder of their own. */
struct office {
    char folder[PATH_MAX / 2];
    int wake[2];
    struct accounts *accounts;
    uint64_t request_id; /* the last one used */
    char error[PATH_MAX];
};

/* A path in the office's folder, until the next call. */
static const char *path_of(const struct office *office, const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", office->folder, name);
    return path;
}

static bool open_accounts(struct office *office, unsigned iterations)
{
    account_close(office->accounts);
    office->accounts = account_open(office->folder, office->wake[1], iterations, office->error,
                                     sizeof office->error);
    return office->accounts;
}

static void open_office(struct office *office, unsigned iterations)
{
    const char *parent = getenv("TMPDIR");

    *office = (struct office){.request_id = UINT64_MAX / 2};
    snprintf(office->folder, sizeof office->folder, "%s/wspush-account-XXXXXX",
             parent && *parent ? parent : "/tmp");
    CHECK(mkdtemp(office->folder));
    CHECK(pipe(office->wake) == 0);
    for (int i = 0; i < 2; i++)
        fcntl(office->wake[i], F_SETFL, O_NONBLOCK);
    CHECK(open_accounts(office, iterations));
}

static void close_office(struct office *office)
{
    account_close(office->accounts);
    close(office->wake[0]);
    close(office->wake[1]);
    unlink(path_of(office, "accounts"));
    CHECK(rmdir(office->folder) == 0); /* nothing else is in it */
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Waits for the wake pipe and takes a result. */
static bool await_result(struct office *office, struct account_result *result)
{
    int64_t until = now() + TIMEOUT, left;

    while (!account_take_result(office->accounts, result)) {
        struct pollfd wake = {.fd = office->wake[0], .events = POLLIN};
        char bytes[64];

        left = until - now();
        if (left <= 0 || poll(&wake, 1, (int)left) <= 0)
            return false;
        while (read(office->wake[0], bytes, sizeof bytes) > 0)
            ;
    }
    return true;
}

static enum account_submission submission_of(struct office *office, struct account_request request)
{
    request.request_id = ++office->request_id;
    return account_submit(office->accounts, &request);
}

static bool submit_from(struct office *office, uint32_t origin, enum account_job_kind kind,
                        struct str name, struct str password)
{
    return submission_of(office,
                         (struct account_request){
                             .kind = kind, .origin = origin, .name = name, .password = password}) ==
           ACCOUNT_SUBMITTED;
}

static bool submit(struct office *office, enum account_job_kind kind, struct str name,
                   struct str password)
{
    return submit_from(office, 0, kind, name, password);
}

/* Has one job done and checks that the result is that job's. */
static struct account_result ask(struct office *office, enum account_job_kind kind, struct str name,
                                 struct str password)
{
    struct account_result result = {.outcome = ACCOUNT_FAILED};

    CHECK(submit(office, kind, name, password));
    CHECK(await_result(office, &result));
    CHECK(result.request_id == office->request_id && result.kind == kind);
    CHECK(str_equal((struct str){result.name, result.name_length}, name));
    return result;
}

static bool registers(struct office *office, struct str name, struct str password)
{
    return ask(office, ACCOUNT_REGISTER, name, password).outcome == ACCOUNT_DONE;
}

/* Logs in, and sees that the outcome is one of the two there are. */
static bool logs_in(struct office *office, struct str name, struct str password)
{
    enum account_outcome outcome = ask(office, ACCOUNT_LOGIN, name, password).outcome;

    CHECK(outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED);
    return outcome == ACCOUNT_DONE;
}

/* Writes the accounts file as a person might. */
static void write_file(const struct office *office, struct str text)
{
    FILE *file = fopen(path_of(office, "accounts"), "w");

    CHECK(file && fwrite(text.at, 1, text.length, file) == text.length);
    if (file)
        fclose(file);
}

static struct buf read_file(const struct office *office)
{
    struct buf text = {0};

    CHECK(os_read_file(path_of(office, "accounts"), &text) == 0);
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
    struct office office;

    open_office(&office, QUICK);
    CHECK(!account_exists(office.accounts, STR("shop")));
    CHECK(!logs_in(&office, STR("shop"), STR("secret")));
    CHECK(registers(&office, STR("shop"), STR("secret")));
    CHECK(account_exists(office.accounts, STR("shop")));
    CHECK(!account_exists(office.accounts, STR("shops")));
    CHECK(!account_exists(office.accounts, STR("sho")));
    CHECK(!account_exists(office.accounts, (struct str){0}));
    CHECK(logs_in(&office, STR("shop"), STR("secret")));
    CHECK(!logs_in(&office, STR("shop"), STR("Secret")));
    CHECK(!logs_in(&office, STR("Shop"), STR("secret")));
    CHECK(ask(&office, ACCOUNT_REGISTER, STR("shop"), STR("other")).outcome == ACCOUNT_EXISTS);
    CHECK(logs_in(&office, STR("shop"), STR("secret")));
    CHECK(!logs_in(&office, STR("shop"), STR("other")));
    close_office(&office);
}

/* Of one kind; and neither kind waits for all jobs of the other. */
static void results_come_in_order(void)
{
    struct office office;
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

    open_office(&office, 20000); /* long enough to submit all while the first is done */
    CHECK(!account_take_result(office.accounts, &result));
    for (size_t i = 0; i < count; i++)
        CHECK(submit(&office, jobs[i].kind, jobs[i].name, jobs[i].password));
    for (size_t i = 0; i < count && CHECK(await_result(&office, &result)); i++) {
        CHECK(result.request_id == office.request_id - count + 1 + i);
        CHECK(result.kind == jobs[i].kind && result.outcome == jobs[i].outcome);
        CHECK(str_equal((struct str){result.name, result.name_length}, jobs[i].name));
    }
    CHECK(!account_take_result(office.accounts, &result));
    close_office(&office);
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
    struct office office;

    open_office(&office, QUICK);
    for (size_t i = 0; i < NAMES; i++)
        CHECK(registers(&office, names[i], names[NAMES - 1 - i]));
    for (int again = 0; again < 2; again++) {
        CHECK(open_accounts(&office, QUICK));
        for (size_t i = 0; i < NAMES; i++) {
            CHECK(account_exists(office.accounts, names[i]));
            CHECK(logs_in(&office, names[i], names[NAMES - 1 - i]));
            CHECK(!logs_in(&office, names[i], names[i]));
        }
        CHECK(!account_exists(office.accounts, STR("two")));
        CHECK(!account_exists(office.accounts, STR("two  before and after")));
        CHECK(registers(&office, again ? STR("later") : STR("late"), STR("p")));
    }
    close_office(&office);
}

static void passwords_are_any_bytes(void)
{
    struct office office;
    char password[ACCOUNT_PASSWORD_MAX + 1];
    struct str whole = {password, ACCOUNT_PASSWORD_MAX};

    for (size_t i = 0; i < sizeof password; i++)
        password[i] = (char)i;
    open_office(&office, QUICK);
    CHECK(registers(&office, STR("all"), whole));
    CHECK(logs_in(&office, STR("all"), whole));
    CHECK(!logs_in(&office, STR("all"), (struct str){password, ACCOUNT_PASSWORD_MAX - 1}));
    CHECK(!logs_in(&office, STR("all"), (struct str){password, 1}));
    password[ACCOUNT_PASSWORD_MAX - 1] ^= 1;
    CHECK(!logs_in(&office, STR("all"), whole));
    close_office(&office);
}

static void refuses_what_is_too_long(void)
{
    struct office office;
    char many[ACCOUNT_PASSWORD_MAX + 1];

    memset(many, 'm', sizeof many);
    open_office(&office, QUICK);
    CHECK(!submit(&office, ACCOUNT_REGISTER, (struct str){many, ACCOUNT_NAME_MAX + 1}, STR("p")));
    CHECK(!submit(&office, ACCOUNT_LOGIN, STR("n"), (struct str){many, ACCOUNT_PASSWORD_MAX + 1}));
    CHECK(registers(&office, (struct str){many, ACCOUNT_NAME_MAX}, STR("p")));
    close_office(&office);
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
    struct office office;
    struct buf text;
    struct str rest, line[3];
    struct stat status;

    open_office(&office, QUICK);
    CHECK(stat(path_of(&office, "accounts"), &status) != 0 && errno == ENOENT);
    CHECK(registers(&office, STR("first"), STR("the password")));
    CHECK(registers(&office, STR("second"), STR("the password")));
    CHECK(stat(path_of(&office, "accounts"), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    text = read_file(&office);
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
    close_office(&office);
}

static void reads_a_file_of_another_time(void)
{
    struct office office;
    struct buf text;

    open_office(&office, QUICK);
    write_file(&office, STR("\n# a note\n" LINE("old shop") "\n#" LINE("not this") LINE("b")));
    CHECK(open_accounts(&office, QUICK));
    CHECK(account_exists(office.accounts, STR("old shop")));
    CHECK(account_exists(office.accounts, STR("b")));
    CHECK(!account_exists(office.accounts, STR("not this")));
    CHECK(logs_in(&office, STR("old shop"), STR(PASSWORD)));
    CHECK(!logs_in(&office, STR("old shop"), STR("password")));
    /* what people wrote into it stays */
    CHECK(registers(&office, STR("new"), STR("p")));
    text = read_file(&office);
    CHECK(holds(&text, STR("\n# a note\n" LINE("old shop") "\n#" LINE("not this") LINE("b"))));
    buf_free(&text);
    close_office(&office);
}

/* Writes a file of which a crash has left this, opens it, and registers one more. */
static void open_torn(struct office *office, struct str text, bool has_two)
{
    size_t whole = has_two ? text.length : strlen(LINE("one"));
    struct buf torn = {0}, after;

    write_file(office, text);
    unlink(path_of(office, "accounts.torn"));
    CHECK(open_accounts(office, QUICK));
    CHECK(account_exists(office->accounts, STR("one")));
    CHECK(account_exists(office->accounts, STR("two or so")) == has_two);
    CHECK(!account_exists(office->accounts, STR("two")));
    after = read_file(office);
    CHECK(str_equal(str_of(&after), (struct str){text.at, whole}));
    if (whole < text.length) {
        CHECK(strstr(office->error, "torn"));
        CHECK(os_read_file(path_of(office, "accounts.torn"), &torn) == 0);
        CHECK(str_equal(str_of(&torn), (struct str){text.at + whole, text.length - whole}));
    } else {
        CHECK(office->error[0] == '\0' && access(path_of(office, "accounts.torn"), F_OK) != 0);
    }
    CHECK(registers(office, STR("two or so"), STR("2")) == !has_two);
    CHECK(registers(office, STR("three"), STR("3")));
    CHECK(open_accounts(office, QUICK) && office->error[0] == '\0');
    CHECK(logs_in(office, STR("three"), STR("3")));
    CHECK(has_two || logs_in(office, STR("two or so"), STR("2")));
    buf_free(&torn);
    buf_free(&after);
}

/* A power cut may leave any part of the line that was being appended, or zeros: what was whole
 * before is there, and what was torn has not happened. What is left of a name is no name. */
static void a_torn_line_has_not_happened(void)
{
    struct office office;
    struct str text = STR(LINE("one") LINE("two or so"));
    size_t one = strlen(LINE("one"));
    char zeros[sizeof LINE("one") LINE("two or so")];

    open_office(&office, QUICK);
    for (size_t length = one; length <= text.length; length++) {
        open_torn(&office, (struct str){text.at, length}, length == text.length);
        memset(zeros, 0, sizeof zeros);
        memcpy(zeros, text.at, length);
        if (length < text.length)
            open_torn(&office, (struct str){zeros, text.length}, false);
    }
    write_file(&office, STR("")); /* an empty file is a file of no accounts */
    unlink(path_of(&office, "accounts.torn"));
    CHECK(open_accounts(&office, QUICK));
    CHECK(!account_exists(office.accounts, STR("two")));
    CHECK(registers(&office, STR("four"), STR("4")));
    CHECK(open_accounts(&office, QUICK));
    CHECK(logs_in(&office, STR("four"), STR("4")));
    close_office(&office);
}

/* A file that cannot be mended stays, and no server starts with it. */
static void a_torn_line_that_stays_is_told(void)
{
    struct office office;
    struct str text = STR(LINE("one") "half a li");
    struct buf after;

    open_office(&office, QUICK);
    write_file(&office, text);
    CHECK(mkdir(path_of(&office, "accounts.torn"), 0700) == 0);
    CHECK(!open_accounts(&office, QUICK) && strstr(office.error, "cannot be moved"));
    after = read_file(&office);
    CHECK(str_equal(str_of(&after), text));
    buf_free(&after);
    CHECK(rmdir(path_of(&office, "accounts.torn")) == 0);
    close_office(&office);
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
    struct office office;
    char expected[PATH_MAX];

    open_office(&office, QUICK);
    snprintf(expected, sizeof expected, "%s/accounts:4: ", office.folder);
    for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
        struct buf text = {0};

        buf_append(&text, STR("# header\n" LINE("good") "\n"));
        buf_append(&text, damages[i].line);
        buf_append(&text, i % 2 ? STR("\n" LINE("behind")) : STR("\n"));
        write_file(&office, str_of(&text));
        buf_free(&text);
        CHECK(!open_accounts(&office, QUICK));
        CHECK(strncmp(office.error, expected, strlen(expected)) == 0);
        if (!CHECK(strlen(office.error) > strlen(expected) &&
                   strstr(office.error + strlen(expected), damages[i].word)))
            printf("     %s\n", office.error);
    }
    close_office(&office);
}

static void says_why_it_cannot_read(void)
{
    struct office office;
    char little[8];

    open_office(&office, QUICK);
    CHECK(mkdir(path_of(&office, "accounts"), 0700) == 0);
    CHECK(!open_accounts(&office, QUICK));
    CHECK(strstr(office.error, path_of(&office, "accounts")));
    CHECK(strstr(office.error, strerror(EISDIR)));
    memset(little, '!', sizeof little);
    CHECK(!account_open(office.folder, office.wake[1], QUICK, little, 4));
    CHECK(strlen(little) == 3 && little[4] == '!');
    CHECK(rmdir(path_of(&office, "accounts")) == 0);
    account_close(NULL);
    close_office(&office);
}

static void iterations_are_the_files(void)
{
    struct office office;
    struct buf text;

    open_office(&office, QUICK);
    CHECK(registers(&office, STR("few"), STR("p")));
    CHECK(open_accounts(&office, 5 * QUICK));
    CHECK(registers(&office, STR("more"), STR("p")));
    CHECK(open_accounts(&office, QUICK));
    CHECK(logs_in(&office, STR("few"), STR("p")));
    CHECK(logs_in(&office, STR("more"), STR("p")));
    text = read_file(&office);
    CHECK(holds(&text, STR("\n" METHOD " 10 ")) && holds(&text, STR("\n" METHOD " 50 ")));
    buf_free(&text);
    close_office(&office);
}

/* Whether a name is registered must not show in the time that a refusal takes. */
static void an_unknown_name_costs_the_same(void)
{
    struct office office;
    clock_t known, unknown;

    open_office(&office, 50000);
    CHECK(registers(&office, STR("known"), STR("p")));
    known = clock();
    CHECK(!logs_in(&office, STR("known"), STR("wrong")));
    unknown = clock();
    CHECK(!logs_in(&office, STR("unknown"), STR("wrong")));
    known = unknown - known;
    unknown = clock() - unknown;
    CHECK(unknown > known / 4 && known > unknown / 4);
    close_office(&office);
}

/* Registrations have a small share of the places, and logins the others; while one kind has none
 * left, the other has all of its own. */
static void a_full_queue_refuses(void)
{
    struct office office;
    struct account_result result;
    int64_t until = now() + TIMEOUT;
    int registrations = 0, logins = 0;
    char name[24] = "slow";

    open_office(&office, 100000); /* long enough to fill the queue meanwhile */
    while (registrations <= 1000 && submit(&office, ACCOUNT_REGISTER, STR("slow"), STR("p")))
        registrations++;
    /* the worker may have taken one already */
    CHECK(registrations == ACCOUNT_REGISTRATIONS_MAX ||
          registrations == ACCOUNT_REGISTRATIONS_MAX + 1);
    for (; logins <= 1000 && submit(&office, ACCOUNT_LOGIN, str_from(name), STR("p")); logins++)
        snprintf(name, sizeof name, "slow %d", logins);
    CHECK(logins >= ACCOUNT_LOGINS_MAX && logins <= ACCOUNT_LOGINS_MAX + 2);
    do
        CHECK(await_result(&office, &result));
    while (result.outcome != ACCOUNT_DONE && now() < until);
    while (!submit(&office, ACCOUNT_LOGIN, STR("later"), STR("p")) && now() < until)
        poll(NULL, 0, 1);
    CHECK(now() < until); /* there was room again */
    CHECK(open_accounts(&office, QUICK));
    CHECK(logs_in(&office, STR("slow"), STR("p")));
    close_office(&office);
}

static void closing_drops_what_waits(void)
{
    struct office office;
    char name[] = "system 0";

    open_office(&office, 20000);
    for (; name[7] <= '9'; name[7]++)
        CHECK(submit(&office, ACCOUNT_REGISTER, str_from(name), str_from(name)));
    CHECK(open_accounts(&office, QUICK));
    CHECK(!account_exists(office.accounts, STR("system 9")));
    for (name[7] = '0'; name[7] <= '9'; name[7]++)
        CHECK(!account_exists(office.accounts, str_from(name)) ||
              logs_in(&office, str_from(name), str_from(name)));
    close_office(&office);
}

/* Part of the line can be written. */
static void fill_disk(struct office *office, bool on)
{
    static struct rlimit before;
    struct rlimit small;
    struct stat status;

    if (on) {
        CHECK(stat(path_of(office, "accounts"), &status) == 0);
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

static void put_folder_there(struct office *office, bool on)
{
    char aside[PATH_MAX];

    snprintf(aside, sizeof aside, "%s", path_of(office, "aside"));
    if (on) {
        CHECK(rename(path_of(office, "accounts"), aside) == 0);
        CHECK(mkdir(path_of(office, "accounts"), 0700) == 0);
    } else {
        CHECK(rmdir(path_of(office, "accounts")) == 0);
        CHECK(rename(aside, path_of(office, "accounts")) == 0);
    }
}

static void move_folder(struct office *office, bool on)
{
    char aside[PATH_MAX];

    snprintf(aside, sizeof aside, "%s.aside", office->folder);
    CHECK((on ? rename(office->folder, aside) : rename(aside, office->folder)) == 0);
}

static void what_is_not_saved_has_not_happened(void)
{
    static void (*const ways[])(struct office *, bool) = {fill_disk, put_folder_there, move_folder};
    struct office office;
    char name[] = "system 0";

    open_office(&office, QUICK);
    CHECK(registers(&office, STR("before"), STR("b")));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        struct buf before = read_file(&office), after;
        struct account_result result;

        name[7]++;
        ways[i](&office, true);
        result = ask(&office, ACCOUNT_REGISTER, str_from(name), STR("first"));
        CHECK(result.outcome == ACCOUNT_UNSAVED && result.reason[0]);
        CHECK(!account_exists(office.accounts, str_from(name)));
        CHECK(!logs_in(&office, str_from(name), STR("first")));
        CHECK(logs_in(&office, STR("before"), STR("b")));
        ways[i](&office, false);
        after = read_file(&office);
        CHECK(str_equal(str_of(&before), str_of(&after)));
        buf_free(&before);
        buf_free(&after);
        CHECK(registers(&office, str_from(name), STR("second")));
        CHECK(open_accounts(&office, QUICK));
        CHECK(logs_in(&office, str_from(name), STR("second")));
    }
    close_office(&office);
}

/* The first account needs a file, which is made whole: a crash can leave one beside it. */
static void the_first_account_makes_the_file(void)
{
    struct office office;
    struct stat status;
    struct account_result result;
    FILE *file;

    open_office(&office, QUICK);
    CHECK(mkdir(path_of(&office, "accounts.new"), 0700) == 0);
    result = ask(&office, ACCOUNT_REGISTER, STR("n"), STR("p"));
    CHECK(result.outcome == ACCOUNT_UNSAVED && result.reason[0]);
    CHECK(access(path_of(&office, "accounts"), F_OK) != 0);
    CHECK(rmdir(path_of(&office, "accounts.new")) == 0);
    file = fopen(path_of(&office, "accounts.new"), "w");
    CHECK(file && fputs("half a li", file) >= 0);
    if (file)
        fclose(file);
    CHECK(chmod(path_of(&office, "accounts.new"), 0644) == 0);
    CHECK(open_accounts(&office, QUICK));
    CHECK(registers(&office, STR("n"), STR("p")));
    CHECK(stat(path_of(&office, "accounts"), &status) == 0);
    CHECK((status.st_mode & 07777) == 0600);
    CHECK(open_accounts(&office, QUICK));
    CHECK(logs_in(&office, STR("n"), STR("p")));
    close_office(&office);
}

/* A file that was there and is not any more was moved by somebody: no other one takes its place. */
static void a_file_that_has_gone_is_told(void)
{
    struct office office;
    struct account_result result;

    open_office(&office, QUICK);
    CHECK(registers(&office, STR("a"), STR("p")));
    CHECK(unlink(path_of(&office, "accounts")) == 0);
    result = ask(&office, ACCOUNT_REGISTER, STR("b"), STR("p"));
    CHECK(result.outcome == ACCOUNT_UNSAVED && strcmp(result.reason, strerror(ENOENT)) == 0);
    CHECK(access(path_of(&office, "accounts"), F_OK) != 0);
    close_office(&office);
}

/* True if the name's account, once it is known, is in the file. */
static bool known_means_saved(struct office *office, struct str name, bool *known)
{
    struct buf line = {0}, text = {0};
    bool good = true;

    *known = account_exists(office->accounts, name);
    if (*known) {
        buf_append(&line, STR(" "));
        buf_append(&line, name);
        buf_append(&line, STR("\n"));
        text = read_file(office);
        good = holds(&text, str_of(&line));
    }
    buf_free(&line);
    buf_free(&text);
    return good;
}

static void the_owner_asks_while_the_worker_works(void)
{
    const unsigned count = 40;
    struct office office;
    struct account_result result;
    unsigned seen = 0, results = 0;
    int64_t until = now() + TIMEOUT;
    bool good = true, known;
    char name[16];

    open_office(&office, QUICK);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "system %u", i);
        while (!submit(&office, ACCOUNT_REGISTER, str_from(name), STR("p")) && now() < until)
            poll(NULL, 0, 1);
    }
    while (seen < count && good && now() < until) {
        snprintf(name, sizeof name, "system %u", seen);
        good = known_means_saved(&office, str_from(name), &known);
        seen += known;
    }
    CHECK(good && seen == count);
    while (results < count && await_result(&office, &result))
        results += result.outcome == ACCOUNT_DONE;
    CHECK(results == count);
    close_office(&office);
}

static volatile sig_atomic_t signalled;

static void note_signal(int number)
{
    signalled = number;
}

static void leaves_signals_to_the_owner(void)
{
    struct sigaction action = {.sa_handler = note_signal}, before;
    struct office office;
    sigset_t one;

    sigemptyset(&action.sa_mask);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigaction(SIGUSR1, &action, &before);
    open_office(&office, QUICK);
    CHECK(registers(&office, STR("n"), STR("p")));
    pthread_sigmask(SIG_BLOCK, &one, NULL);
    kill(getpid(), SIGUSR1);
    poll(NULL, 0, MOMENT);
    CHECK(signalled == 0);
    pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    CHECK(signalled == SIGUSR1);
    sigaction(SIGUSR1, &before, NULL);
    close_office(&office);
}

/* --- accounts in a store --------------------------------------------------------------------- */

#define SHELVES 8

/* A store in memory, which can be told to fail. The worker alone uses it while a job is done. */
struct shop {
    struct {
        char name[ACCOUNT_NAME_MAX + 1];
        char record[200];
    } shelves[SHELVES];
    size_t count, finds, adds;
    enum account_outcome find_fails, add_fails; /* DONE: they do not */
    int gate;     /* -1, or a descriptor to wait for before an answer, */
    int doorbell; /* and one to be written to before that */
};

static struct shop shop;

static const char *shelf_of(struct str name)
{
    for (size_t i = 0; i < shop.count; i++)
        if (str_equal(str_from(shop.shelves[i].name), name))
            return shop.shelves[i].record;
    return NULL;
}

static void await_gate(void)
{
    struct pollfd gate = {.fd = shop.gate, .events = POLLIN};

    if (shop.gate >= 0)
        CHECK(write(shop.doorbell, "x", 1) == 1 && poll(&gate, 1, TIMEOUT) == 1);
}

static enum account_outcome find_in_shop(void *state, struct str name, struct buf *record)
{
    CHECK(state == &shop && record->length == 0 && !record->failed);
    await_gate();
    shop.finds++;
    if (shop.find_fails != ACCOUNT_DONE)
        return shop.find_fails;
    if (!shelf_of(name))
        return ACCOUNT_DENIED;
    buf_append(record, str_from(shelf_of(name)));
    return ACCOUNT_DONE;
}

static void put_on_shelf(struct str name, struct str record)
{
    CHECK(shop.count < SHELVES && record.length < sizeof shop.shelves[0].record);
    snprintf(shop.shelves[shop.count].name, sizeof shop.shelves[0].name, "%.*s", (int)name.length,
             name.at);
    snprintf(shop.shelves[shop.count].record, sizeof shop.shelves[0].record, "%.*s",
             (int)record.length, record.at);
    shop.count++;
}

static enum account_outcome add_to_shop(void *state, struct str name, struct str record)
{
    CHECK(state == &shop);
    shop.adds++;
    if (shop.add_fails != ACCOUNT_DONE)
        return shop.add_fails;
    if (shelf_of(name))
        return ACCOUNT_EXISTS;
    put_on_shelf(name, record);
    return ACCOUNT_DONE;
}

static const char *reason_of_shop(void *state)
{
    CHECK(state == &shop);
    return "the shop is shut";
}

static const struct account_store store = {&shop, find_in_shop, add_to_shop, reason_of_shop};

static bool open_store(struct office *office, unsigned iterations)
{
    account_close(office->accounts);
    office->accounts = account_open_store(&store, office->wake[1], iterations, office->error,
                                           sizeof office->error);
    return office->accounts;
}

/* An office whose accounts are in the store; its folder stays empty, which closing it checks. */
static void open_shop(struct office *office, unsigned iterations)
{
    shop = (struct shop){.gate = -1};
    open_office(office, iterations);
    CHECK(open_store(office, iterations));
}

static void close_shop(struct office *office)
{
    CHECK(access(path_of(office, "accounts"), F_OK) != 0);
    close_office(office);
}

static enum account_outcome outcome_of(struct office *office, enum account_job_kind kind,
                                       const char *name, const char *password)
{
    struct account_result result = ask(office, kind, str_from(name), str_from(password));

    CHECK(strcmp(result.reason,
                 result.outcome == ACCOUNT_UNREACHABLE ? "the shop is shut" : "") == 0);
    return result.outcome;
}

static void a_store_keeps_accounts(void)
{
    struct office office;

    open_shop(&office, QUICK);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DENIED);
    CHECK(shop.finds == 1 && shop.adds == 0);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "shop", "secret") == ACCOUNT_DONE);
    CHECK(shop.count == 1 && shop.adds == 1 && strcmp(shop.shelves[0].name, "shop") == 0);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DONE);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "shop", "Secret") == ACCOUNT_DENIED);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "Shop", "secret") == ACCOUNT_DENIED);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "shop", "other") == ACCOUNT_EXISTS);
    CHECK(shop.count == 1 && shop.adds == 1); /* what is there is not even tried */
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "shop", "other") == ACCOUNT_DENIED);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DONE);
    /* the cluster knows who is registered; here nothing is */
    CHECK(!account_exists(office.accounts, STR("shop")));
    CHECK(!account_exists(office.accounts, STR("")));
    close_shop(&office);
}

/* What one node has registered another finds, whatever iterations it would use itself. */
static void another_node_finds_what_is_stored(void)
{
    struct office office;

    open_shop(&office, QUICK);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_DONE);
    CHECK(open_store(&office, 3 * QUICK));
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "a", "1") == ACCOUNT_DONE);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "2") == ACCOUNT_EXISTS);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "b", "2") == ACCOUNT_DONE);
    CHECK(open_store(&office, QUICK));
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "b", "2") == ACCOUNT_DONE);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "b", "1") == ACCOUNT_DENIED);
    CHECK(strncmp(shop.shelves[0].record, METHOD " 10 ", 17) == 0);
    CHECK(strncmp(shop.shelves[1].record, METHOD " 30 ", 17) == 0);
    close_shop(&office);
}

/* METHOD ITERATIONS SALT HASH, as in a line of the file but without the name; no password. */
static void records_are_those_of_the_file(void)
{
    struct office office;
    struct str rest, salts[2], hashes[2];

    open_shop(&office, QUICK);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "the password") == ACCOUNT_DONE);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "b", "the password") == ACCOUNT_DONE);
    for (size_t i = 0; i < 2; i++) {
        rest = str_from(shop.shelves[i].record);
        CHECK(!strstr(shop.shelves[i].record, "password"));
        CHECK(str_equal(str_cut(&rest, ' '), STR(METHOD)));
        CHECK(str_equal(str_cut(&rest, ' '), STR("10")));
        salts[i] = str_cut(&rest, ' ');
        hashes[i] = rest;
        CHECK(is_hex(salts[i], 32) && is_hex(hashes[i], 64));
    }
    CHECK(!str_equal(salts[0], salts[1]) && !str_equal(hashes[0], hashes[1]));
    put_on_shelf(STR("old"), STR(METHOD " 1000 " SALT " " HASH));
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "old", PASSWORD) == ACCOUNT_DONE);
    CHECK(outcome_of(&office, ACCOUNT_LOGIN, "old", "p") == ACCOUNT_DENIED);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "old", "p") == ACCOUNT_EXISTS);
    close_shop(&office);
}

/* A record that cannot be read lets nobody in, and is not written over. */
static void damaged_records_let_nobody_in(void)
{
    static const char *const records[] = {
        "",
        " ",
        "x",
        METHOD,
        METHOD " 1000",
        METHOD " 1000 " SALT,
        METHOD " 1000 " SALT " ",
        METHOD " 0 " SALT " " HASH,
        METHOD " -1 " SALT " " HASH,
        METHOD " 99999999999 " SALT " " HASH,
        METHOD " 1000 " X32 " " HASH,
        METHOD " 1000 " SALT " " SALT,
        METHOD " 1000 " SALT " " HASH "0",
        METHOD " 1000 " SALT "  " HASH,
        "pbkdf2-sha512 1000 " SALT " " HASH,
        " " METHOD " 1000 " SALT " " HASH,
    };
    struct office office;

    open_shop(&office, QUICK);
    for (size_t i = 0; i < COUNT(records); i++) {
        shop.count = 0;
        put_on_shelf(STR("n"), str_from(records[i]));
        if (!CHECK(outcome_of(&office, ACCOUNT_LOGIN, "n", PASSWORD) == ACCOUNT_FAILED) ||
            !CHECK(outcome_of(&office, ACCOUNT_REGISTER, "n", PASSWORD) == ACCOUNT_FAILED) ||
            !CHECK(shop.adds == 0 && strcmp(shop.shelves[0].record, records[i]) == 0))
            printf("     %s\n", records[i]);
    }
    close_shop(&office);
}

static void a_store_that_fails_is_told(void)
{
    static const enum account_outcome fails[] = {ACCOUNT_UNREACHABLE, ACCOUNT_FAILED};
    struct office office;

    open_shop(&office, QUICK);
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_DONE);
    shop.adds = 0;
    for (size_t i = 0; i < COUNT(fails); i++) {
        shop.find_fails = fails[i];
        CHECK(outcome_of(&office, ACCOUNT_LOGIN, "a", "1") == fails[i]);
        CHECK(outcome_of(&office, ACCOUNT_LOGIN, "a", "2") == fails[i]);
        CHECK(outcome_of(&office, ACCOUNT_LOGIN, "b", "1") == fails[i]);
        CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "1") == fails[i]);
        CHECK(outcome_of(&office, ACCOUNT_REGISTER, "b", "1") == fails[i] && shop.adds == 0);
        shop.find_fails = ACCOUNT_DONE;
        shop.add_fails = fails[i];
        CHECK(outcome_of(&office, ACCOUNT_REGISTER, "b", "1") == fails[i] && shop.adds == 1);
        CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_EXISTS && shop.adds == 1);
        CHECK(outcome_of(&office, ACCOUNT_LOGIN, "a", "1") == ACCOUNT_DONE);
        CHECK(outcome_of(&office, ACCOUNT_LOGIN, "b", "1") == ACCOUNT_DENIED);
        shop.add_fails = ACCOUNT_DONE;
        shop.adds = 0;
    }
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "b", "1") == ACCOUNT_DONE);
    close_shop(&office);
}

/* Two nodes register one name at the same time: the store decides, after both have looked. */
static void the_store_decides_who_was_first(void)
{
    struct office office;

    open_shop(&office, QUICK);
    shop.add_fails = ACCOUNT_EXISTS;
    CHECK(outcome_of(&office, ACCOUNT_REGISTER, "a", "1") == ACCOUNT_EXISTS);
    CHECK(shop.finds == 1 && shop.adds == 1 && shop.count == 0);
    close_shop(&office);
}

static void any_name_and_password_can_be_stored(void)
{
    struct office office;
    char many[ACCOUNT_PASSWORD_MAX];

    memset(many, 'm', sizeof many);
    open_shop(&office, QUICK);
    CHECK(!submit(&office, ACCOUNT_REGISTER, (struct str){many, ACCOUNT_NAME_MAX + 1}, STR("p")));
    for (size_t i = 0; i + 4 < NAMES; i++) {
        shop.count = 0;
        CHECK(registers(&office, names[i], (struct str){many, sizeof many - i}));
        CHECK(logs_in(&office, names[i], (struct str){many, sizeof many - i}));
        CHECK(!logs_in(&office, names[i], (struct str){many, sizeof many - i - 1}));
        CHECK(str_equal(str_from(shop.shelves[0].name), names[i]));
    }
    close_shop(&office);
}

/* What keeps the worker waiting at a shop's door. */
struct gate {
    int bars[2]; /* who writes to [1] opens it for good */
    int bell[2];
};

static void open_gated_shop(struct office *office, struct gate *gate)
{
    open_shop(office, QUICK);
    CHECK(pipe(gate->bars) == 0 && pipe(gate->bell) == 0);
    shop.gate = gate->bars[0];
    shop.doorbell = gate->bell[1];
}

static bool worker_waits(const struct gate *gate)
{
    struct pollfd bell = {.fd = gate->bell[0], .events = POLLIN};

    return poll(&bell, 1, TIMEOUT) == 1;
}

static void close_gated_shop(struct office *office, const struct gate *gate)
{
    close_shop(office);
    for (int i = 0; i < 2; i++) {
        close(gate->bars[i]);
        close(gate->bell[i]);
    }
}

/* The store may wait for a network: the owner does not wait with it. */
static void a_slow_store_holds_up_nobody(void)
{
    struct office office;
    struct gate gate;
    struct account_result result;
    int submitted = 1;
    char name[16];
    int64_t begun;

    open_gated_shop(&office, &gate);
    CHECK(submit(&office, ACCOUNT_REGISTER, STR("a"), STR("1")));
    CHECK(worker_waits(&gate));
    begun = now();
    snprintf(name, sizeof name, "a");
    for (; submit(&office, ACCOUNT_LOGIN, str_from(name), STR("1")); submitted++)
        snprintf(name, sizeof name, "a%d", submitted);
    CHECK(submitted == ACCOUNT_LOGINS_MAX + 1);
    CHECK(!account_exists(office.accounts, STR("a")));
    CHECK(!account_take_result(office.accounts, &result) && now() - begun < TIMEOUT / 2);
    CHECK(write(gate.bars[1], "x", 1) == 1); /* it stays readable: the gate is open */
    for (int i = 0; i < submitted; i++)
        CHECK(await_result(&office, &result) &&
              result.outcome == (i < 2 ? ACCOUNT_DONE : ACCOUNT_DENIED) &&
              result.kind == (i ? ACCOUNT_LOGIN : ACCOUNT_REGISTER));
    close_gated_shop(&office, &gate);
}

/* Who submits many jobs is served in turn with those who submit few. */
static void origins_take_turns(void)
{
    static const uint32_t origins[] = {1, 1, 1, 1, 2, 2, 3};
    static const uint64_t turns[] = {0, 4, 6, 1, 5, 2, 3};
    struct office office;
    struct gate gate;
    struct account_result result;
    uint64_t first;

    open_gated_shop(&office, &gate);
    first = office.request_id + 1;
    for (size_t i = 0; i < COUNT(origins); i++) {
        CHECK(submit_from(&office, origins[i], ACCOUNT_LOGIN, STR("a"),
                          (struct str){"1234567", i + 1}));
        if (i == 0)
            CHECK(worker_waits(&gate)); /* it has the first one */
    }
    CHECK(write(gate.bars[1], "x", 1) == 1);
    for (size_t i = 0; i < COUNT(turns); i++) {
        CHECK(await_result(&office, &result));
        CHECK(result.request_id == first + turns[i] && result.origin == origins[turns[i]]);
    }
    CHECK(submit_from(&office, 3, ACCOUNT_LOGIN, STR("a"), STR("1")));
    CHECK(await_result(&office, &result)); /* the list's end was kept right */
    close_gated_shop(&office, &gate);
}

/* Submits a login that waits, from an origin of its own or not. */
static enum account_submission submit_login(struct office *office, uint32_t origin,
                                            const char *password, int64_t delay)
{
    return submission_of(office, (struct account_request){.kind = ACCOUNT_LOGIN,
                                                          .origin = origin,
                                                          .name = STR("a"),
                                                          .password = str_from(password),
                                                          .delay = delay});
}

static bool next_is(struct office *office, uint64_t request_id, enum account_outcome outcome)
{
    struct account_result result = {0};

    return CHECK(await_result(office, &result)) && result.request_id == request_id &&
           result.outcome == outcome;
}

/* Fills the places for logins from one origin, while the worker waits. */
static uint64_t fill_places(struct office *office, const struct gate *gate, uint32_t origin)
{
    char password[16];

    CHECK(submit_login(office, origin, "first", 0) == ACCOUNT_SUBMITTED && worker_waits(gate));
    for (int i = 0; i < ACCOUNT_LOGINS_MAX; i++) {
        snprintf(password, sizeof password, "%d", i);
        CHECK(submit_login(office, origin, password, 0) == ACCOUNT_SUBMITTED);
    }
    CHECK(submit_login(office, origin, "more", 0) == ACCOUNT_QUEUE_FULL);
    return office->request_id - 1;
}

/* Whoever has most of the places gives one to whoever has fewer: the one that was taken last. */
static void the_most_crowded_origin_makes_room(void)
{
    struct office office;
    struct gate gate;
    uint64_t last, mine;

    open_gated_shop(&office, &gate);
    last = fill_places(&office, &gate, 1);
    for (int i = 0; i < ACCOUNT_LOGINS_MAX / 2; i++) {
        CHECK(submit_login(&office, 2 + (uint32_t)i, "mine", 0) == ACCOUNT_SUBMITTED);
        CHECK(next_is(&office, last--, ACCOUNT_EVICTED));
    }
    /* 1 has half of them, each other has one: 2 takes another 22 */
    mine = office.request_id - ACCOUNT_LOGINS_MAX / 2 + 1;
    for (char name[] = "mine A"; name[5] <= 'K'; name[5]++) {
        CHECK(submit_login(&office, 2, name, 0) == ACCOUNT_SUBMITTED);
        CHECK(next_is(&office, last--, ACCOUNT_EVICTED));
    }
    CHECK(submit_login(&office, 2, "mine L", 0) == ACCOUNT_SUBMITTED); /* 1 had its turn, 2 none */
    CHECK(next_is(&office, last--, ACCOUNT_EVICTED));
    CHECK(submit_login(&office, 2, "mine M", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(submit_login(&office, 1, "more", 0) == ACCOUNT_QUEUE_FULL);
    /* registrations are not concerned */
    CHECK(submit_from(&office, 1, ACCOUNT_REGISTER, STR("b"), STR("p")));
    CHECK(write(gate.bars[1], "x", 1) == 1);
    CHECK(next_is(&office, UINT64_MAX / 2 + 1, ACCOUNT_DENIED));
    for (int i = 0; i < 10; i++) {
        struct account_result result;

        CHECK(await_result(&office, &result));
        CHECK(result.kind == ACCOUNT_REGISTER || result.request_id >= mine);
    }
    close_gated_shop(&office, &gate);
}

/* All places are taken by as many origins: who had no turn lately goes before who had one. */
static void who_had_no_turn_goes_before(void)
{
    struct office office;
    struct gate gate;
    struct account_result result;

    open_gated_shop(&office, &gate);
    CHECK(submit_login(&office, 1000, "first", 0) == ACCOUNT_SUBMITTED && worker_waits(&gate));
    for (uint32_t i = 0; i < ACCOUNT_LOGINS_MAX; i++)
        CHECK(submit_login(&office, 1000 - i, "guess", 0) == ACCOUNT_SUBMITTED);
    CHECK(submit_login(&office, 1, "mine", 0) == ACCOUNT_SUBMITTED);
    CHECK(await_result(&office, &result) && result.outcome == ACCOUNT_EVICTED &&
          result.origin == 1000);
    CHECK(submit_login(&office, 1000, "guess", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(submit_login(&office, 2, "mine", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    close_gated_shop(&office, &gate);
}

/* Many that log in with one password cost one hash, whatever comes of it; they take one place, and
 * lose it together. */
static void the_same_login_is_done_once(void)
{
    struct office office;
    struct gate gate;
    struct account_result result;
    int joined = 0;
    clock_t one, all;

    open_gated_shop(&office, &gate);
    CHECK(submit_login(&office, 1, "1", 0) == ACCOUNT_SUBMITTED && worker_waits(&gate));
    CHECK(submit_login(&office, 1, "1", 0) == ACCOUNT_SUBMITTED); /* the other one has begun */
    for (int i = 0; i < ACCOUNT_COALESCED_MAX; i++)
        CHECK(submit_login(&office, 1, "1", 0) == ACCOUNT_COALESCED);
    CHECK(submit_login(&office, 1, "1", 0) == ACCOUNT_SUBMITTED); /* more than may join */
    CHECK(submit_login(&office, 2, "1", 0) == ACCOUNT_SUBMITTED);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    for (int i = 0; i < ACCOUNT_COALESCED_MAX + 4; i++) {
        CHECK(await_result(&office, &result) && result.outcome == ACCOUNT_DENIED);
        joined += result.coalesced;
    }
    CHECK(joined == ACCOUNT_COALESCED_MAX);
    CHECK(!account_take_result(office.accounts, &result));
    CHECK(submit_login(&office, 1, "2", 0) == ACCOUNT_SUBMITTED); /* all places are free again */
    CHECK(submit_login(&office, 1, "2", 0) == ACCOUNT_SUBMITTED ||
          submit_login(&office, 1, "2", 0) == ACCOUNT_COALESCED);
    close_gated_shop(&office, &gate);

    open_office(&office, 100000);
    one = clock();
    CHECK(registers(&office, STR("a"), STR("p")));
    one = clock() - one;
    all = clock();
    for (int i = 0; i < 40; i++)
        CHECK(submission_of(&office, (struct account_request){.kind = ACCOUNT_LOGIN,
                                                              .name = STR("a"),
                                                              .password = STR("p")}) !=
              ACCOUNT_QUEUE_FULL);
    for (int i = 0; i < 40; i++)
        CHECK(await_result(&office, &result) && result.outcome == ACCOUNT_DONE);
    all = clock() - all;
    CHECK(all < 10 * one);
    close_office(&office);
}

static void joined_logins_lose_their_place_together(void)
{
    struct office office;
    struct gate gate;
    uint64_t last;

    open_gated_shop(&office, &gate);
    last = fill_places(&office, &gate, 1);
    CHECK(submit_login(&office, 1, "47", 0) == ACCOUNT_COALESCED);
    CHECK(submit_login(&office, 2, "mine", 0) == ACCOUNT_SUBMITTED);
    CHECK(next_is(&office, last, ACCOUNT_EVICTED));
    CHECK(next_is(&office, last + 2, ACCOUNT_EVICTED));
    CHECK(submit_login(&office, 1, "46", 0) == ACCOUNT_COALESCED); /* and is freed when this ends */
    CHECK(write(gate.bars[1], "x", 1) == 1);
    close_gated_shop(&office, &gate);
}

/* A login that was good is recalled without the worker: its password alone, and while the account
 * stays what it was. */
static void a_good_login_is_recalled(void)
{
    struct office office;
    uint64_t generation = 0, other = 0;

    open_office(&office, QUICK);
    CHECK(registers(&office, STR("a"), STR("p")));
    CHECK(registers(&office, STR("b"), STR("p")));
    CHECK(!account_recall_login(office.accounts, STR("a"), STR("p"), &generation));
    CHECK(!logs_in(&office, STR("a"), STR("q")));
    CHECK(!account_recall_login(office.accounts, STR("a"), STR("q"), &generation));
    CHECK(logs_in(&office, STR("a"), STR("p")));
    CHECK(account_recall_login(office.accounts, STR("a"), STR("p"), &generation) == ACCOUNT_RECALL_HIT);
    CHECK(!account_recall_login(office.accounts, STR("a"), STR("q"), &other));
    CHECK(!account_recall_login(office.accounts, STR("a"), STR("pp"), &other));
    CHECK(!account_recall_login(office.accounts, STR("a"), STR(""), &other));
    CHECK(!account_recall_login(office.accounts, STR("b"), STR("p"), &other));
    CHECK(!account_recall_login(office.accounts, STR("ap"), STR(""), &other));
    CHECK(!logs_in(&office, STR("a"), STR("q"))); /* which takes nothing away */
    CHECK(account_recall_login(office.accounts, STR("a"), STR("p"), &other) && other == generation);
    CHECK(account_check_generation(office.accounts, STR("a"), generation) == ACCOUNT_TOKEN_VALID);
    CHECK(account_check_generation(office.accounts, STR("a"), generation ^ 1) == ACCOUNT_TOKEN_REVOKED);
    CHECK(account_check_generation(office.accounts, STR("b"), generation) == ACCOUNT_TOKEN_REVOKED);
    CHECK(account_check_generation(office.accounts, STR("c"), generation) == ACCOUNT_TOKEN_ORPHAN);
    CHECK(open_accounts(&office, QUICK)); /* another process has another key */
    CHECK(!account_recall_login(office.accounts, STR("a"), STR("p"), &other));
    CHECK(account_check_generation(office.accounts, STR("a"), generation) == ACCOUNT_TOKEN_VALID);
    close_office(&office);
}

/* A delayed login is not begun before its time, and others are done meanwhile. */
static void a_delayed_login_waits(void)
{
    struct office office;
    struct account_result result;
    int64_t begun = now();
    uint64_t first;

    open_office(&office, QUICK);
    CHECK(submit_login(&office, 1, "guess", 200) == ACCOUNT_SUBMITTED);
    first = office.request_id;
    CHECK(submit_login(&office, 1, "guess", 200) == ACCOUNT_COALESCED);
    CHECK(submit_login(&office, 1, "other", 200) == ACCOUNT_THROTTLED);
    CHECK(submit_login(&office, 2, "other", 100) == ACCOUNT_SUBMITTED);
    CHECK(submit_login(&office, 1, "at once", 0) == ACCOUNT_SUBMITTED);
    CHECK(next_is(&office, first + 4, ACCOUNT_DENIED));
    CHECK(next_is(&office, first + 3, ACCOUNT_DENIED) && now() - begun >= 100);
    CHECK(next_is(&office, first, ACCOUNT_DENIED) && now() - begun >= 200);
    CHECK(await_result(&office, &result) && result.request_id == first + 1 && result.coalesced);
    CHECK(submit_login(&office, 1, "more", 50) == ACCOUNT_SUBMITTED);
    CHECK(await_result(&office, &result));
    close_office(&office);
}

/* --- what a store has said -------------------------------------------------------------------- */

static enum account_token_status standing(struct office *office, uint64_t generation)
{
    return account_check_generation(office->accounts, STR("a"), generation);
}

/* Waits for the look-up that was asked for. */
static bool await_standing(struct office *office, uint64_t generation, enum account_token_status wanted)
{
    int64_t until = now() + TIMEOUT;

    while (standing(office, generation) != wanted && now() < until)
        poll(NULL, 0, 1);
    return standing(office, generation) == wanted;
}

/* Another node makes the account anew, or removes it. */
static void change_shelf(const char *record)
{
    shop.count = 0;
    if (record)
        put_on_shelf(STR("a"), str_from(record));
}

#define OTHER_SALT "ff0102030405060708090a0b0c0d0e0f"

/* Tokens of an account in a store end when it is made anew, on the node where that happens at once,
 * and on others when they have asked the store. */
static void generations_of_a_store_are_learned(void)
{
    struct office office;
    struct account_result result;
    uint64_t old, new, recalled;

    open_shop(&office, QUICK);
    CHECK(standing(&office, 1) == ACCOUNT_TOKEN_VALID); /* nothing is known */
    CHECK(await_standing(&office, 1, ACCOUNT_TOKEN_ORPHAN));
    result = ask(&office, ACCOUNT_REGISTER, STR("a"), STR("p"));
    old = result.generation;
    CHECK(standing(&office, old) == ACCOUNT_TOKEN_VALID && await_standing(&office, 1, ACCOUNT_TOKEN_REVOKED));
    result = ask(&office, ACCOUNT_LOGIN, STR("a"), STR("p"));
    CHECK(result.outcome == ACCOUNT_DONE && result.generation == old);
    CHECK(account_recall_login(office.accounts, STR("a"), STR("p"), &recalled) == ACCOUNT_RECALL_LIKELY);
    /* anew, through this node */
    change_shelf(NULL);
    new = ask(&office, ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    CHECK(new != old &&standing(&office, new) == ACCOUNT_TOKEN_VALID);
    CHECK(await_standing(&office, old, ACCOUNT_TOKEN_REVOKED));
    CHECK(!account_recall_login(office.accounts, STR("a"), STR("p"), &recalled));
    /* anew, through another one: whoever logs in here has it learned */
    change_shelf(METHOD " 1000 " SALT " " HASH);
    result = ask(&office, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD));
    CHECK(result.outcome == ACCOUNT_DONE &&
          standing(&office, result.generation) == ACCOUNT_TOKEN_VALID);
    CHECK(await_standing(&office, new, ACCOUNT_TOKEN_REVOKED) && await_standing(&office, old, ACCOUNT_TOKEN_REVOKED));
    close_shop(&office);
}

/* What was good here may not be so any more in the store: it is asked, and only what has not
 * changed costs no hashing. It goes before all that is to be hashed. */
static void a_likely_login_goes_first(void)
{
    struct account_request likely = {
        .kind = ACCOUNT_LOGIN, .name = STR("a"), .password = STR(PASSWORD), .likely = true};
    struct office office;
    struct gate gate;
    struct account_result result;
    uint64_t old, ignored;

    open_gated_shop(&office, &gate);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    put_on_shelf(STR("a"), STR(METHOD " 1000 " SALT " " HASH));
    old = ask(&office, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).generation;
    CHECK(account_recall_login(office.accounts, STR("a"), STR(PASSWORD), &ignored) == ACCOUNT_RECALL_LIKELY);
    /* the same password, of an account that another node has made anew: its own generation */
    change_shelf(NULL);
    CHECK(open_store(&office, QUICK));
    CHECK(ask(&office, ACCOUNT_REGISTER, STR("a"), STR(PASSWORD)).generation != old);
    CHECK(ask(&office, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).outcome == ACCOUNT_DONE);
    change_shelf(METHOD " 1000 " SALT " " HASH);
    CHECK(account_recall_login(office.accounts, STR("a"), STR(PASSWORD), &ignored) == ACCOUNT_RECALL_LIKELY);
    CHECK(submission_of(&office, likely) == ACCOUNT_SUBMITTED && await_result(&office, &result));
    CHECK(result.outcome == ACCOUNT_DONE && result.generation == old);
    /* another password: what was good is forgotten with the first try */
    change_shelf(METHOD " 1000 " OTHER_SALT " " HASH);
    CHECK(account_recall_login(office.accounts, STR("a"), STR(PASSWORD), &ignored) == ACCOUNT_RECALL_LIKELY);
    CHECK(submission_of(&office, likely) == ACCOUNT_SUBMITTED && await_result(&office, &result));
    CHECK(result.outcome == ACCOUNT_DENIED);
    CHECK(account_recall_login(office.accounts, STR("a"), STR(PASSWORD), &ignored) == ACCOUNT_RECALL_MISS);
    close_gated_shop(&office, &gate);

    open_gated_shop(&office, &gate);
    fill_places(&office, &gate, 1);
    CHECK(submission_of(&office, likely) == ACCOUNT_SUBMITTED);
    CHECK(write(gate.bars[1], "x", 1) == 1);
    CHECK(await_result(&office, &result) && result.request_id != office.request_id);
    CHECK(next_is(&office, office.request_id, ACCOUNT_DENIED));
    close_gated_shop(&office, &gate);
}

/* A token that differs from what is known may be a newer one: the store is asked, and nothing said
 * before it has answered. */
static void what_differs_is_asked_about(void)
{
    struct office office;
    uint64_t old, new;
    unsigned finds;

    open_shop(&office, QUICK);
    put_on_shelf(STR("a"), STR(METHOD " 1000 " OTHER_SALT " " HASH));
    CHECK(ask(&office, ACCOUNT_LOGIN, STR("a"), STR("x")).outcome == ACCOUNT_DENIED);
    change_shelf(METHOD " 1000 " SALT " " HASH);
    new = ask(&office, ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).generation;
    CHECK(open_store(&office, QUICK));
    change_shelf(METHOD " 1000 " OTHER_SALT " " HASH);
    CHECK(standing(&office, 1) == ACCOUNT_TOKEN_VALID && await_standing(&office, 1, ACCOUNT_TOKEN_REVOKED));
    poll(NULL, 0, 1100); /* what is known is not new any more */
    change_shelf(METHOD " 1000 " SALT " " HASH);
    CHECK(standing(&office, new) == ACCOUNT_TOKEN_UNKNOWN);
    CHECK(await_standing(&office, new, ACCOUNT_TOKEN_VALID));
    old = 1;
    CHECK(standing(&office, old) == ACCOUNT_TOKEN_REVOKED);
    /* and not asked again for each call */
    finds = (unsigned)shop.finds;
    for (int i = 0; i < 100; i++)
        CHECK(standing(&office, old) == ACCOUNT_TOKEN_REVOKED && standing(&office, new) == ACCOUNT_TOKEN_VALID);
    poll(NULL, 0, MOMENT);
    CHECK((unsigned)shop.finds == finds);
    close_shop(&office);
}

/* What cannot be looked up stays as it was known. */
static void an_unreachable_store_changes_nothing(void)
{
    struct office office;
    uint64_t generation;

    open_shop(&office, QUICK);
    generation = ask(&office, ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    poll(NULL, 0, 1100);
    shop.find_fails = ACCOUNT_UNREACHABLE;
    CHECK(standing(&office, 1) == ACCOUNT_TOKEN_UNKNOWN);
    poll(NULL, 0, MOMENT);
    CHECK(standing(&office, 1) == ACCOUNT_TOKEN_UNKNOWN);
    CHECK(standing(&office, generation) == ACCOUNT_TOKEN_VALID);
    close_shop(&office);
}

/* Of a store's accounts so many are kept in memory. */
static void few_are_kept_of_a_large_store(void)
{
    struct office office;
    char name[24];

    open_shop(&office, QUICK);
    shop.find_fails = ACCOUNT_UNREACHABLE;
    for (int i = 0; i < 3 * ACCOUNT_CACHE_MAX / 2; i++) {
        snprintf(name, sizeof name, "system %d", i);
        CHECK(account_check_generation(office.accounts, str_from(name), 1) == ACCOUNT_TOKEN_VALID);
    }
    close_shop(&office);
}

static void an_unknown_name_in_a_store_costs_the_same(void)
{
    struct office office;
    clock_t known, unknown;

    open_shop(&office, 50000);
    CHECK(registers(&office, STR("known"), STR("p")));
    known = clock();
    CHECK(!logs_in(&office, STR("known"), STR("wrong")));
    unknown = clock();
    CHECK(!logs_in(&office, STR("unknown"), STR("wrong")));
    known = unknown - known;
    unknown = clock() - unknown;
    CHECK(unknown > known / 4 && known > unknown / 4);
    close_shop(&office);
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
    test_run("leaves signals to the owner", leaves_signals_to_the_owner);
    test_run("a store keeps accounts", a_store_keeps_accounts);
    test_run("another node finds what is stored", another_node_finds_what_is_stored);
    test_run("records are those of the file", records_are_those_of_the_file);
    test_run("damaged records let nobody in", damaged_records_let_nobody_in);
    test_run("a store that fails is told", a_store_that_fails_is_told);
    test_run("the store decides who was first", the_store_decides_who_was_first);
    test_run("any name and password can be stored", any_name_and_password_can_be_stored);
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
    test_run("an unknown name in a store costs the same",
             an_unknown_name_in_a_store_costs_the_same);
    return test_finish();
}
