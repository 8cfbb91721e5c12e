/* test_resume.c - resume.c and hub_resume.c: the ring, its bounds and the keys; and clients whose
 * connections are cut at any byte, beside a model that knows what each has to receive. The model
 * takes a number of steps and a seed as arguments, and prints the seed. */
#include "resume.h"

#include "hub_resume.h"

#include "node.h"

static struct config limits;
static struct resumes resumes;
static struct resume one, other;

/* --- the ring -------------------------------------------------------------------------------- */

static void begin(int frames)
{
    config_defaults(&limits);
    limits.resume_frames = (uint64_t)frames;
    resumes = (struct resumes){.config = &limits};
    one = other = (struct resume){0};
    CHECK(resume_open(&resumes, &one, NULL) && resume_open(&resumes, &other, NULL));
}

static void end(int frames)
{
    (void)frames;
    resume_close(&resumes, &one);
    resume_close(&resumes, &other);
    CHECK(resumes.memory == 0 && resumes.count == 0 && resumes.away == 0 && !resumes.first &&
          !resumes.last);
}

/* Sends `count` frames of `length` bytes to one client, or to both; the last result. */
static bool add(int count, size_t length, bool to_both)
{
    bool kept = false;

    while (count-- > 0) {
        struct rcbuf *frame = rcbuf_new(length);

        if (!frame)
            abort();
        kept = resume_add(&resumes, &one, frame);
        if (to_both)
            kept &= resume_add(&resumes, &other, frame);
        rcbuf_release(frame);
    }
    return kept;
}

/* True if a return with so many frames received would be answered so. */
static bool would(uint64_t received, bool recovered, uint64_t count)
{
    struct resume_answer answer = resume_judge(&one, one.key, received);

    if (answer.recovered == recovered && answer.count == count)
        return true;
    printf("  received %llu: %s, %llu\n", (unsigned long long)received,
           answer.recovered ? "recovered" : "missed", (unsigned long long)answer.count);
    return false;
}

static void nothing_was_sent(void)
{
    CHECK(would(0, true, 0) && would(1, false, 0) && would(UINT64_MAX, false, 0));
    resume_leave(&resumes, &one, 5);
    CHECK(would(0, true, 0) && one.since == 5);
}

static void recovery_is_arithmetic(void)
{
    CHECK(add(3, 10, false));
    CHECK(would(3, true, 0) && would(2, true, 1) && would(0, true, 3) && would(4, false, 3));
    CHECK(resume_ack(&resumes, &one, 2) && one.kept == 1);
    CHECK(would(3, true, 0) && would(2, true, 1) && would(1, false, 2) && would(0, false, 3));
    CHECK(resume_ack(&resumes, &one, 1) && resume_ack(&resumes, &one, 2) && one.kept == 1);
    CHECK(!resume_ack(&resumes, &one, 4) && !resume_ack(&resumes, &one, UINT64_MAX));
    CHECK(resume_ack(&resumes, &one, 3) && !one.ring && resumes.memory == 0);
}

static void the_oldest_go_while_connected(void)
{
    CHECK(add(20, 10, false) && one.kept == 8 && one.bytes == 80);
    CHECK(would(12, true, 8) && would(11, false, 9));
    limits.resume_bytes = 50;
    CHECK(add(1, 20, false) && one.kept == 4 && one.bytes == 50);
    CHECK(!add(1, 51, false) && one.kept == 0 && would(21, false, 1) && would(22, true, 0));
    CHECK(add(1, 50, false) && would(22, true, 1) && !one.is_gapped && resumes.gaps[1] == 0);
}

static void too_much_for_one_that_is_away(void)
{
    resume_leave(&resumes, &one, 0);
    CHECK(add(8, 10, false) && would(0, true, 8));
    CHECK(!add(1, 10, false) && one.is_gapped && !one.ring && would(0, false, 9));
    CHECK(!add(1, 10, false) && resumes.gaps[RESUME_GAP_FRAMES] == 1 && resumes.memory == 0);
}

static void too_many_bytes_for_one_that_is_away(void)
{
    limits.resume_bytes = 30;
    resume_leave(&resumes, &one, 0);
    CHECK(add(3, 10, false) && !add(1, 1, false));
    CHECK(one.is_gapped && resumes.gaps[RESUME_GAP_BYTES] == 1);
}

