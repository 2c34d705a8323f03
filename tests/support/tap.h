/* TAP for C tests: a table of named claims, each a function that checks.
 *
 *   static void decode_rejects_length_past_max(void) { check(decode(...) == RQ_TOOBIG); }
 *   int main(int argc, char **argv) { const struct tap_test tests[] = { TAP(decode_rejects_length_past_max) };
 *                                     return tap_main(argc, argv, tests, sizeof tests / sizeof *tests); }
 *
 * With an argument only the test of that name runs.  A failed check prints where and ends that test. */
#ifndef TESTS_SUPPORT_TAP_H
#define TESTS_SUPPORT_TAP_H

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

struct tap_test {
    const char *name;
    void (*run)(void);
};
#define TAP(f) { #f, f }

static jmp_buf tap_jump __attribute__((unused));

#define check(condition)                                             \
    do {                                                             \
        if (!(condition)) {                                          \
            printf("# %s:%d: %s\n", __FILE__, __LINE__, #condition); \
            longjmp(tap_jump, 1);                                    \
        }                                                            \
    } while (0)

#define check_eq(a, b)                                                                                     \
    do {                                                                                                   \
        long long tap_a = (long long)(a), tap_b = (long long)(b);                                          \
        if (tap_a != tap_b) {                                                                              \
            printf("# %s:%d: %s is %lld, expected %s = %lld\n", __FILE__, __LINE__, #a, tap_a, #b, tap_b); \
            longjmp(tap_jump, 1);                                                                          \
        }                                                                                                  \
    } while (0)

static inline int tap_main(int argc, char **argv, const struct tap_test *tests, size_t count)
{
    volatile size_t failed = 0, ran = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (volatile size_t i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], tests[i].name) != 0) {
            continue;
        }
        ran++;
        int bad = setjmp(tap_jump);
        if (bad == 0) {
            tests[i].run();
        }
        failed += bad != 0;
        printf("%s %zu - %s\n", bad != 0 ? "not ok" : "ok", ran, tests[i].name);
    }
    printf("1..%zu\n", ran);
    return failed > 0 || ran == 0;
}

#endif
