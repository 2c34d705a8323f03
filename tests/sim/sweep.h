/* Sweep: many seeds of a simulation in child processes, one seed again, and a failing seed made smaller.
 *
 *   --seeds FROM-TO [--plant NAME]        with a planted fault it succeeds when that is found
 *   --soak                                seeds that nobody has run yet, for RQ_SECONDS
 *   --seed N [--trace] [--only I,I,...]   one, in this process; with these misfortunes only
 *   --shrink N                            leaves out as many misfortunes of a failing seed as it can */
#ifndef TESTS_SIM_SWEEP_H
#define TESTS_SIM_SWEEP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SWEEP_CHAOS_MAX 1024u

/* The misfortunes of a seed that do not happen. */
struct sweep_without {
    bool chaos[SWEEP_CHAOS_MAX];
};

struct sweep {
    const char *program;
    const char *const *counters; /* what has to happen in a sweep, or it proves nothing */
    unsigned counter_count;
    const char *const *plants; /* the first is no fault */
    unsigned plant_count;
    unsigned seeds_in_a_child;
    /* Returns when the seed holds; else it has said why on stdout, and ends the process. */
    void (*run)(uint64_t seed, unsigned plant, bool trace, const struct sweep_without *without, uint64_t *counters);
};

int sweep_main(const struct sweep *s, int argc, char **argv);

/* FROM-TO, neither of them empty.  False: it is not that. */
bool sweep_range(const char *text, uint64_t *ret_from, uint64_t *ret_to);

/* Zero, and shared with children if wanted.  A world is large, and most of it is never touched: it would take longer to clear than a
 * seed takes. */
void *sweep_pages(size_t bytes, bool shared);

#endif
