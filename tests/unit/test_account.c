/* test_account.c - tests that accounts survive in the file and in a store that nodes share, that
 * only their password lets in, and that jobs are shared out fairly. */
#include "account.h"
#include "account_table.h"
#include "os.h"

#include "test.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
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

static struct fixture fixture;

/* A path in the fixture's folder, until the next call. */
static const char *path_of(const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof path, "%s/%s", fixture.folder, name);
    return path;
}

static bool open_accounts(unsigned iterations)
{
    account_close(fixture.accounts);
    fixture.accounts = account_open(fixture.folder, fixture.wake[1], iterations, fixture.error,
                                    sizeof fixture.error);
    return fixture.accounts;
}

static void fixture_open(unsigned iterations)
{
    const char *parent = getenv("TMPDIR");

    fixture = (struct fixture){.request_id = UINT64_MAX / 2};
    snprintf(fixture.folder, sizeof fixture.folder, "%s/wspush-account-XXXXXX",
             parent && *parent ? parent : "/tmp");
    CHECK(mkdtemp(fixture.folder));
    CHECK(os_wake_pipe(fixture.wake));
    CHECK(open_accounts(iterations));
}

static void fixture_close(void)
{
    account_close(fixture.accounts);
    close(fixture.wake[0]);
    close(fixture.wake[1]);
    unlink(path_of("accounts"));
    CHECK(rmdir(fixture.folder) == 0); /* nothing else is in it */
}

/* Waits for the wake pipe and takes a result. */
static bool await_result(struct account_result *result)
{
    int64_t until = os_now_ms() + TIMEOUT, left;

    while (!account_take_result(fixture.accounts, result)) {
        struct pollfd wake = {.fd = fixture.wake[0], .events = POLLIN};
        left = until - os_now_ms();
        if (left <= 0 || poll(&wake, 1, (int)left) <= 0)
            return false;
        os_drain(fixture.wake[0]);
    }
    return true;
}

static enum account_submission submission_of(struct account_request request)
{
    request.request_id = ++fixture.request_id;
    return account_submit(fixture.accounts, &request);
}

static bool submit_from(uint32_t origin, enum account_job_kind kind, struct str name,
                        struct str password)
{
    return submission_of((struct account_request){
               .kind = kind, .origin = origin, .name = name, .password = password}) ==
           ACCOUNT_SUBMITTED;
}

static bool submit(enum account_job_kind kind, struct str name, struct str password)
{
    return submit_from(0, kind, name, password);
}

/* Has one job done and checks that the result is that job's. */
static struct account_result ask(enum account_job_kind kind, struct str name, struct str password)
{
    struct account_result result = {.outcome = ACCOUNT_FAILED};

    CHECK(submit(kind, name, password));
    CHECK(await_result(&result));
    CHECK(result.request_id == fixture.request_id && result.kind == kind);
    CHECK(str_equal((struct str){result.name, result.name_length}, name));
    return result;
}

/* The same for a job that sets a password. */
static enum account_outcome change(enum account_job_kind kind, const char *name,
                                   const char *password, const char *new_password)
{
    struct account_request request = {.kind = kind,
                                      .name = str_from(name),
                                      .password = str_from(password),
                                      .new_password = str_from(new_password)};
    struct account_result result = {.outcome = ACCOUNT_FAILED};

    CHECK(submission_of(request) == ACCOUNT_SUBMITTED && await_result(&result));
    CHECK(result.request_id == fixture.request_id && result.kind == kind);
    return result.outcome;
}

static bool registers(struct str name, struct str password)
{
    return ask(ACCOUNT_REGISTER, name, password).outcome == ACCOUNT_DONE;
}

static enum account_outcome outcome_of(enum account_job_kind kind, const char *name,
                                       const char *password)
{
    struct account_result result = ask(kind, str_from(name), str_from(password));

    if (result.outcome == ACCOUNT_UNREACHABLE)
        CHECK(strcmp(result.reason, "the store is down") == 0);
    else
        CHECK(!result.reason[0] == (result.outcome != ACCOUNT_UNSAVED));
    return result.outcome;
}

/* Logs in, and sees that the outcome is one of the two there are. */
static bool logs_in(struct str name, struct str password)
{
    enum account_outcome outcome = ask(ACCOUNT_LOGIN, name, password).outcome;

    CHECK(outcome == ACCOUNT_DONE || outcome == ACCOUNT_DENIED);
    return outcome == ACCOUNT_DONE;
}

/* Writes the accounts file as a person might. */
static void write_file(struct str text)
{
    FILE *file = fopen(path_of("accounts"), "w");

    CHECK(file && fwrite(text.at, 1, text.length, file) == text.length);
    if (file)
        fclose(file);
}

static struct buf read_file(void)
{
    struct buf text = {0};

    CHECK(os_read_file(path_of("accounts"), &text) == 0);
    return text;
}

static bool holds(struct buf *text, struct str part)
{
    for (size_t i = 0; i + part.length <= text->length; i++)
        if (memcmp(text->at + i, part.at, part.length) == 0)
            return true;
    return false;
}

