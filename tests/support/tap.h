/* TAP for C tests: a table of named claims, each a function that checks.
 *
 *   static void decode_rejects_length_past_max(void) { check(decode(...) == RQ_TOOBIG); }
 *   int main(int argc, char **argv) { const struct tap_test tests[] = { TAP(decode_rejects_length_past_max) };
 *                                     return tap_main(argc, argv, tests, sizeof tests / sizeof *tests); }
 *
 * With an argument only the test of that name runs.  A failed check prints where and ends that test.  TAP_APART(claim) runs it
 * in a process of its own, which ends without clearing up: for tests whose subjects die with their memory. */
#ifndef TESTS_SUPPORT_TAP_H
#define TESTS_SUPPORT_TAP_H

#include <setjmp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct tap_test {
    const char *name;
    void (*run)(void);
    bool apart;
};
#define TAP(f)       { #f, f, false }
#define TAP_APART(f) { #f, f, true }

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

static inline bool tap_passes(const struct tap_test *test)
{
    if (setjmp(tap_jump) != 0) {
        return false;
    }
    test->run();
    return true;
}

static inline bool tap_passes_apart(const struct tap_test *test)
{
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        bool passes = tap_passes(test);
        (void)fflush(stdout);
        _exit(passes ? 0 : 1);
    }
    int status = 0;
    return pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static inline int tap_main(int argc, char **argv, const struct tap_test *tests, size_t count)
{
    size_t failed = 0, ran = 0;
    setvbuf(stdout, NULL, _IOLBF, 0);
    for (size_t i = 0; i < count; i++) {
        if (argc > 1 && strcmp(argv[1], tests[i].name) != 0) {
            continue;
        }
        ran++;
        bool passes = tests[i].apart ? tap_passes_apart(&tests[i]) : tap_passes(&tests[i]);
        failed += !passes;
        printf("%s %zu - %s\n", passes ? "ok" : "not ok", ran, tests[i].name);
    }
    printf("1..%zu\n", ran);
    return failed > 0 || ran == 0;
}

#endif
