/* config.c - INI text and variables of the environment to `struct config`.
 *
 * One table, `keys`, has a row for each key: section, name, kind, where its value goes in struct
 * config, its limits and its default. Reading, defaults, error texts, variable names, and what a
 * reload compares and logs all follow from that row; config_set_value is the one way in.
 *
 * A value is kept as it is used: milliseconds, bytes, an enum. config_write_value gives it back as
 * text that config_set_value would take, in one spelling: so a change from "1 MiB" to "1048576" is
 * none. Two configurations are compared, logged and adopted by these texts.
 *
 * A bad value is an error with FILE:LINE or the variable's name; a file that is not the right one
 * may have any bytes, so error texts replace control bytes. Secrets are never repeated in them. */
#include "config.h"

#include "host.h"
#include "webhook_client.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DAY 86400
#define MIB (1024 * 1024)
#define GIB (1024ull * MIB)
#define COMPLAINT_MAX 800 /* bytes: two formats, and two details of up to 100 */

enum kind {
    KIND_TEXT,     /* into char[max] */
    KIND_NUMBER,   /* min to max */
    KIND_SECONDS,  /* min to max seconds, with up to three decimals, kept as milliseconds */
    KIND_SIZE,     /* bytes, or with KiB, MiB, GiB behind */
    KIND_WORD,     /* one of `words`, kept as its index, in an int or an enum */
    KIND_SECRET,   /* 16 bytes or none */
    KIND_REGISTER, /* open, closed or key:SECRET */
    KIND_LISTEN    /* HOST:PORT, nothing, or if `min` is 0 HOST; host and port are kept apart */
};

struct key {
    struct str section, name;
    enum kind kind;
    size_t offset;     /* in struct config */
    uint64_t min, max; /* of a number; of a text its least length, and its size with a NUL */
    const char *preset;
    const char *expected; /* words separated by spaces; or what an error says a value must be */
    struct str (*find_bad)(struct str value); /* of a text, or NULL */
    size_t port_offset;                       /* of KIND_LISTEN */
};

#define NO_DETAIL ((struct str){0})

/* Appends to an error: a format, then up to 100 bytes of `detail`, with '?' for control bytes.
 * Returns false. */
#ifdef __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
static bool
config_complain(struct buf *wrong, struct str detail, const char *format, ...)
{
    char text[COMPLAINT_MAX / 2];
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    buf_append(wrong, str_from(text));
    for (size_t i = 0; i < detail.length && i < 100; i++) {
        unsigned char c = (unsigned char)detail.at[i];

        buf_append(wrong, c >= 0x20 && c != 0x7f ? (struct str){detail.at + i, 1} : STR("?"));
    }
    return false;
}

static void config_copy_text(struct str text, char *out)
{
    if (text.length)
        memcpy(out, text.at, text.length);
    out[text.length] = '\0';
}

/* --- checks of texts -------------------------------------------------------------------------- */

/* Each returns the part of a value that is wrong; an empty one: none is. */

static struct str config_find_bad_network(struct str value)
{
    unsigned char address[16];
    unsigned bits;

    while (host_next_network(&value, address, &bits))
        continue;
    return str_entry(&value);
}

static struct str config_find_bad_origin(struct str value)
{
    struct str rest = value, entry = str_entry(&rest);

    if (!entry.length) /* just commas, or nothing */
        return value;
    while (entry.length && host_origin_is_good(entry))
        entry = str_entry(&rest);
    return entry;
}

static struct str config_find_bad_server(struct str value)
{
    struct str rest = value, entry = str_entry(&rest), host;
    uint64_t port;

    while (entry.length && host_split(entry, &host, &port) && host_is_reachable(host))
        entry = str_entry(&rest);
    return entry;
}

static struct str config_find_bad_url(struct str value)
{
    struct str rest = value, entry = str_entry(&rest);
    struct receiver_url url;

    while (entry.length && receiver_read_url(entry, &url))
        entry = str_entry(&rest);
    return entry;
}

