/* resume.c - what a client has been sent and may be sent again.
 *
 * A client's frames stand in a ring of references, which grows by doubling and is freed when it is
 * empty. `rings` of a frame counts those that hold it: `memory` counts its bytes with the first and
 * gives them back with the last. The list of those away is in the order of going away, so the first
 * is the next whose time is over.
 *
 * A key's text is the client's id, by which its node and the client are found, and eight random
 * bytes, which only its holder knows. Each return makes new ones; so a key that was used is worth
 * nothing, and none needs to be stored elsewhere. Only the loop's thread calls this module. */
#include "resume.h"

#include "crypto.h"

#include <stdlib.h>
#include <string.h>

#define RING_BITS_MIN 3 /* a new ring has 1 << 3 slots */
#define FRAME_COST 32   /* memory of a frame beside its bytes */

/* --- the frames that are kept ---------------------------------------------------------------- */

static uint32_t resume_slots(const struct resume *resume)
{
    return resume->ring ? 1u << resume->ring_bits : 0;
}

static void resume_drop_oldest(struct resumes *resumes, struct resume *resume)
{
    struct rcbuf *frame = resume_frame(resume, 0);

    resume->head = (resume->head + 1) & (resume_slots(resume) - 1);
    resume->kept--;
    resume->bytes -= frame->length;
    if (--frame->rings == 0)
        resumes->memory -= frame->length + FRAME_COST;
    rcbuf_release(frame);
}

/* Drops all frames but the newest `kept`. */
static void resume_trim(struct resumes *resumes, struct resume *resume, uint64_t kept)
{
    while (resume->kept > kept)
        resume_drop_oldest(resumes, resume);
    if (resume->kept || !resume->ring)
        return;
    resumes->memory -= resume_slots(resume) * sizeof(struct rcbuf *);
    free(resume->ring);
    resume->ring = NULL;
    resume->head = 0;
}

/* Puts a frame into the ring. False if there is no memory for it. */
static bool resume_keep(struct resumes *resumes, struct resume *resume, struct rcbuf *frame)
{
    uint32_t slots = resume_slots(resume);
    bool grows = resume->kept == slots;
    uint8_t bits = slots ? (uint8_t)(resume->ring_bits + 1) : RING_BITS_MIN;
    uint64_t cost = (grows ? (1u << bits) - slots : 0) * sizeof(struct rcbuf *) +
                    (frame->rings ? 0 : frame->length + FRAME_COST);
    struct rcbuf **ring;

    if (resumes->memory + cost > resumes->config->resume_memory)
        return false;
    if (grows) {
        ring = malloc((1u << bits) * sizeof(struct rcbuf *));
        if (!ring)
            return false;
        for (uint32_t i = 0; i < resume->kept; i++)
            ring[i] = resume_frame(resume, i);
        free(resume->ring);
        resume->ring = ring;
        resume->ring_bits = bits;
        resume->head = 0;
    }
    resumes->memory += cost;
    resume->ring[(resume->head + resume->kept++) & (resume_slots(resume) - 1)] = frame;
    resume->bytes += frame->length;
    frame->references++;
    frame->rings++;
    return true;
}

void resume_lose(struct resumes *resumes, struct resume *resume, enum resume_gap reason)
{
    resumes->gaps[reason] += !resume->is_gapped;
    resume->is_gapped = true;
    resume_trim(resumes, resume, 0);
}

/* The limit of one client that one more frame would pass, or RESUME_GAPS. */
static enum resume_gap resume_find_limit(const struct resumes *resumes, const struct resume *resume,
                                         const struct rcbuf *frame)
{
    if (resume->kept >= resumes->config->resume_frames)
        return RESUME_GAP_FRAMES;
    if ((uint64_t)resume->bytes + frame->length > resumes->config->resume_bytes)
        return RESUME_GAP_BYTES;
    return (enum resume_gap)RESUME_GAPS;
}

bool resume_add(struct resumes *resumes, struct resume *resume, struct rcbuf *frame)
{
    enum resume_gap limit;

    resume->sent++;
    if (resume->is_gapped)
        return false;
    while ((limit = resume_find_limit(resumes, resume, frame)) < RESUME_GAPS && !resume->is_away &&
           resume->kept)
        resume_drop_oldest(resumes, resume);
    if (limit == RESUME_GAPS && resume_keep(resumes, resume, frame))
        return true;
    if (resume->is_away)
        resume_lose(resumes, resume, limit == RESUME_GAPS ? RESUME_GAP_MEMORY : limit);
    else
        resume_trim(resumes, resume, 0); /* those before it are of no use without it */
    return false;
}

