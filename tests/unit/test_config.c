/* test_config.c - which values the configuration accepts, which it refuses, and its error texts. */
#include "config.h"
#include "test.h"

#include <string.h>

#define NUMBER(member) offsetof(struct config, member)
#define MIB 1048576ull
#define ABOVE_0 "number of seconds above 0, up to "
#define TO_10000000 "number from 0 to 10000000"

/* Parses over the defaults, from memory of exactly the text's size. Returns true, or false with the
 * error. */
static bool parse(struct str text, struct config *config, char error[500])
{
    struct str copy = exact_copy(text);
    bool good;

    config_defaults(config);
    error[0] = '\0';
    good = config_parse(config, "f.ini", copy, error, 500);
    free_copy(copy);
    return good;
}

/* Parses "[section]\nkey = value\n". */
static bool parse_key(const char *section, const char *key, struct str value, struct config *config,
                      char error[500])
{
    struct buf text = {0};
    bool good;

    buf_print(&text, "[%s]\n%s = ", section, key);
    buf_append(&text, value);
    buf_append(&text, STR("\n"));
    good = parse(str_of(&text), config, error);
    buf_free(&text);
    return good;
}

static uint64_t number_at(const struct config *config, size_t offset)
{
    uint64_t number;

    memcpy(&number, (const char *)config + offset, sizeof number);
    return number;
}

static void check_good(struct str text, struct config *config)
{
    char error[500];

    if (!CHECK(parse(text, config, error)))
        printf("  %s\n", error);
}

static void check_refused(struct str text, const char *complaint)
{
    struct config config;
    char error[500];

    if (!CHECK(!parse(text, &config, error)) || !CHECK(strcmp(error, complaint) == 0))
        printf("  %s\n  instead of: %s\n", error, complaint);
}

/* Puts each entry of a list separated by '|' between `before` and `behind`; the error must be
 * `complaint` and the entry. */
static void check_each_refused(const char *section, const char *key, const char *list,
                               const char *before, const char *behind, const char *complaint)
{
    struct str rest = str_from(list);

    while (rest.at) {
        struct str entry = str_cut(&rest, '|');
        char text[300], expected[400];

        snprintf(text, sizeof text, "[%s]\n%s = %s%.*s%s", section, key, before, (int)entry.length,
                 entry.at, behind);
        snprintf(expected, sizeof expected, "f.ini:2: %s%.*s", complaint, (int)entry.length,
                 entry.at);
        check_refused(str_from(text), expected);
    }
}

static void check_defaults(const struct config *config)
{
    CHECK(strcmp(config->host, "0.0.0.0") == 0 && config->port == 7800 && !config->cluster);
    CHECK(config->crypto_key[0] == '\0' && strcmp(config->data_dir, "data") == 0);
    CHECK(config->user[0] == '\0' && config->drain == 5000);
    CHECK(config->token_ttl == 172800 && config->registration == REGISTER_OPEN);
    CHECK(config->register_key[0] == '\0');
    CHECK(config->ping == 25000 && config->pong_timeout == 10000);
    CHECK(config->max_message == 8192 && config->send_queue == 1048576);
    CHECK(config->allowed_origins[0] == '\0' && config->message_rate == 10);
    CHECK(!config->webhook_allow[0] && !config->webhook_ca[0]);
    CHECK(config->webhook_timeout == 5000 && config->webhook_retry == 600000);
    CHECK(config->webhook_queue == 4194304);
    CHECK(config->max_connections == 0 && config->max_per_ip == 0 && config->max_clients == 0);
    CHECK(config->max_body == 1048576 && config->max_head == 8192);
    CHECK(config->head_timeout == 10000 && config->idle_timeout == 75000 && config->api_rate == 0);
    CHECK(config->scope == NOTICE_GROUP);
    CHECK(config->log_level == LOG_INFO && config->log_file[0] == '\0');
    CHECK(config->log_format == LOG_FORMAT_TEXT);
    CHECK(strcmp(config->redis_host, "127.0.0.1") == 0 && config->redis_port == 6379);
    CHECK(config->redis_password[0] == '\0' && config->redis_db == 0);
    CHECK(strcmp(config->redis_prefix, "wspush:") == 0);
    CHECK(strcmp(config->rabbitmq_host, "127.0.0.1") == 0 && config->rabbitmq_port == 5672);
    CHECK(strcmp(config->rabbitmq_user, "guest") == 0);
    CHECK(strcmp(config->rabbitmq_password, "guest") == 0);
    CHECK(strcmp(config->rabbitmq_vhost, "/") == 0);
    CHECK(strcmp(config->rabbitmq_exchange, "wspush") == 0);
    CHECK(!config->redis_tls.enabled && !config->rabbitmq_tls.enabled);
    CHECK(config->redis_username[0] == '\0' && config->redis_sentinels[0] == '\0');
    CHECK(strcmp(config->redis_sentinel_master, "mymaster") == 0);
    CHECK(config->rabbitmq_hosts[0] == '\0' && config->rabbitmq_queue_type == QUEUE_CLASSIC);
    CHECK(config->advertise[0] == '\0' && config->rpc_port == 0);
    CHECK(config->node_ttl == 15000 && config->rpc_timeout == 2000);
    CHECK(strcmp(config->admin_host, "127.0.0.1") == 0 && config->admin_port == 7801);
    CHECK(config->console);
    CHECK(config->drain_wait == 0 && config->trusted_proxies[0] == '\0');
    CHECK(config->max_buffered == 256u << 20 && config->max_groups == 1000);
    CHECK(config->once_ttl == 300000 && config->once_max == 65536);
    CHECK(config->max_members == 1000);
}

static void defaults_are_those_of_the_contract(void)
{
    struct config config;

    memset(&config, 0x5a, sizeof config);
    config_defaults(&config);
    check_defaults(&config);
    check_good((struct str){NULL, 0}, &config);
    check_defaults(&config);
    check_good(STR("# nothing but comments\n\n[common]\n[log]\n"), &config);
    check_defaults(&config);
}

/* The same names in other sections are other keys. */
static void keys_of_other_sections_are_other_keys(void)
{
    struct config config;

    check_good(STR("[redis]\nhost = r\nport = 1\n[rabbitmq]\nhost = q\nport = 2\nuser = u\n"),
               &config);
    CHECK(config.port == 7800 && strcmp(config.host, "0.0.0.0") == 0 && config.user[0] == '\0');
    CHECK(strcmp(config.redis_host, "r") == 0 && config.redis_port == 1);
    CHECK(strcmp(config.rabbitmq_host, "q") == 0 && config.rabbitmq_port == 2);
}

static void admin_listens_at_an_address(void)
{
    static const struct {
        struct str value;
        const char *host;
        uint64_t port;
    } good[] = {{STR_INIT("[admin]\nlisten = 10.0.0.1:80"), "10.0.0.1", 80},
                {STR_INIT("[admin]\nlisten = [::1]:7801"), "::1", 7801},
                {STR_INIT("[admin]\nlisten = localhost:65535"), "localhost", 65535},
                {STR_INIT("[admin]\nlisten ="), "", 0}};
    struct config config;

    for (size_t i = 0; i < COUNT(good); i++) {
        check_good(good[i].value, &config);
        CHECK(strcmp(config.admin_host, good[i].host) == 0 && config.admin_port == good[i].port);
    }
    check_each_refused(
        "admin", "listen",
        "7801|:7801|127.0.0.1|127.0.0.1:|a:65536|a:0|::1:7801|a:-1|[]:80|[::1]|a: 80|"
        "off|a:80,b:80",
        "", "", "listen must be ADDRESS:PORT, such as 127.0.0.1:7801, not ");
}

