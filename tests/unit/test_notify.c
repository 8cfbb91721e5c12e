/* test_notify.c - notify.c: what is told reaches who has asked for it, and who has not, or does not
 * listen, is not waited for. */
#include "notify.h"

#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define ROOM sizeof(((struct sockaddr_un *)0)->sun_path)

static char folder[32];

/* A path in the test's folder, of just this length. */
static const char *path_of(size_t length)
{
    static char path[200];

    memset(path, 'n', sizeof path);
    memcpy(path, folder, strlen(folder));
    path[strlen(folder)] = '/';
    path[length] = '\0';
    return path;
}

/* Binds a socket for datagrams, that does not block, to what NOTIFY_SOCKET is to say; -1 if the
 * system has no such address. */
static int hear(const char *path)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    memcpy(at.sun_path, path, strlen(path));
    if (path[0] == '@')
        at.sun_path[0] = '\0';
    CHECK(fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    if (bind(fd, (struct sockaddr *)&at,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path))) == 0)
        return fd;
    close(fd);
    return -1;
}

/* True if this is the next datagram; NULL is none. */
static bool heard(int fd, const char *text)
{
    char room[500];
    ssize_t length = recv(fd, room, sizeof room - 1, 0);

    if (length < 0)
        return !text;
    room[length] = '\0';
    if (text && strcmp(room, text) == 0)
        return true;
    printf("  heard: %s\n", room);
    return false;
}

static void a_path_is_told(void)
{
    int fd = hear(path_of(40));

    setenv("NOTIFY_SOCKET", path_of(40), 1);
    notify_service("READY=1\nSTATUS=serving");
    notify_service("STOPPING=1");
    CHECK(heard(fd, "READY=1\nSTATUS=serving") && heard(fd, "STOPPING=1") && heard(fd, NULL));
    close(fd);
    CHECK(unlink(path_of(40)) == 0);
}

/* A name without a file, which Linux has: told with its length, so that what is behind it in the
 * address is not part of it. */
static void an_abstract_name_is_told(void)
{
#ifdef __linux__
    char name[60];
    int fd;

    snprintf(name, sizeof name, "@wspush-test-%ld", (long)getpid());
    fd = hear(name);
    setenv("NOTIFY_SOCKET", name, 1);
    notify_service("READY=1");
    CHECK(fd >= 0 && heard(fd, "READY=1") && heard(fd, NULL));
    close(fd);
#else
    printf("skip abstract names, which only Linux has\n");
#endif
}

/* A path must leave room for its end. */
static void a_path_may_be_too_long(void)
{
    for (size_t length = ROOM - 2; length < ROOM + 20; length++) {
        int fd = length < ROOM ? hear(path_of(length)) : -1;

        setenv("NOTIFY_SOCKET", path_of(length), 1);
        notify_service("READY=1");
        if (length < ROOM) {
            CHECK(fd >= 0 && heard(fd, "READY=1"));
            CHECK(close(fd) == 0 && unlink(path_of(length)) == 0);
        }
    }
}

/* What is no address is not one, also where a part of it would be. */
static void what_is_no_address_is_left_alone(void)
{
    static const char *const wrong[] = {"", "/", "@", "nobody", "n/a", "vsock:2:1234", " /n"};
    int fd;

    CHECK(chdir(folder) == 0);
    fd = hear("nobody");
    for (size_t i = 0; i < COUNT(wrong); i++) {
        setenv("NOTIFY_SOCKET", wrong[i], 1);
        notify_service("READY=1");
    }
    CHECK(fd >= 0 && heard(fd, NULL));
    close(fd);
    CHECK(unlink("nobody") == 0 && chdir("/") == 0);
}

static void who_has_not_asked_is_not_told(void)
{
    int fd = hear(path_of(40));

    unsetenv("NOTIFY_SOCKET");
    notify_service("READY=1");
    notify_reloading();
    CHECK(heard(fd, NULL));
    close(fd);
    CHECK(unlink(path_of(40)) == 0);
}

/* The number that the next descriptor will have. */
static int next_descriptor(void)
{
    int fd = dup(STDOUT_FILENO);

    close(fd);
    return fd;
}

/* Nobody there, nobody any more, or not a socket: nothing happens, and nothing stays open. */
static void nobody_has_to_listen(void)
{
    int before = next_descriptor(), fd;

    setenv("NOTIFY_SOCKET", path_of(40), 1);
    notify_service("READY=1");
    fd = hear(path_of(40));
    close(fd);
    notify_service("READY=1");
    CHECK(unlink(path_of(40)) == 0);
    setenv("NOTIFY_SOCKET", folder, 1);
    notify_service("READY=1");
    CHECK(next_descriptor() == before);
}

/* Who listens and does not read is not waited for: the test would hang. */
static void a_full_socket_is_not_waited_for(void)
{
    int fd = hear(path_of(40));

    setenv("NOTIFY_SOCKET", path_of(40), 1);
    alarm(20);
    for (int i = 0; i < 5000; i++)
        notify_service("STATUS=again");
    alarm(0);
    CHECK(heard(fd, "STATUS=again"));
    close(fd);
    CHECK(unlink(path_of(40)) == 0);
}

static void reloading_tells_the_time(void)
{
    struct timespec before, after;
    char room[200] = "";
    unsigned long long now;
    int fd = hear(path_of(40));

    setenv("NOTIFY_SOCKET", path_of(40), 1);
    /* early in a second, where the microseconds begin with a zero */
    clock_gettime(CLOCK_MONOTONIC, &before);
    nanosleep(&(struct timespec){.tv_nsec = 999999999 - before.tv_nsec}, NULL);
    clock_gettime(CLOCK_MONOTONIC, &before);
    notify_reloading();
    clock_gettime(CLOCK_MONOTONIC, &after);
    CHECK(recv(fd, room, sizeof room - 1, 0) > 0);
    CHECK(strncmp(room, "RELOADING=1\nMONOTONIC_USEC=", 27) == 0);
    CHECK(strspn(room + 27, "0123456789") == strlen(room + 27));
    now = strtoull(room + 27, NULL, 10);
    CHECK(now >=
          (unsigned long long)before.tv_sec * 1000000 + (unsigned long long)before.tv_nsec / 1000);
    CHECK(now <=
          (unsigned long long)after.tv_sec * 1000000 + (unsigned long long)after.tv_nsec / 1000);
    close(fd);
    CHECK(unlink(path_of(40)) == 0);
}

int main(void)
{
    strcpy(folder, "/tmp/wspush-unit.XXXXXX");
    if (!mkdtemp(folder))
        abort();
    test_run("a_path_is_told", a_path_is_told);
    test_run("an_abstract_name_is_told", an_abstract_name_is_told);
    test_run("a_path_may_be_too_long", a_path_may_be_too_long);
    test_run("what_is_no_address_is_left_alone", what_is_no_address_is_left_alone);
    test_run("who_has_not_asked_is_not_told", who_has_not_asked_is_not_told);
    test_run("nobody_has_to_listen", nobody_has_to_listen);
    test_run("a_full_socket_is_not_waited_for", a_full_socket_is_not_waited_for);
    test_run("reloading_tells_the_time", reloading_tells_the_time);
    rmdir(folder);
    return test_finish();
}
