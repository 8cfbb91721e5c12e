/* park.h - threads that watch quiet descriptors with poll(). Knows descriptors, nothing else.
 *
 * poll() costs time for every descriptor it is given, so a loop that polls 10,000 quiet ones with
 * each call is slow. Here each quiet descriptor has a place in a lot; one thread for each lot
 * waits until one of its descriptors is readable or broken, and gives that one back.
 * One thread, the owner, makes all calls. A descriptor that is being watched may be written to and
 * shut down, but must not be closed: shut down, it comes back.
 * Refuses: places beyond the limit, and threads that the system does not grant; the caller then
 * watches the descriptor itself. */
#ifndef WSPUSH_PARK_H
#define WSPUSH_PARK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Descriptors one thread watches. A thread costs two pages of memory, so more of them are cheaper;
 * but a frame from a quiet client is seen only when poll() has let go of all of them: in all 0.3
 * milliseconds go by until its pong leaves, and 0.25 with 256. */
#define PARK_LOT 512

struct park;

/* A car park whose threads write one byte to the non-blocking descriptor `wake` when something has
 * come back. No thread runs before the first place is taken. NULL when there is no memory. */
struct park *park_new(int wake, size_t max_lots);

/* Takes a place for the caller's number `token` (not UINT32_MAX), without watching yet. -1 if there
 * is none. */
int32_t park_take_place(struct park *park, uint32_t token);

/* Gives a place up, which must not be watched. */
void park_leave_place(struct park *park, int32_t place);

/* Watches a descriptor at its place until it comes back. */
void park_watch(struct park *park, int32_t place, int fd);

/* Tells the threads of this turn's park_watch calls: one wake-up for each lot. */
void park_commit(struct park *park);

/* Writes up to `max` tokens that have come back, and are no longer watched, to `tokens`; returns
 * how many. To be called until it returns fewer than `max`: only then is there a byte for the next
 * one that comes back. */
size_t park_returned(struct park *park, uint32_t *tokens, size_t max);

/* The tokens of all places taken in the lot of `place`, up to PARK_LOT of them. */
size_t park_neighbours(const struct park *park, int32_t place, uint32_t tokens[PARK_LOT]);

/* How many threads run. */
size_t park_threads(const struct park *park);

/* Ends the threads and frees everything. The descriptors are the caller's. */
void park_free(struct park *park);

#endif