/* What the keys before did not say stays what it was. */
static void parsing_goes_over_what_is_there(void)
{
    struct config config;
    char error[100];

    config_defaults(&config);
    CHECK(config_parse(&config, "a", STR("[common]\nport = 1\nhost = a\n"), error, sizeof error));
    CHECK(config_parse(&config, "b", STR("[common]\nport = 2\n"), error, sizeof error));
    CHECK(config.port == 2 && strcmp(config.host, "a") == 0 && config.ping == 25000);
    CHECK(config_parse(&config, "c", STR("[common]\nuser = u\n"), error, sizeof error));
    CHECK(config_parse(&config, "c", STR("[common]\nuser =\n"), error, sizeof error));
    CHECK(config.user[0] == '\0' && config.port == 2);
}

/* A number's key, its least and greatest value as kept, and how the error names them. */
static const struct {
    const char *section, *key;
    size_t offset;
    uint64_t least, greatest;
    const char *range;
} numbers[] = {
    {"common", "port", NUMBER(port), 1, 65535, "number from 1 to 65535"},
    {"common", "drain", NUMBER(drain), 0, 3600000, "number of seconds from 0 to 3600"},
    {"common", "drain_wait", NUMBER(drain_wait), 0, 3600000, "number of seconds from 0 to 3600"},
    {"auth", "token_ttl", NUMBER(token_ttl), 1, 315360000, "number from 1 to 315360000"},
    {"websocket", "ping", NUMBER(ping), 1, 86400000, ABOVE_0 "86400"},
    {"websocket", "pong_timeout", NUMBER(pong_timeout), 1, 86400000, ABOVE_0 "86400"},
    {"websocket", "max_message", NUMBER(max_message), 4, 64 * MIB, "size from 4 bytes to 64 MiB"},
    {"websocket", "send_queue", NUMBER(send_queue), 1024, 1024 * MIB, "size from 1 KiB to 1 GiB"},
    {"websocket", "message_rate", NUMBER(message_rate), 1, 100000, "number from 1 to 100000"},
    {"webhook", "timeout", NUMBER(webhook_timeout), 1, 3600000, ABOVE_0 "3600"},
    {"webhook", "retry", NUMBER(webhook_retry), 1, 2592000000, ABOVE_0 "2592000"},
    {"webhook", "queue", NUMBER(webhook_queue), MIB, 64 * MIB, "size from 1 MiB to 64 MiB"},
    {"limits", "max_connections", NUMBER(max_connections), 0, 10000000, TO_10000000},
    {"limits", "max_per_ip", NUMBER(max_per_ip), 0, 10000000, TO_10000000},
    {"limits", "max_clients", NUMBER(max_clients), 0, 10000000, TO_10000000},
    {"limits", "max_body", NUMBER(max_body), 256, 256 * MIB, "size from 256 bytes to 256 MiB"},
    {"limits", "max_head", NUMBER(max_head), 256, MIB, "size from 256 bytes to 1 MiB"},
    {"limits", "max_buffered", NUMBER(max_buffered), MIB, MIB *MIB, "size from 1 MiB to 1024 GiB"},
    {"limits", "max_groups", NUMBER(max_groups), 1, 1000000, "number from 1 to 1000000"},
    {"limits", "once_ttl", NUMBER(once_ttl), 1, 86400000, ABOVE_0 "86400"},
    {"limits", "once_max", NUMBER(once_max), 1, 1000000, "number from 1 to 1000000"},
    {"notice", "max_members", NUMBER(max_members), 0, 10000000, TO_10000000},
    {"limits", "head_timeout", NUMBER(head_timeout), 1, 86400000, ABOVE_0 "86400"},
    {"limits", "idle_timeout", NUMBER(idle_timeout), 1, 86400000, ABOVE_0 "86400"},
    {"limits", "api_rate", NUMBER(api_rate), 0, 10000000, TO_10000000},
    {"redis", "port", NUMBER(redis_port), 1, 65535, "number from 1 to 65535"},
    {"redis", "db", NUMBER(redis_db), 0, 1000000, "number from 0 to 1000000"},
    {"rabbitmq", "port", NUMBER(rabbitmq_port), 1, 65535, "number from 1 to 65535"},
    {"cluster", "rpc_port", NUMBER(rpc_port), 0, 65535, "number from 0 to 65535"},
    {"cluster", "node_ttl", NUMBER(node_ttl), 1, 3600000, ABOVE_0 "3600"},
    {"cluster", "rpc_timeout", NUMBER(rpc_timeout), 10, 2900, "number from 10 to 2900"},
};

static void check_number_refused(size_t i, const char *list)
{
    char complaint[200];

    snprintf(complaint, sizeof complaint, "%s must be a %s%s, not ", numbers[i].key,
             numbers[i].range,
             numbers[i].range[0] == 's' ? ", in bytes or with KiB, MiB or GiB" : "");
    check_each_refused(numbers[i].section, numbers[i].key, list, "", "", complaint);
}

static void check_number(size_t i, const char *value, uint64_t kept)
{
    struct config config;
    char error[500];

    if (!CHECK(parse_key(numbers[i].section, numbers[i].key, str_from(value), &config, error)) ||
        !CHECK(number_at(&config, numbers[i].offset) == kept))
        printf("  %s = %s: %s\n", numbers[i].key, value, error);
}

static void write_number(size_t i, uint64_t kept, char text[32])
{
    if (strstr(numbers[i].range, "seconds"))
        snprintf(text, 32, "%u.%03u", (unsigned)(kept / 1000), (unsigned)(kept % 1000));
    else
        snprintf(text, 32, "%llu", (unsigned long long)kept);
}

static void numbers_keep_their_range(void)
{
    char text[32];

    for (size_t i = 0; i < COUNT(numbers); i++) {
        write_number(i, numbers[i].least, text);
        check_number(i, text, numbers[i].least);
        write_number(i, numbers[i].greatest, text);
        check_number(i, text, numbers[i].greatest);
        write_number(i, numbers[i].greatest + 1, text);
        check_number_refused(i, text);
        if (numbers[i].least)
            write_number(i, numbers[i].least - 1, text);
        check_number_refused(i, numbers[i].least ? text : "-1");
    }
}

static void what_is_no_number_is_refused(void)
{
    for (size_t i = 0; i < COUNT(numbers); i++)
        check_number_refused(i,
                             "|x|-1|+1|1 0|0x10|1e3|1k|1 KB|1s|1,5|1.2.3|.|.5|5.|1.0005|one|1 ms|"
                             "true|1 -|99999999999999999999|18446744073709551617|"
                             "99999999999999999999999999");
}

/* Which entry of `numbers` a key has. */
static size_t number_of(const char *key)
{
    size_t i = 0;

    while (i + 1 < COUNT(numbers) && strcmp(numbers[i].key, key) != 0)
        i++;
    return i;
}

static void only_seconds_have_fractions(void)
{
    static const struct {
        const char *key, *value;
        uint64_t kept; /* 0: refused */
    } cases[] = {
        {"ping", "1.5", 1500},          {"ping", "0.25", 250},         {"ping", "0.025", 25},
        {"ping", "10.000", 10000},      {"ping", "007", 7000},         {"drain", "0.1", 100},
        {"idle_timeout", "1.05", 1050}, {"head_timeout", "2.5", 2500}, {"port", "80.0", 0},
        {"token_ttl", "1.5", 0},        {"max_body", "300.5", 0},      {"api_rate", "1.5", 0},
    };

    for (size_t i = 0; i < COUNT(cases); i++)
        if (cases[i].kept)
            check_number(number_of(cases[i].key), cases[i].value, cases[i].kept);
        else
            check_number_refused(number_of(cases[i].key), cases[i].value);
}

