/* buf.h - views of bytes, a growable buffer, numbers and UTF-8 read safely.
 *
 * Everything that comes from a peer is held in one of these two: a `struct str`
 * that points into somebody else's bytes, or a `struct buf` that owns them.
 * Neither ends in a NUL, so a NUL from a peer is a byte like any other.
 * Refuses: growth past a buffer's limit, numbers with signs, spaces or overflow. */
#ifndef WSPUSH_BUF_H
#define WSPUSH_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A view: `length` bytes at `at`, owned by someone else. {NULL, 0} is the empty view. */
struct str {
    const char *at;
    size_t length;
};

/* A view of a string literal: in an expression, and in a static initialiser. */
#define STR(literal) ((struct str)STR_INIT(literal))
#define STR_INIT(literal)                                                                          \
    {                                                                                              \
        "" literal, sizeof(literal) - 1                                                            \
    }

/* Owned bytes. `limit` is the greatest length in bytes, 0 for no limit. `failed` is set once
 * something did not fit or memory ran out; from then on nothing is appended, and every call says
 * false. So append freely, and look once at the end. */
struct buf {
    char *at;
    size_t length, capacity, limit;
    bool failed;
};

/* A view of a C string; NULL gives the empty view. */
struct str str_from(const char *text);

/* A view of what a buffer holds; it ends with the buffer's next change. */
struct str str_of(const struct buf *buf);

bool str_equal(struct str a, struct str b);

/* Like str_equal, but ASCII letters match without regard to case. */
bool str_equal_nocase(struct str a, struct str b);

/* The same view without the spaces and tabs at both ends. */
struct str str_trim(struct str text);

/* Cuts what stands before the first `separator` off `rest` and returns it; without a separator
 * all of it. `rest` goes on behind the separator, and is {NULL, 0} once nothing is left. */
struct str str_cut(struct str *rest, char separator);

/* Takes the next entry off a list that has spaces and commas between its entries; an empty view at
 * the end. */
struct str str_entry(struct str *rest);

/* Reads a decimal number of 1 to 20 digits, digits alone, from 0 to `max`.
 * False, and *number untouched, for anything else. */
bool str_number(struct str text, uint64_t max, uint64_t *number);

/* A keyed hash: a polynomial over the prime 2^31 - 1 at a point drawn from `seed`. Whoever does
 * not know the seed cannot make texts of n bytes collide more often than n in 2^31. */
uint32_t str_hash(struct str text, uint32_t seed);

/* UTF-8 checked piece by piece (RFC 3629: no overlong form, no surrogate, nothing past U+10FFFF).
 * A zeroed state is the start of a text; the text may end where `missing` is 0. */
struct utf8 {
    uint8_t missing;   /* continuation bytes still to come */
    uint8_t low, high; /* range of the next one, when it is the second of its character */
};

/* Takes the next bytes of a text. False at the first byte that cannot stand where it stands. */
bool utf8_feed(struct utf8 *state, struct str bytes);

/* True for a whole text of valid UTF-8. */
bool utf8_valid(struct str text);

/* Makes room for `more` bytes behind the present ones. False if that is past the limit, there is
 * no memory, or the buffer has failed before; it keeps what it has and is marked as failed. */
bool buf_reserve(struct buf *buf, size_t more);

bool buf_append(struct buf *buf, struct str bytes);

/* Appends a number in decimal. */
bool buf_append_number(struct buf *buf, int64_t number);

/* Drops the first `count` bytes (at most all) and moves the rest to the front. */
void buf_consume(struct buf *buf, size_t count);

/* Frees the memory; the buffer is empty and usable again, with its limit. */
void buf_free(struct buf *buf);

#endif
