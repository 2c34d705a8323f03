#include "vfs/page_set.h"

#include <stdlib.h>
#include <string.h>

#define WORD_BITS 64u
#define WORDS_MIN 64u

void rq_page_set_fini(struct rq_page_set *s)
{
    free(s->words);
    *s = (struct rq_page_set){ 0 };
}

static enum rq_err grow(struct rq_page_set *s, size_t words)
{
    size_t wanted = s->word_count < WORDS_MIN ? WORDS_MIN : s->word_count;
    while (wanted < words) {
        wanted *= 2;
    }
    uint64_t *grown = realloc(s->words, wanted * sizeof *grown);
    if (grown == NULL) {
        return RQ_NOMEM;
    }
    memset(grown + s->word_count, 0, (wanted - s->word_count) * sizeof *grown);
    s->words = grown;
    s->word_count = wanted;
    return RQ_OK;
}

enum rq_err rq_page_set_put(struct rq_page_set *s, uint32_t pgno)
{
    const size_t word = pgno / WORD_BITS;
    if (word >= s->word_count) {
        enum rq_err err = grow(s, word + 1);
        if (err != RQ_OK) {
            return err;
        }
    }
    s->count += !rq_page_set_has(s, pgno);
    s->words[word] |= 1ull << pgno % WORD_BITS;
    return RQ_OK;
}

void rq_page_set_drop(struct rq_page_set *s, uint32_t pgno)
{
    if (rq_page_set_has(s, pgno)) {
        s->words[pgno / WORD_BITS] &= ~(1ull << pgno % WORD_BITS);
        s->count--;
    }
}

bool rq_page_set_has(const struct rq_page_set *s, uint32_t pgno)
{
    return pgno / WORD_BITS < s->word_count && (s->words[pgno / WORD_BITS] >> pgno % WORD_BITS & 1u) != 0;
}

uint32_t rq_page_set_next(const struct rq_page_set *s, uint32_t from)
{
    uint64_t mask = ~0ull << from % WORD_BITS;
    for (size_t word = from / WORD_BITS; word < s->word_count; word++, mask = ~0ull) {
        const uint64_t bits = s->words[word] & mask;
        if (bits != 0) {
            return (uint32_t)(word * WORD_BITS + (size_t)__builtin_ctzll(bits));
        }
    }
    return 0;
}
