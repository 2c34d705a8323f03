/* formats: each file of a newer raftd is told as such and not written over; one that is damaged is never taken for a good one.
 * What is spoilt here are the golden files. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "raftd/db/catalog.h"
#include "raftd/db/identity.h"
#include "raftd/db/known_files.h"
#include "raftd/log/format.h"
#include "tests/support/hexfile.h"
#include "tests/support/log_rig.h"
#include "tests/support/small_replica.h"
#include "tests/support/tap.h"
#include "vfs/wal.h"

#define RAFT          "/data/raft"
#define SEGMENT_BYTES 16384u
#define CHECK_BYTES   23u /* last line of sealed text */

static struct record_disk *disk;
static struct rq_bytes golden;

static void begin(const char *name)
{
    char path[4096];
    disk = record_disk_new();
    record_disk_mkdir_p(disk, RAFT "/log");
    record_disk_mkdir_p(disk, RAFT "/staged");
    rq_bytes_init(&golden, 1 << 20);
    (void)snprintf(path, sizeof path, "%s/%s.hex", getenv("RQ_GOLDEN"), name);
    check(hexfile_read(path, &golden));
}

static void end(void)
{
    rq_bytes_fini(&golden);
    record_disk_free(disk);
}

static void put(const char *path)
{
    small_file_write(disk, path, golden.data, golden.size);
}

static bool untouched(const char *path)
{
    struct rq_bytes now;
    rq_bytes_init(&now, 1 << 20);
    small_file_read(disk, path, &now);
    bool same = now.size >= golden.size && memcmp(now.data, golden.data, golden.size) == 0;
    rq_bytes_fini(&now);
    return same;
}

static void seal_u64(size_t at)
{
    rq_put_u64(golden.data + at, rq_log_payload_hash(golden.data, at)); /* XXH3-64, as everywhere */
}

/* Each byte changed, each length: what read() says is never OK. */
static void no_change_is_taken(const char *path, enum rq_err (*read)(void))
{
    put(path);
    check_eq(read(), RQ_OK);
    for (size_t i = 0; i < golden.size; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 1) {
            golden.data[i] ^= (uint8_t)bit;
            put(path);
            check_eq(read(), RQ_CORRUPT);
            golden.data[i] ^= (uint8_t)bit;
        }
        small_file_write(disk, path, golden.data, i);
        check_eq(read(), RQ_CORRUPT);
    }
}

/* --- raft/node, raft/files, raft/descriptor --------------------------------------------------------------------------------- */

static enum rq_err read_node(void)
{
    struct rq_identity id;
    return rq_identity_read(&disk->disk, RAFT, &id);
}

static enum rq_err read_files(void)
{
    struct rq_known_files files;
    enum rq_err err = rq_known_files_read(&disk->disk, RAFT, &files);
    if (err == RQ_OK) {
        rq_known_files_fini(&files);
    }
    return err;
}

static enum rq_err read_descriptor(void)
{
    struct rq_descriptor d;
    enum rq_err err = rq_descriptor_read(&disk->disk, RAFT, &d);
    if (err == RQ_OK) {
        rq_descriptor_fini(&d);
    }
    return err;
}

static void damage_of_node_is_told(void)
{
    begin("node");
    no_change_is_taken(RAFT "/node", read_node);
    end();
}

static void damage_of_files_is_told(void)
{
    begin("files");
    no_change_is_taken(RAFT "/files", read_files);
    end();
}

static void damage_of_descriptor_is_told(void)
{
    begin("descriptor");
    no_change_is_taken(RAFT "/descriptor", read_descriptor);
    end();
}

/* format=2, under a right check. */
static void make_text_newer(void)
{
    size_t covered = golden.size - CHECK_BYTES;
    char line[CHECK_BYTES + 1];
    golden.data[7] = '2';
    (void)snprintf(line, sizeof line, "check=%016llx\n", (unsigned long long)rq_log_payload_hash(golden.data, covered));
    memcpy(golden.data + covered, line, CHECK_BYTES);
}