static struct str config_find_bad_address(struct str value)
{
    return host_is_reachable(value) ? (struct str){0} : value;
}

/* --- the keys --------------------------------------------------------------------------------- */

#define AT(member) offsetof(struct config, member)
#define SIZE(member) sizeof(((struct config *)0)->member)
#define KEY(section, name, kind, member, min, max, preset, words, check, port)                     \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(member), min, max, preset, words, check, port  \
    }
#define CHECKED(section, name, member, least, preset, check, expected)                             \
    KEY(section, name, KIND_TEXT, member, least, SIZE(member), preset, expected, check, 0)
#define TEXT(section, name, member, least, preset)                                                 \
    CHECKED(section, name, member, least, preset, NULL, NULL)
#define NUMBER(section, name, kind, member, min, max, preset)                                      \
    KEY(section, name, kind, member, min, max, preset, NULL, NULL, 0)
#define CHOICE(section, name, kind, member, words, preset)                                         \
    KEY(section, name, kind, member, 0, 0, preset, words, NULL, 0)
#define SERVERS(section, name, member, port)                                                       \
    CHECKED(section, name, member, 0, "", config_find_bad_server,                                  \
            "hosts with or without a port, such as 10.0.0.11 b.example:" port)
#define TLS(section, member)                                                                       \
    CHOICE(section, "tls", KIND_WORD, member.enabled, "false true", "false"),                      \
        TEXT(section, "ca", member.ca, 0, ""), TEXT(section, "cert", member.cert, 0, ""),          \
        TEXT(section, "key", member.key, 0, "")
#define LISTEN(section, name, host, port, least, preset, expected)                                 \
    KEY(section, name, KIND_LISTEN, host, least, SIZE(host), preset, expected, NULL, AT(port))

