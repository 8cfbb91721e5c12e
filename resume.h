/* resume.h - what a client has been sent and may be sent again: its text frames, counted and kept,
 * and the key with which it comes back. Knows neither sockets nor sessions.
 *
 * Client and server count the text frames from 1 and put no number into them. The client says how
 * many it has received (`ack N`, and when it comes back), so recovery is arithmetic: of `sent`
 * frames the last `kept` are here, and those after N can be sent again if N <= sent and
 * sent - N <= kept.
 *
 * While a client is connected, the oldest frames give way to new ones. While it is away they must
 * not: what does not fit is a gap, which frees all its frames at once. A frame that many clients
 * are sent is kept once, by reference.
 * Refuses: to keep frames beyond [resume] frames and bytes of one client, and beyond `memory` of
 * all of them. */
#ifndef WSPUSH_RESUME_H
#define WSPUSH_RESUME_H

#include "buf.h"
#include "config.h"

struct client;

/* Why frames were not kept for a client that is away. */
enum resume_gap {
    RESUME_GAP_FRAMES,
    RESUME_GAP_BYTES,
    RESUME_GAP_MEMORY,
    RESUME_GAP_SLOW,
    RESUME_GAP_MOVED /* the node before had not all of them */
};
#define RESUME_GAPS 5

/* How attempts to come back end. */
enum resume_result { RESUME_RECOVERED, RESUME_MISSED, RESUME_UNKNOWN };
#define RESUME_RESULTS 3

/* What is kept for one client; it is part of its memory. */
struct resume {
    struct resume *next, *previous; /* among those away */
    struct client *client;
    struct rcbuf **ring; /* 1 << `ring_bits` slots; NULL: nothing is kept */
    uint32_t head, kept; /* head: the slot of the oldest frame */
    uint32_t bytes;      /* of the frames kept */
    uint8_t ring_bits;
    bool is_away : 1;
    bool is_gapped : 1;       /* away: nothing more is kept */
    bool has_key_before : 1;  /* it is still good */
    bool is_held : 1;         /* it comes from another node, and nobody is told of it yet */
    uint64_t sent, more;      /* frames in its count; under the key before, so many more */
    uint64_t key, key_before; /* random, as in the texts of the keys */
    int64_t since;            /* away: from when, milliseconds of a steady clock */
};

/* Those of a node. Zeroed except for the configuration, it is empty. */
struct resumes {
    const struct config *config;
    struct resume *first, *last; /* those away, longest first */
    size_t count, away;          /* all of them; those away */
    uint64_t memory;             /* bytes of frames kept, each once, and of rings */
    uint64_t results[RESUME_RESULTS], gaps[RESUME_GAPS], replayed, moved; /* ever */
};

/* Begins to count for a client, with its first key. `resume` is zeroed. False without random
 * bytes. */
bool resume_open(struct resumes *resumes, struct resume *resume, struct client *client);

/* Frees what is kept for a client that ends. */
void resume_close(struct resumes *resumes, struct resume *resume);

/* Counts a frame that a client is sent, and keeps it if it fits. False: it is not kept. */
bool resume_add(struct resumes *resumes, struct resume *resume, struct rcbuf *frame);

/* The client, which is connected, has received so many frames: they need not be kept any longer.
 * False if it was not sent as many. */
bool resume_ack(struct resumes *resumes, struct resume *resume, uint64_t received);

/* The client goes away now (milliseconds of a steady clock). */
void resume_leave(struct resumes *resumes, struct resume *resume, int64_t now);

/* A frame for a client that is away, or is about to be, was lost: frees all that is kept. */
void resume_lose(struct resumes *resumes, struct resume *resume, enum resume_gap reason);

/* What a client that comes back is told. */
struct resume_answer {
    uint64_t sent;  /* frames, in its count */
    bool recovered; /* all after those that it has received are kept, */
    uint64_t count; /* so many; else it misses so many */
};

/* Judges the return of a client with a key of its own, which has received so many frames. A number
 * that it cannot have received counts as none. */
struct resume_answer resume_judge(const struct resume *resume, uint64_t key, uint64_t received);

/* The client is back: judges, drops the frames that it has, or all if it is not recovered: then its
 * count begins at 0. Makes a new key; the one that it came with stays good until its next message
 * (resume_confirm), for it may not learn the new one. False without random bytes: nothing has
 * changed. */
bool resume_return(struct resumes *resumes, struct resume *resume, uint64_t key, uint64_t received,
                   struct resume_answer *answer);

/* The client has sent a message, so it knows its key. */
static inline void resume_confirm(struct resume *resume)
{
    resume->has_key_before = false;
}

/* The frame at a place from 0, the oldest, to `kept` - 1. */
static inline struct rcbuf *resume_frame(const struct resume *resume, uint32_t place)
{
    return resume->ring[(resume->head + place) & ((1u << resume->ring_bits) - 1)];
}

/* --- keys ------------------------------------------------------------------------------------- */

#define RESUME_SECRET_TEXT 11 /* what a key's text has behind the client's id */
#define RESUME_KEY_MAX (255 + RESUME_SECRET_TEXT + 1)

/* Appends the text of a client's key: its id and the key's bytes, in base64url. */
bool resume_write_key(const struct resume *resume, struct str id, struct buf *out);

/* Splits such a text: appends the client's id to `id`. False if it cannot be a key. */
bool resume_read_key(struct str text, struct buf *id, uint64_t *key);

/* True for the client's present key, and for the one before while that is good. Compares in
 * constant time. */
bool resume_has_key(const struct resume *resume, uint64_t key);

#endif
