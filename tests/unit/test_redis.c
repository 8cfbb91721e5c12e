/* test_redis.c - redis against a Redis of the test's own: a thread on a loopback port that answers
 * the n-th command of the n-th connection as its script says. Names are looked up by the test. */
#include "redis.h"

#include "test.h"
#include "os.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- a Redis --------------------------------------------------------------------------------- */

#define CONNECTIONS 8
#define REPLIES 24
#define SILENCE "silence"
#define TRICKLE "trickle" /* the beginning of a reply, a byte now and then */
#define CLOSE "close"
#define HANG_UP "hang up" /* at once, without a command */

struct fake {
    int listener;
    unsigned port;
    pthread_t thread;
    const char *script[CONNECTIONS][REPLIES]; /* NULL: the connection is closed */
    bool by_byte;                             /* replies are sent a byte at a time */
    pthread_mutex_t lock;                     /* guards what follows */
    size_t accepted;
    bool trickled; /* a TRICKLE has come to its end */
    char heard[4000];
};

static void say(int fd, struct fake *fake, const char *reply)
{
    size_t length = strlen(reply), piece = fake->by_byte ? 1 : length;

    for (size_t at = 0; at < length; at += piece) {
        if (send(fd, reply + at, piece, MSG_NOSIGNAL) < 0)
            return;
        if (fake->by_byte)
            poll(NULL, 0, 1);
    }
}

static void trickle(int fd, struct fake *fake)
{
    for (int i = 0; i < 400; i++) {
        if (send(fd, i ? "x" : "+", 1, MSG_NOSIGNAL) < 0)
            return;
        poll(NULL, 0, 25);
    }
    pthread_mutex_lock(&fake->lock);
    fake->trickled = true;
    pthread_mutex_unlock(&fake->lock);
}

/* Reads a line without its end; false at the end of the connection. */
static bool read_line(int fd, char *line, size_t room)
{
    size_t length = 0;

    while (length + 1 < room && recv(fd, line + length, 1, 0) == 1) {
        if (line[length] == '\n') {
            line[length - 1] = '\0';
            return true;
        }
        length++;
    }
    return false;
}

/* Reads a command and notes it. */
static bool hear(int fd, struct fake *fake)
{
    char line[300], said[3000] = "";
    int count;

    if (!read_line(fd, line, sizeof line) || line[0] != '*')
        return false;
    count = (int)strtol(line + 1, NULL, 10);
    for (int i = 0; i < count; i++) {
        if (!read_line(fd, line, sizeof line) || !read_line(fd, line, sizeof line))
            return false;
        snprintf(said + strlen(said), sizeof said - strlen(said), "%s%s", i ? " " : "", line);
    }
    pthread_mutex_lock(&fake->lock);
    snprintf(fake->heard + strlen(fake->heard), sizeof fake->heard - strlen(fake->heard), "%s\n",
             said);
    pthread_mutex_unlock(&fake->lock);
    return true;
}

static void serve(int fd, struct fake *fake, const char *const *script)
{
    for (size_t i = 0; i < REPLIES; i++) {
        const char *reply = script[i];

        if ((reply && strcmp(reply, HANG_UP) == 0) || !hear(fd, fake) || !reply)
            break;
        if (strcmp(reply, TRICKLE) == 0)
            trickle(fd, fake);
        else if (strcmp(reply, CLOSE) == 0)
            break;
        else if (strcmp(reply, SILENCE) != 0)
            say(fd, fake, reply);
    }
}

static void *run(void *argument)
{
    struct fake *fake = argument;

    for (size_t i = 0; i < CONNECTIONS; i++) {
        int fd = accept(fake->listener, NULL, NULL);

        if (fd < 0)
            break;
        pthread_mutex_lock(&fake->lock);
        fake->accepted++;
        pthread_mutex_unlock(&fake->lock);
        serve(fd, fake, fake->script[i]);
        close(fd);
    }
    return NULL;
}

