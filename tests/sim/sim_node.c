/* Simulation of the node: sweep.h, and --failover FROM-TO measures.  docs/simulation.md */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/sim/sweep.h"
#include "tests/sim/world.h"

enum { FAILOVER_HALF_MS = 600, FAILOVER_MOST_MS = 1000 };

enum sim_plant sim_plant;

static const char *const counter_names[] = {
#define SIM_COUNTER_NAME(name) #name,
    SIM_COUNTERS(SIM_COUNTER_NAME)
#undef SIM_COUNTER_NAME
};

static const char *const plants[] = { "none",
#define SIM_PLANT_NAME(name, text) text,
                                      SIM_PLANTS(SIM_PLANT_NAME)
#undef SIM_PLANT_NAME
};

void sim_trace(const struct world *w, const char *format, ...)
{
    if (w->trace) {
        va_list args;
        va_start(args, format);
        printf("%6" PRIu64 " ", w->now_ms);
        vprintf(format, args);
        printf("\n");
        va_end(args);
    }
}

void sim_fail(const struct world *w, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    printf("# seed %" PRIu64 " at %" PRIu64 " ms, %u hosts: ", w->seed, w->now_ms, w->host_count);
    vprintf(format, args);
    printf("\n");
    fflush(stdout);
    va_end(args);
    _exit(1);
}

static struct world *new_world(uint64_t seed, uint64_t *counters)
{
    struct world *w = sweep_pages(sizeof *w, false);
    w->seed = seed;
    w->counters = counters;
    return w;
}

static void run(uint64_t seed, unsigned plant, bool trace, const struct sweep_without *without, uint64_t *counters)
{
    struct world *w = new_world(seed, counters);
    sim_plant = (enum sim_plant)plant;
    w->without = without;
    w->trace = trace;
    world_run(w);
    (void)munmap(w, sizeof *w);
}

static int by_size(const void *a, const void *b)
{
    const uint64_t *x = a, *y = b;
    return *x < *y ? -1 : *x > *y;
}

/* How long a cluster is without a leader when that dies; node.h and docs/simulation.md say what is to come out. */
static int failover(uint64_t from, uint64_t to)
{
    static const unsigned hosts[] = { 3, 5 };
    uint64_t counters[SIM_COUNTER_COUNT] = { 0 }, count = to - from + 1;
    bool all_well = true;
    for (unsigned i = 0; i < 2; i++) {
        uint64_t *ms = sweep_pages(count * sizeof *ms, false);
        for (uint64_t seed = from; seed <= to; seed++) {
            struct world *w = new_world(seed, counters);
            ms[seed - from] = world_failover_ms(w, hosts[i]);
            (void)munmap(w, sizeof *w);
        }
        qsort(ms, count, sizeof *ms, by_size);
        uint64_t half = ms[count / 2], most = ms[count * 99 / 100];
        bool well = half <= FAILOVER_HALF_MS && most <= FAILOVER_MOST_MS;
        printf("%s %u - %u hosts, %" PRIu64 " dead leaders: ms until the next one has committed: fastest %" PRIu64
               ", half %" PRIu64 ", 9 of 10 %" PRIu64 ", 99 of 100 %" PRIu64 ", slowest %" PRIu64 "\n",
               well ? "ok" : "not ok", i + 1, hosts[i], count, ms[0], half, ms[count * 9 / 10], most, ms[count - 1]);
        all_well &= well;
        (void)munmap(ms, count * sizeof *ms);
    }
    printf("1..2\n");
    return !all_well;
}

int main(int argc, char **argv)
{
    static const struct sweep sweep = {
        .program = "sim_node",
        .counters = counter_names,
        .counter_count = SIM_COUNTER_COUNT,
        .plants = plants,
        .plant_count = sizeof plants / sizeof *plants,
        .seeds_in_a_child = 100,
        .run = run,
    };
    uint64_t from, to;
    if (argc == 3 && strcmp(argv[1], "--failover") == 0 && sweep_range(argv[2], &from, &to)) {
        return failover(from, to);
    }
    return sweep_main(&sweep, argc, argv);
}
