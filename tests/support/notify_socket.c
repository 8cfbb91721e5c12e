/* notify_socket.c SOCKET - stands for systemd: receives datagrams at a socket of the file system
 * and prints each, its lines separated by spaces, on a line of its own, until it is killed. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

int main(int count, char **arguments)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char text[1024];
    ssize_t length;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);

    if (count != 2 || strlen(arguments[1]) >= sizeof at.sun_path)
        return 2;
    memcpy(at.sun_path, arguments[1], strlen(arguments[1]));
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) != 0) {
        perror(arguments[1]);
        return 1;
    }
    while ((length = recv(fd, text, sizeof text, 0)) >= 0) {
        for (ssize_t i = 0; i < length; i++)
            putchar(text[i] == '\n' ? ' ' : text[i]);
        putchar('\n');
        fflush(stdout);
    }
    return 1;
}