static const struct key keys[] = {
    TEXT("common", "host", host, 1, "0.0.0.0"),
    NUMBER("common", "port", KIND_NUMBER, port, 1, 65535, "7800"),
    CHOICE("common", "cluster", KIND_WORD, cluster, "false true", "false"),
    CHOICE("common", "crypto_key", KIND_SECRET, crypto_key, NULL, ""),
    CHOICE("common", "crypto_key_accepted", KIND_SECRET, crypto_key_accepted, NULL, ""),
    TEXT("common", "data_dir", data_dir, 1, "data"),
    TEXT("common", "user", user, 0, ""),
    NUMBER("common", "drain", KIND_SECONDS, drain, 0, 3600, "5"),
    NUMBER("common", "drain_wait", KIND_SECONDS, drain_wait, 0, 3600, "0"),
    CHECKED("common", "trusted_proxies", trusted_proxies, 0, "", config_find_bad_network,
            "addresses and networks such as 10.0.0.0/8 or fd00::/8"),

    NUMBER("auth", "token_ttl", KIND_NUMBER, token_ttl, 1, 3650 * DAY, "172800"),
    CHOICE("auth", "register", KIND_REGISTER, registration, NULL, "open"),
    CHOICE("auth", "connect", KIND_WORD, connect, "open ticket", "open"),
    NUMBER("auth", "ticket_ttl", KIND_NUMBER, ticket_ttl, 1, 30 * DAY, "60"),
    NUMBER("auth", "ticket_max", KIND_NUMBER, ticket_max, 1, 30 * DAY, "3600"),

    NUMBER("websocket", "ping", KIND_SECONDS, ping, 1, DAY, "25"),
    NUMBER("websocket", "pong_timeout", KIND_SECONDS, pong_timeout, 1, DAY, "10"),
    NUMBER("websocket", "max_message", KIND_SIZE, max_message, 4, 64 * MIB, "8192"),
    NUMBER("websocket", "send_queue", KIND_SIZE, send_queue, 1024, GIB, "1 MiB"),
    NUMBER("websocket", "message_rate", KIND_NUMBER, message_rate, 1, 100000, "10"),
    CHECKED("websocket", "allowed_origins", allowed_origins, 0, "", config_find_bad_origin,
            "*, null, or the origins of pages such as https://shop.example or "
            "https://*.shop.example:8443"),

    NUMBER("resume", "linger", KIND_NUMBER, linger, 0, 3600, "60"),
    NUMBER("resume", "frames", KIND_NUMBER, resume_frames, 1, 65536, "128"),
    NUMBER("resume", "bytes", KIND_SIZE, resume_bytes, 1024, 64 * MIB, "64 KiB"),
    NUMBER("resume", "memory", KIND_SIZE, resume_memory, 65536, 64 * GIB, "16 MiB"),

    CHECKED("webhook", "allow", webhook_allow, 0, "", config_find_bad_url,
            "URLs such as https://shop.example/push/ or http://127.0.0.1:9000/"),
    NUMBER("webhook", "timeout", KIND_SECONDS, webhook_timeout, 1, 3600, "5"),
    NUMBER("webhook", "retry", KIND_SECONDS, webhook_retry, 1, 30 * DAY, "600"),
    NUMBER("webhook", "queue", KIND_SIZE, webhook_queue, MIB, 64 * MIB, "4 MiB"),
    TEXT("webhook", "ca", webhook_ca, 0, ""),

    NUMBER("limits", "max_connections", KIND_NUMBER, max_connections, 0, 10000000, "0"),
    NUMBER("limits", "max_per_ip", KIND_NUMBER, max_per_ip, 0, 10000000, "0"),
    NUMBER("limits", "max_clients", KIND_NUMBER, max_clients, 0, 10000000, "0"),
    NUMBER("limits", "max_body", KIND_SIZE, max_body, 256, 256 * MIB, "1 MiB"),
    NUMBER("limits", "max_head", KIND_SIZE, max_head, 256, MIB, "8 KiB"),
    NUMBER("limits", "max_buffered", KIND_SIZE, max_buffered, MIB, 1024 * GIB, "256 MiB"),
    NUMBER("limits", "head_timeout", KIND_SECONDS, head_timeout, 1, DAY, "10"),
    NUMBER("limits", "idle_timeout", KIND_SECONDS, idle_timeout, 1, DAY, "75"),
    NUMBER("limits", "api_rate", KIND_NUMBER, api_rate, 0, 10000000, "0"),
    NUMBER("limits", "max_groups", KIND_NUMBER, max_groups, 1, 1000000, "1000"),
    NUMBER("limits", "once_ttl", KIND_SECONDS, once_ttl, 1, DAY, "300"),
    NUMBER("limits", "once_max", KIND_NUMBER, once_max, 1, 1000000, "65536"),

    CHOICE("notice", "scope", KIND_WORD, scope, "group system off", "group"),
    NUMBER("notice", "max_members", KIND_NUMBER, max_members, 0, 10000000, "1000"),

    CHOICE("log", "level", KIND_WORD, log_level, "debug info warn error", "info"),
    TEXT("log", "file", log_file, 0, ""),
    CHOICE("log", "format", KIND_WORD, log_format, "text json", "text"),

    TEXT("tls", "cert", tls_cert, 0, ""),
    TEXT("tls", "key", tls_key, 0, ""),

    LISTEN("admin", "listen", admin_host, admin_port, 1, "127.0.0.1:7801",
           "ADDRESS:PORT, such as 127.0.0.1:7801"),
    CHOICE("console", "enabled", KIND_WORD, console, "false true", "true"),
    CHOICE("console", "client", KIND_WORD, client_module, "false true", "true"),

    TEXT("redis", "host", redis_host, 1, "127.0.0.1"),
    NUMBER("redis", "port", KIND_NUMBER, redis_port, 1, 65535, "6379"),
    TEXT("redis", "username", redis_username, 0, ""),
    TEXT("redis", "password", redis_password, 0, ""),
    NUMBER("redis", "db", KIND_NUMBER, redis_db, 0, 1000000, "0"),
    TEXT("redis", "prefix", redis_prefix, 0, "wspush:"),
    TLS("redis", redis_tls),
    SERVERS("redis", "sentinels", redis_sentinels, "26379"),
    TEXT("redis", "sentinel_master", redis_sentinel_master, 1, "mymaster"),
    TEXT("redis", "sentinel_username", redis_sentinel_username, 0, ""),
    TEXT("redis", "sentinel_password", redis_sentinel_password, 0, ""),

    TEXT("rabbitmq", "host", rabbitmq_host, 1, "127.0.0.1"),
    NUMBER("rabbitmq", "port", KIND_NUMBER, rabbitmq_port, 1, 65535, "5672"),
    SERVERS("rabbitmq", "hosts", rabbitmq_hosts, "5672"),
    TEXT("rabbitmq", "user", rabbitmq_user, 0, "guest"),
    TEXT("rabbitmq", "password", rabbitmq_password, 0, "guest"),
    TEXT("rabbitmq", "vhost", rabbitmq_vhost, 0, "/"),
    TEXT("rabbitmq", "exchange", rabbitmq_exchange, 1, "wspush"),
    TLS("rabbitmq", rabbitmq_tls),
    CHOICE("rabbitmq", "queue_type", KIND_WORD, rabbitmq_queue_type, "classic quorum", "classic"),

    CHECKED("cluster", "advertise", advertise, 0, "", config_find_bad_address,
            "an address of this machine or a host name, such as 10.0.0.11, fd00::11 or "
            "push-1.example"),
    NUMBER("cluster", "rpc_port", KIND_NUMBER, rpc_port, 0, 65535, "0"),
    LISTEN("cluster", "rpc_listen", rpc_listen_host, rpc_listen_port, 0, "",
           "an address of this machine, with or without a port, such as 0.0.0.0:8800 or "
           "[::]:8800"),
    NUMBER("cluster", "node_ttl", KIND_SECONDS, node_ttl, 1, 3600, "15"),
    NUMBER("cluster", "rpc_timeout", KIND_NUMBER, rpc_timeout, 10, 2900, "2000"),
};

