#include "raftd/cluster/verdict.h"

#include <stddef.h>

static uint64_t says(const struct rq_opinion *o, uint32_t page)
{
    return page < o->count ? o->hashes[page] : 0;
}

bool rq_verdict_agrees(const struct rq_opinion *opinion, uint32_t page, uint64_t hash)
{
    return says(opinion, page) == hash;
}

bool rq_verdict_page(const struct rq_opinion *opinions, unsigned count, uint32_t page, unsigned needed,
                     uint64_t *ret_hash)
{
    for (unsigned i = 0; i < count; i++) {
        unsigned votes = 0;
        if (opinions[i].hashes == NULL || !opinions[i].votes) {
            continue;
        }
        for (unsigned k = 0; k < count; k++) {
            const struct rq_opinion *o = &opinions[k];
            votes += o->hashes != NULL && o->votes && says(o, page) == says(&opinions[i], page);
        }
        if (votes >= needed) {
            *ret_hash = says(&opinions[i], page);
            return true;
        }
    }
    return false;
}

static bool differ(const struct rq_opinion *opinions, unsigned count, uint32_t page)
{
    const struct rq_opinion *first = NULL;
    for (unsigned i = 0; i < count; i++) {
        if (opinions[i].hashes == NULL) {
            continue;
        }
        if (first == NULL) {
            first = &opinions[i];
        } else if (says(first, page) != says(&opinions[i], page)) {
            return true;
        }
    }
    return false;
}

void rq_verdict(const struct rq_opinion *opinions, unsigned count, unsigned voters, struct rq_verdict *ret_verdict)
{
    struct rq_verdict v = { 0 };
    uint32_t pages = 0;
    for (unsigned i = 0; i < count; i++) {
        pages = opinions[i].hashes != NULL && opinions[i].count > pages ? opinions[i].count : pages;
    }
    for (uint32_t page = 0; page < pages; page++) {
        uint64_t right;
        if (!differ(opinions, count, page)) {
            continue;
        }
        if (!rq_verdict_page(opinions, count, page, voters / 2 + 1, &right)) {
            v.first_undecided = v.undecided++ == 0 ? page : v.first_undecided;
            continue;
        }
        for (unsigned i = 0; i < count; i++) {
            const bool wrong = opinions[i].hashes != NULL && says(&opinions[i], page) != right;
            if (wrong && i == 0) {
                v.first_wrong_here = v.wrong_here++ == 0 ? page : v.first_wrong_here;
            } else if (wrong) {
                v.wrong_elsewhere |= 1ull << i;
            }
        }
    }
    *ret_verdict = v;
}