static void sizes_have_units(void)
{
    static const struct {
        const char *key, *value;
        uint64_t kept;
    } good[] = {
        {"max_body", "1 MiB", 1048576},         {"max_body", "1MiB", 1048576},
        {"max_body", "256mib", 268435456},      {"max_body", "3 kIb", 3072},
        {"max_body", "2 \t KiB", 2048},         {"max_head", "1024 KiB", 1048576},
        {"send_queue", "1024 MiB", 1073741824}, {"send_queue", "1 GiB", 1073741824},
        {"max_buffered", "2gib", 2147483648},
    };

    for (size_t i = 0; i < COUNT(good); i++)
        check_number(number_of(good[i].key), good[i].value, good[i].kept);
    check_number_refused(
        number_of("max_body"),
        "KiB|MiB|GiB|257 MiB|300 MiB|0 MiB|1.5 MiB|-1 KiB|x MiB|1 KiB KiB|1 GiB|1 MB|"
        "1 GB|1 Mi B|1M|18014398509481985 KiB|17592186044417 MiB|17179869185 GiB");
    check_number_refused(number_of("max_buffered"), "1025 GiB");
    check_number_refused(number_of("port"), "1 KiB");
    check_number_refused(number_of("api_rate"), "1 KiB");
    check_number_refused(number_of("ping"), "1 KiB");
}

/* A text's key, and the greatest length that it takes. */
static const struct {
    const char *section, *key;
    size_t offset, length;
    bool filled;       /* it may not be empty */
    const char *value; /* one that it takes; NULL: all are taken */
} texts[] = {
    {"common", "host", offsetof(struct config, host), 255, true, NULL},
    {"common", "data_dir", offsetof(struct config, data_dir), 1023, true, NULL},
    {"common", "user", offsetof(struct config, user), 63, false, NULL},
    {"websocket", "allowed_origins", offsetof(struct config, allowed_origins), 2047, false,
     "https://a.example"},
    {"webhook", "allow", offsetof(struct config, webhook_allow), 2047, false,
     "https://shop.example/push/, http://[::1]:9000"},
    {"webhook", "ca", offsetof(struct config, webhook_ca), 1023, false, NULL},
    {"log", "file", offsetof(struct config, log_file), 1023, false, NULL},
    {"redis", "host", offsetof(struct config, redis_host), 255, true, NULL},
    {"redis", "password", offsetof(struct config, redis_password), 255, false, NULL},
    {"redis", "prefix", offsetof(struct config, redis_prefix), 127, false, NULL},
    {"redis", "username", offsetof(struct config, redis_username), 127, false, NULL},
    {"redis", "ca", offsetof(struct config, redis_tls.ca), 1023, false, NULL},
    {"redis", "cert", offsetof(struct config, redis_tls.cert), 1023, false, NULL},
    {"redis", "key", offsetof(struct config, redis_tls.key), 1023, false, NULL},
    {"redis", "sentinels", offsetof(struct config, redis_sentinels), 1023, false,
     "10.0.0.1, [::1]:26379 c.example"},
    {"redis", "sentinel_master", offsetof(struct config, redis_sentinel_master), 127, true, NULL},
    {"redis", "sentinel_username", offsetof(struct config, redis_sentinel_username), 127, false,
     NULL},
    {"redis", "sentinel_password", offsetof(struct config, redis_sentinel_password), 255, false,
     NULL},
    {"rabbitmq", "hosts", offsetof(struct config, rabbitmq_hosts), 1023, false, "a:5672,b ::1"},
    {"rabbitmq", "ca", offsetof(struct config, rabbitmq_tls.ca), 1023, false, NULL},
    {"rabbitmq", "cert", offsetof(struct config, rabbitmq_tls.cert), 1023, false, NULL},
    {"rabbitmq", "key", offsetof(struct config, rabbitmq_tls.key), 1023, false, NULL},
    {"rabbitmq", "host", offsetof(struct config, rabbitmq_host), 255, true, NULL},
    {"rabbitmq", "user", offsetof(struct config, rabbitmq_user), 127, false, NULL},
    {"rabbitmq", "password", offsetof(struct config, rabbitmq_password), 255, false, NULL},
    {"rabbitmq", "vhost", offsetof(struct config, rabbitmq_vhost), 127, false, NULL},
    {"rabbitmq", "exchange", offsetof(struct config, rabbitmq_exchange), 100, true, NULL},
    {"cluster", "advertise", offsetof(struct config, advertise), 100, false, "10.1.2.3"},
};

static void check_text(size_t i, struct str value, const char *complaint)
{
    struct config config;
    char error[500], expected[200] = "";
    bool good = parse_key(texts[i].section, texts[i].key, value, &config, error);

    if (complaint)
        snprintf(expected, sizeof expected, "f.ini:2: %s%s", complaint, texts[i].key);
    if (!CHECK(good == !complaint) || !CHECK(strcmp(error, expected) == 0))
        printf("  %s: %s\n", texts[i].key, error);
    if (good)
        CHECK(str_equal(str_from((const char *)&config + texts[i].offset), value));
}

static void texts_fit_or_are_refused(void)
{
    char value[3000];

    memset(value, 't', sizeof value);
    for (size_t i = 0; i < COUNT(texts); i++) {
        check_text(i, STR(""), texts[i].filled ? "a value is needed for " : NULL);
        if (texts[i].value) {
            check_text(i, str_from(texts[i].value), NULL);
        } else {
            check_text(i, STR("a b = [c] d#e;f \\ \" \xe4\xb8\xad"), NULL);
            check_text(i, (struct str){value, texts[i].length}, NULL);
        }
        check_text(i, (struct str){value, texts[i].length + 1}, "the value is too long: ");
        check_text(i, (struct str){value, sizeof value}, "the value is too long: ");
        check_text(i, STR("a\tb"), "control byte in the value of ");
        check_text(i, STR("a\rb"), "control byte in the value of ");
        check_text(i, STR("a\x1b[2J"), "control byte in the value of ");
    }
}

static void words_are_chosen_from(void)
{
    static const char *const scopes[] = {"group", "SYSTEM", "Off"};
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    struct config config;
    char error[500];

    check_each_refused("common", "cluster", "yes|1||false true", "", "",
                       "cluster must be one of: false true; not ");
    check_each_refused("notice", "scope", "none|groups", "", "",
                       "scope must be one of: group system off; not ");
    check_each_refused("log", "level", "warning|1", "", "",
                       "level must be one of: debug info warn error; not ");
    check_each_refused("log", "format", "xml|tex", "", "",
                       "format must be one of: text json; not ");
    for (unsigned i = 0; i < 3; i++)
        CHECK(parse_key("notice", "scope", str_from(scopes[i]), &config, error) &&
              (unsigned)config.scope == i);
    for (size_t i = 0; i < 4; i++)
        CHECK(parse_key("log", "level", str_from(levels[i]), &config, error) &&
              config.log_level == (enum log_level)i);
    CHECK(parse_key("log", "format", STR("TEXT"), &config, error) &&
          config.log_format == LOG_FORMAT_TEXT);
    CHECK(parse_key("log", "format", STR("json"), &config, error) &&
          config.log_format == LOG_FORMAT_JSON);
    CHECK(parse_key("common", "cluster", STR("True"), &config, error) && config.cluster);
    CHECK(parse_key("common", "cluster", STR("FALSE"), &config, error) && !config.cluster);
    check_good(STR("[console]\nenabled = false"), &config);
    CHECK(!config.console);
}

static void servers_are_hosts_with_or_without_a_port(void)
{
    check_each_refused("redis", "sentinels", "a:|:1|a:0|a:65536|a/b|-a|0.0.0.0|[::1", "", "",
                       "sentinels must be hosts with or without a port, such as 10.0.0.11 "
                       "b.example:26379, not ");
    check_each_refused("rabbitmq", "hosts", "a:|:1|a:0|a:65536|a/b|-a|0.0.0.0|[::1", "", "",
                       "hosts must be hosts with or without a port, such as 10.0.0.11 "
                       "b.example:5672, not ");
    check_each_refused("rabbitmq", "queue_type", "stream|", "", "",
                       "queue_type must be one of: classic quorum; not ");
}

