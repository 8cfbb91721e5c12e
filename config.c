/* config.c - INI text to `struct config`. */
#include "config.h"

#include "host.h"
#include "origin.h"

#include <stdio.h>
#include <string.h>

enum kind {
    KIND_TEXT,     /* into char[room] */
    KIND_BOOLEAN,  /* true or false */
    KIND_NUMBER,   /* min to max */
    KIND_SECONDS,  /* min to max seconds, with up to three decimals, kept as milliseconds */
    KIND_SIZE,     /* bytes, or with KiB, MiB, GiB behind */
    KIND_WORD,     /* one of `words`, kept as its place */
    KIND_KEY,      /* exactly 16 bytes */
    KIND_REGISTER, /* open, closed or key:SECRET */
    KIND_ADMIN,    /* HOST:PORT, or nothing; host and port are kept apart */
    KIND_LISTEN    /* HOST, or as above */
};

struct complaint;

/* A key of the file, where it goes, and what it may be. */
struct key {
    struct str section, name;
    enum kind kind;
    size_t offset;
    uint64_t min, max; /* of a number; of a text its least length, and its room; of HOST:PORT
                          `min` is where the port goes */
    const char *words; /* separated by spaces */
    const char *preset;
    bool (*check)(struct str value, struct complaint *wrong); /* of a text, or NULL */
};

#define AT(member) offsetof(struct config, member)
#define ROOM(member) sizeof(((struct config *)0)->member)
#define TEXT(section, name, member, preset) CHECKED(section, name, member, 0, preset, NULL)
#define CHECKED(section, name, member, least, preset, check)                                       \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), KIND_TEXT, AT(member), least, ROOM(member), NULL,       \
            preset, check                                                                          \
    }
#define NUMBER(section, name, kind, member, min, max, preset)                                      \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(member), min, max, NULL, preset, NULL          \
    }
#define LISTEN(section, name, kind, host, port, preset)                                            \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(host), AT(port), ROOM(host), NULL, preset,     \
            NULL                                                                                   \
    }
#define CHOICE(section, name, kind, member, words, preset)                                         \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(member), 0, 0, words, preset, NULL             \
    }

#define DAY 86400
#define MIB (1024 * 1024)
#define GIB (1024ull * MIB)

static bool config_check_host(struct str value, struct complaint *wrong);
static bool config_check_networks(struct str value, struct complaint *wrong);
static bool config_check_origins(struct str value, struct complaint *wrong);
static bool config_check_advertise(struct str value, struct complaint *wrong);

