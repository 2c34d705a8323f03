#include "raftd/cluster/survivor.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/staged.h"
#include "raftd/run/room.h"
#include "raftd/wire/entry.h"
#include "raftd/wire/txn.h"
#include "vfs/replica.h"

/* A database, as the log leads to it. */
struct led {
    char name[RQ_DB_NAME_MAX + 1];
    uint32_t id;
    uint64_t version;
    uint64_t in_file; /* entries up to here are in its file */
    uint64_t index;   /* of the first entry whose body is missing; 0: none */
    struct rq_entry_staged missing;
};

struct walk {
    const struct rq_survivor *survivor;
    struct led *list; /* owns */
    size_t count, capacity;
};

static struct led *find(struct walk *w, uint32_t id)
{
    for (size_t i = 0; i < w->count; i++) {
        if (w->list[i].id == id) {
            return &w->list[i];
        }
    }
    return NULL;
}

/* Up to which entry its file has it; 0: there is none, or none that can be told. */
static uint64_t stamp_of(const struct rq_survivor *s, const char *name, uint32_t id)
{
    struct rq_replica_state state;
    char *path;
    if (asprintf(&path, "%s/%s", s->dir, name) < 0) {
        return 0;
    }
    const enum rq_err err = rq_replica_peek(s->disk, path, &state);
    free(path);
    return err == RQ_OK && state.stamp.db_id == id ? state.stamp.index : 0;
}

static enum rq_err add(struct walk *w, const char *name, size_t name_bytes, uint32_t id, uint64_t version)
{
    struct led *list = rq_room_for_one(w->list, w->count, &w->capacity, sizeof *list);
    if (list == NULL) {
        return RQ_NOMEM;
    }
    w->list = list;
    struct led *db = &list[w->count++];
    *db = (struct led){ .id = id, .version = version };
    memcpy(db->name, name, name_bytes < RQ_DB_NAME_MAX ? name_bytes : RQ_DB_NAME_MAX);
    db->in_file = stamp_of(w->survivor, db->name, id);
    return RQ_OK;
}

/* NOTFOUND, CORRUPT, VERSION: it cannot be used. */
static enum rq_err read_body(const struct rq_survivor *s, const struct rq_entry_staged *staged)
{
    struct rq_staged_reader *r;
    uint32_t pgno;
    const uint8_t *page;
    enum rq_err err = rq_staged_open(s->disk, s->staged_dir, staged, &r);
    if (err != RQ_OK) {
        return err;
    }
    while ((err = rq_staged_next(r, &pgno, &page)) == RQ_OK) {
    }
    rq_staged_close(r);
    return err == RQ_NOTFOUND ? RQ_OK : err; /* the end of it */
}

/* One without effect needs no body (database_apply.c). */
static enum rq_err follow_staged(struct walk *w, uint64_t index, const struct rq_entry_staged *staged)
{
    struct led *db = find(w, staged->head.db_id);
    if (db == NULL || db->version != staged->head.base) {
        return RQ_OK;
    }
    db->version = staged->head.version;
    if (index <= db->in_file || db->index != 0) {
        return RQ_OK;
    }
    const enum rq_err err = read_body(w->survivor, staged);
    if (err == RQ_NOTFOUND || err == RQ_CORRUPT || err == RQ_VERSION) {
        db->index = index;
        db->missing = *staged;
        return RQ_OK;
    }
    return err;
}

static enum rq_err follow(struct walk *w, const struct rq_log_entry *e)
{
    struct rq_entry_create create;
    struct rq_entry_adopt adopt;
    struct rq_entry_drop drop;
    struct rq_entry_staged staged;
    struct rq_txn_reader txn;
    struct led *db;
    const uint8_t *data = e->blob->data;
    const size_t bytes = e->blob->bytes;
    switch ((int)e->type) {
        case RQ_ENTRY_CREATE:
            return rq_entry_get_create(data, bytes, &create) == RQ_OK
                       ? add(w, create.name.data, create.name.bytes, (uint32_t)e->index, 0)
                       : RQ_OK;
        case RQ_ENTRY_ADOPT:
            return rq_entry_get_adopt(data, bytes, &adopt) == RQ_OK
                       ? add(w, adopt.name.data, adopt.name.bytes, (uint32_t)e->index, adopt.version)
                       : RQ_OK;
        case RQ_ENTRY_DROP:
            db = rq_entry_get_drop(data, bytes, &drop) == RQ_OK ? find(w, drop.db_id) : NULL;
            if (db != NULL) {
                *db = w->list[--w->count];
            }
            return RQ_OK;
        case RQ_ENTRY_TXN:
            db = rq_txn_read(&txn, data, bytes) == RQ_OK ? find(w, txn.head.db_id) : NULL;
            if (db != NULL && db->version == txn.head.base) {
                db->version = txn.head.version;
            }
            return RQ_OK;
        case RQ_ENTRY_STAGED:
            return rq_entry_get_staged(data, bytes, &staged) == RQ_OK ? follow_staged(w, e->index, &staged) : RQ_OK;
        default:
            return RQ_OK;
    }
}

static void describe(const struct rq_survivor *s, const struct led *db, char text[512])
{
    char *path = rq_staged_path(s->staged_dir, "", db->missing.hash);
    (void)snprintf(
        text, 512,
        "%.100s: log entry %llu (version %llu) may have been acknowledged, and its staged body is not here, or "
        "damaged: bring the file %.200s (%llu bytes) from the disk of another node",
        db->name, (unsigned long long)db->index, (unsigned long long)db->missing.head.version,
        path != NULL ? path : s->staged_dir, (unsigned long long)db->missing.body_bytes);
    free(path);
}

static enum rq_err look_for_bodies(const struct rq_survivor *s, uint64_t last, char text[512])
{
    const struct rq_descriptor *d = s->descriptor;
    const uint64_t first = rq_log_first(s->log);
    struct walk w = { .survivor = s };
    enum rq_err err = RQ_OK;
    for (uint32_t i = 0; err == RQ_OK && i < d->database_count; i++) {
        const struct rq_descriptor_database *db = &d->databases[i];
        err = add(&w, db->name, strlen(db->name), db->id, db->version);
    }
    for (uint64_t i = d->index + 1 > first ? d->index + 1 : first; err == RQ_OK && i <= last; i++) {
        struct rq_log_entry e;
        err = rq_log_get(s->log, i, &e);
        if (err == RQ_OK) {
            err = e.blob != NULL ? follow(&w, &e) : RQ_OK;
            rq_blob_unref(e.blob);
        }
    }
    for (size_t i = 0; err == RQ_OK && i < w.count; i++) {
        if (w.list[i].index != 0) {
            describe(s, &w.list[i], text);
            err = RQ_CORRUPT;
        }
    }
    free(w.list);
    return err;
}

enum rq_err rq_survivor_check(const struct rq_survivor *s, char text[512])
{
    const struct rq_descriptor *d = s->descriptor;
    /* As in stamps.c: this log says nothing any more. */
    const bool given_up =
        d->installed && rq_log_first(s->log) != d->index + 1 && rq_log_term_at(s->log, d->index) != d->term;
    const uint64_t last = given_up || rq_log_last(s->log) < d->index ? d->index : rq_log_last(s->log);
    text[0] = '\0';
    if (s->newest_stamp > last) { /* what goes on would write other entries under the indexes that its replicas have */
        (void)snprintf(text, 512,
                       "this node was being brought up to date, and some of its databases are newer than its log");
        return RQ_CORRUPT;
    }
    return look_for_bodies(s, last, text);
}
