/* notify.h - tells systemd, or whatever else has set NOTIFY_SOCKET, how the service is: the
 * protocol of sd_notify(3), one datagram to a socket of the file system or, on Linux, an abstract
 * one. Without NOTIFY_SOCKET nothing is told. */
#ifndef WSPUSH_NOTIFY_H
#define WSPUSH_NOTIFY_H

/* Sends lines such as "READY=1\nSTATUS=…"; does not wait. */
void notify_service(const char *lines);

/* RELOADING=1 with the time at which that began, as Type=notify-reload wants it. READY=1 ends it.
 */
void notify_reloading(void);

#endif
