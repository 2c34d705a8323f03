/* What an application may expect of raftd: for each name the database that was acknowledged, its content at each version, and
 * what was handed in and never answered.
 *
 * A commit is handed in as a session does it, with pages made here; or as frames to a session, while the door is open.  After a restart model_verify() opens everything and demands:
 * what was acknowledged is there, once and in order; what was not is there whole or not at all, and only as the next
 * version; every page is as at that version; a dropped database is gone, and its successor is another one; questions about
 * outcomes are answered truly. */
#ifndef TESTS_SUPPORT_RAFTD_MODEL_H
#define TESTS_SUPPORT_RAFTD_MODEL_H

#include "tests/support/raftd_door.h"
#include "tests/support/raftd_rig.h"

enum { MODEL_NAMES = 3, MODEL_PAGE = 512, MODEL_PAGES_MAX = 24, MODEL_VERSIONS_MAX = 300, MODEL_OPEN_MAX = 3 };

struct model_content {
    uint64_t version;
    uint32_t page_count;
    uint8_t pages[MODEL_PAGES_MAX * MODEL_PAGE]; /* in normal form */
};

/* A transaction that was handed in.  Never freed: an answer may come late. */
struct model_commit {
    struct raftd_model *model;
    struct model_name *name;
    uint32_t db_id;
    unsigned life;
    struct rq_origin origin;
    uint64_t base;
    bool answered;
    struct model_content after;
};

struct model_name {
    const char *name;
    uint32_t id;      /* of the database of this name; 0: none */
    uint32_t last_id; /* of the one that was dropped last */
    bool creating, dropping;
    struct model_content now;
    struct rq_origin origins[MODEL_VERSIONS_MAX]; /* by base */
    struct model_commit *open[MODEL_OPEN_MAX];    /* on now.version, not answered */
};

struct raftd_model {
    struct rig *rig;
    uint64_t seed;
    unsigned life;                         /* raftd's, counted */
    bool (*silent)(struct raftd_model *m); /* raftd is dead already: nobody hears its answers */
    bool fails;                            /* a refusal for lack of something is no fault */
    struct raftd_door door;                /* closed at first */
    struct rq_bytes frame;                 /* of the door; has its memory from the start */
    struct model_name names[MODEL_NAMES];
    uint64_t seq;
    enum rq_err *asked; /* the answer to ASK at the door goes here */
    unsigned acknowledged, staged, dropped, found_unanswered, lost_unanswered, refused, failed;
    char wrong[200]; /* empty: so far so good */
};

void raftd_model_init(struct raftd_model *m, struct rig *rig, uint64_t seed);

/* Says what is wrong, the first time.  Returns condition. */
bool raftd_model_must(struct raftd_model *m, bool condition, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Within rig_run(): opens the door, again if raftd has ended the line; then asks for what was not answered on the former one, as
 * the shim does.  False: sent away. */
bool raftd_model_connect(struct raftd_model *m);

/* Each within rig_run(); they only hand in, the answer comes when strands run. */
void raftd_model_create(struct raftd_model *m, struct model_name *n);
void raftd_model_drop(struct raftd_model *m, struct model_name *n);
/* False: too much is open, or it is full. */
bool raftd_model_commit(struct raftd_model *m, struct model_name *n, bool staged);

/* After a start, within rig_run(). */
void raftd_model_verify(struct raftd_model *m);
void raftd_model_verify_name(struct raftd_model *m, struct model_name *n); /* after rig_settle() */
/* Any time, within rig_run(), after rig_settle(): asks for some outcomes, true and false ones. */
void raftd_model_ask(struct raftd_model *m, struct model_name *n);
/* Through the door: OPEN of a database that is there, and STATUS. */
void raftd_model_look(struct raftd_model *m, struct model_name *n);

#endif
