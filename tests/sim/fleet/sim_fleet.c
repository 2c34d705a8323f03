/* Simulation of whole raftd's: tests/sim/sweep.h; docs/simulation.md. */
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/sim/fleet/fleet.h"

static const char *const counters[] = {
#define FLEET_COUNTER_NAME(name) #name,
    FLEET_COUNTERS(FLEET_COUNTER_NAME)
#undef FLEET_COUNTER_NAME
};

static const char *const plants[] = { "none",
#define FLEET_PLANT_NAME(name, text) text,
                                      FLEET_PLANTS(FLEET_PLANT_NAME)
#undef FLEET_PLANT_NAME
};

/* What dies in here is left as it is. */
const char *__lsan_default_options(void);
const char *__lsan_default_options(void)
{
    return "detect_leaks=0";
}

static void run(uint64_t seed, unsigned plant, bool trace, const struct sweep_without *without, uint64_t *counts)
{
    struct fleet *f = sweep_pages(sizeof *f, false);
    f->seed = seed;
    f->trace = trace;
    f->without = without;
    f->counters = counts;
    fleet_plant = (enum fleet_plant)plant;
    if (trace) {
        (void)setenv("RQ_RIG_VERBOSE", "1", 1);
    }
    fleet_run(f); /* what it leaves behind is the memory of dead processes */
}

int main(int argc, char **argv)
{
    static const struct sweep sweep = {
        .program = "sim_fleet",
        .counters = counters,
        .counter_count = FLEET_COUNTER_COUNT,
        .plants = plants,
        .plant_count = sizeof plants / sizeof *plants,
        .seeds_in_a_child = 10,
        .run = run,
    };
    return sweep_main(&sweep, argc, argv);
}
