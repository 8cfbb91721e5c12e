/* test_scarce.c - memory runs out at every allocation of a connection's life. Each life runs
 * against a real loop on 127.0.0.1, and each time the next of its allocations fails, alone or with
 * all later ones of its step. The call under way may fail: it is answered 503, or its connection
 * ends. Other connections must not notice, the same call must work once there is memory, the lists
 * must show who is there, and nothing may leak or hang. */
#include "node.h"

#include "os.h"
#include "scarce.h"
#include "server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

/* --- memory that runs out -------------------------------------------------------------------- */

bool __real_crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                                 unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE]);
bool __wrap_crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                                 unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE]);

static _Thread_local bool is_tester; /* its own allocations are not the node's */
static atomic_bool counting;
static bool fails_on;        /* what follows the one that fails, does so too */
static long fails_at;        /* the number of the allocation that fails */
static atomic_long made;     /* allocations of this life */
static atomic_long failures; /* that were refused */

static bool scarce_refuses(void)
{
    long number;

    if (is_tester || !atomic_load(&counting))
        return false;
    number = atomic_fetch_add(&made, 1) + 1;
    if (fails_on ? number < fails_at : number != fails_at)
        return false;
    atomic_fetch_add(&failures, 1);
    return true;
}

/* What hashing costs is not tested here. */
bool __wrap_crypto_hash_password(struct str password, const unsigned char salt[CRYPTO_SALT_SIZE],
                                 unsigned iterations, unsigned char hash[CRYPTO_HASH_SIZE])
{
    (void)iterations;
    return __real_crypto_hash_password(password, salt, 1, hash);
}

/* --- the node -------------------------------------------------------------------------------- */

static struct {
    struct config config;
    struct log log;
    struct crypto_keyring keys;
    struct server server;
    pthread_t thread;
    volatile sig_atomic_t stops, calls;
    uint16_t port;
} process;

static char folder[200];
static struct buf accounts; /* the file of accounts with which each life begins */

/* Writes that file, so that the table of accounts has to grow for the next one. */
static void put_accounts(void)
{
    FILE *file = fopen(textf("%s/accounts", folder), "wb");

    CHECK(file && fwrite(accounts.at, 1, accounts.length, file) == accounts.length);
    if (file)
        fclose(file);
}

static size_t lines_of(struct str text)
{
    size_t count = 0;

    while (text.length) {
        str_cut(&text, '\n');
        count++;
    }
    return count;
}

static void *serve(void *argument)
{
    (void)argument;
    CHECK(!loop_run(process.server.loop));
    return NULL;
}

static int listen_somewhere(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0), size = 32768;

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof size); /* slow clients are found soon */
    CHECK(bind(fd, (struct sockaddr *)&address, sizeof address) == 0 && listen(fd, 64) == 0 &&
          getsockname(fd, (struct sockaddr *)&address, &length) == 0);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    process.port = ntohs(address.sin_port);
    return fd;
}

static void node_start(void)
{
    char error[200] = "";

    memset(&process, 0, sizeof process);
    config_defaults(&process.config);
    process.config.drain = 0;
    process.config.send_queue = 256 * 1024;
    process.config.max_per_ip = 1000; /* for what counting them allocates */
    process.config.api_rate = 1000000;
    snprintf(process.config.data_dir, sizeof process.config.data_dir, "%s", folder);
    process.log = (struct log){.file = tmpfile(), .level = LOG_INFO};
    CHECK(process.log.file && crypto_add_key(&process.keys, STR("0123456789abcdef"), false));
    process.server = (struct server){
        .config = &process.config,
        .log = &process.log,
        .keys = &process.keys,
        .version = "test",
        .most_connections = 100,
        .listener = {.clients = listen_somewhere(), .admin = -1, .max_connections = 100},
        .links = -1,
        .stops = &process.stops,
        .calls = &process.calls};
    CHECK(os_wake_pipe(process.server.wake));
    if (!server_open(&process.server, error, sizeof error)) {
        printf("  %s\n", error);
        abort();
    }
    CHECK(pthread_create(&process.thread, NULL, serve, NULL) == 0);
}

static int64_t now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Everybody has gone: the loop must see that, and not wait for somebody until its grace is over. */
static void node_stop(void)
{
    int64_t begin = now();

    process.stops = 1;
    CHECK(write(process.server.wake[1], "s", 1) == 1);
    pthread_join(process.thread, NULL);
    CHECK(now() - begin < 1900); /* its grace is 2000 */
    server_close(&process.server);
    for (int i = 0; i < 2; i++)
        close(process.server.wake[i]);
    fclose(process.log.file);
}

