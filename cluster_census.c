/* cluster_census.c - the commands of roster.h in a cluster.
 *
 * A request keeps the replies of all nodes apart (struct pending_reply) until it is finished; then
 * they are merged: numbers are added, groups are taken in their order, equal ones added up, up to
 * the limit. A reply that ends before the limit, though its node has more, ends the merged page as
 * well: what follows there may come before what the others have listed.
 *
 * A node that does not reply, or has an earlier protocol, leaves a list or a count incomplete. What
 * was to be done to the clients of a user is then answered -1007: it may be repeated.
 *
 * Threads: only the loop's. */
#include "cluster_census.h"

#include <stdlib.h>
#include <string.h>

bool census_set_order(struct cluster *cluster)
{
    unsigned char key[16];

    if (!crypto_derive(&cluster->keys->keys[0], STR("channel order"), key, sizeof key))
        return false;
    for (size_t i = 0; i < 2; i++)
        cluster->hub->channels.key[i] = bytes_get_be(key + 8 * i, 8);
    return true;
}

/* --- whom to ask ------------------------------------------------------------------------------ */

static int census_compare(const struct node_tag *a, const struct node_tag *b)
{
    int order = memcmp(a->bytes, b->bytes, sizeof a->bytes);

    return order ? order : a->incarnation < b->incarnation ? -1 : a->incarnation > b->incarnation;
}

/* The first node whose tag is `from` or, in the order of tags, comes behind it; NULL if there is
 * none. */
static const struct node_id *census_find(const struct cluster *cluster, const struct node_tag *from,
                                         struct node_tag *tag)
{
    const struct peer *peer = links_all(cluster->links);
    const struct node_id *found = NULL;

    if (census_compare(&cluster->tag, from) >= 0) {
        found = &cluster->self;
        *tag = cluster->tag;
    }
    for (; peer; peer = peer->next)
        if (census_compare(&peer->tag, from) >= 0 &&
            (!found || census_compare(&peer->tag, tag) < 0)) {
            found = &peer->id;
            *tag = peer->tag;
        }
    return found;
}

/* The node that a position of a list of clients names. False for a position of none. */
static bool census_open_position(const struct cluster *cluster, const struct command *command,
                                 struct node_tag *tag)
{
    char space[ROSTER_NAME_MAX], room[ROSTER_NAME_MAX + 2];
    struct buf name = BUF_INIT(space), id = BUF_INIT(room);
    uint64_t number;

    *tag = (struct node_tag){.incarnation = 0};
    if (!command->after.length)
        return true;
    return roster_read_position(cluster->hub, command, &name) &&
           json_append_quoted(&id, str_of(&name)) &&
           wire_open_client(cluster->keys, (struct json_value){JSON_STRING, str_of(&id)}, tag,
                            &number);
}

/* Expects a reply of the node that has the next clients. */
static bool census_expect_one(struct cluster *cluster, struct pending *pending,
                              struct command *command, struct result *result)
{
    struct node_tag from, tag;
    const struct node_id *node;

    if (!census_open_position(cluster, command, &from)) {
        state_fail(result, RESULT_MALFORMED, ROSTER_BAD_POSITION);
        return false;
    }
    node = census_find(cluster, &from, &tag);
    if (census_compare(&from, &tag) != 0)
        command->after = (struct str){0};
    if (pending_expect(pending, node ? node : &cluster->self))
        return true;
    state_fail(result, RESULT_UNREACHABLE, "out of memory");
    return false;
}

bool census_expect(struct cluster *cluster, struct pending *pending, struct command *command,
                   struct buf *after, struct result *result)
{
    const struct peer *peer = links_all(cluster->links);
    char space[ROSTER_NAME_MAX];
    struct buf name = BUF_INIT(space);
    bool good = true;

