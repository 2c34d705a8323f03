#include "raftd/http/transactions.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/identity.h"
#include "raftd/http/results.h"
#include "raftd/run/clock.h"
#include "raftd/run/metrics.h"
#include "vfs/shim.h"

struct rq_transaction {
    struct rq_transaction *next; /* guarded by the lock of all, as in_use and idle_since_ms */
    struct rq_transactions *all; /* borrows */
    bool in_use;
    uint64_t begun_ms, idle_since_ms, idle_ms;
    char id[RQ_TX_ID_BYTES + 1];
    struct rq_desk *desk; /* counted */
    struct rq_sql_connection connection;
    struct rq_direct_sink *sink; /* counted */
};

/* One that is over. */
struct ended {
    char id[RQ_TX_ID_BYTES + 1]; /* "": none */
    enum rq_tx_end end;
    uint64_t index;
    struct rq_direct_sink *sink; /* UNKNOWN: counted, knows more later */
};

struct rq_transactions {
    struct rq_transactions_config config;
    pthread_mutex_t lock; /* what follows */
    struct rq_transaction *first;
    unsigned open;      /* those that begin, too */
    unsigned beginning; /* of these, those that wait for the turn */
    bool stops;
    struct ended ended[RQ_TX_REMEMBERED]; /* goes round */
    unsigned next_ended;
};

enum rq_err rq_transactions_new(const struct rq_transactions_config *config, struct rq_transactions **ret_t)
{
    struct rq_transactions *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return RQ_NOMEM;
    }
    t->config = *config;
    if (t->config.idle_ms > t->config.lifetime_ms) {
        t->config.idle_ms = t->config.lifetime_ms;
    }
    pthread_mutex_init(&t->lock, NULL);
    *ret_t = t;
    return RQ_OK;
}

const struct rq_transactions_config *rq_transactions_config(const struct rq_transactions *t)
{
    return &t->config;
}

unsigned rq_transactions_open(struct rq_transactions *t)
{
    pthread_mutex_lock(&t->lock);
    const unsigned open = t->open;
    pthread_mutex_unlock(&t->lock);
    return open;
}

/* --- the end -------------------------------------------------------------------------------------------------------------- */

static void count(enum rq_tx_end end)
{
    switch (end) {
        case RQ_TX_COMMITTED:
            RQ_COUNT(http, tx_committed);
            break;
        case RQ_TX_ROLLED_BACK:
            RQ_COUNT(http, tx_rolled_back);
            break;
        case RQ_TX_IDLE:
        case RQ_TX_OLD:
        case RQ_TX_GAVE_WAY:
        case RQ_TX_STOPPED:
            RQ_COUNT(http, tx_expired);
            break;
        case RQ_TX_FAILED:
        case RQ_TX_REFUSED:
            RQ_COUNT(http, tx_failed);
            break;
        case RQ_TX_UNKNOWN:
            RQ_COUNT(http, tx_unknown);
            break;
    }
}

static void transaction_free(struct rq_transaction *tx)
{
    if (tx->connection.db != NULL) {
        rq_desk_disconnect(&tx->connection); /* rolls back what is open */
    }
    rq_direct_sink_unref(tx->sink);
    rq_desk_unref(tx->desk);
    free(tx);
}

/* Of one in use. */
static void end_transaction(struct rq_transaction *tx, enum rq_tx_end end, uint64_t index)
{
    struct rq_transactions *t = tx->all;
    pthread_mutex_lock(&t->lock);
    struct rq_transaction **at = &t->first;
    while (*at != tx) {
        at = &(*at)->next;
    }
    *at = tx->next;
    t->open--;
    struct ended *e = &t->ended[t->next_ended++ % RQ_TX_REMEMBERED];
    struct rq_direct_sink *forgotten = e->sink;
    *e = (struct ended){ .end = end, .index = index };
    memcpy(e->id, tx->id, sizeof e->id);
    e->sink = end == RQ_TX_UNKNOWN ? rq_direct_sink_ref(tx->sink) : NULL;
    pthread_mutex_unlock(&t->lock);
    rq_direct_sink_unref(forgotten);
    count(end);
    transaction_free(tx);
}

