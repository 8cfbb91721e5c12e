/* cluster_adopt.h - a client whose session is on another node moves to this one.
 *
 * The key of the session names its node, A. This node, B, does:
 *
 *   ask       B to A, link:      ADOPT   whose session is it?
 *             A to B, link:      ADOPTED its user, extend, groups, end. A keeps it, away
 *   bind      B has the slots of all its channels bound
 *   let go    B to A, RabbitMQ:  ADOPT   give me the client, which has received N messages
 *             A to B, link:      ADOPTED the frames after N, and A's numbers. A forgets it
 *   confirm   B to A, link:      MOVED   webhooks are told (see cluster_farewell.h)
 *
 * The second ADOPT is one point in the order of the system's partition, which both nodes see. A has
 * counted all that comes before it and gives the client away there. B's ADOPT comes back to B at
 * the same point: from there on B keeps what comes for the client, as for one that is away. So each
 * message is kept by one of them: A's frames, then B's, are what the client lacks.
 *
 * Behind the point, RabbitMQ may repeat what was before it (a queue whose leader died; a notice
 * that is published again). A's last number of each origin makes that a repetition for B; if one
 * has come before A's answer, the client has a gap.
 *
 * Ends: adopted, with all frames or a gap; not adopted (A is silent for rpc_timeout, has left, or
 * does not know the key): the client begins anew; unreachable (RabbitMQ): A keeps it, and the
 * client tries again.
 * Rejects: more than ADOPT_BYTES_MAX bytes of frames: a gap. */
#ifndef WSPUSH_CLUSTER_ADOPT_H
#define WSPUSH_CLUSTER_ADOPT_H

#include "cluster_state.h"

#define ADOPT_BYTES_MAX (1024 * 1024)

/* Begins to adopt the client of claims->key. False: `result` says at once why not. Else a result
 * follows: SUCCESS with the client's number in `matched`, UNREACHABLE if its node keeps it; with
 * any other code there is no such client. */
bool adopt_begin(struct cluster *cluster, const struct ticket_claims *claims, uint64_t request_id,
                 struct result *result);

/* ADOPT, ADOPTED or MOVED has come over a link; ADOPT through RabbitMQ. */
void adopt_take_message(struct cluster *cluster, struct peer *peer, const struct cluster_msg *msg);
void adopt_take_publication(struct cluster *cluster, const struct wire_batch *batch,
                            const struct cluster_msg *msg);

/* A slot is bound for which a PENDING_ADOPT has waited. */
void adopt_take_bound(struct cluster *cluster, struct pending *pending);

/* A new publication has come, of the entry with this seq. */
void adopt_note(struct cluster *cluster, const struct wire_batch *batch);

/* Call when the result of a request is taken: of a PENDING_ADOPT it judges the code (OFFLINE: there
 * is no session), and ends what was begun for a client that is not adopted. */
void adopt_end(struct cluster *cluster, struct pending *pending);

/* Frees all that is under way. Call before the requests are freed. */
void adopt_close(struct cluster *cluster);

#endif
