/* config.h - INI text and variables of the environment to `struct config`. Pure functions: they are
 * given texts and names, and open no file. */
#ifndef WSPUSH_CONFIG_H
#define WSPUSH_CONFIG_H

#include "buf.h"
#include "log.h"

enum config_register { REGISTER_OPEN, REGISTER_CLOSED, REGISTER_KEY };
enum config_connect { CONNECT_OPEN, CONNECT_TICKET };
enum config_notice { NOTICE_GROUP, NOTICE_SYSTEM, NOTICE_OFF };
enum config_queue_type { QUEUE_CLASSIC, QUEUE_QUORUM };
enum config_log_format { LOG_FORMAT_TEXT, LOG_FORMAT_JSON };

/* TLS to a server that the configuration names: files, PEM, or empty. */
struct config_tls {
    int enabled;     /* 0 or 1 */
    char ca[1024];   /* certificates to trust; empty: the system's */
    char cert[1024]; /* the client's own chain, and its key */
    char key[1024];
};

#define CONFIG_ADVERTISE_MAX 100 /* bytes of an address or a name */

/* Values as they are used: times in milliseconds, sizes in bytes. Texts end in a NUL. */
struct config {
    /* common */
    char host[256];
    uint64_t port;
    int cluster;                  /* 0 or 1 */
    char crypto_key[17];          /* 16 bytes, or empty: a random key kept in data_dir */
    char crypto_key_accepted[17]; /* a second one, which is accepted and not used; or empty */
    char data_dir[1024];
    char user[64];
    uint64_t drain, drain_wait;
    char trusted_proxies[2048]; /* addresses and networks, separated by spaces or commas */

    /* auth */
    uint64_t token_ttl; /* seconds */
    enum config_register registration;
    char register_key[256];
    enum config_connect connect;
    uint64_t ticket_ttl, ticket_max; /* seconds */

    /* websocket */
    uint64_t ping, pong_timeout;
    uint64_t max_message, send_queue;
    uint64_t message_rate; /* messages a second and client that go to a webhook */
    char allowed_origins[2048];

    /* resume */
    uint64_t linger; /* seconds for which a client may be away; 0: it may not */
    uint64_t resume_frames, resume_bytes; /* kept for a client */
    uint64_t resume_memory;               /* and for all */

    /* webhook */
    char webhook_allow[2048]; /* URLs that receivers' ones begin with; empty: no webhooks */
    uint64_t webhook_timeout, webhook_retry;
    uint64_t webhook_queue; /* bytes of memory for events of a system */
    char webhook_ca[1024];  /* PEM file of trusted certificates; empty: the system's */

    /* limits */
    uint64_t max_connections; /* 0: as many as descriptors allow */
    uint64_t max_per_ip;      /* 0: no limit */
    uint64_t max_clients;     /* of a system, on this node; 0: no limit */
    uint64_t max_body, max_head;
    uint64_t head_timeout, idle_timeout;
    uint64_t max_buffered; /* bytes of input kept and output waiting, of all connections */
    uint64_t api_rate;     /* calls a second and system; 0: no limit */
    uint64_t max_groups;   /* of a client */
    uint64_t once_ttl;     /* how long a send with once is remembered, */
    uint64_t once_max;     /* and how many are, on this node */

    /* notice */
    enum config_notice scope;
    uint64_t max_members; /* of a group that is told; 0: no limit */

    /* log */
    enum log_level log_level;
    char log_file[1024];
    enum config_log_format log_format;

    /* tls: both empty for plain connections */
    char tls_cert[1024], tls_key[1024];

    /* admin: port 0 for no such listener */
    char admin_host[256];
    uint64_t admin_port;

    /* console */
    int console;       /* 0 or 1 */
    int client_module; /* 0 or 1 */

    /* redis */
    char redis_host[256];
    uint64_t redis_port;
    char redis_username[128]; /* empty: the default user */
    char redis_password[256];
    uint64_t redis_db;
    char redis_prefix[128];
    struct config_tls redis_tls;
    char redis_sentinels[1024]; /* HOST or HOST:PORT, separated by spaces or commas; empty: none */
    char redis_sentinel_master[128];
    char redis_sentinel_username[128], redis_sentinel_password[256];

    /* rabbitmq */
    char rabbitmq_host[256];
    uint64_t rabbitmq_port;
    char rabbitmq_hosts[1024]; /* as redis_sentinels; empty: rabbitmq_host */
    char rabbitmq_user[128], rabbitmq_password[256], rabbitmq_vhost[128], rabbitmq_exchange[101];
    struct config_tls rabbitmq_tls;
    enum config_queue_type rabbitmq_queue_type;

    /* cluster */
    char advertise[CONFIG_ADVERTISE_MAX + 1]; /* empty: the first private IPv4 address */
    uint64_t rpc_port;                        /* 0: port + 1000 */
    char rpc_listen_host[256];                /* empty: where it is advertised, */
    uint64_t rpc_listen_port;                 /* 0: at rpc_port */
    uint64_t node_ttl, rpc_timeout;
};

/* Sets every key to its default. */
void config_defaults(struct config *config);

/* Reads INI text over what `config` holds. False: `error` is "FILE:LINE: TEXT", cut to `size`
 * bytes, and `config` must not be used. Errors are unknown sections and keys, keys given twice, and
 * values of the wrong kind or out of range. */
bool config_parse(struct config *config, const char *file, struct str text, char *error,
                  size_t size);

/* True if `name` is a variable WSPUSH_SECTION_KEY_FILE: it names a file that has the value. */
bool config_names_file(struct str name);

/* Sets one key: `name` is a variable WSPUSH_SECTION_KEY, with or without _FILE, `value` the value.
 * False: as config_parse, with the variable's name for FILE:LINE. */
bool config_set(struct config *config, struct str name, struct str value, char *error, size_t size);

#define CONFIG_VALUE_MAX 2048

/* A key that has different values in two configurations. */
struct config_change {
    struct str section, name;
    bool live;                                         /* see config_adopt */
    char from[CONFIG_VALUE_MAX], to[CONFIG_VALUE_MAX]; /* the values if live, else empty */
};

/* Finds the next key that differs, from *place on (start with 0). False at the end. */
bool config_next_change(const struct config *from, const struct config *to, size_t *place,
                        struct config_change *change);

/* Copies the values of all live keys. */
void config_adopt(struct config *into, const struct config *from);

#endif
