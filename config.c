/* config.c - INI text to `struct config`. */
#include "config.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

enum kind {
    KIND_TEXT,     /* into char[room] */
    KIND_BOOLEAN,  /* true or false */
    KIND_NUMBER,   /* min to max */
    KIND_SECONDS,  /* min to max seconds, with up to three decimals, kept as milliseconds */
    KIND_SIZE,     /* bytes, or with KiB, MiB behind */
    KIND_WORD,     /* one of `words`, kept as its place */
    KIND_KEY,      /* exactly 16 bytes */
    KIND_REGISTER, /* open, closed or key:SECRET */
    KIND_ADMIN,    /* ADDRESS:PORT, or nothing */
    KIND_NETWORKS  /* like KIND_TEXT: see config_next_network */
};

/* A key of the file, where it goes, and what it may be. */
struct key {
    struct str section, name;
    enum kind kind;
    size_t offset;
    uint64_t min, max; /* of a number; for text: max is the room */
    const char *words; /* separated by spaces */
    const char *preset;
};

#define AT(member) offsetof(struct config, member)
#define ROOM(member) sizeof(((struct config *)0)->member)
#define TEXT(section, name, member, preset)                                                        \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), KIND_TEXT, AT(member), 0, ROOM(member), NULL, preset    \
    }
#define LIST(section, name, kind, member)                                                          \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(member), 0, ROOM(member), NULL, ""             \
    }
#define NUMBER(section, name, kind, member, min, max, preset)                                      \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(member), min, max, NULL, preset                \
    }
#define CHOICE(section, name, kind, member, words, preset)                                         \
    {                                                                                              \
        STR_INIT(section), STR_INIT(name), kind, AT(member), 0, 0, words, preset                   \
    }

#define DAY 86400
#define MIB (1024 * 1024)

static const struct key keys[] = {
    TEXT("common", "host", host, "0.0.0.0"),
    NUMBER("common", "port", KIND_NUMBER, port, 1, 65535, "7800"),
    CHOICE("common", "cluster", KIND_BOOLEAN, cluster, "false true", "false"),
    CHOICE("common", "crypto_key", KIND_KEY, crypto_key, NULL, ""),
    TEXT("common", "data_dir", data_dir, "data"),
    TEXT("common", "user", user, ""),
    NUMBER("common", "drain", KIND_SECONDS, drain, 0, 3600, "5"),
    NUMBER("common", "drain_wait", KIND_SECONDS, drain_wait, 0, 3600, "0"),
    LIST("common", "trusted_proxies", KIND_NETWORKS, trusted_proxies),

    NUMBER("auth", "token_ttl", KIND_NUMBER, token_ttl, 1, 3650 * DAY, "172800"),
    CHOICE("auth", "register", KIND_REGISTER, registration, NULL, "open"),

    NUMBER("websocket", "ping", KIND_SECONDS, ping, 1, DAY, "25"),
    NUMBER("websocket", "pong_timeout", KIND_SECONDS, pong_timeout, 1, DAY, "10"),
    NUMBER("websocket", "max_message", KIND_SIZE, max_message, 4, 64 * MIB, "8192"),
    NUMBER("websocket", "send_queue", KIND_SIZE, send_queue, 1024, 1024 * MIB, "1 MiB"),
    TEXT("websocket", "allowed_origins", allowed_origins, ""),

    NUMBER("limits", "max_connections", KIND_NUMBER, max_connections, 0, 10000000, "0"),
    NUMBER("limits", "max_per_ip", KIND_NUMBER, max_per_ip, 0, 10000000, "0"),
    NUMBER("limits", "max_body", KIND_SIZE, max_body, 256, 256 * MIB, "1 MiB"),
    NUMBER("limits", "max_head", KIND_SIZE, max_head, 256, MIB, "8 KiB"),
    NUMBER("limits", "max_buffered", KIND_SIZE, max_buffered, MIB, 1024ull * 1024 * MIB, "256 MiB"),
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

    CHOICE("admin", "listen", KIND_ADMIN, admin_host, NULL, "127.0.0.1:7801"),
    CHOICE("console", "enabled", KIND_BOOLEAN, console, "false true", "true"),

    TEXT("redis", "host", redis_host, "127.0.0.1"),
    NUMBER("redis", "port", KIND_NUMBER, redis_port, 1, 65535, "6379"),
    TEXT("redis", "password", redis_password, ""),
    NUMBER("redis", "db", KIND_NUMBER, redis_db, 0, 1000000, "0"),
    TEXT("redis", "prefix", redis_prefix, "wspush:"),

    TEXT("rabbitmq", "host", rabbitmq_host, "127.0.0.1"),
    NUMBER("rabbitmq", "port", KIND_NUMBER, rabbitmq_port, 1, 65535, "5672"),
    TEXT("rabbitmq", "user", rabbitmq_user, "guest"),
    TEXT("rabbitmq", "password", rabbitmq_password, "guest"),
    TEXT("rabbitmq", "vhost", rabbitmq_vhost, "/"),
    TEXT("rabbitmq", "exchange", rabbitmq_exchange, "wspush"),

    TEXT("cluster", "advertise", advertise, ""),
    NUMBER("cluster", "rpc_port", KIND_NUMBER, rpc_port, 0, 65535, "0"),
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
    /* what the file says is the operator's own, but it may be any file: control bytes are not
     * printed */
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
    for (size_t i = 0; i < value.length; i++)
        if ((unsigned char)value.at[i] < 0x20)
            return complain(wrong, "control byte in the value of ", key->name);
    if (value.length)
        memcpy(out, value.at, value.length);
    out[value.length] = '\0';
    return true;
}