    pending->incomplete = command->kind < COMMAND_BIND_USER && !state_knows_all(cluster);
    if (command->kind == COMMAND_LIST_CLIENTS)
        return census_expect_one(cluster, pending, command, result);
    if (command->kind == COMMAND_LIST_GROUPS) {
        if (!roster_read_position(cluster->hub, command, &name)) {
            state_fail(result, RESULT_MALFORMED, ROSTER_BAD_POSITION);
            return false;
        }
        /* never empty: a node with another order, because of its crypto_key, rejects it */
        roster_write_position(cluster->hub, command, str_of(&name), after);
        command->after = str_of(after);
    }
    good = pending_expect(pending, &cluster->self);
    for (; good && peer; peer = peer->next)
        good = pending_expect(pending, &peer->id);
    if (!good)
        state_fail(result, RESULT_UNREACHABLE, "out of memory");
    return good;
}

/* --- what the replies make -------------------------------------------------------------------- */

/* Adds a node's counts, numbers separated by commas, to the sums. */
static void census_add_counts(struct buf *sums, struct str counts)
{
    struct buf before = *sums;
    struct str rest = str_of(&before);

    *sums = (struct buf){.failed = before.failed};
    while (rest.length || counts.length) {
        uint64_t sum = 0, count = 0;

        str_number(str_cut(&rest, ','), INT64_MAX, &sum);
        str_number(str_cut(&counts, ','), INT64_MAX, &count);
        buf_append(sums, sums->length ? STR(",") : STR(""));
        buf_append_number(sums, (int64_t)(sum + count));
    }
    buf_free(&before);
}

static void census_merge_counts(struct pending *pending, const struct command *command)
{
    for (size_t i = 0; i < pending->reply_count; i++)
        census_add_counts(&pending->result.list, str_of(&pending->replies[i].list));
    roster_name_counts(command, &pending->result);
}

/* A page of groups while it is merged with another. */
struct census_page {
    struct buf text;    /* an array of them */
    struct str rest;    /* what is behind the present one */
    bool has, has_more; /* there is a present one; there are more behind the last one */
    struct roster_place place;
    int64_t clients;
    char name[ROSTER_NAME_MAX];
};

/* Takes the next group of a page. */
static void census_next(const struct hub *hub, struct str system, struct census_page *page)
{
    struct json_field fields[] = {{.name = STR_INIT("groupName")}, {.name = STR_INIT("clients")}};
    struct buf name = BUF_INIT(page->name);
    struct json_value entry;
    struct json_error error;

    page->has = json_next_element(&page->rest, &entry) &&
                json_parse_object(entry.text, fields, 2, &error) &&
                json_decode_string(fields[0].value, &name) &&
                json_decode_integer(fields[1].value, &page->clients);
    if (page->has)
        page->place = roster_place_group(hub, system, str_of(&name));
}

static void census_read(const struct hub *hub, struct str system, struct str list,
                        struct census_page *page)
{
    page->has_more = roster_split(&list).length > 2;
    buf_append(&page->text, STR("["));
    buf_append(&page->text, list);
    buf_append(&page->text, STR("]"));
    page->rest = page->text.failed ? (struct str){0} : str_of(&page->text);
    census_next(hub, system, page);
}

/* Merges a node's page into that of the nodes before it. */
static void census_merge_page(const struct hub *hub, const struct command *command, struct str list,
                              struct result *result)
{
    struct census_page pages[2] = {{.has = false}, {.has = false}};
    struct buf before = result->list;
    char space[ROSTER_NAME_MAX];
    struct buf name = BUF_INIT(space);

    *result = (struct result){0};
    census_read(hub, command->system, str_of(&before), &pages[0]);
    census_read(hub, command->system, list, &pages[1]);
    result->list.failed = before.failed || pages[0].text.failed || pages[1].text.failed;
    while (result->count < command->limit && (pages[0].has || pages[1].has) &&
           (pages[0].has || !pages[0].has_more) && (pages[1].has || !pages[1].has_more)) {
        bool second =
            !pages[0].has || (pages[1].has && roster_is_before(&pages[1].place, &pages[0].place));
        struct census_page *page = &pages[second], *other = &pages[!second];
        bool both = other->has && !roster_is_before(&page->place, &other->place);

        name.length = 0;
        buf_append(&name, page->place.name);
        roster_write_group(hub_next_entry(result), page->place.name,
                           (uint64_t)(page->clients + (both ? other->clients : 0)));
        census_next(hub, command->system, page);
        if (both)
            census_next(hub, command->system, other);
    }
    roster_write_next(hub, command, str_of(&name),
                      pages[0].has || pages[1].has || pages[0].has_more || pages[1].has_more,
                      &result->list);
    buf_free(&pages[0].text);
    buf_free(&pages[1].text);
    buf_free(&before);
}

