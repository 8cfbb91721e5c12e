/* account_store.c - where accounts are kept: records as text, and the store in a file.
 *
 * The file has a line for each account, METHOD ITERATIONS SALT HASH NAME; the name is last, for it
 * may have spaces. Lines that begin with '#' and empty ones are comments, which may be
 * edited and stay. A new account is one appended line, on the disk before its success is reported.
 *
 * A crash may leave a part of the last line. What looks like its name may then be a part of one,
 * so a last line without its line feed is no account: it was never reported as success. Start-up
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

/* --- records --------------------------------------------------------------------------------- */

bool account_record_append(struct buf *out, const struct account_record *record)
{
    buf_append(out, STR(METHOD " "));
    buf_append_number(out, record->iterations);
    buf_append(out, STR(" "));
    buf_append_hex(out, CRYPTO_BYTES(record->salt));
    buf_append(out, STR(" "));
    return buf_append_hex(out, CRYPTO_BYTES(record->hash));
}

const char *account_record_read(struct str *rest, struct account_record *record)
{
    struct str method = str_cut(rest, ' '), count = str_cut(rest, ' ');
    struct str salt = str_cut(rest, ' '), hash = str_cut(rest, ' ');
    uint64_t iterations = 0;

    if (!str_equal(method, STR(METHOD)))
        return "unknown method of hashing";
    if (!str_number(count, INT_MAX, &iterations) || iterations == 0)
        return "malformed number of iterations";
    record->iterations = (unsigned)iterations;
    if (!str_read_hex(salt, record->salt, sizeof record->salt) ||
        !str_read_hex(hash, record->hash, sizeof record->hash))
        return "malformed salt or hash";
    return NULL;
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

static bool account_file_load(const struct account_file *file, struct str rest,
                              const char *(*load)(void *, struct str,
                                                  const struct account_record *),
                              void *argument, char *error, size_t size)
{
    for (unsigned number = 1; rest.length; number++) {
        struct str name = str_cut(&rest, '\n');
        struct account_record record;
        const char *wrong;

        if (name.length == 0 || name.at[0] == '#')
            continue;
        wrong = account_record_read(&name, &record);
        if (!wrong && (name.length == 0 || name.length > ACCOUNT_NAME_MAX))
            wrong = "malformed name";
        if (!wrong)
            wrong = load(argument, name, &record);
        if (wrong) {
            snprintf(error, size, "%s:%u: %s", file->path, number, wrong);
            return false;
        }
    }
    return true;
}

static enum account_outcome account_file_add(void *state, struct str name, struct str record)
{
    struct account_file *file = state;
    struct buf line = {0};
    int code;

    buf_append(&line, record);
    buf_append(&line, STR(" "));
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
    return code ? ACCOUNT_UNSAVED : ACCOUNT_DONE;
}

static const char *account_file_reason(void *state)
{
    return ((struct account_file *)state)->reason;
}

bool account_file_open(struct account_file *file, const char *directory,
                       const char *(*load)(void *, struct str, const struct account_record *),
                       void *argument, char *error, size_t size)
{
    struct buf text = {.limit = FILE_LIMIT};
    size_t whole;
    int code;
    bool good = false;

    *file = (struct account_file){.store = {file, NULL, account_file_add, account_file_reason}};
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
        good = account_file_load(file, (struct str){text.at, whole}, load, argument, error, size) &&
               (whole == text.length ||
                account_file_move_torn(file, str_of(&text), whole, error, size));
    file->exists = code == 0;
    buf_free(&text);
    return good;
}
