/* hub.c - the clients, users, groups and systems of this node. */
#include "hub.h"

#include "json.h"

#include <stdlib.h>
#include <string.h>

/* An audience in a client's list, and where among the audience's members the client stands. */
struct membership {
    struct audience *audience;
    uint32_t index;
};

/* 1002 for the members of an audience that is there when its turn comes. */
struct notice {
    struct notice *next;
    struct rcbuf *message;
};

/* A member's position says where in the client's own list the audience stands. It and the index
 * there name each other, so that leaving costs the same however large the audience. */
struct audience {
    struct audience *system; /* NULL for a system itself */
    struct client **members;
    uint32_t *positions; /* behind the members, in the same memory */
    uint32_t count, capacity, hash;
    enum channel_kind kind;
    bool is_to_tell;                      /* among those whose members have notices coming */
    bool is_crowded;                      /* it was logged that it has more than max_members */
    struct notice *notices, *last_notice; /* oldest first */
    struct audience *next_to_tell, *prev_to_tell;
    size_t name_length;
    char name[];
};

struct extend {
    size_t length;
    char text[];
};

#define PREFETCH_AHEAD 6  /* members; halves the time in which a message is queued to 10,000 */
#define FEW_MEMBERSHIPS 2 /* a system and one group: what most clients have */
#define INDEXED 32 /* memberships from which on they have an index, and come in powers of two, */
#define INDEXED_ROOM 6 /* at first 2^6 */

struct client {
    struct conn *conn;
    bool excluded; /* left out of the present send, or reached by it already */
    bool is_slow;  /* on the hub's list */
    bool is_indexed;
    uint8_t room; /* log2 of the memberships there is room for, if they are indexed */
    uint32_t membership_count;
    uint64_t number;
    struct membership *memberships; /* the system's, then the user's if there is one; `few`, or with
                                       exact room, or indexed: see `index_of` */
    struct membership few[FEW_MEMBERSHIPS];
    struct client *next_slow;
    int64_t connected_at;  /* unix seconds */
    struct extend *extend; /* NULL is empty */
    char sealed_id[];      /* CRYPTO_ID_TEXT bytes in a cluster, else none */
};

static void free_client(struct client *client)
{
    if (client->memberships != client->few)
        free(client->memberships);
    free(client->extend);
    free(client);
}

/* The oldest notice of an audience, whose reference is the caller's then; NULL if there is none. */
static struct rcbuf *take_notice(struct audience *audience)
{
    struct notice *notice = audience->notices;
    struct rcbuf *message;

    if (!notice)
        return NULL;
    message = notice->message;
    audience->notices = notice->next;
    if (!notice->next)
        audience->last_notice = NULL;
    free(notice);
    return message;
}

static void free_audience(struct audience *audience)
{
    struct rcbuf *message;

    while ((message = take_notice(audience)))
        rcbuf_release(message);
    free(audience->members);
    free(audience);
}

bool hub_open(struct hub *hub, const struct config *config, const struct log *log)
{
    *hub = (struct hub){.config = config, .log = log};
    return crypto_random(&hub->seed, sizeof hub->seed);
}

void hub_set_hooks(struct hub *hub, const struct hub_hooks *hooks)
{
    hub->hooks = hooks;
}

/* --- ids ------------------------------------------------------------------------------------- */

static void put_number(unsigned char *at, size_t length, uint64_t number)
{
    for (size_t i = length; i-- > 0; number >>= 8)
        at[i] = (unsigned char)number;
}

static uint64_t get_number(const unsigned char *at, size_t length)
{
    uint64_t number = 0;

    for (size_t i = 0; i < length; i++)
        number = number << 8 | at[i];
    return number;
}

/* Writes a client's id; returns its length. */
static size_t write_id(const struct hub *hub, const struct client *client,
                       char text[CRYPTO_ID_TEXT])
{
    unsigned char bytes[8];
    struct buf out = {.at = text, .capacity = CRYPTO_ID_TEXT, .limit = CRYPTO_ID_TEXT};

    if (hub->hooks) {
        memcpy(text, client->sealed_id, CRYPTO_ID_TEXT);
        return CRYPTO_ID_TEXT;
    }
    put_number(bytes, sizeof bytes, client->number);
    buf_append_hex(&out, (struct str){(const char *)bytes, sizeof bytes});
    return out.length;
}

static bool append_id(const struct hub *hub, struct buf *out, const struct client *client)
{
    char id[CRYPTO_ID_TEXT];
    size_t length = write_id(hub, client, id);

    buf_append(out, STR("\""));
    buf_append(out, (struct str){id, length});
    return buf_append(out, STR("\""));
}

static struct client *find_number(const struct hub *hub, uint64_t number)
{
    struct table_cursor cursor = {.hash = (uint32_t)number};
    struct client *client;

    while ((client = table_next(&hub->clients, &cursor)))
        if (client->number == number) {
            conn_prefetch(client->conn); /* mostly it is to be sent something */
            return client;
        }
    return NULL;
}

static struct str name_of(const struct audience *audience)
{
    return (struct str){audience->name, audience->name_length};
}

