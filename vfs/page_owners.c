#include "vfs/page_owners.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"
#include "vfs/btree_page.h"

enum { HEAD_BYTES = 100, RESERVED_AT = 20, COOKIE_AT = 40 };

/* Of a page. */
enum {
    KIND_NONE = 0,     /* nothing has ever led to it */
    KIND_TREE = 1,     /* in a b-tree */
    KIND_INTERIOR = 2, /* likewise, with pages below it */
    KIND_OVERFLOW = 3,
    KIND_MASK = 3,
    OWNED = 4,    /* is, as the present view has it */
    SEEN = 8,     /* on the way up that is being gone; or in a walk */
    CHANGED = 16, /* by the transaction that is being looked at */
    DONE = 32,    /* what it leads to now is known */
};

struct rq_page_owners {
    struct rq_table_list tables;
    uint32_t page_size, page_count;
    uint8_t reserved;
    uint64_t schema_hash; /* of page 1 behind the header, and of the schema's number in it */
    bool schema_changed;
    uint32_t *parents;     /* owns: by page number; 0: none */
    uint8_t *kinds;        /* owns */
    uint32_t capacity;     /* of both */
    uint8_t *page, *above; /* own: the page in work, and the one that is asked whether it leads to another */
    uint32_t above_pgno;   /* 0: none is there */
    struct rq_btree_page above_page;
    struct rq_bytes stack, path, marked; /* page numbers */
};

enum rq_err rq_page_owners_new(struct rq_page_owners **ret_owners)
{
    struct rq_page_owners *o = calloc(1, sizeof *o);
    if (o == NULL || rq_table_list_init(&o->tables) != RQ_OK) {
        free(o);
        return RQ_NOMEM;
    }
    rq_bytes_init(&o->stack, SIZE_MAX);
    rq_bytes_init(&o->path, SIZE_MAX);
    rq_bytes_init(&o->marked, SIZE_MAX);
    *ret_owners = o;
    return RQ_OK;
}

void rq_page_owners_free(struct rq_page_owners *o)
{
    if (o != NULL) {
        rq_table_list_fini(&o->tables);
        rq_bytes_fini(&o->stack);
        rq_bytes_fini(&o->path);
        rq_bytes_fini(&o->marked);
        free(o->parents);
        free(o->kinds);
        free(o->page);
        free(o->above);
        free(o);
    }
}

const struct rq_table_list *rq_page_owners_tables(const struct rq_page_owners *o)
{
    return &o->tables;
}

bool rq_page_owners_schema_changed(const struct rq_page_owners *o)
{
    return o->schema_changed;
}

/* --- page numbers on stacks ------------------------------------------------------------------------------------------------ */

static enum rq_err push(struct rq_bytes *stack, uint32_t pgno)
{
    return rq_bytes_put(stack, &pgno, sizeof pgno);
}

static bool pop(struct rq_bytes *stack, uint32_t *ret_pgno)
{
    if (stack->size == 0) {
        return false;
    }
    stack->size -= sizeof *ret_pgno;
    memcpy(ret_pgno, stack->data + stack->size, sizeof *ret_pgno);
    return true;
}

/* --- pages ------------------------------------------------------------------------------------------------------------------ */

static bool in_range(const struct rq_page_owners *o, uint32_t pgno)
{
    return pgno != 0 && pgno <= o->page_count;
}

static unsigned kind_of(const struct rq_page_owners *o, uint32_t pgno)
{
    return o->kinds[pgno] & KIND_MASK;
}

static bool is_root(const struct rq_page_owners *o, uint32_t pgno)
{
    return rq_table_list_tree(&o->tables, pgno) != NULL;
}

static enum rq_err mark(struct rq_page_owners *o, uint32_t pgno, uint8_t with)
{
    enum rq_err err = (o->kinds[pgno] & (uint8_t)~KIND_MASK) == 0 ? push(&o->marked, pgno) : RQ_OK;
    if (err == RQ_OK) {
        o->kinds[pgno] |= with;
    }
    return err;
}

static void unmark_all(struct rq_page_owners *o)
{
    uint32_t pgno;
    while (pop(&o->marked, &pgno)) {
        o->kinds[pgno] &= KIND_MASK;
    }
}

