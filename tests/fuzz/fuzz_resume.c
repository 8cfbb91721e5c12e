/* fuzz_resume.c - coming back: a key that is taken apart is what would be written, and opens its
 * own client alone; and what is kept of frames, beside a list of all that were sent. */
#include "hub_resume.h"
#include "http.h"
#include "resume.h"

#include "fuzz.h"

#define FRAMES_MOST 1000

static struct config config;
static struct log no_log = {.level = LOG_ERROR};
static struct hub hub;
static struct conn_shared shared;
static struct conn conn;
static struct client *client;
static char key[RESUME_KEY_MAX];
static size_t key_length;

/* A hub with one client, whose key is another one in each process. */
static void prepare(void)
{
    static const struct ticket_claims claims = {.system = STR_INIT("shop"),
                                                .resume = CLAIMS_RESUME};
    struct buf text = BUF_INIT(key);

    if (client)
        return;
    config_defaults(&config);
    REQUIRE(hub_open(&hub, &config, &no_log));
    conn_open(&conn, -1, &shared);
    REQUIRE(hub_connect(&hub, &conn, &claims));
    client = conn.client;
    REQUIRE(resume_write_key(channel_resume(client), channel_client_id(client), &text));
    key_length = text.length;
}

/* --- keys ------------------------------------------------------------------------------------- */

/* A text that a peer has sent for a key. */
static void try_key(struct str given)
{
    char room[RESUME_KEY_MAX], again[RESUME_KEY_MAX];
    struct buf id = BUF_INIT(room), written = BUF_INIT(again);
    struct resume resume = {0};
    struct str text = exact_copy(given);
    uint64_t secret = 0;
    bool is_key = resume_read_key(text, &id, &resume.key);

    REQUIRE(!is_key || (id.length > 0 && id.length + RESUME_SECRET_TEXT == text.length));
    if (is_key) {
        REQUIRE(resume_write_key(&resume, str_of(&id), &written));
        REQUIRE(str_equal(str_of(&written), text));
    }
    REQUIRE(hub_resume_find(&hub, text, &secret) ==
            (str_equal(text, (struct str){key, key_length}) ? client : NULL));
    free_copy(text);
}

/* The client's key with some bytes changed, cut short, or with more behind it. */
static void try_near_key(struct fuzz *fuzz)
{
    char room[2 * RESUME_KEY_MAX];
    struct buf text = BUF_INIT(room);
    unsigned length = fuzz_byte(fuzz);

    buf_append(&text, (struct str){key, length < key_length ? length : key_length});
    for (unsigned changes = fuzz_byte(fuzz) % 4; changes && text.length; changes--) {
        size_t at = fuzz_byte(fuzz) % text.length;

        room[at] = (char)(room[at] ^ (int)fuzz_byte(fuzz));
    }
    buf_append(&text, fuzz_take(fuzz, RESUME_KEY_MAX));
    try_key(str_of(&text));
}

/* As a session reads it. */
static void try_query(struct str query)
{
    char room[RESUME_KEY_MAX], digits[20];
    struct buf text = BUF_INIT(room), received = BUF_INIT(digits);
    uint64_t number = UINT64_MAX;

    if (http_query(query, STR("received"), &received))
        str_number(str_of(&received), UINT64_MAX, &number);
    REQUIRE(number == UINT64_MAX || received.length <= 20);
    if (http_query(query, STR("resume"), &text))
        try_key(str_of(&text));
}

/* --- frames ----------------------------------------------------------------------------------- */

/* What was sent, how much of it the client has said to have, and where its count begins. */
struct model {
    struct rcbuf *sent[FRAMES_MOST];
    uint64_t count, acked, base;
};

/* Whatever the ring says to have, it has; and it has what it must. */
static void require_kept(const struct resumes *resumes, const struct resume *resume,
                         const struct model *model)
{
    uint64_t bytes = 0;

    REQUIRE(resume->sent == model->count - model->base);
    REQUIRE(resume->kept <= config.resume_frames && resume->kept <= model->count - model->base);
    for (uint32_t i = 0; i < resume->kept; i++) {
        REQUIRE(resume_frame(resume, i) == model->sent[model->count - resume->kept + i]);
        bytes += resume_frame(resume, i)->length;
    }
    REQUIRE(bytes == resume->bytes && bytes <= config.resume_bytes);
    REQUIRE(resumes->memory <= config.resume_memory && resumes->memory >= bytes);
    REQUIRE(resume->kept <= (resume->ring ? 1u << resume->ring_bits : 0));
    REQUIRE(resumes->away == resume->is_away && (!resume->is_gapped || resume->is_away));
    for (uint64_t n = 0; n <= model->count - model->base + 1; n++) {
        struct resume_answer answer = resume_judge(resume, resume->key, n);

        REQUIRE(!answer.recovered || answer.count <= resume->kept);
        REQUIRE(n > model->count - model->base || answer.count == model->count - model->base - n);
    }
}

static void act(struct resumes *resumes, struct resume *resume, struct model *model,
                struct fuzz *fuzz)
{
    unsigned what = fuzz_byte(fuzz), number = fuzz_byte(fuzz);
    struct resume_answer answer;

    switch (what % 6) {
    case 0:
        resume_confirm(resume);
        if (!resume->is_away)
            REQUIRE(resume_ack(resumes, resume, number) == (number <= model->count - model->base));
        break;
    case 1:
        if (!resume->is_away)
            resume_leave(resumes, resume, number);
        break;
    case 2:
        if (resume->is_away)
            resume_lose(resumes, resume, (enum resume_gap)(number % RESUME_GAPS));
        break;
    case 3:
        REQUIRE(resume_return(resumes, resume, resume->key, number, &answer));
        REQUIRE(resume_has_key(resume, resume->key_before) && !resume->is_away);
        if (!answer.recovered)
            model->base = model->count;
        break;
    default:
        if (model->count == FRAMES_MOST)
            break;
        model->sent[model->count] = rcbuf_new(number * (what % 3 ? 1 : 20));
        REQUIRE(model->sent[model->count] != NULL);
        resume_add(resumes, resume, model->sent[model->count++]);
    }
}

static void try_frames(struct fuzz *fuzz)
{
    struct resumes resumes = {.config = &config};
    struct resume resume = {0};
    struct model model = {0};

    config.resume_frames = 1 + fuzz_byte(fuzz) % 40;
    config.resume_bytes = 1 + fuzz_byte(fuzz) * 16;
    config.resume_memory = fuzz_byte(fuzz) * 32;
    REQUIRE(resume_open(&resumes, &resume, NULL));
    while (fuzz->length) {
        act(&resumes, &resume, &model, fuzz);
        require_kept(&resumes, &resume, &model);
    }
    resume_close(&resumes, &resume);
    REQUIRE(resumes.memory == 0 && resumes.away == 0 && !resumes.first);
    for (uint64_t i = 0; i < model.count; i++) {
        REQUIRE(model.sent[i]->references == 1 && model.sent[i]->rings == 0);
        rcbuf_release(model.sent[i]);
    }
    config_defaults(&config);
}

int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length)
{
    struct fuzz fuzz = {(const char *)at, length};

    prepare();
    switch (fuzz_byte(&fuzz) % 4) {
    case 0:
        try_key(fuzz_rest(&fuzz));
        break;
    case 1:
        try_near_key(&fuzz);
        break;
    case 2:
        try_query(fuzz_rest(&fuzz));
        break;
    default:
        try_frames(&fuzz);
    }
    return 0;
}