/* Reads an id of this node. */
static bool read_id(const struct hub *hub, struct json_value id, uint64_t *number)
{
    char room[HUB_ID_LENGTH];
    struct buf text = {.at = room, .capacity = sizeof room, .limit = sizeof room};
    unsigned char bytes[8];

    if (hub->hooks)
        return hub->hooks->open_id(hub->hooks->state, id, number);
    if (!json_decode_string(id, &text) || !str_read_hex(str_of(&text), bytes, sizeof bytes))
        return false;
    *number = get_number(bytes, sizeof bytes);
    return true;
}

/* The client whose id is this JSON string, if it is online and of this system. */
static struct client *find_client(const struct hub *hub, struct str system, struct json_value id)
{
    uint64_t number = 0;
    struct client *client = read_id(hub, id, &number) ? find_number(hub, number) : NULL;

    if (!client || !str_equal(name_of(client->memberships[0].audience), system))
        return NULL;
    return client;
}

bool hub_is_online(const struct hub *hub, struct str system, struct json_value id)
{
    return find_client(hub, system, id) != NULL;
}

/* --- audiences ------------------------------------------------------------------------------- */

/* An audience has come into being, or ceased to be. */
static void hub_report_channel(const struct hub *hub, const struct audience *audience, bool exists)
{
    const struct audience *system = audience->system ? audience->system : audience;

    if (hub->hooks)
        hub->hooks->change_channel(hub->hooks->state, audience->kind, name_of(system),
                                   name_of(audience), exists);
}

static uint32_t hash_audience(const struct hub *hub, enum channel_kind kind,
                              const struct audience *system, struct str name)
{
    return str_hash(name, hub->seed) + (uint32_t)kind * 0x9e3779b9u + (system ? system->hash : 0);
}

static struct audience *find_audience(const struct hub *hub, enum channel_kind kind,
                                      const struct audience *system, struct str name)
{
    struct table_cursor cursor = {.hash = hash_audience(hub, kind, system, name)};
    struct audience *audience;

    while ((audience = table_next(&hub->audiences, &cursor)))
        if (audience->kind == kind && audience->system == system &&
            str_equal(name_of(audience), name))
            return audience;
    return NULL;
}

/* The audience of this name; a new, empty one if there is none. NULL without memory. */
static struct audience *make_audience(struct hub *hub, enum channel_kind kind,
                                      struct audience *system, struct str name)
{
    struct audience *audience = find_audience(hub, kind, system, name);

    if (audience)
        return audience;
    audience = calloc(1, sizeof *audience + name.length);
    if (!audience)
        return NULL;
    audience->kind = kind;
    audience->system = system;
    audience->hash = hash_audience(hub, kind, system, name);
    audience->name_length = name.length;
    if (name.length)
        memcpy(audience->name, name.at, name.length);
    if (!table_add(&hub->audiences, audience->hash, audience)) {
        free(audience);
        return NULL;
    }
    hub_report_channel(hub, audience, true);
    hub->kinds[kind]++;
    return audience;
}

/* Puts an audience behind the others whose members have notices coming. */
static void hub_push_to_tell(struct hub *hub, struct audience *audience)
{
    audience->is_to_tell = true;
    audience->next_to_tell = NULL;
    audience->prev_to_tell = hub->last_to_tell;
    if (hub->last_to_tell)
        hub->last_to_tell->next_to_tell = audience;
    else
        hub->to_tell = audience;
    hub->last_to_tell = audience;
}

static void hub_remove_to_tell(struct hub *hub, struct audience *audience)
{
    if (!audience->is_to_tell)
        return;
    audience->is_to_tell = false;
    if (audience->prev_to_tell)
        audience->prev_to_tell->next_to_tell = audience->next_to_tell;
    else
        hub->to_tell = audience->next_to_tell;
    if (audience->next_to_tell)
        audience->next_to_tell->prev_to_tell = audience->prev_to_tell;
    else
        hub->last_to_tell = audience->prev_to_tell;
}

/* An audience without members does not exist, and nobody is left to be told anything. */
static void drop_if_empty(struct hub *hub, struct audience *audience)
{
    if (!audience || audience->count)
        return;
    hub_remove_to_tell(hub, audience);
    hub_report_channel(hub, audience, false);
    hub->kinds[audience->kind]--;
    table_remove(&hub->audiences, audience->hash, audience);
    free_audience(audience);
}

static bool reserve_member(struct audience *audience)
{
    uint32_t capacity = audience->capacity + audience->capacity / 4 + 1;
    struct client **members;

    if (audience->count < audience->capacity)
        return true;
    members =
        realloc(audience->members, capacity * (sizeof *members + sizeof *audience->positions));
    if (!members)
        return false;
    audience->members = members;
    audience->positions = (uint32_t *)(members + capacity);
    memmove(audience->positions, members + audience->capacity,
            audience->capacity * sizeof *audience->positions);
    audience->capacity = capacity;
    return true;
}

/* --- memberships ----------------------------------------------------------------------------- */

/* The index of a client with many memberships: a hash table with linear probing of positions, plus
 * one, behind the memberships in the same memory; it has twice as many slots as there is room. */
static uint32_t *index_of(const struct client *client)
{
    return (uint32_t *)(client->memberships + ((size_t)1 << client->room));
}

static uint32_t index_mask(const struct client *client)
{
    return (2u << client->room) - 1;
}