static const struct key keys[] = {
    CHECKED("common", "host", host, 1, "0.0.0.0", config_check_host),
    NUMBER("common", "port", KIND_NUMBER, port, 1, 65535, "7800"),
    CHOICE("common", "cluster", KIND_BOOLEAN, cluster, "false true", "false"),
    CHOICE("common", "crypto_key", KIND_KEY, crypto_key, NULL, ""),
    CHOICE("common", "crypto_key_accepted", KIND_KEY, crypto_key_accepted, NULL, ""),
    CHECKED("common", "data_dir", data_dir, 1, "data", NULL),
    TEXT("common", "user", user, ""),
    NUMBER("common", "drain", KIND_SECONDS, drain, 0, 3600, "5"),
    NUMBER("common", "drain_wait", KIND_SECONDS, drain_wait, 0, 3600, "0"),
    CHECKED("common", "trusted_proxies", trusted_proxies, 0, "", config_check_networks),

    NUMBER("auth", "token_ttl", KIND_NUMBER, token_ttl, 1, 3650 * DAY, "172800"),
    CHOICE("auth", "register", KIND_REGISTER, registration, NULL, "open"),

    NUMBER("websocket", "ping", KIND_SECONDS, ping, 1, DAY, "25"),
    NUMBER("websocket", "pong_timeout", KIND_SECONDS, pong_timeout, 1, DAY, "10"),
    NUMBER("websocket", "max_message", KIND_SIZE, max_message, 4, 64 * MIB, "8192"),
    NUMBER("websocket", "send_queue", KIND_SIZE, send_queue, 1024, GIB, "1 MiB"),
    CHECKED("websocket", "allowed_origins", allowed_origins, 0, "", config_check_origins),

    NUMBER("limits", "max_connections", KIND_NUMBER, max_connections, 0, 10000000, "0"),
    NUMBER("limits", "max_per_ip", KIND_NUMBER, max_per_ip, 0, 10000000, "0"),
    NUMBER("limits", "max_body", KIND_SIZE, max_body, 256, 256 * MIB, "1 MiB"),
    NUMBER("limits", "max_head", KIND_SIZE, max_head, 256, MIB, "8 KiB"),
    NUMBER("limits", "max_buffered", KIND_SIZE, max_buffered, MIB, 1024 * GIB, "256 MiB"),
    NUMBER("limits", "head_timeout", KIND_SECONDS, head_timeout, 1, DAY, "10"),
    NUMBER("limits", "idle_timeout", KIND_SECONDS, idle_timeout, 1, DAY, "75"),
    NUMBER("limits", "api_rate", KIND_NUMBER, api_rate, 0, 10000000, "0"),
    NUMBER("limits", "max_groups", KIND_NUMBER, max_groups, 1, 10000000, "1000"),

    CHOICE("notice", "scope", KIND_WORD, scope, "group system off", "group"),
    NUMBER("notice", "max_members", KIND_NUMBER, max_members, 0, 10000000, "1000"),

    CHOICE("log", "level", KIND_WORD, log_level, "debug info warn error", "info"),
    TEXT("log", "file", log_file, ""),
    CHOICE("log", "format", KIND_WORD, log_format, "text json", "text"),

    TEXT("tls", "cert", tls_cert, ""),
    TEXT("tls", "key", tls_key, ""),

    LISTEN("admin", "listen", KIND_ADMIN, admin_host, admin_port, "127.0.0.1:7801"),
    CHOICE("console", "enabled", KIND_BOOLEAN, console, "false true", "true"),

    CHECKED("redis", "host", redis_host, 1, "127.0.0.1", NULL),
    NUMBER("redis", "port", KIND_NUMBER, redis_port, 1, 65535, "6379"),
    TEXT("redis", "password", redis_password, ""),
    NUMBER("redis", "db", KIND_NUMBER, redis_db, 0, 1000000, "0"),
    TEXT("redis", "prefix", redis_prefix, "wspush:"),

    CHECKED("rabbitmq", "host", rabbitmq_host, 1, "127.0.0.1", NULL),
    NUMBER("rabbitmq", "port", KIND_NUMBER, rabbitmq_port, 1, 65535, "5672"),
    TEXT("rabbitmq", "user", rabbitmq_user, "guest"),
    TEXT("rabbitmq", "password", rabbitmq_password, "guest"),
    TEXT("rabbitmq", "vhost", rabbitmq_vhost, "/"),
    CHECKED("rabbitmq", "exchange", rabbitmq_exchange, 1, "wspush", NULL),

    CHECKED("cluster", "advertise", advertise, 0, "", config_check_advertise),
    NUMBER("cluster", "rpc_port", KIND_NUMBER, rpc_port, 0, 65535, "0"),
    LISTEN("cluster", "rpc_listen", KIND_LISTEN, rpc_listen_host, rpc_listen_port, ""),
    NUMBER("cluster", "node_ttl", KIND_SECONDS, node_ttl, 1, 3600, "15"),
    NUMBER("cluster", "rpc_timeout", KIND_NUMBER, rpc_timeout, 10, 2900, "2000"),
};

#define KEY_COUNT (sizeof keys / sizeof keys[0])

/* What is wrong with a value goes here, for the caller to put FILE:LINE before it. */
struct complaint {
    char *text;
    size_t room;
};

