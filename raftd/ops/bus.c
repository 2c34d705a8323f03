#include "raftd/ops/bus.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

static uintptr_t page_bytes;

static void on_bus(int number, siginfo_t *info, void *context)
{
    int saved_errno = errno;
    void *page = (void *)((uintptr_t)info->si_addr & ~(page_bytes - 1)); /* NOLINT(performance-no-int-to-ptr) */
    (void)context;
    /* Anything but a touch past the end of a file, as failing memory: die of it. */
    if (info->si_code != BUS_ADRERR ||
        mmap(page, page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) {
        (void)signal(number, SIG_DFL);
    }
    errno = saved_errno;
}

void rq_bus_survive(void)
{
    struct sigaction action = { .sa_sigaction = on_bus, .sa_flags = SA_SIGINFO };
    page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&action.sa_mask);
    (void)sigaction(SIGBUS, &action, NULL); /* cannot fail with a signal that exists */
}