/* The slot of an audience, or the free one where it belongs. */
static uint32_t *index_slot(const struct client *client, const struct audience *audience)
{
    uint32_t *slots = index_of(client), mask = index_mask(client), at = audience->hash & mask;

    while (slots[at] && client->memberships[slots[at] - 1].audience != audience)
        at = (at + 1) & mask;
    return slots + at;
}

/* Frees a slot. Those behind it that it kept from their place move up, so that no search ends
 * early. */
static void index_free_slot(const struct client *client, uint32_t *slot)
{
    uint32_t *slots = index_of(client), mask = index_mask(client);
    uint32_t hole = (uint32_t)(slot - slots), at = hole;

    while (slots[at = (at + 1) & mask]) {
        uint32_t wanted = client->memberships[slots[at] - 1].audience->hash & mask;

        if (((at - wanted) & mask) >= ((at - hole) & mask)) {
            slots[hole] = slots[at];
            hole = at;
        }
    }
    slots[hole] = 0;
}

/* Moves the memberships to where 2^room of them and an index have room. */
static bool index_memberships(struct client *client, uint8_t room)
{
    size_t most = (size_t)1 << room;
    struct membership *memberships = calloc(1, most * (sizeof *memberships + 2 * sizeof(uint32_t)));

    if (!memberships)
        return false;
    memcpy(memberships, client->memberships, client->membership_count * sizeof *memberships);
    free(client->memberships); /* they are more than few */
    client->memberships = memberships;
    client->room = room;
    client->is_indexed = true;
    for (uint32_t i = 0; i < client->membership_count; i++)
        *index_slot(client, memberships[i].audience) = i + 1;
    return true;
}

/* Room for one more membership. */
static bool reserve_membership(struct client *client)
{
    bool few = client->memberships == client->few;
    uint32_t count = client->membership_count;
    struct membership *memberships;

    if (count < FEW_MEMBERSHIPS)
        return true; /* what was allocated when there were more has room for them, too */
    if (client->is_indexed)
        return count < 1u << client->room || index_memberships(client, client->room + 1);
    if (count == INDEXED)
        return index_memberships(client, INDEXED_ROOM);
    memberships = realloc(few ? NULL : client->memberships, (count + 1) * sizeof *memberships);
    if (!memberships)
        return false;
    if (few)
        memcpy(memberships, client->few, sizeof client->few);
    client->memberships = memberships;
    return true;
}

/* Where in the client's list an audience stands, or the list's length. */
static uint32_t position_of(const struct client *client, const struct audience *audience)
{
    uint32_t position = 0;

    if (client->is_indexed) {
        position = *index_slot(client, audience);
        return position ? position - 1 : client->membership_count;
    }
    while (position < client->membership_count &&
           client->memberships[position].audience != audience)
        position++;
    return position;
}

/* Puts a membership at a position of the list. */
static void place_membership(struct client *client, struct membership membership, uint32_t position)
{
    client->memberships[position] = membership;
    membership.audience->positions[membership.index] = position;
    if (client->is_indexed)
        *index_slot(client, membership.audience) = position + 1;
}

static bool join(struct client *client, struct audience *audience)
{
    if (!reserve_membership(client) || !reserve_member(audience))
        return false;
    audience->members[audience->count] = client;
    place_membership(client, (struct membership){audience, audience->count++},
                     client->membership_count++);
    return true;
}

/* Takes a client out of the audience at this position of its list. The last member and the last
 * membership move into the holes. The audience may be empty now: see drop_if_empty. */
static struct audience *leave(struct client *client, uint32_t position)
{
    struct membership gone = client->memberships[position];
    struct audience *audience = gone.audience;
    uint32_t from = --audience->count;
    struct client *moved = audience->members[from];

    audience->members[gone.index] = moved;
    audience->positions[gone.index] = audience->positions[from];
    moved->memberships[audience->positions[from]].index = gone.index;
    if (client->is_indexed)
        index_free_slot(client, index_slot(client, audience));
    if (position != --client->membership_count)
        place_membership(client, client->memberships[client->membership_count], position);
    return audience;
}

/* The user's audience, which stands behind the system's. */
static const struct audience *user_of(const struct client *client)
{
    const struct audience *second =
        client->membership_count > 1 ? client->memberships[1].audience : NULL;

    return second && second->kind == CHANNEL_USER ? second : NULL;
}

/* Moves the last membership, a user's, behind the system's. */
static void move_user_up(struct client *client)
{
    uint32_t last = client->membership_count - 1;
    struct membership user = client->memberships[last], second = client->memberships[1];

    if (last == 1)
        return;
    if (client->is_indexed) /* its slot names the position that the user's takes */
        index_free_slot(client, index_slot(client, second.audience));
    place_membership(client, user, 1);
    place_membership(client, second, last);
}

static struct str extend_of(const struct client *client)
{
    const struct extend *extend = client->extend;

    return extend ? (struct str){extend->text, extend->length} : (struct str){0};
}

/* --- sending --------------------------------------------------------------------------------- */

/* The frame of a text that was put together in `text`, which is freed. */
static struct rcbuf *encode_text(struct buf *text)
{
    struct rcbuf *message = text->failed ? NULL : ws_frame(WS_TEXT, str_of(text));

