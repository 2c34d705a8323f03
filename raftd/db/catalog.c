#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/catalog_impl.h"
#include "raftd/db/identity.h"
#include "raftd/db/staged.h"
#include "raftd/db/wal_care.h"
#include "raftd/ops/journal.h"
#include "raftd/wire/entry.h"

/* Grows an array by one; without memory a committed entry cannot be followed, and the process ends. */
void *rq_catalog_one_more(void *array, size_t count, size_t each)
{
    void *more = realloc(array, (count + 1) * each);
    if (more == NULL) {
        rq_fatal("no memory for the catalog", RQ_NOMEM);
    }
    return more;
}

static bool ends_with(const char *name, size_t bytes, const char *end)
{
    size_t n = strlen(end);
    return bytes >= n && memcmp(name + bytes - n, end, n) == 0;
}

bool rq_db_name_valid(const char *name, size_t bytes)
{
    static const char *const ends[] = { "-journal", "-wal", "-shm", "-rqctl" };
    if (bytes == 0 || bytes > RQ_DB_NAME_MAX || name[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)name[i];
        if (c < 0x20 || c == 0x7f || c == '/') {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        if (ends_with(name, bytes, ends[i])) {
            return false;
        }
    }
    return !(bytes == 4 && memcmp(name, "raft", 4) == 0) && !(bytes == 10 && memcmp(name, "raftd.sock", 10) == 0);
}

/* --- finding ------------------------------------------------------------------------------------------------------------------- */

static struct rq_database *find(struct rq_catalog *c, const char *name, size_t bytes)
{
    for (size_t i = 0; i < c->database_count; i++) {
        const char *have = rq_database_name(c->databases[i]);
        if (strlen(have) == bytes && memcmp(have, name, bytes) == 0) {
            return c->databases[i];
        }
    }
    return NULL;
}

/* With the lock: are the files of a dropped database of this name on their way to the trash? */
static bool is_being_dropped(const struct rq_catalog *c, const char *name, size_t bytes)
{
    for (const struct dropping *d = c->droppings; d != NULL; d = d->next) {
        const char *have = rq_database_name(d->db);
        if (strlen(have) == bytes && memcmp(have, name, bytes) == 0) {
            return true;
        }
    }
    return false;
}

struct rq_database *rq_catalog_find(struct rq_catalog *c, const char *name, size_t name_bytes)
{
    pthread_mutex_lock(&c->lock);
    struct rq_database *db = find(c, name, name_bytes);
    if (db != NULL) {
        rq_database_ref(db);
    }
    pthread_mutex_unlock(&c->lock);
    return db;
}

struct rq_database *rq_catalog_find_id(struct rq_catalog *c, uint32_t id)
{
    struct rq_database *db = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->database_count && db == NULL; i++) {
        if (rq_database_id(c->databases[i]) == id) {
            db = rq_database_ref(c->databases[i]);
        }
    }
    pthread_mutex_unlock(&c->lock);
    return db;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(rq_database_name(*(struct rq_database *const *)a), rq_database_name(*(struct rq_database *const *)b));
}

enum rq_err rq_catalog_list(struct rq_catalog *c, struct rq_database ***ret_list, size_t *ret_count)
{
    pthread_mutex_lock(&c->lock);
    size_t count = c->database_count;
    struct rq_database **list = malloc((count + 1) * sizeof(struct rq_database *));
    for (size_t i = 0; list != NULL && i < count; i++) {
        list[i] = rq_database_ref(c->databases[i]);
    }
    pthread_mutex_unlock(&c->lock);
    if (list == NULL) {
        return RQ_NOMEM;
    }
    qsort(list, count, sizeof(struct rq_database *), by_name);
    *ret_list = list;
    *ret_count = count;
    return RQ_OK;
}

void rq_catalog_session_ended(struct rq_catalog *c, uint64_t session)
{
    struct rq_database **list;
    size_t count;
    if (rq_catalog_list(c, &list, &count) != RQ_OK) {
        return; /* the background thread's sweep comes to it */
    }
    for (size_t i = 0; i < count; i++) {
        rq_database_session_ended(list[i], session);
        rq_database_unref(list[i]);
    }
    free(list);
}

/* --- committed entries; loop context ---------------------------------------------------------------------------------------------- */