/* Listens on an address; port 0: any. */
static void listen_at(struct fake *fake, const char *address, unsigned port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t length = sizeof at;
    int yes = 1;

    inet_pton(AF_INET, address, &at.sin_addr);
    pthread_mutex_init(&fake->lock, NULL);
    fake->listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fake->listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fake->listener, (struct sockaddr *)&at, sizeof at) != 0 ||
        listen(fake->listener, 16) != 0 ||
        getsockname(fake->listener, (struct sockaddr *)&at, &length) != 0)
        abort();
    fake->port = ntohs(at.sin_port);
    pthread_create(&fake->thread, NULL, run, fake);
}

static void end(struct fake *fake)
{
    shutdown(fake->listener, SHUT_RDWR);
    pthread_join(fake->thread, NULL);
    close(fake->listener);
}

static size_t accepted(struct fake *fake)
{
    size_t count;

    pthread_mutex_lock(&fake->lock);
    count = fake->accepted;
    pthread_mutex_unlock(&fake->lock);
    return count;
}

/* --- names ----------------------------------------------------------------------------------- */

static pthread_mutex_t name_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *address_of_name = "127.0.0.1"; /* of redis.test */
static bool hangs;                                /* looking redis.test up does */
static int look_ups;

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list);
int __real_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list);

static bool is_hanging(void)
{
    bool value;

    pthread_mutex_lock(&name_lock);
    value = hangs;
    pthread_mutex_unlock(&name_lock);
    return value;
}

static void set_name(const char *address, bool hang)
{
    pthread_mutex_lock(&name_lock);
    address_of_name = address;
    hangs = hang;
    pthread_mutex_unlock(&name_lock);
}

int __wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                       struct addrinfo **list)
{
    int error;

    if (strcmp(host, "redis.test") != 0)
        return __real_getaddrinfo(host, service, hints, list);
    if (hints->ai_flags & AI_NUMERICHOST)
        return EAI_NONAME;
    pthread_mutex_lock(&name_lock);
    look_ups++;
    pthread_mutex_unlock(&name_lock);
    while (is_hanging())
        poll(NULL, 0, 5);
    pthread_mutex_lock(&name_lock);
    error = __real_getaddrinfo(address_of_name, service, hints, list);
    pthread_mutex_unlock(&name_lock);
    return error;
}

/* --- the tests' own -------------------------------------------------------------------------- */

static struct config config_for(const char *host, const struct fake *fake)
{
    struct config made = {.redis_port = fake->port};

    snprintf(made.redis_host, sizeof made.redis_host, "%s", host);
    return made;
}

static struct config config;
static struct redis *redis;
static struct redis_reply reply;

/* Starts a fake Redis, and has `redis` for it, by the name `host`. */
static void fake_open(struct fake *fake, const char *host)
{
    listen_at(fake, "127.0.0.1", 0);
    config = config_for(host, fake);
    redis = redis_new(&config);
}

static void fake_close(struct fake *fake)
{
    redis_free(redis);
    end(fake);
}

#define GET ((struct str[]){STR("GET"), STR("k"), {0}})

static bool call(void)
{
    return redis_call(redis, GET, &reply);
}

/* Calls until the back-off lets it; at most some seconds. */
static bool call_in_time(void)
{
    for (int i = 0; i < 400 && !call(); i++)
        poll(NULL, 0, 10);
    return redis_is_connected(redis);
}

static bool says(const char *text, const char *part)
{
    size_t length = strlen(part);

    for (; *text; text++)
        if (strncmp(text, part, length) == 0)
            return true;
    return false;
}

/* --- tests ----------------------------------------------------------------------------------- */

