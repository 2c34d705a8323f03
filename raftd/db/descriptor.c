/* Bytes, integers big-endian:
 *   u64 "RQDESC2\0"  u64 index  u64 term  u8 installed  u64 ahead  u64 configuration index  u32 bytes, configuration
 *   u32 databases, each: u16 bytes, name  u32 id  u64 version  u8 file made  u64 first base  u32 origins, each: u64 session  u64 seq
 *   u64 XXH3-64 over all before */
#include "raftd/db/descriptor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "raftd/wire/fields.h"

#define MAGIC       0x5251444553433200ull /* "RQDESC2\0" */
#define MAGIC_1     0x5251444553433100ull /* of a node that was alone for ever: without installed and ahead */
#define MAGIC_DIGIT 0xff00ull             /* the format */
#define NAME        "descriptor"
#define BYTES_MAX   (1u << 30)

void rq_descriptor_fini(struct rq_descriptor *d)
{
    for (uint32_t i = 0; i < d->database_count; i++) {
        rq_origins_fini(&d->databases[i].origins);
    }
    free(d->databases);
    free(d->configuration);
    *d = (struct rq_descriptor){ 0 };
}

/* --- small files ------------------------------------------------------------------------------------------------------------ */

enum rq_err rq_file_replace(struct rq_disk *disk, const char *dir, const char *name, const void *data, size_t bytes)
{
    char *path = NULL, *beside = NULL;
    struct rq_file *f;
    enum rq_err err = RQ_NOMEM;
    if (asprintf(&path, "%s/%s", dir, name) < 0) {
        return RQ_NOMEM;
    }
    if (asprintf(&beside, "%s/%s.new", dir, name) < 0) {
        free(path);
        return RQ_NOMEM;
    }
    err = disk->ops->open(disk, beside, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_NOFOLLOW, 0600, &f);
    if (err == RQ_OK) {
        err = disk->ops->truncate(f, 0);
        if (err == RQ_OK) {
            err = disk->ops->write(f, data, bytes, 0);
        }
        if (err == RQ_OK) {
            err = disk->ops->sync(f);
        }
        disk->ops->close(f);
    }
    if (err == RQ_OK) {
        err = disk->ops->rename(disk, beside, path);
    }
    if (err == RQ_OK) {
        err = disk->ops->sync_dir(disk, dir);
    }
    free(path);
    free(beside);
    return err;
}

enum rq_err rq_file_read(struct rq_disk *disk, const char *dir, const char *name, size_t max, uint8_t **ret_data,
                         size_t *ret_bytes)
{
    char *path;
    struct rq_file *f;
    struct rq_file_info info;
    if (asprintf(&path, "%s/%s", dir, name) < 0) {
        return RQ_NOMEM;
    }
    enum rq_err err = disk->ops->open(disk, path, RQ_OPEN_READ | RQ_OPEN_NOFOLLOW, 0, &f);
    free(path);
    if (err != RQ_OK) {
        return err;
    }
    err = disk->ops->info(f, &info);
    if (err == RQ_OK && info.size > max) {
        err = RQ_TOOBIG;
    }
    uint8_t *data = err == RQ_OK ? malloc(info.size + 1) : NULL;
    if (err == RQ_OK && data == NULL) {
        err = RQ_NOMEM;
    }
    size_t n = 0;
    if (err == RQ_OK) {
        err = disk->ops->read(f, data, info.size, 0, &n);
    }
    disk->ops->close(f);
    if (err != RQ_OK) {
        free(data);
        return err;
    }
    data[n] = '\0';
    *ret_data = data;
    *ret_bytes = n;
    return RQ_OK;
}

/* --- writing -------------------------------------------------------------------------------------------------------------------- */

enum rq_err rq_descriptor_write(struct rq_disk *disk, const char *raft_dir, const struct rq_descriptor *d)
{
    struct rq_bytes out;
    struct rq_fields_writer w = { &out, RQ_OK };
    rq_bytes_init(&out, BYTES_MAX);
    rq_fields_put_u64(&w, MAGIC);
    rq_fields_put_u64(&w, d->index);
    rq_fields_put_u64(&w, d->term);
    rq_fields_put_u8(&w, d->installed);
    rq_fields_put_u64(&w, d->ahead);
    rq_fields_put_u64(&w, d->configuration_index);
    rq_fields_put_block(&w, d->configuration, d->configuration_bytes);
    rq_fields_put_u32(&w, d->database_count);
    for (uint32_t i = 0; i < d->database_count; i++) {
        const struct rq_descriptor_database *db = &d->databases[i];
        rq_fields_put_u16(&w, (uint16_t)strlen(db->name));
        rq_fields_put(&w, db->name, strlen(db->name));
        rq_fields_put_u32(&w, db->id);
        rq_fields_put_u64(&w, db->version);
        rq_fields_put_u8(&w, db->file_made);
        rq_fields_put_u64(&w, db->origins.first);
        rq_fields_put_u32(&w, (uint32_t)(db->origins.next - db->origins.first));
        for (uint64_t base = db->origins.first; base < db->origins.next; base++) {
            struct rq_origin o = { 0 };
            (void)rq_origins_find(&db->origins, base, &o); /* it is in range */
            rq_fields_put_u64(&w, o.session);
            rq_fields_put_u64(&w, o.seq);
        }
    }
    if (w.err == RQ_OK) {
        rq_fields_put_u64(&w, XXH3_64bits(out.data, out.size));
    }
    if (w.err == RQ_OK) {
        w.err = rq_file_replace(disk, raft_dir, NAME, out.data, out.size);
    }
    rq_bytes_fini(&out);
    return w.err;
}

