/* The reader of reader.py in C: no retry of EINTR, no buffering, as the least forgiving program. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { WINDOW_MS = 100, PAUSE_US = 1000 };

static long now_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Returns what is wrong with the file, or NULL. */
static const char *read_once(const char *path)
{
    char buffer[4096];
    ssize_t got, size = 0;
    int fd = open(path, O_RDONLY);

    if (fd < 0)
        return strerror(errno);
    while ((got = read(fd, buffer, sizeof buffer)) > 0)
        size += got;
    const char *problem = got < 0 ? strerror(errno) : size ? NULL : "empty";
    if (close(fd) && !problem)
        problem = strerror(errno);
    return problem;
}

int main(int argc, char **argv)
{
    char message[4096] = "-";
    long last_good = now_ms(), window = last_good, longest = 0, attempts = 0, errors = 0;

    for (int i = 1; argc > 1; i = i % (argc - 1) + 1) {
        const char *problem = read_once(argv[i]);
        long now = now_ms();

        attempts++;
        if (problem) {
            errors++;
            snprintf(message, sizeof message, "%s: %s", argv[i], problem);
        } else {
            if (now - last_good > longest)
                longest = now - last_good;
            last_good = now;
        }
        if (now - window >= WINDOW_MS) {
            printf("%ld %ld %ld %ld %s\n", now, attempts, errors, longest, message);
            fflush(stdout);
            window = now;
            attempts = errors = longest = 0;
            strcpy(message, "-");
        }
        usleep(PAUSE_US);
    }
    return 2;
}