static void replies_have_their_type(void)
{
    struct redis_reply element;

    for (int by_byte = 0; by_byte < 2; by_byte++) {
        struct fake fake = {.by_byte = by_byte,
                            .script = {{"$-1\r\n", ":-42\r\n", "$3\r\na\nb\r\n", "+OK\r\n",
                                        "*3\r\n$1\r\nx\r\n:7\r\n$-1\r\n", "*-1\r\n", "*0\r\n"}}};

        fake_open(&fake, "127.0.0.1");
        CHECK(call() && reply.type == REDIS_NIL);
        CHECK(call() && reply.type == REDIS_NUMBER && reply.number == -42);
        CHECK(call() && reply.type == REDIS_TEXT && str_equal(reply.text, STR("a\nb")));
        CHECK(call() && str_equal(reply.text, STR("OK")));
        CHECK(call() && reply.type == REDIS_LIST && reply.count == 3);
        element = redis_element(&reply, 0);
        CHECK(str_equal(element.text, STR("x")) && redis_element(&reply, 1).number == 7);
        CHECK(redis_element(&reply, 2).type == REDIS_NIL);
        CHECK(call() && reply.type == REDIS_NIL);
        CHECK(call() && reply.type == REDIS_LIST && reply.count == 0);
        CHECK(redis_error(redis)[0] == '\0' && redis_reason(redis)[0] == '\0');
        fake_close(&fake);
        CHECK(accepted(&fake) == 1);
    }
}

/* One command has one reply; what is refused does not spoil the others. */
static void each_command_of_a_pipeline_has_its_result(void)
{
    struct fake fake = {.script = {{":1\r\n", "-WRONGTYPE no hash\r\n", ":0\r\n", ":5\r\n"}}};

    fake_open(&fake, "127.0.0.1");
    CHECK(!redis_next(redis, &reply));
    for (int i = 0; i < 3; i++)
        CHECK(redis_append(redis, GET));
    CHECK(redis_next(redis, &reply) && reply.number == 1);
    CHECK(redis_next(redis, &reply) && reply.type == REDIS_ERROR &&
          str_equal(reply.text, STR("WRONGTYPE no hash")));
    CHECK(says(redis_error(redis), "WRONGTYPE no hash") && redis_is_connected(redis));
    CHECK(redis_next(redis, &reply) && reply.type == REDIS_NUMBER && reply.number == 0);
    CHECK(!redis_next(redis, &reply) && reply.type == REDIS_NIL);
    CHECK(call() && reply.number == 5 && !redis_error(redis)[0]);
    fake_close(&fake);
}

static void replies_that_are_not_taken_are_dropped(void)
{
    struct fake fake = {.script = {{":1\r\n", ":2\r\n", ":3\r\n", ":4\r\n"}}};

    fake_open(&fake, "127.0.0.1");
    for (int i = 0; i < 3; i++)
        CHECK(redis_append(redis, GET));
    CHECK(redis_next(redis, &reply) && reply.number == 1);
    CHECK(call() && reply.number == 4);
    fake_close(&fake);
}

static const struct refusal {
    const char *reply, *error, *reason;
    bool ends;
} refusals[] = {
    {"-READONLY You can't write against a read only replica.\r\n",
     ": READONLY You can't write against a read only replica: it is a replica: point ",
     "Redis says: READONLY You can't write against a read only replica", true},
    {"-LOADING Redis is loading the dataset in memory\r\n",
     ": LOADING Redis is loading the dataset in memory: wait until ",
     "Redis says: LOADING Redis is loading the dataset in memory", true},
    {"-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.\r\n",
     ": MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no': ",
     "Redis says: MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'",
     true},
    {"-NOREPLICAS Not enough good replicas to write.\r\n", ": NOREPLICAS Not enough ",
     "Redis says: NOREPLICAS Not enough good replicas to write", true},
    {"-NOAUTH Authentication required.\r\n", ": NOAUTH Authentication required: set [redis] ",
     "Redis says: NOAUTH Authentication required", true},
    {"-MISCONF Redis is configured to save\r\n", ": MISCONF Redis ",
     "Redis says: MISCONF Redis is configured to save", true},
    {"-MOVED 3999 10.0.0.7:6381\r\n", ": MOVED: Redis Cluster is not supported",
     "Redis says: MOVED", true},
    {"-ASK 3999 10.0.0.7:6381\r\n", ": ASK: ", "Redis says: ASK", false},
    {"-OOM command not allowed when used memory > 'maxmemory'.\r\n", ": OOM command not ",
     "Redis says: OOM command not allowed when used memory > 'maxmemory'", false},
    {"-READONLYX y\r\n", ": READONLYX y: correct that ", "Redis says: READONLYX y", false},
    {"-ERR \x1b[2Jb\xff\r\n", ": ERR ?[2Jb?: correct that ", "Redis says: ERR ?[2Jb?", false},
    {"-\r\n", ": : correct that ", "Redis says: ", false},
};

