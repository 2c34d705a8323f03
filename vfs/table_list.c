#include "vfs/table_list.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/wire/bytes.h"
#include "raftd/wire/txn.h"
#include "vfs/btree_page.h"

#define ROW_BYTES_MAX (16u << 20)
#define NAMES_MAX     (1u << 20)

enum { COLUMN_TYPE, COLUMN_NAME, COLUMN_TABLE, COLUMN_ROOT, COLUMN_SQL, COLUMNS };
enum { ENCODING_AT = 56, RESERVED_AT = 20, UTF16_LITTLE = 2, UTF16_BIG = 3 };

struct rq_table_row {
    uint32_t name, table;
    uint32_t root; /* 0: of a virtual table */
    uint64_t hash; /* of all of it */
};

/* What the modules that come with SQLite append to a virtual table's name for the tables that they keep its content in. */
static const char *const suffixes[] = { "config", "content", "data",   "docsize",  "idx", "node",
                                        "parent", "rowid",   "segdir", "segments", "stat" };

enum rq_err rq_table_list_init(struct rq_table_list *l)
{
    *l = (struct rq_table_list){ 0 };
    l->names = malloc(sizeof *l->names);
    l->trees = malloc(sizeof *l->trees);
    char *name = strdup("sqlite_schema");
    if (l->names == NULL || l->trees == NULL || name == NULL) {
        free(name);
        rq_table_list_fini(l);
        return RQ_NOMEM;
    }
    l->names[l->name_count++] = name;
    l->trees[l->tree_count++] = (struct rq_table_tree){ 1, RQ_TABLE_SCHEMA, RQ_TABLE_NONE };
    return RQ_OK;
}

void rq_table_list_fini(struct rq_table_list *l)
{
    for (uint32_t i = 0; i < l->name_count; i++) {
        free(l->names[i]);
    }
    free(l->names);
    free(l->trees);
    free(l->rows);
    free(l->changed);
    *l = (struct rq_table_list){ 0 };
}

/* --- one row -------------------------------------------------------------------------------------------------------------- */

/* A reading under way. */
struct reading {
    struct rq_table_list *list;
    const struct rq_page_view *view;
    uint8_t reserved;
    uint32_t encoding;
    uint32_t pages_left; /* more would be a loop */
    uint8_t *page;       /* owns */
    struct rq_bytes stack, row, rows, text;
};

struct value {
    const uint8_t *bytes;
    uint64_t size;
    uint64_t type;
};

static enum rq_err put_utf8(struct rq_bytes *out, uint32_t c)
{
    uint8_t u[4];
    size_t n;
    if (c < 0x80) {
        u[0] = (uint8_t)c;
        n = 1;
    } else if (c < 0x800) {
        u[0] = (uint8_t)(0xc0 | c >> 6);
        u[1] = (uint8_t)(0x80 | (c & 0x3f));
        n = 2;
    } else if (c < 0x10000) {
        u[0] = (uint8_t)(0xe0 | c >> 12);
        u[1] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        u[2] = (uint8_t)(0x80 | (c & 0x3f));
        n = 3;
    } else {
        u[0] = (uint8_t)(0xf0 | c >> 18);
        u[1] = (uint8_t)(0x80 | (c >> 12 & 0x3f));
        u[2] = (uint8_t)(0x80 | (c >> 6 & 0x3f));
        u[3] = (uint8_t)(0x80 | (c & 0x3f));
        n = 4;
    }
    return rq_bytes_put(out, u, n);
}