/* Lock held; of one that is idle. */
static bool is_over(struct rq_transaction *tx, uint64_t now_ms, bool looks_at_others, enum rq_tx_end *ret_end)
{
    const uint64_t idle_ms = now_ms - tx->idle_since_ms;
    int in_the_way = 0;
    if (now_ms - tx->begun_ms >= tx->all->config.lifetime_ms) {
        *ret_end = RQ_TX_OLD;
        return true;
    }
    if (idle_ms >= tx->idle_ms) {
        *ret_end = RQ_TX_IDLE;
        return true;
    }
    if (looks_at_others && idle_ms >= RQ_TX_GIVES_WAY_MS) {
        (void)sqlite3_file_control(tx->connection.db, "main", RQ_FCNTL_IN_THE_WAY, &in_the_way);
    }
    *ret_end = RQ_TX_GAVE_WAY;
    return in_the_way != 0;
}

/* One that is idle, from then on in use; NULL: none is left. */
static struct rq_transaction *take_over(struct rq_transactions *t, bool all, enum rq_tx_end *ret_end)
{
    const uint64_t now_ms = rq_clock_ms();
    pthread_mutex_lock(&t->lock);
    struct rq_transaction *tx = t->first;
    while (tx != NULL && (tx->in_use || !(all || is_over(tx, now_ms, true, ret_end)))) {
        tx = tx->next;
    }
    if (tx != NULL) {
        tx->in_use = true;
    }
    pthread_mutex_unlock(&t->lock);
    return tx;
}

void rq_transactions_sweep(struct rq_transactions *t)
{
    struct rq_transaction *tx;
    enum rq_tx_end end;
    while ((tx = take_over(t, false, &end)) != NULL) {
        end_transaction(tx, end, 0);
    }
}

void rq_transactions_stop(struct rq_transactions *t)
{
    struct rq_transaction *tx;
    pthread_mutex_lock(&t->lock);
    t->stops = true;
    pthread_mutex_unlock(&t->lock);
    while ((tx = take_over(t, true, NULL)) != NULL) {
        end_transaction(tx, RQ_TX_STOPPED, 0);
    }
}

/* --- the beginning -------------------------------------------------------------------------------------------------------- */

static enum rq_err enter(struct rq_transactions *t, bool waits)
{
    pthread_mutex_lock(&t->lock);
    const bool full = t->open >= t->config.open_max || (waits && t->beginning >= RQ_TX_BEGINNING_MAX);
    const enum rq_err err = t->stops ? RQ_SHUTDOWN : full ? RQ_TOOBIG : RQ_OK;
    if (err == RQ_OK) {
        t->open++;
        t->beginning += waits;
    }
    pthread_mutex_unlock(&t->lock);
    return err;
}

/* It has begun, or not. */
static void arrive(struct rq_transactions *t, struct rq_transaction *tx, bool waited)
{
    pthread_mutex_lock(&t->lock);
    t->beginning -= waited;
    if (tx != NULL) {
        tx->next = t->first;
        t->first = tx;
    } else {
        t->open--;
    }
    pthread_mutex_unlock(&t->lock);
}

static enum rq_err err_of(int code)
{
    return code == SQLITE_OK                   ? RQ_OK
           : code == RQVFS_BUSY_AWAY           ? RQ_AWAY
           : code == RQVFS_CORRUPT_QUARANTINED ? RQ_QUARANTINED
           : (code & 0xff) == SQLITE_BUSY      ? RQ_BUSY
           : (code & 0xff) == SQLITE_FULL      ? RQ_FULL
           : (code & 0xff) == SQLITE_CANTOPEN  ? RQ_NOTFOUND
           : (code & 0xff) == SQLITE_NOMEM     ? RQ_NOMEM
                                               : RQ_IO;
}

/* A deferred one has its snapshot from here on, not from its first statement. */
static enum rq_err begin_on(struct rq_transaction *tx, const struct rq_tx_wish *wish, char text[RQ_TX_TEXT_MAX])
{
    enum rq_err err = rq_desk_connect(tx->desk, &tx->connection, &tx->sink);
    if (err != RQ_OK) {
        (void)snprintf(text, RQ_TX_TEXT_MAX, "no connection to the database: %s", rq_err_text(err));
        return err;
    }
    sqlite3 *db = tx->connection.db;
    tx->connection.turn_wait_ms = RQ_TX_TURN_WAIT_MS;
    sqlite3_busy_timeout(db, (int)wish->wait_ms);
    const char *sql = wish->deferred ? "BEGIN; SELECT 1 FROM sqlite_schema" : "BEGIN IMMEDIATE";
    err = err_of(sqlite3_exec(db, sql, NULL, NULL, NULL));
    if (err != RQ_OK) {
        (void)snprintf(text, RQ_TX_TEXT_MAX, "%s", sqlite3_errmsg(db));
    }
    return err;
}

