/* inbox.h - messages of clients on their way to webhooks: their pieces until they are whole, and
 * how often a client may send one (GCRA).
 *
 * Memory is taken only for a client with an unfinished message, or that has sent one in the last
 * seconds. Clients have numbers, which their owner chooses and does not use twice.
 * Refuses: pieces beyond INBOX_BYTES_MAX of all clients together, and messages that come too fast.
 */
#ifndef WSPUSH_INBOX_H
#define WSPUSH_INBOX_H

#include "buf.h"
#include "table.h"

#define INBOX_BYTES_MAX (16 * 1024 * 1024) /* of unfinished messages */
#define INBOX_BURST 20                     /* messages that may come at once */
#define INBOX_FLOOD 10 /* a client that sends so many times as often as it may is a flood */

/* Zeroed is empty. */
struct inbox {
    struct table clients;
    size_t bytes; /* of unfinished messages */
    size_t sweep; /* table_walk's place, for the next entry that may have become idle */
};

enum inbox_verdict { INBOX_PASSES, INBOX_TOO_FAST, INBOX_IS_FLOOD };

/* Appends a piece to a client's message, `first` to a new one. Returns the message, valid until the
 * next call; it has failed if it does not fit. NULL: its beginning is not known, or no memory. */
const struct buf *inbox_append(struct inbox *inbox, uint64_t client, struct str piece, bool first);

/* Drops a client's unfinished message. */
void inbox_clear(struct inbox *inbox, uint64_t client);

/* Judges a message that comes now (milliseconds of a steady clock), with `rate` a second allowed.
 * Without memory it passes. */
enum inbox_verdict inbox_judge(struct inbox *inbox, uint64_t client, uint64_t rate, int64_t now);

/* Forgets a client that has gone. */
void inbox_forget(struct inbox *inbox, uint64_t client);

void inbox_close(struct inbox *inbox);

#endif
