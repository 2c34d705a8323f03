#include "raftd/run/metrics.h"

_Atomic uint64_t rq_counters[RQ_COUNTER_COUNT];
struct rq_histogram rq_stages[RQ_STAGE_COUNT];

const struct rq_counter_name rq_counter_names[RQ_COUNTER_COUNT] = {
#define RQ_COUNTER(section, key) { #section, #key },
    RQ_COUNTERS(RQ_COUNTER)
#undef RQ_COUNTER
};

const char *const rq_stage_names[RQ_STAGE_COUNT] = {
#define RQ_STAGE(name) #name,
    RQ_STAGES(RQ_STAGE)
#undef RQ_STAGE
};

unsigned rq_stage_bucket(uint64_t ns)
{
    const uint64_t us = ns / 1000u + (ns % 1000u != 0);
    const unsigned bits = us <= 1 ? 0 : 64u - (unsigned)__builtin_clzll(us - 1);
    return bits < RQ_STAGE_BUCKETS - 1 ? bits : RQ_STAGE_BUCKETS - 1;
}

void rq_stage_took(enum rq_stage stage, uint64_t ns)
{
    struct rq_histogram *h = &rq_stages[stage];
    (void)atomic_fetch_add_explicit(&h->buckets[rq_stage_bucket(ns)], 1, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&h->sum_ns, ns, memory_order_relaxed);
}