    buf_free(text);
    return message;
}

/* Bytes that may wait for one client; the configuration keeps them below what 32 bits hold. */
static size_t queue_limit(const struct hub *hub)
{
    return (size_t)hub->config->send_queue;
}

bool hub_queue_frame(struct hub *hub, struct conn *conn, enum ws_opcode opcode, struct str payload)
{
    struct rcbuf *message = ws_frame(opcode, payload);
    bool queued = message && (opcode == WS_PONG ? conn_queue_pong(conn, message, queue_limit(hub))
                                                : conn_queue(conn, message, queue_limit(hub)));

    rcbuf_release(message);
    return queued;
}

static void deliver(struct hub *hub, struct client *client, struct rcbuf *message,
                    struct result *result)
{
    result->matched++;
    if (!client->is_slow && conn_queue(client->conn, message, queue_limit(hub))) {
        result->queued++;
        hub->counts.sent++;
        return;
    }
    result->dropped++;
    hub->counts.dropped++;
    if (client->is_slow)
        return;
    /* ended later: the audience that is being walked must not change now */
    client->is_slow = true;
    client->next_slow = hub->slow;
    hub->slow = client;
}

static void deliver_to_all(struct hub *hub, const struct audience *audience,
                           struct rcbuf *message, struct result *result)
{
    for (uint32_t i = 0; audience && i < audience->count; i++) {
        if (i + 2 * PREFETCH_AHEAD < audience->count)
            conn_prefetch(audience->members[i + 2 * PREFETCH_AHEAD]);
        if (i + PREFETCH_AHEAD < audience->count)
            conn_prefetch(audience->members[i + PREFETCH_AHEAD]->conn);
        if (!audience->members[i]->excluded)
            deliver(hub, audience->members[i], message, result);
    }
}

/* --- notices --------------------------------------------------------------------------------- */

/* Appends {"clientId":…,"userId":…,"extend":… with the object left open. */
static void append_identity(const struct hub *hub, struct buf *out, const struct client *client)
{
    const struct audience *user = user_of(client);

    buf_append(out, STR("{\"clientId\":"));
    append_id(hub, out, client);
    buf_append(out, STR(",\"userId\":"));
    json_append_quoted(out, user ? name_of(user) : (struct str){0});
    buf_append(out, STR(",\"extend\":"));
    json_append_quoted(out, extend_of(client));
}

/* What a notice is about: `client`, an object left open, and in a group its name. */
static void append_subject(struct buf *out, const struct audience *audience, struct str client)
{
    buf_append(out, client);
    if (audience->kind == CHANNEL_GROUP) {
        buf_append(out, STR(",\"groupName\":"));
        json_append_quoted(out, name_of(audience));
    }
    buf_append(out, STR("}"));
}

/* The frame of a notice, for the members on this node; `client` as for append_subject. */
static struct rcbuf *encode_notice(const struct audience *audience, struct str client,
                                     enum presence_kind kind)
{
    struct buf data = {0}, text = {0};

    append_subject(&data, audience, client);
    if (kind == PRESENCE_JOIN)
        hub_write_envelope(&text, NOTICE_ONLINE, STR("client online"), str_of(&data));
    else
        hub_write_envelope(&text, NOTICE_OFFLINE, STR("client offline"), str_of(&data));
    text.failed |= data.failed;
    buf_free(&data);
    return encode_text(&text);
}

/* Tells the cluster of a client in an audience; `about` as for append_subject. Without memory it is
 * not told. */
static void hub_report_presence(const struct hub *hub, const struct audience *audience,
                                const struct client *client, struct str about,
                                enum presence_kind kind, bool notify)
{
    struct buf text = {0};
    size_t id_length;
    struct hub_presence presence = {
        .kind = kind,
        .notify = notify,
        .system = name_of(audience->system ? audience->system : audience),
        .group = audience->system ? name_of(audience) : (struct str){0}};

    append_id(hub, &text, client);
    id_length = text.length;
    append_subject(&text, audience, about);
    presence.id = (struct str){text.at, id_length};
    presence.client_json = (struct str){text.at + id_length, text.length - id_length};
    if (!text.failed)
        hub->hooks->change_presence(hub->hooks->state, &presence);
    buf_free(&text);
}

/* Those of a client's audiences whose members are to know of it. */
static bool is_in_scope(const struct hub *hub, const struct audience *audience)
{
    enum config_notice scope = hub->config->scope;

    return (scope == NOTICE_GROUP && audience->kind == CHANNEL_GROUP) ||
           (scope == NOTICE_SYSTEM && audience->kind == CHANNEL_SYSTEM);
}

/* True if an audience in scope is small enough to be told: what many tell many grows with their
 * square. The log says once that it is not. */
static bool hub_is_told(const struct hub *hub, struct audience *audience)
{
    const struct audience *system = audience->system ? audience->system : audience;
    struct log_field fields[] = {
        {.name = "system", .text = name_of(system)},
        {.name = "group", .text = name_of(audience)},
        {.name = "max_members", .number = (int64_t)hub->config->max_members},
        {0}};

    if (!hub->config->max_members || audience->count <= hub->config->max_members)
        return true;
    if (!audience->is_crowded) {
        if (audience == system)
            fields[1] = fields[2], fields[2].name = NULL;
        log_write(hub->log, LOG_INFO, "notices are off: more members than max_members", fields);
    }
    audience->is_crowded = true;
    return false;
}