struct rq_database *rq_catalog_add(struct rq_catalog *c, const char *name, uint32_t id, struct rq_database_known *known)
{
    struct rq_place *place = NULL;
    struct rq_database *db;

    known->caught_up = atomic_load(&c->caught_up);
    pthread_mutex_lock(&c->lock);
    const struct rq_known_file *file = rq_known_files_find(&c->files, id);
    if (file != NULL) {
        known->file_made = true;
        known->inode = file->inode;
        known->device = file->device;
    }
    for (size_t i = 0; i < c->place_count && place == NULL; i++) {
        if (strcmp(rq_place_name(c->places[i]), name) == 0) {
            place = c->places[i];
        }
    }
    if (place == NULL && rq_place_new(c->config.pool, name, &place) == RQ_OK) {
        c->places = rq_catalog_one_more(c->places, c->place_count, sizeof *c->places);
        c->places[c->place_count++] = place;
    }
    pthread_mutex_unlock(&c->lock); /* opening the files may come back to rq_catalog_file_made() */

    if (place == NULL || rq_database_new(&c->env, place, id, known, &db) != RQ_OK) {
        rq_fatal("no memory for a database of the catalog", RQ_NOMEM);
    }
    pthread_mutex_lock(&c->lock);
    c->databases = rq_catalog_one_more(c->databases, c->database_count, sizeof *c->databases);
    c->databases[c->database_count++] = db;
    pthread_mutex_unlock(&c->lock);
    return db;
}

static void request_done(struct rq_request *r)
{
    struct rq_database *db = r->db;
    r->done(r, r->err, r->err == RQ_OK ? db : NULL);
    if (db != NULL) {
        rq_database_unref(db);
    }
}

/* Its fate is known.  It is not in the list any more; but a leader elsewhere may still have to answer. */
static void request_settle(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    r->settled = true;
    r->err = err;
    r->db = db != NULL ? rq_database_ref(db) : NULL;
    if (!r->outstanding) {
        request_done(r);
    }
}

/* The requests that an entry answers are taken out of the list and told. */
static void answer_requests(struct rq_catalog *c, uint64_t nonce, struct rq_database *db)
{
    struct rq_request **at = &c->requests;
    while (*at != NULL) {
        struct rq_request *r = *at;
        if (r->drop_id == 0 && r->nonce == nonce) {
            *at = r->next;
            request_settle(r, RQ_OK, db);
        } else {
            at = &r->next;
        }
    }
}

static void note_database(const char *what, const struct rq_database *db)
{
    char name[RQ_DB_NAME_MAX * 2];
    rq_note(RQ_LEVEL_INFO, what, "db=%s id=%u", rq_quote(name, sizeof name, rq_database_name(db)), rq_database_id(db));
}

/* What this raftd cannot read it cannot follow, and to go on without it would make another database of it than other hosts have. */
bool rq_catalog_readable(enum rq_err err)
{
    if (err == RQ_VERSION) {
        rq_fatal("the log has an entry that was written by a newer raftd", err);
    }
    return err == RQ_OK;
}

static void committed_create(struct rq_catalog *c, const struct rq_log_entry *e)
{
    struct rq_entry_create create;
    char name[RQ_DB_NAME_MAX + 1];
    if (!rq_catalog_readable(rq_entry_get_create(e->blob->data, e->blob->bytes, &create)) ||
        !rq_db_name_valid(create.name.data, create.name.bytes)) {
        return; /* no effect, on any host */
    }
    memcpy(name, create.name.data, create.name.bytes);
    name[create.name.bytes] = '\0';
    struct rq_database *db = rq_catalog_find(c, name, create.name.bytes);
    if (db == NULL) {
        struct rq_database_known known = { 0 };
        rq_origins_init(&known.origins, 0);
        db = rq_database_ref(rq_catalog_add(c, name, (uint32_t)e->index, &known));
        if (atomic_load(&c->caught_up)) {
            note_database("database created", db);
        }
    }
    answer_requests(c, create.nonce, db);
    rq_database_unref(db);
}

