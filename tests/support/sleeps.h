/* Sleeps: whether a thread has waited for something, whatever the time. */
#ifndef TESTS_SUPPORT_SLEEPS_H
#define TESTS_SUPPORT_SLEEPS_H

#include <sys/resource.h>

#include "tests/support/tap.h"

/* How often the calling thread has slept. */
static inline long sleeps(void)
{
    struct rusage usage;
    check_eq(getrusage(RUSAGE_THREAD, &usage), 0);
    return usage.ru_nvcsw;
}

#endif
