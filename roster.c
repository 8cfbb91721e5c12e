/* roster.c - who is there: counts, pages of clients and groups; and what is done to all clients of
 * a user.
 *
 * A walk looks for the next entry behind its place, visits it, and goes on from there. The order is
 * that of the hash tables' homes (see table.h), so the next entry is found in a few slots, and the
 * place alone is what remains between two slices or two pages. Entries of one home stand in no
 * order: the least of them behind the place is taken. A channel with few members is not looked for
 * in the table of all clients: each step takes the least of its members.
 *
 * The position that a page ends with is the name or id of its last entry and a checksum under the
 * secret key of the hashes; so a position is of one kind of list, and void when the order is
 * another one, after a restart. The nodes of a cluster have one key, and so one order of groups.
 *
 * Budget: slots looked at and entries visited count, ROSTER_PER_ITERATION for all walks together;
 * a walk that is not done then goes to the end of the line. Only the loop's thread calls this
 * module. */
#include "roster.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define ROSTER_PER_ITERATION 512 /* slots */
#define ROSTER_VISIT_COST 8      /* slots that an entry costs */
#define ROSTER_SEEN "{\"node\":"
#define ROSTER_LISTS_MAX 256 /* lists under way: their pages are in memory */

static void roster_check_memory(struct result *result)
{
    if (!result->list.failed)
        return;
    result->code = RESULT_UNREACHABLE;
    result->error = "out of memory";
}

/* --- counts ---------------------------------------------------------------------------------- */

static void roster_count_each(const struct hub *hub, const struct command *command,
                              enum channel_kind kind, struct str names, struct result *result)
{
    const struct channel *system =
        channel_find(&hub->channels, CHANNEL_SYSTEM, NULL, command->system);
    const struct channel *channel;
    char room[ROSTER_NAME_MAX];
    struct json_value name;

    while (json_next_element(&names, &name)) {
        struct buf text = BUF_INIT(room);
        bool known = system && json_decode_string(name, &text);

        channel = known ? channel_find(&hub->channels, kind, system, str_of(&text)) : NULL;
        buf_append_number(hub_next_entry(result), channel ? channel->count : 0);
    }
}

/* Appends "MEMBER":{"NAME":COUNT,…} with the next counts. */
static void roster_name_each(struct buf *out, struct str member, struct str names,
                             struct str *counts)
{
    struct json_value name;
    bool first = true;

    if (!names.length)
        return;
    buf_append(out, out->length ? STR(",") : STR(""));
    buf_append(out, member);
    for (; json_next_element(&names, &name); first = false) {
        buf_append(out, first ? STR("") : STR(","));
        buf_append(out, name.text);
        buf_append(out, STR(":"));
        buf_append(out, str_cut(counts, ','));
    }
    buf_append(out, STR("}"));
}

void roster_name_counts(const struct command *command, struct result *result)
{
    struct buf numbers = result->list, *out = &result->list;
    struct str counts = str_of(&numbers);

    *out = (struct buf){.failed = numbers.failed};
    if (command->wide) {
        buf_append(out, STR("\"system\":"));
        buf_append(out, str_cut(&counts, ','));
    }
    roster_name_each(out, STR("\"groups\":{"), command->groups, &counts);
    roster_name_each(out, STR("\"users\":{"), command->users, &counts);
    buf_free(&numbers);
}

static void roster_count(const struct hub *hub, const struct command *command,
                         struct result *result)
{
    if (command->wide)
        buf_append_number(hub_next_entry(result), (int64_t)hub_count_clients(hub, command->system));
    roster_count_each(hub, command, CHANNEL_GROUP, command->groups, result);
    roster_count_each(hub, command, CHANNEL_USER, command->users, result);
    if (!hub->hooks)
        roster_name_counts(command, result);
}

/* --- the order, and positions in it ---------------------------------------------------------- */

bool roster_is_before(const struct roster_place *a, const struct roster_place *b)
{
    size_t common = a->name.length < b->name.length ? a->name.length : b->name.length;
    int order = common ? memcmp(a->name.at, b->name.at, common) : 0;

    if (a->rank != b->rank)
        return a->rank < b->rank;
    if (a->number != b->number)
        return a->number < b->number;
    return order ? order < 0 : a->name.length < b->name.length;
}

struct roster_place roster_place_group(const struct hub *hub, struct str system, struct str name)
{
    const struct channels *channels = &hub->channels;
    uint32_t hash = channel_hash(channels, CHANNEL_SYSTEM, 0, system);

    return (struct roster_place){
        .rank = table_rank(channel_hash(channels, CHANNEL_GROUP, hash, name)), .name = name};
}

static struct roster_place roster_place_client(uint64_t number)
{
    return (struct roster_place){.rank = table_rank((uint32_t)number), .number = number};
}

