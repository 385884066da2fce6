/* The first process of every pod: it does nothing, and reaps what the pod's containers orphan. */
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

static void end(int number)
{
    (void)number;
    _exit(0);
}

int main(void)
{
    signal(SIGCHLD, SIG_IGN);
    signal(SIGINT, end);
    signal(SIGTERM, end);
    for (;;)
        pause();
}
