/* flags: rqlited's syntax, its words, its exit codes. */
#include "raftd/flags.h"
#include "raftd/run/duration.h"
#include "tests/support/tap.h"

static struct rq_flags f;
static char text[512];

static enum rq_flags_result parse(const char *a, const char *b, const char *c, const char *d)
{
    char name[] = "raftd", *argv[6] = { name };
    int argc = 1;
    const char *args[] = { a, b, c, d };
    for (int i = 0; i < 4 && args[i] != NULL; i++) {
        argv[argc++] = (char *)(size_t)args[i];
    }
    return rq_flags_parse(argc, argv, &f, text);
}

static void defaults_are_rqliteds(void)
{
    check_eq(parse("data", NULL, NULL, NULL), RQ_FLAGS_RUN);
    check(strcmp(f.data_dir, "data") == 0);
    check(strcmp(f.http_addr, "localhost:4001") == 0);
    check(strcmp(f.raft_addr, "localhost:4002") == 0);
    check(strcmp(f.node_id, "localhost:4002") == 0);
    check_eq(f.raft_snap, 8192);
    check_eq(f.raft_snap_int_ns, 10000000000ll);
}

/* Nothing here depends on them, and a command line of rqlited's stays as it is; what is wrong in it is said all the same. */
static void flags_of_rqliteds_inside_are_taken(void)
{
    check_eq(parse("-raft-apply-timeout=5s", "-compress-snap-transport", "-raft-snap-wal-size=100", "data"),
             RQ_FLAGS_RUN);
    check_eq(parse("-raft-commit-timeout", "1ms", "-raft-leader-lease-timeout=2s", "data"), RQ_FLAGS_RUN);
    check_eq(parse("-cluster-connect-timeout", "soon", "data", NULL), RQ_FLAGS_USAGE);
}

static void value_comes_behind_equals_or_as_next_argument(void)
{
    check_eq(parse("-node-id=n1", "--raft-addr", "h:1", "data"), RQ_FLAGS_RUN);
    check(strcmp(f.node_id, "n1") == 0);
    check(strcmp(f.raft_adv_addr, "h:1") == 0);
}

static void boolean_takes_no_next_argument(void)
{
    check_eq(parse("-refound", "data", NULL, NULL), RQ_FLAGS_RUN);
    check(f.refound);
    check(strcmp(f.data_dir, "data") == 0);
    check_eq(parse("-refound=maybe", "data", NULL, NULL), RQ_FLAGS_USAGE);
    check(strcmp(text, "invalid boolean value \"maybe\" for -refound: parse error") == 0);
}

static void unknown_flag_is_named(void)
{
    check_eq(parse("-on-disk", "data", NULL, NULL), RQ_FLAGS_USAGE);
    check(strcmp(text, "flag provided but not defined: -on-disk") == 0);
    check_eq(parse("-node-id", NULL, NULL, NULL), RQ_FLAGS_USAGE);
    check(strcmp(text, "flag needs an argument: -node-id") == 0);
    check_eq(parse("-raft-snap", "-3", "data", NULL), RQ_FLAGS_USAGE);
    check(strcmp(text, "invalid value \"-3\" for flag -raft-snap: parse error") == 0);
    check_eq(parse("-h", NULL, NULL, NULL), RQ_FLAGS_HELP);
}

static void numbers_are_gos(void)
{
    check_eq(parse("-raft-snap=0x10", "data", NULL, NULL), RQ_FLAGS_RUN);
    check_eq(f.raft_snap, 16);
    check_eq(parse("-raft-snap=8x", "data", NULL, NULL), RQ_FLAGS_USAGE);
    check_eq(parse("-raft-snap=18446744073709551616", "data", NULL, NULL), RQ_FLAGS_USAGE);
}