/* The checksum of a position, which does not tell the hash. */
static uint32_t roster_check(const struct hub *hub, const struct command *command, struct str name)
{
    return (uint32_t)(str_siphash(name, hub->channels.key) >> 32) + (uint32_t)command->kind;
}

void roster_write_position(const struct hub *hub, const struct command *command, struct str name,
                           struct buf *out)
{
    char check[4];

    bytes_put_be(check, sizeof check, roster_check(hub, command, name));
    buf_append_hex(out, (struct str){check, sizeof check});
    buf_append_hex(out, name);
}

void roster_write_next(const struct hub *hub, const struct command *command, struct str name,
                       bool more, struct buf *list)
{
    buf_append(list, list->length ? STR(",\"") : STR("\""));
    if (more)
        roster_write_position(hub, command, name, list);
    buf_append(list, STR("\""));
}

bool roster_read_position(const struct hub *hub, const struct command *command, struct buf *name)
{
    char bytes[ROSTER_POSITION_MAX / 2];
    size_t length = command->after.length / 2;

    if (!length)
        return !command->after.length;
    if (length < 4 || length > sizeof bytes || !str_read_hex(command->after, bytes, length) ||
        !buf_append(name, (struct str){bytes + 4, length - 4}))
        return false;
    return bytes_get_be(bytes, 4) == roster_check(hub, command, str_of(name));
}

struct str roster_split(struct str *list)
{
    size_t begin = list->length ? list->length - 1 : 0;
    struct str next;

    while (begin > 0 && list->at[begin - 1] != '"')
        begin--;
    begin -= begin > 0; /* the quote before it */
    next = str_skip(*list, begin);
    list->length = begin ? begin - 1 : 0; /* without the comma */
    return next;
}

struct str roster_split_seen(struct str *list)
{
    struct str mark = STR(ROSTER_SEEN), seen = {0};
    size_t at = list->length < mark.length ? 0 : list->length - mark.length;

    while (at > 0 && memcmp(list->at + at, mark.at, mark.length) != 0)
        at--;
    if (list->length >= mark.length && memcmp(list->at + at, mark.at, mark.length) == 0) {
        seen = str_skip(*list, at);
        list->length = at ? at - 1 : 0; /* without the comma */
    }
    return seen;
}

/* --- walks ----------------------------------------------------------------------------------- */

static bool roster_is_list(const struct command *command)
{
    return command->kind == COMMAND_LIST_CLIENTS || command->kind == COMMAND_LIST_GROUPS;
}

/* Sets the place behind which a walk begins. */
static bool roster_find_place(const struct hub *hub, struct roster_walk *walk)
{
    char room[ROSTER_NAME_MAX + 2];
    struct buf name = {.at = walk->last, .capacity = ROSTER_NAME_MAX, .limit = ROSTER_NAME_MAX};
    struct buf quoted = BUF_INIT(room);
    uint64_t number;

    if (!roster_read_position(hub, &walk->command, &name))
        return false;
    walk->last_length = name.length;
    if (walk->command.kind == COMMAND_LIST_GROUPS && name.length)
        walk->at = roster_place_group(hub, walk->command.system, str_of(&name));
    if (walk->command.kind == COMMAND_LIST_GROUPS || !name.length)
        return true;
    json_append_quoted(&quoted, str_of(&name));
    if (quoted.failed ||
        !hub_read_id(hub, (struct json_value){JSON_STRING, str_of(&quoted)}, &number))
        return false;
    walk->at = roster_place_client(number);
    return true;
}

static struct str roster_copy(char **to, struct str text)
{
    struct str copy = {*to, text.length};

    if (text.length)
        memcpy(*to, text.at, text.length);
    *to += text.length;
    return copy;
}

/* Notes which events of the system's webhook a page of clients takes account of. */
static void roster_note_seen(const struct hub *hub, struct roster_walk *walk)
{
    struct webhook *webhook = webhook_find(hub->webhooks, walk->command.system);
    struct webhook_report report;

    if (walk->command.kind != COMMAND_LIST_CLIENTS || !webhook)
        return;
    webhook_read_report(hub->webhooks, webhook, &report);
    walk->epoch = report.epoch;
    walk->seq = report.seq;
}

/* Appends, behind the clients, {"node":…,"epoch":…,"seq":…}. */
static void roster_write_seen(const struct hub *hub, struct roster_walk *walk)
{
    struct buf *out = &walk->result.list;

    if (!walk->epoch)
        return;
    buf_append(out, out->length ? STR("," ROSTER_SEEN) : STR(ROSTER_SEEN));
    json_append_quoted(out, str_from(webhook_node(hub->webhooks)));
    buf_print(out, ",\"epoch\":%" PRId64 ",\"seq\":%" PRIu64 "}", walk->epoch, walk->seq);
}

