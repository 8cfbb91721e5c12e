/* cluster_member.h - this node as one of those in Redis: it joins, and says at each heartbeat that
 * it lives. Used by the registry's thread, which may wait.
 * Refuses: to join beside a living node of the same name, or beside nodes of another cluster. */
#ifndef WSPUSH_CLUSTER_MEMBER_H
#define WSPUSH_CLUSTER_MEMBER_H

#include "cluster_store.h"

#define MEMBER_MAC_TEXT ((size_t)2 * CRYPTO_HASH_SIZE)

/* What nodes of one crypto_key, and of one exchange and vhost, have in common: hex digits. */
struct member_macs {
    char exchange[MEMBER_MAC_TEXT], key[MEMBER_MAC_TEXT];
};

struct member {
    struct store *store;
    struct member_macs macs[CRYPTO_KEYS_MAX]; /* for each key of the ring */
    size_t mac_count;
    char incarnation[24], ttl[24], key_ttl[24];
    bool joined;
    bool name_conflict; /* a living node has this one's name: it is of no use to go on */
    bool cleaned_up;    /* the tombstone was seen, and REVIVED not posted */
    unsigned early_beats;
    int64_t beat_at; /* when the last good heartbeat began; 0: none yet */
    int64_t next_beat;
    int64_t other_since, other_ttl; /* joining: a node of our name was first seen, and its TTL */
};

/* Prepares a member. False if OpenSSL fails. */
bool member_open(struct member *member, struct store *store, const struct crypto_keyring *keys);

/* What keeps this node from joining those that have left `line` in the key "key": a text, or NULL
 * for nothing. */
const char *member_check_line(const struct member *member, struct str line);

/* Joins, or does a heartbeat, if that is due. Posts WAITING, CONFLICT, JOINED, BACK, REVIVED, NODES
 * and NOTED. */
void member_step(struct member *member);

/* True if records may be written: this node lives, as far as it knows. */
bool member_is_alive(const struct member *member);

/* Leaves no trace, if it has joined: no records, no node. */
void member_leave(struct member *member);

#endif
