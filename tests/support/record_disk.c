/* Order in this file: inodes and names; moments; handles and content; mappings; locks; names; death and start. */
#include "tests/support/record_disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/support/record_content.h"
#include "tests/support/seeded.h"

#define FREE_BYTES     ((uint64_t)1 << 40)
#define NAME_BYTES_MAX 255u

struct record_entry {
    char *name;                 /* owns */
    struct record_inode *inode; /* shares */
};
struct record_names {
    struct record_entry *entries; /* in the order of their making */
    size_t count, capacity;
};

struct record_lock {
    const struct record_file *holder;
    uint64_t begin, end;
    enum rq_lock kind;
};

/* The memory that all mappings of a file share.  After a death the old process's mappings keep it, the file does not. */
struct record_map {
    uint8_t *memory;
    unsigned refs;
};

struct record_inode {
    struct record_inode *next, *prev; /* in record_disk.inodes */
    struct record_disk *owner;
    unsigned refs; /* entries of names, ops, handles */
    uint64_t number;
    bool is_dir;
    unsigned mode;
    unsigned links;              /* names that processes see */
    struct record_names visible; /* of a directory */
    struct record_names durable;
    struct record_content content; /* of a file */
    struct record_map *map;
    struct record_lock *locks;
    size_t lock_count, lock_capacity;
    struct record_inode *twin; /* while a copy is made */
    int fate;                  /* while power is lost: enum name_fate */
};

enum op_kind { OP_LINK, OP_UNLINK, OP_RENAME };
struct record_op {
    enum op_kind kind;
    struct record_inode *dir, *to_dir; /* to_dir: of a rename, else dir */
    char *name, *to_name;
    struct record_inode *inode; /* LINK */
};

struct record_file {
    struct rq_file file; /* first */
    struct record_inode *inode;
    struct record_map *map; /* of its mappings */
    unsigned map_count;
    unsigned generation;
    int flags;
};

static void *must(void *memory)
{
    if (memory == NULL || memory == MAP_FAILED) {
        fprintf(stderr, "recording disk: out of memory\n");
        abort();
    }
    return memory;
}

/* What no reference is left to. */
static void counted_free(void *memory)
{
#ifndef __clang_analyzer__ /* does not follow the count: to it each unref may be the last */
    free(memory);
#else
    (void)memory;
#endif
}

static struct record_disk *record_disk_of(struct rq_disk *d)
{
    return (struct record_disk *)d;
}

static struct record_file *record_file_of(struct rq_file *f)
{
    return (struct record_file *)f;
}

/* ---- inodes and names ---- */

static void inode_unref(struct record_inode *inode);

static struct record_inode *inode_new(struct record_disk *d, bool is_dir, unsigned mode)
{
    struct record_inode *inode = must(calloc(1, sizeof *inode));
    inode->owner = d;
    inode->refs = 1;
    inode->number = ++d->inode_last;
    inode->is_dir = is_dir;
    inode->mode = mode;
    inode->next = d->inodes;
    if (d->inodes != NULL) {
        d->inodes->prev = inode;
    }
    d->inodes = inode;
    return inode;
}

static struct record_inode *inode_ref(struct record_inode *inode)
{
    inode->refs++;
    return inode;
}

static void map_unref(struct record_map *map)
{
    if (map != NULL && --map->refs == 0) {
        munmap(map->memory, RECORD_MAP_BYTES_MAX);
        counted_free(map);
    }
}

static void names_fini(struct record_names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->entries[i].name);
        inode_unref(names->entries[i].inode);
    }
    free(names->entries);
    *names = (struct record_names){ 0 };
}

static void inode_unref(struct record_inode *inode)
{
    if (inode == NULL || --inode->refs > 0) {
        return;
    }
    names_fini(&inode->visible);
    names_fini(&inode->durable);
    record_content_fini(&inode->content);
    map_unref(inode->map);
    free(inode->locks);
    if (inode->next != NULL) {
        inode->next->prev = inode->prev;
    }
    if (inode->prev != NULL) {
        inode->prev->next = inode->next;
    } else {
        inode->owner->inodes = inode->next;
    }
    counted_free(inode);
}

