#include "raftd/db/change_tables.h"

#include <stdlib.h>
#include <string.h>

#include "vfs/page_owners.h"

#define WALK_SHARE 4u /* when more than the so-manieth part of the pages has changed, all are looked at */

/* Of tables, each once. */
struct set {
    struct rq_bytes numbers;
    struct rq_bytes marks; /* by number: 1 if it is in */
};

struct rq_change_tables {
    struct rq_page_owners *owners;
    bool known;             /* the owners are, as of the last batch */
    struct rq_bytes pages;  /* of the batch, ascending, each once */
    struct set all, one;    /* of the batch; of one transaction */
    struct rq_bytes sorted; /* names */
    struct rq_table_names *last;
};

static void set_init(struct set *s)
{
    rq_bytes_init(&s->numbers, SIZE_MAX);
    rq_bytes_init(&s->marks, SIZE_MAX);
}

static void set_fini(struct set *s)
{
    rq_bytes_fini(&s->numbers);
    rq_bytes_fini(&s->marks);
}

void rq_table_names_unref(struct rq_table_names *n)
{
    if (n != NULL && --n->refs == 0) {
        free(n);
    }
}

enum rq_err rq_change_tables_new(struct rq_change_tables **ret_tables)
{
    struct rq_change_tables *t = calloc(1, sizeof *t);
    if (t == NULL || rq_page_owners_new(&t->owners) != RQ_OK) {
        free(t);
        return RQ_NOMEM;
    }
    rq_bytes_init(&t->pages, SIZE_MAX);
    set_init(&t->all);
    set_init(&t->one);
    rq_bytes_init(&t->sorted, SIZE_MAX);
    *ret_tables = t;
    return RQ_OK;
}

void rq_change_tables_free(struct rq_change_tables *t)
{
    if (t != NULL) {
        rq_page_owners_free(t->owners);
        rq_bytes_fini(&t->pages);
        set_fini(&t->all);
        set_fini(&t->one);
        rq_bytes_fini(&t->sorted);
        rq_table_names_unref(t->last);
        free(t);
    }
}

void rq_change_tables_restart(struct rq_change_tables *t)
{
    t->known = false;
}

/* --- sets ----------------------------------------------------------------------------------------------------------------- */

static size_t set_count(const struct set *s)
{
    return s->numbers.size / sizeof(uint32_t);
}

static uint32_t set_at(const struct set *s, size_t i)
{
    return ((const uint32_t *)s->numbers.data)[i];
}

static void set_clear(struct set *s)
{
    for (size_t i = 0; i < set_count(s); i++) {
        s->marks.data[set_at(s, i)] = 0;
    }
    s->numbers.size = 0;
}

static enum rq_err set_add(struct set *s, uint32_t table)
{
    if (table == RQ_TABLE_NONE || (table < s->marks.size && s->marks.data[table] != 0)) {
        return RQ_OK;
    }
    enum rq_err err = RQ_OK;
    if (table >= s->marks.size) {
        const size_t more = table + 1 - s->marks.size;
        err = rq_bytes_reserve(&s->marks, more);
        if (err == RQ_OK) {
            memset(s->marks.data + s->marks.size, 0, more);
            s->marks.size += more;
        }
    }
    err = err == RQ_OK ? rq_bytes_put(&s->numbers, &table, sizeof table) : err;
    if (err == RQ_OK) {
        s->marks.data[table] = 1;
    }
    return err;
}

static enum rq_err set_add_owner(struct set *s, const struct rq_page_owner *owner)
{
    enum rq_err err = set_add(s, owner->table);
    return err == RQ_OK ? set_add(s, owner->virtual_table) : err;
}

/* Those that sqlite_schema has other rows for now. */
static enum rq_err set_add_redefined(struct set *s, const struct rq_page_owners *owners)
{
    const struct rq_table_list *l = rq_page_owners_tables(owners);
    enum rq_err err = RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < l->changed_count; i++) {
        err = set_add(s, l->changed[i]);
    }
    return err;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The same ones as last time are shared with that. */