enum rq_err rq_transaction_begin(struct rq_transactions *t, const struct rq_tx_wish *wish,
                                 struct rq_transaction **ret_tx, char text[RQ_TX_TEXT_MAX])
{
    text[0] = '\0';
    enum rq_err err = enter(t, !wish->deferred);
    if (err != RQ_OK) {
        return err;
    }
    struct rq_transaction *tx = calloc(1, sizeof *tx);
    if (tx == NULL) {
        arrive(t, NULL, !wish->deferred);
        return RQ_NOMEM;
    }
    tx->all = t;
    tx->in_use = true;
    tx->idle_ms = wish->idle_ms;
    tx->desk = rq_desk_ref(wish->desk);
    (void)snprintf(tx->id, sizeof tx->id, "%016llx-%016llx%016llx", (unsigned long long)t->config.instance,
                   (unsigned long long)rq_random_id(), (unsigned long long)rq_random_id());
    err = begin_on(tx, wish, text);
    if (err == RQ_OK) {
        tx->begun_ms = tx->idle_since_ms = rq_clock_ms();
        RQ_COUNT(http, tx_begun);
        *ret_tx = tx;
    } else {
        transaction_free(tx);
        tx = NULL;
    }
    arrive(t, tx, !wish->deferred);
    return err;
}

/* --- from one request to the next ----------------------------------------------------------------------------------------- */

/* Lock held. */
static struct ended *find_ended(struct rq_transactions *t, const char *id)
{
    for (unsigned i = 0; i < RQ_TX_REMEMBERED; i++) {
        if (t->ended[i].id[0] != '\0' && strcmp(t->ended[i].id, id) == 0) {
            return &t->ended[i];
        }
    }
    return NULL;
}

/* Lock held. */
static enum rq_err tell_ended(struct rq_transactions *t, const char *id, struct rq_tx_found *ret)
{
    const struct ended *e = find_ended(t, id);
    *ret = (struct rq_tx_found){ .was = e != NULL };
    if (e != NULL) {
        ret->end = e->end;
        ret->index = e->index;
    }
    return RQ_NOTFOUND;
}

/* Of the node that gave this id; false: nobody did. */
static bool instance_of(const char *id, uint64_t *ret_instance)
{
    char digits[16 + 1] = "";
    if (strlen(id) != RQ_TX_ID_BYTES || id[16] != '-' || strspn(id, "0123456789abcdef") != 16 ||
        strspn(id + 17, "0123456789abcdef") != 32) {
        return false;
    }
    memcpy(digits, id, 16);
    *ret_instance = strtoull(digits, NULL, 16);
    return true;
}

enum rq_err rq_transaction_take(struct rq_transactions *t, const char *id, const char *database,
                                struct rq_tx_found *ret)
{
    uint64_t instance;
    enum rq_tx_end end;
    *ret = (struct rq_tx_found){ .was = false };
    if (!instance_of(id, &instance)) {
        return RQ_NOTFOUND;
    }
    if (instance != t->config.instance) {
        ret->instance = instance;
        return RQ_FOREIGN;
    }
    pthread_mutex_lock(&t->lock);
    struct rq_transaction *tx = t->first;
    while (tx != NULL && strcmp(tx->id, id) != 0) {
        tx = tx->next;
    }
    if (tx == NULL) {
        const enum rq_err err = tell_ended(t, id, ret);
        pthread_mutex_unlock(&t->lock);
        return err;
    }
    if (database != NULL && strcmp(database, rq_transaction_database(tx)) != 0) {
        pthread_mutex_unlock(&t->lock);
        return RQ_NOTFOUND;
    }
    const enum rq_err err = tx->in_use ? RQ_BUSY : RQ_OK;
    const bool over = err == RQ_OK && is_over(tx, rq_clock_ms(), false, &end);
    tx->in_use = true;
    pthread_mutex_unlock(&t->lock);
    if (over) {
        end_transaction(tx, end, 0);
        *ret = (struct rq_tx_found){ .was = true, .end = end };
        return RQ_NOTFOUND;
    }
    ret->tx = err == RQ_OK ? tx : NULL;
    return err;
}