/* Of one kind; and neither kind waits for all jobs of the other. */
static void results_come_in_order(void)
{
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

    fixture_open(20000); /* long enough to submit all while the first is done */
    CHECK(!account_take_result(fixture.accounts, &result));
    for (size_t i = 0; i < count; i++)
        CHECK(submit(jobs[i].kind, jobs[i].name, jobs[i].password));
    for (size_t i = 0; i < count && CHECK(await_result(&result)); i++) {
        CHECK(result.request_id == fixture.request_id - count + 1 + i);
        CHECK(result.kind == jobs[i].kind && result.outcome == jobs[i].outcome);
        CHECK(str_equal((struct str){result.name, result.name_length}, jobs[i].name));
    }
    CHECK(!account_take_result(fixture.accounts, &result));
    fixture_close();
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

#define NAMES COUNT(names)

static void names_of_every_kind_survive(void)
{
    fixture_open(QUICK);
    for (size_t i = 0; i < NAMES; i++)
        CHECK(registers(names[i], names[NAMES - 1 - i]));
    for (int again = 0; again < 2; again++) {
        CHECK(open_accounts(QUICK));
        for (size_t i = 0; i < NAMES; i++) {
            CHECK(account_exists(fixture.accounts, names[i]));
            CHECK(logs_in(names[i], names[NAMES - 1 - i]));
            CHECK(!logs_in(names[i], names[i]));
        }
        CHECK(!account_exists(fixture.accounts, STR("two")));
        CHECK(!account_exists(fixture.accounts, STR("two  before and after")));
        CHECK(registers(again ? STR("later") : STR("late"), STR("p")));
    }
    fixture_close();
}

static void passwords_are_any_bytes_of_limited_length(void)
{
    char bytes[ACCOUNT_PASSWORD_MAX + 1];
    struct str whole = {bytes, ACCOUNT_PASSWORD_MAX};

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (char)i;
    fixture_open(QUICK);
    CHECK(!submit(ACCOUNT_LOGIN, STR("n"), (struct str){bytes, ACCOUNT_PASSWORD_MAX + 1}));
    CHECK(registers(STR("all"), whole));
    CHECK(logs_in(STR("all"), whole));
    CHECK(!logs_in(STR("all"), (struct str){bytes, ACCOUNT_PASSWORD_MAX - 1}));
    CHECK(!logs_in(STR("all"), (struct str){bytes, 1}));
    bytes[ACCOUNT_PASSWORD_MAX - 1] ^= 1;
    CHECK(!logs_in(STR("all"), whole));
    memset(bytes, 'm', sizeof bytes);
    CHECK(!submit(ACCOUNT_REGISTER, (struct str){bytes, ACCOUNT_NAME_MAX + 1}, STR("p")));
    CHECK(registers((struct str){bytes, ACCOUNT_NAME_MAX}, STR("p")));
    fixture_close();
}

static void the_file_has_no_password(void)
{
    struct buf text;
    struct str rest, line[2];
    struct stat status;

    fixture_open(QUICK);
    CHECK(stat(path_of("accounts"), &status) != 0 && errno == ENOENT);
    CHECK(registers(STR("first"), STR("the password")));
    CHECK(registers(STR("second"), STR("the password")));
    CHECK(stat(path_of("accounts"), &status) == 0 && (status.st_mode & 07777) == 0600);
    text = read_file();
    CHECK(text.at[0] == '#' && !holds(&text, STR("the password")));
    rest = str_of(&text);
    str_cut(&rest, '\n');
    for (int i = 0; i < 2; i++) {
        line[i] = str_cut(&rest, '\n');
        CHECK(str_equal(str_cut(&line[i], ' '), STR("pbkdf2-sha256")));
        CHECK(str_equal(str_cut(&line[i], ' '), STR("10")));
    }
    for (int part = 0; part < 2; part++) /* salt and hash; reading checks their form */
        CHECK(!str_equal(str_cut(&line[0], ' '), str_cut(&line[1], ' ')));
    CHECK(str_equal(line[0], STR("first")) && str_equal(line[1], STR("second")));
    CHECK(rest.length == 0);
    buf_free(&text);
    fixture_close();
}

static void reads_an_edited_file(void)
{
    struct buf text;

    fixture_open(QUICK);
    write_file(STR("\n# a note\n" LINE("old shop") "\n#" LINE("not this") LINE("b")));
    CHECK(open_accounts(QUICK));
    CHECK(account_exists(fixture.accounts, STR("old shop")));
    CHECK(account_exists(fixture.accounts, STR("b")));
    CHECK(!account_exists(fixture.accounts, STR("not this")));
    CHECK(logs_in(STR("old shop"), STR(PASSWORD)));
    CHECK(!logs_in(STR("old shop"), STR("password")));
    /* what people wrote into it stays */
    CHECK(registers(STR("new"), STR("p")));
    text = read_file();
    CHECK(holds(&text, STR("\n# a note\n" LINE("old shop") "\n#" LINE("not this") LINE("b"))));
    buf_free(&text);
    fixture_close();
}

/* Writes a file of which a crash has left this, opens it, and registers one more. */
static void open_torn(struct str text, bool has_two)
{
    size_t whole = has_two ? text.length : strlen(LINE("one"));
    struct buf torn = {0}, after;

    write_file(text);
    unlink(path_of("accounts.torn"));
    CHECK(open_accounts(QUICK));
    CHECK(account_exists(fixture.accounts, STR("one")));
    CHECK(account_exists(fixture.accounts, STR("two or so")) == has_two);
    CHECK(!account_exists(fixture.accounts, STR("two")));
    after = read_file();
    CHECK(str_equal(str_of(&after), (struct str){text.at, whole}));
    if (whole < text.length) {
        CHECK(strstr(fixture.error, "torn"));
        CHECK(os_read_file(path_of("accounts.torn"), &torn) == 0);
        CHECK(str_equal(str_of(&torn), (struct str){text.at + whole, text.length - whole}));
    } else {
        CHECK(fixture.error[0] == '\0' && access(path_of("accounts.torn"), F_OK) != 0);
    }
    CHECK(registers(STR("two or so"), STR("2")) == !has_two);
    CHECK(registers(STR("three"), STR("3")));
    CHECK(open_accounts(QUICK) && fixture.error[0] == '\0');
    CHECK(logs_in(STR("three"), STR("3")));
    CHECK(has_two || logs_in(STR("two or so"), STR("2")));
    buf_free(&torn);
    buf_free(&after);
}

/* A power cut may leave any part of the line that was being appended, or zeros: what was whole
 * before is there, and what was torn has not happened. What is left of a name is no name. */
static void a_torn_line_is_no_account(void)
{
    struct str text = STR(LINE("one") LINE("two or so"));
    size_t one = strlen(LINE("one"));
    char zeros[sizeof LINE("one") LINE("two or so")];

    fixture_open(QUICK);
    for (size_t length = one; length <= text.length; length++) {
        open_torn((struct str){text.at, length}, length == text.length);
        memset(zeros, 0, sizeof zeros);
        memcpy(zeros, text.at, length);
        if (length < text.length)
            open_torn((struct str){zeros, text.length}, false);
    }
    write_file(STR("")); /* an empty file is a file of no accounts */
    unlink(path_of("accounts.torn"));
    CHECK(open_accounts(QUICK));
    CHECK(!account_exists(fixture.accounts, STR("two")));
    CHECK(registers(STR("four"), STR("4")));
    CHECK(open_accounts(QUICK));
    CHECK(logs_in(STR("four"), STR("4")));
    fixture_close();
}

/* A file that cannot be mended stays, and no server starts with it. */
static void a_torn_line_that_cannot_be_moved_is_an_error(void)
{
    struct str text = STR(LINE("one") "half a li");
    struct buf after;

    fixture_open(QUICK);
    write_file(text);
    CHECK(mkdir(path_of("accounts.torn"), 0700) == 0);
    CHECK(!open_accounts(QUICK) && strstr(fixture.error, "cannot be moved"));
    after = read_file();
    CHECK(str_equal(str_of(&after), text));
    buf_free(&after);
    CHECK(rmdir(path_of("accounts.torn")) == 0);
    fixture_close();
}

#define METHOD "pbkdf2-sha256"
#define X32 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

/* Lines that are refused, and a word that their complaint must have. */
static const struct {
    struct str line;
    const char *word;
} damages[] = {
    {STR_INIT("pbkdf2-sha512 1000 " SALT " " HASH " n"), "method"},
    {STR_INIT(" " METHOD " 1000 " SALT " " HASH " n"), "method"},
    {STR_INIT("n"), "method"},
    {STR_INIT("\0\0\0"), "method"},
    {STR_INIT(METHOD), "iterations"},
    {STR_INIT(METHOD "  " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 0 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 1e3 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 2147483648 " SALT " " HASH " n"), "iterations"},
    {STR_INIT(METHOD " 1000"), ""},
    {STR_INIT(METHOD " 1000 " SALT "0 " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 " X32 " " HASH " n"), "salt"},
    {STR_INIT(METHOD " 1000 " SALT "  n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " SALT " n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH "00 n"), "hash"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH), "name"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH " "), "name"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH " good"), "twice"},
    {STR_INIT("changed"), "method"},
    {STR_INIT("changed " METHOD " 1000 " SALT " " HASH " n"), "ticket"},
    {STR_INIT("changed " METHOD " 1000 " SALT " " HASH " ticket=1 n"), "ticket"},
    {STR_INIT("changed " METHOD " 1000 " SALT " " HASH " ticket=-1@0 n"), "ticket"},
    {STR_INIT("changed " METHOD " 1000 " SALT " " HASH " ticket=1@9223372036854775808 n"),
     "ticket"},
    {STR_INIT("changed " METHOD " 1000 " SALT " " HASH " ticket=1@2"), "name"},
    {STR_INIT("webhook " METHOD " 1000 " SALT " " HASH " ticket=1@2 n"), "webhook"},
    {STR_INIT("webhook " METHOD " 1000 " SALT " " HASH " ticket=1@2 webhook=1@0:1:"), "name"},
    {STR_INIT("deleted"), "name"},
    {STR_INIT("deleted " X32 X32 X32 X32 "x"), "name"},
    {STR_INIT(METHOD " 1000 " SALT " " HASH " " X32 X32 X32 X32 "x"), "name"},
};

static void names_the_line_that_is_damaged(void)
{
    char expected[PATH_MAX];

    fixture_open(QUICK);
    snprintf(expected, sizeof expected, "%s/accounts:4: ", fixture.folder);
    for (size_t i = 0; i < COUNT(damages); i++) {
        struct buf text = {0};

        buf_append(&text, STR("# header\n" LINE("good") "\n"));
        buf_append(&text, damages[i].line);
        buf_append(&text, i % 2 ? STR("\n" LINE("behind")) : STR("\n"));
        write_file(str_of(&text));
        buf_free(&text);
        CHECK(!open_accounts(QUICK));
        CHECK(strncmp(fixture.error, expected, strlen(expected)) == 0);
        if (!CHECK(strlen(fixture.error) > strlen(expected) &&
                   strstr(fixture.error + strlen(expected), damages[i].word)))
            printf("     %s\n", fixture.error);
    }
    fixture_close();
}

static void says_why_it_cannot_read(void)
{
    char little[8];

    fixture_open(QUICK);
    CHECK(mkdir(path_of("accounts"), 0700) == 0);
    CHECK(!open_accounts(QUICK));
    CHECK(strstr(fixture.error, path_of("accounts")));
    CHECK(strstr(fixture.error, strerror(EISDIR)));
    memset(little, '!', sizeof little);
    CHECK(!account_open(fixture.folder, fixture.wake[1], QUICK, little, 4));
    CHECK(strlen(little) == 3 && little[4] == '!');
    CHECK(rmdir(path_of("accounts")) == 0);
    account_close(NULL);
    fixture_close();
}

/* Whether a name is registered must not show in the time that a refusal takes. */
static void an_unknown_name_costs_the_same(void)
{
    clock_t known, unknown;

    fixture_open(50000);
    CHECK(registers(STR("known"), STR("p")));
    known = clock();
    CHECK(!logs_in(STR("known"), STR("wrong")));
    unknown = clock();
    CHECK(!logs_in(STR("unknown"), STR("wrong")));
    known = unknown - known;
    unknown = clock() - unknown;
    CHECK(unknown > known / 4 && known > unknown / 4);
    fixture_close();
}

static void closing_drops_what_waits(void)
{
    char name[] = "system 0";

    fixture_open(20000);
    for (; name[7] <= '9'; name[7]++)
        CHECK(submit(ACCOUNT_REGISTER, str_from(name), str_from(name)));
    CHECK(open_accounts(QUICK));
    CHECK(!account_exists(fixture.accounts, STR("system 9")));
    for (name[7] = '0'; name[7] <= '9'; name[7]++)
        CHECK(!account_exists(fixture.accounts, str_from(name)) ||
              logs_in(str_from(name), str_from(name)));
    fixture_close();
}

/* An account that cannot be written does not exist (test_os: a failed append changes no file). */
static void an_unsaved_account_does_not_exist(void)
{
    char aside[PATH_MAX];

    fixture_open(QUICK);
    CHECK(registers(STR("before"), STR("b")));
    snprintf(aside, sizeof aside, "%s", path_of("aside"));
    CHECK(rename(path_of("accounts"), aside) == 0 && mkdir(path_of("accounts"), 0700) == 0);
    CHECK(outcome_of(ACCOUNT_REGISTER, "name", "first") == ACCOUNT_UNSAVED);
    CHECK(!account_exists(fixture.accounts, STR("name")));
    CHECK(!logs_in(STR("name"), STR("first")));
    CHECK(logs_in(STR("before"), STR("b")));
    CHECK(rmdir(path_of("accounts")) == 0 && rename(aside, path_of("accounts")) == 0);
    CHECK(registers(STR("name"), STR("second")));
    CHECK(open_accounts(QUICK));
    CHECK(logs_in(STR("name"), STR("second")));
    fixture_close();
}

/* The first account creates the file. */
static void the_first_account_may_be_unsaved(void)
{
    fixture_open(QUICK);
    CHECK(mkdir(path_of("accounts.new"), 0700) == 0);
    CHECK(outcome_of(ACCOUNT_REGISTER, "n", "p") == ACCOUNT_UNSAVED);
    CHECK(access(path_of("accounts"), F_OK) != 0);
    CHECK(rmdir(path_of("accounts.new")) == 0);
    CHECK(registers(STR("n"), STR("p")));
    CHECK(open_accounts(QUICK) && logs_in(STR("n"), STR("p")));
    fixture_close();
}

static void a_file_that_has_gone_is_not_replaced(void)
{
    struct account_result result;

    fixture_open(QUICK);
    CHECK(registers(STR("a"), STR("p")));
    CHECK(unlink(path_of("accounts")) == 0);
    result = ask(ACCOUNT_REGISTER, STR("b"), STR("p"));
    CHECK(result.outcome == ACCOUNT_UNSAVED && strcmp(result.reason, strerror(ENOENT)) == 0);
    CHECK(access(path_of("accounts"), F_OK) != 0);
    fixture_close();
}

/* An account that is known is in the file, while the worker adds others. */
static void a_known_account_is_saved(void)
{
    const unsigned count = 40;
    struct account_result result;
    unsigned seen = 0, results = 0;
    int64_t until = os_now_ms() + TIMEOUT;
    bool good = true;
    char name[20];

    fixture_open(QUICK);
    for (unsigned i = 0; i < count; i++) {
        snprintf(name, sizeof name, "system %u", i);
        while (!submit(ACCOUNT_REGISTER, str_from(name), STR("p")) && os_now_ms() < until)
            poll(NULL, 0, 1);
    }
    while (seen < count && good && os_now_ms() < until) {
        size_t length = (size_t)snprintf(name, sizeof name, " system %u\n", seen);

        if (account_exists(fixture.accounts, (struct str){name + 1, length - 2})) {
            struct buf text = read_file();

            good = holds(&text, str_from(name));
            buf_free(&text);
            seen++;
        }
    }
    CHECK(good && seen == count);
    while (results < count && await_result(&result))
        results += result.outcome == ACCOUNT_DONE;
    CHECK(results == count);
    fixture_close();
}

/* --- accounts in a store --------------------------------------------------------------------- */

#define FAKE_MAX 8

/* A store in memory, which can be told to fail. The worker alone uses it while a job is done. */
struct fake_store {
    struct {
        char name[ACCOUNT_NAME_MAX + 1];
        char record[300];
    } records_kept[FAKE_MAX];
    size_t count, finds, adds, replaces;
    enum account_outcome find_fails, add_fails, replace_fails; /* DONE: they do not */
    int changes;             /* how often another node is faster, */
    const char *next_record; /* and leaves this */
    int gate;                /* -1, or a descriptor to wait for before an answer, */
    int arrival;             /* and one to be written to before that */
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
    struct pollfd wait = {.fd = fake.gate, .events = POLLIN};

    if (fake.gate >= 0)
        CHECK(write(fake.arrival, "x", 1) == 1 && poll(&wait, 1, TIMEOUT) == 1);
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

static enum account_outcome fake_replace(void *state, struct str name, struct str old,
                                         struct str record)
{
    size_t i = 0;

    CHECK(state == &fake);
    fake.replaces++;
    if (fake.replace_fails != ACCOUNT_DONE)
        return fake.replace_fails;
    while (i < fake.count && !str_equal(str_from(fake.records_kept[i].name), name))
        i++;
    if (fake.changes) { /* another node changes it first */
        fake.changes--;
        snprintf(fake.records_kept[i].record, sizeof fake.records_kept[i].record, "%s",
                 fake.next_record);
    }
    if (i == fake.count || !str_equal(str_from(fake.records_kept[i].record), old))
        return ACCOUNT_CHANGED;
    if (record.length)
        snprintf(fake.records_kept[i].record, sizeof fake.records_kept[i].record, "%.*s",
                 (int)record.length, record.at);
    else
        fake.records_kept[i] = fake.records_kept[--fake.count];
    return ACCOUNT_DONE;
}

static const char *fake_reason(void *state)
{
    CHECK(state == &fake);
    return "the store is down";
}

/* The names of those whose records have a webhook. */
static enum account_outcome fake_find_hooked(void *state, struct buf *out)
{
    (void)state;
    buf_append(out, STR("a b\nb\nnobody\n"));
    return ACCOUNT_DONE;
}

static const struct account_store store = {&fake,        fake_find,        fake_add,
                                           fake_replace, fake_find_hooked, fake_reason};

static bool open_store(unsigned iterations)
{
    account_close(fixture.accounts);
    fixture.accounts = account_open_store(&store, fixture.wake[1], iterations, fixture.error,
                                          sizeof fixture.error);
    return fixture.accounts;
}

/* A fixture whose accounts are in the store; its folder stays empty, which closing it checks. */
static void fake_open(unsigned iterations)
{
    fake = (struct fake_store){.gate = -1};
    fixture_open(iterations);
    CHECK(open_store(iterations));
}

/* With the file, and with a store. */
static void registers_and_logs_in(void)
{
    for (int shared = 0; shared < 2; shared++) {
        if (shared)
            fake_open(QUICK);
        else
            fixture_open(QUICK);
        CHECK(!account_exists(fixture.accounts, STR("shop")));
        CHECK(outcome_of(ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DENIED);
        CHECK(outcome_of(ACCOUNT_REGISTER, "shop", "secret") == ACCOUNT_DONE);
        /* with a store the cluster knows who is registered, and this node nothing */
        CHECK(account_exists(fixture.accounts, STR("shop")) == !shared);
        CHECK(!account_exists(fixture.accounts, STR("shops")));
        CHECK(!account_exists(fixture.accounts, STR("sho")));
        CHECK(!account_exists(fixture.accounts, (struct str){0}));
        CHECK(outcome_of(ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DONE);
        CHECK(outcome_of(ACCOUNT_LOGIN, "shop", "Secret") == ACCOUNT_DENIED);
        CHECK(outcome_of(ACCOUNT_LOGIN, "Shop", "secret") == ACCOUNT_DENIED);
        CHECK(outcome_of(ACCOUNT_REGISTER, "shop", "other") == ACCOUNT_EXISTS);
        CHECK(outcome_of(ACCOUNT_LOGIN, "shop", "secret") == ACCOUNT_DONE);
        CHECK(outcome_of(ACCOUNT_LOGIN, "shop", "other") == ACCOUNT_DENIED);
        if (shared) /* adding an account that was found is not tried */
            CHECK(fake.count == 1 && fake.adds == 1 &&
                  strcmp(fake.records_kept[0].name, "shop") == 0);
        fixture_close();
    }
}

/* What one node has registered another finds, whatever iterations it would use itself. */
static void another_node_finds_what_is_stored(void)
{
    fake_open(QUICK);
    CHECK(outcome_of(ACCOUNT_REGISTER, "a", "1") == ACCOUNT_DONE);
    CHECK(open_store(3 * QUICK));
    CHECK(outcome_of(ACCOUNT_LOGIN, "a", "1") == ACCOUNT_DONE);
    CHECK(outcome_of(ACCOUNT_REGISTER, "a", "2") == ACCOUNT_EXISTS);
    CHECK(outcome_of(ACCOUNT_REGISTER, "b", "2") == ACCOUNT_DONE);
    CHECK(open_store(QUICK));
    CHECK(outcome_of(ACCOUNT_LOGIN, "b", "2") == ACCOUNT_DONE);
    CHECK(outcome_of(ACCOUNT_LOGIN, "b", "1") == ACCOUNT_DENIED);
    CHECK(strncmp(fake.records_kept[0].record, METHOD " 10 ", 17) == 0);
    CHECK(strncmp(fake.records_kept[1].record, METHOD " 30 ", 17) == 0);
    fixture_close();
}

/* A damaged record lets nobody in, and is not overwritten. */
static void damaged_records_let_nobody_in(void)
{
    static const char *const records[] = {"", METHOD " 1000 " SALT "  " HASH,
                                          "pbkdf2-sha512 1000 " SALT " " HASH};

    fake_open(QUICK);
    fake_put(STR("n"), STR(METHOD " 1000 " SALT " " HASH));
    CHECK(outcome_of(ACCOUNT_LOGIN, "n", PASSWORD) == ACCOUNT_DONE);
    for (size_t i = 0; i < COUNT(records); i++) {
        fake.count = 0;
        fake_put(STR("n"), str_from(records[i]));
        if (!CHECK(outcome_of(ACCOUNT_LOGIN, "n", PASSWORD) == ACCOUNT_FAILED) ||
            !CHECK(outcome_of(ACCOUNT_REGISTER, "n", PASSWORD) == ACCOUNT_FAILED) ||
            !CHECK(fake.adds == 0 && strcmp(fake.records_kept[0].record, records[i]) == 0))
            printf("     %s\n", records[i]);
    }
    fixture_close();
}

static void a_failing_store_is_reported(void)
{
    static const enum account_outcome fails[] = {ACCOUNT_UNREACHABLE, ACCOUNT_FAILED};

    fake_open(QUICK);
    CHECK(outcome_of(ACCOUNT_REGISTER, "a", "1") == ACCOUNT_DONE);
    fake.adds = 0;
    for (size_t i = 0; i < COUNT(fails); i++) {
        fake.find_fails = fails[i];
        CHECK(outcome_of(ACCOUNT_LOGIN, "a", "1") == fails[i]);
        CHECK(outcome_of(ACCOUNT_LOGIN, "a", "2") == fails[i]);
        CHECK(outcome_of(ACCOUNT_LOGIN, "b", "1") == fails[i]);
        CHECK(outcome_of(ACCOUNT_REGISTER, "a", "1") == fails[i]);
        CHECK(outcome_of(ACCOUNT_REGISTER, "b", "1") == fails[i] && fake.adds == 0);
        fake.find_fails = ACCOUNT_DONE;
        fake.add_fails = fails[i];
        CHECK(outcome_of(ACCOUNT_REGISTER, "b", "1") == fails[i] && fake.adds == 1);
        CHECK(outcome_of(ACCOUNT_REGISTER, "a", "1") == ACCOUNT_EXISTS && fake.adds == 1);
        CHECK(outcome_of(ACCOUNT_LOGIN, "a", "1") == ACCOUNT_DONE);
        CHECK(outcome_of(ACCOUNT_LOGIN, "b", "1") == ACCOUNT_DENIED);
        fake.add_fails = ACCOUNT_DONE;
        fake.adds = 0;
    }
    CHECK(outcome_of(ACCOUNT_REGISTER, "b", "1") == ACCOUNT_DONE);
    fixture_close();
}

/* Two nodes register one name at the same time: both look it up, then the store decides. */
static void the_store_decides_who_was_first(void)
{
    fake_open(QUICK);
    fake.add_fails = ACCOUNT_EXISTS;
    CHECK(outcome_of(ACCOUNT_REGISTER, "a", "1") == ACCOUNT_EXISTS);
    CHECK(fake.finds == 1 && fake.adds == 1 && fake.count == 0);
    fixture_close();
}

/* Holds the worker in the store. */
struct gate {
    int opened[2];  /* a byte written to [1] opens the gate for good */
    int arrived[2]; /* has a byte once the worker waits at it */
};

static struct gate gate;

static void open_gate(void)
{
    CHECK(write(gate.opened[1], "x", 1) == 1);
}

static void gated_open(void)
{
    fake_open(QUICK);
    CHECK(pipe(gate.opened) == 0 && pipe(gate.arrived) == 0);
    fake.gate = gate.opened[0];
    fake.arrival = gate.arrived[1];
}

static bool worker_waits(void)
{
    struct pollfd arrived = {.fd = gate.arrived[0], .events = POLLIN};

    return poll(&arrived, 1, TIMEOUT) == 1;
}

static void gated_close(void)
{
    fixture_close();
    for (int i = 0; i < 2; i++) {
        close(gate.opened[i]);
        close(gate.arrived[i]);
    }
}

/* A store may wait for a network: the loop does not wait with it. Each kind of job has a queue. */
static void a_slow_store_delays_no_caller(void)
{
    struct account_result result;
    int registrations = 1, logins = 0;
    char name[16] = "a";

    gated_open();
    CHECK(submit(ACCOUNT_REGISTER, STR("a"), STR("1")));
    CHECK(worker_waits());
    for (; submit(ACCOUNT_LOGIN, str_from(name), STR("1")); logins++)
        snprintf(name, sizeof name, "a%d", logins);
    while (submit(ACCOUNT_REGISTER, STR("a"), STR("1")))
        registrations++;
    CHECK(logins == ACCOUNT_LOGINS_MAX && registrations == ACCOUNT_REGISTRATIONS_MAX + 1);
    CHECK(!account_exists(fixture.accounts, STR("a")));
    CHECK(!account_take_result(fixture.accounts, &result));
    open_gate();
    for (int i = 0; i < logins + registrations; i++) {
        CHECK(await_result(&result));
        if (result.kind == ACCOUNT_REGISTER)
            CHECK(result.outcome == (i ? ACCOUNT_EXISTS : ACCOUNT_DONE));
        else
            CHECK(result.outcome == (i == 1 ? ACCOUNT_DONE : ACCOUNT_DENIED));
    }
    CHECK(submit(ACCOUNT_LOGIN, STR("a"), STR("1"))); /* there is space again */
    gated_close();
}

/* An origin with many jobs is served in turn with those that have few. */
static void origins_are_served_in_turn(void)
{
    static const uint32_t origins[] = {1, 1, 1, 1, 2, 2, 3};
    static const uint64_t turns[] = {0, 4, 6, 1, 5, 2, 3};
    struct account_result result;
    uint64_t first;

    gated_open();
    first = fixture.request_id + 1;
    for (size_t i = 0; i < COUNT(origins); i++) {
        CHECK(submit_from(origins[i], ACCOUNT_LOGIN, STR("a"), (struct str){"1234567", i + 1}));
        if (i == 0)
            CHECK(worker_waits()); /* it has the first one */
    }
    open_gate();
    for (size_t i = 0; i < COUNT(turns); i++) {
        CHECK(await_result(&result));
        CHECK(result.request_id == first + turns[i] && result.origin == origins[turns[i]]);
    }
    CHECK(submit_from(3, ACCOUNT_LOGIN, STR("a"), STR("1")));
    CHECK(await_result(&result)); /* the list's end was kept right */
    gated_close();
}

/* Submits a login that waits, from an origin of its own or not. */
static enum account_submission submit_login(uint32_t origin, const char *password, int64_t delay)
{
    return submission_of((struct account_request){.kind = ACCOUNT_LOGIN,
                                                  .origin = origin,
                                                  .name = STR("a"),
                                                  .password = str_from(password),
                                                  .delay = delay});
}

static bool next_is(uint64_t request_id, enum account_outcome outcome)
{
    struct account_result result = {0};

    return CHECK(await_result(&result)) && result.request_id == request_id &&
           result.outcome == outcome;
}

/* Fills the queue of logins from one origin, while the worker waits. Returns the last one's id. */
static uint64_t fill_logins(uint32_t origin)
{
    char password[16];

    CHECK(submit_login(origin, "first", 0) == ACCOUNT_SUBMITTED && worker_waits());
    for (int i = 0; i < ACCOUNT_LOGINS_MAX; i++) {
        snprintf(password, sizeof password, "%d", i);
        CHECK(submit_login(origin, password, 0) == ACCOUNT_SUBMITTED);
    }
    CHECK(submit_login(origin, "more", 0) == ACCOUNT_QUEUE_FULL);
    return fixture.request_id - 1;
}

/* The origin with most jobs loses its newest to one that has fewer. */
static void the_origin_with_most_jobs_is_evicted(void)
{
    uint64_t last, mine;

    gated_open();
    last = fill_logins(1);
    for (int i = 0; i < ACCOUNT_LOGINS_MAX / 2; i++) {
        CHECK(submit_login(2 + (uint32_t)i, "mine", 0) == ACCOUNT_SUBMITTED);
        CHECK(next_is(last--, ACCOUNT_EVICTED));
    }
    /* 1 has half of them, each other has one: 2 takes another 22 */
    mine = fixture.request_id - ACCOUNT_LOGINS_MAX / 2 + 1;
    for (char name[] = "mine A"; name[5] <= 'K'; name[5]++) {
        CHECK(submit_login(2, name, 0) == ACCOUNT_SUBMITTED);
        CHECK(next_is(last--, ACCOUNT_EVICTED));
    }
    CHECK(submit_login(2, "mine L", 0) == ACCOUNT_SUBMITTED); /* 1 was served, 2 was not */
    CHECK(next_is(last--, ACCOUNT_EVICTED));
    CHECK(submit_login(2, "mine M", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(submit_login(1, "more", 0) == ACCOUNT_QUEUE_FULL);
    /* registrations are not concerned */
    CHECK(submit_from(1, ACCOUNT_REGISTER, STR("b"), STR("p")));
    open_gate();
    CHECK(next_is(UINT64_MAX / 2 + 1, ACCOUNT_DENIED));
    for (int i = 0; i < 10; i++) {
        struct account_result result;

        CHECK(await_result(&result));
        CHECK(result.kind == ACCOUNT_REGISTER || result.request_id >= mine);
    }
    gated_close();
}

/* As many origins as jobs: one that was not served lately evicts one that was. */
static void the_least_recently_served_origin_goes_first(void)
{
    struct account_result result;

    gated_open();
    CHECK(submit_login(1000, "first", 0) == ACCOUNT_SUBMITTED && worker_waits());
    for (uint32_t i = 0; i < ACCOUNT_LOGINS_MAX; i++)
        CHECK(submit_login(1000 - i, "guess", 0) == ACCOUNT_SUBMITTED);
    CHECK(submit_login(1, "mine", 0) == ACCOUNT_SUBMITTED);
    CHECK(await_result(&result) && result.outcome == ACCOUNT_EVICTED && result.origin == 1000);
    CHECK(submit_login(1000, "guess", 0) == ACCOUNT_QUEUE_FULL);
    CHECK(submit_login(2, "mine", 0) == ACCOUNT_QUEUE_FULL);
    open_gate();
    gated_close();
}

/* The same login from one origin costs one hash, whatever its outcome, and one entry of the queue.
 */
static void the_same_login_is_hashed_once(void)
{
    struct account_result result;
    int coalesced = 0;
    clock_t one, all;

    gated_open();
    CHECK(submit_login(1, "1", 0) == ACCOUNT_SUBMITTED && worker_waits());
    CHECK(submit_login(1, "1", 0) == ACCOUNT_SUBMITTED); /* the other one has begun */
    for (int i = 0; i < ACCOUNT_COALESCED_MAX; i++)
        CHECK(submit_login(1, "1", 0) == ACCOUNT_COALESCED);
    CHECK(submit_login(1, "1", 0) == ACCOUNT_SUBMITTED); /* more than may coalesce */
    CHECK(submit_login(2, "1", 0) == ACCOUNT_SUBMITTED);
    open_gate();
    for (int i = 0; i < ACCOUNT_COALESCED_MAX + 4; i++) {
        CHECK(await_result(&result) && result.outcome == ACCOUNT_DENIED);
        coalesced += result.coalesced;
    }
    CHECK(coalesced == ACCOUNT_COALESCED_MAX);
    CHECK(!account_take_result(fixture.accounts, &result));
    CHECK(submit_login(1, "2", 0) == ACCOUNT_SUBMITTED); /* the queue is empty again */
    CHECK(submit_login(1, "2", 0) == ACCOUNT_SUBMITTED ||
          submit_login(1, "2", 0) == ACCOUNT_COALESCED);
    gated_close();

    fixture_open(100000);
    one = clock();
    CHECK(registers(STR("a"), STR("p")));
    one = clock() - one;
    all = clock();
    for (int i = 0; i < 40; i++)
        CHECK(submission_of((struct account_request){.kind = ACCOUNT_LOGIN,
                                                     .name = STR("a"),
                                                     .password = STR("p")}) != ACCOUNT_QUEUE_FULL);
    for (int i = 0; i < 40; i++)
        CHECK(await_result(&result) && result.outcome == ACCOUNT_DONE);
    all = clock() - all;
    CHECK(all < 10 * one);
    fixture_close();
}

static void coalesced_logins_are_evicted_together(void)
{
    uint64_t last;

    gated_open();
    last = fill_logins(1);
    CHECK(submit_login(1, "47", 0) == ACCOUNT_COALESCED);
    CHECK(submit_login(2, "mine", 0) == ACCOUNT_SUBMITTED);
    CHECK(next_is(last, ACCOUNT_EVICTED));
    CHECK(next_is(last + 2, ACCOUNT_EVICTED));
    CHECK(submit_login(1, "46", 0) == ACCOUNT_COALESCED); /* and is freed when this ends */
    open_gate();
    gated_close();
}

/* A login that was good is recalled without the worker: its password alone, and while the account
 * stays what it was. */
static void a_good_login_is_recalled(void)
{
    uint64_t generation = 0, other = 0;

    fixture_open(QUICK);
    CHECK(registers(STR("a"), STR("p")));
    CHECK(registers(STR("b"), STR("p")));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("p"), &generation));
    CHECK(!logs_in(STR("a"), STR("q")));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("q"), &generation));
    CHECK(logs_in(STR("a"), STR("p")));
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR("p"), &generation) ==
          ACCOUNT_RECALL_HIT);
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("q"), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("pp"), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR(""), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("b"), STR("p"), &other));
    CHECK(!account_recall_login(fixture.accounts, STR("ap"), STR(""), &other));
    CHECK(!logs_in(STR("a"), STR("q"))); /* which takes nothing away */
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR("p"), &other) &&
          other == generation);
    CHECK(account_check_generation(fixture.accounts, STR("a"), generation) == ACCOUNT_TOKEN_VALID);
    CHECK(account_check_generation(fixture.accounts, STR("a"), generation ^ 1) ==
          ACCOUNT_TOKEN_REVOKED);
    CHECK(account_check_generation(fixture.accounts, STR("b"), generation) ==
          ACCOUNT_TOKEN_REVOKED);
    CHECK(account_check_generation(fixture.accounts, STR("c"), generation) == ACCOUNT_TOKEN_ORPHAN);
    CHECK(open_accounts(QUICK)); /* another process has another key */
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("p"), &other));
    CHECK(account_check_generation(fixture.accounts, STR("a"), generation) == ACCOUNT_TOKEN_VALID);
    fixture_close();
}

