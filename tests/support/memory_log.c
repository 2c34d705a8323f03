#include "tests/support/memory_log.h"

#include <assert.h>
#include <stdlib.h>

enum { ENTRIES_MAX = 4096 };

struct rq_log {
    struct rq_log_entry entries[ENTRIES_MAX]; /* by index; shares the blobs */
    uint64_t first, last, durable;
    uint64_t term, vote;
    uint64_t committed, committed_durable;
    uint64_t reserved_bytes;
    unsigned reserved, limit;
};

struct rq_log *memory_log_new(void)
{
    struct rq_log *log = calloc(1, sizeof *log);
    assert(log != NULL);
    log->first = 1;
    log->limit = UINT32_MAX;
    return log;
}

static void cut(struct rq_log *log, uint64_t first_gone)
{
    for (uint64_t i = first_gone; i <= log->last; i++) {
        rq_blob_unref(log->entries[i].blob);
        log->entries[i] = (struct rq_log_entry){ 0 };
    }
    log->last = first_gone - 1;
    log->durable = log->durable < log->last ? log->durable : log->last;
}

void memory_log_crash(struct rq_log *log, struct rq_log_found *ret_found)
{
    cut(log, log->durable + 1);
    log->committed = log->committed_durable;
    log->reserved = 0;
    log->reserved_bytes = 0;
    *ret_found = (struct rq_log_found){
        .term = log->term,
        .vote = log->vote,
        .first_index = log->first,
        .last_index = log->last,
        .committed = log->committed_durable,
    };
}

void memory_log_limit(struct rq_log *log, unsigned entries)
{
    log->limit = entries;
}

unsigned memory_log_reserved(const struct rq_log *log)
{
    return log->reserved;
}

void rq_log_close(struct rq_log *log)
{
    cut(log, log->first);
    free(log);
}

enum rq_err rq_log_put_meta(struct rq_log *log, uint64_t term, uint64_t vote)
{
    assert(term >= log->term);
    assert(term > log->term || log->vote == 0 || log->vote == vote);
    log->term = term;
    log->vote = vote;
    return RQ_OK;
}

enum rq_err rq_log_reserve(struct rq_log *log, uint64_t bytes, unsigned entries)
{
    if (entries > log->limit) {
        return RQ_FULL;
    }
    log->limit -= log->limit == UINT32_MAX ? 0 : entries;
    log->reserved += entries;
    log->reserved_bytes += bytes;
    return RQ_OK;
}

void rq_log_unreserve(struct rq_log *log, uint64_t bytes, unsigned entries)
{
    assert(log->reserved >= entries);
    assert(log->reserved_bytes >= bytes);
    log->reserved -= entries;
    log->reserved_bytes -= bytes;
    log->limit += log->limit == UINT32_MAX ? 0 : entries;
}

enum rq_err rq_log_append(struct rq_log *log, const struct rq_log_entry *entries, unsigned count, uint64_t committed)
{
    assert(count > 0);
    assert(entries[0].index > committed);
    assert(entries[0].index <= log->last + 1);
    assert(entries[0].index + count <= ENTRIES_MAX);
    assert(log->reserved >= count);
    cut(log, entries[0].index);
    for (unsigned i = 0; i < count; i++) {
        size_t bytes = entries[i].blob != NULL ? entries[i].blob->bytes : 0;
        assert(entries[i].index == log->last + 1);
        assert(entries[i].term <= log->term);
        assert(log->reserved_bytes >= bytes);
        log->last++;
        log->entries[log->last] = entries[i];
        if (entries[i].blob != NULL) {
            rq_blob_ref(entries[i].blob);
        }
        log->reserved_bytes -= bytes;
    }
    log->reserved -= count;
    log->committed = committed;
    return RQ_OK;
}

enum rq_err rq_log_write(struct rq_log *log, uint64_t *ret_durable_index)
{
    if (log->durable == log->last) {
        return RQ_NOTFOUND;
    }
    log->durable = log->last;
    log->committed_durable = log->committed;
    *ret_durable_index = log->durable;
    return RQ_OK;
}

enum rq_err rq_log_restart(struct rq_log *log, uint64_t index)
{
    cut(log, log->first);
    log->first = index + 1;
    log->last = log->durable = index;
    return RQ_OK;
}

bool rq_log_write_pending(struct rq_log *log)
{
    return log->durable < log->last;
}

uint64_t rq_log_durable(const struct rq_log *log)
{
    return log->durable;
}

uint64_t rq_log_first(const struct rq_log *log)
{
    return log->first;
}

uint64_t rq_log_last(const struct rq_log *log)
{
    return log->last;
}

uint64_t rq_log_term_at(const struct rq_log *log, uint64_t index)
{
    return index < log->first || index > log->last ? 0 : log->entries[index].term;
}

enum rq_err rq_log_get(struct rq_log *log, uint64_t index, struct rq_log_entry *ret_entry)
{
    if (index < log->first || index > log->last) {
        return RQ_NOTFOUND;
    }
    *ret_entry = log->entries[index];
    if (ret_entry->blob != NULL) {
        rq_blob_ref(ret_entry->blob);
    }
    return RQ_OK;
}

enum rq_err rq_log_release(struct rq_log *log, uint64_t index)
{
    for (; log->first <= index; log->first++) {
        rq_blob_unref(log->entries[log->first].blob);
        log->entries[log->first] = (struct rq_log_entry){ 0 };
    }
    return RQ_OK;
}
