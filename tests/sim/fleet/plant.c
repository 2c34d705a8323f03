/* Planted faults, put under the real code by the linker (--wrap); the others are at the seams of the simulation itself. */
#include <string.h>

#include "raftd/cluster/cluster_impl.h"
#include "raftd/cluster/survivor.h"
#include "raftd/cluster/verdict.h"
#include "raftd/db/database_impl.h"
#include "raftd/db/stamps.h"
#include "raftd/node/node.h"
#include "raftd/wire/txn.h"
#include "tests/sim/fleet/fleet.h"

void plant_disk(struct fleet_host *h)
{
    record_disk_lie(h->disk, fleet_plant == FLEET_PLANT_LIE_SYNC ? RECORD_LIE_SYNC | RECORD_LIE_DSYNC : 0);
}

/* No fault: simulated logs are short. */
enum rq_err __real_rq_node_compacted(struct rq_node *n, uint64_t index, unsigned trailing);
enum rq_err __wrap_rq_node_compacted(struct rq_node *n, uint64_t index, unsigned trailing);
enum rq_err __wrap_rq_node_compacted(struct rq_node *n, uint64_t index, unsigned trailing)
{
    const unsigned few = fleet_below(fleet->trailing_max), left = few < trailing ? few : trailing;
    fleet->current->released = index - left;
    return __real_rq_node_compacted(n, index, left);
}

/* No fault: nor do bodies that the log has released stay for long. */
enum rq_err __real_rq_shelf_release(struct rq_shelf *s, uint64_t index, unsigned linger_looks);
enum rq_err __wrap_rq_shelf_release(struct rq_shelf *s, uint64_t index, unsigned linger_looks);
enum rq_err __wrap_rq_shelf_release(struct rq_shelf *s, uint64_t index, unsigned linger_looks)
{
    (void)index; /* of a longer log */
    return __real_rq_shelf_release(s, fleet->current->released, fleet_chance(700) ? 0 : linger_looks);
}

void __real_rq_driver_forwarded(struct rq_driver *d, struct rq_submit *s, enum rq_err err, uint64_t term);
void __wrap_rq_driver_forwarded(struct rq_driver *d, struct rq_submit *s, enum rq_err err, uint64_t term);
void __wrap_rq_driver_forwarded(struct rq_driver *d, struct rq_submit *s, enum rq_err err, uint64_t term)
{
    if (err == RQ_OK) {
        fleet_count(FLEET_forwarded);
    }
    __real_rq_driver_forwarded(d, s, err, term);
}

void __real_rq_database_turn_granted(struct rq_database *db, uint64_t attempt, uint64_t serial, uint64_t index);
void __wrap_rq_database_turn_granted(struct rq_database *db, uint64_t attempt, uint64_t serial, uint64_t index);
void __wrap_rq_database_turn_granted(struct rq_database *db, uint64_t attempt, uint64_t serial, uint64_t index)
{
    fleet_count(FLEET_turns_granted);
    if (fleet_plant != FLEET_PLANT_LOST_GRANT || fleet_chance(900)) {
        __real_rq_database_turn_granted(db, attempt, serial, index);
    }
}

void __real_rq_driver_index(struct rq_driver *d, uint64_t question, enum rq_err err, uint64_t index);
void __wrap_rq_driver_index(struct rq_driver *d, uint64_t question, enum rq_err err, uint64_t index);
void __wrap_rq_driver_index(struct rq_driver *d, uint64_t question, enum rq_err err, uint64_t index)
{
    __real_rq_driver_index(d, question, err, fleet_plant == FLEET_PLANT_OLD_INDEX ? 0 : index);
}

enum rq_err __real_rq_fate_out_of_time(const struct rq_fate *f);
enum rq_err __wrap_rq_fate_out_of_time(const struct rq_fate *f);
enum rq_err __wrap_rq_fate_out_of_time(const struct rq_fate *f)
{
    return fleet_plant == FLEET_PLANT_UNKNOWN_AS_FAILED ? RQ_AWAY : __real_rq_fate_out_of_time(f);
}

