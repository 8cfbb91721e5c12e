/* fuzz.h - what the fuzz targets share: the input taken apart, the same bytes given in whatever
 * pieces, and invariants that abort when they do not hold, so that a fuzzer and the replay of a
 * corpus see it alike. */
#ifndef WSPUSH_FUZZ_H
#define WSPUSH_FUZZ_H

#include "buf.h"

#include "test.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What a fuzzer, or replay.c, calls with each input. */
int LLVMFuzzerTestOneInput(const uint8_t *at, size_t length);

static inline void fuzz_require(bool condition, const char *file, int line, const char *text)
{
    if (condition)
        return;
    fprintf(stderr, "%s:%d: invariant broken: %s\n", file, line, text);
    abort();
}

/* An invariant. */
#define REQUIRE(condition) fuzz_require((condition), __FILE__, __LINE__, #condition)

/* --- taking the input apart ------------------------------------------------------------------ */

struct fuzz {
    const char *at;
    size_t length;
};

/* The next `length` bytes, or as many as there are. */
static inline struct str fuzz_take(struct fuzz *fuzz, size_t length)
{
    struct str taken = {fuzz->at, length < fuzz->length ? length : fuzz->length};

    if (taken.length) /* there may be no input at all */
        fuzz->at += taken.length;
    fuzz->length -= taken.length;
    return taken;
}

/* The next byte; 0 at the end. */
static inline unsigned fuzz_byte(struct fuzz *fuzz)
{
    struct str byte = fuzz_take(fuzz, 1);

    return byte.length ? (unsigned char)byte.at[0] : 0;
}

static inline struct str fuzz_rest(struct fuzz *fuzz)
{
    return fuzz_take(fuzz, fuzz->length);
}

/* --- views ----------------------------------------------------------------------------------- */

/* True if a view, unless it is empty, lies within these bytes. */
static inline bool is_inside(struct str view, struct str bytes)
{
    uintptr_t at = (uintptr_t)view.at, begin = (uintptr_t)bytes.at;

    return view.length == 0 || (at >= begin && at - begin <= bytes.length &&
                                view.length <= bytes.length - (at - begin));
}

static inline bool begins_with(struct str text, struct str begin)
{
    return text.length >= begin.length && str_equal((struct str){text.at, begin.length}, begin);
}

static inline bool ends_with(struct str text, struct str end)
{
    return text.length >= end.length &&
           str_equal((struct str){text.at + text.length - end.length, end.length}, end);
}

/* What stands behind the first `count` bytes. */
static inline struct str behind(struct str text, size_t count)
{
    return (struct str){count ? text.at + count : text.at, text.length - count};
}

/* --- the same bytes in pieces ---------------------------------------------------------------- */

/* How bytes are cut: 0 not at all, 1 into single bytes, other numbers somehow, but always alike. */
static inline size_t next_piece(uint32_t *split, size_t left)
{
    size_t piece = 1;

    if (*split == 0)
        return left;
    if (*split > 1)
        piece += next_random(split) % 24;
    return piece < left ? piece : left;
}

/* Bytes not used yet, in memory of just their size: a sanitizer sees a step past the end. */
struct feed {
    char *at;
    size_t length;
};

/* Replaces what is there by what is left of it behind `used` bytes, and `more`. */
static inline void feed_next(struct feed *feed, size_t used, struct str more)
{
    size_t kept = feed->length - used;
    char *at = malloc(kept + more.length ? kept + more.length : 1);

    if (!at)
        abort();
    if (kept)
        memcpy(at, feed->at + used, kept);
    if (more.length)
        memcpy(at + kept, more.at, more.length);
    free(feed->at);
    *feed = (struct feed){at, kept + more.length};
}

static inline struct str feed_view(const struct feed *feed)
{
    return (struct str){feed->at, feed->length};
}

static inline void feed_free(struct feed *feed)
{
    free(feed->at);
    *feed = (struct feed){0};
}

#endif