static enum rq_err set_names(struct rq_change_tables *t, const struct set *s, struct rq_table_names **ret_names)
{
    const struct rq_table_list *l = rq_page_owners_tables(t->owners);
    const size_t count = set_count(s);
    size_t bytes = 0;
    t->sorted.size = 0;
    for (size_t i = 0; i < count; i++) {
        const char *name = l->names[set_at(s, i)];
        const enum rq_err err = rq_bytes_put(&t->sorted, (const void *)&name, sizeof name);
        if (err != RQ_OK) {
            return err;
        }
        bytes += strlen(name) + 1;
    }
    char **names = (char **)t->sorted.data;
    if (count > 1) {
        qsort((void *)names, count, sizeof *names, compare_names);
    }
    struct rq_table_names *n = malloc(sizeof *n + bytes);
    if (n == NULL) {
        return RQ_NOMEM;
    }
    *n = (struct rq_table_names){ .refs = 1, .bytes = bytes };
    for (size_t i = 0, at = 0; i < count; i++) {
        memcpy(n->text + at, names[i], strlen(names[i]) + 1);
        at += strlen(names[i]) + 1;
    }
    if (t->last != NULL && t->last->bytes == bytes && memcmp(t->last->text, n->text, bytes) == 0) {
        free(n);
        n = t->last;
    } else {
        rq_table_names_unref(t->last);
        t->last = n;
    }
    n->refs++;
    *ret_names = n;
    return RQ_OK;
}

/* --- a batch ---------------------------------------------------------------------------------------------------------------- */

static int compare_numbers(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* ret_lost: of one of them it is not known which they are. */
static enum rq_err gather_pages(struct rq_change_tables *t, const struct rq_change_records *records, bool *ret_lost)
{
    enum rq_err err = RQ_OK;
    t->pages.size = 0;
    *ret_lost = false;
    for (size_t i = 0; err == RQ_OK && i < records->count; i++) {
        const struct rq_change_record *r = &records->list[i];
        *ret_lost = *ret_lost || r->lost;
        err = rq_bytes_put(&t->pages, rq_change_record_pages(records, r), r->page_count * sizeof(uint32_t));
    }
    uint32_t *pages = (uint32_t *)t->pages.data;
    size_t count = t->pages.size / sizeof *pages, kept = 0;
    if (records->count > 1) {
        qsort(pages, count, sizeof *pages, compare_numbers);
    }
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || pages[kept - 1] != pages[i]) {
            pages[kept++] = pages[i];
        }
    }
    t->pages.size = kept * sizeof *pages;
    return err;
}

/* To all of the batch: whoever had those pages before it, or is told to have them after it. */
static enum rq_err add_owners(struct rq_change_tables *t, const struct rq_page_view *after)
{
    const uint32_t *pages = (const uint32_t *)t->pages.data;
    const size_t count = t->pages.size / sizeof *pages;
    struct rq_page_owner owner;
    enum rq_err err = RQ_OK;
    for (size_t i = 0; err == RQ_OK && i < count; i++) {
        if (pages[i] == 1) {
            continue; /* every transaction changes its header */
        }
        if (after == NULL) {
            rq_page_owners_guess(t->owners, pages[i], &owner);
        } else {
            err = rq_page_owners_find(t->owners, after, pages[i], &owner);
        }
        err = err == RQ_OK ? set_add_owner(&t->all, &owner) : err;
    }
    return err;
}

static enum rq_err bring_owners(struct rq_change_tables *t, const struct rq_page_view *view, bool lost)
{
    const uint32_t *pages = (const uint32_t *)t->pages.data;
    const size_t count = t->pages.size / sizeof *pages;
    if (t->known && !lost && count <= view->page_count / WALK_SHARE + 16) {
        const enum rq_err err = rq_page_owners_advance(t->owners, view, pages, count);
        if (err == RQ_OK) {
            return RQ_OK;
        }
    }
    return rq_page_owners_walk(t->owners, view);
}