/* A delayed login is not begun before its time, and others are done meanwhile. */
static void a_delayed_login_waits(void)
{
    struct account_result result;
    int64_t begun = os_now_ms();
    uint64_t first;

    fixture_open(QUICK);
    CHECK(submit_login(1, "guess", 200) == ACCOUNT_SUBMITTED);
    first = fixture.request_id;
    CHECK(submit_login(1, "guess", 200) == ACCOUNT_COALESCED);
    CHECK(submit_login(1, "other", 200) == ACCOUNT_THROTTLED);
    CHECK(submit_login(2, "other", 100) == ACCOUNT_SUBMITTED);
    CHECK(submit_login(1, "at once", 0) == ACCOUNT_SUBMITTED);
    CHECK(next_is(first + 4, ACCOUNT_DENIED));
    CHECK(next_is(first + 3, ACCOUNT_DENIED) && os_now_ms() - begun >= 100);
    CHECK(next_is(first, ACCOUNT_DENIED) && os_now_ms() - begun >= 200);
    CHECK(await_result(&result) && result.request_id == first + 1 && result.coalesced);
    CHECK(submit_login(1, "more", 50) == ACCOUNT_SUBMITTED);
    CHECK(await_result(&result));
    fixture_close();
}

/* --- changes --------------------------------------------------------------------------------- */