bool resume_ack(struct resumes *resumes, struct resume *resume, uint64_t received)
{
    if (received > resume->sent)
        return false;
    resume_trim(resumes, resume, resume->sent - received);
    return true;
}

/* --- going away and coming back -------------------------------------------------------------- */

bool resume_open(struct resumes *resumes, struct resume *resume, struct client *client)
{
    resumes->count++;
    resume->client = client;
    return crypto_random(&resume->key, sizeof resume->key);
}

void resume_leave(struct resumes *resumes, struct resume *resume, int64_t now)
{
    resume->is_away = true;
    resume->since = now;
    resume->previous = resumes->last;
    resume->next = NULL;
    if (resumes->last)
        resumes->last->next = resume;
    else
        resumes->first = resume;
    resumes->last = resume;
    resumes->away++;
}

/* Takes a client off the list of those away, if it is on it. */
static void resume_unlink(struct resumes *resumes, struct resume *resume)
{
    if (!resume->is_away)
        return;
    if (resume->previous)
        resume->previous->next = resume->next;
    else
        resumes->first = resume->next;
    if (resume->next)
        resume->next->previous = resume->previous;
    else
        resumes->last = resume->previous;
    resumes->away--;
    resume->is_away = false;
}

struct resume_answer resume_judge(const struct resume *resume, uint64_t key, uint64_t received)
{
    uint64_t sent = resume->sent + (key == resume->key ? 0 : resume->more);
    uint64_t count = received <= sent ? sent - received : sent;

    return (struct resume_answer){
        .sent = sent, .recovered = received <= sent && count <= resume->kept, .count = count};
}

bool resume_return(struct resumes *resumes, struct resume *resume, uint64_t key, uint64_t received,
                   struct resume_answer *answer)
{
    uint64_t fresh;

    if (!crypto_random(&fresh, sizeof fresh))
        return false;
    *answer = resume_judge(resume, key, received);
    resume_unlink(resumes, resume);
    resume_trim(resumes, resume, answer->recovered ? answer->count : 0);
    resume->is_gapped = false;
    resume->sent = answer->recovered ? answer->sent : 0;
    resume->more = answer->sent - resume->sent;
    resume->key_before = key;
    resume->has_key_before = true;
    resume->key = fresh;
    resumes->replayed += answer->recovered ? answer->count : 0;
    resumes->results[answer->recovered ? RESUME_RECOVERED : RESUME_MISSED]++;
    return true;
}

void resume_close(struct resumes *resumes, struct resume *resume)
{
    resume_unlink(resumes, resume);
    resume_trim(resumes, resume, 0);
    resumes->count--;
}

/* --- keys ------------------------------------------------------------------------------------ */

bool resume_write_key(const struct resume *resume, struct str id, struct buf *out)
{
    char bytes[sizeof resume->key], room[RESUME_SECRET_TEXT + 2];
    struct buf text = BUF_INIT(room);

    for (size_t i = 0; i < id.length; i++)
        buf_append(out, id.at[i] == '+'   ? STR("-")
                        : id.at[i] == '/' ? STR("_")
                                          : (struct str){id.at + i, 1});
    bytes_put_be(bytes, sizeof bytes, resume->key);
    return crypto_base64url(&text, (struct str){bytes, sizeof bytes}) &&
           buf_append(out, str_of(&text));
}

bool resume_read_key(struct str text, struct buf *id, uint64_t *key)
{
    char bytes[sizeof *key + 2];
    struct buf room = BUF_INIT(bytes);
    size_t length = text.length - RESUME_SECRET_TEXT;

    if (text.length <= RESUME_SECRET_TEXT || length > 255 ||
        !crypto_read_base64url(str_skip(text, length), &room) || room.length != sizeof *key)
        return false;
    *key = bytes_get_be(bytes, sizeof *key);
    for (size_t i = 0; i < length; i++) {
        char c = text.at[i];

        /* the id becomes JSON: what has no place in one must not get there */
        if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
              c == '-' || c == '_'))
            return false;
        buf_append(id, c == '-' ? STR("+") : c == '_' ? STR("/") : (struct str){text.at + i, 1});
    }
    return !id->failed;
}

bool resume_has_key(const struct resume *resume, uint64_t key)
{
    struct str given = {(const char *)&key, sizeof key};
    bool is_key = crypto_equal(given, (struct str){(const char *)&resume->key, sizeof key});
    bool is_before =
        crypto_equal(given, (struct str){(const char *)&resume->key_before, sizeof key});

    return is_key | (is_before & resume->has_key_before);
}