/* What both are sent is kept once. */
static void memory_is_counted_once(void)
{
    uint64_t alone;

    CHECK(add(1, 1000, false));
    alone = resumes.memory;
    CHECK(alone >= 1000 && alone < 1200);
    CHECK(resume_ack(&resumes, &one, 1) && resumes.memory == 0);
    CHECK(add(1, 1000, true) && resumes.memory == alone + 8 * sizeof(void *));
    CHECK(resume_ack(&resumes, &one, 2) && resumes.memory == alone);
    resume_lose(&resumes, &other, RESUME_GAP_SLOW);
    CHECK(resumes.memory == 0 && resumes.gaps[RESUME_GAP_SLOW] == 1);
}

static void memory_has_a_limit(void)
{
    limits.resume_memory = 3000;
    CHECK(add(2, 1000, false) && resumes.memory <= 3000);
    CHECK(!add(1, 1000, false) && one.kept == 0 && !one.is_gapped && would(3, true, 0));
    CHECK(add(2, 1000, false)); /* it is free again */
    resume_leave(&resumes, &one, 0);
    CHECK(!add(1, 1000, false) && one.is_gapped && resumes.gaps[RESUME_GAP_MEMORY] == 1);
}

static bool comes_back(uint64_t key, uint64_t received, bool recovered, uint64_t count)
{
    struct resume_answer answer = {0};

    return resume_has_key(&one, key) && resume_return(&resumes, &one, key, received, &answer) &&
           CHECK(answer.recovered == recovered) && CHECK(answer.count == count);
}

static void counting_begins_anew_after_a_gap(void)
{
    CHECK(add(10, 10, false));
    resume_leave(&resumes, &one, 0);
    CHECK(!add(1, 10, false));
    CHECK(comes_back(one.key, 9, false, 2) && resumes.away == 0 && !one.is_gapped);
    CHECK(would(0, true, 0) && !resume_ack(&resumes, &one, 1));
    CHECK(add(2, 10, false) && would(1, true, 1) && resume_ack(&resumes, &one, 2));
}

/* The answer "begin at 0" was lost: what the client has received is a number of the old count, and
 * must not pass for one of the new. */
static void the_answer_to_a_gap_is_lost(void)
{
    uint64_t key = one.key;

    CHECK(add(10, 10, false));
    resume_leave(&resumes, &one, 0);
    CHECK(!add(1, 10, false) && comes_back(key, 5, false, 6));
    CHECK(add(7, 10, false));
    resume_leave(&resumes, &one, 0);
    CHECK(comes_back(key, 5, false, 13));
    resume_confirm(&one);
    CHECK(would(0, true, 0) && !resume_has_key(&one, key));
}

static void keys_are_good_once(void)
{
    uint64_t first = one.key, second, third;

    CHECK(comes_back(first, 0, true, 0));
    second = one.key;
    CHECK(second != first && resume_has_key(&one, second));
    CHECK(comes_back(first, 0, true, 0)); /* the first frame was lost */
    third = one.key;
    CHECK(!resume_has_key(&one, second) && resume_has_key(&one, first));
    resume_confirm(&one);
    CHECK(!resume_has_key(&one, first) && resume_has_key(&one, third));
    for (int bit = 0; bit < 64; bit++)
        CHECK(!resume_has_key(&one, third ^ (uint64_t)1 << bit));
    CHECK(!resume_has_key(&one, other.key) && !resume_has_key(&one, 0));
}

static void keys_are_texts(void)
{
    char id[300], text[300];
    struct buf out = BUF_INIT(text), read = BUF_INIT(id);
    uint64_t key = 0;

    one.key = 0xfbff00123456789a;
    CHECK(resume_write_key(&one, STR("ab+/9"), &out) && out.length == 5 + RESUME_SECRET_TEXT);
    CHECK(same(str_of(&out), STR("ab-_9-_8AEjRWeJo")));
    CHECK(resume_read_key(str_of(&out), &read, &key) && key == one.key);
    CHECK(same(str_of(&read), STR("ab+/9")));
    for (size_t i = 0; i < out.length; i++)
        CHECK(!resume_read_key((struct str){text, i}, &(struct buf)BUF_INIT(id), &key) || i > 11);
    text[out.length - 1] = 'p'; /* another spelling of the same bytes */
    CHECK(!resume_read_key(str_of(&out), &(struct buf)BUF_INIT(id), &key));
    text[out.length - 1] = '+';
    CHECK(!resume_read_key(str_of(&out), &(struct buf)BUF_INIT(id), &key));
    memset(text, 'a', sizeof text);
    CHECK(!resume_read_key((struct str){text, 267}, &(struct buf)BUF_INIT(id), &key));
}