/* Whether this is what is said by then. */
static void check_refusal(const struct refusal *refusal)
{
    if (!CHECK(strncmp(redis_error(redis), "Redis at 127.0.0.1 port ", 24) == 0 &&
               says(redis_error(redis), refusal->error)) ||
        !CHECK(strcmp(redis_reason(redis), refusal->reason) == 0))
        printf("%s\n%s\n", redis_error(redis), redis_reason(redis));
    CHECK(redis_is_connected(redis) == !refusal->ends);
}

/* What Redis says of itself ends the connection; the next one has what is asked for. */
static void a_server_that_cannot_serve_is_left(void)
{
    for (size_t i = 0; i < COUNT(refusals); i++) {
        struct fake fake = {.script = {{":1\r\n", refusals[i].reply, ":2\r\n"}, {":2\r\n"}}};

        fake_open(&fake, "127.0.0.1");
        CHECK(call());
        CHECK(!call() && reply.type == REDIS_ERROR);
        check_refusal(&refusals[i]);
        CHECK(call_in_time() && reply.number == 2);
        fake_close(&fake);
        CHECK(accepted(&fake) == (refusals[i].ends ? 2 : 1));
    }
}

/* A refusal that ends the connection lets the replies behind it be read: what was done is known. */
static void a_pipeline_is_read_to_its_end(void)
{
    struct fake fake = {.script = {{"-READONLY x\r\n", ":1\r\n", "-READONLY y\r\n"}, {":9\r\n"}}};

    fake_open(&fake, "127.0.0.1");
    for (int i = 0; i < 3; i++)
        CHECK(redis_append(redis, GET));
    CHECK(redis_next(redis, &reply) && reply.type == REDIS_ERROR && !redis_is_connected(redis));
    CHECK(redis_next(redis, &reply) && reply.number == 1);
    CHECK(redis_next(redis, &reply) && str_equal(reply.text, STR("READONLY y")));
    CHECK(!redis_append(redis, GET));              /* there is a pause */
    CHECK(says(redis_error(redis), "READONLY x")); /* what came first */
    CHECK(call_in_time() && reply.number == 9);
    fake_close(&fake);
}

static void a_connection_that_breaks_is_made_again(void)
{
    static const char *const broken[] = {CLOSE, "$9\r\nhal", "*2\r\n:1\r\n", "nonsense\r\n"};

    for (size_t i = 0; i < COUNT(broken); i++) {
        struct fake fake = {.script = {{":1\r\n", broken[i]}, {":2\r\n", CLOSE}, {":3\r\n"}}};

        fake.script[0][2] = i == 3 ? SILENCE : NULL;
        fake_open(&fake, "127.0.0.1");
        CHECK(redis_append(redis, GET) && redis_append(redis, GET) && redis_append(redis, GET));
        CHECK(redis_next(redis, &reply) && reply.number == 1);
        CHECK(!redis_next(redis, &reply) && !redis_next(redis, &reply));
        CHECK(!redis_is_connected(redis));
        CHECK(strncmp(redis_reason(redis), "the connection to Redis broke: ", 31) == 0);
        CHECK(!call() && accepted(&fake) == 1); /* there is a pause */
        CHECK(call_in_time() && reply.number == 2);
        CHECK(redis_call_again(redis, GET, &reply) && reply.number == 3);
        fake_close(&fake);
    }
}