static bool complain(struct complaint *complaint, const char *what, struct str detail)
{
    /* it may be any file: control bytes are not printed */
    size_t length = (size_t)snprintf(complaint->text, complaint->room, "%s", what);

    for (size_t i = 0; i < detail.length && i < 100 && length + 1 < complaint->room; i++) {
        unsigned char c = (unsigned char)detail.at[i];
        complaint->text[length++] = c >= 0x20 && c != 0x7f ? (char)c : '?';
    }
    if (complaint->room)
        complaint->text[length < complaint->room ? length : complaint->room - 1] = '\0';
    return false;
}

static bool set_text(const struct key *key, struct str value, char *out, struct complaint *wrong)
{
    if (value.length >= key->max)
        return complain(wrong, "the value is too long: ", key->name);
    if (value.length < key->min)
        return complain(wrong, "a value is needed for ", key->name);
    for (size_t i = 0; i < value.length; i++)
        if ((unsigned char)value.at[i] < 0x20)
            return complain(wrong, "control byte in the value of ", key->name);
    if (key->check && !key->check(value, wrong))
        return false;
    if (value.length)
        memcpy(out, value.at, value.length);
    out[value.length] = '\0';
    return true;
}

static const struct {
    struct str name;
    uint64_t bytes;
} units[] = {{STR_INIT("GiB"), GIB}, {STR_INIT("MiB"), MIB}, {STR_INIT("KiB"), 1024}};

#define UNIT_COUNT (sizeof units / sizeof units[0])

/* A limit as people write it. */
static void config_write_amount(const struct key *key, uint64_t amount, char text[32])
{
    size_t i = 0;

    while (i < UNIT_COUNT && (amount < units[i].bytes || amount % units[i].bytes))
        i++;
    if (key->kind == KIND_NUMBER)
        snprintf(text, 32, "%llu", (unsigned long long)amount);
    else if (i == UNIT_COUNT)
        snprintf(text, 32, "%llu bytes", (unsigned long long)amount);
    else
        snprintf(text, 32, "%llu %s", (unsigned long long)(amount / units[i].bytes),
                 units[i].name.at);
}

/* `digits` is the number in `value`, in front of its unit. */
static bool set_number(const struct key *key, struct str value, struct str digits, uint64_t unit,
                       uint64_t *out, struct complaint *wrong)
{
    uint64_t number = 0;
    char what[200], least[32], most[32];

    if (str_number(digits, UINT64_MAX / unit, &number) && number * unit >= key->min &&
        number * unit <= key->max) {
        *out = number * unit;
        return true;
    }
    config_write_amount(key, key->min, least);
    config_write_amount(key, key->max, most);
    snprintf(what, sizeof what, "%s must be a %s from %s to %s%s, not ", key->name.at,
             key->kind == KIND_SIZE ? "size" : "number", least, most,
             key->kind == KIND_SIZE ? ", in bytes or with KiB, MiB or GiB" : "");
    return complain(wrong, what, value);
}

/* "25" or "0.25": whole seconds keep the file readable, parts of them keep tests short. */
static bool set_seconds(const struct key *key, struct str value, uint64_t *out,
                        struct complaint *wrong)
{
    struct str rest = value, whole = str_cut(&rest, '.');
    uint64_t seconds = 0, part = 0;
    char what[160];
    bool good = str_number(whole, key->max, &seconds);

    if (good && rest.at)
        good = rest.length <= 3 && str_number(rest, 999, &part);
    for (size_t i = rest.length; good && rest.at && i < 3; i++)
        part *= 10;
    *out = seconds * 1000 + part;
    if (good && *out <= key->max * 1000 && (*out > 0 || key->min == 0))
        return true;
    snprintf(what, sizeof what, "%.*s must be a number of seconds %s %llu, not ",
             (int)key->name.length, key->name.at, key->min ? "above 0, up to" : "from 0 to",
             (unsigned long long)key->max);
    return complain(wrong, what, value);
}