static bool set_number(const struct key *key, struct str digits, uint64_t unit, uint64_t *out,
                       struct complaint *wrong)
{
    uint64_t number = 0;
    char what[160];

    if (str_number(digits, UINT64_MAX / unit, &number) && number * unit >= key->min &&
        number * unit <= key->max) {
        *out = number * unit;
        return true;
    }
    snprintf(what, sizeof what, "%.*s must be a number from %llu to %llu, not ",
             (int)key->name.length, key->name.at, (unsigned long long)key->min,
             (unsigned long long)key->max);
    return complain(wrong, what, digits);
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
    static const struct {
        struct str suffix;
        uint64_t unit;
    } units[] = {{STR_INIT("kib"), 1024}, {STR_INIT("mib"), MIB}};

    for (size_t i = 0; i < 2; i++) {
        struct str suffix = units[i].suffix, number = value;

        if (value.length <= suffix.length)
            continue;
        number.length -= suffix.length;
        if (str_equal_nocase((struct str){value.at + number.length, suffix.length}, suffix))
            return set_number(key, str_trim(number), units[i].unit, out, wrong);
    }
    return set_number(key, value, 1, out, wrong);
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

/* ADDRESS:PORT; an address of IPv6 stands in brackets. */
static bool set_admin(struct str value, struct config *config, struct complaint *wrong)
{
    struct str host = value, port = {0};

    config->admin_port = 0;
    config->admin_host[0] = '\0';
    if (value.length == 0)
        return true;
    while (host.length && host.at[host.length - 1] != ':')
        host.length--;
    port = (struct str){host.at + host.length, value.length - host.length};
    if (host.length)
        host.length--;
    if (host.length > 2 && host.at[0] == '[' && host.at[host.length - 1] == ']')
        host = (struct str){host.at + 1, host.length - 2};
    else if (memchr(host.at, ':', host.length))
        host.length = 0;
    if (host.length == 0 || memchr(host.at, '[', host.length) ||
        memchr(host.at, ']', host.length) || host.length >= sizeof config->admin_host ||
        !str_number(port, 65535, &config->admin_port) || !config->admin_port)
        return complain(wrong, "listen must be ADDRESS:PORT, such as 127.0.0.1:7801, not ", value);
    memcpy(config->admin_host, host.at, host.length);
    config->admin_host[host.length] = '\0';
    return true;
}

/* --- lists ------------------------------------------------------------------------------------ */

/* The next entry of a list that has spaces and commas between its entries; empty at the end. */
static struct str next_entry(struct str *rest)
{
    struct str entry;