/* A connection that is closed while it is idle is replaced in silence, but for one that is young.
 */
static void an_idle_connection_is_renewed(void)
{
    struct fake fake = {.script = {{":1\r\n", HANG_UP}, {":2\r\n", ":3\r\n", HANG_UP}}};

    fake_open(&fake, "127.0.0.1");
    CHECK(!redis_renew(redis) && call());
    CHECK(!redis_renew(redis)); /* it is young */
    poll(NULL, 0, 600);
    CHECK(redis_renew(redis) && redis_is_connected(redis) && !redis_error(redis)[0]);
    CHECK(call() && reply.number == 2);
    poll(NULL, 0, 600);
    CHECK(!redis_renew(redis)); /* it is open */
    CHECK(call() && reply.number == 3);
    shutdown(fake.listener, SHUT_RDWR);
    poll(NULL, 0, 600);
    CHECK(!redis_renew(redis) && !redis_is_connected(redis)); /* there is nobody any more */
    CHECK(strcmp(redis_reason(redis), "Redis cannot be reached: Connection refused") == 0);
    CHECK(!call() && accepted(&fake) == 2);
    fake_close(&fake);
}

/* Neither silence nor a byte now and then is waited for for ever. */
static void a_server_that_does_not_answer_is_left(void)
{
    static const char *const slow[] = {SILENCE, TRICKLE};

    for (size_t i = 0; i < COUNT(slow); i++) {
        struct fake fake = {.script = {{":1\r\n", slow[i]}}};

        fake_open(&fake, "127.0.0.1");
        CHECK(call());
        CHECK(!redis_call_again(redis, GET, &reply)); /* and is not asked again */
        CHECK(strcmp(redis_reason(redis), "Redis does not answer in time") == 0);
        CHECK(says(redis_error(redis), ": it does not answer in time: is it running"));
        pthread_mutex_lock(&fake.lock);
        CHECK(!fake.trickled);
        pthread_mutex_unlock(&fake.lock);
        fake_close(&fake);
        CHECK(accepted(&fake) == 1);
    }
}

/* AUTH and SELECT come first; the password is in no error. */
static void a_connection_logs_in(void)
{
    struct fake fake = {.script = {{"-WRONGPASS invalid username-password pair\r\n"},
                                   {"+OK\r\n", "-ERR DB index is out of range\r\n"},
                                   {"+OK\r\n", "+OK\r\n", ":1\r\n"}}};

    listen_at(&fake, "127.0.0.1", 0);
    config = config_for("127.0.0.1", &fake);
    snprintf(config.redis_password, sizeof config.redis_password, "open sesame");
    config.redis_db = 3;
    redis = redis_new(&config);
    CHECK(!call() && !redis_is_connected(redis));
    CHECK(strcmp(redis_reason(redis), "Redis says: WRONGPASS invalid username-password pair") == 0);
    CHECK(!says(redis_error(redis), "sesame") &&
          says(redis_error(redis), ": correct [redis] pass"));
    for (int i = 0; i < 400 && accepted(&fake) < 2; i++) {
        CHECK(!call());
        poll(NULL, 0, 5);
    }
    CHECK(says(redis_error(redis), "DB index is out of range"));
    CHECK(call_in_time() && reply.number == 1);
    fake_close(&fake);
    CHECK(strcmp(fake.heard, "AUTH open sesame\nAUTH open sesame\nSELECT 3\nAUTH open "
                             "sesame\nSELECT 3\nGET k\n") == 0);
}

