/* duration: what Go prints, and that it is read again. */
#include "raftd/run/duration.h"
#include "tests/support/tap.h"

static void durations_are_printed_as_go_does(void)
{
    static const struct {
        uint64_t ns;
        const char *text;
    } cases[] = {
        { 0, "0s" },
        { 1, "1ns" },
        { 999, "999ns" },
        { 12100, "12.1\xc2\xb5s" },
        { 1000000, "1ms" },
        { 1234567, "1.234567ms" },
        { 1500000000, "1.5s" },
        { 1000000001, "1.000000001s" },
        { 60000000000, "1m0s" },
        { 3723000000000, "1h2m3s" },
        { 360000500000000, "100h0m0.5s" },
        { UINT64_MAX, "5124095h34m33.709551615s" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[RQ_DURATION_TEXT];
        uint64_t again;
        rq_format_duration(cases[i].ns, text);
        check_eq(strcmp(text, cases[i].text), 0);
        if (cases[i].ns < 9000000000000000000u) {
            check(rq_parse_duration(text, &again));
            check_eq(again, cases[i].ns);
        }
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = { TAP(durations_are_printed_as_go_does) };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