/* --- reading -------------------------------------------------------------------------------------------------------------------- */

static enum rq_err read_database(struct rq_fields_reader *r, struct rq_descriptor_database *db)
{
    uint16_t name_bytes = rq_fields_take_u16(r);
    if (name_bytes == 0 || name_bytes > RQ_DB_NAME_MAX || r->left < name_bytes) {
        return RQ_CORRUPT;
    }
    memcpy(db->name, rq_fields_take(r, name_bytes), name_bytes);
    db->id = rq_fields_take_u32(r);
    db->version = rq_fields_take_u64(r);
    uint8_t file_made = rq_fields_take_u8(r);
    uint64_t first = rq_fields_take_u64(r);
    uint32_t count = rq_fields_take_u32(r);
    if (r->short_of || strlen(db->name) != name_bytes || db->id == 0 || file_made > 1 || count > RQ_ORIGINS_MAX ||
        first > db->version || db->version - first != count) {
        return RQ_CORRUPT;
    }
    db->file_made = file_made == 1;
    rq_origins_init(&db->origins, first);
    for (uint32_t i = 0; i < count; i++) {
        struct rq_origin o;
        o.session = rq_fields_take_u64(r);
        o.seq = rq_fields_take_u64(r);
        enum rq_err err = rq_origins_put(&db->origins, o);
        if (err != RQ_OK) {
            return err;
        }
    }
    return r->short_of ? RQ_CORRUPT : RQ_OK;
}

static enum rq_err decode(const uint8_t *data, size_t bytes, struct rq_descriptor *d)
{
    if (bytes < 16 || rq_get_u64(data + bytes - 8) != XXH3_64bits(data, bytes - 8)) {
        return RQ_CORRUPT;
    }
    struct rq_fields_reader r = { data, bytes - 8, false };
    uint64_t magic = rq_fields_take_u64(&r);
    if (magic != MAGIC && magic != MAGIC_1) { /* the digit of a newer format is higher; its hash is where ours is */
        return (magic & ~MAGIC_DIGIT) == (MAGIC & ~MAGIC_DIGIT) && magic > MAGIC ? RQ_VERSION : RQ_CORRUPT;
    }
    d->index = rq_fields_take_u64(&r);
    d->term = rq_fields_take_u64(&r);
    if (magic == MAGIC) {
        const uint8_t installed = rq_fields_take_u8(&r);
        d->installed = installed == 1;
        d->ahead = rq_fields_take_u64(&r);
        if (installed > 1 || (d->ahead != 0 && d->ahead <= d->index)) {
            return RQ_CORRUPT;
        }
    }
    d->configuration_index = rq_fields_take_u64(&r);
    size_t configuration_bytes = rq_fields_take_u32(&r);
    if (r.short_of || r.left < configuration_bytes) {
        return RQ_CORRUPT;
    }
    d->configuration = malloc(configuration_bytes + 1);
    if (d->configuration == NULL) {
        return RQ_NOMEM;
    }
    memcpy(d->configuration, rq_fields_take(&r, configuration_bytes), configuration_bytes);
    d->configuration_bytes = configuration_bytes;
    uint32_t count = rq_fields_take_u32(&r);
    if (count > r.left / 27) { /* the bytes of the smallest entry */
        return RQ_CORRUPT;
    }
    d->databases = calloc(count + 1u, sizeof *d->databases);
    if (d->databases == NULL) {
        return RQ_NOMEM;
    }
    while (d->database_count < count) {
        enum rq_err err = read_database(&r, &d->databases[d->database_count++]);
        if (err != RQ_OK) {
            return err;
        }
    }
    return r.short_of || r.left > 0 ? RQ_CORRUPT : RQ_OK;
}

enum rq_err rq_descriptor_read(struct rq_disk *disk, const char *raft_dir, struct rq_descriptor *ret_descriptor)
{
    uint8_t *data;
    size_t bytes;
    struct rq_descriptor d = { 0 };
    enum rq_err err = rq_file_read(disk, raft_dir, NAME, BYTES_MAX, &data, &bytes);
    if (err != RQ_OK) {
        return err;
    }
    err = decode(data, bytes, &d);
    free(data);
    if (err != RQ_OK) {
        rq_descriptor_fini(&d);
        return err;
    }
    *ret_descriptor = d;
    return RQ_OK;
}