/* What is known is of the same database, or the walk begins with nothing. */
static enum rq_err fit(struct rq_page_owners *o, const struct rq_page_view *view)
{
    const uint32_t capacity = view->page_count + 1;
    if (view->page_size != o->page_size) {
        free(o->page);
        free(o->above);
        o->page = malloc(view->page_size);
        o->above = malloc(view->page_size);
        o->page_size = o->page != NULL && o->above != NULL ? view->page_size : 0;
        if (o->page_size == 0) {
            return RQ_NOMEM;
        }
    }
    if (capacity > o->capacity) {
        const size_t to = (size_t)capacity + capacity / 8;
        uint32_t *parents = to <= UINT32_MAX ? realloc(o->parents, to * sizeof *parents) : NULL;
        o->parents = parents != NULL ? parents : o->parents;
        uint8_t *kinds = parents != NULL ? realloc(o->kinds, to) : NULL;
        o->kinds = kinds != NULL ? kinds : o->kinds;
        if (kinds == NULL) {
            return RQ_NOMEM;
        }
        memset(parents + o->capacity, 0, (to - o->capacity) * sizeof *parents);
        memset(kinds + o->capacity, 0, to - o->capacity);
        o->capacity = (uint32_t)to;
    }
    o->page_count = view->page_count;
    o->above_pgno = 0;
    return RQ_OK;
}

/* --- from a page to those that it leads to ----------------------------------------------------------------------------------- */

typedef enum rq_err link_cb(struct rq_page_owners *o, uint32_t from, uint32_t to, unsigned kind);

static enum rq_err follow(struct rq_page_owners *o, uint32_t from, uint32_t to, unsigned kind, link_cb *cb)
{
    return in_range(o, to) ? cb(o, from, to, kind) : RQ_CORRUPT;
}

/* Of the page in o->page. */
static enum rq_err each_link(struct rq_page_owners *o, uint32_t pgno, link_cb *cb)
{
    struct rq_btree_page p;
    struct rq_btree_cell cell;
    if (kind_of(o, pgno) == KIND_OVERFLOW) {
        const uint32_t next = rq_get_u32(o->page);
        return next != 0 ? follow(o, pgno, next, KIND_OVERFLOW, cb) : RQ_OK;
    }
    enum rq_err err = rq_btree_page_init(&p, o->page, pgno, o->page_size, o->reserved);
    if (err != RQ_OK) {
        return err;
    }
    o->kinds[pgno] = (uint8_t)((o->kinds[pgno] & ~KIND_MASK) | (p.right_child != 0 ? KIND_INTERIOR : KIND_TREE));
    for (uint32_t i = 0; err == RQ_OK && i < p.cell_count; i++) {
        err = rq_btree_page_cell(&p, i, &cell);
        if (err == RQ_OK && cell.child != 0) {
            err = follow(o, pgno, cell.child, KIND_TREE, cb);
        }
        if (err == RQ_OK && cell.overflow != 0) {
            err = follow(o, pgno, cell.overflow, KIND_OVERFLOW, cb);
        }
    }
    return err == RQ_OK && p.right_child != 0 ? follow(o, pgno, p.right_child, KIND_TREE, cb) : err;
}

static enum rq_err read_page(struct rq_page_owners *o, const struct rq_page_view *view, uint32_t pgno)
{
    const uint32_t bytes = kind_of(o, pgno) == KIND_OVERFLOW ? 4 : o->page_size;
    return view->read(view->ctx, pgno, o->page, bytes);
}

/* --- the schema --------------------------------------------------------------------------------------------------------------- */

static enum rq_err read_head(struct rq_page_owners *o, const struct rq_page_view *view, uint64_t *ret_hash)
{
    enum rq_err err = view->read(view->ctx, 1, o->page, o->page_size);
    if (err == RQ_OK) {
        o->reserved = o->page[RESERVED_AT];
        *ret_hash = rq_page_hash(o->page + HEAD_BYTES, o->page_size - HEAD_BYTES) + rq_get_u32(o->page + COOKIE_AT);
    }
    return err;
}

/* --- all anew ----------------------------------------------------------------------------------------------------------------- */

static enum rq_err walk_to(struct rq_page_owners *o, uint32_t from, uint32_t to, unsigned kind)
{
    if (o->kinds[to] != KIND_NONE) { /* two ways lead to it */
        return RQ_CORRUPT;
    }
    o->parents[to] = from;
    o->kinds[to] = (uint8_t)kind;
    return push(&o->stack, to);
}