static void registration_is_open_closed_or_by_key(void)
{
    static const struct {
        const char *value;
        enum config_register registration;
        const char *key;
    } cases[] = {
        {"open", REGISTER_OPEN, ""},        {"OPEN", REGISTER_OPEN, ""},
        {"closed", REGISTER_CLOSED, ""},    {"Closed", REGISTER_CLOSED, ""},
        {"key:s", REGISTER_KEY, "s"},       {"KEY:Secret", REGISTER_KEY, "Secret"},
        {"key:a:b", REGISTER_KEY, "a:b"},   {"key:a=b", REGISTER_KEY, "a=b"},
        {"key:open", REGISTER_KEY, "open"},
    };
    char longest[300] = "key:";
    struct config config;
    char error[500];

    for (size_t i = 0; i < COUNT(cases); i++)
        if (!CHECK(parse_key("auth", "register", str_from(cases[i].value), &config, error)) ||
            !CHECK(config.registration == cases[i].registration) ||
            !CHECK(strcmp(config.register_key, cases[i].key) == 0))
            printf("  register = %s: %s\n", cases[i].value, error);
    memset(longest + 4, 'k', 255);
    CHECK(parse_key("auth", "register", str_from(longest), &config, error));
    CHECK(strcmp(config.register_key, longest + 4) == 0);
}

/* No complaint repeats what could be a secret. */
static void secrets_are_not_repeated(void)
{
    struct str keys = STR("0|0123456789abcde|0123456789abcdefg|0123456789abcdef 0123456789abcdef");
    struct str registers = STR("|key|key:|keys:hunter2|hunter2|open hunter2|:hunter2|key hunter2");
    char text[700];

    while (keys.at) {
        struct str key = str_cut(&keys, '|');

        snprintf(text, sizeof text, "[common]\ncrypto_key = %.*s", (int)key.length, key.at);
        check_refused(str_from(text), "f.ini:2: crypto_key must have exactly 16 bytes");
    }
    while (registers.at) {
        struct str value = str_cut(&registers, '|');

        snprintf(text, sizeof text, "[auth]\nregister = %.*s", (int)value.length, value.at);
        check_refused(str_from(text),
                      "f.ini:2: register must be open, closed or key:SECRET (1 to 255 bytes)");
    }
    check_refused(STR("[common]\ncrypto_key_accepted = 0"),
                  "f.ini:2: crypto_key_accepted must have exactly 16 bytes");
    snprintf(text, sizeof text, "[auth]\nregister = key:%0256d", 0);
    check_refused(str_from(text),
                  "f.ini:2: register must be open, closed or key:SECRET (1 to 255 bytes)");
    check_refused(STR("crypto_key = 0123456789abcdef"),
                  "f.ini:1: a [section] is expected before this key: crypto_key");
    check_refused(STR("[log]\ncrypto_key = 0123456789abcdef"),
                  "f.ini:2: unknown key: crypto_key; it belongs to [common]");
    check_refused(STR("[common]\ncrypto_key 0123456789abcdef"), "f.ini:2: key = value is expected");
    check_refused(STR("[auth]\nregister = key:a\nregister = key:hunter2"),
                  "f.ini:3: this key was given before: register");
}

static void a_crypto_key_has_16_bytes(void)
{
    struct config config;

    check_good(STR("[common]\ncrypto_key =   0123456789ab = f\t\n"), &config);
    CHECK(strcmp(config.crypto_key, "0123456789ab = f") == 0);
    check_good(STR("[common]\ncrypto_key = caf\xc3\xa9, caf\xc3\xa9 ole\n"), &config);
    CHECK(strlen(config.crypto_key) == 16);
    check_good(STR("[common]\ncrypto_key =\n"), &config);
    CHECK(config.crypto_key[0] == '\0' && config.crypto_key_accepted[0] == '\0');
    check_good(STR("[common]\ncrypto_key_accepted = 0123456789abcdef\n"), &config);
    CHECK(config.crypto_key[0] == '\0' &&
          strcmp(config.crypto_key_accepted, "0123456789abcdef") == 0);
}

#define GUIDE " (see docs/migrating-from-go-websocket.md)"

/* An error has the line's number and short, printable text: the file may be any file, and a NUL in
 * it must not cut a value short. */
static void errors_name_the_line_and_what_is_wrong(void)
{
    static const struct {
        struct str text;
        const char *error;
    } cases[] = {
        {STR_INIT("x"), "1: key = value is expected"},
        {STR_INIT("[common]\n\n# c\n ; c\nport"), "5: key = value is expected"},
        {STR_INIT("[common]\nport: 1"), "2: key = value is expected"},
        {STR_INIT("port = 1"), "1: a [section] is expected before this key: port"},
        {STR_INIT("\xef\xbb\xbf\nport = 1"), "2: a [section] is expected before this key: port"},
        {STR_INIT("= 1"), "1: a [section] is expected before this key: "},
        {STR_INIT("[common"), "1: a section must end with ]"},
        {STR_INIT("["), "1: a section must end with ]"},
        {STR_INIT("[common] port = 1"), "1: a section must end with ]"},
        {STR_INIT("[nothing]"), "1: unknown section: nothing"},
        {STR_INIT("[common]\r\n\r\n[]\r\n"), "3: unknown section: "},
        {STR_INIT("[com mon]"), "1: unknown section: com mon; did you mean common?"},
        {STR_INIT("[[common]]"), "1: unknown section: [common]; did you mean common?"},
        {STR_INIT("[WEBSOCKETS]"), "1: unknown section: WEBSOCKETS; did you mean websocket?"},
        {STR_INIT("[rabbit]"), "1: unknown section: rabbit; did you mean rabbitmq?"},
        {STR_INIT("[\x1b]"), "1: unknown section: ?"},
        {STR_INIT("[common]\n= 1"), "2: unknown key: "},
        {STR_INIT("[common]\ncommon.port = 1"), "2: unknown key: common.port"},
        {STR_INIT("[common]\na\x1b[2J\x07\x7f\tb = 1"), "2: unknown key: a?[2J???b"},
        {STR_INIT("[common]\n\xe4\xb8\xad = 1"), "2: unknown key: \xe4\xb8\xad"},
        {STR_INIT("[common]\nports = 1"), "2: unknown key: ports; did you mean port?"},
        {STR_INIT("[common]\nPrt = 1"), "2: unknown key: Prt; did you mean port?"},
        {STR_INIT("[common]\ncrypto-key = 1"),
         "2: unknown key: crypto-key; did you mean crypto_key?"},
        {STR_INIT("[limits]\nmax_conections = 1"),
         "2: unknown key: max_conections; did you mean max_connections?"},
        {STR_INIT("[limits]\nmax_bodies = 1"), "2: unknown key: max_bodies"},
        {STR_INIT("[redis]\nd = 1"), "2: unknown key: d; did you mean db?"},
        {STR_INIT("[redis]\nx = 1"), "2: unknown key: x"},
        {STR_INIT("[redis]\nno = 1"), "2: unknown key: no"},
        {STR_INIT("[log]\nscope = off"), "2: unknown key: scope; it belongs to [notice]"},
        {STR_INIT("[redis]\nuser = e"), "2: unknown key: user; it belongs to [common]"},
        {STR_INIT("[common]\nrpc_port = 1"), "2: unknown key: rpc_port; it belongs to [cluster]"},
        {STR_INIT("[common]\nHttpPort = 1"),
         "2: unknown key: HttpPort; in wspush it is port" GUIDE},
        {STR_INIT("[common]\nRPCPort = 1"), "2: unknown key: RPCPort; in wspush it is rpc_port in "
                                            "[cluster], and a single node needs none" GUIDE},
        {STR_INIT("[common]\ncryptokey = 1"),
         "2: unknown key: cryptokey; in wspush it is crypto_key" GUIDE},
        {STR_INIT("[rabbitMQ]\namqpurl ="),
         "2: unknown key: amqpurl; in wspush it is split into host, "
         "port, user, password and vhost" GUIDE},
        {STR_INIT("[etcd]"),
         "1: unknown section: etcd; remove the section, a cluster needs [redis] and "
         "[rabbitmq] instead" GUIDE},
        {STR_INIT("[common]\nport = 1\nPORT = 1"), "3: this key was given before: PORT"},
        {STR_INIT("[common]\nport=1\n[log]\n[Common]\nport=2"),
         "5: this key was given before: port"},
        {STR_INIT("[common]\nport = x\nport = 1"),
         "2: port must be a number from 1 to 65535, not x"},
        {STR_INIT("[common]\nport = = 1"), "2: port must be a number from 1 to 65535, not = 1"},
        {STR_INIT("[common]\nport = 1# no comment"),
         "2: port must be a number from 1 to 65535, not 1# no comment"},
        {STR_INIT("[common]\nport = \x1b"), "2: port must be a number from 1 to 65535, not ?"},
        {STR_INIT("[common]\ncrypto_key = \0"
                  "123456789abcdef"),
         "2: NUL byte in the line"},
        {STR_INIT("[auth]\nregister = key:a\0b"), "2: NUL byte in the line"},
        {STR_INIT("\x7f"
                  "ELF\0\0\0\0"),
         "1: NUL byte in the line"},
    };
    char text[3000] = "[common]\n", expected[200];

    for (size_t i = 0; i < COUNT(cases); i++) {
        snprintf(expected, sizeof expected, "f.ini:%s", cases[i].error);
        check_refused(cases[i].text, expected);
    }
    memset(text + 9, 'k', 2900);
    memcpy(text + 2909, " = 1", 5);
    snprintf(expected, sizeof expected, "f.ini:2: unknown key: %.*s", 100, text + 9);
    check_refused(str_from(text), expected);
}