bool hub_may_notify(struct hub *hub, struct str system, struct str group)
{
    struct audience *audience = find_audience(hub, CHANNEL_SYSTEM, NULL, system);

    if (audience && group.length)
        audience = find_audience(hub, CHANNEL_GROUP, audience, group);
    return audience && hub_is_told(hub, audience);
}

/* Tells the members of an audience of a client's coming or going. */
static void notify(struct hub *hub, struct audience *audience, const struct client *client,
                   enum presence_kind kind)
{
    struct result ignored = {0};
    struct rcbuf *message = NULL;
    struct buf about = {0};
    bool told = hub_is_told(hub, audience);

    append_identity(hub, &about, client);
    if (hub->hooks && !about.failed)
        hub_report_presence(hub, audience, client, str_of(&about), kind, told);
    else if (told && !about.failed)
        message = encode_notice(audience, str_of(&about), kind);
    if (message)
        deliver_to_all(hub, audience, message, &ignored);
    rcbuf_release(message);
    buf_free(&about);
}

/* Has the members that are left told later that a client has gone; without memory they are not. */
static void hub_notify_later(struct hub *hub, struct audience *audience, struct str about)
{
    struct notice *notice = malloc(sizeof *notice);
    struct rcbuf *message = notice ? encode_notice(audience, about, PRESENCE_LEAVE) : NULL;

    if (!message) {
        free(notice);
        return;
    }
    *notice = (struct notice){.message = message};
    if (audience->last_notice)
        audience->last_notice->next = notice;
    else
        audience->notices = notice;
    audience->last_notice = notice;
    if (!audience->is_to_tell)
        hub_push_to_tell(hub, audience);
}

/* A client has just been taken out of an audience in scope. */
static void hub_notify_left(struct hub *hub, struct audience *audience, const struct client *client,
                            struct str about)
{
    bool told = hub_is_told(hub, audience);

    if (hub->hooks)
        hub_report_presence(hub, audience, client, about, PRESENCE_LEAVE, told);
    else if (told && audience->count)
        hub_notify_later(hub, audience, about);
}

/* What is recorded of a client in all its audiences in scope may have changed or be lost. */
static void hub_report_client(const struct hub *hub, const struct client *client, bool told)
{
    struct buf about = {0};

    append_identity(hub, &about, client);
    for (uint32_t i = 0; i < client->membership_count && !about.failed; i++) {
        struct audience *audience = client->memberships[i].audience;

        if (is_in_scope(hub, audience))
            hub_report_presence(hub, audience, client, str_of(&about), PRESENCE_REFRESH,
                                told && hub_is_told(hub, audience));
    }
    buf_free(&about);
}

bool hub_refresh_presence(struct hub *hub, struct table_scan *scan, bool told)
{
    const struct client *client = NULL;
    size_t reported = 0;

    scan->probes = 0; /* clients have come and gone since */
    while (reported < HUB_REPORT_BATCH && (client = table_scan_next(&hub->clients, scan))) {
        hub_report_client(hub, client, told);
        reported += client->membership_count;
    }
    return client != NULL;
}

/* --- coming and going ------------------------------------------------------------------------ */

/* Takes a client out of everything and frees it. Those who are to know are told later. */
static void remove_client(struct hub *hub, struct client *client)
{
    struct buf about = {0};

    if (hub->config->scope != NOTICE_OFF)
        append_identity(hub, &about, client); /* while it is still known whose client it was */
    client->conn->client = NULL;
    table_remove(&hub->clients, (uint32_t)client->number, client);
    while (client->membership_count) { /* the system, first in the list, goes last */
        struct audience *audience = leave(client, client->membership_count - 1);

        if (is_in_scope(hub, audience) && !about.failed)
            hub_notify_left(hub, audience, client, str_of(&about));
        drop_if_empty(hub, audience);
    }
    buf_free(&about);
    free_client(client);
}

const uint16_t hub_close_codes[HUB_CLOSE_CODES] = {WS_CLOSE_NORMAL,
                                                   WS_CLOSE_GOING_AWAY,
                                                   WS_CLOSE_PROTOCOL,
                                                   WS_CLOSE_NO_CODE,
                                                   HUB_LOST,
                                                   WS_CLOSE_BAD_DATA,
                                                   WS_CLOSE_POLICY,
                                                   WS_CLOSE_TOO_BIG,
                                                   1011,
                                                   WS_CLOSE_TRY_LATER};

static void count_close(struct hub *hub, unsigned code)
{
    unsigned place = 0;

    while (place < HUB_CLOSE_CODES && hub_close_codes[place] != code)
        place++;
    hub->counts.closes[place]++;
}

void hub_send_close(struct hub *hub, struct conn *conn, unsigned code, struct str reason)
{
    struct rcbuf *message = ws_close_frame(code, reason);

    count_close(hub, code);
    if (message)
        conn_queue(conn, message, SIZE_MAX);
    else /* it must not stay open without knowing that it has ended */
        conn_kill(conn);
    rcbuf_release(message);
    conn->ending = true;
}

