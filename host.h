/* host.h - hosts as text: addresses, names, HOST:PORT, networks, origins of pages. Pure functions
 * of bytes. */
#ifndef WSPUSH_HOST_H
#define WSPUSH_HOST_H

#include "buf.h"

/* True for an address that one machine can have (IPv4, or IPv6 without brackets) and for a name as
 * in RFC 1123, section 2.1. */
bool host_is_reachable(struct str host);

/* Splits HOST, HOST:PORT, [IPV6], [IPV6]:PORT or IPV6. The host comes without brackets; port 0
 * stands for none. False for any other text. */
bool host_split(struct str text, struct str *host, uint64_t *port);

/* The entries of a list separated by spaces or commas. */
size_t host_list_length(struct str list);

/* The entry at `index` of a list of HOST or HOST:PORT, separated by spaces or commas; an index
 * beyond the last begins again with the first. False if the list is empty. */
bool host_of_list(struct str list, size_t index, struct str *host, uint64_t *port);

/* Takes the next network off a list: its address (IPv4 as ::ffff:a.b.c.d), of which the first
 * `bits` bits count (of IPv4 96 more). False at the end, where only separators are left in `rest`,
 * and at what is no network, with which `rest` then begins. */
bool host_next_network(struct str *rest, unsigned char address[16], unsigned *bits);

/* True for an entry of a list of origins: "*", "null", or "scheme://host[:port]", with "*." before
 * the host for all its subdomains, and one slash at its end or none. False for what no page could
 * match, such as a path, or ws:// (a page that opens it has come by http://). */
bool host_origin_is_good(struct str entry);

/* True if `list`, separated by spaces or commas, is empty or has this origin (RFC 6454) as a
 * browser sends it: scheme and host without regard to case, default ports filled in. */
bool host_origin_is_allowed(struct str list, struct str origin);

#endif
