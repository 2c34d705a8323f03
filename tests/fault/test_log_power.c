/* log: seeded histories of appends, cuts, releases, kills, failed syncs and power losses.  After each recovery every entry that
 * was reported durable is there with its term and bytes; what was not may be missing, from the end only.
 *
 * RQ_LOG_POWER_SEEDS sets how many histories run, RQ_LOG_POWER_SEED runs one. */
#include "tests/support/log_rig.h"
#include "tests/support/record_disk.h"
#include "tests/support/tap.h"

#define SEGMENT_BYTES 16384u
#define INDEX_MAX     4000u
#define STEPS         60u

struct history {
    uint64_t seed;
    struct record_disk *disk;
    struct rq_log *log;
    uint64_t terms[INDEX_MAX + 1]; /* of what the log holds in memory */
    uint64_t last, durable, released;
    uint64_t term;
    uint64_t meta_term, meta_vote;           /* reported done */
    uint64_t meta_next_term, meta_next_vote; /* perhaps done */
    bool founded;
    unsigned recoveries;
    const char *wrong; /* NULL: so far so good */
};

static bool must_be(struct history *h, bool condition, const char *claim)
{
    if (!condition && h->wrong == NULL) {
        h->wrong = claim;
    }
    return condition;
}

/* Follows from index and term, so that a survivor tells whether it is whole. */
static size_t bytes_of(uint64_t index, uint64_t term)
{
    uint64_t seed = index * 31 + term;
    switch (seeded_below(&seed, 12)) {
        case 0:
            return 0;
        case 1:
            return 9000;
        case 2:
        case 3:
            return 2000 + seeded_below(&seed, 1000);
        default:
            return seeded_below(&seed, 700);
    }
}

static void compare(struct history *h, const struct rq_log_found *found)
{
    must_be(h, found->first_index <= h->released + 1, "an entry that is needed was given up");
    must_be(h, found->last_index >= h->durable, "a durable entry is missing");
    must_be(h, found->committed <= found->last_index, "what is missing is said to be committed");
    must_be(h,
            (found->term == h->meta_term && found->vote == h->meta_vote) ||
                (found->term == h->meta_next_term && found->vote == h->meta_next_vote),
            "term and vote went back");
    for (uint64_t i = found->first_index; h->wrong == NULL && i <= found->last_index; i++) {
        uint64_t term = rq_log_term_at(h->log, i);
        must_be(h, i > h->durable || i <= h->released || term == h->terms[i], "a durable entry has another term");
        must_be(h, rig_holds(h->log, i, term, bytes_of(i, term)), "an entry has other bytes");
        h->terms[i] = term;
    }
    h->last = h->durable = found->last_index;
    h->meta_term = h->meta_next_term = found->term;
    h->meta_vote = h->meta_next_vote = found->vote;
}

/* The process ends, one way or the other, perhaps several times while it starts again. */
static void die_and_recover(struct history *h)
{
    for (;;) {
        h->recoveries++;
        if (seeded_below(&h->seed, 2) == 0) {
            record_disk_crash(h->disk);
        } else {
            record_disk_power_loss(h->disk, seeded_next(&h->seed));
        }
        rq_log_close(h->log);
        h->log = NULL;
        record_disk_start(h->disk);
        if (seeded_below(&h->seed, 3) == 0) {
            record_disk_evict(h->disk);
        }
        record_disk_fail_sync(h->disk, 0);
        if (seeded_below(&h->seed, 4) == 0) {
            record_disk_stop_at(h->disk, 1 + seeded_below(&h->seed, 12));
        }
        struct rq_log_found found;
        enum rq_err err = rig_open(&h->disk->disk, "/raft", false, SEGMENT_BYTES, 1, &h->log, &found);
        if (err == RQ_NOTFOUND && !h->founded) {
            err = rig_open(&h->disk->disk, "/raft", true, SEGMENT_BYTES, 1, &h->log, &found);
        }
        if (err == RQ_OK) {
            h->founded = true;
            record_disk_stop_at(h->disk, 0);
            compare(h, &found);
            return;
        }
        if (!must_be(h, h->disk->stopped, "a sound log is refused")) {
            printf("# %s: %s\n", rq_err_name(err), found.problem);
            return;
        }
    }
}

static enum rq_err append_some(struct history *h)
{
    uint64_t from = h->last + 1;
    if (seeded_below(&h->seed, 8) == 0 && h->last > h->released) { /* another leader */
        from = h->last - seeded_below(&h->seed, (uint32_t)(h->last - h->released < 12 ? h->last - h->released : 12));
        h->term++;
    }
    unsigned count = 1 + seeded_below(&h->seed, 6);
    for (uint64_t i = from; i < from + count && i <= INDEX_MAX; i++) {
        enum rq_err err = rig_append(h->log, i, h->term, bytes_of(i, h->term), h->released);
        if (err != RQ_OK) {
            return err;
        }
        h->terms[i] = h->term;
        h->last = i;
        h->durable = h->durable < i - 1 ? h->durable : i - 1;
    }
    return RQ_OK;
}