static struct record_entry *names_find(const struct record_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->entries[i].name, name) == 0) {
            return &names->entries[i];
        }
    }
    return NULL;
}

static void names_remove(struct record_names *names, const char *name)
{
    struct record_entry *e = names_find(names, name);
    if (e != NULL) {
        struct record_entry gone = *e;
        size_t at = (size_t)(e - names->entries);
        names->count--;
        memmove(e, e + 1, (names->count - at) * sizeof *e);
        free(gone.name);
        inode_unref(gone.inode);
    }
}

static void names_put(struct record_names *names, const char *name, struct record_inode *inode)
{
    inode_ref(inode);
    names_remove(names, name);
    if (names->entries == NULL || names->count == names->capacity) {
        names->capacity = names->capacity == 0 ? 8 : names->capacity * 2;
        names->entries = must(realloc(names->entries, names->capacity * sizeof *names->entries));
    }
    names->entries[names->count++] = (struct record_entry){ must(strdup(name)), inode };
}

static void op_apply(const struct record_op *op, struct record_names *from, struct record_names *to)
{
    switch (op->kind) {
        case OP_LINK:
            names_put(to, op->name, op->inode);
            break;
        case OP_UNLINK:
            names_remove(from, op->name);
            break;
        case OP_RENAME: {
            struct record_entry *e = names_find(from, op->name);
            if (e != NULL) {
                struct record_inode *inode = inode_ref(e->inode);
                names_remove(from, op->name);
                names_put(to, op->to_name, inode);
                inode_unref(inode);
            }
            break;
        }
    }
}

static void op_fini(struct record_op *op)
{
    inode_unref(op->dir);
    inode_unref(op->to_dir);
    inode_unref(op->inode);
    free(op->name);
    free(op->to_name);
}

static char *copy_text(const char *text)
{
    return text != NULL ? must(strdup(text)) : NULL;
}

static void op_add(struct record_disk *d, enum op_kind kind, struct record_inode *dir, const char *name,
                   struct record_inode *to_dir, const char *to_name, struct record_inode *inode)
{
    if (d->op_count == d->op_capacity) {
        d->op_capacity = d->op_capacity == 0 ? 16 : d->op_capacity * 2;
        d->ops = must(realloc(d->ops, d->op_capacity * sizeof *d->ops));
    }
    d->ops[d->op_count++] = (struct record_op){
        .kind = kind,
        .dir = inode_ref(dir),
        .to_dir = inode_ref(to_dir),
        .name = copy_text(name),
        .to_name = copy_text(to_name),
        .inode = inode != NULL ? inode_ref(inode) : NULL,
    };
}

/* Changes what processes see and notes that it is not durable. */
static void change_names(struct record_disk *d, enum op_kind kind, struct record_inode *dir, const char *name,
                         struct record_inode *to_dir, const char *to_name, struct record_inode *inode)
{
    op_add(d, kind, dir, name, to_dir, to_name, inode);
    op_apply(&d->ops[d->op_count - 1], &dir->visible, &to_dir->visible);
}

/* The directory that path lies in, and path's last part; NULL when there is none. */
static struct record_inode *find_parent(struct record_disk *d, const char *path, char last[NAME_BYTES_MAX + 1])
{
    struct record_inode *dir = d->root;
    last[0] = 0;
    for (;;) {
        path += strspn(path, "/");
        size_t n = strcspn(path, "/");
        if (n == 0) {
            return dir;
        }
        if (n > NAME_BYTES_MAX) {
            return NULL;
        }
        if (n == 1 && path[0] == '.') {
            path++;
            continue;
        }
        if (last[0] != 0) { /* the part before was not the last */
            const struct record_entry *e = names_find(&dir->visible, last);
            if (e == NULL || !e->inode->is_dir) {
                return NULL;
            }
            dir = e->inode;
        }
        memcpy(last, path, n);
        last[n] = 0;
        path += n;
    }
}

static struct record_inode *find(struct record_disk *d, const char *path)
{
    char last[NAME_BYTES_MAX + 1];
    struct record_inode *dir = find_parent(d, path, last);
    if (dir == NULL || last[0] == 0) {
        return dir;
    }
    const struct record_entry *e = names_find(&dir->visible, last);
    return e != NULL ? e->inode : NULL;
}