    while (rest->length && (*rest->at == ' ' || *rest->at == ','))
        *rest = (struct str){rest->at + 1, rest->length - 1};
    entry = (struct str){rest->at, 0};
    while (entry.length < rest->length && entry.at[entry.length] != ' ' &&
           entry.at[entry.length] != ',')
        entry.length++;
    return entry;
}

bool config_next_network(struct str *rest, unsigned char address[16], unsigned *bits)
{
    struct str entry = next_entry(rest), length = entry, host = str_cut(&length, '/');
    bool ipv6 = host.length && memchr(host.at, ':', host.length);
    uint64_t number = ipv6 ? 128 : 32;
    char text[INET6_ADDRSTRLEN] = "";

    if (host.length == 0 || host.length >= sizeof text || memchr(host.at, '\0', host.length))
        return false;
    memcpy(text, host.at, host.length);
    memcpy(address, "\0\0\0\0\0\0\0\0\0\0\xff\xff", 12);
    if (inet_pton(ipv6 ? AF_INET6 : AF_INET, text, ipv6 ? address : address + 12) != 1 ||
        (length.at && !str_number(length, number, &number)))
        return false;
    *bits = (unsigned)number + (ipv6 ? 0 : 96);
    *rest = (struct str){rest->at + entry.length, rest->length - entry.length};
    return true;
}

static bool set_networks(const struct key *key, struct str value, char *out,
                         struct complaint *wrong)
{
    struct str rest = value;
    unsigned char address[16];
    unsigned bits;

    while (config_next_network(&rest, address, &bits))
        continue;
    if (rest.length)
        return complain(wrong,
                        "trusted_proxies must be addresses and networks such as 10.0.0.0/8 or "
                        "fd00::/8, not ",
                        next_entry(&rest));
    return set_text(key, value, out, wrong);
}

static bool set_value(struct config *config, const struct key *key, struct str value,
                      struct complaint *wrong)
{
    void *out = (char *)config + key->offset;
    int word = key->words ? word_index(key->words, value) : 0;
    char what[160];

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
        return set_number(key, value, 1, out, wrong);
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
        return set_admin(value, config, wrong);
    case KIND_NETWORKS:
        return set_networks(key, value, out, wrong);
    case KIND_KEY:
        if (value.length != 16 && value.length != 0)
            return complain(wrong, "crypto_key must have exactly 16 bytes", (struct str){0});
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

/* The line without its comment: '#' or ';' at its beginning or behind white space. */
static struct str strip_comment(struct str line)
{
    for (size_t i = 0; i < line.length; i++)
        if ((line.at[i] == '#' || line.at[i] == ';') &&
            (i == 0 || line.at[i - 1] == ' ' || line.at[i - 1] == '\t'))
            line.length = i;
    return str_trim(line);
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
    return complain(wrong, "unknown section: ", name);
}

static bool parse_line(struct config *config, struct str line, struct str *section,
                       bool seen[KEY_COUNT], struct complaint *wrong)
{
    struct str value = line, name;

    if (line.at[0] == '[')
        return find_section(line, section, wrong);
    if (memchr(line.at, '\0', line.length)) /* a text that ends in a NUL cannot hold one */
        return complain(wrong, "NUL byte in the line", (struct str){0});
    if (!memchr(line.at, '=', line.length))
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
        return set_value(config, &keys[i], str_trim(value), wrong);
    }
    return complain(wrong, "unknown key: ", name);
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
        line = strip_comment(line);
        if (line.length && !parse_line(config, line, &section, seen, &wrong)) {
            snprintf(error, room, "%s:%u: %s", file, number, what);
            return false;
        }
    }
    return true;
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
    case KIND_NETWORKS:
        return (size_t)key->max;
    case KIND_KEY:
        return ROOM(crypto_key);
    case KIND_ADMIN:
        return ROOM(admin_host);
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
    bool text = key->kind == KIND_TEXT || key->kind == KIND_KEY || key->kind == KIND_ADMIN ||
                key->kind == KIND_NETWORKS;

    if (text ? strcmp(left, right) != 0 : memcmp(left, right, value_size(key)) != 0)
        return false;
    return (key->kind != KIND_REGISTER || strcmp(a->register_key, b->register_key) == 0) &&
           (key->kind != KIND_ADMIN || a->admin_port == b->admin_port);
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

bool config_allows_origin(const struct config *config, struct str origin)
{
    struct str rest = str_from(config->allowed_origins);

    if (rest.length == 0)
        return true;
    while (rest.at) {
        struct str word = str_cut(&rest, ' ');

        while (word.at) {
            struct str allowed = str_cut(&word, ',');

            if (allowed.length && str_equal_nocase(allowed, origin))
                return true;
        }
    }
    return false;
}