static bool set_size(const struct key *key, struct str value, uint64_t *out,
                     struct complaint *wrong)
{
    for (size_t i = 0; i < UNIT_COUNT; i++) {
        struct str suffix = units[i].name, number = value;

        if (value.length <= suffix.length)
            continue;
        number.length -= suffix.length;
        if (str_equal_nocase((struct str){value.at + number.length, suffix.length}, suffix))
            return set_number(key, value, str_trim(number), units[i].bytes, out, wrong);
    }
    return set_number(key, value, value, 1, out, wrong);
}

/* The place of a word in a list, or -1. */
static int word_index(const char *words, struct str word)
{
    struct str rest = str_from(words);

    for (int i = 0; rest.at; i++)
        if (str_equal_nocase(str_cut(&rest, ' '), word))
            return i;
    return -1;
}

static bool set_register(struct str value, struct config *config, struct complaint *wrong)
{
    struct str secret = value, word = str_cut(&secret, ':');

    config->register_key[0] = '\0';
    if (str_equal_nocase(value, STR("open"))) {
        config->registration = REGISTER_OPEN;
    } else if (str_equal_nocase(value, STR("closed"))) {
        config->registration = REGISTER_CLOSED;
    } else if (str_equal_nocase(word, STR("key")) && secret.length > 0 &&
               secret.length < sizeof config->register_key) {
        config->registration = REGISTER_KEY;
        memcpy(config->register_key, secret.at, secret.length);
        config->register_key[secret.length] = '\0';
    } else {
        /* the value may hold a secret: it is not repeated */
        return complain(wrong, "register must be open, closed or key:SECRET (1 to 255 bytes)",
                        (struct str){0});
    }
    return true;
}

static bool config_set_listen(struct config *config, const struct key *key, struct str value,
                              struct complaint *wrong)
{
    char *out = (char *)config + key->offset;
    struct str host = {0};
    uint64_t port = 0;

    if (value.length && (!host_split(value, &host, &port) || host.length >= key->max ||
                         (key->kind == KIND_ADMIN && !port)))
        return key->kind == KIND_ADMIN
                   ? complain(wrong, "listen must be ADDRESS:PORT, such as 127.0.0.1:7801, not ",
                              value)
                   : complain(wrong,
                              "rpc_listen must be an address of this machine, with or without "
                              "a port, such as 0.0.0.0:8800 or [::]:8800, not ",
                              value);
    if (host.length)
        memcpy(out, host.at, host.length);
    out[host.length] = '\0';
    memcpy((char *)config + key->min, &port, sizeof port);
    return true;
}

/* --- lists ------------------------------------------------------------------------------------ */

static bool config_check_networks(struct str value, struct complaint *wrong)
{
    struct str rest = value;
    unsigned char address[16];
    unsigned bits;

    while (host_next_network(&rest, address, &bits))
        continue;
    return rest.length == 0 ||
           complain(wrong,
                    "trusted_proxies must be addresses and networks such as 10.0.0.0/8 or "
                    "fd00::/8, not ",
                    str_entry(&rest));
}

static bool config_check_host(struct str value, struct complaint *wrong)
{
    if (str_equal(value, STR("unix:")))
        return complain(wrong, "host = unix: needs a path, such as unix:/run/wspush/socket",
                        (struct str){0});
    return true;
}

static bool config_check_advertise(struct str value, struct complaint *wrong)
{
    return value.length == 0 || host_is_reachable(value) ||
           complain(wrong,
                    "advertise must be an address of this machine or a host name, such as "
                    "10.0.0.11, fd00::11 or push-1.example, not ",
                    value);
}

static bool config_check_origins(struct str value, struct complaint *wrong)
{
    struct str rest = value, entry = str_entry(&rest);
    bool good = value.length == 0 || entry.length > 0; /* not just commas */

    while (good && entry.length && (good = origin_is_good(entry)))
        entry = str_entry(&rest);
    return good || complain(wrong,
                            "allowed_origins must be *, null, or the origins of pages such as "
                            "https://shop.example or https://*.shop.example:8443, not ",
                            entry.length ? entry : value);
}

