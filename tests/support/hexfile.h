/* Hexfile: bytes as text: two hex digits each, blanks and lines between as one likes, comments from # to the end of the line. */
#ifndef TESTS_SUPPORT_HEXFILE_H
#define TESTS_SUPPORT_HEXFILE_H

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "raftd/wire/bytes.h"

/* Appends the bytes to out; false when the file cannot be read or is not of this form. */
static inline bool hexfile_read(const char *path, struct rq_bytes *out)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        return false;
    }
    char digits[3] = { 0 };
    unsigned count = 0;
    bool comment = false, good = true;
    for (int c; good && (c = getc(f)) != EOF;) {
        comment = c == '#' || (comment && c != '\n');
        if (comment || isspace(c)) {
            continue;
        }
        good = isxdigit(c) != 0;
        digits[count++ % 2] = (char)c;
        if (good && count % 2 == 0) {
            uint8_t byte = (uint8_t)strtoul(digits, NULL, 16);
            good = rq_bytes_put(out, &byte, 1) == RQ_OK;
        }
    }
    good = good && !ferror(f) && count % 2 == 0;
    return fclose(f) == 0 && good;
}

/* Sixteen bytes a line, under a comment. */
static inline bool hexfile_write(const char *path, const char *comment, const uint8_t *data, size_t bytes)
{
    FILE *f = fopen(path, "w");
    if (f == NULL) {
        return false;
    }
    fprintf(f, "# %s\n", comment);
    for (size_t i = 0; i < bytes; i++) {
        fprintf(f, "%02x%c", data[i], i % 16 == 15 || i + 1 == bytes ? '\n' : ' ');
    }
    bool good = !ferror(f);
    return fclose(f) == 0 && good;
}

#endif