/* Behind the last page of a node comes the beginning of the next node. */
static void census_link_nodes(struct cluster *cluster, struct pending *pending,
                              const struct command *command)
{
    const struct pending_reply *reply = &pending->replies[0];
    struct str list = str_of(&reply->list), next = roster_split(&list);
    struct buf *out = &pending->result.list;
    char id[HUB_ID_TEXT];
    struct node_tag behind, tag;
    bool more;

    buf_append(out, list);
    if (next.length > 2) {
        buf_append(out, list.length ? STR(",") : STR(""));
        buf_append(out, next);
        return;
    }
    out->failed |= !node_make_tag(&reply->node, &behind);
    behind.incarnation++;
    more = census_find(cluster, &behind, &tag) && wire_seal_client(cluster->keys, &tag, 0, id);
    roster_write_next(cluster->hub, command, (struct str){id, sizeof id}, more, out);
}

void census_merge(struct cluster *cluster, struct pending *pending)
{
    struct buf decoded = {0};
    struct cluster_msg msg;

    if (pending->result.code != RESULT_SUCCESS)
        return;
    buf_free(&pending->result.list);
    if (!msg_read(str_of(&pending->text), &decoded, &msg))
        pending->result.list.failed = true;
    else if (pending->command == COMMAND_COUNT_CLIENTS)
        census_merge_counts(pending, &msg.command);
    else if (pending->command == COMMAND_LIST_CLIENTS)
        census_link_nodes(cluster, pending, &msg.command);
    else if (pending->command == COMMAND_LIST_GROUPS)
        for (size_t i = 0; i < pending->reply_count; i++)
            census_merge_page(cluster->hub, &msg.command, str_of(&pending->replies[i].list),
                              &pending->result);
    else if (pending->incomplete)
        pending_fail(pending, "not all nodes have done it: repeat the call");
    if (pending->result.list.failed)
        pending_fail(pending, "out of memory");
    buf_free(&decoded);
}

/* --- walks ------------------------------------------------------------------------------------ */

bool census_walk_here(struct cluster *cluster, const struct command *command,
                      const struct pending_origin *origin, struct result *result)
{
    uint16_t slot = wire_slot(WIRE_GROUP, command->system, command->group);
    bool must_bind = command->kind == COMMAND_BIND_USER && !cluster->slots[slot].bound &&
                     roster_find_channel(cluster->hub, command);
    struct pending *pending;

    if (must_bind && !cluster->bus_up) {
        state_fail(result, RESULT_UNREACHABLE, state_publishing_reason(cluster));
        return true;
    }
    pending = state_keep(cluster, must_bind ? PENDING_BIND : PENDING_WALK, command, false, origin,
                         result);
    if (!pending)
        return true;
    if (must_bind)
        state_need_slot(cluster, pending, slot), state_await_slots(cluster, pending);
    else if (roster_apply(cluster->hub, command, pending->id, result)) {
        /* it could not begin; if the position is good where the call was made, the orders differ */
        result->code = RESULT_UNREACHABLE;
        state_abandon(cluster, pending);
        return true;
    }
    return false;
}

void census_take_walks(struct cluster *cluster)
{
    struct roster_walk *walk;

    while ((walk = roster_take(cluster->hub))) {
        struct pending *pending = pending_find(&cluster->pendings, walk->id);

        if (pending && pending->kind == PENDING_WALK) {
            pending->result = walk->result;
            walk->result = (struct result){0};
            state_finish(cluster, pending);
        }
        roster_free(walk);
    }
}