void rq_transaction_ask(struct rq_transactions *t, const char *id, uint64_t deadline_ms, struct rq_tx_found *ret)
{
    pthread_mutex_lock(&t->lock);
    struct ended *e = find_ended(t, id);
    struct rq_direct_sink *sink = e != NULL && e->sink != NULL ? rq_direct_sink_ref(e->sink) : NULL;
    pthread_mutex_unlock(&t->lock);
    const enum rq_err err = sink != NULL ? rq_direct_sink_outcome(sink, deadline_ms) : RQ_UNKNOWN;
    rq_direct_sink_unref(sink);
    pthread_mutex_lock(&t->lock);
    e = find_ended(t, id);
    struct rq_direct_sink *known = NULL;
    if (e != NULL && e->sink != NULL && err != RQ_UNKNOWN) {
        e->end = err == RQ_OK ? RQ_TX_COMMITTED : RQ_TX_REFUSED;
        known = e->sink;
        e->sink = NULL;
    }
    (void)tell_ended(t, id, ret);
    pthread_mutex_unlock(&t->lock);
    rq_direct_sink_unref(known);
}

/* --- in use --------------------------------------------------------------------------------------------------------------- */

const char *rq_transaction_id(const struct rq_transaction *tx)
{
    return tx->id;
}

const char *rq_transaction_database(const struct rq_transaction *tx)
{
    return rq_database_name(rq_desk_database(tx->desk));
}

struct rq_sql_connection *rq_transaction_connection(struct rq_transaction *tx)
{
    return &tx->connection;
}

uint64_t rq_transaction_left_ms(const struct rq_transaction *tx)
{
    const uint64_t gone_ms = rq_clock_ms() - tx->begun_ms, lifetime_ms = tx->all->config.lifetime_ms;
    return gone_ms < lifetime_ms ? lifetime_ms - gone_ms : 0;
}

bool rq_transaction_give(struct rq_transaction *tx)
{
    struct rq_transactions *t = tx->all;
    if (sqlite3_get_autocommit(tx->connection.db) != 0) {
        end_transaction(tx, RQ_TX_FAILED, 0);
        return false;
    }
    pthread_mutex_lock(&t->lock);
    tx->idle_since_ms = rq_clock_ms();
    tx->in_use = false;
    pthread_mutex_unlock(&t->lock);
    return true;
}

/* Its COMMIT has failed, and it is over.  The database says why, if it came that far. */
static enum rq_err why_failed(struct rq_transaction *tx, int code)
{
    const enum rq_err err = rq_direct_sink_outcome(tx->sink, 0);
    return err == RQ_NOTFOUND ? err_of(code) : err;
}

void rq_transaction_commit(struct rq_transaction *tx, uint64_t deadline_ms, struct rq_tx_outcome *ret)
{
    sqlite3 *db = tx->connection.db;
    *ret = (struct rq_tx_outcome){ .err = RQ_OK };
    rq_direct_sink_set_deadline(tx->sink, deadline_ms);
    const int code = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    if (code != SQLITE_OK) {
        (void)snprintf(ret->text, sizeof ret->text, "%s", rq_sql_code_text(code));
        ret->open = (code & 0xff) == SQLITE_CONSTRAINT && sqlite3_get_autocommit(db) == 0;
        ret->err = ret->open ? RQ_REFUSED : why_failed(tx, code);
    } else if (rq_direct_sink_outcome(tx->sink, 0) == RQ_OK) {
        struct rq_database_info info;
        rq_database_info(rq_desk_database(tx->desk), &info);
        ret->index = info.applied_index;
    }
    if (ret->open) {
        (void)rq_transaction_give(tx);
    } else {
        end_transaction(tx,
                        ret->err == RQ_OK        ? RQ_TX_COMMITTED
                        : ret->err == RQ_UNKNOWN ? RQ_TX_UNKNOWN
                                                 : RQ_TX_REFUSED,
                        ret->index);
    }
}

void rq_transaction_rollback(struct rq_transaction *tx)
{
    end_transaction(tx, RQ_TX_ROLLED_BACK, 0);
}