/* One line for the end of each client. */
static void log_end(const struct hub *hub, const struct client *client, enum log_level level,
                    const char *message, unsigned code, struct str reason)
{
    char id[CRYPTO_ID_TEXT], address[CONN_ADDRESS_MAX];
    struct log_field fields[] = {{.name = "client"},
                                 {.name = "system"},
                                 {.name = "remote"},
                                 {.name = "code", .number = code},
                                 {.name = "reason", .text = reason},
                                 {.name = "seconds", .number = hub->now - client->connected_at},
                                 {.name = "queued", .number = (int64_t)client->conn->queued},
                                 {0}};

    if (hub->log->level > level)
        return;
    fields[0].text = (struct str){id, write_id(hub, client, id)};
    fields[1].text = name_of(client->memberships[0].audience);
    conn_address(client->conn, address);
    fields[2].text = str_from(address);
    if (!reason.at)
        fields[4].text = STR("");
    log_write(hub->log, level, message, fields);
}

static void part_with(struct hub *hub, struct client *client, unsigned code, struct str reason)
{
    hub_send_close(hub, client->conn, code, reason);
    remove_client(hub, client);
}

static void end_client(struct hub *hub, struct client *client, unsigned code, struct str reason)
{
    log_end(hub, client, LOG_INFO, "client closed", code, reason);
    part_with(hub, client, code, reason);
}

static void end_slow_client(struct hub *hub, struct client *client)
{
    log_end(hub, client, LOG_WARN, "client closed: it reads slower than it is sent to",
            WS_CLOSE_TRY_LATER, STR("slow"));
    hub->counts.slow++;
    conn_drop_queue(client->conn);
    part_with(hub, client, WS_CLOSE_TRY_LATER, STR("slow"));
}

/* Ends those found to be slow. */
static void settle(struct hub *hub)
{
    while (hub->slow) {
        struct client *client = hub->slow;

        hub->slow = client->next_slow;
        end_slow_client(hub, client);
    }
}

static uint64_t new_number(const struct hub *hub)
{
    uint64_t number = 0;

    while (number == 0 || find_number(hub, number))
        if (!crypto_random(&number, sizeof number))
            return 0;
    return number;
}

/* A client that is in its system and in the table; NULL without memory. */
static struct client *new_client(struct hub *hub, struct str system)
{
    struct client *client = calloc(1, sizeof *client + (hub->hooks ? CRYPTO_ID_TEXT : 0));
    struct audience *audience = NULL;

    if (client) {
        client->memberships = client->few;
        client->number = new_number(hub);
        if (!hub->hooks ||
            hub->hooks->seal_id(hub->hooks->state, client->number, client->sealed_id))
            audience = make_audience(hub, CHANNEL_SYSTEM, NULL, system);
    }
    if (audience && client->number && join(client, audience)) {
        if (table_add(&hub->clients, (uint32_t)client->number, client))
            return client;
        leave(client, 0);
    }
    drop_if_empty(hub, audience);
    free(client); /* its memberships are still few */
    return NULL;
}

bool hub_send_id(struct hub *hub, const struct client *client)
{
    struct buf data = {0}, text = {0};
    struct rcbuf *message;
    bool queued;

    buf_append(&data, STR("{\"clientId\":"));
    append_id(hub, &data, client);
    buf_append(&data, STR("}"));
    hub_write_envelope(&text, RESULT_SUCCESS, STR("success"), str_of(&data));
    text.failed |= data.failed;
    buf_free(&data);
    message = encode_text(&text);
    queued = message && conn_queue(client->conn, message, queue_limit(hub));
    rcbuf_release(message);
    hub->counts.sent += queued;
    return queued;
}

bool hub_flush_notices(struct hub *hub, size_t frames)
{
    struct result ignored = {0};
    size_t told = 0;

    while (hub->to_tell && told < frames) {
        struct audience *audience = hub->to_tell;
        struct rcbuf *message = take_notice(audience);

        hub_remove_to_tell(hub, audience);
        if (audience->notices)
            hub_push_to_tell(hub, audience);
        deliver_to_all(hub, audience, message, &ignored);
        rcbuf_release(message);
        told += audience->count;
    }
    settle(hub);
    return hub->to_tell != NULL;
}

bool hub_connect(struct hub *hub, struct conn *conn, struct str system)
{
    struct client *client = new_client(hub, system);

    if (!client)
        return false;
    client->conn = conn;
    client->connected_at = hub->now;
    conn->client = client;
    if (!hub_send_id(hub, client)) {
        hub_disconnect(hub, client, "out of memory");
        return false;
    }
    if (hub->config->scope == NOTICE_SYSTEM)
        notify(hub, client->memberships[0].audience, client, PRESENCE_JOIN);
    settle(hub);
    return true;
}

void hub_disconnect(struct hub *hub, struct client *client, const char *why)
{
    log_end(hub, client, LOG_INFO, "client lost", HUB_LOST, str_from(why));
    count_close(hub, HUB_LOST);
    remove_client(hub, client);
    settle(hub);
}

void hub_end(struct hub *hub, struct client *client, unsigned code, struct str reason)
{
    end_client(hub, client, code, reason);
    settle(hub);
}