enum rq_err __real_rq_stamps_check(struct rq_disk *disk, const char *dir, struct rq_catalog *catalog,
                                   const struct rq_descriptor *descriptor, struct rq_log *log, bool fetching,
                                   uint64_t *ret_newest, char text[512]);
enum rq_err __wrap_rq_stamps_check(struct rq_disk *disk, const char *dir, struct rq_catalog *catalog,
                                   const struct rq_descriptor *descriptor, struct rq_log *log, bool fetching,
                                   uint64_t *ret_newest, char text[512]);
enum rq_err __wrap_rq_stamps_check(struct rq_disk *disk, const char *dir, struct rq_catalog *catalog,
                                   const struct rq_descriptor *descriptor, struct rq_log *log, bool fetching,
                                   uint64_t *ret_newest, char text[512])
{
    const enum rq_err err = __real_rq_stamps_check(disk, dir, catalog, descriptor, log, fetching, ret_newest, text);
    *ret_newest = fleet_plant == FLEET_PLANT_NO_STAMPS ? 0 : *ret_newest;
    return err;
}

/* As one that is applied on whatever is there. */
enum rq_err __real_rq_txn_read(struct rq_txn_reader *reader, const uint8_t *data, size_t bytes);
enum rq_err __wrap_rq_txn_read(struct rq_txn_reader *reader, const uint8_t *data, size_t bytes);
enum rq_err __wrap_rq_txn_read(struct rq_txn_reader *reader, const uint8_t *data, size_t bytes)
{
    const enum rq_err err = __real_rq_txn_read(reader, data, bytes);
    if (err == RQ_OK && fleet_plant == FLEET_PLANT_ANY_BASE && fleet->current != NULL) {
        struct rq_database_info info;
        struct rq_database *db = host_database(fleet->current, reader->head.db_id);
        if (db != NULL) {
            rq_database_info(db, &info);
            reader->head.version = info.version + 1;
            reader->head.base = info.version;
            rq_database_unref(db);
        }
    }
    return err;
}

bool __real_rq_cluster_may_vote(void *cluster, const struct rq_members *members);
bool __wrap_rq_cluster_may_vote(void *cluster, const struct rq_members *members);
bool __wrap_rq_cluster_may_vote(void *cluster, const struct rq_members *members)
{
    const bool may = __real_rq_cluster_may_vote(cluster, members);
    if (may) {
        fleet_count(FLEET_promotions);
    }
    return may || fleet_plant == FLEET_PLANT_ANY_VOTER;
}

enum rq_err __real_rq_survivor_check(const struct rq_survivor *s, char text[512]);
enum rq_err __wrap_rq_survivor_check(const struct rq_survivor *s, char text[512]);
enum rq_err __wrap_rq_survivor_check(const struct rq_survivor *s, char text[512])
{
    const struct rq_survivor not_newer = { s->disk, s->dir, s->staged_dir, s->log, s->descriptor, 0 };
    if (fleet_plant == FLEET_PLANT_RECOVER_NEWER) {
        return __real_rq_survivor_check(&not_newer, text);
    }
    const enum rq_err err = __real_rq_survivor_check(s, text);
    const bool lacks_body = err != RQ_OK && strstr(text, "body") != NULL;
    return lacks_body && fleet_plant == FLEET_PLANT_RECOVER_BODILESS ? RQ_OK : err;
}

/* No fault: what a mend leads to is looked at in that moment. */
enum rq_err __real_rq_db_repair(struct rq_database *db, struct rq_repair *r, uint64_t index);
enum rq_err __wrap_rq_db_repair(struct rq_database *db, struct rq_repair *r, uint64_t index);
enum rq_err __wrap_rq_db_repair(struct rq_database *db, struct rq_repair *r, uint64_t index)
{
    const enum rq_err err = __real_rq_db_repair(db, r, index);
    if (err == RQ_OK) {
        truth_mended(fleet->current, rq_database_id(db));
    }
    return err;
}

/* The word of each other member counts twice. */
void __real_rq_verdict(const struct rq_opinion *opinions, unsigned count, unsigned voters,
                       struct rq_verdict *ret_verdict);