/* --- those connected to it ------------------------------------------------------------------- */

#define CODES 64

struct peer {
    struct far_end far;
    char id[HUB_ID_LENGTH + 1]; /* a client's */
    unsigned seen[CODES];       /* how many frames of each code up to that have come */
    unsigned notices[2];        /* of 1001 and 1002 */
    unsigned pongs, control_pongs;
    unsigned close_code; /* of the close frame that has come */
};

static bool is_there(const struct peer *peer)
{
    return peer->far.fd >= 0 && !peer->far.ended && !peer->close_code;
}

static void hang_up(struct peer *peer)
{
    if (peer->far.fd < 0)
        return;
    far_close(&peer->far);
    *peer = (struct peer){.far.fd = -1};
}

static void dial(struct peer *peer, int receive_size)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(process.port)};
    int one = 1;

    hang_up(peer);
    *peer = (struct peer){.far.fd = socket(AF_INET, SOCK_STREAM, 0)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (receive_size)
        setsockopt(peer->far.fd, SOL_SOCKET, SO_RCVBUF, &receive_size, sizeof receive_size);
    CHECK(connect(peer->far.fd, (struct sockaddr *)&address, sizeof address) == 0);
    setsockopt(peer->far.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(peer->far.fd, F_SETFL, O_NONBLOCK);
}

/* Waits up to `patience` milliseconds for something to come; false if nothing did. */
static bool receive(struct peer *peer, int patience)
{
    struct pollfd ready = {peer->far.fd, POLLIN, 0};
    char byte;

    if (peer->far.ended || poll(&ready, 1, patience) <= 0)
        return false;
    if (recv(peer->far.fd, &byte, 1, MSG_PEEK) <= 0) /* also when it was reset */
        peer->far.ended = true;
    else
        far_receive(&peer->far);
    return true;
}

static void transmit(struct peer *peer, struct str bytes)
{
    while (bytes.length) {
        struct pollfd ready = {peer->far.fd, POLLOUT, 0};
        ssize_t n = send(peer->far.fd, bytes.at, bytes.length, 0);

        if (n > 0)
            bytes = (struct str){bytes.at + n, bytes.length - (size_t)n};
        else if (errno != EAGAIN || !CHECK(poll(&ready, 1, TIMEOUT) > 0))
            return; /* it has ended, as reading will tell */
    }
}

static void note_frame(struct peer *peer, const struct far_frame *frame)
{
    char text[200];
    size_t length =
        frame->payload.length < sizeof text - 1 ? frame->payload.length : sizeof text - 1;
    long code;

    if (length)
        memcpy(text, frame->payload.at, length);
    text[length] = '\0';
    if (frame->opcode == WS_CLOSE) {
        peer->close_code = length < 2
                               ? (unsigned)WS_CLOSE_NO_STATUS
                               : (unsigned)(unsigned char)text[0] << 8 | (unsigned char)text[1];
    } else if (frame->opcode == WS_PONG) {
        peer->control_pongs++;
    } else if (strcmp(text, "pong") == 0) {
        peer->pongs++;
    } else if (CHECK(strncmp(text, "{\"code\":", 8) == 0)) {
        code = strtol(text + 8, NULL, 10);
        if (code == 0 && CHECK(length > 57))
            memcpy(peer->id, strstr(text, "clientId") + 11, HUB_ID_LENGTH);
        if (code == 1001 || code == 1002)
            peer->notices[code - 1001]++;
        else
            peer->seen[code >= 0 && code < CODES ? code : CODES - 1]++;
    }
}

static bool came_in_time(bool it_did)
{
    return CHECK(it_did);
}

/* Waits until a number of a client's has become `least`, or it has ended, or what it waits for may
 * have been lost because memory ran out. */
static bool await(struct peer *peer, const unsigned *number, unsigned least)
{
    int64_t begin = now();
    struct far_frame frame = {0};

    while (now() - begin < TIMEOUT) {
        while (!peer->close_code && far_next(&peer->far, &frame))
            note_frame(peer, &frame);
        if (*number >= least || !is_there(peer))
            return *number >= least;
        if (atomic_load(&failures) && atomic_load(&counting) && now() - begin > 20)
            return false;
        receive(peer, 5);
    }
    return came_in_time(false);
}

/* An answer to a request; status 0 if the connection has ended instead. */
struct reply {
    int status;
    long code;
    struct str body; /* until the next one */
};

static struct reply take_reply(struct peer *peer)
{
    int64_t begin = now();

    while (now() - begin < TIMEOUT) {
        struct str text = {peer->far.received.at + peer->far.taken,
                           peer->far.received.length - peer->far.taken};
        const char *end = NULL, *length;
        struct reply reply = {0};

        if (text.length) {
            buf_append(&peer->far.received, (struct str){"", 1}); /* ends it for what follows */
            peer->far.received.length--;
            text.at = peer->far.received.at + peer->far.taken;
            end = strstr(text.at, "\r\n\r\n");
        }
        if (end) {
            reply.status = (int)strtol(text.at + 9, NULL, 10);
            length = strstr(text.at, "Content-Length: ");
            reply.body =
                (struct str){end + 4, length && length < end ? strtoul(length + 16, NULL, 10) : 0};
            if (text.length >= (size_t)(end + 4 - text.at) + reply.body.length) {
                peer->far.taken += (size_t)(end + 4 - text.at) + reply.body.length;
                if (reply.body.length > 8)
                    reply.code = strtol(reply.body.at + 8, NULL, 10);
                return reply;
            }
        }
        if (peer->far.ended)
            return (struct reply){0};
        receive(peer, 50);
    }
    came_in_time(false);
    return (struct reply){0};
}

static char token[400];

/* Writes the head of a call; the length of its body is `length`, or it is chunked if that is -1. */
static void write_head(struct buf *out, const char *name, long length, const char *more)
{
    buf_append(out, str_from(textf("POST /api/%s HTTP/1.1\r\nHost: x\r\nToken: %s\r\n%s", name,
                                   token, more)));
    if (length < 0)
        buf_append(out, STR("Transfer-Encoding: chunked\r\n\r\n"));
    else
        buf_append(out, str_from(textf("Content-Length: %ld\r\n\r\n", length)));
}

static struct reply ask(struct peer *peer, const char *name, struct str body)
{
    struct buf out = {0};

    if (!is_there(peer))
        dial(peer, 0);
    write_head(&out, name, (long)body.length, "");
    buf_append(&out, body);
    transmit(peer, str_of(&out));
    buf_free(&out);
    return take_reply(peer);
}

/* A client's frame, masked with zeros. */
static void send_frame(struct peer *peer, unsigned first, struct str payload, size_t cut)
{
    char bytes[200] = {(char)first, (char)(0x80 | payload.length)};

    if (payload.length)
        memcpy(bytes + 6, payload.at, payload.length);
    transmit(peer, (struct str){bytes, 6 + payload.length - cut});
}

static void ping(struct peer *peer)
{
    send_frame(peer, 0x81, STR("ping"), 0);
}

/* Asks to become a client of a system; true when its first frame, which has `code`, has come. */
static bool join(struct peer *peer, const char *system, unsigned code, int receive_size)
{
    struct reply reply;

    dial(peer, receive_size);
    transmit(peer,
             str_from(textf("GET /ws?systemId=%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
                            system)));
    reply = take_reply(peer);
    return (reply.status == 101 || reply.status == 0) && await(peer, &peer->seen[code], 1);
}

/* --- a life ---------------------------------------------------------------------------------- */

static struct {
    struct peer witness, asker; /* a client and a caller who must not notice anything */
    struct peer victim, caller; /* a client and a caller for whom memory runs out */
    bool hit;                   /* it has */
    bool bound;                 /* the victim is in the group, if it is there */
    unsigned code;              /* of the last message */
} life = {.witness.far.fd = -1, .asker.far.fd = -1, .victim.far.fd = -1, .caller.far.fd = -1};

static void begin_scarcity(void)
{
    atomic_store(&counting, true);
}

/* From now on there is memory again. True if some has been refused in this life. */
static bool end_scarcity(void)
{
    atomic_store(&counting, false);
    life.hit = atomic_load(&failures) > 0;
    return life.hit;
}

/* All that has been sent to a client so far has come, or it has ended. */
static void catch_up(struct peer *peer)
{
    unsigned pongs = peer->pongs;

    if (!is_there(peer))
        return;
    ping(peer);
    await(peer, &peer->pongs, pongs + 1);
}

/* In a text each ' stands for a ". */
static struct str json(const char *text)
{
    char *copy = (char *)(uintptr_t)textf("%s", text);

    for (char *at = copy; *at; at++)
        *at = *at == '\'' ? '"' : *at;
    return str_from(copy);
}

/* A client's frame must come, unless the client's connection ends for lack of memory. */
static bool expect_frame(struct peer *peer, const unsigned *number, unsigned least)
{
    await(peer, number, least);
    end_scarcity();
    return CHECK(await(peer, number, least) || life.hit);
}

/* A notice must come, unless there was no memory for it. */
static void expect_notice(struct peer *peer, unsigned code, unsigned least)
{
    bool came = await(peer, &peer->notices[code - 1001], least);

    CHECK(end_scarcity() || came);
}

/* True if the group's members are the witness and, or not, the victim. */
static bool group_has(bool victim)
{
    struct reply reply = ask(&life.asker, "get_online_list", json("{'groupName':'g'}"));
    char list[200];

    if (reply.status != 200 || reply.body.length >= sizeof list)
        return false;
    memcpy(list, reply.body.at, reply.body.length);
    list[reply.body.length] = '\0';
    return strstr(list, victim ? "\"count\":2" : "\"count\":1") && strstr(list, life.witness.id) &&
           (!victim || strstr(list, life.victim.id));
}

/* The answer says that there was no memory, or it did not come for that reason. */
static bool is_refused(const struct reply *reply)
{
    return reply->status == 0 || (reply->status == 503 && reply->code == RESULT_UNREACHABLE);
}

/* Makes a call while memory may run out. If it does, the call may fail, with nothing done if the
 * answer says so (`undone` looks); afterwards it must work. False if memory ran out. */
static bool call(const char *name, struct str body, int status, long code, void (*undone)(void))
{
    struct reply reply;
    bool works;

    begin_scarcity();
    reply = ask(&life.caller, name, body);
    works = reply.status == status && reply.code == code;
    if (!end_scarcity()) {
        if (!CHECK(works))
            printf("  %s: status %d, code %ld\n", name, reply.status, reply.code);
        return true;
    }
    if (!CHECK(works || is_refused(&reply) || reply.code == RESULT_OFFLINE))
        printf("  %s: status %d, code %ld: %.*s\n", name, reply.status, reply.code,
               (int)reply.body.length, reply.body.at);
    if (reply.status == 503 && undone)
        undone();
    reply = ask(&life.caller, name, body);
    if (!CHECK((reply.status == status && reply.code == code) || reply.code == RESULT_OFFLINE ||
               reply.code == RESULT_REGISTERED))
        printf("  %s, again: status %d, code %ld\n", name, reply.status, reply.code);
    return false;
}

/* Sends a message of the next code, by a body that has its fields behind `target`. */
static void send_message(const char *name, const char *target, size_t size, bool to_witness)
{
    struct buf body = {0};
    unsigned code = ++life.code, at_most;
    struct reply reply;

    buf_append(&body, json(textf("{%s,'code':%u,'msg':'m','data':'", target, code)));
    for (size_t i = 0; i < size; i++)
        buf_append(&body, STR("x"));
    buf_append(&body, STR("\"}"));
    begin_scarcity();
    reply = ask(&life.caller, name, str_of(&body));
    at_most = reply.status ? 1 : 2;
    if (end_scarcity()) {
        CHECK(is_refused(&reply) || reply.status == 200);
        if (reply.status != 200)
            reply = ask(&life.caller, name, str_of(&body));
        CHECK(reply.status == 200 && (reply.code == 0 || reply.code == RESULT_OFFLINE));
    }
    CHECK(reply.status == 200 && (reply.code == 0 || life.hit));
    catch_up(&life.witness);
    catch_up(&life.victim);
    CHECK(life.witness.seen[code] <= at_most && life.victim.seen[code] <= at_most);
    CHECK(life.witness.seen[code] || !to_witness);
    CHECK(life.victim.seen[code] || (life.hit && !is_there(&life.victim)));
    buf_free(&body);
}

/* A body that names the victim, with what else is in it. */
static struct str named(const char *more)
{
    return json(textf("{'clientId':'%s'%s}", life.victim.id, more));
}

static void is_not_bound(void)
{
    struct reply reply;

    CHECK(group_has(false));
    reply = ask(&life.asker, "client_info", named(""));
    CHECK(reply.code == RESULT_OFFLINE || contains(reply.body, "\"userId\":\"\",\"extend\":\"\""));
}

static void is_bound(void)
{
    CHECK(group_has(is_there(&life.victim)));
}

/* --- its steps ------------------------------------------------------------------------------- */

static void first_call(void)
{
    call("get_online_list", json("{'groupName':'g'}"), 200, 0, NULL);
}

static void become_a_client(void)
{
    begin_scarcity();
    join(&life.victim, "shop", 0, 0);
    expect_frame(&life.victim, &life.victim.seen[0], 1);
}

static void say_something(void)
{
    begin_scarcity();
    ping(&life.victim);
    expect_frame(&life.victim, &life.victim.pongs, 1);
}

static void enter_a_group(void)
{
    bool good = call("bind_to_group", named(",'groupName':'g','userId':'u','extend':'more'"), 200,
                     0, is_not_bound);

    life.bound = true;
    if (good) {
        expect_notice(&life.victim, 1001, 1);
        expect_notice(&life.witness, 1001, 2);
    }
}

static void change_the_user(void)
{
    call("bind_to_group", named(",'groupName':'g','userId':'w','extend':'less'"), 200, 0, NULL);
    if (!life.hit)
        call("bind_to_group", named(",'groupName':'g','userId':'u'"), 200, 0, NULL);
}

static void get_messages(void)
{
    const char *one = textf("'clientId':'%s'", life.victim.id);
    const char *some = textf("'clientIds':['%s','0000000000000000']", life.victim.id);

    send_message("send_to_client", one, 100, false);
    if (!life.hit)
        send_message("send_to_group", "'groupName':'g'", 200, true);
    if (!life.hit)
        send_message("send_to_user", "'userId':'u','receipt':true,'sendUserId':'v'", 5000, false);
    if (!life.hit)
        send_message("send_to_system", "'messageId':'n1','once':true", 10, true);
    if (!life.hit)
        send_message("send_to_clients", some, 10, false);
    if (!life.hit)
        send_message("send_to_client", one, 60000, false);
}

static void be_looked_at(void)
{
    static const char *const calls[][2] = {
        {"get_online_list", "{'groupName':'g'}"},
        {"count", "{'system':true,'groupNames':['g']}"},
        {"list_clients", "{'groups':true}"},
        {"list_groups", "{}"},
        {"bind_user_to_group", "{'userId':'x','groupName':'g'}"}};

    call("client_info", named(""), 200, 0, NULL);
    for (size_t i = 0; i < COUNT(calls) && !life.hit; i++)
        call(calls[i][0], json(calls[i][1]), 200, 0, NULL);
}

/* A request whose body comes in pieces: the first when the server asks for it. */
static void send_pieces(bool chunked)
{
    const char *pieces[] = {"{\"groupName\":\"g\",\"x\":\"", "\"}"};
    struct buf out = {0}, more = {0};
    struct reply reply;

    for (int i = 0; i < 6000; i++)
        buf_append(&more, STR("y"));
    write_head(&out, "get_online_list", chunked ? -1 : (long)(22 + more.length + 2),
               "Expect: 100-continue\r\n");
    begin_scarcity();
    if (!is_there(&life.caller))
        dial(&life.caller, 0);
    transmit(&life.caller, str_of(&out));
    reply = take_reply(&life.caller);
    CHECK(reply.status == 100 || reply.status == 0);
    if (reply.status == 100) {
        const char *lengths[] = {"16\r\n", "\r\n1770\r\n", "\r\n2\r\n", "\r\n0\r\n\r\n"};
        struct str parts[] = {str_from(pieces[0]), str_of(&more), str_from(pieces[1]), {0}};

        for (size_t i = 0; i < COUNT(parts); i++) {
            if (chunked)
                transmit(&life.caller, str_from(lengths[i]));
            transmit(&life.caller, parts[i]);
            nanosleep(&(struct timespec){0, 2000000}, NULL); /* mostly they are read one by one */
        }
        reply = take_reply(&life.caller);
    }
    end_scarcity();
    CHECK(reply.status == 200 || (life.hit && is_refused(&reply)));
    buf_free(&out);
    buf_free(&more);
}

static void send_body_in_pieces(void)
{
    send_pieces(false);
}

static void send_body_in_chunks(void)
{
    send_pieces(true);
}

/* Fragments, a ping as large as they may be, and frames that come in two pieces. */
static void send_frames(void)
{
    char large[125];

    memset(large, 'p', sizeof large);
    begin_scarcity();
    send_frame(&life.victim, 0x01, STR("pi"), 0);
    send_frame(&life.victim, 0x89, (struct str){large, sizeof large}, 0);
    expect_frame(&life.victim, &life.victim.control_pongs, 1);
    if (!life.hit) {
        begin_scarcity();
        send_frame(&life.victim, 0x89, STR("a"), 0);
        send_frame(&life.victim, 0x80, STR("ng"), 5);
        await(&life.victim, &life.victim.control_pongs, 2);
    }
    if (!life.hit) {
        transmit(&life.victim, (struct str){"\0\0\0ng", 5}); /* what was missing */
        expect_frame(&life.victim, &life.victim.pongs, 2);
    }
}

static void leave_the_group(void)
{
    bool good = call("unbind_from_group", named(",'groupName':'g'"), 200, 0, is_bound);

    life.bound = false;
    if (good)
        expect_notice(&life.witness, 1002, 1);
}

/* With memory: a new client in the place of the victim, in the group. */
static bool replace_victim(int receive_size)
{
    bool good =
        join(&life.victim, "shop", 0, receive_size) &&
        ask(&life.asker, "bind_to_group", named(",'groupName':'g','userId':'u','extend':'e'"))
                .code == 0;

    life.bound = true;
    return CHECK(good && await(&life.victim, &life.victim.notices[0], 1));
}

static void say_goodbye(void)
{
    if (!replace_victim(0))
        return;
    begin_scarcity();
    send_frame(&life.victim, 0x88, STR("\x03\xe8"), 0);
    expect_notice(&life.witness, 1002, life.witness.notices[1] + 1);
    await(&life.victim, &(unsigned){0}, 1); /* a close frame in answer, or just the end */
    CHECK(!is_there(&life.victim));
}

static void be_closed(void)
{
    if (!replace_victim(0))
        return;
    call("close_client", named(",'code':3000,'reason':'enough'"), 200, 0, NULL);
    await(&life.victim, &(unsigned){0}, 1);
    CHECK(!is_there(&life.victim) && (life.victim.close_code == 3000 || life.hit));
}

static void vanish(void)
{
    struct linger at_once = {1, 0};

    if (!replace_victim(0))
        return;
    setsockopt(life.victim.far.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    begin_scarcity();
    hang_up(&life.victim);
    expect_notice(&life.witness, 1002, life.witness.notices[1] + 1);
}

/* Comes to the group with the first frame, or not at all. */
static void come_with_a_ticket(void)
{
    struct reply reply = ask(&life.asker, "ticket", json("{'userId':'u','groups':['g']}"));
    const char *text = reply.code == 0 ? strstr(reply.body.at, "eyJ") : NULL;
    unsigned left = life.witness.notices[1];
    bool came;

    if (!CHECK(text))
        return;
    text = textf("shop&ticket=%.*s", (int)strcspn(text, "\""), text);
    life.bound = true;
    begin_scarcity();
    came = join(&life.victim, text, 0, 0);
    CHECK(end_scarcity() || (came && await(&life.victim, &life.victim.notices[0], 1)));
    if (life.hit)
        return;
    hang_up(&life.victim);
    CHECK(await(&life.witness, &life.witness.notices[1], left + 1));
}

/* Writes `count` sends to a client that are to be done at once. */
static void write_sends(struct buf *out, const struct peer *peer, unsigned code, int count)
{
    for (int i = 0; i < count; i++) {
        struct str body =
            json(textf("{'clientId':'%s','code':%u,'msg':'','data':0}", peer->id, code));

        write_head(out, "send_to_client", (long)body.length, "");
        buf_append(out, body);
    }
}

/* Reads nothing: what is sent to it waits, ever more of it, until it is closed. */
static void be_slow(void)
{
    struct buf large = {0}, small = {0};

    if (!replace_victim(4096))
        return;
    buf_append(&large, json(textf("{'clientId':'%s','code':60,'msg':'','data':'", life.victim.id)));
    for (int i = 0; i < 50000; i++)
        buf_append(&large, STR("x"));
    buf_append(&large, STR("\"}"));
    /* more to be queued at once than there are places in queues to be used again */
    write_sends(&small, &life.victim, 61, 32);
    for (int i = 0; i < 4 && !life.hit; i++)
        call("send_to_client", str_of(&large), 200, 0, NULL);
    if (!life.hit) {
        struct reply reply;

        begin_scarcity();
        if (!is_there(&life.caller))
            dial(&life.caller, 0);
        transmit(&life.caller, str_of(&small));
        reply = take_reply(&life.caller);
        for (int i = 1; i < 32 && reply.status == 200; i++)
            reply = take_reply(&life.caller);
        end_scarcity();
        CHECK(reply.status == 200 || (life.hit && is_refused(&reply)));
    }
    for (int i = 0; i < 20 && !life.hit && is_there(&life.victim); i++) {
        struct reply reply;

        begin_scarcity();
        reply = ask(&life.caller, "send_to_client", str_of(&large));
        end_scarcity();
        if (!CHECK(reply.status == 200 || (life.hit && is_refused(&reply))))
            printf("  status %d, code %ld, hit %d: %.*s\n", reply.status, reply.code, life.hit,
                   (int)reply.body.length, reply.body.at);
        if (reply.code == RESULT_OFFLINE)
            break;
        CHECK(i < 19);
    }
    if (!life.hit)
        CHECK(await(&life.witness, &life.witness.notices[1], 1));
    buf_free(&large);
    buf_free(&small);
}

static void be_turned_away(void)
{
    begin_scarcity();
    join(&life.victim, "nobody", CODES - 1, 0);
    expect_frame(&life.victim, &life.victim.seen[CODES - 1], 1);
    await(&life.victim, &(unsigned){0}, 1);
    CHECK(!is_there(&life.victim));
}

static void be_refused(void)
{
    char good[sizeof token];

    call("nothing", json("{}"), 404, -1, NULL);
    if (!life.hit)
        call("send_to_client", json("{'clientId':1}"), 400, -1, NULL);
    if (!life.hit)
        call("send_to_client", json("{'clientId':"), 400, -1, NULL);
    memcpy(good, token, sizeof good);
    token[5] = token[5] == 'a' ? 'b' : 'a';
    if (!life.hit)
        call("get_online_list", json("{'groupName':'g'}"), 401, -1002, NULL);
    memcpy(token, good, sizeof good);
}

static void open_an_account(void)
{
    const char *account = "{'systemId':'new','password':'p'}";
    struct buf now_there = {0};

    call("register", json(account), 200, 0, NULL);
    CHECK(os_read_file(textf("%s/accounts", folder), &now_there) == 0 &&
          lines_of(str_of(&now_there)) == lines_of(str_of(&accounts)) + 1);
    buf_free(&now_there);
    if (!life.hit)
        call("login", json(account), 200, 0, NULL);
}

static void (*const steps[])(void) = {
    first_call,          become_a_client, say_something,
    enter_a_group,       change_the_user, get_messages,
    be_looked_at,        send_frames,     leave_the_group,
    say_goodbye,         be_closed,       vanish,
    come_with_a_ticket,  be_slow,         be_turned_away,
    be_refused,          open_an_account, send_body_in_pieces,
    send_body_in_chunks,
};

/* One connection more than there are places for: the loop makes room for more of them, and begins
 * to park those that are quiet. */
static struct peer crowd[62]; /* with the witness and who asks they fill its places */

static void be_one_too_many(void)
{
    call("get_online_list", json("{'groupName':'g'}"), 200, 0, NULL);
    if (!life.hit) /* the answer to this one comes after that turn's end */
        call("get_online_list", json("{'groupName':'g'}"), 200, 0, NULL);
}

/* --- before and after ------------------------------------------------------------------------ */

static void settle_in(void)
{
    struct buf many = {0};
    struct reply reply;

    dial(&life.asker, 0);
    token[0] = '\0';
    reply = ask(&life.asker, "login", json("{'systemId':'shop','password':'p'}"));
    if (CHECK(reply.code == 0 && reply.body.length > 50))
        snprintf(token, sizeof token, "%.*s",
                 (int)(strcspn(strstr(reply.body.at, "token") + 8, "\"")),
                 strstr(reply.body.at, "token") + 8);
    CHECK(join(&life.witness, "shop", 0, 0));
    reply = ask(&life.asker, "bind_to_group",
                json(textf("{'clientId':'%s','groupName':'g'}", life.witness.id)));
    CHECK(reply.code == 0 && await(&life.witness, &life.witness.notices[0], 1));
    /* places in queues, so that it is never the witness for whom there is no memory */
    write_sends(&many, &life.witness, 62, 20);
    transmit(&life.asker, str_of(&many));
    for (int i = 0; i < 20; i++)
        CHECK(take_reply(&life.asker).code == 0);
    CHECK(await(&life.witness, &life.witness.seen[62], 20));
    buf_free(&many);
}

/* All is as it should be, but for what was under way. */
static void look_around(void)
{
    unsigned code = ++life.code, pongs = life.victim.pongs;
    bool is_alive = false;
    struct reply reply;

    CHECK(is_there(&life.witness) && is_there(&life.asker));
    if (is_there(&life.victim)) {
        ping(&life.victim);
        is_alive = await(&life.victim, &life.victim.pongs, pongs + 1);
    }
    for (int i = 0; i < 200 && !group_has(is_alive && life.bound); i++)
        ; /* who has ended is taken out in the same turn, but maybe behind this */
    CHECK(group_has(is_alive && life.bound));
    reply = ask(&life.asker, "send_to_group",
                json(textf("{'groupName':'g','code':%u,'msg':'','data':0}", code)));
    CHECK(reply.status == 200 && reply.code == 0);
    CHECK(await(&life.witness, &life.witness.seen[code], 1));
    if (is_alive && life.bound)
        CHECK(await(&life.victim, &life.victim.seen[code], 1));
    hang_up(&life.victim);
    if (replace_victim(0)) {
        ping(&life.victim);
        CHECK(await(&life.victim, &life.victim.pongs, 1));
        CHECK(group_has(true));
    }
    CHECK(is_there(&life.witness) && is_there(&life.asker));
}

/* Leads one life, whole or in a crowd, in which the allocation of this number fails. True if it
 * came to that. */
static bool lead_a_life(long number, bool on, bool crowded)
{
    size_t step = 0, last = crowded ? 1 : COUNT(steps);

    fails_at = number;
    fails_on = on;
    atomic_store(&made, 0);
    atomic_store(&failures, 0);
    life.hit = life.bound = false;
    life.code = 0;
    put_accounts();
    node_start();
    settle_in();
    for (size_t i = 0; crowded && i < COUNT(crowd); i++) {
        crowd[i].far.fd = -1;
        dial(&crowd[i], 0);
        CHECK(ask(&crowd[i], "get_online_list", json("{'groupName':'g'}")).code == 0);
    }
    while (step < last && !life.hit && test_good) {
        if (crowded)
            be_one_too_many();
        else
            steps[step]();
        step++;
    }
    look_around();
    for (size_t i = 0; crowded && i < COUNT(crowd); i++) {
        receive(&crowd[i], 0);
        CHECK(is_there(&crowd[i]));
        hang_up(&crowd[i]);
    }
    hang_up(&life.victim);
    hang_up(&life.caller);
    hang_up(&life.asker);
    hang_up(&life.witness);
    node_stop();
    if (!test_good)
        printf("  when allocation %ld failed, in step %zu\n", number, step);
    return life.hit;
}

/* Leads lives until one passes in which nothing failed: so many allocations has a life. */
static void lead_lives(bool on, bool crowded, long least)
{
    long number = 1;

    while (number < 3000 && test_good && lead_a_life(number, on, crowded))
        number++;
    CHECK(number > least && number < 3000);
    printf("     %ld allocations failed\n", number - 1);
}

static void one_fails(void)
{
    lead_lives(false, false, 200);
}

static void all_of_a_step_fail(void)
{
    lead_lives(true, false, 200);
}

static void one_fails_in_a_crowd(void)
{
    lead_lives(false, true, 10);
}

static void all_fail_in_a_crowd(void)
{
    lead_lives(true, true, 10);
}

/* Twelve accounts are as many as fit into the table before it grows. */
static void make_accounts(void)
{
    node_start();
    for (int i = 0; i < 12; i++)
        CHECK(ask(&life.asker, "register",
                  json(i ? textf("{'systemId':'other%d','password':'p'}", i)
                         : "{'systemId':'shop','password':'p'}"))
                  .code == 0);
    hang_up(&life.asker);
    node_stop();
    CHECK(os_read_file(textf("%s/accounts", folder), &accounts) == 0);
}

int main(void)
{
    const char *parent = getenv("TMPDIR");

    is_tester = true;
    signal(SIGPIPE, SIG_IGN);
    snprintf(folder, sizeof folder, "%s/wspush-scarce-XXXXXX", parent && *parent ? parent : "/tmp");
    if (!mkdtemp(folder))
        return 1;
    make_accounts();
    test_run("each allocation of a life fails once", one_fails);
    test_run("all allocations of a step fail from each one on", all_of_a_step_fail);
    test_run("in a crowd each allocation fails once", one_fails_in_a_crowd);
    test_run("in a crowd all fail from each one on", all_fail_in_a_crowd);
    buf_free(&accounts);
    unlink(textf("%s/accounts", folder));
    CHECK(rmdir(folder) == 0);
    return test_finish();
}
