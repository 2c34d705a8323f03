/* Control page: making, mapping and giving it up; slots and who they belong to.  The turn is in turn.c.
 *
 * A page is made under another name and renamed, so a name never shows a half-made one; and one that is given up says so in
 * `gone`, because its mappings live on in running applications. */
#include "vfs/control.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES_MAX 4096u

uint64_t rq_boot_id(void)
{
    char text[64];
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return 0;
    }
    ssize_t bytes = read(fd, text, sizeof text);
    (void)close(fd);
    if (bytes < 36) { /* a UUID */
        return 0;
    }
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (ssize_t i = 0; i < 36; i++) {
        hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    }
    return hash == 0 ? 1 : hash;
}

/* --- the page ----------------------------------------------------------------------------------------------------------- */

/* Takes file.  UNREADY: shorter than a control page. */
static enum rq_err map_page(struct rq_disk *disk, struct rq_file *file, struct rq_control *ret_control)
{
    struct rq_file_info info;
    enum rq_err err = disk->ops->info(file, &info);
    if (err == RQ_OK && (!info.regular || info.size < RQ_CONTROL_BYTES)) {
        err = RQ_UNREADY;
    }
    void *memory = NULL;
    if (err == RQ_OK) {
        err = disk->ops->map(file, 0, RQ_CONTROL_BYTES, &memory);
    }
    if (err != RQ_OK) {
        disk->ops->close(file);
        return err;
    }
    *ret_control = (struct rq_control){
        .file = file,
        .head = memory,
        .slots = (struct rq_slot *)((uint8_t *)memory + RQ_CONTROL_HEAD_BYTES),
    };
    return RQ_OK;
}

bool rq_control_usable(const struct rq_control *c, uint64_t boot)
{
    return boot != 0 && atomic_load(&c->head->magic) == RQ_CONTROL_MAGIC && c->head->bytes == RQ_CONTROL_BYTES &&
           c->head->slot_count == RQ_SLOT_COUNT && c->head->boot == boot && atomic_load(&c->head->gone) == 0;
}

enum rq_err rq_control_open(struct rq_disk *disk, const char *path, uint64_t boot, struct rq_control *ret_control)
{
    struct rq_file *file;
    struct rq_control c;
    enum rq_err err = disk->ops->open(disk, path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &file);
    if (err != RQ_OK) {
        return err;
    }
    err = map_page(disk, file, &c);
    if (err != RQ_OK) {
        return err;
    }
    if (!rq_control_usable(&c, boot)) {
        rq_control_close(&c);
        return RQ_UNREADY;
    }
    *ret_control = c;
    return RQ_OK;
}

void rq_control_close(struct rq_control *c)
{
    if (c == NULL || c->file == NULL) {
        return;
    }
    struct rq_disk *disk = c->file->disk;
    if (c->former != NULL) {
        rq_control_close(c->former);
        free(c->former);
    }
    if (c->head != NULL) {
        disk->ops->unmap(c->file, c->head, RQ_CONTROL_BYTES);
    }
    disk->ops->close(c->file); /* and with the last descriptor the lock of the slot */
    *c = (struct rq_control){ 0 };
}

void rq_control_orphan(struct rq_control *c)
{
    rq_control_close(c);
}

/* Tells who has the file mapped to open it again by name. */
static void give_up_file(struct rq_file *file)
{
    struct rq_disk *disk = file->disk;
    struct rq_file_info info;
    if (disk->ops->info(file, &info) == RQ_OK && info.regular && info.size < RQ_CONTROL_BYTES) {
        /* Somebody emptied it.  Whole again, it does not kill those who still look at it. */
        uint8_t zeros[4096] = { 0 };
        for (uint64_t at = info.size; at < RQ_CONTROL_BYTES;) {
            size_t bytes = RQ_CONTROL_BYTES - at < sizeof zeros ? (size_t)(RQ_CONTROL_BYTES - at) : sizeof zeros;
            if (disk->ops->write(file, zeros, bytes, at) != RQ_OK) {
                break;
            }
            at += bytes;
        }
    }
    void *memory; /* anew: a mapping from before it was emptied may show something else by now */
    if (disk->ops->info(file, &info) == RQ_OK && info.regular && info.size >= RQ_CONTROL_BYTES &&
        disk->ops->map(file, 0, RQ_CONTROL_BYTES, &memory) == RQ_OK) {
        atomic_store(&((struct rq_control_head *)memory)->gone, 1);
        disk->ops->unmap(file, memory, RQ_CONTROL_BYTES);
    }
}

