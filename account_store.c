/* account_store.c - where accounts are kept: records as text, and the store in a file.
 *
 * The file has a line for each account, and one more for each change of it; the last one counts:
 *
 *   METHOD ITERATIONS SALT HASH NAME                                  registered
 *   changed METHOD ITERATIONS SALT HASH ticket=VERSION@SINCE NAME     password set, key rotated
 *   webhook METHOD ITERATIONS SALT HASH ticket=VERSION@SINCE webhook=VERSION@SINCE:EVENTS:URL NAME
 *   deleted NAME
 *
 * The name is last, for it may have spaces. Lines that begin with '#' and empty ones are comments,
 * which may be edited and stay. A change is one appended line, on the disk before its success is
 * reported. When more than half of the lines are superseded, and they are many, the file is
 * replaced by one without them, at start-up or before the next change: what a change costs does not
 * grow with the number of accounts.
 *
 * A crash may leave a part of the last line. What looks like its name may then be a part of one,
 * so a last line without its line feed does not count: it was never reported as success. Start-up
 * moves it to a file beside, for it may also be the work of an editor.
 *
 * The file is created with the first account. One that was there and is gone has been moved by
 * somebody: no other takes its place, registering fails instead. */
#include "account_store.h"

#include "os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FILE_NAME "accounts"
#define TORN_NAME "accounts.torn"
#define FILE_HEADER "# wspush accounts: method iterations salt hash name\n"
#define FILE_LIMIT (256u * 1024 * 1024)
#define METHOD "pbkdf2-sha256"
#define SUPERSEDED_MIN 1000 /* lines that are not worth replacing the file */

/* --- records --------------------------------------------------------------------------------- */

uint64_t account_record_first_version(const struct account_record *record)
{
    unsigned char hash[CRYPTO_HASH_SIZE] = {0};

    crypto_sha256(CRYPTO_BYTES(record->salt), hash);
    return bytes_get_be(hash + 8, 6);
}

bool account_record_append(struct buf *out, const struct account_record *record, bool is_new)
{
    buf_append(out, STR(METHOD " "));
    buf_append_number(out, (int64_t)record->iterations);
    buf_append(out, STR(" "));
    buf_append_hex(out, CRYPTO_BYTES(record->salt));
    buf_append(out, STR(" "));
    buf_append_hex(out, CRYPTO_BYTES(record->hash));
    if (!is_new)
        buf_print(out, " ticket=%llu@%lld", (unsigned long long)record->ticket_version,
                  (long long)record->ticket_since);
    return !out->failed;
}

const char *account_record_read(struct str *rest, struct account_record *record)
{
    struct str method = str_cut(rest, ' '), count = str_cut(rest, ' ');
    struct str salt = str_cut(rest, ' '), hash = str_cut(rest, ' ');

    *record = (struct account_record){0};
    if (!str_equal(method, STR(METHOD)))
        return "unknown method of hashing";
    if (!str_number(count, INT_MAX, &record->iterations) || record->iterations == 0)
        return "malformed number of iterations";
    if (!str_read_hex(salt, record->salt, sizeof record->salt) ||
        !str_read_hex(hash, record->hash, sizeof record->hash))
        return "malformed salt or hash";
    record->ticket_version = account_record_first_version(record);
    return NULL;
}

const char *account_record_read_ticket(struct str *rest, struct account_record *record)
{
    struct str since = str_cut(rest, ' '), name = str_cut(&since, '='), version;
    uint64_t seconds = 0;

    version = str_cut(&since, '@');
    if (!str_equal(name, STR("ticket")) ||
        !str_number(version, INT64_MAX, &record->ticket_version) ||
        !str_number(since, INT64_MAX, &seconds))
        return "malformed ticket";
    record->ticket_since = (int64_t)seconds;
    return NULL;
}

void account_record_set_webhook(struct account_record *record, struct str text)
{
    unsigned char hash[CRYPTO_HASH_SIZE] = {0};

    crypto_sha256(text, hash);
    record->webhook_hash = text.length ? bytes_get_be(hash, 8) | 1 : 0;
}

void account_record_read_webhook(struct str *rest, struct account_record *record,
                                 struct str *webhook)
{
    struct str after = *rest;