#define KEY_COUNT (sizeof keys / sizeof keys[0])

/* --- values ----------------------------------------------------------------------------------- */

static bool config_complain_expected(struct buf *wrong, const struct key *key, struct str bad)
{
    return config_complain(wrong, bad, "%s must be %s, not ", key->name.at, key->expected);
}

static bool config_set_text(const struct key *key, struct str value, char *out, struct buf *wrong)
{
    struct str bad = key->find_bad ? key->find_bad(value) : (struct str){0};

    if (value.length >= key->max)
        return config_complain(wrong, key->name, "the value is too long: ");
    if (value.length < key->min)
        return config_complain(wrong, key->name, "a value is needed for ");
    for (size_t i = 0; i < value.length; i++)
        if ((unsigned char)value.at[i] < 0x20)
            return config_complain(wrong, key->name, "control byte in the value of ");
    if (bad.length)
        return config_complain_expected(wrong, key, bad);
    if (key->offset == AT(host) && str_equal(value, STR("unix:")))
        return config_complain(wrong, NO_DETAIL,
                               "host = unix: needs a path, such as unix:/run/wspush/socket");
    config_copy_text(value, out);
    return true;
}

static const struct {
    struct str name;
    uint64_t bytes;
} units[] = {{STR_INIT("GiB"), GIB}, {STR_INIT("MiB"), MIB}, {STR_INIT("KiB"), 1024}};

#define UNIT_COUNT (sizeof units / sizeof units[0])

/* Cuts off an end in any case that something stands before; false: there is none. */
static bool config_cut_suffix(struct str *text, struct str suffix)
{
    size_t length = text->length - suffix.length;

    if (text->length <= suffix.length ||
        !str_equal_nocase((struct str){text->at + length, suffix.length}, suffix))
        return false;
    text->length = length;
    return true;
}

/* Writes a limit in its greatest unit. */
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

