/* mailbox.h - how threads hand things to each other: a queue under a lock, and a byte on a pipe
 * that wakes who waits in poll(). Refuses: nothing; who posts bounds how much. */
#ifndef WSPUSH_MAILBOX_H
#define WSPUSH_MAILBOX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

/* The first member of whatever is posted. */
struct mail {
    struct mail *next;
};

struct mailbox {
    pthread_mutex_t lock;
    struct mail *first, *last; /* oldest first */
    int wake;                  /* a non-blocking descriptor */
};

/* Prepares a mailbox that wakes its reader through `wake`. */
void mailbox_open(struct mailbox *box, int wake);

/* Posts something; it belongs to who takes it. */
void mailbox_post(struct mailbox *box, struct mail *mail);

/* Takes all there is, as a list, oldest first; NULL if there is nothing. */
struct mail *mailbox_take(struct mailbox *box);

/* To be called when nobody posts any more; what has not been taken is to be taken first. */
void mailbox_close(struct mailbox *box);

/* A pipe with both ends non-blocking. False: errno. */
bool mailbox_pipe(int ends[2]);

/* Empties the reading end of such a pipe. */
void mailbox_drain(int fd);

#endif
