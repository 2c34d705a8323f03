/* sql file: a text is cut into statements where SQLite would, wherever the pieces end in which it is read. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "raftd/http/sql_file.h"
#include "tests/support/tap.h"

static int file_of(const char *text, size_t bytes)
{
    char path[] = "/tmp/sql-file.XXXXXX";
    int fd = mkstemp(path);
    check(fd >= 0);
    check_eq(unlink(path), 0);
    check_eq(write(fd, text, bytes), bytes);
    check_eq(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/* The statements with a '|' between them, the text being read piece bytes at a time; or "ERR name" at the end. */
static const char *cut(const char *text, size_t bytes, size_t piece)
{
    static char out[65536];
    struct rq_sql_file f;
    const char *sql;
    size_t n, used = 0;
    enum rq_err err;
    int fd = file_of(text, bytes);
    out[0] = '\0';
    check_eq(rq_sql_file_init(&f, fd, piece), RQ_OK);
    while ((err = rq_sql_file_next(&f, &sql, &n)) == RQ_OK) {
        check_eq(strlen(sql), n);
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%s", used > 0 ? "|" : "", sql);
    }
    if (err != RQ_NOTFOUND) {
        (void)snprintf(out + used, sizeof out - used, "ERR %s", rq_err_name(err));
    }
    rq_sql_file_fini(&f);
    close(fd);
    return out;
}

static void statements_end_where_sqlite_ends_them(void)
{
    static const struct {
        const char *text, *wanted;
    } cases[] = {
        { "", "" },
        { "SELECT 1", "SELECT 1" },
        { "SELECT 1;", "SELECT 1;" },
        { "SELECT 1;SELECT 2; SELECT 3", "SELECT 1;|SELECT 2;| SELECT 3" },
        { "a ';' b; c \";\" d; e `;` f; g [;] h;", "a ';' b;| c \";\" d;| e `;` f;| g [;] h;" },
        { "a 'it''s;' b; c", "a 'it''s;' b;| c" },
        { "a -- ; '\nb; c", "a -- ; '\nb;| c" },
        { "a /* ; ' */ b; /* ;", "a /* ; ' */ b;| /* ;" },
        { "a /*/ ; */ b; c - - ; d", "a /*/ ; */ b;| c - - ;| d" },
        { "1 / 2 * 3; -", "1 / 2 * 3;| -" },
        { "a /***/; b /* **/;", "a /***/;| b /* **/;" },
        { "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END; SELECT 9;",
          "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT CASE WHEN 1 THEN 2 END; END;| SELECT 9;" },
        { "-- x\ncreate temp trigger t begin a; end; b;", "-- x\ncreate temp trigger t begin a; end;| b;" },
        { "CREATE TABLE t(a); CREATE INDEX i ON t(a);", "CREATE TABLE t(a);| CREATE INDEX i ON t(a);" },
        { "BEGIN; END; x;", "BEGIN;| END;| x;" },
        { ";;", ";|;" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const size_t bytes = strlen(cases[i].text);
        for (size_t piece = 1; piece <= bytes + 2; piece++) {
            const char *got = cut(cases[i].text, bytes, piece);
            if (strcmp(got, cases[i].wanted) != 0) {
                printf("# piece %zu: %s\n", piece, got);
            }
            check(strcmp(got, cases[i].wanted) == 0);
        }
    }
}

static void zero_bytes_are_refused(void)
{
    check(strcmp(cut("a;b\0c;", 6, 3), "a;ERR PROTOCOL") == 0);
    check(strcmp(cut("\0", 1, 3), "ERR PROTOCOL") == 0);
}

static void memory_is_what_the_longest_needs(void)
{
    struct rq_sql_file f;
    const char *sql;
    size_t n, count = 0, bytes = 0;
    char *text = malloc(300000);
    for (size_t i = 0; i < 300000; i++) {
        text[i] = i % 100 == 99 ? ';' : 'x';
    }
    int fd = file_of(text, 300000);
    check_eq(rq_sql_file_init(&f, fd, 128), RQ_OK);
    for (; rq_sql_file_next(&f, &sql, &n) == RQ_OK; count++) {
        bytes += n;
    }
    check_eq(count, 3000);
    check_eq(bytes, 300000);
    check(f.capacity <= 512);
    rq_sql_file_fini(&f);
    close(fd);
    free(text);
}

int main(int argc, char **argv)
{
    const struct tap_test tests[] = {
        TAP(statements_end_where_sqlite_ends_them),
        TAP(zero_bytes_are_refused),
        TAP(memory_is_what_the_longest_needs),
    };
    return tap_main(argc, argv, tests, sizeof tests / sizeof *tests);
}