static void those_away_stand_in_order(void)
{
    resume_leave(&resumes, &one, 1);
    resume_leave(&resumes, &other, 2);
    CHECK(resumes.first == &one && resumes.last == &other && resumes.away == 2);
    CHECK(comes_back(one.key, 0, true, 0) && resumes.first == &other && resumes.away == 1);
    resume_leave(&resumes, &one, 3);
    CHECK(resumes.first == &other && other.next == &one && one.previous == &other);
}

/* --- the model ------------------------------------------------------------------------------- */

#define CLIENTS 6
#define GROUPS 3
#define BYTES_MAX 65536

struct link {
    struct conn conn;
    struct far_end far; /* fd -1: closed */
};

/* A client as its user sees it, and what it has to receive. */
static struct model_client {
    struct link links[2], *link; /* the present one */
    char id[HUB_ID_TEXT + 1];    /* empty: it has never connected, or has ended */
    char key[RESUME_KEY_MAX];    /* the last one it has learnt */
    bool in[GROUPS];
    bool has_first;        /* it has read the first frame of this connection */
    const char **expected; /* texts, */
    size_t count, room;
    size_t got;   /* of them: received */
    size_t base;  /* received when its count began */
    bool is_away; /* as the model knows it */
    int64_t since, asleep_until;
    bool resumes, was_lost; /* on this connection: came with a key; and it was not good */
} clients[CLIENTS];

static uint32_t state;
static char **texts; /* all that were ever expected */
static size_t text_count;
static struct {
    size_t recovered, replayed, missed, unknown, expired, slow, lost_first, taken_over;
} seen;

static uint32_t draw(uint32_t below)
{
    return (next_random(&state) >> 4) % below;
}

static const char *keep_text(const char *text)
{
    if ((text_count & (text_count - 1)) == 0) {
        texts = realloc(texts, (text_count ? 2 * text_count : 1) * sizeof *texts);
        if (!texts)
            abort();
    }
    texts[text_count] = strdup(text);
    return texts[text_count++];
}

static void expect_text(struct model_client *client, const char *text)
{
    if (client->count == client->room) {
        client->room = client->room ? 2 * client->room : 64;
        client->expected = realloc(client->expected, client->room * sizeof *client->expected);
        if (!client->expected)
            abort();
    }
    client->expected[client->count++] = text;
}

/* What the members of a group get, except one, or except the client that it is about. */
static void expect_in_group(int group, const char *text, const struct model_client *except)
{
    for (int i = 0; i < CLIENTS; i++)
        if (clients[i].id[0] && clients[i].in[group] && &clients[i] != except)
            expect_text(&clients[i], text);
}

static const char *notice_of(const struct model_client *client, int group, bool joins)
{
    return keep_text(textf("{\"code\":%d,\"msg\":\"client %s\",\"data\":{\"clientId\":\"%s\","
                           "\"userId\":\"\",\"extend\":\"\",\"groupName\":\"g%d\"}}",
                           joins ? 1001 : 1002, joins ? "online" : "offline", client->id, group));
}

/* A client ends for good: the others are told, in the order in which it leaves its groups. */
static void expect_end(struct model_client *client, const struct client *real)
{
    for (uint32_t i = real->subscription_count; i-- > 1;) {
        int group = real->subscriptions[i].channel->name[1] - '0';

        client->in[group] = false;
        expect_in_group(group, notice_of(client, group, false), client);
    }
    client->id[0] = '\0';
    client->is_away = false;
}

static struct client *real_client(const struct model_client *client)
{
    uint64_t number = 0;

    CHECK(hub_read_id(&node.hub, quoted(str_from(client->id)), &number));
    return channel_find_client(&node.hub.channels, number);
}

/* --- the model: frames ----------------------------------------------------------------------- */

