/* Missed: which pages the log has changed while the database was fenced.  On all others this replica claims what it holds, and others that
 * hold something else have to be a majority (raftd/cluster/mend.h). */
#include "raftd/db/database_impl.h"
#include "raftd/wire/txn.h"

void rq_db_missed_fini(struct rq_db_missed *m)
{
    rq_page_set_fini(&m->pages);
    *m = (struct rq_db_missed){ 0 };
}

static enum rq_err put_record(struct rq_db_missed *m, const struct rq_log_entry *e)
{
    struct rq_txn_reader reader;
    struct rq_delta delta;
    enum rq_err err = rq_txn_read(&reader, e->blob->data, e->blob->bytes);
    while (err == RQ_OK && (err = rq_txn_next(&reader, &delta)) == RQ_OK) {
        err = rq_page_set_put(&m->pages, delta.pgno);
    }
    return err == RQ_NOTFOUND ? RQ_OK : err;
}

static enum rq_err put_body(const struct rq_database *db, struct rq_db_missed *m, const struct rq_entry_staged *staged)
{
    struct rq_staged_reader *r;
    uint32_t pgno;
    const uint8_t *page;
    enum rq_err err = rq_staged_open(db->env.disk, db->env.staged_dir, staged, &r);
    if (err != RQ_OK) {
        return err;
    }
    while ((err = rq_staged_next(r, &pgno, &page)) == RQ_OK && (err = rq_page_set_put(&m->pages, pgno)) == RQ_OK) {
    }
    rq_staged_close(r);
    return err == RQ_NOTFOUND ? RQ_OK : err;
}

void rq_db_missed_add(struct rq_database *db, const struct rq_log_entry *e, const struct rq_txn_head *head,
                      const struct rq_entry_staged *staged)
{
    struct rq_db_missed *m = &db->missed;
    if (m->to != head->base) {
        rq_db_missed_fini(m);
        m->from = head->base;
    }
    const enum rq_err err = staged != NULL ? put_body(db, m, staged) : put_record(m, e);
    if (err != RQ_OK) { /* what it changes is not known: nor then what all before and behind it do */
        rq_db_missed_fini(m);
        m->from = head->version;
    }
    m->to = head->version;
}

void rq_db_missed_unknown(struct rq_database *db)
{
    rq_db_missed_fini(&db->missed);
    db->missed.from = db->missed.to = db->version;
}

bool rq_db_missed_changed(const struct rq_database *db, uint32_t pgno)
{
    const struct rq_db_missed *m = &db->missed;
    if (db->file.version == db->version) {
        return false;
    }
    const bool known = m->from == db->file.version && m->to == db->version;
    return !known || rq_page_set_has(&m->pages, pgno);
}