    *webhook = str_cut(&after, ' ');
    if (str_equal(str_cut(webhook, '='), STR("webhook")) && webhook->at)
        *rest = after;
    else
        *webhook = (struct str){0};
    account_record_set_webhook(record, *webhook);
}

struct str account_record_webhook(struct str record)
{
    struct account_record ignored;
    struct str webhook = {0};

    if (!account_record_read(&record, &ignored) && !account_record_read_ticket(&record, &ignored))
        account_record_read_webhook(&record, &ignored, &webhook);
    return webhook;
}

bool account_webhook_read(struct str text, struct account_webhook *webhook)
{
    struct str version = str_cut(&text, '@'), since = str_cut(&text, ':');
    struct str events = str_cut(&text, ':');
    uint64_t seconds = 0;

    *webhook = (struct account_webhook){.url = text};
    if (!text.at || !str_number(version, INT64_MAX, &webhook->version) ||
        !str_number(since, INT64_MAX, &seconds) ||
        !str_number(events, UINT32_MAX, &webhook->events) || text.length > ACCOUNT_URL_MAX)
        return false;
    webhook->since = (int64_t)seconds;
    return true;
}

bool account_webhook_append(struct buf *out, const struct account_webhook *webhook)
{
    buf_print(out, "%llu@%lld:%llu:", (unsigned long long)webhook->version,
              (long long)webhook->since, (unsigned long long)webhook->events);
    return buf_append(out, webhook->url);
}

uint64_t account_record_generation(const struct account_record *record)
{
    unsigned char hash[CRYPTO_HASH_SIZE] = {0};

    crypto_sha256(CRYPTO_BYTES(record->salt), hash);
    return bytes_get_be(hash, 8);
}

/* --- the file -------------------------------------------------------------------------------- */

/* Moves what is behind the first `whole` bytes of the text out of the file. */
static bool account_file_move_torn(const struct account_file *file, struct str text, size_t whole,
                                   char *error, size_t size)
{
    int code = os_replace_file(file->directory, TORN_NAME, str_skip(text, whole));

    if (!code)
        code = os_truncate_file(file->path, whole);
    snprintf(error, size,
             code ? "%s: the last line is torn, and cannot be moved to " TORN_NAME ": %s"
                  : "%s: the last line was torn, and has been moved to " TORN_NAME,
             file->path, strerror(code));
    return code == 0;
}

/* A line of the file. */
struct account_line {
    struct str name; /* empty: a comment */
    struct account_record record;
    struct str webhook;
    bool is_new, is_deleted;
};

/* Reads a line. Returns NULL, or what is wrong with it. */
static const char *account_line_read(struct str text, struct account_line *line)
{
    struct str rest = text, word = str_cut(&rest, ' ');
    bool hooked = str_equal(word, STR("webhook"));
    bool is_changed = hooked || str_equal(word, STR("changed"));
    const char *wrong = NULL;

    *line = (struct account_line){.is_deleted = str_equal(word, STR("deleted"))};
    if (text.length == 0 || text.at[0] == '#')
        return NULL;
    line->is_new = !is_changed && !line->is_deleted;
    line->name = line->is_new ? text : rest;
    if (!line->is_deleted)
        wrong = account_record_read(&line->name, &line->record);
    if (!wrong && is_changed)
        wrong = account_record_read_ticket(&line->name, &line->record);
    if (!wrong && hooked) {
        account_record_read_webhook(&line->name, &line->record, &line->webhook);
        wrong = line->webhook.at ? NULL : "malformed webhook";
    }
    if (!wrong && (line->name.length == 0 || line->name.length > ACCOUNT_NAME_MAX))
        wrong = "malformed name";
    return wrong;
}

/* Counts a line that is in the file now. One that deletes is itself of no use. */
static void account_file_count(struct account_file *file, bool is_new, bool is_deleted)
{
    file->lines++;
    file->superseded += (size_t)!is_new + is_deleted;
}