static bool config_set_number(const struct key *key, struct str value, uint64_t *out,
                              struct buf *wrong)
{
    struct str digits = value;
    uint64_t number = 0, unit = 1;
    char least[32], most[32];

    for (size_t i = 0; i < UNIT_COUNT && key->kind == KIND_SIZE && unit == 1; i++)
        if (config_cut_suffix(&digits, units[i].name)) {
            unit = units[i].bytes;
            digits = str_trim(digits);
        }
    if (str_number(digits, UINT64_MAX / unit, &number) && number * unit >= key->min &&
        number * unit <= key->max) {
        *out = number * unit;
        return true;
    }
    config_write_amount(key, key->min, least);
    config_write_amount(key, key->max, most);
    return config_complain(wrong, value, "%s must be a %s from %s to %s%s, not ", key->name.at,
                           key->kind == KIND_SIZE ? "size" : "number", least, most,
                           key->kind == KIND_SIZE ? ", in bytes or with KiB, MiB or GiB" : "");
}

/* "25" or "0.25": whole seconds keep the file readable, parts of them keep tests short. */
static bool config_set_seconds(const struct key *key, struct str value, uint64_t *out,
                               struct buf *wrong)
{
    struct str rest = value, whole = str_cut(&rest, '.');
    uint64_t seconds = 0, part = 0;
    bool good = str_number(whole, key->max, &seconds) &&
                (!rest.at || (rest.length <= 3 && str_number(rest, 999, &part)));

    for (size_t i = rest.length; i < 3; i++)
        part *= 10;
    *out = seconds * 1000 + part;
    if (good && *out <= key->max * 1000 && (*out > 0 || key->min == 0))
        return true;
    return config_complain(wrong, value, "%s must be a number of seconds %s %llu, not ",
                           key->name.at, key->min ? "above 0, up to" : "from 0 to",
                           (unsigned long long)key->max);
}

/* The index of a word in a list, or -1. */
static int config_word_index(const char *words, struct str word)
{
    struct str rest = str_from(words);

    for (int i = 0; rest.at; i++)
        if (str_equal_nocase(str_cut(&rest, ' '), word))
            return i;
    return -1;
}

static bool config_set_register(struct str value, struct config *config, struct buf *wrong)
{
    struct str secret = value, word = str_cut(&secret, ':');
    int choice = config_word_index("open closed", value);

    if (choice < 0) {
        if (!str_equal_nocase(word, STR("key")) || secret.length == 0 ||
            secret.length >= sizeof config->register_key) /* a secret is not repeated */
            return config_complain(wrong, NO_DETAIL,
                                   "register must be open, closed or key:SECRET (1 to 255 bytes)");
        choice = REGISTER_KEY;
    }
    config->registration = (enum config_register)choice;
    config_copy_text(choice == REGISTER_KEY ? secret : (struct str){0}, config->register_key);
    return true;
}

static bool config_set_listen(struct config *config, const struct key *key, struct str value,
                              struct buf *wrong)
{
    char *out = (char *)config + key->offset;
    struct str host = {0};
    uint64_t port = 0;

    if (value.length &&
        (!host_split(value, &host, &port) || host.length >= key->max || port < key->min))
        return config_complain_expected(wrong, key, value);
    config_copy_text(host, out);
    *(uint64_t *)((char *)config + key->port_offset) = port;
    return true;
}

static bool config_set_value(struct config *config, const struct key *key, struct str value,
                             struct buf *wrong)
{
    void *out = (char *)config + key->offset;
    int word;