bool config_allows_origin(const struct config *config, struct str origin)
{
    return origin_is_allowed(str_from(config->allowed_origins), origin);
}

static bool config_complain_key(const struct key *key, struct complaint *wrong)
{
    char what[80];

    snprintf(what, sizeof what, "%.*s must have exactly 16 bytes", (int)key->name.length,
             key->name.at);
    return complain(wrong, what, (struct str){0}); /* a secret is not repeated */
}

static bool set_value(struct config *config, const struct key *key, struct str value,
                      struct complaint *wrong)
{
    void *out = (char *)config + key->offset;
    int word = key->words ? word_index(key->words, value) : 0;
    char what[160];

    if (value.length && memchr(value.at, '\0', value.length)) /* a text ends in one */
        return complain(wrong, "NUL byte in the value of ", key->name);
    if (word < 0) {
        snprintf(what, sizeof what, "%.*s must be one of: %s; not ", (int)key->name.length,
                 key->name.at, key->words);
        return complain(wrong, what, value);
    }
    switch (key->kind) {
    case KIND_TEXT:
        return set_text(key, value, out, wrong);
    case KIND_BOOLEAN:
        *(bool *)out = word == 1;
        return true;
    case KIND_NUMBER:
        return set_number(key, value, value, 1, out, wrong);
    case KIND_SECONDS:
        return set_seconds(key, value, out, wrong);
    case KIND_SIZE:
        return set_size(key, value, out, wrong);
    case KIND_WORD:
        memcpy(out, &(unsigned){(unsigned)word}, sizeof(unsigned));
        return true;
    case KIND_REGISTER:
        return set_register(value, config, wrong);
    case KIND_ADMIN:
    case KIND_LISTEN:
        return config_set_listen(config, key, value, wrong);
    case KIND_KEY:
        if (value.length != 16 && value.length != 0)
            return config_complain_key(key, wrong);
        if (value.length)
            memcpy(out, value.at, value.length);
        ((char *)out)[value.length] = '\0';
        return true;
    }
    return false;
}

void config_defaults(struct config *config)
{
    char text[200];
    struct complaint wrong = {text, sizeof text};

    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < KEY_COUNT; i++)
        set_value(config, &keys[i], str_from(keys[i].preset), &wrong);
}

/* --- INI -------------------------------------------------------------------------------------- */

/* How many letters must be changed, added or left out to make one name of the other; 9 for names
 * that nobody mistypes. */
static size_t config_edit_distance(struct str a, struct str b)
{
    size_t row[64] = {0};

    if (a.length > 63 || b.length > 63)
        return 9;
    for (size_t j = 0; j <= b.length; j++)
        row[j] = j;
    for (size_t i = 0; i < a.length; i++) {
        size_t corner = row[0]++;

        for (size_t j = 0; j < b.length; j++) {
            struct str left = {a.at + i, 1}, right = {b.at + j, 1};
            size_t least = corner + !str_equal_nocase(left, right);

            corner = row[j + 1];
            if (row[j] + 1 < least)
                least = row[j] + 1;
            row[j + 1] = corner + 1 < least ? corner + 1 : least;
        }
    }
    return row[b.length];
}

/* The name that is the most like `name`: a key of `section`, or a section if that is {NULL, 0}.
 * {NULL, 0} if none is like it. */
static struct str config_find_similar(struct str name, struct str section)
{
    struct str best = {0};
    size_t least = 3;

    for (size_t i = 0; i < KEY_COUNT; i++) {
        struct str other = section.at ? keys[i].name : keys[i].section;
        size_t distance = config_edit_distance(name, other);

        if ((!section.at || str_equal(keys[i].section, section)) && distance < least &&
            distance * 3 <= other.length + 2) {
            least = distance;
            best = other;
        }
    }
    return best;
}