/* The same settings, however they are written down. */
static void white_space_case_and_comments_do_not_matter(void)
{
    static const struct str cases[] = {
        STR_INIT("[common]\nport=9000\nhost=h\n[log]\nlevel=warn"),
        STR_INIT("[common]\nport=9000\nhost=h\n[log]\nlevel=warn\n\n"),
        STR_INIT(
            "\xef\xbb\xbf[common]\r\nport = 9000\r\nhost = h\r\n\r\n[log]\r\nlevel = warn\r\n"),
        STR_INIT("\xef\xbb\xbf# first\n[common]\nport = 9000\nhost = h\n[log]\nlevel = warn\r"),
        STR_INIT("\t[ COMMON ]  \n  PORT\t=\t9000  \n\tHost =h\t\n [Log] \n LEVEL= warn"),
        STR_INIT("[common] ; the first\nport = 9000 # a number\nhost = h\t; a name\n"
                 "#host = x\n;host = y\n  # host = z\n\t; host = z\n[log] #\nlevel = warn #"),
        STR_INIT("[log]\nlevel = warn\n[common]\nport = 9000\n[log]\n[common]\nhost = h\n"),
        STR_INIT("[common]\nport = 0009000\nhost = h # = [x] ; y # z\n[log]\nlevel = warn ;;\n"),
    };
    struct config config;

    for (size_t i = 0; i < COUNT(cases); i++) {
        check_good(cases[i], &config);
        if (!CHECK(config.port == 9000 && strcmp(config.host, "h") == 0) ||
            !CHECK(config.log_level == LOG_WARN))
            printf("  in case %zu\n", i);
        config.port = 7800;
        strcpy(config.host, "0.0.0.0");
        config.log_level = LOG_INFO;
        check_defaults(&config);
    }
}

static void values_may_hold_the_marks_of_comments(void)
{
    struct config config;

    check_good(STR("[common]\ndata_dir = a#b;c\nuser = #none\nhost = h#\n"), &config);
    CHECK(strcmp(config.data_dir, "a#b;c") == 0 && strcmp(config.user, "") == 0);
    CHECK(strcmp(config.host, "h#") == 0);
    check_good(STR("[common]\ndata_dir =#b\nuser =;u\n"), &config);
    CHECK(strcmp(config.data_dir, "#b") == 0 && strcmp(config.user, ";u") == 0);
}

static void complaints_are_cut_to_the_size(void)
{
    static const char whole[] = "dir/some.ini:1: unknown section: x";

    for (size_t size = 0; size < sizeof whole + 10; size++) {
        char error[sizeof whole + 20];
        struct config config;
        size_t length = size <= sizeof whole - 1 ? size - 1 : sizeof whole - 1;

        memset(error, '#', sizeof error);
        config_defaults(&config);
        CHECK(!config_parse(&config, "dir/some.ini", STR("[x]"), error, size));
        for (size_t i = size; i < sizeof error; i++)
            CHECK(error[i] == '#');
        if (size > 0)
            CHECK(memcmp(error, whole, length) == 0 && error[length] == '\0');
    }
}

static void origins_are_checked(void)
{
    struct config config;
    char error[500];

    check_each_refused(
        "websocket", "allowed_origins",
        "shop.example|https://|https://shop.example/path|wss://shop.example|https://*|"
        "https://shop.*|https://shop.example:0",
        "https://a.example, ", " null",
        "allowed_origins must be *, null, or the origins of pages such as "
        "https://shop.example or https://*.shop.example:8443, not ");
    CHECK(!parse_key("webhook", "allow", STR("http://a, http://u@b/"), &config, error));
    CHECK(strcmp(error, "f.ini:2: allow must be URLs such as https://shop.example/push/ or "
                        "http://127.0.0.1:9000/, not http://u@b/") == 0);
    CHECK(!parse_key("websocket", "allowed_origins", STR(", ,"), &config, error));
    CHECK(parse_key("websocket", "allowed_origins", STR("https://*.b.example:8443/, null"), &config,
                    error));
    CHECK(strcmp(config.allowed_origins, "https://*.b.example:8443/, null") == 0);
}

static void links_listen_with_or_without_a_port(void)
{
    static const struct {
        struct str text;
        const char *host;
        uint64_t port;
    } good[] = {{STR_INIT("[cluster]\nrpc_listen = 10.0.0.1:80"), "10.0.0.1", 80},
                {STR_INIT("[cluster]\nrpc_listen = 0.0.0.0"), "0.0.0.0", 0},
                {STR_INIT("[cluster]\nrpc_listen = ::"), "::", 0},
                {STR_INIT("[cluster]\nrpc_listen = [::]"), "::", 0},
                {STR_INIT("[cluster]\nrpc_listen = [fd00::1]:7801"), "fd00::1", 7801},
                {STR_INIT("[cluster]\nrpc_listen = push-1"), "push-1", 0},
                {STR_INIT("[cluster]\nrpc_listen ="), "", 0}};
    struct config config;

    for (size_t i = 0; i < COUNT(good); i++) {
        check_good(good[i].text, &config);
        CHECK(strcmp(config.rpc_listen_host, good[i].host) == 0 &&
              config.rpc_listen_port == good[i].port);
    }
    check_each_refused(
        "cluster", "rpc_listen",
        ":80|[::1|[::1]80|[10.0.0.1]:80|10.0.0.1:0|10.0.0.1:65536|10.0.0.1:|1:2:3|[]|"
        "[]:1|]",
        "", "",
        "rpc_listen must be an address of this machine, with or without a port, such "
        "as 0.0.0.0:8800 or [::]:8800, not ");
}

static void addresses_are_of_one_machine(void)
{
    struct config config;

    check_each_refused("cluster", "advertise",
                       "0.0.0.0|0.1.2.3|224.0.0.1|10.0.0|10.0.0.1:1|::|ff02::1|[::1]|two names", "",
                       "",
                       "advertise must be an address of this machine or a host name, such as "
                       "10.0.0.11, fd00::11 or push-1.example, not ");
    check_good(STR("[cluster]\nadvertise = 223.255.255.255\n"), &config);
    check_good(STR("[cluster]\nadvertise = Push-1.example\n"), &config);
    check_good(STR("[cluster]\nadvertise = fd00::11\n"), &config);
    CHECK(strcmp(config.advertise, "fd00::11") == 0);
    check_good(STR("[common]\nhost = unix:/run/wspush\n"), &config);
    CHECK(strcmp(config.host, "unix:/run/wspush") == 0);
    check_refused(STR("[common]\nhost = unix:"),
                  "f.ini:2: host = unix: needs a path, such as unix:/run/wspush/socket");
    check_refused(STR("[common]\nhost = \"\""), "f.ini:2: a value is needed for host");
}

