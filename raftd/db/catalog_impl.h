/* Inside of the catalog: catalog.c (which databases there are), catalog_files.c (which file each replica is), catalog_compact.c (the
 * log forgets), catalog_bodies.c (staged bodies) and catalog_install.c (the state of another member). */
#ifndef RAFTD_DB_CATALOG_IMPL_H
#define RAFTD_DB_CATALOG_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "raftd/db/catalog.h"
#include "raftd/db/known_files.h"

/* A DROP entry that was delivered; until the files are in the trash. */
struct dropping {
    struct dropping *next;
    struct rq_catalog *catalog;
    struct rq_database *db; /* counted */
    struct rq_request *requests;
};

struct rq_catalog {
    struct rq_catalog_config config;
    struct rq_database_env env;
    struct rq_driver *driver;
    struct rq_shelf *shelf; /* owns */
    atomic_bool leads, caught_up, adopted;
    _Atomic uint64_t term, leader;

    /* Held while the databases come from another member, and while the log is compacted: one descriptor at a time.  Whoever wants it
     * for something that can wait tries. */
    pthread_mutex_t whole;

    pthread_mutex_t lock;
    struct rq_database **databases; /* counted; guarded by lock, as what follows */
    size_t database_count;
    struct rq_place **places;
    size_t place_count;
    struct dropping *droppings;
    struct rq_known_files files;
    struct rq_catalog_snapshot snapshot;

    /* Loop context. */
    struct rq_request *requests; /* submitted, fate not known */
    uint64_t loaded_index;       /* of the descriptor at the start */
};

/* By what an entry's decoder has said: does it have an effect?  One of a newer raftd ends the process. */
bool rq_catalog_readable(enum rq_err err);
bool rq_catalog_is_alone(const struct rq_catalog *c);

/* --- files --- */

/* Of raft/files; a damaged one costs what it knew, no more. */
enum rq_err rq_catalog_read_files(struct rq_catalog *c);
/* For struct rq_database_env. */
void rq_catalog_file_made(void *ctx, uint32_t id, uint64_t inode, uint64_t device);
void rq_catalog_forget_file(struct rq_catalog *c, uint32_t id);

/* --- bodies --- */

/* The entry of that index needs its body. */
void rq_catalog_note_body(struct rq_catalog *c, uint64_t index, const struct rq_entry_staged *staged);

/* --- changes --- */

/* That descriptor is written. */
void rq_catalog_note_snapshot(struct rq_catalog *c, const struct rq_descriptor *d, bool now);

/* Grows an array by one; without memory a committed entry cannot be followed, and the process ends. */
void *rq_catalog_one_more(void *array, size_t count, size_t each);

/* Loop context: a database that there is from now on. */
struct rq_database *rq_catalog_add(struct rq_catalog *c, const char *name, uint32_t id,
                                   struct rq_database_known *known);
/* Loop context: takes the database out of the list and into d, whose drop it is then; NULL: there is none of that id. */
struct rq_database *rq_catalog_take_out(struct rq_catalog *c, uint32_t id, struct dropping *d);
/* For rq_database_drop(), with the struct dropping. */
void rq_catalog_dropped(void *ctx);
/* Loop context: what is asked and was submitted in an earlier term than this one may never be told. */
void rq_catalog_give_up_requests(struct rq_catalog *c, uint64_t term);

/* --- waiting --- */

/* A countdown that one thread sleeps on. */
struct rq_countdown {
    pthread_mutex_t lock;
    pthread_cond_t zero;
    size_t left;
    enum rq_err err;
};

void rq_countdown_init(struct rq_countdown *n, size_t left);
void rq_countdown_one(struct rq_countdown *n, enum rq_err err);
/* Without threads whoever waits runs what he waits for. */
enum rq_err rq_countdown_wait(struct rq_catalog *c, struct rq_countdown *n);
/* Behind everything that was posted for any name so far, drops included. */
void rq_catalog_wait_for_places(struct rq_catalog *c);

/* --- pictures --- */

struct describe;

/* A picture of the state machine at one index, taken on the loop: the catalog there, and each database on its strand, behind
 * everything that the loop had given it by then. */
struct rq_picture {
    struct rq_task task; /* on the loop */
    struct rq_catalog *catalog;
    struct rq_descriptor descriptor;
    struct rq_database **list; /* counted */
    size_t count;              /* of the list */
    struct describe *parts;
    struct rq_countdown n;
    enum rq_err err;
    char *text; /* borrows, [512]; guarded by n.lock */
};
/* Fills in the descriptor's databases, room for which is there, from the list, each on its strand; p->n waits for them, too. */
void rq_catalog_describe(struct rq_picture *p);
/* What is described becomes durable in the replicas.  BUSY: one has lost its name, try again. */
enum rq_err rq_catalog_sync_replicas(struct rq_picture *p);
void rq_catalog_picture_fini(struct rq_picture *p);

#endif