/* As a string in r->text, which ends with 0. */
static enum rq_err get_text(struct reading *r, const struct value *v)
{
    enum rq_err err = RQ_OK;
    r->text.size = 0;
    if (v->type < 13 || v->type % 2 == 0) {
        return RQ_CORRUPT;
    }
    if (r->encoding != UTF16_LITTLE && r->encoding != UTF16_BIG) {
        err = rq_bytes_put(&r->text, v->bytes, (size_t)v->size);
        return err == RQ_OK ? rq_bytes_put(&r->text, "", 1) : err;
    }
    const unsigned high = r->encoding == UTF16_LITTLE ? 1 : 0;
    uint32_t first = 0; /* half of a pair */
    for (uint64_t i = 0; err == RQ_OK && i + 1 < v->size; i += 2) {
        const uint32_t unit = (uint32_t)v->bytes[i + high] << 8 | v->bytes[i + 1 - high];
        if (first != 0 && unit >> 10 == 0x37) {
            err = put_utf8(&r->text, 0x10000 + ((first & 0x3ff) << 10 | (unit & 0x3ff)));
            first = 0;
        } else if (unit >> 10 == 0x36) {
            first = unit;
        } else {
            err = put_utf8(&r->text, unit);
        }
    }
    return err == RQ_OK ? rq_bytes_put(&r->text, "", 1) : err;
}

static uint64_t get_integer(const struct value *v)
{
    uint64_t n = 0;
    if (v->type == 9) {
        return 1;
    }
    for (uint64_t i = 0; v->type <= 6 && i < v->size; i++) {
        n = n << 8 | v->bytes[i];
    }
    return n;
}

static enum rq_err split_row(const uint8_t *row, size_t bytes, struct value values[COLUMNS])
{
    static const uint8_t sizes[12] = { 0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0 };
    const uint8_t *end = row + bytes;
    uint64_t head_bytes;
    const uint8_t *next = rq_btree_get_varint(row, end, &head_bytes);
    if (next == NULL || head_bytes > bytes || head_bytes < (size_t)(next - row)) {
        return RQ_CORRUPT;
    }
    const uint8_t *head_end = row + head_bytes, *data = head_end;
    for (unsigned i = 0; i < COLUMNS; i++) {
        struct value *v = &values[i];
        next = rq_btree_get_varint(next, head_end, &v->type);
        if (next == NULL) {
            return RQ_CORRUPT;
        }
        v->bytes = data;
        v->size = v->type < 12 ? sizes[v->type] : (v->type - 12) / 2;
        if (v->size > (size_t)(end - data)) {
            return RQ_CORRUPT;
        }
        data += v->size;
    }
    return RQ_OK;
}

/* Its number; a new one if it was not known. */
static enum rq_err number_of(struct rq_table_list *l, const char *name, uint32_t *ret_number)
{
    for (uint32_t i = 0; i < l->name_count; i++) {
        if (strcmp(l->names[i], name) == 0) {
            *ret_number = i;
            return RQ_OK;
        }
    }
    char **names = l->name_count < NAMES_MAX ? realloc(l->names, (l->name_count + 1) * sizeof *names) : NULL;
    char *copy = names != NULL ? strdup(name) : NULL;
    l->names = names != NULL ? names : l->names;
    if (copy == NULL) {
        return RQ_NOMEM;
    }
    *ret_number = l->name_count;
    l->names[l->name_count++] = copy;
    return RQ_OK;
}

static enum rq_err take_row(struct reading *r)
{
    struct value values[COLUMNS];
    struct rq_table_row row = { .hash = rq_page_hash(r->row.data, (uint32_t)r->row.size) };
    enum rq_err err = split_row(r->row.data, r->row.size, values);
    if (err == RQ_OK) {
        err = get_text(r, &values[COLUMN_TYPE]);
    }
    if (err != RQ_OK) {
        return err;
    }
    const char *type = (const char *)r->text.data;
    if (strcmp(type, "table") != 0 && strcmp(type, "index") != 0) {
        return RQ_OK; /* views and triggers have no pages */
    }
    row.root = (uint32_t)get_integer(&values[COLUMN_ROOT]);
    err = get_text(r, &values[COLUMN_NAME]);
    if (err == RQ_OK) {
        err = number_of(r->list, (const char *)r->text.data, &row.name);
    }
    if (err == RQ_OK) {
        err = get_text(r, &values[COLUMN_TABLE]);
    }
    if (err == RQ_OK) {
        err = number_of(r->list, (const char *)r->text.data, &row.table);
    }
    return err == RQ_OK ? rq_bytes_put(&r->rows, &row, sizeof row) : err;
}

