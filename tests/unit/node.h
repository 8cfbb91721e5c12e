/* node.h - for the tests of hub, api and session: the parts of a node without a loop, the far ends
 * of its connections, and a reader of the frames that arrive there. */
#ifndef WSPUSH_TEST_NODE_H
#define WSPUSH_TEST_NODE_H

#include "account.h"
#include "api.h"
#include "config.h"
#include "conn.h"
#include "crypto.h"
#include "os.h"
#include "hub.h"
#include "log.h"
#include "table.h"

#include "test.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define UNIX_NOW 1700000000
#define TIMEOUT 10000 /* milliseconds after which a test gives up */

/* Compares, and prints both if they differ. */
static inline bool same(struct str got, struct str expected)
{
    if (str_equal(got, expected))
        return true;
    printf("  expected %zu bytes: %.*s\n  got %zu bytes: %.*s\n", expected.length,
           expected.length < 2000 ? (int)expected.length : 2000, expected.at ? expected.at : "",
           got.length, got.length < 2000 ? (int)got.length : 2000, got.at ? got.at : "");
    return false;
}

static inline bool contains(struct str text, const char *part)
{
    size_t length = strlen(part);

    for (size_t i = 0; i + length <= text.length; i++)
        if (memcmp(text.at + i, part, length) == 0)
            return true;
    printf("  no \"%s\" in: %.*s\n", part, (int)text.length, text.at ? text.at : "");
    return false;
}

/* --- the far end of a connection ------------------------------------------------------------- */

struct far_end {
    int fd;
    struct buf received;
    size_t taken; /* bytes of it that the test has read */
    bool ended;   /* the near end has closed */
};

