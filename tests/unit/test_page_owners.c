/* Page owners: after each transaction of many kinds of databases, whose page each is, beside what SQLite's dbstat says of the same bytes. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/seeded.h"
#include "tests/support/stock.h"
#include "tests/support/tap.h"
#include "vfs/page_owners.h"

/* --- a database, and its pages as of the last look ---------------------------------------------------------------------------- */

static sqlite3 *db;
static uint8_t *pages; /* owns, by SQLite's allocator */
static uint32_t page_size, page_count;
static struct rq_page_owners *owners;
static unsigned reads;

static enum rq_err read_page(void *ctx, uint32_t pgno, uint8_t *page, uint32_t bytes)
{
    (void)ctx;
    reads++;
    if (pgno == 0 || pgno > page_count || bytes > page_size) {
        return RQ_MISUSE;
    }
    memcpy(page, pages + (size_t)(pgno - 1) * page_size, bytes);
    return RQ_OK;
}

static struct rq_page_view view(void)
{
    return (struct rq_page_view){ .page_size = page_size, .page_count = page_count, .read = read_page };
}

static void look(void)
{
    sqlite3_int64 bytes = 0;
    sqlite3_free(pages);
    pages = sqlite3_serialize(db, "main", &bytes, 0);
    page_size = pages != NULL ? (uint32_t)pages[16] << 8 | pages[17] : 0;
    page_size = page_size == 1 ? 65536 : page_size;
    page_count = page_size != 0 ? (uint32_t)(bytes / page_size) : 0;
}

/* The pages that differ from those at the last look, which is taken anew; ascending. */
static size_t changed_pages(uint32_t **ret_pgnos)
{
    uint8_t *was = pages;
    const uint32_t was_count = page_count;
    pages = NULL;
    look();
    uint32_t *pgnos = malloc((page_count + 1) * sizeof *pgnos);
    size_t count = 0;
    for (uint32_t i = 0; i < page_count; i++) {
        if (i >= was_count || memcmp(was + (size_t)i * page_size, pages + (size_t)i * page_size, page_size) != 0) {
            pgnos[count++] = i + 1;
        }
    }
    sqlite3_free(was);
    *ret_pgnos = pgnos;
    return count;
}

static const char *name_of(uint32_t table)
{
    return table == RQ_TABLE_NONE ? "" : rq_page_owners_tables(owners)->names[table];
}

/* Each page has the owner that dbstat knows, and the others have none. */
static void check_all(const char *after)
{
    const struct rq_page_view v = view();
    char **wanted = calloc(page_count + 1, sizeof *wanted);
    sqlite3_stmt *stmt;
    unsigned wrong = 0;
    check_eq(sqlite3_prepare_v2(db,
                                "SELECT d.pageno, coalesce(s.tbl_name, 'sqlite_schema') FROM dbstat d"
                                " LEFT JOIN sqlite_schema s ON s.name = d.name AND s.type IN ('table', 'index')",
                                -1, &stmt, NULL),
             SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        wanted[sqlite3_column_int(stmt, 0)] = strdup((const char *)sqlite3_column_text(stmt, 1));
    }
    sqlite3_finalize(stmt);
    for (uint32_t i = 1; i <= page_count; i++) {
        struct rq_page_owner owner;
        const char *name = wanted[i] != NULL ? wanted[i] : "";
        const bool right =
            rq_page_owners_find(owners, &v, i, &owner) == RQ_OK && strcmp(name_of(owner.table), name) == 0;
        if (!right && wrong++ < 5) {
            printf("# after %s: page %u is of \"%s\", not of \"%s\"\n", after, i, name, name_of(owner.table));
        }
    }
    for (uint32_t i = 1; i <= page_count; i++) {
        free(wanted[i]);
    }
    free((void *)wanted);
    check_eq(wrong, 0);
}

static void advance(const char *after)
{
    uint32_t *pgnos;
    const size_t count = changed_pages(&pgnos);
    const struct rq_page_view now = view();
    const enum rq_err err = rq_page_owners_advance(owners, &now, pgnos, count);
    free(pgnos);
    check_eq(err, RQ_OK);
    check_all(after);
}