static bool account_file_load(struct account_file *file, struct str rest, char *error, size_t size)
{
    for (unsigned number = 1; rest.length; number++) {
        struct account_line line;
        const char *wrong = account_line_read(str_cut(&rest, '\n'), &line);

        if (!wrong && !line.name.length)
            continue;
        if (!wrong)
            wrong = file->loader.load(file->loader.state, line.name, &line.record, line.webhook,
                                      line.is_new);
        if (wrong) {
            snprintf(error, size, "%s:%u: %s", file->path, number, wrong);
            return false;
        }
        account_file_count(file, line.is_new, line.is_deleted);
    }
    return true;
}

/* Replaces the file by one without superseded lines, if these are many. After a failure the file
 * is as it was, and is tried again when as many more have come. */
static void account_file_compact(struct account_file *file)
{
    struct buf text = {.limit = FILE_LIMIT}, kept = {0};
    struct str rest;
    size_t lines = 0;

    if (file->superseded < SUPERSEDED_MIN || file->superseded < file->lines / 2)
        return;
    file->superseded = 0;
    if (os_read_file(file->path, &text) == 0 && text.length && text.at[text.length - 1] == '\n') {
        for (rest = str_of(&text); rest.length;) {
            struct str whole = str_cut(&rest, '\n');
            struct account_line line;

            if (!account_line_read(whole, &line) && line.name.length &&
                !file->loader.is_current(file->loader.state, line.name, &line.record))
                continue;
            lines += line.name.length > 0;
            buf_append(&kept, whole);
            buf_append(&kept, STR("\n"));
        }
        if (!kept.failed && os_replace_file(file->directory, FILE_NAME, str_of(&kept)) == 0)
            file->lines = lines;
    }
    buf_free(&text);
    buf_free(&kept);
}

/* Appends a line; `record` is empty if the account is deleted. */
static enum account_outcome account_file_append(struct account_file *file, struct str word,
                                                struct str record, struct str name)
{
    struct buf line = {0};
    int code;

    buf_append(&line, word);
    buf_append(&line, record);
    buf_append(&line, record.length ? STR(" ") : STR(""));
    buf_append(&line, name);
    code = buf_append(&line, STR("\n")) ? 0 : ENOMEM;
    if (!code && !file->exists) {
        code = os_replace_file(file->directory, FILE_NAME, STR(FILE_HEADER));
        file->exists = !code;
    }
    if (!code)
        code = os_append_file(file->path, str_of(&line), FILE_LIMIT);
    buf_free(&line);
    if (code)
        strerror_r(code, file->reason, sizeof file->reason);
    else
        account_file_count(file, !word.length, !record.length);
    return code ? ACCOUNT_UNSAVED : ACCOUNT_DONE;
}

static enum account_outcome account_file_add(void *state, struct str name, struct str record)
{
    return account_file_append(state, (struct str){0}, record, name);
}

/* The process has locked the directory: nobody else changes a record. */
static enum account_outcome account_file_replace(void *state, struct str name, struct str old,
                                                 struct str record)
{
    (void)old;
    account_file_compact(state);
    return account_file_append(state,
                               !record.length                      ? STR("deleted ")
                               : account_record_webhook(record).at ? STR("webhook ")
                                                                   : STR("changed "),
                               record, name);
}

static const char *account_file_reason(void *state)
{
    return ((struct account_file *)state)->reason;
}

bool account_file_open(struct account_file *file, const char *directory,
                       const struct account_loader *loader, char *error, size_t size)
{
    struct buf text = {.limit = FILE_LIMIT};
    size_t whole;
    int code;
    bool good = false;

    *file = (struct account_file){
        .store = {file, NULL, account_file_add, account_file_replace, NULL, account_file_reason},
        .loader = *loader};
    snprintf(file->directory, sizeof file->directory, "%s", directory);
    snprintf(file->path, sizeof file->path, "%s/" FILE_NAME, directory);
    error[0] = '\0';
    code = os_read_file(file->path, &text);
    whole = text.length;
    while (whole && text.at[whole - 1] != '\n')
        whole--;
    if (code && code != ENOENT)
        snprintf(error, size, "%s: %s", file->path, strerror(code));
    else
        good = account_file_load(file, (struct str){text.at, whole}, error, size) &&
               (whole == text.length ||
                account_file_move_torn(file, str_of(&text), whole, error, size));
    file->exists = code == 0;
    buf_free(&text);
    if (good)
        account_file_compact(file);
    return good;
}
