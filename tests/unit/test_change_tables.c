/* Change tables: what is said of transactions, one by one and in batches, beside what SQLite's dbstat said of the database after each. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/change_tables.h"
#include "raftd/wire/bytes.h"
#include "tests/support/seeded.h"
#include "tests/support/stock.h"
#include "tests/support/tap.h"

enum { PAGE_SIZE = 512, TRANSACTIONS_MAX = 64, TABLES = 4 };

static const char *const tables[TABLES] = { "big", "keyed", "long", "queue" }; /* in the order of their bytes */

static sqlite3 *db;
static uint8_t *image; /* owns, by SQLite's allocator: the database now */
static uint32_t page_count;
static struct rq_change_tables *found;
static struct rq_change_records records;
static unsigned wanted[TRANSACTIONS_MAX]; /* bits of tables, for each record */
static uint64_t state;

static unsigned pick(unsigned below)
{
    return seeded_below(&state, below);
}

static uint8_t *take_image(uint32_t *ret_count)
{
    sqlite3_int64 bytes = 0;
    uint8_t *now = sqlite3_serialize(db, "main", &bytes, 0);
    *ret_count = (uint32_t)(bytes / PAGE_SIZE);
    return now;
}

/* Of which table each page is; 0: of none. */
static unsigned *owners_now(void)
{
    unsigned *owners = calloc(page_count + 1, sizeof *owners);
    sqlite3_stmt *stmt;
    check_eq(sqlite3_prepare_v2(db,
                                "SELECT d.pageno, s.tbl_name FROM dbstat d JOIN sqlite_schema s ON s.name = d.name AND"
                                " s.type IN ('table', 'index')",
                                -1, &stmt, NULL),
             SQLITE_OK);
    while (sqlite3_step(stmt) == SQLITE_ROW) {
        for (unsigned i = 0; i < TABLES; i++) {
            if (strcmp(tables[i], (const char *)sqlite3_column_text(stmt, 1)) == 0) {
                owners[sqlite3_column_int(stmt, 0)] = 1u << i;
            }
        }
    }
    sqlite3_finalize(stmt);
    return owners;
}

/* What the log would have of the transaction that was just made. */
static void record_transaction(void)
{
    static struct rq_change_record list[TRANSACTIONS_MAX];
    uint32_t was_count = page_count;
    uint8_t *was = image;
    image = take_image(&page_count);
    unsigned *owners = owners_now();
    struct rq_change_record *r = &list[records.count];
    *r = (struct rq_change_record){ .first_page = records.pages.size / sizeof(uint32_t) };
    r->frees = memcmp(was + 32, image + 32, 8) != 0;
    r->schema_number = memcmp(was + 40, image + 40, 4) != 0;
    r->schema_page = memcmp(was + 100, image + 100, PAGE_SIZE - 100) != 0;
    wanted[records.count] = 0;
    for (uint32_t i = 1; i <= page_count; i++) {
        const size_t at = (size_t)(i - 1) * PAGE_SIZE;
        if (i > was_count || memcmp(was + at, image + at, PAGE_SIZE) != 0) {
            check_eq(rq_bytes_put(&records.pages, &i, sizeof i), RQ_OK);
            r->page_count++;
            wanted[records.count] |= owners[i];
        }
    }
    records.list = list;
    records.count++;
    free(owners);
    sqlite3_free(was);
}

static enum rq_err read_page(void *ctx, uint32_t pgno, uint8_t *page, uint32_t bytes)
{
    (void)ctx;
    memcpy(page, image + (size_t)(pgno - 1) * PAGE_SIZE, bytes);
    return RQ_OK;
}

static void find(struct rq_table_names **names)
{
    const struct rq_page_view view = { NULL, PAGE_SIZE, page_count, read_page };
    check_eq(rq_change_tables_find(found, &view, &records, names), RQ_OK);
}

static unsigned bits_of(const struct rq_table_names *n)
{
    unsigned bits = 0, last = 0;
    for (size_t at = 0; at < n->bytes; at += strlen(n->text + at) + 1) {
        unsigned i = 0;
        while (i < TABLES && strcmp(tables[i], n->text + at) != 0) {
            i++;
        }
        check(i < TABLES && (bits == 0 || i > last)); /* in order, each once */
        bits |= 1u << i;
        last = i;
    }
    return bits;
}