/* ---- moments ---- */

/* What was stored through mappings becomes writes of the blocks that differ. */
static void fold_map(struct record_inode *inode)
{
    if (inode->map == NULL) {
        return;
    }
    uint8_t held[RECORD_BLOCK_BYTES];
    uint64_t size = inode->content.cache.size < RECORD_MAP_BYTES_MAX ? inode->content.cache.size : RECORD_MAP_BYTES_MAX;
    for (uint64_t at = 0; at < size; at += sizeof held) {
        size_t n = record_content_read(&inode->content, held, sizeof held, at);
        n = n < size - at ? n : (size_t)(size - at);
        if (memcmp(held, inode->map->memory + at, n) != 0) {
            record_content_write(&inode->content, inode->map->memory + at, n, at);
        }
    }
}

/* The lock is held. */
static void process_ends(struct record_disk *d)
{
    d->off = true;
    d->generation++;
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        fold_map(i);
        map_unref(i->map);
        i->map = NULL;
        i->lock_count = 0;
    }
}

/* The lock is held, and is let go while somebody looks.  IO: the process died in this call. */
static enum rq_err moment(struct record_disk *d)
{
    uint64_t number = ++d->moments; /* a watcher may make calls of its own */
    if (d->watch_cb != NULL) {
        pthread_mutex_unlock(&d->lock);
        d->watch_cb(d->watch_ctx, d);
        pthread_mutex_lock(&d->lock);
    }
    if (number == d->stop_moment) {
        process_ends(d);
        d->stopped = true;
    }
    return d->off ? RQ_IO : RQ_OK;
}

/* Counts a sync of data; IO when this one has to fail. */
static enum rq_err count_sync(struct record_disk *d, struct record_content *c)
{
    d->syncs++;
    if (d->syncs != d->fail_sync) {
        return RQ_OK;
    }
    record_content_forget_dirty(c);
    return RQ_IO;
}

/* ---- handles and content ---- */

static bool is_dead(const struct record_file *f)
{
    const struct record_disk *d = f->inode->owner;
    return d->off || f->generation != d->generation;
}

/* The other way, after a change of content. */
static void spread_to_map(struct record_inode *inode, uint64_t offset, uint64_t bytes)
{
    if (inode->map == NULL || offset >= RECORD_MAP_BYTES_MAX) {
        return;
    }
    size_t room = (size_t)(bytes < RECORD_MAP_BYTES_MAX - offset ? bytes : RECORD_MAP_BYTES_MAX - offset);
    size_t n = record_content_read(&inode->content, inode->map->memory + offset, room, offset);
    memset(inode->map->memory + offset + n, 0, room - n);
}

static enum rq_err record_open(struct rq_disk *disk, const char *path, int flags, unsigned mode,
                               struct rq_file **ret_file)
{
    struct record_disk *d = record_disk_of(disk);
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&d->lock);
    char last[NAME_BYTES_MAX + 1];
    struct record_inode *dir = find_parent(d, path, last);
    struct record_inode *inode = find(d, path);
    const bool create = (flags & RQ_OPEN_CREATE) != 0, exclusive = create && (flags & RQ_OPEN_EXCLUSIVE) != 0;
    if (d->off || (inode != NULL && inode->is_dir && !exclusive)) {
        err = RQ_IO;
    } else if (dir == NULL || (inode == NULL && !create)) {
        err = RQ_NOTFOUND;
    } else if (inode != NULL && exclusive) {
        err = RQ_EXISTS;
    } else if (inode == NULL) {
        inode = inode_new(d, false, mode);
        inode->links = 1;
        change_names(d, OP_LINK, dir, last, dir, NULL, inode);
        err = moment(d);
        inode_unref(inode); /* its name holds it */
    }
    if (err == RQ_OK) {
        struct record_file *f = must(calloc(1, sizeof *f));
        f->file.disk = disk;
        f->inode = inode_ref(inode);
        f->generation = d->generation;
        f->flags = flags;
        *ret_file = &f->file;
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static void drop_locks(struct record_file *f)
{
    struct record_inode *inode = f->inode;
    size_t kept = 0;
    for (size_t i = 0; i < inode->lock_count; i++) {
        if (inode->locks[i].holder != f) {
            inode->locks[kept++] = inode->locks[i];
        }
    }
    inode->lock_count = kept;
}

static void record_close(struct rq_file *file)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    pthread_mutex_lock(&d->lock);
    drop_locks(f);
    for (; f->map_count > 0; f->map_count--) {
        map_unref(f->map);
    }
    inode_unref(f->inode);
    pthread_mutex_unlock(&d->lock);
    free(f);
}

