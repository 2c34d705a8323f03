/* Metrics: what this process has counted and measured about itself since its start.
 *
 * Any thread, no lock: each number is right by itself, several of them are not of one moment.  /debug/vars and /metrics show them, under
 * the names that rqlite has for them where it has. */
#ifndef RAFTD_RUN_METRICS_H
#define RAFTD_RUN_METRICS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* --- counters ----------------------------------------------------------------------------------------------------------- */

/* Section and key, in byte order. */
#define RQ_COUNTERS(X)                                                                       \
    X(cluster, num_client_force_new_conn) /* connections to a member that were made again */ \
    X(cluster, num_get_node_api_req)                                                         \
    X(cluster, num_join_req)                                                                 \
    X(cluster, num_notify_req)                                                               \
    X(cluster, num_remove_node_req)                                                          \
    X(cluster, num_stepdown_req)                                                             \
    X(db, applied) /* transactions and groups, of any origin */                              \
    X(db, commits) /* of this host's applications, with their outcome */                     \
    X(http, auth_fail)                                                                       \
    X(http, auth_ok)                                                                         \
    X(http, backups)                                                                         \
    X(http, boot)                                                                            \
    X(http, changes)      /* streams that began */                                           \
    X(http, changes_lost) /* listeners that have missed some, and were told so */            \
    X(http, changes_told)                                                                    \
    X(http, execute_stmts_rx)                                                                \
    X(http, executions)                                                                      \
    X(http, leader_not_found)                                                                \
    X(http, loads)                                                                           \
    X(http, num_readyz)                                                                      \
    X(http, num_status)                                                                      \
    X(http, queries)                                                                         \
    X(http, query_stmts_rx)                                                                  \
    X(http, queued_executions)                                                               \
    X(http, queued_executions_num_stmts_rx)                                                  \
    X(http, queued_executions_wait)                                                          \
    X(http, queued_executions_wait_timeout)                                                  \
    X(http, request_stmts_rx)                                                                \
    X(http, requests)                                                                        \
    X(http, tx_begun)                                                                        \
    X(http, tx_committed)                                                                    \
    X(http, tx_expired)     /* idle or old for too long, or in others' way */                \
    X(http, tx_failed)      /* by an error of a statement, or of COMMIT: nothing happened */ \
    X(http, tx_rolled_back) /* by its client */                                              \
    X(http, tx_unknown)     /* whether it was committed was not known in time */             \
    X(http, ui)                                                                              \
    X(http, user_reaps)                                                                      \
    X(http, user_snapshots)                                                                  \
    X(queue, num_flush)                                                                      \
    X(queue, num_timeout)                                                                    \
    X(queue, objects_rx)                                                                     \
    X(queue, objects_tx)                                                                     \
    X(snapshot, upgrade_fail)                                                                \
    X(snapshot, upgrade_ok)                                                                  \
    X(store, nodes_reaped_failed)                                                            \
    X(store, nodes_reaped_ok)                                                                \
    X(store, num_auto_optimizes)                                                             \
    X(store, num_auto_optimizes_failed)                                                      \
    X(store, num_auto_vacuums)                                                               \
    X(store, num_auto_vacuums_failed)                                                        \
    X(store, num_backups)                                                                    \
    X(store, num_boots)                                                                      \
    X(store, num_ignored_joins)                                                              \
    X(store, num_joins)                                                                      \
    X(store, num_loads)                                                                      \
    X(store, num_recoveries)                                                                 \
    X(store, num_removed_before_joins)                                                       \
    X(store, num_restores) /* states that came from another member */                        \
    X(store, num_restores_failed)                                                            \
    X(store, num_restores_start)                                                             \
    X(store, num_restores_start_skipped) /* the replicas were good as they are */            \
    X(store, num_snapshots)                                                                  \
    X(store, num_snapshots_failed)                                                           \
    X(store, num_user_snapshots)                                                             \
    X(store, num_user_snapshots_failed)

enum rq_counter {
#define RQ_COUNTER(section, key) RQ_COUNTER_##section##_##key,
    RQ_COUNTERS(RQ_COUNTER)
#undef RQ_COUNTER
        RQ_COUNTER_COUNT
};

extern _Atomic uint64_t rq_counters[RQ_COUNTER_COUNT];

/* RQ_COUNT(http, loads): one more. */
#define RQ_COUNT(section, key) \
    ((void)atomic_fetch_add_explicit(&rq_counters[RQ_COUNTER_##section##_##key], 1, memory_order_relaxed))

struct rq_counter_name {
    const char *section, *key;
};
#define RQ_COUNT_N(section, key, n) \
    ((void)atomic_fetch_add_explicit(&rq_counters[RQ_COUNTER_##section##_##key], (n), memory_order_relaxed))

extern const struct rq_counter_name rq_counter_names[RQ_COUNTER_COUNT];

/* --- the stages of a commit, on the host where it is made ----------------------------------------------------------------- */

#define RQ_STAGES(X)                                                                                                   \
    X(queue)     /* until it is this transaction's turn to be prepared */                                              \
    X(diff)      /* its record, or the durable body, is made */                                                        \
    X(log_write) /* a batch of entries, of any database and host, is put together */                                   \
    X(sync)      /* until the disk has it: write and sync are one */                                                   \
    X(replicate) /* from the record to a majority's having it: with log_write and sync here, which others do beside */ \
    X(apply)     /* into the replica; also what other hosts have committed */                                          \
    X(answer)    /* who waits is told, and the next one let in */

enum rq_stage {
#define RQ_STAGE(name) RQ_STAGE_##name,
    RQ_STAGES(RQ_STAGE)
#undef RQ_STAGE
        RQ_STAGE_COUNT
};

/* Bucket i has what took at most 2^i us, the last one the rest. */
#define RQ_STAGE_BUCKETS 26

struct rq_histogram {
    _Atomic uint64_t buckets[RQ_STAGE_BUCKETS];
    _Atomic uint64_t sum_ns;
};
extern struct rq_histogram rq_stages[RQ_STAGE_COUNT];
extern const char *const rq_stage_names[RQ_STAGE_COUNT];

unsigned rq_stage_bucket(uint64_t ns);
void rq_stage_took(enum rq_stage stage, uint64_t ns);

#endif
