/* poller.h - threads that poll() idle descriptors. Knows descriptors, nothing else.
 *
 * poll() costs time for every descriptor it is given, so a loop that polls 10,000 idle ones in each
 * iteration is slow. Here each idle descriptor has a slot in a poller; the poller's thread waits
 * until one of its descriptors is readable or broken and hands that one back.
 * One thread, the owner, makes all calls. An armed descriptor may be written to and shut down, but
 * must not be closed: shut down, it becomes ready.
 * Rejects: slots beyond the limit, and threads that the system does not grant; the caller then
 * polls the descriptor itself. */
#ifndef WSPUSH_POLLER_H
#define WSPUSH_POLLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Slots of one poller. A thread costs two pages of memory, so larger pollers are cheaper; but a
 * frame from an idle client is seen only when poll() has let go of all descriptors: 0.3 ms pass
 * until its pong leaves, and 0.25 ms with 256 slots. */
#define POLLER_SLOTS 512

struct pollers;

/* Pollers that write one byte to the non-blocking descriptor `wake` when the first of them has
 * something ready. No thread runs before the first slot is taken. NULL without memory. */
struct pollers *poller_open(int wake, size_t max_pollers);

/* Takes a slot for the caller's number `token` (not UINT32_MAX) without polling yet. Returns the
 * slot, or -1 if there is none. */
int32_t poller_take_slot(struct pollers *pollers, uint32_t token);

/* Frees a slot, which must not be armed. */
void poller_free_slot(struct pollers *pollers, int32_t slot);

/* Has the descriptor polled for input, once: until poller_ready returns its token. */
void poller_arm(struct pollers *pollers, int32_t slot, int fd);

/* Passes on all poller_arm calls since the last commit: one wake-up per poller concerned. */
void poller_commit(struct pollers *pollers);

/* Writes up to `max` tokens that have become ready, and are disarmed, to `tokens`; returns how
 * many. Call until it returns fewer than `max`: only then does the next one write to `wake`. */
size_t poller_ready(struct pollers *pollers, uint32_t *tokens, size_t max);

/* Writes the tokens of all slots taken in the poller of `slot`; returns how many. */
size_t poller_siblings(const struct pollers *pollers, int32_t slot, uint32_t tokens[POLLER_SLOTS]);

/* The number of threads. */
size_t poller_count(const struct pollers *pollers);

/* Ends the threads and frees everything; the descriptors stay open. NULL is allowed. */
void poller_close(struct pollers *pollers);

#endif
