/* cluster_member.h - this node in Redis: it joins, and its heartbeat says that it lives. Used by
 * the registry's thread, which may wait.
 * Rejects: joining beside a live node of the same name, or beside nodes of another cluster. */
#ifndef WSPUSH_CLUSTER_MEMBER_H
#define WSPUSH_CLUSTER_MEMBER_H

#include "cluster_store.h"

#define MEMBER_MAC_TEXT ((size_t)2 * CRYPTO_HASH_SIZE)

/* MACs that all nodes of one crypto_key, exchange and vhost have in common; hex digits. */
struct member_macs {
    char exchange[MEMBER_MAC_TEXT], key[MEMBER_MAC_TEXT];
};

struct cluster_member {
    struct store *store;
    struct member_macs macs[CRYPTO_KEYS_MAX]; /* one for each key */
    size_t mac_count;
    char incarnation[24], ttl[24], key_ttl[24];
    bool tried; /* the reply to taking the name may have been lost */
    bool joined;
    bool name_conflict; /* a live node has this name: stop trying */
    bool cleaned_up;    /* the tombstone was seen, and REVIVED not posted yet */
    unsigned early_beats;
    int64_t beat_at; /* start of the last good heartbeat, os_now_ms; 0: none */
    int64_t next_beat;
    int64_t other_since, other_ttl; /* joining: a node of this name was first seen; its last TTL */
};

/* Computes the MACs. False if OpenSSL fails. */
bool member_open(struct cluster_member *member, struct store *store,
                 const struct crypto_keyring *keys);

/* Why this node must not join nodes that have left `line` in the key "key"; NULL if it may. */
const char *member_check_line(const struct cluster_member *member, struct str line);

/* Joins, or does a heartbeat, if that is due. Posts WAITING, NAME_CONFLICT, JOINED, RECONNECTED,
 * REVIVED, NODES and WARNING. */
void member_step(struct cluster_member *member);

/* True if records may be written: this node has just found that it lives. */
bool member_is_alive(const struct cluster_member *member);

/* Removes this node and its records, if it has joined. */
void member_leave(struct cluster_member *member);

#endif
