/* origin.h - the origins of pages (RFC 6454), as browsers send them, and lists of those allowed.
 * Compares without allocating: scheme and host without regard to case, default ports filled in.
 * Refuses: entries that no page could ever match, such as a path or a host without a scheme. */
#ifndef WSPUSH_ORIGIN_H
#define WSPUSH_ORIGIN_H

#include "buf.h"

/* True for an entry of a list: "*", "null", or "scheme://host[:port]", which may have "*." in front
 * of the host for all its subdomains, and one slash at its end. */
bool origin_is_good(struct str entry);

/* True if `list`, entries with spaces or commas between them, is empty or has this origin. */
bool origin_is_allowed(struct str list, struct str origin);

#endif