static void take_first(struct model_client *client, struct str text)
{
    struct str recovered = value_of(text, "recovered"), resumed = value_of(text, "resumed");
    struct str missed = value_of(text, "missed"), replay = value_of(text, "replay");
    struct str id = value_of(text, "clientId"), key = value_of(text, "resume");
    uint64_t count = 0;

    client->has_first = true;
    CHECK(key.length == HUB_ID_LENGTH + RESUME_SECRET_TEXT && id.length == HUB_ID_LENGTH);
    snprintf(client->key, sizeof client->key, "%.*s", (int)key.length, key.at);
    CHECK(client->resumes ? str_equal(resumed, client->was_lost ? STR("false") : STR("true"))
                          : !resumed.length);
    CHECK(same(id, str_from(client->id)));
    if (!client->resumes || client->was_lost)
        return;
    if (str_equal(recovered, STR("true"))) {
        CHECK(str_number(replay, UINT64_MAX, &count));
        seen.recovered++;
        seen.replayed += count;
        return;
    }
    CHECK(str_equal(recovered, STR("false")) && str_number(missed, UINT64_MAX, &count));
    seen.missed++;
    CHECK(count > 0 && client->got + count <= client->count);
    client->got += count; /* the page loads its state anew */
    client->base = client->got;
}

/* Lets a client receive at most `most` bytes, and take the frames that are whole. */
static void receive(struct model_client *client, size_t most)
{
    static char room[BYTES_MAX];
    struct far_frame frame;
    struct buf *in = &client->link->far.received;
    size_t length;
    ssize_t n;

    while (most &&
           (n = recv(client->link->far.fd, room, most < BYTES_MAX ? most : BYTES_MAX, 0)) > 0) {
        most -= (size_t)n;
        buf_append(in, (struct str){room, (size_t)n});
        if (client->link->conn.want_write)
            conn_writable(&client->link->conn);
    }
    while ((length = read_far_frame(str_of(in), &frame))) {
        if (frame.opcode == WS_TEXT && !client->has_first)
            take_first(client, frame.payload);
        else if (frame.opcode == WS_TEXT)
            CHECK(client->got < client->count &&
                  same(frame.payload, str_from(client->expected[client->got++])));
        buf_consume(in, length);
    }
}

/* --- the model: what happens ----------------------------------------------------------------- */

static void close_link(struct link *link)
{
    if (link->far.fd < 0)
        return;
    CHECK(!link->conn.client);
    conn_kill(&link->conn);
    flush();
    conn_close(&link->conn);
    far_close(&link->far);
}

/* Has a client use its other link, as a new connection. */
static void open_link(struct model_client *client)
{
    client->link = &client->links[client->link == client->links];
    conn_open(&client->link->conn, far_open(&client->link->far), &node.shared);
    client->has_first = false;
}

static void do_command(struct command command)
{
    struct result result = {0};

    command.system = STR("shop");
    hub_apply(&node.hub, &command, &result);
    buf_free(&result.list);
    CHECK(result.code == RESULT_SUCCESS ||
          same(str_from(result.error), STR("away, and too much was sent to it")));
}

/* A client that is new, or has ended. One whose first frame was lost is closed, for nobody knows
 * of it. */
static void connect_new(struct model_client *client, bool was_lost)
{
    struct ticket_claims claims = {.system = STR("shop"),
                                   .resume = was_lost ? CLAIMS_RESUME_LOST : CLAIMS_RESUME};
    struct str id;

    if (client->id[0]) {
        struct command command = {.kind = COMMAND_CLOSE_CLIENT,
                                  .client = quoted(str_from(client->id)),
                                  .close_code = 1000};

        expect_end(client, real_client(client));
        do_command(command);
        flush();
    }
    open_link(client);
    client->resumes = client->was_lost = was_lost;
    CHECK(hub_connect(&node.hub, &client->link->conn, &claims));
    id = channel_client_id(client->link->conn.client);
    snprintf(client->id, sizeof client->id, "%.*s", (int)id.length, id.at);
    client->base = client->got = client->count; /* nothing of before is for it */
    client->is_away = false;
}