/* Complains, with a hint at what was meant if something is known that could have been. */
static bool config_complain_like(struct complaint *wrong, const char *what, struct str name,
                                 const char *before, const char *meant, const char *behind)
{
    size_t length;

    complain(wrong, what, name);
    length = strlen(wrong->text);
    if (meant && meant[0])
        snprintf(wrong->text + length, wrong->room - length, "; %s%s%s", before, meant, behind);
    return false;
}

static bool config_complain_unknown(struct complaint *wrong, const char *what, struct str name,
                                    struct str section)
{
    struct str best = config_find_similar(name, section), owner = {0};

    for (size_t i = 0; i < KEY_COUNT && section.at && !best.at && !owner.at; i++)
        if (str_equal_nocase(keys[i].name, name))
            owner = keys[i].section;
    if (owner.at)
        return config_complain_like(wrong, what, name, "it belongs to [", owner.at, "]");
    return config_complain_like(wrong, what, name, "did you mean ", best.at, "?");
}

/* The text without its comment, which begins with '#' or ';' behind white space. */
static struct str strip_comment(struct str text)
{
    for (size_t i = 1; i < text.length; i++)
        if ((text.at[i] == '#' || text.at[i] == ';') &&
            (text.at[i - 1] == ' ' || text.at[i - 1] == '\t'))
            text.length = i;
    return str_trim(text);
}

/* Reads what stands behind the '=': without quotes up to a comment, in quotes as it is. `room` has
 * the value if quotes are taken off. */
static bool config_read_value(struct str text, char room[CONFIG_VALUE_MAX], struct str *value,
                              struct complaint *wrong)
{
    struct str quoted = str_trim(text), behind;
    size_t length = 0, i = 1;

    if (quoted.length == 0 || quoted.at[0] != '"') {
        *value = strip_comment(text);
        return true;
    }
    for (; i < quoted.length && quoted.at[i] != '"'; i++) {
        if (quoted.at[i] == '\\' &&
            (++i == quoted.length || (quoted.at[i] != '"' && quoted.at[i] != '\\')))
            i = quoted.length; /* refused below */
        else if (length++ < CONFIG_VALUE_MAX)
            room[length - 1] = quoted.at[i];
    }
    if (i < quoted.length) {
        behind = (struct str){quoted.at + i + 1, quoted.length - i - 1};
        if (strip_comment(behind).length)
            i = quoted.length;
    }
    *value = (struct str){room, length};
    if (i >= quoted.length)
        return complain(wrong,
                        "a value that begins with a double quote must end with one; in it, "
                        "\\\" and \\\\ stand for \" and \\, and \\ for nothing else",
                        (struct str){0});
    return length <= CONFIG_VALUE_MAX || complain(wrong, "the value is too long", (struct str){0});
}

static bool find_section(struct str line, struct str *section, struct complaint *wrong)
{
    struct str name = {line.at + 1, line.length - 1};

    if (name.length == 0 || name.at[name.length - 1] != ']')
        return complain(wrong, "a section must end with ]", (struct str){0});
    name.length--;
    name = str_trim(name);
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (str_equal_nocase(keys[i].section, name)) {
            *section = keys[i].section;
            return true;
        }
    return config_complain_unknown(wrong, "unknown section: ", name, (struct str){0});
}

static bool parse_line(struct config *config, struct str line, struct str *section,
                       bool seen[KEY_COUNT], struct complaint *wrong)
{
    struct str bare = strip_comment(line), value = line, name;
    char room[CONFIG_VALUE_MAX];

    if (line.at[0] == '[')
        return find_section(bare, section, wrong);
    if (memchr(bare.at, '\0', bare.length))
        return complain(wrong, "NUL byte in the line", (struct str){0});
    if (!memchr(bare.at, '=', bare.length))
        return complain(wrong, "key = value is expected", (struct str){0});
    name = str_trim(str_cut(&value, '='));
    if (!section->at)
        return complain(wrong, "a [section] is expected before this key: ", name);
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (!str_equal(keys[i].section, *section) || !str_equal_nocase(keys[i].name, name))
            continue;
        if (seen[i])
            return complain(wrong, "this key was given before: ", name);
        seen[i] = true;
        return config_read_value(value, room, &value, wrong) &&
               set_value(config, &keys[i], value, wrong);
    }
    return config_complain_unknown(wrong, "unknown key: ", name, *section);
}