static void forget(struct rq_table_names **names)
{
    for (size_t i = 0; i < records.count; i++) {
        rq_table_names_unref(names[i]);
    }
    records.count = 0;
    records.pages.size = 0;
}

static void begin(int auto_vacuum, unsigned seed)
{
    state = seed;
    check_eq(sqlite3_open(":memory:", &db), SQLITE_OK);
    check_eq(sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)seed, NULL), SQLITE_OK); /* of random() */
    stock_run(db, "PRAGMA page_size=%d; PRAGMA auto_vacuum=%d", PAGE_SIZE, auto_vacuum);
    stock_run(db,
              "CREATE TABLE big(id INTEGER PRIMARY KEY, x); CREATE INDEX big_x ON big(x);"
              "CREATE TABLE keyed(k PRIMARY KEY, v) WITHOUT ROWID; CREATE TABLE long(id INTEGER PRIMARY KEY, b);"
              "CREATE TABLE queue(id INTEGER PRIMARY KEY, x)");
    image = take_image(&page_count);
    check_eq(rq_change_tables_new(&found), RQ_OK);
    rq_change_records_init(&records);
}

static void end(void)
{
    rq_bytes_fini(&records.pages);
    rq_change_tables_free(found);
    sqlite3_free(image);
    sqlite3_close(db);
}

#define ROWS "WITH RECURSIVE c(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM c WHERE i < %u) "

/* Pages go from one table to another in some of them. */
static void change_something(void)
{
    const unsigned n = 1 + pick(20);
    switch (pick(9)) {
        case 0:
            stock_run(db, ROWS "INSERT INTO big(x) SELECT hex(randomblob(20)) FROM c", n);
            break;
        case 1:
            stock_run(db, ROWS "INSERT OR REPLACE INTO keyed SELECT hex(randomblob(1)), randomblob(40) FROM c", n);
            break;
        case 2:
            stock_run(db, "INSERT INTO long(b) VALUES(randomblob(%u))", n * 300);
            break;
        case 3:
            stock_run(db, "DELETE FROM long WHERE id = (SELECT min(id) FROM long)");
            break;
        case 4: /* what one table frees another takes, in one transaction */
            stock_run(db,
                      "BEGIN; INSERT INTO queue(x) SELECT x FROM big ORDER BY id LIMIT %u;"
                      "DELETE FROM big WHERE id IN (SELECT id FROM big ORDER BY id LIMIT %u); COMMIT",
                      n, n);
            break;
        case 5:
            stock_run(db,
                      "BEGIN; DELETE FROM long WHERE id = (SELECT max(id) FROM long);" ROWS
                      "INSERT INTO queue(x) SELECT randomblob(100) FROM c; COMMIT",
                      n);
            break;
        case 6:
            stock_run(db, "DELETE FROM queue WHERE id IN (SELECT id FROM queue ORDER BY id LIMIT %u)", 3 * n);
            break;
        case 7:
            stock_run(
                db,
                "UPDATE big SET x = hex(randomblob(20)) WHERE id IN (SELECT id FROM big ORDER BY random() LIMIT 2)");
            break;
        default:
            stock_run(db, "UPDATE long SET b = zeroblob(length(b) - 1) || x'01' WHERE id = (SELECT max(id) FROM long)");
    }
}

static void one_transaction_names_its_tables(void)
{
    struct rq_table_names *names[TRANSACTIONS_MAX];
    begin(0, 1);
    find(names);
    for (unsigned i = 0; i < 500; i++) {
        change_something();
        record_transaction();
        find(names);
        check(names[0] != NULL);
        check_eq(bits_of(names[0]), wanted[0]);
        forget(names);
    }
    end();
}

static void batches(int auto_vacuum)
{
    struct rq_table_names *names[TRANSACTIONS_MAX];
    unsigned more = 0, all = 0;
    begin(auto_vacuum, 2);
    find(names);
    for (unsigned i = 0; i < 200; i++) {
        const unsigned n = 2 + pick(5);
        for (unsigned k = 0; k < n; k++) {
            change_something();
            record_transaction();
        }
        find(names);
        for (unsigned k = 0; k < n; k++) {
            check(names[k] != NULL);
            const unsigned bits = bits_of(names[k]);
            check_eq(bits & wanted[k], wanted[k]);
            more += bits != wanted[k];
            all++;
        }
        check_eq(bits_of(names[n - 1]), wanted[n - 1]);
        forget(names);
    }
    printf("# %u of %u name more than they have changed\n", more, all);
    end();
}

