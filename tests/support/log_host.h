/* Log host: what a raftd of one host does with the groups of an executor: record, log on the real disk, replica, outcome.  The
 * databases are those of local_sink.h, so that applications write them beside the executor.
 * Threads: one that carries groups, one that back-fills. */
#ifndef TESTS_SUPPORT_LOG_HOST_H
#define TESTS_SUPPORT_LOG_HOST_H

#include <stdbool.h>
#include <stdint.h>

#include "raftd/db/executor.h"

struct log_host;

/* dir: of the log, made.  name: of the database. */
struct log_host *log_host_new(const char *dir, const char *name);
void log_host_free(struct log_host *h);
struct rq_executor_host log_host_ops(struct log_host *h);

/* Shut: a group waits before it is written to the log. */
void log_host_gate(struct log_host *h, bool shut);
/* Groups that have come to the gate. */
uint64_t log_host_arrived(struct log_host *h);
/* The next group has this outcome; it is not written. */
void log_host_order(struct log_host *h, enum rq_err outcome);

struct log_host_stats {
    uint64_t groups, transactions, pages, record_bytes;
    uint64_t transactions_max;         /* of one group */
    double record_s, write_s, apply_s; /* seconds that the steps took */
};
struct log_host_stats log_host_stats(struct log_host *h);

#endif