/* A client tries to come back, or to take itself over, with the last key that it has learnt. */
static void come_back(struct model_client *client)
{
    struct link *before = client->link;
    bool knows_key = client->key[0] != '\0';
    uint64_t key = 0;
    struct client *found =
        knows_key ? hub_resume_find(&node.hub, str_from(client->key), &key) : NULL;

    CHECK(!found == !(client->id[0] && strncmp(client->key, client->id, HUB_ID_LENGTH) == 0));
    seen.lost_first += before->far.fd >= 0 && !client->has_first;
    if (found) {
        open_link(client);
        seen.taken_over += before->far.fd >= 0 && before->conn.client;
        client->resumes = true;
        client->was_lost = client->is_away = false;
        CHECK(hub_resume_client(&node.hub, found, &client->link->conn, key,
                                client->got - client->base));
    } else {
        seen.unknown += knows_key;
        connect_new(client, knows_key);
    }
    close_link(before);
}

/* Cuts a connection behind some bytes. */
static void cut(struct model_client *client, enum hub_end how)
{
    if (client->link->far.fd < 0 || !client->link->conn.client)
        return;
    flush();
    if (how == HUB_END_PEER)
        receive(client, BYTES_MAX);
    if (how == HUB_END_PEER)
        expect_end(client, client->link->conn.client);
    hub_end_client(&node.hub, client->link->conn.client, how, WS_CLOSE_ABNORMAL, STR("cut"));
    if (how != HUB_END_PEER) {
        client->is_away = true;
        client->since = node.hub.now_ms;
        client->asleep_until = node.hub.now_ms + (draw(6) ? 0 : (int)draw(1500));
    }
    receive(client, draw(4) ? draw(200) : draw(3000));
    close_link(client->link);
}

static void change_group(struct model_client *client, int group)
{
    bool joins = !client->in[group];

    do_command((struct command){.kind = joins ? COMMAND_BIND : COMMAND_UNBIND,
                                .client = quoted(str_from(client->id)),
                                .group = str_from(textf("g%d", group))});
    client->in[group] = joins;
    expect_in_group(group, notice_of(client, group, joins), NULL);
}

/* Sends a message to a client, a group (perhaps without one client), or all. */
static void send_one(struct model_client *client, int group)
{
    static unsigned number;
    struct command command = {.kind = COMMAND_SEND_TO_SYSTEM, .code = 1, .msg = STR("\"m\"")};
    bool excludes = draw(3) == 0;
    static char padding[400];
    const char *text;

    memset(padding, 'x', sizeof padding - 1);
    command.data = str_from(textf("\"%u %.*s\"", number++, draw(8) ? 5 : (int)draw(399), padding));
    text = keep_text(textf("{\"code\":1,\"msg\":\"m\",\"data\":%s}", command.data.at));
    switch (draw(5)) {
    case 0:
        for (int i = 0; i < CLIENTS; i++)
            if (clients[i].id[0])
                expect_text(&clients[i], text);
        break;
    case 1:
        command.kind = COMMAND_SEND_TO_CLIENT;
        command.client = quoted(str_from(client->id));
        expect_text(client, text);
        break;
    default:
        command.kind = COMMAND_SEND_TO_GROUP;
        command.group = str_from(textf("g%d", group));
        if (excludes)
            command.clients = str_from(textf("[\"%s\"]", client->id));
        expect_in_group(group, text, excludes ? client : NULL);
    }
    do_command(command);
}

/* A client's socket takes no more, and it is sent to until it is closed for that. */
static void be_slow(struct model_client *client)
{
    struct result result = {0};

    if (client->link->far.fd < 0 || !client->link->conn.client)
        return;
    flush();
    client->link->conn.want_write = true;
    node.config.send_queue = 1;
    for (int i = 0; i < 2; i++) {
        expect_text(client, keep_text("{\"code\":2,\"msg\":\"m\",\"data\":0}"));
        hub_apply(&node.hub,
                  &(struct command){.kind = COMMAND_SEND_TO_CLIENT,
                                    .system = STR("shop"),
                                    .client = quoted(str_from(client->id)),
                                    .code = 2,
                                    .msg = STR("\"m\""),
                                    .data = STR("0")},
                  &result);
        CHECK(result.code == (i ? RESULT_OFFLINE : RESULT_SUCCESS));
    }
    node.config.send_queue = 1024 * 1024;
    client->link->conn.want_write = false;
    CHECK(!client->link->conn.client);
    seen.slow++;
    client->is_away = true;
    client->since = node.hub.now_ms;
    receive(client, draw(300));
    close_link(client->link);
}