static void give_up_page(struct rq_disk *disk, const char *path)
{
    struct rq_file *file;
    if (disk->ops->open(disk, path, RQ_OPEN_WRITE | RQ_OPEN_NOFOLLOW, 0, &file) == RQ_OK) {
        give_up_file(file);
        disk->ops->close(file);
    } /* else not there, or not a file: nobody has it mapped */
}

/* Not the one of any page that running applications may know under this name. */
static uint32_t new_epoch(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint32_t)((uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u);
}

enum rq_err rq_control_publish(struct rq_disk *disk, const char *path, uint64_t boot, unsigned mode,
                               struct rq_control *ret_control)
{
    if (rq_control_open(disk, path, boot, ret_control) == RQ_OK) {
        return RQ_OK;
    }
    char draft[PATH_BYTES_MAX];
    int draft_bytes = snprintf(draft, sizeof draft, "%s-new", path);
    if (draft_bytes < 0 || (size_t)draft_bytes >= sizeof draft) {
        return RQ_TOOBIG;
    }
    uint8_t *zeros = calloc(1, RQ_CONTROL_BYTES);
    if (zeros == NULL) {
        return RQ_NOMEM;
    }
    (void)disk->ops->unlink(disk, draft); /* of a predecessor that was killed here */
    struct rq_file *file;
    enum rq_err err = disk->ops->open(
        disk, draft, RQ_OPEN_WRITE | RQ_OPEN_CREATE | RQ_OPEN_EXCLUSIVE | RQ_OPEN_NOFOLLOW, mode, &file);
    if (err != RQ_OK) {
        free(zeros);
        return err;
    }
    /* Written, not stretched: a hole would be filled when it is touched, and a full disk would kill who touches it. */
    err = disk->ops->write(file, zeros, RQ_CONTROL_BYTES, 0);
    free(zeros);
    if (err != RQ_OK) {
        disk->ops->close(file);
        goto undo_draft;
    }
    struct rq_control c;
    err = map_page(disk, file, &c);
    if (err != RQ_OK) {
        goto undo_draft;
    }
    c.head->bytes = RQ_CONTROL_BYTES;
    c.head->slot_count = RQ_SLOT_COUNT;
    c.head->boot = boot;
    atomic_store(&c.head->files_epoch, new_epoch());
    atomic_store(&c.head->magic, RQ_CONTROL_MAGIC);
    give_up_page(disk, path);
    err = disk->ops->rename(disk, draft, path);
    if (err != RQ_OK) {
        rq_control_close(&c);
        goto undo_draft;
    }
    *ret_control = c;
    return RQ_OK;

undo_draft:
    (void)disk->ops->unlink(disk, draft);
    return err;
}

enum rq_err rq_control_check(const struct rq_control *c, const char *path, uint64_t boot)
{
    struct rq_file_info ours, named;
    struct rq_disk *disk = c->file->disk;
    enum rq_err err = disk->ops->info(c->file, &ours);
    if (err == RQ_OK) {
        err = disk->ops->stat(disk, path, &named);
    }
    if (err == RQ_OK && (ours.inode != named.inode || ours.device != named.device)) {
        err = RQ_FOREIGN;
    }
    if (err == RQ_OK && (ours.size < RQ_CONTROL_BYTES || !rq_control_usable(c, boot))) {
        err = RQ_UNREADY;
    }
    return err;
}

enum rq_err rq_control_replace(struct rq_control *c, const char *path, uint64_t boot, unsigned mode)
{
    struct rq_control next;
    struct rq_control *former = malloc(sizeof *former);
    if (former == NULL) {
        return RQ_NOMEM;
    }
    give_up_file(c->file); /* before anybody can read by the new one */
    enum rq_err err = rq_control_publish(c->file->disk, path, boot, mode, &next);
    if (err != RQ_OK) {
        free(former);
        return err;
    }
    *former = *c;
    *c = next;
    c->former = former;
    return RQ_OK;
}