static uint64_t generation_of(const char *name, const char *password)
{
    struct account_result result = ask(ACCOUNT_LOGIN, str_from(name), str_from(password));

    CHECK(result.outcome == ACCOUNT_DONE);
    return result.generation;
}

static uint64_t version_of(const char *name, int64_t *since)
{
    uint64_t version = 0;

    CHECK(account_ticket_version(fixture.accounts, str_from(name), &version, since) ==
          ACCOUNT_TOKEN_VALID);
    return version;
}

static enum account_token_status token_status(const char *name, uint64_t generation)
{
    return account_check_generation(fixture.accounts, str_from(name), generation);
}

/* Opens the accounts again: those of the file, or of the store without what was known of it. */
static void open_again(bool shared, const char *name)
{
    if (!shared) {
        CHECK(open_accounts(QUICK));
        return;
    }
    CHECK(open_store(QUICK));
    ask(ACCOUNT_LOOK_UP, str_from(name), STR(""));
}

/* With the file, and with a store: the old password and its tokens are over, the ticket key stays.
 */
static void a_password_is_set(void)
{
    for (int shared = 0; shared < 2; shared++) {
        uint64_t old, new, version;
        int64_t since = 1;

        if (shared)
            fake_open(QUICK);
        else
            fixture_open(QUICK);
        CHECK(registers(STR("two words"), STR("p")) && registers(STR("b"), STR("p")));
        old = generation_of("two words", "p");
        version = version_of("two words", &since);
        CHECK(since == 0);
        CHECK(change(ACCOUNT_SET_PASSWORD, "two words", "wrong", "q") == ACCOUNT_DENIED);
        CHECK(change(ACCOUNT_SET_PASSWORD, "two", "p", "q") == ACCOUNT_DENIED);
        CHECK(token_status("two words", old) == ACCOUNT_TOKEN_VALID);
        CHECK(change(ACCOUNT_SET_PASSWORD, "two words", "p", "q") == ACCOUNT_DONE);
        for (int again = 0; again < 2; again++) {
            CHECK(token_status("two words", old) == ACCOUNT_TOKEN_REVOKED);
            CHECK(!logs_in(STR("two words"), STR("p")) && logs_in(STR("b"), STR("p")));
            new = generation_of("two words", "q");
            CHECK(new != old &&token_status("two words", new) == ACCOUNT_TOKEN_VALID);
            CHECK(version_of("two words", &since) == version && since == 0);
            open_again(shared, "two words");
        }
        CHECK(change(ACCOUNT_RESET_PASSWORD, "two words", "", "r") == ACCOUNT_DONE);
        CHECK(token_status("two words", new) == ACCOUNT_TOKEN_REVOKED);
        CHECK(logs_in(STR("two words"), STR("r")) && !logs_in(STR("two words"), STR("q")));
        CHECK(change(ACCOUNT_RESET_PASSWORD, "c", "", "r") == ACCOUNT_DENIED);
        CHECK(registers(STR("c"), STR("p")));
        fixture_close();
    }
}