/* Who wants no reaping does not ask for it. */
static void reaping_after_no_time_is_refused(void)
{
    const char *const values[] = { "0", "0s", "-1s" };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        check_eq(parse("-raft-reap-node-timeout", values[i], "data", NULL), RQ_FLAGS_INVALID);
        check(strcmp(text, "-raft-reap-node-timeout must be greater than 0") == 0);
        check_eq(parse("-raft-reap-read-only-node-timeout", values[i], "data", NULL), RQ_FLAGS_INVALID);
        check(strcmp(text, "-raft-reap-read-only-node-timeout must be greater than 0") == 0);
    }
    check_eq(parse("-raft-reap-node-timeout=1s", "data", NULL, NULL), RQ_FLAGS_RUN);
    check_eq(f.reap_voter_ns, 1000000000);
    check_eq(f.reap_reader_ns, 0);
    check_eq(parse("-raft-reap-node-timeout=soon", "data", NULL, NULL), RQ_FLAGS_USAGE);
}

static void flags_behind_the_directory_are_refused(void)
{
    check_eq(parse("data", "-node-id", "x", NULL), RQ_FLAGS_INVALID);
    check(strstr(text, "arguments after data directory (data) are not accepted") != NULL);
    check_eq(parse("-node-id", "x", NULL, NULL), RQ_FLAGS_INVALID);
    check(strstr(text, "missing required argument: DataPath") != NULL);
}

static void addresses_are_checked_in_rqliteds_words(void)
{
    const struct {
        const char *flag, *text;
    } cases[] = {
        { "-node-cert=c", "either both -node-cert and -node-key must be set, or neither" },
        { "-node-key=k", "either both -node-cert and -node-key must be set, or neither" },
        { "-node-verify-common-name=n", "-node-verify-common-name requires -node-verify-client" },
        { "-raft-addr=localhost:4001", "HTTP and Raft addresses must differ" },
        { "-http-addr=http://h:1", "HTTP options should not include protocol (http:// or https://)" },
        { "-http-addr=h", "HTTP bind address not valid" },
        { "-http-tx-lifetime=0", "-http-tx-idle-timeout and -http-tx-lifetime have to be at least 1ms" },
        { "-http-adv-addr=h", "HTTP advertised HTTP address not valid" },
        { "-http-addr=0.0.0.0:4001",
          "advertised HTTP address is not routable (0.0.0.0), specify it via -http-addr or -http-adv-addr" },
        { "-raft-addr=h", "raft bind address not valid" },
        { "-raft-addr=h:x", "raft bind port not valid" },
        { "-raft-adv-addr=[::1", "raft advertised address not valid" },
        { "-raft-adv-addr=[::]:4002",
          "advertised Raft address is not routable (::), specify it via -raft-addr or -raft-adv-addr" },
        { "-raft-adv-addr=h:p", "raft advertised port is not valid" },
        { "-raft-adv-addr=localhost:4001", "advertised HTTP and Raft addresses must differ" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_eq(parse(cases[i].flag, "data", NULL, NULL), RQ_FLAGS_INVALID);
        check(strcmp(text, cases[i].text) == 0);
    }
    check_eq(parse(" ", NULL, NULL, NULL), RQ_FLAGS_INVALID);
    check(strcmp(text, "data directory path is required") == 0);
}

static void durations_are_gos(void)
{
    const struct {
        const char *s;
        bool good;
        uint64_t ns;
    } cases[] = {
        { "300ms", true, 300000000ull },
        { "1.5h", true, 5400000000000ull },
        { "2h45m", true, 9900000000000ull },
        { "0", true, 0 },
        { "10us", true, 10000 },
        { "1\xc2\xb5s", true, 1000 },
        { ".5s", true, 500000000ull },
        { "5", false, 0 },
        { "", false, 0 },
        { "1d", false, 0 },
        { "s", false, 0 },
        { "-1s", false, 0 },
        { "99999999999999h", false, 0 },
        { "1 s", false, 0 },
        { "1.s", true, 1000000000ull },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint64_t ns = 0;
        check_eq(rq_parse_duration(cases[i].s, &ns), cases[i].good);
        check_eq(ns, cases[i].ns);
    }
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(defaults_are_rqliteds),
        TAP(flags_of_rqliteds_inside_are_taken),
        TAP(value_comes_behind_equals_or_as_next_argument),
        TAP(boolean_takes_no_next_argument),
        TAP(unknown_flag_is_named),
        TAP(numbers_are_gos),
        TAP(reaping_after_no_time_is_refused),
        TAP(flags_behind_the_directory_are_refused),
        TAP(addresses_are_checked_in_rqliteds_words),
        TAP(durations_are_gos),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