static void begin(uint32_t size, int auto_vacuum, const char *encoding)
{
    check_eq(sqlite3_open(":memory:", &db), SQLITE_OK);
    stock_run(db, "PRAGMA page_size=%u; PRAGMA auto_vacuum=%d; PRAGMA encoding='%s'", size, auto_vacuum, encoding);
    check_eq(rq_page_owners_new(&owners), RQ_OK);
    page_count = page_size = 0;
    sqlite3_free(pages);
    pages = NULL;
}

static void end(void)
{
    rq_page_owners_free(owners);
    sqlite3_close(db);
    sqlite3_free(pages);
    pages = NULL;
}

/* --- databases of many kinds ------------------------------------------------------------------------------------------------- */

static uint64_t state;

static unsigned pick(unsigned below)
{
    return seeded_below(&state, below);
}

static void make_tables(void)
{
    stock_run(db, "CREATE TABLE plain(id INTEGER PRIMARY KEY, a, b TEXT)");
    stock_run(db, "CREATE INDEX plain_b ON plain(b)");
    stock_run(db, "CREATE TABLE keyed(k TEXT PRIMARY KEY, v) WITHOUT ROWID");
    stock_run(db, "CREATE INDEX keyed_v ON keyed(v)");
    stock_run(db, "CREATE TABLE counted(id INTEGER PRIMARY KEY AUTOINCREMENT, x)");
    stock_run(db, "CREATE TABLE \"na\xc3\xafve \xf0\x9f\x90\x9f\"(x)");
    stock_run(db, "CREATE VIRTUAL TABLE words USING fts5(t)");
    stock_run(db, "CREATE VIEW seen AS SELECT * FROM plain");
    stock_run(db, "CREATE TRIGGER follow AFTER DELETE ON plain BEGIN INSERT INTO counted(x) VALUES(old.a); END");
}

static void change_something(void)
{
    static unsigned made;
    const unsigned n = 1 + pick(60);
    switch (pick(16)) {
        case 0:
        case 1:
            stock_run(db,
                      "WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<%u)"
                      " INSERT INTO plain(a, b) SELECT random(), hex(randomblob(abs(random()) %% 40)) FROM c",
                      n * 5);
            break;
        case 2:
            stock_run(db, "INSERT INTO plain(a) VALUES(randomblob(%u))", n * 2000);
            break;
        case 3:
            stock_run(db, "DELETE FROM plain WHERE id %% %u = 0", 2 + pick(4));
            break;
        case 4:
            stock_run(
                db,
                "WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c WHERE i<%u)"
                " INSERT OR REPLACE INTO keyed SELECT hex(randomblob(2)), randomblob(abs(random()) %% 700) FROM c",
                n * 3);
            break;
        case 5:
            stock_run(db, "DELETE FROM keyed WHERE k > '%c'", "0369CF"[pick(6)]);
            break;
        case 6:
            stock_run(
                db,
                "UPDATE plain SET a = randomblob(length(a)) WHERE id IN (SELECT id FROM plain ORDER BY random() LIMIT "
                "3)");
            break;
        case 7:
            stock_run(db, "INSERT INTO words VALUES('%u fish and %u chips')", pick(1000), pick(1000));
            break;
        case 8:
            stock_run(db, "DELETE FROM counted");
            break;
        case 9:
            stock_run(
                db, "CREATE TABLE extra%u(x, y UNIQUE); INSERT OR IGNORE INTO extra%u SELECT a, b FROM plain LIMIT %u",
                made, made, n);
            made++;
            break;
        case 10: {
            char *name = NULL;
            sqlite3_stmt *stmt;
            sqlite3_prepare_v2(db, "SELECT name FROM sqlite_schema WHERE name LIKE 'extra%' AND type='table' LIMIT 1",
                               -1, &stmt, NULL);
            if (sqlite3_step(stmt) == SQLITE_ROW) {
                name = strdup((const char *)sqlite3_column_text(stmt, 0));
            }
            sqlite3_finalize(stmt);
            if (name != NULL) {
                stock_run(db, "DROP TABLE %s", name);
            }
            free(name);
            break;
        }
        case 11:
            stock_run(db,
                      "BEGIN; INSERT INTO counted(x) SELECT a FROM plain LIMIT %u; DELETE FROM plain WHERE id IN"
                      " (SELECT id FROM plain ORDER BY id LIMIT %u); INSERT INTO \"na\xc3\xafve \xf0\x9f\x90\x9f\" "
                      "VALUES(1); COMMIT",
                      n, n);
            break;
        case 12:
            stock_run(db, "REINDEX");
            break;
        case 13:
            stock_run(db, "PRAGMA incremental_vacuum(%u)", n);
            break;
        case 14:
            stock_run(db, "ALTER TABLE keyed RENAME TO moved; ALTER TABLE moved RENAME TO keyed");
            break;
        default:
            if (pick(8) == 0) {
                stock_run(db, "VACUUM");
            }
    }
}