/* Nobody begins a snapshot by a page that is gone; so it is enough to see none once. */
static bool page_left(struct rq_control *c)
{
    rq_control_sweep(c);
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        unsigned state = rq_snap_state(atomic_load(&c->slots[i].snapshot));
        if (state != RQ_SNAP_NONE && state != RQ_SNAP_IDLE) {
            return false;
        }
    }
    return true;
}

void rq_control_drop_former(struct rq_control *c)
{
    struct rq_control **at = &c->former;
    while (*at != NULL) {
        struct rq_control *f = *at;
        if (page_left(f)) {
            *at = f->former;
            f->former = NULL;
            rq_control_close(f);
            free(f);
        } else {
            at = &f->former;
        }
    }
}

/* --- slots -------------------------------------------------------------------------------------------------------------- */

static bool lock_slot(struct rq_control *c, uint32_t slot)
{
    return c->file->disk->ops->lock(c->file, RQ_SLOT_LOCK + slot, 1, RQ_EXCLUSIVE) == RQ_OK;
}

static void unlock_slot(struct rq_control *c, uint32_t slot)
{
    (void)c->file->disk->ops->lock(c->file, RQ_SLOT_LOCK + slot, 1,
                                   RQ_UNLOCKED); /* unlocking a lock we hold cannot fail */
}

/* Of this description: its lock cannot be found out by trying. */
static bool own_slot(const struct rq_control *c, uint32_t slot)
{
    return (c->claimed[slot / 64] >> (slot % 64) & 1) != 0;
}

/* Takes back what a slot stands for.  Only with its lock: of its own, or of one whose process died.  pid last: who is killed
 * in here leaves a slot that the next sweep sees. */
static void clear_slot(struct rq_control *c, uint32_t slot)
{
    struct rq_slot *s = &c->slots[slot];
    atomic_store(&s->snapshot, rq_snap_word(RQ_SNAP_NONE, 0, 0));
    rq_turn_clear(c, slot);
    atomic_store(&s->holds, 0);
    atomic_store(&s->session, 0);
    atomic_store(&s->pid, 0);
}

enum rq_err rq_slot_claim(struct rq_control *c, uint64_t session, uint32_t *ret_slot)
{
    /* First those that look free, then those that only look taken. */
    for (int pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
            if ((atomic_load(&c->slots[i].pid) == 0) == (pass == 0) && !own_slot(c, i) && lock_slot(c, i)) {
                c->claimed[i / 64] |= 1ull << (i % 64);
                clear_slot(c, i);
                atomic_store(&c->slots[i].progress, 0);
                atomic_store(&c->slots[i].session, session);
                atomic_store(&c->slots[i].pid, (uint32_t)getpid());
                *ret_slot = i;
                return RQ_OK;
            }
        }
    }
    return RQ_BUSY;
}

void rq_slot_release(struct rq_control *c, uint32_t slot)
{
    clear_slot(c, slot);
    unlock_slot(c, slot);
    c->claimed[slot / 64] &= ~(1ull << (slot % 64));
}

/* Could anything in the page stand for this slot? */
static bool slot_used(const struct rq_control *c, uint32_t slot, uint64_t waiting_bits)
{
    const struct rq_slot *s = &c->slots[slot];
    return atomic_load(&s->pid) != 0 || atomic_load(&s->snapshot) != 0 || atomic_load(&s->session) != 0 ||
           atomic_load(&s->ticket) != 0 || (waiting_bits >> (slot % 64) & 1) != 0;
}

void rq_control_sweep(struct rq_control *c)
{
    for (uint32_t i = 0; i < RQ_SLOT_COUNT; i++) {
        /* Its lock is taken while it is cleared, so that nobody can move in meanwhile. */
        if (slot_used(c, i, atomic_load(&c->head->waiting[i / 64])) && !own_slot(c, i) && lock_slot(c, i)) {
            clear_slot(c, i);
            unlock_slot(c, i);
        }
    }
    rq_turn_mend(c);
}
