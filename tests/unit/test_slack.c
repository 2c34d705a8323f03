/* slack: what was freed, and code, goes back once the process rests after some work, and not before, nor again without work. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "raftd/run/slack.h"
#include "tests/support/tap.h"

static void it_is_due_when_the_process_rests_after_work(void)
{
    struct rq_slack s = { .looked_ms = 1000 };
    check(!rq_slack_is_due(&s, 2000, RQ_SLACK_WORK_MS - 1)); /* too little to be worth it, and too much for a rest */
    check(!rq_slack_is_due(&s, 3000, RQ_SLACK_WORK_MS - 1));
    check(!rq_slack_is_due(&s, 4000, 500)); /* at work */
    check(!rq_slack_is_due(&s, 5000, 500 + RQ_SLACK_REST_PM + 1));
    check(rq_slack_is_due(&s, 6000, 500 + 2 * RQ_SLACK_REST_PM + 1));
    check(!rq_slack_is_due(&s, 7000, 500 + 3 * RQ_SLACK_REST_PM)); /* it was done */
    check(rq_slack_is_due(&s, 1000000, 1000));                     /* what little work leaves adds up */
}

static unsigned long resident_kib(const char *what)
{
    char line[128];
    unsigned long kib = 0;
    FILE *f = fopen("/proc/self/status", "re");
    check(f != NULL);
    while (fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, what, strlen(what)) == 0) {
            kib = strtoul(line + strlen(what) + 1, NULL, 10);
        }
    }
    fclose(f);
    return kib;
}

/* After enough work, in a process that has done nothing since the machine started. */
static void come_to_rest(void)
{
    struct rq_slack s = { 0 };
    while (clock() < (clock_t)(2 * RQ_SLACK_WORK_MS) * CLOCKS_PER_SEC / 1000) {
    }
    rq_slack_look(&s);
}

#define BLOCKS      4096u
#define BLOCK_BYTES 4000u

static void freed_memory_goes_back_to_the_kernel(void)
{
    static void *blocks[BLOCKS];
    for (unsigned i = 0; i < BLOCKS; i++) {
        blocks[i] = malloc(BLOCK_BYTES);
        check(blocks[i] != NULL);
        memset(blocks[i], 1, BLOCK_BYTES);
    }
    const bool is_glibc = mallinfo2().uordblks > 0; /* not that of a sanitizer, or of valgrind */
    for (unsigned i = 0; i < BLOCKS - 1; i++) {     /* the last one keeps the heap from shrinking by itself */
        free(blocks[i]);
    }
    const unsigned long before = resident_kib("RssAnon");
    come_to_rest();
    check(!is_glibc || resident_kib("RssAnon") + BLOCKS / 2 * BLOCK_BYTES / 1024 < before);
    free(blocks[BLOCKS - 1]);
}

#define CONSTANTS (1u << 20)

static const uint8_t constants[CONSTANTS] = { 1, [CONSTANTS - 1] = 1 };

static unsigned sum(void)
{
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof constants; i++) {
        sum += *(const volatile uint8_t *)&constants[i];
    }
    return sum;
}

static void code_goes_back_and_comes_again(void)
{
    check_eq(sum(), 2);
    const unsigned long before = resident_kib("RssFile");
    come_to_rest();
    check(resident_kib("RssFile") + sizeof constants / 1024 / 2 < before);
    check_eq(sum(), 2);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(it_is_due_when_the_process_rests_after_work),
        TAP(freed_memory_goes_back_to_the_kernel),
        TAP(code_goes_back_and_comes_again),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