static void batches_name_no_table_too_few(void)
{
    batches(0);
    batches(1);
}

static void of_the_past_nothing_wrong_is_said(void)
{
    struct rq_table_names *names[TRANSACTIONS_MAX];
    unsigned known = 0, all = 0;
    for (unsigned seed = 0; seed < 150; seed++) {
        begin(0, seed);
        for (unsigned i = 0; i < seed % 40; i++) {
            change_something();
        }
        sqlite3_free(image);
        image = take_image(&page_count);
        for (unsigned k = 0; k < 20; k++) {
            change_something();
            record_transaction();
        }
        find(names);
        for (unsigned k = 0; k < 20; k++) {
            if (names[k] != NULL) {
                check_eq(bits_of(names[k]), wanted[k]);
                known++;
            }
            all++;
        }
        forget(names);
        end();
    }
    printf("# %u of %u are known\n", known, all);
    check(known > 200);
}

/* As most applications write. */
static void the_past_of_growing_tables_is_known(void)
{
    struct rq_table_names *names[TRANSACTIONS_MAX];
    begin(0, 3);
    for (unsigned k = 0; k < 60; k++) {
        stock_run(db, ROWS "INSERT INTO %s(x) SELECT randomblob(60) FROM c", 1 + pick(5), k % 3 == 0 ? "queue" : "big");
        record_transaction();
    }
    find(names);
    for (unsigned k = 0; k < 60; k++) {
        check(names[k] != NULL);
        check_eq(bits_of(names[k]), wanted[k]);
    }
    forget(names);
    end();
}

static void what_was_lost_is_not_guessed(void)
{
    struct rq_table_names *names[TRANSACTIONS_MAX];
    begin(0, 4);
    find(names);
    stock_run(db, "INSERT INTO big(x) VALUES(1)");
    record_transaction();
    stock_run(db, "INSERT INTO queue(x) VALUES(1)");
    record_transaction();
    stock_run(db, "INSERT INTO big(x) VALUES(2)");
    record_transaction();
    records.list[1].lost = true;
    records.list[1].page_count = 0;
    find(names);
    check(names[0] == NULL && names[1] == NULL);
    check_eq(bits_of(names[2]), wanted[2]);
    forget(names);
    end();
}

/* In one transaction a table takes a page that was free, and frees another one: SQLite's header is as it was. */
static void page_that_is_no_tables_any_more_may_have_been_anybodys(void)
{
    struct rq_table_names *names[TRANSACTIONS_MAX];
    sqlite3_blob *blob;
    begin(0, 5);
    stock_run(db,
              "INSERT INTO long VALUES(1, zeroblob(3000)), (2, zeroblob(900)), (3, zeroblob(20));"
              "DELETE FROM long WHERE id = 1");
    record_transaction();
    find(names);
    forget(names);
    check_eq(sqlite3_blob_open(db, "main", "long", "b", 2, 1, &blob), SQLITE_OK);
    check_eq(sqlite3_blob_write(blob, "x", 1, 899), SQLITE_OK);
    check_eq(sqlite3_blob_close(blob), SQLITE_OK);
    record_transaction();
    stock_run(db, "BEGIN; INSERT INTO long VALUES(4, zeroblob(900)); DELETE FROM long WHERE id = 2; COMMIT");
    record_transaction();
    check_eq(wanted[0], 1u << 2);
    check_eq(records.list[0].page_count, 1); /* one that holds what did not fit */
    check(!records.list[1].frees);
    find(names);
    check_eq(bits_of(names[0]), wanted[0]);
    check_eq(bits_of(names[1]), wanted[1]);
    forget(names);
    end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(one_transaction_names_its_tables),  TAP(batches_name_no_table_too_few),
        TAP(of_the_past_nothing_wrong_is_said), TAP(the_past_of_growing_tables_is_known),
        TAP(what_was_lost_is_not_guessed),      TAP(page_that_is_no_tables_any_more_may_have_been_anybodys),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