enum rq_err rq_page_owners_walk(struct rq_page_owners *o, const struct rq_page_view *view)
{
    uint32_t pgno;
    const uint64_t hash = o->schema_hash;
    enum rq_err err = fit(o, view);
    if (err != RQ_OK || view->page_count == 0) {
        return err;
    }
    memset(o->parents, 0, o->capacity * sizeof *o->parents);
    memset(o->kinds, 0, o->capacity);
    o->stack.size = o->marked.size = 0;
    err = read_head(o, view, &o->schema_hash);
    o->schema_changed = o->schema_hash != hash;
    if (err == RQ_OK) {
        err = rq_table_list_read(&o->tables, view);
    }
    for (uint32_t i = 0; err == RQ_OK && i < o->tables.tree_count; i++) {
        const uint32_t root = o->tables.trees[i].root;
        err = in_range(o, root) ? walk_to(o, 0, root, KIND_TREE) : RQ_CORRUPT;
    }
    while (err == RQ_OK && pop(&o->stack, &pgno)) {
        err = read_page(o, view, pgno);
        if (err == RQ_OK) {
            err = each_link(o, pgno, walk_to);
        }
    }
    return err;
}

/* --- whose is it -------------------------------------------------------------------------------------------------------------- */

/* Does that page, as it is now, lead to it? */
static enum rq_err leads(struct rq_page_owners *o, const struct rq_page_view *view, uint32_t from, uint32_t to,
                         bool *ret_leads)
{
    struct rq_btree_cell cell;
    uint8_t next[4];
    *ret_leads = false;
    if (kind_of(o, from) == KIND_OVERFLOW) {
        const enum rq_err read = view->read(view->ctx, from, next, sizeof next);
        *ret_leads = read == RQ_OK && rq_get_u32(next) == to;
        return read;
    }
    if (o->above_pgno != from) {
        o->above_pgno = 0;
        const enum rq_err read = view->read(view->ctx, from, o->above, o->page_size);
        if (read != RQ_OK) {
            return read;
        }
        if (rq_btree_page_init(&o->above_page, o->above, from, o->page_size, o->reserved) != RQ_OK) {
            return RQ_OK; /* it is in no b-tree any more */
        }
        o->above_pgno = from;
    }
    const bool overflow = kind_of(o, to) == KIND_OVERFLOW;
    *ret_leads = !overflow && o->above_page.right_child == to;
    for (uint32_t i = 0; !*ret_leads && i < o->above_page.cell_count; i++) {
        if (rq_btree_page_cell(&o->above_page, i, &cell) != RQ_OK) {
            break; /* likewise */
        }
        *ret_leads = (overflow ? cell.overflow : cell.child) == to;
    }
    return RQ_OK;
}

/* What leads to the pages below it may have changed, and was not looked at yet. */
static bool is_unread(const struct rq_page_owners *o, uint32_t pgno)
{
    return (o->kinds[pgno] & (CHANGED | DONE)) == CHANGED;
}

/* Up to a page that is known to be owned, or a root; all on the way are then, too. */
static enum rq_err is_owned(struct rq_page_owners *o, const struct rq_page_view *view, uint32_t pgno, bool *ret_owned)
{
    enum rq_err err = RQ_OK;
    bool owned = false, goes_on = in_range(o, pgno);
    uint32_t at = pgno;
    o->path.size = 0;
    while (err == RQ_OK && goes_on) {
        owned = (o->kinds[at] & OWNED) != 0 || is_root(o, at);
        goes_on = !owned && in_range(o, o->parents[at]) && !is_unread(o, o->parents[at]) && (o->kinds[at] & SEEN) == 0;
        err = push(&o->path, at);
        if (err == RQ_OK && goes_on) {
            err = mark(o, at, SEEN);
        }
        if (err == RQ_OK && goes_on) {
            err = leads(o, view, o->parents[at], at, &goes_on);
            at = o->parents[at];
        }
    }
    while (pop(&o->path, &at)) {
        o->kinds[at] &= (uint8_t)~SEEN;
        if (owned && err == RQ_OK) {
            err = mark(o, at, OWNED);
        }
    }
    *ret_owned = owned;
    return err;
}

void rq_page_owners_guess(const struct rq_page_owners *o, uint32_t pgno, struct rq_page_owner *ret_owner)
{
    const struct rq_table_tree *tree = NULL;
    *ret_owner = (struct rq_page_owner){ RQ_TABLE_NONE, RQ_TABLE_NONE, false };
    if (!in_range(o, pgno)) {
        return;
    }
    ret_owner->structural = kind_of(o, pgno) == KIND_INTERIOR || kind_of(o, pgno) == KIND_OVERFLOW;
    uint32_t left = o->page_count; /* pages that were freed may lead in a circle */
    for (uint32_t at = pgno; in_range(o, at) && tree == NULL && left > 0; at = o->parents[at], left--) {
        tree = rq_table_list_tree(&o->tables, at);
    }
    if (tree != NULL) {
        ret_owner->table = tree->table;
        ret_owner->virtual_table = tree->virtual_table;
    }
}