static void committed_adopt(struct rq_catalog *c, const struct rq_log_entry *e)
{
    struct rq_entry_adopt adopt;
    char name[RQ_DB_NAME_MAX + 1];
    if (!rq_catalog_readable(rq_entry_get_adopt(e->blob->data, e->blob->bytes, &adopt)) ||
        !rq_db_name_valid(adopt.name.data, adopt.name.bytes)) {
        return;
    }
    atomic_store(&c->adopted, true);
    memcpy(name, adopt.name.data, adopt.name.bytes);
    name[adopt.name.bytes] = '\0';
    struct rq_database *db = rq_catalog_find(c, name, adopt.name.bytes);
    if (db == NULL) {
        struct rq_database_known known = {
            .version = adopt.version,
            .file_made = true,
            .adopt = true,
            .adopt_page_count = adopt.page_count,
            .adopt_stamp = { .db_id = (uint32_t)e->index,
                             .term = (uint32_t)e->term,
                             .index = e->index,
                             .version_high = (uint32_t)(adopt.version >> 32) },
        };
        rq_origins_init(&known.origins, adopt.version);
        db = rq_database_ref(rq_catalog_add(c, name, (uint32_t)e->index, &known));
    }
    answer_requests(c, 0, db);
    rq_database_unref(db);
}

static void run_dropped(struct rq_task *task)
{
    request_settle((struct rq_request *)((char *)task - offsetof(struct rq_request, task)), RQ_OK, NULL);
}

void rq_catalog_dropped(void *ctx)
{
    struct dropping *d = ctx;
    struct rq_catalog *c = d->catalog;
    rq_catalog_forget_file(c, rq_database_id(d->db));
    pthread_mutex_lock(&c->lock);
    struct dropping **at = &c->droppings;
    while (*at != d) {
        at = &(*at)->next;
    }
    *at = d->next;
    pthread_mutex_unlock(&c->lock);
    while (d->requests != NULL) {
        struct rq_request *r = d->requests;
        d->requests = r->next;
        r->task.run = run_dropped;
        rq_strand_post(rq_driver_loop(c->driver), &r->task, RQ_CARRY);
    }
    rq_database_unref(d->db);
    free(d);
}