/* Makes a pair of non-blocking sockets; returns the near one. */
static inline int far_open(struct far_end *far)
{
    int ends[2] = {-1, -1};

    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    for (int i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    *far = (struct far_end){.fd = ends[1]};
    return ends[0];
}

static inline void far_close(struct far_end *far)
{
    if (far->fd >= 0)
        close(far->fd);
    far->fd = -1;
    buf_free(&far->received);
}

/* Receives what has arrived; returns what the test has not read yet. */
static inline struct str far_receive(struct far_end *far)
{
    static char room[65536];
    ssize_t n;

    buf_consume(&far->received, far->taken);
    far->taken = 0;
    while ((n = recv(far->fd, room, sizeof room, 0)) > 0)
        buf_append(&far->received, (struct str){room, (size_t)n});
    far->ended |= n == 0;
    return str_of(&far->received);
}

static inline bool far_send(const struct far_end *far, struct str bytes)
{
    return send(far->fd, bytes.at, bytes.length, 0) == (ssize_t)bytes.length;
}

/* A frame as servers send it: final, and not masked. */
struct far_frame {
    unsigned opcode;
    struct str payload;
};

/* Reads the frame at the front of `bytes`; returns its length, or 0 if it is not whole. */
static inline size_t read_far_frame(struct str bytes, struct far_frame *frame)
{
    const unsigned char *at = (const unsigned char *)bytes.at;
    size_t length, extended, header;

    if (bytes.length < 2)
        return 0;
    CHECK((at[0] & 0xf0) == 0x80 && !(at[1] & 0x80));
    extended = at[1] == 127 ? 8 : at[1] == 126 ? 2 : 0;
    header = 2 + extended;
    if (bytes.length < header)
        return 0;
    length = extended ? 0 : at[1];
    for (size_t i = 0; i < extended; i++)
        length = length << 8 | at[2 + i];
    if (bytes.length - header < length)
        return 0;
    *frame = (struct far_frame){at[0] & 15u, {bytes.at + header, length}};
    return header + length;
}

/* Takes the next frame; its payload is valid until the next call. */
static inline bool far_next(struct far_end *far, struct far_frame *frame)
{
    struct str rest = {far->received.at, far->received.length};

    if (rest.length > far->taken)
        rest = (struct str){rest.at + far->taken, rest.length - far->taken};
    else
        rest.length = 0;
    if (!read_far_frame(rest, frame) && !read_far_frame(far_receive(far), frame))
        return false;
    far->taken = (size_t)(frame->payload.at - far->received.at) + frame->payload.length;
    return true;
}

static inline bool got_frame(struct far_end *far, unsigned opcode, struct str payload)
{
    struct far_frame frame = {0};

    if (!far_next(far, &frame)) {
        printf("  expected a frame %u, got none: %.*s\n", opcode, (int)(payload.length % 2000),
               payload.at ? payload.at : "");
        return false;
    }
    if (frame.opcode != opcode)
        printf("  expected a frame %u, got one %u\n", opcode, frame.opcode);
    return same(frame.payload, payload) && frame.opcode == opcode;
}

static inline bool got_text(struct far_end *far, const char *text)
{
    return got_frame(far, 1, str_from(text));
}

static inline bool got_close(struct far_end *far, unsigned code, const char *reason)
{
    char payload[125] = {(char)(code >> 8), (char)(code & 0xff)};
    size_t length = strlen(reason);

    memcpy(payload + 2, reason, length);
    return got_frame(far, 8, (struct str){payload, 2 + length});
}

/* True if the test has read all that has arrived. */
static inline bool got_nothing(struct far_end *far)
{
    return same(far_receive(far), (struct str){0});
}

/* Drops what has arrived. */
static inline void far_forget(struct far_end *far)
{
    far->taken = far_receive(far).length;
}

/* The value of a member in JSON that is flat, without quotes; empty if it is not there. */
static inline struct str value_of(struct str text, const char *name)
{
    const char *wanted = textf("\"%s\":", name);
    size_t length = strlen(wanted);

    for (size_t i = 0; i + length < text.length; i++)
        if (memcmp(text.at + i, wanted, length) == 0) {
            struct str rest = str_skip(text, i + length);
            char end = rest.at[0] == '"' ? '"' : ',';

            if (end == '"')
                rest = str_skip(rest, 1);
            rest = str_cut(&rest, end);
            return str_cut(&rest, '}');
        }
    return (struct str){0};
}

/* --- the node -------------------------------------------------------------------------------- */

struct node {
    struct config config; /* the defaults, which a test may change */
    struct log log;
    struct crypto_keyring keys;
    struct hub hub;
    struct accounts *accounts;
    struct api api;
    struct conn_shared shared;
    int wake[2];
    char folder[32];
};

static struct node node;

static inline void node_open(void)
{
    char error[200] = "";

    memset(&node, 0, sizeof node);
    signal(SIGPIPE, SIG_IGN);
    config_defaults(&node.config);
    node.log = (struct log){.file = tmpfile(), .level = LOG_INFO};
    strcpy(node.folder, "/tmp/wspush-unit.XXXXXX");
    if (!node.log.file || pipe(node.wake) != 0 || !mkdtemp(node.folder))
        abort();
    setvbuf(node.log.file, NULL, _IONBF, 0);
    for (int i = 0; i < 2; i++)
        fcntl(node.wake[i], F_SETFL, O_NONBLOCK);
    /* one iteration of PBKDF2: tests here need no strong hashes */
    node.accounts = account_open(node.folder, node.wake[1], 1, error, sizeof error);
    CHECK(same(str_from(node.accounts ? "" : error), (struct str){0}));
    node.keys.count = 0;
    CHECK(crypto_add_key(&node.keys, STR("0123456789abcdef"), false));
    CHECK(hub_open(&node.hub, &node.config, &node.log));
    node.hub.now = UNIX_NOW;
    node.api = (struct api){.config = &node.config,
                            .keys = &node.keys,
                            .hub = &node.hub,
                            .accounts = node.accounts,
                            .seed = 1};
}

/* Frees everything; checks that no client and nothing of one is left. */
static inline void node_close(void)
{
    CHECK(node.hub.channels.clients.count == 0 && node.hub.channels.names.count == 0 &&
          !node.hub.channels.slow.first);
    CHECK(!node.hub.channels.notified.first);
    CHECK(!conn_next_dirty(&node.shared));
    roster_close(&node.hub);
    hub_close(&node.hub);
    api_free(&node.api);
    account_close(node.accounts);
    fclose(node.log.file);
    close(node.wake[0]);
    close(node.wake[1]);
    unlink(textf("%s/accounts", node.folder));
    CHECK(rmdir(node.folder) == 0);
}

/* Waits for the result of an account job. */
static inline bool node_await(struct account_result *result)
{
    struct pollfd wake = {node.wake[0], POLLIN, 0};
    char bytes[64];
    bool done = account_take_result(node.accounts, result);

    while (!done && poll(&wake, 1, TIMEOUT) > 0) {
        CHECK(read(node.wake[0], bytes, sizeof bytes) > 0);
        done = account_take_result(node.accounts, result);
    }
    return CHECK(done);
}

/* Registers a system, past the API. */
static inline void node_register(struct str system, struct str password)
{
    struct account_request request = {
        .kind = ACCOUNT_REGISTER, .name = system, .password = password};
    struct account_result result = {0};

    CHECK(account_submit(node.accounts, &request) == ACCOUNT_SUBMITTED);
    CHECK(node_await(&result) && result.outcome == ACCOUNT_DONE);
}

/* The generation of a system, derived from the salt in the accounts file. */
static inline uint64_t node_generation(struct str system)
{
    struct buf text = {0};
    struct str rest, line, salt = {0};
    unsigned char bytes[CRYPTO_SALT_SIZE] = {0}, hash[CRYPTO_HASH_SIZE];
    uint64_t generation = 0;

    CHECK(os_read_file(textf("%s/accounts", node.folder), &text) == 0);
    for (rest = str_of(&text); rest.length;) {
        line = str_cut(&rest, '\n');
        str_cut(&line, ' ');
        str_cut(&line, ' ');
        salt = str_cut(&line, ' ');
        str_cut(&line, ' ');
        if (str_equal(line, system))
            break;
    }
    CHECK(str_read_hex(salt, bytes, sizeof bytes));
    CHECK(crypto_sha256((struct str){(const char *)bytes, sizeof bytes}, hash));
    for (int i = 0; i < 8; i++)
        generation = generation << 8 | hash[i];
    buf_free(&text);
    return generation;
}

/* True if the log has this text. */
static inline bool node_logged(const char *text)
{
    static char room[65536];
    size_t length;

    rewind(node.log.file);
    length = fread(room, 1, sizeof room, node.log.file);
    fseek(node.log.file, 0, SEEK_END);
    return contains((struct str){room, length}, text);
}

/* Runs the walk that was begun, and makes its response. False if there is none. */
static inline bool node_walk(struct api_response *response)
{
    struct roster_walk *walk;

    while (roster_run(&node.hub))
        ;
    walk = roster_take(&node.hub);
    if (!walk)
        return false;
    CHECK(walk->id == 77);
    api_finish_command(
        &(struct cluster_result){.command = walk->command.kind, .result = walk->result}, response);
    roster_free(walk);
    return true;
}

/* Finds two names of systems with the same hash (the key is a fixed one); NULL if there are none.
 */
static inline void find_collision(const struct channels *channels, const char *found[2])
{
    static char names[200000][8];
    struct table table = {0};

    found[0] = NULL;
    for (size_t i = 0; i < COUNT(names) && !found[0]; i++) {
        struct table_cursor cursor = {0};

        snprintf(names[i], sizeof names[i], "%zu", i);
        cursor.hash = channel_hash(channels, CHANNEL_SYSTEM, 0, str_from(names[i]));
        found[0] = table_next(&table, &cursor);
        found[1] = names[i];
        CHECK(table_add(&table, cursor.hash, names[i]));
    }
    table_free(&table);
}

/* --- clients of the hub, without a session --------------------------------------------------- */

struct test_client {
    struct conn conn;
    struct far_end far;
    char id[HUB_ID_TEXT + 1];
};

static inline struct str id_of(const struct test_client *visitor)
{
    return str_from(visitor->id);
}

/* An id as a JSON string; valid until eight more were made. */
static inline struct json_value quoted(struct str id)
{
    static char rooms[8][80];
    static size_t next;
    char *room = rooms[next++ % 8];

    snprintf(room, sizeof rooms[0], "\"%.*s\"", (int)id.length, id.length ? id.at : "");
    return (struct json_value){JSON_STRING, str_from(room)};
}

/* Flushes connections without a session. */
static inline void send_queued(void)
{
    struct conn *conn;

    while ((conn = conn_next_dirty(&node.shared)))
        conn_flush(conn);
}

/* Sends pending notices, and flushes. */
static inline void flush(void)
{
    while (hub_flush_notices(&node.hub, SIZE_MAX))
        ; /* clients found slow leave, which makes notices */
    send_queued();
}

/* Reads the id from the first frame. */
static inline bool got_id_frame(struct far_end *far, char id[HUB_ID_TEXT + 1])
{
    static const char before[] = "{\"code\":0,\"msg\":\"success\",\"data\":{\"clientId\":\"";
    struct far_frame frame = {0};

    memset(id, 0, HUB_ID_TEXT + 1);
    if (!far_next(far, &frame) || frame.payload.length < sizeof before + 2 ||
        frame.payload.length > sizeof before + 2 + HUB_ID_TEXT)
        return false;
    memcpy(id, frame.payload.at + sizeof before - 1, frame.payload.length - sizeof before - 2);
    return same(frame.payload, str_from(textf("%s%s\"}}", before, id))) && frame.opcode == 1;
}

/* Connects a client from 127.0.0.1 and reads its id. */
static inline void arrive(struct test_client *visitor, struct str system)
{
    static const unsigned char local[16] = {
        [10] = 0xff, [11] = 0xff, [12] = 127, [13] = 0, [14] = 0, [15] = 1};

    conn_open(&visitor->conn, far_open(&visitor->far), &node.shared);
    memcpy(visitor->conn.address, local, sizeof local);
    CHECK(hub_connect(&node.hub, &visitor->conn, &(struct ticket_claims){.system = system}));
    flush();
    CHECK(got_id_frame(&visitor->far, visitor->id));
}

/* Ends the client, if it has not ended. */
static inline void leave(struct test_client *visitor)
{
    if (visitor->conn.client)
        hub_end_client(&node.hub, visitor->conn.client, HUB_END_LOST, WS_CLOSE_ABNORMAL,
                       STR("test"));
    flush();
}

static inline void depart(struct test_client *visitor)
{
    leave(visitor);
    conn_kill(&visitor->conn);
    flush();
    conn_close(&visitor->conn);
    far_close(&visitor->far);
}

#endif