void hub_end_closed(struct hub *hub, struct client *client, unsigned code)
{
    log_end(hub, client, LOG_INFO, "client closed", code, STR("closed by the client"));
    part_with(hub, client, code, (struct str){0});
    settle(hub);
}

void hub_end_slow(struct hub *hub, struct client *client)
{
    end_slow_client(hub, client);
    settle(hub);
}

/* --- commands -------------------------------------------------------------------------------- */

static void fail(struct result *result, enum result_code code, const char *error)
{
    result->code = code;
    result->error = error;
}

/* The client a command names, or NULL and the result says so. */
static struct client *target(const struct hub *hub, const struct command *command,
                             struct result *result)
{
    struct client *client = find_client(hub, command->system, command->client);

    if (!client)
        fail(result, RESULT_OFFLINE, "client not online");
    return client;
}

static struct audience *find_target_audience(const struct hub *hub, const struct command *command)
{
    struct audience *system = find_audience(hub, CHANNEL_SYSTEM, NULL, command->system);

    if (!system || command->kind == COMMAND_SEND_TO_SYSTEM)
        return system;
    if (command->kind == COMMAND_SEND_TO_USER)
        return find_audience(hub, CHANNEL_USER, system, command->user);
    return find_audience(hub, CHANNEL_GROUP, system, command->group);
}

/* Marks, or unmarks, the clients that a send leaves out. */
static void exclude(const struct hub *hub, const struct command *command, bool excluded)
{
    struct str rest = command->clients;
    struct json_value id;

    while (json_next_element(&rest, &id)) {
        struct client *client = find_client(hub, command->system, id);

        if (client)
            client->excluded = excluded;
    }
}

static void list_failed(struct result *result, struct json_value id)
{
    if (result->count++)
        buf_append(&result->list, STR(","));
    buf_append(&result->list, id.text);
}

static void send_to_clients(struct hub *hub, const struct command *command, struct rcbuf *message,
                            struct result *result)
{
    struct str rest = command->clients;
    struct json_value id;

    /* room for all of them: what has been sent cannot be taken back for lack of it */
    if (!buf_reserve(&result->list, rest.length))
        return;
    while (json_next_element(&rest, &id)) {
        struct client *client = find_client(hub, command->system, id);
        uint64_t dropped = result->dropped;

        if (client && client->excluded)
            continue; /* its id stands here twice */
        if (client) {
            deliver(hub, client, message, result);
            client->excluded = true;
        }
        if (!client || result->dropped > dropped)
            list_failed(result, id);
    }
    exclude(hub, command, false);
}

static void send_message(struct hub *hub, const struct command *command, struct result *result)
{
    bool is_for_one = command->kind == COMMAND_SEND_TO_CLIENT;
    struct client *client = is_for_one ? target(hub, command, result) : NULL;
    struct buf text = {0};
    struct rcbuf *message;

    if (is_for_one && !client)
        return;
    hub_write_push(&text, command);
    message = encode_text(&text);
    if (!message) {
        fail(result, RESULT_UNREACHABLE, "out of memory");
        return;
    }
    if (client) {
        deliver(hub, client, message, result);
        if (result->dropped)
            fail(result, RESULT_OFFLINE, "client not online: it was closed for being slow");
    } else if (command->kind == COMMAND_SEND_TO_CLIENTS) {
        send_to_clients(hub, command, message, result);
    } else {
        exclude(hub, command, true);
        deliver_to_all(hub, find_target_audience(hub, command), message, result);
        exclude(hub, command, false);
    }
    rcbuf_release(message);
}

/* Puts a client into the audience of this name, unless it is there. False without memory. */
static bool enter(struct hub *hub, struct client *client, enum channel_kind kind, struct str name,
                  bool *is_new)
{
    struct audience *audience = make_audience(hub, kind, client->memberships[0].audience, name);

    if (!audience)
        return false;
    *is_new = position_of(client, audience) == client->membership_count;
    if (!*is_new || join(client, audience))
        return true;
    drop_if_empty(hub, audience);
    return false;
}

/* Makes a client one of this user's; of nobody's if the name is empty. */
static bool set_user(struct hub *hub, struct client *client, struct str user)
{
    const struct audience *before = user_of(client);
    bool is_new = true;

    if (user.length && !enter(hub, client, CHANNEL_USER, user, &is_new))
        return false;
    if (is_new && before)
        drop_if_empty(hub, leave(client, 1)); /* the new one moves there */
    else if (is_new)
        move_user_up(client);
    return true;
}

static struct extend *copy_extend(struct str text)
{
    struct extend *extend = malloc(sizeof *extend + text.length);

    if (!extend)
        return NULL;
    extend->length = text.length;
    memcpy(extend->text, text.at, text.length);
    return extend;
}

/* All that a bind says, or, without memory, nothing of it: then false. */
static bool bind_whole(struct hub *hub, struct client *client, const struct command *command,
                       bool *is_new)
{
    struct extend *extend = command->extend.length ? copy_extend(command->extend) : NULL;

    if ((command->extend.length && !extend) ||
        !enter(hub, client, CHANNEL_GROUP, command->group, is_new)) {
        free(extend);
        return false;
    }
    if (command->has_user && !set_user(hub, client, command->user)) {
        if (*is_new) /* it is the last in the client's list */
            drop_if_empty(hub, leave(client, client->membership_count - 1));
        free(extend);
        return false;
    }
    if (command->has_extend) {
        free(client->extend);
        client->extend = extend;
    }
    return true;
}

