/* raft/peers.json: who goes on is whom the operator named first, and nothing is guessed from a file that is not in order. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/cluster/recovery.h"
#include "raftd/db/descriptor.h"
#include "tests/support/scratch.h"
#include "tests/support/tap.h"

static char dir[64], text[RQ_TEXT_MAX + 1];
static struct rq_recovery recovery;

static enum rq_err read_file(const char *json)
{
    check_eq(rq_file_replace(rq_disk_real(), dir, "peers.json", json, strlen(json)), RQ_OK);
    return rq_recovery_read(rq_disk_real(), dir, &recovery, text);
}

static void begin(void)
{
    (void)snprintf(dir, sizeof dir, "/tmp/rq-recovery-XXXXXX");
    check(mkdtemp(dir) != NULL);
}

static void no_file_is_no_recovery(void)
{
    begin();
    check_eq(rq_recovery_read(rq_disk_real(), dir, &recovery, text), RQ_NOTFOUND);
    check(scratch_remove(dir));
}

static void first_voter_goes_on(void)
{
    begin();
    check_eq(read_file("[{\"id\": \"3\", \"address\": \"host3:4002\", \"non_voter\": true},"
                       " {\"id\": \"2\", \"address\": \"[::1]:4002\"},"
                       " {\"id\": \"1\", \"address\": \"host1:4002\", \"non_voter\": false}]"),
             RQ_OK);
    check(strcmp(recovery.survivor, "2") == 0);
    check(strcmp(recovery.address, "[::1]:4002") == 0);
    check(scratch_remove(dir));
}

static void what_is_not_in_order_is_refused_with_words(void)
{
    static const char *const bad[][2] = {
        { "", "at byte" },
        { "[", "at byte" },
        { "{}", "not a list" },
        { "[1]", "not a list" },
        { "[]", "no voter" },
        { "[{\"id\": \"1\", \"address\": \"h:1\", \"non_voter\": true}]", "no voter" },
        { "[{\"address\": \"h:1\"}]", "empty ID" },
        { "[{\"id\": \"1\"}]", "empty address" },
        { "[{\"id\": 1, \"address\": \"h:1\"}]", "empty ID" },
        { "[{\"id\": \"1\", \"address\": \"http://h:1\"}]", "protocol" },
        { "[{\"id\": \"1\", \"address\": \"h\"}]", "invalid" },
        { "[{\"id\": \"1\", \"address\": \":1\"}]", "invalid" },
        { "[{\"id\": \"1 2\", \"address\": \"h:1\"}]", "invalid" },
        { "[{\"id\": \"1\", \"address\": \"h:1\"}, {\"id\": \"1\", \"address\": \"h:2\"}]", "duplicate ID" },
        { "[{\"id\": \"1\", \"address\": \"h:1\"}, {\"id\": \"2\", \"address\": \"h:1\"}]", "duplicate address" },
    };
    begin();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        check_eq(read_file(bad[i][0]), RQ_MISUSE);
        check(strstr(text, bad[i][1]) != NULL);
    }
    check(scratch_remove(dir));
}

static void done_once_it_is_not_done_again(void)
{
    begin();
    check_eq(read_file("[{\"id\": \"1\", \"address\": \"host1:4002\"}]"), RQ_OK);
    check(!rq_recovery_was_done(rq_disk_real(), dir));
    check_eq(rq_recovery_done(rq_disk_real(), dir), RQ_OK);
    check(rq_recovery_was_done(rq_disk_real(), dir));
    check_eq(rq_recovery_read(rq_disk_real(), dir, &recovery, text), RQ_NOTFOUND);
    check(scratch_remove(dir));
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(no_file_is_no_recovery),
        TAP(first_voter_goes_on),
        TAP(what_is_not_in_order_is_refused_with_words),
        TAP(done_once_it_is_not_done_again),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