static bool changes_schema(const struct rq_change_tables *t, const struct rq_change_record *r)
{
    return r->schema_number || (r->whole && rq_page_owners_schema_changed(t->owners));
}

/* ret_hands_over: this transaction may have given pages of one table to another. */
static enum rq_err find_one(struct rq_change_tables *t, const struct rq_page_view *view,
                            const struct rq_change_records *records, const struct rq_change_record *r,
                            bool *ret_hands_over)
{
    const uint32_t *pages = rq_change_record_pages(records, r);
    bool structural = false;
    enum rq_err err = RQ_OK;
    *ret_hands_over = r->frees || r->schema_number || r->whole;
    set_clear(&t->one);
    if (r->schema_page) {
        err = set_add(&t->one, RQ_TABLE_SCHEMA);
    }
    for (uint32_t i = 0; err == RQ_OK && i < r->page_count; i++) {
        struct rq_page_owner owner;
        if (pages[i] == 1) {
            continue;
        }
        err = rq_page_owners_find(t->owners, view, pages[i], &owner);
        if (err == RQ_OK) {
            *ret_hands_over = *ret_hands_over || owner.table == RQ_TABLE_NONE;
            structural = structural || owner.structural;
            err = set_add_owner(&t->one, &owner);
        }
    }
    *ret_hands_over = *ret_hands_over || (structural && set_count(&t->one) > 1);
    if (err == RQ_OK && changes_schema(t, r)) {
        err = set_add(&t->one, RQ_TABLE_SCHEMA);
        err = err == RQ_OK ? set_add_redefined(&t->one, t->owners) : err;
    }
    return err;
}

static enum rq_err find_all(struct rq_change_tables *t, const struct rq_page_view *view,
                            const struct rq_change_records *records, bool follows, struct rq_table_names **ret_names)
{
    enum rq_err err = RQ_OK;
    bool sure = true;
    for (size_t i = records->count; err == RQ_OK && i > 0; i--) {
        const struct rq_change_record *r = &records->list[i - 1];
        bool hands_over = true;
        if (r->lost || (!follows && (!sure || r->schema_number || r->whole))) {
            sure = false;
            continue;
        }
        if (!sure) {
            err = set_names(t, &t->all, &ret_names[i - 1]);
            continue;
        }
        err = find_one(t, view, records, r, &hands_over);
        err = err == RQ_OK ? set_names(t, &t->one, &ret_names[i - 1]) : err;
        sure = !hands_over;
    }
    return err;
}

enum rq_err rq_change_tables_find(struct rq_change_tables *t, const struct rq_page_view *view,
                                  const struct rq_change_records *records, struct rq_table_names **ret_names)
{
    const bool followed = t->known;
    bool lost = false;
    for (size_t i = 0; i < records->count; i++) {
        ret_names[i] = NULL;
    }
    set_clear(&t->all);
    enum rq_err err = gather_pages(t, records, &lost);
    if (err == RQ_OK && followed) {
        err = add_owners(t, NULL);
    }
    if (err == RQ_OK) {
        err = bring_owners(t, view, lost);
    }
    t->known = err == RQ_OK;
    if (err == RQ_OK && followed) {
        err = add_owners(t, view);
        for (size_t i = 0; err == RQ_OK && i < records->count; i++) {
            if (records->list[i].schema_page || changes_schema(t, &records->list[i])) {
                err = set_add(&t->all, RQ_TABLE_SCHEMA);
            }
        }
        err = err == RQ_OK ? set_add_redefined(&t->all, t->owners) : err;
    }
    /* Where a list of pages is missing, what it would have added is missing from the rest, too. */
    return err == RQ_OK ? find_all(t, view, records, followed && !lost, ret_names) : err;
}