static void newer_node_is_refused(void)
{
    struct rq_identity id;
    begin("node");
    make_text_newer();
    put(RAFT "/node");
    check_eq(rq_identity_read(&disk->disk, RAFT, &id), RQ_VERSION);
    check_eq(id.format, 2);
    check(untouched(RAFT "/node"));
    end();
}

static void newer_files_are_refused_and_damaged_ones_are_none(void)
{
    static struct rq_catalog *catalog; /* a catalog lives as long as its process */
    begin("files");
    const struct rq_catalog_config config = {
        .disk = &disk->disk, .dir = "/data", .raft_dir = RAFT, .staged_dir = RAFT "/staged"
    };
    make_text_newer();
    put(RAFT "/files");
    check_eq(rq_catalog_new(&config, &catalog), RQ_VERSION);
    check(untouched(RAFT "/files"));
    golden.data[9] ^= 1;
    put(RAFT "/files");
    check_eq(rq_catalog_new(&config, &catalog), RQ_OK);
    end();
}

static void newer_descriptor_is_refused(void)
{
    begin("descriptor");
    golden.data[6] = '3';
    seal_u64(golden.size - 8);
    put(RAFT "/descriptor");
    check_eq(read_descriptor(), RQ_VERSION);
    golden.data[6] = '0';
    seal_u64(golden.size - 8);
    put(RAFT "/descriptor");
    check_eq(read_descriptor(), RQ_CORRUPT);
    end();
}

static void descriptor_of_a_node_that_was_alone_is_read(void)
{
    enum { AFTER_TERM = 24, NEW_FIELDS = 9 };
    begin("descriptor");
    golden.data[6] = '1';
    golden.size -= NEW_FIELDS;
    memmove(golden.data + AFTER_TERM, golden.data + AFTER_TERM + NEW_FIELDS, golden.size - AFTER_TERM);
    seal_u64(golden.size - 8);
    put(RAFT "/descriptor");
    check_eq(read_descriptor(), RQ_OK);
    end();
}

/* --- log ---------------------------------------------------------------------------------------------------------------- */

static void put_segment(void)
{
    uint8_t *file = calloc(1, SEGMENT_BYTES);
    check(file != NULL);
    memcpy(file, golden.data, golden.size);
    small_file_write(disk, RAFT "/log/00000001.seg", file, SEGMENT_BYTES);
    free(file);
}

static void put_meta(void)
{
    uint8_t file[4096 + RQ_LOG_SECTOR_BYTES] = { 0 };
    rq_log_put_slot(file, &(struct rq_log_slot){ RIG_INSTANCE, 1, 4, 0 });
    memcpy(file + 4096, file, RQ_LOG_SECTOR_BYTES);
    small_file_write(disk, RAFT "/meta", file, sizeof file);
}

static enum rq_err open_log(struct rq_log **ret_log, struct rq_log_found *found)
{
    return rig_open(&disk->disk, RAFT, false, SEGMENT_BYTES, 4096, ret_log, found);
}

static void newer_segment_is_refused(void)
{
    struct rq_log *log;
    struct rq_log_found found;
    begin("log-segment");
    put_meta();
    rq_put_u32(golden.data + 8, 2);
    seal_u64(56);
    put_segment();
    check_eq(open_log(&log, &found), RQ_VERSION);
    check(strcmp(found.problem, "log/00000001.seg, byte 0: written by a newer raftd") == 0);
    check(untouched(RAFT "/log/00000001.seg"));
    end();
}

static void newer_meta_is_refused(void)
{
    struct rq_log *log;
    struct rq_log_found found;
    begin("log-meta");
    put_meta();
    rq_put_u32(golden.data + 8, 2);
    seal_u64(56);
    struct rq_file *f;
    check_eq(disk->disk.ops->open(&disk->disk, RAFT "/meta", RQ_OPEN_WRITE, 0, &f), RQ_OK);
    check_eq(disk->disk.ops->write(f, golden.data, golden.size, 0), RQ_OK);
    disk->disk.ops->close(f);
    check_eq(open_log(&log, &found), RQ_VERSION); /* though the other slot is good */
    check(strcmp(found.problem, "meta: written by a newer raftd") == 0);
    check(untouched(RAFT "/meta"));
    end();
}