/* What stands between quotes is the value, as it is. */
static void values_may_stand_in_quotes(void)
{
    static const struct {
        const char *written, *value; /* NULL: refused */
    } cases[] = {
        {"\"\"", ""},
        {"\"data\"", "data"},
        {"\"p # q ; r\"", "p # q ; r"},
        {"\" at both ends \"", " at both ends "},
        {"\"#\" # comment", "#"},
        {"\t\"#\"\t;\"", "#"},
        {"\"say \\\"x\\\"\"", "say \"x\""},
        {"\"a\\\\b\"", "a\\b"},
        {"\"\\\\\"", "\\"},
        {"\"[redis] = 'x'\"", "[redis] = 'x'"},
        {"a\"b\"", "a\"b\""},
        {"a \"b # c\"", "a \"b"},
        {"'x'", "'x'"},
        {"C:\\x", "C:\\x"},
        {"\"", NULL},
        {"\"a", NULL},
        {"\"a # b", NULL},
        {"\"a\\\"", NULL},
        {"\"a\\", NULL},
        {"\"a\\n\"", NULL},
        {"\"C:\\x\"", NULL},
        {"\"a\"b", NULL},
        {"\"a\" b", NULL},
        {"\"a\"#b", NULL},
        {"\"a\" \"b\"", NULL},
    };
    struct config config;
    char error[500];

    for (size_t i = 0; i < COUNT(cases); i++) {
        bool good = parse_key("redis", "password", str_from(cases[i].written), &config, error);

        if (!CHECK(good == !!cases[i].value) ||
            !CHECK(strcmp(good ? config.redis_password : "", good ? cases[i].value : "") == 0))
            printf("  in case %s: %s %s\n", cases[i].written, error, config.redis_password);
        if (!cases[i].value)
            CHECK(strcmp(error, "f.ini:2: a value that begins with a double quote must end with "
                                "one; in it, \\\" and \\\\ stand for \" and \\, and \\ for nothing "
                                "else") == 0);
    }
    check_good(STR("[common]\nport = \"80\"\ncluster = \"true\"\n"
                   "crypto_key = \" 23456789abcdef \"\r\n[limits]\nmax_body = \"1 MiB\""),
               &config);
    CHECK(config.port == 80 && config.cluster && config.max_body == 1048576);
    CHECK(strcmp(config.crypto_key, " 23456789abcdef ") == 0);
    check_refused(STR("[common]\nport = \" 80\""),
                  "f.ini:2: port must be a number from 1 to 65535, not  80");
    check_refused(STR("[common]\ncrypto_key = \"0123456789abcde\0\""),
                  "f.ini:2: NUL byte in the line");
    check_refused(STR("[common]\ncrypto_key = \" #3456789abcde\0\""),
                  "f.ini:2: NUL byte in the value of crypto_key");
}

/* Of the length that any value can have, and one more, in quotes. */
static void quoted_values_fit_or_are_refused(void)
{
    for (size_t length = 2040; length < 2060; length++) {
        char text[2200];
        struct config config;
        char error[500];
        int begin = snprintf(text, sizeof text, "[common]\ntrusted_proxies = \"::1");

        memset(text + begin, ' ', length - 3);
        strcpy(text + begin + length - 3, "\"");
        CHECK(parse(str_from(text), &config, error) == (length <= 2047));
        if (length > 2047)
            CHECK(strncmp(error, "f.ini:2: the value is too long", 30) == 0);
    }
}

/* --- the environment -------------------------------------------------------------------------- */

static bool set(struct config *config, const char *name, struct str value, char error[500])
{
    struct str key = exact_copy(str_from(name)), copy = exact_copy(value);
    bool good;

    config_defaults(config);
    error[0] = '\0';
    good = config_set(config, key, copy, error, 500);
    free_copy(key);
    free_copy(copy);
    return good;
}

static void variables_set_keys(void)
{
    struct config config;
    char error[500];

    CHECK(set(&config, "WSPUSH_COMMON_PORT", STR("80"), error) && config.port == 80);
    CHECK(set(&config, "WSPUSH_REDIS_PASSWORD", STR(" \"p # q\\ "), error) &&
          strcmp(config.redis_password, " \"p # q\\ ") == 0);
    CHECK(set(&config, "WSPUSH_REDIS_PASSWORD_FILE", STR("s"), error) &&
          strcmp(config.redis_password, "s") == 0);
    CHECK(set(&config, "WSPUSH_LIMITS_MAX_BODY", STR("2 MiB"), error) &&
          config.max_body == 2097152);
    CHECK(set(&config, "WSPUSH_LOG_FILE", STR("l"), error) && strcmp(config.log_file, "l") == 0);
    CHECK(set(&config, "WSPUSH_COMMON_USER", STR(""), error) && config.user[0] == '\0');
    CHECK(config_names_file(STR("WSPUSH_REDIS_PASSWORD_FILE")));
    CHECK(config_names_file(STR("WSPUSH_LOG_FILE_FILE")));
    CHECK(!config_names_file(STR("WSPUSH_LOG_FILE")) && !config_names_file(STR("WSPUSH_FILE")));
    CHECK(!config_names_file(STR("WSPUSH_REDIS_PASSWORD")));
    CHECK(!config_names_file(STR("WSPUSH_REDIS_PASSWD_FILE")));
    config_defaults(&config); /* what was set stays, but for this key */
    CHECK(config_parse(&config, "f", STR("[common]\nport = 1\ndrain = 7"), error, sizeof error));
    CHECK(config_set(&config, STR("WSPUSH_COMMON_PORT"), STR("2"), error, sizeof error));
    CHECK(config.port == 2 && config.drain == 7000);
}

static void variables_are_refused_by_name(void)
{
    static const struct {
        const char *name;
        struct str value;
        const char *complaint;
    } cases[] = {
        {"WSPUSH_COMMON_PORT", STR_INIT("eighty"),
         "WSPUSH_COMMON_PORT: port must be a number from 1 to 65535, not eighty"},
        {"WSPUSH_COMMON_PORT_FILE", STR_INIT(""),
         "WSPUSH_COMMON_PORT_FILE: port must be a number from 1 to 65535, not "},
        {"WSPUSH_COMMON_CRYPTO_KEY", STR_INIT("hunter2"),
         "WSPUSH_COMMON_CRYPTO_KEY: crypto_key must have exactly 16 bytes"},
        {"WSPUSH_COMMON_CRYPTO_KEY_FILE", STR_INIT("0123456789abcde\0"),
         "WSPUSH_COMMON_CRYPTO_KEY_FILE: NUL byte in the value of crypto_key"},
        {"WSPUSH_REDIS_PASSWORD_FILE", STR_INIT("hunter2\nx"),
         "WSPUSH_REDIS_PASSWORD_FILE: control byte in the value of password"},
        {"WSPUSH_COMMON_HOST", STR_INIT(""), "WSPUSH_COMMON_HOST: a value is needed for host"},
        {"WSPUSH_", STR_INIT("1"), "unknown variable of the environment: WSPUSH_"},
        {"WSPUSH_X", STR_INIT("1"), "unknown variable of the environment: WSPUSH_X"},
        {"WSPUSH_FILE", STR_INIT("1"),
         "unknown variable of the environment: WSPUSH_FILE; did you mean WSPUSH_LOG_FILE?"},
        {"WSPUSH__FILE", STR_INIT("1"), "unknown variable of the environment: WSPUSH__FILE"},
        {"WSPUSH_PORT", STR_INIT("1"),
         "unknown variable of the environment: WSPUSH_PORT; did you mean WSPUSH_COMMON_PORT?"},
        {"WSPUSH_COMON_PORT", STR_INIT("1"),
         "unknown variable of the environment: WSPUSH_COMON_PORT; did you mean "
         "WSPUSH_COMMON_PORT?"},
        {"WSPUSH_COMMON_CRYPTOKEY_FILE", STR_INIT("1"),
         "unknown variable of the environment: WSPUSH_COMMON_CRYPTOKEY_FILE; did you mean "
         "WSPUSH_COMMON_CRYPTO_KEY_FILE?"},
        {"WSPUSH_common_port", STR_INIT("1"),
         "unknown variable of the environment: WSPUSH_common_port; did you mean "
         "WSPUSH_COMMON_PORT?"},
        {"WSPUSH_\x1b[2J", STR_INIT("1"), "unknown variable of the environment: WSPUSH_?[2J"},
    };
    struct config config;
    char error[500];

    for (size_t i = 0; i < COUNT(cases); i++)
        if (!CHECK(!set(&config, cases[i].name, cases[i].value, error)) ||
            !CHECK(strcmp(error, cases[i].complaint) == 0))
            printf("  %s\n  instead of: %s\n", error, cases[i].complaint);
}

