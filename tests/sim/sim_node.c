/* Simulation of the node: sim_node --seeds FROM-TO runs them in children and prints the seeds that fail;
 * sim_node --seed N --trace tells what happens in one; --failover FROM-TO measures; with --plant NAME a sweep succeeds when it finds the planted fault.
 * docs/simulation.md */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/world.h"

enum { SEED_SECONDS_MAX = 60, SEEDS_IN_A_CHILD = 100, FAILOVER_HALF_MS = 600, FAILOVER_MOST_MS = 1000 };

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

/* Which misfortunes are left out, of SIM_CHAOS_MAX. */
static bool without[SIM_CHAOS_MAX];

/* Zero.  A world is large, and most of it is never touched: it would take longer to clear than a seed takes. */
static void *new_pages(size_t bytes, int flags)
{
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return pages;
}

static struct world *new_world(uint64_t seed, uint64_t *counters)
{
    struct world *w = new_pages(sizeof *w, MAP_PRIVATE);
    w->seed = seed;
    w->counters = counters;
    memcpy(w->without, without, sizeof without);
    return w;
}

static void run_seed(uint64_t seed, bool trace, uint64_t *counters)
{
    struct world *w = new_world(seed, counters);
    w->trace = trace;
    world_run(w);
    (void)munmap(w, sizeof *w);
}

/* Shared with the children. */
struct tally {
    uint64_t counters[SIM_COUNTER_COUNT];
    uint64_t seed; /* that runs */
};

/* Runs seeds in a child of their own.  The first that fails ends it: tally->seed is that one then. */
static bool run_child(uint64_t from, uint64_t to, bool quiet, struct tally *tally)
{
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (quiet && freopen("/dev/null", "w", stdout) == NULL) {
            _exit(2);
        }
        for (tally->seed = from; tally->seed <= to; tally->seed++) {
            alarm(SEED_SECONDS_MAX);
            run_seed(tally->seed, false, tally->counters);
        }
        _exit(0);
    }
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid) {
        perror("fork");
        exit(2);
    }
    if (WIFSIGNALED(status) && !quiet) {
        printf("# seed %" PRIu64 ": signal %d\n", tally->seed, WTERMSIG(status));
    }
    return status == 0;
}

static int sweep(uint64_t from, uint64_t to, time_t until)
{
    struct tally *tally = new_pages(sizeof *tally, MAP_SHARED);
    uint64_t failed = 0, seed = from;
    printf("# seeds %" PRIu64 "-%" PRIu64 ", planted: %s\n", from, to, plants[sim_plant]);
    while (seed <= to && (sim_plant == SIM_PLANT_NONE || failed == 0) && (until == 0 || time(NULL) < until)) {
        uint64_t last = to - seed < SEEDS_IN_A_CHILD ? to : seed + SEEDS_IN_A_CHILD - 1;
        failed += !run_child(seed, last, false, tally);
        seed = tally->seed <= last ? tally->seed + 1 : last + 1;
    }
    if (sim_plant != SIM_PLANT_NONE) {
        printf("%s 1 - the planted fault is found after %" PRIu64 " seeds\n1..1\n", failed > 0 ? "ok" : "not ok",
               seed - from);
        return failed == 0;
    }
    printf("%s 1 - %" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n", failed > 0 ? "not ok" : "ok", seed - from,
           from, failed);
    bool covered = true;
    for (unsigned i = 0; i < SIM_COUNTER_COUNT; i++) {
        printf("# %s %" PRIu64 "\n", counter_names[i], tally->counters[i]);
        covered &= tally->counters[i] > 0;
    }
    printf("%s 2 - everything that has to happen has happened\n1..2\n", covered ? "ok" : "not ok");
    return failed > 0 || !covered;
}