/* Begins a walk. False if that cannot be: `result` says why. */
static bool roster_begin(struct hub *hub, const struct command *command, uint64_t id,
                         struct result *result)
{
    size_t length = command->system.length + command->group.length + command->user.length +
                    command->after.length + command->clients.length + command->reason.length;
    bool limited = roster_is_list(command) && hub->list_count >= ROSTER_LISTS_MAX;
    struct roster_walk *walk = limited ? NULL : calloc(1, sizeof *walk + length);
    char *text = walk ? walk->text : NULL;

    if (!walk) {
        result->code = limited ? RESULT_LIMIT : RESULT_UNREACHABLE;
        result->error = limited ? "too many lists are under way" : "out of memory";
        return false;
    }
    walk->id = id;
    walk->command = (struct command){.kind = command->kind,
                                     .system = roster_copy(&text, command->system),
                                     .group = roster_copy(&text, command->group),
                                     .user = roster_copy(&text, command->user),
                                     .after = roster_copy(&text, command->after),
                                     .clients = roster_copy(&text, command->clients),
                                     .reason = roster_copy(&text, command->reason),
                                     .close_code = command->close_code,
                                     .wide = command->wide,
                                     .limit = command->limit};
    if (!roster_find_place(hub, walk)) {
        free(walk);
        result->code = RESULT_MALFORMED;
        result->error = ROSTER_BAD_POSITION;
        return false;
    }
    roster_note_seen(hub, walk);
    hub->list_count += roster_is_list(command);
    fifo_push(&hub->walks, &walk->link);
    return true;
}

struct channel *roster_find_channel(const struct hub *hub, const struct command *command)
{
    struct channel *system = channel_find(&hub->channels, CHANNEL_SYSTEM, NULL, command->system);

    if (!system || command->kind == COMMAND_LIST_GROUPS)
        return system;
    if (command->kind == COMMAND_LIST_CLIENTS && command->group.length)
        return channel_find(&hub->channels, CHANNEL_GROUP, system, command->group);
    if (command->user.length)
        return channel_find(&hub->channels, CHANNEL_USER, system, command->user);
    return system;
}

/* True if a client is subscribed to the channel, and of the user if there is one; or if a group is
 * of the system, and has the prefix. */
static bool roster_wants(const struct roster_walk *walk, const struct channel *channel,
                         const void *entry)
{
    const struct command *command = &walk->command;
    const struct channel *group = entry;
    const struct client *client = entry;

    if (command->kind == COMMAND_LIST_GROUPS)
        return group->kind == CHANNEL_GROUP && group->system == channel &&
               group->name_length >= command->group.length &&
               group->name_length <= ROSTER_NAME_MAX &&
               str_equal((struct str){group->name, command->group.length}, command->group);
    return channel_position(client, channel) < client->subscription_count &&
           (!command->user.length || str_equal(channel_user(client), command->user));
}

void roster_write_group(struct buf *out, struct str name, uint64_t clients)
{
    buf_append(out, STR("{\"groupName\":"));
    json_append_quoted(out, name);
    buf_print(out, ",\"clients\":%" PRIu64 "}", clients);
}

/* The least entry behind the walk's place that was considered. */
struct roster_best {
    void *entry;
    struct roster_place place;
};

static void roster_consider(const struct roster_walk *walk, const struct channel *channel,
                            void *entry, struct roster_best *best)
{
    const struct channel *group = entry;
    struct roster_place place;

    if (walk->command.kind == COMMAND_LIST_GROUPS)
        place = (struct roster_place){.rank = table_rank(group->hash), .name = channel_name(group)};
    else
        place = roster_place_client(((const struct client *)entry)->number);
    if (roster_is_before(&walk->at, &place) &&
        (!best->entry || roster_is_before(&place, &best->place)) &&
        roster_wants(walk, channel, entry))
        *best = (struct roster_best){entry, place};
}

/* Finds the next entry. Returns false when the budget is used up: the place is where to go on. True
 * without an entry is the end. */
static bool roster_find(const struct hub *hub, struct roster_walk *walk,
                        const struct channel *channel, struct roster_best *best, int *budget)
{
    bool groups = walk->command.kind == COMMAND_LIST_GROUPS;
    const struct table *table = groups ? &hub->channels.names : &hub->channels.clients;
    struct table_scan scan;
    size_t home = 0;
    void *entry;

    if (!groups && (uint64_t)channel->count * channel->count <= table->capacity) {
        for (uint32_t i = 0; i < channel->count; i++)
            roster_consider(walk, channel, channel->members[i].client, best);
        *budget -= (int)channel->count;
        return true;
    }
    table_scan_seek(table, &scan, walk->at.rank);
    while ((entry = table_scan_next(table, &scan)) && (!best->entry || scan.home == home)) {
        if (!best->entry && scan.home != home && *budget <= 0) {
            walk->at = (struct roster_place){.rank = table_scan_rank(&scan)};
            return false;
        }
        home = scan.home;
        *budget -= groups ? 1 : 1 + (int)(((struct client *)entry)->subscription_count / 64);
        roster_consider(walk, channel, entry, best);
    }
    return true;
}

