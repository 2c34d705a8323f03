#include "raftd/db/known_files.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raftd/db/sealed_text.h"

#define BYTES_MAX      (64u << 20)
#define LINE_FORMAT    "%u %llu %llu\n"
#define LINE_BYTES_MAX 64u /* three numbers */

void rq_known_files_fini(struct rq_known_files *f)
{
    free(f->list);
    *f = (struct rq_known_files){ 0 };
}

struct rq_known_file *rq_known_files_find(const struct rq_known_files *f, uint32_t id)
{
    for (size_t i = 0; i < f->count; i++) {
        if (f->list[i].id == id) {
            return &f->list[i];
        }
    }
    return NULL;
}

enum rq_err rq_known_files_add(struct rq_known_files *f, struct rq_known_file file)
{
    struct rq_known_file *more = realloc(f->list, (f->count + 1) * sizeof *more);
    if (more == NULL) {
        return RQ_NOMEM;
    }
    f->list = more;
    f->list[f->count++] = file;
    return RQ_OK;
}

void rq_known_files_remove(struct rq_known_files *f, struct rq_known_file *file)
{
    *file = f->list[--f->count];
}

static void print_line(char line[LINE_BYTES_MAX], const struct rq_known_file *file)
{
    (void)snprintf(line, LINE_BYTES_MAX, LINE_FORMAT, file->id, (unsigned long long)file->inode,
                   (unsigned long long)file->device);
}

enum rq_err rq_known_files_write(struct rq_disk *disk, const char *raft_dir, const struct rq_known_files *f)
{
    char *body = malloc(f->count * LINE_BYTES_MAX + 1), *end = body;
    if (body == NULL) {
        return RQ_NOMEM;
    }
    *end = '\0';
    for (size_t i = 0; i < f->count; i++) {
        print_line(end, &f->list[i]);
        end += strlen(end);
    }
    enum rq_err err = rq_sealed_write(disk, raft_dir, RQ_KNOWN_FILES_NAME, RQ_KNOWN_FILES_FORMAT, body);
    free(body);
    return err;
}

/* Just the line that would be written for it. */
static bool read_line(const char *line, size_t bytes, struct rq_known_file *ret_file)
{
    char again[LINE_BYTES_MAX], *end;
    if (bytes >= sizeof again) {
        return false;
    }
    ret_file->id = (uint32_t)strtoul(line, &end, 10);
    ret_file->inode = strtoull(end, &end, 10);
    ret_file->device = strtoull(end, &end, 10);
    print_line(again, ret_file);
    return ret_file->id != 0 && strlen(again) == bytes && memcmp(line, again, bytes) == 0;
}

enum rq_err rq_known_files_read(struct rq_disk *disk, const char *raft_dir, struct rq_known_files *ret_files)
{
    struct rq_known_files f = { 0 };
    uint32_t format;
    char *body;
    enum rq_err err =
        rq_sealed_read(disk, raft_dir, RQ_KNOWN_FILES_NAME, RQ_KNOWN_FILES_FORMAT, BYTES_MAX, &body, &format);
    if (err != RQ_OK) {
        return err;
    }
    for (const char *line = body; err == RQ_OK && *line != '\0';) {
        struct rq_known_file file;
        size_t bytes = strcspn(line, "\n") + 1;
        if (line[bytes - 1] != '\n' || !read_line(line, bytes, &file) || rq_known_files_find(&f, file.id) != NULL) {
            err = RQ_CORRUPT;
        } else {
            err = rq_known_files_add(&f, file);
        }
        line += bytes;
    }
    free(body);
    if (err != RQ_OK) {
        rq_known_files_fini(&f);
        return err;
    }
    *ret_files = f;
    return RQ_OK;
}
