/* mailbox.c - how threads hand things to each other. */
#include "mailbox.h"

#include <fcntl.h>
#include <sys/types.h>
#include <unistd.h>

void mailbox_open(struct mailbox *box, int wake)
{
    *box = (struct mailbox){.wake = wake};
    pthread_mutex_init(&box->lock, NULL);
}

void mailbox_post(struct mailbox *box, struct mail *mail)
{
    bool was_empty;

    mail->next = NULL;
    pthread_mutex_lock(&box->lock);
    was_empty = box->first == NULL;
    if (was_empty)
        box->first = mail;
    else
        box->last->next = mail;
    box->last = mail;
    pthread_mutex_unlock(&box->lock);
    /* the reader takes all at once: one byte for each time that there is something new. A full pipe
     * wakes it as well */
    if (was_empty && write(box->wake, "m", 1) < 0)
        return;
}

struct mail *mailbox_take(struct mailbox *box)
{
    struct mail *list;

    pthread_mutex_lock(&box->lock);
    list = box->first;
    box->first = box->last = NULL;
    pthread_mutex_unlock(&box->lock);
    return list;
}

void mailbox_close(struct mailbox *box)
{
    pthread_mutex_destroy(&box->lock);
}

bool mailbox_pipe(int ends[2])
{
    if (pipe(ends) != 0)
        return false;
    for (int i = 0; i < 2; i++)
        fcntl(ends[i], F_SETFL, O_NONBLOCK);
    return true;
}

void mailbox_drain(int fd)
{
    char bytes[256];

    while (read(fd, bytes, sizeof bytes) == (ssize_t)sizeof bytes)
        ;
}