struct rq_database *rq_catalog_take_out(struct rq_catalog *c, uint32_t id, struct dropping *d)
{
    struct rq_database *db = NULL;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < c->database_count && db == NULL; i++) {
        if (rq_database_id(c->databases[i]) == id) {
            db = c->databases[i];
            c->databases[i] = c->databases[--c->database_count];
            d->db = db;
            d->next = c->droppings;
            c->droppings = d;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return db;
}

static void committed_drop(struct rq_catalog *c, const struct rq_log_entry *e)
{
    struct rq_entry_drop drop;
    struct rq_database *db = NULL;
    if (!rq_catalog_readable(rq_entry_get_drop(e->blob->data, e->blob->bytes, &drop))) {
        return;
    }
    struct dropping *d = rq_catalog_one_more(NULL, 0, sizeof *d);
    *d = (struct dropping){ .catalog = c };
    for (struct rq_request **at = &c->requests; *at != NULL;) {
        struct rq_request *r = *at;
        if (r->drop_id == drop.db_id) {
            *at = r->next;
            r->next = d->requests;
            d->requests = r;
        } else {
            at = &r->next;
        }
    }
    db = rq_catalog_take_out(c, drop.db_id, d);
    if (db == NULL) { /* dropped by an earlier entry: whoever asked has what was asked for */
        while (d->requests != NULL) {
            struct rq_request *r = d->requests;
            d->requests = r->next;
            request_settle(r, RQ_NOTFOUND, NULL);
        }
        free(d);
        return;
    }
    if (atomic_load(&c->caught_up)) {
        note_database("database dropped", db);
    }
    rq_database_drop(db, rq_catalog_dropped, d);
}

static void on_committed(void *ctx, const struct rq_log_entry *e)
{
    struct rq_catalog *c = ctx;
    uint32_t id = 0;
    struct rq_entry_staged staged;
    struct rq_txn_reader reader;
    struct rq_entry_mark mark;

    if (e->type < RQ_ENTRY_BARRIER || e->type > RQ_ENTRY_MARK) {
        (void)rq_catalog_readable(RQ_VERSION);
    }
    if (e->blob == NULL) { /* a barrier, or nothing that anybody could have meant */
        return;
    }
    switch ((enum rq_entry_type)e->type) {
        case RQ_ENTRY_BARRIER:
        case RQ_ENTRY_CHANGE:
            return;
        case RQ_ENTRY_CREATE:
            committed_create(c, e);
            return;
        case RQ_ENTRY_ADOPT:
            committed_adopt(c, e);
            return;
        case RQ_ENTRY_DROP:
            committed_drop(c, e);
            return;
        case RQ_ENTRY_TXN:
            if (rq_catalog_readable(rq_txn_read(&reader, e->blob->data, e->blob->bytes))) {
                id = reader.head.db_id;
            }
            break;
        case RQ_ENTRY_STAGED:
            if (rq_catalog_readable(rq_entry_get_staged(e->blob->data, e->blob->bytes, &staged))) {
                id = staged.head.db_id;
                rq_catalog_note_body(c, e->index, &staged);
            }
            break;
        case RQ_ENTRY_MARK:
            if (rq_catalog_readable(rq_entry_get_mark(e->blob->data, e->blob->bytes, &mark))) {
                id = mark.db_id;
            }
            break;
    }
    struct rq_database *db = rq_catalog_find_id(c, id);
    if (db != NULL) {
        rq_database_committed(db, e);
    }
    if (e->type == RQ_ENTRY_MARK && id != 0) {
        answer_requests(c, mark.nonce, db);
    }
    if (db != NULL) {
        rq_database_unref(db);
    }
}

/* What was appended in an earlier term may be cut off, and nobody will say so. */
void rq_catalog_give_up_requests(struct rq_catalog *c, uint64_t term)
{
    struct rq_request **at = &c->requests;
    while (*at != NULL) {
        struct rq_request *r = *at;
        if (!r->outstanding && r->submit.term < term) {
            *at = r->next;
            request_settle(r, RQ_UNKNOWN, NULL);
        } else {
            at = &r->next;
        }
    }
}

static void on_role(void *ctx, bool leads, uint64_t term, uint64_t leader_id)
{
    struct rq_catalog *c = ctx;
    struct rq_database **list;
    size_t count;
    atomic_store(&c->leads, leads);
    atomic_store(&c->term, term);
    atomic_store(&c->leader, leader_id);
    rq_note(RQ_LEVEL_INFO, leads ? "this node leads" : "this node does not lead", "term=%llu leader=%016llx",
            (unsigned long long)term, (unsigned long long)leader_id);
    rq_catalog_give_up_requests(c, term);
    if (rq_catalog_list(c, &list, &count) != RQ_OK) {
        rq_fatal("no memory for the catalog", RQ_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        rq_database_role_changed(list[i]);
        rq_database_unref(list[i]);
    }
    free(list);
}

void rq_catalog_members_changed(struct rq_catalog *c)
{
    struct rq_database **list;
    size_t count;
    if (rq_catalog_list(c, &list, &count) != RQ_OK) {
        rq_fatal("no memory for the catalog", RQ_NOMEM);
    }
    for (size_t i = 0; i < count; i++) {
        rq_database_members_changed(list[i]);
        rq_database_unref(list[i]);
    }
    free(list);
}

struct rq_node_machine rq_catalog_machine(struct rq_catalog *c)
{
    return (struct rq_node_machine){ .ctx = c, .committed = on_committed, .role = on_role };
}

/* --- requests ------------------------------------------------------------------------------------------------------------------------ */

static void on_submitted(struct rq_submit *s, enum rq_err err)
{
    struct rq_request *r = (struct rq_request *)s;
    struct rq_catalog *c = r->catalog;
    r->outstanding = false;
    if (r->settled) {
        request_done(r);
        return;
    }
    if (err == RQ_OK && s->term >= atomic_load(&c->term)) {
        return; /* the entry will tell */
    }
    struct rq_request **at = &c->requests;
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    request_settle(r, err == RQ_OK ? RQ_UNKNOWN : err, NULL);
}

/* In the list before it is on its way: its entry may come before the leader's answer. */
static void run_request(struct rq_task *task)
{
    struct rq_request *r = (struct rq_request *)((char *)task - offsetof(struct rq_request, task));
    r->next = r->catalog->requests;
    r->catalog->requests = r;
    rq_driver_submit(r->catalog->driver, &r->submit);
}

/* Takes the bytes. */
static void submit(struct rq_catalog *c, struct rq_request *r, uint16_t type, struct rq_bytes *entry, enum rq_err err)
{
    struct rq_blob *blob = err == RQ_OK ? rq_blob_new(entry->size) : NULL;
    if (blob == NULL) {
        rq_bytes_fini(entry);
        r->done(r, err != RQ_OK ? err : RQ_NOMEM, NULL);
        return;
    }
    memcpy(blob->data, entry->data, entry->size);
    rq_bytes_fini(entry);
    r->catalog = c;
    r->outstanding = true;
    r->settled = false;
    r->submit = (struct rq_submit){ .type = type, .blob = blob, .done = on_submitted };
    r->task.run = run_request;
    rq_strand_post(rq_driver_loop(c->driver), &r->task, RQ_CARRY);
}

void rq_catalog_create(struct rq_catalog *c, const char *name, size_t name_bytes, struct rq_request *r)
{
    struct rq_bytes entry;
    struct rq_file_info info;
    char path[4096];

    if (!rq_db_name_valid(name, name_bytes)) {
        r->done(r, RQ_MISUSE, NULL);
        return;
    }
    if (snprintf(path, sizeof path, "%s/%.*s", c->config.dir, (int)name_bytes, name) >= (int)sizeof path) {
        r->done(r, RQ_MISUSE, NULL);
        return;
    }
    pthread_mutex_lock(&c->lock);
    struct rq_database *db = find(c, name, name_bytes);
    if (db != NULL) {
        rq_database_ref(db);
    }
    const bool leaves = is_being_dropped(c, name, name_bytes);
    pthread_mutex_unlock(&c->lock);
    if (db != NULL) {
        r->done(r, RQ_OK, db);
        rq_database_unref(db);
        return;
    }
    /* The files of a dropped database are gone before those of the next one are opened: both happen on the name's strand. */
    if (!leaves && c->config.disk->ops->stat(c->config.disk, path, &info) == RQ_OK &&
        (!info.regular || info.size > 0)) {
        r->done(r, RQ_EXISTS, NULL); /* somebody's file: left alone */
        return;
    }
    r->nonce = rq_random_id();
    r->drop_id = 0;
    rq_bytes_init(&entry, 4096);
    enum rq_err err =
        rq_entry_put_create(&entry, &(struct rq_entry_create){ { name, (uint32_t)name_bytes }, r->nonce });
    submit(c, r, RQ_ENTRY_CREATE, &entry, err);
}

void rq_catalog_drop(struct rq_catalog *c, uint32_t id, struct rq_request *r)
{
    struct rq_bytes entry;
    r->nonce = 0;
    r->drop_id = id;
    rq_bytes_init(&entry, 4096);
    enum rq_err err = rq_entry_put_drop(&entry, &(struct rq_entry_drop){ id });
    submit(c, r, RQ_ENTRY_DROP, &entry, err);
}

void rq_catalog_mark(struct rq_catalog *c, const struct rq_entry_mark *mark, struct rq_request *r)
{
    struct rq_bytes entry;
    r->nonce = mark->nonce;
    r->drop_id = 0;
    rq_bytes_init(&entry, 4096);
    enum rq_err err = rq_entry_put_mark(&entry, mark);
    submit(c, r, RQ_ENTRY_MARK, &entry, err);
}

/* --- waiting for it ------------------------------------------------------------------------------------------------------------------- */

void rq_countdown_init(struct rq_countdown *n, size_t left)
{
    pthread_mutex_init(&n->lock, NULL);
    pthread_cond_init(&n->zero, NULL);
    n->left = left;
    n->err = RQ_OK;
}

void rq_countdown_one(struct rq_countdown *n, enum rq_err err)
{
    pthread_mutex_lock(&n->lock);
    if (err != RQ_OK) {
        n->err = err;
    }
    if (--n->left == 0) {
        pthread_cond_broadcast(&n->zero);
    }
    pthread_mutex_unlock(&n->lock);
}

static size_t countdown_left(struct rq_countdown *n)
{
    pthread_mutex_lock(&n->lock);
    size_t left = n->left;
    pthread_mutex_unlock(&n->lock);
    return left;
}

/* Without threads whoever waits runs what he waits for. */
enum rq_err rq_countdown_wait(struct rq_catalog *c, struct rq_countdown *n)
{
    struct rq_pool *pool = c->config.pool;
    while (!rq_pool_has_threads(pool) && countdown_left(n) > 0 && rq_pool_run_one(pool)) {
    }
    pthread_mutex_lock(&n->lock);
    while (n->left > 0) {
        pthread_cond_wait(&n->zero, &n->lock);
    }
    enum rq_err err = n->err;
    pthread_mutex_unlock(&n->lock);
    pthread_mutex_destroy(&n->lock);
    pthread_cond_destroy(&n->zero);
    return err;
}

static void adopted(struct rq_request *r, enum rq_err err, struct rq_database *db)
{
    (void)db;
    rq_countdown_one(r->ctx, err);
}

enum rq_err rq_catalog_adopt(struct rq_catalog *c, const struct rq_entry_adopt *adopt)
{
    struct rq_countdown n;
    struct rq_bytes entry;
    struct rq_request r = { .done = adopted, .ctx = &n };
    rq_countdown_init(&n, 1);
    rq_bytes_init(&entry, 4096);
    enum rq_err err = rq_entry_put_adopt(&entry, adopt);
    submit(c, &r, RQ_ENTRY_ADOPT, &entry, err);
    return rq_countdown_wait(c, &n);
}

struct barrier {
    struct rq_task task;
    struct rq_countdown *n;
};

static void run_barrier(struct rq_task *task)
{
    rq_countdown_one(((struct barrier *)task)->n, RQ_OK);
}

/* Behind everything that was posted for any name so far, drops included. */
void rq_catalog_wait_for_places(struct rq_catalog *c)
{
    struct rq_countdown n;
    pthread_mutex_lock(&c->lock);
    const size_t count = c->place_count;
    struct rq_place **places = malloc((count + 1) * sizeof(struct rq_place *));
    for (size_t i = 0; places != NULL && i < count; i++) {
        places[i] = c->places[i];
    }
    pthread_mutex_unlock(&c->lock);
    struct barrier *barriers = calloc(count + 1, sizeof *barriers);
    if (places == NULL || barriers == NULL) {
        rq_fatal("no memory to start", RQ_NOMEM);
    }
    rq_countdown_init(&n, count + 1);
    for (size_t i = 0; i < count; i++) {
        barriers[i] = (struct barrier){ { .run = run_barrier }, &n };
        rq_strand_post(rq_place_strand(places[i]), &barriers[i].task, RQ_CARRY);
    }
    rq_countdown_one(&n, RQ_OK);
    (void)rq_countdown_wait(c, &n); /* barriers bring no error */
    free(barriers);
    free(places);
}

enum rq_err rq_catalog_caught_up(struct rq_catalog *c, char text[512])
{
    struct rq_database **list;
    size_t count;
    atomic_store(&c->caught_up, true); /* first: a database that comes from now on takes it from there */
    enum rq_err err = rq_catalog_list(c, &list, &count);
    if (err != RQ_OK) {
        return err;
    }
    for (size_t i = 0; i < count; i++) {
        rq_database_caught_up(list[i]);
    }
    rq_catalog_wait_for_places(c);
    for (size_t i = 0; i < count; i++) {
        struct rq_database_info info;
        rq_database_info(list[i], &info);
        if (info.diverged && err == RQ_OK) {
            err = RQ_CORRUPT;
            (void)snprintf(text, 512, "%.200s: %.250s", rq_database_name(list[i]), info.message);
        }
        rq_database_unref(list[i]);
    }
    free(list);
    return err == RQ_OK ? rq_catalog_fetching_ends(c) : err;
}

bool rq_catalog_has_adopted(const struct rq_catalog *c)
{
    return atomic_load(&c->adopted);
}

bool rq_catalog_ready(const struct rq_catalog *c)
{
    return atomic_load(&c->caught_up);
}

/* --- start ---------------------------------------------------------------------------------------------------------------------------------- */

static void on_submit(void *ctx, struct rq_submit *s)
{
    rq_driver_submit(((struct rq_catalog *)ctx)->driver, s);
}

static void on_post_later(void *ctx, struct rq_later *later, uint64_t delay_ms)
{
    rq_driver_post_later(((struct rq_catalog *)ctx)->driver, later, delay_ms);
}

static uint64_t on_leader(void *ctx)
{
    return atomic_load(&((struct rq_catalog *)ctx)->leader);
}

static uint64_t on_term(void *ctx)
{
    return atomic_load(&((struct rq_catalog *)ctx)->term);
}

static uint64_t on_delivered(void *ctx)
{
    return rq_driver_view(((struct rq_catalog *)ctx)->driver).delivered;
}

static bool on_ready(void *ctx)
{
    return rq_catalog_ready(ctx);
}

static bool on_full(void *ctx)
{
    struct rq_catalog *c = ctx;
    return rq_catalog_ready(c) && rq_driver_view(c->driver).full; /* before that there may be no driver yet */
}

static void on_marked(void *ctx, struct rq_database *db, const struct rq_entry_mark *mark, uint64_t index,
                      struct rq_view *view)
{
    struct rq_catalog *c = ctx;
    if (c->config.marked != NULL) {
        c->config.marked(c->config.marked_ctx, db, mark, index, view);
    } else {
        rq_view_free(view);
    }
}

static bool on_disputed(void *ctx, struct rq_database *db, uint32_t pgno)
{
    const struct rq_catalog *c = ctx;
    return c->config.disputed != NULL && c->config.disputed(c->config.marked_ctx, db, pgno);
}

static void on_stir(void *ctx)
{
    struct rq_catalog *c = ctx;
    c->config.stir(c->config.stir_ctx);
}

static void on_fatal(void *ctx, const char *why, enum rq_err err) __attribute__((noreturn));

static void on_fatal(void *ctx, const char *why, enum rq_err err)
{
    (void)ctx;
    rq_fatal(why, err);
}

enum rq_err rq_catalog_new(const struct rq_catalog_config *config, struct rq_catalog **ret_catalog)
{
    struct rq_catalog *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return RQ_NOMEM;
    }
    c->config = *config;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->whole, NULL);
    c->env = (struct rq_database_env){
        .ctx = c,
        .disk = config->disk,
        .pool = config->pool,
        .dir = config->dir,
        .staged_dir = config->staged_dir,
        .trash_dir = config->trash_dir,
        .copies_dir = config->copies_dir,
        .hashes_dir = config->hashes_dir,
        .boot = config->boot,
        .http_addr = config->http_addr,
        .wal_soft_frames = RQ_WAL_SOFT_FRAMES,
        .wal_hard_frames = RQ_WAL_HARD_FRAMES,
        .submit = on_submit,
        .post_later = on_post_later,
        .leader = on_leader,
        .term = on_term,
        .delivered = on_delivered,
        .turns = config->turns,
        .ready = on_ready,
        .full = on_full,
        .marked = on_marked,
        .disputed = on_disputed,
        .stir = on_stir,
        .file_made = rq_catalog_file_made,
        .fatal = on_fatal,
    };
    enum rq_err err = rq_catalog_read_files(c);
    if (err == RQ_OK) {
        err = rq_staged_sweep_unfinished(config->disk, config->staged_dir);
    }
    if (err == RQ_OK) {
        err = rq_shelf_new(config->disk, config->staged_dir, &c->shelf);
    }
    if (err != RQ_OK) {
        free(c);
        return err;
    }
    c->env.shelf = c->shelf;
    *ret_catalog = c;
    return RQ_OK;
}

enum rq_err rq_catalog_load(struct rq_catalog *c, struct rq_descriptor *d)
{
    c->loaded_index = d->index;
    rq_catalog_note_snapshot(c, d, false);
    for (uint32_t i = 0; i < d->database_count; i++) {
        struct rq_descriptor_database *db = &d->databases[i];
        struct rq_database_known known = { .version = db->version, .file_made = db->file_made, .origins = db->origins };
        db->origins = (struct rq_origins){ 0 };
        (void)rq_catalog_add(c, db->name, db->id, &known);
    }
    return RQ_OK;
}

void rq_catalog_set_driver(struct rq_catalog *c, struct rq_driver *driver)
{
    c->driver = driver;
}

struct rq_shelf *rq_catalog_shelf(struct rq_catalog *c)
{
    return c->shelf;
}

void rq_catalog_set_carrier(struct rq_catalog *c, const struct rq_carrier *carrier)
{
    c->env.carrier = carrier;
}

bool rq_catalog_is_alone(const struct rq_catalog *c)
{
    const struct rq_carrier *carrier = c->env.carrier;
    return carrier == NULL || carrier->is_alone(carrier->ctx);
}