    if (value.length && memchr(value.at, '\0', value.length))
        return config_complain(wrong, key->name, "NUL byte in the value of ");
    switch (key->kind) {
    case KIND_TEXT:
        return config_set_text(key, value, out, wrong);
    case KIND_NUMBER:
    case KIND_SIZE:
        return config_set_number(key, value, out, wrong);
    case KIND_SECONDS:
        return config_set_seconds(key, value, out, wrong);
    case KIND_WORD:
        word = config_word_index(key->expected, value);
        if (word < 0)
            return config_complain(wrong, value, "%s must be one of: %s; not ", key->name.at,
                                   key->expected);
        *(int *)out = word;
        return true;
    case KIND_REGISTER:
        return config_set_register(value, config, wrong);
    case KIND_LISTEN:
        return config_set_listen(config, key, value, wrong);
    case KIND_SECRET:
        if (value.length != 16 && value.length != 0)
            return config_complain(wrong, NO_DETAIL, "%s must have exactly 16 bytes",
                                   key->name.at); /* a secret is not repeated */
        config_copy_text(value, out);
        return true;
    }
    return false;
}

void config_defaults(struct config *config)
{
    memset(config, 0, sizeof *config);
    for (size_t i = 0; i < KEY_COUNT; i++) /* presets are good: no complaint is written */
        config_set_value(config, &keys[i], str_from(keys[i].preset), NULL);
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

/* Names in files of go-websocket that wspush does not have, and what to do about them. */
static const struct {
    struct str name;
    const char *advice;
} foreign_names[] = {
    {STR_INIT("HttpPort"), "in wspush it is port"},
    {STR_INIT("RPCPort"), "in wspush it is rpc_port in [cluster], and a single node needs none"},
    {STR_INIT("CryptoKey"), "in wspush it is crypto_key"},
    {STR_INIT("amqpurl"), "in wspush it is split into host, port, user, password and vhost"},
    {STR_INIT("etcd"), "remove the section, a cluster needs [redis] and [rabbitmq] instead"},
};

static const char *config_find_foreign_name(struct str name)
{
    for (size_t i = 0; i < sizeof foreign_names / sizeof foreign_names[0]; i++)
        if (str_equal_nocase(foreign_names[i].name, name))
            return foreign_names[i].advice;
    return NULL;
}

/* Complains of a name that is no key of `section`, or no section if that is {NULL, 0}: says what
 * stands for one of go-websocket; else names the one that is the most like it, or the section that
 * has such a key. */
static bool config_complain_unknown(struct buf *wrong, const char *what, struct str name,
                                    struct str section)
{
    const char *best = NULL, *owner = NULL, *advice = config_find_foreign_name(name);
    size_t least = 3;

    for (size_t i = 0; i < KEY_COUNT; i++) {
        struct str other = section.at ? keys[i].name : keys[i].section;
        size_t distance = config_edit_distance(name, other);

        if (section.at && !owner && distance == 0)
            owner = keys[i].section.at;
        if ((!section.at || str_equal(keys[i].section, section)) && distance < least &&
            distance * 3 <= other.length + 2) {
            least = distance;
            best = other.at;
        }
    }
    config_complain(wrong, name, "%s", what);
    if (advice)
        config_complain(wrong, NO_DETAIL, "; %s (see docs/migrating-from-go-websocket.md)", advice);
    else if (best)
        config_complain(wrong, NO_DETAIL, "; did you mean %s?", best);
    else if (owner)
        config_complain(wrong, NO_DETAIL, "; it belongs to [%s]", owner);
    return false;
}

/* The text without its comment, which begins with '#' or ';' behind white space. */
static struct str config_strip_comment(struct str text)
{
    for (size_t i = 1; i < text.length; i++)
        if ((text.at[i] == '#' || text.at[i] == ';') &&
            (text.at[i - 1] == ' ' || text.at[i - 1] == '\t'))
            text.length = i;
    return str_trim(text);
}

/* Reads what stands behind the '=': without quotes up to a comment, in quotes as it is. `buffer`
 * has the value if quotes are taken off. */
static bool config_read_value(struct str text, char buffer[CONFIG_VALUE_MAX], struct str *value,
                              struct buf *wrong)
{
    struct str rest = str_trim(text);
    struct buf out = {.at = buffer, .capacity = CONFIG_VALUE_MAX, .limit = CONFIG_VALUE_MAX};

    if (rest.length == 0 || rest.at[0] != '"') {
        *value = config_strip_comment(text);
        return true;
    }
    for (rest = str_skip(rest, 1); rest.length && rest.at[0] != '"'; rest = str_skip(rest, 1)) {
        if (rest.at[0] == '\\') {
            rest = str_skip(rest, 1);
            if (rest.length == 0 || (rest.at[0] != '"' && rest.at[0] != '\\')) {
                rest.length = 0; /* refused below */
                break;
            }
        }
        buf_append(&out, (struct str){rest.at, 1});
    }
    *value = str_of(&out);
    if (rest.length == 0 || config_strip_comment(str_skip(rest, 1)).length)
        return config_complain(wrong, NO_DETAIL,
                               "a value that begins with a double quote must end with one; in it, "
                               "\\\" and \\\\ stand for \" and \\, and \\ for nothing else");
    return !out.failed || config_complain(wrong, NO_DETAIL, "the value is too long");
}

static bool config_find_section(struct str line, struct str *section, struct buf *wrong)
{
    struct str name = {line.at + 1, line.length - 1};

    if (name.length == 0 || name.at[name.length - 1] != ']')
        return config_complain(wrong, NO_DETAIL, "a section must end with ]");
    name.length--;
    name = str_trim(name);
    for (size_t i = 0; i < KEY_COUNT; i++)
        if (str_equal_nocase(keys[i].section, name)) {
            *section = keys[i].section;
            return true;
        }
    return config_complain_unknown(wrong, "unknown section: ", name, (struct str){0});
}

static bool config_parse_line(struct config *config, struct str line, struct str *section,
                              bool seen[KEY_COUNT], struct buf *wrong)
{
    struct str bare = config_strip_comment(line), value = line, name;
    char buffer[CONFIG_VALUE_MAX];

    if (line.at[0] == '[')
        return config_find_section(bare, section, wrong);
    if (memchr(bare.at, '\0', bare.length))
        return config_complain(wrong, NO_DETAIL, "NUL byte in the line");
    if (!memchr(bare.at, '=', bare.length))
        return config_complain(wrong, NO_DETAIL, "key = value is expected");
    name = str_trim(str_cut(&value, '='));
    if (!section->at)
        return config_complain(wrong, name, "a [section] is expected before this key: ");
    for (size_t i = 0; i < KEY_COUNT; i++) {
        if (!str_equal(keys[i].section, *section) || !str_equal_nocase(keys[i].name, name))
            continue;
        if (seen[i])
            return config_complain(wrong, name, "this key was given before: ");
        seen[i] = true;
        return config_read_value(value, buffer, &value, wrong) &&
               config_set_value(config, &keys[i], value, wrong);
    }
    return config_complain_unknown(wrong, "unknown key: ", name, *section);
}

bool config_parse(struct config *config, const char *file, struct str text, char *error,
                  size_t size)
{
    bool seen[KEY_COUNT] = {false};
    struct str rest = text, section = {0};
    char bytes[COMPLAINT_MAX];
    struct buf wrong = BUF_INIT(bytes);

    if (rest.length >= 3 && memcmp(rest.at, "\xef\xbb\xbf", 3) == 0)
        rest = str_skip(rest, 3); /* some editors write this mark */
    for (unsigned number = 1; rest.at; number++) {
        struct str line = str_cut(&rest, '\n');

        if (line.length && line.at[line.length - 1] == '\r')
            line.length--;
        line = str_trim(line);
        if (line.length && line.at[0] != '#' && line.at[0] != ';' &&
            !config_parse_line(config, line, &section, seen, &wrong)) {
            snprintf(error, size, "%s:%u: %.*s", file, number, (int)wrong.length, bytes);
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
    if (name->length <= strlen("WSPUSH__FILE") ||
        memcmp(name->at + name->length - strlen("_FILE"), "_FILE", strlen("_FILE")) != 0)
        return false;
    name->length -= strlen("_FILE");
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

static void config_complain_variable(struct str name, struct buf *wrong)
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
    config_complain(wrong, name, "unknown variable of the environment: ");
    if (best[0])
        config_complain(wrong, NO_DETAIL, "; did you mean %s%s?", best, file ? "_FILE" : "");
}

bool config_set(struct config *config, struct str name, struct str value, char *error, size_t size)
{
    struct str stem = name;
    const struct key *key = config_find_variable(name);
    char bytes[COMPLAINT_MAX];
    struct buf wrong = BUF_INIT(bytes);

    if (!key && config_cut_file(&stem))
        key = config_find_variable(stem);
    if (!key)
        config_complain_variable(name, &wrong);
    else if (config_set_value(config, key, value, &wrong))
        return true;
    snprintf(error, size, "%.*s%s%.*s", key ? (int)name.length : 0, name.at, key ? ": " : "",
             (int)wrong.length, bytes);
    return false;
}

/* --- two configurations ----------------------------------------------------------------------- */

/* Keys that may change while the server runs. */
static bool config_is_live(const struct key *key)
{
    return str_equal(key->section, STR("limits")) || str_equal(key->section, STR("tls")) ||
           str_equal(key->section, STR("notice")) || key->offset == AT(log_level) ||
           str_equal(key->section, STR("resume")) || key->offset == AT(allowed_origins) ||
           key->offset == AT(connect) || key->offset == AT(ticket_ttl) ||
           key->offset == AT(ticket_max) || key->offset == AT(message_rate) ||
           key->offset == AT(webhook_allow);
}

/* Writes a live key's value as config_set_value takes it, and others so that different values have
 * different texts. */
static void config_write_value(const struct config *config, const struct key *key,
                               char out[CONFIG_VALUE_MAX])
{
    const void *at = (const char *)config + key->offset;
    struct str rest = str_from(key->expected);
    bool in_seconds = key->kind == KIND_SECONDS;
    unsigned long long number;
    int length;

    switch (key->kind) {
    case KIND_TEXT:
    case KIND_SECRET:
        snprintf(out, CONFIG_VALUE_MAX, "%s", (const char *)at);
        break;
    case KIND_REGISTER:
        snprintf(out, CONFIG_VALUE_MAX, "%d:%s", config->registration, config->register_key);
        break;
    case KIND_LISTEN:
        number = *(const uint64_t *)((const char *)config + key->port_offset);
        snprintf(out, CONFIG_VALUE_MAX, "[%s]:%llu", (const char *)at, number);
        break;
    case KIND_WORD:
        for (int word = *(const int *)at; word > 0; word--)
            str_cut(&rest, ' ');
        config_copy_text(str_cut(&rest, ' '), out);
        break;
    default:
        number = *(const uint64_t *)at;
        length = snprintf(out, 32, "%llu", in_seconds ? number / 1000 : number);
        if (in_seconds && number % 1000)
            snprintf(out + length, 8, ".%03llu", number % 1000);
    }
}

bool config_next_change(const struct config *from, const struct config *to, size_t *place,
                        struct config_change *change)
{
    while (*place < KEY_COUNT) {
        const struct key *key = &keys[(*place)++];

        config_write_value(from, key, change->from);
        config_write_value(to, key, change->to);
        if (strcmp(change->from, change->to) == 0)
            continue;
        change->section = key->section;
        change->name = key->name;
        change->live = config_is_live(key);
        if (!change->live) { /* they may be secrets */
            memset(change->from, 0, sizeof change->from);
            memset(change->to, 0, sizeof change->to);
        }
        return true;
    }
    return false;
}

void config_adopt(struct config *into, const struct config *from)
{
    char text[CONFIG_VALUE_MAX];

    for (size_t i = 0; i < KEY_COUNT; i++)
        if (config_is_live(&keys[i])) {
            config_write_value(from, &keys[i], text);
            config_set_value(into, &keys[i], str_from(text), NULL);
        }
}