static void what_is_no_network_is_refused(void)
{
    struct config config;
    char error[500];

    check_each_refused(
        "common", "trusted_proxies",
        "x|localhost|10.0.0|10.0.0.0.0|10.0.0.256|10.0.0.0/|/8|10.0.0.0/33|10.0.0.0/-1|"
        "10.0.0.0/+8|10.0.0.0/8/|10.0.0.0/8/8|10.0.0.1:|::1/129|[::1]|fe80::1%lo|"
        "1::2::3|::/|unix:|10.0.0.0/x|10.0.0.0;::1|*|10.0.0.0/255.0.0.0|"
        "2001:0db8:0001:0002:0003:0004:0005:0006:0007:0008:0009",
        "10.0.0.0/8, ", " ::1",
        "trusted_proxies must be addresses and networks such as 10.0.0.0/8 or "
        "fd00::/8, not ");
    CHECK(parse_key("common", "trusted_proxies", STR("10.0.0.0/8, ::1"), &config, error));
    CHECK(strcmp(config.trusted_proxies, "10.0.0.0/8, ::1") == 0);
    CHECK(parse_key("common", "trusted_proxies", STR(""), &config, error));
}

/* --- two configurations ---------------------------------------------------------------------- */

/* Every key, a value that is not its default, and what a change from the default to it is called;
 * `from` NULL: it needs a restart, and no value is told. */
static const struct {
    const char *section, *key, *value, *from, *to;
} all_keys[] = {
    {"common", "host", "127.0.0.1", NULL, NULL},
    {"common", "port", "7900", NULL, NULL},
    {"common", "cluster", "true", NULL, NULL},
    {"common", "crypto_key", "secret secret 16", NULL, NULL},
    {"common", "crypto_key_accepted", "secret secret 16", NULL, NULL},
    {"common", "data_dir", "elsewhere", NULL, NULL},
    {"common", "user", "nobody", NULL, NULL},
    {"common", "drain", "6", NULL, NULL},
    {"common", "drain_wait", "6", NULL, NULL},
    {"common", "trusted_proxies", "10.0.0.0/8", NULL, NULL},
    {"auth", "token_ttl", "60", NULL, NULL},
    {"auth", "register", "closed", NULL, NULL},
    {"auth", "register", "key:secret", NULL, NULL},
    {"websocket", "ping", "20", NULL, NULL},
    {"websocket", "pong_timeout", "5", NULL, NULL},
    {"websocket", "max_message", "8193", NULL, NULL},
    {"websocket", "send_queue", "2 MiB", NULL, NULL},
    {"websocket", "allowed_origins", "https://a.example", "", "https://a.example"},
    {"websocket", "message_rate", "7", "10", "7"},
    {"webhook", "allow", "http://a/", "", "http://a/"},
    {"webhook", "timeout", "6", NULL, NULL},
    {"webhook", "retry", "60", NULL, NULL},
    {"webhook", "queue", "1 MiB", NULL, NULL},
    {"webhook", "ca", "ca.pem", NULL, NULL},
    {"limits", "max_connections", "10", "0", "10"},
    {"limits", "max_per_ip", "11", "0", "11"},
    {"limits", "max_clients", "12", "0", "12"},
    {"limits", "max_body", "2 MiB", "1048576", "2097152"},
    {"limits", "max_head", "4 KiB", "8192", "4096"},
    {"limits", "max_buffered", "1 GiB", "268435456", "1073741824"},
    {"limits", "max_groups", "10", "1000", "10"},
    {"notice", "max_members", "0", "1000", "0"},
    {"limits", "head_timeout", "0.25", "10", "0.250"},
    {"limits", "idle_timeout", "75.001", "75", "75.001"},
    {"limits", "api_rate", "10000000", "0", "10000000"},
    {"limits", "once_ttl", "0.5", "300", "0.500"},
    {"limits", "once_max", "1", "65536", "1"},
    {"notice", "scope", "system", "group", "system"},
    {"notice", "scope", "off", "group", "off"},
    {"log", "level", "error", "info", "error"},
    {"log", "level", "debug", "info", "debug"},
    {"log", "file", "secret.log", NULL, NULL},
    {"log", "format", "json", NULL, NULL},
    {"tls", "cert", "/etc/cert.pem", "", "/etc/cert.pem"},
    {"tls", "key", "/etc/key.pem", "", "/etc/key.pem"},
    {"admin", "listen", "127.0.0.2:7801", NULL, NULL},
    {"admin", "listen", "127.0.0.1:7802", NULL, NULL},
    {"admin", "listen", "", NULL, NULL},
    {"console", "enabled", "false", NULL, NULL},
    {"redis", "host", "10.0.0.1", NULL, NULL},
    {"redis", "port", "6380", NULL, NULL},
    {"redis", "password", "secret", NULL, NULL},
    {"redis", "db", "1", NULL, NULL},
    {"redis", "prefix", "p", NULL, NULL},
    {"redis", "username", "u", NULL, NULL},
    {"redis", "tls", "true", NULL, NULL},
    {"redis", "ca", "ca.pem", NULL, NULL},
    {"redis", "cert", "cert.pem", NULL, NULL},
    {"redis", "key", "key.pem", NULL, NULL},
    {"redis", "sentinels", "a:1, b", NULL, NULL},
    {"redis", "sentinel_master", "m", NULL, NULL},
    {"redis", "sentinel_username", "u", NULL, NULL},
    {"redis", "sentinel_password", "secret", NULL, NULL},
    {"rabbitmq", "hosts", "a:1, b", NULL, NULL},
    {"rabbitmq", "tls", "true", NULL, NULL},
    {"rabbitmq", "ca", "ca.pem", NULL, NULL},
    {"rabbitmq", "cert", "cert.pem", NULL, NULL},
    {"rabbitmq", "key", "key.pem", NULL, NULL},
    {"rabbitmq", "queue_type", "quorum", NULL, NULL},
    {"rabbitmq", "host", "10.0.0.1", NULL, NULL},
    {"rabbitmq", "port", "5673", NULL, NULL},
    {"rabbitmq", "user", "u", NULL, NULL},
    {"rabbitmq", "password", "secret", NULL, NULL},
    {"rabbitmq", "vhost", "v", NULL, NULL},
    {"rabbitmq", "exchange", "e", NULL, NULL},
    {"cluster", "advertise", "10.0.0.1", NULL, NULL},
    {"cluster", "rpc_port", "9000", NULL, NULL},
    {"cluster", "rpc_listen", "10.0.0.1", NULL, NULL},
    {"cluster", "rpc_listen", "10.0.0.1:80", NULL, NULL},
    {"cluster", "node_ttl", "16", NULL, NULL},
    {"cluster", "rpc_timeout", "2001", NULL, NULL},
};

