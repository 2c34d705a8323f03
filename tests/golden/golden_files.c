#include "tests/golden/golden_files.h"

#include <stdlib.h>
#include <string.h>

#include "raftd/db/descriptor.h"
#include "raftd/db/identity.h"
#include "raftd/db/known_files.h"
#include "raftd/db/sealed_text.h"
#include "raftd/log/format.h"
#include "raftd/net/node_key.h"
#include "tests/support/log_rig.h"
#include "tests/support/small_replica.h"
#include "vfs/wal.h"

#define RAFT          "/data/raft"
#define SEGMENT_BYTES 16384u
#define HEAD_BYTES    64u /* of the log's sectors with a head */

static void must(enum rq_err err)
{
    if (err != RQ_OK) {
        abort();
    }
}

static struct record_disk *new_disk(void)
{
    struct record_disk *d = record_disk_new();
    record_disk_mkdir_p(d, RAFT);
    return d;
}

/* --- log ---------------------------------------------------------------------------------------------------------------- */

/* CREATE and DROP, as entries of the log. */
static struct rq_log_entry create_entry(void)
{
    struct rq_bytes data;
    rq_bytes_init(&data, 256);
    must(rq_entry_put_create(
        &data, &(struct rq_entry_create){ .name = { .data = "app.db", .bytes = 6 }, .nonce = 0x0102030405060708u }));
    struct rq_log_entry e = { .index = 1, .term = 3, .type = RQ_ENTRY_CREATE, .blob = rq_blob_new(data.size) };
    memcpy(e.blob->data, data.data, data.size);
    rq_bytes_fini(&data);
    return e;
}

static void append(struct rq_log *log, struct rq_log_entry e, uint64_t committed)
{
    must(rq_log_reserve(log, e.blob != NULL ? e.blob->bytes : 0, 1));
    must(rq_log_append(log, &e, 1, committed));
    rq_blob_unref(e.blob);
}

/* Three entries in two batches, and the third again in a later term. */
static struct record_disk *log_disk(void)
{
    struct record_disk *d = new_disk();
    struct rq_log *log;
    struct rq_log_found found;
    uint64_t durable;
    must(rig_open(&d->disk, RAFT, true, SEGMENT_BYTES, 1 << 20, &log, &found));
    must(rq_log_put_meta(log, 3, RIG_INSTANCE));
    append(log, create_entry(), 0);
    must(rq_log_write(log, &durable));
    append(log, (struct rq_log_entry){ .index = 2, .term = 3, .type = RQ_ENTRY_BARRIER }, 1);
    append(log, rig_entry(3, 3, 100), 1);
    must(rq_log_write(log, &durable));
    must(rq_log_put_meta(log, 4, 0));
    append(log, rig_entry(3, 4, 20), 2);
    must(rq_log_write(log, &durable));
    must(rq_log_prepare(log)); /* a spare */
    rq_log_close(log);
    return d;
}

static void read_trimmed(const char *path, struct rq_bytes *out)
{
    struct record_disk *d = log_disk();
    small_file_read(d, path, out);
    while (out->size > 0 && out->data[out->size - 1] == 0) {
        out->size--;
    }
    record_disk_free(d);
}

void golden_log_segment(struct rq_bytes *out)
{
    read_trimmed(RAFT "/log/00000001.seg", out);
    must(rq_bytes_put(out, (uint8_t[8]){ 0 }, (8 - out->size % 8) % 8)); /* to the end of the last record */
}

void golden_log_spare(struct rq_bytes *out)
{
    read_trimmed(RAFT "/log/00000002.seg", out);
}

void golden_log_record(struct rq_bytes *out)
{
    golden_log_segment(out);
    size_t bytes = (size_t)rq_log_record_bytes(rq_get_u32(out->data + RQ_LOG_SECTOR_BYTES));
    memmove(out->data, out->data + RQ_LOG_SECTOR_BYTES, bytes);
    out->size = bytes;
}

void golden_log_meta(struct rq_bytes *out)
{
    read_trimmed(RAFT "/meta", out);
    out->size = HEAD_BYTES;
}

/* --- raft/ -------------------------------------------------------------------------------------------------------------- */

static void read_raft_file(struct record_disk *d, const char *path, struct rq_bytes *out)
{
    small_file_read(d, path, out);
    record_disk_free(d);
}