static void many_transactions(uint32_t size, int auto_vacuum, const char *encoding, unsigned count)
{
    char text[64];
    state = size + (unsigned)auto_vacuum;
    begin(size, auto_vacuum, encoding);
    check_eq(sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)state, NULL), SQLITE_OK); /* of random() */
    make_tables();
    look();
    const struct rq_page_view v = view();
    check_eq(rq_page_owners_walk(owners, &v), RQ_OK);
    check_all("the walk");
    for (unsigned i = 0; i < count; i++) {
        change_something();
        snprintf(text, sizeof text, "transaction %u", i);
        advance(text);
    }
    end();
}

static void owners_follow_transactions(void)
{
    many_transactions(4096, 0, "UTF-8", 150);
}

static void owners_follow_with_small_pages(void)
{
    many_transactions(512, 0, "UTF-16le", 150);
}

static void owners_follow_with_large_pages(void)
{
    many_transactions(65536, 0, "UTF-8", 60);
}

static void owners_follow_full_auto_vacuum(void)
{
    many_transactions(1024, 1, "UTF-16be", 150);
}

static void owners_follow_incremental_auto_vacuum(void)
{
    many_transactions(2048, 2, "UTF-8", 150);
}

/* Many transactions at once, as one who lags sees them. */
static void owners_follow_transactions_that_are_seen_together(void)
{
    state = 7;
    begin(1024, 0, "UTF-8");
    make_tables();
    look();
    const struct rq_page_view v = view();
    check_eq(rq_page_owners_walk(owners, &v), RQ_OK);
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned k = 0; k < 7; k++) {
            change_something();
        }
        advance("seven transactions");
    }
    end();
}

static void owners_begin_with_an_empty_database(void)
{
    begin(4096, 0, "UTF-8");
    const struct rq_page_view none = { .page_size = 0, .read = read_page };
    struct rq_page_owner owner;
    check_eq(rq_page_owners_find(owners, &none, 1, &owner), RQ_OK);
    check(owner.table == RQ_TABLE_NONE);
    stock_run(db, "CREATE TABLE t(x)");
    advance("the first table");
    end();
}

/* --- what is said of them ------------------------------------------------------------------------------------------------------ */

static bool was_changed(const char *name)
{
    const struct rq_table_list *l = rq_page_owners_tables(owners);
    for (uint32_t i = 0; i < l->changed_count; i++) {
        if (strcmp(l->names[l->changed[i]], name) == 0) {
            return true;
        }
    }
    return false;
}

static void schema_changes_are_told(void)
{
    begin(4096, 0, "UTF-8");
    stock_run(db, "CREATE TABLE a(x); CREATE TABLE b(x)");
    advance("two tables");
    stock_run(db, "INSERT INTO a VALUES(1)");
    advance("a row");
    check(!rq_page_owners_schema_changed(owners));
    check_eq(rq_page_owners_tables(owners)->changed_count, 0);
    stock_run(db, "ALTER TABLE a RENAME TO c");
    advance("a new name");
    check(rq_page_owners_schema_changed(owners));
    check(was_changed("a") && was_changed("c") && !was_changed("b"));
    stock_run(db, "DROP TABLE b");
    advance("no table");
    check(was_changed("b") && !was_changed("c"));
    stock_run(db, "CREATE INDEX c_x ON c(x)");
    advance("an index");
    check(was_changed("c") && rq_page_owners_tables(owners)->changed_count == 1);
    stock_run(db, "CREATE VIEW v AS SELECT 1");
    advance("a view");
    check(rq_page_owners_schema_changed(owners));
    check_eq(rq_page_owners_tables(owners)->changed_count, 0);
    end();
}