/* --- sqlite_schema -------------------------------------------------------------------------------------------------------- */

static enum rq_err read_page(struct reading *r, uint32_t pgno, uint8_t *page)
{
    if (pgno == 0 || pgno > r->view->page_count || r->pages_left == 0) {
        return RQ_CORRUPT;
    }
    r->pages_left--;
    return r->view->read(r->view->ctx, pgno, page, r->view->page_size);
}

/* The whole payload of a cell. */
static enum rq_err gather_row(struct reading *r, const struct rq_btree_cell *cell)
{
    const uint32_t most = r->view->page_size - r->reserved - 4;
    uint8_t *page = cell->overflow != 0 ? malloc(r->view->page_size) : NULL;
    uint32_t next = cell->overflow;
    enum rq_err err = cell->payload_bytes > ROW_BYTES_MAX   ? RQ_CORRUPT
                      : cell->overflow != 0 && page == NULL ? RQ_NOMEM
                                                            : RQ_OK;
    r->row.size = 0;
    if (err == RQ_OK) {
        err = rq_bytes_put(&r->row, cell->payload, cell->local_bytes);
    }
    while (err == RQ_OK && r->row.size < cell->payload_bytes) {
        const size_t left = (size_t)cell->payload_bytes - r->row.size;
        err = read_page(r, next, page);
        if (err == RQ_OK) {
            next = rq_get_u32(page);
            err = rq_bytes_put(&r->row, page + 4, left < most ? left : most);
        }
    }
    free(page);
    return err;
}

static enum rq_err push(struct reading *r, uint32_t pgno)
{
    return rq_bytes_put(&r->stack, &pgno, sizeof pgno);
}

static enum rq_err read_tree_page(struct reading *r, uint32_t pgno)
{
    struct rq_btree_page p;
    struct rq_btree_cell cell;
    enum rq_err err = read_page(r, pgno, r->page);
    if (err == RQ_OK) {
        err = rq_btree_page_init(&p, r->page, pgno, r->view->page_size, r->reserved);
    }
    if (err == RQ_OK && !p.of_table) {
        err = RQ_CORRUPT;
    }
    for (uint32_t i = 0; err == RQ_OK && i < p.cell_count; i++) {
        err = rq_btree_page_cell(&p, i, &cell);
        if (err == RQ_OK && cell.child != 0) {
            err = push(r, cell.child);
        } else if (err == RQ_OK) {
            err = gather_row(r, &cell);
            err = err == RQ_OK ? take_row(r) : err;
        }
    }
    return err == RQ_OK && p.right_child != 0 ? push(r, p.right_child) : err;
}

static enum rq_err read_schema(struct reading *r)
{
    uint8_t head[100];
    uint32_t pgno = 1;
    if (r->view->page_count == 0) {
        return RQ_OK;
    }
    enum rq_err err = r->view->read(r->view->ctx, 1, head, sizeof head);
    if (err != RQ_OK) {
        return err;
    }
    r->reserved = head[RESERVED_AT];
    r->encoding = rq_get_u32(head + ENCODING_AT);
    err = push(r, pgno);
    while (err == RQ_OK && r->stack.size > 0) {
        r->stack.size -= sizeof pgno;
        memcpy(&pgno, r->stack.data + r->stack.size, sizeof pgno);
        err = read_tree_page(r, pgno);
    }
    return err;
}

/* --- what follows from it -------------------------------------------------------------------------------------------------- */

static int compare_rows(const void *a, const void *b)
{
    const struct rq_table_row *x = a, *y = b;
    return x->name != y->name ? (x->name < y->name ? -1 : 1) : x->hash != y->hash ? (x->hash < y->hash ? -1 : 1) : 0;
}

static int compare_trees(const void *a, const void *b)
{
    const struct rq_table_tree *x = a, *y = b;
    return x->root < y->root ? -1 : x->root > y->root;
}