/* A user may need no password. */
static void a_user_logs_in(void)
{
    static const char *const passwords[] = {"open sesame", ""};

    for (size_t i = 0; i < COUNT(passwords); i++) {
        struct fake fake = {.script = {{"+OK\r\n", ":1\r\n"}}};
        char expected[100];

        listen_at(&fake, "127.0.0.1", 0);
        config = config_for("127.0.0.1", &fake);
        snprintf(config.redis_username, sizeof config.redis_username, "shop");
        snprintf(config.redis_password, sizeof config.redis_password, "%s", passwords[i]);
        redis = redis_new(&config);
        CHECK(call() && reply.number == 1);
        fake_close(&fake);
        snprintf(expected, sizeof expected, "AUTH shop %s\nGET k\n", passwords[i]);
        CHECK(strcmp(fake.heard, expected) == 0);
    }
}

/* --- Sentinel -------------------------------------------------------------------------------- */

#define ASKED "SENTINEL GET-MASTER-ADDR-BY-NAME shop\n"
#define MASTER "*1\r\n$6\r\nmaster\r\n"
#define REPLICA "*1\r\n$5\r\nslave\r\n"
#define UNKNOWN "*-1\r\n"

/* A Sentinel's reply that names a fake. */
static const char *name_of(const struct fake *fake, char text[60])
{
    snprintf(text, 60, "*2\r\n$9\r\n127.0.0.1\r\n$5\r\n%05u\r\n", fake->port);
    return text;
}

/* `redis` asks the first `count` of these fakes; nothing is where [redis] host says. */
static void open_sentinels(struct fake *sentinels, size_t count)
{
    config = (struct config){.redis_port = 1};
    snprintf(config.redis_host, sizeof config.redis_host, "127.0.0.1");
    snprintf(config.redis_sentinel_master, sizeof config.redis_sentinel_master, "shop");
    for (size_t i = 0; i < count; i++) {
        size_t length = strlen(config.redis_sentinels);

        snprintf(config.redis_sentinels + length, sizeof config.redis_sentinels - length,
                 "127.0.0.1:%u, ", sentinels[i].port);
    }
    redis = redis_new(&config);
}

/* One that is not there and one that knows nothing are passed over; the one that has replied is
 * asked first the next time. */
static void a_sentinel_names_the_master(void)
{
    struct fake sentinels[3] = {{.script = {{NULL}}},
                                {.script = {{UNKNOWN}}},
                                {.script = {{"+OK\r\n", NULL}, {"+OK\r\n", NULL}}}};
    struct fake master = {.script = {{"+OK\r\n", MASTER, "+OK\r\n", ":1\r\n", CLOSE},
                                     {"+OK\r\n", MASTER, "+OK\r\n", ":2\r\n"}}};
    char named[60];

    listen_at(&master, "127.0.0.1", 0);
    sentinels[1].script[0][0] = "+OK\r\n";
    sentinels[1].script[0][1] = UNKNOWN;
    sentinels[2].script[0][1] = sentinels[2].script[1][1] = name_of(&master, named);
    for (size_t i = 0; i < 3; i++)
        listen_at(&sentinels[i], "127.0.0.1", 0);
    end(&sentinels[0]);
    open_sentinels(sentinels, 3);
    snprintf(config.redis_password, sizeof config.redis_password, "open");
    snprintf(config.redis_sentinel_username, sizeof config.redis_sentinel_username, "watch");
    snprintf(config.redis_sentinel_password, sizeof config.redis_sentinel_password, "man");
    config.redis_db = 2;
    CHECK(call() && reply.number == 1 && !redis_error(redis)[0]);
    CHECK(redis_call_again(redis, GET, &reply) && reply.number == 2);
    redis_free(redis);
    for (size_t i = 1; i < 3; i++)
        end(&sentinels[i]);
    end(&master);
    CHECK(strcmp(sentinels[1].heard, "AUTH watch man\n" ASKED) == 0);
    CHECK(strcmp(sentinels[2].heard, "AUTH watch man\n" ASKED "AUTH watch man\n" ASKED) == 0);
    CHECK(strcmp(master.heard, "AUTH open\nROLE\nSELECT 2\nGET k\nGET k\n"
                               "AUTH open\nROLE\nSELECT 2\nGET k\n") == 0);
}