static void tables_of_virtual_tables_name_them(void)
{
    unsigned found = 0;
    begin(4096, 0, "UTF-8");
    stock_run(db, "CREATE VIRTUAL TABLE words USING fts5(t); CREATE TABLE words_else(x); CREATE TABLE other_data(x)");
    advance("tables");
    const struct rq_table_list *l = rq_page_owners_tables(owners);
    for (uint32_t i = 0; i < l->tree_count; i++) {
        const char *name = l->names[l->trees[i].table];
        const bool is = l->trees[i].virtual_table != RQ_TABLE_NONE;
        check(!is || strcmp(l->names[l->trees[i].virtual_table], "words") == 0);
        check_eq(is, strncmp(name, "words_", 6) == 0 && strcmp(name, "words_else") != 0);
        found += is;
    }
    check_eq(found, 5);
    end();
}

/* One page in a table of many is looked for with a handful of reads. */
static void a_small_transaction_reads_few_pages(void)
{
    begin(4096, 0, "UTF-8");
    stock_run(
        db,
        "CREATE TABLE t(id INTEGER PRIMARY KEY, x); WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM c "
        "WHERE i<20000)"
        " INSERT INTO t SELECT i, hex(randomblob(100)) FROM c");
    look();
    const struct rq_page_view v = view();
    check_eq(rq_page_owners_walk(owners, &v), RQ_OK);
    check(page_count > 1000);
    stock_run(db, "UPDATE t SET x = 'y' WHERE id = 7777");
    uint32_t *pgnos;
    const size_t count = changed_pages(&pgnos);
    const struct rq_page_view now = view();
    reads = 0;
    const enum rq_err err = rq_page_owners_advance(owners, &now, pgnos, count);
    free(pgnos);
    check_eq(err, RQ_OK);
    check(reads < 12);
    end();
}

/* Whatever the bytes are, they are read within their bounds, and there is an end to it. */
static void damaged_pages_are_survived(void)
{
    unsigned refused = 0;
    state = 5;
    begin(512, 0, "UTF-8");
    make_tables();
    for (unsigned i = 0; i < 40; i++) {
        change_something();
    }
    look();
    const size_t bytes = (size_t)page_size * page_count;
    uint8_t *whole = malloc(bytes);
    memcpy(whole, pages, bytes);
    for (unsigned i = 0; i < 3000; i++) {
        memcpy(pages, whole, bytes);
        const struct rq_page_view v = view();
        if (rq_page_owners_walk(owners, &v) != RQ_OK) {
            break;
        }
        uint32_t pgnos[8];
        uint32_t at = 0;
        for (unsigned k = 0; k < 8; k++) {
            at += 1 + pick(page_count / 8);
            pgnos[k] = at <= page_count ? at : page_count;
            for (unsigned m = pick(6); m > 0; m--) {
                uint8_t *page = pages + (size_t)(pgnos[k] - 1) * page_size;
                page[pick(pick(2) == 0 ? 16 : page_size)] = (uint8_t)pick(256);
            }
        }
        refused += rq_page_owners_advance(owners, &v, pgnos, 8) != RQ_OK;
        struct rq_page_owner owner;
        for (uint32_t k = 1; k <= page_count; k++) {
            (void)rq_page_owners_find(owners, &v, k, &owner);
        }
        refused += rq_page_owners_walk(owners, &v) != RQ_OK;
    }
    free(whole);
    end();
    check(refused > 100);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(owners_follow_transactions),
        TAP(owners_follow_with_small_pages),
        TAP(owners_follow_with_large_pages),
        TAP(owners_follow_full_auto_vacuum),
        TAP(owners_follow_incremental_auto_vacuum),
        TAP(owners_follow_transactions_that_are_seen_together),
        TAP(owners_begin_with_an_empty_database),
        TAP(schema_changes_are_told),
        TAP(tables_of_virtual_tables_name_them),
        TAP(a_small_transaction_reads_few_pages),
        TAP(damaged_pages_are_survived),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
