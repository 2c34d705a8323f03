/* Clock: the time that only passes. */
#ifndef RAFTD_RUN_CLOCK_H
#define RAFTD_RUN_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t rq_clock_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline uint64_t rq_clock_ms(void)
{
    return rq_clock_ns() / 1000000u;
}

/* Runs on while the machine sleeps: for ages, not for dates. */
static inline uint64_t rq_clock_boot_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000u + (uint64_t)t.tv_nsec / 1000000u;
}

#endif
