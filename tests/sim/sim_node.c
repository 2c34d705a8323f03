/* Simulation of the node: sim_node --seeds FROM-TO runs each seed in a child of its own and prints the seeds that fail;
 * sim_node --seed N --trace tells what happens in one; with --plant NAME a sweep succeeds when it finds the planted fault.
 * docs/simulation.md */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/sim/world.h"

static const char *const counter_names[] = {
#define SIM_COUNTER_NAME(name) #name,
    SIM_COUNTERS(SIM_COUNTER_NAME)
#undef SIM_COUNTER_NAME
};

static const struct {
    const char *name;
    enum sim_plant plant;
} plants[] = {
    { "lie-sync", SIM_PLANT_LIE_SYNC },
    { "double-apply", SIM_PLANT_DOUBLE_APPLY },
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

static void run_seed(uint64_t seed, bool trace, enum sim_plant plant, uint64_t *counters)
{
    struct world *w = calloc(1, sizeof *w);
    if (w == NULL) {
        abort();
    }
    w->seed = seed;
    w->trace = trace;
    w->plant = plant;
    w->counters = counters;
    world_run(w);
    free(w);
}

static bool run_child(uint64_t seed, enum sim_plant plant, uint64_t *counters)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        run_seed(seed, false, plant, counters);
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("fork");
        exit(2);
    }
    if (WIFSIGNALED(status)) {
        printf("# seed %" PRIu64 ": signal %d\n", seed, WTERMSIG(status));
    }
    return status == 0;
}

static int sweep(uint64_t from, uint64_t to, enum sim_plant plant)
{
    uint64_t *counters =
        mmap(NULL, sizeof(uint64_t) * SIM_COUNTER_COUNT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counters == MAP_FAILED) {
        perror("mmap");
        return 2;
    }
    uint64_t failed = 0;
    for (uint64_t seed = from; seed <= to; seed++) {
        failed += !run_child(seed, plant, counters);
    }
    if (plant != SIM_PLANT_NONE) {
        printf("%s 1 - %" PRIu64 " of %" PRIu64 " seeds find the planted fault\n1..1\n", failed > 0 ? "ok" : "not ok",
               failed, to - from + 1);
        return failed == 0;
    }
    printf("%s 1 - %" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n", failed > 0 ? "not ok" : "ok",
           to - from + 1, from, failed);
    bool covered = true;
    for (unsigned i = 0; i < SIM_COUNTER_COUNT; i++) {
        printf("# %s %" PRIu64 "\n", counter_names[i], counters[i]);
        covered &= counters[i] > 0;
    }
    printf("%s 2 - everything that has to happen has happened\n1..2\n", covered ? "ok" : "not ok");
    return failed > 0 || !covered;
}

static int usage(void)
{
    fprintf(stderr, "usage: sim_node --seeds FROM-TO [--plant NAME] | --seed N [--trace] [--plant NAME]\n");
    return 2;
}

int main(int argc, char **argv)
{
    uint64_t from = 0, to = 0;
    bool trace = false, one = false;
    enum sim_plant plant = SIM_PLANT_NONE;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char *end;
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--seed") == 0) {
            from = strtoull(value, &end, 10);
            one = *value != 0 && *end == 0;
            i++;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            from = strtoull(value, &end, 10);
            to = *end == '-' ? strtoull(end + 1, &end, 10) : 0;
            i++;
        } else if (strcmp(argv[i], "--plant") == 0) {
            for (size_t p = 0; p < sizeof plants / sizeof *plants; p++) {
                plant = strcmp(value, plants[p].name) == 0 ? plants[p].plant : plant;
            }
            if (plant == SIM_PLANT_NONE) {
                return usage();
            }
            i++;
        } else {
            return usage();
        }
    }
    if (one) {
        uint64_t counters[SIM_COUNTER_COUNT] = { 0 };
        run_seed(from, trace, plant, counters);
        printf("seed %" PRIu64 " holds\n", from);
        return 0;
    }
    return to < from || to == 0 ? usage() : sweep(from, to, plant);
}