static void a_ticket_key_is_rotated(void)
{
    for (int shared = 0; shared < 2; shared++) {
        struct account_result result;
        uint64_t version, generation;
        int64_t since, begun = (int64_t)time(NULL);

        if (shared)
            fake_open(QUICK);
        else
            fixture_open(QUICK);
        CHECK(registers(STR("a b"), STR("p")) && registers(STR("b"), STR("p")));
        version = version_of("a b", &since);
        CHECK(version != version_of("b", &since));
        generation = generation_of("a b", "p");
        for (uint64_t i = 1; i < 4; i++) {
            result = ask(ACCOUNT_ROTATE_KEY, STR("a b"), STR(""));
            CHECK(result.outcome == ACCOUNT_DONE && result.ticket_version == version + i);
            for (int again = 0; again < 2; again++) {
                CHECK(version_of("a b", &since) == version + i);
                CHECK(since >= begun && since <= (int64_t)time(NULL));
                CHECK(token_status("a b", generation) == ACCOUNT_TOKEN_VALID);
                CHECK(logs_in(STR("a b"), STR("p")));
                open_again(shared, "a b");
            }
        }
        CHECK(ask(ACCOUNT_ROTATE_KEY, STR("c"), STR("")).outcome == ACCOUNT_DENIED);
        result = ask(ACCOUNT_LOOK_UP, STR("a b"), STR(""));
        CHECK(result.outcome == ACCOUNT_DONE && result.ticket_version == version + 3);
        CHECK(ask(ACCOUNT_LOOK_UP, STR("c"), STR("")).outcome == ACCOUNT_DENIED);
        fixture_close();
    }
}

/* Sets a webhook; returns the version of its secret, 0 if that fails. */
static uint64_t set_webhook(const char *name, const char *url, uint64_t events, bool rotate)
{
    struct account_request request = {.kind = ACCOUNT_SET_WEBHOOK,
                                      .name = str_from(name),
                                      .url = str_from(url),
                                      .events = events,
                                      .rotate = rotate};
    struct account_result result = {.outcome = ACCOUNT_FAILED};

    CHECK(submission_of(request) == ACCOUNT_SUBMITTED && await_result(&result));
    return result.outcome == ACCOUNT_DONE ? result.webhook_version : 0;
}

/* Takes all webhooks that have changed; the version of that of a system, which must be this one; 0:
 * it has not changed. */