/* Of golden_files.c: 1 CREATE, 2 BARRIER, then 3 of term 3 and, over it, of term 4. */
static void damage_of_a_record_costs_no_more_than_the_last_batch(void)
{
    begin("log-segment");
    for (size_t i = 0; i < golden.size; i++) {
        struct rq_log *log;
        struct rq_log_found found;
        golden.data[i] ^= 0x10;
        put_meta();
        put_segment();
        enum rq_err err = open_log(&log, &found);
        if (err == RQ_OK) {
            /* Padding that nobody reads, or a torn last batch: entry 3 is then that of term 3 again. */
            check_eq(found.last_index, 3);
            check(rig_holds(log, 3, 4, 20) || rig_holds(log, 3, 3, 100));
            check(rig_holds(log, 3, 4, 20) || i >= 1536);
            rq_log_close(log);
        } else {
            check_eq(err, RQ_CORRUPT);
            check(found.problem[0] != '\0');
        }
        golden.data[i] ^= 0x10;
    }
    end();
}

static void first_index_that_would_come_round_is_damage(void)
{
    static const uint64_t bad[] = { 0, RQ_LOG_INDEX_MAX + 1, UINT64_MAX };
    begin("log-segment");
    put_meta();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct rq_log *log;
        struct rq_log_found found;
        rq_put_u64(golden.data + 32, bad[i]);
        seal_u64(56);
        put_segment();
        check_eq(open_log(&log, &found), RQ_CORRUPT);
    }
    end();
}

/* --- entries ------------------------------------------------------------------------------------------------------------ */