/* False if one more group would be one too many for a client. */
static bool hub_may_join(const struct hub *hub, const struct client *client,
                         const struct command *command)
{
    uint32_t groups = client->membership_count - 1 - (user_of(client) != NULL);
    const struct audience *group = NULL;

    if (groups < hub->config->max_groups)
        return true;
    group = find_target_audience(hub, command);
    return group && position_of(client, group) < client->membership_count;
}

/* True if a bind gives the client another user or extend than it has. */
static bool hub_would_change(const struct client *client, const struct command *command)
{
    const struct audience *user = user_of(client);

    return (command->has_user &&
            !str_equal(user ? name_of(user) : (struct str){0}, command->user)) ||
           (command->has_extend && !str_equal(extend_of(client), command->extend));
}

static void bind_client(struct hub *hub, const struct command *command, struct result *result)
{
    struct client *client = target(hub, command, result);
    bool is_new = false, changes;

    if (!client)
        return;
    changes = hub_would_change(client, command);
    if (!hub_may_join(hub, client, command)) {
        fail(result, RESULT_LIMIT, "the client is in max_groups groups already");
        return;
    }
    if (!bind_whole(hub, client, command, &is_new)) {
        fail(result, RESULT_UNREACHABLE, "out of memory");
        return;
    }
    if (is_new && hub->config->scope == NOTICE_GROUP)
        notify(hub, find_target_audience(hub, command), client, PRESENCE_JOIN);
    if (hub->hooks && changes)
        hub_report_client(hub, client, false);
}

static void unbind_client(struct hub *hub, const struct command *command, struct result *result)
{
    struct client *client = target(hub, command, result);
    const struct audience *group;
    struct audience *left;
    uint32_t position;

    if (!client)
        return;
    group = find_target_audience(hub, command);
    position = group ? position_of(client, group) : client->membership_count;
    if (position == client->membership_count)
        return; /* leaving a group it is not in is done already */
    left = leave(client, position);
    if (hub->config->scope == NOTICE_GROUP)
        notify(hub, left, client, PRESENCE_LEAVE);
    drop_if_empty(hub, left);
}

static void list_online(const struct hub *hub, const struct command *command, struct result *result)
{
    const struct audience *group = find_target_audience(hub, command);

    for (uint32_t i = 0; group && i < group->count; i++) {
        if (result->count++)
            buf_append(&result->list, STR(","));
        append_id(hub, &result->list, group->members[i]);
    }
}

static void close_client(struct hub *hub, const struct command *command, struct result *result)
{
    struct client *client = target(hub, command, result);

    if (client)
        end_client(hub, client, command->close_code, command->reason);
}

static void describe_client(const struct hub *hub, const struct command *command,
                            struct result *result)
{
    const struct client *client = target(hub, command, result);
    struct buf *out = &result->list;
    char address[CONN_ADDRESS_MAX];
    bool first = true;

    if (!client)
        return;
    append_identity(hub, out, client);
    buf_append(out, STR(",\"groups\":["));
    for (uint32_t i = 0; i < client->membership_count; i++) {
        const struct audience *audience = client->memberships[i].audience;

        if (audience->kind != CHANNEL_GROUP)
            continue;
        buf_append(out, first ? STR("") : STR(","));
        json_append_quoted(out, name_of(audience));
        first = false;
    }
    buf_append(out, STR("],\"connectedAt\":"));
    buf_append_number(out, client->connected_at);
    buf_append(out, STR(",\"remote\":"));
    conn_address(client->conn, address);
    json_append_quoted(out, str_from(address));
    buf_append(out, STR("}"));
}

void hub_apply(struct hub *hub, const struct command *command, struct result *result)
{
    switch (command->kind) {
    case COMMAND_SEND_TO_CLIENT:
    case COMMAND_SEND_TO_CLIENTS:
    case COMMAND_SEND_TO_GROUP:
    case COMMAND_SEND_TO_USER:
    case COMMAND_SEND_TO_SYSTEM:
        send_message(hub, command, result);
        break;
    case COMMAND_BIND:
        bind_client(hub, command, result);
        break;
    case COMMAND_UNBIND:
        unbind_client(hub, command, result);
        break;
    case COMMAND_ONLINE_LIST:
        list_online(hub, command, result);
        break;
    case COMMAND_CLOSE_CLIENT:
        close_client(hub, command, result);
        break;
    case COMMAND_CLIENT_INFO:
        describe_client(hub, command, result);
        break;
    }
    settle(hub);
    if (result->list.failed)
        fail(result, RESULT_UNREACHABLE, "out of memory");
}

void hub_close(struct hub *hub)
{
    size_t place = 0;
    struct client *client;
    struct audience *audience;

    while ((client = table_walk(&hub->clients, &place)))
        free_client(client);
    place = 0;
    while ((audience = table_walk(&hub->audiences, &place)))
        free_audience(audience);
    table_free(&hub->clients);
    table_free(&hub->audiences);
}