static uint64_t take_webhooks(const char *name, const char *url, uint64_t events, int64_t *since)
{
    struct buf system = {0}, text = {0};
    struct account_webhook webhook;
    uint64_t version = 0;

    while (account_next_webhook(fixture.accounts, &system, &text, &webhook)) {
        if (str_equal(str_of(&system), str_from(name))) {
            CHECK(str_equal(webhook.url, str_from(url)) && webhook.events == events);
            version = webhook.version;
            *since = webhook.since;
        }
        buf_free(&system);
        buf_free(&text);
    }
    return version;
}

/* The password and the ticket key stay, and changes of them leave the webhook. */
static void a_webhook_is_set(void)
{
    for (int shared = 0; shared < 2; shared++) {
        uint64_t version, ticket, generation, found;
        int64_t since;

        if (shared)
            fake_open(QUICK);
        else
            fixture_open(QUICK);
        CHECK(registers(STR("a b"), STR("p")) && registers(STR("b"), STR("p")));
        ticket = version_of("a b", &since);
        generation = generation_of("a b", "p");
        CHECK(set_webhook("c", "http://h/", 1, false) == 0);
        CHECK(take_webhooks("a b", "", 0, &since) == 0);
        version = set_webhook("a b", "http://h/?a=b", 5, false);
        CHECK(version && version != set_webhook("b", "http://h/", 1, false));
        CHECK(take_webhooks("a b", "http://h/?a=b", 5, &since) == version && since == 0);
        CHECK(set_webhook("a b", "http://h/?a=b", 5, false) == version);
        CHECK(take_webhooks("a b", "", 0, &since) == 0);
        CHECK(set_webhook("a b", "http://i/", 7, true) == version + 1);
        CHECK(take_webhooks("a b", "http://i/", 7, &since) == version + 1 && since > 0);
        CHECK(ask(ACCOUNT_ROTATE_KEY, STR("a b"), STR("")).ticket_version == ticket + 1);
        CHECK(token_status("a b", generation) == ACCOUNT_TOKEN_VALID);
        CHECK(change(ACCOUNT_SET_PASSWORD, "a b", "p", "q") == ACCOUNT_DONE);
        CHECK(take_webhooks("a b", "", 0, &since) == 0 && logs_in(STR("a b"), STR("q")));
        open_again(shared, "a b");
        CHECK(take_webhooks("a b", "http://i/", 7, &since) == version + 1 && since > 0);
        account_repeat_webhooks(fixture.accounts);
        if (shared) { /* what this node has never asked for is found, too */
            int64_t until = os_now_ms() + 10000;

            while (!(found = take_webhooks("b", "http://h/", 1, &since)) && os_now_ms() < until)
                poll(NULL, 0, 1);
            CHECK(found);
            account_repeat_webhooks(fixture.accounts);
        }
        CHECK(take_webhooks("a b", "http://i/", 7, &since) == version + 1);
        CHECK(set_webhook("a b", "", 0, false) == version + 1);
        CHECK(take_webhooks("a b", "", 0, &since) == version + 1);
        set_webhook("a b", "http://h/", 1, false);
        take_webhooks("a b", "http://h/", 1, &since);
        since = 1;
        CHECK(change(ACCOUNT_DELETE, "a b", "q", "") == ACCOUNT_DONE);
        CHECK(take_webhooks("a b", "", 0, &since) == 0 && since == 0); /* told, and off */
        CHECK(registers(STR("a b"), STR("p")));
        open_again(shared, "a b");
        CHECK(take_webhooks("a b", "", 0, &since) == 0);
        fixture_close();
    }
}

/* Nothing of a deleted account is good again when its name is registered again. */
static void a_system_is_deleted(void)
{
    for (int shared = 0; shared < 2; shared++) {
        uint64_t old, version, ignored;
        int64_t since;

        if (shared)
            fake_open(QUICK);
        else
            fixture_open(QUICK);
        CHECK(registers(STR("a b"), STR("p")) && registers(STR("b"), STR("p")));
        old = generation_of("a b", "p");
        version = version_of("a b", &since);
        CHECK(change(ACCOUNT_DELETE, "a b", "wrong", "") == ACCOUNT_DENIED);
        CHECK(token_status("a b", old) == ACCOUNT_TOKEN_VALID);
        CHECK(change(ACCOUNT_DELETE, "a b", "p", "") == ACCOUNT_DONE);
        for (int again = 0; again < 2; again++) {
            CHECK(!account_exists(fixture.accounts, STR("a b")));
            CHECK(account_exists(fixture.accounts, STR("b")) == !shared);
            CHECK(token_status("a b", old) == ACCOUNT_TOKEN_ORPHAN);
            CHECK(account_ticket_version(fixture.accounts, STR("a b"), &ignored, &since) ==
                  ACCOUNT_TOKEN_ORPHAN);
            CHECK(!account_recall_login(fixture.accounts, STR("a b"), STR("p"), &ignored));
            CHECK(!logs_in(STR("a b"), STR("p")) && logs_in(STR("b"), STR("p")));
            CHECK(change(ACCOUNT_DELETE, "a b", "p", "") == ACCOUNT_DENIED);
            open_again(shared, "a b");
        }
        CHECK(registers(STR("a b"), STR("p")));
        for (int again = 0; again < 2; again++) {
            CHECK(token_status("a b", old) == ACCOUNT_TOKEN_REVOKED);
            CHECK(version_of("a b", &since) > version + 1000 ||
                  version_of("a b", &since) < version - 1000);
            CHECK(since == 0 && logs_in(STR("a b"), STR("p")));
            open_again(shared, "a b");
        }
        fixture_close();
    }
}

static size_t lines_of_file(void)
{
    struct buf text = read_file();
    size_t lines = 0;

    for (size_t i = 0; i < text.length; i++)
        lines += text.at[i] == '\n';
    buf_free(&text);
    return lines;
}

#define CHANGED(name) "changed " METHOD " 1000 " SALT " " HASH " ticket=77@99 " name "\n"

/* Every change is one more line. */
static void changes_are_appended(void)
{
    struct buf before, after;
    uint64_t version;
    int64_t since;

    fixture_open(QUICK);
    write_file(STR("# a note\n" LINE("old") LINE("other") CHANGED("old") "deleted other\n"));
    CHECK(open_accounts(QUICK));
    version = version_of("old", &since);
    CHECK(version == 77 && since == 99);
    CHECK(logs_in(STR("old"), STR(PASSWORD)) && !account_exists(fixture.accounts, STR("other")));
    before = read_file();
    CHECK(change(ACCOUNT_SET_PASSWORD, "old", PASSWORD, "new") == ACCOUNT_DONE);
    CHECK(change(ACCOUNT_DELETE, "old", "new", "") == ACCOUNT_DONE);
    CHECK(registers(STR("old"), STR("newer")) && lines_of_file() == 8);
    after = read_file();
    CHECK(str_equal(str_of(&before), (struct str){after.at, before.length}));
    CHECK(holds(&after, STR(" ticket=77@99 old\ndeleted old\n" METHOD " 10 ")));
    CHECK(!holds(&after, STR("newer")));
    buf_free(&before);
    buf_free(&after);
    CHECK(open_accounts(QUICK) && logs_in(STR("old"), STR("newer")));
    fixture_close();
}

/* A power cut may leave any part of the line of a change: it has not happened then. */
static void a_torn_change_has_not_happened(void)
{
    static const char *const changes[] = {CHANGED("one"), "deleted one\n"};
    struct str kept = STR(LINE("one") LINE("one more"));
    uint64_t version;
    int64_t since;

    fixture_open(QUICK);
    for (size_t i = 0; i < COUNT(changes); i++)
        for (size_t length = 0; length <= strlen(changes[i]); length++) {
            struct buf text = {0};
            bool whole = length == strlen(changes[i]);

            buf_append(&text, kept);
            buf_append(&text, (struct str){changes[i], length});
            write_file(str_of(&text));
            buf_free(&text);
            CHECK(open_accounts(QUICK));
            CHECK(account_exists(fixture.accounts, STR("one more")));
            CHECK(account_exists(fixture.accounts, STR("one")) == !(i == 1 && whole));
            if (account_exists(fixture.accounts, STR("one"))) {
                version = version_of("one", &since);
                CHECK((version == 77 && since == 99) == whole && (whole || since == 0));
            }
        }
    unlink(path_of("accounts.torn"));
    fixture_close();
}

/* A change that cannot be written has not happened (test_os: a failed append changes no file). */
static void an_unsaved_change_changes_nothing(void)
{
    uint64_t version;
    int64_t since;
    char aside[PATH_MAX];

    fixture_open(QUICK);
    CHECK(registers(STR("a"), STR("p")));
    version = version_of("a", &since);
    snprintf(aside, sizeof aside, "%s", path_of("aside"));
    CHECK(rename(path_of("accounts"), aside) == 0 && mkdir(path_of("accounts"), 0700) == 0);
    CHECK(change(ACCOUNT_SET_PASSWORD, "a", "p", "q") == ACCOUNT_UNSAVED);
    CHECK(change(ACCOUNT_ROTATE_KEY, "a", "", "") == ACCOUNT_UNSAVED);
    CHECK(change(ACCOUNT_DELETE, "a", "p", "") == ACCOUNT_UNSAVED);
    CHECK(account_exists(fixture.accounts, STR("a")) && version_of("a", &since) == version);
    CHECK(logs_in(STR("a"), STR("p")) && !logs_in(STR("a"), STR("q")));
    CHECK(rmdir(path_of("accounts")) == 0 && rename(aside, path_of("accounts")) == 0);
    CHECK(change(ACCOUNT_SET_PASSWORD, "a", "p", "q") == ACCOUNT_DONE);
    fixture_close();
}