/* How a catalog ends that is given this as committed, in a process of its own. */
static int exit_after(uint16_t type, const uint8_t *data, size_t bytes)
{
    struct rq_catalog *catalog;
    int status = 0;
    const struct rq_catalog_config config = {
        .disk = &disk->disk, .dir = "/data", .raft_dir = RAFT, .staged_dir = RAFT "/staged"
    };
    pid_t pid = fork();
    if (pid == 0) {
        struct rq_log_entry e = { .index = 9, .term = 1, .type = type };
        if (bytes > 0) {
            e.blob = rq_blob_new(bytes);
            memcpy(e.blob->data, data, bytes);
        }
        if (rq_catalog_new(&config, &catalog) == RQ_OK) {
            struct rq_node_machine machine = rq_catalog_machine(catalog);
            machine.committed(machine.ctx, &e);
            _exit(0);
        }
        _exit(2);
    }
    check(pid > 0 && waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void newer_entry_ends_raftd_and_a_malformed_one_does_nothing(void)
{
    static const struct {
        const char *name;
        uint16_t type;
    } entries[] = {
        { "txn", RQ_ENTRY_TXN },         { "entry-staged", RQ_ENTRY_STAGED }, { "entry-create", RQ_ENTRY_CREATE },
        { "entry-drop", RQ_ENTRY_DROP }, { "entry-adopt", RQ_ENTRY_ADOPT },   { "entry-mark", RQ_ENTRY_MARK },
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        begin(entries[i].name);
        check_eq(exit_after(entries[i].type, golden.data, golden.size - 1), 0);
        check_eq(exit_after(entries[i].type, NULL, 0), 0);
        golden.data[1] = 2; /* behind the array's head of one byte */
        check_eq(exit_after(entries[i].type, golden.data, golden.size), 1);
        end();
    }
    begin("entry-drop");
    check_eq(exit_after(RQ_ENTRY_MARK + 1, golden.data, golden.size), 1);
    check_eq(exit_after(0, golden.data, golden.size), 1);
    end();
}

/* --- replica ------------------------------------------------------------------------------------------------------------ */

static enum rq_err open_replica(struct rq_replica_state *ret_state)
{
    struct small_replica s = { .disk = disk };
    record_disk_mkdir_p(disk, "/data");
    check_eq(rq_control_publish(&disk->disk, SMALL_PATH "-rqctl", SMALL_BOOT, 0600, &s.control), RQ_OK);
    const struct rq_replica_config config = small_replica_config(&s);
    enum rq_err err = rq_replica_open(&config, &s.replica, ret_state);
    small_replica_close(&s);
    return err;
}

static void put_replica(void)
{
    small_file_write(disk, SMALL_PATH, golden.data, SMALL_DB_BYTES);
    small_file_write(disk, SMALL_PATH "-wal", golden.data + SMALL_DB_BYTES, golden.size - SMALL_DB_BYTES);
}

static void newer_wal_is_refused(void)
{
    struct rq_replica_state state;
    struct rq_bytes now;
    uint8_t *wal;
    uint32_t sum[2] = { 0, 0 };
    begin("replica");
    wal = golden.data + SMALL_DB_BYTES;
    rq_put_u32(wal + 4, 3007001);
    rq_wal_checksum((wal[3] & 1) != 0, wal, 24, sum, sum);
    rq_put_u32(wal + 24, sum[0]);
    rq_put_u32(wal + 28, sum[1]);
    put_replica();
    check_eq(open_replica(&state), RQ_VERSION);
    rq_bytes_init(&now, 1 << 20);
    small_file_read(disk, SMALL_PATH "-wal", &now);
    check(memcmp(now.data, wal, RQ_WAL_HEAD_BYTES) == 0);
    rq_bytes_fini(&now);
    end();
}

static void damage_of_a_wal_gives_the_version_before_or_nothing(void)
{
    begin("replica");
    for (size_t i = SMALL_DB_BYTES; i < golden.size; i++) {
        struct rq_replica_state state;
        golden.data[i] ^= 0x10;
        put_replica();
        check_eq(open_replica(&state), RQ_OK);
        check_eq(state.version, 1);
        golden.data[i] ^= 0x10;
    }
    put_replica();
    struct rq_replica_state state;
    check_eq(open_replica(&state), RQ_OK);
    check_eq(state.version, 2);
    end();
}

static void page_that_is_nowhere_is_damage(void)
{
    struct rq_replica_state state;
    begin("replica");
    golden.size = SMALL_DB_BYTES;
    put_replica();
    check_eq(open_replica(&state), RQ_OK);
    rq_put_u32(golden.data + 28, 3);
    put_replica();
    check_eq(open_replica(&state), RQ_CORRUPT);
    end();
}

/* --- control page --------------------------------------------------------------------------------------------------------- */

static void control_page_of_another_format_is_given_up_and_made_anew(void)
{
    struct rq_control other, c;
    begin("control");
    check_eq(rq_control_publish(&disk->disk, SMALL_PATH "-rqctl", SMALL_BOOT, 0600, &other), RQ_OK);
    atomic_store(&other.head->magic, RQ_CONTROL_MAGIC + (1ull << 56));
    check_eq(rq_control_open(&disk->disk, SMALL_PATH "-rqctl", SMALL_BOOT, &c), RQ_UNREADY);
    check_eq(rq_control_publish(&disk->disk, SMALL_PATH "-rqctl", SMALL_BOOT, 0600, &c), RQ_OK);
    check_eq(atomic_load(&other.head->gone), 1);
    check(atomic_load(&c.head->magic) == RQ_CONTROL_MAGIC);
    rq_control_close(&other);
    rq_control_close(&c);
    end();
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(damage_of_node_is_told),
        TAP(damage_of_files_is_told),
        TAP(damage_of_descriptor_is_told),
        TAP(newer_node_is_refused),
        TAP(newer_files_are_refused_and_damaged_ones_are_none),
        TAP(newer_descriptor_is_refused),
        TAP(descriptor_of_a_node_that_was_alone_is_read),
        TAP(newer_segment_is_refused),
        TAP(newer_meta_is_refused),
        TAP(damage_of_a_record_costs_no_more_than_the_last_batch),
        TAP(first_index_that_would_come_round_is_damage),
        TAP(newer_entry_ends_raftd_and_a_malformed_one_does_nothing),
        TAP(newer_wal_is_refused),
        TAP(damage_of_a_wal_gives_the_version_before_or_nothing),
        TAP(page_that_is_nowhere_is_damage),
        TAP(control_page_of_another_format_is_given_up_and_made_anew),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
