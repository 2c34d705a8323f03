#include "raftd/db/sealed_text.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "raftd/db/descriptor.h"

#define CHECK_FORMAT "check=%016llx\n"
#define CHECK_BYTES  23u /* of that line */

enum rq_err rq_sealed_write(struct rq_disk *disk, const char *dir, const char *name, uint32_t format, const char *body)
{
    char *covered, *text;
    int bytes = asprintf(&covered, "format=%u\n%s", format, body);
    if (bytes < 0) {
        return RQ_NOMEM;
    }
    bytes = asprintf(&text, "%s" CHECK_FORMAT, covered, (unsigned long long)XXH3_64bits(covered, (size_t)bytes));
    free(covered);
    if (bytes < 0) {
        return RQ_NOMEM;
    }
    enum rq_err err = rq_file_replace(disk, dir, name, text, (size_t)bytes);
    free(text);
    return err;
}

static bool check_holds(const uint8_t *data, size_t bytes)
{
    char line[CHECK_BYTES + 1];
    if (bytes < CHECK_BYTES || memchr(data, '\0', bytes) != NULL) {
        return false;
    }
    (void)snprintf(line, sizeof line, CHECK_FORMAT, (unsigned long long)XXH3_64bits(data, bytes - CHECK_BYTES));
    return memcmp(line, data + bytes - CHECK_BYTES, CHECK_BYTES) == 0;
}

/* With its check found right.  NULL: not of this form. */
static char *after_format(char *text, uint32_t *ret_format)
{
    char *end;
    if (strncmp(text, "format=", 7) != 0 || text[7] < '1' || text[7] > '9') {
        return NULL;
    }
    unsigned long format = strtoul(text + 7, &end, 10);
    *ret_format = format > UINT32_MAX ? UINT32_MAX : (uint32_t)format;
    return *end == '\n' ? end + 1 : NULL;
}

enum rq_err rq_sealed_read(struct rq_disk *disk, const char *dir, const char *name, uint32_t format, size_t bytes_max,
                           char **ret_body, uint32_t *ret_format)
{
    uint8_t *data;
    size_t bytes;
    enum rq_err err = rq_file_read(disk, dir, name, bytes_max, &data, &bytes);
    if (err != RQ_OK) {
        return err == RQ_TOOBIG ? RQ_CORRUPT : err;
    }
    char *body = NULL;
    if (check_holds(data, bytes)) {
        data[bytes - CHECK_BYTES] = '\0';
        body = after_format((char *)data, ret_format);
    }
    if (body == NULL) {
        err = RQ_CORRUPT;
    } else if (*ret_format > format) {
        err = RQ_VERSION;
    } else {
        body = strdup(body);
        *ret_body = body;
        err = body == NULL ? RQ_NOMEM : RQ_OK;
    }
    free(data);
    return err;
}