/* Writes a file in which `count` lines are superseded. */
static void write_superseded(unsigned count)
{
    struct buf text = {0};

    buf_append(&text, STR("# a note\n" LINE("kept") LINE("gone")));
    for (unsigned i = 1; i < count; i++)
        buf_print(&text, "changed " METHOD " 1000 " SALT " " HASH " ticket=%u@9 kept\n", i);
    buf_append(&text, STR("\n" CHANGED("kept") "deleted gone\n"));
    write_file(str_of(&text));
    buf_free(&text);
}

/* Superseded lines are dropped when they are many: at start-up, and while it runs. What people
 * wrote into the file stays, and what has been taken out of it stays out. */
static void superseded_lines_are_dropped(void)
{
    static const char kept[] = "# a note\n\n" CHANGED("kept");
    struct buf text;
    int64_t since;

    fixture_open(QUICK);
    write_superseded(500);
    CHECK(open_accounts(QUICK) && lines_of_file() == 505);
    write_superseded(1000);
    CHECK(open_accounts(QUICK) && version_of("kept", &since) == 77);
    text = read_file();
    CHECK(str_equal(str_of(&text), str_from(kept)));
    buf_free(&text);
    CHECK(registers(STR("other"), STR("p")) && registers(STR("out"), STR("p")));
    for (int i = 0; i < 998; i++)
        CHECK(ask(ACCOUNT_ROTATE_KEY, STR("other"), STR("")).outcome == ACCOUNT_DONE);
    CHECK(ask(ACCOUNT_DELETE, STR("out"), STR("p")).outcome == ACCOUNT_DONE);
    CHECK(lines_of_file() == 1004);
    CHECK(ask(ACCOUNT_ROTATE_KEY, STR("other"), STR("")).outcome == ACCOUNT_DONE);
    CHECK(lines_of_file() == 5);
    text = read_file();
    CHECK(text.length > sizeof kept && memcmp(text.at, kept, sizeof kept - 1) == 0);
    CHECK(!holds(&text, STR(" out\n")));
    buf_free(&text);
    CHECK(open_accounts(QUICK) && logs_in(STR("other"), STR("p")));
    CHECK(account_exists(fixture.accounts, STR("kept")) &&
          !account_exists(fixture.accounts, STR("out")));
    fixture_close();
}

/* Two nodes change one account: each change is made of what the one before has left. */
static void a_change_that_comes_second_is_made_again(void)
{
    uint64_t version;
    int64_t since;

    fake_open(QUICK);
    fake_put(STR("a"), STR(METHOD " 1000 " SALT " " HASH));
    ask(ACCOUNT_LOOK_UP, STR("a"), STR(""));
    version = version_of("a", &since);
    fake.changes = 2;
    fake.next_record = METHOD " 1000 " SALT " " HASH " ticket=77@99 later=1 words";
    CHECK(ask(ACCOUNT_ROTATE_KEY, STR("a"), STR("")).outcome == ACCOUNT_DONE);
    CHECK(fake.replaces == 2 && version != 77 && version_of("a", &since) == 78);
    /* what a later version wrote stays */
    CHECK(strstr(fake.records_kept[0].record, " later=1 words"));
    CHECK(change(ACCOUNT_SET_PASSWORD, "a", PASSWORD, "q") == ACCOUNT_DONE);
    CHECK(strstr(fake.records_kept[0].record, " ticket=78@") &&
          strstr(fake.records_kept[0].record, " later=1 words"));
    /* another node has set another password: the one that was right is not any more */
    fake.changes = 1;
    fake.next_record = METHOD " 1000 " SALT " " HASH;
    CHECK(change(ACCOUNT_DELETE, "a", "q", "") == ACCOUNT_DENIED && fake.count == 1);
    fake.changes = 99;
    fake.next_record = METHOD " 1000 " SALT " " HASH " ticket=1@1";
    CHECK(change(ACCOUNT_ROTATE_KEY, "a", "", "") == ACCOUNT_DONE);
    fake.replace_fails = ACCOUNT_CHANGED;
    CHECK(change(ACCOUNT_ROTATE_KEY, "a", "", "") == ACCOUNT_EVICTED);
    fake.replace_fails = ACCOUNT_UNREACHABLE;
    version = version_of("a", &since);
    CHECK(outcome_of(ACCOUNT_ROTATE_KEY, "a", "") == ACCOUNT_UNREACHABLE);
    CHECK(outcome_of(ACCOUNT_DELETE, "a", PASSWORD) == ACCOUNT_UNREACHABLE);
    CHECK(version_of("a", &since) == version);
    fixture_close();
}

/* A record of a store with something behind it is read by its beginning, unless that is damaged. */
static void records_of_later_versions_are_read(void)
{
    static const struct {
        const char *record;
        enum account_outcome outcome;
    } records[] = {
        {METHOD " 1000 " SALT " " HASH " ticket=5@6 more", ACCOUNT_DONE},
        {METHOD " 1000 " SALT " " HASH " more ticket=5@6", ACCOUNT_FAILED},
        {METHOD " 1000 " SALT " " HASH " ticket=5@x", ACCOUNT_FAILED},
    };

    fake_open(QUICK);
    for (size_t i = 0; i < COUNT(records); i++) {
        fake.count = 0;
        fake_put(STR("n"), str_from(records[i].record));
        CHECK(outcome_of(ACCOUNT_LOGIN, "n", PASSWORD) == records[i].outcome);
    }
    fixture_close();
}

/* Guesses by way of a change are delayed as logins are, and wait in the same queue. */
static void changes_wait_with_the_logins(void)
{
    struct account_request set = {.kind = ACCOUNT_SET_PASSWORD,
                                  .origin = 1,
                                  .name = STR("a"),
                                  .password = STR("guess"),
                                  .new_password = STR("n"),
                                  .delay = 100};
    struct account_request rotate = {
        .kind = ACCOUNT_ROTATE_KEY, .origin = 1, .name = STR("a"), .password = STR("")};
    struct account_result result;

    gated_open();
    CHECK(submit_login(1, "first", 0) == ACCOUNT_SUBMITTED && worker_waits());
    CHECK(submit_login(1, "guess", 100) == ACCOUNT_SUBMITTED);
    CHECK(submission_of(set) == ACCOUNT_THROTTLED);
    set.kind = ACCOUNT_DELETE;
    CHECK(submission_of(set) == ACCOUNT_SUBMITTED); /* tried again: see account_submit */
    CHECK(await_result(&result) && result.outcome == ACCOUNT_EVICTED);
    CHECK(submit_login(1, "guess", 0) == ACCOUNT_SUBMITTED); /* with no change */
    for (int i = 0; i < ACCOUNT_REGISTRATIONS_MAX; i++)
        CHECK(submission_of(rotate) == ACCOUNT_SUBMITTED);
    CHECK(submission_of(rotate) == ACCOUNT_QUEUE_FULL);
    open_gate();
    for (int i = 0; i < ACCOUNT_REGISTRATIONS_MAX + 3; i++)
        CHECK(await_result(&result) && result.outcome == ACCOUNT_DENIED);
    gated_close();
    set.new_password = (struct str){X32 X32 X32 X32 X32 X32 X32 X32 "x", ACCOUNT_PASSWORD_MAX + 1};
    fixture_open(QUICK);
    CHECK(submission_of(set) == ACCOUNT_NO_RESOURCES);
    fixture_close();
}

/* --- what a store has said -------------------------------------------------------------------- */

static enum account_token_status status_of(uint64_t generation)
{
    return account_check_generation(fixture.accounts, STR("a"), generation);
}

/* Waits for the look-up that was asked for. */
static bool await_status(uint64_t generation, enum account_token_status wanted)
{
    int64_t until = os_now_ms() + TIMEOUT;

    while (status_of(generation) != wanted && os_now_ms() < until)
        poll(NULL, 0, 1);
    return status_of(generation) == wanted;
}

/* Another node registers the account again, or removes it. */
static void fake_change(const char *record)
{
    fake.count = 0;
    if (record)
        fake_put(STR("a"), str_from(record));
}

#define OTHER_SALT "ff0102030405060708090a0b0c0d0e0f"

/* Tokens end when the account is registered again: on that node at once, on others when they have
 * asked the store. */
static void generations_of_a_store_are_learned(void)
{
    struct account_result result;
    uint64_t old, new, recalled;

    fake_open(QUICK);
    CHECK(status_of(1) == ACCOUNT_TOKEN_VALID); /* nothing is known */
    CHECK(await_status(1, ACCOUNT_TOKEN_ORPHAN));
    result = ask(ACCOUNT_REGISTER, STR("a"), STR("p"));
    old = result.generation;
    CHECK(status_of(old) == ACCOUNT_TOKEN_VALID && await_status(1, ACCOUNT_TOKEN_REVOKED));
    result = ask(ACCOUNT_LOGIN, STR("a"), STR("p"));
    CHECK(result.outcome == ACCOUNT_DONE && result.generation == old);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR("p"), &recalled) ==
          ACCOUNT_RECALL_LIKELY);
    /* again, through this node */
    fake_change(NULL);
    new = ask(ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    CHECK(new != old &&status_of(new) == ACCOUNT_TOKEN_VALID);
    CHECK(await_status(old, ACCOUNT_TOKEN_REVOKED));
    CHECK(!account_recall_login(fixture.accounts, STR("a"), STR("p"), &recalled));
    /* again, through another one: a login here learns of it */
    fake_change(METHOD " 1000 " SALT " " HASH);
    result = ask(ACCOUNT_LOGIN, STR("a"), STR(PASSWORD));
    CHECK(result.outcome == ACCOUNT_DONE && status_of(result.generation) == ACCOUNT_TOKEN_VALID);
    CHECK(await_status(new, ACCOUNT_TOKEN_REVOKED) && await_status(old, ACCOUNT_TOKEN_REVOKED));
    fixture_close();
}