/* Does to a client what the command says. */
static void roster_treat(struct hub *hub, struct roster_walk *walk, struct client *client)
{
    static const enum command_kind kinds[] = {[COMMAND_BIND_USER] = COMMAND_BIND,
                                              [COMMAND_UNBIND_USER] = COMMAND_UNBIND,
                                              [COMMAND_CLOSE_USER] = COMMAND_CLOSE_CLIENT};
    struct command command = walk->command;
    struct result result = {0};

    if (client->is_excluded)
        return;
    command.kind = kinds[command.kind];
    hub_apply_to(hub, &command, client, &result);
    walk->result.matched++;
    walk->result.queued += result.code == RESULT_SUCCESS;
    walk->result.dropped += result.code != RESULT_SUCCESS;
}

/* Visits an entry, and goes behind it. Returns what that costs. */
static int roster_visit(struct hub *hub, struct roster_walk *walk, const struct roster_best *best)
{
    const struct channel *group = best->entry;
    struct client *client = best->entry;
    bool groups = walk->command.kind == COMMAND_LIST_GROUPS;
    struct str name = groups ? channel_name(group) : channel_client_id(client);
    uint64_t sent = hub->counts.sent;
    int cost = ROSTER_VISIT_COST;

    memcpy(walk->last, name.at, name.length);
    walk->last_length = name.length;
    walk->at = best->place;
    walk->at.name = groups ? (struct str){walk->last, name.length} : (struct str){0};
    if (!groups && (walk->command.wide || walk->command.kind == COMMAND_CLOSE_USER))
        cost += (int)client->subscription_count;
    if (groups) {
        roster_write_group(hub_next_entry(&walk->result), name, group->count);
    } else if (walk->command.kind == COMMAND_LIST_CLIENTS) {
        command_describe_client(client, walk->command.wide, hub_next_entry(&walk->result));
    } else {
        roster_treat(hub, walk, client);
    }
    return cost + (int)(hub->counts.sent - sent);
}

/* Continues a walk. Returns true when it is done. */
static bool roster_walk_on(struct hub *hub, struct roster_walk *walk, int *budget)
{
    while (*budget > 0) {
        const struct channel *channel = roster_find_channel(hub, &walk->command);
        struct roster_best best = {0};
        bool full = roster_is_list(&walk->command) && (walk->result.count >= walk->command.limit ||
                                                       walk->result.list.length > ROSTER_PAGE_MAX);

        if (channel && !roster_find(hub, walk, channel, &best, budget))
            return false;
        if (best.entry && !full) {
            *budget -= roster_visit(hub, walk, &best);
            continue;
        }
        roster_write_seen(hub, walk);
        if (roster_is_list(&walk->command))
            roster_write_next(hub, &walk->command, (struct str){walk->last, walk->last_length},
                              best.entry != NULL, &walk->result.list);
        roster_check_memory(&walk->result);
        return true;
    }
    return false;
}

bool roster_run(struct hub *hub)
{
    int budget = ROSTER_PER_ITERATION;
    struct roster_walk *walk;

    while (budget > 0 && (walk = (struct roster_walk *)fifo_pop(&hub->walks))) {
        hub_exclude(hub, &walk->command, true);
        fifo_push(roster_walk_on(hub, walk, &budget) ? &hub->walked : &hub->walks, &walk->link);
        hub_exclude(hub, &walk->command, false);
        hub_close_slow_clients(hub);
    }
    return hub->walks.first != NULL;
}

struct roster_walk *roster_take(struct hub *hub)
{
    struct roster_walk *walk = (struct roster_walk *)fifo_pop(&hub->walked);

    hub->list_count -= walk && roster_is_list(&walk->command);
    return walk;
}

void roster_free(struct roster_walk *walk)
{
    buf_free(&walk->result.list);
    free(walk);
}

bool roster_apply(struct hub *hub, const struct command *command, uint64_t id,
                  struct result *result)
{
    if (command->kind < COMMAND_COUNT_CLIENTS) {
        hub_apply(hub, command, result);
    } else if (command->kind == COMMAND_COUNT_CLIENTS) {
        roster_count(hub, command, result);
        roster_check_memory(result);
    } else {
        return !roster_begin(hub, command, id, result);
    }
    return true;
}

void roster_close(struct hub *hub)
{
    struct fifo_link *walk;

    while ((walk = fifo_pop(&hub->walks)) || (walk = fifo_pop(&hub->walked)))
        roster_free((struct roster_walk *)walk);
}
