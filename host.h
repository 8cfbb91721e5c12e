/* host.h - hosts as text: addresses, names, HOST:PORT, networks. Pure functions of bytes.
 * Refuses: what is none of them, and addresses that no machine has. */
#ifndef WSPUSH_HOST_H
#define WSPUSH_HOST_H

#include "buf.h"

/* True for an address that one machine can have (IPv4, or IPv6 without brackets), and for a name as
 * in RFC 1123. */
bool host_is_reachable(struct str host);

/* Splits HOST, HOST:PORT, [IPV6], [IPV6]:PORT or IPV6; the host comes without brackets, port 0
 * stands for none. False for every other text. */
bool host_split(struct str text, struct str *host, uint64_t *port);

/* Takes the next network off a list such as that of trusted_proxies: its address, of which the
 * first `bits` bits count; IPv4 as ::ffff:a.b.c.d, with 96 bits more. False at the end, where
 * nothing but separators is left in `rest`, and at what is no network, with which `rest` then
 * begins. */
bool host_next_network(struct str *rest, unsigned char address[16], unsigned *bits);

#endif