void golden_descriptor(struct rq_bytes *out)
{
    struct record_disk *d = new_disk();
    struct rq_descriptor_database databases[2] = {
        { .name = "app.db", .id = 7, .version = 302, .file_made = true },
        { .name = "new.db", .id = 9 },
    };
    uint8_t configuration[4] = { 0xc0, 0xc1, 0xc2, 0xc3 };
    const struct rq_descriptor descriptor = { 100, 3, true, 107, 1, configuration, sizeof configuration, databases, 2 };
    rq_origins_init(&databases[0].origins, 300);
    rq_origins_init(&databases[1].origins, 0);
    must(rq_origins_put(&databases[0].origins, (struct rq_origin){ 0x1122334455667788u, 5 }));
    must(rq_origins_put(&databases[0].origins, (struct rq_origin){ 0x99aabbccddeeff00u, 1 }));
    must(rq_descriptor_write(&d->disk, RAFT, &descriptor));
    rq_origins_fini(&databases[0].origins);
    read_raft_file(d, RAFT "/descriptor", out);
}

void golden_node(struct rq_bytes *out)
{
    struct record_disk *d = new_disk();
    must(rq_identity_write(&d->disk, RAFT,
                           &(struct rq_identity){ 0x0123456789abcdefu, RIG_INSTANCE, "n1", RQ_DATA_FORMAT }));
    read_raft_file(d, RAFT "/node", out);
}

/* The key of RFC 8032's first test. */
void golden_key(struct rq_bytes *out)
{
    struct record_disk *d = new_disk();
    struct rq_node_key *key;
    must(rq_sealed_write(&d->disk, RAFT, "key", RQ_NODE_KEY_FORMAT,
                         "public=d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n"
                         "private=9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60\n"));
    must(rq_node_key_load(&d->disk, RAFT, &key)); /* the halves fit together */
    rq_node_key_free(key);
    read_raft_file(d, RAFT "/key", out);
}

void golden_files(struct rq_bytes *out)
{
    struct record_disk *d = new_disk();
    struct rq_known_file list[2] = { { 7, 1234567, 66305 }, { 9, 18446744073709551615u, 0 } };
    must(rq_known_files_write(&d->disk, RAFT, &(struct rq_known_files){ list, 2 }));
    read_raft_file(d, RAFT "/files", out);
}

/* --- replica ------------------------------------------------------------------------------------------------------------ */

void golden_replica(struct rq_bytes *out)
{
    struct small_replica s;
    small_replica_init(&s);
    small_file_read(s.disk, SMALL_PATH, out);
    small_file_read(s.disk, SMALL_PATH "-wal", out);
    out->size = SMALL_DB_BYTES + SMALL_WAL_BYTES;
    small_replica_fini(&s);
}

/* Of the same replica, all of it back-filled. */
void golden_hashes(struct rq_bytes *out)
{
    struct small_replica s;
    const char *forgotten;
    char text[160];
    small_replica_init(&s);
    record_disk_mkdir_p(s.disk, RAFT "/hashes");
    must(rq_replica_keep_hashes(s.replica, RAFT "/hashes/7", 0x8877665544332211, &forgotten, text));
    must(rq_replica_backfill(s.replica));
    small_file_read(s.disk, RAFT "/hashes/7", out);
    small_replica_fini(&s);
}

void golden_shm(struct rq_bytes *out)
{
    struct small_replica s;
    small_replica_init(&s);
    small_file_read(s.disk, SMALL_PATH "-shm", out);
    out->size = 2 * sizeof(struct rq_wal_index_head) + sizeof(struct rq_wal_ckpt_info) + (size_t)SMALL_PAGE_COUNT * 4;
    small_replica_fini(&s);
}

void golden_control(struct rq_bytes *out)
{
    struct small_replica s;
    uint32_t slot;
    small_replica_init(&s);
    must(rq_slot_claim(&s.control, 0x1122334455667788u, &slot));
    must(rq_turn_take(&s.control, slot));
    atomic_store(&s.control.slots[slot].snapshot, rq_snap_word(RQ_SNAP_ACTIVE, RQ_SNAP_WAL, 3));
    atomic_store(&s.control.slots[slot].progress, 9);
    atomic_store(&s.control.slots[slot].pid, 4242); /* not this process's */
    must(rq_bytes_put(out, s.control.head, offsetof(struct rq_control_head, waiting) + sizeof s.control.head->waiting));
    must(rq_bytes_put(out, &s.control.slots[slot], sizeof(struct rq_slot)));
    small_replica_fini(&s);
}