enum rq_err rq_page_owners_find(struct rq_page_owners *o, const struct rq_page_view *view, uint32_t pgno,
                                struct rq_page_owner *ret_owner)
{
    bool owned;
    enum rq_err err = is_owned(o, view, pgno, &owned);
    if (err == RQ_OK && owned) {
        rq_page_owners_guess(o, pgno, ret_owner);
    } else if (err == RQ_OK) {
        *ret_owner = (struct rq_page_owner){ RQ_TABLE_NONE, RQ_TABLE_NONE, false };
    }
    return err;
}

/* --- what a transaction has changed ------------------------------------------------------------------------------------------- */

static enum rq_err learn(struct rq_page_owners *o, uint32_t from, uint32_t to, unsigned kind)
{
    const unsigned was = kind_of(o, to);
    if (is_root(o, to)) {
        return RQ_CORRUPT;
    }
    if (o->parents[to] == from && (was == kind || (was == KIND_INTERIOR && kind == KIND_TREE))) {
        return RQ_OK;
    }
    o->parents[to] = from;
    o->kinds[to] = (uint8_t)((o->kinds[to] & ~KIND_MASK) | (was == KIND_INTERIOR && kind == KIND_TREE ? was : kind));
    return RQ_OK;
}

static bool was_of_schema(const struct rq_page_owners *o, const uint32_t *pgnos, size_t count)
{
    struct rq_page_owner owner;
    for (size_t i = 0; i < count; i++) {
        if (pgnos[i] != 1) {
            rq_page_owners_guess(o, pgnos[i], &owner);
            if (owner.table == RQ_TABLE_SCHEMA) {
                return true;
            }
        }
    }
    return false;
}

/* Pages whose place is known lead to others whose place is known then: as long as that goes on. */
static enum rq_err learn_all(struct rq_page_owners *o, const struct rq_page_view *view, const uint32_t *pgnos,
                             size_t count)
{
    enum rq_err err = RQ_OK;
    for (bool more = true; err == RQ_OK && more;) {
        more = false;
        for (size_t i = 0; err == RQ_OK && i < count; i++) {
            const uint32_t pgno = pgnos[i];
            bool owned = false;
            if (!in_range(o, pgno) || (o->kinds[pgno] & DONE) != 0) {
                continue;
            }
            err = is_owned(o, view, pgno, &owned);
            if (err == RQ_OK && owned) {
                more = true;
                err = mark(o, pgno, DONE);
                err = err == RQ_OK ? read_page(o, view, pgno) : err;
                err = err == RQ_OK ? each_link(o, pgno, learn) : err;
            }
        }
    }
    return err;
}

enum rq_err rq_page_owners_advance(struct rq_page_owners *o, const struct rq_page_view *view, const uint32_t *pgnos,
                                   size_t count)
{
    uint64_t hash = 0;
    if (o->page_count == 0 || view->page_size != o->page_size) {
        return rq_page_owners_walk(o, view);
    }
    unmark_all(o);
    const bool schema = was_of_schema(o, pgnos, count);
    enum rq_err err = fit(o, view);
    if (err == RQ_OK) {
        err = read_head(o, view, &hash);
    }
    o->schema_changed = schema || hash != o->schema_hash;
    o->schema_hash = hash;
    if (err == RQ_OK && o->schema_changed) {
        err = rq_table_list_read(&o->tables, view);
    } else {
        o->tables.changed_count = 0;
    }
    if (err == RQ_OK && o->schema_changed) {
        for (uint32_t i = 0; err == RQ_OK && i < o->tables.tree_count; i++) {
            const uint32_t root = o->tables.trees[i].root;
            if (!in_range(o, root)) {
                err = RQ_CORRUPT;
            } else if (kind_of(o, root) == KIND_NONE || kind_of(o, root) == KIND_OVERFLOW) {
                o->kinds[root] = KIND_TREE;
            }
        }
    }
    for (size_t i = 0; err == RQ_OK && i < count; i++) {
        err = in_range(o, pgnos[i]) ? mark(o, pgnos[i], CHANGED) : RQ_OK;
    }
    return err == RQ_OK ? learn_all(o, view, pgnos, count) : err;
}