void __wrap_rq_verdict(const struct rq_opinion *opinions, unsigned count, unsigned voters,
                       struct rq_verdict *ret_verdict);
void __wrap_rq_verdict(const struct rq_opinion *opinions, unsigned count, unsigned voters,
                       struct rq_verdict *ret_verdict)
{
    for (unsigned i = 1; fleet_plant == FLEET_PLANT_SOLE_ACCUSER && i < count; i++) {
        const struct rq_opinion heard[] = { opinions[0], opinions[i], opinions[i] };
        __real_rq_verdict(heard, 3, 3, ret_verdict);
        if (ret_verdict->wrong_here > 0) {
            return;
        }
    }
    __real_rq_verdict(opinions, count, voters, ret_verdict);
}

/* One is enough, and the one whom fewest agree with may be the first to answer. */
static unsigned loneliest(const struct rq_opinion *opinions, unsigned count, uint32_t page)
{
    unsigned best = 0, fewest = count + 1;
    for (unsigned i = 0; i < count; i++) {
        unsigned agree = 0;
        for (unsigned k = 0; k < count && opinions[i].hashes != NULL; k++) {
            agree += opinions[k].hashes != NULL && opinions[k].hashes[page] == opinions[i].hashes[page];
        }
        agree = agree > 0 ? agree : count + 1; /* says nothing */
        best = agree < fewest ? i : best;
        fewest = agree < fewest ? agree : fewest;
    }
    return best;
}

bool __real_rq_verdict_page(const struct rq_opinion *opinions, unsigned count, uint32_t page, unsigned needed,
                            uint64_t *ret_hash);
bool __wrap_rq_verdict_page(const struct rq_opinion *opinions, unsigned count, uint32_t page, unsigned needed,
                            uint64_t *ret_hash);
bool __wrap_rq_verdict_page(const struct rq_opinion *opinions, unsigned count, uint32_t page, unsigned needed,
                            uint64_t *ret_hash)
{
    if (fleet_plant == FLEET_PLANT_MEND_BY_ANY && fleet->current->mends && count > 0) {
        *ret_hash = opinions[loneliest(opinions, count, page)].hashes[page];
        return true;
    }
    return __real_rq_verdict_page(opinions, count, page, needed, ret_hash);
}

enum rq_err __real_rq_replica_read_as_shown(struct rq_replica *r, uint32_t pgno, uint8_t *page);
enum rq_err __wrap_rq_replica_read_as_shown(struct rq_replica *r, uint32_t pgno, uint8_t *page);
enum rq_err __wrap_rq_replica_read_as_shown(struct rq_replica *r, uint32_t pgno, uint8_t *page)
{
    return fleet_plant == FLEET_PLANT_MEND_BY_WAL && !fleet->looks ? rq_replica_read(r, pgno, page)
                                                                   : __real_rq_replica_read_as_shown(r, pgno, page);
}

static enum rq_err newest_hashes(struct rq_database *db, uint32_t first, uint32_t count, uint64_t *ret_hashes)
{
    uint8_t page[FLEET_PAGE];
    struct rq_replica *r = rq_database_hold(db);
    enum rq_err err = r != NULL ? RQ_OK : RQ_QUARANTINED;
    for (uint32_t i = 0; err == RQ_OK && i < count; i++) {
        err = rq_replica_read(r, first + i, page);
        ret_hashes[i] = rq_page_hash(page, sizeof page);
    }
    rq_database_release(db);
    return err;
}

enum rq_err __real_rq_view_hashes(struct rq_view *v, struct rq_database *db, uint32_t first, uint32_t count,
                                  uint64_t *ret_hashes);
enum rq_err __wrap_rq_view_hashes(struct rq_view *v, struct rq_database *db, uint32_t first, uint32_t count,
                                  uint64_t *ret_hashes);
enum rq_err __wrap_rq_view_hashes(struct rq_view *v, struct rq_database *db, uint32_t first, uint32_t count,
                                  uint64_t *ret_hashes)
{
    return fleet_plant == FLEET_PLANT_MARK_MOVES ? newest_hashes(db, first, count, ret_hashes)
                                                 : __real_rq_view_hashes(v, db, first, count, ret_hashes);
}
