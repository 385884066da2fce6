/* The reader of reader.py in C: no retry of EINTR, no buffering, as the least forgiving program. */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 14, MOST_BYTES = 16384, MOST_READS = 1 << 20, STOP_AT = 8 };

static double begun[MOST_READS], ended[MOST_READS];
static int errors[256];

static double now(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Returns the generation when all records agree and their number is right, -1 otherwise. */
static long judge(const char *data, long size)
{
    char digits[9] = {0};
    long generation, records;

    if (size < RECORD)
        return -1;
    memcpy(digits, data + 5, 8);
    generation = strtol(digits, NULL, 10);
    records = 1 + generation * 7919 % 900;
    if (size != records * RECORD)
        return -1;
    for (long i = 1; i < records; i++)
        if (memcmp(data, data + i * RECORD, RECORD))
            return -1;
    return generation;
}

static void print_times(FILE *out, const char *name, const double *times, int count)
{
    fprintf(out, "\"%s\": [", name);
    for (int i = 0; i < count; i++)
        fprintf(out, "%s%.6f", i ? ", " : "", times[i]);
    fprintf(out, "]");
}

int main(int argc, char **argv)
{
    static char buffer[MOST_BYTES];
    int count = 0, torn = 0, stale = 0, first = 1;
    int page = argc == 4 ? open(argv[2], O_RDONLY) : -1;
    volatile char *shared;

    if (page < 0)
        return 2;
    shared = mmap(NULL, 4096, PROT_READ, MAP_SHARED, page, 0);
    if (shared == MAP_FAILED)
        return 2;
    while (!shared[STOP_AT] && count < MOST_READS) {
        uint64_t at_least = *(volatile uint64_t *)shared;
        long size = 0, got = 0;
        int fd;

        begun[count] = now();
        fd = open(argv[1], O_RDONLY);
        if (fd < 0) {
            errors[errno & 255]++;
        } else {
            while ((got = read(fd, buffer + size, sizeof buffer - (size_t)size)) > 0)
                size += got;
            if (got < 0)
                errors[errno & 255]++;
            if (close(fd))
                errors[errno & 255]++;
            if (got == 0) {
                long generation = judge(buffer, size);
                torn += generation < 0;
                stale += generation >= 0 && (uint64_t)generation < at_least;
            }
        }
        ended[count++] = now();
    }
    FILE *out = fopen(argv[3], "w");
    if (!out)
        return 2;
    fprintf(out, "{");
    print_times(out, "begun", begun, count);
    fprintf(out, ", ");
    print_times(out, "ended", ended, count);
    fprintf(out, ", \"errors\": {");
    for (int i = 0; i < 256; i++)
        if (errors[i]) {
            fprintf(out, "%s\"errno %d\": %d", first ? "" : ", ", i, errors[i]);
            first = 0;
        }
    fprintf(out, "}, \"torn\": %d, \"stale\": %d, \"size_wrong\": 0, \"examples\": []}", torn, stale);
    return fclose(out) != 0;
}