/* True if nothing is in this memory but zeros. */
static bool is_empty(const char *at, size_t length)
{
    size_t i = 0;

    while (i < length && !at[i])
        i++;
    return i == length;
}

static bool is_the_change(size_t i, const struct config_change *change, bool back)
{
    const char *from = all_keys[i].from, *to = all_keys[i].to;

    if (!str_equal(change->section, str_from(all_keys[i].section)) ||
        !str_equal(change->name, str_from(all_keys[i].key)) || change->live != !!from)
        return false;
    if (!from) /* what is not told is nowhere: it may be a secret */
        return !change->from[0] && !change->to[0] &&
               is_empty(change->from, 2 * sizeof change->from);
    return strcmp(change->from, back ? to : from) == 0 && strcmp(change->to, back ? from : to) == 0;
}

/* A key that differs is reported, and no other one; there and back. */
static void each_change_is_reported(void)
{
    struct config before, after;
    char error[500];

    config_defaults(&before);
    for (size_t i = 0; i < COUNT(all_keys); i++) {
        CHECK(parse_key(all_keys[i].section, all_keys[i].key, str_from(all_keys[i].value), &after,
                        error));
        for (int back = 0; back < 2; back++) {
            const struct config *from = back ? &after : &before, *to = back ? &before : &after;
            struct config_change change;
            size_t place = 0;

            memset(&change, 's', sizeof change);
            if (!CHECK(config_next_change(from, to, &place, &change)) ||
                !CHECK(is_the_change(i, &change, back)) ||
                !CHECK(!config_next_change(from, to, &place, &change)))
                printf("  that was %s %s\n", all_keys[i].section, all_keys[i].key);
        }
    }
}

/* Live keys, and no others, become what they are in the other. */
static void live_keys_are_adopted(void)
{
    struct config into, other, expected;
    struct config_change change;
    char error[500];

    for (size_t i = 0; i < COUNT(all_keys); i++)
        for (int back = 0; back < 2; back++) {
            CHECK(parse_key(all_keys[i].section, all_keys[i].key, str_from(all_keys[i].value),
                            back ? &into : &other, error));
            config_defaults(back ? &other : &into);
            memcpy(&expected, all_keys[i].from ? &other : &into, sizeof expected);
            config_adopt(&into, &other);
            if (!CHECK(!config_next_change(&into, &expected, &(size_t){0}, &change)))
                printf("  that was %s %s\n", all_keys[i].section, all_keys[i].key);
        }
}

/* All at once: each is reported once, and after those that are live have been adopted, the others
 * are left. */
static void many_changes_are_reported_in_turn(void)
{
    struct config before, after, one;
    struct config_change change;
    size_t place = 0, changes = 0, live = 0, left = 0;
    char error[500];

    config_defaults(&before);
    config_defaults(&after);
    CHECK(!config_next_change(&before, &after, &place, &change));
    for (size_t i = 0; i < COUNT(all_keys); i++) {
        CHECK(parse_key(all_keys[i].section, all_keys[i].key, str_from(all_keys[i].value), &one,
                        error));
        for (size_t at = 0; at < sizeof one; at++) /* every byte that any key changes */
            if (((char *)&one)[at] != ((char *)&before)[at])
                ((char *)&after)[at] = ((char *)&one)[at];
    }
    for (place = 0; config_next_change(&before, &after, &place, &change); changes++)
        live += change.live;
    CHECK(changes == 75 && live == 20);
    config_adopt(&before, &after);
    for (place = 0; config_next_change(&before, &after, &place, &change); left++)
        CHECK(!change.live);
    CHECK(left == 55);
}

/* Bytes behind a text's end are no change of it; a text is told whole. */
static void texts_are_compared_to_their_end(void)
{
    struct config before, after;
    struct config_change change;
    size_t place = 0;

    config_defaults(&before);
    config_defaults(&after);
    after.allowed_origins[1] = after.crypto_key[5] = after.host[20] = after.register_key[1] = 'x';
    after.admin_host[20] = 'x';
    CHECK(!config_next_change(&before, &after, &place, &change));
    memset(after.allowed_origins, 'o', sizeof after.allowed_origins - 1);
    memcpy(after.allowed_origins, "https://", 8);
    place = 0;
    CHECK(config_next_change(&before, &after, &place, &change) && change.live);
    CHECK(strcmp(change.to, after.allowed_origins) == 0 && change.from[0] == '\0');
    CHECK(!config_next_change(&before, &after, &place, &change));
    /* of two long ones that differ near their end the difference is found */
    memcpy(&before, &after, sizeof before);
    after.allowed_origins[2000] = 'p';
    place = 0;
    CHECK(config_next_change(&before, &after, &place, &change));
    config_adopt(&before, &after);
    place = 0;
    CHECK(!config_next_change(&before, &after, &place, &change));
}

/* The secret of a registration by key may change though its kind does not. */
static void another_secret_is_a_change(void)
{
    struct config before, after;
    struct config_change change;
    char error[500];
    size_t place = 0;

    CHECK(parse_key("auth", "register", STR("key:one"), &before, error));
    CHECK(parse_key("auth", "register", STR("key:two"), &after, error));
    CHECK(config_next_change(&before, &after, &place, &change) && !change.live);
    CHECK(is_empty(change.from, sizeof change.from));
    CHECK(!config_next_change(&before, &after, &place, &change));
}

int main(void)
{
    test_run("defaults_are_those_of_the_contract", defaults_are_those_of_the_contract);
    test_run("keys_of_other_sections_are_other_keys", keys_of_other_sections_are_other_keys);
    test_run("links_listen_with_or_without_a_port", links_listen_with_or_without_a_port);
    test_run("admin_listens_at_an_address", admin_listens_at_an_address);
    test_run("parsing_goes_over_what_is_there", parsing_goes_over_what_is_there);
    test_run("numbers_keep_their_range", numbers_keep_their_range);
    test_run("what_is_no_number_is_refused", what_is_no_number_is_refused);
    test_run("only_seconds_have_fractions", only_seconds_have_fractions);
    test_run("sizes_have_units", sizes_have_units);
    test_run("texts_fit_or_are_refused", texts_fit_or_are_refused);
    test_run("words_are_chosen_from", words_are_chosen_from);
    test_run("servers_are_hosts_with_or_without_a_port", servers_are_hosts_with_or_without_a_port);
    test_run("registration_is_open_closed_or_by_key", registration_is_open_closed_or_by_key);
    test_run("secrets_are_not_repeated", secrets_are_not_repeated);
    test_run("a_crypto_key_has_16_bytes", a_crypto_key_has_16_bytes);
    test_run("errors_name_the_line_and_what_is_wrong", errors_name_the_line_and_what_is_wrong);
    test_run("white_space_case_and_comments_do_not_matter",
             white_space_case_and_comments_do_not_matter);
    test_run("values_may_hold_the_marks_of_comments", values_may_hold_the_marks_of_comments);
    test_run("complaints_are_cut_to_the_size", complaints_are_cut_to_the_size);
    test_run("origins_are_checked", origins_are_checked);
    test_run("addresses_are_of_one_machine", addresses_are_of_one_machine);
    test_run("values_may_stand_in_quotes", values_may_stand_in_quotes);
    test_run("quoted_values_fit_or_are_refused", quoted_values_fit_or_are_refused);
    test_run("variables_set_keys", variables_set_keys);
    test_run("variables_are_refused_by_name", variables_are_refused_by_name);
    test_run("what_is_no_network_is_refused", what_is_no_network_is_refused);
    test_run("each_change_is_reported", each_change_is_reported);
    test_run("live_keys_are_adopted", live_keys_are_adopted);
    test_run("many_changes_are_reported_in_turn", many_changes_are_reported_in_turn);
    test_run("texts_are_compared_to_their_end", texts_are_compared_to_their_end);
    test_run("another_secret_is_a_change", another_secret_is_a_change);
    return test_finish();
}
