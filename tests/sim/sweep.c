#include "tests/sim/sweep.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SEED_SECONDS_MAX = 60 };

void *sweep_pages(size_t bytes, bool shared)
{
    const int flags = (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS;
    void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (pages == MAP_FAILED) {
        perror("mmap");
        exit(2);
    }
    return pages;
}

/* What one call of the program is about. */
struct work {
    const struct sweep *sweep;
    unsigned plant;
    struct sweep_without without;
    struct tally *tally;
};

/* Shared with the children. */
struct tally {
    uint64_t seed; /* that runs */
    uint64_t counters[];
};

static void run_seed(const struct work *w, uint64_t seed, bool trace)
{
    w->sweep->run(seed, w->plant, trace, &w->without, w->tally->counters);
}

/* Runs seeds in a child of their own.  The first that fails ends it: tally->seed is that one then. */
static bool run_child(const struct work *w, uint64_t from, uint64_t to, bool quiet)
{
    struct tally *tally = w->tally;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (quiet && freopen("/dev/null", "w", stdout) == NULL) {
            _exit(2);
        }
        for (tally->seed = from; tally->seed <= to; tally->seed++) {
            alarm(SEED_SECONDS_MAX);
            run_seed(w, tally->seed, false);
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

static int sweep(const struct work *w, uint64_t from, uint64_t to, time_t until)
{
    const struct sweep *s = w->sweep;
    uint64_t failed = 0, seed = from;
    printf("# seeds %" PRIu64 "-%" PRIu64 ", planted: %s\n", from, to, s->plants[w->plant]);
    while (seed <= to && (w->plant == 0 || failed == 0) && (until == 0 || time(NULL) < until)) {
        uint64_t last = to - seed < s->seeds_in_a_child ? to : seed + s->seeds_in_a_child - 1;
        failed += !run_child(w, seed, last, false);
        seed = w->tally->seed <= last ? w->tally->seed + 1 : last + 1;
    }
    if (w->plant != 0) {
        printf("%s 1 - the planted fault is found after %" PRIu64 " seeds\n1..1\n", failed > 0 ? "ok" : "not ok",
               seed - from);
        return failed == 0;
    }
    printf("%s 1 - %" PRIu64 " seeds from %" PRIu64 ", %" PRIu64 " failed\n", failed > 0 ? "not ok" : "ok", seed - from,
           from, failed);
    bool covered = true;
    for (unsigned i = 0; i < s->counter_count; i++) {
        printf("# %s %" PRIu64 "\n", s->counters[i], w->tally->counters[i]);
        covered &= w->tally->counters[i] > 0;
    }
    printf("%s 2 - everything that has to happen has happened\n1..2\n", covered ? "ok" : "not ok");
    return failed > 0 || !covered;
}

/* Leaves out as many misfortunes of a failing seed as it can, in ever smaller pieces, and says how to see what is left. */
static int shrink(struct work *w, uint64_t seed)
{
    bool *without = w->without.chaos;
    if (run_child(w, seed, seed, true)) {
        printf("seed %" PRIu64 " holds\n", seed);
        return 1;
    }
    unsigned left = SWEEP_CHAOS_MAX;
    for (unsigned piece = SWEEP_CHAOS_MAX; piece > 0; piece /= 2) {
        for (unsigned at = 0; at < SWEEP_CHAOS_MAX; at += piece) {
            struct sweep_without before = w->without;
            memset(without + at, true, piece);
            if (run_child(w, seed, seed, true)) {
                w->without = before;
            }
        }
    }
    printf("--seed %" PRIu64 " --trace --only ", seed);
    for (unsigned i = 0; i < SWEEP_CHAOS_MAX; i++) {
        left -= without[i];
        if (!without[i]) {
            printf("%u,", i);
        }
    }
    printf("\n# %u misfortunes are needed\n", left);
    (void)run_child(w, seed, seed, false);
    return 0;
}

/* Seeds that nobody has run yet, as long as RQ_SECONDS says. */
static int soak(const struct work *w)
{
    const char *seconds = getenv("RQ_SECONDS");
    time_t now = time(NULL);
    return sweep(w, (uint64_t)now * 1000000, UINT64_MAX - 1, now + (seconds != NULL ? strtol(seconds, NULL, 10) : 600));
}

static int usage(const struct sweep *s)
{
    fprintf(stderr,
            "usage: %s --seeds FROM-TO [--plant NAME]\n"
            "       %s --soak\n"
            "       %s --seed N [--trace] [--only I,I,...] [--plant NAME]\n"
            "       %s --shrink N [--plant NAME]\n",
            s->program, s->program, s->program, s->program);
    return 2;
}

static void only(struct sweep_without *without, const char *list)
{
    memset(without->chaos, true, sizeof without->chaos);
    for (char *end; *list != '\0'; list = *end == ',' ? end + 1 : end) {
        unsigned long i = strtoul(list, &end, 10);
        if (end == list) {
            return;
        }
        without->chaos[i % SWEEP_CHAOS_MAX] = false;
    }
}

static unsigned find_plant(const struct sweep *s, const char *name)
{
    unsigned plant = 0;
    for (unsigned i = 1; i < s->plant_count; i++) {
        plant = strcmp(name, s->plants[i]) == 0 ? i : plant;
    }
    return plant;
}

bool sweep_range(const char *text, uint64_t *ret_from, uint64_t *ret_to)
{
    char *end;
    *ret_from = strtoull(text, &end, 10);
    if (end == text || *end != '-') {
        return false;
    }
    text = end + 1;
    *ret_to = strtoull(text, &end, 10);
    return end != text && *end == '\0' && *ret_from <= *ret_to;
}

int sweep_main(const struct sweep *s, int argc, char **argv)
{
    uint64_t from = 0, to = 0;
    bool trace = false, one = false, smaller = false, soaks = false;
    struct work *w = sweep_pages(sizeof *w, false);
    w->sweep = s;
    w->tally = sweep_pages(sizeof *w->tally + s->counter_count * sizeof w->tally->counters[0], true);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        char *end;
        if (strcmp(argv[i], "--trace") == 0) {
            trace = true;
        } else if (strcmp(argv[i], "--soak") == 0) {
            soaks = true;
        } else if (strcmp(argv[i], "--seed") == 0 || strcmp(argv[i], "--shrink") == 0) {
            from = strtoull(value, &end, 10);
            one = *value != 0 && *end == 0;
            smaller = argv[i][3] == 'h';
            i++;
        } else if (strcmp(argv[i], "--seeds") == 0) {
            if (!sweep_range(value, &from, &to)) {
                return usage(s);
            }
            i++;
        } else if (strcmp(argv[i], "--only") == 0) {
            only(&w->without, value);
            i++;
        } else if (strcmp(argv[i], "--plant") == 0) {
            w->plant = find_plant(s, value);
            if (w->plant == 0) {
                return usage(s);
            }
            i++;
        } else {
            return usage(s);
        }
    }
    if (soaks) {
        return soak(w);
    }
    if (one && smaller) {
        return shrink(w, from);
    }
    if (one) {
        printf("seed %" PRIu64 "\n", from);
        run_seed(w, from, trace);
        printf("seed %" PRIu64 " holds\n", from);
        return 0;
    }
    return to == 0 ? usage(s) : sweep(w, from, to, 0);
}