/* What was good here may not be so any more in the store: it is asked, and only what has not
 * changed costs no hashing. It goes before all that is to be hashed. */
static void a_likely_login_goes_first(void)
{
    struct account_request likely = {
        .kind = ACCOUNT_LOGIN, .name = STR("a"), .password = STR(PASSWORD), .likely = true};
    struct account_result result;
    uint64_t old, ignored;

    gated_open();
    open_gate();
    fake_put(STR("a"), STR(METHOD " 1000 " SALT " " HASH));
    old = ask(ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).generation;
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_LIKELY);
    /* the same password, of an account that another node has registered again: its generation */
    fake_change(NULL);
    CHECK(open_store(QUICK));
    CHECK(ask(ACCOUNT_REGISTER, STR("a"), STR(PASSWORD)).generation != old);
    CHECK(ask(ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).outcome == ACCOUNT_DONE);
    fake_change(METHOD " 1000 " SALT " " HASH);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_LIKELY);
    CHECK(submission_of(likely) == ACCOUNT_SUBMITTED && await_result(&result));
    CHECK(result.outcome == ACCOUNT_DONE && result.generation == old);
    /* another password: what was good is forgotten with the first try */
    fake_change(METHOD " 1000 " OTHER_SALT " " HASH);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_LIKELY);
    CHECK(submission_of(likely) == ACCOUNT_SUBMITTED && await_result(&result));
    CHECK(result.outcome == ACCOUNT_DENIED);
    CHECK(account_recall_login(fixture.accounts, STR("a"), STR(PASSWORD), &ignored) ==
          ACCOUNT_RECALL_MISS);
    gated_close();

    gated_open();
    fill_logins(1);
    CHECK(submission_of(likely) == ACCOUNT_SUBMITTED);
    open_gate();
    CHECK(await_result(&result) && result.request_id != fixture.request_id);
    CHECK(next_is(fixture.request_id, ACCOUNT_DENIED));
    gated_close();
}

/* A token that differs from what is known may be a newer one: the store is asked, and nothing said
 * before it has answered. */
static void what_differs_is_asked_about(void)
{
    uint64_t old, new;
    unsigned finds;

    fake_open(QUICK);
    fake_put(STR("a"), STR(METHOD " 1000 " OTHER_SALT " " HASH));
    CHECK(ask(ACCOUNT_LOGIN, STR("a"), STR("x")).outcome == ACCOUNT_DENIED);
    fake_change(METHOD " 1000 " SALT " " HASH);
    new = ask(ACCOUNT_LOGIN, STR("a"), STR(PASSWORD)).generation;
    CHECK(open_store(QUICK));
    fake_change(METHOD " 1000 " OTHER_SALT " " HASH);
    CHECK(status_of(1) == ACCOUNT_TOKEN_VALID && await_status(1, ACCOUNT_TOKEN_REVOKED));
    poll(NULL, 0, 1100); /* what is known is not new any more */
    fake_change(METHOD " 1000 " SALT " " HASH);
    CHECK(status_of(new) == ACCOUNT_TOKEN_UNKNOWN);
    CHECK(await_status(new, ACCOUNT_TOKEN_VALID));
    old = 1;
    CHECK(status_of(old) == ACCOUNT_TOKEN_REVOKED);
    /* and not asked again for each call */
    finds = (unsigned)fake.finds;
    for (int i = 0; i < 100; i++)
        CHECK(status_of(old) == ACCOUNT_TOKEN_REVOKED && status_of(new) == ACCOUNT_TOKEN_VALID);
    poll(NULL, 0, MOMENT);
    CHECK((unsigned)fake.finds == finds);
    fixture_close();
}

/* What cannot be looked up stays as it was known. */
static void an_unreachable_store_changes_nothing(void)
{
    uint64_t generation;

    fake_open(QUICK);
    generation = ask(ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    poll(NULL, 0, 1100);
    fake.find_fails = ACCOUNT_UNREACHABLE;
    CHECK(status_of(1) == ACCOUNT_TOKEN_UNKNOWN);
    poll(NULL, 0, MOMENT);
    CHECK(status_of(1) == ACCOUNT_TOKEN_UNKNOWN);
    CHECK(status_of(generation) == ACCOUNT_TOKEN_VALID);
    fixture_close();
}

/* What tickets need is not known before the store was asked, and again when another node says that
 * it has changed the account. */
static void a_change_on_another_node_is_learned(void)
{
    uint64_t generation, version = 0;
    int64_t since = 0, until = os_now_ms() + TIMEOUT;

    fake_open(QUICK);
    CHECK(account_ticket_version(fixture.accounts, STR("a"), &version, &since) ==
          ACCOUNT_TOKEN_UNKNOWN);
    CHECK(ask(ACCOUNT_LOOK_UP, STR("a"), STR("")).outcome == ACCOUNT_DENIED);
    CHECK(account_ticket_version(fixture.accounts, STR("a"), &version, &since) ==
          ACCOUNT_TOKEN_ORPHAN);
    generation = ask(ACCOUNT_REGISTER, STR("a"), STR("p")).generation;
    CHECK(status_of(generation) == ACCOUNT_TOKEN_VALID);
    fake_change(METHOD " 1000 " SALT " " HASH " ticket=77@99");
    CHECK(version_of("a", &since) != 77 && since == 0);
    account_forget(fixture.accounts, STR("a"));
    while (version_of("a", &since) != 77 && os_now_ms() < until)
        poll(NULL, 0, 1);
    CHECK(version_of("a", &since) == 77 && since == 99);
    CHECK(status_of(generation) == ACCOUNT_TOKEN_REVOKED);
    fake_change(NULL);
    account_forget(fixture.accounts, STR("a"));
    CHECK(await_status(generation, ACCOUNT_TOKEN_ORPHAN));
    /* one that is not known here yet */
    CHECK(open_store(QUICK));
    account_forget(fixture.accounts, STR("a"));
    CHECK(await_status(generation, ACCOUNT_TOKEN_ORPHAN));
    fixture_close();
}

static void the_cache_is_limited(void)
{
    char name[24];

    fake_open(QUICK);
    fake.find_fails = ACCOUNT_UNREACHABLE;
    for (int i = 0; i < 3 * ACCOUNT_CACHE_MAX / 2; i++) {
        snprintf(name, sizeof name, "system %d", i);
        CHECK(account_check_generation(fixture.accounts, str_from(name), 1) == ACCOUNT_TOKEN_VALID);
    }
    fixture_close();
}

int main(void)
{
    test_run("registers and logs in", registers_and_logs_in);
    test_run("results come in order", results_come_in_order);
    test_run("names of every kind survive", names_of_every_kind_survive);
    test_run("passwords are any bytes of limited length",
             passwords_are_any_bytes_of_limited_length);
    test_run("the file has no password", the_file_has_no_password);
    test_run("reads an edited file", reads_an_edited_file);
    test_run("a torn line is no account", a_torn_line_is_no_account);
    test_run("a torn line that cannot be moved is an error",
             a_torn_line_that_cannot_be_moved_is_an_error);
    test_run("names the line that is damaged", names_the_line_that_is_damaged);
    test_run("says why it cannot read", says_why_it_cannot_read);
    test_run("an unknown name costs the same", an_unknown_name_costs_the_same);
    test_run("closing drops what waits", closing_drops_what_waits);
    test_run("an unsaved account does not exist", an_unsaved_account_does_not_exist);
    test_run("the first account may be unsaved", the_first_account_may_be_unsaved);
    test_run("a file that has gone is not replaced", a_file_that_has_gone_is_not_replaced);
    test_run("a known account is saved", a_known_account_is_saved);
    test_run("another node finds what is stored", another_node_finds_what_is_stored);
    test_run("damaged records let nobody in", damaged_records_let_nobody_in);
    test_run("a failing store is reported", a_failing_store_is_reported);
    test_run("the store decides who was first", the_store_decides_who_was_first);
    test_run("a slow store delays no caller", a_slow_store_delays_no_caller);
    test_run("origins are served in turn", origins_are_served_in_turn);
    test_run("the origin with most jobs is evicted", the_origin_with_most_jobs_is_evicted);
    test_run("the least recently served origin goes first",
             the_least_recently_served_origin_goes_first);
    test_run("the same login is hashed once", the_same_login_is_hashed_once);
    test_run("coalesced logins are evicted together", coalesced_logins_are_evicted_together);
    test_run("a good login is recalled", a_good_login_is_recalled);
    test_run("a delayed login waits", a_delayed_login_waits);
    test_run("a password is set", a_password_is_set);
    test_run("a ticket key is rotated", a_ticket_key_is_rotated);
    test_run("a webhook is set", a_webhook_is_set);
    test_run("a system is deleted", a_system_is_deleted);
    test_run("changes are appended", changes_are_appended);
    test_run("a torn change has not happened", a_torn_change_has_not_happened);
    test_run("an unsaved change changes nothing", an_unsaved_change_changes_nothing);
    test_run("superseded lines are dropped", superseded_lines_are_dropped);
    test_run("a change that comes second is made again", a_change_that_comes_second_is_made_again);
    test_run("records of later versions are read", records_of_later_versions_are_read);
    test_run("changes wait with the logins", changes_wait_with_the_logins);
    test_run("a change on another node is learned", a_change_on_another_node_is_learned);
    test_run("generations of a store are learned", generations_of_a_store_are_learned);
    test_run("a likely login goes first", a_likely_login_goes_first);
    test_run("what differs is asked about", what_differs_is_asked_about);
    test_run("an unreachable store changes nothing", an_unreachable_store_changes_nothing);
    test_run("the cache is limited", the_cache_is_limited);
    return test_finish();
}
