#include "raftd/http/sql_text.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#define NAME_MAX_BYTES 64u

struct pragma {
    const char *name;
    bool without_argument; /* already that is too much */
};

bool rq_pragma_disallowed(const char *name, bool has_argument)
{
    static const struct pragma pragmas[] = {
        { "journal_mode", false },
        { "wal_autocheckpoint", false },
        { "wal_checkpoint", true },
        { "synchronous", false },
        { "query_only", false },
        { "locking_mode", false },
        /* Of the whole process, thus of its other databases. */
        { "temp_store_directory", false },
        { "data_store_directory", false },
        { "soft_heap_limit", false },
        { "hard_heap_limit", false },
    };
    for (size_t i = 0; i < sizeof pragmas / sizeof *pragmas; i++) {
        if (strcasecmp(name, pragmas[i].name) == 0) {
            return has_argument || pragmas[i].without_argument;
        }
    }
    return false;
}

/* --- scanning ------------------------------------------------------------------------------------------------------------- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r' && c != '\v');
}

static bool is_name(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '$' ||
           (unsigned char)c >= 0x80;
}

/* Behind the comment that begins at s; NULL: none does. */
static const char *skip_comment(const char *s)
{
    if (s[0] == '-' && s[1] == '-') {
        return s + strcspn(s, "\n");
    }
    if (s[0] == '/' && s[1] == '*') {
        const char *end = strstr(s + 2, "*/");
        return end != NULL ? end + 2 : s + strlen(s);
    }
    return NULL;
}

static const char *skip_blanks(const char *s, bool semicolons)
{
    for (;;) {
        const char *behind = skip_comment(s);
        if (behind != NULL) {
            s = behind;
        } else if (is_space(*s) || (semicolons && *s == ';')) {
            s++;
        } else if (strncmp(s, "\xEF\xBB\xBF", 3) == 0) {
            s += 3; /* the byte order mark is a blank to SQLite */
        } else {
            return s;
        }
    }
}

const char *rq_sql_skip_blanks(const char *sql)
{
    return skip_blanks(sql, true);
}

/* Behind the quoted thing that begins at s.  A doubled quote looks like two things one behind the other, which does no harm. */
static const char *skip_quoted(const char *s)
{
    const char *end = strchr(s + 1, *s == '[' ? ']' : *s);
    return end != NULL ? end + 1 : s + strlen(s);
}

/* Behind the semicolon that ends the statement, or at the end. */
static const char *skip_statement(const char *s)
{
    while (*s != '\0' && *s != ';') {
        const char *behind = skip_comment(s);
        if (behind != NULL) {
            s = behind;
        } else if (*s == '\'' || *s == '"' || *s == '`' || *s == '[') {
            s = skip_quoted(s);
        } else {
            s++;
        }
    }
    return *s == ';' ? s + 1 : s;
}

/* Behind the word and the blanks after it; NULL: it is another one. */
static const char *skip_word(const char *s, const char *word)
{
    const size_t n = strlen(word);
    if (strncasecmp(s, word, n) != 0 || is_name(s[n])) {
        return NULL;
    }
    return skip_blanks(s + n, false);
}

/* A name, quoted or not; one too long to be a pragma's is cut.  Behind it and the blanks after it. */
static const char *take_name(const char *s, char name[NAME_MAX_BYTES])
{
    const char *start = s, *end;
    if (*s == '\'' || *s == '"' || *s == '`' || *s == '[') {
        s = skip_quoted(s);
        end = s > start + 1 ? s - 1 : s;
        start++;
    } else {
        while (is_name(*s)) {
            s++;
        }
        end = s;
    }
    size_t n = end > start ? (size_t)(end - start) : 0;
    n = n < NAME_MAX_BYTES ? n : NAME_MAX_BYTES - 1;
    memcpy(name, start, n);
    name[n] = '\0';
    return skip_blanks(s, false);
}

static bool runs_disallowed_pragma(const char *s)
{
    char name[NAME_MAX_BYTES];
    const char *explained = skip_word(s, "EXPLAIN"); /* some pragmas act while they are compiled */
    if (explained != NULL) {
        const char *query = skip_word(explained, "QUERY"), *plan = query != NULL ? skip_word(query, "PLAN") : NULL;
        s = plan != NULL ? plan : explained;
    }
    s = skip_word(s, "PRAGMA");
    if (s == NULL) {
        return false;
    }
    s = take_name(s, name);
    if (*s == '.') {
        s = take_name(skip_blanks(s + 1, false), name);
    }
    return rq_pragma_disallowed(name, *s == '=' || *s == '(');
}

bool rq_sql_has_disallowed_pragma(const char *sql)
{
    for (const char *s = rq_sql_skip_blanks(sql); *s != '\0'; s = rq_sql_skip_blanks(skip_statement(s))) {
        if (runs_disallowed_pragma(s)) {
            return true;
        }
    }
    return false;
}

bool rq_sql_is_one_change(const char *sql)
{
    static const char *const words[] = { "INSERT", "REPLACE", "UPDATE", "DELETE" };
    const char *s = rq_sql_skip_blanks(sql);
    bool changes = false;
    for (size_t i = 0; i < sizeof words / sizeof *words && !changes; i++) {
        changes = skip_word(s, words[i]) != NULL;
    }
    return changes && *rq_sql_skip_blanks(skip_statement(s)) == '\0';
}