static enum rq_err step(struct history *h)
{
    enum rq_err err = RQ_OK;
    switch (seeded_below(&h->seed, 12)) {
        case 0:
            h->meta_next_term = h->meta_term + seeded_below(&h->seed, 2);
            h->meta_next_vote =
                h->meta_next_term > h->meta_term || h->meta_vote == 0 ? seeded_below(&h->seed, 5) : h->meta_vote;
            err = rq_log_put_meta(h->log, h->meta_next_term, h->meta_next_vote);
            if (err == RQ_OK) {
                h->meta_term = h->meta_next_term;
                h->meta_vote = h->meta_next_vote;
            }
            return err;
        case 1:
            h->released +=
                h->durable > h->released ? seeded_below(&h->seed, (uint32_t)(h->durable - h->released + 1)) : 0;
            return rq_log_release(h->log, h->released);
        case 2:
            return rq_log_prepare(h->log);
        case 3:
        case 4:
        case 5:
        case 6: {
            uint64_t durable = 0;
            err = rq_log_write(h->log, &durable);
            if (err == RQ_OK) {
                must_be(h, durable == h->last, "a write leaves something unwritten");
                h->durable = durable;
            }
            return err == RQ_NOTFOUND ? RQ_OK : err;
        }
        default:
            return append_some(h);
    }
}

/* NULL, or what went wrong. */
static const char *run_history(uint64_t seed, unsigned lies, unsigned *ret_recoveries)
{
    static struct history h;
    h = (struct history){ .seed = seed, .disk = record_disk_new(), .term = 1 };
    record_disk_mkdir_p(h.disk, "/raft");
    record_disk_lie(h.disk, lies);
    record_disk_stop_at(h.disk, 1 + seeded_below(&h.seed, 30));
    die_and_recover(&h); /* before anything was founded */
    for (unsigned i = 0; h.wrong == NULL && i < STEPS; i++) {
        if (seeded_below(&h.seed, 10) == 0) {
            record_disk_stop_at(h.disk, 1 + seeded_below(&h.seed, 8));
        }
        if (seeded_below(&h.seed, 25) == 0) {
            record_disk_fail_sync(h.disk, 1 + seeded_below(&h.seed, 3));
        }
        if (step(&h) != RQ_OK || seeded_below(&h.seed, 15) == 0) {
            die_and_recover(&h);
        }
    }
    rq_log_close(h.log);
    record_disk_free(h.disk);
    *ret_recoveries += h.recoveries;
    return h.wrong;
}

static void histories_lose_nothing_that_was_durable(void)
{
    const char *one = getenv("RQ_LOG_POWER_SEED"), *many = getenv("RQ_LOG_POWER_SEEDS");
    uint64_t first = one != NULL ? strtoull(one, NULL, 10) : 1;
    uint64_t count = one != NULL ? 1 : many != NULL ? strtoull(many, NULL, 10) : 1500;
    unsigned recoveries = 0;
    for (uint64_t seed = first; seed < first + count; seed++) {
        const char *wrong = run_history(seed, 0, &recoveries);
        if (wrong != NULL) {
            printf("# seed %llu: %s\n", (unsigned long long)seed, wrong);
        }
        check(wrong == NULL);
    }
    printf("# %u recoveries\n", recoveries);
}

/* Without one of its kinds of sync the log must fail here, else the histories prove nothing. */
static void finds_out_a_disk_that_lies(unsigned lie)
{
    unsigned recoveries = 0;
    for (uint64_t seed = 1; seed < 500; seed++) {
        if (run_history(seed, lie, &recoveries) != NULL) {
            return;
        }
    }
    check(!"nothing was noticed");
}

static void missing_syncs_of_batches_are_found_out(void)
{
    finds_out_a_disk_that_lies(RECORD_LIE_DSYNC);
}

static void missing_syncs_of_new_segments_are_found_out(void)
{
    finds_out_a_disk_that_lies(RECORD_LIE_SYNC);
}

static void missing_syncs_of_names_are_found_out(void)
{
    finds_out_a_disk_that_lies(RECORD_LIE_SYNC_DIR);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(histories_lose_nothing_that_was_durable),
        TAP(missing_syncs_of_batches_are_found_out),
        TAP(missing_syncs_of_new_segments_are_found_out),
        TAP(missing_syncs_of_names_are_found_out),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
