/* ticket.h - tickets: JSON Web Tokens (RFC 7519) by which a business system says who may connect,
 * as which user, to which groups, and until when.
 *
 * A ticket is HEADER.PAYLOAD.SIGNATURE in base64url, signed with HMAC-SHA-256 (HS256; RFC 7515).
 * Nothing is stored: the key follows from crypto_key, the system and the version of its key, so
 * every node checks a ticket alone, and a business system can sign with any JWT library. Pure
 * functions of bytes, keys and a time that is passed in.
 * Rejects every algorithm but HS256 and every critical extension before anything is hashed, and
 * claims that are ill-typed or beyond their limits; other claims are ignored. */
#ifndef WSPUSH_TICKET_H
#define WSPUSH_TICKET_H

#include "crypto.h"
#include "json.h"

#define TICKET_MAX 4096     /* bytes of a ticket */
#define TICKET_NAME_MAX 128 /* of a system, a user and a group */
#define TICKET_EXTEND_MAX 1024
#define TICKET_GROUPS_MAX 64
#define TICKET_SKEW 5                    /* seconds that two clocks may differ */
#define TICKET_ROOM (TICKET_MAX * 3 / 2) /* bytes: what base64 says, and the strings in it */

/* Whether a client may come back after its connection has ended, see resume.h. */
enum claims_resume {
    CLAIMS_NO_RESUME,
    CLAIMS_RESUME,     /* it may */
    CLAIMS_RESUME_LOST /* it may, and is told that it is not the client that it has been */
};

/* Who a client is from its first frame on. The views belong to the room that the ticket was read
 * into, or to its maker. */
struct ticket_claims {
    struct str system;       /* sys */
    struct str user, extend; /* sub, ext; may be empty */
    struct str groups;       /* grp: a JSON array of names; may be empty */
    int64_t end;             /* end: unix second at which the connection ends; 0: it does not */
    bool is_signed;          /* by a ticket; false: the client has named a system, and no more */
    enum claims_resume resume;
    struct str key;    /* RESUME_LOST: the key of a session that may be on another node, */
    uint64_t received; /* and how many messages its client has */
};

struct ticket {
    struct ticket_claims claims;
    int64_t expires;      /* exp, unix seconds */
    struct str text;      /* that is signed: HEADER.PAYLOAD */
    struct str signature; /* as sent */
};

enum ticket_result {
    TICKET_OK,
    TICKET_MISSING,
    TICKET_MALFORMED, /* no ticket by the rules above, or one that is good for too long */
    TICKET_FORGED,    /* another key has signed it, or it is of another system */
    TICKET_EXPIRED,
    TICKET_RESULTS
};

/* The key of the ticket that was checked last: most are of one system. Zeroed is empty; one for
 * each keyring. */
struct ticket_key {
    uint64_t version;
    size_t length;
    char system[TICKET_NAME_MAX];
    struct crypto_mac mac; /* its owner calls crypto_mac_free in the end */
};

/* By what tickets of a system are judged. */
struct ticket_terms {
    uint64_t version; /* of the system's ticket key; the one before is good for `longest` more, */
    int64_t since;    /* from when this one is there, unix seconds */
    int64_t now;      /* unix seconds */
    int64_t longest;  /* seconds that a ticket may be good for: ticket_max */
    struct ticket_key *last; /* NULL: none is kept */
};

/* Reads a ticket without judging its signature and its time. `room` has room for TICKET_ROOM bytes.
 * False: it is malformed. */
bool ticket_read(struct str text, struct buf *room, struct ticket *ticket);

/* Judges a ticket that was read, under each of the keys. OK, MALFORMED, FORGED or EXPIRED. */
enum ticket_result ticket_check(const struct ticket *ticket, const struct crypto_keyring *keys,
                                const struct ticket_terms *terms);

/* The key of a system's tickets in this version. False if OpenSSL fails. */
bool ticket_derive_key(const struct crypto_keys *keys, uint64_t version, struct str system,
                       unsigned char key[CRYPTO_HASH_SIZE]);

/* Appends a ticket with these claims. False if it is longer than TICKET_MAX, or without memory. */
bool ticket_write(struct buf *out, const struct crypto_keys *keys, uint64_t version,
                  const struct ticket_claims *claims, int64_t expires);

/* True for an array of at most TICKET_GROUPS_MAX names. */
bool ticket_check_groups(struct json_value groups);

/* How many elements an array has; 0 for an empty view. */
size_t ticket_count_groups(struct str groups);

/* Takes the next name off such an array, decoded into `room`; start with the array's text. False at
 * the end. */
bool ticket_next_group(struct str *rest, char room[TICKET_NAME_MAX], struct str *name);

/* Makes *copy of claims, with views of `room`, which must not change. False without memory. */
bool ticket_copy_claims(const struct ticket_claims *claims, struct buf *room,
                        struct ticket_claims *copy);

#endif