/* The clients whose time is over end, as they would have when they were lost. */
static void pass_time(void)
{
    struct model_client *longest = NULL;

    node.hub.now_ms++;
    for (int i = 0; i < CLIENTS; i++)
        if (clients[i].is_away && (!longest || clients[i].since < longest->since))
            longest = &clients[i];
    CHECK(hub_resume_deadline(&node.hub) == (longest ? longest->since + 1000 : INT64_MAX));
    if (longest && longest->since + 1000 <= node.hub.now_ms) {
        expect_end(longest, real_client(longest));
        seen.expired++;
    }
    CHECK(!hub_resume_expire(&node.hub, CLIENTS));
}

static void step(void)
{
    struct model_client *client = &clients[draw(CLIENTS)];
    bool is_connected = client->link->far.fd >= 0 && client->link->conn.client;
    struct resume *resume = is_connected ? channel_resume(client->link->conn.client) : NULL;

    pass_time();
    flush();
    switch (draw(16)) {
    case 0:
        if (client->id[0])
            change_group(client, (int)draw(GROUPS));
        break;
    case 1:
        cut(client, draw(12) ? draw(3) ? HUB_END_LOST : HUB_END_SILENT : HUB_END_PEER);
        break;
    case 2:
        if (draw(60) == 0)
            be_slow(client);
        break;
    case 3:
    case 4:
        if (is_connected ? draw(20) == 0 : node.hub.now_ms >= client->asleep_until)
            come_back(client);
        break;
    case 5:
        if (is_connected && client->has_first) {
            resume_confirm(resume); /* as for each message of a client */
            CHECK(resume_ack(&node.hub.channels.resumes, resume, client->got - client->base));
            CHECK(
                !resume_ack(&node.hub.channels.resumes, resume, client->count - client->base + 1));
        }
        break;
    case 6:
    case 7:
    case 8:
        if (client->link->far.fd >= 0)
            receive(client, draw(3) ? BYTES_MAX : draw(300));
        break;
    default:
        if (client->id[0])
            send_one(client, (int)draw(GROUPS));
    }
    flush();
}

/* All come back, read what is there, and have received or been told of everything. */
static void settle(void)
{
    for (int i = 0; i < CLIENTS; i++) {
        if (clients[i].link->far.fd < 0 || !clients[i].link->conn.client || draw(2))
            come_back(&clients[i]);
        flush();
        receive(&clients[i], BYTES_MAX);
    }
    for (int i = 0; i < CLIENTS; i++) {
        receive(&clients[i], BYTES_MAX);
        CHECK(clients[i].got == clients[i].count);
    }
}

static unsigned long steps = 200000;

static void clients_receive_all_or_know_it(void)
{
    node_open();
    node.config.linger = 1;
    node.config.resume_frames = 24;
    node.config.resume_bytes = 2000;
    node.config.resume_memory = 5000;
    memset(clients, 0, sizeof clients);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i].link = clients[i].links;
        clients[i].links[0].far.fd = clients[i].links[1].far.fd = -1;
    }
    for (unsigned long i = 0; i < steps && test_good; i++) {
        step();
        if (i % 5000 == 4999)
            settle();
    }
    printf("  recovered %zu (%zu replayed), missed %zu, unknown %zu, expired %zu, slow %zu, first "
           "frame lost %zu, taken over %zu\n",
           seen.recovered, seen.replayed, seen.missed, seen.unknown, seen.expired, seen.slow,
           seen.lost_first, seen.taken_over);
    CHECK(seen.taken_over && seen.recovered && seen.replayed && seen.missed && seen.unknown &&
          seen.expired && seen.slow && seen.lost_first);
    for (unsigned i = 0; i < RESUME_GAP_MOVED; i++)
        CHECK(node.hub.channels.resumes.gaps[i] > 0);
    for (int i = 0; i < CLIENTS; i++) {
        cut(&clients[i], HUB_END_PEER);
        close_link(clients[i].link);
        free(clients[i].expected);
    }
    node.config.linger = 0;
    while (hub_resume_expire(&node.hub, CLIENTS))
        ;
    flush();
    CHECK(node.hub.channels.resumes.memory == 0 && node.hub.channels.resumes.count == 0);
    for (size_t i = 0; i < text_count; i++)
        free(texts[i]);
    free(texts);
    node_close();
}