/* What is named must say that it is a master; else the next Sentinel is asked. */
static void a_replica_is_no_master(void)
{
    struct fake sentinels[2] = {{.script = {{NULL}}}, {.script = {{NULL}}}};
    struct fake old = {.script = {{REPLICA}, {REPLICA}}}, new = {.script = {{MASTER, ":1\r\n"}}};
    char of_old[60], of_new[60];

    listen_at(&old, "127.0.0.1", 0);
    listen_at(&new, "127.0.0.1", 0);
    sentinels[0].script[0][0] = name_of(&old, of_old);
    sentinels[1].script[0][0] = name_of(&new, of_new);
    for (size_t i = 0; i < 2; i++)
        listen_at(&sentinels[i], "127.0.0.1", 0);
    open_sentinels(sentinels, 2);
    CHECK(!call() && !redis_is_connected(redis));
    CHECK(says(redis_error(redis), ": Sentinel names it, but it is not a master: wait"));
    CHECK(strcmp(redis_reason(redis), "Redis cannot be reached: Sentinel names it, but it is not "
                                      "a master") == 0);
    CHECK(call_in_time() && reply.number == 1);
    redis_free(redis);
    for (size_t i = 0; i < 2; i++)
        end(&sentinels[i]);
    end(&old);
    end(&new);
    CHECK(strcmp(old.heard, "ROLE\n") == 0 && strcmp(new.heard, "ROLE\nGET k\n") == 0);
}

/* A Sentinel that does not answer costs its share of the time, not all of it. */
static void a_silent_sentinel_is_passed_over(void)
{
    struct fake sentinels[2] = {{.script = {{SILENCE}, {SILENCE}, {SILENCE}}},
                                {.script = {{NULL}}}};
    struct fake master = {.script = {{MASTER, ":1\r\n"}, {MASTER, ":1\r\n"}}};
    char named[60];

    listen_at(&master, "127.0.0.1", 0);
    for (size_t i = 0; i < 4; i++)
        sentinels[1].script[i][0] = name_of(&master, named);
    for (size_t i = 0; i < 2; i++)
        listen_at(&sentinels[i], "127.0.0.1", 0);
    open_sentinels(sentinels, 2);
    CHECK(call_in_time() && reply.number == 1);
    redis_free(redis);
    for (size_t i = 0; i < 2; i++)
        end(&sentinels[i]);
    end(&master);
}

static void what_sentinels_say_is_told(void)
{
    static const struct {
        const char *said, *error, *reason;
    } rows[] = {
        {UNKNOWN, ": it does not know this master: correct [redis] sentinel_master",
         "Redis cannot be reached: it does not know this master"},
        {"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
         ": it does not know this master: correct [redis] sentinel_master",
         "Redis cannot be reached: it does not know this master"},
        {"-NOAUTH Authentication required.\r\n",
         ": NOAUTH Authentication required: correct [redis] sentinel_username and",
         "Redis says: NOAUTH Authentication required"},
        {NULL, ": Server closed the connection: is it running",
         "the connection to Redis broke: Server closed the connection"},
    };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct fake sentinel = {.script = {{rows[i].said}}};

        listen_at(&sentinel, "127.0.0.1", 0);
        open_sentinels(&sentinel, 1);
        if (!CHECK(!call() &&
                   strncmp(redis_error(redis), "Sentinel at 127.0.0.1 port ", 27) == 0) ||
            !CHECK(says(redis_error(redis), rows[i].error)) ||
            !CHECK(strcmp(redis_reason(redis), rows[i].reason) == 0))
            printf("%s\n%s\n", redis_error(redis), redis_reason(redis));
        redis_free(redis);
        end(&sentinel);
    }
}