bool config_parse(struct config *config, const char *file, struct str text, char *error,
                  size_t room)
{
    bool seen[KEY_COUNT] = {false};
    struct str rest = text, section = {0};

    if (rest.length >= 3 && memcmp(rest.at, "\xef\xbb\xbf", 3) == 0)
        rest = (struct str){rest.at + 3, rest.length - 3}; /* some editors write this mark */
    for (unsigned number = 1; rest.at; number++) {
        struct str line = str_cut(&rest, '\n');
        char what[400];
        struct complaint wrong = {what, sizeof what};

        if (line.length && line.at[line.length - 1] == '\r')
            line.length--;
        line = str_trim(line);
        if (line.length && line.at[0] != '#' && line.at[0] != ';' &&
            !parse_line(config, line, &section, seen, &wrong)) {
            snprintf(error, room, "%s:%u: %s", file, number, what);
            return false;
        }
    }
    return true;
}

/* --- the environment -------------------------------------------------------------------------- */

/* Writes the name of a key's variable; they are short. */
static struct str config_write_variable(const struct key *key, char text[64])
{
    int length = snprintf(text, 64, "WSPUSH_%s_%s", key->section.at, key->name.at);

    for (int i = 0; i < length; i++)
        if (text[i] >= 'a' && text[i] <= 'z')
            text[i] = (char)(text[i] - 'a' + 'A');
    return (struct str){text, (size_t)length};
}

/* Cuts _FILE off the end. */
static bool config_cut_file(struct str *name)
{
    struct str suffix = STR("_FILE");
    size_t length = name->length - suffix.length;

    if (name->length <= strlen("WSPUSH_") + suffix.length ||
        !str_equal((struct str){name->at + length, suffix.length}, suffix))
        return false;
    name->length = length;
    return true;
}

static const struct key *config_find_variable(struct str name)
{
    char text[64];

    for (size_t i = 0; i < KEY_COUNT; i++)
        if (str_equal(config_write_variable(&keys[i], text), name))
            return &keys[i];
    return NULL;
}

bool config_names_file(struct str name)
{
    struct str stem = name;

    return config_cut_file(&stem) && config_find_variable(stem);
}

static bool config_complain_variable(struct str name, struct complaint *wrong)
{
    struct str stem = name, tail = {name.at + strlen("WSPUSH_"), name.length - strlen("WSPUSH_")};
    bool file = config_cut_file(&stem);
    char text[64], best[64] = "";
    size_t least = 3;

    for (size_t i = 0; i < KEY_COUNT; i++) {
        size_t distance = config_edit_distance(stem, config_write_variable(&keys[i], text));

        if (distance < least || (!best[0] && str_equal_nocase(tail, keys[i].name)))
            memcpy(best, text, sizeof best);
        if (distance < least)
            least = distance;
    }
    return config_complain_like(wrong, "unknown variable of the environment: ", name,
                                "did you mean ", best, file ? "_FILE?" : "?");
}

bool config_set(struct config *config, struct str name, struct str value, char *error, size_t room)
{
    struct str stem = name;
    const struct key *key = config_find_variable(name);
    char what[400];
    struct complaint wrong = {what, sizeof what};

    if (!key && config_cut_file(&stem))
        key = config_find_variable(stem);
    if (key && set_value(config, key, value, &wrong))
        return true;
    if (key) {
        snprintf(error, room, "%.*s: %s", (int)name.length, name.at, what);
        return false;
    }
    config_complain_variable(name, &wrong);
    snprintf(error, room, "%s", what);
    return false;
}