/* --- a crowd --------------------------------------------------------------------------------- */

#define CROWD 20000
#define CROWD_MESSAGES 60

static char crowd_keys[CROWD][RESUME_KEY_MAX];

/* All use one socket, one after the other, and are away then. */
static void send_crowd_away(struct conn *conn)
{
    struct ticket_claims claims = {.system = STR("shop"), .resume = CLAIMS_RESUME};

    for (int i = 0; i < CROWD; i++) {
        struct buf key = BUF_INIT(crowd_keys[i]);

        CHECK(hub_connect(&node.hub, conn, &claims));
        resume_write_key(channel_resume(conn->client), channel_client_id(conn->client), &key);
        hub_end_client(&node.hub, conn->client, HUB_END_LOST, WS_CLOSE_ABNORMAL, STR("test"));
        conn_drop_queue(conn);
    }
}

/* Twenty thousand are away, and are sent more than `memory` has room for: it is kept to, and each
 * gets all or knows that it has not. */
static void a_crowd_away_keeps_to_the_memory(void)
{
    struct test_client one_socket;
    const struct resumes *all = &node.hub.channels.resumes;
    uint64_t most = 0;
    size_t recovered = 0;

    node_open();
    node.log.level = LOG_ERROR;
    node.config.resume_memory = 4 * 1024 * 1024;
    conn_open(&one_socket.conn, far_open(&one_socket.far), &node.shared);
    send_crowd_away(&one_socket.conn);
    for (int i = 0; i < CROWD_MESSAGES; i++) {
        do_command(
            (struct command){.kind = COMMAND_SEND_TO_SYSTEM, .msg = STR("\"\""), .data = STR("1")});
        most = all->memory > most ? all->memory : most;
    }
    CHECK(all->away == CROWD && most <= node.config.resume_memory && most > 3000000);
    for (int i = 0; i < CROWD; i++) {
        uint64_t key = 0;
        struct client *client = hub_resume_find(&node.hub, str_from(crowd_keys[i]), &key);
        struct resume_answer answer = resume_judge(channel_resume(client), key, 0);

        recovered += answer.recovered;
        CHECK(answer.count == CROWD_MESSAGES &&
              answer.recovered == (channel_resume(client)->kept == CROWD_MESSAGES));
    }
    CHECK(recovered > 1000 && recovered < CROWD);
    CHECK(all->gaps[RESUME_GAP_MEMORY] == CROWD - recovered);
    node.hub.now_ms += 60000;
    for (int i = 0; i < CROWD && hub_resume_expire(&node.hub, CROWD); i++)
        CHECK(all->away % 128 == CROWD % 128); /* a batch an iteration */
    CHECK(all->memory == 0 && all->count == 0);
    conn_kill(&one_socket.conn);
    flush();
    conn_close(&one_socket.conn);
    far_close(&one_socket.far);
    node_close();
}

int main(int argc, char **argv)
{
    static const struct test tests[] = {TEST(nothing_was_sent, 8),
                                        TEST(recovery_is_arithmetic, 8),
                                        TEST(the_oldest_go_while_connected, 8),
                                        TEST(too_much_for_one_that_is_away, 8),
                                        TEST(too_many_bytes_for_one_that_is_away, 8),
                                        TEST(memory_is_counted_once, 8),
                                        TEST(memory_has_a_limit, 8),
                                        TEST(counting_begins_anew_after_a_gap, 8),
                                        TEST(the_answer_to_a_gap_is_lost, 8),
                                        TEST(keys_are_good_once, 8),
                                        TEST(keys_are_texts, 8),
                                        TEST(those_away_stand_in_order, 8)};

    test_run_all(tests, COUNT(tests), begin, end);
    if (argc > 1)
        steps = strtoul(argv[1], NULL, 10);
    state = argc > 2 ? (uint32_t)strtoul(argv[2], NULL, 10) : (uint32_t)time(NULL) | 1;
    printf("  seed %lu\n", (unsigned long)state);
    test_run("a crowd that is away keeps to the memory", a_crowd_away_keeps_to_the_memory);
    test_run("clients receive all, or know that they have not", clients_receive_all_or_know_it);
    return test_finish();
}
