/* resolver.c - cluster_lookup, for a thread that waits. */
#include "resolver.h"

#include "cluster_lookup.h"
#include "mailbox.h"

#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

static bool resolver_open(struct resolver *resolver)
{
    if (resolver->lookup)
        return true;
    if (!mailbox_pipe(resolver->pipe))
        return false;
    resolver->lookup = lookup_open(resolver->pipe[1]);
    if (resolver->lookup)
        return true;
    close(resolver->pipe[0]);
    close(resolver->pipe[1]);
    return false;
}

void resolver_close(struct resolver *resolver)
{
    if (!resolver->lookup)
        return;
    lookup_close(resolver->lookup);
    close(resolver->pipe[0]);
    close(resolver->pipe[1]);
    *resolver = (struct resolver){0};
}

static void resolver_add(struct resolver_result *result, const union lookup_address *address)
{
    if (getnameinfo(&address->any, lookup_size(address), result->addresses[result->count],
                    RESOLVER_TEXT_MAX, NULL, 0, NI_NUMERICHOST) == 0)
        result->count++;
}

void resolver_find(struct resolver *resolver, const char *host, int64_t limit,
                   struct resolver_result *result)
{
    struct pollfd ready = {.events = POLLIN};
    union lookup_address address;
    struct lookup_result *found;

    *result = (struct resolver_result){.error = "its name is not resolved in time"};
    if (lookup_read(str_from(host), &address)) {
        resolver_add(result, &address);
        return;
    }
    if (!resolver_open(resolver) ||
        !(resolver->asked = resolver->asked || lookup_ask(resolver->lookup, str_from(host)))) {
        result->error = "no thread or memory to look its name up";
        return;
    }
    ready.fd = resolver->pipe[0];
    poll(&ready, 1, (int)limit);
    mailbox_drain(ready.fd);
    found = lookup_take(resolver->lookup);
    if (!found)
        return;
    resolver->asked = false;
    if (found->error)
        result->error = found->error;
    for (size_t i = 0; i < found->count && i < RESOLVER_ADDRESSES_MAX; i++)
        resolver_add(result, &found->addresses[i]);
    free(found);
}