/* --- two configurations ----------------------------------------------------------------------- */

/* Keys that may change while the server runs. */
static bool is_live(const struct key *key)
{
    return str_equal(key->section, STR("limits")) || str_equal(key->section, STR("tls")) ||
           str_equal(key->section, STR("notice")) || key->offset == AT(log_level) ||
           key->offset == AT(allowed_origins);
}

/* How many bytes a value has in struct config; of a register and an admin it is its first part. */
static size_t value_size(const struct key *key)
{
    switch (key->kind) {
    case KIND_TEXT:
        return (size_t)key->max;
    case KIND_KEY:
        return ROOM(crypto_key);
    case KIND_ADMIN:
    case KIND_LISTEN:
        return (size_t)key->max;
    case KIND_BOOLEAN:
        return sizeof(bool);
    case KIND_WORD:
    case KIND_REGISTER:
        return sizeof(unsigned);
    case KIND_NUMBER:
    case KIND_SECONDS:
    case KIND_SIZE:
        break;
    }
    return sizeof(uint64_t);
}

/* Texts are compared to their end, behind which they may differ. */
static bool is_same(const struct config *a, const struct config *b, const struct key *key)
{
    const char *left = (const char *)a + key->offset, *right = (const char *)b + key->offset;
    bool listen = key->kind == KIND_ADMIN || key->kind == KIND_LISTEN;
    bool text = key->kind == KIND_TEXT || key->kind == KIND_KEY || listen;

    if (text ? strcmp(left, right) != 0 : memcmp(left, right, value_size(key)) != 0)
        return false;
    return (key->kind != KIND_REGISTER || strcmp(a->register_key, b->register_key) == 0) &&
           (!listen ||
            memcmp((const char *)a + key->min, (const char *)b + key->min, sizeof(uint64_t)) == 0);
}

/* The value of a live key as text. */
static void describe(const struct config *config, const struct key *key,
                     char text[CONFIG_VALUE_MAX])
{
    const char *at = (const char *)config + key->offset;
    struct str rest = str_from(key->words ? key->words : "");
    uint64_t number = 0;
    unsigned word = 0;

    if (key->kind == KIND_WORD) {
        memcpy(&word, at, sizeof word);
        for (unsigned i = 0; i < word; i++)
            str_cut(&rest, ' ');
        rest = str_cut(&rest, ' ');
        snprintf(text, CONFIG_VALUE_MAX, "%.*s", (int)rest.length, rest.at);
    } else if (key->kind == KIND_TEXT) {
        snprintf(text, CONFIG_VALUE_MAX, "%s", at);
    } else {
        memcpy(&number, at, sizeof number);
        snprintf(text, CONFIG_VALUE_MAX, "%llu",
                 (unsigned long long)(key->kind == KIND_SECONDS ? number / 1000 : number));
        if (key->kind == KIND_SECONDS && number % 1000)
            snprintf(text, CONFIG_VALUE_MAX, "%llu.%03u", (unsigned long long)number / 1000,
                     (unsigned)(number % 1000));
    }
}

bool config_next_change(const struct config *from, const struct config *to, size_t *place,
                        struct config_change *change)
{
    while (*place < KEY_COUNT && is_same(from, to, &keys[*place]))
        ++*place;
    if (*place == KEY_COUNT)
        return false;
    *change = (struct config_change){
        .section = keys[*place].section, .name = keys[*place].name, .live = is_live(&keys[*place])};
    if (change->live) {
        describe(from, &keys[*place], change->from);
        describe(to, &keys[*place], change->to);
    }
    ++*place;
    return true;
}

void config_adopt(struct config *into, const struct config *from)
{
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (is_live(&keys[i]))
            memcpy((char *)into + keys[i].offset, (const char *)from + keys[i].offset,
                   value_size(&keys[i]));
}