/* The virtual table that a table of this name would be of, if there is one. */
static uint32_t virtual_table_of(const struct rq_table_list *l, const struct rq_table_row *rows, uint32_t count,
                                 const char *name)
{
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        const size_t all = strlen(name), behind = strlen(suffixes[i]);
        if (all <= behind + 1 || name[all - behind - 1] != '_' || strcmp(name + all - behind, suffixes[i]) != 0) {
            continue;
        }
        for (uint32_t k = 0; k < count; k++) {
            const char *other = l->names[rows[k].table];
            if (rows[k].root == 0 && strlen(other) == all - behind - 1 && strncmp(other, name, strlen(other)) == 0) {
                return rows[k].table;
            }
        }
    }
    return RQ_TABLE_NONE;
}

static void take_changed(struct rq_table_list *l, const struct rq_table_row *rows, uint32_t count)
{
    uint32_t i = 0, k = 0;
    l->changed_count = 0;
    while (i < l->row_count || k < count) {
        const int order = i == l->row_count ? 1 : k == count ? -1 : compare_rows(&l->rows[i], &rows[k]);
        if (order != 0) {
            l->changed[l->changed_count++] = order < 0 ? l->rows[i].table : rows[k].table;
        }
        i += order <= 0;
        k += order >= 0;
    }
}

static enum rq_err take_rows(struct rq_table_list *l, const struct rq_table_row *from, uint32_t count)
{
    const size_t most = (size_t)l->row_count + count + 1;
    struct rq_table_row *rows = malloc((count + 1) * sizeof *rows);
    struct rq_table_tree *trees = malloc((count + 1) * sizeof *trees);
    uint32_t *changed = malloc(most * sizeof *changed);
    uint32_t tree_count = 0;
    if (rows == NULL || trees == NULL || changed == NULL) {
        free(rows);
        free(trees);
        free(changed);
        return RQ_NOMEM;
    }
    if (count > 0) {
        memcpy(rows, from, count * sizeof *rows);
    }
    qsort(rows, count, sizeof *rows, compare_rows);
    free(l->changed);
    l->changed = changed;
    take_changed(l, rows, count);
    trees[tree_count++] = (struct rq_table_tree){ 1, RQ_TABLE_SCHEMA, RQ_TABLE_NONE };
    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].root > 1) {
            const uint32_t virtual_table = virtual_table_of(l, rows, count, l->names[rows[i].table]);
            trees[tree_count++] = (struct rq_table_tree){ rows[i].root, rows[i].table, virtual_table };
        }
    }
    qsort(trees, tree_count, sizeof *trees, compare_trees);
    free(l->trees);
    free(l->rows);
    l->trees = trees;
    l->tree_count = tree_count;
    l->rows = rows;
    l->row_count = count;
    return RQ_OK;
}

enum rq_err rq_table_list_read(struct rq_table_list *l, const struct rq_page_view *view)
{
    struct reading r = { .list = l, .view = view, .pages_left = view->page_count };
    enum rq_err err = RQ_OK;
    rq_bytes_init(&r.stack, SIZE_MAX);
    rq_bytes_init(&r.row, ROW_BYTES_MAX);
    rq_bytes_init(&r.rows, SIZE_MAX);
    rq_bytes_init(&r.text, (size_t)2 * ROW_BYTES_MAX);
    r.page = malloc(view->page_size != 0 ? view->page_size : 1);
    if (r.page == NULL) {
        err = RQ_NOMEM;
    } else {
        err = read_schema(&r);
    }
    if (err == RQ_OK) {
        err = take_rows(l, (const struct rq_table_row *)r.rows.data,
                        (uint32_t)(r.rows.size / sizeof(struct rq_table_row)));
    }
    rq_bytes_fini(&r.stack);
    rq_bytes_fini(&r.row);
    rq_bytes_fini(&r.rows);
    rq_bytes_fini(&r.text);
    free(r.page);
    return err;
}

const struct rq_table_tree *rq_table_list_tree(const struct rq_table_list *l, uint32_t root)
{
    const struct rq_table_tree key = { .root = root };
    return bsearch(&key, l->trees, l->tree_count, sizeof key, compare_trees);
}