/* Leaves out as many misfortunes of a failing seed as it can, in ever smaller pieces, and says how to see what is left. */
static int shrink(uint64_t seed)
{
    struct tally *tally = new_pages(sizeof *tally, MAP_SHARED);
    if (run_child(seed, seed, true, tally)) {
        printf("seed %" PRIu64 " holds\n", seed);
        return 1;
    }
    unsigned left = SIM_CHAOS_MAX;
    for (unsigned piece = SIM_CHAOS_MAX / 2; piece > 0; piece /= 2) {
        for (unsigned at = 0; at < SIM_CHAOS_MAX; at += piece) {
            bool before[SIM_CHAOS_MAX];
            memcpy(before, without, sizeof without);
            memset(without + at, true, piece);
            if (run_child(seed, seed, true, tally)) {
                memcpy(without, before, sizeof without);
            }
        }
    }
    printf("--seed %" PRIu64 " --trace --only ", seed);
    for (unsigned i = 0; i < SIM_CHAOS_MAX; i++) {
        left -= without[i];
        if (!without[i]) {
            printf("%u,", i);
        }
    }
    printf("\n# %u misfortunes are needed\n", left);
    (void)run_child(seed, seed, false, tally);
    return 0;
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
        uint64_t *ms = new_pages(count * sizeof *ms, MAP_PRIVATE);
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

/* Seeds that nobody has run yet, as long as RQ_SECONDS says. */
static int soak(void)
{
    const char *seconds = getenv("RQ_SECONDS");
    time_t now = time(NULL);
    return sweep((uint64_t)now * 1000000, UINT64_MAX - 1, now + (seconds != NULL ? strtol(seconds, NULL, 10) : 600));
}

static int usage(void)
{
    fprintf(stderr,
            "usage: sim_node --seeds FROM-TO [--plant NAME]\n"
            "       sim_node --soak\n"
            "       sim_node --failover FROM-TO\n"
            "       sim_node --seed N [--trace] [--only I,I,...] [--plant NAME]\n"
            "       sim_node --shrink N [--plant NAME]\n");
    return 2;
}

static void only(const char *list)
{
    memset(without, true, sizeof without);
    for (char *end; *list != '\0'; list = *end == ',' ? end + 1 : end) {
        unsigned long i = strtoul(list, &end, 10);
        if (end == list) {
            return;
        }
        without[i % SIM_CHAOS_MAX] = false;
    }
}

int main(int argc, char **argv)
{
    uint64_t from = 0, to = 0;
    bool trace = false, one = false, smaller = false, failing_over = false;
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char *end;
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--soak") == 0) {
            return soak();
        } else if (strcmp(argv[i], "--seed") == 0 || strcmp(argv[i], "--shrink") == 0) {
            from = strtoull(value, &end, 10);
            one = *value != 0 && *end == 0;
            smaller = argv[i][3] == 'h';
            i++;
        } else if (strcmp(argv[i], "--seeds") == 0 || strcmp(argv[i], "--failover") == 0) {
            failing_over = argv[i][2] == 'f';
            from = strtoull(value, &end, 10);
            to = *end == '-' ? strtoull(end + 1, &end, 10) : 0;
            i++;
        } else if (strcmp(argv[i], "--only") == 0) {
            only(value);
            i++;
        } else if (strcmp(argv[i], "--plant") == 0) {
            for (unsigned p = 0; p < sizeof plants / sizeof *plants; p++) {
                sim_plant = strcmp(value, plants[p]) == 0 ? (enum sim_plant)p : sim_plant;
            }
            if (sim_plant == SIM_PLANT_NONE) {
                return usage();
            }
            i++;
        } else {
            return usage();
        }
    }
    if (one && smaller) {
        return shrink(from);
    }
    if (one) {
        uint64_t counters[SIM_COUNTER_COUNT] = { 0 };
        printf("seed %" PRIu64 "\n", from);
        run_seed(from, trace, counters);
        printf("seed %" PRIu64 " holds\n", from);
        return 0;
    }
    if (to < from || to == 0) {
        return usage();
    }
    return failing_over ? failover(from, to) : sweep(from, to, 0);
}