static void a_port_without_a_server_is_told(void)
{
    struct fake fake = {.script = {{":1\r\n"}}};

    listen_at(&fake, "127.0.0.1", 0);
    end(&fake);
    config = config_for("127.0.0.1", &fake);
    redis = redis_new(&config);
    CHECK(!call());
    CHECK(strcmp(redis_reason(redis), "Redis cannot be reached: Connection refused") == 0);
    CHECK(
        says(redis_error(redis), ": Connection refused: start it there, or correct [redis] host"));
    redis_free(redis);
}

/* After a failover the old primary answers, as a replica: the name leads to the new one. */
static void the_name_is_looked_up_for_each_connection(void)
{
    struct fake old = {.script = {{":1\r\n", "-READONLY x\r\n"}}}, new = {.script = {{":2\r\n"}}};

    listen_at(&old, "127.0.0.1", 0);
    listen_at(&new, "127.0.0.2", old.port);
    config = config_for("redis.test", &old);
    redis = redis_new(&config);
    set_name("127.0.0.1", false);
    CHECK(redis_call_again(redis, GET, &reply) && reply.number == 1);
    set_name("127.0.0.2", false);
    CHECK(redis_call_again(redis, GET, &reply) && reply.number == 2);
    redis_free(redis);
    end(&old);
    end(&new);
    CHECK(accepted(&old) == 1 && accepted(&new) == 1);
}

/* getaddrinfo may hang for half a minute. One hangs at a time, and its answer is used when it
 * comes; nobody waits for it at the end. */
static void a_look_up_that_hangs_is_left(void)
{
    struct fake fake = {.script = {{":1\r\n"}}};

    fake_open(&fake, "redis.test");
    set_name("127.0.0.1", true);
    look_ups = 0;
    CHECK(!call());
    CHECK(strcmp(redis_reason(redis),
                 "Redis cannot be reached: its name is not resolved in time") == 0);
    poll(NULL, 0, 150); /* its pause is over */
    CHECK(!call() && accepted(&fake) == 0);
    set_name("127.0.0.1", false);
    CHECK(call_in_time() && look_ups == 1);
    redis_free(redis);
    redis = redis_new(&config);
    set_name("127.0.0.1", true);
    CHECK(!call());
    redis_free(redis);
    CHECK(is_hanging());
    set_name("127.0.0.1", false);
    end(&fake);
    poll(NULL, 0, 100); /* its thread frees what it has */
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    test_run("replies have their type", replies_have_their_type);
    test_run("each command of a pipeline has its result",
             each_command_of_a_pipeline_has_its_result);
    test_run("replies that are not taken are dropped", replies_that_are_not_taken_are_dropped);
    test_run("a server that cannot serve is left", a_server_that_cannot_serve_is_left);
    test_run("a pipeline is read to its end", a_pipeline_is_read_to_its_end);
    test_run("a connection that breaks is made again", a_connection_that_breaks_is_made_again);
    test_run("an idle connection is renewed", an_idle_connection_is_renewed);
    test_run("a server that does not answer is left", a_server_that_does_not_answer_is_left);
    test_run("a connection logs in", a_connection_logs_in);
    test_run("a user logs in", a_user_logs_in);
    test_run("a Sentinel names the master", a_sentinel_names_the_master);
    test_run("a replica is no master", a_replica_is_no_master);
    test_run("a silent Sentinel is passed over", a_silent_sentinel_is_passed_over);
    test_run("what Sentinels say is told", what_sentinels_say_is_told);
    test_run("a port without a server is told", a_port_without_a_server_is_told);
    test_run("the name is looked up for each connection",
             the_name_is_looked_up_for_each_connection);
    test_run("a look-up that hangs is left", a_look_up_that_hangs_is_left);
    return test_finish();
}