static enum rq_err record_read(struct rq_file *file, void *data, size_t bytes, uint64_t offset, size_t *ret_bytes)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f)) {
        fold_map(f->inode);
        *ret_bytes = record_content_read(&f->inode->content, data, bytes, offset);
        err = RQ_OK;
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_writev(struct rq_file *file, struct iovec *parts, int part_count, uint64_t offset)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    struct record_content *c = &f->inode->content;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f) && (f->flags & RQ_OPEN_WRITE) != 0) {
        size_t bytes = 0;
        fold_map(f->inode);
        for (int i = 0; i < part_count; i++) {
            record_content_write(c, parts[i].iov_base, parts[i].iov_len, offset + bytes);
            bytes += parts[i].iov_len;
        }
        spread_to_map(f->inode, offset, bytes);
        err = moment(d);
        if (err == RQ_OK && (f->flags & RQ_OPEN_DSYNC) != 0) {
            err = count_sync(d, c);
            if (err == RQ_OK && (d->lies & RECORD_LIE_DSYNC) == 0) {
                record_content_sync_range(c, offset, bytes);
            }
        }
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_write(struct rq_file *file, const void *data, size_t bytes, uint64_t offset)
{
    struct iovec part = { (void *)(uintptr_t)data, bytes };
    return record_writev(file, &part, 1, offset);
}

/* Nothing is sure by it: any write that is not synced may be on the medium anyway. */
static void record_begin_sync(struct rq_file *file, uint64_t offset, uint64_t bytes)
{
    (void)file;
    (void)offset;
    (void)bytes;
}

static enum rq_err record_sync(struct rq_file *file)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f)) {
        fold_map(f->inode);
        err = moment(d);
    }
    if (err == RQ_OK) {
        err = count_sync(d, &f->inode->content);
    }
    if (err == RQ_OK && (d->lies & RECORD_LIE_SYNC) == 0) {
        record_content_sync(&f->inode->content);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_truncate(struct rq_file *file, uint64_t size)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f) && (f->flags & RQ_OPEN_WRITE) != 0) {
        fold_map(f->inode);
        uint64_t old = f->inode->content.cache.size;
        record_content_truncate(&f->inode->content, size);
        if (size < old) {
            spread_to_map(f->inode, size, old - size);
        }
        err = moment(d);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_reserve(struct rq_file *file, uint64_t offset, uint64_t bytes)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f) && (f->flags & RQ_OPEN_WRITE) != 0) {
        fold_map(f->inode);
        record_content_grow(&f->inode->content, offset + bytes);
        err = moment(d);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static struct rq_file_info info_of(const struct record_inode *inode)
{
    return (struct rq_file_info){
        .size = inode->content.cache.size,
        .inode = inode->number,
        .device = 1,
        .links = inode->links,
        .mode = inode->mode | (inode->is_dir ? S_IFDIR : S_IFREG),
        .regular = !inode->is_dir,
    };
}

static enum rq_err record_info(struct rq_file *file, struct rq_file_info *ret_info)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f)) {
        *ret_info = info_of(f->inode);
        err = RQ_OK;
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

/* ---- mappings ---- */

static enum rq_err record_map_memory(struct rq_file *file, uint64_t offset, size_t bytes, void **ret_memory)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (is_dead(f)) {
        err = RQ_IO;
    } else if (bytes > RECORD_MAP_BYTES_MAX || offset > RECORD_MAP_BYTES_MAX - bytes) {
        err = RQ_NOMEM;
    } else {
        struct record_map *map = f->inode->map;
        if (map == NULL) {
            map = must(calloc(1, sizeof *map));
            map->memory = must(mmap(NULL, RECORD_MAP_BYTES_MAX, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            map->refs = 1;
            f->inode->map = map;
            record_content_read(&f->inode->content, map->memory, RECORD_MAP_BYTES_MAX, 0);
        }
        f->map =
            map; /* one for the life of this handle: only a death takes it from the inode, and the handle dies too */
        f->map_count++;
        map->refs++;
        *ret_memory = map->memory + offset;
        err = RQ_OK;
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static void record_unmap(struct rq_file *file, void *memory, size_t bytes)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    (void)memory;
    (void)bytes;
    pthread_mutex_lock(&d->lock);
    f->map_count--;
    map_unref(f->map);
    pthread_mutex_unlock(&d->lock);
}

/* ---- locks ---- */

static bool is_taken(const struct record_file *f, uint64_t begin, uint64_t end, enum rq_lock kind)
{
    for (size_t i = 0; i < f->inode->lock_count; i++) {
        const struct record_lock *l = &f->inode->locks[i];
        if (l->holder != f && l->begin < end && begin < l->end && (kind == RQ_EXCLUSIVE || l->kind == RQ_EXCLUSIVE)) {
            return true;
        }
    }
    return false;
}

static void lock_add(struct record_inode *inode, struct record_lock l)
{
    if (l.begin >= l.end) {
        return;
    }
    if (inode->lock_count == inode->lock_capacity) {
        inode->lock_capacity = inode->lock_capacity == 0 ? 8 : inode->lock_capacity * 2;
        inode->locks = must(realloc(inode->locks, inode->lock_capacity * sizeof *inode->locks));
    }
    inode->locks[inode->lock_count++] = l;
}

/* As fcntl: the new kind replaces the holder's old one on exactly this range; what lies around it stays. */
static void lock_set(struct record_file *f, uint64_t begin, uint64_t end, enum rq_lock kind)
{
    struct record_inode *inode = f->inode;
    struct record_lock *old = inode->locks;
    size_t old_count = inode->lock_count;
    inode->locks = NULL;
    inode->lock_count = inode->lock_capacity = 0;
    for (size_t i = 0; i < old_count; i++) {
        if (old[i].holder != f || old[i].end <= begin || end <= old[i].begin) {
            lock_add(inode, old[i]);
            continue;
        }
        lock_add(inode, (struct record_lock){ f, old[i].begin, begin, old[i].kind });
        lock_add(inode, (struct record_lock){ f, end, old[i].end, old[i].kind });
    }
    free(old);
    if (kind != RQ_UNLOCKED) {
        lock_add(inode, (struct record_lock){ f, begin, end, kind });
    }
}

static enum rq_err record_lock_range(struct rq_file *file, uint64_t offset, uint64_t bytes, enum rq_lock kind)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    uint64_t end = bytes == 0 ? UINT64_MAX : offset + bytes;
    enum rq_err err = RQ_OK;
    pthread_mutex_lock(&d->lock);
    if (is_dead(f) || (kind == RQ_EXCLUSIVE && (f->flags & RQ_OPEN_WRITE) == 0)) {
        err = RQ_IO;
    } else if (kind != RQ_UNLOCKED && is_taken(f, offset, end, kind)) {
        err = RQ_BUSY;
    } else {
        lock_set(f, offset, end, kind);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_lock_test(struct rq_file *file, uint64_t offset, uint64_t bytes, bool *ret_taken)
{
    struct record_file *f = record_file_of(file);
    struct record_disk *d = f->inode->owner;
    enum rq_err err = RQ_IO;
    pthread_mutex_lock(&d->lock);
    if (!is_dead(f)) {
        *ret_taken = is_taken(f, offset, bytes == 0 ? UINT64_MAX : offset + bytes, RQ_EXCLUSIVE);
        err = RQ_OK;
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

/* ---- names ---- */

static enum rq_err record_rename(struct rq_disk *disk, const char *from, const char *to)
{
    struct record_disk *d = record_disk_of(disk);
    enum rq_err err;
    pthread_mutex_lock(&d->lock);
    char from_name[NAME_BYTES_MAX + 1], to_name[NAME_BYTES_MAX + 1];
    struct record_inode *from_dir = find_parent(d, from, from_name), *to_dir = find_parent(d, to, to_name);
    struct record_inode *inode = find(d, from), *replaced = find(d, to);
    if (d->off) {
        err = RQ_IO;
    } else if (inode == NULL || to_dir == NULL) {
        err = RQ_NOTFOUND;
    } else if (from_name[0] == 0 || to_name[0] == 0 || (replaced != NULL && replaced->is_dir)) {
        err = RQ_EXISTS;
    } else if (inode == replaced) {
        err = RQ_OK;
    } else {
        if (replaced != NULL) {
            replaced->links--;
        }
        change_names(d, OP_RENAME, from_dir, from_name, to_dir, to_name, NULL);
        err = moment(d);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_unlink(struct rq_disk *disk, const char *path)
{
    struct record_disk *d = record_disk_of(disk);
    enum rq_err err;
    pthread_mutex_lock(&d->lock);
    char name[NAME_BYTES_MAX + 1];
    struct record_inode *dir = find_parent(d, path, name), *inode = find(d, path);
    if (d->off || (inode != NULL && inode->is_dir)) {
        err = RQ_IO;
    } else if (inode == NULL) {
        err = RQ_NOTFOUND;
    } else {
        inode->links--;
        change_names(d, OP_UNLINK, dir, name, dir, NULL, NULL);
        err = moment(d);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_mkdir(struct rq_disk *disk, const char *path, unsigned mode)
{
    struct record_disk *d = record_disk_of(disk);
    enum rq_err err;
    pthread_mutex_lock(&d->lock);
    char name[NAME_BYTES_MAX + 1];
    struct record_inode *dir = find_parent(d, path, name);
    if (d->off) {
        err = RQ_IO;
    } else if (dir == NULL) {
        err = RQ_NOTFOUND;
    } else if (name[0] == 0 || names_find(&dir->visible, name) != NULL) {
        err = RQ_EXISTS;
    } else {
        struct record_inode *inode = inode_new(d, true, mode);
        inode->links = 1;
        change_names(d, OP_LINK, dir, name, dir, NULL, inode);
        inode_unref(inode);
        err = moment(d);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

/* Every change of dir, and of the directories that its renames tie to it, goes to the medium in order. */
static void sync_names(struct record_disk *d, struct record_inode *dir)
{
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        i->fate = i == dir;
    }
    for (bool more = true; more;) {
        more = false;
        for (size_t i = 0; i < d->op_count; i++) {
            struct record_op *op = &d->ops[i];
            if (op->dir->fate != op->to_dir->fate) {
                op->dir->fate = op->to_dir->fate = 1;
                more = true;
            }
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < d->op_count; i++) {
        struct record_op op = d->ops[i];
        if (op.dir->fate != 0) {
            op_apply(&op, &op.dir->durable, &op.to_dir->durable);
            op_fini(&op);
        } else {
            d->ops[kept++] = op;
        }
    }
    d->op_count = kept;
}

static enum rq_err record_sync_dir(struct rq_disk *disk, const char *path)
{
    struct record_disk *d = record_disk_of(disk);
    enum rq_err err;
    pthread_mutex_lock(&d->lock);
    struct record_inode *dir = find(d, path);
    if (d->off) {
        err = RQ_IO;
    } else if (dir == NULL || !dir->is_dir) {
        err = RQ_NOTFOUND;
    } else {
        err = moment(d);
    }
    if (err == RQ_OK && (d->lies & RECORD_LIE_SYNC_DIR) == 0) {
        sync_names(d, dir);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_stat(struct rq_disk *disk, const char *path, struct rq_file_info *ret_info)
{
    struct record_disk *d = record_disk_of(disk);
    pthread_mutex_lock(&d->lock);
    const struct record_inode *inode = find(d, path);
    enum rq_err err = d->off ? RQ_IO : inode == NULL ? RQ_NOTFOUND : RQ_OK;
    if (err == RQ_OK) {
        *ret_info = info_of(inode);
    }
    pthread_mutex_unlock(&d->lock);
    return err;
}

static enum rq_err record_list(struct rq_disk *disk, const char *path,
                               enum rq_err (*name_cb)(void *ctx, const char *name), void *ctx)
{
    struct record_disk *d = record_disk_of(disk);
    pthread_mutex_lock(&d->lock);
    const struct record_inode *dir = find(d, path);
    enum rq_err err = d->off ? RQ_IO : dir == NULL || !dir->is_dir ? RQ_NOTFOUND : RQ_OK;
    size_t count = err == RQ_OK ? dir->visible.count : 0;
    char **names = must(calloc(count + 1, sizeof *names));
    for (size_t i = 0; i < count; i++) {
        names[i] = copy_text(dir->visible.entries[i].name);
    }
    pthread_mutex_unlock(&d->lock);
    for (size_t i = 0; i < count; i++) { /* the callback may change the directory */
        if (err == RQ_OK) {
            err = name_cb(ctx, names[i]);
        }
        free(names[i]);
    }
    free(names);
    return err;
}

static enum rq_err record_space(struct rq_disk *disk, const char *path, uint64_t *ret_free_bytes)
{
    struct rq_file_info info;
    enum rq_err err = record_stat(disk, path, &info);
    if (err == RQ_OK) {
        *ret_free_bytes = FREE_BYTES;
    }
    return err;
}

static const struct rq_disk_ops record_ops = {
    .open = record_open,
    .close = record_close,
    .read = record_read,
    .write = record_write,
    .writev = record_writev,
    .sync = record_sync,
    .begin_sync = record_begin_sync,
    .truncate = record_truncate,
    .reserve = record_reserve,
    .info = record_info,
    .lock = record_lock_range,
    .lock_test = record_lock_test,
    .map = record_map_memory,
    .unmap = record_unmap,
    .rename = record_rename,
    .unlink = record_unlink,
    .mkdir = record_mkdir,
    .sync_dir = record_sync_dir,
    .stat = record_stat,
    .list = record_list,
    .space = record_space,
};

/* ---- death and start ---- */

static struct record_disk *disk_new(void)
{
    struct record_disk *d = must(calloc(1, sizeof *d));
    d->disk.ops = &record_ops;
    pthread_mutex_init(&d->lock, NULL);
    return d;
}

struct record_disk *record_disk_new(void)
{
    struct record_disk *d = disk_new();
    d->root = inode_new(d, true, 0755);
    d->root->links = 1;
    return d;
}

static void drop_ops(struct record_disk *d)
{
    for (size_t i = 0; i < d->op_count; i++) {
        op_fini(&d->ops[i]);
    }
    d->op_count = 0;
}

void record_disk_free(struct record_disk *d)
{
    if (d == NULL) {
        return;
    }
    drop_ops(d);
    free(d->ops);
    inode_unref(d->root);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static void names_copy(struct record_names *to, const struct record_names *from)
{
    for (size_t i = 0; i < from->count; i++) {
        names_put(to, from->entries[i].name, from->entries[i].inode->twin);
    }
}

struct record_disk *record_disk_fork(struct record_disk *d)
{
    struct record_disk *copy = disk_new();
    pthread_mutex_lock(&d->lock);
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        fold_map(i);
        i->twin = inode_new(copy, i->is_dir, i->mode);
        i->twin->number = i->number;
        i->twin->links = i->links;
        record_content_copy(&i->twin->content, &i->content);
    }
    copy->inode_last = d->inode_last;
    copy->root = d->root->twin;
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        names_copy(&i->twin->visible, &i->visible);
        names_copy(&i->twin->durable, &i->durable);
    }
    for (size_t i = 0; i < d->op_count; i++) {
        const struct record_op *op = &d->ops[i];
        op_add(copy, op->kind, op->dir->twin, op->name, op->to_dir->twin, op->to_name,
               op->inode != NULL ? op->inode->twin : NULL);
    }
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        if (i != d->root) {
            inode_unref(i->twin); /* names and ops hold it now; what only a handle held is gone */
        }
    }
    copy->moments = d->moments;
    copy->syncs = d->syncs;
    copy->lies = d->lies;
    copy->off = true;
    pthread_mutex_unlock(&d->lock);
    return copy;
}

void record_disk_crash(struct record_disk *d)
{
    pthread_mutex_lock(&d->lock);
    process_ends(d);
    pthread_mutex_unlock(&d->lock);
}

enum name_fate { LOSE_NAMES, KEEP_NAMES, KEEP_SOME_NAMES };

static bool name_change_survives(struct record_inode *dir, uint64_t *seed)
{
    if (dir->fate == KEEP_SOME_NAMES && seeded_below(seed, 4) == 0) {
        dir->fate = LOSE_NAMES;
    }
    return dir->fate != LOSE_NAMES;
}

void record_disk_power_loss(struct record_disk *d, uint64_t seed)
{
    pthread_mutex_lock(&d->lock);
    process_ends(d);
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        i->fate = (int)seeded_below(&seed, 3);
    }
    for (size_t i = 0; i < d->op_count; i++) {
        struct record_op *op = &d->ops[i];
        bool from = name_change_survives(op->dir, &seed);
        bool to = op->to_dir == op->dir ? from : name_change_survives(op->to_dir, &seed);
        if (from && to) {
            op_apply(op, &op->dir->durable, &op->to_dir->durable);
        } else {
            op->dir->fate = op->to_dir->fate = LOSE_NAMES;
        }
    }
    drop_ops(d);
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        i->twin = i;
        i->links = 0;
        if (!i->is_dir) {
            record_content_power_loss(&i->content, &seed);
        }
    }
    /* Dropping names may free inodes, but never the one at hand: each step holds the next. */
    struct record_inode *next;
    for (struct record_inode *i = inode_ref(d->inodes); i != NULL; i = next) {
        names_fini(&i->visible);
        names_copy(&i->visible, &i->durable);
        next = i->next != NULL ? inode_ref(i->next) : NULL;
        inode_unref(i);
    }
    d->root->links = 1;
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        for (size_t n = 0; n < i->visible.count; n++) {
            i->visible.entries[n].inode->links = 1;
        }
    }
    pthread_mutex_unlock(&d->lock);
}

void record_disk_start(struct record_disk *d)
{
    pthread_mutex_lock(&d->lock);
    d->off = false;
    d->stopped = false;
    d->stop_moment = 0;
    pthread_mutex_unlock(&d->lock);
}

void record_disk_stop_at(struct record_disk *d, uint64_t moments_from_now)
{
    pthread_mutex_lock(&d->lock);
    d->stop_moment = moments_from_now > 0 ? d->moments + moments_from_now : 0;
    pthread_mutex_unlock(&d->lock);
}

void record_disk_watch(struct record_disk *d, void (*watch_cb)(void *ctx, struct record_disk *d), void *ctx)
{
    pthread_mutex_lock(&d->lock);
    d->watch_cb = watch_cb;
    d->watch_ctx = ctx;
    pthread_mutex_unlock(&d->lock);
}

void record_disk_fail_sync(struct record_disk *d, uint64_t syncs_from_now)
{
    pthread_mutex_lock(&d->lock);
    d->fail_sync = syncs_from_now > 0 ? d->syncs + syncs_from_now : 0;
    pthread_mutex_unlock(&d->lock);
}

void record_disk_evict(struct record_disk *d)
{
    pthread_mutex_lock(&d->lock);
    for (struct record_inode *i = d->inodes; i != NULL; i = i->next) {
        fold_map(i);
        record_content_evict(&i->content);
        spread_to_map(i, 0, RECORD_MAP_BYTES_MAX);
    }
    pthread_mutex_unlock(&d->lock);
}

void record_disk_lie(struct record_disk *d, unsigned lies)
{
    pthread_mutex_lock(&d->lock);
    d->lies = lies;
    pthread_mutex_unlock(&d->lock);
}

void record_disk_mkdir_p(struct record_disk *d, const char *path)
{
    pthread_mutex_lock(&d->lock);
    struct record_inode *dir = d->root;
    char name[NAME_BYTES_MAX + 1];
    for (const char *p = path + strspn(path, "/"); *p != 0; p += strspn(p, "/")) {
        size_t n = strcspn(p, "/");
        snprintf(name, sizeof name, "%.*s", (int)n, p);
        const struct record_entry *e = names_find(&dir->visible, name);
        struct record_inode *below = e != NULL ? e->inode : NULL;
        if (below == NULL) {
            below = inode_new(d, true, 0755);
            below->links = 1;
            names_put(&dir->visible, name, below);
            names_put(&dir->durable, name, below);
            inode_unref(below);
        }
        dir = below;
        p += n;
    }
    pthread_mutex_unlock(&d->lock);
}
