/* fuzz_config.c - config.c and host.c: what they accept is within the limits that config.ini
 * documents, and is the same when it is written as INI again; an error fits into the size given. */
#include "config.h"
#include "host.h"

#include "fuzz.h"

#include <stddef.h>

/* How a value is written. */
enum form {
    FORM_TEXT,   /* char[max], at least `min` bytes long unless empty */
    FORM_NUMBER, /* as those below, from min to max */
    FORM_MILLISECONDS,
    FORM_WORD, /* one of `words` */
    FORM_REGISTER,
    FORM_ADMIN /* a number, the port, with its host before it; or nothing */
};

struct entry {
    const char *section, *name;
    enum form form;
    size_t offset;
    uint64_t min, max;
    const char *words[4];
};

#define AT(member) offsetof(struct config, member)
#define ENTRY(section, name, form, member, min, max, ...)                                          \
    {                                                                                              \
        section, name, form, AT(member), min, max,                                                 \
        {                                                                                          \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define TEXT(section, name, member)                                                                \
    ENTRY(section, name, FORM_TEXT, member, 0, sizeof(((struct config *)0)->member), NULL)
#define NUMBER(section, name, member, min, max)                                                    \
    ENTRY(section, name, FORM_NUMBER, member, min, max, NULL)
#define SECONDS(section, name, member, min, max)                                                   \
    ENTRY(section, name, FORM_MILLISECONDS, member, min, (max)*1000, NULL)

static const struct entry entries[] = {
    TEXT("common", "host", host),
    NUMBER("common", "port", port, 1, 65535),
    {"common", "cluster", FORM_WORD, AT(cluster), 0, 1, {"false", "true"}},
    TEXT("common", "crypto_key", crypto_key),
    TEXT("common", "crypto_key_accepted", crypto_key_accepted),
    TEXT("common", "data_dir", data_dir),
    TEXT("common", "user", user),
    SECONDS("common", "drain", drain, 0, 3600),
    SECONDS("common", "drain_wait", drain_wait, 0, 3600),
    TEXT("common", "trusted_proxies", trusted_proxies),
    NUMBER("auth", "token_ttl", token_ttl, 1, 315360000),
    {"auth", "register", FORM_REGISTER, AT(registration), 0, 2, {"open", "closed", "key:"}},
    SECONDS("websocket", "ping", ping, 1, 86400),
    SECONDS("websocket", "pong_timeout", pong_timeout, 1, 86400),
    NUMBER("websocket", "max_message", max_message, 4, 64u << 20),
    NUMBER("websocket", "send_queue", send_queue, 1024, 1024u << 20),
    TEXT("websocket", "allowed_origins", allowed_origins),
    NUMBER("limits", "max_connections", max_connections, 0, 10000000),
    NUMBER("limits", "max_per_ip", max_per_ip, 0, 10000000),
    NUMBER("limits", "max_clients", max_clients, 0, 10000000),
    NUMBER("limits", "max_body", max_body, 256, 256u << 20),
    NUMBER("limits", "max_head", max_head, 256, 1u << 20),
    NUMBER("limits", "max_buffered", max_buffered, 1u << 20, 1ull << 40),
    NUMBER("limits", "max_groups", max_groups, 1, 10000000),
    SECONDS("limits", "once_ttl", once_ttl, 1, 86400),
    NUMBER("limits", "once_max", once_max, 1, 1000000),
    SECONDS("limits", "head_timeout", head_timeout, 1, 86400),
    SECONDS("limits", "idle_timeout", idle_timeout, 1, 86400),
    NUMBER("limits", "api_rate", api_rate, 0, 10000000),
    {"notice", "scope", FORM_WORD, AT(scope), 0, 2, {"group", "system", "off"}},
    NUMBER("notice", "max_members", max_members, 0, 10000000),
    {"log", "level", FORM_WORD, AT(log_level), 0, 3, {"debug", "info", "warn", "error"}},
    TEXT("log", "file", log_file),
    {"log", "format", FORM_WORD, AT(log_format), 0, 1, {"text", "json"}},
    TEXT("tls", "cert", tls_cert),
    TEXT("tls", "key", tls_key),
    {"admin", "listen", FORM_ADMIN, AT(admin_port), 0, 65535, {NULL}},
    {"console", "enabled", FORM_WORD, AT(console), 0, 1, {"false", "true"}},
    TEXT("redis", "host", redis_host),
    NUMBER("redis", "port", redis_port, 1, 65535),
    TEXT("redis", "password", redis_password),
    NUMBER("redis", "db", redis_db, 0, 1000000),
    TEXT("redis", "prefix", redis_prefix),
    TEXT("redis", "username", redis_username),
    {"redis", "tls", FORM_WORD, AT(redis_tls.enabled), 0, 1, {"false", "true"}},
    TEXT("redis", "ca", redis_tls.ca),
    TEXT("redis", "cert", redis_tls.cert),
    TEXT("redis", "key", redis_tls.key),
    TEXT("redis", "sentinels", redis_sentinels),
    TEXT("redis", "sentinel_master", redis_sentinel_master),
    TEXT("redis", "sentinel_username", redis_sentinel_username),
    TEXT("redis", "sentinel_password", redis_sentinel_password),
    TEXT("rabbitmq", "host", rabbitmq_host),
    NUMBER("rabbitmq", "port", rabbitmq_port, 1, 65535),
    TEXT("rabbitmq", "user", rabbitmq_user),
    TEXT("rabbitmq", "password", rabbitmq_password),
    TEXT("rabbitmq", "vhost", rabbitmq_vhost),
    TEXT("rabbitmq", "exchange", rabbitmq_exchange),
    TEXT("rabbitmq", "hosts", rabbitmq_hosts),
    {"rabbitmq", "tls", FORM_WORD, AT(rabbitmq_tls.enabled), 0, 1, {"false", "true"}},
    TEXT("rabbitmq", "ca", rabbitmq_tls.ca),
    TEXT("rabbitmq", "cert", rabbitmq_tls.cert),
    TEXT("rabbitmq", "key", rabbitmq_tls.key),
    {"rabbitmq", "queue_type", FORM_WORD, AT(rabbitmq_queue_type), 0, 1, {"classic", "quorum"}},
    TEXT("cluster", "advertise", advertise),
    NUMBER("cluster", "rpc_port", rpc_port, 0, 65535),
    {"cluster", "rpc_listen", FORM_ADMIN, AT(rpc_listen_port), 0, 65535, {NULL}},
    SECONDS("cluster", "node_ttl", node_ttl, 1, 3600),
    NUMBER("cluster", "rpc_timeout", rpc_timeout, 10, 2900),
};

static const char *text_of(const struct config *config, const struct entry *entry)
{
    return (const char *)config + entry->offset;
}

static uint64_t number_of(const struct config *config, const struct entry *entry)
{
    uint64_t number;
    unsigned word;

    memcpy(&word, text_of(config, entry), sizeof word);
    if (entry->form == FORM_WORD || entry->form == FORM_REGISTER)
        return word;
    memcpy(&number, text_of(config, entry), sizeof number);
    return number;
}

static void require_bounds(const struct config *config)
{
    for (size_t i = 0; i < COUNT(entries); i++) {
        const struct entry *entry = &entries[i];

        if (entry->form == FORM_TEXT)
            REQUIRE(memchr(text_of(config, entry), '\0', entry->max) != NULL);
        else
            REQUIRE(number_of(config, entry) >= entry->min &&
                    number_of(config, entry) <= entry->max);
    }
    REQUIRE(strlen(config->crypto_key) == 16 || !config->crypto_key[0]);
    REQUIRE(memchr(config->register_key, '\0', sizeof config->register_key) != NULL);
    REQUIRE((config->registration == REGISTER_KEY) == (config->register_key[0] != '\0'));
    REQUIRE(memchr(config->admin_host, '\0', sizeof config->admin_host) != NULL);
    REQUIRE((config->admin_port != 0) == (config->admin_host[0] != '\0'));
    REQUIRE(config->host[0] && config->data_dir[0]);
}

/* What has been checked can be walked to its end. */
static void require_networks(const struct config *config)
{
    struct str rest = str_from(config->trusted_proxies);
    unsigned char address[16];
    unsigned bits = 0;
    size_t left = rest.length;

    while (host_next_network(&rest, address, &bits)) {
        REQUIRE(bits <= 128 && rest.length < left);
        left = rest.length;
    }
    REQUIRE(rest.length == 0);
}

/* As the value of a text is written: in quotes, which hold whatever it has. */
static void write_quoted(struct buf *out, struct str text)
{
    buf_append(out, STR("\""));
    for (size_t i = 0; i < text.length; i++) {
        if (text.at[i] == '"' || text.at[i] == '\\')
            buf_append(out, STR("\\"));
        buf_append(out, (struct str){text.at + i, 1});
    }
    buf_append(out, STR("\" ; a comment"));
}

static void write_listen(struct buf *out, const char *host, uint64_t port)
{
    bool brackets = strchr(host, ':') != NULL;

    buf_append(out, brackets ? STR("[") : STR(""));
    buf_append(out, str_from(host));
    buf_append(out, brackets ? STR("]") : STR(""));
    if (!port)
        return;
    buf_append(out, STR(":"));
    buf_append_number(out, (int64_t)port);
}

static void write_entry(struct buf *out, const struct config *config, const struct entry *entry)
{
    char text[64];
    uint64_t number = entry->form == FORM_TEXT ? 0 : number_of(config, entry);

    buf_append(out, STR("\r\n"));
    buf_append(out, str_from(entry->name));
    buf_append(out, STR("="));
    if (entry->form == FORM_TEXT)
        write_quoted(out, str_from(text_of(config, entry)));
    else if (entry->form == FORM_NUMBER)
        buf_append_number(out, (int64_t)number);
    else if (entry->form == FORM_ADMIN)
        write_listen(out,
                     entry->offset == AT(admin_port) ? config->admin_host : config->rpc_listen_host,
                     number);
    else if (entry->form != FORM_MILLISECONDS)
        buf_append(out, str_from(entry->words[number]));
    if (entry->form == FORM_MILLISECONDS) {
        snprintf(text, sizeof text, "%llu.%03llu", (unsigned long long)number / 1000,
                 (unsigned long long)number % 1000);
        buf_append(out, str_from(text));
        while (out->at[out->length - 1] == '0' && out->at[out->length - 2] != '.')
            out->length--;
    }
    if (entry->form == FORM_REGISTER) {
        struct buf value = {0};

        buf_append(&value, str_from(entry->words[number]));
        buf_append(&value, str_from(config->register_key));
        out->length -= strlen(entry->words[number]);
        write_quoted(out, str_of(&value));
        buf_free(&value);
    }
}

/* Written again, with each section given as often as there are keys, it is the same. */
static void require_same_when_written(const struct config *config)
{
    struct buf text = {0};
    static struct config again;
    char error[300];

    for (size_t i = 0; i < COUNT(entries); i++) {
        buf_append(&text, STR("["));
        buf_append(&text, str_from(entries[i].section));
        buf_append(&text, STR("]"));
        write_entry(&text, config, &entries[i]);
        buf_append(&text, STR("\r\n"));
    }
    config_defaults(&again);
    REQUIRE(config_parse(&again, "again", str_of(&text), error, sizeof error));
    for (size_t i = 0; i < COUNT(entries); i++)
        if (entries[i].form == FORM_TEXT)
            REQUIRE(strcmp(text_of(config, &entries[i]), text_of(&again, &entries[i])) == 0);
        else
            REQUIRE(number_of(config, &entries[i]) == number_of(&again, &entries[i]));
    REQUIRE(strcmp(config->register_key, again.register_key) == 0);
    REQUIRE(strcmp(config->admin_host, again.admin_host) == 0);
    REQUIRE(strcmp(config->rpc_listen_host, again.rpc_listen_host) == 0);
    buf_free(&text);
}

/* The number behind "f:". */
static uint64_t line_of(const char *error)
{
    struct str rest = str_from(error), file = str_cut(&rest, ':'), line = str_cut(&rest, ':');
    uint64_t number = 0;

    REQUIRE(str_equal(file, STR("f")) && str_number(line, UINT32_MAX, &number));
    REQUIRE(rest.length > 1 && rest.at[0] == ' ');
    for (size_t i = 0; i < rest.length; i++)
        REQUIRE((unsigned char)rest.at[i] >= 0x20 && rest.at[i] != 0x7f);
    return number;
}

/* An error names a line of the text, and is the same, cut, in a smaller size. */
static void require_error(struct str text, const char *error)
{
    static struct config config;
    uint64_t line = line_of(error), lines = 1;
    size_t length = strlen(error);

    for (size_t i = 0; i < text.length; i++)
        lines += text.at[i] == '\n';
    REQUIRE(line >= 1 && line <= lines);
    for (size_t size = 1; size <= length; size += 1 + length / 3) {
        char *little = malloc(size);

        if (!little)
            abort();
        config_defaults(&config);
        REQUIRE(!config_parse(&config, "f", text, little, size));
        REQUIRE(strlen(little) == size - 1 && memcmp(little, error, size - 1) == 0);
        free(little);
    }
}

/* The same lines, ended in the other way, with comments behind and below them. */
static struct str reworded(struct str text, struct buf *out)
{
    struct str rest = text;

    while (rest.at) {
        struct str line = str_cut(&rest, '\n');

        if (line.length && line.at[line.length - 1] == '\r')
            line.length--;
        buf_append(out, line);
        buf_append(out, line.length % 2 ? STR(" # nothing") : STR("\t; nothing"));
        if (rest.at)
            buf_append(out, STR("\r\n"));
    }
    buf_append(out, STR("\r\n# nothing\r\n \t; nothing\r\n"));
    return str_of(out);
}

static void try_origin(const struct config *config, struct str text)
{
    struct str rest = text, line = str_cut(&rest, '\n');
    bool allowed = host_origin_is_allowed(str_from(config->allowed_origins), line);

    REQUIRE(allowed || config->allowed_origins[0]);
    /* one that is allowed by what is neither all nor a group is good itself */
    if (allowed && config->allowed_origins[0] && !strchr(config->allowed_origins, '*'))
        REQUIRE(line.length > 0 && host_origin_is_good(line));
    if (host_origin_is_good(line) && !memchr(line.at, '*', line.length))
        REQUIRE(host_origin_is_allowed(line, line));
}

/* A line NAME=VALUE as a variable: it is refused by its name, or does what the file would do. */
static void try_variable(struct str text)
{
    static struct config config;
    struct str value = text, line = str_cut(&value, '\n'), name;
    struct buf full = {0};
    char error[400];

    value = line;
    name = str_cut(&value, '=');
    buf_append(&full, STR("WSPUSH_"));
    buf_append(&full, name);
    config_defaults(&config);
    if (config_set(&config, str_of(&full), value, error, sizeof error))
        require_bounds(&config);
    else
        REQUIRE(strncmp(error, "WSPUSH_", 7) == 0 || strncmp(error, "unknown variable", 16) == 0);
    (void)config_names_file(str_of(&full));
    buf_free(&full);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    static struct config config, again;
    struct str text = exact_copy((struct str){(const char *)at, length});
    struct buf other = {0};
    char error[400] = "", ignored[400] = "";
    bool good;

    config_defaults(&config);
    require_bounds(&config);
    good = config_parse(&config, "f", text, error, sizeof error);
    config_defaults(&again);
    REQUIRE(good == config_parse(&again, "f", reworded(text, &other), ignored, sizeof ignored));
    if (good) {
        require_bounds(&config);
        REQUIRE(memcmp(&config, &again, sizeof config) == 0);
        REQUIRE(config_parse(&again, "f", text, ignored, sizeof ignored));
        REQUIRE(memcmp(&config, &again, sizeof config) == 0);
        require_same_when_written(&config);
        require_networks(&config);
        try_origin(&config, text);
    } else {
        REQUIRE(strcmp(error, ignored) == 0);
        require_error(text, error);
    }
    try_variable(text);
    buf_free(&other);
    free_copy(text);
    return 0;
}
